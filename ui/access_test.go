package ui_test

import (
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"wuamesh/appliance"
)

// TestAdmins makes an admin, who logs in and takes another password; changes
// the role; and deletes the account. The only owner stays one.
func TestAdmins(t *testing.T) {
	a := open(t)
	a.setUp()
	paulMade := url.Values{"name": {"paul"}, "role": {"viewer"}, "password": {"correct horse staple"}}
	if _, page := a.post("/access", "/access/admins", paulMade); !strings.Contains(page, "paul is viewer.") || !strings.Contains(page, "Change paul…") {
		t.Fatalf("making an admin:\n%s", page)
	}
	if status, page := a.post("/access", "/access/admins", paulMade); status != 422 || !strings.Contains(page, "There is an admin paul already.") {
		t.Errorf("twice: %d\n%s", status, page)
	}
	if status, page := a.post("/access", "/access/admins", url.Values{"name": {"maelle"}, "known": {"1"}, "role": {"viewer"}}); status != 422 || !strings.Contains(page, "maelle is the only owner.") {
		t.Errorf("the only owner: %d\n%s", status, page)
	}

	browser := *a.Client
	browser.Jar, _ = cookiejar.New(nil)
	paul := &admin{Client: &browser, t: t, base: a.base, node: a.node}
	if status, page := paul.post("/login", "/login", url.Values{"name": {"paul"}, "password": {"correct horse staple"}}); status != 200 || !strings.Contains(page, "Log out paul") {
		t.Fatalf("paul logs in: %d\n%.500s", status, page)
	}
	if _, page := paul.get("/access"); strings.Contains(page, "Another admin") || strings.Contains(page, "Change maelle…") {
		t.Errorf("a viewer is offered to change admins:\n%s", page)
	}
	if status, _ := paul.post("/access", "/access/admins", url.Values{"name": {"eve"}, "role": {"owner"}, "password": {"correct horse staple"}}); status != 403 {
		t.Errorf("a viewer makes an owner: %d", status)
	}
	change := url.Values{"now": {"wrong horse staple"}, "password": {"battery staple horse"}, "again": {"battery staple horse"}}
	if status, page := paul.post("/access", "/access/password", change); status != 422 || !strings.Contains(page, "That is not your password.") {
		t.Errorf("with a wrong one: %d\n%s", status, page)
	}
	change.Set("now", "correct horse staple")
	if _, page := paul.post("/access", "/access/password", change); !strings.Contains(page, "Log in to rns-01") {
		t.Errorf("after another password:\n%s", page)
	}
	if _, page := paul.post("/login", "/login", url.Values{"name": {"paul"}, "password": {"battery staple horse"}}); !strings.Contains(page, "Log out paul") {
		t.Errorf("with the new one:\n%s", page)
	}

	if _, page := a.post("/access", "/access/admins", url.Values{"name": {"paul"}, "known": {"1"}, "role": {"operator"}}); !strings.Contains(page, "paul is operator.") {
		t.Errorf("another role:\n%s", page)
	}
	if _, page := paul.get("/access"); !strings.Contains(page, "Log out paul") {
		t.Error("another role ends sessions")
	}
	if _, page := a.post("/access", "/access/admins/delete", url.Values{"name": {"paul"}}); !strings.Contains(page, "paul cannot log in any more.") {
		t.Errorf("deleting:\n%s", page)
	}
	if _, page := paul.get("/access"); strings.Contains(page, "Log out paul") {
		t.Error("who was deleted goes on")
	}
}

// TestSessions shows who is logged in on the node, and ends one session and all
// others: an owner anybody's, a viewer their own. The one that asks stays.
func TestSessions(t *testing.T) {
	a := open(t)
	a.setUp()
	if err := a.node.PutAdmin(t.Context(), owner, "paul", appliance.Viewer, "correct horse staple"); err != nil {
		t.Fatal(err)
	}
	browsers := map[string]*admin{}
	login := func(browser, name, password string) *admin {
		t.Helper()
		c := *a.Client
		c.Jar, _ = cookiejar.New(nil)
		b := &admin{Client: &c, t: t, base: a.base, node: a.node}
		if _, page := b.post("/login", "/login", url.Values{"name": {name}, "password": {password}}); !strings.Contains(page, "Log out "+name) {
			t.Fatalf("%s logs in:\n%.500s", browser, page)
		}
		browsers[browser] = b
		return b
	}
	in := func(want ...string) {
		t.Helper()
		var got []string
		for name, b := range browsers {
			if _, page := b.get("/overview"); strings.Contains(page, "Log out ") {
				got = append(got, name)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%q are logged in, want %q", got, want)
		}
	}
	paul := login("paul at work", "paul", "correct horse staple")
	login("paul at home", "paul", "correct horse staple")
	login("maelle at home", "maelle", "correct horse battery")
	browsers["maelle at work"] = a
	head, rows := a.table("/access/sessions.csv")
	if names := slices.Sorted(slices.Values(column(head, rows, "Admin"))); !slices.Equal(names, []string{"maelle", "maelle", "paul", "paul"}) {
		t.Fatalf("an owner sees the sessions of %q", names)
	}
	head, rows = paul.table("/access/sessions.csv")
	if names := column(head, rows, "Admin"); !slices.Equal(names, []string{"paul", "paul"}) {
		t.Fatalf("a viewer sees the sessions of %q", names)
	}
	if from := column(head, rows, "Address"); from[0] != "127.0.0.1" {
		t.Errorf("paul is seen from %q", from)
	}
	_, page := a.get("/access")
	if !strings.Contains(page, "Logged in on rns-01") || strings.Count(page, "this one") != 1 || strings.Count(page, ", end the session") != 3 {
		t.Errorf("the page of an owner:\n%s", page)
	}
	mine := regexp.MustCompile(`name="id" value="([0-9a-f]{16})" aria-label="maelle`).FindStringSubmatch(page)
	if status, _ := paul.post("/access", "/access/sessions/end", url.Values{"id": {mine[1]}}); status != 404 {
		t.Errorf("a viewer ends the session of an owner: %d", status)
	}
	in("maelle at home", "maelle at work", "paul at home", "paul at work")
	if _, page := paul.post("/access", "/access/sessions/end", url.Values{}); !strings.Contains(page, "1 session ended.") || strings.Contains(page, "End all others") {
		t.Errorf("paul ends his others:\n%s", page)
	}
	in("maelle at home", "maelle at work", "paul at work")
	if _, page := a.post("/access", "/access/sessions/end", url.Values{"id": {mine[1]}}); !strings.Contains(page, "1 session ended.") {
		t.Errorf("maelle ends one:\n%s", page)
	}
	in("maelle at work", "paul at work")
	if status, page := a.post("/access", "/access/sessions/end", url.Values{"id": {mine[1]}}); status != 404 || !strings.Contains(page, "it may have ended") {
		t.Errorf("it ends twice: %d\n%s", status, page)
	}
	a.post("/access", "/access/sessions/end", url.Values{})
	in("maelle at work")
	if _, page := a.get("/audit"); !strings.Contains(page, "end session") || !strings.Contains(page, "1 session on rns-01") {
		t.Errorf("the audit log:\n%s", page)
	}
}
