package microsoft

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A File is what is to be downloaded, and how it is recognised: at least one
// digest must be known.
type File struct {
	Name         string
	URL          string
	Size         int64  // bytes; 0 unknown
	SHA1, SHA256 []byte // nil unknown
}

// DownloadOptions bound and watch one download.
type DownloadOptions struct {
	// Began is called when bytes begin to come, with the file they are
	// appended to; it may be nil.
	Began func(path string, v Version)
	// Progress is called now and then with the bytes on disk and in all;
	// total is -1 while unknown.
	Progress func(done, total int64)
	// Throttle is called with the bytes that came, before more are read; it
	// may be nil.
	Throttle func(ctx context.Context, n int) error
	// Floor is what must stay free on the disk, in bytes.
	Floor int64
}

// A Version is what a server says of a file, by which a download goes on with
// the same one (RFC 9110, section 8.8).
type Version struct {
	Size               int64 // bytes
	ETag, LastModified string
}

// A Result is a file that passed every check.
type Result struct {
	Size    int64
	SHA1    [20]byte
	SHA256  [32]byte
	Fetched int64 // bytes moved over the wire this time
}

// A StatusError is an answer other than the file.
type StatusError struct {
	URL   string
	Code  int
	After time.Duration // what Retry-After asked for; zero for nothing
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s answered %d %s", e.URL, e.Code, http.StatusText(e.Code))
}

// A MismatchError is a file that is not what it should be; it was thrown away.
type MismatchError struct{ Name, What, Want, Got string }

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s has %s %s, not %s", e.Name, e.What, e.Got, e.Want)
}

// A FullError is a disk without room for the file.
type FullError struct{ Free, Need int64 }

func (e *FullError) Error() string {
	return fmt.Sprintf("%d MB free, %d MB needed", e.Free>>20, e.Need>>20)
}

// errStalled is a transfer that moved nothing for a while; it is resumed by
// the next try.
var errStalled = errors.New("nothing arrived for a minute")

const (
	partialDir = ".partial"
	maxSize    = 64 << 30
	stall      = time.Minute
)

// flights keep a file from being fetched twice at once.
type flights struct {
	mu   sync.Mutex
	open map[string]chan struct{}
}

// board waits until nobody else fetches name, then reserves it.
func (f *flights) board(ctx context.Context, name string) error {
	for {
		f.mu.Lock()
		other, busy := f.open[name]
		if !busy {
			if f.open == nil {
				f.open = map[string]chan struct{}{}
			}
			f.open[name] = make(chan struct{})
			f.mu.Unlock()
			return nil
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-other:
		}
	}
}

func (f *flights) land(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.open[name])
	delete(f.open, name)
}

// Download brings f into dir. Bytes gather in dir/.partial, so that a cut or
// a restart costs nothing that is there already; when they are whole and
// size and digests are right, the file is synced and renamed into dir. A
// wrong file is thrown away.
func (s *Source) Download(ctx context.Context, dir string, f File, o DownloadOptions) (Result, error) {
	if err := CheckName(f.Name); err != nil {
		return Result{}, err
	}
	if f.SHA1 == nil && f.SHA256 == nil {
		return Result{}, fmt.Errorf("download %s: no digest of it is known", f.Name)
	}
	if err := s.flights.board(ctx, f.Name); err != nil {
		return Result{}, err
	}
	defer s.flights.land(f.Name)
	p, err := openPartial(dir, f.Name)
	if err != nil {
		return Result{}, err
	}
	defer p.Close()
	p.expect(f.URL, f.Size)
	fetched, err := s.fill(ctx, p, f.URL, f.Size, o)
	if err != nil {
		return Result{Fetched: fetched}, fmt.Errorf("download %s: %w", f.Name, err)
	}
	r, err := p.check(f)
	r.Fetched = fetched
	if err != nil {
		p.discard()
		return r, err
	}
	return r, p.publish(filepath.Join(dir, f.Name))
}

// A partial is a file on its way, with a note of what it is part of.
type partial struct {
	*os.File
	path string
	note note
	size int64 // bytes that are there
}

