package appliance

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/replicate"
)

// A version is what one edit of a rule package, a profile or a group changed:
// its lines, options, members and assignments by the keys of their records, and
// its head.
// What it was at some time is worked out from the edits before and after, so
// that edits on two sides of a cut add up in their versions as they do in the
// thing itself.
type (
	versionRecord struct {
		editRecord
		Node   string       `json:"node"`
		Action string       `json:"action"`
		Was    *versionHead `json:"was,omitempty"` // nil: there was no package
		Is     *versionHead `json:"is,omitempty"`  // nil: it was deleted
		Plus   []string     `json:"plus,omitempty"`
		Minus  []string     `json:"minus,omitempty"`
	}
	versionHead struct {
		Description string         `json:"description,omitempty"`
		Maturity    rules.Maturity `json:"maturity"`
	}
	// A versionState is a package, a profile or a group at some time: its head,
	// nil for none, and the keys of its records without its name. An option has
	// its value in its entry.
	versionState struct {
		head    *versionHead
		entries map[string]bool
	}
	// A history is the versions of one kind of thing.
	history struct {
		table[versionRecord]
		kind  string // as the audit log names it
		state func(tx *replicate.Tx, name string) (versionState, error)
	}
)

var (
	packageHistory = history{versions, "package", stateOf}
	profileHistory = history{profileVersions, "profile", profileState}
	groupHistory   = history{groupVersions, "group", groupState}
)

// A lastEdit is the last version of a thing: of what an edit took out of it
// only that is left.
type lastEdit struct {
	id string
	editRecord
}

// A PackageVersion is one edit of a rule package, a profile or a group. It was
// like this until the next.
type PackageVersion struct {
	ID      string    `json:"id"`
	At      time.Time `json:"at,omitzero"` // zero: before versions were kept
	By      string    `json:"by,omitempty"`
	Node    string    `json:"node,omitempty"` // where it was made
	Action  string    `json:"action"`
	Added   []string  `json:"added,omitempty"` // at most 20
	Removed []string  `json:"removed,omitempty"`
	More    int       `json:"more,omitempty"` // changes besides those
	Current bool      `json:"current,omitempty"`
}

// A VersionDetail is a rule package as it was after an edit.
type VersionDetail struct {
	PackageVersion
	Exists bool        `json:"exists"` // false: it was deleted then
	Edit   PackageEdit `json:"edit"`   // what going back to it stores
	Lines  []LineRow   `json:"lines"`
	Gone   []string    `json:"gone,omitempty"` // groups and hosts that are no more; they are left out
}

const (
	versionLife    = 3 * 365 * 24 * time.Hour // and longer of the latest:
	versionsKept   = 50                       // of each package
	versionChanges = 20                       // that a list shows of one
	firstVersion   = "before"                 // what was before versions were kept
)

// versioned makes an edit of a package and keeps what it changed as a version.
func (a *Appliance) versioned(tx *replicate.Tx, by Actor, name, action string, edit func() error) error {
	return a.versionedIn(packageHistory, tx, by, name, action, edit)
}

// versionedIn is versioned for any kind of thing.
func (a *Appliance) versionedIn(h history, tx *replicate.Tx, by Actor, name, action string, edit func() error) error {
	was, err := h.state(tx, name)
	if err != nil {
		return err
	}
	if err := edit(); err != nil {
		return err
	}
	is, err := h.state(tx, name)
	if err != nil {
		return err
	}
	return a.keepVersion(h, tx, by, name, action, was, is)
}

// keepVersion keeps what an edit changed, where it changed something.
func (a *Appliance) keepVersion(h history, tx *replicate.Tx, by Actor, name, action string, was, is versionState) error {
	v := versionRecord{editRecord: editRecord{By: by.Name, At: tx.Now()}, Node: a.NodeName(), Action: action, Was: was.head, Is: is.head}
	v.Plus, v.Minus = onlyIn(is.entries, was.entries), onlyIn(was.entries, is.entries)
	if len(v.Plus)+len(v.Minus) == 0 && sameHead(was.head, is.head) {
		return nil
	}
	var tail [4]byte
	rand.Read(tail[:])
	return h.put(tx, fmt.Sprintf("%s/%016x-%s", name, uint64(tx.Version().Clock), hex.EncodeToString(tail[:])), v)
}

