package appliance_test

import (
	"testing"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// TestPromote takes a package from DEV to PROD: with each step more hosts get
// it, as the preview said, and the reason of each is kept.
func TestPromote(t *testing.T) {
	t.Parallel()
	s := bareNode(t, "rns-01")
	s.enrol(t, 1, s.enrolToken(t, 1)).checkin(t)
	_, err := s.PutPackage(t.Context(), owner, "baseline", appliance.PackageEdit{Maturity: rules.Dev, Groups: []string{"all"}, Lines: []rules.Line{kbLine(rules.Allow, "5000001")}})
	must(t, err)
	if p := problem(s.Promote(t.Context(), owner, "baseline", "")); p == nil || p.Field != "reason" {
		t.Errorf("without a reason: %v", p)
	}
	if p := problem(s.Promote(t.Context(), appliance.Actor{Name: "yann", Role: appliance.Operator}, "baseline", "good")); p == nil || p.Kind != appliance.Denied {
		t.Errorf("by an operator: %v", p)
	}
	for i, to := range []rules.Maturity{rules.Preprod, rules.Prod} {
		p, err := s.PreviewPromotion(t.Context(), "baseline")
		if err != nil || p.To != to || p.Impact.Reach != i {
			t.Errorf("the preview of step %d is %+v, %v", i, p, err)
		}
		must(t, s.Promote(t.Context(), owner, "baseline", "two weeks without a call"))
		d, err := s.Package(t.Context(), "baseline")
		if err != nil || d.Maturity != to || d.Reach != i {
			t.Errorf("after step %d it is %s and reaches %d, %v", i, d.Maturity, d.Reach, err)
		}
		if list, err := s.Versions(t.Context(), "baseline"); err != nil || list[0].Action != "promote to "+string(to)+" (two weeks without a call)" {
			t.Errorf("the version is %+v, %v", list, err)
		}
	}
	if p := problem(s.Promote(t.Context(), owner, "baseline", "further")); p == nil || p.Kind != appliance.Conflict {
		t.Errorf("beyond PROD: %v", p)
	}
}
