package appliance_test

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/microsofttest"
	"wuamesh/replicate/swarm"
)

// TestADeletedFileIsAskedForElsewhere has a host ask a node without internet
// for a file that was deleted on all nodes: headquarters downloads it again.
func TestADeletedFileIsAskedForElsewhere(t *testing.T) {
	t.Parallel()
	_, list := branches(t, 300_000, "hq-01", "brs-01")
	name := list[1].wants(t, 1)[0]
	for _, s := range list {
		s.has(t, name, status("done"))
	}
	for _, s := range list {
		if err := s.DeleteFile(t.Context(), owner, name); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the branch hears that headquarters has it no more", func() error {
		if n := list[1].Copies(name); n != 0 {
			return fmt.Errorf("it knows of %d", n)
		}
		return nil
	})
	eventually(t, "the branch serves it again", list[1].serves(name))
	if k := list[0].task(t, name); k.From != "Microsoft" || k.Status != "done" || !strings.HasPrefix(k.By, "host ") {
		t.Errorf("headquarters says %+v", k)
	}
	eventually(t, "nothing is asked any more", func() error { return list[0].NoAsk(name) })
}

// TestADeltaIsAskedForElsewhere has a host ask a node without internet for a
// delta, which nobody fetches before a host asks.
func TestADeltaIsAskedForElsewhere(t *testing.T) {
	t.Parallel()
	world, list := branches(t, 300_000, "hq-01", "brs-01")
	branch := list[1]
	branch.allow(t)
	all, byID := described(world)
	u := all[0]
	u.Files = []agentproto.File{u.Files[0]}
	u.Files[0].Delta = true
	byID[u.ID] = u
	branch.enrol(t, 1, branch.enrolToken(t, 1)).report(t, needs(u), byID)
	eventually(t, "the branch serves it", branch.serves(u.Files[0].Name))
}

// TestAnAdminOfABranchHasAFileDownloaded forces an update that no host needs
// at a node without internet: one node downloads it, another one that might
// have does not take it.
func TestAnAdminOfABranchHasAFileDownloaded(t *testing.T) {
	t.Parallel()
	world, list := branches(t, 300_000, "hq-01", "hq-02", "brs-01")
	branch := list[2]
	id, name := known(t, world, branch)
	if _, err := branch.DownloadUpdates(t.Context(), owner, []rules.UpdateID{id}); err != nil {
		t.Fatal(err)
	}
	k := branch.has(t, name, status("done"))
	if k.From != "peers" || k.By != owner.Name {
		t.Errorf("the branch says %+v", k)
	}
	if r := world.Requests()[name]; r.Gets != 1 || r.Bytes != k.Size {
		t.Errorf("Microsoft was asked %d times and sent %d bytes of %d", r.Gets, r.Bytes, k.Size)
	}
	had := 0
	for _, s := range list[:2] {
		if s.serves(name)() == nil {
			had++
		}
		eventually(t, "nothing waits on "+s.NodeName(), func() error { return s.NothingQueued(name) })
	}
	if had != 1 {
		t.Errorf("%d nodes took it for the branch", had)
	}
}

// TestAnErrandIsTakenOver has the node that downloads a file for a branch go
// away in the middle.
func TestAnErrandIsTakenOver(t *testing.T) {
	t.Parallel()
	world, list := branches(t, 16<<20, "hq-01", "hq-02", "brs-01")
	for _, s := range list[:2] {
		limit(t, s, appliance.Limits{Source: swarm.Plan{Rate: 8 << 20}})
	}
	branch := list[2]
	id, name := known(t, world, branch)
	if _, err := branch.DownloadUpdates(t.Context(), owner, []rules.UpdateID{id}); err != nil {
		t.Fatal(err)
	}
	branch.has(t, name, func(k appliance.Task) bool { return k.Done > 4<<20 })
	first := list[0]
	if list[1].task(t, name).From == "Microsoft" {
		first = list[1]
	}
	limit(t, first, stalled)
	first.stop()
	branch.has(t, name, status("done"))
}