func sameHead(x, y *versionHead) bool { return x == y || x != nil && y != nil && *x == *y }

func onlyIn(x, y map[string]bool) (list []string) {
	for k := range x {
		if !y[k] {
			list = append(list, k)
		}
	}
	slices.Sort(list)
	return list
}

// stateOf is the package as the store has it.
func stateOf(tx *replicate.Tx, name string) (s versionState, err error) {
	s.entries = map[string]bool{}
	head, ok, err := packages.find(tx, name)
	if err != nil {
		return s, err
	}
	if ok {
		s.head = &versionHead{head.Description, head.Maturity}
	}
	for _, t := range []table[editRecord]{lines, assigns} {
		for r, err := range t.all(tx, name+"/") {
			if err != nil {
				return s, err
			}
			s.entries[strings.TrimPrefix(r.id, name+"/")] = true
		}
	}
	return s, nil
}

// historyOf is the history that an edit of a record belongs to, and the name of
// the package, profile or group; empty for none.
func historyOf(key string) (h history, name string) {
	kind, rest, _ := strings.Cut(key, "/")
	name, _, _ = strings.Cut(rest, "/")
	switch kind {
	case "package", "line", "assign":
		return packageHistory, name
	case "profile", "option", "grant":
		return profileHistory, name
	case "group", "member", "term":
		return groupHistory, name
	}
	return h, ""
}

// versionedKey is versioned for an edit of one record, of whatever kind.
func (a *Appliance) versionedKey(tx *replicate.Tx, by Actor, key, action string, edit func() error) error {
	if h, name := historyOf(key); name != "" {
		return a.versionedIn(h, tx, by, name, action, edit)
	}
	return edit()
}

// of are the versions of one of its things, the earliest first.
func (h history) of(tx *replicate.Tx, name string) (list []row[versionRecord], err error) {
	for r, err := range h.all(tx, name+"/") {
		if err != nil {
			return nil, err
		}
		r.id = strings.TrimPrefix(r.id, name+"/")
		list = append(list, r)
	}
	return list, nil
}

// stateAt is the package after edit i of list, before all of them for -1: each
// thing as the last edit until then left it; where none touched it as the
// first one after found it; where none ever did, as it is now.
func stateAt(now versionState, list []row[versionRecord], i int) versionState {
	s := versionState{head: now.head, entries: map[string]bool{}}
	for k := range now.entries {
		s.entries[k] = true
	}
	for j := len(list) - 1; j > i; j-- { // the earliest after i is set last
		for _, k := range list[j].value.Plus {
			delete(s.entries, k)
		}
		for _, k := range list[j].value.Minus {
			s.entries[k] = true
		}
		s.head = list[j].value.Was
	}
	for _, r := range list[:i+1] {
		for _, k := range r.value.Plus {
			s.add(k)
		}
		for _, k := range r.value.Minus {
			delete(s.entries, k)
		}
		s.head = r.value.Is
	}
	return s
}

// add puts an entry in. An option has one value: the one before goes, which on
// the other side of a cut may be one that this side never had.
func (s versionState) add(entry string) {
	if key, _, ok := strings.Cut(entry, "="); ok && strings.HasPrefix(key, optionEntry) {
		for k := range s.entries {
			if strings.HasPrefix(k, key+"=") {
				delete(s.entries, k)
			}
		}
	}
	s.entries[entry] = true
}

// Versions lists the edits of a package, the latest first; of one that was
// deleted, too.
func (a *Appliance) Versions(ctx context.Context, name string) ([]PackageVersion, error) {
	return a.versionsIn(ctx, packageHistory, name)
}

