package appliance_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wuamesh/appliance"
)

// bytesIn is what the update files in a node's folder take.
func (s *site) bytesIn(t testing.TB) (n int64) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(s.dir, "waptwua", "*.cab"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if info, err := os.Stat(p); err == nil {
			n += info.Size()
		}
	}
	return n
}

// TestQuota has a node whose folder may hold less than hosts need: it fetches
// what fits, gives a file up for one that a host asks for, never holds more
// than it may, and says of each deletion why.
func TestQuota(t *testing.T) {
	t.Parallel()
	world, list := branches(t, 300_000, "hq-01", "brs-01")
	hq := list[0]
	updates, _ := described(world)
	names := hq.wants(t, 6)
	sizes := map[string]int64{}
	var all, largest int64
	for _, u := range updates[:6] {
		sizes[u.Files[0].Name] = u.Files[0].Size
		all, largest = all+u.Files[0].Size, max(largest, u.Files[0].Size)
	}
	for _, s := range list {
		for _, name := range names {
			s.has(t, name, status("done"))
		}
		eventually(t, "the scan cab", s.serves("wsusscn2.cab"))
	}
	cab, err := os.Stat(filepath.Join(hq.dir, "waptwua", "wsusscn2.cab"))
	if err != nil {
		t.Fatal(err)
	}
	quota := cab.Size() + all/2 + largest
	lor := inMesh(t, t.TempDir(), world, "http://127.0.0.1:1", "lor-01", hq, func(c *appliance.Config) { c.Quota = appliance.Size(quota) })
	lor.Waits(50*time.Millisecond, 50*time.Millisecond)
	eventually(t, "what fits", func() error {
		if n := lor.bytesIn(t); n < cab.Size()+all/2 {
			return fmt.Errorf("%d bytes of %d", n, quota)
		}
		return nil
	})
	if n := lor.bytesIn(t); n > quota {
		t.Errorf("%d bytes in a folder of %d", n, quota)
	}
	lor.Age(time.Hour)
	for _, name := range names { // a host asks for one after the other
		eventually(t, "what a host asks for", lor.serves(name))
		lor.has(t, name, status("done"))
		if n := lor.bytesIn(t); n > quota {
			t.Errorf("%d bytes in a folder of %d", n, quota)
		}
		lor.Age(time.Hour)
	}
	log, _, err := lor.Audit(t.Context(), "folder", appliance.Page{Limit: 100})
	made := 0
	for _, e := range log {
		if e.Action == "make room" && strings.Contains(e.After, "deleted") && strings.Contains(e.After, "for windows") {
			made++
		}
	}
	if err != nil || made == 0 {
		t.Errorf("the audit log has %+v, %v", log, err)
	}
	for _, name := range names {
		for _, s := range list {
			if err := s.serves(name)(); err != nil {
				t.Errorf("%s on %s: %v", name, s.NodeName(), err)
			}
		}
	}
}

// TestQuotaKeepsCopies makes every folder too small at once: what hosts need
// stays on as many nodes as the configuration says.
func TestQuotaKeepsCopies(t *testing.T) {
	t.Parallel()
	world, list := branches(t, 100_000, "hq-01", "brs-01")
	names := list[0].wants(t, 8)
	list = append(list, inMesh(t, t.TempDir(), world, "http://127.0.0.1:1", "lor-01", list[0], nil))
	for _, s := range list {
		for _, name := range names {
			s.has(t, name, status("done"))
		}
	}
	for _, s := range list {
		eventually(t, "who has what", func() error { return s.knowsCopies(names, 3) })
		s.SetQuota(1, 2)
		s.Age(48 * time.Hour)
	}
	gone := 0
	for _, s := range list {
		plan, err := s.Clean(t.Context(), owner)
		if err != nil {
			t.Fatal(err)
		}
		gone += len(plan.Files)
		for _, f := range plan.Files {
			if !strings.Contains(f.Note, "quota of 1 B") || !strings.Contains(f.Note, "1 host waits for this file, which is on ") {
				t.Errorf("%s goes because %q", f.Name, f.Note)
			}
		}
	}
	if gone != len(names) { // of three copies each, one
		t.Errorf("%d files were deleted, want %d", gone, len(names))
	}
	for _, name := range names {
		copies := 0
		for _, s := range list {
			if s.Held(name) {
				copies++
			}
		}
		if copies != 2 {
			t.Errorf("%d copies of %s are left", copies, name)
		}
	}
}

func (s *site) knowsCopies(names []string, want int) error {
	for _, name := range names {
		if n := s.Copies(name); n != want {
			return fmt.Errorf("%s knows of %d copies of %s", s.NodeName(), n, name)
		}
	}
	return nil
}
