package replicate

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// MeshOptions say how a node takes part in its mesh.
type MeshOptions struct {
	DB *DB
	// Self is what the node announces of itself; asked again at each new
	// connection and every minute.
	Self func() Self
	// Dial connects to a node at one of its addresses and returns when both
	// sides have proved who they are.
	Dial func(ctx context.Context, nodeID, addr string) (net.Conn, error)
	// Known are the nodes of the mesh and where to call them, this one may be
	// among them. It is asked often and must answer at once.
	Known func() []KnownPeer
	Label string   // of the mesh; gossip of another is dropped
	Keys  [][]byte // gossip keys of 32 bytes, the one to send with first; none: not encrypted once more
	// Handler answers requests of peers that are not the mesh's own; see From.
	Handler http.Handler
	Log     *slog.Logger
}

// Self is what a node says of itself.
type Self struct {
	Name, Site, Version string   // Version of the software
	Addrs               []string // host:port where others may call it
}

// A KnownPeer is a node of the mesh by its record.
type KnownPeer struct {
	NodeID, Name, Site string
	Addrs              []string
}

// ErrUnreachable is what requests to a peer meet that no connection leads to.
var ErrUnreachable = errors.New("no connection leads to the node")

// A Mesh is this node's part in the mesh: connections to peers, membership,
// and the exchange of records. All methods may be called from any goroutine.
type Mesh struct {
	o        MeshOptions
	db       *DB
	log      *slog.Logger
	id       string
	instance string // of this process; another with our id is a clone
	links    *links
	gossip   *gossip
	server   *http.Server
	conns    *connQueue // streams for server
	dialer   *dialer
	pulls    chan struct{} // one sync at a time brings records in
	serves   chan struct{} // bounds syncs that hand records out
	copying  chan struct{} // one fresh copy at a time
	copied   time.Time     // when one ended; of who holds copying
	relayed  chan struct{} // bounds streams passed on for others
	problems problems
	timely   atomic.Bool   // some peer's clock bears this node's time out
	borneOut atomic.Bool   // most of at least three clocks do
	tell     chan struct{} // links changed
	changed  chan struct{}
	pong     chan struct{}           // the first of a session came
	mangle   func([][]byte) [][]byte // of tests: what happens to frames

	removed atomic.Bool // a peer said that this node was removed

	mu       sync.Mutex
	sessions map[string]*session   // control lane, by node
	bulk     map[string][]*session // bulk lane, by node
	dropped  map[string]bool
	contact  map[string]time.Time // what absence is counted by
	copies   []copied             // fresh copies that this node took
	heard    map[string]time.Time // what people are told, since the start
	closed   bool

	done    chan struct{}
	running sync.WaitGroup
}

// OpenMesh prepares; Accept may be called from now on, Run calls others.
func OpenMesh(o MeshOptions) (*Mesh, error) {
	if o.Handler == nil {
		o.Handler = http.NotFoundHandler()
	}
	var instance [8]byte
	rand.Read(instance[:])
	m := &Mesh{
		o: o, db: o.DB, log: o.Log.With("part", "mesh"), id: o.DB.NodeID(), instance: hex.EncodeToString(instance[:]),
		conns: newConnQueue(), pulls: make(chan struct{}, 1), serves: make(chan struct{}, maxServes),
		copying: make(chan struct{}, 1), relayed: make(chan struct{}, maxRelayed), tell: make(chan struct{}, 1), changed: make(chan struct{}, 1), pong: make(chan struct{}, 1), done: make(chan struct{}),
		sessions: map[string]*session{}, bulk: map[string][]*session{}, dropped: map[string]bool{}, heard: map[string]time.Time{},
	}
	var err error
	if m.contact, err = m.db.contacts(); err != nil {
		return nil, fmt.Errorf("open the mesh: read when nodes were last heard of: %w", err)
	}
	if m.copies, err = m.db.copiesTaken(); err != nil {
		return nil, fmt.Errorf("open the mesh: read what fresh copies were taken: %w", err)
	}
	m.links = newLinks(m.id, m.instance)
	m.dialer = newDialer(m)
	m.server = &http.Server{
		Handler: m.routes(), ConnContext: peerOfConn, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
	}
	if m.gossip, err = newGossip(m); err != nil {
		return nil, fmt.Errorf("open the mesh: %w", err)
	}
	m.spawn(func() { m.server.Serve(m.conns) })
	m.db.onCommit(m.passOn)
	return m, nil
}

// Run calls the other nodes, keeps the mesh together after every cut, and
// returns when ctx ends.
func (m *Mesh) Run(ctx context.Context) error {
	m.announce()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.dialer.run(ctx) })
	g.Go(func() error { return m.gossip.run(ctx) })
	g.Go(func() error { return m.announceChanges(ctx) })
	g.Go(func() error { return m.keepContact(ctx) })
	g.Go(func() error { return m.keepTime(ctx) })
	g.Go(func() error { return m.collectDaily(ctx) })
	g.Go(func() error { return m.keepWhole(ctx) })
	err := g.Wait()
	m.storeContacts(context.WithoutCancel(ctx))
	return err
}

// Close takes leave of the others and closes every connection.
func (m *Mesh) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	m.mu.Unlock()
	m.db.onCommit(nil)
	err := m.gossip.close()
	for _, s := range m.all() {
		s.end(errClosing)
	}
	close(m.done)
	m.conns.Close()
	m.server.Close()
	m.running.Wait()
	return err
}

// spawn starts fn, which Close waits for; false when the mesh is closed.
func (m *Mesh) spawn(fn func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.running.Go(fn)
	return true
}

// Accept takes a connection that a peer opened and proved to be nodeID on. It
// returns at once.
func (m *Mesh) Accept(conn net.Conn, nodeID string) {
	if !m.spawn(func() { m.welcome(conn, nodeID) }) {
		conn.Close()
	}
}

// Drop cuts a removed node off: its connections are closed and no new one is
// taken until the process ends.
func (m *Mesh) Drop(nodeID string) {
	m.mu.Lock()
	m.dropped[nodeID] = true
	m.mu.Unlock()
	for _, s := range m.all() {
		if s.peer.Node == nodeID {
			s.end(errDropped)
		}
	}
}

// Removed says that a peer refuses this node because it was removed from the
// mesh, and none has taken a connection since.
func (m *Mesh) Removed() bool { return m.removed.Load() }

// Changed is sent to, and not waited for, when Peers would answer otherwise.
func (m *Mesh) Changed() <-chan struct{} { return m.changed }

func (m *Mesh) noteChange() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// SetKeys changes the gossip keys without an outage: gossip is sent with the
// first, and understood with any of them.
func (m *Mesh) SetKeys(keys [][]byte) error { return m.gossip.setKeys(keys) }

// all is every session there is.
func (m *Mesh) all() []*session {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*session
	for _, s := range m.sessions {
		list = append(list, s)
	}
	for _, l := range m.bulk {
		list = append(list, l...)
	}
	return list
}

// session returns the control session to a node, nil when there is none.
func (m *Mesh) session(nodeID string) *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sessions[nodeID]
}

func (m *Mesh) control() []*session {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]*session, 0, len(m.sessions))
	for _, s := range m.sessions {
		list = append(list, s)
	}
	return list
}

func (m *Mesh) isDropped(nodeID string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dropped[nodeID]
}

func (m *Mesh) known() map[string]KnownPeer {
	all := map[string]KnownPeer{}
	for _, p := range m.o.Known() {
		if p.NodeID != m.id && isNodeID(p.NodeID) && !m.isDropped(p.NodeID) {
			all[p.NodeID] = p
		}
	}
	return all
}
