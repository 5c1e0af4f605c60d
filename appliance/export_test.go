package appliance

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/coreos/go-systemd/v22/journal"

	"wuamesh/agentproto"
	"wuamesh/replicate"
)

// What tests of the folder reach from outside the package: the waits, which
// are minutes and hours, and the handler without its listeners.

// NextCleaning is nextCleaning.
var NextCleaning = nextCleaning

// Batch is batch.
const Batch = batch

// Backoff is backoff.
var Backoff = backoff

// AsksPlainly is the file that a request asks for, if for no more.
func AsksPlainly(request []byte) (name string, plain bool) { return asksPlainly(request) }

// PassedOn is what a connection of the plain listener leaves to net/http first.
func (a *Appliance) PassedOn(ctx context.Context, c *net.TCPConn) (string, error) {
	p := make([]byte, 4096)
	n, err := a.folder.answerSmalls(ctx, &joiningConn{TCPConn: c}).Read(p)
	return string(p[:n]), err
}

// HandleFolder is the folder's handler.
func (a *Appliance) HandleFolder() http.Handler { return a.folder.handler() }

// Waits sets how long a failed download, and one without space, waits.
func (a *Appliance) Waits(failed, space time.Duration) {
	a.folder.mu.Lock()
	defer a.folder.mu.Unlock()
	a.folder.backoff = func(int) time.Duration { return failed }
	a.folder.recheck = space
}

// Age makes every file of the folder look as if it had come that much
// earlier, and as if it had not been sent since.
func (a *Appliance) Age(d time.Duration) {
	a.folder.mu.Lock()
	defer a.folder.mu.Unlock()
	for name, h := range a.folder.held { // what is held is never changed in place but replaced
		old := &heldFile{fileRecord: h.fileRecord, holding: h.holding}
		old.Completed, old.Found = h.Completed.Add(-d), h.Found.Add(-d)
		a.folder.held[name] = old
	}
}

// AgeRecord makes the mesh's record of a file that much older.
func (a *Appliance) AgeRecord(ctx context.Context, name string, d time.Duration) error {
	rec, _ := a.folder.share.record(name)
	rec.Completed = rec.Completed.Add(-d)
	return a.db.Update(ctx, func(tx *replicate.Tx) error { return files.put(tx, name, rec) })
}

// AgeOfRecord is how long ago the mesh says that a file was completed.
func (a *Appliance) AgeOfRecord(name string) time.Duration {
	rec, _ := a.folder.share.record(name)
	return time.Since(rec.Completed)
}

// Describe makes the manifests that are missing, as a node does at its start.
func (a *Appliance) Describe(ctx context.Context) error { return a.folder.share.describeAll(ctx) }

// UnusedAtNight is what the nightly cleaning would delete.
func (a *Appliance) UnusedAtNight() CleanPlan { return a.folder.unused(graceAtNight) }

// Look compares the directory with the records as the node does every half
// hour.
func (a *Appliance) Look(ctx context.Context) error { return a.folder.rescan(ctx) }

