package appliance_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"wuamesh/appliance"
	"wuamesh/ui"
)

// BenchmarkScale loads a fleet into a store, opens a node on it, and asks for
// every page as a browser does, while hosts go on reporting. It prints the
// time of the median and of the slowest per cent of the requests, what the
// page weighs compressed, what opening took, and what the process holds.
func BenchmarkScale(b *testing.B) {
	for _, hosts := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("%d hosts", hosts), func(b *testing.B) {
			if testing.Short() && hosts > 10_000 {
				b.Skip("with -short")
			}
			dir := b.TempDir()
			populate(b, dir, appliance.Fleet{Hosts: hosts, Updates: 2000, Statuses: 150, Seed: 1})
			began := time.Now()
			node := openIn(b, dir)
			took := time.Since(began)
			run(b, node)
			pages := login(b, node)
			debug.FreeOSMemory()
			b.Run("open", func(b *testing.B) {
				for b.Loop() {
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(took.Seconds(), "s")
				b.ReportMetric(residentMB(b), "MB")
			})
			list, err := node.Hosts(b.Context(), appliance.HostQuery{})
			if err != nil || list.Total != hosts {
				b.Fatal(list.Total, err)
			}
			host := "/hosts/" + string(list.Hosts[0].ID)
			updates, err := node.Updates(b.Context(), appliance.UpdateQuery{})
			if err != nil {
				b.Fatal(err)
			}
			for i, c := range []appliance.RepositoryCondition{
				{Kind: appliance.BySubnet, Values: []string{"10.3.0.0/16", "10.7.7.0/24"}}, {Kind: appliance.ByHostName, Values: []string{"pc-*9"}}, {Kind: appliance.ByDomain, Values: []string{"none.example"}},
			} {
				e := appliance.RepositoryRuleEdit{Name: fmt.Sprint("rule ", i), Conditions: []appliance.RepositoryCondition{c}, Node: "rns-01"}
				if _, err := node.MakeRepositoryRule(b.Context(), owner, e); err != nil {
					b.Fatal(err)
				}
			}
			for i, to := range [][]string{{"all"}, {"branch-03", "branch-07"}, {"branch-03"}} {
				e := appliance.ProfileEdit{Groups: to, Options: map[string]string{"install_delay": fmt.Sprint(i, "d"), "install_scheduling": "1d"}}
				if i == 2 {
					e.Hosts = append(e.Hosts, list.Hosts[0].ID)
				}
				if _, err := node.PutProfile(b.Context(), owner, fmt.Sprint("settings-", i), e); err != nil {
					b.Fatal(err)
				}
			}
			for _, path := range []string{
				"/agents/profiles", "/agents/profiles/settings-1", "/groups/branch-03", "/overview", "/updates", "/updates?severity=Critical&state=PENDING", "/updates?pub=2026-10&restart=always", "/updates/" + string(updates.Updates[0].ID),
				"/hosts", "/hosts?q=pc-000&sort=-pending", "/hosts?group=branch-03&sort=scan", host, "/rules", "/rules/rules-03", "/downloads", "/clean", "/audit", "/access", "/mesh", "/mesh/repository-rules",
			} {
				name := strings.ReplaceAll(path, "/", " ")[1:]
				b.Run(strings.NewReplacer(string(list.Hosts[0].ID), "ID", string(updates.Updates[0].ID), "ID").Replace(name), func(b *testing.B) {
					measurePage(b, node, pages, path)
				})
			}
			b.Run("memory in the end", func(b *testing.B) {
				for b.Loop() {
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(residentMB(b), "MB")
			})
		})
	}
}

// populate fills a store in a process of its own, whose memory is not that of
// the node that is measured.
func populate(b *testing.B, dir string, f appliance.Fleet) {
	b.Helper()
	fleet, err := json.Marshal(f)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SCALE_FLEET="+string(fleet), "SCALE_DIR="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
}

func TestMain(m *testing.M) {
	fleet := os.Getenv("SCALE_FLEET")
	if fleet == "" {
		os.Exit(m.Run())
	}
	if err := fill(os.Getenv("SCALE_DIR"), []byte(fleet)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// fill is populate in the other process.
func fill(dir string, fleet []byte) error {
	var f appliance.Fleet
	if err := json.Unmarshal(fleet, &f); err != nil {
		return err
	}
	node, err := appliance.Open(scaleConfig(dir), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	return errors.Join(node.Populate(context.Background(), f), node.Close())
}

func scaleConfig(dir string) appliance.Config {
	cfg := appliance.DevConfig()
	cfg.Name, cfg.Data, cfg.Folder = "rns-01", filepath.Join(dir, "data"), filepath.Join(dir, "waptwua")
	cfg.ListenHTTPS, cfg.ListenHTTP = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Internet = false
	return cfg
}

func openIn(b testing.TB, dir string) *appliance.Appliance {
	b.Helper()
	node, err := appliance.Open(scaleConfig(dir), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { node.Close() })
	return node
}

// run has the node do everything it does beside answering, until the benchmark
// ends: it counts in the background.
func run(b *testing.B, node *appliance.Appliance) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx, http.NotFoundHandler()) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
}

// login returns what asks for a page as an admin's browser.
func login(b *testing.B, node *appliance.Appliance) func(path string) *httptest.ResponseRecorder {
	b.Helper()
	_, secret, _ := strings.Cut(node.SetupLink(), "secret=")
	if err := node.SetUp(b.Context(), secret, "maelle", "correct horse battery"); err != nil {
		b.Fatal(err)
	}
	session, err := node.Login(b.Context(), "maelle", "correct horse battery", "127.0.0.1")
	if err != nil {
		b.Fatal(err)
	}
	h := ui.New(node, slog.New(slog.DiscardHandler))
	return func(path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		r.AddCookie(&http.Cookie{Name: "__Host-wuamesh_" + node.ID()[:8], Value: session})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
}

// measurePage asks 200 times; before every fifth request a host reported.
func measurePage(b *testing.B, node *appliance.Appliance, pages func(string) *httptest.ResponseRecorder, path string) {
	var took []time.Duration
	var weight int
	for b.Loop() {
		for i := range 200 {
			if i%5 == 0 {
				if err := node.ReportAgain(b.Context(), i); err != nil {
					b.Fatal(err)
				}
			}
			began := time.Now()
			w := pages(path)
			took = append(took, time.Since(began))
			if w.Code != 200 {
				b.Fatalf("%s answers %d\n%.500s", path, w.Code, w.Body)
			}
			weight = compressed(w.Body.Bytes())
		}
	}
	slices.Sort(took)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(weight)/1000, "kB")
}

func compressed(b []byte) int {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	z.Write(b)
	z.Close()
	return buf.Len()
}

// residentMB is what the process holds of the machine's memory.
func residentMB(b *testing.B) float64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		b.Fatal(err)
	}
	var kb float64
	if _, after, ok := strings.Cut(string(text), "VmRSS:"); !ok {
		b.Fatal("no VmRSS")
	} else if _, err := fmt.Sscanf(after, "%g", &kb); err != nil {
		b.Fatal(err)
	}
	return kb / 1000
}
