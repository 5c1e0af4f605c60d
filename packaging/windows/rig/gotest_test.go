package rig_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// goBuild builds for Windows: a command line of go without cgo.
func goBuild(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	cmd.Dir = "../../.." // the module
	began := time.Now()
	if err := output(cmd); err != nil {
		t.Fatal(err)
	}
	t.Logf("%6.2f s  go %s", time.Since(began).Seconds(), args[0])
}

// goTest runs the tests of a package of ours under Windows. The environment
// says so with WUAMESH_RIG, the directory of the double.
func (p *prefix) goTest(pkg string, args ...string) {
	t := p.t
	t.Helper()
	exe := p.c("package.test.exe")
	goBuild(t, "test", "-c", "-trimpath", "-overlay", overlay(t), "-o", exe, pkg)
	if err := os.MkdirAll(p.c("double"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := p.wine(append([]string{exe, "-test.v", "-test.timeout=5m"}, args...)...)
	cmd.Dir = p.c("")
	cmd.Env = append(cmd.Env, `WUADOUBLE_DIR=C:\double`, `WUAMESH_RIG=C:\double`)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	err := cmd.Run()
	t.Logf("%6.2f s  tests of %s\n%s", time.Since(began).Seconds(), pkg, out.Bytes())
	if err != nil {
		t.Errorf("tests of %s: %v", pkg, err)
	}
}

// overlay makes an overlay of Go's standard library for test binaries: two
// places where it insists on what Wine 8 does not have, os.RemoveAll (which
// t.TempDir needs) and sockets of UDP. The agent itself uses neither, and is
// built without it. It lies where it lay the last time, so that Go's cache
// holds.
func overlay(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(cacheDir(t), "overlay")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	src := filepath.Join(strings.TrimSpace(string(out)), "src")
	replace := map[string]string{}
	for _, patch := range []struct{ file, old, new string }{
		{"internal/syscall/windows/at_windows.go", "\t\tSTATUS_NOT_SUPPORTED:", "\t\tSTATUS_NOT_SUPPORTED, NTStatus(0xC0000002):"},
		{
			"net/fd_windows.go", "windows.SIO_UDP_NETRESET, (*byte)(unsafe.Pointer(&flag)), size, nil, 0, &ret, nil, 0)\n\t\tif err != nil {",
			"windows.SIO_UDP_NETRESET, (*byte)(unsafe.Pointer(&flag)), size, nil, 0, &ret, nil, 0)\n\t\tif err != nil && err != syscall.Errno(10045) {",
		},
	} {
		b, err := os.ReadFile(filepath.Join(src, patch.file))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b, []byte(patch.old)) {
			t.Fatalf("%s has changed: it has no %q", patch.file, patch.old)
		}
		path := filepath.Join(dir, filepath.Base(patch.file))
		if err := replaceFile(path, bytes.ReplaceAll(b, []byte(patch.old), []byte(patch.new))); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(src, patch.file)] = path
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := replaceFile(path, b); err != nil {
		t.Fatal(err)
	}
	return path
}

// replaceFile writes a file as a whole: another test may be reading it.
func replaceFile(path string, b []byte) error {
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
