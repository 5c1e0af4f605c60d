package appliance_test

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft"
	"wuamesh/appliance/microsoft/microsofttest"
)

var quiet = slog.New(slog.DiscardHandler)

// wants makes a host that needs the first n updates and may install them.
func (s *site) wants(t testing.TB, n int) (names []string) {
	t.Helper()
	list, byID := described(s.world)
	s.allow(t)
	s.enrol(t, 1, s.enrolToken(t, 1)).report(t, needs(list[:n]...), byID)
	for _, u := range list[:n] {
		names = append(names, u.Files[0].Name)
	}
	return names
}

// TestWhatMovesFirst has two files come slowly: the one that more hosts wait
// for is named first, and how many wait.
func TestWhatMovesFirst(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	list, byID := described(s.world)
	few, many := list[0], list[1]
	for _, u := range []agentproto.Update{few, many} {
		s.world.Fault(u.Files[0].Name, microsofttest.Fault{Delay: time.Hour})
	}
	token := s.enrolToken(t, 3)
	s.allow(t)
	s.enrol(t, 1, token).report(t, needs(few, many), byID)
	s.enrol(t, 2, token).report(t, needs(many), byID)
	s.enrol(t, 3, token).report(t, needs(many), byID)
	eventually(t, "the files move", func() error {
		if rows, all := s.Moving(1); all != 2 || rows[0].File != many.Files[0].Name || rows[0].Hosts != 3 {
			return fmt.Errorf("the first of %d is %+v", all, rows)
		}
		return nil
	})
	if rows, all := s.Moving(8); all != 2 || len(rows) != 2 || rows[1].File != few.Files[0].Name || rows[1].Hosts != 1 {
		t.Errorf("%d move: %+v", all, rows)
	}
}

