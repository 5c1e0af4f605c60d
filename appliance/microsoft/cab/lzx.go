package cab

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// LZX as cabinets use it: Microsoft's "LZX Data Compression Format", also
// [MS-PATCH] section 2 without chunk headers and reference data. Traps and how
// they were found are in DESIGN.md.

var errLZX = fmt.Errorf("%w: the LZX data make no sense", ErrFormat)

const (
	lengthSymbols = 249
	mainBits      = 11 // first level of the tables
	lengthBits    = 9
	alignedBits   = 7
	preBits       = 8
	translated    = 32768 // frames that may have call targets translated

	blockVerbatim = 1
	blockAligned  = 2
	blockStored   = 3
)

// A position slot stands for a range of distances: where it begins, and how
// many bits say where in it.
var slotExtra, slotBase = positionSlots()

func positionSlots() (extra [50]uint8, base [51]uint32) {
	for i := range extra {
		switch {
		case i < 4:
		case i < 36:
			extra[i] = uint8(i/2 - 1)
		default:
			extra[i] = 17
		}
		base[i+1] = base[i] + 1<<extra[i]
	}
	return extra, base
}

// lzx unpacks the frames of one folder.
type lzx struct {
	window    int    // bytes
	buf       []byte // what was unpacked, at least a window of it, then the frame that is being
	pos       int
	total     int64 // bytes unpacked so far
	frames    int
	repeated  [3]uint32 // distances used last
	kind      uint32    // of the current block
	remaining int       // bytes of the current block
	padded    bool      // a stored block of odd length was the last
	began     bool      // the stream's header was read
	callSize  int32     // for the translation of calls; 0 for none
	calls     []byte    // the frame with calls translated back

	mainLens, lengthLens       []uint8
	main, length, aligned, pre huffman

	in    []byte // of the frame
	at    int
	acc   uint64 // bits, the next one on top
	n     uint   // valid bits in acc
	short int    // words taken past the end of in
}

// newLZX begins a folder; old may be an earlier folder's whose buffers are
// not needed any more.
func newLZX(windowBits int, old *lzx) (*lzx, error) {
	slots, ok := map[int]int{15: 30, 16: 32, 17: 34, 18: 36, 19: 38, 20: 42, 21: 50}[windowBits]
	if !ok {
		return nil, malformed("LZX with a window of 2^%d bytes", windowBits)
	}
	z := &lzx{window: 1 << windowBits, repeated: [3]uint32{1, 1, 1}, mainLens: make([]uint8, 256+8*slots), lengthLens: make([]uint8, lengthSymbols)}
	if old != nil {
		z.buf, z.calls = old.buf, old.calls
		z.main.table, z.length.table = old.main.table, old.length.table
	}
	if size := 2*z.window + frameSize; cap(z.buf) < size {
		z.buf = make([]byte, size)
	} else {
		z.buf = z.buf[:size]
	}
	return z, nil
}

// frame unpacks one block's data to n bytes.
func (z *lzx) frame(in []byte, n int) ([]byte, error) {
	z.in, z.at, z.acc, z.n, z.short = in, 0, 0, 0, 0
	if z.pos+n > len(z.buf) {
		copy(z.buf, z.buf[z.pos-z.window:z.pos])
		z.pos = z.window
	}
	if !z.began {
		z.began = true
		if z.get(1) == 1 {
			z.callSize = int32(z.get(16)<<16 | z.get(16))
		}
	}
	start, end := z.pos, z.pos+n
	for z.pos < end {
		if z.remaining == 0 {
			if err := z.startBlock(); err != nil {
				return nil, err
			}
		}
		if err := z.some(min(end-z.pos, z.remaining)); err != nil {
			return nil, err
		}
	}
	z.total += int64(n)
	z.frames++
	return z.untranslate(z.buf[start:end]), nil
}

