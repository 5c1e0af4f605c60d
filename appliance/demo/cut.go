package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// ErrEditLost is an edit that was acknowledged during the cut and is not on
// every node after it. It must never be returned.
var ErrEditLost = errors.New("an edit that was acknowledged is missing")

// A cutStory is what happened around the cut, for the summary.
type cutStory struct {
	edits    []edit // acknowledged, in their order
	clash    rules.Line
	began    time.Time
	healed   time.Time
	complete time.Time // every node had every edit; zero for not yet
}

// An edit was acknowledged by a node during the cut.
type edit struct {
	on   *node
	pack string
	line rules.Line
}

func (e edit) String() string {
	return fmt.Sprintf("%-14s %-6s KB%-9s on %s", e.pack, e.line.Verb, e.line.Value, e.on.NodeName())
}

// cutOff cuts the last node off once everybody is there, lets admins edit the
// same rule packages on both sides, heals the cut, and waits for the merge.
func (p *play) cutOff(ctx context.Context) error {
	near, far := p.nodes[0], p.nodes[len(p.nodes)-1]
	if !p.settled(ctx) {
		return nil
	}
	p.say("-- %s is cut off, for %s", far.NodeName(), p.Cut)
	p.wan.cut(far.NodeName())
	defer p.wan.cut("")
	p.cut.began = time.Now()
	list := p.edits(near, far)
	for _, e := range list {
		if !wait(ctx, p.Cut/time.Duration(len(list)+1)) {
			return nil
		}
		if err := e.on.AddLines(ctx, appliance.Actor{Name: "admin-" + e.on.site, Role: appliance.Owner}, e.pack, []rules.Line{e.line}); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("edit on %s during the cut: %w", e.on.NodeName(), err)
		}
		p.cut.edits = append(p.cut.edits, e)
		p.say("   %s", e)
	}
	if !wait(ctx, time.Until(p.cut.began.Add(p.Cut))) {
		return nil
	}
	p.wan.cut("")
	p.cut.healed = time.Now()
	p.say("-- the line to %s is back", far.NodeName())
	for {
		if lost, err := p.lost(ctx); err != nil && ctx.Err() == nil {
			return err
		} else if len(lost) == 0 && err == nil {
			break
		}
		if !wait(ctx, 20*time.Millisecond) {
			return nil
		}
	}
	p.cut.complete = time.Now()
	p.say("   all nodes have all %d edits", len(p.cut.edits))
	return nil
}

// settled waits for every node and host to be there, hosts for some seconds
// only: the cut is worth seeing without the last of them.
func (p *play) settled(ctx context.Context) bool {
	for _, n := range p.nodes {
		select {
		case <-ctx.Done():
			return false
		case <-n.in:
		}
	}
	late := time.Now().Add(afterCut / 3)
	for time.Now().Before(late) {
		if s, err := p.nodes[0].Status(ctx); err == nil && s.Hosts >= p.Hosts {
			break
		}
		if !wait(ctx, 200*time.Millisecond) {
			return false
		}
	}
	return ctx.Err() == nil
}

// edits are what the admins of both sides do: both add to one package, and
// at last they contradict each other about one update.
func (p *play) edits(near, far *node) (list []edit) {
	var kbs []string
	for _, u := range p.world.Updates() {
		if u.KB != p.forbidden() && u.Severity != "Critical" && !slices.Contains(kbs, u.KB) {
			kbs = append(kbs, u.KB)
		}
	}
	kbs = kbs[len(kbs)-min(len(kbs), 5):]
	for i, kb := range kbs[:len(kbs)-1] {
		on := near
		if i%2 == 1 {
			on = far
		}
		list = append(list, edit{on, "erp-freeze", rules.Line{Verb: rules.Forbid, Kind: rules.ByKB, Value: kb}})
	}
	p.cut.clash = rules.Line{Kind: rules.ByKB, Value: kbs[len(kbs)-1]}
	allow, forbid := p.cut.clash, p.cut.clash
	allow.Verb, forbid.Verb = rules.Allow, rules.Forbid
	return append(list, edit{far, "baseline", allow}, edit{near, "baseline", forbid})
}

// lost are the acknowledged edits that a node does not have.
func (p *play) lost(ctx context.Context) (list []string, err error) {
	for _, n := range p.nodes {
		for _, e := range p.cut.edits {
			d, err := n.Package(ctx, e.pack)
			if err != nil {
				return nil, err
			}
			if !slices.ContainsFunc(d.Lines, func(l appliance.LineRow) bool { return l.Line == e.line }) {
				list = append(list, fmt.Sprintf("%s, is not on %s", e, n.NodeName()))
			}
		}
	}
	return list, nil
}

// tellMerge prints what became of the edits of both sides.
func (p *play) tellMerge(ctx context.Context) error {
	c := p.cut
	if p.Cut == 0 {
		return nil
	}
	if c.healed.IsZero() {
		p.say("It was stopped before the line was back.")
		return nil
	}
	far := p.nodes[len(p.nodes)-1].NodeName()
	lost, err := p.lost(ctx)
	if err != nil {
		return err
	}
	if len(lost) > 0 {
		p.say("%s was cut off for %s. MISSING, of %d edits that were acknowledged:\n  %s", far, p.Cut, len(c.edits), strings.Join(lost, "\n  "))
		return ErrEditLost
	}
	p.say("%s was cut off for %s. %d edits were made on both sides; all %d nodes have all of them, %.1f s after the line was back:", far, p.Cut, len(c.edits), len(p.nodes), c.complete.Sub(c.healed).Seconds())
	for _, e := range c.edits {
		p.say("  %s", e)
	}
	return p.tellClash(ctx)
}

// tellClash prints how the contradiction ended, asked of every node: forbid
// wins.
func (p *play) tellClash(ctx context.Context) error {
	for _, u := range p.world.Updates() {
		if u.KB != p.cut.clash.Value {
			continue
		}
		for _, n := range p.nodes {
			d, err := n.UpdateByID(ctx, rules.UpdateID(u.ID))
			if problem, ok := errors.AsType[*appliance.Problem](err); ok && problem.Kind == appliance.NotFound {
				continue // no host needs it
			}
			if err != nil {
				return err
			}
			for _, h := range d.OnHosts {
				if h.Decision.Verdict != rules.Forbidden {
					return fmt.Errorf("KB%s was allowed on one side and forbidden on the other; on %s, %s decides %s for %s: %w", u.KB, h.HostName, n.NodeName(), h.Decision.Verdict, u.Title, ErrEditLost)
				}
			}
		}
	}
	p.say("KB%s was allowed on one side and forbidden on the other: every node forbids it.", p.cut.clash.Value)
	return nil
}
