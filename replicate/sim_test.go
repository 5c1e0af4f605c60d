package replicate

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dgraph-io/badger/v4"
)

var (
	simSeed  = flag.Uint64("seed", 0, "run this seed of the simulation alone")
	simSeeds = flag.Int("seeds", 4, "how many seeds of the simulation to run")
	simNodes = flag.Int("nodes", 0, "how many nodes each simulation has; 0: a few, by the seed")
)

// bubble runs fn in virtual time. yamux keeps timers in a pool for the whole
// process, and a timer may not leave its bubble: so the pool is emptied.
//
// The race detector of Go 1.26 now and then aborts the process over goroutines
// of a bubble (golang.org/issue/78156), so packaging/check runs these tests
// without it, and TestRacesOfAMesh looks for races in real time.
func bubble(t *testing.T, fn func(*testing.T)) {
	t.Helper()
	if raceEnabled {
		t.Skip("in virtual time; packaging/check runs it without the race detector")
	}
	afterYamux(t)
	synctest.Test(t, fn)
}

// afterYamux waits until nothing of an earlier test runs yamux any more: it
// would put timers of real time into the pool, and who waits for one of those
// keeps virtual time from going on. Then it empties the pool: neither may use
// the other's timers.
func afterYamux(t *testing.T) {
	t.Helper()
	all := make([]byte, 4<<20)
	for range 1000 {
		if n := runtime.Stack(all, true); !bytes.Contains(all[:n], []byte("hashicorp/yamux")) {
			for range 3 {
				runtime.GC()
			}
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("connections of an earlier test are still open:\n%s", all[:runtime.Stack(all, true)])
}

// TestSimulation has admins edit on all sides of a mesh whose network is slow,
// loses and repeats what it carries, and is cut; whose nodes crash, come back
// from backups, and have wrong clocks. Afterwards all are equal and nothing
// that was acknowledged is missing.
func TestSimulation(t *testing.T) {
	first, n := uint64(time.Now().UnixNano()), *simSeeds
	if *simSeed != 0 {
		first, n = *simSeed, 1
	}
	if testing.Short() {
		n = min(n, 2)
	}
	for i := range n {
		seed := first + uint64(i)
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) { newSim(t, seed).run() })
		})
	}
}

// A sim is one simulation.
type sim struct {
	simMesh
	rng     *rand.Rand
	seed    uint64
	skew    skews
	edits   []edit
	backups map[int]backup
	hub     bool // branches reach headquarters only
	left    map[string]bool
	clocks  bool // this run has wrong clocks
	n       int
	calm    atomic.Bool
}

// An edit is one that was acknowledged.
type edit struct {
	node    int
	key     string
	value   string // empty: deleted
	version Version
	maybe   bool // a restored backup may have lost it
}

type backup struct {
	data  []byte
	edits int // how many edits there were
}

func newSim(t *testing.T, seed uint64) *sim {
	rng := rand.New(rand.NewPCG(seed, 1))
	s := &sim{rng: rng, seed: seed, backups: map[int]backup{}, left: map[string]bool{}}
	s.simMesh = simMesh{t: t, net: newSimNet(), log: simLog()}
	s.hub, s.clocks = rng.IntN(2) == 0, rng.IntN(3) == 0
	s.n = 3 + rng.IntN(8)
	if *simNodes > 0 {
		s.n = *simNodes
	}
	s.net.delay = func(from, to string) time.Duration {
		return time.Duration(1+(len(from)+int(from[0]^to[1]))%80) * time.Millisecond
	}
	s.net.mangle = s.mangle
	s.wall = s.skew.wall
	return s
}

