package packaging_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance/microsoft/microsofttest"
)

// TestTheLeaseHolderIsKilled kills the node that downloads a file from
// Microsoft, in the middle of it. The other one takes over once the lease is
// out. The one that was killed has the file soon after its restart: from the
// other, or the rest of it from Microsoft when it cannot reach the other yet,
// but no byte a second time.
func TestTheLeaseHolderIsKilled(t *testing.T) {
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 150_000})
	u := world.Updates()[0]
	file := u.Files[0]
	var mu sync.Mutex
	var asked []string // the Range of each request for the file
	half := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path.Base(r.URL.Path) != file.Name {
			world.ServeHTTP(w, r)
			return
		}
		mu.Lock()
		asked = append(asked, r.Header.Get("Range"))
		first := len(asked) == 1
		mu.Unlock()
		if !first {
			world.ServeHTTP(w, r)
			return
		}
		whole := httptest.NewRecorder()
		world.ServeHTTP(whole, r)
		for k, v := range whole.Header() {
			w.Header()[k] = v
		}
		w.Write(whole.Body.Bytes()[:file.Size/2])
		http.NewResponseController(w).Flush()
		close(half)
		<-r.Context().Done()
	}))
	t.Cleanup(srv.Close)
	root, err := world.RootFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("upstream = %q\nroots = [%q]\ndisk_floor = \"1 MB\"\nsite = ", srv.URL, root)
	dir := t.TempDir()
	one := launchAs(t, "rns-01", dir, config+`"rennes"`)
	two := launchAs(t, "brs-01", t.TempDir(), config+`"brest"`)
	one.must("init")
	two.must("join", "--site", "brest", one.must("token", "join"))
	one.api("PUT", "rules/all", map[string]any{"maturity": "PROD", "groups": []string{"all"}, "hosts": []string{}, "lines": []map[string]string{{"verb": "allow", "kind": "update", "value": u.ID}}})
	host := one.enrolled(1)[0]
	scan := scanned(0, 0)
	scan.Statuses = []agentproto.Status{{ID: rules.UpdateID(u.ID), Revision: u.Revision}}
	scan.Hash = agentproto.HashStatuses(scan.Statuses)
	if _, err := host.Report(t.Context(), scan); err != nil {
		t.Fatal(err)
	}
	known := agentproto.Report{Protocol: 1, Updates: []agentproto.Update{{
		ID: rules.UpdateID(u.ID), Revision: u.Revision, Title: u.Title, KBs: []string{u.KB}, Severity: rules.Severity(u.Severity), Published: u.Published, Restart: u.Restart,
		Classification: agentproto.Category{ID: rules.CategoryID(u.Classification.ID), Title: u.Classification.Title},
		Files:          []agentproto.File{{Name: file.Name, URL: file.URL, Size: file.Size, SHA1: file.SHA1, SHA256: file.SHA256}},
	}}}
	if _, err := host.Report(t.Context(), known); err != nil {
		t.Fatal(err)
	}
	<-half
	two.until("the other waits", func() bool {
		return strings.Contains(two.api("GET", "downloads", nil), "rns-01 downloads it from Microsoft.")
	})
	one.kill()
	two.serves(file.Name)
	one = launchAs(t, "rns-01", dir, config+`"rennes"`)
	one.serves(file.Name)
	mu.Lock()
	defer mu.Unlock()
	want := []string{"", "", fmt.Sprintf("bytes=%d-", file.Size/2)}
	if len(asked) < 2 || len(asked) > len(want) || !slices.Equal(asked, want[:len(asked)]) {
		t.Errorf("Microsoft was asked for %q, want at most %q", asked, want)
	}
}

// must types a command that has to work, and returns what it printed.
func (p *process) must(args ...string) string {
	p.t.Helper()
	out, code := p.command(args...)
	if code != 0 {
		p.t.Fatalf("wuamesh %s: exit %d\n%s", strings.Join(args, " "), code, out)
	}
	line, _, _ := strings.Cut(out, "\n")
	return line
}

// api calls the node's API as an owner.
func (p *process) api(method, path string, body any) string {
	p.t.Helper()
	if p.token == "" {
		p.token = p.must("token", "api", "--role", "owner", "--name", "test")
	}
	b, err := json.Marshal(body)
	if err != nil {
		p.t.Fatal(err)
	}
	req, err := http.NewRequest(method, p.url+"/api/v1/"+path, bytes.NewReader(b))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		p.t.Fatalf("%s %s: %s, %v\n%s", method, path, resp.Status, err, answer)
	}
	return string(answer)
}
