package catalogue

import (
	"cmp"
	"slices"
)

// A selection filters rows, counts them, and keeps the first.
type selection struct {
	c     *Catalogue
	q     *Query
	limit int
	after place
	best  []place
	n     int

	severity   [6]bool // that are chosen; [0] when none is
	class      []bool  // by number; nil when none is chosen
	product    []bool  // by set; nil when none is chosen
	superseded [2]bool
	anyState   bool
	month      []bool // by number; nil when none is chosen
	restart    [4]bool
	anyRestart bool

	severities  [6]int
	classes     []int
	products    []int // by set, made into categories at the end
	superseding [2]int
	months      []int // by number
	restarting  [4]int
}

// A place is where a row comes in the order: key, then row.
type place struct {
	key uint64
	row int
}

func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(p.key, o.key), cmp.Compare(p.row, o.row))
}

func (c *Catalogue) newSelection(q *Query) *selection {
	r := c.rows
	s := &selection{c: c, q: q, limit: q.Limit, classes: make([]int, len(r.categories)), products: make([]int, len(r.sets)), anyState: len(q.Superseded) == 0,
		anyRestart: len(q.Restart) == 0, months: make([]int, len(r.months))}
	s.severity[0] = len(q.Severity) == 0
	for _, v := range q.Severity {
		if i := slices.Index(severities, v); i >= 0 {
			s.severity[i+1] = true
		}
	}
	chosen := func(ids []GUID) []bool {
		if len(ids) == 0 {
			return nil
		}
		is := make([]bool, len(r.categories))
		for i, id := range r.categories {
			is[i] = slices.Contains(ids, id)
		}
		return is
	}
	s.class = chosen(q.Classification)
	if is := chosen(q.Product); is != nil {
		s.product = make([]bool, len(r.sets))
		for i, set := range r.sets {
			s.product[i] = slices.ContainsFunc(set, func(no uint32) bool { return is[no] })
		}
	}
	for _, v := range q.Superseded {
		s.superseded[btoi(v)] = true
	}
	if len(q.Month) > 0 {
		s.month = make([]bool, len(r.months))
		for i, m := range r.months {
			s.month[i] = m != 0 && slices.Contains(q.Month, m)
		}
	}
	for _, v := range q.Restart {
		if i := slices.Index(restarts, v); i >= 0 {
			s.restart[i] = true
		}
	}
	return s
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A miss is a set of facets whose choice leaves a row out.
type miss uint8

const (
	missSeverity miss = 1 << iota
	missProduct
	missClass
	missOld
	missMonth
	missRestart
)

// but is whether nothing else than one facet leaves the row out: then the row
// counts there.
func (m miss) but(facet miss) bool { return m&^facet == 0 }

// misses looks at one row.
func (s *selection) misses(row int) (m miss) {
	r := s.c.rows
	if !s.severity[0] && !s.severity[r.severity[row]] {
		m |= missSeverity
	}
	if s.product != nil && !s.product[r.set[row]] {
		m |= missProduct
	}
	if class := r.class[row]; s.class != nil && (class == noCategory || !s.class[class]) {
		m |= missClass
	}
	if !s.anyState && !s.superseded[r.superseded[row]&1] {
		m |= missOld
	}
	if s.month != nil && !s.month[r.month[row]] {
		m |= missMonth
	}
	if !s.anyRestart && !s.restart[r.restart[row]] {
		m |= missRestart
	}
	return m
}

// take looks at one row that has the text.
func (s *selection) take(row int) {
	r, m := s.c.rows, s.misses(row)
	if m.but(missSeverity) {
		s.severities[r.severity[row]]++
	}
	if m.but(missProduct) {
		s.products[r.set[row]]++
	}
	if class := r.class[row]; class != noCategory && m.but(missClass) {
		s.classes[class]++
	}
	if m.but(missOld) {
		s.superseding[r.superseded[row]&1]++
	}
	if m.but(missMonth) {
		s.months[r.month[row]]++
	}
	if m.but(missRestart) {
		s.restarting[r.restart[row]]++
	}
	if m != 0 {
		return
	}
	s.n++
	if p := (place{s.key(row), row}); s.limit > 0 && p.compare(s.after) > 0 {
		s.keep(p)
	}
}

// keep holds the first limit places: it gathers twice as many and throws half
// of them away.
func (s *selection) keep(p place) {
	s.best = append(s.best, p)
	if len(s.best) >= 2*s.limit+64 {
		slices.SortFunc(s.best, place.compare)
		s.best = s.best[:s.limit]
	}
}

// key is what rows are ordered by; equal ones are in the order of UpdateIDs.
func (s *selection) key(row int) uint64 {
	r := s.c.rows
	return s.q.key(uint64(r.severity[row]), true, uint64(r.published[row]), titleKey(r.rank[row]))
}

// titleKey leaves room between titles for those the catalogue does not have.
func titleKey(rank uint32) uint64 { return uint64(rank)<<1 | 1 }

// key packs an order into a number, never 0. late says that it does not come
// ahead.
func (q *Query) key(severity uint64, late bool, published, title uint64) (k uint64) {
	behind := uint64(btoi(late))
	switch q.Sort {
	case ByTitle:
		k = title
	case ByPublished:
		k = published
	case ByNothing:
		k = behind
	default:
		k = severity<<40 | behind<<36 | (1<<32 - 1 - published)
	}
	if q.Down {
		k = 1<<60 - k
	}
	return k + 1
}

// keyOf is the place of q.After among the rows.
func (c *Catalogue) keyOf(q *Query) (place, error) {
	a, r := q.After, c.rows
	row, there := slices.BinarySearchFunc(r.id, a.ID, compareGUID)
	if !there {
		row-- // between two rows: behind the one before
	}
	title := uint64(0)
	if q.Sort == ByTitle {
		var err error
		if title, err = c.keyOfTitle(a.Title); err != nil {
			return place{}, err
		}
	}
	published := uint64(min(max(a.Published, 0), 1<<32-1))
	return place{q.key(uint64(severityNo(a.Severity)), !a.Ahead, published, title), row}, nil
}

// keyOfTitle is the key of a title: that of rows that have it, or between those of
// the titles around it.
func (c *Catalogue) keyOfTitle(title string) (uint64, error) {
	order := make([]uint32, len(c.rows.rank))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(x, y uint32) int { return cmp.Compare(c.rows.rank[x], c.rows.rank[y]) })
	var equal bool
	i, err := search(len(order), func(i int) (bool, error) {
		u, err := c.Revision(c.rows.revision[order[i]])
		if err != nil {
			return false, err
		}
		equal = equal || u.Title == title
		return u.Title < title, nil
	})
	if err != nil {
		return 0, err
	}
	if i == len(order) {
		return uint64(len(order)) << 1, nil
	}
	key := titleKey(c.rows.rank[order[i]])
	if !equal {
		key-- // before it, behind the one before
	}
	return key, nil
}

func (s *selection) result() *Result {
	r := s.c.rows
	res := &Result{Matching: s.n, Severity: map[string]int{}, Product: map[GUID]int{}, Classification: map[GUID]int{}, Superseded: map[bool]int{}, Restart: map[string]int{}, Month: map[Month]int{}}
	slices.SortFunc(s.best, place.compare)
	for _, p := range s.best[:min(len(s.best), s.limit)] {
		res.Rows = append(res.Rows, s.c.row(p.row))
	}
	for i, n := range s.severities {
		if n > 0 {
			res.Severity[severities[i-1]] = n
		}
	}
	for i, n := range s.classes {
		if n > 0 {
			res.Classification[r.categories[i]] = n
		}
	}
	for set, n := range s.products {
		for _, no := range r.sets[set] {
			if n > 0 {
				res.Product[r.categories[no]] += n
			}
		}
	}
	for i, n := range s.superseding {
		if n > 0 {
			res.Superseded[i == 1] = n
		}
	}
	for i, n := range s.restarting {
		if n > 0 {
			res.Restart[restarts[i]] = n
		}
	}
	for i, n := range s.months {
		if n > 0 && r.months[i] != 0 {
			res.Month[r.months[i]] = n
		}
	}
	return res
}
