package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// printJSON writes v as the API sent it, indented.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// A grid prints rows in columns.
type grid struct{ w *tabwriter.Writer }

func newGrid(w io.Writer, heads ...string) grid {
	g := grid{tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)}
	g.row(heads...)
	return g
}

func (g grid) row(cells ...string) {
	for i, c := range cells {
		cells[i] = oneLine(c)
	}
	fmt.Fprintln(g.w, strings.Join(cells, "\t"))
}

// oneLine is text without control characters: a hostile name moves no cursor.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
}

func (g grid) flush() error { return g.w.Flush() }

// size says n bytes in the unit people read.
func size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.0f kB", float64(n)/1e3)
	default:
		return fmt.Sprintf("%d B", n)
	}
}

// when says a time in the reader's zone, or what its absence means.
func when(t time.Time, never string) string {
	if t.IsZero() {
		return never
	}
	return t.Local().Format("2006-01-02 15:04")
}

// count says n things: "1 host", "2 hosts".
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
