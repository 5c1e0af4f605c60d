package replicate

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const year = 365 * 24 * time.Hour

// TestJudgeClock has what a node makes of its clock and its peers'.
func TestJudgeClock(t *testing.T) {
	agreed := func(d time.Duration) *time.Duration { return &d }
	clocks := func(list ...time.Duration) (peers []peerClock) {
		for _, d := range list {
			peers = append(peers, peerClock{wall: d})
		}
		return peers
	}
	for name, c := range map[string]struct {
		wrong bool // our clock is impossible
		peers []peerClock
		off   time.Duration
		by    witness
	}{
		"alone":                              {peers: nil},
		"of two nobody knows who is wrong":   {peers: clocks(year), off: year},
		"the two others agree":               {peers: clocks(year, year+time.Minute), off: year, by: byMajority},
		"one of three is wrong":              {peers: clocks(time.Second, year), off: time.Second, by: byMajority},
		"two against two":                    {peers: clocks(0, year, year), off: 0},
		"three clocks, three times":          {peers: clocks(time.Hour, 2*time.Hour), off: time.Hour},
		"headquarters' peers agree":          {peers: []peerClock{{0, agreed(-year)}}, off: -year, by: byPeers},
		"two headquarters do not agree":      {peers: []peerClock{{year, agreed(year)}, {0, agreed(0)}}, off: 0, by: byMajority},
		"impossible, and one peer":           {wrong: true, peers: clocks(50 * year), off: 50 * year, by: byPeers},
		"impossible, and peers do not agree": {wrong: true, peers: clocks(50*year, 51*year), off: 50 * year},
	} {
		if off, by := judgeClock(!c.wrong, c.peers); off != c.off || by != c.by {
			t.Errorf("%s: %v by %v, want %v by %v", name, off, by, c.off, c.by)
		}
	}
}

// skewed is a mesh whose clocks may be wrong.
func skewed(t *testing.T, n int) (*simMesh, *skews) {
	var skew skews
	s := &simMesh{t: t, net: newSimNet(), wall: skew.wall}
	s.start(n)
	time.Sleep(30 * time.Second)
	return s, &skew
}

// equal wants every node to hold a value, and all nodes the same.
func (s *simMesh) equal(key, want string) {
	s.t.Helper()
	for i, n := range s.nodes {
		if got := n.get(key); got != want || n.db.Digest() != s.nodes[0].db.Digest() {
			s.t.Errorf("node %d has %s=%q, want %q; it has what node 0 has: %t", i, key, got, want, n.db.Digest() == s.nodes[0].db.Digest())
		}
	}
}

// TestTwoNodesOneClockAhead: of two nodes nobody knows whose clock is wrong.
// What the one ahead writes stays there, and both say so; what the other
// writes crosses. With the clock right all is everywhere.
func TestTwoNodesOneClockAhead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, skew := skewed(t, 2)
		defer s.settle()
		s.nodes[0].put(t, "k/1", "before")
		skew.set(1, year)
		time.Sleep(time.Minute)
		s.nodes[1].put(t, "k/1", "ahead")
		s.nodes[1].put(t, "k/2", "ahead")
		s.nodes[0].put(t, "k/3", "right")
		time.Sleep(2 * time.Minute)
		if a, b := s.nodes[0].get("k/1"), s.nodes[1].get("k/3"); a != "before" || b != "right" {
			t.Errorf("k/1 is %q at the node with the right clock, k/3 %q at the other", a, b)
		}
		told := fmt.Sprint(s.nodes[0].mesh.Peers(), s.nodes[1].mesh.Problems())
		if strings.Count(told, "set-ntp true") < 2 || !strings.Contains(told, "from the future") {
			t.Errorf("they say %s", told)
		}
		skew.clear()
		time.Sleep(2 * time.Minute)
		s.equal("k/1", "ahead")
		s.equal("k/2", "ahead")
		s.nodes[0].put(t, "k/1", "after")
		time.Sleep(time.Second)
		s.equal("k/1", "after")
	})
}

// TestTakenWithAWrongClock: two nodes whose clocks are both years ahead take
// each other's records, over what they had of others. Put right, they have
// all that the others have, and the others what they wrote.
func TestTakenWithAWrongClock(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, skew := skewed(t, 5)
		defer s.settle()
		for k := range 5 {
			s.nodes[k].put(t, fmt.Sprintf("k/%d", k), "before")
		}
		time.Sleep(10 * time.Second)
		wrong := map[string]bool{s.nodes[3].db.NodeID(): true, s.nodes[4].db.NodeID(): true}
		s.net.setCut(func(from, to string) bool { return wrong[from] != wrong[to] })
		skew.set(3, 30*year)
		skew.set(4, 30*year)
		time.Sleep(time.Minute)
		s.nodes[3].put(t, "k/0", "ahead")
		s.nodes[4].put(t, "k/3", "ahead")
		time.Sleep(10 * time.Second)
		if got := s.nodes[4].get("k/0"); got != "ahead" {
			t.Fatalf("of two clocks as wrong one does not take what the other wrote: %q", got)
		}
		s.nodes[1].put(t, "k/4", "right")
		skew.set(4, 0)
		s.net.setCut(nil)
		time.Sleep(3 * time.Minute)
		s.equal("k/0", "ahead")
		s.equal("k/1", "before")
		s.equal("k/3", "ahead")
		s.equal("k/4", "right")
	})
}

// TestBranchGoesByHeadquarters: a branch that reaches one node alone takes its
// time when that node's other peers bear it out.
func TestBranchGoesByHeadquarters(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var skew skews
		s := &simMesh{t: t, net: newSimNet(), wall: skew.wall}
		hub := ""
		s.net.cut = func(from, to string) bool { return from != hub && to != hub }
		s.tune = func(i int, o *MeshOptions) {
			if i == 0 {
				hub = o.DB.NodeID()
			}
		}
		skew.set(3, 3*time.Hour)
		s.start(4)
		defer s.settle()
		s.nodes[3].put(t, "k/1", "ahead")
		time.Sleep(3 * time.Minute)
		s.equal("k/1", "ahead")
		s.nodes[1].put(t, "k/1", "after")
		time.Sleep(time.Second)
		s.equal("k/1", "after")
	})
}
