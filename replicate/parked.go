package replicate

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// maxAhead is how far a record may be ahead of our clock before it is parked:
// it would win every merge until time gets there.
const maxAhead = 10 * time.Minute

// now is the time of this node, by its clock or, when that is known to be
// wrong, by its peers'.
func (db *DB) now() time.Time { return db.wall().Add(time.Duration(db.correction.Load())) }

// horizon is the latest clock that is believed.
func (db *DB) horizon() Clock { return clockAt(db.now().Add(maxAhead)) }

// A parkedEntry is a record from the future. It is part of its writer's log,
// and handed on, but nobody reads it until time gets there.
type parkedEntry struct {
	change
	end uint64
}

func parkedKey(writer string, seq uint64) []byte {
	return append([]byte(parkedPrefix), logKey(writer, seq)[len(logPrefix):]...)
}

func (p parkedEntry) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, p.end)
	return append(appendText(b, p.Key), p.change.encode()...)
}

func decodeParked(b []byte) (p parkedEntry, err error) {
	r := reader{b: b}
	p.end = r.uint64()
	key := r.text(MaxKey)
	if r.bad {
		return p, fmt.Errorf("parked record: %w", errCut)
	}
	p.change, err = decodeChange(key, r.b)
	return p, err
}

func eachParked(txn *badger.Txn, fn func(parkedEntry) error) error {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(parkedPrefix), PrefetchValues: true, PrefetchSize: 100})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		b, err := it.Item().ValueCopy(nil)
		if err != nil {
			return err
		}
		p, err := decodeParked(b)
		if err != nil {
			return err
		}
		if err := fn(p); err != nil {
			return err
		}
	}
	return nil
}

// parkedAt reads the parked record of a log entry, named by the end of its key.
func (tx *Tx) parkedAt(own string) (parkedEntry, error) {
	b, err := tx.raw(parkedPrefix+own, fmt.Sprintf("log entry %q", own))
	if err != nil {
		return parkedEntry{}, err
	}
	return decodeParked(b)
}

// park keeps a record from the future aside, unless what is here has seen it:
// then its writer put its clock right and stamped it again.
func (b *batch) park(c, ours change, end uint64) error {
	if ours.Key != "" && saw(ours.Record, c.Record) {
		return nil
	}
	p := parkedEntry{c, end}
	if err := b.txn.Set(parkedKey(c.Version.Writer, c.seq), p.encode()); err != nil {
		return fmt.Errorf("park %s: %w", c.Key, err)
	}
	b.parked = append(b.parked, func() { b.db.parked[c.Key] = append(b.db.parked[c.Key], p) })
	return b.putEntry(c, end)
}

