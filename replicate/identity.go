package replicate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"time"
)

// How long certificates hold. A node asks for a new one when two thirds of
// the time are over, so that it may be away for months.
const (
	rootLife   = 20 * 365 * 24 * time.Hour
	NodeLife   = 365 * 24 * time.Hour
	MemberLife = 90 * 24 * time.Hour
	// backdate is how far another machine's clock may be behind ours for our
	// new certificate to hold there at once.
	backdate = time.Hour
)

// Names of nodes and members are DNS names under these: what the issuing
// certificate of a node may sign is bounded by them (RFC 5280, 4.2.1.10).
const (
	nodeDomain   = "node.wuamesh.internal"
	memberDomain = "member.wuamesh.internal"
	// PeerServerName is the server name (SNI) by which one node calls another.
	PeerServerName = "peer.wuamesh.internal"
	// JoinServerName is the one by which a machine that is not in yet calls.
	JoinServerName = "join.wuamesh.internal"
)

// What checking a certificate may find.
var (
	ErrNotOfMesh = errors.New("the certificate is not of this mesh")
	ErrClock     = errors.New("the certificate does not hold at this machine's time")
)

// A Root is the authority of a mesh: its certificate is what everybody
// trusts, its key lets nodes in. Only anchors have the key.
type Root struct {
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewRoot founds a mesh. Its name is for people who look at certificates.
func NewRoot(name string, now time.Time) (*Root, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the mesh's key: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "wuamesh " + name},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(rootLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, err := issue(t, t, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make the mesh's certificate: %w", err)
	}
	return &Root{cert, key}, nil
}

// ParseRoot reads a root from its certificate (DER) and key (PKCS #8).
func ParseRoot(cert, key []byte) (*Root, error) {
	c, err := x509.ParseCertificate(cert)
	if err != nil {
		return nil, fmt.Errorf("read the mesh's certificate: %w", err)
	}
	k, err := parseKey(key)
	if err != nil {
		return nil, fmt.Errorf("read the mesh's key: %w", err)
	}
	if !k.PublicKey.Equal(c.PublicKey) {
		return nil, errors.New("the mesh's key and certificate do not belong together")
	}
	return &Root{c, k}, nil
}

// Key is the private key, PKCS #8.
func (r *Root) Key() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(r.key) }

// Fingerprint is the SHA-256 of a certificate's SubjectPublicKeyInfo (RFC
// 7469, section 2.4): what a token pins a mesh by.
func Fingerprint(cert *x509.Certificate) [sha256.Size]byte {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// maxNames bounds the names and addresses one certificate is for.
const maxNames = 64

// Certify signs a node's request. The node's certificate is for being a node,
// for services of those server names, and for letting members in, no further.
// The second certificate is for the names and addresses that the request
// asks for, so that browsers and scripts can check them.
func (r *Root) Certify(request []byte, nodeID string, services []string, now time.Time) (node, web []byte, err error) {
	csr, err := x509.ParseCertificateRequest(request)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("certificate request of node %s: %w", nodeID, err)
	}
	pub, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, nil, fmt.Errorf("certificate request of node %s: want an ECDSA key on P-256", nodeID)
	}
	if raw, err := hex.DecodeString(nodeID); err != nil || len(raw) != 16 {
		return nil, nil, fmt.Errorf("certificate request of node %.40q: not a node's id", nodeID)
	}
	if len(csr.DNSNames)+len(csr.IPAddresses) > maxNames {
		return nil, nil, fmt.Errorf("certificate request of node %s: more than %d names", nodeID, maxNames)
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: nodeID},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(NodeLife),
		DNSNames: append([]string{nodeID + "." + nodeDomain, PeerServerName, JoinServerName}, services...),
		IsCA:     true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		// What it signs has a name below the members' and no address.
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{memberDomain},
		ExcludedIPRanges: []*net.IPNet{{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}},
	}
	if node, err = r.sign(t, pub); err != nil {
		return nil, nil, fmt.Errorf("certify node %s: %w", nodeID, err)
	}
	w := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "wuamesh node " + nodeID[:8]},
		NotBefore: t.NotBefore, NotAfter: t.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: csr.IPAddresses,
	}
	for _, name := range csr.DNSNames {
		if !strings.HasSuffix(name, ".wuamesh.internal") { // those are the mesh's own
			w.DNSNames = append(w.DNSNames, name)
		}
	}
	if web, err = r.sign(w, pub); err != nil {
		return nil, nil, fmt.Errorf("certify the names of node %s: %w", nodeID, err)
	}
	return node, web, nil
}

func (r *Root) sign(t *x509.Certificate, pub *ecdsa.PublicKey) ([]byte, error) {
	c, err := issue(t, r.Cert, pub, r.key)
	if err != nil {
		return nil, err
	}
	return c.Raw, nil
}

