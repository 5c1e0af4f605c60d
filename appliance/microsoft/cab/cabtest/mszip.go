package cabtest

import "math/bits"

// mszip writes [MS-MCI] blocks: "CK", then one complete deflate stream per
// frame whose history is the previous frames. compress/flate is not used
// because it describes "one distance only" by an incomplete code, which is
// legal but refused by libmspack (cabextract).
type mszip struct {
	matcher
	bw lsbWriter
}

func newMSZIP() *mszip {
	m := &mszip{}
	m.init(15)
	return m
}

func (m *mszip) flush(func([]byte, int) error) error { return nil }

func (m *mszip) write(p []byte, emit func([]byte, int) error) error {
	m.hist = append(m.hist, p...)
	m.frameEnds = append(m.frameEnds, len(m.hist))
	toks, _ := m.parse()
	m.done()
	m.bw.out = append(m.bw.out[:0], "CK"...)
	m.deflate(toks)
	if n := len(p); len(m.bw.out) > n+7 { // does not shrink: a stored block
		m.bw.out = append(m.bw.out[:2], 1, byte(n), byte(n>>8), byte(^n), byte(^n>>8))
		m.bw.out = append(m.bw.out, p...)
	}
	return emit(m.bw.out, len(p))
}

// lenCode and distCode return the deflate symbol, its extra bits and their
// value. Both alphabets pair sizes: 2^k and 1.5*2^k style buckets.
func lenCode(l int) (sym int, extra uint, v uint32) {
	l -= 3
	if l < 8 {
		return 257 + l, 0, 0
	}
	e := bits.Len(uint(l)) - 3
	return 257 + 4*e + l>>e, uint(e), uint32(l) & (1<<e - 1)
}

func distCode(d int) (sym int, extra uint, v uint32) {
	d--
	if d < 4 {
		return d, 0, 0
	}
	e := bits.Len(uint(d)) - 2
	return 2*e + d>>e, uint(e), uint32(d) & (1<<e - 1)
}

func (m *mszip) deflate(toks []token) {
	fLit, fDist := make([]uint32, 286), make([]uint32, 30)
	fLit[256], fDist[0] = 1, 1
	for _, t := range toks {
		if t.len == 0 {
			fLit[t.val]++
			continue
		}
		l, _, _ := lenCode(int(t.len))
		d, _, _ := distCode(int(t.val) - 2)
		fLit[l]++
		fDist[d]++
	}
	lLit, lDist := codeLengths(fLit, 15), codeLengths(fDist, 15)
	cLit, cDist := codes(lLit), codes(lDist)
	w := &m.bw
	w.put(1, 1) // final
	w.put(2, 2) // dynamic
	w.put(286-257, 5)
	w.put(30-1, 5)
	// Code lengths without run coding, except for zeros.
	type sym struct {
		s       uint8
		v, bits uint32
	}
	all := append(append([]uint8{}, lLit...), lDist...)
	var syms []sym
	fCl := make([]uint32, 19)
	for i := 0; i < len(all); {
		run := 1
		for i+run < len(all) && all[i+run] == 0 && all[i] == 0 {
			run++
		}
		s := sym{s: all[i]}
		switch {
		case run >= 11:
			run = min(run, 138)
			s = sym{18, uint32(run - 11), 7}
		case run >= 3:
			s = sym{17, uint32(run - 3), 3}
		default:
			run = 1
		}
		syms = append(syms, s)
		fCl[s.s]++
		i += run
	}
	lCl := codeLengths(fCl, 7)
	cCl := codes(lCl)
	w.put(19-4, 4)
	for _, i := range [19]int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} {
		w.put(uint32(lCl[i]), 3)
	}
	for _, s := range syms {
		w.code(cCl[s.s], lCl[s.s])
		w.put(s.v, uint(s.bits))
	}
	for _, t := range toks {
		if t.len == 0 {
			w.code(cLit[t.val], lLit[t.val])
			continue
		}
		l, e, v := lenCode(int(t.len))
		w.code(cLit[l], lLit[l])
		w.put(v, e)
		d, e, v := distCode(int(t.val) - 2)
		w.code(cDist[d], lDist[d])
		w.put(v, e)
	}
	w.code(cLit[256], lLit[256])
	w.put(0, (8-w.n)%8)
}

// lsbWriter packs bits, least significant first.
type lsbWriter struct {
	out []byte
	acc uint64
	n   uint
}

func (b *lsbWriter) put(v uint32, n uint) {
	b.acc |= uint64(v) << b.n
	for b.n += n; b.n >= 8; b.n -= 8 {
		b.out = append(b.out, byte(b.acc))
		b.acc >>= 8
	}
}

func (b *lsbWriter) code(c uint16, l uint8) {
	b.put(uint32(bits.Reverse16(c)>>(16-l)), uint(l))
}
