package authenticode

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"time"
)

var (
	oidTimestamp = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 3, 3, 1} // attribute with a token of RFC 3161
	oidTSTInfo   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
)

// tstInfo is the beginning of RFC 3161's TSTInfo; what follows is not needed.
type tstInfo struct {
	Version int
	Policy  asn1.ObjectIdentifier
	Imprint struct {
		Alg pkix.AlgorithmIdentifier
		Sum []byte
	}
	Serial asn1.RawValue
	Time   asn1.RawValue
}

// timestamp is when the signature existed, as an authority says below a
// trusted root. Without a token, or with one of an authority nobody knows, it
// is zero: then the signer has to be valid now. A token that is broken, or of
// another signature, is an error, though whoever could break it could have
// removed it.
func (m *message) timestamp(t Trust) (time.Time, error) {
	der := m.unsigned[oidTimestamp.String()]
	if der == nil {
		return time.Time{}, nil
	}
	token, err := parseMessage(der, oidTSTInfo)
	if err == nil {
		err = token.verify()
	}
	if err != nil {
		return time.Time{}, because(err, "in the time stamp")
	}
	var info tstInfo
	if _, err := asn1.Unmarshal(token.content, &info); err != nil {
		return time.Time{}, because(ErrMalformed, "the time stamp cannot be read")
	}
	hash, err := hashOf(info.Imprint.Alg)
	if err != nil {
		return time.Time{}, because(err, "in the time stamp")
	}
	h := hash.New()
	h.Write(m.info.Signature)
	if !bytes.Equal(h.Sum(nil), info.Imprint.Sum) {
		return time.Time{}, because(ErrAltered, "the time stamp is for another signature")
	}
	// Fractions of seconds are allowed and used; encoding/asn1 refuses them.
	at, err := time.Parse("20060102150405Z0700", string(info.Time.Bytes))
	if err != nil || info.Time.Tag != asn1.TagGeneralizedTime {
		return time.Time{}, because(ErrMalformed, "the time stamp has no time")
	}
	if _, err := token.chain(t, at, x509.ExtKeyUsageTimeStamping, m.certs...); err != nil {
		if errors.Is(err, ErrUntrusted) {
			return time.Time{}, nil
		}
		return time.Time{}, because(err, "in the time stamp")
	}
	return at, nil
}
