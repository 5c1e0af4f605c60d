package appliance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
	"wuamesh/replicate/swarm"
)

// faultAge is how long a fault of a node's disk or memory is shown.
const faultAge = 7 * 24 * time.Hour

// A faultRecord is what one node found wrong with the bytes of another, or of
// its own disk, in the last days. Any node's pages show it: who looks is
// seldom at the node that found it.
type faultRecord struct {
	Count int       `json:"count"`
	File  string    `json:"file"` // the last one
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// fault records that a piece of a file, which came from a node or from the
// own disk, was wrong.
func (s *sharing) fault(ctx context.Context, of, file string) {
	key := s.f.node.db.NodeID() + "/" + of
	err := s.f.node.db.Update(ctx, func(tx *replicate.Tx) error {
		r, _, err := faults.find(tx, key)
		if err != nil {
			return err
		}
		if now := tx.Now(); now.Sub(r.Last) > faultAge {
			r = faultRecord{First: now}
		}
		r.Count, r.File, r.Last = r.Count+1, file, tx.Now()
		return faults.put(tx, key, r)
	})
	if err != nil && ctx.Err() == nil {
		s.f.log.WarnContext(ctx, "fault of a node not recorded", "node", s.nameOf(of), "file", file, "err", err)
	}
}

// lied is told by the swarm that a peer sent a wrong piece, which was thrown
// away.
func (s *sharing) lied(peer string, d swarm.Digest) {
	file := s.nameFor(d)
	s.f.log.Error("a node sent a piece that is wrong: its memory is failing, or it is not what it was", "node", s.nameOf(peer), "file", file, "digest", d)
	s.fault(context.Background(), peer, file)
}

// rotten is told by the swarm that a held file changed on the disk; it is read
// whole soon.
func (s *sharing) rotten(d swarm.Digest) {
	if name := s.heldAs(d); name != "" {
		s.suspect(name)
	}
}

// suspect has a held file read at once.
func (s *sharing) suspect(name string) {
	select {
	case s.rotting <- name:
	default: // the next who asks finds it
	}
}

// nameFor is what the file with that content is called in the mesh.
func (s *sharing) nameFor(d swarm.Digest) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	want := d.String()
	for name, r := range s.files {
		if r.SHA256 == want {
			return name
		}
	}
	return want
}

// A fault is a faultRecord as people read it.
type fault struct {
	of          string // node
	fact, cause string
	last        time.Time
}

// faultList is what is shown of faults, the newest first.
func (s *sharing) faultList(now time.Time) (list []fault) {
	s.mu.RLock()
	all := make(map[string]faultRecord, len(s.faults))
	for id, r := range s.faults {
		if now.Sub(r.Last) < faultAge {
			all[id] = r
		}
	}
	s.mu.RUnlock()
	for id, r := range all {
		by, of, _ := strings.Cut(id, "/")
		f := fault{of: of, last: r.Last}
		if by == of {
			f.fact = fmt.Sprintf("The disk of %s changed %s, the last on %s: %s.", s.nameOf(of), things(r.Count, "file", "files"), clock(r.Last), r.File)
			f.cause = "What it changed was not served and is fetched again. Look at the disk, and replace it if this goes on."
		} else {
			f.fact = fmt.Sprintf("%s sent %s %s, the last on %s, of %s.", s.nameOf(of), s.nameOf(by), things(r.Count, "wrong piece", "wrong pieces"), clock(r.Last), r.File)
			f.cause = "They were thrown away, and it was asked for nothing for half an hour each time. Its memory may be failing; if nothing is wrong with the machine, remove the node and look at who had access to it."
		}
		list = append(list, f)
	}
	slices.SortFunc(list, func(x, y fault) int {
		if c := y.last.Compare(x.last); c != 0 {
			return c
		}
		return strings.Compare(x.fact, y.fact)
	})
	return list
}

// forgetFaults drops this node's old records of faults.
func (s *sharing) forgetFaults(ctx context.Context) error {
	own := s.f.node.db.NodeID() + "/"
	var old []string
	s.mu.RLock()
	for id, r := range s.faults {
		if strings.HasPrefix(id, own) && time.Since(r.Last) > faultAge {
			old = append(old, id)
		}
	}
	s.mu.RUnlock()
	return s.f.inBatches(ctx, len(old), func(tx *replicate.Tx, i int) error { return faults.del(tx, old[i]) }, nil)
}

// scrubPeriod is how long the node takes to read its whole folder again.
const scrubPeriod = 7 * 24 * time.Hour

// A scrubRecord is how far the folder was read again: by name, the last file.
type scrubRecord struct {
	File string    `json:"file"`
	At   time.Time `json:"at"`
}

// scrub reads the folder again, a file now and then, so that all of it was
// read once a week, and at once what was found to be wrong: what rotted is
// deleted and fetched from peers.
func (s *sharing) scrub(ctx context.Context) error {
	for {
		pause := time.NewTimer(s.scrubDue(ctx, time.Now()))
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case name := <-s.rotting:
			s.scrubFile(ctx, name)
		case <-pause.C:
		}
		pause.Stop()
	}
}

// scrubDue reads the file whose turn it is, when its time has come, and says
// how long it is until the next one's. Whose turn it is outlives a restart: a
// node that is switched off every night reads all of its folder too.
func (s *sharing) scrubDue(ctx context.Context, now time.Time) time.Duration {
	s.f.mu.RLock()
	names := slices.Sorted(maps.Keys(s.f.held))
	s.f.mu.RUnlock()
	pause := scrubPeriod / time.Duration(len(names)+1)
	if wait := s.scrubbed.At.Add(pause).Sub(now); wait > 0 && wait <= pause { // a clock that was set back counts for nothing
		return wait
	}
	first := s.scrubbed.At.IsZero() // start of all: nothing is due yet
	s.scrubbed.At = now
	if !first && len(names) > 0 {
		next, found := slices.BinarySearch(names, s.scrubbed.File)
		if found {
			next++
		}
		s.scrubbed.File = names[next%len(names)]
		s.scrubFile(ctx, s.scrubbed.File)
	}
	err := s.f.node.db.Update(ctx, func(tx *replicate.Tx) error { return scrubs.put(tx, "folder", s.scrubbed) })
	if err != nil && ctx.Err() == nil {
		s.f.log.WarnContext(ctx, "how far the folder was read again is not recorded", "err", err)
	}
	return pause
}

// scrubFile compares one held file with its record.
func (s *sharing) scrubFile(ctx context.Context, name string) {
	file, h, err := s.f.open(name)
	if err != nil {
		return // deleted meanwhile, or in doubt already
	}
	got, err := digests(ctx, file)
	file.Close()
	if err != nil || got.SHA256 == h.SHA256 {
		return
	}
	s.f.log.ErrorContext(ctx, "file in the folder rotted on the disk; it is fetched again", "file", name, "digest", h.SHA256, "found", got.SHA256)
	s.f.mu.Lock()
	if s.f.held[name] == h {
		delete(s.f.held, name)
		s.f.doubts[name] = true
	}
	s.f.mu.Unlock()
	wake(s.f.doubt) // which deletes it and looks for what is wanted
	s.f.changed()
	s.fault(ctx, s.f.node.db.NodeID(), name)
	if name != microsoft.ScanCabName {
		_, err = s.f.order(ctx, []order{{kind: kindUpdate, file: name, by: bySchedule, size: h.Size, forced: true}}, nil)
	}
	if err = errors.Join(err, s.forgetFaults(ctx)); err != nil && ctx.Err() == nil {
		s.f.log.WarnContext(ctx, "rotten file not queued", "file", name, "err", err)
	}
}
