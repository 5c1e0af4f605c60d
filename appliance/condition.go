package appliance

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"wuamesh/agentproto"
)

// A Condition says by their facts which hosts belong to a group by themselves.
// Values of one fact are alternatives, facts narrow each other, and a value
// with "!" before it leaves hosts out. Patterns take "*" for any letters and
// "?" for one; upper and lower case are the same. A condition that only leaves
// out, or is empty, chooses nobody.
type Condition struct {
	OS     []string `json:"os,omitempty"`      // patterns: "Windows 11*"
	Build  []string `json:"build,omitempty"`   // patterns, or bounds: "10.0.26200.*", ">=10.0.26100"
	Domain []string `json:"domain,omitempty"`  // patterns: "corp.example"
	ADSite []string `json:"ad_site,omitempty"` // patterns: of Active Directory
	Name   []string `json:"name,omitempty"`    // patterns: "BRS-*"
	Subnet []string `json:"subnet,omitempty"`  // networks of one of its addresses: "10.35.0.0/16"
	Site   []string `json:"site,omitempty"`    // patterns: of the node it is at, or was last
}

// A fact is one thing a condition looks at.
type fact string

// The facts, by the names of the API.
const (
	factOS     fact = "os"
	factBuild  fact = "build"
	factDomain fact = "domain"
	factADSite fact = "ad_site"
	factName   fact = "name"
	factSubnet fact = "subnet"
	factSite   fact = "site"
)

var facts = []fact{factOS, factBuild, factDomain, factADSite, factName, factSubnet, factSite}

// values are those of one fact.
func (c *Condition) values(f fact) *[]string {
	switch f {
	case factOS:
		return &c.OS
	case factBuild:
		return &c.Build
	case factDomain:
		return &c.Domain
	case factADSite:
		return &c.ADSite
	case factName:
		return &c.Name
	case factSubnet:
		return &c.Subnet
	default:
		return &c.Site
	}
}

// Empty says that there is no condition.
func (c Condition) Empty() bool {
	return !slices.ContainsFunc(facts, func(f fact) bool { return len(*c.values(f)) > 0 })
}

// String is the condition in one line, as people write it.
func (c Condition) String() string {
	var parts []string
	for _, f := range facts {
		if list := *c.values(f); len(list) > 0 {
			parts = append(parts, string(f)+" "+strings.Join(list, ", "))
		}
	}
	return strings.Join(parts, "; ")
}

// The most values of one fact, and the longest value, in bytes.
const (
	maxTerms = 200
	maxTerm  = 200
)

// checked returns the condition as it is stored, or what is wrong with it by
// field.
func (c Condition) checked() (clean Condition, err error) {
	only := true
	for _, f := range facts {
		list := *c.values(f)
		if len(list) > maxTerms {
			return clean, invalid("condition."+string(f), "There are %d values, at most %d.", len(list), maxTerms)
		}
		for _, v := range list {
			t, err := parseTerm(f, v)
			if err != nil {
				return clean, &Problem{Kind: Invalid, Field: "condition." + string(f), Msg: upper(err.Error()) + ".", Err: err}
			}
			only = only && t.not
			if to := clean.values(f); !slices.ContainsFunc(*to, func(o string) bool { return strings.EqualFold(o, t.text) }) {
				*to = append(*to, t.text)
			}
		}
		slices.Sort(*clean.values(f))
	}
	if only && !c.Empty() {
		return clean, &Problem{Kind: Invalid, Field: "condition", Msg: "The condition only leaves hosts out, so nobody is in the group.", Hint: "Say who is in it, for example by name *, and leave out some of them."}
	}
	return clean, nil
}

// A term is one value of a condition, read.
type term struct {
	text   string // as it is stored
	not    bool
	glob   string       // a pattern in lower case
	net    netip.Prefix // of a subnet
	bound  string       // of a build: ">=", "<=", ">", "<"
	number []int        // that it is compared with
}

// parseTerm reads one value and says in clear words what is wrong with it.
func parseTerm(f fact, value string) (t term, err error) {
	v := strings.TrimSpace(value)
	rest, not := strings.CutPrefix(v, "!")
	rest = strings.TrimSpace(rest)
	switch {
	case rest == "":
		return t, fmt.Errorf("a value is empty")
	case len(rest) > maxTerm:
		return t, fmt.Errorf("a value has %d characters, at most %d", len(rest), maxTerm)
	case strings.ContainsFunc(rest, unicode.IsControl):
		return t, fmt.Errorf("%q has control characters", rest)
	}
	t = term{text: rest, not: not, glob: strings.ToLower(rest)}
	switch f {
	case factSubnet:
		if t.net, err = parseSubnet(rest); err != nil {
			return t, err
		}
		t.text = t.net.String()
	case factBuild:
		if t.bound, t.number, err = parseBound(rest); err != nil {
			return t, err
		}
	}
	if not {
		t.text = "!" + t.text
	}
	return t, nil
}

// parseSubnet reads a network, or one address. Bits behind the length are
// dropped: who copies a host's address with its length means its network.
func parseSubnet(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a.Unmap().WithZone(""), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is no network; write it like 10.35.0.0/16", s)
	}
	return p.Masked(), nil
}

