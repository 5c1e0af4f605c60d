package appliance_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/agent/wua"
	"wuamesh/appliance"
)

// TestNearestNodes orders nodes for hosts at all kinds of places.
func TestNearestNodes(t *testing.T) {
	nodes := []appliance.Candidate{
		{Name: "hq-01", Site: "hq", Nets: []string{"10.1.0.0/16"}, Self: true},
		{Name: "hq-02", Site: "hq", Trip: time.Millisecond},
		{Name: "brs-01", Site: "brest", Nets: []string{"10.2.0.0/16", "172.17.0.0/16"}, Trip: 30 * time.Millisecond},
		{Name: "brs-02", Site: "brest", Nets: []string{"10.2.7.0/24"}, Away: true},
		{Name: "lor-01", Site: "lorient", Nets: []string{"172.17.0.0/16", "fd00:3::/64"}, Trip: 20 * time.Millisecond},
		{Name: "far-01", Site: "far"}, // reached through others: nobody knows how far
	}
	for _, tt := range []struct {
		name   string
		facts  agentproto.Facts
		remote string
		placed bool
		want   string
	}{
		{"nothing is known of its place", agentproto.Facts{}, "192.0.2.7:999", false, "hq-01 hq-02 lor-01 brs-01 far-01 brs-02"},
		{"in a branch's subnet, whose other node is away", agentproto.Facts{Addresses: []string{"10.2.8.1"}}, "10.2.8.1:999", true, "brs-01 brs-02 hq-01 hq-02 lor-01 far-01"},
		{"the longer network is nearer", agentproto.Facts{Addresses: []string{"10.2.7.9"}}, "10.2.7.9:999", true, "brs-02 brs-01 hq-01 hq-02 lor-01 far-01"},
		{"a virtual network that is the same everywhere", agentproto.Facts{Addresses: []string{"172.17.0.1", "10.1.0.9"}}, "10.1.0.9:999", true, "hq-01 hq-02 lor-01 brs-01 far-01 brs-02"},
		{"behind an address that is translated", agentproto.Facts{Addresses: []string{"fd00:3::7"}}, "192.0.2.7:999", true, "lor-01 hq-01 hq-02 brs-01 far-01 brs-02"},
		{"by Active Directory's site", agentproto.Facts{ADSite: "Lorient", Addresses: []string{"192.168.1.1"}}, "192.168.1.1:999", true, "lor-01 hq-01 hq-02 brs-01 far-01 brs-02"},
		{"the subnet goes before Active Directory", agentproto.Facts{ADSite: "Lorient", Addresses: []string{"10.2.8.1"}}, "10.2.8.1:999", true, "brs-01 brs-02 hq-01 hq-02 lor-01 far-01"},
		{"a site of Active Directory without a node", agentproto.Facts{ADSite: "Paris"}, "192.168.1.1:999", false, "hq-01 hq-02 lor-01 brs-01 far-01 brs-02"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, placed := appliance.RankNodes(nodes, tt.facts, tt.remote)
			if strings.Join(got, " ") != tt.want || placed != tt.placed {
				t.Errorf("%v, placed %t; want %s, %t", got, placed, tt.want, tt.placed)
			}
		})
	}
}

// A pc is a host with the real agent on a simulated Windows, at a place.
type pc struct {
	agent.Machine
	change func(*agentproto.Facts)
}

func (p pc) Facts(ctx context.Context) (agentproto.Facts, error) {
	f, err := p.Machine.Facts(ctx)
	if p.change != nil {
		p.change(&f)
	}
	return f, err
}

// runAgent starts the agent of a host, whose wapt-get.ini names those nodes,
// and returns the host's id once it is enrolled.
func runAgent(t *testing.T, s *site, change func(*agentproto.Facts), nodes ...string) agentproto.HostID {
	t.Helper()
	dir := t.TempDir()
	ini := filepath.Join(dir, "wapt-get.ini")
	text := fmt.Sprintf("[waptwua]\nenabled = True\n[wuamesh]\nnodes = %s\ntoken = %s\n", strings.Join(nodes, ", "), s.enrolToken(t, 1))
	must(t, os.WriteFile(ini, []byte(text), 0o600))
	a, err := agent.Open(agent.Options{
		Dir: dir, INI: ini, Version: "test", Seed: 1, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})),
		Machine: pc{wua.NewSim(wua.SimOptions{Seed: 1, Catalog: func() []wua.SimUpdate { return nil }}), change},
		Connect: func(o agentproto.ClientOptions) (agent.Node, error) {
			o.Look = 100 * time.Millisecond
			return agentproto.NewClient(o)
		},
	})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		must(t, a.Close())
	})
	var id agentproto.HostID
	eventually(t, "the host enrols", func() error {
		list, err := s.Hosts(t.Context(), appliance.HostQuery{})
		if err != nil || len(list.Hosts) != 1 || !list.Hosts[0].Online {
			return fmt.Errorf("%+v, %v", list.Hosts, err)
		}
		id = list.Hosts[0].ID
		return nil
	})
	return id
}

