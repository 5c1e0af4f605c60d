package appliance

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"wuamesh/agentproto"
	"wuamesh/replicate"
)

// Repository rules are WAPT's: an ordered list by which an admin chooses the
// node for hosts, where the nearest one is not what is wanted. The first rule
// that a host meets says whom it asks first, the next ones whom it asks when
// those are away, until one has no fallback; then come the other nodes.
//
// Each rule is a record of its own, and its place in the order is a number in
// it: admins on two sides of a cut who add, change and move rules lose
// nothing, and every node has the same order.

// A RepositoryCondition is what a host must be for a rule to hold for it.
type RepositoryCondition struct {
	Kind ConditionKind `json:"kind"`
	// Values are alternatives: networks such as 10.1.0.0/16 for the two kinds of
	// addresses, else names, in which * stands for anything and ? for one letter.
	// Small and capital letters are the same.
	Values []string `json:"values"`
	Not    bool     `json:"not,omitempty"` // the host must be none of them
}

// A ConditionKind is what a condition looks at.
type ConditionKind string

// The kinds of conditions.
const (
	BySubnet        ConditionKind = "subnet"         // the agent's own addresses
	ByDomain        ConditionKind = "domain"         // Active Directory domain or workgroup
	ByADSite        ConditionKind = "ad_site"        // site in Active Directory
	ByPublicAddress ConditionKind = "public_address" // where its connection comes from, as the node sees it
	ByHostName      ConditionKind = "host_name"      // NetBIOS name or full name
)

// ConditionKinds are all kinds, in the order of the form.
var ConditionKinds = []ConditionKind{BySubnet, ByPublicAddress, ByDomain, ByADSite, ByHostName}

// words say a condition of that kind, is and is not.
func (k ConditionKind) words() (is, not string) {
	switch k {
	case BySubnet:
		return "in subnet", "not in subnet"
	case ByDomain:
		return "of domain", "not of domain"
	case ByADSite:
		return "at Active Directory site", "not at Active Directory site"
	case ByPublicAddress:
		return "calling from", "not calling from"
	}
	return "named", "not named"
}

// String says a condition as people would.
func (c RepositoryCondition) String() string {
	is, not := c.Kind.words()
	return or(c.Not, not, is) + " " + strings.Join(c.Values, " or ")
}

// A RepositoryRuleEdit is a rule as an admin makes it.
type RepositoryRuleEdit struct {
	Name       string                `json:"name"`
	Conditions []RepositoryCondition `json:"conditions"`            // all must hold; none: every host
	Node       string                `json:"node,omitempty"`        // id or name; or else
	Site       string                `json:"site,omitempty"`        // any node of that site, nearest first
	NoFallback bool                  `json:"no_fallback,omitempty"` // no other node is asked when these are away
}

// A RepositoryRule is a rule as lists show it.
type RepositoryRule struct {
	ID    string `json:"id"`
	Order int    `json:"order"` // from 1; the first that a host meets decides
	RepositoryRuleEdit
	Target  string    `json:"target"` // "node brs-01", "site brest"
	Text    string    `json:"text"`   // the whole rule in one sentence
	Hosts   int       `json:"hosts"`  // for which it is the first that holds, now
	By      string    `json:"by"`
	At      time.Time `json:"at"`
	Problem string    `json:"problem,omitempty"`
}

// repositoryRuleRecord is a rule as it is kept; Node is an id.
type repositoryRuleRecord struct {
	RepositoryRuleEdit
	Place  int64  `json:"place"`  // rules are in the order of it, then of their ids
	Target string `json:"target"` // what it chooses, as it was called when the rule was edited
	editRecord
}

// A route is a rule ready to be asked.
type route struct {
	id string
	repositoryRuleRecord
	nets map[int][]netip.Prefix // of the conditions that are about addresses
}

const (
	maxRepositoryRules = 200
	maxConditions      = 10
	maxConditionValues = 64
	placeStep          = 1 << 20 // between neighbours, so that there is room for others
)

func newRoute(id string, r repositoryRuleRecord) *route {
	t := &route{id: id, repositoryRuleRecord: r, nets: map[int][]netip.Prefix{}}
	for i, c := range r.Conditions {
		for _, v := range c.Values {
			if n, err := parseNet(v); err == nil && (c.Kind == BySubnet || c.Kind == ByPublicAddress) {
				t.nets[i] = append(t.nets[i], n)
			}
		}
	}
	return t
}

