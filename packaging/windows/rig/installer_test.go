package rig_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// installer builds the agent's MSI of a version onto drive C.
func (p *prefix) installer(name, version string) {
	p.t.Helper()
	cmd := exec.Command("go", "run", "./packaging/windows/msi", "-version", version, "-out", p.c(name))
	cmd.Dir = "../../.."
	if err := output(cmd); err != nil {
		p.t.Fatal(err)
	}
}

// control builds what sends controls to services, and returns its path there.
func (p *prefix) control() string {
	p.t.Helper()
	if err := output(exec.Command("x86_64-w64-mingw32-gcc", "-std=gnu11", "-O2", "-s", "-Wall", "-Werror", "-municode", "-o", p.c("control.exe"), "control/control.c", "-ladvapi32")); err != nil {
		p.t.Fatal(err)
	}
	return `C:\control.exe`
}

// TestInstaller is the agent's life as its MSI: installed with properties,
// installing updates while the host shuts down, upgraded, removed.
func TestInstaller(t *testing.T) {
	p := newWindows(t)
	step(t, "two installers built", func() {
		p.installer("agent.msi", "0.1.0")
		p.installer("newer.msi", "0.2.0")
	})
	b := newBranch(t)
	u := b.world.Updates()[:4]
	ids := make([]rules.UpdateID, len(u))
	for i := range u {
		ids[i] = rules.UpdateID(u[i].ID)
	}
	p.knows(catalog(u, nil))
	forbid := func(list ...rules.UpdateID) {
		lines := []rules.Line{}
		for _, id := range list {
			lines = append(lines, rules.Line{Verb: rules.Forbid, Kind: rules.ByUpdateID, Value: string(id)})
		}
		b.call("PUT", "rules/branch", map[string]any{"maturity": "PROD", "groups": []string{"all"}, "hosts": []string{}, "lines": lines}, nil)
	}
	forbid(ids[2], ids[3])
	ini := func() string {
		text, err := os.ReadFile(p.c("ProgramData/wuamesh/wapt-get.ini"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}

	step(t, "installed by its MSI; enrolled, scanned, reported by itself", func() {
		p.wineSays("", "msiexec", "/i", `C:\agent.msi`, "/qn", "/l*v", `C:\msi.log`, "SERVER="+b.url, "TOKEN="+b.command("token", "enroll"),
			"ENABLED=True", "DEFAULT_ALLOW=True", "INSTALL_AT_SHUTDOWN=True")
		b.awaits(rules.Discarded, rules.ReasonForbidden, ids[2], ids[3])
		if got := ini(); !strings.Contains(got, "install_at_shutdown = True") || !strings.Contains(got, "nodes = "+b.url) || strings.Contains(got, "direct_download") {
			t.Errorf("the properties became\n%s", got)
		}
		// Windows has it in the menu of all users, Wine in that of one.
		if out, err := p.says(p.wine("reg", "query", `HKLM\System\CurrentControlSet\Services\wuamesh-agent`, "/v", "ImagePath")); err != nil || !strings.Contains(out, `"C:\Program Files\wuamesh\wuamesh-agent.exe" run`) {
			t.Errorf("the service is started as %s, %v", out, err)
		}
		if links, _ := filepath.Glob(p.c("users/*/AppData/Roaming/Microsoft/Windows/Start Menu/Programs/Update and shut down.lnk")); len(links) != 1 {
			t.Error("there is no entry in the Start menu")
		}
	})
	b.call("POST", "index/missing", nil, nil)
	step(t, "files on the host", func() { b.awaits(rules.Pending, rules.ReasonOnHost, ids[0], ids[1]) })
	step(t, "installed while the host shuts down", func() {
		control := p.control()
		p.wineSays("", control, "wuamesh-agent", "200")
		p.wineSays("", control, "wuamesh-agent", "stopped")
		p.wineSays("", "net", "start", "wuamesh-agent")
		b.awaits(rules.OK, "", ids[0], ids[1])
		b.awaits(rules.Discarded, "", ids[2], ids[3])
	})
	script := func() string {
		text, err := os.ReadFile(p.c("windows/system32/GroupPolicy/Machine/Scripts/scripts.ini"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(text), "\x00", "") // UTF-16
	}
	step(t, "the exit window, which Windows runs at shutdown, has the service install", func() {
		if got := script(); !strings.Contains(got, `0CmdLine=C:\Program Files\wuamesh\wuamesh-agent.exe`+"\r\n0Parameters=exit-window\r\n") {
			t.Errorf("the local group policy has\n%s", got)
		}
		forbid(ids[3])
		b.call("POST", "index/missing", nil, nil)
		b.order(agentproto.ActionDownload)
		b.awaits(rules.Pending, rules.ReasonOnHost, ids[2])
		p.wineSays("", `C:\Program Files\wuamesh\wuamesh-agent.exe`, "exit-window", "--countdown", "1s")
		b.awaits(rules.OK, "", ids[2])
	})
	before, err := b.host()
	if err != nil {
		t.Fatal(err)
	}
	was := ini()
	step(t, "upgraded; settings and identity are kept", func() {
		p.wineSays("", "msiexec", "/i", `C:\newer.msi`, "/qn")
		b.until("the new version on the node", func() error {
			h, err := b.host()
			if err == nil && (h.Agent != "0.2.0" || h.ID != before.ID) {
				err = fmt.Errorf("it shows %s of version %s", h.ID, h.Agent)
			}
			return err
		})
		if got := ini(); got != was {
			t.Errorf("wapt-get.ini was\n%s\nand is\n%s", was, got)
		}
	})
	step(t, "the three orders reach the new one", func() {
		for _, action := range []agentproto.Action{agentproto.ActionScan, agentproto.ActionDownload, agentproto.ActionInstall} {
			if c := b.order(action); c.State != string(agentproto.CommandDone) {
				t.Errorf("the order to %s ended %+v", action, c)
			}
		}
	})
	step(t, "removed; Windows given back", func() {
		p.wineSays("", "msiexec", "/x", `C:\newer.msi`, "/qn")
		if _, err := os.Stat(p.c("Program Files/wuamesh/wuamesh-agent.exe")); err == nil {
			t.Error("the program is still there")
		}
		if got := script(); strings.Contains(got, "wuamesh") {
			t.Errorf("the local group policy still has\n%s", got)
		}
		if got := p.serviceStart(); got != "0x3" {
			t.Errorf("wuauserv starts as %s", got)
		}
	})
}
