package authenticodetest

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"slices"
	"unicode/utf16"
)

var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidIndirectData  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidCabImage      = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 25}
	oidOpusInfo      = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 12}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidECDSA         = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2} // with SHA-256
)

// reserve is what signing adds to the header: the sizes of the reserved
// areas, and the one of the header, which says where the signature is.
const reserve = 4 + 20

// SignCab returns the cabinet with a signature. It must have none, and no
// reserved areas. Any other is a mistake of the test, and panics.
func (s *Signer) SignCab(cab []byte) []byte {
	le := binary.LittleEndian
	if len(cab) < 36 || string(cab[:4]) != "MSCF" || le.Uint16(cab[30:])&4 != 0 || int(le.Uint32(cab[8:])) != len(cab) {
		panic("authenticodetest: only a plain cabinet can be signed")
	}
	out := slices.Grow(bytes.Clone(cab[:36]), len(cab)+reserve+8<<10)
	le.PutUint32(out[8:], uint32(len(cab)+reserve))
	le.PutUint32(out[16:], le.Uint32(cab[16:])+reserve)
	le.PutUint16(out[30:], le.Uint16(cab[30:])|4)
	out = append(out, 20, 0, 0, 0, 0, 0, 0x10, 0)
	out = append(out, make([]byte, 16)...)
	out = append(out, cab[36:]...)
	for i := range int(le.Uint16(cab[26:])) { // each folder's data moved
		at := out[36+reserve+8*i:]
		le.PutUint32(at, le.Uint32(at)+reserve)
	}
	h := sha256.New()
	h.Write(out[0:4])
	h.Write(out[8:34])
	h.Write(out[56:])
	message := s.message(h.Sum(nil))
	message = append(message, make([]byte, -len(message)&7)...)
	le.PutUint32(out[44:], uint32(len(out)))
	le.PutUint32(out[48:], uint32(len(message)))
	return append(out, message...)
}

// message is the PKCS #7 SignedData of a cabinet with that digest.
func (s *Signer) message(sum []byte) []byte {
	sha := pkix.AlgorithmIdentifier{Algorithm: oidSHA256, Parameters: asn1.NullRawValue}
	content := slices.Concat(
		sequence(marshal(oidCabImage), tagged(2, tagged(0, bmp("<<<Obsolete>>>"), false), true)),
		marshal(struct {
			Alg pkix.AlgorithmIdentifier
			Sum []byte
		}{sha, sum}),
	)
	digest := sha256.Sum256(content)
	attributes := [][]byte{
		attribute(oidContentType, marshal(oidIndirectData)),
		attribute(oidMessageDigest, marshal(digest[:])),
		attribute(oidOpusInfo, sequence()),
	}
	slices.SortFunc(attributes, bytes.Compare) // DER sorts a SET OF
	signed := slices.Concat(attributes...)
	hash := sha256.Sum256(element(0x31, signed))
	signature, err := s.key.Sign(nil, hash[:], crypto.SHA256)
	if err != nil {
		panic(fmt.Sprintf("sign: %v", err))
	}
	var certs []byte
	for _, c := range s.chain {
		certs = append(certs, c.Raw...)
	}
	info := sequence(
		marshal(1), sequence(s.cert.RawIssuer, marshal(s.cert.SerialNumber)), marshal(sha), tagged(0, signed, true),
		marshal(pkix.AlgorithmIdentifier{Algorithm: oidECDSA}), marshal(signature),
	)
	data := sequence(
		marshal(1), element(0x31, marshal(sha)), sequence(marshal(oidIndirectData), tagged(0, element(0x30, content), true)),
		tagged(0, certs, true), element(0x31, info),
	)
	return sequence(marshal(oidSignedData), tagged(0, data, true))
}

func attribute(typ asn1.ObjectIdentifier, value []byte) []byte {
	return sequence(marshal(typ), element(0x31, value))
}

func sequence(parts ...[]byte) []byte { return element(0x30, slices.Concat(parts...)) }

// tagged is content under a context's tag.
func tagged(tag byte, content []byte, constructed bool) []byte {
	tag |= 0x80
	if constructed {
		tag |= 0x20
	}
	return element(tag, content)
}

// element is one DER element.
func element(tag byte, content []byte) []byte {
	out := []byte{tag}
	switch n := len(content); {
	case n < 0x80:
		out = append(out, byte(n))
	case n < 0x100:
		out = append(out, 0x81, byte(n))
	default:
		out = append(out, 0x82, byte(n>>8), byte(n))
	}
	return append(out, content...)
}

func marshal(v any) []byte {
	b, err := asn1.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("marshal %T: %v", v, err))
	}
	return b
}

// bmp is UTF-16, big-endian.
func bmp(s string) (out []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		out = append(out, byte(u>>8), byte(u))
	}
	return out
}
