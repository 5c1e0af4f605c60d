package ui_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"wuamesh/agentproto/rules"
)

// tags are what a page has besides its text.
var tags = regexp.MustCompile(`<[^>]*>`)

// TestMonthAndRestart narrows the list of updates by the month they are of and
// by what they need afterwards, on the page and in its file.
func TestMonthAndRestart(t *testing.T) {
	a := open(t)
	a.setUp()
	first, second, third := invented(1, "Of November", rules.Critical), invented(2, "Of October", rules.Critical), invented(3, "Of October, too", rules.Low)
	second.Published, third.Published = second.Published.AddDate(0, -1, 0), third.Published.AddDate(0, -1, 3)
	first.Restart, second.Restart, third.Restart = "always", "never", ""
	a.enrol(1, pc("BRS-WKS-0001"), needs(first, second, third), first, second, third)
	for query, want := range map[string][]string{
		"":                               {"Of November", "Of October", "Of October, too"},
		"pub=2026-10":                    {"Of October", "Of October, too"},
		"pub=2026-10&restart=never":      {"Of October"},
		"restart=always&restart=unknown": {"Of November", "Of October, too"},
		"pub=2026-10&severity=Low":       {"Of October, too"},
	} {
		head, rows := a.table("/updates.csv?" + query)
		if got := column(head, rows, "Title"); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
			t.Errorf("%s finds %q", query, got)
		}
	}
	_, page := a.get("/updates?pub=2026-10&severity=Critical")
	text := strings.Join(strings.Fields(tags.ReplaceAllString(page, " ")), " ")
	for _, want := range []string{"Published November 2026 1 October 2026 1", "Needs restart Never 1", "Published October 2026", "1 of 3 updates"} {
		if !strings.Contains(text, want) {
			t.Errorf("without %q:\n%s", want, text)
		}
	}
	if _, page := a.get("/updates?pub=november"); !strings.Contains(page, "No update matches") {
		t.Errorf("what is no month finds something:\n%s", page)
	}
}
