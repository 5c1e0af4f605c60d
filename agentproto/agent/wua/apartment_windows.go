package wua

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/go-ole/go-ole"

	"wuamesh/agentproto/agent"
)

// An apartment is the one OS thread on which everything of COM happens: a
// thread that joined the multithreaded apartment and never leaves it. No
// message pump is needed there, and no object is touched by another thread.
type apartment struct {
	jobs chan func()
	done chan struct{}
}

const (
	hrFalse     = 1          // S_FALSE
	hrException = 0x80020009 // DISP_E_EXCEPTION
)

// enterApartment starts the thread.
func enterApartment() (*apartment, error) {
	a := &apartment{jobs: make(chan func()), done: make(chan struct{})}
	ready := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		defer close(a.done)
		// go-ole gives S_FALSE, "this thread is in it already", as an error.
		var oe *ole.OleError
		if err := ole.CoInitializeEx(0, ole.COINIT_MULTITHREADED); err != nil && !(errors.As(err, &oe) && oe.Code() == hrFalse) {
			ready <- windowsError("CoInitializeEx", err)
			return
		}
		defer ole.CoUninitialize()
		ready <- nil
		for job := range a.jobs {
			job()
		}
	}()
	if err := <-ready; err != nil {
		return nil, err
	}
	return a, nil
}

// leave ends the thread. Nothing may be running on it.
func (a *apartment) leave() {
	close(a.jobs)
	<-a.done
}

// do runs f on the thread. A call into Windows cannot be interrupted, so the
// context is looked at before f begins, not during it.
func (a *apartment) do(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	result := make(chan error, 1)
	select {
	case a.jobs <- func() { result <- guarded(f) }:
		return <-result
	case <-ctx.Done():
		return ctx.Err()
	}
}

// guarded turns a panic into an error: go-ole panics about types it cannot
// put into a VARIANT, and one odd answer of Windows must not end the service.
func guarded(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("in a call to Windows: %v\n%s", r, debug.Stack())
		}
	}()
	return f()
}

// windowsError keeps the true HRESULT: a dispatcher answers DISP_E_EXCEPTION
// and has the code of what failed in EXCEPINFO.
func windowsError(call string, err error) error {
	if err == nil {
		return nil
	}
	var oe *ole.OleError
	if !errors.As(err, &oe) {
		return fmt.Errorf("%s: %w", call, err)
	}
	code := uint32(oe.Code())
	if info, ok := oe.SubError().(ole.EXCEPINFO); ok && code == hrException {
		switch {
		case info.SCODE() != 0:
			code = info.SCODE()
		case info.WCode() != 0:
			code = 0x80040000 | uint32(info.WCode()) // FACILITY_ITF
		}
	}
	return fail(call, code)
}

// codeOf returns the HRESULT of a refused call, or 0.
func codeOf(err error) uint32 {
	var e *agent.WindowsError
	if errors.As(err, &e) {
		return e.HResult
	}
	return 0
}
