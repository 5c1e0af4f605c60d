package appliance_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// tries are reports of one update that a package allows by its KB.
func (s *site) tries(t testing.TB, m *machine, u agentproto.Update, code uint32) {
	t.Helper()
	m.report(t, []agentproto.Status{{ID: u.ID, Revision: u.Revision, Installed: code == 0, HResult: code, Tried: time.Now()}}, map[rules.UpdateID]agentproto.Update{u.ID: u})
}

func (s *site) ring(t testing.TB) *appliance.RingState {
	t.Helper()
	d, err := s.Package(t.Context(), "baseline")
	must(t, err)
	if d.Ring == nil {
		t.Fatal("the package has no ring")
	}
	return d.Ring
}

// TestRing has a package wait for hosts, then for days, be held by failures,
// be paused, and go on by itself when nothing is in its way: once for all
// nodes, with its reason.
func TestRing(t *testing.T) {
	t.Parallel()
	a, b := bareNode(t, "rns-01"), bareNode(t, "brs-01")
	b.joinTo(t, a)
	token := a.enrolToken(t, 3)
	var hosts []*machine
	for i := range 3 {
		hosts = append(hosts, a.enrol(t, i+1, token))
		hosts[i].checkin(t)
	}
	u := agentproto.Update{ID: "20000000-0000-4000-8000-000000000001", Revision: 200, Title: "An update", KBs: []string{"5000001"}, Severity: "Critical"}
	_, err := a.PutPackage(t.Context(), owner, "baseline", appliance.PackageEdit{Maturity: rules.Preprod, Groups: []string{"all"}, Lines: []rules.Line{kbLine(rules.Allow, "5000001")}})
	must(t, err)
	_, err = a.PutGroup(t.Context(), owner, "all", appliance.GroupEdit{Description: "Every host.", Accepts: []rules.Maturity{rules.Dev, rules.Preprod, rules.Prod}})
	must(t, err)
	want := appliance.Ring{Days: 3, Hosts: 2, Percent: 30}
	if p := problem(a.SetRing(t.Context(), owner, "baseline", appliance.Ring{Days: 3})); p == nil || p.Field != "hosts" {
		t.Errorf("a ring without hosts: %v", p)
	}
	if p := problem(a.SetRing(t.Context(), appliance.Actor{Name: "yann", Role: appliance.Operator}, "baseline", want)); p == nil || p.Kind != appliance.Denied {
		t.Errorf("by an operator: %v", p)
	}
	must(t, a.SetRing(t.Context(), owner, "baseline", want))
	says := func(words string) {
		t.Helper()
		if r := a.ring(t); !strings.Contains(r.Text, words) {
			t.Errorf("it says %q, want %q", r.Text, words)
		}
	}
	later := time.Now().Add(4 * 24 * time.Hour)
	stays := func(why string) {
		t.Helper()
		for _, s := range []*site{a, b} {
			must(t, s.PromoteDue(t.Context(), later))
		}
		if d, err := a.Package(t.Context(), "baseline"); err != nil || d.Maturity != rules.Preprod {
			t.Fatalf("%s: it is %s, %v", why, d.Maturity, err)
		}
	}
	says("It waits for hosts to go to PROD: 0 hosts of 2 installed, 0 failed.")
	a.tries(t, hosts[0], u, 0)
	says("1 host of 2 installed")
	stays("with one host")
	a.tries(t, hosts[1], u, 0x80070643)
	says("Held: 1 host failed of 2 that tried, 50 %, and at most 30 % may.")
	stays("with half of them failed")
	if st, err := a.Status(t.Context()); err != nil || !slices.ContainsFunc(st.Attention, func(at appliance.Attention) bool {
		return at.Fact == "The promotion of baseline is held." && strings.HasPrefix(at.Cause, "Held: 1 host failed")
	}) {
		t.Errorf("the overview says %+v, %v", st.Attention, err)
	}
	a.tries(t, hosts[1], u, 0)
	says("It goes to PROD on ")
	want.Paused = true
	must(t, a.SetRing(t.Context(), owner, "baseline", want))
	says("Paused by maelle on ")
	b.heardRing(t, want)
	stays("paused")
	want.Paused = false
	must(t, a.SetRing(t.Context(), owner, "baseline", want))
	b.heardRing(t, want)
	must(t, b.PromoteDue(t.Context(), time.Now()))
	must(t, a.PromoteDue(t.Context(), time.Now()))
	if d, err := a.Package(t.Context(), "baseline"); err != nil || d.Maturity != rules.Preprod {
		t.Fatalf("before its days are over it is %s, %v", d.Maturity, err)
	}
	eventually(t, "it is promoted", func() error {
		for _, s := range []*site{a, b} {
			if err := s.PromoteDue(t.Context(), later); err != nil {
				return err
			}
		}
		if d, err := b.Package(t.Context(), "baseline"); err != nil || d.Maturity != rules.Prod {
			return fmt.Errorf("it is %s, %v", d.Maturity, err)
		}
		_, err := a.Package(t.Context(), "baseline")
		return err
	})
	a.hears(t, rules.Prod)
	says("It is PROD")
	list, err := a.Versions(t.Context(), "baseline")
	if err != nil || list[0].Action != "promote to PROD (by itself: 3 days without an edit, 2 hosts installed, 0 failed)" || list[0].By != "node" {
		t.Errorf("the version is %+v, %v", list[0], err)
	}
	n := 0
	for _, v := range list {
		if strings.HasPrefix(v.Action, "promote") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("it was promoted %d times", n)
	}
	must(t, a.DropRing(t.Context(), owner, "baseline"))
	if d, err := a.Package(t.Context(), "baseline"); err != nil || d.Ring != nil {
		t.Errorf("without a ring it is %+v, %v", d.Ring, err)
	}
}

func (s *site) heardRing(t testing.TB, want appliance.Ring) {
	t.Helper()
	eventually(t, s.NodeName()+" hears of the ring", func() error {
		d, err := s.Package(t.Context(), "baseline")
		if err != nil || d.Ring == nil || d.Ring.Ring != want || d.Ring.Installed != 2 {
			return fmt.Errorf("%+v, %v", d.Ring, err)
		}
		return nil
	})
}

func (s *site) hears(t testing.TB, m rules.Maturity) {
	t.Helper()
	eventually(t, s.NodeName()+" hears of the promotion", func() error {
		if d, err := s.Package(t.Context(), "baseline"); err != nil || d.Maturity != m {
			return fmt.Errorf("it is %s, %v", d.Maturity, err)
		}
		return nil
	})
}
