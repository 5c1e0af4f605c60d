package appliance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
	"wuamesh/replicate/swarm"
)

const (
	workers     = 2              // downloads from Microsoft at once, beside what is pressing
	fetchers    = 32             // fetches from peers at once; the swarm decides what moves
	longestWait = 24 * time.Hour // between tries
	wrongTries  = 5              // wrong files in a row before a try a day is enough
)

// An order asks for one file.
type order struct {
	kind, file, title string
	by                string         // see Task.By
	size              int64          // bytes; 0 unknown
	hosts             int            // that wait for it
	sites             map[string]int // of those hosts, how many wait at each site
	forced            bool           // somebody asked for it by name
	now               bool           // do not wait for the next try of one that failed
	errand            string         // the other node it is for; empty for this one
	asked             time.Time      // when that one was
}

// order queues files. One that is in the queue already is not queued again:
// who asks is added, and the more hosts wait the sooner it comes. It returns
// how many are new or tried again at once. Queueing lifts the mark of a file
// deleted by hand. What else belongs to the change, an audit line, comes with
// it.
func (f *folder) order(ctx context.Context, list []order, also func(*replicate.Tx) error) (n int, err error) {
	var touched []*task
	now := time.Now().UTC()
	f.mu.Lock()
	for _, o := range list {
		if f.block(o.file) != "" {
			continue
		}
		delete(f.marks, o.file)
		t := f.queue[o.file]
		if t == nil {
			t = newTask(o.kind, o.file, now)
			f.queue[o.file] = t
			n++
		}
		if t.By == "" || o.errand == "" {
			t.errand = o.errand
		}
		if o.forced {
			if now.Sub(t.asked).Abs() >= askAgain {
				wake(f.share.asking)
			}
			t.asked = now
		}
		before := t.Task
		if o.now && t.Status == statusFailed {
			t.Status, t.NextTry = statusQueued, time.Time{}
			n++
		}
		if o.now && o.forced && t.Status == statusPaused { // who asks for it by name wants it
			t.Status, t.Waiting = statusQueued, ""
			n++
		}
		t.askedBy(o.by)
		t.Title, t.Size = cmp.Or(o.title, t.Title), cmp.Or(o.size, t.Size)
		t.hosts, t.forced = max(o.hosts, t.hosts), t.forced || o.forced
		if t.sites == nil || len(o.sites) > 0 && o.errand == t.errand {
			t.sites = o.sites
		}
		t.forcedHere = t.forcedHere || o.now && o.forced
		if t.Task != before { // a new one is: who asks was added
			touched = append(touched, t)
		}
	}
	f.mu.Unlock()
	f.wakeWorkers()
	if len(touched) == 0 && also == nil {
		return n, nil
	}
	f.changed()
	err = f.inBatches(ctx, len(touched), func(tx *replicate.Tx, i int) error {
		return errors.Join(f.put(tx, touched[i]), deleted.del(tx, touched[i].File))
	}, also)
	if err != nil {
		return n, fmt.Errorf("record %d downloads: %w", len(touched), err)
	}
	return n, nil
}

// run downloads what is queued until ctx ends. It is a part of the node.
func (f *folder) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range f.lanes {
		for range l.workers {
			g.Go(func() error { return f.download(ctx, l) })
		}
	}
	g.Go(func() error { return every(ctx, f.log, time.Hour, f.prune) })
	return g.Wait()
}

// tryNow lets no download wait that failed before.
func (f *folder) tryNow() {
	f.mu.Lock()
	for _, t := range f.queue {
		if t.Status != statusRunning {
			t.NextTry = time.Time{}
		}
	}
	f.mu.Unlock()
	f.wakeWorkers()
	wake(f.look)
}

// RetryDownloads lets no download wait that failed, and returns how many did.
func (a *Appliance) RetryDownloads(ctx context.Context, by Actor) (n int, err error) {
	if err := by.need(Operator); err != nil {
		return 0, err
	}
	f := a.folder
	f.mu.RLock()
	for _, t := range f.queue {
		if t.Status == statusFailed {
			n++
		}
	}
	f.mu.RUnlock()
	if n == 0 {
		return 0, nil
	}
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		return a.audit(tx, by, "try failed downloads now", "folder", "", things(n, "file", "files"))
	})
	if err == nil {
		f.tryNow()
	}
	return n, err
}

