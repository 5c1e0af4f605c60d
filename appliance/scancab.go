package appliance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
)

// The scan cab is asked for once a day, and at times spread over an hour so
// that a thousand branches do not call together.
const (
	cabPeriod = 24 * time.Hour
	cabJitter = time.Hour
	cabCheck  = time.Minute // how often the plan is looked at
)

// cabDir is where a new scan cab arrives, below the folder so that it moves
// into place by one rename.
const cabDir = ".cab"

func cabOrder(by string, now bool) order {
	return order{kind: kindScan, file: microsoft.ScanCabName, title: "Windows Update scan index", by: by, forced: true, now: now}
}

// cabFile is the scan cab as a file of the folder.
func cabFile(v microsoft.CabVersion) *heldFile {
	return &heldFile{fileRecord: fileRecord{Size: v.Size, SHA256: v.SHA256, URL: microsoft.ScanCabURL, Completed: v.Fetched}}
}

// keepCab asks for the scan cab at the start when there is none or it was
// last asked for a day ago, and once a day from then on. It is a part of the
// node.
func (a *Appliance) keepCab(ctx context.Context) error {
	f := a.folder
	var jitter time.Duration
	return everyOr(ctx, a.log, cabCheck, f.share.cabNews, func(ctx context.Context) error {
		if f.newerInMesh() {
			_, err := f.order(ctx, []order{cabOrder(bySchedule, true)}, nil)
			return err
		}
		if !a.config().Internet {
			return nil
		}
		rank, _ := f.share.turn(time.Now()).rank(hashOf(microsoft.ScanCabName), nil)
		f.mu.Lock()
		due := f.cab.Checked.Add(cabPeriod + jitter + time.Duration(rank)*cabJitter) // one node asks, and another if it does not
		if f.held[microsoft.ScanCabName] == nil && !f.doubts[microsoft.ScanCabName] {
			due = time.Now()
		}
		at, by, asked := f.share.cabAsked(time.Now())
		if turn := at.Add(time.Duration(rank) * leaseTime); asked && turn.Before(due) {
			due = turn
			if rank == 0 { // whatever this node's clock says
				due = time.Now()
			}
		}
		f.cabNext = due
		busy := f.cabTask() != nil
		f.mu.Unlock()
		if busy || time.Now().Before(due) {
			return nil
		}
		jitter = rand.N(cabJitter)
		_, err := f.order(ctx, []order{cabOrder(or(asked, by, bySchedule), false)}, nil)
		return err
	})
}

// fetchCab asks Microsoft for a newer scan cab and puts it into the folder.
func (f *folder) fetchCab(ctx context.Context, t *task) (status string, fetched int64, err error) {
	defer f.node.watch.tell("cab")
	f.mu.RLock()
	prev := f.cab
	if f.held[microsoft.ScanCabName] == nil {
		prev = microsoft.CabVersion{}
	}
	f.mu.RUnlock()
	in := filepath.Join(f.dir, cabDir)
	v, fetched, _, err := f.node.source.Load().DownloadScanCab(ctx, in, prev, f.options(t))
	if bad, ok := errors.AsType[*microsoft.SignatureError](err); ok {
		f.mu.Lock()
		f.refused.Err = bad
		f.mu.Unlock()
	}
	if err != nil {
		return "", fetched, err
	}
	info, err := f.root.Lstat(filepath.Join(cabDir, microsoft.ScanCabName))
	if errors.Is(err, fs.ErrNotExist) { // nothing newer
		f.mu.Lock()
		f.cab, f.refused.Err, t.Size, t.Done = v, nil, v.Size, v.Size
		f.cabNext = v.Checked.Add(cabPeriod)
		f.mu.Unlock()
		return statusUnchanged, fetched, f.node.db.Update(ctx, func(tx *replicate.Tx) error {
			return cabs.put(tx, microsoft.ScanCabName, v)
		})
	}
	if err != nil {
		return "", fetched, err
	}
	m, err := f.share.describe(ctx, filepath.Join(cabDir, microsoft.ScanCabName))
	if err != nil {
		return "", fetched, err
	}
	if err := f.replaceCab(ctx, t, v, m.Root().String(), holding{Bytes: info.Size(), Modified: info.ModTime()}); err != nil {
		return "", fetched, err
	}
	f.tellAgents()
	return statusDone, fetched, nil
}

// replaceCab puts the arrived scan cab in the place of the old one. The record
// goes first: after a crash between the two, finishCab knows the arrived file
// by it. Readers of the old one read on; who opens one gets file and digest of
// the same version.
func (f *folder) replaceCab(ctx context.Context, t *task, v microsoft.CabVersion, root string, h holding) error {
	file, err := f.recordCab(ctx, v, root, h)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.root.Rename(filepath.Join(cabDir, microsoft.ScanCabName), microsoft.ScanCabName); err != nil {
		return fmt.Errorf("put the scan cab in place: %w", err)
	}
	f.serveCab(v, file)
	t.Size, t.Done = v.Size, v.Size
	return nil
}

