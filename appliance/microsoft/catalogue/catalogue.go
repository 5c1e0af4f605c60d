// Package catalogue is what Microsoft published, out of wsusscn2.cab: every
// update with its titles, numbers, files and digests, what supersedes what, and
// a search over all of them.
//
// [Import] makes a file of a scan cab, in one pass; [Open] answers questions
// from that file. The file is never changed: the next cab makes a new one that
// replaces it by rename. DESIGN.md says why it is not in the store.
package catalogue

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// ErrNotFound says that the catalogue has no such thing.
var ErrNotFound = errors.New("the catalogue has no such update")

// A Catalogue is an open file. Its methods may be called by many goroutines.
// What is searched is in memory, 45 bytes for each update; everything else is
// read when it is asked for.
type Catalogue struct {
	f      *os.File
	header Header
	rows   *rows
}

// Open opens a catalogue and checks all of it against its checksums. A file of
// another version is an error as a damaged one is: import again.
func Open(path string) (*Catalogue, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	c := &Catalogue{f: f}
	if c.header, err = readHeader(f); err == nil {
		if err = checkSections(f, &c.header); err == nil {
			err = c.loadRows()
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), f.Close())
	}
	return c, nil
}

func (c *Catalogue) loadRows() error {
	columns, err := c.all(secRows)
	if err != nil {
		return err
	}
	tables, err := c.all(secTables)
	if err != nil {
		return err
	}
	c.rows, err = decodeRows(columns, tables)
	return err
}

// Close closes the file.
func (c *Catalogue) Close() error { return c.f.Close() }

// Header says what the catalogue was made from.
func (c *Catalogue) Header() Header { return c.header }

func (c *Catalogue) section(i int) *io.SectionReader {
	s := c.header.Sections[i]
	return io.NewSectionReader(c.f, s.At, s.Size)
}

func (c *Catalogue) all(i int) ([]byte, error) {
	b := make([]byte, c.header.Sections[i].Size)
	_, err := io.ReadFull(c.section(i), b)
	return b, err
}

// at reads a part of a section.
func (c *Catalogue) at(section int, s span) ([]byte, error) {
	b := make([]byte, s.size)
	if n, err := c.section(section).ReadAt(b, int64(s.at)); n < len(b) {
		return nil, errors.Join(errCorrupt, err)
	}
	return b, nil
}

// A revisionEntry is one row of secRevisions.
type revisionEntry struct {
	rev, number uint32
	id          GUID
	graph       span
	details     span
}

const (
	revisionEntryBytes = 4 + 4 + 16 + 8 + 8
	fileEntryBytes     = 20 + 4
	wordEntryBytes     = 4 + 4 // behind a word: where its rows are, how many
)

func (r revisionEntry) encode(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(le.AppendUint32(b, r.rev), r.number)
	b = append(b, r.id[:]...)
	for _, n := range []uint32{r.graph.at, r.graph.size, r.details.at, r.details.size} {
		b = le.AppendUint32(b, n)
	}
	return b
}

func decodeRevision(b []byte) revisionEntry {
	le := binary.LittleEndian
	return revisionEntry{
		le.Uint32(b), le.Uint32(b[4:]), GUID(b[8:24]),
		span{le.Uint32(b[24:]), le.Uint32(b[28:])}, span{le.Uint32(b[32:]), le.Uint32(b[36:])},
	}
}

// entries are all revisions in their order.
func (c *Catalogue) entries() ([]revisionEntry, error) {
	b, err := c.all(secRevisions)
	if err != nil {
		return nil, err
	}
	list := make([]revisionEntry, 0, len(b)/revisionEntryBytes)
	for ; len(b) >= revisionEntryBytes; b = b[revisionEntryBytes:] {
		list = append(list, decodeRevision(b))
	}
	return list, nil
}

func (c *Catalogue) entry(i int) (revisionEntry, error) {
	b, err := c.at(secRevisions, span{uint32(i * revisionEntryBytes), revisionEntryBytes})
	if err != nil {
		return revisionEntry{}, err
	}
	return decodeRevision(b), nil
}

