package appliance

import (
	"context"
	"fmt"
	"slices"

	"wuamesh/agentproto/rules"
)

// Promotion is what Promote would do.
type Promotion struct {
	From   rules.Maturity `json:"from"`
	To     rules.Maturity `json:"to"`
	Impact Impact         `json:"impact"`
}

// promotion is the package one maturity further on.
func (a *Appliance) promotion(ctx context.Context, name string) (from rules.Maturity, e PackageEdit, err error) {
	p, err := a.Package(ctx, name)
	if err != nil {
		return "", e, err
	}
	e = p.Edit()
	i := slices.Index(rules.Maturities[:], e.Maturity)
	if i < 0 || i == len(rules.Maturities)-1 {
		return "", e, &Problem{Kind: Conflict, Msg: fmt.Sprintf("Package %s is %s already: there is nothing to promote it to.", name, e.Maturity), Hint: "Edit the package to take its maturity back."}
	}
	from, e.Maturity = e.Maturity, rules.Maturities[i+1]
	return from, e, nil
}

// PreviewPromotion says where Promote takes a package, and what that does to
// hosts.
func (a *Appliance) PreviewPromotion(ctx context.Context, name string) (Promotion, error) {
	from, e, err := a.promotion(ctx, name)
	if err != nil {
		return Promotion{}, err
	}
	i, err := a.PreviewPackage(ctx, name, e)
	return Promotion{from, e.Maturity, i}, err
}

// Promote takes a package from DEV to PREPROD, or from PREPROD to PROD. The
// reason stands in its versions and in the audit log.
func (a *Appliance) Promote(ctx context.Context, by Actor, name, reason string) error {
	reason, err := reasonOf(reason, "A promotion needs a reason.", "Say what shows that the package is good for more hosts, for whoever asks in a year.")
	if err != nil {
		return err
	}
	return a.promoteBy(ctx, by, name, reason)
}
