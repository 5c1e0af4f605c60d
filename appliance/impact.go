package appliance

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// An Impact is what an edit of rules, groups or settings does to the hosts, by
// their last reports. What is installed stays installed, so only what is not
// counts, but for Stays.
type Impact struct {
	Reach      int            `json:"reach"`   // hosts that get the package or the profile, of an edit of one
	Hosts      int            `json:"hosts"`   // on which the decision about some update changes
	Updates    int            `json:"updates"` // about which the decision changes on some host
	Gains      int            `json:"gains"`   // updates that some host may install and might not
	Losses     int            `json:"losses"`  // the other way round
	Pairs      int            `json:"pairs"`   // host × update decisions that change
	Allowed    int            `json:"allowed"` // of those: may be installed, and might not
	Forbidden  int            `json:"forbidden"`
	Before     StateCounts    `json:"before"`      // of all updates of these hosts
	After      StateCounts    `json:"after"`       //
	Files      int            `json:"files"`       // that hosts need besides those they need already
	Bytes      int64          `json:"bytes"`       //
	Fetch      int            `json:"fetch"`       // of those files: on no node, to come from Microsoft
	FetchBytes int64          `json:"fetch_bytes"` //
	Restart    int            `json:"restart"`     // hosts that restart after the installs
	MayRestart int            `json:"may_restart"` // other hosts on which Windows may ask for one
	Stays      int            `json:"stays"`       // pairs installed and no longer allowed: they stay
	Clashes    []Clash        `json:"clashes,omitempty"`
	Merged     []Merged       `json:"merged,omitempty"` // other packages of the hosts that get the one, of an edit of one
	Warnings   []string       `json:"warnings,omitempty"`
	Changes    []ImpactUpdate `json:"changes"`  // at most 200, most hosts first
	OnHosts    []ImpactHost   `json:"on_hosts"` // at most 200, by name
	// Settings is what becomes of options of [waptwua]; null when they stay what
	// they are and no profile is edited.
	Settings *SettingsImpact `json:"settings,omitempty"`
}

// A Clash is a package whose forbid wins over another package's allow. One
// of the two is the edited one.
type Clash struct {
	Winner  string           `json:"winner"`
	Loser   string           `json:"loser"`
	Hosts   int              `json:"hosts"`
	Updates []rules.UpdateID `json:"updates"`
}

// An ImpactUpdate is an update about which the decision changes.
type ImpactUpdate struct {
	Update   UpdateName     `json:"update"`
	Severity rules.Severity `json:"severity"`
	From     rules.Verdict  `json:"from"`
	To       rules.Verdict  `json:"to"`
	By       string         `json:"by"`              // package or setting that will decide
	Stays    bool           `json:"stays,omitempty"` // it is installed there, and stays
	Hosts    int            `json:"hosts"`
}

// An ImpactHost is a host on which decisions change.
type ImpactHost struct {
	ID        agentproto.HostID `json:"id"`
	Name      string            `json:"name"`
	Updates   int               `json:"updates"`
	Allowed   int               `json:"allowed"`
	Forbidden int               `json:"forbidden"`
	Restart   bool              `json:"restart,omitempty"`
}

// Summary says in one or two sentences what it does: the words of the page
// before saving, of the command line, and of what is said once it is saved.
func (i Impact) Summary() string {
	if i.Settings != nil {
		settings := i.Settings.Summary()
		i.Settings = nil
		return settings + " " + i.Summary()
	}
	if i.Hosts == 0 {
		return "No decision changes on any host."
	}
	var what []string
	if i.Allowed > 0 {
		what = append(what, things(i.Gains, "update is", "updates are")+" newly allowed")
	}
	if i.Forbidden > 0 {
		what = append(what, things(i.Losses, "update is", "updates are")+" no longer allowed")
	}
	if len(what) == 0 { // held back or not, forbidden or without a rule
		what = append(what, things(i.Updates, "update is", "updates are")+" decided otherwise")
	}
	s := things(i.Hosts, "host changes", "hosts change")
	s += ": " + strings.Join(what, ", ") + "."
	if i.Files > 0 {
		s += fmt.Sprintf(" %s more, %s", things(i.Files, "file is needed", "files are needed"), bytesText(i.Bytes))
		if i.FetchBytes < i.Bytes {
			s += ", of which " + bytesText(i.FetchBytes) + " come from Microsoft"
		}
		s += "."
	}
	if i.Restart > 0 {
		s += " " + things(i.Restart, "host restarts", "hosts restart") + " after the installs."
	}
	return s
}

