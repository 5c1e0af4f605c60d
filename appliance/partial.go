package appliance

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"time"

	"wuamesh/replicate/swarm"
)

// partialAge is how long what arrived of a file stays that no download goes on
// with: it may be asked for again.
const partialAge = 7 * 24 * time.Hour

// partialsOf are the files below the folder in which a file arrives: from
// Microsoft with a note, from peers with a journal, or as a draft while another
// node downloads it.
func (f *folder) partialsOf(name string) []string {
	at := path.Join(swarm.PartialDir, name)
	list := []string{at, at + ".json"}
	rec, _ := f.share.record(name)
	if d, err := swarm.ParseDigest(rec.SHA256); err == nil {
		list = append(list, swarm.PartialPaths(d)...)
	}
	w, _ := f.node.cat.fileNamed(name)
	f.mu.RLock()
	defer f.mu.RUnlock()
	sizes := []int64{rec.Size, w.Size}
	if t := f.queue[name]; t != nil {
		sizes = append(sizes, t.Size)
	}
	for _, size := range sizes {
		list = append(list, swarm.PartialPaths(swarm.DraftID(name, size))...)
	}
	return list
}

// removePartial deletes what arrived of a file.
func (f *folder) removePartial(name string) {
	for _, p := range f.partialsOf(name) {
		if err := f.root.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.log.Warn("partial file not deleted", "path", p, "err", err)
		}
	}
}

// cleanPartials deletes what arrived of files that nobody downloads any more
// and that was not written to for a week.
func (f *folder) cleanPartials(ctx context.Context) error {
	f.mu.RLock()
	var names []string
	for name := range f.queue {
		names = append(names, name)
	}
	f.mu.RUnlock()
	keep := map[string]bool{}
	for _, name := range names {
		for _, p := range f.partialsOf(name) {
			keep[p] = true
		}
	}
	list, err := fs.ReadDir(f.root.FS(), swarm.PartialDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range list {
		at := path.Join(swarm.PartialDir, e.Name())
		info, ierr := e.Info()
		if keep[at] || ierr != nil || time.Since(info.ModTime()) < partialAge {
			continue
		}
		if rerr := f.root.Remove(at); rerr != nil {
			err = errors.Join(err, rerr)
			continue
		}
		f.log.InfoContext(ctx, "what had arrived of a file is deleted", "path", at, "bytes", info.Size(), "why", "no download goes on with it, and nobody wrote to it for a week")
	}
	return err
}
