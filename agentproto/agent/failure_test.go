package agent

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// TestFailures keeps the last failures, each once.
func TestFailures(t *testing.T) {
	var s state
	began := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	after := func(d time.Duration, doing string, err error) { s.failed(doing, err, began.Add(d)) }
	after(0, "contact", errors.New("no node answers"))
	after(time.Minute, "contact", errors.New("no node answers"))
	if f := s.Failures[0]; len(s.Failures) != 1 || !f.At.Equal(began) || f.Times != 1 {
		t.Errorf("the same again at once is news: %+v", s.Failures)
	}
	after(2*time.Minute, "scan", fmt.Errorf("scan: %w", &WindowsError{Call: "Search", HResult: 0x8024402C}))
	after(2*time.Hour, "contact", errors.New("no node answers"))
	if f := s.Failures[0]; len(s.Failures) != 2 || f.Doing != "contact" || f.Times != 2 || !f.At.Equal(began.Add(2*time.Hour)) {
		t.Errorf("the same again later: %+v", s.Failures)
	}
	if f := s.Failures[1]; f.HResult != 0x8024402C || f.Text != "scan: Search: 0x8024402C (WU_E_PT_WINHTTP_NAME_NOT_RESOLVED)" {
		t.Errorf("one of Windows: %+v", f)
	}
	for i := range 9 {
		after(3*time.Hour+time.Duration(i)*time.Minute, "install", fmt.Errorf("update %d\nof nine", i))
	}
	if len(s.Failures) != 5 || s.Failures[0].Text != "update 8 of nine" || s.Failures[4].Text != "update 4 of nine" {
		t.Errorf("the last of many: %+v", s.Failures)
	}
}
