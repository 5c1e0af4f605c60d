package swarm

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"syscall"
)

// PartialDir is the directory, below a folder, of files that are arriving.
const PartialDir = ".partial"

const journalExt = ".pieces"

// ErrWrong is a piece, or a whole file, that is not what its digest says.
var ErrWrong = errors.New("the digest is wrong")

// A FullError is a disk without room for what a file still needs.
type FullError struct{ Need int64 }

func (e *FullError) Error() string { return fmt.Sprintf("no room for %d bytes", e.Need) }

// A partial is a file that is arriving: the preallocated file named by its
// digest, and beside it a journal of the pieces that are there. A piece is
// written and synced before the journal names it, so what the journal names
// is there after a kill and after a power loss. Safe for concurrent use.
type partial struct {
	root *os.Root
	m    *Manifest
	file *os.File
	log  *os.File // nil for a draft: what came of it is found by its digests
	old  bool     // a draft of which an earlier try left something

	mu      sync.Mutex
	have    bitset
	order   []int32 // pieces as they came, for who follows along
	bytes   int64
	pending []int32 // written, not yet synced
	syncing bool
	synced  *sync.Cond
	broken  error // of a sync: nothing more is believed
}

// The journal: a header that names the manifest, then a record per piece.
// A record that was cut short or is damaged ends the journal.
const (
	journalMagic  = "wuapiec1"
	journalHeader = len(journalMagic) + sha256.Size
	journalRecord = 8 // piece number, CRC-32C of header's digest and number
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openPartial takes up the file where it was left, or begins it; room says
// whether the disk may take so many bytes more, nil for as many as there are.
func openPartial(root *os.Root, m *Manifest, room func(int64) bool) (_ *partial, err error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	if err := root.Mkdir(PartialDir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make %s: %w", PartialDir, err)
	}
	p := &partial{root: root, m: m, have: newBitset(len(m.Pieces))}
	p.synced = sync.NewCond(&p.mu)
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.file, err = root.OpenFile(p.path(), os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, fmt.Errorf("open the partial file: %w", err)
	}
	if p.log, err = root.OpenFile(p.path()+journalExt, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	if err := p.recover(); err != nil {
		return nil, err
	}
	return p, p.allocate(room)
}

// openDraft takes up or begins the file of a draft. Which pieces are there is
// found out when their digests are known.
func openDraft(root *os.Root, m *Manifest, room func(int64) bool) (*partial, error) {
	if err := root.Mkdir(PartialDir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make %s: %w", PartialDir, err)
	}
	p := &partial{root: root, m: m, have: newBitset(len(m.Pieces))}
	p.synced = sync.NewCond(&p.mu)
	var err error
	if p.file, err = root.OpenFile(p.path(), os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, fmt.Errorf("open the partial file: %w", err)
	}
	info, err := p.file.Stat()
	if err == nil {
		p.old = info.Size() > 0
		err = p.allocate(room)
	}
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// find looks whether a piece of a draft lies on the disk already.
func (p *partial) find(i int) bool {
	if !p.old {
		return false
	}
	b := make([]byte, p.m.Len(i))
	if _, err := p.file.ReadAt(b, int64(i)*p.m.PieceSize); err != nil || sha256.Sum256(b) != p.m.Pieces[i] {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.have.has(i) {
		p.note(i)
	}
	return true
}

// adopt makes a file that holds parts of the manifest's, at their places, its
// partial file: those pieces that are right are there, the rest is missing.
// The first of the names that there is is taken; a partial file that was begun
// already stays.
func adopt(ctx context.Context, root *os.Root, m *Manifest, names []string) error {
	p := &partial{root: root, m: m, have: newBitset(len(m.Pieces))}
	if _, err := root.Lstat(p.path()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range names {
		if err := root.Rename(name, p.path()); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return fmt.Errorf("take up %s: %w", name, err)
		}
		root.Remove(p.path() + journalExt) // of a file that is gone
		p, err := openPartial(root, m, nil)
		if err != nil {
			return err
		}
		p.mu.Lock()
		err = p.look(ctx)
		if err == nil {
			err = p.record(p.order)
		}
		p.mu.Unlock()
		return errors.Join(err, p.close())
	}
	return nil
}

// PartialPaths are the files, below the folder, in which a file of that digest
// arrives; a draft of that [DraftID] has the first one.
func PartialPaths(d Digest) []string {
	at := path.Join(PartialDir, d.String())
	return []string{at, at + journalExt}
}

func (p *partial) path() string { return path.Join(PartialDir, p.m.SHA256.String()) }

// recover reads the journal. One of another manifest is begun anew. A data
// file that is too short lost what lies beyond its end.
func (p *partial) recover() error {
	b, err := io.ReadAll(io.LimitReader(p.log, int64(journalHeader+2*MaxPieces*journalRecord)))
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	info, err := p.file.Stat()
	if err != nil {
		return fmt.Errorf("read the partial file: %w", err)
	}
	root := p.m.Root()
	header := append([]byte(journalMagic), root[:]...)
	if !bytes.HasPrefix(b, header) {
		if err := p.log.Truncate(0); err != nil {
			return fmt.Errorf("begin the journal: %w", err)
		}
		if _, err := p.log.WriteAt(header, 0); err != nil {
			return fmt.Errorf("begin the journal: %w", err)
		}
		_, err = p.log.Seek(int64(len(header)), io.SeekStart)
		return err
	}
	end := int64(len(header))
	for rest := b[len(header):]; len(rest) >= journalRecord; rest = rest[journalRecord:] {
		n := binary.BigEndian.Uint32(rest)
		if int64(n) >= int64(len(p.m.Pieces)) || binary.BigEndian.Uint32(rest[4:]) != p.sum(n) {
			break
		}
		end += journalRecord
		if i := int(n); !p.have.has(i) && int64(i)*p.m.PieceSize+p.m.Len(i) <= info.Size() {
			p.note(i)
		}
	}
	if err := p.log.Truncate(end); err != nil {
		return fmt.Errorf("cut the journal: %w", err)
	}
	_, err = p.log.Seek(end, io.SeekStart)
	return err
}

// sum guards a record; the manifest's digest in it keeps a journal from being
// taken for another's.
func (p *partial) sum(n uint32) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return crc32.Update(crc32.Checksum(p.m.SHA256[:], castagnoli), castagnoli, b[:])
}

func (p *partial) note(i int) {
	p.have.add(i)
	p.order = append(p.order, int32(i))
	p.bytes += p.m.Len(i)
}

// allocate reserves the disk's space, so that it is full now or not at all. A
// size that does not fit takes nothing, whoever said it.
func (p *partial) allocate(room func(int64) bool) error {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(p.file.Fd()), &st); err != nil {
		return fmt.Errorf("look at the partial file: %w", err)
	}
	need := p.m.Size - min(512*st.Blocks, st.Size)
	if need <= 0 {
		return nil
	}
	if room != nil && !room(need) {
		return &FullError{need}
	}
	err := syscall.Fallocate(int(p.file.Fd()), 0, 0, p.m.Size)
	switch {
	case isFull(err): // what it took before it found out is given back
		return errors.Join(&FullError{need}, p.file.Truncate(st.Size))
	case err != nil: // a file system without it: a sparse file does as well
		if err := p.file.Truncate(p.m.Size); err != nil {
			return fmt.Errorf("make the partial file as long as it will be: %w", err)
		}
	}
	return nil
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// write takes piece i in, when its digest is right; [ErrWrong] when not. It
// returns when the piece can be read; settle makes it durable. A piece that
// is there already is left alone.
func (p *partial) write(i int, b []byte) error {
	if int64(len(b)) != p.m.Len(i) || sha256.Sum256(b) != p.m.Pieces[i] {
		return fmt.Errorf("piece %d: %w", i, ErrWrong)
	}
	p.mu.Lock()
	there := p.have.has(i)
	p.mu.Unlock()
	if there {
		return nil
	}
	if _, err := p.file.WriteAt(b, int64(i)*p.m.PieceSize); err != nil {
		if isFull(err) {
			return &FullError{p.m.Size - p.bytes}
		}
		return fmt.Errorf("write piece %d: %w", i, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.have.has(i) {
		p.note(i)
		p.pending = append(p.pending, int32(i))
	}
	return nil
}

// settle returns when every piece written so far is on the disk and in the
// journal. Those who call it at the same time share one sync.
func (p *partial) settle() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.syncing {
		p.synced.Wait()
	}
	if p.broken != nil || len(p.pending) == 0 {
		return p.broken
	}
	list := p.pending
	p.pending, p.syncing = nil, true
	p.mu.Unlock()
	err := p.record(list)
	p.mu.Lock()
	p.syncing = false
	// After a failed sync the kernel may have dropped the pages: what is in
	// the journal is true, what is not is fetched again.
	p.broken = err
	p.synced.Broadcast()
	return err
}

func (p *partial) record(list []int32) error {
	if p.log == nil {
		return nil
	}
	if err := datasync(p.file); err != nil {
		return fmt.Errorf("sync the partial file: %w", err)
	}
	b := make([]byte, 0, len(list)*journalRecord)
	for _, i := range list {
		b = binary.BigEndian.AppendUint32(b, uint32(i))
		b = binary.BigEndian.AppendUint32(b, p.sum(uint32(i)))
	}
	if _, err := p.log.Write(b); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	if err := datasync(p.log); err != nil {
		return fmt.Errorf("sync the journal: %w", err)
	}
	return nil
}

func datasync(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := c.Control(func(fd uintptr) { err = syscall.Fdatasync(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// has says whether piece i can be read.
func (p *partial) has(i int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.have.has(i)
}

// since is the pieces that came after the first n, and how many there are.
func (p *partial) since(n int) []int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.order[min(n, len(p.order)):len(p.order):len(p.order)]
}

// prefix is how many bytes from the beginning are there.
func (p *partial) prefix() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.m.Pieces {
		if !p.have.has(i) {
			return int64(i) * p.m.PieceSize
		}
	}
	return p.m.Size
}

func (p *partial) complete() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.order) == len(p.m.Pieces)
}

// publish compares the whole file with its digests, makes it durable and
// renames it to name in the root. A file whose pieces are right and whose
// whole is wrong had a manifest that lies: it is thrown away, [ErrWrong].
func (p *partial) publish(ctx context.Context, name string) error {
	if err := p.settle(); err != nil {
		return err
	}
	whole, old := sha256.New(), sha1.New()
	r := &contextReader{ctx, io.NewSectionReader(p.file, 0, p.m.Size)}
	if _, err := io.CopyBuffer(io.MultiWriter(whole, old), r, make([]byte, 256<<10)); err != nil {
		return fmt.Errorf("read %s back: %w", name, err)
	}
	if Digest(whole.Sum(nil)) != p.m.SHA256 || [sha1.Size]byte(old.Sum(nil)) != p.m.SHA1 {
		return p.mend(ctx)
	}
	if err := p.file.Truncate(p.m.Size); err != nil {
		return fmt.Errorf("cut %s: %w", name, err)
	}
	if err := p.file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	if err := p.root.Rename(p.path(), name); err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	p.root.Remove(p.path() + journalExt)
	dir, err := p.root.Open(".")
	if err != nil {
		return fmt.Errorf("sync the folder: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync the folder: %w", err)
	}
	return nil
}

// errDamaged is a partial file of which the disk lost pieces; they are missing
// again.
var errDamaged = errors.New("the disk damaged the partial file")

// mend looks for the pieces that make the whole wrong and forgets them. When
// every piece is right the manifest lies, and nothing of the file is kept.
func (p *partial) mend(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.look(ctx); err != nil {
		return err
	}
	if len(p.order) == len(p.m.Pieces) {
		p.discard()
		return fmt.Errorf("every piece is right and the whole is not: %w", ErrWrong)
	}
	if err := p.log.Truncate(int64(journalHeader)); err != nil {
		return fmt.Errorf("cut the journal: %w", err)
	}
	if _, err := p.log.Seek(int64(journalHeader), io.SeekStart); err != nil {
		return fmt.Errorf("cut the journal: %w", err)
	}
	return errors.Join(errDamaged, p.record(p.order))
}

// look finds out by their digests which pieces are there. The lock is held.
func (p *partial) look(ctx context.Context) error {
	p.have, p.order, p.bytes, p.pending = newBitset(len(p.m.Pieces)), nil, 0, nil
	buf := make([]byte, p.m.PieceSize)
	for i := range p.m.Pieces {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:p.m.Len(i)]
		if _, err := p.file.ReadAt(b, int64(i)*p.m.PieceSize); err == nil && sha256.Sum256(b) == p.m.Pieces[i] {
			p.note(i)
		}
	}
	return nil
}

// discard removes file and journal.
func (p *partial) discard() {
	p.root.Remove(p.path())
	p.root.Remove(p.path() + journalExt)
}

func (p *partial) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.syncing {
		p.synced.Wait()
	}
	var errs []error
	for _, f := range []*os.File{p.file, p.log} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// A contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}
