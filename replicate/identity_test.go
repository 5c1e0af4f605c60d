package replicate_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"wuamesh/replicate"
)

const (
	nodeA = "00112233445566778899aabbccddeeff"
	nodeB = "ffeeddccbbaa99887766554433221100"
)

// identityOf makes a node that the root let in.
func identityOf(t testing.TB, root *replicate.Root, nodeID string, now time.Time) *replicate.Identity {
	t.Helper()
	key, err := replicate.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := replicate.RequestCertificate(key, nodeID, []string{"rns-01.example.org", "10.0.0.5", "agent.wuamesh.internal"})
	if err != nil {
		t.Fatal(err)
	}
	node, web, err := root.Certify(csr, nodeID, []string{"agent.wuamesh.internal"}, now)
	if err != nil {
		t.Fatal(err)
	}
	id, err := replicate.ParseIdentity(root.Cert.Raw, node, web, key, nodeID)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func newRoot(t testing.TB) *replicate.Root {
	t.Helper()
	root, err := replicate.NewRoot("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// forge signs anything with a node's key, as a thief of its disk would.
func forge(t testing.TB, id *replicate.Identity, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "forged"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	change(c)
	der, err := x509.CreateCertificate(rand.Reader, c, id.Node, &newKey(t).PublicKey, id.Key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestWhatANodeMayDo(t *testing.T) {
	now, root := time.Now(), newRoot(t)
	a := identityOf(t, root, nodeA, now)
	if got, err := replicate.VerifyPeer(root.Cert, []*x509.Certificate{a.Node}, now); err != nil || got != nodeA {
		t.Errorf("as a peer it is %q, %v", got, err)
	}
	der, err := a.LetIn(&newKey(t).PublicKey, "host-1", now)
	if err != nil {
		t.Fatal(err)
	}
	member, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	name, by, err := replicate.VerifyMember(root.Cert, []*x509.Certificate{member, a.Node}, now)
	if err != nil || name != "host-1" || by != nodeA {
		t.Errorf("its member is %q by %q, %v", name, by, err)
	}
	if ends := now.Add(replicate.MemberLife); member.NotAfter.After(ends.Add(time.Second)) {
		t.Errorf("a member is in until %s", member.NotAfter)
	}
	if a.Web.VerifyHostname("rns-01.example.org") != nil || a.Web.VerifyHostname("10.0.0.5") != nil || a.Web.VerifyHostname("agent.wuamesh.internal") == nil {
		t.Error("the web certificate is for the names asked for, and none of the mesh's own")
	}
	for what, fail := range map[string]func() error{
		"a member as a peer": func() error {
			_, err := replicate.VerifyPeer(root.Cert, []*x509.Certificate{member, a.Node}, now)
			return err
		},
		"a node as a member": func() error {
			_, _, err := replicate.VerifyMember(root.Cert, []*x509.Certificate{a.Node}, now)
			return err
		},
		"a web certificate as a member": func() error {
			_, _, err := replicate.VerifyMember(root.Cert, []*x509.Certificate{a.Web}, now)
			return err
		},
		"another mesh": func() error {
			_, err := replicate.VerifyPeer(newRoot(t).Cert, []*x509.Certificate{a.Node}, now)
			return err
		},
		"a node made by a node": func() error {
			c := forge(t, a, func(c *x509.Certificate) { c.DNSNames = []string{nodeB + ".node.wuamesh.internal"} })
			_, err := replicate.VerifyPeer(root.Cert, []*x509.Certificate{c, a.Node}, now)
			return err
		},
		"a member without a name of members": func() error {
			c := forge(t, a, func(c *x509.Certificate) { c.DNSNames = []string{"www.example.org"} })
			_, _, err := replicate.VerifyMember(root.Cert, []*x509.Certificate{c, a.Node}, now)
			return err
		},
		"a server made by a node": func() error {
			c := forge(t, a, func(c *x509.Certificate) { c.DNSNames = []string{"agent.wuamesh.internal"} })
			return asServer(root, c, a.Node, "agent.wuamesh.internal")
		},
		"a server with an address": func() error {
			c := forge(t, a, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} })
			return asServer(root, c, a.Node, "10.0.0.1")
		},
		"a member of a member's": func() error {
			ca := forge(t, a, func(c *x509.Certificate) {
				c.DNSNames, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = []string{"x.member.wuamesh.internal"}, true, true, x509.KeyUsageCertSign
			})
			_, _, err := replicate.VerifyMember(root.Cert, []*x509.Certificate{member, ca, a.Node}, now.Add(200*24*time.Hour))
			return err
		},
		"none": func() error { _, err := replicate.VerifyPeer(root.Cert, nil, now); return err },
	} {
		if fail() == nil {
			t.Errorf("%s is believed", what)
		}
	}
	for _, at := range []time.Time{now.Add(-24 * time.Hour), now.Add(400 * 24 * time.Hour)} {
		if _, err := replicate.VerifyPeer(root.Cert, []*x509.Certificate{a.Node}, at); !errors.Is(err, replicate.ErrClock) {
			t.Errorf("at %s: %v, want ErrClock", at.Format(time.DateOnly), err)
		}
	}
}

func asServer(root *replicate.Root, leaf, issuer *x509.Certificate, name string) error {
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), DNSName: name}
	o.Roots.AddCert(root.Cert)
	o.Intermediates.AddCert(issuer)
	_, err := leaf.Verify(o)
	return err
}

func TestEndorse(t *testing.T) {
	now, root := time.Now(), newRoot(t)
	a := identityOf(t, root, nodeA, now)
	request := []byte("a request")
	signature, err := a.Endorse(request)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := replicate.VerifyEndorsed(root.Cert, a.Node.Raw, request, signature, now); err != nil || id != nodeA {
		t.Errorf("endorsed by %q, %v", id, err)
	}
	b := identityOf(t, root, nodeB, now)
	if _, err := replicate.VerifyEndorsed(root.Cert, b.Node.Raw, request, signature, now); err == nil {
		t.Error("another node's request is believed")
	}
	if _, err := replicate.VerifyEndorsed(root.Cert, a.Node.Raw, []byte("another"), signature, now); err == nil {
		t.Error("another request is believed")
	}
}

func TestSeal(t *testing.T) {
	pass := replicate.NewPassphrase()
	sealed, err := replicate.Seal([]byte("root key"), pass)
	if err != nil {
		t.Fatal(err)
	}
	for _, typed := range []string{pass, strings.ToLower(pass), " " + strings.ReplaceAll(pass, "-", " ") + "\n"} {
		if got, err := replicate.Unseal(sealed, typed); err != nil || string(got) != "root key" {
			t.Errorf("with %q: %q, %v", typed, got, err)
		}
	}
	for _, wrong := range []string{"", replicate.NewPassphrase(), pass[1:]} {
		if _, err := replicate.Unseal(sealed, wrong); !errors.Is(err, replicate.ErrPassphrase) {
			t.Errorf("with %q: %v", wrong, err)
		}
	}
}

func aToken() replicate.JoinToken {
	return replicate.JoinToken{Secret: replicate.NewSecret(), Fingerprint: [32]byte{1, 2, 3}, Expires: time.Unix(1_800_000_000, 0), Addrs: []string{"10.0.0.5:443", "[2001:db8::5]:8443", "rns.example.org:443"}}
}

func TestJoinToken(t *testing.T) {
	want := aToken()
	text := want.String()
	got, err := replicate.ParseJoinToken(" " + text[:30] + "\r\n  " + text[30:] + "\n")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("it came back as %+v, %v", got, err)
	}
	if _, err := replicate.ParseJoinToken("wme1.abc"); !errors.Is(err, replicate.ErrNotJoinToken) {
		t.Errorf("another token: %v", err)
	}
	for i := len("wmj1."); i < len(text); i++ { // every single mistyped or missing character is noticed
		other := byte('A')
		if text[i] == other {
			other = 'B'
		}
		for _, bad := range []string{text[:i], text[:i] + string(other) + text[i+1:], text[:i] + text[i+1:]} {
			if got, err := replicate.ParseJoinToken(bad); err == nil && !reflect.DeepEqual(got, want) {
				t.Errorf("damaged at %d it is %+v", i, got)
			}
		}
	}
}

func FuzzJoinToken(f *testing.F) {
	f.Add(aToken().String())
	f.Add("wmj1.")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := replicate.ParseJoinToken(s)
		if err != nil {
			return
		}
		again, err := replicate.ParseJoinToken(got.String())
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%+v came back as %+v, %v", got, again, err)
		}
	})
}

// TestHandshake runs TLS 1.3 with a node's certificate on both ends, as a
// server for a service too: some stacks refuse an issuing certificate there.
func TestHandshake(t *testing.T) {
	root := newRoot(t)
	a := identityOf(t, root, nodeA, time.Now())
	cert := tls.Certificate{Certificate: [][]byte{a.Node.Raw, root.Cert.Raw}, PrivateKey: a.Key}
	pool := x509.NewCertPool()
	pool.AddCert(root.Cert)
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- tls.Server(far, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}).Handshake()
	}()
	c := tls.Client(near, &tls.Config{RootCAs: pool, ServerName: "agent.wuamesh.internal", Certificates: []tls.Certificate{cert}})
	if err := errors.Join(c.Handshake(), <-done); err != nil {
		t.Error(err)
	}
}
