package appliance_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// TestLastErrorsOfAHost: the node keeps what a host says went wrong, over a start of
// its own, and explains the codes; a host that says nothing of it has none; and what
// is not sound changes nothing.
func TestLastErrorsOfAHost(t *testing.T) {
	s := start(t, nil)
	m := s.enrol(t, 1, s.enrolToken(t, 2))
	old := s.enrol(t, 2, s.enrolToken(t, 2))
	old.checkin(t) // an agent of a version before there were any
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	says := func(list ...agentproto.Failure) error {
		_, err := m.Checkin(t.Context(), agentproto.Checkin{Protocol: 1, Agent: "test", Facts: m.facts(), Settings: rules.DefaultSettings(), Errors: list})
		return err
	}
	memory := agentproto.Failure{At: at, Doing: "scan", HResult: 0x8007000E, Text: "Search: 0x8007000E", Times: 3}
	contact := agentproto.Failure{Doing: "contact with the mesh", Text: "check in: no answer"}
	if err := says(memory, contact); err != nil {
		t.Fatal(err)
	}
	look := func() []agentproto.ExplainedFailure {
		d, err := s.Host(t.Context(), m.id)
		if err != nil {
			t.Fatal(err)
		}
		return d.Errors
	}
	check := func() {
		t.Helper()
		e := look()
		if len(e) != 2 || e[0].Failure != memory || e[1].Failure != contact {
			t.Fatalf("%+v", e)
		}
		if w := e[0].Meaning; w == nil || w.Name != "E_OUTOFMEMORY" || w.Cause == "" || w.Remedy == "" || e[1].Meaning != nil {
			t.Errorf("explained as %+v and %+v", w, e[1].Meaning)
		}
	}
	check()
	bad := contact
	bad.Text = "two\nlines"
	p := (*agentproto.Problem)(nil)
	for name, list := range map[string][]agentproto.Failure{"a line too many": {bad}, "too many": make([]agentproto.Failure, agentproto.MaxFailures+1)} {
		// Our own client does not even send it.
		field := (*agentproto.FieldError)(nil)
		if err := says(list...); !errors.As(err, &field) && !errors.As(err, &p) || !strings.Contains(err.Error(), "errors") {
			t.Errorf("%s: %v", name, err)
		}
	}
	check()
	if d, err := s.Host(t.Context(), old.id); err != nil || len(d.Errors) > 0 {
		t.Errorf("a host that says nothing: %+v, %v", d.Errors, err)
	}
	if err := says(); err != nil || len(look()) > 0 {
		t.Errorf("after it says that there are none: %+v, %v", look(), err)
	}
}