func issue(t, parent *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// An Identity is who a node is: its key and what the mesh's root says of it.
type Identity struct {
	Root *x509.Certificate
	Node *x509.Certificate
	Web  *x509.Certificate
	Key  *ecdsa.PrivateKey
}

// NewKey makes the key of a node, PKCS #8.
func NewKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the node's key: %w", err)
	}
	return x509.MarshalPKCS8PrivateKey(key)
}

// RequestCertificate makes a node's request: by its key (PKCS #8), for the
// host names and IP addresses it is called by.
func RequestCertificate(key []byte, nodeID string, names []string) ([]byte, error) {
	k, err := parseKey(key)
	if err != nil {
		return nil, fmt.Errorf("read the node's key: %w", err)
	}
	t := &x509.CertificateRequest{Subject: pkix.Name{CommonName: nodeID}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if n != "" {
			t.DNSNames = append(t.DNSNames, strings.ToLower(n))
		}
	}
	t.DNSNames = t.DNSNames[:min(len(t.DNSNames), maxNames/2)]
	t.IPAddresses = t.IPAddresses[:min(len(t.IPAddresses), maxNames/2)]
	csr, err := x509.CreateCertificateRequest(rand.Reader, t, k)
	if err != nil {
		return nil, fmt.Errorf("request the node's certificate: %w", err)
	}
	return csr, nil
}

// ParseIdentity reads an identity from certificates (DER) and key (PKCS #8),
// and checks that they belong together and to nodeID.
func ParseIdentity(root, node, web, key []byte, nodeID string) (*Identity, error) {
	k, err := parseKey(key)
	if err != nil {
		return nil, fmt.Errorf("read the node's key: %w", err)
	}
	id := &Identity{Key: k}
	for _, c := range []struct {
		name string
		der  []byte
		to   **x509.Certificate
	}{{"the mesh's", root, &id.Root}, {"the node's", node, &id.Node}, {"the node's web", web, &id.Web}} {
		if *c.to, err = x509.ParseCertificate(c.der); err != nil {
			return nil, fmt.Errorf("read %s certificate: %w", c.name, err)
		}
	}
	for _, c := range []*x509.Certificate{id.Node, id.Web} {
		if err := c.CheckSignatureFrom(id.Root); err != nil {
			return nil, fmt.Errorf("certificate of %s: %w", c.Subject.CommonName, err)
		}
		if !k.PublicKey.Equal(c.PublicKey) {
			return nil, fmt.Errorf("certificate of %s is for another key", c.Subject.CommonName)
		}
	}
	if got := nameUnder(id.Node, nodeDomain); got != nodeID {
		return nil, fmt.Errorf("the node's certificate is of node %q, not of %s", got, nodeID)
	}
	return id, nil
}

// RenewAt is when a new certificate is due.
func (id *Identity) RenewAt() time.Time { return id.Node.NotAfter.Add(-NodeLife / 3) }

// LetIn signs a certificate for a member: good for being a client under that
// name, at any node, until MemberLife is over or the node's own ends.
func (id *Identity) LetIn(pub *ecdsa.PublicKey, member string, now time.Time) ([]byte, error) {
	ends := now.Add(MemberLife)
	if id.Node.NotAfter.Before(ends) {
		ends = id.Node.NotAfter
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: member}, DNSNames: []string{member + "." + memberDomain},
		NotBefore: now.Add(-backdate), NotAfter: ends,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	c, err := issue(t, id.Node, pub, id.Key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", member, err)
	}
	return c.Raw, nil
}

// Endorse signs a request for the node's next certificate with the key of the
// present one.
func (id *Identity) Endorse(request []byte) ([]byte, error) {
	sum := sha256.Sum256(append([]byte("wuamesh renew "), request...))
	return ecdsa.SignASN1(rand.Reader, id.Key, sum[:])
}

// VerifyEndorsed checks that a node of the mesh endorsed the request with the
// key of its certificate (DER), which holds at that time, and returns its id.
func VerifyEndorsed(root *x509.Certificate, node, request, signature []byte, now time.Time) (nodeID string, err error) {
	cert, err := x509.ParseCertificate(node)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotOfMesh, err)
	}
	if nodeID, err = VerifyPeer(root, []*x509.Certificate{cert}, now); err != nil {
		return "", err
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	sum := sha256.Sum256(append([]byte("wuamesh renew "), request...))
	if !ok || !ecdsa.VerifyASN1(key, sum[:], signature) {
		return "", fmt.Errorf("%w: the request is not endorsed by it", ErrNotOfMesh)
	}
	return nodeID, nil
}

// Sign signs a digest with the node's key, for a purpose that no other
// signature of it can stand for.
func (id *Identity) Sign(purpose string, digest [sha256.Size]byte) ([]byte, error) {
	sum := sha256.Sum256(append([]byte(purpose+" "), digest[:]...))
	return ecdsa.SignASN1(rand.Reader, id.Key, sum[:])
}

