package appliance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"wuamesh/replicate"
)

// A TaskAction is what an admin does to one download of this node.
type TaskAction string

// The actions. None of them loses a verified byte: what is here of a file
// stays, but for one that was cancelled and that no host needs.
const (
	PauseTask  TaskAction = "pause"  // nothing of it is fetched until somebody resumes it, also when hosts ask
	ResumeTask TaskAction = "resume" // it goes on
	FirstTask  TaskAction = "first"  // it goes before all others but the scan cab
	CancelTask TaskAction = "cancel" // it is taken out of the queue, until a host asks for the file
	RetryTask  TaskAction = "retry"  // it does not wait for its next try
)

// TaskActions are those there are.
var TaskActions = []TaskAction{PauseTask, ResumeTask, FirstTask, CancelTask, RetryTask}

// steered are what they make of a download.
var steered = map[TaskAction]string{PauseTask: "paused", ResumeTask: "resumed", FirstTask: "put first", CancelTask: "cancelled", RetryTask: "tried again"}

// errSteered ends the try of a download that an admin paused, cancelled or put
// first; the task says which.
var errSteered = errors.New("an admin changed the download")

// Actions are those that can be done to the download as it is.
func (t Task) Actions() []TaskAction {
	switch {
	case t.Status == statusRunning && !t.First.IsZero():
		return []TaskAction{PauseTask, CancelTask}
	case t.Status == statusRunning, t.Status == statusQueued && t.First.IsZero():
		return []TaskAction{PauseTask, FirstTask, CancelTask}
	case t.Status == statusQueued:
		return []TaskAction{PauseTask, CancelTask}
	case t.Status == statusPaused:
		return []TaskAction{ResumeTask, CancelTask}
	case t.Status == statusFailed && !t.NextTry.IsZero():
		return []TaskAction{RetryTask, PauseTask, CancelTask}
	}
	return nil
}

// SteerDownload does something to one download of this node, which id names,
// and returns what it is then. Other nodes go on by themselves.
func (a *Appliance) SteerDownload(ctx context.Context, by Actor, id string, do TaskAction) (Task, error) {
	if err := by.need(Operator); err != nil {
		return Task{}, err
	}
	if !slices.Contains(TaskActions, do) {
		return Task{}, invalid("action", "%.40q is nothing that can be done to a download.", do)
	}
	f := a.folder
	f.mu.Lock()
	t, err := f.steerable(id, do)
	if err != nil {
		f.mu.Unlock()
		return Task{}, err
	}
	over := f.steer(t, by.Name, do)
	f.mu.Unlock()
	select { // what is answered and stored is what came of it
	case <-over:
	case <-ctx.Done():
	case <-time.After(steerWait):
	}
	f.mu.RLock()
	row := t.shown()
	f.mu.RUnlock()
	f.wakeWorkers()
	defer f.changed()
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		mark := error(nil)
		if do == CancelTask {
			mark = deleted.put(tx, row.File, time.Now().UTC())
		}
		return errors.Join(f.put(tx, t), mark, a.audit(tx, by, string(do)+" download", "file "+row.File, "", ""))
	})
	if err != nil {
		return Task{}, fmt.Errorf("record that the download of %s was changed: %w", row.File, err)
	}
	if do == CancelTask {
		f.dropUnneeded(row.File)
	}
	a.log.InfoContext(ctx, "download changed", "file", row.File, "action", do, "by", by.Name)
	return row, nil
}

// steerable is the download of that id, if the action can be done to it. The
// lock is held.
func (f *folder) steerable(id string, do TaskAction) (*task, error) {
	for _, t := range f.queue {
		if t.ID != id {
			continue
		}
		if !slices.Contains(t.Actions(), do) {
			return nil, &Problem{Kind: Conflict, Msg: fmt.Sprintf("The download of %s is %s: it cannot be %s now.", t.File, t.Status, steered[do]), Hint: "It may have changed meanwhile; look at it again."}
		}
		return t, nil
	}
	if i := slices.IndexFunc(f.ended, func(t Task) bool { return t.ID == id }); i >= 0 {
		return nil, &Problem{Kind: Conflict, Msg: fmt.Sprintf("The download of %s has ended.", f.ended[i].File), Hint: "Download the file anew on the page of its update, if it is to come again."}
	}
	return nil, notFound("There is no download %.64q.", id)
}

// steerWait is how long an answer waits for a try to end; it hears of it at
// once, but for one that is just being written to the disk.
const steerWait = 5 * time.Second

// steer changes a task, and returns what is closed when that is done: what
// runs is ended first, by its own goroutine, which then calls settle. The lock
// is held.
func (f *folder) steer(t *task, by string, do TaskAction) (over <-chan struct{}) {
	now := time.Now().UTC()
	switch do {
	case PauseTask:
		t.pausing = by
	case CancelTask:
		t.cancelling = by
		f.marks[t.File] = now
	case FirstTask:
		t.First = now
	case ResumeTask, RetryTask:
		t.Status, t.NextTry, t.Waiting, t.Error, t.Hint = statusQueued, time.Time{}, "", "", ""
	}
	done := make(chan struct{})
	close(done)
	if t.Status != statusRunning {
		f.settle(t)
		return done
	}
	// What comes from Microsoft is one connection, which goes as fast as it can;
	// what comes from peers is asked for anew, before the rest.
	if do == FirstTask && t.way != byPeers {
		return done
	}
	if t.steered = true; t.cancel != nil {
		t.cancel(errSteered)
	}
	return t.over
}

// settle makes a task that does not run what an admin wants it to be. The lock
// is held.
func (f *folder) settle(t *task) {
	now := time.Now().UTC()
	switch {
	case t.cancelling != "":
		t.Status, t.Finished, t.NextTry, t.Waiting = statusCancelled, now, time.Time{}, ""
		t.Error, t.Hint = "Cancelled by "+t.cancelling+".", "It comes again when a host asks for it. To keep it away, forbid the update."
		f.end(t)
	case t.pausing != "":
		t.Status, t.NextTry, t.Error, t.Hint = statusPaused, time.Time{}, "", ""
		t.Waiting = "Paused by " + t.pausing + " " + clock(now) + "; hosts that ask for it wait."
	}
	t.steered, t.pausing, t.cancelling = false, "", ""
}

// dropUnneeded deletes what arrived of a file that no host needs and nobody
// fetches.
func (f *folder) dropUnneeded(name string) {
	f.mu.RLock()
	busy := f.queue[name] != nil
	f.mu.RUnlock()
	if !busy && !f.node.cat.needs(name) {
		f.removePartial(name)
	}
}
