package appliance

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"wuamesh/replicate/swarm"
)

// A LimitForm is a site's limits as people type them: rates in Mbit/s, "nothing"
// or "no limit"; budgets in GB.
type LimitForm struct {
	Rates   map[Line]string // at all times that no window has; empty for no limit
	Months  map[Line]string // a calendar month; empty for no limit
	Windows []LimitWindow   // of each line the first that fits counts
}

// A LimitWindow is a part of the week in which other rates hold, in the nodes'
// local time. One of which nothing is said is left out.
type LimitWindow struct {
	Days     string // "every day", "Mon-Fri", "Sat,Sun": on which it begins
	From, To string // "07:00"; To may lie before From, alike for the whole day
	Rate     string // a number of Mbit/s, "nothing" or "no limit"
	Lines    []Line
}

// BudgetLines are the lines that a month's budget makes sense for.
var BudgetLines = []Line{FromSites, ToSites, FromMicrosoft}

// Limits are the form's, or what is wrong with it, by field.
func (f LimitForm) Limits() (l Limits, err error) {
	for _, line := range Lines {
		p := l.Plan(line)
		if p.Rate, err = parseRate("rate_"+string(line), f.Rates[line]); err != nil {
			return l, err
		}
		if p.Month, err = parseGB("month_"+string(line), f.Months[line]); err != nil {
			return l, err
		}
	}
	for i, w := range f.Windows {
		if strings.TrimSpace(w.From+w.To+w.Rate) == "" {
			continue
		}
		window, err := w.window(fmt.Sprintf("window_%d", i))
		if err != nil {
			return l, err
		}
		for _, line := range w.Lines {
			p := l.Plan(line)
			p.Windows = append(p.Windows, window)
		}
	}
	return l, l.check()
}

// window is the window as plans have it.
func (w LimitWindow) window(field string) (window swarm.Window, err error) {
	if window.Days, err = parseDays(field, w.Days); err != nil {
		return window, err
	}
	if window.From, err = parseMinute(field, w.From); err != nil {
		return window, err
	}
	if window.To, err = parseMinute(field, w.To); err != nil {
		return window, err
	}
	switch {
	case len(w.Lines) == 0:
		return window, &Problem{Kind: Invalid, Field: field, Msg: "A window is for at least one line.", Hint: "Choose whether it is for what comes from other sites, from Microsoft, or another line."}
	case strings.TrimSpace(w.Rate) == "":
		return window, &Problem{Kind: Invalid, Field: field, Msg: "A window has a rate.", Hint: "Type a number of Mbit/s, or nothing, or no limit."}
	}
	for _, line := range w.Lines {
		if !slices.Contains(Lines, line) {
			return window, &Problem{Kind: Invalid, Field: field, Msg: fmt.Sprintf("There is no line %.40q.", line), Hint: "The lines are " + lineWords() + "."}
		}
	}
	window.Rate, err = parseRate(field, w.Rate)
	return window, err
}

func lineWords() string {
	var list []string
	for _, l := range Lines {
		list = append(list, string(l))
	}
	return strings.Join(list, ", ")
}

// Form is the limits as people type them.
func (l Limits) Form() LimitForm {
	f := LimitForm{Rates: map[Line]string{}, Months: map[Line]string{}}
	for _, line := range Lines {
		p := l.Plan(line)
		if p.Rate != 0 {
			f.Rates[line] = rateWord(p.Rate)
		}
		if p.Month != 0 {
			f.Months[line] = decimalText(float64(p.Month) / 1e9)
		}
		at := 0
		for _, w := range p.Windows {
			at = f.add(windowOf(w), line, at) + 1
		}
	}
	return f
}

// add takes a window of one line in: into one of another line that says the
// same and stands at that place or behind it, else at that place. It returns
// where the window is. The windows of each line keep their order by that.
func (f *LimitForm) add(w LimitWindow, line Line, at int) int {
	for i := at; i < len(f.Windows); i++ {
		o := &f.Windows[i]
		if o.Days == w.Days && o.From == w.From && o.To == w.To && o.Rate == w.Rate && !slices.Contains(o.Lines, line) {
			o.Lines = append(o.Lines, line)
			return i
		}
	}
	w.Lines = []Line{line}
	f.Windows = slices.Insert(f.Windows, at, w)
	return at
}

func windowOf(w swarm.Window) LimitWindow {
	return LimitWindow{Days: daysText(w.Days), From: minuteText(w.From), To: minuteText(w.To), Rate: rateWord(w.Rate)}
}

// What is typed for rates that are no numbers.
const (
	wordNothing = "nothing"
	wordNoLimit = "no limit"
)

func rateWord(rate int64) string {
	switch rate {
	case 0:
		return wordNoLimit
	case swarm.Never:
		return wordNothing
	}
	return decimalText(float64(rate) * 8 / 1e6)
}

