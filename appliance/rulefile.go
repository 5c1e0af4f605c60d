package appliance

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// The rule set as a file: all packages as TOML, for people who keep them in
// git, and one package as WAPT's waptwua_rules.json.

// A RuleFormat is the form of a file of rules.
type RuleFormat string

// The formats.
const (
	TOML RuleFormat = "toml" // all packages
	WAPT RuleFormat = "wapt" // the lines of one, as waptwua_rules.json
)

// A RuleFile is rules to take in, or to say what taking them in would do.
type RuleFile struct {
	Text    string     `json:"text"`              // at most 2 MB
	Format  RuleFormat `json:"format,omitempty"`  // toml when empty
	Package string     `json:"package,omitempty"` // of waptwua_rules.json: into which its lines go
	Prune   bool       `json:"prune,omitempty"`   // delete packages that the file does not have
}

// A RuleDiff is what taking a file in changes, by package.
type RuleDiff struct {
	Packages []PackageDiff `json:"packages"` // those that differ, by name
	Kept     []string      `json:"kept,omitempty"`
	Remarks  []string      `json:"remarks,omitempty"` // what an admin should know
	Impact   Impact        `json:"impact"`
}

// A PackageDiff is how a package changes.
type PackageDiff struct {
	Name    string   `json:"name"`
	Action  string   `json:"action"` // "make", "edit", "delete"
	Added   []string `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"`
}

const maxRuleFile = 2 << 20

// filePackage is a package as the file has it.
type filePackage struct {
	Description string         `toml:"description"`
	Maturity    rules.Maturity `toml:"maturity"`
	Groups      []string       `toml:"groups"`
	Hosts       []string       `toml:"hosts"`
	Allow       []string       `toml:"allow"`
	Forbid      []string       `toml:"forbid"`
}

// ExportRules is every package as TOML, the same text for the same packages.
func (a *Appliance) ExportRules(context.Context) (string, error) {
	c := a.cat
	c.mu.RLock()
	defer c.mu.RUnlock()
	var b strings.Builder
	b.WriteString("# Rule packages of wuamesh. Forbid beats allow; the order of packages and lines means nothing.\n" +
		"# A line is a kind and a value: update, kb, product, classification, severity.\n" +
		"# wuamesh rules diff FILE says what taking this in would change, wuamesh rules import FILE does it.\n")
	for _, name := range slices.Sorted(maps.Keys(c.packages)) {
		if p := c.packages[name]; p.exists {
			c.writePackage(&b, name, p)
		}
	}
	return b.String(), nil
}

func (c *catalogue) writePackage(b *strings.Builder, name string, p *pkg) {
	fmt.Fprintf(b, "\n[package.%s]\ndescription = %s\nmaturity = %s\n", quoteTOML(name), quoteTOML(p.Description), quoteTOML(string(p.Maturity)))
	list := func(key string, values []string, about func(string) string) {
		if len(values) == 0 {
			fmt.Fprintf(b, "%s = []\n", key)
			return
		}
		fmt.Fprintf(b, "%s = [\n", key)
		for _, v := range values {
			fmt.Fprintf(b, "  %s,", quoteTOML(v))
			if text := oneLine(about(v)); text != "" {
				fmt.Fprintf(b, " # %s", text)
			}
			b.WriteByte('\n')
		}
		b.WriteString("]\n")
	}
	none := func(string) string { return "" }
	var ids []string
	for id := range p.hosts {
		ids = append(ids, string(id))
	}
	slices.Sort(ids)
	list("groups", slices.Sorted(maps.Keys(p.groups)), none)
	list("hosts", ids, c.hostNamed)
	for _, verb := range []rules.Verb{rules.Allow, rules.Forbid} {
		var values []string
		for l := range p.lines {
			if l.Verb == verb {
				values = append(values, string(l.Kind)+" "+l.Value)
			}
		}
		slices.Sort(values)
		list(string(verb), values, c.lineMeans)
	}
}

// lineMeans says what a line of the file stands for.
func (c *catalogue) lineMeans(text string) string {
	kind, value, _ := strings.Cut(text, " ")
	r := c.lineRow(rules.Line{Verb: rules.Allow, Kind: rules.Kind(kind), Value: value}, editRecord{})
	switch {
	case r.Kind == rules.ByKB && len(r.Updates) > 0:
		return fmt.Sprintf("%s, first %s", things(len(r.Updates), "UpdateID", "UpdateIDs"), r.Updates[0].Title)
	case r.Label == value, r.Kind == rules.ByKB:
		return ""
	}
	return r.Label
}

// quoteTOML is a basic string of TOML, which escapes as JSON does.
func quoteTOML(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // of a string: cannot fail
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", "\\u007F")
}

