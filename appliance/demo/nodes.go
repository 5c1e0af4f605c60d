package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// places are the sites of the demonstration, headquarters first.
var places = []struct{ node, site string }{
	{"rns-01", "rennes"}, {"brs-01", "brest"}, {"lor-01", "lorient"}, {"vns-01", "vannes"}, {"qmp-01", "quimper"},
}

// A node of the demonstration.
type node struct {
	*appliance.Appliance
	data, site string
	in         chan struct{} // closed once it is in the mesh and has everything
	before     moved         // when the play began, of a directory that was kept
}

// moved is what went over a branch's line, and what lies in its folder.
type moved struct{ line, given, folder int64 }

// demoOwner does what the demonstration does by itself.
var demoOwner = appliance.Actor{Name: "demo", Role: appliance.Owner}

// openNodes opens the nodes, which believe the stand-in's root.
func (p *play) openNodes(upstream string) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, p.closeNodes())
		}
	}()
	root, err := p.world.RootFile(p.dir)
	if err != nil {
		return err
	}
	for i := range p.Nodes {
		n, err := p.openNode(i, upstream, root)
		if err != nil {
			return err
		}
		p.nodes = append(p.nodes, n)
		list, err := n.Nodes(context.Background())
		if err != nil {
			return err
		}
		for _, row := range list {
			for _, addr := range row.Addrs {
				if row.Self { // as it was, in a directory that was kept
					p.wan.place(addr, n.NodeName())
				}
			}
		}
		p.wan.place(strings.TrimPrefix(n.URL(), "https://"), n.NodeName())
	}
	return nil
}

// openNode opens the i-th node on the development ports after those of the
// one before, or on others where those are taken.
func (p *play) openNode(i int, upstream, root string) (*node, error) {
	n := &node{site: places[i].site, data: filepath.Join(p.dir, places[i].node, "data"), in: make(chan struct{})}
	cfg := appliance.DevConfig()
	cfg.Name, cfg.Site, cfg.Upstream, cfg.Internet = places[i].node, n.site, upstream, i == 0
	cfg.Data, cfg.Folder = n.data, filepath.Join(p.dir, places[i].node, "waptwua")
	cfg.ListenHTTPS, cfg.ListenHTTP = fmt.Sprintf("127.0.0.1:%d", 8443+i), fmt.Sprintf("127.0.0.1:%d", 8080+i)
	cfg.Roots, cfg.DiskFloor, cfg.Dial = []string{root}, 64<<20, p.wan.dial(cfg.Name)
	var err error
	n.Appliance, err = appliance.Open(cfg, p.Log.With("node", cfg.Name))
	if taken, ok := errors.AsType[*appliance.Problem](err); ok && taken.Kind == appliance.Conflict {
		cfg.ListenHTTPS, cfg.ListenHTTP = "127.0.0.1:0", "127.0.0.1:0"
		n.Appliance, err = appliance.Open(cfg, p.Log.With("node", cfg.Name))
	}
	if err != nil {
		return nil, err
	}
	n.before, err = n.moved(context.Background())
	return n, err
}

func (n *node) moved(ctx context.Context) (m moved, err error) {
	s, err := n.Status(ctx)
	if err != nil {
		return m, err
	}
	days, err := n.Traffic(ctx, 1)
	m.folder = s.FolderBytes
	if len(days) > 0 && days[0].Day == time.Now().Format(time.DateOnly) {
		m.line, m.given = days[0].WANDown, days[0].WANUp
	}
	return m, err
}

func (p *play) closeNodes() (err error) {
	for _, n := range p.nodes {
		err = errors.Join(err, n.Close())
	}
	return err
}

