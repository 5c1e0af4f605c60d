package agent_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestOnlyTheseNodes has a rule without fallback: no other node is asked, also
// none of wapt-get.ini, until the chosen one has been silent for a day. Then
// the host asks those whether the rule still holds.
func TestOnlyTheseNodes(t *testing.T) {
	m := newMesh(t)
	home, far := m.node(t, "brs-01"), m.node(t, "rns-01")
	far.look(func() { far.nodes, far.only = []string{home.URL}, true })
	home.look(func() { home.nodes, home.only = []string{home.URL}, true })
	h := newHost(t, iniFor(m, far), nil).start()
	home.until("its stream at the chosen node", func() bool { return len(home.listeners) == 1 })
	if got := h.Status().Nodes; !slices.Equal(got, []string{home.URL}) {
		t.Errorf("it asks %v, want only %s", got, home.URL)
	}
	h.stop()
	asked := 0
	far.look(func() { asked = len(far.checkins) })
	home.stop()
	h.start()
	if got := h.Status().Nodes; !slices.Equal(got, []string{home.URL}) {
		t.Errorf("after a start it asks %v, want only %s", got, home.URL)
	}
	h.stop()
	far.look(func() {
		if len(far.checkins) != asked {
			t.Error("it asked another node")
		}
		far.nodes, far.only = []string{far.URL}, false
	})
	path := filepath.Join(h.o.Dir, "state.json")
	var state map[string]any
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &state)
	}
	if err != nil {
		t.Fatal(err)
	}
	state["checked"] = time.Now().Add(-25 * time.Hour)
	if b, err = json.Marshal(state); err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.start()
	far.until("a check-in after a day", func() bool { return len(far.checkins) > asked })
}
