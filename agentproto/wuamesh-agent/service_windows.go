package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"

	"wuamesh/agentproto/agent"
)

// serviceName is the service's, and its source in the Application log.
const serviceName = "wuamesh-agent"

func runFlags(fs *flag.FlagSet) runner {
	here := fs.Bool("console", false, "run here until Ctrl+C, with the log on this terminal")
	return func(ctx context.Context, c *console, o options, args []string) error {
		if *here {
			return serve(ctx, o, slog.New(slog.NewTextHandler(c.err, nil)), nil)
		}
		// What starts a service is told by an argument: svc.IsWindowsService
		// guesses, and guesses wrong under Wine.
		err := svc.Run(serviceName, &service{o: o})
		if errors.Is(err, windows.ERROR_FAILED_SERVICE_CONTROLLER_CONNECT) {
			return errors.New("run is what the service manager starts; use sc start wuamesh-agent, or run --console")
		}
		return err
	}
}

// serve runs the agent and answers commands until ctx ends. ready, which may
// be nil, is called once the agent is open.
func serve(ctx context.Context, o options, log *slog.Logger, ready func(*agent.Agent)) (err error) {
	l, err := openLocal(o, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	p, err := listenPipe(pipeName, pipeAdmins)
	if err != nil {
		return err
	}
	users, err := listenPipe(exitPipeName, pipeUsers)
	if err != nil {
		return err
	}
	if ready != nil {
		ready(l.Agent)
	}
	log.Info("the agent runs", "version", Version, "path", o.dir, "ini", o.ini)
	ctx, stop := context.WithCancel(ctx)
	var answering sync.WaitGroup
	answering.Go(func() { servePipe(ctx, l.Agent, p, log, func(requestName) bool { return true }) })
	answering.Go(func() { servePipe(ctx, l.Agent, users, log, forUsers) })
	err = l.Run(ctx)
	stop()
	answering.Wait()
	log.Info("the agent stopped", "err", err)
	return err
}

// asAtShutdown is a control of our own, for an administrator's script and for
// tests: only a real shutdown sends the real one. "sc control wuamesh-agent
// 200" has the service install as at a shutdown, and stop.
const asAtShutdown = svc.Cmd(200)

// preshutdownTime is what we ask of the service manager for installs while
// Windows goes down; it waits no longer than we need.
const preshutdownTime = time.Hour

// A service is the agent as the service manager sees it.
type service struct{ o options }

// Execute implements [svc.Handler].
func (s *service) Execute(_ []string, requests <-chan svc.ChangeRequest, status chan<- svc.Status) (bool, uint32) {
	const failed = 1 // of our own: any but 0 has the service manager start us again
	status <- svc.Status{State: svc.StartPending, WaitHint: 30_000}
	log, closeLog := s.log()
	defer closeLog()
	applyServiceSettings(log)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	opened := make(chan *agent.Agent, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- serve(ctx, s.o, log, func(a *agent.Agent) {
			opened <- a
			go followShutdownScript(ctx, a, log)
		})
	}()
	var a *agent.Agent
	for {
		select {
		case a = <-opened:
			status <- svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptPreShutdown}
		case err := <-ended:
			log.Error("the agent ended", "err", err)
			event(func(l *eventlog.Log) error { return l.Error(1, fmt.Sprintf("The agent ended: %v", err)) })
			return true, failed
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				status <- r.CurrentStatus
			case svc.PreShutdown, asAtShutdown:
				go func() {
					defer stop()
					if a == nil {
						return
					}
					text, err := a.AtShutdown(ctx)
					log.Info("at shutdown", "text", text, "err", err)
				}()
				finish(ended, requests, status)
				return false, 0
			case svc.Stop:
				stop()
				finish(ended, requests, status)
				return false, 0
			}
		}
	}
}

// finish waits for done with the service in StopPending. The checkpoint grows
// so that the service manager sees that something happens, and requests are
// read all the time: the dispatcher stands still when nobody does.
func finish[T any](done <-chan T, requests <-chan svc.ChangeRequest, status chan<- svc.Status) {
	now := svc.Status{State: svc.StopPending, WaitHint: 20_000}
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		now.CheckPoint++
		status <- now
		select {
		case <-done:
			return
		case <-tick.C:
		case <-requests:
		}
	}
}

// log is a file in the state directory; without one the service runs all the
// same.
func (s *service) log() (*slog.Logger, func()) {
	if err := os.MkdirAll(s.o.dir, 0o700); err == nil {
		if f, err := openLog(filepath.Join(s.o.dir, "agent.log")); err == nil {
			return slog.New(slog.NewTextHandler(f, nil)), func() { f.Close() }
		}
	}
	return slog.New(slog.DiscardHandler), func() {}
}

