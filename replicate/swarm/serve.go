package swarm

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

const (
	uploadsMost = 64                     // pieces sent at a time
	coalesce    = 50 * time.Millisecond  // news is gathered before it is told
	restTime    = 100 * time.Millisecond // without an upload, until a node is idle
	awayMost    = 5 * time.Minute        // that it is sent away for: limits may be opened meanwhile
	longestWait = 15 * time.Second       // for a limit, before a peer is sent away
)

// Handler answers peers. Its routes begin with /swarm/v1/.
func (s *Swarm) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathHave, s.serveHave)
	mux.HandleFunc("GET "+pathPiece+"{digest}/{piece}", s.servePiece)
	mux.HandleFunc("GET "+pathManifest+"{digest}", s.serveManifest)
	mux.HandleFunc("GET "+pathDraft+"{digest}", s.serveDraft)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := s.Caller(r); !ok {
			http.Error(w, "This is for nodes of the mesh.", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// serveHave answers what this node has, as soon as that is something the peer
// has not heard, and in the end anyway.
func (s *Swarm) serveHave(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxQuestion))
	var q *question
	if err == nil {
		q, err = decodeQuestion(b)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), pollTime)
	defer cancel()
	a, news := s.answer(q)
	for news != nil && ctx.Err() == nil {
		rest := time.NewTimer(restTime + 5*time.Millisecond) // it may become idle, which nothing tells
		select {
		case <-ctx.Done():
		case <-news:
			pause(ctx, coalesce)
		case <-rest.C:
			if s.busy() == q.busy {
				rest.Stop()
				select {
				case <-ctx.Done():
				case <-news:
					pause(ctx, coalesce)
				}
			}
		}
		rest.Stop()
		a, news = s.answer(q)
	}
	if r.Context().Err() != nil {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Write(a.encode())
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// answer is what the peer has not heard; with nothing of that, the channel
// that tells when there may be.
func (s *Swarm) answer(q *question) (*answer, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &answer{busy: s.busy()}
	for _, d := range q.files {
		if f, ok := s.haveOf(d, q.seen[d]); ok {
			a.files = append(a.files, f)
		}
	}
	if len(a.files) > 0 || a.busy != q.busy {
		return a, nil
	}
	return a, s.news
}

// haveOf is what this node has of a file beyond what was seen.
func (s *Swarm) haveOf(d Digest, known seen) (answered, bool) {
	if o := s.offers[d]; o != nil {
		return news(d, o.epoch, known, o.since)
	}
	if t := s.transfers[d]; t != nil && t.part != nil {
		return news(d, t.epoch, known, t.part.since)
	}
	if s.Has(d) {
		return answered{digest: d, epoch: wholeEpoch}, known.epoch != wholeEpoch
	}
	return answered{digest: d, epoch: noEpoch}, known.epoch != noEpoch
}

// news is what was not seen of a file that grows.
func news(d Digest, epoch uint64, known seen, since func(int) []int32) (answered, bool) {
	if known.epoch != epoch {
		known = seen{epoch: noEpoch}
	}
	list := since(int(known.n))
	list = list[:min(len(list), maxNews)]
	f := answered{digest: d, epoch: epoch, total: known.n + uint32(len(list)), pieces: list}
	return f, len(list) > 0 || known.epoch == noEpoch
}

// busy says whether a piece was sent a moment ago.
func (s *Swarm) busy() bool {
	since := s.idleSince.Load()
	return since == 0 || time.Since(s.began)-time.Duration(since) < restTime
}

// upload counts an upload that begins, or ends.
func (s *Swarm) upload(by int64) {
	n := s.uploads.Add(by)
	if n == 0 {
		s.idleSince.Store(max(int64(time.Since(s.began)), 1))
	} else {
		s.idleSince.Store(0)
	}
	if n == 0 || n == 1 && by > 0 {
		s.mu.Lock()
		s.tellNews()
		s.mu.Unlock()
	}
}

// servePiece sends a piece, at the rate the limits allow.
func (s *Swarm) servePiece(w http.ResponseWriter, r *http.Request) {
	d, err := ParseDigest(r.PathValue("digest"))
	i, err2 := strconv.Atoi(r.PathValue("piece"))
	if err != nil || err2 != nil {
		http.NotFound(w, r)
		return
	}
	caller, _ := s.Caller(r)
	class := WAN
	if caller.Site != "" && caller.Site == s.Self.Site {
		class = LAN
	}
	if until := s.Limits.Blocked(class, Up, time.Now()); !until.IsZero() && time.Until(until) > longestWait {
		w.Header().Set("Retry-After", strconv.Itoa(int(min(time.Until(until), awayMost)/time.Second)))
		http.Error(w, "The site's limits let nothing out now.", http.StatusServiceUnavailable)
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "Too many pieces are being sent.", http.StatusServiceUnavailable)
		return
	}
	buf := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buf)
	piece := s.pieceOf(d, i, *buf)
	if piece == nil {
		http.NotFound(w, r)
		return
	}
	if r.Header.Get(headerHelp) == "" {
		s.upload(1)
		defer s.upload(-1)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(piece)))
	for len(piece) > 0 {
		n := min(len(piece), chunk)
		if err := s.Limits.Take(r.Context(), class, Up, int64(n)); err != nil {
			return
		}
		if _, err := w.Write(piece[:n]); err != nil {
			return
		}
		s.mu.Lock()
		s.link(caller.ID).out.add(int64(n), time.Now())
		s.mu.Unlock()
		piece = piece[n:]
	}
}

