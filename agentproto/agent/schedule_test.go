package agent_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/agent/agenttest"
	"wuamesh/agentproto/rules"
)

// A wire is a node without sockets, for virtual time.
type wire struct {
	t    testing.TB
	mesh *mesh

	mu       sync.Mutex
	policy   rules.Policy
	cab      []byte
	down     bool
	silent   []int // after how many bytes of a file that is no cab each answer falls silent
	offsets  []int64
	jumps    bool // says another time at every other check-in
	checkins []time.Time
	said     []agentproto.Checkin
	nodes    []string
	broken   chan bool // ends a stream of events
}

func (w *wire) Enroll(_ context.Context, q agentproto.EnrollRequest) (r agentproto.EnrollResponse, err error) {
	csr, err := x509.ParseCertificateRequest(q.CSR)
	if err != nil {
		return r, err
	}
	cert := w.mesh.sign(w.t, &x509.Certificate{Subject: csr.Subject}, csr.PublicKey)
	return agentproto.EnrollResponse{Certificate: cert.Raw, Authority: w.mesh.authority.Raw}, nil
}

var errDown = errors.New("connection refused")

func (w *wire) Checkin(_ context.Context, k agentproto.Checkin) (agentproto.CheckinResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checkins = append(w.checkins, time.Now())
	w.said = append(w.said, k)
	if w.down {
		return agentproto.CheckinResponse{}, errDown
	}
	p, now := w.policy, time.Now()
	if w.jumps && len(w.checkins)%2 == 0 {
		now = now.Add(time.Hour)
	}
	return agentproto.CheckinResponse{
		Now:        now,
		PolicyHash: p.Hash(), Policy: &p, Next: agentproto.Duration(15 * time.Minute),
		Cab: &agentproto.CabRef{SHA256: sum256(w.cab), Size: int64(len(w.cab)), Date: time.Now()},
	}, k.Validate()
}

func (w *wire) Report(_ context.Context, r agentproto.Report) (agentproto.ReportResponse, error) {
	return agentproto.ReportResponse{}, r.Validate()
}

func (w *wire) Results(_ context.Context, r agentproto.Results) error { return r.Validate() }

func (w *wire) Events(ctx context.Context, _ func(agentproto.Event) error) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-w.broken:
		return errDown
	}
}

func (w *wire) Fetch(_ context.Context, name string, offset int64, _ string) (agentproto.Content, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := agenttest.Content(name)
	if name == agentproto.ScanCabName {
		b = w.cab
	}
	if w.down {
		return agentproto.Content{}, errDown
	}
	c := agentproto.Content{Body: io.NopCloser(bytes.NewReader(b[offset:])), Offset: offset, Size: int64(len(b)), ETag: `"` + sum256(b) + `"`}
	if name != agentproto.ScanCabName {
		w.offsets = append(w.offsets, offset)
		if len(w.silent) > 0 {
			c.Body = io.NopCloser(io.MultiReader(bytes.NewReader(b[offset:][:w.silent[0]]), iotest.ErrReader(fmt.Errorf("rns-01: %w", agentproto.ErrSilent))))
			w.silent = w.silent[1:]
		}
	}
	return c, nil
}

// TestSilentNodes has one node after the other fall silent in the middle of a file,
// one of them before the first byte: the download goes on at once, from the very
// byte, and no error is left of it.
func TestSilentNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.DefaultAllow = true
		u := agenttest.Updates(1)
		h, w := virtual(t, s, u)
		w.silent = []int{20000, 0, 1000}
		h.start()
		time.Sleep(25 * time.Second) // what failed is asked for again after half a minute
		h.stop()
		if want := []int64{0, 20000, 20000, 21000}; !slices.Equal(w.offsets, want) {
			t.Errorf("asked from the bytes %v, want %v", w.offsets, want)
		}
		if got := h.files(); !slices.Equal(got, []string{fileOf(u[0])}) {
			t.Errorf("downloads: %v", got)
		}
		for _, k := range w.said {
			if len(k.Errors) > 0 {
				t.Errorf("errors: %+v", k.Errors)
			}
		}
	})
}

func (w *wire) Nodes() []string { return []string{"https://rns-01"} }

func (w *wire) SetNodes([]string) error { return nil }

func (w *wire) Close() {}

// virtual starts a host on a wire, in a bubble.
func virtual(t *testing.T, s rules.Settings, updates []agentproto.Update) (*host, *wire) {
	m := newMesh(t)
	w := &wire{t: t, mesh: m, policy: allow(s), cab: []byte("MSCF 0"), broken: make(chan bool)}
	h := newHost(t, fmt.Sprintf("[waptwua]\nenabled = 1\n[wuamesh]\nnodes = rns-01\ntoken = %s\n", m.token), updates)
	h.o.Connect = func(agentproto.ClientOptions) (agent.Node, error) { return w, nil }
	return h, w
}

