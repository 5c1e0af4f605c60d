package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEditINI(t *testing.T) {
	for _, tt := range []struct {
		name, section, in, want string
		set                     map[string]string
	}{
		{"nothing there", "waptwua", "", "[waptwua]\nenabled = True\n", map[string]string{"enabled": "True"}},
		{"a new section", "waptwua", "[global]\r\nx=1\r\n", "[global]\r\nx=1\r\n\r\n[waptwua]\r\nenabled = True\r\n", map[string]string{"enabled": "True"}},
		{"no newline at the end", "waptwua", "[global]\nx=1", "[global]\nx=1\n\n[waptwua]\na = 1\nb = 2\n", map[string]string{"b": "2", "a": "1"}},
		{
			"other sections, comments and order stay", "waptwua",
			"; mine\n[global]\nenabled=1\n[waptwua]\n# why\nEnabled : no ; for now\nother=x\n\n[z]\nenabled=2\n",
			"; mine\n[global]\nenabled=1\n[waptwua]\n# why\nEnabled : True ; for now\nother=x\ninstall_delay = 7d\n\n[z]\nenabled=2\n",
			map[string]string{"enabled": "True", "install_delay": "7d"},
		},
		{"the last of two", "w", "[w]\na=1\n[b]\n[w]\na=2\n", "[w]\n[b]\n[w]\na= 3\n", map[string]string{"a": "3"}},
		{"removed, with its continuation", "w", "[w]\na=1\n  2\n  3\nb=4\n", "[w]\nb=4\n", map[string]string{"a": ""}},
		{"replaced, with its continuation", "w", "[w]\na=1\n  2\n#c\nb=4\n", "[w]\na= 9\n#c\nb=4\n", map[string]string{"a": "9"}},
		{"a byte order mark goes", "w", "\xEF\xBB\xBF[w]\na=1\n", "[w]\na=1\n", nil},
		{"UTF-16", "w", "\xFF\xFE[\x00w\x00]\x00\n\x00", "[w]\na = 1\n", map[string]string{"a": "1"}},
		{"bytes of a code page", "w", "[g]\n;\xe9t\xe9\n[w]\n", "[g]\n;\xe9t\xe9\n[w]\na = 1\n", map[string]string{"a": "1"}},
		{"rem is a comment", "w", "[w]\nrem a=1\n", "[w]\na = 1\nrem a=1\n", map[string]string{"a": "1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := string(editINI([]byte(tt.in), tt.section, tt.set))
			if got != tt.want {
				t.Errorf("got\n%q\nwant\n%q", got, tt.want)
			}
			if again := string(editINI([]byte(got), tt.section, tt.set)); again != got {
				t.Errorf("the second time it becomes\n%q", again)
			}
		})
	}
}

// FuzzEditINI: whatever the file is, the parser reads what was written, and
// every other section as before.
func FuzzEditINI(f *testing.F) {
	f.Add("[waptwua]\nenabled=0\n x\n[wuamesh]\nnodes=a\n", "True")
	f.Add("enabled=1", "False")
	f.Add("[waptwua\n[waptwua]x\nenabled", "")
	f.Fuzz(func(t *testing.T, in, v string) {
		if strings.ContainsAny(v, "\r\n;\v\f\x1c\x1d\x1e\x85") || v != strings.TrimSpace(v) || v == `""` || len(in) > 4096 || strings.ContainsRune(v, '\uFFFD') || !isASCII(v) {
			t.Skip()
		}
		var before, after Config
		was := before.sections(decodeText([]byte(in)))
		got := after.sections(decodeText(editINI([]byte(in), "waptwua", map[string]string{"enabled": v})))
		if got["waptwua"]["enabled"].text != v {
			t.Fatalf("%q, want %q", got["waptwua"]["enabled"].text, v)
		}
		for section, keys := range was {
			for key, value := range keys {
				if section == "waptwua" && key == "enabled" {
					continue
				}
				if got[section][key].text != value.text {
					t.Fatalf("[%s] %s was %q and is %q", section, key, value.text, got[section][key].text)
				}
			}
		}
	})
}

func isASCII(s string) bool {
	for _, r := range s {
		if r > 126 || r < 32 {
			return false
		}
	}
	return true
}

func TestWriteINI(t *testing.T) {
	path := filepath.Join(t.TempDir(), "wapt", "wapt-get.ini")
	c, err := WriteINI(path, "waptwua", map[string]string{"install_delay": "7d", "enabled": "True"})
	if err != nil || c.Settings.Enabled == nil || !*c.Settings.Enabled || len(c.Warnings) > 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	if _, err := WriteINI(path, "waptwua", map[string]string{"filter": "x\n[global]"}); err == nil {
		t.Error("a value of two lines was written")
	}
	b, err := os.ReadFile(path)
	if want := "[waptwua]\nenabled = True\ninstall_delay = 7d\n"; err != nil || string(b) != want {
		t.Errorf("%q, %v", b, err)
	}
}
