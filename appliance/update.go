package appliance

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	msft "wuamesh/appliance/microsoft/catalogue"
)

// row is an update as lists show it. The catalogue's lock is held.
func (c *catalogue) row(id rules.UpdateID, t *countTable) UpdateRow {
	u := c.revision(id, -1)
	r := UpdateRow{
		ID: id, Revision: u.Revision, Title: u.Title, KBs: u.KBs, Severity: cmp.Or(u.Severity, rules.Unspecified), Classification: c.named(u.Classification),
		CVEs: u.CVEs, Published: u.Published, Restart: RestartNeed(u.Restart), Siblings: 1, Products: c.namedAll(u.Products),
		Superseded: c.published.superseded(id),
	}
	if u.From == "" { // no host said which it needs
		u.Files = c.published.files(id)
	}
	for _, f := range u.Files {
		r.Size += f.Size
	}
	if uc := t.updates[id]; uc != nil {
		r.Hosts, r.Verdict, r.By = uc.StateCounts, uc.verdict, uc.by
	} else {
		r.Foreseen, r.By = c.foreseen(u)
	}
	_, f := c.arrived(u.Files)
	r.Download, r.DownloadNote, r.Progress = f.State, f.Note, f.Percent
	if f.State == Downloaded {
		r.DownloadedOn = f.On
	}
	if f.State == "" {
		r.Download = NotDownloaded
	}
	if r.Download == NotDownloaded && r.DownloadNote == "" {
		r.DownloadNote = noHostWaits
		if r.Verdict != "" && !(rules.Decision{Verdict: r.Verdict}).May() {
			r.DownloadNote = "No host may install it"
		}
	}
	return r
}

func (c *catalogue) reports(h agentproto.HostID, id rules.UpdateID) bool {
	rec := c.hosts[h]
	if rec == nil {
		return false
	}
	_, ok := c.statusOf(rec, id)
	return ok
}

// page cuts one page out of a sorted list. The cursor is the key of the last
// row before; when that row is gone the list begins anew.
func page[T any](list []T, p Page, key func(T) string) (rows []T, next string) {
	if p.After != "" {
		if i := slices.IndexFunc(list, func(r T) bool { return key(r) == p.After }); i >= 0 {
			list = list[i+1:]
		}
	}
	if len(list) > p.limit() {
		list = list[:p.limit()]
		next = key(list[len(list)-1])
	}
	return append([]T{}, list...), next
}

// exact says whether the update has the KB and the CVE that are asked for.
func (q UpdateQuery) exact(r UpdateRow) bool {
	if q.KB != "" && !slices.Contains(r.KBs, strings.TrimPrefix(strings.ToUpper(q.KB), "KB")) {
		return false
	}
	if q.CVE != "" && !slices.Contains(r.CVEs, strings.ToUpper(q.CVE)) {
		return false
	}
	return true
}

// matches looks for every word in title, id, KBs and CVEs.
func matches(text, title, id string, kbs, cves []string) bool {
	for w := range strings.FieldsSeq(strings.ToLower(text)) {
		kb := strings.TrimPrefix(w, "kb")
		if !strings.Contains(strings.ToLower(title), w) && !strings.HasPrefix(id, w) &&
			!slices.Contains(kbs, kb) && !slices.Contains(cves, strings.ToUpper(w)) {
			return false
		}
	}
	return true
}

const noHostWaits = "No host waits for it"

// The facets, in the order of the left pane.
const (
	facetSeverity = iota
	facetProduct
	facetClassification
	facetDownload
	facetVerdict
	facetState
	facetSuperseded
	facetPublished
	facetRestart
	facetKinds
)

// misses are the facets whose selection leaves the update out.
func (q UpdateQuery) misses(r UpdateRow) (miss []int) {
	test := func(facet int, chosen int, ok bool) {
		if chosen > 0 && !ok {
			miss = append(miss, facet)
		}
	}
	test(facetSeverity, len(q.Severity), slices.Contains(q.Severity, r.Severity))
	test(facetProduct, len(q.Product), slices.ContainsFunc(r.Products, func(k agentproto.Category) bool { return slices.Contains(q.Product, k.ID) }))
	test(facetClassification, len(q.Classification), slices.Contains(q.Classification, r.Classification.ID))
	test(facetDownload, len(q.Download), slices.Contains(q.Download, r.Download))
	test(facetVerdict, len(q.Verdict), slices.Contains(q.Verdict, r.Verdict))
	test(facetState, len(q.State), slices.ContainsFunc(q.State, func(s rules.State) bool { return r.Hosts.of(s) > 0 }))
	test(facetSuperseded, len(q.Superseded), slices.Contains(q.Superseded, r.Superseded))
	test(facetPublished, len(q.Published), slices.Contains(q.Published, monthOf(r.Published)))
	test(facetRestart, len(q.Restart), slices.Contains(q.Restart, r.restart()))
	return miss
}

