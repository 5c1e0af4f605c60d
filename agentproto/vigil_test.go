package agentproto_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"wuamesh/agentproto"
)

// A line is a listener in memory whose packets can be made to vanish: what is
// written is then gone, what is dialled hears nothing.
type line struct {
	conns   chan net.Conn
	closed  chan bool
	once    sync.Once
	vanish  atomic.Bool
	dialled atomic.Int64
}

func (l *line) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *line) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *line) Addr() net.Addr { return &net.TCPAddr{} }

func (l *line) dial(ctx context.Context) (net.Conn, error) {
	l.dialled.Add(1)
	if l.vanish.Load() {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // as the client's own dialler
		defer cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	here, there := net.Pipe()
	select {
	case l.conns <- &end{there, l}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return &end{here, l}, nil
}

// An end is one of a connection over a line.
type end struct {
	net.Conn
	line *line
}

func (e *end) Write(p []byte) (int, error) {
	if e.line.vanish.Load() {
		return len(p), nil
	}
	return e.Conn.Write(p)
}

// A distant node sends part of a file, calls pause, and then sends the rest.
type distant struct {
	*line
	asked  []string // Range of each request for the file
	looked atomic.Int64
	early  bool // pauses before it answers, else after half
	pause  func(ctx context.Context)
}

var content = bytes.Repeat([]byte("0123456789abcdef"), 1<<12)

const half = 1 << 15

func (d *distant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		d.looked.Add(1)
		return
	}
	d.asked = append(d.asked, r.Header.Get("Range"))
	w.Header().Set("ETag", `"it"`)
	if d.early {
		d.pause(r.Context())
	}
	if r.Header.Get("Range") == "" && !d.early {
		w.Header().Set("Content-Length", "65536")
		w.Write(content[:half])
		http.NewResponseController(w).Flush()
		d.pause(r.Context())
		w.Write(content[half:])
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

// far are two distant nodes, home and away, and a client of both, in a bubble,
// over HTTP/2 as in the field.
func far(t *testing.T) (c *agentproto.Client, home, away *distant) {
	cert := selfSigned(t, time.Now().Add(-time.Hour), time.Now().Add(1000*time.Hour))
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	nodes := map[string]*distant{}
	for _, name := range []string{"home:443", "away:443"} {
		d := &distant{line: &line{conns: make(chan net.Conn), closed: make(chan bool)}, pause: func(context.Context) {}}
		nodes[name] = d
		srv := &http.Server{Handler: d, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, ErrorLog: log.New(io.Discard, "", 0)}
		served := make(chan bool)
		go func() {
			defer close(served)
			srv.ServeTLS(d.line, "", "")
		}()
		t.Cleanup(func() {
			srv.Close()
			<-served
		})
	}
	c, err := agentproto.NewClient(agentproto.ClientOptions{Nodes: []string{"https://home", "https://away"}, Authority: pool, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	agentproto.Named(c, "example.com")
	agentproto.Dialled(c, func(ctx context.Context, _, addr string) (net.Conn, error) { return nodes[addr].dial(ctx) })
	return c, nodes["home:443"], nodes["away:443"]
}

// take reads a file, going on at the next byte when its node falls silent.
func take(t *testing.T, c *agentproto.Client, read func(io.Reader) ([]byte, error)) (got []byte, silences int) {
	t.Helper()
	for etag := ""; ; silences++ {
		f, err := c.Fetch(t.Context(), "x.cab", int64(len(got)), etag)
		if err != nil {
			t.Fatal(err)
		}
		b, err := read(f.Body)
		f.Body.Close()
		if got, etag = append(got[:f.Offset], b...), f.ETag; err == nil {
			return got, silences
		}
		if !errors.Is(err, agentproto.ErrSilent) || !strings.Contains(err.Error(), "https://home") || silences > 0 {
			t.Fatalf("after %d bytes: %v", len(got), err)
		}
	}
}

// TestPacketsVanish in the middle of a file: within twenty seconds the next node
// goes on from the very byte, and the first is left alone for a while.
func TestPacketsVanish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, home, away := far(t)
		home.pause = func(context.Context) { home.vanish.Store(true) }
		began := time.Now()
		got, silences := take(t, c, io.ReadAll)
		if took := time.Since(began); !bytes.Equal(got, content) || silences != 1 || took > 20*time.Second {
			t.Errorf("%d bytes, %d silences, after %s", len(got), silences, took)
		}
		if len(away.asked) != 1 || away.asked[0] != "bytes=32768-" || c.Nodes()[0] != "https://away" {
			t.Errorf("the next node was asked for %q; the order is %v", away.asked, c.Nodes())
		}
	})
}

// TestPacketsVanishBeforeTheAnswer, on a connection that was good a moment ago: the
// next node is asked as soon.
func TestPacketsVanishBeforeTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, home, away := far(t)
		take(t, c, io.ReadAll)
		home.vanish.Store(true)
		began := time.Now()
		got, silences := take(t, c, io.ReadAll)
		if took := time.Since(began); !bytes.Equal(got, content) || silences != 0 || took > 20*time.Second || len(away.asked) != 1 {
			t.Errorf("%d bytes, %d silences, after %s; the next node was asked for %q", len(got), silences, took, away.asked)
		}
	})
}

