package appliance_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
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

// inMesh starts a node and joins it to the first of the list, if there is one.
func inMesh(t testing.TB, dir string, world *microsofttest.World, upstream, name string, first *site, change func(*appliance.Config)) *site {
	t.Helper()
	s := startIn(t, dir, world, upstream, func(c *appliance.Config) {
		c.Name, c.Site, c.Internet = name, name, strings.HasPrefix(name, "hq")
		if change != nil {
			change(c)
		}
	})
	if first != nil {
		s.joinTo(t, first)
	}
	return s
}

// rot changes bytes of a file everywhere, as a disk does: its time stays.
func rot(t testing.TB, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for off := int64(100); off < info.Size(); off += 100_000 {
		if _, err := f.WriteAt([]byte("rot"), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(path, time.Time{}, info.ModTime()); err != nil {
		t.Fatal(err)
	}
}

// told waits until a node's overview says something with all the words.
func (s *site) told(t testing.TB, words ...string) {
	t.Helper()
	eventually(t, s.NodeName()+" tells it", func() error {
		st, err := s.Status(t.Context())
		if err != nil {
			return err
		}
	next:
		for _, a := range st.Attention {
			for _, w := range words {
				if !strings.Contains(a.Fact, w) {
					continue next
				}
			}
			return nil
		}
		return fmt.Errorf("it tells %+v", st.Attention)
	})
}

// TestARottenFileHeals has the disk of a branch change a file without a trace:
// the next who asks for a piece does not get it, the file is fetched again,
// and every node's overview says so.
func TestARottenFileHeals(t *testing.T) {
	t.Parallel()
	world, list := branches(t, 3_000_000, "hq-01", "brs-01")
	hq, brs := list[0], list[1]
	name := brs.wants(t, 1)[0]
	brs.has(t, name, status("done"))
	eventually(t, "served", brs.serves(name))
	path := filepath.Join(brs.dir, "waptwua", name)
	right, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rot(t, path)
	lor := inMesh(t, t.TempDir(), world, "http://127.0.0.1:1", "lor-01", hq, nil)
	lor.has(t, name, status("done"))
	is := func(s *site) error {
		if err := s.serves(name)(); err != nil {
			return err
		}
		if got, err := os.ReadFile(filepath.Join(s.dir, "waptwua", name)); err != nil || !bytes.Equal(got, right) {
			return fmt.Errorf("it is wrong: %v", err)
		}
		return nil
	}
	eventually(t, "the right file on lor-01", func() error { return is(lor) })
	eventually(t, "the right file on brs-01", func() error {
		err := is(brs)
		if err != nil && is(lor) == nil { // it had all from headquarters before it was connected to the branch
			os.Remove(filepath.Join(lor.dir, "waptwua", name))
			lor.Scrub(t.Context(), name)
		}
		return err
	})
	for _, s := range []*site{hq, brs, lor} {
		s.told(t, "The disk of brs-01 changed 1 file", name)
	}
}

// TestTheFolderIsReadAgain has a file rot that nobody asks for: reading the
// folder again goes on where it was before the node was restarted, finds it, and
// the file comes from a peer.
func TestTheFolderIsReadAgain(t *testing.T) {
	t.Parallel()
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 300_000})
	srv := httptest.NewServer(world)
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	hq := inMesh(t, t.TempDir(), world, srv.URL, "hq-01", nil, nil)
	branch := inMesh(t, dir, world, "http://127.0.0.1:1", "brs-01", hq, nil)
	names := branch.wants(t, 3)
	for _, name := range names {
		branch.has(t, name, status("done"))
	}
	slices.Sort(names)
	path := filepath.Join(dir, "waptwua", names[1])
	right, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := branch.PutScrub(t.Context(), names[0], time.Now().Add(-7*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	branch.stop()
	rot(t, path)
	branch = startIn(t, dir, world, "http://127.0.0.1:1", func(c *appliance.Config) { c.Name, c.Site, c.Internet = "brs-01", "brs-01", false })
	branch.told(t, "The disk of brs-01 changed 1 file", names[1])
	eventually(t, "the right file", func() error {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, right) {
			return fmt.Errorf("it is wrong: %v", err)
		}
		return branch.serves(names[1])()
	})
}

// TestALyingNodeIsShown has a node that believes in a wrong file, manifest and
// all: what it sends is thrown away, the file comes from another, and every
// node's pages say who it was.
func TestALyingNodeIsShown(t *testing.T) {
	t.Parallel()
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 1_500_000})
	srv := httptest.NewServer(world)
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	hq := inMesh(t, t.TempDir(), world, srv.URL, "hq-01", nil, nil)
	liar := inMesh(t, dir, world, srv.URL, "brs-01", hq, nil)
	name := hq.wants(t, 1)[0]
	liar.has(t, name, status("done"))
	liar.stop()
	liar = startIn(t, dir, world, srv.URL, func(c *appliance.Config) { c.Name, c.Site, c.Internet = "brs-01", "brs-01", false })
	if _, err := hq.PutPackage(t.Context(), owner, "later", appliance.PackageEdit{Maturity: rules.Prod}); err != nil {
		t.Fatal(err)
	}
	liar.sees(t, "later") // by now it has looked at its own manifests, of which a wrong one is made again
	lies(t, filepath.Join(dir, "waptwua"), name)
	lor := inMesh(t, t.TempDir(), world, srv.URL, "lor-01", hq, nil)
	lor.has(t, name, status("done"))
	eventually(t, "the file", lor.serves(name))
	for _, s := range []*site{hq, lor} {
		s.told(t, "brs-01 sent lor-01", "wrong piece", name)
	}
	rows, err := hq.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range rows {
		if has := strings.Contains(strings.Join(n.Problems, " "), "wrong piece"); has != (n.Name == "brs-01") {
			t.Errorf("the problems of %s are %q", n.Name, n.Problems)
		}
	}
}

