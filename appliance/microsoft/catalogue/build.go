package catalogue

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"io"
	"path"
	"slices"
	"time"
)

// A builder writes everything behind the details: what the graph says of each
// revision, the tables to find things by, and what is searched.
type builder struct {
	g       *graph
	w       *fileWriter
	details []span

	refs    references // of the node that is looked at
	parts   lists      // of nodes that are bundles: their leaves
	owners  lists      // of files: the nodes that have them
	sizes   []int64
	deltas  []bool
	restart []uint8  // by node, the number of what its own fragment says
	fileAt  []uint32 // by file, its number in secFiles
	graphAt []span
	rows    rows
	words   vocabulary
	keys    vocabulary
	sets    map[string]uint32 // of products, encoded
}

// A lists is a list of numbers for each of many things, in two slices.
type lists struct {
	end   []uint32 // of the list of i; it begins where that of i-1 ends
	items []uint32
}

func (l *lists) of(i int) []uint32 {
	from := uint32(0)
	if i > 0 {
		from = l.end[i-1]
	}
	return l.items[from:l.end[i]]
}

// newLists collects pairs: each is called twice with the same add.
func newLists(n int, each func(add func(to int, item uint32))) lists {
	l := lists{end: make([]uint32, n)}
	each(func(to int, _ uint32) { l.end[to]++ })
	sum := uint32(0)
	next := make([]uint32, n)
	for i, k := range l.end {
		next[i] = sum
		sum += k
		l.end[i] = sum
	}
	l.items = make([]uint32, sum)
	each(func(to int, item uint32) {
		l.items[next[to]] = item
		next[to]++
	})
	return l
}

func (b *builder) build(ctx context.Context) error {
	b.invert()
	for _, step := range []func() error{b.measure, b.files, b.graph, b.revisions, b.collect, b.tables} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	if err := b.words.write(b.w, secWords); err != nil {
		return err
	}
	b.keys.base = uint32(len(b.words.postings))
	if err := b.keys.write(b.w, secKeys); err != nil {
		return err
	}
	b.w.begin(secKeyIndex)
	for _, at := range b.keys.places {
		if err := b.word(at); err != nil {
			return err
		}
	}
	b.w.begin(secPostings)
	for _, v := range []*vocabulary{&b.words, &b.keys} {
		if _, err := b.w.Write(v.postings); err != nil {
			return err
		}
	}
	b.count()
	return nil
}

func (b *builder) word(n uint32) error {
	var w [4]byte
	binary.LittleEndian.PutUint32(w[:], n)
	_, err := b.w.Write(w[:])
	return err
}

// invert turns "bundled by" and "has file" around.
func (b *builder) invert() {
	b.parts = newLists(len(b.g.nodes), func(add func(int, uint32)) {
		for i := range b.g.nodes {
			for _, rev := range b.g.refsOf(&b.g.nodes[i], &b.refs).bundledBy {
				if p := b.g.find(rev); p >= 0 {
					add(p, uint32(i))
				}
			}
		}
	})
	b.owners = newLists(len(b.g.files), func(add func(int, uint32)) {
		for i := range b.g.nodes {
			for _, f := range b.g.refsOf(&b.g.nodes[i], &b.refs).files {
				add(int(f), uint32(i))
			}
		}
	})
}

// eachDetail reads the details of every node that has some, in the order they
// were written.
func (b *builder) eachDetail(at func(node int, details []byte) error) error {
	if err := b.w.w.Flush(); err != nil {
		return err
	}
	order := make([]uint32, 0, len(b.details))
	for i, s := range b.details {
		if s.size > 0 {
			order = append(order, uint32(i))
		}
	}
	slices.SortFunc(order, func(x, y uint32) int { return cmp.Compare(b.details[x].at, b.details[y].at) })
	s := b.w.header.Sections[secDetails]
	r := io.NewSectionReader(b.w.f, s.At, s.Size)
	chunk := make([]byte, 1<<20)
	var held []byte
	from := int64(0)
	for _, i := range order {
		d := b.details[i]
		if int64(d.at)+int64(d.size) > from+int64(len(held)) {
			if int(d.size) > len(chunk) {
				chunk = make([]byte, d.size)
			}
			from = int64(d.at)
			n, err := r.ReadAt(chunk, from)
			if err != nil && err != io.EOF {
				return err
			}
			if held = chunk[:n]; n < int(d.size) {
				return errCorrupt
			}
		}
		if err := at(int(i), held[int64(d.at)-from:][:d.size]); err != nil {
			return err
		}
	}
	return nil
}

// measure notes the size of every file, which are deltas, and what restarts.
func (b *builder) measure() error {
	b.sizes, b.deltas, b.restart = make([]int64, len(b.g.files)), make([]bool, len(b.g.files)), make([]uint8, len(b.g.nodes))
	return b.eachDetail(func(node int, raw []byte) error {
		d := decoder{b: raw}
		b.restart[node] = restartNo(d.skipToFiles())
		for range d.count(24) {
			sum := d.take(20)
			d.skip()
			d.skip()
			size := d.num()
			patching := d.take(d.count(1))
			d.num()
			if d.bad {
				return errCorrupt
			}
			if no, ok := b.g.fileNo[[20]byte(sum)]; ok {
				b.sizes[no], b.deltas[no] = int64(size), bytes.EqualFold(patching, []byte("Express"))
			}
		}
		if d.bad {
			return errCorrupt
		}
		return nil
	})
}

