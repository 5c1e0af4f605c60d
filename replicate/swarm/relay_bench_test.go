package swarm_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wuamesh/replicate/swarm"
)

var rate = flag.Float64("mbit", 40, "rate of the benchmark's lines, Mbit/s")

// A work is what the branches fetch.
type work struct {
	name  string
	files int
	size  int
}

func (w work) total() float64 { return float64(w.files) * float64(w.size) }

// BenchmarkRelay has four branches fetch from one origin over shaped lines, by
// the swarm and by what one would use instead, and prints each as multiples of
// the physical bound. Run it with -benchtime=1x on a quiet machine, as root.
func BenchmarkRelay(b *testing.B) {
	line := linespec{up: *rate, down: *rate, delay: 10 * time.Millisecond}
	thin := linespec{up: *rate / 5, down: *rate, delay: line.delay}
	lossy := linespec{up: *rate / 2, down: *rate / 2, delay: 30 * time.Millisecond, loss: 0.005}
	big, many := work{"256 MiB", 1, 256 << 20}, work{"60 x 4 MiB", 60, 4 << 20}
	streams := rival{"streams", streamsRun}
	others := []rival{{"rsync", rsyncRun}, {"syncthing", syncthingRun}, streams}
	for _, tt := range []struct {
		name           string
		work           work
		origin, branch linespec
		hub            bool
		others         []rival
		during         func(r *relay, ps []*process, bound time.Duration)
	}{
		{name: "symmetric", work: big, origin: line, branch: line, others: others},
		{name: "symmetric", work: many, origin: line, branch: line, others: others},
		{name: "two nodes killed and a line cut", work: big, origin: line, branch: line, during: misfortune, others: []rival{streams}},
		{name: "asymmetric", work: big, origin: line, branch: thin, others: others},
		{name: "hub and spoke", work: work{"64 MiB", 1, 64 << 20}, origin: line, branch: line, hub: true, others: others},
		{name: "lossy", work: work{"64 MiB", 1, 64 << 20}, origin: lossy, branch: lossy, others: []rival{streams}},
	} {
		b.Run(tt.name+" "+tt.work.name, func(b *testing.B) {
			n := 4.0
			S := tt.work.total() * 8 / 1e6 // Mbit
			bound := max(S/tt.origin.up, S/tt.branch.down, n*S/(tt.origin.up+n*tt.branch.up))
			if tt.hub {
				bound = n * S / tt.origin.up
			}
			whole := bound // without a cut
			if tt.during != nil {
				bound += bound / 10 // no branch has its file sooner than its own line carries it, and that is cut for so long
			}
			lines := func() *relay {
				r := newRelay(b, tt.origin, tt.branch, tt.branch, tt.branch, tt.branch)
				r.hub = tt.hub
				return r
			}
			for b.Loop() {
				r := lines()
				traced := r.trace(b, tt.name)
				took, sent, peak := swarmRun(b, r, tt.work, func(ps []*process) {
					if tt.during != nil {
						tt.during(r, ps, time.Duration(whole*float64(time.Second)))
					}
				})
				traced()
				r.close()
				b.ReportMetric(took.Seconds()/bound, "xbound")
				b.ReportMetric(sent/tt.work.total(), "xsent")
				b.ReportMetric(float64(peak)/1024, "MB-peak")
				for _, o := range tt.others {
					if *rivals != "" && *rivals != o.name {
						continue
					}
					r := lines()
					took, sent := o.run(b, r, tt.work)
					r.close()
					b.ReportMetric(took.Seconds()/bound, o.name+"-xbound")
					b.ReportMetric(sent/tt.work.total(), o.name+"-xsent")
				}
			}
		})
	}
}

var rivals = flag.String("rivals", "", "compare with this one only: rsync, syncthing, streams, none")

var traceTo = flag.String("trace", "", "a file to append to what each of the benchmark's lines carried, in percent of its rate, four times a second")

// trace writes down what the lines carry until its result is called: a row per
// moment, and in it out and in of every place.
func (r *relay) trace(t testing.TB, name string) (stop func()) {
	if *traceTo == "" {
		return func() {}
	}
	f, err := os.OpenFile(*traceTo, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(f, name)
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		began, at := time.Now(), time.Now()
		ticks := time.NewTicker(250 * time.Millisecond)
		defer ticks.Stop()
		out, in := make([]int64, len(r.places)), make([]int64, len(r.places))
		for {
			select {
			case <-end:
				return
			case now := <-ticks.C:
				fmt.Fprintf(f, "%6.2f", now.Sub(began).Seconds())
				for i, p := range r.places {
					o, n := p.out.Load(), p.in.Load()
					share := func(bytes int64, rate float64) float64 { return 100 * float64(bytes) / rate / now.Sub(at).Seconds() }
					fmt.Fprintf(f, "  %3.0f %3.0f", share(o-out[i], p.up.rate), share(n-in[i], p.down.rate))
					out[i], in[i] = o, n
				}
				fmt.Fprintln(f)
				at = now
			}
		}
	}()
	return func() { close(end); <-ended; f.Close() }
}

