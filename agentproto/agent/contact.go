package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"wuamesh/agentproto"
)

const (
	// firstRetry and lastRetry bound the wait after a node did not answer.
	firstRetry = 10 * time.Second
	lastRetry  = 15 * time.Minute
	// usualCheckin is the wait when a node does not say one.
	usualCheckin = 15 * time.Minute
)

// errNotEnrolled is what cannot be done before the host is in the mesh.
var errNotEnrolled = errors.New("the host is not enrolled yet")

// setIdentity makes the client for who we are and for the nodes there are.
// Without a certificate or without a node there is none.
func (a *Agent) setIdentity(id identity) error {
	nodes := a.nodes()
	a.mu.Lock()
	defer a.mu.Unlock()
	var next Node
	var err error
	same := slices.Equal(id.Certificate, a.id.Certificate) && a.link != nil
	if id.enrolled(a.conf.Pin) && len(nodes) > 0 {
		if same {
			return a.link.SetNodes(nodes)
		}
		next, err = a.dial(id, nodes)
	}
	a.id = id
	if a.link != nil {
		a.link.Close()
	}
	a.link = next
	close(a.relinked)
	a.relinked = make(chan struct{})
	return err
}

// dial makes a client that shows the certificate. What cannot be made is a
// nil Node, not one that holds a nil pointer.
func (a *Agent) dial(id identity, nodes []string) (Node, error) {
	cert, authority, err := id.credentials()
	if err != nil {
		return nil, err
	}
	n, err := a.connect(agentproto.ClientOptions{Nodes: nodes, Certificate: cert, Authority: authority, Log: a.log, Named: a.named})
	if err != nil {
		return nil, fmt.Errorf("connect to the mesh: %w", err)
	}
	return n, nil
}

// node returns the client, and a channel that is closed when it is replaced.
func (a *Agent) node() (Node, <-chan struct{}, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.link == nil {
		return nil, a.relinked, errNotEnrolled
	}
	return a.link, a.relinked, nil
}

// runContact enrols, and then checks in whenever it is time or something is
// to be told.
func (a *Agent) runContact(ctx context.Context) error {
	failures := 0
	for ctx.Err() == nil {
		wait, err := a.turnContact(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			failures = 0
		default:
			failures++
			a.whole() // whatever failed, the next turn starts from the check-in
			a.askOthers(ctx)
			wait = backoff(failures, firstRetry, lastRetry, a.share())
			if away := (*agentproto.AwayError)(nil); errors.As(err, &away) {
				wait = max(wait, away.After)
			}
			a.log.WarnContext(ctx, "contact with the mesh", "err", err, "again", wait)
			if failures >= lastingContact || codeOf(err) != 0 {
				a.failed(ctx, doingContact, err)
			}
		}
		a.heard(err, wait)
		a.await(ctx, wait, failures > 0)
	}
	return ctx.Err()
}

// await waits for the next turn of contact. While no node answers, only time
// brings one: a wheel that asks at every failure would make it a hot loop.
func (a *Agent) await(ctx context.Context, d time.Duration, failing bool) {
	if !failing {
		a.contact.wait(ctx, d)
		return
	}
	t := time.NewTimer(min(d, firstRetry))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return
	}
	a.contact.wait(ctx, d-min(d, firstRetry))
}

// heard keeps for Status how the last contact went and when the next is due.
func (a *Agent) heard(err error, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lastErr = ""
	if err != nil {
		a.lastErr = err.Error()
	}
	a.nextCheck = time.Now().Add(wait)
}

// whole makes the next turn of contact a whole one, whenever it comes.
func (a *Agent) whole() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hurry = true
}

// hurryUp asks for a check-in now, due or not.
func (a *Agent) hurryUp() {
	a.whole()
	a.contact.now()
}

// turnContact is one turn of contact: a whole one when it is time for a
// check-in, else it only tells what waits to be told.
func (a *Agent) turnContact(ctx context.Context) (time.Duration, error) {
	a.mu.Lock()
	due := a.hurry || a.link == nil || !time.Now().Before(a.nextCheck)
	next := a.nextCheck
	a.mu.Unlock()
	if due {
		return a.meet(ctx)
	}
	return time.Until(next), a.tell(ctx)
}

