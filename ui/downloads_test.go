package ui_test

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/authenticode/authenticodetest"
	"wuamesh/appliance/microsoft/cab/cabtest"
)

// send posts a form with a file, as a browser does.
func (a *admin) send(token, name string, content []byte) (int, string) {
	a.t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	w.WriteField("csrf", token)
	part, err := w.CreateFormFile("file", name)
	if err != nil {
		a.t.Fatal(err)
	}
	part.Write(content)
	w.Close()
	resp, err := a.Post(a.base+"/downloads/upload", w.FormDataContentType(), &body)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// TestUploadingAFile does it on the page Downloads: one that is refused, with
// the reason there, and one that is signed, listed and deleted.
func TestUploadingAFile(t *testing.T) {
	a := open(t)
	a.setUp()
	_, page := a.get("/downloads")
	token := csrf.FindStringSubmatch(page)[1]
	var plain bytes.Buffer
	w := cabtest.NewWriter(&plain, cabtest.MSZIP)
	if err := w.Create("update.mum", time.Date(2026, 11, 10, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	w.Write(bytes.Repeat([]byte("an update "), 300_000))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	signed := authenticodetest.NewAuthority(1).Signer(authenticodetest.SignerOptions{}).SignCab(plain.Bytes())
	if status, page := a.send("0123", "kb5099999.cab", signed); status != http.StatusForbidden || !strings.Contains(page, "from another session") {
		t.Errorf("with another session's token: %d\n%s", status, page)
	}
	for name, tt := range map[string]struct {
		content []byte
		says    string
	}{
		"kb5099999.cab": {plain.Bytes(), "kb5099999.cab is not signed"},
		"setup.exe":     {signed, "neither a .cab nor an .msu"},
		"":              {nil, "No file was chosen"},
	} {
		if status, page := a.send(token, name, tt.content); status < 400 || status >= 500 || !strings.Contains(page, tt.says) {
			t.Errorf("%s: %d, want %q\n%s", name, status, tt.says, page)
		}
	}
	status, page := a.send(token, `C:\Users\maelle\Downloads\kb5099999.cab`, signed)
	if status != 200 || !strings.Contains(page, "kb5099999.cab is verified, signed by Microsoft Corporation, and served") || !strings.Contains(page, "Uploaded, named by no update") {
		t.Fatalf("a signed file: %d\n%s", status, page)
	}
	if _, page := a.get("/audit"); !strings.Contains(page, "upload file") {
		t.Error("the audit log does not tell of it")
	}
	status, page = a.post("/downloads", "/files/delete", url.Values{"name": {"kb5099999.cab"}, "back": {"/downloads"}})
	if status != 200 || strings.Contains(page, "Uploaded, named by no update") || !strings.Contains(page, "does not return by itself") {
		t.Errorf("after it was deleted: %d\n%s", status, page)
	}
}

// TestDownloadButtons puts a waiting download first, pauses it, resumes it and
// cancels it, each with the button of its row.
func TestDownloadButtons(t *testing.T) {
	a := open(t)
	a.setUp()
	u := invented(1, "2026-11 Cumulative Update (KB5000001)", "Critical")
	a.enrol(1, pc("BRS-WKS-0001"), needs(u), u)
	if _, err := a.node.PutPackage(t.Context(), owner, "baseline", appliance.PackageEdit{
		Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{{Verb: rules.Allow, Kind: rules.BySeverity, Value: "Critical"}},
	}); err != nil {
		t.Fatal(err)
	}
	a.until("/downloads", u.Files[0].Name)
	list, _, err := a.node.Tasks(t.Context(), appliance.TaskQuery{Status: "queued"})
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	path := "/downloads/" + list[0].ID
	for _, tt := range []struct {
		do     string
		status int
		says   []string
	}{
		{"first", 200, []string{"goes before the others now", "Queued, the first"}},
		{"pause", 200, []string{"is paused on this node: what is here of it stays. 1 host waits for it.", "Paused by maelle", ">Resume</button>"}},
		{"pause", 409, []string{"is paused: it cannot be paused now."}},
		{"resume", 200, []string{"goes on where it was", ">Pause</button>"}},
		{"cancel", 200, []string{"is out of the queue. 1 host waits for it. It comes again when a host asks for it.", "Cancelled by maelle."}},
		{"dance", 404, nil},
	} {
		status, page := a.post("/downloads", path, url.Values{"do": {tt.do}, "back": {"/downloads"}})
		if tt.status == 409 && status == 422 || tt.status == 404 && status >= 400 && status < 500 {
			status = tt.status
		}
		if status != tt.status {
			t.Errorf("%s: %d", tt.do, status)
		}
		for _, want := range tt.says {
			if !strings.Contains(page, want) {
				t.Errorf("%s: the page does not say %q:\n%s", tt.do, want, page)
			}
		}
	}
	a.tidy("/downloads", 200)
}
