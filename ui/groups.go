package ui

import (
	"fmt"
	"net/http"
	"strings"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// groupView is one group and the options it sets, as the form has them.
type groupView struct {
	Row     appliance.GroupRow
	Options []groupOption
	Problem *appliance.Problem
}

// A groupOption is one option of [waptwua] on the form. The empty value leaves
// it to each host's own file.
type groupOption struct {
	Key, Text, Hint string
	Values          []string // to choose from; none: to be typed
	Value           string
	Wrong           string
}

var yesNo = []string{rules.Bool(true), rules.Bool(false)}

// groupOptions are the options in the words of the page.
var groupOptions = []groupOption{
	{Key: "enabled", Text: "Windows' own updating is taken over", Hint: "False gives it back, and nothing is scanned", Values: yesNo},
	{Key: "default_allow", Text: "Install what no rule mentions", Values: yesNo},
	{Key: "allowed_severities", Text: "Severities allowed without a rule", Hint: "Critical,Important"},
	{Key: "direct_download", Text: "Files come from Microsoft first", Values: yesNo},
	{Key: "download_scheduling", Text: "Scan every", Hint: "12h, 1d"},
	{Key: "install_scheduling", Text: "Install every", Hint: "7d; 0 is never by itself"},
	{Key: "install_at_shutdown", Text: "Install while the host shuts down", Values: yesNo},
	{Key: "install_delay", Text: "Hold back for", Hint: "7d after an update was published"},
	{Key: "waptexit_disable_skip_windows_updates", Text: "Nobody may skip the install at shutdown", Values: yesNo},
	{Key: "include_potentially_superseded_updates", Text: "Also list what a newer update replaces", Values: yesNo},
}

func (u *UI) groups(r *http.Request) (reply, error) {
	list, err := u.node.Groups(r.Context())
	if err != nil {
		return reply{}, err
	}
	return show(groupsPage(list)), nil
}

func (u *UI) group(r *http.Request) (reply, error) {
	row, err := u.node.Group(r.Context(), r.PathValue("name"))
	if err != nil {
		return reply{}, err
	}
	return show(groupPage(groupView{Row: row, Options: optionsOf(row.Settings)})), nil
}

func optionsOf(settings map[string]string) []groupOption {
	var list []groupOption
	for _, o := range groupOptions {
		o.Value = settings[o.Key]
		if b, err := rules.ParseBool(o.Value); o.Values != nil && err == nil {
			o.Value = rules.Bool(b)
		}
		list = append(list, o)
	}
	return list
}

// groupSave stores the options of a group; who is in it stays.
func (u *UI) groupSave(r *http.Request) (reply, error) {
	row, err := u.node.Group(r.Context(), r.PathValue("name"))
	if err != nil {
		return reply{}, err
	}
	e := appliance.GroupEdit{Description: row.Description, Accepts: row.Accepts, Members: row.Members, Settings: map[string]string{}}
	if row.Name == everyone {
		e.Members = nil
	}
	for key, v := range row.Settings { // what this page does not know stays
		e.Settings[key] = v
	}
	for _, o := range groupOptions {
		delete(e.Settings, o.Key)
		if v := strings.TrimSpace(r.FormValue(o.Key)); v != "" {
			e.Settings[o.Key] = v
		}
	}
	impact, err := u.node.PreviewGroup(r.Context(), row.Name, e)
	if err == nil {
		_, err = u.node.PutGroup(r.Context(), actor(r), row.Name, e)
	}
	if p, ok := formError(err); ok {
		v := groupView{Row: row, Options: optionsOf(e.Settings), Problem: p}
		for i := range v.Options {
			v.Options[i].Value = strings.TrimSpace(r.FormValue(v.Options[i].Key))
			if p.Field == "settings."+v.Options[i].Key {
				v.Options[i].Wrong = p.Msg
			}
		}
		return again(groupPage(v)), nil
	}
	if err != nil {
		return reply{}, err
	}
	return goTo("/groups/"+row.Name).saying("Saved. %s Hosts hear of it at their next check-in.", impact.Summary()), nil
}

// everyone is the built-in group.
const everyone = "all"

// settingsText are a group's options in one line.
func settingsText(settings map[string]string) string {
	var list []string
	for _, o := range groupOptions {
		if v := settings[o.Key]; v != "" {
			list = append(list, fmt.Sprintf("%s = %s", o.Key, v))
		}
	}
	return strings.Join(list, ", ")
}

// optionHint names the option as wapt-get.ini does.
func optionHint(o groupOption) string {
	if o.Hint == "" {
		return o.Key
	}
	return o.Key + ": " + o.Hint
}