// VerifySigned checks that a node of the mesh signed a digest for that purpose
// with the key of its certificate (DER), which held at the time; it returns
// the node's id.
func VerifySigned(root *x509.Certificate, node []byte, purpose string, digest [sha256.Size]byte, signature []byte, at time.Time) (nodeID string, err error) {
	cert, err := x509.ParseCertificate(node)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotOfMesh, err)
	}
	if nodeID, err = VerifyPeer(root, []*x509.Certificate{cert}, at); err != nil {
		return "", err
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	sum := sha256.Sum256(append([]byte(purpose+" "), digest[:]...))
	if !ok || !ecdsa.VerifyASN1(key, sum[:], signature) {
		return "", fmt.Errorf("%w: it is not signed by it", ErrNotOfMesh)
	}
	return nodeID, nil
}

// VerifyPeer checks that the chain is of a node of the mesh and returns its
// id, with ErrClock too: then it was that node's at another time. Only what the root itself signed is a node: no node makes another.
func VerifyPeer(root *x509.Certificate, chain []*x509.Certificate, now time.Time) (nodeID string, err error) {
	if len(chain) == 0 {
		return "", fmt.Errorf("%w: none was shown", ErrNotOfMesh)
	}
	id := nameUnder(chain[0], nodeDomain)
	if id == "" {
		return "", fmt.Errorf("%w: it is of no node", ErrNotOfMesh)
	}
	err = verify(root, chain[:1], now, x509.ExtKeyUsageClientAuth)
	if err != nil && !errors.Is(err, ErrClock) {
		return "", err
	}
	return id, err
}

// VerifyMember checks that the chain is of a member and returns its name and
// the id of the node that let it in; the id is empty when the root did.
func VerifyMember(root *x509.Certificate, chain []*x509.Certificate, now time.Time) (member, nodeID string, err error) {
	if len(chain) == 0 {
		return "", "", fmt.Errorf("%w: none was shown", ErrNotOfMesh)
	}
	leaf := chain[0]
	if leaf.IsCA || nameUnder(leaf, nodeDomain) != "" {
		return "", "", fmt.Errorf("%w: it is a node's", ErrNotOfMesh)
	}
	chain = chain[:min(len(chain), 2)]
	if err := verify(root, chain, now, x509.ExtKeyUsageClientAuth); err != nil {
		return "", "", err
	}
	return leaf.Subject.CommonName, LetInBy(root, chain), nil
}

// LetInBy is the id of the node that signed a member's certificate, of a
// chain that was verified; empty when it was the root.
func LetInBy(root *x509.Certificate, chain []*x509.Certificate) string {
	if len(chain) < 2 || chain[1].Equal(root) {
		return ""
	}
	return nameUnder(chain[1], nodeDomain)
}

// verify checks a chain against the root. A certificate that would hold at
// another time is ErrClock.
func verify(root *x509.Certificate, chain []*x509.Certificate, now time.Time, use x509.ExtKeyUsage) error {
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}}
	o.Roots.AddCert(root)
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(o)
	if err == nil {
		return nil
	}
	if o.CurrentTime = chain[0].NotAfter; now.Before(chain[0].NotBefore) {
		o.CurrentTime = chain[0].NotBefore.Add(backdate)
	}
	if now.Before(chain[0].NotBefore) || now.After(chain[0].NotAfter) {
		if _, again := chain[0].Verify(o); again == nil {
			return fmt.Errorf("%w: it is good from %s to %s, and it is %s here", ErrClock, stamp(chain[0].NotBefore), stamp(chain[0].NotAfter), stamp(now))
		}
	}
	return fmt.Errorf("%w: %w", ErrNotOfMesh, err)
}

func stamp(t time.Time) string { return t.UTC().Format("2 Jan 2006 15:04 UTC") }

// VerifyPinned checks that the chain is of a node of the mesh with that
// fingerprint, whose root the node sends along.
func VerifyPinned(fingerprint [sha256.Size]byte, chain []*x509.Certificate, now time.Time) (nodeID string, err error) {
	i := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return c.IsCA && Fingerprint(c) == fingerprint })
	if i < 0 {
		return "", fmt.Errorf("%w: it is of another mesh", ErrNotOfMesh)
	}
	return VerifyPeer(chain[i], chain, now)
}

// nameUnder is the first label of the one DNS name directly below domain.
func nameUnder(c *x509.Certificate, domain string) string {
	for _, n := range c.DNSNames {
		if label, ok := strings.CutSuffix(n, "."+domain); ok && !strings.Contains(label, ".") {
			return label
		}
	}
	return ""
}

func parseKey(der []byte) (*ecdsa.PrivateKey, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("not an ECDSA key")
	}
	return key, nil
}

// serial is a random serial number of 120 bits (RFC 5280, 4.1.2.2).
func serial() *big.Int {
	var b [15]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return new(big.Int).SetBytes(b[:])
}
