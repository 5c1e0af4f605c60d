package replicate

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"
)

// A ChangeSet is what one Update changed, or what is still live of it, for
// another node. After is how much of the writer's log must be there before
// it, End the last sequence number of the set.
type ChangeSet struct {
	Writer     string
	After, End uint64
	Changes    []Change
}

// A Change is one record and its number in its writer's log.
type Change struct {
	Record
	Seq uint64
}

// ErrGap is what Apply returns when changes before the set are missing here.
var ErrGap = errors.New("earlier changes of the same writer are missing")

// Vector says how much of each writer's log this store has: everything up to
// and including that number.
func (db *DB) Vector() map[string]uint64 {
	db.vectorMu.RLock()
	defer db.vectorMu.RUnlock()
	return maps.Clone(db.vector)
}

// empty says whether the store holds no records.
func (db *DB) empty() bool {
	db.vectorMu.RLock()
	defer db.vectorMu.RUnlock()
	return len(db.live) == 0
}

// Have says how much of one writer's log this store has.
func (db *DB) Have(writer string) uint64 {
	db.vectorMu.RLock()
	defer db.vectorMu.RUnlock()
	return db.vector[writer]
}

// onCommit sets what hears of every change set that is new here, ours and
// others', while it is being committed.
func (db *DB) onCommit(fn func([]news)) {
	db.following.Lock()
	defer db.following.Unlock()
	db.pass = fn
}

func (db *DB) moveVector(to map[string]uint64, live map[string]int) {
	db.vectorMu.Lock()
	defer db.vectorMu.Unlock()
	maps.Copy(db.vector, to)
	for w, n := range to {
		if n == 0 {
			delete(db.vector, w)
		}
	}
	for w, n := range live {
		if db.live[w] += n; db.live[w] == 0 {
			delete(db.live, w)
		}
	}
}

// rereadPending takes the pending logs from the store again.
func (db *DB) rereadPending(txn *badger.Txn) error {
	logs, err := readPending(txn)
	if err == nil {
		db.movePending(logs)
	}
	return err
}

func (db *DB) movePending(to map[string]pending) {
	db.vectorMu.Lock()
	defer db.vectorMu.Unlock()
	db.pending = to
}

// rereadVector takes the vector from the store again.
func (db *DB) rereadVector() {
	err := db.kv.View(func(txn *badger.Txn) error {
		vector, err := readVector(txn)
		if err != nil {
			return err
		}
		db.moveVector(vector, nil)
		return db.rereadPending(txn)
	})
	if err != nil {
		db.log.Error("the vector could not be read again", "err", err)
	}
}

// Digest is equal on two stores that have the same of every log of which
// something is live; a writer without is not needed to agree.
func (db *DB) Digest() [16]byte {
	db.vectorMu.RLock()
	defer db.vectorMu.RUnlock()
	return db.digest()
}

// state is the digest and the vector of one moment.
func (db *DB) state() ([16]byte, map[string]uint64) {
	db.vectorMu.RLock()
	defer db.vectorMu.RUnlock()
	return db.digest(), maps.Clone(db.vector)
}

func (db *DB) digest() [16]byte {
	vector := make(map[string]uint64, len(db.live))
	for w := range db.live {
		vector[w] = db.vector[w]
	}
	sum := sha256.Sum256(appendVector(nil, vector))
	return [16]byte(sum[:])
}

// sinceAll hands over what a node with the vector have lacks of what the other
// vector says, until yield wants no more: writer by writer, each in sequence
// order and cut only at the ends of change sets. What later changes replaced is
// not in it; the last set of a writer may be empty and only move the vector.
func (tx *Tx) sinceAll(vector, have map[string]uint64, yield func(ChangeSet) bool) error {
	for _, writer := range slices.Sorted(maps.Keys(vector)) {
		last := vector[writer]
		if have[writer] >= last {
			continue
		}
		if more, err := tx.since(writer, have[writer], last, yield); err != nil || !more {
			return err
		}
	}
	return nil
}

// since hands one writer's sets over, and says whether more is wanted.
func (tx *Tx) since(writer string, after, last uint64, yield func(ChangeSet) bool) (more bool, err error) {
	cs, more := ChangeSet{Writer: writer, After: after, End: after}, true
	err = tx.eachSince(writer, after, func(end uint64, c change) bool {
		if len(cs.Changes) > 0 && end != cs.End {
			if more = yield(cs); !more {
				return false
			}
			cs = ChangeSet{Writer: writer, After: cs.End}
		}
		cs.End = end
		cs.Changes = append(cs.Changes, Change{c.Record, c.seq})
		return true
	})
	if err != nil || !more {
		return false, err
	}
	if len(cs.Changes) > 0 {
		if !yield(cs) {
			return false, nil
		}
		cs = ChangeSet{Writer: writer, After: cs.End, End: cs.End}
	}
	if cs.End < last && cs.After+cs.End > 0 { // of a log without entries a new node needs nothing
		cs.End = last
		return yield(cs), nil
	}
	return true, nil
}

// eachSince calls fn with the entries of a writer's log, and the end of the
// change set each is of, until it returns false.
func (tx *Tx) eachSince(writer string, after uint64, fn func(end uint64, c change) bool) error {
	prefix := []byte(logPrefix + writer + "/")
	it := tx.txn.NewIterator(badger.IteratorOptions{Prefix: prefix, PrefetchValues: true, PrefetchSize: 100})
	defer it.Close()
	for it.Seek(logKey(writer, after+1)); it.Valid(); it.Next() {
		end, c, err := tx.entry(it.Item())
		if err != nil {
			return err
		}
		if !fn(end, c) {
			return nil
		}
	}
	return nil
}

