package replicate

import "time"

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
