// Package cab reads Microsoft cabinets ([MS-CAB]) as a forward-only stream, so
// that a cabinet inside a cabinet needs no temporary file: a [Reader] is an
// io.Reader of its current member, and the next Reader reads from that.
//
// Stored, MSZIP and LZX folders are understood; Quantum and cabinets that
// span several files are not. Everything a cabinet says of itself is held
// against what arrives: sizes, offsets, checksums, names.
package cab

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
	"unicode/utf8"
)

// ErrFormat is what every complaint about a cabinet's form wraps.
var ErrFormat = errors.New("not a sound cabinet")

// ErrTooLarge is what every complaint about a limit wraps.
var ErrTooLarge = errors.New("the cabinet unpacks to more than is allowed")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
}

// frameSize is how much one block unpacks to, the last of a folder excepted.
const frameSize = 32 << 10

// headerSize is that of the fixed part, CFHEADER.
const headerSize = 36

// A File is one member.
type File struct {
	Name     string    // with slashes; a valid relative path without "..", see fs.ValidPath
	Size     int64     // bytes, unpacked
	Modified time.Time // whole two seconds, in a time zone nobody told
	folder   int
	offset   int64 // in what the folder unpacks to
}

// Options bound what a cabinet may unpack to, in bytes; 0 is no bound of
// ours, and what the format itself can say remains: 2 GiB for each folder.
type Options struct {
	Member int64 // one member
	Total  int64 // all members together
}

// A Reader gives a cabinet's members in the order of their data. It is used by
// one goroutine at a time.
type Reader struct {
	opts    Options
	r       *bufio.Reader
	off     int64 // bytes taken from r
	size    int64 // of the cabinet as it says itself, without a signature behind it
	files   []File
	folders []folder
	reserve int // bytes of application data in each block's header

	next  int // index of the next member
	at    int // index of the open folder, -1 for none
	block int // of the open folder, how many were read
	dec   decoder
	out   []byte // unpacked, not yet returned
	pos   int64  // of out[0] in what the folder unpacks to
	left  int64  // of the current member
	in    []byte
	err   error // sticks: a decoder that failed has no usable state
	lzx   *lzx  // kept for its window
}

type folder struct {
	start  int64
	blocks int
	method uint16
}

// A decoder unpacks the blocks of one folder. What it returns is good until
// the next call.
type decoder interface {
	frame(in []byte, n int) ([]byte, error)
}

// NewReader reads header and tables of a cabinet. A signature behind it, or
// anything else, is not looked at.
func NewReader(r io.Reader, o Options) (*Reader, error) {
	c := new(Reader)
	return c, c.Reset(r, o)
}

// Reset makes the Reader one of another cabinet and keeps its buffers.
func (c *Reader) Reset(r io.Reader, o Options) error {
	buf := c.r
	if buf == nil {
		buf = bufio.NewReaderSize(r, 128<<10)
	} else {
		buf.Reset(r)
	}
	*c = Reader{opts: o, r: buf, in: c.in, lzx: c.lzx, files: c.files[:0], folders: c.folders[:0], at: -1, size: headerSize}
	if err := c.header(); err != nil {
		return err
	}
	return c.limits()
}

// Files are all members. The slice is the Reader's own.
func (c *Reader) Files() []File { return c.files }

// Size is that of the cabinet in bytes as its header says: where a signature
// would begin.
func (c *Reader) Size() int64 { return c.size }

