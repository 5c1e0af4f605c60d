package ui_test

import (
	"html"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestJoinWithForms makes a bare node a member of a mesh with pages alone,
// after a wrong token, and logs in there with the name of the other node.
func TestJoinWithForms(t *testing.T) {
	a, b := open(t), openNamed(t, "vm")
	a.setUp()
	_, page := a.post("/access", "/access/tokens", url.Values{"use": {"join"}, "name": {"new node"}})
	token := regexp.MustCompile(`wmj1\.[\w-]+`).FindString(page)
	if token == "" || !strings.Contains(page, "wuamesh join") {
		t.Fatalf("no token on\n%s", page)
	}
	link, err := url.Parse(b.node.SetupLink())
	if err != nil {
		t.Fatal(err)
	}
	secret := link.Query().Get("secret")
	form := url.Values{"secret": {secret}, "token": {token[:40]}, "node": {"vm"}, "site": {"brest <b>"}}
	if _, page := b.get("/setup?secret=" + secret); !strings.Contains(html.UnescapeString(page), "/setup/join?secret="+secret) {
		t.Errorf("the setup page does not offer to join:\n%s", page)
	}
	if status, page := b.post("/setup/join?secret="+secret, "/setup/join", form); status != 422 || !strings.Contains(page, "copied whole") || !strings.Contains(page, "brest &lt;b&gt;") {
		t.Errorf("a damaged token: %d\n%s", status, page)
	}
	form.Set("token", token[:50]+"\n  "+token[50:]) // a mail program wrapped it
	form.Set("secret", "guessed")
	if status, _ := b.post("/setup/join?secret="+secret, "/setup/join", form); status != 403 {
		t.Errorf("without the setup link's secret: %d", status)
	}
	form.Set("secret", secret)
	status, page := b.post("/setup/join?secret="+secret, "/setup/join", form)
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(page, "is in the mesh"); status, page = b.get("/setup/joining") {
		if status != 200 || time.Now().After(deadline) {
			t.Fatalf("joining: %d\n%s", status, page)
		}
	}
	if status, page := b.post("/login", "/login", url.Values{"name": {"maelle"}, "password": {"correct horse battery"}}); status != 200 || !strings.Contains(page, "<h1>Overview</h1>") {
		t.Errorf("an admin of the mesh at the new node: %d\n%s", status, page)
	}
	if _, page := b.get("/setup/join?secret=" + secret); !strings.Contains(page, "<h1>Overview</h1>") && !strings.Contains(page, "Log in to") {
		t.Errorf("the link is still good:\n%.500s", page)
	}
}

// TestRecoveryPassphrase is asked for on the overview until there is one, and
// shown once.
func TestRecoveryPassphrase(t *testing.T) {
	a := open(t)
	a.setUp()
	if _, page := a.get("/overview"); !strings.Contains(page, "no recovery passphrase") {
		t.Errorf("the overview does not ask for it:\n%s", page)
	}
	_, page := a.post("/mesh/passphrase", "/mesh/passphrase", url.Values{})
	if !regexp.MustCompile(`<p class="mono">([A-Z2-7]{5}-){5}[A-Z2-7]</p>`).MatchString(page) {
		t.Errorf("no passphrase on\n%s", page)
	}
	if _, page := a.get("/overview"); strings.Contains(page, "no recovery passphrase") {
		t.Error("it still asks")
	}
}