// simLog shows what nodes log when SIM_LOG is set.
func simLog() *slog.Logger {
	if os.Getenv("SIM_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// mangle loses, repeats and swaps frames.
func (s *sim) mangle(list [][]byte) [][]byte {
	if s.calm.Load() {
		return list
	}
	var out [][]byte
	for _, f := range list {
		if f[0] != framePush && f[0] != framePacket {
			out = append(out, f)
			continue
		}
		switch rand.IntN(20) {
		case 0:
		case 1:
			out = append(out, f, f)
		case 2:
			out = append([][]byte{f}, out...)
		default:
			out = append(out, f)
		}
	}
	return out
}

func (s *sim) run() {
	defer func() {
		if s.t.Failed() {
			s.t.Logf("again: go test ./replicate -run 'TestSimulation' -seed %d -nodes %d", s.seed, s.n)
		}
	}()
	s.recut()
	s.start(s.n)
	defer s.settle()
	time.Sleep(30 * time.Second)
	for range 60 {
		s.step()
		time.Sleep(time.Duration(s.rng.IntN(20000)) * time.Millisecond)
		s.checkPairs()
	}
	s.heal()
	s.check()
}

func (s *sim) step() {
	i := s.rng.IntN(s.n)
	switch k := s.rng.IntN(24); {
	case k < 15:
		for range 1 + s.rng.IntN(5) {
			s.edit(s.rng.IntN(s.n))
		}
	case k < 18:
		s.left = map[string]bool{}
		for _, n := range s.nodes {
			s.left[n.db.NodeID()] = s.rng.IntN(2) == 0
		}
		s.recut()
	case k < 20:
		s.left = map[string]bool{}
		s.recut()
	case k < 21:
		s.crash(i, nil)
	case k < 22:
		var b bytes.Buffer
		if _, err := s.nodes[i].db.kv.Backup(&b, 0); err != nil {
			s.t.Fatal(err)
		}
		s.backups[i] = backup{b.Bytes(), len(s.edits)}
	case k < 23:
		if b, ok := s.backups[i]; ok {
			s.restore(i, b)
		}
	case s.clocks:
		s.skew.set(i, []time.Duration{0, 20 * time.Minute, 50 * 365 * 24 * time.Hour, -30 * 365 * 24 * time.Hour, 3 * time.Second}[s.rng.IntN(5)])
		if s.rng.IntN(2) == 0 {
			s.crash(i, nil)
		}
	}
}

// recut makes the network what hub and left say.
func (s *sim) recut() {
	left := s.left
	s.net.setCut(func(from, to string) bool {
		if len(s.nodes) > 0 && s.hub && from != s.nodes[0].db.NodeID() && to != s.nodes[0].db.NodeID() {
			return true
		}
		return left[from] != left[to]
	})
}

func (s *sim) edit(i int) {
	n := len(s.edits)
	value := fmt.Sprintf("v%d", n)
	key := fmt.Sprintf("k/%d", s.rng.IntN(8))
	kind := s.rng.IntN(4)
	e := edit{node: i, key: key, value: value}
	err := s.nodes[i].db.Update(context.Background(), func(tx *Tx) error {
		e.version = tx.Version()
		switch kind {
		case 0:
			e.key = fmt.Sprintf("once/%d", n)
			return tx.Put(e.key, []byte(value))
		case 1:
			e.key = fmt.Sprintf("pair/%d/a", s.rng.IntN(3))
			return errors.Join(tx.Put(e.key, []byte(value)), tx.Put(strings.TrimSuffix(e.key, "a")+"b", []byte(value)))
		case 2:
			e.value = ""
			return tx.Delete(key)
		}
		return tx.Put(key, []byte(value))
	})
	if err != nil {
		s.t.Fatalf("seed %d: edit: %v", s.seed, err)
	}
	s.edits = append(s.edits, e)
}

// crash ends a node as a power cut does and starts it again on what was
// durable, or on what it is given.
func (s *sim) crash(i int, kv *badger.DB) {
	n := s.nodes[i]
	s.net.kill(n.db.NodeID())
	n.stop()
	n.runs.Wait()
	n.mesh.Close()
	close(n.db.closing)
	<-n.db.ended
	old := n.db.kv
	if kv == nil {
		kv = old
	} else {
		old.Close()
	}
	db, err := openOn(kv, Options{Log: s.log, small: true, Now: s.wall(i)})
	if err != nil {
		s.t.Fatal(err)
	}
	*n = simNode{db: db}
	s.boot(i)
}

// restore starts a node on an old backup.
func (s *sim) restore(i int, b backup) {
	kv, err := badger.Open(badgerOptions(Options{small: true}, s.log))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := kv.Load(bytes.NewReader(b.data), 16); err != nil {
		s.t.Fatal(err)
	}
	for k := b.edits; k < len(s.edits); k++ {
		if s.edits[k].node == i {
			s.edits[k].maybe = true
		}
	}
	s.crash(i, kv)
}

// heal ends all faults and gives the mesh time.
func (s *sim) heal() {
	s.left = map[string]bool{}
	s.recut()
	s.calm.Store(true)
	s.skew.clear()
	time.Sleep(10 * time.Minute)
	for _, n := range s.nodes {
		if len(n.db.awaited()) > 0 { // what a restored backup lost: it has to be given up first
			time.Sleep(lostAfter + 20*time.Minute)
			return
		}
	}
}

// checkPairs looks for half a change set.
func (s *sim) checkPairs() {
	s.t.Helper()
	for i, n := range s.nodes {
		n.db.View(context.Background(), func(tx *Tx) error {
			for p := range 3 {
				a, _ := tx.Get(fmt.Sprintf("pair/%d/a", p))
				b, _ := tx.Get(fmt.Sprintf("pair/%d/b", p))
				if !bytes.Equal(a, b) {
					s.t.Errorf("seed %d: node %d has half a change set: %s and %s", s.seed, i, a, b)
				}
			}
			return nil
		})
	}
}

func (s *sim) check() {
	s.checkPairs()
	want := s.nodes[0].dump()
	for i, n := range s.nodes[1:] {
		if got := n.dump(); !maps.Equal(got, want) {
			s.t.Errorf("seed %d (clocks %t, hub %t): node %d differs from node 0: %s", s.seed, s.clocks, s.hub, i+1, difference(got, want))
			s.explain(got, want)
		}
		if n.db.Digest() != s.nodes[0].db.Digest() {
			s.t.Errorf("seed %d: node %d has another digest than node 0", s.seed, i+1)
		}
		for w, live := range n.db.live {
			if n.db.vector[w] == 0 {
				s.t.Errorf("seed %d: node %d holds %d records of the log %s, and its vector does not name it", s.seed, i+1, live, w)
			}
		}
		if live, err := n.db.counted(); err != nil || !maps.Equal(live, n.db.live) {
			s.t.Errorf("seed %d: node %d counts %v, its logs have %v (%v)", s.seed, i+1, n.db.live, live, err)
		}
	}
	s.checkEdits(want)
	// Nothing is frozen by a version from the future.
	for k := range 8 {
		s.nodes[k%s.n].put(s.t, fmt.Sprintf("k/%d", k), "last")
	}
	time.Sleep(2 * time.Minute)
	for i, n := range s.nodes {
		for k := range 8 {
			if got := n.get(fmt.Sprintf("k/%d", k)); got != "last" {
				s.t.Errorf("seed %d: node %d: k/%d is %q after everyone wrote it", s.seed, i, k, got)
			}
		}
	}
}

// counted is what is live of each log, counted anew.
func (db *DB) counted() (map[string]int, error) {
	fresh := &DB{live: map[string]int{}}
	err := db.kv.View(func(txn *badger.Txn) error { fresh.count(txn); return nil })
	return fresh.live, err
}

// explain shows everything about the keys in which two nodes differ.
func (s *sim) explain(a, b map[string]string) {
	keys := maps.Clone(a)
	maps.Copy(keys, b)
	for k := range keys {
		if a[k] == b[k] {
			continue
		}
		for i, n := range s.nodes {
			n.db.View(context.Background(), func(tx *Tx) error {
				raw, err := tx.raw(recordPrefix+k, k)
				c, _ := decodeChange(k, raw)
				s.t.Logf("node %d %s: %s=%s %v seq %d saw %v deleted %t (%v); vector %d, due %t, clock %v", i, n.db.node[:4], k, c.Value, c.Version, c.seq, c.Saw, c.Deleted, err, n.db.vector[c.Version.Writer], n.db.fenced.Load(), n.db.clock.Time())
				return nil
			})
		}
	}
}

// checkEdits looks for every acknowledged edit: it is there, or a later one of
// its key is.
func (s *sim) checkEdits(have map[string]string) {
	newest := map[string]edit{}
	for _, e := range s.edits {
		if strings.HasPrefix(e.key, "once/") && !e.maybe && have[e.key] != e.value && !s.reviewed(e) {
			s.t.Errorf("seed %d: acknowledged %s=%s is missing (%q)", s.seed, e.key, e.value, have[e.key])
		}
		if old, ok := newest[e.key]; !e.maybe && (!ok || old.version.Compare(e.version) < 0) {
			newest[e.key] = e
		}
	}
	if s.clocks {
		return // stamped again: the order of edits is another
	}
	for key, e := range newest {
		ok := have[key] == e.value
		for _, m := range s.edits { // one that a backup lost on one node may live on others
			ok = ok || m.maybe && m.key == key && m.version.Compare(e.version) > 0 && have[key] == m.value
		}
		if !ok {
			s.t.Errorf("seed %d: %s is %q, last edit was %q on node %d", s.seed, key, have[key], e.value, e.node)
		}
	}
}

// reviewed says whether an edit waits for someone to decide about it.
func (s *sim) reviewed(e edit) (found bool) {
	for _, n := range s.nodes {
		n.db.View(context.Background(), func(tx *Tx) error {
			for r := range tx.Reviews() {
				found = found || r.Key == e.key && string(r.Value) == e.value
			}
			return nil
		})
	}
	return found
}

func difference(a, b map[string]string) string {
	var out []string
	for k, v := range a {
		if b[k] != v {
			out = append(out, fmt.Sprintf("%s=%q, not %q", k, v, b[k]))
		}
	}
	for k, v := range b {
		if _, ok := a[k]; !ok {
			out = append(out, fmt.Sprintf("%s=%q is missing", k, v))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// dump is every live record of a node.
func (n *simNode) dump() map[string]string {
	all := map[string]string{}
	n.db.View(context.Background(), func(tx *Tx) error {
		for r, err := range tx.Scan("") {
			if err != nil {
				panic(err)
			}
			all[r.Key] = string(r.Value)
		}
		return nil
	})
	return all
}
