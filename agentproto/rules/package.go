package rules

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A Verb is what a line does with the updates it matches.
type Verb string

// The verbs.
const (
	Allow  Verb = "allow"
	Forbid Verb = "forbid"
)

// A Kind is how a line names updates.
type Kind string

// The kinds, most specific first.
const (
	ByUpdateID       Kind = "update"         // a GUID
	ByKB             Kind = "kb"             // an article number, digits only
	ByProduct        Kind = "product"        // a category's GUID
	ByClassification Kind = "classification" // a category's GUID
	BySeverity       Kind = "severity"       // a [Severity]
)

// Kinds lists every kind in the order in which deciding looks at them.
var Kinds = [...]Kind{ByUpdateID, ByKB, ByProduct, ByClassification, BySeverity}

// A Line allows or forbids the updates it names. Verb, kind and value are its
// identity: a package is a set of lines, so merging packages is a union.
type Line struct {
	Verb  Verb   `json:"verb"`
	Kind  Kind   `json:"kind"`
	Value string `json:"value"` // canonical, see [ParseLine]
}

// A Maturity is how far a rule package has come; hosts accept a set of them.
type Maturity string

// WAPT's maturities.
const (
	Dev     Maturity = "DEV"
	Preprod Maturity = "PREPROD"
	Prod    Maturity = "PROD"
)

// Maturities lists every maturity, earliest first.
var Maturities = [...]Maturity{Dev, Preprod, Prod}

// EmergencyStop is the package that holds the updates which were stopped for
// every host: it is no package of an admin, and no host is without it while
// anything is stopped.
const EmergencyStop = "emergency-stop"

// A Package is a named set of lines.
type Package struct {
	Name     string   `json:"name"` // see [CheckName]
	Maturity Maturity `json:"maturity"`
	Lines    []Line   `json:"lines"`
}

// A Policy is everything that decides about the updates of one host: its
// settings and the packages that are assigned to it and whose maturity it
// accepts. The order of packages and lines means nothing.
type Policy struct {
	Settings Settings  `json:"settings"`
	Packages []Package `json:"packages"`
}

// ParseLine reads a line as people type it and returns its canonical form:
// GUIDs in lower case, article numbers without "KB".
func ParseLine(verb, kind, value string) (Line, error) {
	l := Line{Verb(strings.ToLower(verb)), Kind(strings.ToLower(kind)), strings.TrimSpace(value)}
	if l.Kind == ByKB && len(l.Value) > 2 && strings.EqualFold(l.Value[:2], "KB") {
		l.Value = l.Value[2:]
	}
	var err error
	switch l.Kind {
	case ByUpdateID:
		var id UpdateID
		id, err = ParseUpdateID(l.Value)
		l.Value = string(id)
	case ByProduct, ByClassification:
		var id CategoryID
		id, err = ParseCategoryID(l.Value)
		l.Value = string(id)
	case BySeverity:
		var s Severity
		s, err = ParseSeverity(l.Value)
		l.Value = string(s)
	}
	if err != nil {
		return Line{}, err
	}
	return l, l.Validate()
}

// Validate says what is wrong with a line that is not canonical.
func (l Line) Validate() error {
	if l.Verb != Allow && l.Verb != Forbid {
		return fmt.Errorf("verb %q: want allow or forbid", clip(string(l.Verb)))
	}
	canonical := false
	switch l.Kind {
	case ByUpdateID, ByProduct, ByClassification:
		id, err := parseGUID(l.Value)
		canonical = err == nil && id == l.Value
	case ByKB:
		return CheckKB(l.Value)
	case BySeverity:
		canonical = slices.Contains(Severities[:], Severity(l.Value))
	default:
		return fmt.Errorf("kind %q: want update, kb, product, classification or severity", clip(string(l.Kind)))
	}
	if !canonical {
		return fmt.Errorf("%s %q is not canonical", l.Kind, clip(l.Value))
	}
	return nil
}

// CheckKB says whether s is an article number: four to ten digits.
func CheckKB(s string) error {
	if len(s) < 4 || len(s) > 10 || strings.Trim(s, "0123456789") != "" {
		return fmt.Errorf("KB %q: want an article number such as 5091157", clip(s))
	}
	return nil
}

// String is the line as a sentence's middle: "forbid KB5091157".
func (l Line) String() string { return string(l.Verb) + " " + l.what("") }

func (l Line) what(title string) string {
	switch l.Kind {
	case ByKB:
		return "KB" + l.Value
	case ByUpdateID:
		return "UpdateID " + l.Value
	default:
		return string(l.Kind) + " " + cmp.Or(title, l.Value)
	}
}

// CheckName says what is wrong with the name of a package or a group: 1 to 64
// lower-case letters, digits, dots, hyphens and underscores, a letter or a
// digit first.
func CheckName(name string) error {
	if name == "" || len(name) > 64 {
		return fmt.Errorf("a name has 1 to 64 characters; %q has %d", clip(name), len(name))
	}
	for i, c := range name {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || i > 0 && strings.ContainsRune(".-_", c):
		case c == ' ':
			return fmt.Errorf("the name may have lower-case letters, digits, dot, hyphen and underscore; %q has a space", clip(name))
		default:
			return fmt.Errorf("the name may have lower-case letters, digits, dot, hyphen and underscore; %q has %q", clip(name), c)
		}
	}
	return nil
}

// Validate says what is wrong with a maturity.
func (m Maturity) Validate() error {
	if !slices.Contains(Maturities[:], m) {
		return fmt.Errorf("maturity %q: want DEV, PREPROD or PROD", clip(string(m)))
	}
	return nil
}

// Validate says what is wrong with a package, with the number of the line.
func (p Package) Validate() error {
	if err := CheckName(p.Name); err != nil {
		return err
	}
	if err := p.Maturity.Validate(); err != nil {
		return err
	}
	for i, l := range p.Lines {
		if err := l.Validate(); err != nil {
			return fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return nil
}

// Validate says what is wrong with a policy.
func (p Policy) Validate() error {
	if err := p.Settings.Validate(); err != nil {
		return err
	}
	for _, pkg := range p.Packages {
		if err := pkg.Validate(); err != nil {
			return fmt.Errorf("package %s: %w", clip(pkg.Name), err)
		}
	}
	return nil
}

// Hash is the same for policies that decide the same: SHA-256 over the
// settings and the sorted packages and lines, hexadecimal.
func (p Policy) Hash() string {
	h := sha256.New()
	settings, _ := json.Marshal(p.Settings) // of plain fields: cannot fail
	h.Write(settings)
	var lines []string
	for _, pkg := range p.Packages {
		for _, l := range pkg.Lines {
			lines = append(lines, fmt.Sprintf("\n%s\t%s\t%s\t%s\t%s", pkg.Name, pkg.Maturity, l.Verb, l.Kind, l.Value))
		}
	}
	slices.Sort(lines)
	for _, l := range slices.Compact(lines) {
		io.WriteString(h, l)
	}
	return hex.EncodeToString(h.Sum(nil))
}
