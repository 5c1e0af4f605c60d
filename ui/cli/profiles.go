package cli

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"wuamesh/agentproto"
	"wuamesh/appliance"
	"wuamesh/appliance/api"
)

var profilesCommand = Command{
	Name: "profiles", Args: "[NAME [set OPTION VALUE | drop OPTION | give group|host WHOM | take group|host WHOM | place N | delete | versions | back VERSION]]",
	Summary: "List settings profiles of agents, show one, change what it sets and whom it is given to",
	Example: "wuamesh profiles\nwuamesh profiles night\nwuamesh profiles night set install_scheduling 1d --dry-run\nwuamesh profiles night set allowed_severities Critical,Important\nwuamesh profiles night drop install_delay\nwuamesh profiles night give group brest\nwuamesh profiles night take host BRS-WKS-0142\nwuamesh profiles night place 2\nwuamesh profiles night versions\nwuamesh profiles night delete --dry-run",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		dry := fs.Bool("dry-run", false, "only say which hosts would get other settings")
		return func(ctx context.Context, s Streams, args []string) error {
			switch {
			case len(args) == 0:
				return t.profiles(ctx, s)
			case len(args) == 1:
				var p appliance.ProfileDetail
				if err := t.get(ctx, s, "profiles/"+args[0], nil, &p); err != nil || t.json {
					return err
				}
				return t.printProfile(ctx, s, p)
			case len(args) == 2 && args[1] == "versions":
				return t.versionsAt(ctx, s, "profiles/"+args[0])
			case len(args) == 2 && args[1] == "delete":
				return t.deleteProfile(ctx, s, args[0], *dry)
			case len(args) == 3 && args[1] == "back":
				return t.profileBack(ctx, s, args[0], args[2], *dry)
			}
			change, err := t.profileChange(ctx, s, args[1:])
			if err != nil {
				return err
			}
			return t.editProfile(ctx, s, args[0], change, *dry)
		}
	},
}

func (t *target) profiles(ctx context.Context, s Streams) error {
	var list api.Profiles
	if err := t.get(ctx, s, "profiles", nil, &list); err != nil || t.json {
		return err
	}
	g := newGrid(s.Out, "PLACE", "PROFILE", "HOSTS", "GIVEN TO", "SETS", "EDITED", "BY")
	for _, p := range list.Profiles {
		to := slices.Clone(p.Groups)
		if len(p.Hosts) > 0 {
			to = append(to, count(len(p.Hosts), "host"))
		}
		var sets []string
		for _, key := range slices.Sorted(maps.Keys(p.Options)) {
			sets = append(sets, key+"="+cmp.Or(p.Options[key], "none"))
		}
		g.row(strconv.Itoa(p.Order), p.Name, strconv.Itoa(p.Reach), strings.Join(to, " "), strings.Join(sets, " "), when(p.Edited, ""), p.EditedBy)
	}
	return g.flush()
}

// printProfile prints a profile, and where others say something else.
func (t *target) printProfile(ctx context.Context, s Streams, p appliance.ProfileDetail) error {
	fmt.Fprintf(s.Out, "%s, place %d, on %s. %s\n", p.Name, p.Order, count(p.Reach, "host"), p.Description)
	var to []string
	for _, g := range p.Groups {
		to = append(to, "group "+g)
	}
	for _, id := range p.Hosts {
		h, err := t.find(ctx, s, string(id))
		if err != nil {
			return err
		}
		to = append(to, "host "+h.Name)
	}
	fmt.Fprintf(s.Out, "Given to: %s\n", cmp.Or(strings.Join(to, ", "), "nobody yet"))
	for _, c := range p.Clashes {
		fmt.Fprintln(s.Out, clashText(c))
	}
	g := newGrid(s.Out, "OPTION", "VALUE", "BY", "AT")
	for _, o := range p.Set {
		g.row(o.Name, cmp.Or(o.Value, "none"), o.By, when(o.At, ""))
	}
	return g.flush()
}

func clashText(c appliance.SettingClash) string {
	return fmt.Sprintf("%s: on %s %s says %s and %s says %s. The first holds: %s.", c.Name, count(c.Hosts, "host"), c.Winner, c.Value, c.Loser, c.Other, c.Why)
}

