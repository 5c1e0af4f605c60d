package appliance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
	"wuamesh/replicate/swarm"
)

// A sharing is the folder's part in the mesh: which node has which file, who
// downloads what from Microsoft, and the swarm that moves files between nodes.
// Alone, outside of any mesh, it does nothing but describe files.
type sharing struct {
	f      *folder
	swarm  atomic.Pointer[swarm.Swarm]
	limits *swarm.Limits
	began  time.Time

	dirty       chan struct{} // the folder's files changed
	cabNews     chan struct{} // a node has another scan cab, or one was asked for
	asking      chan struct{} // somebody asked for a file
	undescribed chan struct{} // a held file lacks its manifest
	rotting     chan string   // held files that are not what they were
	twice       atomic.Int64  // bytes of files that another node downloaded from Microsoft too

	scrubbed scrubRecord // of scrub's goroutine

	reading sync.Mutex        // of manifests
	recent  []*swarm.Manifest // the last ones that were used

	// mu is a leaf, below the folder's.
	mu      sync.RWMutex
	files   map[string]fileRecord      // of the mesh, by name
	leases  map[string]leaseRecord     // by file
	asks    map[string]askRecord       // by file
	folders map[string]folderRecord    // by node
	holders map[string]map[string]bool // by shortName, then node
	shelves map[string]string          // what this node wrote of itself, by bucket
	index   map[swarm.Digest]string    // held files, by digest
	indexed time.Time
	counted Traffic                // what is in the days' records
	faults  map[string]faultRecord // by who found it and whose they are
}

type (
	// folderRecord is what a node says of its folder.
	folderRecord struct {
		Name     string `json:"name"`
		Site     string `json:"site"`
		Internet bool   `json:"internet"`
	}
	// shelfRecord is which files a node has, of one 64th of all names:
	// shortName after shortName. Records of single files would be as many as
	// nodes times files.
	shelfRecord struct {
		Files string `json:"files"`
	}
)

// shortName stands for a file's name where thousands are listed. Two names
// with one shortName cost a question that is answered no.
func shortName(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:8])
}

func bucketOf(short string) string {
	return short[:1] + string("048c"[strings.IndexByte("0123456789abcdef", short[1])/4])
}

func newSharing(f *folder) *sharing {
	return &sharing{
		f: f, limits: swarm.NewLimits(), began: time.Now(), dirty: make(chan struct{}, 1), cabNews: make(chan struct{}, 1), asking: make(chan struct{}, 1), undescribed: make(chan struct{}, 1), rotting: make(chan string, 16),
		files: map[string]fileRecord{}, leases: map[string]leaseRecord{}, asks: map[string]askRecord{}, folders: map[string]folderRecord{},
		holders: map[string]map[string]bool{}, shelves: map[string]string{}, index: map[swarm.Digest]string{}, faults: map[string]faultRecord{},
	}
}

// load takes the records in, and puts them right with what is held now.
func (s *sharing) load(tx *replicate.Tx) error {
	for _, prefix := range []string{files.prefix, leases.prefix, asks.prefix, folders.prefix, shelves.prefix, limitPlans.prefix, faults.prefix} {
		for r, err := range tx.Scan(prefix) {
			if err != nil {
				return err
			}
			s.take(r)
		}
	}
	scrubbed, _, err := scrubs.find(tx, "folder")
	s.scrubbed = scrubbed
	return errors.Join(err, s.loadSpent(tx, time.Now()))
}

// follow sees every change of the store before its Update returns.
func (s *sharing) follow(list []replicate.Record) {
	news := false
	for _, r := range list {
		news = s.take(r) || news
	}
	if news {
		s.f.wakeWorkers()
	}
}

// take takes one record in; a value that does not decode counts as absent.
func (s *sharing) take(r replicate.Record) (news bool) {
	kind, id, _ := strings.Cut(r.Key, "/")
	s.mu.Lock()
	defer s.mu.Unlock()
	switch kind + "/" {
	case files.prefix:
		if id == microsoft.ScanCabName {
			wake(s.cabNews)
		}
		return takeInto(s.files, id, r)
	case leases.prefix:
		takeInto(s.leases, id, r)
		if l, ok := s.leases[id]; ok {
			l.heard = time.Now()
			s.leases[id] = l
		}
		return true
	case asks.prefix:
		if id == microsoft.ScanCabName {
			wake(s.cabNews)
			wake(s.asking)
		}
		return takeInto(s.asks, id, r)
	case faults.prefix:
		takeInto(s.faults, id, r)
	case folders.prefix:
		return takeInto(s.folders, id, r)
	case limitPlans.prefix:
		if site, err := hex.DecodeString(id); err == nil && string(site) == s.site() {
			s.limit(r)
		}
	case shelves.prefix:
		s.takeShelf(id, r)
		return true
	}
	return false
}