// Prune adds n tasks that ended that long ago, one a second, and forgets what
// is not kept; it returns how many there are then.
func (a *Appliance) Prune(ctx context.Context, n int, ago time.Duration) (int, error) {
	f := a.folder
	var rows []Task
	for i := range n {
		t := newTask(kindUpdate, fmt.Sprintf("old%d.cab", i), time.Now().Add(-ago))
		t.Status, t.Finished = statusDone, t.Queued.Add(time.Duration(i)*time.Second)
		rows = append(rows, t.Task)
	}
	f.mu.Lock()
	f.ended = append(rows, f.ended...)
	f.mu.Unlock()
	err := f.inBatches(ctx, n, func(tx *replicate.Tx, i int) error { return tasks.put(tx, rows[i].ID, rows[i]) }, nil)
	if err == nil {
		err = f.prune(ctx)
	}
	if err != nil {
		return 0, err
	}
	n = 0
	err = a.db.View(ctx, func(tx *replicate.Tx) error {
		for _, err := range tasks.all(tx) {
			if err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}

// A JournalEntry is what the journal would have got.
type JournalEntry struct {
	Text   string
	Fields map[string]string
}

// JournalTo is the journal's handler, with an entry in place of the journal.
func JournalTo(e *JournalEntry) slog.Handler {
	return &journalHandler{level: slog.LevelInfo, send: func(text string, _ journal.Priority, fields map[string]string) error {
		*e = JournalEntry{text, fields}
		return nil
	}}
}

// ExpireTokens makes every token expire, but join tokens that were used.
func (a *Appliance) ExpireTokens(ctx context.Context) error {
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		for r, err := range tokens.all(tx, "") {
			if err != nil {
				return err
			}
			if r.value.UsedBy == "" {
				r.value.Expires = tx.Now().Add(-time.Minute)
				if err := tokens.put(tx, r.id, r.value); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// RenewNow gets new certificates although the old ones hold for long.
func (a *Appliance) RenewNow(ctx context.Context) error { return a.renew(ctx) }

// CertificateSerial is that of the node's certificate.
func (a *Appliance) CertificateSerial() string { return a.auth.identity().Node.SerialNumber.String() }

// AgeGossipKeys makes every gossip key look as if it had been made earlier.
func (a *Appliance) AgeGossipKeys(ctx context.Context, d time.Duration) error {
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		for r, err := range gossips.all(tx, "") {
			if err != nil {
				return err
			}
			r.value.At = r.value.At.Add(-d)
			if err := gossips.put(tx, r.id, r.value); err != nil {
				return err
			}
		}
		return nil
	})
}

// Scrub reads one file of the folder again, as the node does once a week.
func (a *Appliance) Scrub(ctx context.Context, name string) { a.folder.share.scrubFile(ctx, name) }

// PutDraft writes the lease of a file as another node would that passes it on.
func (a *Appliance) PutDraft(ctx context.Context, file, node string, size int64) error {
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		return leases.put(tx, file, leaseRecord{Node: node, Draft: &draftRecord{Size: size}})
	})
}

// PutLease writes the lease of a file as another node would.
func (a *Appliance) PutLease(ctx context.Context, file, node string, renewed time.Time) error {
	return a.db.Update(ctx, func(tx *replicate.Tx) error { return leases.put(tx, file, leaseRecord{Node: node, Renewed: renewed}) })
}

// WaitsFor is what a queued file waits for after a while in which nothing is
// heard; empty when the node downloads it.
func (a *Appliance) WaitsFor(file string, later time.Duration) string {
	f := a.folder
	u := f.share.turn(time.Now().Add(later))
	f.mu.Lock()
	defer f.mu.Unlock()
	_, why := f.share.way(f.queue[file], u)
	return why
}

// PutOption writes an option of a profile as a node of any version may.
func (a *Appliance) PutOption(ctx context.Context, profile, key, value string) error {
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		return profileOptions.put(tx, profile+"/"+key, optionRecord{value, editRecord{"ewen", tx.Now()}})
	})
}

// NodeID is the node's id.
func (a *Appliance) NodeID() string { return a.db.NodeID() }

// CertifyUntil gives the node certificates whose time is over at end, as its
// anchor did a year before.
func (a *Appliance) CertifyUntil(ctx context.Context, anchor *Appliance, end time.Time) error {
	self, csr, err := a.auth.request()
	if err == nil {
		self.Node, self.Web, err = anchor.auth.anchorKey().Certify(csr, a.db.NodeID(), services, end.Add(-replicate.NodeLife))
	}
	if err != nil {
		return err
	}
	return a.takeCertificates(ctx, self)
}

// CertificateEnd is when the node's certificate ends.
func (a *Appliance) CertificateEnd() time.Time { return a.auth.identity().Node.NotAfter }

