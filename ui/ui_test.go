package ui_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/authenticode/authenticodetest"
	"wuamesh/ui"
)

// An admin is a browser without scripts, on the pages of a real node.
type admin struct {
	*http.Client
	t    *testing.T
	base string
	msi  string // where the node looks for the agent's installer
	node *appliance.Appliance
}

func open(t *testing.T) *admin { return openNamed(t, "rns-01") }

func openNamed(t *testing.T, name string) *admin { return openOn(t, name, nil) }

// openOn opens a node that reaches others over lines; nil for no such bounds.
func openOn(t *testing.T, name string, l *lines) *admin {
	t.Helper()
	dir := t.TempDir()
	cfg := appliance.DevConfig()
	cfg.Name, cfg.Data, cfg.Folder = name, filepath.Join(dir, "data"), filepath.Join(dir, "waptwua")
	cfg.AgentMSI = filepath.Join(dir, "wuamesh-agent.msi")
	cfg.ListenHTTPS, cfg.ListenHTTP, cfg.Internet = "127.0.0.1:0", "127.0.0.1:0", false
	if l != nil {
		cfg.Dial = l.dial
	}
	cfg.Roots = []string{filepath.Join(dir, "root.pem")}
	if err := os.WriteFile(cfg.Roots[0], authenticodetest.NewAuthority(1).RootPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	node, err := appliance.Open(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx, http.NotFoundHandler()) }()
	srv := httptest.NewTLSServer(ui.New(node, log))
	t.Cleanup(func() {
		srv.Close()
		cancel()
		if err := errors.Join(<-done, node.Close()); err != nil {
			t.Error(err)
		}
	})
	c := srv.Client()
	c.Jar, _ = cookiejar.New(nil)
	return &admin{c, t, srv.URL, cfg.AgentMSI, node}
}

