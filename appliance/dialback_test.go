package appliance_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"wuamesh/appliance"
)

// TestDialBack has nodes find out from others whether they can be called:
// a member, one behind a firewall, and a machine that wants to join.
func TestDialBack(t *testing.T) {
	t.Parallel()
	a, b := bareNode(t, "rns-01"), bareNode(t, "lor-01")
	hidden, line := behind(t, "brs-01")
	hidden.joinTo(t, a)
	eventually(t, "brs-01 is called", func() error {
		if c := dialledBack(t, hidden); c.Result != appliance.CheckOK || c.Text != "rns-01 can call this node at "+line.addr()+"." {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	line.cut(true)
	eventually(t, "brs-01 is connected though nobody can call it", func() error {
		if c := dialledBack(t, hidden); c.Result != appliance.CheckWarning || !strings.HasPrefix(c.Text, "rns-01 cannot call this node. "+line.addr()+": ") || !strings.Contains(c.Hint, "advertise") {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})

	token := a.joinToken(t)
	if c := found(t, b.CheckJoin(t.Context(), token), "called by other nodes"); c.Result != appliance.CheckOK || c.Text != "rns-01 can call this node at "+strings.TrimPrefix(b.URL(), "https://")+"." {
		t.Errorf("a machine with a token: %+v", c)
	}
	// What answers at its address is another node.
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(a.URL(), "https://"))
	c := startIn(t, t.TempDir(), nil, "http://127.0.0.1:1", func(c *appliance.Config) {
		c.Name, c.Internet, c.Advertise = "vns-01", false, []string{"10.0.0.9:" + port}
	})
	if c := found(t, c.CheckJoin(t.Context(), token), "called by other nodes"); c.Result != appliance.CheckWarning || !strings.Contains(c.Text, "127.0.0.1:"+port) {
		t.Errorf("another node in its place: %+v", c)
	}
	// The mesh that the token names has to know it.
	stranger := bareNode(t, "nte-01")
	other, err := appliance.TokenAt(stranger.joinToken(t), strings.TrimPrefix(a.URL(), "https://"))
	must(t, err)
	if c := found(t, b.CheckJoin(t.Context(), other), "called by other nodes"); c.Result != appliance.CheckSkipped || !strings.Contains(c.Text, "not of the mesh") {
		t.Errorf("with the token of another mesh: %+v", c)
	}
}

func dialledBack(t *testing.T, s *site) appliance.Check {
	t.Helper()
	list, err := s.Check(t.Context(), nil)
	must(t, err)
	return found(t, list, "called by other nodes")
}
