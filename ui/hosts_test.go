package ui_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

var owner = appliance.Actor{Name: "rig", Role: appliance.Owner}

// enrol lets a host into the node and reports what it needs and has, as its
// agent would; n makes its HostID.
func (a *admin) enrol(n int, f agentproto.Facts, statuses []agentproto.Status, describe ...agentproto.Update) agentproto.HostID {
	a.t.Helper()
	return a.enrolSaying(n, agentproto.Checkin{Facts: f}, statuses, describe...)
}

// enrolSaying is enrol of a host whose check-in says more than facts.
func (a *admin) enrolSaying(n int, k agentproto.Checkin, statuses []agentproto.Status, describe ...agentproto.Update) agentproto.HostID {
	t, f := a.t, k.Facts
	t.Helper()
	_, token, err := a.node.MakeToken(t.Context(), owner, appliance.TokenOptions{Name: "rig", Use: appliance.ForEnroll, Uses: 1, Expires: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	log, id := slog.New(slog.DiscardHandler), agentproto.HostID(fmt.Sprintf("00000000-0000-4000-8000-%012d", n))
	c, err := agentproto.NewClient(agentproto.ClientOptions{Nodes: []string{a.node.URL()}, Pin: a.node.Pin(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	resp, err := c.Enroll(t.Context(), agentproto.EnrollRequest{Protocol: 1, Agent: "1.0", Host: id, Token: token, CSR: csr, Facts: f})
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(resp.Authority)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	own, err := agentproto.NewClient(agentproto.ClientOptions{
		Nodes: []string{a.node.URL()}, Authority: pool, Log: log, Certificate: &tls.Certificate{Certificate: [][]byte{resp.Certificate, resp.Issuer}, PrivateKey: key},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	reports := []agentproto.Report{{Protocol: 1, Statuses: statuses, Hash: agentproto.HashStatuses(statuses), Scan: &agentproto.Scan{Started: time.Now().UTC(), Took: agentproto.Duration(time.Minute)}}}
	if len(describe) > 0 {
		reports = append(reports, agentproto.Report{Protocol: 1, Updates: describe})
	}
	if len(k.Errors) > 0 {
		k.Protocol, k.Agent, k.Settings = 1, "1.0", rules.DefaultSettings()
		if _, err := own.Checkin(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	for _, rep := range reports {
		if _, err := own.Report(t.Context(), rep); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

// invented is an update as a host describes it; n makes its ids.
func invented(n int, title string, severity rules.Severity) agentproto.Update {
	sum := fmt.Sprintf("%040x", n)
	name := fmt.Sprintf("windows-kb%d-x64_%s.cab", 5000000+n, sum)
	return agentproto.Update{
		ID: rules.UpdateID(fmt.Sprintf("10000000-0000-4000-8000-%012d", n)), Revision: 200, Title: title, KBs: []string{fmt.Sprint(5000000 + n)}, Severity: severity,
		Classification: agentproto.Category{ID: "0fa1201d-4330-4fa8-8ae9-b877473b6441", Title: "Security Updates"},
		Products:       []agentproto.Category{{ID: "72e7624a-5b00-45d2-b92f-e561c0a6a160", Title: "Windows 11"}},
		Published:      time.Date(2026, 11, 10, 18, 0, 0, 0, time.UTC), CVEs: []string{fmt.Sprintf("CVE-2026-%d", 10000+n)}, Restart: "maybe",
		Files: []agentproto.File{{Name: name, URL: "http://download.windowsupdate.com/d/msdownload/" + name, Size: int64(n) << 20, SHA1: sum}},
	}
}

func needs(list ...agentproto.Update) (statuses []agentproto.Status) {
	for _, u := range list {
		statuses = append(statuses, agentproto.Status{ID: u.ID, Revision: u.Revision})
	}
	return statuses
}

func pc(name string) agentproto.Facts {
	return agentproto.Facts{Name: name, FQDN: name + ".corp.example", Domain: "corp.example", OS: "Windows 11 Pro 25H2", Build: "10.0.26200.7019", Arch: "amd64", Addresses: []string{"10.35.1.20"}}
}
