package ui

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"wuamesh/appliance"
)

// profilesPath is where settings profiles are; they are settings of agents.
const profilesPath = "/agents/profiles"

// profilesView is the list of profiles.
type profilesView struct {
	List    []appliance.ProfileRow
	Met     []appliance.MeetingRow
	Deleted []appliance.DeletedPackage
}

// profileView is the form of one profile, as it is stored or as it was sent.
type profileView struct {
	New         bool
	Row         appliance.ProfileDetail // as it is stored
	Name        string
	Description string
	Order       int      // its place; 0 for the last
	Placed      int      // its place when the form was made: who leaves it does not move it
	Others      []string // the profiles besides it, in their order
	Options     []optionField
	Groups      []appliance.GroupRow
	Chosen      []string // groups
	Hosts       string   // names, one a line
	Seen        string   // the version that the form was made of
	Problem     *appliance.Problem
	Impact      *appliance.Impact // of what the form says; nil before anything was changed
	Met         []appliance.MeetingRow
	Versions    []appliance.PackageVersion
}

// profileOptions are the options on the form of a profile: those of a group,
// and the one that few know.
var profileOptions = append(slices.Clone(optionFields), optionField{Key: "filter", Text: "Search criteria of the scan", Hint: "for the Windows Update Agent; none for its own"})

func (u *UI) profiles(r *http.Request) (reply, error) {
	list, err := u.node.Profiles(r.Context())
	if err != nil {
		return reply{}, err
	}
	met, err := u.metAbout(r, "profile ")
	if err != nil {
		return reply{}, err
	}
	deleted, err := u.node.DeletedProfiles(r.Context())
	if err != nil {
		return reply{}, err
	}
	return show(profilesPage(profilesView{list, met, deleted})), nil
}

func (u *UI) profileNew(r *http.Request) (reply, error) {
	return u.profileWith(r, profileView{New: true, Options: fill(profileOptions, nil)})
}

func (u *UI) profile(r *http.Request) (reply, error) {
	p, err := u.node.Profile(r.Context(), r.PathValue("name"))
	if err != nil {
		return reply{}, err
	}
	return u.profileWith(r, profileView{
		Row: p, Name: p.Name, Description: p.Description, Order: p.Order, Placed: p.Order, Options: fill(profileOptions, p.Options), Chosen: p.Groups,
		Hosts: strings.Join(u.node.NamesOf(r.Context(), p.Hosts), "\n"), Seen: p.Version,
	})
}

// profileWith adds what the form offers to choose from.
func (u *UI) profileWith(r *http.Request, v profileView) (reply, error) {
	list, err := u.node.Profiles(r.Context())
	if err != nil {
		return reply{}, err
	}
	for _, p := range list {
		if v.New || p.Name != v.Name {
			v.Others = append(v.Others, p.Name)
		}
	}
	if v.Placed == 0 {
		v.Placed = len(v.Others) + 1
	}
	if v.Groups, err = u.node.GroupsBrief(r.Context()); err != nil {
		return reply{}, err
	}
	if !v.New {
		if v.Met, err = u.node.Meetings(r.Context(), "profile "+v.Name); err != nil {
			return reply{}, err
		}
		if v.Versions, err = u.node.ProfileVersions(r.Context(), v.Name); err != nil {
			return reply{}, err
		}
	}
	if v.Problem != nil {
		return again(profilePage(v)), nil
	}
	return show(profilePage(v)), nil
}

// profileForm is the form as it came in, and the edit it comes to.
func (u *UI) profileForm(r *http.Request) (v profileView, e appliance.ProfileEdit, err error) {
	v = profileView{
		New: r.FormValue("isnew") != "", Name: strings.TrimSpace(r.FormValue("name")), Description: strings.TrimSpace(r.FormValue("description")),
		Options: slices.Clone(profileOptions), Chosen: r.Form["group"], Hosts: r.FormValue("hosts"), Seen: r.FormValue("seen"),
	}
	v.Order, _ = strconv.Atoi(r.FormValue("order"))
	v.Placed, _ = strconv.Atoi(r.FormValue("placed"))
	if !v.New {
		v.Name = r.PathValue("name")
		if v.Row, err = u.node.Profile(r.Context(), v.Name); err != nil {
			return v, e, err
		}
	}
	e = appliance.ProfileEdit{Description: v.Description, Options: map[string]string{}, Groups: v.Chosen, Seen: v.Seen}
	if v.Order != v.Placed {
		e.Order = v.Order
	}
	for key, value := range v.Row.Options { // what this page does not know stays
		e.Options[key] = value
	}
	read(r, v.Options, e.Options)
	e.Hosts, err = u.node.HostsNamed(r.Context(), words(v.Hosts))
	return v, e, err
}

// profileSave stores the whole form, or says what storing it would do.
func (u *UI) profileSave(r *http.Request) (reply, error) {
	v, e, err := u.profileForm(r)
	if err == nil && v.New {
		if _, err := u.node.Profile(r.Context(), v.Name); err == nil {
			v.Problem = &appliance.Problem{Kind: appliance.Conflict, Field: "name", Msg: fmt.Sprintf("There is a settings profile %s already.", v.Name), Hint: "Choose another name, or edit that one."}
			return u.profileWith(r, v)
		}
	}
	var impact appliance.Impact
	if err == nil {
		impact, err = u.node.PreviewProfile(r.Context(), v.Name, e)
	}
	if err == nil && r.FormValue("do") == "preview" {
		v.Impact = &impact
		return u.profileWith(r, v)
	}
	if err == nil {
		_, err = u.node.PutProfile(r.Context(), actor(r), v.Name, e)
	}
	if p, ok := formError(err); ok {
		v.wrong(p)
		return u.profileWith(r, v)
	}
	if err != nil {
		return reply{}, err
	}
	rep := goTo(profilesPath+"/"+v.Name).saying("%s saved. %s Hosts that are connected hear of it at once.", v.Name, impact.Summary())
	return u.history.profiles.undoing(rep, r, v.Name, v.Seen), nil
}

