// Package authenticode says who signed a cabinet, before anything reads its
// inside: Microsoft's Authenticode over [MS-CAB], with time stamps of RFC 3161.
package authenticode

import (
	"bytes"
	"crypto"
	_ "crypto/sha256" // the digests a signature may use
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// What can be wrong with a signature. Every error of [VerifyCab] wraps one of
// these, or is that of reading.
var (
	ErrNoCabinet = errors.New("the file is no cabinet")
	ErrUnsigned  = errors.New("the file is not signed")
	ErrAltered   = errors.New("the file was changed after it was signed")
	ErrMalformed = errors.New("the signature makes no sense")
	ErrWeak      = errors.New("the signature uses an algorithm that is broken")
	ErrUntrusted = errors.New("the signer's certificate leads to no root that is trusted")
	ErrExpired   = errors.New("the signer's certificate was not valid at that time")
	ErrUsage     = errors.New("the signer's certificate is not for signing code")
	ErrPublisher = errors.New("the signer is somebody else")
)

// IsVerdict says that an error is about the signature, not about reading.
func IsVerdict(err error) bool {
	return slices.ContainsFunc([]error{ErrNoCabinet, ErrUnsigned, ErrAltered, ErrMalformed, ErrWeak, ErrUntrusted, ErrExpired, ErrUsage, ErrPublisher}, func(kind error) bool {
		return errors.Is(err, kind)
	})
}

func because(kind error, format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{kind}, args...)...)
}

// A Trust is whom to believe.
type Trust struct {
	// Microsoft's own roots: what leads there must be signed by Microsoft
	// Corporation itself, which also issues certificates to others.
	Microsoft []*x509.Certificate
	// Others are roots of the configuration, for mirrors and tests; any signer
	// below them is believed.
	Others []*x509.Certificate
	// Now is the time a signature without a time stamp is judged at.
	Now time.Time
}

// A Signature is one that holds.
type Signature struct {
	Chain     []*x509.Certificate // the signer first, the root last
	Hash      crypto.Hash
	Imprint   []byte    // digest of what is signed: the identity of the content
	Timestamp time.Time // zero without a time stamp that is believed
}

// Signer is whom the certificate names.
func (s *Signature) Signer() string { return s.Chain[0].Subject.String() }

// Root is the root it leads to.
func (s *Signature) Root() string { return s.Chain[len(s.Chain)-1].Subject.CommonName }

// The place of a signature in a cabinet: a reserved area of 20 bytes in the
// header says where the PKCS #7 message lies, which is at the end.
const (
	reserveAt   = 36 // sizes of the reserved areas
	reservedAt  = 40 // the area: 4 bytes of marks, place, size, 8 bytes more
	tailAt      = 56 // of the area, the first byte that is signed
	coveredFrom = 60
	maxMessage  = 1 << 20
	areaMarks   = 0x00100000
)

// A place is where in a cabinet the signature is.
type place struct {
	at, size int64
	head     [coveredFrom]byte
}

// locate finds the message and checks what the digest does not cover.
func locate(r io.ReaderAt, size int64) (p place, err error) {
	if n, err := r.ReadAt(p.head[:], 0); n < len(p.head) {
		if err == io.EOF {
			return p, because(ErrNoCabinet, "it has %d bytes", n)
		}
		return p, err
	}
	le, h := binary.LittleEndian, p.head[:]
	switch {
	case string(h[:4]) != "MSCF":
		return p, ErrNoCabinet
	case le.Uint16(h[30:])&4 == 0:
		return p, ErrUnsigned
	}
	p.at, p.size = int64(le.Uint32(h[reservedAt+4:])), int64(le.Uint32(h[reservedAt+8:]))
	switch total := int64(le.Uint32(h[8:])); {
	case le.Uint16(h[reserveAt:]) != 20 || p.at == 0 || p.size == 0:
		return p, because(ErrUnsigned, "its reserved area holds something else")
	case h[reserveAt+2] != 0 || h[reserveAt+3] != 0 || le.Uint32(h[reservedAt:]) != areaMarks || le.Uint32(h[reservedAt+12:]) != 0:
		return p, because(ErrMalformed, "its reserved area is not as signing leaves it")
	case le.Uint32(h[4:]) != 0: // not covered; nobody writes anything else
		return p, because(ErrMalformed, "its reserved word is not zero")
	case le.Uint16(h[30:])&3 != 0:
		return p, because(ErrMalformed, "the cabinet is one part of several")
	case p.at != total || p.size > maxMessage:
		return p, because(ErrMalformed, "%d bytes at %d, the cabinet ends at %d", p.size, p.at, total)
	case p.at+p.size > size:
		return p, because(ErrAltered, "the end of the signature is missing")
	case p.at+p.size < size:
		return p, because(ErrAltered, "%d bytes follow the signature", size-p.at-p.size)
	}
	return p, nil
}

