package ui

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"wuamesh/appliance"
)

// meshView is the mesh, one of its nodes chosen, and what the forms said.
type meshView struct {
	State   appliance.MeshState
	Nodes   []appliance.NodeRow // in the mesh, those that need a look first
	Removed []appliance.NodeRow
	Chosen  appliance.NodeRow
	Anchors int
	Chart   chart
	Owner   bool
	Made    string // a join token, shown this once
	Name    string // of the form for it
	Address string
	Problem *appliance.Problem
	Met     []appliance.MeetingRow
	Reviews []appliance.ReviewRow // of the node that answers

	Moving    []appliance.Task // to the node that answers, the most urgent of them
	MovingAll int              // how many there are
	Coverage  map[string][]appliance.Coverage
	Needed    appliance.FileCoverage
}

// movingMost is how many files on their way the page shows; Downloads has all.
const movingMost = 8

// neededMost is how many files that hosts wait for the page shows; its file has
// all.
const neededMost = 12

func (u *UI) mesh(r *http.Request) (reply, error) { return u.meshWith(r, meshView{Name: "new node"}) }

func (u *UI) meshWith(r *http.Request, v meshView) (reply, error) {
	var err error
	if v.State, err = u.node.Mesh(r.Context()); err != nil {
		return reply{}, err
	}
	if v.Met, err = u.node.Meetings(r.Context(), ""); err != nil {
		return reply{}, err
	}
	if v.Reviews, err = u.node.Reviews(r.Context()); err != nil {
		return reply{}, err
	}
	v.Moving, v.MovingAll = u.node.Moving(movingMost)
	v.Coverage = u.node.Coverage(v.Moving)
	if v.Needed, err = u.node.NeededFiles(r.Context(), neededMost); err != nil {
		return reply{}, err
	}
	v.Owner = actor(r).May(appliance.Owner)
	for _, n := range v.State.Nodes {
		if !n.Removed.IsZero() {
			v.Removed = append(v.Removed, n)
			continue
		}
		v.Nodes = append(v.Nodes, n)
		if n.Anchor {
			v.Anchors++
		}
	}
	v.Chart = chartOf(v.Nodes, v.State.Links)
	slices.SortStableFunc(v.Nodes, func(x, y appliance.NodeRow) int { return cmp.Compare(gradeRank[x.Grade()], gradeRank[y.Grade()]) })
	v.Chosen = choose(v.Nodes, r.FormValue("node"))
	if v.Problem != nil {
		return again(meshPage(v)), nil
	}
	return show(meshPage(v)), nil
}

var gradeRank = map[appliance.Grade]int{appliance.Lost: 0, appliance.Late: 1, appliance.Good: 2}

// choose finds the node that was asked for, or else the first that needs a
// look, or the one that answers.
func choose(list []appliance.NodeRow, id string) (chosen appliance.NodeRow) {
	for i, n := range list {
		if n.ID == id || strings.EqualFold(n.Name, id) {
			return n
		}
		if n.Self || i == 0 && n.Grade() != appliance.Good {
			if chosen.ID == "" {
				chosen = n
			}
		}
	}
	return chosen
}

// joinTokenMake shows the token on the page that answers the form: it is kept
// nowhere it could be shown again from.
func (u *UI) joinTokenMake(r *http.Request) (reply, error) {
	v := meshView{Name: r.FormValue("name"), Address: strings.TrimSpace(r.FormValue("address"))}
	o := appliance.TokenOptions{Name: v.Name, Use: appliance.ForJoin, Expires: time.Hour}
	if v.Address != "" {
		o.Addrs = []string{v.Address}
	}
	var err error
	_, v.Made, err = u.node.MakeToken(r.Context(), actor(r), o)
	return u.meshAfter(r, v, err)
}

// meshAfter shows the page again: with what was made, or with why nothing was.
func (u *UI) meshAfter(r *http.Request, v meshView, err error) (reply, error) {
	if p, ok := appliance.AsProblem(err); ok && p.Kind != appliance.Denied {
		v.Problem = p // whatever kind it is, the forms stay filled in
	} else if err != nil {
		return reply{}, err
	}
	return u.meshWith(r, v)
}

func (u *UI) nodeRemove(r *http.Request) (reply, error) {
	row, err := u.node.RemoveNode(r.Context(), actor(r), r.PathValue("node"), strings.TrimSpace(r.FormValue("reason")))
	if err != nil {
		return u.meshAfter(r, meshView{}, err)
	}
	return goTo("/mesh").saying("%s is removed. Hosts that it let in get other certificates by themselves. %s", row.Name, strings.Join(row.Problems, " ")), nil
}

func (u *UI) anchorBecome(r *http.Request) (reply, error) {
	if err := u.node.BecomeAnchor(r.Context(), actor(r), r.FormValue("passphrase")); err != nil {
		if p, ok := appliance.AsProblem(err); ok && p.Field == "passphrase" {
			return u.meshWith(r, meshView{Problem: p})
		}
		return u.meshAfter(r, meshView{}, err)
	}
	return goTo("/mesh").saying("This node is an anchor now: it lets nodes in and renews their certificates."), nil
}

func (u *UI) anchorResign(r *http.Request) (reply, error) {
	if err := u.node.ResignAnchor(r.Context(), actor(r)); err != nil {
		return u.meshAfter(r, meshView{}, err)
	}
	return goTo("/mesh").saying("The mesh's root key is gone from this node."), nil
}

