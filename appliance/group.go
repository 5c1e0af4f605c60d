package appliance

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/replicate"
)

// maxMembers bounds the hosts that are given to a group one by one, so that
// what an edit changed fits one record of its history. A condition chooses any
// number.
const maxMembers = 50_000

// Groups lists the groups by name, the built-in one first.
func (a *Appliance) Groups(ctx context.Context) ([]GroupRow, error) {
	list, err := a.GroupsBrief(ctx)
	a.cat.mu.RLock()
	defer a.cat.mu.RUnlock()
	for i := range list {
		list[i].Members = a.cat.given(list[i].Name)
	}
	return list, err
}

// GroupsBrief is Groups without naming the members: thousands of names are
// much for a list.
func (a *Appliance) GroupsBrief(context.Context) ([]GroupRow, error) {
	a.cat.mu.Lock()
	defer a.cat.mu.Unlock()
	list := []GroupRow{a.cat.groupRow(everyone)}
	for _, name := range slices.Sorted(maps.Keys(a.cat.groups)) {
		if name != everyone && a.cat.groups[name].exists {
			list = append(list, a.cat.groupRow(name))
		}
	}
	return list, nil
}

// given are the hosts of a group that were given one by one. The lock is held.
func (c *catalogue) given(name string) []agentproto.HostID {
	ids := []agentproto.HostID{}
	if g := c.groups[name]; g != nil {
		for id := range g.members {
			if c.hosts[id] != nil {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	return ids
}

// groupRow is a group as lists show it, without its members. The lock is held
// for writing.
func (c *catalogue) groupRow(name string) GroupRow {
	g := c.groups[name]
	r := GroupRow{Name: name, Description: g.Description, Accepts: g.Accepts, Members: []agentproto.HostID{}, Condition: conditionOf(g.terms), Packages: []string{}, Profiles: []string{}, Settings: g.Settings}
	r.Given = len(g.members)
	r.Edited, r.EditedBy, r.Version = g.At, g.By, c.groupEdits[name].id
	if last := c.groupEdits[name]; last.At.After(r.Edited) {
		r.Edited, r.EditedBy = last.At, last.By
	}
	c.classify()
	for _, k := range c.classes {
		if slices.Contains(k.groups, name) {
			r.Hosts += k.hosts
		}
	}
	for _, p := range slices.Sorted(maps.Keys(c.packages)) {
		if _, ok := c.packages[p].groups[name]; ok && c.packages[p].exists {
			r.Packages = append(r.Packages, p)
		}
	}
	for _, p := range c.inOrder() {
		if _, ok := c.profiles[p].groups[name]; ok {
			r.Profiles = append(r.Profiles, p)
		}
	}
	return r
}

// Group is one group.
func (a *Appliance) Group(_ context.Context, name string) (GroupRow, error) {
	a.cat.mu.Lock()
	defer a.cat.mu.Unlock()
	if g := a.cat.groups[name]; g == nil || !g.exists {
		return GroupRow{}, noGroup(name)
	}
	row := a.cat.groupRow(name)
	row.Members = a.cat.given(name)
	return row, nil
}

// check says what is wrong with an edit, by field.
func (e GroupEdit) check(c *catalogue, name string) error {
	if err := checkWord(name); err != nil {
		return err
	}
	if name == everyone && len(e.Members) > 0 {
		return invalid("members", "The group all holds every host by itself.")
	}
	if name == everyone && e.Condition != nil && !e.Condition.Empty() {
		return invalid("condition", "The group all holds every host by itself.")
	}
	if len(e.Description) > 500 {
		return invalid("description", "The description has %d characters, at most 500.", len(e.Description))
	}
	if len(e.Members) > maxMembers {
		return invalid("members", "%d hosts are given one by one, at most %d.", len(e.Members), maxMembers)
	}
	if e.Condition != nil {
		if _, err := e.Condition.checked(); err != nil {
			return err
		}
	}
	for _, m := range e.Accepts {
		if err := m.Validate(); err != nil {
			return &Problem{Kind: Invalid, Field: "accepts", Msg: upper(err.Error()) + "."}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(e.Settings)) {
		var s rules.Settings
		if err := s.Set(key, e.Settings[key]); err != nil {
			return invalid("settings."+key, "%s.", upper(err.Error()))
		}
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, h := range e.Members {
		if c.hosts[h] == nil {
			return invalid("members", "There is no host %.60s.", h)
		}
	}
	return nil
}

// PutGroup makes or replaces a group, as one change set; created says which.
// Only what differs is written, so an edit elsewhere of another member or
// another value of the condition lives on.
func (a *Appliance) PutGroup(ctx context.Context, by Actor, name string, e GroupEdit) (created bool, err error) {
	return a.putGroup(ctx, by, name, e, "", nil)
}

// putGroup is PutGroup with what the audit log calls it, empty for an edit, and
// the version that is gone back to, nil for none.
func (a *Appliance) putGroup(ctx context.Context, by Actor, name string, e GroupEdit, action string, back *GroupVersion) (created bool, err error) {
	if err := by.need(Owner); err != nil {
		return false, err
	}
	if err := e.check(a.cat, name); err != nil {
		return false, err
	}
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		if err := groupHistory.unchangedSince(tx, name, e.Seen); err != nil {
			return err
		}
		old, exists, err := groups.find(tx, name)
		if err != nil {
			return err
		}
		created = !exists && name != everyone
		what := cmp.Or(action, or(created, "make group", "edit group"))
		err = a.versionedIn(groupHistory, tx, by, name, what, func() error { return a.writeGroup(tx, by, name, e, old, what) })
		if err != nil || !created || back == nil {
			return err // who brought it back meanwhile said what it gets
		}
		return a.giveBack(tx, by, name, *back)
	})
	if err != nil {
		return false, fmt.Errorf("edit group %s: %w", name, err)
	}
	a.log.InfoContext(ctx, "group edited", "group", name, "by", by.Name)
	return created, nil
}

// writeGroup writes what differs of an edit, with its entry in the audit log.
func (a *Appliance) writeGroup(tx *replicate.Tx, by Actor, name string, e GroupEdit, old groupRecord, action string) error {
	edit := editRecord{By: by.Name, At: tx.Now()}
	if old.At.IsZero() || old.Description != e.Description || !slices.Equal(old.Accepts, e.Accepts) || !maps.Equal(old.Settings, e.Settings) {
		if err := groups.put(tx, name, groupRecord{Description: e.Description, Accepts: e.Accepts, Settings: e.Settings, editRecord: edit}); err != nil {
			return err
		}
	}
	var want []string
	for _, h := range e.Members {
		want = append(want, name+"/"+string(h))
	}
	plus, minus, err := replace(tx, members, name+"/", want, edit)
	if err != nil {
		return err
	}
	if e.Condition != nil {
		more, less, err := replaceTerms(tx, name, *e.Condition, edit)
		if err != nil {
			return err
		}
		plus, minus = append(plus, more...), append(minus, less...)
	}
	return a.audit(tx, by, action, "group "+name, changes(minus, old.Settings, e.Settings), changes(plus, e.Settings, old.Settings))
}

// With is the group as EditMembers makes it.
func (g GroupRow) With(add, drop []agentproto.HostID) GroupEdit {
	e, in := g.Edit(), map[agentproto.HostID]bool{}
	for _, id := range slices.Concat(e.Members, add) {
		in[id] = true
	}
	for _, id := range drop {
		delete(in, id)
	}
	e.Members = slices.Sorted(maps.Keys(in))
	return e
}

// EditMembers gives hosts to a group one by one, and takes others that were
// given to it out of it; who is in it by its condition stays. All else of the
// group stays as it is.
func (a *Appliance) EditMembers(ctx context.Context, by Actor, name string, add, drop []agentproto.HostID) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	g, err := a.Group(ctx, name)
	if err != nil {
		return err
	}
	if err := g.With(add, drop).check(a.cat, name); err != nil {
		return err
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		if s, err := groupState(tx, name); err != nil || s.head == nil {
			return cmpErr(err, noGroup(name))
		}
		edit := editRecord{By: by.Name, At: tx.Now()}
		return a.versionedIn(groupHistory, tx, by, name, "edit group", func() error {
			plus, minus, err := moveMembers(tx, name, add, drop, edit)
			if err != nil || len(plus)+len(minus) == 0 {
				return err
			}
			return a.audit(tx, by, "edit group", "group "+name, joinIDs(minus), joinIDs(plus))
		})
	})
}

// moveMembers writes what differs, and says which hosts that were: one that was
// in the group already, or never in it, leaves no trace.
func moveMembers(tx *replicate.Tx, name string, add, drop []agentproto.HostID, edit editRecord) (plus, minus []agentproto.HostID, err error) {
	for _, id := range add {
		key := name + "/" + string(id)
		if _, in, err := members.find(tx, key); err != nil || in {
			if err != nil {
				return nil, nil, err
			}
			continue
		}
		if err := members.put(tx, key, edit); err != nil {
			return nil, nil, err
		}
		plus = append(plus, id)
	}
	for _, id := range drop {
		key := name + "/" + string(id)
		if _, in, err := members.find(tx, key); err != nil || !in {
			if err != nil {
				return nil, nil, err
			}
			continue
		}
		if err := members.del(tx, key); err != nil {
			return nil, nil, err
		}
		minus = append(minus, id)
	}
	return plus, minus, nil
}

// joinIDs are hosts for the audit log, the first of very many.
func joinIDs(ids []agentproto.HostID) string {
	const most = 200
	var list []string
	for _, id := range ids[:min(len(ids), most)] {
		list = append(list, string(id))
	}
	if len(ids) > most {
		list = append(list, fmt.Sprintf("and %d more", len(ids)-most))
	}
	return strings.Join(list, ", ")
}

// replaceTerms makes the records of a group's condition those that it needs,
// and says what became more and less, for the audit log.
func replaceTerms(tx *replicate.Tx, group string, c Condition, edit editRecord) (more, less []string, err error) {
	if c, err = c.checked(); err != nil {
		return nil, nil, err
	}
	var want []string
	for _, k := range c.keys() {
		want = append(want, termID(group, k))
	}
	more, less, err = replace(tx, terms, group+"/", want, edit)
	for _, list := range [][]string{more, less} {
		for i, s := range list {
			list[i] = strings.Replace(s, "/", " ", 1)
		}
	}
	return more, less, err
}

// changes are hosts and options that are on one side of an edit and not on the
// other, for the audit log.
func changes(hosts []string, these, others map[string]string) string {
	list := slices.Clone(hosts)
	for _, key := range slices.Sorted(maps.Keys(these)) {
		if others[key] != these[key] {
			list = append(list, key+" = "+these[key])
		}
	}
	return strings.Join(list, ", ")
}

// DeleteGroup deletes a group, its memberships, and what is assigned to it.
// Its versions stay.
func (a *Appliance) DeleteGroup(ctx context.Context, by Actor, name string) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	if name == everyone {
		return errEveryone
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error { return a.removeGroup(tx, by, name) })
}

