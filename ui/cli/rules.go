package cli

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/api"
)

var rulesCommand = Command{
	Name: "rules", Args: "[NAME [allow|forbid|remove KIND VALUE | promote | ring | merged | versions | back VERSION] | export | import FILE | diff FILE]", Summary: "List rule packages, show one, edit its lines, go back to a version; keep packages, settings profiles and groups in a file",
	Example: "wuamesh rules\nwuamesh rules baseline\nwuamesh rules erp-freeze forbid kb 5091157\nwuamesh rules baseline allow severity Critical --dry-run\nwuamesh rules erp-freeze remove kb 5091157\nwuamesh rules pilots-first promote --reason \"two weeks without a call\"\nwuamesh rules pilots-first ring --days 7 --hosts 5 --percent 5\nwuamesh rules pilots-first ring --pause\nwuamesh rules baseline merged\nwuamesh rules erp-freeze versions\nwuamesh rules erp-freeze back 000001934a7f0000-5b1c22aa --dry-run\nwuamesh rules export > rules.toml\nwuamesh rules export --members > rules.toml\nwuamesh rules diff rules.toml --exit-code\nwuamesh rules import rules.toml\nwuamesh rules import rules.toml --prune --seen 4be1c0ffee5a17e5-0b5e55edba5eba11\nwuamesh rules import waptwua_rules.json --wapt --package from-wapt",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		var f ruleFile
		f.flags(fs)
		reason := fs.String("reason", "", "promote: what shows that it is good for more hosts")
		var ring ringFlags
		ring.flags(fs)
		dry := fs.Bool("dry-run", false, "only say what the edit would do to hosts")
		return func(ctx context.Context, s Streams, args []string) error {
			if len(args) > 0 && fileVerbs[args[0]] {
				return t.ruleFile(ctx, s, args, f, *dry)
			}
			switch len(args) {
			case 0:
				return t.packages(ctx, s)
			case 1:
				var p appliance.PackageDetail
				if err := t.get(ctx, s, "rules/"+args[0], nil, &p); err != nil || t.json {
					return err
				}
				return printPackage(s, p)
			case 2:
				if args[1] == "promote" {
					return t.promote(ctx, s, args[0], *reason, *dry)
				}
				if args[1] == "ring" {
					return t.ring(ctx, s, args[0], ring)
				}
				if args[1] == "merged" {
					return t.merged(ctx, s, args[0])
				}
				if args[1] != "versions" {
					return usage("after NAME comes promote, ring, merged, versions, back VERSION, or VERB KIND VALUE")
				}
				return t.versions(ctx, s, args[0])
			case 3:
				if args[1] != "back" {
					return usage("after NAME comes versions, back VERSION, or VERB KIND VALUE")
				}
				return t.goBack(ctx, s, args[0], args[2], *dry)
			case 4:
				return t.editLine(ctx, s, args[0], args[1:], *dry)
			default:
				return usage("it takes nothing, a NAME, or NAME VERB KIND VALUE")
			}
		}
	},
}

func (t *target) packages(ctx context.Context, s Streams) error {
	var list []appliance.PackageRow
	if err := t.get(ctx, s, "rules", nil, &list); err != nil || t.json {
		return err
	}
	g := newGrid(s.Out, "PACKAGE", "MATURITY", "ALLOWS", "FORBIDS", "HOSTS", "GROUPS", "EDITED", "BY")
	for _, p := range list {
		g.row(p.Name, string(p.Maturity), strconv.Itoa(p.Allows), strconv.Itoa(p.Forbids), strconv.Itoa(p.Reach), strings.Join(p.Groups, " "), when(p.Edited, ""), p.EditedBy)
	}
	return g.flush()
}

func printPackage(s Streams, p appliance.PackageDetail) error {
	fmt.Fprintf(s.Out, "%s, %s, reaches %s. %s\n", p.Name, p.Maturity, count(p.Reach, "host"), p.Description)
	if p.Ring != nil {
		fmt.Fprintf(s.Out, "Promoted by itself %s. %s\n", p.Ring, p.Ring.Text)
	}
	g := newGrid(s.Out, "VERB", "KIND", "VALUE", "MEANS", "UPDATES", "BY", "AT")
	for _, l := range p.Lines {
		g.row(string(l.Verb), string(l.Kind), l.Value, l.Label, strconv.Itoa(l.Hits), l.By, when(l.At, ""))
	}
	return g.flush()
}

