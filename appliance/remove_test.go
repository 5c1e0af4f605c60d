package appliance_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// A line is a wire between nodes that can be cut: what calls its address
// reaches the node behind it.
type line struct {
	to string // filled in once the node listens
	l  net.Listener

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool
}

func newLine(t testing.TB) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &line{l: l, conns: map[net.Conn]bool{}}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { w.carry(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		w.cut(true)
		running.Wait()
	})
	return w
}

func (w *line) addr() string { return w.l.Addr().String() }

func (w *line) keep(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		c.Close()
		return false
	}
	w.conns[c] = true
	return true
}

func (w *line) carry(near net.Conn) {
	defer near.Close()
	if !w.keep(near) {
		return
	}
	w.mu.Lock()
	to := w.to
	w.mu.Unlock()
	far, err := net.Dial("tcp", to)
	if err != nil || !w.keep(far) {
		return
	}
	defer far.Close()
	var both sync.WaitGroup
	both.Go(func() { io.Copy(far, near); far.Close() })
	both.Go(func() { io.Copy(near, far); near.Close() })
	both.Wait()
}

func (w *line) cut(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
	for c := range w.conns {
		c.Close()
	}
	clear(w.conns)
}

// behind runs a bare node that others reach over a line alone.
func behind(t testing.TB, name string) (*site, *line) {
	t.Helper()
	w := newLine(t)
	s := startIn(t, t.TempDir(), nil, "http://127.0.0.1:1", func(c *appliance.Config) {
		c.Name, c.Internet, c.Advertise = name, false, []string{w.addr()}
	})
	w.leadTo(s)
	return s, w
}

// leadTo makes s the node behind the line.
func (w *line) leadTo(s *site) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.to = strings.TrimPrefix(s.URL(), "https://")
}

func (s *site) reach(t testing.TB, name string) string {
	t.Helper()
	list, err := s.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range list {
		if n.Name == name {
			return n.Reach
		}
	}
	return ""
}

// TestRemoveNode removes a node while another is cut off. The cut-off one
// goes on with it until it hears, and refuses it from then on; hosts that the
// removed node let in get in at any other by themselves, with their key.
func TestRemoveNode(t *testing.T) {
	t.Parallel()
	a, wa := behind(t, "rns-01")
	b, wb := behind(t, "brs-01")
	thief, wt := behind(t, "lor-01")
	b.joinTo(t, a)
	thief.joinTo(t, a)
	m := thief.enrol(t, 7, thief.enrolToken(t, 1))
	eventually(t, "every node knows host 7", func() error {
		for _, s := range []*site{a, b} {
			if _, err := s.Host(t.Context(), m.id); err != nil {
				return err
			}
		}
		return nil
	})
	m.connect(t, a.URL()) // any node accepts it
	m.checkin(t)

	wb.cut(true)
	wa.cut(true)
	if _, err := a.RemoveNode(t.Context(), owner, "lor-01", "stolen"); err != nil {
		t.Fatal(err)
	}
	m.connect(t, a.URL())
	if _, err := m.Checkin(t.Context(), agentproto.Checkin{Protocol: 1, Agent: "test", Facts: m.facts(), Settings: rules.DefaultSettings()}); err == nil || !strings.Contains(err.Error(), "lor-01, which was removed") {
		t.Errorf("a certificate of the removed node is good for %v", err)
	}
	again, resp, err := a.ask(t, 7, "", m.key) // no token, no admin: the key is enough
	if err != nil || resp.Pending {
		t.Fatalf("the host does not get in by itself: %+v, %v", resp, err)
	}
	again.checkin(t)

	wa.cut(false)
	wb.cut(false)
	eventually(t, "b hears of the removal", func() error {
		if r := b.reach(t, "lor-01"); r != "removed" {
			return fmt.Errorf("lor-01 is %s", r)
		}
		return nil
	})
	again.connect(t, b.URL())
	again.checkin(t)
	wt.cut(false)
	edit(t, thief, "malice")
	edit(t, a, "after")
	b.sees(t, "after")
	eventually(t, "the removed node is told", func() error {
		list, err := thief.Nodes(t.Context())
		for _, n := range list {
			for _, p := range n.Problems {
				if strings.Contains(p, "his node was removed from the mesh") { // by the record, or by who refuses it
					return nil
				}
			}
		}
		return fmt.Errorf("%+v, %v", list, err)
	})
	for _, s := range []*site{a, b} {
		if _, err := s.Package(t.Context(), "malice"); err == nil {
			t.Errorf("%s took an edit of the removed node", s.NodeName())
		}
	}
	if err := thief.RenewNow(t.Context()); err == nil {
		t.Error("the removed node renewed its certificate")
	}
	if _, err := a.RemoveNode(t.Context(), owner, "rns-01", ""); err == nil || !strings.Contains(err.Error(), "cannot remove itself") {
		t.Errorf("removing itself: %v", err)
	}
	if _, err := b.RemoveNode(t.Context(), owner, "rns-01", ""); err == nil || !strings.Contains(err.Error(), "only anchor") {
		t.Errorf("removing the only anchor: %v", err)
	}
}

