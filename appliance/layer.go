package appliance

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// The settings of a host are laid in layers, each over those before it, option
// by option: its own wapt-get.ini; what every host gets, which is the default
// of the mesh; what its groups get; what it gets itself. Within each of these
// come the profiles in their order, and then what a group sets itself, by the
// names of the groups. So the same one wins on every node, and the nearer to
// the host something is given the stronger it is.

// A layer is options that are laid over those before it: a profile, or what a
// group sets itself.
type layer struct {
	profile string   // its name; empty for what a group sets itself
	to      []string // groups of the host it is of; none: it is given to the host itself
	rank    layerRank
	options map[string]string
}

type layerRank int

const (
	ofAll layerRank = iota
	ofGroup
	ofHost
)

// source names a layer as pages do.
func (l layer) source() string {
	if l.profile != "" {
		return "profile " + l.profile
	}
	return "group " + l.to[0]
}

// via says by what a profile comes to the host; empty for what a group sets.
func (l layer) via() string {
	switch {
	case l.profile == "":
		return ""
	case l.rank == ofHost:
		return "the host itself"
	case l.rank == ofAll:
		return "every host"
	}
	return or(len(l.to) == 1, "group ", "groups ") + strings.Join(l.to, ", ")
}

// over says why a layer wins over a weaker one.
func (l layer) over(weaker layer) string {
	switch {
	case l.rank == ofHost && weaker.rank < ofHost:
		return "it is given to the host itself"
	case l.rank == ofGroup && weaker.rank == ofAll:
		return "it is of a group, the other of every host"
	case l.profile != "" && weaker.profile != "":
		return "it is later in the order of profiles"
	case l.profile == "" && weaker.profile != "":
		return "what a group sets itself is laid over profiles"
	}
	return "its name is later"
}

// layers are those of the hosts of a class, the weakest first.
func (c *catalogue) layers(k *class) (list []layer) {
	for _, name := range c.inOrder() {
		if l, ok := c.layerOf(name, k); ok {
			p := c.profiles[name]
			l.options = make(map[string]string, len(p.options))
			for key, o := range p.options {
				l.options[key] = o.Value
			}
			list = append(list, l)
		}
	}
	for _, name := range k.groups {
		if c.isGroup(name) && len(c.groups[name].Settings) > 0 {
			rank := ofGroup
			if name == everyone {
				rank = ofAll
			}
			list = append(list, layer{to: []string{name}, rank: rank, options: c.groups[name].Settings})
		}
	}
	slices.SortStableFunc(list, func(x, y layer) int { return cmp.Compare(x.rank, y.rank) })
	return list
}

// layerOf is a profile as the hosts of a class have it, by the strongest way
// in which they get it, without its options.
func (c *catalogue) layerOf(name string, k *class) (l layer, ok bool) {
	p := c.profiles[name]
	if p == nil || !p.exists {
		return l, false
	}
	l = layer{profile: name, rank: ofGroup}
	if _, own := slices.BinarySearch(k.profiles, name); own {
		l.rank = ofHost
		return l, true
	}
	for _, g := range k.groups {
		if _, given := p.groups[g]; given && g != everyone && c.isGroup(g) {
			l.to = append(l.to, g)
		}
	}
	if _, all := p.groups[everyone]; len(l.to) == 0 && all {
		l.to, l.rank = []string{everyone}, ofAll
	}
	return l, len(l.to) > 0
}

// granted says whether the hosts of a class get a profile.
func (c *catalogue) granted(name string, k *class) bool {
	_, ok := c.layerOf(name, k)
	return ok
}

// A setter is a layer that says something of an option.
type setter struct {
	layer
	value string // as the pages show it
}

// settings are those that hold for the hosts of a class. by names, of each
// option, the layers that set it, of which the last one holds.
func (c *catalogue) settings(k *class) (s rules.Settings, by map[string][]setter) {
	s, by = k.settings, map[string][]setter{}
	for _, l := range c.layers(k) {
		for key, v := range l.options {
			if s.Set(key, v) == nil { // a newer node may know more options
				by[key] = append(by[key], setter{l, shownValue(key, v)})
			}
		}
	}
	return s, by
}

