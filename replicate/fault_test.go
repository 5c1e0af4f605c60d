package replicate

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// TestHubAndSpoke has branches that reach headquarters and not each other.
// For half an hour nobody thinks anybody dead, and edits cross in a moment.
func TestHubAndSpoke(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &simMesh{t: t, net: newSimNet()}
		s.net.delay = func(string, string) time.Duration { return 30 * time.Millisecond }
		hub := ""
		s.net.cut = func(from, to string) bool { return from != hub && to != hub }
		s.tune = func(i int, o *MeshOptions) {
			if i == 0 {
				hub = o.DB.NodeID()
			}
		}
		s.start(12)
		defer s.settle()
		time.Sleep(3 * time.Minute)
		since := time.Now()
		time.Sleep(30 * time.Minute)
		for i, n := range s.nodes {
			peers := n.mesh.Peers()
			for _, p := range peers {
				alive, at := n.mesh.gossip.seen(p.NodeID)
				if !alive || at.After(since) {
					t.Errorf("node %d on %s: alive %t since %v", i, p.Name, alive, at)
				}
				if want := Direct; p.NodeID != hub && i != 0 {
					if want = Relayed; p.Reach != want || p.Through != hub {
						t.Errorf("node %d reaches %s %s through %q", i, p.Name, p.Reach, p.Through)
					}
				}
			}
			if links := n.mesh.Links(); len(links) != 11 || slices.ContainsFunc(links, func(l Link) bool { return l.A != hub && l.B != hub || l.A >= l.B }) {
				t.Errorf("node %d knows of the links %v", i, links)
			}
		}
		s.nodes[5].put(t, "k/1", "from a branch")
		time.Sleep(500 * time.Millisecond)
		for i, n := range s.nodes {
			if n.get("k/1") != "from a branch" {
				t.Errorf("node %d has not heard of the edit", i)
			}
		}
	})
}

// TestLastWordThroughOthers has a branch that takes part for a few seconds
// between two looks at who is there. Another branch, which only ever reached
// it through headquarters, knows until when.
func TestLastWordThroughOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &simMesh{t: t, net: newSimNet()}
		hub, late := "", ""
		s.tune = func(i int, o *MeshOptions) {
			switch i {
			case 0:
				hub = o.DB.NodeID()
			case 2:
				late = o.DB.NodeID()
			}
		}
		s.net.cut = func(from, to string) bool { return from != hub && to != hub || from == late || to == late }
		s.start(3)
		defer s.settle()
		time.Sleep(touchEvery + 2*time.Second)
		s.net.setCut(func(from, to string) bool { return from != hub && to != hub })
		began := time.Now()
		time.Sleep(20 * time.Second)
		s.nodes[2].stop()
		s.nodes[2].mesh.Close()
		time.Sleep(2 * time.Second)
		for _, p := range s.nodes[1].mesh.Peers() {
			if p.NodeID == late && (p.Reach != Away || p.Contact.Before(began)) {
				t.Errorf("it is %s, last heard of %v after it came", p.Reach, p.Contact.Sub(began))
			}
		}
	})
}

// TestMeshHealsAfterACut cuts the mesh in two for half an hour.
func TestMeshHealsAfterACut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &simMesh{t: t, net: newSimNet()}
		s.start(12)
		defer s.settle()
		time.Sleep(time.Minute)
		left := map[string]bool{}
		for _, n := range s.nodes[:6] {
			left[n.db.NodeID()] = true
		}
		s.net.setCut(func(from, to string) bool { return left[from] != left[to] })
		time.Sleep(30 * time.Minute)
		away := func(n *simNode) (count int) {
			for _, p := range n.mesh.Peers() {
				if p.Reach == Away {
					count++
				}
			}
			return count
		}
		if got := away(s.nodes[0]); got != 6 {
			t.Errorf("cut in two, node 0 misses %d nodes, not 6", got)
		}
		for _, l := range s.nodes[0].mesh.Links() {
			if !left[l.A] || !left[l.B] {
				t.Errorf("cut in two, node 0 tells of a link on the other side: %v", l)
			}
		}
		s.nodes[0].put(t, "k/left", "1")
		s.nodes[11].put(t, "k/right", "1")
		s.net.setCut(nil)
		time.Sleep(2 * time.Minute)
		for i, n := range s.nodes {
			if away(n) > 0 || n.get("k/left") == "" || n.get("k/right") == "" || n.mesh.gossip.list.NumMembers() != 12 {
				t.Errorf("healed, node %d misses %d nodes, sees %d in gossip, and has %q and %q", i, away(n), n.mesh.gossip.list.NumMembers(), n.get("k/left"), n.get("k/right"))
			}
		}
	})
}

func TestCloneIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &simMesh{t: t, net: newSimNet()}
		s.start(3)
		defer s.settle()
		time.Sleep(30 * time.Second)
		var disk bytes.Buffer
		if _, err := s.nodes[2].db.kv.Backup(&disk, 0); err != nil {
			t.Fatal(err)
		}
		kv, err := badger.Open(badgerOptions(Options{small: true}, s.log))
		if err != nil {
			t.Fatal(err)
		}
		if err := kv.Load(&disk, 16); err != nil {
			t.Fatal(err)
		}
		db, err := openOn(kv, Options{Log: s.log, small: true})
		if err != nil {
			t.Fatal(err)
		}
		s.nodes = append(s.nodes, &simNode{db: db})
		s.boot(3)
		time.Sleep(time.Minute)
		var told []string
		for _, n := range s.nodes[:3] {
			for _, p := range n.mesh.Peers() {
				told = append(told, p.Problems...)
			}
		}
		if !slices.ContainsFunc(told, func(p string) bool { return strings.Contains(p, "Two living nodes have the identity") }) {
			t.Errorf("nobody says that two nodes have one identity: %q", told)
		}
		told = nil
		for _, p := range s.nodes[3].mesh.Peers() {
			told = append(told, p.Problems...)
		}
		if !slices.ContainsFunc(told, func(p string) bool { return strings.Contains(p, "cloned") }) {
			t.Errorf("the clone does not learn why nobody takes it: %q", told)
		}
	})
}

func TestGarbageAndRemovedPeersAreCutOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &simMesh{t: t, net: newSimNet()}
		s.start(3)
		defer s.settle()
		time.Sleep(30 * time.Second)
		a, bad, gone := s.nodes[0], s.nodes[1].db.NodeID(), s.nodes[2].db.NodeID()
		s.nodes[1].mesh.session(a.db.NodeID()).out.put(frame(framePush, []byte("nonsense")))
		time.Sleep(5 * time.Second)
		a.mesh.Drop(gone)
		time.Sleep(time.Minute)
		if a.mesh.session(bad) != nil || a.mesh.session(gone) != nil {
			t.Error("a peer that sent garbage, or one that was removed, is still connected")
		}
		for _, p := range a.mesh.Peers() {
			if p.NodeID == gone || p.NodeID == bad && !strings.Contains(fmt.Sprint(p.Problems), "does not understand") {
				t.Errorf("peer %+v", p)
			}
		}
		told := s.nodes[2].mesh.Peers()
		if !strings.Contains(fmt.Sprint(told), "removed from the mesh") {
			t.Errorf("the removed node does not learn why: %+v", told)
		}
		time.Sleep(isolation)
		if a.mesh.session(bad) == nil {
			t.Error("after its time the peer is not taken again")
		}
	})
}

