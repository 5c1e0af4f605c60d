package appliance

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/replicate"
)

// Profiles are settings of agents under a name: options of section [waptwua],
// given to groups and to hosts. What holds on a host when several say
// something is in layer.go.
//
// Each option, and each group or host a profile is given to, is a record of its
// own, as lines and assignments of rule packages are: admins on two sides of a
// cut both keep what they did. Only two values of one option, or two edits of
// a description or a place, can meet; then one holds and both are shown.
type (
	profileRecord struct {
		Description string `json:"description,omitempty"`
		Place       int64  `json:"place"` // profiles are in the order of it, then of their names
		editRecord
	}
	optionRecord struct {
		Value string `json:"value"` // as rules.ParseOption spells it
		editRecord
	}
	// A profile is one in memory.
	profile struct {
		profileRecord
		exists  bool // its head is there, not only options of it
		options map[string]optionRecord
		groups  map[string]editRecord
		hosts   map[agentproto.HostID]editRecord
	}
)

// A ProfileRow is a profile as lists show it.
type ProfileRow struct {
	Name        string              `json:"name"`
	Description string              `json:"description,omitempty"`
	Order       int                 `json:"order"`   // from 1; of two profiles given alike the later one wins
	Options     map[string]string   `json:"options"` // by WAPT's names, as wapt-get.ini spells them
	Groups      []string            `json:"groups"`
	Hosts       []agentproto.HostID `json:"hosts"` // given to one by one
	Reach       int                 `json:"reach"` // hosts that get it, by either
	Edited      time.Time           `json:"edited"`
	EditedBy    string              `json:"edited_by"`
	Version     string              `json:"version"` // its last edit; an edit that names it as seen is refused when there is a later one
}

// A ProfileDetail is a profile with who set what, and where others say
// something else.
type ProfileDetail struct {
	ProfileRow
	Set     []ProfileOption `json:"set"` // by name of the option
	Clashes []SettingClash  `json:"clashes"`
}

// A ProfileOption is one option of a profile and who set it.
type ProfileOption struct {
	Name  string    `json:"name"`
	Value string    `json:"value"`
	By    string    `json:"by"`
	At    time.Time `json:"at"`
}

// A ProfileEdit is the whole of a profile as a form or PUT sends it.
type ProfileEdit struct {
	Description string              `json:"description"`
	Order       int                 `json:"order,omitempty"` // its place among the profiles, from 1; 0: where it is, or the last
	Options     map[string]string   `json:"options"`
	Groups      []string            `json:"groups"`
	Hosts       []agentproto.HostID `json:"hosts"`
	Seen        string              `json:"seen,omitempty"` // the version that the edit was made of; empty: whatever there is
}

// maxProfiles is far more than anybody can keep apart.
const maxProfiles = 200

func noProfile(name string) error {
	return &Problem{Kind: NotFound, Msg: fmt.Sprintf("There is no settings profile %.64q.", name), Hint: "It may have been deleted; the audit log says by whom."}
}

// Edit is the profile as it is, to change and send back.
func (p ProfileRow) Edit() ProfileEdit {
	return ProfileEdit{Description: p.Description, Options: maps.Clone(p.Options), Groups: slices.Clone(p.Groups), Hosts: slices.Clone(p.Hosts), Seen: p.Version}
}

// inOrder are the names of the profiles, the weakest first. The lock is held
// for writing.
func (c *catalogue) inOrder() []string {
	if c.profileOrder == nil {
		c.profileOrder = []string{}
		for name, p := range c.profiles {
			if p.exists {
				c.profileOrder = append(c.profileOrder, name)
			}
		}
		slices.SortFunc(c.profileOrder, func(x, y string) int {
			return cmp.Or(cmp.Compare(c.profiles[x].Place, c.profiles[y].Place), strings.Compare(x, y))
		})
	}
	return c.profileOrder
}

// profileRow is a profile as lists show it. The lock is held for writing.
func (c *catalogue) profileRow(name string) ProfileRow {
	p := c.profiles[name]
	r := ProfileRow{
		Name: name, Description: p.Description, Order: slices.Index(c.inOrder(), name) + 1, Options: map[string]string{}, Groups: []string{}, Hosts: []agentproto.HostID{},
		Edited: p.At, EditedBy: p.By, Version: c.profileEdits[name].id,
	}
	for key, o := range p.options {
		r.Options[key] = o.Value
	}
	for _, g := range slices.Sorted(maps.Keys(p.groups)) {
		if c.isGroup(g) { // one that was deleted on the other side of a cut gives nobody anything
			r.Groups = append(r.Groups, g)
		}
	}
	for _, h := range slices.Sorted(maps.Keys(p.hosts)) {
		if c.hosts[h] != nil {
			r.Hosts = append(r.Hosts, h)
		}
	}
	if e := c.profileEdits[name]; e.At.After(r.Edited) {
		r.Edited, r.EditedBy = e.At, e.By
	}
	c.classify()
	for _, k := range c.classes {
		if k.hosts > 0 && c.granted(name, k) {
			r.Reach += k.hosts
		}
	}
	return r
}

