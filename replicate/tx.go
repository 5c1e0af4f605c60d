package replicate

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// A Tx is the store inside one View or Update. It is good until the function
// it was given to returns, and for one goroutine.
type Tx struct {
	txn       *badger.Txn
	job       *job // nil in a View
	version   Version
	writes    map[string]write
	local     map[string]write
	settled   []Meeting
	dismissed []string
	done      bool
}

// A write waits in its transaction until the function has ended well.
type write struct {
	value   []byte
	deleted bool
}

func (w write) to(txn *badger.Txn, key string) error {
	err := error(nil)
	if w.deleted {
		err = txn.Delete([]byte(key))
	} else {
		err = txn.Set([]byte(key), w.value)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

// Now is the time of the transaction: one for all that it writes.
func (tx *Tx) Now() time.Time { return tx.version.Clock.Time() }

// Version is what an Update stamps on its records.
func (tx *Tx) Version() Version { return tx.version }

// Get returns the value of key, which the caller may keep; ErrNotFound when
// there is none or it is deleted.
func (tx *Tx) Get(key string) ([]byte, error) {
	r, err := tx.Record(key)
	return r.Value, err
}

// Record returns the record of key, which the caller may keep; ErrNotFound
// when there is none or it is deleted.
func (tx *Tx) Record(key string) (Record, error) {
	if w, ok := tx.writes[key]; ok {
		if w.deleted {
			return Record{}, fmt.Errorf("read %s: %w", key, ErrNotFound)
		}
		return Record{Key: key, Value: slices.Clone(w.value), Version: tx.version}, nil
	}
	b, err := tx.raw(recordPrefix+key, key)
	if err != nil {
		return Record{}, err
	}
	c, err := decodeChange(key, b)
	if err == nil && c.Deleted {
		err = fmt.Errorf("read %s: %w", key, ErrNotFound)
	}
	return c.Record, err
}

func (tx *Tx) raw(key, name string) ([]byte, error) {
	item, err := tx.txn.Get([]byte(key))
	if errors.Is(err, badger.ErrKeyNotFound) || errors.Is(err, badger.ErrEmptyKey) {
		return nil, fmt.Errorf("read %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	b, err := item.ValueCopy(nil)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// Put sets the value of key. The transaction keeps a copy.
func (tx *Tx) Put(key string, value []byte) error { return tx.put(tx.writes, key, value) }

// Delete leaves a tombstone under key, also when nothing is there.
func (tx *Tx) Delete(key string) error { return tx.delete(tx.writes, key) }

func (tx *Tx) put(into map[string]write, key string, value []byte) error {
	if err := tx.writable(key); err != nil {
		return err
	}
	if len(value) > MaxValue {
		return fmt.Errorf("write %s: %d bytes: %w, at most %d", key, len(value), ErrTooLarge, MaxValue)
	}
	into[key] = write{value: slices.Clone(value)}
	return nil
}

func (tx *Tx) delete(into map[string]write, key string) error {
	if err := tx.writable(key); err != nil {
		return err
	}
	into[key] = write{deleted: true}
	return nil
}

func (tx *Tx) writable(key string) error {
	if tx.job == nil {
		return fmt.Errorf("write %s: %w", key, ErrReadOnly)
	}
	if tx.done {
		return fmt.Errorf("write %s: the transaction has ended", key)
	}
	return checkKey(key)
}

// Scan yields the live records whose keys begin with prefix, in key order,
// with what the transaction itself wrote. After an error it yields that error
// once and stops.
func (tx *Tx) Scan(prefix string) iter.Seq2[Record, error] {
	return tx.scan(recordPrefix, prefix, tx.writes, func(key string, b []byte) (Record, error) {
		c, err := decodeChange(key, b)
		return c.Record, err
	})
}

func (tx *Tx) scan(space, prefix string, writes map[string]write, decode func(string, []byte) (Record, error)) iter.Seq2[Record, error] {
	stored := tx.stored(space, prefix, decode)
	if tx.job == nil {
		return live(stored)
	}
	// Badger allows one iterator at a time in a transaction that writes, and
	// callers nest scans: read it whole, then merge.
	return func(yield func(Record, error) bool) {
		found := map[string]Record{}
		for r, err := range stored {
			if err != nil {
				yield(Record{}, err)
				return
			}
			found[r.Key] = r
		}
		for k, w := range writes {
			if strings.HasPrefix(k, prefix) {
				found[k] = Record{Key: k, Value: slices.Clone(w.value), Deleted: w.deleted, Version: tx.version}
			}
		}
		for _, k := range slices.Sorted(maps.Keys(found)) {
			if r := found[k]; !r.Deleted && !yield(r, nil) {
				return
			}
		}
	}
}

func live(all iter.Seq2[Record, error]) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for r, err := range all {
			if (err != nil || !r.Deleted) && !yield(r, err) {
				return
			}
		}
	}
}

// stored yields what Badger holds in one of its spaces, deleted records too.
func (tx *Tx) stored(space, prefix string, decode func(string, []byte) (Record, error)) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		it := tx.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(space + prefix), PrefetchValues: true, PrefetchSize: 100})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			key := string(it.Item().Key()[len(space):])
			b, err := it.Item().ValueCopy(nil)
			var r Record
			if err != nil {
				err = fmt.Errorf("read %s: %w", key, err)
			} else {
				r, err = decode(key, b)
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// Local gives the records of this node alone: never replicated, otherwise
// like the others, in the same transaction and as durable.
func (tx *Tx) Local() Local { return Local{tx} }

// Local is a transaction's view of the records of this node alone.
type Local struct{ tx *Tx }

// Get returns the value of key, which the caller may keep; ErrNotFound when
// there is none.
func (l Local) Get(key string) ([]byte, error) {
	if w, ok := l.tx.local[key]; ok {
		if w.deleted {
			return nil, fmt.Errorf("read %s: %w", key, ErrNotFound)
		}
		return slices.Clone(w.value), nil
	}
	return l.tx.raw(localPrefix+key, key)
}

// Put sets the value of key. The transaction keeps a copy.
func (l Local) Put(key string, value []byte) error { return l.tx.put(l.tx.local, key, value) }

// Delete removes key, if it is there.
func (l Local) Delete(key string) error { return l.tx.delete(l.tx.local, key) }

// Scan yields the local records whose keys begin with prefix, in key order.
func (l Local) Scan(prefix string) iter.Seq2[Record, error] {
	return l.tx.scan(localPrefix, prefix, l.tx.local, func(key string, b []byte) (Record, error) {
		return Record{Key: key, Value: b}, nil
	})
}
