package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance/microsoft"
	msft "wuamesh/appliance/microsoft/catalogue"
)

// publishedFile is where the catalogue of the scan cab lies in the node's data.
const publishedFile = "catalogue"

// publishedAgain is how long a node waits after it could not read a scan cab.
const publishedAgain = time.Hour

// A published is what Microsoft published, as the scan cab that this node
// serves says. It is read out of the cab in the background; until that is done
// the one before stays in use.
type published struct {
	node *Appliance
	log  *slog.Logger
	path string
	news chan struct{} // another scan cab is served

	// now is nil before the first cab was read. One that is replaced is not
	// closed: whoever reads it reads on, and the collector closes its file.
	now atomic.Pointer[msft.Catalogue]

	mu      sync.Mutex
	reading bool
	done    int64 // bytes of the cab, while reading
	size    int64
	problem *Problem                     // why the scan cab that is served was not read
	records map[revisionKey]updateRecord // that were asked for; without a title the cab does not have it
	owners  map[string][]rules.UpdateID  // of files, by name
}

// openPublished opens the catalogue that was made before. A damaged one is
// made anew.
func openPublished(a *Appliance) *published {
	p := &published{node: a, log: a.log.With("part", "catalogue"), path: filepath.Join(a.cfg.Data, publishedFile), news: make(chan struct{}, 1), records: map[revisionKey]updateRecord{}, owners: map[string][]rules.UpdateID{}}
	c, err := msft.Open(p.path)
	switch {
	case err == nil:
		p.now.Store(c)
	case !errors.Is(err, fs.ErrNotExist):
		p.log.Warn("the catalogue is read out of the scan cab anew", "err", err)
	}
	return p
}

// run keeps the catalogue that of the scan cab which is served. It is a part
// of the node.
func (p *published) run(ctx context.Context) error {
	if err := msft.RemoveLeftovers(p.path); err != nil {
		p.log.WarnContext(ctx, "space not freed", "err", err)
	}
	return everyOr(ctx, p.log, publishedAgain, p.news, p.keep)
}

// keep reads the scan cab unless that was done.
func (p *published) keep(ctx context.Context) error {
	file, held, err := p.node.folder.open(microsoft.ScanCabName)
	if errors.Is(err, errNotHeld) {
		return nil // none yet, or it is being verified: news come
	}
	if err != nil {
		return err
	}
	defer file.Close()
	before := p.now.Load()
	if before != nil && before.Header().Source == held.SHA256 {
		p.ended(nil)
		return nil
	}
	defer p.node.watch.tell("cab")
	p.begun(held.Bytes)
	began := time.Now()
	c, err := p.read(ctx, msft.Source{Cab: file, Size: held.Bytes, SHA256: held.SHA256}, before)
	if ctx.Err() != nil {
		return nil // the next start begins anew
	}
	if err != nil {
		p.ended(unreadable(err, before))
		return err
	}
	p.use(c)
	p.ended(nil)
	n := c.Header().Counts
	p.log.InfoContext(ctx, "scan cab read", "updates", n.Updates, "revisions", n.Revisions, "problems", n.Problems, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// read makes the file anew. One inner cabinet at a time leaves a core to those
// who want something of the node.
func (p *published) read(ctx context.Context, src msft.Source, before *msft.Catalogue) (*msft.Catalogue, error) {
	_, err := msft.Import(ctx, p.path, src, msft.ImportOptions{Previous: before, Workers: 1, Progress: func(done int64) {
		p.mu.Lock()
		p.done = done
		p.mu.Unlock()
		p.node.watch.tell("cab")
	}})
	if err != nil {
		return nil, err
	}
	return msft.Open(p.path)
}

// use answers from another catalogue from now on, or from none.
func (p *published) use(c *msft.Catalogue) {
	p.now.Store(c)
	p.mu.Lock()
	clear(p.records)
	clear(p.owners)
	p.mu.Unlock()
	p.node.cat.mergeAnew(p.log)
	p.node.folder.doubtAnew()
	p.ofFolder() // finds out now what the first look at the whole catalogue would wait for
	p.node.folder.lookSoon()
	p.node.watch.tell("updates")
}

func (p *published) begun(size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reading, p.done, p.size = true, 0, size
}

func (p *published) ended(problem *Problem) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reading, p.problem = false, problem
}

// unreadable says for people why a scan cab was not read.
func unreadable(err error, before *msft.Catalogue) *Problem {
	stays := " Updates that hosts report are shown all the same."
	if before != nil {
		stays = " The catalogue of " + before.Header().Created.Format("2 January 2006") + " stays in use."
	}
	if errors.Is(err, syscall.ENOSPC) {
		return &Problem{Kind: Unavailable, Msg: "There is no space to read the scan cab's catalogue." + stays, Hint: "Make room on the disk of the node's data; it takes about 200 MB. The node tries again every hour.", Err: err}
	}
	return &Problem{
		Kind: Unavailable, Msg: fmt.Sprintf("The scan cab is signed, but its catalogue cannot be read: %s.%s", lastOf(err), stays), Err: err,
		Hint: "Hosts scan with it as before. Microsoft may have changed its form: look for a newer wuamesh, and tell us if there is none. The log has the details.",
	}
}

// distrust drops the catalogue: the roots changed, and its scan cab is not
// trusted any more.
func (p *published) distrust(ctx context.Context) error {
	if p.now.Load() == nil {
		return nil
	}
	p.log.ErrorContext(ctx, "the catalogue is dropped, because its scan cab is not trusted any more")
	p.use(nil)
	return os.Remove(p.path)
}

// A CatalogueView is what this node read out of the scan cab.
type CatalogueView struct {
	Updates   int       `json:"updates"` // that hosts can report; 0 before the first cab was read
	Files     int       `json:"files"`
	Published time.Time `json:"published,omitzero"` // when Microsoft made that scan cab
	Read      time.Time `json:"read,omitzero"`
	Problems  int       `json:"problems,omitempty"` // places in it that made no sense; the log of a new one has some
	Reading   bool      `json:"reading"`            // a newer one
	Progress  int       `json:"progress"`           // per cent, while Reading
	// Error is why the scan cab of the folder was not read, in a sentence or
	// two; Hint what to do.
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

func (p *published) view() (v CatalogueView) {
	if c := p.now.Load(); c != nil {
		h := c.Header()
		v.Updates, v.Files, v.Published, v.Read, v.Problems = h.Counts.Updates, h.Counts.Files, h.Created, h.Imported, h.Counts.Problems
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if v.Reading = p.reading; p.reading && p.size > 0 {
		v.Progress = int(min(100*p.done/p.size, 100))
	}
	if p.problem != nil {
		v.Error, v.Hint = p.problem.Msg, p.problem.Hint
	}
	return v
}
