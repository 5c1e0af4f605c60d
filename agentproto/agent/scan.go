package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// errNoCab is why nothing can be scanned yet.
var errNoCab = errors.New("the scan cab has not come from the node yet")

// scanNow has Windows scan and keeps what it found. It returns a sentence.
func (a *Agent) scanNow(ctx context.Context) (string, error) {
	if err := a.windows.take(ctx); err != nil {
		return "", err
	}
	defer a.windows.give()
	if !a.manages() {
		return "", errDisabled
	}
	a.mu.Lock()
	cab := a.st.Cab
	a.mu.Unlock()
	if cab == "" {
		return "", errNoCab
	}
	a.say("windows", "scanning")
	defer a.say("windows", "")
	began := time.Now()
	_, hash := a.policy()
	err := a.session(ctx, cab, func(s Session) error { return a.search(ctx, s, cab, hash) })
	if err != nil {
		if ctx.Err() == nil {
			a.scanFailed(ctx, began, err)
		}
		return "", fmt.Errorf("scan: %w", err)
	}
	a.fetch.now()
	a.contact.now()
	return a.summary(), nil
}

// search is one Search, and what it found goes to disk.
func (a *Agent) search(ctx context.Context, s Session, cab, hash string) error {
	began := time.Now()
	found, err := s.Search(ctx)
	if err != nil {
		return err
	}
	list, odd := cleanFound(found)
	if len(odd) > 0 {
		a.log.WarnContext(ctx, "descriptions that nodes would refuse were shortened", "updates", len(odd), "update", string(odd[0]))
	}
	now := scan{Schema: schema, Cab: cab, Rules: hash, Started: began.UTC(), Took: time.Since(began), Found: list}
	if err := store(a.dir, scanFile, &now); err != nil {
		return err
	}
	facts, err := a.facts(ctx)
	if err != nil {
		return err
	}
	share := a.share()
	a.mu.Lock()
	a.scan = now
	a.mu.Unlock()
	a.log.InfoContext(ctx, "scanned", "updates", len(list), "took", now.Took)
	hid := a.showAllowed(ctx, s)
	return a.change(func(s *state) {
		s.Hid = hid
		s.LastScan = attemptAt{At: began, Share: share}
		s.Rescan, s.Unsent = false, true
		settle(s.Tried, list, facts.Booted)
	})
}

// showAllowed takes out of Windows' own list of updates what may not be
// installed, and shows what may: where Windows' own pages can still be used,
// they must not install what the rules forbid. It returns what is hidden by us
// now. Windows is left alone where the agent did not take it over.
func (a *Agent) showAllowed(ctx context.Context, s Session) []rules.UpdateID {
	a.mu.Lock()
	hid := slices.Clone(a.st.Hid)
	a.mu.Unlock()
	if a.atRest() != ServiceOff {
		return hid
	}
	var now []rules.UpdateID
	var failed error
	for _, c := range a.choices() {
		hide, ours := c.needed() && !c.Decision.May(), slices.Contains(hid, c.Update.ID)
		if hide == c.Hidden {
			if hide && ours {
				now = append(now, c.Update.ID)
			}
			continue
		}
		if err := s.Hide(ctx, c.Ref(), hide); err != nil {
			failed = fmt.Errorf("%s in Windows' own list: %w", c.Update.Title, err)
			hide = ours
		}
		if hide {
			now = append(now, c.Update.ID)
		}
	}
	if failed != nil {
		a.log.WarnContext(ctx, "hide what is forbidden", "err", failed)
	}
	a.warn("hide", failed)
	return now
}

