package ui_test

import (
	"crypto/sha256"
	"fmt"
	"html"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/rules"
)

var codeBlock = regexp.MustCompile(`(?s)<pre class="code" tabindex="0">(.*?)</pre>`)

// TestAgents is requirement A11: the page makes a token and writes commands
// and a wapt-get.ini in which the agent reads the options that were chosen.
func TestAgents(t *testing.T) {
	a := open(t)
	a.setUp()
	if status, page := a.get("/agents"); status != 200 || !strings.Contains(page, "This node has no installer of the agent") || strings.Contains(page, "msiexec") {
		t.Fatalf("a node without an installer shows %d\n%s", status, page)
	}
	if err := os.MkdirAll(filepath.Dir(a.msi), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.msi, []byte("an installer"), 0o644); err != nil {
		t.Fatal(err)
	}
	form := url.Values{
		"server": {"https://rns-01.example.com"}, "enabled": {"True"}, "severity": {"Critical", "Important"}, "default_allow": {"1"}, "install_at_shutdown": {"1"},
		"scan": {"12h"}, "install": {"7d"}, "delay": {"36h"}, "token": {"1"}, "hosts": {"20"}, "days": {"3"},
	}
	status, page := a.post("/agents", "/agents", form)
	blocks := codeBlock.FindAllStringSubmatch(page, -1)
	if status != 200 || len(blocks) != 4 {
		t.Fatalf("%d with %d recipes\n%s", status, len(blocks), page)
	}
	line, startup, intune, ini := html.UnescapeString(blocks[0][1]), html.UnescapeString(blocks[1][1]), html.UnescapeString(blocks[2][1]), html.UnescapeString(blocks[3][1])
	c := agent.ParseINI([]byte(ini))
	s := c.Settings
	if len(c.Warnings) > 0 || s.Enabled == nil || !*s.Enabled || !s.DefaultAllow || !s.InstallAtShutdown || s.DirectDownload || rules.FormatPeriod(s.InstallScheduling) != "7d" ||
		rules.FormatPeriod(s.InstallDelay) != "36h" || rules.FormatPeriod(s.DownloadScheduling) != "12h" || len(s.AllowedSeverities) != 2 || c.Nodes[0] != "https://rns-01.example.com" {
		t.Errorf("the agent reads in\n%s\n%+v", ini, c)
	}
	if _, err := agentproto.ParseEnrollToken(c.Token); err != nil {
		t.Errorf("token %q: %v", c.Token, err)
	}
	for _, want := range []string{"SERVER=https://rns-01.example.com", "TOKEN=" + c.Token, "ENABLED=True", "ALLOWED_SEVERITIES=Critical,Important", "INSTALL_DELAY=36h"} {
		if !strings.Contains(line, want) || !strings.Contains(startup, want) || !strings.Contains(intune, want) {
			t.Errorf("no %s in\n%s\n%s\n%s", want, line, startup, intune)
		}
	}
	if sum := sha256.Sum256([]byte("an installer")); !strings.Contains(line, fmt.Sprintf("Hash -ne '%X'", sum)) || !strings.Contains(line, agentproto.PathInstaller) {
		t.Errorf("the line is\n%s", line)
	}
	if list, err := a.node.Tokens(t.Context()); err != nil || len(list) != 1 || list[0].Left != 20 {
		t.Errorf("tokens: %+v, %v", list, err)
	}

	form.Del("token")
	form.Set("install", "soon")
	form.Set("server", "http://x'; Remove-Item C:\\")
	status, page = a.post("/agents", "/agents", form)
	if status != 422 || !strings.Contains(page, "A number and one of m, h, d, w") || !strings.Contains(page, "https:// and a name") || !strings.Contains(page, `value="soon"`) {
		t.Errorf("a wrong form: %d\n%s", status, page)
	}
	form.Set("install", "")
	form.Set("server", "https://10.1.2.3:8443, https://10.1.2.4")
	_, page = a.post("/agents", "/agents", form)
	if !strings.Contains(page, "CAHASH="+a.node.Pin()) || strings.Contains(page, "TOKEN=") {
		t.Errorf("without a token:\n%s", page)
	}
}