// header reads CFHEADER, CFFOLDERs and CFFILEs ([MS-CAB] 2.1 to 2.3).
func (c *Reader) header() error {
	h, err := c.take(headerSize)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	if string(h[:4]) != "MSCF" {
		return malformed("it begins with %q, not MSCF", h[:4])
	}
	if h[25] != 1 || h[24] > 3 {
		return malformed("version %d.%d, want 1.3", h[25], h[24])
	}
	size, filesAt := int64(le.Uint32(h[8:])), int64(le.Uint32(h[16:]))
	folders, files, flags := int(le.Uint16(h[26:])), int(le.Uint16(h[28:])), le.Uint16(h[30:])
	if flags&^7 != 0 || flags&3 != 0 {
		return malformed("it is one part of several")
	}
	c.size = size
	perFolder := 8
	if flags&4 != 0 {
		if h, err = c.take(4); err != nil {
			return err
		}
		skip := int64(le.Uint16(h))
		perFolder += int(h[2])
		c.reserve = int(h[3])
		if err := c.skipTo(c.off + skip); err != nil {
			return err
		}
	}
	for range folders {
		if h, err = c.take(perFolder); err != nil {
			return err
		}
		c.folders = append(c.folders, folder{int64(le.Uint32(h)), int(le.Uint16(h[4:])), le.Uint16(h[6:])})
	}
	if err := c.skipTo(filesAt); err != nil {
		return err
	}
	for range files {
		if err := c.file(); err != nil {
			return err
		}
	}
	return nil
}

// file reads one CFFILE.
func (c *Reader) file() error {
	h, err := c.take(16)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	f := File{
		Size: int64(le.Uint32(h)), offset: int64(le.Uint32(h[4:])), folder: int(le.Uint16(h[8:])),
		Modified: dosTime(le.Uint16(h[10:]), le.Uint16(h[12:])),
	}
	if f.Name, err = c.name(); err != nil {
		return err
	}
	if f.folder >= len(c.folders) {
		return malformed("%q lies in folder %d of %d", f.Name, f.folder, len(c.folders))
	}
	if n := len(c.files); n > 0 {
		before := c.files[n-1]
		if f.folder < before.folder || f.folder == before.folder && f.offset < before.offset+before.Size {
			return malformed("%q overlaps or comes before %q", f.Name, before.Name)
		}
	}
	c.files = append(c.files, f)
	return nil
}

