package appliance_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wuamesh/appliance"
	"wuamesh/replicate/swarm"
)

// stalled lets a site take no more from Microsoft.
var stalled = appliance.Limits{Source: swarm.Plan{Rate: swarm.Never}}

// TestPassedOnWhileDownloaded has a branch take a large file while headquarters
// still downloads it. No host gets it before it is whole and right; then no
// piece comes a second time.
func TestPassedOnWhileDownloaded(t *testing.T) {
	t.Parallel()
	world, list := branches(t, 16<<20, "hq-01", "brs-01")
	hq, branch := list[0], list[1]
	limit(t, hq, appliance.Limits{Source: swarm.Plan{Rate: 4 << 20}})
	name := branch.wants(t, 1)[0]
	part := branch.has(t, name, func(k appliance.Task) bool { return k.Done > 4<<20 })
	if k := hq.task(t, name); part.Status != "running" || part.From != "peers" || part.Waiting == "" || k.Status != "running" {
		t.Errorf("the branch says %+v, headquarters %+v", part, k)
	}
	limit(t, hq, stalled)
	resp, err := http.Get(branch.FolderURL() + name)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a host that asks for a part is answered %s", resp.Status)
	}
	limit(t, hq, appliance.Limits{})
	k := branch.has(t, name, status("done"))
	eventually(t, "the branch serves it", branch.serves(name))
	if k.From != "peers" || k.Fetched != 0 || k.Peers != k.Size {
		t.Errorf("the task is %+v", k)
	}
	if got := world.Requests()[name].Bytes; got != k.Size {
		t.Errorf("Microsoft sent %d bytes of %d", got, k.Size)
	}
	if left, _ := filepath.Glob(filepath.Join(branch.dir, "waptwua", ".partial", "*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestGoesOnWhereTheOtherEnded has the node that downloads a file go away in
// the middle: another one asks Microsoft for the rest only, and the first
// takes from it what it lacks when it is back.
func TestGoesOnWhereTheOtherEnded(t *testing.T) {
	t.Parallel()
	world, list := branches(t, 16<<20, "hq-01", "hq-02", "brs-01")
	for _, s := range list[:2] {
		limit(t, s, appliance.Limits{Source: swarm.Plan{Rate: 4 << 20}})
	}
	name := list[2].wants(t, 1)[0]
	list[2].has(t, name, func(k appliance.Task) bool { return k.Done > 4<<20 })
	first, next := list[0], list[1]
	if next.task(t, name).From == "Microsoft" {
		first, next = next, first
	}
	limit(t, first, stalled)
	var came int64
	eventually(t, "the nodes have what it has", func() error {
		k := first.task(t, name)
		for _, s := range []*site{next, list[2]} {
			if got := s.task(t, name).Done; got < k.Done/swarm.MinPiece*swarm.MinPiece {
				return fmt.Errorf("%s has %d of %d", s.NodeName(), got, k.Done)
			}
		}
		came = k.Done
		return nil
	})
	first.stop()
	for _, s := range []*site{next, list[2]} {
		s.has(t, name, status("done"))
		eventually(t, s.NodeName()+" serves it", s.serves(name))
	}
	info, err := os.Stat(filepath.Join(next.dir, "waptwua", name))
	if err != nil {
		t.Fatal(err)
	}
	if k := next.task(t, name); k.From != "Microsoft" || k.Fetched > info.Size()-came+swarm.MinPiece {
		t.Errorf("%d bytes of %d were there, and the next node downloaded: %+v", came, info.Size(), k)
	}
	if k := list[2].task(t, name); k.Fetched != 0 || k.Peers > info.Size()+swarm.MinPiece {
		t.Errorf("the branch fetched %+v", k)
	}
	if got := world.Requests()[name].Gets; got < 2 {
		t.Errorf("Microsoft was asked %d times", got)
	}
}

// TestALimitHandsOver closes the line to Microsoft of the node that downloads a
// file, in the middle: it goes on waiting alone, another one goes on with the
// download.
func TestALimitHandsOver(t *testing.T) {
	t.Parallel()
	_, list := branches(t, 16<<20, "hq-01", "hq-02", "brs-01")
	for _, s := range list[:2] {
		limit(t, s, appliance.Limits{Source: swarm.Plan{Rate: 8 << 20}})
	}
	name := list[2].wants(t, 1)[0]
	list[2].has(t, name, func(k appliance.Task) bool { return k.Done > 4<<20 })
	first, next := list[0], list[1]
	if next.task(t, name).From == "Microsoft" {
		first, next = next, first
	}
	next.has(t, name, func(k appliance.Task) bool { return k.Done > 4<<20 })
	limit(t, first, stalled)
	for _, s := range list {
		s.has(t, name, status("done"))
	}
	k := next.task(t, name)
	if k.From != "Microsoft" || k.Fetched > k.Size-2<<20 { // the last pieces that came to it leave gaps
		t.Errorf("it downloaded %d of %d bytes from %s", k.Fetched, k.Size, k.From)
	}
}

// TestADraftOfAnotherSize has a node say that the file it downloads has another
// size than hosts know: no room is made for that, and it is said.
func TestADraftOfAnotherSize(t *testing.T) {
	t.Parallel()
	_, list := branches(t, 24<<20, "hq-01", "brs-01")
	hq, branch := list[0], list[1]
	limit(t, hq, stalled)
	name := branch.wants(t, 1)[0]
	if err := branch.PutDraft(t.Context(), name, hq.NodeID(), 40<<30); err != nil {
		t.Fatal(err)
	}
	branch.has(t, name, func(k appliance.Task) bool {
		return k.Status == "failed" && strings.Contains(k.Error, "has size 42949672960, not")
	})
	draft := swarm.DraftPath(swarm.DraftID(name, 40<<30))
	if _, err := os.Stat(filepath.Join(branch.dir, "waptwua", draft)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("room was made for it: %v", err)
	}
	limit(t, hq, appliance.Limits{})
	branch.has(t, name, status("done"))
	eventually(t, "the branch serves it", branch.serves(name))
}

// limit sets the limits of a node's site, and waits until it goes by them.
func limit(t *testing.T, s *site, l appliance.Limits) {
	t.Helper()
	if err := s.SetSiteLimits(t.Context(), owner, "", l); err != nil {
		t.Fatal(err)
	}
}
