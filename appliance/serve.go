package appliance

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/appliance/microsoft"
	"wuamesh/replicate/swarm"
)

// How long a caller is told to wait for a file that is on its way.
const (
	shortestRetry = 5 * time.Second
	usualRetry    = time.Minute
	longestRetry  = 10 * time.Minute
	offlineRetry  = 30 * time.Minute
)

// slowest is the rate below which a connection is given up: one that takes
// what it asked for slower than this holds memory and a file for nothing.
const slowest = 16 << 10 // bytes per second

// has says whether a file is held.
func (f *folder) has(name string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.held[name] != nil
}

// handler serves the folder, for both listeners.
func (f *folder) handler() http.Handler { return http.HandlerFunc(f.serve) }

// first answers for files that are held, and leaves the rest to next. Their
// names are flat, so a path that is written as one of them needs no cleaning;
// to have [http.ServeMux] find that out costs some 3 % of a small file's time.
func (f *folder) first(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := strings.CutPrefix(r.URL.Path, agentproto.PathFolder)
		if ok && r.URL.RawPath == "" && f.has(name) { // nothing in it is escaped
			f.serve(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// serve answers GET and HEAD of one file, with ranges and conditions as
// [http.ServeContent] understands them (RFC 9110, sections 13 and 14).
func (f *folder) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		agentproto.WriteProblem(w, agentproto.Problem{Status: http.StatusMethodNotAllowed, Title: "The folder is only read: GET and HEAD."})
		return
	}
	name := strings.TrimPrefix(r.URL.Path, agentproto.PathFolder)
	if name == "" && f.node.config().FolderListing {
		f.list(w)
		return
	}
	if !f.has(name) && microsoft.CheckName(name) != nil { // of what is held it was checked
		agentproto.WriteProblem(w, agentproto.Problem{Status: http.StatusNotFound, Title: "There is no such file.", Hint: "Files lie flat in the folder, under the names Microsoft gave them."})
		return
	}
	if why := f.block(name); why != "" {
		refuse(w, why)
		return
	}
	if until := f.share.limits.Blocked(swarm.Agents, swarm.Up, time.Now()); !until.IsZero() {
		later(w, min(max(time.Until(until), shortestRetry), offlineRetry), "The site's limits let nothing go to agents now; next allowed at "+clock(until)+".", "Ask again after the time in Retry-After.")
		return
	}
	c, h, err := opened(f, name, f.contentOf)
	if err != nil {
		f.absent(w, r, name, err)
		return
	}
	f.send(w, r, name, c, h)
}

// send answers with a file that is there, and closes it.
func (f *folder) send(w http.ResponseWriter, r *http.Request, name string, c io.ReadSeekCloser, h *heldFile) {
	defer c.Close()
	h.asked.Store(time.Now().Unix())
	ctl := http.NewResponseController(w)
	ctl.SetWriteDeadline(time.Now().Add(usualRetry + time.Duration(h.Bytes/slowest)*time.Second)) // where it cannot be set there is none
	defer ctl.SetWriteDeadline(time.Time{})
	defer f.sending(name, ctl)()
	if why := f.block(name); why != "" { // it came since the file was opened
		refuse(w, why)
		return
	}
	describe(w.Header(), name, h)
	http.ServeContent(f.toAgent(w, r, name), r, name, h.Modified, c)
}

// toAgent is how bytes of a file go out: counted, and where the site limits
// what agents take, no faster than that.
func (f *folder) toAgent(w http.ResponseWriter, r *http.Request, name string) http.ResponseWriter {
	m := &meter{ResponseWriter: w, sent: f.sent.Add, conn: joiningConnOf(r)}
	if !f.share.limits.Limited(swarm.Agents, swarm.Up) {
		return m
	}
	return early{&brake{meter: m, ctx: r.Context(), limits: f.share.limits, blocked: func() bool { return f.block(name) != "" }}}
}

// A brake passes bytes on as the site's limits allow. It hides the meter's
// io.ReaderFrom: what the kernel sends by itself cannot be held back.
type brake struct {
	*meter
	ctx    context.Context // of the request
	limits *swarm.Limits
	// blocked says that an emergency stop of the file came.
	blocked func() bool
}

func (b *brake) Write(p []byte) (n int, err error) {
	ctl := http.NewResponseController(b.meter.ResponseWriter)
	for n < len(p) {
		if b.blocked() {
			return n, errStopped
		}
		part := p[n:min(len(p), n+16<<10)]
		if err := b.limits.Take(b.ctx, swarm.Agents, swarm.Up, int64(len(part))); err != nil {
			return n, err
		}
		ctl.SetWriteDeadline(time.Now().Add(usualRetry)) // the limit may be slower than the slowest caller
		k, err := b.meter.Write(part)
		if n += k; err != nil {
			return n, err
		}
	}
	return n, nil
}

// ReadFrom keeps [io.Copy] from the meter's.
func (b *brake) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{b}, r)
}

