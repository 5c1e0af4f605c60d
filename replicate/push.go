package replicate

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

// passOn hands change sets that are new here to the peers. It is called while
// they are being committed and must not wait.
func (m *Mesh) passOn(sets []news) {
	sessions := m.control()
	if len(sessions) == 0 {
		return
	}
	for _, cs := range sets {
		f := pushFrame(cs)
		for _, s := range sessions {
			if s.peerFence == "" && !s.knows(cs.Writer, cs.End) {
				s.out.put(f)
				s.notePassed()
			}
		}
	}
}

// notePassed has the peer asked, in a moment, whether it has what was passed on.
func (s *session) notePassed() {
	s.mu.Lock()
	if s.unsure.IsZero() {
		s.unsure = time.Now()
	}
	s.mu.Unlock()
	select {
	case s.passed <- struct{}{}:
	default:
	}
}

func pushFrame(cs news) []byte {
	size := 0
	for _, c := range cs.Changes {
		size += len(c.Key) + len(c.Value) + 64
	}
	if size <= maxPush && !cs.partial {
		return frame(framePush, appendSet(nil, cs.ChangeSet))
	}
	return frame(frameHint, binary.AppendUvarint(appendText(nil, cs.Writer), cs.End))
}

// knows says whether the peer told us that it has the log up to n.
func (s *session) knows(writer string, n uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.has[writer] >= n
}

func (s *session) told(writer string, n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.has) > 10000 { // only saves sending twice
		clear(s.has)
	}
	s.has[writer] = max(s.has[writer], n)
}

func (s *session) takePush(body []byte) error {
	cs, err := decodeSet(body)
	if err != nil {
		return err
	}
	if err := cs.check(); err != nil {
		return fmt.Errorf("%w: %w", errGarbage, err)
	}
	if s.peerFence != "" {
		return nil
	}
	s.told(cs.Writer, cs.End)
	if !s.in.put(cs, len(body)) {
		s.wantSync()
	}
	return nil
}

func (s *session) takeHint(r *reader) error {
	writer, n := r.text(255), r.number()
	if r.bad {
		return fmt.Errorf("hint: %w", errGarbage)
	}
	s.told(writer, n)
	if s.peerFence == "" && s.m.db.Have(writer) < n {
		s.wantSync()
	}
	return nil
}

// An inbox holds pushed change sets until they are stored.
type inbox struct {
	mu    sync.Mutex
	ready chan struct{}
	list  []ChangeSet
	bytes int
}

func (i *inbox) put(cs ChangeSet, size int) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.bytes+size > maxIn {
		return false
	}
	i.list, i.bytes = append(i.list, cs), i.bytes+size
	select {
	case i.ready <- struct{}{}:
	default:
	}
	return true
}

func (i *inbox) take() []ChangeSet {
	i.mu.Lock()
	defer i.mu.Unlock()
	list := i.list
	i.list, i.bytes = nil, 0
	return list
}

// applySets stores what is pushed, much in one transaction.
func (s *session) applySets() {
	for {
		select {
		case <-s.ended:
			return
		case <-s.in.ready:
		}
		for _, group := range grouped(s.m.db.lacked(s.in.take())) {
			err := s.m.db.Apply(context.Background(), group...)
			if err != nil {
				s.m.log.Debug("pushed records not taken, asking for a sync", "peer", s.peer.Node, "err", err)
				s.wantSync()
				break
			}
		}
	}
}

// lacked leaves out sets that are here already.
func (db *DB) lacked(sets []ChangeSet) []ChangeSet {
	db.vectorMu.RLock()
	defer db.vectorMu.RUnlock()
	var kept []ChangeSet
	for _, cs := range sets {
		if cs.End > db.vector[cs.Writer] {
			kept = append(kept, cs)
		}
	}
	return kept
}

// grouped puts sets together that fit one transaction.
func grouped(sets []ChangeSet) [][]ChangeSet {
	const most, bytes = 500, 256 << 10
	var groups [][]ChangeSet
	n, size := most, 0
	for _, cs := range sets {
		w := 0
		for _, c := range cs.Changes {
			w += len(c.Value) + 2*len(c.Key) + 200
		}
		if n += 1 + len(cs.Changes); n > most || size+w > bytes {
			groups, n, size = append(groups, nil), 1+len(cs.Changes), 0
		}
		size += w
		groups[len(groups)-1] = append(groups[len(groups)-1], cs)
	}
	return groups
}
