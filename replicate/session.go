package replicate

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// Why sessions end.
var (
	errClosing  = errors.New("this node is closing")
	errDropped  = errors.New("the node was removed from the mesh")
	errReplaced = errors.New("another connection took its place")
	errSilent   = errors.New("no answer")
	errFresh    = errors.New("a fresh copy was taken")
	errIdle     = errors.New("not used any more")
)

// Who dialled.
const (
	dialled  = true
	answered = false
)

const (
	// pingEvery is how often each side asks for a sign of life; the answer
	// carries the vector's digest, so it is the sync too. Jitter is added.
	pingEvery = 20 * time.Second
	// confirm is how long after records were passed on the peer is asked what it
	// has, so that what is said of it is never older than this and a round trip.
	confirm = 5 * time.Second
	// silence ends a session that carried nothing for so long.
	silence = 65 * time.Second
	// stall ends a session that takes no bytes for so long.
	stall = 45 * time.Second
)

// A session is one connection to a peer, shared by many streams that either
// side opens. One on the control lane also carries frames.
type session struct {
	m       *Mesh
	peer    hello
	addr    string
	dialled bool
	born    time.Time
	mux     *yamux.Session
	client  *http.Transport
	out     outbox
	in      inbox
	pull    chan struct{} // asks for a sync from this peer
	// peerFence is which of the two has to take a fresh copy of the other
	// before they exchange records; empty for neither.
	peerFence string

	mu      sync.Mutex
	err     error
	heard   time.Time
	used    time.Time // of bulk: when a stream was last open
	pinged  map[uint64]time.Time
	pongs   chan struct{}
	rtt     time.Duration
	clock   peerTime
	agreed  *reading          // of the time that the peer and its peers agree on, when they do
	has     map[string]uint64 // what of each log the peer sent or told us of
	digest  [16]byte          // of the peer's vector, when it last told
	doubt   bool              // digest was not ours
	synced  time.Time         // when the last sync began that ended well
	matched time.Time         // when its vector was last equal to ours
	theirs  map[string]uint64 // its vector when it last told
	unsure  time.Time         // when the oldest set was passed on of which it did not say since that it has it
	passed  chan struct{}     // something was passed on
	ended   chan struct{}
}

// wholeFrames puts the header and the body of yamux's frames, which it writes
// one after the other from one goroutine, into one write: half the packets.
type wholeFrames struct {
	net.Conn
	held []byte
}

func (w *wholeFrames) Write(b []byte) (int, error) {
	const header, data = 12, 0
	if len(w.held) == 0 && len(b) == header && b[1] == data && binary.BigEndian.Uint32(b[8:]) > 0 {
		w.held = append(w.held, b...)
		return len(b), nil
	}
	if len(w.held) == 0 {
		return w.Conn.Write(b)
	}
	n := len(w.held)
	w.held = append(w.held, b...)
	sent, err := w.Conn.Write(w.held)
	w.held = w.held[:0]
	return max(sent-n, 0), err
}

func muxConfig(l lane) *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false // our pings say more
	c.ConnectionWriteTimeout = stall
	c.StreamOpenTimeout = stall
	c.StreamCloseTimeout = time.Minute
	c.LogOutput, c.Logger = nil, log.New(io.Discard, "", 0)
	if l == laneBulk {
		c.MaxStreamWindowSize = 4 << 20 // 300 Mbit/s at 100 ms
	}
	return c
}

// enter makes a session of a connection after the hellos; run serves it.
func (m *Mesh) enter(conn net.Conn, mine, peer hello, dialled bool) (*session, error) {
	s, err := m.newSession(conn, peer, dialled)
	if err != nil {
		conn.Close()
		return nil, err
	}
	s.peerFence = fencedOf(mine, peer)
	if !m.register(s) {
		s.end(errReplaced)
		return nil, errReplaced
	}
	return s, nil
}

// run serves the session until it ends, and returns why it did.
func (s *session) run() error {
	var parts sync.WaitGroup
	parts.Go(s.acceptStreams)
	if s.peer.Lane == laneControl {
		parts.Go(s.writeFrames)
		if s.peerFence == s.m.id {
			parts.Go(s.takeCopy)
		} else {
			parts.Go(s.applySets)
			parts.Go(s.keepSynced)
			if s.peerFence == "" {
				parts.Go(s.keepHearing)
			}
		}
		parts.Go(s.watch)
		if s.dialled {
			parts.Go(s.openFrames)
		}
	} else {
		parts.Go(s.watchIdle)
	}
	parts.Wait()
	s.client.CloseIdleConnections()
	s.m.unregister(s)
	return s.err
}

