package swarm

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"
	"time"
)

// A scheduler decides whom to ask for which piece. It is a plain state
// machine: it does no I/O, starts no goroutine and reads no clock, so it runs
// in a driver as well as in virtual time. Events come in as method calls, in
// the order they happen; next says what to do.
//
// The rules, for a piece this node lacks:
//
//  1. From a peer of the own site that has it: always; the LAN is not scarce.
//  2. Over the WAN only its carrier asks, one of the site's nodes that want
//     the file; the others take it from the carrier.
//  3. From a peer that is itself fetching the file: whenever it has the piece.
//  4. From a seed, a peer that had the whole file when it was first seen: only
//     the site that owns the piece asks, in order, and not for what another
//     branch has already. So a seed sends each piece once, and the branches
//     pass it on.
//  5. When a seed's uplink is idle, or nothing of what is owned here is left
//     to ask of it, it may be asked for what others own (help.go): that is
//     what makes an asymmetric line, or a slow owner, no brake.
//  6. Who found nothing to ask for during the starve time asks anybody, first
//     for what it carries and, after four times that, for anything.
//  7. A piece that someone waits for may be asked of anyone, and comes first.
//  8. When nothing is left to ask for, or someone waits, or the peer is silent
//     (late.go), a request that takes much longer than its peer usually needs
//     is asked a second time elsewhere; the first answer counts.
type scheduler struct {
	self, site string
	seed       uint64 // of ties: nodes that choose freely choose differently
	peers      map[string]*peerState
	files      map[Digest]*fileState
	order      []*fileState // by urgency
	flights    map[uint64]*flight
	lastFlight uint64
	sorted     time.Time // when order was last made
	stale      bool      // who wants what changed since the last census
	closed     time.Time // until then nothing comes from other sites, see shut
	progress   time.Time // when a request was last started or answered by the usual rules
	pace       time.Duration
	exchange   float64 // what branches pass on, bytes per second from each; 0 unknown
}

// A peerState is what is known of one living peer.
type peerState struct {
	id, site string
	lan      bool
	files    map[Digest]*peerFile
	flying   int           // requests
	inFlight int64         // bytes
	rate     float64       // bytes per second, while busy; 0 unknown
	rtt      time.Duration // of the last answer that carried no piece
	idle     bool          // it says that nobody takes anything from it
	resume   time.Time     // not asked before then
	limited  time.Time     // it lets nothing out before then, as it said: its site's limits
	failures int           // in a row
	failed   time.Time     // the last of them
	silent   bool          // too many of them: nobody waits for what it owns or has
	banned   time.Time     // it lied: not asked before then
	spare    bool          // a seed of which nothing is left to ask that is owned here
	class    int           // 0 on the LAN, 1 fetching something itself, 2 a seed
}

// A peerFile is what a peer has of a file.
type peerFile struct {
	have    bitset
	count   int
	wanting bool // it was seen without some of the pieces
}

// A fileState is a file that this node is fetching.
type fileState struct {
	m        *Manifest
	digest   Digest
	priority int
	since    time.Time // it is wanted
	added    uint64    // of two since the same time, the smaller came first
	have     bitset
	missing  int
	known    int    // pieces from the first on whose digest is known
	source   string // of a draft: the peer that downloads it, a seed that grows
	flying   bitset
	holders  []uint16        // of each piece, seeds not counted
	near     []uint16        // of each piece, on the LAN
	waiting  map[int]int     // pieces someone waits for, by how many
	turn     uint64          // where ownership begins: files spread over sites
	sites    []string        // that want the file, own included; sorted
	nodes    []string        // of the own site that want it, own included; sorted
	unheard  map[string]bool // peers that have not said yet what they have; nil after hearMost
}

// A flight is a request that was not answered yet.
type flight struct {
	Request
	began  time.Time
	second bool // asked elsewhere too
}

// A Request asks a peer for one piece.
type Request struct {
	ID    uint64
	Peer  string
	File  Digest
	Piece int
	Size  int64 // bytes
	// Silence is how long nothing may come of it before it is given up.
	Silence time.Duration
	why     reason
}

// A reason is the rule that a request was made by.
type reason int

