package packaging_test

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// axe is axe-core 4.14.1 by Deque Systems, under the Mozilla Public License
// 2.0 (testdata/axe/LICENSE), as it is published. It is part of this test
// alone and of nothing that ships.
//
//go:embed testdata/axe/axe.min.js
var axe string

// audit looks for what WCAG 2.2 AA and good practice forbid on the page that
// is shown.
func (b *browser) audit(what string) {
	b.t.Helper()
	var found string
	b.do(what, chromedp.Evaluate(`window.axe ? 0 : (0, undefined)`, nil), chromedp.Evaluate(axe+`;0`, nil), chromedp.Evaluate(
		`axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'], resultTypes: ['violations']}).then(r =>
			JSON.stringify(r.violations.map(v => ({id: v.id, help: v.help, nodes: v.nodes.slice(0, 3).map(n => n.target.join(' ') + ': ' + n.html.slice(0, 160) + ' ' + n.failureSummary.slice(0, 200))}))))`,
		&found, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	var list []struct {
		ID, Help string
		Nodes    []string
	}
	if err := json.Unmarshal([]byte(found), &list); err != nil {
		b.t.Fatalf("%s: %v in %q", what, err, found)
	}
	for _, v := range list {
		b.t.Errorf("%s: %s, %s\n  %s", what, v.ID, v.Help, strings.Join(v.Nodes, "\n  "))
	}
}

// screens are what every page is looked at on.
var screens = []struct {
	name          string
	width, height int64
	scheme        string
}{{"1440", 1440, 900, "light"}, {"1440-dark", 1440, 900, "dark"}, {"390", 390, 844, "light"}, {"390-dark", 390, 844, "dark"}}

func (b *browser) screen(width, height int64, scheme string) chromedp.Tasks {
	return chromedp.Tasks{
		chromedp.EmulateViewport(width, height),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}),
	}
}

func (b *browser) logIn(password string) {
	b.t.Helper()
	b.do("log in", chromedp.Navigate(b.url+"/login"), chromedp.WaitVisible(`input[name=password]`), chromedp.SendKeys(`input[name=name]`, "demo"),
		chromedp.SendKeys(`input[name=password]`, password), chromedp.Submit(`input[name=password]`), chromedp.WaitVisible(`//h1[text()="Overview"]`))
}

// TestAccessibility asks axe-core about every page, light and dark, wide and
// on a phone.
func TestAccessibility(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short; packaging/check runs it")
	}
	url, password := demo(t)
	b := chromium(t, url)
	b.do("the login page", chromedp.Navigate(url+"/login"), chromedp.WaitVisible(`input[name=password]`))
	b.audit("the login page")
	b.logIn(password)
	b.until("updates appear", "/updates", `[...document.querySelectorAll('tbody tr')].length > 5`)
	var host, update string
	b.do("find a host and an update with CVEs", chromedp.Navigate(url+"/updates?scope=all&q=CVE-2026"), chromedp.WaitVisible(`tbody .row-a`), chromedp.Evaluate(`document.querySelector('tbody .row-a').getAttribute('href')`, &update),
		chromedp.Navigate(url+"/hosts"), chromedp.WaitVisible(`tbody .row-a`), chromedp.Evaluate(`document.querySelector('tbody .row-a').getAttribute('href')`, &host))
	for _, path := range []string{
		"/overview", "/updates", "/updates?scope=all&q=zzz", update, "/hosts", "/hosts?state=PENDING", host, "/rules", "/rules/new", "/rules/import", "/rules/baseline", "/groups", "/groups/new", "/groups/servers", "/groups/servers/delete",
		"/downloads", "/clean", "/mesh", "/mesh/limits", "/mesh/passphrase", "/agents", "/access", "/audit", "/settings", "/find", "/find?q=srv", "/nowhere",
	} {
		for _, s := range screens {
			var wide bool
			b.do(path, b.screen(s.width, s.height, s.scheme), chromedp.Navigate(url+path), chromedp.WaitVisible(`h1`),
				chromedp.Evaluate(`document.documentElement.scrollWidth > document.documentElement.clientWidth`, &wide))
			if wide {
				t.Errorf("%s scrolls sideways on %s", path, s.name)
			}
			b.audit(path + " on " + s.name)
		}
	}
}

// A stop is what has the focus after a press of Tab.
type stop struct {
	Tag, Name string
	Ring      bool // something marks it
	Seen      bool // it is where it can be seen, and nothing covers it
}

