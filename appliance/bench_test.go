package appliance_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// many are statuses of n updates that nobody described.
func many(n, round int) (list []agentproto.Status) {
	for i := range n {
		list = append(list, agentproto.Status{ID: rules.UpdateID(fmt.Sprintf("10000000-0000-4000-8000-%012d", i)), Revision: 200, Installed: (i+round)%3 > 0})
	}
	return list
}

// BenchmarkReport is one round of a whole mesh at one node: 2,000 hosts report
// 150 updates each over TLS, 64 of them at a time, durable when acknowledged.
func BenchmarkReport(b *testing.B) {
	const hosts, updates, together = 2000, 150, 64
	s := start(b, func(c *appliance.Config) { c.Internet = false })
	token := s.enrolToken(b, hosts)
	machines := make([]*machine, hosts)
	each := func(do func(i int)) {
		var next atomic.Int64
		var wg sync.WaitGroup
		for range together {
			wg.Go(func() {
				for i := int(next.Add(1)); i <= hosts; i = int(next.Add(1)) {
					do(i - 1)
				}
			})
		}
		wg.Wait()
	}
	each(func(i int) { machines[i] = s.enrol(b, i+1, token) })
	rounds, before := 0, processorTime(b)
	for b.Loop() {
		rounds++
		each(func(i int) {
			if _, err := machines[i].Report(context.Background(), scanOf(many(updates, rounds+i))); err != nil {
				b.Error(err)
			}
			machines[i].Close() // by the next round a host connects anew
		})
	}
	reports := float64(rounds * hosts)
	b.ReportMetric(reports/b.Elapsed().Seconds(), "reports/s")
	b.ReportMetric(float64((processorTime(b)-before).Microseconds())/1000/reports, "cpu-ms/report") // hosts and node
	if list, err := s.Updates(b.Context(), appliance.UpdateQuery{}); err != nil || list.Total != updates {
		b.Fatal(list.Total, err)
	}
	st, err := s.Status(b.Context())
	if n := st.Pairs; err != nil || st.Hosts != hosts || n.OK+n.Missing+n.Pending+n.Discarded != hosts*updates {
		b.Errorf("of %d hosts there are %+v, %v", st.Hosts, n, err)
	}
}

// processorTime is what this process has used of the processors.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkUpdates is the list of updates with its facets, the first time
// after a change and again, with 100 hosts of 1,000 statuses each: as many
// pairs as 2,000 hosts of 50.
func BenchmarkUpdates(b *testing.B) {
	s := start(b, func(c *appliance.Config) { c.Internet = false })
	token := s.enrolToken(b, 100)
	var last *machine
	for i := range 100 {
		last = s.enrol(b, i+1, token)
		if _, err := last.Report(b.Context(), scanOf(many(1000, i))); err != nil {
			b.Fatal(err)
		}
	}
	list := func() {
		if l, err := s.Updates(b.Context(), appliance.UpdateQuery{}); err != nil || l.Total != 1000 {
			b.Fatal(l.Total, err)
		}
	}
	b.Run("unchanged", func(b *testing.B) {
		for b.Loop() {
			list()
		}
	})
	b.Run("after a report", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			b.StopTimer()
			if _, err := last.Report(context.Background(), scanOf(many(1000, i))); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			list()
		}
	})
}

