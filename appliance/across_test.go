package appliance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// listen opens the host's stream of events and returns what comes.
func (m *machine) listen(t testing.TB, s *site) <-chan agentproto.Event {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	got := make(chan agentproto.Event, 100)
	go m.Events(ctx, func(e agentproto.Event) error {
		got <- e
		return nil
	})
	eventually(t, "stream", func() error {
		if h, err := s.Host(ctx, m.id); err != nil || !h.Online {
			return fmt.Errorf("not online: %v", err)
		}
		return nil
	})
	return got
}

// next waits for an event of that name.
func next(t testing.TB, events <-chan agentproto.Event, name string) agentproto.Event {
	t.Helper()
	for limit := time.After(20 * time.Second); ; {
		select {
		case e := <-events:
			if e.Name == name {
				return e
			}
		case <-limit:
			t.Fatalf("no event %q came", name)
		}
	}
}

func knows(t testing.TB, s *site, id agentproto.HostID) {
	t.Helper()
	eventually(t, s.NodeName()+" knows the host", func() error {
		_, err := s.Host(t.Context(), id)
		return err
	})
}

// TestOrdersCrossTheMesh triggers on one node a host that is connected to
// another, and edits its rules there: both reach it over its stream, and what
// became of the command is seen where it was given.
func TestOrdersCrossTheMesh(t *testing.T) {
	t.Parallel()
	a, b := bareNode(t, "rns-01"), bareNode(t, "brs-01")
	b.joinTo(t, a)
	m := b.enrol(t, 1, b.enrolToken(t, 1))
	m.checkin(t)
	knows(t, a, m.id)
	events := m.listen(t, b)
	if _, err := m.Report(t.Context(), scanOf(many(3, 0))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other node says when it was heard of", func() error {
		if h, err := a.Host(t.Context(), m.id); err != nil || time.Since(h.Seen) > time.Hour {
			return fmt.Errorf("%+v, %v", h.HostRow, err)
		}
		return nil
	})

	if n, err := a.Trigger(t.Context(), owner, agentproto.ActionScan, []agentproto.HostID{m.id}, ""); n != 1 || err != nil {
		t.Fatalf("Trigger = %d, %v", n, err)
	}
	var cmd agentproto.Command
	if err := json.Unmarshal(next(t, events, "command").Data, &cmd); err != nil || cmd.Action != agentproto.ActionScan || cmd.By != "maelle" {
		t.Fatalf("the command is %+v, %v", cmd, err)
	}
	done := agentproto.CommandResult{ID: cmd.ID, State: agentproto.CommandDone, Detail: "Found 3 updates.", At: time.Now()}
	if err := m.Results(t.Context(), agentproto.Results{Protocol: 1, Commands: []agentproto.CommandResult{done}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the outcome is known where the command was given", func() error {
		h, err := a.Host(t.Context(), m.id)
		if err != nil || len(h.Commands) != 1 || h.Commands[0].State != "done" || h.Commands[0].Detail != done.Detail {
			return fmt.Errorf("%+v, %v", h.Commands, err)
		}
		return nil
	})

	if _, err := a.PutPackage(t.Context(), owner, "baseline", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{
		{Verb: rules.Allow, Kind: rules.BySeverity, Value: "Critical"},
	}}); err != nil {
		t.Fatal(err)
	}
	next(t, events, "policy")
	if p := m.checkin(t).Policy; p == nil || len(p.Packages) != 1 {
		t.Errorf("the policy after an edit elsewhere is %+v", p)
	}
}

// TestOutcomeBeforeItsCommand delivers what became of a command to a node
// that never heard of the command, because the node where it was given was
// cut off meanwhile. It is acknowledged, so it must not be lost: when the
// command comes, it is done, and nobody is sent it again.
func TestOutcomeBeforeItsCommand(t *testing.T) {
	a, wa := behind(t, "rns-01")
	b, wb := behind(t, "brs-01")
	b.joinTo(t, a)
	m := a.enrol(t, 1, a.enrolToken(t, 1))
	m.checkin(t)
	knows(t, b, m.id)
	eventually(t, "connected", func() error {
		if r := a.reach(t, "brs-01"); r != "direct" {
			return fmt.Errorf("it is %s", r)
		}
		return nil
	})
	wa.cut(true)
	wb.cut(true)
	if _, err := a.Trigger(t.Context(), owner, agentproto.ActionInstall, []agentproto.HostID{m.id}, ""); err != nil {
		t.Fatal(err)
	}
	list := m.checkin(t).Commands
	if len(list) != 1 {
		t.Fatalf("the commands are %+v", list)
	}
	m.connect(t, b.URL()) // a is away now; the host goes to the other node
	if err := m.Results(t.Context(), agentproto.Results{Protocol: 1, Commands: []agentproto.CommandResult{{ID: list[0].ID, State: agentproto.CommandDone, Detail: "Installed 2.", At: time.Now()}}}); err != nil {
		t.Fatal(err)
	}
	wa.cut(false)
	wb.cut(false)
	for _, s := range []*site{a, b} {
		eventually(t, s.NodeName()+" knows how it ended", func() error {
			h, err := s.Host(t.Context(), m.id)
			if err != nil || len(h.Commands) != 1 || h.Commands[0].State != "done" || h.Commands[0].Action != agentproto.ActionInstall {
				return fmt.Errorf("%+v, %v", h.Commands, err)
			}
			return nil
		})
	}
	if again := m.checkin(t).Commands; len(again) != 0 {
		t.Errorf("a done command is sent again: %+v", again)
	}
}