// TestLongAbsence has a node come back after 70 days with an edit nobody has.
func TestLongAbsence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var skew skews
		s := &simMesh{t: t, net: newSimNet(), wall: skew.wall}
		s.start(4)
		defer s.settle()
		s.nodes[0].put(t, "k/old", "1")
		time.Sleep(2 * time.Minute)
		away := s.nodes[3].db.NodeID()
		s.net.setCut(func(from, to string) bool { return (from == away) != (to == away) })
		time.Sleep(2 * time.Minute)
		s.nodes[3].put(t, "k/mine", "unsent")
		if err := s.nodes[0].db.Update(context.Background(), func(tx *Tx) error { return tx.Delete("k/old") }); err != nil {
			t.Fatal(err)
		}
		for i := range s.nodes {
			skew.set(i, 70*24*time.Hour)
		}
		time.Sleep(2 * time.Minute)
		s.net.setCut(nil)
		time.Sleep(5 * time.Minute)
		n := s.nodes[3]
		if n.get("k/old") != "" || n.get("k/mine") != "" || s.nodes[0].get("k/mine") != "" {
			t.Errorf("it merged instead of taking a fresh copy: %v", n.dump())
		}
		var kept []string
		n.db.View(context.Background(), func(tx *Tx) error {
			for r := range tx.Reviews() {
				kept = append(kept, r.Key+"="+string(r.Value))
			}
			return nil
		})
		if !slices.Equal(kept, []string{"k/mine=unsent"}) {
			t.Errorf("kept for review: %q", kept)
		}
		if !strings.Contains(fmt.Sprint(n.mesh.Problems()), "fresh copy") {
			t.Errorf("it does not say so: %q", n.mesh.Problems())
		}
		n.put(t, "k/after", "1")
		time.Sleep(5 * time.Second)
		if s.nodes[0].get("k/after") != "1" || n.db.Digest() != s.nodes[0].db.Digest() {
			t.Error("afterwards it does not take part as before")
		}
	})
}

// TestClockYearsAhead has a node write with a clock fifty years ahead.
func TestClockYearsAhead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var skew skews
		s := &simMesh{t: t, net: newSimNet(), wall: skew.wall}
		s.start(4)
		defer s.settle()
		s.nodes[0].put(t, "k/1", "before")
		time.Sleep(30 * time.Second)
		id := s.nodes[3].db.NodeID()
		s.net.setCut(func(from, to string) bool { return (from == id) != (to == id) })
		skew.set(3, 50*365*24*time.Hour)
		s.nodes[3].put(t, "k/1", "from the future")
		s.net.setCut(nil)
		time.Sleep(4 * time.Second)
		if got := s.nodes[0].get("k/1"); got != "before" {
			t.Errorf("with its peer's clock wrong, node 0 has %q", got)
		}
		time.Sleep(3 * time.Minute)
		// Its peers agree, so their time is used and the record stamped again.
		for i, n := range s.nodes {
			if n.get("k/1") != "from the future" {
				t.Errorf("node %d has %q", i, n.get("k/1"))
			}
			if ahead := n.db.clock.Time().Sub(time.Now()); ahead > time.Minute {
				t.Errorf("node %d still has a clock %v ahead", i, ahead)
			}
		}
		if !strings.Contains(fmt.Sprint(s.nodes[3].mesh.Problems()), "ahead of its peers' clocks") {
			t.Errorf("it does not say so: %q", s.nodes[3].mesh.Problems())
		}
		s.nodes[0].put(t, "k/1", "after")
		time.Sleep(time.Second)
		if got := s.nodes[3].get("k/1"); got != "after" {
			t.Errorf("an edit with a right clock lost against the future: %q", got)
		}
	})
}

// TestTwoEditsMeet edits one key twice on one side of a cut and once on the
// other: both who made the edits learn of it, once, and nobody of the rest.
func TestTwoEditsMeet(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &simMesh{t: t, net: newSimNet()}
		s.meets = func(key string) bool { return strings.HasPrefix(key, "k/") }
		s.start(4)
		defer s.settle()
		s.nodes[0].put(t, "k/1", "first")
		s.nodes[0].put(t, "x/1", "first")
		time.Sleep(30 * time.Second)
		left := map[string]bool{s.nodes[0].db.NodeID(): true, s.nodes[1].db.NodeID(): true}
		s.net.setCut(func(from, to string) bool { return left[from] != left[to] })
		s.nodes[3].put(t, "k/1", "right")
		s.nodes[3].put(t, "x/1", "right")
		time.Sleep(time.Second)
		s.nodes[0].put(t, "k/1", "left")
		s.nodes[0].put(t, "k/1", "left again")
		s.nodes[0].put(t, "x/1", "left")
		time.Sleep(time.Minute)
		s.net.setCut(nil)
		time.Sleep(3 * time.Minute)
		for i, want := range [][]string{{"left again beat right"}, nil, nil, {"left again beat right"}} {
			if got := meetings(t, s.nodes[i].db, true); !slices.Equal(got, want) && !(i == 0 && got == nil) {
				t.Errorf("node %d: %q, want %q", i, got, want)
			}
			if got := meetings(t, s.nodes[i].db, false); got != nil {
				t.Errorf("node %d: settled, and still there: %q", i, got)
			}
		}
		s.nodes[1].put(t, "k/1", "after all")
		time.Sleep(time.Second)
		for i, n := range s.nodes {
			if got := meetings(t, n.db, false); got != nil {
				t.Errorf("node %d takes an edit that had seen the others for a meeting: %q", i, got)
			}
		}
	})
}

