package replicate

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Kinds of streams. Each begins with its kind, the hops it may still take,
// and the ids of the nodes it leads to and comes from.
const (
	streamFrames = 'F' // of a control session, one, opened by who dialled
	streamHTTP   = 'H'
	streamGossip = 'G' // memberlist's
)

const (
	maxHops    = 16
	streamHead = 2 + 16 + 16
	// maxRelayed bounds the streams that a node passes on at a time.
	maxRelayed = 128
)

func appendID(b []byte, id string) []byte {
	raw, _ := hex.DecodeString(id)
	return append(b, raw...)
}

// open opens a stream to a node, over this session.
func (s *session) open(kind byte, to string) (net.Conn, error) {
	return s.openFrom(kind, maxHops, to, s.m.id)
}

func (s *session) openFrom(kind, hops byte, to, from string) (net.Conn, error) {
	st, err := s.mux.OpenStream()
	if err != nil {
		return nil, fmt.Errorf("open a stream to %s: %w", s.peer.Node, err)
	}
	head := appendID(appendID([]byte{kind, hops}, to), from)
	st.SetWriteDeadline(time.Now().Add(stall))
	if _, err := st.Write(head); err != nil {
		st.Close()
		return nil, fmt.Errorf("open a stream to %s: %w", s.peer.Node, err)
	}
	st.SetWriteDeadline(time.Time{})
	return st, nil
}

// takeStream serves a stream that the peer opened.
func (s *session) takeStream(st net.Conn) {
	var head [streamHead]byte
	st.SetReadDeadline(time.Now().Add(stall))
	if _, err := io.ReadFull(st, head[:]); err != nil {
		st.Close()
		return
	}
	st.SetReadDeadline(time.Time{})
	to, from := hex.EncodeToString(head[2:18]), hex.EncodeToString(head[18:])
	switch kind := head[0]; {
	case to != s.m.id:
		s.m.relay(st, head, to)
	case kind == streamFrames && s.peer.Lane == laneControl && !s.dialled:
		s.frames(st)
	case kind == streamGossip:
		s.m.gossip.takeStream(st)
	case kind == streamHTTP:
		s.m.conns.put(peerConn{st, From{NodeID: from, Relayed: from != s.peer.Node}})
	default:
		st.Close()
	}
}

// reach opens a stream to a node, over the session to it or through others.
func (m *Mesh) reach(kind byte, to string) (net.Conn, error) {
	s := m.next(to)
	if s == nil {
		return nil, fmt.Errorf("node %s: %w", to, ErrUnreachable)
	}
	return s.open(kind, to)
}

// next is the session that leads to a node, nil when none does.
func (m *Mesh) next(to string) *session {
	if s := m.session(to); s != nil {
		return s
	}
	if via := m.links.via(to); via != "" {
		return m.session(via)
	}
	return nil
}

// relay passes a stream on towards the node it is for.
func (m *Mesh) relay(near net.Conn, head [streamHead]byte, to string) {
	defer near.Close()
	select {
	case m.relayed <- struct{}{}:
		defer func() { <-m.relayed }()
	default:
		return
	}
	s := m.next(to)
	if s == nil || head[1] == 0 || head[0] == streamFrames || m.isDropped(to) {
		return
	}
	far, err := s.openFrom(head[0], head[1]-1, to, hex.EncodeToString(head[18:]))
	if err != nil {
		return
	}
	var copying sync.WaitGroup
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		copying.Go(func() {
			io.Copy(way[0], idleReader{way[1]})
			way[0].Close()
		})
	}
	copying.Wait()
}

// An idleReader gives up on a stream that carries nothing for a while.
type idleReader struct{ net.Conn }

func (r idleReader) Read(b []byte) (int, error) {
	r.SetReadDeadline(time.Now().Add(2 * time.Minute))
	return r.Conn.Read(b)
}

// From is who sent a request to MeshOptions.Handler.
type From struct {
	NodeID string
	// Relayed says that other nodes passed the request on and vouch for
	// NodeID; a request that is not was sent by that node itself.
	Relayed bool
}

type fromKey struct{}

// FromPeer is who sent the request of ctx; the zero From when no peer did.
func FromPeer(ctx context.Context) From {
	f, _ := ctx.Value(fromKey{}).(From)
	return f
}

func peerOfConn(ctx context.Context, conn net.Conn) context.Context {
	if c, ok := conn.(peerConn); ok {
		ctx = context.WithValue(ctx, fromKey{}, c.from)
	}
	return ctx
}

type peerConn struct {
	net.Conn
	from From
}

// A connQueue is the listener of the HTTP server: streams put in come out.
type connQueue struct {
	list chan net.Conn
	gone chan struct{}
	once sync.Once
}

func newConnQueue() *connQueue {
	return &connQueue{list: make(chan net.Conn), gone: make(chan struct{})}
}

func (q *connQueue) put(c net.Conn) {
	select {
	case q.list <- c:
	case <-q.gone:
		c.Close()
	}
}

func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case c := <-q.list:
		return c, nil
	case <-q.gone:
		return nil, net.ErrClosed
	}
}

func (q *connQueue) Close() error   { q.once.Do(func() { close(q.gone) }); return nil }
func (q *connQueue) Addr() net.Addr { return nodeAddr("mesh") }

// A nodeAddr is a node's id as an address.
type nodeAddr string

func (nodeAddr) Network() string  { return "mesh" }
func (a nodeAddr) String() string { return string(a) }

// newClient sends requests over streams of this session.
func (s *session) newClient() *http.Transport {
	return &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return s.open(streamHTTP, s.peer.Node)
		},
		DisableCompression: true, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute,
		ResponseHeaderTimeout: 2 * time.Minute,
	}
}

// bulkKey marks a context whose requests take the bulk lane.
type bulkKey struct{}

// Bulk makes requests with ctx take the lane for files: a connection of its
// own, so that they never delay records.
func Bulk(ctx context.Context) context.Context { return context.WithValue(ctx, bulkKey{}, true) }

// Transport sends requests to a peer; the host in their URL is not looked at.
// It connects when there is no connection yet. Requests on the control lane
// are passed on by other nodes when the peer cannot be reached directly, those
// with Bulk are not: they fail with ErrUnreachable.
func (m *Mesh) Transport(nodeID string) http.RoundTripper { return peerTransport{m, nodeID} }

type peerTransport struct {
	m  *Mesh
	id string
}

func (t peerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if bulk, _ := r.Context().Value(bulkKey{}).(bool); bulk {
		s, err := t.m.dialer.bulk(r.Context(), t.id)
		if err != nil {
			return nil, err
		}
		return s.client.RoundTrip(r)
	}
	if s := t.m.session(t.id); s != nil {
		return s.client.RoundTrip(r)
	}
	if t.m.links.via(t.id) == "" {
		return nil, fmt.Errorf("node %s: %w", t.id, ErrUnreachable)
	}
	one := &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return t.m.reach(streamHTTP, t.id) },
		DisableKeepAlives: true, DisableCompression: true, ResponseHeaderTimeout: 2 * time.Minute,
	}
	return one.RoundTrip(r)
}
