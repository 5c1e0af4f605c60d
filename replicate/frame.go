package replicate

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Frames travel on one stream of each control session: a kind, four bytes of
// length, a body. A kind nobody knows is skipped.
const (
	framePing   = 1 // nonce, wall clock in milliseconds, digest of the vector, agreed time in milliseconds or 0
	framePong   = 2 // the same, nonce of the ping
	frameLinks  = 3 // JSON of link states
	framePacket = 4 // hops left, to, from, a packet of memberlist
	framePush   = 5 // a change set that was just made or heard of
	frameHint   = 6 // writer, number: something to ask for
	frameDial   = 7 // please open a bulk connection to me
	frameBye    = 8 // this node is leaving
)

const (
	maxFrame = 256 << 10
	// maxPush is the largest change set that is pushed; of a larger one a
	// hint is sent, so that it crosses each link once.
	maxPush = 32 << 10
	// maxOut and maxIn bound what waits to be sent and to be stored, per peer.
	maxOut = 4 << 20
	maxIn  = 16 << 20
)

func frame(kind byte, body []byte) []byte {
	b := make([]byte, 5, 5+len(body))
	b[0] = kind
	binary.BigEndian.PutUint32(b[1:], uint32(len(body)))
	return append(b, body...)
}

// An outbox holds frames until they are written. When it is full frames are
// lost, as on a network; the next sync brings what they carried.
type outbox struct {
	mu     sync.Mutex
	ready  chan struct{}
	stream net.Conn
	list   [][]byte
	bytes  int
	lost   bool
}

// attach sets the stream, once.
func (o *outbox) attach(st net.Conn) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stream != nil {
		return false
	}
	o.stream = st
	o.wake()
	return true
}

func (o *outbox) wake() {
	select {
	case o.ready <- struct{}{}:
	default:
	}
}

func (o *outbox) put(f []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bytes+len(f) > maxOut {
		o.lost = true
		return false
	}
	o.list, o.bytes = append(o.list, f), o.bytes+len(f)
	o.wake()
	return true
}

func (o *outbox) take() (st net.Conn, list [][]byte, lost bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stream == nil {
		return nil, nil, false
	}
	list, lost = o.list, o.lost
	o.list, o.bytes, o.lost = nil, 0, false
	return o.stream, list, lost
}

// writeFrames sends what is put in the outbox, much in one write.
func (s *session) writeFrames() {
	w := bufio.NewWriterSize(nil, 16<<10)
	for {
		select {
		case <-s.ended:
			return
		case <-s.out.ready:
		}
		st, list, lost := s.out.take()
		if len(list) == 0 {
			continue
		}
		if s.m.mangle != nil {
			list = s.m.mangle(list)
		}
		w.Reset(st)
		st.SetWriteDeadline(time.Now().Add(stall))
		for _, f := range list {
			w.Write(f)
		}
		if err := w.Flush(); err != nil {
			s.end(fmt.Errorf("write to the peer: %w", err))
			return
		}
		if lost {
			s.ping() // its digest says that there is something to fetch
		}
	}
}

