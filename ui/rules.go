package ui

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

func (u *UI) rules(r *http.Request) (reply, error) {
	list, err := u.node.Packages(r.Context())
	if err != nil {
		return reply{}, err
	}
	met, err := u.metAbout(r, "package ")
	if err != nil {
		return reply{}, err
	}
	stops, err := u.node.Stops(r.Context())
	if err != nil {
		return reply{}, err
	}
	deleted, err := u.node.Deleted(r.Context())
	if err != nil {
		return reply{}, err
	}
	return show(rulesPage(list, met, stops, deleted)), nil
}

// ruleView is the editor of one package: what is stored, or what a form said
// that could not be stored.
type ruleView struct {
	New      bool
	Name     string
	Edit     appliance.PackageEdit
	Lines    []appliance.LineRow
	Groups   []appliance.GroupRow
	Hosts    []appliance.HostRow
	Products []appliance.FacetCount
	Classes  []appliance.FacetCount
	Added    string // a line that could not be read
	Reach    int
	Edited   string
	Problem  *appliance.Problem
	Impact   *appliance.Impact // of what the form says; nil before anything was changed
	Merged   []appliance.Merged
	Met      []appliance.MeetingRow
	Versions []appliance.PackageVersion // the latest first
	Ring     *appliance.RingState       // nil when people promote it
	ring     url.Values                 // as somebody typed it who has to type it again
}

// saveText repeats on the button what saving does.
func (v ruleView) saveText() string {
	if v.Impact == nil {
		return "Save"
	}
	if v.Impact.Hosts == 1 {
		return "Save, 1 host changes"
	}
	return "Save, " + num(v.Impact.Hosts) + " hosts change"
}

func (v ruleView) title() string {
	if v.New {
		return "New rule package"
	}
	return v.Name
}

// packageURL is where a package is edited; emergency stops are undone at their
// updates, which the list of packages names.
func packageURL(name string) string {
	if name == rules.EmergencyStop {
		return "/rules"
	}
	return "/rules/" + name
}

func (u *UI) ruleNew(r *http.Request) (reply, error) {
	v := ruleView{New: true, Edit: appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}}}
	if err := v.begin(u, r); err != nil {
		return reply{}, err
	}
	return u.editor(r, v)
}

func (u *UI) rule(r *http.Request) (reply, error) {
	return u.ruleOf(r, ruleView{})
}

// ruleOf is the page of the package as it is.
func (u *UI) ruleOf(r *http.Request, with ruleView) (reply, error) {
	p, err := u.node.Package(r.Context(), r.PathValue("name"))
	if err != nil {
		return reply{}, err
	}
	v := ruleView{
		Problem: with.Problem, ring: with.ring, Ring: p.Ring,
		Name: p.Name, Lines: p.Lines, Reach: p.Reach, Edited: "last edited " + ago(p.Edited, "never") + " by " + p.EditedBy,
		Edit: appliance.PackageEdit{Description: p.Description, Maturity: p.Maturity, Groups: p.Groups, Hosts: p.Hosts},
	}
	return u.editor(r, v)
}

// editor adds what the form offers to choose from.
func (u *UI) editor(r *http.Request, v ruleView) (reply, error) {
	var err error
	if v.Groups, err = u.node.GroupsBrief(r.Context()); err != nil {
		return reply{}, err
	}
	hosts, err := u.node.Hosts(r.Context(), appliance.HostQuery{Page: appliance.Page{Limit: 500}})
	if err != nil {
		return reply{}, err
	}
	v.Hosts = hosts.Hosts
	list, err := u.node.Updates(r.Context(), appliance.UpdateQuery{Page: appliance.Page{Limit: 1}})
	if err != nil {
		return reply{}, err
	}
	if v.Met, err = u.node.Meetings(r.Context(), "package "+v.Name); err != nil {
		return reply{}, err
	}
	if v.Versions, err = u.node.Versions(r.Context(), v.Name); err != nil && !v.New {
		return reply{}, err
	}
	switch {
	case v.Impact != nil:
		v.Merged = v.Impact.Merged
	case !v.New:
		if v.Merged, err = u.node.Merged(r.Context(), v.Name); err != nil {
			return reply{}, err
		}
	}
	v.Products, v.Classes = list.Facets.Product, list.Facets.Classification
	rep := show(rulePage(v))
	if v.Problem != nil {
		rep = again(rulePage(v))
	}
	return rep, nil
}

