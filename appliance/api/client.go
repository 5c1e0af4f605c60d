package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/appliance"
)

// maxAnswer bounds what the client reads: 500 rows of the largest kind are a
// few megabytes.
const maxAnswer = 64 << 20

// ClientOptions say where a node is and who asks.
type ClientOptions struct {
	URL   string // https://host[:port]
	Token string // wmt_…
	// Pin is the SHA-256 of the SubjectPublicKeyInfo of the mesh's authority,
	// hexadecimal. Empty: the system's authorities are trusted instead.
	Pin string
}

// A Client calls the API of one node.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// NewClient checks the options; it does not call yet.
func NewClient(o ClientOptions) (*Client, error) {
	base, err := url.Parse(o.URL)
	if err != nil || base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("node address %q: want https://host or https://host:port", o.URL)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS13}
	if o.Pin != "" {
		// The chain is checked against the pin below. The name makes the node
		// show its own certificate, also where browsers get another.
		conf.InsecureSkipVerify, conf.ServerName = true, appliance.ConsoleServerName
		conf.VerifyConnection = func(cs tls.ConnectionState) error { return agentproto.VerifyPin(cs, o.Pin) }
	}
	return &Client{base: base, token: o.Token, http: &http.Client{
		Timeout:   2 * time.Minute,
		Transport: &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true, Proxy: nil},
	}}, nil
}

// Get reads path, which is relative to [Prefix], into answer.
func (c *Client) Get(ctx context.Context, path string, query url.Values, answer any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.Do(ctx, http.MethodGet, path, nil, answer)
}

// Stream copies the bytes that path answers to w, however long that takes.
func (c *Client) Stream(ctx context.Context, path string, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.base.String(), "/")+Prefix+path, nil)
	if err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.patient().Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", c.base.Host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		return agentproto.ReadProblem(resp)
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.base.Host, err)
	}
	return nil
}

// Send sends bytes, however long that takes, and reads the JSON answer. The
// length of a file is told beforehand.
func (c *Client) Send(ctx context.Context, method, path string, body io.Reader, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.base.String(), "/")+Prefix+path, body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	if f, ok := body.(interface{ Stat() (fs.FileInfo, error) }); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			req.ContentLength = info.Size()
		}
	}
	return c.answered(req, answer)
}

// File reads a file of the folder from an offset on. Whoever has read it
// closes it.
func (c *Client) File(ctx context.Context, name string, from int64) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.base.String(), "/")+agentproto.PathFolder+url.PathEscape(name), nil)
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", name, err)
	}
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	resp, err := c.patient().Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", c.base.Host, err)
	}
	switch {
	case resp.StatusCode >= 400:
		defer resp.Body.Close()
		return nil, agentproto.ReadProblem(resp)
	case from > 0 && resp.StatusCode != http.StatusPartialContent:
		resp.Body.Close()
		return nil, fmt.Errorf("%s answered %s from its beginning", c.base.Host, name)
	}
	return resp.Body, nil
}

// patient is the client without a limit of time.
func (c *Client) patient() *http.Client {
	p := *c.http
	p.Timeout = 0
	return &p
}

// Do sends body as JSON, nil for none, and reads the answer, nil to drop it.
// An error the node explains is an *[agentproto.Problem].
func (c *Client) Do(ctx context.Context, method, path string, body, answer any) error {
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode %s %s: %w", method, path, err)
		}
		send = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.base.String(), "/")+Prefix+path, send)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	ctx, cancel := context.WithTimeout(ctx, c.http.Timeout)
	defer cancel()
	return c.answered(req.WithContext(ctx), answer)
}

// answered makes a request and reads its JSON answer.
func (c *Client) answered(req *http.Request, answer any) error {
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.patient().Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", c.base.Host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		return agentproto.ReadProblem(resp)
	}
	if answer == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(answer); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.base.Host, err)
	}
	return nil
}
