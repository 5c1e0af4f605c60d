package swarm

import (
	"cmp"
	"slices"
	"time"
)

// second is rule 8.
func (s *scheduler) second(now time.Time, start []Request) []Request {
	left, twice := 0, 0
	for _, f := range s.order {
		left += f.missing
	}
	var late []*flight
	for _, f := range s.flights {
		if f.why == bySecond {
			twice++
		}
		waited := s.files[f.File] != nil && s.files[f.File].waiting[f.Piece] > 0
		p := s.peers[f.Peer]
		if !f.second && now.Sub(s.since(f)) > s.lateAfter(f) && (waited || left <= len(s.flights) || p != nil && p.silent) {
			late = append(late, f)
		}
	}
	slices.SortFunc(late, func(x, y *flight) int { return cmp.Compare(x.ID, y.ID) })
	for _, f := range late[:min(len(late), max(secondMost-twice, 0))] {
		file := s.files[f.File]
		if file == nil {
			continue
		}
		var best *peerState
		for _, p := range s.peers {
			pf := p.files[f.File]
			ok := p.id != f.Peer && pf != nil && pf.have.has(f.Piece) && p.flying == 0 && !later(p.resume, p.banned).After(now) && (p.lan || !s.closed.After(now))
			if ok && (best == nil || p.rate > best.rate || p.rate == best.rate && p.id < best.id) {
				best = p
			}
		}
		if best != nil {
			f.second = true
			start = append(start, s.start(file, best, f.Piece, now, bySecond))
		}
	}
	return start
}

// since is when a request began to be waited for: what comes from another site
// does not while that line is shut.
func (s *scheduler) since(f *flight) time.Time {
	if p := s.peers[f.Peer]; p != nil && p.lan {
		return f.began
	}
	return later(f.began, s.closed)
}

// lateAfter is when a request is late: well beyond what everything in flight
// from its peer should take, or what pieces take on the whole.
func (s *scheduler) lateAfter(f *flight) time.Duration {
	wait := max(4*s.pace, lateLeast)
	if s.pace == 0 {
		wait = stuck / 3 // nothing is known yet of how long pieces take
	}
	p := s.peers[f.Peer]
	if p != nil && p.silent {
		return starveLeast
	}
	if p != nil && p.rate > 0 {
		wait = max(lateLeast, min(wait, time.Duration(4*float64(p.inFlight)/p.rate*float64(time.Second))))
	}
	return min(wait, stuck)
}

// How long nothing may come of a request before it is given up, and how often
// that happens to a peer in a row before it counts no more.
const (
	silenceLeast = 5 * time.Second
	silenceMost  = 20 * time.Second
	silentAfter  = 2
)

// silence is how long nothing may come of a request to a peer of which so many
// bytes are in flight: a few times what they should take, and longer when
// that was not enough before, so that a line that became slow is not given up
// again and again.
func (s *scheduler) silence(p *peerState) time.Duration {
	wait := 4 * s.pace
	if p.rate > 0 {
		wait = time.Duration(4 * float64(p.inFlight) / p.rate * float64(time.Second))
	}
	if wait == 0 {
		return silenceMost // nothing is known yet of how long pieces take
	}
	return min(max(wait, silenceLeast)<<min(max(p.failures-1, 0), 2), silenceMost)
}

// hush takes in whether a peer is silent: requests to it bring nothing again
// and again, whatever it says of itself. What it owns is others' then, and what
// it has they get elsewhere; it is still asked now and then.
func (s *scheduler) hush(p *peerState, silent bool) {
	if p.silent == silent {
		return
	}
	p.silent = false
	by := 1
	if silent {
		by = -1
	}
	for d, pf := range p.files {
		s.count(p, s.files[d], pf, by)
	}
	p.silent, s.stale = silent, true
}
