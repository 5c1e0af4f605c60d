package ui

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"wuamesh/appliance"
)

// repositoryView is the list of repository rules.
type repositoryView struct {
	Rules []appliance.RepositoryRule
	Owner bool
	Alone bool // the node is in no mesh: there is nothing to choose
	Met   []appliance.MeetingRow
}

// repositoryRuleView is the form of one rule, as it is stored or as it was
// sent.
type repositoryRuleView struct {
	ID         string // empty for a new one
	Name       string
	Conditions []conditionField
	Target     string // "node ID", "site NAME"
	NoFallback bool
	Nodes      []appliance.NodeRow
	Sites      []string
	Owner      bool
	Problem    *appliance.Problem
	Preview    *appliance.RepositoryPreview
	Met        []appliance.MeetingRow
}

// A conditionField is one kind of condition on the form; empty for none.
type conditionField struct {
	Kind       appliance.ConditionKind
	Text, Hint string
	Value      string
	Not        bool
	Wrong      string
}

var conditionFields = []conditionField{
	{Kind: appliance.BySubnet, Text: "Agent's subnet", Hint: "10.2.0.0/16, 10.3.7.0/24: an address of the host itself"},
	{Kind: appliance.ByPublicAddress, Text: "Public address", Hint: "192.0.2.7: where its connection comes from, as the node sees it"},
	{Kind: appliance.ByDomain, Text: "Domain", Hint: "corp.example.org, *.example.org"},
	{Kind: appliance.ByADSite, Text: "Active Directory site", Hint: "Brest"},
	{Kind: appliance.ByHostName, Text: "Host name", Hint: "lap-*, pc-brs-??"},
}

func (u *UI) repositoryRules(r *http.Request) (reply, error) {
	list, err := u.node.RepositoryRules(r.Context())
	if err != nil {
		return reply{}, err
	}
	nodes, err := u.node.Nodes(r.Context())
	if err != nil {
		return reply{}, err
	}
	met, err := u.metAbout(r, "repository-rule ")
	if err != nil {
		return reply{}, err
	}
	return show(repositoryPage(repositoryView{Rules: list, Owner: actor(r).May(appliance.Owner), Alone: len(nodes) == 0, Met: met})), nil
}

func (u *UI) repositoryRuleNew(r *http.Request) (reply, error) {
	return u.repositoryForm(r, repositoryRuleView{Conditions: slices.Clone(conditionFields)})
}

func (u *UI) repositoryRule(r *http.Request) (reply, error) {
	rule, err := u.node.RepositoryRule(r.Context(), r.PathValue("id"))
	if err != nil {
		return reply{}, err
	}
	v := repositoryRuleView{ID: rule.ID, Name: rule.Name, NoFallback: rule.NoFallback, Target: "node " + rule.Node, Conditions: slices.Clone(conditionFields)}
	if rule.Site != "" {
		v.Target = "site " + rule.Site
	}
	for _, c := range rule.Conditions {
		of := func(f conditionField) bool { return f.Kind == c.Kind && f.Value == "" }
		i := slices.IndexFunc(v.Conditions, of)
		if i < 0 { // made through the API, with a kind twice: it gets a field more
			i = len(v.Conditions)
			v.Conditions = append(v.Conditions, conditionFields[slices.IndexFunc(conditionFields, of)])
		}
		v.Conditions[i].Value, v.Conditions[i].Not = strings.Join(c.Values, ", "), c.Not
	}
	if v.Met, err = u.node.Meetings(r.Context(), "repository-rule "+rule.Name); err != nil {
		return reply{}, err
	}
	return u.repositoryForm(r, v)
}

// repositoryForm adds what can be chosen.
func (u *UI) repositoryForm(r *http.Request, v repositoryRuleView) (reply, error) {
	all, err := u.node.Nodes(r.Context())
	if err != nil {
		return reply{}, err
	}
	for _, n := range all {
		if n.Removed.IsZero() {
			v.Nodes = append(v.Nodes, n)
			v.Sites = append(v.Sites, n.Site)
		}
	}
	slices.Sort(v.Sites)
	v.Sites, v.Owner = slices.Compact(v.Sites), actor(r).May(appliance.Owner)
	if v.Problem != nil {
		return again(repositoryRulePage(v)), nil
	}
	return show(repositoryRulePage(v)), nil
}

