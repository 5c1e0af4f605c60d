package replicate

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// fanOut is how many peers a node keeps connections to that it dialled;
	// as many dial it, on average.
	fanOut = 4
	// dialTimeout bounds one attempt at one address.
	dialTimeout = 15 * time.Second
	// maxDials are under way at a time.
	maxDials = 4
	// patience bounds how long a node that is away is left alone; one that
	// others reach is left alone longer, and a node that nobody answers at all
	// has its own line cut: it tries often, to be back when the line is.
	patience, patienceReached, patienceCut = time.Minute, 20 * time.Minute, 4 * time.Second
	lookEvery                              = time.Second
)

// A dialer keeps connections to the peers that this node should have some to.
type dialer struct {
	m *Mesh

	mu      sync.Mutex
	tries   map[string]*try
	lost    map[string]time.Time // since when nobody leads to a node
	dialing int
	opening map[string]chan struct{} // bulk connections being opened, by node
}

// A try is how calling a node went lately.
type try struct {
	busy  bool
	fails int
	next  time.Time
	err   error
}

func newDialer(m *Mesh) *dialer {
	return &dialer{m: m, tries: map[string]*try{}, lost: map[string]time.Time{}, opening: map[string]chan struct{}{}}
}

func (d *dialer) run(ctx context.Context) error {
	for {
		known := d.m.known()
		for _, id := range d.wanted(known) {
			d.call(ctx, known[id])
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(jitter(lookEvery)):
		}
	}
}

// wanted are the nodes to call now: of the ranking as many as it takes to
// have fanOut, and whoever nobody reaches.
func (d *dialer) wanted(known map[string]KnownPeer) []string {
	var list []string
	have := 0
	for _, id := range rank(d.m.id, d.m.o.Self().Site, known) {
		if have == fanOut {
			break
		}
		if d.m.session(id) != nil {
			have++
		} else if d.due(id) {
			list = append(list, id)
			have++ // until it failed
		}
	}
	for _, id := range d.unreached(known) {
		if d.due(id) && !slices.Contains(list, id) {
			list = append(list, id)
		}
	}
	return list
}

// grace is how long a node may be out of reach before it is called outside
// of the ranking: after a start it takes a moment to hear who is where.
const grace = 5 * time.Second

// unreached are the nodes that nobody leads to for longer than grace.
func (d *dialer) unreached(known map[string]KnownPeer) (list []string) {
	routes := d.m.links.table()
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range known {
		if _, ok := routes[id]; ok {
			delete(d.lost, id)
		} else if at, ok := d.lost[id]; !ok {
			d.lost[id] = time.Now()
		} else if time.Since(at) > grace {
			list = append(list, id)
		}
	}
	return list
}

func (d *dialer) due(id string) bool {
	if d.m.problems.isolated(id) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tries[id]
	return t == nil || !t.busy && !time.Now().Before(t.next)
}

// rank orders the nodes by how much this one should be connected to them.
// First the next one on a ring of all nodes and on one of the site's, which
// alone connect everybody, then one of each other site and the rest by a hash
// of both ids, which makes ways short.
func rank(self, site string, known map[string]KnownPeer) []string {
	type scored struct {
		id, site string
		score    []byte
	}
	var all []scored
	for id, p := range known {
		sum := sha256.Sum256([]byte(self + id))
		all = append(all, scored{id, p.Site, sum[:]})
	}
	slices.SortFunc(all, func(a, b scored) int { return cmp.Or(bytes.Compare(a.score, b.score), cmp.Compare(a.id, b.id)) })
	var first, later []string
	if id := nextOnRing(self, known, func(KnownPeer) bool { return true }); id != "" {
		first = append(first, id)
	}
	if id := nextOnRing(self, known, func(p KnownPeer) bool { return p.Site == site }); id != "" && !slices.Contains(first, id) {
		first = append(first, id)
	}
	sites := map[string]bool{site: true}
	for _, s := range all {
		switch {
		case slices.Contains(first, s.id):
		case !sites[s.site]:
			sites[s.site] = true
			first = append(first, s.id)
		default:
			later = append(later, s.id)
		}
	}
	return append(first, later...)
}

// nextOnRing is the node whose hash follows that of self.
func nextOnRing(self string, known map[string]KnownPeer, of func(KnownPeer) bool) string {
	at := func(id string) string { s := sha256.Sum256([]byte(id)); return string(s[:]) }
	me, next, least := at(self), "", ""
	for id, p := range known {
		if !of(p) {
			continue
		}
		if at(id) > me && (next == "" || at(id) < at(next)) {
			next = id
		}
		if least == "" || at(id) < at(least) {
			least = id
		}
	}
	return cmp.Or(next, least)
}

// call dials a node unless enough dials are under way.
func (d *dialer) call(ctx context.Context, p KnownPeer) {
	d.mu.Lock()
	t := d.tries[p.NodeID]
	if t == nil {
		t = &try{}
		d.tries[p.NodeID] = t
	}
	if t.busy || d.dialing >= maxDials {
		d.mu.Unlock()
		return
	}
	t.busy = true
	d.dialing++
	d.mu.Unlock()
	if !d.m.spawn(func() { d.connect(ctx, p) }) {
		d.failed(p.NodeID, errClosing)
	}
}

