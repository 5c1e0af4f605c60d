package replicate

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// A sync leaves out what its sender replaced meanwhile; what replaced it comes
// later in the same sync, under this writer or another. When the sync is
// interrupted between the two, this store lacks both, and should the sender be
// put back to a backup from before, nobody sends the second. So a log of which
// a part came is pending until everything is here that the sender had when it
// answered, from it or from others. Until then it counts for what is exchanged,
// but not for forgetting deletions, and the node tells whoever takes a part of
// it what it waits for itself.

// A pending log is sure up to a number: each change up to there, or one that
// replaced it, is here. Of what follows one may be missing whose replacement
// lies between what is held and the targets of all pending logs.
type pending struct {
	sure   uint64
	target uint64 // how far the log went where the part came from; 0 once it is reached
}

// An extent is how far a node's logs go.
type extent struct {
	vector map[string]uint64 // what it holds
	ahead  map[string]uint64 // the targets it waits for itself
}

// A portion is some of the change sets of a sync, in order.
type portion struct {
	sets []ChangeSet
	from extent // the sender, when it answered
	last bool   // with it everything is here that the sender held
}

// whole says whether nothing was left out of the set.
func (cs ChangeSet) whole() bool { return uint64(len(cs.Changes)) == cs.End-cs.After }

// merge takes a portion of a sync, as Apply takes what was just written.
func (db *DB) merge(ctx context.Context, p portion) error {
	if len(p.sets) == 0 && (!p.last || len(db.awaited()) == 0) {
		return nil
	}
	for _, cs := range p.sets {
		if err := cs.check(); err != nil {
			return err
		}
	}
	return db.submit(&job{ctx: ctx, remote: p.sets, portion: &p, done: make(chan struct{})})
}

// extent is how far this store's logs go in tx.
func (tx *Tx) extent() (x extent, err error) {
	if x.vector, err = readVector(tx.txn); err != nil {
		return x, err
	}
	logs, err := readPending(tx.txn)
	x.ahead = targets(logs, x.vector)
	return x, err
}

// targets are those that the vector does not reach.
func targets(logs map[string]pending, vector map[string]uint64) map[string]uint64 {
	ahead := map[string]uint64{}
	for w, p := range logs {
		if p.target > vector[w] {
			ahead[w] = p.target
		}
	}
	return ahead
}

// awaited are the targets that this store waits for.
func (db *DB) awaited() map[string]uint64 {
	db.vectorMu.RLock()
	defer db.vectorMu.RUnlock()
	return targets(db.pending, db.vector)
}

// sure is the vector of what is here beyond doubt.
func (db *DB) sure() map[string]uint64 {
	db.vectorMu.RLock()
	defer db.vectorMu.RUnlock()
	v := maps.Clone(db.vector)
	for w, p := range db.pending {
		v[w] = min(v[w], p.sure)
	}
	return v
}

// logs are the pending ones, the batch's own to change.
func (b *batch) logs() map[string]pending {
	if b.pending == nil {
		b.pending = map[string]pending{}
		maps.Copy(b.pending, b.db.pending)
	}
	return b.pending
}

// took notes that a set of another node was taken where have was held before.
func (b *batch) took(j *job, cs ChangeSet, have uint64) {
	whole := j.portion == nil || cs.whole()
	if !whole {
		b.await(j, cs.Writer, have)
	}
	if b.pending == nil && len(b.db.pending) == 0 {
		return
	}
	if p, ok := b.logs()[cs.Writer]; ok && whole && cs.After <= p.sure {
		p.sure = cs.End
		b.pending[cs.Writer] = p
	}
}

// await makes a log pending, and all that the portion's sender had a target.
func (b *batch) await(j *job, writer string, have uint64) {
	logs := b.logs()
	if _, ok := logs[writer]; !ok {
		logs[writer] = pending{sure: have}
	}
	if j.awaits {
		return
	}
	j.awaits = true
	for _, v := range []map[string]uint64{j.portion.from.vector, j.portion.from.ahead} {
		for w, n := range v {
			p, ok := logs[w]
			if here := b.have(w); n > here {
				if !ok {
					p.sure = here
				}
				p.target = max(p.target, n)
				logs[w] = p
			}
		}
	}
}

// reached drops targets that the sender of a whole sync had reached: it sends
// nothing of a log in which nothing lives.
func (b *batch) reached(from extent) {
	for w, p := range b.logs() {
		if from.vector[w] >= p.target {
			p.target = 0
			b.pending[w] = p
		}
	}
}

