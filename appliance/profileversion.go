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

// PreviewProfileVersion says what RestoreProfile would do.
func (a *Appliance) PreviewProfileVersion(ctx context.Context, name, id string) (Impact, error) {
	return a.profilePast().look(ctx, name, id)
}

// RestoreProfile makes a profile what it was after one of its edits, as a new
// version; a deleted one is there again, last in the order.
func (a *Appliance) RestoreProfile(ctx context.Context, by Actor, name, id string) error {
	return a.profilePast().restore(ctx, by, name, id)
}

// UndoProfile takes the edit of a profile back that made a version, unless
// somebody edited the profile since.
func (a *Appliance) UndoProfile(ctx context.Context, by Actor, name, id string) error {
	return a.profilePast().undo(ctx, by, name, id)
}

func (a *Appliance) profilePast() past[ProfileVersion] {
	return past[ProfileVersion]{
		a, profileHistory, a.ProfileVersion,
		func(ctx context.Context, name string, d ProfileVersion) (Impact, error) {
			return a.PreviewProfile(ctx, name, d.Edit)
		},
		func(ctx context.Context, by Actor, name string, d ProfileVersion, action, seen string) error {
			d.Edit.Seen = seen
			_, err := a.putProfile(ctx, by, name, d.Edit, action)
			return err
		},
	}
}

func (d ProfileVersion) then() (PackageVersion, bool) { return d.PackageVersion, d.Exists }

// DeletedProfiles lists profiles that are no more and of which versions are
// kept, by name.
func (a *Appliance) DeletedProfiles(ctx context.Context) ([]DeletedPackage, error) {
	return a.deletedIn(ctx, profileHistory, func(name string) bool { p := a.cat.profiles[name]; return p != nil && p.exists })
}
