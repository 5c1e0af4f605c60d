package cli

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"wuamesh/agentproto"
	"wuamesh/appliance"
	"wuamesh/appliance/api"
)

// conditionFlags are the facts that a condition looks at, as flags.
var conditionFlags = []struct{ flag, fact, usage string }{
	{"os", "os", "choose hosts by system: `patterns` with commas, \"Windows 11*\""},
	{"build", "build", "by build: `patterns` or bounds, \">=10.0.26100\""},
	{"domain", "domain", "by Active Directory domain: `patterns`"},
	{"ad-site", "ad_site", "by Active Directory site: `patterns`"},
	{"host", "name", "by name: `patterns`, \"BRS-*,!*-LAB-*\""},
	{"subnet", "subnet", "by address: `networks`, \"10.35.0.0/16\""},
	{"site", "site", "by site of the node they are at: `patterns`"},
}

var groupsCommand = Command{
	Name: "groups", Args: "[NAME [set | add HOST… | take HOST… | delete | versions | back VERSION]]", Summary: "List groups, show one, say by their facts which hosts are in it, or make it what it was",
	Example: "wuamesh groups\nwuamesh groups pilots\nwuamesh groups brest set --subnet 10.35.0.0/16 --host '!*-LAB-*' --dry-run\nwuamesh groups pilots add BRS-WKS-0142 BRS-WKS-0143\nwuamesh groups old delete --dry-run\nwuamesh groups brest versions",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		dry := fs.Bool("dry-run", false, "only say who would be in the group, or what deleting it or going back would do")
		description := fs.String("description", "", "what the group is for")
		fields := map[string]*string{}
		for _, c := range conditionFlags {
			fields[c.fact] = fs.String(c.flag, "", c.usage)
		}
		return func(ctx context.Context, s Streams, args []string) error {
			switch {
			case len(args) == 0:
				return t.groups(ctx, s)
			case len(args) == 1:
				var g appliance.GroupRow
				if err := t.get(ctx, s, "groups/"+url.PathEscape(args[0]), nil, &g); err != nil || t.json {
					return err
				}
				return printGroup(s, g)
			case len(args) == 2 && args[1] == "set":
				texts := map[string]string{}
				for fact, v := range fields {
					texts[fact] = *v
				}
				c, err := appliance.ParseCondition(texts)
				if err != nil {
					return err
				}
				return t.setGroup(ctx, s, args[0], groupChange{c, *description, *dry})
			case len(args) == 2 && args[1] == "delete":
				return t.deleteGroup(ctx, s, args[0], *dry)
			case len(args) > 2 && (args[1] == "add" || args[1] == "take"):
				return t.editMembers(ctx, s, args[0], args[1] == "add", args[2:])
			case len(args) == 2 && args[1] == "versions":
				return t.versionsAt(ctx, s, "groups/"+url.PathEscape(args[0]))
			case len(args) == 3 && args[1] == "back":
				return t.groupBack(ctx, s, args[0], args[2], *dry)
			default:
				return usage("after NAME comes set, add HOST, take HOST, delete, versions, or back VERSION")
			}
		}
	},
}

func (t *target) groups(ctx context.Context, s Streams) error {
	var list []appliance.GroupRow
	if err := t.get(ctx, s, "groups", nil, &list); err != nil || t.json {
		return err
	}
	g := newGrid(s.Out, "GROUP", "HOSTS", "CONDITION", "ACCEPTS", "PACKAGES")
	for _, r := range list {
		var accepts []string
		for _, m := range r.Accepts {
			accepts = append(accepts, string(m))
		}
		g.row(r.Name, strconv.Itoa(r.Hosts), r.Condition.String(), strings.Join(accepts, " "), strings.Join(r.Packages, " "))
	}
	return g.flush()
}

