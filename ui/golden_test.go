package ui_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// updateGolden writes what the pages are now over what they were:
//
//	go test ./ui -run TestGallery -update
//
// The difference is there to be read before it is committed.
var updateGolden = flag.Bool("update", false, "write the golden pages anew")

// goldenDir holds the content of each page of the gallery, a tag a line.
const goldenDir = "testdata/gallery"

// goldenWait is how long a page may take to become what it is to be: counts
// and queues follow a report in the background.
const goldenWait = 10 * time.Second

// Nothing of these is the same the next time.
var changing = []struct {
	is *regexp.Regexp
	as string
}{
	{regexp.MustCompile(`(?s)<svg class="i"[^>]*><use href="[^"#]*#([\w-]+)"></use></svg>`), `<icon $1>`},
	{regexp.MustCompile(`name="(csrf|once|key)" value="[^"]*"`), `name="$1" value="…"`},
	{regexp.MustCompile(`/a/([\w/-]+)\.[0-9a-f]{12}\.`), `/a/$1.`},
	{regexp.MustCompile(`href="data:[^"]*"`), `href="data:…"`},
	{regexp.MustCompile(`/tmp/Test\w+/\d+`), `DIR`},
	{regexp.MustCompile(`\b[0-9a-f]{11,16}-[0-9a-f]{8}\b|\b[0-9a-f]{40,64}\b|\b[0-9a-f]{32}\b|\b[0-9a-f]{16}\b`), `…`},
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\d(T[\d:.]+Z)?`), `DATE`},
	{regexp.MustCompile(`\b\d{1,2} (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*( 20\d\d)?( at)?,?( \d\d:\d\d)?( UTC| Z)?`), `DATE`},
	{regexp.MustCompile(`\b\d\d:\d\d(:\d\d)?\b`), `TIME`},
	{regexp.MustCompile(`just now|\b\d+ (seconds?|minutes?|s|min) ago|in \d+ (minutes?|min|h|hours?)`), `AGO`},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), `127.0.0.1:PORT`},
	{regexp.MustCompile(`[+-]?\d+(\.\d+)? (ms|s)\b`), `N s`},
	{regexp.MustCompile(`in step but for \d+ records? on the way`), `in step`},
	{regexp.MustCompile(`\d+(\.\d+)? [GMk]?B free`), `N B free`},
	{regexp.MustCompile(`[0-9a-f]{4}( [0-9a-f]{4}){7,15}`), `…`},
}

// Downloads stand in the order in which the node came to look at them.
var anyDownload = regexp.MustCompile(`2026-\d\d Cumulative([\w ,]*) \(KB\d+\)|windows-kb\d+-x64_\w+\.cab|\b\d\d\.\d MB`)

// goldenRows is how many rows of a long table are kept.
const goldenRows = 4

// golden is what of a page is the same each time it is asked for: its content,
// without what is of the moment, the first rows of long tables, a tag a line.
func golden(name, page string) string {
	from, to := strings.Index(page, "<main"), strings.LastIndex(page, "</main>")
	if from < 0 || to < from {
		return page
	}
	page = page[from:to] + "</main>"
	for _, c := range changing {
		page = c.is.ReplaceAllString(page, c.as)
	}
	if name == "downloads" || name == "overview" {
		page = anyDownload.ReplaceAllString(page, "DOWNLOAD")
	}
	var b strings.Builder
	rows := 0
	for _, tag := range strings.SplitAfter(strings.ReplaceAll(page, "<", "\n<"), "\n") {
		tag = strings.TrimSpace(tag)
		switch {
		case strings.HasPrefix(tag, "<tbody"):
			rows = 0
		case strings.HasPrefix(tag, "<tr"):
			rows++
		case strings.HasPrefix(tag, "</tbody"):
			if rows > goldenRows {
				fmt.Fprintf(&b, "… and %d more rows\n", rows-goldenRows)
			}
			rows = 0
		}
		if tag != "" && rows <= goldenRows {
			b.WriteString(tag + "\n")
		}
	}
	return b.String()
}

// compare says how a page differs from what it was; again asks for it anew,
// nil for a page that is the answer to a form.
func (g *gallery) compare(name, page string, again func() string) {
	g.t.Helper()
	path := filepath.Join(goldenDir, g.state+"-"+name+".html")
	if *updateGolden {
		if again != nil {
			time.Sleep(time.Second)
			page = again()
		}
		if err := os.WriteFile(path, []byte(golden(name, page)), 0o644); err != nil {
			g.t.Error(err)
		}
		return
	}
	b, err := os.ReadFile(path)
	if err != nil {
		g.t.Errorf("%v; go test ./ui -run TestGallery -update makes it", err)
		return
	}
	want, got := string(b), golden(name, page)
	for end := time.Now().Add(goldenWait); got != want && again != nil && time.Now().Before(end); got = golden(name, again()) {
		time.Sleep(50 * time.Millisecond)
	}
	if got != want {
		g.t.Errorf("%s is not what %s says: %s\nIf it is to be so, go test ./ui -run TestGallery -update writes it anew.", name, path, firstDifference(want, got))
	}
}

// firstDifference shows where two texts part.
func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d\nwas: %.300s\nis:  %.300s", i+1, w[i], g[i])
		}
	}
	return fmt.Sprintf("it had %d lines and has %d", len(w), len(g))
}

// leftOver says which golden pages no page stands for any more.
func (g *gallery) leftOver() {
	g.t.Helper()
	list, err := os.ReadDir(goldenDir)
	if err != nil {
		g.t.Error(err)
	}
	for _, e := range list {
		if _, ok := g.pages[strings.TrimSuffix(e.Name(), ".html")]; !ok {
			g.t.Errorf("%s is of no page any more: delete it", filepath.Join(goldenDir, e.Name()))
		}
	}
}

func TestGoldenLeavesOutTheMoment(t *testing.T) {
	for page, want := range map[string]string{
		`<main><p>Scanned just now, at 18:05</p></main>`:                                "<main>\n<p>Scanned AGO, at TIME\n</p>\n</main>\n",
		`<main><input name="csrf" value="0123456789abcdef"><b>26 Nov 2026</b></main>`:   "<main>\n<input name=\"csrf\" value=\"…\">\n<b>DATE\n</b>\n</main>\n",
		`<main><tbody>` + strings.Repeat("<tr></tr>", goldenRows+3) + `</tbody></main>`: "<main>\n<tbody>\n" + strings.Repeat("<tr>\n</tr>\n", goldenRows) + "… and 3 more rows\n</tbody>\n</main>\n",
	} {
		if got := golden("", page); got != want {
			t.Errorf("%s\nis\n%s\nwant\n%s", page, got, want)
		}
	}
}
