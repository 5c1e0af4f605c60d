package appliance_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

var paul = appliance.Actor{Name: "paul", Role: appliance.Owner}

// apart runs two nodes of one mesh that know the same, with a package, and
// cuts the line between them; the function heals it.
func apart(t *testing.T, e appliance.PackageEdit) (a, b *site, heal func()) {
	t.Helper()
	a, wa := behind(t, "rns-01")
	b, wb := behind(t, "brs-01")
	b.joinTo(t, a)
	if _, err := a.PutPackage(t.Context(), owner, "baseline", e); err != nil {
		t.Fatal(err)
	}
	b.sees(t, "baseline")
	wa.cut(true)
	wb.cut(true)
	return a, b, func() {
		wa.cut(false)
		wb.cut(false)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func meetingsOf(t testing.TB, s *site, object string) []appliance.MeetingRow {
	t.Helper()
	list, err := s.Meetings(t.Context(), object)
	must(t, err)
	return list
}

// met counts the entries of the audit log about edits that met.
func met(t testing.TB, s *site) (list []appliance.AuditEntry) {
	t.Helper()
	all, _, err := s.Audit(t.Context(), "", appliance.Page{Limit: 500})
	must(t, err)
	return slices.DeleteFunc(all, func(e appliance.AuditEntry) bool { return e.Action != "two edits met" })
}

func kbLine(verb rules.Verb, kb string) rules.Line {
	return rules.Line{Verb: verb, Kind: rules.ByKB, Value: kb}
}

// TestTwoEditsMet has two admins edit one package on two sides of a cut. What
// both wanted alike is no news; what they wanted differently is on every
// node, once, with both authors, until somebody decides.
func TestTwoEditsMet(t *testing.T) {
	edit := appliance.PackageEdit{Maturity: rules.Dev, Groups: []string{"all"}, Lines: []rules.Line{kbLine(rules.Allow, "1000001")}}
	a, b, heal := apart(t, edit)
	edit.Maturity = rules.Preprod
	_, err := a.PutPackage(t.Context(), owner, "baseline", edit)
	must(t, err)
	time.Sleep(5 * time.Millisecond) // who is later is known to the millisecond
	edit.Maturity = rules.Prod
	_, err = b.PutPackage(t.Context(), paul, "baseline", edit)
	must(t, err)
	must(t, a.AddLines(t.Context(), owner, "baseline", []rules.Line{kbLine(rules.Allow, "5091157"), kbLine(rules.Forbid, "5000000")}))
	must(t, b.AddLines(t.Context(), paul, "baseline", []rules.Line{kbLine(rules.Forbid, "5091157"), kbLine(rules.Forbid, "5000000")}))
	heal()
	for _, s := range []*site{a, b} {
		eventually(t, s.NodeName()+" tells of both", func() error {
			if list := meetingsOf(t, s, "package baseline"); len(list) != 2 || len(met(t, s)) != 2 {
				return fmt.Errorf("%+v, %+v", list, met(t, s))
			}
			return nil
		})
	}
	var line, maturity appliance.MeetingRow
	for _, m := range meetingsOf(t, b, "") {
		if m.Both {
			line = m
		} else {
			maturity = m
		}
	}
	if line.Won.Text != "forbid KB5091157" || line.Won.By != "paul" || line.Won.Node != "brs-01" || line.Lost.Text != "allow KB5091157" || line.Lost.By != "maelle" || line.Lost.Node != "rns-01" {
		t.Errorf("of the line: %+v", line)
	}
	if maturity.Won.Text != "maturity PROD" || maturity.Lost.Text != "maturity PREPROD" || maturity.Lost.By != "maelle" {
		t.Errorf("of the maturity: %+v", maturity)
	}
	for _, e := range met(t, a) {
		if !strings.Contains(e.Before, "by maelle on rns-01") || !strings.Contains(e.After, "by paul on brs-01") || !strings.Contains(e.After, "which holds") || e.Object != "package baseline" {
			t.Errorf("the audit log: %+v", e)
		}
	}

	must(t, a.SettleMeeting(t.Context(), owner, maturity.ID, true)) // PREPROD after all
	must(t, b.SettleMeeting(t.Context(), paul, line.ID, false))     // and forbidden alone
	for _, s := range []*site{a, b} {
		eventually(t, s.NodeName()+" has what was decided", func() error {
			p, err := s.Package(t.Context(), "baseline")
			if err != nil || p.Maturity != rules.Preprod || len(p.Lines) != 3 || len(meetingsOf(t, s, "")) > 0 {
				return fmt.Errorf("%+v, %v, %+v", p, err, meetingsOf(t, s, ""))
			}
			return nil
		})
	}
	if p := problemOf(t, b.SettleMeeting(t.Context(), paul, line.ID, true)); !strings.Contains(p.Msg, "looked at these two edits already") {
		t.Error(p)
	}
}

// TestDeletedWhileEdited deletes a package on one side of a cut while
// somebody adds a line to it on the other. The line decides nothing, and is
// not forgotten: it is shown until somebody decides, and can have its package
// back.
func TestDeletedWhileEdited(t *testing.T) {
	a, b, heal := apart(t, appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{kbLine(rules.Allow, "1000001")}})
	must(t, a.DeletePackage(t.Context(), owner, "baseline"))
	must(t, b.AddLines(t.Context(), paul, "baseline", []rules.Line{kbLine(rules.Forbid, "5091157"), kbLine(rules.Allow, "5000000")}))
	heal()
	for _, s := range []*site{a, b} {
		eventually(t, s.NodeName()+" tells of it", func() error {
			if list := meetingsOf(t, s, "package baseline"); len(list) != 2 || list[0].Won.Text != "deleted it" || list[0].Won.By != "maelle" || list[0].Lost.By != "paul" {
				return fmt.Errorf("%+v", list)
			}
			if _, err := s.Package(t.Context(), "baseline"); err == nil {
				return fmt.Errorf("the package is there")
			}
			return nil
		})
	}
	for _, m := range meetingsOf(t, b, "") {
		must(t, b.SettleMeeting(t.Context(), paul, m.ID, m.Lost.Text == "forbid KB5091157"))
	}
	eventually(t, "it is back with the line that was wanted", func() error {
		p, err := a.Package(t.Context(), "baseline")
		if err != nil || p.Maturity != rules.Dev || len(p.Lines) != 1 || p.Lines[0].Line != kbLine(rules.Forbid, "5091157") || len(meetingsOf(t, a, "")) > 0 {
			return fmt.Errorf("%+v, %v", p, err)
		}
		return nil
	})
}
