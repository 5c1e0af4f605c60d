package replicate

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
	"unicode"
)

// A JoinToken lets one machine into a mesh. It says which mesh to trust,
// where to ask and until when; the secret is for the anchor.
type JoinToken struct {
	Secret      [16]byte
	Fingerprint [sha256.Size]byte // of the mesh's root
	Expires     time.Time         // to the second
	Addrs       []string          // host:port of nodes, 1 to 8
}

const (
	joinPrefix   = "wmj1."
	maxJoinAddrs = 8
	maxJoinText  = 4096
)

// NewSecret makes the secret of a token.
func NewSecret() (s [16]byte) {
	rand.Read(s[:]) // never fails, see crypto/rand
	return s
}

// String is how the token is typed and pasted: after the prefix base64url of
// secret, fingerprint, expiry (Unix seconds, 4 bytes, big endian), each
// address behind its length, and the first 4 bytes of the SHA-256 of all that.
func (t JoinToken) String() string {
	b := append(t.Secret[:], t.Fingerprint[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(t.Expires.Unix()))
	for _, a := range t.Addrs[:min(len(t.Addrs), maxJoinAddrs)] {
		b = append(append(b, byte(len(a))), a...)
	}
	sum := sha256.Sum256(b)
	return joinPrefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:4]...))
}

// Errors of reading a token.
var (
	ErrNotJoinToken = errors.New("not a join token: it begins with " + joinPrefix)
	ErrTokenDamaged = errors.New("the join token is damaged: was it copied whole?")
)

// ParseJoinToken reads what String wrote; white space in it is ignored, as
// mail programs wrap lines.
func ParseJoinToken(s string) (t JoinToken, err error) {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
	text, ok := strings.CutPrefix(s, joinPrefix)
	if !ok {
		return t, ErrNotJoinToken
	}
	if len(text) > maxJoinText {
		return t, ErrTokenDamaged
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	const head = 16 + sha256.Size + 4
	if err != nil || len(b) < head+4 {
		return t, ErrTokenDamaged
	}
	b, check := b[:len(b)-4], b[len(b)-4:]
	if sum := sha256.Sum256(b); !bytes.Equal(sum[:4], check) {
		return t, ErrTokenDamaged
	}
	copy(t.Secret[:], b)
	copy(t.Fingerprint[:], b[16:])
	t.Expires = time.Unix(int64(binary.BigEndian.Uint32(b[16+sha256.Size:])), 0)
	for b = b[head:]; len(b) > 0; {
		n := int(b[0])
		if len(b) < 1+n || len(t.Addrs) == maxJoinAddrs {
			return JoinToken{}, ErrTokenDamaged
		}
		addr := string(b[1 : 1+n])
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
			return JoinToken{}, ErrTokenDamaged
		}
		t.Addrs, b = append(t.Addrs, addr), b[1+n:]
	}
	if len(t.Addrs) == 0 {
		return JoinToken{}, ErrTokenDamaged
	}
	return t, nil
}

// NewPassphrase makes a recovery passphrase of 130 random bits, in groups
// that people can read out.
func NewPassphrase() string {
	var groups []string
	for s := rand.Text(); s != ""; {
		n := min(5, len(s))
		groups, s = append(groups, s[:n]), s[n:]
	}
	return strings.Join(groups, "-")
}

// ErrPassphrase is what Unseal returns for a passphrase that does not fit.
var ErrPassphrase = errors.New("the recovery passphrase does not fit")

// Seal encrypts with a passphrase that NewPassphrase made. It is random, so
// its key needs no slow derivation.
func Seal(secret []byte, passphrase string) ([]byte, error) {
	var salt [16]byte
	rand.Read(salt[:])
	gcm, err := sealer(passphrase, salt[:])
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return gcm.Seal(salt[:], nil, secret, nil), nil
}

// Unseal decrypts what Seal made. Case, hyphens and spaces of the passphrase
// do not count.
func Unseal(sealed []byte, passphrase string) ([]byte, error) {
	if len(sealed) < 16 {
		return nil, errors.New("unseal: cut short")
	}
	gcm, err := sealer(passphrase, sealed[:16])
	if err != nil {
		return nil, fmt.Errorf("unseal: %w", err)
	}
	secret, err := gcm.Open(nil, nil, sealed[16:], nil)
	if err != nil {
		return nil, ErrPassphrase
	}
	return secret, nil
}

func sealer(passphrase string, salt []byte) (cipher.AEAD, error) {
	plain := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToUpper(r)
		}
		return -1
	}, passphrase)
	key, err := hkdf.Key(sha256.New, []byte(plain), salt, "wuamesh recovery", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	// The key is used once, for this salt: the nonce may be anything.
	return cipher.NewGCMWithRandomNonce(block)
}
