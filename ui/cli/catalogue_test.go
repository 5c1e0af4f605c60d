package cli_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wuamesh/appliance/microsoft/microsofttest"
)

// TestCatalogueOfAFile looks into a scan cab without any node.
func TestCatalogueOfAFile(t *testing.T) {
	world := microsofttest.New(microsofttest.Options{Seed: 3, Months: 2})
	dir := t.TempDir()
	t.Setenv("TMPDIR", t.TempDir())
	root, err := world.RootFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.cab", world.Cab())
	bare := write("bare.cab", world.Unsigned())
	altered := bytes.Clone(world.Cab())
	altered[len(altered)/3] ^= 1
	bad := write("bad.cab", altered)
	kept := filepath.Join(dir, "kept")
	list := world.Updates()
	newest := list[len(list)-1]
	var replaced microsofttest.Update
	for _, u := range list {
		if len(u.Supersedes) > 0 {
			replaced = u
		}
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"verify", good, "--root", root}, 0, "signed by  CN=Microsoft Corporation"},
		{[]string{"verify", good, "--root", root}, 0, "one of --root, not Microsoft's"},
		{[]string{"verify", good}, 1, "leads to no root that is trusted: CN=Microsoft Corporation"},
		{[]string{"verify", bare, "--root", root}, 1, "is not signed"},
		{[]string{"verify", bad, "--root", root}, 1, "changed after it was signed"},
		{[]string{"verify", bad, "--root", root, "--json"}, 1, `"holds": false`},
		{[]string{"verify", dir + "/none.cab"}, 1, "no such file"},
		{[]string{"show", good, "--root", root}, 0, "Windows 11"},
		{[]string{"show", bare}, 0, "! " + bare + " is not to be trusted"},
		{[]string{"show", root}, 1, root},
		{[]string{"show", good, "KB" + newest.KB}, 0, "SHA-256 " + newest.Files[0].SHA256},
		{[]string{"show", good, newest.ID}, 0, newest.Files[0].URL},
		{[]string{"show", good, replaced.ID}, 0, "replaces     " + replaced.Supersedes[0]},
		{[]string{"show", good, replaced.Supersedes[0]}, 0, "replaced by  " + replaced.ID},
		{[]string{"show", good, "KB1"}, 1, "no update KB1"},
		{[]string{"search", good, "kb" + newest.KB}, 0, newest.Title},
		{[]string{"search", good, "--severity", "moderate", "--product", "windows 11"}, 0, "Moderate"},
		{[]string{"search", good, "--product", "windows 95"}, 1, "no product is called"},
		{[]string{"search", good, "--severity", "grave"}, 2, "grave"},
		{[]string{"search", good, "cumulative", "--limit", "1", "--keep", kept}, 0, "1 of "},
		{[]string{"search", kept, replaced.Supersedes[0], "--superseded"}, 0, replaced.Supersedes[0]},
		{[]string{"search", kept, replaced.Supersedes[0]}, 0, "0 of 0"},
		{[]string{"weigh", good}, 2, "it takes show"},
		{[]string{"show"}, 2, "and a FILE"},
	} {
		out, stderr, code := run(t, append([]string{"catalogue"}, tt.args...)...)
		if code != tt.code || !strings.Contains(out+stderr, tt.want) {
			t.Errorf("catalogue %s: exit %d, want %d and %q:\n%s%s", strings.Join(tt.args, " "), code, tt.code, tt.want, out, stderr)
		}
	}
	out, _, _ := run(t, "catalogue", "show", kept, newest.ID, "--json")
	var got []struct {
		ID    string
		Files []struct{ SHA1, SHA256, URL string }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || len(got) != 1 || got[0].ID != newest.ID || len(got[0].Files) != 1 || got[0].Files[0].SHA1 != newest.Files[0].SHA1 {
		t.Errorf("as JSON: %v\n%s", err, out)
	}
	if left, err := filepath.Glob(os.TempDir() + "/wuamesh-catalogue-*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
