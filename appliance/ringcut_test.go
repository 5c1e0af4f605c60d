package appliance_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// ringed gives the package a ring that one host fulfils, on node s.
func (s *site) ringed(t *testing.T) (*machine, agentproto.Update) {
	t.Helper()
	_, err := s.PutGroup(t.Context(), owner, "all", appliance.GroupEdit{Description: "Every host.", Accepts: []rules.Maturity{rules.Dev, rules.Preprod, rules.Prod}})
	must(t, err)
	m := s.enrol(t, 1, s.enrolToken(t, 1))
	m.checkin(t)
	u := agentproto.Update{ID: "20000000-0000-4000-8000-000000000001", Revision: 200, Title: "An update", KBs: []string{"5000001"}, Severity: "Critical"}
	must(t, s.SetRing(t.Context(), owner, "baseline", appliance.Ring{Days: 3, Hosts: 1, Percent: 0}))
	s.tries(t, m, u, 0)
	return m, u
}

func (s *site) maturity(t *testing.T) rules.Maturity {
	t.Helper()
	d, err := s.Package(t.Context(), "baseline")
	must(t, err)
	return d.Maturity
}

var ringPackage = appliance.PackageEdit{Maturity: rules.Dev, Groups: []string{"all"}, Lines: []rules.Line{kbLine(rules.Allow, "5000001")}}

