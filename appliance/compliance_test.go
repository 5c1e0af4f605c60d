package appliance_test

import (
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// TestCompliance counts hosts by a rule, by ring and by site; another rule
// does what its preview says.
func TestCompliance(t *testing.T) {
	s := start(t, nil)
	list, byID := described(s.world)
	list[0].Severity, list[1].Severity, list[2].Severity = rules.Critical, rules.Low, rules.Unspecified
	for _, u := range list[:3] {
		byID[u.ID] = u
	}
	s.allow(t)
	token := s.enrolToken(t, 4)
	for n := 1; n <= 3; n++ {
		s.enrol(t, n, token).report(t, needs(list[n-1]), byID)
	}
	s.enrol(t, 4, token) // never scanned
	if _, err := s.PutGroup(t.Context(), owner, "pilots", appliance.GroupEdit{Accepts: []rules.Maturity{rules.Dev}, Members: []agentproto.HostID{hostID(1)}}); err != nil {
		t.Fatal(err)
	}
	status := func() appliance.Status {
		t.Helper()
		st, err := s.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	st := status()
	if c := st.Compliance; c.Hosts != 4 || c.Compliant != 2 || c.Pending+c.Missing != 1 || c.Unscanned != 1 {
		t.Errorf("by the rule there is at first: %+v", c)
	}
	if len(st.Sites) != 2 || st.Sites[0].Name != "(not known)" || st.Sites[0].Hosts != 1 || st.Sites[1].Name != "rns-01" || st.Sites[1].Hosts != 3 || len(st.Rings) != 2 || st.Rings[0].Name != "DEV" || st.Rings[0].Hosts != 1 || st.Rings[0].Compliant != 0 || st.Rings[1].Compliant != 2 {
		t.Errorf("by site %+v, by ring %+v", st.Sites, st.Rings)
	}
	for _, tt := range []struct {
		q    appliance.HostQuery
		want int
	}{
		{appliance.HostQuery{Site: []string{"rns-01"}}, 3},
		{appliance.HostQuery{Site: []string{"rns-01", "(not known)"}}, 4},
		{appliance.HostQuery{Site: []string{"lyon"}}, 0},
		{appliance.HostQuery{Ring: []rules.Maturity{rules.Dev}}, 1},
		{appliance.HostQuery{Ring: []rules.Maturity{rules.Prod}, Stand: []appliance.HostStand{appliance.StandCompliant}}, 2},
		{appliance.HostQuery{Stand: []appliance.HostStand{appliance.StandUnscanned, "other"}}, 1},
		{appliance.HostQuery{Stand: []appliance.HostStand{"other"}}, 0},
	} {
		l, err := s.Hosts(t.Context(), tt.q)
		if err != nil || l.Matching != tt.want {
			t.Errorf("%+v finds %d, %v; want %d", tt.q, l.Matching, err, tt.want)
		}
	}
	l, err := s.Hosts(t.Context(), appliance.HostQuery{Ring: []rules.Maturity{rules.Prod}})
	if err != nil || len(l.Rings) != 2 || l.Rings[0].Count != 1 || l.Rings[1].Count != 3 || len(l.Stands) != 2 || l.Stands[0].Value != "compliant" || l.Stands[0].Count != 2 {
		t.Errorf("of PROD there are rings %+v, stands %+v, %v", l.Rings, l.Stands, err)
	}
	strict := appliance.ComplianceRule{Days: 1, Severities: []rules.Severity{rules.Unspecified, rules.Low, rules.Critical, rules.Low}}
	p, err := s.PreviewCompliance(t.Context(), strict)
	if err != nil || p.Now != st.Compliance || p.Then.Compliant != 0 || p.Then.Hosts != 4 {
		t.Errorf("the preview is %+v, %v", p, err)
	}
	if st := status(); st.Compliance != p.Now {
		t.Errorf("a preview changed what counts: %+v", st.Compliance)
	}
	if err := s.SetComplianceRule(t.Context(), appliance.Actor{Name: "yann", Role: appliance.Operator}, strict); err == nil {
		t.Error("an operator changes it")
	}
	if err := s.SetComplianceRule(t.Context(), owner, strict); err != nil {
		t.Fatal(err)
	}
	if st := status(); st.Compliance != p.Then || st.Rule.By != owner.Name || st.Rule.String() != "scanned in the last 1 day, and no allowed Critical, Low or Unspecified update waits" {
		t.Errorf("after it is %+v by %q", st.Compliance, st.Rule)
	}
	for _, wrong := range []appliance.ComplianceRule{{Days: 0, Severities: strict.Severities}, {Days: 7}, {Days: 7, Severities: []rules.Severity{"Grave"}}, {Days: 366, Severities: strict.Severities}} {
		if err := s.SetComplianceRule(t.Context(), owner, wrong); err == nil {
			t.Errorf("%+v is taken", wrong)
		} else {
			problemOf(t, err)
		}
	}
}

// TestTrend notes the days, the last of each, and keeps them over a restart.
func TestTrend(t *testing.T) {
	s := start(t, nil)
	list, byID := described(s.world)
	if err := s.NoteDay(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if st, err := s.Status(t.Context()); err != nil || len(st.Trend) != 1 || st.Trend[0].Hosts != 0 {
		t.Errorf("without hosts: %+v, %v", st.Trend, err)
	}
	s.allow(t)
	m := s.enrol(t, 1, s.enrolToken(t, 1))
	now := time.Now()
	for _, ago := range []int{100, 40, 2, 1} {
		if ago == 1 {
			m.report(t, needs(list[0]), byID)
		}
		for range 2 {
			if err := s.NoteDay(t.Context(), now.AddDate(0, 0, -ago)); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.stop()
	s = startIn(t, s.dir, s.world, "http://127.0.0.1:1", nil)
	st, err := s.Status(t.Context())
	if err != nil || len(st.Trend) != 3 {
		t.Fatalf("the last days are %+v, %v", st.Trend, err)
	}
	for i, ago := range []int{2, 1, 0} {
		if d := st.Trend[i]; d.Day != now.AddDate(0, 0, -ago).Format(time.DateOnly) || d.Hosts != 1 {
			t.Errorf("%d days ago: %+v", ago, d)
		}
	}
	if err := s.NoteDay(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if n := s.TrendDays(t.Context()); n != 4 { // 100 days ago is forgotten
		t.Errorf("%d days are kept", n)
	}
}
