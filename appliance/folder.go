package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
)

// A folder is the node's folder of update files: what lies there, what is on
// its way, and what an admin deleted. Only files that were found to be what
// they should be are in held, and only those are served.
type folder struct {
	node  *Appliance
	share *sharing
	log   *slog.Logger
	dir   string
	root  *os.Root // of dir: no name leads out of it

	backoff  func(try int) time.Duration // from a failed try to the next
	recheck  time.Duration               // how often a download that waits for space looks again
	upstream atomic.Int64                // bytes moved from Microsoft since the start
	sent     atomic.Int64                // bytes of files sent since the start

	look  chan struct{} // hosts may want other files
	lanes []*lane       // of downloads
	doubt chan struct{} // there is something to verify

	blocked  atomic.Pointer[map[string]string] // files under an emergency stop, and why; see stop.go
	blocking chan struct{}                     // they changed

	spacing sync.Mutex // held while room is made
	smalls  smalls

	// mu is a leaf: neither the store nor the catalogue is called with it
	// held, because both call back here.
	mu      sync.RWMutex
	held    map[string]*heldFile
	doubts  map[string]bool          // files to be verified
	strange map[string]time.Time     // files that nothing is known of, by when they changed
	marks   map[string]time.Time     // files deleted by hand
	queue   map[string]*task         // downloads that have not ended, by file
	ended   []Task                   // the newest last
	bundled map[string]BundleFile    // of the last imported bundle, what is to be brought
	sends   map[writeDeadline]string // to whom a file is being sent
	cab     microsoft.CabVersion
	cabNext time.Time // when Microsoft is asked again
	refused refusedCab
	// judgedAnew says that the roots changed since the scan cab was verified.
	judgedAnew bool
}

// A heldFile is a file in the folder that was verified.
type heldFile struct {
	fileRecord
	holding
	asked atomic.Int64 // when it was last sent, Unix seconds

	said   sync.Once
	header http.Header // what answers say about it; see describe

	plainly sync.Once
	plain   []byte // see plainHeader
}

// A holding is how a file in this node's folder looked when it was verified.
// One that looks different later is not served before it was verified anew.
type holding struct {
	Bytes    int64     `json:"bytes"`
	Modified time.Time `json:"modified"`
	Arrived  time.Time `json:"arrived,omitzero"`
	// Found is since when it lies in the folder without having been fetched:
	// brought by hand, or by WAPT before. Zero for what was fetched.
	Found time.Time `json:"found,omitzero"`
}

func (h holding) is(info fs.FileInfo) bool {
	return info.Mode().IsRegular() && info.Size() == h.Bytes && info.ModTime().Equal(h.Modified)
}

