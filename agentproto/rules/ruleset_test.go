package rules_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"wuamesh/agentproto/rules"
)

const (
	id      = rules.UpdateID("631fdcea-1c5c-4a6a-9b0e-1d7f8a0c2b11")
	product = rules.CategoryID("72e7624a-5b00-45d2-b92f-e561c0a6a160")
	class   = rules.CategoryID("0fa1201d-4330-4fa8-8ae9-b877473b6441")
	day     = 24 * time.Hour
)

var (
	tuesday = time.Date(2026, 11, 10, 18, 0, 0, 0, time.UTC)
	update  = rules.Update{
		ID: id, KBs: []string{"5091157"}, Severity: rules.Important, Classification: class,
		Products: []rules.CategoryID{product}, Published: tuesday,
	}
)

func line(t testing.TB, verb, kind, value string) rules.Line {
	t.Helper()
	l, err := rules.ParseLine(verb, kind, value)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestDecide(t *testing.T) {
	pkg := func(name string, lines ...rules.Line) rules.Package {
		return rules.Package{Name: name, Maturity: rules.Prod, Lines: lines}
	}
	l := func(verb, kind, value string) rules.Line { return line(t, verb, kind, value) }
	superseded := update
	superseded.Superseded = true
	for _, tt := range []struct {
		name     string
		update   rules.Update
		settings rules.Settings
		packages []rules.Package
		verdict  rules.Verdict
		by       string // package and line, or setting
	}{
		{"nothing allows it", update, rules.Settings{}, nil, rules.NoRule, "default_allow"},
		{"default_allow", update, rules.Settings{DefaultAllow: true}, nil, rules.Allowed, "default_allow"},
		{"allowed_severities", update, rules.Settings{AllowedSeverities: []rules.Severity{rules.Important}}, nil, rules.Allowed, "allowed_severities"},
		{"another severity", update, rules.Settings{AllowedSeverities: []rules.Severity{rules.Critical}}, nil, rules.NoRule, "default_allow"},
		{"by UpdateID", update, rules.Settings{}, []rules.Package{pkg("a", l("allow", "update", string(id)))}, rules.Allowed, "a: allow UpdateID " + string(id)},
		{"by KB", update, rules.Settings{}, []rules.Package{pkg("a", l("allow", "kb", "KB5091157"))}, rules.Allowed, "a: allow KB5091157"},
		{"by product", update, rules.Settings{}, []rules.Package{pkg("a", l("allow", "product", string(product)))}, rules.Allowed, "a: allow product " + string(product)},
		{"by classification", update, rules.Settings{}, []rules.Package{pkg("a", l("allow", "classification", string(class)))}, rules.Allowed, "a: allow classification " + string(class)},
		{"by severity", update, rules.Settings{}, []rules.Package{pkg("a", l("allow", "severity", "important"))}, rules.Allowed, "a: allow severity Important"},
		{"a forbid elsewhere wins over a more specific allow", update, rules.Settings{DefaultAllow: true},
			[]rules.Package{pkg("a", l("allow", "update", string(id))), pkg("b", l("forbid", "severity", "Important"))}, rules.Forbidden, "b: forbid severity Important"},
		{"the most specific forbid is told", update, rules.Settings{},
			[]rules.Package{pkg("a", l("forbid", "severity", "Important"), l("forbid", "kb", "5091157"))}, rules.Forbidden, "a: forbid KB5091157"},
		{"of two packages the first in the alphabet is told", update, rules.Settings{},
			[]rules.Package{pkg("z", l("allow", "kb", "5091157")), pkg("m", l("allow", "kb", "5091157"))}, rules.Allowed, "m: allow KB5091157"},
		{"superseded", superseded, rules.Settings{DefaultAllow: true}, nil, rules.Hidden, "include_potentially_superseded_updates"},
		{"superseded and asked for", superseded, rules.Settings{DefaultAllow: true, IncludeSuperseded: true}, nil, rules.Allowed, "default_allow"},
		{"superseded and forbidden", superseded, rules.Settings{}, []rules.Package{pkg("a", l("forbid", "kb", "5091157"))}, rules.Forbidden, "a: forbid KB5091157"},
		{"delayed", update, rules.Settings{DefaultAllow: true, InstallDelay: 8 * day}, nil, rules.Delayed, "default_allow"},
		{"delay is over", update, rules.Settings{DefaultAllow: true, InstallDelay: 7 * day}, nil, rules.Allowed, "default_allow"},
		{"a delay forbids nothing more", update, rules.Settings{InstallDelay: 8 * day}, nil, rules.NoRule, "default_allow"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := rules.Policy{Settings: tt.settings, Packages: tt.packages}
			d := rules.Decide(tt.update, p, tuesday.Add(7*day))
			by := d.Setting
			if d.By != nil {
				by = d.By.Package + ": " + d.By.Line.String()
			}
			if d.Verdict != tt.verdict || by != tt.by {
				t.Errorf("%s by %q, want %s by %q", d.Verdict, by, tt.verdict, tt.by)
			}
			decided := 0
			for _, s := range rules.Compile(p).Explain(tt.update, tuesday.Add(7*day)) {
				if s.Decided {
					decided++
				}
			}
			if decided != 1 {
				t.Errorf("%d steps of the explanation decided", decided)
			}
		})
	}
}

