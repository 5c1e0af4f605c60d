package replicate

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
)

var (
	modelSeeds = flag.Int("model-seeds", 12, "how many seeds of the exchange of records to run")
)

var modelTrace = flag.String("history-key", "", "a key to show at each step of a history")

// A mutation breaks one rule of REPLICATION in the harness around real
// stores, or in the one field of a store that is there for it.
type mutation string

const (
	intact           mutation = ""
	vectorTooEarly   mutation = "the vector moves in the middle of a session"
	epochReused      mutation = "a restored backup goes on with its old epoch"
	tieKeptLocal     mutation = "of two equally new versions each node keeps its own"
	collectedEarly   mutation = "deletions are forgotten by age alone"
	partTakenAsWhole mutation = "a part of a sync counts as the whole"
)

// TestRulesHold runs random histories of real stores; TestMutationsAreCaught
// breaks one rule after another and wants to see it found.
func TestRulesHold(t *testing.T) {
	first, n := uint64(time.Now().UnixNano()), *modelSeeds
	if testing.Short() {
		n = min(n, 5)
	}
	if *simSeed != 0 {
		first, n = *simSeed, 1
	}
	for i := range n {
		if err := play(t, first+uint64(i), intact); err != nil {
			t.Fatalf("%v\nagain: go test ./replicate -run TestRulesHold -seed %d", err, first+uint64(i))
		}
	}
}

func TestMutationsAreCaught(t *testing.T) {
	// The last is found in one history of some hundreds: begin where one is.
	first := map[mutation]uint64{partTakenAsWhole: 888}
	for _, m := range []mutation{vectorTooEarly, epochReused, tieKeptLocal, collectedEarly, partTakenAsWhole} {
		t.Run(strings.ReplaceAll(string(m), " ", "_"), func(t *testing.T) {
			for i := range uint64(60) {
				if err := play(t, first[m]+i, m); err != nil {
					t.Logf("seed %d: %v", first[m]+i, err)
					return
				}
			}
			t.Error("60 histories did not find it")
		})
	}
}

// A history is some stores, each with its own clock, that exchange records
// pair by pair.
type history struct {
	t     *testing.T
	rng   *rand.Rand
	m     mutation
	now   time.Time
	draw  *rand.ChaCha8 // ids of nodes and epochs
	nodes []*player
	edits []edit
	trace string // a key to show at each step
}

type player struct {
	db      *DB
	saved   *backup // of an earlier time
	epoch   string  // at the time of saved, and its number
	seq     uint64
	then    map[int]time.Time // seen, at that time
	copied  []copyOf          // copies, at that time
	seen    map[int]time.Time // when it last heard of each other
	copies  []copyOf          // fresh copies that it took
	missing map[string]uint64 // how many changes it waits for, of which logs
	since   time.Time
}

type copyOf struct {
	from int
	at   time.Time
}

// play plays one history and says what went wrong.
func play(t *testing.T, seed uint64, m mutation) error {
	h := &history{t: t, rng: rand.New(rand.NewPCG(seed, 2)), draw: rand.NewChaCha8([32]byte(binary.LittleEndian.AppendUint64(make([]byte, 24), seed))), m: m, now: time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC), trace: *modelTrace}
	for i := range 4 {
		h.nodes = append(h.nodes, &player{db: h.open(nil), seen: map[int]time.Time{}})
		for k := range 4 {
			h.nodes[i].seen[k] = h.now
		}
	}
	defer func() {
		for _, p := range h.nodes {
			p.db.Close()
		}
	}()
	for range 60 {
		h.now = h.now.Add(time.Duration(h.rng.IntN(3600)) * time.Second)
		if err := cmp.Or(h.giveUp(), h.step()); err != nil {
			return err
		}
	}
	for range 9 {
		h.now = h.now.Add(lostAfter)
		if err := cmp.Or(h.meetAll(), h.giveUp()); err != nil {
			return err
		}
	}
	return h.judge()
}

func (h *history) meetAll() error {
	for i := range h.nodes {
		for j := range h.nodes {
			if err := h.meet(i, j, -1); err != nil {
				return err
			}
		}
	}
	return nil
}

