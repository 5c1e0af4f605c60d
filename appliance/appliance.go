// Package appliance is the node: everything the product knows and decides.
//
// [Open] takes hold of the store, the folder and the listeners; Run does the
// work until its context ends; Close gives everything back. What agents report
// and what admins edit are records in the store (tables.go); the catalogue
// (catalogue.go) holds them decoded in memory and answers every question of
// the pages and the API (view.go). The folder (folder.go) holds the files and
// fetches what hosts need.
package appliance

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
)

// Version is the product's; the build sets it.
var Version = "0.1.0"

// Appliance is one node.
type Appliance struct {
	cfg     Config // of the start; config() is what holds now
	live    atomic.Pointer[Config]
	log     *slog.Logger
	base    *slog.Logger // before it got its part
	started time.Time

	db        *replicate.DB
	source    atomic.Pointer[microsoft.Source]
	auth      *authority
	cat       *catalogue
	folder    *folder
	published *published
	roster    *roster
	watch     *watchers
	streams   *streams
	logins    throttle
	hashing   sync.Mutex // held while a password is hashed
	setup     setupDoor
	console   string // secret of the command line on this machine
	https     net.Listener
	http      net.Listener
	// handover says that systemd passed the listeners and goes on listening:
	// what is not accepted here waits for the next process.
	handover bool

	browsers  atomic.Pointer[tls.Certificate] // configured for browsers; nil for the node's own
	changing  sync.Mutex                      // held while the configuration changes
	entering  sync.Mutex
	entered   chan struct{} // closed once the node is in a mesh
	member    atomic.Pointer[membershipRecord]
	mesh      atomic.Pointer[replicate.Mesh]
	joins     throttle
	outOfTime outOfTime
	// handovers are admins on their way here from other nodes.
	handovers handovers
	records   atomic.Int64 // taken in since the start
	toReview  atomic.Int64 // changes kept for an admin's review
	held      atomic.Pointer[[]heldRing]

	installed atomic.Int64 // updates that agents said they installed, since the start
}

// Open takes hold of the node's store, folder and addresses. It starts
// nothing that works by itself, so a caller may look before it runs, and must
// Close in the end. What an admin can mend is a [Problem].
func Open(cfg Config, log *slog.Logger) (_ *Appliance, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a := &Appliance{cfg: cfg, base: log, log: log.With("part", "appliance"), started: time.Now(), watch: newWatchers(), streams: newStreams(), roster: newRoster(), entered: make(chan struct{}), console: apiTokenPrefix + rand.Text() + rand.Text()}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if a.db, err = openStore(cfg, log); err != nil {
		return a, err
	}
	if err = a.fillIn(context.Background(), &cfg); err != nil {
		return a, err
	}
	if err = a.use(cfg); err != nil {
		return a, err
	}
	a.cfg = cfg
	if a.auth, err = openAuthority(a.db, cfg); err != nil {
		return a, err
	}
	if a.folder, err = openFolder(a); err != nil {
		return a, err
	}
	a.published = openPublished(a)
	if a.cat, err = newCatalogue(a); err != nil {
		return a, err
	}
	if err = a.listen(cfg); err != nil {
		return a, err
	}
	if err = a.openMembership(); err != nil {
		return a, err
	}
	if a.NeedsSetup() {
		a.setup.renew()
	}
	return a, nil
}

func openStore(cfg Config, log *slog.Logger) (*replicate.DB, error) {
	dir := cfg.Data
	db, err := replicate.Open(replicate.Options{Dir: filepath.Join(dir, "store"), Log: log, Meets: meets, Now: cfg.Now})
	if err == nil {
		// The store's own directory may be ours in one that is not.
		if err = usable(dir); err != nil {
			err = errors.Join(err, db.Close())
		}
	}
	switch {
	case errors.Is(err, replicate.ErrInUse):
		return nil, &Problem{Kind: Conflict, Msg: "Another wuamesh runs with the data in " + dir + ".", Hint: "Stop it first, or give this one another directory with --data.", Err: err}
	case errors.Is(err, replicate.ErrNewer):
		return nil, &Problem{Kind: Conflict, Msg: "The data in " + dir + " was written by a newer version of wuamesh.", Hint: "Install that version again; nothing was changed.", Err: err}
	case errors.Is(err, os.ErrPermission):
		return nil, &Problem{Kind: Invalid, Msg: "The data directory " + dir + " cannot be written.", Hint: giveTo(dir), Err: err}
	}
	return db, err
}