const (
	byUsual reason = iota
	byHelp
	byStarved
	bySecond
)

// How patient the scheduler is.
const (
	starveLeast = 1500 * time.Millisecond
	starveMost  = 10 * time.Second
	lateLeast   = 4 * time.Second // before a request is asked elsewhere too
	secondMost  = 2               // requests asked elsewhere too, at a time
	stuck       = 60 * time.Second
	banTime     = 30 * time.Minute
	retryMost   = time.Minute
)

// How much is asked of one peer at a time.
const (
	windowLeast = 2       // requests
	windowMost  = 32      // requests
	windowBytes = 1 << 20 // as many more requests as fit into this many bytes
	queueAhead  = 300 * time.Millisecond
)

func newScheduler(self, site string, seed uint64) *scheduler {
	return &scheduler{
		self: self, site: siteOf(self, site), seed: seed,
		peers: map[string]*peerState{}, files: map[Digest]*fileState{}, flights: map[uint64]*flight{},
	}
}

// siteOf is where a node is: one that says nothing is a site of its own.
func siteOf(id, site string) string {
	if site == "" {
		return "node " + id
	}
	return site
}

// peer takes in that a peer lives. One that moved to another site begins
// anew, and the requests to it are to be cancelled.
func (s *scheduler) peer(id, site string) (cancel []uint64) {
	site = siteOf(id, site)
	if p := s.peers[id]; p != nil {
		if p.site == site {
			return nil
		}
		cancel = s.gone(id)
	}
	s.peers[id] = &peerState{id: id, site: site, lan: site == s.site, files: map[Digest]*peerFile{}}
	return cancel
}

// gone takes in that a peer died or cannot be reached. What was asked of it
// is given up; the caller cancels those requests.
func (s *scheduler) gone(id string) (cancel []uint64) {
	p := s.peers[id]
	if p == nil {
		return nil
	}
	for d, pf := range p.files {
		s.count(p, s.files[d], pf, -1)
	}
	delete(s.peers, id)
	for _, f := range s.files {
		s.hear(f, id)
	}
	for fid, f := range s.flights {
		if f.Peer == id {
			s.land(f)
			cancel = append(cancel, fid)
		}
	}
	s.stale = true
	slices.Sort(cancel)
	return cancel
}

// has takes in what a peer has of a file: pieces that came, or all of them.
// fresh forgets what it had before. News of a piece that is missing here is
// progress: whoever owns it is alive.
func (s *scheduler) has(id string, d Digest, pieces []int32, all, fresh bool, now time.Time) {
	p, f := s.peers[id], s.files[d]
	if p == nil || f == nil {
		return
	}
	s.hear(f, id)
	n := len(f.m.Pieces)
	pf, wants := p.files[d], !all && id != f.source
	if pf == nil || fresh {
		s.count(p, f, pf, -1)
		pf = &peerFile{have: newBitset(n), wanting: pf != nil && pf.wanting || wants}
		p.files[d] = pf
		s.stale = true
	}
	if becomes := !pf.wanting && wants; becomes || all {
		s.count(p, f, pf, -1)
		if pf.wanting = pf.wanting || becomes; becomes {
			s.stale = true
		}
		if all {
			pf.have.fill(n)
			pf.count = n
		}
		s.count(p, f, pf, 1)
	}
	for _, i := range pieces {
		if int(i) >= n || i < 0 || pf.have.has(int(i)) {
			continue
		}
		pf.have.add(int(i))
		pf.count++
		s.hold(p, f, pf, int(i), 1)
		if pf.wanting && !f.have.has(int(i)) {
			s.progress = now
		}
	}
}

// hear takes in that a peer said what it has of a file, or that it died.
func (s *scheduler) hear(f *fileState, id string) {
	if f.unheard[id] {
		delete(f.unheard, id)
		s.stale = true
	}
}

// count keeps the number of holders of each piece.
func (s *scheduler) count(p *peerState, f *fileState, pf *peerFile, by int) {
	if f == nil || pf == nil {
		return
	}
	for w, word := range pf.have {
		for ; word != 0; word &= word - 1 {
			s.hold(p, f, pf, w<<6+bits.TrailingZeros64(word), by)
		}
	}
}

