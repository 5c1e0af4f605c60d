package appliance

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
	"wuamesh/replicate/swarm"
)

// A lease says which node downloads a file from Microsoft. Its holder renews
// it; when it is silent the next one goes on. Two who hold one at the same
// time, on two sides of a cut, download the file twice, which harms nobody and
// is counted.
type leaseRecord struct {
	Node    string       `json:"node"`
	Renewed time.Time    `json:"renewed"`
	Draft   *draftRecord `json:"draft,omitempty"`  // peers may have what came so far
	Limited time.Time    `json:"limited,omitzero"` // given back: until then the holder's limits let nothing come

	heard time.Time // by this node's own clock
}

const (
	leaseTime   = 60 * time.Second
	leaseRenew  = 20 * time.Second
	lookAgain   = 15 * time.Second // at who downloads and who has a file
	sourceless  = 60 * time.Second // a fetch without any source is given up after it
	futileTries = 3                // at peers that have a file and give nothing of it, before Microsoft is asked instead
	settleTime  = 20 * time.Second // from the start, until nodes that are not reached count as away
)

// A way is how a file comes to this node.
type way int

const (
	byWaiting way = iota
	byPeers
	byMicrosoft
)

// A turn is what one look through the queue goes by.
type turn struct {
	now        time.Time
	self       string
	internet   bool // this node may download from Microsoft
	swarm      bool // it takes part in a mesh
	living     map[string]bool
	candidates []candidate // may download from Microsoft and can be reached, this node included
	limited    time.Time   // until then the site's limits let nothing come from Microsoft
	settling   time.Time   // until then nodes that are known are given the time to be reached
}

// A candidate may download from Microsoft.
type candidate struct {
	id, site string
	hash     uint64
}

