package agent_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/agent/agenttest"
	"wuamesh/agentproto/agent/wua"
	"wuamesh/agentproto/rules"
)

// A host is a simulated one with an agent on it, which can be stopped and
// started again on the same state.
type host struct {
	t   testing.TB
	o   agent.Options
	sim *wua.Sim
	*machine
	*agent.Agent
	stop func()
}

// newHost makes a host that needs these updates.
func newHost(t testing.TB, ini string, updates []agentproto.Update) *host {
	t.Helper()
	var list []wua.SimUpdate
	sim := wua.NewSim(wua.SimOptions{Seed: 1, Number: 1, Catalog: func() []wua.SimUpdate { return list }})
	for _, u := range updates {
		list = append(list, wua.SimUpdate{Update: u, EULA: true}, wua.SimUpdate{Update: u, EULA: true, Server: true})
	}
	dir := t.TempDir()
	h := &host{t: t, sim: sim, machine: &machine{Machine: sim}, stop: func() {}}
	h.o = agent.Options{
		Dir: filepath.Join(dir, "state"), INI: filepath.Join(dir, "wapt-get.ini"), Machine: h.machine, Version: "1.0.0", Seed: 1,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	h.write(ini)
	t.Cleanup(func() { h.stop() })
	return h
}

func (h *host) write(ini string) {
	if err := os.WriteFile(h.o.INI, []byte(ini), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// open opens the agent without starting it.
func (h *host) open() *agent.Agent {
	h.t.Helper()
	a, err := agent.Open(h.o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Agent = a
	return a
}

// start opens the agent and runs it until stop.
func (h *host) start() *host {
	h.t.Helper()
	a := h.open()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Errorf("run: %v", err)
		}
		if err := a.Close(); err != nil {
			h.t.Errorf("close: %v", err)
		}
	})
	return h
}

// iniFor names the nodes and the token.
func iniFor(m *mesh, nodes ...*node) string {
	var urls []string
	for _, n := range nodes {
		urls = append(urls, n.URL)
	}
	return fmt.Sprintf("[waptwua]\nenabled = True\n[wuamesh]\nnodes = %s\ntoken = %s\n", strings.Join(urls, ", "), m.token)
}

// A machine watches what the agent does with the simulated one.
type machine struct {
	agent.Machine
	mu       sync.Mutex
	opened   int
	searched int
	order    []rules.UpdateID // installs, as they began
	modes    []agent.ServiceMode
	before   func(step string) // called before each step, if set
	free     int64             // of the disk, if set
}

func (m *machine) FreeSpace(ctx context.Context, dir string) (int64, error) {
	if m.free != 0 {
		return m.free, nil
	}
	return m.Machine.FreeSpace(ctx, dir)
}

func (m *machine) step(name string) {
	m.mu.Lock()
	f := m.before
	m.mu.Unlock()
	if f != nil {
		f(name)
	}
}

func (m *machine) Service(ctx context.Context, mode agent.ServiceMode) error {
	m.mu.Lock()
	m.modes = append(m.modes, mode)
	m.mu.Unlock()
	return m.Machine.Service(ctx, mode)
}

func (m *machine) Open(ctx context.Context, q agent.Query) (agent.Session, error) {
	m.step("open")
	s, err := m.Machine.Open(ctx, q)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opened++
	return &session{s, m}, nil
}

type session struct {
	agent.Session
	m *machine
}

func (s *session) Search(ctx context.Context) ([]agent.Found, error) {
	s.m.step("search")
	s.m.mu.Lock()
	s.m.searched++
	s.m.mu.Unlock()
	return s.Session.Search(ctx)
}

func (s *session) CopyToCache(ctx context.Context, ref agentproto.UpdateRef, files []string) error {
	s.m.step("copy")
	return s.Session.CopyToCache(ctx, ref, files)
}

func (s *session) Install(ctx context.Context, ref agentproto.UpdateRef) (agent.Outcome, error) {
	s.m.step("install")
	s.m.mu.Lock()
	s.m.order = append(s.m.order, ref.ID)
	s.m.mu.Unlock()
	return s.Session.Install(ctx, ref)
}

func (m *machine) counts() (opened, searched int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.opened, m.searched
}

// files lists the downloads the agent holds.
func (h *host) files() (names []string) {
	list, err := os.ReadDir(filepath.Join(h.o.Dir, "files"))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func fileOf(u agentproto.Update) string { return agenttest.FileName(u.KBs[0]) }
