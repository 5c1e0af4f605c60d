package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// Status is what the agent is at and what it knows, for its command line.
type Status struct {
	Host     agentproto.HostID    `json:"host"`
	Enrolled bool                 `json:"enrolled"`
	Nodes    []string             `json:"nodes"`
	Checkin  time.Time            `json:"checkin,omitzero"` // the last of this run that was answered
	Next     time.Time            `json:"next,omitzero"`    // when the next is due
	Error    string               `json:"error,omitempty"`  // why the last contact failed
	Doing    string               `json:"doing,omitempty"`
	Cab      string               `json:"cab,omitempty"` // SHA-256 of the scan cab held
	Scanned  time.Time            `json:"scanned,omitzero"`
	ScanErr  string               `json:"scan_error,omitempty"` // why the last scan failed
	NextScan time.Time            `json:"next_scan,omitzero"`   // zero: nothing changed, or no cab
	Install  time.Time            `json:"next_install,omitzero"`
	Restart  bool                 `json:"restart,omitempty"` // an installed update waits for one
	Warnings []string             `json:"warnings,omitempty"`
	Errors   []Failure            `json:"errors,omitempty"`  // the last ones, newest first
	Clock    *agentproto.ClockOff `json:"clock,omitempty"`   // nil when it agrees with the node's
	Updates  []UpdateStatus       `json:"updates,omitempty"` // not installed, or not yet effective
	OK       int                  `json:"ok"`                // how many are installed
}

// UpdateStatus is one update of a [Status].
type UpdateStatus struct {
	agentproto.UpdateRef
	Title    string       `json:"title"`
	KBs      []string     `json:"kbs,omitempty"`
	State    rules.State  `json:"state"`
	Reason   rules.Reason `json:"reason"`
	Sentence string       `json:"sentence"`
	HResult  uint32       `json:"hresult,omitempty"` // of the last try
}

// Status says where the agent stands. It asks neither Windows nor a node.
func (a *Agent) Status() Status {
	nodes := a.nodes()
	list := a.choices()
	scanAt, _ := a.nextScan()
	installAt, _ := a.nextInstall()
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Status{
		Host: a.id.Host, Enrolled: a.id.enrolled(a.conf.Pin), Nodes: nodes, Checkin: a.checked, Next: a.nextCheck,
		Error: a.lastErr, Doing: a.doingLocked(), Cab: a.st.Cab, Scanned: a.scan.Started, ScanErr: a.scan.Error,
		NextScan: scanAt, Install: installAt, Clock: a.st.Clock,
	}
	for _, part := range sortedKeys(a.trouble) {
		s.Warnings = append(s.Warnings, a.trouble[part])
	}
	for _, w := range a.conf.Warnings {
		s.Warnings = append(s.Warnings, w.String())
	}
	for _, f := range a.st.Failures {
		s.Errors = append(s.Errors, agentproto.ExplainFailure(f))
	}
	for _, c := range list {
		u := a.updateStatus(c)
		s.Restart = s.Restart || u.Reason == rules.ReasonRestart
		if u.State == rules.OK {
			s.OK++
		} else {
			s.Updates = append(s.Updates, u)
		}
	}
	return s
}

func (a *Agent) updateStatus(c choice) UpdateStatus {
	f := rules.Facts{
		Installed: c.Installed, OnHost: c.OnDisk, RestartRequired: c.Restart || c.Tried.Restart,
		Failed: c.Tried.Count > 0, Files: rules.FilesPresent,
	}
	// Of the mesh the agent knows only what its node answered.
	for _, file := range c.files() {
		if a.waits[file.Name].away {
			f.Files = rules.FilesAbsent
		}
	}
	state, reason := rules.StateOf(c.Decision, f)
	u := UpdateStatus{
		UpdateRef: c.Ref(), Title: c.Update.Title, KBs: c.Update.KBs, State: state, Reason: reason,
		Sentence: rules.Sentence(c.Decision, reason, c.Update.Decider(c.Decision).Title), HResult: c.Tried.HResult,
	}
	if c.Tried.Count > 0 {
		m := agentproto.Explain(c.Tried.HResult)
		u.Sentence += " Windows answered " + m.Title() + ". " + m.Sentence()
	}
	return u
}

func (a *Agent) doingLocked() string {
	var list []string
	for _, part := range sortedKeys(a.doing) {
		list = append(list, a.doing[part])
	}
	return oneLine(strings.Join(list, "; "), 500)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func decideOne(u rules.Update, p rules.Policy) rules.Decision { return rules.Decide(u, p, time.Now()) }

// Enroll lets the host into the mesh by hand, with what wapt-get.ini says now,
// and checks in. It returns what came of it as a sentence.
func (a *Agent) Enroll(ctx context.Context) (string, error) {
	if a.readINI() {
		a.applyConfig(ctx)
	}
	a.say("contact", "enrolling")
	defer a.say("contact", "")
	wait, err := a.meet(ctx)
	if err != nil {
		a.failed(ctx, doingContact, err)
		return "", err
	}
	node, _, err := a.node()
	if errors.Is(err, errNotEnrolled) {
		return fmt.Sprintf("An admin has to approve the host on the page Hosts of a node. The agent asks again in %s.", wait.Round(time.Second)), nil
	}
	if err != nil {
		return "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprintf("Enrolled as %s; checked in with %s.", a.id.Host, node.Nodes()[0]), nil
}

// Scan is one pass by hand: check in, get the scan cab, scan, report. It
// returns what came of it as a sentence. Run may be running or not.
func (a *Agent) Scan(ctx context.Context) (string, error) {
	return a.byHand(ctx, func() (string, error) {
		if _, err := a.download(ctx); err != nil {
			a.log.WarnContext(ctx, "download before a scan", "err", err)
		}
		return a.scanNow(ctx)
	})
}

// Download is one pass by hand: check in, and get every file that is wanted.
func (a *Agent) Download(ctx context.Context) (string, error) {
	return a.byHand(ctx, func() (string, error) { return a.download(ctx) })
}

// Install is one pass by hand: check in, get what is missing, install what
// may be installed, report.
func (a *Agent) Install(ctx context.Context) (string, error) {
	return a.byHand(ctx, func() (string, error) {
		if _, err := a.download(ctx); err != nil {
			a.log.WarnContext(ctx, "download before an install", "err", err)
		}
		return a.install(ctx, ordered)
	})
}

// byHand runs a pass between two contacts with the node. Without a node it
// runs all the same, by the rules we have.
func (a *Agent) byHand(ctx context.Context, pass func() (string, error)) (string, error) {
	_, away := a.meet(ctx)
	if away != nil {
		a.log.WarnContext(ctx, "contact with the mesh", "err", away)
		a.failed(ctx, doingContact, away)
	}
	text, err := pass()
	if away != nil && (errors.Is(err, errNoCab) || errors.Is(err, errNotEnrolled)) {
		return "", away // why there is nothing to work with
	}
	if terr := a.tell(ctx); terr != nil {
		a.log.WarnContext(ctx, "contact with the mesh", "err", terr)
	}
	return text, err
}

// tell delivers and reports what waits.
func (a *Agent) tell(ctx context.Context) error {
	if err := a.contact.take(ctx); err != nil {
		return err
	}
	defer a.contact.give()
	return errors.Join(a.deliver(ctx), a.report(ctx))
}