// search finds the first of n for which not-before holds, asking at for each.
func search(n int, before func(i int) (bool, error)) (int, error) {
	lo, hi := 0, n
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		is, err := before(mid)
		if err != nil {
			return 0, err
		}
		if is {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, nil
}

// Revision is the update of a RevisionId.
func (c *Catalogue) Revision(rev uint32) (*Update, error) {
	n := c.header.Counts.Revisions
	i, err := search(n, func(i int) (bool, error) {
		e, err := c.entry(i)
		return e.rev < rev, err
	})
	if err != nil {
		return nil, err
	}
	if i < n {
		if e, err := c.entry(i); err != nil || e.rev == rev {
			return c.update(e, err)
		}
	}
	return nil, ErrNotFound
}

// Update is the newest revision of an UpdateID.
func (c *Catalogue) Update(id GUID) (*Update, error) { return c.Exactly(id, 1<<32-1) }

// Exactly is the revision of an UpdateID with that number or, where there is
// none, the one before it.
func (c *Catalogue) Exactly(id GUID, number uint32) (*Update, error) {
	var found revisionEntry
	i, err := search(c.header.Counts.Revisions, func(i int) (bool, error) {
		e, err := c.byID(i)
		order := cmp.Or(bytes.Compare(e.id[:], id[:]), cmp.Compare(e.number, number))
		return order <= 0, err
	})
	if err != nil {
		return nil, err
	}
	if i > 0 {
		if found, err = c.byID(i - 1); err != nil || found.id == id {
			return c.update(found, err)
		}
	}
	return nil, ErrNotFound
}

func (c *Catalogue) byID(i int) (revisionEntry, error) {
	b, err := c.at(secIDs, span{uint32(4 * i), 4})
	if err != nil {
		return revisionEntry{}, err
	}
	return c.entry(int(binary.LittleEndian.Uint32(b)))
}

func compareGUID(x, y GUID) int { return bytes.Compare(x[:], y[:]) }

// update reads a revision whole.
func (c *Catalogue) update(e revisionEntry, err error) (*Update, error) {
	if err != nil {
		return nil, err
	}
	u := &Update{Revision: e.rev, ID: e.id, Number: e.number}
	if e.details.size > 0 {
		b, err := c.at(secDetails, e.details)
		if err != nil {
			return nil, err
		}
		d := decoder{b: b}
		if u.Details = d.details(); d.bad {
			return nil, errCorrupt
		}
	}
	b, err := c.at(secGraph, e.graph)
	if err != nil {
		return nil, err
	}
	d := decoder{b: b}
	flags, files := d.graph(u)
	if d.bad {
		return nil, errCorrupt
	}
	u.Kind = kindOf(flags, u.UpdateType)
	return u, c.locate(u, files)
}

// graph reads what builder.graph wrote.
func (d *decoder) graph(u *Update) (flags nodeFlags, files []uint32) {
	if b := d.take(1); b != nil {
		flags = nodeFlags(b[0])
	}
	u.Created = unixTime(d.num32())
	u.Languages = d.strs()
	for range d.count(17) {
		kind, id := d.take(1), GUID{}
		copy(id[:], d.take(16))
		if d.bad {
			return
		}
		switch kind[0] {
		case 'c':
			u.Classification = id
		case 'm':
			u.Company = id
		case 'f':
			u.Family = id
		case 'p':
			u.Products = append(u.Products, id)
		}
	}
	for _, list := range []*[]uint32{&u.SupersededBy, &u.Gone, &u.BundledBy, &u.Children} {
		*list = d.nums()
	}
	return flags, d.nums()
}

func kindOf(flags nodeFlags, updateType string) Kind {
	switch {
	case updateType == "Category":
		return Category
	case flags&isEvaluated != 0:
		return Detectoid
	case flags&isBundle != 0:
		return Bundle
	case flags&isPart != 0:
		return Leaf
	default:
		return Single
	}
}

// locate gives the files of an update their URLs. One that only package.xml
// names comes without size.
func (c *Catalogue) locate(u *Update, files []uint32) error {
	for _, no := range files {
		f, err := c.fileAt(int(no))
		if err != nil {
			return err
		}
		i := slices.IndexFunc(u.Files, func(x File) bool { return x.SHA1 == f.SHA1 })
		if i < 0 {
			u.Files = append(u.Files, File{SHA1: f.SHA1, Name: nameOf(f.URL), URL: f.URL})
			continue
		}
		u.Files[i].URL = f.URL
	}
	return nil
}

// A Location is where a file lies, and which revisions have it.
type Location struct {
	SHA1   [20]byte
	URL    string
	Owners []uint32
}

func (c *Catalogue) fileAt(i int) (l Location, err error) {
	b, err := c.at(secFiles, span{uint32(i * fileEntryBytes), fileEntryBytes})
	if err != nil {
		return l, err
	}
	from := binary.LittleEndian.Uint32(b[20:])
	end := c.header.Sections[secLocations].Size
	if i+1 < c.header.Counts.Files {
		next, err := c.at(secFiles, span{uint32((i + 1) * fileEntryBytes), fileEntryBytes})
		if err != nil {
			return l, err
		}
		end = int64(binary.LittleEndian.Uint32(next[20:]))
	}
	if end < int64(from) || end > c.header.Sections[secLocations].Size {
		return l, errCorrupt
	}
	copy(l.SHA1[:], b)
	if b, err = c.at(secLocations, span{from, uint32(end - int64(from))}); err != nil {
		return l, err
	}
	d := decoder{b: b}
	l.URL, l.Owners = d.str(), d.nums()
	if d.bad {
		return l, errCorrupt
	}
	return l, nil
}

// File is the file of a SHA-1 as the first of its owners describes it, and the
// updates hosts report that have it.
func (c *Catalogue) File(sum [20]byte) (f File, updates []GUID, err error) {
	n := c.header.Counts.Files
	i, err := search(n, func(i int) (bool, error) {
		b, err := c.at(secFiles, span{uint32(i * fileEntryBytes), 20})
		return bytes.Compare(b, sum[:]) < 0, err
	})
	if err != nil {
		return f, nil, err
	}
	if i == n {
		return f, nil, ErrNotFound
	}
	l, err := c.fileAt(i)
	if err != nil {
		return f, nil, err
	}
	if l.SHA1 != sum {
		return f, nil, ErrNotFound
	}
	for _, rev := range l.Owners {
		u, err := c.Revision(rev)
		if err != nil {
			return f, nil, err
		}
		if k := slices.IndexFunc(u.Files, func(x File) bool { return x.SHA1 == sum }); k >= 0 && f.SHA256 == nil {
			f = u.Files[k]
		}
		tops, err := c.tops(u)
		if err != nil {
			return f, nil, err
		}
		updates = append(updates, tops...)
	}
	slices.SortFunc(updates, compareGUID)
	return f, slices.Compact(updates), nil
}

// tops are the updates of which u is a part, u itself when it is none.
func (c *Catalogue) tops(u *Update) (list []GUID, err error) {
	if u.Kind != Leaf {
		return []GUID{u.ID}, nil
	}
	for _, rev := range u.BundledBy {
		b, err := c.Revision(rev)
		if err != nil {
			return nil, err
		}
		list = append(list, b.ID)
	}
	return list, nil
}

// Files are the distinct files of an update and of its parts. Each says in
// Languages what it is for; none is for all.
func (c *Catalogue) Files(u *Update) (list []PartFile, err error) {
	take := func(part *Update) {
		for _, f := range part.Files {
			i := slices.IndexFunc(list, func(x PartFile) bool { return x.SHA1 == f.SHA1 })
			switch {
			case i < 0:
				list = append(list, PartFile{f, slices.Clone(part.Languages)})
			case len(part.Languages) == 0:
				list[i].Languages = nil
			case len(list[i].Languages) > 0:
				list[i].Languages = append(list[i].Languages, part.Languages...)
			}
		}
	}
	take(u)
	seen := map[uint32]bool{u.Revision: true}
	for queue := slices.Clone(u.Children); len(queue) > 0; queue = queue[1:] {
		if seen[queue[0]] {
			continue
		}
		seen[queue[0]] = true
		part, err := c.Revision(queue[0])
		if err != nil {
			return nil, err
		}
		take(part)
		queue = append(queue, part.Children...)
	}
	for i := range list {
		slices.Sort(list[i].Languages)
		list[i].Languages = slices.Compact(list[i].Languages)
	}
	return list, nil
}

// A PartFile is a file of an update and the languages it is for.
type PartFile struct {
	File
	Languages []string
}

// Title is that of a product or classification, "" when nobody gave one.
func (c *Catalogue) Title(id GUID) string {
	if no, ok := c.rows.category[id]; ok {
		return c.rows.titles[no]
	}
	return ""
}
