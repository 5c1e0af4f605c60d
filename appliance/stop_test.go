package appliance_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/microsofttest"
)

// asks gets a file of the folder and returns the status and what was said.
func (s *site) asks(t testing.TB, name string) (int, string) {
	t.Helper()
	resp, err := http.Get(s.FolderURL() + name)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// refuses waits until the node serves the file to nobody, and says why.
func (s *site) refuses(t testing.TB, name string, words ...string) {
	t.Helper()
	eventually(t, s.NodeName()+" refuses "+name, func() error {
		code, said := s.asks(t, name)
		for _, w := range words {
			if code != http.StatusForbidden || !strings.Contains(said, w) {
				return fmt.Errorf("it answers %d: %.300s", code, said)
			}
		}
		return nil
	})
}

// TestEmergencyStop stops on one node an update that packages allow and a host
// of another node waits for: the host hears of it over its stream and may not
// install it, no node serves its file, and undoing it puts all back.
func TestEmergencyStop(t *testing.T) {
	t.Parallel()
	world, nodes := branches(t, 50_000, "hq-01", "brs-01")
	hq, brs := nodes[0], nodes[1]
	list, byID := described(world)
	u, name := list[0], list[0].Files[0].Name
	hq.allow(t)
	m, has := brs.enrol(t, 1, brs.enrolToken(t, 1)), brs.enrol(t, 2, brs.enrolToken(t, 1))
	m.report(t, needs(u), byID)
	has.report(t, []agentproto.Status{{ID: u.ID, Revision: u.Revision, Installed: true}}, byID)
	for _, s := range nodes {
		eventually(t, s.NodeName()+" serves it", s.serves(name))
	}
	m.checkin(t)
	events := m.listen(t, brs)
	eventually(t, "both hosts are known", func() error {
		if d, err := hq.UpdateByID(t.Context(), u.ID); err != nil || d.Hosts.OK != 1 || d.Hosts.Pending != 1 {
			return fmt.Errorf("%+v, %v", d.Hosts, err)
		}
		return nil
	})

	foreseen, err := hq.PreviewStop(t.Context(), u.ID)
	if err != nil || foreseen.Hosts != 1 || foreseen.Forbidden != 1 || foreseen.Stays != 1 {
		t.Errorf("the preview is %+v, %v", foreseen, err)
	}
	if p := problem(hq.Stop(t.Context(), owner, u.ID, " ")); p == nil || p.Field != "reason" {
		t.Errorf("without a reason: %v", p)
	}
	operator := appliance.Actor{Name: "yann", Role: appliance.Operator}
	must(t, hq.Stop(t.Context(), operator, u.ID, "breaks the label printers"))
	next(t, events, "policy")
	r := m.checkin(t)
	if r.Policy == nil || rules.Decide(rules.Update{ID: u.ID, KBs: u.KBs, Severity: u.Severity}, *r.Policy, u.Published.AddDate(1, 0, 0)).Verdict != rules.Forbidden {
		t.Errorf("the policy of the host is %+v", r.Policy)
	}
	if w := brs.state(t, m, u); w.State != rules.Discarded || !strings.Contains(w.Why, "emergency stop") {
		t.Errorf("the host's page says %s, %s", w.State, w.Why)
	}
	for _, s := range nodes {
		s.refuses(t, name, "emergency stop by yann", "breaks the label printers")
		d, err := s.UpdateByID(t.Context(), u.ID)
		if err != nil || d.Stop == nil || d.Stop.Installed != 1 || len(d.OnHosts) != 2 || d.OnHosts[0].Host != has.id {
			t.Errorf("%s shows %+v, %v", s.NodeName(), d.Stop, err)
		}
	}
	if _, err := hq.DownloadUpdates(t.Context(), owner, []rules.UpdateID{u.ID}); problem(err) == nil {
		t.Errorf("it is downloaded: %v", err)
	}

	if p := problem(brs.UndoStop(t.Context(), operator, u.ID)); p == nil || p.Kind != appliance.Denied {
		t.Errorf("an operator undoes it: %v", p)
	}
	must(t, brs.UndoStop(t.Context(), owner, u.ID))
	next(t, events, "policy")
	for _, s := range nodes {
		eventually(t, s.NodeName()+" serves it again", s.serves(name))
	}
	if w := brs.state(t, m, u); w.State != rules.Pending {
		t.Errorf("the host's page says %s, %s", w.State, w.Why)
	}
	if p := problem(hq.UndoStop(t.Context(), owner, u.ID)); p == nil || p.Kind != appliance.Conflict {
		t.Errorf("undone twice: %v", p)
	}
	_, err = hq.PutPackage(t.Context(), owner, rules.EmergencyStop, appliance.PackageEdit{Maturity: rules.Prod})
	if p := problem(err); p == nil || p.Field != "name" {
		t.Errorf("a package of that name: %v", err)
	}
}

// TestAStopEndsADownload stops an update whose file is on its way.
func TestAStopEndsADownload(t *testing.T) {
	t.Parallel()
	g, upstream := newGate(t, 30_000)
	s := startIn(t, t.TempDir(), g.world, upstream, nil)
	list, _ := described(g.world)
	if names := s.wants(t, 1); names[0] != g.name {
		t.Fatalf("it is %s that is held back", g.name)
	}
	<-g.held
	must(t, s.Stop(t.Context(), owner, list[0].ID, "blue screens"))
	k := s.has(t, g.name, status("failed"))
	if !strings.Contains(k.Error, "blue screens") || !k.NextTry.IsZero() {
		t.Errorf("the task is %+v", k)
	}
	s.refuses(t, g.name, "blue screens")
	g.mu.Lock()
	g.open = true
	g.mu.Unlock()
	must(t, s.UndoStop(t.Context(), owner, list[0].ID))
	eventually(t, "it comes after all", s.serves(g.name))
}

// TestAStopWinsACut undoes a stop on one side of a cut while somebody says it
// again on the other: it is stopped afterwards, everywhere.
func TestAStopWinsACut(t *testing.T) {
	t.Parallel()
	a, wa := behind(t, "rns-01")
	b, wb := behind(t, "brs-01")
	b.joinTo(t, a)
	list, byID := described(microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 1000}))
	u := list[0]
	m := a.enrol(t, 1, a.enrolToken(t, 1))
	m.report(t, needs(u), byID)
	must(t, a.Stop(t.Context(), owner, u.ID, "first"))
	stopsOf := func(s *site) (text string) {
		rows, err := s.Stops(t.Context())
		must(t, err)
		for _, r := range rows {
			text += r.By + " " + r.Reason + ";"
		}
		return text
	}
	same := func(want string) {
		t.Helper()
		for _, s := range []*site{a, b} {
			eventually(t, s.NodeName(), func() error {
				if got := stopsOf(s); got != want {
					return fmt.Errorf("the stops are %q, want %q", got, want)
				}
				return nil
			})
		}
	}
	same("maelle first;")
	wa.cut(true)
	wb.cut(true)
	must(t, a.UndoStop(t.Context(), owner, u.ID))
	must(t, b.Stop(t.Context(), paul, u.ID, "again"))
	wa.cut(false)
	wb.cut(false)
	same("paul again;")
	if w := a.state(t, m, u); w.State != rules.Discarded {
		t.Errorf("it is %s", w.State)
	}
	must(t, a.UndoStop(t.Context(), owner, u.ID))
	same("")
}
