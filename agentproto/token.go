package agentproto

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"strings"
)

// Pin is the fingerprint of an authority: SHA-256 of its
// SubjectPublicKeyInfo, hexadecimal (RFC 7469, section 2.4).
func Pin(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// An EnrollToken lets hosts in, and tells them whom to trust: the secret is
// for the node, the pin for the agent.
type EnrollToken struct{ Secret, Pin string }

// NewEnrollToken makes a secret of 128 random bits.
func NewEnrollToken(pin string) EnrollToken {
	return EnrollToken{strings.ToLower(rand.Text()), pin}
}

const tokenPrefix = "wme1."

// String is how the token is typed and pasted.
func (t EnrollToken) String() string { return tokenPrefix + t.Secret + "." + t.Pin }

// ParseEnrollToken reads what String wrote, with white space around it.
func ParseEnrollToken(s string) (EnrollToken, error) {
	s, ok := strings.CutPrefix(strings.TrimSpace(s), tokenPrefix)
	secret, pin, ok2 := strings.Cut(s, ".")
	if _, err := hex.DecodeString(pin); !ok || !ok2 || len(secret) < 26 || len(pin) != 64 || err != nil {
		return EnrollToken{}, errors.New("not an enrolment token: it begins with " + tokenPrefix + " and has 96 characters; was it copied whole?")
	}
	return EnrollToken{secret, pin}, nil
}
