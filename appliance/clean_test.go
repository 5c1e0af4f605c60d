package appliance_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/microsofttest"
	"wuamesh/replicate/swarm"
)

// TestCleaning keeps what hosts need, what just came and what was just sent,
// and deletes the rest.
func TestCleaning(t *testing.T) {
	foreign, b := payload("old", ".cab", 10_000)
	s := startWith(t, map[string][]byte{foreign: b}, nil)
	list, byID := described(s.world)
	s.allow(t)
	m := s.enrol(t, 1, s.enrolToken(t, 1))
	m.report(t, needs(list[:4]...), byID)
	var names []string
	for _, u := range list[:4] {
		names = append(names, u.Files[0].Name)
		eventually(t, "download", s.serves(u.Files[0].Name))
	}
	eventually(t, "scan cab", s.serves("wsusscn2.cab"))
	needed, installed, forbidden, sent := names[0], names[1], names[2], names[3]
	st := needs(list[:4]...)
	st[1].Installed, st[3].Installed = true, true
	m.report(t, st, byID)
	if _, err := s.PutPackage(t.Context(), owner, "freeze", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{{Verb: rules.Forbid, Kind: rules.ByUpdateID, Value: string(list[2].ID)}}}); err != nil {
		t.Fatal(err)
	}
	plan := func() map[string]string {
		t.Helper()
		p, err := s.Unused(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		why := map[string]string{}
		for _, f := range p.Files {
			why[f.Name] = f.Note
		}
		return why
	}
	if p := plan(); len(p) != 0 {
		t.Errorf("fresh files are unused: %v", p)
	}
	s.Age(time.Hour)
	get(t, "GET", s.FolderURL()+sent)
	p := plan()
	if len(p) != 3 || p[installed] == "" || !strings.Contains(p[forbidden], list[2].Title) || !strings.Contains(p[foreign], "No update that hosts report") {
		t.Errorf("unused is %v", p)
	}
	if n := len(s.UnusedAtNight().Files); n != 0 {
		t.Errorf("at night %d files of today go", n)
	}
	if _, err := s.Clean(t.Context(), appliance.Actor{Name: "v", Role: appliance.Viewer}); err == nil {
		t.Error("a viewer cleans")
	}
	done, err := s.Clean(t.Context(), owner)
	if err != nil || len(done.Files) != 3 || done.Bytes <= 10_000 {
		t.Errorf("deleted %+v, %v", done, err)
	}
	for _, name := range []string{installed, forbidden, foreign} {
		if _, err := os.Stat(filepath.Join(s.dir, "waptwua", name)); !errors.Is(err, os.ErrNotExist) || s.serves(name)() == nil {
			t.Errorf("%s is there: %v", name, err)
		}
	}
	for _, name := range []string{needed, sent, "wsusscn2.cab"} {
		if err := s.serves(name)(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	log, _, err := s.Audit(t.Context(), "folder", appliance.Page{})
	if err != nil || len(log) != 1 || log[0].Actor != "maelle" || !strings.Contains(log[0].After, "3 files deleted") {
		t.Errorf("the audit log has %+v, %v", log, err)
	}
	s.Age(48 * time.Hour)
	if night := s.UnusedAtNight(); len(night.Files) != 1 || night.Files[0].Name != sent {
		t.Errorf("the next night %+v goes", night.Files)
	}
	// What was cleaned is no deletion by hand: a host that needs it gets it.
	m.report(t, needs(list[1]), byID)
	eventually(t, "needed again", s.serves(installed))
}

// TestAFoundFileWaitsForItsHosts has a file in the folder that no host needs
// yet, as after WAPT: it stays for a month, also over a restart, and by hand it
// can go at once.
func TestAFoundFileWaitsForItsHosts(t *testing.T) {
	name, b := payload("kb", ".cab", 10_000)
	s := startWith(t, map[string][]byte{name: b}, nil)
	s.stop()
	s = startIn(t, s.dir, s.world, "http://127.0.0.1:1", nil)
	eventually(t, "served", s.serves(name))
	s.Age(29 * 24 * time.Hour)
	if night := s.UnusedAtNight(); len(night.Files) != 0 {
		t.Errorf("after 29 days %+v goes", night.Files)
	}
	if p, err := s.Unused(t.Context()); err != nil || len(p.Files) != 1 {
		t.Errorf("by hand %+v goes, %v", p.Files, err)
	}
	s.Age(2 * 24 * time.Hour) // more
	if night := s.UnusedAtNight(); len(night.Files) != 1 || night.Files[0].Name != name {
		t.Errorf("after 31 days %+v goes", night.Files)
	}
}

// TestAFetchedFileIsNotFound has a file that a host fetched verified anew: it
// is no more found in the folder than before.
func TestAFetchedFileIsNotFound(t *testing.T) {
	s := start(t, nil)
	list, byID := described(s.world)
	s.allow(t)
	m := s.enrol(t, 1, s.enrolToken(t, 1))
	m.report(t, needs(list[0]), byID)
	name := list[0].Files[0].Name
	eventually(t, "download", s.serves(name))
	st := needs(list[0])
	st[0].Installed = true
	m.report(t, st, byID)
	later := time.Now().Add(time.Second)
	must(t, os.Chtimes(filepath.Join(s.dir, "waptwua", name), later, later))
	get(t, "GET", s.FolderURL()+name) // sees it
	eventually(t, "verified anew", s.serves(name))
	s.Age(48 * time.Hour)
	if night := s.UnusedAtNight(); len(night.Files) != 1 || night.Files[0].Name != name {
		t.Errorf("at night %+v goes", night.Files)
	}
}

// TestAFolderFoundBesideAnother adopts files in a mesh that has long had them:
// they are new here.
func TestAFolderFoundBesideAnother(t *testing.T) {
	_, sites := branches(t, 10_000, "hq-01", "brs-01")
	hq, branch := sites[0], sites[1]
	name, b := payload("kb", ".cab", 10_000)
	put(t, hq.dir, name, b)
	must(t, hq.Look(t.Context()))
	eventually(t, "adopted at headquarters", hq.serves(name))
	must(t, hq.AgeRecord(t.Context(), name, 100*24*time.Hour))
	eventually(t, "its age is known at the branch", func() error {
		if age := branch.AgeOfRecord(name); age < 99*24*time.Hour {
			return fmt.Errorf("%v", age)
		}
		return nil
	})
	put(t, branch.dir, name, b)
	must(t, branch.Look(t.Context()))
	eventually(t, "adopted at the branch", branch.serves(name))
	branch.Age(25 * time.Hour)
	if night := branch.UnusedAtNight(); len(night.Files) != 0 {
		t.Errorf("the first night %+v goes", night.Files)
	}
}

// TestDescribedAnew loses the manifest of a file that was just sent: that it
// is described anew is no reason to clean it earlier.
func TestDescribedAnew(t *testing.T) {
	name, b := payload("sent", ".cab", 10_000)
	s := startWith(t, map[string][]byte{name: b}, nil)
	s.Age(48 * time.Hour)
	get(t, "GET", s.FolderURL()+name)
	if err := os.RemoveAll(filepath.Join(s.dir, "waptwua", ".pieces")); err != nil {
		t.Fatal(err)
	}
	if err := s.Describe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if made, err := os.ReadDir(filepath.Join(s.dir, "waptwua", ".pieces")); err != nil || len(made) == 0 {
		t.Fatalf("manifests: %v, %v", made, err)
	}
	if night := s.UnusedAtNight(); len(night.Files) != 0 {
		t.Errorf("what was just sent goes this night: %+v", night.Files)
	}
}

// TestAnAdminsDownloadIsCleanedLater forces an update that no host may
// install; it is fetched, and unused.
func TestAnAdminsDownloadIsCleanedLater(t *testing.T) {
	s := start(t, nil)
	list, byID := described(s.world)
	s.enrol(t, 1, s.enrolToken(t, 1)).report(t, needs(list[0]), byID)
	if n, err := s.DownloadUpdates(t.Context(), owner, []rules.UpdateID{list[0].ID}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	name := list[0].Files[0].Name
	eventually(t, "download", s.serves(name))
	s.Age(time.Hour)
	if p, err := s.Unused(t.Context()); err != nil || len(p.Files) != 1 {
		t.Errorf("unused is %+v, %v", p, err)
	}
	if n, err := s.DownloadUpdates(t.Context(), owner, []rules.UpdateID{list[0].ID}); n != 0 || err != nil {
		t.Errorf("it is queued again: %d, %v", n, err)
	}
	if _, err := s.DownloadUpdates(t.Context(), owner, []rules.UpdateID{"00000000-0000-4000-8000-000000000000"}); err == nil {
		t.Error("an unknown update is downloaded")
	}
}

func TestNextCleaning(t *testing.T) {
	paris, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		t.Fatal(err)
	}
	at := func(s string) time.Time {
		v, err := time.ParseInLocation("2006-01-02 15:04", s, paris)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, tt := range []struct {
		now    string
		minute int
		want   string
	}{
		{"2026-11-24 14:00", 0, "2026-11-25 02:30"},
		{"2026-11-24 00:10", 59, "2026-11-24 03:29"},
		{"2026-11-24 02:30", 0, "2026-11-25 02:30"},  // just cleaned
		{"2026-11-24 02:30", 50, "2026-11-25 03:20"}, // the same night is not cleaned twice
		{"2026-12-31 23:00", 5, "2027-01-01 02:35"},
		{"2026-10-24 12:00", 10, "2026-10-25 02:40"}, // summer time ends
	} {
		if got := appliance.NextCleaning(at(tt.now), tt.minute); !got.Equal(at(tt.want)) {
			t.Errorf("after %s, minute %d: %s, want %s", tt.now, tt.minute, got, tt.want)
		}
	}
	// 02:30 does not exist when summer time begins; it is cleaned all the same.
	if got := appliance.NextCleaning(at("2026-03-28 12:00"), 0); got.Day() != 29 || got.Hour() > 3 {
		t.Errorf("in the short night: %s", got)
	}
}

// smallDisk makes dir a disk of its own, so large. That takes root, as the
// check has; whoever is root and cannot mount has a failing test, not none.
func smallDisk(t *testing.T, dir, size string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal("mount a small disk: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// TestCleaningAFullDisk has records and folder on one disk, which is full: no
// record can be written, and cleaning makes room all the same.
func TestCleaningAFullDisk(t *testing.T) {
	dir := t.TempDir()
	smallDisk(t, dir, "100m")
	name, b := payload("kb", ".cab", 40<<20)
	put(t, dir, name, b)
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 1000})
	s := startIn(t, dir, world, "http://127.0.0.1:1", func(c *appliance.Config) { c.Internet = false })
	defer s.stop()
	eventually(t, name, s.serves(name))
	s.Age(time.Hour)
	junk, err := os.Create(filepath.Join(dir, "junk"))
	for b := make([]byte, 64<<10); err == nil; {
		_, err = junk.Write(b)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	junk.Close()
	_, err = s.PutPackage(t.Context(), owner, "later", appliance.PackageEdit{Maturity: rules.Prod})
	if p, ok := appliance.AsProblem(err); !ok || p.Kind != appliance.Full {
		t.Errorf("an edit on a full disk: %v", err)
	}
	if plan, err := s.Clean(t.Context(), owner); err != nil || len(plan.Files) != 1 {
		t.Errorf("cleaning deletes %d files: %v", len(plan.Files), err)
	}
	if _, err := s.PutPackage(t.Context(), owner, "later", appliance.PackageEdit{Maturity: rules.Prod}); err != nil {
		t.Errorf("with space again: %v", err)
	}
}

// TestWhatNoDownloadGoesOnWith has a branch fetch files from another node,
// slowly: of one that an admin cancels and no host needs nothing stays, and the
// nightly cleaning deletes what is older than a week, but not of one that is
// paused.
func TestWhatNoDownloadGoesOnWith(t *testing.T) {
	t.Parallel()
	world, list := branches(t, 8<<20, "hq-01", "brs-01")
	branch := list[1]
	limit(t, branch, appliance.Limits{WANDown: swarm.Plan{Rate: 2 << 20}})
	all, byID := described(world)
	branch.enrol(t, 1, branch.enrolToken(t, 1)).report(t, needs(all[:2]...), byID)
	arriving := func(i int) appliance.Task {
		t.Helper()
		if _, err := branch.DownloadUpdates(t.Context(), owner, []rules.UpdateID{all[i].ID}); err != nil {
			t.Fatal(err)
		}
		return branch.has(t, all[i].Files[0].Name, func(k appliance.Task) bool { return k.Status == "running" && k.Done > 1<<20 })
	}
	partials := func() []string {
		t.Helper()
		list, err := filepath.Glob(filepath.Join(branch.dir, "waptwua", ".partial", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if _, err := branch.SteerDownload(t.Context(), owner, arriving(0).ID, appliance.CancelTask); err != nil {
		t.Fatal(err)
	}
	if left := partials(); len(left) != 0 {
		t.Errorf("of a cancelled download there is %q", left)
	}
	if _, err := branch.SteerDownload(t.Context(), owner, arriving(1).ID, appliance.PauseTask); err != nil {
		t.Fatal(err)
	}
	paused := partials()
	old := filepath.Join(branch.dir, "waptwua", ".partial", strings.Repeat("ab", 32))
	if err := os.WriteFile(old, []byte("begun"), 0o644); err != nil || len(paused) == 0 {
		t.Fatal(err, paused)
	}
	for _, path := range partials() {
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-8*24*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := branch.Clean(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	if left := partials(); !slices.Equal(left, paused) {
		t.Errorf("the cleaning leaves %q, not %q", left, paused)
	}
}