// oneLine is text fit for a comment.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
}

// DiffRules says what ImportRules would do with the same file.
func (a *Appliance) DiffRules(ctx context.Context, f RuleFile) (RuleDiff, error) {
	d, _, err := a.readRules(ctx, f)
	return d, err
}

// ImportRules makes packages what a file says, each as one change set. All of
// the file is checked before anything is stored.
func (a *Appliance) ImportRules(ctx context.Context, by Actor, f RuleFile) (RuleDiff, error) {
	if err := by.need(Owner); err != nil {
		return RuleDiff{}, err
	}
	d, edits, err := a.readRules(ctx, f)
	if err != nil {
		return d, err
	}
	for i, p := range d.Packages {
		if p.Action == "delete" {
			err = a.DeletePackage(ctx, by, p.Name)
		} else {
			_, err = a.putPackage(ctx, by, p.Name, edits[p.Name], "import rule package", "")
		}
		if err != nil {
			return d, fmt.Errorf("import rules, after %d of %d packages: %w", i, len(d.Packages), err)
		}
	}
	return d, nil
}

// readRules reads and checks a file and compares it with what there is.
func (a *Appliance) readRules(ctx context.Context, f RuleFile) (d RuleDiff, edits map[string]PackageEdit, err error) {
	if len(f.Text) > maxRuleFile {
		return d, nil, &Problem{Kind: TooLarge, Field: "text", Msg: fmt.Sprintf("The file has %d bytes, at most %d.", len(f.Text), maxRuleFile), Hint: "Split it. Nothing was stored."}
	}
	d = RuleDiff{Packages: []PackageDiff{}}
	switch cmp.Or(f.Format, TOML) {
	case TOML:
		edits, err = parseRules(f.Text)
	case WAPT:
		edits, d.Remarks, err = a.parseWAPTRules(ctx, f)
	default:
		err = invalid("format", "There is no format %.20q; it is toml or wapt.", f.Format)
	}
	if err != nil {
		return d, nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(edits)) {
		if err := edits[name].check(a.cat, name); err != nil {
			return d, nil, inFile(f.Text, name, err)
		}
	}
	if err := a.compareRules(ctx, &d, edits, f.Prune && f.Format != WAPT); err != nil {
		return d, nil, err
	}
	d.Impact = a.preview(func(c *catalogue) change { return c.packagesChange(d.Packages, edits) })
	return d, edits, nil
}

// packagesChange is what storing several edits would do.
func (c *catalogue) packagesChange(list []PackageDiff, edits map[string]PackageEdit) change {
	all := change{moved: map[agentproto.HostID]bool{}}
	var tries []func(*catalogue)
	for _, p := range list {
		one := c.packageRemoval(p.Name)
		if e, ok := edits[p.Name]; ok {
			one = c.packageChange(p.Name, e)
		}
		maps.Copy(all.moved, one.moved)
		tries = append(tries, one.try)
	}
	all.try = func(after *catalogue) {
		for _, try := range tries {
			try(after)
		}
	}
	return all
}

func (a *Appliance) compareRules(ctx context.Context, d *RuleDiff, edits map[string]PackageEdit, prune bool) error {
	rows, err := a.Packages(ctx)
	if err != nil {
		return err
	}
	now := map[string]PackageEdit{}
	for _, r := range rows {
		p, err := a.Package(ctx, r.Name)
		if err != nil {
			return err
		}
		now[r.Name] = p.Edit()
		if _, there := edits[r.Name]; !there && !prune {
			d.Kept = append(d.Kept, r.Name)
		}
	}
	names := maps.Clone(edits)
	if prune {
		maps.Copy(names, now)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		is, will := edits[name]
		was, there := now[name]
		p := PackageDiff{Name: name, Action: "edit"}
		switch {
		case !will:
			p.Action = "delete"
		case !there:
			p.Action = "make"
		}
		x, y := was.texts(there), is.texts(will)
		p.Added, p.Removed = onlyIn(y, x), onlyIn(x, y)
		if there != will || len(p.Added)+len(p.Removed) > 0 {
			d.Packages = append(d.Packages, p)
		}
	}
	return nil
}

// texts is everything a package says, for people; nothing of one that is not.
func (e PackageEdit) texts(exists bool) map[string]bool {
	all := map[string]bool{}
	if !exists {
		return all
	}
	all["maturity "+string(e.Maturity)] = true
	if e.Description != "" {
		all["description "+strconv.Quote(e.Description)] = true
	}
	for _, g := range e.Groups {
		all["group "+g] = true
	}
	for _, h := range e.Hosts {
		all["host "+string(h)] = true
	}
	for _, l := range e.Lines {
		all[l.String()] = true
	}
	return all
}

