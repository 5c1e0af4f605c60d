package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/rules"
)

// A console is where a command speaks: results to out, progress and errors to
// err.
type console struct {
	out, err io.Writer
	terminal bool // err is one: progress may overwrite itself
	json     bool
	last     string // progress as it was last shown
}

// lineWidth is the room for progress on a terminal, which must not wrap.
const lineWidth = 78

// doing shows what is being done: on one line that is overwritten, or one
// line for each step where nothing can be. The empty text clears it.
func (c *console) doing(text string) {
	if c.json || text == c.last {
		return
	}
	c.last = text
	if !c.terminal {
		if text != "" {
			fmt.Fprintln(c.err, sentence(text))
		}
		return
	}
	if utf8.RuneCountInString(text) > lineWidth {
		text = string([]rune(text)[:lineWidth-1]) + "…"
	}
	fmt.Fprintf(c.err, "\r%-*s\r%s", lineWidth, "", sentence(text))
}

// sentence begins with a capital letter.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func (c *console) failed(command string, err error) {
	if c.json {
		json.NewEncoder(c.out).Encode(answer{Error: err.Error()})
		return
	}
	fmt.Fprintf(c.err, "wuamesh-agent %s: %v\n", command, err)
}

// log is the agent's, when a command works without the service: what went
// wrong, not every step.
func (c *console) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: slog.LevelError}))
}

// printStatus says in a screenful where the host stands.
func printStatus(w io.Writer, s agent.Status, now time.Time) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-14s%s\n", name, fmt.Sprintf(format, args...))
	}
	if s.Enrolled {
		line("Mesh", "enrolled as %s", s.Host)
	} else {
		line("Mesh", "not enrolled; run wuamesh-agent enroll --server URL --token TOKEN")
	}
	if len(s.Nodes) > 0 {
		line("Nodes", "%s", strings.Join(s.Nodes, ", "))
	}
	if !s.Checkin.IsZero() {
		line("Check-in", "%s; next %s", ago(s.Checkin, now), in(s.Next, now))
	}
	if s.Error != "" {
		line("Trouble", "%s", s.Error)
	}
	if s.Doing != "" {
		line("Now", "%s", s.Doing)
	}
	switch {
	case s.ScanErr != "":
		line("Last scan", "failed: %s", s.ScanErr)
	case !s.Scanned.IsZero():
		line("Last scan", "%s", ago(s.Scanned, now))
	case s.Cab == "":
		line("Last scan", "none: the scan cab has not come from the node yet")
	default:
		line("Last scan", "none yet")
	}
	if !s.NextScan.IsZero() {
		line("Next scan", "%s", in(s.NextScan, now))
	}
	if !s.Install.IsZero() {
		line("Next install", "%s", in(s.Install, now))
	}
	if s.Restart {
		line("Restart", "needed: an installed update waits for it")
	}
	if c := s.Clock; c != nil {
		line("Clock", "%s %s", c.Fact(), c.Remedy())
	}
	for _, text := range s.Warnings {
		line("Warning", "%s", text)
	}
	for _, e := range s.Errors {
		line("Error", "%s", errorLine(e, now))
	}
	fmt.Fprintf(w, "\n%d installed, %d not:\n", s.OK, len(s.Updates))
	for _, u := range s.Updates {
		printUpdate(w, u)
	}
}

// errorLine is what went wrong lately, what it means and what to do.
func errorLine(e agent.Failure, now time.Time) string {
	text := e.Doing + ": " + e.Text
	if !e.At.IsZero() {
		text = ago(e.At, now) + ", " + text
	}
	if e.Times > 1 {
		text += fmt.Sprintf(" (%d times)", e.Times)
	}
	if e.Meaning != nil {
		text += " " + e.Meaning.Title() + ": " + e.Meaning.Plain()
	}
	return text
}

func printUpdate(w io.Writer, u agent.UpdateStatus) {
	kb := ""
	if len(u.KBs) > 0 {
		kb = "KB" + u.KBs[0]
	}
	fmt.Fprintf(w, "\n  %-9s  %-9s  %s\n%14s%s\n", u.State, kb, u.Title, "", u.Sentence)
	if u.State == rules.Pending && u.HResult != 0 {
		fmt.Fprintf(w, "%14sLast result: 0x%08X\n", "", u.HResult)
	}
}

// ago says how long ago a time is, for people.
func ago(t, now time.Time) string {
	if d := now.Sub(t); d >= time.Minute {
		return span(d) + " ago"
	}
	return "just now"
}

func in(t, now time.Time) string {
	if d := t.Sub(now); d >= time.Minute {
		return "in " + span(d)
	}
	return "now"
}

// span is a duration by its largest unit, from a minute up.
func span(d time.Duration) string {
	n, unit := int(d/time.Minute), "minute"
	switch {
	case d >= 48*time.Hour:
		n, unit = int(d/(24*time.Hour)), "day"
	case d >= 2*time.Hour:
		n, unit = int(d/time.Hour), "hour"
	}
	if n != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}
