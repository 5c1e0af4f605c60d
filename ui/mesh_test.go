package ui_test

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"html"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/authenticode/authenticodetest"
	"wuamesh/appliance/microsoft/cab/cabtest"
)

// until asks for a page until it says what is wanted.
func (a *admin) until(path string, want ...string) string {
	a.t.Helper()
	page := ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-time.After(50 * time.Millisecond) {
		_, page = a.get(path)
		missing := ""
		for _, w := range want {
			if !strings.Contains(page, w) {
				missing = w
			}
		}
		if missing == "" {
			return page
		}
	}
	a.t.Fatalf("%s never says %q:\n%s", path, want, page)
	return ""
}

// lines are between the nodes of a test; they can be cut.
type lines struct {
	mu    sync.Mutex
	down  bool
	conns []net.Conn
}

func (l *lines) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return nil, errors.Join(errors.New("the line is cut"), conn.Close())
	}
	l.conns = append(l.conns, conn)
	return conn, nil
}

func (l *lines) cut(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

// pair runs two nodes of one mesh, with an admin at each.
func pair(t *testing.T, l *lines) (first, second *admin) {
	t.Helper()
	first, second = openOn(t, "rns-01", l), openOn(t, "brs-01", l)
	first.setUp()
	_, page := first.post("/mesh", "/mesh/token", url.Values{"name": {"brest"}})
	if err := second.node.Join(t.Context(), appliance.Actor{Name: "test", Role: appliance.Owner}, appliance.JoinOptions{Token: joinToken.FindString(page)}); err != nil {
		t.Fatal(err)
	}
	first.until("/mesh", "In step with the other node.")
	second.until("/login", "Log in to brs-01")
	if _, page := second.post("/login", "/login", url.Values{"name": {"maelle"}, "password": {"correct horse battery"}}); !strings.Contains(page, "<h1>Overview</h1>") {
		t.Fatalf("logging in at the second node:\n%s", page)
	}
	return first, second
}

// TestMetOnThePages edits one package on two sides of a cut. The package's
// page, the list, the overview and the audit log tell of both edits, on either
// node, and a button decides.
func TestMetOnThePages(t *testing.T) {
	l := &lines{}
	first, second := pair(t, l)
	form := url.Values{"isnew": {"1"}, "name": {"baseline"}, "maturity": {"DEV"}, "group": {"all"}}
	first.post("/rules/new", "/rules", form)
	second.until("/rules/baseline", "<h1>baseline</h1>")
	l.cut(true)
	first.until("/rules", "Cut off", `class="note flush err"`)
	form.Del("isnew")
	form.Set("maturity", "PREPROD")
	form["line"] = []string{"allow kb 5091157"}
	first.post("/rules/baseline", "/rules", form)
	form.Set("maturity", "PROD")
	form["line"] = []string{"forbid kb 5091157"}
	second.post("/rules/baseline", "/rules", form)
	l.cut(false)
	for _, a := range []*admin{first, second} {
		page := a.until("/rules/baseline", "Two edits met", "maturity PREPROD, by maelle on rns-01", "maturity PROD, by maelle on brs-01", "forbid KB5091157, by maelle on brs-01", "allow KB5091157, by maelle on rns-01", "Stands beside it", "Lost")
		if n := strings.Count(page, "Two edits met:"); n != 2 {
			t.Errorf("it tells of %d meetings:\n%s", n, page)
		}
		a.until("/rules", "Two edits met")
		a.until("/mesh", "Two edits met")
		a.until("/overview", "Two edits of package baseline met")
		a.until("/audit", "two edits met", "which holds")
	}
	for range 2 {
		_, page := first.get("/rules/baseline")
		id := regexp.MustCompile(`name="id" value="([0-9a-f]{24})"`).FindStringSubmatch(page)
		if id == nil {
			t.Fatalf("nothing to decide:\n%s", page)
		}
		if _, page = first.post("/rules/baseline", "/mesh/met", url.Values{"id": {id[1]}, "do": {"keep"}, "back": {"/rules/baseline"}}); !strings.Contains(page, "Decided, on every node.") {
			t.Errorf("deciding:\n%s", page)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(50 * time.Millisecond) {
		_, page := second.get("/rules/baseline")
		if !strings.Contains(page, "Two edits met") && strings.Contains(page, "forbid kb 5091157") && !strings.Contains(page, "allow kb 5091157") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("decided on one node, the other shows\n%s", page)
		}
	}
}

var joinToken = regexp.MustCompile(`wmj1\.[\w.-]+`)

// TestMeshPage makes a token with the page's form, lets a node in with it,
// looks at it and removes it.
func TestMeshPage(t *testing.T) {
	first, second := openNamed(t, "rns-01"), openNamed(t, "brs-01")
	first.setUp()
	if _, page := first.get("/mesh"); !strings.Contains(page, "The only node of its mesh.") || !strings.Contains(page, "1 node in 1 site") || strings.Contains(page, "<svg class=\"topo") {
		t.Errorf("alone:\n%s", page)
	}
	_, page := first.post("/mesh", "/mesh/token", url.Values{"name": {"brest"}, "address": {"nonsense"}})
	if !strings.Contains(page, "is not an address") || !strings.Contains(page, `value="brest"`) || !strings.Contains(page, `value="nonsense"`) {
		t.Errorf("a token with a wrong address:\n%s", page)
	}
	_, page = first.post("/mesh", "/mesh/token", url.Values{"name": {"brest"}, "address": {""}})
	token := joinToken.FindString(page)
	if token == "" || !strings.Contains(page, "shown this once") {
		t.Fatalf("after making a token:\n%s", page)
	}
	link, _ := url.Parse(second.node.SetupLink())
	if _, page := second.post("/setup/join?"+link.RawQuery, "/setup/join", url.Values{"secret": {link.Query().Get("secret")}, "token": {token}, "node": {"brs-01"}, "site": {"brest"}}); !strings.Contains(page, "is joining") && !strings.Contains(page, "is in the mesh") {
		t.Fatalf("joining:\n%s", page)
	}
	page = first.until("/mesh", "In step with the other node.", "2 nodes in 2 sites", `aria-label="brs-01, brest, direct, `, "in step")
	id := regexp.MustCompile(`href="/mesh\?node=([0-9a-f]{32})"[^>]*>brs-01<`).FindStringSubmatch(page)
	if id == nil {
		t.Fatalf("no link to brs-01:\n%s", page)
	}
	if _, page = first.get("/mesh?node=" + id[1]); !strings.Contains(page, "Remove brs-01 from the mesh") || !strings.Contains(page, "by token brest") {
		t.Errorf("the node's panel:\n%s", page)
	}
	if _, page = first.post("/mesh", "/mesh/anchor", url.Values{"passphrase": {"x"}}); !strings.Contains(page, "is an anchor already") {
		t.Errorf("becoming an anchor twice:\n%s", page)
	}
	if _, page = first.post("/mesh", "/mesh/resign", url.Values{}); !strings.Contains(page, "is the only anchor") {
		t.Errorf("the only anchor resigns:\n%s", page)
	}
	if _, page = first.post("/mesh", "/mesh/gossip-key", url.Values{}); !strings.Contains(page, "understood for a day") {
		t.Errorf("rotating the key:\n%s", page)
	}
	_, page = first.post("/mesh", fmt.Sprintf("/mesh/%s/remove", id[1]), url.Values{"reason": {"closed"}})
	if !strings.Contains(page, "brs-01 is removed.") || !strings.Contains(page, "Removed nodes, 1") || !strings.Contains(page, "by maelle") {
		t.Errorf("after removing it:\n%s", page)
	}
	second.until("/login", "Log in to brs-01") // the removed node still shows who it is
	if _, page = first.get("/audit"); !strings.Contains(page, "closed") {
		t.Error("the audit log does not say why it was removed")
	}
}

// TestSwitchingNodes goes from a page on one node to the same page on
// another, without logging in again and with what was just saved.
func TestSwitchingNodes(t *testing.T) {
	first, second := pair(t, nil)
	second.Jar, _ = cookiejar.New(nil) // nobody is logged in there
	page := first.until("/rules?x=1", `title="In step with the other node."`, "/switch?node=")
	link := html.UnescapeString(regexp.MustCompile(`href="(/switch\?[^"]*)"`).FindStringSubmatch(page)[1])
	if !strings.Contains(link, "to="+url.QueryEscape("/rules?x=1")) {
		t.Errorf("the switch leads from /rules?x=1 to %s", link)
	}
	form := url.Values{"isnew": {"1"}, "name": {"just-saved"}, "maturity": {"PROD"}, "group": {"all"}}
	if status, page := first.post("/rules/new", "/rules", form); status != 200 || !strings.Contains(page, "just-saved") {
		t.Fatalf("saving: %d\n%s", status, page)
	}
	// The pages of tests stand at other addresses than the nodes believe.
	first.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := first.Get(first.base + link)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	to, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || resp.StatusCode != http.StatusSeeOther || "https://"+to.Host != second.node.URL() || to.Path != "/handover" {
		t.Fatalf("it leads to %s %s", resp.Status, to)
	}
	if _, page := second.get(to.RequestURI()); !strings.Contains(page, "<h1>WUA Rules</h1>") || !strings.Contains(page, "just-saved") || !strings.Contains(page, "You are on brs-01 now.") {
		t.Errorf("on the other node:\n%s", page)
	}
	second.Jar, _ = cookiejar.New(nil)
	if _, page := second.get(to.RequestURI()); !strings.Contains(page, "Log in to brs-01") {
		t.Errorf("the way is good twice:\n%s", page)
	}
	if _, page := second.get("/handover?secret=guessed&to=//evil.example/"); !strings.Contains(page, "Log in to brs-01") || strings.Contains(page, "evil") {
		t.Errorf("a guessed secret:\n%s", page)
	}
	req, _ := http.NewRequest("GET", first.base+link, nil)
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	if resp, err := first.Do(req); err != nil || resp.StatusCode != 403 {
		t.Errorf("another site sends an admin over: %v %v", resp.Status, err)
	}
	if status, page := first.get("/standing?to=" + url.QueryEscape("/hosts")); status != 200 || !strings.Contains(html.UnescapeString(page), "to="+url.QueryEscape("/hosts")) {
		t.Errorf("what renews the frame: %d\n%s", status, page)
	}
}

// heldBack is a pair of which the second node is to get a scan cab from the
// first, which its limits hold back.
func heldBack(t *testing.T, down string) (first, second *admin) {
	t.Helper()
	first, second = pair(t, nil)
	if status, page := second.post("/mesh/limits", "/mesh/limits", url.Values{"rate_wan_down": {down}}); status != 200 {
		t.Fatalf("%d\n%s", status, page)
	}
	var plain bytes.Buffer
	w := cabtest.NewWriter(&plain, cabtest.MSZIP)
	if err := w.Create("package.xml", time.Date(2026, 11, 10, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	noise := rand.NewChaCha8([32]byte{1})
	if _, err := io.CopyN(w, noise, 3<<20); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, page := first.get("/downloads")
	signed := authenticodetest.NewAuthority(1).Signer(authenticodetest.SignerOptions{}).SignCab(plain.Bytes())
	if status, page := first.send(csrf.FindStringSubmatch(page)[1], "wsusscn2.cab", signed); status != 200 {
		t.Fatalf("%d\n%s", status, page)
	}
	return first, second
}

// needed has a host of the node need a file that an admin brings to it, and
// returns the update it is of.
func (a *admin) needed(n int, title string) agentproto.Update {
	a.t.Helper()
	var plain bytes.Buffer
	w := cabtest.NewWriter(&plain, cabtest.None)
	if err := w.Create("update.mum", time.Date(2026, 11, 10, 0, 0, 0, 0, time.UTC)); err != nil {
		a.t.Fatal(err)
	}
	if _, err := io.CopyN(w, rand.NewChaCha8([32]byte{byte(n)}), 1<<20); err != nil {
		a.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		a.t.Fatal(err)
	}
	signed := authenticodetest.NewAuthority(1).Signer(authenticodetest.SignerOptions{}).SignCab(plain.Bytes())
	u, sum := invented(n, title, rules.Critical), fmt.Sprintf("%x", sha1.Sum(signed))
	name := fmt.Sprintf("windows-kb%d-x64_%s.cab", 5000000+n, sum)
	u.Files = []agentproto.File{{Name: name, URL: "http://download.windowsupdate.com/d/msdownload/" + name, Size: int64(len(signed)), SHA1: sum}}
	if _, err := a.node.PutPackage(a.t.Context(), owner, "baseline", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{{Verb: rules.Allow, Kind: rules.BySeverity, Value: "Critical"}}}); err != nil {
		a.t.Fatal(err)
	}
	a.enrol(n, pc(fmt.Sprintf("BRS-WKS-%04d", n)), needs(u), u)
	_, page := a.get("/downloads")
	if status, page := a.send(csrf.FindStringSubmatch(page)[1], name, signed); status != 200 {
		a.t.Fatalf("%d\n%s", status, page)
	}
	return u
}

// TestFilesByNode shows which node has a file that a host waits for, and which
// has not because a limit holds it back.
func TestFilesByNode(t *testing.T) {
	first, _ := heldBack(t, "0.000001")
	if _, page := first.get("/mesh"); !strings.Contains(page, "No host waits for a file.") {
		t.Errorf("before anything is needed:\n%s", page)
	}
	u := first.needed(1, "2026-11 Cumulative Update (KB5000001)")
	first.until("/mesh", "1 file, as nodes said last.", "rns-01 has it", "brs-01 does not have it", string(u.ID), "1 of 1", "0 of 1")
	head, rows := first.table("/mesh/files.csv")
	if len(rows) != 1 || column(head, rows, "On rns-01")[0] != "TRUE" || column(head, rows, "On brs-01")[0] != "FALSE" || column(head, rows, "Hosts that wait")[0] != "1" {
		t.Errorf("its file is %q, %q", head, rows)
	}
}

// TestFilesMoveOnThePage brings a scan cab to one node while a limit holds back
// the other: its pages say what comes, how much other nodes have of it, why it
// waits and until when; and later what moved between the two.
func TestFilesMoveOnThePage(t *testing.T) {
	first, second := heldBack(t, "0.01")
	for _, path := range []string{"/downloads", "/mesh"} {
		second.until(path, "Windows Update scan index", "from other nodes", "rns-01 100 %")
	}
	if _, page := second.get("/mesh"); !strings.Contains(page, "On their way to brs-01") {
		t.Errorf("the page does not say where it goes:\n%s", page)
	}
	second.post("/mesh/limits", "/mesh/limits", url.Values{})
	second.until("/mesh?node=rns-01", "3.1 MB from it since brs-01 started")
	first.until("/mesh?node=brs-01", "3.1 MB to it since rns-01 started")
	second.until("/downloads?status=done", "Windows Update scan index")
	second.until("/downloads", "from rns-01 3.1 MB")
	first.until("/downloads", "to brs-01 3.1 MB")
	for a, want := range map[*admin]string{first: ",brs-01,0,31", second: ",rns-01,31"} {
		if _, table := a.get("/downloads/links.csv"); !strings.Contains(table, "From it (bytes),To it (bytes)") || !strings.Contains(table, want) {
			t.Errorf("the table by node lacks %q:\n%s", want, table)
		}
	}
	if _, page := second.get("/mesh"); strings.Contains(page, "On their way") {
		t.Errorf("nothing moves any more:\n%s", page)
	}
}

// TestWithoutInternetAnotherIsAsked asks for a newer scan cab at a node of a
// mesh in which no node downloads from Microsoft.
func TestWithoutInternetAnotherIsAsked(t *testing.T) {
	_, second := pair(t, &lines{})
	const from = "A node that downloads from Microsoft is asked for a newer wsusscn2.cab"
	for path, want := range map[string]string{"/index/download": from, "/index/missing": "0 missing files queued."} {
		if _, page := second.post("/updates", path, url.Values{}); !strings.Contains(page, from) || !strings.Contains(page, want) || strings.Contains(page, "Microsoft is being asked") {
			t.Errorf("%s says\n%s", path, page)
		}
	}
	second.until("/downloads", "No node that may download from Microsoft can be reached; the first that can is asked for a newer one.")
}
