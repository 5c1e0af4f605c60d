package replicate

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
)

const (
	syncPath    = "/replicate/v1/sync"
	vectorPath  = "/replicate/v1/vector"
	contactPath = "/replicate/v1/contact"
	// maxAnswer is about how many bytes of change sets one answer carries;
	// the next request goes on where it ended.
	maxAnswer = 4 << 20
	// maxServes syncs are answered at a time.
	maxServes = 4
)

// A sync: A posts its vector, B answers with its clock's high-water mark, its
// own vector, what it waits for itself, and the change sets that A lacks,
// compressed: sizes of four bytes, zero at the end, then a byte that says
// whether there is more. A stores
// each set as it comes and asks again, so whatever interrupts them nothing is
// done twice or left out. When B's mark is beyond A's horizon A takes nothing:
// what B holds from the future may have replaced what its vector claims.

func (m *Mesh) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+syncPath, m.serveSync)
	mux.HandleFunc("GET "+vectorPath, m.serveVector)
	mux.HandleFunc("GET "+contactPath, m.serveContact)
	mux.Handle("/", m.o.Handler)
	return mux
}

func (m *Mesh) serveSync(w http.ResponseWriter, r *http.Request) {
	if m.db.fenced.Load() {
		http.Error(w, "this node is taking a fresh copy itself", http.StatusServiceUnavailable)
		return
	}
	select {
	case m.serves <- struct{}{}:
		defer func() { <-m.serves }()
	case <-r.Context().Done():
		return
	}
	have, err := readVectorOf(http.MaxBytesReader(w, r.Body, 16<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if s := m.session(FromPeer(r.Context()).NodeID); s != nil {
		s.heardVector(have)
	}
	z := packers.Get().(*zstd.Encoder)
	defer packers.Put(z)
	z.Reset(w)
	if err := m.answerSync(z, have); err != nil {
		m.log.Debug("sync not answered to the end", "peer", FromPeer(r.Context()).NodeID, "err", err)
		panic(http.ErrAbortHandler)
	}
}

func (m *Mesh) answerSync(z *zstd.Encoder, have map[string]uint64) error {
	total, more := 0, byte(0)
	_, err := m.db.writeLacking(z, have, func(size int) (bool, error) {
		if total += size; total >= maxAnswer {
			more = 1
		}
		return more == 0, nil
	})
	if err != nil {
		return err
	}
	if _, err := z.Write([]byte{0, 0, 0, 0, more}); err != nil {
		return err
	}
	return z.Close()
}

// writeLacking writes the head of an answer and the change sets that a node with that vector lacks, all of one moment. on is told the size of
// each set, and says whether to go on.
func (db *DB) writeLacking(w io.Writer, have map[string]uint64, on func(size int) (bool, error)) (vector map[string]uint64, err error) {
	err = db.View(context.Background(), func(tx *Tx) error {
		clock, err := readClock(tx.txn)
		if err != nil {
			return err
		}
		x, err := tx.extent()
		if err != nil {
			return err
		}
		vector = x.vector
		if err := writeBlock(w, appendHead(nil, clock, x)); err != nil {
			return err
		}
		var broken error
		err = tx.sinceAll(vector, have, func(cs ChangeSet) (more bool) {
			b := appendSet(nil, cs)
			if broken = writeBlock(w, b); broken == nil {
				more, broken = on(len(b))
			}
			return more && broken == nil
		})
		return errors.Join(err, broken)
	})
	return vector, err
}

func writeBlock(w io.Writer, b []byte) error {
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b)))); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

// readBlock reads what writeBlock wrote, at most most bytes; nil at the end.
func readBlock(r io.Reader, most uint32) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > most {
		return nil, fmt.Errorf("block of %d bytes: %w", n, errGarbage)
	}
	if n == 0 {
		return nil, nil
	}
	var b bytes.Buffer // grows with what comes, not with what is claimed
	if _, err := io.CopyN(&b, r, int64(n)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func readVectorOf(r io.Reader) (map[string]uint64, error) {
	z, err := newUnpacker(r)
	if err != nil {
		return nil, err
	}
	defer unpackers.Put(z)
	b, err := io.ReadAll(io.LimitReader(z, 16<<20))
	if err != nil {
		return nil, err
	}
	return decodeVector(b)
}

// Packing costs a megabyte of memory each, so it is used again.
var (
	packers = sync.Pool{New: func() any {
		z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
		if err != nil {
			panic(err) // only of wrong options
		}
		return z
	}}
	unpackers = sync.Pool{New: func() any {
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			panic(err) // only of wrong options
		}
		return z
	}}
)

// newUnpacker takes one of the unpackers; it is to be put back.
func newUnpacker(r io.Reader) (*zstd.Decoder, error) {
	z := unpackers.Get().(*zstd.Decoder)
	return z, z.Reset(r)
}

func pack(b []byte) []byte {
	z := packers.Get().(*zstd.Encoder)
	defer packers.Put(z)
	return z.EncodeAll(b, nil)
}

func (s *session) heardVector(v map[string]uint64) {
	s.mu.Lock()
	s.theirs = v
	s.mu.Unlock()
	s.m.db.acknowledge(v)
}

