package rules

import (
	"errors"
	"fmt"
	"math"
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