func (s *sharing) turn(now time.Time) *turn {
	u := &turn{now: now, self: s.f.node.db.NodeID(), internet: s.f.node.config().Internet, swarm: s.swarm.Load() != nil, living: s.living()}
	if end := s.began.Add(settleTime); now.Before(end) && s.awaited() {
		u.settling = end
	}
	u.limited = s.limits.Blocked(swarm.Source, swarm.Down, now)
	if u.internet {
		u.candidates = append(u.candidates, candidate{u.self, s.site(), hashOf(u.self)})
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, r := range s.folders {
		if id != u.self && r.Internet && u.living[id] {
			u.candidates = append(u.candidates, candidate{id, r.Site, hashOf(id)})
		}
	}
	return u
}

// awaited says whether there is a node that was not reached since the start.
func (s *sharing) awaited() bool {
	mesh := s.f.node.mesh.Load()
	if mesh == nil { // it is not up yet, or this node is alone
		return len(s.f.node.roster.living()) > 1
	}
	return slices.ContainsFunc(mesh.Peers(), func(p replicate.Peer) bool { return p.Reach == replicate.Away && p.Contact.Before(s.began) })
}

func hashOf(text string) uint64 {
	sum := sha256.Sum256([]byte(text))
	return binary.BigEndian.Uint64(sum[:])
}

// way decides how a task's file comes here, or says in a sentence what it
// waits for. The folder's lock is held.
func (s *sharing) way(t *task, u *turn) (way, string) {
	if t.Kind == kindScan {
		by, why := s.wayOfCab(u, s.f.cab.SHA256, s.f.refused.SHA256)
		return s.unlessLimited(t, u, by, why)
	}
	s.mu.RLock()
	known := s.files[t.File].Root != ""
	reached, away := s.at(t.short, u)
	lease, leased := s.leases[t.File]
	s.mu.RUnlock()
	if t.errand != "" && reached != "" {
		return byWaiting, s.nameOf(reached) + " has it for the node that was asked."
	}
	if known && u.swarm && reached != "" && (t.futile < futileTries || !u.internet) {
		return byPeers, ""
	}
	if known && u.swarm && away != "" && !u.internet {
		return byWaiting, "It is on " + s.nameOf(away) + ", which cannot be reached now."
	}
	if leased && lease.Node != u.self && lease.holds(u.now) && u.living[lease.Node] {
		if lease.Draft != nil && u.swarm && t.errand == "" {
			return byPeers, ""
		}
		return byWaiting, s.nameOf(lease.Node) + " downloads it from Microsoft."
	}
	cannot := t.errand
	limited := leased && lease.Node != u.self && lease.Limited.After(u.now)
	switch {
	case limited:
		cannot = lease.Node
	case t.futile >= futileTries:
		cannot = reached
	}
	rank, first := u.without(cannot).rank(t.hash, t.sites)
	switch {
	case rank < 0 && first == "" && limited:
		return byWaiting, s.nameOf(lease.Node) + " goes on at " + clock(lease.Limited) + ": until then its site's limits let nothing come from Microsoft."
	case rank < 0 && first == "":
		return byWaiting, "No node that may download from Microsoft can be reached."
	case rank < 0:
		return byWaiting, cmp.Or(s.said(t.File, u.now), s.nameOf(first)+" will download it from Microsoft.")
	case rank > 0 && !t.forcedHere && u.now.Sub(t.Queued) < time.Duration(rank)*leaseTime:
		return byWaiting, s.nameOf(first) + " will download it from Microsoft; this node does if it does not."
	}
	return s.unlessLimited(t, u, byMicrosoft, "")
}

// at are nodes that have a file: one that can be reached, and the first of
// those that cannot; empty for none. The lock is held.
func (s *sharing) at(short string, u *turn) (reached, away string) {
	for id := range s.holders[short] {
		switch {
		case id == u.self:
		case u.living[id]:
			reached = id
		case away == "" || id < away:
			away = id
		}
	}
	return reached, away
}

// unlessLimited puts a download from Microsoft off while the site's limits let
// nothing come; another internet node takes it over meanwhile. After a start
// it first waits a little for nodes that may have the file.
func (s *sharing) unlessLimited(t *task, u *turn, by way, why string) (way, string) {
	if t.limited {
		t.limited, t.NextTry = false, time.Time{}
	}
	switch {
	case by != byMicrosoft:
		return by, why
	case !u.settling.IsZero() && !t.forcedHere:
		return byWaiting, "This node just started: it looks first whether another one has it."
	case u.limited.IsZero():
		return by, why
	}
	t.limited, t.NextTry = true, u.limited
	return byWaiting, "The site's limits let nothing come from Microsoft now."
}

// wayOfCab is way for the scan cab: from a peer that has a newer one, else
// one of the internet nodes asks Microsoft.
func (s *sharing) wayOfCab(u *turn, have, refused string) (way, string) {
	rec, known := s.record(microsoft.ScanCabName)
	if known && rec.SHA256 != have && rec.SHA256 != refused && u.swarm && slices.ContainsFunc(s.others(microsoft.ScanCabName), func(id string) bool { return u.living[id] }) {
		return byPeers, ""
	}
	if u.internet {
		return byMicrosoft, ""
	}
	_, first := u.rank(hashOf(microsoft.ScanCabName), nil)
	if first == "" {
		return byWaiting, "No node that may download from Microsoft can be reached; the first that can is asked for a newer one."
	}
	return byWaiting, cmp.Or(s.said(microsoft.ScanCabName, u.now), s.nameOf(first)+" is asked for a newer one.")
}

// rank is this node's turn among those that may download a file from
// Microsoft, 0 for the first, -1 when it is not one of them; and who is
// first. Every node finds the same order (rendezvous hashing), in which a
// site comes first as often as its hosts are among those that wait: what only
// one branch needs comes over its own line, and what all need is shared out.
func (u *turn) rank(file uint64, waiting map[string]int) (rank int, first string) {
	anybody := false
	for _, c := range u.candidates {
		anybody = anybody || waiting[c.site] > 0
	}
	weigh := func(c candidate) (score float64) {
		weight := 1.0
		if anybody {
			weight = float64(waiting[c.site])
		}
		x := mix(file ^ c.hash)
		if weight == 0 {
			return -float64(x >> 12) // after those with hosts, in an order of their own
		}
		return -weight / math.Log((float64(x>>11)+0.5)/(1<<53))
	}
	rank, own, best := -1, 0.0, 0.0
	for i, c := range u.candidates {
		score := weigh(c)
		if i == 0 || score > best || score == best && c.id < first {
			first, best = c.id, score
		}
		if c.id == u.self {
			rank, own = 0, score
		}
	}
	for _, c := range u.candidates {
		if score := weigh(c); rank >= 0 && (score > own || score == own && c.id < u.self) {
			rank++
		}
	}
	return rank, first
}

// without is the turn when a node cannot: it asked the others, its limits let
// nothing come, or it has the file and gives nothing of it.
func (u *turn) without(node string) *turn {
	if node == "" {
		return u
	}
	less := *u
	less.candidates = slices.DeleteFunc(slices.Clone(u.candidates), func(c candidate) bool { return c.id == node })
	return &less
}

// mix is a hash of a number (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// keeps says whether this node fetches a file that hosts of the mesh wait for
// without being asked for it. One that keeps only what its own agents ask for
// still downloads from Microsoft what it is its turn to and nobody has.
func (s *sharing) keeps(w wantedFile, u *turn) bool {
	if s.f.node.config().Placement != "local" {
		return true
	}
	rank, _ := u.rank(hashOf(w.Name), w.sites)
	return rank == 0 && len(s.others(w.Name)) == 0
}

// holds says whether a lease is in force: not for long after it was heard of,
// whatever the clock of its holder says.
func (l leaseRecord) holds(now time.Time) bool {
	return now.Sub(l.heard) < leaseTime && l.Limited.IsZero()
}

// A lease is one that this node holds.
type lease struct {
	s     *sharing
	file  string
	draft atomic.Pointer[draftRecord]
	stop  func() // nil for a node on its own, which needs none
}

// holdLease takes the lease of a file and renews it until release.
func (s *sharing) holdLease(ctx context.Context, file string) *lease {
	l := &lease{s: s, file: file}
	if s.f.node.mesh.Load() == nil {
		return l
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		every(ctx, s.f.log, leaseRenew, l.put)
	}()
	l.stop = func() { cancel(); <-done }
	return l
}

func (l *lease) put(ctx context.Context) error {
	return l.s.f.node.db.Update(ctx, func(tx *replicate.Tx) error {
		return leases.put(tx, l.file, leaseRecord{Node: l.s.f.node.db.NodeID(), Renewed: tx.Now(), Draft: l.draft.Load()})
	})
}

// release gives the lease back; whose limits ended the download says so, and
// another node goes on at once.
func (l *lease) release(ended error) {
	if l.stop == nil {
		return
	}
	l.stop()
	err := l.s.f.node.db.Update(context.Background(), func(tx *replicate.Tx) error {
		if limited, ok := errors.AsType[*limitedError](ended); ok {
			return leases.put(tx, l.file, leaseRecord{Node: l.s.f.node.db.NodeID(), Renewed: tx.Now(), Limited: limited.until})
		}
		return leases.del(tx, l.file)
	})
	if err != nil {
		l.s.f.log.Warn("lease not given back; it ends by itself", "file", l.file, "err", err)
	}
}

// fetchFromPeers brings a file that other nodes have.
func (s *sharing) fetchFromPeers(ctx context.Context, t *task) (status string, fetched int64, err error) {
	sw := s.swarm.Load()
	if sw == nil {
		return "", 0, errNoSource
	}
	drafted, err := s.fetchDraft(ctx, sw, t)
	defer func() { fetched += drafted }()
	if err != nil {
		return "", 0, err
	}
	rec, ok := s.record(t.File)
	if !ok {
		return "", 0, errNoSource
	}
	m, err := s.manifestFor(ctx, sw, t.File, rec)
	if err != nil {
		return "", 0, err
	}
	if err := s.agrees(t.File, m); err != nil {
		return "", 0, err
	}
	name, done := t.File, func(ctx context.Context) error { return s.arrived(ctx, t.File, rec) }
	if t.Kind == kindScan {
		if err := s.f.root.MkdirAll(cabDir, 0o755); err != nil {
			return "", 0, err
		}
		name, done = filepath.Join(cabDir, microsoft.ScanCabName), func(ctx context.Context) error { return s.f.cabArrived(ctx, t, rec) }
	}
	s.f.mu.RLock()
	priority := t.urgency()
	s.f.mu.RUnlock()
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.watchFetch(ctx, cancel, sw, t, m.SHA256)
	}()
	fetched, err = sw.Fetch(ctx, m, swarm.FetchOptions{Name: name, Priority: priority, Parts: partsOf(t.File, m.Size), Done: done})
	if err != nil {
		err = cmp.Or(context.Cause(ctx), err)
	}
	cancel(nil)
	<-watched // what it last saw must not be written over what follows
	s.f.mu.Lock()
	t.Waiting, t.NextTry = "", time.Time{}
	s.f.mu.Unlock()
	if err != nil {
		return "", fetched, err
	}
	s.f.mu.Lock()
	t.Size, t.Done = m.Size, m.Size
	s.f.mu.Unlock()
	return statusDone, fetched, nil
}