// some unpacks n bytes of the current block.
func (z *lzx) some(n int) error {
	if n == 0 {
		return nil // a block of no bytes
	}
	z.remaining -= n
	if z.kind != blockStored {
		if err := z.symbols(z.pos + n); err != nil {
			return err
		}
		if z.short > 4 { // what is read ahead at the end is at most that
			return errLZX
		}
		return nil
	}
	if z.at < 0 || z.at+n > len(z.in) {
		return errLZX
	}
	copy(z.buf[z.pos:], z.in[z.at:z.at+n])
	z.pos += n
	z.at += n
	z.padded = z.remaining == 0 && n&1 == 1
	return nil
}

// startBlock reads a block's header: kind, length, and its trees or distances.
func (z *lzx) startBlock() error {
	if z.padded {
		z.at++
		z.padded = false
	}
	z.kind = z.get(3)
	z.remaining = int(z.get(16)<<8 | z.get(8))
	if z.short > 4 {
		return errLZX
	}
	switch z.kind {
	case blockAligned:
		var lens [8]uint8
		for i := range lens {
			lens[i] = uint8(z.get(3))
		}
		if err := z.aligned.build(lens[:], alignedBits, true); err != nil {
			return err
		}
		return z.trees()
	case blockVerbatim:
		return z.trees()
	case blockStored:
		return z.distances()
	}
	return errLZX
}

// trees reads the main tree, in two parts, and the tree of lengths.
func (z *lzx) trees() error {
	for _, part := range [][]uint8{z.mainLens[:256], z.mainLens[256:]} {
		if err := z.lengths(part); err != nil {
			return err
		}
	}
	if err := z.main.build(z.mainLens, mainBits, false); err != nil {
		return err
	}
	if err := z.lengths(z.lengthLens); err != nil {
		return err
	}
	return z.length.build(z.lengthLens, lengthBits, true)
}

// distances begins a stored block. Bits end at a word; a stream that is at a
// word's end already skips a whole one.
func (z *lzx) distances() error {
	z.at -= int(z.n / 16 * 2)
	if z.n%16 == 0 {
		z.at += 2
	}
	z.acc, z.n = 0, 0
	if z.at < 0 || z.at+12 > len(z.in) {
		return errLZX
	}
	for i := range z.repeated {
		z.repeated[i] = binary.LittleEndian.Uint32(z.in[z.at:])
		z.at += 4
	}
	return nil
}

// lengths reads code lengths: differences to the block before, run coded,
// under a tree of their own.
func (z *lzx) lengths(lens []uint8) error {
	var pre [20]uint8
	for i := range pre {
		pre[i] = uint8(z.get(4))
	}
	if err := z.pre.build(pre[:], preBits, false); err != nil {
		return err
	}
	for i := 0; i < len(lens); {
		sym, run, v := z.preSymbol(), 1, uint8(0)
		switch sym {
		case 17:
			run = 4 + int(z.get(4))
		case 18:
			run = 20 + int(z.get(5))
		default:
			if sym == 19 {
				run = 4 + int(z.get(1))
				if sym = z.preSymbol(); sym > 16 {
					return errLZX
				}
			}
			v = uint8((int(lens[i]) - int(sym) + 17) % 17)
		}
		if i+run > len(lens) {
			return errLZX
		}
		for range run {
			lens[i] = v
			i++
		}
	}
	return nil
}

func (z *lzx) preSymbol() uint32 {
	if z.n < longestCode {
		z.refill()
	}
	return z.symbol(&z.pre)
}