// lies makes a node believe in a wrong file, of which it has sent nothing since
// its start: its disk has one, and a manifest whose pieces agree with it.
func lies(t testing.TB, folder, name string) {
	t.Helper()
	path := filepath.Join(folder, name)
	right, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rot(t, path)
	wrong, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	make := func(b []byte) *swarm.Manifest {
		m, err := swarm.Make(t.Context(), bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m, was := make(wrong), make(right)
	m.SHA256, m.SHA1 = was.SHA256, was.SHA1
	if err := os.WriteFile(filepath.Join(folder, ".pieces", was.SHA256.String()), m.Encode(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestAFullDiskOfABranch has no room for what comes from other nodes: the
// branch says so, and goes on by itself when there is.
func TestAFullDiskOfABranch(t *testing.T) {
	t.Parallel()
	world, list := branches(t, 1_000_000, "hq-01")
	dir := t.TempDir()
	folder := filepath.Join(dir, "waptwua")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	smallDisk(t, folder, "1200k")
	s := inMesh(t, dir, world, "http://127.0.0.1:1", "brs-01", list[0], func(c *appliance.Config) { c.DiskFloor = 100_000 })
	defer s.stop()
	s.Waits(time.Hour, 50*time.Millisecond)
	names := s.wants(t, 3)
	var stuck appliance.Task
	eventually(t, "no room", func() error {
		for _, name := range names {
			if stuck = s.task(t, name); stuck.Status == "queued" && strings.Contains(stuck.Error, " free and needs ") {
				return nil
			}
		}
		return errors.New("nothing waits")
	})
	if !strings.HasPrefix(stuck.Error, "brs-01 has ") || !strings.Contains(stuck.Hint, "disk_floor") {
		t.Errorf("it says %q, %q", stuck.Error, stuck.Hint)
	}
	if err := syscall.Mount("tmpfs", folder, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		eventually(t, "space came back", s.serves(name))
		if k := s.has(t, name, status("done")); k.Error != "" || k.From != "peers" {
			t.Errorf("the task is %+v", k)
		}
	}
}

// cuttable starts a node of a mesh whose only line can be cut.
func cuttable(t testing.TB, world *microsofttest.World, upstream, name string, first *site) (s *site, cut func()) {
	t.Helper()
	w := newLine(t)
	s = inMesh(t, t.TempDir(), world, upstream, name, nil, func(c *appliance.Config) {
		c.Advertise = []string{w.addr()}
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err == nil && !w.keep(c) {
				err = errors.New("the line is cut")
			}
			return c, err
		}
	})
	w.mu.Lock()
	w.to = strings.TrimPrefix(s.URL(), "https://")
	w.mu.Unlock()
	if first != nil {
		s.joinTo(t, first)
	}
	return s, func() { w.cut(true) }
}

// TestTheLeaseHolderVanishes cuts the node off that is downloading from
// Microsoft, in the middle: another takes over, and the branch has its file.
func TestTheLeaseHolderVanishes(t *testing.T) {
	t.Parallel()
	g, upstream := newGate(t, 150_000)
	one, cutOne := cuttable(t, g.world, upstream, "hq-01", nil)
	two, cutTwo := cuttable(t, g.world, upstream, "hq-02", one)
	brs := inMesh(t, t.TempDir(), g.world, "http://127.0.0.1:1", "brs-01", one, nil)
	if names := brs.wants(t, 1); names[0] != g.name {
		t.Fatalf("it is %s that is held back", g.name)
	}
	<-g.held
	holder, other, cut := one, two, cutOne
	if two.task(t, g.name).Status == "running" {
		holder, other, cut = two, one, cutTwo
	}
	brs.has(t, g.name, func(k appliance.Task) bool { return k.Waiting == holder.NodeName()+" downloads it from Microsoft." })
	cut()
	for _, s := range []*site{other, brs} {
		eventually(t, s.NodeName()+" serves it", s.serves(g.name))
	}
	if k := other.has(t, g.name, status("done")); k.From != "Microsoft" {
		t.Errorf("the task is %+v", k)
	}
	if k := brs.has(t, g.name, status("done")); k.From != "peers" {
		t.Errorf("the task is %+v", k)
	}
}

// TestClocksThatAreWrong has leases of holders whose clocks are fifty years off,
// and a next try beyond all waits: a lease holds for a minute after it was heard
// of, and nobody waits for the try.
func TestClocksThatAreWrong(t *testing.T) {
	t.Parallel()
	_, list := branches(t, 100_000, "hq-01", "brs-01")
	hq, brs := list[0], list[1]
	updates, _ := described(hq.world)
	for i, years := range []int{-50, 50} {
		if err := hq.PutLease(t.Context(), updates[i].Files[0].Name, brs.NodeID(), time.Now().AddDate(years, 0, 0)); err != nil {
			t.Fatal(err)
		}
	}
	failing := updates[2].Files[0].Name
	hq.Waits(1000*time.Hour, time.Hour) // as after a clock was set back by weeks
	hq.world.Fault(failing, microsofttest.Fault{Status: 503})
	names := hq.wants(t, 3)
	hq.has(t, failing, status("done"))
	for _, name := range names[:2] {
		if why := hq.WaitsFor(name, 0); why != "brs-01 downloads it from Microsoft." {
			t.Errorf("with a lease it waits for %q", why)
		}
		if why := hq.WaitsFor(name, appliance.LeaseTime); why != "" {
			t.Errorf("a minute after the lease was heard of it waits for %q", why)
		}
	}
}

// TestADamagedManifest damages the manifest of a file while its node is down,
// as a power cut does, in all ways: peers get the file from it all the same.
func TestADamagedManifest(t *testing.T) {
	t.Parallel()
	for what, damage := range map[string]func(string) error{
		"empty":   func(path string) error { return os.Truncate(path, 0) },
		"lost":    os.Remove,
		"garbled": func(path string) error { rot(t, path); return nil },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 300_000})
			srv := httptest.NewServer(world)
			t.Cleanup(srv.Close)
			dir := t.TempDir()
			hq := inMesh(t, dir, world, srv.URL, "hq-01", nil, nil)
			name := hq.wants(t, 1)[0]
			hq.has(t, name, status("done"))
			hq.stop()
			for _, path := range manifests(t, dir) {
				if err := damage(path); err != nil {
					t.Fatal(err)
				}
			}
			hq = startIn(t, dir, world, srv.URL, func(c *appliance.Config) { c.Name, c.Site = "hq-01", "hq-01" })
			branch := inMesh(t, t.TempDir(), world, srv.URL, "brs-01", hq, nil)
			branch.has(t, name, status("done"))
		})
	}
}

