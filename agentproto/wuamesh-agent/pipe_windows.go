package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"wuamesh/agentproto/agent"
)

// pipeName is where the service answers commands. Who may open it is the
// whole check: administrators and Windows itself.
const pipeName = `\\.\pipe\wuamesh-agent`

const pipeAdmins = "D:P(A;;GA;;;SY)(A;;GA;;;BA)"

// exitPipeName is where the exit window of whoever sits at the host asks. It
// takes nothing but what a shutdown would do anyway.
const exitPipeName = `\\.\pipe\wuamesh-agent-exit`

const pipeUsers = pipeAdmins + "(A;;GRGW;;;IU)"

func forUsers(name requestName) bool {
	return name == requestExit || name == requestSkip || name == requestShutdown
}

// A pipe is a named pipe on which the service listens.
type pipe struct {
	name string
	sa   *windows.SecurityAttributes
	next windows.Handle // an instance that nobody has opened yet: there is always one
}

// listenPipe makes the pipe. It must be the first of its name: another
// program that made one before would be asked in the service's place.
func listenPipe(name, sddl string) (*pipe, error) {
	sd, err := windows.SecurityDescriptorFromString(sddl)
	if err != nil {
		return nil, err
	}
	p := &pipe{name: name, sa: &windows.SecurityAttributes{SecurityDescriptor: sd}}
	p.sa.Length = uint32(unsafe.Sizeof(*p.sa))
	p.next, err = p.instance(windows.FILE_FLAG_FIRST_PIPE_INSTANCE)
	return p, err
}

func (p *pipe) instance(flags uint32) (windows.Handle, error) {
	name, err := windows.UTF16PtrFromString(p.name)
	if err != nil {
		return 0, err
	}
	h, err := windows.CreateNamedPipe(name, windows.PIPE_ACCESS_DUPLEX|windows.FILE_FLAG_OVERLAPPED|flags,
		windows.PIPE_TYPE_BYTE|windows.PIPE_REJECT_REMOTE_CLIENTS, windows.PIPE_UNLIMITED_INSTANCES, 4096, 4096, 0, p.sa)
	if err != nil {
		return 0, fmt.Errorf("make the pipe %s: %w", p.name, err)
	}
	return h, nil
}

// accept waits until somebody opens the pipe.
func (p *pipe) accept(ctx context.Context) (conn, error) {
	if err := connect(ctx, p.next); err != nil {
		return nil, err
	}
	got := p.next
	next, err := p.instance(0)
	if err != nil {
		windows.CloseHandle(got)
		return nil, err
	}
	p.next = next
	return os.NewFile(uintptr(got), p.name), nil
}

// connect waits for somebody at one instance.
func connect(ctx context.Context, h windows.Handle) error {
	event, err := windows.CreateEvent(nil, 1, 0, nil)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(event)
	o := windows.Overlapped{HEvent: event}
	err = windows.ConnectNamedPipe(h, &o)
	switch {
	case err == nil || errors.Is(err, windows.ERROR_PIPE_CONNECTED):
		return nil
	case !errors.Is(err, windows.ERROR_IO_PENDING):
		return err
	}
	defer context.AfterFunc(ctx, func() { windows.CancelIoEx(h, &o) })()
	var n uint32
	if err := windows.GetOverlappedResult(h, &o, &n, true); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return nil
}

// maxCallers is how many commands are answered at a time; more wait.
const maxCallers = 8

// servePipe answers until ctx ends.
func servePipe(ctx context.Context, a *agent.Agent, p *pipe, log *slog.Logger, allowed func(requestName) bool) {
	var callers sync.WaitGroup
	defer callers.Wait()
	defer func() { windows.CloseHandle(p.next) }()
	room := make(chan struct{}, maxCallers)
	for ctx.Err() == nil {
		c, err := p.accept(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			log.Warn("a command could not reach the service", "err", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			continue
		}
		room <- struct{}{}
		callers.Go(func() {
			defer func() { <-room }()
			if err := serveOne(ctx, a, c, allowed); err != nil {
				log.Debug("a command", "err", err)
			}
		})
	}
}

// dialService opens the service's pipe. The service learns who asks and
// cannot act in their name: the pipe might not be the service's.
func dialService() (conn, error) { return dialPipe(pipeName) }

func dialPipe(path string) (conn, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	const identifyOnly = 0x00100000 | 0x00010000 // SECURITY_SQOS_PRESENT | SECURITY_IDENTIFICATION
	for range 50 {
		h, err := windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_OVERLAPPED|identifyOnly, 0)
		switch {
		case err == nil:
			return os.NewFile(uintptr(h), path), nil
		case errors.Is(err, windows.ERROR_FILE_NOT_FOUND):
			return nil, errNoService
		case errors.Is(err, windows.ERROR_ACCESS_DENIED):
			return nil, errNotAdmin
		case !errors.Is(err, windows.ERROR_PIPE_BUSY):
			return nil, fmt.Errorf("ask the agent's service: %w", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, errors.New("the agent's service is busy; try again in a moment")
}