// recordCab records a verified scan cab, and tells the mesh of one that it
// does not know.
func (f *folder) recordCab(ctx context.Context, v microsoft.CabVersion, root string, h holding) (*heldFile, error) {
	file := cabFile(v)
	file.Root, file.LastModified, file.ETag, file.holding = root, v.LastModified, v.ETag, h
	known, ok := f.share.record(microsoft.ScanCabName)
	err := f.node.db.Update(ctx, func(tx *replicate.Tx) error {
		if !ok || known.SHA256 != v.SHA256 {
			if err := files.put(tx, microsoft.ScanCabName, file.fileRecord); err != nil {
				return err
			}
		}
		return errors.Join(cabs.put(tx, microsoft.ScanCabName, v), holdings.put(tx, microsoft.ScanCabName, h))
	})
	if err != nil {
		return nil, fmt.Errorf("record the scan cab: %w", err)
	}
	return file, nil
}

// serveCab makes the file in the folder the scan cab. The lock is held.
func (f *folder) serveCab(v microsoft.CabVersion, file *heldFile) {
	f.cab, f.held[microsoft.ScanCabName], f.refused = v, file, refusedCab{}
	f.cabNext, f.judgedAnew = v.Checked.Add(cabPeriod), false
	delete(f.doubts, microsoft.ScanCabName)
	delete(f.strange, microsoft.ScanCabName)
	wake(f.share.dirty)
	wake(f.node.published.news)
}

// A refusedCab is a scan cab of the mesh, or one that lies in the folder, whose
// signature does not hold here. It is not fetched again.
type refusedCab struct {
	SHA256 string
	Err    *microsoft.SignatureError
}

// cabArrived puts a scan cab that came from peers in its place, once its
// signature was checked as that of one from Microsoft is. One that is refused
// is not fetched a second time: what the mesh says it is it will be.
func (f *folder) cabArrived(ctx context.Context, t *task, rec fileRecord) error {
	defer f.node.watch.tell("cab")
	name := filepath.Join(cabDir, microsoft.ScanCabName)
	sig, info, err := f.judgeCab(name)
	if bad, ok := errors.AsType[*microsoft.SignatureError](err); ok {
		f.mu.Lock()
		f.refused = refusedCab{rec.SHA256, bad}
		f.mu.Unlock()
		return errors.Join(fmt.Errorf("the scan cab that came from a peer was thrown away: %w", err), f.root.Remove(name))
	}
	if err != nil {
		return err
	}
	now := time.Now()
	v := microsoft.CabVersion{ETag: rec.ETag, LastModified: rec.LastModified, Size: rec.Size, SHA256: rec.SHA256, Checked: now, Fetched: now}
	v.Sign(sig)
	if err := f.replaceCab(ctx, t, v, rec.Root, holding{Bytes: info.Size(), Modified: info.ModTime()}); err != nil {
		return err
	}
	f.tellAgents()
	return nil
}

// judgeCab checks the signature of a file below the folder.
func (f *folder) judgeCab(name string) (*microsoft.Signature, fs.FileInfo, error) {
	r, err := f.root.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return nil, nil, err
	}
	sig, err := f.node.source.Load().VerifyScanCab(r, info.Size())
	return sig, info, err
}

// verifyCab serves the scan cab that lies in the folder if its signature
// holds: one that was there before signatures were checked, that changed, or
// that an admin copied to a node without a way to Microsoft. Otherwise the
// file is left alone, and the next that comes replaces it.
func (f *folder) verifyCab(ctx context.Context) error {
	defer f.node.watch.tell("cab")
	sig, info, err := f.judgeCab(microsoft.ScanCabName)
	bad, refused := errors.AsType[*microsoft.SignatureError](err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case refused:
		f.mu.Lock()
		f.strange[microsoft.ScanCabName], f.refused = info.ModTime(), refusedCab{Err: bad}
		anew := f.judgedAnew
		f.judgedAnew = false
		f.mu.Unlock()
		f.log.ErrorContext(ctx, "the scan cab in the folder is not served", "err", bad.Err)
		if anew {
			return f.node.published.distrust(ctx)
		}
		return nil
	case err != nil:
		return err
	}
	m, err := f.share.describe(ctx, microsoft.ScanCabName)
	if err != nil {
		return err
	}
	if now, err := f.root.Lstat(microsoft.ScanCabName); err != nil || !os.SameFile(now, info) || m.Size != info.Size() {
		return err // another came meanwhile, which was verified on its way
	}
	f.mu.RLock()
	v := f.cab
	f.mu.RUnlock()
	if v.SHA256 != m.SHA256.String() {
		date := info.ModTime()
		if !sig.Timestamp.IsZero() {
			date = sig.Timestamp
		}
		v = microsoft.CabVersion{LastModified: date.UTC().Format(http.TimeFormat), Size: m.Size, SHA256: m.SHA256.String(), Fetched: time.Now()}
	}
	v.Sign(sig)
	file, err := f.recordCab(ctx, v, m.Root().String(), holding{Bytes: info.Size(), Modified: info.ModTime()})
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.serveCab(v, file)
	f.mu.Unlock()
	f.log.InfoContext(ctx, "scan cab verified", "signer", v.Signer, "bytes", v.Size)
	f.tellAgents()
	return nil
}

