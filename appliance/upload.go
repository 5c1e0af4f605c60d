package appliance

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
	"wuamesh/replicate/swarm"
)

// uploadDir is where an uploaded file gathers, below the folder so that it
// moves into place by one rename. A start empties it.
const uploadDir = ".upload"

// maxUpload bounds an uploaded file, in bytes: a cabinet counts its own in 32
// bits, and its signature follows.
const maxUpload = 1<<32 + 1<<20

// An Upload is a .cab or .msu that an admin brought, verified and served.
type Upload struct {
	Name   string `json:"name"` // in the folder: Microsoft's, where the catalogue knows the file
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	Signer string `json:"signer"`
	// Title is of an update that has the file; empty when neither the scan cab
	// nor a host names one. Such a file stays until it is deleted by hand.
	Title string `json:"title,omitempty"`
	// Already says that the folder had it before.
	Already bool      `json:"already,omitempty"`
	By      string    `json:"by,omitempty"`
	On      time.Time `json:"on,omitzero"`
}

// Upload takes a .cab or .msu in under its name; size is its bytes, below zero
// when that is not known beforehand. It gathers on the folder's disk, as long
// as the floor stays free. Nothing reads its inside or serves it before its
// Authenticode signature was checked; where the catalogue, a host or the mesh
// knows the file, its digests must be theirs. wsusscn2.cab replaces an older
// one. What is wrong with the file is a [Problem], and the file is thrown away.
func (a *Appliance) Upload(ctx context.Context, by Actor, name string, size int64, r io.Reader) (Upload, error) {
	if err := by.need(Operator); err != nil {
		return Upload{}, err
	}
	f := a.folder
	if err := f.uploadable(name, size); err != nil {
		return Upload{}, err
	}
	at, n, err := f.spool(ctx, r, size)
	if err != nil {
		return Upload{}, uploadProblem(name, err)
	}
	defer f.root.Remove(at) // gone, when it was taken
	up, err := f.takeUpload(ctx, by, name, at, n)
	if err != nil {
		a.log.WarnContext(ctx, "uploaded file refused", "file", name, "bytes", n, "by", by.Name, "err", err)
		return Upload{}, uploadProblem(name, err)
	}
	a.log.InfoContext(ctx, "file uploaded", "file", up.Name, "bytes", n, "by", by.Name)
	return up, nil
}

// uploadable says what is wrong with a name or a size before any byte came.
func (f *folder) uploadable(name string, size int64) error {
	ext := strings.ToLower(path.Ext(name))
	switch {
	case microsoft.CheckName(name) != nil:
		return &Problem{Kind: Invalid, Field: "name", Msg: fmt.Sprintf("%.200q is no name for a file of the folder.", name), Hint: "Use letters, digits, dots, dashes and underscores, as Microsoft does."}
	case ext != ".cab" && ext != ".msu":
		return &Problem{
			Kind: Invalid, Field: "name", Msg: fmt.Sprintf("%s is neither a .cab nor an .msu.", name),
			Hint: "Only these carry Microsoft's signature as a whole, which is checked before a file is served.",
		}
	case size > maxUpload:
		return &Problem{Kind: TooLarge, Msg: fmt.Sprintf("%s has %s; a cabinet has 4 GiB at most.", name, bytesText(size))}
	}
	if free := f.free(); free < max(size, 0)+int64(f.node.config().DiskFloor) {
		return f.noRoom(free, max(size, 0))
	}
	return nil
}

func (f *folder) noRoom(free, need int64) *Problem {
	msg, hint := f.full(free, need)
	return &Problem{Kind: Full, Msg: msg, Hint: strings.Replace(hint, "It goes on by itself when there is space: ", "Make room and upload again: ", 1)}
}

// errBroken is an upload that ended early.
var errBroken = errors.New("the upload ended before the file was whole")