// takeVersion keeps which version of each thing is the last.
func takeVersion(last map[string]lastEdit, key string, r replicate.Record) error {
	if r.Deleted {
		return nil
	}
	var v editRecord
	if err := decode(r.Key, r.Value, &v); err != nil {
		return err
	}
	if name, id, _ := strings.Cut(key, "/"); id > last[name].id {
		last[name] = lastEdit{id, v}
	}
	return nil
}

// read are the versions of a thing, and what it is now.
func (a *Appliance) read(ctx context.Context, h history, name string) (list []row[versionRecord], now versionState, err error) {
	err = a.db.View(ctx, func(tx *replicate.Tx) (err error) {
		if list, err = h.of(tx, name); err != nil {
			return err
		}
		now, err = h.state(tx, name)
		return err
	})
	if err != nil {
		err = fmt.Errorf("read the versions of %s: %w", name, err)
	}
	return list, now, err
}

func (a *Appliance) versionsIn(ctx context.Context, h history, name string) ([]PackageVersion, error) {
	list, now, err := a.read(ctx, h, name)
	switch {
	case err != nil:
		return nil, err
	case len(list) == 0 && now.head == nil:
		return nil, h.none(name)
	}
	rows := []PackageVersion{}
	a.cat.mu.RLock()
	defer a.cat.mu.RUnlock()
	for i, r := range slices.Backward(list) {
		rows = append(rows, a.cat.versionRow(r, i == len(list)-1))
	}
	if len(list) > 0 && list[0].value.Was != nil {
		rows = append(rows, PackageVersion{ID: firstVersion, Action: "as it was before"})
	}
	return rows, nil
}

func (c *catalogue) versionRow(r row[versionRecord], current bool) PackageVersion {
	v := r.value
	p := PackageVersion{ID: r.id, At: v.At, By: v.By, Node: v.Node, Action: v.Action, Current: current}
	add := func(list *[]string, text string) {
		if len(p.Added)+len(p.Removed) == versionChanges {
			p.More++
			return
		}
		*list = append(*list, text)
	}
	if v.Was != nil && v.Is != nil && v.Was.Maturity != v.Is.Maturity {
		add(&p.Removed, "maturity "+string(v.Was.Maturity))
		add(&p.Added, "maturity "+string(v.Is.Maturity))
	}
	if v.Was != nil && v.Is != nil && v.Was.Description != v.Is.Description {
		add(&p.Added, fmt.Sprintf("description %q", v.Is.Description))
	}
	for _, k := range v.Plus {
		add(&p.Added, c.entryText(k))
	}
	for _, k := range v.Minus {
		add(&p.Removed, c.entryText(k))
	}
	return p
}

// entryWords says what a line, an option or an assignment is, with the ids of
// what it names.
func entryWords(key string) string {
	if option, ok := strings.CutPrefix(key, optionEntry); ok {
		name, value, _ := strings.Cut(option, "=")
		return name + " = " + cmp.Or(value, "none")
	}
	if text := groupEntryText(key); text != "" {
		return text
	}
	if _, l := lineOf("/" + key); l.Kind != "" {
		return l.String()
	}
	return strings.Replace(key, "/", " ", 1)
}

// hadText is what something had that is deleted. Hosts are a number: they may
// be very many, and its version has each.
func (s versionState) hadText() string {
	var had []string
	if s.head.Maturity != "" {
		had = append(had, string(s.head.Maturity))
	}
	hosts := 0
	for _, key := range onlyIn(s.entries, nil) {
		if strings.HasPrefix(key, memberEntry) || strings.HasPrefix(key, "host/") {
			hosts++
		} else {
			had = append(had, entryWords(key))
		}
	}
	if hosts > 0 {
		had = append(had, things(hosts, "host", "hosts")+" given one by one")
	}
	return strings.Join(had, ", ")
}

