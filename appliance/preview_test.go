package appliance_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// A fleet is a node with an invented fleet, edited by a random hand.
type fleet struct {
	*appliance.Appliance
	*rand.Rand
	t       testing.TB
	hosts   []agentproto.HostID
	waiting map[agentproto.HostID]bool // for approval: nothing is decided about them
	updates []rules.UpdateID
	details map[rules.UpdateID]appliance.UpdateDetail
}

// openFleet opens a node which does nothing by itself on a fleet whose hosts
// differ in everything that decides.
func openFleet(t testing.TB, f appliance.Fleet) *fleet {
	t.Helper()
	node := openIn(t, filepath.Join(t.TempDir(), "node"))
	if err := node.Populate(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if err := node.Vary(t.Context(), f.Seed); err != nil {
		t.Fatal(err)
	}
	a := &fleet{Appliance: node, Rand: rand.New(rand.NewPCG(f.Seed, 2)), t: t, waiting: map[agentproto.HostID]bool{}, details: map[rules.UpdateID]appliance.UpdateDetail{}}
	for page := (appliance.Page{Limit: 500}); ; {
		list, err := node.Hosts(t.Context(), appliance.HostQuery{Page: page})
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range list.Hosts {
			a.hosts = append(a.hosts, h.ID)
			a.waiting[h.ID] = h.Waiting
		}
		if page.After = list.Next; page.After == "" {
			break
		}
	}
	list, err := node.Updates(t.Context(), appliance.UpdateQuery{Page: appliance.Page{Limit: 500}})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range list.Updates {
		a.updates = append(a.updates, u.ID)
	}
	return a
}

func some[T any](r *rand.Rand, list []T, at int) (out []T) {
	for range r.IntN(at + 1) {
		out = append(out, list[r.IntN(len(list))])
	}
	return out
}

func (a *fleet) line() rules.Line {
	kind := rules.Kinds[a.IntN(len(rules.Kinds))]
	value := map[rules.Kind]string{
		rules.ByUpdateID: string(a.updates[a.IntN(len(a.updates))]), rules.ByKB: fmt.Sprint(5000000 + a.IntN(45)),
		rules.ByProduct: fmt.Sprintf("72e7624a-5b00-45d2-b92f-e561c0a6a1%02x", a.IntN(7)), rules.ByClassification: "0fa1201d-4330-4fa8-8ae9-b877473b6441",
		rules.BySeverity: string(rules.Severities[a.IntN(len(rules.Severities))]),
	}[kind]
	return rules.Line{Verb: []rules.Verb{rules.Allow, rules.Forbid}[a.IntN(2)], Kind: kind, Value: value}
}

func (a *fleet) edit() (e appliance.PackageEdit) {
	e.Maturity = rules.Maturities[a.IntN(3)]
	for range 1 + a.IntN(5) {
		if l := a.line(); !slices.Contains(e.Lines, l) {
			e.Lines = append(e.Lines, l)
		}
	}
	for range a.IntN(4) {
		if g := a.group(); !slices.Contains(e.Groups, g) {
			e.Groups = append(e.Groups, g)
		}
	}
	if !slices.Contains(e.Groups, "all") && a.IntN(2) == 0 {
		e.Groups = append(e.Groups, "all")
	}
	e.Hosts = some(a.Rand, a.hosts, 5)
	return e
}

// group is the name of some group.
func (a *fleet) group() string {
	list, err := a.GroupsBrief(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	return list[a.IntN(len(list))].Name
}

// profile is any edit of a settings profile.
func (a *fleet) profile() appliance.ProfileEdit {
	e := appliance.ProfileEdit{Order: a.IntN(5), Options: map[string]string{}, Hosts: some(a.Rand, a.hosts, 5)}
	for range 1 + a.IntN(3) {
		values := [][]string{
			{"default_allow", "True", "False"}, {"allowed_severities", "Critical", "", "Important, Critical"}, {"install_delay", "0", "365d", "730d"},
			{"include_potentially_superseded_updates", "yes", "no"}, {"download_scheduling", "1d", "12h"}, {"enabled", "True", "False"}, {"filter", "IsInstalled=0", ""},
		}
		v := values[a.IntN(len(values))]
		e.Options[v[0]] = v[1+a.IntN(len(v)-1)]
	}
	for range a.IntN(4) {
		e.Groups = append(e.Groups, a.group())
	}
	if a.IntN(3) == 0 {
		e.Groups = append(e.Groups, "all")
	}
	return e
}

// seen is what the pages say about one update on one host.
type seen struct {
	appliance.HostUpdate
	restart string
	files   []appliance.FileRow
}

// observe asks for every update of every host.
func (a *fleet) observe() map[string]seen {
	a.t.Helper()
	all := map[string]seen{}
	for _, h := range a.hosts {
		if a.waiting[h] {
			continue
		}
		list, err := a.HostUpdates(a.t.Context(), h, appliance.HostUpdateQuery{Page: appliance.Page{Limit: 500}})
		if err != nil {
			a.t.Fatal(err)
		}
		for _, u := range list.Updates {
			d, ok := a.details[u.Update.ID]
			if !ok {
				if d, err = a.UpdateByID(a.t.Context(), u.Update.ID); err != nil {
					a.t.Fatal(err)
				}
				a.details[u.Update.ID] = d
			}
			all[string(h)+" "+string(u.Update.ID)] = seen{u, string(d.Restart), d.Files}
		}
	}
	return all
}

// settings are what the pages of all hosts say holds, by host and option.
func (a *fleet) settings() map[agentproto.HostID]map[string]string {
	a.t.Helper()
	all := map[agentproto.HostID]map[string]string{}
	for _, h := range a.hosts {
		if a.waiting[h] {
			continue
		}
		d, err := a.Host(a.t.Context(), h)
		if err != nil {
			a.t.Fatal(err)
		}
		all[h] = map[string]string{"filter": "none by default"} // shown only where it is set
		for _, e := range d.Settings {
			all[h][e.Name] = e.Value + " by " + e.Source
		}
	}
	return all
}

// became works out from two looks at the settings what a preview says of them,
// without who is listed: change by change how many hosts, and each host's.
func became(before, after map[agentproto.HostID]map[string]string) (changes map[appliance.SettingChange]int, on map[agentproto.HostID]int) {
	changes, on = map[appliance.SettingChange]int{}, map[agentproto.HostID]int{}
	for h := range before {
		for name, is := range after[h] {
			from, _, _ := strings.Cut(before[h][name], " by ")
			to, by, _ := strings.Cut(is, " by ")
			if from != to {
				changes[appliance.SettingChange{Name: name, From: from, To: to, By: by}]++
				on[h]++
			}
		}
	}
	return changes, on
}

// said is the same, out of a preview.
func said(i *appliance.SettingsImpact) (changes map[appliance.SettingChange]int, on map[agentproto.HostID]int) {
	changes, on = map[appliance.SettingChange]int{}, map[agentproto.HostID]int{}
	if i == nil {
		return changes, on
	}
	for _, ch := range i.Changes {
		n := ch.Hosts
		ch.Hosts = 0
		changes[ch] += n
	}
	for _, h := range i.OnHosts {
		on[h.ID] = len(h.Changes)
	}
	return changes, on
}

// needs are the files that some host needs and may install.
func needed(all map[string]seen) map[string]int64 {
	files := map[string]int64{}
	for _, u := range all {
		if u.State != rules.OK && u.Decision.May() {
			for _, f := range u.files {
				files[f.Name] = f.Size
			}
		}
	}
	return files
}

// happened works out from two looks at the pages what a preview says. Files
// that are on a host already need no download.
func happened(before, after map[string]seen) (is appliance.Impact) {
	gains, losses := map[rules.UpdateID]bool{}, map[rules.UpdateID]bool{}
	hosts, updates, restart, may := map[agentproto.HostID]bool{}, map[rules.UpdateID]bool{}, map[agentproto.HostID]bool{}, map[agentproto.HostID]bool{}
	had, files := needed(before), map[string]int64{}
	for key, x := range before {
		y := after[key]
		if x.Decision.Verdict == y.Decision.Verdict {
			continue
		}
		if x.State == rules.OK || x.Reason == rules.ReasonRestart {
			if x.Decision.May() && !y.Decision.May() {
				is.Stays++
			}
			continue
		}
		hosts[x.Host], updates[x.Update.ID] = true, true
		is.Pairs++
		switch {
		case !x.Decision.May() && y.Decision.May():
			is.Allowed++
			gains[x.Update.ID] = true
			restart[x.Host] = restart[x.Host] || x.restart == "always"
			may[x.Host] = may[x.Host] || x.restart == "maybe"
			for _, f := range x.files {
				if _, ok := had[f.Name]; !ok && y.Reason != rules.ReasonOnHost && y.Reason != rules.ReasonInstallErr && y.Reason != rules.ReasonDelayed {
					files[f.Name] = f.Size
				}
			}
		case x.Decision.May() && !y.Decision.May():
			is.Forbidden++
			losses[x.Update.ID] = true
		}
	}
	for key, x := range before {
		if hosts[x.Host] {
			tally(&is.Before, x.State)
			tally(&is.After, after[key].State)
		}
	}
	for h := range hosts {
		switch {
		case restart[h]:
			is.Restart++
		case may[h]:
			is.MayRestart++
		}
	}
	is.Hosts, is.Updates, is.Gains, is.Losses = len(hosts), len(updates), len(gains), len(losses)
	for _, n := range files {
		is.Files++
		is.Bytes += n
	}
	is.Fetch, is.FetchBytes = is.Files, is.Bytes
	return is
}

func tally(c *appliance.StateCounts, s rules.State) {
	switch s {
	case rules.OK:
		c.OK++
	case rules.Missing:
		c.Missing++
	case rules.Pending:
		c.Pending++
	default:
		c.Discarded++
	}
}

// TestAPreviewIsWhatHappens makes random edits, each after its preview, and
// compares the preview with what the pages of every host say afterwards.
func TestAPreviewIsWhatHappens(t *testing.T) {
	seeds := 4
	if testing.Short() {
		seeds = 2
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			a := openFleet(t, appliance.Fleet{Hosts: 40, Updates: 120, Statuses: 14, Seed: seed})
			before, settings := a.observe(), a.settings()
			changed, settled := 0, 0
			for i := range 80 {
				what, impact := a.random()
				after := a.observe()
				want := happened(before, after)
				before = after
				was := settings
				settings = a.settings()
				changes, on := became(was, settings)
				saidChanges, saidOn := said(impact.Settings)
				if !maps.Equal(changes, saidChanges) || !maps.Equal(on, saidOn) {
					t.Fatalf("seed %d, edit %d, %s:\npreviewed %v on %v\nhappened  %v on %v", seed, i, what, saidChanges, saidOn, changes, on)
				}
				if impact.Settings != nil && impact.Settings.Hosts != len(on) {
					t.Errorf("%s: %d hosts get other settings, and %d do", what, impact.Settings.Hosts, len(on))
				}
				if len(on) > 0 {
					settled++
				}
				got := impact
				got.Settings = nil
				got.Reach, got.Clashes, got.Merged, got.Warnings, got.Changes, got.OnHosts = 0, nil, nil, nil, nil, nil
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("seed %d, edit %d, %s:\npreviewed %+v\nhappened  %+v", seed, i, what, got, want)
				}
				if impact.Hosts != len(impact.OnHosts) {
					t.Errorf("%s lists %d hosts of %d", what, len(impact.OnHosts), impact.Hosts)
				}
				if impact.Hosts > 0 {
					changed++
				}
			}
			if changed < 5 || settled < 5 {
				t.Errorf("only %d edits changed decisions and %d settings: the test shows little", changed, settled)
			}
		})
	}
}

