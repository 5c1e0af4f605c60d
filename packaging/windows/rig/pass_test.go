package rig_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance/microsoft/microsofttest"
)

// catalog describes what Microsoft publishes as the double reads it. As of
// most updates of Windows, the files are those of a bundled one.
func catalog(list []microsofttest.Update, more map[string]string) string {
	var b strings.Builder
	for i, u := range list {
		fmt.Fprintf(&b, "update %s %d\n%stitle %s\nkb %s\nseverity %s\nchanged %s\nreboot 0\n", strings.ToUpper(u.ID), u.Revision, more[u.ID], u.Title, u.KB, u.Severity, u.Published.Format("2006-01-02T15:04:05"))
		fmt.Fprintf(&b, "category UpdateClassification %s %s\n", u.Classification.ID, u.Classification.Title)
		for _, p := range u.Products {
			fmt.Fprintf(&b, "category Product %s %s\n", p.ID, p.Title)
		}
		fmt.Fprintf(&b, "bundled 10000000-0000-4000-8000-%012d %d\n", i, u.Revision)
		for _, f := range u.Files {
			fmt.Fprintf(&b, "file %s %d %s\n", f.URL, f.Size, f.SHA1)
		}
	}
	return b.String()
}

// knows writes what the host needs, and starts its Windows afresh.
func (p *prefix) knows(text string) {
	p.t.Helper()
	if err := os.MkdirAll(p.c("wuadouble"), 0o755); err != nil {
		p.t.Fatal(err)
	}
	os.Remove(p.c("wuadouble/state.txt"))
	if err := os.WriteFile(p.c("wuadouble/catalog.txt"), []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// agent types a command of the agent's on the host.
func (p *prefix) agent(args ...string) (string, error) {
	return p.says(p.wine(append([]string{`C:\wuamesh-agent.exe`}, args...)...))
}

func (p *prefix) agentSays(want string, args ...string) {
	p.t.Helper()
	if out, err := p.agent(args...); err != nil || !strings.Contains(out, want) {
		p.t.Fatalf("wuamesh-agent %s: %v\n%s\nwant %q", strings.Join(args, " "), err, out, want)
	}
}

// serviceStart is how Windows would start the Windows Update service: 3 on
// demand, 4 not at all.
func (p *prefix) serviceStart() string {
	p.t.Helper()
	out, err := p.says(p.wine("reg", "query", `HKLM\System\CurrentControlSet\Services\wuauserv`, "/v", "Start"))
	if err != nil {
		p.t.Fatalf("%v\n%s", err, out)
	}
	fields := strings.Fields(out)
	return fields[len(fields)-1]
}

func (p *prefix) calls() string {
	b, err := os.ReadFile(p.c("wuadouble/calls.log"))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// newWindows is a prefix with one server for all commands. The agent's log
// and what Windows was asked are shown when the test fails.
func newWindows(t *testing.T) *prefix {
	t.Helper()
	p := newPrefix(t)
	if err := p.env(p.command(wineserver, "-p")).Run(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(p.c("ProgramData/wuamesh/agent/agent.log"))
			calls, _ := os.ReadFile(p.c("wuadouble/calls.log"))
			t.Logf("the agent said\n%s\nWindows was asked\n%s", log, calls)
		}
	})
	return p
}

// newAgent builds the agent into a prefix.
func newAgent(t *testing.T) *prefix {
	t.Helper()
	p := newWindows(t)
	goBuild(t, "build", "-trimpath", "-ldflags", "-s -w -X main.Version=0.1.0", "-o", p.c("wuamesh-agent.exe"), "./agentproto/wuamesh-agent")
	if fi, err := os.Stat(p.c("wuamesh-agent.exe")); err != nil || fi.Size() > 12_000_000 {
		t.Errorf("the agent has %d bytes, %v; 12 MB at most", fi.Size(), err)
	}
	return p
}

// TestPass is a host's whole way, with the agent's own service under Wine and
// a node as it ships: enrol, scan, what is forbidden, what is allowed, install,
// restart, remove, give back.
func TestPass(t *testing.T) {
	p := newAgent(t)
	b := newBranch(t)
	u := b.world.Updates()
	if len(u) < 6 {
		t.Fatalf("%d updates", len(u))
	}
	u = u[:6]
	ids := make([]rules.UpdateID, len(u))
	for i := range u {
		ids[i] = rules.UpdateID(u[i].ID)
	}
	p.knows(catalog(u, map[string]string{u[1].ID: "reboot 1\n", u[4].ID: "installresult 0x80070643\n", u[5].ID: "installresult 0x8024200D\neula 0\n"}))
	line := func(verb rules.Verb, id rules.UpdateID) rules.Line {
		return rules.Line{Verb: verb, Kind: rules.ByUpdateID, Value: string(id)}
	}
	b.call("PUT", "rules/branch", map[string]any{
		"maturity": "PROD", "groups": []string{"all"}, "hosts": []string{},
		"lines": []rules.Line{line(rules.Allow, ids[0]), line(rules.Allow, ids[1]), line(rules.Forbid, ids[2]), line(rules.Allow, ids[4]), line(rules.Allow, ids[5])},
	}, nil)

	step(t, "agent installed and enrolled", func() {
		p.agentSays("installed and runs", "install", "--server", b.url, "--token", b.command("token", "enroll"))
		b.until("the host on the node", func() error { _, err := b.host(); return err })
	})
	step(t, "Windows taken over, scanned, reported", func() {
		if _, err := os.Stat(p.c("ProgramData/wuamesh/wapt-get.ini")); err != nil {
			t.Fatal(err)
		}
		p.appends("ProgramData/wuamesh/wapt-get.ini", "[waptwua]\nenabled = True\n")
		p.agentSays("Enrolled as", "enroll") // it reads wapt-get.ini again
		p.agentSays("Found 6 updates needed, 0 installed.", "scan")
		b.awaits(rules.Discarded, rules.ReasonForbidden, ids[2])
		b.awaits(rules.Discarded, rules.ReasonNoRule, ids[3])
		if got := p.serviceStart(); got != "0x4" {
			t.Errorf("after the scan wuauserv starts as %s", got)
		}
	})
	step(t, "files from Microsoft to the node, and to the host", func() {
		b.call("POST", "index/missing", nil, nil)
		b.awaits(rules.Pending, rules.ReasonOnHost, ids[0], ids[1], ids[4], ids[5])
	})
	step(t, "installed by an order from the node", func() {
		c := b.order(agentproto.ActionInstall)
		if c.State != string(agentproto.CommandDone) || !strings.Contains(c.Detail, "Installed 3 updates, 1 after a restart; 1 failed") {
			t.Errorf("the order ended %+v", c)
		}
		b.awaits(rules.OK, "", ids[0], ids[5])
		b.awaits(rules.Pending, rules.ReasonRestart, ids[1])
		b.awaits(rules.Pending, rules.ReasonInstallErr, ids[4])
		b.awaits(rules.Discarded, rules.ReasonForbidden, ids[2])
	})
	states, err := b.states()
	if err != nil || states[ids[4]].Error == nil || states[ids[4]].Error.Name != "ERROR_INSTALL_FAILURE" {
		t.Errorf("the node says of the failure %+v, %v", states[ids[4]], err)
	}
	calls := p.calls()
	for _, want := range []string{"Install " + strings.ToUpper(u[0].ID), "dism.exe /Online /Add-Package"} {
		if !strings.Contains(calls, want) {
			t.Errorf("Windows was never asked %q", want)
		}
	}
	for _, forbidden := range []string{u[2].ID, u[3].ID} {
		if strings.Contains(calls, "Install "+strings.ToUpper(forbidden)) {
			t.Errorf("%s was installed", forbidden)
		}
	}
	if left, _ := filepath.Glob(p.c("ProgramData/wuamesh/agent/files/*")); len(left) > 1 {
		t.Errorf("downloads are left: %v", left) // but that of the failure
	}
	p.agentSays("2 installed, 4 not", "status")

	step(t, "restarted, and in effect", func() {
		p.appends("wuadouble/state.txt", "rebooted\n")
		p.wineSays("", "net", "stop", "wuamesh-agent")
		p.wineSays("", "net", "start", "wuamesh-agent")
		p.agentSays("", "scan")
		b.awaits(rules.OK, "", ids[1])
	})
	step(t, "an option of a group reaches wapt-get.ini, and goes again", func() {
		says := func(want bool) {
			t.Helper()
			b.until("install_delay in wapt-get.ini", func() error {
				text, err := os.ReadFile(p.c("ProgramData/wuamesh/wapt-get.ini"))
				if err == nil && (strings.Contains(string(text), "install_delay = 1h") != want || !strings.Contains(string(text), "nodes = "+b.url)) {
					err = fmt.Errorf("it says\n%s", text)
				}
				return err
			})
		}
		b.call("PUT", "groups/all", map[string]any{"members": []string{}, "accepts": []string{}, "settings": map[string]string{"install_delay": "1h"}}, nil)
		says(true)
		b.call("PUT", "groups/all", map[string]any{"members": []string{}, "accepts": []string{}}, nil)
		says(false)
	})
	step(t, "a KB removed by hand", func() {
		p.agentSays("KB"+u[0].KB+" is removed.", "uninstall-kb", "KB"+u[0].KB)
		b.awaits(rules.Pending, "", ids[0])
	})
	step(t, "uninstalled, Windows given back", func() {
		p.agentSays("Windows Update is as it was before", "uninstall")
		if got := p.serviceStart(); got != "0x3" {
			t.Errorf("wuauserv starts as %s", got)
		}
		if out, err := p.says(p.wine("reg", "query", `HKLM\SOFTWARE\Policies\Microsoft\Windows\WindowsUpdate\AU`, "/v", "NoAutoUpdate")); err == nil {
			t.Errorf("a policy is left: %s", out)
		}
		if !strings.Contains(p.hiddenLast(strings.ToUpper(u[2].ID)), " 0") {
			t.Errorf("the forbidden update is still hidden: %s", p.hiddenLast(strings.ToUpper(u[2].ID)))
		}
	})
}

// hiddenLast is the last line of the state about an update being hidden.
func (p *prefix) hiddenLast(id string) (last string) {
	b, err := os.ReadFile(p.c("wuadouble/state.txt"))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "hidden "+id) {
			last = strings.TrimSpace(line)
		}
	}
	return last
}

// appends adds to a file on drive C.
func (p *prefix) appends(path, text string) {
	p.t.Helper()
	if err := os.MkdirAll(filepath.Dir(p.c(path)), 0o755); err != nil {
		p.t.Fatal(err)
	}
	f, err := os.OpenFile(p.c(path), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		f.Close()
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *prefix) wineSays(want string, args ...string) {
	p.t.Helper()
	if out, err := p.says(p.wine(args...)); err != nil || !strings.Contains(out, want) {
		p.t.Fatalf("%s: %v\n%s\nwant %q", strings.Join(args, " "), err, out, want)
	}
}
