package appliance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/replicate"
)

// A ring takes a package from DEV to PREPROD to PROD by itself: after so many
// days without an edit, when so many hosts have what it allows and few of them
// failed. Every node sees the same hosts and comes to the same answer, so it
// does no harm when two act in one moment: both write the same maturity, and
// the days begin again for the next step. When one side of a cut is a step
// behind, its later step would hold and take the package back; the versions
// say so, and the step is taken again (reached).

// A Ring says when a package is promoted by itself.
type Ring struct {
	Days    int  `json:"days"`    // since the package was last edited
	Hosts   int  `json:"hosts"`   // that installed something of it since
	Percent int  `json:"percent"` // of those that tried may have failed at most
	Paused  bool `json:"paused,omitempty"`
}

// A RingState is how far a package is on its way to the next maturity.
type RingState struct {
	Ring
	By        string         `json:"by"`
	At        time.Time      `json:"at"`
	To        rules.Maturity `json:"to,omitempty"` // empty at PROD: there is no next one
	Since     time.Time      `json:"since"`        // the package is as it is
	Installed int            `json:"installed"`    // hosts, since then
	Failed    int            `json:"failed"`
	Due       bool           `json:"due,omitempty"` // it is promoted within minutes
	Text      string         `json:"text"`          // where it stands and what it waits for
	from      rules.Maturity
	held      bool // by failures
}

type ringRecord struct {
	Ring
	editRecord
}

const (
	ringEvery = 10 * time.Minute
	maxDays   = 365
	maxCount  = 1_000_000
)

func (r Ring) check() error {
	switch {
	case r.Days < 0 || r.Days > maxDays:
		return invalid("days", "Days are 0 to %d, not %d.", maxDays, r.Days)
	case r.Hosts < 1 || r.Hosts > maxCount:
		return invalid("hosts", "At least 1 host has to have it first, and at most %d; %d is neither.", maxCount, r.Hosts)
	case r.Percent < 0 || r.Percent > 100:
		return invalid("percent", "Per cent are 0 to 100, not %d.", r.Percent)
	}
	return nil
}

func (r Ring) String() string {
	return fmt.Sprintf("after %s, when %s installed and at most %d %% failed%s", things(r.Days, "day", "days"), things(r.Hosts, "host has", "hosts have"), r.Percent, or(r.Paused, ", paused", ""))
}

// SetRing has a package promoted by itself from now on, or otherwise, or
// paused.
func (a *Appliance) SetRing(ctx context.Context, by Actor, name string, r Ring) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	return a.editRing(ctx, by, name, "set promotion by itself", func(tx *replicate.Tx) error {
		return rings.put(tx, name, ringRecord{r, editRecord{by.Name, tx.Now()}})
	}, r.String())
}

// DropRing leaves promoting a package to people again.
func (a *Appliance) DropRing(ctx context.Context, by Actor, name string) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	return a.editRing(ctx, by, name, "end promotion by itself", func(tx *replicate.Tx) error { return dropRing(tx, name) }, "")
}

func (a *Appliance) editRing(ctx context.Context, by Actor, name, action string, edit func(*replicate.Tx) error, now string) error {
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		if _, ok, err := packages.find(tx, name); err != nil || !ok {
			return cmpErr(err, noPackage(name))
		}
		was, ok, err := rings.find(tx, name)
		if err != nil {
			return err
		}
		if err := edit(tx); err != nil {
			return err
		}
		return a.audit(tx, by, action, "package "+name, or(ok, was.Ring.String(), ""), now)
	})
	if err != nil {
		return fmt.Errorf("%s of package %s: %w", action, name, err)
	}
	return nil
}

// dropRing deletes a package's ring, if it has one.
func dropRing(tx *replicate.Tx, name string) error {
	if _, ok, err := rings.find(tx, name); err != nil || !ok {
		return err
	}
	return rings.del(tx, name)
}

