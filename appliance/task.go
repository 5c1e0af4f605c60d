package appliance

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
)

// The values of a task's kind and status.
const (
	kindScan   = "scan"
	kindUpdate = "update"

	statusQueued    = "queued"
	statusRunning   = "running"
	statusDone      = "done"
	statusUnchanged = "unchanged"
	statusFailed    = "failed" // the last try; without NextTry there is no other
	statusPaused    = "paused"
	statusCancelled = "cancelled"
)

// What is kept of tasks that ended.
const (
	historyAge  = 90 * 24 * time.Hour
	historyRows = 2000
)

// bySchedule is who asks for what the node fetches by itself.
const bySchedule = "schedule"

// A task is a download that has not ended, with what only memory knows of it.
type task struct {
	Task
	short   string         // shortName of the file
	hash    uint64         // of its name
	hosts   int            // that wait for the file
	sites   map[string]int // of those hosts, how many wait at each site
	forced  bool           // somebody asked for it by name: it stays when no host waits
	asked   time.Time      // when somebody last did
	errand  string         // the only node it is for, when that is another; see askRecord
	wrong   int            // tries in a row that brought a wrong file
	futile  int            // tries in a row that brought nothing of it from the peers that have it
	settled bool           // there is room for it within the quota
	limited bool           // NextTry is when the site's limits let it go on

	forcedHere bool     // an admin of this node asked: it does not wait for another's turn
	steered    bool     // an admin ended the try that runs, see queue.go
	pausing    string   // who wants it paused once its try has ended
	cancelling string   // who wants it gone then
	way        way      // how it comes, once it runs
	drafted    *drafted // what came of it while another node downloaded it; nil for nothing

	cancel  context.CancelCauseFunc // of the try that runs; nil for none
	over    chan struct{}           // closed when the last try that began has ended
	sampled time.Time               // when Rate was last computed
	before  int64                   // bytes on disk then
}

func newTask(kind, file string, now time.Time) *task {
	var tail [4]byte
	rand.Read(tail[:])
	return taskOf(Task{
		ID:   fmt.Sprintf("%011x-%s", now.UnixMilli(), hex.EncodeToString(tail[:])),
		Kind: kind, File: file, Status: statusQueued, Queued: now,
	})
}

func taskOf(row Task) *task {
	return &task{Task: row, short: shortName(row.File), hash: hashOf(row.File)}
}

// askedBy adds a name to By, which names everyone who asked, up to five.
func (t *task) askedBy(name string) {
	names := strings.Split(t.By, ", ")
	switch {
	case t.By == "":
		t.By = name
	case slices.Contains(names, name) || len(names) > 5:
	case len(names) == 5:
		t.By += ", others"
	default:
		t.By += ", " + name
	}
}

// progress takes in how far the bytes are.
func (t *task) progress(done, total int64, now time.Time) {
	if total > 0 {
		t.Size = total
	}
	switch took := now.Sub(t.sampled); {
	case t.sampled.IsZero():
		t.sampled, t.before = now, done
	case took >= time.Second:
		rate := int64(float64(done-t.before) / took.Seconds())
		if t.Rate > 0 {
			rate = (2*t.Rate + rate) / 3 // calmer to look at
		}
		t.Rate, t.sampled, t.before = rate, now, done
	}
	t.Done = done
}

// state is the task as a state of its file.
func (t *task) state() fileState {
	s := fileState{State: Queued, Size: t.Size}
	switch t.Status {
	case statusRunning:
		s.State, s.Percent = Downloading, t.Percent()
	case statusFailed:
		s.State = Failed
	case statusPaused:
		s.Note = t.Waiting
	}
	if t.Error != "" {
		s.Note = t.Error
		if !t.NextTry.IsZero() {
			s.Note += " Next try at " + clock(t.NextTry) + "."
		}
	}
	return s
}

// running says whether a file is being downloaded now. The lock is held.
func (f *folder) running(name string) bool {
	t := f.queue[name]
	return t != nil && t.Status == statusRunning
}

// loadTasks takes the tasks in. What ran when the node stopped goes on.
func (f *folder) loadTasks(tx *replicate.Tx) error {
	for r, err := range tasks.all(tx) {
		if err != nil {
			return err
		}
		t := r.value
		switch {
		case t.Status == statusDone, t.Status == statusUnchanged, t.Status == statusCancelled, t.Status == statusFailed && t.NextTry.IsZero():
			f.ended = append(f.ended, t)
			continue
		case t.Status == statusRunning:
			t.Status, t.NextTry = statusQueued, time.Time{} // which said when a limit lets it go on
		}
		// A task that failed keeps its next try, but a clock that was set
		// back must not make it wait for years.
		if latest := time.Now().Add(longestWait); t.NextTry.After(latest) {
			t.NextTry = latest
		}
		f.queue[t.File] = taskOf(t)
		f.queue[t.File].forced, f.queue[t.File].asked = t.By != bySchedule, t.Queued
	}
	slices.SortFunc(f.ended, func(x, y Task) int { return x.Finished.Compare(y.Finished) })
	return nil
}