// Profiles lists the profiles in their order, the weakest first.
func (a *Appliance) Profiles(context.Context) ([]ProfileRow, error) {
	a.cat.mu.Lock()
	defer a.cat.mu.Unlock()
	list := []ProfileRow{}
	for _, name := range a.cat.inOrder() {
		list = append(list, a.cat.profileRow(name))
	}
	return list, nil
}

// Profile is one profile.
func (a *Appliance) Profile(_ context.Context, name string) (ProfileDetail, error) {
	c := a.cat
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.profiles[name]; p == nil || !p.exists {
		return ProfileDetail{}, noProfile(name)
	}
	d := ProfileDetail{ProfileRow: c.profileRow(name), Set: []ProfileOption{}, Clashes: []SettingClash{}}
	for _, key := range slices.Sorted(maps.Keys(c.profiles[name].options)) {
		o := c.profiles[name].options[key]
		d.Set = append(d.Set, ProfileOption{key, o.Value, o.By, o.At})
	}
	found := map[SettingClash]int{}
	for _, k := range c.classes {
		if k.hosts > 0 {
			for _, clash := range c.clashes(k, name) {
				found[clash] += k.hosts
			}
		}
	}
	d.Clashes = append(d.Clashes, clashList(found)...)
	return d, nil
}

// check makes the edit exact, or says what is wrong with it, by field.
func (e ProfileEdit) check(c *catalogue, name string) (ProfileEdit, error) {
	if err := checkWord(name); err != nil {
		return e, err
	}
	if len(e.Description) > 500 {
		return e, invalid("description", "The description has %d characters, at most 500.", len(e.Description))
	}
	if e.Order < 0 || e.Order > maxProfiles {
		return e, invalid("order", "The place of a profile is a number from 1 to %d.", maxProfiles)
	}
	options := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(e.Options)) {
		value, err := rules.ParseOption(key, e.Options[key])
		if err != nil && c.says(name, key, e.Options[key]) {
			value, err = e.Options[key], nil // of a newer node: it stays
		}
		if err != nil {
			return e, invalid("options."+key, "%s.", upper(err.Error()))
		}
		options[key] = value
	}
	e.Options, e.Groups, e.Hosts = options, slices.Compact(slices.Sorted(slices.Values(e.Groups))), slices.Compact(slices.Sorted(slices.Values(e.Hosts)))
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, g := range e.Groups {
		if !c.isGroup(g) {
			return e, invalid("groups", "There is no group %.64s.", g)
		}
	}
	for _, h := range e.Hosts {
		if c.hosts[h] == nil {
			return e, invalid("hosts", "There is no host %.60s.", h)
		}
	}
	return e, nil
}

// says says whether a profile has that very value of an option.
func (c *catalogue) says(name, key, value string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	p := c.profiles[name]
	if p == nil {
		return false
	}
	o, ok := p.options[key]
	return ok && o.Value == value
}

// PutProfile makes or replaces a profile, as one change set; created says
// which. Only what differs is written, so an edit elsewhere of another option
// lives on.
func (a *Appliance) PutProfile(ctx context.Context, by Actor, name string, e ProfileEdit) (created bool, err error) {
	return a.putProfile(ctx, by, name, e, "")
}

// putProfile is PutProfile with what the audit log calls it; empty for an edit.
func (a *Appliance) putProfile(ctx context.Context, by Actor, name string, e ProfileEdit, action string) (created bool, err error) {
	if err := by.need(Owner); err != nil {
		return false, err
	}
	if e, err = e.check(a.cat, name); err != nil {
		return false, err
	}
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		if err := profileHistory.unchangedSince(tx, name, e.Seen); err != nil {
			return err
		}
		old, exists, err := profiles.find(tx, name)
		if err != nil {
			return err
		}
		created = !exists
		what := cmp.Or(action, or(created, "make settings profile", "edit settings profile"))
		return a.versionedIn(profileHistory, tx, by, name, what, func() error { return a.writeProfile(tx, by, name, e, old, what) })
	})
	if err != nil {
		return false, fmt.Errorf("edit settings profile %s: %w", name, err)
	}
	a.log.InfoContext(ctx, "settings profile edited", "profile", name, "by", by.Name)
	return created, nil
}

