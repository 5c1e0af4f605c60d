package replicate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
)

const (
	// maxOffset is how far a clock may be off before its peers' is used.
	maxOffset = 10 * time.Minute
	// maxAhead is how far ahead of a node's time a record may be that it takes:
	// as far as two clocks may be apart that are both as wrong as is allowed.
	maxAhead = 2 * maxOffset
)

// ErrAhead is what taking records meets whose clocks are beyond the horizon:
// they would win every merge until time gets there.
var ErrAhead = errors.New("a clock is ahead")

// now is the time of this node, by its clock or, when that is known to be
// wrong, by its peers'.
func (db *DB) now() time.Time {
	if agreed := db.agreed.Load(); agreed != nil {
		return agreed.now()
	}
	return db.wall()
}

// horizon is the latest clock that is believed.
func (db *DB) horizon() Clock { return clockAt(db.now().Add(maxAhead)) }

// believe refuses a clock beyond the horizon.
func (db *DB) believe(c Clock) error {
	if c > db.horizon() {
		return fmt.Errorf("%w by %s", ErrAhead, c.Time().Sub(db.now()).Round(time.Second))
	}
	return nil
}

func (db *DB) believeAll(sets []ChangeSet) error {
	for _, cs := range sets {
		for _, c := range cs.Changes {
			if err := db.believe(c.Version.Clock); err != nil {
				return fmt.Errorf("change set %s/%d: %s: %w", cs.Writer, cs.End, c.Key, err)
			}
		}
	}
	return nil
}

// What one transaction of the store's own touches at most, about.
const (
	mendAtOnce = 200 // records
	mendBytes  = 256 << 10
)

// putRight takes back what was stamped while this node's clock was ahead,
// now that it is known to be right. What this node wrote beyond the horizon
// gets the time of now; what others wrote beyond it is dropped, and kept for
// review until they file it anew. What either replaced is not known any more,
// so the vector of all that others have is dropped, and they are asked for
// everything again. All that is held is filed under a new epoch of this node,
// whoever wrote it: of a log that no vector names any more nobody would send
// what is left, and when all nodes put right at once that is everything. Until
// the end nobody takes records of this node by sync, because its high-water
// mark is beyond their horizon.
func (db *DB) putRight(ctx context.Context) (done bool, err error) {
	p := &mending{}
	for more := true; more; {
		err := db.submit(&job{ctx: ctx, done: make(chan struct{}), write: func(b *batch, j *job) (err error) {
			if b.db.clock <= b.db.horizon() || b.db.fenced.Load() || !b.db.possible(b.db.now()) {
				more = false
				return nil
			}
			done = true
			more, err = p.step(b, j)
			return err
		}})
		if err != nil {
			return false, err
		}
	}
	return done, nil
}

// A mending goes over all records until it finds none to put right.
type mending struct {
	writer  string // the epoch that is right
	after   string // the key to go on from
	found   bool   // in this round
	highest Clock  // in this round
}

// step puts some records right and says whether there are more.
func (p *mending) step(b *batch, j *job) (more bool, err error) {
	if p.writer == "" {
		if err := b.newEpoch(); err != nil {
			return false, err
		}
		p.writer = b.db.writer
	}
	list, last, err := p.wrong(b)
	if err != nil {
		return false, err
	}
	if err := p.refile(b, j, list); err != nil {
		return false, err
	}
	p.found = p.found || len(list) > 0
	if last != "" {
		p.after = last
		return true, nil
	}
	if p.found {
		p.after, p.found, p.highest = "", false, 0
		return true, nil
	}
	b.db.clock = max(p.highest, clockAt(b.db.now()))
	b.forgetOthers()
	return false, nil
}

// wrong finds records that are not as they should be, some at a time; last is
// empty at the end of the round.
func (p *mending) wrong(b *batch) (list []change, last string, err error) {
	horizon, size := b.db.horizon(), 0
	it := b.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(recordPrefix), PrefetchValues: true, PrefetchSize: 100})
	defer it.Close()
	for it.Seek([]byte(recordPrefix + p.after)); it.Valid(); it.Next() {
		key := string(it.Item().KeyCopy(nil)[len(recordPrefix):])
		raw, err := it.Item().ValueCopy(nil)
		if err != nil {
			return nil, "", err
		}
		c, err := decodeChange(key, raw)
		if err != nil {
			return nil, "", err
		}
		if c.Version.Clock <= horizon {
			p.highest = max(p.highest, c.Version.Clock)
		}
		if c.Version.Clock <= horizon && c.Version.Writer == p.writer {
			continue
		}
		list = append(list, c)
		if size += len(raw); len(list) == mendAtOnce || size > mendBytes {
			return list, key, nil
		}
	}
	return list, "", nil
}

// refile puts records right.
func (p *mending) refile(b *batch, j *job, list []change) error {
	var kept []change
	horizon := b.db.horizon()
	for _, c := range list {
		if c.Version.Clock <= horizon || b.db.wrote(c.Version.Writer) {
			kept = append(kept, c)
			continue
		}
		if err := errors.Join(b.review(c), b.erase(c)); err != nil {
			return err
		}
		c.Deleted, c.Value = true, nil
		j.changes = append(j.changes, c)
	}
	if len(kept) == 0 {
		return nil
	}
	return b.file(j, kept)
}

// file puts records under this node's own log, whoever wrote them, with the
// time of now where theirs is beyond the horizon.
func (b *batch) file(j *job, list []change) error {
	horizon, now, writer := b.db.horizon(), clockAt(b.db.now())+1, b.db.writer
	cs := ChangeSet{Writer: writer, After: b.have(writer), End: b.db.seq + uint64(len(list))}
	for i, old := range list {
		c := change{old.Record, b.db.seq + uint64(i) + 1}
		c.Version.Writer = writer
		if old.Version.Clock > horizon {
			c.Version.Clock = now
		}
		if old.Version.Clock > horizon || !b.db.wrote(old.Version.Writer) {
			c.Saw = append([]Sighting{{nodeNumber(old.Version.Writer), old.Version.Clock}}, old.Saw[:min(len(old.Saw), maxSaw-1)]...)
		}
		if err := b.put(c, old, cs.End); err != nil {
			return err
		}
		j.changes = append(j.changes, c)
		cs.Changes = append(cs.Changes, Change{c.Record, c.seq})
	}
	b.db.seq, b.vector[writer] = cs.End, cs.End
	j.news = append(j.news, news{cs, false})
	return nil
}

// wrote says whether a writer is an epoch of this node.
func (db *DB) wrote(writer string) bool { return strings.HasPrefix(writer, db.node+".") }

// newEpoch begins one: what this node writes from now on is another log.
func (b *batch) newEpoch() error {
	b.db.writer, b.db.seq = b.db.newWriter(), 0
	return b.txn.Set([]byte(vectorPrefix+b.db.writer), make([]byte, 8))
}

// forgetOthers drops what the vector says of every log but this epoch's.
func (b *batch) forgetOthers() {
	own := b.have(b.db.writer)
	b.pending = map[string]pending{}
	for w := range b.db.vector {
		b.vector[w] = 0
	}
	for w := range b.vector {
		b.vector[w] = 0
	}
	if own > 0 {
		b.vector[b.db.writer] = own
	} else {
		delete(b.vector, b.db.writer)
	}
}
