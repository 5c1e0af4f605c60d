package cab

// longestCode is the longest code of any LZX tree, in bits.
const longestCode = 16

// secondLevel marks an entry of the first level that leads to the second.
const secondLevel = 31

// huffman is a canonical code as a table of two levels. An entry is
// symbol<<5 | length; an entry of length secondLevel holds, instead of a
// symbol, where its part of the second level begins.
type huffman struct {
	bits  uint // that index the first level
	rest  uint // that index each part of the second
	table []uint32
	empty bool // no symbol has a code
}

// build makes the table from code lengths. Only complete codes are taken, or,
// where mayBeEmpty, none at all.
func (h *huffman) build(lens []uint8, firstBits uint, mayBeEmpty bool) error {
	var count [longestCode + 1]int
	longest := uint(0)
	for _, l := range lens {
		count[l]++
		longest = max(longest, uint(l))
	}
	if h.empty = longest == 0; h.empty {
		if mayBeEmpty {
			return nil
		}
		return errLZX
	}
	next, err := firstCodes(&count)
	if err != nil {
		return err
	}
	h.bits = min(firstBits, longest)
	h.rest = longest - h.bits
	size := 1 << h.bits
	if cap(h.table) < size {
		h.table = make([]uint32, size, size*2)
	}
	h.table = h.table[:size]
	clear(h.table)
	for sym, l := range lens {
		if l > 0 {
			h.set(uint32(sym), next[l], uint(l), longest)
			next[l]++
		}
	}
	return nil
}

// firstCodes gives the first canonical code of each length (RFC 1951, 3.2.2).
func firstCodes(count *[longestCode + 1]int) (next [longestCode + 1]uint32, err error) {
	code, left := uint32(0), 1
	for l := 1; l <= longestCode; l++ {
		if left = left<<1 - count[l]; left < 0 {
			return next, errLZX
		}
		if l > 1 {
			code = (code + uint32(count[l-1])) << 1
		}
		next[l] = code
	}
	if left != 0 {
		return next, errLZX
	}
	return next, nil
}

// set enters one code at every index that begins with it.
func (h *huffman) set(sym, code uint32, l, longest uint) {
	entry := sym<<5 | uint32(l)
	if l <= h.bits {
		from := code << (h.bits - l)
		for i := range uint32(1) << (h.bits - l) {
			h.table[from+i] = entry
		}
		return
	}
	head := code >> (l - h.bits)
	if h.table[head] == 0 {
		h.table[head] = uint32(len(h.table))<<5 | secondLevel
		for range 1 << h.rest {
			h.table = append(h.table, 0)
		}
	}
	from := h.table[head]>>5 + code&(1<<(l-h.bits)-1)<<(longest-l)
	for i := range uint32(1) << (longest - l) {
		h.table[from+i] = entry
	}
}
