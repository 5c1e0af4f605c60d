package packaging_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// suite is the Debian that is booted.
const suite = "bookworm"

// A box is a booted Debian with systemd in a container, with a network of its
// own that has nobody else in it. What is written goes to memory and is gone
// with it.
type box struct {
	t      *testing.T
	leader int    // pid of its init
	share  string // a directory here, /mnt there
}

// baseSystem is a fresh Debian, made once and kept in the user's cache.
func baseSystem(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "wuamesh", suite+"-1") // raise it when the packages change
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	t.Logf("making %s, once", dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	tmp := fmt.Sprintf("%s.%d", dir, os.Getpid())
	cmd := exec.Command("debootstrap", "--variant=minbase",
		"--include=systemd,systemd-sysv,dbus,ca-certificates,curl,iproute2,procps,kmod,login", suite, tmp)
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(tmp)
		t.Fatalf("debootstrap: %v\n%s", err, out[max(0, len(out)-2000):])
	}
	for _, list := range []string{"var/lib/apt/lists", "var/cache/apt/archives"} { // 100 MB that nobody reads
		if err := os.RemoveAll(filepath.Join(tmp, list)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(tmp, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// boot starts a fresh Debian and waits until it is up.
func boot(t *testing.T) *box {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("a container with systemd needs root: sudo -E ./packaging/check")
	}
	b := &box{t: t, share: t.TempDir()}
	console, err := os.Create(filepath.Join(b.share, "console.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	cmd := exec.Command("systemd-nspawn", "--quiet", "--boot", "--private-network", "--register=no", "--keep-unit", "--volatile=overlay",
		"--directory="+baseSystem(t), "--machine=branch", "--bind="+b.share+":/mnt", "--console=pipe")
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // a killed test leaves no system running
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM) // it shuts the system down
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			cmd.Process.Kill()
			<-ended
		}
		os.RemoveAll("/run/systemd/nspawn/propagate/branch") // left behind when nobody keeps a register
	})
	for range 600 {
		// Its init is nspawn's child in the end; while it is set up there are others.
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		if list := strings.Fields(string(children)); len(list) == 1 {
			b.leader, _ = strconv.Atoi(list[0])
			if out, _ := b.try("systemctl is-system-running"); strings.HasPrefix(out, "running") || strings.HasPrefix(out, "degraded") {
				return b
			}
		}
		select {
		case err := <-ended:
			log, _ := os.ReadFile(console.Name())
			ended <- err
			t.Fatalf("the container ended: %v\n%s", err, log)
		case <-time.After(100 * time.Millisecond):
		}
	}
	log, _ := os.ReadFile(console.Name())
	t.Fatalf("the container did not boot within a minute\n%s", log)
	return nil
}

// command is a shell line inside, as root.
func (b *box) command(ctx context.Context, script string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(b.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
		"--wdns=/", "--", "env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		"sh", "-c", "cd /; "+script)
}

// try runs a shell line and returns what it printed, on both channels.
func (b *box) try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := b.command(ctx, script).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// sh is try for lines that must succeed.
func (b *box) sh(script string) string {
	b.t.Helper()
	out, err := b.try(script)
	if err != nil {
		journal, _ := b.try("journalctl -u wuamesh -n 40 --no-pager")
		b.t.Fatalf("%s\n%v\n%s\nthe journal:\n%s", script, err, out, journal)
	}
	return out
}

// want fails the test unless a line succeeds and prints each of the texts.
func (b *box) want(script string, texts ...string) string {
	b.t.Helper()
	out := b.sh(script)
	for _, text := range texts {
		if !strings.Contains(out, text) {
			b.t.Errorf("%s\nprinted\n%s\nwant %q", script, out, text)
		}
	}
	return out
}

// refuses is want for lines that must fail.
func (b *box) refuses(script string, texts ...string) {
	b.t.Helper()
	out, err := b.try(script)
	if err == nil {
		b.t.Errorf("%s\nsucceeded:\n%s", script, out)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			b.t.Errorf("%s\nprinted\n%s\nwant %q", script, out, text)
		}
	}
}

// until waits until a line prints a text, half a minute at most.
func (b *box) until(script, text string) {
	b.t.Helper()
	var out string
	for range 60 {
		if out, _ = b.try(script); strings.Contains(out, text) {
			return
		}
		<-time.After(500 * time.Millisecond)
	}
	journal, _ := b.try("journalctl -u wuamesh -n 40 --no-pager")
	b.t.Fatalf("%s\nprints\n%s\nafter half a minute; want %q\nthe journal:\n%s", script, out, text, journal)
}

// play starts one of the players of TestMain; end ends it and returns what it
// printed.
func (b *box) play(name string, env ...string) (end func() string) {
	b.t.Helper()
	var out bytes.Buffer
	cmd := b.command(context.Background(), "echo $$ > /run/player-"+name+"; exec env WUAMESH_PLAY="+name+" "+strings.Join(env, " ")+" /mnt/player")
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, 5*time.Second
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		cmd.Wait()
		close(done)
	}()
	end = func() string {
		if b.t.Failed() {
			b.t.Logf("%s said\n%s", name, out.String())
		}
		b.try("kill $(cat /run/player-" + name + ")") // nsenter hands no signal on
		select {
		case <-done:
		case <-time.After(40 * time.Second):
			cmd.Process.Kill()
			<-done
		}
		return out.String()
	}
	b.t.Cleanup(func() { end() })
	return end
}
