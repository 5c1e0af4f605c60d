package agent

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"wuamesh/agentproto"
)

// files is a directory of downloads. A file has its name only once its
// digest was checked; until then it is name.part, and name.part.json says of
// which version of the file the bytes are.
type files struct{ dir string }

// A wanted file is one download and what must be true of it.
type wanted struct {
	name   string
	size   int64  // bytes; 0 unknown
	sha1   string // hexadecimal; empty unknown
	sha256 string
}

// sha1InName finds the digest that Microsoft puts into its files' names.
var sha1InName = regexp.MustCompile(`_([0-9a-f]{40})\.[a-z0-9]+$`)

// want says what must be true of a file of an update. Windows' own scan gives
// no digest, only the URL, whose last segment ends in the SHA-1.
func want(f agentproto.File) wanted {
	w := wanted{name: f.Name, size: f.Size, sha1: f.SHA1, sha256: f.SHA256}
	if w.sha1 == "" && w.sha256 == "" {
		if m := sha1InName.FindStringSubmatch(strings.ToLower(f.Name)); m != nil {
			w.sha1 = m[1]
		}
	}
	return w
}

// errBad is a file whose bytes are not what they must be. It was thrown away.
var errBad = errors.New("its bytes are not what Microsoft published")

// maxFile bounds what is stored of a file whose size nobody said.
const maxFile = 64 << 30

// open makes the directory.
func (d files) open() error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of downloads: %w", err)
	}
	return nil
}

// path is where a file lies once it is complete. Names that Windows reserves,
// such as CON, are refused with those that leave the directory.
func (d files) path(name string) (string, error) {
	if !filepath.IsLocal(name) || filepath.Base(name) != name || name == "." || strings.HasSuffix(name, ".part") || strings.HasSuffix(name, ".part.json") {
		return "", fmt.Errorf("file name %q cannot be used here", clip(name))
	}
	return filepath.Join(d.dir, name), nil
}

// holds says whether the file is here and complete. It looks at the size
// only: it had its digest checked when it got its name.
func (d files) holds(w wanted) bool {
	path, err := d.path(w.name)
	if err != nil {
		return false
	}
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && (w.size == 0 || fi.Size() == w.size)
}

// verify reads a complete file again and throws it away when it went bad.
func (d files) verify(w wanted) (string, error) {
	path, err := d.path(w.name)
	if err != nil {
		return "", err
	}
	if err := check(path, w); err != nil {
		if errors.Is(err, errBad) {
			os.Remove(path)
		}
		return "", fmt.Errorf("verify %s: %w", w.name, err)
	}
	return path, nil
}

// remove throws a complete file away.
func (d files) remove(name string) error {
	path, err := d.path(name)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// check compares a file with what must be true of it.
func check(path string, w wanted) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	d := newDigest(w)
	n, err := io.Copy(d, f)
	if err != nil {
		return err
	}
	return d.compare(w, n)
}

// A digest computes those sums that are known of a file.
type digest struct {
	io.Writer
	sha1, sha256 hash.Hash
}

func newDigest(w wanted) digest {
	d := digest{sha1: sha1.New(), sha256: sha256.New()}
	switch {
	case w.sha256 != "":
		d.Writer = d.sha256
	case w.sha1 != "":
		d.Writer = d.sha1
	default:
		// Nobody said a digest: the size is all we can check. Windows checks
		// the file again before it uses it.
		d.Writer = io.Discard
	}
	return d
}

func (d digest) compare(w wanted, n int64) error {
	switch {
	case w.size != 0 && n != w.size:
		return fmt.Errorf("%w: %d bytes, want %d", errBad, n, w.size)
	case w.sha256 != "" && hex.EncodeToString(d.sha256.Sum(nil)) != w.sha256:
		return fmt.Errorf("%w: wrong SHA-256", errBad)
	case w.sha256 == "" && w.sha1 != "" && hex.EncodeToString(d.sha1.Sum(nil)) != w.sha1:
		return fmt.Errorf("%w: wrong SHA-1", errBad)
	}
	return nil
}

// A source sends a file from offset on. etag is that of the bytes at hand;
// when the source's file is another one, it begins at 0.
type source func(ctx context.Context, offset int64, etag string) (agentproto.Content, error)

// patience is how long a download may stand still. A node that does not answer any
// more is noticed sooner, by the client ([agentproto.ErrSilent]); this is for one
// that answers and sends nothing, and for Microsoft.
const patience = 90 * time.Second

