package appliance_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

type options = map[string]string

// putProfile stores a profile.
func (s *site) putProfile(t testing.TB, name string, e appliance.ProfileEdit) {
	t.Helper()
	_, err := s.PutProfile(t.Context(), owner, name, e)
	must(t, err)
}

// TestProfiles lays the settings of a host in every layer there is: its own
// file, the default of the mesh, profiles of its groups in their order, what a
// group sets itself, profiles of the host itself.
func TestProfiles(t *testing.T) {
	s := start(t, nil)
	m := s.enrol(t, 1, s.enrolToken(t, 1))
	own := rules.DefaultSettings()
	own.InstallDelay, own.DirectDownload = 3*24*time.Hour, true
	policy := func() rules.Settings {
		t.Helper()
		r, err := m.Checkin(t.Context(), agentproto.Checkin{Protocol: 1, Agent: "test", Facts: m.facts(), Settings: own})
		if err != nil || r.Policy == nil {
			t.Fatal(err)
		}
		return r.Policy.Settings
	}
	policy()
	for _, g := range []string{"brest", "pilots"} {
		_, err := s.PutGroup(t.Context(), owner, g, appliance.GroupEdit{Members: []agentproto.HostID{m.id}})
		must(t, err)
	}
	// Each profile says install_delay, so the strongest layer is seen at it; and
	// one thing that nobody else says.
	s.putProfile(t, "office", appliance.ProfileEdit{Groups: []string{"all"}, Options: options{"install_delay": "4d", "install_at_shutdown": "yes"}})
	s.putProfile(t, "night", appliance.ProfileEdit{Groups: []string{"brest"}, Options: options{"install_delay": "5d", "install_scheduling": "1w"}})
	s.putProfile(t, "fast", appliance.ProfileEdit{Groups: []string{"pilots"}, Options: options{"install_delay": "0", "default_allow": "1"}})
	detail := func() appliance.HostDetail {
		t.Helper()
		d, err := s.Host(t.Context(), m.id)
		must(t, err)
		return d
	}
	shows(t, detail().Settings, map[string][2]string{
		"install_delay": {"none", "profile fast"}, "install_at_shutdown": {"True", "profile office"}, "install_scheduling": {"7d", "profile night"},
		"default_allow": {"True", "profile fast"}, "direct_download": {"True", "wapt-get.ini"}, "download_scheduling": {"1d", "default"},
	})
	i := slices.IndexFunc(detail().Settings, func(e appliance.EffectiveSetting) bool { return e.Name == "install_delay" })
	if e := detail().Settings[i]; e.Via != "group pilots" || !reflect.DeepEqual(e.Over, []appliance.Overruled{
		{Value: "5d", Source: "profile night", Via: "group brest", Why: "it is later in the order of profiles"},
		{Value: "4d", Source: "profile office", Via: "every host", Why: "it is of a group, the other of every host"},
		{Value: "3d", Source: "wapt-get.ini", Why: "the mesh is laid over the host's own file"},
	}) {
		t.Errorf("of the delay the host's page says %+v", e)
	}
	if p := policy(); p.InstallDelay != 0 || !p.InstallAtShutdown || p.InstallScheduling != 7*24*time.Hour || !p.DefaultAllow || !p.DirectDownload {
		t.Errorf("the host is told %+v", p)
	}

	// Moved to the end, night wins; and the preview says so beforehand.
	p, err := s.Profile(t.Context(), "night")
	must(t, err)
	e := p.Edit()
	e.Order = 3
	preview, err := s.PreviewProfile(t.Context(), "night", e)
	must(t, err)
	want := "1 host gets other settings: install_delay none → 5d on 1."
	if got := preview.Settings.Summary(); got != want || len(preview.Settings.Clashes) != 2 || preview.Settings.Clashes[0].Loser != "profile fast" || preview.Settings.Clashes[0].Winner != "profile night" || preview.Settings.Clashes[1].Loser != "profile office" {
		t.Errorf("the preview says %q, %+v", got, preview.Settings.Clashes)
	}
	_, err = s.PutProfile(t.Context(), owner, "night", e)
	must(t, err)
	if list, err := s.Profiles(t.Context()); err != nil || list[0].Name != "office" || list[1].Name != "fast" || list[2].Name != "night" || list[2].Order != 3 || list[2].Reach != 1 {
		t.Errorf("the order is %+v, %v", list, err)
	}
	if p := policy(); p.InstallDelay != 5*24*time.Hour {
		t.Errorf("after the move the delay is %s", p.InstallDelay)
	}

	// What a group sets itself is laid over profiles of groups, what the host
	// gets itself over everything.
	_, err = s.PutGroup(t.Context(), owner, "brest", appliance.GroupEdit{Members: []agentproto.HostID{m.id}, Settings: options{"install_delay": "6d"}})
	must(t, err)
	if p := policy(); p.InstallDelay != 6*24*time.Hour {
		t.Errorf("with an option of the group the delay is %s", p.InstallDelay)
	}
	s.putProfile(t, "office", appliance.ProfileEdit{Groups: []string{"all"}, Hosts: []agentproto.HostID{m.id}, Options: options{"install_delay": "4d"}})
	shows(t, detail().Settings, map[string][2]string{"install_delay": {"4d", "profile office"}, "install_at_shutdown": {"False", "default"}})
	office, err := s.Profile(t.Context(), "office")
	must(t, err)
	if c := office.Clashes; len(c) != 3 || c[0].Winner != "profile office" || c[0].Why != "it is given to the host itself" || c[0].Hosts != 1 {
		t.Errorf("its page says that it disagrees so: %+v", c)
	}

	// A group that goes takes what it was given with it.
	must(t, s.DeleteGroup(t.Context(), owner, "pilots"))
	if p, err := s.Profile(t.Context(), "fast"); err != nil || len(p.Groups) != 0 || p.Reach != 0 {
		t.Errorf("after its group is deleted the profile is %+v, %v", p, err)
	}
	must(t, s.DeleteProfile(t.Context(), owner, "office"))
	shows(t, detail().Settings, map[string][2]string{"install_delay": {"6d", "group brest"}, "default_allow": {"False", "default"}})
	for field, e := range map[string]appliance.ProfileEdit{
		"options.install_delay": {Options: options{"install_delay": "soon"}}, "options.dance": {Options: options{"dance": "True"}}, "groups": {Groups: []string{"nobody"}},
		"hosts": {Hosts: []agentproto.HostID{"nobody"}}, "description": {Description: strings.Repeat("x", 501)}, "order": {Order: -1},
	} {
		if _, err := s.PutProfile(t.Context(), owner, "night", e); problemOf(t, err).Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := s.PutProfile(t.Context(), appliance.Actor{Name: "v", Role: appliance.Operator}, "night", appliance.ProfileEdit{}); problemOf(t, err).Kind != appliance.Denied {
		t.Errorf("an operator edits profiles: %v", err)
	}
}

// TestProfileVersions goes back, undoes, brings back what was deleted, and
// refuses an edit of what somebody changed meanwhile.
func TestProfileVersions(t *testing.T) {
	s := bareNode(t, "rns-01")
	s.putProfile(t, "night", appliance.ProfileEdit{Description: "First", Groups: []string{"all"}, Options: options{"install_delay": "5d", "filter": "a=b"}})
	seen, err := s.Profile(t.Context(), "night")
	must(t, err)
	s.putProfile(t, "night", appliance.ProfileEdit{Description: "Second", Options: options{"install_delay": "1w"}, Seen: seen.Version})
	mine := seen.Edit()
	mine.Options["default_allow"] = "True"
	if p := problemOf(t, second(s.PutProfile(t.Context(), paul, "night", mine))); p.Kind != appliance.Conflict || !strings.Contains(p.Msg, "maelle edited night meanwhile, on rns-01: nothing was saved.") {
		t.Errorf("an edit of an old version: %+v", p)
	}
	list, err := s.ProfileVersions(t.Context(), "night")
	must(t, err)
	if len(list) != 2 || !list[0].Current || !slices.Contains(list[0].Added, "install_delay = 7d") || !slices.Contains(list[0].Removed, "install_delay = 5d") || !slices.Contains(list[0].Removed, "group all") {
		t.Errorf("its versions are %+v", list)
	}
	must(t, s.UndoProfile(t.Context(), owner, "night", list[0].ID))
	same := func(what string) {
		t.Helper()
		if p, err := s.Profile(t.Context(), "night"); err != nil || p.Description != "First" || !reflect.DeepEqual(p.Options, seen.Options) || !reflect.DeepEqual(p.Groups, seen.Groups) {
			t.Errorf("%s it is %+v, %v", what, p, err)
		}
	}
	same("undone")
	if p := problemOf(t, s.UndoProfile(t.Context(), owner, "night", list[0].ID)); !strings.Contains(p.Msg, "Nothing was undone") {
		t.Error(p)
	}
	must(t, s.DeleteProfile(t.Context(), owner, "night"))
	gone, err := s.DeletedProfiles(t.Context())
	if err != nil || len(gone) != 1 || gone[0].Name != "night" {
		t.Fatalf("deleted are %+v, %v", gone, err)
	}
	i, err := s.PreviewProfileVersion(t.Context(), "night", gone[0].Last)
	if err != nil || i.Settings == nil {
		t.Errorf("bringing it back is previewed as %+v, %v", i, err)
	}
	must(t, s.RestoreProfile(t.Context(), owner, "night", gone[0].Last))
	same("brought back")
	log, _, err := s.Audit(t.Context(), "profile night", appliance.Page{})
	must(t, err)
	if len(log) != 5 || log[4].Action != "make settings profile" || !strings.Contains(log[4].After, "install_delay = 5d") || !strings.Contains(log[3].Before, "install_delay = 5d") || log[1].Action != "delete settings profile" {
		t.Errorf("the audit log has %+v", log)
	}
}

// TestAnOptionOfANewerNode stays in a profile that an older node edits, and
// changes nothing there.
func TestAnOptionOfANewerNode(t *testing.T) {
	s := bareNode(t, "rns-01")
	m := s.enrol(t, 1, s.enrolToken(t, 1))
	s.putProfile(t, "night", appliance.ProfileEdit{Groups: []string{"all"}, Options: options{"install_delay": "5d"}})
	must(t, s.PutOption(t.Context(), "night", "quiet_hours", "22-06"))
	p, err := s.Profile(t.Context(), "night")
	must(t, err)
	e := p.Edit()
	e.Options["install_delay"] = "6d"
	_, err = s.PutProfile(t.Context(), owner, "night", e)
	must(t, err)
	if p, err := s.Profile(t.Context(), "night"); err != nil || !reflect.DeepEqual(p.Options, options{"install_delay": "6d", "quiet_hours": "22-06"}) {
		t.Errorf("after the edit it sets %v, %v", p.Options, err)
	}
	d, err := s.Host(t.Context(), m.id)
	must(t, err)
	shows(t, d.Settings, map[string][2]string{"install_delay": {"6d", "profile night"}})
	e.Options["quiet_hours"] = "21-06"
	if _, err := s.PutProfile(t.Context(), owner, "night", e); problemOf(t, err).Field != "options.quiet_hours" {
		t.Errorf("an option that this node does not know is changed: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestProfilesAcrossACut has two admins edit profiles on two sides of a cut.
// Different options, groups and profiles all live; two values of one option
// end in one, the other is shown; what was deleted while somebody added to it is
// shown, too. Both nodes have one order.
func TestProfilesAcrossACut(t *testing.T) {
	a, wa := behind(t, "rns-01")
	b, wb := behind(t, "brs-01")
	b.joinTo(t, a)
	for _, g := range []string{"brest", "rennes"} {
		_, err := a.PutGroup(t.Context(), owner, g, appliance.GroupEdit{Description: "A branch."})
		must(t, err)
	}
	a.putProfile(t, "night", appliance.ProfileEdit{Options: options{"install_delay": "3d"}})
	a.putProfile(t, "old", appliance.ProfileEdit{Options: options{"install_delay": "9d"}})
	seen := func(s *site, name string) appliance.ProfileDetail {
		p, err := s.Profile(t.Context(), name)
		if err != nil {
			return appliance.ProfileDetail{}
		}
		return p
	}
	eventually(t, "both know them", func() error {
		if p := seen(b, "old"); p.Name == "" {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	wa.cut(true)
	wb.cut(true)

	edit := seen(a, "night").Edit()
	edit.Seen, edit.Groups = "", []string{"brest"}
	edit.Options = options{"install_delay": "7d", "default_allow": "False"}
	a.putProfile(t, "night", edit)
	a.putProfile(t, "of-a", appliance.ProfileEdit{Options: options{"direct_download": "True"}})
	must(t, a.DeleteProfile(t.Context(), owner, "old"))
	time.Sleep(5 * time.Millisecond) // who is later is known to the millisecond
	edit.Groups = []string{"rennes"}
	edit.Options = options{"install_delay": "1d", "install_at_shutdown": "True"}
	_, err := b.PutProfile(t.Context(), paul, "night", edit)
	must(t, err)
	_, err = b.PutProfile(t.Context(), paul, "of-b", appliance.ProfileEdit{Options: options{"direct_download": "False"}})
	must(t, err)
	_, err = b.PutProfile(t.Context(), paul, "old", appliance.ProfileEdit{Options: options{"install_delay": "9d", "enabled": "True"}})
	must(t, err)
	wa.cut(false)
	wb.cut(false)

	for _, s := range []*site{a, b} {
		eventually(t, s.NodeName()+" has both edits", func() error {
			p := seen(s, "night")
			want := options{"install_delay": "1d", "default_allow": "False", "install_at_shutdown": "True"}
			if !reflect.DeepEqual(p.Options, want) || !slices.Equal(p.Groups, []string{"brest", "rennes"}) {
				return fmt.Errorf("%+v", p)
			}
			if list := meetingsOf(t, s, "profile night"); len(list) != 1 || list[0].Won.Text != "install_delay = 1d" || list[0].Won.By != "paul" || list[0].Lost.Text != "install_delay = 7d" || list[0].Lost.Node != "rns-01" {
				return fmt.Errorf("of the delay: %+v", list)
			}
			if list := meetingsOf(t, s, "profile old"); len(list) != 1 || list[0].Won.Text != "deleted it" || list[0].Lost.Text != "enabled = True" {
				return fmt.Errorf("of the deleted one: %+v", list)
			}
			list, err := s.Profiles(t.Context())
			if err != nil || len(list) != 3 || list[0].Name != "night" || list[1].Name != "of-a" || list[2].Name != "of-b" {
				return fmt.Errorf("the order is %+v, %v", list, err)
			}
			return nil
		})
	}
	must(t, a.SettleMeeting(t.Context(), owner, meetingsOf(t, a, "profile night")[0].ID, true)) // seven days after all
	must(t, b.SettleMeeting(t.Context(), paul, meetingsOf(t, b, "profile old")[0].ID, true))    // and old is wanted
	for _, s := range []*site{a, b} {
		eventually(t, s.NodeName()+" has what was decided", func() error {
			if p, old := seen(s, "night"), seen(s, "old"); p.Options["install_delay"] != "7d" || !reflect.DeepEqual(old.Options, options{"enabled": "True"}) || len(meetingsOf(t, s, "")) > 0 {
				return fmt.Errorf("%+v, %+v, %+v", p, old, meetingsOf(t, s, ""))
			}
			return nil
		})
	}
	versions, err := b.ProfileVersions(t.Context(), "night")
	must(t, err)
	then, err := b.ProfileVersion(t.Context(), "night", versions[1].ID) // paul's edit, with what the other side had added by then
	must(t, err)
	if want := (options{"install_delay": "1d", "default_allow": "False", "install_at_shutdown": "True"}); len(versions) != 4 || versions[1].By != "paul" || !reflect.DeepEqual(then.Edit.Options, want) {
		t.Errorf("after paul's edit it was %+v, of %+v", then, versions)
	}
}