func (a *Appliance) removeGroup(tx *replicate.Tx, by Actor, name string) error {
	was, err := groupState(tx, name)
	if err != nil || was.head == nil {
		return cmpErr(err, noGroup(name))
	}
	if err := cmp.Or(groups.del(tx, name), delAll(tx, members, name+"/"), delAll(tx, terms, name+"/")); err != nil {
		return err
	}
	for entry, t := range map[string]table[editRecord]{packageEntry: assigns, profileEntry: grants} {
		from, err := a.dropGroup(tx, by, t, name)
		if err != nil {
			return err
		}
		for _, p := range from {
			was.entries[entry+p] = true
		}
	}
	if err := a.keepVersion(groupHistory, tx, by, name, "delete group", was, versionState{}); err != nil {
		return err
	}
	return a.audit(tx, by, "delete group", "group "+name, was.hadText(), "")
}

var errEveryone = &Problem{Kind: Conflict, Msg: "The group all cannot be deleted: it is every host."}

// dropGroup takes a group out of what is assigned, or given, to it, and says
// which packages or profiles those were.
func (a *Appliance) dropGroup(tx *replicate.Tx, by Actor, t table[editRecord], name string) (from []string, err error) {
	for r, err := range t.all(tx, "") {
		if err != nil {
			return nil, err
		}
		if p, ok := strings.CutSuffix(r.id, "/group/"+name); ok {
			from = append(from, p)
		}
	}
	for _, p := range from {
		id := p + "/group/" + name
		err := a.versionedKey(tx, by, t.prefix+id, "delete group "+name, func() error { return t.del(tx, id) })
		if err != nil {
			return nil, err
		}
	}
	return from, nil
}

func noGroup(name string) error {
	return &Problem{Kind: NotFound, Msg: fmt.Sprintf("There is no group %.64q.", name), Hint: "It may have been deleted; the audit log says by whom."}
}

// Edit is the group as it is, to change and send back.
func (g GroupRow) Edit() GroupEdit {
	condition := g.Condition
	return GroupEdit{Description: g.Description, Accepts: g.Accepts, Members: g.Members, Condition: &condition, Settings: maps.Clone(g.Settings), Seen: g.Version}
}
