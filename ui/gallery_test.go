package ui_test

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// galleryDir is where TestGallery writes every page in every state as HTML,
// and with Chromium as screenshots:
//
//	go test ./ui -run TestGallery -gallery /tmp/gallery
var galleryDir = flag.String("gallery", "", "write every page in every state, and screenshots of it, to this `directory`")

var galleryOnly = flag.String("gallery-only", "", "take pictures only of pages whose names have this in them, such as one-rule")

// A gallery is the pages that were looked at.
type gallery struct {
	*admin
	state string
	pages map[string]string
}

// look shows a page in a state, and says what is wrong with it.
func (g *gallery) look(name, path string, status int, want ...string) {
	g.t.Helper()
	g.tidy(path, status)
	_, page := g.get(path)
	g.note(name, page, want...)
	g.compare(name, page, func() string { _, page := g.get(path); return page })
}

// keep keeps a page that is the answer to a form.
func (g *gallery) keep(name, page string, want ...string) {
	g.t.Helper()
	g.note(name, page, want...)
	g.compare(name, page, nil)
}

func (g *gallery) note(name, page string, want ...string) {
	g.t.Helper()
	for _, w := range want {
		if !strings.Contains(page, w) {
			g.t.Errorf("%s, %s: without %q\n%.3000s", g.state, name, w, page)
		}
	}
	g.pages[g.state+"-"+name] = page
}

// lists are the pages that every state is looked at on.
var lists = []string{"overview", "updates", "rules", "hosts", "groups", "downloads", "clean", "mesh", "mesh/limits", "mesh/repository-rules", "agents", "agents/profiles", "access", "audit", "settings"}

