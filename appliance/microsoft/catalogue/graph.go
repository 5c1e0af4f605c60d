package catalogue

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of what package.xml may say, several times what it says today: 137,000
// revisions, 97,000 files, 119 references of one update.
const (
	maxRevisions  = 1_000_000
	maxFiles      = 2_000_000
	maxReferences = 20_000
	maxURL        = 2_000
	maxLanguages  = 250
	maxCategories = 20_000
	maxArena      = 512 << 20
)

// ErrTooMuch is what every complaint about a bound wraps.
var ErrTooMuch = errors.New("more than any scan cab has")

// A graph is package.xml: every revision and how they hang together, without
// titles. It is kept small: a real one has 114 MB of XML.
type graph struct {
	packageID string
	created   time.Time

	nodes []node
	refs  []byte // of all nodes, encoded; see node.refs

	categories []GUID
	categoryNo map[GUID]uint32
	languages  []string
	languageNo map[string]uint8

	files  [][20]byte // SHA-1
	fileNo map[[20]byte]uint32
	urls   []byte // of all files, one after the other
	urlAt  []span // by file
}

type span struct{ at, size uint32 }

// A node is one revision.
type node struct {
	id       GUID
	rev      uint32
	number   uint32
	created  uint32 // Unix seconds
	at       uint32 // of its refs
	flags    nodeFlags
	language uint8 // its default one
}

type nodeFlags uint8

const (
	isBundle nodeFlags = 1 << iota
	isPart             // DeploymentAction="Bundle"
	isEvaluated
)

// references are what a node points at.
type references struct {
	classes      []categoryRef
	supersededBy []uint32 // RevisionIds, also such as do not exist
	bundledBy    []uint32
	languages    []uint32
	files        []uint32 // numbers
}

type categoryRef struct {
	kind byte // 'c' classification, 'p' product, 'f' family, 'm' company (manufacturer)
	no   uint32
}

var categoryKinds = map[string]byte{"UpdateClassification": 'c', "Product": 'p', "ProductFamily": 'f', "Company": 'm'}

func (r *references) reset() {
	*r = references{r.classes[:0], r.supersededBy[:0], r.bundledBy[:0], r.languages[:0], r.files[:0]}
}

func (r *references) size() int {
	return len(r.classes) + len(r.supersededBy) + len(r.bundledBy) + len(r.languages) + len(r.files)
}

func (r *references) encode(b []byte) []byte {
	e := encoder(b)
	e.num(uint64(len(r.classes)))
	for _, c := range r.classes {
		e = append(e, c.kind)
		e.num(uint64(c.no))
	}
	for _, list := range [][]uint32{r.supersededBy, r.bundledBy, r.languages, r.files} {
		e.nums(list)
	}
	return e
}

// references decodes into r, whose slices are used again.
func (d *decoder) references(r *references) {
	r.reset()
	for range d.count(2) {
		if kind := d.take(1); kind != nil {
			r.classes = append(r.classes, categoryRef{kind[0], d.num32()})
		}
	}
	for _, list := range []*[]uint32{&r.supersededBy, &r.bundledBy, &r.languages, &r.files} {
		for range d.count(1) {
			*list = append(*list, d.num32())
		}
	}
}

// refsOf decodes what a node points at into r, and returns it.
func (g *graph) refsOf(n *node, r *references) *references {
	d := decoder{b: g.refs[n.at:]}
	d.references(r)
	return r
}

// find is the index of a revision, -1 for none. The nodes are sorted.
func (g *graph) find(rev uint32) int {
	if i, ok := slices.BinarySearchFunc(g.nodes, rev, func(n node, rev uint32) int { return cmp.Compare(n.rev, rev) }); ok {
		return i
	}
	return -1
}

// readGraph reads package.xml.
func readGraph(r io.Reader) (*graph, error) {
	p := packageReader{g: &graph{categoryNo: map[GUID]uint32{}, languageNo: map[string]uint8{}, fileNo: map[[20]byte]uint32{}}}
	p.s.reset(r)
	if err := p.read(); err != nil {
		return nil, fmt.Errorf("read package.xml: %w", err)
	}
	if len(p.g.nodes) == 0 {
		return nil, fmt.Errorf("read package.xml: %w", badXML("no update in it"))
	}
	if err := p.g.order(); err != nil {
		return nil, fmt.Errorf("read package.xml: %w", err)
	}
	return p.g, nil
}

// order sorts the nodes and refuses revisions that come twice.
func (g *graph) order() error {
	slices.SortFunc(g.nodes, func(x, y node) int { return cmp.Compare(x.rev, y.rev) })
	for i := 1; i < len(g.nodes); i++ {
		if g.nodes[i].rev == g.nodes[i-1].rev {
			return badXML("revision %d comes twice", g.nodes[i].rev)
		}
	}
	return nil
}

// A packageReader takes package.xml in, event by event.
type packageReader struct {
	s    scanner
	g    *graph
	node node
	refs references
	in   string // the list that is open: PayloadFiles, SupersededBy …
	open bool   // an Update is
}