// openFolder takes hold of the configured directory and compares what lies
// there with the records. What needs reading whole is left to verify.
func openFolder(a *Appliance) (*folder, error) {
	f := &folder{
		node: a, log: a.log.With("part", "folder"), dir: a.cfg.Folder, backoff: backoff, recheck: spaceCheck,
		look: make(chan struct{}, 1), doubt: make(chan struct{}, 1), blocking: make(chan struct{}, 1), sends: map[writeDeadline]string{},
		held: map[string]*heldFile{}, doubts: map[string]bool{}, strange: map[string]time.Time{},
		lanes: newLanes(), marks: map[string]time.Time{}, queue: map[string]*task{}, bundled: map[string]BundleFile{},
	}
	f.smalls.most = smallsMost
	f.share = newSharing(f)
	if err := f.openDir(); err != nil {
		return nil, err
	}
	ctx := context.Background()
	err := f.load(ctx)
	if err == nil {
		err = f.finishCab()
	}
	if err == nil {
		err = f.rescan(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the folder %s: %w", f.dir, err), f.root.Close())
	}
	return f, nil
}

// openDir makes the directory when it is missing and tries to write there: a
// node that cannot is better told so at its start than in the night.
func (f *folder) openDir() error {
	err := os.MkdirAll(f.dir, 0o755)
	if err == nil {
		f.root, err = os.OpenRoot(f.dir)
	}
	if err == nil {
		if _, err = fs.ReadDir(f.root.FS(), "."); err == nil {
			err = errors.Join(f.probe(), f.root.RemoveAll(uploadDir))
		}
		if err != nil {
			err = errors.Join(err, f.root.Close())
		}
	}
	if err != nil {
		return f.unusable(err)
	}
	return nil
}

// trouble says why the folder cannot be used now; nil when it can.
func (f *folder) trouble() *Problem {
	if err := usable(f.dir); err != nil {
		return f.unusable(err)
	}
	return nil
}

func (f *folder) unusable(err error) *Problem {
	if errors.Is(err, fs.ErrPermission) {
		return &Problem{Kind: Invalid, Msg: "The folder " + f.dir + " cannot be read and written.", Hint: giveTo(f.dir), Err: err}
	}
	return &Problem{
		Kind: Invalid, Msg: "The folder " + f.dir + " cannot be used: " + reason(err) + ".", Err: err,
		Hint: "It has to be a directory on a disk that can be written; set folder to another one otherwise.",
	}
}

// usable is an error when this user may not read, write and enter a directory,
// or when there is none.
func usable(dir string) error {
	const read, write, enter = 4, 2, 1 // access(2)
	if err := syscall.Access(dir, read|write|enter); err != nil {
		return &fs.PathError{Op: "access", Path: dir, Err: err}
	}
	return nil
}

// giveTo says how a directory becomes usable for the node.
func giveTo(dir string) string {
	return fmt.Sprintf("Give it to the user this runs as: chown -R %d %s; chmod -R u+rwX %s.", os.Getuid(), dir, dir)
}

func (f *folder) probe() error {
	const name = ".wuamesh"
	w, err := f.root.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(w.Close(), f.root.Remove(name))
}

// reason is the last part of a chain of errors from the operating system.
func reason(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}

// load takes the records in as if all of the folder were as they say; rescan
// then looks.
func (f *folder) load(ctx context.Context) error {
	return f.node.db.View(ctx, func(tx *replicate.Tx) error {
		if err := f.share.load(tx); err != nil {
			return err
		}
		cab, ok, err := cabs.find(tx, microsoft.ScanCabName)
		if err != nil {
			return err
		}
		if f.cab = cab; ok && cab.Signer != "" { // else rescan finds a file that is to be verified
			f.held[microsoft.ScanCabName] = cabFile(cab)
		}
		for r, err := range holdings.all(tx) {
			if err != nil {
				return err
			}
			if rec, ok := f.share.files[r.id]; ok && r.id != microsoft.ScanCabName {
				f.held[r.id] = &heldFile{fileRecord: rec}
			}
			if h := f.held[r.id]; h != nil {
				h.holding = r.value
				if !h.Arrived.IsZero() {
					h.Completed = h.Arrived
				}
			}
		}
		for r, err := range deleted.all(tx) {
			if err != nil {
				return err
			}
			f.marks[r.id] = r.value
		}
		return f.loadTasks(tx)
	})
}

// rescan compares the directory with what is held: files that appeared or
// look different are verified, records of files that vanished are dropped.
func (f *folder) rescan(ctx context.Context) error {
	list, err := fs.ReadDir(f.root.FS(), ".")
	if err != nil {
		return fmt.Errorf("list %s: %w", f.dir, err)
	}
	there := map[string]fs.FileInfo{}
	for _, e := range list {
		info, err := e.Info()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look at %s: %w", f.dir, err) // what cannot be seen has not vanished
		}
		if err == nil && info.Mode().IsRegular() && microsoft.CheckName(e.Name()) == nil {
			there[e.Name()] = info
		}
	}
	f.mu.Lock()
	var lost []string
	for name, h := range f.held {
		if info, ok := there[name]; ok && h.is(info) {
			continue
		}
		// It may have come or been replaced since the listing.
		switch info, err := f.root.Lstat(name); {
		case errors.Is(err, fs.ErrNotExist), err == nil && !info.Mode().IsRegular():
			lost = append(lost, name)
			delete(f.held, name)
		case err == nil && !h.is(info):
			f.doubts[name] = true
			delete(f.held, name)
		}
	}
	for name, info := range there {
		known := f.held[name] != nil || f.running(name) || f.strange[name].Equal(info.ModTime())
		if !known {
			f.doubts[name] = true
		}
	}
	f.mu.Unlock()
	wake(f.doubt)
	if len(lost) == 0 {
		return nil
	}
	slices.Sort(lost)
	f.log.WarnContext(ctx, "files vanished from the folder; their records are dropped", "files", len(lost), "first", lost[0])
	return f.forget(ctx, lost, nil)
}

