package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"time"

	"wuamesh/appliance"
	"wuamesh/appliance/api"
)

const (
	watchEvery = 500 * time.Millisecond
	watchCalm  = 2 * time.Second // at least this long between two lines about the same
	watchLines = 10              // how many that wait have lines of their own
)

// A watch shows how downloads go on.
type watch struct {
	*target
	Streams
	since time.Time            // by the node's clock: what ended before is not told
	told  map[string]string    // the last line about each task, and "" of all
	at    map[string]time.Time // and when
}

// watchDownloads prints a line whenever a download goes on or ends, and ends
// when none runs or waits.
func (t *target) watchDownloads(ctx context.Context, s Streams) error {
	var d api.Downloads
	if err := t.call(ctx, s, "downloads", url.Values{"limit": {"1"}}, &d); err != nil {
		return err
	}
	w := watch{t, s, d.Now.Add(-time.Minute), map[string]string{}, map[string]time.Time{}} // what began before it was watched may have ended
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		d, err := w.all(ctx)
		if err != nil {
			return err
		}
		if w.tell(d) == 0 {
			return w.end(d.Downloads)
		}
		select {
		case <-ctx.Done():
			return errors.New("stopped watching; the downloads go on")
		case <-tick.C:
		}
	}
}

// all are the downloads that have not ended, or have since the watch began, in
// as many pages as it takes.
func (w *watch) all(ctx context.Context) (d api.Downloads, err error) {
	d.Coverage = map[string][]appliance.Coverage{}
	q := url.Values{"since": {w.since.Format(time.RFC3339)}}
	d.Downloads, err = pages(ctx, w.target, w.Streams, "downloads", q, func(page *api.Downloads) (*[]appliance.Task, string) {
		maps.Copy(d.Coverage, page.Coverage)
		return &page.Downloads, page.Next
	})
	return d, err
}

// tell says what is new, and returns how many downloads run or wait.
func (w *watch) tell(d api.Downloads) (open int) {
	waiting := 0
	var whole, here int64
	for _, t := range d.Downloads {
		whole, here = whole+t.Size, here+t.Done
		switch t.Status {
		case "paused": // until somebody resumes it: nothing to wait for here
			w.line(t.ID, 0, progressLine(t, d.Coverage[t.File]))
		case "queued":
			if waiting++; waiting <= watchLines {
				w.line(t.ID, watchCalm, progressLine(t, d.Coverage[t.File]))
			}
		case "running":
			open++
			w.line(t.ID, watchCalm, progressLine(t, d.Coverage[t.File]))
		default:
			w.line(t.ID, 0, endLine(t))
		}
	}
	if waiting > watchLines {
		w.line("", watchCalm, fmt.Sprintf("%d running, %d waiting, %s of %s here", open, waiting, size(here), size(whole)))
	}
	return open + waiting
}

// line prints what is not what was printed last.
func (w *watch) line(about string, calm time.Duration, text string) {
	if text != w.told[about] && time.Since(w.at[about]) >= calm {
		w.told[about], w.at[about] = text, time.Now()
		fmt.Fprintln(w.Err, text)
	}
}

// end says how it all ended.
func (w *watch) end(list []appliance.Task) error {
	if w.json {
		return printJSON(w.Out, list)
	}
	failed := 0
	for _, t := range list {
		if t.Status == "failed" {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%s failed; each says above why and when it is tried again", count(failed, "download"))
	}
	fmt.Fprintln(w.Out, "Nothing is left to download.")
	return nil
}

// endLine says how a download ended, and what comes of one that failed.
func endLine(t appliance.Task) string {
	line := fmt.Sprintf("%-9s %s", t.Status, t.File)
	if t.Size > 0 {
		line += ", " + size(t.Size)
	}
	for _, s := range []string{t.Error, t.Hint} {
		if s != "" {
			line += ". " + strings.TrimSuffix(s, ".")
		}
	}
	if t.Status == "failed" && !t.NextTry.IsZero() {
		line += ". Next try at " + clock(t.NextTry)
	}
	return line
}

// progressLine says how a download goes on, or what it waits for, and of the
// four nodes that matter most how much of it they have and what they send.
func progressLine(t appliance.Task, coverage []appliance.Coverage) string {
	line := fmt.Sprintf("%-9s %s", t.Status, t.File)
	if t.Size > 0 {
		line += fmt.Sprintf(", %d %% of %s", t.Percent(), size(t.Size))
	}
	if t.Status == "running" && t.From == "peers" {
		line += ", from other nodes"
	}
	if left := t.Left(); left > 0 {
		line += fmt.Sprintf(", %s/s, %s left", size(t.Rate), appliance.Span(left))
	}
	var on []string
	for _, c := range coverage[:min(len(coverage), 4)] {
		has := fmt.Sprintf("%s %d %%", c.Node, c.Percent)
		if c.Rate > 0 {
			has += " (" + size(c.Rate) + "/s)"
		}
		on = append(on, has)
	}
	if len(on) > 0 {
		line += ". On " + strings.Join(on, ", ")
	}
	for _, why := range []string{t.Waiting, t.Error} {
		if why != "" {
			line += ". " + strings.TrimSuffix(why, ".")
		}
	}
	if !t.NextTry.IsZero() {
		line += ". Next at " + clock(t.NextTry)
	}
	return line
}

// clock says a time of today or near it in the reader's zone.
func clock(t time.Time) string { return t.Local().Format("2 Jan 15:04") }
