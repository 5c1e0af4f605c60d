package appliance

import (
	"cmp"
	"context"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// ruleView is what deciding needs to know of an update.
func ruleView(u updateRecord, superseded bool) rules.Update {
	v := rules.Update{ID: u.ID, KBs: u.KBs, Severity: u.Severity, Classification: u.Classification.ID, Published: u.Published, Superseded: superseded}
	for _, p := range u.Products {
		v.Products = append(v.Products, p.ID)
	}
	return v
}

// revision returns the description of that revision, or of the newest; of an
// update that no host described that of the scan cab, without files; or what
// else can be said.
func (c *catalogue) revision(id rules.UpdateID, rev int) updateRecord {
	if u := c.updates[id]; u != nil {
		if r, ok := u.revisions[rev]; ok {
			return r
		}
		return u.revisions[u.newest]
	}
	for _, number := range []int{rev, -1} {
		if r, ok := c.published.record(revisionKey{id, number}); ok {
			return r
		}
	}
	return updateRecord{Update: agentproto.Update{ID: id, Revision: rev}}
}

// filesOf is how far the files of an update have come: the least of them
// counts. Deltas are needed only when the full file is refused.
func (c *catalogue) filesOf(u updateRecord) (state rules.Files, f fileState) {
	if u.From == "" { // nobody said yet which
		return rules.FilesAbsent, fileState{State: NotDownloaded}
	}
	return c.arrived(u.Files)
}

// arrived is how far files have come that belong together.
func (c *catalogue) arrived(files []agentproto.File) (state rules.Files, f fileState) {
	state = rules.FilesNone
	order := []rules.Files{rules.FilesAbsent, rules.FilesFailed, rules.FilesQueued, rules.FilesDownloading, rules.FilesPresent, rules.FilesNone}
	for _, file := range files {
		if file.Delta {
			continue
		}
		s := c.folder.state(file.Name)
		if k := s.State.files(); slices.Index(order, k) < slices.Index(order, state) {
			state, f = k, s
		} else if k == state && s.On.After(f.On) {
			f = s
		}
	}
	return state, f
}

func (s DownloadState) files() rules.Files {
	switch s {
	case Downloaded:
		return rules.FilesPresent
	case Downloading:
		return rules.FilesDownloading
	case Queued:
		return rules.FilesQueued
	case Failed:
		return rules.FilesFailed
	default:
		return rules.FilesAbsent
	}
}

// A pair is one update on one host, decided.
type pair struct {
	status   agentproto.Status
	update   updateRecord
	decision rules.Decision
	state    rules.State
	reason   rules.Reason
	lacking  bool // the host waits for its files
}

// pairs yields every update of a host. The lock is held for writing.
func (c *catalogue) pairs(h *host, now time.Time) iter.Seq[pair] {
	return func(yield func(pair) bool) {
		p := c.policyOf(h)
		for _, k := range h.statuses.cells {
			if !yield(c.pair(p, k, c.status(h, k), now)) {
				return
			}
		}
	}
}

func (c *catalogue) pair(p *policy, k cell, s agentproto.Status, now time.Time) pair {
	u := c.revision(s.ID, s.Revision)
	d := p.decide(k.variant(), u, s.Superseded, now)
	var files rules.Files
	if !s.Installed && !s.OnHost {
		files, _ = c.filesOf(u)
	}
	state, reason := rules.StateOf(d, factsOf(k, files))
	lacking := !s.Installed && !s.OnHost && !s.Restart && d.May()
	return pair{s, u, d, state, reason, lacking}
}

// factsOf is what a cell and the files of its update say.
func factsOf(k cell, files rules.Files) rules.Facts {
	return rules.Facts{
		Installed: k&cellInstalled != 0, OnHost: k&cellOnHost != 0, RestartRequired: k&cellRestart != 0,
		Failed: k&cellFailed != 0 && k&cellInstalled == 0, Files: files,
	}
}

// waits says whether something waits to come to the host or to be installed
// on it. The lock is held for writing.
func (c *catalogue) waits(h *host) bool {
	for p := range c.pairs(h, time.Now()) {
		if p.state == rules.Missing || p.state == rules.Pending {
			return true
		}
	}
	return false
}

// A countTable is the counts of every host and update, good until something
// changes or a minute has passed: delays end by themselves.
type countTable struct {
	built    time.Time
	took     time.Duration
	cells    int // statuses that were counted
	pairs    StateCounts
	hosts    []hostCounts // by slot
	updates  map[rules.UpdateID]*updateCounts
	wanted   map[string]*wantedFile
	needed   map[string]bool // files of updates that some host needs and may install
	failures map[uint32]int  // hosts by the code with which installs fail on them
	lacking  map[lack]int    // hosts that wait for the files

	// Hosts that were let in: all, by the site of the node they report to, and by
	// ring.
	all   Compliance
	sites []Compliance // by the catalogue's numbers of sites
	rings [len(rules.Maturities)]Compliance

	claims, waiting int // hosts that another machine claims, and not let in
}

// A lack is one revision of an update, and a node that hosts told of it.
type lack struct {
	variant int
	node    string
}

// hostCounts are the updates of one host by state, small: those of a hundred
// thousand hosts stay in the processor's cache while lists look at them. A host
// reports a few thousand updates at most.
type hostCounts struct {
	states [outcomeDiscarded]uint16 // by outcome, without the first
	// Numbers from 1: of the site of the node it reports to, of its ring, and
	// where it stands; 0 of hosts that were not let in.
	site        uint16
	ring, stand uint8
}

func (n hostCounts) of(o outcome) int { return int(n.states[o-1]) }

func (n hostCounts) counts() StateCounts {
	return StateCounts{n.of(outcomeOK), n.of(outcomeMissing), n.of(outcomePending), n.of(outcomeDiscarded)}
}

// of returns the counts of a host, zero when it came after the table.
func (t *countTable) of(h *host) hostCounts {
	if h.slot >= len(t.hosts) {
		return hostCounts{}
	}
	return t.hosts[h.slot]
}

type updateCounts struct {
	StateCounts
	verdict rules.Verdict // the most restrictive one
	by      string
}

// A wantedFile is a file that hosts wait for, be it here or not.
type wantedFile struct {
	agentproto.File
	update rules.UpdateID // the first that was found to have it
	title  string         // of that one
	hosts  int
	sites  map[string]int // of those hosts, how many reported to a node of each site
}

// strict orders verdicts, the most restrictive first.
var strict = []rules.Verdict{rules.Forbidden, rules.NoRule, rules.Hidden, rules.Delayed, rules.Allowed}

// touch notes that something that is counted changed. The lock is held.
func (c *catalogue) touch() { c.changed = true }

// A few hundred thousand statuses are counted within milliseconds, whenever
// someone looks after a change. Where there are more, they are counted in the
// background, and what is shown may be old by as many times of what counting
// takes: a fleet that reports all the time takes a tenth of a processor at
// most for it.
const (
	quickCells = 200_000
	countShare = 10
	countLife  = time.Minute
)

// counts returns the table, building it anew when it is old. The lock is held
// for writing; it is given up while the first count of a large fleet goes on.
func (c *catalogue) counts(now time.Time) *countTable {
	for c.table == nil && c.counting {
		c.counted.Wait()
	}
	t := c.table
	switch {
	case t == nil:
	case now.Sub(t.built) < countLife && !c.changed:
		return t
	case t.cells > c.quick && c.background:
		wake(c.recount)
		return t
	case t.cells > c.quick && now.Sub(t.built) < countShare*t.took:
		return t
	}
	c.changed = false
	c.table = c.count(now)
	c.table.took = time.Since(now)
	return c.table
}

// keepCounts counts a large fleet anew, beside everything else, whenever
// someone looked at counts that are old, until ctx ends; told is called when
// there are new ones.
func (c *catalogue) keepCounts(ctx context.Context, told func()) error {
	c.mu.Lock()
	c.background = true
	c.mu.Unlock()
	for {
		c.mu.Lock()
		t := c.table
		c.counting = t == nil
		c.mu.Unlock()
		if t == nil || t.cells > c.quick {
			c.countAside()
			if t != nil {
				told()
			}
		}
		if !c.due(ctx) {
			c.mu.Lock()
			c.background = false
			c.mu.Unlock()
			return nil
		}
	}
}

// due waits until counts are asked for and counting is due again.
func (c *catalogue) due(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-c.recount:
	}
	c.mu.Lock()
	rest := time.Until(c.table.built.Add(countShare * c.table.took))
	c.mu.Unlock()
	select {
	case <-ctx.Done():
		return false
	case <-time.After(rest):
		return true
	}
}