func sortRoutes(list []*route) {
	slices.SortFunc(list, func(x, y *route) int { return cmp.Or(cmp.Compare(x.Place, y.Place), strings.Compare(x.id, y.id)) })
}

// parseNet reads a network, or an address as a network of one.
func parseNet(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	n, err := netip.ParsePrefix(s)
	return n.Masked(), err
}

// holds says whether every condition holds for a host at p.
func (r *route) holds(p place) bool {
	for i, c := range r.Conditions {
		if r.any(i, c, p) == c.Not {
			return false
		}
	}
	return true
}

// any says whether one of the values of a condition is the host's.
func (r *route) any(i int, c RepositoryCondition, p place) bool {
	switch c.Kind {
	case BySubnet:
		addrs := p.near()
		if len(addrs) == 0 && p.remote.IsValid() {
			addrs = []netip.Addr{p.remote}
		}
		return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return within(r.nets[i], a) })
	case ByPublicAddress:
		return within(r.nets[i], p.remote)
	case ByDomain:
		return like(c.Values, p.domain)
	case ByADSite:
		return like(c.Values, p.adSite)
	case ByHostName:
		return like(c.Values, p.name) || like(c.Values, p.fqdn)
	}
	return c.Not // of a newer version of the product: a rule that is not understood holds for nobody
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func within(nets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) })
}

func like(patterns []string, name string) bool {
	name = strings.ToLower(name)
	return name != "" && slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil
	})
}

// names says whether the rule is for that node.
func (r *route) names(id string, n nodeRecord) bool {
	return r.Node == id || r.Site != "" && strings.EqualFold(r.Site, n.Site)
}

// applyRoutes puts the nodes that rules choose for a host before the others.
// used are the rules that hold, in their order; one that names no node of the
// mesh is passed over. only says that the last of them has no fallback: then
// there are no others.
func applyRoutes(list []*route, ranked []choice, p place) (chosen []choice, used []*route, only bool) {
	rest := slices.Clone(ranked)
	for _, r := range list {
		names := func(c choice) bool { return r.names(c.id, c.rec) }
		if !r.holds(p) || !slices.ContainsFunc(ranked, names) {
			continue
		}
		used = append(used, r)
		for _, c := range rest {
			if names(c) {
				chosen = append(chosen, c)
			}
		}
		rest = slices.DeleteFunc(rest, names)
		if r.NoFallback {
			return chosen, used, true
		}
	}
	return append(chosen, rest...), used, false
}

// routes are the rules in their order. The lock is held for writing.
func (c *catalogue) routes() []*route {
	if c.ordered == nil {
		c.ordered = make([]*route, 0, len(c.repositoryRules))
		for id, r := range c.repositoryRules {
			c.ordered = append(c.ordered, newRoute(id, r))
		}
		sortRoutes(c.ordered)
	}
	return c.ordered
}

func (a *Appliance) routes() []*route {
	a.cat.mu.Lock()
	defer a.cat.mu.Unlock()
	return a.cat.routes()
}

// routeMark tells apart what rules choose for a host: another mark, and it has
// to be told.
func routeMark(list []*route, p place) (mark string) {
	for _, r := range list {
		if r.holds(p) {
			mark += fmt.Sprintf("/%s %s %s %t", r.id, r.Node, r.Site, r.NoFallback)
			if r.NoFallback {
				break
			}
		}
	}
	return mark
}

// check makes the edit exact, or says what is wrong with it.
func (e RepositoryRuleEdit) check(living map[string]nodeRecord) (RepositoryRuleEdit, error) {
	wrong := func(field, format string, args ...any) (RepositoryRuleEdit, error) {
		return e, &Problem{Kind: Invalid, Field: field, Msg: fmt.Sprintf(format, args...)}
	}
	e.Name = strings.TrimSpace(e.Name)
	if e.Name == "" || len(e.Name) > 80 || !printable(e.Name) {
		return wrong("name", "A rule needs a name of at most 80 letters, for whoever reads the list in a year.")
	}
	if len(e.Conditions) > maxConditions {
		return wrong("conditions", "A rule has at most %d conditions.", maxConditions)
	}
	conditions := []RepositoryCondition{}
	for _, c := range e.Conditions {
		c, err := c.check()
		if err != nil {
			return e, err
		}
		conditions = append(conditions, c)
	}
	e.Conditions = conditions
	switch {
	case e.Node != "" && e.Site != "", e.Node == "" && e.Site == "":
		return wrong("target", "A rule chooses a node or a site: name one of them.")
	case e.Node != "":
		for id, n := range living {
			if id == e.Node || strings.EqualFold(n.Name, e.Node) {
				e.Node = id
				return e, nil
			}
		}
		return wrong("target", "There is no node %.64q in the mesh.", e.Node)
	}
	for _, n := range living {
		if strings.EqualFold(n.Site, e.Site) {
			e.Site = n.Site
			return e, nil
		}
	}
	return wrong("target", "No node of the mesh is at a site %.64q.", e.Site)
}

