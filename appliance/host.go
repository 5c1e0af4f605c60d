package appliance

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/replicate"
)

// away is how long a host may be silent beyond its due time.
const away = 2 * time.Minute

// heard says that the host checked in when it was due.
func (h *host) heard(now time.Time) bool { return !h.due.IsZero() && now.Before(h.due.Add(away)) }

// hostRow is a host as lists show it. The catalogue's lock is held for
// writing.
func (a *Appliance) hostRow(h *host, t *countTable, s census) HostRow {
	c := a.cat
	k := c.classOf(h)
	r := HostRow{
		ID: h.id, Name: h.Facts.Name, FQDN: h.Facts.FQDN, OS: h.Facts.OS, Build: h.Facts.Build, Groups: c.groupsOf(h), Waiting: h.Waiting,
		Seen: h.lastSeen(), Node: s.node(h), Scanned: h.status.Good, Restart: h.Facts.RestartDue, Doing: h.doing, Accepts: c.accepts(k), Agent: h.Agent,
		Online: s.online(h), Counts: t.of(h).counts(), Clock: h.Clock,
	}
	if h.Claim != "" {
		r.Problems = append(r.Problems, "Another machine, or this one after a new installation, asks to be this host. Approve it if you know why.")
	}
	if h.scanFailed() {
		r.Problems = append(r.Problems, "The last scan failed: "+h.status.Scan.Error)
	}
	return r
}

// clockOff says that the host's clock and its node's differ, of one that is not
// away for so long that nobody can know.
func (h *host) clockOff(where census) bool { return h.Clock != nil && !h.longAway(where) }

// longAway says that nothing was heard of the host for a day.
func (h *host) longAway(where census) bool {
	return !where.online(h) && where.now.Sub(h.lastSeen()) >= 24*time.Hour
}

func (h *host) scanFailed() bool { return h.status.Scan != nil && h.status.Scan.Error != "" }

// groupsOf are the groups of a host by name, without the built-in one.
func (c *catalogue) groupsOf(h *host) []string {
	list := []string{}
	for _, name := range c.classOf(h).groups {
		if name != everyone && c.isGroup(name) {
			list = append(list, name)
		}
	}
	return list
}

// Hosts lists the hosts. Rows are made only for those of the page.
func (a *Appliance) Hosts(_ context.Context, q HostQuery) (HostList, error) {
	c, where := a.cat, a.census()
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.counts(time.Now())
	matching, list := c.matching(q, t, where)
	chosen, next := page(matching, q.Page, func(h *host) string { return string(h.id) })
	for _, h := range chosen {
		list.Hosts = append(list.Hosts, a.hostRow(h, t, where))
	}
	list.Next = next
	return list, nil
}

