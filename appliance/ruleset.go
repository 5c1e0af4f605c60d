package appliance

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"wuamesh/agentproto"
	"wuamesh/replicate"
)

// What a file of rules would change.

// A RuleFormat is the form of a file of rules.
type RuleFormat string

// The formats.
const (
	TOML RuleFormat = "toml" // the rule set
	WAPT RuleFormat = "wapt" // the lines of one package, as waptwua_rules.json
)

// A RuleFile is rules to take in, or to say what taking them in would do.
type RuleFile struct {
	Text    string     `json:"text"`              // at most 2 MB
	Format  RuleFormat `json:"format,omitempty"`  // toml when empty
	Package string     `json:"package,omitempty"` // of waptwua_rules.json: into which its lines go
	Prune   bool       `json:"prune,omitempty"`   // delete what the file does not have, of the kinds that it mentions
	Seen    string     `json:"seen,omitempty"`    // the version of the differences that were looked at; others are refused. Empty: whatever they are
	Parts   bool       `json:"parts,omitempty"`   // when one edit cannot hold it all: an edit for each package, profile and group
}

// A RuleDiff is what taking a file in changes, by kind and name.
type RuleDiff struct {
	Packages     []Difference `json:"packages"`
	Profiles     []Difference `json:"profiles"`
	Groups       []Difference `json:"groups"`
	Order        *OrderDiff   `json:"order,omitempty"` // of the profiles, where it changes
	Kept         []string     `json:"kept,omitempty"`  // packages that are not in the file and stay
	KeptProfiles []string     `json:"kept_profiles,omitempty"`
	KeptGroups   []string     `json:"kept_groups,omitempty"`
	Remarks      []string     `json:"remarks,omitempty"` // what an admin should know
	Impact       Impact       `json:"impact"`
	Version      string       `json:"version"`         // of the file and of these differences; see RuleFile.Seen
	Edits        int          `json:"edits,omitempty"` // that an import made: one, or none, or one for each thing
}

// A Difference is how a package, a profile or a group changes.
type Difference struct {
	Name    string   `json:"name"`
	Action  string   `json:"action"` // "make", "edit", "delete"
	Added   []string `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"`
}

// An OrderDiff is how the order of the profiles changes, the weakest first.
type OrderDiff struct {
	Was []string `json:"was"`
	Is  []string `json:"is"`
}

// Empty says that the file says what the rules are.
func (d RuleDiff) Empty() bool {
	return len(d.Packages)+len(d.Profiles)+len(d.Groups) == 0 && d.Order == nil
}

// Summary says in one sentence what becomes of how many.
func (d RuleDiff) Summary() string {
	if d.Empty() {
		return "The file says what the rules are."
	}
	var parts []string
	for _, k := range fileKinds {
		n := map[string]int{}
		for _, p := range *k.list(&d) {
			n[p.Action]++
		}
		for _, action := range []string{"make", "edit", "delete"} {
			if n[action] > 0 {
				parts = append(parts, things(n[action], k.noun, k.noun+"s")+" "+map[string]string{"make": "new", "edit": "changed", "delete": "deleted"}[action])
			}
		}
	}
	if d.Order != nil {
		parts = append(parts, "profiles in another order")
	}
	return upper(strings.Join(parts, ", ")) + "."
}

// A fileKind is one kind of thing in a file.
type fileKind struct {
	history
	noun    string
	list    func(*RuleDiff) *[]Difference
	kept    func(*RuleDiff) *[]string
	names   func(tx *replicate.Tx) ([]string, error)
	removal func(c *catalogue, name string) change
	remove  func(a *Appliance, tx *replicate.Tx, by Actor, name string) error
}

// fileKinds are the kinds in the order in which they are stored.
var fileKinds = []fileKind{
	{
		groupHistory, "group",
		func(d *RuleDiff) *[]Difference { return &d.Groups },
		func(d *RuleDiff) *[]string { return &d.KeptGroups },
		groups.names, (*catalogue).groupRemoval, (*Appliance).removeGroup,
	},
	{
		packageHistory, "package",
		func(d *RuleDiff) *[]Difference { return &d.Packages },
		func(d *RuleDiff) *[]string { return &d.Kept },
		packages.names, (*catalogue).packageRemoval, (*Appliance).removePackage,
	},
	{
		profileHistory, "settings profile",
		func(d *RuleDiff) *[]Difference { return &d.Profiles },
		func(d *RuleDiff) *[]string { return &d.KeptProfiles },
		profiles.names, (*catalogue).profileRemoval, (*Appliance).removeProfile,
	},
}

// A ruleState is the rules as the store has them, as far as a file is about
// them: of each kind that it mentions, the things by name.
type ruleState struct {
	things map[string]map[string]versionState
	order  []string // of all profiles
}

// A ruleStep makes one thing what the file says.
type ruleStep struct {
	fileKind
	Difference
	said fileThing // nil: it is deleted
}

