package ui

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// num writes 1284 as 1,284.
func num[T ~int | ~int64](v T) string {
	s := strconv.FormatInt(int64(v), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// count writes "1 host", "3 hosts".
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return num(n) + " " + one + "s"
}

// size writes bytes in the unit people read.
func size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%d kB", n/1e3)
	case n == 0:
		return "size unknown"
	default:
		return fmt.Sprintf("%d bytes", n)
	}
}

// date and moment write times in the node's zone; iso is for machines.
func date(t time.Time) string   { return t.Local().Format("2 Jan 2006") }
func moment(t time.Time) string { return t.Local().Format("2 Jan 15:04") }
func iso(t time.Time) string    { return t.UTC().Format(time.RFC3339) }

// ago writes a time relative to now within a day.
func ago(t time.Time, never string) string {
	d := time.Since(t)
	switch {
	case t.IsZero():
		return never
	case d < 0:
		return moment(t)
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	default:
		return moment(t)
	}
}

var shorter = strings.NewReplacer(
	" for x64-based Systems", " x64", " for ARM64-based Systems", " ARM64", " for x86-based Systems", " x86",
	"Cumulative Update for ", "Cumulative, ", "Microsoft server operating system version", "Server", "Version ", "",
)

// shortTitle drops what Microsoft's titles share, so that the part that
// differs is not the one that is cut.
func shortTitle(s string) string { return shorter.Replace(s) }

// titleOf names an update that nobody described yet.
func titleOf(title string, id rules.UpdateID) string {
	if title == "" {
		return "Not described yet, " + string(id)
	}
	return title
}

func kbText(list []string) string {
	if len(list) == 0 {
		return "no KB"
	}
	return "KB" + list[0]
}

func severityClass(s rules.Severity) string {
	return map[rules.Severity]string{rules.Critical: "4", rules.Important: "3", rules.Moderate: "2", rules.Low: "1"}[s] + map[bool]string{true: "0"}[s == rules.Unspecified || s == ""]
}

func stateClass(s rules.State) string { return strings.ToLower(string(s)) }

func ringClass(m rules.Maturity) string { return strings.ToLower(string(m)) }

// A part is one piece of a stacked bar.
type part struct {
	class string
	n     int
	label string
}

func stateParts(c appliance.StateCounts) []part {
	return []part{
		{"f-ok", c.OK, num(c.OK) + " OK"}, {"f-pen", c.Pending, num(c.Pending) + " PENDING"},
		{"f-mis", c.Missing, num(c.Missing) + " MISSING"}, {"f-dis", c.Discarded, num(c.Discarded) + " DISCARDED"},
	}
}

type segment struct{ class, x, w string }

// segments lays parts out over a width of 100, with a hairline between two.
func segments(parts []part) (list []segment) {
	total := 0
	for _, p := range parts {
		total += p.n
	}
	x := 0.0
	for _, p := range parts {
		if p.n == 0 {
			continue
		}
		w := float64(p.n) * 100 / float64(total)
		seen := w
		if x+w < 99.9 && w > 1.6 {
			seen -= 0.8
		}
		list = append(list, segment{p.class, fmt.Sprintf("%.2f", x), fmt.Sprintf("%.2f", seen)})
		x += w
	}
	return list
}

func labels(parts []part) string {
	var list []string
	for _, p := range parts {
		if p.n > 0 {
			list = append(list, p.label)
		}
	}
	return strings.Join(list, ", ")
}

// with is the query q with one key set, or taken out when value is empty; the
// page begins anew.
func with(q url.Values, key, value string) string {
	c := url.Values{}
	for k, v := range q {
		if k != key && k != "after" {
			c[k] = v
		}
	}
	if value != "" {
		c.Set(key, value)
	}
	return "?" + c.Encode()
}

// without is the query q without one value of a key.
func without(q url.Values, key, value string) string {
	c := url.Values{}
	for k, list := range q {
		for _, v := range list {
			if k != "after" && (k != key || v != value) && v != "" {
				c.Add(k, v)
			}
		}
	}
	return "?" + c.Encode()
}

// following is the query of the next page.
func following(q url.Values, after string) string {
	c := url.Values{}
	for k, v := range q {
		c[k] = v
	}
	c.Set("after", after)
	return "?" + c.Encode()
}
