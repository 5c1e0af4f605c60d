package appliance

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"wuamesh/replicate"
)

// Taking a file of rules in: as one edit, of what its differences were shown of.

// importTries is how often an import begins again because of other edits.
const importTries = 5

// errMoved: the rules are not those any more that a plan was made of.
var errMoved = errors.New("the rules were edited meanwhile")

// ImportRules makes the rules what a file says, as one change set: all of it is
// stored or nothing. One that is more than a change set holds is refused,
// unless it may be made in parts.
func (a *Appliance) ImportRules(ctx context.Context, by Actor, f RuleFile) (RuleDiff, error) {
	if err := by.need(Owner); err != nil {
		return RuleDiff{}, err
	}
	for range importTries {
		p, err := a.planRules(ctx, f)
		if err != nil {
			return RuleDiff{}, err
		}
		if err := a.cat.unlikeSeen(p, f.Seen); err != nil || p.Empty() && p.order == nil {
			return p.RuleDiff, err
		}
		err = a.db.Update(ctx, func(tx *replicate.Tx) error { return p.store(a, tx, by) })
		p.Edits = 1
		switch {
		case errors.Is(err, errMoved):
			continue
		case errors.Is(err, replicate.ErrTooLarge) && f.Parts:
			p.Edits, err = p.storeParts(ctx, a, by)
		case errors.Is(err, replicate.ErrTooLarge):
			return RuleDiff{}, tooMuch(err, "The file changes more than one edit holds.", "Take it in in parts (wuamesh rules import --parts), or a shorter file first. Nothing was stored.")
		}
		if err != nil {
			return RuleDiff{}, fmt.Errorf("import rules: %w", err)
		}
		a.log.InfoContext(ctx, "rules imported", "by", by.Name)
		return p.RuleDiff, nil
	}
	return RuleDiff{}, &Problem{Kind: Conflict, Code: "WM-301", Msg: "Somebody edits the rules again and again: nothing was stored.", Hint: "Try again in a moment."}
}

func tooMuch(err error, msg, hint string) error {
	return &Problem{Kind: TooLarge, Field: "text", Msg: msg, Hint: hint, Err: err}
}

// unlikeSeen refuses a plan that is not the one whose differences were seen.
func (c *catalogue) unlikeSeen(p rulePlan, seen string) error {
	if seen == "" || seen == p.Version {
		return nil
	}
	file, _, _ := strings.Cut(p.Version, "-")
	if was, _, _ := strings.Cut(seen, "-"); was != file {
		return &Problem{Kind: Conflict, Code: "WM-301", Field: "text", Msg: "The file is not the one whose differences were shown: nothing was stored.", Hint: "Look at its differences again, then take it in."}
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	last, about := lastEdit{}, ""
	for kind, edits := range map[string]map[string]lastEdit{"package": c.edits, "profile": c.profileEdits, "group": c.groupEdits} {
		for name := range p.was.things[kind] {
			if e := edits[name]; e.id > last.id {
				last, about = e, kind+" "+name
			}
		}
	}
	msg := "The rules were edited since the differences were shown: nothing was stored."
	if last.By != "" {
		msg = fmt.Sprintf("The rules were edited since the differences were shown, %s last by %s: nothing was stored.", about, last.By)
	}
	return &Problem{Kind: Conflict, Code: "WM-301", Msg: msg, Hint: "Look at the differences again, then take the file in."}
}

// store makes the whole plan, if the rules are still what it was made of.
func (p *rulePlan) store(a *Appliance, tx *replicate.Tx, by Actor) error {
	now, err := readRules(tx, p.set)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(now, p.was) {
		return errMoved
	}
	for _, s := range p.steps {
		if err := s.store(a, tx, by); err != nil {
			return err
		}
	}
	return p.finish(a, tx, by)
}

// finish is the end of an import: the order of the profiles, and the entry in
// the audit log that names the whole.
func (p *rulePlan) finish(a *Appliance, tx *replicate.Tx, by Actor) error {
	before, after := "", p.Summary()
	if p.order != nil {
		if err := placeAll(tx, p.order, editRecord{By: by.Name, At: tx.Now()}); err != nil {
			return err
		}
	}
	if p.Order != nil {
		before, after = "order "+strings.Join(p.Order.Was, ", "), after+" order "+strings.Join(p.Order.Is, ", ")
	}
	return a.audit(tx, by, "import rules", "rules", before, after)
}

func (s ruleStep) store(a *Appliance, tx *replicate.Tx, by Actor) error {
	if s.said == nil {
		return s.remove(a, tx, by, s.Name)
	}
	return a.versionedIn(s.history, tx, by, s.Name, s.action(), func() error { return s.said.store(a, tx, by, s.Name) })
}

func (s ruleStep) action() string { return "import " + s.noun }

// storeParts makes each step an edit of its own. Each is whole; where one
// fails, taking the file in again makes the rest.
func (p *rulePlan) storeParts(ctx context.Context, a *Appliance, by Actor) (edits int, err error) {
	for i, s := range p.steps {
		err := a.db.Update(ctx, func(tx *replicate.Tx) error {
			now, err := s.state(tx, s.Name)
			if err != nil {
				return err
			}
			if !reflect.DeepEqual(now, p.was.things[s.kind][s.Name]) {
				return errMoved
			}
			return s.store(a, tx, by)
		})
		done := fmt.Sprintf("%d of %s are stored; take the file in again for the rest.", i, things(len(p.steps), "part", "parts"))
		switch {
		case errors.Is(err, errMoved):
			return i, &Problem{Kind: Conflict, Code: "WM-301", Msg: fmt.Sprintf("Somebody edited %s %s meanwhile.", s.noun, s.Name), Hint: done}
		case errors.Is(err, replicate.ErrTooLarge):
			return i, tooMuch(err, fmt.Sprintf("What the file changes of %s %s is more than one edit holds.", s.noun, s.Name), "Make it of fewer lines. "+upper(done))
		case err != nil:
			return i, fmt.Errorf("after %d of %d parts: %w", i, len(p.steps), err)
		}
	}
	err = a.db.Update(ctx, func(tx *replicate.Tx) error { return p.finish(a, tx, by) })
	return len(p.steps) + 1, err
}
