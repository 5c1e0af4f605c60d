package cli

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"net/http"
	"strconv"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/api"
)

var stopCommand = Command{
	Name: "stop", Args: "[UPDATEID]", Summary: "Emergency stop of an update: forbidden on every host at once, its files served by no node",
	Example: "wuamesh stop            lists the stops in force\nwuamesh stop 631fdcea-1c5c-4a6a-9b0e-1d7f8a0c2b11 --dry-run\nwuamesh stop 631fdcea-1c5c-4a6a-9b0e-1d7f8a0c2b11 --reason \"breaks the label printers\"\nwuamesh stop 631fdcea-1c5c-4a6a-9b0e-1d7f8a0c2b11 --undo",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		reason := fs.String("reason", "", "what goes wrong, for whoever asks why the update does not come")
		undo := fs.Bool("undo", false, "end the stop: the rules decide again")
		dry := fs.Bool("dry-run", false, "only say what it would do to hosts")
		return func(ctx context.Context, s Streams, args []string) error {
			if len(args) == 0 {
				return t.stops(ctx, s)
			}
			id, err := rules.ParseUpdateID(args[0])
			switch {
			case len(args) > 1:
				return usage("one update at a time")
			case err != nil:
				return usage("%v; a KB may stand for several, wuamesh updates KB lists them", err)
			case *reason == "" && !*undo && !*dry:
				return usage("say why with --reason")
			}
			return t.stop(ctx, s, "updates/"+string(id)+"/stop", *reason, *undo, *dry)
		}
	},
}

func (t *target) stops(ctx context.Context, s Streams) error {
	var list []appliance.StopRow
	if err := t.get(ctx, s, "stops", nil, &list); err != nil || t.json {
		return err
	}
	if len(list) == 0 {
		fmt.Fprintln(s.Out, "No update is under an emergency stop.")
		return nil
	}
	g := newGrid(s.Out, "UPDATEID", "KB", "HAVE IT", "BY", "AT", "REASON")
	for _, r := range list {
		g.row(string(r.Update.ID), r.Update.KB, strconv.Itoa(r.Installed), r.By, when(r.At, ""), r.Reason)
	}
	return g.flush()
}

// stop stops an update, or ends its stop, and says what that does to hosts.
func (t *target) stop(ctx context.Context, s Streams, path, reason string, undo, dry bool) error {
	var i appliance.Impact
	if err := t.call(ctx, s, path, nil, &i); err != nil {
		return err
	}
	if dry {
		if t.json {
			return printJSON(s.Out, i)
		}
		return printImpact(s, i)
	}
	var u appliance.UpdateDetail
	var err error
	if undo {
		err = t.send(ctx, s, http.MethodDelete, path, nil, &u)
	} else {
		err = t.send(ctx, s, http.MethodPost, path, api.Stop{Reason: reason}, &u)
	}
	switch {
	case err != nil:
		return err
	case t.json:
		return printJSON(s.Out, u)
	case undo:
		fmt.Fprintf(s.Out, "The stop of %s is undone. %s\n", cmp.Or(u.Title, string(u.ID)), i.Summary())
		return nil
	}
	fmt.Fprintf(s.Out, "%s is stopped on every host. %s\n", cmp.Or(u.Title, string(u.ID)), i.Summary())
	if n := u.Stop.Installed; n > 0 {
		fmt.Fprintf(s.Out, "%s it already, where it stays:\n", map[bool]string{true: "1 host has", false: count(n, "host") + " have"}[n == 1])
		for _, h := range u.OnHosts {
			if h.State == rules.OK {
				fmt.Fprintf(s.Out, "  %s\n", cmp.Or(h.HostName, string(h.Host)))
			}
		}
	}
	return nil
}