// hold counts one piece of a peer, or no longer.
func (s *scheduler) hold(p *peerState, f *fileState, pf *peerFile, i, by int) {
	if p.silent {
		return
	}
	if pf.wanting {
		f.holders[i] += uint16(by)
	}
	if p.lan {
		f.near[i] += uint16(by)
	}
}

// lost takes in that a peer has nothing of a file any more.
func (s *scheduler) lost(id string, d Digest) {
	if f := s.files[d]; f != nil {
		s.hear(f, id)
	}
	if p := s.peers[id]; p != nil && p.files[d] != nil {
		s.count(p, s.files[d], p.files[d], -1)
		delete(p.files, d)
		s.stale = true
	}
}

// busy takes in whether somebody takes something from a peer.
func (s *scheduler) busy(id string, busy bool, rtt time.Duration) {
	if p := s.peers[id]; p != nil {
		p.idle = !busy
		if rtt > 0 {
			p.rtt = rtt
		}
	}
}

// want begins a file of which this node has the pieces in have. The higher
// the priority, the sooner.
func (s *scheduler) want(m *Manifest, have bitset, priority int, now time.Time) {
	s.sorted = time.Time{}
	if f := s.files[m.SHA256]; f != nil {
		f.priority = priority
		return
	}
	s.lastFlight++ // any number that grows
	f := &fileState{
		m: m, digest: m.SHA256, priority: priority, added: s.lastFlight, since: now,
		have: slices.Clone(have), missing: len(m.Pieces) - have.count(), known: len(m.Pieces), flying: newBitset(len(m.Pieces)),
		holders: make([]uint16, len(m.Pieces)), near: make([]uint16, len(m.Pieces)), waiting: map[int]int{}, turn: binary.BigEndian.Uint64(m.SHA256[:]) >> 1,
		unheard: map[string]bool{},
	}
	for id := range s.peers {
		f.unheard[id] = true
	}
	s.files[m.SHA256] = f
	s.order = append(s.order, f)
	s.stale = true
	if len(s.flights) == 0 {
		s.progress = now
	}
}

// draft says of a file that was just begun that it is one: no digest of it is
// known yet, and the source is the seed.
func (s *scheduler) draft(d Digest, source string) {
	f := s.files[d]
	f.known, f.source = 0, source
}

// know takes in that the first n digests of a draft are known. That is
// progress: whoever owns the new pieces has not had the time to pass them on.
func (s *scheduler) know(d Digest, n int, now time.Time) {
	if f := s.files[d]; f != nil {
		f.known, s.progress = n, now
	}
}

// aging is how long a file waits for one step of priority, so that a stream
// of urgent ones does not starve the rest.
const aging = 10 * time.Minute

func (s *scheduler) sort(now time.Time) {
	if now.Sub(s.sorted) < aging/10 {
		return
	}
	s.sorted = now
	urgency := func(f *fileState) int { return f.priority + int(now.Sub(f.since)/aging) }
	slices.SortFunc(s.order, func(x, y *fileState) int {
		return cmp.Or(cmp.Compare(urgency(y), urgency(x)), cmp.Compare(x.added, y.added))
	})
}

// drop ends a file, arrived or not wanted any more.
func (s *scheduler) drop(d Digest) (cancel []uint64) {
	if s.files[d] == nil {
		return nil
	}
	for id, f := range s.flights {
		if f.File == d {
			s.land(f)
			cancel = append(cancel, id)
		}
	}
	delete(s.files, d)
	s.order = slices.DeleteFunc(s.order, func(f *fileState) bool { return f.digest == d })
	for _, p := range s.peers {
		delete(p.files, d)
	}
	slices.Sort(cancel)
	return cancel
}

// again takes in that the disk lost pieces of a file: only those in have are
// here.
func (s *scheduler) again(d Digest, have bitset) (cancel []uint64) {
	f := s.files[d]
	if f == nil {
		return nil
	}
	for id, g := range s.flights {
		if g.File == d {
			s.land(g)
			cancel = append(cancel, id)
		}
	}
	f.have, f.missing = slices.Clone(have), len(f.m.Pieces)-have.count()
	slices.Sort(cancel)
	return cancel
}

