package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// errDisabled is why an order is refused on a host whose Windows Update was
// given back to Windows.
var errDisabled = errors.New("updates are not managed on this host: enabled is False in [waptwua]")

// serviceEvery is how often the Windows Update service is put back to where
// it should be: other parts of Windows start it on their own (DESIGN.md).
const serviceEvery = time.Hour

// manages says whether the agent scans and installs. A host that says nothing
// about enabled is scanned, but its Windows Update service is left alone.
func (a *Agent) manages() bool {
	p, _ := a.policy()
	return p.Settings.Enabled == nil || *p.Settings.Enabled
}

// atRest is how the service should be while no pass needs it.
func (a *Agent) atRest() ServiceMode {
	p, _ := a.policy()
	switch on := p.Settings.Enabled; {
	case on == nil:
		return serviceUnseen
	case *on:
		return ServiceOff
	default:
		return ServiceGiven
	}
}

// serviceAtRest puts the service to where it should be. It does so also when
// ctx has ended: the agent is being stopped then, and must not leave the
// service running.
func (a *Agent) serviceAtRest(ctx context.Context) {
	mode := a.atRest()
	if mode == serviceUnseen {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err := a.machine.Service(ctx, mode)
	if err != nil {
		err = fmt.Errorf("set the Windows Update service %s: %w", mode, err)
		a.log.WarnContext(ctx, "windows update service", "err", err)
	}
	a.warn("service", err)
}

// session opens Windows for one pass, hands it to fn, and closes it again,
// service and all, however fn ends. The turn of windows must be the caller's.
func (a *Agent) session(ctx context.Context, cab string, fn func(Session) error) (err error) {
	p, _ := a.policy()
	w := wanted{name: cabName(cab), sha256: cab}
	path, err := a.cabs.verify(w)
	if err != nil {
		// It was good when it came. Windows would only say that it is not.
		a.note(func(s *state) { s.Cab = "" })
		a.hurryUp()
		return fmt.Errorf("scan cab: %w", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return fmt.Errorf("scan cab: %w", err)
	}
	defer a.serviceAtRest(ctx)
	if a.atRest() == ServiceOff {
		if err := a.machine.Service(ctx, ServiceOn); err != nil {
			return fmt.Errorf("start the Windows Update service: %w", err)
		}
	}
	s, err := a.machine.Open(ctx, Query{Cab: path, Criteria: p.Settings.Filter, Superseded: p.Settings.IncludeSuperseded})
	if err != nil {
		return fmt.Errorf("open a session with Windows: %w", err)
	}
	defer func() {
		if cerr := s.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close the session with Windows: %w", cerr))
		}
	}()
	return fn(s)
}

// runWindows scans and installs: what an admin orders at once, else as the
// two schedules say. They are independent of each other; when both are due,
// the scan goes first, so that the install knows what there is.
func (a *Agent) runWindows(ctx context.Context) error {
	rested, mode := time.Now(), a.atRest()
	a.afterRestart(ctx)
	for ctx.Err() == nil {
		if now := a.atRest(); now != mode || time.Since(rested) >= serviceEvery {
			rested, mode = time.Now(), now
			a.serviceAtRest(ctx)
		}
		a.obeyWindows(ctx)
		if a.scanIsDue() {
			if _, err := a.scanNow(ctx); err != nil && ctx.Err() == nil {
				a.log.WarnContext(ctx, "scan", "err", err)
			}
			continue
		}
		if at, ok := a.nextInstall(); ok && !time.Now().Before(at) {
			if _, err := a.install(ctx, scheduled); err != nil && ctx.Err() == nil {
				a.log.WarnContext(ctx, "install", "err", err)
			}
			continue
		}
		a.windows.wait(ctx, a.untilWindows())
	}
	return ctx.Err()
}

// afterRestart asks for a scan when Windows was restarted since the last one
// and an update waited for that: nothing else would tell how it ended, or that
// it may be tried again. The
// service starts with Windows, so it is enough to look once.
func (a *Agent) afterRestart(ctx context.Context) {
	f, err := a.facts(ctx)
	if err != nil {
		a.log.WarnContext(ctx, "facts of the host unknown", "err", err)
		return
	}
	a.mu.Lock()
	waited := slices.ContainsFunc(a.scan.Found, func(u Found) bool { return u.Restart }) || a.st.awaitsRestart()
	due := waited && f.Booted.After(a.scan.Started)
	a.mu.Unlock()
	if due {
		a.note(func(s *state) { s.Rescan = true })
	}
}

// untilWindows is how long until the windows wheel has to look again.
func (a *Agent) untilWindows() time.Duration {
	d := serviceEvery
	if at, ok := a.nextScan(); ok {
		d = min(d, time.Until(at))
	}
	if at, ok := a.nextInstall(); ok {
		d = min(d, time.Until(at))
	}
	return max(d, 0)
}

// nextScan is when the next scan by schedule is due; not at all without a
// scan cab, or while nothing changed.
func (a *Agent) nextScan() (time.Time, bool) {
	if !a.manages() {
		return time.Time{}, false
	}
	p, hash := a.policy()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.st.Cab == "" {
		return time.Time{}, false
	}
	if a.st.Rescan && a.st.LastScan.Failed == 0 {
		return time.Time{}, true // an install was cut short: what is true now?
	}
	return scanDue(a.st.LastScan, p.Settings, a.st.Cab != a.scan.Cab || hash != a.scan.Rules)
}

func (a *Agent) scanIsDue() bool {
	at, ok := a.nextScan()
	return ok && !time.Now().Before(at)
}

// nextInstall is when the next install by schedule is due. Before the first
// scan nobody knows what there is to install: that turn is kept.
func (a *Agent) nextInstall() (time.Time, bool) {
	if !a.manages() {
		return time.Time{}, false
	}
	p, _ := a.policy()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.scan.Started.IsZero() || a.st.Cab == "" {
		return time.Time{}, false
	}
	return installDue(a.st.Install, p.Settings)
}