// gets says whether hosts of a class get a package.
func (c *catalogue) gets(k *class, name string) bool {
	p := c.packages[name]
	return p != nil && p.exists && c.reaches(name, k) && slices.Contains(c.accepts(k), p.Maturity)
}

// A measure adds up what a change would do.
type measure struct {
	Impact
	c        *catalogue
	after    *catalogue
	settings *settingsMeasure
	now      time.Time
	change   change
	needed   map[string]bool // files that are needed as it is
	rows     map[impactKey]*ImpactUpdate
	files    map[string]int64 // that would be needed besides, by size
	winners  map[string]int32 // conflicts by who wins over whom, from 1
	touched  []ImpactHost

	subjects []*subject // by variant
	// For the hosts of one pair of policies, by cell; see count in matrix.go.
	effects []effect
	cells   []cell
	// The host each conflict was counted on last.
	counted []*host
}

type impactKey struct {
	id       rules.UpdateID
	from, to rules.Verdict
	by       string
	stays    bool
}

// An effect is what becomes of a cell on every host of a pair of policies.
type effect struct {
	known         bool
	change        effectKind
	before, after outcome
	conflict      int32 // its number; 0 for none
	hosts         int32
	row           *ImpactUpdate
}

type effectKind uint8

const (
	effectVerdict effectKind = 1 << iota // another verdict
	effectGain                           // it may be installed and might not
	effectLoss                           // the other way round
	effectRestart                        // gained, and it needs a restart
	effectMayRestart
)

// hosts adds hosts which have one policy now and another one after. The policy
// may be the same: then only conflicts are looked for.
func (m *measure) hosts(was, then *policy, hosts []*host) {
	if n := len(m.c.variants.list) << cellShift; len(m.effects) < n {
		m.effects = make([]effect, n)
	}
	for _, h := range hosts {
		m.host(h, was, then)
	}
	for _, k := range m.cells {
		e := &m.effects[k]
		if e.row != nil {
			e.row.Hosts += int(e.hosts)
		}
		*e = effect{}
	}
	m.cells = m.cells[:0]
}

func (m *measure) host(h *host, was, then *policy) {
	var before, after [outcomeDiscarded + 1]int
	row, flags := ImpactHost{ID: h.id, Name: h.Facts.Name}, effectKind(0)
	for _, k := range h.statuses.cells {
		e := &m.effects[k]
		if !e.known {
			*e = m.effect(was, then, k)
			m.cells = append(m.cells, k)
		}
		e.hosts++
		flags |= e.change
		before[e.before&outcomeState]++
		after[e.after&outcomeState]++
		if e.change&effectVerdict != 0 {
			row.Updates++
		}
		if e.change&effectGain != 0 {
			row.Allowed++
		}
		if e.change&effectLoss != 0 {
			row.Forbidden++
		}
		if n := e.conflict; n > 0 && m.counted[n-1] != h {
			m.counted[n-1] = h
			m.Clashes[n-1].Hosts++
		}
	}
	if row.Updates == 0 {
		return
	}
	row.Restart = flags&effectRestart != 0
	m.touched = append(m.touched, row)
	m.Pairs += row.Updates
	m.Allowed += row.Allowed
	m.Forbidden += row.Forbidden
	m.Before.plus(before)
	m.After.plus(after)
	switch {
	case row.Restart:
		m.Restart++
	case flags&effectMayRestart != 0:
		m.MayRestart++
	}
}

func (s *StateCounts) plus(n [outcomeDiscarded + 1]int) {
	s.OK += n[outcomeOK]
	s.Missing += n[outcomeMissing]
	s.Pending += n[outcomePending]
	s.Discarded += n[outcomeDiscarded]
}