// A lane is workers for what comes one way. Those of the last lanes wait for
// what no download that began earlier shall hold up.
type lane struct {
	way     way
	takes   func(*task) bool
	workers int
	work    chan struct{} // there may be something for them
}

func newLanes() (list []*lane) {
	for _, l := range []lane{
		{way: byMicrosoft, takes: (*task).any, workers: workers}, {way: byPeers, takes: (*task).any, workers: fetchers},
		{way: byMicrosoft, takes: (*task).pressing, workers: 1}, {way: byPeers, takes: (*task).pressing, workers: 1},
		{way: byMicrosoft, takes: (*task).isCab, workers: 1}, {way: byPeers, takes: (*task).isCab, workers: 1},
	} {
		l.work = make(chan struct{}, 1)
		list = append(list, &l)
	}
	return list
}

func (t *task) any() bool   { return true }
func (t *task) isCab() bool { return t.Kind == kindScan }

// pressing is what somebody waits for now: a host that asked, or an admin.
func (t *task) pressing() bool {
	return t.isCab() || !t.First.IsZero() || t.forcedHere || t.hosts >= askedFirst
}

// download is one worker of a lane.
func (f *folder) download(ctx context.Context, l *lane) error {
	for {
		t, wait := f.next(l, time.Now())
		if t != nil {
			f.try(ctx, t)
			if ctx.Err() != nil {
				return nil
			}
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-l.work:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// next takes the most urgent task of the lane that may start now, or says how
// long there is nothing to do. One that does not fit on the disk is told so and
// left for a minute; a smaller one may go first.
func (f *folder) next(l *lane, now time.Time) (first *task, wait time.Duration) {
	free, u := f.free(), f.share.turn(now)
	f.mu.Lock()
	defer f.mu.Unlock()
	wait = time.Hour
	if !u.settling.IsZero() {
		wait = time.Second // a peer that is reached wakes nobody
	}
	for _, t := range f.queue {
		if t.Status == statusRunning && t.way == byMicrosoft { // what it still brings is spoken for; from peers it is reserved
			free -= max(t.Size-t.Done, 0)
		}
	}
	for _, t := range f.queue {
		if t.Status == statusRunning || t.Status == statusPaused || !l.takes(t) {
			continue
		}
		late := t.NextTry.Sub(now)
		waits := late > 0 && late <= longestWait && !t.limited // a clock that was set back counts for nothing
		if waits && t.way != byMicrosoft {
			wait = min(wait, late)
			continue
		}
		by, waiting := f.share.way(t, u)
		if waits && by != byPeers { // which may have it by now
			wait = min(wait, late, lookAgain)
			continue
		}
		if t.Waiting = waiting; by != l.way {
			wait = min(wait, lookAgain)
			continue
		}
		if problem, hint := f.fits(t, free); problem != "" {
			t.Status, t.Error, t.Hint, t.NextTry = statusQueued, problem, hint, now.Add(f.recheck)
			wait = min(wait, f.recheck)
			f.node.watch.tell("downloads")
			continue
		}
		if first == nil || t.moreUrgent(first) {
			first = t
		}
	}
	if first != nil {
		first.Status, first.Started, first.Attempts = statusRunning, now.UTC(), first.Attempts+1
		first.Error, first.Hint, first.NextTry, first.Finished = "", "", time.Time{}, time.Time{}
		first.Rate, first.sampled, first.way, first.over = 0, time.Time{}, l.way, make(chan struct{})
		if first.From = "peers"; l.way == byMicrosoft {
			first.From = "Microsoft"
		}
		f.wakeWorkers() // there may be more
	}
	return first, wait
}

// moreUrgent orders tasks: the scan cab, then what an admin put first, the
// latest before the others, then what most hosts wait for, then the oldest.
func (t *task) moreUrgent(u *task) bool {
	if t.Kind != u.Kind {
		return t.Kind == kindScan
	}
	return cmp.Or(u.First.Compare(t.First), cmp.Compare(u.hosts, t.hosts), t.Queued.Compare(u.Queued), strings.Compare(t.File, u.File)) < 0
}

// try makes one try of a task and records what became of it.
func (f *folder) try(ctx context.Context, t *task) {
	defer close(t.over)
	f.save(ctx, t)
	fetch := f.fetchFile
	switch {
	case t.way == byPeers:
		fetch = f.share.fetchFromPeers
	case t.Kind == kindScan:
		fetch = f.fetchCab
	}
	var status string
	var fetched int64
	trying, end := f.trying(ctx, t)
	there, err := f.there(trying, t)
	switch {
	case there:
		status = statusDone
	case err == nil:
		if err = f.makeRoom(trying, t); err == nil {
			status, fetched, err = fetch(trying, t)
		}
	}
	if cause := context.Cause(trying); err != nil && (errors.Is(cause, errStopped) || errors.Is(cause, errSteered)) {
		err = cause
	}
	end()
	if t.way == byMicrosoft {
		f.upstream.Add(fetched)
	}
	if ctx.Err() != nil {
		return // stopped; the next start goes on with what is there
	}
	f.mu.Lock()
	if t.way == byPeers {
		t.Peers += fetched
	} else {
		t.Fetched += fetched
	}
	if fetched > 0 || t.way == byMicrosoft {
		t.futile = 0
	}
	t.Rate = 0
	if err != nil {
		f.failed(t, err)
	} else {
		t.Status, t.Finished, t.steered = status, time.Now().UTC(), false
		f.end(t)
	}
	row := t.Task
	f.mu.Unlock()
	f.save(ctx, t)
	if t.way == byMicrosoft {
		f.share.answer(ctx, row)
	}
	wake(f.share.asking)
	switch {
	case errors.Is(err, swarm.ErrOver):
		f.log.InfoContext(ctx, "the node that downloaded the file stopped; it comes another way", "file", row.File, "fetched", fetched)
		return
	case row.Status == statusQueued && errors.As(err, new(*limitedError)):
		f.log.InfoContext(ctx, "download waits for the site's limits", "file", row.File, "fetched", fetched, "next", row.NextTry)
		return
	case errors.Is(err, errSteered):
		f.log.InfoContext(ctx, "download ended by an admin", "file", row.File, "status", row.Status)
		if row.Status == statusCancelled {
			f.dropUnneeded(row.File)
		}
		return
	case err != nil:
		f.log.WarnContext(ctx, or(errors.Is(err, errStopped), "download ended by an emergency stop", "download failed, trying again"), "file", row.File, "try", row.Attempts, "next", row.NextTry, "err", err)
		return
	}
	f.log.InfoContext(ctx, "download ended", "file", row.File, "status", status, "bytes", row.Size, "moved", row.Fetched, "took", row.Finished.Sub(row.Started).Round(time.Millisecond))
}

// trying is the context of one try, which an emergency stop of the file ends,
// or an admin.
func (f *folder) trying(ctx context.Context, t *task) (trying context.Context, end func()) {
	trying, cancel := context.WithCancelCause(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	if t.cancel = cancel; f.block(t.File) != "" { // it came before there was anything to cancel
		cancel(errStopped)
	}
	if t.steered {
		cancel(errSteered)
	}
	return trying, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		t.cancel = nil
		cancel(nil)
	}
}

// failed puts a task off. The lock is held.
func (f *folder) failed(t *task, err error) {
	now := time.Now().UTC()
	t.settled = false
	var quota *quotaError
	if errors.Is(err, errStopped) {
		f.stopped(t)
		return
	}
	if t.steered { // whatever the try ended with
		t.Status, t.Attempts, t.NextTry = statusQueued, t.Attempts-1, time.Time{}
		f.settle(t)
		return
	}
	if errors.Is(err, swarm.ErrOver) {
		// Another node had begun it: it comes another way, and nothing failed.
		t.Status, t.Attempts, t.NextTry = statusQueued, t.Attempts-1, now.Add(time.Second)
		f.wakeWorkers()
		return
	}
	if errors.As(err, &quota) {
		t.Status, t.NextTry, t.Attempts = statusQueued, now.Add(f.recheck), t.Attempts-1
		t.Error, t.Hint = quota.explain(f.node.NodeName())
		return
	}
	if limited, ok := errors.AsType[*limitedError](err); ok {
		// What came stays; meanwhile another internet node may go on.
		t.Status, t.NextTry, t.Attempts, t.limited = statusQueued, limited.until, t.Attempts-1, true
		f.wakeWorkers()
		return
	}
	if problem, hint, full := f.foundFull(err); full {
		// Nobody's fault and no try: it goes on when there is space.
		t.Status, t.NextTry, t.Attempts = statusQueued, now.Add(f.recheck), t.Attempts-1
		t.Error, t.Hint = problem, hint
		return
	}
	t.Status, t.Finished = statusFailed, now
	t.Error, t.Hint = f.explain(err)
	if errors.Is(err, errForgotten) {
		f.end(t)
		return
	}
	wait := f.backoff(t.Attempts)
	if t.way == byPeers {
		wait = min(wait, lookAgain) // they are ours, and another way may be better by then
		t.futile++
	}
	var mismatch *microsoft.MismatchError
	var unsigned *microsoft.SignatureError
	var status *microsoft.StatusError
	switch {
	case errors.As(err, &mismatch), errors.As(err, &unsigned):
		t.Done = 0
		if t.wrong++; t.wrong >= wrongTries {
			t.Error = fmt.Sprintf("%d times in a row: %s", t.wrong, t.Error)
			wait = longestWait
		}
	case errors.As(err, &status):
		t.wrong, wait = 0, max(wait, min(status.After, longestWait))
	default:
		t.wrong = 0
	}
	t.NextTry = now.Add(wait)
}

// backoff is a minute after the first try and twice as long after each one
// more, up to six hours, a fifth more or less so that nodes do not call in
// step.
func backoff(try int) time.Duration {
	wait := min(time.Minute<<min(max(try-1, 0), 10), 6*time.Hour)
	return wait*4/5 + rand.N(wait*2/5)
}

// there says whether an update file lies in the folder already, because
// recording it did not work out; one that is right is held then.
func (f *folder) there(ctx context.Context, t *task) (bool, error) {
	if info, err := f.root.Lstat(t.File); t.Kind != kindUpdate || err != nil || !info.Mode().IsRegular() {
		return false, nil
	}
	if err := f.verifyFile(ctx, t.File); err != nil {
		return false, err
	}
	s := f.state(t.File)
	if s.State != Downloaded {
		return false, nil
	}
	f.mu.Lock()
	t.Size, t.Done = s.Size, s.Size
	f.mu.Unlock()
	return true, nil
}

// fetchFile downloads one update file.
func (f *folder) fetchFile(ctx context.Context, t *task) (status string, fetched int64, err error) {
	w, ok := f.node.cat.fileNamed(t.File)
	if !ok {
		return "", 0, errForgotten
	}
	l := f.share.holdLease(ctx, t.File)
	defer func() { l.release(err) }()
	f.share.takeUp(ctx, t, w.download())
	o := f.options(t)
	defer l.passOn(ctx, &o)()
	r, err := f.node.source.Load().Download(ctx, f.dir, w.download(), o)
	if err != nil {
		return "", r.Fetched, err
	}
	info, err := f.root.Lstat(t.File)
	if err != nil {
		return "", r.Fetched, err
	}
	f.mu.Lock()
	t.Size, t.Done = r.Size, r.Size
	f.mu.Unlock()
	rec := fileRecord{Size: r.Size, SHA1: fmt.Sprintf("%x", r.SHA1), SHA256: fmt.Sprintf("%x", r.SHA256), URL: w.URL}
	if other, known := f.share.record(t.File); known && (other.Completed.After(t.Started) || len(f.share.others(t.File)) > 0) {
		f.share.twice.Add(r.Fetched)
		f.log.InfoContext(ctx, "another node downloaded the file too", "file", t.File, "fetched", r.Fetched)
	}
	if rec, err = f.share.described(ctx, t.File, rec); err != nil {
		return "", r.Fetched, err
	}
	return statusDone, r.Fetched, f.hold(ctx, t.File, &heldFile{fileRecord: rec, holding: holding{Bytes: info.Size(), Modified: info.ModTime()}})
}

var errForgotten = errors.New("no update that is known names this file any more")

func (f *folder) options(t *task) microsoft.DownloadOptions {
	return microsoft.DownloadOptions{
		Floor:    int64(f.node.config().DiskFloor),
		Throttle: func(ctx context.Context, n int) error { return f.throttle(ctx, t, n) },
		Progress: func(done, total int64) {
			f.mu.Lock()
			t.progress(done, total, time.Now())
			f.mu.Unlock()
			f.node.watch.tell("downloads")
		},
	}
}

// throttle waits until the site's limits let n bytes more come from Microsoft.
func (f *folder) throttle(ctx context.Context, t *task, n int) error {
	limits := f.share.limits
	for {
		until := limits.Blocked(swarm.Source, swarm.Down, time.Now())
		if time.Until(until) > leaseTime {
			return &limitedError{until}
		}
		if !until.IsZero() {
			f.wait(t, "The site's limits let nothing come from Microsoft now.", until)
			defer f.wait(t, "", time.Time{})
		}
		look, cancel := context.WithTimeout(ctx, time.Second) // they may be changed meanwhile
		err := limits.Take(look, swarm.Source, swarm.Down, int64(n))
		cancel()
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

// A limitedError ends a download that the site's limits stop for so long that
// it would keep others from downloading the file.
type limitedError struct{ until time.Time }

func (e *limitedError) Error() string {
	return "the site's limits let nothing come from Microsoft before " + clock(e.until)
}

// wait says what a running download waits for, and until when.
func (f *folder) wait(t *task, why string, until time.Time) {
	f.mu.Lock()
	t.Waiting, t.NextTry = why, until
	f.mu.Unlock()
	f.node.watch.tell("downloads")
}

// explain says for people what went wrong with a download, and what to do.
func (f *folder) explain(err error) (msg, hint string) {
	var (
		status   *microsoft.StatusError
		mismatch *microsoft.MismatchError
		unsigned *microsoft.SignatureError
		refused  *microsoft.NotAllowedError
		dns      *net.DNSError
		op       *net.OpError
		path     *fs.PathError
	)
	switch {
	case errors.As(err, &status):
		hint = "It is usually over by the next try."
		if status.Code == http.StatusNotFound || status.Code == http.StatusGone {
			hint = "Microsoft may have withdrawn the file; newer updates replace it. Forbid the update if no host should wait for it."
		}
		return fmt.Sprintf("Microsoft answered %d %s.", status.Code, http.StatusText(status.Code)), hint
	case errors.As(err, &mismatch):
		return fmt.Sprintf("The file that arrived has %s %s, not %s, and was deleted.", mismatch.What, mismatch.Got, mismatch.Want),
			"A proxy that changes what passes through it, or a mirror that is out of date, is the usual cause."
	case errors.As(err, &unsigned):
		msg, hint = unsigned.Explain()
		if f.held[microsoft.ScanCabName] != nil {
			msg += " It was thrown away; the one of " + f.cab.Date().Format("2 January 2006") + " stays in service."
		}
		return msg, hint
	case errors.As(err, &refused):
		return upper(refused.Error()) + ".", "If you trust this source, add its host to sources in the configuration of this node."
	case errors.As(err, &dns):
		return fmt.Sprintf("%s cannot resolve %s.", f.node.NodeName(), dns.Name), "Look at the name servers of this machine, and at proxy in its configuration."
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "The proxy cannot be reached: " + lastOf(err) + ".", "Look at proxy in the configuration of this node."
	case errors.As(err, &op) && op.Op == "dial":
		return fmt.Sprintf("%s cannot be reached: %s.", op.Addr, lastOf(err)), "Look at the firewall between this node and Microsoft's update hosts, ports 80 and 443."
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "The connection broke before the file was whole.", "The next try goes on where this one ended."
	case errors.As(err, &path):
		return fmt.Sprintf("The folder cannot be written: %s: %s.", path.Path, path.Err), "Look at the disk and at who owns the folder."
	}
	return upper(lastOf(err)) + ".", ""
}

// lastOf is the innermost error's text.
func lastOf(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// online is nil when this node may ask Microsoft, or other nodes.
func (f *folder) online() error {
	if f.node.config().Internet || f.node.mesh.Load() != nil {
		return nil
	}
	return &Problem{
		Kind: Unavailable, Msg: f.node.NodeName() + " does not download from Microsoft: its configuration says internet = false.",
		Hint: "Ask on a node that may, or change it in wuamesh.toml.",
	}
}

// DownloadMissing is "Download index and missing cabs": the cab, then every
// file that hosts need and the folder lacks; it returns how many files were
// queued, those tried again at once included.
func (a *Appliance) DownloadMissing(ctx context.Context, by Actor) (int, error) {
	f := a.folder
	if err := cmp.Or(by.need(Operator), f.online()); err != nil {
		return 0, err
	}
	if _, err := f.order(ctx, []order{cabOrder(by.Name, true)}, nil); err != nil {
		return 0, err
	}
	n, err := f.lookForWanted(ctx, order{by: by.Name, now: true})
	if err != nil {
		return 0, err
	}
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		return a.audit(tx, by, "download index and missing files", "folder", "", fmt.Sprintf("%d files queued", n))
	})
	a.log.InfoContext(ctx, "missing files queued", "files", n, "by", by.Name)
	return n, err
}

// DownloadUpdates queues all files of the updates, also those no host may
// install; it returns how many files. Deltas stay out: they are fetched when
// a host asks for one.
func (a *Appliance) DownloadUpdates(ctx context.Context, by Actor, ids []rules.UpdateID) (int, error) {
	f := a.folder
	if err := cmp.Or(by.need(Operator), f.online()); err != nil {
		return 0, err
	}
	var list []order
	for _, id := range ids {
		orders, err := f.ordersOf(id, by.Name)
		if err != nil {
			return 0, err
		}
		list = append(list, orders...)
	}
	n, err := f.order(ctx, list, func(tx *replicate.Tx) error {
		for _, id := range ids {
			if err := a.audit(tx, by, "download", "update "+string(id), "", ""); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return n, err
	}
	a.log.InfoContext(ctx, "files of updates queued", "updates", len(ids), "files", n, "by", by.Name)
	return n, nil
}

// ordersOf asks for the files of an update that the folder lacks: those that
// hosts named in any revision they know, or, where no host did, all that the
// scan cab has.
func (f *folder) ordersOf(id rules.UpdateID, by string) ([]order, error) {
	c := f.node.cat
	c.mu.RLock()
	if s, stopped := c.stop(id); stopped {
		c.mu.RUnlock()
		return nil, &Problem{Kind: Conflict, Msg: fmt.Sprintf("The update is under an emergency stop by %s: %s", s.By, s.Reason), Hint: "Nothing of it is downloaded until an owner undoes the stop."}
	}
	var revisions []updateRecord
	if u := c.updates[id]; u != nil {
		revisions = slices.Collect(maps.Values(u.revisions))
	}
	c.mu.RUnlock()
	if len(revisions) == 0 {
		r, ok := c.published.record(revisionKey{id, -1})
		if !ok {
			return nil, notFound("There is no update %s.", id)
		}
		r.Files = c.published.files(id)
		revisions = append(revisions, r)
	}
	var list []order
	for _, r := range revisions {
		for _, file := range r.Files {
			if !file.Delta && file.URL != "" && f.state(file.Name).State != Downloaded {
				list = append(list, order{kind: kindUpdate, file: file.Name, title: r.Title, by: by, size: file.Size, forced: true, now: true})
			}
		}
	}
	return list, nil
}