// world draws policies and updates from few values, so that they meet.
type world struct{ *rand.Rand }

func (w world) line() rules.Line {
	verb := []rules.Verb{rules.Allow, rules.Forbid}[w.IntN(2)]
	kind := rules.Kinds[w.IntN(len(rules.Kinds))]
	value := map[rules.Kind]string{
		rules.ByUpdateID: w.guid(), rules.ByProduct: w.guid(), rules.ByClassification: w.guid(),
		rules.ByKB: fmt.Sprint(5000000 + w.IntN(3)), rules.BySeverity: string(rules.Severities[w.IntN(5)]),
	}[kind]
	return rules.Line{Verb: verb, Kind: kind, Value: value}
}

func (w world) guid() string { return fmt.Sprintf("00000000-0000-4000-8000-00000000000%d", w.IntN(3)) }

func (w world) policy() (p rules.Policy) {
	p.Settings.DefaultAllow = w.IntN(2) == 0
	p.Settings.IncludeSuperseded = w.IntN(2) == 0
	p.Settings.InstallDelay = time.Duration(w.IntN(3)) * 5 * day
	for i := range w.IntN(4) {
		pkg := rules.Package{Name: fmt.Sprint("p", i), Maturity: rules.Prod}
		for range w.IntN(5) {
			pkg.Lines = append(pkg.Lines, w.line())
		}
		p.Packages = append(p.Packages, pkg)
	}
	return p
}

func (w world) update() rules.Update {
	return rules.Update{
		ID: rules.UpdateID(w.guid()), KBs: []string{fmt.Sprint(5000000 + w.IntN(3))}, Severity: rules.Severities[w.IntN(5)],
		Classification: rules.CategoryID(w.guid()), Products: []rules.CategoryID{rules.CategoryID(w.guid())},
		Published: tuesday, Superseded: w.IntN(3) == 0,
	}
}

func TestProperties(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := world{rand.New(rand.NewPCG(seed, 0))}
	now := tuesday.Add(6 * day)
	for range 20000 {
		p, u := w.policy(), w.update()
		before := rules.Decide(u, p, now)
		hash := p.Hash()

		w.Shuffle(len(p.Packages), func(i, j int) { p.Packages[i], p.Packages[j] = p.Packages[j], p.Packages[i] })
		for _, pkg := range p.Packages {
			w.Shuffle(len(pkg.Lines), func(i, j int) { pkg.Lines[i], pkg.Lines[j] = pkg.Lines[j], pkg.Lines[i] })
		}
		if after := rules.Decide(u, p, now); !same(before, after) {
			t.Fatalf("seed %d: order changed %+v to %+v", seed, before, after)
		}
		if p.Hash() != hash {
			t.Fatalf("seed %d: order changed the hash", seed)
		}
		l := w.line()
		p.Packages = append(p.Packages, rules.Package{Name: "new", Maturity: rules.Prod, Lines: []rules.Line{l}})
		after := rules.Decide(u, p, now)
		switch l.Verb {
		case rules.Forbid:
			if after.May() && !before.May() {
				t.Fatalf("seed %d: %s allowed %+v", seed, l, u)
			}
			if l.Matches(u) && after.Verdict != rules.Forbidden {
				t.Fatalf("seed %d: %s did not forbid %+v", seed, l, u)
			}
		case rules.Allow:
			if before.May() && !after.May() || before.Verdict == rules.Forbidden && after.Verdict != rules.Forbidden {
				t.Fatalf("seed %d: %s made %s of %s", seed, l, after.Verdict, before.Verdict)
			}
		}
	}
}