// A note is beside a partial file, to resume it.
type note struct {
	URL          string `json:"url"`
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"last_modified,omitempty"`
	Size         int64  `json:"size,omitempty"`
}

func openPartial(dir, name string) (*partial, error) {
	sub := filepath.Join(dir, partialDir)
	if err := os.MkdirAll(sub, 0o755); err != nil {
		return nil, fmt.Errorf("make %s: %w", sub, err)
	}
	p := &partial{path: filepath.Join(sub, name)}
	var err error
	if p.File, err = os.OpenFile(p.path, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, fmt.Errorf("open the partial file: %w", err)
	}
	st, err := p.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the partial file: %w", err), p.Close())
	}
	p.size = st.Size()
	if b, err := os.ReadFile(p.path + ".json"); err != nil || json.Unmarshal(b, &p.note) != nil {
		p.note = note{}
	}
	return p, nil
}

// expect empties what is part of something else.
func (p *partial) expect(url string, size int64) {
	if p.note.URL != url || size > 0 && p.size > size || p.note.ETag == "" && p.note.LastModified == "" {
		p.restart(note{URL: url})
	}
}

// TakeUp makes the first n bytes of the file at from, which somebody else
// downloaded, what the next [Source.Download] of f goes on from. One that has
// as much already, or is in the way of nobody, stays as it is.
func TakeUp(dir string, f File, from string, n int64, v Version) error {
	p, err := openPartial(dir, f.Name)
	if err != nil {
		return err
	}
	defer p.Close()
	if p.expect(f.URL, v.Size); p.size >= n {
		return nil
	}
	p.note = note{f.URL, v.ETag, v.LastModified, v.Size}
	if err := os.Truncate(from, n); err != nil {
		return fmt.Errorf("take up a download: %w", err)
	}
	if err := os.Rename(from, p.path); err != nil {
		return fmt.Errorf("take up a download: %w", err)
	}
	return p.save()
}

func (p *partial) restart(n note) error {
	p.note, p.size = n, 0
	return p.Truncate(0)
}

func (p *partial) save() error {
	b, err := json.Marshal(p.note)
	if err == nil {
		err = os.WriteFile(p.path+".json", b, 0o644)
	}
	if err != nil {
		return fmt.Errorf("note the partial file: %w", err)
	}
	return nil
}

func (p *partial) discard() {
	os.Remove(p.path)
	os.Remove(p.path + ".json")
}

// fill fetches what is missing and returns how many bytes moved.
func (s *Source) fill(ctx context.Context, p *partial, url string, size int64, o DownloadOptions) (int64, error) {
	if size > 0 && p.size == size {
		return 0, nil
	}
	if err := room(p.path, max(size-p.size, 0), o.Floor); err != nil {
		return 0, err
	}
	req, err := s.request(ctx, url)
	if err != nil {
		return 0, err
	}
	if p.size > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", p.size))
		req.Header.Set("If-Range", firstOf(p.note.ETag, p.note.LastModified))
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	total, err := p.accept(resp, url, size)
	if err != nil {
		return 0, err
	}
	if err := room(p.path, max(total-p.size, 0), o.Floor); err != nil {
		return 0, err
	}
	if o.Began != nil && total >= 0 {
		o.Began(p.path, Version{total, p.note.ETag, p.note.LastModified})
	}
	return p.receive(ctx, resp.Body, total, o)
}

func firstOf(a, b string) string {
	if a != "" && !strings.HasPrefix(a, "W/") {
		return a
	}
	return b
}

// accept reads the answer's header: a continuation, a fresh start, or no file
// at all. It returns the size of the whole, -1 when it is not said.
func (p *partial) accept(resp *http.Response, url string, size int64) (int64, error) {
	total := resp.ContentLength
	switch resp.StatusCode {
	case http.StatusPartialContent:
		var from, to, all int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &all); err != nil || from != p.size {
			return 0, errors.Join(fmt.Errorf("%s answered with another part than asked for", url), p.restart(note{URL: url}))
		}
		total = all
	case http.StatusOK:
		n := note{URL: url, ETag: resp.Header.Get("ETag"), LastModified: resp.Header.Get("Last-Modified"), Size: total}
		if err := p.restart(n); err != nil {
			return 0, err
		}
		if err := p.save(); err != nil {
			return 0, err
		}
	default:
		if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
			p.restart(note{URL: url}) // the next try begins anew
		}
		after, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return 0, &StatusError{url, resp.StatusCode, time.Duration(min(max(after, 0), 86400)) * time.Second}
	}
	if size > 0 && total >= 0 && total != size {
		p.discard()
		return 0, &MismatchError{filepath.Base(p.path), "size", fmt.Sprint(size), fmt.Sprint(total)}
	}
	if total > maxSize {
		return 0, fmt.Errorf("%s is %d GB, more than any update", url, total>>30)
	}
	return total, nil
}

// receive appends the body, bounded by the size the header told.
func (p *partial) receive(ctx context.Context, body io.ReadCloser, total int64, o DownloadOptions) (fetched int64, err error) {
	if _, err := p.Seek(p.size, io.SeekStart); err != nil {
		return 0, fmt.Errorf("write the partial file: %w", err)
	}
	limit := int64(maxSize)
	if total >= 0 {
		limit = total
	}
	watchdog := time.AfterFunc(stall, func() { body.Close() })
	defer watchdog.Stop()
	buf := make([]byte, 256<<10)
	told := time.Now()
	for {
		n, rerr := body.Read(buf)
		if n > 0 && !watchdog.Reset(stall) {
			rerr = errStalled
		}
		if p.size+int64(n) > limit {
			p.discard()
			return fetched, &MismatchError{filepath.Base(p.path), "size", fmt.Sprint(limit), "more"}
		}
		if _, err := p.Write(buf[:n]); err != nil {
			if errors.Is(err, syscall.ENOSPC) {
				return fetched, &FullError{0, max(total-p.size, 1)}
			}
			return fetched, fmt.Errorf("write the partial file: %w", err)
		}
		p.size, fetched = p.size+int64(n), fetched+int64(n)
		if o.Progress != nil && (rerr != nil || time.Since(told) > 250*time.Millisecond) {
			o.Progress(p.size, total)
			told = time.Now()
		}
		if rerr == io.EOF && (total < 0 || p.size == total) {
			return fetched, nil
		}
		if o.Throttle != nil && rerr == nil {
			watchdog.Stop() // a limit may hold for hours
			rerr = o.Throttle(ctx, n)
			watchdog.Reset(stall)
		}
		if rerr != nil {
			if ctx.Err() != nil {
				rerr = ctx.Err()
			} else if rerr == io.EOF {
				rerr = io.ErrUnexpectedEOF
			}
			return fetched, fmt.Errorf("after %d of %d bytes: %w", p.size, total, rerr)
		}
	}
}

// check reads the whole file back and compares it with what is known of it.
func (p *partial) check(f File) (Result, error) {
	h1, h256 := sha1.New(), sha256.New()
	if _, err := p.Seek(0, io.SeekStart); err != nil {
		return Result{}, fmt.Errorf("read the partial file: %w", err)
	}
	n, err := io.Copy(io.MultiWriter(h1, h256), p.File)
	if err != nil {
		return Result{}, fmt.Errorf("read the partial file: %w", err)
	}
	r := Result{Size: n, SHA1: [20]byte(h1.Sum(nil)), SHA256: [32]byte(h256.Sum(nil))}
	if f.Size > 0 && n != f.Size {
		return r, &MismatchError{f.Name, "size", fmt.Sprint(f.Size), fmt.Sprint(n)}
	}
	for _, d := range []struct {
		what string
		want []byte
		got  hash.Hash
	}{{"SHA-1", f.SHA1, h1}, {"SHA-256", f.SHA256, h256}} {
		if got := d.got.Sum(nil); d.want != nil && !bytes.Equal(d.want, got) {
			return r, &MismatchError{f.Name, d.what, fmt.Sprintf("%x", d.want), fmt.Sprintf("%x", got)}
		}
	}
	return r, nil
}

// publish makes the partial file the file of that path, durably.
func (p *partial) publish(path string) error {
	if err := p.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", p.path, err)
	}
	if err := os.Rename(p.path, path); err != nil {
		return fmt.Errorf("publish %s: %w", path, err)
	}
	os.Remove(p.path + ".json")
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("sync the folder: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync the folder: %w", err)
	}
	return nil
}

// Free returns the bytes free for us on the disk of path.
func Free(path string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", path, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// room refuses what would leave less than floor free.
func room(path string, need, floor int64) error {
	free, err := Free(filepath.Dir(path))
	if err != nil {
		return err
	}
	if free < need+floor {
		return &FullError{free, need + floor}
	}
	return nil
}
