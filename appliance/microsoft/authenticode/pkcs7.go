package authenticode

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"strings"
	"time"
)

var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
)

// maxCertificates bounds what a message may carry; a chain has three or four.
const maxCertificates = 50

// hashes are the digests that are believed. SHA-1 is known, to be told apart.
var hashes = map[string]crypto.Hash{
	"2.16.840.1.101.3.4.2.1": crypto.SHA256, "2.16.840.1.101.3.4.2.2": crypto.SHA384, "2.16.840.1.101.3.4.2.3": crypto.SHA512,
}

func hashOf(a pkix.AlgorithmIdentifier) (crypto.Hash, error) {
	switch oid := a.Algorithm.String(); oid {
	case "1.3.14.3.2.26":
		return 0, because(ErrWeak, "SHA-1")
	case "1.2.840.113549.2.5":
		return 0, because(ErrWeak, "MD5")
	default:
		if h := hashes[oid]; h != 0 {
			return h, nil
		}
		return 0, because(ErrMalformed, "digest %s is not known", oid)
	}
}

// The parts of PKCS #7 that Authenticode uses (RFC 2315, section 9).
type (
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,optional,tag:0"`
	}
	signedData struct {
		Version     int
		DigestAlgs  []pkix.AlgorithmIdentifier `asn1:"set"`
		Content     contentInfo
		Certs       asn1.RawValue `asn1:"optional,tag:0"`
		CRLs        asn1.RawValue `asn1:"optional,tag:1"`
		SignerInfos []signerInfo  `asn1:"set"`
	}
	signerInfo struct {
		Version int
		Issuer  struct {
			Name   asn1.RawValue
			Serial *big.Int
		}
		DigestAlg pkix.AlgorithmIdentifier
		Signed    asn1.RawValue `asn1:"optional,tag:0"`
		SigAlg    pkix.AlgorithmIdentifier
		Signature []byte
		Unsigned  asn1.RawValue `asn1:"optional,tag:1"`
	}
	attribute struct {
		Type   asn1.ObjectIdentifier
		Values asn1.RawValue // SET
	}
)

// attributes by type; one that comes twice could be read in two ways.
func attributes(raw asn1.RawValue) (map[string][]byte, error) {
	m := map[string][]byte{}
	for rest := raw.Bytes; len(rest) > 0; {
		var a attribute
		var err error
		if rest, err = asn1.Unmarshal(rest, &a); err != nil {
			return nil, because(ErrMalformed, "an attribute cannot be read")
		}
		if _, twice := m[a.Type.String()]; twice {
			return nil, because(ErrMalformed, "attribute %s comes twice", a.Type)
		}
		m[a.Type.String()] = a.Values.Bytes
	}
	return m, nil
}

// A message is a PKCS #7 SignedData of one signer.
type message struct {
	contentType asn1.ObjectIdentifier
	content     []byte // of the signed content, without its tag and length
	certs       []*x509.Certificate
	signer      *x509.Certificate
	info        signerInfo
	signed      map[string][]byte
	unsigned    map[string][]byte
}

// parseMessage reads a message of that content. Only zeros may follow it:
// signing pads to eight bytes.
func parseMessage(der []byte, contentType asn1.ObjectIdentifier) (*message, error) {
	var ci contentInfo
	rest, err := asn1.Unmarshal(der, &ci)
	if err != nil || len(rest) > 7 || len(bytes.Trim(rest, "\x00")) > 0 {
		return nil, because(ErrMalformed, "it is no PKCS #7 message alone")
	}
	var sd signedData
	if rest, err := asn1.Unmarshal(ci.Content.Bytes, &sd); err != nil || len(rest) > 0 || !ci.Type.Equal(oidSignedData) {
		return nil, because(ErrMalformed, "it is no SignedData")
	}
	if !sd.Content.Type.Equal(contentType) || len(sd.SignerInfos) != 1 {
		return nil, because(ErrMalformed, "content %s with %d signers", sd.Content.Type, len(sd.SignerInfos))
	}
	m := &message{contentType: contentType, info: sd.SignerInfos[0]}
	if len(sd.DigestAlgs) != 1 || !sd.DigestAlgs[0].Algorithm.Equal(m.info.DigestAlg.Algorithm) {
		return nil, because(ErrMalformed, "it names other digests than its signer")
	}
	var content asn1.RawValue
	if rest, err := asn1.Unmarshal(sd.Content.Content.Bytes, &content); err != nil || len(rest) > 0 {
		return nil, because(ErrMalformed, "it has no content")
	}
	m.content = content.Bytes
	if err := m.takeCertificates(sd.Certs.Bytes); err != nil {
		return nil, err
	}
	if m.signed, err = attributes(m.info.Signed); err != nil {
		return nil, err
	}
	m.unsigned, err = attributes(m.info.Unsigned)
	return m, err
}

// takeCertificates keeps those that can be read and finds the signer's. One
// that cannot is none of ours to judge: the chain has to hold without it.
func (m *message) takeCertificates(der []byte) error {
	for len(der) > 0 {
		var raw asn1.RawValue
		var err error
		if der, err = asn1.Unmarshal(der, &raw); err != nil {
			return because(ErrMalformed, "a certificate cannot be read")
		}
		if len(m.certs) == maxCertificates {
			return because(ErrMalformed, "more than %d certificates", maxCertificates)
		}
		c, err := x509.ParseCertificate(raw.FullBytes)
		if err != nil {
			continue
		}
		m.certs = append(m.certs, c)
		if bytes.Equal(c.RawIssuer, m.info.Issuer.Name.FullBytes) && c.SerialNumber.Cmp(m.info.Issuer.Serial) == 0 {
			m.signer = c
		}
	}
	if m.signer == nil {
		return because(ErrMalformed, "the signer's certificate is missing")
	}
	return nil
}

