package agent_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/agent/agenttest"
	"wuamesh/agentproto/rules"
)

var enabled = true

// settings are those of a managed host on which nothing is installed by
// schedule.
func settings() rules.Settings {
	s := rules.DefaultSettings()
	s.Enabled = &enabled
	return s
}

// TestWholePass goes from a host that nobody knows to one whose allowed
// updates are installed and reported.
func TestWholePass(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	u := agenttest.Updates(4)
	n.policy = allow(settings(), u[0].KBs[0], u[1].KBs[0])
	n.policy.Packages[0].Lines = append(n.policy.Packages[0].Lines, rules.Line{Verb: rules.Forbid, Kind: rules.ByUpdateID, Value: string(u[2].ID)})
	h := newHost(t, iniFor(m, n), u).start()

	n.until("files on the host", func() bool {
		a, _ := n.status(u[0].ID)
		b, _ := n.status(u[1].ID)
		return a.OnHost && b.OnHost
	})
	n.look(func() {
		if len(n.known) != 4 || n.known[agentproto.UpdateRef{ID: u[3].ID, Revision: u[3].Revision}].Title != u[3].Title {
			t.Errorf("the node knows %d descriptions, want 4", len(n.known))
		}
		if n.fetched[fileOf(u[2])]+n.fetched[fileOf(u[3])] > 0 {
			t.Error("files of updates that are not allowed were fetched")
		}
		if n.enrolled != 1 || n.fetched[agentproto.ScanCabName] != 1 {
			t.Errorf("enrolled %d times, scan cab fetched %d times", n.enrolled, n.fetched[agentproto.ScanCabName])
		}
	})
	if h.sim.Installed(u[0].ID) {
		t.Error("installed without a schedule or an order")
	}

	n.tell("command", agentproto.Command{ID: "c1", Action: agentproto.ActionInstall, By: "maelle", Issued: time.Now()})
	n.until("installs", func() bool {
		a, _ := n.status(u[0].ID)
		b, _ := n.status(u[1].ID)
		return a.Installed && b.Installed && len(n.results.Commands) == 2
	})
	n.look(func() {
		if r := n.results.Commands[1]; r.State != agentproto.CommandDone || r.Detail != "Installed 2 updates." {
			t.Errorf("result of the command: %+v", r)
		}
		if len(n.results.Installs) != 2 || n.results.Installs[0].HResult != 0 {
			t.Errorf("results of the installs: %+v", n.results.Installs)
		}
	})
	if h.sim.Installed(u[2].ID) || h.sim.Installed(u[3].ID) {
		t.Error("a forbidden update, or one that nothing allows, was installed")
	}
	if s := h.sim.ServiceNow(); s != agent.ServiceOff {
		t.Errorf("the Windows Update service is %s after the pass", s)
	}
	h.stop()
	if list := h.files(); len(list) > 0 {
		t.Errorf("downloads of installed updates are left: %v", list)
	}
	s := h.Status()
	if s.OK != 2 || len(s.Updates) != 2 || s.Updates[0].State != rules.Discarded || s.Updates[0].Sentence == "" {
		t.Errorf("status: %+v", s)
	}
}

// TestNoScanWhenNothingChanged is requirement A3.
func TestNoScanWhenNothingChanged(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	s := settings()
	s.DownloadScheduling = 0 // at every tick
	n.policy = allow(s)
	h := newHost(t, iniFor(m, n), agenttest.Updates(2)).start()
	n.until("the first report", func() bool { return len(n.reports) > 0 })
	for i := range 3 {
		n.tell("policy", nil)
		n.until("another check-in", func() bool { return len(n.checkins) > i+1 })
	}
	h.stop()
	if _, searched := h.counts(); searched != 1 {
		t.Errorf("%d scans, want 1", searched)
	}
	n.look(func() {
		if len(n.reports) > 2 || n.fetched[agentproto.ScanCabName] != 1 {
			t.Errorf("%d reports, scan cab fetched %d times", len(n.reports), n.fetched[agentproto.ScanCabName])
		}
		if k := n.checkins[len(n.checkins)-1]; k.Statuses != agentproto.HashStatuses(n.statuses) || k.Cab != sum256(n.files[agentproto.ScanCabName]) {
			t.Errorf("the check-in does not say what the agent has: %+v", k)
		}
	})
}

