package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// largest is what the agent may have, in bytes.
const largest = 12_000_000

// TestSizes builds the agent for every Windows there is.
func TestSizes(t *testing.T) {
	if testing.Short() {
		t.Skip("three builds")
	}
	for _, arch := range []string{"amd64", "arm64", "386"} {
		exe := filepath.Join(t.TempDir(), "wuamesh-agent.exe")
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.Version=0.1.0", "-o", exe, "wuamesh/agentproto/wuamesh-agent")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=windows", "GOARCH="+arch)
		if err := run(cmd); err != nil {
			t.Errorf("%s: %v", arch, err)
			continue
		}
		fi, err := os.Stat(exe)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%-5s %.1f MB", arch, float64(fi.Size())/1e6)
		if fi.Size() > largest {
			t.Errorf("the agent for %s has %d bytes, %d at most", arch, fi.Size(), largest)
		}
	}
}

// TestSigned builds the installer with a key that is thrown away, and has
// osslsigncode verify it and the program in it against that key alone.
func TestSigned(t *testing.T) {
	if testing.Short() {
		t.Skip("an installer is built")
	}
	t.Chdir("../../..") // where the command is run
	dir := t.TempDir()
	certs, key := signer(t, dir, "one")
	other, _ := signer(t, dir, "two")
	b := build{out: filepath.Join(dir, "agent.msi"), version: "0.1.0", certs: certs, key: key}
	if err := b.all(); err != nil {
		t.Fatal(err)
	}
	if err := run(exec.Command("msiextract", "-C", dir, b.out)); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "wuamesh-agent.exe")
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if filepath.Base(path) == filepath.Base(exe) {
			exe = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{b.out, exe} {
		if err := verify(path, certs); err != nil {
			t.Errorf("signed: %v", err)
		}
		if err := verify(path, other); err == nil {
			t.Errorf("%s verifies against the certificate of somebody else", path)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// A byte of the program's code, which both have.
		i := bytes.Index(content, []byte("Go build ID:"))
		if i < 0 {
			i = len(content) / 2
		}
		content[i] ^= 1
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := verify(path, certs); err == nil {
			t.Errorf("%s verifies with a byte altered", path)
		}
	}
}

func verify(path, certs string) error {
	return run(exec.Command("osslsigncode", "verify", "-CAfile", certs, "-in", path))
}

// signer makes a certificate for signing code that signs itself, and writes it
// and its key.
func signer(t *testing.T, dir, name string) (certs, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "signer " + name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	cert, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	certs, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for path, block := range map[string]*pem.Block{certs: {Type: "CERTIFICATE", Bytes: cert}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certs, key
}
