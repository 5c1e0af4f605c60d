package appliance

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"wuamesh/agentproto"
	"wuamesh/replicate/swarm"
)

// A smallsConn is a connection without TLS that answers for small files while
// net/http waits for its first request. Everything but the plainest request is
// net/http's, with all that comes after it: here is no second HTTP server, only
// what keeps its goroutines, its maps and its buffers out of the way of a file
// that is sent sooner than they are made.
type smallsConn struct {
	*joiningConn
	ctx    context.Context // of the process
	folder *folder
	unhook func() bool // from the end of ctx

	mu     sync.Mutex
	passed bool // to net/http, for good
	ended  bool // nothing is waited for any more
}

// A smallsListener makes of what it accepts connections that answer for small
// files, until the process ends.
type smallsListener struct {
	untilDeadline
	ctx  context.Context
	node *Appliance
}

func (l smallsListener) Accept() (net.Conn, error) {
	joining, err := l.untilDeadline.Accept()
	if err != nil {
		return nil, err
	}
	c := &smallsConn{joiningConn: joining.(*joiningConn), ctx: l.ctx, folder: l.node.folder}
	c.unhook = context.AfterFunc(l.ctx, func() {
		if l.node.handover {
			time.Sleep(handoverTime)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.ended = true; !c.passed {
			c.SetReadDeadline(time.Unix(1, 0)) // long over
		}
	})
	return c, nil
}

// Read is called by net/http for the first bytes of the connection, and comes
// back when they are for it.
func (c *smallsConn) Read(p []byte) (n int, err error) {
	if c.passed {
		return c.joiningConn.Read(p)
	}
	for {
		n, err = c.joiningConn.Read(p)
		rest := p[:n]
		for err == nil && len(rest) > 0 {
			end := bytes.Index(rest, []byte("\r\n\r\n")) + 4
			if end < 4 || !c.answer(rest[:end]) {
				break
			}
			rest = rest[end:]
		}
		if n = copy(p, rest); n > 0 || err != nil {
			c.pass()
			return n, err
		}
		c.await()
	}
}

// await gives the next request its time.
func (c *smallsConn) await() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.SetReadDeadline(time.Now().Add(idleTime))
	}
}

// pass leaves the connection to net/http as it would be at its first request.
func (c *smallsConn) pass() {
	c.unhook()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.passed = true
	c.SetWriteDeadline(time.Time{})
	c.SetReadDeadline(time.Now().Add(headerTime))
}

// answer sends the file that a request asks for. It does nothing when that is
// not one of the plainest, or when more than to send it is called for.
func (c *smallsConn) answer(request []byte) (done bool) {
	f, name := c.folder, asksPlainly(request)
	if name == nil || c.ctx.Err() != nil {
		return false
	}
	f.mu.RLock()
	h := f.held[string(name)]
	f.mu.RUnlock()
	if h == nil || h.Bytes > small || f.share.limits.Limited(swarm.Agents, swarm.Up) {
		return false
	}
	b, h, err := opened(f, string(name), f.smallOf)
	if err != nil || h.Bytes > small {
		return false
	}
	now := time.Now()
	c.SetWriteDeadline(now.Add(usualRetry))
	defer f.sending(string(name), c)()
	if f.block(string(name)) != "" {
		return false
	}
	h.asked.Store(now.Unix())
	out := joinBuffers.Get().(*bytes.Buffer)
	defer joinBuffers.Put(out)
	defer out.Reset()
	out.Write(h.plainHeader(string(name)))
	out.Write(now.UTC().AppendFormat(out.AvailableBuffer(), http.TimeFormat))
	out.WriteString("\r\n\r\n")
	header := out.Len()
	out.Write(b)
	sent, err := c.Write(out.Bytes())
	f.sent.Add(int64(max(0, sent-header)))
	if err != nil {
		c.Close() // the next read says so
	}
	return true
}

// asksPlainly is the name of the file that a whole request asks for, if it has
// nothing in it that could call for another answer than that file (RFC 9112,
// section 3; RFC 9110, sections 12 and 13); else nil. Names of files in the
// folder need no escapes.
func asksPlainly(request []byte) []byte {
	line, fields, _ := bytes.Cut(request, []byte("\r\n"))
	name, ok := bytes.CutPrefix(line, []byte("GET "+agentproto.PathFolder))
	name, ok2 := bytes.CutSuffix(name, []byte(" HTTP/1.1"))
	hosts := 0
	for len(fields) > len("\r\n") && ok && ok2 {
		var field []byte
		field, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		key, value, colon := bytes.Cut(field, []byte(":"))
		if !colon {
			return nil
		}
		value = bytes.Trim(value, " ")
		switch strings.ToLower(string(key)) {
		case "host":
			hosts++
			ok = consistsOf(value, func(b byte) bool {
				return b >= '0' && b <= ':' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '.' || b == '-' || b == '[' || b == ']'
			})
		case "user-agent", "accept", "accept-encoding", "accept-language":
			ok = consistsOf(value, func(b byte) bool { return b >= ' ' && b <= '~' })
		case "connection":
			ok = strings.EqualFold(string(value), "keep-alive")
		default:
			ok = false
		}
	}
	if !ok || !ok2 || hosts != 1 {
		return nil
	}
	return name
}

func consistsOf(b []byte, of func(byte) bool) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return !of(c) })
}

// plainHeader is what [http.ServeContent] says of the whole file, up to the
// date.
func (h *heldFile) plainHeader(name string) []byte {
	h.plainly.Do(func() {
		w := headerOnly{http.Header{}}
		describe(w.header, name, h)
		http.ServeContent(w, &http.Request{Method: http.MethodHead}, name, h.Modified, bytes.NewReader(make([]byte, h.Bytes)))
		b := bytes.NewBufferString("HTTP/1.1 200 OK\r\n")
		w.header.Write(b)
		b.WriteString("Date: ")
		h.plain = b.Bytes()
	})
	return h.plain
}

// headerOnly keeps the header of an answer.
type headerOnly struct{ header http.Header }

func (w headerOnly) Header() http.Header         { return w.header }
func (w headerOnly) Write(p []byte) (int, error) { return len(p), nil }
func (w headerOnly) WriteHeader(int)             {}
