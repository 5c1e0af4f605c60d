package replicate_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"wuamesh/replicate"
)

// hand gives to everything that from has and to lacks.
func hand(t *testing.T, from, to *replicate.DB) {
	t.Helper()
	if err := to.Pull(t.Context(), from); err != nil {
		t.Fatal(err)
	}
}

// TestStoresConverge edits three stores at random, with deletions, restarts
// and exchanges in random order; after everyone met everyone, all are equal.
func TestStoresConverge(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	dbs := make([]*replicate.DB, len(dirs))
	for i := range dbs {
		dbs[i] = open(t, dirs[i])
	}
	for range 150 {
		i, j := rng.IntN(3), rng.IntN(3)
		switch rng.IntN(10) {
		case 0:
			dbs[i].Close()
			dbs[i] = open(t, dirs[i])
		case 1, 2:
			if i != j {
				hand(t, dbs[i], dbs[j])
			}
		default:
			err := dbs[i].Update(t.Context(), func(tx *replicate.Tx) error {
				for range 1 + rng.IntN(4) {
					key := fmt.Sprintf("k/%d", rng.IntN(20))
					if rng.IntN(4) == 0 {
						if err := tx.Delete(key); err != nil {
							return err
						}
					} else if err := tx.Put(key, fmt.Appendf(nil, "%d", rng.IntN(1000))); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		for i := range dbs {
			for j := range dbs {
				if i != j {
					hand(t, dbs[i], dbs[j])
				}
			}
		}
	}
	for i := range dbs[1:] {
		if a, b := dump(t, dbs[0]), dump(t, dbs[i+1]); a != b {
			t.Errorf("seed %d: stores 0 and %d differ:\n%s\n%s", seed, i+1, a, b)
		}
		if a, b := dbs[0].Digest(), dbs[i+1].Digest(); a != b {
			t.Errorf("seed %d: digests differ; vectors:\n%v\n%v", seed, dbs[0].Vector(), dbs[i+1].Vector())
		}
	}
}

func TestApplyRefuses(t *testing.T) {
	db := open(t, t.TempDir())
	writer := "00112233445566778899aabbccddeeff.0011223344556677"
	record := func(key string, at time.Time) replicate.Record {
		return replicate.Record{Key: key, Version: replicate.Version{Clock: replicate.Clock(at.UnixMilli()) << 16, Writer: writer}}
	}
	for name, cs := range map[string]replicate.ChangeSet{
		"no writer":      {Writer: "x", End: 1},
		"bad key":        {Writer: writer, End: 1, Changes: []replicate.Change{{Record: record("", time.Now()), Seq: 1}}},
		"beyond its end": {Writer: writer, End: 1, Changes: []replicate.Change{{Record: record("a", time.Now()), Seq: 2}}},
	} {
		if err := db.Apply(t.Context(), cs); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if got := dump(t, db); got != "" {
		t.Errorf("something of it was stored: %s", got)
	}
}