// spool writes what comes to a file of its own below the folder, durably.
func (f *folder) spool(ctx context.Context, r io.Reader, size int64) (at string, n int64, err error) {
	if err := f.root.Mkdir(uploadDir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", 0, err
	}
	name := path.Join(uploadDir, rand.Text())
	w, err := f.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", 0, err
	}
	defer func() {
		if err = errors.Join(err, w.Close()); err != nil {
			err = errors.Join(err, f.root.Remove(name))
		}
	}()
	const look = 16 << 20 // bytes from one look at the disk to the next
	for {
		k, err := io.CopyN(w, r, look)
		n += k
		switch {
		case err == io.EOF && size >= 0 && n < size, errors.Is(err, io.ErrUnexpectedEOF):
			return "", n, errBroken
		case err == io.EOF:
			return name, n, w.Sync()
		case err != nil:
			return "", n, err
		case ctx.Err() != nil:
			return "", n, ctx.Err()
		case n > maxUpload:
			return "", n, &Problem{Kind: TooLarge, Msg: "The file is larger than a cabinet can be, 4 GiB."}
		}
		if free, left := f.free(), max(size-n, 0); free < left+int64(f.node.config().DiskFloor) {
			return "", n, f.noRoom(free, left)
		}
	}
}

// takeUpload verifies a spooled file and serves it.
func (f *folder) takeUpload(ctx context.Context, by Actor, name, at string, size int64) (Upload, error) {
	sig, err := f.judge(at, name)
	if err != nil {
		return Upload{}, err
	}
	m, err := f.share.describe(ctx, at)
	if err != nil {
		return Upload{}, err
	}
	up := Upload{Name: name, Size: size, SHA256: m.SHA256.String(), Signer: sig.Chain[0].Subject.CommonName, By: by.Name, On: time.Now().UTC()}
	if name == microsoft.ScanCabName {
		return up, f.takeCab(ctx, by, &up, sig, at, m)
	}
	up.Name = cmp.Or(f.node.published.nameBySHA1(m.SHA1), name)
	if w, ok := f.node.cat.fileNamed(up.Name); ok {
		up.Title = cmp.Or(w.title, up.Name)
	}
	rec, err := f.uploadRecord(ctx, &up, m)
	if err != nil || up.Already {
		return up, err
	}
	if err := f.placeUpload(ctx, by, up, rec, at); err != nil {
		return Upload{}, err
	}
	return up, nil
}

// judge checks the signature of a spooled file.
func (f *folder) judge(at, name string) (*microsoft.Signature, error) {
	r, err := f.root.Open(at)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return nil, err
	}
	return f.node.source.Load().VerifyFile(r, info.Size(), name)
}