// random previews and makes one edit.
func (a *fleet) random() (what string, i appliance.Impact) {
	ctx := a.t.Context()
	name := fmt.Sprintf("rules-%02d", a.IntN(22))
	group := fmt.Sprintf("branch-%02d", a.IntN(22))
	var err, made error
	switch a.IntN(15) {
	case 8, 9:
		return a.randomStop()
	case 10, 11:
		return a.randomReturn()
	case 12, 13:
		return a.randomImport()
	case 5, 6:
		e := a.profile()
		name = fmt.Sprintf("settings-%d", a.IntN(6))
		what = fmt.Sprintf("%s becomes %+v", name, e)
		i, err = a.PreviewProfile(ctx, name, e)
		_, made = a.PutProfile(ctx, owner, name, e)
		if p, err := a.Profile(ctx, name); err != nil || p.Reach != i.Reach || len(p.Clashes) < len(i.Settings.Clashes) || e.Order > 0 && p.Order > e.Order {
			a.t.Errorf("%s: it is %+v, previewed %d hosts and %+v: %v", what, p, i.Reach, i.Settings.Clashes, err)
		}
	case 7:
		list, err := a.Profiles(ctx)
		if err != nil || len(list) == 0 {
			return "no profile is left to delete", appliance.Impact{}
		}
		name = list[a.IntN(len(list))].Name
		what = "delete " + name
		i, err = a.PreviewDeleteProfile(ctx, name)
		made = a.DeleteProfile(ctx, owner, name)
	case 0:
		what = "members of " + group
		e := appliance.GroupEdit{Members: some(a.Rand, a.hosts, 12), Accepts: some(a.Rand, rules.Maturities[:], 2)}
		if a.IntN(2) == 0 {
			e.Settings = map[string]string{"default_allow": rules.Bool(a.IntN(2) == 0), "allowed_severities": "Critical"}
		}
		i, err = a.PreviewGroup(ctx, group, e)
		_, made = a.PutGroup(ctx, owner, group, e)
	case 14:
		if group = a.group(); group == "all" {
			return "the group of every host stays", appliance.Impact{}
		}
		what = "delete " + group
		i, err = a.PreviewDeleteGroup(ctx, group)
		made = a.DeleteGroup(ctx, owner, group)
	case 1:
		list, err := a.Packages(ctx)
		if err != nil || len(list) == 0 {
			return "nothing is left to delete", appliance.Impact{}
		}
		name = list[a.IntN(len(list))].Name
		what = "delete " + name
		i, err = a.PreviewDeletePackage(ctx, name)
		made = a.DeletePackage(ctx, owner, name)
	default:
		e := a.edit()
		what = fmt.Sprintf("%s becomes %+v", name, e)
		i, err = a.PreviewPackage(ctx, name, e)
		_, made = a.PutPackage(ctx, owner, name, e)
		if p, err := a.Package(ctx, name); err != nil || p.Reach != i.Reach {
			a.t.Errorf("%s: it reaches %d hosts, previewed %d: %v", what, p.Reach, i.Reach, err)
		}
	}
	if err != nil || made != nil {
		a.t.Fatal(what, err, made)
	}
	return what, i
}

