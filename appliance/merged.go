package appliance

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto/rules"
)

// A Merged is another package that hosts get besides one. They hold together,
// in no order; where they disagree, the one that forbids wins.
type Merged struct {
	Package  string         `json:"package"`
	Maturity rules.Maturity `json:"maturity"`
	Hosts    int            `json:"hosts"` // that get both
	// Hosts on which one of the two forbids an update that waits for them and
	// that the other allows: the other package wins there, or it loses.
	Wins  int `json:"wins"`
	Loses int `json:"loses"`
	// Disputed are those updates, at most 200, those of most hosts first.
	Disputed []DisputedUpdate `json:"disputed,omitempty"`
}

// A DisputedUpdate is an update that one of two packages allows and the other
// forbids.
type DisputedUpdate struct {
	Update UpdateName `json:"update"`
	Winner string     `json:"winner"` // the package that forbids it
	Hosts  int        `json:"hosts"`  // that get both, and do not have it installed
}

// Merged are the other packages of the hosts that get a package, those it
// disagrees with first.
func (a *Appliance) Merged(ctx context.Context, name string) ([]Merged, error) {
	if _, err := a.Package(ctx, name); err != nil {
		return nil, err
	}
	c := a.cat
	c.mu.Lock()
	defer c.mu.Unlock()
	index, hosts := c.indexed(), map[*class][]*host{}
	for _, k := range c.classNumbers {
		if c.gets(k, name) {
			hosts[k] = []*host{}
		}
	}
	for _, x := range index {
		if k := c.classNumbers[x.class]; hosts[k] != nil {
			hosts[k] = append(hosts[k], x.host)
		}
	}
	return c.merged(c, name, hosts, time.Now()), nil
}

// A merging looks at what the hosts that get one package get besides.
type merging struct {
	c     *catalogue // what is known of hosts and updates
	rules *catalogue // what decides: the same, or as an edit would leave it
	name  string
	now   time.Time
	named map[int]namedUpdate // the variants that the package names
	with  map[string]*Merged
	pairs map[string]map[int]bool // by package, the variants that it disagrees about; true where it forbids
	seen  map[seenPair]bool       // whether the hosts of a policy wait for a cell that is forbidden
	sums  map[disputeKey]int      // hosts
}

// A namedUpdate is an update of which lines of the package say something.
type namedUpdate struct {
	rules.Update
	verb rules.Verb
}

type seenPair struct {
	policy *policy
	cell   cell
}

type disputeKey struct {
	other  string
	update rules.UpdateID
	wins   bool // the other one forbids it
}

// merged works that out for the hosts, which all get the package, by class in
// the catalogue that decides. The lock is held for writing.
func (c *catalogue) merged(deciding *catalogue, name string, hosts map[*class][]*host, now time.Time) []Merged {
	m := &merging{c: c, rules: deciding, name: name, now: now, with: map[string]*Merged{}, pairs: map[string]map[int]bool{}, seen: map[seenPair]bool{}, sums: map[disputeKey]int{}}
	for k, list := range hosts {
		m.class(k, list)
	}
	return m.result()
}

// class adds the hosts of a class. Their statuses are looked at only for what
// packages of theirs disagree about, which mostly is nothing.
func (m *merging) class(k *class, list []*host) {
	p := m.rules.policyOf(&host{class: k})
	disputed := map[int][]disputeKey{} // by variant
	for _, g := range p.Packages {
		if g.Name == m.name {
			continue
		}
		w := m.with[g.Name]
		if w == nil {
			w = &Merged{Package: g.Name, Maturity: g.Maturity}
			m.with[g.Name], m.pairs[g.Name] = w, m.disagree(g)
		}
		w.Hosts += len(list)
		for n, wins := range m.pairs[g.Name] {
			disputed[n] = append(disputed[n], disputeKey{g.Name, m.c.variants.list[n].id, wins})
		}
	}
	if len(disputed) == 0 {
		return
	}
	for _, h := range list {
		if !h.Waiting {
			m.host(h, p, disputed)
		}
	}
}

