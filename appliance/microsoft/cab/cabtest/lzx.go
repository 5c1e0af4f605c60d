package cabtest

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

// An LZX encoder for cabinets, written from the public format description
// (Microsoft "LZX Data Compression Format", [MS-PATCH] 2). Nothing in Debian
// writes LZX cabinets. It favours simplicity: blocks of up to 8 frames of verbatim, aligned or uncompressed
// kind. x86 call (E8) translation is on, as in Microsoft's cabinets: it also
// hits plain data that happens to contain the byte 0xE8.

const (
	lenSyms      = 249
	blockFrames  = 8
	maxCodeBits  = 16
	maxPreBits   = 15 // pretree lengths are 4-bit fields
	maxAlignBits = 7
	e8Size       = 12000000
	e8Frames     = 32768 // only the first GiB is translated
)

var (
	slotExtra [50]uint8  // footer bits of a position slot
	slotBase  [51]uint32 // first formatted offset of a slot
)

func init() {
	for i := range slotExtra {
		switch {
		case i < 4:
		case i < 36:
			slotExtra[i] = uint8(i/2 - 1)
		default:
			slotExtra[i] = 17
		}
		slotBase[i+1] = slotBase[i] + 1<<slotExtra[i]
	}
}

// slotOf returns the position slot of a formatted offset.
func slotOf(f uint32) int {
	if f < 4 {
		return int(f)
	}
	if f >= 1<<18 { // constant width slots
		return int(f>>17) + 34
	}
	n := bits.Len32(f) - 1
	return 2*n + int(f>>(n-1)&1)
}

type lzx struct {
	matcher
	nMain   int
	frames  int
	oldMain []uint8
	oldLen  []uint8
	bw      bitWriter
}

func newLZX(windowBits int) *lzx {
	slots := map[int]int{15: 30, 16: 32, 17: 34, 18: 36, 19: 38, 20: 42, 21: 50}[windowBits]
	z := &lzx{nMain: 256 + 8*slots}
	z.init(windowBits)
	z.r = [3]uint32{1, 1, 1}
	return z
}

func (z *lzx) write(p []byte, emit func([]byte, int) error) error {
	z.hist = append(z.hist, p...)
	if z.frames < e8Frames {
		e8(z.hist[len(z.hist)-len(p):], int32(z.frames)*frame)
	}
	z.frames++
	z.frameEnds = append(z.frameEnds, len(z.hist))
	if len(z.frameEnds) == blockFrames {
		return z.flush(emit)
	}
	return nil
}

// e8 turns relative call targets into absolute ones; base is the position of
// the frame in the folder.
func e8(p []byte, base int32) {
	for i := 0; i < len(p)-10; i++ {
		if p[i] != 0xE8 {
			continue
		}
		cur, rel := base+int32(i), int32(binary.LittleEndian.Uint32(p[i+1:]))
		switch {
		case rel >= -cur && rel < e8Size-cur:
			binary.LittleEndian.PutUint32(p[i+1:], uint32(rel+cur))
		case rel >= e8Size-cur && rel < e8Size:
			binary.LittleEndian.PutUint32(p[i+1:], uint32(rel-e8Size))
		}
		i += 4
	}
}

// flush encodes the pending frames as one block.
func (z *lzx) flush(emit func([]byte, int) error) error {
	if len(z.frameEnds) == 0 {
		return nil
	}
	var err error
	if incompressible(z.hist[z.start:]) {
		z.preamble()
		err = z.stored(emit)
		z.inserted = len(z.hist) // no matches into it
	} else {
		r0 := z.r
		toks, ends := z.parse()
		err = z.block(toks, ends, r0, emit)
	}
	z.done()
	return err
}

func split(t token) (mainSym int, lenSym int, slot int) {
	slot = slotOf(t.val)
	l := int(t.len) - 2
	return 256 + slot<<3 + min(l, 7), l - 7, slot
}