// writePending stores the pending logs that the batch changed; none are left
// once every target is reached.
func (b *batch) writePending() error {
	if b.pending == nil {
		return nil
	}
	open := false
	for w, p := range b.pending {
		open = open || p.target > b.have(w)
	}
	if !open {
		clear(b.pending)
	}
	for w := range b.db.pending {
		if _, ok := b.pending[w]; !ok {
			if err := b.txn.Delete([]byte(pendingPrefix + w)); err != nil {
				return fmt.Errorf("write the pending logs: %w", err)
			}
		}
	}
	for w, p := range b.pending {
		if b.db.pending[w] == p {
			continue
		}
		value := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, p.sure), p.target)
		if err := b.txn.Set([]byte(pendingPrefix+w), value); err != nil {
			return fmt.Errorf("write the pending logs: %w", err)
		}
	}
	return nil
}

func readPending(txn *badger.Txn) (map[string]pending, error) {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(pendingPrefix), PrefetchValues: true, PrefetchSize: 100})
	defer it.Close()
	logs := map[string]pending{}
	for it.Rewind(); it.Valid(); it.Next() {
		writer := strings.TrimPrefix(string(it.Item().KeyCopy(nil)), pendingPrefix)
		err := it.Item().Value(func(b []byte) error {
			if len(b) != 16 {
				return fmt.Errorf("pending log %s of %d bytes: %w", writer, len(b), errCut)
			}
			logs[writer] = pending{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return logs, nil
}

// retreat gives up waiting: of the pending logs only what is sure is claimed
// from now on, so others send what follows if they have it, and what came of it
// is filed under this node's own log, because nobody else may hold it. It
// returns how many records that were.
func (db *DB) retreat(ctx context.Context) (filed int, err error) {
	for more := true; more && err == nil; {
		err = db.submit(&job{ctx: ctx, done: make(chan struct{}), write: func(b *batch, j *job) error {
			list, err := b.unsure()
			if err != nil {
				return err
			}
			if more = len(list) > 0; more {
				filed += len(list)
				return b.file(j, list)
			}
			for w, p := range b.logs() {
				if b.have(w) > p.sure {
					b.vector[w] = p.sure
				}
			}
			clear(b.pending)
			return nil
		}})
	}
	return filed, err
}

// unsure finds records of pending logs beyond what is sure, some at a time.
func (b *batch) unsure() (list []change, err error) {
	tx := &Tx{txn: b.txn}
	size := 0
	for _, w := range slices.Sorted(maps.Keys(b.logs())) {
		err := tx.eachSince(w, b.pending[w].sure, func(_ uint64, c change) bool {
			list = append(list, c)
			size += len(c.Key) + len(c.Value)
			return len(list) < mendAtOnce && size < mendBytes
		})
		if err != nil || len(list) >= mendAtOnce || size >= mendBytes {
			return list, err
		}
	}
	return list, nil
}

// lostAfter is how long a node waits for what a sync that was interrupted did
// not bring, before it takes it to be lost.
const lostAfter = time.Hour

var lostProblem = "Records that a node had announced never came: it was put back to a backup, or is gone with what only it had. What had come of them is kept."

// keepWhole gives up on pending logs that come no further while peers are
// connected. Without a peer there is nobody to ask anew.
func (m *Mesh) keepWhole(ctx context.Context) error {
	type wait struct {
		have, target uint64
		since        time.Time
	}
	waits := map[string]wait{}
	for pauseFor(ctx, jitter(5*time.Minute)) {
		awaited, lost := m.db.awaited(), false
		maps.DeleteFunc(waits, func(w string, _ wait) bool { return awaited[w] == 0 })
		for w, target := range awaited {
			now := wait{m.db.Have(w), target, time.Now()}
			if old := waits[w]; old.have == now.have && old.target == now.target {
				now.since = old.since
			}
			waits[w] = now
			lost = lost || time.Since(now.since) > lostAfter
		}
		if !lost || m.db.fenced.Load() || !m.connectedFor(lostAfter) {
			continue
		}
		n, err := m.db.retreat(ctx)
		if err != nil {
			m.log.WarnContext(ctx, "gave up waiting for records, not to the end", "err", err)
			continue
		}
		clear(waits)
		m.problems.add(m.id, lostProblem)
		m.log.WarnContext(ctx, "records that were announced never came, going back to what is sure", "kept", n)
	}
	return nil
}

// connectedFor says whether some peer has been connected for so long, and none
// came only now, which may have what is missing.
func (m *Mesh) connectedFor(d time.Duration) (long bool) {
	for _, s := range m.control() {
		if time.Since(s.born) < time.Minute {
			return false
		}
		long = long || time.Since(s.born) > d
	}
	return long
}
