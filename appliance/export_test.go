package appliance

import (
	"context"
	"net/http"
	"time"
)

// What tests of the folder reach from outside the package: the waits, which
// are minutes and hours, and the handler without its listeners.

// NextCleaning is nextCleaning.
var NextCleaning = nextCleaning

// Backoff is backoff.
var Backoff = backoff

// HandleFolder is the folder's handler.
func (a *Appliance) HandleFolder() http.Handler { return a.folder.handler() }

// Waits sets how long a failed download, and one without space, waits.
func (a *Appliance) Waits(failed, space time.Duration) {
	a.folder.mu.Lock()
	defer a.folder.mu.Unlock()
	a.folder.backoff = func(int) time.Duration { return failed }
	a.folder.recheck = space
}

// Age makes every file of the folder look as if it had come that much
// earlier, and as if it had not been sent since.
func (a *Appliance) Age(d time.Duration) {
	a.folder.mu.Lock()
	defer a.folder.mu.Unlock()
	for _, h := range a.folder.held {
		h.Completed = h.Completed.Add(-d)
		h.asked.Store(0)
	}
}

// UnusedAtNight is what the nightly cleaning would delete.
func (a *Appliance) UnusedAtNight() CleanPlan { return a.folder.unused(graceAtNight) }

// Look compares the directory with the records as the node does every half
// hour.
func (a *Appliance) Look(ctx context.Context) error { return a.folder.rescan(ctx) }
