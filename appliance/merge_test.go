package appliance_test

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/authenticode/authenticodetest"
	"wuamesh/appliance/microsoft/cab/cabtest"
	"wuamesh/appliance/microsoft/microsofttest"
)

// TestTheScanCabKnowsTheFiles has a host lie about the file it needs: the
// digests, sizes and URLs of the scan cab hold, and the update shows what the
// host said.
func TestTheScanCabKnowsTheFiles(t *testing.T) {
	s := start(t, nil)
	s.catalogued(t, len(s.world.Updates()))
	list, byID := described(s.world)
	s.allow(t)
	u := list[0]
	truth, other := u.Files[0], list[1].Files[0]
	lie := truth
	lie.SHA256, lie.Size, lie.URL = strings.Repeat("ab", 32), truth.Size-1, strings.Replace(truth.URL, "/c/", "/x/", 1)
	u.Files = append([]agentproto.File{lie}, other)
	u.CVEs = nil
	byID[u.ID] = u
	s.enrol(t, 1, s.enrolToken(t, 1)).report(t, needs(u), byID)
	s.has(t, truth.Name, status("done"))
	d, err := s.UpdateByID(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"the SHA-256 of " + truth.Name, fmt.Sprintf("has %d bytes. The scan cab says %d", lie.Size, truth.Size), "needs the file " + other.Name} {
		if !slices.ContainsFunc(d.Problems, func(p string) bool { return strings.Contains(p, want) }) {
			t.Errorf("%q is not among the problems %q", want, d.Problems)
		}
	}
	if len(d.Files) != 2 || d.Files[0].SHA256 != truth.SHA256 || d.Files[0].URL != truth.URL || d.Files[0].Kind != "SelfContained" || d.Files[1].Name != other.Name {
		t.Errorf("the files are %+v", d.Files)
	}
	if !slices.Equal(d.CVEs, list[0].CVEs) {
		t.Errorf("what the host left out: CVEs %q, want %q", d.CVEs, list[0].CVEs)
	}
	if st, err := s.Status(t.Context()); err != nil || !slices.ContainsFunc(st.Attention, func(a appliance.Attention) bool { return strings.Contains(a.Fact, "contradict") }) {
		t.Errorf("the overview says %+v, %v", st.Attention, err)
	}
}

// TestAnUpdateThatNoHostReported answers from the scan cab alone: what it is,
// which files it needs, and downloads them.
func TestAnUpdateThatNoHostReported(t *testing.T) {
	s := start(t, nil)
	list, _ := described(s.world)
	if _, err := s.UpdateByID(t.Context(), rules.UpdateID("00000000-0000-4000-8000-000000000001")); err == nil {
		t.Error("an update nobody knows is shown")
	}
	s.catalogued(t, len(list))
	newest := list[len(list)-1]
	i := slices.IndexFunc(list, func(u agentproto.Update) bool { return len(u.Supersedes) > 0 })
	for _, want := range []agentproto.Update{newest, list[i]} {
		d, err := s.UpdateByID(t.Context(), want.ID)
		if err != nil {
			t.Fatal(err)
		}
		f := want.Files[0]
		if d.Title != want.Title || !slices.Equal(d.KBs, want.KBs) || !slices.Equal(d.CVEs, want.CVEs) || d.Classification != want.Classification || !slices.Equal(d.Products, want.Products) || string(d.Restart) != want.Restart {
			t.Errorf("it is %+v, want %+v", d.UpdateRow, want)
		}
		if len(d.Files) != 1 || d.Files[0].Name != f.Name || d.Files[0].URL != f.URL || d.Files[0].Size != f.Size || d.Files[0].SHA1 != f.SHA1 || d.Files[0].SHA256 != f.SHA256 || d.Size != f.Size {
			t.Errorf("its files are %+v, want %+v", d.Files, f)
		}
		if len(d.OnHosts) != 0 || d.Hosts != (appliance.StateCounts{}) {
			t.Errorf("hosts have it: %+v", d.Hosts)
		}
	}
	newer, err := s.UpdateByID(t.Context(), list[i].ID)
	if err != nil || len(newer.Supersedes) != 1 || newer.Supersedes[0].ID != list[i].Supersedes[0] || newer.Supersedes[0].Title == "" {
		t.Errorf("it replaces %+v, %v", newer.Supersedes, err)
	}
	older, err := s.UpdateByID(t.Context(), list[i].Supersedes[0])
	if err != nil || len(older.SupersededBy) != 1 || older.SupersededBy[0].ID != list[i].ID {
		t.Errorf("it is replaced by %+v, %v", older.SupersededBy, err)
	}
	if n := len(newer.KBSiblings); n+1 != newer.Siblings || n == 0 {
		t.Errorf("%d siblings: %+v", newer.Siblings, newer.KBSiblings)
	}
	if n, err := s.DownloadUpdates(t.Context(), owner, []rules.UpdateID{newest.ID}); n != 1 || err != nil {
		t.Errorf("%d files are queued, %v", n, err)
	}
	s.has(t, newest.Files[0].Name, status("done"))
	if d, err := s.UpdateByID(t.Context(), newest.ID); err != nil || d.Download != appliance.Downloaded || d.Files[0].State != appliance.Downloaded {
		t.Errorf("after the download it is %+v, %v", d.UpdateRow, err)
	}
}

