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

// A version is what one edit of a rule package changed: its lines and
// assignments by the keys of their records, and its head. What a package was
// at some time is worked out from the edits before and after, so that edits on
// two sides of a cut add up in their versions as they do in the package.
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
	// A versionState is a package at some time: its head, nil for none, and
	// the keys of lines and assignments without its name.
	versionState struct {
		head    *versionHead
		entries map[string]bool
	}
)

// A PackageVersion is one edit of a rule package. The package was like this
// until the next.
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
	was, err := stateOf(tx, name)
	if err != nil {
		return err
	}
	if err := edit(); err != nil {
		return err
	}
	is, err := stateOf(tx, name)
	if err != nil {
		return err
	}
	v := versionRecord{editRecord: editRecord{By: by.Name, At: tx.Now()}, Node: a.NodeName(), Action: action, Was: was.head, Is: is.head}
	v.Plus, v.Minus = onlyIn(is.entries, was.entries), onlyIn(was.entries, is.entries)
	if len(v.Plus)+len(v.Minus) == 0 && sameHead(was.head, is.head) {
		return nil
	}
	var tail [4]byte
	rand.Read(tail[:])
	return versions.put(tx, fmt.Sprintf("%s/%016x-%s", name, uint64(tx.Version().Clock), hex.EncodeToString(tail[:])), v)
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