// randomStop previews and makes an emergency stop, or takes one back.
func (a *fleet) randomStop() (what string, i appliance.Impact) {
	ctx, id := a.t.Context(), a.updates[a.IntN(len(a.updates))]
	stops, err := a.Stops(ctx)
	if err != nil {
		a.t.Fatal(err)
	}
	if len(stops) > 0 && a.IntN(2) == 0 {
		id = stops[a.IntN(len(stops))].Update.ID
	}
	stopped := slices.ContainsFunc(stops, func(s appliance.StopRow) bool { return s.Update.ID == id })
	i, err = a.PreviewStop(ctx, id)
	var made error
	if what = "stop " + string(id); stopped {
		what = "undo the stop of " + string(id)
		made = a.UndoStop(ctx, owner, id)
	} else {
		made = a.Stop(ctx, owner, id, "it breaks something")
	}
	if err != nil || made != nil {
		a.t.Fatal(what, err, made)
	}
	return what, i
}

// randomReturn goes back to a version of a package, a profile or a group, also
// of one that was deleted.
func (a *fleet) randomReturn() (what string, i appliance.Impact) {
	ctx := a.t.Context()
	name, list, preview, restore := fmt.Sprintf("rules-%02d", a.IntN(22)), a.Versions, a.PreviewVersion, a.Restore
	switch a.IntN(3) {
	case 0:
		name, list, preview, restore = fmt.Sprintf("settings-%d", a.IntN(6)), a.ProfileVersions, a.PreviewProfileVersion, a.RestoreProfile
	case 1:
		name, list, preview, restore = fmt.Sprintf("branch-%02d", a.IntN(22)), a.GroupVersions, a.PreviewGroupVersion, a.RestoreGroup
	}
	versions, err := list(ctx, name)
	if err != nil || len(versions) == 0 {
		return "there never was " + name, appliance.Impact{}
	}
	v := versions[a.IntN(len(versions))]
	what = fmt.Sprintf("%s goes back to %s, %q", name, v.ID, v.Action)
	i, err = preview(ctx, name, v.ID)
	if made := restore(ctx, owner, name, v.ID); (err == nil) != (made == nil) {
		a.t.Fatalf("%s: previewed with %v, and made with %v", what, err, made)
	}
	if err != nil { // it was deleted in that version
		return what, appliance.Impact{}
	}
	return what, i
}

