package appliance

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/replicate"
)

// A catalogue holds the replicated records decoded in memory and answers
// questions about them. It is filled by following the store: at the start and
// after every commit by the same code, so what an Update changed is here when
// it returns.
type catalogue struct {
	log       *slog.Logger
	folder    *folder
	roster    *roster
	published *published

	mu       sync.RWMutex
	hosts    map[agentproto.HostID]*host
	variants variants
	words    words
	updates  map[rules.UpdateID]*update
	packages map[string]*pkg
	groups   map[string]*group
	commands map[agentproto.HostID]map[string]commandRecord
	outcomes map[agentproto.HostID]map[string]outcomeRecord
	admins   map[string]adminRecord
	tokens   map[string]tokenRecord
	meetings map[string]meetingRecord
	rings    map[string]ringRecord                    // by package
	edits    map[string]lastEdit                      // by package: its last version
	stops    map[rules.UpdateID]map[string]stopRecord // by update and id, see stop.go
	// profiles by name, see profile.go; profileOrder is their names in order, nil
	// until asked for.
	profiles     map[string]*profile
	profileEdits map[string]lastEdit
	groupEdits   map[string]lastEdit
	profileOrder []string
	// repositoryRules by id; ordered is them in their order, nil until asked for.
	compliance      ComplianceRule
	sites           numbered // of nodes that hosts report to; a number stays
	hostWords       hostWords
	repositoryRules map[string]repositoryRuleRecord
	ordered         []*route
	routing         *routing // of them, nil until asked for
	// contrary is sent to when a line came that may stand beside its contrary.
	contrary chan struct{}
	// classes are the hosts about which the same rules decide, policies what
	// they decide by; both are found when asked for, see class.go.
	classes  map[string]*class
	policies map[string]*policy
	table    *countTable // the last counts, see matrix.go
	changed  bool        // something that is counted changed since
	// background says that keepCounts runs; recount makes it count. counting
	// is while it counts for the first time, counted tells of the end of that.
	background bool
	quick      int // statuses up to which it is counted at once; tests lower it
	recount    chan struct{}
	counting   bool
	counted    sync.Cond
	index      []indexed // for lists of hosts, see hostindex.go; nil when something of it changed
	// classNumbers and systems are what the index has by number.
	classNumbers []*class
	systems      numbered
	slots        int     // numbers that hosts have in a countTable, from 0
	byName       []*host // hosts in the order of their names; nil when one changed
	// alike counts the hosts by everything they are called, in lower case; nil
	// when one changed.
	alike     map[string]int32
	strays    bool // some host has no class yet
	byFile    map[string]wantedFile
	everyRule *rules.Ruleset // of all packages together; nil until asked for
}

// A host is one managed machine in memory.
type host struct {
	id agentproto.HostID
	hostRecord
	status   scanRecord
	statuses hostStatuses
	class    *class    // nil until asked for
	slot     int       // its place in a countTable, its own for ever
	seen     time.Time // last contact; kept in memory alone
	at       presenceRecord
	from     string // address of its last check-in here; kept in memory alone
	doing    string
	due      time.Time // when its next check-in should come
	ruling   ruling    // of the repository rules, zero until asked for
}

// enrolled says that the host is one to count: its record is here and nobody
// has to approve it.
func (h *host) enrolled() bool { return h.Key != "" && !h.Waiting }

// sorted is the hosts in the order of their names, whatever their capitals,
// then ids. The lock is held for writing.
func (c *catalogue) sorted() []*host {
	if c.byName != nil {
		return c.byName
	}
	type named struct {
		name string // in small letters
		host *host
	}
	list := make([]named, 0, len(c.hosts))
	for _, h := range c.hosts {
		list = append(list, named{strings.ToLower(h.Facts.Name), h})
	}
	slices.SortFunc(list, func(x, y named) int {
		return cmp.Or(strings.Compare(x.name, y.name), strings.Compare(string(x.host.id), string(y.host.id)))
	})
	c.byName = make([]*host, len(list))
	for i, n := range list {
		c.byName[i] = n.host
	}
	return c.byName
}

