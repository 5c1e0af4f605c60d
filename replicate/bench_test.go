package replicate_test

import (
	"context"
	"fmt"
	"testing"

	"wuamesh/replicate"
)

func BenchmarkUpdate(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			db := open(b, b.TempDir())
			value := make([]byte, 1000)
			b.SetParallelism(max(1, writers/2))
			n := 0
			run := func(next func() bool) {
				for i := 0; next(); i++ {
					err := db.Update(context.Background(), func(tx *replicate.Tx) error {
						n++
						return tx.Put(fmt.Sprintf("k/%d", n%10000), value)
					})
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			if writers == 1 {
				run(b.Loop)
				return
			}
			b.RunParallel(func(pb *testing.PB) { run(pb.Next) })
		})
	}
}

func BenchmarkScan(b *testing.B) {
	db := open(b, b.TempDir())
	for base := 0; base < 100000; base += 1000 {
		err := db.Update(b.Context(), func(tx *replicate.Tx) error {
			for i := range 1000 {
				if err := tx.Put(fmt.Sprintf("k/%06d", base+i), make([]byte, 200)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		n := 0
		db.View(b.Context(), func(tx *replicate.Tx) error {
			for range tx.Scan("") {
				n++
			}
			return nil
		})
		if n != 100000 {
			b.Fatal(n)
		}
	}
}
