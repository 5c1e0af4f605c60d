package appliance_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"wuamesh/appliance"
	"wuamesh/appliance/microsoft"
	"wuamesh/appliance/microsoft/microsofttest"
)

const cab = microsoft.ScanCabName

// ended waits until n tasks of the scan cab have ended, or more: a look at what
// the mesh has, begun before the first ended, may be followed by an empty one.
func (s *site) ended(t testing.TB, n int) (newest appliance.Task) {
	t.Helper()
	eventually(t, "scan cab", func() error {
		list, _, err := s.Tasks(t.Context(), appliance.TaskQuery{Page: appliance.Page{Limit: 500}})
		if err != nil {
			return err
		}
		var got []appliance.Task
		for _, k := range list {
			if k.File == cab && (k.Status == "done" || k.Status == "unchanged") {
				got = append(got, k)
			}
		}
		if len(got) < n {
			return fmt.Errorf("%d of %d ended", len(got), n)
		}
		newest = got[0]
		return nil
	})
	return newest
}

// rest waits until no look at the scan cab is under way, and says how many
// ended: the one of the start may be followed by another, which an order of an
// admin would join.
func (s *site) rest(t testing.TB) (ended int) {
	t.Helper()
	eventually(t, "no task of the scan cab", func() error {
		list, _, err := s.Tasks(t.Context(), appliance.TaskQuery{Page: appliance.Page{Limit: 500}})
		ended = 0
		for _, k := range list {
			switch {
			case k.File != cab:
			case k.Status == "done" || k.Status == "unchanged":
				ended++
			default:
				return fmt.Errorf("%+v", k)
			}
		}
		return err
	})
	return ended
}

// TestTheScanCabMovesOnlyWhenItChanged asks again and again.
func TestTheScanCabMovesOnlyWhenItChanged(t *testing.T) {
	s := start(t, nil)
	s.ended(t, 1)
	before := s.rest(t)
	first := s.world.Cab()
	for n := range 3 {
		if err := s.DownloadCab(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
		if k := s.ended(t, before+n+1); k.Status != "unchanged" || k.Fetched != 0 || k.By != "maelle" {
			t.Errorf("the task is %+v", k)
		}
	}
	if n := s.world.Requests()[cab]; n.Gets != 1 || n.NotModified < 3 || n.NotModified > before+2 || n.Bytes != int64(len(first)) {
		t.Errorf("Microsoft was asked %+v", n)
	}
	st, err := s.Status(t.Context())
	if err != nil || !st.Cab.Held || st.Cab.Note != "unchanged" || st.Cab.SHA256 != fmt.Sprintf("%x", sha256.Sum256(first)) || time.Until(st.Cab.NextTry) < 23*time.Hour {
		t.Errorf("the cab is %+v, %v", st.Cab, err)
	}
	s.world.Publish(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))
	if err := s.DownloadCab(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	if k := s.ended(t, before+4); k.Status != "done" || k.Fetched != int64(len(s.world.Cab())) {
		t.Errorf("the task is %+v", k)
	}
}

// TestReadersKeepTheirVersion replaces the scan cab while it is being read,
// and while others open it: each reads one version whole, with its digest.
func TestReadersKeepTheirVersion(t *testing.T) {
	s := start(t, nil)
	s.ended(t, 1)
	old := s.world.Cab()
	resp, err := http.Get(s.FolderURL() + cab)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	head := make([]byte, 1000)
	if _, err := io.ReadFull(resp.Body, head); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := http.Get(s.FolderURL() + cab)
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if want := fmt.Sprintf(`"%x"`, sha256.Sum256(b)); err != nil || resp.StatusCode != 200 || resp.Header.Get("ETag") != want {
					t.Errorf("%s, %d bytes, ETag %s, want %s: %v", resp.Status, len(b), resp.Header.Get("ETag"), want, err)
					return
				}
			}
		})
	}
	for n := range 3 {
		s.world.Publish(time.Date(2026, time.Month(12+n), 1, 0, 0, 0, 0, time.UTC))
		if err := s.DownloadCab(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
		s.ended(t, n+2)
	}
	close(stop)
	readers.Wait()
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(append(head, rest...), old) {
		t.Errorf("who read the old one got %d bytes, %v", len(head)+len(rest), err)
	}
}

// TestABadScanCabIsNotServed has Microsoft answer with something else.
func TestABadScanCabIsNotServed(t *testing.T) {
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1})
	srv := httptest.NewServer(world)
	defer srv.Close()
	world.Fault(cab, microsofttest.Fault{Corrupt: true}, microsofttest.Fault{Status: 503})
	dir := t.TempDir()
	s := startIn(t, dir, world, srv.URL, nil)
	s.Waits(time.Hour, time.Hour)
	failed := func(n int) appliance.Task {
		return s.has(t, cab, func(k appliance.Task) bool { return k.Status == "failed" && k.Attempts == n })
	}
	if k := failed(1); !strings.Contains(k.Error, "another kind of file") {
		t.Errorf("it says %q", k.Error)
	}
	if resp, _ := get(t, "GET", s.FolderURL()+cab); resp.StatusCode != 503 {
		t.Errorf("a broken cab: %s", resp.Status)
	}
	if err := s.DownloadCab(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	failed(2)
	st, err := s.Status(t.Context())
	if err != nil || st.Cab.Held || !strings.HasPrefix(st.Cab.Note, "Microsoft answered 503") || st.Cab.NextTry.IsZero() {
		t.Errorf("the cab is %+v, %v", st.Cab, err)
	}
	if err := s.DownloadCab(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	s.ended(t, 1)
	if err := s.serves(cab)(); err != nil {
		t.Error(err)
	}
}

// TestTheScanCabAfterACrash stops a node between the record and the rename,
// and one whose cab was changed on the disk.
func TestTheScanCabAfterACrash(t *testing.T) {
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1})
	srv := httptest.NewServer(world)
	defer srv.Close()
	dir := t.TempDir()
	s := startIn(t, dir, world, srv.URL, nil)
	s.ended(t, 1)
	s.stop()
	folder := filepath.Join(dir, "waptwua")
	if err := os.Rename(filepath.Join(folder, cab), filepath.Join(folder, ".cab", cab)); err != nil {
		t.Fatal(err)
	}
	s = startIn(t, dir, world, srv.URL, nil)
	if err := s.serves(cab)(); err != nil {
		t.Errorf("an arrived cab is forgotten: %v", err)
	}
	s.stop()
	put(t, dir, cab, bytes.Repeat([]byte("x"), len(world.Cab())))
	s = startIn(t, dir, world, srv.URL, nil)
	if s.serves(cab)() == nil {
		t.Log("it came anew at once")
	}
	eventually(t, "a changed cab comes anew", s.serves(cab))
	if _, b := get(t, "GET", s.FolderURL()+cab); !bytes.Equal(b, world.Cab()) {
		t.Error("it is not Microsoft's")
	}
}