// writeProfile writes what differs of an edit, with its entry in the audit log.
func (a *Appliance) writeProfile(tx *replicate.Tx, by Actor, name string, e ProfileEdit, old profileRecord, action string) error {
	edit := editRecord{By: by.Name, At: tx.Now()}
	was, is, err := placeProfile(tx, name, e, old, edit)
	if err != nil {
		return err
	}
	plus, minus, err := writeOptions(tx, name, e.Options, edit)
	if err != nil {
		return err
	}
	var want []string
	for _, g := range e.Groups {
		want = append(want, name+"/group/"+g)
	}
	for _, h := range e.Hosts {
		want = append(want, name+"/host/"+string(h))
	}
	more, less, err := replace(tx, grants, name+"/", want, edit)
	if err != nil {
		return err
	}
	return a.audit(tx, by, action, "profile "+name, strings.Join(slices.Concat(was, minus, less), ", "), strings.Join(slices.Concat(is, plus, more), ", "))
}

// writeOptions makes the options of a profile be just those, and says what
// became more and less.
func writeOptions(tx *replicate.Tx, name string, want map[string]string, edit editRecord) (plus, minus []string, err error) {
	same := map[string]bool{}
	for r, err := range profileOptions.all(tx, name+"/") {
		if err != nil {
			return nil, nil, err
		}
		key := strings.TrimPrefix(r.id, name+"/")
		value, stays := want[key]
		if same[key] = stays && value == r.value.Value; same[key] {
			continue
		}
		minus = append(minus, key+" = "+r.value.Value)
		if !stays {
			if err := profileOptions.del(tx, r.id); err != nil {
				return nil, nil, err
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if same[key] {
			continue
		}
		plus = append(plus, key+" = "+want[key])
		if err := profileOptions.put(tx, name+"/"+key, optionRecord{want[key], edit}); err != nil {
			return nil, nil, err
		}
	}
	return plus, minus, nil
}

// placeProfile writes the head of a profile, where it differs. Another profile
// gets another place only when there is no room between two.
func placeProfile(tx *replicate.Tx, name string, e ProfileEdit, old profileRecord, edit editRecord) (was, is []string, err error) {
	all, err := storedOrder(tx)
	if err != nil {
		return nil, nil, err
	}
	fresh := old.At.IsZero()
	if fresh && len(all) >= maxProfiles {
		return nil, nil, &Problem{Kind: TooMany, Msg: fmt.Sprintf("There are %d settings profiles already.", maxProfiles), Hint: "One profile may be given to many groups."}
	}
	from := slices.IndexFunc(all, func(r row[profileRecord]) bool { return r.id == name })
	to := from
	switch {
	case from < 0:
		all, from = append(all, row[profileRecord]{id: name}), len(all)
		if to = from; e.Order > 0 {
			to = min(e.Order-1, from)
		}
	case e.Order > 0:
		to = min(e.Order-1, len(all)-1)
	}
	if !fresh && to == from {
		if old.Description == e.Description {
			return nil, nil, nil
		}
		return nil, []string{fmt.Sprintf("description %q", e.Description)}, profiles.put(tx, name, profileRecord{e.Description, old.Place, edit})
	}
	if !fresh {
		was = []string{fmt.Sprintf("place %d", from+1)}
	}
	is = []string{fmt.Sprintf("place %d", to+1)}
	if old.Description != e.Description {
		is = append(is, fmt.Sprintf("description %q", e.Description))
	}
	all = slices.Insert(slices.Delete(all, from, from+1), to, row[profileRecord]{name, profileRecord{Description: e.Description, editRecord: edit}})
	places := make([]int64, len(all))
	for i, r := range all {
		places[i] = r.value.Place
	}
	if place, room := between(places, to); room {
		all[to].value.Place = place
		return was, is, profiles.put(tx, name, all[to].value)
	}
	for i, r := range all {
		r.value.Place = int64(i+1) * placeStep
		if err := profiles.put(tx, r.id, r.value); err != nil {
			return nil, nil, err
		}
	}
	return was, is, nil
}

// placeAll puts the profiles into an order, moving as few as it can: those of
// the longest run that is in it already stay. Others come behind.
func placeAll(tx *replicate.Tx, order []string, edit editRecord) error {
	all, err := storedOrder(tx)
	if err != nil {
		return err
	}
	head, now := map[string]profileRecord{}, []string{}
	for _, r := range all {
		head[r.id] = r.value
		now = append(now, r.id)
	}
	for _, name := range now {
		if !slices.Contains(order, name) {
			order = append(slices.Clone(order), name)
		}
	}
	stays := longestRun(order, now)
	var places []int64 // of those before, and then of those that stay
	for i, name := range order {
		if stays[name] {
			places = append(places, head[name].Place)
			continue
		}
		list := append(slices.Clone(places), 0)
		for _, next := range order[i+1:] {
			if stays[next] {
				list = append(list, head[next].Place)
			}
		}
		place, room := between(list, i)
		if !room {
			return renumber(tx, order, head)
		}
		h := head[name]
		h.Place, h.editRecord = place, edit
		if err := profiles.put(tx, name, h); err != nil {
			return err
		}
		places = append(places, place)
	}
	return nil
}

// renumber gives every profile a new place, with room between them.
func renumber(tx *replicate.Tx, order []string, head map[string]profileRecord) error {
	for i, name := range order {
		h := head[name]
		h.Place = int64(i+1) * placeStep
		if err := profiles.put(tx, name, h); err != nil {
			return err
		}
	}
	return nil
}

// longestRun are the most names that stand in both lists one behind the other.
// The lists have the same names.
func longestRun(order, now []string) map[string]bool {
	length, before, rank := make([]int, len(order)), make([]int, len(order)), map[string]int{}
	for i, name := range now {
		rank[name] = i
	}
	best := -1
	for i := range order {
		length[i], before[i] = 1, -1
		for j := range i {
			if rank[order[j]] < rank[order[i]] && length[j] >= length[i] {
				length[i], before[i] = length[j]+1, j
			}
		}
		if best < 0 || length[i] > length[best] {
			best = i
		}
	}
	stays := map[string]bool{}
	for ; best >= 0; best = before[best] {
		stays[order[best]] = true
	}
	return stays
}

func storedOrder(tx *replicate.Tx) (list []row[profileRecord], err error) {
	for r, err := range profiles.all(tx, "") {
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(x, y row[profileRecord]) int {
		return cmp.Or(cmp.Compare(x.value.Place, y.value.Place), strings.Compare(x.id, y.id))
	})
	return list, nil
}

// DeleteProfile deletes a profile with its options; its versions stay.
func (a *Appliance) DeleteProfile(ctx context.Context, by Actor, name string) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error { return a.removeProfile(tx, by, name) })
}

