package main

import (
	"archive/tar"
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"wuamesh/appliance"
)

// packages builds both packages from the working tree, once for all tests.
func packages(t *testing.T) (dir string) {
	t.Helper()
	if testing.Short() {
		t.Skip("with -short; packaging/check runs it")
	}
	out := filepath.Join("..", "out")
	if built {
		return out
	}
	buildIn(t, filepath.Join("..", ".."), filepath.Join("packaging", "out"))
	built = true
	return out
}

var built bool

func buildIn(t *testing.T, top, out string, args ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"run", "./packaging/deb", "--out", out}, args...)...)
	cmd.Dir = top
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, b)
	}
}

// content is every file of a package by its path, without leading "./".
func content(t *testing.T, deb string) (files map[string][]byte, links map[string]string) {
	t.Helper()
	b, err := exec.Command("dpkg-deb", "--fsys-tarfile", deb).Output()
	if err != nil {
		t.Fatalf("read %s: %v", deb, err)
	}
	files, links = map[string][]byte{}, map[string]string{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files, links
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Typeflag != tar.TypeSymlink && h.Mode&0o022 != 0 {
			t.Errorf("%s belongs to %d:%d with mode %o", h.Name, h.Uid, h.Gid, h.Mode)
		}
		name := strings.TrimPrefix(h.Name, "./")
		switch h.Typeflag {
		case tar.TypeSymlink:
			links[name] = h.Linkname
		case tar.TypeReg:
			if files[name], err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func find(t *testing.T, arch string) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(packages(t), "wuamesh_*_"+arch+".deb"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no package for %s: %v", arch, err)
	}
	newest := list[0]
	for _, p := range list[1:] {
		a, err1 := os.Stat(newest)
		b, err2 := os.Stat(p)
		if err1 == nil && err2 == nil && b.ModTime().After(a.ModTime()) {
			newest = p
		}
	}
	return newest
}

func TestPackages(t *testing.T) {
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		deb := find(t, arch)
		files, links := content(t, deb)
		program, err := elf.NewFile(bytes.NewReader(files["usr/bin/wuamesh"]))
		if err != nil {
			t.Fatalf("%s: %v", deb, err)
		}
		if libs, err := program.ImportedLibraries(); program.Machine != machine || err != nil || len(libs) > 0 {
			t.Errorf("%s: the program is for %v and needs %v, %v", deb, program.Machine, libs, err)
		}
		if string(files["etc/wuamesh/wuamesh.toml"]) != appliance.ShippedConfigText() {
			t.Errorf("%s: the configuration is not the program's own", deb)
		}
		for _, path := range []string{"lib/systemd/system/wuamesh.service", "usr/share/man/man1/wuamesh.1.gz", "usr/share/doc/wuamesh/changelog.gz", "usr/share/bash-completion/completions/wuamesh"} {
			if len(files[path]) == 0 {
				t.Errorf("%s lacks %s", deb, path)
			}
		}
		if links["usr/lib/motd.d/wuamesh"] != "/run/wuamesh/motd" {
			t.Errorf("%s links %v", deb, links)
		}
		_, hasAgent := files["usr/share/wuamesh/wuamesh-agent.msi"]
		if _, err := os.Stat(filepath.Join("..", "out", "wuamesh-agent.msi")); hasAgent != (err == nil) {
			t.Errorf("%s: with the agent's installer: %v; one is built: %v", deb, hasAgent, err == nil)
		}
		if out, err := exec.Command("lintian", "--fail-on", "error,warning,info", "--allow-root", deb).CombinedOutput(); err != nil {
			t.Errorf("lintian %s: %v\n%s", deb, err, out)
		}
		if here, err := filepath.Abs("../.."); err != nil || bytes.Contains(files["usr/bin/wuamesh"], []byte(here)) {
			t.Errorf("%s: the program names %s, where it was built (%v)", deb, here, err)
		}
	}
}

// TestSameBytes builds again from a copy of the source at another place, with
// another umask and a time zone of its own.
func TestSameBytes(t *testing.T) {
	first, err := os.ReadFile(find(t, "amd64"))
	if err != nil {
		t.Fatal(err)
	}
	top := t.TempDir()
	script := `umask 0077; cd ../.. && git ls-files -z -co --exclude-standard | xargs -0 cp --parents -t "$1" && cp --parents packaging/out/wuamesh-agent.msi "$1" 2>/dev/null; cd "$1" && TZ=Asia/Tokyo go run ./packaging/deb --arch amd64 --out again`
	if out, err := exec.Command("sh", "-c", script, "sh", top).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	list, _ := filepath.Glob(filepath.Join(top, "again", "*.deb"))
	if len(list) != 1 {
		t.Fatalf("built %v", list)
	}
	second, err := os.ReadFile(list[0])
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Errorf("the same source gave %d bytes, then %d others; see diffoscope %s %s", len(first), len(second), find(t, "amd64"), list[0])
	}
}

