package swarm

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Where peers ask each other. The paths are part of what nodes of different
// versions say to each other.
const (
	pathPrefix   = "/swarm/v1/"
	pathHave     = pathPrefix + "have"
	pathPiece    = pathPrefix + "piece/"    // <digest>/<number>
	pathManifest = pathPrefix + "manifest/" // <digest>
	pathDraft    = pathPrefix + "draft/"    // <draft id>?known=<number>

	// headerHelp marks a request that was made because the peer was idle: it
	// does not make it busy.
	headerHelp = "Swarm-Help"
)

const (
	stallTime = 20 * time.Second // an answer that is due is given up
	pollTime  = 25 * time.Second // a question without news is answered after it
	chunk     = 32 << 10         // bytes that are counted against a limit at once
)

// follow asks a peer again and again what it has of the files that are being
// fetched, until ctx ends.
func (s *Swarm) follow(ctx context.Context, p Peer) {
	s.mu.Lock()
	s.cancel(s.sched.peer(p.ID, p.Site))
	s.mu.Unlock()
	client := &http.Client{Transport: s.Transport(p.ID)}
	q := &question{}
	failures := 0
	for ctx.Err() == nil {
		s.mu.Lock()
		q.update(s.transfers)
		changed := s.files
		s.mu.Unlock()
		if len(q.files) == 0 {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		err := s.ask(ctx, client, p, q, changed)
		if err == nil || ctx.Err() != nil {
			failures = 0
			continue
		}
		s.Log.Debug("peer not asked what it has, trying again", "peer", p.ID, "err", err)
		if failures++; failures == 3 { // two may be a restart
			s.mu.Lock()
			s.cancel(s.sched.gone(p.ID))
			s.sched.peer(p.ID, p.Site)
			q.forget()
			s.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(250*time.Millisecond<<min(failures, 10), 30*time.Second)):
		}
	}
}

// ask puts one question, and lets go of it when the files change meanwhile.
func (s *Swarm) ask(ctx context.Context, client *http.Client, p Peer, q *question, changed <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, pollTime+stallTime)
	defer cancel()
	answered := make(chan struct{})
	defer close(answered)
	interrupted := make(chan struct{})
	go func() {
		select {
		case <-answered:
		case <-changed:
			time.Sleep(coalesce) // several may begin together
			close(interrupted)
			cancel()
		}
	}()
	began := time.Now()
	a, err := askHave(ctx, client, p.ID, q)
	select {
	case <-interrupted:
		if err != nil {
			return nil
		}
	default:
	}
	if err != nil {
		return err
	}
	var rtt time.Duration
	if took := time.Since(began); took < time.Second {
		rtt = took
	}
	s.mu.Lock()
	now := time.Now()
	for _, f := range a.files {
		switch {
		case f.epoch == 0:
			s.sched.lost(p.ID, f.digest)
		default:
			known, ok := q.seen[f.digest]
			s.sched.has(p.ID, f.digest, f.pieces, f.epoch == wholeEpoch, !ok || known.epoch != f.epoch, now)
		}
		q.heard(f)
	}
	s.sched.busy(p.ID, a.busy, rtt)
	q.busy = a.busy
	s.mu.Unlock()
	s.poke()
	return nil
}

func askHave(ctx context.Context, client *http.Client, peer string, q *question) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+peer+pathHave, bytes.NewReader(q.encode()))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", peer, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", peer, resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, int64(maxAnswer)+1))
	if err != nil {
		return nil, fmt.Errorf("hear %s: %w", peer, err)
	}
	return decodeAnswer(b)
}

// getPiece reads a piece of a peer into b. A failure that the peer named is a
// [failure], with the time after which it may be asked again.
func (s *Swarm) getPiece(ctx context.Context, r Request, class Class, b []byte) (after time.Time, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(r.Silence, func() { cancel(errStalled) })
	defer watchdog.Stop()
	url := "http://" + r.Peer + pathPiece + r.File.String() + "/" + strconv.Itoa(r.Piece)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return after, err
	}
	if r.why == byHelp {
		req.Header.Set(headerHelp, "1")
	}
	resp, err := s.Transport(r.Peer).RoundTrip(req)
	if err != nil {
		return after, fmt.Errorf("%w: %w", failedNet, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK && (resp.ContentLength == r.Size || resp.ContentLength < 0):
	case resp.StatusCode == http.StatusNotFound:
		return after, failedGone
	case resp.StatusCode == http.StatusServiceUnavailable, resp.StatusCode == http.StatusTooManyRequests:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return time.Now().Add(time.Duration(min(max(seconds, 1), 3600)) * time.Second), failedBusy
	default:
		return after, fmt.Errorf("%w: it answered %s with %d bytes", failedNet, resp.Status, resp.ContentLength)
	}
	for len(b) > 0 {
		n := min(chunk, len(b))
		watchdog.Stop()
		if err := s.Limits.Take(ctx, class, Down, int64(n)); err != nil {
			return after, err
		}
		watchdog.Reset(r.Silence)
		if _, err := io.ReadFull(resp.Body, b[:n]); err != nil {
			return after, fmt.Errorf("%w: %w", failedNet, errors.Join(err, context.Cause(ctx)))
		}
		b = b[n:]
	}
	return after, nil
}

var errStalled = errors.New("nothing came for a while")

// FetchManifest takes the manifest of a file, whose root is known, from the
// first of the peers that has it; those that are said to have it are asked
// before the others.
func (s *Swarm) FetchManifest(ctx context.Context, d, root Digest, holders []string) (*Manifest, error) {
	var errs []error
	peers := s.Peers()
	slices.SortStableFunc(peers, func(x, y Peer) int {
		return cmp.Compare(flag(!slices.Contains(holders, x.ID)), flag(!slices.Contains(holders, y.ID)))
	})
	for _, p := range peers {
		m, err := s.manifestOf(ctx, p, d)
		if err == nil && (m.SHA256 != d || m.Root() != root) {
			err = fmt.Errorf("%s has another manifest: %w", p.ID, ErrWrong)
		}
		if err == nil {
			return m, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("no peer has the manifest of %s: %w", d, errors.Join(errs...))
}

func (s *Swarm) manifestOf(ctx context.Context, p Peer, d Digest) (*Manifest, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.ID+pathManifest+d.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.Transport(p.ID).RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", p.ID, resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, int64(MaxManifest)+1))
	if err != nil {
		return nil, err
	}
	return Decode(b)
}