// event writes to the Application log, if that is possible.
func event(write func(*eventlog.Log) error) {
	if l, err := eventlog.Open(serviceName); err == nil {
		write(l)
		l.Close()
	}
}

func installFlags(fs *flag.FlagSet) runner {
	set := settingsFlags(fs)
	return func(ctx context.Context, c *console, o options, args []string) error {
		if len(args) > 0 {
			return usage("it takes no %q", args[0])
		}
		if err := prepare(o, set); err != nil {
			return err
		}
		if err := installService(o); err != nil {
			return err
		}
		return c.done("The service wuamesh-agent is installed and runs. wuamesh-agent status says what it does.")
	}
}

// prepare makes the directory of state and settings, which nobody else may
// look into, and writes the settings.
func prepare(o options, set func(ini string) error) error {
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	ours := o.dir
	if dir, _ := places(); o.dir == dir {
		ours = filepath.Dir(dir) // the token is in wapt-get.ini, beside the state
	}
	if err := protect(ours); err != nil {
		return fmt.Errorf("keep others out of %s: %w", ours, err)
	}
	return set(o.ini)
}

// configureFlags is what the MSI runs before it starts the service.
func configureFlags(fs *flag.FlagSet) runner {
	set := settingsFlags(fs)
	return func(ctx context.Context, c *console, o options, args []string) error {
		eventlog.InstallAsEventCreate(serviceName, eventlog.Error|eventlog.Warning|eventlog.Info) // there may be one
		if err := prepare(o, set); err != nil {
			event(func(l *eventlog.Log) error {
				return l.Error(2, fmt.Sprintf("The installer's settings were refused: %v", err))
			})
			return err
		}
		return c.done("The settings are in " + o.ini + ".")
	}
}

// giveBackFlags is what the MSI runs when the agent is removed.
func giveBackFlags(*flag.FlagSet) runner {
	return func(ctx context.Context, c *console, o options, args []string) error {
		if err := giveBack(ctx, o, c.log()); err != nil {
			return err
		}
		return c.done("Windows Update is as it was before.")
	}
}

// installService makes the service, or brings one that is there up to date,
// and starts it.
func installService(o options) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	m, err := mgr.Connect()
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return errNotAdmin
	}
	if err != nil {
		return fmt.Errorf("open the service manager: %w", err)
	}
	defer m.Disconnect()
	args := []string{"run"}
	if dir, ini := places(); o.dir != dir || o.ini != ini {
		args = append(args, "--dir", o.dir, "--ini", o.ini)
	}
	s, err := m.OpenService(serviceName)
	if err != nil {
		s, err = m.CreateService(serviceName, exe, mgr.Config{
			DisplayName: "wuamesh agent", Description: "Scans and installs Windows updates as the branch's wuamesh node says.",
			StartType: mgr.StartAutomatic, Dependencies: []string{"RpcSs"},
		}, args...)
	} else {
		err = setImagePath(s, mgr.StartAutomatic, exe, args)
	}
	if err != nil {
		return fmt.Errorf("install the service: %w", err)
	}
	defer s.Close()
	eventlog.InstallAsEventCreate(serviceName, eventlog.Error|eventlog.Warning|eventlog.Info) // there may be one
	if err := s.Start(); err != nil && !errors.Is(err, windows.ERROR_SERVICE_ALREADY_RUNNING) {
		return fmt.Errorf("start the service: %w", err)
	}
	return awaitState(s, svc.Running)
}

// setImagePath says what the service manager starts. A path with spaces must
// be in quotes: without them Windows would try C:\Program.exe first.
func setImagePath(s *mgr.Service, start uint32, exe string, args []string) error {
	line := windows.ComposeCommandLine(append([]string{exe}, args...))
	p, err := windows.UTF16PtrFromString(line)
	if err != nil {
		return err
	}
	const keep = windows.SERVICE_NO_CHANGE
	return windows.ChangeServiceConfig(s.Handle, keep, start, keep, p, nil, nil, nil, nil, nil, nil)
}

