package replicate

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"github.com/dgraph-io/badger/v4"
)

// A job is one change set on its way to the committer.
type job struct {
	ctx   context.Context
	fn    func(*Tx) error
	done  chan struct{}
	err   error
	panic any // what fn panicked with, for its caller
	// remote are change sets of other nodes instead of fn.
	remote  []ChangeSet
	portion *portion // of which they are, nil when they are as they were written
	awaits  bool     // what the portion's sender had is a target
	// write is work of the store's own instead of both.
	write func(*batch, *job) error
	// What it changed, in key order.
	changes []change
	news    []news // what of it other nodes may lack
}

// news is a change set that other nodes may lack.
type news struct {
	ChangeSet
	partial bool // something is left out of it: not to be passed on as it is
}

const (
	// maxBatch change sets share one fsync. More would only make the first
	// of them wait longer.
	maxBatch = 256
	// reserve is the free space below which nothing is written, opened or
	// closed: Badger writes through memory maps, and a full disk under one kills
	// the process.
	reserve = 32 << 20
)

// Update makes one change set of what fn writes. It is durable when Update
// returns nil; when fn returns an error or panics, nothing of it happened. fn
// runs exactly once, alone, and sees all earlier change sets; it must not call
// Update. Concurrent updates share an fsync.
func (db *DB) Update(ctx context.Context, fn func(*Tx) error) error {
	return db.submit(&job{ctx: ctx, fn: fn, done: make(chan struct{})})
}

func (db *DB) submit(j *job) error {
	select {
	case db.jobs <- j:
	case <-db.closing:
		return ErrClosed
	case <-j.ctx.Done():
		return j.ctx.Err()
	}
	<-j.done
	if j.panic != nil {
		panic(j.panic)
	}
	return j.err
}

// commitAll is the committer: it alone writes to the store.
func (db *DB) commitAll() {
	defer close(db.ended)
	for {
		select {
		case <-db.closing:
			return
		case j := <-db.jobs:
			db.commitBatch(j)
		}
	}
}

// commitBatch runs first and whoever else waits, and commits them together.
func (db *DB) commitBatch(first *job) {
	b := db.newBatch()
	defer func() { b.end() }()
	for j, n := first, 1; ; n++ {
		if b = b.add(j); n == maxBatch {
			return
		}
		select {
		case j = <-db.jobs:
		default:
			return
		}
	}
}

// A batch is one Badger transaction of several change sets.
type batch struct {
	db      *DB
	txn     *badger.Txn
	jobs    []*job
	entries int64
	bytes   int64
	vector  map[string]uint64  // entries that the batch moves
	live    map[string]int     // by how much it changes what is live of each log
	pending map[string]pending // all pending logs, nil when it changes none
	met     bool
}

func (db *DB) newBatch() *batch {
	return &batch{db: db, txn: db.kv.NewTransaction(true), vector: map[string]uint64{}, live: map[string]int{}}
}

// add runs j and takes its writes into the batch; it returns the batch to go
// on with, a new one when j did not fit any more.
func (b *batch) add(j *job) *batch {
	if err := j.ctx.Err(); err != nil {
		j.fail(err)
		return b
	}
	tx := &Tx{txn: b.txn, job: j, version: b.db.tick(), writes: map[string]write{}, local: map[string]write{}}
	if j.fn != nil && !j.run(tx) {
		return b
	}
	if err := b.refuse(j.remote); err != nil && j.write == nil {
		j.fail(err)
		return b
	}
	entries, size := j.weigh(tx)
	if entries >= b.db.kv.MaxBatchCount() || size >= b.db.kv.MaxBatchSize() {
		j.fail(fmt.Errorf("change set of %d records and %d bytes: %w for one transaction", entries, size, ErrTooLarge))
		return b
	}
	if b.entries+entries >= b.db.kv.MaxBatchCount() || b.bytes+size >= b.db.kv.MaxBatchSize() {
		b.end()
		b = b.db.newBatch()
	}
	b.entries, b.bytes = b.entries+entries, b.bytes+size
	if err := b.take(j, tx); err != nil {
		// Part of j may be in the transaction: none of the batch is committed.
		b.txn.Discard()
		for _, k := range append(b.jobs, j) {
			k.fail(err)
		}
		b.jobs = nil
		return b.db.newBatch()
	}
	b.jobs = append(b.jobs, j)
	return b
}

