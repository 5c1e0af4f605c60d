package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/agent/wua"
	"wuamesh/agentproto/rules"
)

func newAgent(t *testing.T, ini string) *agent.Agent {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "wapt-get.ini")
	if err := os.WriteFile(path, []byte(ini), 0o600); err != nil {
		t.Fatal(err)
	}
	sim := wua.NewSim(wua.SimOptions{Seed: 1, Catalog: func() []wua.SimUpdate { return nil }})
	a, err := agent.Open(agent.Options{Dir: filepath.Join(dir, "agent"), INI: path, Machine: sim, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// ask asks an agent as a command does, over a connection.
func ask(t *testing.T, a *agent.Agent, r request, allowed bool) (answer, []string) {
	t.Helper()
	here, there := net.Pipe()
	served := make(chan error, 1)
	go func() {
		served <- serveOne(t.Context(), a, there, func(requestName) bool { return allowed })
	}()
	var said []string
	got, err := exchange(here, r, func(s string) { said = append(said, s) })
	if err != nil {
		t.Fatal(err)
	}
	here.Close()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	return got, said
}

func TestExchange(t *testing.T) {
	a := newAgent(t, "[wuamesh]\nnodes = https://127.0.0.1:1\n")
	if got, _ := ask(t, a, request{Name: requestStatus}, true); got.Status == nil || got.Status.Enrolled || got.Status.Nodes[0] != "https://127.0.0.1:1" {
		t.Errorf("%+v", got)
	}
	got, said := ask(t, a, request{Name: requestEnroll}, true)
	if !strings.Contains(got.Error, "neither token nor pin") || len(said) == 0 || said[0] != "" && said[0] != "enrolling" {
		t.Errorf("%+v, meanwhile %q", got, said)
	}
	if got, _ := ask(t, a, request{Name: requestScan}, true); !strings.Contains(got.Error, "neither token nor pin") {
		t.Errorf("a scan that cannot be says %+v", got)
	}
	if got, _ := ask(t, a, request{Name: "dance"}, true); !strings.Contains(got.Error, "another version") {
		t.Errorf("%+v", got)
	}
	if got, _ := ask(t, a, request{Name: requestScan}, false); !strings.Contains(got.Error, "administrator") {
		t.Errorf("%+v", got)
	}
}

// TestNobodyReads: who asks and goes away holds up nothing.
func TestNobodyReads(t *testing.T) {
	a := newAgent(t, "")
	for _, said := range []string{"", `{"request":"scan"}` + "\n", "nonsense\n", strings.Repeat("x", 5000)} {
		here, there := net.Pipe()
		served := make(chan struct{})
		go func() {
			serveOne(t.Context(), a, there, func(requestName) bool { return true })
			close(served)
		}()
		here.SetWriteDeadline(time.Now().Add(time.Second))
		here.Write([]byte(said)) // it may be refused half-way
		here.Close()
		<-served
	}
}

func TestConsole(t *testing.T) {
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "install-updates"},
		{[]string{"help"}, 0, "install-updates"},
		{[]string{"version"}, 0, "wuamesh-agent dev"},
		{[]string{"scna"}, 2, `no command "scna"`},
		{[]string{"scan", "now"}, 2, `takes no "now"`},
		{[]string{"uninstall-kb"}, 2, "number of one KB"},
		{[]string{"scan", "--fast"}, 2, "flag provided but not defined"},
		{[]string{"scan", "--help"}, 0, "-json"},
		{[]string{"scan", "--dir", t.TempDir()}, 1, "this program is for Windows"},
		{[]string{"scan", "--json", "--dir", t.TempDir()}, 1, `{"error":"this program is for Windows"}`},
		{[]string{"enroll", "--ini", filepath.Join(t.TempDir(), "wapt-get.ini"), "--token", "x"}, 2, "not an enrolment token"},
	} {
		if runtime.GOOS == "windows" && strings.Contains(tt.want, "for Windows") {
			continue
		}
		var out bytes.Buffer
		c := &console{out: &out, err: &out}
		if code := c.main(context.Background(), tt.args); code != tt.code || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%q: exit %d, %q; want %d, %q", tt.args, code, out.String(), tt.code, tt.want)
		}
	}
}

func TestPrintStatus(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	printStatus(&out, agent.Status{
		Host: "h", Enrolled: true, Nodes: []string{"https://rns-01"}, Checkin: now.Add(-3 * time.Minute), Next: now.Add(12 * time.Minute),
		Doing: "scanning", Scanned: now.Add(-50 * time.Hour), NextScan: now.Add(5 * time.Hour), Restart: true, OK: 7, Warnings: []string{"line 3: what?"},
		Clock: &agentproto.ClockOff{Node: "rns-01", Off: agentproto.Duration(20 * time.Minute), Behind: true},
		Updates: []agent.UpdateStatus{{
			UpdateRef: agentproto.UpdateRef{ID: "u"}, Title: "A cumulative update", KBs: []string{"5091000"},
			State: rules.Pending, Reason: rules.ReasonInstallErr, Sentence: "The last try failed.", HResult: 0x80070643,
		}},
	}, now)
	for _, want := range []string{
		"enrolled as h", "3 minutes ago; next in 12 minutes", "Now           scanning", "Last scan     2 days ago", "Next scan     in 5 hours",
		"Restart       needed", "line 3: what?", "Clock         The clock of this host is 20 minutes behind that of the node rns-01. ", "7 installed, 1 not", "PENDING    KB5091000  A cumulative update", "0x80070643",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestLogFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.log")
	l, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	line := bytes.Repeat([]byte("x"), 1<<20)
	for range 12 {
		if _, err := l.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{path, path + ".1"} {
		if fi, err := os.Stat(p); err != nil || fi.Size() > logBytes || fi.Size() == 0 {
			t.Errorf("%s: %v, %v", p, fi, err)
		}
	}
}
