package catalogue

import (
	"encoding/hex"
	"errors"
)

// A GUID is an identity of Microsoft's: of an update, or of a category.
type GUID [16]byte

// ParseGUID reads the canonical form of RFC 9562 in either case.
func ParseGUID(s string) (GUID, error) { return parseGUID([]byte(s)) }

var errGUID = errors.New("not a GUID such as 631fdcea-1c5c-4a6a-9b0e-1d7f8a0c2b11")

func parseGUID(b []byte) (g GUID, err error) {
	if len(b) != 36 || b[8] != '-' || b[13] != '-' || b[18] != '-' || b[23] != '-' {
		return g, errGUID
	}
	n := 0
	for i := 0; i < len(b); i += 2 {
		if b[i] == '-' {
			i++
		}
		hi, lo := nibble[b[i]], nibble[b[i+1]]
		if hi|lo > 15 {
			return g, errGUID
		}
		g[n] = hi<<4 | lo
		n++
	}
	return g, nil
}

// nibble is the value of a hexadecimal digit, 255 of anything else.
var nibble = func() (t [256]byte) {
	for i := range t {
		t[i] = 255
	}
	for i := range byte(10) {
		t['0'+i] = i
	}
	for i := range byte(6) {
		t['a'+i], t['A'+i] = 10+i, 10+i
	}
	return t
}()

// String is the canonical form, in lower case.
func (g GUID) String() string {
	var b [36]byte
	hex.Encode(b[:8], g[:4])
	hex.Encode(b[9:13], g[4:6])
	hex.Encode(b[14:18], g[6:8])
	hex.Encode(b[19:23], g[8:10])
	hex.Encode(b[24:], g[10:])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// MarshalText implements [encoding.TextMarshaler].
func (g GUID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// IsZero says that there is none.
func (g GUID) IsZero() bool { return g == GUID{} }
