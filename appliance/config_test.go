package appliance_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wuamesh/appliance"
)

// TestShippedConfigIsTheDefault reads the file that ships and expects no key
// of the configuration to be missing from it.
func TestShippedConfigIsTheDefault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "wuamesh.toml")
	os.WriteFile(path, []byte(appliance.DefaultConfigText), 0o600)
	c, err := appliance.LoadConfig(path, appliance.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Data != "/var/lib/wuamesh" || c.Folder != "/var/www/waptwua" || !c.Internet || !c.CleanupKBs || c.DiskFloor != 2<<30 {
		t.Errorf("the shipped file reads as %+v", c)
	}
	if strings.Count(appliance.DefaultConfigText, "\n\n") < 12 {
		t.Error("keys of the shipped file are not explained one by one")
	}
}

func TestConfigErrorsSayWhere(t *testing.T) {
	for _, tt := range []struct{ text, msg, hint string }{
		{"listen_htps = \":443\"", `line 1: there is no key "listen_htps"`, `"listen_https"`},
		{"name = \"a\"\ncleanup = true", `line 2: there is no key "cleanup"`, `"cleanup_kbs"`},
		{"internet = \"yes\"", "line 1:", "shipped file"},
		{"disk_floor = \"a lot\"", "is no size", "shipped file"},
		{"data = \"\"\nlisten_http = \"80\"", "data: a directory is needed", ""},
		{"log_level = \"loud\"", "none of debug, info, warn, error", ""},
		{"name = ", "line 1", ""},
	} {
		path := filepath.Join(t.TempDir(), "wuamesh.toml")
		os.WriteFile(path, []byte(tt.text), 0o600)
		_, err := appliance.LoadConfig(path, appliance.DevConfig())
		p, ok := errors.AsType[*appliance.Problem](err)
		if !ok || !strings.Contains(p.Msg, tt.msg) || !strings.Contains(p.Hint, tt.hint) {
			t.Errorf("%q: %v, want %q and the hint %q", tt.text, err, tt.msg, tt.hint)
		}
	}
	if _, err := appliance.LoadConfig("/nowhere/wuamesh.toml", appliance.DevConfig()); err == nil || !strings.Contains(err.Error(), "/nowhere/wuamesh.toml") {
		t.Errorf("a file that is not there: %v", err)
	}
}