// forget drops the records of files, with what else belongs to the change.
func (f *folder) forget(ctx context.Context, names []string, also func(*replicate.Tx) error) error {
	return f.inBatches(ctx, len(names), func(tx *replicate.Tx, i int) error {
		err := holdings.del(tx, names[i])
		switch {
		case names[i] == microsoft.ScanCabName:
			err = errors.Join(err, cabs.del(tx, names[i]))
		case len(f.share.others(names[i])) == 0: // else it is still some node's
			err = errors.Join(err, files.del(tx, names[i]))
		}
		return err
	}, also)
}

// batch is how many rows one change set takes: the store bounds its size, and
// a folder has thousands of files.
const batch = 500

// inBatches writes n rows, and with the last of them what else belongs to the
// change; also may be nil.
func (f *folder) inBatches(ctx context.Context, n int, row func(tx *replicate.Tx, i int) error, also func(*replicate.Tx) error) error {
	for from := 0; from < n || from == 0 && also != nil; from += batch {
		err := f.node.db.Update(ctx, func(tx *replicate.Tx) error {
			for i := from; i < min(from+batch, n); i++ {
				if err := row(tx, i); err != nil {
					return err
				}
			}
			if also == nil || from+batch < n {
				return nil
			}
			return also(tx)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// hold records that a file lies in the folder and is right, and serves it from
// now on.
func (f *folder) hold(ctx context.Context, name string, h *heldFile) error {
	known, ok := f.share.record(name)
	err := f.node.db.Update(ctx, func(tx *replicate.Tx) error {
		if h.Completed.IsZero() {
			h.Completed = tx.Now()
		}
		h.Arrived = h.Completed
		// What the mesh knows already is not written again by every node.
		if name != microsoft.ScanCabName && !(ok && known.Root == h.Root && known.SHA256 == h.SHA256) {
			if err := files.put(tx, name, h.fileRecord); err != nil {
				return err
			}
		}
		return errors.Join(holdings.put(tx, name, h.holding), deleted.del(tx, name))
	})
	if err != nil {
		return fmt.Errorf("record that %s is held: %w", name, err)
	}
	f.mu.Lock()
	f.held[name] = h
	delete(f.doubts, name)
	delete(f.strange, name)
	delete(f.marks, name)
	f.mu.Unlock()
	f.changed()
	return nil
}

// changed tells the catalogue and the pages that states of files changed.
func (f *folder) changed() {
	f.share.changed()
	f.node.cat.stale()
	f.node.watch.tell("downloads")
}

// A fileState is how far one file has come on this node.
type fileState struct {
	State   DownloadState
	On      time.Time // since when it is there
	Size    int64     // bytes; 0 unknown
	SHA256  string    // hexadecimal, of what is there
	Percent int       // while it is downloading
	Note    string    // a sentence about it; may be empty
}

// state says how far a file has come. The catalogue asks it with its own lock
// held.
func (f *folder) state(name string) fileState {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if h := f.held[name]; h != nil {
		return fileState{State: Downloaded, On: h.Completed, Size: h.Bytes, SHA256: h.SHA256}
	}
	if t := f.queue[name]; t != nil {
		return t.state()
	}
	s := fileState{State: NotDownloaded}
	switch at, ok := f.marks[name]; {
	case f.block(name) != "":
		s.Note = "It is not downloaded: " + f.block(name) + "."
	case f.doubts[name]:
		s.State, s.Note = Queued, "The file is in the folder and is being verified."
	case ok:
		s.Note = "The file was deleted on " + clock(at) + "; it is fetched again when a host asks for it."
	case len(f.share.others(name)) > 0:
		s.Note = "It is on " + f.share.nameOf(f.share.others(name)[0]) + "."
	case !f.node.config().Internet:
		s.Note = "This node does not download from Microsoft."
	}
	return s
}

// names are the files that lie in the folder or are on their way there.
func (f *folder) names() (list []string) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for name := range f.held {
		list = append(list, name)
	}
	for name := range f.queue {
		if f.held[name] == nil {
			list = append(list, name)
		}
	}
	return list
}

// size is how many files the folder serves, and their bytes.
func (f *folder) size() (n int, bytes int64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, h := range f.held {
		bytes += h.Bytes
	}
	return len(f.held), bytes
}

// wakeWorkers makes the downloads look for what they may do.
func (f *folder) wakeWorkers() {
	for _, l := range f.lanes {
		wake(l.work)
	}
}

// wake makes whoever reads c look again; it never waits.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
