// Package wua is the Windows side of the agent: Host, the Windows that the
// agent runs on, over COM, and [Sim], a simulated one for tests and the
// demonstration. One suite of package agenttest runs against both. The sources
// of what it knows are in DESIGN.md of package agent.
package wua

import (
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/rules"
)

// A SimUpdate is what the simulated scan cab knows of an update.
type SimUpdate struct {
	agentproto.Update
	Builds []string // OS builds it applies to, by prefix: "10.0.26200"; none for all
	Server bool     // it applies to Windows Server, which shares builds with Windows 11
	EULA   bool     // it has a licence to accept
	Needs  SimNeeds // besides its full files
}

// SimNeeds is what Windows wants of an update besides its full files.
type SimNeeds string

// What an update may need.
const (
	NeedsDeltas  SimNeeds = "deltas"  // its deltas in the cache too
	NeedsPackage SimNeeds = "package" // to be installed by the servicing tools
)

// SimOptions make one simulated host. The same options make the same host.
type SimOptions struct {
	Seed     uint64
	Number   int                // of the host: BRS-WKS-0142
	Site     string             // first part of its name; empty for BRS
	Catalog  func() []SimUpdate // what the scan cab knows now
	Failures float64            // share of installs that fail, from 0 to 1; which ones is fixed by host and update
	Current  bool               // it starts with every update installed that the catalog has then

	ScanTime    time.Duration // of one search
	InstallTime time.Duration // of one update
	FreeSpace   int64         // bytes; 0 for 100 GB
}

// Sim is a simulated host: a [agent.Machine] with the rules of the Windows
// Update Agent as far as the agent can see them, and without Windows. It
// keeps its state in memory. Its methods may be used from any goroutine.
type Sim struct {
	o    SimOptions
	host simHost
	free chan struct{} // holds a token while no session is open

	mu        sync.Mutex
	service   agent.ServiceMode
	taken     bool // its policies are the agent's
	battery   int  // percent; 0 is on mains
	booted    time.Time
	installed map[rules.UpdateID]bool
	pending   map[rules.UpdateID]bool // installed, waits for a restart
	copied    map[string]bool         // files in Windows' cache, by lower-case name
	licensed  map[rules.UpdateID]bool
	hidden    map[rules.UpdateID]bool
	tries     map[rules.UpdateID]int
}

// NewSim makes the host. Part of the older updates that the catalog has now
// are installed on it.
func NewSim(o SimOptions) *Sim {
	s := &Sim{
		o: o, free: make(chan struct{}, 1), service: agent.ServiceGiven,
		installed: map[rules.UpdateID]bool{}, pending: map[rules.UpdateID]bool{}, copied: map[string]bool{},
		licensed: map[rules.UpdateID]bool{}, hidden: map[rules.UpdateID]bool{}, tries: map[rules.UpdateID]int{},
	}
	s.free <- struct{}{}
	s.host = s.pick()
	s.booted = time.Now().Add(-time.Duration(1 + s.chance("booted", "")*9*float64(24*time.Hour)))
	list := s.applicable()
	newest := time.Time{}
	for _, u := range list {
		if u.Published.After(newest) {
			newest = u.Published
		}
	}
	for _, u := range list {
		share := 0.15
		if newest.Sub(u.Published) > 45*24*time.Hour {
			share = 0.9
		}
		if o.Current || s.chance("installed", string(u.ID)) < share {
			s.installed[u.ID] = true
		}
	}
	return s
}

// chance is a number from 0 to 1, fixed by the host, the occasion and what it
// is about.
func (s *Sim) chance(occasion, about string) float64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d/%d/%s/%s", s.o.Seed, s.o.Number, occasion, about)
	x := h.Sum64() // FNV's high bits vary little at the end of short texts: mix
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11) / (1 << 53)
}

func choose[T any](s *Sim, occasion string, list []T) T {
	return list[int(s.chance(occasion, "")*float64(len(list)))]
}

// A simHost is what does not change on the host.
type simHost struct {
	facts  agentproto.Facts
	server bool
}

// systems are the Windows versions of a branch office, by weight.
var systems = []struct {
	weight float64
	os     string
	build  string
	server bool
}{
	{0.45, "Windows 11 Pro 25H2", "10.0.26200", false},
	{0.20, "Windows 11 Pro 24H2", "10.0.26100", false},
	{0.15, "Windows 10 Pro 22H2", "10.0.19045", false},
	{0.10, "Windows Server 2022 Standard", "10.0.20348", true},
	{0.10, "Windows Server 2025 Standard", "10.0.26100", true},
}

func (s *Sim) pick() simHost {
	site := s.o.Site
	if site == "" {
		site = "BRS"
	}
	i, x := 0, s.chance("system", "")
	for i < len(systems)-1 && x >= systems[i].weight {
		x -= systems[i].weight
		i++
	}
	sys := systems[i]
	kind, users := "WKS", []string{"lea", "ahmed", "ines", "jonas", "mei", ""}
	models := [][2]string{{"Dell Inc.", "OptiPlex 7010"}, {"HP", "EliteBook 840 G10"}, {"LENOVO", "ThinkCentre M70q Gen 4"}, {"LENOVO", "ThinkPad L14 Gen 4"}}
	if sys.server {
		kind, users = "SRV", []string{""}
		models = [][2]string{{"Dell Inc.", "PowerEdge T350"}, {"HPE", "ProLiant ML110 Gen11"}, {"VMware, Inc.", "VMware20,1"}}
	}
	name := fmt.Sprintf("%s-%s-%04d", site, kind, s.o.Number)
	model := choose(s, "model", models)
	arch := "amd64"
	if !sys.server && s.chance("arch", "") < 0.05 {
		arch = "arm64"
	}
	return simHost{server: sys.server, facts: agentproto.Facts{
		Name: name, FQDN: strings.ToLower(name) + ".example.com", Domain: "EXAMPLE", OS: sys.os,
		Build: fmt.Sprintf("%s.%d", sys.build, 4000+int(s.chance("ubr", "")*3500)), Arch: arch, Language: "en-US",
		Manufacturer: model[0], Model: model[1], Serial: fmt.Sprintf("%07X", uint32(s.chance("serial", "")*(1<<28))),
		Addresses:  []string{fmt.Sprintf("10.%d.%d.%d", 1+int(s.chance("net", s.o.Site)*200), s.o.Number/250%250, 2+s.o.Number%250)},
		WUAVersion: "1326.2510.15012.0", User: choose(s, "user", users),
	}}
}