// JoinAt asks to join as a machine would whose clock is off by so much.
func (a *Appliance) JoinAt(ctx context.Context, text string, off time.Duration) error {
	token, err := replicate.ParseJoinToken(text)
	if err != nil {
		return err
	}
	as, _ := a.Answers()
	_, req, err := a.joinRequest(ctx, as, token)
	if err != nil {
		return err
	}
	req.Now = req.Now.Add(off)
	_, err = askToJoin(ctx, token, req)
	return err
}

// BeforeMeshes makes the node's data as they were before there were meshes, and signs
// a host's certificate as it was done then: by the authority itself.
func (a *Appliance) BeforeMeshes(ctx context.Context, pub any, host string) ([]byte, error) {
	var rec authorityRecord
	err := a.db.Update(ctx, func(tx *replicate.Tx) (err error) {
		if rec, _, err = authorities.find(tx, "root"); err != nil {
			return err
		}
		for g, err := range gossips.all(tx, "") {
			if err != nil {
				return err
			}
			if err := gossips.del(tx, g.id); err != nil {
				return err
			}
		}
		id := a.db.NodeID()
		return errors.Join(identities.del(tx, "self"), memberships.del(tx, "mesh"), nodes.del(tx, id), anchors.del(tx, id))
	})
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(rec.Key)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(rec.Certificate)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	return x509.CreateCertificate(rand.Reader, t, root, pub, key)
}

// Vary gives the hosts of a fleet settings and statuses of every kind.
func (a *Appliance) Vary(ctx context.Context, seed uint64) error {
	r := mathrand.New(mathrand.NewPCG(seed, 3))
	a.cat.mu.Lock()
	list := slices.Clone(a.cat.sorted())
	a.cat.mu.Unlock()
	return a.inSets(ctx, len(list), 40, func(tx *replicate.Tx, i int) error {
		id := string(list[i].id)
		h, err := hosts.get(tx, id)
		if err != nil {
			return err
		}
		h.Waiting = r.IntN(12) == 0
		h.Settings.DefaultAllow = r.IntN(3) == 0
		h.Settings.IncludeSuperseded = r.IntN(3) == 0
		h.Settings.InstallDelay = time.Duration(r.IntN(3)) * 365 * 24 * time.Hour
		rec, err := statuses.get(tx, id)
		if err != nil {
			return err
		}
		for j := range rec.Statuses {
			s := &rec.Statuses[j]
			s.Superseded = r.IntN(6) == 0
			if s.Installed = r.IntN(4) == 0; !s.Installed {
				s.OnHost = r.IntN(4) == 0
				s.Restart = r.IntN(10) == 0
			}
		}
		return errors.Join(hosts.put(tx, id, h), statuses.put(tx, id, rec))
	})
}

// StandingOf is how a member stands whose list of nodes this is.
func StandingOf(rows []NodeRow) Standing {
	a := &Appliance{}
	a.live.Store(&Config{Name: "rns-01", Site: "rennes"})
	a.member.Store(&membershipRecord{Synced: true})
	return a.standing(rows)
}

// Diagnose adds to rows what is wrong with them.
func Diagnose(rows []NodeRow) { diagnose(rows) }

// SortReviews does now what the node does each minute.
func (a *Appliance) SortReviews(ctx context.Context) error { return a.sortReviews(ctx) }

// HoldStore lets every change of the store wait until release is called.
func (a *Appliance) HoldStore(ctx context.Context) (release func()) {
	held, open, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		a.db.Update(ctx, func(*replicate.Tx) error {
			close(held)
			<-open
			return nil
		})
	}()
	<-held
	return func() {
		close(open)
		<-ended
	}
}

// StoredTask is a task as a start after a crash would find it.
func (a *Appliance) StoredTask(ctx context.Context, id string) (t Task, err error) {
	err = a.db.View(ctx, func(tx *replicate.Tx) error {
		t, _, err = tasks.find(tx, id)
		return err
	})
	return t, err
}

// QueueMany queues n files that nobody has.
func (a *Appliance) QueueMany(ctx context.Context, n int) error {
	var list []order
	for i := range n {
		list = append(list, order{kind: kindUpdate, file: fmt.Sprintf("file%d_%040x.cab", i, i), by: bySchedule, size: 1000, hosts: i % 100, forced: true})
	}
	_, err := a.folder.order(ctx, list, nil)
	return err
}

