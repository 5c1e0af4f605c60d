package appliance

import (
	"bytes"
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
		Online: s.online(h), Counts: t.of(h).counts(),
	}
	if h.Claim != "" {
		r.Problems = append(r.Problems, "Another machine, or this one after a new installation, asks to be this host. Approve it if you know why.")
	}
	if h.scanFailed() {
		r.Problems = append(r.Problems, "The last scan failed: "+h.status.Scan.Error)
	}
	return r
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

// matching are the hosts that a query finds, in its order, and the list
// without its rows. The lock is held for writing.
func (c *catalogue) matching(q HostQuery, t *countTable, where census) (matching []*host, list HostList) {
	list.Hosts = []HostRow{}
	index := c.indexed()
	var states [outcomeDiscarded]int
	systems, groups := make([]int, len(c.systems.names)), make([]int, len(c.classNumbers))
	chosen, inGroup := q.choices(c)
	want := q.states()
	for i := range index {
		x := &index[i]
		list.Total++
		if (q.Seen != "" || q.Text != "") && !q.matches(x.host, where) {
			continue
		}
		var n hostCounts
		if x.slot < len(t.hosts) {
			n = t.hosts[x.slot]
		}
		okState := want == nil || want.any(n)
		okOS, okGroup := chosen == nil || chosen[x.system], inGroup == nil || inGroup[x.class]
		if okState && okGroup {
			systems[x.system]++
		}
		if okOS && okState {
			groups[x.class]++
		}
		if !okOS || !okGroup {
			continue
		}
		for s, many := range n.states {
			if many > 0 {
				states[s]++
			}
		}
		if okState {
			matching = append(matching, x.host)
		}
	}
	hostOrder(q.Sort, t)(matching)
	list.Matching = len(matching)
	list.OS, list.State, list.Groups = c.systems.facet(systems), stateFacet(states), facetList(c.byGroup(groups))
	return matching, list
}

// choices are the systems and the classes of hosts that a query chooses, by
// number; nil chooses all.
func (q HostQuery) choices(c *catalogue) (systems, classes []bool) {
	if len(q.OS) > 0 {
		systems = make([]bool, len(c.systems.names))
		for i, name := range c.systems.names {
			systems[i] = slices.Contains(q.OS, name)
		}
	}
	if q.Group != "" && q.Group != everyone {
		classes = make([]bool, len(c.classNumbers))
		for i, k := range c.classNumbers {
			classes[i] = c.isGroup(q.Group) && slices.Contains(k.groups, q.Group)
		}
	}
	return systems, classes
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

func (q HostQuery) matches(h *host, where census) bool {
	switch q.Seen {
	case "online":
		if !where.online(h) {
			return false
		}
	case "away":
		if where.online(h) || where.now.Sub(h.lastSeen()) < 24*time.Hour {
			return false
		}
	case "never scanned":
		if !h.status.Good.IsZero() {
			return false
		}
	case "waiting":
		if !h.Waiting && h.Claim == "" && !h.scanFailed() {
			return false
		}
	}
	if q.Text == "" {
		return true
	}
	var low [256]byte // of a hundred thousand hosts no string is made
	text := strings.ToLower(q.Text)
	return bytes.Contains(lower(low[:0], h.Facts.Name), []byte(text)) || bytes.Contains(lower(low[:0], h.Facts.FQDN), []byte(text)) ||
		strings.HasPrefix(string(h.id), text) || slices.Contains(h.Facts.Addresses, text)
}

// hostOrder returns what sorts hosts that come in the order of their names.
// What is compared is taken out of the hosts first: a hundred thousand of them
// lie all over memory.
func hostOrder(sort string, t *countTable) func([]*host) {
	key, down := strings.CutPrefix(sort, "-")
	var of func(h *host) int64
	switch key {
	case "scan":
		of = func(h *host) int64 { return h.status.Good.UnixMilli() }
	case "seen":
		of = func(h *host) int64 { return h.lastSeen().UnixMilli() }
	case "missing":
		of = func(h *host) int64 { return int64(t.of(h).of(outcomeMissing)) }
	case "pending":
		of = func(h *host) int64 { return int64(t.of(h).of(outcomePending)) }
	case "os":
		return func(list []*host) { sortBy(list, systemRank(list), down) }
	default:
		return func(list []*host) {
			if down {
				slices.Reverse(list)
			}
		}
	}
	return func(list []*host) { sortBy(list, of, down) }
}

// systemRank numbers the systems of hosts in their order.
func systemRank(list []*host) func(*host) int64 {
	rank := map[string]int64{}
	for _, h := range list {
		rank[h.Facts.OS] = 0
	}
	for i, name := range slices.Sorted(maps.Keys(rank)) {
		rank[name] = int64(i)
	}
	return func(h *host) int64 { return rank[h.Facts.OS] }
}

// sortBy sorts by a number; of two that are equal the one that came first
// stays first, up or down.
func sortBy(list []*host, of func(*host) int64, down bool) {
	type place struct {
		key int64
		at  int
	}
	places := make([]place, len(list))
	for i, h := range list {
		places[i] = place{of(h), i}
		if down {
			places[i].key = -places[i].key
		}
	}
	slices.SortFunc(places, func(x, y place) int {
		if c := cmp.Compare(x.key, y.key); c != 0 {
			return c
		}
		return x.at - y.at
	})
	was := slices.Clone(list)
	for i, p := range places {
		list[i] = was[p.at]
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

// lower is a name in lower case, in the room of b where it has room.
func lower(b []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if c >= 0x80 {
			return []byte(strings.ToLower(s))
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

// HostUpdates lists the updates of one host, what needs an admin first;
// states nil for all.
func (a *Appliance) HostUpdates(_ context.Context, id agentproto.HostID, text string, states []rules.State, p Page) (list []HostUpdate, total int, next string, err error) {
	c := a.cat
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosts[id]
	if h == nil {
		return nil, 0, "", notFound("There is no host %s.", id)
	}
	for pr := range c.pairs(h, time.Now()) {
		if (len(states) == 0 || slices.Contains(states, pr.state)) && matches(text, pr.update.Title, string(pr.update.ID), pr.update.KBs, pr.update.CVEs) {
			list = append(list, c.hostUpdate(h, pr))
		}
	}
	slices.SortFunc(list, func(x, y HostUpdate) int {
		return cmp.Or(stateRank(x.State)-stateRank(y.State), severityRank(x.Severity)-severityRank(y.Severity), strings.Compare(x.Update.Title, y.Update.Title), strings.Compare(string(x.Update.ID), string(y.Update.ID)))
	})
	total = len(list)
	list, next = page(list, p, func(u HostUpdate) string { return string(u.Update.ID) })
	return list, total, next, nil
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
