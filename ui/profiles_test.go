package ui_test

import (
	"net/url"
	"strings"
	"testing"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// TestProfilePages makes a settings profile with forms alone: previewed with
// the hosts it changes, saved, in conflict with another one, undone, deleted
// and brought back.
func TestProfilePages(t *testing.T) {
	a := open(t)
	a.setUp()
	first := invented(1, "2026-11 Cumulative Update (KB5000001)", rules.Critical)
	id := a.enrol(1, pc("BRS-WKS-0001"), needs(first), first)
	a.enrol(2, pc("LOR-WKS-0001"), needs(first))
	if _, err := a.node.PutGroup(t.Context(), owner, "brest", appliance.GroupEdit{Condition: &appliance.Condition{Name: []string{"BRS-*"}}}); err != nil {
		t.Fatal(err)
	}
	says := func(what string, status int, page string, code int, want ...string) {
		t.Helper()
		for _, w := range want {
			if status != code || !strings.Contains(page, w) {
				t.Errorf("%s: %d, and without %q:\n%.6000s", what, status, w, page)
			}
		}
	}
	status, page := a.get("/agents/profiles")
	says("the empty list", status, page, 200, "No settings profile yet")

	form := url.Values{"isnew": {"1"}, "name": {"night"}, "description": {"Installs by night"}, "group": {"brest"}, "install_scheduling": {"nightly"}, "allowed_severities": {"Critical"}, "order": {"1"}, "placed": {"1"}}
	status, page = a.post("/agents/profiles/new", "/agents/profiles", form)
	says("a wrong value", status, page, 422, `value="nightly"`, "want a number")
	form.Set("install_scheduling", "1d")
	form.Set("do", "preview")
	status, page = a.post("/agents/profiles/new", "/agents/profiles", form)
	says("the preview", status, page, 200, "1 host gets other settings: allowed_severities none → Critical on 1, install_scheduling none → 1d on 1. 1 host changes: 1 update is newly allowed.",
		"Save, 1 host gets other settings", "By profile night; was none.", "BRS-WKS-0001", `value="1d"`)
	if list, _ := a.node.Profiles(t.Context()); len(list) != 0 {
		t.Errorf("the preview made %+v", list)
	}
	form.Set("do", "save")
	status, page = a.post("/agents/profiles/new", "/agents/profiles", form)
	says("saved", status, page, 200, "night saved. 1 host gets other settings", "Installs by night", `value="Critical"`)
	status, page = a.post("/agents/profiles/new", "/agents/profiles", form)
	says("made twice", status, page, 422, "There is a settings profile night already.")

	status, page = a.get("/hosts/" + string(id))
	says("the host", status, page, 200, `href="/agents/profiles/night"`, "given to group brest")
	status, page = a.get("/groups/brest")
	says("the group", status, page, 200, "Profiles given to it", `href="/agents/profiles/night"`)

	// Another one for the host itself disagrees, and wins.
	other := url.Values{"isnew": {"1"}, "name": {"never"}, "hosts": {"brs-wks-0001\r\n"}, "install_scheduling": {"0"}, "allowed_severities": {"none"}, "do": {"preview"}}
	status, page = a.post("/agents/profiles/new", "/agents/profiles", other)
	says("the other's preview", status, page, 200, "2 values laid over another", "The first holds: it is given to the host itself.", `value="none"`)
	other.Set("do", "save")
	status, page = a.post("/agents/profiles/new", "/agents/profiles", other)
	says("the other", status, page, 200, "never saved.", ">BRS-WKS-0001</textarea>")
	status, page = a.get("/hosts/" + string(id))
	says("the host then", status, page, 200, "given to the host itself", "over 1d of profile night, given to group brest: it is given to the host itself")
	status, page = a.get("/agents/profiles/night")
	says("its page", status, page, 200, "2 values laid over another")
	if _, err := a.node.PutProfile(t.Context(), owner, "late", appliance.ProfileEdit{Groups: []string{"brest"}, Options: map[string]string{"install_scheduling": "9d"}}); err != nil {
		t.Fatal(err)
	}
	status, page = a.post("/agents/profiles/night", "/agents/profiles/night", url.Values{"group": {"brest"}, "install_scheduling": {"1d"}, "order": {"1"}, "placed": {"1"}, "do": {"preview"}})
	says("in conflict", status, page, 200, "1 value laid over another")
	if err := a.node.DeleteProfile(t.Context(), owner, "never"); err != nil {
		t.Fatal(err)
	}
	status, page = a.get("/agents/profiles/night")
	says("in conflict with one given alike", status, page, 200, "Profile late wins over profile night on 1 host.", "The first holds: it is later in the order of profiles.")
	if err := a.node.DeleteProfile(t.Context(), owner, "late"); err != nil {
		t.Fatal(err)
	}
	list, err := a.node.ProfileVersions(t.Context(), "never")
	if err != nil || a.node.RestoreProfile(t.Context(), owner, "never", list[1].ID) != nil {
		t.Fatal(list, err)
	}
	_, page = a.get("/agents/profiles/night")

	// Two admins had the page open: the second one's form comes back.
	old := hidden(t, page, "seen")
	edit := url.Values{"seen": {old}, "group": {"brest"}, "install_scheduling": {"2d"}, "order": {"1"}, "placed": {"1"}}
	status, page = a.post("/agents/profiles/night", "/agents/profiles/night", edit)
	says("the first of two", status, page, 200, "night saved.", "data-undo")
	edit.Set("install_scheduling", "3d")
	status, page = a.post("/agents/profiles/night", "/agents/profiles/night", edit)
	says("the second of two", status, page, 422, "edited night meanwhile", "nothing was saved", `value="3d"`)
	edit.Set("seen", "")
	edit.Set("order", "2")
	status, page = a.post("/agents/profiles/night", "/agents/profiles/night", edit)
	says("moved behind", status, page, 200, "2: after never, laid over all others")

	list, err = a.node.ProfileVersions(t.Context(), "night")
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	status, page = a.get("/agents/profiles/night/versions/" + list[2].ID)
	says("a version", status, page, 200, "Go back to this version", "install_scheduling")
	status, page = a.post("/agents/profiles/night/versions/"+list[2].ID, "/agents/profiles/night/versions/"+list[2].ID, url.Values{})
	says("gone back", status, page, 200, "night is what it was.", `value="1d"`)
	status, page = a.get("/agents/profiles/never/delete")
	says("before it is deleted", status, page, 200, "Delete settings profile never?", "1 host gets other settings", "By profile night; was none.")
	status, page = a.post("/agents/profiles/never/delete", "/agents/profiles/never/delete", url.Values{})
	says("deleted", status, page, 200, "Settings profile never is deleted. 1 host gets other settings", "2 deleted settings profiles")
	status, page = a.get("/find?q=night")
	says("found", status, page, 200, "Settings profile night")
	status, page = a.get("/agents/profiles.csv")
	says("as a file", status, page, 200, "night", "Installs by night")
	for path, code := range map[string]int{"/agents/profiles": 200, "/agents/profiles/new": 200, "/agents/profiles/night": 200, "/agents/profiles/nobody": 404, "/hosts/" + string(id): 200} {
		a.tidy(path, code)
	}
}

// hidden is the value of a hidden field.
func hidden(t *testing.T, page, name string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page, `name="`+name+`" value="`)
	value, _, end := strings.Cut(rest, `"`)
	if !ok || !end {
		t.Fatalf("no field %s in\n%s", name, page)
	}
	return value
}
