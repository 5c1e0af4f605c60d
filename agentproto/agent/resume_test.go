package agent_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/agent/agenttest"
	"wuamesh/agentproto/rules"
)

// TestKilledAnywhere stops the agent at the nth step that Windows takes, for
// every n, starts it again on the same state, and wants the same end: every
// allowed update installed, and no file downloaded twice.
func TestKilledAnywhere(t *testing.T) {
	u := agenttest.Updates(3)
	for n := range 12 {
		m := newMesh(t)
		nd := m.node(t, "rns-01")
		s := settings()
		s.InstallScheduling = time.Hour
		nd.policy = allow(s, u[0].KBs[0], u[1].KBs[0], u[2].KBs[0])
		h := newHost(t, iniFor(m, nd), u)
		steps := 0
		a := h.open()
		ctx, cancel := context.WithCancel(t.Context())
		h.before = func(string) {
			if steps == n {
				cancel()
			}
			steps++
		}
		// Passes by hand, as the command line does: each one to its end.
		for range 2 {
			if _, err := a.Install(ctx); err != nil && ctx.Err() == nil {
				// The first finds no scan yet.
				a.Scan(ctx)
			}
			if _, err := a.Scan(ctx); err != nil && ctx.Err() == nil {
				t.Fatal(err)
			}
		}
		a.Close()
		if h.sim.ServiceNow() == agent.ServiceOn {
			t.Errorf("step %d: the service was left on", n)
		}
		cancel()
		h.machine.mu.Lock()
		h.before = nil
		h.machine.mu.Unlock()

		h.start()
		nd.look(func() {
			nd.commands = []agentproto.Command{{ID: "c1", Action: agentproto.ActionInstall, By: "maelle", Issued: time.Now()}}
		})
		nd.until("the end", func() bool {
			for _, x := range u {
				if s, _ := nd.status(x.ID); !s.Installed {
					return false
				}
			}
			return true
		})
		h.stop()
		nd.look(func() {
			for _, x := range u {
				if nd.fetched[fileOf(x)] != 1 {
					t.Errorf("step %d: %s fetched %d times", n, fileOf(x), nd.fetched[fileOf(x)])
				}
			}
			if nd.fetched[agentproto.ScanCabName] != 1 || nd.enrolled != 1 {
				t.Errorf("step %d: scan cab fetched %d times, enrolled %d times", n, nd.fetched[agentproto.ScanCabName], nd.enrolled)
			}
		})
		for _, x := range u {
			if k := count(h.order, x.ID); k > 2 {
				t.Errorf("step %d: %s installed %d times", n, x.ID, k)
			}
		}
	}
}

func count[T comparable](list []T, x T) (n int) {
	for _, y := range list {
		if x == y {
			n++
		}
	}
	return n
}

