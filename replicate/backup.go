package replicate

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// A backup is a gzip stream of: one line of JSON (BackupInfo), every entry of
// the store as length, key, length, value (uvarints), a zero, the number of
// entries, and the SHA-256 of all before it.
const (
	backupFormat = 1
	maxStoreKey  = MaxKey + 256       // with the prefix of its space, or a writer
	maxStored    = 2*MaxValue + 4<<10 // a meeting holds two records
	maxInfo      = 4096
)

// A BackupInfo says what a backup is of.
type BackupInfo struct {
	Format  int       `json:"wuamesh_backup"`
	Schema  uint64    `json:"schema"`
	Node    string    `json:"node"`
	Made    time.Time `json:"made"`
	Entries int64     `json:"-"` // known at the end
}

// ErrBadBackup is what reading a backup returns that is cut short or was
// changed since it was made.
var ErrBadBackup = errors.New("the backup is damaged")

// Backup writes all that the store holds at one moment to w, and what is
// written meanwhile is not in it. It holds up nobody.
func (db *DB) Backup(ctx context.Context, w io.Writer) (BackupInfo, error) {
	info := BackupInfo{Format: backupFormat, Schema: schema, Node: db.node, Made: time.Now().UTC()}
	b := newBackupWriter(w)
	err := db.kv.View(func(txn *badger.Txn) error {
		if err := b.begin(info); err != nil {
			return err
		}
		it := txn.NewIterator(badger.IteratorOptions{PrefetchValues: true, PrefetchSize: 100})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			value, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			if err := b.entry(it.Item().Key(), value); err != nil {
				return err
			}
			info.Entries++
		}
		return b.end(info.Entries)
	})
	if err != nil {
		return info, fmt.Errorf("back up the store in %s: %w", db.dir, err)
	}
	return info, nil
}

// A backupWriter counts what it writes into the digest.
type backupWriter struct {
	zip *gzip.Writer
	buf *bufio.Writer
	sum hash.Hash
}

func newBackupWriter(w io.Writer) *backupWriter {
	b := &backupWriter{zip: gzip.NewWriter(w), sum: sha256.New()}
	b.buf = bufio.NewWriterSize(io.MultiWriter(b.zip, b.sum), 64<<10)
	return b
}

func (b *backupWriter) begin(info BackupInfo) error {
	line, err := json.Marshal(info)
	if err != nil {
		return err
	}
	_, err = b.buf.Write(append(line, '\n'))
	return err
}

func (b *backupWriter) entry(key, value []byte) error {
	for _, part := range [][]byte{key, value} {
		if _, err := b.buf.Write(binary.AppendUvarint(nil, uint64(len(part)))); err != nil {
			return err
		}
		if _, err := b.buf.Write(part); err != nil {
			return err
		}
	}
	return nil
}

func (b *backupWriter) end(entries int64) error {
	if _, err := b.buf.Write(binary.AppendUvarint([]byte{0}, uint64(entries))); err != nil {
		return err
	}
	if err := b.buf.Flush(); err != nil {
		return err
	}
	if _, err := b.zip.Write(b.sum.Sum(nil)); err != nil {
		return err
	}
	return b.zip.Close()
}

// VerifyBackup reads a backup to its end and says what it is of. ErrBadBackup
// is one that is not whole, ErrNewer one of a later version.
func VerifyBackup(r io.Reader) (BackupInfo, error) {
	return readBackup(r, func([]byte, []byte) error { return nil })
}

