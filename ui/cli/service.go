package cli

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"wuamesh/appliance"
	"wuamesh/appliance/api"
)

var reloadCommand = Command{
	Name: "reload", Summary: "Read the configuration again: checked first, then changed (systemctl reload does it)",
	Example: "wuamesh reload\nsystemctl reload wuamesh",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		return func(ctx context.Context, s Streams, _ []string) error {
			var r appliance.Reloaded
			if err := t.post(ctx, s, "reload", nil, &r); err != nil {
				return err
			}
			if t.json {
				return printJSON(s.Out, r)
			}
			switch {
			case len(r.Changed) > 0:
				fmt.Fprintf(s.Out, "Changed: %s.\n", strings.Join(r.Changed, ", "))
			case len(r.Restart) == 0:
				fmt.Fprintln(s.Out, "The configuration is as it was.")
			}
			if len(r.Restart) > 0 {
				fmt.Fprintf(s.Out, "Waiting for a restart: %s. Run systemctl restart wuamesh.\n", strings.Join(r.Restart, ", "))
			}
			return nil
		}
	},
}

var setupLinkCommand = Command{
	Name: "setup-link", Summary: "Print a fresh link to the setup page, while there is no admin",
	Example: "sudo wuamesh setup-link",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		return func(ctx context.Context, s Streams, _ []string) error {
			var l api.SetupLink
			if err := t.post(ctx, s, "setup-link", nil, &l); err != nil {
				return err
			}
			if t.json {
				return printJSON(s.Out, l)
			}
			fmt.Fprintf(s.Out, "Open this link once, within a day, to make the first admin:\n%s\n", l.URL)
			return nil
		}
	},
}
