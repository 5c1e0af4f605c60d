// Package demo shows the product in one process: a stand-in for Microsoft, a
// mesh of nodes at sites of their own, and simulated hosts with a few rules.
// Only Microsoft, Windows and the lines between the sites are played; store,
// TLS, joining, downloads, agents and pages are the real ones.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/microsofttest"
)

// Options say how large the demonstration is and how long it runs.
type Options struct {
	Data  string        // kept there; empty for a directory that is removed at the end
	Nodes int           // 1 to 5; the first alone may download from Microsoft
	Hosts int           // 1 to 500, spread over the nodes
	For   time.Duration // ends by itself; zero runs until it is stopped
	Cut   time.Duration // the last node is cut off for so long, once; zero for never
	Seed  uint64
	Out   io.Writer    // what people read
	Log   *slog.Logger // of nodes and agents
	// Pages makes the handler of everything people and scripts are served.
	Pages func(*appliance.Appliance, *slog.Logger) http.Handler
}

// ErrNothingInstalled is a demonstration that ended by itself without one
// update installed.
var ErrNothingInstalled = errors.New("no update was installed on any host")

// afterCut is how much longer than the cut a demonstration must last, so that
// hosts are there before it and the merge is seen after it.
const afterCut = 25 * time.Second

func (o Options) check() error {
	switch {
	case o.Nodes < 1 || o.Nodes > len(places):
		return fmt.Errorf("%d nodes: want 1 to %d", o.Nodes, len(places))
	case o.Hosts < 1 || o.Hosts > 500:
		return fmt.Errorf("%d hosts: want 1 to 500", o.Hosts)
	case o.Cut < 0 || o.Cut > time.Hour:
		return fmt.Errorf("a cut of %s: want a second to an hour", o.Cut)
	case o.Cut > 0 && o.Nodes < 2:
		return errors.New("one node has nobody to be cut off from: want 2 nodes or more")
	case o.Cut > 0 && o.For > 0 && o.For < o.Cut+afterCut:
		return fmt.Errorf("a cut of %s does not fit in %s: want %s or more", o.Cut, o.For, o.Cut+afterCut)
	}
	return nil
}

// A play is a running demonstration.
type play struct {
	Options
	dir      string
	world    *microsofttest.World
	wan      *wan
	nodes    []*node
	password string
	token    string
	cut      cutStory
	out      sync.Mutex
}

// Run plays the demonstration until ctx ends or its time is over, then prints
// what happened.
func Run(ctx context.Context, o Options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	p := &play{Options: o, dir: o.Data, wan: newWAN(), world: microsofttest.New(microsofttest.Options{Seed: o.Seed, FileBytes: 1 << 20})}
	if p.dir == "" {
		if p.dir, err = os.MkdirTemp("", "wuamesh-demo-"); err != nil {
			return fmt.Errorf("make a directory for the demonstration: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(p.dir)) }()
	}
	microsoft, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the stand-in of Microsoft: %w", err)
	}
	defer microsoft.Close()
	if err := p.openNodes("http://" + microsoft.Addr().String()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.closeNodes()) }()
	if err := p.prepare(ctx); err != nil {
		return err
	}
	if err := p.run(ctx, microsoft); err != nil {
		return err
	}
	return p.summary(context.WithoutCancel(ctx))
}

// run plays everybody until ctx ends or the time is over.
func (p *play) run(ctx context.Context, microsoft net.Listener) error {
	if p.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.For)
		defer cancel()
	}
	srv := &http.Server{Handler: p.world, ReadHeaderTimeout: 10 * time.Second}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(microsoft); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("stand-in of Microsoft: %w", err)
		}
		return nil
	})
	p.greet()
	for _, n := range p.nodes {
		g.Go(func() error { return n.Run(ctx, p.Pages(n.Appliance, p.Log)) })
		g.Go(func() error { return p.join(ctx, n) })
	}
	for i := range p.Hosts {
		g.Go(func() error { return p.host(ctx, i) })
	}
	g.Go(func() error { return p.tell(ctx) })
	if p.Cut > 0 {
		g.Go(func() error { return p.cutOff(ctx) })
	}
	g.Go(func() error {
		<-ctx.Done()
		return srv.Close()
	})
	return g.Wait()
}

