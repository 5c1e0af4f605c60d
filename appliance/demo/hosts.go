package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/agent/wua"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/microsofttest"
)

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
	home := p.nodes[i%len(p.nodes)]
	select {
	case <-ctx.Done():
		return nil
	case <-home.in:
	}
	if !wait(ctx, time.Duration(i)*100*time.Millisecond) { // they do not all come at once
		return nil
	}
	dir := filepath.Join(p.dir, "hosts", fmt.Sprint(i))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make a host's directory: %w", err)
	}
	ini := filepath.Join(dir, "wapt-get.ini")
	if err := os.WriteFile(ini, []byte(p.ini(i, home)), 0o600); err != nil {
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
func (p *play) ini(i int, home *node) string {
	install := "10s"
	if i%10 == 9 {
		install = "7d"
	}
	return fmt.Sprintf("[global]\nrepo_url = %s/wapt\n\n[waptwua]\nenabled = True\ndefault_allow = False\ndownload_scheduling = 1d\ninstall_scheduling = %s\n\n[wuamesh]\nnodes = %s\ntoken = %s\n",
		home.URL(), install, home.URL(), p.token)
}