// symbols decodes until pos reaches stop: the hot loop, so its state is in
// locals and its cases are spelled out.
func (z *lzx) symbols(stop int) error {
	buf, pos := z.buf, z.pos
	r0, r1, r2 := z.repeated[0], z.repeated[1], z.repeated[2]
	for pos < stop {
		if z.n < 48 {
			z.refill()
		}
		s := z.symbol(&z.main)
		if s < 256 {
			buf[pos] = byte(s)
			pos++
			continue
		}
		s -= 256
		length := int(s&7) + 2
		if length == 9 {
			if z.length.empty {
				return errLZX
			}
			length += int(z.symbol(&z.length))
			if z.n < 24 {
				z.refill()
			}
		}
		var off uint32
		switch slot := s >> 3; slot {
		case 0:
			off = r0
		case 1:
			off, r1 = r1, r0
			r0 = off
		case 2:
			off, r2 = r2, r0
			r0 = off
		default:
			var err error
			if off, err = z.distance(slot); err != nil {
				return err
			}
			r2, r1, r0 = r1, r0, off
		}
		// Matches stay inside of the block and the frame, and do not reach
		// before the beginning of the stream.
		if pos+length > stop || off == 0 || int64(off) > int64(z.window) || int(off) > pos {
			return errLZX
		}
		from := pos - int(off)
		if int(off) >= length {
			copy(buf[pos:pos+length], buf[from:from+length])
		} else {
			for i := range length {
				buf[pos+i] = buf[from+i]
			}
		}
		pos += length
	}
	z.pos = pos
	z.repeated = [3]uint32{r0, r1, r2}
	return nil
}

// distance reads where in its slot a distance is.
func (z *lzx) distance(slot uint32) (uint32, error) {
	e, off := uint(slotExtra[slot]), slotBase[slot]-2
	if z.kind != blockAligned || e < 3 {
		return off + z.get(e), nil
	}
	if z.aligned.empty {
		return 0, errLZX
	}
	off += z.get(e-3) << 3
	if z.n < longestCode {
		z.refill()
	}
	return off + z.symbol(&z.aligned), nil
}

// refill tops acc up, eight bytes at a time where there are as many. Past the
// end come zeros, which are counted.
func (z *lzx) refill() {
	if z.at+8 <= len(z.in) {
		x := binary.LittleEndian.Uint64(z.in[z.at:]) // four words, each MSB first: turn their order
		x = x<<48 | x>>48 | x<<16&0x0000ffff00000000 | x>>16&0x00000000ffff0000
		k := (64 - z.n) / 16
		z.acc |= x >> z.n
		z.at += int(2 * k)
		z.n += 16 * k
		return
	}
	for z.n <= 48 {
		var w uint64
		switch {
		case z.at+1 < len(z.in):
			w = uint64(z.in[z.at]) | uint64(z.in[z.at+1])<<8
		case z.at < len(z.in):
			w = uint64(z.in[z.at])
		default:
			z.short++
		}
		z.at += 2
		z.acc |= w << (48 - z.n)
		z.n += 16
	}
}

func (z *lzx) get(n uint) uint32 {
	if n == 0 {
		return 0
	}
	if z.n < n {
		z.refill()
	}
	v := uint32(z.acc >> (64 - n))
	z.acc <<= n
	z.n -= n
	return v
}

// symbol decodes one; at least longestCode bits must be there.
func (z *lzx) symbol(h *huffman) uint32 {
	e := h.table[z.acc>>(64-h.bits)]
	if e&31 == secondLevel {
		e = h.table[uint64(e>>5)+z.acc<<h.bits>>(64-h.rest)]
	}
	l := uint(e & 31)
	z.acc <<= l
	z.n -= l
	return e >> 5
}

// untranslate undoes the x86 call translation of a frame, in a copy: the
// window keeps what was unpacked. Plain text has the byte 0xE8 too, in the
// UTF-8 of Chinese and Japanese titles, and is translated just the same.
func (z *lzx) untranslate(p []byte) []byte {
	const tail = 10 // bytes at the end of a frame that are never translated
	if z.callSize == 0 || z.frames > translated || len(p) <= tail {
		return p
	}
	first := bytes.IndexByte(p[:len(p)-tail], 0xE8)
	if first < 0 {
		return p
	}
	z.calls = append(z.calls[:0], p...)
	o, base := z.calls, int32(z.total)-int32(len(p))
	for i := first; i < len(o)-tail; i++ {
		if o[i] != 0xE8 {
			continue
		}
		at, target := base+int32(i), int32(binary.LittleEndian.Uint32(o[i+1:]))
		if target >= -at && target < z.callSize {
			rel := target - at
			if target < 0 {
				rel = target + z.callSize
			}
			binary.LittleEndian.PutUint32(o[i+1:], uint32(rel))
		}
		i += 4
	}
	return o
}
