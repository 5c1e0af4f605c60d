package swarm_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"wuamesh/replicate/swarm"
)

// A source downloads a file: bytes are appended as a test says.
type source struct {
	*node
	t     testing.TB
	file  *os.File
	offer *swarm.Offer
	done  int
}

func (n *node) downloads(t testing.TB, id swarm.Digest, size int) *source {
	t.Helper()
	os.MkdirAll(filepath.Join(n.dir, swarm.PartialDir), 0o755)
	path := filepath.Join(n.dir, swarm.PartialDir, "file")
	w, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	r, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	o, err := n.Offer(id, int64(size), r)
	if err != nil {
		t.Fatal(err)
	}
	s := &source{node: n, t: t, file: w, offer: o}
	t.Cleanup(func() { s.offer.Close(); s.file.Close() })
	return s
}

func (s *source) append(b []byte) {
	if _, err := s.file.Write(b); err != nil {
		s.t.Fatal(err)
	}
	s.done += len(b)
	if err := s.offer.Grow(int64(s.done)); err != nil {
		s.t.Error(err)
	}
}

// TestADraft has three branches take a file while its source downloads it,
// and make it theirs when its manifest is known: the source sends each piece
// about once, and nothing comes a second time.
func TestADraft(t *testing.T) {
	m := newMesh(t)
	const size = 24<<20 + 5
	want := content(size, 1)
	origin := m.add("origin", "hq")
	id := swarm.DraftID("file", size)
	src := origin.downloads(t, id, size)
	var branches []*node
	for _, name := range []string{"one", "two", "three"} {
		branches = append(branches, m.add(name, name))
	}
	ctx := within(t, time.Minute)
	var wg sync.WaitGroup
	for _, n := range branches {
		wg.Go(func() {
			got, err := n.FetchDraft(ctx, swarm.Draft{ID: id, Size: size, Source: "origin"}, "file", 0)
			if err != nil || got.Prefix != size || got.Fetched < size {
				t.Errorf("%s: %+v, %v", n.id, got, err)
			}
		})
	}
	for at := 0; at < size; at += 700_000 {
		src.append(want[at:min(at+700_000, size)])
		for _, n := range branches {
			n.awaitPeers(ctx, id, 3)
		}
		if at > size/2 && at < size/2+700_000 { // they have what is there before there is more
			for _, n := range branches {
				n.awaitDraft(ctx, id, int64(at+700_000)/swarm.MinPiece*swarm.MinPiece)
			}
		}
	}
	wg.Wait()
	pieces := int64(size/swarm.MinPiece + 1)
	if got := src.served.Load(); got > 3*pieces/2 {
		t.Errorf("the source answered %d times for %d pieces", got, pieces)
	}
	src.offer.Close()
	mf := origin.place("file", want)
	for _, n := range branches {
		fetched, err := n.Fetch(ctx, mf, swarm.FetchOptions{Name: "file", Parts: []string{swarm.DraftPath(id)}})
		if err != nil || fetched != 0 {
			t.Errorf("%s fetched %d bytes again, %v", n.id, fetched, err)
		}
		n.check("file", want)
	}
}

// awaitPeers waits until a node knows what so many others have.
func (n *node) awaitPeers(ctx context.Context, id swarm.Digest, peers int) {
	for ctx.Err() == nil {
		if v, ok := n.Transfer(id); !ok || len(v.Peers) == peers { // or it has all of it
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (n *node) awaitDraft(ctx context.Context, id swarm.Digest, bytes int64) {
	n.mesh.t.Helper()
	for {
		v, ok := n.Transfer(id)
		if ok && v.Done >= bytes {
			return
		}
		if ctx.Err() != nil {
			n.mesh.t.Fatalf("%s has %d bytes of the draft, want %d", n.id, v.Done, bytes)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestASourceIsLost has the source of a draft vanish: the branches share out
// what it had passed on, say that it is over, and another source goes on with
// what they have.
func TestASourceIsLost(t *testing.T) {
	m := newMesh(t)
	const size, came = 16 << 20, 9 << 20
	want := content(size, 1)
	id := swarm.DraftID("file", size)
	first := m.add("first", "a")
	src := first.downloads(t, id, size)
	src.append(want[:came])
	one, two := m.add("one", "b"), m.add("two", "c")
	ctx := within(t, time.Minute)
	results := make(chan swarm.Drafted, 2)
	for _, n := range []*node{one, two} {
		go func() {
			got, err := n.FetchDraft(ctx, swarm.Draft{ID: id, Size: size, Source: "first"}, "file", 0)
			if !errors.Is(err, swarm.ErrOver) {
				t.Errorf("%s: %v", n.id, err)
			}
			results <- got
		}()
	}
	for one.served.Load()+two.served.Load() == 0 { // they pass on to each other
		time.Sleep(time.Millisecond)
	}
	m.mu.Lock()
	delete(m.nodes, "first")
	m.mu.Unlock()
	first.stop()
	var most int64
	for range 2 {
		most = max(most, (<-results).Prefix)
	}
	if most == 0 || most > came {
		t.Fatalf("%d bytes of %d are there", most, came)
	}
	// The second source has what the first one passed on, and then the rest.
	next := m.add("next", "d").downloads(t, id, size)
	next.append(want[:most])
	next.append(want[most:])
	got, err := two.FetchDraft(ctx, swarm.Draft{ID: id, Size: size, Source: "next"}, "file", 0)
	if err != nil || got.Prefix != size || got.Fetched > size-most+swarm.MinPiece*4 {
		t.Errorf("%+v, %v; %d bytes were there", got, err, most)
	}
}

// TestADraftThatLies has what a source says turn out wrong: no wrong piece
// becomes one of the file, nobody is called a liar for it, and what is right
// of it is not fetched again.
func TestADraftThatLies(t *testing.T) {
	m := newMesh(t)
	const size = 4 << 20
	want := content(size, 1)
	bad := append([]byte(nil), want...)
	bad[3<<20] ^= 1
	id := swarm.DraftID("file", size)
	liar := m.add("liar", "a")
	liar.downloads(t, id, size).append(bad)
	n := m.add("node", "b")
	ctx := within(t, time.Minute)
	if _, err := n.FetchDraft(ctx, swarm.Draft{ID: id, Size: size, Source: "liar"}, "file", 0); err != nil {
		t.Fatal(err)
	}
	mf := m.add("honest", "c").place("file", want)
	fetched, err := n.Fetch(ctx, mf, swarm.FetchOptions{Name: "file", Parts: []string{"none", swarm.DraftPath(id)}})
	if err != nil || fetched != swarm.MinPiece {
		t.Errorf("fetched %d bytes, %v; one piece was wrong", fetched, err)
	}
	n.check("file", want)
	select {
	case who := <-n.lied:
		t.Errorf("%s is called a liar", who)
	default:
	}
	for _, d := range []swarm.Draft{{ID: id, Size: -1, Source: "liar"}, {ID: id, Size: swarm.MaxSize + 1, Source: "liar"}} {
		if _, err := n.FetchDraft(ctx, d, "file", 0); err == nil {
			t.Errorf("a draft of %d bytes was begun", d.Size)
		}
	}
	if entries, _ := os.ReadDir(filepath.Join(n.dir, swarm.PartialDir)); len(entries) != 0 {
		t.Error(fmt.Sprint("left behind: ", entries))
	}
}