// An update is all revisions of one UpdateID that hosts described.
type update struct {
	reported  map[int]updateRecord // as they did
	revisions map[int]updateRecord // with what the scan cab says, see merge.go
	newest    int
}

// A pkg is a rule package with its lines and assignments.
type pkg struct {
	packageRecord
	exists bool // its header is there, not only lines of it
	lines  map[rules.Line]editRecord
	groups map[string]editRecord
	hosts  map[agentproto.HostID]editRecord
}

type group struct {
	groupRecord
	exists  bool
	members map[agentproto.HostID]editRecord // given one by one
	terms   map[termKey]editRecord           // of the condition that chooses the others
	chooses matcher                          // what the terms come to; nil chooses nobody
}

// has says whether a host at a node of that site is in the group.
func (g *group) has(h *host, site string) bool {
	if _, given := g.members[h.id]; given {
		return true
	}
	return g.chooses.matches(&h.Facts, site)
}

// everyone is the built-in group of all hosts.
const everyone = "all"

// builtIn is it before anybody edits it.
var builtIn = groupRecord{Description: "Every host."}

func newCatalogue(a *Appliance) (*catalogue, error) {
	c := &catalogue{
		log: a.log, folder: a.folder, roster: a.roster, published: a.published,
		hosts: map[agentproto.HostID]*host{}, updates: map[rules.UpdateID]*update{}, packages: map[string]*pkg{},
		groups: map[string]*group{everyone: {exists: true, groupRecord: builtIn}}, commands: map[agentproto.HostID]map[string]commandRecord{},
		outcomes: map[agentproto.HostID]map[string]outcomeRecord{},
		admins:   map[string]adminRecord{}, tokens: map[string]tokenRecord{}, meetings: map[string]meetingRecord{}, contrary: make(chan struct{}, 1),
		rings:           map[string]ringRecord{},
		edits:           map[string]lastEdit{},
		stops:           map[rules.UpdateID]map[string]stopRecord{},
		profiles:        map[string]*profile{},
		profileEdits:    map[string]lastEdit{},
		groupEdits:      map[string]lastEdit{},
		repositoryRules: map[string]repositoryRuleRecord{},
		compliance:      defaultCompliance,
		variants:        variants{number: map[variant]int{}}, classes: map[string]*class{}, policies: map[string]*policy{},
	}
	c.recount, c.counted.L, c.quick = make(chan struct{}, 1), &c.mu, quickCells
	err := a.db.Follow(func(list []replicate.Record) {
		a.records.Add(int64(len(list)))
		c.follow(list) // first: what the others wake up looks here
		a.watch.follow(list)
		a.folder.follow(list)
		a.streams.follow(list)
	})
	if err != nil {
		return nil, fmt.Errorf("read the catalogue: %w", err)
	}
	return c, nil
}

// follow takes changed records in. A record that does not decode is kept in
// the store, logged, and left out here.
func (c *catalogue) follow(list []replicate.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range list {
		kind, id, _ := strings.Cut(r.Key, "/")
		if err := c.take(kind, id, r); err != nil {
			c.log.Error("record not understood; it is kept and left out of the pages", "key", r.Key, "err", err)
		}
	}
}

func (c *catalogue) take(kind, id string, r replicate.Record) error {
	switch kind {
	case "host":
		return c.takeHost(agentproto.HostID(id), r)
	case "status":
		return c.takeStatus(agentproto.HostID(id), r)
	case "presence":
		return c.takePresence(agentproto.HostID(id), r)
	case "update":
		return c.takeUpdate(id, r)
	case "package", "line", "assign":
		return c.takePackage(kind, id, r)
	case "group", "member", "term":
		return c.takeGroup(kind, id, r)
	case "profile", "option", "grant":
		return c.takeProfile(kind, id, r)
	case "profile-version":
		return takeVersion(c.profileEdits, id, r)
	case "group-version":
		return takeVersion(c.groupEdits, id, r)
	case "command":
		return takeByHost(c.commands, id, r)
	case "outcome":
		return takeByHost(c.outcomes, id, r)
	case "stop":
		return c.takeStop(id, r)
	case "ring":
		return set(c.rings, id, r)
	case "version":
		return takeVersion(c.edits, id, r)
	case "file":
		c.touch()
	case "admin":
		return set(c.admins, id, r)
	case "token":
		return set(c.tokens, id, r)
	case "meeting":
		return set(c.meetings, id, r)
	case "compliance":
		return c.takeCompliance(r)
	case "repository-rule":
		c.ordered = nil
		return set(c.repositoryRules, id, r)
	case "node", "removed", "anchor", "gossip", "recovery":
		if err := c.roster.take(kind, id, r); err != nil || kind != "node" {
			return err
		}
		c.declassBySite(nil)
	}
	return nil
}