// fetch downloads a file, going on where an earlier try stopped, checks it,
// and gives it its name. A file that is not what it must be is thrown away:
// the error is errBad.
func (d files) fetch(ctx context.Context, w wanted, from source) error {
	path, err := d.path(w.name)
	if err != nil {
		return err
	}
	part := path + ".part"
	offset, etag := d.held(part, w)
	// A try whose last byte came but that was stopped before the check.
	complete := w.size > 0 && offset == w.size
	if !complete {
		if err := d.receive(ctx, part, w, offset, etag, from); err != nil {
			if p := (*agentproto.Problem)(nil); errors.As(err, &p) && p.Status == http.StatusRequestedRangeNotSatisfiable {
				d.drop(part) // more bytes than the file has: not this file's
			}
			return fmt.Errorf("fetch %s: %w", w.name, err)
		}
	}
	if err := check(part, w); err != nil {
		if errors.Is(err, errBad) {
			d.drop(part)
		}
		return fmt.Errorf("fetch %s: %w", w.name, err)
	}
	if err := os.Rename(part, path); err != nil {
		return fmt.Errorf("fetch %s: %w", w.name, err)
	}
	os.Remove(part + ".json")
	return syncDir(d.dir)
}

// A partial says of which version of a file the bytes of a .part are.
type partial struct {
	ETag   string `json:"etag"`
	SHA256 string `json:"sha256,omitempty"`
	SHA1   string `json:"sha1,omitempty"`
}

// held says how much of a file is here already and of which version. Without
// that knowledge the bytes are worth nothing.
func (d files) held(part string, w wanted) (int64, string) {
	var p partial
	b, err := os.ReadFile(part + ".json")
	if err != nil || json.Unmarshal(b, &p) != nil || p.ETag == "" || p.SHA256 != w.sha256 || p.SHA1 != w.sha1 {
		return 0, ""
	}
	fi, err := os.Stat(part)
	if err != nil || w.size > 0 && fi.Size() > w.size {
		return 0, ""
	}
	return fi.Size(), p.ETag
}

// begun is how many bytes of a file are here that is not whole.
func (d files) begun(w wanted) int64 {
	path, err := d.path(w.name)
	if err != nil {
		return 0
	}
	n, _ := d.held(path+".part", w)
	return n
}

func (d files) drop(part string) {
	os.Remove(part)
	os.Remove(part + ".json")
}

// receive appends to the .part what the source sends, and flushes it.
func (d files) receive(ctx context.Context, part string, w wanted, offset int64, etag string, from source) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	still := time.AfterFunc(patience, func() { cancel(fmt.Errorf("no byte for %s", patience)) })
	defer still.Stop()
	c, err := from(ctx, offset, etag)
	if err != nil {
		return cmpCause(ctx, err)
	}
	defer c.Body.Close()
	if c.Offset == 0 && w.size > 0 && c.Size > 0 && c.Size != w.size {
		return fmt.Errorf("%w: %d bytes, want %d", errBad, c.Size, w.size)
	}
	if c.Offset != 0 && c.Offset != offset {
		return fmt.Errorf("asked from byte %d, answered from %d", offset, c.Offset)
	}
	if c.Offset == 0 {
		b, err := json.Marshal(partial{c.ETag, w.sha256, w.sha1})
		if err != nil {
			return err
		}
		d.drop(part)
		if err := os.WriteFile(part+".json", b, 0o600); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	if err := f.Truncate(c.Offset); err != nil {
		return err
	}
	if _, err := f.Seek(c.Offset, io.SeekStart); err != nil {
		return err
	}
	most := int64(maxFile)
	if w.size > 0 {
		most = w.size
	}
	n, err := io.Copy(f, io.LimitReader(&lively{c.Body, still}, most-c.Offset+1))
	if err != nil {
		return cmpCause(ctx, err)
	}
	if c.Offset+n > most {
		d.drop(part)
		return fmt.Errorf("%w: more than %d bytes", errBad, most)
	}
	if w.size > 0 && c.Offset+n < w.size {
		return fmt.Errorf("after %d of %d bytes: %w", c.Offset+n, w.size, io.ErrUnexpectedEOF)
	}
	return f.Sync()
}

// cmpCause prefers why we gave up to what that looked like from below.
func cmpCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// lively puts the alarm off with every read that brings something.
type lively struct {
	r     io.Reader
	still *time.Timer
}

func (l *lively) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if n > 0 {
		l.still.Reset(patience)
	}
	return n, err
}

// keepOnly removes every download that is not in names, and what is left of
// tries to get it. It returns how many bytes that freed.
func (d files) keepOnly(names map[string]bool) (freed int64, err error) {
	entries, err := os.ReadDir(d.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("clean the downloads: %w", err)
	}
	for _, e := range entries {
		name := strings.TrimSuffix(strings.TrimSuffix(e.Name(), ".json"), ".part")
		if names[name] || names[e.Name()] {
			continue
		}
		if fi, err := e.Info(); err == nil {
			freed += fi.Size()
		}
		if err := os.Remove(filepath.Join(d.dir, e.Name())); err != nil {
			return freed, fmt.Errorf("clean the downloads: %w", err)
		}
	}
	return freed, nil
}
