package appliance_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"wuamesh/appliance"
)

// problems are what a node's page says of a node.
func (s *site) problems(t testing.TB, nodeID string) string {
	t.Helper()
	rows, err := s.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r.ID == nodeID {
			return strings.Join(r.Problems, "\n")
		}
	}
	t.Fatalf("node %s is not shown", nodeID)
	return ""
}

// TestCertificateEnded has a node away until its certificate has ended. Both
// ends say so, nothing is let in, and with a token it comes back as the node
// that it was, with what was written on it meanwhile.
func TestCertificateEnded(t *testing.T) {
	a, b := bareNode(t, "rns-01"), bareNode(t, "brs-01")
	b.joinTo(t, a)
	edit(t, a, "before")
	b.sees(t, "before")
	id, ended := b.NodeID(), time.Now().Add(-30*time.Minute) // the mesh is an hour old
	if err := b.CertifyUntil(t.Context(), a.Appliance, ended); err != nil {
		t.Fatal(err)
	}
	b.stop()
	b = startIn(t, b.dir, b.world, "http://127.0.0.1:1", func(c *appliance.Config) { c.Name, c.Internet = "brs-01", false })
	edit(t, b, "meanwhile")
	day := ended.UTC().Format("2 Jan 2006")
	for _, s := range []*site{a, b} {
		eventually(t, s.NodeName()+" says that the certificate ended", func() error {
			if got := s.problems(t, id); !strings.Contains(got, "certificate ended on "+day) || !strings.Contains(got, "wuamesh join TOKEN") {
				return fmt.Errorf("it says %q", got)
			}
			return nil
		})
	}
	if _, err := a.Package(t.Context(), "meanwhile"); err == nil {
		t.Fatal("it was let in with a certificate that had ended")
	}
	if err := b.Join(t.Context(), owner, appliance.JoinOptions{Token: a.joinToken(t)}); err != nil {
		t.Fatal(err)
	}
	a.sees(t, "meanwhile")
	if rows, err := a.Nodes(t.Context()); err != nil || len(rows) != 2 || b.NodeID() != id {
		t.Errorf("the mesh has the nodes %+v (%v); it was %s", rows, err, id)
	}
	if p := problemOf(t, b.Join(t.Context(), owner, appliance.JoinOptions{Token: a.joinToken(t)})); p.Code != "WM-611" {
		t.Errorf("joining once more: %v", p)
	}
}