// giveUp has nodes go back that wait for too long, by the rule of
// Mesh.keepWhole.
func (h *history) giveUp() error {
	for _, p := range h.nodes {
		awaited, missing := p.db.awaited(), map[string]uint64{}
		for w, target := range awaited {
			missing[w] = target - p.db.Have(w)
		}
		if !maps.Equal(missing, p.missing) {
			p.missing, p.since = missing, h.now
		}
		if len(awaited) > 0 && h.now.Sub(p.since) > lostAfter {
			if _, err := p.db.retreat(context.Background()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *history) open(kv *badger.DB) *DB {
	o := Options{Log: slog.New(slog.DiscardHandler), small: true, draw: h.draw, Now: func() time.Time { return h.now }}
	if kv == nil {
		var err error
		if kv, err = badger.Open(badgerOptions(o, o.Log)); err != nil {
			h.t.Fatal(err)
		}
	}
	db, err := openOn(kv, o)
	if err != nil {
		h.t.Fatal(err)
	}
	if h.m == tieKeptLocal {
		db.wins = func(a, b Record) bool { return a.Version.Clock > b.Version.Clock }
	}
	return db
}

func (h *history) step() error {
	i, j, what := h.rng.IntN(4), h.rng.IntN(4), h.rng.IntN(16)
	if h.trace != "" {
		defer func() { h.say(i, j, what) }()
	}
	switch what {
	case 0, 1, 2, 3, 4, 5:
		return h.edit(i)
	case 6, 7, 8, 9:
		return h.meet(i, j, h.rng.IntN(8)-1)
	case 10:
		return h.tie(i, j)
	case 11:
		h.restart(i)
	case 12:
		return h.save(i)
	case 13:
		return h.restore(i)
	case 14:
		return h.longTime()
	case 15:
		h.collect(i)
	}
	return nil
}

func (h *history) say(i, j, what int) {
	var b strings.Builder
	for _, p := range h.nodes {
		fmt.Fprintf(&b, " %q", p.get(h.trace))
	}
	h.t.Logf("%s op %d nodes %d %d edits %d:%s", h.now.Format("01-02"), what, i, j, len(h.edits), b.String())
}

func (p *player) get(key string) string { return (&simNode{db: p.db}).get(key) }

func (h *history) edit(i int) error {
	e := edit{node: i, key: fmt.Sprintf("k/%d", h.rng.IntN(6)), value: fmt.Sprintf("v%d", len(h.edits))}
	if h.rng.IntN(3) == 0 {
		e.value = ""
	}
	err := h.nodes[i].db.Update(context.Background(), func(tx *Tx) error {
		e.version = tx.Version()
		tx.Put(fmt.Sprintf("once/%d", len(h.edits)), []byte("x"))
		if e.value == "" {
			return tx.Delete(e.key)
		}
		return tx.Put(e.key, []byte(e.value))
	})
	h.edits = append(h.edits, e)
	return err
}

// tie makes two nodes write one key at the same tick of their clocks.
func (h *history) tie(i, j int) error {
	a, b := h.nodes[i].db, h.nodes[j].db
	clock := max(a.clock, b.clock)
	a.clock, b.clock = clock, clock
	if err := h.edit(i); err != nil || i == j {
		return err
	}
	return h.edit(j)
}

// meet has i take from j what it lacks. With cut at 0 or more the session
// breaks after so many changes, in the middle of a set if it comes so.
func (h *history) meet(i, j, cut int) error {
	a, b := h.nodes[i], h.nodes[j]
	if i == j {
		return nil
	}
	a.seen[j], b.seen[i] = h.reckon(i, j), h.reckon(j, i)
	if h.fence(i, j) {
		return nil
	}
	for k := range 4 {
		if b.seen[k].After(a.seen[k]) {
			a.seen[k] = b.seen[k]
		}
	}
	a.seen[j], b.seen[i] = h.now, h.now
	left := cut
	err := pull(b.db, a.db.Vector(), func(p portion) error {
		for _, cs := range p.sets {
			if left -= len(cs.Changes); cut < 0 || left >= 0 {
				continue
			}
			if h.m == vectorTooEarly {
				cs.Changes = cs.Changes[:max(0, len(cs.Changes)+left)]
				return errors.Join(a.db.Apply(context.Background(), cs), errBroken)
			}
			return errBroken
		}
		if h.m == partTakenAsWhole {
			return a.db.Apply(context.Background(), p.sets...)
		}
		return a.db.merge(context.Background(), p)
	})
	if errors.Is(err, errBroken) {
		return nil
	}
	return err
}

var errBroken = errors.New("the session broke")

// reckon is until when i has what j has, by the rule of Mesh.reckon.
func (h *history) reckon(i, j int) time.Time {
	last := h.nodes[i].seen[j]
	for _, c := range slices.Backward(h.nodes[j].copies) {
		if c.from == i || !last.Before(c.at.Add(maxAhead)) {
			break
		}
		last = h.nodes[i].seen[c.from]
	}
	return last
}

// fence keeps two nodes from merging that were apart for too long: one of
// them takes a fresh copy.
func (h *history) fence(i, j int) bool {
	a, b := h.nodes[i], h.nodes[j]
	if h.m == collectedEarly || h.now.Sub(a.seen[j]) <= absence && h.now.Sub(b.seen[i]) <= absence {
		return false
	}
	if h.fresh(j) < h.fresh(i) || h.fresh(j) == h.fresh(i) && j > i {
		i, j = j, i
	}
	h.copy(i, j)
	return true
}

func (h *history) fresh(i int) (n int) {
	for _, at := range h.nodes[i].seen {
		if h.now.Sub(at) <= absence {
			n++
		}
	}
	return n
}

// copy has i take a fresh copy of j.
func (h *history) copy(i, j int) {
	a, b := h.nodes[i], h.nodes[j]
	f, err := a.db.beginCopy(context.Background())
	if err == nil {
		err = pull(b.db, nil, func(p portion) error { return f.take(context.Background(), p) })
	}
	if err == nil {
		err = f.finish(context.Background(), nil)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	a.seen = maps.Clone(b.seen)
	a.seen[j], b.seen[i] = h.now, h.now
	a.copies = append(slices.Clone(b.copies), copyOf{j, h.now})
	for k := range h.edits { // what is kept for review is not lost; it is not merged either
		h.edits[k].maybe = h.edits[k].maybe || h.edits[k].node == i
	}
}

func (h *history) restart(i int) {
	p := h.nodes[i]
	close(p.db.closing)
	<-p.db.ended
	p.db = h.open(p.db.kv)
}

func (h *history) save(i int) error {
	var b bytes.Buffer
	p := h.nodes[i]
	_, err := p.db.kv.Backup(&b, 0)
	p.saved = &backup{b.Bytes(), len(h.edits)}
	p.epoch, p.seq, p.then, p.copied = p.db.writer, p.db.seq, maps.Clone(p.seen), slices.Clone(p.copies)
	return err
}

// restore puts a node back to its backup.
func (h *history) restore(i int) error {
	p := h.nodes[i]
	if p.saved == nil {
		return nil
	}
	kv, err := badger.Open(badgerOptions(Options{small: true}, slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	if err := kv.Load(bytes.NewReader(p.saved.data), 16); err != nil {
		return err
	}
	p.db.Close()
	p.db, p.seen, p.copies = h.open(kv), maps.Clone(p.then), slices.Clone(p.copied)
	if h.m == epochReused {
		p.db.writer, p.db.seq = p.epoch, p.seq
	}
	for k := p.saved.edits; k < len(h.edits); k++ {
		h.edits[k].maybe = h.edits[k].maybe || h.edits[k].node == i
	}
	return nil
}

// longTime passes weeks, in which the nodes of each side stay in touch.
func (h *history) longTime() error {
	side := make([]bool, len(h.nodes))
	switch away := h.rng.IntN(8); {
	case away < len(side):
		side[away] = true
	case away > len(side):
		for i := range side {
			side[i] = h.rng.IntN(2) == 0
		}
	}
	for range 1 + h.rng.IntN(5) {
		h.now = h.now.Add(20 * 24 * time.Hour)
		for i := range h.nodes {
			for j := range h.nodes {
				if side[i] == side[j] {
					if err := h.meet(i, j, -1); err != nil {
						return err
					}
				}
			}
		}
		for i := range h.nodes {
			h.collect(i)
		}
	}
	return nil
}

// collect forgets old deletions on one node, by the rule of Mesh.collect.
func (h *history) collect(i int) {
	if len(h.nodes[i].db.awaited()) > 0 && h.m != collectedEarly {
		return
	}
	var members []map[string]uint64
	for j, p := range h.nodes {
		if h.m == collectedEarly {
			break
		}
		if j == i || h.now.Sub(h.nodes[i].seen[j]) > absence {
			continue
		}
		if h.now.Sub(h.nodes[i].seen[j]) > time.Hour {
			return // it does not answer today
		}
		members = append(members, p.db.sure())
	}
	if _, err := h.nodes[i].db.collectTombstones(context.Background(), h.now.Add(-tombstoneAge), members); err != nil {
		h.t.Fatal(err)
	}
}

// judge compares the stores with each other and with what was acknowledged.
func (h *history) judge() error {
	want := (&simNode{db: h.nodes[0].db}).dump()
	for i, p := range h.nodes {
		got := (&simNode{db: p.db}).dump()
		if !maps.Equal(got, want) {
			return fmt.Errorf("node %d differs from node 0: %s", i, difference(got, want))
		}
	}
	for n, e := range h.edits {
		if key := fmt.Sprintf("once/%d", n); !e.maybe && want[key] == "" {
			return fmt.Errorf("acknowledged %s of node %d is missing", key, e.node)
		}
	}
	return h.judgeKeys(want)
}

// judgeKeys finds keys that hold what no rule gives them: neither the newest
// edit nor a newer one that a restored node may have lost.
func (h *history) judgeKeys(have map[string]string) error {
	newest := map[string]edit{}
	for _, e := range h.edits {
		if old, ok := newest[e.key]; !e.maybe && (!ok || old.version.Compare(e.version) < 0) {
			newest[e.key] = e
		}
	}
	for _, key := range slices.Sorted(maps.Keys(newest)) {
		e := newest[key]
		ok := have[key] == e.value
		for _, m := range h.edits {
			ok = ok || m.maybe && m.key == key && have[key] == m.value && m.version.Compare(e.version) > 0
			// Of two of one tick the writer decides, and what was filed anew has another.
			ok = ok || m.key == key && have[key] == m.value && m.version.Clock == e.version.Clock
		}
		if !ok {
			return fmt.Errorf("%s is %q; the newest edit was %q on node %d", key, have[key], e.value, e.node)
		}
	}
	return nil
}
