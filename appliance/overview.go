package appliance

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance/microsoft"
)

// Status is the overview.
func (a *Appliance) Status(ctx context.Context) (Status, error) {
	s := Status{
		Node: a.NodeName(), Version: Version, Started: a.started, Cab: a.folder.cabView(), Attention: []Attention{}, Running: []Task{},
		FromUpstream: a.folder.upstream.Load(), ToAgents: a.folder.sent.Load(), Installed: a.installed.Load(),
	}
	s.Files, s.FolderBytes = a.folder.size()
	rows := a.nodeRows()
	s.Standing = a.standing(rows)
	var err error
	if s.FreeBytes, err = microsoft.Free(a.cfg.Folder); err != nil && a.folder.trouble() == nil {
		return s, err
	}
	if s.Unused, err = a.Unused(ctx); err != nil {
		return s, err
	}
	list, _, err := a.Tasks(ctx, TaskQuery{Page: Page{Limit: 500}})
	if err != nil {
		return s, err
	}
	var failed []Task
	for _, t := range list {
		switch t.Status {
		case "running", "queued":
			if len(s.Running) < 8 {
				s.Running = append(s.Running, t)
			}
		case "failed":
			if t.Kind == "update" {
				failed = append(failed, t)
			}
		}
	}
	if s.Trend, err = a.trend(ctx, time.Now()); err != nil {
		return s, err
	}
	if s.Recent, _, err = a.Audit(ctx, "", Page{Limit: 8}); err != nil {
		return s, err
	}
	tally := a.tally(&s)
	s.Attention = a.attention(s, tally, failed, rows)
	return s, nil
}

// Counts are the numbers beside the entries of the menu.
type Counts struct{ Updates, Packages, Hosts, Waiting, Running int }

// Counts counts what the menu names.
func (a *Appliance) Counts(context.Context) Counts {
	c := a.cat
	c.mu.Lock()
	t := c.counts(time.Now())
	n := Counts{Updates: len(t.updates), Packages: c.packageCount(), Hosts: t.all.Hosts, Waiting: t.waiting}
	c.mu.Unlock()
	n.Running = a.folder.busy()
	return n
}

// Cab is the scan cab in the folder.
func (a *Appliance) Cab() CabView { return a.folder.cabView() }

func (c *catalogue) packageCount() (n int) {
	for _, p := range c.packages {
		if p.exists {
			n++
		}
	}
	return n
}

// A tally is what the hosts add up to.
type tally struct {
	*countTable
	critical int // updates, Critical and MISSING somewhere
	// contradicted are updates of which hosts say something else than the scan
	// cab; against is the one of the smallest id.
	contradicted int
	against      rules.UpdateID
	clocks       []agentproto.ClockOff // of hosts that are not away
}

// whoseClock says of clocks that differ which may be the wrong one: one that
// differs alike from several hosts'.
func whoseClock(list []agentproto.ClockOff) string {
	first := list[0]
	alike := func(c agentproto.ClockOff) bool {
		return c.Node == first.Node && c.Behind == first.Behind && (c.Off-first.Off) < agentproto.Duration(agentproto.MaxClockOff) && (first.Off-c.Off) < agentproto.Duration(agentproto.MaxClockOff)
	}
	if len(list) > 1 && !slices.ContainsFunc(list, func(c agentproto.ClockOff) bool { return !alike(c) }) {
		return fmt.Sprintf("All of them differ from that of the node %s by %s, in the same way: its own clock may be the wrong one (timedatectl there).", first.Node, first.Amount())
	}
	return "Schedules and install delays of a host go by its own clock. Set it right there: w32tm /resync."
}

func (a *Appliance) tally(s *Status) tally {
	c, where := a.cat, a.census()
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.counts(where.now)
	n := tally{countTable: t}
	s.Pairs, s.Updates, s.Packages = t.pairs, len(t.updates), c.packageCount()
	s.Hosts, s.Waiting, s.Compliant, s.Compliance, s.Rule = t.all.Hosts, t.waiting, t.all.Compliant, t.all, c.compliance
	s.Sites, s.Rings = named(t.sites, func(i int) string { return c.sites.names[i] }), named(t.rings[:], ringName)
	for _, h := range c.sorted() {
		if h.enrolled() && where.online(h) {
			s.Online++
		}
		if h.enrolled() && h.clockOff(where) {
			n.clocks = append(n.clocks, *h.Clock)
		}
	}
	for id, uc := range t.updates {
		if uc.Missing > 0 && c.revision(id, -1).Severity == rules.Critical {
			n.critical++
		}
		if c.contradicted(id) {
			if n.contradicted++; n.against == "" || id < n.against {
				n.against = id
			}
		}
	}
	return n
}

