package swarm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wuamesh/replicate/swarm"
)

// A mesh is some nodes on loopback.
type mesh struct {
	t     testing.TB
	mu    sync.Mutex
	nodes map[string]*node
	files map[string]*swarm.Manifest // by digest: what is right
}

func (m *mesh) node(id string) *node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nodes[id]
}

// A node is a real swarm over a real HTTP server and a directory of its own.
type node struct {
	*swarm.Swarm
	mesh   *mesh
	id     string
	site   string
	dir    string
	server *httptest.Server
	stop   func()
	served atomic.Int64 // pieces
	tamper func(http.Handler) http.Handler
	lied   chan string
	rotten chan swarm.Digest

	mu   sync.Mutex
	held map[swarm.Digest]string
	ms   map[swarm.Digest]*swarm.Manifest
}

func newMesh(t testing.TB) *mesh {
	return &mesh{t: t, nodes: map[string]*node{}, files: map[string]*swarm.Manifest{}}
}

func (m *mesh) add(id, site string, change ...func(*node, *swarm.Options)) *node {
	n := &node{mesh: m, id: id, site: site, dir: m.t.TempDir(), held: map[swarm.Digest]string{}, ms: map[swarm.Digest]*swarm.Manifest{}, lied: make(chan string, 1), rotten: make(chan swarm.Digest, 1)}
	n.start(change...)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodes[id] = n
	m.t.Cleanup(func() { n.stop() })
	return n
}

func (n *node) start(change ...func(*node, *swarm.Options)) {
	root, err := os.OpenRoot(n.dir)
	if err != nil {
		n.mesh.t.Fatal(err)
	}
	o := swarm.Options{
		Self: swarm.Peer{ID: n.id, Site: n.site}, Root: root, Log: slog.New(slog.DiscardHandler), Limits: swarm.NewLimits(),
		Peers: func() (list []swarm.Peer) {
			n.mesh.mu.Lock()
			defer n.mesh.mu.Unlock()
			for id, p := range n.mesh.nodes {
				if id != n.id {
					list = append(list, swarm.Peer{ID: id, Site: p.site})
				}
			}
			return list
		},
		Transport: func(id string) http.RoundTripper { return &dialer{n, id} },
		Caller: func(r *http.Request) (swarm.Peer, bool) {
			p := n.mesh.node(r.Header.Get("From-Node"))
			if p == nil {
				return swarm.Peer{}, false
			}
			return swarm.Peer{ID: p.id, Site: p.site}, true
		},
		Held: n.open, Has: func(d swarm.Digest) bool { n.mu.Lock(); defer n.mu.Unlock(); return n.held[d] != "" },
		Lied: func(peer string, _ swarm.Digest) {
			select {
			case n.lied <- peer:
			default:
			}
		},
		Rotten: func(d swarm.Digest) {
			select {
			case n.rotten <- d:
			default:
			}
		},
	}
	for _, c := range change {
		c(n, &o)
	}
	n.Swarm = swarm.New(o)
	h := n.Handler()
	count := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/swarm/v1/piece/") {
			n.served.Add(1)
		}
		n.mesh.inspect(w, r, h)
	}))
	if n.tamper != nil {
		count = n.tamper(count)
	}
	n.server = httptest.NewServer(count)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		n.server.CloseClientConnections()
		n.server.Close()
		<-done
		root.Close()
	})
}

// A dialer reaches a peer from a node.
type dialer struct {
	from *node
	to   string
}

func (d *dialer) RoundTrip(r *http.Request) (*http.Response, error) {
	p := d.from.mesh.node(d.to)
	if p == nil {
		return nil, errors.New("no such node")
	}
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = "http", p.server.Listener.Addr().String()
	r.Header.Set("From-Node", d.from.id)
	return p.server.Client().Transport.RoundTrip(r)
}

func (n *node) open(d swarm.Digest) (*os.File, *swarm.Manifest, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.held[d] == "" {
		return nil, nil, os.ErrNotExist
	}
	f, err := os.Open(filepath.Join(n.dir, n.held[d]))
	return f, n.ms[d], err
}

// inspect answers by h and fails the test when a piece leaves a node that is
// not what its digest says: whatever a test does to disks and lines, that must
// not be.
func (m *mesh) inspect(w http.ResponseWriter, r *http.Request, h http.Handler) {
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/swarm/v1/piece/"), "/")
	m.mu.Lock()
	mf := m.files[path[0]]
	m.mu.Unlock()
	if len(path) != 2 || mf == nil {
		h.ServeHTTP(w, r)
		return
	}
	i, _ := strconv.Atoi(path[1])
	l := &looker{ResponseWriter: w, sum: sha256.New()}
	h.ServeHTTP(l, r)
	if l.n == mf.Len(i) && [32]byte(l.sum.Sum(nil)) != mf.Pieces[i] {
		m.t.Errorf("a wrong piece %d was served", i)
	}
}

