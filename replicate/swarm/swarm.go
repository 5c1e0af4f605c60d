package swarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Peer is a node, and the site it stands in.
type Peer struct{ ID, Site string }

// Options are what a swarm works with.
type Options struct {
	Self Peer
	// Root is the folder: files arrive in [PartialDir] below it.
	Root *os.Root
	// Peers are the other living nodes that can be reached directly.
	Peers func() []Peer
	// Transport carries requests to a peer; the host in their URL is the
	// peer's id.
	Transport func(id string) http.RoundTripper
	// Caller says which node sent a request to [Swarm.Handler].
	Caller func(*http.Request) (Peer, bool)
	// Held opens a file that lies whole in the folder and was found right,
	// for reading; an error when there is none.
	Held func(Digest) (*os.File, *Manifest, error)
	// Has says the same without opening it.
	Has func(Digest) bool
	// Limits hold the rates and count; nil for none.
	Limits *Limits
	// Room says whether the disk may take so many bytes more; nil leaves it to
	// the disk to be full.
	Room func(bytes int64) bool
	// Lied is called when a peer sent a piece that is not what its digest
	// says; it may be nil.
	Lied func(peer string, d Digest)
	// Rotten is called when a piece of a held file is not what its digest says
	// any more: it was not sent. It may be nil.
	Rotten func(Digest)
	Log    *slog.Logger
}

// activeMost is how many files are fetched at a time; the others wait.
const activeMost = 64

// A Swarm fetches files from peers and serves them to peers.
type Swarm struct {
	Options
	epoch uint64 // of this start: what it announced before counts no more

	mu        sync.Mutex
	sched     *scheduler
	transfers map[Digest]*transfer
	offers    map[Digest]*Offer
	active    int                           // transfers that had their turn
	cancels   map[uint64]context.CancelFunc // of requests that fly
	peers     map[string]*follower
	news      chan struct{}    // closed when something arrived, became whole, or idle
	files     chan struct{}    // closed when the list of active files changed
	links     map[string]*link // by peer

	kick      chan struct{}
	began     time.Time
	uploads   atomic.Int64
	idleSince atomic.Int64 // nanoseconds from began on; 0 while busy. No clock that is set moves it
	slots     chan struct{}
	buffers   sync.Pool
}

// A follower follows what one peer has.
type follower struct {
	Peer
	stop context.CancelFunc
}

// A transfer is one file that is being fetched, for everyone who wants it.
type transfer struct {
	m        *Manifest
	opts     FetchOptions
	began    time.Time
	part     *partial // nil while it waits for its turn
	refused  bool     // it cannot be begun
	users    int
	changed  chan struct{} // closed when a piece came
	dirty    chan struct{} // a piece is to be made durable
	done     chan struct{}
	err      error // once done
	fetched  int64 // bytes that came this time
	finishes bool
	rate     rate
	from     map[string]*rate // what came from each peer
	came     time.Time        // the last piece
	epoch    uint64           // of its announcements
	source   string           // of a draft: who downloads it; empty for a file that is known
}

func newTransfer(m *Manifest, o FetchOptions) *transfer {
	return &transfer{m: m, opts: o, began: time.Now(), from: map[string]*rate{}, changed: make(chan struct{}), dirty: make(chan struct{}, 1), done: make(chan struct{})}
}

// cameFrom counts what a peer sent. The swarm's lock is held.
func (t *transfer) cameFrom(peer string, n int64, now time.Time) {
	if t.from[peer] == nil {
		t.from[peer] = &rate{}
	}
	t.from[peer].add(n, now)
}

// FetchOptions say how a file is fetched.
type FetchOptions struct {
	Name     string // in the folder, once it is whole
	Priority int    // higher first; ten minutes of waiting count as one
	// Parts are files below the folder that may hold pieces of it, at their
	// places: the first that there is is taken up.
	Parts []string
	// Done is called when the file is in its place and before others hear
	// that it is whole; an error fails the fetch. It may be nil.
	Done func(context.Context) error
}