// NextTask looks for what to download, as each worker does whenever something
// changed.
func (a *Appliance) NextTask() { a.folder.next(&lane{way: -1, takes: (*task).any}, time.Now()) }

// FirstOf is the node whose turn a file is, of nodes by their sites, when so
// many hosts wait at each site; and whether every node finds the same order.
func FirstOf(file string, nodes map[string]string, waiting map[string]int) (first string, same bool) {
	seen := map[int]bool{}
	for self := range nodes {
		u := &turn{self: self}
		for id, site := range nodes {
			u.candidates = append(u.candidates, candidate{id, site, hashOf(id)})
		}
		rank, f := u.rank(hashOf(file), waiting)
		seen[rank] = true
		if first == "" {
			first = f
		}
		same = (same || len(seen) == 1) && f == first && (rank == 0) == (f == self)
	}
	return first, same && len(seen) == len(nodes)
}

// Copies is on how many nodes a file is, as this one knows.
func (a *Appliance) Copies(name string) int {
	n := len(a.folder.share.others(name))
	if a.Held(name) {
		n++
	}
	return n
}

// Held says whether this node has a file.
func (a *Appliance) Held(name string) bool {
	a.folder.mu.RLock()
	defer a.folder.mu.RUnlock()
	return a.folder.held[name] != nil
}

// SetQuota changes the quota and the number of copies, as a reload does.
func (a *Appliance) SetQuota(quota Size, copies int) {
	c := *a.live.Load()
	c.Quota, c.Copies = quota, copies
	a.live.Store(&c)
}

// Carried believes that a node has all that this one has, as after a bundle of
// it that told so.
func (a *Appliance) Carried(ctx context.Context, node string) error {
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		return carried.put(tx, node, carriedRecord{a.db.Vector(), time.Now()})
	})
}

// TokenAt is the join token with another address in it.
func TokenAt(text, addr string) (string, error) {
	t, err := replicate.ParseJoinToken(text)
	t.Addrs = []string{addr}
	return t.String(), err
}

// A Candidate is a node as rankNodes sees it.
type Candidate struct {
	Name, Site string
	Nets       []string
	Self, Away bool
	Trip       time.Duration
}

// RankNodes orders nodes for a host with those facts that calls from remote,
// and returns their names.
func RankNodes(list []Candidate, f agentproto.Facts, remote string) (names []string, placed bool) {
	var all []choice
	for _, c := range list {
		all = append(all, choice{id: c.Name, rec: nodeRecord{Name: c.Name, Site: c.Site, Nets: c.Nets}, self: c.Self, away: c.Away, trip: c.Trip})
	}
	ranked, placed := rankNodes(all, placeOf(f, remote))
	for _, c := range ranked {
		names = append(names, c.rec.Name)
	}
	return names, placed
}

// ChooseNodes is RankNodes with repository rules, which get the ids 1, 2 and
// so on. used are the rules that hold, by their names.
func ChooseNodes(rules []RepositoryRuleEdit, list []Candidate, f agentproto.Facts, remote string) (names, used []string, only bool) {
	var all []choice
	for _, c := range list {
		all = append(all, choice{id: c.Name, rec: nodeRecord{Name: c.Name, Site: c.Site, Nets: c.Nets}, self: c.Self, away: c.Away, trip: c.Trip})
	}
	var routes []*route
	for i, e := range rules {
		routes = append(routes, newRoute(fmt.Sprint(i+1), repositoryRuleRecord{RepositoryRuleEdit: e}))
	}
	p := placeOf(f, remote)
	ranked, _ := rankNodes(all, p)
	chosen, hold, only := applyRoutes(routes, ranked, p)
	for _, c := range chosen {
		names = append(names, c.rec.Name)
	}
	for _, r := range hold {
		used = append(used, r.Name)
	}
	return names, used, only
}

