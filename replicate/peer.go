package replicate

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// How a node is reached.
type Reach string

// Ways to reach a node.
const (
	Direct  Reach = "direct"  // there is a connection
	Relayed Reach = "relayed" // others pass on what is for it
	Away    Reach = "away"    // nobody reaches it
)

// A Peer is another node as this one sees it.
type Peer struct {
	NodeID, Name, Site string
	Addr               string // of the connection, or the first known one
	Version            string // of its software
	Reach              Reach
	Through            string    // the node that relays, empty unless Relayed
	Since              time.Time // of Reach; zero when not known
	RoundTrip          time.Duration
	Lacking            Lag           // what it has and this node lacks
	Unsent             Lag           // what this node has and it lacks
	Offset             time.Duration // its clock minus ours
	Contact            time.Time     // last heard of, zero for never
	Problems           []string      // what is wrong and what to do
}

// A Lag is how far one node is behind another. Known is false when there was
// no word of it yet.
type Lag struct {
	Known   bool
	Records uint64 // at most so many
	For     time.Duration
}

// Peers is every other node this one knows of, by name.
func (m *Mesh) Peers() []Peer {
	known := m.known()
	for _, l := range m.links.list() {
		if _, ok := known[l.Node]; !ok && l.Node != m.id && !m.isDropped(l.Node) {
			known[l.Node] = KnownPeer{NodeID: l.Node, Name: l.Name, Site: l.Site, Addrs: l.Addrs}
		}
	}
	routes := m.links.table()
	var list []Peer
	for id, k := range known {
		list = append(list, m.peer(k, routes[id]))
	}
	slices.SortFunc(list, func(a, b Peer) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.NodeID, b.NodeID)) })
	return list
}

func (m *Mesh) peer(k KnownPeer, way route) Peer {
	p := Peer{NodeID: k.NodeID, Name: k.Name, Site: k.Site, Problems: m.problems.of(k.NodeID)}
	if len(k.Addrs) > 0 {
		p.Addr = k.Addrs[0]
	}
	if l, ok := m.links.of(k.NodeID); ok {
		p.Name, p.Site, p.Version = cmp.Or(p.Name, l.Name), cmp.Or(p.Site, l.Site), l.Version
	}
	alive, since := m.gossip.seen(k.NodeID)
	m.mu.Lock()
	s := m.sessions[k.NodeID]
	if p.Contact = m.heard[k.NodeID]; p.Contact.IsZero() {
		p.Contact = m.contact[k.NodeID]
	}
	m.mu.Unlock()
	switch {
	case s != nil:
		p.Reach, p.Since = Direct, s.born
		s.describe(&p)
	case way.via != "" && way.via != k.NodeID: // or the connection ended just now
		p.Reach, p.Through = Relayed, way.via
		if alive {
			p.Since, p.Contact = since, m.db.now()
		}
	default:
		p.Reach, p.Since = Away, p.Contact
		if !alive && since.After(p.Since) {
			p.Since = since
		}
	}
	return p
}

// describe fills in what only a connection tells.
func (s *session) describe(p *Peer) {
	ours := s.m.db.Vector()
	s.mu.Lock()
	defer s.mu.Unlock()
	p.Addr, p.Version = cmp.Or(s.addr, p.Addr), s.peer.Version
	p.RoundTrip = s.rtt
	if s.clock.known() {
		p.Offset = s.clock.now().Sub(s.m.db.wall())
	}
	p.Contact = s.m.db.now().Add(-time.Since(s.heard))
	if off := p.Offset; off.Abs() >= warnOffset {
		p.Problems = append(p.Problems, clockProblem("Its clock", off))
	}
	if s.peerFence != "" {
		p.Problems = append(p.Problems, fmt.Sprintf("It and this node had no word of each other for more than %d days, so one of them takes a fresh copy before they exchange records.", absence/(24*time.Hour)))
	}
	if s.matched.IsZero() && s.theirs == nil {
		return
	}
	p.Lacking.Known, p.Unsent.Known = true, true
	if s.digest == s.m.db.Digest() {
		return
	}
	behind := time.Since(cmp.Or(s.matched, s.born))
	if p.Lacking.Records = excess(s.theirs, ours); p.Lacking.Records > 0 {
		p.Lacking.For = behind
	}
	if p.Unsent.Records = excess(ours, s.theirs); p.Unsent.Records > 0 {
		p.Unsent.For = behind
		if !s.unsure.IsZero() {
			p.Unsent.For = time.Since(s.unsure)
		}
	}
}

// excess is how many changes a has that b lacks, some of them replaced.
func excess(a, b map[string]uint64) (n uint64) {
	for w, have := range a {
		if have > b[w] {
			n += have - b[w]
		}
	}
	return n
}
