package replicate

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

var benchNodes = flag.String("bench-nodes", "5,50", "sizes of the mesh to measure; 200 takes some minutes")

func benchSizes(b *testing.B) (sizes []int) {
	for s := range strings.SplitSeq(*benchNodes, ",") {
		n := 0
		if _, err := fmt.Sscan(s, &n); err != nil {
			b.Fatal(err)
		}
		sizes = append(sizes, n)
	}
	return sizes
}

// A tcpMesh is whole nodes in this process, on loopback with mutual TLS 1.3.
type tcpMesh struct {
	nodes []*simNode
	stop  context.CancelFunc
	runs  sync.WaitGroup
	lis   []net.Listener
	got   []atomic.Int64 // change sets heard of, by node
	heard chan struct{}
}

func startTCPMesh(b *testing.B, n int) *tcpMesh {
	b.Helper()
	ctx, stop := context.WithCancel(context.Background())
	m := &tcpMesh{stop: stop, got: make([]atomic.Int64, n), heard: make(chan struct{}, 1)}
	config := benchTLS(b)
	log := slog.New(slog.DiscardHandler)
	var known []KnownPeer
	for i := range n {
		db, err := Open(Options{Dir: b.TempDir(), Log: log})
		if err != nil {
			b.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		m.nodes, m.lis = append(m.nodes, &simNode{db: db}), append(m.lis, l)
		known = append(known, KnownPeer{NodeID: db.NodeID(), Name: fmt.Sprint(i), Site: fmt.Sprint("site", i%10), Addrs: []string{l.Addr().String()}})
		db.Follow(func(list []Record) {
			m.got[i].Add(int64(len(list)))
			select {
			case m.heard <- struct{}{}:
			default:
			}
		})
	}
	for i := range n {
		m.boot(b, ctx, i, known, config, log)
	}
	m.await(b, func() bool {
		for _, x := range m.nodes {
			if len(x.mesh.links.table()) < n-1 {
				return false
			}
		}
		return true
	})
	b.Cleanup(m.close)
	time.Sleep(5 * time.Second) // real: connections settle
	return m
}

func (m *tcpMesh) boot(b *testing.B, ctx context.Context, i int, known []KnownPeer, config *tls.Config, log *slog.Logger) {
	x := m.nodes[i]
	id := x.db.NodeID()
	mesh, err := OpenMesh(MeshOptions{
		DB: x.db, Label: "bench", Keys: [][]byte{make([]byte, 32)}, Log: log,
		Known: func() []KnownPeer { return known },
		Self:  func() Self { return Self{Name: fmt.Sprint(i), Site: fmt.Sprint("site", i%10)} },
		Dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
			c, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr)
			if err == nil {
				_, err = c.Write([]byte(id)) // stands for the certificate's name
			}
			return c, err
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	x.mesh = mesh
	m.runs.Go(func() {
		for {
			c, err := m.lis[i].Accept()
			if err != nil {
				return
			}
			go func() {
				c = tls.Server(c, config)
				var id [32]byte
				if _, err := io.ReadFull(c, id[:]); err != nil {
					c.Close()
					return
				}
				mesh.Accept(c, string(id[:]))
			}()
		}
	})
	m.runs.Go(func() { mesh.Run(ctx) })
}

func (m *tcpMesh) close() {
	m.stop()
	var all sync.WaitGroup
	for i, x := range m.nodes {
		m.lis[i].Close()
		all.Go(func() { x.mesh.Close(); x.db.Close() })
	}
	all.Wait()
	m.runs.Wait()
}

func (m *tcpMesh) await(b *testing.B, done func() bool) {
	b.Helper()
	end := time.After(2 * time.Minute)
	for !done() {
		select {
		case <-m.heard:
		case <-time.After(20 * time.Millisecond):
		case <-end:
			b.Fatal("the mesh did not get there in two minutes")
		}
	}
}

func (m *tcpMesh) allHave(records int64) func() bool {
	return func() bool {
		for i := range m.got {
			if m.got[i].Load() < records {
				return false
			}
		}
		return true
	}
}

func benchTLS(b *testing.B) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, InsecureSkipVerify: true,
		ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13,
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func peakMB() float64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Maxrss) / 1024
}

