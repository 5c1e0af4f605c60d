package catalogue

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"io"
	"math/bits"
	"slices"
	"strings"
)

// A Query selects updates that hosts can report. Values of one field are
// alternatives, fields narrow each other.
type Query struct {
	// Text are words, all of which must be found: in the title or the names of
	// products, as the beginning of a KB, CVE, bulletin or UpdateID.
	Text           string
	Keys           []string // whole ones, all of which it must have: "kb5091157", "cve-2026-1234", "ms17-010"
	Severity       []string
	Product        []GUID
	Classification []GUID
	Superseded     []bool
	Month          []Month  // of publication; 0 finds nothing
	Restart        []string // in Microsoft's words, "" of what says nothing
	Without        []GUID   // updates to leave out

	Sort  Sort
	Down  bool // the other way round; ties stay in the order of UpdateIDs
	After *Key // only what comes after it
	Limit int
}

// Sort is an order of updates.
type Sort int

// The orders.
const (
	BySeverity  Sort = iota // gravest first, of those the newest
	ByTitle                 //
	ByPublished             // oldest first
	ByNothing               // all are equal
)

// A Key is a place in an order, of an update of the catalogue or of another.
// Ahead says that in an order by severity it comes before all of its severity,
// and in one by nothing before all.
type Key struct {
	Severity  string
	Published int64 // Unix seconds
	Title     string
	Ahead     bool
	ID        GUID
}

// A Result is the first rows of what matches, and how many there are.
type Result struct {
	Matching int
	Rows     []Row
	// Counts of the values of each facet among the updates that match
	// everything else.
	Severity       map[string]int
	Product        map[GUID]int
	Classification map[GUID]int
	Superseded     map[bool]int
	Month          map[Month]int // without that of what has no date
	Restart        map[string]int
}

// A Row is an update as a search finds it; [Catalogue.Update] has the rest.
type Row struct {
	ID             GUID
	Revision       uint32
	Severity       string
	Classification GUID
	Products       []GUID
	Published      int64 // Unix seconds
	Size           int64 // bytes of its distinct files
	Superseded     bool
	Restart        string // of it and its parts the gravest, in Microsoft's words
}

// A bitmap is a set of rows.
type bitmap []uint64

// A Set is updates that a text finds, see [Catalogue.Match].
type Set struct{ rows bitmap }

func newBitmap(n int) bitmap    { return make(bitmap, (n+63)/64) }
func (b bitmap) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b bitmap) clear(i int)    { b[i/64] &^= 1 << (i % 64) }
func (b bitmap) has(i int) bool { return b[i/64]>>(i%64)&1 == 1 }
func (b bitmap) intersect(with bitmap) {
	for i := range b {
		b[i] &= with[i]
	}
}

// Search finds updates.
func (c *Catalogue) Search(q Query) (*Result, error) {
	set, err := c.match(q.Text)
	if err != nil {
		return nil, err
	}
	for _, key := range q.Keys {
		found := newBitmap(len(c.rows.id))
		if err := c.key(found, strings.ToLower(key), true); err != nil {
			return nil, err
		}
		set.intersect(found)
	}
	for _, id := range q.Without {
		if row := c.rows.find(id); row >= 0 {
			set.clear(row)
		}
	}
	s := c.newSelection(&q)
	if q.After != nil {
		if s.after, err = c.keyOf(&q); err != nil {
			return nil, err
		}
	}
	for w, word := range set {
		for ; word != 0; word &= word - 1 {
			s.take(w*64 + bits.TrailingZeros64(word))
		}
	}
	return s.result(), nil
}

// Match is the updates that have every word of the text.
func (c *Catalogue) Match(text string) (Set, error) {
	rows, err := c.match(text)
	return Set{rows}, err
}

// Has says whether an update is in the set.
func (c *Catalogue) Has(set Set, id GUID) bool {
	row := c.rows.find(id)
	return row >= 0 && set.rows.has(row)
}

// Count is how many updates have a KB, CVE or bulletin: "kb5091157".
func (c *Catalogue) Count(key string) (n int, err error) {
	found := newBitmap(len(c.rows.id))
	err = c.key(found, strings.ToLower(key), true)
	for _, word := range found {
		n += bits.OnesCount64(word)
	}
	return n, err
}

func (c *Catalogue) match(text string) (bitmap, error) {
	n := len(c.rows.id)
	all := newBitmap(n)
	for i := range n {
		all.set(i)
	}
	for word := range strings.FieldsSeq(strings.ToLower(text)) {
		found := newBitmap(n)
		if err := c.titleWord(found, word); err != nil {
			return nil, err
		}
		for _, key := range keysOf(word) {
			if err := c.key(found, key, false); err != nil {
				return nil, err
			}
		}
		c.idPrefix(found, word)
		all.intersect(found)
	}
	return all, nil
}

// shortestKey keeps "1" from being the beginning of every CVE.
const shortestKey = 4

// keysOf are the keys a word may be the beginning of.
func keysOf(word string) []string {
	if len(word) < shortestKey {
		return nil
	}
	if word[0] >= '0' && word[0] <= '9' {
		return []string{"kb" + word, "cve-" + word}
	}
	return []string{word}
}

// titleWord finds rows by a part of a word of their titles, reading all words.
func (c *Catalogue) titleWord(found bitmap, word string) error {
	p, want := posted{c: c, found: found}, []byte(word)
	return c.eachWord(c.section(secWords), func(w, entry []byte) (bool, error) {
		if !bytes.Contains(w, want) {
			return true, nil
		}
		return true, p.add(entry)
	})
}

