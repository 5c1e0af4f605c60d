package rules

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
