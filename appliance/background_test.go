package appliance_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// TestCountsInTheBackground has a small fleet counted as a large one is: beside
// everything else, in pieces, while hosts report, rules change and hosts go. In
// the end the counts are those of a count in one go.
func TestCountsInTheBackground(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	s := start(t, nil)
	s.CountAside()
	token := s.enrolToken(t, 8)
	hosts := map[int]*machine{}
	for i := range 8 {
		hosts[i] = s.enrol(t, i+1, token)
		hosts[i].checkin(t)
	}
	for step := range 30 {
		switch i := rng.IntN(8); rng.IntN(8) {
		case 0:
			_, err := s.PutPackage(t.Context(), owner, "baseline", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{
				{Verb: rules.Allow, Kind: rules.ByUpdateID, Value: string(many(5, 0)[rng.IntN(5)].ID)},
			}})
			must(t, err)
		case 1:
			if step > 15 && hosts[i] != nil && len(hosts) > 2 {
				must(t, s.RemoveHost(t.Context(), owner, hosts[i].id))
				delete(hosts, i)
			}
		default:
			if m := hosts[i]; m != nil {
				if _, err := m.Report(t.Context(), scanOf(many(1+rng.IntN(40), rng.IntN(3)))); err != nil {
					t.Fatal(err)
				}
			}
		}
		s.Counts(context.Background()) // somebody looks
	}
	eventually(t, "the counts are right", func() error {
		s.Counts(context.Background())
		if diff := s.CountedAside(); diff != "" {
			return fmt.Errorf("seed %d: %s", seed, diff)
		}
		return nil
	})
	list, err := s.Hosts(t.Context(), appliance.HostQuery{})
	if err != nil || list.Total != len(hosts) {
		t.Errorf("%d hosts are listed of %d, %v", list.Total, len(hosts), err)
	}
}
