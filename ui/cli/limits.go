package cli

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"wuamesh/appliance"
	"wuamesh/appliance/api"
)

// lineFlags are the lines as flags name them.
var lineFlags = map[appliance.Line]string{
	appliance.FromSites: "from-sites", appliance.ToSites: "to-sites", appliance.FromMicrosoft: "from-microsoft",
	appliance.IntoNode: "into-node", appliance.OutOfNode: "out-of-node", appliance.ToAgents: "to-agents",
}

var limitsCommand = Command{
	Name: "limits", Args: "[set|open [HOURS]|close]", Summary: "Show or set how fast a site's nodes may use its lines, and when; open them for an hour",
	Example: "wuamesh limits\nwuamesh limits set --from-sites 20 --from-microsoft 50 --month-from-microsoft 200\n" +
		"wuamesh limits set --site brest --window 'Mon-Fri 07:00-19:00 nothing from-sites,to-sites,from-microsoft' --window 'Sat,Sun 00:00-00:00 \"no limit\" from-sites'\n" +
		"wuamesh limits set --no-windows --dry-run\nwuamesh limits open 2",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		site := fs.String("site", "", "the `site`; this node's by default")
		dry := fs.Bool("dry-run", false, "only say what the limits would be")
		edit := limitFlags(fs)
		return func(ctx context.Context, s Streams, args []string) error {
			path := "limits"
			if *site != "" {
				path += "/" + url.PathEscape(*site)
			}
			switch {
			case len(args) == 0:
				return t.limits(ctx, s, path)
			case len(args) == 1 && args[0] == "set":
				return t.setLimits(ctx, s, path, edit, *dry)
			case len(args) == 1 && args[0] == "open":
				return t.openLines(ctx, s, path, "1")
			case len(args) == 2 && args[0] == "open":
				return t.openLines(ctx, s, path, args[1])
			case len(args) == 1 && args[0] == "close":
				return t.openLines(ctx, s, path, "0")
			}
			return usage("it takes nothing, set, open, open HOURS or close")
		}
	},
}

// limitFlags declares what can be said of limits, and returns what changes a
// form as the flags say.
func limitFlags(fs *flag.FlagSet) func(*appliance.LimitForm) bool {
	rates, months := map[appliance.Line]string{}, map[appliance.Line]string{}
	var windows []appliance.LimitWindow
	for _, line := range appliance.Lines {
		fs.Func(lineFlags[line], line.String()+": `Mbit/s`, nothing, or 'no limit'", func(v string) error { rates[line] = v; return nil })
		if slices.Contains(appliance.BudgetLines, line) {
			fs.Func("month-"+lineFlags[line], line.String()+": `GB` a month, or 'no limit'", func(v string) error { months[line] = v; return nil })
		}
	}
	fs.Func("window", "other rates in a part of the week: `'DAYS FROM-TO RATE LINES'`, may be repeated; those there are go", func(v string) error {
		w, err := parseWindow(v)
		windows = append(windows, w)
		return err
	})
	none := fs.Bool("no-windows", false, "take all windows away")
	return func(f *appliance.LimitForm) (some bool) {
		maps.Copy(f.Rates, rates)
		maps.Copy(f.Months, months)
		if len(windows) > 0 || *none {
			f.Windows = windows
		}
		return len(rates)+len(months)+len(windows) > 0 || *none
	}
}

