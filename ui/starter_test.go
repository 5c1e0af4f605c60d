package ui_test

import (
	"net/url"
	"strings"
	"testing"

	"wuamesh/agentproto/rules"
)

// TestBeginningAPackage begins one with a starter, with another package, and
// with a filter of updates where that means the same as lines.
func TestBeginningAPackage(t *testing.T) {
	a := open(t)
	a.setUp()
	u := invented(1, "2026-11 Cumulative Update (KB5000001)", rules.Critical)
	a.enrol(1, pc("BRS-WKS-0001"), needs(u), u)
	if _, page := a.get("/rules/new"); !strings.Contains(page, "/rules/new?like=security") {
		t.Errorf("no starter is offered:\n%s", page)
	}
	for path, want := range map[string][]string{
		"/rules/new?like=security":    {"Security Updates", "Critical Updates", "Definition Updates"},
		"/rules/new?like=no-previews": {"Security Updates", "Update Rollups", "Service Packs"},
		"/rules/new?line=allow+severity+Critical&line=allow+severity+Important": {`value="allow severity Critical"`, `value="allow severity Important"`},
		"/rules/new?line=dance&like=nothing":                                    {"Begin with"},
	} {
		status, page := a.get(path)
		for _, w := range want {
			if status != 200 || !strings.Contains(page, w) {
				t.Errorf("%s: %d, without %q", path, status, w)
			}
		}
	}
	_, page := a.get("/rules/new?like=security")
	form := url.Values{"isnew": {"1"}, "name": {"security"}, "maturity": {"PROD"}, "group": {"all"}, "line": lineField(page), "do": {"save"}}
	if _, page := a.post("/rules/new?like=security", "/rules", form); !strings.Contains(page, "security saved.") {
		t.Fatalf("saving it:\n%s", page)
	}
	if status, page := a.get("/rules/new?copy=security"); status != 200 || len(lineField(page)) != 3 || strings.Contains(page, `name="name" value="security"`) {
		t.Errorf("a copy: %d, lines %q", status, lineField(page))
	}
	if status, _ := a.get("/rules/new?copy=nothing"); status != 404 {
		t.Errorf("a copy of nothing: %d", status)
	}
	for filter, is := range map[string]bool{
		"severity=Critical": true, "severity=Critical&severity=Low": true, "scope=all&severity=Critical&sort=-title": true,
		"severity=Critical&q=x": false, "severity=Critical&product=x": false, "state=PENDING": false, "": false,
	} {
		if _, page := a.get("/updates?" + filter); strings.Contains(page, "Make a rule of it…") != is {
			t.Errorf("of %q a rule can be made: %v", filter, !is)
		}
	}
}

// lineField are the lines in a form.
func lineField(page string) (list []string) {
	for _, part := range strings.Split(page, `name="line" value="`)[1:] {
		v, _, _ := strings.Cut(part, `"`)
		list = append(list, v)
	}
	return list
}
