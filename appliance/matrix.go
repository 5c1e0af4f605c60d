package appliance

import (
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// A policy is what decides about hosts that have the same settings and
// packages, with the decisions made so far.
type policy struct {
	rules.Policy
	hash    string
	set     *rules.Ruleset
	decided map[decisionKey]rules.Decision
}

type decisionKey struct {
	id         rules.UpdateID
	revision   int
	superseded bool
}

// policyOf returns the policy of a host. The catalogue's lock is held for
// writing.
func (c *catalogue) policyOf(id agentproto.HostID) *policy {
	if p := c.policies[id]; p != nil {
		return p
	}
	h := c.hosts[id]
	p := rules.Policy{Settings: h.Settings}
	accepts := c.accepts(id)
	for name, k := range c.packages {
		if !k.exists || !k.reaches(id, c) || !slices.Contains(accepts, k.Maturity) {
			continue
		}
		rp := rules.Package{Name: name, Maturity: k.Maturity}
		for l := range k.lines {
			rp.Lines = append(rp.Lines, l)
		}
		p.Packages = append(p.Packages, rp)
	}
	slices.SortFunc(p.Packages, func(x, y rules.Package) int { return strings.Compare(x.Name, y.Name) })
	hash := p.Hash()
	shared := c.compiled[hash]
	if shared == nil {
		shared = &policy{Policy: p, hash: hash, set: rules.Compile(p), decided: map[decisionKey]rules.Decision{}}
		c.compiled[hash] = shared
	}
	c.policies[id] = shared
	return shared
}

// reaches says whether the package is assigned to the host.
func (k *pkg) reaches(id agentproto.HostID, c *catalogue) bool {
	if _, ok := k.hosts[id]; ok {
		return true
	}
	for name := range k.groups {
		if c.isMember(name, id) {
			return true
		}
	}
	return false
}

func (c *catalogue) isMember(name string, id agentproto.HostID) bool {
	if name == everyone {
		return true
	}
	g := c.groups[name]
	if g == nil || !g.exists {
		return false
	}
	_, ok := g.members[id]
	return ok
}

// accepts are the maturities a host accepts: PROD, and what its groups do.
func (c *catalogue) accepts(id agentproto.HostID) []rules.Maturity {
	list := []rules.Maturity{rules.Prod}
	for name, g := range c.groups {
		if g.exists && c.isMember(name, id) {
			list = append(list, g.Accepts...)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// decide says what the policy says about an update, from memory when it was
// asked before. A delay that is over by now is.
func (p *policy) decide(u updateRecord, superseded bool, now time.Time) rules.Decision {
	key := decisionKey{u.ID, u.Revision, superseded}
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

// ruleView is what deciding needs to know of an update.
func ruleView(u updateRecord, superseded bool) rules.Update {
	v := rules.Update{ID: u.ID, KBs: u.KBs, Severity: u.Severity, Classification: u.Classification.ID, Published: u.Published, Superseded: superseded}
	for _, p := range u.Products {
		v.Products = append(v.Products, p.ID)
	}
	return v
}

// revision returns the description of that revision, or of the newest, or
// what can be said of an update nobody described.
func (c *catalogue) revision(id rules.UpdateID, rev int) updateRecord {
	if u := c.updates[id]; u != nil {
		if r, ok := u.revisions[rev]; ok {
			return r
		}
		return u.revisions[u.newest]
	}
	return updateRecord{Update: agentproto.Update{ID: id, Revision: rev}}
}

// filesOf is how far the files of an update have come: the least of them
// counts. Deltas are needed only when the full file is refused.
func (c *catalogue) filesOf(u updateRecord) (state rules.Files, f fileState) {
	if u.Title == "" {
		return rules.FilesAbsent, fileState{State: NotDownloaded}
	}
	state = rules.FilesNone
	order := []rules.Files{rules.FilesAbsent, rules.FilesFailed, rules.FilesQueued, rules.FilesDownloading, rules.FilesPresent, rules.FilesNone}
	for _, file := range u.Files {
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
}

// pairs yields every update of a host. The lock is held for writing.
func (c *catalogue) pairs(id agentproto.HostID, now time.Time) func(func(pair) bool) {
	return func(yield func(pair) bool) {
		h, p := c.hosts[id], c.policyOf(id)
		for _, s := range h.status.Statuses {
			if !yield(c.pair(p, s, now)) {
				return
			}
		}
	}
}

func (c *catalogue) pair(p *policy, s agentproto.Status, now time.Time) pair {
	u := c.revision(s.ID, s.Revision)
	d := p.decide(u, s.Superseded, now)
	f := rules.Facts{Installed: s.Installed, OnHost: s.OnHost, RestartRequired: s.Restart, Failed: s.HResult != 0 && !s.Installed}
	if !f.Installed && !f.OnHost {
		f.Files, _ = c.filesOf(u)
	}
	state, reason := rules.StateOf(d, f)
	return pair{s, u, d, state, reason}
}

// A countTable is the counts of every host and update, built in one pass and good
// until something changes or a minute has passed: delays end by themselves.
type countTable struct {
	built   time.Time
	pairs   StateCounts
	hosts   map[agentproto.HostID]*hostCounts
	updates map[rules.UpdateID]*updateCounts
	wanted  map[string]*wantedFile
	needed  map[string]bool // files of updates that some host needs and may install
}

type hostCounts struct {
	StateCounts
	important bool // an allowed Critical or Important update waits
	failures  []uint32
}

type updateCounts struct {
	StateCounts
	verdict rules.Verdict // the most restrictive one
	by      string
}

// A wantedFile is a file that hosts wait for and the folder lacks.
type wantedFile struct {
	agentproto.File
	title string
	hosts int
}

// strict orders verdicts, the most restrictive first.
var strict = []rules.Verdict{rules.Forbidden, rules.NoRule, rules.Hidden, rules.Delayed, rules.Allowed}

// counts returns the table, building it anew when it is old. The lock is held
// for writing.
func (c *catalogue) counts(now time.Time) *countTable {
	if c.table != nil && now.Sub(c.table.built) < time.Minute {
		return c.table
	}
	t := &countTable{
		built: now, hosts: map[agentproto.HostID]*hostCounts{}, updates: map[rules.UpdateID]*updateCounts{},
		wanted: map[string]*wantedFile{}, needed: map[string]bool{},
	}
	for id, h := range c.hosts {
		hc := &hostCounts{}
		t.hosts[id] = hc
		if h.Waiting {
			continue
		}
		for p := range c.pairs(id, now) {
			t.add(hc, p)
		}
	}
	c.table = t
	return t
}

func (t *countTable) add(hc *hostCounts, p pair) {
	uc := t.updates[p.status.ID]
	if uc == nil {
		uc = &updateCounts{}
		t.updates[p.status.ID] = uc
	}
	for _, sc := range []*StateCounts{&t.pairs, &hc.StateCounts, &uc.StateCounts} {
		sc.add(p.state)
	}
	if p.state == rules.OK {
		return
	}
	if uc.verdict == "" || slices.Index(strict, p.decision.Verdict) < slices.Index(strict, uc.verdict) {
		uc.verdict, uc.by = p.decision.Verdict, decider(p.decision)
	}
	if !p.decision.May() {
		return
	}
	if p.update.Severity == rules.Critical || p.update.Severity == rules.Important {
		hc.important = true
	}
	if p.reason == rules.ReasonInstallErr {
		hc.failures = append(hc.failures, p.status.HResult)
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
		w.hosts++
	}
}

func (s *StateCounts) add(state rules.State) {
	switch state {
	case rules.OK:
		s.OK++
	case rules.Missing:
		s.Missing++
	case rules.Pending:
		s.Pending++
	default:
		s.Discarded++
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
	c.table = nil
}
