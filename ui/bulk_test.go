package ui_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// TestAllThatMatch acts on more rows than the page has: the number is said
// before, and asked about again when it is another one by then.
func TestAllThatMatch(t *testing.T) {
	a := open(t)
	a.setUp()
	first := invented(1, "2026-11 Cumulative Update (KB5000001)", rules.Critical)
	for n := range 52 {
		a.enrol(n, pc(fmt.Sprintf("BRS-WKS-%04d", n)), needs(first), first)
	}
	a.enrol(99, pc("LOR-WKS-0001"), needs(first))
	commands := func() (n int) {
		for h := range a.node.EachHost(t.Context(), appliance.HostQuery{}) {
			d, err := a.node.Host(t.Context(), h.ID)
			if err != nil {
				t.Fatal(err)
			}
			n += len(d.Commands)
		}
		return n
	}
	if _, page := a.get("/hosts?q=brs"); !strings.Contains(page, "All 52 hosts that match") {
		t.Errorf("the list does not offer all:\n%s", page)
	}
	if _, page := a.get("/hosts?q=lor"); strings.Contains(page, "that match, instead") || !strings.Contains(page, "Ticked hosts") {
		t.Errorf("a list of one page offers all:\n%s", page)
	}
	form := url.Values{"do": {"scan"}, "all": {"52"}, "back": {"/hosts?q=brs"}}
	status, page := a.post("/hosts?q=brs", "/hosts/actions", form)
	if status != 200 || !strings.Contains(page, "<h1>Scan 52 hosts?</h1>") || !strings.Contains(page, "and 32 more") || commands() != 0 {
		t.Errorf("it does not ask: %d, %d commands\n%s", status, commands(), page)
	}
	a.enrol(60, pc("BRS-WKS-0060"), needs(first))
	form.Set("seen", "52")
	if _, page := a.post("/hosts?q=brs", "/hosts/actions", form); !strings.Contains(page, "There are 53 hosts now") || commands() != 0 {
		t.Errorf("it does not say that the number is another one:\n%s", page)
	}
	form.Set("seen", "53")
	if _, page := a.post("/hosts?q=brs", "/hosts/actions", form); !strings.Contains(page, "The scan is queued on 53 hosts") || commands() != 53 {
		t.Errorf("%d commands\n%s", commands(), page)
	}
	two := url.Values{"do": {"install"}, "id": {"00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"}, "back": {"/hosts"}}
	if _, page := a.post("/hosts", "/hosts/actions", two); !strings.Contains(page, "<h1>Install on 2 hosts?</h1>") || commands() != 53 {
		t.Errorf("installing on two is not asked about:\n%s", page)
	}
	two.Set("seen", "2")
	if _, page := a.post("/hosts", "/hosts/actions", two); !strings.Contains(page, "The install is queued on 2 hosts") || commands() != 55 {
		t.Errorf("%d commands\n%s", commands(), page)
	}

	for n := 2; n < 60; n++ {
		u := invented(n, fmt.Sprintf("2026-11 Update %d", n), rules.Low)
		a.enrol(200+n, pc(fmt.Sprintf("X-%d", n)), []agentproto.Status{{ID: u.ID, Revision: u.Revision}}, u)
	}
	if _, page := a.get("/updates?severity=Low"); !strings.Contains(page, "All 58 updates that match") {
		t.Errorf("the list of updates does not offer all:\n%.2000s", page)
	}
	if _, page := a.post("/updates", "/updates/bulk", url.Values{"do": {"forbid"}, "all": {"58"}, "back": {"/updates?severity=Low"}}); !strings.Contains(page, "<h1>Forbid 58 updates</h1>") {
		t.Errorf("forbidding all shows\n%.2000s", page)
	}
	if status, page := a.post("/updates", "/updates/bulk", url.Values{"do": {"download"}, "all": {"57"}, "back": {"/updates?severity=Low"}}); status != 409 || !strings.Contains(page, "58 updates match now; there were 57") {
		t.Errorf("another number: %d\n%.2000s", status, page)
	}
}