// ruleSave stores the whole form, or says what storing it would do: kept
// lines, one new line, where it goes. Adding and dropping a line store nothing.
func (u *UI) ruleSave(r *http.Request) (reply, error) {
	v := ruleView{New: r.FormValue("isnew") != "", Name: strings.TrimSpace(r.FormValue("name")), Edit: appliance.PackageEdit{
		Description: strings.TrimSpace(r.FormValue("description")), Maturity: rules.Maturity(r.FormValue("maturity")), Groups: r.Form["group"],
		Hosts: typed[agentproto.HostID](r.Form["host"]),
	}}
	drop := r.FormValue("drop")
	for _, s := range r.Form["line"] {
		l, err := parseFormLine(s)
		if err == nil && s != drop {
			v.Edit.Lines = append(v.Edit.Lines, l)
		}
	}
	err := v.add(r)
	v.Lines = u.node.DescribeLines(v.Edit.Lines)
	if p, ok := formError(err); ok {
		v.Problem = p
		return u.editor(r, v)
	}
	if v.New {
		if _, err := u.node.Package(r.Context(), v.Name); err == nil {
			v.Problem = &appliance.Problem{Kind: appliance.Conflict, Field: "name", Msg: fmt.Sprintf("There is a package %s already.", v.Name), Hint: "Choose another name, or edit that one."}
			return u.editor(r, v)
		}
	}
	impact, err := u.node.PreviewPackage(r.Context(), v.Name, v.Edit)
	if err == nil && (r.FormValue("do") == "preview" || drop != "") {
		v.Impact = &impact
		return u.editor(r, v)
	}
	before := u.history.packages.latest(r, v.Name)
	if err == nil {
		_, err = u.node.PutPackage(r.Context(), actor(r), v.Name, v.Edit)
	}
	if p, ok := formError(err); ok {
		v.Problem = p
		return u.editor(r, v)
	}
	if err != nil {
		return reply{}, err
	}
	rep := goTo("/rules/"+v.Name).saying("%s saved. %s", v.Name, impact.Summary())
	return u.history.packages.undoing(rep, r, v.Name, before), nil
}

// add reads the new line of the form, if there is one.
func (v *ruleView) add(r *http.Request) error {
	value := strings.TrimSpace(r.FormValue("value"))
	kind := r.FormValue("kind")
	if s := r.FormValue("severity"); kind == string(rules.BySeverity) && value == "" {
		value = s
	}
	if value == "" {
		return nil
	}
	l, err := rules.ParseLine(r.FormValue("verb"), kind, value)
	if err != nil {
		v.Added = value
		return &appliance.Problem{Kind: appliance.Invalid, Field: "value", Msg: strings.ToUpper(err.Error()[:1]) + err.Error()[1:] + ".", Hint: "The new line was not added; nothing was saved."}
	}
	v.Edit.Lines = slices.DeleteFunc(v.Edit.Lines, func(o rules.Line) bool { return o.Kind == l.Kind && o.Value == l.Value })
	v.Edit.Lines = append(v.Edit.Lines, l)
	return nil
}

// formLine is a line as one form value.
func formLine(l rules.Line) string { return string(l.Verb) + " " + string(l.Kind) + " " + l.Value }

func parseFormLine(s string) (rules.Line, error) {
	verb, rest, _ := strings.Cut(s, " ")
	kind, value, _ := strings.Cut(rest, " ")
	return rules.ParseLine(verb, kind, value)
}

var kindTexts = map[rules.Kind]string{
	rules.ByUpdateID: "UpdateID", rules.ByKB: "KB", rules.ByProduct: "Product", rules.ByClassification: "Classification", rules.BySeverity: "Severity",
}

var verbTexts = map[rules.Verb]string{rules.Allow: "Allow", rules.Forbid: "Forbid"}