// TestARingAcrossACut has one side of a cut take two steps, and the other,
// which knows of neither, take the first of them later. That one holds when
// they meet; with the next turn of any node the package is PROD again, once,
// and stays what a person makes of it then.
func TestARingAcrossACut(t *testing.T) {
	a, wa := behind(t, "rns-01")
	b, wb := behind(t, "brs-01")
	b.joinTo(t, a)
	_, err := a.PutPackage(t.Context(), owner, "baseline", ringPackage)
	must(t, err)
	m, u := a.ringed(t)
	b.heardInstalled(t, 1)
	wa.cut(true)
	wb.cut(true)
	later := time.Now().Add(4 * 24 * time.Hour)
	eventually(t, "the first step", func() error {
		must(t, a.PromoteDue(t.Context(), later))
		if got := a.maturity(t); got != rules.Preprod {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
	a.tries(t, m, u, 0)
	must(t, a.PromoteDue(t.Context(), later))
	if got := a.maturity(t); got != rules.Prod {
		t.Fatalf("after two steps it is %s: %s", got, a.ring(t).Text)
	}
	eventually(t, "the other side takes the first", func() error {
		must(t, b.PromoteDue(t.Context(), later))
		if got := b.maturity(t); got != rules.Preprod {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
	wa.cut(false)
	wb.cut(false)
	eventually(t, "both are the same", func() error {
		if x, y := a.maturity(t), b.maturity(t); x != y {
			return fmt.Errorf("%s and %s", x, y)
		}
		return nil
	})
	eventually(t, "the second step is taken again", func() error {
		for _, s := range []*site{a, b} {
			must(t, s.PromoteDue(t.Context(), time.Now()))
		}
		if x, y := a.maturity(t), b.maturity(t); x != rules.Prod || y != rules.Prod {
			return fmt.Errorf("%s and %s", x, y)
		}
		return nil
	})
	back := ringPackage
	back.Maturity = rules.Preprod
	_, err = a.PutPackage(t.Context(), owner, "baseline", back)
	must(t, err)
	b.hears(t, rules.Preprod)
	for _, s := range []*site{a, b} {
		must(t, s.PromoteDue(t.Context(), time.Now()))
		if got := s.maturity(t); got != rules.Preprod {
			t.Errorf("a person took it back to PREPROD, and it is %s", got)
		}
	}
}

// TestAPauseAcrossACut has a person pause a ring on one side of a cut while the
// other side takes a step. The step was taken before anybody there could know
// of the pause, so it stays; once they meet nothing more moves on either side
// until the pause ends.
func TestAPauseAcrossACut(t *testing.T) {
	a, wa := behind(t, "rns-01")
	b, wb := behind(t, "brs-01")
	b.joinTo(t, a)
	_, err := a.PutPackage(t.Context(), owner, "baseline", ringPackage)
	must(t, err)
	m, u := a.ringed(t)
	b.heardInstalled(t, 1)
	wa.cut(true)
	wb.cut(true)
	paused := appliance.Ring{Days: 3, Hosts: 1, Percent: 0, Paused: true}
	must(t, a.SetRing(t.Context(), owner, "baseline", paused))
	later := time.Now().Add(4 * 24 * time.Hour)
	must(t, a.PromoteDue(t.Context(), later))
	if got := a.maturity(t); got != rules.Dev {
		t.Fatalf("it is paused, and went to %s", got)
	}
	eventually(t, "the other side takes a step", func() error {
		must(t, b.PromoteDue(t.Context(), later))
		if got := b.maturity(t); got != rules.Preprod {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
	wa.cut(false)
	wb.cut(false)
	a.hears(t, rules.Preprod)
	eventually(t, "the pause is heard", func() error {
		if r := b.ring(t); !r.Paused {
			return fmt.Errorf("%s", r.Text)
		}
		return nil
	})
	a.tries(t, m, u, 0)
	for _, s := range []*site{a, b} {
		must(t, s.PromoteDue(t.Context(), later))
		if got := s.maturity(t); got != rules.Preprod || !strings.Contains(s.ring(t).Text, "Paused by") {
			t.Errorf("%s: it is %s: %s", s.NodeName(), got, s.ring(t).Text)
		}
	}
	paused.Paused = false
	must(t, b.SetRing(t.Context(), owner, "baseline", paused))
	eventually(t, "it goes on", func() error {
		for _, s := range []*site{a, b} {
			must(t, s.PromoteDue(t.Context(), later))
		}
		if got := a.maturity(t); got != rules.Prod {
			return fmt.Errorf("it is %s: %s", got, a.ring(t).Text)
		}
		return nil
	})
}

func (s *site) heardInstalled(t testing.TB, n int) {
	t.Helper()
	eventually(t, "hears of the report", func() error {
		d, err := s.Package(t.Context(), "baseline")
		if err != nil || d.Ring == nil || d.Ring.Installed != n {
			return fmt.Errorf("%+v, %v", d.Ring, err)
		}
		return nil
	})
}

// TestARingCountsFromEveryEdit has days begin anew with a line that goes and a
// group that comes.
func TestARingCountsFromEveryEdit(t *testing.T) {
	for what, change := range map[string]func(*appliance.PackageEdit){
		"a line goes":   func(e *appliance.PackageEdit) { e.Lines = e.Lines[:1] },
		"a group goes":  func(e *appliance.PackageEdit) { e.Groups = e.Groups[:1] },
		"a group comes": func(e *appliance.PackageEdit) { e.Groups = append(e.Groups, "third") },
	} {
		t.Run(what, func(t *testing.T) {
			a := bareNode(t, "rns-01")
			for _, g := range []string{"other", "third"} {
				_, err := a.PutGroup(t.Context(), owner, g, appliance.GroupEdit{Description: "Others."})
				must(t, err)
			}
			e := ringPackage
			e.Groups = []string{"all", "other"}
			e.Lines = []rules.Line{kbLine(rules.Allow, "5000001"), kbLine(rules.Forbid, "5000002")}
			_, err := a.PutPackage(t.Context(), owner, "baseline", e)
			must(t, err)
			a.ringed(t)
			was := a.ring(t).Since
			change(&e)
			_, err = a.PutPackage(t.Context(), owner, "baseline", e)
			must(t, err)
			if now := a.ring(t).Since; !now.After(was) {
				t.Errorf("it counts from %s still: %s", now, a.ring(t).Text)
			}
		})
	}
}

// TestARingTakesOneStep has people promote, edit and pause a package between
// the judgement of its ring and the step: it is not taken.
func TestARingTakesOneStep(t *testing.T) {
	more := ringPackage
	more.Lines = append(more.Lines, kbLine(rules.Forbid, "5000002"))
	for what, tt := range map[string]struct {
		edit func(*testing.T, *site)
		want rules.Maturity
	}{
		"promoted": {func(t *testing.T, a *site) { must(t, a.Promote(t.Context(), owner, "baseline", "it is urgent")) }, rules.Preprod},
		"edited": {func(t *testing.T, a *site) {
			_, err := a.PutPackage(t.Context(), owner, "baseline", more)
			must(t, err)
		}, rules.Dev},
		"paused": {func(t *testing.T, a *site) {
			must(t, a.SetRing(t.Context(), owner, "baseline", appliance.Ring{Days: 3, Hosts: 1, Paused: true}))
		}, rules.Dev},
		"left": {func(*testing.T, *site) {}, rules.Preprod},
	} {
		t.Run(what, func(t *testing.T) {
			a := bareNode(t, "rns-01")
			_, err := a.PutPackage(t.Context(), owner, "baseline", ringPackage)
			must(t, err)
			a.ringed(t)
			take := a.JudgeRing("baseline", time.Now().Add(4*24*time.Hour))
			tt.edit(t, a)
			must(t, take(t.Context()))
			if got := a.maturity(t); got != tt.want {
				t.Errorf("it is %s, want %s", got, tt.want)
			}
			if d, err := a.Package(t.Context(), "baseline"); err != nil || what == "edited" && len(d.Lines) != 2 {
				t.Errorf("the edit is gone: %+v, %v", d.Lines, err)
			}
		})
	}
}
