package appliance

import (
	"context"
	"strings"
	"sync"
	"time"

	"wuamesh/agentproto"
	"wuamesh/replicate"
)

// streams are the open streams of events, one for each connected host.
type streams struct {
	mu       sync.Mutex
	all      map[agentproto.HostID]*stream
	policies map[agentproto.HostID]string // hash of the policy the host has
	closed   bool
	stopped  chan struct{} // closed with closed
	arrived  chan struct{} // files came into the folder
	edited   chan struct{} // a policy may be another one
	joined   chan struct{} // a host came
}

type stream struct {
	born   time.Time
	events chan event
	ended  chan struct{}
	once   sync.Once
}

type event struct {
	name string
	data any
}

func newStreams() *streams {
	return &streams{all: map[agentproto.HostID]*stream{}, policies: map[agentproto.HostID]string{}, stopped: make(chan struct{}), arrived: make(chan struct{}, 1), edited: make(chan struct{}, 1), joined: make(chan struct{}, 1)}
}

// join opens a host's stream and ends the one it had: a host that calls again
// has lost it.
func (s *streams) join(id agentproto.HostID) (*stream, func()) {
	st := &stream{born: time.Now(), events: make(chan event, agentproto.MaxCommandsQueue), ended: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.all[id]; old != nil {
		old.end()
	}
	s.all[id] = st
	if s.closed {
		st.end()
	}
	wake(s.joined)
	return st, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.all[id] == st {
			delete(s.all, id)
		}
	}
}

func (st *stream) end() { st.once.Do(func() { close(st.ended) }) }

// send hands an event to a host if it is connected. One that does not keep up
// gets it at its next check-in instead.
func (s *streams) send(id agentproto.HostID, e event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.all[id]; st != nil {
		select {
		case st.events <- e:
		default:
			st.end()
		}
	}
}

func (s *streams) open(id agentproto.HostID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[id] != nil
}

// set is the hosts that are connected, and since when.
func (s *streams) set() map[agentproto.HostID]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := make(map[agentproto.HostID]time.Time, len(s.all))
	for id, st := range s.all {
		m[id] = st.born
	}
	return m
}

func (s *streams) connected() (list []agentproto.HostID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.all {
		list = append(list, id)
	}
	return list
}

// note remembers the policy a host was given; differs says that hash is
// another one.
func (s *streams) note(id agentproto.HostID, hash string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policies[id] = hash
}

func (s *streams) differs(id agentproto.HostID, hash string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.policies[id] != hash
}

// follow acts on records of any node that connected hosts wait for: commands
// go out at once, rules and files are told of by tellPolicies and
// tellArrivals.
func (s *streams) follow(list []replicate.Record) {
	for _, r := range list {
		kind, id, _ := strings.Cut(r.Key, "/")
		switch kind {
		case "command":
			s.pass(id, r)
		case "package", "line", "assign", "group", "member", "term", "presence", "node", "host", "stop", "repository-rule", "profile", "option", "grant":
			wake(s.edited)
		case "file":
			if !r.Deleted {
				wake(s.arrived)
			}
		}
	}
}

// pass hands a command to its host, if that is connected here.
func (s *streams) pass(id string, r replicate.Record) {
	name, _, _ := strings.Cut(id, "/")
	if r.Deleted || !s.open(agentproto.HostID(name)) {
		return
	}
	var rec commandRecord
	if decode(r.Key, r.Value, &rec) == nil && rec.State == waiting && rec.Validate() == nil {
		s.send(agentproto.HostID(name), event{"command", rec.Command})
	}
}

// tellArrivals lets connected hosts know that files came, at most once in two
// seconds: they wait for them otherwise.
func (s *streams) tellArrivals(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.arrived:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(2 * time.Second):
		}
		for _, id := range s.connected() {
			s.send(id, event{"files", struct{}{}})
		}
	}
}

// end closes the stream of one host.
func (s *streams) end(id agentproto.HostID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.policies, id)
	if st := s.all[id]; st != nil {
		st.end()
	}
}

// endAll closes every stream.
func (s *streams) endAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.all {
		st.end()
	}
}

// Stopping is closed when the node stops: whoever streams to a browser ends
// then.
func (a *Appliance) Stopping() <-chan struct{} { return a.streams.stopped }

// close ends every stream, now and from now on: the node stops.
func (s *streams) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		close(s.stopped)
	}
	s.closed = true
	for _, st := range s.all {
		st.end()
	}
}
