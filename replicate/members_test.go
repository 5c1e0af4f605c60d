package replicate

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestMembersRejoinAfterACut cuts twelve nodes in two for ten minutes, which
// memberlist alone would never heal, and finds all of them together again.
func TestMembersRejoinAfterACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lan
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		nodes := make([]*Members, 12)
		left := map[string]bool{}
		first := fmt.Sprintf("10.0.0.1:%d", gossipPort)
		for i := range nodes {
			p := l.plug(i + 1)
			m, err := OpenMembers(MembersOptions{
				NodeID: fmt.Sprint("node", i), Addr: p.addr(), Label: "mesh", Key: make([]byte, 32),
				Known: func() []string { return []string{first} }, Log: slog.New(slog.DiscardHandler), transport: p,
			})
			if err != nil {
				t.Fatal(err)
			}
			nodes[i] = m
			left[m.Addr()] = i < 6
			running.Go(func() { m.Run(ctx) })
		}
		sizes := func(when string, want int) {
			t.Helper()
			for i, m := range nodes {
				if got := len(m.List()); got != want {
					t.Errorf("%s: node %d sees %d nodes, want %d", when, i, got, want)
				}
			}
		}
		time.Sleep(2 * time.Minute)
		sizes("joined", 12)
		l.setCut(func(from, to string) bool { return left[from] != left[to] })
		time.Sleep(10 * time.Minute)
		sizes("cut in two", 6)
		l.setCut(nil)
		time.Sleep(5 * time.Minute)
		sizes("whole again", 12)
		stop()
		running.Wait()
		for _, m := range nodes {
			m.list.Shutdown()
		}
		time.Sleep(2 * time.Minute) // probes under way end
	})
}

func TestGossipPortInUse(t *testing.T) {
	o := MembersOptions{NodeID: "a", Addr: "127.0.0.1:0", Label: "mesh", Key: make([]byte, 32), Log: slog.New(slog.DiscardHandler), Known: func() []string { return nil }}
	a, err := OpenMembers(o)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	o.Addr, o.NodeID = a.Addr(), "b"
	if b, err := OpenMembers(o); err == nil {
		b.Close()
		t.Error("two nodes share one gossip port")
	} else {
		t.Log(err)
	}
}
