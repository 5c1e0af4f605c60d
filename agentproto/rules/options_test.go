package rules_test

import (
	"testing"
	"time"

	"wuamesh/agentproto/rules"
)

func TestPeriods(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{"7d": 7 * day, "12h": 12 * time.Hour, "30m": 30 * time.Minute, "45s": 45 * time.Second, "0d": 0} {
		if got, err := rules.ParsePeriod(text); err != nil || got != want || rules.FormatPeriod(want) != text {
			t.Errorf("%s is %s, %v, and is written %s", text, got, err, rules.FormatPeriod(want))
		}
	}
	for _, text := range []string{"", "h", "2H", "1d12h", "-1d", "0x1d", "nan", "20w000", "99999d"} {
		if d, err := rules.ParsePeriod(text); err == nil {
			t.Errorf("%q is %s", text, d)
		}
	}
}

func TestOptions(t *testing.T) {
	if got := rules.DefaultSettings().INI(); got != "[waptwua]\n" {
		t.Errorf("the defaults are written\n%s", got)
	}
	on := true
	s := rules.Settings{
		Enabled: &on, DefaultAllow: true, AllowedSeverities: []rules.Severity{rules.Critical, rules.Important}, DirectDownload: true,
		DownloadScheduling: 12 * time.Hour, InstallScheduling: 7 * 24 * time.Hour, InstallAtShutdown: true, InstallDelay: 36 * time.Hour,
		DisableSkip: true, IncludeSuperseded: true, Filter: "IsInstalled=0",
	}
	want := "[waptwua]\nenabled = True\ndefault_allow = True\nallowed_severities = Critical,Important\ndirect_download = True\ndownload_scheduling = 12h\n" +
		"install_scheduling = 7d\ninstall_at_shutdown = True\ninstall_delay = 36h\nwaptexit_disable_skip_windows_updates = True\n" +
		"include_potentially_superseded_updates = True\nfilter = IsInstalled=0\n"
	if got := s.INI(); got != want {
		t.Errorf("written\n%s\nwant\n%s", got, want)
	}
}