func same(a, b rules.Decision) bool {
	if (a.By == nil) != (b.By == nil) || a.By != nil && *a.By != *b.By {
		return false
	}
	return a.Verdict == b.Verdict && a.Setting == b.Setting && a.Until.Equal(b.Until)
}

func TestASentenceNamesWhatDecided(t *testing.T) {
	line := rules.Line{Verb: rules.Allow, Kind: rules.ByClassification, Value: "28bc880e-0592-4cbf-8f95-c79b17911d5f"}
	d := rules.Decision{Verdict: rules.Allowed, By: &rules.Ref{Package: "baseline", Line: line}}
	for title, want := range map[string]string{
		"":               "Allowed by package baseline (classification 28bc880e-0592-4cbf-8f95-c79b17911d5f). Its files are queued for download from Microsoft.",
		"Update Rollups": "Allowed by package baseline (classification Update Rollups). Its files are queued for download from Microsoft.",
	} {
		if got := rules.Sentence(d, rules.ReasonQueued, title); got != want {
			t.Errorf("%q; want %q", got, want)
		}
	}
}

func TestEveryStateHasOneReasonAndASentence(t *testing.T) {
	bools := []bool{false, true}
	for _, verdict := range []rules.Verdict{rules.Allowed, rules.Forbidden, rules.NoRule, rules.Delayed, rules.Hidden} {
		for _, files := range []rules.Files{rules.FilesAbsent, rules.FilesFailed, rules.FilesQueued, rules.FilesDownloading, rules.FilesPresent, rules.FilesNone} {
			for i := range 16 {
				f := rules.Facts{Installed: bools[i&1], OnHost: bools[i>>1&1], RestartRequired: bools[i>>2&1], Failed: bools[i>>3&1], Files: files}
				d := rules.Decision{Verdict: verdict, Setting: "default_allow"}
				state, reason := rules.StateOf(d, f)
				switch {
				case !slices.Contains([]rules.State{rules.OK, rules.Missing, rules.Pending, rules.Discarded}, state) || reason == "" || len(rules.Sentence(d, reason, "")) < 10:
					t.Errorf("%s %+v: %s, %s, %q", verdict, f, state, reason, rules.Sentence(d, reason, ""))
				case f.Installed && !f.RestartRequired && state != rules.OK:
					t.Errorf("%s %+v: installed and %s", verdict, f, state)
				case !f.Installed && !f.RestartRequired && !d.May() && state != rules.Discarded:
					t.Errorf("%s %+v: not allowed and %s", verdict, f, state)
				case state == rules.Missing && (f.OnHost || files != rules.FilesAbsent && files != rules.FilesFailed):
					t.Errorf("%s %+v: MISSING though its files are known", verdict, f)
				}
			}
		}
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add("allow", "kb", "KB5091157")
	f.Add("forbid", "update", "{631FDCEA-1C5C-4A6A-9B0E-1D7F8A0C2B11}")
	f.Add("Allow", "severity", "critical")
	f.Fuzz(func(t *testing.T, verb, kind, value string) {
		l, err := rules.ParseLine(verb, kind, value)
		if err != nil {
			return
		}
		again, err := rules.ParseLine(string(l.Verb), string(l.Kind), l.Value)
		if err != nil || again != l {
			t.Errorf("%q is not canonical: %q, %v", l, again, err)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	w := world{rand.New(rand.NewPCG(1, 0))}
	var p rules.Policy
	for i := range 20 {
		pkg := rules.Package{Name: fmt.Sprint("p", i)}
		for j := range 50 {
			pkg.Lines = append(pkg.Lines, rules.Line{Verb: rules.Allow, Kind: rules.ByKB, Value: fmt.Sprint(4000000 + 50*i + j)})
		}
		p.Packages = append(p.Packages, pkg)
	}
	updates := make([]rules.Update, 2000)
	for i := range updates {
		updates[i] = w.update()
	}
	r := rules.Compile(p)
	i := 0
	for b.Loop() {
		r.Decide(updates[i%len(updates)], tuesday)
		i++
	}
}
