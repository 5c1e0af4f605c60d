package agent

import (
	"context"
	"time"

	"wuamesh/agentproto"
)

// tellClock is how long after a check-in that was made only to tell of the clock
// another may be; less than usualCheckin, so that who sets the clock right sees it.
const tellClock = 5 * time.Minute

// A clockLook is the host's clock beside the one of the node that answered.
type clockLook struct {
	by       time.Duration // negative: the host's is behind
	node     string
	was, off *agentproto.ClockOff // what was said of it, and what is; nil for nothing
}

// clockOf compares with the time in the answer to a check-in. A node that says
// none is older: nothing is known then.
func clockOf(r agentproto.CheckinResponse, began, ended time.Time) clockLook {
	c := clockLook{node: r.Node}
	if !r.Now.IsZero() {
		c.by = agentproto.CompareClocks(began, ended, r.Now)
	}
	return c
}

// sayClock tells the mesh soon when the clocks begin or cease to differ: the
// check-in that found it had been written before. Not oftener than tellClock: a
// clock that jumps to and fro must not make a loop of check-ins.
func (a *Agent) sayClock(ctx context.Context, c clockLook) {
	if (c.was == nil) == (c.off == nil) {
		return
	}
	if c.off != nil {
		a.log.WarnContext(ctx, "the clocks differ", "err", c.off.Fact())
	} else {
		a.log.InfoContext(ctx, "no difference of the clocks any more", "node", c.node)
	}
	a.mu.Lock()
	soon := a.clockTold.IsZero() || time.Since(a.clockTold) >= tellClock
	if soon {
		a.clockTold = time.Now()
	}
	a.mu.Unlock()
	if soon {
		a.hurryUp()
	}
}