// BenchmarkSpread measures how long it takes from an edit's acknowledgement
// until the last node has it, durable, beside a bare memberlist that
// broadcasts the same bytes between as many nodes.
func BenchmarkSpread(b *testing.B) {
	for _, n := range benchSizes(b) {
		b.Run(fmt.Sprintf("mesh/nodes=%d", n), func(b *testing.B) {
			m := startTCPMesh(b, n)
			for i := range 5 { // not measured
				m.nodes[i%n].put(b, fmt.Sprint("warm/", i), "x")
				m.await(b, m.allHave(int64(i+1)))
			}
			cpu, start := cpuTime(), time.Now()
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				x := m.nodes[mrand.IntN(n)]
				x.put(b, fmt.Sprintf("k/%d", i), strings.Repeat("x", 500))
				at := time.Now()
				m.await(b, m.allHave(int64(i+6)))
				took = append(took, time.Since(at))
			}
			reportSpread(b, took)
			b.ReportMetric((cpuTime()-cpu).Seconds()/time.Since(start).Seconds(), "cpus")
			b.ReportMetric(peakMB()/float64(n), "MB-peak/node")
		})
		b.Run(fmt.Sprintf("memberlist/nodes=%d", n), func(b *testing.B) {
			m := startGossip(b, n)
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				at := time.Now()
				m.broadcast(i, 500)
				m.await(b, int64(i+1))
				took = append(took, time.Since(at))
			}
			reportSpread(b, took)
		})
	}
}