// pieceOf reads a piece of a whole or arriving file into buf; nil when it is
// not here, or not what its digest says. A disk that rots is found out here,
// not at the peers, who would take this node for a liar.
func (s *Swarm) pieceOf(d Digest, i int, buf []byte) []byte {
	s.mu.Lock()
	t, o := s.transfers[d], s.offers[d]
	offered := o != nil && i >= 0 && i < o.known
	s.mu.Unlock()
	if offered {
		return s.readPiece(o.file, o.m, i, buf)
	}
	if t != nil && t.part != nil {
		if i < 0 || i >= len(t.m.Pieces) || !t.part.has(i) {
			return nil
		}
		// A file of its own: it stays open when the transfer ends.
		if file, err := s.Root.Open(t.part.path()); err == nil {
			defer file.Close()
			return s.readPiece(file, t.m, i, buf)
		}
	}
	file, m, err := s.Held(d)
	if err != nil {
		return nil
	}
	defer file.Close()
	if i < 0 || i >= len(m.Pieces) {
		return nil
	}
	piece := s.readPiece(file, m, i, buf)
	if piece == nil && s.Rotten != nil {
		s.Rotten(d)
	}
	return piece
}

func (s *Swarm) readPiece(file io.ReaderAt, m *Manifest, i int, buf []byte) []byte {
	b := buf[:m.Len(i)]
	_, err := file.ReadAt(b, int64(i)*m.PieceSize)
	if err == nil && sha256.Sum256(b) == m.Pieces[i] {
		return b
	}
	if errors.Is(err, os.ErrClosed) { // its offer ended
		return nil
	}
	s.Log.Warn("piece on the disk is not what it was; it is not sent", "digest", m.SHA256, "piece", i, "err", err)
	return nil
}

// serveManifest sends the manifest of a file that is here or arriving.
func (s *Swarm) serveManifest(w http.ResponseWriter, r *http.Request) {
	d, err := ParseDigest(r.PathValue("digest"))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	var m *Manifest
	s.mu.Lock()
	if t := s.transfers[d]; t != nil && t.source == "" {
		m = t.m
	}
	s.mu.Unlock()
	if m == nil {
		file, held, err := s.Held(d)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		file.Close()
		m = held
	}
	b := m.Encode()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.Write(b)
}