// TestSchedules runs five days. The scan cab changes every six hours; scans
// come once a day all the same, and installs every two hours do not starve
// them, nor they the installs.
func TestSchedules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.DownloadScheduling, s.InstallScheduling = 24*time.Hour, 2*time.Hour
		s.DefaultAllow = true
		u := agenttest.Updates(3)
		h, w := virtual(t, s, u)
		began := time.Now()
		var scans []time.Duration
		h.machine.before = func(step string) {
			if step == "search" {
				scans = append(scans, time.Since(began))
			}
		}
		h.start()
		for i := range 4 * 5 {
			time.Sleep(6 * time.Hour)
			w.mu.Lock()
			w.cab = fmt.Appendf(nil, "MSCF %d", i+1)
			w.mu.Unlock()
		}
		h.stop()
		for _, x := range u {
			if !h.sim.Installed(x.ID) {
				t.Errorf("%s is not installed after five days", x.ID)
			}
		}
		// The first one, two for each install there was, and one a day.
		daily := scans[len(scans)-4:]
		if len(scans) > 10 {
			t.Errorf("%d scans in five days: %v", len(scans), scans)
		}
		for i := 1; i < len(daily); i++ {
			if gap := daily[i] - daily[i-1]; gap < 24*time.Hour || gap > 24*time.Hour+31*time.Minute {
				t.Errorf("%s between two scans, want a day and at most half an hour: %v", gap, scans)
			}
		}
		if n := len(w.checkins); n < 4*24*5 || n > 5*24*5 {
			t.Errorf("%d check-ins in five days, want one in about a quarter of an hour", n)
		}
	})
}

// TestIdle runs three days in which nothing changes.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.DownloadScheduling, s.InstallScheduling = time.Hour, time.Hour
		h, _ := virtual(t, s, agenttest.Updates(3))
		h.start()
		time.Sleep(3 * 24 * time.Hour)
		h.stop()
		if opened, searched := h.counts(); opened != 1 || searched != 1 {
			t.Errorf("Windows was asked %d times, and searched %d times, want once", opened, searched)
		}
	})
}

// TestBackoff keeps every node away for a day.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w := virtual(t, settings(), agenttest.Updates(1))
		h.start()
		time.Sleep(time.Hour)
		w.mu.Lock()
		w.down, w.checkins = true, nil
		w.mu.Unlock()
		time.Sleep(24 * time.Hour)
		w.mu.Lock()
		n := len(w.checkins)
		w.down, w.checkins = false, nil
		w.mu.Unlock()
		if n < 96 || n > 250 {
			t.Errorf("%d tries in a day without a node", n)
		}
		time.Sleep(16 * time.Minute)
		st := h.Status()
		h.stop()
		if len(w.checkins) == 0 || st.Error != "" {
			t.Errorf("back for a quarter of an hour, and %d check-ins, %q", len(w.checkins), st.Error)
		}
	})
}

// TestNodeRestarts has the node away for half a minute, which is no error of the
// host's, and for half an hour, which is one.
func TestNodeRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w := virtual(t, settings(), agenttest.Updates(1))
		h.start()
		time.Sleep(time.Hour)
		away := func(d time.Duration) {
			w.mu.Lock()
			w.down = true
			w.mu.Unlock()
			w.broken <- true // so that it asks at once
			time.Sleep(d)
			w.mu.Lock()
			w.down = false
			w.mu.Unlock()
			time.Sleep(time.Hour)
		}
		away(30 * time.Second)
		if e := h.Status().Errors; len(e) > 0 {
			t.Errorf("after a restart of the node: %+v", e)
		}
		away(30 * time.Minute)
		if e := h.Status().Errors; len(e) != 1 || e[0].Doing != "contact with the mesh" || e[0].Text != "check in: connection refused" {
			t.Errorf("after an outage: %+v", e)
		}
		h.stop()
	})
}

// TestConfigChanges has someone edit wapt-get.ini: within a minute or so the
// agent works by it.
func TestConfigChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w := virtual(t, settings(), agenttest.Updates(1))
		h.start()
		time.Sleep(5 * time.Second)
		w.mu.Lock()
		before := len(w.checkins)
		w.mu.Unlock()
		h.write("[waptwua]\ninstall_delay = soon\nenabled = True\n[wuamesh]\nnodes = rns-01, rns-02\ntoken = " + w.mesh.token.String())
		time.Sleep(61 * time.Second)
		st := h.Status()
		if len(st.Nodes) != 2 || len(st.Warnings) != 1 || !st.Enrolled {
			t.Errorf("%+v", st)
		}
		w.mu.Lock()
		if len(w.checkins) == before {
			t.Error("the node was not told")
		}
		w.mu.Unlock()
		h.stop()
	})
}

// TestFailedScan: a scan that fails is told, and tried again at growing
// intervals, not at every tick.
func TestFailedScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := virtual(t, settings(), agenttest.Updates(1))
		h.machine.Machine = &refusing{Machine: h.sim}
		h.start()
		time.Sleep(24 * time.Hour)
		n := h.machine.Machine.(*refusing).opened
		if n < 4 || n > 9 {
			t.Errorf("%d tries in a day", n)
		}
		if st := h.Status(); st.ScanErr == "" || st.NextScan.IsZero() {
			t.Errorf("%+v", st)
		}
		h.stop()
	})
}

// refusing is a Windows whose data store is locked.
type refusing struct {
	agent.Machine
	opened int
}

func (r *refusing) Open(context.Context, agent.Query) (agent.Session, error) {
	r.opened++
	return nil, &agent.WindowsError{Call: "AddScanPackageService", HResult: 0x8024800F}
}