// TestHostsIntoAGroup puts all that match a list into a group, looks at what
// that changes, takes two out again, and undoes that.
func TestHostsIntoAGroup(t *testing.T) {
	a := open(t)
	a.setUp()
	first := invented(1, "2026-11 Cumulative Update (KB5000001)", rules.Critical)
	for n := range 52 {
		a.enrol(n, pc(fmt.Sprintf("BRS-WKS-%04d", n)), needs(first), first)
	}
	a.enrol(99, pc("LOR-WKS-0001"), needs(first))
	if _, page := a.post("/hosts", "/hosts/actions", url.Values{"do": {"group"}, "all": {"53"}, "back": {"/hosts"}}); !strings.Contains(page, "There is no group yet") {
		t.Errorf("without a group:\n%s", page)
	}
	if _, err := a.node.PutGroup(t.Context(), owner, "brest", appliance.GroupEdit{Condition: &appliance.Condition{Name: []string{"LOR-*"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.node.PutPackage(t.Context(), owner, "baseline", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"brest"}, Lines: []rules.Line{{Verb: rules.Allow, Kind: rules.BySeverity, Value: "Critical"}}}); err != nil {
		t.Fatal(err)
	}
	form := url.Values{"do": {"group"}, "all": {"52"}, "back": {"/hosts?q=brs"}}
	_, page := a.post("/hosts?q=brs", "/hosts/actions", form)
	for _, want := range []string{"<h1>Groups of 52 hosts</h1>", "and 32 more", `<option value="brest">brest, 1 host</option>`} {
		if !strings.Contains(page, want) {
			t.Errorf("the form has no %q:\n%s", want, page)
		}
	}
	form = url.Values{"do": {"save"}, "all": {"1"}, "back": {"/hosts?q=brs"}, "group": {"brest"}, "seen": {"51"}}
	if _, page := a.post("/hosts?q=brs", "/hosts/groups", form); !strings.Contains(page, "There are 52 hosts now") {
		t.Errorf("another number than was said:\n%s", page)
	}
	form.Set("seen", "52")
	form.Set("do", "preview")
	if _, page := a.post("/hosts?q=brs", "/hosts/groups", form); !strings.Contains(page, "53 hosts in the group, 52 new.") || !strings.Contains(page, "52 hosts change") {
		t.Errorf("the preview:\n%s", page)
	}
	form.Set("do", "save")
	if _, page := a.post("/hosts?q=brs", "/hosts/groups", form); !strings.Contains(page, "brest: 53 hosts in the group, 52 new.") || !strings.Contains(page, "/groups/brest/undo") {
		t.Errorf("saved:\n%s", page)
	}
	out := url.Values{"do": {"save"}, "take": {"1"}, "id": {"00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"}, "back": {"/hosts"}, "group": {"brest"}, "seen": {"2"}}
	if _, page := a.post("/hosts", "/hosts/groups", out); !strings.Contains(page, "brest: 51 hosts in the group, 2 gone.") {
		t.Errorf("two taken out:\n%s", page)
	}
	if _, page := a.post("/hosts", "/hosts/groups", out); !strings.Contains(page, "brest: 51 hosts in the group.") {
		t.Errorf("taken out again:\n%s", page)
	}
	if log, _, err := a.node.Audit(t.Context(), "group brest", appliance.Page{}); err != nil || len(log) != 3 {
		t.Errorf("taking out who is not in it is in the audit log: %+v, %v", log, err)
	}
	list, err := a.node.GroupVersions(t.Context(), "brest")
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	if status, _ := a.post("/hosts", "/groups/brest/undo", url.Values{"of": {list[0].ID}}); status != 200 {
		t.Errorf("undoing answers %d", status)
	}
	if g, err := a.node.Group(t.Context(), "brest"); err != nil || g.Hosts != 53 {
		t.Errorf("undone it has %d hosts, %v", g.Hosts, err)
	}
	if status, page := a.post("/hosts", "/hosts/groups", url.Values{"do": {"save"}, "group": {"brest"}, "seen": {"0"}}); status != 422 || !strings.Contains(page, "No host is chosen.") {
		t.Errorf("without a host: %d\n%s", status, page)
	}
}
