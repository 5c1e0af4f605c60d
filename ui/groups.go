package ui

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// groupView is one group as the form has it.
type groupView struct {
	New         bool
	Row         appliance.GroupRow // as it is stored
	Name        string
	Description string
	Accepts     []rules.Maturity
	Members     string // names of hosts, one a line
	Facts       []groupFact
	Options     []optionField
	Problem     *appliance.Problem
	Preview     *appliance.Membership // of what the form says; nil before anything was changed
	Impact      *appliance.Impact
	Met         []appliance.MeetingRow
	Versions    []appliance.PackageVersion
	Seen        string // the version that the form was made of
}

// A groupFact is one fact of the condition on the form.
type groupFact struct {
	Key, Text, Hint string
	Value           string // lists with commas
	Wrong           string
}

// groupFacts are the facts in the words of the page.
var groupFacts = []groupFact{
	{Key: "name", Text: "Name", Hint: "BRS-*, !*-LAB-*"},
	{Key: "os", Text: "System", Hint: "Windows 11*, Windows Server 2025*"},
	{Key: "build", Text: "Build", Hint: "10.0.26200.*, or >=10.0.26100"},
	{Key: "domain", Text: "Domain", Hint: "corp.example"},
	{Key: "ad_site", Text: "Active Directory site", Hint: "Brest*"},
	{Key: "subnet", Text: "Subnet of an address", Hint: "10.35.0.0/16"},
	{Key: "site", Text: "Site of the node it is at", Hint: "brest; notebooks change theirs"},
}

// An optionField is one option of [waptwua] on the form of a group or of a
// profile. The empty value leaves it to whoever else sets it.
type optionField struct {
	Key, Text, Hint string
	Values          []string // to choose from; none: to be typed
	Value           string
	Wrong           string
}

var yesNo = []string{rules.Bool(true), rules.Bool(false)}

// optionFields are the options in the words of the page.
var optionFields = []optionField{
	{Key: "enabled", Text: "Windows' own updating is taken over", Hint: "False gives it back, and nothing is scanned", Values: yesNo},
	{Key: "default_allow", Text: "Install what no rule mentions", Values: yesNo},
	{Key: "allowed_severities", Text: "Severities allowed without a rule", Hint: "Critical,Important; none for no severity"},
	{Key: "direct_download", Text: "Files come from Microsoft first", Values: yesNo},
	{Key: "download_scheduling", Text: "Scan every", Hint: "12h, 1d"},
	{Key: "install_scheduling", Text: "Install every", Hint: "7d; 0 is never by itself"},
	{Key: "install_at_shutdown", Text: "Install while the host shuts down", Values: yesNo},
	{Key: "install_delay", Text: "Hold back for", Hint: "7d after an update was published"},
	{Key: "waptexit_disable_skip_windows_updates", Text: "Nobody may skip the install at shutdown", Values: yesNo},
	{Key: "include_potentially_superseded_updates", Text: "Also list what a newer update replaces", Values: yesNo},
}

func (u *UI) groups(r *http.Request) (reply, error) {
	list, err := u.node.GroupsBrief(r.Context())
	if err != nil {
		return reply{}, err
	}
	deleted, err := u.node.DeletedGroups(r.Context())
	if err != nil {
		return reply{}, err
	}
	return show(groupsPage(list, deleted)), nil
}

func (u *UI) groupNew(r *http.Request) (reply, error) {
	return u.groupWith(r, groupView{New: true, Facts: factsOf(appliance.Condition{}), Options: optionsOf(nil)})
}

func (u *UI) group(r *http.Request) (reply, error) {
	row, err := u.node.Group(r.Context(), r.PathValue("name"))
	if err != nil {
		return reply{}, err
	}
	return u.groupWith(r, groupView{
		Row: row, Name: row.Name, Description: row.Description, Accepts: row.Accepts, Members: strings.Join(u.node.NamesOf(r.Context(), row.Members), "\n"),
		Facts: factsOf(row.Condition), Options: optionsOf(row.Settings), Seen: row.Version,
	})
}

// groupWith adds what is told of a group besides its form.
func (u *UI) groupWith(r *http.Request, v groupView) (rep reply, err error) {
	if !v.New {
		if v.Met, err = u.node.Meetings(r.Context(), "group "+v.Name); err != nil {
			return reply{}, err
		}
		v.Versions, err = u.node.GroupVersions(r.Context(), v.Name)
		if p, ok := appliance.AsProblem(err); err != nil && (!ok || p.Kind != appliance.NotFound) {
			return reply{}, err
		}
	}
	if v.Problem != nil {
		return again(groupPage(v)), nil
	}
	return show(groupPage(v)), nil
}

