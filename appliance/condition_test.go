package appliance_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// TestConditionsThatAreWrong says what is wrong with them, by field.
func TestConditionsThatAreWrong(t *testing.T) {
	s := start(t, nil)
	for want, c := range map[string]appliance.Condition{
		`"10.35.0" is no network; write it like 10.35.0.0/16`: {Subnet: []string{"10.35.0"}},
		`"new" is no build behind >=`:                         {Build: []string{">= new"}},
		"A value is empty":                                    {Name: []string{"!"}},
		"has control characters":                              {OS: []string{"Windows\x00"}},
		"at most 200":                                         {Domain: []string{strings.Repeat("x", 201)}},
		"only leaves hosts out":                               {Name: []string{"!BRS-*"}, OS: []string{"!*Server*"}},
	} {
		_, err := s.PutGroup(t.Context(), owner, "brest", appliance.GroupEdit{Condition: &c})
		if p, ok := errors.AsType[*appliance.Problem](err); !ok || !strings.HasPrefix(p.Field, "condition") || !strings.Contains(p.Msg, want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
		if _, err := s.PreviewMembers(t.Context(), "brest", appliance.GroupEdit{Condition: &c}); err == nil {
			t.Errorf("%+v is previewed", c)
		}
	}
	if _, err := s.PutGroup(t.Context(), owner, "all", appliance.GroupEdit{Condition: &appliance.Condition{Name: []string{"x"}}}); err == nil {
		t.Error("the group of all hosts takes a condition")
	}
	if list, err := s.Groups(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("stored: %+v, %v", list, err)
	}
}

// TestAConditionChoosesHosts has a host come into a group and leave it as its
// facts change, with what the group gives it.
func TestAConditionChoosesHosts(t *testing.T) {
	s := start(t, nil)
	token := s.enrolToken(t, 2)
	m, other := s.enrol(t, 1, token), s.enrol(t, 2, token)
	c := appliance.Condition{Name: []string{"brs-wks-0001"}, Build: []string{">=10.0.26200"}}
	if _, err := s.PutGroup(t.Context(), owner, "brest", appliance.GroupEdit{Condition: &c, Settings: map[string]string{"install_delay": "7d"}}); err != nil {
		t.Fatal(err)
	}
	delay := func(m *machine) string {
		t.Helper()
		r := m.checkin(t)
		if r.Policy == nil {
			t.Fatal("no policy")
		}
		return r.Policy.Settings.InstallDelay.String()
	}
	if in, out := delay(m), delay(other); in != "168h0m0s" || out != "0s" {
		t.Errorf("the delays are %s and %s", in, out)
	}
	list, err := s.Hosts(t.Context(), appliance.HostQuery{Group: "brest"})
	if err != nil || list.Matching != 1 || list.Hosts[0].ID != m.id || !slices.Equal(list.Hosts[0].Groups, []string{"brest"}) {
		t.Errorf("members are %+v, %v", list.Hosts, err)
	}
	if n, err := s.Trigger(t.Context(), owner, agentproto.ActionScan, nil, "brest"); err != nil || n != 1 {
		t.Errorf("a trigger of the group reaches %d, %v", n, err)
	}
	// An edit that does not speak of the condition leaves it.
	if _, err := s.PutGroup(t.Context(), owner, "brest", appliance.GroupEdit{Description: "The branch", Settings: map[string]string{"install_delay": "7d"}}); err != nil {
		t.Fatal(err)
	}
	if g, err := s.Group(t.Context(), "brest"); err != nil || g.Hosts != 1 || g.Condition.String() != "build >=10.0.26200; name brs-wks-0001" {
		t.Errorf("%+v, %v", g, err)
	}
	m.name = "LOR-WKS-0001"
	if d := delay(m); d != "0s" {
		t.Errorf("renamed, it still waits %s", d)
	}
	if g, err := s.Group(t.Context(), "brest"); err != nil || g.Hosts != 0 {
		t.Errorf("%+v, %v", g, err)
	}
	if err := s.DeleteGroup(t.Context(), owner, "brest"); err != nil {
		t.Fatal(err)
	}
	m.name = "BRS-WKS-0001"
	if d := delay(m); d != "0s" {
		t.Errorf("without the group it waits %s", d)
	}
	if _, err := s.PutGroup(t.Context(), owner, "brest", appliance.GroupEdit{}); err != nil {
		t.Fatal(err)
	}
	if g, _ := s.Group(t.Context(), "brest"); !g.Condition.Empty() {
		t.Errorf("a new group has the condition of one that was deleted: %s", g.Condition)
	}
}

// TestConditionsOnAFleet compares who is in groups with what a plain reading
// of their conditions says, and the preview with what then is.
func TestConditionsOnAFleet(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			a := openFleet(t, appliance.Fleet{Hosts: 200, Updates: 60, Statuses: 6, Seed: seed})
			g := rand.New(rand.NewPCG(seed, 9))
			sizes := map[int]bool{}
			for range 30 {
				name, c := fmt.Sprintf("branch-%02d", g.IntN(4)), randomCondition(g)
				e := appliance.GroupEdit{Condition: &c, Members: some(g, a.hosts, 3)}
				m, err := a.PreviewMembers(t.Context(), name, e)
				if err != nil {
					t.Fatal(c, err)
				}
				before := a.membersNow(name)
				if _, err := a.PutGroup(t.Context(), owner, name, e); err != nil {
					t.Fatal(c, err)
				}
				want := map[agentproto.HostID]bool{}
				for _, id := range e.Members {
					want[id] = true
				}
				for _, id := range a.hosts {
					h, err := a.Host(t.Context(), id)
					if err != nil {
						t.Fatal(err)
					}
					if plainly(c, h.Facts) {
						want[id] = true
					}
				}
				got, joins, leaves := a.membersNow(name), 0, 0
				for _, id := range a.hosts {
					if got[id] != want[id] {
						t.Fatalf("%s: %s is in: %v, want %v", c, id, got[id], want[id])
					}
					if got[id] && !before[id] {
						joins++
					}
					if before[id] && !got[id] {
						leaves++
					}
				}
				if m.Hosts != len(want) || m.Joins != joins || m.Leaves != leaves {
					t.Errorf("%s: previewed %d hosts, %d join, %d leave; it is %d, %d, %d", c, m.Hosts, m.Joins, m.Leaves, len(want), joins, leaves)
				}
				if row, err := a.Group(t.Context(), name); err != nil || row.Hosts != len(want) {
					t.Errorf("%s: the group says %d hosts, it has %d: %v", c, row.Hosts, len(want), err)
				}
				sizes[len(want)] = true
			}
			if len(sizes) < 8 {
				t.Errorf("the groups have sizes %v: the test shows little", sizes)
			}
		})
	}
}