// parseRules reads packages out of TOML. What is wrong is a [Problem] that
// names the line.
func parseRules(text string) (map[string]PackageEdit, error) {
	var file struct {
		Package map[string]filePackage `toml:"package"`
	}
	err := toml.NewDecoder(strings.NewReader(text)).DisallowUnknownFields().Decode(&file)
	var strict *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &strict):
		line, _ := strict.Errors[0].Position()
		return nil, badRules(line, fmt.Sprintf("there is no key %q", strings.Join(strict.Errors[0].Key(), ".")), "A package has description, maturity, groups, hosts, allow, forbid.")
	case errors.As(err, &wrong):
		line, _ := wrong.Position()
		return nil, badRules(line, strings.TrimPrefix(wrong.Error(), "toml: "), "wuamesh rules export shows the form.")
	case err != nil:
		return nil, badRules(1, strings.TrimPrefix(err.Error(), "toml: "), "wuamesh rules export shows the form.")
	}
	edits := map[string]PackageEdit{}
	for _, name := range slices.Sorted(maps.Keys(file.Package)) {
		p := file.Package[name]
		e := PackageEdit{Description: p.Description, Maturity: p.Maturity, Groups: sortedSet(p.Groups), Hosts: []agentproto.HostID{}, Lines: []rules.Line{}}
		for _, h := range sortedSet(p.Hosts) {
			e.Hosts = append(e.Hosts, agentproto.HostID(h))
		}
		for verb, list := range map[rules.Verb][]string{rules.Allow: p.Allow, rules.Forbid: p.Forbid} {
			for _, s := range sortedSet(list) {
				kind, value, _ := strings.Cut(s, " ")
				l, err := rules.ParseLine(string(verb), kind, value)
				if err != nil {
					return nil, badRules(lineIn(text, name, s), err.Error(), "A line is a kind and a value, such as \"kb 5091157\".")
				}
				if !slices.Contains(e.Lines, l) {
					e.Lines = append(e.Lines, l)
				}
			}
		}
		edits[name] = e
	}
	return edits, nil
}

func sortedSet(list []string) []string {
	list = append([]string{}, list...)
	slices.Sort(list)
	return slices.Compact(list)
}

func badRules(line int, what, hint string) *Problem {
	return &Problem{Kind: Invalid, Field: "text", Msg: fmt.Sprintf("Line %d: %s.", line, strings.TrimSuffix(what, ".")), Hint: hint + " Nothing was stored."}
}

// lineIn is the number of the line of a file that has a quoted value of a
// package, or else where the package begins.
func lineIn(text, name, value string) int {
	begin, in := 1, false
	for i, l := range strings.Split(text, "\n") {
		head := strings.TrimSpace(l)
		if strings.HasPrefix(head, "[") && !strings.HasPrefix(head, "[\"") {
			key := strings.NewReplacer("\"", "", "'", "", " ", "").Replace(head)
			if in = strings.HasPrefix(key, "[package."+name+"]"); in {
				begin = i + 1
			}
		}
		if in && value != "" && (strings.Contains(l, quoteTOML(value)) || strings.Contains(l, "'"+value+"'")) {
			return i + 1
		}
	}
	return begin
}

// inFile adds to a problem with a package the line where it stands.
func inFile(text, name string, err error) error {
	p, ok := AsProblem(err)
	if !ok {
		return err
	}
	line := lineIn(text, name, "")
	for word := range strings.FieldsSeq(p.Msg) {
		if n := lineIn(text, name, strings.Trim(word, "\".,:")); n != line {
			line = n
			break
		}
	}
	return badRules(line, "package "+name+": "+p.Msg, p.Hint)
}

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
func (a *Appliance) parseWAPTRules(ctx context.Context, f RuleFile) (map[string]PackageEdit, []string, error) {
	var w waptRules
	d := json.NewDecoder(strings.NewReader(f.Text))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		at := min(int(d.InputOffset()), len(f.Text))
		if _, key, ok := strings.Cut(err.Error(), "unknown field "); ok {
			at = max(strings.Index(f.Text, key), 0)
		}
		return nil, nil, badRules(1+strings.Count(f.Text[:at], "\n"), strings.TrimPrefix(err.Error(), "json: "), "waptwua_rules.json is an object of lists.")
	}
	e := PackageEdit{Maturity: rules.Prod, Description: "From waptwua_rules.json", Groups: []string{}, Hosts: []agentproto.HostID{}}
	var remarks []string
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
				return nil, nil, badRules(1+strings.Count(f.Text[:at], "\n"), err.Error(), "Correct the file.")
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
	return map[string]PackageEdit{f.Package: e}, remarks, nil
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
