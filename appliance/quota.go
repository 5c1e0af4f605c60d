package appliance

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
)

// A quotaError is a folder that is full by its quota, with nothing in it that
// may go for the file that is wanted.
type quotaError struct{ quota, need int64 }

func (e *quotaError) Error() string {
	return fmt.Sprintf("the quota of %s has no room for %s", bytesText(e.quota), bytesText(e.need))
}

// explain is what people read about it.
func (e *quotaError) explain(node string) (problem, hint string) {
	return fmt.Sprintf("The folder of %s has reached its quota of %s, and this file needs %s.", node, bytesText(e.quota), bytesText(e.need)),
		"Every other file there is needed by as many hosts, or is one of the last copies in the mesh. It goes on by itself when there is room: raise quota, or lower copies."
}

// A worth is how much a file is needed: by hosts of this site, then by all.
type worth struct{ own, all int }

func (w worth) compare(v worth) int {
	return cmp.Or(cmp.Compare(w.own, v.own), cmp.Compare(w.all, v.all))
}

// need says whether some host needs a file and may install it, and how many
// wait for it.
func (c *catalogue) need(name, site string) (needed bool, w worth) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.counts(time.Now())
	if f := t.wanted[name]; f != nil {
		w = worth{f.sites[site], f.hosts}
	}
	return t.needed[name], w
}

// A leaver is a held file that may go.
type leaver struct {
	row    FileRow
	needed bool
	worth  worth
	used   time.Time
}

// leavers are the held files that may go when the quota asks for it, the least
// needed first. Of those that have a needed file, the first in rendezvous order
// keep it, as many as the configuration says, so that no two nodes trust in
// each other. For a file that a host waits for now, another node that can be
// reached and has it is enough.
func (f *folder) leavers(asked bool) []leaver {
	copies, living := f.node.config().Copies, f.share.living()
	stays := func(name string) bool {
		if asked {
			return !slices.ContainsFunc(f.share.others(name), func(id string) bool { return living[id] })
		}
		return len(f.share.keepers(name)) < copies
	}
	var list []leaver
	f.mu.RLock()
	for name, h := range f.held {
		used := time.Unix(max(h.asked.Load(), h.Completed.Unix()), 0)
		if name != microsoft.ScanCabName && h.Uploaded == "" && time.Since(used) >= graceByHand {
			list = append(list, leaver{row: rowOf(name, h), used: used})
		}
	}
	f.mu.RUnlock()
	site := f.share.site()
	list = slices.DeleteFunc(list, func(l leaver) bool {
		needed, _ := f.node.cat.need(l.row.Name, site)
		return needed && stays(l.row.Name)
	})
	for i := range list {
		list[i].needed, list[i].worth = f.node.cat.need(list[i].row.Name, site)
	}
	slices.SortFunc(list, func(x, y leaver) int {
		return cmp.Or(compareBool(x.needed, y.needed), x.worth.compare(y.worth), x.used.Compare(y.used), strings.Compare(x.row.Name, y.row.Name))
	})
	return list
}

// compareBool orders false before true.
func compareBool(x, y bool) int {
	switch {
	case x == y:
		return 0
	case y:
		return -1
	}
	return 1
}

func rowOf(name string, h *heldFile) FileRow {
	return FileRow{Name: name, URL: h.URL, Size: h.Bytes, SHA1: h.SHA1, SHA256: h.SHA256, State: Downloaded, DownloadedOn: h.Completed}
}

// keepers are the other nodes that have a file and come before this one in
// keeping it.
func (s *sharing) keepers(name string) (list []string) {
	file, living := hashOf(name), s.f.node.roster.living()
	own := mix(file ^ hashOf(s.f.node.db.NodeID()))
	for _, id := range s.others(name) {
		if _, ok := living[id]; ok && mix(file^hashOf(id)) > own {
			list = append(list, id)
		}
	}
	return list
}

