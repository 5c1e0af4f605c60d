package appliance

import (
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/replicate"
)

// A command nobody fetched in a week is given up.
const commandLife = 7 * 24 * time.Hour

// waiting is the state of a command nobody answered.
const waiting = "waiting"

// Trigger queues an action for hosts, or for every member of a group; it
// returns how many. Every node tells those that are connected to it as soon
// as it has the record, see streams.follow.
func (a *Appliance) Trigger(ctx context.Context, by Actor, action agentproto.Action, ids []agentproto.HostID, group string) (int, error) {
	if err := by.need(Operator); err != nil {
		return 0, err
	}
	switch action {
	case agentproto.ActionScan, agentproto.ActionDownload, agentproto.ActionInstall:
	default:
		return 0, invalid("action", "%q is none of scan, download, install.", action)
	}
	targets, names, err := a.cat.targets(ids, group)
	if err != nil {
		return 0, err
	}
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		for _, id := range targets {
			cmd := agentproto.Command{ID: strings.ToLower(rand.Text()), Action: action, By: by.Name, Issued: tx.Now()}
			if err := commands.put(tx, string(id)+"/"+cmd.ID, commandRecord{cmd, outcomeRecord{State: waiting, Changed: tx.Now()}}); err != nil {
				return err
			}
		}
		return a.audit(tx, by, "trigger "+string(action), names, "", "")
	})
	if err != nil {
		return 0, err
	}
	a.log.InfoContext(ctx, "hosts triggered", "action", action, "hosts", len(targets), "by", by.Name)
	return len(targets), nil
}

// targets resolves hosts and a group, and names them for the audit log.
func (c *catalogue) targets(ids []agentproto.HostID, group string) (targets []agentproto.HostID, names string, err error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, id := range ids {
		if c.hosts[id] == nil {
			return nil, "", notFound("There is no host %.60s.", id)
		}
		targets = append(targets, id)
	}
	if group != "" {
		if g := c.groups[group]; g == nil || !g.exists {
			return nil, "", notFound("There is no group %s.", group)
		}
		for id := range c.membersOf(group) {
			targets = append(targets, id)
		}
		names = "group " + group
	}
	slices.Sort(targets)
	targets = slices.DeleteFunc(slices.Compact(targets), func(id agentproto.HostID) bool {
		return c.hosts[id] == nil || !c.hosts[id].enrolled() || len(c.commands[id]) > 10*agentproto.MaxCommandsQueue
	})
	if len(targets) == 0 {
		return nil, "", &Problem{Kind: Invalid, Msg: "No host is chosen.", Hint: "Choose at least one approved host, or a group that has members."}
	}
	if group == "" {
		var list []string
		for _, id := range targets[:min(len(targets), 5)] {
			list = append(list, c.hosts[id].Facts.Name)
		}
		names = "host " + strings.Join(list, ", ")
		if len(targets) > 5 {
			names += ", …"
		}
	}
	return targets, names, nil
}

// commandsOf is every command of a host with what became of it. The lock is
// held.
func (c *catalogue) commandsOf(id agentproto.HostID) []commandRecord {
	list := make([]commandRecord, 0, len(c.commands[id]))
	for _, r := range c.commands[id] {
		if o, ok := c.outcomes[id][r.ID]; ok {
			r.outcomeRecord = o
		}
		list = append(list, r)
	}
	return list
}

// keepOutcomes notes what became of commands, also of those this node does
// not know yet: the host was told that we have it. How one ended is final.
func (a *Appliance) keepOutcomes(tx *replicate.Tx, id agentproto.HostID, list []agentproto.CommandResult) error {
	a.cat.mu.RLock()
	known, kept := maps.Clone(a.cat.commands[id]), len(a.cat.outcomes[id])
	a.cat.mu.RUnlock()
	for _, k := range list {
		key := string(id) + "/" + k.ID
		rec, told, err := outcomes.find(tx, key)
		if err != nil {
			return err
		}
		_, ours := known[k.ID]
		switch {
		case told && (rec.State == string(agentproto.CommandDone) || rec.State == string(agentproto.CommandFailed)):
			continue // told twice
		case !told && !ours && kept > 20*agentproto.MaxCommandsQueue:
			continue // no mesh gives so many: the host makes them up
		}
		if err := outcomes.put(tx, key, outcomeRecord{string(k.State), k.Detail, tx.Now()}); err != nil {
			return err
		}
	}
	return nil
}

// waitingFor lists the commands a host has not answered, oldest first.
func (c *catalogue) waitingFor(id agentproto.HostID) []agentproto.Command {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var list []agentproto.Command
	for _, r := range c.commandsOf(id) {
		if r.State == waiting {
			list = append(list, r.Command)
		}
	}
	slices.SortFunc(list, func(x, y agentproto.Command) int {
		if n := x.Issued.Compare(y.Issued); n != 0 {
			return n
		}
		return strings.Compare(x.ID, y.ID)
	})
	return list[:min(len(list), agentproto.MaxCommandsQueue)]
}

// expireCommands gives up commands that nobody fetched, and forgets old ones.
func (a *Appliance) expireCommands(tx *replicate.Tx) error {
	for r, err := range commands.all(tx, "") {
		if err != nil {
			return err
		}
		if age := tx.Now().Sub(r.value.Issued); age > commandLife {
			if err := commands.del(tx, r.id); err != nil {
				return err
			}
		}
	}
	for r, err := range outcomes.all(tx, "") {
		if err != nil {
			return err
		}
		if tx.Now().Sub(r.value.Changed) > 2*commandLife {
			if err := outcomes.del(tx, r.id); err != nil {
				return err
			}
		}
	}
	return nil
}
