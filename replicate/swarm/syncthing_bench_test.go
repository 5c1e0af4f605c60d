package swarm_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// syncthingVersion is the newest that Go's module proxy has: it serves nothing
// of version 2.
const syncthingVersion = "v1.30.0"

// syncthingProgram builds Syncthing once and keeps it in the user's cache.
var syncthingProgram = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	src := filepath.Join(cache, "wuamesh", "syncthing-"+syncthingVersion)
	program := filepath.Join(src, "syncthing.exe")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	out, err := exec.Command("go", "mod", "download", "-json", "github.com/syncthing/syncthing@"+syncthingVersion).Output()
	var module struct{ Dir string }
	if err == nil {
		err = json.Unmarshal(out, &module)
	}
	if err != nil {
		return "", fmt.Errorf("download it: %w", err)
	}
	os.RemoveAll(src)
	if err := os.CopyFS(src, os.DirFS(module.Dir)); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-tags", "noassets,noupgrade", "-o", program, "./cmd/syncthing")
	build.Dir, build.Env = src, append(os.Environ(), "GOFLAGS=-mod=mod")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build it: %w\n%s", err, out)
	}
	return program, nil
})

// syncthingRun has five nodes share a folder by Syncthing, which is told the
// addresses and to ask nobody else. The clock starts when all of them run, the
// origin has looked through its files, and the branches are connected with each
// other: the origin, which holds them paused, is told to resume.
func syncthingRun(t testing.TB, r *relay, w work) (took time.Duration, sent float64) {
	program, err := syncthingProgram()
	if err != nil {
		t.Skipf("needs syncthing: %v", err)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Minute, errors.New("syncthing did not end in time"))
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	homes, ids := make([]string, len(r.places)), make([]string, len(r.places))
	for i := range r.places {
		homes[i] = filepath.Join(dir, strconv.Itoa(i))
		if out, err := exec.Command(program, "generate", "--home="+homes[i], "--no-default-folder").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		id, err := exec.Command(program, "--home="+homes[i], "--device-id").Output()
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = strings.TrimSpace(string(id))
	}
	for i, home := range homes {
		folder := filepath.Join(home, "files")
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		for k := 0; i == 0 && k < w.files; k++ {
			if err := writeFile(filepath.Join(folder, strconv.Itoa(k)), w.size, k); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(home, "config.xml"), syncthingConfig(r, ids, i, folder), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var running sync.WaitGroup
	defer running.Wait()
	defer fail(nil)
	start := func(i int) {
		cmd := r.places[i].command(ctx, program, "serve", "--home="+homes[i], "--no-browser", "--no-restart", "--logflags=0")
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		scanned := make(chan struct{})
		running.Go(func() {
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if strings.Contains(lines.Text(), "Completed initial scan") {
					close(scanned)
				}
			}
			fail(fmt.Errorf("syncthing %d ended: %w", i, cmd.Wait()))
		})
		select {
		case <-scanned:
		case <-ctx.Done():
			t.Fatal(context.Cause(ctx))
		}
	}
	for i := range r.places {
		start(i)
	}
	time.Sleep(2 * time.Second) // in which the branches connect
	before, began := r.places[0].out.Load(), time.Now()
	if out, err := r.places[0].command(ctx, "curl", "-fsS", "-X", "POST", "-H", "X-API-Key: benchmark", "http://127.0.0.1:8384/rest/system/resume").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var wg sync.WaitGroup
	for _, home := range homes[1:] {
		wg.Go(func() {
			for k := 0; k < w.files && ctx.Err() == nil; {
				if info, err := os.Stat(filepath.Join(home, "files", strconv.Itoa(k))); err == nil && info.Size() == int64(w.size) {
					k++
					continue
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		t.Fatal(context.Cause(ctx))
	}
	return time.Since(began), float64(r.places[0].out.Load() - before)
}

func syncthingConfig(r *relay, ids []string, self int, folder string) []byte {
	var devices, shared strings.Builder
	for i, id := range ids {
		fmt.Fprintf(&devices, `<device id="%s" compression="never"><paused>%t</paused><address>tcp://%s:22000</address></device>`, id, self == 0 && i > 0, r.places[i].addr)
		fmt.Fprintf(&shared, `<device id="%s"></device>`, id)
	}
	return fmt.Appendf(nil, `<configuration version="37">
<folder id="m" label="m" path="%s" type="sendreceive" rescanIntervalS="3600" fsWatcherEnabled="false">%s</folder>
%s
<gui enabled="true" tls="false"><address>127.0.0.1:8384</address><apikey>benchmark</apikey></gui>
<options><listenAddress>tcp://%s:22000</listenAddress><globalAnnounceEnabled>false</globalAnnounceEnabled><localAnnounceEnabled>false</localAnnounceEnabled>
<relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled><urAccepted>-1</urAccepted><autoUpgradeIntervalH>0</autoUpgradeIntervalH>
<crashReportingEnabled>false</crashReportingEnabled><reconnectionIntervalS>1</reconnectionIntervalS><startBrowser>false</startBrowser></options>
</configuration>`, folder, shared.String(), devices.String(), r.places[self].addr)
}
