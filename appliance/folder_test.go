package appliance_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/microsofttest"
)

// allow lets every host install everything.
func (s *site) allow(t testing.TB) {
	t.Helper()
	edit := appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}}
	list, _ := described(s.world)
	for _, u := range list {
		edit.Lines = append(edit.Lines, rules.Line{Verb: rules.Allow, Kind: rules.ByUpdateID, Value: string(u.ID)})
	}
	if _, err := s.PutPackage(t.Context(), owner, "everything", edit); err != nil {
		t.Fatal(err)
	}
}

// task is the newest task of a file.
func (s *site) task(t testing.TB, file string) appliance.Task {
	t.Helper()
	list, _, err := s.Tasks(t.Context(), appliance.TaskQuery{Page: appliance.Page{Limit: 500}})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range list {
		if k.File == file {
			return k
		}
	}
	return appliance.Task{}
}

// has waits until the task of a file is as it should be.
func (s *site) has(t testing.TB, file string, ok func(appliance.Task) bool) appliance.Task {
	t.Helper()
	var k appliance.Task
	eventually(t, file, func() error {
		if k = s.task(t, file); !ok(k) {
			return fmt.Errorf("the task is %+v", k)
		}
		return nil
	})
	return k
}

// had waits until some task of a file is as it should be: the scan cab may have
// been looked at again since.
func (s *site) had(t testing.TB, file string, ok func(appliance.Task) bool) {
	t.Helper()
	eventually(t, file, func() error {
		list, _, err := s.Tasks(t.Context(), appliance.TaskQuery{Page: appliance.Page{Limit: 500}})
		if err == nil && !slices.ContainsFunc(list, func(k appliance.Task) bool { return k.File == file && ok(k) }) {
			err = fmt.Errorf("the tasks are %+v", list)
		}
		return err
	})
}

func status(want string) func(appliance.Task) bool {
	return func(k appliance.Task) bool { return k.Status == want }
}

// TestWhatLiesInTheFolder starts nodes over folders in every condition.
func TestWhatLiesInTheFolder(t *testing.T) {
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 100_000})
	srv := httptest.NewServer(world)
	defer srv.Close()
	dir := t.TempDir()
	good, b := payload("good", ".cab", 50_000)
	touched, b2 := payload("touched", ".cab", 40_000)
	spoiled, b3 := payload("spoiled", ".cab", 30_000)
	gone, b4 := payload("gone", ".exe", 20_000)
	for name, content := range map[string][]byte{good: b, touched: b2, spoiled: b3, gone: b4} {
		put(t, dir, name, content)
	}
	s := startIn(t, dir, world, srv.URL, nil)
	for _, name := range []string{good, touched, spoiled, gone} {
		eventually(t, name, s.serves(name))
	}
	s.stop()

	later := time.Now().Add(time.Hour)
	wrong, _ := payload("wrong", ".cab", 1000)
	put(t, dir, wrong, []byte("something else"))
	put(t, dir, "readme.txt", []byte("somebody's notes"))
	put(t, dir, spoiled, append([]byte{^b3[0]}, b3[1:]...))
	if err := errors.Join(os.Chtimes(filepath.Join(dir, "waptwua", touched), later, later), os.Remove(filepath.Join(dir, "waptwua", gone))); err != nil {
		t.Fatal(err)
	}
	s = startIn(t, dir, world, srv.URL, nil)
	if err := s.serves(good)(); err != nil {
		t.Errorf("a file that nobody touched is not served from the start: %v", err)
	}
	eventually(t, "touched, and right", s.serves(touched))
	for _, name := range []string{wrong, spoiled} {
		eventually(t, "a wrong file goes", func() error {
			if _, err := os.Stat(filepath.Join(dir, "waptwua", name)); !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("%s is there: %v", name, err)
			}
			return nil
		})
	}
	for _, name := range []string{wrong, spoiled, gone, "readme.txt"} {
		if s.serves(name)() == nil {
			t.Errorf("%s is served", name)
		}
	}
	if got, err := os.ReadFile(filepath.Join(dir, "waptwua", "readme.txt")); err != nil || string(got) != "somebody's notes" {
		t.Errorf("a file of somebody else's is %q, %v", got, err)
	}
}

// TestAFileThatChangesIsNotServed changes a file under a running node.
func TestAFileThatChangesIsNotServed(t *testing.T) {
	name, b := payload("kb", ".cab", 50_000)
	s := startWith(t, map[string][]byte{name: b}, nil)
	bad := bytes.Clone(b)
	bad[100] ^= 1
	put(t, s.dir, name, bad)
	resp, got := get(t, "GET", s.FolderURL()+name)
	if resp.StatusCode == http.StatusOK {
		t.Fatalf("%d bytes of a changed file are served", len(got))
	}
	eventually(t, "it is deleted", func() error {
		if resp, _ := get(t, "GET", s.FolderURL()+name); resp.StatusCode != http.StatusNotFound {
			return errors.New(resp.Status)
		}
		return nil
	})
	put(t, s.dir, name, b)
	if err := s.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "right again", s.serves(name))
}