func (c RepositoryCondition) check() (RepositoryCondition, error) {
	wrong := func(format string, args ...any) (RepositoryCondition, error) {
		return c, &Problem{Kind: Invalid, Field: string(c.Kind), Msg: fmt.Sprintf(format, args...)}
	}
	if !slices.Contains(ConditionKinds, c.Kind) {
		return c, &Problem{Kind: Invalid, Field: "conditions", Msg: fmt.Sprintf("%.40q is no kind of condition.", c.Kind), Hint: fmt.Sprintf("There are %v.", ConditionKinds)}
	}
	var values []string
	for _, v := range c.Values {
		v = strings.ToLower(strings.TrimSpace(v))
		switch {
		case v == "":
			continue
		case len(v) > 253 || !printable(v):
			return wrong("%.64q is no name of a host, a domain or a site.", v)
		case c.Kind == BySubnet || c.Kind == ByPublicAddress:
			n, err := parseNet(v)
			if err != nil {
				return wrong("%.64q is no network: write it as 10.1.0.0/16, or as one address.", v)
			}
			v = n.String()
			if n.IsSingleIP() {
				v = n.Addr().String()
			}
		default:
			if _, err := path.Match(v, ""); err != nil {
				return wrong("%.64q is no pattern: * stands for anything, ? for one letter.", v)
			}
		}
		values = append(values, v)
	}
	if c.Values = uniq(values); len(c.Values) == 0 {
		is, _ := c.Kind.words()
		return wrong("The condition %q names nothing.", is)
	}
	if len(c.Values) > maxConditionValues {
		return wrong("A condition has at most %d values.", maxConditionValues)
	}
	return c, nil
}

// text is a rule in one sentence; target is what it chooses.
func (e RepositoryRuleEdit) text(target string) string {
	who := "Every host"
	for i, c := range e.Conditions {
		who = or(i == 0, "Hosts ", who+", ") + c.String()
	}
	return who + or(len(e.Conditions) > 0, " ask ", " asks ") + target + " first" + or(e.NoFallback, ", and no other node when that is away.", ".")
}

// targetOf names what a rule chooses, and says what is wrong with that.
func (a *Appliance) targetOf(r repositoryRuleRecord, living map[string]nodeRecord) (target, problem string) {
	if r.Site != "" {
		for _, n := range living {
			if strings.EqualFold(n.Site, r.Site) {
				return "site " + r.Site, ""
			}
		}
		return "site " + r.Site, "No node of the mesh is at site " + r.Site + " any more: the rule is passed over. Choose another site or node, or delete it."
	}
	if n, ok := living[r.Node]; ok {
		return "node " + n.Name, ""
	}
	if rem, gone := a.roster.removal(r.Node); gone {
		return "node " + rem.Name, "Node " + rem.Name + " was removed from the mesh: the rule is passed over. Choose another node, or delete it."
	}
	return cmp.Or(r.Target, "a node that is gone"), "This node does not know the node that the rule chooses: the rule is passed over."
}

// repositoryRow is a rule as lists show it, without its hosts.
func (a *Appliance) repositoryRow(r *route, order int, living map[string]nodeRecord) RepositoryRule {
	row := RepositoryRule{ID: r.id, Order: order, RepositoryRuleEdit: r.RepositoryRuleEdit, By: r.By, At: r.At}
	row.Target, row.Problem = a.targetOf(r.repositoryRuleRecord, living)
	row.Text = r.text(row.Target)
	return row
}

// nodeRecords are the nodes that rules may name; none while this one is in no
// mesh.
func (a *Appliance) nodeRecords() map[string]nodeRecord {
	all := map[string]nodeRecord{}
	for _, c := range a.candidates() {
		all[c.id] = c.rec
	}
	return all
}

