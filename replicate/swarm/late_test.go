package swarm

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestSilence is how long nothing may come of a request: a few times what a
// piece takes on that line, never so short that a slow line is given up.
func TestSilence(t *testing.T) {
	for _, tt := range []struct {
		name     string
		rate     float64 // bytes per second
		pace     time.Duration
		flying   int64 // bytes
		failures int
		want     time.Duration
	}{
		{name: "nothing known", want: 20 * time.Second},
		{name: "other lines known", pace: 2 * time.Second, want: 8 * time.Second},
		{name: "fast line", rate: 10e6, flying: 2 << 20, want: 5 * time.Second},
		{name: "usual line", rate: 1e6, flying: 2e6, want: 8 * time.Second},
		{name: "slow line", rate: 50e3, flying: 1 << 20, pace: time.Second, want: 20 * time.Second},
		{name: "failed once", rate: 10e6, flying: 1 << 20, failures: 1, want: 5 * time.Second},
		{name: "failed twice", rate: 10e6, flying: 1 << 20, failures: 2, want: 10 * time.Second},
		{name: "failed often", rate: 10e6, flying: 1 << 20, failures: 9, want: 20 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScheduler("self", "", 1)
			s.pace = tt.pace
			if got := s.silence(&peerState{rate: tt.rate, inFlight: tt.flying, failures: tt.failures}); got != tt.want {
				t.Errorf("silence = %v, want %v", got, tt.want)
			}
		})
	}
}

// TestASilentPeerIsShown has a peer send nothing again and again, and then
// something.
func TestASilentPeerIsShown(t *testing.T) {
	s := New(Options{})
	m := fakeManifest("file", 4*MinPiece)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s.sched.peer("mute", "b")
	s.sched.want(m, newBitset(len(m.Pieces)), 0, now)
	s.sched.has("mute", m.SHA256, nil, true, true, now)
	ask := func() Request {
		t.Helper()
		for range 100 {
			now = now.Add(time.Second)
			if start, _ := s.sched.next(now); len(start) > 0 {
				return start[0]
			}
		}
		t.Fatal("nobody is asked")
		return Request{}
	}
	for try := range silentAfter {
		if l := s.Links()["mute"]; !l.Silent.IsZero() {
			t.Errorf("after %d failures it is silent since %v", try, l.Silent)
		}
		r := ask()
		now = now.Add(time.Second)
		s.sched.failed(r.ID, failedNet, time.Time{}, now)
	}
	if l := s.Links()["mute"]; !l.Silent.Equal(now) {
		t.Errorf("it is silent since %v, want %v", l.Silent, now)
	}
	s.sched.arrived(ask().ID, now)
	if l := s.Links()["mute"]; !l.Silent.IsZero() {
		t.Errorf("it sent something and is silent since %v", l.Silent)
	}
}

// A silentPeer takes a request and answers nothing, or not all.
type silentPeer struct{ sends int }

func (p silentPeer) RoundTrip(r *http.Request) (*http.Response, error) {
	if p.sends == 0 {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	body, w := io.Pipe()
	go func() {
		w.Write(make([]byte, p.sends))
		<-r.Context().Done()
		w.CloseWithError(r.Context().Err())
	}()
	return &http.Response{StatusCode: http.StatusOK, ContentLength: -1, Body: body}, nil
}

// TestASilentRequestIsGivenUp has a peer take a request and send nothing, or a
// part: it is given up after the time that the scheduler says.
func TestASilentRequestIsGivenUp(t *testing.T) {
	for _, sends := range []int{0, chunk, 3 * chunk} {
		t.Run(fmt.Sprint("after ", sends, " bytes"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Options{Transport: func(string) http.RoundTripper { return silentPeer{sends} }})
				began := time.Now()
				_, err := s.getPiece(context.Background(), Request{Peer: "p", Size: MinPiece, Silence: 5 * time.Second}, WAN, make([]byte, MinPiece))
				if took := time.Since(began); err == nil || took != 5*time.Second {
					t.Errorf("it ended after %v: %v", took, err)
				}
			})
		})
	}
}

// TestFailuresAtOnceAreOne has a connection break under several requests: the
// peer is asked again soon, not after as many doublings of the wait.
func TestFailuresAtOnceAreOne(t *testing.T) {
	s, now, m := newScheduler("self", "", 1), time.Unix(0, 0), fakeManifest("a", 64<<20)
	s.peer("p", "")
	s.want(m, newBitset(len(m.Pieces)), 0, now)
	s.has("p", m.SHA256, nil, true, true, now)
	p := s.peers["p"]
	p.rate = 100e6
	start, _ := s.next(now)
	if len(start) < 8 {
		t.Fatalf("%d requests", len(start))
	}
	now = now.Add(time.Second)
	for _, r := range start {
		s.failed(r.ID, failedNet, time.Time{}, now)
	}
	if wait := p.resume.Sub(now); wait > time.Second || p.silent {
		t.Errorf("it is asked again after %v; silent: %v", wait, p.silent)
	}
	now = p.resume
	start, _ = s.next(now)
	if len(start) != 1 {
		t.Fatalf("%d requests to a peer that failed, want one", len(start))
	}
	s.failed(start[0].ID, failedNet, time.Time{}, now.Add(time.Second))
	if !p.silent {
		t.Error("it failed twice in a row and still counts")
	}
	now = p.resume
	start, _ = s.next(now)
	if len(start) != 1 {
		t.Fatalf("%d requests to a silent peer, want one now and then", len(start))
	}
	s.arrived(start[0].ID, now.Add(time.Second))
	if p.silent || p.failures != 0 {
		t.Error("it answered and does not count")
	}
}