func (p *packageReader) read() error {
	for {
		ev, err := p.s.next()
		switch {
		case err == io.EOF && !p.open:
			return nil
		case err == io.EOF:
			return badXML("it ends within an update")
		case err != nil:
			return err
		}
		switch ev {
		case opened:
			err = p.start()
		case closed:
			err = p.end()
		}
		if err != nil {
			return err
		}
	}
}

func (p *packageReader) start() error {
	switch string(p.s.name) {
	case "Update":
		return p.update()
	case "Revision", "File", "Category", "Language":
		if p.open {
			return p.reference()
		}
	case "FileLocation":
		return p.location()
	case "PayloadFiles", "EulaFiles", "Prerequisites", "Languages", "BundledBy", "SupersededBy", "Categories":
		if p.open && p.in == "" {
			p.in = string(p.s.name)
		}
	case "OfflineSyncPackage":
		id, err := p.text("PackageId", 64)
		if err != nil {
			return err
		}
		p.g.packageID = id
		p.g.created, err = p.time("CreationDate")
		return err
	}
	return nil
}

func (p *packageReader) end() error {
	switch string(p.s.name) {
	case p.in:
		p.in = ""
	case "Update":
		if !p.open {
			return badXML("an update ends that did not begin")
		}
		p.open, p.in = false, ""
		if len(p.g.refs) > maxArena {
			return fmt.Errorf("%w: references", ErrTooMuch)
		}
		p.node.at = uint32(len(p.g.refs))
		p.g.refs = p.refs.encode(p.g.refs)
		p.g.nodes = append(p.g.nodes, p.node)
	}
	return nil
}

// update begins a revision.
func (p *packageReader) update() error {
	if p.open {
		return badXML("an update within an update")
	}
	if len(p.g.nodes) == maxRevisions {
		return fmt.Errorf("%w: %d revisions", ErrTooMuch, maxRevisions)
	}
	p.open, p.node = true, node{}
	p.refs.reset()
	id, err := p.s.attr("UpdateId")
	if err == nil {
		p.node.id, err = parseGUID(id)
	}
	if err != nil {
		return badXML("UpdateId %.60q", id)
	}
	if p.node.rev, err = p.number("RevisionId"); err != nil {
		return err
	}
	if p.node.number, err = p.number("RevisionNumber"); err != nil {
		return err
	}
	created, err := p.time("CreationDate")
	if err != nil {
		return err
	}
	p.node.created = uint32(max(created.Unix(), 0))
	lang, err := p.text("DefaultLanguage", 20)
	if err != nil {
		return err
	}
	no, err := p.languageNo(lang)
	p.node.language = uint8(no)
	if err != nil {
		return err
	}
	return p.flags()
}

func (p *packageReader) flags() error {
	for _, f := range []struct {
		name, value string
		flag        nodeFlags
	}{{"IsBundle", "true", isBundle}, {"DeploymentAction", "Bundle", isPart}, {"DeploymentAction", "Evaluate", isEvaluated}} {
		v, err := p.s.attr(f.name)
		if err != nil {
			return err
		}
		if strings.EqualFold(string(v), f.value) {
			p.node.flags |= f.flag
		}
	}
	return nil
}

// reference is one entry of the list that is open.
func (p *packageReader) reference() error {
	if p.refs.size() > maxReferences {
		return fmt.Errorf("%w: references of revision %d", ErrTooMuch, p.node.rev)
	}
	switch string(p.s.name) + p.in {
	case "RevisionSupersededBy":
		return p.revision(&p.refs.supersededBy)
	case "RevisionBundledBy":
		return p.revision(&p.refs.bundledBy)
	case "FilePayloadFiles":
		no, err := p.fileNo()
		p.refs.files = append(p.refs.files, no)
		return err
	case "CategoryCategories":
		return p.category()
	case "LanguageLanguages":
		name, err := p.text("Name", 20)
		if err != nil {
			return err
		}
		no, err := p.languageNo(name)
		p.refs.languages = append(p.refs.languages, no)
		return err
	}
	return nil
}

func (p *packageReader) revision(list *[]uint32) error {
	no, err := p.number("Id")
	*list = append(*list, no)
	return err
}

func (p *packageReader) category() error {
	raw, err := p.s.attr("Type")
	if err != nil {
		return err
	}
	kind, known := categoryKinds[string(raw)]
	if !known {
		return nil
	}
	if raw, err = p.s.attr("Id"); err != nil {
		return err
	}
	id, err := parseGUID(raw)
	if err != nil {
		return badXML("category %.60q", raw)
	}
	no, ok := p.g.categoryNo[id]
	if !ok {
		if len(p.g.categories) == maxCategories {
			return fmt.Errorf("%w: categories", ErrTooMuch)
		}
		no = uint32(len(p.g.categories))
		p.g.categoryNo[id] = no
		p.g.categories = append(p.g.categories, id)
	}
	p.refs.classes = append(p.refs.classes, categoryRef{kind, no})
	return nil
}

