package agentproto

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ClientOptions say which nodes to ask and how to be recognised.
type ClientOptions struct {
	Nodes       []string         // base URLs, https://host[:port], nearest first
	Certificate *tls.Certificate // nil until enrolled
	Authority   *x509.CertPool   // who signs nodes; nil until enrolled
	Pin         string           // fingerprint of the authority, for Enroll
	Log         *slog.Logger
	// Named is told what nodes another one named that serves hosts no more. They
	// are believed as any node is: each has to show a certificate of the mesh.
	// It is called while the client asks, and must not call it. May be nil.
	Named func(nodes []string)
	// Look is how often a stream of events to a node that is not the nearest
	// looks whether a nearer one answers again; 0 for two minutes.
	Look time.Duration
}

// A Client is the agent's side of the HTTP. A node that cannot be reached or
// answers 5xx is passed over for the next one; what a node refuses is final.
// One that could not be reached is left alone for a while, so that not every
// request waits for it first, and asked again before those after it.
type Client struct {
	http  *http.Client
	log   *slog.Logger
	named func([]string)

	quiet, answer time.Duration // see vigil.go

	mu      sync.Mutex
	nodes   []string           // nearest first
	resting map[string]resting // those that could not be reached
	stream  string             // the node of the stream of events
	goHome  func()             // ends that stream: a nearer node is back
	look    time.Duration      // how often a stream looks for nearer nodes
	moved   chan struct{}      // the order of the nodes is another one: look now
}

// resting is how long a node is left alone.
type resting struct {
	until time.Time
	times int // that it could not be reached, in a row
}

// The first rest of a node that cannot be reached, and the longest. A stream
// of events to a node that is not the nearest looks for nearer ones so often.
const (
	firstRest, longestRest = 15 * time.Second, 4 * time.Minute
	usualLook              = 2 * time.Minute
)

// The most nodes a client asks, and the longest address of one in bytes.
const maxNodes, maxNodeURL = 64, 512

// heartbeat is how long a stream of events may be silent: nodes send a
// comment every 30 seconds.
const heartbeat = 90 * time.Second

// NewClient checks the options; it does not call yet.
func NewClient(o ClientOptions) (*Client, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: o.Authority, ServerName: AgentServerName}
	if o.Certificate != nil {
		conf.Certificates = []tls.Certificate{*o.Certificate}
	}
	if o.Authority == nil {
		// The authority is not known yet, but its fingerprint is.
		conf.ServerName, conf.InsecureSkipVerify = EnrollServerName, true
		conf.VerifyConnection = func(cs tls.ConnectionState) error { return VerifyPin(cs, o.Pin) }
	}
	c := &Client{log: o.Log, named: o.Named, look: cmp.Or(o.Look, usualLook), moved: make(chan struct{}, 1), quiet: usualQuiet, answer: usualAnswer, http: &http.Client{Transport: &http.Transport{
		TLSClientConfig: conf, ForceAttemptHTTP2: true, Proxy: nil,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second,
		IdleConnTimeout:       5 * time.Minute,
		MaxIdleConnsPerHost:   4,
		// A connection whose packets vanish would be used again for as long as the
		// system tries to send. A stream of events has a comment oftener than
		// this, and the frames of a very thin line still come within it.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 45 * time.Second, PingTimeout: 30 * time.Second},
	}}}
	return c, c.SetNodes(o.Nodes)
}

// VerifyPin accepts a connection whose chain ends in the authority of that
// fingerprint, which the peer sends along, and whose leaf has the name asked
// for and holds now, by the clock of the host. A token is sent over it: a node's
// certificate that has ended must not get one. A host whose clock is off by years
// is refused by this, with an error that says so; let in, it could not check
// in, because every connection after this one asks the same.
func VerifyPin(cs tls.ConnectionState, pin string) error {
	roots := x509.NewCertPool()
	found := false
	for _, cert := range cs.PeerCertificates {
		if cert.IsCA && Pin(cert) == pin {
			roots.AddCert(cert)
			found = true
		}
	}
	if !found {
		return errors.New("the node shows another authority than the token names; is this the right node?")
	}
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: cs.ServerName, Roots: roots})
	return err
}