func takeInto[T any](m map[string]T, id string, r replicate.Record) bool {
	var v T
	if r.Deleted || decode(r.Key, r.Value, &v) != nil {
		delete(m, id)
	} else {
		m[id] = v
	}
	return true
}

// takeShelf takes in what a node has. The lock is held.
func (s *sharing) takeShelf(id string, r replicate.Record) {
	node, bucket, _ := strings.Cut(id, "/")
	var v shelfRecord
	if !r.Deleted && decode(r.Key, r.Value, &v) != nil {
		return
	}
	if node == s.f.node.db.NodeID() {
		s.shelves[bucket] = v.Files
	}
	for short, nodes := range s.holders {
		if nodes[node] && bucketOf(short) == bucket {
			if delete(nodes, node); len(nodes) == 0 {
				delete(s.holders, short)
			}
		}
	}
	for list := v.Files; len(list) >= 16; list = list[16:] {
		if s.holders[list[:16]] == nil {
			s.holders[list[:16]] = map[string]bool{}
		}
		s.holders[list[:16]][node] = true
	}
}

// run takes part in the mesh. It is a part of the node.
func (s *sharing) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.keepShelves(ctx) })
	g.Go(func() error { return everyOr(ctx, s.f.log, describePeriod, s.undescribed, s.describeAll) })
	g.Go(func() error { return s.scrub(ctx) })
	g.Go(func() error { return every(ctx, s.f.log, time.Minute, s.saveTraffic) })
	g.Go(func() error { return s.tellLinks(ctx) })
	g.Go(func() error { return s.keepAsks(ctx) })
	g.Go(func() error {
		mesh, err := s.awaitMesh(ctx)
		if err != nil {
			return nil // asked to stop
		}
		sw := s.newSwarm(mesh)
		s.swarm.Store(sw)
		defer s.swarm.Store(nil)
		s.f.wakeWorkers()
		return sw.Run(ctx)
	})
	return g.Wait()
}

// tellLinks tells pages of what moves between this node and others, as long as
// it changes: a node that only sends has no download that would.
func (s *sharing) tellLinks(ctx context.Context) error {
	var shown map[string]swarm.Link
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if now := s.links(); !maps.Equal(now, shown) {
			shown = now
			s.f.node.watch.tell("mesh")
		}
	}
}