// streamsTo waits until the host's stream of events is to s, and shows that a
// command from another node reaches it.
func (s *site) streamsTo(t *testing.T, id agentproto.HostID, from *site) {
	t.Helper()
	eventually(t, "the host's stream is to "+s.NodeName(), func() error {
		if !s.Streams(id) {
			return fmt.Errorf("it is not")
		}
		return nil
	})
	eventually(t, from.NodeName()+" shows where it is", func() error {
		h, err := from.Host(t.Context(), id)
		if err != nil || !h.Online || h.Node != s.NodeName() {
			return fmt.Errorf("online %t at %q, %v", h.Online, h.Node, err)
		}
		return nil
	})
	if _, err := from.Trigger(t.Context(), owner, agentproto.ActionScan, []agentproto.HostID{id}, ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a command from "+from.NodeName()+" is answered", func() error {
		h, err := from.Host(t.Context(), id)
		if err != nil || len(h.Commands) == 0 || h.Commands[0].State == "waiting" {
			return fmt.Errorf("%+v, %v", h.Commands, err)
		}
		return nil
	})
}

// TestAwayAndHome cuts a branch's node off. Its host goes to another node,
// which it only heard of, is reached there by commands, and comes home when
// the branch's node is back, also while nothing asks it to.
func TestAwayAndHome(t *testing.T) {
	t.Parallel()
	hq, _ := behind(t, "hq-01")
	home, line := behind(t, "brs-01")
	home.joinTo(t, hq)
	id := runAgent(t, home, nil, "https://"+line.addr())
	knows(t, hq, id)
	home.streamsTo(t, id, hq)
	line.cut(true)
	hq.streamsTo(t, id, hq)
	line.cut(false)
	home.streamsTo(t, id, hq)
	if h, err := hq.Host(t.Context(), id); err != nil || h.EnrolledBy != "token test" {
		t.Errorf("on the way it enrolled again: %+v, %v", h, err)
	}
}

// TestPlacedBySite has a host whose wapt-get.ini names headquarters, in a
// branch of which Active Directory knows the name: it is told to go to the
// branch's node, and does.
func TestPlacedBySite(t *testing.T) {
	t.Parallel()
	hq, _ := behind(t, "hq-01")
	branch := startIn(t, t.TempDir(), nil, "http://127.0.0.1:1", func(c *appliance.Config) {
		c.Name, c.Site, c.Internet = "lor-01", "Lorient", false
	})
	branch.joinTo(t, hq)
	knowsSite := func() error {
		for _, n := range func() []appliance.NodeRow { list, _ := hq.Nodes(t.Context()); return list }() {
			if n.Site == "Lorient" {
				return nil
			}
		}
		return fmt.Errorf("not yet")
	}
	eventually(t, "headquarters knows the branch", knowsSite)
	id := runAgent(t, hq, func(f *agentproto.Facts) { f.ADSite = "LORIENT" }, hq.URL())
	knows(t, branch, id)
	branch.streamsTo(t, id, hq)
}

// TestHostsOfARemovedNode removes a node that is up and serves a host. The
// node hears of it and sends the host away, whose certificate is worth nothing
// anywhere else: with its key alone it is let in by another node, and nobody
// touches it.
func TestHostsOfARemovedNode(t *testing.T) {
	t.Parallel()
	hq, _ := behind(t, "hq-01")
	gone, _ := behind(t, "brs-01")
	gone.joinTo(t, hq)
	id := runAgent(t, gone, nil, gone.URL())
	knows(t, hq, id)
	if _, err := hq.RemoveNode(t.Context(), owner, "brs-01", "replaced"); err != nil {
		t.Fatal(err)
	}
	hq.streamsTo(t, id, hq)
	if gone.Streams(id) {
		t.Error("the removed node still serves it")
	}
}

// TestPresence has a host come and go. The other node is told of it when it
// came, when it has been gone for a minute, and not for every short break.
func TestPresence(t *testing.T) {
	a, b := bareNode(t, "rns-01"), bareNode(t, "brs-01")
	b.joinTo(t, a)
	m := b.enrol(t, 1, b.enrolToken(t, 1))
	now, look := time.Now(), b.Presence()
	if list := look(now); len(list) != 0 {
		t.Errorf("one that enrolled and never came: %v", list)
	}
	m.listen(t, b)
	eventually(t, "the other node knows", func() error {
		if h, err := a.Host(t.Context(), m.id); err != nil || !h.Online || h.Node != "brs-01" {
			return fmt.Errorf("online %t at %q, %v", h.Online, h.Node, err)
		}
		return nil
	})
	if list := look(now.Add(time.Minute)); len(list) != 0 {
		t.Errorf("one that stays: %v", list)
	}
	if list := look(now.Add(7 * time.Hour)); len(list) != 1 || list[0] != "here" {
		t.Errorf("one that stays for hours: %v", list)
	}
	b.EndStreams()
	eventually(t, "it is gone", func() error {
		if b.Streams(m.id) {
			return fmt.Errorf("it is not")
		}
		return nil
	})
	if list := look(now.Add(time.Minute)); len(list) != 0 {
		t.Errorf("gone for a moment: %v", list)
	}
	if list := look(now.Add(3 * time.Minute)); len(list) != 1 || list[0] != "gone" {
		t.Errorf("gone for two minutes: %v", list)
	}
}
