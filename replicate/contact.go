package replicate

import (
	"context"
	"encoding/binary"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// contacts reads when each node was last heard of, directly or through others.
func (db *DB) contacts() (map[string]time.Time, error) {
	list := map[string]time.Time{}
	err := db.kv.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(contactPrefix), PrefetchValues: true, PrefetchSize: 100})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			n, err := number(it.Item())
			if err != nil {
				return err
			}
			list[strings.TrimPrefix(string(it.Item().Key()), contactPrefix)] = time.UnixMilli(int64(n))
		}
		return nil
	})
	return list, err
}

// keepContacts stores when each node was last heard of.
func (db *DB) keepContacts(ctx context.Context, list map[string]time.Time) error {
	return db.submit(&job{ctx: ctx, done: make(chan struct{}), write: func(b *batch, _ *job) error {
		for node, at := range list {
			if err := b.txn.Set([]byte(contactPrefix+node), binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli()))); err != nil {
				return err
			}
		}
		return nil
	}})
}

const (
	touchEvery = time.Minute
	keepEvery  = time.Hour // of no use to be exact when 60 days are counted
)

// keepContact notes who is reached, and stores it now and then.
func (m *Mesh) keepContact(ctx context.Context) error {
	tick := time.NewTicker(touchEvery)
	defer tick.Stop()
	last := time.Now()
	for {
		m.touchReached()
		if time.Since(last) > keepEvery {
			last = time.Now()
			m.storeContacts(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// touchReached notes every node that is reached now, directly or through
// others, and those that are known since just now. By a clock that nobody
// bears out nothing is noted: it would make nodes look absent that are not.
func (m *Mesh) touchReached() {
	m.hearRoutes()
	if !m.timely.Load() {
		return
	}
	now, routes, known := m.db.now(), m.links.table(), m.known()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range routes {
		m.contact[id] = now
	}
	for id := range known {
		if m.contact[id].IsZero() {
			m.contact[id] = now
		}
	}
}

// hearRoutes notes for people every node that is reached now, also before
// what comes changes that: who is not reached any more was heard of until
// then. Unlike contact, it is by any clock, and counts no days.
func (m *Mesh) hearRoutes() {
	now, routes := m.db.now(), m.links.table()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range routes {
		m.heard[id] = now
	}
}

// touch notes that the peer was heard of, unless the two do not agree on the
// time. The mesh's lock is held.
func (s *session) touch() {
	now := s.m.db.now()
	s.m.heard[s.peer.Node] = now
	if now.Sub(time.UnixMilli(s.peer.Time).Add(time.Since(s.born))).Abs() <= maxAhead {
		s.m.contact[s.peer.Node] = now
	}
}

// touchAll notes that this node is up to date with everybody, by the time that
// it and the node it took a copy of agreed on.
func (m *Mesh) touchAll() {
	m.mu.Lock()
	now := m.db.now()
	for id := range m.contact {
		m.contact[id] = now
	}
	m.mu.Unlock()
	m.storeContacts(context.Background())
}

func (m *Mesh) storeContacts(ctx context.Context) {
	m.mu.Lock()
	list := make(map[string]time.Time, len(m.contact))
	for id, at := range m.contact {
		list[id] = at
	}
	m.mu.Unlock()
	if err := m.db.keepContacts(ctx, list); err != nil && ctx.Err() == nil {
		m.log.Warn("times of contact not stored, trying again later", "err", err)
	}
}

// contactWith is when a node was last heard of, and how many were lately.
func (m *Mesh) contactWith(id string) (last time.Time, fresh int) {
	now := m.db.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, at := range m.contact {
		if now.Sub(at) < absence {
			fresh++
		}
	}
	return m.contact[id], fresh
}