// set keeps or drops one decoded record.
func set[K comparable, V any](m map[K]V, key K, r replicate.Record) error {
	if r.Deleted {
		delete(m, key)
		return nil
	}
	var v V
	if err := decode(r.Key, r.Value, &v); err != nil {
		return err
	}
	m[key] = v
	return nil
}

func (c *catalogue) takeHost(id agentproto.HostID, r replicate.Record) error {
	c.touch()
	if r.Deleted {
		if h := c.hosts[id]; h != nil {
			c.declass(h)
			delete(c.hosts, id)
			c.byName, c.alike = nil, nil
		}
		return nil
	}
	h := c.host(id)
	was := h.hostRecord
	h.hostRecord = hostRecord{}
	err := decode(r.Key, r.Value, &h.hostRecord)
	c.words.share(&h.hostRecord)
	if was.Facts.Name != h.Facts.Name {
		c.byName = nil
	}
	if was.Facts.Name != h.Facts.Name || was.Facts.FQDN != h.Facts.FQDN || was.Key == "" {
		c.alike = nil
	}
	c.declass(h)
	return err
}

// host returns the host of that id, making one that has only an id: records
// of one host may come from several nodes, in any order.
func (c *catalogue) host(id agentproto.HostID) *host {
	h := c.hosts[id]
	if h == nil {
		h = &host{id: id, slot: c.slots}
		c.slots++
		c.hosts[id], c.byName = h, nil
	}
	return h
}

func (c *catalogue) takeStatus(id agentproto.HostID, r replicate.Record) error {
	c.touch()
	if r.Deleted && c.hosts[id] == nil {
		return nil
	}
	h := c.host(id)
	h.status, h.statuses = scanRecord{}, hostStatuses{}
	if r.Deleted {
		return nil
	}
	var rec statusRecord
	if err := decode(r.Key, r.Value, &rec); err != nil {
		return err
	}
	h.status, h.statuses = rec.scanRecord, c.variants.pack(rec.Statuses)
	if rec.Scan != nil {
		h.status.Scan.Cab = c.words.of(rec.Scan.Cab)
	}
	return nil
}

func (c *catalogue) takePresence(id agentproto.HostID, r replicate.Record) error {
	if r.Deleted && c.hosts[id] == nil {
		return nil
	}
	h := c.host(id)
	was := h.at.Node
	h.at = presenceRecord{}
	var err error
	if !r.Deleted {
		err = decode(r.Key, r.Value, &h.at)
		h.at.Node = c.words.of(h.at.Node)
	}
	if h.at.Node != was {
		c.declassBySite(h)
	}
	if h.at.At.After(h.seen) {
		h.from = "" // it has been elsewhere since
	}
	return err
}

func (c *catalogue) takeUpdate(id string, r replicate.Record) error {
	c.touch()
	c.forgetPolicies() // their decisions may rest on what the update is
	c.byFile = nil
	name, rev, _ := strings.Cut(id, "/")
	revision, err := strconv.Atoi(rev)
	if err != nil {
		return fmt.Errorf("revision of %s: %w", r.Key, err)
	}
	u := c.updates[rules.UpdateID(name)]
	if u == nil {
		u = &update{reported: map[int]updateRecord{}, revisions: map[int]updateRecord{}}
		c.updates[rules.UpdateID(name)] = u
	}
	if err := set(u.reported, revision, r); err != nil {
		return err
	}
	if c.stops[rules.UpdateID(name)] != nil {
		defer c.blockFiles()
	}
	delete(u.revisions, revision)
	if rec, ok := u.reported[revision]; ok {
		u.revisions[revision] = c.published.merge(rec)
	}
	if len(u.revisions) == 0 {
		delete(c.updates, rules.UpdateID(name))
		return nil
	}
	u.newest = slices.Max(slices.Collect(maps.Keys(u.revisions)))
	return nil
}

