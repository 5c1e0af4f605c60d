package agent_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/agent/agenttest"
)

// microsoft stands in for Microsoft's hosts, whatever their name.
type microsoft struct{ to *url.URL }

func (m microsoft) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = m.to.Scheme, m.to.Host
	return http.DefaultTransport.RoundTrip(r)
}

// TestDirectDownload is requirement A9: the files come from Microsoft, and
// from the node when Microsoft has another file or the URL is not one of
// Microsoft's.
func TestDirectDownload(t *testing.T) {
	u := agenttest.Updates(3)
	u[2].Files[0].URL = "http://download.example.net/c/" + fileOf(u[2])
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if strings.HasSuffix(r.URL.Path, fileOf(u[1])) {
			w.Write([]byte("a page of a proxy"))
			return
		}
		w.Write(agenttest.Content(path.Base(r.URL.Path)))
	}))
	defer server.Close()
	to, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	m := newMesh(t)
	n := m.node(t, "rns-01")
	s := settings()
	s.DirectDownload, s.DefaultAllow = true, true
	n.policy = allow(s)
	h := newHost(t, iniFor(m, n), u)
	h.o.Microsoft = microsoft{to}
	a := h.open()
	defer a.Close()
	a.Scan(t.Context())
	if text, err := a.Install(t.Context()); err != nil || text != "Installed 3 updates." {
		t.Errorf("%q, %v", text, err)
	}
	n.look(func() {
		if n.fetched[fileOf(u[0])] != 0 || n.fetched[fileOf(u[1])] != 1 || n.fetched[fileOf(u[2])] != 1 || asked.Load() != 2 {
			t.Errorf("%d files from Microsoft, from the node %v", asked.Load(), n.fetched)
		}
	})
}

// TestDirectOneAway takes away Microsoft or the node: where direct_download is
// on, each does for the other; where it is off, Microsoft is never asked.
func TestDirectOneAway(t *testing.T) {
	for _, tt := range []struct {
		name                 string
		direct               bool
		noMicrosoft, noNode  bool
		said                 string
		fromMicrosoft, files int
	}{
		{"Microsoft away", true, true, false, "Downloaded 2 files.", 0, 2},
		{"the node away", true, false, true, "Downloaded 2 files.", 2, 2},
		{"the node away, and Microsoft not allowed", false, false, true, "", 0, 0},
		{"both away", true, true, true, "", 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var open atomic.Bool
			var asked atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !open.Load() {
					http.Error(w, "not yet", http.StatusServiceUnavailable)
					return
				}
				asked.Add(1)
				w.Write(agenttest.Content(path.Base(r.URL.Path)))
			}))
			defer server.Close()
			to, err := url.Parse(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			m := newMesh(t)
			n := m.node(t, "rns-01")
			u := agenttest.Updates(2)
			for _, one := range u {
				n.away[fileOf(one)] = true // until the host knows what it needs
			}
			s := settings()
			s.DirectDownload, s.DefaultAllow = tt.direct, true
			n.policy = allow(s)
			h := newHost(t, iniFor(m, n), u)
			h.o.Microsoft = microsoft{to}
			a := h.open()
			if _, err := a.Scan(t.Context()); err != nil {
				t.Fatal(err)
			}
			a.Close()
			if got := h.files(); len(got) > 0 {
				t.Fatalf("downloads: %v", got)
			}
			open.Store(true)
			n.look(func() { clear(n.away) })
			if tt.noMicrosoft {
				server.Close()
			}
			if tt.noNode {
				n.stop()
			}
			a = h.open() // it does not wait for what failed before
			defer a.Close()
			text, err := a.Download(t.Context())
			if text != tt.said || (err == nil) != (tt.said != "") {
				t.Errorf("%q, %v, want %q", text, err, tt.said)
			}
			if got := int(asked.Load()); got != tt.fromMicrosoft {
				t.Errorf("%d requests to Microsoft, want %d", got, tt.fromMicrosoft)
			}
			if got := h.files(); len(got) != tt.files {
				t.Errorf("downloads: %v, want %d", got, tt.files)
			}
		})
	}
}

// TestDiskFull fetches nothing that would not fit, and says so.
func TestDiskFull(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	s := settings()
	s.DefaultAllow = true
	n.policy = allow(s)
	h := newHost(t, iniFor(m, n), agenttest.Updates(1))
	h.machine.free = 1 << 20
	a := h.open()
	defer a.Close()
	if _, err := a.Download(t.Context()); err == nil || !strings.Contains(err.Error(), "not enough free space") {
		t.Errorf("%v", err)
	}
	if st := a.Status(); len(st.Warnings) != 1 || !strings.Contains(st.Warnings[0], "1 MB are free") {
		t.Errorf("%v", st.Warnings)
	}
	if e := a.Status().Errors; len(e) != 1 || e[0].Doing != "download" || e[0].Meaning == nil || e[0].Meaning.Name != "ERROR_DISK_FULL" {
		t.Errorf("%+v", e)
	}
	h.machine.free = 0
	if _, err := a.Scan(t.Context()); err != nil || len(a.Status().Warnings) > 0 {
		t.Errorf("%v, %v", err, a.Status().Warnings)
	}
}