// spare is which files go so that the folder is within its quota with need
// bytes more; ok is false when that cannot be. What goes is needed less than w;
// asked is a file that a host waits for now.
func (f *folder) spare(need int64, w worth, asked bool) (plan CleanPlan, ok bool) {
	cfg := f.node.config()
	plan.Files = []FileRow{}
	over := f.claimed() + need - int64(cfg.Quota)
	if cfg.Quota == 0 || over <= 0 {
		return plan, true
	}
	for _, l := range f.leavers(asked) {
		if plan.Bytes >= over || l.needed && !asked && need > 0 && l.worth.compare(w) >= 0 {
			break
		}
		l.row.Note = f.whySpared(l)
		plan.Files, plan.Bytes = append(plan.Files, l.row), plan.Bytes+l.row.Size
	}
	return plan, plan.Bytes >= over
}

func (f *folder) whySpared(l leaver) string {
	quota := fmt.Sprintf("The folder has a quota of %s. ", bytesText(int64(f.node.config().Quota)))
	if !l.needed {
		return quota + "No host needs this file and may install it."
	}
	var on []string
	for _, id := range f.share.others(l.row.Name) {
		on = append(on, f.share.nameOf(id))
	}
	return quota + upper(fmt.Sprintf("%s for this file, which is on %s too.", things(l.worth.all, "host waits", "hosts wait"), strings.Join(on, ", ")))
}

// claimed is what the folder holds and what is on its way into it.
func (f *folder) claimed() (n int64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, h := range f.held {
		n += h.Bytes
	}
	for name, t := range f.queue {
		if t.Status == statusRunning && t.settled && f.held[name] == nil {
			n += t.Size
		}
	}
	return n
}

// makeRoom deletes what a file of the queue goes before, where the folder has
// a quota.
func (f *folder) makeRoom(ctx context.Context, t *task) error {
	cfg := f.node.config()
	if cfg.Quota == 0 || t.Kind == kindScan {
		return nil
	}
	f.spacing.Lock() // one at a time: two must not count on the same room
	defer f.spacing.Unlock()
	f.mu.RLock()
	size, asked := t.Size, t.hosts >= askedFirst || t.forcedHere
	f.mu.RUnlock()
	_, w := f.node.cat.need(t.File, f.share.site())
	plan, ok := f.spare(size, w, asked)
	if !ok {
		return &quotaError{int64(cfg.Quota), size}
	}
	if err := f.giveUp(ctx, plan, Node, "make room", "for "+t.File); err != nil {
		return fmt.Errorf("make room for %s: %w", t.File, err)
	}
	f.mu.Lock()
	t.settled = true
	f.mu.Unlock()
	return nil
}

// giveUp deletes the files of a plan, and says in the log of each why.
func (f *folder) giveUp(ctx context.Context, plan CleanPlan, by Actor, what, why string) error {
	if len(plan.Files) == 0 {
		return nil
	}
	names := make([]string, len(plan.Files))
	for i, row := range plan.Files {
		names[i] = row.Name
	}
	err := f.remove(ctx, names, func(tx *replicate.Tx) error {
		return f.node.audit(tx, by, what, "folder", "", strings.TrimSpace(fmt.Sprintf("%s deleted, %s %s", things(len(plan.Files), "file", "files"), bytesText(plan.Bytes), why)))
	})
	if err != nil {
		return err
	}
	for _, row := range plan.Files {
		f.log.InfoContext(ctx, "file deleted", "file", row.Name, "bytes", row.Size, "why", row.Note)
	}
	return nil
}

// fitting says which of the files that hosts wait for a folder with a quota
// fetches by itself: the most needed ones, together with what it has.
func (f *folder) fitting(list []wantedFile) func(name string) bool {
	quota := int64(f.node.config().Quota)
	if quota == 0 {
		return func(string) bool { return true }
	}
	site := f.share.site()
	type item struct {
		name  string
		size  int64
		worth worth
	}
	var items []item
	f.mu.RLock()
	if h := f.held[microsoft.ScanCabName]; h != nil {
		quota -= h.Bytes
	}
	for _, w := range list {
		size := w.Size
		if h := f.held[w.Name]; h != nil {
			size = h.Bytes
		}
		items = append(items, item{w.Name, size, worth{w.sites[site], w.hosts}})
	}
	f.mu.RUnlock()
	slices.SortFunc(items, func(x, y item) int { return cmp.Or(y.worth.compare(x.worth), strings.Compare(x.name, y.name)) })
	fits := map[string]bool{}
	for _, i := range items {
		if i.size <= quota {
			fits[i.name] = true
			quota -= i.size
		}
	}
	return func(name string) bool { return fits[name] }
}