func (c *catalogue) takePackage(kind, id string, r replicate.Record) error {
	c.touch()
	c.forgetPolicies()
	name, rest, _ := strings.Cut(id, "/")
	p := c.packages[name]
	if p == nil {
		p = &pkg{lines: map[rules.Line]editRecord{}, groups: map[string]editRecord{}, hosts: map[agentproto.HostID]editRecord{}}
		c.packages[name] = p
	}
	defer func() {
		if !p.exists && len(p.lines)+len(p.groups)+len(p.hosts) == 0 {
			delete(c.packages, name)
		}
	}()
	switch {
	case kind == "package":
		wake(c.contrary)
		p.exists, p.packageRecord = !r.Deleted, packageRecord{}
		if r.Deleted {
			return nil
		}
		return decode(r.Key, r.Value, &p.packageRecord)
	case kind == "line":
		parts := strings.Split(rest, "/")
		if len(parts) != 3 {
			return fmt.Errorf("%s is no line", r.Key)
		}
		wake(c.contrary)
		return set(p.lines, rules.Line{Verb: rules.Verb(parts[2]), Kind: rules.Kind(parts[0]), Value: parts[1]}, r)
	}
	to, target, _ := strings.Cut(rest, "/")
	if to == "group" {
		return set(p.groups, target, r)
	}
	if h := c.hosts[agentproto.HostID(target)]; h != nil {
		c.declass(h)
	}
	return set(p.hosts, agentproto.HostID(target), r)
}

func (c *catalogue) takeGroup(kind, id string, r replicate.Record) error {
	c.touch()
	c.forgetPolicies()
	name, hostID, _ := strings.Cut(id, "/")
	g := c.groups[name]
	if g == nil {
		g = &group{}
		c.groups[name] = g
	}
	if g.members == nil {
		g.members = map[agentproto.HostID]editRecord{}
	}
	if kind == "member" {
		if h := c.hosts[agentproto.HostID(hostID)]; h != nil {
			c.declass(h)
		}
		wake(c.contrary)
		return set(g.members, agentproto.HostID(hostID), r)
	}
	wake(c.contrary)
	if kind == "term" {
		return c.takeTerm(g, id, r)
	}
	if g.exists, g.groupRecord = !r.Deleted, (groupRecord{}); r.Deleted {
		if len(g.members)+len(g.terms) == 0 {
			delete(c.groups, name)
		}
		return nil
	}
	return decode(r.Key, r.Value, &g.groupRecord)
}

// takeTerm changes the condition of a group, and by that who is in it.
func (c *catalogue) takeTerm(g *group, id string, r replicate.Record) error {
	if g.terms == nil {
		g.terms = map[termKey]editRecord{}
	}
	_, k := termOf(id)
	err := set(g.terms, k, r)
	g.chooses = conditionOf(g.terms).matcher()
	for _, h := range c.hosts {
		c.declass(h)
	}
	return err
}

// takeByHost keeps a record whose key is <host>/<id>.
func takeByHost[V any](m map[agentproto.HostID]map[string]V, key string, r replicate.Record) error {
	name, id, _ := strings.Cut(key, "/")
	h := agentproto.HostID(name)
	if m[h] == nil {
		m[h] = map[string]V{}
	}
	err := set(m[h], id, r)
	if len(m[h]) == 0 {
		delete(m, h)
	}
	return err
}

func (c *catalogue) hasAdmin() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.admins) > 0
}

func (c *catalogue) admin(name string) (adminRecord, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	r, ok := c.admins[name]
	return r, ok
}