func (u *UI) gossipRotate(r *http.Request) (reply, error) {
	if err := u.node.RotateGossipKey(r.Context(), actor(r)); err != nil {
		return u.meshAfter(r, meshView{}, err)
	}
	return goTo("/mesh").saying("A new gossip key is on its way to every node; the old one is understood for a day."), nil
}

// sites counts them.
func (v meshView) sites() int {
	all := map[string]bool{}
	for _, n := range v.Nodes {
		all[n.Site] = true
	}
	return len(all)
}

// troubles are the nodes with something wrong.
func (v meshView) troubles() []appliance.NodeRow {
	return slices.DeleteFunc(slices.Clone(v.Nodes), func(n appliance.NodeRow) bool { return len(n.Problems) == 0 })
}

// subtitle sums the mesh up.
func (v meshView) subtitle() string {
	if len(v.Nodes) == 0 {
		return "No mesh yet: the first token for a new node founds it"
	}
	return fmt.Sprintf("%s in %s, as %s sees them", count(len(v.Nodes), "node"), count(v.sites(), "site"), v.State.Node)
}

// connectedTo names the nodes that one has connections to.
func (v meshView) connectedTo(n appliance.NodeRow) string {
	names := map[string]string{}
	for _, o := range v.State.Nodes {
		names[o.ID] = o.Name
	}
	var list []string
	for _, l := range v.State.Links {
		switch n.ID {
		case l.A:
			list = append(list, names[l.B])
		case l.B:
			list = append(list, names[l.A])
		}
	}
	slices.Sort(list)
	switch {
	case len(list) == 0 && n.Reach == "away":
		return "not known"
	case len(list) == 0:
		return "nobody"
	}
	return strings.Join(list, ", ")
}

// movesNow says what moves between this node and another; empty for nothing.
func movesNow(n appliance.NodeRow) string { return bothWays(n.FilesInNow, n.FilesOutNow, "/s") }

// bothWays says what comes from a node and what goes to it.
func bothWays(in, out int64, per string) string {
	var list []string
	if in > 0 {
		list = append(list, size(in)+per+" from it")
	}
	if out > 0 {
		list = append(list, size(out)+per+" to it")
	}
	return strings.Join(list, ", ")
}

// dotClass is the mark before a node's name.
func dotClass(g appliance.Grade) string {
	return map[appliance.Grade]string{appliance.Late: "warn", appliance.Lost: "err"}[g]
}

// A chart is who is connected to whom: the node that answers on the left,
// those that it is connected to beside it, then those that it reaches through
// others, then those that nobody reaches.
type chart struct {
	Width, Height int
	Cards         []chartCard
	Lines         []chartLine
}

type chartCard struct {
	appliance.NodeRow
	X, Y int // of its upper left corner
}

type chartLine struct {
	Path string
	Own  bool // of the node that answers
}

// maxChart is how many nodes are drawn: more are a table only.
const maxChart = 24

const (
	cardWidth, cardHeight = 176, 46
	cardStepX, cardStepY  = 252, 62
	cardsInColumn         = 6
)

func chartOf(nodes []appliance.NodeRow, links []appliance.NodeLink) (c chart) {
	if len(nodes) < 2 || len(nodes) > maxChart {
		return c
	}
	at, column := map[string]chartCard{}, 0
	for _, reach := range []string{"self", "direct", "relayed", "away"} {
		layer := slices.DeleteFunc(slices.Clone(nodes), func(n appliance.NodeRow) bool { return n.Reach != reach })
		for part := range slices.Chunk(layer, cardsInColumn) {
			for i, n := range part {
				k := chartCard{n, 12 + column*cardStepX, i * cardStepY}
				c.Cards = append(c.Cards, k)
				c.Height = max(c.Height, k.Y+cardHeight+24)
			}
			column++
		}
	}
	c.Width = column*cardStepX - (cardStepX - cardWidth) + 64
	for i := range c.Cards { // each column in the middle
		k := &c.Cards[i]
		n := 0
		for _, o := range c.Cards {
			if o.X == k.X {
				n++
			}
		}
		k.Y += (c.Height - (n-1)*cardStepY - cardHeight) / 2
		at[k.ID] = *k
	}
	for _, l := range links {
		a, okA := at[l.A]
		b, okB := at[l.B]
		if okA && okB {
			c.Lines = append(c.Lines, chartLine{linePath(a, b), a.Self || b.Self})
		}
	}
	return c
}

// linePath leads from card to card: from the right edge of one to the left of
// the other, or around the right of two in one column.
func linePath(a, b chartCard) string {
	if a.X > b.X {
		a, b = b, a
	}
	const half = cardHeight / 2
	x1, y1, x2, y2 := a.X+cardWidth, a.Y+half, b.X, b.Y+half
	bend := (x2 - x1) / 2
	if a.X == b.X {
		x2 = b.X + cardWidth
		bend = 24 + min(max(y1-y2, y2-y1)/8, 28)
		return fmt.Sprintf("M%d %dC%d %d %d %d %d %d", x1, y1, x1+bend, y1, x2+bend, y2, x2, y2)
	}
	return fmt.Sprintf("M%d %dC%d %d %d %d %d %d", x1, y1, x1+bend, y1, x2-bend, y2, x2, y2)
}

// clipped cuts a text to n letters.
func clipped(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
