package catalogue

import (
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"wuamesh/appliance/microsoft/cab"
)

// A Source is a scan cab whose signature was verified.
type Source struct {
	Cab    io.ReaderAt
	Size   int64  // bytes
	SHA256 string // of the whole file, hexadecimal: how the catalogue names it
}

// ImportOptions say how to import.
type ImportOptions struct {
	// Previous is an older catalogue, nil for none: of revisions that it has,
	// no fragment is read again.
	Previous *Catalogue
	// Workers unpack inner cabinets at once; 0 is one for each processor.
	Workers int
	// Progress is called now and then, by one goroutine at a time, with the
	// bytes of the cab that are done.
	Progress func(done int64)
}

// Bounds of what a cab may unpack to: a real one has 25 GB in 75 inner
// cabinets of at most 34 MB, package.xml has 114 MB.
const (
	maxUnpacked = 128 << 30
	maxInner    = 1 << 30
	maxGraph    = 4 << 30
	heldInner   = 48 << 20 // larger inner cabinets are streamed, on one core
)

// Import reads a scan cab and writes its catalogue to path, over an older one
// only when it is whole. It may be killed at any time; what it leaves behind
// then is a file beside path that the next import overwrites.
//
// The cab is read once where its order allows: index.xml and package.cab first,
// as Microsoft writes it. Otherwise it is read twice.
func Import(ctx context.Context, path string, src Source, o ImportOptions) (h Header, err error) {
	w, err := createFile(path + ".new")
	if err != nil {
		return h, err
	}
	defer func() {
		if err != nil {
			w.discard()
		}
	}()
	m := importer{src: src, o: o, w: w}
	if err := m.read(ctx); err != nil {
		return h, fmt.Errorf("import the scan cab: %w", err)
	}
	w.header.Source, w.header.PackageID, w.header.Created, w.header.Imported = src.SHA256, m.g.packageID, m.g.created, time.Now().UTC()
	b := builder{g: m.g, w: w, details: m.details}
	if err := b.build(ctx); err != nil {
		return h, fmt.Errorf("import the scan cab: %w", err)
	}
	return w.header, w.finish(path)
}

// An importer reads a cab up to every revision's details.
type importer struct {
	src Source
	o   ImportOptions

	g     *graph
	index []innerRange // in order of their beginnings; nil when the cab has no index
	done  map[string]bool

	mu      sync.Mutex // of all below, while inner cabinets are read
	w       *fileWriter
	details []span // in secDetails, by node; size 0 for none
	known   []bool // has details, or the previous catalogue says it has none
}

// An innerRange is which revisions an inner cabinet has: from its start to the
// next one's.
type innerRange struct {
	name  string
	start uint32
}

// read makes one pass over the cab, or two.
func (m *importer) read(ctx context.Context) error {
	m.done = map[string]bool{}
	late, err := m.pass(ctx)
	if err == nil && late {
		_, err = m.pass(ctx)
	}
	if err == nil && m.g == nil {
		err = errors.New("there is no package.cab in it")
	}
	return err
}

// pass reads the cab from front to end; late says that an inner cabinet came
// before package.cab, which tells what is needed of it.
func (m *importer) pass(ctx context.Context) (late bool, err error) {
	r := &countingReader{ctx: ctx, r: io.NewSectionReader(m.src.Cab, 0, m.src.Size), progress: m.o.Progress}
	outer, err := cab.NewReader(r, cab.Options{Member: maxInner, Total: 4 << 30})
	if err != nil {
		return false, err
	}
	pool := m.pool(ctx)
	defer func() { err = errors.Join(err, pool.wait()) }()
	for ctx.Err() == nil {
		f, err := outer.Next()
		if err == io.EOF {
			return late, nil
		}
		if err == nil {
			switch {
			case m.done[f.Name]:
			case f.Name == "index.xml":
				err = m.readIndex(outer)
			case f.Name == "package.cab":
				err = m.readPackage(outer)
			case !isInner(f.Name):
			case m.g == nil:
				late = true
				continue
			case m.needs(f.Name):
				err = pool.read(outer, f)
			}
			m.done[f.Name] = true
		}
		if err != nil {
			return late, fmt.Errorf("%s: %w", cmp.Or(f.Name, "the next member"), err)
		}
		if pool.failed() {
			return late, nil
		}
	}
	return late, ctx.Err()
}

func isInner(name string) bool {
	no, ok := strings.CutPrefix(name, "package")
	no, cab := strings.CutSuffix(no, ".cab")
	_, number := parseNumber([]byte(no))
	return ok && cab && number
}

