package ui

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"wuamesh/appliance"
)

// findView is what a search found.
type findView struct {
	Text  string
	Found appliance.Found
	Pages []place
}

// A place is a page of the menu.
type place struct{ Name, URL string }

// places are the pages that a search finds by name, in the order of the menu.
var places = []place{
	{"Overview", "/overview"}, {"Windows Updates", "/updates"}, {"Whole catalogue", "/updates?scope=all"}, {"Delete Unused KB", "/clean"}, {"WUA Rules", "/rules"},
	{"New rule package", "/rules/new"}, {"Hosts", "/hosts"}, {"Hosts that wait for approval", "/hosts?seen=waiting"}, {"Groups", "/groups"}, {"Download tasks", "/downloads"},
	{"Limits of lines", limitsPath}, {"Mesh", "/mesh"}, {"Agents", "/agents"}, {"Settings profiles", profilesPath}, {"New settings profile", profilesPath + "/new"}, {"Admins and tokens", "/access"}, {"Audit log", "/audit"}, {"Settings", settingsPath}, {"Compliance", settingsPath + "#compliance"},
}

// find goes straight to what is called precisely so, and lists what has the
// text else.
func (u *UI) find(r *http.Request) (reply, error) {
	v := findView{Text: strings.TrimSpace(r.FormValue("q"))}
	var err error
	if v.Found, err = u.node.Find(r.Context(), v.Text); err != nil {
		return reply{}, err
	}
	switch e := v.Found.Exact; {
	case e.Host != "":
		return goTo("/hosts/" + string(e.Host)), nil
	case e.Update != "":
		return goTo("/updates/" + string(e.Update)), nil
	case e.Package != "":
		return goTo("/rules/" + e.Package), nil
	case e.Group != "":
		return goTo("/groups/" + e.Group), nil
	case e.Profile != "":
		return goTo(profilesPath + "/" + e.Profile), nil
	}
	for _, p := range places {
		if v.Text != "" && strings.Contains(strings.ToLower(p.Name), strings.ToLower(v.Text)) {
			v.Pages = append(v.Pages, p)
		}
	}
	return show(findPage(v)), nil
}

// nothing says that no thing has the text.
func (v findView) nothing() bool {
	return v.Found.Hosts.Matching+v.Found.Updates.Matching+len(v.Found.Packages)+len(v.Found.Groups)+len(v.Found.Profiles)+len(v.Pages) == 0
}

// list is where a whole list of what was found is.
func (v findView) list(path string) string {
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	return path + sep + "q=" + url.QueryEscape(v.Text)
}

// keys turns the keys of one letter off or on again: who speaks to the machine
// or has a tremor types them without meaning to.
func (u *UI) keys(r *http.Request) (reply, error) {
	rep := goTo(local(r.FormValue("back")))
	rep.cookie = cookie(keysCookie, "", -time.Second)
	if r.FormValue("keys") == "off" {
		rep.cookie = cookie(keysCookie, "off", prefLife)
	}
	return rep, nil
}

func shownOf(shown, n int) string {
	if shown < n {
		return num(shown) + " of " + num(n)
	}
	return num(n)
}

func foundOnline(h appliance.HostRow) string {
	if h.Online {
		return "online"
	}
	return "seen " + ago(h.Seen, "never")
}

func onHowMany(u appliance.UpdateRow) string {
	n := u.Hosts.OK + u.Hosts.Missing + u.Hosts.Pending + u.Hosts.Discarded
	if n == 0 {
		return "no host reports it"
	}
	return count(n, "host")
}

// keySheetRows are what keys do; app.js does it.
var keySheetRows = []struct {
	keys []string
	does string
}{
	{[]string{"Ctrl K"}, "Find a host, KB, UpdateID, CVE, group or package"},
	{[]string{"/"}, "Search in this list"},
	{[]string{"f"}, "To the filters"},
	{[]string{"g", "o u r h d m a"}, "Overview, Updates, Rules, Hosts, Downloads, Mesh, Agents"},
	{[]string{"j", "k"}, "Next, previous row"},
	{[]string{"Enter"}, "Open the row"},
	{[]string{"o"}, "Explain the row"},
	{[]string{"x", "Shift x"}, "Select the row, up to the row"},
	{[]string{"Ctrl A"}, "In a table: select the page"},
	{[]string{"a", "b"}, "Allow in…, forbid in…"},
	{[]string{"d", "s"}, "Download, scan"},
	{[]string{"i"}, "To the button Install"},
	{[]string{"[", "]"}, "First page, next page"},
	{[]string{"u"}, "Up one level"},
	{[]string{"z"}, "Undo, where the message offers it"},
	{[]string{"Ctrl Enter"}, "Send the form"},
	{[]string{"Esc"}, "Close, then clear the selection"},
	{[]string{"?"}, "This list"},
}
