package agent

import (
	"context"
	"fmt"
	"maps"

	"wuamesh/agentproto/rules"
)

// A pushed option is one that the mesh set in wapt-get.ini, and what the file
// said before. Values are as [rules.Settings.Options] spells them; empty is
// the default.
type pushed struct {
	Value string `json:"value"`
	Was   string `json:"was"`
}

// ownLocked are the settings that the host's own file says, without what the
// mesh wrote into it: from these the node makes the policy, and what is pushed
// must not come back as the host's own wish. An option that somebody edited
// since is the host's again. The lock must be held.
func (a *Agent) ownLocked() rules.Settings {
	own := a.conf.Settings
	for _, o := range own.Options() {
		if p, ok := a.st.Pushed[o.Key]; ok && p.Value == o.Value {
			own = with(own, o.Key, p.Was)
		}
	}
	return own
}

// with is s with one option as it is spelled in the file; empty is the default.
func with(s rules.Settings, key, value string) rules.Settings {
	if value != "" {
		if s.Set(key, value) == nil {
			return s
		}
	}
	def := rules.DefaultSettings()
	switch key {
	case "enabled":
		s.Enabled = nil
	case "allowed_severities":
		s.AllowedSeverities = nil
	case "filter":
		s.Filter = ""
	case "download_scheduling":
		s.DownloadScheduling = def.DownloadScheduling
	case "install_scheduling":
		s.InstallScheduling = 0
	case "install_delay":
		s.InstallDelay = 0
	default:
		s.Set(key, rules.Bool(false)) // the others are on or off
	}
	return s
}

// pushSettings writes the settings of the policy into section [waptwua] of
// wapt-get.ini, for whoever looks there, WAPT included. The agent itself works
// by the policy and does not wait for the file. What the mesh does not say any
// more is put back to what it was.
func (a *Agent) pushSettings(ctx context.Context) {
	a.readINI() // somebody may be editing it
	a.mu.Lock()
	if a.st.Policy == nil {
		a.mu.Unlock()
		return
	}
	own, file := a.ownLocked(), options(a.conf.Settings)
	was, set := options(own), map[string]string{}
	next := map[string]pushed{}
	for key, want := range options(a.st.Policy.Settings) {
		if want != was[key] {
			next[key] = pushed{Value: want, Was: was[key]}
		}
		if file[key] != want {
			set[key] = spelled(key, want)
		}
	}
	same := maps.Equal(next, a.st.Pushed)
	a.mu.Unlock()
	if len(set) == 0 && same {
		return
	}
	// What the file says now is on disk before the file: an agent that stops
	// in between finds values that differ from both, and takes them for own.
	if err := a.change(func(s *state) { s.Pushed = next }); err != nil {
		a.log.WarnContext(ctx, "settings of the mesh", "err", err)
		return
	}
	if len(set) == 0 {
		return
	}
	_, err := WriteINI(a.ini, "waptwua", set)
	if err != nil {
		err = fmt.Errorf("settings of the mesh in wapt-get.ini: %w", err)
		a.log.WarnContext(ctx, "settings of the mesh", "err", err)
	}
	a.warn("settings", err)
	a.readINI()
}

func options(s rules.Settings) map[string]string {
	m := map[string]string{}
	for _, o := range s.Options() {
		m[o.Key] = o.Value
	}
	return m
}

// spelled is a value for the file: a truth value is written out, so that
// [DEFAULT] or another spelling does not say otherwise.
func spelled(key, value string) string {
	if value != "" {
		return value
	}
	switch key {
	case "default_allow", "direct_download", "install_at_shutdown", "waptexit_disable_skip_windows_updates", "include_potentially_superseded_updates":
		return rules.Bool(false)
	}
	return "" // the key goes
}
