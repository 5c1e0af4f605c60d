package wua

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"

	"wuamesh/agentproto/agent"
)

// updateService is the Windows Update service.
const updateService = "wuauserv"

// servicePatience is how long it may take to start or to stop. It stops
// slowly while a scan unwinds.
const servicePatience = 30 * time.Second

// Service implements [agent.Machine].
func (h *Host) Service(ctx context.Context, mode agent.ServiceMode) error {
	m, err := mgr.Connect()
	if err != nil {
		return win32("OpenSCManager", err)
	}
	defer m.Disconnect()
	s, err := m.OpenService(updateService)
	if err != nil {
		return win32("OpenService", err)
	}
	defer s.Close()
	switch mode {
	case agent.ServiceOn:
		if err := setStart(s, mgr.StartManual); err != nil {
			return err
		}
		return start(ctx, s)
	case agent.ServiceOff:
		// Disabled comes first: nobody can start it again while it stops. One
		// that does not stop in time is disabled all the same.
		return errors.Join(setStart(s, mgr.StartDisabled), stop(ctx, s))
	case agent.ServiceGiven:
		return setStart(s, mgr.StartManual) // as Windows 10 and 11 have it; a trigger starts it
	}
	return fmt.Errorf("no mode of the Windows Update service: %q", mode)
}

// setStart changes how the service starts and nothing else; mgr.UpdateConfig
// would write back everything it read.
func setStart(s *mgr.Service, start uint32) error {
	if now, err := startType(s.Handle); err == nil && now == start {
		return nil
	}
	const keep = windows.SERVICE_NO_CHANGE
	return win32("ChangeServiceConfig", windows.ChangeServiceConfig(s.Handle, keep, start, keep, nil, nil, nil, nil, nil, nil, nil))
}

func startType(h windows.Handle) (uint32, error) {
	for size := uint32(1024); ; {
		b := make([]uint64, size/8+1) // aligned for pointers
		c := (*windows.QUERY_SERVICE_CONFIG)(ptr(b))
		err := windows.QueryServiceConfig(h, c, uint32(len(b)*8), &size)
		if errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) && int(size) > len(b)*8 {
			continue
		}
		return c.StartType, err
	}
}

func start(ctx context.Context, s *mgr.Service) error {
	if err := s.Start(); err != nil && !errors.Is(err, windows.ERROR_SERVICE_ALREADY_RUNNING) {
		return win32("StartService", err)
	}
	return await(ctx, s, svc.Running)
}

func stop(ctx context.Context, s *mgr.Service) error {
	if st, err := s.Query(); err == nil && st.State == svc.Stopped {
		return nil
	}
	_, err := s.Control(svc.Stop)
	if errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
		return nil
	}
	if err != nil && !errors.Is(err, windows.ERROR_SERVICE_CANNOT_ACCEPT_CTRL) { // it is stopping already
		return win32("ControlService", err)
	}
	return await(ctx, s, svc.Stopped)
}

// await waits until the service is in a state.
func await(ctx context.Context, s *mgr.Service, want svc.State) error {
	ctx, cancel := context.WithTimeout(ctx, servicePatience)
	defer cancel()
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		st, err := s.Query()
		if err != nil {
			return win32("QueryServiceStatus", err)
		}
		if st.State == want {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			names := map[svc.State]string{svc.Running: "running", svc.Stopped: "stopped"}
			return fmt.Errorf("the service %s is not %s after %s: %w", updateService, names[want], servicePatience, ctx.Err())
		}
	}
}

// serviceState says whether the service runs: "running", "stopped" or
// "disabled"; empty when it cannot be told.
func serviceState() string {
	m, err := windows.OpenSCManager(nil, nil, windows.SC_MANAGER_CONNECT)
	if err != nil {
		return ""
	}
	defer windows.CloseServiceHandle(m)
	name, _ := windows.UTF16PtrFromString(updateService)
	s, err := windows.OpenService(m, name, windows.SERVICE_QUERY_STATUS|windows.SERVICE_QUERY_CONFIG)
	if err != nil {
		return ""
	}
	defer windows.CloseServiceHandle(s)
	var st windows.SERVICE_STATUS
	if windows.QueryServiceStatus(s, &st) == nil && st.CurrentState != windows.SERVICE_STOPPED {
		return "running"
	}
	if start, err := startType(s); err == nil && start == mgr.StartDisabled {
		return "disabled"
	}
	return "stopped"
}

// win32 makes an HRESULT of an error of Windows' older functions
// (HRESULT_FROM_WIN32).
func win32(call string, err error) error {
	var code syscall.Errno
	if err == nil || !errors.As(err, &code) {
		return err
	}
	return fail(call, 0x80070000|uint32(code)&0xFFFF)
}