// merged prints which other packages the hosts of one get, and what the two
// disagree about.
func (t *target) merged(ctx context.Context, s Streams, name string) error {
	var list []appliance.Merged
	if err := t.get(ctx, s, "rules/"+name+"/merged", nil, &list); err != nil || t.json {
		return err
	}
	g := newGrid(s.Out, "PACKAGE", "MATURITY", "HOSTS", "WINS ON", "LOSES ON")
	for _, m := range list {
		g.row(m.Package, string(m.Maturity), strconv.Itoa(m.Hosts), strconv.Itoa(m.Wins), strconv.Itoa(m.Loses))
	}
	if err := g.flush(); err != nil {
		return err
	}
	g = newGrid(s.Out, "FORBIDDEN BY", "ALLOWED BY", "HOSTS", "KB", "UPDATE")
	n := 0
	for _, m := range list {
		for _, d := range m.Disputed {
			loser := name
			if d.Winner == name {
				loser = m.Package
			}
			n++
			g.row(d.Winner, loser, strconv.Itoa(d.Hosts), kb(d.Update.KB), cmp.Or(d.Update.Title, string(d.Update.ID)))
		}
	}
	if n == 0 {
		return nil
	}
	fmt.Fprintln(s.Out)
	return g.flush()
}

// editLine adds a line or takes it out, and says what that does to hosts.
func (t *target) editLine(ctx context.Context, s Streams, name string, words []string, dry bool) error {
	list, err := parseLines(words[0], words[1], words[2])
	if err != nil {
		return err
	}
	var p appliance.PackageDetail
	if err := t.call(ctx, s, "rules/"+name, nil, &p); err != nil {
		return err
	}
	method, edit := http.MethodPost, p.Edit().With(list...)
	if words[0] == "remove" {
		method, edit = http.MethodDelete, p.Edit().Without(list...)
	}
	var i appliance.Impact
	if err := t.post(ctx, s, "rules/"+name+"/preview", edit, &i); err != nil {
		return err
	}
	if dry {
		if t.json {
			return printJSON(s.Out, i)
		}
		return printImpact(s, i)
	}
	if err := t.send(ctx, s, method, "rules/"+name+"/lines", api.Lines{Lines: list}, &p); err != nil {
		return err
	}
	if t.json {
		return printJSON(s.Out, p)
	}
	fmt.Fprintln(s.Err, i.Summary())
	return printPackage(s, p)
}

// parseLines reads a line; to remove is both of it, the one that allows and
// the one that forbids.
func parseLines(verb, kind, value string) (list []rules.Line, err error) {
	verbs := []string{verb}
	if verb == "remove" {
		verbs = []string{string(rules.Allow), string(rules.Forbid)}
	}
	for _, v := range verbs {
		l, err := rules.ParseLine(v, kind, value)
		if err != nil {
			return nil, usage("%v", err)
		}
		list = append(list, l)
	}
	return list, nil
}

// printImpact prints what an edit would do.
func printImpact(s Streams, i appliance.Impact) error {
	fmt.Fprintln(s.Out, i.Summary())
	for _, c := range i.Clashes {
		fmt.Fprintf(s.Out, "%s wins over %s on %s: it forbids %s that %s allows.\n", c.Winner, c.Loser, count(c.Hosts, "host"), count(len(c.Updates), "update"), c.Loser)
	}
	for _, w := range i.Warnings {
		fmt.Fprintln(s.Out, w)
	}
	if len(i.Changes) == 0 {
		return nil
	}
	g := newGrid(s.Out, "HOSTS", "FROM", "TO", "BY", "SEVERITY", "KB", "UPDATE")
	for _, u := range i.Changes {
		to := string(u.To)
		if u.Stays {
			to += ", stays installed"
		}
		g.row(strconv.Itoa(u.Hosts), string(u.From), to, u.By, string(u.Severity), u.Update.KB, cmp.Or(u.Update.Title, string(u.Update.ID)))
	}
	return g.flush()
}
