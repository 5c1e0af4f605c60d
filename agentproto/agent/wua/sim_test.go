package wua_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/agent/agenttest"
	"wuamesh/agentproto/agent/wua"
)

// everywhere are n updates for every Windows, client and server.
func everywhere(n int) func() []wua.SimUpdate {
	var list []wua.SimUpdate
	for _, u := range agenttest.Updates(n) {
		list = append(list, wua.SimUpdate{Update: u, EULA: u.Revision%2 == 0}, wua.SimUpdate{Update: u, EULA: u.Revision%2 == 0, Server: true})
	}
	return func() []wua.SimUpdate { return list }
}

func cab(t *testing.T) string {
	path := filepath.Join(t.TempDir(), agentproto.ScanCabName)
	if err := os.WriteFile(path, []byte("MSCF"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSim(t *testing.T) {
	agenttest.TestMachine(t, func(t *testing.T) agenttest.Subject {
		sim := wua.NewSim(wua.SimOptions{Seed: 1, Number: 142, Catalog: everywhere(20)})
		return agenttest.Subject{Machine: sim, Cab: cab(t), Content: agenttest.Content}
	})
}

func TestSimIsTheSameTwice(t *testing.T) {
	names, systems := map[string]bool{}, map[string]int{}
	catalog, updates := everywhere(50), agenttest.Updates(50)
	for n := range 200 {
		o := wua.SimOptions{Seed: 7, Number: n, Catalog: catalog}
		a, b := wua.NewSim(o), wua.NewSim(o)
		fa, _ := a.Facts(t.Context())
		fb, _ := b.Facts(t.Context())
		fa.Booted, fb.Booted = fa.Booted.Truncate(0), fa.Booted.Truncate(0)
		if !reflect.DeepEqual(fa, fb) {
			t.Fatalf("two hosts of one number: %+v and %+v", fa, fb)
		}
		for _, u := range updates {
			if a.Installed(u.ID) != b.Installed(u.ID) {
				t.Fatalf("host %d: %s", n, u.ID)
			}
		}
		if names[fa.Name] || !regexp.MustCompile(`^BRS-(WKS|SRV)-\d{4}$`).MatchString(fa.Name) {
			t.Errorf("name %s", fa.Name)
		}
		names[fa.Name] = true
		systems[fa.OS]++
	}
	if len(systems) != 5 || systems["Windows 11 Pro 25H2"] < 60 {
		t.Errorf("systems of 200 hosts: %v", systems)
	}
}

// TestSimSupersedence replaces update 1 by update 2.
func TestSimSupersedence(t *testing.T) {
	catalog := func() (list []wua.SimUpdate) {
		updates := agenttest.Updates(2)
		updates[1].Supersedes = append(updates[1].Supersedes, updates[0].ID)
		updates[1].Restart = "always"
		for _, u := range updates {
			list = append(list, wua.SimUpdate{Update: u}, wua.SimUpdate{Update: u, Server: true})
		}
		return list
	}
	var sim *wua.Sim
	for n := 0; ; n++ { // a host that has neither
		sim = wua.NewSim(wua.SimOptions{Seed: 3, Number: n, Catalog: catalog})
		if u := agenttest.Updates(2); !sim.Installed(u[0].ID) && !sim.Installed(u[1].ID) {
			break
		}
	}
	path := cab(t)
	look := func(superseded bool) []agent.Found {
		s, err := sim.Open(t.Context(), agent.Query{Cab: path, Superseded: superseded})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		list, err := s.Search(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if n, m := len(look(false)), len(look(true)); n != 1 || m != 2 {
		t.Fatalf("found %d without and %d with superseded ones", n, m)
	}
	s, _ := sim.Open(t.Context(), agent.Query{Cab: path})
	list, _ := s.Search(t.Context())
	newer := list[0]
	file := filepath.Join(t.TempDir(), newer.Update.Files[0].Name)
	os.WriteFile(file, agenttest.Content(newer.Update.Files[0].Name), 0o600)
	if err := s.CopyToCache(t.Context(), newer.Ref(), []string{file}); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Install(t.Context(), newer.Ref()); err != nil || !out.Restart {
		t.Fatalf("%+v, %v", out, err)
	}
	s.Close()
	if list := look(true); len(list) != 1 || !list[0].Restart || list[0].Installed {
		t.Errorf("before the restart: %+v", list)
	}
	sim.Restart()
	if list := look(true); len(list) != 1 || !list[0].Installed {
		t.Errorf("after the restart: %+v", list)
	}
	if f, _ := sim.Facts(t.Context()); f.RestartDue {
		t.Error("a restart is due after the restart")
	}
}
