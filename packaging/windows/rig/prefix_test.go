package rig_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// prefixFormat goes up when what makePrefix does changes.
const prefixFormat = "3"

// Debian's own programs, of package wine64: the script /usr/bin/wine asks for a 32-bit
// one at every start.
const (
	wine64     = "/usr/lib/wine/wine64"
	wineserver = "/usr/lib/wine/wineserver64"
)

// A prefix is a Windows of Wine's, of one test alone, with the double of the
// Windows Update Agent and the shim in it.
type prefix struct {
	t    *testing.T
	dir  string
	more []string // environment of what runs in it
}

// cacheDir is where the prefixes are: one to clone, and clones, which share
// its files by hard links.
func cacheDir(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "wuamesh")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// newPrefix clones a fresh Windows, and ends whatever runs in it at the end of
// the test.
func newPrefix(t *testing.T) *prefix {
	t.Helper()
	if testing.Short() {
		t.Skip("Wine is slow")
	}
	if _, err := os.Stat(wine64); err != nil {
		t.Fatal("wine64 is missing: apt-get install wine64 gcc-mingw-w64-x86-64")
	}
	base := basePrefix(t)
	sweep(t)
	p := &prefix{t: t, dir: filepath.Join(cacheDir(t), fmt.Sprintf("wine-run-%d-%d", os.Getpid(), time.Now().UnixNano()))}
	began := time.Now()
	if err := clone(base, p.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		endWine(p.dir)
		if err := os.RemoveAll(p.dir); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%6.2f s  prefix cloned", time.Since(began).Seconds())
	return p
}

// endWine ends every process of one prefix and no other: the server is found
// by the prefix.
func endWine(dir string) {
	for _, arg := range []string{"-k", "-w"} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		cmd := exec.CommandContext(ctx, wineserver, arg)
		cmd.Env = append(os.Environ(), "WINEPREFIX="+dir)
		cmd.Run() // there may be none
		cancel()
	}
}

// sweep removes clones whose test was killed.
func sweep(t *testing.T) {
	t.Helper()
	dirs, _ := filepath.Glob(filepath.Join(cacheDir(t), "wine-run-*"))
	for _, dir := range dirs {
		pid, err := strconv.Atoi(strings.Split(filepath.Base(dir), "-")[2])
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			endWine(dir)
			os.RemoveAll(dir)
		}
	}
}

