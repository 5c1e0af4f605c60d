package packaging_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// program builds what ships and returns where it is.
var program = sync.OnceValues(func() (string, error) {
	bin, err := filepath.Abs("out/wuamesh")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", bin, module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return bin, nil
})

// A process is the program as it ships, run as systemd or a person runs it
// and seen from outside.
type process struct {
	*exec.Cmd
	t      *testing.T
	bin    string
	dir    string
	url    string // of a node's pages
	folder string // likewise
	token  string // of its API, once one was made
	ended  chan struct{}

	mu   sync.Mutex
	said bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Write(b)
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// unprivileged runs the program as its service does: root, too, may read and
// write only what the rights of files say.
func unprivileged(ctx context.Context, bin string, args ...string) *exec.Cmd {
	if os.Getuid() != 0 {
		return exec.CommandContext(ctx, bin, args...)
	}
	return exec.CommandContext(ctx, "setpriv", append([]string{"--bounding-set=-dac_override,-dac_read_search", bin}, args...)...)
}

// start runs the program; dir is where it keeps what it keeps. It is killed
// at the end of the test.
func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	if testing.Short() {
		t.Skip("with -short; packaging/check runs it")
	}
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, dir: dir, Cmd: unprivileged(context.Background(), bin, args...), bin: bin, ended: make(chan struct{})}
	p.Stdout, p.Stderr, p.SysProcAttr = p, p, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("the program said\n%s", p.log())
		}
	})
	return p
}

// launch runs "wuamesh serve" with this configuration, its data and its
// folder in dir.
func launch(t *testing.T, dir, config string) *process {
	t.Helper()
	return launchAs(t, "rns-01", dir, config)
}

// launchAs is launch of a node with a name.
func launchAs(t *testing.T, name, dir, config string) *process {
	t.Helper()
	file := filepath.Join(dir, "wuamesh.toml")
	text := fmt.Sprintf("name = %q\ndata = %q\nfolder = %q\nlisten_https = \"127.0.0.1:0\"\nlisten_http = \"127.0.0.1:0\"\n%s\n", name, filepath.Join(dir, "data"), filepath.Join(dir, "waptwua"), config)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, dir, "serve", "--config", file)
	p.until("it is ready", func() bool {
		m := regexp.MustCompile(`msg="node ready" url=(\S+) folder=(\S+)`).FindStringSubmatch(p.log())
		if m != nil {
			p.url, p.folder = m[1], m[2]
		}
		return m != nil
	})
	return p
}

// until waits for ok, two minutes at most.
func (p *process) until(what string, ok func() bool) {
	p.t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		select {
		case <-p.ended:
			if ok() {
				return
			}
			p.t.Fatalf("before %s it ended: %s\n%s", what, p.ProcessState, p.log())
		case <-time.After(20 * time.Millisecond):
		}
	}
	p.t.Fatalf("in two minutes not: %s\n%s", what, p.log())
}

// command types a command on the node's machine.
func (p *process) command(args ...string) (out string, code int) {
	p.t.Helper()
	cmd := exec.Command(p.bin, append(args, "--data", filepath.Join(p.dir, "data"))...)
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// resident is the memory the process holds, in bytes.
func (p *process) resident() int {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(b)
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		p.t.Fatal(err)
	}
	return n << 10
}

// open counts the files and connections the process holds.
func (p *process) open() int {
	p.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	return len(list)
}

// enrolled makes n hosts, as agents enrol.
func (p *process) enrolled(n int) (hosts []*agentproto.Client) {
	p.t.Helper()
	out, code := p.command("token", "enroll", "--uses", fmt.Sprint(n))
	token, _, _ := strings.Cut(out, "\n")
	parsed, err := agentproto.ParseEnrollToken(token)
	if err != nil || code != 0 {
		p.t.Fatal(out, err)
	}
	log := slog.New(slog.DiscardHandler)
	for i := range n {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			p.t.Fatal(err)
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			p.t.Fatal(err)
		}
		c, err := agentproto.NewClient(agentproto.ClientOptions{Nodes: []string{p.url}, Pin: parsed.Pin, Log: log})
		if err != nil {
			p.t.Fatal(err)
		}
		facts := agentproto.Facts{Name: fmt.Sprintf("RNS-WKS-%04d", i), OS: "Windows 11 Pro 25H2", Build: "10.0.26200.7019", Arch: "amd64"}
		resp, err := c.Enroll(p.t.Context(), agentproto.EnrollRequest{Protocol: 1, Agent: "test", Host: hostOf(i), Token: token, CSR: csr, Facts: facts})
		c.Close()
		if err != nil {
			p.t.Fatal(err)
		}
		ca, err := x509.ParseCertificate(resp.Authority)
		if err != nil {
			p.t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AddCert(ca)
		if c, err = agentproto.NewClient(agentproto.ClientOptions{Nodes: []string{p.url}, Certificate: &tls.Certificate{Certificate: [][]byte{resp.Certificate, resp.Issuer}, PrivateKey: key}, Authority: pool, Log: log}); err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(c.Close)
		hosts = append(hosts, c)
	}
	return hosts
}

