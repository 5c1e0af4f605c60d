package appliance_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wuamesh/appliance"
)

// found is the check of that name.
func found(t *testing.T, list []appliance.Check, name string) appliance.Check {
	t.Helper()
	for _, c := range list {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no check is called %s: %+v", name, list)
	return appliance.Check{}
}

// TestChecksSayWhatIsWrong puts a node into surroundings that are broken, one
// way at a time, and expects the check that is meant for it to say so.
func TestChecksSayWhatIsWrong(t *testing.T) {
	answer := func(status int, date time.Time) string {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", date.UTC().Format(http.TimeFormat))
			w.WriteHeader(status)
		}))
		t.Cleanup(srv.Close)
		return srv.URL
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for what, tt := range map[string]struct {
		change func(*appliance.Config)
		name   string
		result appliance.CheckResult
		text   string
	}{
		"all is well":           {func(c *appliance.Config) { c.Upstream = answer(206, now) }, "Microsoft", appliance.CheckOK, "answers"},
		"clock right":           {func(c *appliance.Config) { c.Upstream = answer(206, now) }, "clock", appliance.CheckOK, "right"},
		"clock a day behind":    {func(c *appliance.Config) { c.Upstream = answer(206, now.Add(24*time.Hour)) }, "clock", appliance.CheckFailed, "off by 2"},
		"clock a bit off":       {func(c *appliance.Config) { c.Upstream = answer(206, now.Add(-20*time.Second)) }, "clock", appliance.CheckWarning, "off by"},
		"nobody there":          {func(c *appliance.Config) { c.Upstream = gone.URL }, "Microsoft", appliance.CheckFailed, "connection refused"},
		"name unknown":          {func(c *appliance.Config) { c.Upstream = "http://mirror.invalid" }, "Microsoft", appliance.CheckFailed, "mirror.invalid"},
		"forbidden":             {func(c *appliance.Config) { c.Upstream = answer(403, now) }, "Microsoft", appliance.CheckFailed, "forbids it"},
		"proxy gone":            {func(c *appliance.Config) { c.Proxy = gone.URL }, "proxy", appliance.CheckFailed, "cannot be reached"},
		"proxy wants a name":    {func(c *appliance.Config) { c.Proxy = answer(407, now) }, "proxy", appliance.CheckFailed, "wants a name"},
		"proxy takes it":        {func(c *appliance.Config) { c.Proxy = answer(206, now) }, "proxy", appliance.CheckOK, "accepts"},
		"through the proxy":     {func(c *appliance.Config) { c.Proxy = answer(206, now) }, "Microsoft", appliance.CheckOK, "through http://"},
		"no internet":           {func(c *appliance.Config) { c.Internet = false }, "Microsoft", appliance.CheckSkipped, "does not download"},
		"folder is a file":      {func(c *appliance.Config) { c.Internet, c.Folder = false, file }, "folder", appliance.CheckFailed, "cannot be written"},
		"folder is fine":        {func(c *appliance.Config) { c.Internet = false }, "folder", appliance.CheckOK, "can be written"},
		"disk is full":          {func(c *appliance.Config) { c.Internet, c.DiskFloor = false, 1<<60 }, "disk space", appliance.CheckFailed, "below the floor"},
		"machine has BBR or so": {func(c *appliance.Config) { c.Internet = false }, "tcp_bbr", "", "BBR"},
	} {
		t.Run(what, func(t *testing.T) {
			cfg := appliance.DefaultConfig()
			cfg.Data, cfg.Folder, cfg.DiskFloor = t.TempDir(), t.TempDir(), 0
			tt.change(&cfg)
			list, err := appliance.CheckMachine(t.Context(), cfg, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			c := found(t, list, tt.name)
			if tt.result != "" && c.Result != tt.result || !strings.Contains(c.Text, tt.text) {
				t.Errorf("%s: %+v, want %s and %q", tt.name, c, tt.result, tt.text)
			}
			if c.Result == appliance.CheckFailed && c.Hint == "" {
				t.Errorf("%s: %q, and what to do?", tt.name, c.Text)
			}
			if files, err := os.ReadDir(cfg.Data); err != nil || len(files) > 0 {
				t.Errorf("the checks left %v, %v", files, err)
			}
		})
	}
}

func TestChecksOfARunningNode(t *testing.T) {
	s := start(t, nil)
	list, err := s.Check(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]appliance.CheckResult{"Microsoft": appliance.CheckOK, "clock": appliance.CheckOK, "folder": appliance.CheckOK, "other nodes": appliance.CheckSkipped} {
		if c := found(t, list, name); c.Result != want {
			t.Errorf("%+v, want %s", c, want)
		}
	}
	// With answers of the setup page, nothing of the node changes.
	list, err = s.Check(t.Context(), &appliance.Answers{Name: "x", Internet: true, Proxy: "http://user:secret@127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if c := found(t, list, "proxy"); strings.Contains(c.Text, "secret") {
		t.Errorf("the proxy's password is shown: %+v", c)
	}
	if now, _ := s.Answers(); now.Proxy != "" || now.Name != "rns-01" {
		t.Errorf("testing changed the node to %+v", now)
	}
	list = s.CheckJoin(t.Context(), "wmj1.nonsense")
	if list[0].Result != appliance.CheckFailed {
		t.Errorf("a token that is none: %+v", list)
	}
}
