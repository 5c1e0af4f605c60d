package ui_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// TestRepositoryRules is the life of two rules by forms alone: previewed,
// refused, saved, moved, changed and deleted.
func TestRepositoryRules(t *testing.T) {
	a := open(t)
	a.setUp()
	first := invented(1, "2026-11 Cumulative Update (KB5000001)", "Critical")
	brest := pc("BRS-WKS-0001")
	brest.Domain = "corp.example"
	a.enrol(1, brest, needs(first), first)
	a.enrol(2, pc("LOR-WKS-0001"), needs(first))
	const list = "/mesh/repository-rules"
	if _, page := a.get("/mesh"); !strings.Contains(page, `href="`+list+`"`) {
		t.Error("the mesh page does not lead to the rules")
	}
	_, page := a.get(list + "/new")
	m := regexp.MustCompile(`<option value="(node [0-9a-f]{32})"`).FindStringSubmatch(page)
	if m == nil {
		t.Fatalf("no node can be chosen:\n%s", page)
	}
	rule := func(name, do string, conditions ...string) url.Values {
		v := url.Values{"name": {name}, "target": {m[1]}, "do": {do}}
		for i := 0; i < len(conditions); i += 3 {
			v["kind"], v["not"], v["value"] = append(v["kind"], conditions[i]), append(v["not"], conditions[i+1]), append(v["value"], conditions[i+2])
		}
		return v
	}
	status, page := a.post(list+"/new", list, rule("Brest", "save", "subnet", "", "10.2.0.0/99"))
	if status != 422 || !strings.Contains(page, `value="10.2.0.0/99"`) {
		t.Errorf("a wrong subnet: %d\n%s", status, page)
	}
	status, page = a.post(list+"/new", list, rule("Brest", "preview", "host_name", "", "brs-*", "domain", "1", "other.example"))
	if status != 200 || !strings.Contains(page, "BRS-WKS-0001") || strings.Contains(page, "LOR-WKS-0001") {
		t.Errorf("the preview: %d\n%s", status, page)
	}
	if _, page = a.get(list); strings.Contains(page, "Brest") {
		t.Error("a preview is stored")
	}
	status, page = a.post(list+"/new", list, rule("Brest", "save", "host_name", "", "brs-*", "domain", "1", "other.example"))
	if status != 200 || !strings.Contains(page, "Saved. ") || !strings.Contains(page, ">Brest<") {
		t.Fatalf("saving: %d\n%s", status, page)
	}
	if status, page = a.post(list+"/new", list, rule("Everybody", "save")); status != 200 {
		t.Fatalf("a rule for every host: %d\n%s", status, page)
	}
	place := func(name string) int { return strings.Index(page, ">"+name+"<") }
	if place("Brest") > place("Everybody") {
		t.Error("a new rule does not come last")
	}
	path := regexp.MustCompile(list+`/[^"/]+`).FindAllString(page[place("Everybody")-200:place("Everybody")], -1)
	if status, page = a.post(list, path[len(path)-1]+"/move", url.Values{"to": {"1"}}); status != 200 || place("Everybody") > place("Brest") {
		t.Errorf("moved up: %d\n%s", status, page)
	}
	edit := rule("Everybody else", "save")
	edit.Set("id", strings.TrimPrefix(path[len(path)-1], list+"/"))
	if status, page = a.post(path[len(path)-1], list, edit); status != 200 || place("Everybody else") < 0 {
		t.Errorf("renamed: %d\n%s", status, page)
	}
	if status, page = a.post(path[len(path)-1], path[len(path)-1]+"/delete", url.Values{}); status != 200 || place("Everybody else") >= 0 || place("Brest") < 0 {
		t.Errorf("deleted: %d\n%s", status, page)
	}
	if status, _ = a.get(list + "/nothing"); status != 404 {
		t.Errorf("a rule that is not there: %d", status)
	}
}
