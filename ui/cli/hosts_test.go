package cli_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// enrol lets a host into a node as its agent would, and checks in.
func enrol(t *testing.T, data, url string, k agentproto.Checkin) {
	t.Helper()
	out, said, code := run(t, "token", "enroll", "--uses", "1", "--data", data)
	token, err := agentproto.ParseEnrollToken(strings.Fields(out + " -")[0])
	if code != 0 || err != nil {
		t.Fatalf("exit %d, %v, %s%s", code, err, out, said)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	csr, cerr := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	log := slog.New(slog.DiscardHandler)
	c, nerr := agentproto.NewClient(agentproto.ClientOptions{Nodes: []string{url}, Pin: token.Pin, Log: log})
	if err := errors.Join(err, cerr, nerr); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := c.Enroll(t.Context(), agentproto.EnrollRequest{Protocol: 1, Agent: "1.0", Host: "00000000-0000-4000-8000-000000000001", Token: token.String(), CSR: csr, Facts: k.Facts})
	if err != nil {
		t.Fatal(err)
	}
	authority, err := x509.ParseCertificate(r.Authority)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	own, err := agentproto.NewClient(agentproto.ClientOptions{
		Nodes: []string{url}, Authority: pool, Log: log, Certificate: &tls.Certificate{Certificate: [][]byte{r.Certificate, r.Issuer}, PrivateKey: key},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	k.Protocol, k.Agent, k.Settings = 1, "1.0", rules.DefaultSettings()
	if _, err := own.Checkin(t.Context(), k); err != nil {
		t.Fatal(err)
	}
}

// TestErrorsOfAHost prints what last went wrong on a host, with cause and remedy.
func TestErrorsOfAHost(t *testing.T) {
	data, url := nodeAt(t)
	enrol(t, data, url, agentproto.Checkin{
		Facts: agentproto.Facts{Name: "BRS-WKS-0001", OS: "Windows 11 Pro 25H2", Build: "10.0.26200.7019", Arch: "amd64"},
		Errors: []agentproto.Failure{
			{At: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), Doing: "scan", HResult: 0x8007000E, Text: "Search: 0x8007000E", Times: 3},
			{Doing: "contact with the mesh", Text: "check in: no answer"},
		},
		Clock: &agentproto.ClockOff{Node: "rns-01", Off: agentproto.Duration(3 * time.Hour)},
	})
	for _, tt := range []struct {
		args string
		code int
		want []string
	}{
		{"hosts BRS-WKS-0001", 0, []string{"STATE", "The clock of this host is 3 hours ahead of that of the node rns-01. ", "w32tm /resync", "Last errors, by the host's own clock", "Search: 0x8007000E", "E_OUTOFMEMORY", "Close programs", "check in: no answer"}},
		{"hosts BRS-WKS-0001 --errors", 0, []string{"MEANING", "E_OUTOFMEMORY", "unknown"}},
		{"hosts BRS-WKS-0001 --errors --json", 0, []string{`"doing": "scan"`, `"times": 3`, `"remedy": "Close programs or give the host more memory."`}},
		{"hosts --errors", 2, []string{"--errors is of one HOST"}},
	} {
		out, said, code := run(t, append(strings.Fields(tt.args), "--data", data)...)
		for _, w := range tt.want {
			if code != tt.code || !strings.Contains(out+said, w) {
				t.Errorf("%s: exit %d, without %q:\n%s%s", tt.args, code, w, out, said)
			}
		}
	}
}