// awaitState waits until a service is in a state, a minute at most.
func awaitState(s *mgr.Service, want svc.State) error {
	for range 600 {
		st, err := s.Query()
		if err != nil {
			return err
		}
		if st.State == want {
			return nil
		}
		if want == svc.Running && st.State == svc.Stopped {
			return errors.New("the service ended at once: agent.log in the agent's directory says why")
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("the service did not do so within a minute: agent.log in the agent's directory says what it is at")
}

// applyServiceSettings sets what the service manager should know of us. An
// MSI cannot say all of it, and a person may have changed it, so it is done at
// every start; what this Windows does not know is left.
func applyServiceSettings(log *slog.Logger) {
	m, err := mgr.Connect()
	if err != nil {
		return
	}
	defer m.Disconnect()
	s, err := m.OpenService(serviceName)
	if err != nil {
		return
	}
	defer s.Close()
	exe, err := os.Executable()
	if err == nil {
		err = setImagePath(s, windows.SERVICE_NO_CHANGE, exe, os.Args[1:])
	}
	for what, err := range map[string]error{
		"quoted path": err,
		"restart after a crash": s.SetRecoveryActions([]mgr.RecoveryAction{
			{Type: mgr.ServiceRestart, Delay: 5 * time.Second}, {Type: mgr.ServiceRestart, Delay: time.Minute}, {Type: mgr.ServiceRestart, Delay: 15 * time.Minute},
		}, 86400),
		"restart after an error": s.SetRecoveryActionsOnNonCrashFailures(true),
		"time at shutdown":       configDWORD(s, windows.SERVICE_CONFIG_PRESHUTDOWN_INFO, uint32(preshutdownTime/time.Millisecond)),
		"first at shutdown":      goDownFirst(),
		"delayed start":          configDWORD(s, windows.SERVICE_CONFIG_DELAYED_AUTO_START_INFO, 1),
	} {
		if err != nil {
			log.Info("the service manager does not take a setting", "setting", what, "err", err)
		}
	}
}

// configDWORD sets one of the settings whose structure is a single DWORD.
func configDWORD(s *mgr.Service, level, value uint32) error {
	return windows.ChangeServiceConfig2(s.Handle, level, (*byte)(unsafe.Pointer(&value)))
}

// goDownFirst has Windows ask this service before those that installs need:
// services in PreshutdownOrder are told first, in that order.
func goDownFirst() error {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, `SYSTEM\CurrentControlSet\Control`, registry.QUERY_VALUE|registry.SET_VALUE)
	if err != nil {
		return err
	}
	defer k.Close()
	order, _, err := k.GetStringsValue("PreshutdownOrder")
	if err != nil && !errors.Is(err, registry.ErrNotExist) {
		return err
	}
	if len(order) > 0 && order[0] == serviceName {
		return nil
	}
	order = slices.DeleteFunc(order, func(name string) bool { return name == serviceName })
	return k.SetStringsValue("PreshutdownOrder", append([]string{serviceName}, order...))
}

// noLongerFirst takes back what goDownFirst did.
func noLongerFirst() error {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, `SYSTEM\CurrentControlSet\Control`, registry.QUERY_VALUE|registry.SET_VALUE)
	if err != nil {
		return err
	}
	defer k.Close()
	order, _, err := k.GetStringsValue("PreshutdownOrder")
	if err != nil || !slices.Contains(order, serviceName) {
		return nil // none of ours
	}
	if order = slices.DeleteFunc(order, func(name string) bool { return name == serviceName }); len(order) == 0 {
		return k.DeleteValue("PreshutdownOrder")
	}
	return k.SetStringsValue("PreshutdownOrder", order)
}

func uninstallFlags(*flag.FlagSet) runner {
	return func(ctx context.Context, c *console, o options, args []string) error {
		if len(args) > 0 {
			return usage("it takes no %q", args[0])
		}
		if err := removeService(); err != nil {
			return err
		}
		if err := giveBack(ctx, o, c.log()); err != nil {
			return err
		}
		return c.done("The service is removed, and Windows Update is as it was before. State and downloads are still in " + o.dir + ".")
	}
}

// removeService stops and removes the service; none is as good.
func removeService() error {
	m, err := mgr.Connect()
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return errNotAdmin
	}
	if err != nil {
		return fmt.Errorf("open the service manager: %w", err)
	}
	defer m.Disconnect()
	s, err := m.OpenService(serviceName)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the service: %w", err)
	}
	defer s.Close()
	if st, err := s.Query(); err == nil && st.State != svc.Stopped {
		if _, err := s.Control(svc.Stop); err == nil {
			if err := awaitState(s, svc.Stopped); err != nil {
				return fmt.Errorf("stop the service: %w", err)
			}
		}
	}
	if err := s.Delete(); err != nil {
		return fmt.Errorf("remove the service: %w", err)
	}
	eventlog.Remove(serviceName) // what is left of it does no harm
	return nil
}

// giveBack has Windows update itself again.
func giveBack(ctx context.Context, o options, log *slog.Logger) error {
	l, err := openLocal(o, log)
	if err != nil {
		return err
	}
	_, err = shutdownScript(ctx, false)
	return errors.Join(l.GiveBack(ctx), l.close(), noLongerFirst(), err)
}
