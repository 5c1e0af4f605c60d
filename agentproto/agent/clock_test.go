package agent_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"wuamesh/agentproto"
)

// TestClockOff: a clock that is hours off, with which TLS is content, is told at
// once, also after a restart of the agent, and not any more once it is right. A
// node that says no time knows nothing of it.
func TestClockOff(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	n.policy, n.off = allow(settings()), 3*time.Hour
	h := newHost(t, iniFor(m, n), nil).start()
	last := func() *agentproto.ClockOff {
		if len(n.checkins) == 0 {
			return nil
		}
		return n.checkins[len(n.checkins)-1].Clock
	}
	n.until("the clock", func() bool { return last() != nil })
	n.look(func() {
		if c := last(); c.Node != "rns-01" || c.Behind || time.Duration(c.Off) > 3*time.Hour || time.Duration(c.Off) < 179*time.Minute {
			t.Errorf("%+v", c)
		}
	})
	n.until("a listener", func() bool { return len(n.listeners) == 1 })
	h.stop()
	n.until("the end of its stream", func() bool { return len(n.listeners) == 0 })

	a := h.open()
	defer a.Close()
	said := func() string {
		if c := a.Status().Clock; c != nil {
			return c.Fact() + " " + c.Remedy()
		}
		return ""
	}
	if got := said(); !strings.Contains(got, "3 hours ahead of that of the node rns-01.") || !strings.Contains(got, "w32tm /resync") {
		t.Errorf("after a restart: %q", got)
	}
	if a.Scan(t.Context()); last() == nil {
		t.Error("the first check-in after a restart does not tell it")
	}
	for _, tt := range []struct {
		name   string
		off    time.Duration
		silent bool
		want   string
	}{
		{"right", 0, false, ""},
		{"behind", -72 * time.Hour, false, "3 days behind"},
		{"nobody says the time", -72 * time.Hour, true, ""},
		{"a little off", 4 * time.Minute, false, ""},
	} {
		n.look(func() { n.off, n.silent = tt.off, tt.silent })
		a.Scan(t.Context())
		if got := said(); !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestClockThatJumps is off at every other check-in: it is told all the same no
// oftener than check-ins are usual.
func TestClockThatJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w := virtual(t, settings(), nil)
		w.jumps = true
		h.start()
		time.Sleep(24 * time.Hour)
		h.stop()
		if n := len(w.checkins); n < 4*24 || n > 2*5*24 {
			t.Errorf("%d check-ins in a day, want one in about a quarter of an hour, and another each time it changes", n)
		}
	})
}
