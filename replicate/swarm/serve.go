package swarm

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"
)

const (
	uploadsMost = 64                     // pieces sent at a time
	coalesce    = 50 * time.Millisecond  // news is gathered before it is told
	restTime    = 100 * time.Millisecond // without an upload, until a node is idle
	longestWait = 15 * time.Second       // for a limit, before a peer is sent away
)

// Handler answers peers. Its routes begin with /swarm/v1/.
func (s *Swarm) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathHave, s.serveHave)
	mux.HandleFunc("GET "+pathPiece+"{digest}/{piece}", s.servePiece)
	mux.HandleFunc("GET "+pathManifest+"{digest}", s.serveManifest)
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
	if t := s.transfers[d]; t != nil && t.part != nil {
		if known.epoch != s.epoch {
			known = seen{epoch: noEpoch}
		}
		list := t.part.since(int(known.n))
		list = list[:min(len(list), maxNews)]
		f := answered{digest: d, epoch: s.epoch, total: known.n + uint32(len(list)), pieces: list}
		return f, len(list) > 0 || known.epoch == noEpoch
	}
	if s.Has(d) {
		return answered{digest: d, epoch: wholeEpoch}, known.epoch != wholeEpoch
	}
	return answered{digest: d, epoch: noEpoch}, known.epoch != noEpoch
}

// busy says whether a piece was sent a moment ago.
func (s *Swarm) busy() bool {
	since := s.idleSince.Load()
	return since == 0 || time.Since(time.UnixMilli(since)) < restTime
}

// upload counts an upload that begins, or ends.
func (s *Swarm) upload(by int64) {
	n := s.uploads.Add(by)
	if n == 0 {
		s.idleSince.Store(time.Now().UnixMilli())
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
		w.Header().Set("Retry-After", strconv.Itoa(int(min(time.Until(until), time.Hour)/time.Second)))
		http.Error(w, "The site's limits let nothing out now.", http.StatusServiceUnavailable)
		return
	}
	body, size, done := s.pieceOf(d, i)
	if body == nil {
		http.NotFound(w, r)
		return
	}
	defer done()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "Too many pieces are being sent.", http.StatusServiceUnavailable)
		return
	}
	if r.Header.Get(headerHelp) == "" {
		s.upload(1)
		defer s.upload(-1)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	buf := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buf)
	for size > 0 {
		n := min(size, chunk)
		if err := s.Limits.Take(r.Context(), class, Up, n); err != nil {
			return
		}
		if _, err := io.ReadFull(body, (*buf)[:n]); err != nil {
			s.Log.Warn("piece not read", "digest", d, "piece", i, "err", err)
			panic(http.ErrAbortHandler) // the length is said already: break off, so that nobody takes it for whole
		}
		if _, err := w.Write((*buf)[:n]); err != nil {
			return
		}
		size -= n
	}
}

// pieceOf opens a piece of a whole or arriving file.
func (s *Swarm) pieceOf(d Digest, i int) (body io.Reader, size int64, done func()) {
	s.mu.Lock()
	t := s.transfers[d]
	s.mu.Unlock()
	if t != nil && t.part != nil {
		if i < 0 || i >= len(t.m.Pieces) || !t.part.has(i) {
			return nil, 0, nil
		}
		// A file of its own: it stays open when the transfer ends.
		if file, err := s.Root.Open(t.part.path()); err == nil {
			return io.NewSectionReader(file, int64(i)*t.m.PieceSize, t.m.Len(i)), t.m.Len(i), func() { file.Close() }
		}
	}
	file, m, err := s.Held(d)
	if err != nil {
		return nil, 0, nil
	}
	if i < 0 || i >= len(m.Pieces) {
		file.Close()
		return nil, 0, nil
	}
	return io.NewSectionReader(file, int64(i)*m.PieceSize, m.Len(i)), m.Len(i), func() { file.Close() }
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
	if t := s.transfers[d]; t != nil {
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
