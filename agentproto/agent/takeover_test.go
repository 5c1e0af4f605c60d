package agent_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/agent/agenttest"
	"wuamesh/agentproto/agent/wua"
)

// TestContentRefused: one order goes every way there is to install an update
// whose full files Windows does not take, and says which files it had when
// there is none left.
func TestContentRefused(t *testing.T) {
	delta := agentproto.File{Name: fileOf(agenttest.Updates(9)[8]), URL: "http://download.windowsupdate.com/c/d.psf", Delta: true}
	for _, tt := range []struct {
		name        string
		needs       wua.SimNeeds
		delta       bool
		bad         string // the extension of its file, if not .cab
		said, warns string
		tries       int
	}{
		{"its deltas", wua.NeedsDeltas, true, "", "Installed 1 update.", "", 2},
		{"the servicing tools, after its deltas", wua.NeedsPackage, true, "", "Installed 1 update.", "", 3},
		{"the servicing tools at once", wua.NeedsPackage, false, "", "Installed 1 update.", "", 2},
		{"what nobody can give", wua.NeedsPackage, false, ".exe", "0x8024200D", "what it was given: windows11.0-kb5091000", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMesh(t)
			n := m.node(t, "rns-01")
			u := agenttest.Updates(1)
			if tt.delta {
				u[0].Files = append(u[0].Files, delta)
			}
			if tt.bad != "" {
				f := &u[0].Files[0]
				f.Name = strings.Replace(f.Name, ".cab", tt.bad, 1)
				n.files[f.Name] = agenttest.Content(f.Name)
			}
			s := settings()
			s.DefaultAllow = true
			n.policy = allow(s)
			h := newHost(t, iniFor(m, n), nil)
			sim := wua.NewSim(wua.SimOptions{Seed: 1, Number: 1, Catalog: func() []wua.SimUpdate {
				return []wua.SimUpdate{{Update: u[0], Needs: tt.needs}, {Update: u[0], Needs: tt.needs, Server: true}}
			}})
			h.machine.Machine = sim
			a := h.open()
			defer a.Close()
			a.Scan(t.Context())
			text, err := a.Install(t.Context())
			if !strings.Contains(fmt.Sprint(text, err), tt.said) {
				t.Errorf("%q, %v, want %q", text, err, tt.said)
			}
			if warns := strings.Join(a.Status().Warnings, "\n"); !strings.Contains(warns, tt.warns) || tt.warns == "" && strings.Contains(warns, "in any way") {
				t.Errorf("warnings: %s", warns)
			}
			if got := len(n.results.Installs); got != tt.tries || tt.delta && n.fetched[delta.Name] != 1 {
				t.Errorf("%d tries were reported, want %d; the delta was fetched %d times", got, tt.tries, n.fetched[delta.Name])
			}
		})
	}
}

// TestForbiddenIsHidden: what may not be installed is not in Windows' own list
// while the agent has taken it over, and is there again when it gives it back.
func TestForbiddenIsHidden(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	u := agenttest.Updates(3)
	n.policy = allow(settings(), u[0].KBs[0])
	h := newHost(t, iniFor(m, n), u)
	a := h.open()
	defer a.Close()
	look := func(when string, want ...bool) {
		t.Helper()
		for i := range u {
			if got := h.sim.Hidden(u[i].ID); got != want[i] {
				t.Errorf("%s: update %d is hidden: %v", when, i, got)
			}
		}
	}
	a.Scan(t.Context())
	look("after a scan", false, true, true)
	if !h.sim.Taken() || h.sim.ServiceNow() != agent.ServiceOff {
		t.Error("Windows' own updating was not taken over")
	}
	n.look(func() { n.policy = allow(settings(), u[0].KBs[0], u[2].KBs[0]) })
	a.Scan(t.Context())
	look("one more is allowed", false, true, false)
	if err := a.GiveBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	look("given back", false, false, false)
	if h.sim.Taken() || h.sim.ServiceNow() != agent.ServiceGiven {
		t.Error("Windows' own updating was not given back")
	}
}

// TestRemoveKB removes one by hand, with the Windows Update service running
// meanwhile, and has the host scanned again.
func TestRemoveKB(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	u := agenttest.Updates(1)
	s := settings()
	s.DefaultAllow = true
	n.policy = allow(s)
	h := newHost(t, iniFor(m, n), u)
	a := h.open()
	defer a.Close()
	a.Scan(t.Context())
	if text, err := a.Install(t.Context()); err != nil {
		t.Fatal(text, err)
	}
	if text, err := a.RemoveKB(t.Context(), "kb"+u[0].KBs[0]); err != nil || text != "KB5091000 is removed." || h.sim.Installed(u[0].ID) {
		t.Errorf("%q, %v", text, err)
	}
	if got := h.modes[len(h.modes)-2:]; got[0] != agent.ServiceOn || got[1] != agent.ServiceOff {
		t.Errorf("the service went %v", h.modes)
	}
	for kb, want := range map[string]string{"5091000": "0x80240017", "KB": "not the number", "5091000; format c:": "not the number", "": "not the number"} {
		if _, err := a.RemoveKB(t.Context(), kb); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", kb, err)
		}
	}
}

// TestEnabledIsTaken: absent touches nothing, true takes over, and whatever
// comes after that gives back.
func TestEnabledIsTaken(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	on, off := true, false
	u := agenttest.Updates(2)
	for _, after := range []*bool{nil, &off} {
		s := settings()
		s.Enabled = nil
		n.policy = allow(s)
		h := newHost(t, iniFor(m, n), u).start()
		expect := func(when string, enabled *bool, taken bool, mode agent.ServiceMode) {
			t.Helper()
			n.look(func() {
				s := settings()
				s.Enabled = enabled
				n.policy = allow(s)
			})
			n.tell("policy", nil)
			for deadline := time.Now().Add(20 * time.Second); h.sim.Taken() != taken || h.sim.ServiceNow() != mode; {
				if time.Now().After(deadline) {
					t.Fatalf("%s: taken over %v, the service is %s", when, h.sim.Taken(), h.sim.ServiceNow())
				}
				<-time.After(5 * time.Millisecond)
			}
		}
		n.until("a report", func() bool { return len(n.reports) > 0 })
		expect("absent", nil, false, agent.ServiceGiven)
		expect("true", &on, true, agent.ServiceOff)
		expect("after that", after, false, agent.ServiceGiven)
		h.stop()
		n.look(func() { n.reports = nil })
	}
}
