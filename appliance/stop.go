package appliance

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
)

// An emergency stop forbids one update everywhere, whatever any package says,
// and keeps every node from serving or downloading its files. Hosts get it as
// one more package of their policy. Each stop is a record of its own and an
// undo deletes those it knows of: who stops on one side of a cut what is let
// go again on the other has stopped it.
type stopRecord struct {
	Reason string `json:"reason"`
	editRecord
}

// A StopRow is an emergency stop in force.
type StopRow struct {
	Update    UpdateName `json:"update"`
	Reason    string     `json:"reason"`
	By        string     `json:"by"`
	At        time.Time  `json:"at"`
	Installed int        `json:"installed"` // hosts that have it already; it stays there
	// Shared are other updates that need one of its files; they wait meanwhile.
	Shared []UpdateName `json:"shared,omitempty"`
}

// maxReason bounds the reason of a stop or a promotion, in bytes.
const maxReason = 500

// reasonOf is a reason as it is kept: there, on one line, and not endless.
func reasonOf(text, missing, hint string) (string, error) {
	text = strings.Join(strings.Fields(text), " ")
	switch {
	case text == "":
		return "", &Problem{Kind: Invalid, Field: "reason", Msg: missing, Hint: hint}
	case len(text) > maxReason:
		return "", invalid("reason", "The reason has %d characters, at most %d.", len(text), maxReason)
	}
	return text, nil
}

// takeStop keeps a stop, by its update and its own id.
func (c *catalogue) takeStop(key string, r replicate.Record) error {
	c.touch()
	c.forgetPolicies()
	update, id, ok := strings.Cut(key, "/")
	if _, err := rules.ParseUpdateID(update); err != nil || !ok {
		return fmt.Errorf("%s is no stop", r.Key)
	}
	uid := rules.UpdateID(update)
	if c.stops[uid] == nil {
		c.stops[uid] = map[string]stopRecord{}
	}
	err := set(c.stops[uid], id, r)
	if len(c.stops[uid]) == 0 {
		delete(c.stops, uid)
	}
	c.blockFiles()
	return err
}

// stopPackage is what stops add to the policy of every host; none without any.
func (c *catalogue) stopPackage() []rules.Package {
	if len(c.stops) == 0 {
		return nil
	}
	p := rules.Package{Name: rules.EmergencyStop, Maturity: rules.Prod}
	for id := range c.stops {
		p.Lines = append(p.Lines, stopLine(id))
	}
	return []rules.Package{p}
}

func stopLine(id rules.UpdateID) rules.Line {
	return rules.Line{Verb: rules.Forbid, Kind: rules.ByUpdateID, Value: string(id)}
}

// stop is the stop that is told of an update: the first that was made.
func (c *catalogue) stop(id rules.UpdateID) (s stopRecord, ok bool) {
	for _, key := range slices.Sorted(maps.Keys(c.stops[id])) {
		if r := c.stops[id][key]; !ok || r.At.Before(s.At) {
			s, ok = r, true
		}
	}
	return s, ok
}

// filesUnder are the names of every file of an update that anybody described.
func (c *catalogue) filesUnder(id rules.UpdateID) (names []string) {
	if u := c.updates[id]; u != nil {
		for _, r := range u.revisions {
			for _, f := range r.Files {
				names = append(names, f.Name)
			}
		}
	}
	for _, f := range c.published.files(id) {
		names = append(names, f.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// blockFiles tells the folder which files no node may serve or fetch. The lock
// is held for writing.
func (c *catalogue) blockFiles() {
	blocked := map[string]string{}
	for _, id := range slices.Sorted(maps.Keys(c.stops)) {
		s, _ := c.stop(id)
		n := c.name(id)
		for _, name := range c.filesUnder(id) {
			if name == microsoft.ScanCabName {
				continue
			}
			blocked[name] = fmt.Sprintf("%s is under an emergency stop by %s since %s: %s", cmp.Or(n.Title, string(id)), s.By, clock(s.At), s.Reason)
		}
	}
	if was := c.folder.blocked.Swap(&blocked); was == nil || !maps.Equal(*was, blocked) {
		wake(c.folder.blocking)
	}
}

// stopRow is a stop as pages show it. The lock is held for writing.
func (c *catalogue) stopRow(id rules.UpdateID, t *countTable) StopRow {
	s, _ := c.stop(id)
	row := StopRow{Update: c.name(id), Reason: s.Reason, By: s.By, At: s.At, Shared: c.sharing(id)}
	if uc := t.updates[id]; uc != nil {
		row.Installed = uc.OK
	}
	return row
}

// sharing are the other updates that hosts described and that need a file of
// this one.
func (c *catalogue) sharing(id rules.UpdateID) []UpdateName {
	files := c.filesUnder(id)
	var ids []rules.UpdateID
	for other, u := range c.updates {
		uses := slices.ContainsFunc(u.revisions[u.newest].Files, func(f agentproto.File) bool {
			_, ok := slices.BinarySearch(files, f.Name)
			return ok
		})
		if other != id && uses && c.stops[other] == nil {
			ids = append(ids, other)
		}
	}
	return c.names(ids)
}

// Stops lists the emergency stops in force, the latest first.
func (a *Appliance) Stops(context.Context) ([]StopRow, error) {
	c := a.cat
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.counts(time.Now())
	list := []StopRow{}
	for id := range c.stops {
		list = append(list, c.stopRow(id, t))
	}
	slices.SortFunc(list, func(x, y StopRow) int {
		return cmp.Or(y.At.Compare(x.At), strings.Compare(string(x.Update.ID), string(y.Update.ID)))
	})
	return list, nil
}

// Stop forbids an update on every host at once and ends the serving and the
// downloading of its files. An operator may; what is installed stays. A stop
// of what is stopped already is one more, which an undo elsewhere that does
// not know of it does not take away.
func (a *Appliance) Stop(ctx context.Context, by Actor, id rules.UpdateID, reason string) error {
	if err := by.need(Operator); err != nil {
		return err
	}
	reason, err := reasonOf(reason, "An emergency stop needs a reason.", "Say what goes wrong, for whoever asks why the update does not come.")
	if err != nil {
		return err
	}
	if _, err := a.UpdateByID(ctx, id); err != nil {
		return err
	}
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		var tail [8]byte
		rand.Read(tail[:])
		if err := stops.put(tx, string(id)+"/"+hex.EncodeToString(tail[:]), stopRecord{reason, editRecord{By: by.Name, At: tx.Now()}}); err != nil {
			return err
		}
		return a.audit(tx, by, "emergency stop", "update "+string(id), "", reason)
	})
	if err != nil {
		return fmt.Errorf("stop update %s: %w", id, err)
	}
	a.log.WarnContext(ctx, "emergency stop", "update", id, "by", by.Name)
	return nil
}

// UndoStop ends the emergency stop of an update: the rules decide again.
func (a *Appliance) UndoStop(ctx context.Context, by Actor, id rules.UpdateID) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		var reasons []string
		for r, err := range stops.all(tx, string(id)+"/") {
			if err != nil {
				return err
			}
			reasons = append(reasons, r.value.Reason)
			if err := stops.del(tx, r.id); err != nil {
				return err
			}
		}
		if len(reasons) == 0 {
			return &Problem{Kind: Conflict, Msg: fmt.Sprintf("There is no emergency stop of update %.60s.", id), Hint: "Somebody has undone it already; the audit log says who."}
		}
		return a.audit(tx, by, "undo emergency stop", "update "+string(id), strings.Join(reasons, "; "), "")
	})
	if err != nil {
		return err
	}
	a.log.WarnContext(ctx, "emergency stop undone", "update", id, "by", by.Name)
	return nil
}

