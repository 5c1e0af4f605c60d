package appliance

import (
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// A class is hosts about which the same rules decide: the same settings, the
// same groups, the same packages of their own. A fleet has a handful of them,
// whatever its size, and an edit of rules is worked out once for each.
type class struct {
	settings rules.Settings
	groups   []string // that the hosts are members of, by name; some may not exist
	packages []string // assigned to the hosts one by one, by name
	profiles []string // given to the hosts one by one, by name
	hosts    int      // enrolled or waiting
	policy   *policy  // nil until asked for
}

// classOf returns the class of a host. The catalogue's lock is held for
// writing.
func (c *catalogue) classOf(h *host) *class {
	if h.class != nil {
		return h.class
	}
	k, site := class{settings: h.Settings, groups: []string{everyone}}, c.siteOf(h)
	for name, g := range c.groups {
		if name != everyone && g.has(h, site) {
			k.groups = append(k.groups, name)
		}
	}
	for name, p := range c.packages {
		if _, ok := p.hosts[h.id]; ok {
			k.packages = append(k.packages, name)
		}
	}
	for name, p := range c.profiles {
		if _, ok := p.hosts[h.id]; ok {
			k.profiles = append(k.profiles, name)
		}
	}
	slices.Sort(k.groups)
	slices.Sort(k.packages)
	slices.Sort(k.profiles)
	settings, _ := json.Marshal(k.settings) // of plain fields: cannot fail
	key := string(settings) + strings.Join(k.groups, ",") + ";" + strings.Join(k.packages, ",") + ";" + strings.Join(k.profiles, ",")
	if c.classes[key] == nil {
		c.classes[key] = &k
	}
	h.class = c.classes[key]
	h.class.hosts++
	return h.class
}

// declass makes the host's class be found anew: what it is a member of, what
// it is assigned, or its settings changed.
func (c *catalogue) declass(h *host) {
	c.strays, c.index, h.ruling = true, nil, ruling{}
	if h.class != nil {
		h.class.hosts--
		h.class = nil
	}
}

// forgetPolicies makes the policy of every class be built anew, and drops
// classes that nobody is in any more.
func (c *catalogue) forgetPolicies() {
	for key, k := range c.classes {
		if k.policy = nil; k.hosts == 0 {
			delete(c.classes, key)
		}
	}
	clear(c.policies)
	c.everyRule = nil
}

// accepts are the maturities the hosts accept: PROD, and what their groups do.
func (c *catalogue) accepts(k *class) []rules.Maturity {
	list := []rules.Maturity{rules.Prod}
	for _, name := range k.groups {
		if c.isGroup(name) {
			list = append(list, c.groups[name].Accepts...)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (c *catalogue) isGroup(name string) bool { return c.groups[name] != nil && c.groups[name].exists }

// reaches says whether the package is assigned to the hosts.
func (c *catalogue) reaches(name string, k *class) bool {
	if _, own := slices.BinarySearch(k.packages, name); own {
		return true
	}
	to := c.packages[name].groups
	return slices.ContainsFunc(k.groups, func(g string) bool { _, ok := to[g]; return ok && c.isGroup(g) })
}

// reach counts the hosts that the package is assigned to and that accept its
// maturity. The lock is held for writing.
func (c *catalogue) reach(name string) (n int) {
	c.classify()
	for _, k := range c.classes {
		if k.hosts > 0 && c.reaches(name, k) && slices.Contains(c.accepts(k), c.packages[name].Maturity) {
			n += k.hosts
		}
	}
	return n
}

// classify finds the class of every host that has none.
func (c *catalogue) classify() {
	if !c.strays {
		return
	}
	for _, h := range c.hosts {
		if h.Key != "" {
			c.classOf(h)
		}
	}
	c.strays = false
}

// membersOf yields the hosts of a group.
func (c *catalogue) membersOf(name string) iter.Seq[agentproto.HostID] {
	if name == everyone {
		return maps.Keys(c.hosts)
	}
	if !c.isGroup(name) {
		return func(func(agentproto.HostID) bool) {}
	}
	g := c.groups[name]
	if g.chooses == nil {
		return maps.Keys(g.members)
	}
	return func(yield func(agentproto.HostID) bool) {
		for id, h := range c.hosts {
			if g.has(h, c.siteOf(h)) && !yield(id) {
				return
			}
		}
	}
}

// siteOf is the site of the node that a host is at, or was last.
func (c *catalogue) siteOf(h *host) string {
	if h.at.Node == "" {
		return ""
	}
	if n, ok := c.roster.node(h.at.Node); ok {
		return n.Site
	}
	return c.folder.share.siteOf(h.at.Node)
}

// declassBySite makes the class of a host, nil for all of them, be found anew
// where a group chooses hosts by the site they are at.
func (c *catalogue) declassBySite(h *host) {
	bySite := false
	for _, g := range c.groups {
		bySite = bySite || g.chooses.looksAt(factSite)
	}
	if !bySite {
		return
	}
	c.touch()
	if h != nil {
		c.declass(h)
		return
	}
	for _, h := range c.hosts {
		c.declass(h)
	}
}

// A policy is what decides about hosts that have the same settings and
// packages, with the decisions made so far and what follows from them.
type policy struct {
	rules.Policy
	hash    string
	set     *rules.Ruleset
	decided map[decisionKey]rules.Decision
}

type decisionKey struct {
	variant    int
	superseded bool
}

// policyOf returns the policy of a host. The catalogue's lock is held for
// writing.
func (c *catalogue) policyOf(h *host) *policy {
	k := c.classOf(h)
	if k.policy != nil {
		return k.policy
	}
	settings, _ := c.settings(k)
	p := rules.Policy{Settings: settings}
	accepts := c.accepts(k)
	for _, name := range slices.Sorted(maps.Keys(c.packages)) {
		if g := c.packages[name]; g.exists && c.reaches(name, k) && slices.Contains(accepts, g.Maturity) {
			p.Packages = append(p.Packages, rules.Package{Name: name, Maturity: g.Maturity, Lines: slices.Collect(maps.Keys(g.lines))})
		}
	}
	p.Packages = append(p.Packages, c.stopPackage()...)
	hash := p.Hash()
	if c.policies[hash] == nil { // classes that differ in nothing that decides share one
		c.policies[hash] = &policy{Policy: p, hash: hash, set: rules.Compile(p), decided: map[decisionKey]rules.Decision{}}
	}
	k.policy = c.policies[hash]
	return k.policy
}

// decide says what the policy says about a revision, from memory when it was
// asked before. A delay that is over by now is.
func (p *policy) decide(n int, u updateRecord, superseded bool, now time.Time) rules.Decision {
	key := decisionKey{n, superseded}
	d, ok := p.decided[key]
	if !ok {
		d = p.set.Decide(ruleView(u, superseded), now)
		p.decided[key] = d
	}
	if d.Verdict == rules.Delayed && !now.Before(d.Until) {
		d.Verdict, d.Until = rules.Allowed, time.Time{}
	}
	return d
}

// words shares strings that many hosts have in common, so that each is held
// once. It begins anew when something keeps bringing new ones.
type words struct{ known map[string]string }

const maxWords = 20_000

func (w *words) of(s string) string {
	if known, ok := w.known[s]; ok {
		return known
	}
	if w.known == nil || len(w.known) >= maxWords {
		w.known = map[string]string{}
	}
	s = strings.Clone(s)
	w.known[s] = s
	return s
}

// share replaces what a host has in common with others.
func (w *words) share(h *hostRecord) {
	f := &h.Facts
	for _, s := range []*string{&f.Domain, &f.OS, &f.Build, &f.Arch, &f.Language, &f.Manufacturer, &f.Model, &f.WUAVersion, &f.WUAService, &h.Agent, &h.By} {
		*s = w.of(*s)
	}
}
