package appliance_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"wuamesh/appliance"
	"wuamesh/replicate/swarm"
)

// A wire is a connection to a node's plain listener, on which requests are
// written as they are.
type wire struct {
	net.Conn
	in *bufio.Reader
}

func (s *site) wire(t testing.TB) *wire {
	t.Helper()
	at, _, _ := strings.Cut(strings.TrimPrefix(s.FolderURL(), "http://"), "/")
	c, err := net.Dial("tcp", at)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return &wire{c, bufio.NewReader(c)}
}

func (w *wire) write(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

// read is the next answer; at the end of the connection it is nil.
func (w *wire) read(t testing.TB) (*http.Response, []byte) {
	t.Helper()
	resp, err := http.ReadResponse(w.in, nil)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return nil, nil
	}
	must(t, err)
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp, b
}

// TestSmallFilesAreAnsweredAlike asks for files by requests that the node
// answers by itself, and by the same ones with a field that makes them
// net/http's.
func TestSmallFilesAreAnsweredAlike(t *testing.T) {
	files := map[string][]byte{}
	for i, ext := range []string{".cab", ".exe", ".msu", ".psf"} {
		name, b := payload("kb", ext, 1<<(5*i))
		files[name] = b
	}
	s := startWith(t, files, nil)
	for name, b := range files {
		eventually(t, "served", s.serves(name))
		for _, fields := range []string{"Host: node\r\n", "host:node\r\nUser-Agent: x\r\nACCEPT: */*\r\nConnection: Keep-Alive\r\n", "Host:\r\nAccept-Encoding: gzip, deflate\r\n"} {
			w := s.wire(t)
			request := "GET /waptwua/" + name + " HTTP/1.1\r\n" + fields
			w.write(t, request+"\r\n")
			own, got := w.read(t)
			w.write(t, request+"\r\n")
			again, _ := w.read(t)
			w.write(t, request+"X-Other: 1\r\n\r\n")
			theirs, want := w.read(t)
			for _, resp := range []*http.Response{own, again, theirs} {
				if at, err := http.ParseTime(resp.Header.Get("Date")); err != nil || time.Since(at).Abs() > time.Minute {
					t.Errorf("the date is %q", resp.Header["Date"])
				}
				resp.Header.Del("Date")
			}
			if !bytes.Equal(got, b) || !bytes.Equal(want, b) || own.StatusCode != 200 {
				t.Errorf("%s: %s, %d bytes, %s, %d bytes", name, own.Status, len(got), theirs.Status, len(want))
			}
			for _, mine := range []*http.Response{own, again} {
				if a, b := fmt.Sprint(mine.Status, mine.Proto, mine.ContentLength, mine.Header), fmt.Sprint(theirs.Status, theirs.Proto, theirs.ContentLength, theirs.Header); a != b {
					t.Errorf("the node answers\n%s, net/http\n%s", a, b)
				}
			}
		}
	}
}

