package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"wuamesh/agentproto/agent"
)

// A local is the agent of this host, opened in this process.
type local struct {
	*agent.Agent
	held []io.Closer // in the order they were opened
}

// openLocal opens the agent. There is one at a time: the directory is locked
// until close, or until the process ends in whatever way.
func openLocal(o options, log *slog.Logger) (l *local, err error) {
	l = &local{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return l, fmt.Errorf("make the agent's directory: %w", err)
	}
	if err := protect(o.dir); err != nil {
		return l, fmt.Errorf("keep others out of %s: %w", o.dir, err)
	}
	lock, err := lockDir(o.dir)
	if err != nil {
		return l, err
	}
	l.held = append(l.held, lock)
	host, err := openHost()
	if err != nil {
		return l, err
	}
	l.held = append(l.held, host)
	l.Agent, err = agent.Open(agent.Options{Dir: o.dir, INI: o.ini, Machine: host, Version: Version, Log: log})
	if err != nil {
		return l, err
	}
	l.held = append(l.held, l.Agent)
	return l, nil
}

// close gives everything back, the last opened first.
func (l *local) close() error {
	var errs []error
	for len(l.held) > 0 {
		last := len(l.held) - 1
		errs = append(errs, l.held[last].Close())
		l.held = l.held[:last]
	}
	return errors.Join(errs...)
}

// A host is the Windows that the agent runs on.
type host interface {
	agent.Machine
	io.Closer
}
