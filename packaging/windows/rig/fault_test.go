package rig_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// console runs the agent without a service, so that it can be killed as a
// power cut does: Wine does not notice a service that died.
func (p *prefix) console() (kill func()) {
	p.t.Helper()
	log, err := os.OpenFile(p.c("console.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := p.wine(`C:\wuamesh-agent.exe`, "run", "--console")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := false
	kill = func() {
		if !ended {
			ended = true
			cmd.Process.Kill()
			cmd.Wait()
			log.Close()
		}
	}
	p.t.Cleanup(func() {
		kill()
		if p.t.Failed() {
			b, _ := os.ReadFile(p.c("console.log"))
			p.t.Logf("the agent said\n%s", b)
		}
	})
	return kill
}

// TestFaults has Windows fail in every way that the double can, and looks at
// what the node shows: the code, its meaning, and that it is over afterwards.
func TestFaults(t *testing.T) {
	p := newAgent(t)
	b := newBranch(t)
	u := b.world.Updates()[:4]
	ids := make([]rules.UpdateID, len(u))
	for i := range u {
		ids[i] = rules.UpdateID(u[i].ID)
	}
	more := map[string]string{u[0].ID: "eula 0\n"}
	p.knows(catalog(u, more))
	p.appends("ProgramData/wuamesh/wapt-get.ini", "[waptwua]\nenabled = True\ndefault_allow = True\n")
	p.agentSays("Enrolled as", "enroll", "--server", b.url, "--token", b.command("token", "enroll"))
	kill := p.console()
	b.until("the first report", func() error {
		states, err := b.states()
		if err == nil && len(states) != len(ids) {
			err = fmt.Errorf("%d updates", len(states))
		}
		return err
	})
	for _, f := range []struct {
		name, fault string
		code        uint32
	}{
		{"the Windows Update service is disabled", "fault AddScanPackageService 0x80070422 1\n", 0x80070422},
		{"a bad scan cab", "fault AddScanPackageService 0x80247001 1\n", 0x80247001},
		{"out of memory", "fault Search 0x8007000E 1\n", 0x8007000E},
		{"the scan went online", "fault Search 0x8024402C 1\n", 0x8024402C},
	} {
		step(t, f.name, func() {
			p.changes(f.fault + catalog(u, more))
			c := b.order(agentproto.ActionScan)
			m := agentproto.Explain(f.code)
			if c.State != string(agentproto.CommandFailed) || !strings.Contains(c.Detail, m.Code) || !strings.Contains(c.Detail, m.Cause) {
				t.Errorf("the order ended %+v", c)
			}
			b.until("the failure on the node", func() error {
				if s := b.detail().Scan; s == nil || s.HResult != f.code {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
			if got := p.serviceStart(); got != "0x4" {
				t.Errorf("wuauserv starts as %s after the failure", got)
			}
			if c := b.order(agentproto.ActionScan); c.State != string(agentproto.CommandDone) {
				t.Errorf("after it the order ended %+v", c)
			}
		})
	}

	step(t, "the node gone, and back", func() {
		b.call("POST", "index/missing", nil, nil)
		b.awaits(rules.Pending, "", ids...)
		b.kill()
		p.agentSays("needed", "scan")
		b.start()
		b.awaits(rules.Pending, rules.ReasonOnHost, ids...)
	})
	step(t, "a file altered on the host's disk", func() {
		path := p.c(filepath.Join("ProgramData/wuamesh/agent/files", u[1].Files[0].Name))
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		content[0] ^= 1
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		p.changes("fault Install 0x80070643 1\n" + catalog(u, more))
		c := b.order(agentproto.ActionInstall)
		if c.State != string(agentproto.CommandDone) || !strings.Contains(c.Detail, "Installed 2 updates; 2 failed") {
			t.Errorf("the order ended %+v", c)
		}
		b.until("the failures on the node", func() error {
			states, err := b.states()
			if err != nil {
				return err
			}
			if s := states[ids[1]]; s.Error == nil || s.Error.Name != "WU_E_DM_INCORRECTFILEHASH" {
				return fmt.Errorf("%s is %s, %s %s", u[1].Title, s.State, s.Why, s.HResult)
			}
			return nil
		})
	})
	step(t, "ordered again, with the file fetched again", func() {
		if c := b.order(agentproto.ActionInstall); c.State != string(agentproto.CommandDone) || !strings.Contains(c.Detail, "Installed 2 updates.") {
			t.Errorf("the order ended %+v", c)
		}
		b.awaits(rules.OK, "", ids...)
		// The order checked in first, and told what had gone wrong before it.
		b.until("all of it among the last errors", func() error {
			e := b.detail().Errors
			for _, code := range []uint32{0x80070422, 0x80247001, 0x8007000E, 0x8024402C, 0x80246002, 0x80070643} {
				if !slices.ContainsFunc(e, func(f agentproto.ExplainedFailure) bool {
					return f.HResult == code && f.Meaning != nil && f.Meaning.Cause != ""
				}) {
					return fmt.Errorf("0x%08X is not among %+v", code, e)
				}
			}
			return nil
		})
	})
	step(t, "killed in the middle of an install", func() {
		slow := b.world.Updates()[4]
		p.changes(catalog(append(u, slow), map[string]string{u[0].ID: "eula 0\n", slow.ID: "installms 8000\n"}))
		b.order(agentproto.ActionScan)
		b.call("POST", "index/missing", nil, nil)
		b.awaits(rules.Pending, rules.ReasonOnHost, rules.UpdateID(slow.ID))
		h, err := b.host()
		if err != nil {
			t.Fatal(err)
		}
		b.call("POST", "hosts/actions", map[string]any{"hosts": []agentproto.HostID{h.ID}, "action": "install"}, nil)
		b.until("the install has begun", func() error {
			if out, err := p.agent("status"); err != nil || !strings.Contains(out, "installing "+slow.Title) {
				return fmt.Errorf("%v\n%s", err, out)
			}
			return nil
		})
		kill()
		if got := p.serviceStart(); got != "0x3" {
			t.Errorf("in the middle wuauserv starts as %s", got)
		}
		p.console()
		b.until("the Windows Update service is disabled again", func() error {
			if got := p.serviceStart(); got != "0x4" {
				return fmt.Errorf("it starts as %s", got)
			}
			return nil
		})
		b.until("the order that was cut short", func() error {
			if c := b.detail().Commands[0]; c.State != string(agentproto.CommandFailed) || !strings.Contains(c.Detail, "stopped before it ended") {
				return fmt.Errorf("%+v", c)
			}
			return nil
		})
		if c := b.order(agentproto.ActionInstall); c.State != string(agentproto.CommandDone) {
			t.Errorf("ordered again it ended %+v", c)
		}
		b.awaits(rules.OK, "", rules.UpdateID(slow.ID))
	})
}

// changes rewrites what Windows knows; what was done to the host stays.
func (p *prefix) changes(text string) {
	p.t.Helper()
	tmp := p.c("wuadouble/catalog.new")
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(tmp, p.c("wuadouble/catalog.txt")); err != nil {
		p.t.Fatal(err)
	}
}