func (z *lzx) block(toks []token, ends []int, r0 [3]uint32, emit func([]byte, int) error) error {
	fMain := make([]uint32, z.nMain)
	fLen := make([]uint32, lenSyms)
	fAlign := make([]uint32, 8)
	footer := 0
	for _, t := range toks {
		if t.len == 0 {
			fMain[t.val]++
			continue
		}
		m, l, s := split(t)
		fMain[m]++
		if l >= 0 {
			fLen[l]++
		}
		if e := int(slotExtra[s]); e >= 3 {
			fAlign[(t.val-slotBase[s])&7]++
			footer += e
		} else {
			footer += e
		}
	}
	lMain := codeLengths(fMain, maxCodeBits)
	lLen := codeLengths(fLen, maxCodeBits)
	lAlign := codeLengths(fAlign, maxAlignBits)
	cost := footer
	for i, f := range fMain {
		cost += int(f) * int(lMain[i])
	}
	for i, f := range fLen {
		cost += int(f) * int(lLen[i])
	}
	saved := -24
	for i, f := range fAlign {
		saved += int(f) * (3 - int(lAlign[i]))
	}
	size := z.frameEnds[len(z.frameEnds)-1] - z.start
	kind := 1
	switch {
	case cost/8 > size:
		kind = 3
		z.r = r0 // the tokens are thrown away
	case saved > 0:
		kind = 2
	}
	z.preamble()
	if kind == 3 {
		return z.stored(emit)
	}
	z.bw.put(uint32(kind), 3)
	z.bw.put(uint32(size>>8), 16)
	z.bw.put(uint32(size&255), 8)
	if kind == 2 {
		for _, l := range lAlign {
			z.bw.put(uint32(l), 3)
		}
	}
	z.putLengths(z.oldMain[:256], lMain[:256])
	z.putLengths(z.oldMain[256:], lMain[256:])
	z.putLengths(z.oldLen, lLen)
	z.oldMain, z.oldLen = lMain, lLen
	cMain, cLen, cAlign := codes(lMain), codes(lLen), codes(lAlign)
	i, from := 0, z.start
	for k, end := range ends {
		for ; i < end; i++ {
			t := toks[i]
			if t.len == 0 {
				z.bw.put(uint32(cMain[t.val]), uint(lMain[t.val]))
				continue
			}
			m, l, s := split(t)
			z.bw.put(uint32(cMain[m]), uint(lMain[m]))
			if l >= 0 {
				z.bw.put(uint32(cLen[l]), uint(lLen[l]))
			}
			v, e := t.val-slotBase[s], uint(slotExtra[s])
			switch {
			case kind == 2 && e >= 3:
				z.bw.put(v>>3, e-3)
				z.bw.put(uint32(cAlign[v&7]), uint(lAlign[v&7]))
			default:
				z.bw.put(v, e)
			}
		}
		if err := emit(z.bw.take(), z.frameEnds[k]-from); err != nil {
			return err
		}
		from = z.frameEnds[k]
	}
	return nil
}

// preamble starts the stream: E8 translation on, and its size.
func (z *lzx) preamble() {
	if z.oldMain == nil {
		z.oldMain, z.oldLen = make([]uint8, z.nMain), make([]uint8, lenSyms)
		z.bw.put(1, 1)
		z.bw.put(e8Size>>16, 16)
		z.bw.put(e8Size&0xffff, 16)
	}
}

// incompressible guesses from the byte histogram; compressed members of an
// outer cabinet are recognised this way without a match search.
func incompressible(p []byte) bool {
	if len(p) < 4096 {
		return false
	}
	var n [256]float64
	for _, c := range p {
		n[c]++
	}
	h := 0.0
	for _, c := range n {
		if c > 0 {
			h += c * math.Log2(float64(len(p))/c)
		}
	}
	return h/float64(len(p)) > 7.9
}

// stored writes one uncompressed block per pending frame.
func (z *lzx) stored(emit func([]byte, int) error) error {
	from := z.start
	for _, end := range z.frameEnds {
		size := end - from
		z.bw.put(3, 3)
		z.bw.put(uint32(size>>8), 16)
		z.bw.put(uint32(size&255), 8)
		z.bw.align(true)
		for _, r := range z.r {
			z.bw.out = append(z.bw.out, byte(r), byte(r>>8), byte(r>>16), byte(r>>24))
		}
		z.bw.out = append(z.bw.out, z.hist[from:end]...)
		if size&1 == 1 {
			z.bw.out = append(z.bw.out, 0)
		}
		if err := emit(z.bw.take(), size); err != nil {
			return err
		}
		from = end
	}
	return nil
}

