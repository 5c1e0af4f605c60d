package packaging_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"wuamesh/appliance/microsoft/authenticode/authenticodetest"
	"wuamesh/appliance/microsoft/cab/cabtest"
)

// demo runs the demonstration as a person would, and returns its address and
// password.
func demo(t *testing.T) (url, password string) {
	t.Helper()
	p := start(t, t.TempDir(), "demo", "--hosts", "12", "--data", t.TempDir())
	t.Cleanup(func() {
		p.Process.Signal(os.Interrupt)
		p.until("it stops", func() bool {
			select {
			case <-p.ended:
				return true
			default:
				return false
			}
		})
		if !p.ProcessState.Success() {
			t.Errorf("the demonstration ended with %s", p.ProcessState)
		}
	})
	p.until("it says where to look", func() bool {
		m := regexp.MustCompile(`(?s)The nodes: +(\S+).* as demo with (\S+)`).FindStringSubmatch(p.log())
		if m != nil {
			url, password = m[1], m[2]
		}
		return m != nil
	})
	return url, password
}

// signedCab writes a cabinet that is signed as the demonstration's stand-in
// for Microsoft signs.
func signedCab(t *testing.T) string {
	t.Helper()
	var plain bytes.Buffer
	w := cabtest.NewWriter(&plain, cabtest.None)
	if err := errors.Join(w.Create("update.mum", time.Date(2026, 11, 10, 0, 0, 0, 0, time.UTC)), w.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kb5099999.cab")
	sig := authenticodetest.NewAuthority(1).Signer(authenticodetest.SignerOptions{})
	if err := os.WriteFile(path, sig.SignCab(plain.Bytes()), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestBrowser does an admin's first ten minutes in Debian's Chromium: log in,
// filter, forbid an update, trigger a scan, see the state change. Screenshots
// are in packaging/out/shots, light and dark, wide and phone.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short; packaging/check runs it")
	}
	url, password := demo(t)
	b := chromium(t, url)
	b.do("log in", chromedp.Navigate(url+"/updates"), chromedp.WaitVisible(`input[name=password]`), b.shot("login"),
		chromedp.SendKeys(`input[name=name]`, "demo"), chromedp.SendKeys(`input[name=password]`, password), chromedp.Submit(`input[name=password]`),
		chromedp.WaitVisible(`//h1[text()="Windows Updates"]`))
	b.until("updates appear and are downloaded", "/updates", `[...document.querySelectorAll('tbody tr')].length > 5`)
	b.do("overview", chromedp.Navigate(url+"/overview"), chromedp.WaitVisible(`.big`), b.shot("overview"))

	// Filter by criticality: the URL is the filter.
	var where string
	var sevs []string
	b.do("filter", chromedp.Navigate(url+"/updates"), chromedp.WaitVisible(`tbody tr`), b.shot("updates"),
		chromedp.Click(`input[name=severity][value=Critical]`), chromedp.WaitVisible(`.chip`), chromedp.Location(&where),
		chromedp.Evaluate(`[...document.querySelectorAll('tbody .sev')].map(e => e.title)`, &sevs))
	if !strings.Contains(where, "severity=Critical") || len(sevs) == 0 {
		t.Errorf("the filter led to %s with %d rows", where, len(sevs))
	}
	for _, s := range sevs {
		if s != "Critical" {
			t.Errorf("a row of the filtered list is %s", s)
		}
	}

	// Forbid the first of them in a new package.
	var id string
	b.do("forbid", chromedp.Evaluate(`document.querySelector('tbody input[name=id]').value`, &id),
		chromedp.Click(`tbody input[name=id]`), chromedp.Click(`button[value=forbid]`), chromedp.WaitVisible(`input[name=new]`), b.shot("forbid"),
		chromedp.SendKeys(`input[name=new]`, "from-the-browser"), chromedp.Submit(`input[name=new]`), chromedp.WaitVisible(`.toast`))
	b.do("its page", chromedp.Navigate(url+"/updates/"+id), chromedp.WaitVisible(`aside`), b.shot("update"))
	var page string
	b.do("read", chromedp.Text(`body`, &page))
	if !strings.Contains(page, "from-the-browser") || !strings.Contains(page, "Forbidden by package from-the-browser") && !strings.Contains(page, "Installed") {
		t.Errorf("after forbidding, the update's page says\n%s", page)
	}
	b.do("rules", chromedp.Navigate(url+"/rules/from-the-browser"), chromedp.WaitVisible(`.rules`), b.shot("rule"), chromedp.Navigate(url+"/rules"), chromedp.WaitVisible(`tbody`), b.shot("rules"))

	// The whole catalogue: an update that no host reports is found, looked at,
	// and forbidden before any host asks for it.
	b.until("the catalogue was read", "/updates", `document.querySelector('nav[aria-label="Which updates"] .n')`)
	b.do("whole catalogue", chromedp.Click(`//nav[@aria-label="Which updates"]/a[contains(., "Whole catalogue")]`), chromedp.WaitVisible(`//td[contains(., "No host reports it")]`), b.shot("catalogue"),
		chromedp.Click(`input[name=superseded][value=yes]`), chromedp.WaitVisible(`.chip`), // what hosts need is newer
		chromedp.Evaluate(`[...document.querySelectorAll('tbody tr')].find(r => r.innerText.includes('No host reports it')).querySelector('input[name=id]').value`, &id))
	b.do("forbid what no host reports", chromedp.Navigate(url+"/updates?scope=all&q="+id), chromedp.WaitVisible(`tbody input[name=id]`), chromedp.Click(`tbody input[name=id]`), chromedp.Click(`button[value=forbid]`), chromedp.WaitVisible(`input[value="from-the-browser"]`),
		chromedp.Click(`input[value="from-the-browser"]`), chromedp.Submit(`input[name=new]`), chromedp.WaitVisible(`span[title="Forbidden once a host reports it"]`), b.shot("catalogue-forbidden"),
		chromedp.Navigate(url+"/updates/"+id), chromedp.WaitVisible(`aside`), b.shot("update-unreported"), chromedp.Text(`body`, &page))
	for _, want := range []string{"No host has reported it", "Forbidden once a host reports it", "SHA-256", "SelfContained"} {
		if !strings.Contains(page, want) {
			t.Errorf("an update that no host reports does not say %q:\n%s", want, page)
		}
	}

	// Trigger a scan of one host and watch its command end, without reloading.
	b.do("host", chromedp.Navigate(url+"/hosts"), chromedp.WaitVisible(`tbody tr`), b.shot("hosts"), chromedp.Click(`tbody a.row-a`), chromedp.WaitVisible(`button[value=scan]`),
		chromedp.Click(`button[value=scan]`), chromedp.WaitVisible(`.toast`))
	b.do("the scan ends", chromedp.Poll(`/scan, demo\s+done/.test(document.body.innerText)`, nil, chromedp.WithPollingTimeout(30*time.Second)),
		chromedp.Click(`a[aria-label^="Explain"]`), chromedp.WaitVisible(`.chain`), b.shot("host"))
	for _, p := range []string{"downloads", "clean", "access", "audit"} {
		b.do(p, chromedp.Navigate(url+"/"+p), chromedp.WaitVisible(`h1`), b.shot(p))
	}

	// Bring a file.
	b.do("upload", chromedp.Navigate(url+"/downloads"), chromedp.WaitVisible(`#upload input[type=file]`), chromedp.SetUploadFiles(`#upload input[type=file]`, []string{signedCab(t)}),
		chromedp.Click(`#upload button`), chromedp.WaitVisible(`.toast`), chromedp.WaitVisible(`//span[text()="kb5099999.cab"]`), b.shot("uploaded"))

	// The mesh: three nodes in step, and what is known of one of them.
	b.until("the nodes are in step", "/mesh", `document.body.innerText.includes('In step with the 2 other nodes')`)
	b.do("mesh", b.shot("mesh"), chromedp.Click(`.topo a[aria-label^="brs-01"]`), chromedp.WaitVisible(`//h2[contains(., "brs-01")]`), chromedp.Text(`#node`, &page))
	for _, want := range []string{"direct, ", "in step", "from this node's", "rns-01", "Remove brs-01"} {
		if !strings.Contains(page, want) {
			t.Errorf("of brs-01 the mesh page does not say %q:\n%s", want, page)
		}
	}

	// Go on at another node, with the same page and without a password; and back.
	b.do("switch nodes", chromedp.Navigate(url+"/hosts?sort=scan"), chromedp.Click(`.nodes summary`), chromedp.WaitVisible(`.nodes a[href^="/switch"]`), b.shot("switch"),
		chromedp.Click(`.nodes a[href^="/switch"]`), chromedp.WaitVisible(`.toast`), chromedp.Location(&where), chromedp.Text(`.toast`, &page), b.shot("switched"))
	if strings.HasPrefix(where, url) || !strings.HasSuffix(where, "/hosts?sort=scan") || !regexp.MustCompile(`You are on (brs|lor)-01 now`).MatchString(page) {
		t.Errorf("switching led to %s, which says %q", where, page)
	}
	b.do("still logged in on the first", chromedp.Navigate(url+"/mesh"), chromedp.WaitVisible(`//h1[text()="Mesh"]`))

	// Dark, and a phone.
	b.do("dark", chromedp.Navigate(url+"/overview"), chromedp.WaitVisible(`h1`), chromedp.Evaluate(`document.documentElement.dataset.theme = 'dark'`, nil), b.shot("overview-dark"))
	for _, p := range []string{"overview", "updates", "hosts", "mesh", "downloads"} {
		var wide bool
		b.do("phone", chromedp.EmulateViewport(390, 844), chromedp.Navigate(url+"/"+p), chromedp.WaitVisible(`h1`), b.shot(p+"-390"),
			chromedp.Evaluate(`document.documentElement.scrollWidth > document.documentElement.clientWidth`, &wide))
		if wide {
			t.Errorf("/%s scrolls sideways on a phone", p)
		}
	}
	b.quiet()
}

// TestSetupPage opens the link that a new node prints, as whoever installed it
// does.
func TestSetupPage(t *testing.T) {
	p := launch(t, t.TempDir(), "internet = false")
	var link string
	p.until("it prints a link", func() bool {
		m := regexp.MustCompile(`open this link once.* url="?(https://\S+secret=\w+)`).FindStringSubmatch(p.log())
		if m != nil {
			link = m[1]
		}
		return m != nil
	})
	b := chromium(t, p.url)
	b.do("without the link", chromedp.Navigate(p.url), chromedp.WaitVisible(`//h1[contains(., "rns-01 is not set up yet")]`), b.shot("not-set-up"))
	b.do("the link", chromedp.Navigate(link), chromedp.WaitVisible(`input[name=again]`), b.shot("setup"),
		chromedp.SendKeys(`input[name=name]`, "maelle"), chromedp.SetValue(`input[name=site]`, "rennes"), chromedp.Click(`button[formaction]`),
		chromedp.WaitVisible(`//h2[text()="What the test found"]`), b.shot("setup-tested"))
	b.do("two passwords", chromedp.SendKeys(`input[name=password]`, "correct horse battery"), chromedp.SendKeys(`input[name=again]`, "correct horse"+"-battery"),
		chromedp.Submit(`input[name=again]`), chromedp.WaitVisible(`//*[contains(text(), "The two passwords differ.")]`), b.shot("setup-differ"))
	b.do("in", chromedp.SendKeys(`input[name=password]`, "correct horse battery"), chromedp.SendKeys(`input[name=again]`, "correct horse battery"),
		chromedp.Submit(`input[name=again]`), chromedp.WaitVisible(`//h1[text()="Overview"]`))
	var page string
	b.do("the link again", chromedp.Navigate(p.url+"/logout"), chromedp.Navigate(link), chromedp.WaitVisible(`h1`), chromedp.Text(`body`, &page))
	if strings.Contains(page, "Password again") {
		t.Errorf("a used link opens\n%s", page)
	}
}

// A browser is one tab of an admin.
type browser struct {
	t      *testing.T
	ctx    context.Context
	url    string
	faults func() []string
}

// chromium starts Debian's.
func chromium(t *testing.T, url string) *browser {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.Flag("ignore-certificate-errors", true), chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.WindowSize(1440, 900), chromedp.ExecPath("/usr/bin/chromium"))
	ctx, end := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(end)
	ctx, end = chromedp.NewContext(ctx)
	t.Cleanup(end)
	if err := chromedp.Run(ctx); err != nil { // starts it, in the context that outlives all steps
		t.Fatalf("start Chromium (./packaging/check installs it): %v", err)
	}
	return &browser{t, ctx, url, faults(ctx)}
}

