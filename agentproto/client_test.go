package agentproto_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wuamesh/agentproto"
)

// A place is a node that answers, or not.
type place struct {
	*httptest.Server
	asked  atomic.Int64
	status atomic.Int64 // of files; 0 is 200
	lost   atomic.Bool  // connections are closed at once
	names  []string     // with a status of 500 and more
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		switch {
		case p.lost.Load():
			panic(http.ErrAbortHandler)
		case r.URL.Path == agentproto.PathEvents:
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "event: hello\ndata: {}\n\n")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case p.status.Load() != 0:
			w.Header().Set("Retry-After", "7")
			agentproto.WriteProblem(w, agentproto.Problem{Title: "Not now.", Status: int(p.status.Load()), Nodes: p.names})
		default:
			io.WriteString(w, "content")
		}
	}))
	p.StartTLS()
	t.Cleanup(p.Close)
	return p
}

// clientOf asks the places in their order. All show httptest's certificate,
// which is for example.com.
func clientOf(t *testing.T, places ...*place) *agentproto.Client {
	t.Helper()
	pool := x509.NewCertPool()
	var nodes []string
	for _, p := range places {
		pool.AddCert(p.Certificate())
		nodes = append(nodes, p.URL)
	}
	c, err := agentproto.NewClient(agentproto.ClientOptions{Nodes: nodes, Authority: pool, Look: 20 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	agentproto.Named(c, "example.com")
	t.Cleanup(c.Close)
	return c
}

func fetch(t *testing.T, c *agentproto.Client) error {
	t.Helper()
	f, err := c.Fetch(t.Context(), "x.cab", 0, "")
	if err == nil {
		io.Copy(io.Discard, f.Body)
		f.Body.Close()
	}
	return err
}

// TestANodeThatIsAwayRests has the nearest node not answer: the next one does,
// and the first is not asked at every request from then on.
func TestANodeThatIsAwayRests(t *testing.T) {
	home, far := newPlace(t), newPlace(t)
	c := clientOf(t, home, far)
	home.lost.Store(true)
	for range 5 {
		if err := fetch(t, c); err != nil {
			t.Fatal(err)
		}
	}
	if n := far.asked.Load(); n != 5 || home.asked.Load() > 2 { // net/http may ask twice itself
		t.Errorf("the one that is away was asked %d times, the other %d", home.asked.Load(), n)
	}
	if list := c.Nodes(); list[0] != far.URL || list[1] != home.URL {
		t.Errorf("the order is %v", list)
	}
}

// TestAFileOnItsWayIsWaitedFor has the nearest node fetch a file that another
// one holds: the host waits for it, and does not take it from far.
func TestAFileOnItsWayIsWaitedFor(t *testing.T) {
	home, far := newPlace(t), newPlace(t)
	c := clientOf(t, home, far)
	home.status.Store(http.StatusServiceUnavailable)
	var away *agentproto.AwayError
	if err := fetch(t, c); !errors.As(err, &away) || away.After != 7*time.Second || far.asked.Load() > 0 {
		t.Errorf("%v; the far node was asked %d times", err, far.asked.Load())
	}
	home.status.Store(http.StatusBadGateway) // this one cannot, and will not
	if err := fetch(t, c); err != nil || far.asked.Load() != 1 {
		t.Errorf("%v; the far node was asked %d times", err, far.asked.Load())
	}
}

// TestComingHome streams events from the next node while the nearest is away.
// When that answers again, the stream ends, and the next one is from there.
func TestComingHome(t *testing.T) {
	home, far := newPlace(t), newPlace(t)
	c := clientOf(t, home, far)
	home.lost.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	hello := make(chan bool, 10)
	streams := make(chan error, 10)
	listen := func() {
		streams <- c.Events(ctx, func(agentproto.Event) error { hello <- true; return nil })
	}
	go listen()
	<-hello
	before := far.asked.Load()
	select {
	case err := <-streams:
		t.Fatalf("the stream ended while the nearest was away: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	home.lost.Store(false)
	if err := <-streams; ctx.Err() != nil || err == nil || !strings.Contains(err.Error(), "stream of events") {
		t.Fatalf("the stream to the far node ended with %v", err)
	}
	go listen()
	<-hello
	if far.asked.Load() != before || c.Nodes()[0] != home.URL {
		t.Errorf("the stream is from the far node again; the order is %v", c.Nodes())
	}
	cancel()
	<-streams
}

// TestClockOfTheHost has a node whose certificate does not hold by the clock of
// the host: the error says both times, and what to do.
func TestClockOfTheHost(t *testing.T) {
	year := 365 * 24 * time.Hour
	for name, from := range map[string]time.Time{"ahead": time.Now().Add(-3 * year), "behind": time.Now().Add(2 * year)} {
		t.Run(name, func(t *testing.T) {
			cert := selfSigned(t, from, from.Add(year))
			server := httptest.NewUnstartedServer(http.NotFoundHandler())
			server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.StartTLS()
			defer server.Close()
			pool := x509.NewCertPool()
			pool.AddCert(cert.Leaf)
			c, err := agentproto.NewClient(agentproto.ClientOptions{Nodes: []string{server.URL}, Authority: pool, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			agentproto.Named(c, "example.com")
			want := from.UTC().Format("holds from 2 Jan 2006 15:04 UTC to ")
			if err := fetch(t, c); err == nil || !strings.Contains(err.Error(), "the clock of this host says ") || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
}

// TestSentAwayWithNames has the only node that a host knows leave, and name
// others. The host goes there, and remembers: but not to one that is none of
// the mesh, nor to what is no address of a node.
func TestSentAwayWithNames(t *testing.T) {
	home, far, stranger := newPlace(t), newPlace(t), newPlace(t)
	stranger.TLS.Certificates = []tls.Certificate{selfSigned(t, time.Time{}, time.Now().Add(time.Hour))}
	pool := x509.NewCertPool()
	pool.AddCert(home.Certificate()) // httptest's, which far shows too
	var named []string
	c, err := agentproto.NewClient(agentproto.ClientOptions{
		Nodes: []string{home.URL}, Authority: pool, Log: slog.New(slog.DiscardHandler), Named: func(l []string) { named = append(named, l...) },
	})
	if err != nil {
		t.Fatal(err)
	}
	agentproto.Named(c, "example.com")
	t.Cleanup(c.Close)
	home.names = []string{"http://127.0.0.1:1", "https://" + strings.Repeat("x", 600), stranger.URL, home.URL, far.URL}
	home.status.Store(http.StatusBadGateway)
	if err := fetch(t, c); err != nil {
		t.Fatal(err)
	}
	if far.asked.Load() != 1 || stranger.asked.Load() != 0 {
		t.Errorf("the other node was asked %d times, the stranger %d", far.asked.Load(), stranger.asked.Load())
	}
	if want := []string{stranger.URL, far.URL}; !slices.Equal(named, want) {
		t.Errorf("named %v, want %v", named, want)
	}
	for i := range 200 {
		home.names = append(home.names, fmt.Sprintf("https://127.0.0.1:1/%d", i))
	}
	far.status.Store(http.StatusBadGateway)
	if err := fetch(t, c); err == nil {
		t.Error("a file from nowhere")
	}
	if n := len(c.Nodes()); n > 64 {
		t.Errorf("it asks %d nodes", n)
	}
}

// selfSigned is a certificate with a node's name that nobody of the mesh signed.
func selfSigned(t *testing.T, from, to time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"example.com"}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
