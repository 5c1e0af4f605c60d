// Command wuamesh brings Windows updates to branch offices: one binary that
// fetches what hosts need from Microsoft, serves it to them, and lets admins
// say what may be installed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"wuamesh/appliance"
	"wuamesh/appliance/api"
	"wuamesh/appliance/demo"
	"wuamesh/ui"
	"wuamesh/ui/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, cli.Commands(serveCommand, demoCommand), os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.Getenv})
	stop()
	os.Exit(code)
}

var serveCommand = cli.Command{
	Name: "serve", Summary: "Run the node until it is told to stop",
	Example: "wuamesh serve                                  with /etc/wuamesh/wuamesh.toml\nwuamesh serve --dev                            no root, data in ./wuamesh-data, ports 8443 and 8080\nwuamesh serve --print-config > wuamesh.toml    every key with its default",
	Flags: func(fs *flag.FlagSet) cli.Runner {
		var from appliance.ConfigSource
		fs.StringVar(&from.Path, "config", "", "configuration `file`; default "+appliance.ConfigPath+", where it exists")
		fs.BoolVar(&from.Dev, "dev", false, "defaults that need no root")
		fs.StringVar(&from.Data, "data", "", "`directory` of records and keys, instead of the configuration's")
		show := fs.Bool("print-config", false, "print the configuration that ships, and end")
		return func(ctx context.Context, s cli.Streams, args []string) error {
			if *show {
				_, err := fmt.Fprint(s.Out, appliance.ShippedConfigText())
				return err
			}
			cfg, err := from.Load()
			if err != nil {
				return err
			}
			return serve(ctx, cfg, s)
		}
	},
}

var demoCommand = cli.Command{
	Name: "demo", Summary: "Show it: three nodes, a stand-in for Microsoft and forty hosts in one process",
	Example: "wuamesh demo\nwuamesh demo --for 60s              ends by itself and says what was installed\nwuamesh demo --cut 20s --for 60s    cuts one node off, edits rules on both sides, and shows the merge",
	Flags: func(fs *flag.FlagSet) cli.Runner {
		o := demo.Options{Pages: pages}
		fs.DurationVar(&o.For, "for", 0, "end by itself after this `long`")
		fs.IntVar(&o.Nodes, "nodes", 3, "how many nodes, 1 to 5, each at a site of its own")
		fs.IntVar(&o.Hosts, "hosts", 40, "how many hosts, 1 to 500")
		fs.DurationVar(&o.Cut, "cut", 0, "cut the last node off for so `long`, edit rules on both sides, and show the merge")
		fs.StringVar(&o.Data, "data", "", "`directory` to keep; default one that is removed at the end")
		fs.Uint64Var(&o.Seed, "seed", 1, "same seed, same hosts and updates")
		logs := fs.Bool("log", false, "also print what nodes and agents log")
		return func(ctx context.Context, s cli.Streams, args []string) error {
			o.Out, o.Log = s.Out, slog.New(slog.DiscardHandler)
			if *logs {
				o.Log = slog.New(slog.NewTextHandler(s.Err, nil))
			}
			return demo.Run(ctx, o)
		}
	},
}

// serve opens the node, runs it, and closes it.
func serve(ctx context.Context, cfg appliance.Config, s cli.Streams) (err error) {
	cfg.Level = new(slog.LevelVar)
	log := slog.New(appliance.LogHandler(s.Err, cfg.Level))
	node, err := appliance.Open(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	log.Info("node ready", "url", node.URL(), "folder", node.FolderURL())
	return node.Run(ctx, pages(node, log))
}

// pages is everything people and scripts are served.
func pages(node *appliance.Appliance, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(api.Prefix, api.New(node, log))
	mux.Handle("/", ui.New(node, log))
	return mux
}