// quiet fails the test for everything the browser complained of.
func (b *browser) quiet() {
	b.t.Helper()
	for _, f := range b.faults() {
		b.t.Errorf("the browser complained: %s", f)
	}
}

func (b *browser) do(what string, actions ...chromedp.Action) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 45*time.Second)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		var text, where string
		chromedp.Run(b.ctx, chromedp.Location(&where), chromedp.Text("body", &text))
		chromedp.Run(b.ctx, b.shot("failed"))
		b.t.Fatalf("%s: %v\nat %s:\n%s", what, err, where, text)
	}
}

// until loads a page again and again until a condition holds in it.
func (b *browser) until(what, path, condition string) {
	b.t.Helper()
	for range 60 {
		var ok bool
		b.do(what, chromedp.Navigate(b.url+path), chromedp.WaitVisible(`h1`), chromedp.Evaluate(`!!(`+condition+`)`, &ok))
		if ok {
			return
		}
		b.do(what, chromedp.Sleep(500*time.Millisecond))
	}
	b.t.Fatalf("%s: not within 30 s", what)
}

func (b *browser) shot(name string) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		var png []byte
		if err := chromedp.CaptureScreenshot(&png).Do(ctx); err != nil {
			return err
		}
		dir := filepath.Join("out", "shots")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	})
}