// New makes a swarm; [Swarm.Run] makes it work.
func New(o Options) *Swarm {
	if o.Limits == nil {
		o.Limits = NewLimits()
	}
	s := &Swarm{
		Options: o, epoch: max(rand.Uint64(), 2), sched: newScheduler(o.Self.ID, o.Self.Site, rand.Uint64()),
		transfers: map[Digest]*transfer{}, offers: map[Digest]*Offer{}, cancels: map[uint64]context.CancelFunc{}, peers: map[string]*follower{},
		news: make(chan struct{}), files: make(chan struct{}), links: map[string]*link{},
		kick: make(chan struct{}, 1), slots: make(chan struct{}, uploadsMost), began: time.Now(),
	}
	s.buffers.New = func() any { b := make([]byte, MaxPiece); return &b }
	s.idleSince.Store(-int64(restTime))
	return s
}

// Run fetches until ctx ends.
func (s *Swarm) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.stopAll()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var looked time.Time
	for {
		now := time.Now()
		if now.Sub(looked) >= time.Second {
			looked = now
			s.lookAtPeers(ctx, &wg)
		}
		s.mu.Lock()
		s.sched.shut(s.Limits.Blocked(WAN, Down, now), now)
		start, wake := s.sched.next(now)
		for _, r := range start {
			rctx, cancel := context.WithCancel(ctx)
			s.cancels[r.ID] = cancel
			wg.Go(func() { s.request(rctx, r) })
		}
		idle := len(s.transfers) == 0
		s.mu.Unlock()
		wait := min(time.Until(wake), time.Second)
		if idle {
			wait = time.Second
		}
		timer.Reset(max(wait, 5*time.Millisecond))
		select {
		case <-ctx.Done():
			return nil
		case <-s.kick:
		case <-timer.C:
		}
	}
}

func (s *Swarm) stopAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.peers {
		f.stop()
	}
	for _, cancel := range s.cancels {
		cancel()
	}
}

// PeersChanged makes the swarm look at its peers soon. It does so once a
// second anyway.
func (s *Swarm) PeersChanged() { s.poke() }

// Changed tells peers that this node holds other files than before.
func (s *Swarm) Changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellNews()
}

func (s *Swarm) poke() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// lookAtPeers follows peers that appeared and lets go of those that vanished.
func (s *Swarm) lookAtPeers(ctx context.Context, wg *sync.WaitGroup) {
	list := s.Peers()
	s.mu.Lock()
	defer s.mu.Unlock()
	lives := map[string]bool{}
	for _, p := range list {
		if p.ID == s.Self.ID {
			continue
		}
		lives[p.ID] = true
		if f := s.peers[p.ID]; f != nil {
			if f.Peer == p {
				continue
			}
			f.stop()
		}
		fctx, stop := context.WithCancel(ctx)
		s.peers[p.ID] = &follower{p, stop}
		wg.Go(func() { s.follow(fctx, p) })
	}
	for id, f := range s.peers {
		if !lives[id] {
			f.stop()
			delete(s.peers, id)
			s.cancel(s.sched.gone(id))
		}
	}
}

// cancel ends requests. The lock is held.
func (s *Swarm) cancel(ids []uint64) {
	for _, id := range ids {
		if stop := s.cancels[id]; stop != nil {
			stop()
		}
	}
}