// A looker sees what is answered.
type looker struct {
	http.ResponseWriter
	sum hash.Hash
	n   int64
}

func (l *looker) Write(b []byte) (int, error) {
	l.sum.Write(b)
	l.n += int64(len(b))
	return l.ResponseWriter.Write(b)
}

// put gives a node a file of random bytes.
func (n *node) put(name string, size int, seed uint64) *swarm.Manifest {
	return n.place(name, content(size, seed))
}

// place gives a node a file.
func (n *node) place(name string, b []byte) *swarm.Manifest {
	m, err := swarm.Make(context.Background(), bytes.NewReader(b), int64(len(b)))
	if err == nil {
		err = os.WriteFile(filepath.Join(n.dir, name), b, 0o644)
	}
	if err != nil {
		n.mesh.t.Fatal(err)
	}
	n.hold(name, m)
	n.mesh.mu.Lock()
	n.mesh.files[m.SHA256.String()] = m
	n.mesh.mu.Unlock()
	return m
}

func content(size int, seed uint64) []byte {
	b := make([]byte, size)
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	rand.NewChaCha8(key).Read(b)
	return b
}

func (n *node) hold(name string, m *swarm.Manifest) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held[m.SHA256], n.ms[m.SHA256] = name, m
}

func (n *node) fetch(ctx context.Context, name string, m *swarm.Manifest) error {
	_, err := n.Fetch(ctx, m, swarm.FetchOptions{Name: name, Done: func(context.Context) error {
		n.accounts(m)
		n.hold(name, m)
		return nil
	}})
	return err
}

// accounts checks that all that came of a file is said to be from some peer.
func (n *node) accounts(m *swarm.Manifest) {
	v, ok := n.Transfer(m.SHA256)
	var sum int64
	for _, p := range v.Peers {
		sum += p.Bytes
	}
	if !ok || sum != v.Fetched {
		n.mesh.t.Errorf("%s got %d bytes of %s, and %d from peers", n.id, v.Fetched, v.Name, sum)
	}
}

func (n *node) check(name string, want []byte) {
	n.mesh.t.Helper()
	if got, err := os.ReadFile(filepath.Join(n.dir, name)); err != nil || !bytes.Equal(got, want) {
		n.mesh.t.Errorf("%s has a wrong %s: %d bytes, %v", n.id, name, len(got), err)
	}
	if list, _ := os.ReadDir(filepath.Join(n.dir, swarm.PartialDir)); len(list) > 0 {
		n.mesh.t.Errorf("%s left %v behind", n.id, list)
	}
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestFilesReachEveryNode(t *testing.T) {
	m := newMesh(t)
	origin := m.add("origin", "hq")
	var nodes []*node
	for i := range 4 {
		nodes = append(nodes, m.add(fmt.Sprint("node ", i), fmt.Sprint("site ", i/2)))
	}
	sizes := []int{0, 1, 100_000, 512 << 10, 512<<10 + 1, 5 << 20}
	var wg sync.WaitGroup
	for i, size := range sizes {
		name := fmt.Sprint("file ", i)
		mf := origin.put(name, size, uint64(i))
		for _, n := range nodes {
			wg.Go(func() {
				if err := n.fetch(within(t, time.Minute), name, mf); err != nil {
					t.Errorf("%s fetches %s: %v", n.id, name, err)
				}
			})
		}
	}
	wg.Wait()
	for i, size := range sizes {
		for _, n := range nodes {
			n.check(fmt.Sprint("file ", i), content(size, uint64(i)))
		}
	}
}

// TestALiarIsFoundOut has a node that has only a liar to ask find it out, say
// so, and take the file from an honest one that comes later.
func TestALiarIsFoundOut(t *testing.T) {
	m := newMesh(t)
	mf := m.add("liar", "b", func(n *node, _ *swarm.Options) {
		n.tamper = func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					w.Header().Set("Content-Length", fmt.Sprint(512<<10))
					w.Write(make([]byte, 512<<10))
					return
				}
				h.ServeHTTP(w, r)
			})
		}
	}).put("file", 6<<20, 1)
	n := m.add("node", "c")
	ctx := within(t, time.Minute)
	fetched := make(chan error, 1)
	go func() { fetched <- n.fetch(ctx, "file", mf) }()
	select {
	case who := <-n.lied:
		if who != "liar" {
			t.Errorf("%s was called a liar", who)
		}
	case <-ctx.Done():
		t.Fatal("nobody was told of the liar")
	}
	m.add("honest", "a").put("file", 6<<20, 1)
	if err := <-fetched; err != nil {
		t.Fatal(err)
	}
	n.check("file", content(6<<20, 1))
}