var errNoSource = errors.New("no node that has the file can be reached")

// manifestFor is the manifest of a file as its record says.
func (s *sharing) manifestFor(ctx context.Context, sw *swarm.Swarm, name string, rec fileRecord) (*swarm.Manifest, error) {
	d, err := swarm.ParseDigest(rec.SHA256)
	if err != nil {
		return nil, err
	}
	root, err := swarm.ParseDigest(rec.Root)
	if err != nil {
		return nil, err
	}
	if m, err := s.manifest(d); err == nil && m.Root() == root {
		return m, nil
	}
	m, err := sw.FetchManifest(ctx, d, root, s.others(name))
	if err != nil {
		return nil, err
	}
	return m, s.keepManifest(m)
}

// agrees refuses a manifest that contradicts what hosts reported of the file
// or what its name says.
func (s *sharing) agrees(name string, m *swarm.Manifest) error {
	if name == microsoft.ScanCabName {
		return nil // its signature is checked
	}
	w, _ := s.f.node.cat.fileNamed(name)
	w.Name = name
	want := w.download()
	if want.SHA1 == nil {
		if _, sum, err := microsoft.NameFromURL(name); err == nil {
			want.SHA1 = sum
		}
	}
	switch {
	case want.Size > 0 && want.Size != m.Size:
		return &microsoft.MismatchError{Name: name, What: "size", Want: fmt.Sprint(want.Size), Got: fmt.Sprint(m.Size)}
	case want.SHA256 != nil && !slices.Equal(want.SHA256, m.SHA256[:]):
		return &microsoft.MismatchError{Name: name, What: "SHA-256", Want: fmt.Sprintf("%x", want.SHA256), Got: m.SHA256.String()}
	case want.SHA1 != nil && !slices.Equal(want.SHA1, m.SHA1[:]):
		return &microsoft.MismatchError{Name: name, What: "SHA-1", Want: fmt.Sprintf("%x", want.SHA1), Got: fmt.Sprintf("%x", m.SHA1)}
	}
	return nil
}