// await takes in that one more, or one less, waits for a piece.
func (s *scheduler) await(d Digest, piece, by int) {
	f := s.files[d]
	if f == nil || piece < 0 || piece >= len(f.m.Pieces) {
		return
	}
	if f.waiting[piece] += by; f.waiting[piece] <= 0 {
		delete(f.waiting, piece)
	}
}

// hearMost is how long a peer that says nothing is taken for one that wants a
// file.
const hearMost = time.Second

// census finds out which sites, and which nodes of this one, want each file.
// A peer that had it whole from the beginning is no owner; one that became
// whole stays one, because what it owned is there to be had. One that has not
// said yet what it has is taken for an owner, or everybody would ask the first
// seed that speaks for the same pieces.
func (s *scheduler) census(now time.Time) {
	for _, f := range s.files {
		if len(f.unheard) > 0 && now.Sub(f.since) >= hearMost {
			f.unheard, s.stale = nil, true
		}
	}
	if !s.stale {
		return
	}
	s.stale = false
	for _, p := range s.peers {
		p.class = p.classify()
	}
	for d, f := range s.files {
		f.sites, f.nodes = append(f.sites[:0], s.site), append(f.nodes[:0], s.self)
		for _, p := range s.peers {
			if pf := p.files[d]; p.silent || !f.unheard[p.id] && (pf == nil || !pf.wanting) {
				continue
			}
			if p.lan {
				f.nodes = append(f.nodes, p.id)
			} else if !slices.Contains(f.sites, p.site) {
				f.sites = append(f.sites, p.site)
			}
		}
		slices.Sort(f.sites)
		slices.Sort(f.nodes)
	}
}

// owns says whether this site owns piece i.
func (f *fileState) owns(s *scheduler, i int) bool {
	return f.sites[(f.turn+uint64(i))%uint64(len(f.sites))] == s.site
}

// carries says whether this node carries piece i into its site. It turns once
// per round of owners, so that the site's share is spread over all its nodes.
func (f *fileState) carries(s *scheduler, i int) bool {
	round := (f.turn + uint64(i)) / uint64(len(f.sites))
	return f.nodes[round%uint64(len(f.nodes))] == s.self
}

// arrived takes in that a request was answered with the right piece. Other
// requests for it are to be cancelled.
func (s *scheduler) arrived(id uint64, now time.Time) (cancel []uint64) {
	f := s.flights[id]
	if f == nil {
		return nil
	}
	s.land(f)
	p, took := s.peers[f.Peer], now.Sub(f.began)
	if p != nil {
		p.failures = 0
		s.hush(p, false)
		p.learn(f.Size, took)
	}
	if f.why == byUsual {
		s.progress = now
	}
	if s.pace == 0 {
		s.pace = took
	}
	s.pace += (took - s.pace) / 8
	return s.got(f.File, f.Piece)
}

// got takes in that a piece is here.
func (s *scheduler) got(d Digest, piece int) (cancel []uint64) {
	file := s.files[d]
	if file == nil || file.have.has(piece) {
		return nil
	}
	file.have.add(piece)
	file.missing--
	for id, f := range s.flights {
		if f.File == d && f.Piece == piece {
			s.land(f)
			cancel = append(cancel, id)
		}
	}
	slices.Sort(cancel)
	return cancel
}

// learn takes in how long n bytes took. Several requests share the line, so
// the rate is that of one times how many were in flight.
func (p *peerState) learn(n int64, took time.Duration) {
	rate := float64(n) * float64(p.flying+1) / max(took, time.Millisecond).Seconds()
	if p.rate == 0 {
		p.rate = rate
	}
	p.rate += (rate - p.rate) / 4
}

// A failure is why a request brought nothing.
type failure int

const (
	failedNet   failure = iota // the connection broke, or there is none
	failedGone                 // the peer does not have the piece any more
	failedBusy                 // it asks to come back later
	failedWrong                // the piece was not what its digest says
)

