package ui

import (
	"net/http"

	"wuamesh/appliance"
)

// versionView is a rule package as it was, and what going back would do.
type versionView struct {
	Name   string
	Was    appliance.VersionDetail
	Impact *appliance.Impact // nil when there is nothing to go back to
}

func (v versionView) title() string {
	if v.Was.At.IsZero() {
		return v.Name + " as it was before"
	}
	return v.Name + " of " + moment(v.Was.At)
}

func (v versionView) sub() string {
	if v.Was.By == "" {
		return "Before versions were kept"
	}
	return v.Was.Action + " by " + v.Was.By + " on " + v.Was.Node
}

// versionTitle names a version in a list.
func versionTitle(v appliance.PackageVersion) string {
	if v.At.IsZero() {
		return "As it was before versions were kept"
	}
	return v.Action + " by " + v.By + " on " + v.Node
}

func (u *UI) version(r *http.Request) (reply, error) {
	v := versionView{Name: r.PathValue("name")}
	var err error
	if v.Was, err = u.node.Version(r.Context(), v.Name, r.PathValue("version")); err != nil {
		return reply{}, err
	}
	if v.Was.Exists && !v.Was.Current {
		i, err := u.node.PreviewVersion(r.Context(), v.Name, v.Was.ID)
		if err != nil {
			return reply{}, err
		}
		v.Impact = &i
	}
	return show(versionPage(v)), nil
}

// latestVersion is the id of the latest version of a package, empty for none.
func (u *UI) latestVersion(r *http.Request, name string) string {
	return newest(u.node.Versions(r.Context(), name))
}

// ruleUndo takes an edit back, for whoever has just made it.
func (u *UI) ruleUndo(r *http.Request) (reply, error) {
	name := r.PathValue("name")
	if err := u.node.Undo(r.Context(), actor(r), name, r.FormValue("of")); err != nil {
		return reply{}, err
	}
	return goTo("/rules/"+name).saying("Undone: %s is what it was.", name), nil
}

func (u *UI) versionRestore(r *http.Request) (reply, error) {
	name, id := r.PathValue("name"), r.PathValue("version")
	i, err := u.node.PreviewVersion(r.Context(), name, id)
	if err != nil {
		return reply{}, err
	}
	before := u.latestVersion(r, name)
	if err := u.node.Restore(r.Context(), actor(r), name, id); err != nil {
		return reply{}, err
	}
	return goTo("/rules/"+name).saying("%s is what it was. %s", name, i.Summary()).undoing(u, r, name, before), nil
}

// newest is the id of the first of versions; empty for none.
func newest(list []appliance.PackageVersion, err error) string {
	if err != nil || len(list) == 0 {
		return ""
	}
	return list[0].ID
}
