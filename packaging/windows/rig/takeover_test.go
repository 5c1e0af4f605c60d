package rig_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/replicate/swarm"
)

// disk puts what the agent keeps on a disk of its own. What it returns changes
// the size, in bytes.
func (p *prefix) disk(size int64) (resize func(size int64)) {
	p.t.Helper()
	path := p.c("ProgramData/wuamesh")
	if err := os.MkdirAll(path, 0o755); err != nil {
		p.t.Fatal(err)
	}
	mount := func(flags uintptr, size int64) {
		p.t.Helper()
		if err := syscall.Mount("tmpfs", path, "tmpfs", flags, fmt.Sprintf("size=%d", size)); err != nil {
			p.t.Fatalf("a disk of %d bytes: %v", size, err)
		}
	}
	mount(0, size)
	p.t.Cleanup(func() { // Windows may have files there still
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			p.t.Error(err)
		}
	})
	return func(size int64) { mount(syscall.MS_REMOUNT, size) }
}

// TestTakeover has the host's disk full, and then the nearest node die in the
// middle of a download: the next node serves the rest, and shows it.
func TestTakeover(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a small disk")
	}
	p := newAgent(t)
	resize := p.disk(16 << 30) // of memory that nobody uses
	b := newBranch(t)
	u := b.world.Updates()[:1]
	id, file := rules.UpdateID(u[0].ID), u[0].Files[0]
	p.knows(catalog(u, nil))
	p.appends("ProgramData/wuamesh/wapt-get.ini", "[waptwua]\nenabled = True\ndefault_allow = True\n")
	var other *branch
	step(t, "a second node", func() { other = b.another("brs-01", "brest") })
	p.agentSays("Enrolled as", "enroll", "--server", b.url, "--token", b.command("token", "enroll"))
	p.console()
	step(t, "the first report", func() { b.awaits(rules.Pending, "", id) })
	b.call("PUT", "limits/rennes", appliance.Limits{Agents: swarm.Plan{Rate: 50_000}}, nil)

	step(t, "the disk full", func() {
		resize(32 << 20)
		b.call("POST", "index/missing", nil, nil)
		b.until("the warning on the node", func() error {
			if w := strings.Join(b.detail().Warnings, "\n"); !strings.Contains(w, "not enough free space on the disk") {
				return fmt.Errorf("it shows %q", w)
			}
			return nil
		})
		if c := b.order(agentproto.ActionDownload); c.State != string(agentproto.CommandFailed) || !strings.Contains(c.Detail, "not enough free space on the disk") {
			t.Errorf("the order ended %+v", c)
		}
		resize(16 << 30)
	})
	part := p.c(filepath.Join("ProgramData/wuamesh/agent/files", file.Name+".part"))
	var had int64
	step(t, "half of a file on the host, and its node killed", func() {
		h, err := b.host()
		if err != nil {
			t.Fatal(err)
		}
		b.call("POST", "hosts/actions", map[string]any{"hosts": []agentproto.HostID{h.ID}, "action": "download"}, nil)
		b.until("half of the file", func() error {
			fi, err := os.Stat(part)
			if err == nil && fi.Size() < file.Size/2 {
				err = fmt.Errorf("%d bytes of %d", fi.Size(), file.Size)
			}
			return err
		})
		b.kill()
		fi, err := os.Stat(part)
		if err != nil {
			t.Fatalf("the file was whole already: %v", err)
		}
		had = fi.Size()
	})
	step(t, "the rest from the second node", func() {
		other.awaits(rules.Pending, rules.ReasonOnHost, id)
		t.Logf("%d of %d bytes were from the first", had, file.Size)
		var st appliance.Status
		other.call("GET", "status", nil, &st)
		// What the first had sent may have come a moment after it was killed.
		if most := file.Size - had; st.ToAgents == 0 || st.ToAgents > most {
			t.Errorf("the second node sent %d bytes, %d at most were missing", st.ToAgents, most)
		}
		if w := other.detail().Warnings; len(w) > 0 {
			t.Errorf("it warns of %q", w)
		}
		if got := p.serviceStart(); got != "0x4" {
			t.Errorf("wuauserv starts as %s", got)
		}
	})
	step(t, "installed by an order of the second node", func() {
		if c := other.order(agentproto.ActionInstall); c.State != string(agentproto.CommandDone) || !strings.Contains(c.Detail, "Installed 1 update.") {
			t.Errorf("the order ended %+v", c)
		}
		other.awaits(rules.OK, "", id)
	})
}