// TestWhoAskedHearsWhatFailed has Microsoft refuse a file that a branch asked
// for: the branch says which node tried, and what it was told.
func TestWhoAskedHearsWhatFailed(t *testing.T) {
	t.Parallel()
	world, list := branches(t, 300_000, "hq-01", "brs-01")
	hq, branch := list[0], list[1]
	id, name := known(t, world, branch)
	world.Fault(name, microsofttest.Fault{Status: http.StatusNotFound})
	if _, err := branch.DownloadUpdates(t.Context(), owner, []rules.UpdateID{id}); err != nil {
		t.Fatal(err)
	}
	branch.has(t, name, func(k appliance.Task) bool {
		return strings.HasPrefix(k.Waiting, "hq-01 tried at ") && strings.HasSuffix(k.Waiting, "Microsoft answered 404 Not Found.")
	})
	if k := hq.task(t, name); k.Status != "failed" || k.NextTry.IsZero() {
		t.Errorf("headquarters says %+v", k)
	}
	if _, err := hq.RetryDownloads(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	branch.has(t, name, status("done"))
}

// TestACancelledErrandStaysAway has an admin of headquarters cancel what it
// downloads for a branch: it does not begin again until somebody asks again.
func TestACancelledErrandStaysAway(t *testing.T) {
	t.Parallel()
	world, list := branches(t, 16<<20, "hq-01", "brs-01")
	hq, branch := list[0], list[1]
	limit(t, hq, stalled)
	id, name := known(t, world, branch)
	if _, err := branch.DownloadUpdates(t.Context(), owner, []rules.UpdateID{id}); err != nil {
		t.Fatal(err)
	}
	k := hq.has(t, name, status("queued"))
	if _, err := hq.SteerDownload(t.Context(), owner, k.ID, appliance.CancelTask); err != nil {
		t.Fatal(err)
	}
	if err := hq.LookForWanted(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := hq.task(t, name); got.ID != k.ID || got.Status != "cancelled" {
		t.Errorf("it is %+v", got)
	}
}

// TestABranchAsksForTheCab has an admin of a branch ask for a newer scan cab:
// headquarters asks Microsoft, and the branch hears when there is none.
func TestABranchAsksForTheCab(t *testing.T) {
	t.Parallel()
	const cab = "wsusscn2.cab"
	world, list := branches(t, 300_000, "hq-01", "brs-01")
	hq, branch := list[0], list[1]
	for _, s := range list {
		eventually(t, s.NodeName()+" serves it", s.serves(cab))
	}
	for _, newer := range []bool{false, true} {
		eventually(t, "nothing is asked any more", func() error { return cmp.Or(hq.NoAsk(cab), branch.NoAsk(cab)) })
		if newer {
			world.Publish(time.Date(2026, time.December, 1, 0, 0, 0, 0, time.UTC))
		}
		if err := branch.DownloadCab(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
		want := "unchanged"
		if newer {
			want = "done"
		}
		k := branch.has(t, cab, func(k appliance.Task) bool { return k.Status == want && strings.HasPrefix(k.By, owner.Name) })
		if !newer && (k.From != "hq-01" || k.Size != int64(len(world.Cab()))) {
			t.Errorf("it does not say who asked: %+v", k)
		}
		hq.had(t, cab, func(at appliance.Task) bool {
			return at.Status == want && strings.HasPrefix(at.By, owner.Name) && !at.Queued.Before(k.Queued)
		})
	}
}

// TestAskingChangesNobodysTurn asks one of two nodes that may download for
// files that hosts of a branch wait for: neither waits for the other.
func TestAskingChangesNobodysTurn(t *testing.T) {
	t.Parallel()
	_, list := branches(t, 300_000, "hq-01", "hq-02", "brs-01")
	names := list[2].wants(t, 6)
	asked := time.Now()
	for _, name := range names {
		list[0].serves(name)()
	}
	for _, name := range names {
		list[2].has(t, name, status("done"))
	}
	if took := time.Since(asked); took >= appliance.LeaseTime {
		t.Errorf("it took %s: a node waited for another's turn to pass", took)
	}
}

// TestWhatFailedHereComesFromAPeer has a download from Microsoft fail, with its
// next try far ahead, and the file lie on another node soon after.
func TestWhatFailedHereComesFromAPeer(t *testing.T) {
	t.Parallel()
	world, list := branches(t, 300_000, "hq-01", "hq-02")
	id, name := known(t, world, list[0])
	list[0].Waits(time.Hour, time.Minute)
	world.Fault(name, microsofttest.Fault{Status: http.StatusServiceUnavailable})
	if _, err := list[0].DownloadUpdates(t.Context(), owner, []rules.UpdateID{id}); err != nil {
		t.Fatal(err)
	}
	list[0].has(t, name, status("failed"))
	if k := list[0].has(t, name, status("done")); k.From != "peers" {
		t.Errorf("it came from %s", k.From)
	}
}

// known makes a node know an update that no host may install, and returns it
// with its file.
func known(t *testing.T, world *microsofttest.World, s *site) (rules.UpdateID, string) {
	t.Helper()
	list, byID := described(world)
	s.enrol(t, 1, s.enrolToken(t, 1)).report(t, needs(list[0]), byID)
	return list[0].ID, list[0].Files[0].Name
}