// TestAHolderThatGivesNothing has a node claim a file of which it can give no
// piece, because it can keep no manifest: another node that may asks Microsoft.
func TestAHolderThatGivesNothing(t *testing.T) {
	t.Parallel()
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 300_000})
	srv := httptest.NewServer(world)
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	broken := inMesh(t, dir, world, srv.URL, "hq-01", nil, nil)
	name := broken.wants(t, 1)[0]
	broken.has(t, name, status("done"))
	broken.stop()
	for _, path := range manifests(t, dir) {
		if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "in the way"), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	broken = startIn(t, dir, world, srv.URL, func(c *appliance.Config) { c.Name, c.Site = "hq-01", "hq-01" })
	other := inMesh(t, t.TempDir(), world, srv.URL, "hq-02", broken, nil)
	other.Waits(50*time.Millisecond, time.Hour)
	if k := other.has(t, name, status("done")); k.From != "Microsoft" || k.Attempts < 4 {
		t.Errorf("it came so: %+v", k)
	} else if days, err := other.Traffic(t.Context(), 1); err != nil || days[0].Twice != k.Size {
		t.Errorf("what was downloaded twice is counted as %+v, %v", days, err)
	}
}

// manifests are those that a node's folder has on disk.
func manifests(t testing.TB, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "waptwua", ".pieces", "*"))
	if err != nil || len(list) == 0 {
		t.Fatal("there are no manifests", err)
	}
	return list
}