// fieldsOf are the values in a field: separated by commas or spaces.
func fieldsOf(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ';' || r == '\n' || r == '\r' || r == '\t' || r == ' ' })
}

// namesOf are names in a field: they may have spaces in them.
func namesOf(s string) (list []string) {
	for _, part := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ';' || r == '\n' || r == '\r' }) {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

// repositoryRuleSave stores the rule of the form, or says which hosts it would
// be for.
func (u *UI) repositoryRuleSave(r *http.Request) (reply, error) {
	v := repositoryRuleView{ID: r.FormValue("id"), Name: r.FormValue("name"), Target: r.FormValue("target"), NoFallback: r.FormValue("no_fallback") != ""}
	e := appliance.RepositoryRuleEdit{Name: v.Name, NoFallback: v.NoFallback}
	kind, name, _ := strings.Cut(v.Target, " ")
	switch kind {
	case "node":
		e.Node = name
	case "site":
		e.Site = name
	}
	kinds, nots, values := r.Form["kind"], r.Form["not"], r.Form["value"]
	if len(kinds) > 40 || len(kinds) != len(nots) || len(kinds) != len(values) {
		return reply{}, &appliance.Problem{Kind: appliance.Invalid, Msg: "The form is not whole.", Hint: "Go back, reload the page, and send it again."}
	}
	for i, k := range kinds {
		at := slices.IndexFunc(conditionFields, func(f conditionField) bool { return string(f.Kind) == k })
		if at < 0 {
			continue
		}
		f := conditionFields[at]
		f.Value, f.Not = values[i], nots[i] == "1"
		v.Conditions = append(v.Conditions, f)
		list := namesOf(f.Value)
		if f.Kind == appliance.BySubnet || f.Kind == appliance.ByPublicAddress || f.Kind == appliance.ByHostName {
			list = fieldsOf(f.Value)
		}
		if len(list) > 0 {
			e.Conditions = append(e.Conditions, appliance.RepositoryCondition{Kind: f.Kind, Values: list, Not: f.Not})
		}
	}
	preview, err := u.node.PreviewRepositoryRule(r.Context(), v.ID, e)
	if err == nil && r.FormValue("do") == "preview" {
		v.Preview = &preview
		return u.repositoryForm(r, v)
	}
	if err == nil {
		if v.ID == "" {
			_, err = u.node.MakeRepositoryRule(r.Context(), actor(r), e)
		} else {
			_, err = u.node.SetRepositoryRule(r.Context(), actor(r), v.ID, e)
		}
	}
	if p, ok := formError(err); ok {
		v.Problem = p
		for i := range v.Conditions {
			if string(v.Conditions[i].Kind) == p.Field && v.Conditions[i].Value != "" {
				v.Conditions[i].Wrong = p.Msg
			}
		}
		return u.repositoryForm(r, v)
	}
	if err != nil {
		return reply{}, err
	}
	return goTo(repositoryPath).saying("Saved. %s", preview.Summary()), nil
}

const repositoryPath = "/mesh/repository-rules"

func (u *UI) repositoryRuleMove(r *http.Request) (reply, error) {
	to, err := strconv.Atoi(r.FormValue("to"))
	if err != nil {
		return reply{}, &appliance.Problem{Kind: appliance.Invalid, Msg: "The place of a rule is a number."}
	}
	if err := u.node.MoveRepositoryRule(r.Context(), actor(r), r.PathValue("id"), to); err != nil {
		return reply{}, err
	}
	return goTo(repositoryPath), nil
}

func (u *UI) repositoryRuleDelete(r *http.Request) (reply, error) {
	if err := u.node.DeleteRepositoryRule(r.Context(), actor(r), r.PathValue("id")); err != nil {
		return reply{}, err
	}
	return goTo(repositoryPath).saying("The rule is deleted. Hosts that are connected hear of it at once."), nil
}

// saveText repeats on the button what saving does, where that is known.
func (v repositoryRuleView) saveText() string {
	switch {
	case v.Preview == nil:
		return "Save"
	case v.Preview.Changes == 1:
		return "Save, 1 host changes"
	}
	return "Save, " + num(v.Preview.Changes) + " hosts change"
}

func (v repositoryRuleView) title() string {
	if v.ID == "" {
		return "New repository rule"
	}
	return "Repository rule " + v.Name
}
