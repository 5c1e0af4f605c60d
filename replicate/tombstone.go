package replicate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// collectTombstones forgets deletions that are older than before and that
// every one of the given vectors covers. It returns how many.
func (db *DB) collectTombstones(ctx context.Context, before time.Time, members []map[string]uint64) (n int, err error) {
	for after, more := "", true; more && err == nil; {
		err = db.submit(&job{ctx: ctx, done: make(chan struct{}), write: func(b *batch, _ *job) error {
			list, last, again, err := b.tombstones(after, clockAt(before), members)
			if err != nil {
				return err
			}
			for _, c := range list {
				if err := b.erase(c); err != nil {
					return err
				}
			}
			n, after, more = n+len(list), last, again
			return nil
		}})
	}
	return n, err
}

// tombstones finds deletions after a key that may be forgotten.
func (b *batch) tombstones(after string, before Clock, members []map[string]uint64) (list []change, last string, more bool, err error) {
	it := b.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(recordPrefix), PrefetchValues: true, PrefetchSize: 100})
	defer it.Close()
	for it.Seek([]byte(recordPrefix + after)); it.Valid(); it.Next() {
		last = string(it.Item().KeyCopy(nil)[len(recordPrefix):])
		raw, err := it.Item().ValueCopy(nil)
		if err != nil {
			return nil, last, false, err
		}
		c, err := decodeChange(last, raw)
		if err != nil {
			return nil, last, false, err
		}
		if !c.Deleted || c.Version.Clock >= before || !covered(c, members) {
			continue
		}
		if list = append(list, c); len(list) == mendAtOnce {
			return list, last, true, nil
		}
	}
	return list, last, false, nil
}

func covered(c change, members []map[string]uint64) bool {
	for _, v := range members {
		if v[c.Version.Writer] < c.seq {
			return false
		}
	}
	return true
}

// collectDaily forgets old deletions once a day.
func (m *Mesh) collectDaily(ctx context.Context) error {
	for wait := time.Hour; pauseFor(ctx, jitter(wait)); wait = 24 * time.Hour {
		if err := m.collect(ctx); err != nil {
			m.log.InfoContext(ctx, "old deletions kept for another day", "err", err)
		}
	}
	return nil
}

// collect forgets deletions that every node knows of. A node that was away
// for longer than absence is not asked: it will take a fresh copy. When any
// other does not answer, nothing is forgotten today.
func (m *Mesh) collect(ctx context.Context) error {
	known := m.known()
	if m.db.fenced.Load() || len(m.db.awaited()) > 0 || m.db.agreed.Load() != nil || len(known) > 0 && !m.timely.Load() {
		return errNotNow
	}
	now := m.db.now()
	var members []map[string]uint64
	for id := range known {
		last, _ := m.contactWith(id)
		if !last.IsZero() && now.Sub(last) > absence {
			continue
		}
		v, err := m.vectorOf(ctx, id)
		if err != nil {
			return fmt.Errorf("ask node %s what it knows: %w", id, err)
		}
		members = append(members, v)
	}
	n, err := m.db.collectTombstones(ctx, now.Add(-tombstoneAge), members)
	if n > 0 {
		m.log.InfoContext(ctx, "old deletions forgotten", "records", n)
	}
	return err
}

var errNotNow = errors.New("this node's records or its clock are not sure")

func (m *Mesh) vectorOf(ctx context.Context, id string) (map[string]uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://peer"+vectorPath, nil)
	if err != nil {
		return nil, err
	}
	res, err := m.Transport(id).RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %s", res.Status)
	}
	return readVectorOf(res.Body)
}
