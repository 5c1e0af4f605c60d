package appliance_test

import (
	"fmt"
	"testing"
)

// TestNeededFiles has one of two branches keep what its host needs: every node
// says which has the files, and which has not.
func TestNeededFiles(t *testing.T) {
	t.Parallel()
	_, list := branches(t, 100_000, "hq-01", "brs-01", "local-01")
	for i, s := range list {
		if c, err := s.NeededFiles(t.Context(), 0); err != nil || c.All != 0 || len(c.Files) != 0 || i > 0 && len(c.Nodes) < 2 {
			t.Errorf("before anything is needed %s says %+v, %v", s.NodeName(), c, err)
		}
	}
	names := list[1].wants(t, 2)
	for _, name := range names {
		list[1].has(t, name, status("done"))
	}
	for _, s := range list {
		eventually(t, s.NodeName()+" says which nodes have the files", func() error {
			c, err := s.NeededFiles(t.Context(), 1)
			if err != nil || c.All != 2 || len(c.Files) != 1 || len(c.Nodes) != 3 {
				return fmt.Errorf("%+v, %v", c, err)
			}
			for i, want := range []struct {
				name  string
				files int
			}{{"brs-01", 2}, {"hq-01", 2}, {"local-01", 0}} {
				n := c.Nodes[i]
				if n.Name != want.name || n.Files != want.files || c.Files[0].Has(n.ID) != (want.files > 0) || n.Self != (n.Name == s.NodeName()) {
					return fmt.Errorf("%+v of %+v", n, c.Files[0])
				}
			}
			if f := c.Files[0]; f.Hosts != 1 || f.Title == "" || f.Update == "" || f.Size == 0 {
				return fmt.Errorf("%+v", f)
			}
			return nil
		})
	}
	if c, err := start(t, nil).NeededFiles(t.Context(), 0); err != nil || len(c.Nodes) != 1 || !c.Nodes[0].Self || c.Nodes[0].Name != "rns-01" {
		t.Errorf("a node that stands alone says %+v, %v", c, err)
	}
}
