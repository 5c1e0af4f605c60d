package ui_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

var seenField = regexp.MustCompile(`name="seen" value="([^"]+)"`)

// TestAFileOfRules is looked at, refused because somebody edits what it would
// change, looked at again, and taken in.
func TestAFileOfRules(t *testing.T) {
	a := open(t)
	a.setUp()
	form := url.Values{"format": {"toml"}, "text": {"[package.base]\r\nmaturity = \"PROD\"\r\n[profile.night]\r\ngroups = [\"brest\"]\r\n[group.brest.condition]\r\nname = [\"BRS-*\"]\r\n[profile.night.options]\r\ninstall_delay = \"7d\"\r\n"}, "do": {"preview"}}
	look := func() string {
		t.Helper()
		form.Set("do", "preview")
		status, page := a.post("/rules/import", "/rules/import", form)
		seen := seenField.FindStringSubmatch(page)
		if status != 200 || seen == nil {
			t.Fatalf("%d\n%s", status, page)
		}
		form.Set("seen", seen[1])
		form.Set("do", "import")
		return page
	}
	for _, want := range []string{"1 group new, 1 package new, 1 settings profile new.", "install_delay = 7d", "place 1 of 1", "group brest", "condition name BRS-*"} {
		if page := look(); !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	if _, err := a.node.PutPackage(t.Context(), owner, "base", appliance.PackageEdit{Maturity: rules.Dev}); err != nil {
		t.Fatal(err)
	}
	status, page := a.post("/rules/import", "/rules/import", form)
	if status != 422 || !strings.Contains(page, "The rules were edited since the differences were shown, package base last by") || !strings.Contains(page, "maturity DEV") {
		t.Errorf("what was edited meanwhile: %d\n%s", status, page)
	}
	look()
	if status, page = a.post("/rules/import", "/rules/import", form); status != 200 || !strings.Contains(page, "1 group new, 1 package changed, 1 settings profile new.") {
		t.Errorf("taken in: %d\n%s", status, page)
	}
	form.Set("text", "[profile.night]\noptions = 7")
	if status, page = a.post("/rules/import", "/rules/import", form); status != 422 || !strings.Contains(page, "Line 2: the value cannot be an integer.") {
		t.Errorf("a wrong file: %d\n%s", status, page)
	}
	if status, page = a.get("/rules/export"); status != 200 || !strings.Contains(page, "[profile.\"night\".options]\ninstall_delay = \"7d\"\n") {
		t.Errorf("given out: %d\n%s", status, page)
	}
	for query, want := range map[string]bool{"": false, "?members=1": true} {
		if status, page = a.get("/rules/export" + query); status != 200 || strings.Contains(page, "members = []") != want {
			t.Errorf("given out%s: %d\n%s", query, status, page)
		}
	}
}
