package replicate

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// partSent makes two nodes: the second had of the first the record k/1, which
// the first then deleted, wrote k/2 and wrote k/1 again; of these changes the
// second got k/2 alone, because the line broke. saved is a backup of the first
// between the deletion and what came after it.
func partSent(t *testing.T, s *simMesh) (saved []byte) {
	t.Helper()
	s.log = slog.New(slog.DiscardHandler)
	s.wall = func(int) func() time.Time { return time.Now }
	from, to := s.node(t, nil), s.node(t, nil)
	from.put(t, "k/1", "old")
	if err := to.db.Pull(t.Context(), from.db); err != nil {
		t.Fatal(err)
	}
	if err := from.db.Update(t.Context(), func(tx *Tx) error { return tx.Delete("k/1") }); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := from.db.kv.Backup(&b, 0); err != nil {
		t.Fatal(err)
	}
	from.put(t, "k/2", "new")
	from.put(t, "k/1", "new")
	err := pull(from.db, to.db.Vector(), func(p portion) error {
		if to.get("k/2") != "" {
			return errBroken
		}
		return to.db.merge(t.Context(), p)
	})
	if err != errBroken || to.get("k/1") != "old" || len(to.db.awaited()) != 1 {
		t.Fatalf("the line broke with %v; k/1 is %q there, and it waits for %v", err, to.get("k/1"), to.db.awaited())
	}
	return b.Bytes()
}

// node opens a store of the mesh, empty or on what it is given, and adds it.
func (s *simMesh) node(t *testing.T, kv *badger.DB) *simNode {
	t.Helper()
	if kv == nil {
		var err error
		if kv, err = badger.Open(badgerOptions(Options{small: true}, s.log)); err != nil {
			t.Fatal(err)
		}
	}
	db, err := openOn(kv, Options{Log: s.log, small: true, Now: s.wall(len(s.nodes))})
	if err != nil {
		t.Fatal(err)
	}
	s.nodes = append(s.nodes, &simNode{db: db})
	return s.nodes[len(s.nodes)-1]
}

// restored is what Badger holds after a backup was loaded into nothing.
func restored(t *testing.T, saved []byte) *badger.DB {
	t.Helper()
	kv, err := badger.Open(badgerOptions(Options{small: true}, slog.New(slog.DiscardHandler)))
	if err == nil {
		err = kv.Load(bytes.NewReader(saved), 16)
	}
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

// TestRestoredInMidSync puts a node back to a backup while another has a part
// of what it wrote since. What the part leaves out never comes. In the end
// both hold the deletion, which the part left out, and what came of the part.
func TestRestoredInMidSync(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &simMesh{t: t, net: newSimNet()}
		saved := partSent(t, s)
		s.nodes[0].db.Close()
		first := s.nodes[1]
		s.nodes = s.nodes[:0]
		s.node(t, restored(t, saved))
		s.nodes = append(s.nodes, first)
		for i := range s.nodes {
			s.boot(i)
		}
		defer s.settle()
		time.Sleep(lostAfter + 20*time.Minute)
		for i, n := range s.nodes {
			if n.get("k/1") != "" || n.get("k/2") != "new" || len(n.db.awaited()) > 0 {
				t.Errorf("node %d has k/1=%q and k/2=%q, and waits for %v", i, n.get("k/1"), n.get("k/2"), n.db.awaited())
			}
		}
		if got := s.nodes[1].mesh.Problems(); !slices.Contains(got, lostProblem) {
			t.Errorf("it does not say that records were lost, but %q", got)
		}
	})
}

// TestThePartIsGoneOnWith has a third node that has everything: what the part
// left out comes from there, at once and without a word of loss, also when the
// node that waits was started again meanwhile.
func TestThePartIsGoneOnWith(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &simMesh{t: t, net: newSimNet()}
		saved := partSent(t, s)
		third := s.node(t, nil)
		if err := third.db.Pull(t.Context(), s.nodes[0].db); err != nil {
			t.Fatal(err)
		}
		s.nodes[0].db.Close()
		waits := s.nodes[1].db
		close(waits.closing)
		<-waits.ended
		s.nodes = s.nodes[:0]
		s.node(t, restored(t, saved))
		if n := s.node(t, waits.kv); len(n.db.awaited()) != 1 {
			t.Fatal("started again, it does not know that it waits")
		}
		s.nodes = append(s.nodes, third)
		for i := range s.nodes {
			s.boot(i)
		}
		defer s.settle()
		time.Sleep(time.Minute)
		for i, n := range s.nodes {
			if n.get("k/1") != "new" || n.get("k/2") != "new" || len(n.db.awaited()) > 0 || len(n.db.pending) > 0 {
				t.Errorf("node %d has k/1=%q and k/2=%q, and waits for %v", i, n.get("k/1"), n.get("k/2"), n.db.awaited())
			}
		}
		time.Sleep(2 * lostAfter)
		if got := s.nodes[1].mesh.Problems(); slices.Contains(got, lostProblem) {
			t.Errorf("nothing was lost, and it says %q", got)
		}
	})
}

// TestWhoWaitsSaysSo has a third node take from one that has a part: it knows
// then that it has no more, and neither is taken for one that has everything
// when deletions are forgotten.
func TestWhoWaitsSaysSo(t *testing.T) {
	s := &simMesh{t: t}
	partSent(t, s)
	from, part, third := s.nodes[0].db, s.nodes[1].db, s.node(t, nil).db
	if err := third.Pull(context.Background(), part); err != nil {
		t.Fatal(err)
	}
	for name, db := range map[string]*DB{"with a part": part, "of that one": third} {
		if got, want := db.awaited()[from.writer], from.seq; got != want {
			t.Errorf("the store %s waits for %d, want %d", name, got, want)
		}
		if got := db.sure()[from.writer]; got > 1 {
			t.Errorf("the store %s is sure up to %d, and lacks the second change", name, got)
		}
	}
	if err := third.Pull(context.Background(), from); err != nil {
		t.Fatal(err)
	}
	if third.sure()[from.writer] != from.seq || len(third.awaited()) > 0 {
		t.Errorf("with everything here it is sure up to %d of %d and waits for %v", third.sure()[from.writer], from.seq, third.awaited())
	}
	for _, n := range s.nodes {
		n.db.Close()
	}
}