// putLengths writes code lengths as differences to the previous block's,
// run-length coded, under a pretree of their own.
func (z *lzx) putLengths(old, cur []uint8) {
	type sym struct{ s, extra, bits, next uint8 }
	var syms []sym
	delta := func(i int) uint8 { return uint8((int(old[i]) - int(cur[i]) + 17) % 17) }
	for i := 0; i < len(cur); {
		run := 1
		for i+run < len(cur) && cur[i+run] == cur[i] {
			run++
		}
		switch {
		case cur[i] == 0 && run >= 20:
			run = min(run, 51)
			syms = append(syms, sym{s: 18, extra: uint8(run - 20), bits: 5})
		case cur[i] == 0 && run >= 4:
			run = min(run, 19)
			syms = append(syms, sym{s: 17, extra: uint8(run - 4), bits: 4})
		case run >= 4:
			run = min(run, 5)
			syms = append(syms, sym{s: 19, extra: uint8(run - 4), bits: 1, next: delta(i) + 1})
		default:
			run = 1
			syms = append(syms, sym{s: delta(i)})
		}
		i += run
	}
	freq := make([]uint32, 20)
	for _, s := range syms {
		freq[s.s]++
		if s.next > 0 {
			freq[s.next-1]++
		}
	}
	lens := codeLengths(freq, maxPreBits)
	c := codes(lens)
	for _, l := range lens {
		z.bw.put(uint32(l), 4)
	}
	for _, s := range syms {
		z.bw.put(uint32(c[s.s]), uint(lens[s.s]))
		z.bw.put(uint32(s.extra), uint(s.bits))
		if s.next > 0 {
			z.bw.put(uint32(c[s.next-1]), uint(lens[s.next-1]))
		}
	}
}

// codeLengths returns Huffman code lengths of at most limit bits. The code is
// always complete: decoders refuse others, so one used symbol gets a partner.
func codeLengths(freq []uint32, limit uint8) []uint8 {
	lens := make([]uint8, len(freq))
	var used []int
	for i, f := range freq {
		if f > 0 {
			used = append(used, i)
		}
	}
	switch len(used) {
	case 0:
		return lens
	case 1:
		lens[used[0]] = 1
		lens[(used[0]+1)%len(freq)] = 1
		return lens
	}
	w := make([]uint32, len(used))
	for i, s := range used {
		w[i] = freq[s]
	}
	order := make([]int, len(used))
	for {
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int {
			if w[a] != w[b] {
				if w[a] < w[b] {
					return -1
				}
				return 1
			}
			return a - b
		})
		n := len(order)
		weight := make([]uint64, 0, 2*n)
		parent := make([]int, 2*n)
		for _, o := range order {
			weight = append(weight, uint64(w[o]))
		}
		leaf, inner := 0, n
		pick := func() int { // the lighter of the next leaf and inner node
			if leaf < n && (inner >= len(weight) || weight[leaf] <= weight[inner]) {
				leaf++
				return leaf - 1
			}
			inner++
			return inner - 1
		}
		for len(weight) < 2*n-1 {
			a := pick()
			b := pick()
			parent[a], parent[b] = len(weight), len(weight)
			weight = append(weight, weight[a]+weight[b])
		}
		depth := make([]uint8, 2*n-1)
		deepest := uint8(0)
		for i := 2*n - 3; i >= 0; i-- {
			depth[i] = depth[parent[i]] + 1
			deepest = max(deepest, depth[i])
		}
		if deepest <= limit {
			for i, o := range order {
				lens[used[o]] = depth[i]
			}
			return lens
		}
		for i := range w { // flatten and retry
			w[i] = w[i]/2 + 1
		}
	}
}

// codes assigns canonical codes: shorter first, then by symbol.
func codes(lens []uint8) []uint16 {
	var count, next [maxCodeBits + 2]uint32
	for _, l := range lens {
		count[l]++
	}
	count[0] = 0
	code := uint32(0)
	for l := 1; l <= maxCodeBits; l++ {
		code = (code + count[l-1]) << 1
		next[l] = code
	}
	out := make([]uint16, len(lens))
	for i, l := range lens {
		if l > 0 {
			out[i] = uint16(next[l])
			next[l]++
		}
	}
	return out
}

// bitWriter packs bits, most significant first, into little-endian words.
type bitWriter struct {
	out []byte
	acc uint64
	n   uint
}

func (b *bitWriter) put(v uint32, n uint) {
	b.acc = b.acc<<n | uint64(v)
	for b.n += n; b.n >= 16; {
		b.n -= 16
		w := uint16(b.acc >> b.n)
		b.out = append(b.out, byte(w), byte(w>>8))
	}
}

// align pads to a word; full adds a whole word when already aligned, which is
// what the format asks for before an uncompressed block.
func (b *bitWriter) align(full bool) {
	if b.n > 0 || full {
		b.put(0, 16-b.n)
	}
}

// take ends a frame and returns its bytes; they are valid until the next put.
func (b *bitWriter) take() []byte {
	b.align(false)
	o := b.out
	b.out = b.out[:0]
	return o
}