// packageOfKey is the package that a record belongs to; empty for none.
func packageOfKey(key string) string {
	kind, rest, _ := strings.Cut(key, "/")
	if kind != "package" && kind != "line" && kind != "assign" {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// versionedKey is versioned for an edit of one record, of whatever kind.
func (a *Appliance) versionedKey(tx *replicate.Tx, by Actor, key, action string, edit func() error) error {
	if name := packageOfKey(key); name != "" {
		return a.versioned(tx, by, name, action, edit)
	}
	return edit()
}

// versionsOf are the versions of a package, the earliest first.
func versionsOf(tx *replicate.Tx, name string) (list []row[versionRecord], err error) {
	for r, err := range versions.all(tx, name+"/") {
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
			s.entries[k] = true
		}
		for _, k := range r.value.Minus {
			delete(s.entries, k)
		}
		s.head = r.value.Is
	}
	return s
}

// Versions lists the edits of a package, the latest first; of one that was
// deleted, too.
func (a *Appliance) Versions(ctx context.Context, name string) ([]PackageVersion, error) {
	var list []row[versionRecord]
	var now versionState
	err := a.db.View(ctx, func(tx *replicate.Tx) (err error) {
		if list, err = versionsOf(tx, name); err != nil {
			return err
		}
		now, err = stateOf(tx, name)
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the versions of %s: %w", name, err)
	case len(list) == 0 && now.head == nil:
		return nil, noPackage(name)
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

// entryText says what a line or an assignment is, for people.
func (c *catalogue) entryText(key string) string {
	_, l := lineOf("/" + key)
	switch l.Kind {
	case "":
		return c.hostNamed(strings.Replace(key, "/", " ", 1))
	case rules.ByUpdateID:
		return cmp.Or(joined(string(l.Verb), c.name(rules.UpdateID(l.Value)).Title), l.String())
	case rules.ByProduct, rules.ByClassification:
		return cmp.Or(joined(string(l.Verb)+" "+string(l.Kind), c.named(agentproto.Category{ID: rules.CategoryID(l.Value)}).Title), l.String())
	}
	return l.String()
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
	var list []row[versionRecord]
	var now versionState
	err = a.db.View(ctx, func(tx *replicate.Tx) (err error) {
		if list, err = versionsOf(tx, name); err != nil {
			return err
		}
		now, err = stateOf(tx, name)
		return err
	})
	if err != nil {
		return d, fmt.Errorf("read the versions of %s: %w", name, err)
	}
	i := slices.IndexFunc(list, func(r row[versionRecord]) bool { return r.id == id })
	if i < 0 && (id != firstVersion || len(list) == 0) {
		return d, &Problem{Kind: NotFound, Msg: fmt.Sprintf("Package %.64s has no version %.60q.", name, id), Hint: "Its page lists those that are kept."}
	}
	s := stateAt(now, list, i)
	c := a.cat
	c.mu.RLock()
	defer c.mu.RUnlock()
	d = VersionDetail{PackageVersion: PackageVersion{ID: firstVersion, Action: "as it was before"}, Exists: s.head != nil, Lines: []LineRow{}}
	if i >= 0 {
		d.PackageVersion = c.versionRow(list[i], i == len(list)-1)
	}
	d.Edit, d.Gone = c.editOf(s)
	for _, l := range d.Edit.Lines {
		d.Lines = append(d.Lines, c.lineRow(l, editRecord{}))
	}
	return d, nil
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
	d, err := a.restorable(ctx, name, id)
	if err != nil {
		return Impact{}, err
	}
	return a.PreviewPackage(ctx, name, d.Edit)
}

// Restore makes a package what it was after one of its edits, as a new
// version; a deleted one is there again.
func (a *Appliance) Restore(ctx context.Context, by Actor, name, id string) error {
	d, err := a.restorable(ctx, name, id)
	if err != nil {
		return err
	}
	when := "before"
	if !d.At.IsZero() {
		when = "of " + d.At.UTC().Format("2 Jan 2006 15:04:05 UTC")
	}
	_, err = a.putPackage(ctx, by, name, d.Edit, "go back to the version "+when)
	return err
}

// Undo takes the edit of a package back that made a version. It refuses when
// somebody edited the package since, so that nobody's edit goes with it.
func (a *Appliance) Undo(ctx context.Context, by Actor, name, id string) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	list, err := a.Versions(ctx, name)
	if err != nil {
		return err
	}
	switch {
	case !slices.ContainsFunc(list, func(v PackageVersion) bool { return v.ID == id }):
		return &Problem{Kind: NotFound, Msg: fmt.Sprintf("Package %.64s has no edit %.60q to undo.", name, id), Hint: "Its page lists its versions."}
	case list[0].ID != id:
		return &Problem{Kind: Conflict, Msg: fmt.Sprintf("Nothing was undone: %s edited %s since, on %s.", list[0].By, name, list[0].Node), Hint: "Its versions say what changed; any of them can be gone back to."}
	case len(list) == 1:
		return &Problem{Kind: Conflict, Msg: fmt.Sprintf("Nothing was undone: before that edit there was no package %s.", name), Hint: "Delete it, if that is meant."}
	}
	return a.Restore(ctx, by, name, list[1].ID)
}

func (a *Appliance) restorable(ctx context.Context, name, id string) (VersionDetail, error) {
	d, err := a.Version(ctx, name, id)
	if err == nil && !d.Exists {
		err = &Problem{Kind: Conflict, Msg: "Package " + name + " was deleted in this version.", Hint: "Choose the version before, or delete the package."}
	}
	return d, err
}

// Deleted lists packages that are no more and of which versions are kept, by
// name, with their last version.
func (a *Appliance) Deleted(ctx context.Context) (list []DeletedPackage, err error) {
	list = []DeletedPackage{}
	err = a.db.View(ctx, func(tx *replicate.Tx) error {
		last := DeletedPackage{}
		for r, err := range versions.all(tx, "") {
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
		return nil, fmt.Errorf("read the versions of deleted packages: %w", err)
	}
	a.cat.mu.RLock()
	defer a.cat.mu.RUnlock()
	return slices.DeleteFunc(list, func(d DeletedPackage) bool { p := a.cat.packages[d.Name]; return p != nil && p.exists }), nil
}

// A DeletedPackage was deleted and can be brought back.
type DeletedPackage struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"` // when it was deleted
	By   string    `json:"by"`
	Last string    `json:"last"` // its last version with something in it
}

// forgetVersions drops versions older than three years, but for the last 50 of
// each package.
func forgetVersions(tx *replicate.Tx) error {
	var drop []string
	old, name := []string{}, ""
	count := 0
	flush := func() { drop = append(drop, old[:max(0, min(len(old), count-versionsKept))]...) }
	for r, err := range versions.all(tx, "") {
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
	for _, id := range drop[:min(len(drop), batch)] { // change sets are bounded; the next turn goes on
		errs = append(errs, versions.del(tx, id))
	}
	return errors.Join(errs...)
}
