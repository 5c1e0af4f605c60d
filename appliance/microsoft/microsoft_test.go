package microsoft_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"wuamesh/appliance/microsoft"
	"wuamesh/appliance/microsoft/microsofttest"
)

// redmond is a stand-in for Microsoft, and a source that asks it.
func redmond(t testing.TB, o microsoft.Options) (*microsofttest.World, *microsoft.Source) {
	t.Helper()
	w := microsofttest.New(microsofttest.Options{Seed: 1})
	srv := httptest.NewServer(w)
	t.Cleanup(srv.Close)
	o.Upstream, o.Log = srv.URL, slog.New(slog.DiscardHandler)
	root, err := w.RootFile(t.TempDir())
	if err == nil {
		o.Roots, err = microsoft.ReadRoots([]string{root})
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := microsoft.NewSource(o)
	if err != nil {
		t.Fatal(err)
	}
	return w, s
}

func fileOf(u microsofttest.Update) microsoft.File {
	f := u.Files[0]
	sum, _ := hex.DecodeString(f.SHA1)
	return microsoft.File{Name: f.Name, URL: f.URL, Size: f.Size, SHA1: sum}
}

func listing(t testing.TB, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestTruncatedThenCorruptedThenRight is the life of an unlucky file: nothing
// of it shows in the folder before it is right.
func TestTruncatedThenCorruptedThenRight(t *testing.T) {
	w, s := redmond(t, microsoft.Options{})
	f, dir := fileOf(w.Updates()[0]), t.TempDir()
	w.Fault(f.Name, microsofttest.Fault{Truncate: 100_000}, microsofttest.Fault{Truncate: 100_000}, microsofttest.Fault{}, microsofttest.Fault{Corrupt: true})
	for i := range 2 {
		if _, err := s.Download(t.Context(), dir, f, microsoft.DownloadOptions{}); err == nil {
			t.Fatal("a truncated file was taken")
		}
		if names := listing(t, dir); len(names) != 0 {
			t.Fatalf("after cut %d the folder shows %v", i+1, names)
		}
	}
	// The third answer is whole, and continues where the cuts were.
	r, err := s.Download(t.Context(), dir, f, microsoft.DownloadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Fetched != f.Size-200_000 {
		t.Errorf("after two cuts %d bytes moved, want %d", r.Fetched, f.Size-200_000)
	}
	os.Remove(filepath.Join(dir, f.Name))
	_, err = s.Download(t.Context(), dir, f, microsoft.DownloadOptions{})
	if m, ok := errors.AsType[*microsoft.MismatchError](err); !ok || m.What != "SHA-1" {
		t.Fatalf("a corrupted file: %v", err)
	}
	if names := listing(t, dir); len(names) != 0 {
		t.Fatalf("the folder shows a corrupted file: %v", names)
	}
	if _, err = s.Download(t.Context(), dir, f, microsoft.DownloadOptions{}); err != nil {
		t.Fatal(err)
	}
	if names := listing(t, dir); !slices.Equal(names, []string{f.Name}) {
		t.Errorf("the folder holds %v", names)
	}
	if left := listing(t, filepath.Join(dir, ".partial")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDownloadSpeaksOfWhatItMeets(t *testing.T) {
	w, s := redmond(t, microsoft.Options{})
	f, dir := fileOf(w.Updates()[1]), t.TempDir()
	for _, tt := range []struct {
		fault microsofttest.Fault
		want  string
	}{
		{microsofttest.Fault{Status: 503}, "503 Service Unavailable"},
		{microsofttest.Fault{Redirect: "http://127.0.0.1/x"}, "names an address instead of a host"},
		{microsofttest.Fault{Redirect: "http://evil.example/x"}, "none of Microsoft's update hosts"},
	} {
		w.Fault(f.Name, tt.fault)
		if _, err := s.Download(t.Context(), dir, f, microsoft.DownloadOptions{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.fault, err, tt.want)
		}
	}
	small := f
	small.Size--
	if _, err := s.Download(t.Context(), dir, small, microsoft.DownloadOptions{}); err == nil {
		t.Error("a file larger than it should be was taken")
	}
	if _, err := s.Download(t.Context(), dir, microsoft.File{Name: f.Name, URL: f.URL}, microsoft.DownloadOptions{}); err == nil {
		t.Error("a file without a digest was taken")
	}
	_, err := s.Download(t.Context(), dir, f, microsoft.DownloadOptions{Floor: 1 << 60})
	if _, ok := errors.AsType[*microsoft.FullError](err); !ok {
		t.Errorf("below the floor: %v", err)
	}
	// A server that ignores Range begins anew, and the file is right.
	w.Fault(f.Name, microsofttest.Fault{Truncate: 50_000}, microsofttest.Fault{IgnoreRange: true})
	s.Download(t.Context(), dir, f, microsoft.DownloadOptions{})
	if r, err := s.Download(t.Context(), dir, f, microsoft.DownloadOptions{}); err != nil || r.Fetched != f.Size {
		t.Errorf("range ignored: %d bytes of %d, %v", r.Fetched, f.Size, err)
	}
}

func TestAFileIsFetchedOnceAtATime(t *testing.T) {
	w, s := redmond(t, microsoft.Options{})
	f, dir := fileOf(w.Updates()[2]), t.TempDir()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := os.Stat(filepath.Join(dir, f.Name)); err == nil {
				return
			}
			if _, err := s.Download(t.Context(), dir, f, microsoft.DownloadOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if b, _ := os.ReadFile(filepath.Join(dir, f.Name)); int64(len(b)) != f.Size {
		t.Errorf("%d bytes of %d", len(b), f.Size)
	}
}

func TestScanCab(t *testing.T) {
	w, s := redmond(t, microsoft.Options{})
	dir := t.TempDir()
	w.Fault(microsoft.ScanCabName, microsofttest.Fault{Truncate: 10_000})
	if _, _, _, err := s.DownloadScanCab(t.Context(), dir, microsoft.CabVersion{}, microsoft.DownloadOptions{}); err == nil {
		t.Fatal("a truncated scan cab was taken")
	}
	v, fetched, changed, err := s.DownloadScanCab(t.Context(), dir, microsoft.CabVersion{}, microsoft.DownloadOptions{})
	if err != nil || !changed || fetched != int64(len(w.Cab()))-10_000 {
		t.Fatalf("%d bytes of %d, changed %v: %v", fetched, len(w.Cab()), changed, err)
	}
	before := w.Requests()[microsoft.ScanCabName]
	again, fetched, changed, err := s.DownloadScanCab(t.Context(), dir, v, microsoft.DownloadOptions{})
	after := w.Requests()[microsoft.ScanCabName]
	if err != nil || changed || fetched != 0 || again.SHA256 != v.SHA256 || after.Bytes != before.Bytes || after.NotModified != before.NotModified+1 {
		t.Errorf("unchanged: %d bytes, changed %v, %+v after %+v: %v", fetched, changed, after, before, err)
	}
	old, err := os.Open(filepath.Join(dir, microsoft.ScanCabName))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	was := w.Cab()
	w.Publish(w.Updates()[len(w.Updates())-1].Published.AddDate(0, 1, 0))
	next, _, changed, err := s.DownloadScanCab(t.Context(), dir, v, microsoft.DownloadOptions{})
	if err != nil || !changed || next.SHA256 == v.SHA256 {
		t.Errorf("a new month: changed %v, %v", changed, err)
	}
	if b, _ := io.ReadAll(old); !bytes.Equal(b, was) {
		t.Error("whoever had the old cab open does not read it on")
	}
	w.Fault(microsoft.ScanCabName, microsofttest.Fault{}, microsofttest.Fault{Corrupt: true})
	if _, _, _, err := s.DownloadScanCab(t.Context(), t.TempDir(), microsoft.CabVersion{}, microsoft.DownloadOptions{}); err != nil {
		t.Error(err)
	}
	_, _, _, err = s.DownloadScanCab(t.Context(), t.TempDir(), microsoft.CabVersion{}, microsoft.DownloadOptions{})
	if _, ok := errors.AsType[*microsoft.SignatureError](err); !ok {
		t.Errorf("a corrupted header: %v", err)
	}
}

// TestCabextractReadsTheCab has an independent reader judge what we make.
func TestCabextractReadsTheCab(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "wsusscn2.cab")
	if err := os.WriteFile(path, microsofttest.New(microsofttest.Options{Seed: 7}).Cab(), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-q", "-d", dir, path}, {"-q", "-d", dir, filepath.Join(dir, "package.cab")}, {"-q", "-d", dir, filepath.Join(dir, "package2.cab")}} {
		if out, err := exec.Command("cabextract", args...).CombinedOutput(); err != nil {
			t.Fatalf("cabextract %v (./packaging/check installs it): %v\n%s", args, err, out)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "package.xml"))
	if err != nil || !strings.Contains(string(b), "OfflineSyncPackage") {
		t.Errorf("package.xml: %.100s, %v", b, err)
	}
}

func TestCheckURL(t *testing.T) {
	s, err := microsoft.NewSource(microsoft.Options{Hosts: []string{"mirror.example.com", ".cdn.example.com"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for raw, ok := range map[string]bool{
		"http://download.windowsupdate.com/c/x.cab":              true,
		"https://DOWNLOAD.windowsupdate.com:443/c/x.cab":         true,
		"http://3.tlu.dl.delivery.mp.microsoft.com/filestream/x": true,
		"http://mirror.example.com/x":                            true,
		"http://a.cdn.example.com/x":                             true,
		"http://cdn.example.com/x":                               false,
		"http://download.windowsupdate.com:8080/x":               false,
		"http://download.windowsupdate.com.evil.example/x":       false,
		"http://evilwindowsupdate.com/x":                         false,
		"http://download.windowsupdate.com@evil.example/x":       false,
		"http://user@download.windowsupdate.com/x":               false,
		"ftp://download.windowsupdate.com/x":                     false,
		"file:///etc/passwd":                                     false,
		"http://127.0.0.1/x":                                     false,
		"http://[::1]/x":                                         false,
		"http://download.windowsupdate.com\\@evil.example/x":     false,
		"http://download.windowsupdate.com./x":                   false,
		"//download.windowsupdate.com/x":                         false,
		"":                                                       false,
	} {
		if _, err := s.CheckURL(raw); (err == nil) != ok {
			t.Errorf("CheckURL(%q) = %v", raw, err)
		}
	}
}

// TestProxy sends downloads through a proxy that asks for a password, and
// past it where the configuration says so.
func TestProxy(t *testing.T) {
	w := microsofttest.New(microsofttest.Options{Seed: 1})
	var through int
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "Basic bGVhOnNlY3JldA==" {
			rw.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		through++
		if r.URL.Host != "download.windowsupdate.com" {
			t.Errorf("the proxy was asked for %s", r.URL)
		}
		w.ServeHTTP(rw, r)
	}))
	defer proxy.Close()
	f := fileOf(w.Updates()[0])
	get := func(user string, noProxy ...string) error {
		s, err := microsoft.NewSource(microsoft.Options{
			Proxy: strings.Replace(proxy.URL, "://", "://"+user, 1), NoProxy: noProxy, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			return err
		}
		_, err = s.Download(t.Context(), t.TempDir(), f, microsoft.DownloadOptions{})
		return err
	}
	if err := get("lea:secret@"); err != nil || through != 1 {
		t.Errorf("through the proxy: %v, %d requests", err, through)
	}
	if e, ok := errors.AsType[*microsoft.StatusError](get("lea:wrong@")); !ok || e.Code != 407 {
		t.Errorf("with a wrong password: %v", e)
	}
	if err := get("lea:secret@", ".windowsupdate.com"); err == nil || through != 1 {
		t.Errorf("past the proxy: %v, %d requests through it", err, through)
	}
}

func FuzzNameFromURL(f *testing.F) {
	f.Add("http://download.windowsupdate.com/c/x_cecd02422f71332fedbd553c9eed89e4748638fe.exe")
	f.Add("http://a/..")
	f.Fuzz(func(t *testing.T, raw string) {
		name, sum, err := microsoft.NameFromURL(raw)
		if err == nil && (name != filepath.Base(name) || name[0] == '.' || sum != nil && len(sum) != 20) {
			t.Errorf("%q gives %q, %x", raw, name, sum)
		}
	})
}

func BenchmarkDownload(b *testing.B) {
	w := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 32 << 20})
	srv := httptest.NewServer(w)
	defer srv.Close()
	s, err := microsoft.NewSource(microsoft.Options{Upstream: srv.URL, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	f := fileOf(w.Updates()[0])
	b.SetBytes(f.Size)
	for b.Loop() {
		if _, err := s.Download(b.Context(), b.TempDir(), f, microsoft.DownloadOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
