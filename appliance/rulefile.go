package appliance

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// The rule set as a file: TOML, for people who keep it in git. Here it is read
// and written; what taking it in changes is in ruleset.go.

const maxRuleFile = 2 << 20

// The tables of the file.
type (
	fileTables struct {
		Order   []string               `toml:"profile_order"`
		Package map[string]filePackage `toml:"package"`
		Profile map[string]fileProfile `toml:"profile"`
		Group   map[string]fileGroup   `toml:"group"`
	}
	filePackage struct {
		Description string         `toml:"description"`
		Maturity    rules.Maturity `toml:"maturity"`
		Groups      []string       `toml:"groups"`
		Hosts       []string       `toml:"hosts"`
		Allow       []string       `toml:"allow"`
		Forbid      []string       `toml:"forbid"`
	}
	fileProfile struct {
		Description string            `toml:"description"`
		Groups      []string          `toml:"groups"`
		Hosts       []string          `toml:"hosts"`
		Options     map[string]string `toml:"options"`
	}
	fileGroup struct {
		Description string            `toml:"description"`
		Accepts     []rules.Maturity  `toml:"accepts"`
		Members     *[]string         `toml:"members"` // nil: they stay as they are
		Condition   fileCondition     `toml:"condition"`
		Settings    map[string]string `toml:"settings"`
	}
	// fileCondition is a [Condition].
	fileCondition struct {
		OS     []string `toml:"os"`
		Build  []string `toml:"build"`
		Domain []string `toml:"domain"`
		ADSite []string `toml:"ad_site"`
		Name   []string `toml:"name"`
		Subnet []string `toml:"subnet"`
		Site   []string `toml:"site"`
	}
)

// A RuleExport is what a file of rules is to have.
type RuleExport struct {
	Members bool // the hosts that groups were given one by one, too
}

// fileWords are the words of a file: at its top, and in each kind of table.
var fileWords = map[string][]string{
	"":        {"package", "profile", "profile_order", "group"},
	"package": {"description", "maturity", "groups", "hosts", "allow", "forbid"},
	"profile": {"description", "groups", "hosts", "options"},
	"group":   {"description", "accepts", "members", "condition", "settings"},
}

const fileHead = `# The rules of wuamesh.
# Packages: forbid beats allow; the order of packages and lines means nothing.
# A line is a kind and a value: update, kb, product, classification, severity.
# Profiles: options of [waptwua]; of two given alike the later one in profile_order wins.
# Groups: what a group is given is said by packages and profiles. Its members, the hosts that it
# was given one by one, stay as they are where the file has no list of them.
# wuamesh rules diff FILE says what taking this in would change, wuamesh rules import FILE does it.
`

// ExportRules is every package, settings profile and group as TOML, the same
// text for the same rules.
func (a *Appliance) ExportRules(_ context.Context, what RuleExport) (string, error) {
	c := a.cat
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	b.WriteString(fileHead)
	if order := c.inOrder(); len(order) > 0 {
		b.WriteByte('\n')
		writeList(&b, "profile_order", order, nil)
	}
	empty := true
	for _, name := range slices.Sorted(maps.Keys(c.packages)) {
		if p := c.packages[name]; p.exists {
			c.writePackage(&b, name, p)
			empty = false
		}
	}
	if empty {
		b.WriteString("\n[package] # there is none\n")
	}
	for _, name := range slices.Sorted(slices.Values(c.inOrder())) {
		c.writeProfile(&b, name, c.profiles[name])
	}
	if len(c.inOrder()) == 0 {
		b.WriteString("\n[profile] # there is none\n")
	}
	for _, name := range slices.Sorted(maps.Keys(c.groups)) {
		if c.isGroup(name) {
			c.writeGroup(&b, name, what)
		}
	}
	return b.String(), nil
}

func (c *catalogue) writePackage(b *strings.Builder, name string, p *pkg) {
	fmt.Fprintf(b, "\n[package.%s]\ndescription = %s\nmaturity = %s\n", quoteTOML(name), quoteTOML(p.Description), quoteTOML(string(p.Maturity)))
	c.writeTargets(b, p.groups, p.hosts)
	for _, verb := range []rules.Verb{rules.Allow, rules.Forbid} {
		var values []string
		for l := range p.lines {
			if l.Verb == verb {
				values = append(values, string(l.Kind)+" "+l.Value)
			}
		}
		slices.Sort(values)
		writeList(b, string(verb), values, c.lineMeans)
	}
}

