package ui

import (
	"context"
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

// A history is what is the same of everything that keeps its versions:
// packages, groups and settings profiles.
type history struct {
	what     string // one of them, in a sentence
	list     string // the path of their list
	versions func(ctx context.Context, name string) ([]appliance.PackageVersion, error)
	preview  func(ctx context.Context, name, version string) (appliance.Impact, error)
	restore  func(ctx context.Context, by appliance.Actor, name, version string) error
	undo     func(ctx context.Context, by appliance.Actor, name, of string) error

	previewDelete func(ctx context.Context, name string) (appliance.Impact, error)
	delete        func(ctx context.Context, by appliance.Actor, name string) error
}

// histories has those of a node.
type histories struct{ packages, groups, profiles history }

func historiesOf(a *appliance.Appliance) histories {
	return histories{
		packages: history{
			what: "Package", list: "/rules", versions: a.Versions, preview: a.PreviewVersion, restore: a.Restore, undo: a.Undo,
			previewDelete: a.PreviewDeletePackage, delete: a.DeletePackage,
		},
		groups: history{
			what: "Group", list: "/groups", versions: a.GroupVersions, preview: a.PreviewGroupVersion, restore: a.RestoreGroup, undo: a.UndoGroup,
			previewDelete: a.PreviewDeleteGroup, delete: a.DeleteGroup,
		},
		profiles: history{
			what: "Settings profile", list: profilesPath, versions: a.ProfileVersions, preview: a.PreviewProfileVersion, restore: a.RestoreProfile, undo: a.UndoProfile,
			previewDelete: a.PreviewDeleteProfile, delete: a.DeleteProfile,
		},
	}
}

// handle registers what is done with versions.
func (h history) handle(mux *http.ServeMux, u *UI) {
	mux.Handle("POST "+h.list+"/{name}/undo", u.page(h.takeBack))
	mux.Handle("POST "+h.list+"/{name}/versions/{version}", u.page(h.goBack))
	mux.Handle("POST "+h.list+"/{name}/delete", u.page(h.remove))
}

// latest is the id of the latest version; empty for none.
func (h history) latest(r *http.Request, name string) string {
	list, err := h.versions(r.Context(), name)
	if err != nil || len(list) == 0 {
		return ""
	}
	return list[0].ID
}

// undoing offers to take the edit back that an answer is about, when there was
// one: before is the version that was the latest until then.
func (h history) undoing(rep reply, r *http.Request, name, before string) reply {
	if now := h.latest(r, name); before != "" && now != before {
		rep.undo = undo{h.list + "/" + name + "/undo", now}
	}
	return rep
}

// takeBack takes an edit back, for whoever has just made it.
func (h history) takeBack(r *http.Request) (reply, error) {
	name := r.PathValue("name")
	if err := h.undo(r.Context(), actor(r), name, r.FormValue("of")); err != nil {
		return reply{}, err
	}
	return goTo(h.list+"/"+name).saying("Undone: %s is what it was.", name), nil
}

// goBack makes one what it was at a version.
func (h history) goBack(r *http.Request) (reply, error) {
	name, version := r.PathValue("name"), r.PathValue("version")
	i, err := h.preview(r.Context(), name, version)
	if err != nil {
		return reply{}, err
	}
	before := h.latest(r, name)
	if err := h.restore(r.Context(), actor(r), name, version); err != nil {
		return reply{}, err
	}
	return h.undoing(goTo(h.list+"/"+name).saying("%s is what it was. %s", name, i.Summary()), r, name, before), nil
}

func (h history) remove(r *http.Request) (reply, error) {
	name := r.PathValue("name")
	i, err := h.previewDelete(r.Context(), name)
	if err != nil {
		return reply{}, err
	}
	before := h.latest(r, name)
	if err := h.delete(r.Context(), actor(r), name); err != nil {
		return reply{}, err
	}
	rep := goTo(h.list).saying("%s %s is deleted. %s It is listed below, to bring it back.", h.what, name, i.Summary())
	return h.undoing(rep, r, name, before), nil
}
