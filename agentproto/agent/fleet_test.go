package agent_test

import (
	"runtime"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent/agenttest"
)

// BenchmarkFleet is forty hosts of one branch from their enrolment until
// every one has installed twenty updates, with the node in the same process.
func BenchmarkFleet(b *testing.B) {
	u := agenttest.Updates(20)
	for b.Loop() {
		fleet(b, 40, u)
	}
}

func fleet(b *testing.B, hosts int, u []agentproto.Update) {
	b.Helper()
	m := newMesh(b)
	n := m.node(b, "rns-01")
	s := settings()
	s.DefaultAllow = true
	n.policy = allow(s)
	began := time.Now()
	done := make(chan error, hosts)
	for range hosts {
		h := newHost(b, iniFor(m, n), u)
		go func() {
			a := h.open()
			defer a.Close()
			if _, err := a.Scan(b.Context()); err != nil {
				done <- err
				return
			}
			_, err := a.Install(b.Context())
			done <- err
		}()
	}
	for range hosts {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	b.ReportMetric(float64(hosts*len(u))/time.Since(began).Seconds(), "installs/s")
	b.ReportMetric(float64(mem.HeapInuse)/float64(hosts)/(1<<20), "MB-heap/host")
}