// failed takes in that a request brought nothing, and when its peer may be
// asked again at the earliest; zero for the scheduler's own judgement.
func (s *scheduler) failed(id uint64, why failure, after time.Time, now time.Time) {
	f := s.flights[id]
	if f == nil {
		return
	}
	s.land(f)
	p := s.peers[f.Peer]
	if p == nil {
		return
	}
	switch why {
	case failedGone:
		if pf := p.files[f.File]; pf != nil && pf.have.has(f.Piece) {
			pf.have.drop(f.Piece)
			pf.count--
			if file := s.files[f.File]; file != nil {
				s.hold(p, file, pf, f.Piece, -1)
			}
		}
	case failedBusy:
		p.resume = later(p.resume, later(after, now.Add(200*time.Millisecond)))
		if after.Sub(now) > longestWait { // a node that is merely busy says a second
			p.limited = after
		}
	case failedWrong:
		p.banned = now.Add(banTime)
	default:
		if f.began.Before(p.failed) {
			break // one of several that flew when it failed: the same failure
		}
		p.failures++
		p.failed = now
		s.hush(p, p.failures >= silentAfter)
		p.resume = later(p.resume, now.Add(min(250*time.Millisecond<<min(p.failures, 10), retryMost)))
	}
}

func later(x, y time.Time) time.Time {
	if x.After(y) {
		return x
	}
	return y
}

// land ends a flight.
func (s *scheduler) land(f *flight) {
	delete(s.flights, f.ID)
	if p := s.peers[f.Peer]; p != nil {
		p.flying--
		p.inFlight -= f.Size
	}
	file := s.files[f.File]
	if file == nil {
		return
	}
	for _, g := range s.flights {
		if g.File == f.File && g.Piece == f.Piece {
			g.second = false
			return
		}
	}
	file.flying.drop(f.Piece)
}

// next says which requests to start now, and when to ask again at the latest
// if nothing happens before.
func (s *scheduler) next(now time.Time) (start []Request, wake time.Time) {
	wake = now.Add(time.Second)
	s.sort(now)
	s.census(now)
	peers := s.inTurn(now, &wake)
	for _, p := range peers {
		p.spare = false
		for s.room(p) {
			f, i := s.pick(p, s.usual, s.rank)
			if f == nil {
				p.spare = p.class == 2
				break
			}
			start = append(start, s.start(f, p, i, now, byUsual))
			s.progress = now
		}
	}
	start = s.help(peers, now, start)
	if idle, most := now.Sub(later(s.progress, s.closed)), s.patience(peers); idle >= most && !s.answersDue() {
		start = s.starved(peers, now, start, idle >= 4*most)
	}
	return s.second(now, start), wake
}

// shut says that the own site's limits let nothing in from other sites until
// then; zero that they do. What is on its way waits, and is not late.
func (s *scheduler) shut(until, now time.Time) {
	switch {
	case !until.IsZero():
		s.closed = until
	case s.closed.After(now): // opened earlier than it was said
		s.closed = now
	}
}