// TestWhatIsPressingBegins has two downloads that do not end take all that is
// meant for what nobody waits for: what a host asks for comes beside them, and
// the scan cab beside what hosts ask for.
func TestWhatIsPressingBegins(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.had(t, cab, status("done"))
	list, _ := described(s.world)
	for i, u := range list[:4] {
		if i != 2 {
			s.world.Fault(u.Files[0].Name, microsofttest.Fault{Delay: time.Hour})
		}
	}
	names := s.wants(t, 2)
	for _, name := range names {
		s.has(t, name, status("running"))
	}
	if _, err := s.DownloadUpdates(t.Context(), owner, []rules.UpdateID{list[2].ID}); err != nil {
		t.Fatal(err)
	}
	s.has(t, list[2].Files[0].Name, status("done"))
	if _, err := s.DownloadUpdates(t.Context(), owner, []rules.UpdateID{list[3].ID}); err != nil {
		t.Fatal(err)
	}
	s.has(t, list[3].Files[0].Name, status("running"))
	if err := s.DownloadCab(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	s.had(t, cab, func(k appliance.Task) bool { return k.Status == "unchanged" && k.By == owner.Name })
}

// TestRetryingDownloads fails a file and asks for it again before it is due.
func TestRetryingDownloads(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.Waits(time.Hour, time.Hour)
	list, _ := described(s.world)
	name := list[0].Files[0].Name
	s.world.Fault(name, microsofttest.Fault{Status: 503})
	s.wants(t, 1)
	s.has(t, name, status("failed"))
	if _, err := s.RetryDownloads(t.Context(), appliance.Actor{Name: "v", Role: appliance.Viewer}); err == nil {
		t.Error("a viewer has files tried again")
	}
	if n, err := s.RetryDownloads(t.Context(), owner); n != 1 || err != nil {
		t.Errorf("%d are tried again, %v", n, err)
	}
	eventually(t, "the second try", s.serves(name))
	if n, err := s.RetryDownloads(t.Context(), owner); n != 0 || err != nil {
		t.Errorf("nothing failed, and %d are tried again, %v", n, err)
	}
}

// TestEveryStepOfAnUnluckyDownload has one file truncated, refused, corrupted
// and right at last. The admin asks for each try.
func TestEveryStepOfAnUnluckyDownload(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	list, _ := described(s.world)
	name, size := list[0].Files[0].Name, list[0].Files[0].Size
	s.Waits(time.Hour, time.Hour)
	s.world.Fault(name, microsofttest.Fault{Truncate: 50_000}, microsofttest.Fault{Status: 503}, microsofttest.Fault{Corrupt: true})
	s.wants(t, 1)
	for try, want := range []struct{ msg, hint string }{
		{"The connection broke before the file was whole.", "goes on where"},
		{"Microsoft answered 503 Service Unavailable.", "next try"},
		{"The file that arrived has SHA-1", "proxy"},
	} {
		k := s.has(t, name, func(k appliance.Task) bool { return k.Status == "failed" && k.Attempts == try+1 })
		if !strings.Contains(k.Error, want.msg) || !strings.Contains(k.Hint, want.hint) || time.Until(k.NextTry) < 59*time.Minute {
			t.Errorf("try %d: %q, %q, next %s", try+1, k.Error, k.Hint, k.NextTry)
		}
		if try < 2 && k.Done != 50_000 {
			t.Errorf("try %d: %d bytes are kept", try+1, k.Done)
		}
		if n, err := s.DownloadMissing(t.Context(), owner); n != 1 || err != nil {
			t.Errorf("%d files are tried again, %v", n, err)
		}
	}
	k := s.has(t, name, status("done"))
	if k.Attempts != 4 || k.Error != "" || k.Fetched != 2*size || k.Done != size || k.By != "schedule, maelle" {
		t.Errorf("the task is %+v", k)
	}
	if n := s.world.Requests()[name].Bytes; n != 2*size { // what was truncated was resumed, what was corrupted came anew
		t.Errorf("%d bytes moved, want %d", n, 2*size)
	}
}

// TestFiveWrongFilesAreOneADay stops hurrying after five wrong files in a row.
func TestFiveWrongFilesAreOneADay(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	list, _ := described(s.world)
	name := list[0].Files[0].Name
	s.Waits(time.Millisecond, time.Hour)
	for range 6 {
		s.world.Fault(name, microsofttest.Fault{Corrupt: true})
	}
	s.wants(t, 1)
	k := s.has(t, name, func(k appliance.Task) bool { return k.Attempts == 5 && k.Status == "failed" })
	if !strings.HasPrefix(k.Error, "5 times in a row: The file that arrived") || time.Until(k.NextTry) < 23*time.Hour {
		t.Errorf("%q, next try %s", k.Error, k.NextTry)
	}
	st, err := s.Status(t.Context())
	if err != nil || len(st.Attention) == 0 {
		t.Errorf("nobody is told: %+v, %v", st.Attention, err)
	}
}

func TestBackoff(t *testing.T) {
	for try, want := range map[int]time.Duration{0: time.Minute, 1: time.Minute, 2: 2 * time.Minute, 5: 16 * time.Minute, 9: 256 * time.Minute, 10: 6 * time.Hour, 1000: 6 * time.Hour} {
		for range 100 {
			if got := appliance.Backoff(try); got < want*4/5 || got > want*6/5 {
				t.Fatalf("after try %d: %s, want about %s", try, got, want)
			}
		}
	}
}

// A gate stands before Microsoft and holds one file back in the middle.
type gate struct {
	world *microsofttest.World
	name  string
	after int64
	held  chan struct{} // closed when the file is held back

	mu     sync.Mutex
	open   bool
	ranges []string // of the requests for the file
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	open := g.open || path.Base(r.URL.Path) != g.name
	if !open || path.Base(r.URL.Path) == g.name {
		g.ranges = append(g.ranges, r.Header.Get("Range"))
	}
	g.mu.Unlock()
	if !open {
		w = &half{ResponseWriter: w, left: g.after, g: g, gone: r.Context().Done()}
	}
	g.world.ServeHTTP(w, r)
}

// half passes some bytes and then waits for the caller to go.
type half struct {
	http.ResponseWriter
	left int64
	g    *gate
	gone <-chan struct{}
}

func (h *half) Write(p []byte) (int, error) {
	if int64(len(p)) <= h.left {
		h.left -= int64(len(p))
		return h.ResponseWriter.Write(p)
	}
	h.ResponseWriter.Write(p[:h.left])
	http.NewResponseController(h.ResponseWriter).Flush()
	h.g.mu.Lock()
	if !h.g.open {
		h.g.open = true
		close(h.g.held)
	}
	h.g.mu.Unlock()
	<-h.gone
	return 0, errors.New("the caller left")
}

func newGate(t testing.TB, after int64) (*gate, string) {
	t.Helper()
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 400_000})
	list, _ := described(world)
	g := &gate{world: world, name: list[0].Files[0].Name, after: after, held: make(chan struct{})}
	srv := httptest.NewServer(g)
	t.Cleanup(srv.Close)
	return g, srv.URL
}