// meet is a whole turn: enrol if need be, check in, deliver, report. It
// returns when to come back.
func (a *Agent) meet(ctx context.Context) (time.Duration, error) {
	if err := a.contact.take(ctx); err != nil {
		return 0, err
	}
	defer a.contact.give()
	if pending, err := a.admit(ctx); err != nil || pending > 0 {
		return pending, err
	}
	a.mu.Lock()
	a.hurry = false // what is asked for from here on needs another one
	a.mu.Unlock()
	next, err := a.checkin(ctx)
	if err != nil {
		return 0, err
	}
	return next, errors.Join(a.deliver(ctx), a.report(ctx))
}

// admit enrols a host that is not in, and renews a certificate that ends.
func (a *Agent) admit(ctx context.Context) (pending time.Duration, err error) {
	a.mu.Lock()
	in := a.id.enrolled(a.conf.Pin)
	renew, ends := a.id.lifetime()
	a.mu.Unlock()
	if in && time.Now().Before(renew) {
		return 0, nil
	}
	if len(a.nodes()) == 0 {
		return 0, errors.New("no node to ask: set repo_url in [global] or nodes in [wuamesh] of wapt-get.ini")
	}
	pending, err = a.enroll(ctx)
	if in && time.Until(ends) > 0 {
		// The certificate still holds: the next check-in tries again.
		a.warn("certificate", err)
		return 0, nil
	}
	if pending > 0 {
		a.log.InfoContext(ctx, "waits for an admin's approval", "again", pending)
	}
	return pending, err
}