// TestGallery looks at every page empty, with one of everything, with many, in
// error, with long names, and as somebody without rights.
func TestGallery(t *testing.T) {
	a := open(t)
	a.setUp()
	g := &gallery{a, "empty", map[string]string{}}
	for page, want := range map[string]string{
		"overview": "", "updates": "", "rules": "No rule package yet", "hosts": "No host here", "groups": "every host", "downloads": "No download here", "clean": "Nothing is unused",
		"mesh": "rns-01", "mesh/limits": "Windows of the week", "agents": "", "agents/profiles": "No settings profile yet", "access": "No token", "audit": "Audit log", "settings": "Everything this node goes by",
	} {
		g.look(strings.ReplaceAll(page, "/", "-"), "/"+page, 200, want)
	}
	g.look("find", "/find", 200, "What are you looking for?")
	g.look("find-nothing", "/find?q=zzz", 200, "Nothing is called zzz")

	g.state = "one"
	first := invented(1, "2026-11 Cumulative Update for Windows 11 Version 25H2 for x64-based Systems (KB5000001)", rules.Critical)
	lately := time.Now().UTC().Add(-40 * time.Minute).Truncate(time.Second)
	id := a.enrolSaying(1, agentproto.Checkin{Facts: pc("BRS-WKS-0001"), Errors: []agentproto.Failure{
		{At: lately, Doing: "scan", HResult: 0x8007000E, Text: "Search: 0x8007000E", Times: 3},
		{Doing: "contact with the mesh", Text: "check in: ask https://rns-01.corp.example: dial tcp 10.35.0.2:443: connection refused"},
	}, Clock: &agentproto.ClockOff{Node: "rns-01", Off: agentproto.Duration(3 * time.Hour)}}, needs(first), first)
	g.edit("baseline", "What everybody gets", "brest")
	g.queued()
	g.profile("office-hours", "What everybody gets", "all")
	g.profile("night", "Installs by night", "brest")
	rule := g.repositoryRule("Laptops of Brest")
	g.everyList()
	g.look("host", "/hosts/"+string(id), 200, "BRS-WKS-0001", "3 hours ahead of that of the node rns-01", "w32tm /resync", "Last errors", "3 times", "0x8007000E (E_OUTOFMEMORY)", "Close programs or give the host more memory.", "connection refused")
	g.look("host-why", "/hosts/"+string(id)+"?why="+string(first.ID), 200, "Decided")
	g.look("update", "/updates/"+string(first.ID), 200, "KB5000001")
	g.look("rule", "/rules/baseline", 200, "What everybody gets")
	g.look("group", "/groups/brest", 200, "BRS-*", "Profiles given to it")
	g.look("group-delete", "/groups/brest/delete", 200, "What is taken from its 1 host")
	groupEdits, err := a.node.GroupVersions(t.Context(), "brest")
	if err != nil || len(groupEdits) == 0 {
		t.Fatal(groupEdits, err)
	}
	g.look("group-version", "/groups/brest/versions/"+groupEdits[0].ID, 200, "The group then")
	g.look("profile", "/agents/profiles/night", 200, "Installs by night", "laid over another")
	night := url.Values{"group": {"brest"}, "hosts": {"BRS-WKS-0001"}, "allowed_severities": {"Critical"}, "install_delay": {"0"}, "install_scheduling": {"12h"}, "do": {"preview"}}
	_, preview := a.post("/agents/profiles/night", "/agents/profiles/night", night)
	g.keep("profile-preview", strings.ReplaceAll(preview, `<details class="more">`, `<details class="more" open>`), "gets other settings", "laid over another")
	g.look("profile-delete", "/agents/profiles/night/delete", 200, "gets other settings")
	edits, err := a.node.ProfileVersions(t.Context(), "night")
	if err != nil || len(edits) == 0 {
		t.Fatal(edits, err)
	}
	g.look("profile-version", "/agents/profiles/night/versions/"+edits[0].ID, 200, "The profile then")
	pilots := appliance.PackageEdit{Maturity: rules.Dev, Groups: []string{"all"}, Lines: []rules.Line{{Verb: rules.Allow, Kind: rules.BySeverity, Value: "Important"}}}
	if _, err := a.node.PutPackage(t.Context(), owner, "pilots", pilots); err != nil {
		t.Fatal(err)
	}
	if err := a.node.SetRing(t.Context(), owner, "pilots", appliance.Ring{Days: 7, Hosts: 5, Percent: 5}); err != nil {
		t.Fatal(err)
	}
	g.look("rule-ring", "/rules/pilots", 200, "It waits for hosts to go to PREPROD")
	g.look("promote", "/rules/pilots/promote", 200, "Promote pilots to PREPROD")
	file := "profile_order = [\"night\", \"office-hours\"]\n[profile.night.options]\ninstall_delay = \"7d\"\n[profile.office-hours]\n[package.freeze]\nmaturity = \"PROD\"\ngroups = [\"brest\"]\nforbid = [\"kb 5000001\"]\n"
	_, preview = a.post("/rules/import", "/rules/import", url.Values{"format": {"toml"}, "text": {file}, "prune": {"1"}, "do": {"preview"}})
	g.keep("rules-import", preview, "Order of settings profiles", "deleted", "install_delay = 7d")
	_, saved := a.post("/rules/pilots", "/rules", url.Values{"name": {"pilots"}, "description": {"Who gets it first"}, "maturity": {"DEV"}, "group": {"all"}, "line": {"allow severity Important"}, "do": {"save"}})
	g.keep("rule-saved", saved, "data-undo")
	_, saved = a.post("/hosts", "/views", url.Values{"page": {"hosts"}, "name": {"Away, most work first"}, "query": {"seen=away&sort=-pending"}})
	g.keep("hosts-view", strings.Replace(saved, `<details class="saved">`, `<details class="saved" open>`, 1), "Away, most work first")
	g.look("repository-rule", "/mesh/repository-rules/"+rule, 200, "lap-*")

	g.state = "error"
	_, page := a.post("/groups/new", "/groups", url.Values{"isnew": {"1"}, "name": {"Bad Name"}, "if_subnet": {"10"}})
	g.keep("group", page, "Bad Name")
	_, page = a.post("/agents/profiles/new", "/agents/profiles", url.Values{"isnew": {"1"}, "name": {"Bad Name"}, "install_delay": {"soon"}})
	g.keep("profile", page, "Bad Name")
	_, page = a.post("/rules/new", "/rules", url.Values{"isnew": {"1"}, "name": {"ERP freeze"}, "maturity": {"PROD"}, "verb": {"forbid"}, "kind": {"kb"}, "value": {"soon"}})
	g.keep("rule", page, "ERP freeze")
	_, page = a.post("/mesh/limits", "/mesh/limits", url.Values{"rate_wan_down": {"fast"}, "windows": {"1"}, "window_0_from": {"07:00"}, "window_0_rate": {"nothing"}})
	g.keep("limits", page, "is no rate")
	g.look("nowhere", "/nowhere", 404, "There is no page")
	g.look("host", "/hosts/nobody", 404, "There is no host")
	g.look("update", "/updates/KB5", 404)

	g.state = "many"
	for n := 2; n < 62; n++ {
		u := invented(n, fmt.Sprintf("2026-%02d Cumulative Update for Windows 11 (KB%d)", 1+n%12, 5000000+n), rules.Severities[n%len(rules.Severities)])
		f := pc(fmt.Sprintf("BRS-WKS-%04d", n))
		f.OS = []string{"Windows 11 Pro 25H2", "Windows 10 Enterprise LTSC 2021", "Windows Server 2025 Datacenter"}[n%3]
		a.enrol(n, f, append(needs(first), agentproto.Status{ID: u.ID, Revision: u.Revision, Installed: n%4 > 0}), u)
	}
	for n := range 12 {
		g.repositoryRule(fmt.Sprintf("Floor %d", n))
		g.profile(fmt.Sprintf("profile-%02d", n), "One of many", "all")
		g.edit(fmt.Sprintf("package-%02d", n), "One of many", fmt.Sprintf("group-%02d", n))
	}
	g.queued()
	g.everyList()
	g.look("all-hosts", "/hosts?q=brs", 200, "All 61 hosts that match")
	g.look("update", "/updates/"+string(first.ID), 200, "61, worst first")

	g.state = "long"
	long := strings.Repeat("Zusammengesetzte-Bezeichnung-", 6)
	u := invented(900, "2026-11 "+strings.Repeat("Kumulatives Aktualisierungspaket für Windows Server ", 8), rules.Important)
	f := pc("WKS-" + strings.Repeat("X", 11))
	f.FQDN, f.OS, f.Model = strings.Repeat("sehr-langer-name.", 8)+"example", "Windows 11 Enterprise mehrere Sitzungen Evaluierung 25H2", long
	failures := make([]agentproto.Failure, agentproto.MaxFailures)
	for i := range failures {
		failures[i] = agentproto.Failure{At: lately, Doing: "install " + u.Title[:200], HResult: 0x800F0922, Text: strings.Repeat("langes-Wort-ohne-Ende", 20), Times: 1000 + i}
	}
	longID := a.enrolSaying(900, agentproto.Checkin{Facts: f, Errors: failures}, needs(u), u)
	g.edit(strings.Repeat("langer-name-", 5), long, strings.Repeat("sehr-lang-", 6))
	g.repositoryRule(strings.Repeat("Laptops und Tablets ", 4)[:79])
	g.profile(strings.Repeat("langer-name-", 5), long, strings.Repeat("sehr-lang-", 6))
	g.look("profile", "/agents/profiles/"+strings.Repeat("langer-name-", 5), 200)
	g.queued()
	g.everyList()
	g.look("host", "/hosts/"+string(longID), 200, f.Name)
	g.look("update", "/updates/"+string(u.ID), 200, "Kumulatives")
	g.look("rule", "/rules/"+strings.Repeat("langer-name-", 5), 200)
	g.look("group", "/groups/"+strings.Repeat("sehr-lang-", 6), 200)

	g.state = "no-rights"
	if err := a.node.PutAdmin(t.Context(), owner, "paul", appliance.Viewer, "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	a.Jar, _ = cookiejar.New(nil)
	if status, page := a.post("/login", "/login", url.Values{"name": {"paul"}, "password": {"correct horse battery"}}); status != 200 || !strings.Contains(page, "Log out paul") {
		t.Fatalf("a viewer cannot log in: %d\n%.500s", status, page)
	}
	g.everyList()
	_, page = a.post("/groups/brest", "/groups/brest", url.Values{"description": {"mine"}})
	g.keep("group-saved", page, "You need the role owner for this; you are viewer.")
	_, page = a.post("/hosts", "/hosts/actions", url.Values{"do": {"scan"}, "id": {string(id)}})
	g.keep("hosts-scan", page, "You need the role operator for this; you are viewer.")

	g.state = "moving"
	full, held := heldBack(t, "0.000001")
	g.admin = held
	for _, page := range []string{"downloads", "mesh"} {
		g.until("/"+page, "rns-01 100 %")
		g.look(page, "/"+page, 200, "Windows Update scan index", "from other nodes")
	}
	g.admin = full
	g.needed(1, "2026-11 Cumulative Update for Windows 11 Version 25H2 for x64-based Systems (KB5000001)")
	g.until("/mesh", "rns-01 has it", "brs-01 does not have it")
	g.look("mesh-needed", "/mesh", 200, "1 file, as nodes said last.")
	g.leftOver()
	if *galleryDir != "" {
		g.write(*galleryDir)
	}
}

// queued waits until the node has looked at what hosts need: nothing is
// MISSING of which the download is queued.
func (g *gallery) queued() {
	g.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		_, page := g.get("/overview")
		if _, tile, ok := strings.Cut(page, ">MISSING</span>"); ok && strings.HasPrefix(strings.TrimSpace(tile), "<b>0</b>") {
			return
		}
	}
	g.t.Error("files that hosts need are never queued")
}

