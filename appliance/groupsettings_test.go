package appliance_test

import (
	"errors"
	"maps"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// TestGroupSettings is requirement A11, later: options that a group sets hold
// for its members over what their own files say, and go with it.
func TestGroupSettings(t *testing.T) {
	s := start(t, nil)
	m := s.enrol(t, 1, s.enrolToken(t, 1))
	own := rules.DefaultSettings()
	own.InstallDelay, own.DefaultAllow = 3*24*time.Hour, true
	policy := func() rules.Settings {
		t.Helper()
		r, err := m.Checkin(t.Context(), agentproto.Checkin{Protocol: 1, Agent: "test", Facts: m.facts(), Settings: own})
		if err != nil || r.Policy == nil {
			t.Fatal(err)
		}
		return r.Policy.Settings
	}
	put := func(name string, settings map[string]string) {
		t.Helper()
		e := appliance.GroupEdit{Settings: settings}
		if name != "all" {
			e.Members = []agentproto.HostID{m.id}
		}
		if _, err := s.PutGroup(t.Context(), owner, name, e); err != nil {
			t.Fatal(err)
		}
	}
	if p := policy(); p.InstallDelay != own.InstallDelay || !p.DefaultAllow || p.InstallAtShutdown {
		t.Errorf("without groups the policy is %+v", p)
	}
	put("all", map[string]string{"install_at_shutdown": "yes", "install_delay": "7d"})
	put("brest", map[string]string{"install_delay": "1d", "default_allow": "False", "allowed_severities": ""})
	if p := policy(); p.InstallDelay != 24*time.Hour || p.DefaultAllow || !p.InstallAtShutdown {
		t.Errorf("with groups the policy is %+v", p)
	}
	d, err := s.Host(t.Context(), m.id)
	if err != nil {
		t.Fatal(err)
	}
	shows(t, d.Settings, map[string][2]string{
		"install_delay": {"1d", "group brest"}, "install_at_shutdown": {"True", "group all"},
		"default_allow": {"False", "group brest"}, "direct_download": {"False", "default"},
	})
	for key, bad := range map[string]string{"install_delay": "soon", "dance": "True", "enabled": "perhaps"} {
		_, err := s.PutGroup(t.Context(), owner, "brest", appliance.GroupEdit{Settings: map[string]string{key: bad}})
		if p, ok := errors.AsType[*appliance.Problem](err); !ok || p.Field != "settings."+key {
			t.Errorf("%s = %s: %v", key, bad, err)
		}
	}
	if err := s.DeleteGroup(t.Context(), owner, "brest"); err != nil {
		t.Fatal(err)
	}
	if p := policy(); p.InstallDelay != 7*24*time.Hour || !p.DefaultAllow {
		t.Errorf("without the group the policy is %+v", p)
	}
}

// shows compares effective settings with values and sources by name.
func shows(t testing.TB, list []appliance.EffectiveSetting, want map[string][2]string) {
	t.Helper()
	is := map[string][2]string{}
	for _, e := range list {
		if _, asked := want[e.Name]; asked {
			is[e.Name] = [2]string{e.Value, e.Source}
		}
	}
	if !maps.Equal(is, want) {
		t.Errorf("the host's settings are %v, want %v", is, want)
	}
}
