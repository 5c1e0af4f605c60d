package main

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/windows"

	"wuamesh/agentproto/agent"
)

// followShutdownScript has Windows show the exit window at shutdown as long as
// install_at_shutdown says so. The service installs at shutdown in any case:
// the script is for whoever sits there.
func followShutdownScript(ctx context.Context, a *agent.Agent, log *slog.Logger) {
	for {
		on := a.InstallsAtShutdown()
		if changed, err := shutdownScript(ctx, on); err != nil {
			log.Info("the local group policy does not take the shutdown script", "err", err)
		} else if changed {
			log.Info("the local group policy runs the exit window at shutdown", "on", on)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Minute):
		}
	}
}

// shutdownScript turns the exit window at shutdown on or off, and says whether
// it was otherwise.
func shutdownScript(ctx context.Context, on bool) (changed bool, err error) {
	exe, err := os.Executable()
	if err != nil {
		return false, err
	}
	dir, err := windows.GetSystemDirectory()
	if err != nil {
		return false, err
	}
	changed, err = localPolicy{filepath.Join(dir, "GroupPolicy")}.setShutdownScript(exe, "exit-window", on)
	if changed && err == nil {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		exec.CommandContext(ctx, filepath.Join(dir, "gpupdate.exe"), "/target:computer", "/wait:0").Run() // or Windows reads it at the next start
	}
	return changed, err
}
