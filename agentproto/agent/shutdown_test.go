package agent_test

import (
	"strings"
	"testing"

	"wuamesh/agentproto/agent/agenttest"
)

// TestAtShutdown is requirement A5: what is on the host is installed while it
// goes down, and nothing in a state in which that would do harm.
func TestAtShutdown(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	u := agenttest.Updates(3)
	s := settings()
	n.policy = allow(s, u[0].KBs[0], u[1].KBs[0])
	n.away[fileOf(u[1])] = true
	h := newHost(t, iniFor(m, n), u)
	a := h.open()
	defer a.Close()
	a.Scan(t.Context())
	a.Download(t.Context())
	say := func(want string) {
		t.Helper()
		if text, err := a.AtShutdown(t.Context()); err != nil || !strings.Contains(text, want) {
			t.Errorf("%q, %v, want %q", text, err, want)
		}
	}
	say("install_at_shutdown is off")
	s.InstallAtShutdown = true
	n.look(func() { n.policy = allow(s, u[0].KBs[0], u[1].KBs[0]) })
	a.Scan(t.Context())
	h.sim.Unplug(39)
	say("on battery with 39 % left")
	h.sim.Unplug(0)
	if e := a.Exit(t.Context()); !e.MaySkip || e.Why != "" || len(e.Titles) != 1 || e.Titles[0] != u[0].Title {
		t.Errorf("the exit window would show %+v", e)
	}
	if err := a.SkipShutdown(); err != nil {
		t.Fatal(err)
	}
	say("skipped by the user")
	before := n.fetched[fileOf(u[1])]
	say("Installed 1 update.")
	if !h.sim.Installed(u[0].ID) || h.sim.Installed(u[1].ID) || h.sim.Installed(u[2].ID) {
		t.Error("installed what was not on the host or not allowed, or not what was")
	}
	if n.fetched[fileOf(u[1])] != before {
		t.Error("it downloaded while the host went down")
	}
	if st, _ := n.status(u[0].ID); !st.Installed {
		t.Error("the node was not told")
	}
	say("Nothing to install.")
	s.DisableSkip = true
	n.look(func() { n.policy = allow(s) })
	a.Scan(t.Context())
	if err := a.SkipShutdown(); err == nil || a.Exit(t.Context()).MaySkip {
		t.Error("skipped what may not be skipped")
	}
}

// TestAtShutdownWaitsForARestart: a host that has to restart first installs
// nothing on its way down.
func TestAtShutdownWaitsForARestart(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	u := agenttest.Updates(2)
	u[0].Restart = "always"
	s := settings()
	s.InstallAtShutdown = true
	n.policy = allow(s, u[0].KBs[0])
	h := newHost(t, iniFor(m, n), u)
	a := h.open()
	defer a.Close()
	a.Scan(t.Context())
	if _, err := a.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.look(func() { n.policy = allow(s, u[0].KBs[0], u[1].KBs[0]) })
	a.Download(t.Context())
	if text, err := a.AtShutdown(t.Context()); err != nil || text != "The host has to restart first." {
		t.Errorf("%q, %v", text, err)
	}
	if k := n.checkins[len(n.checkins)-1]; !k.Facts.RestartDue || len(k.Facts.RestartWhy) != 1 || k.Facts.Power != "mains" || k.Facts.FreeGB == 0 {
		t.Errorf("the node is told %+v", k.Facts)
	}
}