func (p *packageReader) languageNo(name string) (uint32, error) {
	no, ok := p.g.languageNo[name]
	if !ok {
		if len(p.g.languages) == maxLanguages {
			return 0, fmt.Errorf("%w: languages", ErrTooMuch)
		}
		no = uint8(len(p.g.languages))
		p.g.languageNo[name] = no
		p.g.languages = append(p.g.languages, name)
	}
	return uint32(no), nil
}

// fileNo is the number of the file whose Id, its SHA-1, is given.
func (p *packageReader) fileNo() (uint32, error) {
	raw, err := p.s.attr("Id")
	if err != nil {
		return 0, err
	}
	sum, ok := parseSHA1(raw)
	if !ok {
		return 0, badXML("file %.60q", raw)
	}
	no, ok := p.g.fileNo[sum]
	if !ok {
		if len(p.g.files) == maxFiles {
			return 0, fmt.Errorf("%w: %d files", ErrTooMuch, maxFiles)
		}
		no = uint32(len(p.g.files))
		p.g.fileNo[sum] = no
		p.g.files = append(p.g.files, sum)
		p.g.urlAt = append(p.g.urlAt, span{})
	}
	return no, nil
}

// location is where a file lies at Microsoft.
func (p *packageReader) location() error {
	no, err := p.fileNo()
	if err != nil {
		return err
	}
	url, err := p.s.attr("Url")
	if err != nil {
		return err
	}
	if len(url) > maxURL || len(p.g.urls) > maxArena {
		return fmt.Errorf("%w: a URL of %d bytes", ErrTooMuch, len(url))
	}
	p.g.urlAt[no] = span{uint32(len(p.g.urls)), uint32(len(url))}
	p.g.urls = append(p.g.urls, url...)
	return nil
}

func (g *graph) url(file uint32) string {
	s := g.urlAt[file]
	return string(g.urls[s.at : s.at+s.size])
}

// number reads an attribute that must be there.
func (p *packageReader) number(name string) (uint32, error) {
	raw, err := p.s.attr(name)
	if err != nil {
		return 0, err
	}
	n, ok := parseNumber(raw)
	if !ok {
		return 0, badXML("%s %.20q", name, raw)
	}
	return n, nil
}

func (p *packageReader) text(name string, longest int) (string, error) {
	raw, err := p.s.attr(name)
	if err != nil {
		return "", err
	}
	return clean(raw, longest), nil
}

// time reads a time that may be missing.
func (p *packageReader) time(name string) (time.Time, error) {
	raw, err := p.s.attr(name)
	if err != nil || len(raw) == 0 {
		return time.Time{}, err
	}
	return parseTime(raw)
}

func parseNumber(b []byte) (uint32, bool) {
	if len(b) == 0 || len(b) > 10 {
		return 0, false
	}
	n := uint64(0)
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return uint32(n), n < 1<<32
}

// parseTime reads Microsoft's usual form quickly and any of RFC 3339 else.
func parseTime(b []byte) (time.Time, error) {
	if len(b) == 20 && b[4] == '-' && b[7] == '-' && b[10] == 'T' && b[13] == ':' && b[16] == ':' && b[19] == 'Z' {
		var n [6]int
		ok := true
		for i, at := range []int{0, 5, 8, 11, 14, 17} {
			v, sound := parseNumber(b[at : at+[]int{4, 2, 2, 2, 2, 2}[i]])
			n[i], ok = int(v), ok && sound
		}
		if ok && n[1] >= 1 && n[1] <= 12 && n[2] >= 1 && n[2] <= 31 && n[3] < 24 && n[4] < 60 && n[5] < 61 {
			return time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], 0, time.UTC), nil
		}
	}
	for _, form := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateOnly} {
		if t, err := time.Parse(form, string(b)); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, badXML("time %.40q", b)
}

func parseSHA1(b []byte) (sum [20]byte, ok bool) {
	var out [21]byte
	if len(b) != 28 {
		return sum, false
	}
	n, err := base64.StdEncoding.Decode(out[:], b)
	copy(sum[:], out[:])
	return sum, err == nil && n == len(sum)
}

// clean makes text of the cab's fit to be shown: bounded, valid UTF-8.
func clean(b []byte, longest int) string {
	b = bytes.TrimSpace(b)
	if len(b) > longest {
		b = b[:longest]
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}

// loops refuses bundles that contain themselves: nothing could be resolved to
// its files.
func (g *graph) loops() error {
	waits := make([]uint32, len(g.nodes)) // parts not yet seen through
	var refs references
	parents := func(i int, visit func(int)) {
		for _, rev := range g.refsOf(&g.nodes[i], &refs).bundledBy {
			if p := g.find(rev); p >= 0 {
				visit(p)
			}
		}
	}
	for i := range g.nodes {
		parents(i, func(p int) { waits[p]++ })
	}
	var ready []int
	for i, n := range waits {
		if n == 0 {
			ready = append(ready, i)
		}
	}
	seen := 0
	for ; len(ready) > 0; seen++ {
		i := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		parents(i, func(p int) {
			if waits[p]--; waits[p] == 0 {
				ready = append(ready, p)
			}
		})
	}
	if seen < len(g.nodes) {
		return badXML("%s bundles contain themselves", strconv.Itoa(len(g.nodes)-seen))
	}
	return nil
}