func hostOf(i int) agentproto.HostID {
	return agentproto.HostID(fmt.Sprintf("00000000-0000-4000-8000-%012d", i))
}

// scanned is a report of n updates, other ones installed in each round.
func scanned(n, round int) agentproto.Report {
	r := agentproto.Report{Protocol: 1, Scan: &agentproto.Scan{Started: time.Now().UTC(), Took: agentproto.Duration(time.Minute)}}
	for i := range n {
		r.Statuses = append(r.Statuses, agentproto.Status{ID: rules.UpdateID(fmt.Sprintf("10000000-0000-4000-8000-%012d", i)), Revision: 200, Installed: (i+round)%3 > 0})
	}
	r.Hash = agentproto.HashStatuses(r.Statuses)
	return r
}

// withFile puts a file of n bytes, named as Microsoft names it, into the folder
// of a node that is not started yet.
func withFile(t *testing.T, dir string, n int) (name string) {
	t.Helper()
	b := make([]byte, n)
	rand.Read(b)
	name = fmt.Sprintf("kb_%x.cab", sha1.Sum(b))
	folder := filepath.Join(dir, "waptwua")
	if err := errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, name), b, 0o644)); err != nil {
		t.Fatal(err)
	}
	return name
}

// serves waits until the node has verified the file.
func (p *process) serves(name string) {
	p.t.Helper()
	p.until(name+" is served", func() bool {
		resp, err := http.Head(p.folder + name)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	})
}

// TestStopsInTime asks a node to stop while callers of every kind hold it: one
// that sends half a request, one that does not read the file it asked for,
// hosts with streams of events and in the middle of reports, and Microsoft in
// the middle of a file. systemd would kill it after a while; ten seconds is
// what the product promises.
func TestStopsInTime(t *testing.T) {
	stuck := make(chan struct{}, 1)
	microsoft := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000000")
		w.Write(make([]byte, 1000))
		http.NewResponseController(w).Flush()
		select {
		case stuck <- struct{}{}:
		default:
		}
		<-r.Context().Done()
	}))
	t.Cleanup(microsoft.Close)
	dir := t.TempDir()
	name := withFile(t, dir, 32<<20)
	p := launch(t, dir, fmt.Sprintf("upstream = %q\ndisk_floor = \"1 MB\"", microsoft.URL))
	p.serves(name)
	<-stuck
	for _, text := range []string{"GET /waptwua/x HTTP/1.1\r\nHos", "GET /waptwua/" + name + " HTTP/1.1\r\nHost: x\r\n\r\n"} {
		c, err := net.Dial("tcp", strings.Split(p.folder, "/")[2])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, text)
	}
	hosts := p.enrolled(4)
	var acked [4]atomic.Int64
	var busy sync.WaitGroup
	for i, h := range hosts {
		busy.Go(func() { h.Events(t.Context(), func(agentproto.Event) error { return nil }) })
		busy.Go(func() {
			for n := 1; ; n++ {
				if _, err := h.Report(t.Context(), scanned(n, 0)); err != nil {
					return
				}
				acked[i].Store(int64(n))
			}
		})
	}
	p.until("hosts report", func() bool { return acked[3].Load() > 3 })
	began := time.Now()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		t.Fatalf("it runs ten seconds after SIGTERM")
	}
	t.Logf("it stopped after %v", time.Since(began).Round(10*time.Millisecond))
	if code := p.ProcessState.ExitCode(); code != 0 {
		t.Errorf("it ended with %s", p.ProcessState)
	}
	busy.Wait()
	if _, err := os.Stat(filepath.Join(dir, "data", "console.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the console's secret is left behind: %v", err)
	}
	p = launch(t, dir, "internet = false")
	for i := range hosts {
		out, code := p.command("hosts", "--json", string(hostOf(i)))
		if code != 0 {
			t.Fatal(out)
		}
		if n := strings.Count(out, "10000000-0000-4000-8000-"); int64(n) < acked[i].Load() {
			t.Errorf("host %d had %d statuses acknowledged, and has %d", i, acked[i].Load(), n)
		}
	}
}

