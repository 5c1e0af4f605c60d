package appliance

import (
	"iter"
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

	// Hosts: let in, those of them that were scanned lately and lack nothing
	// important, that were not, that another machine claims; not let in.
	enrolled, compliant, unscanned, claims, waiting int
}

// A lack is one revision of an update, and a node that hosts told of it.
type lack struct {
	variant int
	node    string
}

// hostCounts are the updates of one host by state.
type hostCounts struct {
	StateCounts
	important bool // an allowed Critical or Important update waits
}

// of returns the counts of a host, zero when it came after the table.
func (t *countTable) of(h *host) hostCounts { return t.hosts[h.slot] }

type updateCounts struct {
	StateCounts
	verdict rules.Verdict // the most restrictive one
	by      string
}

// A wantedFile is a file that hosts wait for, be it here or not.
type wantedFile struct {
	agentproto.File
	title string
	hosts int
	sites map[string]int // of those hosts, how many reported to a node of each site
}

// strict orders verdicts, the most restrictive first.
var strict = []rules.Verdict{rules.Forbidden, rules.NoRule, rules.Hidden, rules.Delayed, rules.Allowed}

// touch notes that something that is counted changed. The lock is held.
func (c *catalogue) touch() { c.changed = true }

// A few hundred thousand statuses are counted within milliseconds, whenever
// someone looks after a change. Where there are more, what is shown may be old
// by as many times of what counting takes: a fleet that reports all the time
// is counted in a tenth of the node's time at most.
const (
	quickCells = 200_000
	countShare = 10
	countLife  = time.Minute
)

// counts returns the table, building it anew when it is old. The lock is held
// for writing.
func (c *catalogue) counts(now time.Time) *countTable {
	if t := c.table; t != nil {
		age := now.Sub(t.built)
		if age < countLife && !c.changed || t.cells > quickCells && age < countShare*t.took {
			return t
		}
	}
	c.changed = false
	c.table = c.count(now)
	c.table.took = time.Since(now)
	return c.table
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

// count goes through every status of every host once. Hosts of one policy
// have the same outcome for the same cell, so each is worked out once and
// looked up for all others; what only depends on how many hosts have a cell
// is added up from the number of hosts per policy and cell in the end.
func (c *catalogue) count(now time.Time) *countTable {
	t := &countTable{
		built: now, hosts: make([]hostCounts, len(c.hosts)+1), updates: map[rules.UpdateID]*updateCounts{},
		wanted: map[string]*wantedFile{}, needed: map[string]bool{}, failures: map[uint32]int{}, lacking: map[lack]int{},
	}
	cells := len(c.variants.list) << cellShift
	var used []*policy
	slot := 0 // that of hosts which come later
	for _, h := range c.sorted() {
		slot++
		h.slot = slot
		if !h.enrolled() {
			if h.Waiting {
				t.waiting++
			}
			continue
		}
		p := c.policyOf(h)
		if p.hosts == nil {
			p.outcomes, p.hosts = make([]outcome, cells), make([]int32, cells)
			used = append(used, p)
		}
		t.hosts[h.slot] = c.countHost(h, p, t, now)
		t.addHost(h, now)
		t.cells += len(h.statuses.cells)
	}
	for _, p := range used {
		for k, n := range p.hosts {
			if n > 0 {
				t.add(c.pair(p, cell(k), c.status(&host{}, cell(k)), now), int(n))
			}
		}
		p.outcomes, p.hosts = nil, nil
	}
	c.addSites(t)
	return t
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

func (c *catalogue) countHost(h *host, p *policy, t *countTable, now time.Time) hostCounts {
	var states [outcomeDiscarded + 1]int
	var flags outcome
	for _, k := range h.statuses.cells {
		o := p.outcomes[k]
		if o == 0 {
			o = c.outcome(p, h, k, now)
			p.outcomes[k] = o
		}
		p.hosts[k]++
		if o&outcomeLacking != 0 && h.status.Node != "" {
			t.lacking[lack{k.variant(), h.status.Node}]++
		}
		states[o&outcomeState]++
		flags |= o
	}
	if flags&outcomeFailed != 0 {
		t.addFailures(h, p)
	}
	return hostCounts{StateCounts{states[outcomeOK], states[outcomeMissing], states[outcomePending], states[outcomeDiscarded]}, flags&outcomeImportant != 0}
}

func (c *catalogue) outcome(p *policy, h *host, k cell, now time.Time) outcome {
	r := c.pair(p, k, c.status(h, k), now)
	o := outcomeOf[r.state]
	if r.lacking {
		o |= outcomeLacking
	}
	if r.state == rules.OK || !r.decision.May() {
		return o
	}
	if r.update.Severity == rules.Critical || r.update.Severity == rules.Important {
		o |= outcomeImportant
	}
	if r.reason == rules.ReasonInstallErr {
		o |= outcomeFailed
	}
	return o
}

// addFailures counts a host once for each code.
func (t *countTable) addFailures(h *host, p *policy) {
	seen := map[uint32]bool{}
	for _, k := range h.statuses.cells {
		if code := h.statuses.tries[k.variant()].hresult; p.outcomes[k]&outcomeFailed != 0 && !seen[code] {
			seen[code] = true
			t.failures[code]++
		}
	}
}

func (t *countTable) addHost(h *host, now time.Time) {
	t.enrolled++
	if h.Claim != "" {
		t.claims++
	}
	switch {
	case now.Sub(h.status.Good) >= scanAge:
		t.unscanned++
	case !t.of(h).important:
		t.compliant++
	}
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
			w = &wantedFile{File: f, title: p.update.Title}
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