func printGroup(s Streams, g appliance.GroupRow) error {
	fmt.Fprintf(s.Out, "%s, %s, of them %d given one by one. %s\n", g.Name, count(g.Hosts, "host"), len(g.Members), g.Description)
	if !g.Condition.Empty() {
		fmt.Fprintf(s.Out, "Condition: %s\n", g.Condition)
	}
	if len(g.Profiles) > 0 {
		fmt.Fprintf(s.Out, "Settings profiles: %s\n", strings.Join(g.Profiles, ", "))
	}
	_, err := fmt.Fprintf(s.Out, "The hosts: wuamesh hosts --group %s\n", g.Name)
	return err
}

// editMembers gives hosts to a group one by one, or takes them out of it.
func (t *target) editMembers(ctx context.Context, s Streams, name string, add bool, hosts []string) error {
	var ids []agentproto.HostID
	for _, h := range hosts {
		host, err := t.find(ctx, s, h)
		if err != nil {
			return err
		}
		ids = append(ids, host.ID)
	}
	body := api.Members{Add: ids}
	if !add {
		body = api.Members{Drop: ids}
	}
	var g appliance.GroupRow
	if err := t.post(ctx, s, "groups/"+url.PathEscape(name)+"/members", body, &g); err != nil {
		return err
	}
	if t.json {
		return printJSON(s.Out, g)
	}
	return printGroup(s, g)
}

func (t *target) deleteGroup(ctx context.Context, s Streams, name string, dry bool) error {
	path := "groups/" + url.PathEscape(name)
	var i appliance.Impact
	if err := t.call(ctx, s, path+"/deletion", nil, &i); err != nil {
		return err
	}
	if dry {
		return t.printSettingsImpact(s, i)
	}
	return t.done(ctx, s, http.MethodDelete, path, "Deleted. "+i.Summary())
}

// groupBack makes a group what it was, and says what that does to hosts.
func (t *target) groupBack(ctx context.Context, s Streams, name, version string, dry bool) error {
	path := "groups/" + url.PathEscape(name) + "/versions/" + url.PathEscape(version)
	var i appliance.Impact
	if err := t.call(ctx, s, path+"/impact", nil, &i); err != nil {
		return err
	}
	if dry {
		return t.printSettingsImpact(s, i)
	}
	var g appliance.GroupRow
	if err := t.post(ctx, s, path+"/restore", nil, &g); err != nil {
		return err
	}
	if t.json {
		return printJSON(s.Out, g)
	}
	fmt.Fprintln(s.Err, i.Summary())
	return printGroup(s, g)
}

// A groupChange is what the command's flags say.
type groupChange struct {
	condition   appliance.Condition
	description string
	dry         bool
}

// setGroup makes a group or replaces its condition; the rest of it stays.
func (t *target) setGroup(ctx context.Context, s Streams, name string, g groupChange) error {
	path := "groups/" + url.PathEscape(name)
	e, err := t.groupEdit(ctx, s, name)
	if err != nil {
		return err
	}
	e.Condition = &g.condition
	if g.description != "" {
		e.Description = g.description
	}
	var m appliance.Membership
	if err := t.post(ctx, s, path+"/members/preview", e, &m); err != nil {
		return err
	}
	if !g.dry {
		if err := t.send(ctx, s, http.MethodPut, path, e, nil); err != nil {
			return err
		}
	}
	if t.json {
		return printJSON(s.Out, m)
	}
	verb := "are"
	if g.dry {
		verb = "would be"
	}
	fmt.Fprintf(s.Out, "%s %s in %s: %d join, %d leave.\n", count(m.Hosts, "host"), verb, name, m.Joins, m.Leaves)
	for _, h := range m.Members {
		if h.Joins || h.Leaves {
			fmt.Fprintf(s.Out, "%s %s, %s\n", map[bool]string{true: "+", false: "-"}[h.Joins], h.Name, h.OS)
		}
	}
	return nil
}

// groupEdit is the group as it is, or an empty one where there is none.
func (t *target) groupEdit(ctx context.Context, s Streams, name string) (e appliance.GroupEdit, err error) {
	var list []appliance.GroupRow
	if err := t.call(ctx, s, "groups", nil, &list); err != nil {
		return e, err
	}
	for _, g := range list {
		if g.Name == name {
			return g.Edit(), nil
		}
	}
	return e, nil
}
