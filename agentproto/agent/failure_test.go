package agent_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/agent/agenttest"
)

// TestLastErrors: what went wrong is told by the next check-in, with its code and
// without what it means; it is still told after a restart of the agent; what
// comes again is one error with a number; and there are never more than ten.
func TestLastErrors(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	s := settings()
	s.DefaultAllow = true
	n.policy = allow(s)
	u := agenttest.Updates(14)
	h := newHost(t, iniFor(m, n), u)
	h.machine.Machine = &failing{Machine: h.sim, id: u[1].ID, code: 0x80070643, times: 2}
	h.start()
	said := func() []agentproto.Failure {
		if len(n.checkins) == 0 {
			return nil
		}
		return n.checkins[len(n.checkins)-1].Errors
	}
	n.until("a listener", func() bool { return len(n.listeners) == 1 && len(n.reports) > 0 })
	if got := len(said()); got > 0 {
		t.Errorf("%d errors of a host that had none", got)
	}
	n.tell("command", agentproto.Command{ID: "c1", Action: agentproto.ActionInstall, By: "maelle"})
	n.until("the order's end", func() bool { return len(n.results.Commands) == 2 })
	n.tell("policy", nil)
	n.until("the error", func() bool { return len(said()) == 1 })
	n.look(func() {
		f := said()[0]
		if f.Doing != "install "+u[1].Title || f.HResult != 0x80070643 || f.Text != "Install: 0x80070643" || f.Times != 0 || f.At.IsZero() {
			t.Errorf("%+v", f)
		}
	})
	h.stop()
	n.until("the end of its stream", func() bool { return len(n.listeners) == 0 })

	h.start() // Windows fails once more
	n.until("a listener", func() bool { return len(n.listeners) == 1 })
	n.look(func() {
		if f := said(); len(f) != 1 || f[0].HResult != 0x80070643 {
			t.Errorf("after a restart of the agent: %+v", f)
		}
	})
	n.tell("command", agentproto.Command{ID: "c2", Action: agentproto.ActionInstall, By: "maelle"})
	n.until("the second failure", func() bool { return len(n.results.Commands) == 4 })
	n.tell("policy", nil)
	n.until("that it came twice", func() bool { return len(said()) == 1 && said()[0].Times == 2 })
	h.stop()

	// Scans fail, each in another way.
	a := h.open()
	defer a.Close()
	for i := range 13 {
		h.machine.Machine = &sick{h.sim, 0x80240001 + uint32(i)}
		if _, err := a.Scan(t.Context()); err == nil {
			t.Fatal("scanned")
		}
	}
	a.Scan(t.Context())
	n.look(func() {
		f := said()
		if len(f) != 10 || f[0].HResult != 0x8024000D || f[0].Doing != "scan" || strings.Contains(fmt.Sprint(f), "80070643") {
			t.Errorf("%d errors: %+v", len(f), f)
		}
	})
	e := a.Status().Errors
	if len(e) != 10 || e[0].Meaning == nil || e[0].Meaning.Code != "0x8024000D" || e[0].Meaning.Next != "" {
		t.Errorf("the status says %+v", e)
	}
}

// TestErrorsOfContact: a node that was away is an error that is told when it is
// back, once, however often it was asked.
func TestErrorsOfContact(t *testing.T) {
	m := newMesh(t)
	n, gone := m.node(t, "rns-01"), m.node(t, "brs-01")
	n.policy = allow(settings())
	h := newHost(t, iniFor(m, gone), nil)
	gone.stop()
	a := h.open()
	for range 3 {
		if _, err := a.Scan(t.Context()); err == nil {
			t.Fatal("scanned")
		}
	}
	a.Close()
	h.write(iniFor(m, n))
	a = h.open()
	defer a.Close()
	if _, err := a.Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.look(func() {
		f := n.checkins[0].Errors
		if len(f) != 1 || f[0].Doing != "contact with the mesh" || f[0].HResult != 0 || f[0].Times != 3 || !strings.Contains(f[0].Text, gone.URL) {
			t.Errorf("%+v", f)
		}
	})
}

// TestClockABitOff lets a host in by whose clock its own certificate begins only
// in two days: the node's certificate holds, and that is what it goes by.
func TestClockABitOff(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	n.policy, n.early = allow(settings()), 48*time.Hour
	h := newHost(t, iniFor(m, n), nil)
	a := h.open()
	defer a.Close()
	a.Scan(t.Context())
	if !a.Status().Enrolled || n.enrolled != 1 {
		t.Errorf("not let in: %+v", a.Status().Errors)
	}
}

// TestClockFarOff refuses to enrol at a node whose certificate does not hold by the
// clock of the host: it says so, keeps the token to itself, and explains it.
func TestClockFarOff(t *testing.T) {
	for name, from := range map[string]time.Time{"ahead": time.Now().AddDate(-3, 0, 0), "behind": time.Now().AddDate(2, 0, 0)} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t)
			n := m.nodeFrom(t, "rns-01", from)
			a := newHost(t, iniFor(m, n), nil).open()
			defer a.Close()
			if _, err := a.Enroll(t.Context()); err == nil || !strings.Contains(err.Error(), "the clock of this host says") {
				t.Errorf("%v", err)
			}
			if n.enrolled != 0 || a.Status().Enrolled {
				t.Error("it is in")
			}
			e := a.Status().Errors
			if len(e) != 1 || e[0].Meaning == nil || e[0].Meaning.Remedy != "Set the clock of the host." || !strings.Contains(e[0].Text, "the clock of this host says") {
				t.Errorf("%+v", e)
			}
		})
	}
}

// A sick machine opens no session.
type sick struct {
	agent.Machine
	code uint32
}

func (s *sick) Open(context.Context, agent.Query) (agent.Session, error) {
	return nil, &agent.WindowsError{Call: "AddScanPackageService", HResult: s.code}
}