// membersNow are the hosts that the list shows in a group.
func (a *fleet) membersNow(name string) map[agentproto.HostID]bool {
	a.t.Helper()
	in := map[agentproto.HostID]bool{}
	for h := range a.EachHost(a.t.Context(), appliance.HostQuery{Group: name}) {
		in[h.ID] = true
	}
	return in
}

func randomCondition(g *rand.Rand) (c appliance.Condition) {
	one := func(list ...string) string { return list[g.IntN(len(list))] }
	for _, f := range []struct {
		to   *[]string
		from []string
	}{
		{&c.Name, []string{"pc-0000*", "PC-00001?", "*5", "!*7", "pc-000???", "nobody"}}, {&c.OS, []string{"Windows 11*", "*Server*", "!*Server 2019", "windows 10 enterprise ltsc 2021"}},
		{&c.Build, []string{">=10.0.26200.7010", "<10.0.26200.7010", "10.0.26200.70*", "!10.0.26200.7003"}}, {&c.Domain, []string{"corp.*", "other.example"}},
		{&c.Subnet, []string{"10.0.0.0/26", "10.0.0.64/26", "10.0.0.0/8", "!10.0.0.32/27", "fd00::/8"}},
	} {
		for range []int{0, 0, 1, 1, 2, 3}[g.IntN(6)] {
			*f.to = append(*f.to, one(f.from...))
		}
	}
	if strings.Count(c.String(), "!") >= strings.Count(c.String(), ",")+strings.Count(c.String(), ";")+1 || c.Empty() {
		c.Name = append(c.Name, "*")
	}
	return c
}