// RepositoryRules lists the rules in their order.
func (a *Appliance) RepositoryRules(context.Context) ([]RepositoryRule, error) {
	living := a.nodeRecords()
	a.cat.mu.Lock()
	defer a.cat.mu.Unlock()
	routes := a.cat.routes()
	list := make([]RepositoryRule, 0, len(routes))
	for i, r := range routes {
		list = append(list, a.repositoryRow(r, i+1, living))
	}
	if len(list) == 0 {
		return list, nil
	}
	all := a.cat.allRoutes(living)
	for _, h := range a.cat.hosts {
		if !h.enrolled() {
			continue
		}
		if i := h.decidedBy(all); i >= 0 {
			list[i].Hosts++
		}
	}
	return list, nil
}

// A ruling is which rule decides for a host, as it was found: the counts of a
// page ask it of every host, and a tenth of a second is too long for 100,000.
type ruling struct {
	among *routing
	from  string // where the host called from then
	rule  int    // -1 for none
}

// A routing is all rules and what nodes they can name. Another one is made
// when either changes, so that no ruling under the old one is taken for one
// under the new.
type routing struct {
	routes []*route
	living map[string]nodeRecord
}

func (c *catalogue) allRoutes(living map[string]nodeRecord) *routing {
	same := func(x, y nodeRecord) bool { return x.Site == y.Site }
	if routes := c.routes(); c.routing == nil || !slices.Equal(c.routing.routes, routes) || !maps.EqualFunc(c.routing.living, living, same) {
		c.routing = &routing{slices.Clone(routes), living}
	}
	return c.routing
}

// decidedBy is the rule that decides for the host, -1 for none.
func (h *host) decidedBy(all *routing) int {
	if from := h.calledFrom(); h.ruling.among != all || h.ruling.from != from {
		h.ruling = ruling{all, from, first(all.routes, h.place(), all.living)}
	}
	return h.ruling.rule
}

// first is the rule that decides for a host, as applyRoutes finds it; -1 for
// none.
func first(list []*route, p place, living map[string]nodeRecord) int {
	return slices.IndexFunc(list, func(r *route) bool {
		if !r.holds(p) {
			return false
		}
		for id, n := range living {
			if r.names(id, n) {
				return true
			}
		}
		return false
	})
}

// RepositoryRule is one rule.
func (a *Appliance) RepositoryRule(ctx context.Context, id string) (RepositoryRule, error) {
	list, err := a.RepositoryRules(ctx)
	if err != nil {
		return RepositoryRule{}, err
	}
	for _, r := range list {
		if r.ID == id {
			return r, nil
		}
	}
	return RepositoryRule{}, noSuchRule(id)
}

func noSuchRule(id string) *Problem {
	return &Problem{Kind: NotFound, Msg: fmt.Sprintf("There is no repository rule %.40q.", id), Hint: "Somebody may have deleted it; the audit log says who."}
}

// MakeRepositoryRule adds a rule after the others.
func (a *Appliance) MakeRepositoryRule(ctx context.Context, by Actor, e RepositoryRuleEdit) (RepositoryRule, error) {
	b := make([]byte, 8)
	rand.Read(b)
	return a.putRepositoryRule(ctx, by, hex.EncodeToString(b), e, true)
}

// SetRepositoryRule changes a rule; it stays at its place.
func (a *Appliance) SetRepositoryRule(ctx context.Context, by Actor, id string, e RepositoryRuleEdit) (RepositoryRule, error) {
	return a.putRepositoryRule(ctx, by, id, e, false)
}

func (a *Appliance) putRepositoryRule(ctx context.Context, by Actor, id string, e RepositoryRuleEdit, fresh bool) (RepositoryRule, error) {
	if err := by.need(Owner); err != nil {
		return RepositoryRule{}, err
	}
	living := a.nodeRecords()
	e, err := e.check(living)
	if err != nil {
		return RepositoryRule{}, err
	}
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		all, err := storedRoutes(tx)
		if err != nil {
			return err
		}
		rec := repositoryRuleRecord{RepositoryRuleEdit: e, Place: placeStep, editRecord: editRecord{by.Name, tx.Now()}}
		rec.Target, _ = a.targetOf(rec, living)
		before := ""
		switch i := slices.IndexFunc(all, func(r *route) bool { return r.id == id }); {
		case i >= 0:
			rec.Place = all[i].Place
			before = all[i].text(all[i].Target)
		case !fresh:
			return noSuchRule(id)
		case len(all) >= maxRepositoryRules:
			return &Problem{Kind: TooMany, Msg: fmt.Sprintf("There are %d repository rules already.", maxRepositoryRules), Hint: "One rule takes many subnets or names."}
		case len(all) > 0:
			rec.Place = all[len(all)-1].Place + placeStep
		}
		if err := repositoryRules.put(tx, id, rec); err != nil {
			return err
		}
		return a.audit(tx, by, or(fresh, "make repository rule", "edit repository rule"), repositoryObject(e.Name), before, rec.text(rec.Target))
	})
	if err != nil {
		return RepositoryRule{}, fmt.Errorf("edit repository rule: %w", err)
	}
	return a.RepositoryRule(ctx, id)
}

