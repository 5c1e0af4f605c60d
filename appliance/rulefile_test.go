package appliance_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/microsofttest"
)

// oneOf draws one of some values.
func oneOf[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// anyRules makes random groups, packages and profiles on a node without hosts.
func anyRules(t *testing.T, s *site, r *rand.Rand) {
	t.Helper()
	texts := []string{"", "plain", "\"quoted\" \\ # [package.x] é\u007f"}
	at := r.IntN(3)
	for i := range 5 {
		e := appliance.GroupEdit{Description: oneOf(r, texts...), Settings: map[string]string{"direct_download": oneOf(r, "True", "no"), "filter": oneOf(r, "", "IsInstalled=0")}}
		for range r.IntN(3) {
			e.Accepts = append(e.Accepts, oneOf(r, rules.Maturities[:]...))
		}
		name := "all"
		if i > 0 {
			name = fmt.Sprintf("g.%d", at+i)
			e.Condition = &appliance.Condition{OS: oneOf(r, nil, []string{"Windows 11*", "!*\"LTSC\"*"}), Subnet: oneOf(r, nil, []string{"10.35.0.1/16", "!10.35.9.0/24", "fd00::/8"}), Build: oneOf(r, nil, []string{">=10.0.26100"})}
			if r.IntN(3) == 0 {
				e.Condition.ADSite, e.Condition.Site, e.Condition.Domain, e.Condition.Name = []string{"Brest"}, []string{"*"}, []string{"corp.example"}, []string{"b-*", "B-*", "a?"}
			}
		}
		_, err := s.PutGroup(t.Context(), owner, name, e)
		must(t, err)
	}
	given := func() (list []string) {
		for range r.IntN(4) {
			list = append(list, oneOf(r, "all", fmt.Sprintf("g.%d", at+1+r.IntN(4))))
		}
		return list
	}
	for i := range 12 {
		e := appliance.PackageEdit{Groups: given(), Maturity: oneOf(r, rules.Maturities[:]...), Description: oneOf(r, texts...)}
		for range r.IntN(6) {
			kind := oneOf(r, rules.Kinds[:]...)
			value := map[rules.Kind]string{rules.ByKB: fmt.Sprint(5000000 + r.IntN(9)), rules.BySeverity: string(rules.Severities[r.IntN(5)])}[kind]
			if value == "" {
				value = fmt.Sprintf("00000000-0000-4000-8000-00000000000%d", r.IntN(9))
			}
			if l := (rules.Line{Verb: oneOf(r, rules.Allow, rules.Forbid), Kind: kind, Value: value}); !slices.Contains(e.Lines, l) {
				e.Lines = append(e.Lines, l)
			}
		}
		_, err := s.PutPackage(t.Context(), owner, fmt.Sprintf("p.%d-x", i), e)
		must(t, err)
	}
	for i := range 8 {
		e := appliance.ProfileEdit{Groups: given(), Description: oneOf(r, texts...), Order: r.IntN(8), Options: map[string]string{}}
		for range r.IntN(4) {
			key := oneOf(r, "default_allow", "install_delay", "allowed_severities", "filter")
			e.Options[key] = map[string]string{"default_allow": "True", "install_delay": "7d", "allowed_severities": oneOf(r, "", "Critical,Important"), "filter": oneOf(r, "", "IsInstalled=0 and Type='Software'")}[key]
		}
		_, err := s.PutProfile(t.Context(), owner, fmt.Sprintf("s.%d", i), e)
		must(t, err)
	}
}

func exported(t *testing.T, s *site) string {
	t.Helper()
	text, err := s.ExportRules(t.Context(), appliance.RuleExport{})
	must(t, err)
	return text
}

// TestRulesAsAFile exports random rules, takes the file in on another node with
// other random rules, and exports there: the same text. Taken in again it
// changes nothing.
func TestRulesAsAFile(t *testing.T) {
	t.Parallel()
	for range 3 {
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 5))
		a, b := bareNode(t, "rns-01"), bareNode(t, "brs-01")
		anyRules(t, a, r)
		anyRules(t, b, r)
		_, err := b.PutPackage(t.Context(), owner, "only-here", appliance.PackageEdit{Maturity: rules.Prod})
		must(t, err)
		_, err = b.PutProfile(t.Context(), owner, "only-here", appliance.ProfileEdit{Order: 2})
		must(t, err)
		_, err = b.PutGroup(t.Context(), owner, "only-here", appliance.GroupEdit{})
		must(t, err)
		text, was := exported(t, a), exported(t, b)
		d, err := b.DiffRules(t.Context(), appliance.RuleFile{Text: text})
		if err != nil || d.Empty() || !slices.Equal(d.Kept, []string{"only-here"}) || !slices.Equal(d.KeptProfiles, []string{"only-here"}) || !slices.Contains(d.KeptGroups, "only-here") {
			t.Fatalf("the diff is %+v, %v", d, err)
		}
		if exported(t, b) != was {
			t.Error("a diff stored something")
		}
		made, err := b.ImportRules(t.Context(), owner, appliance.RuleFile{Text: text, Seen: d.Version})
		if err != nil || made.Edits != 1 || made.Summary() != d.Summary() {
			t.Errorf("taken in it is %q in %d edits, shown as %q: %v", made.Summary(), made.Edits, d.Summary(), err)
		}
		if d, err := b.DiffRules(t.Context(), appliance.RuleFile{Text: text}); err != nil || !d.Empty() {
			t.Errorf("taken in again it changes %s %+v, %v", d.Summary(), d, err)
		}
		_, err = b.ImportRules(t.Context(), owner, appliance.RuleFile{Text: text, Prune: true})
		must(t, err)
		if again := exported(t, b); again != text {
			t.Errorf("exported again it is\n%s\nwant\n%s", again, text)
		}
		d, err = b.ImportRules(t.Context(), owner, appliance.RuleFile{Text: text, Prune: true})
		if err != nil || !d.Empty() || d.Edits != 0 {
			t.Errorf("taken in again it changes %+v, %v", d, err)
		}
	}
}