func (a *Appliance) removeProfile(tx *replicate.Tx, by Actor, name string) error {
	if _, ok, err := profiles.find(tx, name); err != nil || !ok {
		return cmpErr(err, noProfile(name))
	}
	s, err := profileState(tx, name)
	if err != nil {
		return err
	}
	err = a.versionedIn(profileHistory, tx, by, name, "delete settings profile", func() error {
		return cmp.Or(profiles.del(tx, name), delAll(tx, profileOptions, name+"/"), delAll(tx, grants, name+"/"))
	})
	if err != nil {
		return err
	}
	return a.audit(tx, by, "delete settings profile", "profile "+name, s.hadText(), "")
}

// takeProfile takes a changed record of a profile into memory.
func (c *catalogue) takeProfile(kind, id string, r replicate.Record) error {
	c.touch()
	c.forgetPolicies()
	c.profileOrder = nil
	wake(c.contrary)
	name, rest, _ := strings.Cut(id, "/")
	p := c.profiles[name]
	if p == nil {
		p = &profile{options: map[string]optionRecord{}, groups: map[string]editRecord{}, hosts: map[agentproto.HostID]editRecord{}}
		c.profiles[name] = p
	}
	defer func() {
		if !p.exists && len(p.options)+len(p.groups)+len(p.hosts) == 0 {
			delete(c.profiles, name)
		}
	}()
	switch kind {
	case "profile":
		if p.exists, p.profileRecord = !r.Deleted, (profileRecord{}); r.Deleted {
			return nil
		}
		return decode(r.Key, r.Value, &p.profileRecord)
	case "option":
		return set(p.options, rest, r)
	}
	to, target, _ := strings.Cut(rest, "/")
	if to == "group" {
		return set(p.groups, target, r)
	}
	if h := c.hosts[agentproto.HostID(target)]; h != nil {
		c.declass(h)
	}
	return set(p.hosts, agentproto.HostID(target), r)
}

// leftOver are the records that stand beside the deletion of their profile.
func (p *profile) leftOver(name string) (list []contradiction) {
	head := profiles.prefix + name
	for key := range p.options {
		list = append(list, contradiction{head, profileOptions.prefix + name + "/" + key})
	}
	for g := range p.groups {
		list = append(list, contradiction{head, grants.prefix + name + "/group/" + g})
	}
	for h := range p.hosts {
		list = append(list, contradiction{head, grants.prefix + name + "/host/" + string(h)})
	}
	return list
}