// facetCounts gather what the left pane shows. A facet's counts ignore its
// own selection and respect all others.
type facetCounts struct {
	n      [facetKinds]map[string]int
	labels [facetKinds]map[string]string
}

func newFacetCounts() *facetCounts {
	f := new(facetCounts)
	for i := range f.n {
		f.n[i], f.labels[i] = map[string]int{}, map[string]string{}
	}
	return f
}

// addSome counts n updates of one value.
func (f *facetCounts) addSome(facet int, value, label string, n int) {
	f.n[facet][value] += n
	f.labels[facet][value] = label
}

func (f *facetCounts) add(r UpdateRow, miss []int) {
	count := func(facet int, value, label string) {
		if value != "" && (len(miss) == 0 || len(miss) == 1 && miss[0] == facet) {
			f.addSome(facet, value, label, 1)
		}
	}
	count(facetSeverity, string(r.Severity), string(r.Severity))
	for _, p := range r.Products {
		count(facetProduct, string(p.ID), p.Title)
	}
	count(facetClassification, string(r.Classification.ID), r.Classification.Title)
	count(facetDownload, string(r.Download), downloadLabels[r.Download])
	count(facetVerdict, string(r.Verdict), upper(string(r.Verdict+" ")))
	for _, s := range []rules.State{rules.OK, rules.Missing, rules.Pending, rules.Discarded} {
		if r.Hosts.of(s) > 0 {
			count(facetState, string(s), string(s))
		}
	}
	count(facetSuperseded, yesNo(r.Superseded), supersededLabels[r.Superseded])
	if m := monthOf(r.Published); m != "" {
		count(facetPublished, string(m), r.Published.UTC().Format(monthLabel))
	}
	count(facetRestart, string(r.restart()), restartLabels[r.restart()])
}

const monthForm, monthLabel = "2006-01", "January 2006"

// monthOf is the month of a time, empty when it has none.
func monthOf(t time.Time) Month {
	if seconds(t) == 0 {
		return ""
	}
	return Month(t.UTC().Format(monthForm))
}

// ParseMonth checks a month.
func ParseMonth(s string) (Month, error) {
	if _, err := time.Parse(monthForm, s); err != nil {
		return "", fmt.Errorf("%q is no month such as 2026-11", s)
	}
	return Month(s), nil
}

func (r UpdateRow) restart() RestartNeed { return cmp.Or(r.Restart, RestartUnknown) }

var restartLabels = map[RestartNeed]string{RestartAlways: "Always", RestartMaybe: "It may ask for one", RestartNever: "Never", RestartUnknown: "Not known"}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

var supersededLabels = map[bool]string{false: "Newest", true: "Replaced by a newer one"}

var downloadLabels = map[DownloadState]string{Downloaded: "On the node", Downloading: "Downloading", Queued: "Queued", Failed: "Failed", NotDownloaded: "Not downloaded"}

func (f *facetCounts) facets() Facets {
	list := func(facet int, order ...string) []FacetCount {
		out := []FacetCount{}
		for v, n := range f.n[facet] {
			out = append(out, FacetCount{Value: v, Label: strings.TrimSpace(f.labels[facet][v]), Count: n})
		}
		slices.SortFunc(out, func(x, y FacetCount) int {
			if len(order) > 0 {
				return slices.Index(order, x.Value) - slices.Index(order, y.Value)
			}
			return cmp.Or(y.Count-x.Count, strings.Compare(x.Label, y.Label))
		})
		return out
	}
	return Facets{
		Severity:       list(facetSeverity, "Critical", "Important", "Moderate", "Low", "Unspecified"),
		Product:        list(facetProduct),
		Classification: list(facetClassification),
		Download:       list(facetDownload, "yes", "running", "queued", "failed", "no"),
		Verdict:        list(facetVerdict),
		State:          list(facetState, "MISSING", "PENDING", "DISCARDED", "OK"),
		Superseded:     list(facetSuperseded, "no", "yes"),
		Published:      newestFirst(list(facetPublished)),
		Restart:        list(facetRestart, "always", "maybe", "never", "unknown"),
	}
}

// newestFirst orders months.
func newestFirst(months []FacetCount) []FacetCount {
	slices.SortFunc(months, func(x, y FacetCount) int { return strings.Compare(y.Value, x.Value) })
	return months
}

// waiting is on how many hosts it waits for something.
func (s StateCounts) waiting() int { return s.Missing + s.Pending }

// seconds is a time as the scan cab has it.
func seconds(t time.Time) int64 { return max(t.Unix(), 0) }

