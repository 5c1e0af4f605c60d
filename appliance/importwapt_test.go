package appliance_test

import (
	"crypto/sha1"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"wuamesh/appliance"
)

// TestImportWAPT takes a WAPT server over that has good files, a bad one,
// strangers, and settings in its own spelling.
func TestImportWAPT(t *testing.T) {
	dir := t.TempDir()
	write := func(path, text string) string {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		return path
	}
	named := func(stem, text string) string { return fmt.Sprintf("%s_%x.cab", stem, sha1.Sum([]byte(text))) }
	good, bad := named("windows10.0-kb1", "good"), named("windows10.0-kb2", "something else")
	write("wapt/waptwua/"+good, "good")
	write("wapt/waptwua/"+bad, "bad")
	write("wapt/waptwua/readme.txt", "hello")
	write("wapt/waptwua/wsusscn2.cab", "cab")
	ini := write("waptserver.ini", "# WAPT\n[options]\nHTTP_Proxy = proxy.example:3128\ncleanup_kbs: False\nwaptwua_folder = "+filepath.Join(dir, "wapt/waptwua")+"\nsecret_key = x\n[other]\nhttp_proxy = http://not.this\n")
	config := write("wuamesh.toml", appliance.ShippedConfigText())
	load := func() appliance.Config {
		t.Helper()
		c, err := (appliance.ConfigSource{Path: config}).Load()
		if err != nil {
			t.Fatal(err)
		}
		c.Folder = filepath.Join(dir, "ours")
		return c
	}
	before, _ := os.ReadFile(config)
	quiet := func(int, int) {}
	im, err := appliance.ImportWAPT(t.Context(), ini, config, load(), true, quiet)
	if now, _ := os.ReadFile(config); err != nil || im.Adopted != 1 || string(now) != string(before) {
		t.Fatalf("a dry run: %+v, %v", im, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ours")); err == nil {
		t.Error("a dry run made the folder")
	}
	im, err = appliance.ImportWAPT(t.Context(), ini, config, load(), false, quiet)
	if err != nil || im.Adopted != 1 || im.Bytes != 4 || !slices.Equal(im.Wrong, []string{bad}) || !slices.Equal(im.Unknown, []string{"readme.txt"}) || im.InPlace {
		t.Fatalf("imported %+v, %v", im, err)
	}
	list, err := os.ReadDir(filepath.Join(dir, "ours"))
	if err != nil || len(list) != 2 || list[0].Name() != good || list[1].Name() != "wsusscn2.cab" {
		t.Errorf("the folder has %v, %v", list, err)
	}
	if !strings.Contains(strings.Join(im.Remarks, " "), "signature") {
		t.Errorf("of the scan cab it says %q", im.Remarks)
	}
	if c := load(); c.Proxy != "http://proxy.example:3128" || c.CleanupKBs {
		t.Errorf("the configuration says proxy %q, cleanup_kbs %v", c.Proxy, c.CleanupKBs)
	}
	if info, err := os.Stat(config); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the configuration's mode is %v, %v", info.Mode(), err)
	}
	if kept, _ := os.ReadFile(config + ".before-import"); string(kept) != string(before) {
		t.Error("the configuration before is not kept")
	}
	// Again: what the file sets stays, and the files are there already.
	im, err = appliance.ImportWAPT(t.Context(), ini, config, load(), false, quiet)
	if err != nil || len(im.Kept) != 2 || im.Adopted != 1 {
		t.Errorf("the second time: %+v, %v", im, err)
	}
	wrong := write("wrong.ini", "[options]\nhttp_proxy = \"quoted\"\ncleanup_kbs = maybe\n")
	im, err = appliance.ImportWAPT(t.Context(), wrong, config, load(), true, quiet)
	if err != nil || len(im.Settings) != 0 || !strings.Contains(strings.Join(im.Remarks, " "), "maybe") {
		t.Errorf("nonsense settings: %+v, %v", im, err)
	}
	if _, err := appliance.ImportWAPT(t.Context(), filepath.Join(dir, "none.ini"), config, load(), true, quiet); !strings.Contains(problem(err).Hint, "--ini") {
		t.Errorf("without a waptserver.ini: %v", err)
	}
}