// randomImport takes a file of packages, profiles and groups in: TOML, which may drop
// the others, or WAPT's, which is the lines of one.
func (a *fleet) randomImport() (what string, i appliance.Impact) {
	ctx := a.t.Context()
	f := appliance.RuleFile{Prune: a.IntN(3) == 0}
	given := map[string]bool{}
	for n := range 1 + a.IntN(4) {
		f.Text += a.asTOML(fmt.Sprintf("rules-%02d", 4*a.IntN(6)+n), a.edit()) // TOML has each name once
	}
	var order []string
	for _, n := range a.Perm(6)[:a.IntN(4)] {
		name := fmt.Sprintf("settings-%d", n)
		order = append(order, name)
		f.Text += a.profileAsTOML(name, a.profile())
	}
	for range a.IntN(2) * a.IntN(6) {
		if name := fmt.Sprintf("branch-%02d", a.IntN(22)); !given[name] {
			given[name] = true
			f.Text += a.groupAsTOML(name)
		}
	}
	if len(order) > 0 && a.IntN(2) == 0 {
		f.Text = quotedList("profile_order", order) + f.Text
	}
	if a.IntN(2) == 0 {
		f = appliance.RuleFile{Format: appliance.WAPT, Package: fmt.Sprintf("rules-%02d", a.IntN(22)), Text: fmt.Sprintf(
			`{"allowed_severities": [%q], "forbidden_updates": ["%s_200"], "allowed_kbs": ["%d"]}`, rules.Severities[a.IntN(4)], a.updates[a.IntN(len(a.updates))], 5000000+a.IntN(45),
		)}
	}
	what = fmt.Sprintf("import %+v", f)
	d, err := a.DiffRules(ctx, f)
	made, failed := a.ImportRules(ctx, owner, f)
	if strings.Contains(fmt.Sprint(err), "would be deleted") && failed != nil {
		return what, appliance.Impact{} // something is given to a group that is not in the file
	}
	if err != nil || failed != nil || !reflect.DeepEqual(d.Impact, made.Impact) {
		a.t.Fatalf("%s: previewed %+v, %v; made %+v, %v", what, d.Impact, err, made.Impact, failed)
	}
	return what, d.Impact
}

