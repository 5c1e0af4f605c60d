package appliance_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// TestGroupVersions goes back, undoes, brings back a deleted group with what
// it was given, and refuses an edit of what somebody changed meanwhile.
func TestGroupVersions(t *testing.T) {
	s := start(t, nil)
	m := s.enrol(t, 1, s.enrolToken(t, 1))
	if _, err := m.Checkin(t.Context(), agentproto.Checkin{Protocol: 1, Agent: "test", Facts: m.facts(), Settings: rules.DefaultSettings()}); err != nil {
		t.Fatal(err)
	}
	put := func(e appliance.GroupEdit) {
		t.Helper()
		must(t, second(s.PutGroup(t.Context(), owner, "brest", e)))
	}
	put(appliance.GroupEdit{
		Description: "The branch", Accepts: []rules.Maturity{rules.Dev}, Members: []agentproto.HostID{m.id}, Settings: options{"install_delay": "5d"},
		Condition: &appliance.Condition{OS: []string{"Windows 11*"}},
	})
	first, err := s.Group(t.Context(), "brest")
	must(t, err)
	put(appliance.GroupEdit{Description: "The other branch", Condition: &appliance.Condition{OS: []string{"Windows 10*"}}, Seen: first.Version})
	mine := first.Edit()
	mine.Description = "Mine"
	if p := problemOf(t, second(s.PutGroup(t.Context(), paul, "brest", mine))); p.Kind != appliance.Conflict || !strings.Contains(p.Msg, "edited brest meanwhile, on ") {
		t.Errorf("an edit of an old version: %+v", p)
	}
	list, err := s.GroupVersions(t.Context(), "brest")
	must(t, err)
	if len(list) != 2 || !list[0].Current || list[1].Action != "make group" {
		t.Fatalf("its versions are %+v", list)
	}
	for _, want := range []string{"accepts DEV", "condition os Windows 11*", "host " + m.facts().Name, "install_delay = 5d"} {
		if !slices.Contains(list[0].Removed, want) || !slices.Contains(list[1].Added, want) {
			t.Errorf("no %q in %+v", want, list)
		}
	}
	same := func(what string) {
		t.Helper()
		g, err := s.Group(t.Context(), "brest")
		g.Edited, g.EditedBy, g.Version = first.Edited, first.EditedBy, first.Version
		if err != nil || !reflect.DeepEqual(g, first) {
			t.Errorf("%s it is %+v, it was %+v: %v", what, g, first, err)
		}
	}
	must(t, s.UndoGroup(t.Context(), owner, "brest", list[0].ID))
	same("undone")
	if p := problemOf(t, s.UndoGroup(t.Context(), owner, "brest", list[0].ID)); !strings.Contains(p.Msg, "Nothing was undone") {
		t.Error(p)
	}

	// Deleted and brought back it has what it was given, but not what it was
	// given to a package that was deleted too.
	must(t, second(s.PutPackage(t.Context(), owner, "baseline", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"brest"}})))
	must(t, second(s.PutPackage(t.Context(), owner, "old", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"brest"}})))
	s.putProfile(t, "night", appliance.ProfileEdit{Groups: []string{"brest"}, Options: options{"install_delay": "1w"}})
	i, err := s.PreviewDeleteGroup(t.Context(), "brest")
	if err != nil || i.Settings == nil || i.Settings.Hosts != 1 {
		t.Errorf("deleting it is previewed as %+v, %v", i, err)
	}
	must(t, s.DeleteGroup(t.Context(), owner, "brest"))
	must(t, s.DeletePackage(t.Context(), owner, "old"))
	gone, err := s.DeletedGroups(t.Context())
	if err != nil || len(gone) != 1 || gone[0].Name != "brest" {
		t.Fatalf("deleted are %+v, %v", gone, err)
	}
	was, err := s.GroupVersion(t.Context(), "brest", gone[0].Last)
	if err != nil || !was.Exists || !slices.Equal(was.Packages, []string{"baseline"}) || !slices.Equal(was.Profiles, []string{"night"}) || !slices.Equal(was.Gone, []string{"rule package old"}) {
		t.Errorf("what it was is %+v, %v", was, err)
	}
	must(t, s.RestoreGroup(t.Context(), owner, "brest", gone[0].Last))
	first.Packages, first.Profiles = []string{"baseline"}, []string{"night"}
	same("brought back")

	// What was given to it since is no part of its own history.
	must(t, second(s.PutPackage(t.Context(), owner, "baseline", appliance.PackageEdit{Maturity: rules.Prod})))
	first.Packages = []string{}
	put(appliance.GroupEdit{})
	list, err = s.GroupVersions(t.Context(), "brest")
	must(t, err)
	must(t, s.UndoGroup(t.Context(), owner, "brest", list[0].ID))
	same("undone, without the package that was taken from it")
	if p := problemOf(t, second(s.GroupVersion(t.Context(), "brest", "nothing"))); p.Kind != appliance.NotFound || !strings.Contains(p.Msg, `Group brest has no version "nothing"`) {
		t.Error(p)
	}
	if p := problemOf(t, s.DeleteGroup(t.Context(), owner, "nobody")); p.Kind != appliance.NotFound {
		t.Error(p)
	}
	if p := problemOf(t, second(s.PreviewDeleteGroup(t.Context(), "all"))); p.Kind != appliance.Conflict {
		t.Error(p)
	}
}

