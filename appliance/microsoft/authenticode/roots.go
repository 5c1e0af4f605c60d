package authenticode

import (
	"crypto/sha256"
	"crypto/x509"
	"embed"
	"encoding/pem"
	"fmt"
	"io/fs"
)

//go:embed roots/*.pem
var rootFiles embed.FS

// MicrosoftRoots are the roots that sign what Microsoft publishes. How they
// were obtained, and their fingerprints, is in DESIGN.md.
func MicrosoftRoots() []*x509.Certificate {
	var list []*x509.Certificate
	names, err := fs.Glob(rootFiles, "roots/*.pem")
	for _, name := range names {
		var b []byte
		if b, err = rootFiles.ReadFile(name); err != nil {
			break
		}
		var more []*x509.Certificate
		if more, err = ParseRoots(b); err != nil {
			break
		}
		list = append(list, more...)
	}
	if err != nil {
		panic(err) // they are part of the program, and tested
	}
	return list
}

// ParseRoots reads certificates in PEM; there must be one at least.
func ParseRoots(b []byte) (list []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(list)+1, err)
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no certificate in PEM form")
	}
	return list, nil
}

// Fingerprint is a certificate's SHA-256, as tools show it.
func Fingerprint(c *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(c.Raw) }
