package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate/swarm"
)

// partialOf is where a file gathers that is brought with a bundle.
func partialOf(b BundleFile) string { return path.Join(swarm.PartialDir, "bundle-"+b.SHA256) }

// expect remembers the files of an imported bundle, and says which of them
// are taken.
func (f *folder) expect(list []BundleFile) []BundleNeed {
	needs := []BundleNeed{}
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.bundled)
	for _, b := range list {
		h := f.held[b.Name]
		newer := b.Name == microsoft.ScanCabName && microsoft.CabVersion{LastModified: b.LastModified}.Date().After(f.cab.Date())
		if microsoft.CheckName(b.Name) != nil || h != nil && (h.SHA256 == b.SHA256 || !newer) {
			continue
		}
		f.bundled[b.Name] = b
		n := BundleNeed{BundleFile: b}
		if info, err := f.root.Stat(partialOf(b)); err == nil {
			n.Have = min(info.Size(), b.Size)
		}
		needs = append(needs, n)
	}
	return needs
}

// ImportBundleFile takes bytes of a file of the bundle that was imported last,
// from an offset on, and says how much is here then. When all of it is, the
// file is verified and served.
func (a *Appliance) ImportBundleFile(ctx context.Context, by Actor, name string, from int64, r io.Reader) (BundleNeed, error) {
	if err := by.need(Owner); err != nil {
		return BundleNeed{}, err
	}
	f := a.folder
	f.mu.RLock()
	b, ok := f.bundled[name]
	f.mu.RUnlock()
	if !ok {
		return BundleNeed{}, notFound("The last bundle that was imported needs no file %.200q.", name)
	}
	n := BundleNeed{BundleFile: b}
	if free := f.free(); free < b.Size-from+int64(f.node.config().DiskFloor) {
		msg, hint := f.full(free, b.Size-from)
		return n, &Problem{Kind: Full, Msg: msg, Hint: strings.Replace(hint, "It goes on by itself when there is space: ", "Make room and import again: ", 1)}
	}
	t := newTask(kindUpdate, name, time.Now())
	t.Size, t.forcedHere = b.Size, true
	if b.Name == microsoft.ScanCabName {
		t.Kind = kindScan
	}
	if err := f.makeRoom(ctx, t); err != nil {
		return n, a.bundleProblem(name, err)
	}
	var err error
	if n.Have, err = f.gather(b, from, r); err != nil || n.Have < b.Size {
		return n, a.bundleProblem(name, err)
	}
	return n, a.bundleProblem(name, f.takeIn(ctx, t, b))
}

func (a *Appliance) bundleProblem(name string, err error) error {
	var mismatch *microsoft.MismatchError
	var quota *quotaError
	switch {
	case errors.As(err, &mismatch):
		return &Problem{Kind: Invalid, Msg: fmt.Sprintf("%s on the stick has %s %s, not %s, and was thrown away.", name, mismatch.What, mismatch.Got, mismatch.Want), Hint: "The stick may be failing: export to another one.", Err: err}
	case errors.As(err, &quota):
		msg, hint := quota.explain(a.NodeName())
		return &Problem{Kind: Full, Msg: msg, Hint: hint, Err: err}
	case errors.Is(err, syscall.ENOSPC):
		return &Problem{Kind: Full, Msg: "The disk of the folder is full.", Hint: "Make room and import again: it goes on where it was.", Err: err}
	}
	if bad, ok := errors.AsType[*microsoft.SignatureError](err); ok {
		msg, hint := bad.Explain()
		return &Problem{Kind: Invalid, Msg: msg, Hint: hint, Err: err}
	}
	return err
}

// gather appends bytes to what is here of a file.
func (f *folder) gather(b BundleFile, from int64, r io.Reader) (have int64, err error) {
	if err := f.root.Mkdir(swarm.PartialDir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return 0, err
	}
	w, err := f.root.OpenFile(partialOf(b), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	info, err := w.Stat()
	if err != nil {
		return 0, err
	}
	if have = info.Size(); from < 0 || from > have || have > b.Size {
		return have, &Problem{Kind: Conflict, Msg: fmt.Sprintf("%d bytes of %s are here, not %d.", have, b.Name, from), Hint: "Import the bundle again: it goes on where it was."}
	}
	if _, err := w.Seek(from, io.SeekStart); err != nil {
		return have, err
	}
	n, err := io.Copy(w, io.LimitReader(r, b.Size-from))
	return max(have, from+n), errors.Join(err, w.Sync())
}

// takeIn verifies a file that was brought whole, and serves it. What is
// compared is what the mesh and the catalogue know, not what the stick says.
func (f *folder) takeIn(ctx context.Context, t *task, b BundleFile) error {
	from := partialOf(b)
	m, err := f.share.describe(ctx, from)
	if err != nil {
		return err
	}
	if m.SHA256.String() != b.SHA256 {
		return errors.Join(&microsoft.MismatchError{Name: b.Name, What: "SHA-256", Want: b.SHA256, Got: m.SHA256.String()}, f.root.Remove(from))
	}
	rec, known := f.share.record(b.Name)
	if b.Name == microsoft.ScanCabName {
		rec = fileRecord{Size: m.Size, SHA256: b.SHA256, SHA1: fmt.Sprintf("%x", m.SHA1), Root: m.Root().String(), LastModified: b.LastModified, ETag: b.ETag}
		err = errors.Join(f.root.MkdirAll(cabDir, 0o755), f.root.Rename(from, filepath.Join(cabDir, microsoft.ScanCabName)))
		if err == nil {
			err = f.cabArrived(ctx, t, rec)
		}
		return err
	}
	if !known || rec.SHA256 != b.SHA256 {
		return errors.Join(&Problem{Kind: Conflict, Msg: "The mesh knows another file of the name " + b.Name + ", or none.", Hint: "Make a new bundle."}, f.root.Remove(from))
	}
	if err := f.share.agrees(b.Name, m); err != nil {
		return errors.Join(err, f.root.Remove(from))
	}
	if err := f.root.Rename(from, b.Name); err != nil {
		return err
	}
	if err := f.share.arrived(ctx, b.Name, rec); err != nil {
		return err
	}
	f.mu.Lock()
	delete(f.bundled, b.Name)
	f.mu.Unlock()
	f.arrivedByHand(ctx, b.Name, b.Size, "bundle")
	return nil
}

// arrivedByHand ends the download of a file that came another way: with a
// bundle, or uploaded.
func (f *folder) arrivedByHand(ctx context.Context, name string, size int64, from string) {
	f.mu.Lock()
	t := f.queue[name]
	if t == nil || t.Status == statusRunning {
		f.mu.Unlock()
		return
	}
	t.Status, t.From, t.Size, t.Done, t.Finished = statusDone, from, size, size, time.Now().UTC()
	t.Error, t.Hint, t.Waiting, t.NextTry = "", "", "", time.Time{}
	f.end(t)
	f.mu.Unlock()
	f.save(ctx, t)
}
