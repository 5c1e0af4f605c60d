package appliance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/replicate"
)

// A ComplianceRule says when a host is compliant: it was scanned within so many
// days, and no update of these severities waits that it may install. The whole
// mesh goes by one.
type ComplianceRule struct {
	Days       int              `json:"days"` // 1 to 365
	Severities []rules.Severity `json:"severities"`
	editRecord
}

// defaultCompliance holds while nobody chose another.
var defaultCompliance = ComplianceRule{Days: 7, Severities: []rules.Severity{rules.Critical, rules.Important}}

// complianceKey is the only one of its kind.
const complianceKey = "rule"

func (r ComplianceRule) check() error {
	switch {
	case r.Days < 1 || r.Days > 365:
		return &Problem{Kind: Invalid, Field: "days", Msg: "A scan may be 1 to 365 days old.", Hint: "7 is what agents that scan each day reach with a week of holidays."}
	case len(r.Severities) == 0:
		return &Problem{Kind: Invalid, Field: "severities", Msg: "At least one severity counts.", Hint: "Critical and Important are usual."}
	}
	for _, s := range r.Severities {
		if !slices.Contains(rules.Severities[:], s) {
			return &Problem{Kind: Invalid, Field: "severities", Msg: fmt.Sprintf("%q is no severity.", s), Hint: "There are Critical, Important, Moderate, Low and Unspecified."}
		}
	}
	return nil
}

// String says the rule in a sentence, without a full stop.
func (r ComplianceRule) String() string {
	names := make([]string, len(r.Severities))
	for i, s := range r.Severities {
		names[i] = string(s)
	}
	last := len(names) - 1
	if last > 0 {
		names = []string{strings.Join(names[:last], ", "), names[last]}
	}
	return fmt.Sprintf("scanned in the last %s, and no allowed %s update waits", things(r.Days, "day", "days"), strings.Join(names, " or "))
}

func (r ComplianceRule) age() time.Duration { return time.Duration(r.Days) * 24 * time.Hour }

// A Compliance is how many hosts are compliant, and what the others lack. Each
// host is counted once.
type Compliance struct {
	Name      string `json:"name,omitempty"` // of the site, or the ring
	Hosts     int    `json:"hosts"`
	Compliant int    `json:"compliant"`
	Pending   int    `json:"pending"`   // an update waits that counts
	Missing   int    `json:"missing"`   // and a file is on no node
	Unscanned int    `json:"unscanned"` // not lately
}

// A HostStand is where a host stands with the rule.
type HostStand string

// The stands, the worst last.
const (
	StandCompliant HostStand = "compliant"
	StandPending   HostStand = "pending"   // an update waits that counts
	StandMissing   HostStand = "missing"   // and a file is on no node
	StandUnscanned HostStand = "unscanned" // not lately
)

// stands are they by number; 0 is of hosts that were not let in.
var stands = [...]HostStand{"", StandCompliant, StandPending, StandMissing, StandUnscanned}

var standTexts = [...]string{"", "Compliant", "Updates wait", "A file is on no node", "Not scanned lately"}

// unknownSite is where hosts are whose node is not known yet.
const unknownSite = "(not known)"

const (
	standCompliant uint8 = iota + 1
	standPending
	standMissing
	standUnscanned
)

func standOf(fresh, important bool, n hostCounts) uint8 {
	switch {
	case !fresh:
		return standUnscanned
	case !important:
		return standCompliant
	case n.of(outcomeMissing) > 0:
		return standMissing
	}
	return standPending
}

func (c *Compliance) add(stand uint8) {
	c.Hosts++
	switch stand {
	case standCompliant:
		c.Compliant++
	case standPending:
		c.Pending++
	case standMissing:
		c.Missing++
	case standUnscanned:
		c.Unscanned++
	}
}

