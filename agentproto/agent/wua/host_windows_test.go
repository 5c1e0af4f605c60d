package wua_test

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/agent/agenttest"
	"wuamesh/agentproto/agent/wua"
)

// A double is the double of the Windows Update Agent (packaging/windows/rig),
// and the updates it knows.
type double struct {
	t   *testing.T
	dir string
}

// newDouble writes a catalogue for the double, which starts afresh. Without a
// rig there is none: on a real Windows these tests would install updates.
func newDouble(t *testing.T, catalog string) double {
	t.Helper()
	dir := os.Getenv("WUAMESH_RIG")
	if dir == "" {
		t.Skip("not in the rig")
	}
	d := double{t, dir}
	os.Remove(filepath.Join(dir, "state.txt"))
	os.Remove(filepath.Join(dir, "calls.log"))
	d.write("catalog.txt", catalog)
	d.write(agentproto.ScanCabName, "MSCF\x00\x00\x00\x00")
	return d
}

func (d double) write(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d double) cab() string { return filepath.Join(d.dir, agentproto.ScanCabName) }

// open opens the host, and checks at the end of the test that every object of
// Windows was given back.
func (d double) open() *wua.Host {
	h, err := wua.OpenHost()
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if n, err := h.LiveObjects(); n != 0 || err != nil {
			d.t.Errorf("%d objects of Windows were not given back, %v", n, err)
		}
		h.Close()
	})
	return h
}

// catalog describes updates as the double reads them. As of most updates of
// Windows, the files are those of a bundled one.
func catalog(list []agentproto.Update, more func(agentproto.Update) string) string {
	var b strings.Builder
	for _, u := range list {
		fmt.Fprintf(&b, "update %s %d\n", strings.ToUpper(string(u.ID)), u.Revision)
		if more != nil {
			b.WriteString(more(u)) // of two attributes of one name, the first holds
		}
		fmt.Fprintf(&b, "title %s\nseverity %s\nchanged %s\nmaxsize 5000000000\nreboot 0\n", u.Title, u.Severity, u.Published.Format("2006-01-02T15:04:05"))
		fmt.Fprintf(&b, "category UpdateClassification %s %s\ncategory Company 56309036-4c77-4dd9-951a-99ee9c246a94 Microsoft\n", u.Classification.ID, u.Classification.Title)
		for _, p := range u.Products {
			fmt.Fprintf(&b, "category Product %s %s\n", p.ID, p.Title)
		}
		for _, kb := range u.KBs {
			fmt.Fprintf(&b, "kb %s\n", kb)
		}
		for _, id := range u.Supersedes {
			fmt.Fprintf(&b, "supersedes %s\n", strings.ToUpper(string(id)))
		}
		fmt.Fprintf(&b, "bundled %s %d\ntitle %s\n", strings.Replace(string(u.ID), "4000", "4001", 1), u.Revision, u.Title)
		for _, f := range u.Files {
			fmt.Fprintf(&b, "file %s %d %s\n", f.URL, f.Size, f.SHA1)
		}
	}
	return b.String()
}

func TestHost(t *testing.T) {
	agenttest.TestMachine(t, func(t *testing.T) agenttest.Subject {
		d := newDouble(t, catalog(agenttest.Updates(6), func(u agentproto.Update) string {
			if u.Revision%2 == 1 {
				return "eula 0\n"
			}
			return "eula 1\n"
		}))
		h := d.open()
		if err := h.Service(t.Context(), agent.ServiceGiven); err != nil {
			t.Fatal(err)
		}
		return agenttest.Subject{Machine: h, Cab: d.cab(), Content: agenttest.Content}
	})
}

