package agent

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"wuamesh/agentproto"
)

// A slowNode takes reports, and calls meanwhile before it answers.
type slowNode struct {
	Node
	meanwhile func()
	got       []agentproto.Report
}

func (n *slowNode) Report(_ context.Context, r agentproto.Report) (agentproto.ReportResponse, error) {
	n.got = append(n.got, r)
	if f := n.meanwhile; f != nil {
		n.meanwhile = nil
		f()
	}
	return agentproto.ReportResponse{}, nil
}

func (n *slowNode) Close() {}

// TestFailureWhileReporting: a scan that fails while the one before is being
// reported is reported too.
func TestFailureWhileReporting(t *testing.T) {
	dir := t.TempDir()
	a, err := Open(Options{Dir: dir, INI: filepath.Join(dir, "wapt-get.ini"), Log: slog.New(slog.DiscardHandler), Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	n := &slowNode{}
	a.link = n
	a.scan = scan{Schema: schema, Started: time.Now().Add(-time.Hour)}
	a.note(func(s *state) { s.Unsent = true })
	n.meanwhile = func() {
		a.scanFailed(t.Context(), time.Now(), &WindowsError{Call: "Search", HResult: codeOutOfMemory})
	}
	for range 3 {
		if err := a.tell(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if len(n.got) != 2 || n.got[1].Scan.HResult != codeOutOfMemory {
		t.Errorf("%d reports: %+v", len(n.got), n.got)
	}
}