// TestAKindThatAFileDoesNotMention stays as it is, also when the rest goes; an
// empty table says that there is none.
func TestAKindThatAFileDoesNotMention(t *testing.T) {
	t.Parallel()
	s := bareNode(t, "rns-01")
	anyRules(t, s, rand.New(rand.NewPCG(1, 1)))
	left := func(text string) (packages, profiles int, d appliance.RuleDiff) {
		d, err := s.ImportRules(t.Context(), owner, appliance.RuleFile{Text: text, Prune: true})
		must(t, err)
		p, err := s.Packages(t.Context())
		must(t, err)
		q, err := s.Profiles(t.Context())
		must(t, err)
		return len(p), len(q), d
	}
	if p, q, d := left(""); p != 12 || q != 8 || !d.Empty() || len(d.Remarks) != 3 {
		t.Errorf("an empty file leaves %d packages and %d profiles: %+v", p, q, d)
	}
	if p, q, d := left("[package.base]\nmaturity = \"PROD\"\n"); p != 1 || q != 8 || d.Summary() != "1 package new, 12 packages deleted." {
		t.Errorf("a file of packages leaves %d packages and %d profiles: %s", p, q, d.Summary())
	}
	if p, q, d := left("[profile]\n"); p != 1 || q != 0 || d.Summary() != "8 settings profiles deleted." {
		t.Errorf("a file of no profile leaves %d packages and %d profiles: %s", p, q, d.Summary())
	}
}

