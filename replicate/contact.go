package replicate

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// Absence is counted by contact: until when this node has all that another one
// had, by a sync with it or through others. Who is merely reached counts for
// what people are told, and no more: a branch that was away for long and sees
// headquarters again has, until it took a fresh copy, nothing of it.

// contacts reads until when this node has what each other one had.
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

// keepContacts stores that.
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

// copiesTaken reads the fresh copies that this node took.
func (db *DB) copiesTaken() (list []copied, err error) {
	err = db.kv.View(func(txn *badger.Txn) error {
		item, err := txn.Get([]byte(copiesKey))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return item.Value(func(b []byte) error { return json.Unmarshal(b, &list) })
	})
	return list, err
}

const (
	touchEvery = time.Minute
	keepEvery  = time.Hour // of no use to be exact when 60 days are counted
)

// keepContact stores contact now and then.
func (m *Mesh) keepContact(ctx context.Context) error {
	tick := time.NewTicker(touchEvery)
	defer tick.Stop()
	last := time.Now()
	for {
		m.hearRoutes()
		m.noteKnown()
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

// noteKnown notes the nodes that are known since just now. By a clock that
// nobody bears out nothing is noted: it would make nodes look absent that are
// not.
func (m *Mesh) noteKnown() {
	if !m.timely.Load() {
		return
	}
	now, known := m.db.now(), m.known()
	m.mu.Lock()
	defer m.mu.Unlock()
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

// touch notes that this node has all that the peer has, unless nobody bears
// its time out.
func (s *session) touch() {
	if !s.m.timely.Load() {
		return
	}
	now := s.m.db.now()
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.contact[s.peer.Node] = now
}

// A standing is what a node says of its contact with others.
type standing struct {
	Contact map[string]int64 `json:"contact,omitempty"` // Unix milliseconds
	Copies  []copied         `json:"copies,omitempty"`
}

// copied says that a node took a fresh copy: from then on it has what the
// other had, whoever it was in contact with before.
type copied struct {
	From string `json:"from"`
	At   int64  `json:"at"` // Unix milliseconds
}

// maxCopies bounds what a hello tells of copies; more in 60 days are a fault.
const maxCopies = 32

// standing is this node's.
func (m *Mesh) standing() standing {
	copies := m.copiesNow()
	m.mu.Lock()
	defer m.mu.Unlock()
	st := standing{Contact: make(map[string]int64, len(m.contact)), Copies: copies}
	for id, at := range m.contact {
		st.Contact[id] = at.UnixMilli()
	}
	return st
}

// copiesNow are the copies of late; what is older than absence is nothing that
// contact would hide.
func (m *Mesh) copiesNow() []copied {
	since := m.db.now().Add(-absence).UnixMilli()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.copies = slices.DeleteFunc(m.copies, func(c copied) bool { return c.At < since })
	return slices.Clone(m.copies[max(0, len(m.copies)-maxCopies):])
}

func checkCopies(list []copied) error {
	if len(list) > maxCopies || slices.ContainsFunc(list, func(c copied) bool { return !isNodeID(c.From) }) {
		return fmt.Errorf("copies: %w", errGarbage)
	}
	return nil
}

// reckon works out contact with a node that took fresh copies: since then it
// has what the node had that it copied, and contact from before says nothing.
// It says whether the two are now absent from each other that were not, or the
// other way round.
func (m *Mesh) reckon(h hello) (otherwise bool) {
	now := m.db.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.contact[h.Node]
	last := was
	for _, c := range slices.Backward(h.Copies) {
		at := time.UnixMilli(c.At)
		from := m.contact[c.From]
		if !last.Before(at.Add(maxAhead)) || from.IsZero() { // or it was taken here, and noted
			break
		}
		last = from
	}
	if last.Equal(was) {
		return false
	}
	m.contact[h.Node] = last
	return now.Sub(was) > absence != (now.Sub(last) > absence)
}

// serveContact tells a peer with whom this node is in contact.
func (m *Mesh) serveContact(w http.ResponseWriter, r *http.Request) {
	if m.db.fenced.Load() {
		http.Error(w, "this node is taking a fresh copy itself", http.StatusServiceUnavailable)
		return
	}
	if s := m.session(FromPeer(r.Context()).NodeID); s != nil && s.peerFence == s.peer.Node {
		s.touch() // it begins a fresh copy, of what is here
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(m.standing())
}

// standing asks the peer for its own.
func (s *session) standing(ctx context.Context) (st standing, err error) {
	ctx, cancel := context.WithTimeout(ctx, stall)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://peer"+contactPath, nil)
	if err != nil {
		return st, err
	}
	res, err := s.client.RoundTrip(req)
	if err != nil {
		return st, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return st, fmt.Errorf("contact answered with %s", res.Status)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 4<<20)).Decode(&st); err != nil {
		return st, fmt.Errorf("contact: %w", err)
	}
	return st, checkCopies(st.Copies)
}

// keepHearing takes over, once an hour, with whom the peer is in contact: what
// it had then is here as soon as the two agree again.
func (s *session) keepHearing() {
	ctx, cancel := s.whileUp()
	defer cancel()
	for wait := time.Minute; s.pause(jitter(wait)); wait = keepEvery {
		st, err := s.standing(ctx)
		if err != nil {
			s.m.log.Debug("contact of the peer not heard", "peer", s.peer.Node, "err", err)
			continue
		}
		for heard := time.Now(); !s.agreedSince(heard); {
			if !s.pause(pingEvery) {
				return
			}
		}
		s.m.hearContact(st.Contact)
	}
}

// agreedSince says whether this node had all that the peer has, since then.
func (s *session) agreedSince(at time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.matched.After(at) || s.synced.After(at)
}

// hearContact takes over contact that another node has which this one agrees
// with.
func (m *Mesh) hearContact(theirs map[string]int64) {
	known := m.known()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, ms := range theirs {
		at := time.UnixMilli(ms)
		if _, ok := known[id]; ok && at.After(m.contact[id]) && at.Before(m.db.now().Add(maxAhead)) {
			m.contact[id] = at
		}
	}
}

// takeStanding makes the contact of a node this one took a fresh copy of its
// own, and stores it. at is when the copy was made.
func (m *Mesh) takeStanding(ctx context.Context, from string, at time.Time, st standing) error {
	m.mu.Lock()
	for id := range m.contact {
		m.contact[id] = time.UnixMilli(min(max(st.Contact[id], 1), at.UnixMilli())) // of none: long ago
	}
	m.contact[from] = at
	m.copies = append(st.Copies, copied{from, at.UnixMilli()})
	list := maps.Clone(m.contact)
	m.mu.Unlock()
	return m.db.keepContacts(ctx, list)
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

// contactWith is when there was contact with a node, and with how many lately.
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