// readBackup calls put with every entry; only when it returns nil were they
// all right.
func readBackup(r io.Reader, put func(key, value []byte) error) (info BackupInfo, err error) {
	damaged := func(what string, err error) (BackupInfo, error) {
		return info, fmt.Errorf("%w: %s: %w", ErrBadBackup, what, err)
	}
	zip, err := gzip.NewReader(bufio.NewReaderSize(r, 64<<10))
	if err != nil {
		return damaged("it does not begin like one", err)
	}
	in := &summed{r: bufio.NewReaderSize(zip, 64<<10), sum: sha256.New()}
	line, err := in.line(maxInfo)
	if err != nil {
		return damaged("its first line", err)
	}
	if err := json.Unmarshal(line, &info); err != nil {
		return damaged("its first line", err)
	}
	if info.Format > backupFormat || info.Schema > schema {
		return info, fmt.Errorf("%w (format %d, schema %d)", ErrNewer, info.Format, info.Schema)
	}
	for {
		key, err := in.bytes(maxStoreKey)
		if err != nil {
			return damaged("key of an entry", err)
		}
		if len(key) == 0 {
			break
		}
		value, err := in.bytes(maxStored)
		if err != nil {
			return damaged("value of "+fmt.Sprintf("%.80q", key), err)
		}
		if err := put(key, value); err != nil {
			return info, err
		}
		info.Entries++
	}
	if n, err := binary.ReadUvarint(in); err != nil || n != uint64(info.Entries) {
		return damaged("its end", errors.Join(err, fmt.Errorf("it names %d entries and has %d", n, info.Entries)))
	}
	want, got := in.sum.Sum(nil), make([]byte, sha256.Size)
	if _, err := io.ReadFull(in.r, got); err != nil || !bytes.Equal(got, want) {
		return damaged("its digest", errors.Join(err, errors.New("it is another")))
	}
	if n, err := io.Copy(io.Discard, io.LimitReader(in.r, 1)); err != nil || n > 0 {
		return damaged("its end", errors.Join(err, errors.New("something follows")))
	}
	return info, nil
}

// summed reads, and counts what it read into the digest.
type summed struct {
	r   *bufio.Reader
	sum hash.Hash
}

// ReadByte implements [io.ByteReader].
func (s *summed) ReadByte() (byte, error) {
	c, err := s.r.ReadByte()
	if err == nil {
		s.sum.Write([]byte{c})
	}
	return c, err
}

func (s *summed) line(limit int) (line []byte, err error) {
	for len(line) < limit {
		c, err := s.ReadByte()
		if err != nil {
			return nil, err
		}
		if c == '\n' {
			return line, nil
		}
		line = append(line, c)
	}
	return nil, errors.New("it is too long")
}

func (s *summed) bytes(limit uint64) ([]byte, error) {
	n, err := binary.ReadUvarint(s)
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("%d bytes: %w", n, ErrTooLarge)
	}
	// It grows as it comes: a length alone takes no memory.
	var buf bytes.Buffer
	if _, err := io.CopyN(io.MultiWriter(&buf, s.sum), s.r, int64(n)); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// Restore makes a store in o.Dir, which must not exist, of the backup that
// open returns; it is read twice, first to check all of it. Whoever opens the
// store begins a new epoch, so it keeps its place in the mesh and repeats no
// sequence number: what the node wrote since the backup comes back from peers.
func Restore(o Options, open func() (io.ReadCloser, error)) (info BackupInfo, err error) {
	if _, err := os.Lstat(o.Dir); !errors.Is(err, os.ErrNotExist) {
		return info, fmt.Errorf("restore into %s: %w", o.Dir, errors.Join(err, os.ErrExist))
	}
	pass := func(read func(io.Reader) error) error {
		r, err := open()
		if err != nil {
			return err
		}
		return errors.Join(read(r), r.Close())
	}
	err = pass(func(r io.Reader) error {
		info, err = VerifyBackup(r)
		return err
	})
	if err != nil {
		return info, err
	}
	tmp := o.Dir + ".restoring"
	if err := errors.Join(os.RemoveAll(tmp), os.MkdirAll(tmp, 0o700)); err != nil {
		return info, fmt.Errorf("make %s: %w", tmp, err)
	}
	if err := pass(func(r io.Reader) error { return load(tmp, o.Log, r) }); err != nil {
		return info, errors.Join(fmt.Errorf("restore into %s: %w", o.Dir, err), os.RemoveAll(tmp))
	}
	return info, os.Rename(tmp, o.Dir)
}

func load(dir string, log *slog.Logger, r io.Reader) error {
	kv, err := badger.Open(badgerOptions(Options{Dir: dir}, log.With("part", "replicate")))
	if err != nil {
		return err
	}
	batch := kv.NewWriteBatch()
	_, err = readBackup(r, func(key, value []byte) error {
		if !knownSpace(string(key)) {
			return fmt.Errorf("%w: it has a key %.80q", ErrBadBackup, key)
		}
		return batch.Set(key, value)
	})
	if err != nil {
		batch.Cancel()
		return errors.Join(err, kv.Close())
	}
	return errors.Join(batch.Flush(), kv.Sync(), kv.Close())
}

// knownSpace says whether a key is in one of the spaces of the store: others
// nobody would ever read or delete.
func knownSpace(key string) bool {
	space, _, ok := strings.Cut(key, "/")
	return ok && len(space) == 1
}
