package appliance_test

import (
	"testing"

	"wuamesh/appliance"
)

// BenchmarkNextDownload looks through a queue of ten thousand files in a mesh
// of which two nodes may ask Microsoft.
func BenchmarkNextDownload(b *testing.B) {
	s := startIn(b, b.TempDir(), nil, "http://127.0.0.1:1", func(c *appliance.Config) { c.Internet = false })
	if err := s.QueueMany(b.Context(), 10_000); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.NextTask()
	}
}
