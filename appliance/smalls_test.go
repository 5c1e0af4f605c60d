package appliance_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wuamesh/agentproto/rules"
)

// TestSmallFiles asks for files about as large as the buffers on their way, on
// one connection each of HTTP/1.1, with TLS and without, and of HTTP/2, several
// at once: whole, in part, and when they are known.
func TestSmallFiles(t *testing.T) {
	files := map[string][]byte{}
	for _, n := range []int{1, 511, 512, 513, 2047, 2049, 3600, 3700, 3800, 4000, 4096, 4097, 8192, 32<<10 - 1, 32 << 10, 32<<10 + 1, 40_000} {
		name, b := payload(fmt.Sprint("kb", n), ".cab", n)
		files[name] = b
	}
	s := startWith(t, files, nil)
	two := insecure()
	two.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	var sent int64
	for _, via := range []struct {
		client *http.Client
		base   string
		major  int
	}{{insecure(), s.FolderURL(), 1}, {insecure(), s.URL() + "/waptwua/", 1}, {two, s.URL() + "/waptwua/", 2}} {
		ask := func(method, name string, header ...string) (*http.Response, []byte) {
			req, err := http.NewRequestWithContext(t.Context(), method, via.base+name, nil)
			if err != nil {
				t.Error(err)
				return &http.Response{}, nil
			}
			for i := 0; i < len(header); i += 2 {
				req.Header.Set(header[i], header[i+1])
			}
			resp, err := via.client.Do(req)
			if err != nil {
				t.Error(err)
				return &http.Response{}, nil
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || resp.ProtoMajor != via.major {
				t.Errorf("%s of %s over %s: %v", method, name, resp.Proto, err)
			}
			return resp, got
		}
		var wg sync.WaitGroup
		for name, b := range files {
			wg.Go(func() {
				etag := fmt.Sprintf(`"%x"`, sha256.Sum256(b))
				for range 3 {
					if resp, got := ask("GET", name); resp.StatusCode != 200 || !bytes.Equal(got, b) || resp.ContentLength != int64(len(b)) || resp.Header.Get("ETag") != etag {
						t.Errorf("%s: %d, %d bytes", name, resp.StatusCode, len(got))
					}
					if resp, got := ask("GET", name, "If-None-Match", etag); resp.StatusCode != 304 || len(got) > 0 {
						t.Errorf("%s is known: %d, %d bytes", name, resp.StatusCode, len(got))
					}
					if resp, got := ask("HEAD", name); resp.StatusCode != 200 || resp.ContentLength != int64(len(b)) || len(got) > 0 {
						t.Errorf("head of %s: %d, %d bytes", name, resp.StatusCode, len(got))
					}
					if resp, got := ask("GET", name, "Range", "bytes=-300"); resp.StatusCode != 206 || !bytes.Equal(got, b[max(0, len(b)-300):]) {
						t.Errorf("end of %s: %d, %d bytes", name, resp.StatusCode, len(got))
					}
				}
			})
			sent += 3 * int64(len(b)+min(len(b), 300))
		}
		wg.Wait()
	}
	if st, err := s.Status(t.Context()); err != nil || st.ToAgents != sent {
		t.Errorf("%d bytes are counted as sent, not %d: %v", st.ToAgents, sent, err)
	}
}

// TestASmallFileIsSeenToChange changes a file in the folder in every way after
// it was served, when it is in memory.
func TestASmallFileIsSeenToChange(t *testing.T) {
	name, b := payload("kb", ".cab", 4000)
	wrong := bytes.ToUpper(bytes.Repeat([]byte("x"), len(b)))
	s := startWith(t, map[string][]byte{name: b}, nil)
	path := filepath.Join(s.dir, "waptwua", name)
	served := func() bool {
		resp, got := get(t, "GET", s.FolderURL()+name)
		if resp.StatusCode == 200 && !bytes.Equal(got, b) {
			t.Errorf("wrong bytes are served: %.20q", got)
		}
		return resp.StatusCode == 200
	}
	for what, change := range map[string]func() error{
		"other bytes": func() error { return os.WriteFile(path, wrong, 0o644) },
		"other size":  func() error { return os.WriteFile(path, b[:100], 0o644) },
		"deleted":     func() error { return os.Remove(path) },
		"replaced": func() error {
			return errors.Join(os.WriteFile(path+".new", wrong, 0o644), os.Rename(path+".new", path))
		},
		"a directory":    func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o755)) },
		"a link to it":   func() error { return errors.Join(os.Rename(path, path+".old"), os.Symlink(name+".old", path)) },
		"another's link": func() error { return errors.Join(os.Remove(path), os.Symlink("/etc/passwd", path)) },
	} {
		if !served() {
			t.Fatal(what, ": not served before")
		}
		must(t, change())
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			// Times of files move in steps of some milliseconds; within one, what is
			// in memory is still served, which are the right bytes.
			must(t, os.Chtimes(path, time.Time{}, info.ModTime().Add(time.Second)))
		}
		if served() {
			t.Error(what, ": still served")
		}
		eventually(t, what+": it was verified", func() error {
			resp, _ := get(t, "GET", s.FolderURL()+name)
			if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && resp.StatusCode != 404 {
				return errors.New(resp.Status)
			}
			return nil
		})
		must(t, errors.Join(os.RemoveAll(path), os.RemoveAll(path+".old")))
		put(t, s.dir, name, b)
		eventually(t, what+": it is back", func() error { return errors.Join(s.Look(t.Context()), s.serves(name)()) })
	}
}