// TestOddRequests has requests for a small file that call for more than the
// file, on a connection that has had one already.
func TestOddRequests(t *testing.T) {
	name, b := payload("kb", ".cab", 4000)
	s := startWith(t, map[string][]byte{name: b}, nil)
	get := "GET /waptwua/" + name + " HTTP/1.1\r\n"
	plain := get + "Host: node\r\n\r\n"
	for what, tt := range map[string]struct {
		request string
		want    []int // codes of the answers; the last is followed by the end of the connection when it is 0
	}{
		"none":               {get + "\r\n", []int{400, 0}},
		"two hosts":          {get + "Host: a\r\nHost: b\r\n\r\n", []int{400, 0}},
		"no such host":       {get + "Host: a b\r\n\r\n", []int{400, 0}},
		"a folded field":     {get + "Host: node\r\nUser-Agent: a\r\n b\r\n\r\n", []int{200, 200}},
		"a bare line feed":   {get + "Host: node\nRange: bytes=0-9\r\n\r\n", []int{206, 200}},
		"no name of a field": {get + "Host: node\r\n: x\r\n\r\n", []int{400, 0}},
		"a space after one":  {get + "Host: node\r\nAccept : x\r\n\r\n", []int{400, 0}},
		"a control":          {get + "Host: node\r\nAccept: \x01\r\n\r\n", []int{400, 0}},
		"the end":            {get + "Host: node\r\nConnection: close\r\n\r\n", []int{200, 0}},
		"an old client":      {"GET /waptwua/" + name + " HTTP/1.0\r\nHost: node\r\n\r\n", []int{200, 0}},
		"a part":             {get + "Host: node\r\nRange: bytes=5-6\r\n\r\n", []int{206, 200}},
		"another if changed": {get + "Host: node\r\nIf-None-Match: *\r\n\r\n", []int{304, 200}},
		"another if not":     {get + "Host: node\r\nIf-Match: \"x\"\r\n\r\n", []int{412, 200}},
		"a query":            {"GET /waptwua/" + name + "?x HTTP/1.1\r\nHost: node\r\n\r\n", []int{200, 200}},
		"whole":              {"GET http://node/waptwua/" + name + " HTTP/1.1\r\nHost: node\r\n\r\n", []int{200, 200}},
		"another file":       {"GET /waptwua/other.cab HTTP/1.1\r\nHost: node\r\n\r\n", []int{404, 200}},
		"no file":            {"GET /waptwua/ HTTP/1.1\r\nHost: node\r\n\r\n", []int{404, 200}},
		"elsewhere":          {"GET /x HTTP/1.1\r\nHost: node\r\n\r\n", []int{301, 200}},
		"a body":             {get + "Host: node\r\nContent-Length: " + fmt.Sprint(len(plain)) + "\r\n\r\n" + plain, []int{200, 200}},
		"a body in chunks":   {get + "Host: node\r\nTransfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(plain), plain), []int{200, 200}},
		"another method":     {"POST /waptwua/" + name + " HTTP/1.1\r\nHost: node\r\nContent-Length: " + fmt.Sprint(len(plain)) + "\r\n\r\n" + plain, []int{405, 200}},
		"three":              {plain + plain + plain, []int{200, 200, 200, 200}},
		"one and a half":     {plain + get, []int{200, 400, 0}},
	} {
		w := s.wire(t)
		w.write(t, plain)
		if resp, got := w.read(t); resp == nil || resp.StatusCode != 200 || !bytes.Equal(got, b) {
			t.Fatalf("%s: the first is %v, %d bytes", what, resp, len(got))
		}
		w.write(t, tt.request)
		for i, want := range tt.want {
			if want == 200 && i == len(tt.want)-1 {
				w.write(t, plain)
			}
			if what == "one and a half" && i == 1 {
				w.write(t, "\r\n")
			}
			switch resp, got := w.read(t); {
			case want == 0 && resp != nil, want != 0 && (resp == nil || resp.StatusCode != want):
				t.Errorf("%s: answer %d is %v, want %d", what, i, resp, want)
			case want == 200 && !bytes.Equal(got, b):
				t.Errorf("%s: answer %d has %d bytes", what, i, len(got))
			}
		}
	}
	for i := range len(plain) - 1 { // a request that comes in two parts
		w := s.wire(t)
		w.write(t, plain+plain[:1+i])
		w.read(t)
		w.write(t, plain[1+i:])
		if resp, got := w.read(t); resp == nil || resp.StatusCode != 200 || !bytes.Equal(got, b) {
			t.Fatalf("split at %d: %v, %d bytes", i+1, resp, len(got))
		}
	}
}

// TestOnlyTheRestIsPassedOn looks at what net/http gets to see of a connection:
// nothing of the requests that the node answers by itself, all of the first one
// that it does not.
func TestOnlyTheRestIsPassedOn(t *testing.T) {
	name, b := payload("kb", ".cab", 4000)
	large, l := payload("kb", ".cab", 40_000)
	s := startWith(t, map[string][]byte{name: b, large: l}, nil)
	eventually(t, "served", s.serves(large))
	get := "GET /waptwua/" + name + " HTTP/1.1\r\nHost: node\r\n"
	for _, rest := range []string{
		get + "Range: bytes=0-9\r\n\r\n" + get + "\r\n", get + "Connection: close\r\n\r\n", "GET /waptwua/" + large + " HTTP/1.1\r\nHost: node\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: node\r\n\r\n", get, "G", "\x16\x03\x01", get + "Host: node\r\n\r\n",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		must(t, err)
		defer c.Close()
		w := &wire{c, bufio.NewReader(c)}
		w.write(t, get+"\r\n"+get+"User-Agent: x\r\n\r\n"+rest)
		of, err := l.Accept()
		must(t, err)
		defer of.Close()
		if passed, err := s.PassedOn(t.Context(), of.(*net.TCPConn)); passed != rest || err != nil {
			t.Errorf("passed on is %q, %v, not %q", passed, err, rest)
		}
		for range 2 {
			if resp, got := w.read(t); resp == nil || resp.StatusCode != 200 || !bytes.Equal(got, b) {
				t.Errorf("before %q: %v, %d bytes", rest, resp, len(got))
			}
		}
	}
}

// FuzzPlainRequest looks for a request that the node answers by itself and
// net/http reads otherwise.
func FuzzPlainRequest(f *testing.F) {
	f.Add([]byte("GET /waptwua/a.cab HTTP/1.1\r\nHost: node\r\nUser-Agent: x\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n"))
	f.Add([]byte("GET /waptwua/a.cab HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"))
	f.Add([]byte("GET /waptwua/a HTTP/1.1\r\nHost: a\r\n Range: b\r\n\r\n"))
	f.Add([]byte("GET /waptwua/ HTTP/1.1\r\nHost:a\r\n\r\n"))
	f.Add([]byte("GET /waptwua/ HTTP/1.1\r\nHost\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		end := bytes.Index(b, []byte("\r\n\r\n")) + 4
		if end < 4 {
			return
		}
		name, plain := appliance.AsksPlainly(b[:end])
		if !plain || strings.ContainsAny(name, "%?#/ ") { // nothing in the folder has such a name
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			t.Fatalf("net/http says of %q: %v", b[:end], err)
		}
		for _, key := range []string{"User-Agent", "Accept", "Accept-Encoding", "Accept-Language", "Connection"} {
			r.Header.Del(key)
		}
		if r.Method != "GET" || r.URL.Path != "/waptwua/"+name || r.ContentLength != 0 || r.TransferEncoding != nil || r.Close || !r.ProtoAtLeast(1, 1) || len(r.Header) > 0 {
			t.Errorf("%q asks for %q: %+v", b[:end], name, r)
		}
	})
}

// TestSmallFilesObeyLimits sets limits of what goes to agents while a
// connection has had small files without.
func TestSmallFilesObeyLimits(t *testing.T) {
	t.Parallel()
	name, b := payload("kb", ".cab", 30_000)
	s := startWith(t, map[string][]byte{name: b}, func(c *appliance.Config) { c.Site = "rennes" })
	w := s.wire(t)
	ask := func(code int) *http.Response {
		t.Helper()
		w.write(t, "GET /waptwua/"+name+" HTTP/1.1\r\nHost: node\r\n\r\n")
		resp, got := w.read(t)
		if resp == nil || resp.StatusCode != code || code == 200 && !bytes.Equal(got, b) {
			t.Fatalf("%v, %d bytes, want %d", resp, len(got), code)
		}
		return resp
	}
	ask(200)
	set := func(p swarm.Plan) { must(t, s.SetSiteLimits(t.Context(), owner, "", appliance.Limits{Agents: p})) }
	set(swarm.Plan{Rate: swarm.Never})
	if resp := ask(503); resp.Header.Get("Retry-After") == "" {
		t.Error("nothing says when to ask again")
	}
	set(swarm.Plan{})
	w = s.wire(t)
	ask(200)
	set(swarm.Plan{Rate: 20_000}) // a second's worth is lent
	began := time.Now()
	for range 3 {
		ask(200)
	}
	if took := time.Since(began); took < 2*time.Second { // what is slower on a busy machine does not matter
		t.Errorf("90,000 bytes took %v at 20,000 a second", took)
	}
}

// TestTheEndOfSmallFiles ends a node while one client asks again and again and
// another is silent: no answer is cut, and the connections end.
func TestTheEndOfSmallFiles(t *testing.T) {
	name, b := payload("kb", ".cab", 30_000)
	s := startWith(t, map[string][]byte{name: b}, nil)
	silent, busy := s.wire(t), s.wire(t)
	for _, w := range []*wire{silent, busy} {
		w.write(t, "GET /waptwua/"+name+" HTTP/1.1\r\nHost: node\r\n\r\n")
		w.read(t)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); s.stop() }()
	for {
		if _, err := io.WriteString(busy, "GET /waptwua/"+name+" HTTP/1.1\r\nHost: node\r\n\r\n"); err != nil {
			break
		}
		resp, err := http.ReadResponse(busy.in, nil)
		if err != nil {
			break
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	if resp, _ := silent.read(t); resp != nil {
		t.Errorf("an answer without a question: %v", resp)
	}
	<-ended
}

// aligned is a request for a file that is as long as a part of net/http's
// buffer, so that a read of many has no half of one at its end.
func aligned(name string) string {
	const size = 256
	r := "GET /waptwua/" + name + " HTTP/1.1\r\nHost: node\r\nUser-Agent: "
	return r + strings.Repeat("x", size-len(r)-len("\r\n\r\n")) + "\r\n\r\n"
}

// sendsNoMore waits until the buffers to a client that does not read are full.
func (s *site) sendsNoMore(t *testing.T) {
	t.Helper()
	was := int64(-1)
	eventually(t, "the buffers are full", func() error {
		st, err := s.Status(t.Context())
		if more := st.ToAgents - was; err != nil || more > 0 {
			was = st.ToAgents
			return fmt.Errorf("%d bytes more, %v", more, err)
		}
		return nil
	})
}
