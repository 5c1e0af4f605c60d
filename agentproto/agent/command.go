package agent

import (
	"bytes"
	"context"
	"errors"
	"time"

	"wuamesh/agentproto"
)

// decodeEvent reads the JSON of an event, bounded and validated.
func decodeEvent(e agentproto.Event, m agentproto.Message) error {
	return agentproto.Decode(bytes.NewReader(e.Data), 64<<10, m)
}

// resume ends the commands that were running when the agent was stopped.
// They are not begun again: one that brings the agent down would do so for
// ever. What they had begun goes on by itself, from the state.
func (a *Agent) resume() {
	var stopped []string
	for _, c := range a.st.Commands {
		if c.Stage == stageRunning || c.Stage == stageFetch || c.Stage == stageFetched {
			stopped = append(stopped, c.ID)
		}
	}
	for _, id := range stopped {
		a.finish(id, "", errors.New("the agent was stopped before it ended; send it again if it is still wanted"))
	}
}

// next returns the oldest command of these actions at that stage and moves it
// on.
func (a *Agent) next(from, to stage, actions ...agentproto.Action) (c agentproto.Command, ok bool) {
	a.mu.Lock()
	for _, e := range a.st.Commands {
		for _, action := range actions {
			if !ok && e.Stage == from && e.Action == action {
				c, ok = e.Command, true
			}
		}
	}
	a.mu.Unlock()
	if !ok {
		return c, false
	}
	a.note(func(s *state) {
		s.move(c.ID, to)
		if from == stageNew {
			s.Outbox.addCommand(agentproto.CommandResult{ID: c.ID, State: agentproto.CommandRunning, At: time.Now().UTC()})
		}
	})
	a.contact.now()
	return c, true
}

// finish tells what became of a command.
func (a *Agent) finish(id, detail string, err error) {
	r := agentproto.CommandResult{ID: id, State: agentproto.CommandDone, Detail: detail, At: time.Now().UTC()}
	if err != nil {
		r.State, r.Detail = agentproto.CommandFailed, err.Error()
	}
	r.Detail = oneLine(r.Detail, 1000)
	a.note(func(s *state) {
		s.move(id, stageEnded)
		s.Outbox.addCommand(r)
	})
	a.contact.now()
}

// obeyFetch does the commands that download, one after the other. An order
// to install fetches first and is handed on to the windows wheel.
func (a *Agent) obeyFetch(ctx context.Context) {
	for ctx.Err() == nil {
		if c, ok := a.next(stageNew, stageFetch, agentproto.ActionInstall); ok {
			a.refresh(ctx)
			_, err := a.download(ctx)
			if a.neverScanned() {
				err = a.scanFirst(ctx)
			}
			if err != nil {
				// What is on the host can be installed all the same.
				a.log.WarnContext(ctx, "download before an install", "err", err)
			}
			if ctx.Err() == nil {
				a.note(func(s *state) { s.move(c.ID, stageFetched) })
				a.windows.now()
			}
			continue
		}
		c, ok := a.next(stageNew, stageRunning, agentproto.ActionDownload)
		if !ok {
			return
		}
		a.refresh(ctx)
		detail, err := a.download(ctx)
		if ctx.Err() == nil {
			a.finish(c.ID, detail, err)
		}
	}
}

// scanFirst is for an order to install on a host that was never scanned, which
// knows of nothing to download yet: it is scanned, and what it needs is fetched.
func (a *Agent) scanFirst(ctx context.Context) error {
	if err := a.windows.take(ctx); err != nil { // a scan that runs is waited for
		return err
	}
	a.windows.give()
	if a.neverScanned() {
		if _, err := a.scanNow(ctx); err != nil {
			return err
		}
	}
	_, err := a.download(ctx)
	return err
}

func (a *Agent) neverScanned() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.scan.Started.IsZero()
}

// obeyWindows does the commands that need Windows.
func (a *Agent) obeyWindows(ctx context.Context) {
	for ctx.Err() == nil {
		c, ok := a.next(stageNew, stageRunning, agentproto.ActionScan)
		run := a.scanNow
		if !ok {
			c, ok = a.next(stageFetched, stageRunning, agentproto.ActionInstall)
			run = func(ctx context.Context) (string, error) { return a.install(ctx, ordered) }
		}
		if !ok {
			return
		}
		detail, err := run(ctx)
		if ctx.Err() == nil {
			a.finish(c.ID, detail, err)
		}
	}
}

// refresh checks in before an order is carried out: the admin who allowed an
// update and then pressed "install" means the rules of now. Without a node
// the order is carried out by the rules we have.
func (a *Agent) refresh(ctx context.Context) {
	if err := a.contact.take(ctx); err != nil {
		return
	}
	defer a.contact.give()
	if _, err := a.checkin(ctx); err != nil {
		a.log.WarnContext(ctx, "check in before a command", "err", err)
	}
}