// host adds a host that gets packages which disagree.
func (m *merging) host(h *host, p *policy, disputed map[int][]disputeKey) {
	won, lost := map[string]bool{}, map[string]bool{}
	for _, k := range h.statuses.cells {
		list := disputed[k.variant()]
		if list == nil || !m.waits(p, k) {
			continue
		}
		for _, d := range list {
			m.sums[d]++
			if d.wins {
				won[d.other] = true
			} else {
				lost[d.other] = true
			}
		}
	}
	for name := range won {
		m.with[name].Wins++
	}
	for name := range lost {
		m.with[name].Loses++
	}
}

// waits says whether hosts of a policy do not have what the cell is of, and it
// is the forbid that keeps it from them.
func (m *merging) waits(p *policy, k cell) bool {
	key := seenPair{p, k}
	is, ok := m.seen[key]
	if !ok {
		pr := m.c.pair(p, k, m.c.status(&host{}, k), m.now)
		is = !pr.status.Installed && !pr.status.Restart && pr.decision.Verdict == rules.Forbidden
		m.seen[key] = is
	}
	return is
}

// disagree are the variants that one package allows and the other forbids;
// true where the other one does.
func (m *merging) disagree(other rules.Package) map[int]bool {
	lines := map[rules.Line]bool{}
	for _, l := range other.Lines {
		lines[l] = true
	}
	list := map[int]bool{}
	for n, u := range m.ours() {
		if theirs := verbOf(u.Update, func(l rules.Line) bool { return lines[l] }); theirs != "" && theirs != u.verb {
			list[n] = theirs == rules.Forbid
		}
	}
	return list
}

// ours are the variants that the package itself names.
func (m *merging) ours() map[int]namedUpdate {
	if m.named != nil {
		return m.named
	}
	m.named = map[int]namedUpdate{}
	own := m.rules.packages[m.name].lines
	for n, v := range m.c.variants.list {
		u := ruleView(m.c.revision(v.id, v.revision), false)
		if verb := verbOf(u, func(l rules.Line) bool { _, ok := own[l]; return ok }); verb != "" {
			m.named[n] = namedUpdate{u, verb}
		}
	}
	return m.named
}

// verbOf is what lines alone say of an update, nothing when none names it.
func verbOf(u rules.Update, has func(rules.Line) bool) (verb rules.Verb) {
	for l := range u.Lines() {
		if has(l) && (verb == "" || l.Verb == rules.Forbid) {
			verb = l.Verb
		}
	}
	return verb
}

func (m *merging) result() []Merged {
	for key, hosts := range m.sums {
		w, winner := m.with[key.other], m.name
		if key.wins {
			winner = key.other
		}
		w.Disputed = append(w.Disputed, DisputedUpdate{Update: m.c.name(key.update), Winner: winner, Hosts: hosts})
	}
	list := []Merged{}
	for _, name := range slices.Sorted(maps.Keys(m.with)) {
		w := m.with[name]
		if name == rules.EmergencyStop && len(w.Disputed) == 0 {
			continue // it is on every host, and of interest where it stops something
		}
		slices.SortFunc(w.Disputed, func(x, y DisputedUpdate) int {
			return cmp.Or(y.Hosts-x.Hosts, strings.Compare(x.Update.Title, y.Update.Title), strings.Compare(string(x.Update.ID)+x.Winner, string(y.Update.ID)+y.Winner))
		})
		w.Disputed = w.Disputed[:min(len(w.Disputed), maxImpactRows)]
		list = append(list, *w)
	}
	slices.SortStableFunc(list, func(x, y Merged) int {
		return cmp.Or((y.Wins+y.Loses)-(x.Wins+x.Loses), y.Hosts-x.Hosts)
	})
	return list
}
