package authenticode_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wuamesh/appliance/microsoft/authenticode"
	"wuamesh/appliance/microsoft/authenticode/authenticodetest"
	"wuamesh/appliance/microsoft/cab/cabtest"
)

var (
	today  = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	signed = time.Date(2026, 6, 9, 17, 0, 0, 0, time.UTC)
)

func plainCab(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	w := cabtest.NewWriter(&out, cabtest.LZX)
	for i := range 3 {
		if err := w.Create(fmt.Sprintf("c/%d", i), signed); err != nil {
			t.Fatal(err)
		}
		w.Write(bytes.Repeat([]byte("an update "), 5_000))
		if err := w.Folder(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func verify(b []byte, t authenticode.Trust) (*authenticode.Signature, error) {
	if t.Now.IsZero() {
		t.Now = today
	}
	return authenticode.VerifyCab(bytes.NewReader(b), int64(len(b)), t)
}

// judge is osslsigncode with an authority's keys as files.
type judge struct {
	t    *testing.T
	dir  string
	root []byte
}

func newJudge(t *testing.T, a *authenticodetest.Authority, s *authenticodetest.Signer) judge {
	t.Helper()
	j := judge{t, t.TempDir(), a.RootPEM()}
	cert, issuer, key := s.PEM()
	stamp, stampKey := a.TimestampPEM()
	for name, b := range map[string][]byte{"root": j.root, "cert": cert, "issuer": issuer, "key": key, "stamp": stamp, "stampkey": stampKey} {
		j.write(name+".pem", b)
	}
	return j
}

func (j judge) write(name string, b []byte) string {
	j.t.Helper()
	path := filepath.Join(j.dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		j.t.Fatal(err)
	}
	return path
}

func (j judge) file(name string) string { return filepath.Join(j.dir, name) }

// sign has osslsigncode sign a cabinet at a time, with a time stamp or without.
func (j judge) sign(cab []byte, at time.Time, stamp bool) []byte {
	j.t.Helper()
	in, out := j.write("in.cab", cab), j.file("out.cab")
	os.Remove(out)
	args := []string{"sign", "-certs", j.file("cert.pem"), "-ac", j.file("issuer.pem"), "-key", j.file("key.pem"), "-h", "sha256", "-time", fmt.Sprint(at.Unix()), "-in", in, "-out", out}
	if stamp {
		args = append(args, "-TSA-certs", j.file("stamp.pem"), "-TSA-key", j.file("stampkey.pem"), "-TSA-time", fmt.Sprint(at.Unix()))
	}
	if b, err := exec.Command("osslsigncode", args...).CombinedOutput(); err != nil {
		j.t.Fatalf("osslsigncode (./packaging/check installs it): %v\n%s", err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		j.t.Fatal(err)
	}
	return b
}

// verify asks osslsigncode about a cabinet, at a time.
func (j judge) verify(cab []byte, at time.Time) error {
	out, err := exec.Command("osslsigncode", "verify", "-CAfile", j.file("root.pem"), "-TSA-CAfile", j.file("root.pem"), "-time", fmt.Sprint(at.Unix()), "-in", j.write("judged.cab", cab)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// TestSignatures has each of the two judge what the other signed.
func TestSignatures(t *testing.T) {
	a := authenticodetest.NewAuthority(1)
	s := a.Signer(authenticodetest.SignerOptions{})
	j := newJudge(t, a, s)
	ours := s.SignCab(plainCab(t))
	theirs := j.sign(plainCab(t), signed, false)
	stamped := j.sign(plainCab(t), signed, true)
	trust := authenticode.Trust{Others: ourRoots(a)}
	for name, b := range map[string][]byte{"ours": ours, "theirs": theirs, "stamped": stamped} {
		if err := j.verify(b, today); err != nil {
			t.Errorf("osslsigncode about %s: %v", name, err)
		}
		sig, err := verify(b, trust)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(sig.Chain) != 3 || !strings.Contains(sig.Signer(), "Microsoft Corporation") || sig.Root() != a.Root().Subject.CommonName {
			t.Errorf("%s: signed by %s below %s", name, sig.Signer(), sig.Root())
		}
		if want := name == "stamped"; sig.Timestamp.Equal(signed) != want {
			t.Errorf("%s: time stamp %v", name, sig.Timestamp)
		}
	}
	if one, _ := verify(ours, trust); one == nil {
		t.Fatal("no signature to compare")
	} else if two, err := verify(theirs, trust); err != nil || !bytes.Equal(one.Imprint, two.Imprint) {
		t.Errorf("one content has two imprints: %x, %x", one.Imprint, two.Imprint)
	}
}

func ourRoots(list ...*authenticodetest.Authority) (roots []*x509.Certificate) {
	for _, a := range list {
		roots = append(roots, a.Root())
	}
	return roots
}

// TestRefused is each way a signature can be wrong.
func TestRefused(t *testing.T) {
	a := authenticodetest.NewAuthority(1)
	good := a.Signer(authenticodetest.SignerOptions{})
	j := newJudge(t, a, good)
	cab := plainCab(t)
	sealed := j.sign(cab, signed, true)
	short := a.Signer(authenticodetest.SignerOptions{NotBefore: signed.AddDate(0, -1, 0), NotAfter: signed.AddDate(0, 1, 0)})
	shortJudge := newJudge(t, a, short)
	stripped := j.write("stripped.in", sealed)
	if out, err := exec.Command("osslsigncode", "remove-signature", "-in", stripped, "-out", j.file("stripped.cab")).CombinedOutput(); err != nil {
		t.Fatalf("osslsigncode: %v\n%s", err, out)
	}
	bare, err := os.ReadFile(j.file("stripped.cab"))
	if err != nil {
		t.Fatal(err)
	}
	trust := authenticode.Trust{Others: ourRoots(a)}
	stranger := authenticode.Trust{Others: ourRoots(authenticodetest.NewAuthority(2))}
	asMicrosoft := authenticode.Trust{Microsoft: ourRoots(a)}
	for _, tt := range []struct {
		name  string
		cab   []byte
		trust authenticode.Trust
		want  error
	}{
		{"signed", sealed, trust, nil},
		{"never signed", cab, trust, authenticode.ErrUnsigned},
		{"stripped", bare, trust, authenticode.ErrUnsigned},
		{"empty", nil, trust, authenticode.ErrNoCabinet},
		{"no cabinet", bytes.Repeat([]byte("MZ"), 500), trust, authenticode.ErrNoCabinet},
		{"cut", sealed[:len(sealed)-1], trust, authenticode.ErrAltered},
		{"appended", append(bytes.Clone(sealed), 0), trust, authenticode.ErrAltered},
		{"other root", sealed, stranger, authenticode.ErrUntrusted},
		{"no root", sealed, authenticode.Trust{}, authenticode.ErrUntrusted},
		{"Microsoft's roots", sealed, authenticode.Trust{Microsoft: authenticode.MicrosoftRoots()}, authenticode.ErrUntrusted},
		{"expired, no time stamp", shortJudge.sign(cab, signed, false), trust, authenticode.ErrExpired},
		{"expired, time stamp", shortJudge.sign(cab, signed, true), trust, nil},
		{"time stamp after the end", shortJudge.sign(cab, today, true), trust, authenticode.ErrExpired},
		{"not for code", a.Signer(authenticodetest.SignerOptions{Usage: x509.ExtKeyUsageServerAuth}).SignCab(cab), trust, authenticode.ErrUsage},
		{"a neighbour below Microsoft's root", a.Signer(authenticodetest.SignerOptions{Organization: "Contoso"}).SignCab(cab), asMicrosoft, authenticode.ErrPublisher},
		{"Microsoft below its root", sealed, asMicrosoft, nil},
		{"a mirror below its own root", a.Signer(authenticodetest.SignerOptions{Organization: "Contoso"}).SignCab(cab), trust, nil},
	} {
		if _, err := verify(tt.cab, tt.trust); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestAltered changes a byte of every region. What is neither covered nor
// used is the same list as osslsigncode's.
func TestAltered(t *testing.T) {
	a := authenticodetest.NewAuthority(1)
	j := newJudge(t, a, a.Signer(authenticodetest.SignerOptions{}))
	b := j.sign(plainCab(t), signed, true)
	le := binary.LittleEndian
	end, files, data := int(le.Uint32(b[8:])), int(le.Uint32(b[16:])), int(le.Uint32(b[60:]))
	trust := authenticode.Trust{Others: ourRoots(a)}
	regions := map[string][2]int{
		"magic": {0, 4}, "reserved": {4, 8}, "size": {8, 12}, "tables' place": {12, 24}, "version": {24, 26}, "counts": {26, 30}, "flags": {30, 32}, "set": {32, 36},
		"reserved sizes": {36, 40}, "signature's marks": {40, 44}, "signature's place": {44, 52}, "signature's tail": {52, 60}, "folders": {60, files}, "files": {files, data},
		"data": {data, end}, "signature": {end, end + 200}, "certificates": {end + 400, end + 1200}, "time stamp": {len(b) - 300, len(b) - 8},
	}
	for name, r := range regions {
		for i := r[0]; i < r[1]; i += max(1, (r[1]-r[0])/12) {
			x := bytes.Clone(b)
			x[i] ^= 0x11
			sig, err := verify(x, trust)
			uncovered := i == 34 || i == 35                                   // the number in a set
			unstamped := err == nil && i > len(b)/2 && sig.Timestamp.IsZero() // an authority nobody knows: as without a time stamp
			if (err == nil) != uncovered && !unstamped {
				t.Errorf("%s, byte %d changed: %v", name, i, err)
			}
			if err == nil && !unstamped && j.verify(x, today) != nil {
				t.Errorf("%s, byte %d changed: osslsigncode refuses it, we do not", name, i)
			}
		}
	}
}

// TestRSA verifies what Microsoft uses: RSA, all the way up.
func TestRSA(t *testing.T) {
	key := func() *rsa.PrivateKey {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	rootKey, leafKey := key(), key()
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "R"}, NotBefore: signed, NotAfter: today.AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "L"}, NotBefore: signed, NotAfter: today.AddDate(1, 0, 0), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, leafKey.Public(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	j := judge{t: t, dir: t.TempDir()}
	for name, b := range map[string]*pem.Block{"root": {Type: "CERTIFICATE", Bytes: rootDER}, "issuer": {Type: "CERTIFICATE", Bytes: rootDER}, "cert": {Type: "CERTIFICATE", Bytes: leafDER}, "key": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		j.write(name+".pem", pem.EncodeToMemory(b))
	}
	cert, err := x509.ParseCertificate(rootDER)
	if err != nil {
		t.Fatal(err)
	}
	if sig, err := verify(j.sign(plainCab(t), signed.Add(time.Hour), false), authenticode.Trust{Others: []*x509.Certificate{cert}}); err != nil {
		t.Error(err)
	} else if len(sig.Chain) != 2 {
		t.Errorf("a chain of %d", len(sig.Chain))
	}
}

// TestMicrosoftRoots holds the embedded roots against the fingerprints in
// DESIGN.md, and their own signatures.
func TestMicrosoftRoots(t *testing.T) {
	want := map[string]string{
		"Microsoft Root Certificate Authority 2010": "df545bf919a2439c36983b54cdfc903dfa4f37d3996d8d84b4c31eec6f3c163e",
		"Microsoft Root Certificate Authority 2011": "847df6a78497943f27fc72eb93f9a637320a02b561d0a91b09e87a7807ed7c61",
	}
	for _, c := range authenticode.MicrosoftRoots() {
		if got := fmt.Sprintf("%x", authenticode.Fingerprint(c)); got != want[c.Subject.CommonName] {
			t.Errorf("%s has SHA-256 %s", c.Subject.CommonName, got)
		}
		if err := c.CheckSignatureFrom(c); err != nil {
			t.Errorf("%s: %v", c.Subject.CommonName, err)
		}
		delete(want, c.Subject.CommonName)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

// FuzzVerifyCab never believes changed bytes, and never crashes on any.
func FuzzVerifyCab(f *testing.F) {
	a := authenticodetest.NewAuthority(1)
	good := a.Signer(authenticodetest.SignerOptions{}).SignCab(plainCab(f))
	end := int(binary.LittleEndian.Uint32(good[8:]))
	f.Add(good[end:])
	f.Add([]byte{0x30, 0x82, 0x01, 0x00})
	trust := authenticode.Trust{Others: ourRoots(a), Now: today}
	f.Fuzz(func(t *testing.T, message []byte) {
		b := append(bytes.Clone(good[:end]), message...)
		binary.LittleEndian.PutUint32(b[48:], uint32(len(message)))
		sig, err := verify(b, trust)
		if err == nil && !bytes.Contains(message, sig.Chain[0].Raw) {
			t.Error("believed without the signer's certificate")
		}
		b[len(b)-len(message)-1] ^= 1 // other data under whatever message
		if _, err := verify(b, trust); err == nil {
			t.Error("changed data are believed")
		}
	})
}

// BenchmarkVerifyCab reads 64 MB.
func BenchmarkVerifyCab(b *testing.B) {
	var out bytes.Buffer
	w := cabtest.NewWriter(&out, cabtest.None)
	if err := w.Create("c/1", signed); err != nil {
		b.Fatal(err)
	}
	w.Write(make([]byte, 64<<20))
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	a := authenticodetest.NewAuthority(1)
	cab := a.Signer(authenticodetest.SignerOptions{}).SignCab(out.Bytes())
	b.SetBytes(int64(len(cab)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := verify(cab, authenticode.Trust{Others: ourRoots(a)}); err != nil {
			b.Fatal(err)
		}
	}
}
