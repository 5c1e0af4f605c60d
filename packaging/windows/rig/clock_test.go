package rig_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// clock gives the prefix a clock of its own, right at first. What it returns
// sets by how much it is wrong; whatever runs sees that at once.
func (p *prefix) clock() (wrong func(by time.Duration)) {
	p.t.Helper()
	dir := p.t.TempDir()
	lib, file := filepath.Join(dir, "clock.so"), filepath.Join(dir, "clock")
	if err := output(exec.Command("gcc", "-O2", "-s", "-Wall", "-Werror", "-shared", "-fPIC", "-o", lib, "clock/clock.c")); err != nil {
		p.t.Fatal(err)
	}
	wrong = func(by time.Duration) {
		p.t.Helper()
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o600)
		if err == nil {
			err = binary.Write(f, binary.NativeEndian, int64(by/time.Second))
		}
		if err != nil {
			p.t.Fatal(err)
		}
		f.Close()
	}
	wrong(0)
	endWine(p.dir) // what runs has the clock of this machine
	p.more = append(p.more, "LD_PRELOAD="+lib, "RIG_CLOCK="+file)
	return wrong
}

// scans is a scan that says something. Right after the clock jumped, OpenService
// and StartService were each seen once to say ERROR_INVALID_HANDLE of a handle
// that Wine had just given, on a busy machine: such a scan is asked again, once.
func (p *prefix) scans(want string) {
	p.t.Helper()
	out, err := p.agent("scan")
	if err != nil && strings.Contains(out, "Service: 0x80070006") {
		p.t.Log("asked again after", out)
		out, err = p.agent("scan")
	}
	if err != nil || !strings.Contains(out, want) {
		p.t.Fatalf("wuamesh-agent scan: %v\n%s\nwant %q", err, out, want)
	}
}

// TestClock has the host's clock wrong by years: it is not let in, or stays away,
// and says why; when the clock is right it is in, works as before, and the node
// shows what had been wrong. One that is wrong by hours stays, and both say so.
func TestClock(t *testing.T) {
	const year = 365 * 24 * time.Hour
	p := newAgent(t)
	wrong := p.clock()
	b := newBranch(t)
	u := b.world.Updates()[:1]
	id := rules.UpdateID(u[0].ID)
	p.knows(catalog(u, nil))
	p.appends("ProgramData/wuamesh/wapt-get.ini", "[waptwua]\nenabled = True\ndefault_allow = True\n")
	enroll := []string{"enroll", "--server", b.url, "--token", b.command("token", "enroll")}
	step(t, "not let in with a clock 20 years behind", func() {
		wrong(-20 * year)
		said := fmt.Sprintf("the clock of this host says %d ", time.Now().Add(-20*year).Day())
		if out, err := p.agent(enroll...); err == nil || !strings.Contains(out, said) || !strings.Contains(out, "set the clock right") {
			t.Errorf("%v, %s\nwant %q", err, out, said)
		}
		if h, err := b.host(); err == nil {
			t.Errorf("the node has %+v", h)
		}
	})
	step(t, "let in with the clock set right", func() {
		wrong(0)
		p.agentSays("Enrolled as", enroll...)
		p.console()
		b.awaits(rules.Pending, "", id)
	})
	b.until("the host online", b.online(true))
	for way, by := range map[string]time.Duration{"ahead of": 3 * time.Hour, "behind": -3 * time.Hour} {
		step(t, "a clock three hours "+way, func() {
			wrong(by) // TLS is content with it
			p.scans("needed")
			p.scans("needed") // the first found it, this one tells it for sure
			if c := b.detail().Clock; c == nil || c.Behind != (by < 0) || c.Amount() != "3 hours" {
				t.Errorf("the node has %+v", c)
			}
			if out, err := p.agent("status"); err != nil || !strings.Contains(out, "3 hours "+way+" that of the node ") || !strings.Contains(out, "w32tm /resync") {
				t.Errorf("%v\n%s", err, out)
			}
		})
		step(t, "that clock right again", func() {
			wrong(0)
			p.scans("needed")
			p.scans("needed")
			if c := b.detail().Clock; c != nil {
				t.Errorf("the node has %+v", c)
			}
		})
	}
	for _, by := range []time.Duration{30 * year, -20 * year} {
		step(t, fmt.Sprintf("a clock wrong by %d years", by/year), func() {
			b.kill() // what is connected stays so: certificates are looked at once
			wrong(by)
			b.start()
			b.until("the host says so", func() error {
				if out, err := p.agent("status"); err != nil || !strings.Contains(out, "the clock of this host says") {
					return fmt.Errorf("%v\n%s", err, out)
				}
				return nil
			})
			if err := b.online(false)(); err != nil {
				t.Error(err)
			}
			p.scans("needed") // Windows scans by any clock
		})
		step(t, "the clock right again", func() {
			wrong(0)
			p.scans("needed")
			b.until("the host online", b.online(true))
			b.until("what was wrong, on the node", func() error {
				e := b.detail().Errors
				for _, f := range e {
					if f.Meaning != nil && f.Meaning.Code == "0x80072F8F" && f.Meaning.Remedy == "Set the clock of the host." && strings.Contains(f.Text, "the clock of this host says") {
						return nil
					}
				}
				return fmt.Errorf("%+v", e)
			})
			if c := b.order(agentproto.ActionScan); c.State != string(agentproto.CommandDone) {
				t.Errorf("the order ended %+v", c)
			}
			b.awaits(rules.Pending, "", id)
			if got := b.detail().Scanned; time.Since(got).Abs() > time.Hour {
				t.Errorf("the node says that the last scan was %s", got)
			}
		})
	}
}

// online says whether the node shows the host so.
func (b *branch) online(want bool) func() error {
	return func() error {
		h, err := b.host()
		if err == nil && h.Online != want {
			err = fmt.Errorf("online %v", h.Online)
		}
		return err
	}
}
