package appliance

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"wuamesh/replicate"
)

// A MeshState is the mesh as the node that answers sees it.
type MeshState struct {
	Standing
	Nodes []NodeRow  `json:"nodes"`
	Links []NodeLink `json:"links"` // between nodes that it reaches, itself among them
}

// A NodeLink is a connection between two nodes, named by their ids.
type NodeLink struct {
	A         string `json:"a"`
	B         string `json:"b"`
	RoundTrip int64  `json:"round_trip_us,omitempty"` // microseconds; known of the answering node's own links
}

// A Standing is which node answers, and how far it may be behind the others.
type Standing struct {
	Node    string     `json:"node"`
	Site    string     `json:"site"`
	Others  int        `json:"others"`         // nodes of the mesh besides this one
	Behind  NodeLag    `json:"behind"`         // the most that a connected node has and this one lacks
	Away    []AwayNode `json:"away,omitempty"` // nodes it does not reach, the longest away first
	Copying bool       `json:"copying"`        // the first copy of the mesh is not complete
	Grade   Grade      `json:"grade"`
	Text    string     `json:"text"` // all of it in a sentence or two
}

// An AwayNode is a node that is not reached; Since is when it was last heard
// of, zero for never.
type AwayNode struct {
	Name  string    `json:"name"`
	Since time.Time `json:"since,omitzero"`
}

// A Grade says at a glance how something stands.
type Grade string

// The grades. Late is from a minute on, Lost from a quarter of an hour, or
// when nobody is reached.
const (
	Good Grade = "good"
	Late Grade = "late"
	Lost Grade = "lost"
)

const (
	enRoute   = 10 * time.Second // what is lacking for less is on its way
	lateAfter = time.Minute
	lostAfter = 15 * time.Minute
)

// Mesh is the mesh as this node sees it.
func (a *Appliance) Mesh(context.Context) (MeshState, error) {
	m := MeshState{Nodes: a.nodeRows(), Links: []NodeLink{}}
	m.Standing = a.standing(m.Nodes)
	trips := map[string]int64{}
	for _, n := range m.Nodes {
		trips[n.ID] = n.RoundTrip
	}
	if mesh := a.mesh.Load(); mesh != nil {
		for _, l := range mesh.Links() {
			k := NodeLink{A: l.A, B: l.B}
			if k.A == a.db.NodeID() {
				k.RoundTrip = trips[k.B]
			} else if k.B == a.db.NodeID() {
				k.RoundTrip = trips[k.A]
			}
			m.Links = append(m.Links, k)
		}
	}
	return m, nil
}

// Standing is how this node stands, and the nodes it is judged by: less than
// [Appliance.Mesh], for every page.
func (a *Appliance) Standing(context.Context) (Standing, []NodeRow) {
	rows := a.nodeRows()
	return a.standing(rows), rows
}

// Short is the text in a few words.
func (s Standing) Short() string {
	switch {
	case len(s.Away) == s.Others && s.Others > 0:
		return "cut off"
	case s.Copying: // before it came there may be no word of other nodes either
		return "first copy is coming"
	case s.Others == 0:
		return "alone"
	case s.Behind.Seconds >= lateAfter.Seconds():
		return Span(time.Duration(s.Behind.Seconds*float64(time.Second))) + " behind"
	case len(s.Away) == 1:
		return s.Away[0].Name + " is away"
	case len(s.Away) > 1:
		return fmt.Sprintf("%d nodes are away", len(s.Away))
	case s.Behind.Records > 0:
		return Span(time.Duration(s.Behind.Seconds*float64(time.Second))) + " behind"
	case !s.Behind.Known:
		return "connected"
	}
	return "in step"
}

// standing sums up the nodes of the mesh.
func (a *Appliance) standing(rows []NodeRow) Standing {
	s := Standing{Node: a.NodeName(), Site: a.config().Site, Grade: Good}
	m := a.member.Load()
	s.Copying = m != nil && !m.Synced
	removed := false
	for _, n := range rows {
		switch {
		case n.Self:
			removed = !n.Removed.IsZero()
		case !n.Removed.IsZero():
		default:
			s.Others++
			if n.Reach == string(replicate.Away) {
				s.Away = append(s.Away, AwayNode{n.Name, n.Contact})
			}
			if n.Lacking.Known {
				s.Behind.Known = true
				s.Behind.Records, s.Behind.Seconds = max(s.Behind.Records, n.Lacking.Records), max(s.Behind.Seconds, n.Lacking.Seconds)
			}
		}
	}
	slices.SortStableFunc(s.Away, func(x, y AwayNode) int { return x.Since.Compare(y.Since) })
	s.judge(m != nil, removed)
	return s
}

// judge grades and says how the node stands.
func (s *Standing) judge(member, removed bool) {
	behind := time.Duration(s.Behind.Seconds * float64(time.Second))
	late := fmt.Sprintf("%s behind, at most %s.", Span(behind), things(int(s.Behind.Records), "record", "records"))
	switch {
	case removed:
		s.Grade, s.Text = Lost, "Removed from the mesh: nothing that happened there since is here."
	case !member:
		s.Text = "In no mesh yet."
	case len(s.Away) == s.Others && s.Others > 0:
		s.Grade = Lost
		s.Text = fmt.Sprintf("Cut off%s: it reaches none of %s. You can go on working: changes are kept here and sent when the line is back.", since(s.Away[len(s.Away)-1].Since), things(s.Others, "other node", "other nodes"))
	case s.Copying:
		s.Grade, s.Text = Late, "The first copy of the mesh is still on its way, so not everything is here yet."
	case s.Others == 0:
		s.Text = "The only node of its mesh."
	case behind >= lateAfter:
		s.Grade, s.Text = Late, upper(late)
	case len(s.Away) == 1:
		s.Grade, s.Text = Late, fmt.Sprintf("%s is away%s: what happened there since is not here.", s.Away[0].Name, since(s.Away[0].Since))
	case len(s.Away) > 1:
		s.Grade, s.Text = Late, fmt.Sprintf("%d of %d other nodes are away, the longest %s%s: what happened there since is not here.", len(s.Away), s.Others, s.Away[0].Name, since(s.Away[0].Since))
	case !s.Behind.Known:
		s.Text = "Connected; how far it is behind is not known yet."
	case s.Behind.Records > 0:
		s.Text = upper(late)
	case s.Others == 1:
		s.Text = "In step with the other node."
	default:
		s.Text = fmt.Sprintf("In step with the %d other nodes.", s.Others)
	}
	if s.Grade == Late && behind >= lostAfter {
		s.Grade = Lost
	}
}