func TestALyingManifestIsThrownAway(t *testing.T) {
	m := newMesh(t)
	mf := *m.add("origin", "a").put("file", 3<<20, 1)
	mf.SHA256 = sha256.Sum256([]byte("another"))
	m.node("origin").hold("file", &mf)
	n := m.add("node", "b")
	if err := n.fetch(within(t, time.Minute), "file", &mf); !errors.Is(err, swarm.ErrWrong) {
		t.Errorf("err = %v", err)
	}
	if list, _ := os.ReadDir(n.dir); len(list) != 1 { // .partial
		t.Errorf("left behind: %v", list)
	}
	if _, err := swarm.Make(t.Context(), bytes.NewReader(nil), swarm.MaxSize+1); err == nil {
		t.Error("a manifest out of bounds was made")
	}
}

// TestReadersOfAnArrivingFile has many read one file that no node has yet:
// they cause one fetch and each gets all of it.
func TestReadersOfAnArrivingFile(t *testing.T) {
	m := newMesh(t)
	origin := m.add("origin", "a", func(_ *node, o *swarm.Options) {
		o.Limits.Set(swarm.WAN, swarm.Up, swarm.Plan{Rate: 20 << 20})
	})
	const size = 10 << 20
	mf := origin.put("file", size, 1)
	n := m.add("node", "b")
	fetched := make(chan error, 1)
	go func() { fetched <- n.fetch(within(t, time.Minute), "file", mf) }()
	var wg sync.WaitGroup
	want := content(size, 1)
	var during atomic.Int64
	for i := range 1000 {
		wg.Go(func() {
			var r *swarm.Reader
			var err error
			for r == nil {
				if r, err = n.Open(within(t, time.Minute), mf.SHA256); err != nil {
					if _, _, err := n.open(mf.SHA256); err == nil {
						return // it is whole already
					}
					time.Sleep(time.Millisecond)
				}
			}
			during.Add(1)
			defer r.Close()
			at := int64(i) * size / 1000
			if _, err := r.Seek(at, io.SeekStart); err != nil {
				t.Error(err)
			}
			got := make([]byte, 5000)
			k, err := io.ReadFull(r, got[:min(5000, size-at)])
			if err != nil || !bytes.Equal(got[:k], want[at:at+int64(k)]) {
				t.Errorf("reader at %d: %d bytes, %v", at, k, err)
			}
		})
	}
	wg.Wait()
	if err := <-fetched; err != nil {
		t.Fatal(err)
	}
	n.check("file", want)
	if during.Load() == 0 {
		t.Error("nobody read while it arrived")
	}
	if got, pieces := origin.served.Load(), int64(len(mf.Pieces)); got > pieces+2 {
		t.Errorf("%d requests for %d pieces", got, pieces)
	}
}

// TestASendersLimitIsSaid has the only node with a file let nothing out: who
// fetches it says so, and when it asks again.
func TestASendersLimitIsSaid(t *testing.T) {
	m := newMesh(t)
	shut := func(_ *node, o *swarm.Options) { o.Limits.Set(swarm.WAN, swarm.Up, swarm.Plan{Rate: swarm.Never}) }
	mf := m.add("origin", "a", shut).put("file", 1<<20, 1)
	one := m.add("one", "b")
	ctx, cancel := context.WithCancel(within(t, time.Minute))
	ended := make(chan error, 1)
	go func() { ended <- one.fetch(ctx, "file", mf) }()
	for ctx.Err() == nil {
		if v, ok := one.Transfer(mf.SHA256); ok && strings.Contains(v.Waiting, "let nothing out now") && time.Until(v.NextTime) > time.Minute {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if v, _ := one.Transfer(mf.SHA256); ctx.Err() != nil {
		t.Errorf("it waits for %q until %v", v.Waiting, v.NextTime)
	}
	cancel()
	<-ended
}

// TestAPeerDies has the only owner of half the pieces vanish in the middle.
func TestAPeerDies(t *testing.T) {
	m := newMesh(t)
	slow := func(_ *node, o *swarm.Options) { o.Limits.Set(swarm.WAN, swarm.Up, swarm.Plan{Rate: 16 << 20}) }
	mf := m.add("origin", "a", slow).put("file", 16<<20, 1)
	one, two := m.add("one", "b", slow), m.add("two", "c", slow)
	ctx := within(t, time.Minute)
	go two.fetch(ctx, "file", mf)
	fetched := make(chan error, 1)
	go func() { fetched <- one.fetch(ctx, "file", mf) }()
	for {
		if v, ok := two.Transfer(mf.SHA256); ok && v.Done > 2<<20 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	two.stop()
	if err := <-fetched; err != nil {
		t.Fatal(err)
	}
	one.check("file", content(16<<20, 1))
}
