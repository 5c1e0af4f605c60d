// Package demo shows the product in one process: a stand-in for Microsoft, a
// node, and forty simulated hosts with a few rules. Only Microsoft and
// Windows are played; store, TLS, downloads, agents and pages are the real
// ones.
package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/agent/wua"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/microsofttest"
)

// Options say how large the demonstration is and how long it runs.
type Options struct {
	Data  string        // kept there; empty for a directory that is removed at the end
	Hosts int           // 1 to 500
	For   time.Duration // ends by itself; zero runs until it is stopped
	Seed  uint64
	Out   io.Writer    // what people read
	Log   *slog.Logger // of node and agents
	// Pages makes the handler of everything people and scripts are served.
	Pages func(*appliance.Appliance, *slog.Logger) http.Handler
}

// ErrNothingInstalled is a demonstration that ended by itself without one
// update installed.
var ErrNothingInstalled = errors.New("no update was installed on any host")

// Run plays the demonstration until ctx ends or its time is over, then prints
// what happened.
func Run(ctx context.Context, o Options) (err error) {
	if o.Hosts < 1 || o.Hosts > 500 {
		return fmt.Errorf("%d hosts: want 1 to 500", o.Hosts)
	}
	dir := o.Data
	if dir == "" {
		if dir, err = os.MkdirTemp("", "wuamesh-demo-"); err != nil {
			return fmt.Errorf("make a directory for the demonstration: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	world := microsofttest.New(microsofttest.Options{Seed: o.Seed, FileBytes: 1 << 20})
	microsoft, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the stand-in of Microsoft: %w", err)
	}
	srv := &http.Server{Handler: world, ReadHeaderTimeout: 10 * time.Second}
	defer srv.Close()

	root, err := world.RootFile(dir)
	if err != nil {
		return errors.Join(err, microsoft.Close())
	}
	node, err := openNode(dir, "http://"+microsoft.Addr().String(), root, o.Log)
	if err != nil {
		return errors.Join(err, microsoft.Close())
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	p := &play{Options: o, dir: dir, world: world, node: node}
	if err := p.prepare(ctx); err != nil {
		return errors.Join(err, microsoft.Close())
	}
	if o.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.For)
		defer cancel()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(microsoft); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("stand-in of Microsoft: %w", err)
		}
		return nil
	})
	g.Go(func() error { return node.Run(ctx, o.Pages(node, o.Log)) })
	for i := range o.Hosts {
		g.Go(func() error { return p.host(ctx, i) })
	}
	g.Go(func() error { return p.tell(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		return srv.Close()
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return p.summary(context.WithoutCancel(ctx))
}

// openNode opens a node that believes the stand-in's root, on the development
// ports, or on others where those are taken.
func openNode(dir, upstream, root string, log *slog.Logger) (*appliance.Appliance, error) {
	cfg := appliance.DevConfig()
	cfg.Name, cfg.Upstream, cfg.Roots = "rns-01", upstream, []string{root}
	cfg.Data, cfg.Folder = filepath.Join(dir, "node"), filepath.Join(dir, "waptwua")
	cfg.DiskFloor = 64 << 20
	node, err := appliance.Open(cfg, log)
	if p, ok := errors.AsType[*appliance.Problem](err); ok && p.Kind == appliance.Conflict {
		cfg.ListenHTTPS, cfg.ListenHTTP = "127.0.0.1:0", "127.0.0.1:0"
		node, err = appliance.Open(cfg, log)
	}
	return node, err
}

// A play is a running demonstration.
type play struct {
	Options
	dir      string
	world    *microsofttest.World
	node     *appliance.Appliance
	password string
	token    string
}

// prepare makes the admin, the groups and rules, and the token the hosts
// enrol with. A directory that was kept has them already.
func (p *play) prepare(ctx context.Context) error {
	p.password = strings.ToLower(rand.Text()[:16])
	admin := appliance.Actor{Name: "demo", Role: appliance.Owner}
	if p.node.NeedsSetup() {
		link, err := url.Parse(p.node.SetupLink())
		if err != nil {
			return err
		}
		if err := p.node.SetUp(ctx, link.Query().Get("secret"), "demo", p.password); err != nil {
			return err
		}
		if err := p.rules(ctx, admin); err != nil {
			return err
		}
	} else if err := p.node.PutAdmin(ctx, admin, "demo", appliance.Owner, p.password); err != nil {
		return err
	}
	_, token, err := p.node.MakeToken(ctx, admin, appliance.TokenOptions{Name: "demonstration", Use: appliance.ForEnroll, Uses: p.Hosts, Expires: time.Hour})
	p.token = token
	return err
}

// rules are those of a small company: security updates for everybody, one
// update that breaks the accounting program forbidden, and what is new tried
// on pilots first.
func (p *play) rules(ctx context.Context, by appliance.Actor) error {
	line := func(verb rules.Verb, kind rules.Kind, value string) rules.Line {
		return rules.Line{Verb: verb, Kind: kind, Value: value}
	}
	kb := p.forbidden()
	for _, e := range []struct {
		name string
		edit appliance.PackageEdit
	}{
		{"baseline", appliance.PackageEdit{Description: "What every host may install.", Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{
			line(rules.Allow, rules.BySeverity, "Critical"), line(rules.Allow, rules.BySeverity, "Important"),
			line(rules.Allow, rules.ByClassification, "28bc880e-0592-4cbf-8f95-c79b17911d5f"),
		}}},
		{"erp-freeze", appliance.PackageEdit{Description: "Breaks printing in the ERP client until its next release.", Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{
			line(rules.Forbid, rules.ByKB, kb),
		}}},
		{"pilots-first", appliance.PackageEdit{Description: "Tried on the pilots before everybody gets it.", Maturity: rules.Preprod, Groups: []string{"all"}, Lines: []rules.Line{
			line(rules.Allow, rules.BySeverity, "Moderate"),
		}}},
	} {
		if _, err := p.node.PutPackage(ctx, by, e.name, e.edit); err != nil {
			return err
		}
	}
	_, err := p.node.PutGroup(ctx, by, "pilots", appliance.GroupEdit{Description: "They get what is new first.", Accepts: []rules.Maturity{rules.Preprod}})
	return err
}

// forbidden is the newest .NET update: many hosts need it.
func (p *play) forbidden() string {
	kb := ""
	for _, u := range p.world.Updates() {
		if strings.Contains(u.Title, ".NET Framework") {
			kb = u.KB
		}
	}
	return kb
}

func (p *play) catalogue() []wua.SimUpdate { return Catalogue(p.world) }

// Catalogue is what the stand-in publishes, as the Windows of a simulated
// host would find it.
func Catalogue(world *microsofttest.World) []wua.SimUpdate {
	var list []wua.SimUpdate
	for _, u := range world.Updates() {
		s := wua.SimUpdate{Builds: u.Builds, Update: agentproto.Update{
			ID: rules.UpdateID(u.ID), Revision: u.Revision, Title: u.Title, KBs: []string{u.KB}, Severity: rules.Severity(u.Severity), Published: u.Published, CVEs: u.CVEs,
			Description: "Install this update to resolve issues in Windows.", Restart: u.Restart, SupportURL: "https://support.microsoft.com/help/" + u.KB,
			Classification: agentproto.Category{ID: rules.CategoryID(u.Classification.ID), Title: u.Classification.Title},
		}}
		for _, c := range u.Products {
			s.Server = s.Server || strings.Contains(c.Title, "Server")
			s.Products = append(s.Products, agentproto.Category{ID: rules.CategoryID(c.ID), Title: c.Title})
		}
		for _, id := range u.Supersedes {
			s.Supersedes = append(s.Supersedes, rules.UpdateID(id))
		}
		for _, f := range u.Files {
			s.Files = append(s.Files, agentproto.File{Name: f.Name, URL: f.URL, Size: f.Size, SHA1: f.SHA1, SHA256: f.SHA256})
		}
		list = append(list, s)
	}
	return list
}

// host runs the agent of one simulated host.
func (p *play) host(ctx context.Context, i int) (err error) {
	select { // they do not all come at once
	case <-ctx.Done():
		return nil
	case <-time.After(time.Duration(i) * 100 * time.Millisecond):
	}
	dir := filepath.Join(p.dir, "hosts", fmt.Sprint(i))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make a host's directory: %w", err)
	}
	ini := filepath.Join(dir, "wapt-get.ini")
	if err := os.WriteFile(ini, []byte(p.ini(i)), 0o600); err != nil {
		return fmt.Errorf("write a host's wapt-get.ini: %w", err)
	}
	sim := wua.NewSim(wua.SimOptions{Seed: p.Seed, Number: i, Catalog: p.catalogue, Failures: 0.03, InstallTime: 300 * time.Millisecond})
	for ctx.Err() == nil {
		if err := p.boot(ctx, i, dir, ini, sim); err != nil {
			return err
		}
	}
	return nil
}

// boot runs the agent until the host is restarted, some seconds after
// Windows asked for it.
func (p *play) boot(ctx context.Context, i int, dir, ini string, sim *wua.Sim) (err error) {
	a, err := agent.Open(agent.Options{Dir: dir, INI: ini, Machine: sim, Version: appliance.Version, Log: p.Log.With("host", i), Seed: p.Seed + uint64(i) + 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	up, down := context.WithCancel(ctx)
	defer down()
	go func() {
		tick := time.NewTicker(8 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-up.Done():
				return
			case <-tick.C:
			}
			if f, err := sim.Facts(up); err == nil && f.RestartDue {
				down()
			}
		}
	}()
	if err := a.Run(up); err != nil && up.Err() == nil {
		return err
	}
	if ctx.Err() == nil {
		sim.Restart()
	}
	return nil
}

// ini is a host's wapt-get.ini. Every tenth host installs only when it is
// told to, so that there is something to trigger.
func (p *play) ini(i int) string {
	install := "10s"
	if i%10 == 9 {
		install = "7d"
	}
	return fmt.Sprintf("[global]\nrepo_url = %s/wapt\n\n[waptwua]\nenabled = True\ndefault_allow = False\ndownload_scheduling = 1d\ninstall_scheduling = %s\n\n[wuamesh]\nnodes = %s\ntoken = %s\n",
		p.node.URL(), install, p.node.URL(), p.token)
}

// tell prints where to look, and makes the pilots once hosts are there.
func (p *play) tell(ctx context.Context) error {
	fmt.Fprintf(p.Out, "The node:    %s\n             log in as demo with %s\nThe folder:  %s\nCommands:    wuamesh status --data %s\n", p.node.URL(), p.password, p.node.FolderURL(), filepath.Join(p.dir, "node"))
	if p.For > 0 {
		fmt.Fprintf(p.Out, "It ends by itself in %s.\n", p.For)
	} else {
		fmt.Fprintln(p.Out, "Press Ctrl-C to end it.")
	}
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	pilots, last := false, ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s, err := p.node.Status(ctx)
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
		line := fmt.Sprintf("%d hosts, %d OK, %d PENDING, %d MISSING, %d DISCARDED, %.1f MB from Microsoft", s.Hosts, s.Pairs.OK, s.Pairs.Pending, s.Pairs.Missing, s.Pairs.Discarded, float64(s.FromUpstream)/1e6)
		if line != last {
			fmt.Fprintln(p.Out, line)
			last = line
		}
	}
}

func (p *play) choosePilots(ctx context.Context) error {
	list, err := p.node.Hosts(ctx, appliance.HostQuery{Page: appliance.Page{Limit: 3}})
	if err != nil {
		return err
	}
	e := appliance.GroupEdit{Description: "They get what is new first.", Accepts: []rules.Maturity{rules.Preprod}}
	for _, h := range list.Hosts {
		e.Members = append(e.Members, h.ID)
	}
	_, err = p.node.PutGroup(ctx, appliance.Actor{Name: "demo", Role: appliance.Owner}, "pilots", e)
	return err
}

// summary prints what happened.
func (p *play) summary(ctx context.Context) error {
	s, err := p.node.Status(ctx)
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
	fmt.Fprintf(p.Out, "\n%d of %d hosts have all they may install, %d updates installed by wuamesh, %d DISCARDED by rules.\n", s.Compliant, s.Hosts, s.Installed, s.Pairs.Discarded)
	fmt.Fprintf(p.Out, "%d files fetched from upstream, %.1f MB, %d of them more than once; %.1f MB served to agents.\n", files, float64(s.FromUpstream)/1e6, twice, float64(s.ToAgents)/1e6)
	if s.Installed == 0 && p.For > 0 {
		return ErrNothingInstalled
	}
	return nil
}
