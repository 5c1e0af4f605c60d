package appliance

import (
	"bytes"
	"context"
	"net"
	"net/http"
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
	ctx    context.Context
	folder *folder
}

func (l smallsListener) Accept() (net.Conn, error) {
	c, err := l.untilDeadline.Accept()
	if err != nil {
		return nil, err
	}
	return l.folder.answerSmalls(l.ctx, c.(*joiningConn)), nil
}

// answerSmalls makes a new connection one that answers for small files until
// ctx ends.
func (f *folder) answerSmalls(ctx context.Context, joining *joiningConn) *smallsConn {
	c := &smallsConn{joiningConn: joining, ctx: ctx, folder: f}
	c.unhook = context.AfterFunc(ctx, func() {
		if f.node.handover {
			time.Sleep(handoverTime)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.ended = true; !c.passed {
			c.SetReadDeadline(time.Unix(1, 0)) // long over
		}
	})
	return c
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
	f := c.folder
	name, plain := asksPlainly(request)
	if !plain || c.ctx.Err() != nil || f.share.limits.Limited(swarm.Agents, swarm.Up) {
		return false
	}
	b, h, err := opened(f, name, f.smallOf)
	if err != nil {
		return false
	}
	now := time.Now()
	c.SetWriteDeadline(now.Add(usualRetry))
	defer f.sending(name, c)()
	if f.block(name) != "" {
		return false
	}
	h.asked.Store(now.Unix())
	out := joinBuffers.Get().(*bytes.Buffer)
	defer joinBuffers.Put(out)
	defer out.Reset()
	out.Write(h.plainHeader(name))
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
// section 3; RFC 9110, sections 12 and 13). Names of files in the folder need
// no escapes.
func asksPlainly(request []byte) (name string, plain bool) {
	line, fields, _ := strings.Cut(string(request), "\r\n")
	name, get := strings.CutPrefix(line, "GET "+agentproto.PathFolder)
	name, version := strings.CutSuffix(name, " HTTP/1.1")
	hosts := 0
	for field := range strings.SplitSeq(strings.TrimSuffix(fields, "\r\n\r\n"), "\r\n") {
		key, value, _ := strings.Cut(field, ":")
		if !plainField(strings.ToLower(key), strings.Trim(value, " ")) || len(key) == len(field) {
			return "", false
		}
		if strings.EqualFold(key, "host") {
			hosts++
		}
	}
	return name, get && version && hosts == 1
}

// plainField says of a field of a request that every answer is the same with
// it, as far as the folder goes.
func plainField(key, value string) bool {
	switch key {
	case "host":
		return strings.Trim(value, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.:-[]") == ""
	case "user-agent", "accept", "accept-encoding", "accept-language":
		return !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' })
	case "connection":
		return strings.EqualFold(value, "keep-alive")
	}
	return false
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
