package appliance

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance/microsoft"
	msft "wuamesh/appliance/microsoft/catalogue"
)

// A Scope is how much of what is known a list shows.
type Scope string

// The scopes. Without a catalogue of a scan cab they are the same.
const (
	Needed Scope = ""    // updates that hosts need or have
	Whole  Scope = "all" // and all others that Microsoft published
)

// Updates lists updates. What hosts report is in memory and looked at row by
// row; the rest of the whole catalogue is searched in its file, and woven in.
func (a *Appliance) Updates(_ context.Context, q UpdateQuery) (UpdateList, error) {
	b := browsing{c: a.cat, q: q, cab: a.published.now.Load(), order: updateOrder(q.Sort)}
	if b.cab != nil {
		var err error
		if b.text, err = b.cab.Match(q.Text); err != nil {
			return UpdateList{}, err
		}
	}
	rows := b.rows()
	b.list = UpdateList{Total: len(rows), Updates: []UpdateRow{}}
	counts := newFacetCounts()
	var matching []UpdateRow
	for _, r := range rows {
		if !b.matches(r) {
			continue
		}
		miss := q.misses(r)
		counts.add(r, miss)
		if len(miss) == 0 {
			matching = append(matching, r)
		}
	}
	slices.SortFunc(matching, b.order)
	b.list.Matching = len(matching)
	if q.Scope == Whole && b.cab != nil {
		if err := b.weave(matching, rows, counts); err != nil {
			return UpdateList{}, err
		}
	} else {
		b.list.Updates, b.list.Next = page(matching, q.Page, func(r UpdateRow) string { return string(r.ID) })
	}
	b.list.Facets = counts.facets()
	return b.list, b.countSiblings(rows)
}

// EachUpdate yields every update that matches, whatever page q asks for, each
// once. It looks page by page, so that a long list holds nothing up; when the
// row that a page ended with is gone meanwhile, the list begins anew.
func (a *Appliance) EachUpdate(ctx context.Context, q UpdateQuery) iter.Seq2[UpdateRow, error] {
	return func(yield func(UpdateRow, error) bool) {
		seen := map[rules.UpdateID]bool{}
		for q.Page = (Page{Limit: atOnce}); ; {
			list, err := a.Updates(ctx, q)
			if err != nil {
				yield(UpdateRow{}, err)
				return
			}
			for _, r := range list.Updates {
				if seen[r.ID] {
					continue
				}
				seen[r.ID] = true
				if !yield(r, nil) {
					return
				}
			}
			if q.After = list.Next; q.After == "" || ctx.Err() != nil {
				return
			}
		}
	}
}

// A browsing is one look at the list of updates.
type browsing struct {
	c     *catalogue
	q     UpdateQuery
	cab   *msft.Catalogue // nil while none was read
	text  msft.Set        // of the cab, that have the words
	order func(x, y UpdateRow) int
	list  UpdateList
}

