package cli

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"wuamesh/appliance"
	"wuamesh/appliance/api"
)

var adminCommand = Command{
	Name: "admin", Args: "[NAME [set|password|delete|sessions|logout [SESSION]]]", Summary: "List who may log in, make or change an admin, give one a new password, end sessions",
	Example: "wuamesh admin\nwuamesh admin paul set --role operator     makes paul, or changes the role\nwuamesh admin maelle password            a forgotten one; on the node itself no login is needed\nwuamesh admin paul delete\nwuamesh admin paul sessions              where paul is logged in on this node\nwuamesh admin paul logout                ends them; with a SESSION only that one",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		role := fs.String("role", "", "`role`: viewer sees everything, operator triggers hosts and downloads, owner edits rules, admins and tokens")
		return func(ctx context.Context, s Streams, args []string) error {
			var list api.Admins
			if err := t.call(ctx, s, "admins", nil, &list); err != nil {
				return err
			}
			if len(args) == 0 {
				return t.admins(s, list.Admins)
			}
			if len(args) > 3 || len(args) == 3 && args[1] != "logout" {
				return usage(adminUsage)
			}
			path := "admins/" + url.PathEscape(args[0])
			i := slices.IndexFunc(list.Admins, func(a appliance.AdminRow) bool { return a.Name == args[0] })
			switch what := slices.Concat(args[1:], []string{""})[0]; {
			case what == "set" && *role == "":
				return usage("name a role: --role viewer, operator or owner")
			case what == "set":
				return t.setAdmin(ctx, s, path, api.AdminEdit{Role: appliance.Role(*role)}, i < 0)
			case what != "" && !slices.Contains([]string{"password", "delete", "sessions", "logout"}, what):
				return usage(adminUsage)
			case i < 0:
				return fmt.Errorf("there is no admin %s; \"wuamesh admin %s set --role viewer\" makes one", args[0], args[0])
			case what == "password":
				return t.setAdmin(ctx, s, path, api.AdminEdit{Role: list.Admins[i].Role}, true)
			case what == "sessions":
				return t.sessions(ctx, s, args[0])
			case what == "logout":
				return t.endSessions(ctx, s, args[0], args[2:])
			case what == "delete":
				if err := t.send(ctx, s, http.MethodDelete, path, nil, nil); err != nil || t.json {
					return err
				}
				fmt.Fprintf(s.Out, "%s cannot log in any more.\n", args[0])
				return nil
			}
			return t.admins(s, list.Admins[i:i+1])
		}
	},
}

const adminUsage = "it takes nothing, a NAME, or NAME set, password, delete, sessions or logout"

// sessions prints where an admin is logged in on the node.
func (t *target) sessions(ctx context.Context, s Streams, name string) error {
	list, err := t.sessionsOf(ctx, s, name)
	if err != nil {
		return err
	}
	if t.json {
		return printJSON(s.Out, list)
	}
	g := newGrid(s.Out, "SESSION", "FROM", "SINCE", "LAST SEEN", "ENDS")
	for _, v := range list {
		g.row(v.ID, v.Address, when(v.Created, ""), when(v.Seen, ""), when(v.Ends, ""))
	}
	return g.flush()
}

func (t *target) sessionsOf(ctx context.Context, s Streams, name string) ([]appliance.SessionRow, error) {
	var all api.Sessions
	if err := t.call(ctx, s, "sessions", nil, &all); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all.Sessions, func(v appliance.SessionRow) bool { return v.Admin != name }), nil
}

// endSessions ends those of an admin, or the one that is named.
func (t *target) endSessions(ctx context.Context, s Streams, name string, one []string) error {
	path := "sessions?admin=" + url.QueryEscape(name)
	if len(one) > 0 {
		list, err := t.sessionsOf(ctx, s, name)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(list, func(v appliance.SessionRow) bool { return v.ID == one[0] }) {
			return fmt.Errorf("%s has no session %s on this node; \"wuamesh admin %s sessions\" lists them", name, one[0], name)
		}
		path = "sessions/" + url.PathEscape(one[0])
	}
	var e api.Ended
	if err := t.send(ctx, s, http.MethodDelete, path, nil, &e); err != nil {
		return err
	}
	if t.json {
		return printJSON(s.Out, e)
	}
	fmt.Fprintf(s.Out, "%s of %s ended on this node.\n", count(e.Ended, "session"), name)
	return nil
}

func (t *target) admins(s Streams, list []appliance.AdminRow) error {
	if t.json {
		return printJSON(s.Out, list)
	}
	g := newGrid(s.Out, "NAME", "ROLE", "SINCE")
	for _, a := range list {
		g.row(a.Name, string(a.Role), when(a.Created, ""))
	}
	return g.flush()
}

// setAdmin makes or changes an admin, with a password made up here that is
// printed once, if fresh: one typed would stay in the shell's history.
func (t *target) setAdmin(ctx context.Context, s Streams, path string, e api.AdminEdit, fresh bool) error {
	if fresh {
		e.Password = rand.Text()
	}
	var list api.Admins
	if err := t.send(ctx, s, http.MethodPut, path, e, &list); err != nil {
		return err
	}
	if t.json {
		return printJSON(s.Out, e)
	}
	if fresh {
		fmt.Fprintf(s.Out, "Password, shown this once: %s\nIt is changed on the page Admins and tokens.\n", e.Password)
	} else {
		fmt.Fprintf(s.Out, "The role is %s now.\n", e.Role)
	}
	return nil
}
