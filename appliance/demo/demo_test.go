package demo_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"wuamesh/appliance"
	"wuamesh/appliance/api"
	"wuamesh/appliance/demo"
)

// A heard is what the demonstration says; it ends the demonstration once it
// said what the test waits for, however fast the machine is.
type heard struct {
	bytes.Buffer
	end   context.CancelFunc
	until *regexp.Regexp
}

func (h *heard) Write(b []byte) (int, error) {
	n, err := h.Buffer.Write(b)
	if h.until.Match(h.Bytes()) {
		h.end()
	}
	return n, err
}

// play plays until that is said, five minutes at most, and returns what was
// said.
func play(t *testing.T, o demo.Options, until string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out := &heard{end: cancel, until: regexp.MustCompile(until)}
	o.Data, o.Seed, o.Out = t.TempDir(), 1, out
	o.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	o.Pages = func(n *appliance.Appliance, log *slog.Logger) http.Handler { return api.New(n, log) }
	err := demo.Run(ctx, o)
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// upToDate reads the last words: hosts are up to date, rules held some
// updates back, and no file was fetched twice.
func upToDate(t *testing.T, text, hosts string) {
	t.Helper()
	m := regexp.MustCompile(`(\d+) of (\d+) hosts have all they may install, (\d+) updates installed by wuamesh, (\d+) DISCARDED`).FindStringSubmatch(text)
	if m == nil || m[1] == "0" || m[2] != hosts || m[3] == "0" || m[4] == "0" {
		t.Errorf("the summary says %q", m)
	}
	if !strings.Contains(text, ", 0 of them more than once") {
		t.Error("a file was fetched more than once")
	}
}

// TestDemo plays the demonstration with one node.
func TestDemo(t *testing.T) {
	t.Parallel()
	upToDate(t, play(t, demo.Options{Nodes: 1, Hosts: 8}, `8 hosts, [4-8] up to date`), "8")
}

// TestDemoCut plays it with three, of which one is cut off while both sides
// edit the same rule packages: no edit is lost, and forbid wins.
func TestDemoCut(t *testing.T) {
	t.Parallel()
	text := play(t, demo.Options{Nodes: 3, Hosts: 9, Cut: 5 * time.Second}, `(?s)all nodes have all.*9 hosts, [7-9] up to date`) // of every site one
	upToDate(t, text, "9")
	for _, want := range []string{
		"-- lor-01 is cut off", "-- the line to lor-01 is back", "6 edits were made on both sides; all 3 nodes have all of them",
		"allow  KB", "was allowed on one side and forbidden on the other: every node forbids it", "brs-01 took",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", want)
		}
	}
}

// TestDemoOfNothing ends by itself before a host can have installed anything,
// and says so to scripts.
func TestDemoOfNothing(t *testing.T) {
	var out bytes.Buffer
	err := demo.Run(t.Context(), demo.Options{
		Nodes: 1, Hosts: 1, For: time.Second, Data: t.TempDir(), Seed: 1, Out: &out, Log: slog.New(slog.DiscardHandler),
		Pages: func(n *appliance.Appliance, log *slog.Logger) http.Handler { return api.New(n, log) },
	})
	if !errors.Is(err, demo.ErrNothingInstalled) || !strings.Contains(out.String(), "It ends by itself in 1s.") {
		t.Errorf("it ended with %v, and said\n%s", err, out.String())
	}
}

func TestDemoRefusals(t *testing.T) {
	for want, o := range map[string]demo.Options{
		"6 nodes: want 1 to 5":      {Nodes: 6, Hosts: 1},
		"0 hosts: want 1 to 500":    {Nodes: 1},
		"nobody to be cut off from": {Nodes: 1, Hosts: 1, Cut: time.Second},
		"want 45s or more":          {Nodes: 2, Hosts: 1, Cut: 20 * time.Second, For: 30 * time.Second},
	} {
		if err := demo.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
}
