package appliance_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/authenticode/authenticodetest"
	"wuamesh/appliance/microsoft/microsofttest"
)

// scanCheck is what doctor says of the scan cab.
func (s *site) scanCheck(t testing.TB) appliance.Check {
	t.Helper()
	list, err := s.Check(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if c.Name == "scan cab" {
			return c
		}
	}
	t.Fatal("no check of the scan cab")
	return appliance.Check{}
}

// refused are scan cabs that nobody may get, and what is said of each.
func refused(w *microsofttest.World) map[string]struct {
	cab  []byte
	says string
} {
	good := w.Cab()
	altered := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 1
		return b
	}
	stranger := authenticodetest.NewAuthority(99)
	return map[string]struct {
		cab  []byte
		says string
	}{
		"unsigned":       {w.Unsigned(), "not signed"},
		"no cabinet":     {[]byte(strings.Repeat("<html>Please log in to the guest network</html>", 100)), "another kind of file"},
		"altered data":   {altered(len(w.Unsigned()) / 2), "changed after it was signed"},
		"altered header": {altered(20), "changed after it was signed"},
		"something more": {append(bytes.Clone(good), "more"...), "changed after it was signed"},
		"other root":     {stranger.Signer(authenticodetest.SignerOptions{}).SignCab(w.Unsigned()), "somebody this node does not trust (CN=Microsoft Corporation"},
	}
}

// TestACabThatMicrosoftDidNotSignIsRefused has something else come in the
// place of the next month's scan cab: the one that is here stays in service,
// and every place where an admin looks says what is wrong.
func TestACabThatMicrosoftDidNotSignIsRefused(t *testing.T) {
	s := start(t, nil)
	s.Waits(time.Hour, time.Hour)
	s.ended(t, 1)
	first := s.world.Cab()
	if c := s.scanCheck(t); c.Result != appliance.CheckOK || !strings.Contains(c.Text, "Microsoft Corporation") {
		t.Errorf("doctor says %+v", c)
	}
	modified := time.Date(2026, 12, 10, 0, 0, 0, 0, time.UTC)
	for name, bad := range refused(s.world) {
		modified = modified.Add(time.Hour)
		s.world.Replace(bad.cab, modified)
		if err := s.DownloadCab(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
		k := s.has(t, cab, func(k appliance.Task) bool { return k.Status == "failed" && strings.Contains(k.Error, bad.says) })
		if !strings.Contains(k.Error, "stays in service") || k.Hint == "" {
			t.Errorf("%s: the task says %q, %q", name, k.Error, k.Hint)
		}
		if resp, b := get(t, "GET", s.FolderURL()+cab); resp.StatusCode != 200 || !bytes.Equal(b, first) {
			t.Errorf("%s: the folder serves %d bytes, %s", name, len(b), resp.Status)
		}
		st, err := s.Status(t.Context())
		if err != nil || !strings.Contains(st.Cab.Refused, bad.says) || len(st.Attention) == 0 || st.Attention[0].Fact != st.Cab.Refused {
			t.Errorf("%s: the status is %+v, %v", name, st.Cab, err)
		}
		if c := s.scanCheck(t); c.Result != appliance.CheckWarning || !strings.Contains(c.Text, bad.says) {
			t.Errorf("%s: doctor says %+v", name, c)
		}
	}
	s.world.Publish(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
	if err := s.DownloadCab(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	s.ended(t, 2)
	if st, err := s.Status(t.Context()); err != nil || st.Cab.Refused != "" || st.Cab.Signer != "Microsoft Corporation" || st.Cab.Root != "wuamesh TEST Root 1" {
		t.Errorf("after a good one the status is %+v, %v", st.Cab, err)
	}
}

// branchConfig writes the configuration of a branch that trusts a root besides
// Microsoft's, or none.
func branchConfig(t testing.TB, dir, root string) (path string) {
	t.Helper()
	path = filepath.Join(dir, "wuamesh.toml")
	if root != "" {
		root = "'" + root + "'"
	}
	text := fmt.Sprintf("name = 'brs-01'\nsite = 'brest'\ninternet = false\ndata = '%s/data'\nfolder = '%s/waptwua'\nlisten_https = '127.0.0.1:0'\nlisten_http = '127.0.0.1:0'\ndisk_floor = '0 B'\nroots = [%s]\n", dir, dir, root)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// fromFile has a node read its configuration from a file, so that it can be
// reloaded.
func fromFile(t testing.TB, path string) func(*appliance.Config) {
	return func(c *appliance.Config) {
		cfg, err := appliance.ConfigSource{Path: path}.Load()
		if err != nil {
			t.Fatal(err)
		}
		*c = cfg
	}
}

// TestAPeersCabIsVerified joins a branch that trusts nobody but Microsoft to a
// node that takes the cab of a mirror: the branch refuses it, once, and takes
// it when it is told to trust the mirror.
func TestAPeersCabIsVerified(t *testing.T) {
	t.Parallel()
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1})
	srv := httptest.NewServer(world)
	defer srv.Close()
	hq := startIn(t, t.TempDir(), world, srv.URL, func(c *appliance.Config) { c.Name, c.Site = "hq-01", "hq" })
	hq.ended(t, 1)
	dir := t.TempDir()
	branch := startIn(t, dir, nil, "", fromFile(t, branchConfig(t, dir, "")))
	branch.joinTo(t, hq)
	get(t, "GET", branch.FolderURL()+cab)
	branch.has(t, cab, func(k appliance.Task) bool { return strings.Contains(k.Error, "does not trust") && k.From == "peers" })
	if resp, _ := get(t, "GET", branch.FolderURL()+cab); resp.StatusCode != 503 {
		t.Errorf("a refused cab: %s", resp.Status)
	}
	if c := branch.scanCheck(t); c.Result != appliance.CheckWarning || !strings.Contains(c.Hint, "roots") {
		t.Errorf("doctor says %+v", c)
	}
	if err := branch.DownloadCab(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	branch.has(t, cab, func(k appliance.Task) bool { return strings.Contains(k.Waiting, "Microsoft has no newer one") })
	if k := branch.task(t, cab); k.Peers > int64(len(world.Cab())) {
		t.Errorf("%d bytes came of a cab of %d that was refused", k.Peers, len(world.Cab()))
	}
	branchConfig(t, dir, rootFile(t, world))
	if _, err := branch.Reload(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the branch serves it", branch.serves(cab))
}

// TestACabFromBeforeSignaturesAndOneByHand starts nodes on folders with a scan
// cab that no record vouches for: its signature decides.
func TestACabFromBeforeSignaturesAndOneByHand(t *testing.T) {
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1})
	for name, tt := range map[string]struct {
		cab    []byte
		served bool
	}{"signed": {world.Cab(), true}, "unsigned": {world.Unsigned(), false}} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "waptwua"), 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, dir, cab, tt.cab)
		s := startIn(t, dir, world, "http://127.0.0.1:1", func(c *appliance.Config) { c.Internet = false })
		eventually(t, name, func() error {
			st, err := s.Status(context.Background())
			if err == nil && st.Cab.Held != tt.served || !tt.served && !strings.Contains(st.Cab.Refused, "not signed") {
				err = errors.New("the cab is " + fmt.Sprintf("%+v", st.Cab))
			}
			return err
		})
		if err := s.serves(cab)(); (err == nil) != tt.served {
			t.Errorf("%s: %v", name, err)
		}
		if c := s.scanCheck(t); (c.Result == appliance.CheckOK) != tt.served {
			t.Errorf("%s: doctor says %+v", name, c)
		}
	}
}
