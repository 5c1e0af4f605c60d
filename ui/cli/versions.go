package cli

import (
	"context"
	"fmt"
	"strings"

	"wuamesh/appliance"
	"wuamesh/appliance/api"
)

// versions lists the edits of a package, of a deleted one, too.
func (t *target) versions(ctx context.Context, s Streams, name string) error {
	return t.versionsAt(ctx, s, "rules/"+name)
}

// versionsAt lists the edits of the package, profile or group at a path.
func (t *target) versionsAt(ctx context.Context, s Streams, path string) error {
	var list []appliance.PackageVersion
	if err := t.get(ctx, s, path+"/versions", nil, &list); err != nil || t.json {
		return err
	}
	g := newGrid(s.Out, "VERSION", "AT", "BY", "NODE", "WHAT", "CHANGES")
	for _, v := range list {
		var changes []string
		for _, a := range v.Added {
			changes = append(changes, "+ "+a)
		}
		for _, r := range v.Removed {
			changes = append(changes, "- "+r)
		}
		if v.More > 0 {
			changes = append(changes, fmt.Sprintf("and %d more", v.More))
		}
		g.row(v.ID, when(v.At, ""), v.By, v.Node, v.Action, strings.Join(changes, ", "))
	}
	return g.flush()
}

// goBack makes a package what it was, and says what that does to hosts.
func (t *target) goBack(ctx context.Context, s Streams, name, version string, dry bool) error {
	path := "rules/" + name + "/versions/" + version
	var i appliance.Impact
	if err := t.call(ctx, s, path+"/impact", nil, &i); err != nil {
		return err
	}
	if dry {
		if t.json {
			return printJSON(s.Out, i)
		}
		return printImpact(s, i)
	}
	var p appliance.PackageDetail
	if err := t.post(ctx, s, path+"/restore", nil, &p); err != nil {
		return err
	}
	if t.json {
		return printJSON(s.Out, p)
	}
	fmt.Fprintln(s.Err, i.Summary())
	return printPackage(s, p)
}

// promote takes a package one maturity on, and says what that does to hosts.
func (t *target) promote(ctx context.Context, s Streams, name, reason string, dry bool) error {
	if reason == "" && !dry {
		return usage("say why with --reason")
	}
	var step appliance.Promotion
	if err := t.call(ctx, s, "rules/"+name+"/promote", nil, &step); err != nil {
		return err
	}
	if dry {
		if t.json {
			return printJSON(s.Out, step)
		}
		fmt.Fprintf(s.Out, "%s from %s to %s.\n", name, step.From, step.To)
		return printImpact(s, step.Impact)
	}
	var p appliance.PackageDetail
	if err := t.post(ctx, s, "rules/"+name+"/promote", api.Promote{Reason: reason}, &p); err != nil {
		return err
	}
	if t.json {
		return printJSON(s.Out, p)
	}
	fmt.Fprintln(s.Err, step.Impact.Summary())
	return printPackage(s, p)
}
