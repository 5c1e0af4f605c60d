package replicate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/dgraph-io/badger/v4"
)

// A freshCopy replaces what is here by what another node has, while readers
// see all the time either the old or the new of each record.
type freshCopy struct {
	db    *DB
	acked map[string]uint64 // of own logs, what others have
	keep  map[string]bool   // the keys that came
	given map[string]uint64 // how much of each log came
	ahead map[string]uint64 // what the other node waits for itself
}

// beginCopy marks the store, so that an interrupted copy is taken up again
// and nothing is handed on before it is whole. A new epoch begins: what is
// removed of the old one may be on a third node, and must be taken from there
// as if another had written it.
func (db *DB) beginCopy(ctx context.Context) (*freshCopy, error) {
	f := &freshCopy{db: db, keep: map[string]bool{}, given: map[string]uint64{}}
	err := db.submit(&job{ctx: ctx, done: make(chan struct{}), write: func(b *batch, _ *job) error {
		db.fenced.Store(true)
		if err := b.newEpoch(); err != nil {
			return err
		}
		return b.txn.Set([]byte(fenceKey), []byte("absence"))
	}})
	db.vectorMu.RLock()
	f.acked = maps.Clone(db.acked)
	db.vectorMu.RUnlock()
	return f, err
}

// ours says whether a change was made here after the copy began.
func (f *freshCopy) ours(c change) bool {
	return c.Version.Writer == f.db.writer
}

// unsent says whether a change was made here and is on no other node.
func (f *freshCopy) unsent(c change) bool {
	return f.db.wrote(c.Version.Writer) && c.seq > max(f.acked[c.Version.Writer], f.given[c.Version.Writer])
}

// recent says whether a change is so young that a deletion which replaced it
// is still remembered: where neither it nor anything newer is on the other
// node, that one never heard of it. Whoever made it may be dropping it as well,
// because it is here.
func (f *freshCopy) recent(c change) bool {
	return c.Version.Clock.Time().After(f.db.now().Add(-tombstoneAge))
}

// take stores sets of the other node, whatever is here.
func (f *freshCopy) take(ctx context.Context, p portion) error {
	sets := p.sets
	f.ahead = p.from.ahead
	if len(sets) == 0 {
		return nil
	}
	for _, cs := range sets {
		if err := cs.check(); err != nil {
			return err
		}
	}
	if err := f.db.believeAll(sets); err != nil {
		return err
	}
	err := f.db.submit(&job{ctx: ctx, done: make(chan struct{}), remote: sets, write: func(b *batch, j *job) error {
		for _, cs := range sets {
			for _, c := range cs.Changes {
				if err := f.replace(b, j, change{c.Record, c.Seq}, cs.End); err != nil {
					return err
				}
			}
		}
		return nil
	}})
	for _, cs := range sets {
		if err == nil {
			f.given[cs.Writer] = max(f.given[cs.Writer], cs.End)
		}
	}
	return err
}

func (f *freshCopy) replace(b *batch, j *job, c change, end uint64) error {
	ours, err := b.current(c.Key)
	if err != nil {
		return err
	}
	f.keep[c.Key] = true
	if ours.Key != "" && (ours.Version == c.Version || f.ours(ours)) {
		return nil
	}
	if ours.Key != "" && (f.unsent(ours) || f.recent(ours) && b.db.wins(ours.Record, c.Record)) {
		if err := b.review(ours); err != nil {
			return err
		}
	}
	b.db.clock = max(b.db.clock, c.Version.Clock)
	j.changes = append(j.changes, c)
	return b.put(c, ours, end)
}

// review sets a change aside for a person to decide on.
func (b *batch) review(c change) error {
	if err := b.txn.Set([]byte(reviewPrefix+c.Key), c.encode()); err != nil {
		return fmt.Errorf("set %s aside: %w", c.Key, err)
	}
	return nil
}

// finish removes what the other node does not have, takes its vector, and
// notes the copies that this node took, this one among them.
func (f *freshCopy) finish(ctx context.Context, copies []copied) error {
	list, err := json.Marshal(copies)
	if err != nil {
		return err
	}
	for after, more := "", true; more; {
		err := f.db.submit(&job{ctx: ctx, done: make(chan struct{}), write: func(b *batch, j *job) (err error) {
			after, more, err = f.sweep(b, j, after)
			return err
		}})
		if err != nil {
			return err
		}
	}
	return f.db.submit(&job{ctx: ctx, done: make(chan struct{}), write: func(b *batch, _ *job) error {
		b.forgetOthers()
		maps.Copy(b.vector, f.given)
		f.await(b)
		f.db.fenced.Store(false)
		return errors.Join(b.txn.Set([]byte(copiesKey), list), b.txn.Delete([]byte(fenceKey)))
	}})
}

// await makes every log of the copy pending when the other node waits for
// something itself.
func (f *freshCopy) await(b *batch) {
	if len(f.ahead) == 0 {
		return
	}
	for w := range f.given {
		b.pending[w] = pending{}
	}
	for w, n := range f.ahead {
		b.pending[w] = pending{target: n}
	}
}

// sweep removes records that are not in the copy, some at a time.
func (f *freshCopy) sweep(b *batch, j *job, after string) (last string, more bool, err error) {
	var gone []change
	last, more, err = f.missing(b, after, &gone)
	if err != nil {
		return last, more, err
	}
	for _, c := range gone {
		if f.unsent(c) || f.recent(c) {
			if err := b.review(c); err != nil {
				return last, more, err
			}
		}
		if err := b.erase(c); err != nil {
			return last, more, err
		}
		c.Deleted, c.Value = true, nil
		j.changes = append(j.changes, c)
	}
	return last, more, nil
}

// missing finds records after a key that are not in the copy.
func (f *freshCopy) missing(b *batch, after string, gone *[]change) (last string, more bool, err error) {
	it := b.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(recordPrefix), PrefetchValues: true, PrefetchSize: 100})
	defer it.Close()
	size := 0
	for it.Seek([]byte(recordPrefix + after)); it.Valid(); it.Next() {
		key := string(it.Item().KeyCopy(nil)[len(recordPrefix):])
		if f.keep[key] || key == after {
			continue
		}
		raw, err := it.Item().ValueCopy(nil)
		if err != nil {
			return last, false, err
		}
		c, err := decodeChange(key, raw)
		if err != nil {
			return last, false, err
		}
		last = key
		if f.ours(c) {
			continue
		}
		*gone = append(*gone, c)
		if size += len(raw); len(*gone) == mendAtOnce || size > mendBytes {
			return last, true, nil
		}
	}
	return last, false, nil
}

// erase removes a record without a trace.
func (b *batch) erase(c change) error {
	if err := b.txn.Delete([]byte(recordPrefix + c.Key)); err != nil {
		return fmt.Errorf("remove %s: %w", c.Key, err)
	}
	return b.dropEntry(c.Version.Writer, c.seq)
}
