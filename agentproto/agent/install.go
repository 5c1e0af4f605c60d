package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// An occasion is why a pass of installs begins.
type occasion string

const (
	scheduled occasion = "scheduled" // install_scheduling
	ordered   occasion = "ordered"   // by an admin, who does not wait for a pause
)

// install has Windows install what may be installed and is here. It returns
// a sentence. With nothing to install, Windows is not even asked. What Windows
// wants more files of, or wants in another way, is tried again in that way at
// once: nobody should have to order it three times.
func (a *Agent) install(ctx context.Context, why occasion) (string, error) {
	var done tally
	err := a.installPass(ctx, why, nil, &done)
	for err == nil && len(done.more) > 0 {
		if _, derr := a.download(ctx); derr != nil {
			a.log.WarnContext(ctx, "download of what Windows wants more", "err", derr)
		}
		only := done.more
		done.more = nil
		err = a.installPass(ctx, why, only, &done)
	}
	if err != nil {
		a.passFailed(ctx, "install", err)
		return "", err
	}
	if done.tried == 0 {
		return "Nothing to install.", nil
	}
	return done.sentence()
}

// passFailed remembers why a pass of installs ended, unless there was no reason
// for it to begin.
func (a *Agent) passFailed(ctx context.Context, doing string, err error) {
	if !errors.Is(err, errDisabled) && !errors.Is(err, errNoCab) {
		a.failed(ctx, doing, err)
	}
}

// installPass is one session with Windows: search, install, search. only, if
// not nil, are the updates to try.
func (a *Agent) installPass(ctx context.Context, why occasion, only map[rules.UpdateID]bool, done *tally) error {
	if err := a.windows.take(ctx); err != nil {
		return err
	}
	defer a.windows.give()
	share := a.share()
	began := time.Now()
	a.note(func(s *state) { s.Install = attemptAt{At: began, Share: share} })
	if !a.manages() {
		return errDisabled
	}
	a.mu.Lock()
	cab := a.st.Cab
	a.mu.Unlock()
	if cab == "" {
		return errNoCab
	}
	if len(a.ready(why, only)) == 0 {
		return nil
	}
	a.say("windows", "preparing to install")
	defer a.say("windows", "")
	before := done.tried
	err := a.session(ctx, cab, func(s Session) error {
		_, hash := a.policy()
		// Windows installs only what this very session found, and much may be
		// true now that was not at the last scan.
		if err := a.search(ctx, s, cab, hash); err != nil {
			return err
		}
		err := a.installAll(ctx, s, a.ready(why, only), done)
		if done.tried == before {
			return err
		}
		_, hash = a.policy()
		return errors.Join(err, a.search(ctx, s, cab, hash))
	})
	a.clean(ctx)
	a.fetch.now() // gets the deltas that Windows asked for
	a.contact.now()
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	return nil
}

// ready is what may be installed now, in order.
func (a *Agent) ready(why occasion, only map[rules.UpdateID]bool) []choice {
	now := time.Now()
	list := slices.DeleteFunc(a.choices(), func(c choice) bool {
		return only != nil && !only[c.Update.ID] || !c.installable(now, why == ordered || only != nil)
	})
	inOrder(list)
	return list
}

// A tally counts what a pass of installs came to.
type tally struct {
	tried, installed, restart int
	failed                    []string
	more                      map[rules.UpdateID]bool // to be tried in another way
}

func (t tally) sentence() (string, error) {
	text := fmt.Sprintf("Installed %s", count(t.installed, "update"))
	if t.restart > 0 {
		text += fmt.Sprintf(", %d after a restart", t.restart)
	}
	switch {
	case len(t.failed) == 0:
		return text + ".", nil
	case t.installed > 0:
		return text + fmt.Sprintf("; %d failed, first %s.", len(t.failed), t.failed[0]), nil
	}
	return "", fmt.Errorf("%s could not be installed, first %s", count(len(t.failed), "update"), t.failed[0])
}

// installAll installs one update per call, so that a bad one does not sink
// the others, and a stop is honoured between two of them.
func (a *Agent) installAll(ctx context.Context, s Session, list []choice, done *tally) error {
	for _, c := range list {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// An admin may have forbidden it a minute ago.
		if !a.stillMay(c) {
			continue
		}
		a.say("windows", "installing "+c.Update.Title)
		began := time.Now()
		if done.tried == 0 {
			if err := a.change(func(s *state) { s.Rescan = true }); err != nil {
				return err
			}
		}
		done.tried++
		out, err := a.installOne(ctx, s, c)
		if err != nil && (ctx.Err() != nil || hresult(err) == 0) {
			return fmt.Errorf("%s: %w", c.Update.Title, err)
		}
		if err != nil {
			out = Outcome{HResult: hresult(err)}
		}
		if out.HResult == codeInstallNotAllowed || out.HResult == codeServiceStop || out.HResult == codeShutdown {
			// Not this update's fault: another install runs, a restart must
			// come first, or Windows is going down.
			return fmt.Errorf("%s: %w", c.Update.Title, cmpErr(err, out))
		}
		a.settled(ctx, c, out, time.Since(began), done)
	}
	return nil
}

// cmpErr is the error of a call, or else the outcome as one.
func cmpErr(err error, o Outcome) error {
	if err != nil {
		return err
	}
	return &WindowsError{Call: "Install", HResult: o.HResult}
}

