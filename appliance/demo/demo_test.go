package demo_test

import (
	"bytes"
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

// TestDemo plays the demonstration and reads its last words: hosts are up to
// date, rules held some updates back, and no file was fetched twice.
func TestDemo(t *testing.T) {
	var out bytes.Buffer
	err := demo.Run(t.Context(), demo.Options{
		Data: t.TempDir(), Hosts: 8, For: 25 * time.Second, Seed: 1, Out: &out,
		Log:   slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		Pages: func(n *appliance.Appliance, log *slog.Logger) http.Handler { return api.New(n, log) },
	})
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(\d+) of (\d+) hosts have all they may install, (\d+) updates installed by wuamesh, (\d+) DISCARDED`).FindStringSubmatch(out.String())
	if m == nil || m[1] == "0" || m[2] != "8" || m[3] == "0" || m[4] == "0" {
		t.Errorf("the summary says %q", m)
	}
	if !strings.Contains(out.String(), ", 0 of them more than once") {
		t.Error("a file was fetched more than once")
	}
}