// verify checks that the signer signed the attributes, and that they name the
// content.
func (m *message) verify() error {
	hash, err := hashOf(m.info.DigestAlg)
	if err != nil {
		return err
	}
	var typ asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(m.signed[oidContentType.String()], &typ); err != nil || !typ.Equal(m.contentType) {
		return because(ErrMalformed, "what is signed is of another type")
	}
	var sum []byte
	if _, err := asn1.Unmarshal(m.signed[oidMessageDigest.String()], &sum); err != nil {
		return because(ErrMalformed, "no digest is signed")
	}
	h := hash.New()
	h.Write(m.content)
	if subtle.ConstantTimeCompare(h.Sum(nil), sum) != 1 {
		return because(ErrAltered, "the signature is for another digest")
	}
	alg, err := m.algorithm(hash)
	if err != nil {
		return err
	}
	signed := bytes.Clone(m.info.Signed.FullBytes)
	signed[0] = 0x31 // a SET, where the message has [0] (RFC 2315, 9.3)
	if err := m.signer.CheckSignature(alg, signed, m.info.Signature); err != nil {
		return because(ErrAltered, "the signer did not sign this")
	}
	return nil
}

// algorithms are what a key and a digest make together, and what a message may
// call it: by the key alone, or by both.
var algorithms = []struct {
	hash crypto.Hash
	rsa  bool
	alg  x509.SignatureAlgorithm
	oids []string
}{
	{crypto.SHA256, true, x509.SHA256WithRSA, []string{oidRSA, "1.2.840.113549.1.1.11"}},
	{crypto.SHA384, true, x509.SHA384WithRSA, []string{oidRSA, "1.2.840.113549.1.1.12"}},
	{crypto.SHA512, true, x509.SHA512WithRSA, []string{oidRSA, "1.2.840.113549.1.1.13"}},
	{crypto.SHA256, false, x509.ECDSAWithSHA256, []string{oidEC, "1.2.840.10045.4.3.2"}},
	{crypto.SHA384, false, x509.ECDSAWithSHA384, []string{oidEC, "1.2.840.10045.4.3.3"}},
	{crypto.SHA512, false, x509.ECDSAWithSHA512, []string{oidEC, "1.2.840.10045.4.3.4"}},
}

const (
	oidRSA = "1.2.840.113549.1.1.1"
	oidEC  = "1.2.840.10045.2.1"
)

// algorithm is that of the signer's signature.
func (m *message) algorithm(hash crypto.Hash) (x509.SignatureAlgorithm, error) {
	key, isRSA := m.signer.PublicKey.(*rsa.PublicKey)
	if isRSA && key.N.BitLen() < 2048 {
		return 0, because(ErrWeak, "an RSA key of %d bits", key.N.BitLen())
	}
	if _, isEC := m.signer.PublicKey.(*ecdsa.PublicKey); isRSA || isEC {
		for _, a := range algorithms {
			if a.hash == hash && a.rsa == isRSA && slices.Contains(a.oids, m.info.SigAlg.Algorithm.String()) {
				return a.alg, nil
			}
		}
	}
	return 0, because(ErrMalformed, "signature algorithm %s with a key of type %T", m.info.SigAlg.Algorithm, m.signer.PublicKey)
}

// chain leads the signer to a trusted root, valid at that time and for that
// use.
func (m *message) chain(t Trust, at time.Time, usage x509.ExtKeyUsage, more ...*x509.Certificate) ([]*x509.Certificate, error) {
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, list := range [][]*x509.Certificate{t.Microsoft, t.Others} {
		for _, c := range list {
			o.Roots.AddCert(c)
		}
	}
	for _, list := range [][]*x509.Certificate{m.certs, more} {
		for _, c := range list {
			o.Intermediates.AddCert(c)
		}
	}
	chains, err := m.signer.Verify(o)
	if err == nil {
		return chains[0], nil
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch invalid.Reason {
		case x509.Expired:
			return nil, because(ErrExpired, "%s is good from %s to %s, not on %s", invalid.Cert.Subject.CommonName,
				invalid.Cert.NotBefore.Format(time.DateOnly), invalid.Cert.NotAfter.Format(time.DateOnly), at.Format(time.DateOnly))
		case x509.IncompatibleUsage:
			return nil, because(ErrUsage, "%s", m.signer.Subject)
		}
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return nil, because(ErrUntrusted, "%s", m.path())
	}
	return nil, because(ErrUntrusted, "%v", err)
}

// path names the signer and who issued whom, as far as the message says.
func (m *message) path() string {
	const longest = 8
	c := m.signer
	names := []string{c.Subject.String()}
	for len(names) < longest {
		names = append(names, c.Issuer.String())
		i := slices.IndexFunc(m.certs, func(x *x509.Certificate) bool { return bytes.Equal(x.RawSubject, c.RawIssuer) })
		if i < 0 || bytes.Equal(m.certs[i].RawIssuer, c.RawIssuer) {
			break
		}
		c = m.certs[i]
	}
	return strings.Join(names, ", issued by ")
}
