package appliance_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/microsofttest"
	"wuamesh/replicate"
)

// bareNode runs a node that is in no mesh yet.
func bareNode(t testing.TB, name string) *site {
	t.Helper()
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 1000})
	return startIn(t, t.TempDir(), world, "http://127.0.0.1:1", func(c *appliance.Config) { c.Name, c.Internet = name, false })
}

func (s *site) joinToken(t testing.TB) string {
	t.Helper()
	_, text, err := s.MakeToken(t.Context(), owner, appliance.TokenOptions{Name: "for a test", Use: appliance.ForJoin, Expires: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// joinTo makes s a member of the mesh of other and waits for the first copy.
func (s *site) joinTo(t testing.TB, other *site) {
	t.Helper()
	if err := s.Join(t.Context(), owner, appliance.JoinOptions{Token: other.joinToken(t)}); err != nil {
		t.Fatal(err)
	}
	s.synced(t)
}

func (s *site) synced(t testing.TB) {
	t.Helper()
	eventually(t, "the first copy", func() error {
		if state, err := s.JoinState(t.Context()); err != nil || !state.Synced {
			return fmt.Errorf("it is %+v, %v", state, err)
		}
		return nil
	})
}

func problemOf(t testing.TB, err error) *appliance.Problem {
	t.Helper()
	var p *appliance.Problem
	if !errors.As(err, &p) {
		t.Fatalf("no problem that an admin could act on: %v", err)
	}
	return p
}

func edit(t testing.TB, s *site, name string) {
	t.Helper()
	if _, err := s.PutPackage(t.Context(), owner, name, appliance.PackageEdit{Maturity: rules.Prod}); err != nil {
		t.Fatal(err)
	}
}

func (s *site) sees(t testing.TB, name string) {
	t.Helper()
	eventually(t, s.NodeName()+" hears of "+name, func() error {
		_, err := s.Package(t.Context(), name)
		return err
	})
}

// TestJoin makes three bare nodes one mesh. What was there comes with the
// first copy, and an edit anywhere is everywhere.
func TestJoin(t *testing.T) {
	a, b, c := bareNode(t, "rns-01"), bareNode(t, "brs-01"), bareNode(t, "lor-01")
	edit(t, a, "before")
	b.joinTo(t, a)
	if _, err := b.Package(t.Context(), "before"); err != nil {
		t.Errorf("after the first copy: %v", err)
	}
	if b.Pin() != a.Pin() {
		t.Error("the two trust different authorities")
	}
	c.joinTo(t, b) // which is no anchor, and passes the request on
	for _, s := range []*site{a, b, c} {
		edit(t, s, "of-"+s.NodeName())
	}
	for _, s := range []*site{a, b, c} {
		for _, o := range []*site{a, b, c} {
			s.sees(t, "of-"+o.NodeName())
		}
		list, err := s.Nodes(t.Context())
		if err != nil || len(list) != 3 {
			t.Errorf("%s lists %+v, %v", s.NodeName(), list, err)
		}
	}
}

// TestJoinRefusals is every way to fail at joining, each in its own words
// and with what to do.
func TestJoinRefusals(t *testing.T) {
	t.Parallel()
	a, other := bareNode(t, "rns-01"), bareNode(t, "oth-01")
	otherToken, err := replicate.ParseJoinToken(other.joinToken(t))
	if err != nil {
		t.Fatal(err)
	}
	parse := func() replicate.JoinToken {
		token, err := replicate.ParseJoinToken(a.joinToken(t))
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	used := a.joinToken(t)
	first := bareNode(t, "brs-01")
	if err := first.Join(t.Context(), owner, appliance.JoinOptions{Token: used}); err != nil {
		t.Fatal(err)
	}
	_, revoked, err := a.MakeToken(t.Context(), owner, appliance.TokenOptions{Name: "revoked", Use: appliance.ForJoin, Expires: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	rows, _ := a.Tokens(t.Context())
	for _, r := range rows {
		if r.Name == "revoked" {
			if err := a.RevokeToken(t.Context(), owner, r.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	expired := a.joinToken(t)
	if err := a.ExpireTokens(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct {
		name, token, node string
		want, hint        string
	}{
		{"not a token", "hello", "", "Not a join token", "wuamesh token join"},
		{"an enrolment token", a.enrolToken(t, 1), "", "Not a join token", "for hosts"},
		{"cut short", a.joinToken(t)[:60], "", "copied whole", "whole line"},
		{"used", used, "", "used already, by brs-01", "one node"},
		{"revoked", revoked, "", "does not know this join token", "Make another"},
		{"expired", expired, "", "expired on", "Make another"},
		{"name taken", a.joinToken(t), "BRS-01", "has a node brs-01 already", "--name OTHER"},
		{"wrong mesh", func() string { x := parse(); x.Fingerprint = otherToken.Fingerprint; return x.String() }(), "", "not of the mesh", "Nothing was sent"},
		{"port closed", func() string { x := parse(); x.Addrs = []string{nobody}; return x.String() }(), "", nobody + ": refused", "over TCP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := bareNode(t, cmp.Or(tt.node, fmt.Sprintf("n-%02d", i)))
			p := problemOf(t, s.Join(t.Context(), owner, appliance.JoinOptions{Token: tt.token}))
			if !strings.Contains(p.Msg, tt.want) || !strings.Contains(p.Hint, tt.hint) {
				t.Errorf("it says %q, %q; want %q, %q", p.Msg, p.Hint, tt.want, tt.hint)
			}
			s.joinTo(t, other) // no refusal leaves anything behind
		})
	}
	t.Run("clock off", func(t *testing.T) {
		s, token := bareNode(t, "n-99"), a.joinToken(t)
		for off, want := range map[time.Duration]string{3 * time.Hour: "3h0m0s ahead of", -400 * 24 * time.Hour: "behind"} {
			if p := problemOf(t, s.JoinAt(t.Context(), token, off)); !strings.Contains(p.Msg, want) || !strings.Contains(p.Hint, "timedatectl") {
				t.Errorf("off by %s: %q, %q", off, p.Msg, p.Hint)
			}
		}
		if err := s.Join(t.Context(), owner, appliance.JoinOptions{Token: token}); err != nil {
			t.Errorf("with the clock set right the token is not good any more: %v", err)
		}
	})
	t.Run("already in it", func(t *testing.T) {
		if p := problemOf(t, first.Join(t.Context(), owner, appliance.JoinOptions{Token: a.joinToken(t)})); !strings.Contains(p.Msg, "member of that mesh already") {
			t.Error(p)
		}
	})
	t.Run("in another", func(t *testing.T) {
		edit(t, other, "precious")
		if p := problemOf(t, other.Join(t.Context(), owner, appliance.JoinOptions{Token: a.joinToken(t)})); !strings.Contains(p.Msg, "mesh of its own already, with 1 rule package") {
			t.Error(p)
		}
	})
}

// TestUpgradeFoundsAMesh opens the data of a node from before there were
// meshes: its hosts go on with the certificates they have, and it lets nodes
// in.
func TestUpgradeFoundsAMesh(t *testing.T) {
	old := bareNode(t, "rns-01")
	m := old.enrol(t, 1, old.enrolToken(t, 1))
	cert, err := old.BeforeMeshes(t.Context(), m.key.Public(), string(m.id))
	if err != nil {
		t.Fatal(err)
	}
	pin := old.Pin()
	old.stop()
	a := startIn(t, old.dir, nil, "http://127.0.0.1:1", func(c *appliance.Config) { c.Name, c.Internet = "rns-01", false })
	if a.Pin() != pin {
		t.Fatal("its authority is another one")
	}
	m.cert.Certificate = [][]byte{cert}
	m.connect(t, a.URL())
	m.checkin(t)
	b := bareNode(t, "brs-01")
	b.joinTo(t, a)
	m.connect(t, b.URL())
	m.checkin(t)
}

// A valve lets so many bytes in, of all connections through it together, and
// then nothing until it is opened.
type valve struct {
	left atomic.Int64
	open chan struct{}
}

func (g *valve) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &valveConn{conn, g}, nil
}

type valveConn struct {
	net.Conn
	g *valve
}

func (c *valveConn) Read(b []byte) (int, error) {
	if c.g.left.Load() < 0 {
		<-c.g.open
	}
	n, err := c.Conn.Read(b[:min(len(b), 4<<10)])
	c.g.left.Add(int64(-n))
	return n, err
}

// TestFirstCopyIsComing stops the first copy of everything half-way: until it
// is whole the node says that it is coming, and not that it is in step.
func TestFirstCopyIsComing(t *testing.T) {
	t.Parallel()
	a := bareNode(t, "rns-01")
	for i := range 400 {
		e := appliance.PackageEdit{Maturity: rules.Prod, Description: rand.Text() + rand.Text() + rand.Text() + rand.Text()}
		if _, err := a.PutPackage(t.Context(), owner, fmt.Sprint("package-", i), e); err != nil {
			t.Fatal(err)
		}
	}
	g := &valve{open: make(chan struct{})}
	g.left.Store(24 << 10)
	open := sync.OnceFunc(func() { close(g.open) })
	b := startIn(t, t.TempDir(), a.world, "http://127.0.0.1:1", func(c *appliance.Config) {
		c.Name, c.Internet, c.Dial = "brs-01", false, g.dial
		c.Advertise = []string{"127.0.0.1:1"} // so that it calls, not the other
	})
	t.Cleanup(open)
	if err := b.Join(t.Context(), owner, appliance.JoinOptions{Token: a.joinToken(t)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node says that the first copy is coming", func() error {
		if s, _ := b.Standing(t.Context()); s.Short() != "first copy is coming" {
			return fmt.Errorf("it says %q", s.Short())
		}
		return nil
	})
	if state, err := b.JoinState(t.Context()); err != nil || !state.Member || state.Synced {
		t.Errorf("half-way it is %+v, %v", state, err)
	}
	open()
	b.synced(t)
	eventually(t, "the node is in step", func() error {
		if s, _ := b.Standing(t.Context()); s.Short() != "in step" {
			return fmt.Errorf("it says %q", s.Short())
		}
		_, err := b.Package(t.Context(), "package-399")
		return err
	})
}
