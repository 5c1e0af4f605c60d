package ui

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

const settingsPath = "/settings"

// settingsView is what this node and the mesh go by, and what the forms said.
type settingsView struct {
	Node       nodeForm
	Storage    storageForm
	Compliance complianceForm
	Keys       []appliance.ConfigKey
	Owner      bool
	Problem    *appliance.Problem
	Met        []appliance.MeetingRow // about compliance
}

// A storageForm is what the folder keeps, as the form has it.
type storageForm struct {
	appliance.Storage
	Quota, Floor string // such as "500 GB"
	Copies       string
	Decided      map[string]bool // by the configuration file
}

// A complianceForm is when hosts are compliant, and what that would come to.
type complianceForm struct {
	Rule    appliance.ComplianceRule
	Days    string
	Preview *appliance.CompliancePreview
}

func (u *UI) settings(r *http.Request) (reply, error) { return u.settingsWith(r, u.settingsNow()) }

func (u *UI) settingsNow() settingsView {
	s, decided := u.node.Storage()
	rule := u.node.ComplianceRule()
	v := settingsView{
		Node:       u.nodeNow(),
		Storage:    storageForm{s, appliance.Size(s.Quota).String(), appliance.Size(s.DiskFloor).String(), strconv.Itoa(s.Copies), decided},
		Compliance: complianceForm{Rule: rule, Days: strconv.Itoa(rule.Days)},
	}
	v.Node.Proxy = appliance.WithoutPassword(v.Node.Proxy)
	return v
}

func (u *UI) settingsWith(r *http.Request, v settingsView) (reply, error) {
	var err error
	if v.Met, err = u.node.Meetings(r.Context(), "mesh"); err != nil {
		return reply{}, err
	}
	v.Keys, v.Owner = u.node.ConfigKeys(), actor(r).May(appliance.Owner)
	if v.Problem != nil {
		return again(settingsPage(v)), nil
	}
	return show(settingsPage(v)), nil
}

// settingsAfter goes on after a form: with what it did, or back in it with why
// not.
func (u *UI) settingsAfter(r *http.Request, v settingsView, err error, part, did string) (reply, error) {
	if p, ok := formError(err); ok {
		v.Problem = p
		return u.settingsWith(r, v)
	}
	if err != nil {
		return reply{}, err
	}
	return goTo(settingsPath+"#"+part).saying("%s", did), nil
}

func (u *UI) settingsNode(r *http.Request) (reply, error) {
	v := u.settingsNow()
	v.Node = u.nodeFrom(r)
	err := u.node.Answer(r.Context(), actor(r), v.Node.Answers)
	return u.settingsAfter(r, v, err, "node", "The node goes by that now.")
}

// settingsTest tries what the form says; nothing is kept.
func (u *UI) settingsTest(r *http.Request) (reply, error) {
	v := u.settingsNow()
	v.Node = u.nodeFrom(r)
	checks, err := u.node.Check(r.Context(), &v.Node.Answers)
	if p, ok := formError(err); ok {
		v.Problem = p
	} else if err != nil {
		return reply{}, err
	}
	v.Node.Checks = checks
	return u.settingsWith(r, v)
}

func (u *UI) settingsStorage(r *http.Request) (reply, error) {
	v := u.settingsNow()
	err := v.Storage.read(r)
	if err == nil {
		err = u.node.SetStorage(r.Context(), actor(r), v.Storage.Storage)
	}
	return u.settingsAfter(r, v, err, "storage", "The folder goes by that now.")
}

// read takes what the form says: a field that is not in it stays.
func (f *storageForm) read(r *http.Request) error {
	r.ParseForm()
	if r.PostForm.Has("asked-cleanup") {
		f.CleanupKBs = r.PostForm.Has("cleanup")
	}
	for field, to := range map[string]*string{"placement": &f.Placement, "quota": &f.Quota, "floor": &f.Floor, "copies": &f.Copies} {
		if r.PostForm.Has(field) {
			*to = strings.TrimSpace(r.PostForm.Get(field))
		}
	}
	for _, e := range []struct {
		field, text string
		to          *int64
	}{{"quota", f.Quota, &f.Storage.Quota}, {"floor", f.Floor, &f.DiskFloor}} {
		var s appliance.Size
		if err := s.UnmarshalText([]byte(e.text)); err != nil {
			return &appliance.Problem{Kind: appliance.Invalid, Field: e.field, Msg: fmt.Sprintf("%q is no size.", e.text), Hint: `Write it like "500 GB" or "2 GiB"; "0 B" is none.`}
		}
		*e.to = int64(s)
	}
	n, err := strconv.Atoi(f.Copies)
	if err != nil {
		return &appliance.Problem{Kind: appliance.Invalid, Field: "copies", Msg: fmt.Sprintf("%q is no number of copies.", f.Copies), Hint: "2 is usual."}
	}
	f.Storage.Copies = n
	return nil
}

func (u *UI) settingsCompliance(r *http.Request) (reply, error) {
	v := u.settingsNow()
	r.ParseForm()
	f := complianceForm{Days: strings.TrimSpace(r.PostForm.Get("days"))}
	f.Rule.Days, _ = strconv.Atoi(f.Days)
	for _, s := range r.PostForm["severity"] {
		f.Rule.Severities = append(f.Rule.Severities, rules.Severity(s))
	}
	v.Compliance = f
	if r.FormValue("do") == "preview" {
		p, err := u.node.PreviewCompliance(r.Context(), f.Rule)
		if problem, ok := formError(err); ok {
			v.Problem = problem
		} else if err != nil {
			return reply{}, err
		} else {
			v.Compliance.Preview = &p
		}
		return u.settingsWith(r, v)
	}
	err := u.node.SetComplianceRule(r.Context(), actor(r), f.Rule)
	return u.settingsAfter(r, v, err, "compliance", "Every node counts by that now.")
}

// keysTable is the configuration for a spreadsheet.
func (u *UI) keysTable(*http.Request) (reply, error) {
	return save("settings", []string{"Key", "Value", "From"}, rowsFrom(sure(slices.Values(u.node.ConfigKeys())), func(k appliance.ConfigKey) row {
		return row{k.Key, k.Value, k.From}
	})), nil
}

// fromText says where a value is from.
func fromText(from string) string {
	return map[string]string{"file": "configuration file", "pages": "these pages", "start": "how it was started", "default": "default"}[from]
}
