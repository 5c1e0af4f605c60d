package packaging_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestServeSaysWhyNot starts a node that has something to lose on what it
// cannot start with. Each time it ends at once, with one sentence that says
// what is wrong and one that says what to do; then everything is as it was.
func TestServeSaysWhyNot(t *testing.T) {
	dir := t.TempDir()
	name := withFile(t, dir, 1<<20)
	p := launch(t, dir, "internet = false")
	p.serves(name)
	if _, err := p.enrolled(1)[0].Report(t.Context(), scanned(5, 0)); err != nil {
		t.Fatal(err)
	}
	p.Process.Signal(syscall.SIGTERM)
	<-p.ended
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	good, data, folder := filepath.Join(dir, "wuamesh.toml"), filepath.Join(dir, "data"), filepath.Join(dir, "waptwua")
	bad := filepath.Join(dir, "bad.toml")
	base, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	config := func(text string) func() string {
		return func() string {
			if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			return bad
		}
	}
	closed := func(path string, mode os.FileMode) func() string {
		return func() string {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Chmod(path, 0o755) })
			return good
		}
	}
	for _, tt := range []struct {
		what       string
		with       func() string // what makes it bad; returns the configuration
		want, hint string
		mend       string // path that is given back its rights
	}{
		{"an unknown key", config("intrenet = true\n" + string(base)), bad + `, line 1: there is no key "intrenet".`, `Did you mean "internet"?`, ""},
		{"a text that has no end", config("name = \"rns\n"), bad + ", line 1: ", "shipped file", ""},
		{"a number for a text", config("name = 5\n"), bad + ", line 1: name takes text in quotes.", "shipped file", ""},
		{"a text for yes or no", config("\ninternet = \"yes\"\n"), bad + ", line 2: internet takes true or false.", "shipped file", ""},
		{"a text for a list", config("sources = \"x\"\n"), bad + ", line 1: sources takes a list", "shipped file", ""},
		{"no text at all", config("\x00\xff\xfe"), bad + ", line 1: ", "shipped file", ""},
		{"a configuration that is not there", func() string { return filepath.Join(dir, "none.toml") }, "none.toml cannot be read: no such file or directory.", "--config", ""},
		{"a directory", func() string { return dir }, dir + " cannot be read: is a directory.", "--config", ""},
		{"a configuration of others", closed(good, 0), good + " cannot be read: permission denied.", "--config", good},
		{"a folder of others", closed(folder, 0), "The folder " + folder + " cannot be read and written.", "chown", folder},
		{"a folder that is only listed", closed(folder, 0o444), "The folder " + folder + " cannot be read and written.", "chown", folder},
		{"a folder that is only read", closed(folder, 0o555), "The folder " + folder + " cannot be read and written.", "chown", folder},
		{"data of others", closed(data, 0), "The data directory " + data + " cannot be written.", "chown", data},
		{"data that is only read", closed(data, 0o500), "The data directory " + data + " cannot be written.", "chown", data},
		{"a taken port", config(strings.Replace(string(base), "listen_https = \"127.0.0.1:0\"", fmt.Sprintf("listen_https = %q", taken.Addr()), 1)), "is taken by another program.", "listen_https", ""},
		{"the folder's port", config(strings.Replace(string(base), "listen_http = \"127.0.0.1:0\"", fmt.Sprintf("listen_http = %q", taken.Addr()), 1)), "is taken by another program.", "listen_http", ""},
		{"an address of another machine", config(strings.Replace(string(base), "listen_https = \"127.0.0.1:0\"", "listen_https = \"192.0.2.77:443\"", 1)), "192.0.2.77:443 is no address of this machine.", "listen_https", ""},
	} {
		t.Run(tt.what, func(t *testing.T) {
			out, code := refused(t, tt.with())
			if tt.mend != "" {
				if err := os.Chmod(tt.mend, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			what, hint, ok := strings.Cut(strings.TrimSuffix(out, "\n"), "\n")
			if code != 1 || !ok || strings.Contains(hint, "\n") || !strings.HasPrefix(what, "wuamesh serve: ") || !strings.Contains(what, tt.want) || !strings.Contains(hint, tt.hint) {
				t.Errorf("it ends with %d and says\n%s\nwant %q, %q", code, out, tt.want, tt.hint)
			}
		})
	}
	p = launch(t, dir, "internet = false")
	t.Run("data that is in use", func(t *testing.T) {
		if out, code := refused(t, good); code != 1 || !strings.Contains(out, "Another wuamesh runs with the data in "+data) {
			t.Errorf("it ends with %d and says\n%s", code, out)
		}
	})
	p.serves(name)
	if out, code := p.command("hosts", "--json", string(hostOf(0))); code != 0 || strings.Count(out, "10000000-0000-4000-8000-") != 5 {
		t.Errorf("the host's five statuses are\n%s", out)
	}
}

// TestAFolderThatCannotBeRead takes the folder away from a node that runs. It
// says so to everyone who asks, forgets nothing, and goes on by itself.
func TestAFolderThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	name, folder := withFile(t, dir, 1<<20), filepath.Join(dir, "waptwua")
	p := launch(t, dir, "internet = false\ndisk_floor = \"1 MB\"")
	p.serves(name)
	insecure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	get := func(url string, status int, want string) {
		t.Helper()
		resp, err := insecure.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); resp.StatusCode != status || !strings.Contains(string(b), want) || err != nil {
			t.Errorf("%s: %s, %v\n%.500s\nwant %q", url, resp.Status, err, b, want)
		}
	}
	for _, mode := range []os.FileMode{0, 0o444} {
		if err := os.Chmod(folder, mode); err != nil {
			t.Fatal(err)
		}
		get(p.folder+name, 503, "The folder of rns-01 cannot be read now: permission denied.")
		get(p.url+"/healthz", 503, "the folder "+folder+" cannot be read and written")
		if out, code := p.command("status"); code != 0 || !strings.Contains(out, "! The folder "+folder+" cannot be read and written.") || !strings.Contains(out, "chown") || !strings.Contains(out, "1 file,") {
			t.Errorf("status ends with %d and says\n%s", code, out)
		}
		if out, code := p.command("doctor"); code != 1 || !strings.Contains(out, "✗ folder ") {
			t.Errorf("doctor ends with %d and says\n%s", code, out)
		}
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		get(p.folder+name, 200, "")
		get(p.url+"/healthz", 200, `"ok":true`)
	}
	// The directory is gone, as a disk that was unmounted.
	if err := os.Rename(folder, folder+".away"); err != nil {
		t.Fatal(err)
	}
	get(p.url+"/healthz", 503, "the folder "+folder+" cannot be used: no such file or directory")
	if out, code := p.command("status"); code != 0 || !strings.Contains(out, "! The folder "+folder+" cannot be used: no such file or directory.") {
		t.Errorf("status ends with %d and says\n%s", code, out)
	}
	if err := os.Rename(folder+".away", folder); err != nil {
		t.Fatal(err)
	}
	get(p.folder+name, 200, "")
	get(p.url+"/healthz", 200, `"ok":true`)
}
