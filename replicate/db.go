package replicate

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// Options say where a store is.
type Options struct {
	Dir string // made if missing, for its owner alone
	Log *slog.Logger
	// Meets chooses the keys of which it is worth knowing that two edits met;
	// nil for none. See Tx.Meetings.
	Meets func(key string) bool
	Now   func() time.Time // the wall clock; nil for the machine's

	// Of tests: many stores, with less memory and on no disk, and what they draw
	// ids from, nil for the system.
	small bool
	draw  io.Reader
}

// What opening and writing may meet.
var (
	ErrInUse = errors.New("another process holds the store")
	ErrNewer = errors.New("the store was written by a newer version of wuamesh")
	// ErrClosed is what Update returns once the store is closed.
	ErrClosed = errors.New("the store is closed")
)

// schema is raised when a store written by this version cannot be read by
// the one before.
const schema = 2

// Prefixes inside Badger; DESIGN.md has the layout.
const (
	recordPrefix  = "r/"
	logPrefix     = "o/"
	vectorPrefix  = "w/"
	localPrefix   = "l/"
	meetingPrefix = "c/"
	reviewPrefix  = "v/"
	contactPrefix = "n/"
	pendingPrefix = "p/"
	schemaKey     = "m/schema"
	nodeKey       = "m/node"
	fenceKey      = "m/fence"
	copiesKey     = "m/copies"
	clockKey      = "m/clock"
)

// DB is the store of one node. All methods may be called from any goroutine.
type DB struct {
	dir    string
	kv     *badger.DB
	log    *slog.Logger
	node   string
	writer string // node and epoch

	draw     io.Reader // ids
	wall     func() time.Time
	agreed   atomic.Pointer[reading] // of the peers' clocks, when wall is known to be wrong
	earliest time.Time               // no clock before is right
	meets    func(string) bool
	met      chan struct{}
	wins     func(a, b Record) bool // newer; tests break it

	jobs    chan *job
	closing chan struct{}
	ended   chan struct{}
	closed  sync.Once
	closeEr error

	// Of the committer alone.
	clock   Clock
	seq     uint64
	vector  map[string]uint64
	live    map[string]int // entries of each writer's log
	pending map[string]pending

	fenced atomic.Bool       // a fresh copy is due; see fence.go
	acked  map[string]uint64 // of own logs, what some other node has

	// following is held over each commit and what followers do with it, so
	// that a follower misses nothing and hears nothing twice.
	following sync.Mutex
	followers []func([]Record)
	pass      func([]news) // of the mesh: what others may lack
	vectorMu  sync.RWMutex
}

// Open opens the store in o.Dir and starts its committer. Close it in the end.
func Open(o Options) (*DB, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the store's directory: %w", err)
	}
	log := o.Log.With("part", "replicate")
	if err := full(o.Dir); err != nil && !o.small {
		return nil, fmt.Errorf("open the store in %s: %w", o.Dir, err)
	}
	kv, err := badger.Open(badgerOptions(o, log))
	if err != nil {
		if strings.Contains(err.Error(), "Cannot acquire directory lock") {
			return nil, fmt.Errorf("open the store in %s: %w; is another wuamesh running?", o.Dir, ErrInUse)
		}
		return nil, fmt.Errorf("open the store in %s: %w; if the disk is sound, restore a backup into an empty directory", o.Dir, err)
	}
	return openOn(kv, o)
}

// openOn makes the store of what Badger holds, as a new process does.
func openOn(kv *badger.DB, o Options) (*DB, error) {
	log := o.Log.With("part", "replicate")
	db := &DB{
		dir: o.Dir, kv: kv, log: log,
		jobs: make(chan *job), closing: make(chan struct{}), ended: make(chan struct{}),
		vector: map[string]uint64{}, live: map[string]int{}, acked: map[string]uint64{},
		draw: o.draw, wall: o.Now, meets: o.Meets, met: make(chan struct{}, 1), wins: newer,
	}
	if db.draw == nil {
		db.draw = rand.Reader
	}
	if db.wall == nil {
		db.wall = time.Now
	}
	if !o.small { // bubbles of synctest begin at 2000-01-01
		db.earliest = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	} else {
		db.earliest = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if err := db.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the store in %s: %w", o.Dir, err), kv.Close())
	}
	go db.commitAll()
	return db, nil
}