// EachHost yields every host that matches, whatever page q asks for, in the
// order of q at the time of the call; one that is removed meanwhile is left
// out.
func (a *Appliance) EachHost(_ context.Context, q HostQuery) iter.Seq[HostRow] {
	c, where := a.cat, a.census()
	c.mu.Lock()
	matching, _ := c.matching(q, c.counts(time.Now()), where)
	c.mu.Unlock()
	return func(yield func(HostRow) bool) {
		for some := range slices.Chunk(matching, atOnce) {
			for _, r := range a.hostRows(some) {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// atOnce is how many rows of a long list are made under one lock.
const atOnce = 500

// hostRows are the rows of those hosts that are still there.
func (a *Appliance) hostRows(list []*host) (rows []HostRow) {
	c, where := a.cat, a.census()
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.counts(time.Now())
	for _, h := range list {
		if c.hosts[h.id] == h {
			rows = append(rows, a.hostRow(h, t, where))
		}
	}
	return rows
}

// What a query of hosts narrows by. What is said of one, the choices that there
// are and of how many hosts, leaves its own choice out and respects the others.
const (
	byState = iota
	bySystem
	byGroup
	bySite
	byRing
	byStand
	byAll
)

// matching are the hosts that a query finds, in its order, and the list
// without its rows. The lock is held for writing.
func (c *catalogue) matching(q HostQuery, t *countTable, where census) (matching []*host, list HostList) {
	list.Hosts = []HostRow{}
	index := c.indexed()
	count := c.newFacets()
	want, search := q.choices(c), c.searching(q.Text)
	var places []int32
	for i := range index {
		x := &index[i]
		list.Total++
		if !search.finds(i, x.host) || q.Seen != "" && !q.seen(x.host, where) {
			continue
		}
		var n hostCounts
		if x.slot < len(t.hosts) {
			n = t.hosts[x.slot]
		}
		missed, by := want.missed(x, n)
		if missed > 1 {
			continue
		}
		count.add(by, x, n)
		if missed == 0 {
			places = append(places, int32(i))
		}
	}
	c.hostOrder(q.Sort, t, places)
	matching = make([]*host, len(places))
	for i, at := range places {
		matching[i] = index[at].host
	}
	list.Matching = len(matching)
	count.into(&list, c)
	return matching, list
}

// hostFacets are numbers of hosts by what a query may choose.
type hostFacets struct {
	states                 [outcomeDiscarded]int
	systems, groups, sites []int
	rings                  [len(rules.Maturities) + 1]int
	stands                 [len(stands)]int
}

func (c *catalogue) newFacets() *hostFacets {
	return &hostFacets{systems: make([]int, len(c.systems.names)), groups: make([]int, len(c.classNumbers)), sites: make([]int, len(c.sites.names)+1)}
}

// add counts a host that a query finds, or would but for what it narrows by.
func (f *hostFacets) add(by int, x *indexed, n hostCounts) {
	all := by == byAll
	if all || by == bySystem {
		f.systems[x.system]++
	}
	if all || by == byGroup {
		f.groups[x.class]++
	}
	if all || by == bySite {
		f.sites[n.site]++
	}
	if all || by == byRing {
		f.rings[n.ring]++
	}
	if all || by == byStand {
		f.stands[n.stand]++
	}
	if all || by == byState {
		for s, many := range n.states {
			if many > 0 {
				f.states[s]++
			}
		}
	}
}

func (f *hostFacets) into(list *HostList, c *catalogue) {
	list.OS, list.State, list.Groups = c.systems.facet(f.systems), stateFacet(f.states), facetList(c.byGroup(f.groups))
	list.Sites = c.sites.facet(f.sites[1:])
	list.Rings = numberFacet(f.rings[1:], ringName, ringName)
	list.Stands = numberFacet(f.stands[1:], func(i int) string { return string(stands[i+1]) }, func(i int) string { return standTexts[i+1] })
}

// numberFacet are the choices with numbers of hosts, in their order.
func numberFacet(hosts []int, name, label func(int) string) []FacetCount {
	list := []FacetCount{}
	for i, n := range hosts {
		if n > 0 {
			list = append(list, FacetCount{Value: name(i), Label: label(i), Count: n})
		}
	}
	return list
}

// picked is what is chosen, by number; nil is everything.
type picked []bool

func (p picked) has(i int) bool { return p == nil || i < len(p) && p[i] }

// chooses picks among n from the first number on; nil when nothing is
// chosen.
func chooses[T ~string](chosen []T, first, n int, name func(int) string) picked {
	if len(chosen) == 0 {
		return nil
	}
	c := make(picked, first+n)
	for i := range n {
		c[first+i] = slices.Contains(chosen, T(name(i)))
	}
	return c
}

// hostChoices are what a query chooses, by what it narrows.
type hostChoices struct {
	states                              stateSet
	system, group, site, ring, standing picked
}

// missed is by how much a host misses what is chosen, and by what if only by one.
func (w *hostChoices) missed(x *indexed, n hostCounts) (missed, by int) {
	by = byAll
	for d, ok := range [...]bool{
		byState: w.states == nil || w.states.any(n), bySystem: w.system.has(int(x.system)), byGroup: w.group.has(int(x.class)),
		bySite: w.site.has(int(n.site)), byRing: w.ring.has(int(n.ring)), byStand: w.standing.has(int(n.stand)),
	} {
		if !ok {
			missed, by = missed+1, d
		}
	}
	return missed, by
}

func (q HostQuery) choices(c *catalogue) *hostChoices {
	w := &hostChoices{
		states:   q.states(),
		system:   chooses(q.OS, 0, len(c.systems.names), func(i int) string { return c.systems.names[i] }),
		site:     chooses(q.Site, 1, len(c.sites.names), func(i int) string { return c.sites.names[i] }),
		ring:     chooses(q.Ring, 1, len(rules.Maturities), ringName),
		standing: chooses(q.Stand, 0, len(stands), func(i int) string { return string(stands[i]) }),
	}
	if q.Group != "" && q.Group != everyone {
		w.group = make(picked, len(c.classNumbers))
		for i, k := range c.classNumbers {
			w.group[i] = c.isGroup(q.Group) && slices.Contains(k.groups, q.Group)
		}
	}
	return w
}

// A stateSet are states of which a host has to have an update in one.
type stateSet []outcome

func (q HostQuery) states() (list stateSet) {
	for _, s := range q.State {
		if o := outcomeOf[s]; o != 0 {
			list = append(list, o)
		}
	}
	if len(q.State) > 0 && list == nil {
		return stateSet{} // of a state that nobody knows there are none
	}
	return list
}

func (l stateSet) any(n hostCounts) bool {
	return slices.ContainsFunc(l, func(o outcome) bool { return n.of(o) > 0 })
}

func stateFacet(n [outcomeDiscarded]int) []FacetCount {
	m := map[string]int{}
	for s, o := range outcomeOf {
		if n[o-1] > 0 {
			m[string(s)] = n[o-1]
		}
	}
	return facetList(m)
}

// byGroup turns numbers of hosts by class into numbers by group.
func (c *catalogue) byGroup(classes []int) map[string]int {
	groups := map[string]int{}
	for i, n := range classes {
		for _, g := range c.classNumbers[i].groups {
			if n > 0 && g != everyone && c.isGroup(g) {
				groups[g] += n
			}
		}
	}
	return groups
}

func facetList(m map[string]int) []FacetCount {
	list := []FacetCount{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, FacetCount{Value: k, Label: k, Count: m[k]})
	}
	return list
}

// seen says whether the host was heard of as the query wants it.
func (q HostQuery) seen(h *host, where census) bool {
	switch q.Seen {
	case "online":
		return where.online(h)
	case "away":
		return h.longAway(where)
	case "clock off":
		return h.clockOff(where)
	case "never scanned":
		return h.status.Good.IsZero()
	case "waiting":
		return h.Waiting || h.Claim != "" || h.scanFailed()
	default: // nobody knows what that is
		return false
	}
}

// HostViews are what Seen of a query may be.
var HostViews = [...]string{"online", "away", "never scanned", "waiting", "clock off"}

// hostOrder sorts places in the index, which come in the order of the hosts'
// names. What is compared is taken out first, where it can be without looking
// at the hosts: a hundred thousand of them lie all over memory.
func (c *catalogue) hostOrder(sort string, t *countTable, places []int32) {
	key, down := strings.CutPrefix(sort, "-")
	waits := func(o outcome) func(x *indexed) int64 {
		return func(x *indexed) int64 {
			if x.slot < len(t.hosts) {
				return int64(t.hosts[x.slot].of(o))
			}
			return 0
		}
	}
	switch key {
	case "scan":
		c.sortBy(places, func(x *indexed) int64 { return x.host.status.Good.UnixMilli() }, down)
	case "seen":
		c.sortBy(places, func(x *indexed) int64 { return x.host.lastSeen().UnixMilli() }, down)
	case "missing":
		c.sortBy(places, waits(outcomeMissing), down)
	case "pending":
		c.sortBy(places, waits(outcomePending), down)
	case "os":
		rank := make([]int64, len(c.systems.names))
		for i, name := range slices.Sorted(slices.Values(c.systems.names)) {
			rank[c.systems.number[name]] = int64(i)
		}
		c.sortBy(places, func(x *indexed) int64 { return rank[x.system] }, down)
	default:
		if down {
			slices.Reverse(places)
		}
	}
}

// sortBy sorts by a number; of two that are equal the one that came first
// stays first, up or down.
func (c *catalogue) sortBy(places []int32, of func(*indexed) int64, down bool) {
	type keyed struct {
		key int64
		at  int32
	}
	list := make([]keyed, len(places))
	for i, at := range places {
		list[i] = keyed{of(&c.index[at]), at}
		if down {
			list[i].key = -list[i].key
		}
	}
	slices.SortFunc(list, func(x, y keyed) int {
		if x.key != y.key {
			return cmp.Compare(x.key, y.key)
		}
		return cmp.Compare(x.at, y.at)
	})
	for i, k := range list {
		places[i] = k.at
	}
}

// HostsNamed finds hosts by name, FQDN or HostID, one for each.
func (a *Appliance) HostsNamed(_ context.Context, names []string) (ids []agentproto.HostID, err error) {
	c := a.cat
	c.mu.RLock()
	defer c.mu.RUnlock()
	called := c.called(names)
	for _, name := range names {
		switch list := called[strings.ToLower(name)]; len(list) {
		case 0:
			return nil, invalid("members", "There is no host %.60q.", name)
		case 1:
			ids = append(ids, list[0].id)
		default:
			return nil, invalid("members", "%d hosts are called %.60q: name it by its HostID.", len(list), name)
		}
	}
	return ids, nil
}

// NamesOf are hosts by their names, or by HostID where a name is that of two,
// in order. HostsNamed finds the same hosts by them.
func (a *Appliance) NamesOf(_ context.Context, ids []agentproto.HostID) (names []string) {
	if len(ids) == 0 {
		return nil
	}
	c := a.cat
	c.mu.Lock()
	defer c.mu.Unlock()
	var low [256]byte
	for _, id := range ids {
		h := c.hosts[id]
		switch {
		case h == nil: // removed meanwhile
		case c.sameNames()[string(lower(low[:0], h.Facts.Name))] == 1:
			names = append(names, h.Facts.Name)
		default:
			names = append(names, string(id))
		}
	}
	slices.Sort(names)
	return names
}

// called are the hosts that are called one of those names, by name, FQDN or
// HostID in lower case.
func (c *catalogue) called(names []string) map[string][]*host {
	m := make(map[string][]*host, len(names))
	for _, name := range names {
		m[strings.ToLower(name)] = nil
	}
	if len(m) == 0 {
		return m
	}
	var low [256]byte // most are asked for by nobody: no string is made of their names
	for _, h := range c.hosts {
		if h.Key == "" {
			continue
		}
		for i, s := range [...]string{h.Facts.Name, string(h.id), h.Facts.FQDN} {
			key := lower(low[:0], s)
			if list, asked := m[string(key)]; asked && (i < 2 || s != "" && !strings.EqualFold(s, h.Facts.Name)) {
				m[string(key)] = append(list, h)
			}
		}
	}
	return m
}

// sameNames counts the hosts by everything they are called, in lower case: a
// page names thousands of hosts, and most names are of one. The lock is held
// for writing.
func (c *catalogue) sameNames() map[string]int32 {
	if c.alike != nil {
		return c.alike
	}
	c.alike = make(map[string]int32, 2*len(c.hosts))
	for _, h := range c.hosts {
		if h.Key == "" {
			continue
		}
		c.alike[strings.ToLower(h.Facts.Name)]++
		if f := h.Facts.FQDN; f != "" && !strings.EqualFold(f, h.Facts.Name) {
			c.alike[strings.ToLower(f)]++
		}
	}
	return c.alike
}

// lower appends a text in small letters.
func lower(b []byte, s string) []byte {
	was := len(b)
	for i := range len(s) {
		c := s[i]
		if c >= 0x80 {
			return append(b[:was], strings.ToLower(s)...)
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

// Host is one host with everything that decides about it.
func (a *Appliance) Host(_ context.Context, id agentproto.HostID) (HostDetail, error) {
	c, where, nodes := a.cat, a.census(), a.candidates()
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosts[id]
	if h == nil {
		return HostDetail{}, notFound("There is no host %s.", id)
	}
	now := time.Now()
	d := HostDetail{
		HostRow: a.hostRow(h, c.counts(now), where), Facts: h.Facts, Scan: h.status.Scan, Warnings: h.Warnings,
		Enrolled: h.Enrolled, EnrolledBy: h.By, Settings: c.effective(c.classOf(h)), Packages: []PackageRow{}, Commands: []CommandRow{},
	}
	for _, f := range h.Errors {
		d.Errors = append(d.Errors, agentproto.ExplainFailure(f))
	}
	for _, name := range slices.Sorted(maps.Keys(c.packages)) {
		if k := c.packages[name]; k.exists && c.reaches(name, c.classOf(h)) {
			d.Packages = append(d.Packages, c.packageRow(name))
		}
	}
	for _, r := range c.commandsOf(id) {
		d.Commands = append(d.Commands, CommandRow{r.Command, r.State, r.Detail, r.Changed})
	}
	d.Choice = choiceFor(nodes, c.routes(), h.place())
	slices.SortFunc(d.Commands, func(x, y CommandRow) int { return cmp.Or(y.Issued.Compare(x.Issued), strings.Compare(x.ID, y.ID)) })
	d.Commands = d.Commands[:min(len(d.Commands), 50)]
	return d, nil
}

// decider is the title of the category whose line decided; empty for none.
func (c *catalogue) decider(p pair) string { return c.named(p.update.Decider(p.decision)).Title }

// hostUpdate is a decided pair as pages show it. The lock is held.
func (c *catalogue) hostUpdate(h *host, p pair) HostUpdate {
	u := HostUpdate{
		Host: h.id, HostName: h.Facts.Name, Update: c.name(p.status.ID), Revision: p.status.Revision, Severity: cmp.Or(p.update.Severity, rules.Unspecified),
		State: p.state, Reason: p.reason, Why: rules.Sentence(p.decision, p.reason, c.decider(p)), Decision: p.decision,
	}
	for _, f := range p.update.Files {
		u.Size += f.Size
	}
	if p.status.HResult != 0 && p.state != rules.OK {
		m := agentproto.Explain(p.status.HResult)
		u.HResult, u.Error = m.Code, &m
		u.Why += " Windows answered " + m.Title() + " on " + clock(p.status.Tried) + ". " + m.Sentence()
	}
	if p.state == rules.Missing {
		if _, f := c.filesOf(p.update); f.Note != "" {
			u.Why += " " + f.Note
		}
	}
	return u
}

// HostUpdates lists the updates of one host, what needs an admin first.
func (a *Appliance) HostUpdates(_ context.Context, id agentproto.HostID, q HostUpdateQuery) (l HostUpdateList, err error) {
	c := a.cat
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosts[id]
	if h == nil {
		return l, notFound("There is no host %s.", id)
	}
	list, counts := []HostUpdate(nil), newFacetCounts()
	for pr := range c.pairs(h, time.Now()) {
		if len(q.State) > 0 && !slices.Contains(q.State, pr.state) || !matches(q.Text, pr.update.Title, string(pr.update.ID), pr.update.KBs, pr.update.CVEs) {
			continue
		}
		severity := string(cmp.Or(pr.update.Severity, rules.Unspecified))
		counts.addSome(facetSeverity, severity, severity, 1)
		if len(q.Severity) == 0 || slices.Contains(q.Severity, rules.Severity(severity)) {
			list = append(list, c.hostUpdate(h, pr))
		}
	}
	slices.SortFunc(list, func(x, y HostUpdate) int {
		return cmp.Or(stateRank(x.State)-stateRank(y.State), severityRank(x.Severity)-severityRank(y.Severity), strings.Compare(x.Update.Title, y.Update.Title), strings.Compare(string(x.Update.ID), string(y.Update.ID)))
	})
	l.Total, l.Severity = len(list), counts.facets().Severity
	l.Updates, l.Next = page(list, q.Page, func(u HostUpdate) string { return string(u.Update.ID) })
	return l, nil
}

// ApproveHost lets a waiting host in, or gives a host's name to the machine
// that claims it.
func (a *Appliance) ApproveHost(ctx context.Context, by Actor, id agentproto.HostID) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		h, ok, err := hosts.find(tx, string(id))
		switch {
		case err != nil:
			return err
		case !ok:
			return notFound("There is no host %s.", id)
		case !h.Waiting && h.Claim == "":
			return &Problem{Kind: Conflict, Msg: h.Facts.Name + " is approved already."}
		}
		if h.Claim != "" {
			h.Key, h.Claim = h.Claim, ""
		}
		h.Waiting, h.Enrolled, h.By = false, tx.Now(), by.Name
		if err := hosts.put(tx, string(id), h); err != nil {
			return err
		}
		return a.audit(tx, by, "approve host", "host "+h.Facts.Name, "", string(id))
	})
}

// RemoveHost forgets a host; its certificate is refused from now on.
func (a *Appliance) RemoveHost(ctx context.Context, by Actor, id agentproto.HostID) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		h, ok, err := hosts.find(tx, string(id))
		if err != nil {
			return err
		}
		if !ok {
			return notFound("There is no host %s.", id)
		}
		for _, del := range []func() error{
			func() error { return hosts.del(tx, string(id)) },
			func() error { return statuses.del(tx, string(id)) },
			func() error { return presences.del(tx, string(id)) },
			func() error { return delAll(tx, commands, string(id)+"/") },
			func() error { return delAll(tx, outcomes, string(id)+"/") },
		} {
			if err := del(); err != nil {
				return err
			}
		}
		return a.audit(tx, by, "remove host", "host "+h.Facts.Name, string(id), "")
	})
	if err == nil {
		a.streams.end(id)
	}
	return err
}

// delAll deletes every record of a table below a prefix.
func delAll[T any](tx *replicate.Tx, t table[T], under string) error {
	for r, err := range t.all(tx, under) {
		if err != nil {
			return err
		}
		if err := t.del(tx, r.id); err != nil {
			return err
		}
	}
	return nil
}