// TestTheOrderInAFile puts profiles into the order of the file; those that are
// not in it stay where they are.
func TestTheOrderInAFile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ now, file, want string }{
		{"a b c", "c b a", "c b a"},
		{"a X b", "b a", "b X a"},
		{"a X b", "b n a", "b n X a"},
		{"X a Y", "n a m", "X n a m Y"},
		{"X", "b a", "X b a"},
		{"a b c d e", "b c d e a", "b c d e a"},
		{"", "b a", "b a"},
	} {
		s := bareNode(t, "rns-01")
		for _, name := range strings.Fields(strings.ToLower(tt.now)) {
			_, err := s.PutProfile(t.Context(), owner, name, appliance.ProfileEdit{})
			must(t, err)
		}
		var f appliance.RuleFile
		for _, name := range strings.Fields(tt.file) {
			f.Text += "[profile." + name + "]\n"
		}
		f.Text = "profile_order = [\"" + strings.Join(strings.Fields(tt.file), "\", \"") + "\"]\n" + f.Text
		before, err := s.Profiles(t.Context())
		must(t, err)
		_, err = s.ImportRules(t.Context(), owner, f)
		must(t, err)
		list, err := s.Profiles(t.Context())
		must(t, err)
		got := ""
		for _, p := range list {
			got += " " + p.Name
		}
		if got != " "+strings.ToLower(tt.want) {
			t.Errorf("%q with the file %q becomes%s, want %s", tt.now, tt.file, got, tt.want)
		}
		if d, err := s.DiffRules(t.Context(), f); err != nil || !d.Empty() {
			t.Errorf("%q with the file %q twice: %+v, %v", tt.now, tt.file, d.Order, err)
		}
		moved := 0
		for _, p := range list {
			if i := slices.IndexFunc(before, func(b appliance.ProfileRow) bool { return b.Name == p.Name }); i >= 0 && !before[i].Edited.Equal(p.Edited) {
				moved++
			}
		}
		if tt.file == "b c d e a" && moved != 1 {
			t.Errorf("%d profiles were written to move one", moved)
		}
	}
}

// TestAnImportIsOneEdit: its entries in the audit log are of one moment, and
// one names the whole.
func TestAnImportIsOneEdit(t *testing.T) {
	t.Parallel()
	s, from := bareNode(t, "rns-01"), bareNode(t, "brs-01")
	anyRules(t, from, rand.New(rand.NewPCG(2, 2)))
	_, err := s.ImportRules(t.Context(), owner, appliance.RuleFile{Text: exported(t, from)})
	must(t, err)
	list, _, err := s.Audit(t.Context(), "", appliance.Page{Limit: 100})
	must(t, err)
	whole, at, n := appliance.AuditEntry{}, time.Time{}, 0
	for _, e := range list {
		if !strings.HasPrefix(e.Action, "import ") {
			continue
		}
		if n++; n == 1 {
			at = e.At
		}
		if !e.At.Equal(at) {
			t.Errorf("%s of %s is of another moment", e.Action, e.Object)
		}
		if e.Action == "import rules" {
			whole = e
		}
	}
	if n != 26 || whole.Object != "rules" || whole.After != "4 groups new, 1 group changed, 12 packages new, 8 settings profiles new." {
		t.Errorf("the audit log has %d entries of it, the whole as %+v", n, whole)
	}
}

// TestMembersInAFile: those of a group are in a file when asked for; one without
// a list of them leaves them as they are.
func TestMembersInAFile(t *testing.T) {
	t.Parallel()
	a := openFleet(t, appliance.Fleet{Hosts: 30, Updates: 120, Statuses: 14, Seed: 3})
	given := func() []agentproto.HostID {
		g, err := a.Group(t.Context(), "branch-14")
		must(t, err)
		return g.Members
	}
	was := given()
	with, err := a.ExportRules(t.Context(), appliance.RuleExport{Members: true})
	must(t, err)
	without, err := a.ExportRules(t.Context(), appliance.RuleExport{})
	must(t, err)
	if len(was) == 0 || strings.Contains(without, string(was[0])) || !strings.Contains(with, string(was[0])) {
		t.Fatalf("the members are %v, and the files\n%s\n%s", was, without, with)
	}
	_, err = a.PutGroup(t.Context(), owner, "branch-14", appliance.GroupEdit{Description: "moved", Members: a.hosts[:1]})
	must(t, err)
	for text, want := range map[string][]agentproto.HostID{without: a.hosts[:1], with: was} {
		_, err = a.PutGroup(t.Context(), owner, "branch-14", appliance.GroupEdit{Description: "moved", Members: a.hosts[:1]})
		must(t, err)
		d, err := a.ImportRules(t.Context(), owner, appliance.RuleFile{Text: text, Prune: true})
		if err != nil || d.Summary() != "1 group changed." || !slices.Equal(given(), want) {
			t.Errorf("%+v; the members are %v, want %v: %v", d.Groups, given(), want, err)
		}
	}
}