// say prints a line; several parts of the play do.
func (p *play) say(format string, args ...any) {
	p.out.Lock()
	defer p.out.Unlock()
	fmt.Fprintf(p.Out, format+"\n", args...)
}

// wait waits so long, or until ctx ends; true when it did not.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// greet prints where to look.
func (p *play) greet() {
	for i, n := range p.nodes {
		label := "The nodes:"
		if i > 0 {
			label = ""
		}
		p.say("%-12s %s  %s, site %s%s", label, n.URL(), n.NodeName(), n.site, map[bool]string{true: ", may download from Microsoft"}[i == 0])
	}
	p.say("             log in on any of them as demo with %s", p.password)
	p.say("The folder:  %s", p.nodes[0].FolderURL())
	p.say("Commands:    wuamesh status --data %s", p.nodes[0].data)
	if p.For > 0 {
		p.say("It ends by itself in %s.", p.For)
	} else {
		p.say("Press Ctrl-C to end it.")
	}
}

// tell prints how far it is, and makes the pilots once hosts are there.
func (p *play) tell(ctx context.Context) error {
	pilots, last := false, ""
	for wait(ctx, 2*time.Second) {
		s, err := p.sum(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if !pilots && s.Hosts >= min(p.Hosts, 5) {
			pilots = true
			if err := p.choosePilots(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		}
		line := fmt.Sprintf("%d hosts, %d up to date: %d OK, %d PENDING, %d MISSING, %d DISCARDED, %.1f MB from Microsoft", s.Hosts, s.Compliant, s.Pairs.OK, s.Pairs.Pending, s.Pairs.Missing, s.Pairs.Discarded, float64(s.FromUpstream)/1e6)
		if line != last {
			p.say("%s", line)
			last = line
		}
	}
	return nil
}

// sum is the first node's status, with what each node moved added up.
func (p *play) sum(ctx context.Context) (appliance.Status, error) {
	s, err := p.nodes[0].Status(ctx)
	for _, n := range p.nodes[1:] {
		var more appliance.Status
		if err == nil {
			more, err = n.Status(ctx)
		}
		s.FromUpstream, s.ToAgents, s.Installed = s.FromUpstream+more.FromUpstream, s.ToAgents+more.ToAgents, s.Installed+more.Installed
	}
	return s, err
}

// summary prints what happened.
func (p *play) summary(ctx context.Context) error {
	s, err := p.sum(ctx)
	if err != nil {
		return err
	}
	files, twice := 0, 0
	for _, c := range p.world.Requests() {
		if c.Gets > 0 {
			files++
		}
		if c.Gets > 1 {
			twice++
		}
	}
	p.say("\n%d of %d hosts have all they may install, %d updates installed by wuamesh, %d DISCARDED by rules.", s.Compliant, s.Hosts, s.Installed, s.Pairs.Discarded)
	p.say("%d files fetched from upstream, %.1f MB, %d of them more than once; %.1f MB served to agents.", files, float64(s.FromUpstream)/1e6, twice, float64(s.ToAgents)/1e6)
	for _, n := range p.nodes[1:] {
		if err := p.tellLine(ctx, n); err != nil {
			return err
		}
	}
	if err := p.tellMerge(ctx); err != nil {
		return err
	}
	if s.Installed == 0 && p.For > 0 {
		return ErrNothingInstalled
	}
	return nil
}

// tellLine prints what came to a branch over its line.
func (p *play) tellLine(ctx context.Context, n *node) error {
	days, err := n.Traffic(ctx, 1)
	if err != nil || len(days) == 0 {
		return err
	}
	s, err := n.Status(ctx)
	if err != nil {
		return err
	}
	line, kept := days[0].WANDown-n.before.line, s.FolderBytes-n.before.folder
	if kept <= 0 {
		return nil
	}
	p.say("%s took %.1f MB over its line for %.1f MB of files (%.2f times), and gave %.1f MB to other branches.", n.NodeName(), float64(line)/1e6, float64(kept)/1e6, float64(line)/float64(kept), float64(days[0].WANUp-n.before.given)/1e6)
	return nil
}
