package appliance_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/appliance"
)

func when(kind appliance.ConditionKind, values ...string) appliance.RepositoryCondition {
	return appliance.RepositoryCondition{Kind: kind, Values: values}
}

func unless(kind appliance.ConditionKind, values ...string) appliance.RepositoryCondition {
	return appliance.RepositoryCondition{Kind: kind, Values: values, Not: true}
}

// TestRepositoryRulesChoose has each kind of condition, and what comes after a
// rule that holds.
func TestRepositoryRulesChoose(t *testing.T) {
	nodes := []appliance.Candidate{
		{Name: "hq", Site: "rennes", Self: true},
		{Name: "brs", Site: "brest", Nets: []string{"10.2.0.0/16"}, Trip: 9 * time.Millisecond},
		{Name: "brt", Site: "brest", Trip: 8 * time.Millisecond},
		{Name: "lor", Site: "lorient", Trip: 7 * time.Millisecond, Away: true},
	}
	rule := func(target string, only bool, list ...appliance.RepositoryCondition) appliance.RepositoryRuleEdit {
		e := appliance.RepositoryRuleEdit{Name: target, Conditions: list, NoFallback: only}
		if slices.ContainsFunc(nodes, func(n appliance.Candidate) bool { return n.Site == target }) {
			e.Site = target
		} else {
			e.Node = target
		}
		return e
	}
	pc := agentproto.Facts{Name: "PC-BRS-07", FQDN: "pc-brs-07.corp.example.org", Domain: "corp.example.org", ADSite: "Quimper", Addresses: []string{"10.2.7.9"}}
	for _, tt := range []struct {
		name   string
		rules  []appliance.RepositoryRuleEdit
		facts  agentproto.Facts
		remote string
		want   string // nodes, | and the rules that hold, ! for no fallback
	}{
		{"none: the nearest", nil, pc, "10.2.7.9:1", "brs brt hq lor |"},
		{"by subnet", []appliance.RepositoryRuleEdit{rule("hq", false, when(appliance.BySubnet, "10.9.0.0/16", "10.2.7.0/24"))}, pc, "10.2.7.9:1", "hq brs brt lor | hq"},
		{"another subnet", []appliance.RepositoryRuleEdit{rule("hq", false, when(appliance.BySubnet, "10.9.0.0/16"))}, pc, "10.2.7.9:1", "brs brt hq lor |"},
		{"not that subnet", []appliance.RepositoryRuleEdit{rule("hq", false, unless(appliance.BySubnet, "10.9.0.0/16"))}, pc, "10.2.7.9:1", "hq brs brt lor | hq"},
		{"by public address", []appliance.RepositoryRuleEdit{rule("lor", false, when(appliance.ByPublicAddress, "192.0.2.0/24"))}, pc, "192.0.2.7:1", "lor brs brt hq | lor"},
		{"its own address is no public one", []appliance.RepositoryRuleEdit{rule("lor", false, when(appliance.ByPublicAddress, "10.2.0.0/16"))}, pc, "192.0.2.7:1", "brs brt hq lor |"},
		{"by domain, in any letters", []appliance.RepositoryRuleEdit{rule("hq", false, when(appliance.ByDomain, "*.example.org"))}, pc, "", "hq brs brt lor | hq"},
		{"by Active Directory's site", []appliance.RepositoryRuleEdit{rule("hq", false, when(appliance.ByADSite, "quimper"))}, pc, "", "hq brs brt lor | hq"},
		{"by name", []appliance.RepositoryRuleEdit{rule("hq", false, when(appliance.ByHostName, "pc-brs-??"))}, pc, "", "hq brs brt lor | hq"},
		{"by full name", []appliance.RepositoryRuleEdit{rule("hq", false, when(appliance.ByHostName, "*.corp.example.org"))}, pc, "", "hq brs brt lor | hq"},
		{"all conditions must hold", []appliance.RepositoryRuleEdit{rule("hq", false, when(appliance.ByHostName, "pc-*"), unless(appliance.ByADSite, "quimper"))}, pc, "", "brs brt hq lor |"},
		{"nothing known is no name", []appliance.RepositoryRuleEdit{rule("hq", false, when(appliance.ByDomain, "*"))}, agentproto.Facts{Name: "x"}, "", "hq brt brs lor |"},
		{"the first that holds decides, the next is the fallback", []appliance.RepositoryRuleEdit{rule("lor", false), rule("hq", false), rule("lor", false)}, pc, "", "lor hq brs brt | lor hq lor"},
		{"no fallback", []appliance.RepositoryRuleEdit{rule("lor", true), rule("hq", false)}, pc, "", "lor | lor !"},
		{"a fallback that has none", []appliance.RepositoryRuleEdit{rule("lor", false), rule("hq", true)}, pc, "", "lor hq | lor hq !"},
		{"a site, its nearest node first", []appliance.RepositoryRuleEdit{rule("brest", true)}, agentproto.Facts{}, "", "brt brs | brest !"},
		{"a node that is gone is passed over", []appliance.RepositoryRuleEdit{rule("gone", true), rule("hq", false)}, pc, "", "hq brs brt lor | hq"},
		{"a kind of a later version holds for nobody", []appliance.RepositoryRuleEdit{rule("hq", false, when("moon", "full")), rule("lor", false, unless("moon", "full"))}, pc, "", "brs brt hq lor |"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			names, used, only := appliance.ChooseNodes(tt.rules, nodes, tt.facts, tt.remote)
			got := strings.TrimSpace(strings.Join(names, " ") + " | " + strings.Join(used, " "))
			if only {
				got += " !"
			}
			if got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

// TestRepositoryRulesAreChecked sends what no rule may be.
func TestRepositoryRulesAreChecked(t *testing.T) {
	s, _ := behind(t, "hq-01")
	if _, err := s.MakeRepositoryRule(t.Context(), owner, appliance.RepositoryRuleEdit{Name: "x", Node: "hq-01"}); err == nil || !strings.Contains(err.Error(), "no node \"hq-01\" in the mesh") {
		t.Errorf("a rule of a node in no mesh: %v", err)
	}
	s.joinToken(t) // founds one
	good := appliance.RepositoryRuleEdit{Name: "Brest", Site: "HQ-01", Conditions: []appliance.RepositoryCondition{when(appliance.BySubnet, " 10.2.7.9/16", "10.2.0.0/16", "10.3.0.1", "::FFFF:10.4.0.1"), when(appliance.ByHostName, "PC-*")}}
	made, err := s.MakeRepositoryRule(t.Context(), owner, good)
	must(t, err)
	if want := "Hosts in subnet 10.2.0.0/16 or 10.3.0.1 or 10.4.0.1, named pc-* ask site hq-01 first."; made.Text != want {
		t.Errorf("it says %q, want %q", made.Text, want)
	}
	for want, change := range map[string]func(*appliance.RepositoryRuleEdit){
		"needs a name":                     func(e *appliance.RepositoryRuleEdit) { e.Name = " " },
		"at most 80":                       func(e *appliance.RepositoryRuleEdit) { e.Name = strings.Repeat("x", 81) },
		"name one of them":                 func(e *appliance.RepositoryRuleEdit) { e.Node = "hq-01" },
		"a node or a site":                 func(e *appliance.RepositoryRuleEdit) { e.Site = "" },
		"No node of the mesh is at a site": func(e *appliance.RepositoryRuleEdit) { e.Site = "moon" },
		"There is no node \"moon\"":        func(e *appliance.RepositoryRuleEdit) { e.Site, e.Node = "", "moon" },
		"\"10.2.0.0/33\" is no network": func(e *appliance.RepositoryRuleEdit) {
			e.Conditions = []appliance.RepositoryCondition{when(appliance.BySubnet, "10.2.0.0/33")}
		},
		"\"brest\" is no network": func(e *appliance.RepositoryRuleEdit) {
			e.Conditions = []appliance.RepositoryCondition{when(appliance.ByPublicAddress, "brest")}
		},
		"\"[a\" is no pattern": func(e *appliance.RepositoryRuleEdit) {
			e.Conditions = []appliance.RepositoryCondition{when(appliance.ByDomain, "[a")}
		},
		"names nothing": func(e *appliance.RepositoryRuleEdit) {
			e.Conditions = []appliance.RepositoryCondition{when(appliance.ByADSite, " ")}
		},
		"no kind of condition": func(e *appliance.RepositoryRuleEdit) {
			e.Conditions = []appliance.RepositoryCondition{when("moon", "full")}
		},
		"at most 10 conditions": func(e *appliance.RepositoryRuleEdit) { e.Conditions = slices.Repeat(e.Conditions, 6) },
	} {
		e := good
		change(&e)
		if _, err := s.SetRepositoryRule(t.Context(), owner, made.ID, e); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", e, err, want)
		}
	}
	viewer := appliance.Actor{Name: "vera", Role: appliance.Operator}
	if _, err := s.MakeRepositoryRule(t.Context(), viewer, good); err == nil {
		t.Error("an operator may make rules")
	}
	if err := s.DeleteRepositoryRule(t.Context(), owner, "nothing"); err == nil || !strings.Contains(err.Error(), "no repository rule") {
		t.Errorf("deleting what is not there: %v", err)
	}
}

// TestRepositoryRulesOrder moves rules about more often than there is room for
// between two numbers.
func TestRepositoryRulesOrder(t *testing.T) {
	s, _ := behind(t, "hq-01")
	s.joinToken(t)
	var want []string
	for i := range 5 {
		r, err := s.MakeRepositoryRule(t.Context(), owner, appliance.RepositoryRuleEdit{Name: fmt.Sprint(i), Node: "hq-01"})
		must(t, err)
		want = append(want, r.ID)
	}
	for i := range 60 {
		from, to := []int{4, 0, 2}[i%3], []int{1, 3, 1}[i%3]
		id := want[from]
		must(t, s.MoveRepositoryRule(t.Context(), owner, id, to+1))
		want = slices.Insert(slices.Delete(want, from, from+1), to, id)
		list, err := s.RepositoryRules(t.Context())
		must(t, err)
		for n, r := range list {
			if r.ID != want[n] || r.Order != n+1 {
				t.Fatalf("after %d moves the order is %+v, want %v", i+1, list, want)
			}
		}
	}
}

// TestRepositoryRulesMeet edits rules on two sides of a cut: each side makes
// one, one moves a rule that the other changes. Nothing is lost, the order is
// the same on both, and the two edits of one rule are shown.
func TestRepositoryRulesMeet(t *testing.T) {
	a, wa := behind(t, "rns-01")
	b, wb := behind(t, "brs-01")
	b.joinTo(t, a)
	first, err := a.MakeRepositoryRule(t.Context(), owner, appliance.RepositoryRuleEdit{Name: "first", Node: "rns-01"})
	must(t, err)
	_, err = a.MakeRepositoryRule(t.Context(), owner, appliance.RepositoryRuleEdit{Name: "second", Node: "rns-01"})
	must(t, err)
	order := func(s *site) (names []string) {
		list, err := s.RepositoryRules(t.Context())
		must(t, err)
		for _, r := range list {
			names = append(names, r.Name)
		}
		return names
	}
	eventually(t, "both rules", func() error {
		if got := order(b); len(got) != 2 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	wa.cut(true)
	wb.cut(true)
	_, err = a.MakeRepositoryRule(t.Context(), owner, appliance.RepositoryRuleEdit{Name: "from a", Node: "rns-01"})
	must(t, err)
	must(t, a.MoveRepositoryRule(t.Context(), owner, first.ID, 2))
	_, err = b.MakeRepositoryRule(t.Context(), paul, appliance.RepositoryRuleEdit{Name: "from b", Node: "brs-01"})
	must(t, err)
	_, err = b.SetRepositoryRule(t.Context(), paul, first.ID, appliance.RepositoryRuleEdit{Name: "first", Node: "brs-01", NoFallback: true})
	must(t, err)
	wa.cut(false)
	wb.cut(false)
	eventually(t, "all rules, the same everywhere", func() error {
		x, y := order(a), order(b)
		if len(x) != 4 || !slices.Equal(x, y) {
			return fmt.Errorf("%v and %v", x, y)
		}
		return nil
	})
	for _, s := range []*site{a, b} {
		eventually(t, s.NodeName()+" tells of the two edits", func() error {
			list := meetingsOf(t, s, "repository-rule first")
			if len(list) != 1 || !strings.Contains(list[0].Won.Text, "node brs-01 first, and no other") {
				return fmt.Errorf("%+v", list)
			}
			return nil
		})
	}
}

// TestRepositoryRuleMovesAHost has a host connected to headquarters, its
// wapt-get.ini's node. A rule made at the branch sends it there at once, the
// host's page says why, and without fallback the branch's node is all it is
// told; when the rule goes it comes back.
func TestRepositoryRuleMovesAHost(t *testing.T) {
	t.Parallel()
	hq, _ := behind(t, "hq-01")
	branch, _ := behind(t, "brs-01")
	branch.joinTo(t, hq)
	id := runAgent(t, hq, func(f *agentproto.Facts) { f.Domain = "CORP" }, hq.URL())
	knows(t, branch, id)
	hq.streamsTo(t, id, branch)
	e := appliance.RepositoryRuleEdit{Name: "Brest", Node: "brs-01", Conditions: []appliance.RepositoryCondition{when(appliance.ByDomain, "corp")}}
	v, err := branch.PreviewRepositoryRule(t.Context(), "", e)
	must(t, err)
	if v.Meets != 1 || v.Decides != 1 || v.Changes != 1 || len(v.Hosts) != 1 || v.Hosts[0].Then != "brs-01" || v.Hosts[0].Now != "the one in its wapt-get.ini" {
		t.Errorf("the preview says %+v", v)
	}
	made, err := branch.MakeRepositoryRule(t.Context(), owner, e)
	must(t, err)
	branch.streamsTo(t, id, hq)
	for _, s := range []*site{hq, branch} {
		h, err := s.Host(t.Context(), id)
		must(t, err)
		if h.Choice.Rule != made.ID || h.Choice.Nodes[0] != "brs-01" || h.Choice.Only || !strings.Contains(h.Choice.Why, `rule "Brest" chooses brs-01`) {
			t.Errorf("%s says %+v", s.NodeName(), h.Choice)
		}
	}
	e.NoFallback = true
	_, err = hq.SetRepositoryRule(t.Context(), owner, made.ID, e)
	must(t, err)
	eventually(t, "no other node", func() error {
		h, err := branch.Host(t.Context(), id)
		if err != nil || !h.Choice.Only || !slices.Equal(h.Choice.Nodes, []string{"brs-01"}) {
			return fmt.Errorf("%+v, %v", h.Choice, err)
		}
		return nil
	})
	must(t, hq.DeleteRepositoryRule(t.Context(), owner, made.ID))
	hq.streamsTo(t, id, branch)
	list, _, err := hq.Audit(t.Context(), "repository-rule Brest", appliance.Page{})
	must(t, err)
	if len(list) != 3 || list[0].Action != "delete repository rule" || !strings.Contains(list[1].After, "no other node") {
		t.Errorf("the audit log has %+v", list)
	}
}

// TestRepositoryRuleIsToldAtCheckin has no fallback reach a host by the
// protocol: only addresses of the chosen node, and that no other may be asked.
func TestRepositoryRuleIsToldAtCheckin(t *testing.T) {
	hq, _ := behind(t, "hq-01")
	branch, line := behind(t, "brs-01")
	branch.joinTo(t, hq)
	m := hq.enrol(t, 1, hq.enrolToken(t, 1))
	_, err := hq.MakeRepositoryRule(t.Context(), owner, appliance.RepositoryRuleEdit{Name: "Brest", Node: "brs-01", NoFallback: true, Conditions: []appliance.RepositoryCondition{when(appliance.ByPublicAddress, "127.0.0.1")}})
	must(t, err)
	resp := m.checkin(t)
	if !resp.Only || !resp.Placed || !slices.Equal(resp.Nodes, []string{"https://" + line.addr()}) {
		t.Errorf("told %v, only %t, placed %t", resp.Nodes, resp.Only, resp.Placed)
	}
	if _, err := hq.RemoveNode(t.Context(), owner, "brs-01", "stolen"); err != nil {
		t.Fatal(err)
	}
	resp = m.checkin(t)
	list, err := hq.RepositoryRules(t.Context())
	must(t, err)
	if resp.Only || len(resp.Nodes) == 0 || len(list) != 1 || !strings.Contains(list[0].Problem, "was removed from the mesh") || list[0].Hosts != 0 {
		t.Errorf("a rule of a removed node: told %v, only %t; %+v", resp.Nodes, resp.Only, list)
	}
}

// TestRepositoryRulesCount has hosts, rules and nodes change: the page says at
// each step for how many hosts a rule decides.
func TestRepositoryRulesCount(t *testing.T) {
	s := start(t, nil)
	token := s.enrolToken(t, 2)
	s.joinToken(t) // founds a mesh, which has this node
	pc, other := s.enrol(t, 1, token), s.enrol(t, 2, token)
	pc.checkin(t)
	other.checkin(t)
	counts := func(step string, want ...int) {
		t.Helper()
		list, err := s.RepositoryRules(t.Context())
		must(t, err)
		got := []int{}
		for _, r := range list {
			got = append(got, r.Hosts)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v hosts, want %v", step, got, want)
		}
	}
	make := func(pattern string) appliance.RepositoryRule {
		t.Helper()
		r, err := s.MakeRepositoryRule(t.Context(), owner, appliance.RepositoryRuleEdit{Name: pattern, Node: s.NodeName(), Conditions: []appliance.RepositoryCondition{when(appliance.ByHostName, pattern)}})
		must(t, err)
		return r
	}
	one := make(pc.name)
	counts("one by its name", 1)
	all := make("*")
	counts("the other by the second", 1, 1)
	must(t, s.MoveRepositoryRule(t.Context(), owner, all.ID, 1))
	counts("both by the second, now first", 2, 0)
	must(t, s.MoveRepositoryRule(t.Context(), owner, all.ID, 2))
	was := pc.name
	pc.name = "renamed"
	pc.checkin(t)
	counts("the one under another name", 0, 2)
	pc.name = was
	pc.checkin(t)
	counts("and under its own again", 1, 1)
	must(t, s.DeleteRepositoryRule(t.Context(), owner, one.ID))
	counts("its rule gone", 2)
}
