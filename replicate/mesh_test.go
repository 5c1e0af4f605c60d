package replicate

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// A simNode is a whole node on a simNet.
type simNode struct {
	db   *DB
	mesh *Mesh
	stop context.CancelFunc
	runs sync.WaitGroup
}

// A simMesh is some nodes on one network.
type simMesh struct {
	t     testing.TB
	net   *simNet
	nodes []*simNode
	log   *slog.Logger
	tune  func(i int, o *MeshOptions)
	wall  func(i int) func() time.Time
	meets func(string) bool
}

func (s *simMesh) known() []KnownPeer {
	var list []KnownPeer
	for i, n := range s.nodes {
		list = append(list, KnownPeer{NodeID: n.db.NodeID(), Name: fmt.Sprint("node", i), Site: fmt.Sprint("site", i%3), Addrs: []string{n.db.NodeID()}})
	}
	return list
}

func (s *simMesh) start(n int) {
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.wall == nil {
		s.wall = func(int) func() time.Time { return time.Now }
	}
	for i := range n {
		db, err := Open(Options{Dir: s.t.TempDir(), Log: s.log, small: true, Now: s.wall(i), Meets: s.meets})
		if err != nil {
			s.t.Fatal(err)
		}
		s.nodes = append(s.nodes, &simNode{db: db})
	}
	for i := range s.nodes {
		s.boot(i)
	}
}

// boot starts a node's part in the mesh.
func (s *simMesh) boot(i int) {
	n, known := s.nodes[i], s.known()
	id := n.db.NodeID()
	o := MeshOptions{
		DB: n.db, Dial: s.net.dial(id), Known: func() []KnownPeer { return known }, Label: "mesh", Keys: [][]byte{make([]byte, 32)},
		Self: func() Self {
			return Self{Name: fmt.Sprint("node", i), Site: fmt.Sprint("site", i%3), Version: "1.0", Addrs: []string{id}}
		},
		Log: s.log,
	}
	if s.tune != nil {
		s.tune(i, &o)
	}
	m, err := OpenMesh(o)
	if err != nil {
		s.t.Fatal(err)
	}
	n.mesh = m
	m.mangle = s.net.mangle
	s.net.mu.Lock()
	s.net.nodes[id] = m
	s.net.mu.Unlock()
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	n.runs.Go(func() { m.Run(ctx) })
	n.runs.Go(func() { n.db.Run(ctx) })
}

func (s *simMesh) close() {
	var all sync.WaitGroup
	for _, n := range s.nodes {
		all.Go(func() {
			n.stop()
			n.runs.Wait()
			n.mesh.Close()
		})
	}
	all.Wait()
	for _, n := range s.nodes {
		n.db.Close()
	}
}

// settle lets memberlist's probes that are under way end, in virtual time.
func (s *simMesh) settle() {
	s.close()
	time.Sleep(2 * time.Minute)
}

func (n *simNode) put(t testing.TB, key, value string) {
	t.Helper()
	if err := n.db.Update(context.Background(), func(tx *Tx) error { return tx.Put(key, []byte(value)) }); err != nil {
		t.Fatal(err)
	}
}

func (n *simNode) get(key string) string {
	var v []byte
	n.db.View(context.Background(), func(tx *Tx) error { v, _ = tx.Get(key); return nil })
	return string(v)
}

func TestTwoNodesPushAndSync(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &simMesh{t: t, net: newSimNet()}
		s.tune = func(i int, o *MeshOptions) {
			o.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(w, "node %d hears %s from %s", i, r.URL.Path, FromPeer(r.Context()).NodeID)
			})
		}
		s.net.delay = func(string, string) time.Duration { return 20 * time.Millisecond }
		s.start(2)
		defer s.settle()
		a, b := s.nodes[0], s.nodes[1]
		a.put(t, "k/before", "1")
		time.Sleep(5 * time.Second)
		if got := b.get("k/before"); got != "1" {
			t.Errorf("a record from before the connection: %q", got)
		}
		b.put(t, "k/pushed", "2")
		time.Sleep(100 * time.Millisecond)
		if got := a.get("k/pushed"); got != "2" {
			t.Errorf("a pushed record: %q", got)
		}
		for _, ctx := range []context.Context{t.Context(), Bulk(t.Context())} {
			for i, n := range s.nodes {
				to := s.nodes[1-i].db.NodeID()
				req, _ := http.NewRequestWithContext(ctx, "GET", "http://peer/hello", nil)
				res, err := n.mesh.Transport(to).RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if want := fmt.Sprintf("node %d hears /hello from %s", 1-i, n.db.NodeID()); string(body) != want {
					t.Errorf("%s, want %s", body, want)
				}
			}
		}
		time.Sleep(time.Minute)
		p := a.mesh.Peers()
		if len(p) != 1 || p[0].Reach != Direct || p[0].Name != "node1" || !p[0].Lacking.Known || p[0].Lacking.Records != 0 || p[0].RoundTrip < 40*time.Millisecond {
			t.Errorf("peers: %+v", p)
		}
		if alive, _ := a.mesh.gossip.seen(b.db.NodeID()); !alive {
			t.Error("gossip does not see the other node")
		}
		if strings.Contains(fmt.Sprint(p), "away") {
			t.Error(p)
		}
	})
}

// TestLagIsOfNow: what a page says a peer lacks is what was written lately, and
// it is in step a moment after it has that.
func TestLagIsOfNow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &simMesh{t: t, net: newSimNet()}
		s.start(2)
		defer s.settle()
		a := s.nodes[0]
		for i := range 100 {
			a.put(t, fmt.Sprint("k/old/", i), "1")
		}
		time.Sleep(time.Minute)
		a.put(t, "k/new", "2")
		if p := a.mesh.Peers()[0]; p.Unsent.Records > 1 || p.Unsent.For > time.Second {
			t.Errorf("after one record of 101 the other is said to lack %d for %s", p.Unsent.Records, p.Unsent.For)
		}
		time.Sleep(8 * time.Second)
		for _, n := range s.nodes {
			if p := n.mesh.Peers()[0]; !p.Unsent.Known || p.Unsent.Records != 0 || p.Lacking.Records != 0 {
				t.Errorf("eight seconds later they are not in step: %+v", p)
			}
		}
	})
}

// TestRacesOfAMesh has four nodes edit at once, in real time and for the race
// detector, while one of them is cut off; in the end all hold what each of them wrote.
func TestRacesOfAMesh(t *testing.T) {
	afterYamux(t)
	s := &simMesh{t: t, net: newSimNet()}
	s.start(4)
	defer s.close()
	const each = 50
	var edits sync.WaitGroup
	for i, n := range s.nodes {
		edits.Go(func() {
			for k := range each {
				n.put(t, fmt.Sprintf("k/%d/%d", i, k), "v")
				n.put(t, fmt.Sprintf("k/shared/%d", k%7), fmt.Sprint(i))
				n.mesh.Peers()
			}
		})
	}
	lost := s.nodes[3].db.NodeID()
	s.net.setCut(func(from, to string) bool { return from == lost || to == lost })
	edits.Wait()
	s.net.setCut(nil)
	whole := func(n *simNode) bool {
		for i := range s.nodes {
			for k := range each {
				if n.get(fmt.Sprintf("k/%d/%d", i, k)) != "v" {
					return false
				}
			}
		}
		return true
	}
	for i, n := range s.nodes {
		for deadline := time.Now().Add(2 * time.Minute); !whole(n); {
			if time.Now().After(deadline) {
				t.Fatalf("node %d does not hold what all wrote: %+v", i, n.mesh.Peers())
			}
			select {
			case <-n.mesh.Changed():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}