// judgeCabAnew has the scan cab verified again, by the roots that hold now,
// before it is served on.
func (f *folder) judgeCabAnew() {
	f.mu.Lock()
	f.refused, f.judgedAnew = refusedCab{}, true
	delete(f.strange, microsoft.ScanCabName)
	delete(f.held, microsoft.ScanCabName)
	f.doubts[microsoft.ScanCabName] = true
	f.mu.Unlock()
	wake(f.doubt)
}

// tellAgents makes agents check in: they find the new scan cab. Peers hear of
// it too.
func (f *folder) tellAgents() {
	f.share.changed()
	for _, id := range f.node.streams.connected() {
		f.node.streams.send(id, event{"policy", struct{}{}})
	}
}

// newerInMesh says whether another node has a newer scan cab.
func (f *folder) newerInMesh() bool {
	rec, ok := f.share.record(microsoft.ScanCabName)
	f.mu.RLock()
	defer f.mu.RUnlock()
	held := f.held[microsoft.ScanCabName]
	mine := f.cab.Date()
	theirs := microsoft.CabVersion{LastModified: rec.LastModified}.Date()
	return ok && rec.SHA256 != f.refused.SHA256 && (held == nil || held.SHA256 != rec.SHA256 && theirs.After(mine))
}

// finishCab ends a replacement that a crash interrupted. An arrived cab that
// no record knows is deleted: it comes again.
func (f *folder) finishCab() error {
	name := filepath.Join(cabDir, microsoft.ScanCabName)
	info, err := f.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if h := f.held[microsoft.ScanCabName]; h != nil && h.is(info) {
		return f.root.Rename(name, microsoft.ScanCabName)
	}
	return f.root.Remove(name)
}

// cabRef names the scan cab for agents; nil while none is served.
func (f *folder) cabRef() *agentproto.CabRef {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.held[microsoft.ScanCabName] == nil {
		return nil
	}
	return &agentproto.CabRef{SHA256: f.cab.SHA256, Size: f.cab.Size, Date: f.cab.Date()}
}

// cabView is the scan cab for the pages.
func (f *folder) cabView() CabView {
	f.mu.RLock()
	defer f.mu.RUnlock()
	v := CabView{Checked: f.cab.Checked, Catalogue: f.node.published.view()}
	if f.held[microsoft.ScanCabName] != nil {
		v.Held, v.Size, v.SHA256, v.Date, v.Fetched = true, f.cab.Size, f.cab.SHA256, f.cab.Date(), f.cab.Fetched
		v.Signer, v.Root, v.Signed = f.cab.Signer, f.cab.Root, f.cab.Signed
	}
	if bad := f.refused.Err; bad != nil {
		v.Refused, v.RefusedHint = bad.Explain()
	}
	t := f.cabTask()
	switch {
	case !f.node.config().Internet && t != nil && t.Status == statusQueued && t.Waiting != "":
		v.Note = "this node does not download from Microsoft: " + strings.TrimSuffix(t.Waiting, ".")
	case !f.node.config().Internet:
		v.Note = "this node does not download from Microsoft"
	case t != nil && t.Status == statusRunning:
		v.Running, v.Progress, v.Note = true, t.Percent(), "asking Microsoft"
		if t.Done > 0 {
			v.Note = "downloading"
		}
	case t != nil && t.Error != "":
		v.Note, v.NextTry = t.Error+" Next try at "+clock(t.NextTry)+".", t.NextTry
	case t != nil:
		v.Note = "queued"
	case f.doubts[microsoft.ScanCabName]:
		v.Note = "being verified"
	case !v.Held:
		v.Note, v.NextTry = "not downloaded yet", f.cabNext
	case v.Checked.After(v.Fetched):
		v.Note, v.NextTry = "unchanged", f.cabNext
	default:
		v.Note, v.NextTry = "downloaded", f.cabNext
	}
	return v
}

// AsksMicrosoft says whether this node downloads from Microsoft; one that does
// not has everything from others.
func (a *Appliance) AsksMicrosoft() bool { return a.config().Internet }

// DownloadCab asks Microsoft for the scan cab now.
func (a *Appliance) DownloadCab(ctx context.Context, by Actor) error {
	if err := cmp.Or(by.need(Operator), a.folder.online()); err != nil {
		return err
	}
	_, err := a.folder.order(ctx, []order{cabOrder(by.Name, true)}, func(tx *replicate.Tx) error {
		return a.audit(tx, by, "download scan cab", microsoft.ScanCabName, "", "")
	})
	if err == nil {
		a.log.InfoContext(ctx, "scan cab queued", "by", by.Name)
	}
	return err
}