// TestASmallFileRots changes a file so that it looks as before while the node
// is down: when it is read first it is seen to be wrong.
func TestASmallFileRots(t *testing.T) {
	name, b := payload("kb", ".cab", 4000)
	s := startWith(t, map[string][]byte{name: b}, nil)
	s.stop()
	path := filepath.Join(s.dir, "waptwua", name)
	info, err := os.Stat(path)
	must(t, err)
	b[1234] ^= 1
	must(t, os.WriteFile(path, b, 0o644))
	must(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
	s = startIn(t, s.dir, s.world, "http://127.0.0.1:1", nil)
	for range 2 {
		if resp, _ := get(t, "GET", s.FolderURL()+name); resp.StatusCode == 200 {
			t.Error("it is served")
		}
	}
}

// TestSmallFilesAreForgotten asks for more small files than may be in memory.
func TestSmallFilesAreForgotten(t *testing.T) {
	files := map[string][]byte{}
	for i := range 5 {
		name, b := payload(fmt.Sprint("kb", i), ".cab", 30_000+i)
		files[name] = b
	}
	s := startWith(t, files, nil)
	s.KeepInMemory(70_000)
	for range 3 {
		for name, b := range files {
			if _, got := get(t, "GET", s.FolderURL()+name); !bytes.Equal(got, b) {
				t.Errorf("%s: %d bytes", name, len(got))
			}
			if n := s.InMemory(); n > 70_000 || n < int64(len(b)) {
				t.Errorf("%d bytes are in memory", n)
			}
		}
	}
}

// TestEscapedNames asks for a held file in ways that only mean its name.
func TestEscapedNames(t *testing.T) {
	name, b := payload("kb", ".cab", 4000)
	s := startWith(t, map[string][]byte{name: b}, nil)
	host := strings.TrimPrefix(s.FolderURL(), "http://")
	host, _, _ = strings.Cut(host, "/")
	for path, want := range map[string]int{
		"waptwua/" + name: 200, "waptwua/%6b" + name[1:]: 200, "waptwua%2f" + name: 301, "/waptwua/" + name: 307, "waptwua//" + name: 307,
		"waptwua/./" + name: 307, "x/../waptwua/" + name: 307, "waptwua/%2e/" + name: 0, "waptwua/" + name + "/": 404,
	} {
		status, got := rawGet(t, host+"/", path)
		if want == 0 && status == 200 || want != 0 && status != want || status == 200 && !bytes.Equal(got, b) {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}
}

// TestAStopCutsSmallFiles asks for one file more often than buffers hold, and
// reads no answer until it is under an emergency stop: by requests that the
// node answers by itself, and by such as net/http answers.
func TestAStopCutsSmallFiles(t *testing.T) {
	t.Parallel()
	world, sites := branches(t, 10_000, "hq-01")
	s := sites[0]
	list, byID := described(world)
	u, name := list[0], list[0].Files[0].Name
	s.allow(t)
	s.enrol(t, 1, s.enrolToken(t, 1)).report(t, needs(u), byID)
	eventually(t, "served", s.serves(name))
	_, whole := get(t, "GET", s.FolderURL()+name)

	if len(whole) > 32<<10 {
		t.Fatalf("%d bytes are not small", len(whole))
	}
	for _, request := range []string{aligned(name), "GET /waptwua/" + name + " HTTP/1.1\r\nHost: node\r\nX-Other: 1\r\n\r\n"} {
		s.cutsAt(t, u.ID, name, request, whole)
		must(t, s.UndoStop(t.Context(), owner, u.ID))
		eventually(t, "served again", s.serves(name))
	}
}

func (s *site) cutsAt(t *testing.T, update rules.UpdateID, name, request string, whole []byte) {
	t.Helper()
	w := s.wire(t)
	const times = 5000 // nearly 100 MB
	go io.WriteString(w, strings.Repeat(request, times))
	read := func() (int, []byte, error) {
		resp, err := http.ReadResponse(w.in, nil)
		if err != nil {
			return 0, nil, err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, b, err
	}
	if code, b, err := read(); code != 200 || !bytes.Equal(b, whole) || err != nil {
		t.Fatal(code, err)
	}
	s.sendsNoMore(t)
	must(t, s.Stop(t.Context(), owner, update, "blue screens"))
	s.refuses(t, name, "blue screens")
	got, last := 1, 200
	for {
		code, b, err := read()
		if err != nil {
			break // cut
		}
		if code == 200 && (last != 200 || !bytes.Equal(b, whole)) {
			t.Fatalf("%d bytes after %d", len(b), last)
		}
		if last = code; code == 200 {
			got++
		} else if got++; got == times {
			break // the writes had not come to a stand when the stop came
		}
	}
	if last == 200 && got == times {
		t.Error("all were sent")
	}
}

// TestKeysChangeWhileSmallFilesAreSent has a client ask for new keys (RFC 8446,
// section 4.6.3) right after each of its requests: crypto/tls answers that from
// the goroutine that reads, while the file is sent.
func TestKeysChangeWhileSmallFilesAreSent(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs openssl; packaging/check installs it")
	}
	name, b := payload("kb", ".cab", 30_000)
	s := startWith(t, map[string][]byte{name: b}, nil)
	eventually(t, "served", s.serves(name))
	stdin, typed, err := os.Pipe()
	must(t, err)
	defer typed.Close()
	cmd := exec.CommandContext(t.Context(), openssl, "s_client", "-brief", "-tls1_3", "-connect", strings.TrimPrefix(s.URL(), "https://"))
	cmd.Stdin, cmd.Stderr = stdin, t.Output()
	answers, err := cmd.StdoutPipe()
	must(t, errors.Join(err, cmd.Start(), stdin.Close()))
	defer cmd.Wait()
	defer cmd.Process.Kill()
	in := bufio.NewReader(answers)
	// What is typed while the last of it waits would be one text with it.
	enter := func(text string) {
		t.Helper()
		_, err := io.WriteString(typed, text)
		must(t, err)
		eventually(t, "openssl has read "+text[:1], func() error {
			if n, err := unix.IoctlGetInt(int(typed.Fd()), unix.TIOCINQ); err != nil || n > 0 {
				return fmt.Errorf("%d bytes wait, %v", n, err)
			}
			return nil
		})
	}
	for i := range 100 {
		enter("GET /waptwua/" + name + " HTTP/1.1\r\nHost: node\r\n\r\n")
		enter("K\n")
		resp, err := http.ReadResponse(in, nil)
		must(t, err)
		got, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 || !bytes.Equal(got, b) {
			t.Fatalf("answer %d: %s, %d bytes, %v", i, resp.Status, len(got), err)
		}
	}
}
