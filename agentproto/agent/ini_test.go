package agent_test

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/rules"
)

const day = 24 * time.Hour

// waptwua reads a section [waptwua] and returns what differs from the defaults.
func waptwua(lines ...string) agent.Config {
	return agent.ParseINI([]byte("[waptwua]\n" + strings.Join(lines, "\n") + "\n"))
}

// TestSeedSections are the two examples of WAPT's documentation.
func TestSeedSections(t *testing.T) {
	yes := true
	first := waptwua("enabled = True", "default_allow = False", "direct_download = False", "download_scheduling = 7d",
		"install_at_shutdown = True", "install_scheduling = 12h", "install_delay = 3d")
	want := rules.Settings{Enabled: &yes, DownloadScheduling: 7 * day, InstallAtShutdown: true, InstallScheduling: 12 * time.Hour, InstallDelay: 3 * day}
	if diff := cmp.Diff(want, first.Settings); diff != "" || len(first.Warnings) > 0 {
		t.Errorf("the first: %s, %v", diff, first.Warnings)
	}
	second := waptwua("enabled=true", "install_at_shutdown=true", "download_scheduling=7d", "allowed_severities=Critical,Important")
	want = rules.Settings{Enabled: &yes, InstallAtShutdown: true, DownloadScheduling: 7 * day, AllowedSeverities: []rules.Severity{rules.Critical, rules.Important}}
	if diff := cmp.Diff(want, second.Settings); diff != "" || len(second.Warnings) > 0 {
		t.Errorf("the second: %s, %v", diff, second.Warnings)
	}
	if second.Has["default_allow"] || !second.Has["enabled"] || !second.Has["allowed_severities"] {
		t.Errorf("keys that were set: %v", second.Has)
	}
}

func TestINIValues(t *testing.T) {
	yes, no := true, false
	for _, tt := range []struct {
		name, text string
		want       func(*rules.Settings)
		warnings   int
	}{
		{"colon", "[waptwua]\ndefault_allow: yes", func(s *rules.Settings) { s.DefaultAllow = true }, 0},
		{"keys in any case", "[waptwua]\nDEFAULT_Allow = ON", func(s *rules.Settings) { s.DefaultAllow = true }, 0},
		{"sections in one", "[WaptWUA]\ndefault_allow = 1\n[ waptwua ]\ndefault_allow = 1", nil, 0},
		{"last key wins", "[waptwua]\nenabled = 1\nenabled = 0", func(s *rules.Settings) { s.Enabled = &no }, 0},
		{"sections merge", "[waptwua]\nenabled = 1\n[global]\nx = 1\n[waptwua]\ndefault_allow = 1", func(s *rules.Settings) { s.Enabled, s.DefaultAllow = &yes, true }, 0},
		{"DEFAULT feeds all", "[DEFAULT]\ndefault_allow = 1\ninstall_delay = 2\n[waptwua]\ninstall_delay = 3", func(s *rules.Settings) { s.DefaultAllow, s.InstallDelay = true, 3*day }, 0},
		{"comments", "; a\n# b\nrem c\nREM\n[waptwua]\n;enabled = 1\n#enabled = 1\nrem enabled = 1", nil, 0},
		{"rem is a word", "[waptwua]\nremember = 1", nil, 1},
		{"comment in line", "[waptwua]\ndefault_allow = on ; x", func(s *rules.Settings) { s.DefaultAllow = true }, 0},
		{"no comment in line", "[waptwua]\ninstall_delay = 12h;x", nil, 1},
		{"hash is no comment in line", "[waptwua]\ndefault_allow = on # x", nil, 1},
		{"continuation", "[waptwua]\nfilter = Type='Software'\n  and IsHidden=0", func(s *rules.Settings) { s.Filter = "Type='Software' and IsHidden=0" }, 0},
		{"continuation of a boolean", "[waptwua]\ndefault_allow = on\n  off", nil, 1},
		{"indented first key", "[waptwua]\n  enabled = 1\ndefault_allow = 1", func(s *rules.Settings) { s.DefaultAllow = true }, 1},
		{"key without value", "[waptwua]\nenabled\ndefault_allow = 1", func(s *rules.Settings) { s.DefaultAllow = true }, 1},
		{"key before a section", "enabled = 1\n[waptwua]\ndefault_allow = 1", func(s *rules.Settings) { s.DefaultAllow = true }, 1},
		{"empty in quotes", "[waptwua]\nallowed_severities = \"\"", nil, 0},
		{"quoted boolean", "[waptwua]\nenabled = \"True\"", nil, 1},
		{"empty boolean", "[waptwua]\nenabled =", nil, 1},
		{"older spelling", "[waptwua]\nallow_direct_download = true", func(s *rules.Settings) { s.DirectDownload = true }, 0},
		{"both spellings", "[waptwua]\ndirect_download = false\nallow_direct_download = true", func(s *rules.Settings) { s.DirectDownload = true }, 0},
		{"offline is read", "[waptwua]\noffline = True", nil, 0},
		{"unknown key", "[waptwua]\nallowed_severity = Critical", nil, 1},
		{"exit window", "[waptwua]\nwaptexit_disable_skip_windows_updates = True\ninclude_potentially_superseded_updates = 1", func(s *rules.Settings) { s.DisableSkip, s.IncludeSuperseded = true, true }, 0},
		{"severities", "[waptwua]\nallowed_severities = critical , Important,critical,", func(s *rules.Settings) { s.AllowedSeverities = []rules.Severity{rules.Critical, rules.Important} }, 0},
		{"bad severity", "[waptwua]\nallowed_severities = Critical, Urgent", nil, 1},
		{"windows line ends", "[waptwua]\r\ndefault_allow = True\r\n", func(s *rules.Settings) { s.DefaultAllow = true }, 0},
		{"byte order mark", "\ufeff[waptwua]\ndefault_allow = True", func(s *rules.Settings) { s.DefaultAllow = true }, 0},
		{"the last value is bad", "[waptwua]\ninstall_delay = 3d\ninstall_delay = soon", nil, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := rules.DefaultSettings()
			if tt.want != nil {
				tt.want(&want)
			}
			c := agent.ParseINI([]byte(tt.text))
			if diff := cmp.Diff(want, c.Settings); diff != "" || len(c.Warnings) != tt.warnings {
				t.Errorf("%s, warnings %v", diff, c.Warnings)
			}
		})
	}
}