// badgerOptions keep an idle store small: defaults allocate 88 MB of heap.
// One committer writes, so conflicts cannot be and are not looked for.
func badgerOptions(o Options, log *slog.Logger) badger.Options {
	opt := badger.DefaultOptions(o.Dir).
		WithLogger(badgerLog{log}).
		WithSyncWrites(true).
		WithDetectConflicts(false).
		WithNumVersionsToKeep(1).
		WithMemTableSize(8 << 20).
		WithNumMemtables(2).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(6).
		WithNumCompactors(2).
		WithBaseTableSize(2 << 20).
		WithValueThreshold(64 << 10).
		WithValueLogFileSize(32 << 20).
		WithBlockCacheSize(4 << 20).
		WithIndexCacheSize(4 << 20).
		WithCompression(options.Snappy).
		WithMetricsEnabled(false)
	if o.small {
		opt = opt.WithDir("").WithValueDir("").WithInMemory(true).WithMemTableSize(4 << 20).WithBlockCacheSize(0).WithIndexCacheSize(0).WithCompression(options.None)
	}
	return opt
}

// prepare reads who this node is and begins a new epoch. No sequence number
// of an earlier epoch is ever used again, so a restored backup or a clone
// cannot write two different changes under one number.
func (db *DB) prepare() error {
	return db.kv.Update(func(txn *badger.Txn) error {
		if err := checkSchema(txn); err != nil {
			return err
		}
		node, err := db.ensureNode(txn)
		if err != nil {
			return err
		}
		db.node = node
		if db.clock, err = readClock(txn); err != nil {
			return err
		}
		if db.vector, err = readVector(txn); err != nil {
			return err
		}
		if db.pending, err = readPending(txn); err != nil {
			return err
		}
		if err := db.readFence(txn); err != nil {
			return err
		}
		db.count(txn)
		if err := db.forget(txn); err != nil {
			return err
		}
		db.writer = db.newWriter()
		return txn.Set([]byte(vectorPrefix+db.writer), make([]byte, 8))
	})
}

// readVector reads how much of each writer's log is here; epochs that wrote
// nothing are not in it.
func readVector(txn *badger.Txn) (map[string]uint64, error) {
	vector := map[string]uint64{}
	err := eachEntry(txn, func(writer string, n uint64, _ time.Time) {
		if n > 0 {
			vector[writer] = n
		}
	})
	return vector, err
}

// newWriter begins an epoch of this node.
func (db *DB) newWriter() string { return db.node + "." + db.newID(8) }

// newID draws an id of so many bytes.
func (db *DB) newID(size int) string {
	id := make([]byte, size)
	if _, err := io.ReadFull(db.draw, id); err != nil {
		panic(err) // the system has always more
	}
	return hex.EncodeToString(id)
}

// eachEntry calls fn with the entries of the vector and when each last moved,
// the zero time when that was not kept.
func eachEntry(txn *badger.Txn, fn func(writer string, n uint64, moved time.Time)) error {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(vectorPrefix), PrefetchValues: true, PrefetchSize: 100})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		writer := strings.TrimPrefix(string(it.Item().KeyCopy(nil)), vectorPrefix)
		b, err := it.Item().ValueCopy(nil)
		if err != nil || len(b) != 8 && len(b) != 16 {
			return fmt.Errorf("vector entry %s of %d bytes: %w", writer, len(b), cmp.Or(err, errCut))
		}
		moved := time.Time{}
		if len(b) == 16 {
			moved = time.UnixMilli(int64(binary.BigEndian.Uint64(b[8:])))
		}
		fn(writer, binary.BigEndian.Uint64(b), moved)
	}
	return nil
}

// count counts what is live of each log.
func (db *DB) count(txn *badger.Txn) {
	logs := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(logPrefix)})
	defer logs.Close()
	for logs.Rewind(); logs.Valid(); logs.Next() {
		writer, _, _ := strings.Cut(string(logs.Item().Key()[len(logPrefix):]), "/")
		db.live[writer]++
	}
}

// forgetAfter is how long a writer is remembered of whom nothing is live:
// longer than any node may be away.
const forgetAfter = 2 * tombstoneAge

// forget removes writers that wrote nothing, and those of whom nothing is live
// for long. Should one of their sets come again it is merged again, to no
// effect.
func (db *DB) forget(txn *badger.Txn) error {
	var gone []string
	err := eachEntry(txn, func(writer string, n uint64, moved time.Time) {
		if n == 0 || db.live[writer] == 0 && !moved.IsZero() && db.now().Sub(moved) > forgetAfter {
			gone = append(gone, writer)
		}
	})
	if err != nil {
		return err
	}
	for _, writer := range gone {
		if err := txn.Delete([]byte(vectorPrefix + writer)); err != nil {
			return err
		}
		delete(db.vector, writer)
	}
	return nil
}