// wrong shows what is wrong where it is wrong.
func (v *profileView) wrong(p *appliance.Problem) {
	v.Problem = p
	if p.Field == "members" { // as HostsNamed calls it
		p.Field = "hosts"
	}
	for i, o := range v.Options {
		if p.Field == "options."+o.Key {
			v.Options[i].Wrong = p.Msg
		}
	}
}

func (v profileView) wrongIn(field string) string {
	if v.Problem != nil && v.Problem.Field == field {
		return v.Problem.Msg
	}
	return ""
}

// profileDeleteForm says what deleting a profile does, before it does.
func (u *UI) profileDeleteForm(r *http.Request) (reply, error) {
	name := r.PathValue("name")
	i, err := u.node.PreviewDeleteProfile(r.Context(), name)
	if err != nil {
		return reply{}, err
	}
	return show(profileDeletePage(name, i)), nil
}

// profileVersionView is a profile as it was, and what going back would do.
type profileVersionView struct {
	Name   string
	Was    appliance.ProfileVersion
	Hosts  []string
	Impact *appliance.Impact // nil when there is nothing to go back to
}

func (v profileVersionView) title() string {
	return versionView{Name: v.Name, Was: appliance.VersionDetail{PackageVersion: v.Was.PackageVersion}}.title()
}

func (v profileVersionView) sub() string {
	return versionView{Was: appliance.VersionDetail{PackageVersion: v.Was.PackageVersion}}.sub()
}

// upperFirst begins a sentence.
func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func (u *UI) profileVersion(r *http.Request) (reply, error) {
	v := profileVersionView{Name: r.PathValue("name")}
	var err error
	if v.Was, err = u.node.ProfileVersion(r.Context(), v.Name, r.PathValue("version")); err != nil {
		return reply{}, err
	}
	v.Hosts = u.node.NamesOf(r.Context(), v.Was.Edit.Hosts)
	if v.Was.Exists && !v.Was.Current {
		i, err := u.node.PreviewProfileVersion(r.Context(), v.Name, v.Was.ID)
		if err != nil {
			return reply{}, err
		}
		v.Impact = &i
	}
	return show(profileVersionPage(v)), nil
}

func (v profileView) title() string {
	if v.New {
		return "New settings profile"
	}
	return "Settings profile " + v.Name
}

func (v profileView) path() string {
	if v.New {
		return profilesPath
	}
	return profilesPath + "/" + v.Name
}

// saveText repeats on the button what saving does.
func (v profileView) saveText() string {
	if v.Impact == nil || v.Impact.Settings == nil {
		return "Save"
	}
	if v.Impact.Settings.Hosts == 1 {
		return "Save, 1 host gets other settings"
	}
	return "Save, " + num(v.Impact.Settings.Hosts) + " hosts get other settings"
}

// place is where the profile stands on the form, from 1.
func (v profileView) place() int {
	if v.Order == 0 {
		return len(v.Others) + 1
	}
	return min(v.Order, len(v.Others)+1)
}

// placeText says what a place in the order means.
func (v profileView) placeText(n int) string {
	last := len(v.Others) + 1
	switch {
	case last == 1:
		return "1: there is no other"
	case n == 1:
		return "1: every other one is laid over it"
	case n == last:
		return fmt.Sprintf("%d: after %s, laid over all others", n, v.Others[n-2])
	}
	return fmt.Sprintf("%d: after %s, before %s", n, v.Others[n-2], v.Others[n-1])
}

// givenText says in one line whom a profile is given to.
func givenText(p appliance.ProfileRow) string {
	list := slices.Clone(p.Groups)
	if len(p.Hosts) > 0 {
		list = append(list, count(len(p.Hosts), "single host"))
	}
	return cmp.Or(strings.Join(list, ", "), "nobody yet")
}

// sourceText names who set an option, and how it comes to the host.
func sourceText(source, via string) string {
	if via != "" {
		return source + ", given to " + via
	}
	return source
}

// sourceURL leads to who set an option; empty for a host's own file.
func sourceURL(source string) string {
	switch kind, _, _ := strings.Cut(source, " "); kind {
	case "profile", "group":
		return objectURL(source)
	}
	return ""
}

// whyChanges says who will set an option, and what it was.
func whyChanges(c appliance.SettingChange) string {
	switch c.By {
	case "default":
		return "Nobody sets it then; was " + c.From + "."
	case "wapt-get.ini":
		return "As each host's own file says; was " + c.From + "."
	}
	return "By " + c.By + "; was " + c.From + "."
}

// loud are those of a list that begins with them where the order of profiles
// alone decides, as many as anybody reads at once.
func loud(list []appliance.SettingClash) []appliance.SettingClash {
	n := 0
	for n < min(len(list), 5) && list[n].Alike {
		n++
	}
	return list[:n]
}

// setNames are the options that a version sets, by name.
func setNames(options map[string]string) []string { return slices.Sorted(maps.Keys(options)) }
