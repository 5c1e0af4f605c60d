package appliance

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"wuamesh/agentproto"
	"wuamesh/replicate"
)

// How long certificates hold. Agents renew by enrolling again with the key
// they have, the node's own is made at each start and at two thirds.
const (
	authorityLife = 20 * 365 * 24 * time.Hour
	agentLife     = 90 * 24 * time.Hour
	nodeLife      = 365 * 24 * time.Hour
)

// An authority signs the node's own certificate and those of its hosts.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pin  string
	cfg  Config

	mu  sync.Mutex
	own *tls.Certificate
}

// openAuthority reads the node's authority, or makes it at the first start.
func openAuthority(db *replicate.DB, cfg Config) (*authority, error) {
	au := &authority{cfg: cfg}
	err := db.Update(context.Background(), func(tx *replicate.Tx) error {
		rec, ok, err := authorities.find(tx, "root")
		if err != nil {
			return err
		}
		if !ok {
			if rec, err = newAuthority(cfg.Name, tx.Now()); err != nil {
				return err
			}
			if err := authorities.put(tx, "root", rec); err != nil {
				return err
			}
		}
		key, err := x509.ParsePKCS8PrivateKey(rec.Key)
		if err != nil {
			return err
		}
		au.key = key.(*ecdsa.PrivateKey)
		au.cert, err = x509.ParseCertificate(rec.Certificate)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open the node's authority: %w", err)
	}
	au.pin = agentproto.Pin(au.cert)
	return au, nil
}

func newAuthority(name string, now time.Time) (rec authorityRecord, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return rec, err
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "wuamesh " + name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if rec.Certificate, err = x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key); err != nil {
		return rec, err
	}
	rec.Key, err = x509.MarshalPKCS8PrivateKey(key)
	return rec, err
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n
}

// ConsoleServerName is the server name (SNI) by which the command line asks for
// the node's own certificate, also where browsers get another.
const ConsoleServerName = "console.wuamesh.internal"

// rename makes the next certificate one for the names that cfg gives.
func (au *authority) rename(cfg Config) {
	au.mu.Lock()
	defer au.mu.Unlock()
	if au.cfg.Name != cfg.Name || !slices.Equal(au.cfg.Names, cfg.Names) {
		au.own = nil
	}
	au.cfg = cfg
}

// certificate is the node's own, signed by its authority, for all the names
// it is known by.
func (au *authority) certificate() (*tls.Certificate, error) {
	au.mu.Lock()
	defer au.mu.Unlock()
	now := time.Now()
	if au.own != nil && now.Before(au.own.Leaf.NotAfter.Add(-nodeLife/3)) {
		return au.own, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the node's key: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: au.cfg.Name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(nodeLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{agentproto.AgentServerName, agentproto.EnrollServerName, ConsoleServerName, "localhost"},
	}
	hostname, _ := os.Hostname()
	for _, n := range append([]string{au.cfg.Name, hostname}, au.cfg.Names...) {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if n != "" {
			t.DNSNames = append(t.DNSNames, strings.ToLower(n))
		}
	}
	t.IPAddresses = append(t.IPAddresses, localAddresses()...)
	der, err := x509.CreateCertificate(rand.Reader, t, au.cert, &key.PublicKey, au.key)
	if err != nil {
		return nil, fmt.Errorf("sign the node's certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("sign the node's certificate: %w", err)
	}
	// The authority goes along, so that whoever knows its pin can check.
	au.own = &tls.Certificate{Certificate: [][]byte{der, au.cert.Raw}, PrivateKey: key, Leaf: leaf}
	return au.own, nil
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
func (au *authority) sign(csr *x509.CertificateRequest, host agentproto.HostID) ([]byte, error) {
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: string(host)}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(agentLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, au.cert, csr.PublicKey, au.key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", host, err)
	}
	return der, nil
}

// keyOf is the fingerprint of a public key in its SubjectPublicKeyInfo form.
func keyOf(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}