// inTurn lists the peers that may be asked, in the order they are: those of
// the own site, then those that fetch themselves, then seeds; of each the
// least busy first, and silent ones last.
func (s *scheduler) inTurn(now time.Time, wake *time.Time) []*peerState {
	var list []*peerState
	for _, p := range s.peers {
		if len(p.files) == 0 {
			continue
		}
		until := later(p.resume, p.banned)
		if !p.lan {
			until = later(until, s.closed)
		}
		if until.After(now) {
			if until.Before(*wake) {
				*wake = until
			}
			continue
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(x, y *peerState) int {
		return cmp.Or(cmp.Compare(flag(x.silent), flag(y.silent)), cmp.Compare(x.class, y.class), cmp.Compare(x.inFlight, y.inFlight),
			cmp.Compare(y.rate, x.rate), strings.Compare(x.id, y.id))
	})
	return list
}

func (p *peerState) classify() int {
	if p.lan {
		return 0
	}
	for _, pf := range p.files {
		if pf.wanting {
			return 1
		}
	}
	return 2
}

// room says whether another request may be made of the peer: two at least, so
// that its line is never idle between them, and what it sends in a round trip
// and a little more. The first of a seed is alone: everybody asks it at once,
// and the sooner the first pieces are whole, the sooner they are passed on. So
// is what a peer is asked that failed.
func (s *scheduler) room(p *peerState) bool {
	if p.class == 2 && p.rate == 0 || p.failures > 0 {
		return p.flying == 0
	}
	if p.flying < windowLeast {
		return true
	}
	ahead := int64(p.rate * (p.rtt + queueAhead).Seconds())
	return p.flying < windowMost && p.inFlight < max(windowBytes, min(ahead, 16<<20))
}

// usual are rules 1 to 4 and 7.
func (s *scheduler) usual(f *fileState, p *peerState, i int) bool {
	switch {
	case p.lan:
		return true
	case f.near[i] > 0:
		return false
	case f.waiting[i] > 0:
		return true
	case !f.carries(s, i):
		return false
	case p.files[f.digest].wanting:
		return true
	default:
		return f.owns(s, i) && (f.holders[i] == 0 || s.outruns(p))
	}
}

func anything(*fileState, *peerState, int) bool { return true }

// pick finds the piece to ask a peer for: of the most urgent file, what
// someone waits for, else, of a seed, the first in order, else the rarest.
func (s *scheduler) pick(p *peerState, may func(*fileState, *peerState, int) bool, rank ranking) (*fileState, int) {
	for _, f := range s.order {
		pf := p.files[f.digest]
		if pf == nil || f.missing == 0 {
			continue
		}
		best, least := -1, uint64(1<<63)
		for w := range f.have {
			for word := pf.have[w] &^ f.have[w] &^ f.flying[w]; word != 0; word &= word - 1 {
				i := w<<6 + bits.TrailingZeros64(word)
				if i >= f.known {
					break
				}
				if r := rank(f, pf, i); r < least && may(f, p, i) {
					best, least = i, r
				}
			}
		}
		if best >= 0 {
			return f, best
		}
	}
	return nil, 0
}

// A ranking orders the pieces of one file, lowest first.
type ranking func(f *fileState, pf *peerFile, i int) uint64

// rank is the usual one: what someone waits for, what is owned, the rarest.
func (s *scheduler) rank(f *fileState, pf *peerFile, i int) uint64 {
	if f.waiting[i] > 0 {
		return uint64(i)
	}
	if !pf.wanting && f.owns(s, i) {
		return 1<<40 + uint64(i)
	}
	return 1<<41 + uint64(f.holders[i])<<32 + mix(s.seed+f.turn+uint64(i))>>32
}

// mix is a hash of a number (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

func (s *scheduler) start(f *fileState, p *peerState, i int, now time.Time, why reason) Request {
	s.lastFlight++
	r := Request{ID: s.lastFlight, Peer: p.id, File: f.digest, Piece: i, Size: f.m.Len(i), why: why}
	s.flights[r.ID] = &flight{Request: r, began: now}
	f.flying.add(i)
	p.flying++
	p.inFlight += r.Size
	r.Silence = s.silence(p)
	return r
}

// answersDue says whether something asked for by the usual rules is on its
// way; what is late is rule 8's.
func (s *scheduler) answersDue() bool {
	for _, f := range s.flights {
		if f.why == byUsual {
			return true
		}
	}
	return false
}

// patience is the starve time: it follows how long pieces take here. While a
// seed is busy, others are being served and will pass on what they get.
func (s *scheduler) patience(peers []*peerState) time.Duration {
	for _, p := range peers {
		if p.class == 2 && !p.idle {
			return starveMost
		}
	}
	return min(max(2*s.pace, starveLeast), starveMost)
}

// starved is rule 6: one request at a time of each peer. At first for what this
// node carries into its site: the others of the site starve at the same time.
func (s *scheduler) starved(peers []*peerState, now time.Time, start []Request, long bool) []Request {
	own := func(f *fileState, p *peerState, i int) bool { return p.lan || f.near[i] == 0 && f.carries(s, i) }
	for _, p := range peers {
		if p.flying > 0 {
			continue
		}
		f, i := s.pick(p, own, s.rank)
		if f == nil && long {
			f, i = s.pick(p, anything, s.rank)
		}
		if f != nil {
			start = append(start, s.start(f, p, i, now, byStarved))
		}
	}
	return start
}
