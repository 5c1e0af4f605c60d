package appliance_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/api"
	"wuamesh/appliance/microsoft/microsofttest"
)

var owner = appliance.Actor{Name: "maelle", Role: appliance.Owner}

// A site is a node that runs, and the Microsoft it asks.
type site struct {
	*appliance.Appliance
	world *microsofttest.World
	dir   string
	stop  func() // ends and closes the node
}

// start runs a real node on port 0 with a stand-in for Microsoft.
func start(t testing.TB, change func(*appliance.Config)) *site {
	t.Helper()
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 2, FileBytes: 200_000})
	srv := httptest.NewServer(world)
	t.Cleanup(srv.Close)
	return startIn(t, t.TempDir(), world, srv.URL, change)
}

func startIn(t testing.TB, dir string, world *microsofttest.World, upstream string, change func(*appliance.Config)) *site {
	t.Helper()
	cfg := appliance.DevConfig()
	cfg.Name, cfg.Data, cfg.Folder = "rns-01", filepath.Join(dir, "data"), filepath.Join(dir, "waptwua")
	cfg.ListenHTTPS, cfg.ListenHTTP = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Upstream, cfg.DiskFloor = upstream, 0
	if world != nil {
		cfg.Roots = []string{rootFile(t, world)}
	}
	if change != nil {
		change(&cfg)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	node, err := appliance.Open(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx, api.New(node, log)) }()
	ended := false
	s := &site{Appliance: node, world: world, dir: dir, stop: func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
		if err := node.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}}
	t.Cleanup(s.stop)
	return s
}

