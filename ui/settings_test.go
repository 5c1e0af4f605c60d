package ui_test

import (
	"net/url"
	"strings"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// TestSettings changes what the page offers, each to its effect; what is wrong
// comes back in the form with what was typed.
func TestSettings(t *testing.T) {
	a := open(t)
	a.setUp()
	low := invented(1, "2026-11 Servicing (KB5000001)", rules.Low)
	a.enrolSaying(1, agentproto.Checkin{Facts: pc("BRS-WKS-0001")}, needs(low), low)
	allow := appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{{Verb: rules.Allow, Kind: rules.BySeverity, Value: "Low"}}}
	if _, err := a.node.PutPackage(t.Context(), owner, "baseline", allow); err != nil {
		t.Fatal(err)
	}

	_, page := a.post("/settings", "/settings/node", url.Values{"node": {"lyo-01"}, "site": {"lyon"}, "asked-internet": {"1"}, "proxy": {"http://wua:secret@127.0.0.1:3128"}})
	if !strings.Contains(page, "The node goes by that now.") || !strings.Contains(page, `value="lyo-01"`) || strings.Contains(page, "secret") {
		t.Errorf("after the node's name:\n%s", page)
	}
	if now, _ := a.node.Answers(); now.Site != "lyon" || now.Proxy != "http://wua:secret@127.0.0.1:3128" {
		t.Errorf("the node goes by %+v", now)
	}
	status, page := a.post("/settings", "/settings/node", url.Values{"proxy": {"ftp://nowhere"}})
	if status != 422 || !strings.Contains(page, "ftp://nowhere") {
		t.Errorf("a wrong proxy: %d\n%s", status, page)
	}

	_, page = a.post("/settings", "/settings/storage", url.Values{"asked-cleanup": {"1"}, "placement": {"local"}, "quota": {"500 GB"}, "floor": {"3 GiB"}, "copies": {"4"}})
	want := appliance.Storage{Placement: "local", Quota: 500e9, DiskFloor: 3 << 30, Copies: 4}
	if now, _ := a.node.Storage(); now != want || !strings.Contains(page, `value="500 GB"`) {
		t.Errorf("the folder goes by %+v\n%s", now, page)
	}
	for field, typed := range map[string]string{"quota": "much", "copies": "several", "floor": "-2 GB"} {
		status, page := a.post("/settings", "/settings/storage", url.Values{field: {typed}})
		if now, _ := a.node.Storage(); status != 422 || now != want || !strings.Contains(page, `value="`+typed+`"`) {
			t.Errorf("%s %q: %d, %+v", field, typed, status, now)
		}
	}

	if _, page := a.get("/overview"); !strings.Contains(page, "no allowed Critical or Important update waits") || !strings.Contains(page, "100.0<small>%") {
		t.Errorf("by the rule that holds:\n%s", page)
	}
	form := url.Values{"days": {"3"}, "severity": {"Critical", "Low"}, "do": {"preview"}}
	if _, page := a.post("/settings", "/settings/compliance", form); !strings.Contains(page, "<b>0</b> of 1 host would be compliant; by the rule that holds 1 are.") {
		t.Errorf("the preview is\n%s", page)
	}
	form.Set("do", "save")
	if _, page := a.post("/settings", "/settings/compliance", form); !strings.Contains(page, "Chosen by maelle") {
		t.Errorf("after saving:\n%s", page)
	}
	a.until("/overview", "scanned in the last 3 days, and no allowed Critical or Low update waits", "0.0<small>%")
	if status, page := a.post("/settings", "/settings/compliance", url.Values{"days": {"3"}, "do": {"save"}}); status != 422 || !strings.Contains(page, "At least one severity counts.") {
		t.Errorf("without severities: %d\n%s", status, page)
	}
}