// TestAnOrderBeforeTheFirstScan has an admin order an install of a host that was
// let in a moment ago: it is scanned first, and installs what it needs.
func TestAnOrderBeforeTheFirstScan(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	u := agenttest.Updates(2)
	n.policy = allow(settings(), u[0].KBs[0], u[1].KBs[0])
	n.commands = []agentproto.Command{{ID: "c1", Action: agentproto.ActionInstall, By: "maelle", Issued: time.Now()}}
	h := newHost(t, iniFor(m, n), u)
	var once sync.Once
	h.before = func(string) { once.Do(func() { <-time.After(200 * time.Millisecond) }) } // the order is there meanwhile
	h.start()
	n.until("the end of the order", func() bool { return len(n.results.Commands) == 2 })
	n.look(func() {
		if r := n.results.Commands[1]; r.State != agentproto.CommandDone || r.Detail != "Installed 2 updates." {
			t.Errorf("the order ended %+v", r)
		}
	})
}

func TestCommandsOnce(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	n.policy = allow(settings())
	h := newHost(t, iniFor(m, n), agenttest.Updates(2)).start()
	n.until("the first report", func() bool { return len(n.reports) > 0 && len(n.listeners) == 1 })

	c := agentproto.Command{ID: "c1", Action: agentproto.ActionScan, By: "maelle", Issued: time.Now()}
	began := time.Now()
	n.tell("command", c)
	n.until("the command's end", func() bool { return len(n.results.Commands) == 2 })
	took := time.Since(began)
	t.Logf("from the event to the result: %s", took)
	if took > 5*time.Second {
		t.Errorf("the command took %s", took)
	}
	// The same one again: by the stream, by a check-in, and after a restart.
	n.look(func() { n.commands = []agentproto.Command{c} })
	n.tell("command", c)
	n.tell("policy", nil)
	n.until("another check-in", func() bool { return len(n.checkins) > 1 })
	h.stop()
	h.start()
	n.until("a check-in after the restart", func() bool { return len(n.checkins) > 2 })
	d := agentproto.Command{ID: "c2", Action: agentproto.ActionDownload, By: "maelle", Issued: time.Now()}
	n.look(func() { n.commands = append(n.commands, d) })
	n.until("a listener", func() bool { return len(n.listeners) > 0 })
	n.tell("policy", nil)
	n.until("the second command's end", func() bool { return len(n.results.Commands) >= 4 })
	h.stop()
	n.look(func() {
		want := []agentproto.CommandState{agentproto.CommandRunning, agentproto.CommandDone, agentproto.CommandRunning, agentproto.CommandDone}
		var got []agentproto.CommandState
		for _, r := range n.results.Commands {
			got = append(got, r.State)
		}
		if !slices.Equal(got, want) || n.results.Commands[1].Detail != "Found 2 updates needed, 0 installed." {
			t.Errorf("results: %+v", n.results.Commands)
		}
	})
	if _, searched := h.counts(); searched != 2 {
		t.Errorf("%d scans, want the first and the ordered one", searched)
	}
}

