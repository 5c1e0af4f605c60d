package swarm

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path"
	"strconv"
	"time"
)

// A Draft is a file that one node, its source, is downloading from elsewhere
// and that nobody has whole. Peers fetch the pieces that are there while the
// rest comes, each compared with the digest its source says. A draft never
// becomes a file of the folder: who has its pieces has most of the file when
// its manifest is known, and [Swarm.Fetch] compares them with that.
type Draft struct {
	ID     Digest // see [DraftID]
	Size   int64  // bytes of the whole file
	Source string // the node that downloads it
}

// DraftID stands for the file of that name and size while its digest is not
// known. It is the same at every source, so that pieces outlive one.
func DraftID(name string, size int64) Digest {
	b := append([]byte("wuaswrm draft 1\x00"), name...)
	return sha256.Sum256(binary.BigEndian.AppendUint64(b, uint64(size)))
}

// DraftPath is where the pieces of a draft lie, below the folder.
func DraftPath(id Digest) string { return path.Join(PartialDir, id.String()) }

// ErrOver is a draft of which nothing comes any more: its source is gone or
// gave up, and no peer has another piece.
var ErrOver = errors.New("the file is not being downloaded any more")

const (
	// draftLinger is how long a draft goes on without a word of its source and
	// without a piece: peers still pass on what the source left.
	draftLinger = 5 * time.Second
	draftPause  = 500 * time.Millisecond // before a source that said nothing is asked again
)

// newDraft is the manifest of a draft, no digest of which is known yet.
func newDraft(id Digest, size int64) (*Manifest, error) {
	m := &Manifest{Size: size, SHA256: id, PieceSize: PieceSizeFor(size)}
	if size < 0 || size > MaxSize {
		return nil, fmt.Errorf("draft of %d bytes: out of bounds", size)
	}
	m.Pieces = make([][sha256.Size]byte, pieceCount(size, m.PieceSize))
	return m, nil
}

// An Offer passes on a file that this node is downloading, from its beginning
// as far as it is there. Safe for concurrent use.
type Offer struct {
	s     *Swarm
	m     *Manifest
	file  *os.File
	epoch uint64
	known int // pieces; the swarm's lock guards it
}

