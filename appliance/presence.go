package appliance

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"wuamesh/agentproto"
	"wuamesh/replicate"
)

// A presenceRecord says at which node a host is, so that every node can show
// it. The node that the host is connected to writes it when the host comes,
// and when it has been gone for a minute; again only after hours, so that a
// fleet at work writes nothing.
type presenceRecord struct {
	Node string    `json:"node"`           // id
	At   time.Time `json:"at"`             // it came, or was there; with Gone when it went
	Gone bool      `json:"gone,omitempty"` //
	From string    `json:"from,omitempty"` // host:port its last check-in there came from, as the node saw it
}

const (
	presenceAgain = 6 * time.Hour
	goneAfter     = time.Minute // a restart of the agent or of the node is no news
	presenceEvery = 20 * time.Second
)

// keepPresence tells the other nodes which hosts are here, until ctx ends.
func (a *Appliance) keepPresence(ctx context.Context) error {
	left := map[agentproto.HostID]time.Time{} // since when hosts that were here are not
	return everyOr(ctx, a.log, presenceEvery, a.streams.joined, func(ctx context.Context) error {
		changes := a.presenceChanges(left, time.Now())
		for part := range slices.Chunk(changes, 200) {
			err := a.db.Update(ctx, func(tx *replicate.Tx) error {
				for _, c := range part {
					if err := presences.put(tx, string(c.host), c.presenceRecord); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

type presenceChange struct {
	host agentproto.HostID
	presenceRecord
}

// presenceChanges is what the records do not say yet of the hosts that are
// here, or were.
func (a *Appliance) presenceChanges(left map[agentproto.HostID]time.Time, now time.Time) (list []presenceChange) {
	s, me := census{connected: a.streams.set(), self: a.ID(), now: now}, a.ID()
	c := a.cat
	c.mu.RLock()
	defer c.mu.RUnlock()
	for id, h := range c.hosts {
		switch at := h.at; {
		case h.enrolled() && s.here(h):
			delete(left, id)
			if at.Node != me || at.Gone || now.Sub(at.At) > presenceAgain || moved(at.From, h.from) {
				list = append(list, presenceChange{id, presenceRecord{Node: me, At: now.UTC(), From: cmp.Or(h.from, at.fromAt(me))}})
			}
		case at.Node != me || at.Gone || !h.enrolled():
			delete(left, id)
		case left[id].IsZero():
			left[id] = now
		case now.Sub(left[id]) >= goneAfter:
			list = append(list, presenceChange{id, presenceRecord{Node: me, At: left[id].UTC(), Gone: true}})
			delete(left, id)
		}
	}
	return list
}

// fromAt is the address it called that node from.
func (r presenceRecord) fromAt(node string) string { return or(r.Node == node, r.From, "") }

// moved says that a host calls from another address than the records say.
func moved(was, is string) bool {
	a, _ := netip.ParseAddrPort(was)
	b, err := netip.ParseAddrPort(is)
	return err == nil && a.Addr() != b.Addr()
}

// A census says where hosts are.
type census struct {
	connected map[agentproto.HostID]time.Time // since when
	reached   map[string]bool                 // other nodes
	names     map[string]string
	self      string
	now       time.Time
}

func (a *Appliance) census() census {
	s := census{connected: a.streams.set(), reached: map[string]bool{}, names: map[string]string{}, self: a.ID(), now: time.Now()}
	for _, c := range a.candidates() {
		s.names[c.id] = c.rec.Name
		s.reached[c.id] = !c.self && !c.away
	}
	return s
}

// here says that the host is connected to this node, or checked in when due.
// Where another node has it, only a newer stream tells otherwise: it may have
// checked in here on its way, or a line that broke left a stream behind.
func (s census) here(h *host) bool {
	since, connected := s.connected[h.id]
	if h.at.Node != "" && h.at.Node != s.self && !h.at.Gone {
		return connected && (since.After(h.at.At) || h.seen.After(h.at.At))
	}
	return connected || h.heard(s.now)
}

// online says that the host is at some node that can be asked for it.
func (s census) online(h *host) bool {
	return s.here(h) || h.at.Node != s.self && !h.at.Gone && s.reached[h.at.Node]
}

// node is the name of the node that the host is at, or was last.
func (s census) node(h *host) string {
	if s.here(h) {
		return s.names[s.self]
	}
	return s.names[h.at.Node]
}

// lastSeen is when the host was last heard of, as far as this node knows: here
// since the start, at another node, or by its last good scan.
func (h *host) lastSeen() time.Time {
	last := h.seen
	for _, t := range []time.Time{h.at.At, h.status.Good} {
		if t.After(last) {
			last = t
		}
	}
	return last
}
