package agent_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/agent/agenttest"
	"wuamesh/agentproto/rules"
)

// TestPushedSettings: what the mesh sets for a group is in wapt-get.ini, holds
// at once, is not the host's own wish, and goes when the group's wish goes.
func TestPushedSettings(t *testing.T) {
	m := newMesh(t)
	n := m.node(t, "rns-01")
	h := newHost(t, "; ours\n[global]\nrepo_url = https://x.example/wapt\n\n"+iniFor(m, n)+"[waptwua]\ninstall_delay = 3d ; two were too few\n", agenttest.Updates(2))
	a := h.open()
	defer a.Close()
	// The node makes the policy of what the host says and of what its groups do.
	groups := func(s *rules.Settings) {}
	meet := func() {
		t.Helper()
		for range 2 { // to say what is, and to hear what shall be
			a.Scan(t.Context())
			n.look(func() {
				s := n.checkins[len(n.checkins)-1].Settings
				groups(&s)
				n.policy = allow(s)
			})
		}
		a.Scan(t.Context())
	}
	ini := func() string {
		b, err := os.ReadFile(h.o.INI)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	own := func() (s rules.Settings) {
		n.look(func() { s = n.checkins[len(n.checkins)-1].Settings })
		return s
	}
	before := ini()
	n.policy = allow(agent.ParseINI([]byte(before)).Settings)
	meet()
	if ini() != before {
		t.Errorf("without a wish of the mesh the file became\n%s", ini())
	}
	groups = func(s *rules.Settings) { s.InstallDelay, s.InstallAtShutdown = 7*24*time.Hour, true }
	meet()
	c := agent.ParseINI([]byte(ini()))
	if c.Settings.InstallDelay != 7*day || !c.Settings.InstallAtShutdown || !*c.Settings.Enabled {
		t.Errorf("the file became\n%s", ini())
	}
	for _, want := range []string{"; ours\n[global]\nrepo_url = https://x.example/wapt\n", "install_delay = 7d ; two were too few\n", "nodes = " + n.URL} {
		if !strings.Contains(ini(), want) {
			t.Errorf("no %q in\n%s", want, ini())
		}
	}
	if s := own(); s.InstallDelay != 3*day || s.InstallAtShutdown {
		t.Errorf("the node hears of the host's own wish %+v", s)
	}
	a.Close()
	a = h.open() // what was pushed is known after a start
	groups = func(s *rules.Settings) { s.InstallAtShutdown = true }
	meet()
	if c := agent.ParseINI([]byte(ini())); c.Settings.InstallDelay != 3*day || !c.Settings.InstallAtShutdown {
		t.Errorf("one wish was taken back, and the file became\n%s", ini())
	}
	// Somebody edits the file: that is the host's wish, until the mesh says otherwise.
	h.write(strings.Replace(ini(), "install_delay = 3d", "install_delay = 4d", 1))
	meet()
	if s := own(); s.InstallDelay != 4*day {
		t.Errorf("after an edit the node hears %+v", s)
	}
	groups = func(s *rules.Settings) {}
	meet()
	if c := agent.ParseINI([]byte(ini())); c.Settings.InstallDelay != 4*day || c.Settings.InstallAtShutdown || len(c.Warnings) > 0 {
		t.Errorf("at the end the file is\n%s%v", ini(), c.Warnings)
	}
}
