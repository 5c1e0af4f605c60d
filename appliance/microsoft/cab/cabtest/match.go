package cabtest

import (
	"encoding/binary"
	"math/bits"
)

const (
	minMatch  = 3
	maxMatch  = 257
	maxChain  = 12
	goodMatch = 64
	hashBits  = 18
)

// token is a literal (len 0) or a match. val is the byte, or the distance
// plus 2; 0..2 name the repeated distances of LZX.
type token struct {
	val uint32
	len uint16
}

// matcher finds LZ77 matches with hash chains and one step of lazy matching.
type matcher struct {
	window    int
	hist      []byte // history, then frames to encode from start on
	start     int
	frameEnds []int // of the frames to encode, as positions in hist
	head      []int32
	chain     []int32   // chain[i]: previous position with the same hash
	inserted  int       // positions below are in the hash table
	r         [3]uint32 // repeated distances; zero: not used
}

func (m *matcher) init(windowBits int) {
	m.window = 1 << windowBits
	m.head = make([]int32, 1<<hashBits)
	for i := range m.head {
		m.head[i] = -1
	}
}

func (m *matcher) hash(i int) uint32 {
	h := m.hist
	return (uint32(h[i])<<16 | uint32(h[i+1])<<8 | uint32(h[i+2])) * 0x9E3779B1 >> (32 - hashBits)
}

func (m *matcher) insertUpTo(pos int) {
	for end := min(pos, len(m.hist)-minMatch+1); m.inserted < end; m.inserted++ {
		h := m.hash(m.inserted)
		m.chain[m.inserted] = m.head[h]
		m.head[h] = int32(m.inserted)
	}
}

// matchLen counts equal leading bytes; b is at least as long as a.
func matchLen(a, b []byte) int {
	n := 0
	for ; n+8 <= len(a); n += 8 {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
	}
	for n < len(a) && a[n] == b[n] {
		n++
	}
	return n
}

// find returns the best match at pos that ends at or before limit.
func (m *matcher) find(pos, limit int) (best int, val uint32) {
	h := m.hist
	limit = min(limit, pos+maxMatch)
	if limit-pos < minMatch {
		return 0, 0
	}
	cur := h[pos:limit]
	rep := 0
	for k, off := range m.r {
		if off > 0 && int(off) <= pos {
			if n := matchLen(cur, h[pos-int(off):]); n >= minMatch && n > rep {
				rep, val = n, uint32(k)
			}
		}
	}
	best = rep
	if rep > 0 {
		best++ // a new distance must win by two bytes
	}
	m.insertUpTo(pos)
	lowest := max(pos-(m.window-3), 0)
	for c, n := int(m.head[m.hash(pos)]), 0; c >= lowest && n < maxChain; c, n = int(m.chain[c]), n+1 {
		if best >= len(cur) {
			break
		}
		if h[c+best] != cur[best] {
			continue
		}
		l := matchLen(cur, h[c:])
		if l > best && l >= minMatch && (l > minMatch || pos-c < 1<<14) {
			best, val, rep = l, uint32(pos-c)+2, 0
			if l >= goodMatch {
				break
			}
		}
	}
	if rep > 0 {
		best = rep
	}
	return best, val
}

// parse turns the pending frames into tokens; ends[i] is the number of tokens
// up to the end of frame i. No match crosses a frame's end.
func (m *matcher) parse() (toks []token, ends []int) {
	m.chain = append(m.chain, make([]int32, len(m.hist)-len(m.chain))...)
	pos := m.start
	for _, end := range m.frameEnds {
		ahead, n, v := false, 0, uint32(0) // ahead: n, v are already those of pos
		for pos < end {
			if !ahead {
				n, v = m.find(pos, end)
			}
			ahead = false
			if n < minMatch {
				toks = append(toks, token{val: uint32(m.hist[pos])})
				pos++
				continue
			}
			if n < goodMatch && pos+1 < end {
				if n2, v2 := m.find(pos+1, end); n2 > n+1 {
					toks = append(toks, token{val: uint32(m.hist[pos])})
					pos, n, v, ahead = pos+1, n2, v2, true
					continue
				}
			}
			if m.r[0] > 0 {
				switch v {
				case 0:
				case 1:
					m.r[0], m.r[1] = m.r[1], m.r[0]
				case 2:
					m.r[0], m.r[2] = m.r[2], m.r[0]
				default:
					m.r[2], m.r[1], m.r[0] = m.r[1], m.r[0], v-2
				}
			}
			toks = append(toks, token{v, uint16(n)})
			pos += n
			m.insertUpTo(pos)
		}
		ends = append(ends, len(toks))
	}
	return toks, ends
}

// done forgets the pending frames' bounds and slides the history.
func (m *matcher) done() {
	m.chain = append(m.chain, make([]int32, len(m.hist)-len(m.chain))...)
	m.start = len(m.hist)
	m.frameEnds = m.frameEnds[:0]
	if m.start < 3*m.window {
		return
	}
	cut := m.start - m.window
	m.hist = append(m.hist[:0], m.hist[cut:]...)
	m.chain = append(m.chain[:0], m.chain[cut:]...)
	for i := range m.chain {
		m.chain[i] = max(m.chain[i]-int32(cut), -1)
	}
	for i := range m.head {
		m.head[i] = max(m.head[i]-int32(cut), -1)
	}
	m.start -= cut
	m.inserted = max(m.inserted-cut, 0)
}