func reportSpread(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkBurst measures 200 edits at once, until the last node has all.
func BenchmarkBurst(b *testing.B) {
	const burst = 200
	for _, n := range benchSizes(b) {
		b.Run(fmt.Sprintf("mesh/nodes=%d", n), func(b *testing.B) {
			m := startTCPMesh(b, n)
			for i := 0; b.Loop(); i++ {
				var edits sync.WaitGroup
				for k := range burst {
					edits.Go(func() { m.nodes[0].put(b, fmt.Sprintf("k/%d/%d", i, k), strings.Repeat("x", 500)) })
				}
				edits.Wait()
				m.await(b, m.allHave(int64((i+1)*burst)))
			}
		})
		b.Run(fmt.Sprintf("memberlist/nodes=%d", n), func(b *testing.B) {
			m := startGossip(b, n)
			for i := 0; b.Loop(); i++ {
				for k := range burst {
					m.broadcast(i*burst+k, 500)
				}
				m.await(b, int64((i+1)*burst))
			}
		})
	}
}

// BenchmarkFirstSync measures how long an empty node takes to get the records
// of 10,000 hosts: 20,000 records, 28 MB.
func BenchmarkFirstSync(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		m := startTCPMesh(b, 1)
		fillHosts(b, m.nodes[0].db, 10000)
		config, log := benchTLS(b), slog.New(slog.DiscardHandler)
		db, err := Open(Options{Dir: b.TempDir(), Log: log})
		if err != nil {
			b.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		m.nodes, m.lis = append(m.nodes, &simNode{db: db}), append(m.lis, l)
		known := []KnownPeer{{NodeID: m.nodes[0].db.NodeID(), Name: "0", Addrs: []string{m.lis[0].Addr().String()}}}
		ctx, stop := context.WithCancel(context.Background())
		cpu := cpuTime()
		b.StartTimer()
		m.boot(b, ctx, 1, known, config, log)
		m.await(b, func() bool { return db.Digest() == m.nodes[0].db.Digest() })
		b.StopTimer()
		b.ReportMetric((cpuTime() - cpu).Seconds(), "cpu-s")
		b.ReportMetric(peakMB(), "MB-peak-both")
		stop()
		m.close()
		b.StartTimer()
	}
}

func fillHosts(b *testing.B, db *DB, n int) {
	rng := mrand.New(mrand.NewPCG(1, 1))
	facts := func() []byte { // half of it compresses
		v := make([]byte, 800)
		for i := range v[:400] {
			v[i] = byte(rng.Uint32())
		}
		return v
	}
	status := func() []byte { return slices.Concat(facts(), facts(), facts()[:400]) }
	for base := 0; base < n; base += 50 {
		err := db.Update(context.Background(), func(tx *Tx) error {
			for i := range 50 {
				if err := tx.Put(fmt.Sprintf("host/%06d", base+i), facts()); err != nil {
					return err
				}
				if err := tx.Put(fmt.Sprintf("status/%06d", base+i), status()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// A bareGossip is memberlist as it comes, with its own broadcasts.
type bareGossip struct {
	lists []*memberlist.Memberlist
	queue []*memberlist.TransmitLimitedQueue
	got   []atomic.Int64
	heard chan struct{}
}

func startGossip(b *testing.B, n int) *bareGossip {
	g := &bareGossip{got: make([]atomic.Int64, n), heard: make(chan struct{}, 1)}
	for i := range n {
		conf := memberlist.DefaultLANConfig()
		conf.Name, conf.BindAddr, conf.BindPort, conf.AdvertisePort = fmt.Sprint(i), "127.0.0.1", 0, 0
		conf.Logger, conf.LogOutput, conf.SecretKey = log.New(io.Discard, "", 0), nil, make([]byte, 32)
		d := &bareDelegate{g: g, i: i, seen: map[uint64]bool{}}
		conf.Delegate = d
		l, err := memberlist.Create(conf)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { l.Shutdown() })
		q := &memberlist.TransmitLimitedQueue{RetransmitMult: conf.RetransmitMult, NumNodes: func() int { return n }}
		d.queue = q
		g.lists, g.queue = append(g.lists, l), append(g.queue, q)
		if i > 0 {
			if _, err := l.Join([]string{g.lists[0].LocalNode().Address()}); err != nil {
				b.Fatal(err)
			}
		}
	}
	time.Sleep(3 * time.Second) // real: gossip settles
	return g
}

func (g *bareGossip) broadcast(id, size int) {
	msg := binary.BigEndian.AppendUint64(nil, uint64(id))
	g.got[0].Add(1)
	g.queue[0].QueueBroadcast(bareBroadcast(append(msg, make([]byte, size)...)))
}

func (g *bareGossip) await(b *testing.B, n int64) {
	end := time.After(3 * time.Minute)
	for i := 0; i < len(g.got); {
		if g.got[i].Load() >= n {
			i++
			continue
		}
		select {
		case <-g.heard:
		case <-time.After(20 * time.Millisecond):
		case <-end:
			b.Skip("some broadcasts never reached every node in three minutes")
		}
	}
}

type bareBroadcast []byte

func (bareBroadcast) Invalidates(memberlist.Broadcast) bool { return false }
func (m bareBroadcast) Message() []byte                     { return m }
func (bareBroadcast) Finished()                             {}

type bareDelegate struct {
	g     *bareGossip
	i     int
	mu    sync.Mutex
	seen  map[uint64]bool
	queue *memberlist.TransmitLimitedQueue
}

func (d *bareDelegate) NotifyMsg(m []byte) {
	id := binary.BigEndian.Uint64(m)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.i == 0 || d.seen[id] {
		return
	}
	d.seen[id] = true
	d.queue.QueueBroadcast(bareBroadcast(slices.Clone(m)))
	d.g.got[d.i].Add(1)
	select {
	case d.g.heard <- struct{}{}:
	default:
	}
}

func (d *bareDelegate) GetBroadcasts(overhead, limit int) [][]byte {
	if d.queue == nil {
		return nil
	}
	return d.queue.GetBroadcasts(overhead, limit)
}
func (d *bareDelegate) NodeMeta(int) []byte           { return nil }
func (d *bareDelegate) LocalState(bool) []byte        { return nil }
func (d *bareDelegate) MergeRemoteState([]byte, bool) {}

// TestIdleCost prints what 50 nodes send when nothing happens, an hour of
// virtual time. It asserts nothing; run it with -v -idle.
func TestIdleCost(t *testing.T) {
	if !*idleCost {
		t.Skip("a measurement, wanted with -idle")
	}
	bubble(t, func(t *testing.T) {
		var packets, count atomic.Int64
		s := &simMesh{t: t, net: newSimNet()}
		s.net.mangle = func(list [][]byte) [][]byte {
			for _, f := range list {
				if f[0] == framePacket {
					packets.Add(int64(len(f)))
					count.Add(1)
				}
			}
			return list
		}
		s.start(50)
		defer s.settle()
		time.Sleep(10 * time.Minute)
		bytes, writes, p, c := s.net.bytes.Load(), s.net.writes.Load(), packets.Load(), count.Load()
		time.Sleep(time.Hour)
		bytes, writes = s.net.bytes.Load()-bytes, s.net.writes.Load()-writes
		p, c = packets.Load()-p, count.Load()-c
		const perWrite = 22 + 40 + 20 // TLS record, TCP/IP header, half an acknowledgement
		total := float64(bytes+writes*perWrite) / 50
		ml := float64(p+c*(12+perWrite)) / 50
		t.Logf("50 nodes, one hour: %.2f MB per node on the wire, of it %.2f MB memberlist's packets, %.2f MB the rest; %d writes per node", total/1e6, ml/1e6, (total-ml)/1e6, writes/50)
	})
}

var (
	idleCost = flag.Bool("idle", false, "measure what an idle mesh sends")
)
