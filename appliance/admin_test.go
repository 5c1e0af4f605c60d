package appliance_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/appliance"
	"wuamesh/appliance/api"
)

func problem(err error) *appliance.Problem {
	p, _ := errors.AsType[*appliance.Problem](err)
	if p == nil {
		return &appliance.Problem{}
	}
	return p
}

func TestTheFirstAdmin(t *testing.T) {
	s := start(t, nil)
	secret := secretOf(t, s.SetupLink())
	for name, err := range map[string]error{
		"wrong secret":   s.SetUp(t.Context(), "guess", "maelle", "correct horse battery"),
		"short password": s.SetUp(t.Context(), secret, "maelle", "short"),
		"bad name":       s.SetUp(t.Context(), secret, "Maëlle Le Goff", "correct horse battery"),
	} {
		if problem(err).Kind == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.SetUp(t.Context(), secret, "maelle", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	if s.NeedsSetup() || s.SetupLink() != "" {
		t.Error("the link is still shown")
	}
	if err := s.SetUp(t.Context(), secret, "mallory", "correct horse battery"); problem(err).Kind != appliance.Denied {
		t.Errorf("the link worked twice: %v", err)
	}
	session, err := s.Login(t.Context(), "maelle", "correct horse battery", "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	who, csrf, err := s.Session(t.Context(), session, "10.0.0.1")
	if err != nil || who.Name != "maelle" || who.Role != appliance.Owner || len(csrf) != 64 {
		t.Errorf("the session is %+v, %q, %v", who, csrf, err)
	}
	if err := s.Logout(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Session(t.Context(), session, "10.0.0.1"); problem(err).Kind != appliance.NoLogin {
		t.Errorf("after logging out: %v", err)
	}
	if err := s.DeleteAdmin(t.Context(), who, "maelle"); problem(err).Kind != appliance.Conflict {
		t.Errorf("the last owner could go: %v", err)
	}
}

func TestGuessingIsSlowedDown(t *testing.T) {
	s := start(t, nil)
	if err := s.SetUp(t.Context(), secretOf(t, s.SetupLink()), "maelle", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if _, err := s.Login(t.Context(), "maelle", fmt.Sprint("guess ", i), "10.0.0.9"); problem(err).Kind != appliance.NoLogin {
			t.Fatalf("guess %d: %v", i, err)
		}
	}
	_, err := s.Login(t.Context(), "maelle", "correct horse battery", "10.0.0.9")
	if p := problem(err); p.Kind != appliance.TooMany || !strings.Contains(p.Msg, "Next try in") {
		t.Errorf("after five guesses: %v", err)
	}
}

// TestManyGuessesAtOnce sends its guesses together, before the first of them
// is known to be wrong.
func TestManyGuessesAtOnce(t *testing.T) {
	s := start(t, nil)
	if err := s.SetUp(t.Context(), secretOf(t, s.SetupLink()), "maelle", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	var heard, slowed atomic.Int64
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			_, err := s.Login(t.Context(), "maelle", fmt.Sprint("guess ", i), "10.0.0.9")
			switch problem(err).Kind {
			case appliance.NoLogin:
				heard.Add(1)
			case appliance.TooMany:
				slowed.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if heard.Load() > 5 || heard.Load()+slowed.Load() != 40 {
		t.Errorf("%d of 40 guesses were looked at, %d slowed down", heard.Load(), slowed.Load())
	}
}

// TestSessionsEndWithThePassword changes a password, and deletes and makes an
// admin, while somebody is logged in.
func TestSessionsEndWithThePassword(t *testing.T) {
	s := start(t, nil)
	if err := s.SetUp(t.Context(), secretOf(t, s.SetupLink()), "maelle", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	put := func(role appliance.Role, password string) {
		t.Helper()
		if err := s.PutAdmin(t.Context(), owner, "yann", role, password); err != nil {
			t.Fatal(err)
		}
	}
	login := func(password string) (session string) {
		t.Helper()
		session, err := s.Login(t.Context(), "yann", password, "10.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		return session
	}
	put(appliance.Operator, "staple battery horse")
	session := login("staple battery horse")
	put(appliance.Viewer, "")
	if who, _, err := s.Session(t.Context(), session, "10.0.0.1"); err != nil || who.Role != appliance.Viewer {
		t.Errorf("with another role: %+v, %v", who, err)
	}
	put(appliance.Viewer, "horse battery staple")
	if _, _, err := s.Session(t.Context(), session, "10.0.0.1"); problem(err).Kind != appliance.NoLogin {
		t.Errorf("after the password was changed: %v", err)
	}
	session = login("horse battery staple")
	if err := s.DeleteAdmin(t.Context(), owner, "yann"); err != nil {
		t.Fatal(err)
	}
	put(appliance.Owner, "horse battery staple")
	if _, _, err := s.Session(t.Context(), session, "10.0.0.1"); problem(err).Kind != appliance.NoLogin {
		t.Errorf("after the admin was deleted and made again: %v", err)
	}
}

func TestTokensOfTheAPI(t *testing.T) {
	s := start(t, nil)
	row, text, err := s.MakeToken(t.Context(), owner, appliance.TokenOptions{Name: "backup", Use: appliance.ForAPI, Role: appliance.Viewer, Expires: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	c, err := api.NewClient(api.ClientOptions{URL: s.URL(), Token: text, Pin: s.Pin()})
	if err != nil {
		t.Fatal(err)
	}
	var st appliance.Status
	if err := c.Get(t.Context(), "status", nil, &st); err != nil || st.Node != "rns-01" {
		t.Errorf("a viewer reads the status: %+v, %v", st, err)
	}
	err = c.Do(t.Context(), "POST", "folder/clean", nil, nil)
	if p, ok := errors.AsType[*agentproto.Problem](err); !ok || p.Status != http.StatusForbidden || !strings.Contains(p.Title, "operator") {
		t.Errorf("a viewer cleans: %v", err)
	}
	_, old, err := s.MakeToken(t.Context(), owner, appliance.TokenOptions{Name: "script", Use: appliance.ForAPI, Role: appliance.Owner, Expires: time.Hour})
	if err == nil {
		err = s.ExpireTokens(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	late, err := api.NewClient(api.ClientOptions{URL: s.URL(), Token: old, Pin: s.Pin()})
	if err != nil {
		t.Fatal(err)
	}
	err = late.Do(t.Context(), "POST", "folder/clean", nil, nil)
	if p, ok := errors.AsType[*agentproto.Problem](err); !ok || p.Status != http.StatusUnauthorized || !strings.Contains(p.Title, "The token script expired on ") || !strings.Contains(p.Hint, "Admins and tokens") {
		t.Errorf("an expired token: %v", err)
	}
	if err := s.RevokeToken(t.Context(), owner, row.ID); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), "status", nil, &st); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("a revoked token: %v", err)
	}
	if _, err := api.NewClient(api.ClientOptions{URL: "http://x"}); err == nil {
		t.Error("a token would travel in the clear")
	}
	wrong, _ := api.NewClient(api.ClientOptions{URL: s.URL(), Token: text, Pin: strings.Repeat("0", 64)})
	if err := wrong.Get(t.Context(), "status", nil, &st); err == nil || !strings.Contains(err.Error(), "another authority") {
		t.Errorf("a node that is not the one expected: %v", err)
	}
}

// TestListeners looks at what strangers get.
func TestListeners(t *testing.T) {
	s := start(t, nil)
	get := func(url string) (*http.Response, string) {
		resp, err := insecure().Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp, string(b)
	}
	plain := strings.TrimSuffix(s.FolderURL(), "/waptwua/")
	if resp, _ := get(plain + "/updates?q=x"); resp.StatusCode != http.StatusMovedPermanently || resp.Header.Get("Location") != s.URL()+"/updates?q=x" {
		t.Errorf("plain HTTP: %d to %s, want %s", resp.StatusCode, resp.Header.Get("Location"), s.URL())
	}
	if resp, body := get(s.URL() + "/healthz"); resp.StatusCode != 200 || !strings.Contains(body, `"ok":true`) {
		t.Errorf("/healthz: %d %s", resp.StatusCode, body)
	}
	if _, body := get(s.URL() + "/metrics"); !strings.Contains(body, "wuamesh_hosts 0\n") {
		t.Errorf("/metrics: %s", body)
	}
	if resp, body := get(s.URL() + "/api/v1/status"); resp.StatusCode != http.StatusUnauthorized || !strings.Contains(body, "needs a token") {
		t.Errorf("the API without a token: %d %s", resp.StatusCode, body)
	}
	if resp, body := get(s.URL() + agentproto.PathCheckin); resp.StatusCode == 200 {
		t.Errorf("the agents' protocol without a certificate: %d %s", resp.StatusCode, body)
	}
	for _, name := range []string{"../data/console.json", "..%2fdata%2fconsole.json", ".partial/x", ".partial", "%2e%2e/x", "a/b", "nul", "x%00", ""} {
		if resp, body := get(s.FolderURL() + name); resp.StatusCode < 300 {
			t.Errorf("the folder serves %q: %d %.60s", name, resp.StatusCode, body)
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	s := start(t, nil)
	discard := slog.New(slog.DiscardHandler)
	taken := strings.TrimPrefix(s.URL(), "https://")
	cfg := func(change func(*appliance.Config)) appliance.Config {
		dir := t.TempDir()
		c := appliance.DevConfig()
		c.Data, c.Folder, c.ListenHTTPS, c.ListenHTTP = filepath.Join(dir, "data"), filepath.Join(dir, "waptwua"), "127.0.0.1:0", "127.0.0.1:0"
		change(&c)
		return c
	}
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	for name, tt := range map[string]struct {
		cfg  appliance.Config
		want string
	}{
		"port taken":  {cfg(func(c *appliance.Config) { c.ListenHTTPS = taken }), "is taken by another program"},
		"store taken": {cfg(func(c *appliance.Config) { c.Data = filepath.Join(s.dir, "data") }), "Another wuamesh runs with the data"},
		"no folder":   {cfg(func(c *appliance.Config) { c.Folder = file }), "cannot be used"},
		"no upstream": {cfg(func(c *appliance.Config) { c.Upstream = "mirror" }), "upstream"},
		"half a pair": {cfg(func(c *appliance.Config) { c.TLSCert = "x" }), "come together"},
	} {
		node, err := appliance.Open(tt.cfg, discard)
		if err == nil {
			node.Close()
		}
		if p := problem(err); !strings.Contains(p.Msg, tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// TestChangingOnesPassword wants the old one, leaves the role, and ends every
// session; who guesses waits.
func TestChangingOnesPassword(t *testing.T) {
	s := start(t, nil)
	if err := s.PutAdmin(t.Context(), owner, "paul", appliance.Viewer, "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	paul := appliance.Actor{Name: "paul", Role: appliance.Viewer, Address: "10.0.0.7"}
	session, err := s.Login(t.Context(), "paul", "correct horse battery", "10.0.0.7")
	if err != nil {
		t.Fatal(err)
	}
	for now, next := range map[string]string{"a wrong password": "staple battery horse", "correct horse battery": "short"} {
		if err := s.ChangePassword(t.Context(), paul, now, next); err == nil {
			t.Errorf("%q for %q is taken", next, now)
		}
	}
	if _, _, err := s.Session(t.Context(), session, ""); err != nil {
		t.Errorf("a session ended without a change: %v", err)
	}
	if err := s.ChangePassword(t.Context(), paul, "correct horse battery", "staple battery horse"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Session(t.Context(), session, ""); err == nil {
		t.Error("a session of the old password goes on")
	}
	session, err = s.Login(t.Context(), "paul", "staple battery horse", "10.0.0.7")
	if who, _, err2 := s.Session(t.Context(), session, ""); err != nil || err2 != nil || who.Role != appliance.Viewer {
		t.Errorf("with the new one: %+v, %v, %v", who, err, err2)
	}
	for range 5 {
		s.ChangePassword(t.Context(), paul, "a guess at it", "staple battery horse")
	}
	if p := problem(s.ChangePassword(t.Context(), paul, "staple battery horse", "correct horse battery")); p.Kind != appliance.TooMany {
		t.Errorf("after five guesses: %+v", p)
	}
}