// entryText is entryWords with names, for people.
func (c *catalogue) entryText(key string) string {
	words := entryWords(key)
	_, l := lineOf("/" + key)
	switch {
	case l.String() != words:
		return c.hostNamed(words)
	case l.Kind == rules.ByUpdateID:
		return cmp.Or(joined(string(l.Verb), c.name(rules.UpdateID(l.Value)).Title), words)
	case l.Kind == rules.ByProduct, l.Kind == rules.ByClassification:
		return cmp.Or(joined(string(l.Verb)+" "+string(l.Kind), c.named(agentproto.Category{ID: rules.CategoryID(l.Value)}).Title), words)
	}
	return words
}

// joined is both words, nothing without the second.
func joined(a, b string) string {
	if b == "" {
		return ""
	}
	return a + " " + b
}

// Version is a package as it was after one of its edits.
func (a *Appliance) Version(ctx context.Context, name, id string) (d VersionDetail, err error) {
	v, s, err := a.versionIn(ctx, packageHistory, name, id)
	if err != nil {
		return d, err
	}
	c := a.cat
	c.mu.RLock()
	defer c.mu.RUnlock()
	d = VersionDetail{PackageVersion: v, Exists: s.head != nil, Lines: []LineRow{}}
	d.Edit, d.Gone = c.editOf(s)
	for _, l := range d.Edit.Lines {
		d.Lines = append(d.Lines, c.lineRow(l, editRecord{}))
	}
	return d, nil
}

// versionIn is one version of a thing and what the thing was then.
func (a *Appliance) versionIn(ctx context.Context, h history, name, id string) (v PackageVersion, s versionState, err error) {
	list, now, err := a.read(ctx, h, name)
	if err != nil {
		return v, s, err
	}
	i := slices.IndexFunc(list, func(r row[versionRecord]) bool { return r.id == id })
	if i < 0 && (id != firstVersion || len(list) == 0) {
		return v, s, &Problem{Kind: NotFound, Msg: fmt.Sprintf("%s %.64s has no version %.60q.", upper(h.kind), name, id), Hint: "Its page lists those that are kept."}
	}
	v = PackageVersion{ID: firstVersion, Action: "as it was before"}
	if i >= 0 {
		a.cat.mu.RLock()
		defer a.cat.mu.RUnlock()
		v = a.cat.versionRow(list[i], i == len(list)-1)
	}
	return v, stateAt(now, list, i), nil
}

// unchangedSince refuses an edit that was made of an older version than the
// last one.
func (h history) unchangedSince(tx *replicate.Tx, name, seen string) error {
	if seen == "" {
		return nil
	}
	list, err := h.of(tx, name)
	if err != nil || len(list) == 0 || list[len(list)-1].id == seen {
		return err
	}
	last := list[len(list)-1].value
	return &Problem{
		Kind: Conflict, Code: "WM-301", Msg: fmt.Sprintf("%s edited %s meanwhile, on %s: nothing was saved.", last.By, name, last.Node),
		Hint: fmt.Sprintf("Open the %s again to see what it is now, and make your change there. Its versions say what changed.", h.kind),
	}
}

// none says that there is no such thing, and was none.
func (h history) none(name string) error {
	switch h.kind {
	case profileHistory.kind:
		return noProfile(name)
	case groupHistory.kind:
		return noGroup(name)
	}
	return noPackage(name)
}

// editOf is what stores a state again; gone are groups and hosts which are no
// more.
func (c *catalogue) editOf(s versionState) (e PackageEdit, gone []string) {
	e = PackageEdit{Maturity: rules.Prod, Lines: []rules.Line{}, Groups: []string{}, Hosts: []agentproto.HostID{}}
	if s.head != nil {
		e.Description, e.Maturity = s.head.Description, s.head.Maturity
	}
	for _, k := range onlyIn(s.entries, nil) {
		to, target, _ := strings.Cut(k, "/")
		_, l := lineOf("/" + k)
		switch {
		case to == "group" && c.isGroup(target):
			e.Groups = append(e.Groups, target)
		case to == "host" && c.hosts[agentproto.HostID(target)] != nil:
			e.Hosts = append(e.Hosts, agentproto.HostID(target))
		case to == "group" || to == "host":
			gone = append(gone, to+" "+target)
		case l.Validate() == nil:
			e.Lines = append(e.Lines, l)
		}
	}
	return e, gone
}