func severityRank(s rules.Severity) int { return slices.Index(rules.Severities[:], s) }

// updateOrder is total: ties go by id.
func updateOrder(sort string) func(x, y UpdateRow) int {
	key, down := strings.CutPrefix(sort, "-")
	by := func(x, y UpdateRow) int {
		switch key {
		case "title":
			return strings.Compare(x.Title, y.Title)
		case "published":
			return cmp.Compare(seconds(x.Published), seconds(y.Published))
		case "hosts":
			return x.Hosts.waiting() - y.Hosts.waiting()
		case "downloaded":
			return x.DownloadedOn.Compare(y.DownloadedOn)
		default: // gravest first, of those what waits on most hosts, then newest
			return cmp.Or(severityRank(x.Severity)-severityRank(y.Severity), y.Hosts.waiting()-x.Hosts.waiting(), cmp.Compare(seconds(y.Published), seconds(x.Published)))
		}
	}
	return func(x, y UpdateRow) int {
		n := by(x, y)
		if down {
			n = -n
		}
		return cmp.Or(n, strings.Compare(string(x.ID), string(y.ID)))
	}
}

// UpdateByID is one update with its files and hosts: one that a host reported,
// or that the scan cab has.
func (a *Appliance) UpdateByID(_ context.Context, id rules.UpdateID) (UpdateDetail, error) {
	c := a.cat
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	t := c.counts(now)
	u := c.revision(id, -1)
	cab, there := c.published.find(revisionKey{id, -1})
	if c.updates[id] == nil && t.updates[id] == nil && there == nil {
		return UpdateDetail{}, notFound("No host has reported an update %s, and the scan cab does not have it.", id)
	}
	d := UpdateDetail{
		UpdateRow: c.row(id, t), Description: u.Description, SupportURL: u.SupportURL, Bulletins: u.Bulletins, Problems: u.Problems,
		Files: []FileRow{}, OnHosts: []HostUpdate{}, Lines: []rules.Ref{}, Supersedes: c.names(u.Supersedes),
		SupersededBy: c.replacements(id, cab, there), KBSiblings: c.siblings(u),
	}
	d.Siblings = 1 + len(d.KBSiblings)
	for _, f := range c.filesToShow(u, cab, there) {
		d.Files = append(d.Files, c.fileRow(f))
	}
	if c.stops[id] != nil {
		s := c.stopRow(id, t)
		d.Stop = &s
		d.Lines = append(d.Lines, rules.Ref{Package: rules.EmergencyStop, Line: stopLine(id)})
	}
	d.OnHosts = c.onHosts(id, now)
	for _, name := range slices.Sorted(maps.Keys(c.packages)) {
		for l := range c.packages[name].lines {
			if c.packages[name].exists && l.Matches(ruleView(u, false)) {
				d.Lines = append(d.Lines, rules.Ref{Package: name, Line: l})
			}
		}
	}
	return d, nil
}

// names are updates, the newest first; of those nobody knows any more there is
// only the id.
func (c *catalogue) names(ids []rules.UpdateID) (list []UpdateName) {
	for _, id := range ids {
		list = append(list, c.name(id))
	}
	slices.SortFunc(list, func(x, y UpdateName) int {
		return cmp.Or(y.Published.Compare(x.Published), strings.Compare(x.Title+string(x.ID), y.Title+string(y.ID)))
	})
	return list
}

// replacements are the updates that replace one, as hosts or the scan cab say.
func (c *catalogue) replacements(id rules.UpdateID, cab *msft.Catalogue, there *msft.Update) []UpdateName {
	ids := map[rules.UpdateID]bool{}
	for other, o := range c.updates {
		if slices.Contains(o.revisions[o.newest].Supersedes, id) {
			ids[other] = true
		}
	}
	if there != nil {
		for _, rev := range there.SupersededBy {
			if n, err := cab.Revision(rev); err == nil {
				ids[rules.UpdateID(n.ID.String())] = true
			}
		}
	}
	return c.names(slices.Collect(maps.Keys(ids)))
}

// siblings are the other updates that the KB of one stands for.
func (c *catalogue) siblings(u updateRecord) []UpdateName {
	if len(u.KBs) == 0 {
		return nil
	}
	ids := map[rules.UpdateID]bool{}
	for other, o := range c.updates {
		if slices.Contains(o.revisions[o.newest].KBs, u.KBs[0]) {
			ids[other] = true
		}
	}
	for _, id := range c.published.ofKB(u.KBs[0]) {
		ids[id] = true
	}
	delete(ids, u.ID)
	return c.names(slices.Collect(maps.Keys(ids)))
}

