package ui_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"wuamesh/appliance"
	"wuamesh/ui"
)

var coordinates = regexp.MustCompile(`(?:M|L)(\d+) (\d+)`)

// TestTrendChart draws a month: within its box, with Patch Tuesday marked where
// it is, in words too, and days on which nothing was noted as a straight line.
func TestTrendChart(t *testing.T) {
	var days []appliance.TrendDay
	first := time.Date(2026, 10, 28, 0, 0, 0, 0, time.UTC)
	for n := range 30 {
		d := appliance.TrendDay{Day: first.AddDate(0, 0, n).Format(time.DateOnly), Hosts: 1000, Compliant: 980}
		switch {
		case n == 5 || n == 6:
			continue // the node was off
		case n == 13:
			d.Compliant = 612
		case n > 13:
			d.Compliant = 700 + 10*n
		}
		days = append(days, d)
	}
	draw := func(days []appliance.TrendDay) string {
		var b strings.Builder
		if err := ui.TrendChart(days).Render(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	page := draw(days)
	for _, want := range []string{"98.0 per cent on 28 Oct, at the least 61.2 per cent on 10 Nov, 99.0 per cent today.", "Patch Tuesday, 10 Nov", ">50</text>", ">100</text>", ">28 Oct</text>"} {
		if !strings.Contains(page, want) {
			t.Errorf("without %q:\n%s", want, page)
		}
	}
	if n := strings.Count(page, "Patch Tuesday,"); n != 1 {
		t.Errorf("%d Patch Tuesdays are marked", n)
	}
	last := -1
	line := coordinates.FindAllStringSubmatch(page[strings.Index(page, `class="ln"`):], -1)
	if len(line) != len(days) {
		t.Errorf("%d points for %d days", len(line), len(days))
	}
	for _, m := range line {
		x, _ := strconv.Atoi(m[1])
		y, _ := strconv.Atoi(m[2])
		if x <= last || x < 30 || x > 632 || y < 4 || y > 152 {
			t.Errorf("a point at %d, %d after %d", x, y, last)
		}
		last = x
	}
	for _, few := range [][]appliance.TrendDay{nil, days[:1], {{Day: "2026-11-01"}, days[0]}} {
		if page := draw(few); !strings.Contains(page, "From tomorrow on") {
			t.Errorf("%v is drawn as\n%s", few, page)
		}
	}
	for _, level := range []int{0, 5, 1000} { // nobody, hardly anybody, everybody
		flat := []appliance.TrendDay{{Day: "2026-11-01", Hosts: 1000, Compliant: level}, {Day: "2026-11-02", Hosts: 1000, Compliant: level}}
		if page := draw(flat); !strings.Contains(page, fmt.Sprintf("%.1f per cent today", float64(level)/10)) || strings.Contains(page, "-") && strings.Contains(page, `"-`) {
			t.Errorf("%d of 1000 is drawn as\n%s", level, page)
		}
	}
}