// asTOML writes a package as a file of rules has it.
func (a *fleet) asTOML(name string, e appliance.PackageEdit) string {
	said := map[rules.Verb][]string{}
	for _, l := range e.Lines {
		said[l.Verb] = append(said[l.Verb], string(l.Kind)+" "+l.Value)
	}
	var hosts []string
	for _, h := range e.Hosts {
		hosts = append(hosts, string(h))
	}
	return fmt.Sprintf("[package.%q]\nmaturity = %q\n", name, e.Maturity) + quotedList("groups", e.Groups) + quotedList("hosts", hosts) + quotedList("allow", said[rules.Allow]) + quotedList("forbid", said[rules.Forbid])
}

// profileAsTOML writes a profile as a file of rules has it.
func (a *fleet) profileAsTOML(name string, e appliance.ProfileEdit) string {
	var hosts []string
	for _, h := range e.Hosts {
		hosts = append(hosts, string(h))
	}
	text := fmt.Sprintf("[profile.%q]\n", name) + quotedList("groups", e.Groups) + quotedList("hosts", hosts) + fmt.Sprintf("[profile.%q.options]\n", name)
	for key, value := range e.Options {
		text += fmt.Sprintf("%s = %q\n", key, value)
	}
	return text
}

// groupAsTOML writes any edit of a group as a file of rules has it.
func (a *fleet) groupAsTOML(name string) string {
	text := fmt.Sprintf("[group.%q]\naccepts = [%q]\n", name, rules.Maturities[a.IntN(3)])
	if a.IntN(2) == 0 {
		var ids []string
		for _, h := range some(a.Rand, a.hosts, 12) {
			ids = append(ids, string(h))
		}
		text += quotedList("members", ids)
	}
	if a.IntN(2) == 0 {
		text += fmt.Sprintf("[group.%q.condition]\nos = [%q]\nname = [\"*%d\", \"!*%d\"]\n", name, []string{"*", "Windows 11*", "*Server*"}[a.IntN(3)], a.IntN(10), a.IntN(100))
	}
	if a.IntN(2) == 0 {
		text += fmt.Sprintf("[group.%q.settings]\ndefault_allow = %q\n", name, rules.Bool(a.IntN(2) == 0))
	}
	return text
}

