package replicate

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// isolation is how long a peer that sent garbage or a flood is kept out.
	isolation = 10 * time.Minute
	// problemAge is how long a problem is shown after it was last met.
	problemAge = 30 * time.Minute
)

// problems are what is wrong with peers, in the words of the administrator.
type problems struct {
	mu    sync.Mutex
	list  map[string]map[string]time.Time // by node and text: last met
	until map[string]time.Time            // of isolation, by node
}

func (p *problems) add(node, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.list == nil {
		p.list = map[string]map[string]time.Time{}
	}
	if p.list[node] == nil || len(p.list[node]) > 20 {
		p.list[node] = map[string]time.Time{}
	}
	p.list[node][text] = time.Now()
}

func (p *problems) of(node string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []string
	for text, at := range p.list[node] {
		if time.Since(at) > problemAge {
			delete(p.list[node], text)
		} else {
			list = append(list, text)
		}
	}
	slices.Sort(list)
	return list
}

func (p *problems) isolate(node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil {
		p.until = map[string]time.Time{}
	}
	p.until[node] = time.Now().Add(isolation)
}

func (p *problems) isolated(node string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.until[node])
}

// Problems is what is wrong with this node's part in the mesh.
func (m *Mesh) Problems() []string { return m.problems.of(m.id) }

func (r refusal) problem() string {
	switch r {
	case refusedClone:
		return "It refuses this node because another living node has the same identity: a cloned machine or a restored copy that runs beside the original. Stop one of the two, and on the copy remove the data directory and join again."
	case refusedRemoved:
		return "It refuses this node because this node was removed from the mesh. To take part again, join with a new token."
	case refusedVersion:
		return "It and this node share no protocol version. Update the older of the two."
	case refusedGarbage:
		return fmt.Sprintf("It refuses this node for %d minutes because it did not understand what this node sent. If that does not pass, update the older of the two.", isolation/time.Minute)
	}
	return "It refuses this node: " + string(r) + "."
}

func versionProblem(h hello) string {
	return fmt.Sprintf("It speaks versions %d to %d of the protocol between nodes, this node %d to %d. Update the older of the two (it has %s).", h.Min, h.Max, protocolMin, protocolMax, h.Version)
}

func cloneProblem(h hello, one, other string) string {
	return fmt.Sprintf("Two living nodes have the identity %s: one at %s, one at %s. A machine was cloned, or a copy was restored beside the original. Stop one of them, and on the copy remove the data directory and join again.", h.Node, one, other)
}

func (m *Mesh) noteClone(addr string) {
	if addr == "" {
		addr = "an address others reach"
	}
	m.problems.add(m.id, fmt.Sprintf("Another living node has this node's identity, at %s. A machine was cloned, or a copy was restored beside the original. Stop one of them, and on the copy remove the data directory and join again.", addr))
	m.noteChange()
}

// garbage cuts off a peer that sends what is not understood.
func (s *session) garbage(err error) error {
	s.m.problems.isolate(s.peer.Node)
	s.m.problems.add(s.peer.Node, fmt.Sprintf("It sent what this node does not understand (%v) and was cut off for %d minutes. If that does not pass, update the older of the two.", err, isolation/time.Minute))
	s.m.log.Warn("peer sent garbage, cut off", "peer", s.peer.Node, "err", err)
	s.end(err)
	return err
}

// flood cuts off a peer that sends without measure.
func (s *session) flood() error {
	err := fmt.Errorf("more than %d MB in %v", floodBytes>>20, floodTime)
	s.m.problems.isolate(s.peer.Node)
	s.m.problems.add(s.peer.Node, fmt.Sprintf("It flooded this node with %v and was cut off for %d minutes. Look at its log; if it is not one of yours any more, remove it.", err, isolation/time.Minute))
	s.m.log.Warn("peer floods, cut off", "peer", s.peer.Node, "err", err)
	s.end(err)
	return err
}

// What a peer may send in frames. Whatever is larger goes by sync, which this
// node asks for.
const (
	floodBytes = 256 << 20
	floodTime  = time.Minute
)

// A meter measures what a peer sends.
type meter struct {
	since time.Time
	bytes int
}

func (m *meter) allow(n int) bool {
	if now := time.Now(); now.Sub(m.since) > floodTime {
		m.since, m.bytes = now, 0
	}
	m.bytes += n
	return m.bytes <= floodBytes
}
