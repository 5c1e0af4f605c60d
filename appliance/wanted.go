package appliance

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
)

// How often the node looks for files that hosts wait for: by itself, and how
// long after it was told that something changed.
const (
	lookPeriod = 30 * time.Minute
	lookDelay  = 2 * time.Second
)

// lookSoon makes the node look for wanted files within a few seconds. Anyone
// may call it, with any lock held.
func (f *folder) lookSoon() { wake(f.look) }

// follow sees every change of the store before its Update returns.
func (f *folder) follow(list []replicate.Record) {
	f.share.follow(list)
	for _, r := range list {
		switch kind, _, _ := strings.Cut(r.Key, "/"); kind {
		case "host", "status", "update", "package", "line", "assign", "group", "member", "term", "stop", "profile", "option", "grant", "ask":
			f.lookSoon()
			return
		}
	}
}

// keepFiles looks for files that hosts wait for every 30 minutes and soon
// after each change. It is a part of the node.
func (a *Appliance) keepFiles(ctx context.Context) error {
	f := a.folder
	period := time.NewTicker(lookPeriod)
	defer period.Stop()
	for {
		began := time.Now()
		if _, err := f.lookForWanted(ctx, order{by: bySchedule}); err != nil && ctx.Err() == nil {
			a.log.WarnContext(ctx, "looking for wanted files failed, trying again later", "err", err)
		}
		// On a big node that hears reports all the time, looking takes a
		// tenth of its time at most.
		wait := max(lookDelay, 10*time.Since(began))
		select {
		case <-ctx.Done():
			return nil
		case <-period.C:
			if err := f.rescan(ctx); err != nil && ctx.Err() == nil {
				a.log.WarnContext(ctx, "folder not read, trying again later", "err", err)
			}
		case <-f.look:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait):
			}
		}
	}
}

// lookForWanted queues every file that a host waits for and the folder lacks,
// and what another node was asked for in vain; it takes out of the queue what
// nobody waits for any more, and returns how many it queued. What an admin
// deleted stays away until somebody asks.
func (f *folder) lookForWanted(ctx context.Context, o order) (int, error) {
	if f.online() != nil {
		return 0, nil
	}
	list := f.node.cat.wanted()
	waited := make(map[string]bool, len(list))
	orders := make([]order, 0, len(list))
	u, fits := f.share.turn(time.Now()), f.fitting(list)
	errands := f.errands(u)
	f.mu.RLock()
	for _, w := range list {
		waited[w.Name] = true
		if _, mark := f.marks[w.Name]; mark || f.held[w.Name] != nil || f.doubts[w.Name] || !f.share.keeps(w, u) || !fits(w.Name) {
			continue
		}
		o.kind, o.file, o.title, o.size, o.hosts, o.sites = kindUpdate, w.Name, w.title, w.Size, w.hosts, w.sites
		orders = append(orders, o)
	}
	for _, e := range errands {
		waited[e.file] = true
		if mark, marked := f.marks[e.file]; f.held[e.file] == nil && !f.doubts[e.file] && !(marked && mark.After(e.asked)) {
			orders = append(orders, e)
		}
	}
	var idle []*task
	for name, t := range f.queue {
		if t.Kind == kindUpdate && t.Status != statusRunning && !t.forced && !waited[name] {
			idle = append(idle, t)
		}
	}
	f.mu.RUnlock()
	if err := f.dropTasks(ctx, idle); err != nil {
		return 0, err
	}
	return f.order(ctx, orders, nil)
}

// dropTasks takes tasks out of the queue for whose files nobody waits. What
// arrived of a file that no host needs at all is deleted.
func (f *folder) dropTasks(ctx context.Context, list []*task) error {
	if len(list) == 0 {
		return nil
	}
	var gone []Task
	f.mu.Lock()
	for _, t := range list {
		if t.Status != statusRunning { // it may have begun meanwhile
			delete(f.queue, t.File)
			gone = append(gone, t.Task)
		}
	}
	f.mu.Unlock()
	for _, t := range gone {
		if !f.node.cat.needs(t.File) {
			f.removePartial(t.File)
		}
		f.log.InfoContext(ctx, "download taken out of the queue, no host waits for it", "file", t.File)
	}
	defer f.changed()
	if err := f.dropRows(ctx, gone); err != nil {
		return fmt.Errorf("drop tasks that no host waits for: %w", err)
	}
	return nil
}

// askedAnew takes in a new scan report: it lifts the marks of files that an
// admin deleted and that the host needs.
func (f *folder) askedAnew(list []agentproto.Status) {
	f.mu.RLock()
	n := len(f.marks)
	f.mu.RUnlock()
	if n == 0 {
		return
	}
	c := f.node.cat
	var names []string
	c.mu.RLock()
	for _, s := range list {
		if s.Installed || s.OnHost {
			continue
		}
		for _, file := range c.revision(s.ID, s.Revision).Files {
			names = append(names, file.Name)
		}
	}
	c.mu.RUnlock()
	f.mu.Lock()
	names = slices.DeleteFunc(names, func(name string) bool { _, marked := f.marks[name]; return !marked })
	for _, name := range names {
		delete(f.marks, name)
	}
	f.mu.Unlock()
	f.liftMarks(names)
}

// liftMarks forgets in the store that files were deleted by hand. A mark that
// stays there by mishap only delays a fetch until the next time it is lifted.
func (f *folder) liftMarks(names []string) {
	if len(names) == 0 {
		return
	}
	err := f.inBatches(context.Background(), len(names), func(tx *replicate.Tx, i int) error { return deleted.del(tx, names[i]) }, nil)
	if err != nil {
		f.log.Warn("marks of deleted files not lifted in the store", "files", len(names), "err", err)
	}
	f.lookSoon()
}

// fileNamed is the file of that name as the scan cab describes it, else as
// hosts do: the description with most digests, of those the one of the smallest
// UpdateID, so that every node takes the same.
func (c *catalogue) fileNamed(name string) (best wantedFile, ok bool) {
	if w, ok := c.published.file(name); ok {
		return w, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byFile == nil {
		c.byFile = map[string]wantedFile{}
		for _, id := range slices.Sorted(maps.Keys(c.updates)) {
			revisions := c.updates[id].revisions
			for _, rev := range slices.Backward(slices.Sorted(maps.Keys(revisions))) {
				for _, file := range revisions[rev].Files {
					if w, ok := c.byFile[file.Name]; !ok || known(file) > known(w.File) {
						c.byFile[file.Name] = wantedFile{File: file, title: revisions[rev].Title}
					}
				}
			}
		}
	}
	best, ok = c.byFile[name]
	return best, ok
}

// known counts the digests of a file, SHA-256 for more than SHA-1.
func known(f agentproto.File) (n int) {
	if f.SHA256 != "" {
		n += 2
	}
	if f.SHA1 != "" {
		n++
	}
	return n
}

// download is the file as it is asked of Microsoft. Digests were validated
// when the host reported them; the name's own is taken where none is known.
func (w wantedFile) download() microsoft.File {
	file := microsoft.File{Name: w.Name, URL: w.URL, Size: w.Size}
	if b, err := hex.DecodeString(w.SHA1); err == nil && len(b) > 0 {
		file.SHA1 = b
	}
	if b, err := hex.DecodeString(w.SHA256); err == nil && len(b) > 0 {
		file.SHA256 = b
	}
	if _, sum, err := microsoft.NameFromURL(w.URL); err == nil && file.SHA1 == nil {
		file.SHA1 = sum
	}
	return file
}
