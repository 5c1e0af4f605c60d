package appliance

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
	"wuamesh/replicate/swarm"
)

// verify reads whole what is in doubt, one file at a time, and serves what
// turns out right. It is a part of the node.
func (f *folder) verify(ctx context.Context) error {
	for {
		f.mu.RLock()
		list := slices.Sorted(maps.Keys(f.doubts))
		f.mu.RUnlock()
		for _, name := range list {
			if err := f.verifyFile(ctx, name); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				f.log.WarnContext(ctx, "file not verified, trying again later", "file", name, "err", err)
			}
			f.mu.Lock()
			delete(f.doubts, name)
			f.mu.Unlock()
			f.lookSoon()
		}
		if len(list) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-f.doubt:
		}
	}
}

// verifyFile compares a file with everything that is known of it: its record,
// the digest in its name, what hosts reported. A wrong one is deleted, one
// that nothing is known of is left alone and not served.
func (f *folder) verifyFile(ctx context.Context, name string) error {
	if name == microsoft.ScanCabName {
		return f.verifyCab(ctx)
	}
	r, err := f.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return err
	}
	expected, err := f.expected(ctx, name)
	if err != nil {
		return err
	}
	if !anyDigest(expected) {
		f.mu.Lock()
		f.strange[name] = info.ModTime()
		f.mu.Unlock()
		f.log.WarnContext(ctx, "file in the folder is left alone and not served: nothing says what it should be", "file", name)
		return nil
	}
	m, err := swarm.Make(ctx, r, info.Size())
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	got := fileRecord{Size: m.Size, SHA1: hex.EncodeToString(m.SHA1[:]), SHA256: m.SHA256.String(), Root: m.Root().String()}
	wrong := ""
	for _, want := range expected {
		wrong += differs("SHA-1", want.SHA1, got.SHA1) + differs("SHA-256", want.SHA256, got.SHA256)
		got.URL, got.Completed = want.URL, want.Completed
	}
	if wrong != "" {
		f.log.WarnContext(ctx, "wrong file in the folder is deleted", "file", name, "err", errors.New(wrong))
		return errors.Join(f.removeIf(name, info), f.forget(ctx, []string{name}, nil))
	}
	found, err := f.found(ctx, name)
	if err == nil {
		err = f.share.keepManifest(m)
	}
	if err != nil {
		return err
	}
	f.log.InfoContext(ctx, "file verified", "file", name, "bytes", got.Size)
	return f.hold(ctx, name, &heldFile{fileRecord: got, holding: holding{Bytes: info.Size(), Modified: info.ModTime(), Found: found}})
}

// found is the Found of a file that lies in the folder: now, unless it was held
// before.
func (f *folder) found(ctx context.Context, name string) (at time.Time, err error) {
	err = f.node.db.View(ctx, func(tx *replicate.Tx) error {
		was, ok, err := holdings.find(tx, name)
		if at = was.Found; !ok {
			at = time.Now()
		}
		return err
	})
	return at, err
}

// doubtAnew has files verified anew that are not what the scan cab says now.
func (f *folder) doubtAnew() {
	f.mu.RLock()
	was := maps.Clone(f.held)
	f.mu.RUnlock()
	for name, h := range was {
		w, ok := f.node.published.file(name)
		if !ok || w.SHA256 == "" || w.SHA256 == h.SHA256 {
			continue
		}
		f.log.Warn("file is not what the scan cab says; it is verified before it is served again", "file", name)
		f.mu.Lock()
		if f.held[name] == h {
			delete(f.held, name)
			f.doubts[name] = true
		}
		f.mu.Unlock()
		wake(f.doubt)
	}
}

// removeIf removes the file unless it was replaced since it was looked at.
func (f *folder) removeIf(name string, was fs.FileInfo) error {
	if is, err := f.root.Lstat(name); err != nil || !os.SameFile(is, was) {
		return err
	}
	return f.root.Remove(name)
}

// expected is what is known of the file of that name. The record comes last:
// it has the time and the URL.
func (f *folder) expected(ctx context.Context, name string) (list []fileRecord, err error) {
	if _, sum, err := microsoft.NameFromURL(name); err == nil && sum != nil {
		list = append(list, fileRecord{SHA1: hex.EncodeToString(sum)})
	}
	if w, ok := f.node.cat.fileNamed(name); ok {
		list = append(list, fileRecord{SHA1: w.SHA1, SHA256: w.SHA256, URL: w.URL})
	}
	err = f.node.db.View(ctx, func(tx *replicate.Tx) error {
		r, ok, err := files.find(tx, name)
		if ok {
			list = append(list, r)
		}
		return err
	})
	return list, err
}

// anyDigest says whether there is something to compare with.
func anyDigest(list []fileRecord) bool {
	return slices.ContainsFunc(list, func(r fileRecord) bool { return r.SHA1 != "" || r.SHA256 != "" })
}

func differs(what, want, got string) string {
	if want == "" || strings.EqualFold(want, got) {
		return ""
	}
	return fmt.Sprintf("%s is %s, not %s; ", what, got, want)
}

// digests reads r to its end.
func digests(ctx context.Context, r io.Reader) (fileRecord, error) {
	h1, h256 := sha1.New(), sha256.New()
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		for _, h := range []hash.Hash{h1, h256} {
			h.Write(buf[:n])
		}
		if err == io.EOF {
			return fileRecord{SHA1: hex.EncodeToString(h1.Sum(nil)), SHA256: hex.EncodeToString(h256.Sum(nil))}, nil
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return fileRecord{}, err
		}
	}
}