// TestDiskFullIsTold: the node hears of a full disk at once, and that it is over,
// though no check-in is due for an hour.
func TestDiskFullIsTold(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	s := settings()
	s.DefaultAllow = true
	n.policy = allow(s)
	h := newHost(t, iniFor(m, n), agenttest.Updates(1))
	var full atomic.Bool
	h.machine.Machine = fullDisk{h.machine.Machine, &full}
	full.Store(true)
	h.start()
	warned := func() bool {
		k := n.checkins
		return len(k) > 0 && strings.Contains(strings.Join(k[len(k)-1].Warnings, " "), "not enough free space")
	}
	n.until("the warning", func() bool { return warned() && len(n.listeners) == 1 })
	full.Store(false)
	n.tell("command", agentproto.Command{ID: "c1", Action: agentproto.ActionDownload, By: "maelle", Issued: time.Now()})
	n.until("the end of the warning", func() bool { return !warned() && n.fetched[fileOf(agenttest.Updates(1)[0])] == 1 })
}

// A fullDisk has a megabyte left while it is full.
type fullDisk struct {
	agent.Machine
	full *atomic.Bool
}

func (d fullDisk) FreeSpace(ctx context.Context, dir string) (int64, error) {
	if d.full.Load() {
		return 1 << 20, nil
	}
	return d.Machine.FreeSpace(ctx, dir)
}

// TestResumeAfterRestart cuts the line in the middle of the scan cab and of a
// file, and stops the agent there: not one byte comes twice.
func TestResumeAfterRestart(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	u := agenttest.Updates(1)
	s := settings()
	s.DefaultAllow = true
	n.policy = allow(s)
	// More often than the agent goes on at once.
	n.cut[agentproto.ScanCabName], n.cut[fileOf(u[0])] = []int{30000, 1000, 1000, 1000}, []int{20000, 1000, 1000, 1000}
	h := newHost(t, iniFor(m, n), u)
	for i := range 4 {
		a := h.open()
		if _, err := a.Scan(t.Context()); (err == nil) != (i > 0) {
			t.Errorf("turn %d: %v", i, err)
		}
		if _, err := a.Download(t.Context()); err != nil && i > 1 {
			t.Errorf("turn %d: %v", i, err)
		}
		a.Close()
	}
	n.look(func() {
		for _, name := range []string{agentproto.ScanCabName, fileOf(u[0])} {
			if want := int64(len(n.files[name])); n.sent[name] != want || n.fetched[name] != 5 {
				t.Errorf("%s: %d bytes in %d requests, want %d in five", name, n.sent[name], n.fetched[name], want)
			}
		}
	})
	if got := h.files(); len(got) != 1 || got[0] != fileOf(u[0]) {
		t.Errorf("downloads: %v", got)
	}
}

// TestAnotherNodeGoesOn has the nearest node die while it sends a file: the
// next one sends the rest at once, from the very byte, and nothing twice.
func TestAnotherNodeGoesOn(t *testing.T) {
	m := newMesh(t)
	first, second := m.node(t, "rns-01"), m.node(t, "rns-02")
	u := agenttest.Updates(1)
	s := settings()
	s.DefaultAllow = true
	first.policy = allow(s)
	second.policy = first.policy
	first.cut[fileOf(u[0])], first.dies = []int{20000}, true
	h := newHost(t, iniFor(m, first, second), u)
	a := h.open()
	defer a.Close()
	if _, err := a.Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text, err := a.Download(t.Context()); err != nil || text != "Downloaded 1 file." {
		t.Errorf("%q, %v", text, err)
	}
	whole := int64(len(agenttest.Content(fileOf(u[0]))))
	second.look(func() {
		if got := second.sent[fileOf(u[0])]; got != whole-20000 || second.fetched[fileOf(u[0])] != 1 {
			t.Errorf("the second node sent %d bytes in %d answers, want the last %d of %d", got, second.fetched[fileOf(u[0])], whole-20000, whole)
		}
	})
}

// unreachable is a way to Microsoft that a firewall closed.
type unreachable struct{ asked atomic.Int32 }

func (u *unreachable) RoundTrip(r *http.Request) (*http.Response, error) {
	u.asked.Add(1)
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
}

// TestMicrosoftIsBlocked has a firewall drop what goes to Microsoft: it is
// found out once, not for each file, and the files come from the node. While
// neither has them, both are asked.
func TestMicrosoftIsBlocked(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	u := agenttest.Updates(4)
	n.away[fileOf(u[3])] = true
	s := settings()
	s.DirectDownload, s.DefaultAllow = true, true
	n.policy = allow(s)
	h := newHost(t, iniFor(m, n), u)
	way := &unreachable{}
	h.o.Microsoft = way
	a := h.open()
	defer a.Close()
	if _, err := a.Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text, err := a.Download(t.Context()); err != nil || len(h.files()) != 3 {
		t.Errorf("%q, %v; here are %v", text, err, h.files())
	}
	// The first file's way, and that of the one that the node has not.
	if got := way.asked.Load(); got != 2 {
		t.Errorf("Microsoft was asked %d times", got)
	}
}