// plainly is what a condition says, read with other means.
func plainly(c appliance.Condition, f agentproto.Facts) bool {
	match := func(values []string, holds func(string) bool) bool {
		chosen, choosing := false, false
		for _, v := range values {
			rest, not := strings.CutPrefix(v, "!")
			if not && holds(rest) {
				return false
			}
			if !not {
				choosing = true
				chosen = chosen || holds(v)
			}
		}
		return chosen || !choosing
	}
	like := func(text string) func(string) bool {
		return func(p string) bool { ok, _ := path.Match(strings.ToLower(p), strings.ToLower(text)); return ok }
	}
	revision := func(s string) (n int) { fmt.Sscanf(s, "10.0.26200.%d", &n); return n }
	return match(c.Name, like(f.Name)) && match(c.OS, like(f.OS)) && match(c.Domain, like(f.Domain)) && match(c.Build, func(v string) bool {
		if v[0] == '>' {
			return revision(f.Build) >= revision(v[2:])
		}
		if v[0] == '<' {
			return revision(f.Build) < revision(v[1:])
		}
		return like(f.Build)(v)
	}) && match(c.Subnet, func(v string) bool {
		return netip.MustParsePrefix(v).Contains(netip.MustParseAddr(f.Addresses[0]))
	})
}

// TestConditionsMerge has admins on two sides of a cut add to one condition:
// both keep what they added, on every node, and hosts are chosen alike.
func TestConditionsMerge(t *testing.T) {
	a, b, heal := apart(t, appliance.PackageEdit{Maturity: rules.Prod})
	m, other := a.enrol(t, 1, a.enrolToken(t, 1)), b.enrol(t, 2, b.enrolToken(t, 1))
	for s, name := range map[*site]string{a: "*-0001", b: "*-0002"} {
		_, err := s.PutGroup(t.Context(), owner, "brest", appliance.GroupEdit{Condition: &appliance.Condition{Name: []string{name}, OS: []string{"Windows 11*"}}})
		must(t, err)
	}
	heal()
	for _, s := range []*site{a, b} {
		eventually(t, s.NodeName()+" has both", func() error {
			g, err := s.Group(t.Context(), "brest")
			if err != nil || g.Condition.String() != "os Windows 11*; name *-0001, *-0002" || g.Hosts != 2 {
				return fmt.Errorf("%s with %d hosts, %v", g.Condition, g.Hosts, err)
			}
			return nil
		})
		for _, id := range []agentproto.HostID{m.id, other.id} {
			if h, err := s.Host(t.Context(), id); err != nil || !slices.Equal(h.Groups, []string{"brest"}) {
				t.Errorf("on %s host %s is in %v, %v", s.NodeName(), id, h.Groups, err)
			}
		}
	}
}

// TestAConditionBySite has a host come to a node: it is in the groups of the
// node's site from then on.
func TestAConditionBySite(t *testing.T) {
	s := start(t, func(c *appliance.Config) { c.Site = "brest" })
	m := s.enrol(t, 1, s.enrolToken(t, 1))
	_, err := s.PutGroup(t.Context(), owner, "here", appliance.GroupEdit{Condition: &appliance.Condition{Site: []string{"Brest"}}})
	must(t, err)
	_, err = s.PutGroup(t.Context(), owner, "there", appliance.GroupEdit{Condition: &appliance.Condition{Site: []string{"lorient"}}})
	must(t, err)
	m.listen(t, s)
	eventually(t, "the host is in the site's group", func() error {
		h, err := s.Host(t.Context(), m.id)
		if err != nil || !slices.Equal(h.Groups, []string{"here"}) {
			return fmt.Errorf("%v, %v", h.Groups, err)
		}
		return nil
	})
}