// attention lists what an admin should look at, gravest first.
func (a *Appliance) attention(s Status, n tally, failed []Task, rows []NodeRow) []Attention {
	list := []Attention{}
	add := func(when bool, fact, cause, label, url string) {
		if when && len(list) < 8 {
			list = append(list, Attention{fact, cause, label, url})
		}
	}
	if p, full := AsProblem(a.db.Full()); full {
		add(true, p.Msg, "Nothing that hosts report or admins change can be kept. "+p.Hint, "Review unused files", "/clean")
	}
	add(s.Standing.Grade == Lost, s.Node+": "+s.Standing.Text, "Numbers that rest on other nodes are as old as that.", "See the mesh", "/mesh")
	folder := a.folder.trouble()
	if folder != nil {
		add(true, folder.Msg, "No file is served or downloaded until it can. "+folder.Hint, "Show download tasks", "/downloads")
	}
	if list, err := a.Stops(context.Background()); err == nil && len(list) > 0 {
		add(true, fmt.Sprintf("%s under an emergency stop.", things(len(list), "update is", "updates are")), fmt.Sprintf("%s stopped %s: %s", list[0].By, cmp.Or(list[0].Update.Title, string(list[0].Update.ID)), list[0].Reason), "See it", "/updates/"+string(list[0].Update.ID))
	}
	floor := int64(a.config().DiskFloor)
	add(folder == nil && s.FreeBytes < floor, fmt.Sprintf("%s has %s free, below its floor of %s.", s.Node, bytesText(s.FreeBytes), bytesText(floor)), "No file is downloaded until there is space.", "Review unused files", "/clean")
	faults := a.folder.share.faultList(time.Now())
	for _, f := range faults[:min(len(faults), 3)] {
		add(true, f.fact, f.cause, "See downloads", "/downloads")
	}
	add(n.critical > 0, fmt.Sprintf("%s Critical and MISSING.", things(n.critical, "update is", "updates are")), "Hosts need them and no node holds their files.", "See them", "/updates?severity=Critical&state=MISSING")
	add(len(failed) > 0, fmt.Sprintf("%s failed.", things(len(failed), "download", "downloads")), firstError(failed), "See downloads", "/downloads?status=failed")
	add(s.Cab.Refused != "", s.Cab.Refused, s.Cab.RefusedHint, "Show download tasks", "/downloads")
	add(s.Cab.Catalogue.Error != "", s.Cab.Catalogue.Error, s.Cab.Catalogue.Hint, "See the updates", "/updates")
	add(!s.Cab.Held, "The scan cab is not here yet.", sentence(s.Cab.Note)+"Hosts cannot scan without it.", "Show download tasks", "/downloads")
	add(s.Cab.Held && time.Since(s.Cab.Date) > 45*24*time.Hour && !s.Cab.Date.IsZero(), "The scan cab is of "+s.Cab.Date.Format("2 Jan 2006")+".", "Microsoft publishes one each month. "+s.Cab.Note+".", "Show download tasks", "/downloads")
	add(n.contradicted > 0, fmt.Sprintf("Hosts and the scan cab contradict each other about %s.", things(n.contradicted, "update", "updates")), "The scan cab holds: its digests are what files are compared with. A host that is not what it should be is a cause.", "See the first", "/updates/"+string(n.against))
	add(s.Waiting > 0, fmt.Sprintf("%s for approval.", things(s.Waiting, "host waits", "hosts wait")), "They enrolled without a token.", "Review", "/hosts?seen=waiting")
	add(n.claims > 0, fmt.Sprintf("%s claimed by another machine.", things(n.claims, "host is", "hosts are")), "It was installed anew, or cloned.", "Review", "/hosts?seen=waiting")
	for _, row := range rows {
		if len(row.Problems) > 0 && !(row.Self && s.Standing.Grade == Lost) {
			add(true, "Node "+row.Name+" needs a look.", row.Problems[0], "See the mesh", "/mesh?node="+row.ID)
		}
	}
	if met, err := a.Meetings(context.Background(), ""); err == nil && len(met) > 0 {
		add(true, fmt.Sprintf("Two edits of %s met%s.", met[0].Object, or(len(met) > 1, fmt.Sprintf(", and %d more did", len(met)-1), "")), fmt.Sprintf("%s and %s changed it without knowing of each other. One of the two holds.", met[0].Won.By, met[0].Lost.By), "Decide", "/mesh#met")
	}
	add(a.toReview.Load() > 0, fmt.Sprintf("%s made on %s for review.", things(int(a.toReview.Load()), "change waits", "changes wait"), s.Node), "They were made while it was cut off for long, so they are not in force.", "Decide", "/mesh#reviews")
	for _, h := range a.heldRings() {
		add(true, "The promotion of "+h.name+" is held.", h.text, "See it", "/rules/"+h.name)
	}
	codes := slices.SortedFunc(maps.Keys(n.failures), func(x, y uint32) int {
		return cmp.Or(cmp.Compare(n.failures[y], n.failures[x]), cmp.Compare(x, y))
	})
	for _, code := range codes[:min(len(codes), failuresNamed)] {
		m := agentproto.Explain(code)
		add(true, fmt.Sprintf("Installs fail on %s with %s.", things(n.failures[code], "host", "hosts"), m.Title()), m.Sentence(), "See hosts", "/hosts?state=PENDING")
	}
	if more := len(codes) - failuresNamed; more > 0 {
		add(true, fmt.Sprintf("Installs fail with %s, on fewer hosts each.", things(more, "other code", "other codes")), "A host's page says which, and what to do.", "See hosts", "/hosts?state=PENDING")
	}
	if len(n.clocks) > 0 {
		add(true, things(len(n.clocks), "host's clock differs", "hosts' clocks differ")+" from that of the node.", whoseClock(n.clocks), "See hosts", "/hosts?seen=clock+off")
	}
	add(n.all.Unscanned > 0, fmt.Sprintf("%s not scanned in the last %s.", things(n.all.Unscanned, "host was", "hosts were"), things(s.Rule.Days, "day", "days")), "They are off, or their scan fails.", "See hosts", "/hosts?sort=scan&stand=unscanned")
	add(!a.config().CleanupKBs && s.Unused.Bytes > 1e9, fmt.Sprintf("%s unused, %s.", things(len(s.Unused.Files), "file is", "files are"), bytesText(s.Unused.Bytes)), "The nightly cleaning is off (cleanup_kbs).", "Review unused files", "/clean")
	if name, ends, more := a.cat.endingToken(time.Now()); name != "" {
		add(true, fmt.Sprintf("The API token %q is good until %s%s.", name, clock(ends), or(more > 0, fmt.Sprintf(", and %d more end within two weeks", more), "")), "What uses it gets no answer then.", "Make another", "/access")
	}
	if text := versionsText(rows); text != "" {
		add(true, "The nodes run different versions.", text, "See the mesh", "/mesh")
	}
	_, sealed := a.roster.seal()
	add(!sealed && a.auth.anchorKey() != nil && a.Member(), "The mesh has no recovery passphrase.", "If this node is lost, nobody can let nodes in or renew their certificates. wuamesh node passphrase makes one.", "Make one", "/mesh/passphrase")
	return list
}