// shownValue is the value of an option as pages show it.
func shownValue(key, value string) string {
	v, err := rules.ParseOption(key, value)
	if err != nil {
		return value
	}
	switch {
	case v == "" || v == rules.FormatPeriod(0):
		return "none"
	default:
		return strings.ReplaceAll(v, ",", ", ")
	}
}

// An EffectiveSetting is one option of [waptwua] as it holds on a host, and
// where it comes from.
type EffectiveSetting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"`        // "profile NAME", "group NAME", "wapt-get.ini", "default"
	Via    string `json:"via,omitempty"` // of a profile: "group NAME", "every host", "the host itself"
	// Over are those that say something else of it and do not hold, the
	// strongest first.
	Over []Overruled `json:"over,omitempty"`
}

// An Overruled is what somebody says of an option of a host and does not hold.
type Overruled struct {
	Value  string `json:"value"`
	Source string `json:"source"`
	Via    string `json:"via,omitempty"`
	Why    string `json:"why"` // what holds wins: "it is later in the order of profiles"
}

// effective lists the options of the hosts of a class by WAPT's names.
func (c *catalogue) effective(k *class) []EffectiveSetting {
	s, by := c.settings(k)
	own := map[string]string{}
	for _, o := range k.settings.Options() {
		own[o.Key] = o.Value
	}
	list := []EffectiveSetting{}
	for _, o := range s.Options() {
		e := EffectiveSetting{Name: o.Key, Value: unsetValue(o.Key), Source: "default"}
		if o.Value != "" {
			e.Value, e.Source = shownValue(o.Key, o.Value), "wapt-get.ini"
		}
		if setters := by[o.Key]; len(setters) > 0 {
			e.laid(setters, own[o.Key])
		}
		if o.Key != "filter" || e.Source != "default" { // few know that there is one
			list = append(list, e)
		}
	}
	return list
}

// laid says who set an option, and whom that overruled.
func (e *EffectiveSetting) laid(by []setter, own string) {
	won := by[len(by)-1]
	e.Value, e.Source, e.Via = won.value, won.source(), won.via()
	for _, x := range slices.Backward(by[:len(by)-1]) {
		if x.value != won.value {
			e.Over = append(e.Over, Overruled{x.value, x.source(), x.via(), won.over(x.layer)})
		}
	}
	if own != "" && shownValue(e.Name, own) != won.value {
		e.Over = append(e.Over, Overruled{Value: shownValue(e.Name, own), Source: "wapt-get.ini", Why: "the mesh is laid over the host's own file"})
	}
}

// unsetValue is what an option comes to that nobody set.
func unsetValue(key string) string {
	switch key {
	case "enabled":
		return "not set"
	case "download_scheduling":
		return rules.FormatPeriod(rules.DefaultSettings().DownloadScheduling)
	case "allowed_severities", "filter", "install_scheduling", "install_delay":
		return "none"
	}
	return rules.Bool(false)
}

// A SettingsImpact is what an edit does to the options of [waptwua] that hold
// on hosts. Decisions that change with them are in [Impact].
type SettingsImpact struct {
	Hosts   int             `json:"hosts"`   // on which some option gets another value
	Values  int             `json:"values"`  // host × option values that change
	Changes []SettingChange `json:"changes"` // at most 200, most hosts first
	OnHosts []SettingsHost  `json:"on_hosts"`
	Clashes []SettingClash  `json:"clashes,omitempty"` // of an edited profile with others, as they would be
}

// A SettingChange is an option that gets another value.
type SettingChange struct {
	Name  string `json:"name"`
	From  string `json:"from"`
	To    string `json:"to"`
	By    string `json:"by"` // who sets it then, as in EffectiveSetting.Source
	Hosts int    `json:"hosts"`
}

// A SettingsHost is a host whose settings change. At most 200 are listed, by
// name.
type SettingsHost struct {
	ID      agentproto.HostID `json:"id"`
	Name    string            `json:"name"`
	Changes []SettingChange   `json:"changes"` // each of one host
}

