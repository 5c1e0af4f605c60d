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

// maxLines bounds one package; more would not fit a change set.
const maxLines = 2000

// packageRow is a package as lists show it. The catalogue's lock is held for
// writing.
func (c *catalogue) packageRow(name string) PackageRow {
	p := c.packages[name]
	r := PackageRow{
		Name: name, Description: p.Description, Maturity: p.Maturity, Edited: p.At, EditedBy: p.By,
		Groups: append([]string{}, slices.Sorted(maps.Keys(p.groups))...), Hosts: append([]agentproto.HostID{}, slices.Sorted(maps.Keys(p.hosts))...),
	}
	for l, e := range p.lines {
		if l.Verb == rules.Allow {
			r.Allows++
		} else {
			r.Forbids++
		}
		if e.At.After(r.Edited) {
			r.Edited, r.EditedBy = e.At, e.By
		}
	}
	r.Reach = c.reach(name)
	return r
}

// Packages lists the rule packages by name.
func (a *Appliance) Packages(context.Context) ([]PackageRow, error) {
	a.cat.mu.Lock()
	defer a.cat.mu.Unlock()
	list := []PackageRow{}
	for _, name := range slices.Sorted(maps.Keys(a.cat.packages)) {
		if a.cat.packages[name].exists {
			list = append(list, a.cat.packageRow(name))
		}
	}
	return list, nil
}

func noPackage(name string) error {
	return &Problem{Kind: NotFound, Msg: fmt.Sprintf("There is no rule package %.64q.", name), Hint: "It may have been deleted; the audit log says by whom."}
}

// Package is one rule package with its lines.
func (a *Appliance) Package(_ context.Context, name string) (PackageDetail, error) {
	c := a.cat
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.packages[name]
	if p == nil || !p.exists {
		return PackageDetail{}, noPackage(name)
	}
	d := PackageDetail{PackageRow: c.packageRow(name), Lines: []LineRow{}, Ring: c.ringState(name, time.Now())}
	for l, e := range p.lines {
		d.Lines = append(d.Lines, c.lineRow(l, e))
	}
	slices.SortFunc(d.Lines, func(x, y LineRow) int {
		return strings.Compare(string(y.Verb)+string(x.Kind)+x.Value, string(x.Verb)+string(y.Kind)+y.Value)
	})
	return d, nil
}

func (c *catalogue) lineRow(l rules.Line, e editRecord) LineRow {
	r := LineRow{Line: l, Label: l.Value, By: e.By, At: e.At}
	for id, u := range c.updates {
		rec := u.revisions[u.newest]
		if !l.Matches(ruleView(rec, false)) {
			continue
		}
		r.Hits++
		switch l.Kind {
		case rules.ByUpdateID, rules.ByKB:
			r.Updates = append(r.Updates, c.name(id))
		case rules.ByProduct:
			for _, k := range rec.Products {
				if string(k.ID) == l.Value {
					r.Label = k.Title
				}
			}
		case rules.ByClassification:
			r.Label = rec.Classification.Title
		}
	}
	if l.Kind == rules.ByKB {
		for _, id := range c.published.ofKB(l.Value) {
			if c.updates[id] == nil {
				r.Updates = append(r.Updates, c.name(id))
			}
		}
	}
	slices.SortFunc(r.Updates, func(x, y UpdateName) int { return strings.Compare(x.Title+string(x.ID), y.Title+string(y.ID)) })
	switch {
	case l.Kind == rules.ByKB:
		r.Label = "KB" + l.Value
	case l.Kind == rules.ByUpdateID && len(r.Updates) > 0:
		r.Label = r.Updates[0].Title
	case l.Kind == rules.ByUpdateID:
		r.Label = cmp.Or(c.name(rules.UpdateID(l.Value)).Title, l.Value)
	case l.Kind == rules.ByProduct, l.Kind == rules.ByClassification:
		r.Label = c.named(agentproto.Category{ID: rules.CategoryID(l.Value), Title: r.Label}).Title
	}
	return r
}

// DescribeLines says what lines stand for, in their order.
func (a *Appliance) DescribeLines(list []rules.Line) []LineRow {
	a.cat.mu.RLock()
	defer a.cat.mu.RUnlock()
	rows := []LineRow{}
	for _, l := range list {
		rows = append(rows, a.cat.lineRow(l, editRecord{}))
	}
	return rows
}

// checkWord says what is wrong with the name of a package or a group. A word
// that pages and commands have in the same place would hide it.
func checkWord(name string) error {
	if err := rules.CheckName(name); err != nil {
		return &Problem{Kind: Invalid, Field: "name", Code: "WM-305", Msg: upper(err.Error()) + ".", Err: err}
	}
	if slices.Contains([]string{"new", "import", "export", "diff"}, name) {
		return &Problem{Kind: Invalid, Field: "name", Code: "WM-305", Msg: "The word " + name + " is a command, so it cannot be a name.", Hint: "Choose another name, such as " + name + "-1."}
	}
	return nil
}

