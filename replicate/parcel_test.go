package replicate

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"
)

// parcel packs what one node has for another one that has what the vector says.
func (s *simMesh) parcel(from, to int, have map[string]uint64) ([]byte, map[string]uint64) {
	s.t.Helper()
	var b bytes.Buffer
	vector, err := s.nodes[from].mesh.Pack(context.Background(), &b, s.nodes[to].db.NodeID(), have)
	if err != nil {
		s.t.Fatal(err)
	}
	return b.Bytes(), vector
}

func (s *simMesh) unpack(at int, b []byte) Unpacked {
	s.t.Helper()
	u, err := s.nodes[at].mesh.Unpack(context.Background(), bytes.NewReader(b))
	if err != nil {
		s.t.Fatal(err)
	}
	return u
}

// TestParcelsBothWays has a node without a line take part by parcels: what
// was edited on either side is on both afterwards, a parcel twice changes
// nothing, and one that is missing is noticed.
func TestParcelsBothWays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &simMesh{t: t, net: newSimNet()}
		s.start(3)
		defer s.settle()
		time.Sleep(time.Minute)
		away := s.nodes[2].db.NodeID()
		s.net.setCut(func(from, to string) bool { return (from == away) != (to == away) })
		s.nodes[0].put(t, "k/hq", "1")
		s.nodes[2].put(t, "k/branch", "1")
		first, _ := s.parcel(0, 2, nil)
		u := s.unpack(2, first)
		if u.From != s.nodes[0].db.NodeID() || u.Changes == 0 || u.Copied || s.nodes[2].get("k/hq") != "1" || s.nodes[2].get("k/branch") != "1" {
			t.Errorf("unpacked %+v, the branch has %v", u, s.nodes[2].dump())
		}
		back, knows := s.parcel(2, 0, u.Vector)
		if u := s.unpack(0, back); u.Changes != 1 { // what headquarters had is not carried back
			t.Errorf("%d changes came back", u.Changes)
		}
		time.Sleep(time.Minute)
		if s.nodes[1].get("k/branch") != "1" {
			t.Error("it did not travel on from headquarters")
		}
		s.unpack(2, first) // again
		s.nodes[1].put(t, "k/hq", "2")
		time.Sleep(time.Second)
		second, knows2 := s.parcel(0, 2, knows)
		s.nodes[1].put(t, "k/hq", "3")
		s.nodes[1].put(t, "k/more", "3")
		time.Sleep(time.Second)
		third, _ := s.parcel(0, 2, knows2)
		if _, err := s.nodes[2].mesh.Unpack(context.Background(), bytes.NewReader(third)); !errors.Is(err, ErrGap) || s.nodes[2].get("k/hq") != "1" {
			t.Errorf("a parcel that follows a missing one: %v, the branch has %v", err, s.nodes[2].dump())
		}
		if u := s.unpack(2, second); u.Changes != 1 {
			t.Errorf("what the branch has is carried again: %d changes", u.Changes)
		}
		s.unpack(2, third)
		if s.nodes[2].get("k/more") != "3" || s.nodes[2].db.Digest() != s.nodes[0].db.Digest() {
			t.Errorf("the branch has %v", s.nodes[2].dump())
		}
		for _, n := range []int{0, 10, len(third) / 2, len(third) - 1} {
			if _, err := s.nodes[2].mesh.Unpack(context.Background(), bytes.NewReader(third[:n])); err == nil {
				t.Errorf("%d of %d bytes are taken for a parcel", n, len(third))
			}
		}
	})
}

// TestParcelsAfterALongAbsence has a branch without any word for 70 days: it
// takes a fresh copy of a whole parcel, and nothing that was deleted returns.
func TestParcelsAfterALongAbsence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var skew skews
		s := &simMesh{t: t, net: newSimNet(), wall: skew.wall}
		s.start(3)
		defer s.settle()
		s.nodes[0].put(t, "k/old", "1")
		time.Sleep(2 * time.Minute)
		away := s.nodes[2].db.NodeID()
		s.net.setCut(func(from, to string) bool { return (from == away) != (to == away) })
		time.Sleep(2 * time.Minute)
		have := s.nodes[2].db.Vector()
		s.nodes[2].put(t, "k/mine", "unsent")
		if err := s.nodes[0].db.Update(context.Background(), func(tx *Tx) error { return tx.Delete("k/old") }); err != nil {
			t.Fatal(err)
		}
		old, _ := s.parcel(0, 2, nil)
		for i := range s.nodes {
			skew.set(i, 70*24*time.Hour)
		}
		time.Sleep(2 * time.Minute)
		unpack := func(at int, b []byte) error {
			_, err := s.nodes[at].mesh.Unpack(context.Background(), bytes.NewReader(b))
			return err
		}
		if err := unpack(2, old); !errors.Is(err, ErrParcelOld) {
			t.Errorf("a parcel of 70 days ago: %v", err)
		}
		mine, _ := s.parcel(2, 0, nil)
		if err := unpack(0, mine); !errors.Is(err, ErrParcelFrom) || s.nodes[0].get("k/mine") != "" {
			t.Errorf("a parcel of who was away: %v", err)
		}
		part, _ := s.parcel(0, 2, have)
		if err := unpack(2, part); !errors.Is(err, ErrParcelCopy) {
			t.Errorf("a part for who was away: %v", err)
		}
		whole, _ := s.parcel(0, 2, nil)
		if u := s.unpack(2, whole); !u.Copied || s.nodes[2].get("k/old") != "" || s.nodes[2].get("k/mine") != "" {
			t.Errorf("unpacked %+v, the branch has %v", u, s.nodes[2].dump())
		}
		s.nodes[2].put(t, "k/after", "1")
		back, _ := s.parcel(2, 0, nil)
		s.unpack(0, back)
		if s.nodes[0].get("k/after") != "1" || s.nodes[0].get("k/old") != "" {
			t.Errorf("headquarters has %v", s.nodes[0].dump())
		}
	})
}