// TestAGroupThatTheFileDrops is taken out of what it was given; while the file
// gives it something it is refused.
func TestAGroupThatTheFileDrops(t *testing.T) {
	t.Parallel()
	s := bareNode(t, "rns-01")
	for _, name := range []string{"brest", "lorient"} {
		_, err := s.PutGroup(t.Context(), owner, name, appliance.GroupEdit{})
		must(t, err)
	}
	_, err := s.PutPackage(t.Context(), owner, "base", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"brest", "lorient"}})
	must(t, err)
	f := appliance.RuleFile{Text: "[group.brest]\n[package.other]\nmaturity = \"PROD\"\ngroups = [\n\"all\",\n\"lorient\"\n]\n", Prune: true}
	_, err = s.ImportRules(t.Context(), owner, f)
	if p := problem(err); !strings.HasPrefix(p.Msg, "Line 6: package other: The group lorient is not in the file and would be deleted") {
		t.Errorf("it says %v", err)
	}
	f.Text = "[group.brest]\n"
	d, err := s.ImportRules(t.Context(), owner, f)
	if err != nil || d.Summary() != "1 group deleted." {
		t.Errorf("%s, %v", d.Summary(), err)
	}
	if p, err := s.Package(t.Context(), "base"); err != nil || !slices.Equal(p.Groups, []string{"brest"}) {
		t.Errorf("the package is given to %v, %v", p.Groups, err)
	}
	f.Text = "[group]\n"
	if d, err = s.ImportRules(t.Context(), owner, f); err != nil || d.Summary() != "1 group deleted." {
		t.Errorf("%s, %v", d.Summary(), err)
	}
	if g, err := s.Group(t.Context(), "all"); err != nil || g.Name != "all" {
		t.Errorf("the group of every host: %+v, %v", g, err)
	}
	f.Text = "[group.quimper]\n[package.base]\nmaturity = \"PROD\"\ngroups = [\"quimper\"]\n" // made by the same file
	if d, err = s.ImportRules(t.Context(), owner, f); err != nil || d.Summary() != "1 group new, 1 package changed." {
		t.Errorf("%s, %v", d.Summary(), err)
	}
}