// SetNodes replaces the nodes to ask.
func (c *Client) SetNodes(nodes []string) error {
	if len(nodes) == 0 {
		return errors.New("no node to ask: set repo_url or nodes in wapt-get.ini")
	}
	for _, n := range nodes {
		if !isNode(n) {
			return fmt.Errorf("node %q: want https://host or https://host:port", n)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(nodes, c.nodes) && c.goHome != nil {
		select {
		case c.moved <- struct{}{}:
		default:
		}
	}
	c.nodes = slices.Clone(nodes)
	for n := range c.resting {
		if !slices.Contains(nodes, n) {
			delete(c.resting, n)
		}
	}
	return nil
}

// isNode says whether text is the base URL of a node.
func isNode(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme == "https" && u.Host != "" && len(text) <= maxNodeURL
}

// name adds the nodes that another one named to the end of those to ask, and
// returns those that are new.
func (c *Client) name(nodes []string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var fresh []string
	for _, n := range nodes {
		if len(c.nodes) < maxNodes && isNode(n) && !slices.Contains(c.nodes, n) {
			c.nodes = append(c.nodes, n)
			fresh = append(fresh, n)
		}
	}
	return fresh
}

// Nodes are the nodes in the order they are asked: those that rest last.
func (c *Client) Nodes() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	rests := func(n string) bool { return now.Before(c.resting[n].until) }
	list := slices.DeleteFunc(slices.Clone(c.nodes), rests)
	late := slices.DeleteFunc(slices.Clone(c.nodes), func(n string) bool { return !rests(n) })
	return append(list, late...)
}

// reached notes that a node answered. A stream of events to one that is
// farther ends, to begin again here.
func (c *Client) reached(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.resting, node)
	at, here := slices.Index(c.nodes, c.stream), slices.Index(c.nodes, node)
	if c.goHome != nil && here >= 0 && (at > here || at < 0) {
		c.goHome()
	}
}

// unreached notes that a node did not.
func (c *Client) unreached(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resting == nil {
		c.resting = map[string]resting{}
	}
	r := c.resting[node]
	r.times++
	r.until = time.Now().Add(min(firstRest<<min(r.times-1, 8), longestRest))
	c.resting[node] = r
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Enroll asks for a certificate.
func (c *Client) Enroll(ctx context.Context, r EnrollRequest) (resp EnrollResponse, err error) {
	return resp, c.post(ctx, PathEnroll, r, &resp)
}

// Checkin says what the agent has and returns what is new.
func (c *Client) Checkin(ctx context.Context, k Checkin) (resp CheckinResponse, err error) {
	return resp, c.post(ctx, PathCheckin, k, &resp)
}

// Report sends the outcome of a scan, or descriptions the node lacks.
func (c *Client) Report(ctx context.Context, r Report) (resp ReportResponse, err error) {
	return resp, c.post(ctx, PathReport, r, &resp)
}

// Results sends what became of commands and installs.
func (c *Client) Results(ctx context.Context, r Results) error {
	return c.post(ctx, PathResults, r, nil)
}

// post sends a message, compressed, to the first node that takes it.
func (c *Client) post(ctx context.Context, path string, send Message, answer Message) error {
	if err := send.Validate(); err != nil {
		return fmt.Errorf("send %s: %w", path, err)
	}
	b, err := json.Marshal(send)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	z := compress(b)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	resp, _, err := c.ask(ctx, func(node string) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, at(node, path), bytes.NewReader(z))
		if err == nil {
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Content-Encoding", "gzip")
		}
		return req, err
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if answer == nil {
		return nil
	}
	if err := Decode(resp.Body, MaxReportBytes, answer); err != nil {
		return fmt.Errorf("answer to %s: %w", path, err)
	}
	return nil
}

// at is the URL of a path on a node.
func at(node, path string) string { return strings.TrimSuffix(node, "/") + path }

// ask sends what request makes to one node after the other, until one answers
// with anything but a server error, and returns which. The answer's body is
// the caller's to close; answers of 400 and more become a *[Problem].
func (c *Client) ask(ctx context.Context, request func(node string) (*http.Request, error)) (resp *http.Response, node string, err error) {
	var last error
	for list := c.Nodes(); len(list) > 0; {
		node := list[0]
		list = list[1:]
		req, err := request(node)
		if err != nil {
			return nil, "", err
		}
		resp, err := c.http.Do(req)
		if err != nil {
			if ctx.Err() != nil {
				return nil, "", ctx.Err()
			}
			if cause := silent(req.Context()); cause != nil {
				err = cause
			}
			c.unreached(node)
			last = fmt.Errorf("ask %s: %w", node, ofClock(err))
			continue
		}
		if resp.StatusCode < 400 {
			c.reached(node)
			return resp, node, nil
		}
		last = ReadProblem(resp)
		resp.Body.Close()
		if p := last.(*Problem); resp.StatusCode == http.StatusServiceUnavailable {
			last = &AwayError{Problem: p, After: retryAfter(resp.Header)}
			if req.Method == http.MethodGet && req.URL.Path != PathEvents {
				return nil, node, last // the file is on its way there, and should not come from far
			}
		} else if resp.StatusCode < 500 {
			return nil, node, last
		} else if fresh := c.name(p.Nodes); len(fresh) > 0 {
			list = append(list, fresh...)
			if c.named != nil {
				c.named(fresh)
			}
		}
	}
	return nil, "", last
}

// ofClock says of a certificate that does not hold now that it may be the clock
// of the host: only whoever sits there can tell.
func ofClock(err error) error {
	invalid := x509.CertificateInvalidError{}
	if !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		return err
	}
	const day = "2 Jan 2006 15:04 UTC"
	return fmt.Errorf("the clock of this host says %s, but the node's certificate holds from %s to %s; set the clock right, or look at the node: %w",
		time.Now().UTC().Format(day), invalid.Cert.NotBefore.UTC().Format(day), invalid.Cert.NotAfter.UTC().Format(day), err)
}