// TestTheGroupOfEveryHost has versions, and was there before the first.
func TestTheGroupOfEveryHost(t *testing.T) {
	s := bareNode(t, "rns-01")
	must(t, second(s.PutGroup(t.Context(), owner, "all", appliance.GroupEdit{Description: "Every host.", Settings: options{"install_delay": "7d"}})))
	list, err := s.GroupVersions(t.Context(), "all")
	if err != nil || len(list) != 2 || list[1].ID != "before" {
		t.Fatalf("its versions are %+v, %v", list, err)
	}
	must(t, s.UndoGroup(t.Context(), owner, "all", list[0].ID))
	if g, err := s.Group(t.Context(), "all"); err != nil || len(g.Settings) != 0 || g.Description != "Every host." {
		t.Errorf("undone it is %+v, %v", g, err)
	}
}

// TestGroupsOfACut edits a group on both sides of a cut: both edits are
// versions on both nodes afterwards, and add up.
func TestGroupsOfACut(t *testing.T) {
	t.Parallel()
	a, b, heal := apart(t, appliance.PackageEdit{Maturity: rules.Prod})
	condition := func(names ...string) appliance.GroupEdit {
		return appliance.GroupEdit{Description: "Both", Condition: &appliance.Condition{Name: names}}
	}
	must(t, second(a.PutGroup(t.Context(), owner, "brest", condition("A-*", "C-*"))))
	must(t, second(b.PutGroup(t.Context(), paul, "brest", condition("B-*", "C-*"))))
	heal()
	for _, s := range []*site{a, b} {
		eventually(t, s.NodeName()+" has both", func() error {
			list, err := s.GroupVersions(t.Context(), "brest")
			if err != nil || len(list) != 2 {
				return fmt.Errorf("%d versions, %v", len(list), err)
			}
			d, err := s.GroupVersion(t.Context(), "brest", list[0].ID)
			if err != nil || d.Edit.Condition.String() != "name A-*, B-*, C-*" {
				return fmt.Errorf("the last is %+v, %v", d.Edit.Condition, err)
			}
			return nil
		})
	}
}

// TestWhatWasDeletedIsInTheAuditLog deletes what an admin can make: the log has
// what it was.
func TestWhatWasDeletedIsInTheAuditLog(t *testing.T) {
	s := start(t, nil)
	m := s.enrol(t, 1, s.enrolToken(t, 1))
	must(t, second(s.PutGroup(t.Context(), owner, "brest", appliance.GroupEdit{Members: []agentproto.HostID{m.id}, Settings: map[string]string{"install_delay": "5d"}})))
	must(t, second(s.PutPackage(t.Context(), owner, "old", appliance.PackageEdit{Maturity: rules.Preprod, Groups: []string{"brest"}, Lines: []rules.Line{{Verb: rules.Forbid, Kind: rules.ByKB, Value: "5091157"}}})))
	must(t, s.PutAdmin(t.Context(), owner, "yann", appliance.Operator, "correct horse battery"))
	must(t, s.DeletePackage(t.Context(), owner, "old"))
	must(t, s.DeleteGroup(t.Context(), owner, "brest"))
	must(t, s.DeleteAdmin(t.Context(), owner, "yann"))
	for object, want := range map[string][]string{
		"admin yann": {"operator"}, "group brest": {"install_delay = 5d, 1 host given one by one"}, "package old": {"PREPROD, group brest, forbid KB5091157"},
	} {
		log, _, err := s.Audit(t.Context(), object, appliance.Page{})
		must(t, err)
		i := slices.IndexFunc(log, func(e appliance.AuditEntry) bool { return strings.HasPrefix(e.Action, "delete") })
		if i < 0 {
			t.Errorf("%s: nothing says that it was deleted", object)
			continue
		}
		for _, w := range want {
			if !strings.Contains(log[i].Before, w) {
				t.Errorf("%s of %s: it had %q, without %q", log[i].Action, object, log[i].Before, w)
			}
		}
	}
}
