package ui_test

import (
	"encoding/csv"
	"fmt"
	"mime"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// table reads a file that a page offers, as a spreadsheet does.
func (a *admin) table(path string) (head []string, rows [][]string) {
	a.t.Helper()
	resp, err := a.Get(a.base + path)
	if err != nil {
		a.t.Fatal(err)
	}
	resp.Body.Close()
	if kind, p, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != "text/csv" || p["charset"] != "utf-8" {
		a.t.Errorf("%s is %s", path, resp.Header.Get("Content-Type"))
	}
	if how, p, _ := mime.ParseMediaType(resp.Header.Get("Content-Disposition")); how != "attachment" || !regexp.MustCompile(`^wuamesh-[a-z-]+-\d{4}-\d\d-\d\d\.csv$`).MatchString(p["filename"]) {
		a.t.Errorf("%s is saved as %s", path, resp.Header.Get("Content-Disposition"))
	}
	status, body := a.get(path)
	text, ok := strings.CutPrefix(body, "\ufeff")
	if status != 200 || !ok || !strings.HasSuffix(text, "\r\n") {
		a.t.Fatalf("%s: %d %q", path, status, body)
	}
	all, err := csv.NewReader(strings.NewReader(text)).ReadAll() // which wants rows of one length
	if err != nil || len(all) == 0 {
		a.t.Fatalf("%s: %v\n%s", path, err, text)
	}
	return all[0], all[1:]
}

func column(head []string, rows [][]string, name string) (cells []string) {
	i := slices.Index(head, name)
	for _, r := range rows {
		cells = append(cells, r[i])
	}
	return cells
}

// TestTablesAreFiles follows the link to a file on every page with a table.
func TestTablesAreFiles(t *testing.T) {
	a := open(t)
	a.setUp()
	first, second := invented(1, "2026-11 Cumulative Update for Windows 11, \"quoted\", and more (KB5000001)", rules.Critical), invented(2, "=HYPERLINK(\"http://evil.example\")", rules.Low)
	id := a.enrol(1, pc("BRS-WKS-0001"), needs(first, second), first, second)
	a.enrol(2, pc("=cmd|' /C calc'!A0"), needs(first))
	old := pc("RNS-SRV-0001")
	old.OS = "Windows Server 2022"
	a.enrol(3, old, []agentproto.Status{{ID: first.ID, Revision: first.Revision, Installed: true}})
	if _, err := a.node.PutPackage(t.Context(), owner, "baseline", appliance.PackageEdit{Description: "-1+1", Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{{Verb: rules.Allow, Kind: rules.BySeverity, Value: "Critical"}}}); err != nil {
		t.Fatal(err)
	}
	a.until("/downloads", "windows-kb5000001")
	link := regexp.MustCompile(`href="([^"]+\.csv[^"]*)"[^>]* download`)
	for _, page := range []string{"/hosts", "/updates", "/rules", "/rules/baseline", "/groups", "/downloads", "/mesh", "/audit", "/access", "/overview", "/settings", "/hosts/" + string(id), "/updates/" + string(first.ID)} {
		_, text := a.get(page)
		links := link.FindAllStringSubmatch(text, -1)
		if len(links) == 0 && page != "/mesh" { // where one node stands alone
			t.Errorf("%s offers no file", page)
		}
		for _, m := range links {
			if _, rows := a.table(strings.ReplaceAll(m[1], "&amp;", "&")); len(rows) == 0 {
				t.Errorf("%s offers %s, which has no row", page, m[1])
			}
		}
	}
	a.table("/mesh.csv")
	if head, rows := a.table("/mesh/files.csv"); len(rows) == 0 || !slices.Contains(head, "On rns-01") {
		t.Errorf("the files that hosts wait for are %q, %q", head, rows)
	}
	a.table("/clean.csv")

	head, rows := a.table("/hosts.csv?sort=-name")
	if names := column(head, rows, "Host"); !slices.Equal(names, []string{"RNS-SRV-0001", "BRS-WKS-0001", "'=cmd|' /C calc'!A0"}) {
		t.Errorf("hosts are %q", names)
	}
	if n := column(head, rows, "OK"); !slices.Equal(n, []string{"1", "0", "0"}) {
		t.Errorf("numbers of OK are %q", n)
	}
	for _, at := range column(head, rows, "Last scan (UTC)") {
		if _, err := time.Parse(time.DateTime, at); err != nil {
			t.Errorf("a time is %q", at)
		}
	}
	if _, rows := a.table("/hosts.csv?os=" + url.QueryEscape("Windows Server 2022")); len(rows) != 1 {
		t.Errorf("of one system: %q", rows)
	}
	head, rows = a.table("/updates.csv?severity=Critical")
	if titles := column(head, rows, "Title"); len(titles) != 1 || titles[0] != first.Title {
		t.Errorf("critical updates are %q", titles)
	}
	if size := column(head, rows, "Size (bytes)"); size[0] != fmt.Sprint(1<<20) {
		t.Errorf("its size is %q", size)
	}
	head, rows = a.table("/updates.csv?severity=Low")
	if titles := column(head, rows, "Title"); len(titles) != 1 || titles[0] != "'"+second.Title {
		t.Errorf("a title like a formula is %q", titles)
	}
	if head, rows = a.table("/rules.csv"); column(head, rows, "Description")[0] != "'-1+1" {
		t.Errorf("a description like a formula is in %q", rows)
	}
	if head, rows = a.table("/updates/" + string(first.ID) + "/hosts.csv"); len(rows) != 3 || column(head, rows, "State")[2] != "OK" {
		t.Errorf("the hosts of an update are %q", rows)
	}
	if status, _ := a.get("/hosts/nobody/updates.csv"); status != 404 {
		t.Errorf("the updates of no host: %d", status)
	}
	a.post("/overview", "/logout", url.Values{})
	if _, page := a.get("/hosts.csv"); !strings.Contains(page, "Log in to rns-01") || strings.Contains(page, "BRS-WKS") {
		t.Errorf("without a login: %.200s", page)
	}
}

// TestLongTables has more rows than are made at once.
func TestLongTables(t *testing.T) {
	a := open(t)
	a.setUp()
	for i := range 520 {
		if _, _, err := a.node.MakeToken(t.Context(), owner, appliance.TokenOptions{Name: fmt.Sprintf("script %d", i), Use: appliance.ForAPI, Role: appliance.Viewer, Expires: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	head, rows := a.table("/audit.csv")
	seen := map[string]bool{}
	for _, object := range column(head, rows, "Object") {
		if strings.Contains(object, "script") && seen[object] {
			t.Errorf("%s is there twice", object)
		}
		seen[object] = true
	}
	if len(rows) < 520 {
		t.Errorf("%d rows", len(rows))
	}
}