func (c *catalogue) writeProfile(b *strings.Builder, name string, p *profile) {
	fmt.Fprintf(b, "\n[profile.%s]\ndescription = %s\n", quoteTOML(name), quoteTOML(p.Description))
	c.writeTargets(b, p.groups, p.hosts)
	options := map[string]string{}
	for key, o := range p.options {
		options[key] = o.Value
	}
	writeOptionTable(b, "profile."+quoteTOML(name)+".options", options)
}

func (c *catalogue) writeGroup(b *strings.Builder, name string, what RuleExport) {
	g, table := c.groups[name], "group."+quoteTOML(name)
	fmt.Fprintf(b, "\n[%s]\ndescription = %s\n", table, quoteTOML(g.Description))
	var accepts, ids []string
	for _, m := range rules.Maturities {
		if slices.Contains(g.Accepts, m) {
			accepts = append(accepts, string(m))
		}
	}
	writeList(b, "accepts", accepts, nil)
	if what.Members && name != everyone {
		for _, h := range c.given(name) {
			ids = append(ids, string(h))
		}
		writeList(b, "members", ids, c.hostNamed)
	}
	if condition := conditionOf(g.terms); !condition.Empty() {
		fmt.Fprintf(b, "[%s.condition]\n", table)
		for _, f := range facts {
			if values := *condition.values(f); len(values) > 0 {
				writeList(b, string(f), values, nil)
			}
		}
	}
	writeOptionTable(b, table+".settings", g.Settings)
}

// writeTargets writes whom something is assigned to, but for groups and hosts
// that are no more.
func (c *catalogue) writeTargets(b *strings.Builder, groups map[string]editRecord, hosts map[agentproto.HostID]editRecord) {
	var names, ids []string
	for g := range groups {
		if c.isGroup(g) {
			names = append(names, g)
		}
	}
	for h := range hosts {
		if c.hosts[h] != nil {
			ids = append(ids, string(h))
		}
	}
	slices.Sort(names)
	slices.Sort(ids)
	writeList(b, "groups", names, nil)
	writeList(b, "hosts", ids, c.hostNamed)
}

// writeList writes a list, a value a line; about says what a value stands for.
func writeList(b *strings.Builder, key string, values []string, about func(string) string) {
	if len(values) == 0 {
		fmt.Fprintf(b, "%s = []\n", key)
		return
	}
	fmt.Fprintf(b, "%s = [\n", key)
	for _, v := range values {
		fmt.Fprintf(b, "  %s,", quoteTOML(v))
		if about != nil {
			if text := oneLine(about(v)); text != "" {
				fmt.Fprintf(b, " # %s", text)
			}
		}
		b.WriteByte('\n')
	}
	b.WriteString("]\n")
}