func (s *session) wantSync() {
	select {
	case s.pull <- struct{}{}:
	default:
	}
}

// keepSynced asks the peer for what it has and we lack, whenever there is
// reason to.
func (s *session) keepSynced() {
	for {
		select {
		case <-s.ended:
			return
		case <-s.pull:
		}
		err := s.syncAll()
		switch {
		case err == nil:
		case errors.Is(err, errGarbage):
			s.garbage(err)
			return
		case errors.Is(err, ErrAhead):
			s.m.problems.add(s.peer.Node, aheadProblem)
			if !s.pause(jitter(30 * time.Second)) {
				return
			}
		default:
			s.m.log.Debug("sync interrupted", "peer", s.peer.Node, "err", err)
			if !s.pause(jitter(2 * time.Second)) {
				return
			}
			s.wantSync()
		}
	}
}

func (s *session) pause(d time.Duration) bool {
	select {
	case <-s.ended:
		return false
	case <-time.After(d):
		return true
	}
}

func (s *session) syncAll() error {
	before, began := s.m.db.Digest(), time.Now()
	for more := true; more; {
		select {
		case s.m.pulls <- struct{}{}:
		case <-s.ended:
			return nil
		}
		var err error
		more, err = s.syncOnce()
		<-s.m.pulls
		if err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.synced = began
	s.mu.Unlock()
	s.touch()
	if s.m.db.Digest() != before {
		s.ping() // tells the peer what we have now
	}
	return nil
}

// syncOnce makes one request and stores what it brings.
func (s *session) syncOnce() (more bool, err error) {
	return s.request(context.Background(), s.m.db.Vector(), s.m.db.merge)
}

// request asks for what a store with that vector lacks and hands it to store.
func (s *session) request(ctx context.Context, have map[string]uint64, store func(context.Context, portion) error) (more bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := time.AfterFunc(stall, cancel)
	defer stop.Stop()
	req, err := http.NewRequestWithContext(ctx, "POST", "http://peer"+syncPath, bytes.NewReader(pack(appendVector(nil, have))))
	if err != nil {
		return false, err
	}
	res, err := s.client.RoundTrip(req)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return false, fmt.Errorf("sync answered with %s", res.Status)
	}
	z, err := newUnpacker(movingReader{res.Body, stop})
	if err != nil {
		return false, err
	}
	defer unpackers.Put(z)
	return s.takeAnswer(ctx, z, store)
}

// A movingReader puts the end off while something arrives.
type movingReader struct {
	io.Reader
	stop *time.Timer
}

func (r movingReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if n > 0 {
		r.stop.Reset(stall)
	}
	return n, err
}

// takeAnswer stores the change sets of an answer as they come.
func (s *session) takeAnswer(ctx context.Context, r io.Reader, store func(context.Context, portion) error) (more bool, err error) {
	b, err := readBlock(r, 16<<20)
	if err != nil {
		return false, err
	}
	clock, from, err := decodeHead(b)
	if err != nil {
		return false, err
	}
	s.heardVector(from.vector)
	if err := s.m.db.believe(clock); err != nil {
		return false, err
	}
	_, err = takeSets(ctx, r, from, func() (bool, error) {
		var last [1]byte
		_, err := io.ReadFull(r, last[:])
		more = last[0] == 1
		return more, err
	}, func(ctx context.Context, p portion) error {
		for _, cs := range p.sets {
			s.told(cs.Writer, cs.End)
			if err := cs.check(); err != nil {
				return fmt.Errorf("%w: %w", errGarbage, err)
			}
		}
		return store(ctx, p)
	})
	return more, err
}

// takeSets hands the change sets of a sync on in groups, as they come, and
// says how many changes they had. After the last it asks whether more is to
// come. A set that was pushed meanwhile changes nothing.
func takeSets(ctx context.Context, r io.Reader, from extent, more func() (bool, error), take func(context.Context, portion) error) (n int, err error) {
	var sets []ChangeSet
	for size, ended := 0, false; !ended; {
		b, err := readBlock(r, maxSetWire)
		if err != nil {
			return n, err
		}
		last := false
		if ended = b == nil; ended {
			again, err := more()
			if err != nil {
				return n, err
			}
			last = !again
		}
		if ended || size+len(b) > 1<<20 {
			if err := takeGroups(ctx, portion{sets, from, last}, take); err != nil {
				return n, err
			}
			sets, size = nil, 0
		}
		if ended {
			break
		}
		cs, err := decodeSet(b)
		if err != nil {
			return n, err
		}
		sets, size, n = append(sets, cs), size+len(b), n+len(cs.Changes)
	}
	return n, nil
}

// takeGroups hands a portion on as transactions hold it.
func takeGroups(ctx context.Context, p portion, take func(context.Context, portion) error) error {
	groups := grouped(p.sets)
	if len(groups) == 0 {
		groups = [][]ChangeSet{nil}
	}
	for i, group := range groups {
		if err := take(ctx, portion{group, p.from, p.last && i == len(groups)-1}); err != nil {
			return err
		}
	}
	return nil
}