// named are the rows in which there are hosts, by name.
func named(rows []Compliance, name func(int) string) []Compliance {
	list := []Compliance{}
	for i, r := range rows {
		if r.Hosts > 0 {
			r.Name = name(i)
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(x, y Compliance) int { return strings.Compare(x.Name, y.Name) })
	return list
}

// firstRing is the ring of hosts that accept these maturities, by its number: the
// one that gets packages first.
func firstRing(accepts []rules.Maturity) int {
	i := slices.IndexFunc(rules.Maturities[:], func(m rules.Maturity) bool { return slices.Contains(accepts, m) })
	return max(i, 0)
}

func ringName(i int) string { return string(rules.Maturities[i]) }

func (c *catalogue) takeCompliance(r replicate.Record) error {
	rule := defaultCompliance
	if !r.Deleted {
		if err := decode(r.Key, r.Value, &rule); err != nil {
			return err
		}
	}
	if err := rule.check(); err != nil {
		return err
	}
	c.compliance = rule
	c.touch()
	return nil
}

// ComplianceRule is what the mesh goes by; At is zero while nobody chose it.
func (a *Appliance) ComplianceRule() ComplianceRule {
	a.cat.mu.RLock()
	defer a.cat.mu.RUnlock()
	return a.cat.compliance
}

// SetComplianceRule changes when hosts are compliant, on the whole mesh.
func (a *Appliance) SetComplianceRule(ctx context.Context, by Actor, r ComplianceRule) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	r, err := r.tidy()
	if err != nil {
		return err
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		was, ok, err := complianceRules.find(tx, complianceKey)
		if err != nil {
			return err
		}
		if !ok {
			was = defaultCompliance
		}
		r.editRecord = editRecord{by.Name, tx.Now()}
		if err := complianceRules.put(tx, complianceKey, r); err != nil {
			return err
		}
		return a.audit(tx, by, "set compliance", "mesh", was.String(), r.String())
	})
}

// tidy is the rule checked, its severities once each in their order.
func (r ComplianceRule) tidy() (ComplianceRule, error) {
	if err := r.check(); err != nil {
		return r, err
	}
	given := r.Severities
	r.Severities = nil
	for _, s := range rules.Severities {
		if slices.Contains(given, s) {
			r.Severities = append(r.Severities, s)
		}
	}
	return r, nil
}

// A CompliancePreview is what another rule would make of the hosts.
type CompliancePreview struct {
	Now  Compliance `json:"now"`
	Then Compliance `json:"then"`
}

// PreviewCompliance counts the hosts by another rule; nothing is stored.
func (a *Appliance) PreviewCompliance(_ context.Context, r ComplianceRule) (p CompliancePreview, err error) {
	if r, err = r.tidy(); err != nil {
		return p, err
	}
	c := a.cat
	c.mu.Lock()
	p.Now = c.counts(time.Now()).all
	k := c.newCount(time.Now(), r)
	c.mu.Unlock()
	k.run(c.locked)
	p.Then = k.all
	return p, nil
}

// A TrendDay is how many hosts were compliant at the end of a day, as the node
// counted that tells it.
type TrendDay struct {
	Day       string `json:"day"` // 2026-11-26, in the node's zone
	Hosts     int    `json:"hosts"`
	Compliant int    `json:"compliant"`
}

const (
	trendEvery = 10 * time.Minute
	trendShown = 30 // days
	trendKept  = 90 // days
)

// keepTrend notes how many hosts are compliant, day by day. It is a part of
// the node.
func (a *Appliance) keepTrend(ctx context.Context) error {
	return every(ctx, a.log, trendEvery, func(ctx context.Context) error { return a.noteDay(ctx, time.Now()) })
}

func (a *Appliance) noteDay(ctx context.Context, now time.Time) error {
	today := a.today(now)
	if today.Hosts == 0 {
		return nil
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		oldest := now.AddDate(0, 0, -trendKept).Format(time.DateOnly)
		for r, err := range trends.all(tx) {
			if err != nil {
				return err
			}
			if r.id == today.Day && r.value == today {
				return nil
			}
			if r.id < oldest {
				if err := trends.del(tx, r.id); err != nil {
					return err
				}
			}
		}
		return trends.put(tx, today.Day, today)
	})
}

func (a *Appliance) today(now time.Time) TrendDay {
	a.cat.mu.Lock()
	defer a.cat.mu.Unlock()
	all := a.cat.counts(time.Now()).all
	return TrendDay{now.Format(time.DateOnly), all.Hosts, all.Compliant}
}

// trend are the last days that this node noted, the last of them as it is now.
func (a *Appliance) trend(ctx context.Context, now time.Time) (list []TrendDay, err error) {
	first := now.AddDate(0, 0, 1-trendShown).Format(time.DateOnly)
	today := a.today(now)
	err = a.db.View(ctx, func(tx *replicate.Tx) error {
		for r, err := range trends.all(tx) {
			if err != nil {
				return err
			}
			if r.id >= first && r.id < today.Day {
				list = append(list, r.value)
			}
		}
		return nil
	})
	return append(list, today), err
}
