package appliance

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/replicate"
)

// A GroupVersion is a group as it was after an edit.
type GroupVersion struct {
	PackageVersion
	Exists bool      `json:"exists"` // false: it was deleted then
	Edit   GroupEdit `json:"edit"`   // what going back to it stores
	// Of a group that is no more: the rule packages and settings profiles that
	// its deletion took from it, which going back gives it again.
	Packages []string `json:"packages,omitempty"`
	Profiles []string `json:"profiles,omitempty"`
	Gone     []string `json:"gone,omitempty"` // hosts, packages and profiles that are no more; they are left out
}

// What the entries of a group's state begin with. Those of packages and
// profiles are in the version of a deletion alone: whom a package is assigned
// to is the package's own history.
const (
	acceptEntry  = "accept/"
	memberEntry  = "member/"
	termEntry    = "term/"
	packageEntry = "assigned/"
	profileEntry = "given/"
)

// groupState is the group as the store has it.
func groupState(tx *replicate.Tx, name string) (s versionState, err error) {
	s.entries = map[string]bool{}
	head, ok, err := groups.find(tx, name)
	if err != nil {
		return s, err
	}
	if !ok && name == everyone {
		head, ok = builtIn, true
	}
	if ok {
		s.head = &versionHead{Description: head.Description}
	}
	for _, m := range head.Accepts {
		s.entries[acceptEntry+string(m)] = true
	}
	for key, value := range head.Settings {
		s.entries[optionEntry+key+"="+value] = true
	}
	for entry, t := range map[string]table[editRecord]{memberEntry: members, termEntry: terms} {
		for r, err := range t.all(tx, name+"/") {
			if err != nil {
				return s, err
			}
			s.entries[entry+strings.TrimPrefix(r.id, name+"/")] = true
		}
	}
	return s, nil
}

// groupEntryText says what an entry of a group is, empty for any other.
func groupEntryText(entry string) string {
	kind, rest, _ := strings.Cut(entry, "/")
	switch kind + "/" {
	case acceptEntry:
		return "accepts " + rest
	case memberEntry:
		return "host " + rest
	case termEntry:
		_, k := termOf("/" + rest)
		return "condition " + string(k.fact) + " " + k.value
	case packageEntry:
		return "rule package " + rest
	case profileEntry:
		return "settings profile " + rest
	}
	return ""
}

// factOf is the fact of an entry of a condition.
func factOf(entry string) fact {
	_, k := termOf(entry)
	return k.fact
}

// GroupVersions lists the edits of a group, the latest first; of one that was
// deleted, too.
func (a *Appliance) GroupVersions(ctx context.Context, name string) ([]PackageVersion, error) {
	return a.versionsIn(ctx, groupHistory, name)
}

// GroupVersion is a group as it was after one of its edits.
func (a *Appliance) GroupVersion(ctx context.Context, name, id string) (GroupVersion, error) {
	v, s, err := a.versionIn(ctx, groupHistory, name, id)
	if err != nil {
		return GroupVersion{}, err
	}
	lost, err := a.lostAssignments(ctx, name)
	if err != nil {
		return GroupVersion{}, err
	}
	a.cat.mu.RLock()
	defer a.cat.mu.RUnlock()
	d := GroupVersion{PackageVersion: v, Exists: s.head != nil}
	d.Edit, d.Gone = a.cat.groupEditOf(name, s)
	if !d.Exists {
		return d, nil
	}
	for _, k := range lost {
		kind, target, _ := strings.Cut(k, "/")
		p, f := a.cat.packages[target], a.cat.profiles[target]
		switch {
		case kind+"/" == packageEntry && p != nil && p.exists:
			d.Packages = append(d.Packages, target)
		case kind+"/" == profileEntry && f != nil && f.exists:
			d.Profiles = append(d.Profiles, target)
		default:
			d.Gone = append(d.Gone, groupEntryText(k))
		}
	}
	return d, nil
}

