package appliance_test

import (
	"bytes"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/authenticode/authenticodetest"
	"wuamesh/appliance/microsoft/cab/cabtest"
	"wuamesh/appliance/microsoft/microsofttest"
)

// plainCab is a cabinet that is not signed.
func plainCab(t testing.TB, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := cabtest.NewWriter(&out, cabtest.MSZIP)
	err := w.Create("update.mum", time.Date(2026, 11, 10, 17, 0, 0, 0, time.UTC))
	if err == nil {
		_, err = w.Write(bytes.Repeat([]byte(text), 2_000))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// ossl has osslsigncode sign a cabinet with the keys of an authority.
func ossl(t testing.TB, a *authenticodetest.Authority, cab []byte) []byte {
	t.Helper()
	dir := t.TempDir()
	cert, issuer, key := a.Signer(authenticodetest.SignerOptions{}).PEM()
	for name, b := range map[string][]byte{"in.cab": cab, "cert": cert, "issuer": issuer, "key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("osslsigncode", "sign", "-certs", "cert", "-ac", "issuer", "-key", "key", "-h", "sha256", "-in", "in.cab", "-out", "out.cab")
	cmd.Dir = dir
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("osslsigncode (./packaging/check installs it): %v\n%s", err, b)
	}
	b, err := os.ReadFile(filepath.Join(dir, "out.cab"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *site) upload(t testing.TB, name string, b []byte) (appliance.Upload, error) {
	t.Helper()
	return s.Upload(t.Context(), owner, name, int64(len(b)), bytes.NewReader(b))
}

// noSpool says that nothing is left of refused uploads.
func (s *site) noSpool(t testing.TB) {
	t.Helper()
	if list, err := os.ReadDir(filepath.Join(s.dir, "waptwua", ".upload")); err == nil && len(list) > 0 {
		t.Errorf("refused uploads are left behind: %v", list)
	}
}

// TestAnUploadedFileIsServed brings a file no update names, and one that the
// scan cab has under another name than the admin gave it.
func TestAnUploadedFileIsServed(t *testing.T) {
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 2, FileBytes: 20_000})
	known := ossl(t, authenticodetest.NewAuthority(1), plainCab(t, "known to the catalogue "))
	file := world.Give(0, known)
	srv := httptest.NewServer(world)
	defer srv.Close()
	dir := t.TempDir()
	s := startIn(t, dir, world, srv.URL, nil)
	s.catalogued(t, len(world.Updates()))

	band := ossl(t, authenticodetest.NewAuthority(1), plainCab(t, "out of band "))
	up, err := s.Upload(t.Context(), owner, "kb5099999-x64.msu", -1, iotest.OneByteReader(bytes.NewReader(band)))
	if err != nil || up.Name != "kb5099999-x64.msu" || up.Title != "" || up.Signer != "Microsoft Corporation" || up.Size != int64(len(band)) {
		t.Fatalf("a file no update names: %+v, %v", up, err)
	}
	if resp, b := get(t, "GET", s.FolderURL()+up.Name); resp.StatusCode != 200 || !bytes.Equal(b, band) {
		t.Errorf("it is served as %d bytes, %s", len(b), resp.Status)
	}
	up, err = s.upload(t, "my-copy.cab", known)
	if err != nil || up.Name != file.Name || up.Title != world.Updates()[0].Title || up.SHA256 != file.SHA256 {
		t.Fatalf("a file of the catalogue: %+v, %v; it is %s", up, err, file.Name)
	}
	if resp, b := get(t, "GET", s.FolderURL()+file.Name); resp.StatusCode != 200 || !bytes.Equal(b, known) {
		t.Errorf("it is served as %d bytes, %s", len(b), resp.Status)
	}
	if up, err := s.upload(t, "again.cab", known); err != nil || !up.Already {
		t.Errorf("a second time: %+v, %v", up, err)
	}
	entries, _, err := s.Audit(t.Context(), "file kb5099999-x64.msu", appliance.Page{})
	if err != nil || len(entries) != 1 || entries[0].Action != "upload file" || entries[0].Actor != owner.Name || !strings.Contains(entries[0].After, "signed by Microsoft Corporation") {
		t.Errorf("the audit log has %+v, %v", entries, err)
	}
	s.noSpool(t)
	s.stop()

	s = startIn(t, dir, world, srv.URL, nil)
	list, err := s.Uploads(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "kb5099999-x64.msu" || list[0].By != owner.Name || list[0].Signer != "Microsoft Corporation" {
		t.Errorf("after a restart the uploads are %+v, %v", list, err)
	}
	if err := s.serves("kb5099999-x64.msu")(); err != nil {
		t.Error(err)
	}
	s.Age(48 * time.Hour)
	plan, err := s.Clean(t.Context(), owner)
	if err != nil || len(plan.Files) != 1 || plan.Files[0].Name != file.Name {
		t.Errorf("cleaning takes %+v, %v; want what the catalogue knows and no host needs", plan.Files, err)
	}
	if err := s.DeleteFile(t.Context(), owner, "kb5099999-x64.msu"); err != nil {
		t.Error(err)
	}
	if list, err := s.Uploads(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("after it was deleted the uploads are %+v, %v", list, err)
	}
}

// TestAnUploadThatIsRefused brings what nobody may get: each is told in words,
// nothing of it is served, and nothing is left on the disk.
func TestAnUploadThatIsRefused(t *testing.T) {
	s := start(t, nil)
	s.catalogued(t, len(s.world.Updates()))
	plain := plainCab(t, "an update ")
	good := ossl(t, authenticodetest.NewAuthority(1), plain)
	altered := bytes.Clone(good)
	altered[len(plain)/2] ^= 1
	named := s.world.Updates()[0].Files[0].Name
	for what, tt := range map[string]struct {
		name string
		body []byte
		says string
	}{
		"unsigned":       {"a.cab", plain, "a.cab is not signed"},
		"altered":        {"a.cab", altered, "a.cab was changed after it was signed"},
		"appended":       {"a.msu", append(bytes.Clone(good), "more"...), "a.msu was changed after it was signed"},
		"cut":            {"a.cab", good[:len(good)-9], "a.cab was changed after it was signed"},
		"other root":     {"a.cab", ossl(t, authenticodetest.NewAuthority(99), plain), "signed by somebody this node does not trust (CN=Microsoft Corporation"},
		"no cabinet":     {"a.msu", bytes.Repeat([]byte("MSWIM"), 5000), "a.msu is no cabinet"},
		"empty":          {"a.cab", nil, "a.cab is no cabinet"},
		"no digest's":    {named, good, "another file than the one known by that name: its SHA-1 is"},
		"another kind":   {"setup.exe", good, "neither a .cab nor an .msu"},
		"a path":         {"../a.cab", good, "is no name for a file"},
		"hidden":         {".a.cab", good, "is no name for a file"},
		"a scan cab too": {"wsusscn2.cab", s.world.Unsigned(), "wsusscn2.cab is not signed"},
	} {
		_, err := s.upload(t, tt.name, tt.body)
		p, ok := appliance.AsProblem(err)
		if !ok || !strings.Contains(p.Msg, tt.says) {
			t.Errorf("%s: %v, want a problem that says %q", what, err, tt.says)
		}
		if resp, _ := get(t, "GET", s.FolderURL()+filepath.Base(tt.name)); tt.name != "wsusscn2.cab" && resp.StatusCode == 200 {
			t.Errorf("%s is served", what)
		}
		s.noSpool(t)
	}
	if resp, b := get(t, "GET", s.FolderURL()+cab); resp.StatusCode != 200 || !bytes.Equal(b, s.world.Cab()) {
		t.Errorf("the scan cab in service is %d bytes, %s", len(b), resp.Status)
	}
	_, err := s.Upload(t.Context(), owner, "a.cab", int64(len(good)), io.MultiReader(bytes.NewReader(good[:1000]), iotest.ErrReader(io.ErrUnexpectedEOF)))
	if p, ok := appliance.AsProblem(err); !ok || !strings.Contains(p.Msg, "ended before the file was whole") {
		t.Errorf("a broken connection: %v", err)
	}
	_, err = s.Upload(t.Context(), appliance.Actor{Name: "v", Role: appliance.Viewer}, "a.cab", int64(len(good)), bytes.NewReader(good))
	if p, ok := appliance.AsProblem(err); !ok || p.Kind != appliance.Denied {
		t.Errorf("a viewer: %v", err)
	}
	s.noSpool(t)
}

// An endless reader counts what was taken of it.
type endless struct{ n int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.n += int64(len(p))
	return len(p), nil
}

// TestAnUploadLeavesTheFloorFree refuses what the disk has no room for: before
// the first byte where the size is told, in the middle where it is not.
func TestAnUploadLeavesTheFloorFree(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "waptwua")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	smallDisk(t, folder, "64m")
	s := startIn(t, dir, nil, "", func(c *appliance.Config) { c.Internet, c.DiskFloor = false, 8<<20 })
	_, err := s.Upload(t.Context(), owner, "a.cab", 1<<31, new(endless))
	if p, ok := appliance.AsProblem(err); !ok || p.Kind != appliance.Full || !strings.Contains(p.Hint, "upload again") {
		t.Errorf("with its size told: %v", err)
	}
	e := new(endless)
	_, err = s.Upload(t.Context(), owner, "a.cab", -1, e)
	if p, ok := appliance.AsProblem(err); !ok || p.Kind != appliance.Full {
		t.Errorf("without: %v", err)
	}
	if e.n > 64<<20 {
		t.Errorf("%d MB were taken onto a disk of 64 MB with 8 to keep", e.n>>20)
	}
	s.noSpool(t)
}

// TestAScanCabByHand is uploaded to a node without a way to Microsoft; the
// same again changes nothing, and one that lies is not taken.
func TestAScanCabByHand(t *testing.T) {
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 1000})
	s := startIn(t, t.TempDir(), world, "", func(c *appliance.Config) { c.Internet = false })
	if up, err := s.upload(t, cab, world.Cab()); err != nil || up.Name != cab || up.Already {
		t.Fatalf("%+v, %v", up, err)
	}
	if resp, b := get(t, "GET", s.FolderURL()+cab); resp.StatusCode != 200 || !bytes.Equal(b, world.Cab()) {
		t.Errorf("it is served as %d bytes, %s", len(b), resp.Status)
	}
	s.catalogued(t, len(world.Updates()))
	if up, err := s.upload(t, cab, world.Cab()); err != nil || !up.Already {
		t.Errorf("a second time: %+v, %v", up, err)
	}
	world.Publish(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))
	if _, err := s.upload(t, cab, world.Cab()); err != nil {
		t.Fatal(err)
	}
	s.catalogued(t, len(world.Updates()))
	if list, err := s.Uploads(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("the scan cab is among %+v, %v", list, err)
	}
}