func decimalText(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func parseRate(field, text string) (int64, error) {
	switch text = strings.ToLower(strings.TrimSpace(text)); text {
	case "", wordNoLimit:
		return 0, nil
	case wordNothing:
		return swarm.Never, nil
	}
	n, ok := number(strings.TrimSpace(strings.TrimSuffix(text, "mbit/s")))
	if !ok {
		return 0, &Problem{Kind: Invalid, Field: field, Msg: fmt.Sprintf("%.40q is no rate.", text), Hint: "Type a number of Mbit/s such as 2.5, or nothing, or no limit."}
	}
	return whole(n * 1e6 / 8), nil
}

func parseGB(field, text string) (int64, error) {
	text = strings.ToLower(strings.TrimSpace(text))
	if text == "" || text == wordNoLimit {
		return 0, nil
	}
	n, ok := number(strings.TrimSpace(strings.TrimSuffix(text, "gb")))
	if !ok {
		return 0, &Problem{Kind: Invalid, Field: field, Msg: fmt.Sprintf("%.40q is no budget.", text), Hint: "Type a number of GB a month, or nothing at all for no limit."}
	}
	return whole(n * 1e9), nil
}

// number reads a number of up to a million; a comma is a decimal point.
func number(text string) (float64, bool) {
	n, err := strconv.ParseFloat(strings.Replace(text, ",", ".", 1), 64)
	return n, err == nil && n >= 0 && n <= 1e6
}

// whole rounds a limit, which if somebody sets one is never rounded to none.
func whole(n float64) int64 {
	if n > 0 {
		return max(int64(math.Round(n)), 1)
	}
	return 0
}

// Weekdays are the days as they are typed, Monday first.
var Weekdays = []string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}

const everyDay = "every day"

// DayChoices are days that forms offer.
var DayChoices = append([]string{everyDay, "Mon-Fri", "Sat,Sun"}, Weekdays...)

// daysText says days as parseDays reads them.
func daysText(days []time.Weekday) string {
	on := [7]bool{} // Monday first
	n := 0
	for _, d := range days {
		if i := (int(d) + 6) % 7; !on[i] {
			on[i] = true
			n++
		}
	}
	if n == 0 || n == 7 {
		return everyDay
	}
	var list []string
	for i := 0; i < 7; i++ {
		if !on[i] {
			continue
		}
		last := i
		for last < 6 && on[last+1] {
			last++
		}
		if last-i < 2 {
			list = append(list, Weekdays[i])
			continue
		}
		list = append(list, Weekdays[i]+"-"+Weekdays[last])
		i = last
	}
	return strings.Join(list, ",")
}

func parseDays(field, text string) (days []time.Weekday, err error) {
	text = strings.TrimSpace(text)
	if text == "" || strings.EqualFold(text, everyDay) {
		return nil, nil
	}
	on := map[int]bool{}
	for part := range strings.SplitSeq(text, ",") {
		first, last, _ := strings.Cut(part, "-")
		i, j := dayOf(first), dayOf(cmp.Or(last, first))
		if i < 0 || j < 0 {
			return nil, &Problem{Kind: Invalid, Field: field, Msg: fmt.Sprintf("%.40q are no days.", text), Hint: "Days are Mon, Tue, Wed, Thu, Fri, Sat and Sun, such as Mon-Fri or Sat,Sun, or every day."}
		}
		for ; i != j; i = (i + 1) % 7 {
			on[i] = true
		}
		on[j] = true
	}
	for i := range 7 {
		if on[i] {
			days = append(days, time.Weekday((i+1)%7))
		}
	}
	return days, nil
}

// dayOf is the number of a day, 0 for Monday, -1 for none.
func dayOf(word string) int {
	word = strings.TrimSpace(word)
	return slices.IndexFunc(Weekdays, func(d string) bool { return len(word) >= 3 && strings.EqualFold(word[:3], d) })
}

func minuteText(m int) string { return fmt.Sprintf("%02d:%02d", m/60%24, m%60) }

func parseMinute(field, text string) (int, error) {
	text = strings.TrimSpace(text)
	t, err := time.Parse("15:04", text)
	if err != nil && text != "24:00" {
		return 0, &Problem{Kind: Invalid, Field: field, Msg: fmt.Sprintf("%.40q is no time of the day.", text), Hint: "Write a window from 07:00 to 19:00; one that ends before it begins goes on the next day."}
	}
	return t.Hour()*60 + t.Minute(), nil
}

// Never is the rate at which nothing moves.
const Never = swarm.Never

// A WindowSpan is a part of a day in which one rate holds.
type WindowSpan struct {
	From, To int   // minutes of the day
	Rate     int64 // bytes per second; 0 no limit, [Never] nothing
}

// Week is what holds on a line in each minute of a week, Monday first.
func (l Limits) Week(line Line) (days [7][]WindowSpan) {
	p := l.Plan(line)
	for d := range days {
		for m := 0; m < 24*60; m++ {
			// The week of 1 January 2024, which began on a Monday; of UTC, which
			// leaves out no hour.
			rate := p.At(time.Date(2024, 1, 1+d, 0, m, 0, 0, time.UTC))
			if n := len(days[d]); n > 0 && days[d][n-1].Rate == rate {
				days[d][n-1].To = m + 1
				continue
			}
			days[d] = append(days[d], WindowSpan{m, m + 1, rate})
		}
	}
	return days
}
