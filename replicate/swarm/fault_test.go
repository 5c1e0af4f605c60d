package swarm_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wuamesh/replicate/swarm"
)

// TestARottenDiskSendsNothing has a node whose disk changed a file: it is told,
// sends nothing of what is wrong, and nobody is called a liar. What peers
// lack then comes from another node.
func TestARottenDiskSendsNothing(t *testing.T) {
	m := newMesh(t)
	rotten := m.add("rotten", "a")
	mf := rotten.put("file", 4<<20, 1)
	rot(t, filepath.Join(rotten.dir, "file"), 0, 1<<20, 3<<20)
	n := m.add("node", "b")
	ctx := within(t, time.Minute)
	fetched := make(chan error, 1)
	go func() { fetched <- n.fetch(ctx, "file", mf) }()
	select {
	case d := <-rotten.rotten:
		if d != mf.SHA256 {
			t.Errorf("%s is said to be rotten", d)
		}
	case <-ctx.Done():
		t.Fatal("nobody was told of the rotten file")
	}
	m.add("good", "a").put("file", 4<<20, 1)
	if err := <-fetched; err != nil {
		t.Fatal(err)
	}
	n.check("file", content(4<<20, 1))
	select {
	case who := <-n.lied:
		t.Errorf("%s was called a liar", who)
	default:
	}
}

// rot changes bytes of a file, as a disk does.
func rot(t *testing.T, path string, at ...int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range at {
		if _, err := f.WriteAt([]byte("rot"), off); err != nil {
			t.Fatal(err)
		}
	}
}

// onDisk gives a node a disk of its own, of so many bytes, in memory.
func onDisk(t *testing.T, bytes int) func(*node, *swarm.Options) {
	return func(n *node, o *swarm.Options) {
		n.dir = t.TempDir()
		if err := syscall.Mount("tmpfs", n.dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
			t.Skip("mounting a small disk needs root:", err)
		}
		t.Cleanup(func() { syscall.Unmount(n.dir, syscall.MNT_DETACH) })
		root, err := os.OpenRoot(n.dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { root.Close() })
		o.Root = root
	}
}