// arrives waits until what passes the gate is in the folder of a node.
func (g *gate) arrives(t testing.TB, dir string) {
	t.Helper()
	<-g.held
	eventually(t, "the first bytes", func() error {
		info, err := os.Stat(filepath.Join(dir, "waptwua", ".partial", g.name))
		if err == nil && info.Size() != g.after {
			err = fmt.Errorf("%d bytes", info.Size())
		}
		return err
	})
}

// TestAStopResumes stops the node in the middle of a file and starts it.
func TestAStopResumes(t *testing.T) {
	t.Parallel()
	g, url := newGate(t, 100_000)
	dir := t.TempDir()
	s := startIn(t, dir, g.world, url, nil)
	s.wants(t, 1)
	g.arrives(t, dir)
	s.stop()
	s = startIn(t, dir, g.world, url, nil)
	k := s.has(t, g.name, status("done"))
	eventually(t, "served", s.serves(g.name))
	if k.Attempts != 2 || k.Fetched >= k.Size {
		t.Errorf("the task is %+v", k)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.ranges) != 2 || g.ranges[0] != "" || g.ranges[1] != "bytes=100000-" {
		t.Errorf("Microsoft was asked for %q", g.ranges)
	}
}

// TestTheNewestOfATaskIsStored queues more files than one change set takes.
// The first to be downloaded is stored as begun before it is stored as queued.
func TestTheNewestOfATaskIsStored(t *testing.T) {
	t.Parallel()
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 1000})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path.Base(r.URL.Path) != microsoft.ScanCabName {
			<-r.Context().Done() // no download ends
		}
		world.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	s := startIn(t, t.TempDir(), world, srv.URL, nil)
	s.has(t, microsoft.ScanCabName, status("done"))
	var ids []rules.UpdateID
	var first string // by its name; it is queued last
	list, byID := []agentproto.Update{}, map[rules.UpdateID]agentproto.Update{}
	like, _ := described(world)
	for i := range appliance.Batch + 50 {
		u, sum := like[0], sha1.Sum([]byte{byte(i), byte(i >> 8)})
		u.ID = rules.UpdateID(fmt.Sprintf("20000000-0000-4000-8000-%012d", i))
		first = fmt.Sprintf("kb%04d_%x.cab", 9999-i, sum)
		u.Files = []agentproto.File{{Name: first, URL: "http://download.windowsupdate.com/c/" + first, Size: 1000, SHA1: fmt.Sprintf("%x", sum)}}
		ids, list, byID[u.ID] = append(ids, u.ID), append(list, u), u
	}
	s.enrol(t, 1, s.enrolToken(t, 1)).report(t, needs(list...), byID)
	release := s.HoldStore(t.Context())
	queued := make(chan error)
	go func() {
		_, err := s.DownloadUpdates(t.Context(), owner, ids)
		queued <- err
	}()
	running := s.has(t, first, status("running"))
	release()
	if err := <-queued; err != nil {
		t.Fatal(err)
	}
	if k, err := s.StoredTask(t.Context(), running.ID); err != nil || k.Status != "running" || k.Attempts != 1 {
		t.Errorf("the task that runs is stored as %+v, %v", k, err)
	}
}

