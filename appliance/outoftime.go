package appliance

import (
	"crypto/x509"
	"fmt"
	"sync"
	"time"
)

// outOfTime are nodes whose certificates did not hold when they called or were
// called: their time was over, or one of the two clocks is wrong.
type outOfTime struct {
	mu   sync.Mutex
	seen map[string]certificateSeen // by node
}

type certificateSeen struct {
	from, until, at time.Time
}

// certificateAge is how long it is told that a certificate did not hold: the
// nodes call each other every few minutes.
const certificateAge = 30 * time.Minute

func (o *outOfTime) note(nodeID string, c *x509.Certificate) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen == nil {
		o.seen = map[string]certificateSeen{}
	}
	o.seen[nodeID] = certificateSeen{c.NotBefore, c.NotAfter, time.Now()}
}

func (o *outOfTime) of(nodeID string) (certificateSeen, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, ok := o.seen[nodeID]
	return s, ok && time.Since(s.at) < certificateAge
}

// renewalWarning is how long before the end of this node's certificate it is
// said that nobody renewed it: two months after that was due.
const renewalWarning = 60 * 24 * time.Hour

// certificateProblem says that a node's certificate does not hold, and how it
// comes back; empty when nothing is known to be wrong.
func (a *Appliance) certificateProblem(nodeID string) string {
	now := time.Now()
	if nodeID == a.db.NodeID() {
		if c := a.auth.identity().Node; now.After(c.NotAfter) {
			return fmt.Sprintf("This node's certificate ended on %s, as it reached no anchor for months, so no other node takes its calls. Make a token on one of them (wuamesh token join) and join with it here (wuamesh join TOKEN): the node keeps its records. If today is not %s, set the clock right instead.",
				dayText(c.NotAfter), dayText(now))
		}
		if c := a.auth.identity().Node; c.NotAfter.Sub(now) < renewalWarning && a.auth.anchorKey() == nil && a.Member() {
			return fmt.Sprintf("This node's certificate ends on %s, and no anchor was reached to renew it. At a site without a line the request goes with the next bundle (wuamesh bundle export), and the bundle that comes back brings the new one.", dayText(c.NotAfter))
		}
		return ""
	}
	s, ok := a.outOfTime.of(nodeID)
	switch {
	case ok && now.After(s.until):
		return fmt.Sprintf("Its certificate ended on %s, as it reached no anchor for months, so it is not let in. Make a token here (wuamesh token join) and join with it there (wuamesh join TOKEN): it keeps its records.", dayText(s.until))
	case ok && now.Before(s.from):
		return fmt.Sprintf("Its certificate begins on %s, and it is %s here: one of the two clocks is wrong.", dayText(s.from), dayText(now))
	}
	return ""
}

func dayText(t time.Time) string { return t.UTC().Format("2 Jan 2006") }

// lapsed says whether this node is in a mesh that does not let it in any more,
// because its certificate ended. An anchor makes itself another.
func (a *Appliance) lapsed() bool {
	return a.Member() && a.auth.anchorKey() == nil && time.Now().After(a.auth.identity().Node.NotAfter)
}