// describe sets what the answer says about a file: its digest is a strong
// validator, and stands in Repr-Digest (RFC 9530, section 3) for who checks.
func describe(header http.Header, name string, h *heldFile) {
	h.said.Do(func() {
		sum, _ := hex.DecodeString(h.SHA256) // it came out of hex encoding
		h.header = http.Header{}
		h.header.Set("ETag", `"`+h.SHA256+`"`)
		h.header.Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum)+":")
		h.header.Set("Content-Type", contentType(name))
		h.header.Set("X-Content-Type-Options", "nosniff")
		h.header.Set("Cache-Control", "no-cache")
		if _, digest, err := microsoft.NameFromURL(name); err == nil && digest != nil {
			h.header.Set("Cache-Control", "public, max-age=31536000, immutable")
		}
	})
	maps.Copy(header, h.header)
}

// contentType goes by the extension, not by what the machine's mime.types
// says: the same file has the same type on every node.
func contentType(name string) string {
	switch strings.ToLower(path.Ext(name)) {
	case ".cab":
		return "application/vnd.ms-cab-compressed" // IANA
	case ".exe":
		return "application/vnd.microsoft.portable-executable" // IANA
	case ".msi", ".msp":
		return "application/x-msi"
	case ".msu":
		return "application/x-ms-msu"
	}
	return "application/octet-stream"
}

// errNotHeld is a file that is not there, or not known to be right.
var errNotHeld = errors.New("not held")

// errChanged is a file that looks other than it did when it was verified.
var errChanged = errors.New("it is not as it was when it was verified")

// open opens a file that was verified and looks as it did then.
func (f *folder) open(name string) (*os.File, *heldFile, error) {
	return opened(f, name, f.openAs)
}

// opened is what as makes of a file that was verified and looks as it did
// then. The lock keeps the scan cab from being replaced between its digest and
// its bytes. An error that is not errNotHeld is the folder's, which cannot be
// read: the file stays held.
func opened[T any](f *folder, name string, as func(string, *heldFile) (T, error)) (none T, _ *heldFile, _ error) {
	f.mu.RLock()
	h := f.held[name]
	if h == nil {
		f.mu.RUnlock()
		return none, nil, errNotHeld
	}
	file, err := as(name, h)
	f.mu.RUnlock()
	if err == nil {
		return file, h, nil
	}
	if !errors.Is(err, errChanged) && !errors.Is(err, fs.ErrNotExist) {
		return none, nil, err
	}
	f.mu.Lock()
	if f.held[name] == h {
		delete(f.held, name)
		f.doubts[name] = true
	}
	f.mu.Unlock()
	wake(f.doubt)
	f.log.Warn("file in the folder changed; it is verified before it is served again", "file", name, "err", err)
	f.changed()
	return none, nil, errors.Join(errNotHeld, err)
}

// looksAs says how a file looks, if it is a regular one, not one that a link
// leads to, and looks as it should.
func (f *folder) looksAs(name string, h *heldFile) (fs.FileInfo, error) {
	info, err := f.root.Lstat(name)
	if err == nil && !h.is(info) {
		err = errChanged
	}
	return info, err
}