// stillMay asks the rules of now about an update that was ready a while ago.
func (a *Agent) stillMay(c choice) bool {
	p, _ := a.policy()
	u := ruleView(c.Update)
	u.Superseded = c.Superseded
	return decideOne(u, p).May()
}

// installOne gives Windows the files, accepts the licence and installs.
func (a *Agent) installOne(ctx context.Context, s Session, c choice) (Outcome, error) {
	if c.Tried.Package {
		return a.installPackages(ctx, c)
	}
	if !c.cached() {
		paths, err := a.verified(c.files())
		if err != nil {
			return Outcome{}, err
		}
		if err := s.CopyToCache(ctx, c.Ref(), paths); err != nil {
			return Outcome{}, err
		}
	}
	if c.EULA {
		if err := s.AcceptEULA(ctx, c.Ref()); err != nil {
			return Outcome{}, err
		}
	}
	return s.Install(ctx, c.Ref())
}

// installPackages has Windows' servicing tools install the files of an update,
// one after the other.
func (a *Agent) installPackages(ctx context.Context, c choice) (out Outcome, err error) {
	paths, err := a.verified(c.packages())
	if err != nil {
		return out, err
	}
	for _, path := range paths {
		one, err := a.machine.InstallPackage(ctx, path)
		if err != nil || one.Failed() {
			return one, err
		}
		out.Restart = out.Restart || one.Restart
	}
	return out, nil
}

// verified reads the files of an update again and returns where they are.
func (a *Agent) verified(list []agentproto.File) (paths []string, err error) {
	for _, f := range list {
		path, err := a.files.verify(want(f))
		if errors.Is(err, errBad) {
			// It was good when it came; the disk is not. Fetch it again.
			return nil, &WindowsError{Call: "read " + f.Name, HResult: codeIncorrectHash}
		}
		if err != nil {
			return nil, &WindowsError{Call: "read " + f.Name, HResult: codeNotDownloaded}
		}
		if path, err = filepath.Abs(path); err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// distrust throws away the files of an update that Windows found to be wrong
// though they passed our check, which for want of a digest may be of their
// size alone.
func (a *Agent) distrust(c choice) {
	for _, f := range c.files() {
		if err := a.files.remove(f.Name); err != nil {
			a.log.Warn("remove a refused file", "path", f.Name, "err", err)
		}
	}
	if node, _, err := a.node(); err == nil {
		askAnother(node, a.log)
	}
}

// settled keeps what became of one update, on disk, before the next begins.
func (a *Agent) settled(ctx context.Context, c choice, out Outcome, took time.Duration, done *tally) {
	at := time.Now().UTC()
	t := tried{Revision: c.Update.Revision, HResult: out.HResult, At: at, Restart: out.Restart && !out.Failed(), Deltas: c.Tried.Deltas, Package: c.Tried.Package}
	more := false
	if out.Failed() {
		t.Count = c.Tried.Count + 1
		if agentproto.Explain(out.HResult).Class == agentproto.ClassContent {
			// Whatever Windows' cache has, it is given everything anew.
			t.Deltas = true
			if wantsMore(out) {
				t.Deltas, t.Package, more = c.another()
			} else if t.Count <= distrustTimes {
				a.distrust(c)
			}
		}
	}
	switch {
	case more:
		if done.more == nil {
			done.more = map[rules.UpdateID]bool{}
		}
		done.more[c.Update.ID] = true
	case out.Failed():
		done.failed = append(done.failed, fmt.Sprintf("%s with %s", c.Update.Title, agentproto.Explain(out.HResult).Title()))
		a.failed(ctx, "install "+c.Update.Title, &WindowsError{Call: "Install", HResult: out.HResult})
	default:
		done.installed++
		t.HResult = 0
	}
	a.warn("content "+string(c.Update.ID), refusedContent(c, out, more))
	if t.Restart {
		done.restart++
	}
	a.log.InfoContext(ctx, "installed", "update", string(c.Update.ID), "title", c.Update.Title, "hresult", fmt.Sprintf("0x%08X", out.HResult), "restart", t.Restart, "took", took)
	a.note(func(s *state) {
		s.Tried[c.Update.ID] = t
		s.Outbox.addInstall(agentproto.InstallResult{UpdateRef: c.Ref(), HResult: t.HResult, Restart: t.Restart, At: at})
	})
	a.contact.now()
}

// refusedContent is what an admin has to know when Windows took the files in
// no way: which they were.
func refusedContent(c choice, out Outcome, more bool) error {
	if more || !out.Failed() || !wantsMore(out) && !c.Tried.Package {
		return nil
	}
	var names []string
	for _, f := range c.Update.Files {
		names = append(names, f.Name)
	}
	return fmt.Errorf("Windows did not take the files of %s in any way (%s); what it was given: %s", c.Update.Title, agentproto.Explain(out.HResult).Title(), strings.Join(names, ", "))
}

// distrustTimes is how often in a row the files of one update are thrown away
// because Windows did not like them: what Microsoft's own file does not cure
// twice, it will not the third time, and it may have gigabytes.
const distrustTimes = 2

// wantsMore says whether Windows found the files good, but not enough.
func wantsMore(out Outcome) bool {
	return out.HResult == codeAnotherDownload || out.HResult == codeNotDownloaded
}