// basePrefix is the prefix that is cloned. Its name has a digest of what it
// was made from.
func basePrefix(t *testing.T) string {
	t.Helper()
	sum := sha256.New()
	fmt.Fprintln(sum, prefixFormat)
	version, err := exec.Command(wine64, "--version").Output()
	if err != nil {
		t.Fatalf("wine64 --version: %v", err)
	}
	sum.Write(version)
	var sources []string
	for _, pattern := range []string{"double/*", "shim/*", "servicing/*"} {
		list, _ := filepath.Glob(pattern)
		sources = append(sources, list...)
	}
	for _, path := range sources {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(sum, path, len(b))
		sum.Write(b)
	}
	dir := filepath.Join(cacheDir(t), fmt.Sprintf("wine-%x", sum.Sum(nil)[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	t.Logf("making %s, once", dir)
	old, _ := filepath.Glob(filepath.Join(cacheDir(t), "wine-[0-9a-f]*"))
	tmp := filepath.Join(cacheDir(t), fmt.Sprintf("wine-run-%d-base", os.Getpid()))
	if err := makePrefix(t, tmp); err != nil {
		endWine(tmp)
		os.RemoveAll(tmp)
		t.Fatal(err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		t.Fatal(err)
	}
	for _, dir := range old { // 700 MB each; clones that are in use keep their files
		os.RemoveAll(dir)
	}
	return dir
}

// makePrefix makes Wine's Windows and puts the double and the shim into it.
func makePrefix(t *testing.T, dir string) error {
	t.Helper()
	p := &prefix{t: t, dir: dir}
	step := func(what string, run func() error) func() error {
		return func() error {
			began := time.Now()
			if err := run(); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			t.Logf("%6.2f s  %s", time.Since(began).Seconds(), what)
			return nil
		}
	}
	system32 := filepath.Join(dir, "drive_c", "windows", "system32")
	for _, do := range []func() error{
		step("Wine's own files", func() error {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			return output(p.wine("wineboot", "--init"))
		}),
		step("double of the Windows Update Agent", func() error {
			sources, _ := filepath.Glob("double/*.c")
			args := append([]string{"-std=gnu11", "-O2", "-s", "-Wall", "-Werror", "-shared", "-o", filepath.Join(system32, "wuadouble.dll")}, sources...)
			return output(exec.Command("x86_64-w64-mingw32-gcc", append(args, "double/double.def", "-lole32", "-loleaut32", "-luuid", "-ladvapi32")...))
		}),
		step("shim", func() error {
			return output(exec.Command("x86_64-w64-mingw32-gcc", "-O2", "-s", "-Wall", "-Werror", "-shared",
				"-o", filepath.Join(system32, "bcryptprimitives.dll"), "shim/bcryptprimitives.c", "-ladvapi32"))
		}),
		step("double of the servicing tools", func() error {
			for _, name := range []string{"wusa.exe", "dism.exe"} {
				err := output(exec.Command("x86_64-w64-mingw32-gcc", "-std=gnu11", "-O2", "-s", "-Wall", "-Werror", "-municode",
					"-o", filepath.Join(system32, name), "servicing/servicing.c", "double/world.c", "-ladvapi32"))
				if err != nil {
					return err
				}
			}
			return nil
		}),
		step("registration", func() error {
			return errors.Join(
				output(p.wine("regsvr32", "/s", `C:\windows\system32\wuadouble.dll`)),
				// Wine has programs of these names, and prefers its own.
				output(p.wine("reg", "add", `HKCU\Software\Wine\DllOverrides`, "/v", "wusa.exe", "/d", "native", "/f")),
				output(p.wine("reg", "add", `HKCU\Software\Wine\DllOverrides`, "/v", "dism.exe", "/d", "native", "/f")),
				// Wine says Windows 7 until it is told otherwise, and has no update level.
				output(p.wine("reg", "add", `HKCU\Software\Wine`, "/v", "Version", "/d", "win10", "/f")),
				output(p.wine("reg", "add", `HKLM\Software\Microsoft\Windows NT\CurrentVersion`, "/v", "UBR", "/t", "REG_DWORD", "/d", "4412", "/f")),
				output(p.wine("reg", "add", `HKLM\Software\Microsoft\Windows NT\CurrentVersion`, "/v", "DisplayVersion", "/d", "22H2", "/f")),
			)
		}),
	} {
		if err := do(); err != nil {
			return err
		}
	}
	// The registry is written when the last process has ended.
	return output(p.env(exec.Command(wineserver, "-w")))
}

// output runs a command and puts what it wrote into the error.
func output(cmd *exec.Cmd) error {
	var buf bytes.Buffer
	cmd.Stdout, cmd.Stderr = &buf, &buf
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, buf.Bytes()[max(0, buf.Len()-2000):])
	}
	return nil
}

// wine is a command in the prefix: a program of Wine's, or a path.
func (p *prefix) wine(args ...string) *exec.Cmd {
	return p.env(exec.CommandContext(p.t.Context(), wine64, args...))
}

// command is a program of this machine.
func (p *prefix) command(name string, args ...string) *exec.Cmd {
	return exec.CommandContext(p.t.Context(), name, args...)
}

// says runs a command and returns what it printed. That goes through a file:
// services that Wine starts meanwhile would hold a pipe open.
func (p *prefix) says(cmd *exec.Cmd) (string, error) {
	p.t.Helper()
	f, err := os.CreateTemp(p.t.TempDir(), "said")
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	err = cmd.Run()
	b, rerr := os.ReadFile(f.Name())
	return string(b), errors.Join(err, rerr)
}

// env makes a command one of this prefix: without a display, without Mono and
// Gecko, which Wine would like to download, and without menus in the home of
// whoever runs the test.
func (p *prefix) env(cmd *exec.Cmd) *exec.Cmd {
	cmd.Env = append(os.Environ(), "WINEPREFIX="+p.dir, "WINEARCH=win64", "WINEDEBUG=-all", "DISPLAY=", "HOME="+p.dir,
		"WINEDLLOVERRIDES=mscoree,mshtml,winemenubuilder.exe=")
	cmd.Env = append(cmd.Env, p.more...)
	return cmd
}

// c is the path here of a path on drive C there, with slashes.
func (p *prefix) c(path string) string { return filepath.Join(p.dir, "drive_c", path) }

// clone copies a prefix by hard links; what Wine writes in place is copied.
func clone(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		dst := filepath.Join(to, rel)
		switch ext := filepath.Ext(path); {
		case d.IsDir():
			return os.MkdirAll(dst, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, dst)
		case ext == ".reg" || ext == ".ini" || filepath.Dir(rel) == ".":
			return copyFile(path, dst)
		default:
			return os.Link(path, dst)
		}
	})
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
