// Package cabtest writes Microsoft cabinets ([MS-CAB]) for tests and for the
// demonstration: stored, MSZIP and LZX folders, checksums, several folders when
// one would overflow. It never writes spanned sets or reserved areas; signing
// adds its own. Nothing in Debian writes LZX cabinets, which is why it exists;
// cabextract is its judge.
package cabtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"time"
)

// Method is the compression of a folder.
type Method int

// The compressions.
const (
	None  Method = iota
	MSZIP        // deflate with 32 KiB history, "CK" blocks
	LZX          // with a window of 2 MiB (LZX:21), as Microsoft's own
)

func (m Method) String() string { return [...]string{"stored", "mszip", "lzx"}[m] }

const (
	frame       = 32768 // uncompressed bytes per CFDATA
	maxBlocks   = 60000 // per folder; the field is 16 bits
	lzxWindow   = 21    // window bits
	maxCabBytes = 1<<32 - 1
)

type folder struct {
	blocks int
	offset int64 // of its first CFDATA inside the spool
}

type file struct {
	name         string
	size, offset uint32
	folder       int
	mod          time.Time
}

// compressor turns consecutive frames of one folder into CFDATA payloads.
// emit is called once per frame, in order; flush ends the folder.
type compressor interface {
	write(frame []byte, emit func(data []byte, uncomp int) error) error
	flush(emit func(data []byte, uncomp int) error) error
}

// Writer builds one cabinet. Compressed data is spooled (in memory, or in a
// temporary file with NewFileWriter) because the file table precedes it.
type Writer struct {
	dst     io.Writer
	method  Method
	spool   io.ReadWriter
	tmp     *os.File
	spooled int64
	folders []folder
	files   []file
	comp    compressor
	buf     []byte // pending frame
	inDir   int64  // uncompressed bytes in the current folder
	err     error
	SetID   uint16
}

// NewWriter spools in memory.
func NewWriter(dst io.Writer, m Method) *Writer {
	return &Writer{dst: dst, method: m, spool: new(bytes.Buffer), buf: make([]byte, 0, frame)}
}

// NewFileWriter spools in a temporary file in dir.
func NewFileWriter(dst io.Writer, m Method, dir string) (*Writer, error) {
	t, err := os.CreateTemp(dir, "cabspool")
	if err != nil {
		return nil, err
	}
	return &Writer{dst: dst, method: m, spool: t, tmp: t, buf: make([]byte, 0, frame)}, nil
}

func (w *Writer) newFolder() {
	w.folders = append(w.folders, folder{offset: w.spooled})
	w.inDir = 0
	switch w.method {
	case None:
		w.comp = store{}
	case MSZIP:
		w.comp = newMSZIP()
	case LZX:
		w.comp = newLZX(lzxWindow)
	}
}