// failuresNamed is how many codes of failed installs are named, those of most
// hosts.
const failuresNamed = 3

// tokenEnds is how long before its end an API token is spoken of.
const tokenEnds = 14 * 24 * time.Hour

// endingToken is the API token that ends next of those that do so soon, and how
// many others do; empty for none.
func (c *catalogue) endingToken(now time.Time) (name string, ends time.Time, more int) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	n := 0
	for _, t := range c.tokens {
		if left := t.Expires.Sub(now); t.Use != ForAPI || left <= 0 || left > tokenEnds {
			continue
		}
		if n++; n == 1 || t.Expires.Before(ends) {
			name, ends = t.Name, t.Expires
		}
	}
	return name, ends, max(n-1, 0)
}

// versionsText says which nodes run which version when they differ; empty when
// they do not.
func versionsText(rows []NodeRow) string {
	by := map[string][]string{}
	for _, r := range rows {
		if r.Removed.IsZero() && r.Version != "" {
			by[r.Version] = append(by[r.Version], r.Name)
		}
	}
	if len(by) < 2 {
		return ""
	}
	var list []string
	for _, v := range slices.Sorted(maps.Keys(by)) {
		slices.Sort(by[v])
		list = append(list, v+" on "+strings.Join(by[v][:min(len(by[v]), 3)], ", ")+or(len(by[v]) > 3, fmt.Sprintf(" and %d more", len(by[v])-3), ""))
	}
	return "They work together, but the older ones lack what is new: " + strings.Join(list, "; ") + "."
}

// sentence makes one of a note, with a space after it; nothing of nothing.
func sentence(note string) string {
	if note == "" {
		return ""
	}
	return upper(strings.TrimSuffix(note, ".")) + ". "
}

func firstError(list []Task) string {
	if len(list) == 0 {
		return ""
	}
	return list[0].Error
}

// things counts: "1 host waits", "3 hosts wait".
func things(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