// PreviewStop says what Stop would do to hosts, or, where the update is
// stopped, what UndoStop would.
func (a *Appliance) PreviewStop(ctx context.Context, id rules.UpdateID) (Impact, error) {
	if _, err := a.UpdateByID(ctx, id); err != nil {
		return Impact{}, err
	}
	return a.preview(func(c *catalogue) change {
		return change{try: func(after *catalogue) {
			if after.stops[id] != nil {
				delete(after.stops, id)
			} else {
				after.stops[id] = map[string]stopRecord{"": {}}
			}
		}}
	}), nil
}

// block says why no node may serve or fetch a file; empty for a file that they
// may.
func (f *folder) block(name string) string {
	if m := f.blocked.Load(); m != nil {
		return (*m)[name]
	}
	return ""
}

// errStopped ends downloads of what is under an emergency stop.
var errStopped = errors.New("emergency stop")

// refuse answers for a file under an emergency stop.
func refuse(w http.ResponseWriter, why string) {
	agentproto.WriteProblem(w, agentproto.Problem{
		Status: http.StatusForbidden, Title: strings.TrimSuffix(why, ".") + ".", Hint: "No node serves its files until an owner undoes the stop, on the page of the update.",
	})
}

// A writeDeadline is where something is sent, as far as ending that goes.
type writeDeadline interface{ SetWriteDeadline(time.Time) error }

// sending notes where a file is being sent, so that a stop can end it.
func (f *folder) sending(name string, to writeDeadline) (end func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sends[to] = name
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.sends, to)
	}
}

// keepBlocked ends what goes on with files whenever an emergency stop comes.
// It is a part of the node.
func (f *folder) keepBlocked(ctx context.Context) error {
	for {
		if err := f.endBlocked(ctx); err != nil && ctx.Err() == nil {
			f.log.WarnContext(ctx, "downloads under an emergency stop are not recorded as ended", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-f.blocking:
		}
	}
}

func (f *folder) endBlocked(ctx context.Context) error {
	defer f.changed()
	var ended []*task
	f.mu.Lock()
	for to, name := range f.sends {
		if f.block(name) != "" {
			to.SetWriteDeadline(time.Unix(1, 0)) // long over: the connection breaks
		}
	}
	for name, t := range f.queue {
		switch {
		case f.block(name) == "":
		case t.Status == statusRunning && t.cancel != nil:
			t.cancel(errStopped)
		case t.Status != statusRunning:
			f.stopped(t)
			ended = append(ended, t)
		}
	}
	f.mu.Unlock()
	return f.inBatches(ctx, len(ended), func(tx *replicate.Tx, i int) error { return f.put(tx, ended[i]) }, nil)
}

// stopped ends a task because of an emergency stop. The lock is held.
func (f *folder) stopped(t *task) {
	t.Status, t.Finished, t.NextTry, t.Waiting = statusFailed, time.Now().UTC(), time.Time{}, ""
	t.Error, t.Hint = cmp.Or(f.block(t.File), "An emergency stop ended it")+".", "It goes on when an owner undoes the stop and a host still waits for it."
	f.end(t)
}
