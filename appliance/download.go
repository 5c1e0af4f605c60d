package appliance

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
)

// How often the node looks by itself: Microsoft publishes monthly, hosts ask
// at any time.
const (
	cabEvery   = 24 * time.Hour
	filesEvery = 30 * time.Minute
	workers    = 2
)

// backoff is the wait before the next try: a minute, doubling to six hours.
func backoff(attempts int) time.Duration {
	d := min(time.Minute<<min(max(attempts-1, 0), 9), 6*time.Hour)
	return d*9/10 + mrand.N(d/5)
}

// lookSoon says that someone may want a file that is not here.
func (f *folder) lookSoon() {
	select {
	case f.news <- struct{}{}:
	default:
	}
}

// keepFiles looks for files that hosts need and the folder lacks: every 30
// minutes, and soon after news of hosts or rules.
func (a *Appliance) keepFiles(ctx context.Context) error {
	tick := time.NewTicker(filesEvery)
	defer tick.Stop()
	retry := time.NewTicker(30 * time.Second)
	defer retry.Stop()
	for {
		if _, err := a.folder.look(ctx, "schedule"); err != nil && ctx.Err() == nil {
			a.log.WarnContext(ctx, "missing files not queued, trying again later", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-retry.C: // for failed ones whose time has come
		case <-a.folder.news:
			select { // a burst of reports is one look
			case <-ctx.Done():
				return nil
			case <-time.After(500 * time.Millisecond):
			}
		}
	}
}

// look queues every file that a host waits for or an admin asked for.
func (f *folder) look(ctx context.Context, by string) (n int, err error) {
	if !f.a.cfg.Internet {
		return 0, nil
	}
	wanted := f.a.cat.wanted()
	f.mu.Lock()
	for _, file := range f.forced {
		wanted = append(wanted, wantedFile{File: file})
	}
	var fresh []*Task
	for _, w := range wanted {
		if t := f.queue(w, by); t != nil {
			fresh = append(fresh, t)
		}
	}
	f.mu.Unlock()
	if len(fresh) == 0 {
		return 0, nil
	}
	if err := f.save(ctx, fresh...); err != nil {
		return 0, err
	}
	f.a.cat.stale()
	f.poke()
	return len(fresh), nil
}

// queue puts a file into the queue and returns its task, nil when it is here,
// on its way, barred or waiting for its next try. The lock is held.
func (f *folder) queue(w wantedFile, by string) *Task {
	_, here := f.files[w.Name]
	_, barred := f.barred[w.Name]
	t := f.tasks[w.Name]
	switch {
	case here, barred, t != nil && t.Status != "failed", t != nil && time.Now().Before(t.NextTry):
		return nil
	case t == nil:
		if by == "schedule" && w.hosts > 0 {
			by = fmt.Sprintf("%d hosts", w.hosts)
		}
		t = &Task{ID: newTaskID(), Kind: "update", File: w.Name, Title: w.title, By: by, Size: w.Size, Queued: time.Now()}
		f.tasks[w.Name] = t
	}
	t.Status = "queued"
	f.order = append(f.order, w.Name)
	return t
}

// newTaskID rises with time, so that a scan of tasks is in their order.
func newTaskID() string { return fmt.Sprintf("%012x-%s", time.Now().UnixMilli(), rand.Text()[:6]) }

func (f *folder) poke() {
	f.a.watch.tell("downloads")
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// save writes tasks down; they are this node's alone.
func (f *folder) save(ctx context.Context, list ...*Task) error {
	f.mu.Lock()
	copies := make([]Task, len(list))
	for i, t := range list {
		copies[i] = *t
	}
	f.mu.Unlock()
	return f.a.db.Update(ctx, func(tx *replicate.Tx) error {
		for _, t := range copies {
			if err := tasks.put(tx, t.ID, t); err != nil {
				return err
			}
		}
		return nil
	})
}

// run downloads what is queued, two files at a time.
func (f *folder) run(ctx context.Context) error {
	var g errgroup.Group
	for range workers {
		g.Go(func() error {
			for {
				t, file := f.next()
				if t == nil {
					select {
					case <-ctx.Done():
						return nil
					case <-f.wake:
						continue
					}
				}
				f.poke() // for the other worker
				f.fetch(ctx, t, file)
				if ctx.Err() != nil {
					return nil
				}
			}
		})
	}
	return g.Wait()
}

// next takes the first queued file that is still wanted.
func (f *folder) next() (*Task, agentproto.File) {
	for {
		f.mu.Lock()
		if len(f.order) == 0 {
			f.mu.Unlock()
			return nil, agentproto.File{}
		}
		name := f.order[0]
		f.order = f.order[1:]
		t, forced := f.tasks[name], f.forced[name]
		f.mu.Unlock()
		file, ok := f.a.cat.file(name)
		if !ok {
			file = forced
		}
		if t != nil && file.URL != "" {
			f.mu.Lock()
			t.Status, t.Started, t.NextTry = "running", time.Now(), time.Time{}
			t.Attempts++
			f.mu.Unlock()
			return t, file
		}
		f.forget(name)
	}
}

// forget drops a task whose file nobody describes any more.
func (f *folder) forget(name string) {
	f.mu.Lock()
	t := f.tasks[name]
	delete(f.tasks, name)
	f.mu.Unlock()
	if t != nil {
		f.a.db.Update(context.Background(), func(tx *replicate.Tx) error { return tasks.del(tx, t.ID) })
	}
}

// file finds how a file is described.
func (c *catalogue) file(name string) (agentproto.File, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, u := range c.updates {
		for _, r := range u.revisions {
			for _, f := range r.Files {
				if f.Name == name {
					return f, true
				}
			}
		}
	}
	return agentproto.File{}, false
}

// fetch brings one file and writes down how it ended.
func (f *folder) fetch(ctx context.Context, t *Task, file agentproto.File) {
	if err := f.save(ctx, t); err != nil && ctx.Err() == nil {
		f.log.WarnContext(ctx, "task not written down", "file", file.Name, "err", err)
	}
	f.a.cat.stale()
	want := microsoft.File{Name: file.Name, URL: file.URL, Size: file.Size}
	want.SHA1, _ = hex.DecodeString(file.SHA1)
	want.SHA256, _ = hex.DecodeString(file.SHA256)
	if len(want.SHA1) == 0 {
		want.SHA1 = nil
	}
	if len(want.SHA256) == 0 {
		want.SHA256 = nil
	}
	r, err := f.a.source.Download(ctx, f.a.cfg.Folder, want, microsoft.DownloadOptions{Progress: f.progress(t), Floor: int64(f.a.cfg.DiskFloor)})
	f.fromUpstream.Add(r.Fetched)
	if err == nil {
		err = f.keep(ctx, file.Name, fileRecord{Size: r.Size, SHA1: hex.EncodeToString(r.SHA1[:]), SHA256: hex.EncodeToString(r.SHA256[:]), URL: file.URL})
	}
	if ctx.Err() != nil {
		return // the task stays "running" in the store and goes on at the next start
	}
	f.mu.Lock()
	t.Fetched += r.Fetched
	t.Rate = 0
	if err == nil {
		t.Status, t.Finished, t.Done, t.Size, t.Error, t.Hint = "done", time.Now(), r.Size, r.Size, "", ""
		delete(f.tasks, file.Name)
		delete(f.forced, file.Name)
	} else {
		t.Status, t.Finished, t.NextTry = "failed", time.Now(), time.Now().Add(backoff(t.Attempts))
		t.Error, t.Hint = f.a.explain(err)
		if _, full := errors.AsType[*microsoft.FullError](err); full {
			t.NextTry = time.Now().Add(time.Minute) // goes on by itself when space returns
			t.Attempts--
		}
	}
	f.mu.Unlock()
	if err != nil {
		f.log.WarnContext(ctx, "download failed, trying again later", "file", file.Name, "err", err, "at", t.NextTry)
	} else {
		f.log.InfoContext(ctx, "file downloaded", "file", file.Name, "bytes", r.Size)
	}
	if err := f.save(ctx, t); err != nil && ctx.Err() == nil {
		f.log.WarnContext(ctx, "task not written down", "file", file.Name, "err", err)
	}
	f.a.cat.stale()
	f.a.watch.tell("downloads")
	f.a.watch.tell("updates")
}

// progress keeps the task's figures, with a rate over the last reports.
func (f *folder) progress(t *Task) func(done, total int64) {
	last, at := int64(-1), time.Now()
	return func(done, total int64) {
		f.mu.Lock()
		t.Done = done
		if total > 0 {
			t.Size = total
		}
		if d := time.Since(at); last >= 0 && d > 0 {
			rate := int64(float64(done-last) / d.Seconds())
			t.Rate = (t.Rate*2 + rate) / 3
		}
		f.mu.Unlock()
		last, at = done, time.Now()
		f.a.watch.tell("downloads")
	}
}

// explain says in an admin's words what went wrong with a download, and what
// to do.
func (a *Appliance) explain(err error) (msg, hint string) {
	var status *microsoft.StatusError
	var mismatch *microsoft.MismatchError
	var full *microsoft.FullError
	var refused *microsoft.NotAllowedError
	var dns *net.DNSError
	switch {
	case errors.As(err, &status) && status.Code == http.StatusProxyAuthRequired:
		return "The proxy asks for another name or password (407).", "Check proxy in the node's configuration."
	case errors.As(err, &status):
		return fmt.Sprintf("Microsoft answered %d %s.", status.Code, http.StatusText(status.Code)), "It is tried again by itself; a 404 for days means the file was withdrawn."
	case errors.As(err, &mismatch):
		return fmt.Sprintf("The downloaded file does not match: its %s is not what Microsoft names. It was deleted.", mismatch.What), "It is fetched anew; if it stays, something between here and Microsoft changes downloads."
	case errors.As(err, &full):
		return fmt.Sprintf("%s has %s free and needs %s.", a.cfg.Name, bytesText(full.Free), bytesText(full.Need)), "Delete unused files, enlarge the disk, or lower disk_floor; it goes on by itself."
	case errors.As(err, &refused):
		return upper(refused.Error()) + ".", "Add the host to sources in the configuration if you trust it."
	case errors.As(err, &dns):
		return fmt.Sprintf("%s cannot resolve %s.", a.cfg.Name, dns.Name), "Check the node's DNS, or set a proxy."
	case strings.Contains(err.Error(), "proxyconnect"):
		return "The proxy cannot be reached: " + err.Error() + ".", "Check proxy in the node's configuration."
	default:
		return "The download was interrupted: " + err.Error() + ".", "It is resumed by itself."
	}
}

// Tasks lists downloads, running ones first, then queued, then the newest;
// status empty for all.
func (a *Appliance) Tasks(ctx context.Context, status string, p Page) (list []Task, next string, err error) {
	f := a.folder
	var all []Task
	err = a.db.View(ctx, func(tx *replicate.Tx) error {
		for r, err := range tasks.all(tx) {
			if err != nil {
				return err
			}
			all = append(all, r.value)
		}
		return nil
	})
	if err != nil {
		return nil, "", fmt.Errorf("list downloads: %w", err)
	}
	f.mu.Lock()
	for i, t := range all {
		if live := f.tasks[t.File]; live != nil && live.ID == t.ID {
			all[i] = *live
		}
	}
	f.mu.Unlock()
	if status != "" {
		all = slices.DeleteFunc(all, func(t Task) bool { return t.Status != status })
	}
	rank := map[string]int{"running": 0, "queued": 1, "failed": 2}
	order := func(t Task) int {
		if n, ok := rank[t.Status]; ok {
			return n
		}
		return 3
	}
	slices.SortFunc(all, func(x, y Task) int { return cmp.Or(order(x)-order(y), strings.Compare(y.ID, x.ID)) })
	list, next = page(all, p, func(t Task) string { return t.ID })
	return list, next, nil
}

// DownloadMissing is the seed's "Download index and missing cabs from
// Microsoft Web Site": the scan cab, then every file that hosts need and the
// folder lacks, also those whose next try is later. It returns how many files
// were queued.
func (a *Appliance) DownloadMissing(ctx context.Context, by Actor) (int, error) {
	if err := a.DownloadCab(ctx, by); err != nil {
		return 0, err
	}
	f := a.folder
	f.mu.Lock()
	for _, t := range f.tasks {
		t.NextTry = time.Time{}
	}
	f.mu.Unlock()
	return f.look(ctx, by.Name)
}

// DownloadUpdates queues all files of the updates, also those no host may
// install; it returns how many.
func (a *Appliance) DownloadUpdates(ctx context.Context, by Actor, ids []rules.UpdateID) (int, error) {
	if err := a.mayDownload(by); err != nil {
		return 0, err
	}
	var list []agentproto.File
	a.cat.mu.RLock()
	for _, id := range ids {
		if a.cat.updates[id] == nil {
			a.cat.mu.RUnlock()
			return 0, notFound("No host has described an update %.60s.", id)
		}
		list = append(list, a.cat.revision(id, -1).Files...)
	}
	a.cat.mu.RUnlock()
	f := a.folder
	f.mu.Lock()
	for _, file := range list {
		f.forced[file.Name] = file
		delete(f.barred, file.Name)
		if t := f.tasks[file.Name]; t != nil {
			t.NextTry = time.Time{}
		}
	}
	f.mu.Unlock()
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		for _, file := range list {
			if err := deleted.del(tx, file.Name); err != nil {
				return err
			}
		}
		return a.audit(tx, by, "download updates", fmt.Sprintf("%d updates", len(ids)), "", fmt.Sprintf("%d files", len(list)))
	})
	if err != nil {
		return 0, err
	}
	return f.look(ctx, by.Name)
}

func (a *Appliance) mayDownload(by Actor) error {
	if err := by.need(Operator); err != nil {
		return err
	}
	if !a.cfg.Internet {
		return &Problem{Kind: Conflict, Msg: a.cfg.Name + " may not download from Microsoft.", Hint: "Set internet = true in its configuration, or use a node that has a line."}
	}
	return nil
}
