package replicate

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"

	"github.com/dgraph-io/badger/v4"
)

// A Meeting is two edits of one key of which neither writer had seen the
// other: one of them won, on every node the same, and what the other wanted
// is not in the store any more.
type Meeting struct {
	Won, Lost Record
}

// maxSaw bounds what a record says that its writer had seen: the latest
// versions of so many nodes, as Dynamo pruned its version vectors (DeCandia
// and others, 2007). Of older ones it is taken for granted.
const maxSaw = 4

func nodeNumber(writer string) uint64 {
	var b [8]byte
	if len(writer) >= 16 {
		hex.Decode(b[:], []byte(writer[:16]))
	}
	return binary.BigEndian.Uint64(b[:])
}

// sightings is what the next write of a record's key has seen. A node always
// has seen its own.
func sightings(self string, before Record) []Sighting {
	me, last := nodeNumber(self), Sighting{nodeNumber(before.Version.Writer), before.Version.Clock}
	saw := slices.DeleteFunc(slices.Clone(before.Saw), func(s Sighting) bool { return s.Node == me || s.Node == last.Node })
	if last.Node != me {
		saw = append(saw, last)
	}
	slices.SortFunc(saw, func(a, b Sighting) int { return cmp.Or(cmp.Compare(b.Clock, a.Clock), cmp.Compare(a.Node, b.Node)) })
	return saw[:min(len(saw), maxSaw)]
}

// saw says whether the writer of a had seen b.
func saw(a, b Record) bool {
	if a.Format != 0 {
		return true // nothing is known of it
	}
	node := nodeNumber(b.Version.Writer)
	if node == nodeNumber(a.Version.Writer) && b.Version.Clock <= a.Version.Clock {
		return true
	}
	oldest := Clock(0)
	for _, s := range a.Saw {
		if s.Node == node && b.Version.Clock <= s.Clock {
			return true
		}
		if oldest == 0 || s.Clock < oldest {
			oldest = s.Clock
		}
	}
	return len(a.Saw) == maxSaw && b.Version.Clock < oldest
}

// meet keeps a meeting when this node made one of the two edits: so it is
// told by one or two nodes, not by all.
func (b *batch) meet(won, lost Record) error {
	if b.db.meets == nil || !b.db.meets(won.Key) || saw(won, lost) || saw(lost, won) {
		return nil
	}
	me := nodeNumber(b.db.writer)
	mine := nodeNumber(won.Version.Writer) == me || nodeNumber(lost.Version.Writer) == me
	if !mine || won.Deleted == lost.Deleted && bytes.Equal(won.Value, lost.Value) {
		return nil
	}
	w, l := change{Record: won}.encode(), change{Record: lost}.encode()
	value := append(binary.BigEndian.AppendUint32(nil, uint32(len(w))), w...)
	if err := b.txn.Set(meetingKey(won.Key, lost.Version), append(value, l...)); err != nil {
		return fmt.Errorf("note that two edits of %s met: %w", won.Key, err)
	}
	b.met = true
	return nil
}

func meetingKey(key string, lost Version) []byte {
	return fmt.Appendf(nil, "%s%s\x00%016x.%s", meetingPrefix, key, uint64(lost.Clock), lost.Writer)
}

// Met is sent to, and not waited for, when there are meetings to settle.
func (db *DB) Met() <-chan struct{} { return db.met }

// Meetings yields the meetings that nobody settled yet, of keys that
// Options.Meets chose and this node wrote to, by key. They are kept over
// restarts.
func (tx *Tx) Meetings() iter.Seq2[Meeting, error] {
	return func(yield func(Meeting, error) bool) {
		var list []Meeting
		it := tx.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(meetingPrefix), PrefetchValues: true, PrefetchSize: 100})
		for it.Rewind(); it.Valid(); it.Next() {
			m, err := meetingOf(it.Item())
			if err != nil {
				it.Close()
				yield(m, err)
				return
			}
			list = append(list, m)
		}
		it.Close()
		for _, m := range list {
			if !yield(m, nil) {
				return
			}
		}
	}
}

func meetingOf(item *badger.Item) (m Meeting, err error) {
	key, _, _ := bytes.Cut(item.KeyCopy(nil)[len(meetingPrefix):], []byte{0})
	b, err := item.ValueCopy(nil)
	if err != nil || len(b) < 4 || uint32(len(b)-4) < binary.BigEndian.Uint32(b) {
		return m, fmt.Errorf("meeting of %s: %w", key, cmp.Or(err, errCut))
	}
	n := 4 + binary.BigEndian.Uint32(b)
	won, err := decodeChange(string(key), b[4:n])
	if err != nil {
		return m, err
	}
	lost, err := decodeChange(string(key), b[n:])
	return Meeting{won.Record, lost.Record}, err
}

// Settle forgets a meeting, in the transaction that did something about it.
func (tx *Tx) Settle(m Meeting) error {
	if err := tx.writable(m.Won.Key); err != nil {
		return err
	}
	tx.settled = append(tx.settled, m)
	return nil
}