// writeOptionTable writes options of [waptwua]; nothing where there are none.
func writeOptionTable(b *strings.Builder, table string, options map[string]string) {
	if len(options) == 0 {
		return
	}
	fmt.Fprintf(b, "[%s]\n", table)
	for _, key := range slices.Sorted(maps.Keys(options)) {
		fmt.Fprintf(b, "%s = %s\n", key, quoteTOML(options[key]))
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

// parseRules reads a file. What is wrong is a [Problem] that names the line.
func parseRules(text string) (ruleSet, error) {
	var file fileTables
	var top map[string]any // a kind that is there without any of it is one, too
	err := toml.NewDecoder(strings.NewReader(text)).DisallowUnknownFields().Decode(&file)
	if err == nil {
		err = toml.Unmarshal([]byte(text), &top)
	}
	if err != nil {
		return ruleSet{}, notRules(err)
	}
	set := ruleSet{said: map[string]map[string]fileThing{}}
	for _, k := range fileKinds {
		for word := range top {
			if strings.EqualFold(word, k.kind) { // as the decoder takes it
				set.said[k.kind] = map[string]fileThing{}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(file.Package)) {
		e, err := file.Package[name].edit(text, name)
		if err != nil {
			return set, err
		}
		set.said["package"][name] = e
	}
	for _, name := range slices.Sorted(maps.Keys(file.Profile)) {
		p := file.Profile[name]
		if err := knownOptions(text, "profile."+name, p.Options); err != nil {
			return set, err
		}
		set.said["profile"][name] = profileInFile{ProfileEdit{Description: p.Description, Groups: sortedSet(p.Groups), Hosts: hostIDs(p.Hosts), Options: p.Options}}
	}
	for _, name := range slices.Sorted(maps.Keys(file.Group)) {
		if err := knownOptions(text, "group."+name, file.Group[name].Settings); err != nil {
			return set, err
		}
		set.said["group"][name] = file.Group[name].edit(name)
	}
	set.order = file.Order
	return set, set.checkOrder(text)
}

// notRules says in which line a file is no file of rules.
func notRules(err error) error {
	var strict *toml.StrictMissingError
	var wrong *toml.DecodeError
	const shows = "wuamesh rules export shows the form."
	switch {
	case errors.As(err, &strict):
		line, _ := strict.Errors[0].Position()
		key := strict.Errors[0].Key()
		word, known, hint := key[0], fileWords[""], "There are %s."
		switch {
		case len(key) > 3 && key[2] == "condition":
			word, known, hint = key[3], strings.Split(joinFacts(), ", "), "A condition has %s."
		case len(key) > 2 && slices.Contains(known, key[0]):
			word, known, hint = key[2], fileWords[key[0]], "A "+key[0]+" has %s."
		}
		return badRules(line, fmt.Sprintf("there is no key %q%s", strings.Join(key, "."), meant(word, known)), fmt.Sprintf(hint, strings.Join(known, ", ")))
	case errors.As(err, &wrong):
		line, _ := wrong.Position()
		what := strings.TrimPrefix(wrong.Error(), "toml: ")
		if is, _, ok := strings.Cut(what, " into "); ok && strings.HasPrefix(is, "cannot decode TOML ") { // it goes on with types of Go
			return badRules(line, "the value cannot be "+article(strings.TrimPrefix(is, "cannot decode TOML ")), "Values are texts in quotes, or lists of them; "+shows)
		}
		return badRules(line, what, shows)
	}
	return badRules(1, strings.TrimPrefix(err.Error(), "toml: "), shows)
}

func article(noun string) string {
	return or(noun != "" && strings.Contains("aeiou", noun[:1]), "an ", "a ") + noun
}

// meant guesses which word a typing error stands for.
func meant(word string, known []string) string {
	if best := rules.Nearest(word, known); best != "" {
		return "; did you mean " + best + "?"
	}
	return ""
}

func (p filePackage) edit(text, name string) (fileThing, error) {
	e := PackageEdit{Description: p.Description, Maturity: p.Maturity, Groups: sortedSet(p.Groups), Hosts: hostIDs(p.Hosts), Lines: []rules.Line{}}
	for verb, list := range map[rules.Verb][]string{rules.Allow: p.Allow, rules.Forbid: p.Forbid} {
		for _, s := range sortedSet(list) {
			kind, value, _ := strings.Cut(s, " ")
			l, err := rules.ParseLine(string(verb), kind, value)
			if err != nil {
				return nil, badRules(lineIn(text, "package."+name, s), err.Error(), "A line is a kind and a value, such as \"kb 5091157\".")
			}
			if !slices.Contains(e.Lines, l) {
				e.Lines = append(e.Lines, l)
			}
		}
	}
	return packageInFile{e}, nil
}

func (g fileGroup) edit(name string) fileThing {
	condition := Condition(g.Condition)
	e := groupInFile{GroupEdit: GroupEdit{Description: g.Description, Accepts: slices.Clone(g.Accepts), Condition: &condition, Settings: g.Settings}}
	if name == everyone && condition.Empty() {
		e.Condition = nil
	}
	if e.keeps = g.Members == nil; !e.keeps {
		e.Members = hostIDs(*g.Members)
	}
	return e
}

// knownOptions says which option there is none of.
func knownOptions(text, table string, options map[string]string) error {
	var known []string
	for _, o := range (rules.Settings{}).Options() {
		known = append(known, o.Key)
	}
	for _, key := range slices.Sorted(maps.Keys(options)) {
		if best := rules.Nearest(key, known); best != "" && best != key {
			return badRules(lineOfKey(text, table, key), fmt.Sprintf("there is no option %q; did you mean %s?", key, best), "The options are those of [waptwua].")
		}
	}
	return nil
}

// checkOrder says what is wrong with the order of the profiles: it names each
// once, and no other.
func (s ruleSet) checkOrder(text string) error {
	if s.order == nil {
		return nil
	}
	line, names := max(1, topLine(text, "profile_order")), slices.Sorted(maps.Keys(s.said["profile"]))
	for i, name := range s.order {
		switch {
		case slices.Contains(s.order[:i], name):
			return badRules(line, fmt.Sprintf("profile_order names %s twice", name), "Name each profile once.")
		case !slices.Contains(names, name):
			return badRules(line, fmt.Sprintf("profile_order names %s, and there is no [profile.%s]%s", name, name, meant(name, names)), "Name the profiles of the file, each once.")
		}
	}
	for _, name := range names {
		if !slices.Contains(s.order, name) {
			return badRules(lineIn(text, "profile."+name, ""), fmt.Sprintf("profile %s is not in profile_order", name), "Say there which profiles are weaker: they stand before it.")
		}
	}
	return nil
}

func hostIDs(list []string) []agentproto.HostID {
	ids := []agentproto.HostID{}
	for _, h := range sortedSet(list) {
		ids = append(ids, agentproto.HostID(h))
	}
	return ids
}

func sortedSet(list []string) []string {
	list = append([]string{}, list...)
	slices.Sort(list)
	return slices.Compact(list)
}

func badRules(line int, what, hint string) *Problem {
	if !strings.HasSuffix(what, "?") {
		what = strings.TrimSuffix(what, ".") + "."
	}
	return &Problem{Kind: Invalid, Field: "text", Msg: fmt.Sprintf("Line %d: %s", line, what), Hint: hint + " Nothing was stored."}
}

// lineIn is the number of the line of a file that has a quoted value of a
// table, such as package.baseline, or else where the table begins.
func lineIn(text, table, value string) int {
	begin := 0
	for i, l := range linesOf(text, table) {
		begin = cmp.Or(begin, i)
		if value != "" && (strings.Contains(l, quoteTOML(value)) || strings.Contains(l, "'"+value+"'")) {
			return i
		}
	}
	return max(begin, 1)
}

// lineOfKey is the number of the line that sets a key of a table or of one
// below it, or else where the table begins.
func lineOfKey(text, table, key string) int {
	for i, l := range linesOf(text, table) {
		if name, _, ok := strings.Cut(l, "="); ok && strings.Trim(name, " \t\"'") == key {
			return i
		}
	}
	return lineIn(text, table, "")
}

// topLine is the number of the line that sets a key at the top; 0 for none.
func topLine(text, key string) int {
	n := 0
	for l := range strings.SplitSeq(text, "\n") {
		n++
		if name, _, ok := strings.Cut(l, "="); ok && strings.TrimSpace(name) == key {
			return n
		}
	}
	return 0
}

// linesOf yields the lines of a table and of those below it by their numbers.
func linesOf(text, table string) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		in, n := false, 0
		for l := range strings.SplitSeq(text, "\n") {
			n++
			if head := strings.TrimSpace(l); strings.HasPrefix(head, "[") && !strings.HasPrefix(head, "[\"") {
				key := strings.NewReplacer("\"", "", "'", "", " ", "").Replace(head)
				in = strings.HasPrefix(key, "["+strings.ReplaceAll(table, " ", "")+"]") || strings.HasPrefix(key, "["+strings.ReplaceAll(table, " ", "")+".")
			}
			if in && !yield(n, l) {
				return
			}
		}
	}
}

// inFile adds to a problem with a thing of the file the line where it stands.
func inFile(text, kind, name string, err error) error {
	p, ok := AsProblem(err)
	if !ok {
		return err
	}
	table := kind + "." + name
	line := lineIn(text, table, "")
	if _, option, ok := strings.Cut(p.Field, "."); ok {
		line = lineOfKey(text, table, option)
	}
	for word := range strings.FieldsSeq(p.Msg) {
		if n := lineIn(text, table, strings.Trim(word, "\".,:")); n != lineIn(text, table, "") {
			line = n
			break
		}
	}
	return badRules(line, kind+" "+name+": "+p.Msg, p.Hint)
}
