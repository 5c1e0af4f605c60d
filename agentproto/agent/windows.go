package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
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
	a.mu.Lock()
	took := a.st.TookOver
	a.mu.Unlock()
	if mode == serviceUnseen {
		if !took {
			return
		}
		mode = ServiceGiven // enabled is not said any more: give back what was taken
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err := a.machine.Service(ctx, mode)
	if err != nil {
		err = fmt.Errorf("set the Windows Update service %s: %w", mode, err)
		a.log.WarnContext(ctx, "windows update service", "err", err)
		a.failed(ctx, "Windows Update service", err)
	}
	a.warn("service", err)
	drift, err := a.machine.TakeOver(ctx, mode == ServiceOff)
	if err == nil && len(drift) > 0 {
		err = errors.New(strings.Join(drift, " "))
	}
	if err != nil {
		a.log.WarnContext(ctx, "policies of windows update", "err", err)
	}
	a.warn("policies", err)
	if now := mode == ServiceOff; now != took {
		a.note(func(s *state) { s.TookOver = now })
	}
}

// GiveBack has Windows update itself again, as before the agent: what the
// agent hid is shown, the service and the policies are as they were. Run must
// not be running.
func (a *Agent) GiveBack(ctx context.Context) error {
	err := a.showHidden(ctx)
	_, terr := a.machine.TakeOver(ctx, false)
	return errors.Join(err, a.machine.Service(ctx, ServiceGiven), terr, a.change(func(s *state) { s.TookOver = false }))
}

// RemoveKB removes an installed update by the number of its article, with or
// without "KB" before it. It is never done but by hand or by a package of an
// admin's. It returns what came of it as a sentence.
func (a *Agent) RemoveKB(ctx context.Context, kb string) (string, error) {
	if len(kb) > 2 && strings.EqualFold(kb[:2], "kb") {
		kb = kb[2:]
	}
	if kb == "" || len(kb) > 10 || strings.Trim(kb, "0123456789") != "" {
		return "", fmt.Errorf("%q is not the number of a KB, such as KB5091000", clip(kb))
	}
	if err := a.windows.take(ctx); err != nil {
		return "", err
	}
	defer a.windows.give()
	a.say("windows", "removing KB"+kb)
	defer a.say("windows", "")
	if a.atRest() == ServiceOff {
		defer a.serviceAtRest(ctx)
		if err := a.machine.Service(ctx, ServiceOn); err != nil {
			return "", fmt.Errorf("start the Windows Update service: %w", err)
		}
	}
	out, err := a.machine.RemoveKB(ctx, kb)
	if err == nil && out.Failed() {
		err = &WindowsError{Call: "remove", HResult: out.HResult}
	}
	if err != nil {
		a.failed(ctx, "remove KB"+kb, err)
		return "", fmt.Errorf("KB%s: %w", kb, err)
	}
	a.log.InfoContext(ctx, "removed", "kb", kb, "restart", out.Restart)
	a.note(func(s *state) { s.Rescan = true }) // what is true now?
	a.windows.now()
	if out.Restart {
		return fmt.Sprintf("KB%s is removed once the host has restarted.", kb), nil
	}
	return fmt.Sprintf("KB%s is removed.", kb), nil
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
		a.clockSet(time.Now())
		if now := a.atRest(); now != mode || time.Since(rested) >= serviceEvery {
			rested, mode = time.Now(), now
			if now == ServiceGiven {
				err := a.showHidden(ctx)
				if err != nil {
					a.log.WarnContext(ctx, "give windows update back", "err", err)
					a.failed(ctx, "give Windows Update back", err)
				}
				a.warn("hide", err)
			}
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

// clockSet looks whether the clock was set back, and puts right what was kept by
// the wrong one.
func (a *Agent) clockSet(now time.Time) {
	a.mu.Lock()
	wrong := a.st.isLater(now)
	a.mu.Unlock()
	if wrong {
		a.note(func(s *state) { s.notLater(now) })
	}
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
	due := waited && (f.Booted.After(a.scan.Started) || a.scan.Started.After(time.Now())) // a scan of next year was by a wrong clock
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