// TestKilledInTheMiddle kills a node, a process of its own, in the middle of
// a download. What was verified is not fetched again, what was not is not
// served, and the rest goes on where it was.
func TestKilledInTheMiddle(t *testing.T) {
	const dirKey, urlKey = "WUAMESH_TEST_DIR", "WUAMESH_TEST_UPSTREAM"
	if dir := os.Getenv(dirKey); dir != "" { // the process that is killed
		world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 400_000})
		startIn(t, dir, world, os.Getenv(urlKey), nil).wants(t, 12)
		<-t.Context().Done()
		return
	}
	t.Parallel()
	g, url := newGate(t, 150_000)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKilledInTheMiddle$")
	child.Env = append(os.Environ(), dirKey+"="+dir, urlKey+"="+url)
	child.Stdout, child.Stderr = t.Output(), t.Output()
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-g.held:
	case <-time.After(20 * time.Second):
		t.Fatal("the child downloads nothing")
	}
	files := func() (names []string) {
		all, err := filepath.Glob(filepath.Join(dir, "waptwua", "*_*.cab"))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			names = append(names, filepath.Base(p))
		}
		return names
	}
	eventually(t, "a few files arrive beside it", func() error {
		if n := len(files()); n < 5 {
			return fmt.Errorf("%d files", n)
		}
		return nil
	})
	if err := child.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	child.Wait()
	before := files()
	s := startIn(t, dir, g.world, url, nil)
	list, _ := described(g.world)
	if resp, body := get(t, "GET", s.FolderURL()+g.name); resp.StatusCode == 200 && int64(len(body)) != list[0].Files[0].Size {
		t.Errorf("%d bytes of an unfinished file are served", len(body))
	}
	for _, u := range list[:12] {
		eventually(t, "served", s.serves(u.Files[0].Name))
	}
	counts := g.world.Requests()
	for _, name := range before {
		if n := counts[name].Gets; n != 1 {
			t.Errorf("%s was there and was fetched %d times", name, n)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if last := g.ranges[len(g.ranges)-1]; !strings.HasPrefix(last, "bytes=") {
		t.Errorf("the unfinished file began anew: %q", g.ranges)
	}
}

// TestAFullDisk puts the folder on a disk of a few hundred kilobytes and
// makes it larger.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	folder := filepath.Join(dir, "waptwua")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	smallDisk(t, folder, "900k")
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 400_000})
	srv := httptest.NewServer(world)
	defer srv.Close()
	s := startIn(t, dir, world, srv.URL, func(c *appliance.Config) { c.DiskFloor = 100_000 })
	defer s.stop()
	s.Waits(time.Hour, 50*time.Millisecond)
	names := s.wants(t, 4)
	var stuck appliance.Task
	eventually(t, "no room", func() error {
		for _, name := range names {
			if k := s.task(t, name); k.Status == "queued" && k.Error != "" {
				stuck = k
				return nil
			}
		}
		return errors.New("nothing waits")
	})
	if !strings.HasPrefix(stuck.Error, "rns-01 has ") || !strings.Contains(stuck.Error, " free and needs ") || !strings.Contains(stuck.Hint, "disk_floor") {
		t.Errorf("it says %q, %q", stuck.Error, stuck.Hint)
	}
	if free, err := microsoft.Free(folder); err != nil || free < 100_000 {
		t.Errorf("%d bytes are free, %v", free, err)
	}
	if err := syscall.Mount("tmpfs", folder, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		eventually(t, "space came back", s.serves(name))
	}
	for _, name := range names {
		if k := s.task(t, name); k.Status != "done" || k.Attempts != 1 || k.Error != "" {
			t.Errorf("the task is %+v", k)
		}
	}
}