// TestAFileIsJudgedByTheNextScanCab puts a file into the folder whose name has
// the right SHA-1; then a scan cab comes that knows another SHA-256.
func TestAFileIsJudgedByTheNextScanCab(t *testing.T) {
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1})
	srv := httptest.NewServer(world)
	defer srv.Close()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "waptwua"), 0o755); err != nil {
		t.Fatal(err)
	}
	body := []byte("the content of a file that collides with Microsoft's")
	sum := fmt.Sprintf("%x", sha1.Sum(body))
	name := "windows10.0-kb5000001-x64_" + sum + ".cab"
	put(t, dir, name, body)
	s := startIn(t, dir, world, srv.URL, nil)
	s.catalogued(t, len(world.Updates()))
	eventually(t, "the file is served", s.serves(name))
	s.world.Replace(oneUpdate(t, name, sum, strings.Repeat("cd", 32), int64(len(body))), time.Date(2026, 12, 8, 0, 0, 0, 0, time.UTC))
	if err := s.DownloadCab(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	s.catalogued(t, 1)
	eventually(t, "the file is deleted", func() error {
		if _, err := os.Stat(filepath.Join(s.dir, "waptwua", name)); !os.IsNotExist(err) {
			return fmt.Errorf("it is there: %v", err)
		}
		return nil
	})
}

// oneUpdate is a signed scan cab of one update with one file.
func oneUpdate(t testing.TB, name, sha1, sha256 string, size int64) []byte {
	t.Helper()
	b64 := func(digits string) string {
		b, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(b)
	}
	graph := `<OfflineSyncPackage PackageId="p" CreationDate="2026-12-08T00:00:00Z"><Updates><Update CreationDate="2026-12-08T00:00:00Z" DefaultLanguage="en" UpdateId="00000000-0000-4000-8000-0000000000aa" RevisionNumber="1" RevisionId="1" IsLeaf="true"><PayloadFiles><File Id="` +
		b64(sha1) + `" /></PayloadFiles></Update></Updates><FileLocations><FileLocation Id="` + b64(sha1) + `" Url="http://download.windowsupdate.com/c/` + name + `" /></FileLocations></OfflineSyncPackage>`
	x := fmt.Sprintf(`<ExtendedProperties /><Files><File Digest="%s" FileName="%s" Size="%d"><AdditionalDigest Algorithm="SHA256">%s</AdditionalDigest></File></Files>`, b64(sha1), name, size, b64(sha256))
	cab := packed(t, "index.xml", `<INDEX><CABLIST><CAB NAME="package.cab"/><CAB NAME="package2.cab" RANGESTART="0"/></CABLIST></INDEX>`,
		"package.cab", packed(t, "package.xml", graph),
		"package2.cab", packed(t, "l/en/1", "<LocalizedProperties><Title>A title</Title></LocalizedProperties>", "x/1", x))
	return authenticodetest.NewAuthority(1).Signer(authenticodetest.SignerOptions{}).SignCab([]byte(cab))
}

// packed is a cabinet of names and contents.
func packed(t testing.TB, members ...string) string {
	t.Helper()
	var out strings.Builder
	w := cabtest.NewWriter(&out, cabtest.MSZIP)
	for i := 0; i < len(members); i += 2 {
		err := w.Create(members[i], time.Date(2026, 12, 8, 0, 0, 0, 0, time.UTC))
		if err == nil {
			_, err = io.WriteString(w, members[i+1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