// entry reads a log entry and the change it stands for.
func (tx *Tx) entry(item *badger.Item) (end uint64, c change, err error) {
	b, err := item.ValueCopy(nil)
	if err != nil || len(b) < 8 {
		return 0, c, fmt.Errorf("log entry %q: %w", item.Key(), errors.Join(err, errCut))
	}
	key, own := string(b[8:]), string(item.Key()[len(logPrefix):])
	raw, err := tx.raw(recordPrefix+key, key)
	if err == nil {
		c, err = decodeChange(key, raw)
	}
	if err == nil && string(logKey(c.Version.Writer, c.seq)[len(logPrefix):]) != own {
		err = fmt.Errorf("log entry %q names %s, which is another change now", own, key)
	}
	if err != nil {
		return 0, c, err
	}
	return binary.BigEndian.Uint64(b), c, nil
}

var errCut = errors.New("cut short")

func logKey(writer string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(logPrefix+writer+"/"), seq)
}

// Apply merges change sets of other nodes, as they were written, as one
// transaction. Sets of one writer come in order and without gaps; one that is
// known already changes nothing. A record that is older than ours is left out;
// with one from the future nothing is taken (ErrAhead). Keys of kinds nobody
// here knows are kept like all others.
func (db *DB) Apply(ctx context.Context, sets ...ChangeSet) error {
	for _, cs := range sets {
		if err := cs.check(); err != nil {
			return err
		}
	}
	return db.submit(&job{ctx: ctx, remote: sets, done: make(chan struct{})})
}

// check refuses what no node sends.
func (cs ChangeSet) check() error {
	node, epoch, ok := strings.Cut(cs.Writer, ".")
	if !ok || len(node) != 32 || len(epoch) != 16 {
		return fmt.Errorf("change set of writer %.80q: not a writer", cs.Writer)
	}
	before := cs.After
	if cs.End < cs.After {
		return fmt.Errorf("change set %s/%d ends before it begins", cs.Writer, cs.End)
	}
	for _, c := range cs.Changes {
		if err := checkKey(c.Key); err != nil {
			return fmt.Errorf("change set %s/%d: %w", cs.Writer, cs.End, err)
		}
		switch {
		case len(c.Value) > MaxValue || c.Deleted && len(c.Value) > 0:
			return fmt.Errorf("change set %s/%d: value of %s: %w", cs.Writer, cs.End, c.Key, ErrTooLarge)
		case c.Version.Writer != cs.Writer || c.Seq <= before || c.Seq > cs.End:
			return fmt.Errorf("change set %s/%d: %s is not its own", cs.Writer, cs.End, c.Key)
		}
		before = c.Seq
	}
	return nil
}

// have is how much of the writer's log is here, the batch included.
func (b *batch) have(writer string) uint64 {
	if n, moved := b.vector[writer]; moved {
		return n
	}
	return b.db.vector[writer]
}

// refuse finds out whether the sets cannot be taken, before any of them is
// written: something before them is missing, or a clock is beyond the horizon.
func (b *batch) refuse(sets []ChangeSet) error {
	if err := b.db.believeAll(sets); err != nil {
		return err
	}
	have := map[string]uint64{}
	for _, cs := range sets {
		n := max(have[cs.Writer], b.have(cs.Writer))
		if cs.After > n {
			return fmt.Errorf("change set %s/%d follows %d, here up to %d: %w", cs.Writer, cs.End, cs.After, n, ErrGap)
		}
		have[cs.Writer] = max(n, cs.End)
	}
	return nil
}

// takeRemote merges another node's change set into the batch.
func (b *batch) takeRemote(j *job, cs ChangeSet) error {
	have := b.have(cs.Writer)
	if cs.End <= have {
		return nil
	}
	for _, c := range cs.Changes {
		if c.Seq <= have {
			continue
		}
		if err := b.merge(j, change{c.Record, c.Seq}, cs.End); err != nil {
			return err
		}
	}
	b.took(j, cs, have)
	b.vector[cs.Writer] = cs.End
	j.news = append(j.news, news{cs, j.portion != nil && !cs.whole()})
	return nil
}

// merge keeps a change of another node if it is newer than what is here.
func (b *batch) merge(j *job, c change, end uint64) error {
	ours, err := b.current(c.Key)
	if err != nil {
		return err
	}
	if ours.Key != "" && !b.db.wins(c.Record, ours.Record) {
		return b.meet(ours.Record, c.Record)
	}
	if ours.Key != "" {
		if err := b.meet(c.Record, ours.Record); err != nil {
			return err
		}
	}
	b.db.clock = max(b.db.clock, c.Version.Clock)
	j.changes = append(j.changes, c)
	return b.put(c, ours, end)
}

// current returns what the batch holds under key; its Key is empty for none.
func (b *batch) current(key string) (change, error) {
	item, err := b.txn.Get([]byte(recordPrefix + key))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return change{}, nil
	}
	if err != nil {
		return change{}, fmt.Errorf("read %s: %w", key, err)
	}
	raw, err := item.ValueCopy(nil)
	if err != nil {
		return change{}, fmt.Errorf("read %s: %w", key, err)
	}
	return decodeChange(key, raw)
}