// filesToShow are the files that hosts named and those that the scan cab has
// besides: for other languages, say.
func (c *catalogue) filesToShow(u updateRecord, cab *msft.Catalogue, there *msft.Update) (list []shownFile) {
	for _, f := range u.Files {
		list = append(list, shownFile{File: f})
	}
	if there == nil {
		return list
	}
	files, err := cab.Files(there)
	if err != nil {
		c.published.damaged(err)
	}
	for _, g := range files {
		f := shownFile{fileOf(g.File), g.Patching, g.Languages}
		if i := slices.IndexFunc(list, func(x shownFile) bool { return x.Name == f.Name }); i >= 0 {
			list[i].kind, list[i].languages = f.kind, f.languages
			continue
		}
		list = append(list, f)
	}
	return list
}

// A shownFile is a file of an update with what the scan cab says of its use.
type shownFile struct {
	agentproto.File
	kind      string
	languages []string
}

// maxOnHosts bounds the hosts one update shows; the list of hosts has all.
const maxOnHosts = 500

// A reporter is a host that reports an update, and what it says of it.
type reporter struct {
	host *host
	cell cell
}

// onHosts are the hosts that report an update, worst first. Only as many are
// worked out as are shown. The lock is held for writing.
func (c *catalogue) onHosts(id rules.UpdateID, now time.Time) []HostUpdate {
	list := []HostUpdate{}
	for _, r := range c.reporters(id, now) {
		if len(list) == maxOnHosts {
			break
		}
		list = append(list, c.reported(r, now))
	}
	return list
}

// reported is what a host reports, decided. The lock is held for writing.
func (c *catalogue) reported(r reporter, now time.Time) HostUpdate {
	return c.hostUpdate(r.host, c.pair(c.policyOf(r.host), r.cell, c.status(r.host, r.cell), now))
}

// reporters are the hosts that report an update, worst first. The lock is held
// for writing.
func (c *catalogue) reporters(id rules.UpdateID, now time.Time) []reporter {
	var variants []int
	for n, v := range c.variants.list {
		if v.id == id {
			variants = append(variants, n)
		}
	}
	var by [outcomeDiscarded + 1][]reporter
	outcomes := map[*policy]map[cell]outcome{}
	for _, h := range c.sorted() {
		for _, n := range variants {
			for k := range h.statuses.about(n) {
				if !h.enrolled() {
					continue
				}
				p := c.policyOf(h)
				if outcomes[p] == nil {
					outcomes[p] = map[cell]outcome{}
				}
				o := outcomes[p][k]
				if o == 0 {
					o = c.outcome(p, h, k, now, nil) & outcomeState
					outcomes[p][k] = o
				}
				by[o] = append(by[o], reporter{h, k})
			}
		}
	}
	if c.stops[id] != nil { // who has it already is what matters then
		return slices.Concat(by[outcomeOK], by[outcomePending], by[outcomeMissing], by[outcomeDiscarded])
	}
	return slices.Concat(by[outcomeMissing], by[outcomePending], by[outcomeDiscarded], by[outcomeOK])
}

// EachOnHosts yields all hosts that report an update, worst first as at the
// time of the call; those that do not report it any more are left out.
func (a *Appliance) EachOnHosts(_ context.Context, id rules.UpdateID) iter.Seq[HostUpdate] {
	c := a.cat
	c.mu.Lock()
	all := c.reporters(id, time.Now())
	c.mu.Unlock()
	return func(yield func(HostUpdate) bool) {
		for some := range slices.Chunk(all, atOnce) {
			for _, u := range c.stillReported(some) {
				if !yield(u) {
					return
				}
			}
		}
	}
}

func (c *catalogue) stillReported(some []reporter) (list []HostUpdate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for _, r := range some {
		if c.hosts[r.host.id] == r.host && slices.Contains(r.host.statuses.cells, r.cell) {
			list = append(list, c.reported(r, now))
		}
	}
	return list
}

func (c *catalogue) name(id rules.UpdateID) UpdateName {
	r := c.revision(id, -1)
	n := UpdateName{ID: id, Title: r.Title, Published: r.Published}
	if len(r.KBs) > 0 {
		n.KB = r.KBs[0]
	}
	return n
}

func (c *catalogue) fileRow(f shownFile) FileRow {
	s := c.folder.state(f.Name)
	return FileRow{
		Name: f.Name, URL: f.URL, Size: cmp.Or(f.Size, s.Size), SHA1: f.SHA1, SHA256: cmp.Or(f.SHA256, s.SHA256),
		Kind: f.kind, Delta: f.Delta, Languages: f.languages, State: s.State, DownloadedOn: s.On, Note: s.Note,
	}
}

// stateRank orders states by who needs an admin first.
func stateRank(s rules.State) int {
	return slices.Index([]rules.State{rules.Missing, rules.Pending, rules.Discarded, rules.OK}, s)
}
