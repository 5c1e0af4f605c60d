package cli

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"

	"wuamesh/appliance"
)

var importCommand = Command{
	Name: "import-wapt", Summary: "Take over a WAPT server on this machine: its proxy, its cleaning, its waptwua folder",
	Example: "sudo wuamesh import-wapt --dry-run\nsudo wuamesh import-wapt --ini /opt/wapt/conf/waptserver.ini",
	Flags: func(fs *flag.FlagSet) Runner {
		var from appliance.ConfigSource
		fs.StringVar(&from.Path, "config", appliance.ConfigPath, "configuration `file` to write settings into")
		ini := fs.String("ini", "/opt/wapt/conf/waptserver.ini", "configuration `file` of the WAPT server")
		dry := fs.Bool("dry-run", false, "change nothing, only say what would be taken over")
		asJSON := fs.Bool("json", false, "print the report as JSON")
		return func(ctx context.Context, s Streams, args []string) error {
			if len(args) > 0 {
				return usage("it takes no argument")
			}
			cfg, err := from.Load()
			if err != nil {
				return err
			}
			im, err := appliance.ImportWAPT(ctx, *ini, from.Path, cfg, *dry, func(done, of int) {
				if done%100 == 0 || done == of {
					fmt.Fprintf(s.Err, "%d of %d files looked at\n", done, of)
				}
			})
			if err != nil {
				return err
			}
			if *asJSON {
				return printJSON(s.Out, im)
			}
			printImport(s, im, *dry)
			return nil
		}
	},
}

func printImport(s Streams, im appliance.Imported, dry bool) {
	for _, key := range slices.Sorted(maps.Keys(im.Settings)) {
		verb := "set"
		if slices.Contains(im.Kept, key) {
			verb = "left as it is in wuamesh.toml, not"
		}
		value := im.Settings[key]
		if key == "proxy" && strings.Contains(value, "@") {
			value = "(with its password)"
		}
		fmt.Fprintf(s.Out, "%s: %s %s\n", key, verb, value)
	}
	fmt.Fprintf(s.Out, "%s verified, %s, from %s.\n", count(im.Adopted, "file"), size(im.Bytes), im.From)
	for _, l := range []struct {
		names []string
		why   string
	}{{im.Wrong, "not what its name says: left there, fetched again when a host needs it"}, {im.Unknown, "without a digest in its name: left there, not served before the node knows it"}} {
		for i, name := range l.names {
			if i == 10 {
				fmt.Fprintf(s.Out, "  and %d more\n", len(l.names)-i)
				break
			}
			fmt.Fprintf(s.Out, "  %s: %s\n", name, l.why)
		}
	}
	for _, r := range im.Remarks {
		fmt.Fprintln(s.Out, r)
	}
	switch {
	case dry:
		fmt.Fprintln(s.Out, "Nothing was changed.")
	case im.InPlace:
		fmt.Fprintln(s.Out, "The folder is this node's own: nothing moved. Restart the node: systemctl restart wuamesh. Stop WAPT's server first if it holds ports 80 and 443.")
	default:
		fmt.Fprintln(s.Out, "Restart the node to serve them: systemctl restart wuamesh.")
	}
}