// readIndex reads index.xml: a page of names and numbers.
func (m *importer) readIndex(r io.Reader) error {
	var index struct {
		Cabs []struct {
			Name  string `xml:"NAME,attr"`
			Start string `xml:"RANGESTART,attr"`
		} `xml:"CABLIST>CAB"`
	}
	b, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return err
	}
	if err := xml.Unmarshal(b, &index); err != nil {
		return badXML("%v", err)
	}
	for _, c := range index.Cabs {
		if n, err := strconv.ParseUint(c.Start, 10, 32); err == nil {
			m.index = append(m.index, innerRange{c.Name, uint32(n)})
		}
	}
	slices.SortStableFunc(m.index, func(x, y innerRange) int { return cmp.Compare(x.start, y.start) })
	return nil
}

// readPackage reads the graph, and takes over what is known of its revisions.
func (m *importer) readPackage(r io.Reader) error {
	inner, err := cab.NewReader(r, cab.Options{Member: maxGraph, Total: maxGraph})
	if err != nil {
		return err
	}
	for {
		f, err := inner.Next()
		if err == io.EOF {
			return errors.New("there is no package.xml in it")
		}
		if err != nil {
			return err
		}
		if f.Name != "package.xml" {
			continue
		}
		a := readAhead(inner)
		defer a.stop()
		if m.g, err = readGraph(a); err != nil {
			return err
		}
		if err := m.g.loops(); err != nil {
			return err
		}
		m.details, m.known = make([]span, len(m.g.nodes)), make([]bool, len(m.g.nodes))
		m.w.begin(secDetails)
		return m.takeOver()
	}
}

// takeOver copies the details of revisions that the previous catalogue has. A
// revision's never change, so they are not even looked at.
func (m *importer) takeOver() error {
	prev := m.o.Previous
	if prev == nil {
		return nil
	}
	entries, err := prev.entries()
	if err != nil {
		return nil // damaged: as if there were none
	}
	type copied struct {
		node int
		from span
	}
	var list []copied
	at := 0
	for i := range m.g.nodes {
		n := &m.g.nodes[i]
		for at < len(entries) && entries[at].rev < n.rev {
			at++
		}
		if at == len(entries) || entries[at].rev != n.rev || entries[at].id != n.id || entries[at].number != n.number {
			continue
		}
		m.known[i] = true
		if entries[at].details.size > 0 {
			list = append(list, copied{i, entries[at].details})
		}
	}
	slices.SortFunc(list, func(x, y copied) int { return cmp.Compare(x.from.at, y.from.at) })
	r := prev.section(secDetails)
	var buf []byte
	var have span // what buf holds
	for _, c := range list {
		if c.from.at < have.at || c.from.at+c.from.size > have.at+have.size {
			const chunk = 1 << 20
			have = span{c.from.at, max(chunk, c.from.size)}
			buf = slices.Grow(buf[:0], int(have.size))[:have.size]
			n, err := r.ReadAt(buf, int64(have.at))
			if err != nil && err != io.EOF {
				return err
			}
			have.size = uint32(n)
			if c.from.size > have.size {
				return errCorrupt
			}
		}
		from := c.from.at - have.at
		if err := m.keep(c.node, buf[from:from+c.from.size]); err != nil {
			return err
		}
	}
	return nil
}

// keep appends the details of a node. The lock is held, or nobody else is.
func (m *importer) keep(node int, b []byte) error {
	s := &m.w.header.Sections[secDetails]
	if s.Size+int64(len(b)) > 1<<32-1 {
		return fmt.Errorf("%w: details", ErrTooMuch)
	}
	m.details[node], m.known[node] = span{uint32(s.Size), uint32(len(b))}, true
	_, err := m.w.Write(b)
	return err
}

// needs says whether an inner cabinet has a revision that is not known yet.
// Microsoft moves the bounds from month to month; the index of the day tells.
func (m *importer) needs(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.o.Previous == nil || len(m.index) == 0 || m.index[0].start > m.g.nodes[0].rev {
		return true
	}
	for i, c := range m.index {
		if c.name != name {
			continue
		}
		end := uint64(1) << 32
		if i+1 < len(m.index) {
			end = uint64(m.index[i+1].start)
		}
		at, _ := slices.BinarySearchFunc(m.g.nodes, c.start, func(n node, rev uint32) int { return cmp.Compare(n.rev, rev) })
		for ; at < len(m.g.nodes) && uint64(m.g.nodes[at].rev) < end; at++ {
			if !m.known[at] {
				return true
			}
		}
		return false
	}
	return true // the index does not name it
}

// A pool reads inner cabinets, some at once.
type pool struct {
	m     *importer
	g     *errgroup.Group
	ctx   context.Context
	free  chan []byte // buffers, one for each cabinet that may be held
	inner sync.Pool   // of *innerReader
}