// TestTheRecordsDiskIsFull fills the disk with the records while a file comes
// to a folder that lies elsewhere: what came is recorded when there is room,
// and does not come a second time.
func TestTheRecordsDiskIsFull(t *testing.T) {
	t.Parallel()
	world, list := branches(t, 1_000_000, "hq-01")
	dir, folder := t.TempDir(), t.TempDir()
	smallDisk(t, dir, "160m")
	s := inMesh(t, dir, world, "http://127.0.0.1:1", "brs-01", list[0], func(c *appliance.Config) { c.Folder = folder })
	defer s.stop()
	s.Waits(time.Hour, 50*time.Millisecond)
	limit(t, s, appliance.Limits{WANDown: swarm.Plan{Rate: 400_000}})
	name := s.wants(t, 1)[0]
	s.has(t, name, status("running"))
	filler := filepath.Join(dir, "filler")
	fillDisk(t, filler, dir)
	s.has(t, name, func(k appliance.Task) bool {
		return k.Status == "queued" && strings.Contains(k.Error, "The disk with the records of this node is full")
	})
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	k := s.has(t, name, status("done"))
	eventually(t, "the file", s.serves(name))
	if k.Peers != k.Size || k.Error != "" {
		t.Errorf("%d bytes came of %d: %+v", k.Peers, k.Size, k)
	}
}

// fillDisk leaves almost nothing free on the disk of a directory.
func fillDisk(t testing.TB, file, dir string) {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(file)
	if err == nil {
		err = errors.Join(syscall.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-1<<20), f.Close())
	}
	if err != nil {
		t.Fatal("fill the disk: ", err)
	}
}
