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