// TestWhatCannotBeSeenHasNotVanished looks at a folder whose names can be read
// and whose files cannot: none of them is forgotten.
func TestWhatCannotBeSeenHasNotVanished(t *testing.T) {
	name, b := payload("kb", ".cab", 50_000)
	s := startWith(t, map[string][]byte{name: b}, nil)
	folder := filepath.Join(s.dir, "waptwua")
	if err := os.Chmod(folder, 0o744); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const nobody = 65534 // of this thread's accesses to files alone
	if os.Getuid() != 0 {
		t.Skip("to become nobody needs root")
	}
	if err := syscall.Setfsuid(nobody); err != nil {
		t.Fatal(err)
	}
	err := s.Look(t.Context())
	syscall.Setfsuid(0)
	if !errors.Is(err, os.ErrPermission) {
		t.Errorf("looking found %v", err)
	}
	if resp, got := get(t, "GET", s.FolderURL()+name); resp.StatusCode != http.StatusOK || !bytes.Equal(got, b) {
		t.Errorf("the file after that: %s", resp.Status)
	}
}

// TestAFolderThatCannotBeUsed says what is wrong and what to do.
func TestAFolderThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{file, filepath.Join(file, "waptwua"), "/proc/waptwua"} {
		cfg := appliance.DevConfig()
		cfg.Data, cfg.Folder = filepath.Join(dir, "data"), folder
		cfg.ListenHTTPS, cfg.ListenHTTP = "127.0.0.1:0", "127.0.0.1:0"
		_, err := appliance.Open(cfg, quiet)
		p, ok := errors.AsType[*appliance.Problem](err)
		if !ok || !strings.Contains(p.Msg, folder) || p.Hint == "" {
			t.Errorf("%s: %v", folder, err)
		}
	}
}

// TestDeletedByHandStaysAway deletes a file that a host needs: neither the
// schedule nor the button brings it back, an agent that asks does, and so
// does a new report.
func TestDeletedByHandStaysAway(t *testing.T) {
	s := start(t, nil)
	list, byID := described(s.world)
	u := list[0]
	name := u.Files[0].Name
	s.allow(t)
	m := s.enrol(t, 1, s.enrolToken(t, 1))
	m.report(t, needs(u), byID)
	eventually(t, "download", s.serves(name))
	del := func() {
		t.Helper()
		if err := s.DeleteFile(t.Context(), owner, name); err != nil {
			t.Fatal(err)
		}
		if n, err := s.DownloadMissing(t.Context(), owner); n != 0 || err != nil {
			t.Errorf("%d files queued, %v", n, err)
		}
		if w := s.state(t, m, u); w.State != rules.Missing || !strings.Contains(fmt.Sprint(w.Steps), "deleted on") {
			t.Errorf("it is %s: %s %v", w.State, w.Why, w.Steps)
		}
	}
	del()
	resp, _ := get(t, "GET", s.FolderURL()+name)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("an agent that asks gets %s, %v", resp.Status, resp.Header)
	}
	eventually(t, "asked for", s.serves(name))
	if k := s.task(t, name); !strings.HasPrefix(k.By, "host ") {
		t.Errorf("it was fetched for %q", k.By)
	}
	del()
	m.report(t, needs(u), byID)
	eventually(t, "reported anew", s.serves(name))
	if err := s.DeleteFile(t.Context(), appliance.Actor{Name: "v", Role: appliance.Viewer}, name); err == nil {
		t.Error("a viewer deletes a file")
	}
	for _, name := range []string{"wsusscn2.cab", "../data/store", "none.cab", ".partial"} {
		if p, ok := errors.AsType[*appliance.Problem](s.DeleteFile(t.Context(), owner, name)); !ok {
			t.Errorf("%s is deleted: %v", name, p)
		}
	}
}

// TestFiftyHostsOneDownload has fifty hosts need, and ask for, one file.
func TestFiftyHostsOneDownload(t *testing.T) {
	s := start(t, nil)
	list, byID := described(s.world)
	u := list[0]
	name := u.Files[0].Name
	s.allow(t)
	s.world.Fault(name, microsofttest.Fault{Delay: 300 * time.Millisecond})
	token := s.enrolToken(t, 50)
	var machines []*machine
	for n := range 50 {
		machines = append(machines, s.enrol(t, n+1, token))
	}
	done := make(chan error, len(machines))
	for _, m := range machines {
		go func() {
			resp, err := m.Report(t.Context(), scanOf(needs(u)))
			if err == nil && len(resp.Lacks) > 0 {
				_, err = m.Report(t.Context(), agentproto.Report{Protocol: 1, Updates: []agentproto.Update{byID[u.ID]}})
			}
			if err == nil {
				_, err = http.Head(s.FolderURL() + name)
			}
			done <- err
		}()
	}
	for range machines {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "download", s.serves(name))
	for range machines {
		get(t, "GET", s.FolderURL()+name)
	}
	if n := s.world.Requests()[name]; n.Gets != 1 || n.Bytes != u.Files[0].Size {
		t.Errorf("Microsoft was asked %d times for %d bytes", n.Gets, n.Bytes)
	}
	if rows, _, err := s.Tasks(t.Context(), appliance.TaskQuery{}); err != nil || len(rows) != 2 { // and the scan cab's
		t.Errorf("there are %d tasks, %v", len(rows), err)
	}
}
