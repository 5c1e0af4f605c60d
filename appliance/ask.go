package appliance

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
)

// An askRecord is a file that somebody asked for at a node which cannot
// download it from Microsoft: a node that can does the errand. It stands as
// long as the file is waited for, and ends by itself when the node that was
// asked is silent.
type askRecord struct {
	Node  string    `json:"node"` // where it was asked for
	By    string    `json:"by"`
	Hosts int       `json:"hosts,omitempty"` // that wait for it, see order
	At    time.Time `json:"at"`              // when it was last asked for
	Until time.Time `json:"until"`

	// What became of it so far, written by who does the errand.
	Answerer string    `json:"answerer,omitempty"` // node
	Answered time.Time `json:"answered,omitzero"`
	Trouble  string    `json:"trouble,omitempty"` // for people; empty when Microsoft has nothing newer
}

const (
	askTime  = time.Hour   // an ask nobody renews ends after it
	askAgain = time.Minute // who asks for the same file sooner is not told to the mesh once more
)

func (r askRecord) stands(now time.Time) bool {
	return r.Until.After(now) && r.Until.Before(now.Add(2*askTime))
}

// answered says whether somebody tried since it was last asked for.
func (r askRecord) answered() bool { return r.Answered.After(r.At) }

// ask is what the mesh was asked for that file.
func (s *sharing) ask(file string, now time.Time) (askRecord, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.asks[file]
	return r, ok && r.stands(now)
}

// keepAsks tells the mesh what is asked of this node and cannot come here by
// itself.
func (s *sharing) keepAsks(ctx context.Context) error {
	return everyOr(ctx, s.f.log, lookAgain, s.asking, s.writeAsks)
}

func (s *sharing) writeAsks(ctx context.Context) error {
	if s.f.node.mesh.Load() == nil {
		return nil
	}
	s.f.endAskedCab(ctx)
	put, done := s.unmet(s.turn(time.Now()))
	files := slices.Sorted(maps.Keys(put))
	return errors.Join(s.f.inBatches(ctx, len(files), func(tx *replicate.Tx, i int) error {
		r := put[files[i]]
		if r.At.IsZero() {
			r.At = tx.Now()
		}
		r.Until = tx.Now().Add(askTime)
		return asks.put(tx, files[i], r)
	}, nil), s.f.inBatches(ctx, len(done), func(tx *replicate.Tx, i int) error { return asks.del(tx, done[i]) }, nil))
}

// unmet are the asks to write, those without a time for being new, and to take
// back.
func (s *sharing) unmet(u *turn) (put map[string]askRecord, done []string) {
	put = map[string]askRecord{}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	for file, t := range s.f.queue {
		r, stands := s.ask(file, u.now)
		anew := t.asked.After(r.At.Add(askAgain))
		if !t.forced || t.Status == statusPaused || stands && !anew && (r.Node != u.self || r.Until.Sub(u.now) > askTime/2) {
			continue
		}
		if !stands { // one that stands does until the file is here
			if t.Status == statusRunning {
				continue
			}
			if by, _ := s.way(t, u); by != byWaiting && t.Status != statusFailed {
				continue
			}
		}
		r.Node, r.By, r.Hosts = u.self, t.By, t.hosts
		if anew {
			r.At = time.Time{}
		}
		put[file] = r
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for file, r := range s.asks {
		t := s.f.queue[file]
		over := r.Node == u.self && (t == nil || t.Status == statusPaused)
		if over || r.Until.Before(u.now.Add(-askTime)) {
			done = append(done, file)
		}
	}
	return put, done
}

// errands are what other nodes were asked for and this one may download from
// Microsoft. Which of those that may does is decided as for any file (way);
// the others leave it alone once one has it. A file that no update names has
// no address at Microsoft.
func (f *folder) errands(u *turn) (list []order) {
	for _, o := range f.share.errands(u) {
		if w, known := f.node.cat.fileNamed(o.file); known {
			o.title, o.size = w.title, w.Size
			list = append(list, o)
		}
	}
	return list
}

func (s *sharing) errands(u *turn) (list []order) {
	if !u.internet {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for file, r := range s.asks {
		reached, _ := s.at(shortName(file), u)
		if file == microsoft.ScanCabName || r.Node == u.self || !r.stands(u.now) || reached != "" {
			continue
		}
		list = append(list, order{
			kind: kindUpdate, file: file, by: r.By, hosts: min(max(r.Hosts, 0), askedFirst), errand: r.Node, asked: r.At,
			sites: map[string]int{s.folders[r.Node].Site: 1},
		})
	}
	return list
}

// answer tells who asked what became of a try at Microsoft. That an update
// file is here the mesh is told anyway.
func (s *sharing) answer(ctx context.Context, t Task) {
	if r, stands := s.ask(t.File, time.Now()); !stands || r.Node == s.f.node.db.NodeID() || t.Kind == kindUpdate && t.Status == statusDone {
		return
	}
	err := s.f.node.db.Update(ctx, func(tx *replicate.Tx) error {
		r, ok, err := asks.find(tx, t.File)
		if err != nil || !ok {
			return err
		}
		r.Answerer, r.Answered, r.Trouble = s.f.node.db.NodeID(), tx.Now(), t.Error
		return asks.put(tx, t.File, r)
	})
	if err != nil && ctx.Err() == nil {
		s.f.log.WarnContext(ctx, "who asked for the file was not told", "file", t.File, "err", err)
	}
}

// said is what came of asking others, as a sentence; empty for nothing yet.
func (s *sharing) said(file string, now time.Time) string {
	r, stands := s.ask(file, now)
	if !stands || !r.answered() {
		return ""
	}
	return s.nameOf(r.Answerer) + " tried at " + clock(r.Answered) + ": " + cmp.Or(r.Trouble, "Microsoft has no newer one.")
}

// cabAsked is when another node was asked for a newer scan cab, for which
// nobody has asked Microsoft since.
func (s *sharing) cabAsked(now time.Time) (at time.Time, by string, ok bool) {
	r, stands := s.ask(microsoft.ScanCabName, now)
	return r.At, r.By, stands && r.Node != s.f.node.db.NodeID() && !r.answered()
}

// endAskedCab ends the download of a scan cab when the one here is the newest:
// a node that may asked Microsoft, as it was asked to.
func (f *folder) endAskedCab(ctx context.Context) {
	r, stands := f.share.ask(microsoft.ScanCabName, time.Now())
	newer := f.newerInMesh()
	f.mu.Lock()
	t := f.cabTask()
	over := t != nil && t.Status == statusQueued && stands && r.Node == f.node.db.NodeID() && r.answered() && r.Trouble == "" &&
		!newer && f.held[microsoft.ScanCabName] != nil && !t.asked.After(r.At.Add(askAgain))
	if over {
		t.Status, t.Finished, t.Waiting, t.From = statusUnchanged, time.Now().UTC(), "", f.share.nameOf(r.Answerer)
		t.Size, t.Done = f.cab.Size, f.cab.Size
		f.end(t)
	}
	f.mu.Unlock()
	if over {
		f.save(ctx, t)
		f.log.InfoContext(ctx, "no newer scan cab", "asked by", f.share.nameOf(r.Answerer))
		f.node.watch.tell("cab")
	}
}