// locked does something with the lock held.
func (c *catalogue) locked(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// countAside counts without holding the lock, but for moments.
func (c *catalogue) countAside() {
	c.mu.Lock()
	now := time.Now()
	c.changed = false
	k := c.newCount(now, c.compliance)
	c.mu.Unlock()
	k.run(c.locked)
	c.mu.Lock()
	defer c.mu.Unlock()
	k.took = time.Since(now)
	c.table, c.counting = k.countTable, false
	c.counted.Broadcast()
}

// An outcome is what a policy and the files make of a cell, in a byte: one of
// the four states, and whether the host is to be pointed at.
type outcome uint8

const (
	outcomeOK outcome = iota + 1
	outcomeMissing
	outcomePending
	outcomeDiscarded
	outcomeState     outcome = 7
	outcomeImportant outcome = 8
	outcomeFailed    outcome = 16
	outcomeLacking   outcome = 32
)

var outcomeOf = map[rules.State]outcome{rules.OK: outcomeOK, rules.Missing: outcomeMissing, rules.Pending: outcomePending, rules.Discarded: outcomeDiscarded}

// count goes through every status of every host once. The lock is held for
// writing.
func (c *catalogue) count(now time.Time) *countTable {
	k := c.newCount(now, c.compliance)
	k.run(func(f func()) { f() })
	return k.countTable
}

// A counting is one pass over every status of every host. Hosts of one policy
// have the same outcome for the same cell, so each is worked out once and
// looked up for all others; what only depends on how many hosts have a cell is
// added up from the number of hosts per policy and cell in the end. It looks
// at the hosts as they were when it began.
type counting struct {
	*countTable
	c        *catalogue
	now      time.Time
	rule     ComplianceRule
	list     []counted
	policies map[*policy]*policyCells
}

// A counted host is what counting looks at of it; none of it changes.
type counted struct {
	hostStatuses
	policy *policyCells
	slot   int
	node   string
	fresh  bool // it was scanned lately
	site   int  // numbers
	ring   int
}

// policyCells are the hosts of one policy, by cell.
type policyCells struct {
	policy   *policy
	outcomes []outcome
	hosts    []int32
}

// newCount notes what there is to count. The lock is held for writing.
func (c *catalogue) newCount(now time.Time, rule ComplianceRule) *counting {
	k := &counting{c: c, now: now, rule: rule, list: make([]counted, 0, len(c.hosts)), policies: map[*policy]*policyCells{}, countTable: &countTable{
		built: now, hosts: make([]hostCounts, c.slots), updates: map[rules.UpdateID]*updateCounts{},
		wanted: map[string]*wantedFile{}, needed: map[string]bool{}, failures: map[uint32]int{}, lacking: map[lack]int{},
	}}
	siteOf, ringOf := map[string]int{}, map[*class]int{} // looked up once each
	cells := len(c.variants.list) << cellShift
	for _, h := range c.hosts {
		if !h.enrolled() {
			if h.Waiting {
				k.waiting++
			}
			continue
		}
		p := c.policyOf(h)
		t := k.policies[p]
		if t == nil {
			t = &policyCells{p, make([]outcome, cells), make([]int32, cells)}
			k.policies[p] = t
		}
		if h.Claim != "" {
			k.claims++
		}
		node := cmp.Or(h.status.Node, h.at.Node)
		if _, ok := siteOf[node]; !ok {
			siteOf[node] = int(c.sites.of(cmp.Or(c.folder.share.siteOf(node), unknownSite)))
		}
		if _, ok := ringOf[h.class]; !ok {
			ringOf[h.class] = firstRing(c.accepts(h.class))
		}
		k.list = append(k.list, counted{h.statuses, t, h.slot, h.status.Node, now.Sub(h.status.Good) < rule.age(), siteOf[node], ringOf[h.class]})
		k.cells += len(h.statuses.cells)
	}
	k.sites = make([]Compliance, len(c.sites.names))
	return k
}

// run counts. Within locked the catalogue may be looked at; everything else
// needs no lock.
func (k *counting) run(locked func(func())) {
	for i := range k.list {
		h := &k.list[i]
		n := k.host(h, locked)
		k.hosts[h.slot] = n
		for _, c := range []*Compliance{&k.all, &k.sites[h.site], &k.rings[h.ring]} {
			c.add(n.stand)
		}
	}
	for p, t := range k.policies {
		for cells, at := t.hosts, 0; at < len(cells); {
			locked(func() { at = k.some(p, cells, at) })
		}
	}
	locked(func() { k.c.addSites(k.countTable) })
}

// some adds up the cells of a policy from one on, as many as may be held up
// the lock for, and returns where to go on.
func (k *counting) some(p *policy, cells []int32, at int) int {
	for left := 200; at < len(cells) && left > 0; at++ {
		if n := cells[at]; n > 0 {
			left--
			k.add(k.c.pair(p, cell(at), k.c.status(&host{}, cell(at)), k.now), int(n))
		}
	}
	return at
}

func (k *counting) host(h *counted, locked func(func())) hostCounts {
	var states [outcomeDiscarded + 1]int
	var flags outcome
	t := h.policy
	for _, cell := range h.cells {
		o := t.outcomes[cell]
		if o == 0 {
			o = k.workOut(h, cell, locked)
		}
		t.hosts[cell]++
		if o&outcomeLacking != 0 && h.node != "" {
			k.lacking[lack{cell.variant(), h.node}]++
		}
		states[o&outcomeState]++
		flags |= o
	}
	if flags&outcomeFailed != 0 {
		k.addFailures(h)
	}
	n := hostCounts{site: uint16(min(h.site+1, math.MaxUint16)), ring: uint8(h.ring + 1)}
	for i := range n.states {
		n.states[i] = uint16(min(states[i+1], math.MaxUint16))
	}
	n.stand = standOf(h.fresh, flags&outcomeImportant != 0, n)
	return n
}

// workOut finds the outcome of a cell that the policy had none for yet.
func (k *counting) workOut(h *counted, cell cell, locked func(func())) (o outcome) {
	locked(func() {
		o = k.c.outcome(h.policy.policy, &host{statuses: h.hostStatuses}, cell, k.now, k.rule.Severities)
	})
	h.policy.outcomes[cell] = o
	return o
}

// addFailures counts a host once for each code.
func (k *counting) addFailures(h *counted) {
	seen := map[uint32]bool{}
	for _, cell := range h.cells {
		if code := h.tries[cell.variant()].hresult; h.policy.outcomes[cell]&outcomeFailed != 0 && !seen[code] {
			seen[code] = true
			k.failures[code]++
		}
	}
}

// addSites says of each wanted file where the hosts are that wait for it.
func (c *catalogue) addSites(t *countTable) {
	for k, n := range t.lacking {
		v := c.variants.list[k.variant]
		site := c.folder.share.siteOf(k.node)
		for _, f := range c.revision(v.id, v.revision).Files {
			if w := t.wanted[f.Name]; w != nil && !f.Delta && site != "" {
				if w.sites == nil {
					w.sites = map[string]int{}
				}
				w.sites[site] += n
			}
		}
	}
}

func (c *catalogue) outcome(p *policy, h *host, k cell, now time.Time, count []rules.Severity) outcome {
	r := c.pair(p, k, c.status(h, k), now)
	o := outcomeOf[r.state]
	if r.lacking {
		o |= outcomeLacking
	}
	if r.state == rules.OK || !r.decision.May() {
		return o
	}
	if slices.Contains(count, cmp.Or(r.update.Severity, rules.Unspecified)) {
		o |= outcomeImportant
	}
	if r.reason == rules.ReasonInstallErr {
		o |= outcomeFailed
	}
	return o
}

// add counts n hosts of one policy that have the same status of one update.
func (t *countTable) add(p pair, n int) {
	uc := t.updates[p.status.ID]
	if uc == nil {
		uc = &updateCounts{}
		t.updates[p.status.ID] = uc
	}
	t.pairs.add(p.state, n)
	uc.add(p.state, n)
	if p.state == rules.OK {
		return
	}
	if uc.verdict == "" || slices.Index(strict, p.decision.Verdict) < slices.Index(strict, uc.verdict) {
		uc.verdict, uc.by = p.decision.Verdict, decider(p.decision)
	}
	if !p.decision.May() {
		return
	}
	for _, f := range p.update.Files {
		t.needed[f.Name] = true
		if f.Delta || p.status.OnHost || p.status.Restart {
			continue
		}
		w := t.wanted[f.Name]
		if w == nil {
			w = &wantedFile{File: f, update: p.status.ID, title: p.update.Title}
			t.wanted[f.Name] = w
		}
		w.hosts += n
	}
}

func (s *StateCounts) add(state rules.State, n int) {
	switch state {
	case rules.OK:
		s.OK += n
	case rules.Missing:
		s.Missing += n
	case rules.Pending:
		s.Pending += n
	default:
		s.Discarded += n
	}
}

func (s StateCounts) of(state rules.State) int {
	switch state {
	case rules.OK:
		return s.OK
	case rules.Missing:
		return s.Missing
	case rules.Pending:
		return s.Pending
	default:
		return s.Discarded
	}
}

func decider(d rules.Decision) string {
	if d.By != nil {
		return d.By.Package
	}
	return d.Setting
}

// wanted are the files that hosts wait for, the most waited for first.
func (c *catalogue) wanted() []wantedFile {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []wantedFile
	for _, w := range c.counts(time.Now()).wanted {
		list = append(list, *w)
	}
	slices.SortFunc(list, func(x, y wantedFile) int {
		if x.hosts != y.hosts {
			return y.hosts - x.hosts
		}
		return strings.Compare(x.Name, y.Name)
	})
	return list
}

// needs says whether a host needs the file and may install it.
func (c *catalogue) needs(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts(time.Now()).needed[name]
}

// stale says that something outside of the records changed what is counted.
func (c *catalogue) stale() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touch()
}
