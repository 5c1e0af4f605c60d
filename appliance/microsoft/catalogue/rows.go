package catalogue

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"
)

// severities are Microsoft's, gravest first; a row holds a number of these
// from 1 on.
var severities = []string{"Critical", "Important", "Moderate", "Low", "Unspecified"}

// severityNo is a severity's number; of one nobody knows that of Unspecified.
func severityNo(s string) uint8 {
	for i, known := range severities {
		if strings.EqualFold(s, known) {
			return uint8(i + 1)
		}
	}
	return uint8(len(severities))
}

// restarts are Microsoft's words for what an update needs afterwards, the
// gravest first; a row holds a number of these, 0 when nothing is said.
var restarts = []string{"", "AlwaysRequiresReboot", "CanRequestReboot", "NeverReboots"}

// restartNo is the number of a word; of one nobody knows that of none.
func restartNo(b []byte) uint8 {
	for i, known := range restarts {
		if string(b) == known {
			return uint8(i)
		}
	}
	return 0
}

// A Month is one of the calendar, in UTC: months since the year 0. 0 is that of
// what has no date.
type Month uint16

// MonthOf is the month of a time in Unix seconds.
func MonthOf(seconds int64) Month {
	if seconds <= 0 {
		return 0
	}
	year, month, _ := time.Unix(seconds, 0).UTC().Date()
	return Month(year*12 + int(month) - 1)
}

// Begins is the month's first moment.
func (m Month) Begins() time.Time {
	return time.Date(int(m/12), time.Month(m%12)+1, 1, 0, 0, 0, 0, time.UTC)
}

// noCategory is the classification of what has none.
const noCategory = 1<<16 - 1

// rows are the updates that hosts can report, column by column, in the order
// of their UpdateIDs: what a search looks at, 45 bytes for each.
type rows struct {
	id         []GUID
	revision   []uint32
	published  []uint32 // Unix seconds
	rank       []uint32 // of the title among all titles
	set        []uint32 // of products, a number in sets
	size       []int64  // bytes of its files
	class      []uint16 // number of a category, noCategory for none
	severity   []uint8
	superseded []uint8 // 1 when it is
	restart    []uint8 // number of a word

	month  []uint16 // of published, a number in months; once read
	months []Month

	categories []GUID
	category   map[GUID]int // number by id, once read
	titles     []string     // of the categories
	sets       [][]uint32   // numbers of categories
	node       []uint32     // while it is built
}

func (r *rows) resize(n int) {
	r.id, r.revision, r.published, r.rank, r.set = make([]GUID, n), make([]uint32, n), make([]uint32, n), make([]uint32, n), make([]uint32, n)
	r.size, r.class, r.severity, r.superseded, r.restart = make([]int64, n), make([]uint16, n), make([]uint8, n), make([]uint8, n), make([]uint8, n)
}

// rowBytes is what a row takes in the file.
const rowBytes = 16 + 4*4 + 8 + 2 + 1 + 1 + 1

// columns are all of a fixed width, in the order they are written.
func (r *rows) columns() []any {
	return []any{r.id, r.revision, r.published, r.rank, r.set, r.size, r.class, r.severity, r.superseded, r.restart}
}

func (r *rows) write(w *fileWriter) error {
	for _, c := range r.columns() {
		if err := binary.Write(w, binary.LittleEndian, c); err != nil {
			return err
		}
	}
	return nil
}

// decodeRows reads what write and builder.tables wrote.
func decodeRows(columns, tables []byte) (*rows, error) {
	r := new(rows)
	r.resize(len(columns) / rowBytes)
	for _, c := range r.columns() {
		n, err := binary.Decode(columns, binary.LittleEndian, c)
		if err != nil {
			return nil, errCorrupt
		}
		columns = columns[n:]
	}
	d := decoder{b: tables}
	r.category = map[GUID]int{}
	for range d.count(17) {
		var id GUID
		copy(id[:], d.take(16))
		r.category[id] = len(r.categories)
		r.categories = append(r.categories, id)
		r.titles = append(r.titles, d.str())
	}
	for range d.count(1) {
		r.sets = append(r.sets, d.nums())
	}
	known := func(no uint32) bool { return int(no) < len(r.categories) }
	sound := !d.bad && len(d.b) == 0
	r.calendar()
	for i := range r.id {
		sound = sound && int(r.set[i]) < len(r.sets) && (r.class[i] == noCategory || known(uint32(r.class[i]))) && r.severity[i] >= 1 && int(r.severity[i]) <= len(severities) && int(r.restart[i]) < len(restarts)
	}
	for _, set := range r.sets {
		sound = sound && !slices.ContainsFunc(set, func(no uint32) bool { return !known(no) })
	}
	if !sound {
		return nil, errCorrupt
	}
	return r, nil
}

// calendar sorts rows into months.
func (r *rows) calendar() {
	r.month = make([]uint16, len(r.published))
	number := map[Month]uint16{}
	for i, p := range r.published {
		m := MonthOf(int64(p))
		no, ok := number[m]
		if !ok {
			no = uint16(len(r.months))
			number[m] = no
			r.months = append(r.months, m)
		}
		r.month[i] = no
	}
}

// find is the row of an UpdateID, -1 for none.
func (r *rows) find(id GUID) int {
	if i, ok := slices.BinarySearchFunc(r.id, id, compareGUID); ok {
		return i
	}
	return -1
}