// TestANodeThatWaits itself, for a piece over a thin line, before the answer or in
// the middle: it says that it is there, and no other is asked.
func TestANodeThatWaits(t *testing.T) {
	for name, early := range map[string]bool{"before the answer": true, "in the middle": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, home, away := far(t)
				home.early = early
				home.pause = func(context.Context) { time.Sleep(55 * time.Second) }
				got, silences := take(t, c, io.ReadAll)
				if !bytes.Equal(got, content) || silences != 0 || len(home.asked) != 1 || away.dialled.Load() != 0 {
					t.Errorf("%d bytes, %d silences, home asked for %q, away reached %d times", len(got), silences, home.asked, away.dialled.Load())
				}
				if n := home.looked.Load(); n < 2 || n > 5 {
					t.Errorf("it was asked %d times in 55 seconds whether it is there", n)
				}
				time.Sleep(time.Hour)
				if n := home.looked.Load(); n > 5 {
					t.Errorf("it is asked on: %d times", n)
				}
			})
		})
	}
}

// TestAHostThatIsBusy does not read for over a minute, because its disk is: that is not
// the node's fault, nor is it while the host checks what came.
func TestAHostThatIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, home, away := far(t)
		got, silences := take(t, c, func(r io.Reader) ([]byte, error) {
			b := make([]byte, 100)
			if _, err := io.ReadFull(r, b); err != nil {
				return nil, err
			}
			time.Sleep(65 * time.Second)
			rest, err := io.ReadAll(r)
			looked := home.looked.Load()
			time.Sleep(time.Hour)
			if n := home.looked.Load(); n != looked {
				t.Errorf("it was asked %d times after the last byte", n-looked)
			}
			return append(b, rest...), err
		})
		if !bytes.Equal(got, content) || silences != 0 || away.dialled.Load() != 0 {
			t.Errorf("%d bytes, %d silences, away reached %d times", len(got), silences, away.dialled.Load())
		}
	})
}

// TestACallerThatLeaves ends the vigil with the request.
func TestACallerThatLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, home, _ := far(t)
		home.pause = func(ctx context.Context) { <-ctx.Done() }
		ctx, cancel := context.WithCancel(t.Context())
		f, err := c.Fetch(ctx, "x.cab", 0, "")
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(5*time.Second, cancel)
		if _, err := io.ReadAll(f.Body); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		f.Body.Close()
		time.Sleep(time.Hour)
		if n := home.looked.Load(); n != 0 || c.Nodes()[0] != "https://home" {
			t.Errorf("asked %d times; the order is %v", n, c.Nodes())
		}
	})
}
