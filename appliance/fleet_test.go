package appliance

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/replicate"
)

// A Fleet is an invented fleet, written into a node's store as reports would
// have written it: many branches, six systems, a month of updates that some
// hosts lack.
type Fleet struct {
	Hosts    int
	Updates  int // in all
	Statuses int // that each host reports
	Seed     uint64
}

var fleetSystems = []string{"Windows 11 Pro 25H2", "Windows 11 Pro 24H2", "Windows 10 Enterprise LTSC 2021", "Windows Server 2022", "Windows Server 2025", "Windows Server 2019"}

// Populate writes the fleet.
func (a *Appliance) Populate(ctx context.Context, f Fleet) error {
	g := rand.New(rand.NewPCG(f.Seed, 1))
	ids := make([]rules.UpdateID, f.Updates)
	for i := range ids {
		ids[i] = rules.UpdateID(fleetGUID(g))
	}
	if err := a.inSets(ctx, f.Updates, 50, func(tx *replicate.Tx, i int) error { return f.putUpdate(tx, ids, i) }); err != nil {
		return err
	}
	if err := a.inSets(ctx, 20, 20, f.putRules); err != nil {
		return err
	}
	return a.inSets(ctx, f.Hosts, 40, func(tx *replicate.Tx, i int) error { return f.putHost(tx, g, ids, i) })
}

// inSets writes n things, so many in a change set.
func (a *Appliance) inSets(ctx context.Context, n, size int, put func(*replicate.Tx, int) error) error {
	for i := 0; i < n; i += size {
		err := a.db.Update(ctx, func(tx *replicate.Tx) error {
			for j := i; j < min(i+size, n); j++ {
				if err := put(tx, j); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func fleetGUID(g *rand.Rand) string {
	x, y := g.Uint64(), g.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", uint32(x), uint16(x>>32), x>>52, y>>52, y&(1<<48-1))
}

// system is the system that an update is for: most are of the commonest.
func (f Fleet) system(i int) int { return i % len(fleetSystems) }

func (f Fleet) putUpdate(tx *replicate.Tx, ids []rules.UpdateID, i int) error {
	sum := sha1.Sum([]byte(ids[i]))
	name := fmt.Sprintf("windows-kb%d-x64_%s.cab", 5000000+i/3, hex.EncodeToString(sum[:]))
	u := agentproto.Update{
		ID: ids[i], Revision: 200 + i%4, Title: fmt.Sprintf("2026-%02d Cumulative Update for %s for x64-based Systems (KB%d)", 1+i%12, fleetSystems[f.system(i)], 5000000+i/3),
		KBs: []string{fmt.Sprint(5000000 + i/3)}, Severity: rules.Severities[i%len(rules.Severities)],
		Classification: agentproto.Category{ID: "0fa1201d-4330-4fa8-8ae9-b877473b6441", Title: "Security Updates"},
		Products:       []agentproto.Category{{ID: rules.CategoryID(fmt.Sprintf("72e7624a-5b00-45d2-b92f-e561c0a6a1%02x", f.system(i))), Title: fleetSystems[f.system(i)]}},
		Restart:        []string{"maybe", "never", "always"}[i%3], Published: time.Date(2026, time.Month(1+i%12), 10, 18, 0, 0, 0, time.UTC), CVEs: []string{fmt.Sprintf("CVE-2026-%d", 10000+i)},
		Files: []agentproto.File{{Name: name, URL: "http://download.windowsupdate.com/d/msdownload/" + name, Size: int64(1+i%700) << 20, SHA1: hex.EncodeToString(sum[:])}},
	}
	return updates.put(tx, fmt.Sprintf("%s/%d", u.ID, u.Revision), updateRecord{Update: u, From: "10000000-0000-4000-8000-000000000000"})
}

func (f Fleet) putRules(tx *replicate.Tx, i int) error {
	e := editRecord{By: "demo", At: tx.Now()}
	group, pkg := fmt.Sprintf("branch-%02d", i), fmt.Sprintf("rules-%02d", i)
	line := rules.Line{Verb: rules.Allow, Kind: rules.BySeverity, Value: string(rules.Severities[i%4])}
	if i%5 == 4 {
		line = rules.Line{Verb: rules.Forbid, Kind: rules.ByKB, Value: fmt.Sprint(5000000 + i)}
	}
	for _, put := range []func() error{
		func() error {
			return groups.put(tx, group, groupRecord{Description: "Branch " + fmt.Sprint(i), editRecord: e})
		},
		func() error { return packages.put(tx, pkg, packageRecord{Maturity: rules.Prod, editRecord: e}) },
		func() error { return lines.put(tx, lineID(pkg, line), e) },
		func() error { return assigns.put(tx, pkg+"/group/"+group, e) },
	} {
		if err := put(); err != nil {
			return err
		}
	}
	return nil
}

func (f Fleet) putHost(tx *replicate.Tx, g *rand.Rand, ids []rules.UpdateID, i int) error {
	id, system := fleetGUID(g), g.IntN(len(fleetSystems))
	h := hostRecord{
		Key: fmt.Sprintf("%064x", i), Enrolled: tx.Now(), By: "token fleet", Agent: "0.1.0", Settings: rules.DefaultSettings(),
		Facts: agentproto.Facts{
			Name: fmt.Sprintf("PC-%06d", i), FQDN: fmt.Sprintf("pc-%06d.corp.example", i), Domain: "corp.example", OS: fleetSystems[system], Build: fmt.Sprintf("10.0.26200.%d", 7000+g.IntN(20)),
			Arch: "amd64", Language: "en-GB", Manufacturer: "Contoso", Model: fmt.Sprintf("Desk %d", g.IntN(30)), Serial: fmt.Sprintf("SN%08d", i), Addresses: []string{fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)},
			Booted: tx.Now(), WUAVersion: "10.0.26200.7019", WUAService: "stopped",
		},
	}
	if err := hosts.put(tx, id, h); err != nil {
		return err
	}
	if err := members.put(tx, fmt.Sprintf("branch-%02d/%s", g.IntN(20), id), editRecord{By: "demo", At: tx.Now()}); err != nil {
		return err
	}
	r := statusRecord{scanRecord: scanRecord{Good: tx.Now(), Scan: &agentproto.Scan{Cab: fmt.Sprintf("%064x", 1), Started: tx.Now()}}}
	first := g.IntN(len(ids)/len(fleetSystems) - f.Statuses + 1)
	for j := range f.Statuses {
		n := (first+j)*len(fleetSystems) + system
		s := agentproto.Status{ID: ids[n], Revision: 200 + n%4, Installed: g.IntN(10) > 0}
		if !s.Installed && g.IntN(50) == 0 {
			s.HResult, s.Tried = 0x80070643, tx.Now()
		}
		r.Statuses = append(r.Statuses, s)
	}
	r.Hash = agentproto.HashStatuses(r.Statuses)
	return statuses.put(tx, id, r)
}

// ReportAgain writes the statuses of one host anew, one of them changed, as a
// report of it would.
func (a *Appliance) ReportAgain(ctx context.Context, n int) error {
	a.cat.mu.Lock()
	id := string(a.cat.sorted()[n].id)
	a.cat.mu.Unlock()
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		r, err := statuses.get(tx, id)
		if err != nil {
			return err
		}
		r.Statuses[n%len(r.Statuses)].Installed = !r.Statuses[n%len(r.Statuses)].Installed
		return statuses.put(tx, id, r)
	})
}