// A rulePlan is what taking a file in does.
type rulePlan struct {
	RuleDiff
	set   ruleSet
	was   ruleState
	steps []ruleStep
	order []string // of the profiles then; nil when nothing is to be moved
}

// DiffRules says what ImportRules would do with the same file.
func (a *Appliance) DiffRules(ctx context.Context, f RuleFile) (RuleDiff, error) {
	p, err := a.planRules(ctx, f)
	if err != nil {
		return RuleDiff{}, err
	}
	return p.RuleDiff, nil
}

// planRules reads and checks a file and compares it with what there is.
func (a *Appliance) planRules(ctx context.Context, f RuleFile) (p rulePlan, err error) {
	p.Packages, p.Profiles, p.Groups = []Difference{}, []Difference{}, []Difference{}
	if p.set, p.Remarks, err = a.readFile(ctx, f); err != nil {
		return p, err
	}
	err = a.db.View(ctx, func(tx *replicate.Tx) (err error) {
		p.was, err = readRules(tx, p.set)
		return err
	})
	if err != nil {
		return p, fmt.Errorf("compare a file with the rules: %w", err)
	}
	p.compare(a.cat)
	if f.Format == WAPT {
		p.Kept = nil // it is about one package
	}
	if err := p.countProfiles(); err != nil {
		return p, err
	}
	p.Version = p.version(f)
	p.Impact = a.preview(p.change)
	return p, nil
}

// readFile reads a file and checks all that it says.
func (a *Appliance) readFile(ctx context.Context, f RuleFile) (set ruleSet, remarks []string, err error) {
	if len(f.Text) > maxRuleFile {
		return set, nil, &Problem{Kind: TooLarge, Field: "text", Msg: fmt.Sprintf("The file has %d bytes, at most %d.", len(f.Text), maxRuleFile), Hint: "Split it. Nothing was stored."}
	}
	switch cmp.Or(f.Format, TOML) {
	case TOML:
		set, err = parseRules(f.Text)
		set.prune = f.Prune
	case WAPT: // of one package: nothing else is to go
		set, remarks, err = a.parseWAPTRules(ctx, f)
	default:
		err = invalid("format", "There is no format %.20q; it is toml or wapt.", f.Format)
	}
	if err != nil {
		return set, nil, err
	}
	for _, kind := range slices.Sorted(maps.Keys(set.said)) {
		said := set.said[kind]
		for _, name := range slices.Sorted(maps.Keys(said)) {
			if said[name], err = said[name].checked(a.cat, name, set); err != nil {
				return set, nil, inFile(f.Text, kind, name, err)
			}
		}
	}
	return set, remarks, nil
}

// readRules reads what there is of the kinds that a file mentions.
func readRules(tx *replicate.Tx, set ruleSet) (s ruleState, err error) {
	s.things = map[string]map[string]versionState{}
	for _, k := range fileKinds {
		if set.said[k.kind] == nil {
			continue
		}
		names, err := k.names(tx)
		if err != nil {
			return s, err
		}
		all := map[string]versionState{}
		for _, name := range slices.Concat(names, slices.Collect(maps.Keys(set.said[k.kind]))) {
			if _, ok := all[name]; ok {
				continue
			}
			if all[name], err = k.state(tx, name); err != nil {
				return s, err
			}
		}
		s.things[k.kind] = all
	}
	list, err := storedOrder(tx)
	for _, r := range list {
		s.order = append(s.order, r.id)
	}
	return s, err
}

// compare works out the differences, and how they are made.
func (p *rulePlan) compare(c *catalogue) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, k := range fileKinds {
		said, there := p.set.said[k.kind]
		if !there && p.set.prune {
			p.Remarks = append(p.Remarks, "The file does not mention "+k.noun+"s: they stay as they are.")
		}
		for _, name := range slices.Sorted(maps.Keys(p.was.things[k.kind])) {
			was := p.was.things[k.kind][name]
			thing, is := said[name], versionState{}
			switch {
			case thing != nil:
				is = thing.over(was)
			case k.kind == groupHistory.kind && name == everyone:
				continue // it is there whatever a file says
			case !p.set.prune && was.head != nil:
				*k.kept(&p.RuleDiff) = append(*k.kept(&p.RuleDiff), name)
				continue
			}
			d := Difference{Name: name, Action: or(was.head == nil, "make", or(is.head == nil, "delete", "edit"))}
			x, y := c.texts(was, p.set), c.texts(is, p.set)
			d.Added, d.Removed = onlyIn(y, x), onlyIn(x, y)
			if (was.head == nil) != (is.head == nil) || len(d.Added)+len(d.Removed) > 0 {
				*k.list(&p.RuleDiff) = append(*k.list(&p.RuleDiff), d)
				p.steps = append(p.steps, ruleStep{k, d, thing})
			}
		}
	}
	slices.SortStableFunc(p.steps, func(x, y ruleStep) int { // first what the rest may need
		return or(x.said == nil, 1, 0) - or(y.said == nil, 1, 0)
	})
	p.arrange()
}

