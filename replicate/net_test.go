package replicate

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A simNet is a network inside one test: connections with delay, that die
// when they are cut, between nodes that may or may not reach each other.
type simNet struct {
	mu     sync.Mutex
	nodes  map[string]*Mesh
	cut    func(from, to string) bool // whole when nil; asymmetric is allowed
	delay  func(from, to string) time.Duration
	conns  map[*simConn]bool
	dials  int
	bytes  atomic.Int64 // not under mu, which setCut holds while it locks connections
	writes atomic.Int64
	mangle func([][]byte) [][]byte // what happens to frames on their way
}

func newSimNet() *simNet {
	return &simNet{nodes: map[string]*Mesh{}, conns: map[*simConn]bool{}}
}

var errNoRoute = errors.New("no route to host")

func (n *simNet) reaches(from, to string) bool {
	return n.cut == nil || !n.cut(from, to)
}

// dial is MeshOptions.Dial of the node from.
func (n *simNet) dial(from string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, to, addr string) (net.Conn, error) {
		n.mu.Lock()
		n.dials++
		peer, ok := n.nodes[to]
		reach := n.reaches(from, to)
		var d time.Duration
		if n.delay != nil {
			d = n.delay(from, to)
		}
		n.mu.Unlock()
		if !ok || !reach {
			select {
			case <-ctx.Done():
			case <-time.After(3 * time.Second):
			}
			return nil, errNoRoute
		}
		time.Sleep(2 * d)
		near, far := n.pipe(from, to, d)
		peer.Accept(far, from)
		return near, nil
	}
}

func (n *simNet) pipe(from, to string, d time.Duration) (*simConn, *simConn) {
	ab, ba := newHalf(n, d), newHalf(n, d)
	near := &simConn{net: n, from: from, to: to, in: ba, out: ab}
	far := &simConn{net: n, from: to, to: from, in: ab, out: ba}
	n.mu.Lock()
	n.conns[near], n.conns[far] = true, true
	n.mu.Unlock()
	return near, far
}

// setCut changes who reaches whom. Connections across the cut go silent, as
// on a real network: nobody tells their ends.
func (n *simNet) setCut(cut func(from, to string) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = cut
	for c := range n.conns {
		if cut != nil && (cut(c.from, c.to) || cut(c.to, c.from)) {
			c.out.silence()
			c.in.silence()
		}
	}
}

// kill ends every connection of a node at once, as its kernel would.
func (n *simNet) kill(id string) {
	n.mu.Lock()
	delete(n.nodes, id)
	var list []*simConn
	for c := range n.conns {
		if c.from == id || c.to == id {
			list = append(list, c)
		}
	}
	n.mu.Unlock()
	for _, c := range list {
		c.Close()
	}
}

// A half is one direction of a connection.
type half struct {
	net      *simNet
	mu       sync.Mutex
	cond     *sync.Cond
	delay    time.Duration
	list     []segment
	size     int
	closed   bool // by its writer
	aborted  bool // by its reader
	silent   bool
	readEnd  time.Time
	writeEnd time.Time
}

type segment struct {
	at time.Time
	b  []byte
}

const halfWindow = 256 << 10

func newHalf(n *simNet, d time.Duration) *half {
	h := &half{net: n, delay: d}
	h.cond = sync.NewCond(&h.mu)
	return h
}

func (h *half) silence() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent = true
	h.list, h.size = nil, 0
}

func (h *half) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.cond.Broadcast()
}

func (h *half) abort() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed, h.aborted = true, true
	h.cond.Broadcast()
}

func (h *half) write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.size > halfWindow && !h.closed {
		if past(h.writeEnd) {
			return 0, os.ErrDeadlineExceeded
		}
		h.cond.Wait()
	}
	if h.closed {
		return 0, io.ErrClosedPipe
	}
	if h.silent {
		h.size += len(b) // as a kernel that gets no acknowledgement
		return len(b), nil
	}
	d := h.delay
	if d > 0 {
		d += rand.N(d / 4)
	}
	at := time.Now().Add(d)
	if n := len(h.list); n > 0 && h.list[n-1].at.After(at) {
		at = h.list[n-1].at
	}
	h.list, h.size = append(h.list, segment{at, append([]byte(nil), b...)}), h.size+len(b)
	h.net.bytes.Add(int64(len(b)))
	h.net.writes.Add(1)
	h.wakeAt(at)
	return len(b), nil
}

func (h *half) wakeAt(at time.Time) {
	if d := time.Until(at); d > 0 {
		time.AfterFunc(d, h.cond.Broadcast)
		return
	}
	h.cond.Broadcast()
}

func (h *half) read(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		if h.aborted {
			return 0, net.ErrClosed
		}
		if len(h.list) > 0 && !h.list[0].at.After(time.Now()) {
			n := copy(b, h.list[0].b)
			if h.list[0].b = h.list[0].b[n:]; len(h.list[0].b) == 0 {
				h.list = h.list[1:]
			}
			h.size -= n
			h.cond.Broadcast()
			return n, nil
		}
		switch {
		case h.closed && len(h.list) == 0:
			return 0, io.EOF
		case past(h.readEnd):
			return 0, os.ErrDeadlineExceeded
		}
		h.cond.Wait()
	}
}

func past(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (h *half) setEnd(end *time.Time, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*end = t
	if !t.IsZero() {
		h.wakeAt(t)
	}
}

// A simConn is one end of a connection.
type simConn struct {
	net      *simNet
	from, to string
	in, out  *half
}

func (c *simConn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *simConn) Write(b []byte) (int, error) { return c.out.write(b) }

func (c *simConn) Close() error {
	c.out.close()
	c.in.abort()
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
	return nil
}

func (c *simConn) LocalAddr() net.Addr  { return nodeAddr(c.from) }
func (c *simConn) RemoteAddr() net.Addr { return nodeAddr(c.to) }

func (c *simConn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}
func (c *simConn) SetReadDeadline(t time.Time) error  { c.in.setEnd(&c.in.readEnd, t); return nil }
func (c *simConn) SetWriteDeadline(t time.Time) error { c.out.setEnd(&c.out.writeEnd, t); return nil }

// skews are how wrong the clocks of nodes are.
type skews struct {
	mu sync.Mutex
	of map[int]time.Duration
}

func (k *skews) set(node int, d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of == nil {
		k.of = map[int]time.Duration{}
	}
	k.of[node] = d
}

func (k *skews) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.of)
}

// wall is the clock of a node.
func (k *skews) wall(node int) func() time.Time {
	return func() time.Time {
		k.mu.Lock()
		defer k.mu.Unlock()
		return time.Now().Add(k.of[node])
	}
}