// Streams says whether the host's stream of events is to this node.
func (a *Appliance) Streams(id agentproto.HostID) bool { return a.streams.open(id) }

// Presence returns what the node would tell the others of its hosts, each
// "here" or "gone", whenever it is called.
func (a *Appliance) Presence() func(time.Time) []string {
	left := map[agentproto.HostID]time.Time{}
	return func(now time.Time) (list []string) {
		for _, c := range a.presenceChanges(left, now) {
			list = append(list, map[bool]string{true: "gone", false: "here"}[c.Gone])
		}
		return list
	}
}

// EndStreams closes every stream of events.
func (a *Appliance) EndStreams() { a.streams.endAll() }

// PromoteDue is one turn of promotions by themselves, at that time.
func (a *Appliance) PromoteDue(ctx context.Context, now time.Time) error {
	return a.promoteDue(ctx, now)
}

// CountAside has the node count in the background whatever the size of the
// fleet.
func (a *Appliance) CountAside() {
	a.cat.mu.Lock()
	defer a.cat.mu.Unlock()
	a.cat.quick = 0
}

// CountedAside says in what the counts differ from those of a count in one go;
// empty when they do not.
func (a *Appliance) CountedAside() string {
	c := a.cat
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.table == nil || c.changed {
		return "it is not counted yet"
	}
	all := cmp.Options{cmp.AllowUnexported(countTable{}, hostCounts{}, updateCounts{}, wantedFile{}, lack{}), cmpopts.IgnoreFields(countTable{}, "built", "took"), cmpopts.EquateEmpty()}
	return cmp.Diff(c.count(c.table.built), c.table, all)
}

// JudgeRing judges a package's ring at that time; the function takes the step
// that was found then.
func (a *Appliance) JudgeRing(name string, now time.Time) (take func(context.Context) error) {
	a.cat.mu.Lock()
	defer a.cat.mu.Unlock()
	s := a.cat.ringState(name, now)
	return func(ctx context.Context) error { return a.takeStep(ctx, name, s) }
}

// NoteDay notes the hosts of a day.
func (a *Appliance) NoteDay(ctx context.Context, at time.Time) error { return a.noteDay(ctx, at) }

// TrendDays is how many days are kept.
func (a *Appliance) TrendDays(ctx context.Context) (n int) {
	a.db.View(ctx, func(tx *replicate.Tx) error {
		for range trends.all(tx) {
			n++
		}
		return nil
	})
	return n
}

// KeepInMemory sets how many bytes of small files are in memory at most.
func (a *Appliance) KeepInMemory(n int64) {
	s := &a.folder.smalls
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files, s.bytes, s.most = nil, 0, n
}

// InMemory is how many bytes of small files are in memory.
func (a *Appliance) InMemory() (n int64) {
	s := &a.folder.smalls
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, b := range s.files {
		n += int64(len(b))
	}
	return n
}

// PutScrub says, for the next start, which file was the last to be read again.
func (a *Appliance) PutScrub(ctx context.Context, file string, at time.Time) error {
	return a.db.Update(ctx, func(tx *replicate.Tx) error { return scrubs.put(tx, "folder", scrubRecord{file, at}) })
}

// LeaseTime is how long the next node waits for one whose turn it is.
const LeaseTime = leaseTime

// NoAsk is an error while the mesh is asked for a file.
func (a *Appliance) NoAsk(file string) error {
	if r, stands := a.folder.share.ask(file, time.Now()); stands {
		return fmt.Errorf("the ask stands: %+v", r)
	}
	return nil
}

// NothingQueued is an error while a file is in the queue.
func (a *Appliance) NothingQueued(file string) error {
	if a.folder.queued(file) {
		return fmt.Errorf("%s is queued", file)
	}
	return nil
}

// LookForWanted looks for files that hosts and other nodes wait for.
func (a *Appliance) LookForWanted(ctx context.Context) error {
	_, err := a.folder.lookForWanted(ctx, order{by: bySchedule})
	return err
}
