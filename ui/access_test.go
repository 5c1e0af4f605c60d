package ui_test

import (
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
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
