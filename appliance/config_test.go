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

// TestSizeIsWrittenAsItIsRead writes sizes that are read back the same.
func TestSizeIsWrittenAsItIsRead(t *testing.T) {
	for n, want := range map[appliance.Size]string{0: "0 B", 1: "1 B", 1024: "1 KiB", 1000: "1 kB", 500e9: "500 GB", 2 << 30: "2 GiB", 1_500_000: "1500 kB", 3 << 40: "3 TiB", 12345: "12345 B"} {
		var back appliance.Size
		if err := back.UnmarshalText([]byte(n.String())); err != nil || back != n || n.String() != want {
			t.Errorf("%d is written %q, want %q, and read %d, %v", int64(n), n, want, int64(back), err)
		}
	}
}