// readFrames reads until the stream ends or the peer sends garbage.
func (s *session) readFrames(r *bufio.Reader) error {
	var rate meter
	for {
		var head [5]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(head[1:])
		if n > maxFrame {
			return s.garbage(fmt.Errorf("frame %d of %d bytes: %w", head[0], n, errGarbage))
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil {
			return err
		}
		s.mu.Lock()
		s.heard = time.Now()
		s.mu.Unlock()
		if !rate.allow(len(body) + 64) {
			return s.flood()
		}
		switch err := s.takeFrame(head[0], body); {
		case errors.Is(err, errBye):
			return err // it restarts, or is stopped: no fault of its
		case err != nil:
			return s.garbage(err)
		}
	}
}

func (s *session) takeFrame(kind byte, body []byte) error {
	r := reader{b: body}
	switch kind {
	case framePing, framePong:
		return s.takePing(kind, &r)
	case frameLinks:
		return s.takeLinks(body)
	case framePacket:
		return s.m.gossip.takePacket(body)
	case framePush:
		return s.takePush(body)
	case frameHint:
		return s.takeHint(&r)
	case frameDial:
		s.m.dialer.wantBulk(s.peer.Node)
	case frameBye:
		return errBye
	}
	return nil
}

var errBye = fmt.Errorf("the peer took leave")

// ping asks for a sign of life.
func (s *session) ping() {
	nonce := rand.Uint64()
	s.mu.Lock()
	if len(s.pinged) > 16 {
		clear(s.pinged)
	}
	s.pinged[nonce] = time.Now()
	s.mu.Unlock()
	s.out.put(s.pingFrame(framePing, nonce))
}

func (s *session) pingFrame(kind byte, nonce uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, nonce)
	b = binary.BigEndian.AppendUint64(b, uint64(s.m.db.wall().UnixMilli()))
	digest, agreed := s.m.db.Digest(), int64(0)
	if s.m.borneOut.Load() {
		agreed = s.m.db.now().UnixMilli()
	}
	return frame(kind, binary.BigEndian.AppendUint64(append(b, digest[:]...), uint64(agreed)))
}

func (s *session) takePing(kind byte, r *reader) error {
	nonce, wall, digest, agreed := r.uint64(), r.uint64(), r.take(16), r.uint64()
	if r.bad {
		return fmt.Errorf("ping: %w", errGarbage)
	}
	if kind == framePing {
		s.out.put(s.pingFrame(framePong, nonce))
	} else {
		s.takePong(nonce, time.UnixMilli(int64(wall)), int64(agreed))
	}
	s.compare([16]byte(digest))
	return nil
}

func (s *session) takePong(nonce uint64, wall time.Time, agreed int64) {
	now := time.Now()
	s.mu.Lock()
	at, ok := s.pinged[nonce]
	delete(s.pinged, nonce)
	first := ok && !s.clock.known()
	if ok {
		s.rtt = now.Sub(at)
		sent := now.Add(-s.rtt / 2)
		s.clock.read(reading{wall, sent}, s.rtt)
		if s.agreed = nil; agreed != 0 {
			s.agreed = &reading{time.UnixMilli(agreed), sent}
		}
	}
	s.mu.Unlock()
	select {
	case s.pongs <- struct{}{}:
	default:
	}
	if first { // one more clock to go by
		select {
		case s.m.pong <- struct{}{}:
		default:
		}
	}
	s.m.noteChange()
}

// compare asks for a sync when the peer's vector is not ours and does not
// become it by what is on its way: then it is asked again first.
func (s *session) compare(digest [16]byte) {
	if s.peerFence != "" {
		return
	}
	ours, vector := s.m.db.state()
	same := digest == ours
	s.mu.Lock()
	s.digest = digest
	doubt := s.doubt
	s.doubt = !same
	if same {
		s.matched, s.theirs, s.unsure = time.Now(), vector, time.Time{}
	}
	young := time.Since(s.born) < 5*time.Second
	s.mu.Unlock()
	switch {
	case same:
		s.touch()
	case doubt || young:
		s.wantSync()
	default:
		time.AfterFunc(time.Second, s.ping)
	}
}

func (s *session) sendLinks(list []linkState) {
	for len(list) > 0 {
		n := min(len(list), 50)
		if body, err := json.Marshal(list[:n]); err == nil && len(body) <= maxFrame {
			s.out.put(frame(frameLinks, body))
		}
		list = list[n:]
	}
}

func (s *session) takeLinks(body []byte) error {
	var list []linkState
	if err := json.Unmarshal(body, &list); err != nil || len(list) > 1000 {
		return fmt.Errorf("link states: %w", errGarbage)
	}
	s.m.takeLinks(list, s)
	return nil
}

// jitter spreads what would else happen everywhere at once: ±20 %.
func jitter(d time.Duration) time.Duration { return d*8/10 + rand.N(d*4/10) }
