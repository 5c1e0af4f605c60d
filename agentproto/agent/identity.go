package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"wuamesh/agentproto"
)

// identity is who the host is on the mesh. The key and the HostID are made
// once; the certificate is what a node gave for them.
type identity struct {
	Schema      int               `json:"schema"`
	Host        agentproto.HostID `json:"host"`
	Key         []byte            `json:"key"`                   // PKCS #8, DER; ECDSA on P-256
	Certificate []byte            `json:"certificate,omitempty"` // X.509, DER
	Issuer      []byte            `json:"issuer,omitempty"`      // X.509, DER: of the node that signed it
	Authority   []byte            `json:"authority,omitempty"`   // X.509, DER
	Pin         string            `json:"pin,omitempty"`         // of the authority we enrolled with
}

// renewBefore is how long before its end a certificate is asked for anew. A
// notebook may be away for weeks.
const renewBefore = 30 * 24 * time.Hour

// loadIdentity reads who the host is, or makes it up and keeps it.
func loadIdentity(log *slog.Logger, dir string) (identity, error) {
	var id identity
	if err := load(log, dir, identityFile, &id); err != nil {
		return id, err
	}
	if _, err := id.key(); err == nil && id.Host != "" {
		return id, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return id, fmt.Errorf("make the host's key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return id, fmt.Errorf("make the host's key: %w", err)
	}
	id = identity{Schema: schema, Host: newHostID(), Key: der}
	log.Info("new identity", "host", string(id.Host))
	return id, store(dir, identityFile, id)
}

// newHostID makes a random GUID (RFC 9562, section 5.4).
func newHostID() agentproto.HostID {
	var b [16]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return agentproto.HostID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

func (id identity) key() (*ecdsa.PrivateKey, error) {
	k, err := x509.ParsePKCS8PrivateKey(id.Key)
	if err != nil {
		return nil, fmt.Errorf("read the host's key: %w", err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("read the host's key: not ECDSA")
	}
	return key, nil
}

// enrolled says whether the host has a certificate of the mesh it should be
// in: a new pin in wapt-get.ini moves the host to another mesh.
func (id identity) enrolled(pin string) bool {
	return len(id.Certificate) > 0 && (pin == "" || pin == id.Pin)
}

// lifetime says from when on the certificate is asked for anew and when it
// ends; both are zero without one.
func (id identity) lifetime() (renew, ends time.Time) {
	cert, err := x509.ParseCertificate(id.Certificate)
	if err != nil {
		return time.Time{}, time.Time{}
	}
	return cert.NotAfter.Add(-min(renewBefore, cert.NotAfter.Sub(cert.NotBefore)/3)), cert.NotAfter
}

// credentials are what the client shows and whom it believes.
func (id identity) credentials() (*tls.Certificate, *x509.CertPool, error) {
	key, err := id.key()
	if err != nil {
		return nil, nil, err
	}
	authority, err := x509.ParseCertificate(id.Authority)
	if err != nil {
		return nil, nil, fmt.Errorf("read the mesh's authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	chain := [][]byte{id.Certificate}
	if len(id.Issuer) > 0 {
		chain = append(chain, id.Issuer)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key}, pool, nil
}

// request makes the certificate request. A node takes the public key from it
// and nothing else: the name is what the request must have.
func (id identity) request() ([]byte, error) {
	key, err := id.key()
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: string(id.Host)}}, key)
	if err != nil {
		return nil, fmt.Errorf("make the certificate request: %w", err)
	}
	return csr, nil
}

// accept checks what a node answered to the request, and takes it.
func (id identity) accept(r agentproto.EnrollResponse, pin string) (identity, error) {
	authority, err := x509.ParseCertificate(r.Authority)
	if err != nil {
		return id, fmt.Errorf("authority from %s: %w", r.Node, err)
	}
	if got := agentproto.Pin(authority); pin != "" && got != pin {
		return id, fmt.Errorf("authority from %s has the fingerprint %s, not the token's", r.Node, got)
	}
	cert, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return id, fmt.Errorf("certificate from %s: %w", r.Node, err)
	}
	key, err := id.key()
	if err != nil {
		return id, err
	}
	if public, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return id, fmt.Errorf("certificate from %s is for another key", r.Node)
	}
	chain := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: cert.NotBefore.Add(time.Hour), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	chain.Roots.AddCert(authority)
	if len(r.Issuer) > 0 {
		issuer, err := x509.ParseCertificate(r.Issuer)
		if err != nil {
			return id, fmt.Errorf("issuer from %s: %w", r.Node, err)
		}
		chain.Intermediates.AddCert(issuer)
	}
	// Not by our own clock: the certificate is seconds old, and by a clock that is
	// some minutes or hours behind it begins tomorrow. Such a host must get in. One
	// whose clock is off by more than the node's own certificate holds does not come
	// here: it was told so when it connected, see agentproto.VerifyPin.
	if _, err := cert.Verify(chain); err != nil {
		return id, fmt.Errorf("certificate from %s: %w", r.Node, err)
	}
	id.Certificate, id.Issuer, id.Authority, id.Pin = bytes.Clone(r.Certificate), bytes.Clone(r.Issuer), bytes.Clone(r.Authority), agentproto.Pin(authority)
	return id, nil
}

// enroll asks for a certificate once. Pending is a duration to wait for an
// admin's approval; zero when the host is in.
func (a *Agent) enroll(ctx context.Context) (pending time.Duration, err error) {
	a.mu.Lock()
	id, conf := a.id, a.conf
	a.mu.Unlock()
	pin := conf.Pin
	if pin == "" {
		pin = id.Pin // to renew, or to come back after it was sent away
	}
	if pin == "" {
		return 0, errors.New("enrol: neither token nor pin is in [wuamesh] of wapt-get.ini: the agent does not know which mesh to trust")
	}
	node, err := a.connect(agentproto.ClientOptions{Nodes: a.nodes(), Pin: pin, Log: a.log, Named: a.named})
	if err != nil {
		return 0, fmt.Errorf("enrol: %w", err)
	}
	defer node.Close()
	csr, err := id.request()
	if err != nil {
		return 0, err
	}
	facts, err := a.facts(ctx)
	if err != nil {
		return 0, err
	}
	r, err := node.Enroll(ctx, agentproto.EnrollRequest{
		Protocol: agentproto.Version, Agent: a.version, Host: id.Host, Token: conf.Token, CSR: csr, Facts: facts,
	})
	if err != nil {
		return 0, fmt.Errorf("enrol: %w", err)
	}
	if r.Pending {
		return min(max(time.Duration(r.Wait), agentproto.MinCheckin), time.Hour), nil
	}
	if id, err = id.accept(r, pin); err != nil {
		return 0, fmt.Errorf("enrol: %w", err)
	}
	if err := store(a.dir, identityFile, id); err != nil {
		return 0, err
	}
	a.log.InfoContext(ctx, "enrolled", "node", r.Node, "host", string(id.Host))
	return 0, a.setIdentity(id)
}