// connect dials a node and serves the connection until it ends.
func (d *dialer) connect(ctx context.Context, p KnownPeer) {
	conn, mine, h, err := d.dial(ctx, p, laneControl)
	if err != nil {
		d.failed(p.NodeID, err)
		return
	}
	d.mu.Lock()
	d.dialing--
	d.mu.Unlock()
	born := time.Now()
	s, err := d.m.enter(conn, mine, h, dialled)
	if err == nil {
		err = s.run()
	}
	d.mu.Lock()
	t := d.tries[p.NodeID]
	t.busy, t.err = false, err
	if time.Since(born) > 10*time.Second {
		t.fails = 0
	}
	t.fails++
	t.next = time.Now().Add(backoff(t.fails, patience))
	d.mu.Unlock()
}

// backoff doubles from half a second to most, with jitter.
func backoff(fails int, most time.Duration) time.Duration {
	return jitter(min(most, time.Second/2<<min(fails, 20)))
}

func (d *dialer) failed(id string, err error) {
	_, reached := d.m.links.table()[id]
	most := patience
	switch {
	case reached:
		most = patienceReached
	case len(d.m.control()) == 0:
		most = patienceCut
	}
	d.mu.Lock()
	d.dialing--
	t := d.tries[id]
	t.busy, t.err = false, err
	t.fails++
	t.next = time.Now().Add(backoff(t.fails, most))
	d.mu.Unlock()
	var r refusal
	if errors.As(err, &r) && r != refusedDuplicate {
		d.m.problems.add(id, r.problem())
	}
	if r == refusedRemoved {
		d.m.removed.Store(true)
	}
	d.m.log.Debug("peer not reached, trying again later", "peer", id, "err", err)
	d.m.noteChange()
}

// dial tries a node's addresses one after another.
func (d *dialer) dial(ctx context.Context, p KnownPeer, l lane) (conn net.Conn, mine, theirs hello, err error) {
	for _, addr := range p.Addrs {
		if conn, err = d.dialOne(ctx, p.NodeID, addr); err != nil {
			continue
		}
		if mine, theirs, err = d.m.greet(conn, p.NodeID, l); err == nil {
			return conn, mine, theirs, nil
		}
		conn.Close()
	}
	return nil, mine, theirs, cmp.Or(err, fmt.Errorf("node %s has no address: %w", p.NodeID, ErrUnreachable))
}

func (d *dialer) dialOne(ctx context.Context, id, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return d.m.o.Dial(ctx, id, addr)
}

// bulk returns a bulk session to a node; it opens one when there is none, or
// asks the node to when only that way is open.
func (d *dialer) bulk(ctx context.Context, id string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	for asked := false; ; asked = true {
		if s := d.m.bulkSession(id); s != nil {
			return s, nil
		}
		if d.m.isDropped(id) {
			return nil, errDropped
		}
		opened := d.openBulk(ctx, id)
		s := d.m.session(id)
		if s != nil && !asked {
			s.out.put(frame(frameDial, nil))
		}
		select {
		case <-opened:
			if d.m.bulkSession(id) == nil && s == nil {
				return nil, fmt.Errorf("node %s: %w", id, ErrUnreachable)
			}
			if !pauseFor(ctx, 100*time.Millisecond) {
				return nil, fmt.Errorf("node %s: %w", id, ErrUnreachable)
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("node %s: %w", id, ErrUnreachable)
		}
	}
}

func pauseFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// openBulk dials a bulk connection unless one is being dialled; the channel
// is closed when that came to an end, well or not.
func (d *dialer) openBulk(ctx context.Context, id string) chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.opening[id]; c != nil {
		return c
	}
	c := make(chan struct{})
	d.opening[id] = c
	p, ok := d.m.known()[id]
	done := sync.OnceFunc(func() {
		d.mu.Lock()
		delete(d.opening, id)
		d.mu.Unlock()
		close(c)
	})
	if !ok || !d.m.spawn(func() {
		defer done()
		conn, mine, h, err := d.dial(context.WithoutCancel(ctx), p, laneBulk)
		if err != nil {
			d.m.log.Debug("no bulk connection", "peer", id, "err", err)
			return
		}
		if s, err := d.m.enter(conn, mine, h, dialled); err == nil && !d.m.spawn(func() { s.run() }) {
			s.end(errClosing)
		}
	}) {
		go done()
	}
	return c
}

// wantBulk answers a peer that wants a bulk connection and cannot dial us.
func (d *dialer) wantBulk(id string) {
	if d.m.bulkSession(id) == nil {
		d.openBulk(context.Background(), id)
	}
}

// bulkSession is the bulk session to a node with the fewest streams.
func (m *Mesh) bulkSession(id string) *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	var best *session
	for _, s := range m.bulk[id] {
		if best == nil || s.mux.NumStreams() < best.mux.NumStreams() {
			best = s
		}
	}
	return best
}