// Offer begins to pass on the draft of that id and size in bytes, which the
// file grows to be. It reads from the file until [Offer.Close], which closes
// it.
func (s *Swarm) Offer(id Digest, size int64, file *os.File) (*Offer, error) {
	m, err := newDraft(id, size)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	o := &Offer{s: s, m: m, file: file, epoch: max(rand.Uint64(), 2)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offers[id] = o
	return o, nil
}

// Grow takes in that the first done bytes of the file are there. Calls follow
// each other.
func (o *Offer) Grow(done int64) error {
	n := int(min(done, o.m.Size) / o.m.PieceSize)
	if done >= o.m.Size {
		n = len(o.m.Pieces)
	}
	buf := o.s.buffers.Get().(*[]byte)
	defer o.s.buffers.Put(buf)
	for o.known < n {
		b := (*buf)[:o.m.Len(o.known)]
		if _, err := o.file.ReadAt(b, int64(o.known)*o.m.PieceSize); err != nil {
			return fmt.Errorf("read a file that is arriving: %w", err)
		}
		o.m.Pieces[o.known] = sha256.Sum256(b)
		o.s.mu.Lock()
		o.known++
		o.s.mu.Unlock()
	}
	o.s.Changed()
	return nil
}

// Close ends the offer. Who waits for more of it is told.
func (o *Offer) Close() error {
	o.s.mu.Lock()
	if o.s.offers[o.m.SHA256] == o {
		delete(o.s.offers, o.m.SHA256)
	}
	o.s.tellNews()
	o.s.mu.Unlock()
	return o.file.Close()
}

// since is what a peer that knows the first n announcements has not heard.
func (o *Offer) since(n int) (list []int32) {
	for i := n; i < o.known; i++ {
		list = append(list, int32(i))
	}
	return list
}

// A Drafted is what came of a draft.
type Drafted struct {
	Fetched int64 // bytes that came from peers
	Prefix  int64 // bytes from the beginning that are on the disk
}

// FetchDraft fetches what a source passes on of a file that it is
// downloading, until all of it is here; [ErrOver] when nothing comes any more.
// What came stays at [DraftPath].
func (s *Swarm) FetchDraft(ctx context.Context, d Draft, name string, priority int) (Drafted, error) {
	m, err := newDraft(d.ID, d.Size)
	if err != nil {
		return Drafted{}, err
	}
	t := newTransfer(m, FetchOptions{Name: name, Priority: priority})
	t.source, t.epoch, t.users = d.Source, max(rand.Uint64(), 2), 1
	s.mu.Lock()
	if s.transfers[d.ID] != nil {
		s.mu.Unlock()
		return Drafted{}, fmt.Errorf("%s is being fetched already", name)
	}
	s.transfers[d.ID] = t
	s.begin(t) // at once: there are few, and what they bring is new to everybody
	s.mu.Unlock()
	s.poke()
	defer s.leave(t)
	grown := make(chan error, 1)
	gctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !t.refused {
		go func() { grown <- s.grow(gctx, t) }()
	}
	select {
	case <-t.done:
		err = t.err
	case err = <-grown:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	got := Drafted{Fetched: t.fetched}
	if t.part != nil {
		got.Prefix = t.part.prefix()
	}
	return got, err
}

// grow asks the source again and again for the digests of pieces that came,
// until the draft ends. When all are known, or the source is silent, pieces
// may still come from peers.
func (s *Swarm) grow(ctx context.Context, t *transfer) error {
	client := &http.Client{Transport: s.Transport(t.source)}
	known, lost := 0, time.Time{}
	for {
		digests, err := s.askDraft(ctx, client, t, known)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && lost.IsZero():
			lost = time.Now()
		case err != nil && s.quiet(t, lost):
			return fmt.Errorf("%w: %w", ErrOver, err)
		case err == nil:
			lost = time.Time{}
			if err := s.learn(t, known, digests); err != nil {
				return err
			}
			known += len(digests)
		}
		if err != nil || len(digests) == 0 {
			pause(ctx, draftPause)
		}
	}
}

// quiet says whether neither the source nor a piece was heard of for a while.
func (s *Swarm) quiet(t *transfer, lost time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(later(lost, t.came)) > draftLinger
}

// askDraft asks the source for the digests of the pieces from known on; it
// answers when there are some, or after a while without any. Of a draft that
// is all known it answers at once.
func (s *Swarm) askDraft(ctx context.Context, client *http.Client, t *transfer, known int) ([][sha256.Size]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, pollTime+stallTime)
	defer cancel()
	url := "http://" + t.source + pathDraft + t.m.SHA256.String() + "?known=" + strconv.Itoa(known)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", t.source, resp.Status)
	}
	most := (len(t.m.Pieces) - known) * sha256.Size
	b, err := io.ReadAll(io.LimitReader(resp.Body, int64(most)+1))
	if err != nil {
		return nil, fmt.Errorf("hear %s: %w", t.source, err)
	}
	if len(b) > most || len(b)%sha256.Size != 0 {
		return nil, fmt.Errorf("%s said %d bytes of digests of %d pieces", t.source, len(b), len(t.m.Pieces)-known)
	}
	list := make([][sha256.Size]byte, len(b)/sha256.Size)
	for i := range list {
		b = b[copy(list[i][:], b):]
	}
	return list, nil
}

// learn takes in the digests of pieces from the given one on. Those that lie
// on the disk, from an earlier try or another source, are not fetched again.
func (s *Swarm) learn(t *transfer, from int, digests [][sha256.Size]byte) error {
	for i, d := range digests { // nobody looks at them before the scheduler knows
		t.m.Pieces[from+i] = d
	}
	var here []int
	for i := range digests {
		if t.part.find(from + i) {
			here = append(here, from+i)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.transfers[t.m.SHA256] != t {
		return context.Canceled
	}
	s.sched.know(t.m.SHA256, from+len(digests), time.Now())
	for _, i := range here {
		s.cameIn(t, i, 0, time.Now())
	}
	s.poke()
	return nil
}

// serveDraft answers which digests of a draft are known, as soon as the peer
// has not heard them.
func (s *Swarm) serveDraft(w http.ResponseWriter, r *http.Request) {
	d, err := ParseDigest(r.PathValue("digest"))
	known, err2 := strconv.Atoi(r.URL.Query().Get("known"))
	if err != nil || err2 != nil || known < 0 {
		http.NotFound(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), pollTime)
	defer cancel()
	for {
		s.mu.Lock()
		o, news := s.offers[d], s.news
		var list [][sha256.Size]byte
		if o != nil && known <= o.known {
			list = o.m.Pieces[known:o.known]
		}
		over := o == nil || known > o.known
		s.mu.Unlock()
		switch {
		case over:
			http.NotFound(w, r)
			return
		case len(list) > 0 || known == len(o.m.Pieces) || ctx.Err() != nil:
			b := make([]byte, 0, len(list)*sha256.Size)
			for i := range list {
				b = append(b, list[i][:]...)
			}
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Content-Length", strconv.Itoa(len(b)))
			w.Write(b)
			return
		}
		select {
		case <-ctx.Done():
		case <-news:
			pause(ctx, coalesce)
		}
	}
}
