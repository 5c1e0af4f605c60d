package appliance_test

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wuamesh/appliance"
	"wuamesh/appliance/microsoft"
	"wuamesh/appliance/microsoft/microsofttest"
	"wuamesh/replicate/swarm"
)

// payload makes a file as Microsoft names it: the SHA-1 before the extension.
func payload(stem, ext string, n int) (name string, b []byte) {
	b = make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n), 7})
	r.Read(b)
	return fmt.Sprintf("%s_%x%s", stem, sha1.Sum(b), ext), b
}

// put writes a file into a node's folder from outside, as an admin would.
func put(t testing.TB, dir, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(dir, "waptwua", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// startWith runs a node whose folder has these files, and waits until each is
// served.
func startWith(t testing.TB, files map[string][]byte, change func(*appliance.Config)) *site {
	t.Helper()
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 100_000})
	srv := httptest.NewServer(world)
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	for name, b := range files {
		put(t, dir, name, b)
	}
	s := startIn(t, dir, world, srv.URL, change)
	for name := range files {
		eventually(t, name, s.serves(name))
	}
	return s
}

func (s *site) serves(name string) func() error {
	return func() error {
		resp, err := http.Head(s.FolderURL() + name)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	}
}

// get asks the folder for a file, with header fields in pairs.
func get(t testing.TB, method, url string, header ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := insecure().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

// TestRangesAndConditions asks for one file in every way HTTP knows, on both
// listeners.
func TestRangesAndConditions(t *testing.T) {
	name, b := payload("windows10.0-kb5091157-x64", ".cab", 100_000)
	s := startWith(t, map[string][]byte{name: b}, nil)
	sum := sha256.Sum256(b)
	etag := fmt.Sprintf(`"%x"`, sum)
	info, err := os.Stat(filepath.Join(s.dir, "waptwua", name))
	if err != nil {
		t.Fatal(err)
	}
	modified := info.ModTime().UTC().Format(http.TimeFormat)
	for _, base := range []string{s.FolderURL(), s.URL() + "/waptwua/"} {
		for _, tt := range []struct {
			what   string
			method string
			header []string
			status int
			body   []byte
		}{
			{"whole", "GET", nil, 200, b},
			{"head", "HEAD", nil, 200, nil},
			{"begin", "GET", []string{"Range", "bytes=0-9"}, 206, b[:10]},
			{"rest", "GET", []string{"Range", "bytes=99000-"}, 206, b[99_000:]},
			{"tail", "GET", []string{"Range", "bytes=-5"}, 206, b[99_995:]},
			{"behind the end", "GET", []string{"Range", "bytes=100000-"}, 416, nil},
			{"malformed range", "GET", []string{"Range", "bytes=x-"}, 416, nil},
			{"if-range, the same", "GET", []string{"Range", "bytes=10-19", "If-Range", etag}, 206, b[10:20]},
			{"if-range by date", "GET", []string{"Range", "bytes=10-19", "If-Range", modified}, 206, b[10:20]},
			{"if-range, another", "GET", []string{"Range", "bytes=10-19", "If-Range", `"other"`}, 200, b},
			{"if-range, weak", "GET", []string{"Range", "bytes=10-19", "If-Range", "W/" + etag}, 200, b},
			{"have it", "GET", []string{"If-None-Match", etag}, 304, nil},
			{"have it, head", "HEAD", []string{"If-None-Match", etag}, 304, nil},
			{"have another", "GET", []string{"If-None-Match", `"other"`}, 200, b},
			{"not modified", "GET", []string{"If-Modified-Since", modified}, 304, nil},
			{"must be another", "GET", []string{"If-Match", `"other"`}, 412, nil},
			{"write", "PUT", nil, 405, nil},
			{"delete", "DELETE", nil, 405, nil},
		} {
			resp, got := get(t, tt.method, base+name, tt.header...)
			if resp.StatusCode != tt.status {
				t.Errorf("%s: status %d, want %d", tt.what, resp.StatusCode, tt.status)
			}
			if tt.status < 300 && !bytes.Equal(got, tt.body) {
				t.Errorf("%s: %d bytes, want %d", tt.what, len(got), len(tt.body))
			}
			if tt.status == 200 {
				for field, want := range map[string]string{
					"ETag": etag, "Last-Modified": modified, "Content-Type": "application/vnd.ms-cab-compressed", "Content-Length": "100000", "Accept-Ranges": "bytes",
					"Repr-Digest": "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":", "Cache-Control": "public, max-age=31536000, immutable",
				} {
					if resp.Header.Get(field) != want {
						t.Errorf("%s: %s is %q, want %q", tt.what, field, resp.Header.Get(field), want)
					}
				}
			}
		}
		resp, got := get(t, "GET", base+name, "Range", "bytes=0-9,500-509,-10")
		_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		if err != nil || resp.StatusCode != 206 {
			t.Fatalf("several ranges: %s, %v", resp.Status, err)
		}
		r := multipart.NewReader(bytes.NewReader(got), params["boundary"])
		for _, want := range [][]byte{b[:10], b[500:510], b[99_990:]} {
			p, err := r.NextPart()
			if err != nil {
				t.Fatal(err)
			}
			if part, err := io.ReadAll(p); err != nil || !bytes.Equal(part, want) {
				t.Errorf("a part is %x, want %x: %v", part, want, err)
			}
		}
	}
	st, err := s.Status(t.Context())
	if want := 2 * int64(4*len(b)); err != nil || st.ToAgents < want || st.ToAgents > want+2*11_000 {
		t.Errorf("%d bytes are counted as sent, want a little over %d: %v", st.ToAgents, want, err)
	}
}

// TestNamesThatLeadNowhere asks, byte by byte as written, for what is not a
// file of the folder.
func TestNamesThatLeadNowhere(t *testing.T) {
	const secret = "this must not be read"
	name, b := payload("kb", ".cab", 1000)
	s := startWith(t, map[string][]byte{name: b}, nil)
	folder := filepath.Join(s.dir, "waptwua")
	put(t, s.dir, "../secret.txt", []byte(secret))
	put(t, s.dir, ".hidden", []byte(secret))
	put(t, s.dir, ".partial/half.cab", []byte(secret))
	put(t, s.dir, "sub/inner.cab", []byte(secret))
	put(t, s.dir, "unknown.cab", []byte(secret))
	linked := strings.Replace(name, "kb_", "kb2_", 1)
	for link, to := range map[string]string{"out.cab": "../secret.txt", "abs.cab": filepath.Join(s.dir, "secret.txt"), linked: name} {
		if err := os.Symlink(to, filepath.Join(folder, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"", "../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "%2e%2e%2fsecret.txt", "..\\secret.txt", "..%5csecret.txt", "%252e%252e%252fsecret.txt",
		"./" + name + "/../../secret.txt", "/etc/passwd", "%2fetc%2fpasswd", ".hidden", "%2ehidden", ".partial/half.cab", ".partial%2fhalf.cab", "sub", "sub/", "sub/inner.cab", "sub%2finner.cab",
		"out.cab", "abs.cab", linked, "unknown.cab", name + "/", name + ".", name + "%00", name + "%00.txt", name + "%20", name + "::$DATA", "con", "NUL.cab", "%ff", "%c0%ae%c0%ae%c0%afsecret.txt", strings.Repeat("a", 5000),
	} {
		status, body := rawGet(t, strings.TrimPrefix(s.FolderURL(), "http://"), path)
		if status != 400 && status != 404 && status/100 != 3 || bytes.Contains(body, []byte(secret)) || bytes.Contains(body, []byte("root:")) {
			t.Errorf("%q: %d %.100s", path, status, body)
		}
	}
	if status, _ := rawGet(t, strings.TrimPrefix(s.FolderURL(), "http://"), name); status != 200 {
		t.Errorf("the file itself: %d", status)
	}
	// The file replaced by a link to another one, with its size and time.
	path := filepath.Join(folder, name)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	twin := filepath.Join(folder, ".twin")
	if err := errors.Join(os.Rename(path, twin), os.Symlink(".twin", path), os.Chtimes(twin, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
	if status, _ := rawGet(t, strings.TrimPrefix(s.FolderURL(), "http://"), name); status == 200 {
		t.Error("a link is served in the place of a file")
	}
}

// rawGet sends the path as it is written; a client would tidy it up.
func rawGet(t testing.TB, at, path string) (int, []byte) {
	t.Helper()
	host, base, _ := strings.Cut(at, "/")
	c, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "GET /%s%s HTTP/1.1\r\nHost: node\r\n\r\n", base, path)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%q: %v", path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b
}

// FuzzFolderPath asks for any path: nothing but the one file is ever served.
func FuzzFolderPath(f *testing.F) {
	name, b := payload("kb", ".cab", 1000)
	s := startWith(f, map[string][]byte{name: b}, nil)
	put(f, s.dir, "sub/inner.cab", []byte("secret"))
	put(f, s.dir, ".hidden", []byte("secret"))
	h := s.HandleFolder()
	for _, seed := range []string{name, "", "..", "../data/store", ".hidden", "sub/inner.cab", name + "\x00", "a b", "wsusscn2.cab"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = "/waptwua/" + path
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code == 200 && path != name && path != microsoft.ScanCabName || strings.Contains(w.Body.String(), "secret") && !strings.Contains(path, "secret") {
			t.Errorf("%q: %d %.100s", path, w.Code, w.Body)
		}
	})
}

// spy is a connection that notes what it is given to send.
type spy struct {
	*net.TCPConn
	whole func(*os.File, int64)
}

func (c *spy) ReadFrom(r io.Reader) (int64, error) {
	src := r
	if l, ok := r.(*io.LimitedReader); ok {
		src = l.R
	}
	n, err := c.TCPConn.ReadFrom(r)
	if file, ok := src.(*os.File); ok {
		c.whole(file, n)
	}
	return n, err
}

type spies struct {
	net.Listener
	whole func(*os.File, int64)
}

func (l spies) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &spy{c.(*net.TCPConn), l.whole}, nil
}

// TestSendfile proves that on plain HTTP the file itself reaches the socket:
// that is what net.TCPConn hands to sendfile(2).
func TestSendfile(t *testing.T) {
	name, b := payload("kb", ".cab", 1<<20)
	s := startWith(t, map[string][]byte{name: b}, nil)
	var mu sync.Mutex
	var sent int64
	srv := httptest.NewUnstartedServer(s.HandleFolder())
	srv.Listener = spies{srv.Listener, func(_ *os.File, n int64) {
		mu.Lock()
		defer mu.Unlock()
		sent += n
	}}
	srv.Start()
	defer srv.Close()
	if _, got := get(t, "GET", srv.URL+"/waptwua/"+name); !bytes.Equal(got, b) {
		t.Fatalf("%d bytes came", len(got))
	}
	srv.Close()
	mu.Lock()
	defer mu.Unlock()
	if want := int64(len(b) - 1024); sent < want { // net/http looks at the first half kilobyte itself
		t.Errorf("%d bytes went from file to socket, want %d", sent, want)
	}
}

// TestListing shows the folder only where the configuration says so.
func TestListing(t *testing.T) {
	name, b := payload("kb", ".cab", 1000)
	s := startWith(t, map[string][]byte{name: b}, func(c *appliance.Config) { c.FolderListing = true })
	if resp, got := get(t, "GET", s.FolderURL()); resp.StatusCode != 200 || !bytes.Contains(got, []byte(`href="`+name+`"`)) {
		t.Errorf("%s %s", resp.Status, got)
	}
	closed := startWith(t, nil, nil)
	if resp, _ := get(t, "GET", closed.FolderURL()); resp.StatusCode != 404 {
		t.Errorf("a listing nobody asked for: %s", resp.Status)
	}
}

func BenchmarkFolder(b *testing.B) {
	const size = 64 << 20
	name, content := payload("kb", ".cab", size)
	s := startWith(b, map[string][]byte{name: content}, nil)
	for what, base := range map[string]string{"plain": s.FolderURL(), "tls": s.URL() + "/waptwua/"} {
		b.Run(what, func(b *testing.B) {
			client := insecure()
			b.SetBytes(size)
			for b.Loop() {
				resp, err := client.Get(base + name)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size {
					b.Fatal(n, err)
				}
				resp.Body.Close()
			}
		})
	}
}

// TestAThousandAgentsOneFetch has a thousand agents ask a branch at once for a
// file that it lacks: it crosses the line from headquarters once, came from
// Microsoft once, and every one of them gets all of it.
func TestAThousandAgentsOneFetch(t *testing.T) {
	t.Parallel()
	const agents = 1000
	world, list := branches(t, 300_000, "hq-01", "brs-01")
	hq, branch := list[0], list[1]
	limit(t, branch, appliance.Limits{WANDown: swarm.Plan{Rate: swarm.Never}})
	name := branch.wants(t, 1)[0]
	hq.has(t, name, status("done"))
	want, err := os.ReadFile(filepath.Join(hq.dir, "waptwua", name))
	if err != nil {
		t.Fatal(err)
	}
	var asked, wrong atomic.Int64
	all := make(chan struct{})
	var wg sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: agents}}
	defer client.CloseIdleConnections()
	for range agents {
		wg.Go(func() {
			if asked.Add(1) == agents {
				close(all)
			}
			for {
				resp, err := client.Get(branch.FolderURL() + name)
				if err != nil {
					wrong.Add(1)
					return
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode == http.StatusServiceUnavailable {
					time.Sleep(200 * time.Millisecond) // an agent waits for longer
					continue
				}
				if err != nil || !bytes.Equal(got, want) {
					wrong.Add(1)
				}
				return
			}
		})
	}
	<-all
	limit(t, branch, appliance.Limits{})
	wg.Wait()
	if n := wrong.Load(); n > 0 {
		t.Errorf("%d agents of %d did not get the file", n, agents)
	}
	if k := branch.has(t, name, status("done")); k.Peers != k.Size {
		t.Errorf("%d bytes crossed the line for a file of %d", k.Peers, k.Size)
	}
	if r := world.Requests()[name]; r.Gets != 1 || r.Bytes != int64(len(want)) {
		t.Errorf("Microsoft was asked %d times and sent %d bytes of %d", r.Gets, r.Bytes, len(want))
	}
}
