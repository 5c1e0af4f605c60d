package appliance_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft"
	"wuamesh/appliance/microsoft/microsofttest"
)

// steer does something to the download of a file.
func (s *site) steer(t testing.TB, file string, do appliance.TaskAction) appliance.Task {
	t.Helper()
	k, err := s.SteerDownload(t.Context(), owner, s.task(t, file).ID, do)
	if err != nil {
		t.Fatalf("%s %s: %v", do, file, err)
	}
	return k
}

// TestPausingADownload pauses a file in the middle: nothing of it moves, also
// when hosts ask, when everything is asked for and after a restart; resumed it
// goes on where it was.
func TestPausingADownload(t *testing.T) {
	t.Parallel()
	g, url := newGate(t, 100_000)
	dir := t.TempDir()
	s := startIn(t, dir, g.world, url, nil)
	s.wants(t, 1)
	g.arrives(t, dir)
	if k := s.steer(t, g.name, appliance.PauseTask); k.Status != "paused" || !strings.HasPrefix(k.Waiting, "Paused by "+owner.Name) || k.Attempts != 0 {
		t.Errorf("paused it is %+v", k)
	}
	if code, said := s.asks(t, g.name); code != 503 || !strings.Contains(said, "Paused by "+owner.Name) {
		t.Errorf("a host that asks is told %d, %s", code, said)
	}
	must(t, second(s.DownloadMissing(t.Context(), owner)))
	if k := s.task(t, g.name); k.Hosts != 1 {
		t.Errorf("%d hosts wait for it, not the one that asked", k.Hosts)
	}
	if _, err := s.SteerDownload(t.Context(), owner, s.task(t, g.name).ID, appliance.RetryTask); problemOf(t, err).Kind != appliance.Conflict {
		t.Errorf("a paused one is tried again: %v", err)
	}
	s.stop()
	s = startIn(t, dir, g.world, url, nil)
	s.had(t, microsoft.ScanCabName, func(k appliance.Task) bool { return k.Status == "done" || k.Status == "unchanged" })
	if k := s.task(t, g.name); k.Status != "paused" {
		t.Errorf("after a restart it is %+v", k)
	}
	s.steer(t, g.name, appliance.ResumeTask)
	k := s.has(t, g.name, status("done"))
	eventually(t, "served", s.serves(g.name))
	if k.Waiting != "" || k.Fetched != k.Size-100_000 && k.Fetched != k.Size {
		t.Errorf("at the end it is %+v", k)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if want := []string{"", "bytes=100000-"}; !slices.Equal(g.ranges, want) {
		t.Errorf("Microsoft was asked for %q, want %q", g.ranges, want)
	}
	if _, err := s.SteerDownload(t.Context(), owner, k.ID, appliance.PauseTask); problemOf(t, err).Kind != appliance.Conflict {
		t.Errorf("one that ended is paused: %v", err)
	}
	if _, err := s.SteerDownload(t.Context(), owner, "nothing", appliance.PauseTask); problemOf(t, err).Kind != appliance.NotFound {
		t.Errorf("one that is not there is paused: %v", err)
	}
	if _, err := s.SteerDownload(t.Context(), appliance.Actor{Name: "v", Role: appliance.Viewer}, k.ID, appliance.PauseTask); problemOf(t, err).Kind != appliance.Denied {
		t.Errorf("a viewer pauses: %v", err)
	}
}

// TestCancellingADownload takes a file that hosts need out of the queue: it
// stays away until one asks, what had arrived is used then. Of one that nobody
// needs nothing stays.
func TestCancellingADownload(t *testing.T) {
	t.Parallel()
	g, url := newGate(t, 100_000)
	dir := t.TempDir()
	s := startIn(t, dir, g.world, url, nil)
	partial := filepath.Join(dir, "waptwua", ".partial", g.name)
	list, _ := described(g.world)
	s.wants(t, 1)
	g.arrives(t, dir)
	k := s.steer(t, g.name, appliance.CancelTask)
	if k.Status != "cancelled" || k.Error != "Cancelled by "+owner.Name+"." || k.Finished.IsZero() {
		t.Errorf("cancelled it is %+v", k)
	}
	must(t, second(s.DownloadMissing(t.Context(), owner)))
	if again := s.task(t, g.name); again.ID != k.ID {
		t.Errorf("nobody asked for it, and it is %+v", again)
	}
	if _, err := os.Stat(partial); err != nil {
		t.Errorf("what arrived of a file that a host needs is gone: %v", err)
	}
	if code, _ := s.asks(t, g.name); code != 503 {
		t.Errorf("a host that asks is told %d", code)
	}
	if k = s.has(t, g.name, status("done")); k.Fetched >= k.Size {
		t.Errorf("it came anew, not from where it was: %+v", k)
	}

	// A file that only an admin asked for.
	other := list[1]
	name := other.Files[0].Name
	g.world.Fault(name, microsofttest.Fault{Delay: time.Hour})
	must(t, second(s.DownloadUpdates(t.Context(), owner, []rules.UpdateID{other.ID})))
	s.has(t, name, status("running"))
	if k := s.steer(t, name, appliance.CancelTask); k.Status != "cancelled" {
		t.Errorf("cancelled it is %+v", k)
	}
	if _, err := os.Stat(filepath.Join(dir, "waptwua", ".partial", name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something of a file that nobody needs is here: %v", err)
	}
}

// TestPuttingADownloadFirst has both connections to Microsoft busy and two
// files waiting: the one put first begins at once, before the one that more
// hosts need.
func TestPuttingADownloadFirst(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.has(t, microsoft.ScanCabName, status("done"))
	list, byID := described(s.world)
	var names []string
	for _, u := range list[:4] {
		names = append(names, u.Files[0].Name)
		s.world.Fault(u.Files[0].Name, microsofttest.Fault{Delay: time.Hour})
	}
	token := s.enrolToken(t, 4)
	s.allow(t)
	for n, needed := range []int{4, 3, 2} { // 3 hosts wait for the first two, 2 for the third, 1 for the last
		s.enrol(t, n+1, token).report(t, needs(list[:needed]...), byID)
	}
	s.has(t, names[0], status("running"))
	s.has(t, names[1], status("running"))
	s.has(t, names[2], status("queued"))
	s.has(t, names[3], status("queued"))
	if k := s.steer(t, names[3], appliance.FirstTask); k.First.IsZero() || slices.Contains(k.Actions(), appliance.FirstTask) {
		t.Errorf("put first it is %+v", k)
	}
	s.has(t, names[3], status("running"))
	if k := s.task(t, names[2]); k.Status != "queued" {
		t.Errorf("what more hosts need is %+v", k)
	}
}

// BenchmarkNextDownload looks through a queue of ten thousand files in a mesh
// of which two nodes may ask Microsoft.
func BenchmarkNextDownload(b *testing.B) {
	s := startIn(b, b.TempDir(), nil, "http://127.0.0.1:1", func(c *appliance.Config) { c.Internet = false })
	if err := s.QueueMany(b.Context(), 10_000); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.NextTask()
	}
}
