package ui_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

var undoForm = regexp.MustCompile(`(?s)action="(/rules/[^"]+/undo)">.*?name="of" value="([^"]+)"`)

// TestUndo takes edits of a package back with the button beside what was said:
// a change, a deletion, and not one that somebody edited after.
func TestUndo(t *testing.T) {
	a := open(t)
	a.setUp()
	undo := func(page string) (action string, form url.Values) {
		t.Helper()
		m := undoForm.FindStringSubmatch(page)
		if m == nil {
			t.Fatalf("the page offers no undo:\n%.2000s", page[max(0, len(page)-2000):])
		}
		return m[1], url.Values{"of": {m[2]}}
	}
	save := func(description string, isnew ...string) string {
		t.Helper()
		_, page := a.post("/rules", "/rules", url.Values{"isnew": isnew, "name": {"pilots"}, "description": {description}, "maturity": {"PROD"}, "group": {"all"}, "line": {"allow severity Critical"}, "do": {"save"}})
		return page
	}
	is := func(want string) {
		t.Helper()
		d, err := a.node.Package(t.Context(), "pilots")
		if err != nil || d.Description != want {
			t.Errorf("the package is described as %q, want %q, %v", d.Description, want, err)
		}
	}
	if page := save("first", "1"); undoForm.MatchString(page) {
		t.Error("making a package is offered to be undone")
	}
	page := save("second")
	is("second")
	action, form := undo(page)
	if page := save("second"); undoForm.MatchString(page) {
		t.Error("saving what is there already is offered to be undone")
	}
	_, page = a.post("/rules/pilots", action, form)
	is("first")
	if !strings.Contains(page, "Undone: pilots is what it was.") {
		t.Error("the page does not say that it was undone")
	}

	action, form = undo(save("third"))
	if _, err := a.node.PutPackage(t.Context(), appliance.Actor{Name: "yann", Role: appliance.Owner}, "pilots", appliance.PackageEdit{Description: "by another", Maturity: rules.Prod}); err != nil {
		t.Fatal(err)
	}
	status, page := a.post("/rules/pilots", action, form)
	is("by another")
	if status != 409 || !strings.Contains(page, "Nothing was undone: yann edited pilots since") {
		t.Errorf("undoing what somebody edited after answers %d\n%.1500s", status, page)
	}

	_, page = a.post("/rules/pilots", "/rules/pilots/delete", url.Values{})
	if _, err := a.node.Package(t.Context(), "pilots"); err == nil {
		t.Fatal("it is not deleted")
	}
	action, form = undo(page)
	a.post("/rules", action, form)
	is("by another")
}
