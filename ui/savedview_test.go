package ui_test

import (
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"wuamesh/appliance"
)

// TestSavedViews keeps a filtered list under a name, goes back to it, replaces
// and deletes it. It is the admin's own.
func TestSavedViews(t *testing.T) {
	a := open(t)
	a.setUp()
	_, page := a.get("/hosts?seen=away&sort=-pending&after=xyz")
	if !strings.Contains(page, `name="query" value="seen=away&amp;sort=-pending"`) {
		t.Fatal("the page offers to save something else than it shows")
	}
	_, page = a.post("/hosts", "/views", url.Values{"page": {"hosts"}, "name": {" Away,  most  work "}, "query": {"sort=-pending&seen=away&after=xyz"}})
	for _, want := range []string{`href="/hosts?seen=away&amp;sort=-pending" aria-current="true">Away, most work</a>`, "The view Away, most work is saved"} {
		if !strings.Contains(page, want) {
			t.Errorf("saved, the page has no %s", want)
		}
	}
	if _, page = a.get("/updates"); strings.Contains(page, "Away, most work") {
		t.Error("a view of the hosts is offered among the updates")
	}
	if status, page := a.post("/hosts", "/views", url.Values{"page": {"audit"}, "name": {"x"}}); status != 422 && status != 400 {
		t.Errorf("a view of a page without: %d\n%.500s", status, page)
	}
	a.post("/hosts", "/views", url.Values{"page": {"hosts"}, "name": {"Away, most work"}, "query": {"seen=online"}})
	me := appliance.Actor{Name: "maelle", Role: appliance.Owner}
	list, err := a.node.SavedViews(t.Context(), me, "")
	if err != nil || len(list) != 1 || list[0].Query != "seen=online" {
		t.Fatalf("saved again under its name: %+v, %v", list, err)
	}

	if err := a.node.PutAdmin(t.Context(), owner, "paul", appliance.Viewer, "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	jar := a.Jar
	a.Jar, _ = cookiejar.New(nil)
	a.post("/login", "/login", url.Values{"name": {"paul"}, "password": {"correct horse battery"}})
	if _, page := a.get("/hosts"); strings.Contains(page, "Away, most work") || !strings.Contains(page, "Save what is shown") {
		t.Error("a viewer sees another's views, or cannot save one")
	}
	if status, _ := a.post("/hosts", "/views/"+list[0].ID+"/delete", url.Values{"back": {"/hosts"}}); status != 404 {
		t.Errorf("deleting another's view: %d", status)
	}
	a.Jar = jar
	if _, page = a.post("/hosts", "/views/"+list[0].ID+"/delete", url.Values{"back": {"/hosts?seen=online"}}); strings.Contains(page, "Away, most work</a>") || !strings.Contains(page, "The view is deleted.") {
		t.Error("it is not deleted")
	}
}