func TestNotThereYet(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	u := agenttest.Updates(3)
	n.policy = allow(settings(), u[0].KBs[0], u[1].KBs[0], u[2].KBs[0])
	n.away[fileOf(u[0])] = true   // 503, Retry-After: 1
	gone := n.files[fileOf(u[1])] // 404
	delete(n.files, fileOf(u[1]))
	n.cut[fileOf(u[2])] = []int{20000} // the line is cut in the middle
	h := newHost(t, iniFor(m, n), u).start()
	n.until("both asked for", func() bool { return n.fetched[fileOf(u[0])] > 1 && n.fetched[fileOf(u[1])] > 0 })
	n.look(func() {
		n.away[fileOf(u[0])] = false
		n.files[fileOf(u[1])] = gone
	})
	n.until("the first on the host", func() bool { s, _ := n.status(u[0].ID); return s.OnHost })
	// A new policy is a reason to ask again at once.
	n.look(func() { n.policy = allow(settings(), u[1].KBs[0], u[2].KBs[0]) })
	n.tell("policy", nil)
	n.until("the others on the host", func() bool {
		a, _ := n.status(u[1].ID)
		b, _ := n.status(u[2].ID)
		return a.OnHost && b.OnHost
	})
	h.stop()
	n.look(func() {
		if size := int64(len(agenttest.Content(fileOf(u[2])))); n.sent[fileOf(u[2])] != size {
			t.Errorf("%d bytes sent of a file of %d: the download was not resumed", n.sent[fileOf(u[2])], size)
		}
	})
	if got := h.files(); !slices.Equal(got, []string{fileOf(u[1]), fileOf(u[2])}) {
		t.Errorf("downloads: %v", got)
	}
}

// TestCorruptFile has the nearest node serve a wrong file: it is thrown away
// and the next node is asked.
func TestCorruptFile(t *testing.T) {
	m := newMesh(t)
	bad, good := m.node(t, "rns-01"), m.node(t, "rns-02")
	u := agenttest.Updates(2)
	s := settings()
	s.InstallScheduling = time.Hour
	bad.policy = allow(s, u[0].KBs[0], u[1].KBs[0])
	good.policy = bad.policy
	wrong := slices.Clone(agenttest.Content(fileOf(u[0])))
	wrong[1000] ^= 1
	bad.files[fileOf(u[0])] = wrong
	bad.files[fileOf(u[1])] = wrong[:500]
	good.files[fileOf(u[1])] = wrong // on no node as it should be
	bad.nodes = []string{bad.URL, good.URL}
	good.nodes = bad.nodes
	h := newHost(t, iniFor(m, bad, good), u).start()
	good.until("the first on the host and the second refused", func() bool {
		s, _ := good.status(u[0].ID)
		return s.OnHost && good.fetched[fileOf(u[1])] > 0 && bad.fetched[fileOf(u[1])] > 0
	})
	h.stop()
	if got := h.files(); !slices.Contains(got, fileOf(u[0])) || slices.Contains(got, fileOf(u[1])) || slices.Contains(got, fileOf(u[1])+".part") {
		t.Errorf("downloads: %v", got)
	}
	if h.sim.Installed(u[1].ID) {
		t.Error("a corrupt file was installed")
	}
}

func TestNodeAway(t *testing.T) {
	m := newMesh(t)
	first, second := m.node(t, "rns-01"), m.node(t, "rns-02")
	u := agenttest.Updates(2)
	first.policy = allow(settings(), u[0].KBs[0])
	second.policy = first.policy
	first.nodes = []string{first.URL, second.URL}
	second.nodes = first.nodes
	// Only the first is in wapt-get.ini; of the second the host hears later.
	h := newHost(t, iniFor(m, first), u).start()
	first.until("the first on the host", func() bool { s, _ := first.status(u[0].ID); return s.OnHost })
	h.stop()
	first.stop()
	second.look(func() { second.policy = allow(settings(), u[0].KBs[0], u[1].KBs[0]) })
	h.start()
	second.until("the second on the host", func() bool { s, _ := second.status(u[1].ID); return s.OnHost })
	h.stop()
	second.look(func() {
		if second.enrolled != 0 || second.fetched[fileOf(u[0])] != 0 || second.fetched[agentproto.ScanCabName] != 0 {
			t.Errorf("enrolled again %d times, fetched %v", second.enrolled, second.fetched)
		}
	})
}