// BenchmarkFolderBesideNginx has four clients take files over loopback from the
// node, from nginx, and from nothing but net/http that has the file in memory,
// and prints the rates of the node and of net/http as parts of nginx's. The
// servers are processes of their own, and the clients do nothing but read: what
// is compared is what serving costs. It needs nginx.
func BenchmarkFolderBesideNginx(b *testing.B) {
	if _, err := exec.LookPath("nginx"); err != nil {
		b.Skip("needs nginx")
	}
	for _, size := range []int{200_000_000, 4000} {
		dir := b.TempDir()
		content := make([]byte, size)
		rand.NewChaCha8([32]byte{1}).Read(content)
		name := fmt.Sprintf("file_%x.cab", sha1.Sum(content))
		put(b, dir, name, content)
		nginx := startNginx(b, dir)
		node, bare := folderProcess(b, dir)
		for i, how := range []string{"plain", "TLS"} {
			b.Run(fmt.Sprintf("%d bytes, %s", size, how), func(b *testing.B) {
				n := min(max(1, 4_000_000/size), 900) // nginx closes a connection after 1,000
				var took [3]time.Duration
				for b.Loop() {
					for range 10 { // in short turns, so that what else runs here slows all
						for k, at := range [...]string{node[i], bare[i], nginx[i]} {
							took[k] += fetch(b, at, how == "TLS", "/waptwua/"+name, n, size)
						}
					}
				}
				b.ReportMetric(took[2].Seconds()/took[0].Seconds(), "xnginx")
				b.ReportMetric(took[2].Seconds()/took[1].Seconds(), "net/http-xnginx")
				b.ReportMetric(float64(b.N*10*4*n*size)/took[0].Seconds()/1e6, "MB/s")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// fetch has four clients take a file n times each, and says how long that took.
func fetch(b *testing.B, at string, secure bool, path string, n, size int) time.Duration {
	began := time.Now()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			conn, err := net.Dial("tcp", at)
			if err == nil && secure {
				conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			}
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			buf := make([]byte, 256<<10)
			for range n {
				if err := fetchOnce(conn, path, buf, size); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// fetchOnce asks for a file and reads the answer, the header of which comes
// whole with the first bytes.
func fetchOnce(conn net.Conn, path string, buf []byte, size int) error {
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: node\r\n\r\n"); err != nil {
		return err
	}
	n, err := conn.Read(buf)
	header := bytes.Index(buf[:n], []byte("\r\n\r\n")) + 4
	if err != nil || header < 4 || !bytes.HasPrefix(buf, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answered %.200q, %v", buf[:n], err)
	}
	for n < header+size && err == nil {
		var k int
		k, err = conn.Read(buf)
		n += k
	}
	if n != header+size {
		return fmt.Errorf("%d of %d bytes came: %v", n-header, size, err)
	}
	return nil
}

// folderProcess runs a node in a process of its own, and net/http alone beside
// it; of each it returns where it listens without TLS and with it.
func folderProcess(b *testing.B, dir string) (node, bare [2]string) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestFolderProcess$")
	cmd.Env = append(os.Environ(), folderProcessKey+"="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	if _, err := fmt.Fscanln(out, &node[0], &node[1], &bare[0], &bare[1]); err != nil {
		b.Fatal("the node's process: ", err)
	}
	return node, bare
}

const folderProcessKey = "APPLIANCE_TEST_FOLDER"

// TestFolderProcess is the process of folderProcess; it ends with its input.
func TestFolderProcess(t *testing.T) {
	dir := os.Getenv(folderProcessKey)
	if dir == "" {
		t.Skip("a process of BenchmarkFolderBesideNginx")
	}
	all, err := filepath.Glob(filepath.Join(dir, "waptwua", "*.cab"))
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	content, err := os.ReadFile(all[0])
	if err != nil {
		t.Fatal(err)
	}
	s := startIn(t, dir, nil, "http://127.0.0.1:1", func(c *appliance.Config) { c.Internet = false })
	eventually(t, "served", s.serves(filepath.Base(all[0])))
	alone := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		w.Write(content)
	})
	plain, secure := httptest.NewServer(alone), httptest.NewTLSServer(alone)
	defer plain.Close()
	defer secure.Close()
	at, _, _ := strings.Cut(strings.TrimPrefix(s.FolderURL(), "http://"), "/")
	fmt.Println(at, strings.TrimPrefix(s.URL(), "https://"), plain.Listener.Addr(), secure.Listener.Addr())
	io.Copy(io.Discard, os.Stdin)
}

// startNginx serves a directory as Debian's nginx does by default, with
// sendfile and a worker per core, without TLS and with it.
func startNginx(b *testing.B, root string) (at [2]string) {
	for i := range at {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		at[i] = l.Addr().String()
	}
	dir := b.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(cryptorand.Reader, template, template, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		b.Fatal(err)
	}
	put(b, dir, "both.pem", slices.Concat(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	conf := fmt.Sprintf(`worker_processes auto; daemon off; pid %[1]s/pid; error_log %[1]s/error.log; events {worker_connections 768;}
http {access_log off; sendfile on; tcp_nopush on; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
server {listen %[2]s; listen %[3]s ssl; ssl_certificate %[1]s/waptwua/both.pem; ssl_certificate_key %[1]s/waptwua/both.pem; root %[4]s;}}`, dir, at[0], at[1], root)
	put(b, dir, "nginx.conf", []byte(conf))
	file := filepath.Join(dir, "waptwua", "nginx.conf")
	cmd := exec.Command("nginx", "-c", file, "-g", "user root;")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() })
	eventually(b, "nginx", func() error {
		c, err := net.Dial("tcp", at[0])
		if err == nil {
			c.Close()
		}
		return err
	})
	return at
}

// BenchmarkCommandAcross gives commands on one of three nodes to a host whose
// stream is at another, and measures from the admin's call until the host has
// the command: acknowledged, durable, and through the mesh in between.
func BenchmarkCommandAcross(b *testing.B) {
	hq, branch, third := bareNode(b, "rns-01"), bareNode(b, "brs-01"), bareNode(b, "lor-01")
	branch.joinTo(b, hq)
	third.joinTo(b, hq)
	m := third.enrol(b, 1, third.enrolToken(b, 1))
	m.checkin(b)
	knows(b, branch, m.id)
	events := m.listen(b, third)
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		if n, err := branch.Trigger(b.Context(), owner, agentproto.ActionScan, []agentproto.HostID{m.id}, ""); n != 1 || err != nil {
			b.Fatalf("Trigger = %d, %v", n, err)
		}
		var cmd agentproto.Command
		if err := json.Unmarshal(next(b, events, "command").Data, &cmd); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
		done := agentproto.CommandResult{ID: cmd.ID, State: agentproto.CommandDone, At: time.Now()}
		if err := m.Results(b.Context(), agentproto.Results{Protocol: 1, Commands: []agentproto.CommandResult{done}}); err != nil {
			b.Fatal(err)
		}
		eventually(b, "the outcome is back", func() error {
			if h, err := branch.Host(b.Context(), m.id); err != nil || len(h.Commands) == 0 || h.Commands[0].State != "done" {
				return fmt.Errorf("%+v, %v", h.Commands, err)
			}
			return nil
		})
	}
	slices.Sort(took)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
}