// checkin says what we have and takes what is new. The turn of contact must
// be the caller's.
func (a *Agent) checkin(ctx context.Context) (next time.Duration, err error) {
	node, _, err := a.node()
	if err != nil {
		return 0, err
	}
	facts, err := a.facts(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	r, err := node.Checkin(ctx, a.hello(facts))
	if err != nil {
		return 0, a.refused(fmt.Errorf("check in: %w", err))
	}
	clock := clockOf(r, began, time.Now())
	changed := false
	own := a.own()
	err = a.change(func(s *state) {
		if r.Policy != nil && r.PolicyHash != s.PolicyHash {
			s.Policy, s.PolicyHash, changed = r.Policy, r.PolicyHash, true
		}
		if r.Cab != nil {
			s.WantCab = r.Cab
		}
		if r.Resend {
			s.Sent = ""
		}
		s.Told, s.Placed, s.Only, s.Asked = r.Nodes, r.Placed, r.Only && len(r.Nodes) > 0, own
		a.checked = time.Now()
		s.Checked = a.checked
		clock.off = agentproto.ClockOffBy(clock.by, clock.node, s.Clock)
		clock.was, s.Clock = s.Clock, clock.off
		for _, c := range r.Commands {
			if s.take(c) {
				a.log.InfoContext(ctx, "command", "action", string(c.Action), "by", c.By)
			}
		}
	})
	if err != nil {
		return 0, err
	}
	if err := node.SetNodes(a.nodes()); err != nil {
		a.log.WarnContext(ctx, "nodes of the check-in", "err", err)
	}
	a.pushSettings(ctx)
	a.sayClock(ctx, clock)
	if changed {
		a.log.InfoContext(ctx, "new policy", "node", r.Node)
		a.forgive() // another rule may want another file: do not wait for old reasons
	}
	a.fetch.now()
	a.windows.now()
	next = time.Duration(r.Next)
	if next == 0 {
		next = usualCheckin
	}
	next = min(max(next, agentproto.MinCheckin), agentproto.MaxCheckin)
	return next - time.Duration(a.share()*float64(next/10)), nil
}

// hello is what the agent says of itself.
func (a *Agent) hello(f agentproto.Facts) agentproto.Checkin {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := agentproto.Checkin{
		Protocol: agentproto.Version, Agent: a.version, Facts: f,
		Policy: a.st.PolicyHash, Statuses: a.st.Sent, Cab: a.st.Cab, Settings: a.ownLocked(), Doing: a.doingLocked(),
	}
	for _, part := range sortedKeys(a.trouble) {
		k.Warnings = append(k.Warnings, a.trouble[part])
	}
	for _, w := range a.conf.Warnings {
		k.Warnings = append(k.Warnings, oneLine(w.String(), 500))
	}
	k.Warnings = k.Warnings[:min(len(k.Warnings), 50)]
	k.Errors = slices.Clone(a.st.Failures)
	k.Clock = a.st.Clock
	return k
}

// refused looks whether the mesh sent the host away. Then its certificate is
// worth nothing, and it asks to be let in again, with the same key, so that
// an admin recognises it.
func (a *Agent) refused(err error) error {
	p := (*agentproto.Problem)(nil)
	if !errors.As(err, &p) || p.Status != http.StatusUnauthorized {
		return err
	}
	a.log.Warn("the mesh does not know this host any more; enrolling again", "err", err)
	a.mu.Lock()
	id := a.id
	a.mu.Unlock()
	id.Certificate = nil
	return errors.Join(err, store(a.dir, identityFile, id), a.setIdentity(id))
}

// deliver sends the results that wait, oldest first. What a node refuses as
// wrong is dropped: it would be refused for ever.
func (a *Agent) deliver(ctx context.Context) error {
	for {
		a.mu.Lock()
		r := agentproto.Results{Protocol: agentproto.Version}
		r.Commands = slices.Clone(a.st.Outbox.Commands[:min(len(a.st.Outbox.Commands), agentproto.MaxCommandsQueue)])
		r.Installs = slices.Clone(a.st.Outbox.Installs[:min(len(a.st.Outbox.Installs), 500)])
		empty := a.st.Outbox.empty()
		a.mu.Unlock()
		if empty {
			return nil
		}
		node, _, err := a.node()
		if err != nil {
			return err
		}
		if err := node.Results(ctx, r); err != nil {
			err = a.refused(fmt.Errorf("deliver results: %w", err))
			if !final(err) {
				return err
			}
			a.log.WarnContext(ctx, "results dropped", "err", err)
		}
		a.note(func(s *state) {
			s.Outbox.Commands = dropSent(s.Outbox.Commands, r.Commands)
			s.Outbox.Installs = dropSent(s.Outbox.Installs, r.Installs)
		})
	}
}

// dropSent removes what was sent from the front of what waits. The front may
// have been cut off meanwhile, so elements are compared.
func dropSent[T comparable](waits, sent []T) []T {
	return slices.DeleteFunc(waits, func(w T) bool { return slices.Contains(sent, w) })
}

// final says whether a message will be refused as often as it is sent: by the
// node, or by our own check before it leaves.
func final(err error) bool {
	p, field := (*agentproto.Problem)(nil), (*agentproto.FieldError)(nil)
	if errors.As(err, &field) {
		return true
	}
	return errors.As(err, &p) && p.Status >= 400 && p.Status < 500 &&
		p.Status != http.StatusUnauthorized && p.Status != http.StatusRequestTimeout && p.Status != http.StatusTooManyRequests
}

// runEvents listens to the node's stream. It breaks whenever a node restarts
// or a line is cut; what was missed is in the next check-in.
func (a *Agent) runEvents(ctx context.Context) error {
	failures := 0
	for ctx.Err() == nil {
		node, relinked, err := a.node()
		if err != nil {
			select {
			case <-relinked:
			case <-ctx.Done():
			}
			continue
		}
		began := time.Now()
		err = node.Events(ctx, func(e agentproto.Event) error { return a.onEvent(ctx, e) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) > time.Minute {
			failures = 0
			a.hurryUp() // a command may have been sent into the broken stream
		}
		if p := (*agentproto.Problem)(nil); errors.As(err, &p) && p.Status == http.StatusUnauthorized {
			a.hurryUp() // to be let in again
		}
		failures++
		a.log.DebugContext(ctx, "stream of events", "err", err)
		t := time.NewTimer(backoff(failures, time.Second, 5*time.Minute, a.share()))
		select {
		case <-t.C:
		case <-relinked:
		case <-ctx.Done():
		}
		t.Stop()
	}
	return ctx.Err()
}

// onEvent takes one event: a command is begun at once, a new policy is what
// the next check-in brings. An event of a newer protocol is skipped.
func (a *Agent) onEvent(ctx context.Context, e agentproto.Event) error {
	switch e.Name {
	case "policy":
		a.hurryUp()
	case "files":
		a.forgive()
		a.fetch.now()
	case "command":
		var c agentproto.Command
		if err := decodeEvent(e, &c); err != nil {
			a.log.WarnContext(ctx, "command not understood", "err", err)
			return nil
		}
		fresh := false
		if err := a.change(func(s *state) { fresh = s.take(c) }); err != nil {
			return err // not on disk: the next check-in brings it again
		}
		if fresh {
			a.log.InfoContext(ctx, "command", "action", string(c.Action), "by", c.By)
			a.fetch.now()
			a.windows.now()
		}
	}
	return nil
}
