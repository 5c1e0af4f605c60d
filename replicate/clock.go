package replicate

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	// warnOffset is when a clock is worth a word.
	warnOffset = 5 * time.Second
	// agreement is how near to each other clocks are that agree.
	agreement = 5 * time.Minute
)

// A clockOffset is how far a peer's clock is ahead of ours, measured by pings.
// Of the last measures the one with the shortest round trip counts, because
// its error is at most half of that.
type clockOffset struct {
	list [5]struct {
		offset, rtt time.Duration
	}
	n int
}

func (c *clockOffset) measure(offset, rtt time.Duration) {
	c.list[c.n%len(c.list)].offset, c.list[c.n%len(c.list)].rtt = offset, rtt
	c.n++
}

func (c *clockOffset) value() time.Duration {
	best := c.list[0]
	for _, m := range c.list[:min(c.n, len(c.list))] {
		if m.rtt < best.rtt {
			best = m
		}
	}
	return best.offset
}

// measured says whether there was a measure yet.
func (c *clockOffset) measured() bool { return c.n > 0 }

// keepTime compares this node's clock with its peers' until ctx ends.
func (m *Mesh) keepTime(ctx context.Context) error {
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		m.checkClock()
		m.endUnfenced()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// checkClock judges this node's clock by those of its peers. When it is far
// off and at least two peers agree, their time is used instead.
func (m *Mesh) checkClock() {
	var list []time.Duration
	for _, s := range m.control() {
		s.mu.Lock()
		if s.offset.measured() {
			list = append(list, s.offset.value())
		}
		s.mu.Unlock()
	}
	if len(list) == 0 {
		return
	}
	off, sure := judgeClock(list)
	correction := time.Duration(0)
	if off.Abs() > maxAhead && sure {
		correction = off
	}
	if was := time.Duration(m.db.correction.Swap(int64(correction))); (was - correction).Abs() > warnOffset {
		m.log.Warn("time of this node is taken otherwise", "from_peers", correction != 0, "offset", off)
	}
	if off.Abs() >= warnOffset && (sure || len(list) == 1) {
		m.problems.add(m.id, clockProblem("This node's clock", -off))
	}
}

// onTime says whether some peer's clock agrees with ours.
func (m *Mesh) onTime() bool {
	for _, s := range m.control() {
		s.mu.Lock()
		ok := s.offset.measured() && s.offset.value().Abs() < maxAhead
		s.mu.Unlock()
		if ok {
			return true
		}
	}
	return false
}

// judgeClock returns the median of the peers' offsets and whether enough of
// them agree on it to believe them rather than ourselves.
func judgeClock(list []time.Duration) (median time.Duration, sure bool) {
	list = slices.Sorted(slices.Values(list))
	median = list[len(list)/2]
	agree := 0
	for _, d := range list {
		if (d - median).Abs() < agreement {
			agree++
		}
	}
	return median, agree >= 2 && agree*2 > len(list)
}

// clockProblem says how far a clock is off: ahead when that is positive.
func clockProblem(whose string, ahead time.Duration) string {
	way := "ahead of"
	if ahead < 0 {
		way = "behind"
	}
	text := fmt.Sprintf("%s is %s %s its peers' clocks. Turn on time synchronisation there (timedatectl set-ntp true).", whose, ahead.Abs().Round(time.Second), way)
	if ahead > maxAhead {
		text += " What it wrote with that clock is kept aside by the others until their time gets there."
	}
	return text
}
