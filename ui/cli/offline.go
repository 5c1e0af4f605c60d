package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"wuamesh/appliance"
	"wuamesh/appliance/api"
)

// onNode runs fn with a node that answers: the one that flags name or that
// runs on this machine. Where none runs it opens the data directory itself for
// as long as fn takes, so that nobody has to start things in an order.
func (t *target) onNode(ctx context.Context, s Streams, fn func() error) error {
	if t.node != "" || s.Env("WUAMESH_NODE") != "" {
		return fn()
	}
	if _, err := t.console(); !errors.Is(err, errNoNode) {
		return fn() // it explains what keeps it from being read
	}
	cfg, err := appliance.ConfigSource{Path: t.config, Data: t.data}.Load()
	if err != nil {
		return err
	}
	// Whoever calls this node calls the one that runs later.
	cfg.ListenHTTPS, cfg.ListenHTTP, cfg.Internet, cfg.LogLevel = "127.0.0.1:0", "127.0.0.1:0", false, "error"
	log := slog.New(slog.NewTextHandler(s.Err, &slog.HandlerOptions{Level: slog.LevelError}))
	node, err := appliance.Open(cfg, log)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.Err, "No node runs on this machine; working on its data in %s.\n", cfg.Data)
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- node.Run(running, api.New(node, log)) }()
	t.data = cfg.Data // where it leaves its console file
	if err = t.awaitConsole(ctx); err == nil {
		err = fn()
	}
	stop()
	err = errors.Join(err, <-ended, node.Close())
	if err == nil {
		err = appliance.KeepOwner(cfg.Data)
	}
	if err == nil && !t.json {
		fmt.Fprintln(s.Err, "Start the node now: systemctl start wuamesh, or wuamesh serve.")
	}
	return err
}

// awaitConsole waits until the node that was started here can be asked.
func (t *target) awaitConsole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		if _, err := t.console(); !errors.Is(err, errNoNode) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.New("the node on this machine did not start")
		case <-time.After(20 * time.Millisecond):
		}
	}
}