// Fetch brings a file into the folder and returns when it is there, whole,
// right and durable; fetched is how many bytes came from peers. Whoever asks for a file that is being fetched joins in;
// when nobody wants it any more it stops, and goes on where it was the next
// time. [ErrWrong] is a manifest that lies; [*FullError] a disk without room.
func (s *Swarm) Fetch(ctx context.Context, m *Manifest, o FetchOptions) (fetched int64, err error) {
	if err := m.Check(); err != nil {
		return 0, err
	}
	if err := adopt(ctx, s.Root, m, o.Parts); err != nil {
		return 0, err
	}
	s.mu.Lock()
	t := s.transfers[m.SHA256]
	if t == nil {
		t = newTransfer(m, o)
		t.epoch = s.epoch
		s.transfers[m.SHA256] = t
	}
	t.users++
	if t.opts.Priority < o.Priority {
		if t.opts.Priority = o.Priority; t.part != nil {
			s.sched.want(t.m, nil, o.Priority, time.Now())
		}
	}
	s.activate()
	s.mu.Unlock()
	s.poke()
	defer s.leave(t)
	select {
	case <-t.done:
		err = t.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.fetched, err
}

// leave ends a transfer that nobody waits for any more.
func (s *Swarm) leave(t *transfer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.users--; t.users == 0 && !t.finishes {
		s.end(t, context.Canceled)
	}
}

// end takes a transfer out, once. The lock is held.
func (s *Swarm) end(t *transfer, err error) {
	if s.transfers[t.m.SHA256] != t {
		return
	}
	delete(s.transfers, t.m.SHA256)
	s.cancel(s.sched.drop(t.m.SHA256))
	t.err = err
	close(t.done)
	close(t.changed)
	if t.part != nil {
		t.part.close()
		s.active--
	}
	s.activate()
	s.tellFiles()
	s.tellNews()
}

// activate gives the most urgent transfers their turn. The lock is held.
func (s *Swarm) activate() {
	for s.active < activeMost && s.active < len(s.transfers) {
		var first *transfer
		for _, t := range s.transfers {
			if t.part == nil && !t.refused && (first == nil || t.before(first)) {
				first = t
			}
		}
		if first == nil {
			return
		}
		s.begin(first)
	}
}

func (t *transfer) before(u *transfer) bool {
	if t.opts.Priority != u.opts.Priority {
		return t.opts.Priority > u.opts.Priority
	}
	return t.began.Before(u.began)
}

// begin opens the file of a transfer. The lock is held.
func (s *Swarm) begin(t *transfer) {
	open := openPartial
	if t.source != "" {
		open = openDraft
	}
	part, err := open(s.Root, t.m, s.Room)
	if err != nil {
		t.refused = true
		go func() { // the caller holds the lock and goes through the transfers
			s.mu.Lock()
			defer s.mu.Unlock()
			s.end(t, err)
		}()
		return
	}
	t.part = part
	s.active++
	s.sched.want(t.m, part.have, t.opts.Priority, time.Now())
	if t.source != "" {
		s.sched.draft(t.m.SHA256, t.source)
	}
	s.tellFiles()
	s.tellNews()
	go s.keep(t)
}

// keep makes what arrived durable, and the whole file one of the folder when
// all of it did. It ends with its transfer.
func (s *Swarm) keep(t *transfer) {
	for {
		if t.part.complete() && s.ended(t) {
			return
		}
		select {
		case <-t.done:
			return
		case <-t.dirty:
		}
		if err := t.part.settle(); err != nil {
			s.mu.Lock()
			s.end(t, err)
			s.mu.Unlock()
			return
		}
	}
}

// ended ends a transfer of which every piece is there, unless the disk lost
// some of them.
func (s *Swarm) ended(t *transfer) bool {
	var err error
	if t.source == "" {
		err = s.finish(t)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, errDamaged) {
		t.finishes = false
		s.cancel(s.sched.again(t.m.SHA256, t.part.have))
		s.poke()
		return false
	}
	if f := s.sched.files[t.m.SHA256]; err == nil && t.source != "" && f != nil && f.missing > 0 {
		return false // the last piece was written and is not counted yet
	}
	s.end(t, err)
	return true
}

// finish publishes a file of which every piece is there.
func (s *Swarm) finish(t *transfer) error {
	s.mu.Lock()
	if s.transfers[t.m.SHA256] != t {
		s.mu.Unlock()
		return context.Canceled
	}
	t.finishes = true
	s.mu.Unlock()
	ctx := context.Background() // a rename is not stopped half way; a restart checks again
	if err := t.part.publish(ctx, t.opts.Name); err != nil {
		return err
	}
	if t.opts.Done != nil {
		return t.opts.Done(ctx)
	}
	return nil
}

// tellNews wakes who waits for what this node has. The lock is held.
func (s *Swarm) tellNews() {
	close(s.news)
	s.news = make(chan struct{})
}

// tellFiles wakes the followers: they ask about other files now. The lock is
// held.
func (s *Swarm) tellFiles() {
	close(s.files)
	s.files = make(chan struct{})
}

// request asks a peer for a piece and takes it in.
func (s *Swarm) request(ctx context.Context, r Request) {
	buf := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buf)
	b := (*buf)[:r.Size]
	s.mu.Lock()
	class := s.class(r.Peer)
	t := s.transfers[r.File]
	s.mu.Unlock()
	after, err := s.getPiece(ctx, r, class, b)
	if err == nil && t != nil {
		if err = t.part.write(r.Piece, b); err != nil && !errors.Is(err, ErrWrong) {
			s.mu.Lock()
			s.cancels[r.ID]()
			delete(s.cancels, r.ID)
			s.end(t, err)
			s.mu.Unlock()
			return
		}
	}
	stopped := ctx.Err() != nil
	s.mu.Lock()
	s.cancels[r.ID]()
	delete(s.cancels, r.ID)
	now := time.Now()
	var lied bool
	switch why := failure(0); {
	case err == nil:
		s.link(r.Peer).in.add(r.Size, now)
		s.cancel(s.sched.arrived(r.ID, now))
		if t != nil {
			t.cameFrom(r.Peer, r.Size, now)
		}
		s.cameIn(t, r.Piece, r.Size, now)
	case errors.As(err, &why):
		lied = why == failedWrong
		s.sched.failed(r.ID, why, after, now)
	case errors.Is(err, ErrWrong) && t != nil && t.source != "":
		s.sched.failed(r.ID, failedGone, after, now) // of another source: nobody knows yet who is right
	case errors.Is(err, ErrWrong):
		lied = true
		s.sched.failed(r.ID, failedWrong, after, now)
	default:
		s.sched.failed(r.ID, failedNet, after, now)
	}
	s.mu.Unlock()
	s.poke()
	if lied {
		s.Log.Warn("peer sent a wrong piece; nothing is asked of it for a while", "peer", r.Peer, "digest", r.File, "piece", r.Piece, "wait", banTime)
		if s.Lied != nil {
			s.Lied(r.Peer, r.File)
		}
	} else if err != nil && !stopped {
		s.Log.Debug("piece not fetched", "peer", r.Peer, "digest", r.File, "piece", r.Piece, "err", err)
	}
}

