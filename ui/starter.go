package ui

import (
	"net/http"
	"net/url"
	"slices"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// Classifications as Microsoft names them, by their GUIDs, which are the same
// everywhere (WSUS documentation, IUpdateClassification).
const (
	securityUpdates   = "0fa1201d-4330-4fa8-8ae9-b877473b6441"
	criticalUpdates   = "e6cf1350-c01b-414d-a61f-263d14d133b4"
	definitionUpdates = "e0789628-ce08-4437-be74-2495b842f43b"
	updateRollups     = "28bc880e-0592-4cbf-8f95-c79b17911d5f"
	servicePacks      = "68c5b0a3-d1a6-4553-ae49-01d3a7827828"
)

// A starter is a package to begin with.
type starter struct {
	Key, Title, Text string
	classes          []string // that it allows
}

var starters = []starter{
	{"security", "Security only", "Security, critical and definition updates", []string{securityUpdates, criticalUpdates, definitionUpdates}},
	{"no-previews", "Everything but previews", "Security, critical and definition updates, update rollups and service packs; not the classification Updates, which has the previews", []string{securityUpdates, criticalUpdates, definitionUpdates, updateRollups, servicePacks}},
}

// begin fills the form of a new package: with a starter (like), with what another
// package is (copy), or with lines of the query.
func (v *ruleView) begin(u *UI, r *http.Request) error {
	q := r.URL.Query()
	if i := slices.IndexFunc(starters, func(s starter) bool { return s.Key == q.Get("like") }); i >= 0 {
		v.Edit.Description = starters[i].Text
		for _, c := range starters[i].classes {
			v.Edit.Lines = append(v.Edit.Lines, rules.Line{Verb: rules.Allow, Kind: rules.ByClassification, Value: c})
		}
	}
	if name := q.Get("copy"); name != "" {
		p, err := u.node.Package(r.Context(), name)
		if err != nil {
			return err
		}
		v.Edit = appliance.PackageEdit{Description: p.Description, Maturity: p.Maturity, Groups: p.Groups, Hosts: p.Hosts}
		for _, l := range p.Lines {
			v.Edit.Lines = append(v.Edit.Lines, l.Line)
		}
	}
	for _, s := range q["line"][:min(len(q["line"]), beginMost)] {
		if l, err := parseFormLine(s); err == nil && !slices.Contains(v.Edit.Lines, l) {
			v.Edit.Lines = append(v.Edit.Lines, l)
		}
	}
	v.Lines = u.node.DescribeLines(v.Edit.Lines)
	return nil
}

// beginMost is how many lines an address may bring.
const beginMost = 100

// ruleAddress is that of a new package with what a filter of updates says;
// empty for a filter that is no rule: lines of a package add up, so only choices
// of one kind mean the same in both.
func ruleAddress(q url.Values) string {
	kinds := map[string]rules.Kind{"severity": rules.BySeverity, "product": rules.ByProduct, "classification": rules.ByClassification}
	to := url.Values{}
	for key, values := range q {
		switch key {
		case "scope", "sort", "after":
			continue
		}
		kind, ok := kinds[key]
		if !ok || len(to) > 0 || len(values) > beginMost {
			return ""
		}
		for _, v := range values {
			to.Add("line", formLine(rules.Line{Verb: rules.Allow, Kind: kind, Value: v}))
		}
	}
	if len(to) == 0 {
		return ""
	}
	return "/rules/new?" + to.Encode()
}