// imprint is the digest over a cabinet: the header without its reserved word,
// number in a set and reserved area, whose last four bytes count, then all up
// to the signature.
func (p place) imprint(r io.ReaderAt, hash crypto.Hash) ([]byte, error) {
	d := hash.New()
	d.Write(p.head[0:4])
	d.Write(p.head[8:34])
	d.Write(p.head[tailAt:coveredFrom])
	_, err := io.CopyBuffer(d, onlyReader{io.NewSectionReader(r, coveredFrom, p.at-coveredFrom)}, make([]byte, 256<<10))
	return d.Sum(nil), err
}

// onlyReader hides WriteTo, so that the copy uses our buffer.
type onlyReader struct{ io.Reader }

// VerifyCab checks a signed cabinet, a .msu among them, of that many bytes. It
// reads the whole file and holds none of it.
func VerifyCab(r io.ReaderAt, size int64, t Trust) (*Signature, error) {
	p, err := locate(r, size)
	if err != nil {
		return nil, err
	}
	der := make([]byte, p.size)
	if _, err := r.ReadAt(der, p.at); err != nil && err != io.EOF {
		return nil, err
	}
	m, err := parseMessage(der, oidIndirectData)
	if err != nil {
		return nil, err
	}
	hash, want, err := m.indirectData()
	if err != nil {
		return nil, err
	}
	// Who signed comes first: it is cheap, and a stranger's 600 MB are not
	// worth reading.
	s := &Signature{Hash: hash}
	if err := m.verify(); err != nil {
		return nil, err
	}
	at := t.Now
	if s.Timestamp, err = m.timestamp(t); err != nil {
		return nil, err
	}
	if !s.Timestamp.IsZero() {
		at = s.Timestamp
	}
	if s.Chain, err = m.chain(t, at, x509.ExtKeyUsageCodeSigning); err != nil {
		return nil, err
	}
	if err := t.publisher(s.Chain); err != nil {
		return nil, err
	}
	if s.Imprint, err = p.imprint(r, hash); err != nil {
		return nil, err
	}
	if !bytes.Equal(s.Imprint, want) {
		return nil, ErrAltered
	}
	return s, nil
}

var (
	oidIndirectData = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidCabImage     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 25}
)

// indirectData reads SpcIndirectDataContent: that it is of a cabinet, and the
// digest the cabinet should have.
func (m *message) indirectData() (hash crypto.Hash, sum []byte, err error) {
	var data struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue `asn1:"optional"`
	}
	var digest struct {
		Alg pkix.AlgorithmIdentifier
		Sum []byte
	}
	rest, err := asn1.Unmarshal(m.content, &data)
	if err == nil {
		rest, err = asn1.Unmarshal(rest, &digest)
	}
	if err != nil || len(rest) > 0 {
		return 0, nil, because(ErrMalformed, "the signed digest cannot be read")
	}
	if !data.Type.Equal(oidCabImage) {
		return 0, nil, because(ErrMalformed, "it is not that of a cabinet")
	}
	hash, err = hashOf(digest.Alg)
	return hash, digest.Sum, err
}

// publisher holds who signed against what the roots are trusted for.
func (t Trust) publisher(chain []*x509.Certificate) error {
	root, signer := chain[len(chain)-1], chain[0]
	if slices.ContainsFunc(t.Others, root.Equal) {
		return nil
	}
	if !slices.Contains(signer.Subject.Organization, "Microsoft Corporation") {
		return because(ErrPublisher, "%s, not Microsoft Corporation", signer.Subject)
	}
	return nil
}