// TestAnIdleNodeIsSmall measures what a node holds in memory: after its
// start, and after work, which may leave neither memory nor open files behind.
func TestAnIdleNodeIsSmall(t *testing.T) {
	const limit = 64 << 20
	dir := t.TempDir()
	name := withFile(t, dir, 32<<20)
	p := launch(t, dir, "internet = false")
	p.serves(name)
	http.DefaultClient.CloseIdleConnections()
	bare, open := p.resident(), p.open()
	t.Logf("after the start: %.1f MB, %d open files", float64(bare)/1e6, open)
	if bare > limit {
		t.Errorf("an idle node holds %d MB, want less than 64", bare>>20)
	}
	hosts := p.enrolled(10)
	insecure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for n := range 3 {
		var wg sync.WaitGroup
		for _, h := range hosts {
			wg.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				wg.Go(func() { h.Events(ctx, func(agentproto.Event) error { return nil }) })
				for i := range 10 {
					if _, err := h.Report(t.Context(), scanned(150, 10*n+i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for _, url := range []string{p.folder + name, p.url + "/waptwua/" + name} {
			resp, err := insecure.Get(url)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, resp.Body); n != 32<<20 || err != nil {
				t.Error(n, err)
			}
			resp.Body.Close()
		}
		wg.Wait()
		for _, c := range []string{"updates", "hosts", "status"} {
			if out, code := p.command(c, "--json"); code != 0 {
				t.Error(out)
			}
		}
	}
	for _, h := range hosts {
		h.Close()
	}
	insecure.CloseIdleConnections()
	t.Logf("after 300 reports of 150 updates and six files of 32 MiB: %.1f MB", float64(p.resident())/1e6)
	p.until("memory and open files are given back", func() bool { return p.resident() < limit && p.open() <= open+4 })
}

// TestAFullDiskUnderTheRecords fills the disk while hosts report. What was
// acknowledged stays, what cannot be kept is refused and says so, files are
// served on, and there is a word for whoever starts the node meanwhile.
func TestAFullDiskUnderTheRecords(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, "size=80m"); err != nil {
		t.Fatal("mount a small disk: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(data, syscall.MNT_DETACH) })
	name := withFile(t, dir, 1<<20)
	p := launch(t, dir, "internet = false")
	p.serves(name)
	hosts := p.enrolled(3)
	var acked [3]int
	var busy sync.WaitGroup
	for i, h := range hosts {
		busy.Go(func() {
			for n := 1; ; n++ {
				_, err := h.Report(t.Context(), scanned(n, 0))
				if err != nil {
					if !strings.Contains(err.Error(), "The disk with the records of this node is full") || !strings.Contains(err.Error(), "by itself") {
						t.Errorf("a host hears %v", err)
					}
					return
				}
				acked[i] = n
			}
		})
	}
	junk := filepath.Join(data, "junk")
	fill := func() {
		f, err := os.Create(junk)
		for b := make([]byte, 64<<10); err == nil; {
			_, err = f.Write(b)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		f.Close()
	}
	fill()
	busy.Wait()
	t.Logf("%v reports were acknowledged", acked)
	if out, code := p.command("token", "enroll"); code != 1 || !strings.Contains(out, "The disk with the records of this node is full") || !strings.Contains(out, "by itself") {
		t.Errorf("a command ends with %d and says\n%s", code, out)
	}
	if out, code := p.command("status"); code != 0 || !strings.Contains(out, "The disk with the records of this node is full") {
		t.Errorf("status ends with %d and says\n%s", code, out)
	}
	insecure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for url, want := range map[string]int{p.url + "/healthz": 503, p.folder + name: 200} {
		resp, err := insecure.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s answers %s", url, resp.Status)
		}
	}
	p.Process.Signal(syscall.SIGTERM)
	<-p.ended
	if p.ProcessState.ExitCode() != 0 {
		t.Errorf("it stopped with %s\n%s", p.ProcessState, p.log())
	}
	if out, code := refused(t, filepath.Join(dir, "wuamesh.toml")); code != 1 || !strings.HasPrefix(out, "wuamesh serve: The disk with the records of this node is full: ") || strings.Count(out, "\n") != 2 {
		t.Errorf("started on the full disk it ends with %d and says\n%s", code, out)
	}
	os.Remove(junk)
	for range 2 { // after a stop, and after a kill on a full disk
		p = launch(t, dir, "internet = false")
		for i := range hosts {
			if out, code := p.command("hosts", "--json", string(hostOf(i))); code != 0 || strings.Count(out, "10000000-0000-4000-8000-") < acked[i] {
				t.Errorf("host %d had %d statuses acknowledged, and has\n%s", i, acked[i], out)
			}
		}
		if out, code := p.command("token", "enroll"); code != 0 {
			t.Errorf("with space again: %d\n%s", code, out)
		}
		fill()
		p.Process.Kill()
		<-p.ended
		os.Remove(junk)
	}
}

// refused starts a node that cannot start.
func refused(t *testing.T, config string) (out string, code int) {
	t.Helper()
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := unprivileged(ctx, bin, "serve", "--config", config)
	b, _ := cmd.CombinedOutput()
	return string(b), cmd.ProcessState.ExitCode()
}