// PreviewVersion says what Restore would do.
func (a *Appliance) PreviewVersion(ctx context.Context, name, id string) (Impact, error) {
	return a.packagePast().look(ctx, name, id)
}

// Restore makes a package what it was after one of its edits, as a new
// version; a deleted one is there again.
func (a *Appliance) Restore(ctx context.Context, by Actor, name, id string) error {
	return a.packagePast().restore(ctx, by, name, id)
}

// Undo takes the edit of a package back that made a version. It refuses when
// somebody edited the package since, so that nobody's edit goes with it.
func (a *Appliance) Undo(ctx context.Context, by Actor, name, id string) error {
	return a.packagePast().undo(ctx, by, name, id)
}

func (a *Appliance) packagePast() past[VersionDetail] {
	return past[VersionDetail]{
		a, packageHistory, a.Version,
		func(ctx context.Context, name string, d VersionDetail) (Impact, error) {
			return a.PreviewPackage(ctx, name, d.Edit)
		},
		func(ctx context.Context, by Actor, name string, d VersionDetail, action, seen string) error {
			_, err := a.putPackage(ctx, by, name, d.Edit, action, seen)
			return err
		},
	}
}

func (d VersionDetail) then() (PackageVersion, bool) { return d.PackageVersion, d.Exists }

// A past is how things of one kind are gone back to what they were.
type past[D interface {
	then() (v PackageVersion, exists bool)
}] struct {
	a *Appliance
	history
	at      func(ctx context.Context, name, id string) (D, error) // the thing as it was after an edit
	preview func(ctx context.Context, name string, d D) (Impact, error)
	// put stores it again. action is for the audit log; seen the last version
	// that may be, empty for any.
	put func(ctx context.Context, by Actor, name string, d D, action, seen string) error
}

// look says what restore would do.
func (p past[D]) look(ctx context.Context, name, id string) (Impact, error) {
	d, err := p.there(ctx, name, id)
	if err != nil {
		return Impact{}, err
	}
	return p.preview(ctx, name, d)
}

// restore makes the thing what it was after an edit, as a new version.
func (p past[D]) restore(ctx context.Context, by Actor, name, id string) error {
	d, err := p.there(ctx, name, id)
	if err != nil {
		return err
	}
	v, _ := d.then()
	return p.put(ctx, by, name, d, v.goBack(), "")
}

// undo takes the last edit back, which made version id.
func (p past[D]) undo(ctx context.Context, by Actor, name, id string) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	before, err := p.a.beforeEdit(ctx, p.history, name, id)
	if err != nil {
		return err
	}
	d, err := p.there(ctx, name, before)
	if err != nil {
		return err
	}
	v, _ := d.then()
	return p.put(ctx, by, name, d, v.goBack(), id)
}

// there is the thing at a version in which it existed.
func (p past[D]) there(ctx context.Context, name, id string) (D, error) {
	d, err := p.at(ctx, name, id)
	if _, exists := d.then(); err == nil && !exists {
		err = p.gone(name)
	}
	return d, err
}

// goBack is what the audit log calls going back to it.
func (v PackageVersion) goBack() string {
	if v.At.IsZero() {
		return "go back to the version before"
	}
	return "go back to the version of " + v.At.UTC().Format("2 Jan 2006 15:04:05 UTC")
}

