package appliance_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// TestMergedIsWhatHostsGet makes random edits and compares what is said of the
// packages that merge with one, before and after it is stored, with what the
// page of every host says.
func TestMergedIsWhatHostsGet(t *testing.T) {
	a := openFleet(t, appliance.Fleet{Hosts: 40, Updates: 120, Statuses: 14, Seed: 11})
	disputed, wins := 0, 0
	for i := range 25 {
		name := []string{"baseline", "erp-freeze", "pilots", "late", "night"}[a.IntN(5)]
		e := a.edit()
		if e.Lines = e.Lines[:min(len(e.Lines), 2)]; a.IntN(4) > 0 { // most of them meet, and not all say everything
			e.Maturity = rules.Prod
		}
		impact, err := a.PreviewPackage(t.Context(), name, e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.PutPackage(t.Context(), owner, name, e); err != nil {
			t.Fatal(err)
		}
		if i%10 == 3 {
			a.randomStop()
			impact, err = a.PreviewPackage(t.Context(), name, e)
		}
		got, merr := a.Merged(t.Context(), name)
		if err != nil || merr != nil || !reflect.DeepEqual(got, impact.Merged) {
			t.Fatalf("%s is said to merge with %+v before it is stored, then with %+v: %v, %v", name, impact.Merged, got, err, merr)
		}
		want := a.merge(name)
		for _, m := range got {
			if said := fmt.Sprint(m.Hosts, m.Wins, m.Loses, " ", disputes(m)); said != want[m.Package] {
				t.Errorf("edit %d: %s and %s: %s, want %s", i, name, m.Package, said, want[m.Package])
			}
			delete(want, m.Package)
			disputed += len(m.Disputed)
			wins += m.Wins
		}
		if len(want) > 0 {
			t.Errorf("edit %d: nothing is said of %v beside %s", i, want, name)
		}
	}
	if disputed < 20 || wins < 20 {
		t.Errorf("%d updates were disputed, the other won on %d hosts: too few to say much", disputed, wins)
	}
	if _, err := a.Merged(t.Context(), "nothing"); problemOf(t, err).Kind != appliance.NotFound {
		t.Error(err)
	}
}

func disputes(m appliance.Merged) string {
	var list []string
	for _, d := range m.Disputed {
		list = append(list, fmt.Sprint(d.Update.ID, " ", d.Winner, " ", d.Hosts))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// merge works out from every host's page what merges with a package.
func (a *fleet) merge(name string) map[string]string {
	type sum struct {
		hosts, wins, loses map[agentproto.HostID]bool
		updates            map[string]int
	}
	sums, packages, all := map[string]*sum{}, a.allPackages(), a.observe()
	for _, h := range a.hosts {
		gets := a.gets(h, packages)
		if !slices.Contains(gets, name) {
			continue
		}
		for _, other := range gets {
			s := sums[other]
			if s == nil {
				s = &sum{map[agentproto.HostID]bool{}, map[agentproto.HostID]bool{}, map[agentproto.HostID]bool{}, map[string]int{}}
				sums[other] = s
			}
			s.hosts[h] = true
			for _, x := range all {
				if x.Host != h || x.Decision.Verdict != rules.Forbidden || x.State == rules.OK || x.Reason == rules.ReasonRestart {
					continue
				}
				u := a.details[x.Update.ID]
				ours, theirs := says(packages[name], u), says(packages[other], u)
				switch {
				case ours == "" || theirs == "" || ours == theirs:
				case theirs == rules.Forbid:
					s.wins[h] = true
					s.updates[fmt.Sprint(u.ID, " ", other)]++
				default:
					s.loses[h] = true
					s.updates[fmt.Sprint(u.ID, " ", name)]++
				}
			}
		}
	}
	want := map[string]string{}
	for other, s := range sums {
		if other == name || other == rules.EmergencyStop && len(s.updates) == 0 {
			continue
		}
		var list []string
		for d, n := range s.updates {
			list = append(list, fmt.Sprint(d, " ", n))
		}
		slices.Sort(list)
		want[other] = fmt.Sprint(len(s.hosts), len(s.wins), len(s.loses), " ", strings.Join(list, ", "))
	}
	return want
}

// allPackages are the packages with their lines, and the emergency stops as
// one.
func (a *fleet) allPackages() map[string]appliance.PackageDetail {
	list, err := a.Packages(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	all := map[string]appliance.PackageDetail{}
	for _, p := range list {
		if all[p.Name], err = a.Package(a.t.Context(), p.Name); err != nil {
			a.t.Fatal(err)
		}
	}
	stops, err := a.Stops(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	var p appliance.PackageDetail
	for _, s := range stops {
		p.Lines = append(p.Lines, appliance.LineRow{Line: rules.Line{Verb: rules.Forbid, Kind: rules.ByUpdateID, Value: string(s.Update.ID)}})
	}
	all[rules.EmergencyStop] = p
	return all
}

// gets are the packages that are assigned to a host and that it accepts.
func (a *fleet) gets(id agentproto.HostID, packages map[string]appliance.PackageDetail) (names []string) {
	h, err := a.Host(a.t.Context(), id)
	if err != nil {
		a.t.Fatal(err)
	}
	for _, p := range h.Packages {
		if slices.Contains(h.Accepts, p.Maturity) {
			names = append(names, p.Name)
		}
	}
	return append(names, rules.EmergencyStop)
}

// says is what the lines of a package say of an update.
func says(p appliance.PackageDetail, d appliance.UpdateDetail) (verb rules.Verb) {
	u := rules.Update{ID: d.ID, KBs: d.KBs, Severity: d.Severity, Classification: d.Classification.ID}
	for _, k := range d.Products {
		u.Products = append(u.Products, k.ID)
	}
	for _, l := range p.Lines {
		if l.Matches(u) && (verb == "" || l.Verb == rules.Forbid) {
			verb = l.Verb
		}
	}
	return verb
}
