package ui_test

import (
	"net/url"
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
	status, page := a.post("/groups/brest", "/groups/brest", url.Values{"install_delay": {"7d"}, "default_allow": {"False"}, "enabled": {""}})
	if status != 200 || !strings.Contains(page, "Saved. No decision changes on any host.") || !strings.Contains(page, `value="7d"`) || !strings.Contains(page, `<option value="False" selected>`) {
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
