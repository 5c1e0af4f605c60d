package demo

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// A wan is the lines between the branches: what a node opens to another goes
// over it, and it can cut one node off. A cut closes what is open, as a router
// does that lost its line, and lets nothing new through.
type wan struct {
	mu    sync.Mutex
	nodes map[string]string // by address
	off   string            // the node that is cut off; none when empty
	open  map[*crossing]bool
}

// A crossing is a connection from one branch to another.
type crossing struct {
	net.Conn
	w        *wan
	from, to string
}

func newWAN() *wan { return &wan{nodes: map[string]string{}, open: map[*crossing]bool{}} }

// place says which node listens at an address.
func (w *wan) place(addr, node string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[addr] = node
}

// dial is how a node opens connections to others.
func (w *wan) dial(from string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		d := net.Dialer{Timeout: 10 * time.Second}
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		c := &crossing{Conn: conn, w: w, from: from, to: w.nodes[addr]}
		if w.cuts(c) {
			conn.Close()
			return nil, fmt.Errorf("dial %s: %w", addr, syscall.EHOSTUNREACH)
		}
		w.open[c] = true
		return c, nil
	}
}

// cuts says whether the cut is between the ends of c. The lock is held.
func (w *wan) cuts(c *crossing) bool { return w.off != "" && (c.from == w.off || c.to == w.off) }

// cut cuts a node off, or nobody any more when node is empty.
func (w *wan) cut(node string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.off = node
	for c := range w.open {
		if w.cuts(c) {
			c.Conn.Close()
		}
	}
}

func (c *crossing) Close() error {
	c.w.mu.Lock()
	delete(c.w.open, c)
	c.w.mu.Unlock()
	return c.Conn.Close()
}
