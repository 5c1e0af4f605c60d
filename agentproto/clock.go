package agentproto

import (
	"cmp"
	"fmt"
	"time"
)

// MaxClockOff is how far the clocks of a host and its node may differ before
// it is said: five minutes, as far as a domain's Kerberos takes it (RFC 4120,
// section 8.2, and Windows' default).
const MaxClockOff = 5 * time.Minute

// A ClockOff is that the clock of a host and that of the node it last checked in
// with differ by [MaxClockOff] or more. Which of the two is wrong it does not
// say.
type ClockOff struct {
	Node   string   `json:"node"`             // name of the node
	Off    Duration `json:"off"`              // at least so much; ten years are ten or more
	Behind bool     `json:"behind,omitempty"` // the host's is; else it is ahead
}

// CompareClocks says how far the host's clock is off a node's: began and ended
// are times of the host, just before it asked and just after the answer came,
// and said is the time of the node when it answered. The answer may have been on
// its way for all of that time or none of it, so what is returned is the least
// that it is off: never too much, zero when it may be right. A negative one is
// behind.
func CompareClocks(began, ended, said time.Time) time.Duration {
	// By the clocks on the wall: that of the host may have been set meanwhile, or
	// the host have slept.
	first, last := began.Round(0), ended.Round(0)
	if last.Before(first) {
		first, last = last, first
	}
	switch {
	case first.After(said):
		return first.Sub(said)
	case last.Before(said):
		return last.Sub(said)
	}
	return 0
}

// ClockOffBy is what to say of a difference: nil when it is not worth a word.
// was is what was said last, or nil: what is about the same is said in the same
// words, and a clock that stays near the bound does not come and go.
func ClockOffBy(d time.Duration, node string, was *ClockOff) *ClockOff {
	least := MaxClockOff
	if was != nil {
		least -= time.Minute
	}
	if d.Abs() < least {
		return nil
	}
	is := &ClockOff{Node: node, Off: min(Duration(d.Abs().Truncate(time.Second)), maxDuration), Behind: d < 0}
	if was != nil && was.Node == node && was.Behind == is.Behind && time.Duration(was.Off-is.Off).Abs() < max(time.Minute, time.Duration(is.Off)/20) {
		return was
	}
	return is
}

// Fact says it as a sentence.
func (c ClockOff) Fact() string {
	way := "ahead of"
	if c.Behind {
		way = "behind"
	}
	return fmt.Sprintf("The clock of this host is %s %s that of the node %s.", c.Amount(), way, cmp.Or(c.Node, "it checked in with"))
}

// Amount is how far it is off in one unit, for people: "3 hours".
func (c ClockOff) Amount() string {
	d := time.Duration(c.Off)
	for _, u := range []struct {
		name string
		unit time.Duration
	}{{"days", 24 * time.Hour}, {"hours", time.Hour}} {
		if d >= 2*u.unit {
			return fmt.Sprintf("%d %s", d.Round(u.unit)/u.unit, u.name)
		}
	}
	return fmt.Sprintf("%d minutes", d.Round(time.Minute)/time.Minute)
}

// Remedy says what rests on the clock, and what to do.
func (c ClockOff) Remedy() string {
	return "The host judges by its own clock when a scan or an install is due and when an install delay is over, and its reports bear its times. " +
		"Set it right (w32tm /resync on the host). If other hosts differ from this node in the same way, the node's clock is the wrong one: look at timedatectl there. " +
		"This goes away at the next check-in with clocks that agree."
}

func (c ClockOff) check(k *checker, at string) {
	k.text(at+".node", c.Node, 256)
	if c.Off <= 0 || c.Off > maxDuration {
		k.fail(at+".off", "%s cannot be", time.Duration(c.Off))
	}
}