// texts is everything that a state says, for people; nothing of one that is
// not. What it says of groups and hosts that are no more holds for nobody, and
// of facts that only a newer node knows no file can speak.
func (c *catalogue) texts(s versionState, set ruleSet) map[string]bool {
	all := map[string]bool{}
	if s.head == nil {
		return all
	}
	if s.head.Maturity != "" {
		all["maturity "+string(s.head.Maturity)] = true
	}
	if s.head.Description != "" {
		all["description "+strconv.Quote(s.head.Description)] = true
	}
	for entry := range s.entries {
		kind, rest, _ := strings.Cut(entry, "/")
		switch {
		case kind == "group" && !c.isGroup(rest) && set.said["group"][rest] == nil:
		case (kind == "host" || kind+"/" == memberEntry) && c.hosts[agentproto.HostID(rest)] == nil:
		case kind+"/" == termEntry && !slices.Contains(facts, factOf(entry)):
		default:
			all[entryWords(entry)] = true
		}
	}
	return all
}

// arrange puts the profiles of the file into its order. The places that they
// have are taken by them in that order, so that those which are not in the file
// stay where they are; a new one comes behind the one before it in the file.
func (p *rulePlan) arrange() {
	said, ok := p.set.said["profile"]
	if !ok {
		return
	}
	gone := map[string]bool{}
	for _, d := range p.Profiles {
		gone[d.Name] = d.Action == "delete"
	}
	now := slices.DeleteFunc(slices.Clone(p.was.order), func(name string) bool { return gone[name] })
	want := p.set.order
	if want == nil {
		fresh := slices.Sorted(maps.Keys(said))
		fresh = slices.DeleteFunc(fresh, func(name string) bool { return slices.Contains(now, name) })
		want = slices.Concat(slices.DeleteFunc(slices.Clone(now), func(name string) bool { return said[name] == nil }), fresh)
	}
	p.ordered(now, mixed(now, want))
}

// mixed is an order in which the names in want are in theirs, and the others
// where they are now.
func mixed(now, want []string) []string {
	is := slices.Clone(now)
	here := slices.DeleteFunc(slices.Clone(want), func(name string) bool { return !slices.Contains(now, name) })
	for i, name := range now {
		if slices.Contains(want, name) {
			is[i], here = here[0], here[1:]
		}
	}
	for i, name := range want {
		if slices.Contains(is, name) {
			continue
		}
		at := len(is)
		if i > 0 {
			at = slices.Index(is, want[i-1]) + 1
		} else if next := slices.IndexFunc(is, func(s string) bool { return slices.Contains(want, s) }); next >= 0 {
			at = next
		}
		is = slices.Insert(is, at, name)
	}
	return is
}

// ordered says where profiles come to stand, of which those in now are there.
func (p *rulePlan) ordered(now, is []string) {
	stay := slices.DeleteFunc(slices.Clone(is), func(name string) bool { return !slices.Contains(now, name) })
	if !slices.Equal(stay, now) {
		p.Order = &OrderDiff{now, is}
	}
	for i, d := range p.Profiles {
		if d.Action == "make" {
			p.Profiles[i].Added = append(p.Profiles[i].Added, fmt.Sprintf("place %d of %d", slices.Index(is, d.Name)+1, len(is)))
		}
	}
	if !slices.Equal(is, now) {
		p.order = is
	}
}

func (p *rulePlan) countProfiles() error {
	if len(p.order) <= maxProfiles || len(p.order) <= len(p.was.order) {
		return nil
	}
	return &Problem{Kind: TooMany, Field: "text", Msg: fmt.Sprintf("With the file there would be %d settings profiles, at most %d.", len(p.order), maxProfiles), Hint: "One profile may be given to many groups. Nothing was stored."}
}

// version names a file and the differences it makes: while both are the same,
// taking it in does what was shown.
func (p *rulePlan) version(f RuleFile) string {
	f.Seen, f.Parts = "", false
	sum := func(v any) string {
		b, _ := json.Marshal(v) // of texts and lists of them: cannot fail
		h := sha256.Sum256(b)
		return hex.EncodeToString(h[:8])
	}
	return sum(f) + "-" + sum([]any{p.Packages, p.Profiles, p.Groups, p.Order})
}

// change is what storing the whole plan would do.
func (p *rulePlan) change(c *catalogue) change {
	all := change{moved: map[agentproto.HostID]bool{}}
	var tries []func(*catalogue)
	for _, s := range p.steps {
		one := s.removal
		if s.said != nil {
			one = func(c *catalogue, name string) change { return s.said.change(c, name) }
		}
		k := one(c, s.Name)
		maps.Copy(all.moved, k.moved)
		tries = append(tries, k.try)
	}
	all.try = func(after *catalogue) {
		for _, try := range tries {
			try(after)
		}
		if p.order != nil {
			after.profileOrder = p.order
		}
	}
	return all
}