func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " since " + clock(t)
}

// Span says a duration as people do, in one or two units: "0.4 s", "3 h 12 min".
func Span(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// Grade says at a glance how a node stands, seen from the one that answers.
func (n NodeRow) Grade() Grade {
	most := time.Duration(max(n.Lacking.Seconds, n.Unsent.Seconds) * float64(time.Second))
	switch {
	case n.Reach == string(replicate.Away), !n.Removed.IsZero(), most >= lostAfter:
		return Lost
	case len(n.Problems) > 0, most >= lateAfter:
		return Late
	}
	return Good
}

// Reached says how the answering node reaches it.
func (n NodeRow) Reached() string {
	switch n.Reach {
	case "self":
		return "this node"
	case "removed":
		return "removed " + clock(n.Removed) + " by " + n.RemovedBy
	case string(replicate.Relayed):
		return "through " + n.Through
	case string(replicate.Away):
		return "away" + since(n.Contact)
	}
	return fmt.Sprintf("direct, %.1f ms", float64(n.RoundTrip)/1000)
}

// Lag says how far it and the answering node are behind each other; empty
// where nothing is to be said.
func (n NodeRow) Lag() string {
	says := func(who string, l NodeLag) string {
		return fmt.Sprintf("%s lacks %s for %s", who, things(int(l.Records), "record", "records"), Span(time.Duration(l.Seconds*float64(time.Second))))
	}
	var parts []string
	if n.Unsent.Records > 0 {
		parts = append(parts, says("it", n.Unsent))
	}
	if n.Lacking.Records > 0 {
		parts = append(parts, says("this node", n.Lacking))
	}
	switch {
	case n.Self || !n.Removed.IsZero():
		return ""
	case len(parts) > 0 && max(n.Unsent.Seconds, n.Lacking.Seconds) < enRoute.Seconds():
		return "in step but for " + things(int(n.Unsent.Records+n.Lacking.Records), "record", "records") + " on the way"
	case len(parts) > 0:
		return strings.Join(parts, "; ")
	case n.Unsent.Known:
		return "in step"
	}
	return "not measured: no connection of its own"
}

// Clock says how far its clock is off the answering node's; empty where that
// is not measured.
func (n NodeRow) Clock() string {
	if n.Reach != string(replicate.Direct) {
		return ""
	}
	return fmt.Sprintf("%+.1f s", float64(n.OffsetMS)/1000)
}

// diagnose adds what the rows themselves show to be wrong, and what to do. A
// node that reaches nobody says it once, of itself.
func diagnose(rows []NodeRow) {
	newest, others, away := "", 0, 0
	for _, n := range rows {
		if n.Removed.IsZero() {
			newest = newerVersion(newest, n.Version)
			if !n.Self {
				others++
				if n.Reach == string(replicate.Away) {
					away++
				}
			}
		}
	}
	cut := others > 0 && away == others
	for i := range rows {
		n := &rows[i]
		switch {
		case !n.Removed.IsZero():
			continue
		case n.Self && cut:
			n.Problems = append(n.Problems, "This node reaches none of the others. Look at its line: it must reach at least one of them over TCP, at the addresses listed here. It goes on serving its hosts, and sends what is changed here when the line is back.")
		case cut:
		case n.Reach == string(replicate.Away) && len(n.Problems) == 0:
			n.Problems = append(n.Problems, fmt.Sprintf("Nobody reaches it%s. Look at its power and its line; on the box, systemctl status wuamesh and wuamesh doctor say more. If it will not come back, remove it: its hosts go to other nodes by themselves.", since(n.Contact)))
		case n.Unsent.Seconds >= lostAfter.Seconds():
			n.Problems = append(n.Problems, fmt.Sprintf("It is connected and has not taken %s for %s. Its disk may be full: wuamesh doctor there says so.", things(int(n.Unsent.Records), "record of this node", "records of this node"), Span(time.Duration(n.Unsent.Seconds*float64(time.Second)))))
		}
		if n.Version != "" && n.Version != newest {
			n.Problems = append(n.Problems, fmt.Sprintf("It runs wuamesh %s, and %s is in the mesh. Update it when you can.", n.Version, newest))
		}
	}
}

// newerVersion is the later of two version numbers such as "0.10.2".
func newerVersion(a, b string) string {
	x, y := strings.FieldsFunc(a, noDigit), strings.FieldsFunc(b, noDigit)
	for i := range min(len(x), len(y)) {
		m, _ := strconv.Atoi(x[i])
		n, _ := strconv.Atoi(y[i])
		if m != n {
			if m > n {
				return a
			}
			return b
		}
	}
	if len(x) > len(y) || a >= b && len(x) == len(y) {
		return a
	}
	return b
}

func noDigit(r rune) bool { return r < '0' || r > '9' }
