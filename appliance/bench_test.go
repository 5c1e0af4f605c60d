package appliance_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// many are statuses of n updates that nobody described.
func many(n, round int) (list []agentproto.Status) {
	for i := range n {
		list = append(list, agentproto.Status{ID: rules.UpdateID(fmt.Sprintf("10000000-0000-4000-8000-%012d", i)), Revision: 200, Installed: (i+round)%3 > 0})
	}
	return list
}

// BenchmarkReport is the ingestion of one report of 150 updates over TLS,
// durable when acknowledged, from 100 hosts at once.
func BenchmarkReport(b *testing.B) {
	s := start(b, func(c *appliance.Config) { c.Internet = false })
	token := s.enrolToken(b, 100)
	machines := make([]*machine, 100)
	for i := range machines {
		machines[i] = s.enrol(b, i+1, token)
		machines[i].checkin(b)
	}
	var next atomic.Int64
	b.ResetTimer()
	var wg sync.WaitGroup
	for _, m := range machines {
		wg.Go(func() {
			for {
				n := int(next.Add(1))
				if n > b.N {
					return
				}
				if _, err := m.Report(context.Background(), scanOf(many(150, n))); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reports/s")
}

// BenchmarkUpdates is the list of updates with its facets, the first time
// after a change and again, with 100 hosts of 1,000 statuses each: as many
// pairs as 2,000 hosts of 50.
func BenchmarkUpdates(b *testing.B) {
	s := start(b, func(c *appliance.Config) { c.Internet = false })
	token := s.enrolToken(b, 100)
	var last *machine
	for i := range 100 {
		last = s.enrol(b, i+1, token)
		if _, err := last.Report(b.Context(), scanOf(many(1000, i))); err != nil {
			b.Fatal(err)
		}
	}
	list := func() {
		if l, err := s.Updates(b.Context(), appliance.UpdateQuery{}); err != nil || l.Total != 1000 {
			b.Fatal(l.Total, err)
		}
	}
	b.Run("unchanged", func(b *testing.B) {
		for b.Loop() {
			list()
		}
	})
	b.Run("after a report", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			b.StopTimer()
			if _, err := last.Report(context.Background(), scanOf(many(1000, i))); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			list()
		}
	})
}