// showHidden puts back into Windows' own list what the agent took out.
func (a *Agent) showHidden(ctx context.Context) error {
	a.mu.Lock()
	cab, hid := a.st.Cab, slices.Clone(a.st.Hid)
	a.mu.Unlock()
	if len(hid) == 0 || cab == "" {
		return nil
	}
	if err := a.windows.take(ctx); err != nil {
		return err
	}
	defer a.windows.give()
	err := a.session(ctx, cab, func(s Session) error {
		found, err := s.Search(ctx)
		for _, f := range found {
			if f.Hidden && slices.Contains(hid, rules.UpdateID(strings.ToLower(string(f.Update.ID)))) {
				err = errors.Join(err, s.Hide(ctx, f.Ref(), false))
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("show again what was hidden: %w", err)
	}
	return a.change(func(s *state) { s.Hid = nil })
}

// codeRolledBack is how an update is reported that was installed, waited for
// a restart, and is needed again after it: WU_E_UH_POSTREBOOTUNEXPECTEDSTATE.
const codeRolledBack = 0x80242016

// settle forgets the tries of updates that are installed or gone. An update
// that waited for a restart waits until there was one: Windows does not
// always say so itself, and the agent must not install it over and over.
func settle(tries map[rules.UpdateID]tried, found []Found, booted time.Time) {
	open := make(map[rules.UpdateID]Found, len(found))
	for _, f := range found {
		if !f.Installed || f.Restart {
			open[f.Update.ID] = f
		}
	}
	for id, t := range tries {
		f, ok := open[id]
		if !ok || t.Revision != 0 && f.Update.Revision != t.Revision && !t.Restart {
			delete(tries, id) // what failed is gone; another revision may do better
			continue
		}
		if t.Count > 0 && booted.After(t.At) && !t.Booted {
			t.Booted = true
			tries[id] = t
		}
		if t.Restart && !f.Restart && booted.After(t.At) {
			t.Restart, t.HResult, t.Count, t.At, t.Booted = false, codeRolledBack, t.Count+1, booted.UTC(), false
			tries[id] = t
		}
	}
}

// scanFailed keeps why a scan failed, for the node, and when to try again.
func (a *Agent) scanFailed(ctx context.Context, began time.Time, err error) {
	share := a.share()
	a.mu.Lock()
	a.scan.Error, a.scan.HResult = oneLine(err.Error(), 1000), hresult(err)
	now := a.scan
	a.mu.Unlock()
	if serr := store(a.dir, scanFile, &now); serr != nil {
		a.log.ErrorContext(ctx, "the scan could not be written", "err", serr)
	}
	a.failed(ctx, "scan", err)
	a.note(func(s *state) {
		s.LastScan = attemptAt{At: began, Share: share, Failed: s.LastScan.Failed + 1, HResult: hresult(err)}
		s.Unsent = true
	})
	a.contact.now()
}

// summary is the last scan as a sentence.
func (a *Agent) summary() string {
	needed, installed := 0, 0
	for _, c := range a.choices() {
		switch {
		case c.Installed:
			installed++
		case c.needed():
			needed++
		}
	}
	return fmt.Sprintf("Found %s needed, %d installed.", count(needed, "update"), installed)
}

// report tells the node the statuses if they are not what it has, and then
// describes the updates it does not know. The turn of contact must be the
// caller's.
func (a *Agent) report(ctx context.Context) error {
	node, _, err := a.node()
	if err != nil {
		return err
	}
	list := statuses(a.choices())
	hash := agentproto.HashStatuses(list)
	a.mu.Lock()
	last := a.scan
	unsent, sent, lacks := a.st.Unsent, a.st.Sent, a.st.Lacks
	a.mu.Unlock()
	if last.Started.IsZero() && last.Error == "" {
		return nil // nothing was scanned yet
	}
	if unsent || hash != sent {
		r, err := node.Report(ctx, agentproto.Report{
			Protocol: agentproto.Version, Hash: hash, Statuses: list,
			Scan: &agentproto.Scan{Cab: last.Cab, Started: last.Started, Took: agentproto.Duration(last.Took), Error: last.Error, HResult: last.HResult},
		})
		if err != nil {
			return a.refused(fmt.Errorf("report: %w", err))
		}
		lacks = r.Lacks
		err = a.change(func(s *state) {
			s.Sent, s.Lacks = hash, lacks
			// A scan may have ended while the one before was on its way.
			if now := a.scan; now.Started.Equal(last.Started) && now.Error == last.Error && now.HResult == last.HResult {
				s.Unsent = false
			}
		})
		if err != nil {
			return err
		}
		a.mu.Lock()
		a.reported = time.Now()
		a.mu.Unlock()
		a.log.InfoContext(ctx, "reported", "updates", len(list), "lacks", len(lacks))
	}
	return a.describe(ctx, node, lacks)
}

// describeBytes bounds one report of descriptions; a node takes 16 MB.
const describeBytes = 4 << 20

// describe sends the descriptions a node asked for, in reports of a bounded
// size. A node that goes on asking for what it was sent is not sent it twice.
func (a *Agent) describe(ctx context.Context, node Node, lacks []agentproto.UpdateRef) error {
	sent := map[agentproto.UpdateRef]bool{}
	for len(lacks) > 0 {
		var updates []agentproto.Update
		size := 0
		var rest []agentproto.UpdateRef
		for _, ref := range lacks {
			u, ok := a.description(ref)
			switch {
			case !ok || sent[ref]: // it is gone, or sending it again is no use
			case len(updates) == agentproto.MaxUpdates/4 || size > describeBytes:
				rest = append(rest, ref)
			default:
				updates, size = append(updates, u), size+sizeOf(u)
				sent[ref] = true
			}
		}
		if len(updates) == 0 {
			break
		}
		r, err := node.Report(ctx, agentproto.Report{Protocol: agentproto.Version, Updates: updates})
		if err != nil {
			return a.refused(fmt.Errorf("describe %s: %w", count(len(updates), "update"), err))
		}
		lacks = append(rest, r.Lacks...)
		if err := a.change(func(s *state) { s.Lacks = lacks }); err != nil {
			return err
		}
	}
	return a.change(func(s *state) { s.Lacks = nil })
}

// sizeOf is about how many bytes a description takes in JSON.
func sizeOf(u agentproto.Update) int {
	n := 1000 + len(u.Title) + len(u.Description) + 20*len(u.CVEs) + 40*len(u.Supersedes)
	for _, f := range u.Files {
		n += 250 + len(f.URL) + len(f.Name)
	}
	return n
}

func (a *Agent) description(ref agentproto.UpdateRef) (agentproto.Update, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range a.scan.Found {
		if f.Ref() == ref {
			return f.Update, true
		}
	}
	return agentproto.Update{}, false
}

// reportSoon has the node hear of progress, at most once a minute.
func (a *Agent) reportSoon() {
	a.mu.Lock()
	soon := time.Since(a.reported) > time.Minute
	a.mu.Unlock()
	if soon {
		a.contact.now()
	}
}
