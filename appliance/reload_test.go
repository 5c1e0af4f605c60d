package appliance_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"wuamesh/appliance"
)

// configured runs a node from a configuration file and returns what rewrites
// that file.
func configured(t *testing.T) (*site, func(text string)) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "wuamesh.toml")
	write := func(text string) {
		t.Helper()
		text += "\ndata = \"" + filepath.Join(dir, "data") + "\"\nlisten_https = \"127.0.0.1:0\"\nlisten_http = \"127.0.0.1:0\"\n"
		if !strings.Contains(text, "folder =") {
			text += "folder = \"" + filepath.Join(dir, "waptwua") + "\"\n"
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("internet = false")
	return startIn(t, dir, nil, "", func(c *appliance.Config) {
		var err error
		if *c, err = (appliance.ConfigSource{Path: path}).Load(); err != nil {
			t.Fatal(err)
		}
		c.Level = new(slog.LevelVar)
	}), write
}

func TestReloadChecksThenChanges(t *testing.T) {
	s, write := configured(t)
	owner := appliance.Actor{Name: "maelle", Role: appliance.Owner}
	for _, tt := range []struct {
		text             string
		changed, restart []string
		wrong            string
	}{
		{text: "internet = false"},
		{text: "internet = false\nname = \"lyo-01\"\nsite = \"lyon\"\ndisk_floor = \"3 GiB\"", changed: []string{"name", "site", "disk_floor"}},
		{text: "internet = false\nname = \"lyo-01\"\nsite = \"lyon\"\nfolder = \"/elsewhere\"", changed: []string{"disk_floor"}, restart: []string{"folder"}},
		{text: "name = \"x\"\ninternet = perhaps", wrong: "line 2"},
		{text: "name = \"x\"\nproxy = \"ftp://proxy\"", wrong: "proxy: want"},
		{text: "name = \"x\"\ntls_cert = \"/nowhere\"\ntls_key = \"/nowhere\"", wrong: "cannot be used"},
		{text: "internet = true\nname = \"lyo-01\"\nsite = \"lyon\"\nlog_level = \"debug\"", changed: []string{"internet", "log_level"}},
	} {
		write(tt.text)
		before := s.NodeName()
		r, err := s.Reload(t.Context(), owner)
		switch {
		case tt.wrong != "":
			if p := problem(err); !strings.Contains(p.Msg, tt.wrong) {
				t.Errorf("%q: %v, want %q", tt.text, err, tt.wrong)
			}
			if s.NodeName() != before {
				t.Errorf("%q is refused, and the node is %s now", tt.text, s.NodeName())
			}
		case err != nil:
			t.Errorf("%q: %v", tt.text, err)
		case !slices.Equal(r.Changed, tt.changed) || !slices.Equal(r.Restart, tt.restart):
			t.Errorf("%q changed %v and left %v for a restart; want %v and %v", tt.text, r.Changed, r.Restart, tt.changed, tt.restart)
		}
	}
	if s.NodeName() != "lyo-01" {
		t.Errorf("after the reloads the node is %s", s.NodeName())
	}
	if _, err := s.Reload(t.Context(), appliance.Actor{Name: "x", Role: appliance.Viewer}); err == nil {
		t.Error("a viewer reloads the configuration")
	}
}

// TestTheFileWinsOverTheSetupPage answers the setup page's questions, then
// starts again: the answers are kept, where the file has none of its own.
func TestTheFileWinsOverTheSetupPage(t *testing.T) {
	s, write := configured(t)
	owner := appliance.Actor{Name: "maelle", Role: appliance.Owner}
	want := appliance.Answers{Name: "lyo-01", Site: "lyon", Internet: true, Proxy: "http://user:secret@proxy:3128"}
	if err := s.Answer(t.Context(), owner, want); err != nil {
		t.Fatal(err)
	}
	check := func(when string, internet bool) {
		t.Helper()
		now, decided := s.Answers()
		if now.Name != "lyo-01" || now.Site != "lyon" || now.Internet != internet || now.Proxy != want.Proxy || !decided["internet"] {
			t.Errorf("%s the node goes by %+v; decided in the file: %v", when, now, decided)
		}
	}
	check("after the answers", false) // the file says so
	if err := s.Answer(t.Context(), owner, appliance.Answers{Name: "lyo-01", Proxy: "proxy:3128"}); err == nil {
		t.Error("a proxy that is no address is taken")
	}
	write("internet = true")
	if _, err := s.Reload(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	check("after the reload", true)
	log, _, err := s.Audit(t.Context(), "", appliance.Page{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range log {
		if strings.Contains(e.Before+e.After, "secret") {
			t.Errorf("the audit log has the proxy's password: %+v", e)
		}
	}
}

// TestTheFolderIsToldOnThePages tells the folder what to keep: it holds at once
// and after a restart, what the file sets stays, and nothing wrong is taken.
func TestTheFolderIsToldOnThePages(t *testing.T) {
	s, write := configured(t)
	want := appliance.Storage{CleanupKBs: false, Placement: "local", Quota: 5e9, DiskFloor: 1 << 30, Copies: 3}
	if err := s.SetStorage(t.Context(), appliance.Actor{Name: "yann", Role: appliance.Operator}, want); err == nil {
		t.Error("an operator changes it")
	}
	if err := s.SetStorage(t.Context(), owner, want); err != nil {
		t.Fatal(err)
	}
	if now, decided := s.Storage(); now != want || decided["quota"] {
		t.Errorf("the folder goes by %+v", now)
	}
	if entries, _, err := s.Audit(t.Context(), "node "+s.NodeName(), appliance.Page{}); err != nil || len(entries) != 1 || entries[0].After != "nightly cleaning off, keeps local, quota 5.0 GB, 1.1 GB stay free, 3 copies" {
		t.Errorf("the audit log has %+v, %v", entries, err)
	}
	wrong := want
	wrong.Placement = "some"
	if err := s.SetStorage(t.Context(), owner, wrong); err == nil {
		t.Error("a placement that there is not is taken")
	}
	write("internet = false\nquota = \"7 GB\"")
	if _, err := s.Reload(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	want.Quota = 7e9
	if now, _ := s.Storage(); now != want {
		t.Errorf("with a quota in the file it goes by %+v", now)
	}
	from := map[string]string{}
	for _, k := range s.ConfigKeys() {
		from[k.Key] = k.From + " " + k.Value
	}
	for key, is := range map[string]string{"quota": "file 7 GB", "placement": "pages local", "disk_floor": "pages 1 GiB", "log_level": "default info"} {
		if from[key] != is {
			t.Errorf("%s is said to be %q, want %q", key, from[key], is)
		}
	}
	s.stop()
	s = startIn(t, s.dir, nil, "", func(c *appliance.Config) {
		var err error
		if *c, err = (appliance.ConfigSource{Path: filepath.Join(s.dir, "wuamesh.toml")}).Load(); err != nil {
			t.Fatal(err)
		}
	})
	if now, decided := s.Storage(); now != want || !decided["quota"] {
		t.Errorf("after a restart it goes by %+v", now)
	}
}

// TestAProxyKeepsItsPassword saves the node's settings as they are shown,
// without the proxy's password.
func TestAProxyKeepsItsPassword(t *testing.T) {
	s, _ := configured(t)
	n := appliance.Answers{Name: "lyo-01", Site: "lyon", Proxy: "http://wua:secret@127.0.0.1:3128"}
	if err := s.Answer(t.Context(), owner, n); err != nil {
		t.Fatal(err)
	}
	shown := n
	shown.Site, shown.Proxy = "ain", appliance.WithoutPassword(n.Proxy)
	if err := s.Answer(t.Context(), owner, shown); err != nil {
		t.Fatal(err)
	}
	if now, _ := s.Answers(); now.Proxy != n.Proxy || now.Site != "ain" {
		t.Errorf("the node goes by %+v", now)
	}
	entries, _, err := s.Audit(t.Context(), "node lyo-01", appliance.Page{})
	if err != nil || len(entries) != 2 || entries[0].Before != "name lyo-01, site lyon, gets files from other nodes, proxy http://wua:xxxxx@127.0.0.1:3128" {
		t.Errorf("the audit log has %+v, %v", entries, err)
	}
	for _, k := range s.ConfigKeys() {
		if strings.Contains(k.Value, "secret") {
			t.Errorf("%s shows a password: %s", k.Key, k.Value)
		}
	}
}

func TestSetupLinkCanBeRenewed(t *testing.T) {
	run := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", run)
	s := start(t, nil)
	console := appliance.Actor{Name: "root", Role: appliance.Owner}
	motd := func() string {
		b, _ := os.ReadFile(filepath.Join(run, "motd"))
		return string(b)
	}
	old := secretOf(t, s.SetupLink())
	eventually(t, "the link is shown at login", func() error {
		if !strings.Contains(motd(), old) {
			return os.ErrNotExist
		}
		return nil
	})
	link, err := s.NewSetupLink(t.Context(), console)
	if err != nil || link != s.SetupLink() || !strings.Contains(motd(), link) {
		t.Fatalf("a fresh link: %s, %v; at login: %s", link, err, motd())
	}
	if info, err := os.Stat(filepath.Join(run, "motd")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("whoever may log in can read the link: %v, %v", info.Mode(), err)
	}
	if err := s.SetUp(t.Context(), old, "maelle", "correct horse battery"); err == nil {
		t.Error("the link before still works")
	}
	if err := s.SetUp(t.Context(), secretOf(t, link), "maelle", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	if motd() != "" {
		t.Errorf("the used link is still shown: %s", motd())
	}
	if _, err := s.NewSetupLink(t.Context(), console); err == nil {
		t.Error("a node that is set up gives a setup link")
	}
}

// TestJoinedNodeShowsNoSetupLink: who logs in to a node that joined is not
// sent to a link that makes a first admin.
func TestJoinedNodeShowsNoSetupLink(t *testing.T) {
	a := bareNode(t, "rns-01")
	run := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", run)
	b := bareNode(t, "brs-01")
	motd := filepath.Join(run, "motd")
	eventually(t, "the link is shown at login", func() error {
		_, err := os.Stat(motd)
		return err
	})
	b.joinTo(t, a)
	if text, err := os.ReadFile(motd); err == nil {
		t.Errorf("at login it still says %s", text)
	}
}

func TestJournalFields(t *testing.T) {
	var got appliance.JournalEntry
	log := slog.New(appliance.JournalTo(&got)).With("part", "folder")
	log.WithGroup("file").Info("file verified", "name", "a b.cab", "bytes", 12)
	if got.Text != `file verified file.name="a b.cab" file.bytes=12` {
		t.Errorf("people read %q", got.Text)
	}
	for field, value := range map[string]string{"WUAMESH_PART": "folder", "WUAMESH_FILE_NAME": "a b.cab", "WUAMESH_FILE_BYTES": "12"} {
		if got.Fields[field] != value {
			t.Errorf("%s is %q, want %q", field, got.Fields[field], value)
		}
	}
}