// awaitMesh waits until the node takes part in a mesh.
func (s *sharing) awaitMesh(ctx context.Context) (*replicate.Mesh, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if mesh := s.f.node.mesh.Load(); mesh != nil {
			return mesh, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

func (s *sharing) newSwarm(mesh *replicate.Mesh) *swarm.Swarm {
	return swarm.New(swarm.Options{
		Self: swarm.Peer{ID: s.f.node.db.NodeID(), Site: s.site()}, Root: s.f.root, Limits: s.limits, Log: s.f.log,
		Peers: func() (list []swarm.Peer) {
			for _, p := range mesh.Peers() {
				if p.Reach == replicate.Direct {
					list = append(list, swarm.Peer{ID: p.NodeID, Site: p.Site})
				}
			}
			s.limits.Share(1 + len(slices.DeleteFunc(slices.Clone(list), func(p swarm.Peer) bool { return p.Site != s.site() })))
			return list
		},
		Transport: func(id string) http.RoundTripper { return lanes{mesh.Transport(id)} },
		Caller: func(r *http.Request) (swarm.Peer, bool) {
			from := replicate.FromPeer(r.Context())
			s.mu.RLock()
			defer s.mu.RUnlock()
			return swarm.Peer{ID: from.NodeID, Site: s.folders[from.NodeID].Site}, from.NodeID != ""
		},
		Held: s.open,
		Has: func(d swarm.Digest) bool {
			name := s.heldAs(d)
			return name != "" && s.f.block(name) == ""
		},
		Lied: s.lied, Rotten: s.rotten,
		Room: func(n int64) bool { return s.f.free() >= n+int64(s.f.node.config().DiskFloor) },
	})
}

// lanes sends pieces over connections of their own, so that records and hints
// need not wait behind them.
type lanes struct{ http.RoundTripper }

func (l lanes) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.Contains(r.URL.Path, "/piece/") {
		r = r.WithContext(replicate.Bulk(r.Context()))
	}
	return l.RoundTripper.RoundTrip(r)
}

// ServeHTTP answers peers that ask for files.
func (s *sharing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if sw := s.swarm.Load(); sw != nil {
		sw.Handler().ServeHTTP(w, r)
		return
	}
	http.Error(w, "This node is starting.", http.StatusServiceUnavailable)
}

// heldAs is the name of the held file with that content; empty for none.
func (s *sharing) heldAs(d swarm.Digest) string {
	s.f.mu.RLock()
	defer s.f.mu.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	want := d.String()
	name, ok := s.index[d]
	if h := s.f.held[name]; ok && h != nil && h.SHA256 == want {
		return name
	}
	if time.Since(s.indexed) < time.Second {
		return ""
	}
	clear(s.index)
	s.indexed = time.Now()
	for name, h := range s.f.held {
		if d, err := swarm.ParseDigest(h.SHA256); err == nil {
			s.index[d] = name
		}
	}
	return s.index[d]
}

// changed tells peers and the mesh that the folder holds other files.
func (s *sharing) changed() {
	s.mu.Lock()
	s.indexed = time.Time{}
	s.mu.Unlock()
	wake(s.dirty)
	if sw := s.swarm.Load(); sw != nil {
		sw.Changed()
	}
}

// open opens a held file with its manifest, for peers.
func (s *sharing) open(d swarm.Digest) (*os.File, *swarm.Manifest, error) {
	name := s.heldAs(d)
	if name == "" || s.f.block(name) != "" {
		return nil, nil, fs.ErrNotExist
	}
	m, err := s.manifest(d)
	if err != nil {
		wake(s.undescribed)
		return nil, nil, err
	}
	file, h, err := s.f.open(name)
	if err != nil {
		return nil, nil, err
	}
	h.asked.Store(time.Now().Unix()) // what peers take stays a while
	return file, m, nil
}

// describePeriod is how often it is looked whether every file has its manifest.
const describePeriod = 24 * time.Hour

// manifestDir is where manifests lie, by the digest of their file.
const manifestDir = ".pieces"

// manifest is that of a file this node has, or has begun.
func (s *sharing) manifest(d swarm.Digest) (*swarm.Manifest, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	if i := slices.IndexFunc(s.recent, func(m *swarm.Manifest) bool { return m.SHA256 == d }); i >= 0 {
		return s.recent[i], nil
	}
	m, err := s.readManifest(d)
	if err == nil {
		s.recent = append(s.recent[max(0, len(s.recent)-15):], m)
	}
	return m, err
}

func (s *sharing) readManifest(d swarm.Digest) (*swarm.Manifest, error) {
	r, err := s.f.root.Open(path.Join(manifestDir, d.String()))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, int64(swarm.MaxManifest)+1))
	if err != nil {
		return nil, fmt.Errorf("read a manifest: %w", err)
	}
	m, err := swarm.Decode(b)
	if err != nil || m.SHA256 != d {
		return nil, errors.Join(fmt.Errorf("the manifest of %s on disk is damaged", d), err)
	}
	return m, nil
}

// keepManifest writes a manifest to disk. It is not synced: one that is lost or
// damaged, as after a power cut, is made again.
func (s *sharing) keepManifest(m *swarm.Manifest) error {
	if err := s.f.root.Mkdir(manifestDir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep a manifest: %w", err)
	}
	name := path.Join(manifestDir, m.SHA256.String())
	w, err := s.f.root.Create(name + ".new")
	if err != nil {
		return fmt.Errorf("keep a manifest: %w", err)
	}
	_, err = io.Copy(w, bytes.NewReader(m.Encode()))
	if err = errors.Join(err, w.Close()); err == nil {
		err = s.f.root.Rename(name+".new", name)
	}
	s.reading.Lock()
	s.recent = slices.DeleteFunc(s.recent, func(old *swarm.Manifest) bool { return old.SHA256 == m.SHA256 })
	s.reading.Unlock()
	if err != nil {
		return fmt.Errorf("keep a manifest: %w", err)
	}
	return nil
}

// describe makes the manifest of a file in the folder and returns its root.
func (s *sharing) describe(ctx context.Context, name string) (*swarm.Manifest, error) {
	r, err := s.f.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return nil, err
	}
	m, err := swarm.Make(ctx, r, info.Size())
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", name, err)
	}
	return m, s.keepManifest(m)
}

// described completes the record of a file that came.
func (s *sharing) described(ctx context.Context, name string, rec fileRecord) (fileRecord, error) {
	m, err := s.describe(ctx, name)
	if err != nil {
		return rec, err
	}
	if m.SHA256.String() != rec.SHA256 {
		return rec, fmt.Errorf("%s changed while it was described", name)
	}
	rec.Root = m.Root().String()
	return rec, nil
}

// describeAll describes files that came before there were manifests, or whose
// manifest was lost or damaged: at the start, and when a peer asked in vain.
func (s *sharing) describeAll(ctx context.Context) error {
	s.f.mu.RLock()
	held := maps.Clone(s.f.held)
	s.f.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(held)) {
		d, err := swarm.ParseDigest(held[name].SHA256)
		if err != nil {
			continue
		}
		if m, err := s.readManifest(d); err == nil && m.Root().String() == held[name].Root {
			continue
		}
		err = s.describeHeld(ctx, name)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			s.suspect(name)
			s.f.log.WarnContext(ctx, "file not described; peers cannot fetch it from here", "file", name, "err", err)
		}
	}
	return nil
}