// beforeEdit is the version before the one that the last edit made, which is
// to be taken back.
func (a *Appliance) beforeEdit(ctx context.Context, h history, name, id string) (string, error) {
	list, err := a.versionsIn(ctx, h, name)
	if err != nil {
		return "", err
	}
	switch {
	case !slices.ContainsFunc(list, func(v PackageVersion) bool { return v.ID == id }):
		return "", &Problem{Kind: NotFound, Msg: fmt.Sprintf("%s %.64s has no edit %.60q to undo.", upper(h.kind), name, id), Hint: "Its page lists its versions."}
	case list[0].ID != id:
		return "", &Problem{Kind: Conflict, Msg: fmt.Sprintf("Nothing was undone: %s edited %s since, on %s.", list[0].By, name, list[0].Node), Hint: "Its versions say what changed; any of them can be gone back to."}
	case len(list) == 1:
		return "", &Problem{Kind: Conflict, Msg: fmt.Sprintf("Nothing was undone: before that edit there was no %s %s.", h.kind, name), Hint: "Delete it, if that is meant."}
	}
	return list[1].ID, nil
}

// gone says that a version is a deletion, to which nobody can go back.
func (h history) gone(name string) error {
	return &Problem{Kind: Conflict, Msg: upper(h.kind) + " " + name + " was deleted in this version.", Hint: "Choose the version before, or delete the " + h.kind + "."}
}

// Deleted lists packages that are no more and of which versions are kept, by
// name, with their last version.
func (a *Appliance) Deleted(ctx context.Context) (list []DeletedPackage, err error) {
	return a.deletedIn(ctx, packageHistory, func(name string) bool { p := a.cat.packages[name]; return p != nil && p.exists })
}

func (a *Appliance) deletedIn(ctx context.Context, h history, exists func(name string) bool) (list []DeletedPackage, err error) {
	list = []DeletedPackage{}
	err = a.db.View(ctx, func(tx *replicate.Tx) error {
		last := DeletedPackage{}
		for r, err := range h.all(tx, "") {
			if err != nil {
				return err
			}
			name, id, _ := strings.Cut(r.id, "/")
			if last.Name != "" && last.Name != name {
				list = append(list, last)
			}
			next := DeletedPackage{Name: name, At: r.value.At, By: r.value.By}
			if last.Name == name {
				next.Last = last.Last
			}
			if r.value.Is != nil {
				next.Last = id
			} else if next.Last == "" {
				next.Last = firstVersion
			}
			last = next
		}
		if last.Name != "" {
			list = append(list, last)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the versions of what was deleted: %w", err)
	}
	a.cat.mu.RLock()
	defer a.cat.mu.RUnlock()
	return slices.DeleteFunc(list, func(d DeletedPackage) bool { return exists(d.Name) }), nil
}

// A DeletedPackage is a package, a profile or a group that was deleted and can
// be brought back.
type DeletedPackage struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"` // when it was deleted
	By   string    `json:"by"`
	Last string    `json:"last"` // its last version with something in it
}

// forgetVersions drops versions older than three years, but for the last 50 of
// each package, profile and group.
func forgetVersions(tx *replicate.Tx) error {
	return errors.Join(packageHistory.forget(tx), profileHistory.forget(tx), groupHistory.forget(tx))
}

// forget drops at most half a batch: change sets are bounded, and the next
// turn goes on.
func (h history) forget(tx *replicate.Tx) error {
	var drop []string
	old, name := []string{}, ""
	count := 0
	flush := func() { drop = append(drop, old[:max(0, min(len(old), count-versionsKept))]...) }
	for r, err := range h.all(tx, "") {
		if err != nil {
			return err
		}
		if n, _, _ := strings.Cut(r.id, "/"); n != name {
			flush()
			old, name, count = old[:0:0], n, 0
		}
		if count++; tx.Now().Sub(r.value.At) > versionLife {
			old = append(old, r.id)
		}
	}
	flush()
	var errs []error
	for _, id := range drop[:min(len(drop), batch/2)] {
		errs = append(errs, h.del(tx, id))
	}
	return errors.Join(errs...)
}