// A rival is another way to bring files to branches.
type rival struct {
	name string
	run  func(t testing.TB, r *relay, w work) (took time.Duration, sent float64)
}

// misfortune kills two branches a third and half of the way, and cuts a
// third branch's line for a tenth.
func misfortune(r *relay, ps []*process, bound time.Duration) {
	time.Sleep(bound / 3)
	ps[4].kill()
	r.places[2].cut.Store(true)
	time.Sleep(bound / 10)
	r.places[2].cut.Store(false)
	time.Sleep(bound / 15)
	ps[3].kill()
}

// swarmRun starts a process per place and waits until the last that lives has
// it all; during runs meanwhile.
func swarmRun(t testing.TB, r *relay, w work, during func([]*process)) (took time.Duration, sent float64, peak int64) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	var ps []*process
	for i := range r.places {
		p := startProcess(ctx, t, r, i, filepath.Join(dir, strconv.Itoa(i)), w)
		defer p.stop()
		ps = append(ps, p)
	}
	for _, p := range ps {
		p.line() // ready
	}
	before := r.places[0].out.Load()
	began := time.Now()
	for _, p := range ps {
		fmt.Fprintln(p.in, "go")
	}
	ended := make(chan struct{})
	go func() { defer close(ended); during(ps) }()
	for _, p := range ps[1:] {
		p.line() // done, or killed
		if !p.killed.Load() {
			took = time.Since(began)
		}
	}
	<-ended
	sent = float64(r.places[0].out.Load() - before)
	for _, p := range ps {
		p.stop()
		peak = max(peak, p.cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
	}
	return took, sent, peak
}

// A process is this test's binary as a node in a namespace.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	stop func()

	killed atomic.Bool
}

func (p *process) kill() {
	p.killed.Store(true)
	p.cmd.Process.Kill()
}

func startProcess(ctx context.Context, t testing.TB, r *relay, i int, dir string, w work) *process {
	at := r.places[i]
	var peers []string
	for _, p := range r.places {
		peers = append(peers, p.addr)
	}
	if r.hub && i > 0 {
		peers = []string{peers[0], peers[i]}
		i = 1
	}
	spec, _ := json.Marshal(nodeSpec{Index: i, Peers: peers, Dir: dir, Files: w.files, Size: w.size})
	return startCommand(ctx, t, at, "SWARM_NODE="+string(spec))
}

// startCommand runs this test's binary at a place, which the environment tells
// what it is there.
func startCommand(ctx context.Context, t testing.TB, at *place, env string) *process {
	cmd := at.command(ctx, os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), env)
	cmd.Stderr = os.Stderr
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
	p := &process{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	p.stop = sync.OnceFunc(func() { in.Close(); cmd.Wait() })
	return p
}

func (p *process) line() string {
	s, err := p.out.ReadString('\n')
	if err != nil && !p.killed.Load() {
		p.t.Fatalf("a node ended: %v", err)
	}
	return strings.TrimSpace(s)
}

type nodeSpec struct {
	Index int
	Peers []string
	Dir   string
	Files int
	Size  int

	// Origin is the address of the one peer of a node that listens nowhere.
	Origin string
}