// ringState is nil for a package that nobody gave a ring. The lock is held
// for writing.
func (c *catalogue) ringState(name string, now time.Time) *RingState {
	r, ok := c.rings[name]
	if !ok {
		return nil
	}
	p := c.packages[name]
	s := &RingState{Ring: r.Ring, By: r.By, At: r.At, Since: p.edited(), from: p.Maturity}
	if at := c.edits[name].At; at.After(s.Since) { // something was taken out of it
		s.Since = at
	}
	if i := slices.Index(rules.Maturities[:], p.Maturity); i >= 0 && i < len(rules.Maturities)-1 {
		s.To = rules.Maturities[i+1]
	}
	c.classify()
	for _, h := range c.hosts {
		if h.class == nil || !c.reaches(name, h.class) || !slices.Contains(c.accepts(h.class), p.Maturity) {
			continue
		}
		switch installed, failed := c.tried(h, p, s.Since); {
		case failed:
			s.Failed++
		case installed:
			s.Installed++
		}
	}
	s.judge(now)
	return s
}

// edited is when something of what is in the package was last written.
func (p *pkg) edited() time.Time {
	at := p.At
	for e := range maps.Values(p.lines) {
		if e.At.After(at) {
			at = e.At
		}
	}
	return at
}

// tried says what became on a host of what the package allows, since then. Of
// a package that only forbids a host has all as soon as it scanned.
func (c *catalogue) tried(h *host, p *pkg, since time.Time) (installed, failed bool) {
	allows := false
	for l := range p.lines {
		allows = allows || l.Verb == rules.Allow
	}
	if !allows {
		return h.status.Scan != nil && h.status.Scan.Started.After(since), false
	}
	for variant, t := range h.statuses.tries {
		if t.at.Before(since) {
			continue
		}
		for k := range h.statuses.about(variant) {
			s := c.status(h, k)
			if !p.allows(ruleView(c.revision(s.ID, s.Revision), s.Superseded)) {
				continue
			}
			installed = installed || s.Installed
			failed = failed || !s.Installed && t.hresult != 0
		}
	}
	return installed, failed
}

// judge says where the package stands.
func (s *RingState) judge(now time.Time) {
	ends := s.Since.AddDate(0, 0, s.Days)
	tried := s.Installed + s.Failed
	seen := fmt.Sprintf("%s of %d installed, %d failed", things(s.Installed, "host", "hosts"), s.Hosts, s.Failed)
	switch {
	case s.To == "":
		s.Text = "It is PROD: there is nothing to promote it to."
	case s.Paused:
		s.Text = fmt.Sprintf("Paused by %s on %s. %s.", s.By, dayText(s.At), upper(seen))
	case s.Failed*100 > s.Percent*tried:
		// Upwards, or 101 of 2,000 would be 5 % where 5 % may.
		s.held = true
		share := math.Ceil(1000*float64(s.Failed)/float64(tried)) / 10
		s.Text = fmt.Sprintf("Held: %s failed of %d that tried, %v %%, and at most %d %% may.", things(s.Failed, "host", "hosts"), tried, share, s.Percent)
	case s.Installed < s.Hosts:
		s.Text = fmt.Sprintf("It waits for hosts to go to %s: %s.", s.To, seen)
	case now.Before(ends):
		s.Text = fmt.Sprintf("It goes to %s on %s, if nobody edits it before: %s.", s.To, ends.UTC().Format("2 Jan 15:04 UTC"), seen)
	default:
		s.Due = true
		s.Text = fmt.Sprintf("It goes to %s within minutes: %s.", s.To, seen)
	}
}

// reason is what the versions and the audit log keep of a step.
func (s *RingState) reason() string {
	return fmt.Sprintf("by itself: %s without an edit, %s installed, %d failed", things(s.Days, "day", "days"), things(s.Installed, "host", "hosts"), s.Failed)
}

// keepRings promotes what is due.
func (a *Appliance) keepRings(ctx context.Context) error {
	return every(ctx, a.log, ringEvery, func(ctx context.Context) error {
		var now time.Time
		err := a.db.View(ctx, func(tx *replicate.Tx) error { now = tx.Now(); return nil })
		if err != nil {
			return err
		}
		return a.promoteDue(ctx, now)
	})
}