func repositoryObject(name string) string { return "repository-rule " + name }

func storedRoutes(tx *replicate.Tx) (list []*route, err error) {
	for r, err := range repositoryRules.all(tx, "") {
		if err != nil {
			return nil, err
		}
		list = append(list, newRoute(r.id, r.value))
	}
	sortRoutes(list)
	return list, nil
}

// MoveRepositoryRule puts a rule at a place of the order, from 1. Only its own
// record changes, unless there is no room between its new neighbours.
func (a *Appliance) MoveRepositoryRule(ctx context.Context, by Actor, id string, to int) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		all, err := storedRoutes(tx)
		if err != nil {
			return err
		}
		from := slices.IndexFunc(all, func(r *route) bool { return r.id == id })
		if from < 0 {
			return noSuchRule(id)
		}
		to := min(max(to-1, 0), len(all)-1)
		if to == from {
			return nil
		}
		moved := all[from]
		all = slices.Insert(slices.Delete(all, from, from+1), to, moved)
		changed, places := []*route{moved}, make([]int64, len(all))
		for i, r := range all {
			places[i] = r.Place
		}
		if place, room := between(places, to); room {
			moved.Place = place
		} else {
			for i, r := range all {
				r.Place = int64(i+1) * placeStep
			}
			changed = all
		}
		moved.editRecord = editRecord{by.Name, tx.Now()}
		for _, r := range changed {
			if err := repositoryRules.put(tx, r.id, r.repositoryRuleRecord); err != nil {
				return err
			}
		}
		return a.audit(tx, by, "move repository rule", repositoryObject(moved.Name), fmt.Sprintf("place %d", from+1), fmt.Sprintf("place %d", to+1))
	})
	if err != nil {
		return fmt.Errorf("move repository rule: %w", err)
	}
	return nil
}

// between is a place for what is at i of an order, if there is room between its
// neighbours.
func between(places []int64, i int) (place int64, room bool) {
	switch {
	case len(places) == 1:
		return placeStep, true
	case i == len(places)-1:
		return places[i-1] + placeStep, true
	case i == 0:
		return places[1] - placeStep, true
	}
	place = places[i-1] + (places[i+1]-places[i-1])/2
	return place, place > places[i-1] && place < places[i+1]
}

// DeleteRepositoryRule deletes a rule; hosts are told at once.
func (a *Appliance) DeleteRepositoryRule(ctx context.Context, by Actor, id string) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		r, ok, err := repositoryRules.find(tx, id)
		if err != nil || !ok {
			return cmpErr(err, noSuchRule(id))
		}
		if err := repositoryRules.del(tx, id); err != nil {
			return err
		}
		return a.audit(tx, by, "delete repository rule", repositoryObject(r.Name), r.text(r.Target), "")
	})
	if err != nil {
		return fmt.Errorf("delete repository rule: %w", err)
	}
	return nil
}

// A RepositoryPreview is what storing a rule would do, by what hosts last said
// of themselves.
type RepositoryPreview struct {
	Rule    RepositoryRule   `json:"rule"`    // as it would be
	Meets   int              `json:"meets"`   // hosts that meet its conditions
	Decides int              `json:"decides"` // of them, those that no earlier rule decides about
	Changes int              `json:"changes"` // hosts that would ask other nodes than now
	Hosts   []RepositoryHost `json:"hosts"`   // that meet its conditions or change, by name; at most 100
}

// A RepositoryHost is one host of a preview.
type RepositoryHost struct {
	ID      agentproto.HostID `json:"id"`
	Name    string            `json:"name"`
	Meets   bool              `json:"meets"`
	Now     string            `json:"now"`               // the node it asks first
	Then    string            `json:"then"`              // the node it would ask first
	Earlier string            `json:"earlier,omitempty"` // the rule before this one that decides about it
}

const maxPreviewHosts = 100

