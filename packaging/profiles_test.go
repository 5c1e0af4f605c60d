package packaging_test

import (
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// TestProfilesInTheBrowser makes settings profiles in Debian's Chromium: the
// preview follows what is typed, saving says its numbers, a host's page names
// the profile; two that disagree are named; without scripts it goes on.
func TestProfilesInTheBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short; packaging/check runs it")
	}
	url, password := demo(t)
	b := chromium(t, url)
	b.logIn(password)
	b.until("hosts report", "/hosts", `[...document.querySelectorAll('tbody tr')].length >= 12`)
	var page, host string
	b.do("the empty list", chromedp.Navigate(url+"/agents"), chromedp.WaitVisible(`//a[text()="Settings profiles"]`), chromedp.Click(`//a[text()="Settings profiles"]`),
		chromedp.WaitVisible(`//h2[text()="No settings profile yet"]`), chromedp.Click(`//a[contains(., "New profile")]`), chromedp.WaitVisible(`input[name=name]`))
	b.do("type, and the preview follows", chromedp.SendKeys(`input[name=name]`, "night"), chromedp.SendKeys(`input[name=install_delay]`, "21d"), chromedp.Click(`input[name=group][value=all]`),
		chromedp.WaitVisible(`//button[starts-with(., "Save, 12 hosts get other settings")]`), chromedp.Text(`#impact`, &page), b.shot("profile"))
	for _, want := range []string{"12 hosts get other settings: install_delay none → 21d on 12.", "By profile night; was none."} {
		if !strings.Contains(page, want) {
			t.Errorf("the preview does not say %q:\n%s", want, page)
		}
	}
	b.audit("the form with its preview")
	b.do("save", chromedp.Click(`//button[starts-with(., "Save, 12")]`), chromedp.WaitVisible(`.toast`), chromedp.Text(`.toast`, &page))
	if !strings.Contains(page, "night saved. 12 hosts get other settings: install_delay none → 21d on 12.") {
		t.Errorf("saving said %q", page)
	}
	b.do("a host names it", chromedp.Navigate(url+"/hosts"), chromedp.WaitVisible(`tbody .row-a`), chromedp.Evaluate(`document.querySelector('tbody .row-a').innerText`, &host),
		chromedp.Click(`tbody .row-a`), chromedp.WaitVisible(`//a[text()="profile night"]`), chromedp.Text(`aside`, &page), b.shot("host-settings"))
	if !strings.Contains(page, "given to every host") {
		t.Errorf("the host's page says\n%s", page)
	}

	// Without scripts: the same by buttons, for one host, in conflict with night.
	b.do("scripts off", emulation.SetScriptExecutionDisabled(true), chromedp.Navigate(url+"/agents/profiles/new"), chromedp.WaitVisible(`input[name=name]`),
		chromedp.SendKeys(`input[name=name]`, "first"), chromedp.SendKeys(`input[name=install_delay]`, "0"), chromedp.SendKeys(`textarea[name=hosts]`, strings.ToLower(host)),
		chromedp.Click(`button[value=preview]`), chromedp.WaitVisible(`#laid-over`), chromedp.Click(`//section[@aria-labelledby="h-set"]//summary`), chromedp.Click(`#laid-over summary`), chromedp.Text(`aside`, &page), b.shot("profile-conflict"))
	for _, want := range []string{"1 host gets other settings", "1 value laid over another", "profile first says none, profile night says 21d. The first holds: it is given to the host itself.", host} {
		if !strings.Contains(page, want) {
			t.Errorf("without scripts the preview does not say %q:\n%s", want, page)
		}
	}
	b.do("saved without scripts", chromedp.Click(`button[value=save]`), chromedp.WaitVisible(`.toast`), chromedp.Text(`.toast`, &page), emulation.SetScriptExecutionDisabled(false))
	if !strings.Contains(page, "first saved. 1 host gets other settings") {
		t.Errorf("saving without scripts said %q", page)
	}

	// Every screen, by the rules of WCAG, and no page wider than a phone.
	for _, path := range []string{"/agents/profiles", "/agents/profiles/new", "/agents/profiles/night", "/agents/profiles/night/delete", "/hosts?q=" + host, "/groups"} {
		for _, s := range screens {
			var wide bool
			b.do(path, b.screen(s.width, s.height, s.scheme), chromedp.Navigate(url+path), chromedp.WaitVisible(`h1`), b.shot("profiles-"+strings.Trim(strings.ReplaceAll(path, "/", "-"), "-")+"-"+s.name),
				chromedp.Evaluate(`document.documentElement.scrollWidth > document.documentElement.clientWidth`, &wide))
			if wide {
				t.Errorf("%s scrolls sideways on %s", path, s.name)
			}
			b.audit(path + " on " + s.name)
		}
	}
	b.quiet()
}