// everyList looks at every list in the state there is.
func (g *gallery) everyList() {
	g.t.Helper()
	for _, page := range lists {
		g.look(strings.ReplaceAll(page, "/", "-"), "/"+page, 200)
	}
}

// repositoryRule makes one and returns its id.
func (g *gallery) repositoryRule(name string) string {
	g.t.Helper()
	made, err := g.node.MakeRepositoryRule(g.t.Context(), owner, appliance.RepositoryRuleEdit{Name: name, Node: "rns-01", NoFallback: true, Conditions: []appliance.RepositoryCondition{
		{Kind: appliance.BySubnet, Values: []string{"10.2.0.0/16", "10.3.0.0/16"}}, {Kind: appliance.ByHostName, Values: []string{"lap-*"}, Not: true},
	}})
	if err != nil {
		g.t.Fatal(err)
	}
	return made.ID
}

// edit makes a package for a group, which is made with it.
func (g *gallery) edit(pkg, description, group string) {
	g.t.Helper()
	c := appliance.Condition{Name: []string{"BRS-*"}, Subnet: []string{"10.35.0.0/16"}}
	if _, err := g.node.PutGroup(g.t.Context(), owner, group, appliance.GroupEdit{Description: description, Condition: &c}); err != nil {
		g.t.Fatal(err)
	}
	e := appliance.PackageEdit{Description: description, Maturity: rules.Prod, Groups: []string{group}, Lines: []rules.Line{{Verb: rules.Allow, Kind: rules.BySeverity, Value: "Critical"}, {Verb: rules.Forbid, Kind: rules.ByKB, Value: "5000007"}}}
	if _, err := g.node.PutPackage(g.t.Context(), owner, pkg, e); err != nil {
		g.t.Fatal(err)
	}
}

