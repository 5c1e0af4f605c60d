// Command deb builds the Debian packages: the program, its units, manual
// pages, completions, and the agent's installer when that was built before.
// The same source gives the same bytes, wherever and whenever it is built.
//
//	go run ./packaging/deb                      amd64 and arm64 into packaging/out
//	go run ./packaging/deb --arch arm64 --out /tmp
//
// It needs dpkg-deb, and with that alone puts the archive together: what a
// packager would add is a table of files (tree.go), which is better read than
// configured. Run it at the top of the repository.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"
)

func main() {
	var b build
	archs := flag.String("arch", "amd64,arm64", "architectures, with commas")
	flag.StringVar(&b.out, "out", filepath.Join("packaging", "out"), "`directory` of the packages")
	flag.StringVar(&b.version, "version", "", "build this `version` instead of the changelog's, for tests of upgrades")
	flag.StringVar(&b.agent, "agent", filepath.Join("packaging", "out", "wuamesh-agent.msi"), "installer of the agent, a `file`; left out when it is not there")
	flag.Parse()
	if err := b.all(strings.Split(*archs, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "deb:", err)
		os.Exit(1)
	}
}

// A build is one run for one version.
type build struct {
	out, version, agent string

	changelog []byte
	date      time.Time // of the changelog's first entry: the only time in the package
	manuals   map[string][]byte
	copyright []byte
}

func (b *build) all(archs []string) error {
	if err := b.readChangelog(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "wuamesh-deb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	here := filepath.Join(dir, "wuamesh")
	if err := b.compile(runtime.GOARCH, here); err != nil {
		return err
	}
	if err := b.askProgram(here); err != nil {
		return err
	}
	if b.copyright, err = copyrightText(); err != nil {
		return err
	}
	for _, arch := range archs {
		if err := b.pack(arch, filepath.Join(dir, arch)); err != nil {
			return fmt.Errorf("package for %s: %w", arch, err)
		}
	}
	return nil
}

var (
	firstEntry = regexp.MustCompile(`^wuamesh \(([0-9][0-9a-z.~+-]*)\) `)
	signed     = regexp.MustCompile(`(?m)^ -- .* <.*>  (.*)$`)
)

// readChangelog takes version and date from the first entry, and writes one
// for a version it does not know.
func (b *build) readChangelog() error {
	path := filepath.Join("packaging", "deb", "files", "changelog")
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("%w; run it at the top of the repository", err)
	}
	entry, when := firstEntry.FindSubmatch(text), signed.FindSubmatch(text)
	if entry == nil || when == nil {
		return fmt.Errorf("%s does not begin with an entry of wuamesh", path)
	}
	if b.date, err = mail.ParseDate(string(when[1])); err != nil {
		return fmt.Errorf("%s: date of the first entry: %w", path, err)
	}
	if b.version == "" || b.version == string(entry[1]) {
		b.version, b.changelog = string(entry[1]), text
		return nil
	}
	if !firstEntry.MatchString("wuamesh (" + b.version + ") ") {
		return fmt.Errorf("%q is no version", b.version)
	}
	b.changelog = fmt.Appendf(nil, "wuamesh (%s) stable; urgency=medium\n\n  * Built anew.\n\n -- The wuamesh authors <wuamesh@localhost>  %s\n\n%s", b.version, when[1], text)
	return nil
}

// compile links the program statically and without paths, times or revisions
// of the machine it is built on.
func (b *build) compile(arch, to string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X wuamesh/appliance.Version="+b.version, "-o", to, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=-mod=readonly", "GOAMD64=v1", "GOARM64=v8.0")
	return run(cmd)
}

// askProgram has the program print what must not drift from it.
func (b *build) askProgram(bin string) error {
	b.manuals = map[string][]byte{}
	for path, args := range map[string][]string{
		"usr/share/man/man1/wuamesh.1":                     {"manual", "wuamesh"},
		"usr/share/man/man5/wuamesh.toml.5":                {"manual", "config"},
		"usr/share/bash-completion/completions/wuamesh":    {"completion", "bash"},
		"usr/share/zsh/vendor-completions/_wuamesh":        {"completion", "zsh"},
		"usr/share/fish/vendor_completions.d/wuamesh.fish": {"completion", "fish"},
		"etc/wuamesh/wuamesh.toml":                         {"serve", "--print-config"},
	} {
		var out bytes.Buffer
		cmd := exec.Command(bin, args...)
		cmd.Stdout = &out
		if err := run(cmd); err != nil {
			return err
		}
		b.manuals[path] = out.Bytes()
	}
	return nil
}

// pack builds one architecture's package.
func (b *build) pack(arch, dir string) error {
	bin := dir + ".bin"
	if err := b.compile(arch, bin); err != nil {
		return err
	}
	t := tree{dir: dir}
	if err := b.fill(&t, bin); err != nil {
		return err
	}
	if err := b.control(&t, arch); err != nil {
		return err
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	name := filepath.Join(b.out, "wuamesh_"+b.version+"_"+arch+".deb")
	cmd := exec.Command("dpkg-deb", "--root-owner-group", "--threads-max=1", "-Zxz", "--build", dir, name)
	cmd.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", b.date.Unix()), "LC_ALL=C.UTF-8")
	if err := run(cmd); err != nil {
		return err
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	fmt.Printf("%s  %.1f MB\n", name, float64(info.Size())/1e6)
	return nil
}

// run runs cmd; its error has what it complained of.
func run(cmd *exec.Cmd) error {
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is not installed", cmd.Args[0])
	}
	last := ""
	for s := bufio.NewScanner(&complaint); s.Scan(); {
		last += "\n" + s.Text()
	}
	return fmt.Errorf("%s: %w%s", strings.Join(cmd.Args, " "), err, last)
}