// rows are the updates that hosts report. In the whole catalogue those whose
// files are here or on their way belong to them too: the cab does not know that.
func (b *browsing) rows() []UpdateRow {
	c := b.c
	var here []rules.UpdateID
	if b.q.Scope == Whole && b.q.Host == "" {
		here = c.published.ofFolder()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.counts(time.Now())
	rows := make([]UpdateRow, 0, len(t.updates)+len(here))
	for id := range t.updates {
		if b.q.Host == "" || c.reports(b.q.Host, id) {
			rows = append(rows, c.row(id, t))
		}
	}
	for _, id := range here {
		if t.updates[id] == nil {
			rows = append(rows, c.row(id, t))
		}
	}
	return rows
}

// matches says whether the update has every word of the search.
func (b *browsing) matches(r UpdateRow) bool {
	if b.q.exact(r) && matches(b.q.Text, r.Title, string(r.ID), r.KBs, r.CVEs) {
		return true
	}
	return b.cab != nil && b.q.exact(r) && b.cab.Has(b.text, guidOf(r.ID))
}

func guidOf(id rules.UpdateID) msft.GUID {
	g, _ := msft.ParseGUID(string(id)) // of ids that were parsed before
	return g
}

// weave adds the updates that only the cab has: to the counts, and to the page
// in their places between the others.
func (b *browsing) weave(matching, rows []UpdateRow, counts *facetCounts) error {
	q, missed := b.query(rows)
	if b.q.Host == "" {
		b.list.Total = b.cab.Header().Counts.Updates + b.unpublished(rows)
	}
	limit := b.q.limit()
	after, resumed := b.cursor(matching)
	if resumed {
		q.After = b.key(after)
		matching = slices.DeleteFunc(matching, func(r UpdateRow) bool { return b.order(r, after) <= 0 })
	}
	if !missed.rows {
		q.Limit = limit + 1
	}
	res := &msft.Result{}
	if !missed.all {
		var err error
		if res, err = b.cab.Search(q); err != nil {
			return err
		}
		b.addCounts(counts, res, missed)
	}
	var others []UpdateRow
	if !missed.rows {
		b.list.Matching += res.Matching
		var err error
		if others, err = b.describe(res.Rows); err != nil {
			return err
		}
	}
	for len(b.list.Updates) < limit && len(matching)+len(others) > 0 {
		from := &matching
		if len(matching) == 0 || len(others) > 0 && b.order(others[0], matching[0]) < 0 {
			from = &others
		}
		b.list.Updates = append(b.list.Updates, (*from)[0])
		*from = (*from)[1:]
	}
	if len(matching)+len(others) > 0 {
		b.list.Next = string(b.list.Updates[limit-1].ID)
	}
	return nil
}

// A miss is what leaves out the updates that only the cab has: no host reports
// them and no file of theirs is here.
type miss struct {
	rows bool // they are not in the list
	all  bool // nor in the counts
}

// query asks the cab for all updates but those of rows.
func (b *browsing) query(rows []UpdateRow) (q msft.Query, m miss) {
	q = msft.Query{Text: b.q.Text, Superseded: b.q.Superseded}
	for _, s := range b.q.Severity {
		q.Severity = append(q.Severity, string(s))
	}
	for _, list := range []struct {
		from []rules.CategoryID
		to   *[]msft.GUID
	}{{b.q.Product, &q.Product}, {b.q.Classification, &q.Classification}} {
		for _, id := range list.from {
			g, _ := msft.ParseGUID(string(id)) // one nobody knows finds nothing
			*list.to = append(*list.to, g)
		}
	}
	for _, m := range b.q.Published {
		begins, _ := time.Parse(monthForm, string(m)) // one that is none finds nothing
		q.Month = append(q.Month, msft.MonthOf(begins.Unix()))
	}
	for _, need := range b.q.Restart {
		q.Restart = append(q.Restart, need.word())
	}
	if b.q.KB != "" {
		q.Keys = append(q.Keys, "kb"+strings.TrimPrefix(strings.ToLower(b.q.KB), "kb"))
	}
	if b.q.CVE != "" {
		q.Keys = append(q.Keys, b.q.CVE)
	}
	for _, r := range rows {
		q.Without = append(q.Without, guidOf(r.ID))
	}
	key, down := strings.CutPrefix(b.q.Sort, "-")
	switch q.Down = down; key {
	case "title":
		q.Sort = msft.ByTitle
	case "published":
		q.Sort = msft.ByPublished
	case "hosts", "downloaded": // they have none: before all others, or behind
		q.Sort, q.Down = msft.ByNothing, !down
	}
	m.all = b.q.Host != "" || len(b.q.State)+len(b.q.Verdict) > 0
	m.rows = m.all || len(b.q.Download) > 0 && !slices.Contains(b.q.Download, NotDownloaded)
	return q, m
}

// unpublished counts the rows that the cab does not have.
func (b *browsing) unpublished(rows []UpdateRow) (n int) {
	for _, r := range rows {
		if !b.cab.Knows(guidOf(r.ID)) {
			n++
		}
	}
	return n
}

// cursor is the row that the page before ended with, of either source.
func (b *browsing) cursor(matching []UpdateRow) (r UpdateRow, ok bool) {
	id := rules.UpdateID(b.q.After)
	if i := slices.IndexFunc(matching, func(r UpdateRow) bool { return r.ID == id }); i >= 0 {
		return matching[i], true
	}
	g, err := msft.ParseGUID(string(id))
	if err != nil {
		return r, false
	}
	row, ok := b.cab.Row(g)
	if !ok {
		return r, false
	}
	u, err := b.cab.Revision(row.Revision)
	if err != nil {
		return r, false
	}
	return UpdateRow{ID: id, Severity: rules.Severity(row.Severity), Published: u.Created, Title: u.Title}, true
}

// key is where a row comes among those of the cab.
func (b *browsing) key(r UpdateRow) *msft.Key {
	k := &msft.Key{Severity: string(r.Severity), Published: seconds(r.Published), Title: r.Title, ID: guidOf(r.ID), Ahead: r.Hosts.waiting() > 0}
	if key, _ := strings.CutPrefix(b.q.Sort, "-"); key == "downloaded" {
		k.Ahead = !r.DownloadedOn.IsZero()
	}
	return k
}

// addCounts adds what the cab counted. Of its rows none is downloaded, decided
// about, or on a host.
func (b *browsing) addCounts(counts *facetCounts, res *msft.Result, m miss) {
	if res.Matching > 0 {
		counts.addSome(facetDownload, string(NotDownloaded), downloadLabels[NotDownloaded], res.Matching)
	}
	if m.rows {
		return
	}
	for s, n := range res.Severity {
		counts.addSome(facetSeverity, s, s, n)
	}
	for facet, found := range map[int]map[msft.GUID]int{facetProduct: res.Product, facetClassification: res.Classification} {
		for id, n := range found {
			if !id.IsZero() {
				counts.addSome(facet, id.String(), cmp.Or(b.cab.Title(id), id.String()), n)
			}
		}
	}
	for old, n := range res.Superseded {
		counts.addSome(facetSuperseded, yesNo(old), supersededLabels[old], n)
	}
	for m, n := range res.Month {
		counts.addSome(facetPublished, m.Begins().Format(monthForm), m.Begins().Format(monthLabel), n)
	}
	for word, n := range res.Restart {
		need := cmp.Or(restartWords[word], RestartUnknown)
		counts.addSome(facetRestart, string(need), restartLabels[need], n)
	}
}

// describe makes rows of what the cab found.
func (b *browsing) describe(found []msft.Row) ([]UpdateRow, error) {
	c := b.c
	rows, records := make([]UpdateRow, 0, len(found)), make([]updateRecord, 0, len(found))
	for _, f := range found {
		u, err := b.cab.Revision(f.Revision)
		if err != nil {
			return nil, err
		}
		r := c.published.describe(b.cab, u)
		records = append(records, r)
		rows = append(rows, UpdateRow{
			ID: r.ID, Revision: r.Revision, Title: r.Title, KBs: r.KBs, Severity: r.Severity, Classification: c.named(r.Classification),
			Products: c.namedAll(r.Products), CVEs: r.CVEs, Published: r.Published, Restart: restartWords[f.Restart], Size: f.Size, Siblings: 1,
			Superseded: f.Superseded, Download: NotDownloaded, DownloadNote: noHostWaits,
		})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, r := range records {
		rows[i].Foreseen, rows[i].By = c.foreseen(r)
	}
	return rows, nil
}

// foreseen is what rule packages say of an update that no host reports yet,
// whichever hosts they are assigned to; nothing where none names it. The lock
// is held for writing.
func (c *catalogue) foreseen(u updateRecord) (rules.Verdict, string) {
	if c.everyRule == nil {
		var p rules.Policy
		for _, name := range slices.Sorted(maps.Keys(c.packages)) {
			if g := c.packages[name]; g.exists {
				p.Packages = append(p.Packages, rules.Package{Name: name, Maturity: g.Maturity, Lines: slices.Collect(maps.Keys(g.lines))})
			}
		}
		p.Packages = append(p.Packages, c.stopPackage()...)
		c.everyRule = rules.Compile(p)
	}
	d := c.everyRule.Decide(ruleView(u, false), time.Now())
	if d.By == nil {
		return "", ""
	}
	return d.Verdict, d.By.Package
}

// ofFolder are the updates that have a file which lies in the folder or is on
// its way there.
func (p *published) ofFolder() (ids []rules.UpdateID) {
	seen := map[rules.UpdateID]bool{}
	for _, name := range p.node.folder.names() {
		p.mu.Lock()
		owners, ok := p.owners[name]
		p.mu.Unlock()
		if !ok {
			owners = p.ownersOf(name)
		}
		for _, id := range owners {
			if !seen[id] {
				seen[id] = true
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// ownersOf are the updates that have a file.
func (p *published) ownersOf(name string) (ids []rules.UpdateID) {
	_, sum, err := microsoft.NameFromURL(name)
	c := p.now.Load()
	if err != nil || len(sum) != 20 || c == nil {
		return nil
	}
	_, owners, err := c.File([20]byte(sum))
	if err != nil {
		p.damaged(err)
	}
	for _, id := range owners {
		ids = append(ids, rules.UpdateID(id.String()))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now.Load() == c {
		p.owners[name] = ids
	}
	return ids
}

// countSiblings says of the rows that are shown how many UpdateIDs their KB
// stands for.
func (b *browsing) countSiblings(rows []UpdateRow) error {
	kbs := map[string]int{}
	for _, r := range rows {
		for _, kb := range r.KBs {
			kbs[kb]++
		}
	}
	for i := range b.list.Updates {
		r := &b.list.Updates[i]
		if len(r.KBs) == 0 {
			continue
		}
		r.Siblings = max(1, kbs[r.KBs[0]])
		if b.cab != nil {
			n, err := b.cab.Count("kb" + r.KBs[0])
			if err != nil {
				return err
			}
			r.Siblings = max(r.Siblings, n)
		}
	}
	return nil
}