// unpark drops the parked records of a key that a new one has seen.
func (b *batch) unpark(c change) error {
	for _, p := range b.db.parked[c.Key] {
		if !saw(c.Record, p.Record) {
			continue
		}
		if err := b.dropParked(p); err != nil {
			return err
		}
		if err := b.dropEntry(p.Version.Writer, p.seq); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) dropParked(p parkedEntry) error {
	if err := b.txn.Delete(parkedKey(p.Version.Writer, p.seq)); err != nil {
		return fmt.Errorf("drop parked %s: %w", p.Key, err)
	}
	b.parked = append(b.parked, func() {
		kept := slices.DeleteFunc(b.db.parked[p.Key], func(q parkedEntry) bool { return q.Version == p.Version && q.seq == p.seq })
		if b.db.parked[p.Key] = kept; len(kept) == 0 {
			delete(b.db.parked, p.Key)
		}
	})
	return nil
}

// mendAtOnce bounds how many records one transaction of mend touches, and
// mendBytes about how much.
const (
	mendAtOnce = 200
	mendBytes  = 256 << 10
)

// mend applies parked records whose time has come, and, when this node's
// clock was put right, stamps again what it wrote with a clock ahead.
func (db *DB) mend(ctx context.Context) error {
	for {
		more := false
		err := db.submit(&job{ctx: ctx, done: make(chan struct{}), write: func(b *batch, j *job) error {
			var err error
			if more, err = b.release(j); more || err != nil {
				return err
			}
			more, err = b.restamp(j)
			return err
		}})
		if err != nil || !more {
			return err
		}
	}
}

// release merges what is parked and not ahead any more.
func (b *batch) release(j *job) (more bool, err error) {
	horizon, n, size := b.db.horizon(), 0, 0
	for _, list := range b.db.parked {
		for _, p := range list {
			if p.Version.Clock > horizon {
				continue
			}
			if n, size = n+1, size+len(p.Value); n > mendAtOnce || n > 1 && size > mendBytes {
				return true, nil
			}
			if err := b.dropParked(p); err != nil {
				return false, err
			}
			if err := b.dropEntry(p.Version.Writer, p.seq); err != nil {
				return false, err
			}
			if _, err := b.merge(j, p.change, p.end); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// restamp rewrites what this node wrote with a clock that was ahead. The new
// record says that it has seen the old one, so others drop what they parked.
func (b *batch) restamp(j *job) (more bool, err error) {
	horizon := b.db.horizon()
	if b.db.clock <= horizon {
		return false, nil
	}
	ahead, highest, err := b.ahead(horizon)
	if err != nil {
		return false, err
	}
	n, size := 0, 0
	for ; n < min(len(ahead), mendAtOnce) && (n == 0 || size < mendBytes); n++ {
		size += len(ahead[n].Value)
	}
	more, ahead = n < len(ahead), ahead[:n]
	was := b.db.clock
	b.db.clock = max(highest, clockAt(b.db.now())) + 1
	version := Version{b.db.clock, b.db.writer}
	cs := ChangeSet{Writer: b.db.writer, After: b.have(b.db.writer), End: b.db.seq + uint64(len(ahead))}
	for i, old := range ahead {
		c := change{Record{Key: old.Key, Value: old.Value, Deleted: old.Deleted, Version: version, Saw: old.Saw, Format: old.Format}, b.db.seq + uint64(i) + 1}
		c.Saw = append([]Sighting{{nodeNumber(old.Version.Writer), old.Version.Clock}}, c.Saw[:min(len(c.Saw), maxSaw-1)]...)
		if err := b.put(c, old, cs.End); err != nil {
			return false, err
		}
		j.changes = append(j.changes, c)
		cs.Changes = append(cs.Changes, Change{c.Record, c.seq})
	}
	if len(ahead) > 0 {
		b.db.seq, b.vector[b.db.writer] = cs.End, cs.End
		j.news = append(j.news, cs)
	}
	if more {
		b.db.clock = was // there is more to look for
	}
	return more, nil
}

// ahead finds this node's own records beyond the horizon, and the highest
// clock that is not. Records of others beyond it were taken while this node's
// clock was wrong; what they replaced is gone here, so a fresh copy is due.
func (b *batch) ahead(horizon Clock) (list []change, highest Clock, err error) {
	node, foreign := b.db.node+".", false
	it := b.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(recordPrefix), PrefetchValues: true, PrefetchSize: 100})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		raw, err := it.Item().ValueCopy(nil)
		if err != nil {
			return nil, 0, err
		}
		c, err := decodeChange(string(it.Item().Key()[len(recordPrefix):]), raw)
		switch {
		case err != nil:
			return nil, 0, err
		case c.Version.Clock <= horizon:
			highest = max(highest, c.Version.Clock)
		case strings.HasPrefix(c.Version.Writer, node):
			list = append(list, c)
		default:
			foreign = true
		}
	}
	if foreign {
		if err := b.txn.Set([]byte(fenceKey), []byte(fencedByClock)); err != nil {
			return nil, 0, err
		}
		b.db.fenced.Store(true)
	}
	return list, highest, nil
}

// Parked is how many records from the future wait, and the latest of their
// clocks.
func (db *DB) Parked() (n int, latest time.Time) {
	db.following.Lock()
	defer db.following.Unlock()
	for _, list := range db.parked {
		for _, p := range list {
			n++
			if t := p.Version.Clock.Time(); t.After(latest) {
				latest = t
			}
		}
	}
	return n, latest
}
