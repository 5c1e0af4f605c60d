package appliance

import (
	"cmp"
	"slices"
	"strings"

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

// alike says that only the order of profiles is between two layers.
func (l layer) alike(other layer) bool {
	return l.rank == other.rank && l.profile != "" && other.profile != ""
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
