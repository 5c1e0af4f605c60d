package appliance

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"wuamesh/replicate"
	"wuamesh/replicate/swarm"
)

// peerProtocol is the application protocol (ALPN) of connections between
// nodes on the HTTPS port.
const peerProtocol = "wuamesh-peer/1"

// Member says that the node belongs to a mesh, its own or one it joined.
func (a *Appliance) Member() bool { return a.member.Load() != nil }

// openMembership reads which mesh the node is in. One that stood alone under
// a version without meshes has founded its own: its hosts go on.
func (a *Appliance) openMembership() error {
	var m membershipRecord
	var ok bool
	err := a.db.View(context.Background(), func(tx *replicate.Tx) (err error) {
		m, ok, err = memberships.find(tx, "mesh")
		return err
	})
	if err != nil {
		return fmt.Errorf("read the node's mesh: %w", err)
	}
	if ok {
		a.enter(m)
	} else if len(a.cat.holdings()) > 0 {
		return a.ensureFounded(context.Background(), Node)
	}
	return nil
}

// enter makes the node a member in memory, once its records say so.
func (a *Appliance) enter(m membershipRecord) {
	if a.member.Swap(&m) == nil {
		close(a.entered)
	}
}

// ensureFounded founds a mesh with this node alone, unless it is in one.
func (a *Appliance) ensureFounded(ctx context.Context, by Actor) error {
	a.entering.Lock()
	defer a.entering.Unlock()
	if a.Member() {
		return nil
	}
	m := membershipRecord{Label: strings.ToLower(rand.Text()), Synced: true}
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		m.Self = a.selfRecord(nodeRecord{Joined: tx.Now(), By: by.Name})
		id := a.db.NodeID()
		if err := errors.Join(
			memberships.put(tx, "mesh", m), nodes.put(tx, id, m.Self), anchors.put(tx, id, editRecord{by.Name, tx.Now()}), addGossipKey(tx, by),
		); err != nil {
			return err
		}
		return a.audit(tx, by, "found mesh", "node "+m.Self.Name, "", "authority "+a.Pin()[:16])
	})
	if err != nil {
		return fmt.Errorf("found the mesh: %w", err)
	}
	a.enter(m)
	return nil
}

func addGossipKey(tx *replicate.Tx, by Actor) error {
	key, tail := make([]byte, 32), make([]byte, 4)
	rand.Read(key)
	rand.Read(tail)
	return gossips.put(tx, fmt.Sprintf("%012x-%s", tx.Now().UnixMilli(), hex.EncodeToString(tail)), gossipRecord{key, editRecord{by.Name, tx.Now()}})
}

// selfRecord is this node's record as it should be now.
func (a *Appliance) selfRecord(was nodeRecord) nodeRecord {
	c := a.config()
	return nodeRecord{Name: c.Name, Site: c.Site, Addrs: a.addresses(), URL: a.ownURL(), Nets: localNets(), Internet: c.Internet, Version: Version, Joined: was.Joined, By: was.By}
}

// addresses are where other nodes may call this one: as configured, or else
// every address of this machine with the port it listens on.
func (a *Appliance) addresses() []string {
	if len(a.config().Advertise) > 0 {
		return a.config().Advertise
	}
	tcp := a.https.Addr().(*net.TCPAddr)
	if !tcp.IP.IsUnspecified() {
		return []string{tcp.String()}
	}
	var list []string
	for _, ip := range localAddresses() {
		if !ip.IsLoopback() {
			list = append(list, net.JoinHostPort(ip.String(), fmt.Sprint(tcp.Port)))
		}
	}
	if len(list) == 0 { // a machine without a network: others on it still may
		list = append(list, net.JoinHostPort("127.0.0.1", fmt.Sprint(tcp.Port)))
	}
	return list[:min(len(list), 16)]
}

