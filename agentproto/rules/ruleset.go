package rules

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"time"
)

// A Ruleset is a policy made ready for deciding many updates. It is never
// changed and may be used from any goroutine.
type Ruleset struct {
	settings Settings
	lines    map[Line]string // → the package that is told
}

// Compile makes a policy ready. Maturity is not looked at: whoever builds the
// policy leaves out packages that the host does not accept.
func Compile(p Policy) *Ruleset {
	r := &Ruleset{settings: p.Settings, lines: map[Line]string{}}
	for _, pkg := range p.Packages {
		for _, l := range pkg.Lines {
			if name, ok := r.lines[l]; !ok || pkg.Name == EmergencyStop || pkg.Name < name && name != EmergencyStop {
				r.lines[l] = pkg.Name
			}
		}
	}
	return r
}

// Decide is Compile and Decide for one update.
func Decide(u Update, p Policy, now time.Time) Decision { return Compile(p).Decide(u, now) }

// Decide says what the rules say about u.
func (r *Ruleset) Decide(u Update, now time.Time) Decision {
	if ref := r.match(Forbid, u); ref != nil {
		return Decision{Verdict: Forbidden, By: ref}
	}
	if u.Superseded && !r.settings.IncludeSuperseded {
		return Decision{Verdict: Hidden, Setting: "include_potentially_superseded_updates"}
	}
	d := Decision{Verdict: Allowed, By: r.match(Allow, u)}
	if d.By == nil {
		switch {
		case slices.Contains(r.settings.AllowedSeverities, severity(u)):
			d.Setting = "allowed_severities"
		case r.settings.DefaultAllow:
			d.Setting = "default_allow"
		default:
			return Decision{Verdict: NoRule, Setting: "default_allow"}
		}
	}
	if r.settings.InstallDelay > 0 {
		if until := u.Published.Add(r.settings.InstallDelay); now.Before(until) {
			d.Verdict, d.Until = Delayed, until
		}
	}
	return d
}

func severity(u Update) Severity { return cmp.Or(u.Severity, Unspecified) }

// match returns the most specific line of that verb that names u.
func (r *Ruleset) match(v Verb, u Update) *Ref {
	for l := range linesFor(v, u) {
		if name, ok := r.lines[l]; ok {
			return &Ref{Package: name, Line: l}
		}
	}
	return nil
}

// linesFor yields every line of that verb that would name u, most specific
// first.
func linesFor(v Verb, u Update) iter.Seq[Line] {
	return func(yield func(Line) bool) {
		if !yield(Line{v, ByUpdateID, string(u.ID)}) {
			return
		}
		for _, kb := range u.KBs {
			if !yield(Line{v, ByKB, kb}) {
				return
			}
		}
		for _, p := range u.Products {
			if !yield(Line{v, ByProduct, string(p)}) {
				return
			}
		}
		_ = yield(Line{v, ByClassification, string(u.Classification)}) &&
			yield(Line{v, BySeverity, string(severity(u))})
	}
}

// Lines yields every line that names u: forbidding ones first, of each verb
// the most specific first.
func (u Update) Lines() iter.Seq[Line] {
	return func(yield func(Line) bool) {
		for _, v := range [...]Verb{Forbid, Allow} {
			for l := range linesFor(v, u) {
				if !yield(l) {
					return
				}
			}
		}
	}
}

// Matches says whether the line names u.
func (l Line) Matches(u Update) bool {
	for m := range linesFor(l.Verb, u) {
		if m == l {
			return true
		}
	}
	return false
}

// Explain lists every line and setting that speaks about u, in the order in
// which deciding looks at them, and marks the one that decided.
func (r *Ruleset) Explain(u Update, now time.Time) []Step {
	d := r.Decide(u, now)
	var steps []Step
	line := func(verb Verb, verdict Verdict) {
		for l := range linesFor(verb, u) {
			if name, ok := r.lines[l]; ok {
				ref := Ref{name, l}
				steps = append(steps, Step{Ref: &ref, Verdict: verdict, Decided: d.By != nil && *d.By == ref, Text: fmt.Sprintf("%s: %s.", name, l)})
			}
		}
	}
	setting := func(name string, verdict Verdict, text string) {
		steps = append(steps, Step{Setting: name, Verdict: verdict, Decided: d.By == nil && d.Setting == name, Text: text})
	}
	line(Forbid, Forbidden)
	if u.Superseded && !r.settings.IncludeSuperseded {
		setting("include_potentially_superseded_updates", Hidden, "Setting include_potentially_superseded_updates is off, and a newer update replaces this one.")
	}
	line(Allow, Allowed)
	if slices.Contains(r.settings.AllowedSeverities, severity(u)) {
		setting("allowed_severities", Allowed, fmt.Sprintf("Setting allowed_severities holds %s.", severity(u)))
	}
	if r.settings.DefaultAllow {
		setting("default_allow", Allowed, "Setting default_allow is on: what no rule mentions is allowed.")
	} else {
		setting("default_allow", NoRule, "Setting default_allow is off: what no rule mentions is not allowed.")
	}
	if d.Verdict == Delayed {
		steps = append(steps, Step{Setting: "install_delay", Verdict: Delayed, Text: "Setting install_delay holds it back until " + moment(d.Until) + "."})
	}
	return steps
}

func moment(t time.Time) string { return t.UTC().Format("2 Jan 2006 15:04 UTC") }