func (m *importer) pool(ctx context.Context) *pool {
	workers := cmp.Or(m.o.Workers, runtime.GOMAXPROCS(0))
	p := &pool{m: m, free: make(chan []byte, workers+1), inner: sync.Pool{New: func() any { return new(innerReader) }}}
	for range cap(p.free) {
		p.free <- nil
	}
	p.g, p.ctx = errgroup.WithContext(ctx)
	p.g.SetLimit(workers)
	return p
}

func (p *pool) wait() error  { return p.g.Wait() }
func (p *pool) failed() bool { return p.ctx.Err() != nil }

// read has a cabinet read by another goroutine, or by this one when it is too
// large to be held.
func (p *pool) read(r io.Reader, f cab.File) error {
	if f.Size > heldInner {
		return p.one(r)
	}
	var buf []byte
	select {
	case buf = <-p.free:
	case <-p.ctx.Done():
		return nil // wait tells why
	}
	if int64(cap(buf)) < f.Size {
		buf = make([]byte, f.Size, f.Size+f.Size/8)
	}
	buf = buf[:f.Size]
	if _, err := io.ReadFull(r, buf); err != nil {
		return err
	}
	p.g.Go(func() error {
		defer func() { p.free <- buf }()
		if err := p.one(bytes.NewReader(buf)); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		return p.ctx.Err()
	})
	return nil
}

func (p *pool) one(r io.Reader) error {
	in := p.inner.Get().(*innerReader)
	defer p.inner.Put(in)
	return in.read(p.ctx, p.m, r)
}

// An innerReader reads one inner cabinet after the other.
type innerReader struct {
	cab       cab.Reader
	fragments fragmentReader
	buf       []byte
}

func (in *innerReader) read(ctx context.Context, m *importer, r io.Reader) error {
	if err := in.cab.Reset(r, cab.Options{Member: maxInner, Total: maxUnpacked / 16}); err != nil {
		return err
	}
	in.fragments.found = map[uint32]*Details{}
	for n := 0; ; n++ {
		if n%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		f, err := in.cab.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := in.member(m, f.Name); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return m.keepAll(in)
}

// member reads one fragment, if it is one: c/<rev>, x/<rev>, l/<lang>/<rev>. A
// fragment that makes no sense is a problem, not the end: the cab is
// Microsoft's.
func (in *innerReader) member(m *importer, name string) error {
	dir, last := "", name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		dir, last = name[:i], name[i+1:]
	}
	rev, ok := parseNumber([]byte(last))
	if !ok {
		return nil
	}
	node := m.g.find(rev)
	if node < 0 || m.wasKnown(node) {
		return nil
	}
	var err error
	switch lang, localized := strings.CutPrefix(dir, "l/"); {
	case dir == "c":
		err = in.fragments.core(rev, &in.cab)
	case dir == "x":
		err = in.fragments.extended(rev, &in.cab)
	case localized && len(lang) <= 20:
		first := lang == "en" || lang == m.g.languages[m.g.nodes[node].language] && in.fragments.of(rev).Title == ""
		err = in.fragments.localized(rev, lang, first, &in.cab)
	}
	if err != nil && (errors.Is(err, errXML) || errors.Is(err, ErrTooMuch)) {
		m.problem(fmt.Sprintf("%s: %v", name, err))
		return nil
	}
	return err
}

// wasKnown says that a revision's details are there already. What this import
// itself keeps comes when a cabinet ends, so that no fragment is lost.
func (m *importer) wasKnown(node int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[node]
}

func (m *importer) problem(text string) {
	const shown = 20
	m.mu.Lock()
	defer m.mu.Unlock()
	m.w.header.Counts.Problems++
	if list := &m.w.header.Problems; len(*list) < shown {
		*list = append(*list, clean([]byte(text), 150))
	}
}

// keepAll appends the details of what a cabinet had.
func (m *importer) keepAll(in *innerReader) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for rev, d := range in.fragments.found {
		node := m.g.find(rev)
		if node < 0 || m.known[node] {
			continue
		}
		slices.Sort(d.Localized)
		in.buf = d.encode(in.buf[:0])
		if err := m.keep(node, in.buf); err != nil {
			return err
		}
	}
	clear(in.fragments.found)
	return nil
}

// A countingReader says how far it is, and ends with its context.
type countingReader struct {
	ctx      context.Context
	r        io.Reader
	n, told  int64
	progress func(int64)
}

func (c *countingReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.progress != nil && (c.n-c.told >= 1<<20 || err != nil) {
		c.told = c.n
		c.progress(c.n)
	}
	return n, err
}

// RemoveLeftovers deletes what an import that was killed left beside path.
func RemoveLeftovers(path string) error {
	if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove what an import left: %w", err)
	}
	return nil
}
