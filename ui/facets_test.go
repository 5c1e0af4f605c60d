package ui_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"wuamesh/agentproto"
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

// TestSeverityOnAHost narrows the updates of one host by severity, on its page
// and in its file; what there is to choose is counted without the choice.
func TestSeverityOnAHost(t *testing.T) {
	a := open(t)
	a.setUp()
	first, second, third := invented(1, "A grave one", rules.Critical), invented(2, "A grave one that is there", rules.Critical), invented(3, "A light one", rules.Low)
	statuses := append(needs(first, third), agentproto.Status{ID: second.ID, Revision: second.Revision, Installed: true})
	path := "/hosts/" + string(a.enrol(1, pc("BRS-WKS-0001"), statuses, first, second, third))
	for query, want := range map[string][]string{
		"":                               {"A grave one", "A grave one that is there", "A light one"},
		"severity=Critical":              {"A grave one", "A grave one that is there"},
		"severity=Critical&state=OK":     {"A grave one that is there"},
		"severity=Low&severity=Critical": {"A grave one", "A grave one that is there", "A light one"},
		"severity=Low&q=grave":           nil,
	} {
		head, rows := a.table(path + "/updates.csv?" + query)
		if got := column(head, rows, "Title"); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
			t.Errorf("%s finds %q", query, got)
		}
	}
	_, page := a.get(path + "?severity=Low&q=grave")
	text := strings.Join(strings.Fields(tags.ReplaceAllString(page, " ")), " ")
	if !strings.Contains(text, "Any criticality Critical 2 Low 0 ") || !strings.Contains(text, "No update matches") {
		t.Errorf("nothing light is grave:\n%s", text)
	}
	if _, page := a.get(path + "?severity=Low"); !strings.Contains(page, `href="?severity=Low&amp;state=OK"`) || !strings.Contains(page, `name="severity" value="Low"`) {
		t.Errorf("the tiles and the search lose the choice:\n%s", page)
	}
}
