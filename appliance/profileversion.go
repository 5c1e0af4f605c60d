package appliance

import (
	"context"
	"strings"

	"wuamesh/agentproto"
	"wuamesh/replicate"
)

// A ProfileVersion is a profile as it was after an edit.
type ProfileVersion struct {
	PackageVersion
	Exists bool        `json:"exists"` // false: it was deleted then
	Edit   ProfileEdit `json:"edit"`   // what going back to it stores
	Gone   []string    `json:"gone,omitempty"`
}

// A lastEdit is the last version of a profile: of what an edit took out of it
// only that is left.
type lastEdit struct {
	id string
	editRecord
}

// takeProfileVersion keeps which is the last.
func (c *catalogue) takeProfileVersion(key string, r replicate.Record) error {
	var v versionRecord
	if r.Deleted {
		return nil
	}
	if err := decode(r.Key, r.Value, &v); err != nil {
		return err
	}
	if name, id, _ := strings.Cut(key, "/"); id > c.profileEdits[name].id {
		c.profileEdits[name] = lastEdit{id, v.editRecord}
	}
	return nil
}

// optionEntry is before the options of a state, which go on with "=" and the
// value.
const optionEntry = "option/"

// profileState is the profile as the store has it.
func profileState(tx *replicate.Tx, name string) (s versionState, err error) {
	s.entries = map[string]bool{}
	head, ok, err := profiles.find(tx, name)
	if err != nil {
		return s, err
	}
	if ok {
		s.head = &versionHead{Description: head.Description}
	}
	for r, err := range profileOptions.all(tx, name+"/") {
		if err != nil {
			return s, err
		}
		s.entries[optionEntry+strings.TrimPrefix(r.id, name+"/")+"="+r.value.Value] = true
	}
	for r, err := range grants.all(tx, name+"/") {
		if err != nil {
			return s, err
		}
		s.entries[strings.TrimPrefix(r.id, name+"/")] = true
	}
	return s, nil
}

// ProfileVersions lists the edits of a profile, the latest first; of one that
// was deleted, too. Moving it in the order is none of them.
func (a *Appliance) ProfileVersions(ctx context.Context, name string) ([]PackageVersion, error) {
	return a.versionsIn(ctx, profileHistory, name)
}

// ProfileVersion is a profile as it was after one of its edits.
func (a *Appliance) ProfileVersion(ctx context.Context, name, id string) (ProfileVersion, error) {
	v, s, err := a.versionIn(ctx, profileHistory, name, id)
	if err != nil {
		return ProfileVersion{}, err
	}
	d := ProfileVersion{PackageVersion: v, Exists: s.head != nil, Edit: ProfileEdit{Options: map[string]string{}, Groups: []string{}, Hosts: []agentproto.HostID{}}}
	if s.head != nil {
		d.Edit.Description = s.head.Description
	}
	a.cat.mu.RLock()
	defer a.cat.mu.RUnlock()
	for _, k := range onlyIn(s.entries, nil) {
		to, target, _ := strings.Cut(k, "/")
		switch {
		case to == "option":
			key, value, _ := strings.Cut(target, "=")
			d.Edit.Options[key] = value
		case to == "group" && a.cat.isGroup(target):
			d.Edit.Groups = append(d.Edit.Groups, target)
		case to == "host" && a.cat.hosts[agentproto.HostID(target)] != nil:
			d.Edit.Hosts = append(d.Edit.Hosts, agentproto.HostID(target))
		default:
			d.Gone = append(d.Gone, to+" "+target)
		}
	}
	return d, nil
}

func (a *Appliance) restorableProfile(ctx context.Context, name, id string) (ProfileVersion, error) {
	d, err := a.ProfileVersion(ctx, name, id)
	if err == nil && !d.Exists {
		err = profileHistory.gone(name)
	}
	return d, err
}

// PreviewProfileVersion says what RestoreProfile would do.
func (a *Appliance) PreviewProfileVersion(ctx context.Context, name, id string) (Impact, error) {
	d, err := a.restorableProfile(ctx, name, id)
	if err != nil {
		return Impact{}, err
	}
	return a.PreviewProfile(ctx, name, d.Edit)
}

// RestoreProfile makes a profile what it was after one of its edits, as a new
// version; a deleted one is there again, last in the order.
func (a *Appliance) RestoreProfile(ctx context.Context, by Actor, name, id string) error {
	d, err := a.restorableProfile(ctx, name, id)
	if err != nil {
		return err
	}
	_, err = a.putProfile(ctx, by, name, d.Edit, d.goBack())
	return err
}

// UndoProfile takes the edit of a profile back that made a version, unless
// somebody edited the profile since.
func (a *Appliance) UndoProfile(ctx context.Context, by Actor, name, id string) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	before, err := a.beforeEdit(ctx, profileHistory, name, id)
	if err != nil {
		return err
	}
	d, err := a.restorableProfile(ctx, name, before)
	if err != nil {
		return err
	}
	d.Edit.Seen = id
	_, err = a.putProfile(ctx, by, name, d.Edit, d.goBack())
	return err
}

// DeletedProfiles lists profiles that are no more and of which versions are
// kept, by name.
func (a *Appliance) DeletedProfiles(ctx context.Context) ([]DeletedPackage, error) {
	return a.deletedIn(ctx, profileHistory, func(name string) bool { p := a.cat.profiles[name]; return p != nil && p.exists })
}