func (m *Mesh) newSession(conn net.Conn, peer hello, dialled bool) (*session, error) {
	now := time.Now()
	s := &session{
		m: m, peer: peer, addr: addrOf(conn), dialled: dialled, born: now, heard: now, used: now,
		pull: make(chan struct{}, 1), pongs: make(chan struct{}, 1), ended: make(chan struct{}), passed: make(chan struct{}, 1),
		pinged: map[uint64]time.Time{}, has: map[string]uint64{},
	}
	s.out.ready, s.in.ready = make(chan struct{}, 1), make(chan struct{}, 1)
	s.client = s.newClient()
	var err error
	conn = &wholeFrames{Conn: conn}
	if dialled {
		s.mux, err = yamux.Client(conn, muxConfig(peer.Lane))
	} else {
		s.mux, err = yamux.Server(conn, muxConfig(peer.Lane))
	}
	return s, err
}

// register makes the session the one to its peer, in place of an older one.
func (m *Mesh) register(s *session) bool {
	old, ok := m.replace(s)
	if old != nil {
		old.end(errReplaced)
	}
	return ok
}

func (m *Mesh) replace(s *session) (old *session, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := s.peer.Node
	if m.closed || m.dropped[id] {
		return nil, false
	}
	if s.peer.Lane == laneBulk {
		m.bulk[id] = append(m.bulk[id], s)
		return nil, true
	}
	old = m.sessions[id]
	if old != nil && old.peer.Instance == s.peer.Instance && m.preferred(old) && !m.preferred(s) {
		return nil, false
	}
	m.sessions[id] = s
	m.removed.Store(false)
	m.heard[id] = m.db.now()
	return old, true
}

func (m *Mesh) unregister(s *session) {
	id := s.peer.Node
	m.mu.Lock()
	if s.peer.Lane == laneBulk {
		m.bulk[id] = without(m.bulk[id], s)
		if len(m.bulk[id]) == 0 {
			delete(m.bulk, id)
		}
	} else if m.sessions[id] == s {
		delete(m.sessions, id)
		m.heard[id] = m.db.now()
	}
	m.mu.Unlock()
	if s.peer.Lane == laneControl {
		m.log.Debug("connection ended", "peer", id, "err", s.err)
		m.announce()
	}
}

func without(list []*session, s *session) []*session {
	var kept []*session
	for _, x := range list {
		if x != s {
			kept = append(kept, x)
		}
	}
	return kept
}

// end closes the session; its first reason stays.
func (s *session) end(why error) {
	s.mu.Lock()
	first := s.err == nil
	if first {
		s.err = why
		close(s.ended)
	}
	s.mu.Unlock()
	if first && s.mux != nil {
		s.mux.Close()
	}
}

// openFrames opens the stream that frames go over; the other side finds it
// among the streams it accepts.
func (s *session) openFrames() {
	st, err := s.open(streamFrames, s.peer.Node)
	if err != nil {
		s.end(err)
		return
	}
	s.frames(st)
}

// frames takes the stream for frames and reads it until the session ends.
func (s *session) frames(st net.Conn) {
	if !s.out.attach(st) {
		s.end(errGarbage)
		return
	}
	s.begin()
	s.end(s.readFrames(bufio.NewReaderSize(st, 16<<10)))
}

// begin is what a peer hears first.
func (s *session) begin() {
	m := s.m
	m.announce()
	s.sendLinks(m.links.list())
	s.ping()
}

// acceptStreams takes streams that the peer opens.
func (s *session) acceptStreams() {
	var streams sync.WaitGroup
	defer streams.Wait()
	for {
		st, err := s.mux.AcceptStream()
		if err != nil {
			s.end(err)
			return
		}
		streams.Go(func() { s.takeStream(st) })
	}
}

// watch asks for signs of life, sooner when records were passed on, and ends
// the session when none come.
func (s *session) watch() {
	for {
		select {
		case <-s.ended:
			return
		case <-time.After(jitter(pingEvery)):
		case <-s.passed:
			if !s.pause(jitter(confirm)) {
				return
			}
		}
		s.mu.Lock()
		quiet := time.Since(s.heard)
		s.mu.Unlock()
		if quiet > silence {
			s.end(errSilent)
			return
		}
		s.ping()
	}
}

// watchIdle ends a bulk session that nobody used for a while; the side that
// dialled does it first.
func (s *session) watchIdle() {
	limit := 3 * time.Minute
	if !s.dialled {
		limit = 5 * time.Minute
	}
	for {
		select {
		case <-s.ended:
			return
		case <-time.After(30 * time.Second):
		}
		s.mu.Lock()
		if s.mux.NumStreams() > 0 {
			s.used = time.Now()
		}
		idle := time.Since(s.used)
		s.mu.Unlock()
		if idle > limit {
			s.end(errIdle)
		}
	}
}

// alive asks the peer for a sign of life and waits a moment for it.
func (s *session) alive() bool {
	select { // an answer to an earlier question is none to this one
	case <-s.pongs:
	default:
	}
	s.ping()
	select {
	case <-s.pongs:
		return true
	case <-s.ended:
		return false
	case <-time.After(3 * time.Second):
		s.end(errSilent)
		return false
	}
}