func factsOf(c appliance.Condition) []groupFact {
	list := slices.Clone(groupFacts)
	for i, values := range [][]string{c.Name, c.OS, c.Build, c.Domain, c.ADSite, c.Subnet, c.Site} { // in the order of groupFacts
		list[i].Value = strings.Join(values, ", ")
	}
	return list
}

func optionsOf(settings map[string]string) []optionField {
	return fill(optionFields, settings)
}

// noSeverity is how the form says that no severity is allowed without a rule.
const noSeverity = "none"

// fill puts settings into the fields of a form.
func fill(fields []optionField, settings map[string]string) []optionField {
	var list []optionField
	for _, o := range fields {
		value, set := settings[o.Key]
		if o.Value = value; set && value == "" {
			o.Value = noSeverity // or no filter
		}
		if b, err := rules.ParseBool(o.Value); o.Values != nil && err == nil {
			o.Value = rules.Bool(b)
		}
		list = append(list, o)
	}
	return list
}

// groupForm is the form as it came in, and the edit it comes to.
func (u *UI) groupForm(r *http.Request) (v groupView, e appliance.GroupEdit, err error) {
	v = groupView{
		New: r.FormValue("isnew") != "", Name: strings.TrimSpace(r.FormValue("name")), Description: strings.TrimSpace(r.FormValue("description")),
		Accepts: typed[rules.Maturity](r.Form["accepts"]), Members: r.FormValue("members"), Facts: slices.Clone(groupFacts), Options: optionsOf(nil),
		Seen: r.FormValue("seen"),
	}
	if !v.New {
		v.Name = r.PathValue("name")
		if v.Row, err = u.node.Group(r.Context(), v.Name); err != nil {
			return v, e, err
		}
	}
	texts := map[string]string{}
	for i, f := range v.Facts {
		v.Facts[i].Value = r.FormValue("if_" + f.Key)
		texts[f.Key] = v.Facts[i].Value
	}
	e = appliance.GroupEdit{Description: v.Description, Accepts: v.Accepts, Settings: map[string]string{}, Seen: v.Seen}
	for key, value := range v.Row.Settings { // what this page does not know stays
		e.Settings[key] = value
	}
	read(r, v.Options, e.Settings)
	if v.Name == everyone {
		return v, e, nil
	}
	c, err := appliance.ParseCondition(texts)
	if err != nil {
		return v, e, err
	}
	e.Condition = &c
	e.Members, err = u.node.HostsNamed(r.Context(), words(v.Members))
	return v, e, err
}

// read takes what a form says into its fields and into settings.
func read(r *http.Request, fields []optionField, settings map[string]string) {
	for i, o := range fields {
		value := strings.TrimSpace(r.FormValue(o.Key))
		fields[i].Value = value
		delete(settings, o.Key)
		switch {
		case strings.EqualFold(value, noSeverity) && (o.Key == "allowed_severities" || o.Key == "filter"):
			settings[o.Key] = ""
		case value != "":
			settings[o.Key] = value
		}
	}
}

// words are the values of a field that takes one a line.
func words(text string) (list []string) {
	for w := range strings.FieldsFuncSeq(text, func(c rune) bool { return strings.ContainsRune("\r\n,;", c) }) {
		if w = strings.TrimSpace(w); w != "" {
			list = append(list, w)
		}
	}
	return list
}

// groupSave stores the whole form, or says who would be in the group and what
// storing it would do.
func (u *UI) groupSave(r *http.Request) (reply, error) {
	v, e, err := u.groupForm(r)
	if err == nil && v.New {
		if _, err := u.node.Group(r.Context(), v.Name); err == nil {
			return u.groupAgain(r, v, &appliance.Problem{Kind: appliance.Conflict, Field: "name", Msg: fmt.Sprintf("There is a group %s already.", v.Name), Hint: "Choose another name, or edit that one."})
		}
	}
	var impact appliance.Impact
	var members appliance.Membership
	if err == nil {
		impact, err = u.node.PreviewGroup(r.Context(), v.Name, e)
	}
	if err == nil {
		members, err = u.node.PreviewMembers(r.Context(), v.Name, e)
	}
	if err == nil && r.FormValue("do") == "preview" {
		v.Preview, v.Impact = &members, &impact
		return u.groupWith(r, v)
	}
	if err == nil {
		_, err = u.node.PutGroup(r.Context(), actor(r), v.Name, e)
	}
	if p, ok := formError(err); ok {
		return u.groupAgain(r, v, p)
	}
	if err != nil {
		return reply{}, err
	}
	rep := goTo("/groups/"+v.Name).saying("Saved. %s %s Hosts hear of it at their next check-in.", membersText(members), impact.Summary())
	return u.history.groups.undoing(rep, r, v.Name, v.Seen), nil
}

