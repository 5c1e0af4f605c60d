package replicate

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// A gossip is memberlist on our own connections: packets are frames, streams
// are streams, and both are passed on by nodes that reach the target, so that
// spokes which cannot reach each other do not think each other dead.
type gossip struct {
	m       *Mesh
	list    *memberlist.Memberlist
	ring    *memberlist.Keyring
	packets chan *memberlist.Packet
	streams chan net.Conn
	woken   chan struct{}
	done    chan struct{}

	mu    sync.Mutex
	names map[string]string    // node by what memberlist takes for its address
	alive map[string]bool      // by node
	since map[string]time.Time // of alive, by node
}

const gossipListenPort = 7946 // of no port; memberlist wants one

func newGossip(m *Mesh) (*gossip, error) {
	g := &gossip{
		m: m, packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn),
		woken: make(chan struct{}, 1), done: make(chan struct{}),
		names: map[string]string{}, alive: map[string]bool{}, since: map[string]time.Time{},
	}
	conf := memberlist.DefaultWANConfig()
	conf.Name, conf.Label = m.id, m.o.Label
	conf.LogOutput, conf.Logger = nil, log.New(memberLog{m.log}, "", 0)
	conf.Transport, conf.Events = g, memberEvents{g}
	conf.BindAddr, conf.BindPort, conf.AdvertisePort = gossipIP(m.id).String(), gossipListenPort, gossipListenPort
	conf.RequireNodeNames = true
	conf.SuspicionMult = 8 // a relay may need a moment to find another way
	conf.DisableTcpPings = true
	if len(m.o.Keys) > 0 {
		var err error
		if g.ring, err = memberlist.NewKeyring(m.o.Keys, m.o.Keys[0]); err != nil {
			return nil, fmt.Errorf("gossip keys: %w", err)
		}
		conf.Keyring = g.ring
	}
	list, err := memberlist.Create(conf)
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	g.list = list
	return g, nil
}

func (g *gossip) setKeys(keys [][]byte) error {
	if g.ring == nil || len(keys) == 0 {
		return errors.New("gossip is not encrypted, so its keys cannot be changed")
	}
	for _, k := range keys {
		if err := g.ring.AddKey(k); err != nil {
			return fmt.Errorf("add a gossip key: %w", err)
		}
	}
	if err := g.ring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("use a gossip key: %w", err)
	}
	for _, old := range g.ring.GetKeys() {
		if !containsKey(keys, old) {
			if err := g.ring.RemoveKey(old); err != nil {
				return fmt.Errorf("remove a gossip key: %w", err)
			}
		}
	}
	return nil
}

func containsKey(keys [][]byte, k []byte) bool {
	for _, x := range keys {
		if string(x) == string(k) {
			return true
		}
	}
	return false
}

// rejoin is how often nodes that can be reached and are not seen in gossip
// are joined: memberlist forgets the other half of a cut and never calls it.
const rejoin = 20 * time.Second

func (g *gossip) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.woken:
		case <-time.After(jitter(rejoin)):
		}
		g.joinUnseen()
	}
}

// wake says that there may be someone new to join.
func (g *gossip) wake() {
	select {
	case g.woken <- struct{}{}:
	default:
	}
}

// joinUnseen joins one node that is not seen; what it knows comes with it.
func (g *gossip) joinUnseen() {
	seen := map[string]bool{}
	for _, n := range g.list.Members() {
		seen[n.Name] = true
	}
	tried := 0
	for id := range g.m.links.table() {
		if seen[id] || tried == 2 {
			continue
		}
		tried++
		addr := id + "/" + net.JoinHostPort(gossipIP(id).String(), fmt.Sprint(gossipListenPort))
		if _, err := g.list.Join([]string{addr}); err != nil {
			g.m.log.Debug("gossip did not reach a node, trying again", "peer", id, "err", err)
		}
	}
}

// close says goodbye and stops. Peers are told by a frame as well: memberlist
// waits for its goodbye to spread.
func (g *gossip) close() error {
	for _, s := range g.m.control() {
		s.out.put(frame(frameBye, nil))
	}
	return errors.Join(g.list.Leave(time.Second), g.list.Shutdown())
}

// gossipIP is what memberlist takes for a node's address: it wants an IP and
// gets the node's id in one that is nobody's (RFC 4193).
func gossipIP(id string) net.IP {
	raw, _ := hex.DecodeString(id)
	return append(net.IP{0xfd}, raw[:15]...)
}