func TestMain(m *testing.M) {
	if spec := os.Getenv("SWARM_STREAMS"); spec != "" {
		if err := runStreams(spec); err != nil {
			fmt.Fprintln(os.Stderr, "streams:", err)
			os.Exit(1)
		}
		return
	}
	if spec := os.Getenv("SWARM_NODE"); spec != "" {
		if err := runNode(spec); err != nil {
			fmt.Fprintln(os.Stderr, "node:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// runNode is a node of its own: plain HTTP where the product has its mesh's
// connections, everything else as it is. It goes on until stdin ends.
func runNode(text string) error {
	var spec nodeSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	if err := os.MkdirAll(spec.Dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(spec.Dir)
	if err != nil {
		return err
	}
	me := spec.Peers[spec.Index]
	var mu sync.Mutex
	held := map[swarm.Digest]string{}
	byDigest := map[swarm.Digest]*swarm.Manifest{}
	list, err := manifests(spec)
	if err != nil {
		return err
	}
	hold := func(i int) { mu.Lock(); held[list[i].SHA256] = strconv.Itoa(i); mu.Unlock() }
	for i, m := range list {
		byDigest[m.SHA256] = m
		if spec.Index == 0 {
			if err := writeFile(filepath.Join(spec.Dir, strconv.Itoa(i)), spec.Size, i); err != nil {
				return err
			}
			hold(i)
		}
	}
	dial := &net.Dialer{Control: swarm.Congestion, Timeout: 10 * time.Second}
	transport := &http.Transport{MaxIdleConnsPerHost: 8, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial.DialContext(ctx, network, addr)
		if err == nil {
			swarm.KeepTrying(c)
		}
		return c, err
	}}
	s := swarm.New(swarm.Options{
		Self: swarm.Peer{ID: me}, Root: root, Log: slog.New(slog.DiscardHandler),
		Peers: func() (l []swarm.Peer) {
			for _, id := range spec.Peers {
				if id != me {
					l = append(l, swarm.Peer{ID: id})
				}
			}
			return l
		},
		Transport: func(id string) http.RoundTripper { return plain{transport, cmp.Or(spec.Origin, id+":8000")} },
		Caller: func(r *http.Request) (swarm.Peer, bool) {
			host, _, _ := net.SplitHostPort(r.RemoteAddr)
			return swarm.Peer{ID: host}, true
		},
		Has: func(d swarm.Digest) bool { mu.Lock(); defer mu.Unlock(); return held[d] != "" },
		Held: func(d swarm.Digest) (*os.File, *swarm.Manifest, error) {
			mu.Lock()
			name := held[d]
			mu.Unlock()
			if name == "" {
				return nil, nil, os.ErrNotExist
			}
			f, err := root.Open(name)
			return f, byDigest[d], err
		},
	})
	if spec.Origin == "" {
		lc := net.ListenConfig{Control: swarm.Congestion}
		l, err := lc.Listen(context.Background(), "tcp", me+":8000")
		if err != nil {
			return err
		}
		server := &http.Server{Handler: s.Handler(), ConnContext: func(ctx context.Context, c net.Conn) context.Context { swarm.KeepTrying(c); return ctx }}
		go server.Serve(l)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go s.Run(ctx)
	in := bufio.NewReader(os.Stdin)
	fmt.Println("ready")
	if _, err := in.ReadString('\n'); err != nil {
		return nil
	}
	if spec.Index > 0 {
		var wg sync.WaitGroup
		var failed atomic.Pointer[error]
		for i, m := range list {
			wg.Go(func() {
				if _, err := s.Fetch(ctx, m, swarm.FetchOptions{Name: strconv.Itoa(i), Done: func(context.Context) error { hold(i); return nil }}); err != nil {
					failed.Store(&err)
				}
			})
		}
		wg.Wait()
		if err := failed.Load(); err != nil {
			return *err
		}
		fmt.Println("done")
	}
	io.Copy(io.Discard, in)
	return nil
}

// plain reaches a peer over plain HTTP.
type plain struct {
	*http.Transport
	addr string
}

func (p plain) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = "http", p.addr
	return p.Transport.RoundTrip(r)
}

// stream is the content of file i without holding it in memory.
func stream(size, i int) io.Reader {
	return io.LimitReader(&chacha{seed: uint64(i)}, int64(size))
}

type chacha struct {
	seed uint64
	n    uint64
	rest []byte
}

func (c *chacha) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		c.n++
		c.rest = content(64<<10, c.seed<<32|c.n)
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func writeFile(path string, size, i int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, stream(size, i))
	return err
}

func manifests(spec nodeSpec) (list []*swarm.Manifest, err error) {
	for i := range spec.Files {
		m, err := swarm.Make(context.Background(), stream(spec.Size, i), int64(spec.Size))
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// rsyncRun has each branch run rsync against a daemon at the origin.
func rsyncRun(t testing.TB, r *relay, w work) (took time.Duration, sent float64) {
	if _, err := exec.LookPath("rsync"); err != nil {
		t.Skip("needs rsync")
	}
	dir := t.TempDir()
	from := filepath.Join(dir, "origin")
	if err := os.Mkdir(from, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range w.files {
		if err := writeFile(filepath.Join(from, strconv.Itoa(i)), w.size, i); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(dir, "rsyncd.conf")
	os.WriteFile(conf, []byte("use chroot = no\nuid = root\nport = 8730\n[m]\npath = "+from+"\n"), 0o644)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	daemon := r.places[0].command(ctx, "rsync", "--daemon", "--no-detach", "--config="+conf)
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { daemon.Process.Signal(syscall.SIGTERM); daemon.Wait() }()
	time.Sleep(500 * time.Millisecond)
	before, began := r.places[0].out.Load(), time.Now()
	var wg sync.WaitGroup
	for i, p := range r.places[1:] {
		wg.Go(func() {
			if out, err := p.command(ctx, "rsync", "-a", "--whole-file", "rsync://10.77.0.1:8730/m/", filepath.Join(dir, strconv.Itoa(i))+"/").CombinedOutput(); err != nil {
				t.Errorf("rsync: %v: %s", err, out)
			}
		})
	}
	wg.Wait()
	return time.Since(began), float64(r.places[0].out.Load() - before)
}
