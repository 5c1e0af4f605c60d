package appliance_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// TestVersions edits a package again and again, deletes it, and goes back to
// every version: the package is then what it was.
func TestVersions(t *testing.T) {
	t.Parallel()
	s := bareNode(t, "rns-01")
	was := map[string]appliance.PackageEdit{}
	latest := func() appliance.PackageVersion {
		t.Helper()
		list, err := s.Versions(t.Context(), "baseline")
		must(t, err)
		if len(list) == 0 {
			t.Fatal("no version is kept")
		}
		return list[0]
	}
	keep := func() string {
		t.Helper()
		d, err := s.Package(t.Context(), "baseline")
		must(t, err)
		was[latest().ID] = d.Edit()
		return latest().ID
	}
	put := func(e appliance.PackageEdit) {
		t.Helper()
		_, err := s.PutPackage(t.Context(), owner, "baseline", e)
		must(t, err)
		keep()
	}
	put(appliance.PackageEdit{Maturity: rules.Dev, Groups: []string{"all"}, Lines: []rules.Line{kbLine(rules.Allow, "5000001")}})
	must(t, s.AddLines(t.Context(), owner, "baseline", []rules.Line{kbLine(rules.Forbid, "5000001"), kbLine(rules.Allow, "5000002")}))
	v := latest()
	if v.By != owner.Name || v.Node != "rns-01" || !slices.Equal(v.Added, []string{"forbid KB5000001", "allow KB5000002"}) || !slices.Equal(v.Removed, []string{"allow KB5000001"}) || !v.Current {
		t.Errorf("the version is %+v", v)
	}
	keep()
	put(appliance.PackageEdit{Maturity: rules.Prod, Description: "all of it", Lines: []rules.Line{kbLine(rules.Allow, "5000003")}})
	must(t, s.RemoveLines(t.Context(), owner, "baseline", []rules.Line{kbLine(rules.Allow, "5000003")}))
	keep()
	must(t, s.RemoveLines(t.Context(), owner, "baseline", []rules.Line{kbLine(rules.Allow, "5000003")})) // changes nothing
	must(t, s.DeletePackage(t.Context(), owner, "baseline"))
	if list, err := s.Versions(t.Context(), "baseline"); err != nil || len(list) != 5 {
		t.Fatalf("%d versions, %v", len(list), err)
	}
	gone := latest()
	if p := problem(s.Restore(t.Context(), owner, "baseline", gone.ID)); p == nil || p.Kind != appliance.Conflict {
		t.Errorf("back to where it was deleted: %v", p)
	}
	if list, err := s.Deleted(t.Context()); err != nil || len(list) != 1 || list[0].Name != "baseline" || was[list[0].Last].Maturity != rules.Prod {
		t.Errorf("deleted are %+v, %v", list, err)
	}
	for id, want := range was {
		if _, err := s.PreviewVersion(t.Context(), "baseline", id); err != nil {
			t.Error(err)
		}
		must(t, s.Restore(t.Context(), paul, "baseline", id))
		d, err := s.Package(t.Context(), "baseline")
		must(t, err)
		if got := fmt.Sprintf("%+v", d.Edit()); got != fmt.Sprintf("%+v", want) {
			t.Errorf("back at %s it is\n%s, want\n%+v", id, got, want)
		}
	}
	if v := latest(); !strings.HasPrefix(v.Action, "go back to the version of ") || v.By != "paul" {
		t.Errorf("going back is %+v", v)
	}
	if list, err := s.Deleted(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("deleted are %+v, %v", list, err)
	}
	if p := problem(s.Restore(t.Context(), owner, "baseline", "nonsense")); p == nil || p.Kind != appliance.NotFound {
		t.Errorf("no such version: %v", p)
	}
}

// TestVersionsOfACut edits a package on both sides of a cut: both edits are
// versions on both nodes afterwards, and the one before is what it was.
func TestVersionsOfACut(t *testing.T) {
	t.Parallel()
	a, b, heal := apart(t, appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{kbLine(rules.Allow, "5000001")}})
	must(t, a.AddLines(t.Context(), owner, "baseline", []rules.Line{kbLine(rules.Allow, "5000002"), kbLine(rules.Allow, "5000009")}))
	must(t, b.AddLines(t.Context(), paul, "baseline", []rules.Line{kbLine(rules.Allow, "5000003"), kbLine(rules.Allow, "5000009")}))
	heal()
	for _, s := range []*site{a, b} {
		eventually(t, s.NodeName()+" has both", func() error {
			list, err := s.Versions(t.Context(), "baseline")
			if err != nil || len(list) != 3 {
				return fmt.Errorf("%d versions, %v", len(list), err)
			}
			for i, want := range []int{4, 3, 1} { // the second side's line that both added was there by then
				d, err := s.Version(t.Context(), "baseline", list[i].ID)
				if err != nil || len(d.Edit.Lines) != want {
					return fmt.Errorf("version %d has %+v, %v", i, d.Edit.Lines, err)
				}
			}
			return nil
		})
	}
}