// memberEvents notes who is alive. It copies and returns.
type memberEvents struct{ g *gossip }

func (e memberEvents) NotifyJoin(n *memberlist.Node)   { e.g.note(n.Name, true) }
func (e memberEvents) NotifyLeave(n *memberlist.Node)  { e.g.note(n.Name, false) }
func (e memberEvents) NotifyUpdate(n *memberlist.Node) {}

func (g *gossip) note(id string, alive bool) {
	g.mu.Lock()
	if g.alive[id] != alive {
		g.alive[id], g.since[id] = alive, g.m.db.now()
	}
	g.mu.Unlock()
	g.m.noteChange()
}

// seen says whether gossip holds a node for alive, and since when it does or
// does not.
func (g *gossip) seen(id string) (bool, time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.alive[id], g.since[id]
}

// What follows is memberlist's NodeAwareTransport.

func (g *gossip) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return gossipIP(g.m.id), gossipListenPort, nil
}

func (g *gossip) PacketCh() <-chan *memberlist.Packet { return g.packets }
func (g *gossip) StreamCh() <-chan net.Conn           { return g.streams }

func (g *gossip) Shutdown() error {
	select {
	case <-g.done:
	default:
		close(g.done)
	}
	return nil
}

func (g *gossip) WriteTo(b []byte, addr string) (time.Time, error) {
	return g.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (g *gossip) DialTimeout(addr string, d time.Duration) (net.Conn, error) {
	return g.DialAddressTimeout(memberlist.Address{Addr: addr}, d)
}

// WriteToAddress sends a packet. One that cannot be sent is lost, as with UDP.
func (g *gossip) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	now := time.Now()
	if id := g.node(a); id != "" {
		g.send(maxHops, id, g.m.id, b)
	}
	return now, nil
}

// node is the id that memberlist's address stands for; empty when unknown.
func (g *gossip) node(a memberlist.Address) string {
	if isNodeID(a.Name) {
		return a.Name
	}
	host, _, err := net.SplitHostPort(a.Addr)
	if err != nil {
		return ""
	}
	ip := net.ParseIP(host)
	g.mu.Lock()
	defer g.mu.Unlock()
	if id, ok := g.names[host]; ok {
		return id
	}
	for id := range g.m.links.table() {
		if gossipIP(id).Equal(ip) {
			g.names[host] = id
			return id
		}
	}
	return ""
}

func (g *gossip) send(hops byte, to, from string, b []byte) {
	if s := g.m.next(to); s != nil {
		body := appendID(appendID([]byte{hops}, to), from)
		s.out.put(frame(framePacket, append(body, b...)))
	}
}

// takePacket takes a packet for this node, or passes it on.
func (g *gossip) takePacket(body []byte) error {
	if len(body) < 33 {
		return fmt.Errorf("packet of %d bytes: %w", len(body), errGarbage)
	}
	to, from, rest := hex.EncodeToString(body[1:17]), hex.EncodeToString(body[17:33]), body[33:]
	if to != g.m.id {
		if body[0] > 0 {
			g.send(body[0]-1, to, from, rest)
		}
		return nil
	}
	p := &memberlist.Packet{Buf: rest, From: gossipAddr(from), Timestamp: time.Now()}
	select {
	case g.packets <- p:
	default: // lost, as UDP loses
	}
	return nil
}

// gossipAddr is a node's made-up address, which memberlist reads as text.
func gossipAddr(id string) net.Addr {
	return &net.UDPAddr{IP: gossipIP(id), Port: gossipListenPort}
}

// DialAddressTimeout opens a stream for memberlist's exchange of all it knows.
func (g *gossip) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	id := g.node(a)
	if id == "" {
		return nil, fmt.Errorf("gossip with %s: %w", a.Addr, ErrUnreachable)
	}
	return g.m.reach(streamGossip, id)
}

func (g *gossip) takeStream(st net.Conn) {
	select {
	case g.streams <- st:
	case <-g.done:
		st.Close()
	}
}

// memberLog hands memberlist's warnings to our log.
type memberLog struct{ log *slog.Logger }

var _ io.Writer = memberLog{}

func (l memberLog) Write(b []byte) (int, error) {
	text := strings.TrimSpace(string(b))
	switch {
	case strings.HasPrefix(text, "[ERR]"), strings.HasPrefix(text, "[WARN]"):
		l.log.Warn("memberlist says", "text", text)
	default:
		l.log.Debug("memberlist says", "text", text)
	}
	return len(b), nil
}