// prepare makes the admin, the groups and rules, and the token the hosts
// enrol with, on the first node. A directory that was kept has them already.
func (p *play) prepare(ctx context.Context) error {
	p.password = strings.ToLower(rand.Text()[:16])
	first := p.nodes[0]
	if first.NeedsSetup() {
		link, err := url.Parse(first.SetupLink())
		if err != nil {
			return err
		}
		if err := first.SetUp(ctx, link.Query().Get("secret"), "demo", p.password); err != nil {
			return err
		}
		if err := p.rules(ctx); err != nil {
			return err
		}
	} else if err := first.PutAdmin(ctx, demoOwner, "demo", appliance.Owner, p.password); err != nil {
		return err
	}
	_, token, err := first.MakeToken(ctx, demoOwner, appliance.TokenOptions{Name: "demonstration", Use: appliance.ForEnroll, Uses: p.Hosts, Expires: time.Hour})
	p.token = token
	return err
}

// rules are those of a small company: security updates for everybody, one
// update that breaks the accounting program forbidden, and what is new tried
// on pilots first.
func (p *play) rules(ctx context.Context) error {
	line := func(verb rules.Verb, kind rules.Kind, value string) rules.Line {
		return rules.Line{Verb: verb, Kind: kind, Value: value}
	}
	first := p.nodes[0]
	for _, e := range []struct {
		name string
		edit appliance.PackageEdit
	}{
		{"baseline", appliance.PackageEdit{Description: "What every host may install.", Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{
			line(rules.Allow, rules.BySeverity, "Critical"), line(rules.Allow, rules.BySeverity, "Important"),
			line(rules.Allow, rules.ByClassification, "28bc880e-0592-4cbf-8f95-c79b17911d5f"),
		}}},
		{"erp-freeze", appliance.PackageEdit{Description: "Breaks printing in the ERP client until its next release.", Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{
			line(rules.Forbid, rules.ByKB, p.forbidden()),
		}}},
		{"pilots-first", appliance.PackageEdit{Description: "Tried on the pilots before everybody gets it.", Maturity: rules.Preprod, Groups: []string{"all"}, Lines: []rules.Line{
			line(rules.Allow, rules.BySeverity, "Moderate"),
		}}},
	} {
		if _, err := first.PutPackage(ctx, demoOwner, e.name, e.edit); err != nil {
			return err
		}
	}
	_, err := first.PutGroup(ctx, demoOwner, "pilots", appliance.GroupEdit{Description: "They get what is new first.", Accepts: []rules.Maturity{rules.Preprod}})
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

// join makes n a member of the first node's mesh with a token, as an admin
// would, and waits until it has everything.
func (p *play) join(ctx context.Context, n *node) error {
	began := time.Now()
	if !n.Member() {
		_, token, err := p.nodes[0].MakeToken(ctx, demoOwner, appliance.TokenOptions{Name: n.NodeName(), Use: appliance.ForJoin, Expires: time.Hour})
		if err == nil {
			err = n.Join(ctx, demoOwner, appliance.JoinOptions{Token: token})
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s joins: %w", n.NodeName(), err)
		}
	}
	for {
		s, err := n.JoinState(ctx)
		if err != nil {
			return err
		}
		if s.Synced {
			break
		}
		if !wait(ctx, 50*time.Millisecond) {
			return nil
		}
	}
	close(n.in)
	if n != p.nodes[0] {
		p.say("%s is in the mesh, %.1f s after its token was made.", n.NodeName(), time.Since(began).Seconds())
	}
	return nil
}

func (p *play) choosePilots(ctx context.Context) error {
	list, err := p.nodes[0].Hosts(ctx, appliance.HostQuery{Page: appliance.Page{Limit: 3}})
	if err != nil {
		return err
	}
	e := appliance.GroupEdit{Description: "They get what is new first.", Accepts: []rules.Maturity{rules.Preprod}}
	for _, h := range list.Hosts {
		e.Members = append(e.Members, h.ID)
	}
	servers := appliance.GroupEdit{Description: "Whatever branch they are in.", Condition: &appliance.Condition{OS: []string{"Windows Server*"}}}
	if _, err = p.nodes[0].PutGroup(ctx, demoOwner, "servers", servers); err != nil {
		return err
	}
	_, err = p.nodes[0].PutGroup(ctx, demoOwner, "pilots", e)
	return err
}
