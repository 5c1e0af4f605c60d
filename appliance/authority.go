package appliance

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"wuamesh/agentproto"
	"wuamesh/replicate"
)

// ConsoleServerName is the server name (SNI) by which the command line asks for
// the node's own certificate, also where browsers get another.
const ConsoleServerName = "console.wuamesh.internal"

// services are the server names a node's certificate is for, besides those of
// the mesh itself.
var services = []string{agentproto.AgentServerName, agentproto.EnrollServerName, ConsoleServerName}

// An authority is who this node is and whom it trusts: the mesh's root, whose
// key only anchors have, and the node's own identity, which lets hosts in.
// Both are replaced while the node runs: on joining, and when a certificate
// is renewed.
type authority struct {
	db  *replicate.DB
	cfg Config

	mu   sync.RWMutex
	root *replicate.Root // nil where the root's key is not
	id   *replicate.Identity
	node tls.Certificate
	web  tls.Certificate
}

// openAuthority reads who the node is. At its first start it makes a root of
// its own: a node standing alone is a mesh of one, until it joins another.
func openAuthority(db *replicate.DB, cfg Config) (*authority, error) {
	au := &authority{db: db, cfg: cfg}
	var root authorityRecord
	var self identityRecord
	err := db.Update(context.Background(), func(tx *replicate.Tx) error {
		var ok bool
		var err error
		if root, ok, err = authorities.find(tx, "root"); err != nil {
			return err
		}
		if !ok {
			if root, err = newRootRecord(cfg.Name, tx.Now()); err != nil {
				return err
			}
			if err := authorities.put(tx, "root", root); err != nil {
				return err
			}
		}
		self, _, err = identities.find(tx, "self")
		return err
	})
	if err == nil {
		err = au.load(root, self)
	}
	if err != nil {
		return nil, fmt.Errorf("open the node's authority: %w", err)
	}
	return au, nil
}

func newRootRecord(name string, now time.Time) (authorityRecord, error) {
	root, err := replicate.NewRoot(name, now)
	if err != nil {
		return authorityRecord{}, err
	}
	key, err := root.Key()
	return authorityRecord{Key: key, Certificate: root.Cert.Raw}, err
}

// load takes records over. A node that has the root's key and no identity, or
// one that is due, certifies itself.
func (au *authority) load(rec authorityRecord, self identityRecord) error {
	var root *replicate.Root
	if len(rec.Key) > 0 {
		var err error
		if root, err = replicate.ParseRoot(rec.Certificate, rec.Key); err != nil {
			return err
		}
	}
	id, err := replicate.ParseIdentity(rec.Certificate, self.Node, self.Web, self.Key, au.db.NodeID())
	if root != nil && (err != nil || au.due(id)) {
		if self, err = au.certifySelf(root); err != nil {
			return err
		}
		id, err = replicate.ParseIdentity(rec.Certificate, self.Node, self.Web, self.Key, au.db.NodeID())
	}
	if err != nil {
		return err
	}
	au.mu.Lock()
	defer au.mu.Unlock()
	au.root, au.id = root, id
	// The root goes along, so that whoever knows its fingerprint can check.
	au.node = tls.Certificate{Certificate: [][]byte{id.Node.Raw, id.Root.Raw}, PrivateKey: id.Key, Leaf: id.Node}
	au.web = tls.Certificate{Certificate: [][]byte{id.Web.Raw, id.Root.Raw}, PrivateKey: id.Key, Leaf: id.Web}
	return nil
}

// due says that a new certificate should be had: the old one ends in some
// months, or does not have all the names this node is called by.
func (au *authority) due(id *replicate.Identity) bool {
	if !time.Now().Before(id.RenewAt()) {
		return true
	}
	for _, n := range au.names() {
		if id.Web.VerifyHostname(n) != nil {
			return true
		}
	}
	return false
}