// A SettingClash is an option of which a profile and somebody else say
// different things on the same hosts.
type SettingClash struct {
	Name   string `json:"name"` // of the option
	Winner string `json:"winner"`
	Value  string `json:"value"` // what holds
	Loser  string `json:"loser"`
	Other  string `json:"other"` // what the loser says
	Why    string `json:"why"`   // the winner wins: "it is later in the order of profiles"
	// Alike says that both are profiles which the hosts get in the same way, so
	// that their order alone decides: what an admin may not have meant. Else one
	// is nearer to the hosts, which is what layers are for.
	Alike bool `json:"alike,omitempty"`
	Hosts int  `json:"hosts"`
}

// Summary says in one sentence what it does.
func (i SettingsImpact) Summary() string {
	if i.Hosts == 0 {
		return "No host gets other settings."
	}
	var what []string
	rest := i.Values
	for _, ch := range i.Changes[:min(len(i.Changes), 3)] {
		what = append(what, fmt.Sprintf("%s %s → %s on %d", ch.Name, ch.From, ch.To, ch.Hosts))
		rest -= ch.Hosts
	}
	if rest > 0 {
		what = append(what, fmt.Sprintf("%d more values", rest))
	}
	return things(i.Hosts, "host gets", "hosts get") + " other settings: " + strings.Join(what, ", ") + "."
}

// clashes are the options of which a profile and another layer say different
// things on the hosts of a class. Hosts is left zero, so that they compare.
func (c *catalogue) clashes(k *class, name string) (list []SettingClash) {
	if !c.granted(name, k) {
		return nil
	}
	_, by := c.settings(k)
	for key, setters := range by {
		won := setters[len(setters)-1]
		for _, x := range setters[:len(setters)-1] {
			if x.value != won.value && (x.profile == name || won.profile == name) {
				list = append(list, SettingClash{Name: key, Winner: won.source(), Value: won.value, Loser: x.source(), Other: x.value, Why: won.over(x.layer), Alike: won.alike(x.layer)})
			}
		}
	}
	return list
}

// alike says that only the order of profiles is between two layers.
func (l layer) alike(other layer) bool {
	return l.rank == other.rank && l.profile != "" && other.profile != ""
}

// clashList is clashes with the hosts they are on: where the order alone
// decides first, then most hosts first.
func clashList(found map[SettingClash]int) (list []SettingClash) {
	for clash, hosts := range found {
		clash.Hosts = hosts
		list = append(list, clash)
	}
	slices.SortFunc(list, func(x, y SettingClash) int {
		if x.Alike != y.Alike {
			return or(x.Alike, -1, 1)
		}
		return cmp.Or(y.Hosts-x.Hosts, strings.Compare(x.Name, y.Name), strings.Compare(x.Winner+"/"+x.Loser, y.Winner+"/"+y.Loser), strings.Compare(x.Value+"/"+x.Other+x.Why, y.Value+"/"+y.Other+y.Why))
	})
	return list[:min(len(list), maxImpactRows)]
}

// A settingsMeasure adds up what a change does to settings. Hosts of one class
// have the same ones, so what differs is worked out once for each pair.
type settingsMeasure struct {
	SettingsImpact
	c, after *catalogue
	profile  string
	pairs    map[[2]*class]*settingsPair
	touched  []SettingsHost
	changes  map[SettingChange]int
	found    map[SettingClash]int
}

type settingsPair struct {
	changes []SettingChange
	clashes []SettingClash
}

func newSettingsMeasure(c, after *catalogue, profile string) *settingsMeasure {
	return &settingsMeasure{c: c, after: after, profile: profile, pairs: map[[2]*class]*settingsPair{}, changes: map[SettingChange]int{}, found: map[SettingClash]int{}}
}

// host adds a host that is of one class now and of another one after.
func (m *settingsMeasure) host(h *host, was, then *class) {
	p := m.pairs[[2]*class{was, then}]
	if p == nil {
		p = &settingsPair{changes: differences(m.c.effective(was), m.after.effective(then))}
		if m.profile != "" {
			p.clashes = m.after.clashes(then, m.profile)
		}
		m.pairs[[2]*class{was, then}] = p
	}
	for _, clash := range p.clashes {
		m.found[clash]++
	}
	if len(p.changes) == 0 {
		return
	}
	m.Hosts++
	m.Values += len(p.changes)
	for _, ch := range p.changes {
		ch.Hosts = 0
		m.changes[ch]++
	}
	if len(m.touched) < maxImpactRows { // hosts come by name
		m.touched = append(m.touched, SettingsHost{h.id, h.Facts.Name, p.changes})
	}
}