// URL is where the node's pages are, as reachable from this machine.
func (a *Appliance) URL() string { return "https://" + reachable(a.https.Addr()) }

// FolderURL is where the folder is served without TLS.
func (a *Appliance) FolderURL() string { return "http://" + reachable(a.http.Addr()) + "/waptwua/" }

// reachable turns "any address" into one that can be dialled here.
func reachable(addr net.Addr) string {
	tcp := addr.(*net.TCPAddr)
	if tcp.IP.IsUnspecified() {
		// Not localhost: a machine without that line in /etc/hosts asks its name
		// servers for it.
		return fmt.Sprintf("127.0.0.1:%d", tcp.Port)
	}
	return tcp.String()
}

// ID is the node's identity, 32 hexadecimal digits.
func (a *Appliance) ID() string { return a.db.NodeID() }

// NodeName is what the node is called.
func (a *Appliance) NodeName() string { return a.config().Name }

// Pin is the fingerprint of the node's authority: SHA-256 of its
// SubjectPublicKeyInfo, hexadecimal.
func (a *Appliance) Pin() string { return a.auth.pin() }

// Run does the node's work, and serves pages, until ctx ends or a part of it
// cannot go on. Every goroutine of the node starts here and has ended when
// Run returns.
func (a *Appliance) Run(ctx context.Context, pages http.Handler) error {
	a.entering.Lock() // a node that joins writes it too
	err := a.writeConsole()
	a.entering.Unlock()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	part := func(name string, run func(context.Context) error) {
		g.Go(func() error {
			err := run(ctx)
			if ctx.Err() != nil {
				return nil // asked to stop
			}
			return fmt.Errorf("%s stopped: %w", name, cmp.Or(err, errEnded))
		})
	}
	part("store", a.db.Run)
	part("watchers", a.watch.run)
	part("counts", func(ctx context.Context) error {
		return a.cat.keepCounts(ctx, func() { a.watch.tell("hosts"); a.watch.tell("updates") })
	})
	part("arrivals", a.streams.tellArrivals)
	part("policies", a.tellPolicies)
	part("downloads", a.folder.run)
	part("scan cab", a.keepCab)
	part("catalogue", a.published.run)
	part("missing files", a.keepFiles)
	part("cleaning", a.cleanNightly)
	part("housekeeping", a.keepHouse)
	part("emergency stops", a.folder.keepBlocked)
	part("folder check", a.folder.verify)
	part("sharing", a.folder.share.run)
	part("web", func(ctx context.Context) error { return a.serve(ctx, pages) })
	part("supervision", a.superviseBySystemd)
	part("mesh", a.takePart)
	part("presence", a.keepPresence)
	part("trend", a.keepTrend)
	part("meetings", a.keepMeetings)
	part("promotions", a.keepRings)
	part("reviews", func(ctx context.Context) error { return every(ctx, a.log, time.Minute, a.sortReviews) })
	if link := a.SetupLink(); link != "" {
		a.log.InfoContext(ctx, "no admin yet: open this link once to make the first", "url", link)
		if err := writeMotd(link); err != nil {
			a.log.WarnContext(ctx, "the setup link is not shown at login", "err", err)
		}
	}
	return g.Wait()
}

// Close releases what Open took, the listeners first so that callers notice.
func (a *Appliance) Close() error {
	var errs []error
	for _, l := range []net.Listener{a.https, a.http} {
		if l != nil {
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	if a.folder != nil {
		errs = append(errs, a.folder.root.Close())
	}
	if a.db != nil {
		errs = append(errs, removeMotd(), os.RemoveAll(filepath.Join(a.cfg.Data, ConsoleFile)), a.db.Close())
	}
	return errors.Join(errs...)
}

var errEnded = errors.New("ended by itself")

// every calls fn now and then once per d until ctx ends. An error costs one
// turn, never the node.
func every(ctx context.Context, log *slog.Logger, d time.Duration, fn func(context.Context) error) error {
	return everyOr(ctx, log, d, nil, fn)
}

// everyOr is every, with a turn also when it is woken.
func everyOr(ctx context.Context, log *slog.Logger, d time.Duration, woken <-chan struct{}, fn func(context.Context) error) error {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		if err := fn(ctx); err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "turn failed, trying again later", "wait", d, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-woken:
		}
	}
}
