package appliance_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// TestRulesAsAFile exports random packages, takes the file in on another node,
// and exports there: the same text. Taken in again it changes nothing.
func TestRulesAsAFile(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 5))
	a, b := bareNode(t, "rns-01"), bareNode(t, "brs-01")
	for i := range 12 {
		e := appliance.PackageEdit{Maturity: rules.Maturities[r.IntN(3)], Description: []string{"", "plain", "\"quoted\" \\ # [package.x] é\u007f"}[r.IntN(3)]}
		for range r.IntN(6) {
			kind := rules.Kinds[r.IntN(len(rules.Kinds))]
			value := map[rules.Kind]string{rules.ByKB: fmt.Sprint(5000000 + r.IntN(9)), rules.BySeverity: string(rules.Severities[r.IntN(5)])}[kind]
			if value == "" {
				value = fmt.Sprintf("00000000-0000-4000-8000-00000000000%d", r.IntN(9))
			}
			if l := (rules.Line{Verb: []rules.Verb{rules.Allow, rules.Forbid}[r.IntN(2)], Kind: kind, Value: value}); !slices.Contains(e.Lines, l) {
				e.Lines = append(e.Lines, l)
			}
		}
		if r.IntN(2) == 0 {
			e.Groups = []string{"all"}
		}
		_, err := a.PutPackage(t.Context(), owner, fmt.Sprintf("p.%d-x", i), e)
		must(t, err)
	}
	text, err := a.ExportRules(t.Context())
	must(t, err)
	_, err = b.PutPackage(t.Context(), owner, "only-here", appliance.PackageEdit{Maturity: rules.Prod})
	must(t, err)
	d, err := b.DiffRules(t.Context(), appliance.RuleFile{Text: text})
	if err != nil || len(d.Packages) != 12 || !slices.Equal(d.Kept, []string{"only-here"}) {
		t.Fatalf("the diff is %+v, %v", d, err)
	}
	if list, _ := b.Packages(t.Context()); len(list) != 1 {
		t.Error("a diff stored something")
	}
	_, err = b.ImportRules(t.Context(), owner, appliance.RuleFile{Text: text, Prune: true})
	must(t, err)
	if again, err := b.ExportRules(t.Context()); err != nil || again != text {
		t.Errorf("exported again it is\n%s\nwant\n%s\n%v", again, text, err)
	}
	if d, err := b.DiffRules(t.Context(), appliance.RuleFile{Text: text, Prune: true}); err != nil || len(d.Packages) != 0 {
		t.Errorf("taken in again it changes %+v, %v", d.Packages, err)
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