func TestINIPeriods(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"7d": 7 * day, "12h": 12 * time.Hour, "30m": 30 * time.Minute, "90s": 90 * time.Second, "2w": 14 * day, "1.5d": 36 * time.Hour,
		"2": 2 * day, "0.5": 12 * time.Hour, "2 h": 2 * time.Hour, "  2h": 2 * time.Hour, "2h  ": 2 * time.Hour, "0": 0,
	} {
		if c := waptwua("install_delay = " + text); c.Settings.InstallDelay != want || len(c.Warnings) > 0 {
			t.Errorf("%q is %s, %v", text, c.Settings.InstallDelay, c.Warnings)
		}
	}
	for _, text := range []string{"", "2H", "1d12h", "-1d", "nan", "inf", "0x10d", "1_000s", "d", "11000d", "1e300w"} {
		c := waptwua("download_scheduling = " + text)
		if c.Settings.DownloadScheduling != day || len(c.Warnings) != 1 || c.Warnings[0].Line != 2 || c.Has["download_scheduling"] {
			t.Errorf("%q is %s, %v", text, c.Settings.DownloadScheduling, c.Warnings)
		}
	}
}

func TestININodes(t *testing.T) {
	token := agentproto.NewEnrollToken(strings.Repeat("ab", 32))
	for _, tt := range []struct {
		name, text string
		want       []string
		warnings   int
	}{
		{"http", "[global]\nrepo_url = http://srvwapt.example.com/wapt", []string{"https://srvwapt.example.com"}, 0},
		{"http port 80", "[global]\nrepo_url = http://srvwapt:80/wapt", []string{"https://srvwapt"}, 0},
		{"https port", "[global]\nrepo_url = https://rns-01:8443/wapt", []string{"https://rns-01:8443"}, 0},
		{"no host", "[global]\nrepo_url = http://:80/wapt", nil, 1},
		{"http port", "[global]\nrepo_url = http://rns-01:8080/wapt", nil, 1},
		{"IPv6", "[global]\nrepo_url = http://[fd00::1]/wapt", []string{"https://[fd00::1]"}, 0},
		{"no URL", "[global]\nrepo_url = srvwapt", nil, 1},
		{"nodes", "[global]\nrepo_url = http://srvwapt/wapt\n[wuamesh]\nnodes = rns-01, https://rns-02:8443/ ,rns-01", []string{"https://rns-01", "https://rns-02:8443"}, 0},
		{"bad nodes", "[global]\nrepo_url = http://srvwapt/wapt\n[wuamesh]\nnodes = http://rns-01", []string{"https://srvwapt"}, 1},
	} {
		if c := agent.ParseINI([]byte(tt.text)); !slices.Equal(c.Nodes, tt.want) || len(c.Warnings) != tt.warnings {
			t.Errorf("%s: %v, %v", tt.name, c.Nodes, c.Warnings)
		}
	}
	c := agent.ParseINI([]byte("[wuamesh]\ntoken = " + token.String() + "\npinn = x\n"))
	if c.Token != token.String() || c.Pin != token.Pin || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].Text, "did you mean pin?") {
		t.Errorf("%+v", c)
	}
	if c := agent.ParseINI([]byte("[wuamesh]\ntoken = nonsense\npin = 12\n")); c.Token != "" || c.Pin != "" || len(c.Warnings) != 2 {
		t.Errorf("%+v", c)
	}
}

