// Command wuamesh-agent is the agent on a Windows host: a small service that
// keeps the host up to date as its mesh wishes, and the commands by which
// people look at it and push it.
//
//	wuamesh-agent install --server https://rns-01.example.com --token wme1.…
//	wuamesh-agent status
//	wuamesh-agent scan | download | install-updates
//
// A command hands its work to the service over a named pipe, so that there is
// one agent on a host and one session with Windows at a time. When no service
// runs, the command does the work itself. What the agent decides and in which
// order it does things is package agent; what is asked of Windows is package
// wua.
package main

import (
	"context"
	"os"
	"os/signal"
)

// Version is the agent's; the build sets it.
var Version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	c := &console{out: os.Stdout, err: os.Stderr, terminal: isTerminal(os.Stderr)}
	os.Exit(c.main(ctx, os.Args[1:]))
}

func isTerminal(f *os.File) bool {
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0
}
