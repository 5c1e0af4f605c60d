package catalogue_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"testing"

	"wuamesh/appliance/microsoft/cab"
	"wuamesh/appliance/microsoft/cab/cabtest"
	"wuamesh/appliance/microsoft/microsofttest/cabgen"
)

// BenchmarkDelta looks how much of a month's scan cab could be taken from the
// one before, in per cent of its bytes: as chunks with bounds by content of the
// cab as Microsoft packs it, as chunks of what is in it, and as whole inner
// cabinets; with the bounds of inner cabinets where they were, and moved as
// Microsoft's do.
//
//	go test -run '^$' -bench Delta -benchtime 1x ./appliance/microsoft/catalogue
func BenchmarkDelta(b *testing.B) {
	for _, tt := range []struct {
		name string
		move bool
	}{{"bounds stay", false}, {"bounds move", true}} {
		b.Run(tt.name, func(b *testing.B) {
			w := cabgen.New(cabgen.Options{Seed: 1, Updates: 20_000, PerCab: 250, Reshard: tt.move, Inner: cabtest.LZX, Outer: cabtest.LZX})
			first := cabOf(b, w)
			w.Next()
			next := cabOf(b, w)
			b.ResetTimer()
			for b.Loop() {
				was, is := membersOf(b, first), membersOf(b, next)
				b.ReportMetric(again(chunksOf(first), chunksOf(next)), "%-of-cab")
				b.ReportMetric(again(chunksOf(bytes.Join(was, nil)), chunksOf(bytes.Join(is, nil))), "%-of-content")
				b.ReportMetric(again(was, is), "%-inner-cabinets")
			}
		})
	}
}

// membersOf are the files in a cabinet.
func membersOf(b *testing.B, c []byte) (list [][]byte) {
	b.Helper()
	r, err := cab.NewReader(bytes.NewReader(c), cab.Options{})
	for err == nil {
		if _, err = r.Next(); err == nil {
			var m []byte
			m, err = io.ReadAll(r)
			list = append(list, m)
		}
	}
	if err != io.EOF {
		b.Fatal(err)
	}
	return list
}

// chunksOf cuts where a rolling hash of the last 32 bytes has 15 zeros, every
// 32 kB on average (the gear hash of Xia et al., "Ddelta", 2014).
func chunksOf(p []byte) (list [][]byte) {
	var gear [256]uint32
	for i := range gear {
		h := sha256.Sum256([]byte{byte(i)})
		gear[i] = uint32(h[0])<<24 | uint32(h[1])<<16 | uint32(h[2])<<8 | uint32(h[3])
	}
	var hash uint32
	from := 0
	for i, c := range p {
		if hash = hash<<1 + gear[c]; hash>>17 == 0 {
			list, from = append(list, p[from:i+1]), i+1
		}
	}
	return append(list, p[from:])
}

// again is how many per cent of the second's bytes are in parts of the first.
func again(first, second [][]byte) float64 {
	known := map[[sha256.Size]byte]bool{}
	for _, c := range first {
		known[sha256.Sum256(c)] = true
	}
	same, all := 0, 0
	for _, c := range second {
		if all += len(c); known[sha256.Sum256(c)] {
			same += len(c)
		}
	}
	return 100 * float64(same) / float64(all)
}