// effect decides a cell twice: as it is and as it would be. What is installed
// stays installed whatever the rules say.
func (m *measure) effect(was, then *policy, k cell) effect {
	x, y := m.pair(was, k), m.pair(then, k)
	s := x.status
	e := effect{known: true, before: outcomeOf[x.state], after: outcomeOf[y.state]}
	if x.decision.Verdict == y.decision.Verdict && m.change.pkg == "" {
		return e
	}
	if s.Installed || s.Restart {
		if x.decision.May() && !y.decision.May() {
			e.row = m.row(x, y)
		}
		return e
	}
	if m.change.pkg != "" {
		e.conflict = m.conflict(then, y)
	}
	if x.decision.Verdict == y.decision.Verdict {
		return e
	}
	e.change, e.row = effectVerdict, m.row(x, y)
	switch {
	case !x.decision.May() && y.decision.May():
		e.change |= effectGain | restarts[y.update.Restart]
		m.wants(y)
	case x.decision.May() && !y.decision.May():
		e.change |= effectLoss
	}
	return e
}

var restarts = map[string]effectKind{"always": effectRestart, "maybe": effectMayRestart, "": effectMayRestart}

// A subject is what a revision of an update is, whatever decides about it.
type subject struct {
	updateRecord
	files rules.Files
}

// pair is that of the catalogue, for hosts of which nothing but the cell
// matters.
func (m *measure) pair(p *policy, k cell) judged {
	n := k.variant()
	u := m.subjects[n]
	if u == nil {
		u = &subject{updateRecord: m.c.revision(m.c.variants.list[n].id, m.c.variants.list[n].revision)}
		u.files, _ = m.c.filesOf(u.updateRecord)
		m.subjects[n] = u
	}
	j := judged{update: u, status: m.c.status(&host{}, k)}
	j.decision = p.decide(n, u.updateRecord, j.status.Superseded, m.now)
	j.state, _ = rules.StateOf(j.decision, factsOf(k, u.files))
	return j
}

// A judged cell is a pair without what only its host knows.
type judged struct {
	status   agentproto.Status
	update   *subject
	decision rules.Decision
	state    rules.State
}

// row is the line of the answer in which a pair is counted.
func (m *measure) row(x, y judged) *ImpactUpdate {
	installed := x.status.Installed || x.status.Restart
	key := impactKey{x.status.ID, x.decision.Verdict, y.decision.Verdict, decider(y.decision), installed}
	r := m.rows[key]
	if r == nil {
		r = &ImpactUpdate{Update: m.c.name(x.status.ID), Severity: cmp.Or(x.update.Severity, rules.Unspecified), From: key.from, To: key.to, By: key.by, Stays: installed}
		m.rows[key] = r
	}
	return r
}

// wants notes the files that a pair would need and that nobody needs yet.
func (m *measure) wants(p judged) {
	if p.status.OnHost {
		return
	}
	for _, f := range p.update.Files {
		if !f.Delta && !m.needed[f.Name] {
			m.files[f.Name] = f.Size
		}
	}
}

// conflict is the number of the conflict between the edited package and
// another one about a pair, 0 when there is none.
func (m *measure) conflict(then *policy, p judged) int32 {
	if p.decision.By == nil || p.decision.Verdict != rules.Forbidden {
		return 0
	}
	u := ruleView(p.update.updateRecord, p.status.Superseded)
	c := Clash{Winner: p.decision.By.Package}
	if !slices.ContainsFunc(then.Packages, func(g rules.Package) bool { return g.Name == m.change.pkg }) {
		return 0
	}
	for _, g := range then.Packages {
		mine := g.Name == m.change.pkg
		if mine == (c.Winner == m.change.pkg) || !m.after.packages[g.Name].allows(u) {
			continue
		}
		c.Loser = g.Name
		key := c.Winner + "/" + c.Loser
		if m.winners[key] == 0 {
			m.Clashes = append(m.Clashes, c)
			m.counted = append(m.counted, nil)
			m.winners[key] = int32(len(m.Clashes))
		}
		n := m.winners[key]
		at := &m.Clashes[n-1]
		if !slices.Contains(at.Updates, u.ID) {
			at.Updates = append(at.Updates, u.ID)
		}
		return n
	}
	return 0
}