// eachWord calls at for the words that r has, with what is behind each, as
// long as it says so.
func (c *Catalogue) eachWord(r io.Reader, at func(word, entry []byte) (more bool, err error)) error {
	buf, held := make([]byte, 32<<10), 0
	for {
		n, err := io.ReadFull(r, buf[held:])
		held += n
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		from := 0
		for from < held && from+1+int(buf[from])+wordEntryBytes <= held {
			entry := buf[from+1+int(buf[from]):]
			if more, err := at(buf[from+1:from+1+int(buf[from])], entry[:wordEntryBytes]); !more || err != nil {
				return err
			}
			from += 1 + int(buf[from]) + wordEntryBytes
		}
		held = copy(buf, buf[from:held])
		if err != nil {
			if held > 0 {
				return errCorrupt
			}
			return nil
		}
	}
}

// posted reads postings, several at once: those of neighbouring words are
// neighbours.
type posted struct {
	c     *Catalogue
	found bitmap
	buf   []byte
	at    uint32 // in secPostings, of buf
}

// add finds the rows behind a word.
func (p *posted) add(entry []byte) error {
	from, n := binary.LittleEndian.Uint32(entry), binary.LittleEndian.Uint32(entry[4:])
	if int(n) > len(p.c.rows.id) {
		return errCorrupt
	}
	size := uint32(max(0, min(int64(n)*binary.MaxVarintLen32, p.c.header.Sections[secPostings].Size-int64(from))))
	if from < p.at || from+size > p.at+uint32(len(p.buf)) {
		const chunk = 16 << 10
		whole := uint32(max(0, min(max(int64(size), chunk), p.c.header.Sections[secPostings].Size-int64(from))))
		b, err := p.c.at(secPostings, span{from, whole})
		if err != nil {
			return err
		}
		p.buf, p.at = b, from
	}
	d := decoder{b: p.buf[from-p.at:][:size]}
	row := uint64(0)
	for range n {
		row += d.num()
		if d.bad || row >= uint64(len(p.c.rows.id)) {
			return errCorrupt
		}
		p.found.set(int(row))
	}
	return nil
}

// keyAt is where the i-th key is, and what it is.
func (c *Catalogue) keyAt(i int) (at int64, key string, err error) {
	b, err := c.at(secKeyIndex, span{uint32(4 * i), 4})
	if err != nil {
		return 0, "", err
	}
	at = int64(binary.LittleEndian.Uint32(b))
	size := min(1+maxWord, c.header.Sections[secKeys].Size-at)
	if size < 1 {
		return 0, "", errCorrupt
	}
	if b, err = c.at(secKeys, span{uint32(at), uint32(size)}); err != nil {
		return 0, "", err
	}
	return at, string(b[1:min(1+int(b[0]), len(b))]), nil
}

// key finds rows by a KB, CVE or bulletin, the whole of it or its beginning.
func (c *Catalogue) key(found bitmap, prefix string, whole bool) error {
	var from int64
	n := int(c.header.Sections[secKeyIndex].Size / 4)
	i, err := search(n, func(i int) (bool, error) {
		_, k, err := c.keyAt(i)
		return k < prefix, err
	})
	if err == nil && i < n {
		from, _, err = c.keyAt(i)
	}
	if err != nil || i == n {
		return err
	}
	s, p, want := c.section(secKeys), posted{c: c, found: found}, []byte(prefix)
	return c.eachWord(io.NewSectionReader(s, from, s.Size()-from), func(w, entry []byte) (bool, error) {
		if !bytes.HasPrefix(w, want) || whole && len(w) > len(want) {
			return false, nil
		}
		return true, p.add(entry)
	})
}

// idPrefix finds rows by the beginning of their UpdateID.
func (c *Catalogue) idPrefix(found bitmap, word string) {
	digits := strings.ReplaceAll(word, "-", "")
	if len(digits) < shortestKey || len(digits) > 32 {
		return
	}
	var low, high GUID
	lo, err := hex.DecodeString(digits + strings.Repeat("0", 32-len(digits)))
	if err != nil {
		return
	}
	hi, err := hex.DecodeString(digits + strings.Repeat("f", 32-len(digits)))
	if err != nil {
		return
	}
	copy(low[:], lo)
	copy(high[:], hi)
	from, _ := slices.BinarySearchFunc(c.rows.id, low, compareGUID)
	for ; from < len(c.rows.id) && compareGUID(c.rows.id[from], high) <= 0; from++ {
		if strings.HasPrefix(c.rows.id[from].String(), word) || !strings.Contains(word, "-") {
			found.set(from)
		}
	}
}

func (c *Catalogue) row(i int) Row {
	r := c.rows
	row := Row{
		ID: r.id[i], Revision: r.revision[i], Severity: severities[r.severity[i]-1], Published: int64(r.published[i]),
		Size: r.size[i], Superseded: r.superseded[i] == 1, Restart: restarts[r.restart[i]],
	}
	if r.class[i] != noCategory {
		row.Classification = r.categories[r.class[i]]
	}
	for _, no := range r.sets[r.set[i]] {
		row.Products = append(row.Products, r.categories[no])
	}
	return row
}

// Knows says that hosts can report such an update.
func (c *Catalogue) Knows(id GUID) bool { return c.rows.find(id) >= 0 }

// Superseded says that a newer update replaces it.
func (c *Catalogue) Superseded(id GUID) bool {
	i := c.rows.find(id)
	return i >= 0 && c.rows.superseded[i] == 1
}

// Row is the row of an update that hosts can report.
func (c *Catalogue) Row(id GUID) (Row, bool) {
	if i := c.rows.find(id); i >= 0 {
		return c.row(i), true
	}
	return Row{}, false
}