// get follows redirects and returns the page.
func (a *admin) get(path string) (int, string) {
	a.t.Helper()
	resp, err := a.Get(a.base + path)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

var csrf = regexp.MustCompile(`name="csrf" value="([0-9a-f]+)"`)

// post sends a form as the page at from would.
func (a *admin) post(from, path string, form url.Values) (int, string) {
	a.t.Helper()
	_, page := a.get(from)
	if m := csrf.FindStringSubmatch(page); m != nil {
		form.Set("csrf", m[1])
	}
	resp, err := a.PostForm(a.base+path, form)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func (a *admin) setUp() {
	a.t.Helper()
	link, _ := url.Parse(a.node.SetupLink())
	status, page := a.post("/setup", "/setup", url.Values{"secret": {link.Query().Get("secret")}, "name": {"maelle"}, "password": {"correct horse battery"}, "again": {"correct horse battery"}})
	if status != 200 || !strings.Contains(page, "<h1>Overview</h1>") {
		a.t.Fatalf("after setting up: %d\n%s", status, page)
	}
}

func TestNobodySeesAnythingBeforeLoggingIn(t *testing.T) {
	a := open(t)
	if status, page := a.get("/hosts"); status != 503 || !strings.Contains(page, "rns-01 is not set up yet") {
		t.Errorf("before the first admin: %d\n%s", status, page)
	}
	a.setUp()
	a.post("/overview", "/logout", url.Values{})
	for _, path := range []string{"/", "/overview", "/updates?severity=Critical", "/hosts", "/rules/new", "/downloads", "/clean", "/access", "/audit", "/settings", "/nowhere"} {
		if _, page := a.get(path); !strings.Contains(page, "Log in to rns-01") {
			t.Errorf("%s shows\n%.300s", path, page)
		}
	}
	if status, _ := a.get("/events"); status != 401 {
		t.Errorf("the stream of events answers %d", status)
	}
	if status, page := a.post("/login", "/login", url.Values{"name": {"maelle"}, "password": {"wrong"}, "next": {"//evil.example/"}}); status != 401 || !strings.Contains(page, "Name or password is wrong") || strings.Contains(page, "evil") {
		t.Errorf("a wrong password: %d\n%s", status, page)
	}
	if _, page := a.post("/login", "/login", url.Values{"name": {"maelle"}, "password": {"correct horse battery"}, "next": {"/rules"}}); !strings.Contains(page, "<h1>WUA Rules</h1>") {
		t.Errorf("logged in, it does not go on to where it was asked for:\n%.500s", page)
	}
}

func TestFormsOfOtherSessionsAreRefused(t *testing.T) {
	a := open(t)
	a.setUp()
	resp, err := a.PostForm(a.base+"/rules", url.Values{"isnew": {"1"}, "name": {"x"}, "maturity": {"PROD"}, "csrf": {strings.Repeat("0", 64)}})
	if err != nil || resp.StatusCode != 403 {
		t.Errorf("a forged form: %v %v", resp.Status, err)
	}
	req, _ := http.NewRequest("POST", a.base+"/rules", strings.NewReader("isnew=1"))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	if resp, err = a.Do(req); err != nil || resp.StatusCode != 403 {
		t.Errorf("a form from elsewhere: %v %v", resp.Status, err)
	}
	if list, _ := a.node.Packages(t.Context()); len(list) != 0 {
		t.Errorf("it made %+v", list)
	}
}

// TestARulePackage is made, edited and deleted with forms alone.
func TestARulePackage(t *testing.T) {
	a := open(t)
	a.setUp()
	form := url.Values{"isnew": {"1"}, "name": {"ERP freeze"}, "maturity": {"PREPROD"}, "group": {"all"}, "verb": {"forbid"}, "kind": {"kb"}, "value": {"KB5091157"}, "description": {`<b>"breaks" printing</b>`}}
	if status, page := a.post("/rules/new", "/rules", form); status != 422 || !strings.Contains(page, "The name may have lower-case letters") || !strings.Contains(page, "ERP freeze") || strings.Contains(page, "<b>&#34;") || strings.Contains(page, `<b>"breaks`) {
		t.Errorf("a wrong name: %d\n%s", status, page)
	}
	form.Set("name", "erp-freeze")
	if status, page := a.post("/rules/new", "/rules", form); status != 200 || !strings.Contains(page, "KB5091157") || !strings.Contains(page, "No decision changes on any host.") {
		t.Errorf("made: %d\n%s", status, page)
	}
	edit := url.Values{"name": {"erp-freeze"}, "maturity": {"PROD"}, "group": {"all"}, "line": {"forbid kb 5091157"}, "verb": {"allow"}, "kind": {"severity"}, "value": {"critical"}}
	if status, page := a.post("/rules/erp-freeze", "/rules", edit); status != 200 || !strings.Contains(page, "allow severity Critical") {
		t.Errorf("edited: %d\n%s", status, page)
	}
	p, err := a.node.Package(t.Context(), "erp-freeze")
	if err != nil || len(p.Lines) != 2 || p.Maturity != rules.Prod {
		t.Errorf("it is %+v, %v", p, err)
	}
	edit.Set("value", "")
	edit["line"] = []string{"forbid kb 5091157", "allow severity Critical"}
	edit.Set("drop", "forbid kb 5091157")
	status, page := a.post("/rules/erp-freeze", "/rules", edit)
	if p, _ = a.node.Package(t.Context(), "erp-freeze"); status != 200 || len(p.Lines) != 2 || strings.Contains(page, "Remove rule forbid KB5091157") || !strings.Contains(page, "What this changes") || !strings.Contains(page, "Not saved yet") {
		t.Errorf("dropping a line, %d, left %+v and shows\n%s", status, p.Lines, page)
	}
	edit.Del("drop")
	edit["line"] = edit["line"][1:]
	a.post("/rules/erp-freeze", "/rules", edit)
	if p, _ = a.node.Package(t.Context(), "erp-freeze"); len(p.Lines) != 1 {
		t.Errorf("after dropping a line: %+v", p.Lines)
	}
	if _, page := a.post("/rules/erp-freeze", "/rules/erp-freeze/delete", url.Values{}); !strings.Contains(page, "No rule package yet") {
		t.Errorf("deleted:\n%.400s", page)
	}
}

// TestASetupLinkThatIsNotGood says so before anybody fills the form in.
func TestASetupLinkThatIsNotGood(t *testing.T) {
	a := open(t)
	if status, page := a.get("/setup"); status != 503 || !strings.Contains(page, "rns-01 is not set up yet") || !strings.Contains(page, "wuamesh setup-link") || strings.Contains(page, "<form") {
		t.Errorf("without a secret: %d\n%s", status, page)
	}
	if status, page := a.get("/setup?secret=guessed"); status != 403 || !strings.Contains(page, "not good any more") || !strings.Contains(page, "sudo wuamesh setup-link") || strings.Contains(page, "<form") {
		t.Errorf("with a wrong one: %d\n%s", status, page)
	}
	link := a.node.SetupLink()
	a.setUp()
	if status, page := a.get(link[strings.Index(link, "/setup"):]); status != 200 || !strings.Contains(page, "<h1>Overview</h1>") && !strings.Contains(page, "Log in to rns-01") {
		t.Errorf("once it was used: %d\n%s", status, page)
	}
}

// tidy looks for what no page may have: inline script or style, an icon that
// is not in the sprite,
// more or less than one heading.
func (a *admin) tidy(path string, want int) {
	a.t.Helper()
	sprite, err := os.ReadFile("static/icons.svg")
	if err != nil {
		a.t.Fatal(err)
	}
	status, page := a.get(path)
	if status != want || strings.Count(page, "<h1") != 1 {
		a.t.Errorf("%s: %d with %d headings, want %d with one", path, status, strings.Count(page, "<h1"), want)
	}
	if bad := regexp.MustCompile(`<script>|<style| style=| on[a-z]+="`).FindString(page); bad != "" {
		a.t.Errorf("%s has %q", path, bad)
	}
	for _, m := range regexp.MustCompile(`<use href="([^"#]+)#([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if !strings.Contains(string(sprite), `id="`+m[2]+`"`) {
			a.t.Errorf("%s uses the icon %s, which is not there", path, m[2])
		}
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="(/a/[^"#]+)`).FindAllStringSubmatch(page, -1) {
		if status, _ := a.get(m[1]); status != 200 {
			a.t.Errorf("%s loads %s: %d", path, m[1], status)
		}
	}
}

// TestEveryPage looks at every page that needs no host, from before the first
// admin on.
func TestEveryPage(t *testing.T) {
	a := open(t)
	link, err := url.Parse(a.node.SetupLink())
	if err != nil {
		t.Fatal(err)
	}
	a.tidy("/overview", 503)
	a.tidy("/setup?secret=guessed", 403)
	a.tidy("/setup/join?"+link.RawQuery, 200)
	a.tidy("/setup?"+link.RawQuery, 200)
	a.setUp()
	if _, err := a.node.PutPackage(t.Context(), appliance.Actor{Name: "x", Role: appliance.Owner}, "baseline", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{{Verb: rules.Allow, Kind: rules.BySeverity, Value: "Critical"}}}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/overview", "/updates", "/updates?severity=Critical&q=x", "/rules", "/rules/new", "/rules/baseline", "/hosts", "/hosts?seen=waiting", "/downloads", "/clean", "/access", "/audit", "/settings", "/mesh", "/mesh?node=x", "/mesh/limits", "/mesh/passphrase"} {
		a.tidy(path, 200)
	}
	for path, status := range map[string]int{"/hosts/nobody": 404, "/updates/KB5": 404, "/rules/none": 404, "/nowhere": 404} {
		if got, page := a.get(path); got != status || !strings.Contains(page, "Back to the overview") {
			t.Errorf("%s: %d\n%.200s", path, got, page)
		}
	}
	a.post("/overview", "/logout", url.Values{})
	a.tidy("/login?next=/hosts", 200)
}

// TestNobodyIsSentElsewhere logs in with a "next" that a browser would follow
// to another site.
func TestNobodyIsSentElsewhere(t *testing.T) {
	a := open(t)
	a.setUp()
	a.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, next := range []string{
		"//evil.example/", "/\\evil.example/", "/\t/evil.example/", "/x/../\\evil.example/", "/./\\evil.example", "https://evil.example/", "javascript:alert(1)", "evil.example", "\\\\evil.example",
		"/x/..//evil.example", "/\n/evil.example", "", "/%2f%2fevil.example/../../\\evil.example",
	} {
		resp, err := a.PostForm(a.base+"/login", url.Values{"name": {"maelle"}, "password": {"correct horse battery"}, "next": {next}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		to := strings.ReplaceAll(strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(resp.Header.Get("Location")), "\\", "/") // as browsers read it
		if resp.StatusCode != http.StatusSeeOther || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") {
			t.Errorf("next=%q: %d to %q", next, resp.StatusCode, resp.Header.Get("Location"))
		}
	}
}
