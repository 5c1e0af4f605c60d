package appliance

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// waptRules are the keys of waptwua_rules.json.
type waptRules struct {
	AllowedUpdates         []string `json:"allowed_updates"`
	ForbiddenUpdates       []string `json:"forbidden_updates"`
	AllowedKBs             []string `json:"allowed_kbs"`
	ForbiddenKBs           []string `json:"forbidden_kbs"`
	AllowedProducts        []string `json:"allowed_products"`
	AllowedClassifications []string `json:"allowed_classifications"`
	AllowedSeverities      []string `json:"allowed_severities"`
	DefaultAllow           *bool    `json:"default_allow,omitempty"`
	IncludeSuperseded      *bool    `json:"include_potentially_superseded_updates,omitempty"`
}

// lists are the lists with what a line of them is.
func (w *waptRules) lists() []struct {
	verb rules.Verb
	kind rules.Kind
	list *[]string
} {
	return []struct {
		verb rules.Verb
		kind rules.Kind
		list *[]string
	}{
		{rules.Allow, rules.ByUpdateID, &w.AllowedUpdates},
		{rules.Forbid, rules.ByUpdateID, &w.ForbiddenUpdates},
		{rules.Allow, rules.ByKB, &w.AllowedKBs},
		{rules.Forbid, rules.ByKB, &w.ForbiddenKBs},
		{rules.Allow, rules.ByProduct, &w.AllowedProducts},
		{rules.Allow, rules.ByClassification, &w.AllowedClassifications},
		{rules.Allow, rules.BySeverity, &w.AllowedSeverities},
	}
}

// parseWAPTRules reads waptwua_rules.json into one package: its lines become
// those of the file, the rest stays. A new one is assigned to nobody yet.
func (a *Appliance) parseWAPTRules(ctx context.Context, f RuleFile) (set ruleSet, remarks []string, err error) {
	var w waptRules
	d := json.NewDecoder(strings.NewReader(f.Text))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		at := min(int(d.InputOffset()), len(f.Text))
		if _, key, ok := strings.Cut(err.Error(), "unknown field "); ok {
			at = max(strings.Index(f.Text, key), 0)
		}
		return set, nil, badRules(1+strings.Count(f.Text[:at], "\n"), strings.TrimPrefix(err.Error(), "json: "), "waptwua_rules.json is an object of lists.")
	}
	e := PackageEdit{Maturity: rules.Prod, Description: "From waptwua_rules.json", Groups: []string{}, Hosts: []agentproto.HostID{}}
	if p, err := a.Package(ctx, f.Package); err == nil {
		e = p.Edit()
	} else {
		remarks = append(remarks, "The package is new and assigned to nobody: assign it when its lines are what you want.")
	}
	e.Lines = []rules.Line{}
	for _, k := range w.lists() {
		for _, value := range *k.list {
			text := value
			if k.kind == rules.ByUpdateID { // WAPT puts the revision behind it
				text, _, _ = strings.Cut(value, "_")
			}
			l, err := rules.ParseLine(string(k.verb), string(k.kind), text)
			if err != nil {
				at := max(strings.Index(f.Text, quoteTOML(value)), 0)
				return set, nil, badRules(1+strings.Count(f.Text[:at], "\n"), err.Error(), "Correct the file.")
			}
			if !slices.Contains(e.Lines, l) {
				e.Lines = append(e.Lines, l)
			}
		}
	}
	if w.DefaultAllow != nil {
		remarks = append(remarks, "default_allow is left out: WAPT takes it from wapt-get.ini alone. Set it in a settings profile, or for a group.")
	}
	if w.IncludeSuperseded != nil {
		remarks = append(remarks, "include_potentially_superseded_updates is left out: it is a setting. Set it in a settings profile, or for a group.")
	}
	set.said = map[string]map[string]fileThing{"package": {f.Package: packageInFile{e}}}
	return set, remarks, nil
}

// ExportWAPT is one package as waptwua_rules.json. A line that WAPT has no key
// for is a problem: left out it would allow what it forbids.
func (a *Appliance) ExportWAPT(ctx context.Context, name string) (string, error) {
	p, err := a.Package(ctx, name)
	if err != nil {
		return "", err
	}
	var w waptRules
	lists := w.lists()
	for _, k := range lists {
		*k.list = []string{}
	}
	for _, l := range p.Lines {
		i := slices.IndexFunc(lists, func(k struct {
			verb rules.Verb
			kind rules.Kind
			list *[]string
		},
		) bool {
			return k.verb == l.Verb && k.kind == l.Kind
		})
		if i < 0 {
			return "", &Problem{Kind: Conflict, Msg: fmt.Sprintf("WAPT cannot say %q: it forbids by update and KB alone.", l.Line.String()), Hint: "Name the updates or KBs instead, or export TOML."}
		}
		*lists[i].list = append(*lists[i].list, l.Value)
	}
	b, err := json.MarshalIndent(w, "", "  ")
	if err != nil {
		return "", fmt.Errorf("export %s: %w", name, err)
	}
	return string(b) + "\n", nil
}