// groupAgain shows the form with what is wrong where it is wrong.
func (u *UI) groupAgain(r *http.Request, v groupView, p *appliance.Problem) (reply, error) {
	v.Problem = p
	for i, o := range v.Options {
		if p.Field == "settings."+o.Key {
			v.Options[i].Wrong = p.Msg
		}
	}
	for i, f := range v.Facts {
		if p.Field == "condition."+f.Key {
			v.Facts[i].Wrong = p.Msg
		}
	}
	return u.groupWith(r, v)
}

// groupDeleteForm says what deleting a group does, before it does.
func (u *UI) groupDeleteForm(r *http.Request) (reply, error) {
	g, err := u.node.Group(r.Context(), r.PathValue("name"))
	if err != nil {
		return reply{}, err
	}
	i, err := u.node.PreviewDeleteGroup(r.Context(), g.Name)
	if err != nil {
		return reply{}, err
	}
	return show(groupDeletePage(g, i)), nil
}

// groupVersionView is a group as it was, and what going back would do.
type groupVersionView struct {
	Name   string
	Was    appliance.GroupVersion
	Hosts  []string          // that were given one by one
	Impact *appliance.Impact // nil when there is nothing to go back to
}

func (v groupVersionView) path() string { return "/groups/" + v.Name }

func (v groupVersionView) title() string {
	return versionView{Name: v.Name, Was: appliance.VersionDetail{PackageVersion: v.Was.PackageVersion}}.title()
}

func (v groupVersionView) sub() string {
	return versionView{Was: appliance.VersionDetail{PackageVersion: v.Was.PackageVersion}}.sub()
}

func (u *UI) groupVersion(r *http.Request) (reply, error) {
	v := groupVersionView{Name: r.PathValue("name")}
	var err error
	if v.Was, err = u.node.GroupVersion(r.Context(), v.Name, r.PathValue("version")); err != nil {
		return reply{}, err
	}
	v.Hosts = u.node.NamesOf(r.Context(), v.Was.Edit.Members)
	if v.Was.Exists && !v.Was.Current {
		i, err := u.node.PreviewGroupVersion(r.Context(), v.Name, v.Was.ID)
		if err != nil {
			return reply{}, err
		}
		v.Impact = &i
	}
	return show(groupVersionPage(v)), nil
}

// membersText says in numbers who is in a group after an edit.
func membersText(m appliance.Membership) string {
	s := count(m.Hosts, "host") + " in the group"
	switch {
	case m.Joins > 0 && m.Leaves > 0:
		s += fmt.Sprintf(", %s new, %s gone", num(m.Joins), num(m.Leaves))
	case m.Joins > 0:
		s += fmt.Sprintf(", %s new", num(m.Joins))
	case m.Leaves > 0:
		s += fmt.Sprintf(", %s gone", num(m.Leaves))
	}
	return s + "."
}

// everyone is the built-in group.
const everyone = "all"

func (v groupView) title() string {
	if v.New {
		return "New group"
	}
	return "Group " + v.Name
}

func (v groupView) path() string {
	if v.New {
		return "/groups"
	}
	return "/groups/" + v.Name
}

func (v groupView) wrong(field string) string {
	if v.Problem != nil && v.Problem.Field == field {
		return v.Problem.Msg
	}
	return ""
}

// saveText repeats on the button what saving does.
func (v groupView) saveText() string {
	if v.Preview != nil {
		return "Save with " + count(v.Preview.Hosts, "host")
	}
	if v.New {
		return "Make the group"
	}
	return "Save for " + count(v.Row.Hosts, "host")
}

// settingsText are the options of a group or a profile in one line.
func settingsText(settings map[string]string) string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		list = append(list, key+" = "+cmp.Or(settings[key], noSeverity))
	}
	return strings.Join(list, ", ")
}

// optionHint names the option as wapt-get.ini does.
func optionHint(o optionField) string {
	if o.Hint == "" {
		return o.Key
	}
	return o.Key + ": " + o.Hint
}

// whoText says in one line who is in a group.
func whoText(g appliance.GroupRow) string {
	var list []string
	if !g.Condition.Empty() {
		list = append(list, g.Condition.String())
	}
	if g.Given > 0 {
		list = append(list, count(g.Given, "host")+" given one by one")
	}
	switch {
	case g.Name == everyone:
		return "every host"
	case len(list) == 0:
		return "nobody yet"
	}
	return strings.Join(list, ", and ")
}
