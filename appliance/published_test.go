package appliance_test

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/authenticode/authenticodetest"
	"wuamesh/appliance/microsoft/cab/cabtest"
	"wuamesh/appliance/microsoft/microsofttest"
)

// catalogued waits until the node has read a scan cab of n updates.
func (s *site) catalogued(t testing.TB, n int) appliance.CatalogueView {
	t.Helper()
	var v appliance.CatalogueView
	eventually(t, "catalogue", func() error {
		if v = s.Cab().Catalogue; v.Updates != n || v.Reading {
			return fmt.Errorf("it is %+v, want %d updates", v, n)
		}
		return nil
	})
	return v
}

// TestTheCatalogueFollowsTheScanCab publishes a month, and starts the node
// anew where Microsoft cannot be reached.
func TestTheCatalogueFollowsTheScanCab(t *testing.T) {
	s := start(t, nil)
	first := s.catalogued(t, len(s.world.Updates()))
	s.world.Publish(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))
	if err := s.DownloadCab(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	second := s.catalogued(t, len(s.world.Updates()))
	if second.Updates <= first.Updates || !second.Published.After(first.Published) || second.Problems != 0 || second.Error != "" {
		t.Errorf("it was %+v and is %+v", first, second)
	}
	s.stop()
	file := filepath.Join(s.dir, "data", "catalogue")
	if err := os.WriteFile(file+".new", []byte("what a kill left"), 0o600); err != nil {
		t.Fatal(err)
	}
	offline := func(c *appliance.Config) { c.Internet = false }
	s = startIn(t, s.dir, s.world, "http://127.0.0.1:1", offline)
	if v := s.Cab().Catalogue; v.Updates != second.Updates || !v.Read.Equal(second.Read) {
		t.Errorf("after a restart it is %+v", v)
	}
	eventually(t, "the left-over file", func() error {
		if _, err := os.Stat(file + ".new"); !os.IsNotExist(err) {
			return fmt.Errorf("it is there: %v", err)
		}
		return nil
	})
	s.stop()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = startIn(t, s.dir, s.world, "http://127.0.0.1:1", offline)
	s.catalogued(t, second.Updates)
}

// TestAScanCabThatCannotBeRead is signed and makes no sense inside: hosts get
// it all the same, the catalogue of the one before stays, and it is told.
func TestAScanCabThatCannotBeRead(t *testing.T) {
	s := start(t, nil)
	good := s.catalogued(t, len(s.world.Updates()))
	var odd bytes.Buffer
	w := cabtest.NewWriter(&odd, cabtest.None)
	if err := w.Create("package.cab", time.Date(2026, 12, 8, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w, "no cabinet")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s.world.Replace(authenticodetest.NewAuthority(1).Signer(authenticodetest.SignerOptions{}).SignCab(odd.Bytes()), time.Date(2026, 12, 8, 0, 0, 0, 0, time.UTC))
	if err := s.DownloadCab(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the problem", func() error {
		st, err := s.Status(t.Context())
		v := st.Cab.Catalogue
		if err == nil && (!strings.Contains(v.Error, "cannot be read") || !strings.Contains(v.Error, "stays in use") || v.Hint == "" || v.Updates != good.Updates) {
			err = fmt.Errorf("it is %+v", v)
		}
		if err == nil && (len(st.Attention) == 0 || st.Attention[0].Fact != v.Error) {
			err = fmt.Errorf("the overview says %+v", st.Attention)
		}
		return err
	})
	if err := s.serves(cab)(); err != nil {
		t.Error(err)
	}
	if c := s.scanCheck(t); c.Result != appliance.CheckWarning || !strings.Contains(c.Text, "cannot be read") {
		t.Errorf("doctor says %+v", c)
	}
	s.world.Publish(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
	if err := s.DownloadCab(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	if v := s.catalogued(t, len(s.world.Updates())); v.Error != "" {
		t.Errorf("after a good one it is %+v", v)
	}
}

// TestACatalogueOfAPeersCab is made on a branch without a way to Microsoft,
// and dropped when the branch ceases to trust who signed the cab.
func TestACatalogueOfAPeersCab(t *testing.T) {
	t.Parallel()
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1})
	srv := httptest.NewServer(world)
	defer srv.Close()
	hq := startIn(t, t.TempDir(), world, srv.URL, func(c *appliance.Config) { c.Name, c.Site = "hq-01", "hq" })
	hq.ended(t, 1)
	dir := t.TempDir()
	path := branchConfig(t, dir, rootFile(t, world))
	branch := startIn(t, dir, nil, "", fromFile(t, path))
	branch.joinTo(t, hq)
	get(t, "GET", branch.FolderURL()+cab)
	branch.catalogued(t, len(world.Updates()))
	branchConfig(t, dir, "")
	if _, err := branch.Reload(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	branch.catalogued(t, 0)
	branchConfig(t, dir, rootFile(t, world))
	if _, err := branch.Reload(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	branch.catalogued(t, len(world.Updates()))
}