// An AwayError is a node that cannot answer now and says when to come back.
type AwayError struct {
	*Problem
	After time.Duration
}

func (e *AwayError) Unwrap() error { return e.Problem }

func retryAfter(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n < 0 || n > 24*3600 {
		return time.Minute
	}
	return time.Duration(n) * time.Second
}

// A Content is a file on its way from a node. Offset is where Body begins,
// zero when the node did not resume; Size is of the whole file.
type Content struct {
	Body   io.ReadCloser
	Offset int64
	Size   int64
	ETag   string
}

// Fetch asks for a file of the folder from offset on. etag is that of the
// bytes the caller has: when the node's file is another one, it begins anew. A
// node that falls silent before it answers is passed over; one that does so in
// the middle ends the body with [ErrSilent].
func (c *Client) Fetch(ctx context.Context, name string, offset int64, etag string) (Content, error) {
	var v *vigil
	resp, _, err := c.ask(ctx, func(node string) (*http.Request, error) {
		if v != nil {
			v.stop() // that one was passed over
		}
		v = c.keepVigil(ctx, node)
		req, err := http.NewRequestWithContext(v.ctx, http.MethodGet, at(node, PathFolder+url.PathEscape(name)), nil)
		if err == nil && offset > 0 && etag != "" {
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
			req.Header.Set("If-Range", etag)
		}
		return req, err
	})
	if err != nil {
		if v != nil {
			v.stop()
		}
		return Content{}, err
	}
	f := Content{Body: &watched{resp.Body, v}, Size: resp.ContentLength, ETag: resp.Header.Get("ETag")}
	if resp.StatusCode == http.StatusPartialContent {
		f.Offset = offset
		f.Size += offset
	}
	return f, nil
}

// Events calls fn with every event until ctx ends, the stream breaks, or a
// node that is nearer than the one it comes from is back.
func (c *Client) Events(ctx context.Context, fn func(Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, node, err := c.ask(ctx, func(node string) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodGet, at(node, PathEvents), nil)
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var looking sync.WaitGroup
	defer looking.Wait()
	defer cancel()
	looking.Go(func() { c.lookForNearer(ctx, node) })
	c.streamFrom(node, cancel)
	defer c.streamFrom("", nil)
	silent := time.AfterFunc(heartbeat, cancel)
	defer silent.Stop()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 256<<10)
	var e Event
	for lines.Scan() {
		silent.Reset(heartbeat)
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "" && e.Name != "":
			if err := fn(e); err != nil {
				return err
			}
			e = Event{}
		case field == "event":
			e.Name = value
		case field == "data":
			e.Data = append(e.Data, value...)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("stream of events: %w", err)
	}
	return fmt.Errorf("stream of events: %w", io.ErrUnexpectedEOF)
}

// streamFrom notes from which node the stream of events comes, and what ends it.
func (c *Client) streamFrom(node string, end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stream, c.goHome = node, end
}

// lookForNearer looks now and then whether a node that is nearer answers
// again, until ctx ends. One that does ends the stream.
func (c *Client) lookForNearer(ctx context.Context, node string) {
	for {
		wait := time.NewTimer(c.look*3/4 + rand.N(c.look/2)) // a whole branch must not come at once
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-c.moved:
			wait.Stop()
		case <-wait.C:
		}
		c.mu.Lock()
		nearer := slices.Clone(c.nodes)
		if at := slices.Index(nearer, node); at >= 0 { // else it is none of those to ask any more
			nearer = nearer[:at]
		}
		c.mu.Unlock()
		for _, n := range nearer {
			if c.answers(ctx, n) {
				c.reached(n)
				break
			}
		}
	}
}

// answers says whether a node answers at all, and knows the host.
func (c *Client) answers(ctx context.Context, node string) bool {
	status, ok := c.head(ctx, node, 10*time.Second)
	return ok && status != http.StatusUnauthorized
}

// head asks a node something small, and says whether it answered in time, and
// with what status.
func (c *Client) head(ctx context.Context, node string, within time.Duration) (status int, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, at(node, PathFolder+ScanCabName), nil)
	if err != nil {
		return 0, false
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, false
	}
	resp.Body.Close()
	return resp.StatusCode, true
}
