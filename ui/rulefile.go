package ui

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"wuamesh/appliance"
)

// ruleFileView is a file of rules that is pasted, and what it would change.
type ruleFileView struct {
	File    appliance.RuleFile
	Diff    *appliance.RuleDiff
	Problem *appliance.Problem
}

func (v ruleFileView) saveText() string {
	if v.Diff == nil {
		return "Take it in"
	}
	return "Take it in, " + count(v.Diff.Impact.Hosts, "host") + " changed"
}

// ruleDiffs are the differences by kind.
func ruleDiffs(d appliance.RuleDiff) []struct {
	Noun string
	List []appliance.Difference
	Kept int
} {
	return []struct {
		Noun string
		List []appliance.Difference
		Kept int
	}{{"package", d.Packages, len(d.Kept)}, {"settings profile", d.Profiles, len(d.KeptProfiles)}, {"group", d.Groups, len(d.KeptGroups)}}
}

var actionTexts = map[string]string{"make": "New", "edit": "Changed", "delete": "Deleted"}

func (u *UI) ruleFileForm(*http.Request) (reply, error) {
	return show(ruleFilePage(ruleFileView{File: appliance.RuleFile{Format: appliance.TOML}})), nil
}

func (u *UI) ruleFileTake(r *http.Request) (reply, error) {
	v := ruleFileView{File: appliance.RuleFile{
		Text: strings.ReplaceAll(r.FormValue("text"), "\r\n", "\n"), Format: appliance.RuleFormat(r.FormValue("format")),
		Package: strings.TrimSpace(r.FormValue("package")), Prune: r.FormValue("prune") != "", Seen: r.FormValue("seen"), Parts: r.FormValue("parts") != "",
	}}
	d, err := u.node.DiffRules(r.Context(), v.File)
	if err == nil && r.FormValue("do") != "preview" {
		var done appliance.RuleDiff
		if done, err = u.node.ImportRules(r.Context(), actor(r), v.File); err == nil {
			return goTo("/rules").saying("%s %s", done.Summary(), done.Impact.Summary()), nil
		}
	}
	if d.Version != "" { // also of a file that was not taken in: what it would do now
		v.Diff, v.File.Seen = &d, d.Version
	}
	if p, ok := appliance.AsProblem(err); ok && p.Kind != appliance.Denied {
		v.Problem = p
		return again(ruleFilePage(v)), nil
	}
	if err != nil {
		return reply{}, err
	}
	return show(ruleFilePage(v)), nil
}

// ruleFileGet sends the rule set as TOML, or one package as WAPT's rules.
func (u *UI) ruleFileGet(r *http.Request) (reply, error) {
	name, text, err := "", "", error(nil)
	if p := r.FormValue("package"); p != "" {
		name = "waptwua_rules.json"
		text, err = u.node.ExportWAPT(r.Context(), p)
	} else {
		name = fmt.Sprintf("wuamesh-rules-%s.toml", time.Now().Format(time.DateOnly))
		text, err = u.node.ExportRules(r.Context(), appliance.RuleExport{Members: r.FormValue("members") != ""})
	}
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusOK, file: name, text: text}, nil
}
