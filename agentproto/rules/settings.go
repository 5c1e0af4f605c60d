package rules

import (
	"fmt"
	"slices"
	"time"
)

// Settings are the options of section [waptwua] of wapt-get.ini, with WAPT's
// names and meanings. The zero value is WAPT's default except for the
// schedules; use [DefaultSettings].
type Settings struct {
	// Enabled takes Windows Update over (true), gives it back (false), or
	// leaves it as it is (nil).
	Enabled *bool `json:"enabled,omitempty"`
	// DirectDownload fetches files from Microsoft instead of the node.
	DirectDownload bool `json:"direct_download,omitempty"`
	// DefaultAllow allows updates that no rule mentions.
	DefaultAllow bool `json:"default_allow,omitempty"`
	// DownloadScheduling is the time between scans; never negative.
	DownloadScheduling time.Duration `json:"download_scheduling,omitempty"`
	// InstallScheduling is the time between installs; zero means no schedule.
	InstallScheduling time.Duration `json:"install_scheduling,omitempty"`
	// InstallAtShutdown installs while the host shuts down.
	InstallAtShutdown bool `json:"install_at_shutdown,omitempty"`
	// InstallDelay holds an update back for this long after publication.
	InstallDelay time.Duration `json:"install_delay,omitempty"`
	// AllowedSeverities are allowed without a rule.
	AllowedSeverities []Severity `json:"allowed_severities,omitempty"`
	// DisableSkip takes "skip" from the exit window
	// (waptexit_disable_skip_windows_updates).
	DisableSkip bool `json:"waptexit_disable_skip_windows_updates,omitempty"`
	// IncludeSuperseded also lists updates that a newer one replaces
	// (include_potentially_superseded_updates).
	IncludeSuperseded bool `json:"include_potentially_superseded_updates,omitempty"`
	// Filter replaces the search criteria of the scan; empty for ours.
	Filter string `json:"filter,omitempty"`
}

// DefaultSettings are what holds where neither the host's wapt-get.ini nor a
// profile says otherwise: a scan a day, nothing installed by schedule.
func DefaultSettings() Settings {
	return Settings{DownloadScheduling: 24 * time.Hour}
}

// maxDuration bounds every duration of the settings.
const maxDuration = 10 * 365 * 24 * time.Hour

// Validate says which setting is out of bounds.
func (s Settings) Validate() error {
	for name, d := range map[string]time.Duration{
		"download_scheduling": s.DownloadScheduling, "install_scheduling": s.InstallScheduling, "install_delay": s.InstallDelay,
	} {
		if d < 0 || d > maxDuration {
			return fmt.Errorf("%s: %s is not between 0 and ten years", name, d)
		}
	}
	for _, v := range s.AllowedSeverities {
		if !slices.Contains(Severities[:], v) {
			return fmt.Errorf("allowed_severities: %q is no severity", clip(string(v)))
		}
	}
	if len(s.AllowedSeverities) > len(Severities) {
		return fmt.Errorf("allowed_severities: %d severities, there are %d", len(s.AllowedSeverities), len(Severities))
	}
	if len(s.Filter) > 1000 {
		return fmt.Errorf("filter: %d characters, at most 1000", len(s.Filter))
	}
	return nil
}