// watchFetch shows how a fetch goes on, and ends one that has no source left.
func (s *sharing) watchFetch(ctx context.Context, cancel context.CancelCauseFunc, sw *swarm.Swarm, t *task, d swarm.Digest) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	alone := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		v, ok := sw.Transfer(d)
		if !ok {
			return
		}
		now := time.Now()
		s.f.mu.Lock()
		t.progress(v.Done, v.Size, now)
		t.Rate, t.Waiting, t.NextTry = v.Rate, v.Waiting, v.NextTime
		s.f.mu.Unlock()
		s.f.node.watch.tell("downloads")
		if v.Sources > 0 || v.Flying > 0 {
			alone = now
		} else if now.Sub(alone) > sourceless {
			cancel(errNoSource)
		}
	}
}

// urgency orders fetches: the scan cab, what an admin put first, what an agent
// asks for now, then what most wait for. Ten minutes of waiting count as one step. The lock is held.
func (t *task) urgency() int {
	switch {
	case t.Kind == kindScan:
		return 1000
	case !t.First.IsZero():
		return 900
	}
	n := 0
	for hosts := t.hosts; hosts > 0; hosts /= 2 {
		n += 2
	}
	return n
}

// arrived holds a file that came from peers.
func (s *sharing) arrived(ctx context.Context, name string, rec fileRecord) error {
	info, err := s.f.root.Lstat(name)
	if err != nil {
		return err
	}
	rec.Completed = time.Now().UTC()
	return s.f.hold(ctx, name, &heldFile{fileRecord: rec, holding: holding{Bytes: info.Size(), Modified: info.ModTime()}})
}