// files writes the table of files with URLs and owners.
func (b *builder) files() error {
	order := make([]uint32, len(b.g.files))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(x, y uint32) int { return bytes.Compare(b.g.files[x][:], b.g.files[y][:]) })
	b.fileAt = make([]uint32, len(order))
	var locations encoder
	table := make([]byte, 0, fileEntryBytes*len(order))
	for at, no := range order {
		b.fileAt[no] = uint32(at)
		table = append(table, b.g.files[no][:]...)
		table = binary.LittleEndian.AppendUint32(table, uint32(len(locations)))
		locations.str(b.g.url(no))
		owners := b.owners.of(int(no))
		locations.num(uint64(len(owners)))
		for _, node := range owners {
			locations.num(uint64(b.g.nodes[node].rev))
		}
	}
	b.w.begin(secFiles)
	if _, err := b.w.Write(table); err != nil {
		return err
	}
	b.w.begin(secLocations)
	_, err := b.w.Write(locations)
	return err
}

// graph writes what each revision points at.
func (b *builder) graph() error {
	b.graphAt = make([]span, len(b.g.nodes))
	b.w.begin(secGraph)
	var e encoder
	at := uint32(0)
	for i := range b.g.nodes {
		n := &b.g.nodes[i]
		refs := b.g.refsOf(n, &b.refs)
		e = e[:0]
		e = append(e, byte(n.flags))
		e.num(uint64(n.created))
		e.num(uint64(len(refs.languages)))
		for _, l := range refs.languages {
			e.str(b.g.languages[l])
		}
		e.num(uint64(len(refs.classes)))
		for _, c := range refs.classes {
			e = append(e, c.kind)
			e.bytes(b.g.categories[c.no][:])
		}
		there, gone := b.split(refs.supersededBy)
		bundles, _ := b.split(refs.bundledBy)
		for _, list := range [][]uint32{there, gone, bundles} {
			e.nums(list)
		}
		parts := b.parts.of(i)
		e.num(uint64(len(parts)))
		for _, p := range parts {
			e.num(uint64(b.g.nodes[p].rev))
		}
		e.num(uint64(len(refs.files)))
		for _, f := range refs.files {
			e.num(uint64(b.fileAt[f]))
		}
		b.graphAt[i] = span{at, uint32(len(e))}
		at += uint32(len(e))
		if _, err := b.w.Write(e); err != nil {
			return err
		}
	}
	return nil
}

// split parts revisions that are in the cab from those that are not.
func (b *builder) split(list []uint32) (there, gone []uint32) {
	for _, rev := range list {
		if b.g.find(rev) >= 0 {
			there = append(there, rev)
		} else {
			gone = append(gone, rev)
		}
	}
	return there, gone
}

// revisions writes the tables by RevisionId and by UpdateID.
func (b *builder) revisions() error {
	b.w.begin(secRevisions)
	entry := make([]byte, 0, revisionEntryBytes)
	for i, n := range b.g.nodes {
		entry = revisionEntry{n.rev, n.number, n.id, b.graphAt[i], b.details[i]}.encode(entry[:0])
		if _, err := b.w.Write(entry); err != nil {
			return err
		}
	}
	order := make([]uint32, len(b.g.nodes))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(x, y uint32) int {
		a, b := &b.g.nodes[x], &b.g.nodes[y]
		return cmp.Or(bytes.Compare(a.id[:], b.id[:]), cmp.Compare(a.number, b.number), cmp.Compare(x, y))
	})
	b.w.begin(secIDs)
	for _, i := range order {
		if err := b.word(i); err != nil {
			return err
		}
	}
	return b.choose(order)
}

// choose makes a row of every update hosts can report, in the order of their
// UpdateIDs, of several revisions of one the newest.
func (b *builder) choose(byID []uint32) error {
	for k, i := range byID {
		n := &b.g.nodes[i]
		if n.flags&isEvaluated != 0 || n.flags&(isBundle|isPart) == isPart {
			continue
		}
		if k+1 < len(byID) && b.g.nodes[byID[k+1]].id == n.id {
			continue
		}
		b.rows.node = append(b.rows.node, i)
	}
	b.rows.resize(len(b.rows.node))
	return nil
}

