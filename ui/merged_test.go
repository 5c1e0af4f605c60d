package ui_test

import (
	"net/url"
	"strings"
	"testing"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// TestMergedWith shows which other packages the hosts of one get, and who wins
// where they disagree: of what is stored, and of what the form says.
func TestMergedWith(t *testing.T) {
	a := open(t)
	a.setUp()
	first, second := invented(1, "A grave one", rules.Critical), invented(2, "A light one", rules.Low)
	a.enrol(1, pc("BRS-WKS-0001"), needs(first, second), first, second)
	a.enrol(2, pc("RNS-WKS-0001"), needs(first))
	put := func(name string, lines ...string) {
		t.Helper()
		e := appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}}
		for _, l := range lines {
			w := strings.Fields(l)
			line, err := rules.ParseLine(w[0], w[1], w[2])
			if err != nil {
				t.Fatal(err)
			}
			e.Lines = append(e.Lines, line)
		}
		if _, err := a.node.PutPackage(t.Context(), owner, name, e); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(page string, want ...string) {
		t.Helper()
		_, panel, _ := strings.Cut(page, `id="merged"`)
		text := strings.Join(strings.Fields(tags.ReplaceAllString(panel, " ")), " ")
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("without %q: %.600s", w, text)
			}
		}
	}
	put("baseline", "allow severity Critical")
	_, page := a.get("/rules/baseline")
	shows(page, "These hosts get no other package.")
	put("erp-freeze", "forbid kb 5000001")
	put("quiet", "allow severity Low")
	_, page = a.get("/rules/baseline")
	shows(page, "2 other packages, 1 disagrees. Forbid wins.", "erp-freeze PROD on 2 hosts with it", "erp-freeze wins on 2 hosts: it forbids 1 update that baseline allows", "A grave one", "quiet PROD on 2 hosts with it")
	_, page = a.get("/rules/erp-freeze")
	shows(page, "erp-freeze wins on 2 hosts: it forbids 1 update that baseline allows")

	form := url.Values{"name": {"baseline"}, "maturity": {"PROD"}, "group": {"all"}, "line": {"allow severity Critical", "forbid severity Low"}, "do": {"preview"}}
	_, page = a.post("/rules/baseline", "/rules", form)
	shows(page, "2 disagree", "baseline wins on 1 host: it forbids 1 update that quiet allows", "A light one")
	_, page = a.get("/rules/baseline")
	shows(page, "1 disagrees")

	if err := a.node.Stop(t.Context(), owner, first.ID, "it breaks printing"); err != nil {
		t.Fatal(err)
	}
	_, page = a.get("/rules/baseline")
	shows(page, "Emergency stops on 2 hosts with it")
	_, page = a.get("/rules/quiet")
	shows(page, "2 other packages, no disagreement.")
	_, page = a.get("/rules/new")
	if strings.Contains(page, "Merged with") {
		t.Error("a package that has no name yet is merged with others")
	}
}
