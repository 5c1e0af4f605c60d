package ui

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"wuamesh/appliance"
)

func (u *UI) overview(r *http.Request) (reply, error) {
	s, err := u.node.Status(r.Context())
	if err != nil {
		return reply{}, err
	}
	slices.SortStableFunc(s.Sites, func(x, y appliance.Compliance) int {
		return cmp.Compare(y.Hosts-y.Compliant, x.Hosts-x.Compliant)
	})
	return show(overviewPage(s)), nil
}

// sitesTable is every site for a spreadsheet.
func (u *UI) sitesTable(r *http.Request) (reply, error) {
	s, err := u.node.Status(r.Context())
	if err != nil {
		return reply{}, err
	}
	head := []string{"Site", "Hosts", "Compliant", "Pending", "Missing a file", "Not scanned lately"}
	return save("sites", head, rowsFrom(sure(slices.Values(s.Sites)), func(c appliance.Compliance) row {
		return row{c.Name, c.Hosts, c.Compliant, c.Pending, c.Missing, c.Unscanned}
	})), nil
}

func within(path, href string) bool { return path == href || strings.HasPrefix(path, href+"/") }

// sitesMost is how many sites the page names.
const sitesMost = 12

func needWork(n int) string {
	if n == 1 {
		return "1 needs work"
	}
	return num(n) + " need work"
}

// lackingURL are the hosts that are not compliant, of one site or ring, or all.
func lackingURL(key, name string) string {
	q := url.Values{"stand": {string(appliance.StandPending), string(appliance.StandMissing), string(appliance.StandUnscanned)}}
	if key != "" {
		q.Set(key, name)
	}
	return "/hosts?" + q.Encode()
}

// share is the part of hosts that are compliant, per cent with one decimal. It
// is never rounded to all of them.
func share(c appliance.Compliance) string {
	if c.Hosts == 0 {
		return "–"
	}
	tenths := c.Compliant * 1000 / c.Hosts
	return num(tenths/10) + "." + num(tenths%10)
}

func complianceParts(c appliance.Compliance) []part {
	return []part{
		{"f-ok", c.Compliant, num(c.Compliant) + " compliant"}, {"f-pen", c.Pending, num(c.Pending) + " with updates that wait"},
		{"f-mis", c.Missing, num(c.Missing) + " with files on no node"}, {"f-dis", c.Unscanned, num(c.Unscanned) + " not scanned lately"},
	}
}

// lacks says in a word what the hosts lack that are not compliant.
func lacks(c appliance.Compliance) string {
	if c.Compliant == c.Hosts {
		return "all compliant"
	}
	return labels(complianceParts(c)[1:])
}

// A trendShape is the line of compliant hosts, laid out over 640 by 176.
type trendShape struct {
	Text       string // the same in words
	First      string // day
	Line, Area string
	X, Y       int // of today
	Grid       []chartMark
	Marks      []chartMark // Patch Tuesdays
}

type chartMark struct {
	At    int
	Label string
}

// anchor keeps a mark's text within the drawing.
func (m chartMark) anchor() string {
	if m.At > chartRight-90 {
		return "end"
	}
	return "start"
}

const (
	chartLeft, chartRight = 30, 632
	chartTop, chartBottom = 18, 152
)

// trendOf lays the days out; with one day there is no line yet.
func trendOf(days []appliance.TrendDay) (c trendShape) {
	days = slices.DeleteFunc(slices.Clone(days), func(d appliance.TrendDay) bool { return d.Hosts == 0 })
	if len(days) < 2 {
		c.Text = "From tomorrow on a line shows here how it went, day by day."
		return c
	}
	per := func(d appliance.TrendDay) float64 { return 100 * float64(d.Compliant) / float64(d.Hosts) }
	least := days[0]
	for _, d := range days {
		if per(d) < per(least) {
			least = d
		}
	}
	floor := max(int(per(least))/10*10-10, 0)
	first, _ := time.Parse(time.DateOnly, days[0].Day)
	span := dayOf(days[len(days)-1]).Sub(first).Hours() / 24
	x := func(t time.Time) int {
		return chartLeft + int(t.Sub(first).Hours()/24/span*(chartRight-chartLeft))
	}
	y := func(p float64) int {
		return chartBottom - int((p-float64(floor))/float64(100-floor)*(chartBottom-chartTop))
	}
	for i, d := range days {
		c.X, c.Y = x(dayOf(d)), y(per(d))
		c.Line += fmt.Sprintf("%c%d %d", "ML"[min(i, 1)], c.X, c.Y)
	}
	c.Area = c.Line + fmt.Sprintf("L%d %dL%d %dZ", c.X, chartBottom, chartLeft, chartBottom)
	for p := 100; p >= floor; p -= max((100-floor)/40*10, 10) {
		c.Grid = append(c.Grid, chartMark{y(float64(p)), num(p)})
	}
	last := days[len(days)-1]
	for m := first.AddDate(0, 0, 1-first.Day()); !m.After(dayOf(last)); m = m.AddDate(0, 1, 0) {
		if t := patchTuesday(m); !t.Before(first) && !t.After(dayOf(last)) {
			c.Marks = append(c.Marks, chartMark{x(t), "Patch Tuesday, " + t.Format("2 Jan")})
		}
	}
	c.First = first.Format("2 Jan")
	c.Text = fmt.Sprintf("%.1f per cent on %s, at the least %.1f per cent on %s, %.1f per cent today.", per(days[0]), c.First, per(least), dayOf(least).Format("2 Jan"), per(last))
	return c
}

func dayOf(d appliance.TrendDay) time.Time {
	t, _ := time.Parse(time.DateOnly, d.Day)
	return t
}

// patchTuesday is the second Tuesday of a month, on which Microsoft publishes,
// of which day is the first.
func patchTuesday(day time.Time) time.Time {
	return day.AddDate(0, 0, int(time.Tuesday-day.Weekday()+7)%7+7)
}