// cameIn tells everyone that a piece is here. The lock is held.
func (s *Swarm) cameIn(t *transfer, piece int, n int64, now time.Time) {
	if t == nil || s.transfers[t.m.SHA256] != t {
		return
	}
	s.cancel(s.sched.got(t.m.SHA256, piece))
	t.fetched += n
	t.came = now
	t.rate.add(n, now)
	close(t.changed)
	t.changed = make(chan struct{})
	select {
	case t.dirty <- struct{}{}:
	default:
	}
	s.tellNews()
}

// class is the kind of line to a peer. The lock is held.
func (s *Swarm) class(peer string) Class {
	if f := s.peers[peer]; f != nil && f.Site != "" && f.Site == s.Self.Site {
		return LAN
	}
	return WAN
}

// Error lets a failure travel as an error.
func (f failure) Error() string {
	return [...]string{"the connection broke", "the peer does not have it", "the peer is busy", "the piece is wrong"}[f]
}

// A rate is bytes per second over the last seconds.
type rate struct {
	at    time.Time
	bytes int64
	value float64
	total int64 // bytes
}

func (r *rate) add(n int64, now time.Time) {
	if r.at.IsZero() || now.Sub(r.at) > rateAge { // after a rest
		r.at, r.bytes, r.value = now, 0, 0
	}
	r.bytes += n
	r.total += n
	if took := now.Sub(r.at); took >= 2*time.Second {
		r.value, r.bytes, r.at = (r.value+float64(r.bytes)/took.Seconds())/2, 0, now
	}
}

// rateAge is how long the last bytes count as moving.
const rateAge = 10 * time.Second

func (r *rate) now(now time.Time) int64 {
	if now.Sub(r.at) > rateAge {
		return 0
	}
	return int64(r.value)
}

// A Transfer is how far a fetch is, for people.
type Transfer struct {
	Digest   Digest
	Name     string
	Size     int64 // bytes
	Done     int64 // bytes that are here
	Fetched  int64 // bytes that came since the fetch began
	Rate     int64 // bytes per second
	Sources  int   // peers that have something of it that is missing here
	Flying   int   // requests
	Began    time.Time
	Waiting  string // why nothing moves; empty when something does
	NextTime time.Time
	Peers    map[string]Share // those that can be reached, or sent something
}

