package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// shutdownBudget is how long a shutdown waits for installs. The service
// manager is asked for an hour; an update that began within the budget must
// still come to its end.
const shutdownBudget = 45 * time.Minute

// leastBattery is the charge, in percent, below which nothing is installed
// while the host shuts down on battery: a host that dies in the middle of
// servicing may not start again.
const leastBattery = 40

// AtShutdown installs what is allowed and on the host already, because
// Windows is going down, if install_at_shutdown says so. It returns what came
// of it as a sentence. Nothing is downloaded, and what may not be done in this
// state of the host is left for the next time. Run may be running.
func (a *Agent) AtShutdown(ctx context.Context) (string, error) {
	a.mu.Lock()
	why := ""
	if a.skip {
		why = "It was skipped by the user."
	}
	a.skip = false
	a.mu.Unlock()
	if why = cmp.Or(why, a.notAtShutdown(ctx)); why != "" {
		a.log.InfoContext(ctx, "not installing at shutdown", "why", why)
		return why, nil
	}
	a.log.InfoContext(ctx, "installing at shutdown")
	ctx, cancel := context.WithTimeout(ctx, shutdownBudget)
	defer cancel()
	var done tally
	err := a.installPass(ctx, scheduled, nil, &done)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // the rest is for the next time
	}
	a.passFailed(ctx, "install at shutdown", err)
	if terr := a.tell(ctx); terr != nil {
		a.log.InfoContext(ctx, "the node hears of it after the start", "err", terr)
	}
	switch {
	case err != nil:
		return "", err
	case done.tried == 0:
		return "Nothing to install.", nil
	}
	return done.sentence()
}

// InstallsAtShutdown says whether install_at_shutdown is on for this host.
func (a *Agent) InstallsAtShutdown() bool {
	p, _ := a.policy()
	return a.manages() && p.Settings.InstallAtShutdown
}

// SkipShutdown has the next shutdown install nothing, because who works there
// said so; the one after it does again. Where that is not for the user to say
// it is an error.
func (a *Agent) SkipShutdown() error {
	if p, _ := a.policy(); p.Settings.DisableSkip {
		return errors.New("this may not be skipped: waptexit_disable_skip_windows_updates is set")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.skip = true
	return nil
}

// notAtShutdown says why nothing is installed while the host goes down.
func (a *Agent) notAtShutdown(ctx context.Context) string {
	switch {
	case !a.InstallsAtShutdown():
		return "install_at_shutdown is off."
	case len(a.ready(scheduled, nil)) == 0:
		return "Nothing to install."
	}
	f, err := a.facts(ctx)
	switch {
	case err != nil:
		return fmt.Sprintf("The state of the host is not known: %v.", err)
	case f.RestartDue:
		return "The host has to restart first."
	case f.Power == "battery" && f.Battery < leastBattery:
		return fmt.Sprintf("The host is on battery with %d %% left.", f.Battery)
	}
	return ""
}

// Exit is what the exit window shows.
type Exit struct {
	Titles  []string `json:"titles,omitempty"` // of the updates that would be installed now
	MaySkip bool     `json:"may_skip"`         // the user may leave them for another time
	Why     string   `json:"why,omitempty"`    // why nothing would be installed
}

// Exit says what a shutdown would install.
func (a *Agent) Exit(ctx context.Context) Exit {
	p, _ := a.policy()
	e := Exit{MaySkip: !p.Settings.DisableSkip, Why: a.notAtShutdown(ctx)}
	if e.Why == "" {
		for _, c := range a.ready(scheduled, nil) {
			e.Titles = append(e.Titles, c.Update.Title)
		}
	}
	return e
}
