package ui

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"wuamesh/appliance"
)

const limitsPath = "/mesh/limits"

// limitsView is how fast the nodes of a site may use its lines.
type limitsView struct {
	Site     string // empty for the site without a name
	Sites    []string
	Form     appliance.LimitForm
	Stored   appliance.Limits
	Says     appliance.Limits // what the form comes to
	Problem  *appliance.Problem
	Operator bool
	Owner    bool
	Met      []appliance.MeetingRow
}

// spareWindows are the empty rows of the form, to add windows without scripts.
const spareWindows = 2

func (u *UI) limits(r *http.Request) (reply, error) {
	v := limitsView{Site: u.siteAsked(r)}
	l, err := u.node.SiteLimits(r.Context(), v.Site)
	if err != nil {
		return reply{}, err
	}
	v.Form, v.Says = l.Form(), l
	return u.limitsWith(r, v)
}

// siteAsked is the site that a request is about: this node's when it names
// none.
func (u *UI) siteAsked(r *http.Request) string {
	if site := r.FormValue("site"); site != "" {
		return site
	}
	return frameOf(r.Context()).stand.Site
}

// limitsWith adds what the page shows beside the form.
func (u *UI) limitsWith(r *http.Request, v limitsView) (reply, error) {
	var err error
	if v.Stored, err = u.node.SiteLimits(r.Context(), v.Site); err != nil {
		return reply{}, err
	}
	nodes, err := u.node.Nodes(r.Context())
	if err != nil {
		return reply{}, err
	}
	v.Sites = []string{v.Site}
	for _, n := range nodes {
		v.Sites = append(v.Sites, n.Site)
	}
	slices.Sort(v.Sites)
	v.Sites = slices.Compact(v.Sites)
	if v.Met, err = u.node.Meetings(r.Context(), "site "+v.Site); err != nil {
		return reply{}, err
	}
	v.Operator, v.Owner = actor(r).May(appliance.Operator), actor(r).May(appliance.Owner)
	for range spareWindows {
		v.Form.Windows = append(v.Form.Windows, appliance.LimitWindow{Lines: appliance.BudgetLines})
	}
	if v.Problem != nil {
		return again(limitsPage(v)), nil
	}
	return show(limitsPage(v)), nil
}

// limitsForm is the form as it came in.
func limitsForm(r *http.Request) appliance.LimitForm {
	f := appliance.LimitForm{Rates: map[appliance.Line]string{}, Months: map[appliance.Line]string{}}
	for _, line := range appliance.Lines {
		f.Rates[line], f.Months[line] = r.FormValue("rate_"+string(line)), r.FormValue("month_"+string(line))
	}
	n, _ := strconv.Atoi(r.FormValue("windows"))
	for i := range min(max(n, 0), 60) {
		at := fmt.Sprintf("window_%d_", i)
		w := appliance.LimitWindow{Days: r.FormValue(at + "days"), From: r.FormValue(at + "from"), To: r.FormValue(at + "to"), Rate: r.FormValue(at + "rate")}
		for _, line := range r.Form[at+"line"] {
			w.Lines = append(w.Lines, appliance.Line(line))
		}
		f.Windows = append(f.Windows, w)
	}
	return f
}

// limitsSave stores the whole form, or says when what would hold.
func (u *UI) limitsSave(r *http.Request) (reply, error) {
	v := limitsView{Site: u.siteAsked(r), Form: limitsForm(r)}
	var err error
	v.Says, err = v.Form.Limits()
	if err == nil && r.FormValue("do") == "preview" {
		v.Form = v.Says.Form()
		return u.limitsWith(r, v)
	}
	if err == nil {
		err = u.node.SetSiteLimits(r.Context(), actor(r), v.Site, v.Says)
	}
	if p, ok := formError(err); ok {
		v.Problem = p
		return u.limitsWith(r, v)
	}
	if err != nil {
		return reply{}, err
	}
	return goTo(limitsOf(v.Site)).saying("The limits of %s are: %s. They hold at once.", siteText(v.Site), v.Says), nil
}