// Facts implements [agent.Machine].
func (s *Sim) Facts(ctx context.Context) (agentproto.Facts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.host.facts
	f.Addresses = slices.Clone(f.Addresses)
	f.Booted, f.RestartDue, f.WUAService = s.booted, len(s.pending) > 0, "stopped"
	if f.RestartDue {
		f.RestartWhy = []string{"Windows Update has installed something that takes effect after a restart."}
	}
	f.Power, f.Battery, f.FreeGB = "mains", 0, 100
	if s.battery > 0 {
		f.Power, f.Battery = "battery", s.battery
	}
	if s.service == agent.ServiceOn {
		f.WUAService = "running"
	}
	return f, ctx.Err()
}

// FreeSpace implements [agent.Machine].
func (s *Sim) FreeSpace(context.Context, string) (int64, error) {
	if s.o.FreeSpace != 0 {
		return s.o.FreeSpace, nil
	}
	return 100 << 30, nil
}

// Service implements [agent.Machine].
func (s *Sim) Service(ctx context.Context, mode agent.ServiceMode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil {
		s.service = mode
	}
	return ctx.Err()
}

// TakeOver implements [agent.Machine].
func (s *Sim) TakeOver(ctx context.Context, on bool) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil {
		s.taken = on
	}
	return nil, ctx.Err()
}

// Taken says whether Windows leaves its updating to the agent.
func (s *Sim) Taken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

// Unplug puts the host on battery, with that many percent left; 0 plugs it in.
func (s *Sim) Unplug(percent int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.battery = percent
}

// Hidden says whether an update is taken out of Windows' own list.
func (s *Sim) Hidden(id rules.UpdateID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hidden[id]
}

// InstallPackage implements [agent.Machine]: the servicing tools take any
// file of an update that applies, if it is genuine.
func (s *Sim) InstallPackage(ctx context.Context, path string) (agent.Outcome, error) {
	for _, u := range s.applicable() {
		i := slices.IndexFunc(u.Files, func(f agentproto.File) bool { return strings.EqualFold(f.Name, filepath.Base(path)) })
		if i < 0 {
			continue
		}
		if err := genuine(path, u.Files[i]); err != nil {
			return agent.Outcome{HResult: 0x800F0805}, nil // CBS_E_INVALID_PACKAGE
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.installed[u.ID] = true
		return agent.Outcome{}, ctx.Err()
	}
	return agent.Outcome{HResult: 0x800F081E}, ctx.Err() // CBS_E_NOT_APPLICABLE
}

// RemoveKB implements [agent.Machine].
func (s *Sim) RemoveKB(ctx context.Context, kb string) (agent.Outcome, error) {
	for _, u := range s.applicable() {
		if slices.Contains(u.KBs, kb) && s.Installed(u.ID) {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.installed, u.ID)
			return agent.Outcome{}, ctx.Err()
		}
	}
	return agent.Outcome{HResult: 0x80240017}, ctx.Err() // WU_E_NOT_APPLICABLE
}

// ServiceNow is how the simulated Windows Update service is.
func (s *Sim) ServiceNow() agent.ServiceMode {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.service
}

// Installed says whether an update is installed and in effect.
func (s *Sim) Installed(id rules.UpdateID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.installed[id]
}

// Restart restarts the host: what waited for it is in effect.
func (s *Sim) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.pending {
		s.installed[id] = true
	}
	clear(s.pending)
	s.booted = time.Now()
}

// applicable are the updates of the catalog for this Windows.
func (s *Sim) applicable() []SimUpdate {
	return slices.DeleteFunc(slices.Clone(s.o.Catalog()), func(u SimUpdate) bool {
		return u.Server != s.host.server || len(u.Builds) > 0 &&
			!slices.ContainsFunc(u.Builds, func(b string) bool { return strings.HasPrefix(s.host.facts.Build+".", b+".") })
	})
}

// Open implements [agent.Machine]: it waits until the last session is closed.
func (s *Sim) Open(ctx context.Context, q agent.Query) (agent.Session, error) {
	select {
	case <-s.free:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := s.register(q); err != nil {
		s.free <- struct{}{}
		return nil, err
	}
	return &simSession{Sim: s, query: q}, nil
}

func (s *Sim) register(q agent.Query) error {
	fi, err := os.Stat(q.Cab)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.service == agent.ServiceOff:
		return fail("AddScanPackageService", 0x80070422)
	case err != nil || !filepath.IsAbs(q.Cab):
		return fail("AddScanPackageService", 0x80070002)
	case fi.Size() == 0:
		return fail("AddScanPackageService", 0x80247001)
	}
	return nil
}

// fail is a call that Windows refused with that code.
func fail(call string, code uint32) *agent.WindowsError {
	return &agent.WindowsError{Call: call, HResult: code}
}
