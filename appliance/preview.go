package appliance

import (
	"context"
	"maps"
	"slices"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// A change is an edit of what decides, before it is made: it is tried on a
// catalogue that nobody else sees. The hosts it moves are those whose class
// it may change.
type change struct {
	try   func(after *catalogue)
	moved map[agentproto.HostID]bool
	pkg   string // the package it edits; empty for other edits
	// profile is the settings profile it edits; empty for other edits.
	profile string
}

// whatIf is a catalogue with the hosts and updates of this one, whose rules
// and groups may be edited without anything happening. Policies are built in
// it by the code that builds those of hosts, so what is previewed is what
// will be. The lock is held for writing, and stays held.
func (c *catalogue) whatIf() *catalogue {
	return &catalogue{
		log: c.log, folder: c.folder, roster: c.roster, variants: c.variants, updates: c.updates,
		packages: maps.Clone(c.packages), stops: maps.Clone(c.stops), groups: maps.Clone(c.groups), profiles: maps.Clone(c.profiles),
		classes: map[string]*class{}, policies: map[string]*policy{},
	}
}

// packageChange is what storing the edit of a package would do.
func (c *catalogue) packageChange(name string, e PackageEdit) change {
	next := &pkg{
		exists: true, packageRecord: packageRecord{Description: e.Description, Maturity: e.Maturity},
		lines: map[rules.Line]editRecord{}, groups: map[string]editRecord{}, hosts: map[agentproto.HostID]editRecord{},
	}
	for _, l := range e.Lines {
		next.lines[l] = editRecord{}
	}
	for _, g := range e.Groups {
		next.groups[g] = editRecord{}
	}
	for _, h := range e.Hosts {
		next.hosts[h] = editRecord{}
	}
	k := change{try: func(after *catalogue) { after.packages[name] = next }, pkg: name, moved: map[agentproto.HostID]bool{}}
	if now := c.packages[name]; now != nil {
		differ(k.moved, now.hosts, next.hosts)
	} else {
		differ(k.moved, nil, next.hosts)
	}
	return k
}

// packageRemoval is what deleting a package would do.
func (c *catalogue) packageRemoval(name string) change {
	k := change{try: func(after *catalogue) { delete(after.packages, name) }, moved: map[agentproto.HostID]bool{}}
	if now := c.packages[name]; now != nil {
		differ(k.moved, now.hosts, nil)
	}
	return k
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

// groupChange is what storing the edit of a group would do.
func (c *catalogue) groupChange(name string, e GroupEdit) change {
	next := c.groupAfter(name, e)
	k := change{try: func(after *catalogue) { after.groups[name] = next }, moved: map[agentproto.HostID]bool{}}
	for id, h := range c.hosts {
		if is, then := c.isIn(name, h), next.has(h, c.siteOf(h)); is != then {
			k.moved[id] = true
		}
	}
	return k
}

// groupReturn is what bringing a group back would do, with the packages and
// profiles it was given.
func (c *catalogue) groupReturn(name string, e GroupEdit, pkgs, profs []string) change {
	k := c.groupChange(name, e)
	alone := k.try
	k.try = func(after *catalogue) {
		alone(after)
		for _, p := range pkgs {
			next := *after.packages[p]
			next.groups = maps.Clone(next.groups)
			next.groups[name] = editRecord{}
			after.packages[p] = &next
		}
		for _, p := range profs {
			next := *after.profiles[p]
			next.groups = maps.Clone(next.groups)
			next.groups[name] = editRecord{}
			after.profiles[p] = &next
		}
	}
	return k
}

// groupRemoval is what deleting a group would do.
func (c *catalogue) groupRemoval(name string) change {
	k := change{try: func(after *catalogue) { delete(after.groups, name) }, moved: map[agentproto.HostID]bool{}}
	for id, h := range c.hosts {
		if c.isIn(name, h) {
			k.moved[id] = true
		}
	}
	return k
}

// groupAfter is a group as an edit would leave it.
func (c *catalogue) groupAfter(name string, e GroupEdit) *group {
	next := &group{exists: true, groupRecord: groupRecord{Description: e.Description, Accepts: e.Accepts, Settings: e.Settings}, members: map[agentproto.HostID]editRecord{}}
	for _, h := range e.Members {
		next.members[h] = editRecord{}
	}
	if e.Condition != nil {
		next.chooses = e.Condition.matcher()
	} else if now := c.groups[name]; now != nil {
		next.chooses = now.chooses
	}
	return next
}

// isIn says whether a host is in a group as it is.
func (c *catalogue) isIn(name string, h *host) bool {
	g := c.groups[name]
	return g != nil && g.has(h, c.siteOf(h))
}

// maxMembership is how many members of a group an answer names.
const maxMembership = 200

// PreviewMembers says who would be in a group after PutGroup with the same
// edit; those whose place changes come first.
func (a *Appliance) PreviewMembers(_ context.Context, name string, e GroupEdit) (Membership, error) {
	if err := e.check(a.cat, name); err != nil {
		return Membership{}, err
	}
	c := a.cat
	c.mu.Lock()
	defer c.mu.Unlock()
	m, next, stay := Membership{Members: []HostName{}}, c.groupAfter(name, e), []HostName(nil)
	for _, h := range c.sorted() {
		if h.Key == "" {
			continue
		}
		is, then := c.isIn(name, h), next.has(h, c.siteOf(h))
		if name == everyone {
			is, then = true, true
		}
		row := HostName{ID: h.id, Name: h.Facts.Name, OS: h.Facts.OS, Joins: then && !is, Leaves: is && !then}
		switch {
		case then == is && then:
			m.Hosts++
			stay = append(stay, row)
			continue
		case then:
			m.Hosts++
			m.Joins++
		case is:
			m.Leaves++
		default:
			continue
		}
		m.Members = append(m.Members, row)
	}
	m.Members = append(m.Members, stay...)
	m.Members = m.Members[:min(len(m.Members), maxMembership)]
	return m, nil
}

// differ adds what is in one of the two sets and not in the other.
func differ[K comparable, V any](to map[K]bool, x, y map[K]V) {
	for k := range x {
		if _, ok := y[k]; !ok {
			to[k] = true
		}
	}
	for k := range y {
		if _, ok := x[k]; !ok {
			to[k] = true
		}
	}
}

// impact works out what a change would do to every host, from its last
// report. The lock is held for writing.
func (c *catalogue) impact(k change, now time.Time) Impact {
	after := c.whatIf()
	k.try(after)
	m := &measure{c: c, after: after, now: now, change: k, needed: c.counts(now).needed, rows: map[impactKey]*ImpactUpdate{}, files: map[string]int64{}, winners: map[string]int32{}}
	m.settings = newSettingsMeasure(c, after, k.profile)
	m.subjects = make([]*subject, len(c.variants.list))
	ghosts, get := map[*class]*host{}, map[*class][]*host{}
	pairs := map[[2]*policy][]*host{}
	for _, h := range c.sorted() {
		if h.Key == "" {
			continue
		}
		is := c.classOf(h)
		ghost := ghosts[is]
		switch {
		case k.moved[h.id]:
			ghost = &host{id: h.id, hostRecord: h.hostRecord, at: h.at}
		case ghost == nil:
			ghost = &host{class: &class{settings: is.settings, groups: is.groups, packages: is.packages, profiles: is.profiles}}
			ghosts[is] = ghost
		}
		was, then := c.policyOf(h), after.policyOf(ghost)
		if !h.Waiting && (k.profile != "" || was.hash != then.hash) {
			m.settings.host(h, is, ghost.class)
		}
		named := k.pkg != "" && after.gets(ghost.class, k.pkg) || k.profile != "" && after.granted(k.profile, ghost.class)
		if named {
			m.Reach++
		}
		if named && k.pkg != "" {
			get[ghost.class] = append(get[ghost.class], h)
		}
		if !h.Waiting && (named && k.pkg != "" || was.hash != then.hash) {
			pairs[[2]*policy{was, then}] = append(pairs[[2]*policy{was, then}], h)
		}
	}
	for p, hosts := range pairs {
		m.hosts(p[0], p[1], hosts)
	}
	if k.pkg != "" {
		m.Merged = c.merged(after, k.pkg, get, now)
	}
	return m.result()
}

// PreviewPackage says what PutPackage would do with the same edit.
func (a *Appliance) PreviewPackage(_ context.Context, name string, e PackageEdit) (Impact, error) {
	if err := e.check(a.cat, name); err != nil {
		return Impact{}, err
	}
	return a.preview(func(c *catalogue) change { return c.packageChange(name, e) }), nil
}

// PreviewDeletePackage says what DeletePackage would do.
func (a *Appliance) PreviewDeletePackage(ctx context.Context, name string) (Impact, error) {
	if _, err := a.Package(ctx, name); err != nil {
		return Impact{}, err
	}
	return a.preview(func(c *catalogue) change { return c.packageRemoval(name) }), nil
}

// PreviewGroup says what PutGroup would do with the same edit.
func (a *Appliance) PreviewGroup(_ context.Context, name string, e GroupEdit) (Impact, error) {
	return a.previewGroup(name, e, nil, nil)
}

// previewGroup is PreviewGroup of a group that is given packages and profiles
// with it.
func (a *Appliance) previewGroup(name string, e GroupEdit, pkgs, profs []string) (Impact, error) {
	if err := e.check(a.cat, name); err != nil {
		return Impact{}, err
	}
	return a.preview(func(c *catalogue) change { return c.groupReturn(name, e, pkgs, profs) }), nil
}

// PreviewDeleteGroup says what DeleteGroup would do.
func (a *Appliance) PreviewDeleteGroup(ctx context.Context, name string) (Impact, error) {
	if name == everyone {
		return Impact{}, errEveryone
	}
	if _, err := a.Group(ctx, name); err != nil {
		return Impact{}, err
	}
	return a.preview(func(c *catalogue) change { return c.groupRemoval(name) }), nil
}

// PreviewProfile says what PutProfile would do with the same edit.
func (a *Appliance) PreviewProfile(_ context.Context, name string, e ProfileEdit) (Impact, error) {
	e, err := e.check(a.cat, name)
	if err != nil {
		return Impact{}, err
	}
	return a.preview(func(c *catalogue) change { return c.profileChange(name, e) }), nil
}

// PreviewDeleteProfile says what DeleteProfile would do.
func (a *Appliance) PreviewDeleteProfile(ctx context.Context, name string) (Impact, error) {
	if _, err := a.Profile(ctx, name); err != nil {
		return Impact{}, err
	}
	return a.preview(func(c *catalogue) change { return c.profileRemoval(name) }), nil
}

func (a *Appliance) preview(make func(*catalogue) change) Impact {
	c := a.cat
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	return c.impact(make(c), now)
}

// Edit is the package as it is, to change and send back.
func (p PackageDetail) Edit() PackageEdit {
	e := PackageEdit{Description: p.Description, Maturity: p.Maturity, Groups: p.Groups, Hosts: p.Hosts, Lines: []rules.Line{}}
	for _, l := range p.Lines {
		e.Lines = append(e.Lines, l.Line)
	}
	return e
}

// With is the edit as AddLines makes it: a line with the other verb for the
// same thing is taken out.
func (e PackageEdit) With(list ...rules.Line) PackageEdit {
	e.Lines = slices.DeleteFunc(slices.Clone(e.Lines), func(l rules.Line) bool {
		return slices.ContainsFunc(list, func(n rules.Line) bool { return n.Kind == l.Kind && n.Value == l.Value })
	})
	e.Lines = append(e.Lines, list...)
	return e
}

// Without is the edit as RemoveLines makes it.
func (e PackageEdit) Without(list ...rules.Line) PackageEdit {
	e.Lines = slices.DeleteFunc(slices.Clone(e.Lines), func(l rules.Line) bool { return slices.Contains(list, l) })
	return e
}
