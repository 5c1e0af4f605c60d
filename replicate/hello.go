package replicate

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Versions of the protocol between nodes that this software speaks. Two nodes
// use the highest that both know.
const (
	protocolMin = 1
	protocolMax = 1
)

const (
	helloMagic   = "wuamesh1"
	maxHello     = 16 << 10
	helloTimeout = 15 * time.Second
)

// A lane keeps bulk from delaying records: each is a connection of its own.
type lane string

const (
	laneControl lane = "control" // gossip, records, small requests
	laneBulk    lane = "bulk"    // pieces of files
)

// A hello is what both sides say first on a connection. Fields are added,
// never changed; unknown ones are ignored.
type hello struct {
	Min      int    `json:"min"`
	Max      int    `json:"max"`
	Lane     lane   `json:"lane,omitempty"`
	Node     string `json:"node"`
	Instance string `json:"instance"`
	Self
	Time    int64    `json:"time"`              // Unix milliseconds
	Contact int64    `json:"contact,omitempty"` // until when it has what the other had, as Time
	Fresh   int      `json:"fresh,omitempty"`   // nodes heard of lately
	Empty   bool     `json:"empty,omitempty"`   // the store holds no records
	Due     bool     `json:"due,omitempty"`     // a fresh copy is due
	Copies  []copied `json:"copies,omitempty"`  // that it took of late, oldest first
	// Refused is why the answering side wants no connection.
	Refused refusal `json:"refused,omitempty"`
	Detail  string  `json:"detail,omitempty"`
}

// A refusal is why a node does not take a connection.
type refusal string

const (
	refusedClone     refusal = "clone"     // another living node has this id
	refusedRemoved   refusal = "removed"   // the node was removed
	refusedVersion   refusal = "version"   // no common protocol
	refusedDuplicate refusal = "duplicate" // there is a connection already
	refusedGarbage   refusal = "garbage"   // what it sent last was not understood
)

func (r refusal) Error() string { return "refused: " + string(r) }

// errReckoned ends a connection whose hello was said before the other's was
// heard, which changes it.
var errReckoned = errors.New("the other took a fresh copy since, so hello is said again")

var errHello = errors.New("not a node of wuamesh, or not understood")

// hello is what this node says to another.
func (m *Mesh) hello(l lane, to string) hello {
	h := hello{
		Min: protocolMin, Max: protocolMax, Lane: l, Node: m.id, Instance: m.instance,
		Self: m.o.Self(), Time: m.db.now().UnixMilli(), Empty: m.db.empty(), Due: m.db.fenced.Load(),
		Copies: m.copiesNow(),
	}
	last, fresh := m.contactWith(to)
	if h.Fresh = fresh; !last.IsZero() {
		h.Contact = last.UnixMilli()
	}
	return h
}

func writeHello(w io.Writer, h hello) error {
	body, err := json.Marshal(h)
	if err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint32([]byte(helloMagic), uint32(len(body)))
	_, err = w.Write(append(b, body...))
	return err
}

func readHello(r io.Reader) (h hello, err error) {
	var head [len(helloMagic) + 4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return h, err
	}
	n := binary.BigEndian.Uint32(head[len(helloMagic):])
	if string(head[:len(helloMagic)]) != helloMagic || n > maxHello {
		return h, errHello
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return h, err
	}
	if err := json.Unmarshal(body, &h); err != nil {
		return h, fmt.Errorf("%w: %w", errHello, err)
	}
	return h, h.check()
}

func (h hello) check() error {
	switch {
	case !isNodeID(h.Node), h.Min > h.Max, len(h.Instance) > 64, h.Lane != laneControl && h.Lane != laneBulk && h.Lane != "":
		return errHello
	case len(h.Addrs) > 32, len(h.Name) > 255, len(h.Site) > 255, len(h.Version) > 255:
		return fmt.Errorf("%w: too long", errHello)
	}
	return checkCopies(h.Copies)
}

func (h hello) compatible() bool { return h.Min <= protocolMax && h.Max >= protocolMin }

func isNodeID(id string) bool {
	b, err := hex.DecodeString(id)
	return err == nil && len(b) == 16
}

// greet says hello on a connection that this node dialled.
func (m *Mesh) greet(conn net.Conn, nodeID string, l lane) (mine, theirs hello, err error) {
	conn.SetDeadline(time.Now().Add(helloTimeout))
	defer conn.SetDeadline(time.Time{})
	mine = m.hello(l, nodeID)
	if err := writeHello(conn, mine); err != nil {
		return mine, theirs, err
	}
	theirs, err = readHello(conn)
	switch {
	case err != nil:
	case theirs.Node != nodeID:
		err = fmt.Errorf("node %s answered for %s: %w", theirs.Node, nodeID, errHello)
	case theirs.Refused != "":
		err = theirs.Refused
	case !theirs.compatible():
		err = refusedVersion
	case m.reckon(theirs):
		err = errReckoned
	}
	theirs.Lane = l
	return mine, theirs, err
}

// welcome answers the hello on a connection that a peer dialled, and serves
// it until it ends.
func (m *Mesh) welcome(conn net.Conn, nodeID string) {
	conn.SetDeadline(time.Now().Add(helloTimeout))
	h, err := readHello(conn)
	if err == nil && h.Node != nodeID {
		err = fmt.Errorf("it says to be %s: %w", h.Node, errHello)
	}
	if err != nil {
		m.log.Debug("connection without a hello", "peer", nodeID, "err", err)
		conn.Close()
		return
	}
	h.Lane = cmp.Or(h.Lane, laneBulk) // bulk carries nothing by itself
	m.reckon(h)
	answer := m.hello(h.Lane, nodeID)
	answer.Refused, answer.Detail = m.judge(h, conn)
	if err := writeHello(conn, answer); err != nil || answer.Refused != "" {
		conn.Close()
		return
	}
	conn.SetDeadline(time.Time{})
	if s, err := m.enter(conn, answer, h, answered); err == nil {
		s.run()
	}
}

// judge says why a connection is not wanted.
func (m *Mesh) judge(h hello, conn net.Conn) (refusal, string) {
	switch {
	case m.isDropped(h.Node):
		return refusedRemoved, ""
	case h.Node == m.id:
		m.noteClone(addrOf(conn))
		return refusedClone, addrOf(conn)
	case !h.compatible():
		m.problems.add(h.Node, versionProblem(h))
		return refusedVersion, ""
	case m.problems.isolated(h.Node):
		return refusedGarbage, ""
	}
	if h.Lane == laneBulk {
		return "", ""
	}
	old := m.session(h.Node)
	switch {
	case old == nil:
	case old.peer.Instance == h.Instance && m.preferred(old) && old.alive():
		return refusedDuplicate, ""
	case old.peer.Instance != h.Instance && old.alive():
		m.problems.add(h.Node, cloneProblem(h, old.addr, addrOf(conn)))
		return refusedClone, old.addr
	}
	return "", ""
}

// preferred says which connection stays when two nodes dial each other at
// once: the one that the smaller id dialled.
func (m *Mesh) preferred(s *session) bool { return s.dialled == (m.id < s.peer.Node) }

func addrOf(conn net.Conn) string {
	if a := conn.RemoteAddr(); a != nil {
		return a.String()
	}
	return ""
}