// collect fills the rows and the words they are found by.
func (b *builder) collect() error {
	rowOf := make(map[uint32]int, len(b.rows.node))
	for row, node := range b.rows.node {
		rowOf[node] = row
	}
	titles := make([]string, len(b.rows.node))
	categoryTitles := map[GUID]string{}
	b.words, b.keys, b.sets = newVocabulary(), newVocabulary(), map[string]uint32{}
	err := b.eachDetail(func(node int, raw []byte) error {
		n := &b.g.nodes[node]
		if _, category := b.g.categoryNo[n.id]; category {
			d := decoder{b: raw}
			categoryTitles[n.id] = d.details().Title
		}
		row, ok := rowOf[uint32(node)]
		if !ok {
			return nil
		}
		d := decoder{b: raw}
		v := d.rowDetails()
		if d.bad {
			return errCorrupt
		}
		titles[row] = v.Title
		b.row(row, n, &v)
		return nil
	})
	if err != nil {
		return err
	}
	for row, node := range b.rows.node { // also those without details
		b.shape(row, &b.g.nodes[node], int(node))
	}
	b.rank(titles)
	b.rows.titles = make([]string, len(b.g.categories))
	for i, id := range b.g.categories {
		b.rows.titles[i] = categoryTitles[id]
	}
	b.productWords()
	return nil
}

// row takes in what a row's details say.
func (b *builder) row(row int, n *node, v *Details) {
	b.rows.severity[row] = severityNo(v.Severity)
	b.words.addText(v.Title, row)
	for _, kb := range v.KBs {
		b.keys.add("kb"+kb, row)
	}
	for _, cve := range v.CVEs {
		b.keys.add(cve, row)
	}
	if v.Bulletin != "" {
		b.keys.add(v.Bulletin, row)
	}
}

// shape takes in what the graph says of a row.
func (b *builder) shape(row int, n *node, node int) {
	r, refs := &b.rows, b.g.refsOf(n, &b.refs)
	r.id[row], r.revision[row], r.published[row] = n.id, n.rev, n.created
	if r.severity[row] == 0 {
		r.severity[row] = severityNo("")
	}
	if slices.ContainsFunc(refs.supersededBy, func(rev uint32) bool { return b.g.find(rev) >= 0 }) {
		r.superseded[row] = 1
	}
	r.class[row] = noCategory
	var products []uint32
	for _, c := range refs.classes {
		switch c.kind {
		case 'c':
			r.class[row] = uint16(c.no)
		case 'p':
			products = append(products, c.no)
		}
	}
	slices.Sort(products)
	var e encoder
	e.nums(slices.Compact(products))
	set, ok := b.sets[string(e)]
	if !ok {
		set = uint32(len(r.sets))
		b.sets[string(e)] = set
		r.sets = append(r.sets, slices.Compact(products))
	}
	r.set[row] = set
	r.size[row], r.restart[row] = b.sizeOf(node), b.restartOf(node)
}

// restartOf is what an update needs when it is installed: what it and its parts
// say, of which bundles often leave it to these.
func (b *builder) restartOf(node int) uint8 {
	no := b.restart[node]
	for _, p := range b.parts.of(node) {
		if part := b.restart[p]; part > 0 && (no == 0 || part < no) {
			no = part
		}
	}
	return no
}

// sizeOf is how much the distinct files of an update have that are no deltas.
func (b *builder) sizeOf(node int) (size int64) {
	var seen []uint32
	take := func(files []uint32) {
		for _, f := range files {
			if !b.deltas[f] {
				seen = append(seen, f)
			}
		}
	}
	take(b.g.refsOf(&b.g.nodes[node], &b.refs).files)
	for _, p := range b.parts.of(node) {
		take(b.g.refsOf(&b.g.nodes[p], &b.refs).files)
	}
	slices.Sort(seen)
	for _, f := range slices.Compact(seen) {
		size += b.sizes[f]
	}
	return size
}

// rank numbers the titles in their order; equal ones have the same number.
func (b *builder) rank(titles []string) {
	order := make([]uint32, len(titles))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(x, y uint32) int { return cmp.Compare(titles[x], titles[y]) })
	rank := uint32(0)
	for k, row := range order {
		if k > 0 && titles[row] != titles[order[k-1]] {
			rank++
		}
		b.rows.rank[row] = rank
	}
}

// productWords makes every row found by the words of its products' titles.
func (b *builder) productWords() {
	for row, set := range b.rows.set {
		for _, no := range b.rows.sets[set] {
			b.words.addText(b.rows.titles[no], row)
		}
	}
}

func (b *builder) tables() error {
	b.w.begin(secRows)
	if err := b.rows.write(b.w); err != nil {
		return err
	}
	var e encoder
	e.num(uint64(len(b.g.categories)))
	for i, id := range b.g.categories {
		e.bytes(id[:])
		e.str(b.rows.titles[i])
	}
	e.num(uint64(len(b.rows.sets)))
	for _, set := range b.rows.sets {
		e.nums(set)
	}
	b.w.begin(secTables)
	_, err := b.w.Write(e)
	return err
}

func (b *builder) count() {
	c := &b.w.header.Counts
	c.Revisions, c.Updates, c.Categories, c.Files = len(b.g.nodes), len(b.rows.node), len(b.g.categories), len(b.g.files)
	for _, s := range b.rows.superseded {
		c.Superseded += int(s)
	}
}

// nameOf is the last segment of a URL: what the file is called in the folder.
func nameOf(url string) string {
	if url == "" {
		return ""
	}
	return path.Base(url)
}

func unixTime(s uint32) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(int64(s), 0).UTC()
}
