package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"

	"wuamesh/appliance"
)

var doctorCommand = Command{
	Name: "doctor", Summary: "Check what the node needs: Microsoft, proxy, clock, folder, disk, ports, other nodes",
	Example: "sudo wuamesh doctor\nwuamesh doctor --json | jq '.[] | select(.result == \"failed\")'",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		t.configFlag(fs)
		return func(ctx context.Context, s Streams, _ []string) error {
			var list []appliance.Check
			err := t.call(ctx, s, "check", nil, &list)
			if errors.Is(err, errNoNode) {
				list, err = checkHere(ctx, appliance.ConfigSource{Path: t.config, Data: t.data})
			}
			if err != nil {
				return err
			}
			if t.json {
				return printJSON(s.Out, list)
			}
			return printChecks(s, list)
		}
	},
}

// checkHere checks where no node runs, which is the first finding.
func checkHere(ctx context.Context, from appliance.ConfigSource) ([]appliance.Check, error) {
	cfg, err := from.Load()
	if err != nil {
		return nil, err
	}
	list, err := appliance.CheckMachine(ctx, cfg, slog.New(slog.DiscardHandler))
	down := appliance.Check{Name: "service", Result: appliance.CheckFailed, Text: "No node runs on this machine; the rest is checked as this user.", Hint: "systemctl start wuamesh; journalctl -u wuamesh says why it ended."}
	return append([]appliance.Check{down}, list...), err
}

func printChecks(s Streams, list []appliance.Check) error {
	failed := 0
	for _, c := range list {
		mark := map[appliance.CheckResult]string{appliance.CheckOK: "✓", appliance.CheckWarning: "!", appliance.CheckFailed: "✗", appliance.CheckSkipped: "-"}[c.Result]
		fmt.Fprintf(s.Out, "%s %-17s %s\n", mark, c.Name, c.Text)
		if c.Hint != "" {
			fmt.Fprintf(s.Out, "  %-17s %s\n", "", c.Hint)
		}
		if c.Result == appliance.CheckFailed {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%s failed", count(failed, "check"))
	}
	return nil
}