// parseBound reads a bound of a build; without one the value is a pattern.
func parseBound(s string) (bound string, number []int, err error) {
	for _, op := range []string{">=", "<=", ">", "<"} {
		rest, ok := strings.CutPrefix(s, op)
		if !ok {
			continue
		}
		if number, ok = buildNumber(strings.TrimSpace(rest)); !ok {
			return "", nil, fmt.Errorf("%q is no build behind %s; write it like %s10.0.26100", strings.TrimSpace(rest), op, op)
		}
		return op, number, nil
	}
	return "", nil, nil
}

// buildNumber takes "10.0.26200.7019" apart.
func buildNumber(s string) (list []int, ok bool) {
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return nil, false
		}
		list = append(list, n)
	}
	return list, true
}

// within says that a build keeps the bound; parts that the bound does not have
// do not matter: 10.0.26100.5 is <=10.0.26100.
func (t term) within(build string) bool {
	n, ok := buildNumber(build)
	if !ok {
		return false
	}
	if len(n) > len(t.number) {
		n = n[:len(t.number)]
	}
	switch c := slices.Compare(n, t.number); t.bound {
	case ">=":
		return c >= 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	default:
		return c < 0
	}
}

// glob says that a text, in lower case, matches a pattern. It looks at each
// letter of the text about once for each "*", whatever they are.
func glob(pattern, text string) bool {
	p, t, star, from := 0, 0, -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p, t = p+1, t+1
		case star >= 0: // let the last star take one more
			from++
			p, t = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// A matcher is a condition, read.
type matcher [][]term // by the number of the fact

func (c Condition) matcher() matcher {
	m, some := make(matcher, len(facts)), false
	for i, f := range facts {
		for _, v := range *c.values(f) {
			t, err := parseTerm(f, v)
			if err != nil { // of a newer node: it chooses nobody, and is shown
				t = term{text: v, glob: "\x00"}
			}
			some = some || !t.not
			m[i] = append(m[i], t)
		}
	}
	if !some {
		return nil
	}
	return m
}

// matches says whether a host with these facts, at a node of that site, is
// chosen.
func (m matcher) matches(f *agentproto.Facts, site string) bool {
	if m == nil {
		return false
	}
	for i, terms := range m {
		if len(terms) == 0 {
			continue
		}
		if facts[i] == factSubnet {
			if !anyAddress(f.Addresses, terms) {
				return false
			}
			continue
		}
		text := [...]string{f.OS, f.Build, f.Domain, f.ADSite, f.Name, "", site}[i]
		lower := strings.ToLower(text)
		if !chosen(terms, func(t term) bool {
			if t.bound != "" {
				return t.within(text)
			}
			return glob(t.glob, lower)
		}) {
			return false
		}
	}
	return true
}

// chosen says that one of the terms holds, if any chooses, and none of those
// that leave out.
func chosen(terms []term, holds func(term) bool) bool {
	in, choosing := false, false
	for _, t := range terms {
		if t.not && holds(t) {
			return false
		}
		if !t.not {
			choosing, in = true, in || holds(t)
		}
	}
	return in || !choosing
}

func anyAddress(addresses []string, terms []term) bool {
	return chosen(terms, func(t term) bool {
		return slices.ContainsFunc(addresses, func(s string) bool {
			a, err := netip.ParseAddr(s)
			return err == nil && t.net.Contains(a.Unmap().WithZone(""))
		})
	})
}

// looksAt says that the condition has a value of the fact.
func (m matcher) looksAt(f fact) bool { return m != nil && len(m[slices.Index(facts, f)]) > 0 }

// A termKey is a value of a condition as its record's key has it.
type termKey struct {
	fact  fact
	value string
}

// termID is the key of a value's record. Each value is one of its own, so that
// admins on two sides of a cut both keep what they added.
func termID(group string, k termKey) string { return group + "/" + string(k.fact) + "/" + k.value }

// termOf takes the id of a term's record apart.
func termOf(id string) (group string, k termKey) {
	group, rest, _ := strings.Cut(id, "/")
	f, value, _ := strings.Cut(rest, "/")
	return group, termKey{fact(f), value}
}

// keys are the records of a condition.
func (c Condition) keys() (list []termKey) {
	for _, f := range facts {
		for _, v := range *c.values(f) {
			list = append(list, termKey{f, v})
		}
	}
	return list
}

// conditionOf puts records together again. Of facts nobody knows here there
// are none: a newer node wrote them.
func conditionOf(terms map[termKey]editRecord) (c Condition) {
	for k := range terms {
		if slices.Contains(facts, k.fact) {
			to := c.values(k.fact)
			*to = append(*to, k.value)
		}
	}
	for _, f := range facts {
		slices.SortFunc(*c.values(f), func(x, y string) int { return cmp.Compare(x, y) })
	}
	return c
}

// ParseCondition reads the fields of a form or a command: lists with commas.
func ParseCondition(fields map[string]string) (c Condition, err error) {
	for name, text := range fields {
		i := slices.Index(facts, fact(name))
		if i < 0 {
			return c, invalid("condition", "There is no fact %q; there are %s.", name, joinFacts())
		}
		for v := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '\n' || r == '\r' }) {
			if v = strings.TrimSpace(v); v != "" {
				to := c.values(facts[i])
				*to = append(*to, v)
			}
		}
	}
	return c, nil
}

func joinFacts() string {
	var list []string
	for _, f := range facts {
		list = append(list, string(f))
	}
	return strings.Join(list, ", ")
}
