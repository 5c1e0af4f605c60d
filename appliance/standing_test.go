package appliance_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"wuamesh/appliance"
)

// TestStanding says how a node stands, in every case there is.
func TestStanding(t *testing.T) {
	at := time.Date(2026, 11, 24, 9, 1, 0, 0, time.Local)
	self := appliance.NodeRow{ID: "a", Name: "rns-01", Self: true, Reach: "self"}
	peer := func(name, reach string, lacks uint64, seconds float64) appliance.NodeRow {
		return appliance.NodeRow{ID: name, Name: name, Reach: reach, Contact: at, Lacking: appliance.NodeLag{Known: reach == "direct", Records: lacks, Seconds: seconds}}
	}
	for _, tt := range []struct {
		name string
		rows []appliance.NodeRow
		want appliance.Grade
		says string
	}{
		{"alone", nil, appliance.Good, "The only node of its mesh."},
		{"in step", []appliance.NodeRow{peer("b", "direct", 0, 0), peer("c", "relayed", 0, 0)}, appliance.Good, "In step with the 2 other nodes."},
		{"a moment behind", []appliance.NodeRow{peer("b", "direct", 12, 1.4), peer("c", "direct", 3, 0.2)}, appliance.Good, "1.4 s behind, at most 12 records."},
		{"late", []appliance.NodeRow{peer("b", "direct", 1, 90)}, appliance.Late, "1 min behind, at most 1 record."},
		{"lost", []appliance.NodeRow{peer("b", "direct", 400, 3*3600+720)}, appliance.Lost, "3 h 12 min behind, at most 400 records."},
		{"no word yet", []appliance.NodeRow{{ID: "b", Name: "b", Reach: "direct"}}, appliance.Good, "Connected; how far it is behind is not known yet."},
		{"one away", []appliance.NodeRow{peer("b", "away", 0, 0), peer("c", "direct", 0, 0)}, appliance.Late, "b is away since 24 Nov 09:01: what happened there since is not here."},
		{"two away", []appliance.NodeRow{peer("b", "away", 0, 0), peer("c", "away", 0, 0), peer("d", "direct", 0, 0)}, appliance.Late, "2 of 3 other nodes are away, the longest b since 24 Nov 09:01: what happened there since is not here."},
		{"cut off", []appliance.NodeRow{peer("b", "away", 0, 0), peer("c", "away", 0, 0)}, appliance.Lost, "Cut off since 24 Nov 09:01: it reaches none of 2 other nodes. You can go on working: changes are kept here and sent when the line is back."},
		{"a removed node counts for nothing", []appliance.NodeRow{peer("b", "direct", 0, 0), {ID: "c", Name: "c", Reach: "removed", Removed: at}}, appliance.Good, "In step with the other node."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := appliance.StandingOf(append(tt.rows, self))
			if got.Grade != tt.want || got.Text != tt.says {
				t.Errorf("%s: %q; want %s: %q", got.Grade, got.Text, tt.want, tt.says)
			}
		})
	}
}

// TestLag says how far a node is behind, and not that it is when what it lacks
// was written just now.
func TestLag(t *testing.T) {
	lag := func(n uint64, s float64) appliance.NodeLag {
		return appliance.NodeLag{Known: true, Records: n, Seconds: s}
	}
	for _, tt := range []struct {
		row  appliance.NodeRow
		want string
	}{
		{appliance.NodeRow{Self: true}, ""},
		{appliance.NodeRow{}, "not measured: no connection of its own"},
		{appliance.NodeRow{Unsent: lag(0, 0), Lacking: lag(0, 0)}, "in step"},
		{appliance.NodeRow{Unsent: lag(3, 4), Lacking: lag(1, 2)}, "in step but for 4 records on the way"},
		{appliance.NodeRow{Unsent: lag(436, 18), Lacking: lag(0, 0)}, "it lacks 436 records for 18 s"},
		{appliance.NodeRow{Unsent: lag(1, 18), Lacking: lag(2, 75)}, "it lacks 1 record for 18 s; this node lacks 2 records for 1 min"},
	} {
		if got := tt.row.Lag(); got != tt.want {
			t.Errorf("%q; want %q", got, tt.want)
		}
	}
}