// save stores a task as it is now. A store that cannot be written costs the
// row its durability, not the download.
func (f *folder) save(ctx context.Context, t *task) {
	err := f.node.db.Update(ctx, func(tx *replicate.Tx) error { return f.put(tx, t) })
	if err != nil && ctx.Err() == nil {
		f.log.WarnContext(ctx, "download task not recorded", "file", t.File, "err", err)
	}
	f.changed()
}

// put stores a task as it is when its turn to be stored has come. As it was
// before, it could replace what another change set has stored meanwhile.
func (f *folder) put(tx *replicate.Tx, t *task) error {
	f.mu.RLock()
	row := t.Task
	f.mu.RUnlock()
	return tasks.put(tx, row.ID, row)
}

// end moves a task to the history. The lock is held.
func (f *folder) end(t *task) {
	delete(f.queue, t.File)
	f.ended = append(f.ended, t.Task)
}

// prune forgets the oldest of the history.
func (f *folder) prune(ctx context.Context) error {
	f.mu.Lock()
	n := max(len(f.ended)-historyRows, 0)
	for n < len(f.ended) && time.Since(f.ended[n].Finished) > historyAge {
		n++
	}
	gone := f.ended[:n]
	f.ended = slices.Clone(f.ended[n:])
	f.mu.Unlock()
	return f.dropRows(ctx, gone)
}

// dropRows deletes the records of tasks.
func (f *folder) dropRows(ctx context.Context, list []Task) error {
	return f.inBatches(ctx, len(list), func(tx *replicate.Tx, i int) error { return tasks.del(tx, list[i].ID) }, nil)
}

// A TaskQuery chooses downloads.
type TaskQuery struct {
	Status string    // one of [Task]'s; empty for all
	Since  time.Time // without those that ended before
	Page
}

// Tasks lists downloads, running ones first, then newest. The order is total
// and the cursor is a place in it, so that a page after a change neither
// repeats nor skips what did not move.
func (a *Appliance) Tasks(_ context.Context, q TaskQuery) (list []Task, next string, err error) {
	f := a.folder
	f.mu.RLock()
	all := slices.Clone(f.ended)
	for _, t := range f.queue {
		all = append(all, t.shown())
	}
	f.mu.RUnlock()
	slices.SortFunc(all, compareTasks)
	for _, t := range all {
		if q.Status != "" && t.Status != q.Status || t.group() == 2 && t.Finished.Before(q.Since) || q.After != "" && t.place() <= q.After {
			continue
		}
		if len(list) == q.limit() {
			return list, list[len(list)-1].place(), nil
		}
		list = append(list, t)
	}
	return list, "", nil
}

// shown is the task with what only memory knows of it. The lock is held.
func (t *task) shown() Task {
	row := t.Task
	if row.Hosts = t.hosts; t.hosts >= askedFirst { // which is no number of hosts
		row.Hosts = 0
		for _, n := range t.sites {
			row.Hosts += n
		}
	}
	return row
}

// Moving are the downloads that run, the most urgent first and no more than
// most, and how many there are.
func (a *Appliance) Moving(most int) (list []Task, all int) {
	f := a.folder
	f.mu.RLock()
	defer f.mu.RUnlock()
	var run []*task
	for _, t := range f.queue {
		if t.Status == statusRunning {
			run = append(run, t)
		}
	}
	slices.SortFunc(run, func(x, y *task) int {
		return cmp.Or(cmp.Compare(y.urgency(), x.urgency()), compareTasks(x.Task, y.Task))
	})
	for _, t := range run[:min(len(run), most)] {
		list = append(list, t.shown())
	}
	return list, len(run)
}

// busy is how many downloads run or wait.
func (f *folder) busy() (n int) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, t := range f.queue {
		if t.Status == statusRunning || t.Status == statusQueued {
			n++
		}
	}
	return n
}

// place is where a task stands in lists: running, then waiting or failed,
// then ended, and of each the newest first.
func (t Task) place() string {
	return fmt.Sprintf("%d.%016x.%s", t.group(), ^uint64(t.Queued.UnixMilli()), t.ID)
}

func (t Task) group() int {
	switch t.Status {
	case statusRunning:
		return 0
	case statusQueued, statusFailed, statusPaused:
		return 1
	}
	return 2
}

// compareTasks orders tasks by their places.
func compareTasks(x, y Task) int {
	return cmp.Or(x.group()-y.group(), cmp.Compare(y.Queued.UnixMilli(), x.Queued.UnixMilli()), strings.Compare(x.ID, y.ID))
}

// cabTask is the scan cab's task that has not ended. The lock is held.
func (f *folder) cabTask() *task { return f.queue[microsoft.ScanCabName] }
