package appliance_test

import (
	"context"
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/microsofttest"
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

// BenchmarkFolderBesideNginx has four clients take files from the node and
// from nginx, on plain HTTP over loopback, and prints the node's rate as a
// part of nginx's. It needs nginx.
func BenchmarkFolderBesideNginx(b *testing.B) {
	if _, err := exec.LookPath("nginx"); err != nil {
		b.Skip("needs nginx")
	}
	for _, size := range []int{200_000_000, 4000} {
		b.Run(fmt.Sprint(size, " bytes"), func(b *testing.B) {
			dir := b.TempDir()
			content := make([]byte, size)
			rand.NewChaCha8([32]byte{1}).Read(content)
			name := fmt.Sprintf("file_%x.cab", sha1.Sum(content))
			put(b, dir, name, content)
			world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 1000})
			s := startIn(b, dir, world, "http://127.0.0.1:1", func(c *appliance.Config) { c.Internet = false })
			eventually(b, name, s.serves(name))
			other := startNginx(b, filepath.Join(dir, "waptwua"))
			n := max(1, 4_000_000/size*10)
			rate := func(url string) float64 {
				began := time.Now()
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						client := &http.Client{Transport: &http.Transport{}}
						for range n {
							resp, err := client.Get(url)
							if err != nil {
								b.Error(err)
								return
							}
							io.Copy(io.Discard, resp.Body)
							resp.Body.Close()
						}
						client.CloseIdleConnections()
					})
				}
				wg.Wait()
				return float64(4*n*size) / time.Since(began).Seconds()
			}
			var ours, theirs float64
			for b.Loop() { // in turns, so that what else runs here slows both
				ours += rate(s.FolderURL() + name)
				theirs += rate(other + name)
			}
			b.ReportMetric(ours/theirs, "xnginx")
			b.ReportMetric(ours/float64(b.N)/1e6, "MB/s")
		})
	}
}

// startNginx serves a directory as Debian's nginx does by default, with
// sendfile and a worker per core.
func startNginx(b *testing.B, root string) (url string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := b.TempDir()
	conf := fmt.Sprintf("worker_processes auto; daemon off; pid %[1]s/pid; error_log %[1]s/error.log; events {worker_connections 768;}\nhttp {access_log off; sendfile on; tcp_nopush on; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s; server {listen %[2]s; root %[3]s;}}", dir, addr, root)
	put(b, dir, "nginx.conf", []byte(conf))
	file := filepath.Join(dir, "waptwua", "nginx.conf")
	cmd := exec.Command("nginx", "-c", file, "-g", "user root;")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() })
	eventually(b, "nginx", func() error {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err
	})
	return "http://" + addr + "/"
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