func (j *job) fail(err error) {
	j.err = err
	close(j.done)
}

// run calls the job's function and says whether it is to be committed.
func (j *job) run(tx *Tx) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			j.panic = p
			close(j.done)
			ok = false
		}
		tx.done = true
	}()
	if err := j.fn(tx); err != nil {
		j.fail(err)
		return false
	}
	return true
}

// weigh bounds what the job adds to a Badger transaction: every record is an
// entry of its own, one of the log, and one dropped from the log.
func (j *job) weigh(tx *Tx) (entries, size int64) {
	add := func(key string, value int) {
		entries += 3
		size += int64(3*(len(key)+96) + min(value, 64<<10))
	}
	if j.write != nil {
		entries, size = 5*mendAtOnce, 2*mendBytes
	}
	for _, cs := range j.remote {
		entries++
		size += 128
		for _, c := range cs.Changes {
			add(c.Key, len(c.Value))
		}
	}
	for k, w := range tx.writes {
		add(k, len(w.value))
	}
	for k, w := range tx.local {
		add(k, len(w.value))
	}
	return entries + 3, size + 512
}

// take writes the job's change set into the transaction.
func (b *batch) take(j *job, tx *Tx) error {
	if j.write != nil {
		return j.write(b, j)
	}
	for _, cs := range j.remote {
		if err := b.takeRemote(j, cs); err != nil {
			return err
		}
	}
	if j.portion != nil && j.portion.last {
		b.reached(j.portion.from)
	}
	for _, m := range tx.settled {
		if err := b.txn.Delete(meetingKey(m.Won.Key, m.Lost.Version)); err != nil {
			return fmt.Errorf("settle a meeting of %s: %w", m.Won.Key, err)
		}
	}
	for _, key := range tx.dismissed {
		if err := b.txn.Delete([]byte(reviewPrefix + key)); err != nil {
			return fmt.Errorf("dismiss %s: %w", key, err)
		}
	}
	return b.takeWrites(j, tx)
}

// takeWrites numbers what fn wrote and puts it into the log.
func (b *batch) takeWrites(j *job, tx *Tx) error {
	for k, w := range tx.local {
		if err := w.to(b.txn, localPrefix+k); err != nil {
			return err
		}
	}
	keys := slices.Sorted(maps.Keys(tx.writes))
	// Numbers of a batch that was not committed are not used again, so the
	// set follows what is stored, not the number before.
	cs := ChangeSet{Writer: b.db.writer, After: b.have(b.db.writer), End: b.db.seq + uint64(len(keys))}
	for i, k := range keys {
		w := tx.writes[k]
		before, err := b.current(k)
		if err != nil {
			return err
		}
		c := change{Record{Key: k, Value: w.value, Deleted: w.deleted, Version: tx.version}, b.db.seq + uint64(i) + 1}
		if before.Key != "" {
			c.Saw = sightings(b.db.writer, before.Record)
		}
		if err := b.put(c, before, cs.End); err != nil {
			return err
		}
		j.changes = append(j.changes, c)
		cs.Changes = append(cs.Changes, Change{c.Record, c.seq})
	}
	if len(keys) > 0 {
		b.db.seq = cs.End
		b.vector[b.db.writer] = cs.End
		j.news = append(j.news, news{cs, false})
	}
	return nil
}

// put stores a record and its log entry, and takes the entry of the version
// before out of the log: a log is as long as what is live of it.
func (b *batch) put(c, before change, end uint64) error {
	if before.Key != "" {
		if err := b.dropEntry(before.Version.Writer, before.seq); err != nil {
			return err
		}
	}
	if err := b.txn.Set([]byte(recordPrefix+c.Key), c.encode()); err != nil {
		return fmt.Errorf("write %s: %w", c.Key, err)
	}
	return b.putEntry(c, end)
}