func TestINIOfNotepad(t *testing.T) {
	var b []byte
	for _, u := range append([]uint16{0xFEFF}, utf16.Encode([]rune("[waptwua]\r\ndefault_allow = True\r\n"))...) {
		b = append(b, byte(u), byte(u>>8))
	}
	if c := agent.ParseINI(b); !c.Settings.DefaultAllow || len(c.Warnings) > 0 {
		t.Errorf("UTF-16: %+v", c)
	}
	if c := agent.ParseINI(make([]byte, 2<<20)); len(c.Warnings) != 1 || c.Settings.DownloadScheduling != day {
		t.Errorf("too large: %v", c.Warnings)
	}
	if w := (agent.Warning{Line: 3, Text: "x"}).String(); w != "wapt-get.ini line 3: x" {
		t.Error(w)
	}
}

// FuzzINI: whatever is in the file, the settings are ones a node accepts.
func FuzzINI(f *testing.F) {
	f.Add([]byte("[waptwua]\nenabled = True ; yes\ninstall_delay: 3d\n [x\n\tfilter\n"))
	f.Add([]byte("\xff\xfe[\x00w\x00"))
	f.Add([]byte("[DEFAULT]\nallowed_severities = a,b\n[wuamesh]\nnodes=a:b://c,[::1]:3\ntoken=wme1.x.y\n[global]\nrepo_url=http://[::1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := agent.ParseINI(data)
		k := agentproto.Checkin{Protocol: 1, Facts: agentproto.Facts{Name: "x"}, Settings: c.Settings}
		if err := k.Validate(); err != nil {
			t.Errorf("a node would refuse it: %v", err)
		}
		if len(c.Warnings) > 40 {
			t.Errorf("%d warnings", len(c.Warnings))
		}
		if len(c.Nodes) > 0 {
			client, err := agentproto.NewClient(agentproto.ClientOptions{Nodes: c.Nodes})
			if err != nil {
				t.Errorf("the client would refuse the nodes: %v", err)
			} else {
				client.Close()
			}
		}
	})
}

// TestSettingsRoundTrip: what the node writes, the agent reads.
func TestSettingsRoundTrip(t *testing.T) {
	on := false
	s := rules.Settings{
		Enabled: &on, DefaultAllow: true, AllowedSeverities: []rules.Severity{rules.Critical, rules.Low}, DirectDownload: true,
		DownloadScheduling: 90 * time.Minute, InstallScheduling: 7 * 24 * time.Hour, InstallAtShutdown: true, InstallDelay: 36 * time.Hour,
		DisableSkip: true, IncludeSuperseded: true, Filter: "IsInstalled=0 and Type='Software'",
	}
	for _, s := range []rules.Settings{s, rules.DefaultSettings()} {
		c := agent.ParseINI([]byte(s.INI()))
		if !cmp.Equal(c.Settings, s) || len(c.Warnings) > 0 {
			t.Errorf("%+v\nbecame\n%+v\n%v", s, c.Settings, c.Warnings)
		}
	}
}
