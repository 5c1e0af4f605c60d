package rules

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An Option is one key of section [waptwua] as wapt-get.ini spells it.
type Option struct {
	Key   string
	Value string // empty when the default holds: the file need not say it
}

// Options are the settings as section [waptwua], every key, in the order in
// which WAPT's documentation has them. [ParsePeriod] and the agent read what
// stands there.
func (s Settings) Options() []Option {
	var severities []string
	for _, v := range s.AllowedSeverities {
		severities = append(severities, string(v))
	}
	enabled := ""
	if s.Enabled != nil {
		enabled = Bool(*s.Enabled)
	}
	scan := FormatPeriod(s.DownloadScheduling)
	if s.DownloadScheduling == DefaultSettings().DownloadScheduling {
		scan = ""
	}
	return []Option{
		{"enabled", enabled},
		{"default_allow", ifTrue(s.DefaultAllow)},
		{"allowed_severities", strings.Join(severities, ",")},
		{"direct_download", ifTrue(s.DirectDownload)},
		{"download_scheduling", scan},
		{"install_scheduling", unlessZero(s.InstallScheduling)},
		{"install_at_shutdown", ifTrue(s.InstallAtShutdown)},
		{"install_delay", unlessZero(s.InstallDelay)},
		{"waptexit_disable_skip_windows_updates", ifTrue(s.DisableSkip)},
		{"include_potentially_superseded_updates", ifTrue(s.IncludeSuperseded)},
		{"filter", s.Filter},
	}
}

// Set changes one option to what a value in wapt-get.ini says. A value that is
// not understood changes nothing.
func (s *Settings) Set(key, value string) error {
	set, ok := map[string]func() error{
		"enabled":                                func() error { return into(ParseBool, value, func(b bool) { s.Enabled = &b }) },
		"default_allow":                          func() error { return into(ParseBool, value, func(b bool) { s.DefaultAllow = b }) },
		"allowed_severities":                     func() error { return into(parseSeverities, value, func(l []Severity) { s.AllowedSeverities = l }) },
		"direct_download":                        func() error { return into(ParseBool, value, func(b bool) { s.DirectDownload = b }) },
		"download_scheduling":                    func() error { return into(ParsePeriod, value, func(d time.Duration) { s.DownloadScheduling = d }) },
		"install_scheduling":                     func() error { return into(ParsePeriod, value, func(d time.Duration) { s.InstallScheduling = d }) },
		"install_at_shutdown":                    func() error { return into(ParseBool, value, func(b bool) { s.InstallAtShutdown = b }) },
		"install_delay":                          func() error { return into(ParsePeriod, value, func(d time.Duration) { s.InstallDelay = d }) },
		"waptexit_disable_skip_windows_updates":  func() error { return into(ParseBool, value, func(b bool) { s.DisableSkip = b }) },
		"include_potentially_superseded_updates": func() error { return into(ParseBool, value, func(b bool) { s.IncludeSuperseded = b }) },
		"filter":                                 func() error { return into(parseFilter, value, func(f string) { s.Filter = f }) },
	}[key]
	if !ok {
		return fmt.Errorf("there is no option %q in [waptwua]", clip(key))
	}
	return set()
}

// ParseOption reads one option as people type it and returns how wapt-get.ini
// spells it: True, 7d, Critical,Important. No severity at all and no filter
// are values, too: empty ones.
func ParseOption(key, value string) (string, error) {
	var s Settings
	if err := s.Set(key, value); err != nil {
		return "", err
	}
	slices.SortFunc(s.AllowedSeverities, func(x, y Severity) int {
		return slices.Index(Severities[:], x) - slices.Index(Severities[:], y)
	})
	for _, o := range s.Options() {
		if o.Key == key && o.Value != "" {
			return o.Value, nil
		}
	}
	switch key { // what Options leaves out, because it need not be said
	case "allowed_severities", "filter":
		return "", nil
	case "download_scheduling":
		return FormatPeriod(s.DownloadScheduling), nil
	case "install_scheduling", "install_delay":
		return FormatPeriod(0), nil
	}
	return Bool(false), nil
}

func into[T any](read func(string) (T, error), value string, set func(T)) error {
	v, err := read(value)
	if err == nil {
		set(v)
	}
	return err
}

// ParseBool reads a truth value as Python's ConfigParser does.
func ParseBool(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "1", "yes", "true", "on":
		return true, nil
	case "0", "no", "false", "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither True nor False", clip(v))
}

// parseSeverities reads a comma list; one bad word spoils it.
func parseSeverities(v string) (list []Severity, err error) {
	for word := range strings.SplitSeq(v, ",") {
		word = strings.TrimSpace(word)
		if word == "" {
			continue
		}
		s, err := ParseSeverity(word)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list, nil
}

func parseFilter(v string) (string, error) {
	if v = strings.Join(strings.Fields(v), " "); len(v) > 1000 {
		return "", fmt.Errorf("%d characters, at most 1000", len(v))
	}
	return v, nil
}

// INI is section [waptwua] with what is not the default.
func (s Settings) INI() string {
	var b strings.Builder
	b.WriteString("[waptwua]\n")
	for _, o := range s.Options() {
		if o.Value != "" {
			fmt.Fprintf(&b, "%s = %s\n", o.Key, o.Value)
		}
	}
	return b.String()
}

// Bool spells a truth value as WAPT does.
func Bool(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

func ifTrue(b bool) string {
	if b {
		return Bool(true)
	}
	return ""
}

func unlessZero(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return FormatPeriod(d)
}

// FormatPeriod writes a length of time as wapt-get.ini does: 7d, 12h, 30m.
func FormatPeriod(d time.Duration) string {
	switch {
	case d%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	default:
		return fmt.Sprintf("%ds", d/time.Second)
	}
}

var errPeriod = errors.New("want a number and one of s, m, h, d, w, such as 12h; a number alone is days")

// ParsePeriod reads a length of time as WAPT's get_time_delta does: a decimal
// number and a lower-case unit. In [waptwua] a number alone is days.
func ParsePeriod(v string) (time.Duration, error) {
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	if v == "" {
		return 0, fmt.Errorf("%q: %w", v, errPeriod)
	}
	number, unit := v, 24*time.Hour
	if u, ok := units[v[len(v)-1]]; ok {
		number, unit = strings.TrimSpace(v[:len(v)-1]), u
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || strings.ContainsAny(number, "xXpP_nN") {
		return 0, fmt.Errorf("%q: %w", clip(v), errPeriod)
	}
	d := n * float64(unit)
	if n < 0 || d > float64(maxDuration) || math.IsNaN(d) {
		return 0, fmt.Errorf("%q is not between 0 and ten years", clip(v))
	}
	return time.Duration(d), nil
}