// promoteDue promotes packages whose ring says so, those for which this node
// is the first that is reached. While its first copy comes it does nothing.
func (a *Appliance) promoteDue(ctx context.Context, now time.Time) error {
	if m := a.member.Load(); m != nil && !m.Synced {
		return nil
	}
	a.cat.mu.Lock()
	states := map[string]*RingState{}
	for name := range a.cat.rings {
		if p := a.cat.packages[name]; p != nil && p.exists {
			states[name] = a.cat.ringState(name, now)
		}
	}
	a.cat.mu.Unlock()
	a.noteHeld(states)
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(states)) {
		if s := states[name]; s.To != "" && !s.Paused && a.actsFirst(name) {
			errs = append(errs, a.takeStep(ctx, name, s))
		}
	}
	return errors.Join(errs...)
}

// A heldRing is a package whose promotion failures hold back.
type heldRing struct{ name, text string }

// noteHeld keeps what the overview says of rings until they are judged again:
// that looks at every host.
func (a *Appliance) noteHeld(states map[string]*RingState) {
	var list []heldRing
	for _, name := range slices.Sorted(maps.Keys(states)) {
		if s := states[name]; s.held {
			list = append(list, heldRing{name, s.Text})
		}
	}
	a.held.Store(&list)
}

func (a *Appliance) heldRings() []heldRing {
	if list := a.held.Load(); list != nil {
		return *list
	}
	return nil
}

// takeStep promotes a package as its ring was judged, or to where it was
// before a step of another side of a cut took it back. It writes nothing when
// somebody promoted, edited or paused it since: the next turn judges anew.
func (a *Appliance) takeStep(ctx context.Context, name string, s *RingState) error {
	var to rules.Maturity
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		to = ""
		head, ok, err := packages.find(tx, name)
		if err != nil || !ok || head.Maturity != s.from {
			return err
		}
		ring, ok, err := rings.find(tx, name)
		if err != nil || !ok || ring.Ring != s.Ring {
			return err
		}
		list, err := packageHistory.of(tx, name)
		if err != nil || len(list) > 0 && list[len(list)-1].value.At.After(s.Since) {
			return err
		}
		reason := s.reason()
		switch m := reached(list); {
		case stepOf(m) > stepOf(head.Maturity):
			to, reason = m, "again: a step on another side of a cut took it back"
		case s.Due:
			to = s.To
		default:
			return nil
		}
		what := fmt.Sprintf("promote to %s (%s)", to, reason)
		return a.versioned(tx, Node, name, what, func() error {
			head.Maturity, head.editRecord = to, editRecord{Node.Name, tx.Now()}
			if err := packages.put(tx, name, head); err != nil {
				return err
			}
			return a.audit(tx, Node, what, "package "+name, string(s.from), string(to))
		})
	})
	if err != nil {
		return fmt.Errorf("promote package %s by itself: %w", name, err)
	}
	if to != "" {
		a.log.InfoContext(ctx, "rule package promoted by itself", "package", name, "maturity", to)
	}
	return nil
}

// reached is the maturity to which a package was promoted since somebody gave
// it another one than the next. Steps of two sides of a cut are told apart
// from those by their beginning: a step that begins below what was reached
// knew nothing of it.
func reached(list []row[versionRecord]) (m rules.Maturity) {
	for _, r := range list {
		was, is := r.value.Was, r.value.Is
		switch {
		case is == nil:
			m = ""
		case was == nil || stepOf(is.Maturity) != stepOf(was.Maturity) && stepOf(is.Maturity) != stepOf(was.Maturity)+1:
			m = is.Maturity
		case stepOf(is.Maturity) > stepOf(m):
			m = is.Maturity
		}
	}
	return m
}

func stepOf(m rules.Maturity) int { return slices.Index(rules.Maturities[:], m) }

// actsFirst says whether this node acts for a package: of the nodes it reaches
// the one that a hash chooses, so that not all do at once.
func (a *Appliance) actsFirst(name string) bool {
	own := hashOf(name + a.db.NodeID())
	for _, n := range a.nodeRows() {
		if reached := n.Reach == string(replicate.Direct) || n.Reach == string(replicate.Relayed); reached && hashOf(name+n.ID) < own {
			return false
		}
	}
	return true
}

// promoteBy takes a package one maturity on.
func (a *Appliance) promoteBy(ctx context.Context, by Actor, name, reason string) error {
	_, e, err := a.promotion(ctx, name)
	if err != nil {
		return err
	}
	_, err = a.putPackage(ctx, by, name, e, fmt.Sprintf("promote to %s (%s)", e.Maturity, strings.TrimSpace(reason)), "")
	return err
}
