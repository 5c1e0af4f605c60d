package agent_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent/agenttest"
	"wuamesh/agentproto/rules"
)

// A mesh is an authority and the token that lets hosts in.
type mesh struct {
	authority *x509.Certificate
	key       *ecdsa.PrivateKey
	token     agentproto.EnrollToken
}

func newMesh(t testing.TB) *mesh {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := &mesh{key: key}
	m.authority = m.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test mesh"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, key.Public())
	m.token = agentproto.NewEnrollToken(agentproto.Pin(m.authority))
	return m
}

func (m *mesh) sign(t testing.TB, c *x509.Certificate, public any) *x509.Certificate {
	return m.signFrom(t, time.Now().Add(-time.Hour), c, public)
}

// signFrom makes a certificate that holds for a year.
func (m *mesh) signFrom(t testing.TB, from time.Time, c *x509.Certificate, public any) *x509.Certificate {
	c.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<62))
	c.NotBefore, c.NotAfter = from, from.AddDate(1, 0, 0)
	parent := m.authority
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, m.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// A node is a small one: it keeps what agents say in memory. Its fields are
// for the test to set and look at, under mu.
type node struct {
	t    testing.TB
	mesh *mesh
	name string
	*httptest.Server

	mu       sync.Mutex
	policy   rules.Policy
	files    map[string][]byte
	away     map[string]bool  // 503
	cut      map[string][]int // how many bytes of it each answer sends before the line is cut
	dies     bool             // with the first of them: nothing is answered any more
	dead     bool
	nodes    []string // told at check-in
	only     bool     // and that no other may be asked
	commands []agentproto.Command
	closed   bool          // refuses to let hosts in without approval
	early    time.Duration // by which the clock of hosts is behind: certificates begin so much later
	gone     bool          // does not know the host any more
	off      time.Duration // by which the clock of hosts is ahead of the one it says; negative: behind
	silent   bool          // about its clock, as nodes were once

	enrolled  int
	checkins  []agentproto.Checkin
	reports   []agentproto.Report
	statuses  []agentproto.Status
	known     map[agentproto.UpdateRef]agentproto.Update
	results   agentproto.Results
	fetched   map[string]int   // requests
	sent      map[string]int64 // bytes
	listeners map[chan agentproto.Event]bool
	changed   chan struct{} // closed and made anew with every request that ended
}

// touch wakes whoever waits for the node to have seen something.
func (n *node) touch() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.changed)
	n.changed = make(chan struct{})
}

func (m *mesh) node(t testing.TB, name string) *node {
	t.Helper()
	return m.nodeFrom(t, name, time.Now().Add(-time.Hour))
}

// nodeFrom is a node whose certificate holds for a year from then.
func (m *mesh) nodeFrom(t testing.TB, name string, from time.Time) *node {
	t.Helper()
	n := &node{
		t: t, mesh: m, name: name, files: map[string][]byte{}, away: map[string]bool{}, cut: map[string][]int{},
		known: map[agentproto.UpdateRef]agentproto.Update{}, fetched: map[string]int{}, sent: map[string]int64{}, listeners: map[chan agentproto.Event]bool{},
		changed: make(chan struct{}),
	}
	for _, u := range agenttest.Updates(30) {
		for _, f := range u.Files {
			n.files[f.Name] = agenttest.Content(f.Name)
		}
	}
	n.files[agentproto.ScanCabName] = bytes.Repeat([]byte("MSCF scan cab 1\n"), 4000)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := m.signFrom(t, from, &x509.Certificate{DNSNames: []string{agentproto.AgentServerName, agentproto.EnrollServerName}, Subject: pkix.Name{CommonName: name}}, key.Public())
	pool := x509.NewCertPool()
	pool.AddCert(m.authority)
	plain := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw, m.authority.Raw}, PrivateKey: key}}, MinVersion: tls.VersionTLS13}
	mutual := plain.Clone()
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, pool
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+agentproto.PathEnroll, n.enroll)
	mux.HandleFunc("POST "+agentproto.PathCheckin, n.checkin)
	mux.HandleFunc("POST "+agentproto.PathReport, n.report)
	mux.HandleFunc("POST "+agentproto.PathResults, n.result)
	mux.HandleFunc("GET "+agentproto.PathEvents, n.events)
	mux.HandleFunc("GET "+agentproto.PathFolder+"{name}", n.folder)
	n.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer n.touch()
		n.mu.Lock()
		dead := n.dead
		n.mu.Unlock()
		if dead {
			panic(http.ErrAbortHandler)
		}
		mux.ServeHTTP(w, r)
	}))
	n.TLS = plain
	plain.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if h.ServerName == agentproto.AgentServerName {
			return mutual, nil
		}
		return nil, nil
	}
	n.Config.ErrorLog = log.New(io.Discard, "", 0)
	n.StartTLS()
	t.Cleanup(n.stop)
	return n
}