func quotedList(key string, list []string) string {
	var quoted []string
	for _, s := range list {
		quoted = append(quoted, fmt.Sprintf("%q", s))
	}
	return key + " = [" + strings.Join(quoted, ", ") + "]\n"
}

// TestAPreviewNamesWhoWins has two packages that disagree.
func TestAPreviewNamesWhoWins(t *testing.T) {
	a := openFleet(t, appliance.Fleet{Hosts: 30, Updates: 120, Statuses: 14, Seed: 7})
	all := []string{"all"}
	line := func(verb rules.Verb) []rules.Line {
		return []rules.Line{{Verb: verb, Kind: rules.ByClassification, Value: "0fa1201d-4330-4fa8-8ae9-b877473b6441"}}
	}
	if _, err := a.PutPackage(t.Context(), owner, "erp-freeze", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"branch-03"}, Lines: line(rules.Forbid)}); err != nil {
		t.Fatal(err)
	}
	members, err := a.Group(t.Context(), "branch-03")
	if err != nil || len(members.Members) == 0 {
		t.Fatal(members, err)
	}
	i, err := a.PreviewPackage(t.Context(), "everything", appliance.PackageEdit{Maturity: rules.Prod, Groups: all, Lines: line(rules.Allow)})
	if err != nil {
		t.Fatal(err)
	}
	var wins appliance.Clash
	for _, c := range i.Clashes {
		if c.Winner == "erp-freeze" {
			wins = c
		}
	}
	if wins.Hosts != len(members.Members) || wins.Loser != "everything" || len(wins.Updates) == 0 {
		t.Errorf("erp-freeze forbids on %d hosts; the preview says %+v", len(members.Members), i.Clashes)
	}
	if i, err = a.PreviewPackage(t.Context(), "idle", appliance.PackageEdit{Maturity: rules.Dev, Lines: []rules.Line{{Verb: rules.Allow, Kind: rules.ByKB, Value: "9999999"}}}); err != nil || len(i.Warnings) != 2 {
		t.Errorf("of a package that does nothing the preview warns %q, %v", i.Warnings, err)
	}
	for _, word := range []string{"new", "import", "export", "diff"} { // pages and commands would hide it
		if _, err := a.PutPackage(t.Context(), owner, word, appliance.PackageEdit{Maturity: rules.Dev}); problemOf(t, err).Field != "name" {
			t.Error(err)
		}
	}
	if _, err := a.PreviewPackage(t.Context(), "Bad Name", appliance.PackageEdit{Maturity: rules.Dev}); err == nil {
		t.Error("a name that cannot be stored is previewed")
	}
}

// BenchmarkPreview previews edits that reach every host of a fleet.
func BenchmarkPreview(b *testing.B) {
	for _, hosts := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("%d hosts", hosts), func(b *testing.B) {
			if testing.Short() && hosts > 10_000 {
				b.Skip("with -short")
			}
			a := openIn(b, b.TempDir())
			if err := a.Populate(b.Context(), appliance.Fleet{Hosts: hosts, Updates: 2000, Statuses: 150, Seed: 1}); err != nil {
				b.Fatal(err)
			}
			e := appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}}
			for i := range 50 {
				e.Lines = append(e.Lines, rules.Line{Verb: []rules.Verb{rules.Allow, rules.Forbid}[i%2], Kind: rules.ByKB, Value: fmt.Sprint(5000000 + 13*i)})
			}
			if _, err := a.Packages(b.Context()); err != nil { // as opening the page does
				b.Fatal(err)
			}
			b.Run("package", func(b *testing.B) {
				for b.Loop() {
					i, err := a.PreviewPackage(b.Context(), "freeze", e)
					if err != nil || i.Hosts < hosts/2 {
						b.Fatal(i.Hosts, err)
					}
				}
			})
			p := appliance.ProfileEdit{Groups: []string{"all"}, Options: map[string]string{"default_allow": "True", "install_delay": "7d", "install_scheduling": "1d"}}
			b.Run("profile", func(b *testing.B) {
				for b.Loop() {
					i, err := a.PreviewProfile(b.Context(), "night", p)
					if err != nil || i.Settings.Hosts < hosts/2 || i.Hosts < hosts/2 {
						b.Fatal(i.Settings, i.Hosts, err)
					}
				}
			})
		})
	}
}