// lostAssignments are what the deletion of a group took from it; none while
// it is there.
func (a *Appliance) lostAssignments(ctx context.Context, name string) ([]string, error) {
	list, now, err := a.read(ctx, groupHistory, name)
	if err != nil || now.head != nil {
		return nil, err
	}
	for _, r := range slices.Backward(list) {
		if r.value.Is == nil {
			return slices.DeleteFunc(slices.Clone(r.value.Minus), func(k string) bool {
				return !strings.HasPrefix(k, packageEntry) && !strings.HasPrefix(k, profileEntry)
			}), nil
		}
	}
	return nil, nil
}

// groupEditOf is what stores a state again; gone are hosts that are no more.
func (c *catalogue) groupEditOf(name string, s versionState) (e GroupEdit, gone []string) {
	e = GroupEdit{Accepts: []rules.Maturity{}, Members: []agentproto.HostID{}, Settings: map[string]string{}}
	if s.head != nil {
		e.Description = s.head.Description
	}
	chosen := map[termKey]editRecord{}
	for _, k := range onlyIn(s.entries, nil) {
		kind, rest, _ := strings.Cut(k, "/")
		switch kind + "/" {
		case acceptEntry:
			e.Accepts = append(e.Accepts, rules.Maturity(rest))
		case optionEntry:
			key, value, _ := strings.Cut(rest, "=")
			e.Settings[key] = value
		case memberEntry:
			if c.hosts[agentproto.HostID(rest)] == nil {
				gone = append(gone, groupEntryText(k))
				continue
			}
			e.Members = append(e.Members, agentproto.HostID(rest))
		case termEntry:
			_, t := termOf("/" + rest)
			chosen[t] = editRecord{}
		}
	}
	if name != everyone {
		condition := conditionOf(chosen)
		e.Condition = &condition
	}
	return e, gone
}

// PreviewGroupVersion says what RestoreGroup would do.
func (a *Appliance) PreviewGroupVersion(ctx context.Context, name, id string) (Impact, error) {
	return a.groupPast().look(ctx, name, id)
}

// RestoreGroup makes a group what it was after one of its edits, as a new
// version. A deleted one is there again, with the rule packages and settings
// profiles that its deletion took from it; what a group that is there was
// given since stays as it is.
func (a *Appliance) RestoreGroup(ctx context.Context, by Actor, name, id string) error {
	return a.groupPast().restore(ctx, by, name, id)
}

// UndoGroup takes the edit of a group back that made a version, unless
// somebody edited the group since.
func (a *Appliance) UndoGroup(ctx context.Context, by Actor, name, id string) error {
	return a.groupPast().undo(ctx, by, name, id)
}

func (a *Appliance) groupPast() past[GroupVersion] {
	return past[GroupVersion]{
		a, groupHistory, a.GroupVersion,
		func(_ context.Context, name string, d GroupVersion) (Impact, error) {
			return a.previewGroup(name, d.Edit, d.Packages, d.Profiles)
		},
		func(ctx context.Context, by Actor, name string, d GroupVersion, action, seen string) error {
			d.Edit.Seen = seen
			_, err := a.putGroup(ctx, by, name, d.Edit, action, &d)
			return err
		},
	}
}

func (d GroupVersion) then() (PackageVersion, bool) { return d.PackageVersion, d.Exists }

// giveBack assigns to a group what its deletion took from it, where that is
// there still.
func (a *Appliance) giveBack(tx *replicate.Tx, by Actor, name string, d GroupVersion) error {
	edit := editRecord{By: by.Name, At: tx.Now()}
	give := func(t table[editRecord], state func(*replicate.Tx, string) (versionState, error), to []string) error {
		for _, p := range to {
			s, err := state(tx, p)
			if err != nil {
				return err
			}
			if id := p + "/group/" + name; s.head != nil {
				err = a.versionedKey(tx, by, t.prefix+id, "bring back group "+name, func() error { return t.put(tx, id, edit) })
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return cmp.Or(give(assigns, stateOf, d.Packages), give(grants, profileState, d.Profiles))
}

// DeletedGroups lists groups that are no more and of which versions are kept,
// by name.
func (a *Appliance) DeletedGroups(ctx context.Context) ([]DeletedPackage, error) {
	return a.deletedIn(ctx, groupHistory, a.cat.isGroup)
}