// uploadRecord is what the mesh is told of the file; an error says that it is
// not the file of that name.
func (f *folder) uploadRecord(ctx context.Context, up *Upload, m *swarm.Manifest) (rec fileRecord, err error) {
	rec = fileRecord{Size: m.Size, SHA1: hex.EncodeToString(m.SHA1[:]), SHA256: up.SHA256, Root: m.Root().String()}
	expected, err := f.expected(ctx, up.Name)
	if err != nil {
		return rec, err
	}
	for _, want := range expected {
		if d := differs("SHA-1", want.SHA1, rec.SHA1) + differs("SHA-256", want.SHA256, rec.SHA256); d != "" {
			return rec, &Problem{
				Kind: Conflict, Msg: fmt.Sprintf("%s is signed, but it is another file than the one known by that name: its %s.", up.Name, strings.TrimSuffix(d, "; ")),
				Hint: "Upload Microsoft's file under the name Microsoft gave it, or this one under another name.",
			}
		}
		rec.URL, rec.Completed = cmp.Or(rec.URL, want.URL), want.Completed
	}
	if up.Title == "" {
		rec.Uploaded, rec.Signer = up.By, up.Signer
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	up.Already = f.held[up.Name] != nil && f.held[up.Name].SHA256 == up.SHA256
	return rec, nil
}

// placeUpload puts a verified file into the folder, and ends a download of it
// that waits.
func (f *folder) placeUpload(ctx context.Context, by Actor, up Upload, rec fileRecord, at string) error {
	t := newTask(kindUpdate, up.Name, time.Now().UTC())
	t.Size = up.Size
	if err := f.makeRoom(ctx, t); err != nil {
		return err
	}
	if err := f.root.Rename(at, up.Name); err != nil {
		return fmt.Errorf("put %s in place: %w", up.Name, err)
	}
	if err := f.share.arrived(ctx, up.Name, rec); err != nil {
		return err // it lies there and is verified by what is known of it
	}
	f.tellOf(ctx, by, up)
	f.arrivedByHand(ctx, up.Name, up.Size, "upload")
	return nil
}

// tellOf writes an upload into the audit log. The file is served by then: what
// cannot be written is in the node's log.
func (f *folder) tellOf(ctx context.Context, by Actor, up Upload) {
	err := f.node.db.Update(ctx, func(tx *replicate.Tx) error {
		return f.node.audit(tx, by, "upload file", "file "+up.Name, "", fmt.Sprintf("%s, signed by %s, SHA-256 %s", bytesText(up.Size), up.Signer, up.SHA256))
	})
	if err != nil {
		f.log.ErrorContext(ctx, "upload not in the audit log", "file", up.Name, "by", by.Name, "err", err)
	}
}

// takeCab serves an uploaded scan cab, unless it is older than the one here.
func (f *folder) takeCab(ctx context.Context, by Actor, up *Upload, sig *microsoft.Signature, at string, m *swarm.Manifest) error {
	up.Title = "Windows Update scan index"
	f.mu.RLock()
	now, busy := f.cab, f.running(microsoft.ScanCabName)
	up.Already = f.held[microsoft.ScanCabName] != nil && now.SHA256 == up.SHA256
	f.mu.RUnlock()
	date := cmp.Or(sig.Timestamp, up.On)
	switch {
	case up.Already:
		return nil
	case busy:
		return &Problem{Kind: Conflict, Msg: "The scan cab is being downloaded now.", Hint: "See what comes of it on the page Downloads, and upload again if you still need to."}
	case now.Date().After(date):
		return &Problem{Kind: Conflict, Msg: fmt.Sprintf("This scan cab is of %s; the one in service is of %s.", date.Format("2 January 2006"), now.Date().Format("2 January 2006")), Hint: "Hosts would not find the updates since then. Nothing was changed."}
	}
	rec := fileRecord{Size: m.Size, SHA256: up.SHA256, SHA1: hex.EncodeToString(m.SHA1[:]), Root: m.Root().String(), LastModified: date.UTC().Format(http.TimeFormat)}
	err := errors.Join(f.root.MkdirAll(cabDir, 0o755), f.root.Rename(at, path.Join(cabDir, microsoft.ScanCabName)))
	if err == nil {
		err = f.cabArrived(ctx, newTask(kindScan, microsoft.ScanCabName, time.Now().UTC()), rec)
	}
	if err == nil {
		f.tellOf(ctx, by, *up)
		f.arrivedByHand(ctx, microsoft.ScanCabName, up.Size, "upload")
	}
	return err
}

// uploadProblem says for people why an upload was not taken.
func uploadProblem(name string, err error) error {
	if _, ok := AsProblem(err); ok {
		return err
	}
	if bad, ok := errors.AsType[*microsoft.SignatureError](err); ok {
		msg, hint := bad.Explain()
		return &Problem{Kind: Invalid, Msg: msg + " It was thrown away.", Hint: hint, Err: err}
	}
	if quota, ok := errors.AsType[*quotaError](err); ok {
		return &Problem{Kind: Full, Msg: fmt.Sprintf("The folder has a quota of %s, and %s needs %s.", bytesText(quota.quota), name, bytesText(quota.need)), Hint: "Raise quota, or delete files that hosts need less.", Err: err}
	}
	switch {
	case errors.Is(err, errBroken):
		return &Problem{Kind: Invalid, Msg: "The upload of " + name + " ended before the file was whole.", Hint: "Upload it again.", Err: err}
	case errors.Is(err, syscall.ENOSPC):
		return &Problem{Kind: Full, Msg: "The disk of the folder is full.", Hint: "Make room and upload again.", Err: err}
	}
	return fmt.Errorf("upload %s: %w", name, err)
}

// Uploads are the files of this node's folder that an admin brought and that
// no update names, by name.
func (a *Appliance) Uploads(context.Context) ([]Upload, error) {
	f := a.folder
	list := []Upload{}
	f.mu.RLock()
	for name, h := range f.held {
		if h.Uploaded != "" {
			list = append(list, Upload{Name: name, Size: h.Bytes, SHA256: h.SHA256, Signer: h.Signer, By: h.Uploaded, On: h.Completed})
		}
	}
	f.mu.RUnlock()
	for i := range list {
		if w, ok := f.node.cat.fileNamed(list[i].Name); ok {
			list[i].Title = w.title
		}
	}
	slices.SortFunc(list, func(x, y Upload) int { return strings.Compare(x.Name, y.Name) })
	return list, nil
}
