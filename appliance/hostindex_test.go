package appliance_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/appliance"
)

// TestFindingHostsByText looks for parts of names across capitals and other
// alphabets, ids by their beginning and addresses whole, in every order, and
// again after a host has another name.
func TestFindingHostsByText(t *testing.T) {
	s := start(t, nil)
	token := s.enrolToken(t, 6)
	facts := []agentproto.Facts{
		{Name: "BRS-WKS-0001", FQDN: "brs-wks-0001.Brest.example", Addresses: []string{"10.35.0.1"}},
		{Name: "brs-wks-0002", FQDN: "brs-wks-0002.brest.example", Addresses: []string{"10.35.0.12"}},
		{Name: "ÉCOLE-1", FQDN: "école-1.Rennes.example", Addresses: []string{"fe80::1"}},
		{Name: "LAB", FQDN: ""},
		{Name: "LAB-B", FQDN: "x.example"},
		{Name: "ZZ-0001", FQDN: "zz-0001.example"},
	}
	var machines []*machine
	for i, f := range facts {
		m := s.enrol(t, i+1, token)
		machines = append(machines, m)
		if _, err := m.Checkin(t.Context(), agentproto.Checkin{Protocol: 1, Agent: "1.0", Facts: f}); err != nil {
			t.Fatal(err)
		}
	}
	find := func(text, sort string) (names []string) {
		t.Helper()
		l, err := s.Hosts(t.Context(), appliance.HostQuery{Text: text, Sort: sort})
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range l.Hosts {
			names = append(names, h.Name)
		}
		if l.Matching != len(names) || l.Total != len(facts) {
			t.Errorf("%q: %d matching of %d", text, l.Matching, l.Total)
		}
		return names
	}
	for text, want := range map[string]string{
		"wks": "BRS-WKS-0001 brs-wks-0002", "WKS-0002": "brs-wks-0002", "0001": "BRS-WKS-0001 ZZ-0001", "brest": "BRS-WKS-0001 brs-wks-0002",
		"école": "ÉCOLE-1", "ÉCOLE": "ÉCOLE-1", "lab": "LAB LAB-B", "10.35.0.1": "BRS-WKS-0001", "fe80::1": "ÉCOLE-1", "10.35": "",
		"00000000-0000-4000-8000-000000000004": "LAB", "example\nlab": "", "nobody": "", "x.example": "LAB-B", "e": "BRS-WKS-0001 brs-wks-0002 LAB-B ZZ-0001 ÉCOLE-1",
	} {
		for _, sort := range []string{"name", "-name", "os", "pending", "-missing", "scan"} {
			got := find(text, sort)
			if sort == "-name" {
				slices.Reverse(got)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%q by %s finds %q, want %q", text, sort, got, want)
			}
		}
	}
	q, paged := appliance.HostQuery{Page: appliance.Page{Limit: 1}}, []string(nil)
	for range facts {
		l, err := s.Hosts(t.Context(), q)
		if err != nil || len(l.Hosts) != 1 {
			t.Fatalf("a page of one: %+v, %v", l.Hosts, err)
		}
		paged, q.After = append(paged, l.Hosts[0].Name), l.Next
	}
	if whole := find("", ""); q.After != "" || !slices.Equal(paged, whole) {
		t.Errorf("one by one %q, then %q; at once %q", paged, q.After, whole)
	}
	renamed := facts[3]
	renamed.Name, renamed.FQDN = "WKS-9", "wks-9.example"
	if _, err := machines[3].Checkin(t.Context(), agentproto.Checkin{Protocol: 1, Agent: "1.0", Facts: renamed}); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(find("wks", ""), find("lab", "")); got != "[BRS-WKS-0001 brs-wks-0002 WKS-9] [LAB-B]" {
		t.Errorf("after another name: %s", got)
	}
}
