package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"time"

	"github.com/dgraph-io/badger/v4"
)

const (
	// tombstoneAge is how long a deletion is remembered at least.
	tombstoneAge = 90 * 24 * time.Hour
	// absence is how long two nodes may be without word of each other and
	// still merge. After more, one of them takes a fresh copy of the other: it
	// may hold records whose deletion the other has already forgotten.
	absence = 60 * 24 * time.Hour
)

// Reviews yields changes that are kept aside because they are not in the store
// any more and may be on no other node: those of this node when it took a fresh
// copy after a long absence, and those of others that it dropped because their
// clocks were ahead. They are not merged by themselves: someone decides. One
// whose value came back is left out.
func (tx *Tx) Reviews() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for r, err := range tx.stored(reviewPrefix, "", reviewed) {
			if now, e := tx.Record(r.Key); err == nil && e == nil && bytes.Equal(now.Value, r.Value) {
				continue
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

func reviewed(key string, b []byte) (Record, error) {
	c, err := decodeChange(key, b)
	return c.Record, err
}

// Dismiss forgets a change that waited for a decision. To take it after all,
// Put its value in the same transaction.
func (tx *Tx) Dismiss(key string) error {
	if err := tx.writable(key); err != nil {
		return err
	}
	tx.dismissed = append(tx.dismissed, key)
	return nil
}

// acknowledge notes that another node has of our logs what its vector says.
func (db *DB) acknowledge(theirs map[string]uint64) {
	db.vectorMu.Lock()
	defer db.vectorMu.Unlock()
	for w, n := range theirs {
		if db.wrote(w) && n > db.acked[w] {
			db.acked[w] = n
		}
	}
}

// readFence reads whether a fresh copy is due.
func (db *DB) readFence(txn *badger.Txn) error {
	_, err := txn.Get([]byte(fenceKey))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil
	}
	db.fenced.Store(err == nil)
	return err
}

// fencedOf says which of two nodes has to take a fresh copy of the other;
// empty for none. Both sides work it out from the two hellos, alike.
func fencedOf(a, b hello) string {
	if a.Node > b.Node {
		a, b = b, a
	}
	switch {
	case a.Due && b.Due:
		return b.Node
	case a.Due:
		return a.Node
	case b.Due:
		return b.Node
	case a.Empty, b.Empty, !a.absent(b) && !b.absent(a):
		return ""
	case a.Time-b.Time > maxAhead.Milliseconds(), b.Time-a.Time > maxAhead.Milliseconds():
		return "" // one of the clocks is wrong, so nothing can be said
	case a.Fresh < b.Fresh:
		return a.Node
	}
	return b.Node
}

// absent says whether a had no word of b for too long.
func (a hello) absent(b hello) bool {
	return a.Contact > 0 && b.Time-a.Contact > absence.Milliseconds()
}

// endUnfenced ends connections that were begun before a fresh copy came due:
// their ends must agree again on who takes it.
func (m *Mesh) endUnfenced() {
	if !m.db.fenced.Load() {
		return
	}
	for _, s := range m.control() {
		if s.peerFence == "" {
			s.end(errFresh)
		}
	}
}

// takeCopy takes a fresh copy of the peer and ends the session; the next one
// is as any other.
func (s *session) takeCopy() {
	m := s.m
	defer s.end(errFresh)
	select {
	case m.copying <- struct{}{}:
		defer func() { <-m.copying }()
	case <-s.ended:
		return
	}
	if s.peerFence != m.id || s.over() || m.copied.After(s.born) {
		return
	}
	m.log.Warn("taking a fresh copy of a peer after a long absence", "peer", s.peer.Node)
	m.problems.add(m.id, copyProblem)
	if err := s.copyAll(); err != nil {
		m.log.Warn("fresh copy interrupted, trying again", "peer", s.peer.Node, "err", err)
		return
	}
	m.copied = time.Now()
	m.log.Info("fresh copy taken", "peer", s.peer.Node)
}

var copyProblem = fmt.Sprintf("This node was cut off for more than %d days, so it took a fresh copy of the records from a peer instead of merging. Changes made here that no other node had are kept for review.", absence/(24*time.Hour))

func (s *session) copyAll() error {
	ctx, cancel := s.whileUp()
	defer cancel()
	st, err := s.standing(ctx) // before: what it hears of meanwhile may not be in the copy
	if err != nil {
		return err
	}
	f, err := s.m.db.beginCopy(ctx)
	if err != nil {
		return err
	}
	s.m.endUnfenced()
	for more := true; more; {
		if more, err = s.request(ctx, f.given, f.take); err != nil {
			return err
		}
	}
	return s.m.finishCopy(ctx, f, s.peer.Node, s.m.db.now(), st)
}

// finishCopy ends a fresh copy: from then on this node has what the other had
// at that time, and is in contact with whom that one was.
func (m *Mesh) finishCopy(ctx context.Context, f *freshCopy, from string, at time.Time, st standing) error {
	if err := m.takeStanding(ctx, from, at, st); err != nil {
		return err
	}
	return f.finish(ctx, m.copiesNow())
}

// whileUp is a context that ends with the session.
func (s *session) whileUp() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	s.m.running.Go(func() { // counted already: the session runs
		select {
		case <-s.ended:
		case <-ctx.Done():
		}
		cancel()
	})
	return ctx, cancel
}

// over says whether the session has ended.
func (s *session) over() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// serveVector tells a peer the vector of all that is here beyond doubt.
func (m *Mesh) serveVector(w http.ResponseWriter, r *http.Request) {
	w.Write(pack(appendVector(nil, m.db.sure())))
}
