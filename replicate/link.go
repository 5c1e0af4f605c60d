package replicate

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// A linkState is what one node says of itself and of the peers it has
// connections to. Each is flooded through the mesh when it changes, so every
// node can work out who leads to whom, and pass on what is for others.
type linkState struct {
	Node     string `json:"node"`
	Instance string `json:"instance"`
	Seq      uint64 `json:"seq"` // a later one replaces an earlier one
	Self
	Peers []string `json:"peers"`
}

func (l linkState) check() bool {
	return isNodeID(l.Node) && len(l.Instance) <= 64 && len(l.Peers) <= maxNodes && len(l.Addrs) <= 32 &&
		len(l.Name) <= 255 && len(l.Site) <= 255 && len(l.Version) <= 255
}

const (
	maxNodes = 2000
	// settle is how long a node waits for more changes before it announces
	// its links, and spacing how long until it does so again.
	settle, spacing = 200 * time.Millisecond, time.Second
)

// links is what this node knows of who is connected to whom.
type links struct {
	id, instance string

	mu     sync.Mutex
	own    linkState
	stale  bool // own must be said again
	all    map[string]linkState
	heard  map[string]time.Time
	routes map[string]route // nil when they must be worked out again
	clones int              // how often another instance of this id spoke
}

// A route is the neighbour that leads to a node.
type route struct {
	via  string
	hops int
}

func newLinks(id, instance string) *links {
	return &links{id: id, instance: instance, all: map[string]linkState{}, heard: map[string]time.Time{}}
}

// set changes what this node says and returns it when that is new.
func (l *links) set(self Self, peers []string) (linkState, bool) {
	slices.Sort(peers)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.own.Seq > 0 && !l.stale && slices.Equal(l.own.Peers, peers) && same(l.own.Self, self) {
		return l.own, false
	}
	l.own = linkState{Node: l.id, Instance: l.instance, Seq: max(l.own.Seq+1, uint64(time.Now().UnixMilli())), Self: self, Peers: peers}
	l.routes, l.stale = nil, false
	return l.own, true
}

func same(a, b Self) bool {
	return a.Name == b.Name && a.Site == b.Site && a.Version == b.Version && slices.Equal(a.Addrs, b.Addrs)
}

// take keeps a link state and says whether it is news to pass on.
func (l *links) take(s linkState) (news, clone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.Node == l.id {
		return l.takeOwn(s)
	}
	old, ok := l.all[s.Node]
	if ok && old.Seq >= s.Seq || !ok && len(l.all) >= maxNodes {
		return false, false
	}
	l.all[s.Node], l.heard[s.Node], l.routes = s, time.Now(), nil
	return true, false
}

// takeOwn meets what a node of this id said: this process, an earlier one, or
// a clone. What is here now must have the last word.
func (l *links) takeOwn(s linkState) (news, clone bool) {
	if s.Seq < l.own.Seq || s.Instance == l.instance {
		return false, false
	}
	l.own.Seq, l.stale = s.Seq, true
	l.clones++
	return false, l.clones > 3
}

func (l *links) list() []linkState {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := slices.Collect(maps.Values(l.all))
	if l.own.Seq > 0 {
		list = append(list, l.own)
	}
	return list
}

// of returns what a node said last.
func (l *links) of(id string) (linkState, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.all[id]
	return s, ok
}

// via returns the neighbour that leads to a node; empty when none does.
func (l *links) via(id string) string { return l.table()[id].via }

// table returns the routes to all nodes that can be reached.
func (l *links) table() map[string]route {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.routes == nil {
		l.routes = l.work()
	}
	return l.routes
}

// work finds the shortest ways, breadth first. A link counts when both ends
// say it is there, so that a node that vanished is not a way.
func (l *links) work() map[string]route {
	routes := map[string]route{}
	queue := []string{l.id}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		state := l.own
		if at != l.id {
			state = l.all[at]
		}
		for _, p := range state.Peers {
			if _, seen := routes[p]; seen || p == l.id {
				continue
			}
			if at != l.id && !slices.Contains(l.all[p].Peers, at) {
				continue
			}
			routes[p] = route{cmp.Or(routes[at].via, p), routes[at].hops + 1}
			queue = append(queue, p)
		}
	}
	return routes
}

// A Link is a connection between two nodes, as both of them say. A is the
// smaller id.
type Link struct{ A, B string }

// Links is every connection between nodes that this one reaches, itself among
// them, each once and in the order of their ends.
func (m *Mesh) Links() []Link { return m.links.pairs() }

func (l *links) pairs() (list []Link) {
	routes := l.table()
	l.mu.Lock()
	defer l.mu.Unlock()
	says := func(a, b string) bool {
		if a == l.id {
			return slices.Contains(l.own.Peers, b)
		}
		return slices.Contains(l.all[a].Peers, b)
	}
	for _, s := range append(slices.Collect(maps.Values(l.all)), l.own) {
		if _, reached := routes[s.Node]; !reached && s.Node != l.id {
			continue // what it said last may not be so any more
		}
		for _, p := range s.Peers {
			if s.Node < p && says(p, s.Node) {
				list = append(list, Link{s.Node, p})
			}
		}
	}
	slices.SortFunc(list, func(x, y Link) int { return cmp.Or(cmp.Compare(x.A, y.A), cmp.Compare(x.B, y.B)) })
	return list
}

// forget drops what nodes said that were not reached for long.
func (l *links) forget(before time.Time) {
	routes := l.table()
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, at := range l.heard {
		if _, ok := routes[id]; !ok && at.Before(before) {
			delete(l.all, id)
			delete(l.heard, id)
		}
	}
}

// takeLinks takes link states from a peer and passes on what is news.
func (m *Mesh) takeLinks(list []linkState, from *session) error {
	m.hearRoutes()
	var news []linkState
	for _, s := range list {
		if !s.check() {
			return errGarbage
		}
		if m.isDropped(s.Node) {
			continue
		}
		isNews, clone := m.links.take(s)
		if isNews {
			news = append(news, s)
		}
		if clone {
			m.noteClone("")
		}
		if s.Node == m.id && s.Instance != m.instance {
			m.announce()
		}
	}
	if len(news) == 0 {
		return nil
	}
	for _, s := range m.control() {
		if s != from {
			s.sendLinks(news)
		}
	}
	m.gossip.wake()
	m.noteChange()
	return nil
}

// announce asks for this node's links to be told to the others.
func (m *Mesh) announce() {
	select {
	case m.tell <- struct{}{}:
	default:
	}
	m.noteChange()
}

// announceChanges tells the others when links or names change.
func (m *Mesh) announceChanges(ctx context.Context) error {
	every := time.NewTicker(time.Minute)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.tell:
		case <-every.C:
			m.links.forget(time.Now().Add(-time.Hour))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(settle):
		}
		m.announceNow()
		if !pauseFor(ctx, spacing) {
			return nil
		}
	}
}

func (m *Mesh) announceNow() {
	var peers []string
	sessions := m.control()
	for _, s := range sessions {
		peers = append(peers, s.peer.Node)
	}
	m.hearRoutes()
	own, news := m.links.set(m.o.Self(), peers)
	if !news {
		return
	}
	for _, s := range sessions {
		s.sendLinks([]linkState{own})
	}
	m.gossip.wake()
	m.noteChange()
}
