package ui_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// TestFind types what an admin has at hand into the one box of every page.
func TestFind(t *testing.T) {
	a := open(t)
	a.setUp()
	first, second, third := invented(1, "2026-11 Cumulative Update for Windows 11 (KB5000001)", rules.Critical), invented(2, "2026-11 Cumulative Update for Windows 10 (KB5000002)", rules.Low), invented(3, "Office brest", rules.Low)
	third.KBs = second.KBs
	id := a.enrol(1, pc("BRS-WKS-0001"), needs(first, second, third), first, second, third)
	a.enrol(2, func() agentproto.Facts { f := pc("BRS-WKS-0002"); f.Addresses = []string{"10.35.1.21"}; return f }(), needs(first))
	if _, err := a.node.PutPackage(t.Context(), owner, "brest-freeze", appliance.PackageEdit{Description: "What the ERP cannot bear", Maturity: rules.Prod, Groups: []string{"all"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.node.PutGroup(t.Context(), owner, "brest", appliance.GroupEdit{}); err != nil {
		t.Fatal(err)
	}
	if _, page := a.get("/overview"); !strings.Contains(page, `action="/find"`) || !strings.Contains(page, `href="/find"`) {
		t.Errorf("no box on the overview:\n%s", page)
	}
	a.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for text, want := range map[string]string{
		"brs-wks-0001": "/hosts/" + string(id), "BRS-WKS-0001.corp.example": "/hosts/" + string(id), "10.35.1.20": "/hosts/" + string(id), string(id): "/hosts/" + string(id),
		"kb5000001": "/updates/" + string(first.ID), "5000001": "/updates/" + string(first.ID), " " + strings.ToUpper(string(first.ID)) + " ": "/updates/" + string(first.ID), "cve-2026-10001": "/updates/" + string(first.ID),
		"BREST-freeze": "/rules/brest-freeze", "brest": "/groups/brest",
	} {
		resp, err := a.Get(a.base + "/find?q=" + url.QueryEscape(text))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != want {
			t.Errorf("%q leads to %d %s, want %s", text, resp.StatusCode, resp.Header.Get("Location"), want)
		}
	}
	for text, want := range map[string][]string{
		"KB5000002":       {"/updates/" + string(second.ID), "/updates/" + string(third.ID)},
		"brs-wks":         {"BRS-WKS-0001", "BRS-WKS-0002"},
		"cumulative 2026": {"Windows 11", "Windows 10"},
		"bres":            {"/rules/brest-freeze", "/groups/brest", "Office brest"},
		"erp":             {"brest-freeze", "reaches 2 hosts"},
		"audit":           {`href="/audit"`},
		"nothing <b>":     {"Nothing is called nothing &lt;b&gt;"},
		"":                {"What are you looking for?"},
	} {
		status, page := a.get("/find?q=" + url.QueryEscape(text))
		for _, w := range want {
			if status != 200 || !strings.Contains(page, w) {
				t.Errorf("%q: %d, without %q:\n%s", text, status, w, page)
			}
		}
	}
	if status, page := a.get("/find?q=" + strings.Repeat("x", 201)); status != 422 && status != 400 || !strings.Contains(page, "at most 200") {
		t.Errorf("a text that is too long: %d\n%s", status, page)
	}
	a.CheckRedirect = nil
	a.post("/overview", "/prefs/keys", url.Values{"keys": {"off"}, "back": {"/hosts"}})
	if _, page := a.get("/hosts"); !strings.Contains(page, `data-keys="off"`) || !strings.Contains(page, "Turn keys of one letter on") {
		t.Errorf("keys of one letter are not off:\n%.600s", page)
	}
}