// takePart is the node's part in its mesh, from when it is in one until ctx
// ends or the node is removed.
func (a *Appliance) takePart(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.entered:
	}
	m := a.member.Load()
	if err := a.announce(ctx); err != nil {
		return err
	}
	mesh, err := replicate.OpenMesh(replicate.MeshOptions{
		DB: a.db, Label: m.Label, Keys: a.gossipKeys(), Log: a.log, Handler: a.peerHandler(),
		Self: func() replicate.Self {
			return replicate.Self{Name: a.NodeName(), Site: a.config().Site, Version: Version, Addrs: a.addresses()}
		},
		Dial: a.dialPeer, Known: a.knownPeers,
	})
	if err != nil {
		return err
	}
	a.mesh.Store(mesh)
	for id := range a.removedNodes() {
		mesh.Drop(id)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return mesh.Run(ctx) })
	g.Go(func() error { return a.followRoster(ctx, mesh) })
	g.Go(func() error { return a.followSync(ctx, mesh) })
	g.Go(func() error { return every(ctx, a.log, 10*time.Minute, a.keepMembership) })
	g.Go(func() error {
		<-ctx.Done()
		return mesh.Close() // at once, so that the listener need not wait for peers
	})
	return g.Wait()
}

// announce keeps the node's own record as it should be.
func (a *Appliance) announce(ctx context.Context) error {
	id := a.db.NodeID()
	was, ok := a.roster.node(id)
	if !ok {
		was = a.member.Load().Self
	}
	is := a.selfRecord(was)
	if ok && slices.Equal(was.Addrs, is.Addrs) && slices.Equal(was.Nets, is.Nets) && was.URL == is.URL && was.Name == is.Name && was.Site == is.Site && was.Internet == is.Internet && was.Version == is.Version {
		return nil
	}
	if err := a.db.Update(ctx, func(tx *replicate.Tx) error { return nodes.put(tx, id, is) }); err != nil {
		return fmt.Errorf("announce this node: %w", err)
	}
	return nil
}

// followRoster acts on what others change: keys are rotated, removed nodes
// are cut off.
func (a *Appliance) followRoster(ctx context.Context, mesh *replicate.Mesh) error {
	tick := time.NewTicker(gossipSettle / 4) // keys also come of age
	defer tick.Stop()
	var last [][]byte
	for {
		if keys := a.gossipKeys(); !slices.EqualFunc(keys, last, slices.Equal) {
			if err := mesh.SetKeys(keys); err != nil {
				a.log.WarnContext(ctx, "gossip keys not changed, trying again later", "err", err)
			} else {
				last = keys
			}
		}
		for id := range a.removedNodes() {
			mesh.Drop(id)
		}
		a.watch.tell("mesh")
		select {
		case <-ctx.Done():
			return nil
		case <-a.roster.changed:
		case <-tick.C:
		}
	}
}

func (a *Appliance) gossipKeys() [][]byte {
	if keys, _ := a.roster.gossipKeys(time.Now()); len(keys) > 0 {
		return keys
	}
	return a.member.Load().Keys
}

func (a *Appliance) removedNodes() map[string]bool {
	a.roster.mu.RLock()
	defer a.roster.mu.RUnlock()
	all := map[string]bool{}
	for id := range a.roster.removed {
		if id != a.db.NodeID() {
			all[id] = true
		}
	}
	return all
}

// followSync notes when the first copy of a node that joined is complete: a
// peer has nothing more that this node lacks.
func (a *Appliance) followSync(ctx context.Context, mesh *replicate.Mesh) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !a.member.Load().Synced {
		select {
		case <-ctx.Done():
			return nil
		case <-mesh.Changed():
			a.watch.tell("mesh")
		case <-tick.C:
		}
		for _, p := range mesh.Peers() {
			if p.Reach != replicate.Direct || !p.Lacking.Known || p.Lacking.Records > 0 {
				continue
			}
			m := *a.member.Load()
			m.Synced, m.Keys = true, nil
			if err := a.db.Update(ctx, func(tx *replicate.Tx) error { return memberships.put(tx, "mesh", m) }); err != nil {
				return fmt.Errorf("note that the first copy is complete: %w", err)
			}
			a.member.Store(&m)
			a.log.InfoContext(ctx, "first copy of the mesh is complete", "peer", p.Name)
			break
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-mesh.Changed():
		}
		a.watch.tell("mesh")
		if a.removed() {
			a.streams.endAll() // hosts go to other nodes
		}
	}
}