// name reads a member's name up to its NUL. Without the flag for UTF-8 it is
// in a code page nobody tells; then bytes are taken as Latin-1.
func (c *Reader) name() (string, error) {
	const longest = 256
	b, err := c.r.ReadSlice(0)
	c.off += int64(len(b))
	if err != nil || len(b) > longest || c.off > c.size {
		return "", malformed("a name without end")
	}
	name := strings.ReplaceAll(string(b[:len(b)-1]), `\`, "/")
	if !utf8.ValidString(name) {
		r := make([]rune, len(name))
		for i := range len(name) {
			r[i] = rune(name[i])
		}
		name = string(r)
	}
	if !fs.ValidPath(name) || name == "." {
		return "", malformed("%q is no name of a member", name)
	}
	return name, nil
}

// limits holds the tables against the options.
func (c *Reader) limits() error {
	var total int64
	for _, f := range c.files {
		if c.opts.Member > 0 && f.Size > c.opts.Member {
			return fmt.Errorf("%w: %s has %d bytes, at most %d are", ErrTooLarge, f.Name, f.Size, c.opts.Member)
		}
		total += f.Size
	}
	if c.opts.Total > 0 && total > c.opts.Total {
		return fmt.Errorf("%w: %d bytes, at most %d are", ErrTooLarge, total, c.opts.Total)
	}
	return nil
}

func dosTime(date, clock uint16) time.Time {
	return time.Date(1980+int(date>>9), time.Month(date>>5&15), int(date&31), int(clock>>11), int(clock>>5&63), int(clock&31)*2, 0, time.UTC)
}

// take reads n bytes; they are good until the next call.
func (c *Reader) take(n int) ([]byte, error) {
	if c.off+int64(n) > c.size {
		return nil, malformed("it goes on after its %d bytes", c.size)
	}
	if cap(c.in) < n {
		c.in = make([]byte, max(n, 64<<10))
	}
	b := c.in[:n]
	k, err := io.ReadFull(c.r, b)
	c.off += int64(k)
	return b, unexpected(err)
}

func (c *Reader) skipTo(off int64) error {
	if off < c.off || off > c.size {
		return malformed("offset %d lies outside of it or is behind", off)
	}
	n, err := io.CopyN(io.Discard, c.r, off-c.off)
	c.off += n
	return unexpected(err)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Next goes on to the next member, over what is left of the current one;
// io.EOF says there is none.
func (c *Reader) Next() (File, error) {
	if c.next == len(c.files) {
		return File{}, io.EOF
	}
	f := c.files[c.next]
	if f.folder != c.at && (c.err == nil || c.err == io.EOF) {
		c.err = c.open(f.folder)
	}
	if c.err != nil && c.err != io.EOF {
		return File{}, c.err
	}
	for c.pos < f.offset {
		if err := c.fill(); err != nil {
			return File{}, fmt.Errorf("skip to %s: %w", f.Name, unexpected(err))
		}
		k := min(int64(len(c.out)), f.offset-c.pos)
		c.out, c.pos = c.out[k:], c.pos+k
	}
	c.next++
	c.left = f.Size
	return f, nil
}

// Read reads from the current member.
func (c *Reader) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	if err := c.fill(); err != nil {
		return 0, unexpected(err)
	}
	n := int(min(int64(len(p)), int64(len(c.out)), c.left))
	copy(p, c.out[:n])
	c.out, c.pos, c.left = c.out[n:], c.pos+int64(n), c.left-int64(n)
	return n, nil
}

// open begins a folder.
func (c *Reader) open(i int) error {
	f := c.folders[i]
	if err := c.skipTo(f.start); err != nil {
		return err
	}
	c.at, c.block, c.out, c.pos = i, 0, nil, 0
	switch f.method & 15 {
	case 0:
		c.dec = stored{}
	case 1:
		c.dec = new(mszip)
	case 3:
		z, err := newLZX(int(f.method>>8&31), c.lzx)
		if err != nil {
			return err
		}
		c.dec, c.lzx = z, z
	default:
		return malformed("compression %d is not understood", f.method&15)
	}
	return nil
}

// fill makes sure that something unpacked is there.
func (c *Reader) fill() error {
	for len(c.out) == 0 {
		if c.err == nil {
			c.err = c.frame()
		}
		if c.err != nil {
			return c.err
		}
	}
	return nil
}

// frame unpacks the next block, CFDATA ([MS-CAB] 2.4).
func (c *Reader) frame() error {
	f := c.folders[c.at]
	if c.block == f.blocks {
		return io.EOF
	}
	c.block++
	const longest = 8 + 255
	h, err := c.take(8 + c.reserve)
	if err != nil {
		return err
	}
	sum, packed, n := binary.LittleEndian.Uint32(h), int(binary.LittleEndian.Uint16(h[4:])), int(binary.LittleEndian.Uint16(h[6:]))
	if n == 0 || n > frameSize {
		return malformed("block %d unpacks to %d bytes", c.block, n)
	}
	var sized [longest]byte
	rest := sized[:copy(sized[:], h[4:])]
	in, err := c.take(packed)
	if err != nil {
		return err
	}
	if sum != 0 && checksum(rest, checksum(in, 0)) != sum {
		return malformed("block %d has another checksum", c.block)
	}
	c.out, err = c.dec.frame(in, n)
	return err
}

// stored is the decoder of folders that are not compressed.
type stored struct{}

func (stored) frame(in []byte, n int) ([]byte, error) {
	if len(in) != n {
		return nil, malformed("a stored block of %d bytes says %d", len(in), n)
	}
	return in, nil
}

// checksum is CFDATA's ([MS-CAB] 3.1): XOR of little-endian words, the last
// bytes the other way round. It takes 32 bytes a turn.
func checksum(p []byte, seed uint32) uint32 {
	var a uint64
	for ; len(p) >= 32; p = p[32:] {
		a ^= binary.LittleEndian.Uint64(p) ^ binary.LittleEndian.Uint64(p[8:]) ^
			binary.LittleEndian.Uint64(p[16:]) ^ binary.LittleEndian.Uint64(p[24:])
	}
	seed ^= uint32(a) ^ uint32(a>>32)
	for ; len(p) >= 4; p = p[4:] {
		seed ^= binary.LittleEndian.Uint32(p)
	}
	rest := uint32(0)
	for _, b := range p {
		rest = rest<<8 | uint32(b)
	}
	return seed ^ rest
}