// openAs opens a file that looks as it should.
func (f *folder) openAs(name string, h *heldFile) (*os.File, error) {
	link, err := f.looksAs(name, h)
	if err != nil {
		return nil, err
	}
	file, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && (!os.SameFile(link, info) || !h.is(info)) {
		err = errChanged
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// absent answers for a file that is not served. One that a host needs is
// fetched, and the caller told when to ask again; this also lifts the mark of
// one that an admin deleted.
func (f *folder) absent(w http.ResponseWriter, r *http.Request, name string, why error) {
	switch {
	case !errors.Is(why, errNotHeld):
		f.log.WarnContext(r.Context(), "file in the folder cannot be read", "file", name, "err", why)
		later(w, usualRetry, "The folder of "+f.node.NodeName()+" cannot be read now: "+reason(why)+".", "Ask another node meanwhile; the overview of this one says what to do.")
	case f.verifying(r.Context(), name):
		later(w, shortestRetry, name+" is being verified.", "Ask again in a moment.")
	case name != microsoft.ScanCabName && !f.node.cat.needs(name):
		agentproto.WriteProblem(w, agentproto.Problem{
			Status: http.StatusNotFound, Title: "There is no file " + name + " here.",
			Hint: "A node holds what its hosts reported as needed and may install; scan the host and ask again.",
		})
	case f.online() != nil:
		later(w, offlineRetry, name+" is not here, and this node does not download from Microsoft.", "Copy the file into the folder, or ask a node with internet = true.")
	default:
		wait, err := f.asked(r, name)
		if err != nil {
			f.log.WarnContext(r.Context(), "asked-for file not queued", "file", name, "err", err, "cause", why)
		}
		if f.serveArriving(w, r, name) {
			return
		}
		if c, h, err := opened(f, name, f.contentOf); err == nil { // it came meanwhile
			f.send(w, r, name, c, h)
			return
		}
		later(w, wait, name+" is not here yet; it is queued"+f.waitingFor(name), "Ask again after the time in Retry-After.")
	}
}

// verifying says whether a file is being read to see if it is right. One that
// nothing is known of never will be.
func (f *folder) verifying(ctx context.Context, name string) bool {
	f.mu.RLock()
	doubtful := f.doubts[name]
	f.mu.RUnlock()
	if !doubtful || name == microsoft.ScanCabName {
		return doubtful
	}
	expected, err := f.expected(ctx, name)
	return err != nil || anyDigest(expected)
}

func later(w http.ResponseWriter, wait time.Duration, title, hint string) {
	w.Header().Set("Retry-After", strconv.Itoa(int(wait.Seconds())))
	agentproto.WriteProblem(w, agentproto.Problem{Status: http.StatusServiceUnavailable, Title: title, Hint: hint})
}

// asked queues a file that a host asked for, before those nobody asked for,
// and estimates when it will be there.
func (f *folder) asked(r *http.Request, name string) (time.Duration, error) {
	f.mu.RLock()
	t := f.queue[name]
	wait := usualRetry
	if t != nil && t.Status == statusRunning && t.Rate > 0 && t.Size > 0 {
		wait = time.Duration((t.Size-t.Done)/t.Rate) * time.Second
	}
	if t != nil && !t.NextTry.IsZero() {
		wait = time.Until(t.NextTry)
	}
	f.mu.RUnlock()
	wait = min(max(wait, shortestRetry), longestRetry)
	o := cabOrder(f.whoAsks(r), false)
	if name != microsoft.ScanCabName {
		file, _ := f.node.cat.fileNamed(name)
		o = order{kind: kindUpdate, file: name, title: file.title, by: f.whoAsks(r), size: file.Size, hosts: askedFirst, forced: true}
	}
	_, err := f.order(r.Context(), []order{o}, nil)
	return wait, err
}

// askedFirst is more hosts than a mesh has: what a host asks for now goes
// before what hosts will ask for later.
const askedFirst = 1 << 20

// whoAsks names the caller: a host by its certificate, or an address.
func (f *folder) whoAsks(r *http.Request) string {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		id := agentproto.HostID(r.TLS.PeerCertificates[0].Subject.CommonName)
		c := f.node.cat
		c.mu.RLock()
		defer c.mu.RUnlock()
		if h := c.hosts[id]; h != nil && h.Facts.Name != "" {
			return "host " + h.Facts.Name
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	return "host " + host
}

// list is the listing, where the configuration wants one.
func (f *folder) list(w http.ResponseWriter) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var b strings.Builder
	b.WriteString("<!doctype html><meta charset=utf-8><title>waptwua</title><pre>\n")
	for _, name := range slices.Sorted(maps.Keys(f.held)) {
		h, text := f.held[name], html.EscapeString(name)
		fmt.Fprintf(&b, "%s %14d <a href=\"%s\">%s</a>\n", h.Modified.UTC().Format("2006-01-02 15:04"), h.Bytes, text, text)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	io.WriteString(w, b.String())
}

// A meter counts the bytes that pass. It keeps the io.ReaderFrom of what it
// wraps: on plain HTTP that is the kernel's sendfile.
type meter struct {
	http.ResponseWriter
	sent func(int64) int64
	conn *joiningConn // of the request; may be nil
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.ResponseWriter.Write(p)
	m.sent(int64(n))
	return n, err
}

// ReadFrom implements [io.ReaderFrom].
func (m *meter) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok && l.N <= small {
		return m.sendSmall(l)
	}
	n, err := io.Copy(m.ResponseWriter, r)
	m.sent(n)
	return n, err
}

// Unwrap lets [http.ResponseController] through.
func (m *meter) Unwrap() http.ResponseWriter { return m.ResponseWriter }