// knownPeers are whom to call: those of the records, and until those are here
// the ones that the answer to joining named.
func (a *Appliance) knownPeers() []replicate.KnownPeer {
	if _, gone := a.roster.removal(a.db.NodeID()); gone {
		return nil // it was this node: nobody answers it any more
	}
	living := a.roster.living()
	list := make([]replicate.KnownPeer, 0, len(living))
	for id, n := range living {
		if id != a.db.NodeID() {
			list = append(list, replicate.KnownPeer{NodeID: id, Name: n.Name, Site: n.Site, Addrs: n.Addrs})
		}
	}
	for _, p := range a.member.Load().Peers {
		_, known := living[p.NodeID]
		if _, gone := a.roster.removal(p.NodeID); !known && !gone {
			list = append(list, p)
		}
	}
	return list
}

// peerTLS is the mutual authentication of nodes, the same for both ends. Both
// check the chain to the mesh's root; who was removed is checked by accept
// and dial, where the node is known.
func (a *Appliance) peerTLS() *tls.Config {
	id := a.auth.identity()
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{peerProtocol}, ServerName: replicate.PeerServerName,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.auth.nodeCertificate(), nil },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return a.auth.nodeCertificate(), nil },
		ClientAuth:           tls.RequireAnyClientCert, InsecureSkipVerify: true, // VerifyConnection does both, at every handshake
		SessionTicketsDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			nodeID, err := replicate.VerifyPeer(id.Root, cs.PeerCertificates, time.Now())
			if errors.Is(err, replicate.ErrClock) {
				a.outOfTime.note(nodeID, cs.PeerCertificates[0])
			}
			return err
		},
	}
}

// dialPeer connects to a node and makes sure that it is that node.
func (a *Appliance) dialPeer(ctx context.Context, nodeID, addr string) (net.Conn, error) {
	if _, gone := a.roster.removal(nodeID); gone {
		return nil, errRemoved
	}
	conf := a.peerTLS()
	verify := conf.VerifyConnection
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := verify(cs); err != nil {
			return err
		}
		if got, _ := replicate.VerifyPeer(a.auth.identity().Root, cs.PeerCertificates, time.Now()); got != nodeID {
			return fmt.Errorf("node %s answers at %s, not %s", got, addr, nodeID)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	dial := a.cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{Control: swarm.Congestion}).DialContext
	}
	raw, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	swarm.KeepTrying(raw)
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}

var errRemoved = errors.New("the node was removed from the mesh")

// acceptPeer serves a connection that a peer opened, until it ends. A node
// that was removed is told so and gets no further.
func (a *Appliance) acceptPeer(_ *http.Server, conn *tls.Conn, _ http.Handler) {
	mesh := a.mesh.Load()
	id, err := replicate.VerifyPeer(a.auth.identity().Root, conn.ConnectionState().PeerCertificates, time.Now())
	if err != nil || mesh == nil {
		return
	}
	if _, gone := a.roster.removal(id); gone {
		mesh.Drop(id)
	}
	swarm.KeepTrying(conn)
	held := &heldConn{Conn: conn, gone: make(chan struct{})}
	mesh.Accept(held, id)
	<-held.gone // net/http closes the connection when this returns
}

// A heldConn says when it was closed.
type heldConn struct {
	net.Conn
	once sync.Once
	gone chan struct{}
	err  error
}

func (c *heldConn) Close() error {
	c.once.Do(func() {
		c.err = c.Conn.Close()
		close(c.gone)
	})
	return c.err
}

// peerHandler answers what peers ask beside records.
func (a *Appliance) peerHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathJoin, a.joinRelayed)
	mux.HandleFunc("POST "+pathRenew, a.renewPeer)
	mux.HandleFunc("POST "+pathHandover, a.handoverPeer)
	mux.HandleFunc("POST "+pathDialBack, a.dialBackPeer)
	mux.Handle("/swarm/v1/", a.folder.share)
	return mux
}

// agentChain checks the certificate of a host at its handshake.
func (a *Appliance) agentChain(cs tls.ConnectionState) error {
	_, _, err := replicate.VerifyMember(a.auth.identity().Root, cs.PeerCertificates, time.Now())
	return err
}

// letInByRemoved says that the node which signed the host's certificate was
// removed; the certificate is worth nothing then.
func (a *Appliance) letInByRemoved(chain []*x509.Certificate) (removalRecord, bool) {
	return a.roster.removal(replicate.LetInBy(a.auth.identity().Root, chain))
}