// profile makes a settings profile for a group that is there.
func (g *gallery) profile(name, description, group string) {
	g.t.Helper()
	e := appliance.ProfileEdit{Description: description, Groups: []string{group}, Options: map[string]string{"install_delay": fmt.Sprintf("%dd", len(name)), "allowed_severities": "Critical,Important", "install_at_shutdown": "True"}}
	if _, err := g.node.PutProfile(g.t.Context(), owner, name, e); err != nil {
		g.t.Fatal(err)
	}
}

// write keeps the pages, and has Chromium take their pictures from a server
// that answers with nothing else.
func (g *gallery) write(dir string) {
	g.t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		g.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /a/", func(w http.ResponseWriter, r *http.Request) {
		resp, err := g.Get(g.base + r.URL.Path)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
		io.Copy(w, resp.Body)
	})
	mux.HandleFunc("GET /page/{name}/{theme}", func(w http.ResponseWriter, r *http.Request) {
		page := strings.Replace(g.pages[r.PathValue("name")], "data-theme=\"", "data-theme=\""+r.PathValue("theme"), 1)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write([]byte(page))
	})
	mux.HandleFunc("GET /phone/{name}/{theme}", func(w http.ResponseWriter, r *http.Request) { // Chromium's window is wider than a phone
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, `<body style="margin:0"><iframe style="border:0;width:390px;height:844px" src="/page/%s/%s"></iframe>`, r.PathValue("name"), r.PathValue("theme"))
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	for name, page := range g.pages {
		if err := os.WriteFile(filepath.Join(dir, name+".html"), []byte(page), 0o644); err != nil {
			g.t.Fatal(err)
		}
		if !strings.Contains(name, *galleryOnly) {
			continue
		}
		for _, s := range []struct{ suffix, size, as, theme string }{{"1440", "1440,900", "page", "light"}, {"1440-dark", "1440,900", "page", "dark"}, {"390", "500,844", "phone", "light"}, {"390-dark", "500,844", "phone", "dark"}} {
			out, err := exec.Command("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size="+s.size,
				"--screenshot="+filepath.Join(dir, name+"-"+s.suffix+".png"), srv.URL+"/"+s.as+"/"+name+"/"+s.theme).CombinedOutput()
			if err != nil {
				g.t.Fatalf("Chromium takes no picture of %s: %v\n%s", name, err, out)
			}
		}
	}
}