func meetings(t *testing.T, db *DB, settle bool) (list []string) {
	t.Helper()
	err := db.Update(context.Background(), func(tx *Tx) error {
		for m, err := range tx.Meetings() {
			if err != nil {
				return err
			}
			list = append(list, fmt.Sprintf("%s beat %s", m.Won.Value, m.Lost.Value))
			if settle {
				if err := tx.Settle(m); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestGossipKeysRotate changes the key of a running mesh node by node.
func TestGossipKeysRotate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &simMesh{t: t, net: newSimNet()}
		s.start(5)
		defer s.settle()
		time.Sleep(time.Minute)
		since := time.Now()
		old, fresh := make([]byte, 32), bytes.Repeat([]byte{7}, 32)
		for _, keys := range [][][]byte{{old, fresh}, {fresh, old}, {fresh}} {
			for _, n := range s.nodes {
				if err := n.mesh.SetKeys(keys); err != nil {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Second)
			}
		}
		time.Sleep(5 * time.Minute)
		for i, n := range s.nodes {
			for _, p := range n.mesh.Peers() {
				if alive, at := n.mesh.gossip.seen(p.NodeID); !alive || at.After(since) {
					t.Errorf("node %d on %s: alive %t since %v", i, p.Name, alive, at)
				}
			}
		}
	})
}

// TestABranchAwayForLong cuts a branch of three nodes off for a hundred days.
// Headquarters deletes a record and forgets the deletion. When the line is
// back, to one of them and later to all, the record stays deleted.
func TestABranchAwayForLong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var skew skews
		s := &simMesh{t: t, net: newSimNet(), wall: skew.wall, log: simLog()}
		s.start(7)
		defer s.settle()
		s.nodes[0].put(t, "k/old", "1")
		s.nodes[0].put(t, "k/kept", "1")
		time.Sleep(2 * time.Minute)
		branch := map[string]bool{}
		for _, n := range s.nodes[4:] {
			branch[n.db.NodeID()] = true
		}
		s.net.setCut(func(from, to string) bool { return branch[from] != branch[to] })
		if err := s.nodes[0].db.Update(context.Background(), func(tx *Tx) error { return tx.Delete("k/old") }); err != nil {
			t.Fatal(err)
		}
		s.nodes[5].put(t, "k/branch", "1")
		time.Sleep(3 * time.Minute)
		for days := 50; days <= 100; days += 50 {
			for i := range s.nodes {
				skew.set(i, time.Duration(days)*24*time.Hour)
			}
			time.Sleep(3 * time.Minute)
		}
		for i, n := range s.nodes[:2] {
			if err := n.mesh.collect(context.Background()); err != nil {
				t.Fatalf("node %d does not forget: %v", i, err)
			}
		}
		first, hq := s.nodes[4].db.NodeID(), s.nodes[0].db.NodeID()
		s.net.setCut(func(from, to string) bool {
			return branch[from] != branch[to] && (from != first || to != hq) && (from != hq || to != first)
		})
		time.Sleep(5 * time.Minute)
		s.net.setCut(nil)
		time.Sleep(10 * time.Minute)
		for i, n := range s.nodes {
			if n.get("k/old") != "" {
				t.Errorf("node %d has the deleted record again", i)
			}
			if n.db.Digest() != s.nodes[0].db.Digest() {
				t.Errorf("node %d does not have what node 0 has", i)
			}
		}
		if s.nodes[0].get("k/branch") != "1" && !s.kept("k/branch") {
			t.Error("what the branch wrote is neither merged nor kept for review")
		}
	})
}

// kept says whether some node keeps a record for review.
func (s *simMesh) kept(key string) (found bool) {
	for _, n := range s.nodes {
		n.db.View(context.Background(), func(tx *Tx) error {
			for r := range tx.Reviews() {
				found = found || r.Key == key
			}
			return nil
		})
	}
	return found
}
