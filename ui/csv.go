package ui

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A table is what a page lists, whole, for a spreadsheet: with the filter of
// the page and without its pages.
type table struct {
	name string // of the file, without the node and the day
	head []string
	rows iter.Seq2[row, error]
}

// A row has a cell for each column: a string, a number, a bool, or a time. A
// zero time is an empty cell.
type row []any

// save answers with a table. The file is named after its path.
func save(name string, head []string, rows iter.Seq2[row, error]) reply {
	return reply{status: http.StatusOK, table: &table{name, head, rows}}
}

// rowsOf makes rows of a list that is there whole.
func rowsOf[T any](list []T, cells func(T) row) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		for _, v := range list {
			if !yield(cells(v), nil) {
				return
			}
		}
	}
}

// rowsFrom makes rows of a list that comes bit by bit.
func rowsFrom[T any](list iter.Seq2[T, error], cells func(T) row) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		for v, err := range list {
			var r row
			if err == nil {
				r = cells(v)
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// sure is a list none of whose values can be an error.
func sure[T any](list iter.Seq[T]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for v := range list {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// pages is a list that is read page by page, next naming the page after.
func pages[T any](read func(after string) (list []T, next string, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for after := ""; ; {
			list, next, err := read(after)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, v := range list {
				if !yield(v, nil) {
					return
				}
			}
			if after = next; after == "" {
				return
			}
		}
	}
}

// text is a cell as the file has it. Spreadsheets run what begins like a
// formula, and a host may call itself anything: such text gets an apostrophe
// before it, which they take for "this is text". Times are UTC, in the form
// that spreadsheets read as times.
func text(cell any) string {
	switch v := cell.(type) {
	case string:
		if r, _ := utf8.DecodeRuneInString(v); v != "" && strings.ContainsRune("=+-@\t\r\n＝＋－＠", r) {
			return "'" + v
		}
		return v
	case time.Time:
		if v.IsZero() {
			return ""
		}
		return v.UTC().Format(time.DateTime)
	case bool:
		return strings.ToUpper(strconv.FormatBool(v))
	default:
		return fmt.Sprint(v) // a number
	}
}

// csvPiece is how many bytes of a table are written at once: nothing larger is
// held.
const csvPiece = 32 << 10

// writeTable writes a table row by row. An error before the first piece is
// returned; a later one breaks the connection, for a file that ends early must
// not look whole.
func (u *UI) writeTable(w http.ResponseWriter, r *http.Request, t *table) error {
	var buf bytes.Buffer
	buf.WriteString("\ufeff") // without it spreadsheets guess another encoding
	out := csv.NewWriter(&buf)
	out.UseCRLF = true
	begun := false
	flush := func() error {
		out.Flush()
		if !begun {
			begun = true
			h := w.Header()
			h.Set("Content-Type", "text/csv; charset=utf-8; header=present")
			h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=\"wuamesh-%s-%s.csv\"", t.name, time.Now().Format(time.DateOnly)))
		}
		_, err := buf.WriteTo(w)
		return err
	}
	out.Write(t.head) // into memory
	cells := make([]string, len(t.head))
	for row, err := range t.rows {
		if err == nil {
			for i := range cells {
				cells[i] = text(row[i])
			}
			out.Write(cells)
			if out.Flush(); buf.Len() < csvPiece {
				continue
			}
			err = flush()
		}
		switch {
		case err != nil && !begun:
			return err
		case err != nil:
			if r.Context().Err() == nil {
				u.log.WarnContext(r.Context(), "table not written whole", "path", r.URL.Path, "err", err)
			}
			panic(http.ErrAbortHandler)
		}
	}
	return flush()
}
