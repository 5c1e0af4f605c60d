package rules

import (
	"fmt"
	"strings"
	"time"
)

// An UpdateID is Microsoft's identity of one update: a GUID in lower case.
type UpdateID string

// ParseUpdateID reads a GUID in either case and with or without braces.
func ParseUpdateID(s string) (UpdateID, error) {
	id, err := parseGUID(s)
	if err != nil {
		return "", fmt.Errorf("UpdateID %q: %w", clip(s), err)
	}
	return UpdateID(id), nil
}

// A CategoryID is Microsoft's identity of a product or a classification: a
// GUID in lower case. Titles are for people and differ by language.
type CategoryID string

// ParseCategoryID reads a GUID in either case and with or without braces.
func ParseCategoryID(s string) (CategoryID, error) {
	id, err := parseGUID(s)
	if err != nil {
		return "", fmt.Errorf("category %q: %w", clip(s), err)
	}
	return CategoryID(id), nil
}

// parseGUID returns the canonical form of RFC 9562, section 4: lower-case
// hexadecimal with hyphens.
func parseGUID(s string) (string, error) {
	s = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(s, "{"), "}"))
	if len(s) != 36 {
		return "", errNotGUID
	}
	for i, c := range []byte(s) {
		hyphen := i == 8 || i == 13 || i == 18 || i == 23
		hex := c >= '0' && c <= '9' || c >= 'a' && c <= 'f'
		if hyphen && c != '-' || !hyphen && !hex {
			return "", errNotGUID
		}
	}
	return s, nil
}

var errNotGUID = fmt.Errorf("not a GUID such as 631fdcea-1c5c-4a6a-9b0e-1d7f8a0c2b11")

// clip bounds what an error repeats of its input.
func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

// Severity is Microsoft's rating of an update; Unspecified for most that are
// not about security. The seed calls it criticality.
type Severity string

// Microsoft's severities, gravest first.
const (
	Critical    Severity = "Critical"
	Important   Severity = "Important"
	Moderate    Severity = "Moderate"
	Low         Severity = "Low"
	Unspecified Severity = "Unspecified"
)

// Severities lists every severity, gravest first.
var Severities = [...]Severity{Critical, Important, Moderate, Low, Unspecified}

// ParseSeverity reads a severity in any case; the empty string is Unspecified.
func ParseSeverity(s string) (Severity, error) {
	if s == "" {
		return Unspecified, nil
	}
	for _, v := range Severities {
		if strings.EqualFold(s, string(v)) {
			return v, nil
		}
	}
	return "", fmt.Errorf("severity %q: want Critical, Important, Moderate, Low or Unspecified", clip(s))
}

// An Update is what deciding needs to know of one update.
type Update struct {
	ID             UpdateID
	KBs            []string // article numbers, digits only
	Severity       Severity
	Classification CategoryID
	Products       []CategoryID
	Published      time.Time
	Superseded     bool // by another update that this host needs or has
}