// names are the host names and addresses this node is called by.
func (au *authority) names() (list []string) {
	au.mu.RLock()
	cfg := au.cfg
	au.mu.RUnlock()
	hostname, _ := os.Hostname()
	for _, n := range append([]string{cfg.Name, hostname, "localhost"}, cfg.Names...) {
		list = append(list, strings.ToLower(n))
	}
	for _, a := range cfg.Advertise {
		if host, _, err := net.SplitHostPort(a); err == nil {
			list = append(list, strings.ToLower(host))
		}
	}
	for _, ip := range localAddresses() {
		list = append(list, ip.String())
	}
	slices.Sort(list)
	list = slices.DeleteFunc(slices.Compact(list), func(s string) bool { return s == "" || strings.Contains(s, "_") && net.ParseIP(s) == nil })
	return list[:min(len(list), 30)]
}

// rename goes over to the names that cfg gives. An anchor certifies itself for
// them at once; any other node asks one within the hour.
func (au *authority) rename(cfg Config) error {
	au.mu.Lock()
	au.cfg = cfg
	root, id := au.root, au.id
	au.mu.Unlock()
	if root == nil || !au.due(id) {
		return nil
	}
	self, err := au.certifySelf(root)
	if err != nil {
		return err
	}
	key, err := root.Key()
	if err != nil {
		return err
	}
	return au.load(authorityRecord{Key: key, Certificate: root.Cert.Raw}, self)
}

// request makes a certificate request with a new key.
func (au *authority) request() (self identityRecord, csr []byte, err error) {
	if self.Key, err = replicate.NewKey(); err != nil {
		return self, nil, err
	}
	csr, err = replicate.RequestCertificate(self.Key, au.db.NodeID(), au.names())
	return self, csr, err
}

func (au *authority) certifySelf(root *replicate.Root) (identityRecord, error) {
	self, csr, err := au.request()
	if err != nil {
		return self, err
	}
	if self.Node, self.Web, err = root.Certify(csr, au.db.NodeID(), services, time.Now()); err != nil {
		return self, err
	}
	return self, au.db.Update(context.Background(), func(tx *replicate.Tx) error { return identities.put(tx, "self", self) })
}

// certify signs the request of another node; only an anchor can.
func (au *authority) certify(csr []byte, nodeID string) (node, web []byte, err error) {
	root := au.anchorKey()
	if root == nil {
		return nil, nil, errNoAnchor
	}
	return root.Certify(csr, nodeID, services, time.Now())
}

// anchorKey is the root with its key; nil where this node is no anchor.
func (au *authority) anchorKey() *replicate.Root {
	au.mu.RLock()
	defer au.mu.RUnlock()
	return au.root
}

func (au *authority) identity() *replicate.Identity {
	au.mu.RLock()
	defer au.mu.RUnlock()
	return au.id
}

// pin is the fingerprint of the mesh's root, hexadecimal.
func (au *authority) pin() string {
	sum := replicate.Fingerprint(au.identity().Root)
	return hex.EncodeToString(sum[:])
}

// nodeCertificate is shown to agents, peers and the command line.
func (au *authority) nodeCertificate() *tls.Certificate {
	au.mu.RLock()
	defer au.mu.RUnlock()
	c := au.node
	return &c
}

// webCertificate is shown to browsers.
func (au *authority) webCertificate() *tls.Certificate {
	au.mu.RLock()
	defer au.mu.RUnlock()
	c := au.web
	return &c
}

func localAddresses() []net.IP {
	ips := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return ips
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			ips = append(ips, n.IP)
		}
	}
	return ips
}

// sign gives a host its certificate. The request's own subject is ignored:
// the name is the host's id, and it is good for nothing but being a client.
func (au *authority) sign(csr *x509.CertificateRequest, host agentproto.HostID) (cert []byte, id *replicate.Identity, err error) {
	id = au.identity()
	cert, err = id.LetIn(csr.PublicKey.(*ecdsa.PublicKey), string(host), time.Now())
	return cert, id, err
}

// keyOf is the fingerprint of a public key in its SubjectPublicKeyInfo form.
func keyOf(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}