// check says what is wrong with an edit, by field.
func (e PackageEdit) check(c *catalogue, name string) error {
	if err := checkWord(name); err != nil {
		return err
	}
	if name == rules.EmergencyStop {
		return &Problem{Kind: Invalid, Field: "name", Code: "WM-305", Msg: "The name " + name + " stands for emergency stops.", Hint: "Choose another name. An update is stopped on its own page, or with wuamesh stop."}
	}
	if err := e.Maturity.Validate(); err != nil {
		return &Problem{Kind: Invalid, Field: "maturity", Msg: upper(err.Error()) + ".", Err: err}
	}
	if len(e.Description) > 500 {
		return invalid("description", "The description has %d characters, at most 500.", len(e.Description))
	}
	if err := checkLines(e.Lines); err != nil {
		return err
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, g := range e.Groups {
		if c.groups[g] == nil || !c.groups[g].exists {
			return invalid("groups", "There is no group %.64s.", g)
		}
	}
	for _, h := range e.Hosts {
		if c.hosts[h] == nil {
			return invalid("hosts", "There is no host %.60s.", h)
		}
	}
	return nil
}

func checkLines(list []rules.Line) error {
	if len(list) > maxLines {
		return invalid("lines", "%d lines are more than the %d a package holds.", len(list), maxLines)
	}
	for i, l := range list {
		if err := l.Validate(); err != nil {
			return &Problem{Kind: Invalid, Field: fmt.Sprintf("lines[%d]", i), Msg: fmt.Sprintf("Line %d: %s.", i+1, err), Err: err}
		}
	}
	return nil
}

// PutPackage makes or replaces a package, as one change set; created says
// which. Only what differs is written, so an edit elsewhere of another line
// lives on.
func (a *Appliance) PutPackage(ctx context.Context, by Actor, name string, e PackageEdit) (created bool, err error) {
	return a.putPackage(ctx, by, name, e, "", "")
}

// putPackage is PutPackage with what the audit log calls it, empty for an edit,
// and the last version that may be, empty for any.
func (a *Appliance) putPackage(ctx context.Context, by Actor, name string, e PackageEdit, action, seen string) (created bool, err error) {
	if err := by.need(Owner); err != nil {
		return false, err
	}
	if err := e.check(a.cat, name); err != nil {
		return false, err
	}
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		if err := packageHistory.unchangedSince(tx, name, seen); err != nil {
			return err
		}
		old, exists, err := packages.find(tx, name)
		if err != nil {
			return err
		}
		created = !exists
		what := cmp.Or(action, or(created, "make rule package", "edit rule package"))
		return a.versioned(tx, by, name, what, func() error { return a.writePackage(tx, by, name, e, old, what) })
	})
	if err != nil {
		return false, fmt.Errorf("edit rule package %s: %w", name, err)
	}
	a.log.InfoContext(ctx, "rule package edited", "package", name, "by", by.Name)
	return created, nil
}

// writePackage writes what differs of an edit, with its entry in the audit log.
func (a *Appliance) writePackage(tx *replicate.Tx, by Actor, name string, e PackageEdit, old packageRecord, action string) error {
	edit := editRecord{By: by.Name, At: tx.Now()}
	if old.At.IsZero() || old.Description != e.Description || old.Maturity != e.Maturity {
		if err := packages.put(tx, name, packageRecord{e.Description, e.Maturity, edit}); err != nil {
			return err
		}
	}
	var lineIDs, assignIDs []string
	for _, l := range e.Lines {
		lineIDs = append(lineIDs, lineID(name, l))
	}
	for _, g := range e.Groups {
		assignIDs = append(assignIDs, name+"/group/"+g)
	}
	for _, h := range e.Hosts {
		assignIDs = append(assignIDs, name+"/host/"+string(h))
	}
	plus, minus, err := replace(tx, lines, name+"/", lineIDs, edit)
	if err != nil {
		return err
	}
	plus2, minus2, err := replace(tx, assigns, name+"/", assignIDs, edit)
	if err != nil {
		return err
	}
	return a.audit(tx, by, action, "package "+name, strings.Join(append(minus, minus2...), ", "),
		strings.Join(append([]string{string(e.Maturity)}, append(plus, plus2...)...), ", "))
}