// parseWindow reads a window of the week as the flag has it.
func parseWindow(text string) (w appliance.LimitWindow, err error) {
	clean := strings.NewReplacer(`"no limit"`, "no-limit", "no limit", "no-limit", "every day", "every-day").Replace(strings.ToLower(text))
	f := strings.Fields(clean)
	if len(f) != 4 {
		return w, fmt.Errorf("%q is no window; write it like 'Mon-Fri 07:00-19:00 nothing from-sites,from-microsoft'", text)
	}
	from, to, ok := strings.Cut(f[1], "-")
	if !ok {
		return w, fmt.Errorf("%q is no time of the day; write it like 07:00-19:00", f[1])
	}
	w = appliance.LimitWindow{Days: strings.ReplaceAll(f[0], "-day", " day"), From: from, To: to, Rate: strings.ReplaceAll(f[2], "-", " ")}
	if f[0] != "every-day" {
		w.Days = f[0]
	}
	for word := range strings.SplitSeq(f[3], ",") {
		line, known := lineOf(word)
		if !known {
			return w, fmt.Errorf("there is no line %q; the lines are %s", word, strings.Join(slices.Sorted(maps.Values(lineFlags)), ", "))
		}
		w.Lines = append(w.Lines, line)
	}
	return w, nil
}

func lineOf(word string) (appliance.Line, bool) {
	for line, name := range lineFlags {
		if word == name || word == string(line) {
			return line, true
		}
	}
	return "", false
}

func (t *target) limits(ctx context.Context, s Streams, path string) error {
	var l appliance.Limits
	if err := t.get(ctx, s, path, nil, &l); err != nil || t.json {
		return err
	}
	return printLimits(s, l)
}

// printLimits prints what holds on each line, and in which windows.
func printLimits(s Streams, l appliance.Limits) error {
	if time.Now().Before(l.OpenUntil) {
		fmt.Fprintf(s.Out, "All lines are open until %s, by %s: no limit holds.\n", clock(l.OpenUntil), l.OpenBy)
	}
	f := l.Form()
	g := newGrid(s.Out, "LINE", "MBIT/S", "GB A MONTH")
	for _, line := range appliance.Lines {
		rate, month := f.Rates[line], f.Months[line]
		if rate == "" {
			rate = "no limit"
		}
		g.row(lineFlags[line], rate, month)
	}
	if err := g.flush(); err != nil || len(f.Windows) == 0 {
		return err
	}
	fmt.Fprintln(s.Out, "\nOf each line the first window that fits holds instead, in the nodes' local time:")
	g = newGrid(s.Out, "DAYS", "FROM", "TO", "MBIT/S", "LINES")
	for _, w := range f.Windows {
		var lines []string
		for _, line := range w.Lines {
			lines = append(lines, lineFlags[line])
		}
		g.row(w.Days, w.From, w.To, w.Rate, strings.Join(lines, ","))
	}
	return g.flush()
}

// setLimits changes what the flags say; the rest stays.
func (t *target) setLimits(ctx context.Context, s Streams, path string, edit func(*appliance.LimitForm) bool, dry bool) error {
	var l appliance.Limits
	if err := t.call(ctx, s, path, nil, &l); err != nil {
		return err
	}
	f := l.Form()
	if !edit(&f) {
		return usage("say with a flag what to set, for example --from-sites 20")
	}
	l, err := f.Limits()
	if err != nil {
		return err
	}
	if !dry {
		if err := t.send(ctx, s, http.MethodPut, path, l, &l); err != nil {
			return err
		}
	}
	if t.json {
		return printJSON(s.Out, l)
	}
	return printLimits(s, l)
}

// openLines lifts the limits for some hours; 0 puts them back.
func (t *target) openLines(ctx context.Context, s Streams, path, hours string) error {
	var n float64
	if _, err := fmt.Sscanf(hours, "%g", &n); err != nil || !(n >= 0 && n <= 24) {
		return usage("lines are opened for a number of hours, at most 24")
	}
	var l appliance.Limits
	if err := t.post(ctx, s, path+"/open", api.Open{Minutes: int(math.Round(n * 60))}, &l); err != nil {
		return err
	}
	if t.json {
		return printJSON(s.Out, l)
	}
	if n == 0 {
		fmt.Fprintln(s.Out, "The limits hold again.")
		return nil
	}
	fmt.Fprintf(s.Out, "All lines are open until %s: no limit holds, and no budget. wuamesh limits close ends it.\n", clock(l.OpenUntil))
	return nil
}