const stopScript = `(() => {
	const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
	const at = document.elementFromPoint(Math.min(Math.max(r.x + r.width / 2, 1), innerWidth - 1), Math.min(Math.max(r.y + r.height / 2, 1), innerHeight - 1));
	const marked = x => { const c = getComputedStyle(x); return c.outlineStyle !== 'none' && parseFloat(c.outlineWidth) >= 1; };
	return {Tag: e.tagName, Name: (e.ariaLabel || e.innerText || e.name || e.id || '').trim().slice(0, 40),
		Ring: marked(e) || !!e.closest('.seg') && marked(e.parentElement), Seen: !!at && (e.contains(at) || at.contains(e))};
})()`

// TestKeyboardAlone walks the console without a pointer: every stop of Tab is
// marked and in sight, menus and sheets open by Enter and close by Escape,
// lists are walked, selected and acted on by keys.
func TestKeyboardAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short; packaging/check runs it")
	}
	base, password := demo(t)
	b := chromium(t, base)
	b.logIn(password)
	b.until("updates appear", "/updates", `[...document.querySelectorAll('tbody tr')].length > 5`)
	for _, path := range []string{"/overview", "/updates", "/hosts", "/rules/baseline", "/groups/new", "/mesh"} {
		b.do(path, chromedp.Navigate(base+path), chromedp.WaitVisible(`h1`))
		var tags []string
		for i := range 60 {
			var s stop
			b.do("Tab", chromedp.KeyEvent(kb.Tab), chromedp.Evaluate(stopScript, &s))
			if s.Tag == "BODY" {
				break
			}
			if !s.Ring || !s.Seen {
				t.Errorf("%s, stop %d, %s %q: marked %v, in sight %v", path, i+1, s.Tag, s.Name, s.Ring, s.Seen)
			}
			tags = append(tags, s.Name)
		}
		if len(tags) < 10 || tags[0] != "Skip to content" || !slices.ContainsFunc(tags, func(s string) bool { return strings.HasPrefix(s, "Windows Updates") }) {
			t.Errorf("%s has the stops %q", path, tags)
		}
	}
	is := func(what, condition string) {
		t.Helper()
		for range 200 { // a page that is being left answers with an error
			var ok bool
			if chromedp.Run(b.ctx, chromedp.Evaluate(`!!(`+condition+`)`, &ok)); ok {
				return
			}
			b.do(what, chromedp.Sleep(50*time.Millisecond))
		}
		b.do(what, chromedp.Poll(condition, nil, chromedp.WithPollingTimeout(time.Second)))
	}
	at := func(path string) string {
		return fmt.Sprintf(`location.pathname + location.search === %q && document.readyState === 'complete'`, path)
	}
	press := func(keys string) { t.Helper(); b.do("press "+url.QueryEscape(keys), chromedp.KeyEvent(keys)) }

	b.do("hosts", chromedp.Navigate(base+"/hosts"), chromedp.WaitVisible(`tbody .row-a`))
	press("?")
	is("the sheet of keys opens", `document.querySelector('#keys').matches(':popover-open')`)
	press(kb.Escape)
	is("and closes", `!document.querySelector('#keys').matches(':popover-open')`)
	press("j")
	press("j")
	is("the second row has the focus", `document.activeElement === document.querySelectorAll('tbody .row-a')[1]`)
	press("x")
	is("it is selected", `document.querySelectorAll('tbody .ck:checked').length === 1`)
	press("j")
	press("j")
	press("X")
	is("up to the fourth", `document.querySelectorAll('tbody .ck:checked').length === 3`)
	press(kb.Escape)
	is("nothing is", `document.querySelectorAll('tbody .ck:checked').length === 0`)
	press("i")
	is("i goes to Install and presses nothing", `document.activeElement.value === 'install' && document.querySelectorAll('tbody .ck:checked').length === 1 && location.pathname === '/hosts'`)
	b.do("focus a row", chromedp.Focus(`tbody .row-a`))
	press("s")
	is("the scan is queued", `document.readyState === 'complete' && /scan is queued on 1 host/.test(document.body.innerText)`)
	press("g")
	press("u")
	is("g u leads to the updates", at("/updates"))
	press("/")
	is("/ goes to the search of the list", `document.activeElement.matches('.rail input[type=search]')`)
	b.do("type", chromedp.SetValue(`.rail input[type=search]`, "cumulative"), chromedp.KeyEvent(kb.Enter)) // the driver types "/" into the field that it opened; a keyboard does not
	is("it searches", at("/updates?q=cumulative"))
	b.do("Ctrl K", chromedp.KeyEvent("k", chromedp.KeyModifiers(2)))
	is("the box of everything has the focus", `document.activeElement.id === 'find'`)
	b.do("type", chromedp.KeyEvent("baseline"+kb.Enter))
	is("it goes straight to the package", at("/rules/baseline"))
	press("u")
	is("u goes up", at("/rules"))
	b.do("the menu of nodes", chromedp.Focus(`.nodes summary`), chromedp.KeyEvent(kb.Enter))
	is("opens", `document.querySelector('.nodes').open`)
	b.quiet()
}