// Create starts a file; what is written next belongs to it. Slashes become
// backslashes, as Microsoft's tools write them.
func (w *Writer) Create(name string, mod time.Time) error {
	if w.err != nil {
		return w.err
	}
	if len(w.files) == 65535 {
		return errors.New("cab: more than 65535 files")
	}
	// A folder is left before its CFDATA count can overflow; files do not
	// straddle folders unless one file alone is larger than a folder allows.
	if len(w.folders) == 0 || w.inDir > int64(maxBlocks-2000)*frame {
		if err := w.endFolder(); err != nil {
			return err
		}
		w.newFolder()
	}
	w.files = append(w.files, file{name: strings.ReplaceAll(name, "/", `\`),
		offset: uint32(w.inDir), folder: len(w.folders) - 1, mod: mod})
	return nil
}

func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if len(w.files) == 0 {
		return 0, errors.New("cab: Write before Create")
	}
	n := len(p)
	w.files[len(w.files)-1].size += uint32(n)
	w.inDir += int64(n)
	for len(p) > 0 {
		k := min(frame-len(w.buf), len(p))
		w.buf = append(w.buf, p[:k]...)
		p = p[k:]
		if len(w.buf) == frame {
			if w.err = w.comp.write(w.buf, w.emit); w.err != nil {
				return 0, w.err
			}
			w.buf = w.buf[:0]
		}
	}
	return n, nil
}

// Folder ends the current folder; the next file begins another.
func (w *Writer) Folder() error {
	if err := w.endFolder(); err != nil {
		return err
	}
	w.newFolder()
	return nil
}

func (w *Writer) endFolder() error {
	if len(w.folders) == 0 {
		return nil
	}
	if len(w.buf) > 0 {
		if err := w.comp.write(w.buf, w.emit); err != nil {
			return err
		}
		w.buf = w.buf[:0]
	}
	return w.comp.flush(w.emit)
}

func (w *Writer) emit(data []byte, uncomp int) error {
	f := &w.folders[len(w.folders)-1]
	if f.blocks++; f.blocks > 65535 {
		return errors.New("cab: too many data blocks in a folder")
	}
	var h [8]byte
	binary.LittleEndian.PutUint16(h[4:], uint16(len(data)))
	binary.LittleEndian.PutUint16(h[6:], uint16(uncomp))
	binary.LittleEndian.PutUint32(h[0:], checksum(h[4:8], checksum(data, 0)))
	w.spooled += int64(len(data)) + 8
	if _, err := w.spool.Write(h[:]); err != nil {
		return err
	}
	_, err := w.spool.Write(data)
	return err
}

// Close finishes the cabinet and writes it to the destination.
func (w *Writer) Close() error {
	if w.tmp != nil {
		defer os.Remove(w.tmp.Name())
		defer w.tmp.Close()
	}
	if w.err != nil {
		return w.err
	}
	if err := w.endFolder(); err != nil {
		return err
	}
	le := binary.LittleEndian
	var names bytes.Buffer
	for _, f := range w.files {
		var e [16]byte
		attr := uint16(0x20)
		for i := range len(f.name) {
			if f.name[i] >= 0x80 {
				attr |= 0x80 // name is UTF-8
			}
		}
		t := f.mod.UTC()
		le.PutUint32(e[0:], f.size)
		le.PutUint32(e[4:], f.offset)
		le.PutUint16(e[8:], uint16(f.folder))
		le.PutUint16(e[10:], uint16((max(t.Year(), 1980)-1980)<<9|int(t.Month())<<5|t.Day()))
		le.PutUint16(e[12:], uint16(t.Hour()<<11|t.Minute()<<5|t.Second()/2))
		le.PutUint16(e[14:], attr)
		names.Write(e[:])
		names.WriteString(f.name)
		names.WriteByte(0)
	}
	coff := 36 + 8*len(w.folders)
	data := int64(coff + names.Len())
	total := data + w.spooled
	if total > maxCabBytes {
		return errors.New("cab: larger than 4 GiB")
	}
	h := make([]byte, coff)
	copy(h, "MSCF")
	le.PutUint32(h[8:], uint32(total))
	le.PutUint32(h[16:], uint32(coff))
	h[24], h[25] = 3, 1
	le.PutUint16(h[26:], uint16(len(w.folders)))
	le.PutUint16(h[28:], uint16(len(w.files)))
	le.PutUint16(h[32:], w.SetID)
	typ := map[Method]uint16{None: 0, MSZIP: 1, LZX: 3 | lzxWindow<<8}[w.method]
	for i, f := range w.folders {
		le.PutUint32(h[36+8*i:], uint32(data+f.offset))
		le.PutUint16(h[40+8*i:], uint16(f.blocks))
		le.PutUint16(h[42+8*i:], typ)
	}
	if _, err := w.dst.Write(append(h, names.Bytes()...)); err != nil {
		return err
	}
	if w.tmp != nil {
		if _, err := w.tmp.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	_, err := io.Copy(w.dst, w.spool)
	return err
}

// checksum is the CFDATA checksum of [MS-CAB] 3.1.
func checksum(p []byte, seed uint32) uint32 {
	for ; len(p) >= 4; p = p[4:] {
		seed ^= binary.LittleEndian.Uint32(p)
	}
	var ul uint32
	switch len(p) {
	case 3:
		ul = uint32(p[0])<<16 | uint32(p[1])<<8 | uint32(p[2])
	case 2:
		ul = uint32(p[0])<<8 | uint32(p[1])
	case 1:
		ul = uint32(p[0])
	}
	return seed ^ ul
}

type store struct{}

func (store) write(p []byte, emit func([]byte, int) error) error { return emit(p, len(p)) }
func (store) flush(func([]byte, int) error) error                { return nil }
