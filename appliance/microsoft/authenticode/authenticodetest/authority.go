// Package authenticodetest signs cabinets for tests and for the demonstration:
// what Microsoft does with its own keys, done with keys that follow from a
// seed. Never trust such a root anywhere else: anybody can compute its key.
package authenticodetest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// An Authority is a root and the certificate authority below it.
type Authority struct {
	seed   uint64
	root   identity
	middle identity
}

// An identity is a certificate with its key.
type identity struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// lifetime is that of the authorities, long enough for any test.
var lifetime = [2]time.Time{time.Date(2008, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC)}

// NewAuthority makes the authority of a seed, the same every time.
func NewAuthority(seed uint64) *Authority {
	a := &Authority{seed: seed}
	ca := func(name string) *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{CommonName: name, Organization: []string{"wuamesh TEST"}}, NotBefore: lifetime[0], NotAfter: lifetime[1],
			IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
	}
	a.root = a.issue("root", ca(fmt.Sprintf("wuamesh TEST Root %d", seed)), identity{})
	a.middle = a.issue("middle", ca("wuamesh TEST Code Signing PCA"), a.root)
	return a
}

// key derives a key on P-256 from the seed.
func (a *Authority) key(label string) crypto.Signer {
	for n := 0; ; n++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "wuamesh test key %d %s %d", a.seed, label, n))
		if k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), sum[:]); err == nil {
			return k
		}
	}
}

// issue signs t for the key of that label; without an issuer it signs itself.
// Signatures are RFC 6979's, which need no randomness.
func (a *Authority) issue(label string, t *x509.Certificate, by identity) identity {
	key := a.key(label)
	serial := sha256.Sum256(fmt.Appendf(nil, "%d %s", a.seed, label))
	t.SerialNumber = new(big.Int).SetBytes(serial[:8])
	t.BasicConstraintsValid = true
	if by.key == nil {
		by = identity{t, key}
	}
	der, err := x509.CreateCertificate(nil, t, by.cert, key.Public(), by.key)
	if err != nil {
		panic(fmt.Sprintf("issue %s: %v", label, err)) // it follows from the seed: it always fails or never
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(fmt.Sprintf("issue %s: %v", label, err))
	}
	return identity{cert, key}
}

// Root is what to trust.
func (a *Authority) Root() *x509.Certificate { return a.root.cert }

// RootPEM is the same as a file.
func (a *Authority) RootPEM() []byte { return encodeCert(a.root.cert) }

func encodeCert(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// SignerOptions describe who signs. The zero value is a signer such as
// Microsoft's, good for as long as the authority.
type SignerOptions struct {
	Organization        string // "" is Microsoft Corporation
	NotBefore, NotAfter time.Time
	Usage               x509.ExtKeyUsage // 0 is code signing
}

// A Signer signs cabinets.
type Signer struct {
	identity
	chain []*x509.Certificate // itself first, without the root
}

// Signer issues a certificate to sign with.
func (a *Authority) Signer(o SignerOptions) *Signer {
	t := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Microsoft Corporation", Organization: []string{"Microsoft Corporation"}, OrganizationalUnit: []string{"wuamesh TEST"}},
		NotBefore: lifetime[0], NotAfter: lifetime[1], KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 311, 76, 6, 1}}, // Windows Update
	}
	if o.Organization != "" {
		t.Subject = pkix.Name{CommonName: o.Organization, Organization: []string{o.Organization}}
	}
	if !o.NotBefore.IsZero() {
		t.NotBefore = o.NotBefore
	}
	if !o.NotAfter.IsZero() {
		t.NotAfter = o.NotAfter
	}
	if o.Usage != 0 {
		t.ExtKeyUsage, t.UnknownExtKeyUsage = []x509.ExtKeyUsage{o.Usage}, nil
	}
	id := a.issue(fmt.Sprintf("signer %+v", o), t, a.middle)
	return &Signer{id, []*x509.Certificate{id.cert, a.middle.cert}}
}

// PEM are the signer's certificate, the one that issued it, and the key, for
// other tools to sign with.
func (s *Signer) PEM() (cert, issuer, key []byte) {
	der, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		panic(err) // a key on P-256 always marshals
	}
	return encodeCert(s.cert), encodeCert(s.chain[1]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// TimestampPEM issues a certificate for an authority of time stamps, with its
// key, for other tools to use.
func (a *Authority) TimestampPEM() (cert, key []byte) {
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		panic(err) // it is a constant
	}
	id := a.issue("stamp", &x509.Certificate{
		Subject: pkix.Name{CommonName: "wuamesh TEST Time Stamping"}, NotBefore: lifetime[0], NotAfter: lifetime[1], KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}},
	}, a.root)
	_, _, key = (&Signer{id, []*x509.Certificate{id.cert, a.root.cert}}).PEM()
	return encodeCert(id.cert), key
}