// TestTasksAreListedInPages walks through tasks page by page.
func TestTasksAreListedInPages(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	names := s.wants(t, 10)
	for _, name := range names {
		s.has(t, name, status("done"))
	}
	s.had(t, "wsusscn2.cab", status("done"))
	seen := map[string]bool{}
	for p := (appliance.Page{Limit: 4}); ; {
		list, next, err := s.Tasks(t.Context(), appliance.TaskQuery{Status: "done", Page: p})
		if err != nil || len(list) > 4 {
			t.Fatal(len(list), err)
		}
		for _, k := range list {
			if seen[k.ID] {
				t.Errorf("%s comes twice", k.File)
			}
			seen[k.ID] = true
		}
		if next == "" {
			break
		}
		p.After = next
	}
	if len(seen) != 11 {
		t.Errorf("%d tasks came", len(seen))
	}
	if list, _, err := s.Tasks(t.Context(), appliance.TaskQuery{Status: "failed"}); err != nil || len(list) != 0 {
		t.Errorf("%d failed, %v", len(list), err)
	}
}

// TestHistoryIsBounded keeps 2,000 ended tasks, and none of a hundred days ago.
func TestHistoryIsBounded(t *testing.T) {
	s := start(t, nil)
	s.had(t, "wsusscn2.cab", status("done"))
	for _, tt := range []struct {
		n    int
		ago  time.Duration
		want int
	}{{50, 100 * 24 * time.Hour, 1}, {50, 80 * 24 * time.Hour, 51}, {2500, 79 * 24 * time.Hour, 2000}} {
		if n, err := s.Prune(t.Context(), tt.n, tt.ago); n != tt.want || err != nil {
			t.Errorf("after %d more there are %d, want %d: %v", tt.n, n, tt.want, err)
		}
	}
}

// TestWhatNobodyWaitsForLeavesTheQueue forbids an update while its file waits
// for its next try.
func TestWhatNobodyWaitsForLeavesTheQueue(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	list, _ := described(s.world)
	name := list[0].Files[0].Name
	s.Waits(time.Hour, time.Hour)
	s.world.Fault(name, microsofttest.Fault{Truncate: 10_000})
	s.wants(t, 1)
	s.has(t, name, status("failed"))
	partial := filepath.Join(s.dir, "waptwua", ".partial", name)
	if _, err := os.Stat(partial); err != nil {
		t.Fatal(err)
	}
	if err := s.DeletePackage(t.Context(), owner, "everything"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it leaves", func() error {
		if _, err := os.Stat(partial); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the partial file is there: %v", err)
		}
		if k := s.task(t, name); k.ID != "" {
			return fmt.Errorf("the task is %+v", k)
		}
		return nil
	})
}

// TestWithoutInternet fetches nothing and says so.
func TestWithoutInternet(t *testing.T) {
	s := start(t, func(c *appliance.Config) { c.Internet = false })
	name := s.wants(t, 1)[0]
	_, missing := s.DownloadMissing(t.Context(), owner)
	for _, err := range []error{missing, s.DownloadCab(t.Context(), owner)} {
		if p, ok := errors.AsType[*appliance.Problem](err); !ok || !strings.Contains(p.Msg, "internet = false") {
			t.Errorf("it says %v", err)
		}
	}
	if resp, _ := get(t, "GET", s.FolderURL()+name); resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1800" {
		t.Errorf("an agent gets %s, %v", resp.Status, resp.Header)
	}
	st, err := s.Status(t.Context())
	if err != nil || st.Cab.Held || !strings.Contains(st.Cab.Note, "does not download") || len(s.world.Requests()) != 0 {
		t.Errorf("%+v, %v, asked for %v", st.Cab, err, s.world.Requests())
	}
}
