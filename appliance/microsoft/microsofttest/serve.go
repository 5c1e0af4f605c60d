package microsofttest

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"path"
	"time"
)

// CabPath is where the scan cab is served.
const CabPath = "/microsoftupdate/v6/wsusscan/wsusscn2.cab"

// A Count is what was asked of one file.
type Count struct {
	Gets        int   // answers with content, whole or in part
	Bytes       int64 // of content
	NotModified int
}

// A Fault spoils one answer.
type Fault struct {
	Status      int   // answer this instead
	Truncate    int64 // cut the connection after so many bytes of content
	Corrupt     bool  // change a byte of the content
	IgnoreRange bool
	Redirect    string
	Delay       time.Duration // wait before answering
}

// Fault spoils the next answers for the file of that name, in order.
func (w *World) Fault(name string, faults ...Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults[name] = append(w.faults[name], faults...)
}

// Requests is what was asked so far, by file name.
func (w *World) Requests() map[string]Count {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make(map[string]Count, len(w.counts))
	for k, v := range w.counts {
		all[k] = v
	}
	return all
}

// ServeHTTP serves the cab and the files with ranges and conditions.
func (w *World) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	name := path.Base(r.URL.Path)
	content, modified, etag, fault := w.find(r.URL.Path, name)
	if content == nil {
		http.NotFound(rw, r)
		return
	}
	if fault.Delay > 0 {
		select {
		case <-time.After(fault.Delay):
		case <-r.Context().Done():
			return
		}
	}
	switch {
	case fault.Redirect != "":
		http.Redirect(rw, r, fault.Redirect, http.StatusFound)
		return
	case fault.Status != 0:
		http.Error(rw, http.StatusText(fault.Status), fault.Status)
		return
	case fault.IgnoreRange:
		r.Header.Del("Range")
	}
	rw.Header().Set("ETag", etag)
	rw.Header().Set("Content-Type", "application/octet-stream")
	m := &meter{ResponseWriter: rw, fault: fault}
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		c := w.counts[name]
		switch {
		case m.status == http.StatusNotModified:
			c.NotModified++
		case r.Method == http.MethodGet && (m.status == http.StatusOK || m.status == http.StatusPartialContent):
			c.Gets++
			c.Bytes += m.n
		}
		w.counts[name] = c
	}()
	http.ServeContent(m, r, name, modified, content)
}

func (w *World) find(at, name string) (content io.ReadSeeker, modified time.Time, etag string, fault Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if at == CabPath {
		content = bytes.NewReader(w.cab)
		etag = fmt.Sprintf(`"%x:%x"`, w.modified.Unix(), crc32.ChecksumIEEE(w.cab))
	} else if f, ok := w.files[at]; ok {
		content, etag = f.content(), `"`+f.SHA1[:16]+`"`
	} else {
		return nil, modified, "", fault
	}
	if list := w.faults[name]; len(list) > 0 {
		fault, w.faults[name] = list[0], list[1:]
	}
	return content, w.modified, etag, fault
}

// A meter counts content and spoils it as the fault says.
type meter struct {
	http.ResponseWriter
	fault  Fault
	status int
	n      int64
}

func (m *meter) WriteHeader(status int) {
	m.status = status
	m.ResponseWriter.WriteHeader(status)
}

func (m *meter) Write(p []byte) (int, error) {
	if m.status == 0 {
		m.status = http.StatusOK
	}
	if m.fault.Corrupt && m.n == 0 && len(p) > 0 {
		p = bytes.Clone(p)
		p[0] ^= 0xff
	}
	if t := m.fault.Truncate; t > 0 && m.n+int64(len(p)) > t {
		n, _ := m.ResponseWriter.Write(p[:max(t-m.n, 0)])
		m.n += int64(n)
		http.NewResponseController(m.ResponseWriter).Flush()
		panic(http.ErrAbortHandler) // cuts the connection
	}
	n, err := m.ResponseWriter.Write(p)
	m.n += int64(n)
	return n, err
}
