package cli_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wuamesh/appliance"
	"wuamesh/appliance/api"
	"wuamesh/appliance/microsoft/microsofttest"
)

// startNode runs a node in a directory until stop is called.
func startNode(t *testing.T, dir, name, upstream, root string) (n *appliance.Appliance, stop func()) {
	t.Helper()
	cfg := appliance.DevConfig()
	cfg.Name, cfg.Site, cfg.Data, cfg.Folder = name, name, filepath.Join(dir, "data"), filepath.Join(dir, "waptwua")
	cfg.ListenHTTPS, cfg.ListenHTTP, cfg.Internet, cfg.Upstream = "127.0.0.1:0", "127.0.0.1:0", upstream != "", upstream
	cfg.Roots, cfg.DiskFloor = []string{root}, 0
	log := slog.New(slog.DiscardHandler)
	n, err := appliance.Open(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx, api.New(n, log)) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := errors.Join(<-done, n.Close()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	until(t, "console file", func() bool {
		_, err := os.Stat(filepath.Join(cfg.Data, appliance.ConsoleFile))
		return err == nil
	})
	return n, stop
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatalf("%s: not within 20 s", what)
}

// TestBundle carries the scan cab and a rule package to a node without a line,
// on a stick that was pulled out in the middle, and the way back.
func TestBundle(t *testing.T) {
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1})
	srv := httptest.NewServer(world)
	defer srv.Close()
	root, err := world.RootFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	here, there, stick := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "stick")
	at := func(dir string) string { return filepath.Join(dir, "data") }
	expect := func(want string, code int, args ...string) string {
		t.Helper()
		out, err, got := run(t, args...)
		if got != code || !strings.Contains(out+err, want) {
			t.Errorf("wuamesh %s: exit %d, want %d and %q:\n%s%s", strings.Join(args, " "), got, code, want, out, err)
		}
		return out
	}
	hq, stopHQ := startNode(t, here, "hq-01", srv.URL, root)
	lor, stopLor := startNode(t, there, "lor-01", "", root)
	expect("takes part in no mesh", 1, "bundle", "export", "--for", "lor-01", stick, "--data", at(there))
	token := strings.TrimSpace(expect("", 0, "token", "join", "--data", at(here)))
	expect("", 0, "join", token, "--data", at(there))
	until(t, "the first copy", func() bool {
		m, err := lor.Mesh(t.Context())
		return err == nil && !m.Copying && len(m.Nodes) == 2
	})
	stopLor() // it is carried to its site, where no line is
	served := func(n *appliance.Appliance) bool {
		resp, err := http.Get(n.FolderURL() + "wsusscn2.cab")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	}
	until(t, "the scan cab", func() bool { return served(hq) })
	by := appliance.Actor{Name: "maelle", Role: appliance.Owner}
	if _, err := hq.PutPackage(t.Context(), by, "november", appliance.PackageEdit{Maturity: "PROD", Groups: []string{"all"}}); err != nil {
		t.Fatal(err)
	}
	expect("no bundle in", 1, "bundle", "show", stick)
	expect("There is no other node or site", 1, "bundle", "export", "--for", "nowhere", stick, "--data", at(here))
	expect("records and 1 file", 0, "bundle", "export", "--for", "lor-01", "--part-size", "4kB", stick, "--data", at(here))
	parts, err := filepath.Glob(filepath.Join(stick, "files", "*"))
	if err != nil || len(parts) < 3 {
		t.Fatalf("the parts are %v, %v", parts, err)
	}
	for _, p := range parts {
		if info, err := os.Stat(p); err != nil || info.Size() > 4000 {
			t.Errorf("%s has %d bytes, %v", p, info.Size(), err)
		}
	}
	os.Remove(parts[len(parts)-1])
	os.Truncate(parts[len(parts)-2], 100)
	expect("0 of 1 file are here", 0, "bundle", "show", stick)
	expect("records and 1 file", 0, "bundle", "export", "--for", "lor-01", stick, "--data", at(here)) // it goes on
	if b, err := os.ReadFile(parts[0]); err == nil {
		b[10] ^= 1
		os.WriteFile(parts[0], b, 0o644)
	}
	expect("records and 1 file", 0, "bundle", "export", "--for", "lor-01", stick, "--data", at(here)) // and finds what is wrong
	expect("1 of 1 file are here", 0, "bundle", "show", stick)
	stopHQ()

	lor, stopLor = startNode(t, there, "lor-01", "", root)
	expect("the bundle of hq-01", 0, "bundle", "import", stick, "--data", at(there))
	until(t, "the scan cab", func() bool { return served(lor) })
	if _, err := lor.Package(t.Context(), "november"); err != nil {
		t.Error(err)
	}
	if _, err := lor.PutPackage(t.Context(), by, "branch", appliance.PackageEdit{Maturity: "PROD"}); err != nil {
		t.Fatal(err)
	}
	expect("The bundle for hq-01", 0, "bundle", "export", "--no-files", stick, "--data", at(there))
	if left, _ := os.ReadDir(filepath.Join(stick, "files")); len(left) != 0 {
		t.Errorf("of the bundle before are left: %v", left)
	}
	stopLor()
	hq, _ = startNode(t, here, "hq-01", srv.URL, root)
	expect("the bundle of lor-01", 0, "bundle", "import", stick, "--data", at(here))
	if _, err := hq.Package(t.Context(), "branch"); err != nil {
		t.Error(err)
	}
	expect("it takes export, import or show", 2, "bundle", "export")
}