func (n *node) stop() {
	n.mu.Lock()
	for l := range n.listeners {
		close(l)
	}
	n.listeners = map[chan agentproto.Event]bool{}
	n.mu.Unlock()
	n.CloseClientConnections()
	n.Close()
}

func (n *node) read(w http.ResponseWriter, r *http.Request, m agentproto.Message) bool {
	if err := agentproto.DecodeRequest(r, agentproto.MaxReportBytes, m); err != nil {
		n.t.Errorf("%s refuses %s: %v", n.name, r.URL.Path, err)
		agentproto.WriteProblem(w, agentproto.Problem{Title: err.Error(), Status: http.StatusBadRequest})
		return false
	}
	return true
}

func (n *node) write(w http.ResponseWriter, m agentproto.Message) {
	if err := m.Validate(); err != nil {
		n.t.Errorf("%s answers wrongly: %v", n.name, err)
	}
	json.NewEncoder(w).Encode(m)
}

func (n *node) enroll(w http.ResponseWriter, r *http.Request) {
	var q agentproto.EnrollRequest
	if !n.read(w, r, &q) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if q.Token != n.mesh.token.String() && n.closed {
		n.write(w, agentproto.EnrollResponse{Pending: true, Wait: agentproto.Duration(5 * time.Second)})
		return
	}
	csr, err := x509.ParseCertificateRequest(q.CSR)
	if err != nil || csr.CheckSignature() != nil || csr.Subject.CommonName != string(q.Host) {
		n.t.Errorf("certificate request: %v", err)
	}
	n.enrolled++
	n.gone = false
	cert := n.mesh.signFrom(n.t, time.Now().Add(n.early-time.Hour), &x509.Certificate{Subject: csr.Subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, csr.PublicKey)
	n.write(w, agentproto.EnrollResponse{Certificate: cert.Raw, Authority: n.mesh.authority.Raw, Node: n.name})
}

func (n *node) checkin(w http.ResponseWriter, r *http.Request) {
	var k agentproto.Checkin
	if !n.read(w, r, &k) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone {
		agentproto.WriteProblem(w, agentproto.Problem{Title: "This host is not known.", Status: http.StatusUnauthorized})
		return
	}
	n.checkins = append(n.checkins, k)
	resp := agentproto.CheckinResponse{Node: n.name, PolicyHash: n.policy.Hash(), Commands: n.commands, Nodes: n.nodes, Placed: n.only, Only: n.only, Next: agentproto.Duration(time.Hour)}
	if k.Policy != resp.PolicyHash {
		p := n.policy
		resp.Policy = &p
	}
	if !n.silent {
		resp.Now = time.Now().Add(-n.off).UTC().Truncate(time.Millisecond)
	}
	if cab, ok := n.files[agentproto.ScanCabName]; ok {
		resp.Cab = &agentproto.CabRef{SHA256: sum256(cab), Size: int64(len(cab)), Date: time.Now()}
	}
	resp.Resend = k.Statuses != "" && k.Statuses != agentproto.HashStatuses(n.statuses)
	n.write(w, resp)
}

func (n *node) report(w http.ResponseWriter, r *http.Request) {
	var q agentproto.Report
	if !n.read(w, r, &q) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reports = append(n.reports, q)
	for _, u := range q.Updates {
		n.known[agentproto.UpdateRef{ID: u.ID, Revision: u.Revision}] = u
	}
	var resp agentproto.ReportResponse
	if q.Scan != nil {
		n.statuses = q.Statuses
		if agentproto.HashStatuses(q.Statuses) != q.Hash {
			n.t.Errorf("the hash of a report is of other statuses")
		}
		for _, s := range q.Statuses {
			if ref := (agentproto.UpdateRef{ID: s.ID, Revision: s.Revision}); n.known[ref].ID == "" {
				resp.Lacks = append(resp.Lacks, ref)
			}
		}
	}
	n.write(w, resp)
}

func (n *node) result(w http.ResponseWriter, r *http.Request) {
	var q agentproto.Results
	if !n.read(w, r, &q) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.results.Commands = append(n.results.Commands, q.Commands...)
	n.results.Installs = append(n.results.Installs, q.Installs...)
	w.WriteHeader(http.StatusNoContent)
}

func (n *node) events(w http.ResponseWriter, r *http.Request) {
	l := make(chan agentproto.Event, 10)
	n.mu.Lock()
	n.listeners[l] = true
	n.mu.Unlock()
	n.touch()
	defer func() {
		n.mu.Lock()
		delete(n.listeners, l)
		n.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	io.WriteString(w, ": hello\n\n")
	http.NewResponseController(w).Flush()
	for {
		select {
		case e, ok := <-l:
			if !ok {
				return
			}
			if err := agentproto.WriteEvent(w, e.Name, json.RawMessage(e.Data)); err != nil {
				return
			}
			http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// tell sends an event to every agent that listens.
func (n *node) tell(name string, data any) {
	b, err := json.Marshal(data)
	if err != nil {
		n.t.Fatal(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.listeners {
		l <- agentproto.Event{Name: name, Data: b}
	}
}

func (n *node) folder(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	n.mu.Lock()
	b, ok := n.files[name]
	away, cut := n.away[name], 0
	if list := n.cut[name]; len(list) > 0 && !away {
		cut, n.cut[name] = list[0], list[1:]
	}
	n.fetched[name]++
	n.mu.Unlock()
	switch {
	case away:
		w.Header().Set("Retry-After", "1")
		agentproto.WriteProblem(w, agentproto.Problem{Title: "The file is on its way.", Status: http.StatusServiceUnavailable})
		return
	case !ok:
		agentproto.WriteProblem(w, agentproto.Problem{Title: "No such file.", Status: http.StatusNotFound})
		return
	}
	w.Header().Set("ETag", `"`+sum256(b)[:16]+`"`)
	c := &counter{ResponseWriter: w, cut: cut}
	defer func() {
		n.mu.Lock()
		n.sent[name] += c.n
		n.dead = n.dead || cut > 0 && n.dies
		n.mu.Unlock()
		if cut > 0 {
			panic(http.ErrAbortHandler)
		}
	}()
	http.ServeContent(c, r, name, time.Time{}, bytes.NewReader(b))
}

// A counter counts what is sent of a file, and stops at cut if that is set.
type counter struct {
	http.ResponseWriter
	n   int64
	cut int
}

func (c *counter) Write(p []byte) (int, error) {
	if c.cut > 0 && c.n+int64(len(p)) > int64(c.cut) {
		p = p[:max(0, int64(c.cut)-c.n)]
	}
	n, err := c.ResponseWriter.Write(p)
	c.n += int64(n)
	if c.cut > 0 && c.n >= int64(c.cut) {
		http.NewResponseController(c.ResponseWriter).Flush()
		return n, io.ErrShortWrite
	}
	return n, err
}

func sum256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// look runs f while nothing else touches the node.
func (n *node) look(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// allow makes a policy that allows these articles and no others.
func allow(s rules.Settings, kbs ...string) rules.Policy {
	p := rules.Package{Name: "tests", Maturity: rules.Prod}
	for _, kb := range kbs {
		p.Lines = append(p.Lines, rules.Line{Verb: rules.Allow, Kind: rules.ByKB, Value: kb})
	}
	return rules.Policy{Settings: s, Packages: []rules.Package{p}}
}

// until waits until ok, which is called under the node's lock after every
// request.
func (n *node) until(what string, ok func() bool) {
	n.t.Helper()
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	for {
		n.mu.Lock()
		done, changed := ok(), n.changed
		n.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-late.C:
			n.mu.Lock()
			defer n.mu.Unlock()
			n.t.Fatalf("%s: %s did not happen; statuses %+v, results %+v, fetched %v", n.name, what, n.statuses, n.results, slices.Sorted(maps.Keys(n.fetched)))
		}
	}
}

// status returns what the host last reported of an update.
func (n *node) status(id rules.UpdateID) (s agentproto.Status, ok bool) {
	i := slices.IndexFunc(n.statuses, func(s agentproto.Status) bool { return s.ID == id })
	if i < 0 {
		return s, false
	}
	return n.statuses[i], true
}
