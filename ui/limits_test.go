package ui_test

import (
	"net/url"
	"strings"
	"testing"

	"wuamesh/appliance"
)

// TestLimitsPage sets limits with a window of the week, looks at what they come
// to, opens the lines for an hour and closes them.
func TestLimitsPage(t *testing.T) {
	a := open(t)
	a.setUp()
	form := url.Values{
		"rate_wan_down": {"20"}, "rate_microsoft": {"fast"}, "month_microsoft": {"200"}, "windows": {"2"},
		"window_0_days": {"Mon-Fri"}, "window_0_from": {"07:00"}, "window_0_to": {"19:00"}, "window_0_rate": {"2,5"}, "window_0_line": {"wan_down", "microsoft"},
		"window_1_days": {"every day"}, "window_1_line": {"wan_down"},
	}
	expect := func(what string, status, want int, page string, says ...string) {
		t.Helper()
		if status != want {
			t.Errorf("%s: %d", what, status)
		}
		for _, s := range says {
			if !strings.Contains(page, s) {
				t.Errorf("%s: the page has no %q\n%s", what, s, page)
			}
		}
	}
	status, page := a.post("/mesh/limits", "/mesh/limits", form)
	expect("a word where a number belongs", status, 422, page, `value="fast"`, "is no rate", `value="07:00"`, `value="2,5"`)
	form.Set("rate_microsoft", "50")
	form.Set("do", "preview")
	status, page = a.post("/mesh/limits", "/mesh/limits", form)
	expect("the preview", status, 200, page, "Not saved yet", "Mon 00:00 to 07:00 50 Mbit/s, 07:00 to 19:00 2.5 Mbit/s", "From other sites", "20 Mbit/s outside of windows.", "200.00 GB a month")
	if l, err := a.node.SiteLimits(t.Context(), ""); err != nil || l.WANDown.Rate != 0 {
		t.Errorf("the preview set %+v, %v", l, err)
	}
	form.Set("do", "save")
	status, page = a.post("/mesh/limits", "/mesh/limits", form)
	expect("saved", status, 200, page, "They hold at once.", "Window 3", `<option value="Mon-Fri" selected>`)
	if strings.Contains(page, "Window 4") || strings.Contains(page, "Not saved yet") {
		t.Errorf("an empty window was saved\n%s", page)
	}
	_, page = a.get("/downloads")
	expect("the page of downloads", 200, 200, page, "Limits of this site", "1 window of the week.")
	status, page = a.post("/mesh/limits", "/mesh/limits/open", url.Values{"do": {"open"}})
	expect("opened", status, 200, page, "no limit holds, and no budget.", "Close them now")
	status, page = a.post("/mesh/limits", "/mesh/limits/open", url.Values{"do": {"close"}})
	expect("closed", status, 200, page, "hold again.", "Open for 1 hour")
	a.tidy("/mesh/limits", 200)
	a.tidy("/mesh/limits?site=brest", 200)
	if l, err := a.node.SiteLimits(t.Context(), ""); err != nil || len(l.WANDown.Windows) != 1 || l.Plan(appliance.FromMicrosoft).Month != 200e9 {
		t.Errorf("the limits are %+v, %v", l, err)
	}
}