func (b *batch) putEntry(c change, end uint64) error {
	entry := append(binary.BigEndian.AppendUint64(nil, end), c.Key...)
	if err := b.txn.Set(logKey(c.Version.Writer, c.seq), entry); err != nil {
		return fmt.Errorf("write %s: %w", c.Key, err)
	}
	b.live[c.Version.Writer]++
	return nil
}

func (b *batch) dropEntry(writer string, seq uint64) error {
	if err := b.txn.Delete(logKey(writer, seq)); err != nil {
		return fmt.Errorf("drop %s/%d from the log: %w", writer, seq, err)
	}
	b.live[writer]--
	return nil
}

// end commits the batch, tells followers, and lets every Update of it return.
func (b *batch) end() {
	if len(b.jobs) == 0 {
		b.txn.Discard()
		return
	}
	b.db.following.Lock()
	err := b.commit()
	if err == nil {
		b.db.moveVector(b.vector, b.live)
		if b.pending != nil {
			b.db.movePending(b.pending)
		}
		b.db.tell(b.jobs)
		if b.met {
			select {
			case b.db.met <- struct{}{}:
			default:
			}
		}
	} else {
		b.db.rereadVector() // Badger may have stored it in spite of its error
	}
	b.db.following.Unlock()
	for _, j := range b.jobs {
		j.err = err
		close(j.done)
	}
}

func (b *batch) commit() error {
	if err := b.db.Full(); err != nil {
		b.txn.Discard()
		return fmt.Errorf("write to %s: %w", b.db.dir, err)
	}
	for w, n := range b.vector {
		if n == 0 {
			if err := b.txn.Delete([]byte(vectorPrefix + w)); err != nil {
				b.txn.Discard()
				return fmt.Errorf("write the vector: %w", err)
			}
			continue
		}
		value := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, n), uint64(b.db.now().UnixMilli()))
		if err := b.txn.Set([]byte(vectorPrefix+w), value); err != nil {
			b.txn.Discard()
			return fmt.Errorf("write the vector: %w", err)
		}
	}
	if err := b.writePending(); err != nil {
		b.txn.Discard()
		return err
	}
	if err := b.txn.Set([]byte(clockKey), binary.BigEndian.AppendUint64(nil, uint64(b.db.clock))); err != nil {
		b.txn.Discard()
		return fmt.Errorf("write the clock: %w", err)
	}
	err := b.txn.Commit()
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("write to %s: %w: %w", b.db.dir, &FullError{Dir: b.db.dir, Need: reserve}, err)
	}
	if err != nil {
		return fmt.Errorf("write to %s: %w", b.db.dir, err)
	}
	return nil
}

func (db *DB) tell(jobs []*job) {
	for _, j := range jobs {
		if db.pass != nil && len(j.news) > 0 {
			db.pass(j.news)
		}
		if len(j.changes) == 0 {
			continue
		}
		list := make([]Record, len(j.changes))
		for i, c := range j.changes {
			list[i] = c.Record
		}
		for _, fn := range db.followers {
			fn(list)
		}
	}
}

// tick stamps the next change set: never backwards, whatever the wall clock
// does.
func (db *DB) tick() Version {
	db.clock = max(db.clock+1, clockAt(db.now()))
	return Version{db.clock, db.writer}
}

// A FullError says that the disk is too full to write to the store. Nothing
// was changed, and writes work again when there is space.
type FullError struct {
	Dir  string
	Free int64 // bytes
	Need int64 // bytes that have to be free
}

func (e *FullError) Error() string {
	return fmt.Sprintf("the disk is full: %d MB are free, %d MB have to be", e.Free>>20, e.Need>>20)
}

// Full is nil while there is room to write, and a [FullError] when not.
func (db *DB) Full() error { return full(db.dir) }

func full(dir string) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return nil // in memory, or a disk that does not tell: the write will
	}
	if free := int64(st.Bavail) * st.Bsize; free < reserve {
		return &FullError{dir, free, reserve}
	}
	return nil
}