// rootFile is the file of the root that signs a world's scan cab.
func rootFile(t testing.TB, world *microsofttest.World) string {
	t.Helper()
	path, err := world.RootFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// eventually waits until ok says so, and fails the test with what it says
// after a minute, which a machine that does much else may need.
func eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if err = ok(); err == nil {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// A machine is a host that speaks the agents' protocol by hand.
type machine struct {
	*agentproto.Client
	id   agentproto.HostID
	name string
	cert tls.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func (s *site) enrolToken(t testing.TB, uses int) string {
	t.Helper()
	_, token, err := s.MakeToken(t.Context(), owner, appliance.TokenOptions{Name: "test", Use: appliance.ForEnroll, Uses: uses, Expires: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func hostID(n int) agentproto.HostID {
	return agentproto.HostID(fmt.Sprintf("00000000-0000-4000-8000-%012d", n))
}

// enrol makes host n with a token.
func (s *site) enrol(t testing.TB, n int, token string) *machine {
	t.Helper()
	return enrolAt(t, s.URL(), s.Pin(), n, token)
}

func enrolAt(t testing.TB, url, pin string, n int, token string) *machine {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m, resp, err := askAt(t, url, pin, n, token, key)
	if err != nil || resp.Pending {
		t.Fatalf("enrol host %d: %+v, %v", n, resp, err)
	}
	return m
}

// ask sends an enrolment of host n with that key.
func (s *site) ask(t testing.TB, n int, token string, key *ecdsa.PrivateKey) (*machine, agentproto.EnrollResponse, error) {
	t.Helper()
	return askAt(t, s.URL(), s.Pin(), n, token, key)
}

func askAt(t testing.TB, url, pin string, n int, token string, key *ecdsa.PrivateKey) (*machine, agentproto.EnrollResponse, error) {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := agentproto.NewClient(agentproto.ClientOptions{Nodes: []string{url}, Pin: pin, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := &machine{id: hostID(n), key: key, name: fmt.Sprintf("BRS-WKS-%04d", n)}
	resp, err := c.Enroll(t.Context(), agentproto.EnrollRequest{Protocol: 1, Agent: "test", Host: m.id, Token: token, CSR: csr, Facts: m.facts()})
	if err != nil || resp.Pending {
		return nil, resp, err
	}
	m.cert = tls.Certificate{Certificate: [][]byte{resp.Certificate, resp.Issuer}, PrivateKey: key}
	ca, err := x509.ParseCertificate(resp.Authority)
	if err != nil {
		t.Fatal(err)
	}
	m.pool = x509.NewCertPool()
	m.pool.AddCert(ca)
	m.connect(t, url)
	return m, resp, nil
}

func (m *machine) connect(t testing.TB, url string) {
	t.Helper()
	var err error
	m.Client, err = agentproto.NewClient(agentproto.ClientOptions{Nodes: []string{url}, Certificate: &m.cert, Authority: m.pool, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
}

func (m *machine) facts() agentproto.Facts {
	return agentproto.Facts{Name: m.name, OS: "Windows 11 Pro 25H2", Build: "10.0.26200.7019", Arch: "amd64"}
}

func (m *machine) checkin(t testing.TB) agentproto.CheckinResponse {
	t.Helper()
	resp, err := m.Checkin(t.Context(), agentproto.Checkin{Protocol: 1, Agent: "test", Facts: m.facts(), Settings: rules.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// report sends statuses and then the descriptions the node lacks.
func (m *machine) report(t testing.TB, list []agentproto.Status, describe map[rules.UpdateID]agentproto.Update) {
	t.Helper()
	resp, err := m.Report(t.Context(), scanOf(list))
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Lacks) == 0 {
		return
	}
	rep := agentproto.Report{Protocol: 1}
	for _, ref := range resp.Lacks {
		rep.Updates = append(rep.Updates, describe[ref.ID])
	}
	if resp, err = m.Report(t.Context(), rep); err != nil || len(resp.Lacks) > 0 {
		t.Fatalf("after the descriptions the node lacks %v: %v", resp.Lacks, err)
	}
}

func scanOf(list []agentproto.Status) agentproto.Report {
	return agentproto.Report{
		Protocol: 1, Statuses: list, Hash: agentproto.HashStatuses(list),
		Scan: &agentproto.Scan{Started: time.Now().UTC(), Took: agentproto.Duration(time.Minute)},
	}
}

// described are the stand-in's updates as a host reports them.
func described(w *microsofttest.World) (list []agentproto.Update, byID map[rules.UpdateID]agentproto.Update) {
	byID = map[rules.UpdateID]agentproto.Update{}
	for _, u := range w.Updates() {
		d := agentproto.Update{
			ID: rules.UpdateID(u.ID), Revision: u.Revision, Title: u.Title, KBs: []string{u.KB}, Severity: rules.Severity(u.Severity), Published: u.Published, CVEs: u.CVEs, Restart: u.Restart,
			Classification: agentproto.Category{ID: rules.CategoryID(u.Classification.ID), Title: u.Classification.Title},
		}
		for _, p := range u.Products {
			d.Products = append(d.Products, agentproto.Category{ID: rules.CategoryID(p.ID), Title: p.Title})
		}
		for _, id := range u.Supersedes {
			d.Supersedes = append(d.Supersedes, rules.UpdateID(id))
		}
		for _, f := range u.Files {
			d.Files = append(d.Files, agentproto.File{Name: f.Name, URL: f.URL, Size: f.Size, SHA1: f.SHA1, SHA256: f.SHA256})
		}
		list = append(list, d)
		byID[d.ID] = d
	}
	return list, byID
}

func needs(list ...agentproto.Update) (statuses []agentproto.Status) {
	for _, u := range list {
		statuses = append(statuses, agentproto.Status{ID: u.ID, Revision: u.Revision})
	}
	return statuses
}

// state is one update on one host, as the page says it.
func (s *site) state(t testing.TB, m *machine, u agentproto.Update) appliance.Why {
	t.Helper()
	w, err := s.Why(t.Context(), m.id, u.ID)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// insecure is a browser that looks away from certificates.
func insecure() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func secretOf(t testing.TB, link string) string {
	t.Helper()
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("secret")
}