// differences are the options that have another value, each of one host.
func differences(was, is []EffectiveSetting) (list []SettingChange) {
	before := map[string]string{}
	for _, e := range was {
		before[e.Name] = e.Value
	}
	for _, e := range is {
		from := cmp.Or(before[e.Name], unsetValue(e.Name))
		delete(before, e.Name)
		if from != e.Value {
			list = append(list, SettingChange{Name: e.Name, From: from, To: e.Value, By: e.Source, Hosts: 1})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) { // shown only while it is set
		if before[name] != unsetValue(name) {
			list = append(list, SettingChange{Name: name, From: before[name], To: unsetValue(name), By: "default", Hosts: 1})
		}
	}
	return list
}

// result is nil when no settings change and no profile is edited.
func (m *settingsMeasure) result() *SettingsImpact {
	if m.Hosts == 0 && m.profile == "" {
		return nil
	}
	r := m.SettingsImpact
	r.OnHosts, r.Changes, r.Clashes = append([]SettingsHost{}, m.touched...), []SettingChange{}, clashList(m.found)
	for ch, hosts := range m.changes {
		ch.Hosts = hosts
		r.Changes = append(r.Changes, ch)
	}
	slices.SortFunc(r.Changes, func(x, y SettingChange) int {
		return cmp.Or(y.Hosts-x.Hosts, strings.Compare(x.Name, y.Name), strings.Compare(x.From+"/"+x.To, y.From+"/"+y.To), strings.Compare(x.By, y.By))
	})
	r.Changes = r.Changes[:min(len(r.Changes), maxImpactRows)]
	return &r
}

// profileWarnings are what an admin may not have meant.
func (c *catalogue) profileWarnings(name string, reach int) (list []string) {
	p := c.profiles[name]
	if p == nil || !p.exists {
		return nil
	}
	if len(p.groups)+len(p.hosts) == 0 {
		list = append(list, "It is given to nobody yet: choose a group or a host.")
	} else if reach == 0 {
		list = append(list, "No host gets this profile now: the groups it is given to have none.")
	}
	if len(p.options) == 0 {
		list = append(list, "It sets nothing yet.")
	}
	return list
}

// profileChange is what storing the edit of a profile would do.
func (c *catalogue) profileChange(name string, e ProfileEdit) change {
	next := &profile{exists: true, profileRecord: profileRecord{Description: e.Description}, options: map[string]optionRecord{}, groups: map[string]editRecord{}, hosts: map[agentproto.HostID]editRecord{}}
	for key, v := range e.Options {
		next.options[key] = optionRecord{Value: v}
	}
	for _, g := range e.Groups {
		next.groups[g] = editRecord{}
	}
	for _, h := range e.Hosts {
		next.hosts[h] = editRecord{}
	}
	order := slices.Clone(c.inOrder())
	to := slices.Index(order, name)
	if to < 0 {
		order, to = append(order, name), len(order)
	}
	if e.Order > 0 {
		from := to
		to = min(e.Order, len(order)) - 1
		order = slices.Insert(slices.Delete(order, from, from+1), to, name)
	}
	k := change{try: func(after *catalogue) { after.profiles[name], after.profileOrder = next, order }, profile: name, moved: map[agentproto.HostID]bool{}}
	if now := c.profiles[name]; now != nil {
		differ(k.moved, now.hosts, next.hosts)
	} else {
		differ(k.moved, nil, next.hosts)
	}
	return k
}

// profileRemoval is what deleting a profile would do.
func (c *catalogue) profileRemoval(name string) change {
	k := change{try: func(after *catalogue) { delete(after.profiles, name) }, profile: name, moved: map[agentproto.HostID]bool{}}
	if now := c.profiles[name]; now != nil {
		differ(k.moved, now.hosts, nil)
	}
	return k
}
