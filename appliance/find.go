package appliance

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// Found is what a search finds in everything that has a name, the best first
// in each kind. Of hosts and updates there may be more than are here.
type Found struct {
	Hosts    HostList
	Updates  UpdateList // of the whole catalogue
	Packages []PackageRow
	Groups   []GroupRow
	Profiles []ProfileRow // of settings, by name
	// Exact is the one thing whose name or number the text is; its fields are
	// empty where there is none, or more than one.
	Exact Exact
}

// An Exact is one of its fields.
type Exact struct {
	Host    agentproto.HostID
	Update  rules.UpdateID
	Package string
	Group   string
	Profile string
}

// findRows is how many hosts and updates a search shows.
const findRows = 8

// maxFind is the longest text that is searched for, in bytes.
const maxFind = 200

// Find looks for a host by name, FQDN, address or HostID, an update by KB,
// UpdateID, CVE, bulletin or words of its title, a rule package, a group and a
// settings profile by name or description.
func (a *Appliance) Find(ctx context.Context, text string) (f Found, err error) {
	text = strings.TrimSpace(text)
	if len(text) > maxFind {
		return f, invalid("q", "The search has %d characters, at most %d.", len(text), maxFind)
	}
	if text == "" {
		return f, nil
	}
	if f.Hosts, err = a.Hosts(ctx, HostQuery{Text: text, Page: Page{Limit: findRows}}); err != nil {
		return f, err
	}
	if f.Updates, err = a.Updates(ctx, UpdateQuery{Scope: Whole, Text: text, Page: Page{Limit: findRows}}); err != nil {
		return f, err
	}
	packages, groups, err := a.findRules(ctx, text)
	if err != nil {
		return f, err
	}
	f.Packages, f.Groups = packages, groups
	if f.Profiles, err = a.findProfiles(ctx, text); err != nil {
		return f, err
	}
	f.Exact = a.exact(text, f)
	return f, nil
}

// findProfiles are settings profiles whose name or description has the text,
// those whose name begins with it first.
func (a *Appliance) findProfiles(ctx context.Context, text string) (list []ProfileRow, err error) {
	all, err := a.Profiles(ctx)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(all, func(p ProfileRow) bool { return nameRank(text, p.Name, p.Description) >= noName })
	slices.SortStableFunc(list, func(x, y ProfileRow) int {
		return cmp.Or(nameRank(text, x.Name, x.Description)-nameRank(text, y.Name, y.Description), strings.Compare(x.Name, y.Name))
	})
	return list, nil
}

// findRules are packages and groups whose name or description has the text,
// those whose name begins with it first.
func (a *Appliance) findRules(ctx context.Context, text string) (packages []PackageRow, groups []GroupRow, err error) {
	all, err := a.Packages(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range all {
		if nameRank(text, p.Name, p.Description) < noName {
			packages = append(packages, p)
		}
	}
	slices.SortStableFunc(packages, func(x, y PackageRow) int {
		return nameRank(text, x.Name, x.Description) - nameRank(text, y.Name, y.Description)
	})
	a.cat.mu.Lock()
	defer a.cat.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(a.cat.groups)) {
		if g := a.cat.groups[name]; g.exists && nameRank(text, name, g.Description) < noName {
			groups = append(groups, a.cat.groupRow(name))
		}
	}
	slices.SortStableFunc(groups, func(x, y GroupRow) int {
		return nameRank(text, x.Name, x.Description) - nameRank(text, y.Name, y.Description)
	})
	return packages, groups, nil
}

// noName is the rank of what does not have the text.
const noName = 3

func nameRank(text, name, description string) int {
	text, name = strings.ToLower(text), strings.ToLower(name)
	switch {
	case strings.HasPrefix(name, text):
		return 0
	case strings.Contains(name, text):
		return 1
	case strings.Contains(strings.ToLower(description), text):
		return 2
	}
	return noName
}

// exact is what is called precisely like the text, if that is one thing.
func (a *Appliance) exact(text string, f Found) Exact {
	var list []Exact
	for _, id := range a.hostsNamed(text) {
		list = append(list, Exact{Host: id})
	}
	kb := strings.TrimPrefix(strings.ToUpper(text), "KB")
	for _, u := range f.Updates.Updates {
		if strings.EqualFold(string(u.ID), text) || slices.Contains(u.KBs, kb) || slices.Contains(u.CVEs, strings.ToUpper(text)) {
			list = append(list, Exact{Update: u.ID})
		}
	}
	for _, p := range f.Packages {
		if strings.EqualFold(p.Name, text) {
			list = append(list, Exact{Package: p.Name})
		}
	}
	for _, g := range f.Groups {
		if strings.EqualFold(g.Name, text) {
			list = append(list, Exact{Group: g.Name})
		}
	}
	for _, p := range f.Profiles {
		if strings.EqualFold(p.Name, text) {
			list = append(list, Exact{Profile: p.Name})
		}
	}
	if len(list) != 1 {
		return Exact{}
	}
	return list[0]
}

// hostsNamed are the hosts of that name, FQDN, address or HostID.
func (a *Appliance) hostsNamed(text string) (ids []agentproto.HostID) {
	a.cat.mu.RLock()
	defer a.cat.mu.RUnlock()
	for id, h := range a.cat.hosts {
		if h.Key != "" && (strings.EqualFold(string(id), text) || strings.EqualFold(h.Facts.Name, text) || strings.EqualFold(h.Facts.FQDN, text) || slices.Contains(h.Facts.Addresses, text)) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(x, y agentproto.HostID) int { return cmp.Compare(x, y) })
	return ids
}
