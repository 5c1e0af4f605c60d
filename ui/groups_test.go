package ui_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"

	"wuamesh/appliance"
)

// TestGroups sets options of a group on its page; what is wrong comes back
// filled in, and members and what the page does not know stay.
func TestGroups(t *testing.T) {
	a := open(t)
	a.setUp()
	if _, err := a.node.PutGroup(t.Context(), appliance.Actor{Name: "rig", Role: appliance.Owner}, "brest", appliance.GroupEdit{Description: "The branch in Brest.", Settings: map[string]string{"filter": "IsInstalled=0"}}); err != nil {
		t.Fatal(err)
	}
	if _, page := a.get("/groups"); !strings.Contains(page, `href="/groups/brest"`) || !strings.Contains(page, `href="/groups/all"`) {
		t.Errorf("the list shows\n%s", page)
	}
	status, page := a.post("/groups/brest", "/groups/brest", url.Values{"description": {"The branch in Brest."}, "install_delay": {"7d"}, "default_allow": {"False"}, "enabled": {""}})
	if status != 200 || !strings.Contains(page, "Saved. 0 hosts in the group. No decision changes on any host.") || !strings.Contains(page, `value="7d"`) || !strings.Contains(page, `<option value="False" selected>`) {
		t.Errorf("%d\n%s", status, page)
	}
	g, err := a.node.Group(t.Context(), "brest")
	if err != nil || len(g.Settings) != 3 || g.Settings["filter"] == "" || g.Settings["install_delay"] != "7d" || g.Settings["default_allow"] != "False" || g.Description == "" {
		t.Errorf("%+v, %v", g, err)
	}
	status, page = a.post("/groups/brest", "/groups/brest", url.Values{"install_delay": {"soon"}})
	if status != 422 || !strings.Contains(page, `value="soon"`) || !strings.Contains(page, "want a number") {
		t.Errorf("a wrong value: %d\n%s", status, page)
	}
	if status, _ := a.post("/groups/all", "/groups/all", url.Values{"install_at_shutdown": {"True"}}); status != 200 {
		t.Errorf("the group of all hosts: %d", status)
	}
	if status, _ := a.get("/groups/nobody"); status != 404 {
		t.Errorf("a group that is not there: %d", status)
	}
}

var deletedVersion = regexp.MustCompile(`href="/groups/brest/versions/([^"]+)"`)

// TestAGroupWithACondition is made with forms alone: previewed, saved, changed
// and deleted.
func TestAGroupWithACondition(t *testing.T) {
	a := open(t)
	a.setUp()
	first := invented(1, "2026-11 Cumulative Update (KB5000001)", "Critical")
	a.enrol(1, pc("BRS-WKS-0001"), needs(first), first)
	a.enrol(2, pc("BRS-LAB-0001"), needs(first))
	a.enrol(3, pc("LOR-WKS-0001"), needs(first))
	form := url.Values{"isnew": {"1"}, "name": {"brest"}, "description": {"The branch"}, "if_name": {"BRS-*, !*-lab-*"}, "if_subnet": {"10.35"}, "accepts": {"PREPROD"}}
	if status, page := a.post("/groups/new", "/groups", form); status != 422 || !strings.Contains(page, "is no network; write it like 10.35.0.0/16") || !strings.Contains(page, `value="BRS-*, !*-lab-*"`) {
		t.Errorf("a wrong subnet: %d\n%s", status, page)
	}
	form.Set("if_subnet", "10.35.0.0/16")
	form.Set("do", "preview")
	if status, page := a.post("/groups/new", "/groups", form); status != 200 || !strings.Contains(page, "1 host in the group, 1 new. Not saved yet.") || !strings.Contains(page, "BRS-WKS-0001") || strings.Contains(page, "LOR-WKS-0001") {
		t.Errorf("the preview: %d\n%s", status, page)
	}
	if list, _ := a.node.Groups(t.Context()); len(list) != 1 {
		t.Errorf("the preview made %+v", list)
	}
	form.Set("do", "save")
	form.Set("members", "lor-wks-0001\r\n")
	if status, page := a.post("/groups/new", "/groups", form); status != 200 || !strings.Contains(page, "Saved. 2 hosts in the group, 2 new.") || !strings.Contains(page, ">LOR-WKS-0001</textarea>") || !strings.Contains(page, `value="10.35.0.0/16"`) {
		t.Errorf("saved: %d\n%s", status, page)
	}
	if _, page := a.get("/groups"); !strings.Contains(page, "name !*-lab-*, BRS-*; subnet 10.35.0.0/16, and 1 host given one by one") {
		t.Errorf("the list:\n%s", page)
	}
	if status, page := a.post("/groups/new", "/groups", form); status != 422 || !strings.Contains(page, "There is a group brest already.") {
		t.Errorf("made twice: %d\n%s", status, page)
	}
	edit := url.Values{"members": {"nobody"}}
	if status, page := a.post("/groups/brest", "/groups/brest", edit); status != 422 || !strings.Contains(page, "There is no host") || !strings.Contains(page, ">nobody</textarea>") {
		t.Errorf("a host that is not there: %d\n%s", status, page)
	}
	if status, page := a.post("/groups/brest", "/groups/brest", url.Values{"if_name": {"BRS-*"}}); status != 200 || !strings.Contains(page, "2 hosts in the group, 1 new, 1 gone.") {
		t.Errorf("changed: %d\n%s", status, page)
	}
	if status, page := a.post("/groups/brest", "/groups/brest", url.Values{"if_name": {"*"}, "seen": {"1"}}); status != 422 || !strings.Contains(page, "edited brest meanwhile") {
		t.Errorf("an edit of what somebody changed meanwhile: %d\n%s", status, page)
	}
	if _, page := a.get("/groups/brest/delete"); !strings.Contains(page, "What is taken from its 2 hosts") || !strings.Contains(page, "Delete group brest?") {
		t.Errorf("before it is deleted:\n%s", page)
	}
	status, page := a.post("/groups/brest/delete", "/groups/brest/delete", url.Values{})
	if status != 200 || !strings.Contains(page, "Group brest is deleted.") || !strings.Contains(page, "1 deleted group") {
		t.Errorf("deleted: %d\n%s", status, page)
	}
	a.tidy("/groups", 200)
	back := deletedVersion.FindStringSubmatch(page)[1]
	if _, page := a.get("/groups/brest/versions/" + back); !strings.Contains(page, "The group then") || !strings.Contains(page, "name BRS-*") || !strings.Contains(page, "Go back to this version") {
		t.Errorf("the version before it was deleted:\n%s", page)
	}
	a.tidy("/groups/brest/versions/"+back, 200)
	if status, page := a.post("/groups/brest/versions/"+back, "/groups/brest/versions/"+back, url.Values{}); status != 200 || !strings.Contains(page, "brest is what it was.") {
		t.Errorf("brought back: %d\n%s", status, page)
	}
	a.tidy("/groups/new", 200)
	a.tidy("/groups/all", 200)
}