// TestTwoImportsAtOnce takes two files in again and again: what is there in the
// end is one of them, whole.
func TestTwoImportsAtOnce(t *testing.T) {
	t.Parallel()
	s := bareNode(t, "rns-01")
	var files []string
	for i := range 2 {
		from := bareNode(t, "brs-01")
		anyRules(t, from, rand.New(rand.NewPCG(uint64(i), 3)))
		files = append(files, exported(t, from))
	}
	var wait sync.WaitGroup
	for i := range 6 {
		wait.Go(func() {
			_, err := s.ImportRules(t.Context(), owner, appliance.RuleFile{Text: files[i%2], Prune: true})
			if err != nil && problem(err).Kind != appliance.Conflict {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if got := exported(t, s); got != files[0] && got != files[1] {
		t.Errorf("there is a mixture:\n%s", got)
	}
}

// TestAnImportOfWhatWasSeen is refused when somebody edited what it would
// change since, and when the file is another one.
func TestAnImportOfWhatWasSeen(t *testing.T) {
	t.Parallel()
	s := bareNode(t, "rns-01")
	f := appliance.RuleFile{Text: "[package.base]\nmaturity = \"PROD\"\nallow = [\"severity Critical\"]\n[profile.night.options]\ninstall_delay = \"7d\"\n"}
	d, err := s.DiffRules(t.Context(), f)
	must(t, err)
	lucy := appliance.Actor{Name: "lucy", Role: appliance.Owner}
	_, err = s.PutProfile(t.Context(), lucy, "night", appliance.ProfileEdit{Options: map[string]string{"install_delay": "3d"}})
	must(t, err)
	f.Seen = d.Version
	_, err = s.ImportRules(t.Context(), owner, f)
	if p := problem(err); p.Kind != appliance.Conflict || !strings.Contains(p.Msg, "profile night last by lucy") {
		t.Errorf("it says %v", err)
	}
	if list, _ := s.Packages(t.Context()); len(list) != 0 {
		t.Error("something was stored")
	}
	if d, err = s.DiffRules(t.Context(), f); err != nil || len(d.Profiles) != 1 || !slices.Equal(d.Profiles[0].Removed, []string{"install_delay = 3d"}) {
		t.Errorf("the differences are %+v, %v", d, err)
	}
	_, err = s.PutPackage(t.Context(), lucy, "other", appliance.PackageEdit{Maturity: rules.Prod})
	must(t, err)
	f.Seen = d.Version
	other := f
	other.Text += "# another file\n"
	if _, err = s.ImportRules(t.Context(), owner, other); problem(err).Kind != appliance.Conflict || !strings.Contains(problem(err).Msg, "not the one") {
		t.Errorf("of another file it says %v", err)
	}
	if _, err = s.ImportRules(t.Context(), owner, f); err != nil {
		t.Errorf("what somebody edited elsewhere refuses it: %v", err)
	}
}

// TestAFileThatIsTooMuchForOneEdit is refused whole, and taken in in parts when
// that is asked for.
func TestAFileThatIsTooMuchForOneEdit(t *testing.T) {
	t.Parallel()
	s := bareNode(t, "rns-01")
	var f appliance.RuleFile
	for i := range 4 {
		var kbs []string
		for n := range 1500 {
			kbs = append(kbs, fmt.Sprintf("\"kb %d\"", 5000000+n))
		}
		f.Text += fmt.Sprintf("[package.p%d]\nmaturity = \"PROD\"\nallow = [%s]\n", i, strings.Join(kbs, ", "))
	}
	_, err := s.ImportRules(t.Context(), owner, f)
	if p := problem(err); p.Kind != appliance.TooLarge || !strings.Contains(p.Hint, "--parts") {
		t.Errorf("it says %v", err)
	}
	if list, _ := s.Packages(t.Context()); len(list) != 0 {
		t.Errorf("%d packages were stored", len(list))
	}
	f.Parts = true
	d, err := s.ImportRules(t.Context(), owner, f)
	if err != nil || d.Edits != 5 {
		t.Errorf("in parts it is %d edits, %v", d.Edits, err)
	}
	if d, err := s.DiffRules(t.Context(), f); err != nil || !d.Empty() {
		t.Errorf("taken in again it changes %+v, %v", d, err)
	}
}

// TestBadRuleFiles says of each mistake in which line it is, and stores nothing.
func TestBadRuleFiles(t *testing.T) {
	t.Parallel()
	s := bareNode(t, "rns-01")
	const head = "[package.good]\nmaturity = \"PROD\"\n\n[package.bad]\n"
	for text, want := range map[string]string{
		head + "maturity = \"PROD\"\nallow = [\n \"kb 5000001\",\n \"kb soon\",\n]": "Line 8: KB",
		head + "maturity = \"PROD\"\ncolour = \"red\"":                              "Line 6: there is no key",
		head + "maturity = \"BETA\"":                                                "Line 5: package bad: Maturity",
		head + "maturity = \"PROD\"\ngroups = [\"nobody\"]":                         "Line 6: package bad: There is no group nobody",
		head + "maturity = ":                                                        "Line 5: ",
		head + "maturity = 3":                                                       "Line 5: ",
		"[profile.night.options]\ninstal_delay = \"7d\"":                            "Line 2: there is no option \"instal_delay\"; did you mean install_delay?",
		"[profile.night.options]\ninstall_delay = \"soon\"":                         "Line 2: profile night: ",
		"[profile.night.options]\n\ninstall_delay = 7":                              "Line 3: the value cannot be an integer.",
		"[profile.night.optoins]\ninstall_delay = \"7d\"":                           "Line 1: there is no key \"profile.night.optoins\"; did you mean options?",
		"[group.brest.condition]\nadsite = [\"Brest\"]":                             "Line 2: there is no key \"group.brest.condition.adsite\"; did you mean ad_site?",
		"[group.brest]\nacepts = []":                                                "Line 2: there is no key \"group.brest.acepts\"; did you mean accepts?",
		"[group.brest]\naccepts = [\"BETA\"]":                                       "Line 2: group brest: ",
		"[group.brest.condition]\nos = [\"*\"]\nsubnet = [\"10.35\"]":               "Line 3: group brest: ",
		"[group.brest.settings]\ninstal_delay = \"7d\"":                             "Line 2: there is no option \"instal_delay\"; did you mean install_delay?",
		"[group.all.condition]\nos = [\"*\"]":                                       "Line 1: group all: ",
		"[group.all]\nmembers = [\"*\"]":                                            "Line 1: group all: ",
		"[group.brest]\nmembers = [\n\"nobody\",\n]":                                "Line 3: group brest: There is no host nobody.",
		"\n[profil.night]\n":                                                        "Line 2: there is no key \"profil.night\"; did you mean profile?",
		"profile_oder = []\n":                                                       "Line 1: there is no key \"profile_oder\"; did you mean profile_order?",
		"\nprofile_order = [\"nigth\"]\n[profile.night]\n":                          "Line 2: profile_order names nigth, and there is no [profile.nigth]; did you mean night?",
		"profile_order = [\"a\", \"a\"]\n[profile.a]\n":                             "Line 1: profile_order names a twice.",
		"profile_order = [\"a\"]\n[profile.a]\n[profile.b]\n":                       "Line 3: profile b is not in profile_order.",
		"profile_order = \"a\"\n[profile.a]\n":                                      "Line 1: ",
		"[package.a]\nmaturity = \"PROD\"\nalow = []\n":                             "Line 3: there is no key \"package.a.alow\"; did you mean allow?",
		"[package.\"Not a name\"]\nmaturity = \"PROD\"":                             "Line 1: package Not a name",
	} {
		_, err := s.ImportRules(t.Context(), owner, appliance.RuleFile{Text: text})
		if p := problem(err); p == nil || !strings.HasPrefix(p.Msg, want) || !strings.Contains(p.Hint, "Nothing was stored") {
			t.Errorf("%s\nsays %+v, want %s", text, p, want)
		}
	}
	if list, err := s.Packages(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("stored are %+v, %v", list, err)
	}
}

// TestRulesOfWAPT takes waptwua_rules.json in and gives it out again.
func TestRulesOfWAPT(t *testing.T) {
	t.Parallel()
	s := bareNode(t, "rns-01")
	const id = "631fdcea-1c5c-4a6a-9b0e-1d7f8a0c2b11"
	f := appliance.RuleFile{Format: appliance.WAPT, Package: "from-wapt", Text: `{
  "allowed_updates": ["` + id + `_200"],
  "forbidden_kbs": ["KB5000001", "5000002"],
  "allowed_severities": ["Critical"],
  "default_allow": true
}`}
	d, err := s.ImportRules(t.Context(), owner, f)
	if err != nil || len(d.Packages) != 1 || len(d.Remarks) != 2 {
		t.Fatalf("%+v, %v", d, err)
	}
	p, err := s.Package(t.Context(), "from-wapt")
	if err != nil || len(p.Lines) != 4 || len(p.Groups) != 0 {
		t.Errorf("the package is %+v, %v", p, err)
	}
	out, err := s.ExportWAPT(t.Context(), "from-wapt")
	if err != nil || !strings.Contains(out, id) || !strings.Contains(out, `"5000002"`) {
		t.Errorf("given out it is %s, %v", out, err)
	}
	f.Text = out
	if d, err := s.DiffRules(t.Context(), f); err != nil || len(d.Packages) != 0 {
		t.Errorf("taken in again it changes %+v, %v", d.Packages, err)
	}
	for text, want := range map[string]string{"{\n\"allowed_kbs\": [\"x\"]\n}": "Line 2: KB", "{\n\"alowed_kbs\": []\n}": "Line 2: unknown field", "{": "Line 1: "} {
		f.Text = text
		if _, err := s.DiffRules(t.Context(), f); problem(err) == nil || !strings.HasPrefix(problem(err).Msg, want) {
			t.Errorf("%s says %v, want %s", text, err, want)
		}
	}
	must(t, s.AddLines(t.Context(), owner, "from-wapt", []rules.Line{{Verb: rules.Forbid, Kind: rules.BySeverity, Value: "Low"}}))
	if _, err := s.ExportWAPT(t.Context(), "from-wapt"); problem(err) == nil {
		t.Errorf("a line that WAPT cannot say is given out: %v", err)
	}
}

// FuzzRuleFile takes any text in: it is refused with the line, or the rules say
// what it says afterwards.
func FuzzRuleFile(f *testing.F) {
	for _, text := range []string{
		"", "[package]", "profile_order = [\"b\", \"a\"]\n[profile.a]\n[profile.b.options]\ninstall_delay = \"7d\"\n",
		"[package.\"p.1\"]\nmaturity = \"DEV\"\ngroups = [\"g\", \"all\"]\nallow = [\"kb 5000001\", 'severity Critical']\n[group.g]\naccepts = [\"DEV\"]\ncondition = {os = [\"Windows 11*\"], subnet = [\"10.0.0.1/8\"]}\n",
		"[group.all]\nsettings = {default_allow = \"no\"}\n[group.g.condition]\nname = [\"!x\"]", "[profile.a]\ngroups = [\"g\"]", "[group.\"\"]\n", "a = 1979-05-27", "[Package.a]\nMaturity = \"DEV\"\n[PROFILE]", "[[package]]\n", "package = 3", "[group.g]\nmembers = [[]]",
	} {
		f.Add(text)
	}
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 1000})
	s := startIn(f, f.TempDir(), world, "http://127.0.0.1:1", func(c *appliance.Config) { c.Name, c.Internet = "rns-01", false })
	f.Fuzz(func(t *testing.T, text string) {
		file := appliance.RuleFile{Text: text, Prune: true}
		d, err := s.DiffRules(t.Context(), file)
		if err != nil {
			if p := problem(err); p.Kind != appliance.TooLarge && p.Kind != appliance.TooMany && !strings.HasPrefix(p.Msg, "Line ") {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		file.Seen = d.Version
		if _, err = s.ImportRules(t.Context(), owner, file); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		out, err := s.ExportRules(t.Context(), appliance.RuleExport{Members: true})
		must(t, err)
		for _, again := range []string{text, out} {
			if d, err := s.DiffRules(t.Context(), appliance.RuleFile{Text: again, Prune: true}); err != nil || !d.Empty() {
				t.Fatalf("%q, taken in and compared with\n%s\nis %+v, %v", text, again, d, err)
			}
		}
	})
}