// PreviewRepositoryRule says what storing the same edit would do; an empty id
// is for a new rule.
func (a *Appliance) PreviewRepositoryRule(_ context.Context, id string, e RepositoryRuleEdit) (v RepositoryPreview, err error) {
	nodes := a.candidates()
	living := a.nodeRecords()
	if e, err = e.check(living); err != nil {
		return v, err
	}
	a.cat.mu.Lock()
	defer a.cat.mu.Unlock()
	now := a.cat.routes()
	then := slices.Clone(now)
	i := slices.IndexFunc(now, func(r *route) bool { return r.id == id })
	switch {
	case i >= 0:
		rec := now[i].repositoryRuleRecord
		rec.RepositoryRuleEdit = e
		then[i] = newRoute(id, rec)
	case id != "":
		return v, noSuchRule(id)
	default:
		i = len(now)
		then = append(then, newRoute("", repositoryRuleRecord{RepositoryRuleEdit: e}))
	}
	v.Rule = a.repositoryRow(then[i], i+1, living)
	v.Hosts = []RepositoryHost{}
	for _, h := range a.cat.sorted() {
		if !h.enrolled() {
			continue
		}
		p := h.place()
		row := RepositoryHost{ID: h.id, Name: h.Facts.Name, Meets: then[i].holds(p)}
		moves := routeMark(now, p) != routeMark(then, p)
		if !row.Meets && !moves {
			continue
		}
		if row.Meets {
			v.Meets++
		}
		switch n := first(then, p, living); {
		case n == i:
			v.Decides++
		case n >= 0 && n < i:
			row.Earlier = then[n].Name
		}
		if moves {
			v.Changes++
		}
		if len(v.Hosts) < maxPreviewHosts {
			row.Now, row.Then = firstNode(nodes, now, p), firstNode(nodes, then, p)
			v.Hosts = append(v.Hosts, row)
		}
	}
	v.Rule.Hosts = v.Decides
	return v, nil
}

// firstNode names the node that a host at p asks first by those rules.
func firstNode(nodes []choice, routes []*route, p place) string {
	ranked, placed := rankNodes(nodes, p)
	chosen, used, _ := applyRoutes(routes, ranked, p)
	if len(used) == 0 && !placed || len(chosen) == 0 {
		return "the one in its wapt-get.ini"
	}
	return chosen[0].rec.Name
}

// Summary says the preview in one sentence.
func (v RepositoryPreview) Summary() string {
	text := fmt.Sprintf("%s now.", hostsMeet(v.Meets))
	if n := v.Meets - v.Decides; n > 0 {
		text += fmt.Sprintf(" About %d of them an earlier rule decides.", n)
	}
	if v.Changes == 0 {
		return text + " No host changes its node."
	}
	return text + fmt.Sprintf(" %d %s told of other nodes.", v.Changes, or(v.Changes == 1, "host is", "hosts are"))
}

func hostsMeet(n int) string {
	switch n {
	case 0:
		return "No host meets the rule"
	case 1:
		return "1 host meets the rule"
	}
	return fmt.Sprintf("%d hosts meet the rule", n)
}

// A NodeChoice is which nodes a host is told to ask, and why.
type NodeChoice struct {
	Nodes []string `json:"nodes"`          // by name, first asked first
	Why   string   `json:"why"`            // one or two sentences
	Rule  string   `json:"rule,omitempty"` // id of the repository rule that decided
	Only  bool     `json:"only,omitempty"` // no other node is asked
}

// choiceFor is which nodes the host at p is told, and why.
func choiceFor(nodes []choice, routes []*route, p place) NodeChoice {
	ranked, placed := rankNodes(nodes, p)
	chosen, used, only := applyRoutes(routes, ranked, p)
	n := NodeChoice{Only: only, Nodes: []string{}}
	for _, c := range chosen[:min(len(chosen), maxTold)] {
		n.Nodes = append(n.Nodes, c.rec.Name)
	}
	switch {
	case len(used) > 0:
		n.Rule = used[0].id
		n.Why = fmt.Sprintf("Repository rule %q chooses %s.", used[0].Name, n.Nodes[0]) + or(only, " No other node is asked when that is away.", "")
	case placed && longestOf(ranked, p) > 0:
		n.Why = "Its address is in a network of that node, or of another one of its site."
	case placed:
		n.Why = fmt.Sprintf("Active Directory has it at site %s, which is called like the node's.", p.adSite)
	default:
		n.Why = "Nobody knows where it is: it asks the node in its wapt-get.ini, and these when that is away."
	}
	return n
}

func longestOf(list []choice, p place) (bits int) {
	for _, c := range list {
		bits = max(bits, longest(c.rec.Nets, p.near()))
	}
	return bits
}
