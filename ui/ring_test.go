package ui_test

import (
	"net/url"
	"strings"
	"testing"
)

// TestRingOnThePage has a package promoted by itself with forms alone: a wrong
// number comes back as typed, a pause is told, and people get it back.
func TestRingOnThePage(t *testing.T) {
	a := open(t)
	a.setUp()
	a.post("/rules/new", "/rules", url.Values{"isnew": {"1"}, "name": {"pilots"}, "maturity": {"DEV"}, "group": {"all"}, "verb": {"allow"}, "kind": {"kb"}, "value": {"5000001"}, "do": {"save"}})
	_, page := a.get("/rules/pilots")
	if !strings.Contains(page, "Only people promote it.") {
		t.Fatalf("the page does not say who promotes it:\n%s", page)
	}
	_, page = a.post("/rules/pilots", "/rules/pilots/ring", url.Values{"days": {"7"}, "hosts": {"some"}, "percent": {"5"}})
	for _, want := range []string{`value="some"`, "At least 1 host has to have it first"} {
		if !strings.Contains(page, want) {
			t.Errorf("after a wrong number the page has no %s", want)
		}
	}
	_, page = a.post("/rules/pilots", "/rules/pilots/ring", url.Values{"days": {"14"}, "hosts": {"3"}, "percent": {"0"}})
	for _, want := range []string{"It waits for hosts to go to PREPROD: 0 hosts of 3 installed, 0 failed.", `name="days" inputmode="numeric" value="14"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	_, page = a.post("/rules/pilots", "/rules/pilots/ring", url.Values{"days": {"14"}, "hosts": {"3"}, "percent": {"0"}, "paused": {"1"}})
	if !strings.Contains(page, "Paused by ") {
		t.Error("the page does not say that it is paused")
	}
	_, page = a.post("/rules/pilots", "/rules/pilots/ring", url.Values{"do": {"drop"}})
	if !strings.Contains(page, "Only people promote it.") {
		t.Error("the page does not say that people promote it again")
	}
}