// describeHeld describes one held file. One that is replaced or deleted while
// it is read stays replaced or deleted.
func (s *sharing) describeHeld(ctx context.Context, name string) error {
	s.f.mu.RLock()
	h := s.f.held[name]
	s.f.mu.RUnlock()
	if h == nil {
		return nil
	}
	rec, err := s.described(ctx, name, h.fileRecord)
	if err != nil {
		return err
	}
	if err := s.f.node.db.Update(ctx, func(tx *replicate.Tx) error {
		known, ok, err := files.find(tx, name)
		if err != nil || !ok || name == microsoft.ScanCabName || known.SHA256 != rec.SHA256 || known.Root == rec.Root {
			return err
		}
		return files.put(tx, name, rec)
	}); err != nil {
		return fmt.Errorf("record the manifest of %s: %w", name, err)
	}
	now := &heldFile{fileRecord: rec, holding: h.holding}
	now.asked.Store(h.asked.Load())
	s.f.mu.Lock()
	if s.f.held[name] == h {
		s.f.held[name] = now
	}
	s.f.mu.Unlock()
	s.f.changed()
	return nil
}

// keepShelves tells the mesh what lies in this folder.
func (s *sharing) keepShelves(ctx context.Context) error {
	wake(s.dirty)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.dirty:
		}
		if err := s.writeShelves(ctx); err != nil && ctx.Err() == nil {
			s.f.log.WarnContext(ctx, "the mesh was not told what is in the folder, trying again", "err", err)
			time.AfterFunc(30*time.Second, func() { wake(s.dirty) })
		}
		select { // several files come at a time
		case <-ctx.Done():
			return nil
		case <-time.After(2 * time.Second):
		}
	}
}

func (s *sharing) writeShelves(ctx context.Context) error {
	id := s.f.node.db.NodeID()
	is := map[string][]string{}
	s.f.mu.RLock()
	for name, h := range s.f.held {
		if h.Root != "" && s.f.block(name) == "" {
			short := shortName(name)
			is[bucketOf(short)] = append(is[bucketOf(short)], short)
		}
	}
	s.f.mu.RUnlock()
	self := folderRecord{Name: s.f.node.NodeName(), Site: s.site(), Internet: s.f.node.config().Internet}
	s.mu.RLock()
	was, known := s.shelves, s.folders[id] == self
	change := map[string]string{}
	for bucket := range was {
		if len(is[bucket]) == 0 && was[bucket] != "" {
			change[bucket] = ""
		}
	}
	for bucket, list := range is {
		slices.Sort(list)
		if text := strings.Join(list, ""); text != was[bucket] {
			change[bucket] = text
		}
	}
	s.mu.RUnlock()
	if len(change) == 0 && known {
		return nil
	}
	return s.f.node.db.Update(ctx, func(tx *replicate.Tx) error {
		for bucket, text := range change {
			if err := shelves.put(tx, id+"/"+bucket, shelfRecord{text}); err != nil {
				return err
			}
		}
		return folders.put(tx, id, self)
	})
}

// record is what the mesh knows of a file, whether this node has it or not.
func (s *sharing) record(name string) (fileRecord, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.files[name]
	return r, ok && r.Root != ""
}

// others are the ids of other nodes that have a file.
func (s *sharing) others(name string) (list []string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for node := range s.holders[shortName(name)] {
		if node != s.f.node.db.NodeID() {
			list = append(list, node)
		}
	}
	slices.Sort(list)
	return list
}

// nameOf is what a node is called.
func (s *sharing) nameOf(id string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if r, ok := s.folders[id]; ok && r.Name != "" {
		return r.Name
	}
	return id[:min(8, len(id))]
}

// links are what moved between this node and others, by node.
func (s *sharing) links() map[string]swarm.Link {
	if sw := s.swarm.Load(); sw != nil {
		return sw.Links()
	}
	return nil
}

// siteOf is where a node stands; empty while nobody said.
func (s *sharing) siteOf(node string) string {
	if node == s.f.node.db.NodeID() {
		return s.site()
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.folders[node].Site
}

// living are the nodes that can be reached directly, without this one.
func (s *sharing) living() map[string]bool {
	mesh := s.f.node.mesh.Load()
	if mesh == nil {
		return nil
	}
	all := map[string]bool{}
	for _, p := range mesh.Peers() {
		if p.Reach == replicate.Direct {
			all[p.NodeID] = true
		}
	}
	return all
}

// site is the branch this node stands in.
func (s *sharing) site() string { return s.f.node.config().Site }