// TestCorruptState starts on files that a power cut or a disk has ruined.
func TestCorruptState(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	u := agenttest.Updates(2)
	n.policy = allow(settings(), u[0].KBs[0])
	h := newHost(t, iniFor(m, n), u).start()
	n.until("the first on the host", func() bool { s, _ := n.status(u[0].ID); return s.OnHost })
	h.stop()
	for _, name := range []string{"state.json", "scan.json"} {
		if err := os.WriteFile(filepath.Join(h.o.Dir, name), []byte(`{"schema":1,"found":[{]`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.look(func() { n.statuses, n.checkins = nil, nil })
	h.start()
	n.until("the first on the host again", func() bool { s, _ := n.status(u[0].ID); return s.OnHost })
	h.stop()
	n.look(func() {
		if n.enrolled != 1 || n.fetched[fileOf(u[0])] != 1 {
			t.Errorf("enrolled %d times, fetched %v: the key or the downloads were lost", n.enrolled, n.fetched)
		}
	})
	for _, name := range []string{"state.json.bad", "scan.json.bad"} {
		if _, err := os.Stat(filepath.Join(h.o.Dir, name)); err != nil {
			t.Error(err)
		}
	}
	fi, err := os.Stat(filepath.Join(h.o.Dir, "identity.json"))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

// TestApproval lets a host in that has the fingerprint and no token, and
// sends it away again.
func TestApproval(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	n.policy, n.closed = allow(settings()), true
	ini := "[waptwua]\nenabled = 1\n[wuamesh]\nnodes = " + n.URL + "\npin = " + m.token.Pin + "\n"
	h := newHost(t, ini, agenttest.Updates(1))
	a := h.open()
	if _, err := a.Scan(t.Context()); err == nil || a.Status().Enrolled {
		t.Fatalf("let in without approval: %v", err)
	}
	id := a.Status().Host
	n.look(func() { n.closed = false })
	if _, err := a.Scan(t.Context()); err != nil || !a.Status().Enrolled {
		t.Fatalf("approved: %v, %+v", err, a.Status())
	}
	n.look(func() { n.gone = true })
	a.Scan(t.Context()) // hears that it is not known any more
	if a.Status().Enrolled {
		t.Error("keeps a certificate that no node accepts")
	}
	if _, err := a.Scan(t.Context()); err != nil || !a.Status().Enrolled || a.Status().Host != id {
		t.Errorf("enrolled again: %v, %+v", err, a.Status())
	}
	a.Close()
}

// TestForeignMesh has a node of another authority in the way.
func TestForeignMesh(t *testing.T) {
	m, other := newMesh(t), newMesh(t)
	n := other.node(t, "evil")
	ini := iniFor(m, n)
	h := newHost(t, ini, nil)
	a := h.open()
	defer a.Close()
	if _, err := a.Scan(t.Context()); err == nil {
		t.Error("scanned without a node")
	}
	if n.enrolled != 0 || a.Status().Enrolled {
		t.Error("gave its token to another mesh")
	}
}

func TestDisabled(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	off := false
	s := settings()
	s.Enabled = &off
	n.policy = allow(s)
	h := newHost(t, iniFor(m, n), agenttest.Updates(1)).start()
	n.until("a listener", func() bool { return len(n.listeners) == 1 && len(n.checkins) > 0 })
	n.tell("policy", nil)
	n.until("the policy is held", func() bool { return n.checkins[len(n.checkins)-1].Policy == n.policy.Hash() })
	n.tell("command", agentproto.Command{ID: "c1", Action: agentproto.ActionScan, Issued: time.Now()})
	n.until("the refusal", func() bool { return len(n.results.Commands) == 2 })
	n.look(func() {
		if r := n.results.Commands[1]; r.State != agentproto.CommandFailed || !strings.Contains(r.Detail, "enabled is False") {
			t.Errorf("%+v", r)
		}
	})
	h.stop()
	if opened, _ := h.counts(); opened > 0 || n.fetched[agentproto.ScanCabName] > 0 {
		t.Error("a host that is not managed was scanned")
	}
	if h.sim.ServiceNow() != agent.ServiceGiven {
		t.Errorf("the Windows Update service is %s", h.sim.ServiceNow())
	}
}

// TestInstallOrder: the servicing stack first, what must be alone last, and
// a delayed one not yet, though its files are fetched.
func TestInstallOrder(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	u := agenttest.Updates(4)
	u[0].Exclusive, u[0].Restart = true, "maybe"
	u[2].Title = "2026-11 Servicing Stack Update for Windows 11"
	u[3].Published = time.Now().Add(-time.Hour)
	s := settings()
	s.DefaultAllow, s.InstallDelay = true, 24*time.Hour
	n.policy = allow(s)
	h := newHost(t, iniFor(m, n), u)
	a := h.open()
	defer a.Close()
	if _, err := a.Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := a.Install(t.Context())
	if err != nil || text != "Installed 3 updates." {
		t.Errorf("%q, %v", text, err)
	}
	if want := []rules.UpdateID{u[2].ID, u[1].ID, u[0].ID}; !slices.Equal(h.order, want) {
		t.Errorf("installed in the order %v, want %v", h.order, want)
	}
	if got := h.files(); !slices.Equal(got, []string{fileOf(u[3])}) {
		t.Errorf("downloads: %v", got)
	}
	if st := a.Status(); len(st.Updates) != 1 || st.Updates[0].Reason != rules.ReasonDelayed {
		t.Errorf("%+v", st.Updates)
	}
}

// failing makes an install of one update fail a number of times.
type failing struct {
	agent.Machine
	id    rules.UpdateID
	code  uint32
	times int
}

func (f *failing) Open(ctx context.Context, q agent.Query) (agent.Session, error) {
	s, err := f.Machine.Open(ctx, q)
	return &failingSession{s, f}, err
}

type failingSession struct {
	agent.Session
	f *failing
}

func (s *failingSession) Install(ctx context.Context, ref agentproto.UpdateRef) (agent.Outcome, error) {
	if ref.ID == s.f.id && s.f.times > 0 {
		s.f.times--
		return agent.Outcome{HResult: s.f.code}, nil
	}
	return s.Session.Install(ctx, ref)
}

// TestFailureIsIsolated: one update fails, the others are installed, and it
// is reported with its code; an order tries it again.
func TestFailureIsIsolated(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	u := agenttest.Updates(3)
	s := settings()
	s.DefaultAllow = true
	n.policy = allow(s)
	h := newHost(t, iniFor(m, n), u)
	h.machine.Machine = &failing{Machine: h.sim, id: u[1].ID, code: 0x80070643, times: 1}
	a := h.open()
	defer a.Close()
	a.Scan(t.Context())
	text, err := a.Install(t.Context())
	if err != nil || !strings.HasPrefix(text, "Installed 2 updates; 1 failed") || !strings.Contains(text, "0x80070643") {
		t.Errorf("%q, %v", text, err)
	}
	st, _ := n.status(u[1].ID)
	if st.HResult != 0x80070643 || st.Installed || st.Tried.IsZero() || len(n.results.Installs) != 3 {
		t.Errorf("reported: %+v, %+v", st, n.results.Installs)
	}
	if text, err := a.Install(t.Context()); err != nil || text != "Installed 1 update." {
		t.Errorf("again: %q, %v", text, err)
	}
}

// TestRestartBetween: an update that waits for a restart is not installed
// again, and one that is needed again after it counts as rolled back.
func TestRestartBetween(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	u := agenttest.Updates(1)
	u[0].Restart = "always"
	s := settings()
	s.DefaultAllow = true
	n.policy = allow(s)
	h := newHost(t, iniFor(m, n), u)
	a := h.open()
	defer a.Close()
	a.Scan(t.Context())
	if text, err := a.Install(t.Context()); err != nil || text != "Installed 1 update, 1 after a restart." {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := a.Install(t.Context()); err != nil || text != "Nothing to install." || !a.Status().Restart {
		t.Errorf("%q, %v", text, err)
	}
	if st, _ := n.status(u[0].ID); !st.Restart || st.Installed {
		t.Errorf("reported: %+v", st)
	}
	a.Close()
	h.sim.Restart()
	// Nothing changed that a scan is for but the restart itself.
	b := h.open()
	defer b.Close()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); ; {
		n.mu.Lock()
		st, _ := n.status(u[0].ID)
		n.mu.Unlock()
		if !st.Restart && st.Installed {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("after the restart: %+v", st)
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	stop()
	<-done
}
