package appliance_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/appliance"
)

// TestAgentInstaller: every node serves the agent's installer, on both of its
// listeners, and a node without one says so.
func TestAgentInstaller(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.msi")
	s := start(t, func(c *appliance.Config) { c.AgentMSI = path })
	plain := strings.TrimSuffix(s.FolderURL(), agentproto.PathFolder) + agentproto.PathInstaller
	if resp, body := get(t, "GET", plain); resp.StatusCode != 404 || !strings.Contains(string(body), "no installer") {
		t.Errorf("without one: %s %s", resp.Status, body)
	}
	if _, err := s.AgentInstaller(); err == nil {
		t.Error("there is none, and it is described")
	} else if p, ok := appliance.AsProblem(err); !ok || !strings.Contains(p.Hint, path) {
		t.Errorf("without one: %v", err)
	}
	want := []byte("an installer")
	if err := os.WriteFile(path, want, 0o644); err != nil {
		t.Fatal(err)
	}
	in, err := s.AgentInstaller()
	sum := sha256.Sum256(want)
	if err != nil || in.SHA256 != hex.EncodeToString(sum[:]) || in.Bytes != int64(len(want)) || in.URL != plain {
		t.Errorf("%+v, %v; want it at %s", in, err, plain)
	}
	for _, url := range []string{plain, s.URL() + agentproto.PathInstaller} {
		resp, body := get(t, "GET", url)
		if resp.StatusCode != 200 || string(body) != string(want) || resp.Header.Get("Content-Type") != "application/x-msi" || resp.Header.Get("ETag") != `"`+in.SHA256+`"` {
			t.Errorf("%s: %s %q %v", url, resp.Status, body, resp.Header)
		}
	}
}