// TestHostReads holds what is made of an update to what the catalogue says.
func TestHostReads(t *testing.T) {
	want := agenttest.Updates(2)
	want[1].Supersedes = append(want[1].Supersedes, "0000aaaa-0000-4000-8000-000000000009")
	d := newDouble(t, catalog(want, func(u agentproto.Update) string {
		return "description All of it\nsupport https://support.microsoft.com/help\nbulletin MS24-001\ncve CVE-2026-12345\nimpact 2\nreboot 2\nuserinput 1\n"
	}))
	s := session(t, d.open(), d)
	list, err := s.Search(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	got, u := list[1].Update, want[1]
	if got.ID != u.ID || got.Revision != u.Revision || got.Title != u.Title || got.Severity != u.Severity || !got.Published.Equal(u.Published) ||
		got.Classification != u.Classification || len(got.Products) != 1 || got.Products[0] != u.Products[0] ||
		len(got.KBs) != 1 || got.KBs[0] != u.KBs[0] || len(got.Supersedes) != 1 || got.Supersedes[0] != u.Supersedes[0] ||
		len(got.Files) != 1 || got.Files[0].Name != u.Files[0].Name || got.Files[0].URL != u.Files[0].URL {
		t.Errorf("read   %+v\nwant %+v", got, u)
	}
	if got.Description != "All of it" || got.SupportURL == "" || len(got.Bulletins) != 1 || len(got.CVEs) != 1 || !got.Exclusive || got.Restart != "maybe" || !list[1].UserInput {
		t.Errorf("read %+v", got)
	}
}

// TestHostErrors: the true code of what failed arrives, whatever wraps it.
func TestHostErrors(t *testing.T) {
	d := newDouble(t, "fault AddScanPackageService 0x80070422 1\nfault Search 0x8007000E 1\nfault CopyToCache 0x80070070 1\nfault Install 0x800706BA 1\n"+
		catalog(agenttest.Updates(1), func(agentproto.Update) string { return "installresult 0x80070643\n" }))
	h := d.open()
	wantCode := func(err error, code uint32) {
		t.Helper()
		if got := wua.CodeOf(err); got != code {
			t.Errorf("%v, want 0x%08X", err, code)
		}
	}
	_, err := h.Open(t.Context(), agent.Query{Cab: d.cab()})
	wantCode(err, 0x80070422)
	_, err = h.Open(t.Context(), agent.Query{Cab: `\\server\share\wsusscn2.cab`})
	wantCode(err, 0x80070057)
	s := session(t, h, d)
	_, err = s.Search(t.Context())
	wantCode(err, 0x8007000E)
	list, err := s.Search(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	ref := list[0].Ref()
	path := filepath.Join(t.TempDir(), list[0].Update.Files[0].Name)
	if err := os.WriteFile(path, agenttest.Content(filepath.Base(path)), 0o600); err != nil {
		t.Fatal(err)
	}
	wantCode(s.CopyToCache(t.Context(), ref, []string{path}), 0x80070070)
	if err := s.CopyToCache(t.Context(), ref, []string{path}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Install(t.Context(), ref)
	wantCode(err, 0x800706BA)
	if out, err := s.Install(t.Context(), ref); err != nil || out.HResult != 0x80070643 || !out.Failed() {
		t.Errorf("%+v, %v", out, err)
	}
	s.Close()
	q, err := h.Open(t.Context(), agent.Query{Cab: d.cab(), Criteria: "(IsInstalled=0) and (Type='Software' or Type='Driver')"})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	_, err = q.Search(t.Context())
	wantCode(err, 0x80240032)
	d.write("bad.cab", "no cabinet")
	q.Close()
	_, err = h.Open(t.Context(), agent.Query{Cab: filepath.Join(d.dir, "bad.cab")})
	wantCode(err, 0x80247001)
}

// TestHostDeltas: the full files do not do until the delta is there too.
func TestHostDeltas(t *testing.T) {
	u := agenttest.Updates(1)
	delta := "windows11.0-kb5091000-x64_express.psf"
	sum := sha1.Sum([]byte("delta"))
	u[0].Files = append(u[0].Files, agentproto.File{Name: delta, URL: "http://download.windowsupdate.com/c/" + delta, Size: 5, SHA1: hex.EncodeToString(sum[:])})
	d := newDouble(t, catalog(u, nil)+"needsdelta 1\n")
	s := session(t, d.open(), d)
	list, err := s.Search(t.Context())
	if err != nil || len(list) != 1 || len(list[0].Update.Files) != 2 || !list[0].Update.Files[1].Delta || list[0].Update.Files[0].Delta {
		t.Fatalf("%+v, %v", list, err)
	}
	dir, ref := t.TempDir(), list[0].Ref()
	full, part := filepath.Join(dir, u[0].Files[0].Name), filepath.Join(dir, delta)
	if err := os.WriteFile(full, agenttest.Content(u[0].Files[0].Name), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(part, []byte("delta"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, try := range []struct {
		files []string
		code  uint32
	}{{[]string{full}, 0x8024200D}, {[]string{full, part}, 0}} {
		if err := s.CopyToCache(t.Context(), ref, try.files); err != nil {
			t.Fatal(err)
		}
		if out, err := s.Install(t.Context(), ref); err != nil || out.HResult != try.code {
			t.Errorf("with %d files: %+v, %v", len(try.files), out, err)
		}
	}
}

// TestHostRestart installs what takes effect after a restart.
func TestHostRestart(t *testing.T) {
	u := agenttest.Updates(1)
	d := newDouble(t, catalog(u, func(agentproto.Update) string { return "reboot 1\n" }))
	h := d.open()
	s := session(t, h, d)
	list, err := s.Search(t.Context())
	if err != nil || len(list) != 1 || list[0].Update.Restart != "always" {
		t.Fatalf("%+v, %v", list, err)
	}
	path := filepath.Join(t.TempDir(), u[0].Files[0].Name)
	if err := os.WriteFile(path, agenttest.Content(filepath.Base(path)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.CopyToCache(t.Context(), list[0].Ref(), []string{path}); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Install(t.Context(), list[0].Ref()); err != nil || !out.Restart || out.Failed() {
		t.Errorf("%+v, %v", out, err)
	}
	for _, due := range []bool{true, false} {
		f, err := h.Facts(t.Context())
		list, serr := s.Search(t.Context())
		if err != nil || serr != nil || f.RestartDue != due || len(list) != 1 || list[0].Restart != due || list[0].Installed == due {
			t.Errorf("restart due %v: %+v, %+v, %v, %v", due, f, list, err, serr)
		}
		d.append("state.txt", "rebooted\n")
	}
}

func (d double) append(name, text string) {
	d.t.Helper()
	f, err := os.OpenFile(filepath.Join(d.dir, name), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		f.Close()
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// TestHostManyCallers: any goroutine may call; COM sees one thread.
func TestHostManyCallers(t *testing.T) {
	d := newDouble(t, catalog(agenttest.Updates(20), nil))
	h := d.open()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := h.Open(context.Background(), agent.Query{Cab: d.cab()})
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			for range 5 {
				if list, err := s.Search(context.Background()); err != nil || len(list) != 20 {
					t.Errorf("%d found, %v", len(list), err)
				}
			}
		})
	}
	wg.Wait()
}

// TestHostManyScans: a hundred scans of 300 updates leave nothing behind, in
// Windows or here.
func TestHostManyScans(t *testing.T) {
	d := newDouble(t, catalog(agenttest.Updates(300), nil))
	h := d.open()
	scan := func() time.Duration {
		s := session(t, h, d)
		defer s.Close()
		began := time.Now()
		if list, err := s.Search(t.Context()); err != nil || len(list) != 300 {
			t.Fatalf("%d found, %v", len(list), err)
		}
		return time.Since(began)
	}
	var before, after runtime.MemStats
	for range 5 {
		scan()
	}
	private := wua.PrivateBytes()
	runtime.GC()
	runtime.ReadMemStats(&before)
	best := time.Hour
	for range 100 {
		best = min(best, scan())
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(wua.PrivateBytes()) - int64(private)
	t.Logf("search and read of 300 updates: %s at best; after 100 scans %+d kB of the heap, %+d kB of the process", best.Round(time.Millisecond),
		(int64(after.HeapAlloc)-int64(before.HeapAlloc))>>10, grown>>10)
	if n, err := h.LiveObjects(); n != 0 || err != nil {
		t.Errorf("%d objects are alive, %v", n, err)
	}
	if after.HeapAlloc > before.HeapAlloc+4<<20 || grown > 16<<20 {
		t.Errorf("memory grows with every scan: the heap from %d to %d, the process by %d", before.HeapAlloc, after.HeapAlloc, grown)
	}
}

// TestHostService follows the Windows Update service.
func TestHostService(t *testing.T) {
	h := newDouble(t, "").open()
	for _, step := range []struct {
		mode agent.ServiceMode
		want string
	}{
		{agent.ServiceOn, "running"}, {agent.ServiceOn, "running"}, {agent.ServiceOff, "disabled"}, {agent.ServiceOff, "disabled"},
		{agent.ServiceGiven, "stopped"}, {agent.ServiceOn, "running"}, {agent.ServiceGiven, "running"}, {agent.ServiceOff, "disabled"}, {agent.ServiceGiven, "stopped"},
	} {
		if err := h.Service(t.Context(), step.mode); err != nil {
			t.Fatalf("%s: %v", step.mode, err)
		}
		if f, err := h.Facts(t.Context()); err != nil || f.WUAService != step.want {
			t.Errorf("after %s the service is %s, want %s; %v", step.mode, f.WUAService, step.want, err)
		}
	}
}

func session(t *testing.T, h *wua.Host, d double) agent.Session {
	t.Helper()
	s, err := h.Open(t.Context(), agent.Query{Cab: d.cab()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestHostPolicies follows what becomes of a host's own policies: kept, and
// put back unless somebody changed them meanwhile.
func TestHostPolicies(t *testing.T) {
	h := newDouble(t, "").open()
	const key, auto = `SOFTWARE\Policies\Microsoft\Windows\WindowsUpdate`, `SOFTWARE\Policies\Microsoft\Windows\WindowsUpdate\AU`
	wua.SetPolicy(t, auto, "NoAutoUpdate", 0)
	wua.SetPolicy(t, key, "SetDisableUXWUAccess", -1)
	over := func(on bool, drift int) {
		t.Helper()
		if got, err := h.TakeOver(t.Context(), on); err != nil || len(got) != drift {
			t.Fatalf("taken over %v: %q, %v", on, got, err)
		}
	}
	is := func(key, name string, want int) {
		t.Helper()
		if got := wua.Policy(t, key, name); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
	over(true, 0)
	is(auto, "NoAutoUpdate", 1)
	is(key, "SetDisableUXWUAccess", 1)
	wua.SetPolicy(t, key, "SetDisableUXWUAccess", 0) // as a domain's group policy does
	over(true, 1)
	is(key, "SetDisableUXWUAccess", 0)
	wua.SetPolicy(t, key, "DisableWindowsUpdateAccess", 1)
	over(true, 2)
	wua.SetPolicy(t, key, "DisableWindowsUpdateAccess", -1)
	for range 2 {
		over(false, 0)
		is(auto, "NoAutoUpdate", 0)
		is(key, "SetDisableUXWUAccess", 0)
		is(key, "ExcludeWUDriversInQualityUpdate", -1)
	}
}

// TestHostPackages installs and removes by Windows' servicing tools.
func TestHostPackages(t *testing.T) {
	u := agenttest.Updates(3)
	u[1].Files[0].URL = strings.Replace(u[1].Files[0].URL, ".cab", ".msu", 1)
	u[2].Files[0].URL = strings.Replace(u[2].Files[0].URL, "5091002", "x", 1)
	d := newDouble(t, catalog(u, func(u agentproto.Update) string {
		return map[int]string{200: "packageresult 0x800F0922\n", 201: "packageresult 3010\n"}[u.Revision]
	}))
	h := d.open()
	for _, tt := range []struct {
		url  string
		want agent.Outcome
		said string
	}{
		{u[0].Files[0].URL, agent.Outcome{HResult: 0x800F0922}, "dism.exe /Online /Add-Package /PackagePath:"},
		{u[1].Files[0].URL, agent.Outcome{Restart: true}, "wusa.exe "},
		{u[2].Files[0].URL, agent.Outcome{}, "dism.exe "},
	} {
		name := tt.url[strings.LastIndex(tt.url, "/")+1:]
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte("MSCF"), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := h.InstallPackage(t.Context(), path); err != nil || out != tt.want {
			t.Errorf("%s: %+v, %v", name, out, err)
		}
		if calls, err := os.ReadFile(filepath.Join(d.dir, "calls.log")); err != nil || !strings.Contains(string(calls), tt.said) || !strings.Contains(string(calls), name) {
			t.Errorf("the tools were called\n%s\n%v", calls, err)
		}
	}
	if _, err := h.InstallPackage(t.Context(), `\\server\share\x.msu`); wua.CodeOf(err) != 0x80070057 {
		t.Errorf("a path on the network: %v", err)
	}
	for range 2 {
		out, err := h.RemoveKB(t.Context(), u[2].KBs[0])
		if err != nil || out.Failed() {
			t.Fatalf("%+v, %v", out, err)
		}
		// The second time by its package, which Windows' servicing knows.
		d.append("state.txt", fmt.Sprintf("installed %s %d\n", strings.ToUpper(string(u[2].ID)), u[2].Revision))
		wua.InstalledPackage(t, "Package_for_KB"+u[2].KBs[0]+"~31bf3856ad364e35~amd64~~1.0")
	}
	calls, _ := os.ReadFile(filepath.Join(d.dir, "calls.log"))
	for _, want := range []string{"wusa.exe /uninstall /kb:" + u[2].KBs[0], "dism.exe /Online /Remove-Package /PackageName:Package_for_KB" + u[2].KBs[0]} {
		if !strings.Contains(string(calls), want) {
			t.Errorf("no %q in\n%s", want, calls)
		}
	}
}