// A Share is what a peer has of a file, and has sent of it.
type Share struct {
	Part  float64 // that it has: 0 to 1
	Bytes int64   // that came from it since the fetch began
	Rate  int64   // bytes per second
}

// Transfers lists the fetches, the oldest first.
func (s *Swarm) Transfers() []Transfer {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Transfer
	for _, t := range s.transfers {
		list = append(list, s.describe(t, time.Now()))
	}
	slices.SortFunc(list, func(x, y Transfer) int { return x.Began.Compare(y.Began) })
	return list
}

// Transfer describes the fetch of one file.
func (s *Swarm) Transfer(d Digest) (Transfer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.transfers[d]; t != nil {
		return s.describe(t, time.Now()), true
	}
	return Transfer{}, false
}

func (s *Swarm) describe(t *transfer, now time.Time) Transfer {
	v := Transfer{Digest: t.m.SHA256, Name: t.opts.Name, Size: t.m.Size, Fetched: t.fetched, Began: t.began, Peers: map[string]Share{}}
	if t.part == nil {
		v.Waiting = "It waits for its turn."
		return v
	}
	t.part.mu.Lock()
	v.Done = t.part.bytes
	t.part.mu.Unlock()
	v.Rate = t.rate.now(now)
	for _, f := range s.sched.flights {
		if f.File == t.m.SHA256 {
			v.Flying++
		}
	}
	n, limited := len(t.m.Pieces), 0
	var asked time.Time
	for id, p := range s.sched.peers {
		if pf := p.files[t.m.SHA256]; pf != nil && n > 0 {
			v.Peers[id] = Share{Part: float64(pf.count) / float64(n)}
			if pf.count > 0 {
				v.Sources++
			}
			if pf.count > 0 && p.limited.After(now) {
				if limited++; asked.IsZero() || p.limited.Before(asked) {
					asked = p.limited
				}
			}
		}
	}
	for id, came := range t.from {
		v.Peers[id] = Share{v.Peers[id].Part, came.total, came.now(now)}
	}
	until := s.Limits.Blocked(WAN, Down, now)
	switch {
	case t.finishes:
		v.Waiting = "It is whole and being verified."
	case !until.IsZero() && (v.Flying > 0 || v.Sources > 0):
		v.Waiting, v.NextTime = "The site's limits let nothing through now.", until
	case v.Flying > 0:
	case v.Sources == 0 && len(s.peers) == 0:
		v.Waiting = "No other node can be reached."
	case v.Sources == 0:
		v.Waiting = "No node that can be reached has it."
	case v.Sources == limited:
		v.Waiting, v.NextTime = "The limits of the sites that have it let nothing out now; they are asked again every few minutes.", asked
	default:
		v.Waiting = "It waits for pieces that other nodes are fetching."
	}
	return v
}

// A link is what moved between this node and a peer.
type link struct{ in, out rate }

// link is that of a peer. The lock is held.
func (s *Swarm) link(peer string) *link {
	if s.links[peer] == nil {
		s.links[peer] = &link{}
	}
	return s.links[peer]
}

// A Link is what moved between this node and a peer since the start, in bytes,
// and what moves now, in bytes per second.
type Link struct {
	In, Out, InRate, OutRate int64
	Silent                   time.Time // when it was last asked, if again and again nothing came
}

// Links are those of all peers that sent or took something, or sent nothing of
// what they were asked for.
func (s *Swarm) Links() map[string]Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, all := time.Now(), make(map[string]Link, len(s.links))
	for id, l := range s.links {
		all[id] = Link{In: l.in.total, Out: l.out.total, InRate: l.in.now(now), OutRate: l.out.now(now)}
	}
	for id, p := range s.sched.peers {
		if p.silent {
			l := all[id]
			l.Silent = p.failed
			all[id] = l
		}
	}
	return all
}

// errNoTransfer is a file that is not being fetched.
var errNoTransfer = fmt.Errorf("the file is not on its way: %w", os.ErrNotExist)