// linesOpen lifts a site's limits for an hour, or puts them back.
func (u *UI) linesOpen(r *http.Request) (reply, error) {
	site, d := u.siteAsked(r), time.Hour
	if r.FormValue("do") == "close" {
		d = 0
	}
	l, err := u.node.OpenLines(r.Context(), actor(r), site, d)
	if err != nil {
		return reply{}, err
	}
	if d == 0 {
		return goTo(limitsOf(site)).saying("The limits of %s hold again.", siteText(site)), nil
	}
	return goTo(limitsOf(site)).saying("The lines of %s are open until %s: no limit holds, and no budget.", siteText(site), moment(l.OpenUntil)), nil
}

func limitsOf(site string) string { return limitsPath + "?" + url.Values{"site": {site}}.Encode() }

func siteText(site string) string {
	if site == "" {
		return "the site without a name"
	}
	return "site " + site
}

// wrong is what is wrong with a field.
func (v limitsView) wrong(field string) string {
	if v.Problem != nil && v.Problem.Field == field {
		return v.Problem.Msg
	}
	return ""
}

// open says whether somebody opened the lines for a while, which lasts yet.
func open(l appliance.Limits) bool { return time.Now().Before(l.OpenUntil) }

// A limitLine is one line, or lines with one plan, as charts show them.
type limitLine struct {
	Name    string
	Rate    int64 // bytes per second, where no window is
	Month   int64 // bytes
	Windows int
	Week    [7][]appliance.WindowSpan
}

// limitLines are the lines that have limits, those with one plan together.
func limitLines(l appliance.Limits) (list []limitLine) {
	texts := map[string]int{}
	for _, line := range appliance.Lines {
		p := *l.Plan(line)
		if p.Rate == 0 && p.Month == 0 && len(p.Windows) == 0 {
			continue
		}
		key := fmt.Sprint(p)
		if i, known := texts[key]; known {
			list[i].Name += ", " + line.String()
			continue
		}
		texts[key] = len(list)
		list = append(list, limitLine{upperFirst(line.String()), p.Rate, p.Month, len(p.Windows), l.Week(line)})
	}
	return list
}

// rest says what holds at all times, or when no window does.
func (l limitLine) rest() string {
	text := appliance.RateText(l.Rate)
	if l.Windows > 0 {
		text += " outside of windows"
	} else {
		text += " at all times"
	}
	if l.Month > 0 {
		text += ", " + size(l.Month) + " a month"
	}
	return upperFirst(text) + "."
}

// Where things of the chart of a week are, in its units; 430 are as wide as
// what stands beside a form.
const (
	weekWidth            = 430
	weekLeft             = 34 // of the bars
	weekBars             = weekWidth - weekLeft
	weekTop, weekDay     = 20, 24
	weekHigh             = weekTop + 7*weekDay + 4
	weekBar              = weekDay - 4
	weekText, weekGutter = 14, 5
	weekLabel            = 260 // minutes that a label needs
	minutesOfDay         = 24 * 60
)

func weekX(minute int) string { return fmt.Sprint(weekLeft + minute*weekBars/minutesOfDay) }

// weekAnchor keeps the hours over the edges of the chart inside of it.
func weekAnchor(hour int) string {
	switch hour {
	case 0:
		return "start"
	case 24:
		return "end"
	}
	return "middle"
}

func weekY(day int) string { return fmt.Sprint(weekTop + day*weekDay) }

func weekClass(rate int64) string {
	switch rate {
	case 0:
		return "w-full"
	case appliance.Never:
		return "w-no"
	}
	return "w-lim"
}

// nowIn is the day of the week, from 0 for Monday, and the minute.
func nowIn(now time.Time) (day, minute int) {
	return (int(now.Weekday()) + 6) % 7, now.Hour()*60 + now.Minute()
}

// weekText says the windows of a line for those who do not see the chart.
func weekWords(l limitLine) string {
	var list []string
	for d, spans := range l.Week {
		var parts []string
		for _, s := range spans {
			parts = append(parts, fmt.Sprintf("%02d:%02d to %02d:%02d %s", s.From/60, s.From%60, s.To/60, s.To%60, appliance.RateText(s.Rate)))
		}
		list = append(list, appliance.Weekdays[d]+" "+strings.Join(parts, ", "))
	}
	return strings.Join(list, "; ") + "."
}

// dayChoices are the days that a window's form offers, the one it has among
// them.
func dayChoices(now string) []string {
	if now == "" || slices.Contains(appliance.DayChoices, now) {
		return appliance.DayChoices
	}
	return append(slices.Clone(appliance.DayChoices), now)
}