// lastOwner says that name is an owner and nobody else is.
func (c *catalogue) lastOwner(name string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for n, r := range c.admins {
		if n != name && r.Role == Owner {
			return false
		}
	}
	return c.admins[name].Role == Owner
}

func (c *catalogue) adminRows() []AdminRow {
	c.mu.RLock()
	defer c.mu.RUnlock()
	list := []AdminRow{}
	for n, r := range c.admins {
		list = append(list, AdminRow{Name: n, Role: r.Role, Created: r.Created, Seen: r.Seen})
	}
	return sortedBy(list, func(r AdminRow) string { return r.Name })
}

func (c *catalogue) token(id string) (tokenRecord, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	r, ok := c.tokens[id]
	return r, ok
}

func (c *catalogue) tokenRows() []TokenRow {
	c.mu.RLock()
	defer c.mu.RUnlock()
	list := []TokenRow{}
	for _, r := range c.tokens {
		list = append(list, r.TokenRow)
	}
	return sortedBy(list, func(r TokenRow) string { return r.Name + r.ID })
}

// categoryTitles are the English names of Microsoft's commonest categories:
// hosts report them in their own language.
var categoryTitles = map[rules.CategoryID]string{
	"0fa1201d-4330-4fa8-8ae9-b877473b6441": "Security Updates", "e6cf1350-c01b-414d-a61f-263d14d133b4": "Critical Updates",
	"28bc880e-0592-4cbf-8f95-c79b17911d5f": "Update Rollups", "cd5ffd1e-e932-4e3a-bf74-18bf0b1bbd83": "Updates",
	"68c5b0a3-d1a6-4553-ae49-01d3a7827828": "Service Packs", "b54e7d24-7add-428f-8b75-90a396fa584f": "Feature Packs",
	"e0789628-ce08-4437-be74-2495b842f43b": "Definition Updates", "b4832bd8-e735-4761-8daf-37f882276dab": "Tools",
	"3689bdc8-b205-4af4-8d4a-a63924c5e9d5": "Upgrades", "72e7624a-5b00-45d2-b92f-e561c0a6a160": "Windows 11",
	"b3c75dc1-155f-4be4-b015-3f1a91758e52": "Windows 10, version 1903 and later", "a3c2375d-0c8a-42f9-bce0-28333e198407": "Windows 10",
	"569e8e8f-c6cd-42c8-92a3-efbb20a0f6f5": "Windows Server 2016", "f702a48c-919b-45d6-9aef-ca4248d50397": "Windows Server 2019",
	"71718f13-7324-4b0f-8f9e-2ca9dc978e53": "Windows Server 2022", "b256987d-4693-4c87-955d-dbb9341205eb": "Windows Server 2025",
	"25aed893-7c2d-4a31-ae22-28ff8ac150ed": "Office 2016", "30eb551c-6288-4716-9a78-f300ec36d72b": "Microsoft 365 Apps",
}

// named gives a category its English title, where one is known.
func (c *catalogue) named(k agentproto.Category) agentproto.Category {
	k.Title = cmp.Or(c.published.title(k.ID), categoryTitles[k.ID], k.Title)
	return k
}

func (c *catalogue) namedAll(list []agentproto.Category) []agentproto.Category {
	out := make([]agentproto.Category, 0, len(list))
	for _, k := range list {
		out = append(out, c.named(k))
	}
	return out
}

// Category gives the title of a product or a classification that the scan cab
// has, that some host reported, or that is well known.
func (a *Appliance) Category(id rules.CategoryID) (agentproto.Category, bool) {
	if k := a.cat.named(agentproto.Category{ID: id}); k.Title != "" {
		return k, true
	}
	a.cat.mu.RLock()
	defer a.cat.mu.RUnlock()
	for _, u := range a.cat.updates {
		r := u.revisions[u.newest]
		for _, k := range append(r.Products[:len(r.Products):len(r.Products)], r.Classification) {
			if k.ID == id {
				return k, true
			}
		}
	}
	return agentproto.Category{}, false
}
