// Package cabgen makes whole scan cabs in Microsoft's layout and proportions,
// out of invented updates that follow from a seed, with the truth about every
// one of them. It is for tests and benchmarks; what the demonstration serves is
// in microsofttest.
package cabgen

import (
	"bytes"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"wuamesh/appliance/microsoft/cab/cabtest"
)

// Options say what to make. Equal options make equal bytes.
type Options struct {
	Seed      uint64
	Updates   int // records of all kinds in the first month, June 2026; 0 is 4,000
	Months    int // that follow it
	Monthly   int // records that each of them adds; 0 is 0.3 % of Updates, at least 60
	PerCab    int // records in an inner cabinet; 0 is 1,850
	Reshard   bool
	CoreBytes int // of a leaf's rules on average; 0 is 2,048, at Microsoft about 220,000

	Inner, Outer cabtest.Method
}

// A World is a catalogue at one month.
type World struct {
	o Options
	w *world
}

// New makes a world.
func New(o Options) *World {
	for _, d := range []struct {
		field *int
		value int
	}{{&o.Updates, 4000}, {&o.PerCab, 1850}, {&o.CoreBytes, 2048}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if o.Monthly == 0 {
		o.Monthly = max(60, o.Updates*3/1000)
	}
	w := &World{o, newWorld(o.Seed, o.Updates, o.PerCab)}
	for range o.Months {
		w.Next()
	}
	return w
}

// Next goes on by a month.
func (w *World) Next() { w.w.nextMonth(w.o.Monthly, w.o.Reshard) }

// Last is what the last month brought.
func (w *World) Last() Change { return w.w.last }

// Created is when Microsoft made the package.
func (w *World) Created() time.Time {
	return time.Date(2009, time.Month(w.w.month+1), 1, 8, 51, 8, 0, time.UTC).AddDate(0, 0, 14)
}

// Cab is the scan cab, not signed.
func (w *World) Cab() ([]byte, error) {
	members := make([][]byte, 1+len(w.w.bounds))
	by := make([][]*update, len(w.w.bounds))
	for _, u := range w.w.updates {
		if !u.gone {
			by[u.shard-2] = append(by[u.shard-2], u)
		}
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	g.Go(func() (err error) {
		members[0], err = w.packageCab()
		return err
	})
	for i, list := range by {
		g.Go(func() (err error) {
			members[1+i], err = w.inner(i+2, list)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	p := newPacker(w.o.Outer)
	p.put("index.xml", w.Created(), w.w.indexXML())
	for i, b := range members {
		name := "package.cab"
		if i > 0 {
			name = fmt.Sprintf("package%d.cab", i+1)
		}
		p.put(name, w.Created(), b)
	}
	return p.close()
}

// packageCab has the graph.
func (w *World) packageCab() ([]byte, error) {
	var graph bytes.Buffer
	id := fmt.Sprintf("%08x-0000-4000-8000-%012x", uint32(w.o.Seed), w.w.month)
	if err := w.w.packageXML(&graph, w.Created(), id); err != nil {
		return nil, err
	}
	p := newPacker(w.o.Inner)
	p.put("package.xml", w.Created(), graph.Bytes())
	return p.close()
}

// inner has the fragments of some updates, in Microsoft's order: folder after
// folder.
func (w *World) inner(no int, list []*update) ([]byte, error) {
	p := newPacker(w.o.Inner)
	p.w.SetID = uint16(no)
	put := func(dir string, u *update, b []byte) { p.put(fmt.Sprintf("%s/%d", dir, u.rev), u.created, b) }
	for _, u := range list {
		put("c", u, u.core(w.o.Seed, w.o.CoreBytes))
	}
	for _, lang := range languages {
		for _, u := range list {
			for _, l := range u.locales {
				if l == lang {
					put("l/"+lang, u, u.localized(lang))
				}
			}
		}
	}
	for _, u := range list {
		put("x", u, u.extended())
	}
	return p.close()
}

// A packer writes a cabinet and keeps the first error.
type packer struct {
	out bytes.Buffer
	w   *cabtest.Writer
	err error
}

func newPacker(m cabtest.Method) *packer {
	p := new(packer)
	p.w = cabtest.NewWriter(&p.out, m)
	return p
}

func (p *packer) put(name string, at time.Time, b []byte) {
	if p.err == nil {
		p.err = p.w.Create(name, at)
	}
	if p.err == nil {
		_, p.err = p.w.Write(b)
	}
}

func (p *packer) close() ([]byte, error) {
	if p.err == nil {
		p.err = p.w.Close()
	}
	return p.out.Bytes(), p.err
}