func free(t *testing.T, dir string) int64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// TestAFullDisk has no room for a file: nothing is taken, the fetch says what
// it needs, and the next one brings the file when there is room.
func TestAFullDisk(t *testing.T) {
	m := newMesh(t)
	mf := m.add("origin", "a").put("file", 6<<20, 1)
	n := m.add("node", "b", onDisk(t, 8<<20))
	junk := filepath.Join(n.dir, "junk")
	if err := os.WriteFile(junk, make([]byte, 4<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	before := free(t, n.dir)
	var full *swarm.FullError
	if err := n.fetch(within(t, time.Minute), "file", mf); !errors.As(err, &full) || full.Need != 6<<20 {
		t.Fatalf("err = %v", err)
	}
	if took := before - free(t, n.dir); took > 64<<10 {
		t.Errorf("%d bytes of the disk are gone", took)
	}
	os.Remove(junk)
	if err := n.fetch(within(t, time.Minute), "file", mf); err != nil {
		t.Fatal(err)
	}
	n.check("file", content(6<<20, 1))
}

// TestASizeThatLies has a manifest that claims more than any disk has, or than
// the node may take: nothing is reserved.
func TestASizeThatLies(t *testing.T) {
	m := newMesh(t)
	n := m.add("node", "b", func(_ *node, o *swarm.Options) { o.Room = func(bytes int64) bool { return bytes < 1<<30 } })
	lie := &swarm.Manifest{Size: swarm.MaxSize, PieceSize: swarm.MaxPiece, Pieces: make([][32]byte, swarm.MaxSize/swarm.MaxPiece)}
	before := free(t, n.dir)
	var full *swarm.FullError
	if err := n.fetch(within(t, time.Minute), "file", lie); !errors.As(err, &full) {
		t.Fatalf("err = %v", err)
	}
	if took := before - free(t, n.dir); took > 1<<30 {
		t.Errorf("%d bytes of the disk are gone", took)
	}
	for name, change := range map[string]func(*swarm.Manifest){
		"too large":      func(m *swarm.Manifest) { m.Size++ },
		"negative":       func(m *swarm.Manifest) { m.Size = -1 },
		"fewer pieces":   func(m *swarm.Manifest) { m.Pieces = m.Pieces[1:] },
		"larger pieces":  func(m *swarm.Manifest) { m.PieceSize *= 2 },
		"smaller pieces": func(m *swarm.Manifest) { m.PieceSize = 1 },
	} {
		c := *lie
		change(&c)
		if err := n.fetch(within(t, time.Minute), "file", &c); err == nil || errors.As(err, &full) {
			t.Errorf("%s: %v", name, err)
		}
		if c.Size >= 0 {
			if _, err := swarm.Decode(c.Encode()); err == nil {
				t.Errorf("%s is decoded", name)
			}
		}
	}
}

// TestTenThousandFiles brings as many small files as a folder has.
func TestTenThousandFiles(t *testing.T) {
	files := 10_000
	if testing.Short() || swarm.RaceEnabled {
		files = 500
	}
	m := newMesh(t)
	onMemory := onDisk(t, 256<<20) // a real one would sync for minutes
	origin, n := m.add("origin", "a", onMemory), m.add("node", "b", onMemory)
	ctx := within(t, 4*time.Minute)
	var wg sync.WaitGroup
	var bad atomic.Int64
	for i := range files {
		name := fmt.Sprint(i)
		mf := origin.put(name, 100+i, uint64(i))
		wg.Go(func() {
			if err := n.fetch(ctx, name, mf); err != nil {
				bad.Add(1)
				t.Logf("file %s: %v", name, err)
			}
		})
	}
	wg.Wait()
	if bad.Load() > 0 {
		t.Fatalf("%d of %d files did not come", bad.Load(), files)
	}
	for _, i := range []int{0, 1, files / 2, files - 1} {
		n.check(fmt.Sprint(i), content(100+i, uint64(i)))
	}
	if got := origin.served.Load(); got > int64(files)*11/10 {
		t.Errorf("%d requests for %d files", got, files)
	}
}

// TestKilledAtAnyPoint pulls the plug on a node again and again while it
// fetches: what its journal names is on the disk and right each time, nothing
// of it is fetched twice, and in the end the file is whole.
func TestKilledAtAnyPoint(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	const size = 24 << 20
	var asked pieceLog
	origin := newMesh(t).add("origin", "a", func(n *node, o *swarm.Options) {
		n.tamper = asked.watch
		o.Limits.Set(swarm.WAN, swarm.Up, swarm.Plan{Rate: 24 << 20})
		o.Caller = func(*http.Request) (swarm.Peer, bool) { return swarm.Peer{ID: "child"}, true }
	})
	want := make([]byte, size)
	if _, err := io.ReadFull(stream(size, 0), want); err != nil {
		t.Fatal(err)
	}
	mf := origin.place("file", want)
	dir := t.TempDir()
	spec := nodeSpec{Index: 1, Peers: []string{"origin", "child"}, Dir: dir, Files: 1, Size: size, Origin: origin.server.Listener.Addr().String()}
	starts, durable := 1, map[int]bool{}
	for ; ; starts++ {
		asked.begin(1 + rng.IntN(20))
		moment := time.Duration(rng.IntN(30)) * time.Millisecond
		ended := runChild(t, spec, func(ctx context.Context) {
			if starts > 8 {
				<-ctx.Done()
				return
			}
			asked.await(ctx)
			time.Sleep(moment)
		})
		for i := range asked.list() {
			if durable[i] {
				t.Errorf("start %d: piece %d was durable and is fetched again", starts, i)
			}
		}
		if ended {
			break
		}
		now := journalled(t, dir, mf, want)
		for i := range durable {
			if !now[i] {
				t.Errorf("start %d: piece %d was durable and is not", starts, i)
			}
		}
		durable = now
	}
	if got, err := os.ReadFile(filepath.Join(dir, "0")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file is wrong: %d bytes, %v", len(got), err)
	}
	t.Logf("%d starts, %d requests for %d pieces", starts, origin.served.Load(), len(mf.Pieces))
}

// runChild runs a node in a process of its own until it has its files, or
// until plug returns, when it is killed; it says which.
func runChild(t *testing.T, spec nodeSpec, plug func(context.Context)) (ended bool) {
	t.Helper()
	ctx, kill := context.WithCancel(within(t, time.Minute))
	defer kill()
	text, _ := json.Marshal(spec)
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^$")
	cmd.Env, cmd.Stderr = append(os.Environ(), "SWARM_NODE="+string(text)), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(out)
	said.ReadString('\n') // ready
	fmt.Fprintln(in, "go")
	go func() {
		plug(ctx)
		kill()
	}()
	line, _ := said.ReadString('\n')
	kill()
	cmd.Wait()
	return line == "done\n"
}

// A pieceLog remembers which pieces a node was asked for.
type pieceLog struct {
	mu    sync.Mutex
	seen  map[int]bool
	after int
	ready chan struct{}
}

func (l *pieceLog) begin(after int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen, l.after, l.ready = map[int]bool{}, after, make(chan struct{})
}

// await returns when so many pieces were asked for as begin said.
func (l *pieceLog) await(ctx context.Context) {
	l.mu.Lock()
	ready := l.ready
	l.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-ready:
	}
}

func (l *pieceLog) list() map[int]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.seen)
}

func (l *pieceLog) watch(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if i, err := strconv.Atoi(path.Base(r.URL.Path)); err == nil {
			l.mu.Lock()
			l.seen[i] = true
			if l.after--; l.after == 0 {
				close(l.ready)
			}
			l.mu.Unlock()
		}
		h.ServeHTTP(w, r)
	})
}

// journalled reads a journal as its format says, compares every piece that it
// names with what the file should be, and says which there are.
func journalled(t *testing.T, dir string, mf *swarm.Manifest, want []byte) map[int]bool {
	t.Helper()
	at := filepath.Join(dir, swarm.PartialDir, mf.SHA256.String())
	log, err := os.ReadFile(at + ".pieces")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	data, err2 := os.ReadFile(at)
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	all := map[int]bool{}
	for rest := log[min(40, len(log)):]; len(rest) >= 8; rest = rest[8:] {
		i := int(binary.BigEndian.Uint32(rest))
		from := int64(i) * mf.PieceSize
		if to := from + mf.Len(i); !bytes.Equal(data[from:to], want[from:to]) {
			t.Errorf("the journal names piece %d, which is not there", i)
		}
		all[i] = true
	}
	return all
}
