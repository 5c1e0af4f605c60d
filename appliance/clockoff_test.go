package appliance_test

import (
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// TestClockOfAHost: the node says its time in every answer, shows what a host finds of
// its own clock, on the overview too, and takes it back when the host does. Hosts that
// all differ alike are not blamed.
func TestClockOfAHost(t *testing.T) {
	s := start(t, nil)
	token := s.enrolToken(t, 3)
	list := []*machine{s.enrol(t, 1, token), s.enrol(t, 2, token), s.enrol(t, 3, token)}
	says := func(m *machine, off *agentproto.ClockOff) {
		t.Helper()
		began := time.Now().Add(-time.Millisecond)
		r, err := m.Checkin(t.Context(), agentproto.Checkin{Protocol: 1, Agent: "test", Facts: m.facts(), Settings: rules.DefaultSettings(), Clock: off})
		if err != nil {
			t.Fatal(err)
		}
		if r.Now.Before(began) || r.Now.After(time.Now()) {
			t.Errorf("the node says that it is %s", r.Now)
		}
	}
	if l, err := s.Hosts(t.Context(), appliance.HostQuery{Seen: "asleep"}); err != nil || l.Matching != 0 || l.Total != 3 {
		t.Errorf("what no host can be finds %d of %d: %v", l.Matching, l.Total, err)
	}
	wants := func(n int, fact, cause string) {
		t.Helper()
		l, err := s.Hosts(t.Context(), appliance.HostQuery{Seen: "clock off"})
		if err != nil || l.Matching != n {
			t.Errorf("%d hosts, want %d: %v", l.Matching, n, err)
		}
		st, err := s.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var said string
		for _, a := range st.Attention {
			if strings.Contains(a.Fact, "clock") {
				said = a.Fact + " " + a.Cause
			}
		}
		if !strings.Contains(said, fact) || !strings.Contains(said, cause) || n == 0 && said != "" {
			t.Errorf("the overview says %q, want %q %q", said, fact, cause)
		}
	}
	hours := func(n int, node string) *agentproto.ClockOff {
		return &agentproto.ClockOff{Node: node, Off: agentproto.Duration(n) * agentproto.Duration(time.Hour)}
	}
	for _, m := range list {
		says(m, nil)
	}
	wants(0, "", "")
	says(list[0], hours(3, "rns-01"))
	wants(1, "1 host's clock differs from that of the node.", "w32tm")
	if d, err := s.Host(t.Context(), list[0].id); err != nil || d.Clock == nil || *d.Clock != *hours(3, "rns-01") {
		t.Errorf("%+v, %v", d.Clock, err)
	}
	says(list[1], hours(3, "rns-01"))
	wants(2, "2 hosts' clocks differ", "that of the node rns-01 by 3 hours")
	says(list[2], hours(7, "rns-01"))
	wants(3, "3 hosts' clocks differ", "w32tm")
	says(list[2], hours(3, "brs-01"))
	wants(3, "3 hosts' clocks differ", "w32tm")
	for _, m := range list {
		says(m, nil)
	}
	wants(0, "", "")
}
