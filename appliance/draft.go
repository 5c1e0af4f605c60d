package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate/swarm"
)

// draftLeast is the size in bytes from which peers may have a file while it
// is being downloaded from Microsoft; a smaller one is whole in a moment.
const draftLeast = 8 << 20

// draftLook is how often a fetch of such a file looks whether it is whole by
// now.
const draftLook = 250 * time.Millisecond

// A draftRecord is what the holder of a lease says of the file it downloads,
// so that peers may have what came so far, and go on where it ends.
type draftRecord struct {
	Size         int64  `json:"size"` // bytes
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"last_modified,omitempty"`
}

// A drafted is what this node has of a file that another one began to
// download.
type drafted struct {
	draftRecord
	prefix int64 // bytes from the beginning
}

// passOn lets peers have a file while it is downloaded, until end is called.
func (l *lease) passOn(ctx context.Context, o *microsoft.DownloadOptions) (end func()) {
	var offer *swarm.Offer
	end = func() {
		if offer != nil {
			offer.Close()
		}
		offer = nil
	}
	fail := func(err error) {
		l.s.f.log.WarnContext(ctx, "peers wait until the file is whole", "file", l.file, "err", err)
		end()
	}
	o.Began = func(name string, v microsoft.Version) {
		sw := l.s.swarm.Load()
		if sw == nil || l.stop == nil || v.Size < draftLeast {
			return
		}
		file, err := os.Open(name)
		if err == nil {
			offer, err = sw.Offer(swarm.DraftID(l.file, v.Size), v.Size, file)
		}
		if err == nil {
			l.draft.Store(&draftRecord{v.Size, v.ETag, v.LastModified})
			err = l.put(ctx)
		}
		if err != nil {
			fail(err)
		}
	}
	progress := o.Progress
	o.Progress = func(done, total int64) {
		progress(done, total)
		if offer == nil {
			return
		}
		if err := offer.Grow(done); err != nil {
			fail(err)
		}
	}
	return end
}

// errWhole ends the fetch of a draft: its manifest is known.
var errWhole = errors.New("the file is whole")

// fetchDraft fetches what the holder of a file's lease passes on of it, until
// the whole file is known to the mesh. It returns at once when it is already.
func (s *sharing) fetchDraft(ctx context.Context, sw *swarm.Swarm, t *task) (fetched int64, err error) {
	if _, known := s.record(t.File); known || t.Kind == kindScan {
		return 0, nil
	}
	s.mu.RLock()
	l := s.leases[t.File]
	s.mu.RUnlock()
	if l.Draft == nil || l.Draft.Size < draftLeast || l.Draft.Size > swarm.MaxSize {
		return 0, swarm.ErrOver
	}
	if w, ok := s.f.node.cat.fileNamed(t.File); ok && w.Size > 0 && w.Size != l.Draft.Size { // no room is made for what it is not
		return 0, &microsoft.MismatchError{Name: t.File, What: "size", Want: fmt.Sprint(w.Size), Got: fmt.Sprint(l.Draft.Size)}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go s.untilWhole(ctx, cancel, t, l.Node)
	d := swarm.Draft{ID: swarm.DraftID(t.File, l.Draft.Size), Size: l.Draft.Size, Source: l.Node}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.watchDraft(ctx, sw, t, d)
	}()
	s.f.mu.RLock()
	priority := t.urgency()
	s.f.mu.RUnlock()
	s.ownPart(ctx, t.File, d.ID)
	got, err := sw.FetchDraft(ctx, d, t.File, priority)
	if err == nil { // every piece is here: the source compares the whole with Microsoft's digest
		<-ctx.Done()
		err = context.Cause(ctx)
	} else if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	cancel(nil)
	<-watched
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	t.Waiting, t.drafted = "", &drafted{*l.Draft, got.Prefix}
	if errors.Is(err, errWhole) {
		err = nil
	}
	return got.Fetched, err
}

// ownPart makes what this node had downloaded itself, before another took
// over, a part of the draft: it is not fetched again.
func (s *sharing) ownPart(ctx context.Context, name string, id swarm.Digest) {
	if _, err := s.f.root.Lstat(swarm.DraftPath(id)); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	err := s.f.root.Rename(path.Join(swarm.PartialDir, name), swarm.DraftPath(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.f.log.WarnContext(ctx, "what was begun here is fetched again", "file", name, "err", err)
	}
}

// untilWhole ends a draft when the file is known, or its lease is another's.
func (s *sharing) untilWhole(ctx context.Context, cancel context.CancelCauseFunc, t *task, source string) {
	tick := time.NewTicker(draftLook)
	defer tick.Stop()
	for {
		s.mu.RLock()
		l, whole := s.leases[t.File], s.files[t.File].Root != ""
		s.mu.RUnlock()
		switch {
		case whole:
			cancel(errWhole)
		case l.Node != source || !l.holds(time.Now()):
			cancel(swarm.ErrOver)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// watchDraft shows how a draft goes on.
func (s *sharing) watchDraft(ctx context.Context, sw *swarm.Swarm, t *task, d swarm.Draft) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.f.mu.Lock()
		if v, ok := sw.Transfer(d.ID); ok {
			t.progress(v.Done, v.Size, time.Now())
			t.Rate = v.Rate
		}
		t.Waiting = s.nameOf(d.Source) + " downloads it from Microsoft and passes it on as it comes."
		s.f.mu.Unlock()
		s.f.node.watch.tell("downloads")
	}
}

// takeUp lets a download from Microsoft go on after what another node passed
// on before it was lost.
func (s *sharing) takeUp(ctx context.Context, t *task, f microsoft.File) {
	s.f.mu.RLock()
	d := t.drafted
	s.f.mu.RUnlock()
	if d == nil || d.prefix == 0 || f.Size > 0 && f.Size != d.Size {
		return
	}
	from := filepath.Join(s.f.dir, swarm.DraftPath(swarm.DraftID(t.File, d.Size)))
	err := microsoft.TakeUp(s.f.dir, f, from, d.prefix, microsoft.Version{Size: d.Size, ETag: d.ETag, LastModified: d.LastModified})
	if err != nil {
		s.f.log.WarnContext(ctx, "what another node had begun is downloaded again", "file", t.File, "err", err)
	}
	s.f.mu.Lock()
	t.drafted = nil
	s.f.mu.Unlock()
}

// partsOf are the files below the folder that may hold pieces of a file that
// is fetched: what a source passed on of it, and what this node downloaded of
// it before somebody else had it.
func partsOf(name string, size int64) []string {
	return []string{swarm.DraftPath(swarm.DraftID(name, size)), path.Join(swarm.PartialDir, name)}
}