// TestClone copies a node's disk and runs both: the second one is refused,
// and says what to do.
func TestClone(t *testing.T) {
	t.Parallel()
	a, b := bareNode(t, "rns-01"), bareNode(t, "brs-01")
	b.joinTo(t, a)
	b.stop()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "data"), os.DirFS(filepath.Join(b.dir, "data"))); err != nil {
		t.Fatal(err)
	}
	quiet := func(c *appliance.Config) { c.Name, c.Internet = "brs-01", false }
	first := startIn(t, b.dir, nil, "http://127.0.0.1:1", quiet)
	edit(t, first, "of-the-first")
	a.sees(t, "of-the-first")
	second := startIn(t, dir, nil, "http://127.0.0.1:1", quiet)
	eventually(t, "the clone is refused", func() error {
		list, err := second.Nodes(t.Context())
		for _, n := range list {
			for _, p := range n.Problems {
				if strings.Contains(p, "identity") {
					return nil
				}
			}
		}
		return fmt.Errorf("%+v, %v", list, err)
	})
	edit(t, first, "still-in")
	a.sees(t, "still-in")
}

// TestRotation changes the gossip key and every certificate under traffic:
// edits go on arriving, nobody is away.
func TestRotation(t *testing.T) {
	t.Parallel()
	a, b, c := bareNode(t, "rns-01"), bareNode(t, "brs-01"), bareNode(t, "lor-01")
	b.joinTo(t, a)
	c.joinTo(t, a)
	all := []*site{a, b, c}
	m := b.enrol(t, 1, b.enrolToken(t, 1))
	eventually(t, "every node knows the host", func() error {
		_, err := c.Host(t.Context(), m.id)
		return err
	})
	for i := range 4 {
		switch i {
		case 0:
			if err := b.RotateGossipKey(t.Context(), owner); err != nil {
				t.Fatal(err)
			}
		case 1:
			if err := a.AgeGossipKeys(t.Context(), 3*time.Minute); err != nil { // the new one is used now
				t.Fatal(err)
			}
		case 2:
			for _, s := range all {
				was := s.CertificateSerial()
				if err := s.RenewNow(t.Context()); err != nil || s.CertificateSerial() == was {
					t.Fatalf("%s renewed its certificate: %v", s.NodeName(), err)
				}
			}
		}
		for _, s := range all {
			name := fmt.Sprintf("round-%d-%s", i, s.NodeName())
			edit(t, s, name)
			for _, o := range all {
				o.sees(t, name)
			}
		}
		for _, s := range all {
			m.connect(t, s.URL()) // the certificate is of b's key before
			m.checkin(t)
			for _, o := range all {
				if r := s.reach(t, o.NodeName()); r == "away" {
					t.Errorf("round %d: %s is away from %s", i, o.NodeName(), s.NodeName())
				}
			}
		}
	}
	// New connections work with the new certificates too.
	c.stop()
	d := startIn(t, c.dir, nil, "http://127.0.0.1:1", func(cfg *appliance.Config) { cfg.Name, cfg.Internet = "lor-01", false })
	edit(t, a, "while-away")
	d.sees(t, "while-away")
}

// TestAnchors makes a second anchor with the passphrase, and lets it admit a
// node while the founder is gone.
func TestAnchors(t *testing.T) {
	t.Parallel()
	a, b := bareNode(t, "rns-01"), bareNode(t, "brs-01")
	passphrase, err := a.Found(t.Context(), owner, "", "")
	if err != nil {
		t.Fatal(err)
	}
	b.joinTo(t, a)
	if p := problemOf(t, b.BecomeAnchor(t.Context(), owner, "AAAAA-BBBBB")); !strings.Contains(p.Msg, "does not fit") {
		t.Error(p)
	}
	if p := problemOf(t, a.ResignAnchor(t.Context(), owner)); !strings.Contains(p.Msg, "only anchor") {
		t.Error(p)
	}
	if err := b.BecomeAnchor(t.Context(), owner, strings.ToLower(strings.ReplaceAll(passphrase, "-", " "))); err != nil {
		t.Fatal(err)
	}
	a.stop()
	c := bareNode(t, "lor-01")
	c.joinTo(t, b)
	if c.Pin() != a.Pin() {
		t.Error("the third trusts another authority")
	}
}

// TestOneUse asks two nodes at once with one token, on two machines: one gets
// in. A machine that lost the answer gets it again.
func TestOneUse(t *testing.T) {
	t.Parallel()
	a, b := bareNode(t, "rns-01"), bareNode(t, "brs-01")
	b.joinTo(t, a)
	token := a.joinToken(t)
	c, d := bareNode(t, "lor-01"), bareNode(t, "van-01")
	var errs [2]error
	var both sync.WaitGroup
	for i, s := range []*site{c, d} {
		both.Go(func() { errs[i] = s.Join(t.Context(), owner, appliance.JoinOptions{Token: token}) })
	}
	both.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Fatalf("one token let in %v and %v", errs[0], errs[1])
	}
}