// profileChange is what the words after the name of a profile do to it.
func (t *target) profileChange(ctx context.Context, s Streams, words []string) (func(*appliance.ProfileEdit), error) {
	switch {
	case len(words) == 3 && words[0] == "set":
		value := words[2]
		if value == "none" && words[1] != "enabled" {
			value = map[string]string{"install_scheduling": "0", "install_delay": "0"}[words[1]]
		}
		return func(e *appliance.ProfileEdit) { e.Options[words[1]] = value }, nil
	case len(words) == 2 && words[0] == "drop":
		return func(e *appliance.ProfileEdit) { delete(e.Options, words[1]) }, nil
	case len(words) == 2 && words[0] == "place":
		n, err := strconv.Atoi(words[1])
		if err != nil || n < 1 {
			return nil, usage("the place of a profile is a number from 1")
		}
		return func(e *appliance.ProfileEdit) { e.Order = n }, nil
	case len(words) == 3 && (words[0] == "give" || words[0] == "take") && words[1] == "group":
		return func(e *appliance.ProfileEdit) { e.Groups = withOr(e.Groups, words[2], words[0] == "give") }, nil
	case len(words) == 3 && (words[0] == "give" || words[0] == "take") && words[1] == "host":
		h, err := t.find(ctx, s, words[2])
		if err != nil {
			return nil, err
		}
		return func(e *appliance.ProfileEdit) { e.Hosts = withOr[agentproto.HostID](e.Hosts, h.ID, words[0] == "give") }, nil
	}
	return nil, usage("after NAME comes set OPTION VALUE, drop OPTION, give or take group or host WHOM, place N, delete, versions, or back VERSION")
}

// withOr is a list with a value in it, or without.
func withOr[T comparable](list []T, v T, with bool) []T {
	list = slices.DeleteFunc(slices.Clone(list), func(x T) bool { return x == v })
	if with {
		list = append(list, v)
	}
	return list
}

// editProfile makes a profile or changes it, and says what that does to hosts.
func (t *target) editProfile(ctx context.Context, s Streams, name string, change func(*appliance.ProfileEdit), dry bool) error {
	var list api.Profiles
	if err := t.call(ctx, s, "profiles", nil, &list); err != nil {
		return err
	}
	e := appliance.ProfileEdit{Options: map[string]string{}}
	for _, p := range list.Profiles {
		if p.Name == name {
			e = p.Edit()
		}
	}
	change(&e)
	var i appliance.Impact
	if err := t.post(ctx, s, "profiles/"+name+"/preview", e, &i); err != nil {
		return err
	}
	if dry {
		return t.printSettingsImpact(s, i)
	}
	var p appliance.ProfileDetail
	if err := t.send(ctx, s, http.MethodPut, "profiles/"+name, e, &p); err != nil {
		return err
	}
	return t.saved(ctx, s, p, i)
}

func (t *target) saved(ctx context.Context, s Streams, p appliance.ProfileDetail, i appliance.Impact) error {
	if t.json {
		return printJSON(s.Out, p)
	}
	fmt.Fprintln(s.Err, i.Summary())
	return t.printProfile(ctx, s, p)
}

func (t *target) deleteProfile(ctx context.Context, s Streams, name string, dry bool) error {
	var i appliance.Impact
	if err := t.call(ctx, s, "profiles/"+name+"/deletion", nil, &i); err != nil {
		return err
	}
	if dry {
		return t.printSettingsImpact(s, i)
	}
	return t.done(ctx, s, http.MethodDelete, "profiles/"+name, "Deleted. "+i.Summary())
}

// profileBack makes a profile what it was, and says what that does to hosts.
func (t *target) profileBack(ctx context.Context, s Streams, name, version string, dry bool) error {
	path := "profiles/" + name + "/versions/" + version
	var i appliance.Impact
	if err := t.call(ctx, s, path+"/impact", nil, &i); err != nil {
		return err
	}
	if dry {
		return t.printSettingsImpact(s, i)
	}
	var p appliance.ProfileDetail
	if err := t.post(ctx, s, path+"/restore", nil, &p); err != nil {
		return err
	}
	return t.saved(ctx, s, p, i)
}

// printSettingsImpact prints what an edit would do to settings, and with them
// to decisions.
func (t *target) printSettingsImpact(s Streams, i appliance.Impact) error {
	if t.json {
		return printJSON(s.Out, i)
	}
	if i.Settings == nil {
		return printImpact(s, i)
	}
	settings := *i.Settings
	fmt.Fprintln(s.Out, settings.Summary())
	for _, c := range settings.Clashes {
		fmt.Fprintln(s.Out, clashText(c))
	}
	if len(settings.OnHosts) > 0 {
		g := newGrid(s.Out, "HOST", "OPTION", "FROM", "TO", "BY")
		for _, h := range settings.OnHosts {
			for _, c := range h.Changes {
				g.row(h.Name, c.Name, c.From, c.To, c.By)
			}
		}
		if err := g.flush(); err != nil {
			return err
		}
	}
	i.Settings = nil
	return printImpact(s, i)
}