// TestDiagnosis says what is wrong with nodes and what to do, and nothing
// twice: a node that reaches nobody has a line to look at, not the others.
func TestDiagnosis(t *testing.T) {
	rows := []appliance.NodeRow{
		{Name: "a", Self: true, Reach: "self", Version: "0.10.0"}, {Name: "b", Reach: "away", Version: "0.10.0"},
		{Name: "c", Reach: "direct", Version: "0.9.3", Unsent: appliance.NodeLag{Known: true, Records: 7, Seconds: 7200}},
		{Name: "d", Reach: "removed", Removed: time.Now(), Version: "0.1.0"},
	}
	appliance.Diagnose(rows)
	for i, want := range []string{"", "Nobody reaches it", "has not taken 7 records of this node for 2 h 0 min", ""} {
		if text := strings.Join(rows[i].Problems, " "); want == "" && text != "" || !strings.Contains(text, want) {
			t.Errorf("%s: %q", rows[i].Name, text)
		}
	}
	if text := strings.Join(rows[2].Problems, " "); !strings.Contains(text, "It runs wuamesh 0.9.3, and 0.10.0 is in the mesh") {
		t.Error(text)
	}
	cut := []appliance.NodeRow{{Name: "a", Self: true, Reach: "self", Version: "1"}, {Name: "b", Reach: "away", Version: "1"}, {Name: "c", Reach: "away", Version: "1"}}
	appliance.Diagnose(cut)
	if len(cut[0].Problems) != 1 || !strings.Contains(cut[0].Problems[0], "reaches none of the others") || len(cut[1].Problems)+len(cut[2].Problems) > 0 {
		t.Errorf("%+v", cut)
	}
}

// TestMeshState looks at a mesh of three from each of its nodes, whole and
// with one of them cut off.
func TestMeshState(t *testing.T) {
	t.Parallel()
	a, _ := behind(t, "rns-01")
	b, _ := behind(t, "brs-01")
	c, _ := behind(t, "lor-01")
	b.joinTo(t, a)
	c.joinTo(t, a)
	look := func(s *site) appliance.MeshState {
		m, err := s.Mesh(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, s := range []*site{a, b, c} {
		eventually(t, s.NodeName()+" is in step and knows the links", func() error {
			m := look(s)
			if m.Node != s.NodeName() || m.Grade != appliance.Good || m.Text != "In step with the 2 other nodes." || len(m.Nodes) != 3 || len(m.Links) < 2 {
				return fmt.Errorf("%+v", m)
			}
			for _, n := range m.Nodes {
				if n.Reach == "direct" && n.RoundTrip == 0 {
					return fmt.Errorf("no round trip to %s", n.Name)
				}
			}
			return nil
		})
	}
	// b's only ways are its own line, over which it is called, and what it
	b.stop()
	eventually(t, "a says who is away", func() error {
		m := look(a)
		if m.Grade != appliance.Late || !strings.HasPrefix(m.Text, "brs-01 is away since ") || len(m.Away) != 1 {
			return fmt.Errorf("%+v", m.Standing)
		}
		s, err := a.Status(t.Context())
		if err != nil || s.Standing.Text != m.Text {
			t.Errorf("the overview says %q, the mesh %q: %v", s.Standing.Text, m.Text, err)
		}
		for _, at := range s.Attention {
			if at.Fact == "Node brs-01 needs a look." && strings.Contains(at.Cause, "Nobody reaches it since") && strings.HasPrefix(at.URL, "/mesh?node=") {
				return nil
			}
		}
		return fmt.Errorf("the overview asks for no attention: %+v", s.Attention)
	})
	c.stop()
	eventually(t, "a says that it is cut off", func() error {
		if m := look(a); m.Grade != appliance.Lost || !strings.HasPrefix(m.Text, "Cut off since ") || len(m.Links) != 0 {
			return fmt.Errorf("%+v", m)
		}
		return nil
	})
}