// allows says whether a package has a line that allows an update. What is in
// every policy and is no package, the emergency stops, allows nothing.
func (p *pkg) allows(u rules.Update) bool {
	if p == nil {
		return false
	}
	for l := range u.Lines() {
		if _, ok := p.lines[l]; ok && l.Verb == rules.Allow {
			return true
		}
	}
	return false
}

// The most lines of an answer: the numbers count all.
const maxImpactRows = 200

func (m *measure) result() Impact {
	r := m.Impact
	r.Hosts = len(m.touched)
	ids, gains, losses := map[rules.UpdateID]bool{}, map[rules.UpdateID]bool{}, map[rules.UpdateID]bool{}
	r.Changes = []ImpactUpdate{}
	for _, u := range m.rows {
		r.Changes = append(r.Changes, *u)
		if u.Stays {
			r.Stays += u.Hosts
			continue
		}
		ids[u.Update.ID] = true
		switch from, to := (rules.Decision{Verdict: u.From}).May(), (rules.Decision{Verdict: u.To}).May(); {
		case to && !from:
			gains[u.Update.ID] = true
		case from && !to:
			losses[u.Update.ID] = true
		}
	}
	r.Updates, r.Gains, r.Losses = len(ids), len(gains), len(losses)
	slices.SortFunc(r.Changes, func(x, y ImpactUpdate) int {
		return cmp.Or(rankStays(x)-rankStays(y), y.Hosts-x.Hosts, severityRank(x.Severity)-severityRank(y.Severity), strings.Compare(x.Update.Title, y.Update.Title),
			strings.Compare(string(x.Update.ID), string(y.Update.ID)), strings.Compare(string(x.To)+x.By, string(y.To)+y.By), strings.Compare(string(x.From), string(y.From)))
	})
	r.Changes = r.Changes[:min(len(r.Changes), maxImpactRows)]
	slices.SortFunc(m.touched, func(x, y ImpactHost) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(string(x.ID), string(y.ID)))
	})
	r.OnHosts = append([]ImpactHost{}, m.touched[:min(len(m.touched), maxImpactRows)]...)
	for name, size := range m.files {
		r.Files++
		r.Bytes += size
		if m.c.folder.state(name).State != Downloaded && len(m.c.folder.share.others(name)) == 0 {
			r.Fetch++
			r.FetchBytes += size
		}
	}
	slices.SortFunc(r.Clashes, func(x, y Clash) int {
		return cmp.Or(y.Hosts-x.Hosts, strings.Compare(x.Winner+"/"+x.Loser, y.Winner+"/"+y.Loser))
	})
	r.Warnings = append(r.Warnings, m.after.warnings(m.change.pkg, r.Reach)...)
	r.Warnings = append(r.Warnings, m.after.profileWarnings(m.change.profile, r.Reach)...)
	r.Settings = m.settings.result()
	return r
}

// rankStays puts what stays as it is behind what changes.
func rankStays(u ImpactUpdate) int {
	if u.Stays {
		return 1
	}
	return 0
}

// warnings are what an admin may not have meant.
func (c *catalogue) warnings(name string, reach int) []string {
	p := c.packages[name]
	if p == nil {
		return nil
	}
	var list []string
	if reach == 0 {
		list = append(list, fmt.Sprintf("No host gets this package: none that it is assigned to accepts %s.", p.Maturity))
	}
	hit := map[rules.Line]bool{}
	for _, u := range c.updates {
		for l := range ruleView(u.revisions[u.newest], false).Lines() {
			if _, ok := p.lines[l]; ok {
				hit[l] = true
			}
		}
	}
	idle := len(p.lines) - len(hit)
	switch {
	case idle == 1:
		list = append(list, "1 line matches no update that a host reports. It takes effect when one appears.")
	case idle > 1:
		list = append(list, fmt.Sprintf("%d lines match no update that a host reports. They take effect when one appears.", idle))
	}
	return list
}
