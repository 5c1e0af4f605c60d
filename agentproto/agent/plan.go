package agent

import (
	"cmp"
	"path"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// A choice is one update that a scan found and what the rules say about it.
type choice struct {
	Found
	Decision   rules.Decision
	Superseded bool // by another one that is needed or installed here
	Outdone    bool // by another one that may be installed here too
	OnDisk     bool // Windows or the agent has every file
	Tried      tried
}

// needed says whether there is something to install.
func (c choice) needed() bool { return !c.Installed && !c.Restart && !c.Tried.Restart }

// wanted says whether its files are worth having: it may be installed, now
// or when its delay is over.
func (c choice) wanted() bool {
	return c.needed() && c.Decision.May() && !c.Outdone && !c.UserInput
}

// installable says whether it may be installed now. An order of an admin does
// not wait for the pause after a failure.
func (c choice) installable(now time.Time, ordered bool) bool {
	if !c.wanted() || !c.OnDisk || c.Decision.Verdict != rules.Allowed {
		return false
	}
	at, ever := c.Tried.again()
	return ordered || ever && !now.Before(at)
}

// cached says whether Windows needs no file of us any more. What it says of
// its cache does not count once it asked for the deltas too.
func (c choice) cached() bool { return c.Found.OnHost && !c.Tried.Deltas }

// files are the downloads the update needs: the deltas only after Windows
// refused the full files alone (DESIGN.md, "Deltas").
func (c choice) files() []agentproto.File {
	return slices.DeleteFunc(slices.Clone(c.Update.Files), func(f agentproto.File) bool { return f.Delta && !c.Tried.Deltas })
}

// packages are the files that Windows' servicing tools can install.
func (c choice) packages() []agentproto.File {
	return slices.DeleteFunc(slices.Clone(c.Update.Files), func(f agentproto.File) bool {
		ext := strings.ToLower(path.Ext(f.Name))
		return f.Delta || ext != ".msu" && ext != ".cab"
	})
}

// another is the next way to install an update whose files Windows took for
// good but not enough, if there is one: with the deltas, then by the servicing
// tools.
func (c choice) another() (deltas, pkg, ok bool) {
	hasDeltas := slices.ContainsFunc(c.Update.Files, func(f agentproto.File) bool { return f.Delta })
	switch {
	case hasDeltas && !c.Tried.Deltas:
		return true, false, true
	case !c.Tried.Package && len(c.packages()) > 0:
		return true, true, true
	}
	return true, c.Tried.Package, false
}

// again is when an update that failed is tried again by itself, if ever. It
// keeps what [agentproto.Class.Next] tells people.
func (t tried) again() (at time.Time, ever bool) {
	if t.Count == 0 {
		return time.Time{}, true
	}
	switch agentproto.Explain(t.HResult).Class {
	case agentproto.ClassRestart:
		return t.At, t.Booted
	case agentproto.ClassAdmin:
		return t.At.Add(day), true
	case agentproto.ClassRepair:
		return t.At.Add(7 * day), true
	case agentproto.ClassPermanent:
		return time.Time{}, false
	}
	return t.At.Add(min(time.Hour<<min(t.Count-1, 5), day)), true
}

const day = 24 * time.Hour

// decide says what becomes of everything a scan found. onDisk says whether
// the agent holds every file of an update that it is asked about.
func decide(found []Found, p rules.Policy, tries map[rules.UpdateID]tried, onDisk func(choice) bool, now time.Time) []choice {
	set := rules.Compile(p)
	by := superseders(found)
	list := make([]choice, len(found))
	may := make(map[rules.UpdateID]bool, len(found))
	for i, f := range found {
		u := ruleView(f.Update)
		u.Superseded = len(by[f.Update.ID]) > 0
		list[i] = choice{Found: f, Superseded: u.Superseded, Decision: set.Decide(u, now), Tried: tries[f.Update.ID]}
		may[f.Update.ID] = f.Installed || f.Restart || list[i].Decision.May() && !f.UserInput
	}
	for i := range list {
		c := &list[i]
		for _, newer := range by[c.Update.ID] {
			c.Outdone = c.Outdone || may[newer]
		}
		c.OnDisk = c.cached() || onDisk(*c)
	}
	return list
}

// superseders maps an update to those found ones that replace it. Windows
// lists what an update replaces at any distance; two that claim to replace
// each other are both kept, since neither is older.
func superseders(found []Found) map[rules.UpdateID][]rules.UpdateID {
	replaces := make(map[[2]rules.UpdateID]bool)
	for _, f := range found {
		for _, old := range f.Update.Supersedes {
			replaces[[2]rules.UpdateID{f.Update.ID, old}] = true
		}
	}
	by := make(map[rules.UpdateID][]rules.UpdateID)
	for _, f := range found {
		for _, old := range f.Update.Supersedes {
			if old != f.Update.ID && !replaces[[2]rules.UpdateID{old, f.Update.ID}] {
				by[old] = append(by[old], f.Update.ID)
			}
		}
	}
	return by
}

// ruleView is what deciding needs to know of an update.
func ruleView(u agentproto.Update) rules.Update {
	v := rules.Update{ID: u.ID, KBs: u.KBs, Severity: u.Severity, Classification: u.Classification.ID, Published: u.Published}
	for _, p := range u.Products {
		v.Products = append(v.Products, p.ID)
	}
	return v
}

// servicingStack says whether the update is one of what installs the others. No
// category says so. The title does where Windows is English; Microsoft names the
// files SSU-… on any host, except those of Windows 10 1607 and Server 2016,
// which are known by how they are installed: alone, and without ever a restart.
// Another update that is installed so may go first as well, because it holds
// nothing up. A cumulative update that brings its servicing stack along is none.
func (c choice) servicingStack() bool {
	if strings.Contains(strings.ToLower(c.Update.Title), "servicing stack") || c.Update.Exclusive && c.Update.Restart == "never" {
		return true
	}
	stack := 0
	for _, f := range c.Update.Files {
		switch {
		case strings.HasPrefix(strings.ToLower(f.Name), "ssu-"):
			stack++
		case !f.Delta:
			return false
		}
	}
	return stack > 0
}

// inOrder sorts what is to be installed: servicing stacks first, because they
// install the others; what must be alone last, because a restart it demands
// would hold the others up; else the oldest first.
func inOrder(list []choice) {
	rank := func(c choice) int {
		switch {
		case c.servicingStack():
			return 0
		case c.Update.Exclusive:
			return 2
		}
		return 1
	}
	slices.SortFunc(list, func(a, b choice) int {
		return cmp.Or(rank(a)-rank(b), a.Update.Published.Compare(b.Update.Published), strings.Compare(string(a.Update.ID), string(b.Update.ID)))
	})
}

// statuses are what the node is told of every update that was found.
func statuses(list []choice) []agentproto.Status {
	out := make([]agentproto.Status, 0, len(list))
	for _, c := range list {
		s := agentproto.Status{
			ID: c.Update.ID, Revision: c.Update.Revision, Installed: c.Installed,
			OnHost: c.OnDisk && !c.Installed, Restart: c.Restart || c.Tried.Restart && !c.Installed, Superseded: c.Superseded,
		}
		if !c.Tried.At.IsZero() {
			s.HResult, s.Tried = c.Tried.HResult, c.Tried.At
		}
		out = append(out, s)
	}
	return out
}

// recurring is when work that last began at last is due again. A share of a
// tenth of the period, at most half an hour, keeps the hosts of a branch
// apart that were installed together.
func recurring(last time.Time, period time.Duration, share float64) time.Time {
	if last.IsZero() {
		return last
	}
	return last.Add(period + time.Duration(share*float64(min(period/10, 30*time.Minute))))
}

// minPeriod is what a schedule of 0, "at every tick", comes to.
const minPeriod = 10 * time.Second

// scanDue is when the next scan begins, if at all: download_scheduling has
// passed since the last one and something changed. A failed one is repeated
// sooner, at growing intervals.
func scanDue(last attemptAt, s rules.Settings, changed bool) (time.Time, bool) {
	period := max(s.DownloadScheduling, minPeriod)
	switch {
	case last.At.IsZero():
		return time.Time{}, true
	case last.Failed > 0:
		return recurring(last.At, scanPause(last, period, changed), last.Share), true
	case !changed:
		return time.Time{}, false
	}
	return recurring(last.At, period, last.Share), true
}

// scanPause is how long to wait after a scan that failed.
func scanPause(last attemptAt, period time.Duration, changed bool) time.Duration {
	class := agentproto.Explain(last.HResult).Class
	switch {
	case last.HResult == codeOutOfMemory:
		return day // trying again soon makes it worse for whoever works there
	case class == agentproto.ClassAdmin || class == agentproto.ClassRepair || class == agentproto.ClassPermanent:
		if !changed {
			return day // until somebody does something; an order does not wait
		}
	}
	return min(15*time.Minute<<min(last.Failed-1, 7), period, day)
}

// installDue is when the next install begins; never without a schedule.
func installDue(last attemptAt, s rules.Settings) (time.Time, bool) {
	if s.InstallScheduling <= 0 {
		return time.Time{}, false
	}
	return recurring(last.At, max(s.InstallScheduling, minPeriod), last.Share), true
}

// backoff is how long to wait after that many failures in a row: from first,
// doubled each time, at most most, less up to a half by share so that a
// branch does not come back all at once.
func backoff(failures int, first, most time.Duration, share float64) time.Duration {
	d := first << min(max(failures-1, 0), 16)
	if d > most || d <= 0 {
		d = most
	}
	return d - time.Duration(share*float64(d/2))
}
