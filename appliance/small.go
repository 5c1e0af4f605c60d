package appliance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"wuamesh/replicate/swarm"
)

// Small files are kept in memory once they were asked for: of one of 4 kB,
// opening it costs more than sending it. What is kept was compared with its
// digest when it was read.
const (
	smallMost  = 32 << 10 // bytes of a file
	smallFiles = 256      // that are kept
)

// A smallFile is a small file and the header it is sent with.
type smallFile struct {
	body   []byte
	header http.Header
}

// smalls are the files that are kept, the oldest of which makes room for the
// next.
type smalls struct {
	mu   sync.Mutex
	ring [smallFiles]*heldFile
	next int
}

// keep reads a held file into memory, if it is small and right.
func (s *smalls) keep(name string, file *os.File, h *heldFile) {
	if h.Bytes > smallMost || h.small.Load() != nil {
		return
	}
	body := make([]byte, h.Bytes)
	if _, err := io.ReadFull(io.NewSectionReader(file, 0, h.Bytes), body); err != nil {
		return
	}
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != strings.ToLower(h.SHA256) {
		return
	}
	small := &smallFile{body, http.Header{}}
	describe(small.header, name, h)
	small.header.Set("Last-Modified", h.Modified.UTC().Format(http.TimeFormat))
	small.header.Set("Accept-Ranges", "bytes")
	small.header.Set("Content-Length", strconv.Itoa(len(body)))
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.ring[s.next]; old != nil {
		old.small.Store(nil)
	}
	s.ring[s.next] = h
	s.next = (s.next + 1) % smallFiles
	h.small.Store(small)
}

// sendSmall answers from memory and says whether it did: a plain GET of a file
// that is kept, looks on the disk as it did, and is not held back.
func (f *folder) sendSmall(w http.ResponseWriter, r *http.Request, name string) bool {
	f.mu.RLock()
	h := f.held[name]
	f.mu.RUnlock()
	if h == nil || r.Method != http.MethodGet || f.share.limits.Limited(swarm.Agents, swarm.Up) {
		return false
	}
	small := h.small.Load()
	if small == nil {
		return false
	}
	for _, key := range [...]string{"Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"} {
		if len(r.Header[key]) > 0 {
			return false
		}
	}
	if info, err := f.root.Lstat(name); err != nil || !h.is(info) {
		return false // which the usual way finds too
	}
	now := time.Now()
	h.asked.Store(now.Unix())
	header := w.Header()
	for key, value := range small.header {
		header[key] = value
	}
	ctl := http.NewResponseController(w)
	ctl.SetWriteDeadline(now.Add(usualRetry))
	n := writeJoined(r.Context(), w, small.body)
	ctl.SetWriteDeadline(time.Time{})
	f.sent.Add(int64(n))
	return true
}

// connKey is under which a request's context has its connection.
type connKey struct{}

// A joinedConn can put several writes into one: net/http writes a header and
// the beginning of a small body, then the few bytes that are left.
type joinedConn struct {
	*net.TCPConn
	joining bool
	held    []byte
}

func (c *joinedConn) Write(b []byte) (int, error) {
	if !c.joining {
		return c.TCPConn.Write(b)
	}
	c.held = append(c.held, b...)
	return len(b), nil
}

// writeJoined answers with a small body in one write, where it can, and says
// how many bytes of it left.
func writeJoined(ctx context.Context, w http.ResponseWriter, body []byte) int {
	c, ok := ctx.Value(connKey{}).(*joinedConn)
	if !ok { // TLS packs what it sends by itself
		n, _ := w.Write(body)
		return n
	}
	c.joining = true
	w.Write(body)
	http.NewResponseController(w).Flush()
	c.joining = false
	_, err := c.TCPConn.Write(c.held)
	if c.held = c.held[:0]; err != nil {
		return 0 // the server finds the connection broken at its next write or read
	}
	return len(body)
}

// joinedConns makes joinedConns of what a listener accepts.
type joinedConns struct{ net.Listener }

func (l joinedConns) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok && err == nil {
		return &joinedConn{TCPConn: tcp}, nil
	}
	return c, err
}
