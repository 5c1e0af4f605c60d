package appliance_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// TestReviews leaves a node away for seventy days, on which an admin edits and
// a host enrols. It takes a fresh copy then: the host is in the mesh by
// itself, and what the admin meant waits for a decision.
func TestReviews(t *testing.T) {
	a, wa := behind(t, "rns-01")
	b, wb := behind(t, "brs-01")
	c, wc := behind(t, "lor-01")
	b.joinTo(t, a)
	c.joinTo(t, a)
	if _, err := a.PutPackage(t.Context(), owner, "baseline", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}}); err != nil {
		t.Fatal(err)
	}
	b.sees(t, "baseline")
	c.sees(t, "baseline")
	a.stop()
	c.stop()
	must(t, b.AddLines(t.Context(), paul, "baseline", []rules.Line{kbLine(rules.Forbid, "5091157"), kbLine(rules.Allow, "5000000")}))
	m := b.enrol(t, 7, b.enrolToken(t, 1))
	m.checkin(t)
	b.stop()

	later := func(s *site, w *line, name string) *site {
		s = startIn(t, s.dir, nil, "http://127.0.0.1:1", func(cfg *appliance.Config) {
			cfg.Name, cfg.Internet, cfg.Advertise = name, false, []string{w.addr()}
			cfg.Now = func() time.Time { return time.Now().Add(70 * 24 * time.Hour) }
		})
		w.leadTo(s)
		return s
	}
	a, c = later(a, wa, "rns-01"), later(c, wc, "lor-01")
	eventually(t, "the others are together", func() error {
		if r := a.reach(t, "lor-01"); r != "direct" {
			return fmt.Errorf("lor-01 is %s", r)
		}
		return nil
	})
	b = later(b, wb, "brs-01")
	var list []appliance.ReviewRow
	eventually(t, "the changes are kept for review", func() (err error) {
		must(t, b.SortReviews(t.Context()))
		if list, err = b.Reviews(t.Context()); err != nil || len(list) != 2 {
			return fmt.Errorf("%+v, %v", list, err)
		}
		return nil
	})
	eventually(t, "the host is in the mesh by itself", func() error {
		must(t, b.SortReviews(t.Context()))
		_, err := a.Host(t.Context(), m.id)
		return err
	})
	if p, err := b.Package(t.Context(), "baseline"); err != nil || len(p.Lines) != 0 {
		t.Errorf("lines of the long absence are in force: %+v, %v", p, err)
	}
	for _, r := range list {
		if r.Object != "package baseline" || r.By != "paul" || r.Now != "" || r.Text != "forbid KB5091157" && r.Text != "allow KB5000000" {
			t.Errorf("kept: %+v", r)
		}
		must(t, b.Review(t.Context(), owner, r.ID, strings.HasPrefix(r.Text, "forbid")))
	}
	eventually(t, "what was taken is everywhere", func() error {
		p, err := a.Package(t.Context(), "baseline")
		if err != nil || len(p.Lines) != 1 || p.Lines[0].Line != kbLine(rules.Forbid, "5091157") || p.Lines[0].By != "maelle" {
			return fmt.Errorf("%+v, %v", p, err)
		}
		return nil
	})
	if list, err := b.Reviews(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("decided, and still there: %+v, %v", list, err)
	}
	if p := problemOf(t, b.Review(t.Context(), owner, list[0].ID, true)); !strings.Contains(p.Msg, "decided about this change already") {
		t.Error(p)
	}
}
