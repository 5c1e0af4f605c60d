package appliance

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"wuamesh/agentproto"
)

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