// replace makes the edits below a prefix be just want, and says what it added
// and took away.
func replace(tx *replicate.Tx, t table[editRecord], under string, want []string, e editRecord) (plus, minus []string, err error) {
	missing := map[string]bool{}
	for _, id := range want {
		missing[id] = true
	}
	for r, err := range t.all(tx, under) {
		if err != nil {
			return nil, nil, err
		}
		if missing[r.id] {
			delete(missing, r.id)
			continue
		}
		minus = append(minus, strings.TrimPrefix(r.id, under))
		if err := t.del(tx, r.id); err != nil {
			return nil, nil, err
		}
	}
	for _, id := range onlyIn(missing, nil) {
		plus = append(plus, strings.TrimPrefix(id, under))
		if err := t.put(tx, id, e); err != nil {
			return nil, nil, err
		}
	}
	return plus, minus, nil
}

// DeletePackage deletes a package with its lines and assignments.
func (a *Appliance) DeletePackage(ctx context.Context, by Actor, name string) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error { return a.removePackage(tx, by, name) })
}

func (a *Appliance) removePackage(tx *replicate.Tx, by Actor, name string) error {
	was, err := stateOf(tx, name)
	if err != nil || was.head == nil {
		return cmpErr(err, noPackage(name))
	}
	err = a.versioned(tx, by, name, "delete rule package", func() error {
		return cmp.Or(packages.del(tx, name), dropRing(tx, name), delAll(tx, lines, name+"/"), delAll(tx, assigns, name+"/"))
	})
	if err != nil {
		return err
	}
	return a.audit(tx, by, "delete rule package", "package "+name, was.hadText(), "")
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// AddLines puts lines into a package. A line with the other verb for the same
// thing is taken out.
func (a *Appliance) AddLines(ctx context.Context, by Actor, name string, list []rules.Line) error {
	return a.editLines(ctx, by, name, list, func(tx *replicate.Tx, l rules.Line) error {
		other := l
		other.Verb = map[rules.Verb]rules.Verb{rules.Allow: rules.Forbid, rules.Forbid: rules.Allow}[l.Verb]
		if _, ok, err := lines.find(tx, lineID(name, other)); err != nil {
			return err
		} else if ok {
			if err := lines.del(tx, lineID(name, other)); err != nil {
				return err
			}
		}
		return lines.put(tx, lineID(name, l), editRecord{By: by.Name, At: tx.Now()})
	})
}

// RemoveLines takes lines out of a package; those that are not there are
// left out.
func (a *Appliance) RemoveLines(ctx context.Context, by Actor, name string, list []rules.Line) error {
	return a.editLines(ctx, by, name, list, func(tx *replicate.Tx, l rules.Line) error {
		if _, ok, err := lines.find(tx, lineID(name, l)); err != nil || !ok {
			return err
		}
		return lines.del(tx, lineID(name, l))
	})
}

func (a *Appliance) editLines(ctx context.Context, by Actor, name string, list []rules.Line, edit func(*replicate.Tx, rules.Line) error) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	if err := checkLines(list); err != nil {
		return err
	}
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		if _, ok, err := packages.find(tx, name); err != nil || !ok {
			return cmpErr(err, noPackage(name))
		}
		before, err := lineTexts(tx, name)
		if err != nil {
			return err
		}
		err = a.versioned(tx, by, name, "edit rule package", func() error {
			for _, l := range list {
				if err := edit(tx, l); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		after, err := lineTexts(tx, name)
		if err != nil {
			return err
		}
		return a.audit(tx, by, "edit rule package", "package "+name, missingFrom(before, after), missingFrom(after, before))
	})
	if err != nil {
		return fmt.Errorf("edit rule package %s: %w", name, err)
	}
	a.log.InfoContext(ctx, "rule package edited", "package", name, "by", by.Name)
	return nil
}

func lineTexts(tx *replicate.Tx, name string) (list []string, err error) {
	for r, err := range lines.all(tx, name+"/") {
		if err != nil {
			return nil, err
		}
		list = append(list, strings.TrimPrefix(r.id, name+"/"))
	}
	return list, nil
}

func missingFrom(a, b []string) string {
	var list []string
	for _, s := range a {
		if !slices.Contains(b, s) {
			list = append(list, s)
		}
	}
	return strings.Join(list, ", ")
}

// tellPolicies asks connected hosts to check in when an edit, made here or
// on another node, gave them another policy than the one they work by.
func (a *Appliance) tellPolicies(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.streams.edited:
		}
		for _, id := range a.streams.connected() {
			a.cat.mu.Lock()
			hash := ""
			if h := a.cat.hosts[id]; h != nil && !h.Waiting {
				hash = a.cat.policyOf(h).hash + routeMark(a.cat.routes(), h.place())
			}
			a.cat.mu.Unlock()
			if hash != "" && a.streams.differs(id, hash) {
				a.streams.send(id, event{"policy", struct{}{}})
			}
		}
		a.folder.lookSoon()
	}
}
