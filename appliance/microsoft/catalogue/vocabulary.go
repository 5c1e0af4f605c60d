package catalogue

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
)

// A vocabulary collects words and which rows have them. Rows come in any
// order, and may come twice.
type vocabulary struct {
	no    map[string]uint32
	words []string
	pairs []uint64 // word number and row

	base     uint32   // length of the postings in front of this one's
	postings []byte   // once written
	places   []uint32 // of each word in its section
}

func newVocabulary() vocabulary { return vocabulary{no: map[string]uint32{}} }

// addText adds every word of a text: what stands between white space.
func (v *vocabulary) addText(s string, row int) {
	for w := range strings.FieldsSeq(s) {
		v.add(w, row)
	}
}

// maxWord is how much of a word is kept, in bytes: longer than any but junk.
const maxWord = 100

func (v *vocabulary) add(word string, row int) {
	word = strings.ToLower(word)
	if len(word) > maxWord {
		word = strings.ToValidUTF8(word[:maxWord], "")
	}
	no, ok := v.no[word]
	if !ok {
		no = uint32(len(v.no))
		v.no[strings.Clone(word)] = no
	}
	v.pairs = append(v.pairs, uint64(no)<<32|uint64(row))
}

// write writes the words in order: each behind its length, then where its
// rows are in secPostings and how many. Postings of the words come before
// those of the keys, so the second vocabulary has to know how long the first's
// are: base.
func (v *vocabulary) write(w *fileWriter, section int) error {
	sorted := slices.Sorted(maps.Keys(v.no))
	place := make([]uint32, len(sorted)) // from number to order
	for i, word := range sorted {
		place[v.no[word]] = uint32(i)
	}
	for i, p := range v.pairs {
		v.pairs[i] = uint64(place[p>>32])<<32 | p&(1<<32-1)
	}
	slices.Sort(v.pairs)
	v.pairs = slices.Compact(v.pairs)
	w.begin(section)
	var e encoder
	size := uint32(0)
	rest := v.pairs
	for i, word := range sorted {
		n := 0
		for n < len(rest) && rest[n]>>32 == uint64(i) {
			n++
		}
		v.places = append(v.places, size)
		e = append(e[:0], byte(len(word)))
		e = append(e, word...)
		e = binary.LittleEndian.AppendUint32(e, v.base+uint32(len(v.postings)))
		e = binary.LittleEndian.AppendUint32(e, uint32(n))
		before := uint64(0)
		for _, p := range rest[:n] {
			row := p & (1<<32 - 1)
			v.postings = binary.AppendUvarint(v.postings, row-before)
			before = row
		}
		rest = rest[n:]
		size += uint32(len(e))
		if _, err := w.Write(e); err != nil {
			return err
		}
	}
	v.no, v.pairs = nil, nil
	return nil
}
