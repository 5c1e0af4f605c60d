package replicate

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// warnOffset is when a clock is worth a word.
const warnOffset = 5 * time.Second

// A reading is what a clock said at a moment. It goes on from there by the
// monotonic clock, whatever is done to this machine's own.
type reading struct {
	time, at time.Time
}

func (r reading) now() time.Time { return r.time.Add(time.Since(r.at)) }

// A peerTime is a peer's clock, read by pings. Of the last readings the one
// with the shortest round trip counts, because its error is at most half of
// that. One that cannot be explained so means that the clock was set, and the
// earlier ones count no more.
type peerTime struct {
	list [5]struct {
		reading
		rtt time.Duration
	}
	n int
}

func (p *peerTime) read(r reading, rtt time.Duration) {
	if p.known() && p.now().Sub(r.now()).Abs() > warnOffset+rtt {
		p.n = 0
	}
	p.list[p.n%len(p.list)].reading, p.list[p.n%len(p.list)].rtt = r, rtt
	p.n++
}

func (p *peerTime) now() time.Time {
	best := p.list[0]
	for _, m := range p.list[:min(p.n, len(p.list))] {
		if m.rtt < best.rtt {
			best = m
		}
	}
	return best.now()
}

// known says whether there was a reading yet.
func (p *peerTime) known() bool { return p.n > 0 }

// keepTime compares this node's clock with its peers' until ctx ends.
func (m *Mesh) keepTime(ctx context.Context) error {
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		if m.checkClock() {
			if err := m.mend(ctx); err != nil && ctx.Err() == nil {
				m.log.WarnContext(ctx, "what a wrong clock stamped is not put right, trying again", "err", err)
			}
		}
		m.endUnfenced()
		select {
		case <-ctx.Done():
			return nil
		case <-m.pong:
		case <-tick.C:
		}
	}
}

// mend puts right what this node stamped while its clock was ahead.
func (m *Mesh) mend(ctx context.Context) error {
	done, err := m.db.putRight(ctx)
	if err != nil || !done {
		return err
	}
	m.log.WarnContext(ctx, "what this node wrote while its clock was ahead is stamped again")
	for _, s := range m.control() {
		s.wantSync()
	}
	return nil
}

// A peerClock is what one peer says, relative to this node's wall clock.
type peerClock struct {
	wall   time.Duration
	agreed *time.Duration // of the time most of its own peers agree on; nil when they do not
}

// peerClocks is what the connected peers say that can be true.
func (m *Mesh) peerClocks(wall time.Time) []peerClock {
	var list []peerClock
	for _, s := range m.control() {
		s.mu.Lock()
		if s.clock.known() && m.db.possible(s.clock.now()) {
			p := peerClock{wall: s.clock.now().Sub(wall)}
			if s.agreed != nil {
				off := s.agreed.now().Sub(wall)
				p.agreed = &off
			}
			list = append(list, p)
		}
		s.mu.Unlock()
	}
	return list
}

// possible says whether a time is not before anything was ever written: a
// machine whose clock lost its battery begins at 1970 or at the age of its board.
func (db *DB) possible(t time.Time) bool { return !t.Before(db.earliest) }

// checkClock judges this node's clock by those of its peers, and says whether
// its time is right now beyond doubt.
func (m *Mesh) checkClock() (sure bool) {
	wall := m.db.wall()
	list := m.peerClocks(wall)
	off, by := judgeClock(m.db.possible(wall), list)
	m.borneOut.Store(by == byMajority)
	if by != byNobody {
		m.db.setTime(wall, off)
	}
	if off.Abs() >= warnOffset && (by != byNobody || len(list) == 1) {
		m.problems.add(m.id, clockProblem("This node's clock", -off))
	}
	correction := m.db.now().Sub(wall)
	near := func(p peerClock) bool { return (p.wall - correction).Abs() <= maxAhead }
	m.timely.Store(by != byNobody || slices.ContainsFunc(list, near))
	return by != byNobody || m.timely.Load() && len(m.known()) == 1
}

// setTime takes the peers' time when the clock is far from it.
func (db *DB) setTime(wall time.Time, off time.Duration) {
	var agreed *reading
	if off.Abs() > maxOffset {
		agreed = &reading{wall.Add(off), time.Now()}
	}
	if was := db.agreed.Swap(agreed); (was == nil) != (agreed == nil) {
		db.log.Warn("time of this node is taken otherwise", "from_peers", agreed != nil, "offset", off)
	}
}

// Who bears a time out.
type witness int

const (
	byNobody   witness = iota
	byMajority         // of the clocks of this node and its peers, three at least
	byPeers            // by the word of peers whose own peers agree, or of any when ours is impossible
)

// judgeClock returns how far off this node's clock is and who says so. The
// clocks themselves are compared, not what nodes make of them: two nodes that
// follow each other would never come back. Branches that reach headquarters
// alone go by what its peers agree on.
func judgeClock(possible bool, list []peerClock) (off time.Duration, by witness) {
	if len(list) == 0 {
		return 0, byNobody
	}
	var clocks, agreed []time.Duration
	if possible {
		clocks = append(clocks, 0) // our own
	}
	for _, p := range list {
		clocks = append(clocks, p.wall)
		if p.agreed != nil {
			agreed = append(agreed, *p.agreed)
		}
	}
	if median, n := agreeing(clocks); len(clocks) >= 3 && 2*n > len(clocks) {
		return median, byMajority
	}
	if len(agreed) > 0 {
		if median, n := agreeing(agreed); n == len(agreed) {
			return median, byPeers
		}
	}
	if !possible && len(list) == 1 {
		return list[0].wall, byPeers
	}
	return list[0].wall, byNobody
}

// agreeing returns the median and how many are near it.
func agreeing(list []time.Duration) (median time.Duration, n int) {
	list = slices.Sorted(slices.Values(list))
	median = list[len(list)/2]
	for _, d := range list {
		if (d - median).Abs() <= maxOffset {
			n++
		}
	}
	return median, n
}

// clockProblem says how far a clock is off: ahead when that is positive.
func clockProblem(whose string, ahead time.Duration) string {
	way := "ahead of"
	if ahead < 0 {
		way = "behind"
	}
	text := fmt.Sprintf("%s is %s %s its peers' clocks. Turn on time synchronisation there (timedatectl set-ntp true).", whose, ahead.Abs().Round(time.Second), way)
	if ahead > maxAhead {
		text += " What is written with that clock stays on the node that wrote it until the clock is right."
	}
	return text
}

const aheadProblem = "It holds records from the future by this node's clock, so nothing is taken from it until both clocks are right. Turn on time synchronisation on both (timedatectl set-ntp true); nothing is lost meanwhile."