func checkSchema(txn *badger.Txn) error {
	item, err := txn.Get([]byte(schemaKey))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return txn.Set([]byte(schemaKey), binary.BigEndian.AppendUint64(nil, schema))
	}
	if err != nil {
		return err
	}
	n, err := number(item)
	if err == nil && n < schema {
		return txn.Set([]byte(schemaKey), binary.BigEndian.AppendUint64(nil, schema))
	}
	if err == nil && n > schema {
		return fmt.Errorf("%w (its schema is %d, this one knows %d); install that version again", ErrNewer, n, schema)
	}
	return err
}

func (db *DB) ensureNode(txn *badger.Txn) (string, error) {
	item, err := txn.Get([]byte(nodeKey))
	if errors.Is(err, badger.ErrKeyNotFound) {
		node := db.newID(16)
		return node, txn.Set([]byte(nodeKey), []byte(node))
	}
	if err != nil {
		return "", err
	}
	b, err := item.ValueCopy(nil)
	return string(b), err
}

func readClock(txn *badger.Txn) (Clock, error) {
	item, err := txn.Get([]byte(clockKey))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := number(item)
	return Clock(n), err
}

func number(item *badger.Item) (n uint64, err error) {
	err = item.Value(func(b []byte) error {
		if len(b) != 8 {
			return fmt.Errorf("%s holds %d bytes, not a number", item.Key(), len(b))
		}
		n = binary.BigEndian.Uint64(b)
		return nil
	})
	return n, err
}

// NodeID is the identity of this node: 128 random bits, hexadecimal, made at
// the first Open.
func (db *DB) NodeID() string { return db.node }

// Size is what the store takes on disk, in bytes.
func (db *DB) Size() int64 {
	lsm, vlog := db.kv.Size()
	return lsm + vlog
}

// Run gives space of old values back until ctx ends.
func (db *DB) Run(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-db.ended:
			return ErrClosed
		case <-tick.C:
			db.collectGarbage(ctx)
		}
	}
}

// collectGarbage gives space of old values back to the disk.
func (db *DB) collectGarbage(ctx context.Context) {
	for ctx.Err() == nil && db.Full() == nil { // it writes what is left of them first
		err := db.kv.RunValueLogGC(0.5)
		if err == nil {
			continue
		}
		if !errors.Is(err, badger.ErrNoRewrite) && !errors.Is(err, badger.ErrRejected) && !errors.Is(err, badger.ErrGCInMemoryMode) {
			db.log.WarnContext(ctx, "space of old values not given back, trying again later", "err", err)
		}
		return
	}
}

// Close ends the committer and closes the store. Updates that wait get
// ErrClosed; those whose commit began are finished. It may be called twice.
// On a full disk the store is left as a killed process leaves it, locked until
// this process ends: everything acknowledged is in its log, which the next
// Open reads.
func (db *DB) Close() error {
	db.closed.Do(func() {
		close(db.closing)
		<-db.ended
		if err := db.Full(); err != nil {
			db.log.Warn("store not closed, the next start reads its log", "path", db.dir, "err", err)
			return
		}
		if err := db.kv.Close(); err != nil {
			db.closeEr = fmt.Errorf("close the store in %s: %w", db.dir, err)
		}
	})
	return db.closeEr
}

// View calls fn with the store as it is now, whatever is written meanwhile.
func (db *DB) View(ctx context.Context, fn func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return db.kv.View(func(txn *badger.Txn) error { return fn(&Tx{txn: txn, version: Version{Clock: clockAt(db.now())}}) })
}

// Follow calls fn with every live record, in several calls, and from then on
// with what each change set changed, deletions too, in the order of commits
// and before the Update that made it returns. fn must not call Update.
func (db *DB) Follow(fn func([]Record)) error {
	db.following.Lock()
	defer db.following.Unlock()
	err := db.View(context.Background(), func(tx *Tx) error {
		var batch []Record
		for r, err := range tx.Scan("") {
			if err != nil {
				return err
			}
			if batch = append(batch, r); len(batch) == 1000 {
				fn(batch)
				batch = nil
			}
		}
		if len(batch) > 0 {
			fn(batch)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read every record: %w", err)
	}
	db.followers = append(db.followers, fn)
	return nil
}

// badgerLog hands Badger's warnings to our log; the rest is chatter.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(f string, a ...any)   { l.say(slog.LevelError, f, a) }
func (l badgerLog) Warningf(f string, a ...any) { l.say(slog.LevelWarn, f, a) }
func (l badgerLog) Infof(string, ...any)        {}
func (l badgerLog) Debugf(string, ...any)       {}

func (l badgerLog) say(level slog.Level, format string, args []any) {
	l.log.Log(context.Background(), level, "badger says", "text", strings.TrimSpace(fmt.Sprintf(format, args...)))
}