// TestCopyrightNamesEverythingLinked asks the linked program itself.
func TestCopyrightNamesEverythingLinked(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		files, _ := content(t, find(t, arch))
		info, err := buildinfo.Read(bytes.NewReader(files["usr/bin/wuamesh"]))
		if err != nil {
			t.Fatal(err)
		}
		if len(info.Deps) < 10 {
			t.Fatalf("the program says it is linked with %d modules", len(info.Deps))
		}
		text := string(files["usr/share/doc/wuamesh/copyright"])
		for _, m := range info.Deps {
			if !strings.Contains(text, "\n"+m.Path+" "+m.Version+"\n") {
				t.Errorf("%s: the licence of %s %s is missing", arch, m.Path, m.Version)
			}
		}
		for _, name := range []string{"Go, its runtime", "Lucide", "Atkinson Hyperlegible"} {
			if !strings.Contains(text, name) {
				t.Errorf("the licence of %s is missing", name)
			}
		}
		for _, block := range strings.Split(text, strings.Repeat("-", 78))[1:] {
			if _, licence, ok := strings.Cut(strings.TrimSpace(block), "\n\n"); !ok || len(licence) < 60 {
				t.Errorf("no licence follows %q", block)
			}
		}
	}
}

func TestUnit(t *testing.T) {
	if out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", "files/wuamesh.service").CombinedOutput(); err != nil {
		t.Errorf("exposure above 2.0: %v\n%s", err, out)
	}
}

// TestCompletionAndManualAreOfTheCommands asks a real bash for completions,
// and man for the page.
func TestCompletionAndManualAreOfTheCommands(t *testing.T) {
	files, _ := content(t, find(t, "amd64"))
	dir := t.TempDir()
	for name, path := range map[string]string{"wuamesh": "usr/bin/wuamesh", "c.bash": "usr/share/bash-completion/completions/wuamesh", "c.fish": "usr/share/fish/vendor_completions.d/wuamesh.fish", "c.zsh": "usr/share/zsh/vendor-completions/_wuamesh", "page.gz": "usr/share/man/man1/wuamesh.1.gz"} {
		if err := os.WriteFile(filepath.Join(dir, name), files[path], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sh := func(shell, script string) string {
		t.Helper()
		cmd := exec.Command(shell, "-c", script)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s -c %q: %v\n%s", shell, script, err, out)
		}
		return string(out)
	}
	help := sh("sh", "wuamesh help")
	commands := regexp.MustCompile(`(?m)^  ([a-z-]+) `).FindAllStringSubmatch(help, -1)
	if len(commands) < 10 {
		t.Fatalf("help lists %d commands:\n%s", len(commands), help)
	}
	page := sh("sh", "MANWIDTH=200 man --warnings -l page.gz | col -bx")
	for _, c := range commands {
		bash := sh("bash", `. ./c.bash; COMP_WORDS=(wuamesh `+c[1]+`); COMP_CWORD=1; _wuamesh; echo "${COMPREPLY[@]}"; COMP_WORDS=(wuamesh `+c[1]+` --); COMP_CWORD=2; _wuamesh; echo "${COMPREPLY[@]}"`)
		if !strings.Contains(bash, c[1]) {
			t.Errorf("bash does not complete %s: %s", c[1], bash)
		}
		flags := regexp.MustCompile(`(?m)^  -([a-z-]+)`).FindAllStringSubmatch(sh("sh", "wuamesh "+c[1]+" --help"), -1)
		for _, f := range flags {
			if !strings.Contains(bash, "--"+f[1]) {
				t.Errorf("bash does not complete %s --%s: %s", c[1], f[1], bash)
			}
			if !strings.Contains(page, "--"+f[1]) {
				t.Errorf("the manual page leaves out --%s", f[1])
			}
		}
		if !strings.Contains(page, "wuamesh "+c[1]) {
			t.Errorf("the manual page leaves out %s", c[1])
		}
	}
	if _, err := exec.LookPath("fish"); err == nil {
		if out := sh("fish", `source ./c.fish; complete -C "wuamesh trigg"; complete -C "wuamesh trigger "; complete -C "wuamesh trigger --g"`); !strings.Contains(out, "trigger") || !strings.Contains(out, "install") || !strings.Contains(out, "--group") {
			t.Errorf("fish completes %s", out)
		}
	}
	if _, err := exec.LookPath("zsh"); err == nil {
		sh("zsh", "zsh -n ./c.zsh")
	}
}
