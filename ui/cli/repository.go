package cli

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"wuamesh/appliance"
	"wuamesh/appliance/api"
)

var repositoryCommand = Command{
	Name: "repository-rules", Args: "[add|set|move|remove ...]", Summary: "List the rules that choose the node for hosts, add one, change it, move it, remove it",
	Example: "wuamesh repository-rules\nwuamesh repository-rules add --name Brest --subnet 10.2.0.0/16 --to-node brs-01\nwuamesh repository-rules add --name Laptops --host-name 'lap-*' --not-ad-site rennes --to-site brest --no-fallback --dry-run\nwuamesh repository-rules set Brest --name Brest --subnet 10.2.0.0/16,10.3.0.0/16 --to-node brs-01\nwuamesh repository-rules move Brest 1\nwuamesh repository-rules remove Brest",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		e := repositoryFlags(fs)
		dry := fs.Bool("dry-run", false, "only say which hosts the rule would be for")
		return func(ctx context.Context, s Streams, args []string) error {
			switch {
			case len(args) == 0:
				return t.repositoryRules(ctx, s)
			case len(args) == 1 && args[0] == "add":
				return t.putRepositoryRule(ctx, s, "", e(), *dry)
			case len(args) == 2 && args[0] == "set":
				return t.putRepositoryRule(ctx, s, args[1], e(), *dry)
			case len(args) == 3 && args[0] == "move":
				return t.moveRepositoryRule(ctx, s, args[1], args[2])
			case len(args) == 2 && args[0] == "remove":
				rule, err := t.repositoryRule(ctx, s, args[1])
				if err != nil {
					return err
				}
				return t.done(ctx, s, http.MethodDelete, "repository-rules/"+rule.ID, "Removed. Hosts that are connected hear of it at once.")
			}
			return usage("it takes nothing, add, set RULE, move RULE PLACE or remove RULE")
		}
	},
}

// repositoryFlags declares what a rule is made of; each condition has a flag
// that wants it and one that excludes it.
func repositoryFlags(fs *flag.FlagSet) func() appliance.RepositoryRuleEdit {
	var e appliance.RepositoryRuleEdit
	fs.StringVar(&e.Name, "name", "", "what the rule is called")
	fs.StringVar(&e.Node, "to-node", "", "the `node` that it chooses")
	fs.StringVar(&e.Site, "to-site", "", "or the `site` whose nodes it chooses, nearest first")
	fs.BoolVar(&e.NoFallback, "no-fallback", false, "no other node is asked when those are away")
	what := map[appliance.ConditionKind]string{
		appliance.BySubnet: "agents with an address in one of these `networks`, separated by commas", appliance.ByPublicAddress: "agents that call from one of these `networks`",
		appliance.ByDomain: "hosts of one of these Active Directory `domains`", appliance.ByADSite: "hosts at one of these `sites` of Active Directory", appliance.ByHostName: "hosts of one of these `names`; * stands for anything",
	}
	for _, kind := range appliance.ConditionKinds {
		flagName := strings.ReplaceAll(string(kind), "_", "-")
		add := func(not bool) func(string) error {
			return func(v string) error {
				e.Conditions = append(e.Conditions, appliance.RepositoryCondition{Kind: kind, Values: strings.Split(v, ","), Not: not})
				return nil
			}
		}
		fs.Func(flagName, what[kind], add(false))
		fs.Func("not-"+flagName, "not "+what[kind], add(true))
	}
	return func() appliance.RepositoryRuleEdit { return e }
}

func (t *target) repositoryRules(ctx context.Context, s Streams) error {
	var list api.RepositoryRules
	if err := t.get(ctx, s, "repository-rules", nil, &list); err != nil || t.json {
		return err
	}
	return printRepositoryRules(s, list.Rules)
}

func printRepositoryRules(s Streams, list []appliance.RepositoryRule) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(s.Out, "There are no repository rules: every host asks the nearest node.")
		return err
	}
	g := newGrid(s.Out, "PLACE", "RULE", "HOSTS", "BY", "AT", "SAYS")
	for _, r := range list {
		g.row(strconv.Itoa(r.Order), r.Name, strconv.Itoa(r.Hosts), r.By, when(r.At, ""), r.Text)
	}
	if err := g.flush(); err != nil {
		return err
	}
	for _, r := range list {
		if r.Problem != "" {
			fmt.Fprintf(s.Out, "! %s: %s\n", r.Name, r.Problem)
		}
	}
	return nil
}

// repositoryRule finds a rule by its id, its place or its name.
func (t *target) repositoryRule(ctx context.Context, s Streams, word string) (found appliance.RepositoryRule, err error) {
	var list api.RepositoryRules
	if err := t.call(ctx, s, "repository-rules", nil, &list); err != nil {
		return found, err
	}
	n := 0
	for _, r := range list.Rules {
		if r.ID == word {
			return r, nil
		}
		if strings.EqualFold(r.Name, word) || strconv.Itoa(r.Order) == word {
			found = r
			n++
		}
	}
	switch n {
	case 0:
		return found, fmt.Errorf("there is no repository rule %q; wuamesh repository-rules lists them", word)
	case 1:
		return found, nil
	}
	return found, fmt.Errorf("%q may be one of %d rules; wuamesh repository-rules --json has their ids", word, n)
}

// putRepositoryRule adds a rule, or changes the one that word names, and says
// which hosts it is for.
func (t *target) putRepositoryRule(ctx context.Context, s Streams, word string, e appliance.RepositoryRuleEdit, dry bool) error {
	path, method := "repository-rules", http.MethodPost
	if word != "" {
		rule, err := t.repositoryRule(ctx, s, word)
		if err != nil {
			return err
		}
		path, method = path+"/"+rule.ID, http.MethodPut
		if e.Name == "" {
			e.Name = rule.Name
		}
	}
	var v appliance.RepositoryPreview
	if err := t.post(ctx, s, path+"/preview", e, &v); err != nil {
		return err
	}
	if dry {
		if t.json {
			return printJSON(s.Out, v)
		}
		return printRepositoryPreview(s, v)
	}
	var made appliance.RepositoryRule
	if err := t.send(ctx, s, method, path, e, &made); err != nil {
		return err
	}
	if t.json {
		return printJSON(s.Out, made)
	}
	fmt.Fprintln(s.Err, v.Summary())
	_, err := fmt.Fprintf(s.Out, "%d. %s: %s\n", made.Order, made.Name, made.Text)
	return err
}

func printRepositoryPreview(s Streams, v appliance.RepositoryPreview) error {
	fmt.Fprintf(s.Out, "%s\n%s\n", v.Rule.Text, v.Summary())
	if len(v.Hosts) == 0 {
		return nil
	}
	g := newGrid(s.Out, "HOST", "ASKS FIRST NOW", "WOULD ASK FIRST", "AN EARLIER RULE DECIDES")
	for _, h := range v.Hosts {
		g.row(h.Name, h.Now, h.Then, h.Earlier)
	}
	return g.flush()
}

func (t *target) moveRepositoryRule(ctx context.Context, s Streams, word, place string) error {
	order, err := strconv.Atoi(place)
	if err != nil || order < 1 {
		return usage("the place is a number from 1")
	}
	rule, err := t.repositoryRule(ctx, s, word)
	if err != nil {
		return err
	}
	var list api.RepositoryRules
	if err := t.post(ctx, s, "repository-rules/"+rule.ID+"/move", api.Place{Order: order}, &list); err != nil {
		return err
	}
	if t.json {
		return printJSON(s.Out, list)
	}
	return printRepositoryRules(s, list.Rules)
}
