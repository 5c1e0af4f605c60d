// Command msi builds the agent's installer for Windows, and the agent in it.
//
//	go run ./packaging/windows/msi              packaging/out/wuamesh-agent.msi
//	go run ./packaging/windows/msi -sign-certs chain.pem -sign-key key.pem
//
// It needs wixl and msitools, and osslsigncode to sign. Properties that
// msiexec may be given are in properties below; agent.wxs has the rest.
package main

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	var b build
	flag.StringVar(&b.out, "out", filepath.Join("packaging", "out", "wuamesh-agent.msi"), "installer to write, a `file`")
	flag.StringVar(&b.version, "version", "", "build this `version` instead of the changelog's, for tests of upgrades")
	flag.StringVar(&b.certs, "sign-certs", "", "certificate chain to sign with, a PEM `file`")
	flag.StringVar(&b.key, "sign-key", "", "its key, a PEM `file`")
	flag.StringVar(&b.timestamp, "sign-timestamp", "", "`URL` of a timestamp service (RFC 3161)")
	flag.Parse()
	if err := b.all(); err != nil {
		fmt.Fprintln(os.Stderr, "msi:", err)
		os.Exit(1)
	}
}

// A property can be given to msiexec. What is given is written into
// wapt-get.ini; what is not leaves the file as it is, so that an upgrade keeps
// the settings of the host.
type property struct {
	name string // of the MSI, in capitals: it may come from the command line
	flag string // of wuamesh-agent configure, before the value
}

var properties = []property{
	{"SERVER", "--server"},
	{"TOKEN", "--token"},
	{"CAHASH", "--pin"},
	{"ENABLED", "--set enabled="},
	{"DIRECT_DOWNLOAD", "--set direct_download="},
	{"DEFAULT_ALLOW", "--set default_allow="},
	{"DOWNLOAD_SCHEDULING", "--set download_scheduling="},
	{"INSTALL_SCHEDULING", "--set install_scheduling="},
	{"INSTALL_AT_SHUTDOWN", "--set install_at_shutdown="},
	{"INSTALL_DELAY", "--set install_delay="},
	{"ALLOWED_SEVERITIES", "--set allowed_severities="},
	{"WAPTEXIT_DISABLE_SKIP_WINDOWS_UPDATES", "--set waptexit_disable_skip_windows_updates="},
	{"INCLUDE_POTENTIALLY_SUPERSEDED_UPDATES", "--set include_potentially_superseded_updates="},
	{"FILTER", "--set filter="},
}

// configure is the command line that the installer runs, with the properties
// filled in by Windows Installer.
func configure() string {
	args := []string{"configure"}
	for _, p := range properties {
		if name, key, set := strings.Cut(p.flag, " "); set {
			args = append(args, fmt.Sprintf(`%s "%s[%s]"`, name, key, p.name))
		} else {
			args = append(args, fmt.Sprintf(`%s "[%s]"`, p.flag, p.name))
		}
	}
	return strings.Join(args, " ")
}

// A build is one run.
type build struct {
	out, version          string
	certs, key, timestamp string
}

func (b *build) all() error {
	if err := b.readVersion(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "wuamesh-msi-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	exe := filepath.Join(dir, "wuamesh-agent.exe")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.Version="+b.version, "-o", exe, "./agentproto/wuamesh-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=windows", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=-mod=readonly")
	if err := run(cmd); err != nil {
		return err
	}
	if err := b.sign(exe); err != nil {
		return err
	}
	msi := filepath.Join(dir, "agent.msi")
	if err := b.pack(dir, msi); err != nil {
		return err
	}
	if err := b.sign(msi); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.out), 0o755); err != nil {
		return err
	}
	content, err := os.ReadFile(msi)
	if err != nil {
		return err
	}
	if err := os.WriteFile(b.out, content, 0o644); err != nil {
		return err
	}
	fmt.Printf("%s  %.1f MB\n", b.out, float64(len(content))/1e6)
	return nil
}

var firstEntry = regexp.MustCompile(`^wuamesh \(([0-9][0-9a-z.~+-]*)\) `)

// readVersion takes the version of the Debian package: node and agent are
// released together.
func (b *build) readVersion() error {
	if b.version != "" {
		return nil
	}
	path := filepath.Join("packaging", "deb", "files", "changelog")
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("%w; run it at the top of the repository", err)
	}
	m := firstEntry.FindSubmatch(text)
	if m == nil {
		return fmt.Errorf("%s does not begin with an entry of wuamesh", path)
	}
	b.version = string(m[1])
	return nil
}

// pack has wixl make the installer, and adds what wixl 0.101 cannot say.
func (b *build) pack(dir, msi string) error {
	wxs, err := filepath.Abs(filepath.Join("packaging", "windows", "msi", "agent.wxs"))
	if err != nil {
		return err
	}
	number := regexp.MustCompile(`^[0-9]+(\.[0-9]+){0,2}`).FindString(b.version) // all that Windows Installer knows of versions
	wixl := exec.Command("wixl", "--arch", "x64", "-D", "Version="+number, "-D", "ProductCode="+guid(b.version), "-D", "Exe=wuamesh-agent.exe",
		"-D", "Configure="+configure(), "-o", msi, wxs)
	wixl.Dir = dir // it does not take the absolute path of a file
	if err := run(wixl); err != nil {
		return err
	}
	secure, err := secureProperties(msi)
	if err != nil {
		return err
	}
	// What may be given on the command line; that the token stays out of a log,
	// as a property and in the action's command line
	// (msidbCustomActionTypeHideTarget); and when the two actions are run, which
	// wixl puts somewhere: Windows Update is given back between StopServices and
	// DeleteServices, settings are written before StartServices.
	for _, query := range []string{
		fmt.Sprintf("UPDATE `Property` SET `Value` = '%s' WHERE `Property` = 'SecureCustomProperties'", secure),
		"INSERT INTO `Property` (`Property`, `Value`) VALUES ('MsiHiddenProperties', 'TOKEN')",
		fmt.Sprintf("UPDATE `CustomAction` SET `Type` = %d WHERE `Action` = 'Configure'", 18+0x400+0x800+0x2000),
		"UPDATE `InstallExecuteSequence` SET `Sequence` = 1950 WHERE `Action` = 'GiveBack'",
		"UPDATE `InstallExecuteSequence` SET `Sequence` = 5850 WHERE `Action` = 'Configure'",
		"UPDATE `Shortcut` SET `ShowCmd` = 7", // minimized: the window that matters is another
	} {
		if err := run(exec.Command("msibuild", msi, "-q", query)); err != nil {
			return err
		}
	}
	return nil
}

// secureProperties are those that wixl marked, and ours: Windows Installer
// takes no other from a command line once it runs elevated.
func secureProperties(msi string) (string, error) {
	out, err := exec.Command("msiinfo", "export", msi, "Property").Output()
	if err != nil {
		return "", fmt.Errorf("msiinfo export: %w", err)
	}
	_, list, ok := bytes.Cut(out, []byte("SecureCustomProperties\t"))
	if !ok {
		return "", errors.New("wixl wrote no SecureCustomProperties")
	}
	line, _, _ := bytes.Cut(list, []byte("\r"))
	line, _, _ = bytes.Cut(line, []byte("\n"))
	names := []string{string(line)}
	for _, p := range properties {
		names = append(names, p.name)
	}
	return strings.Join(names, ";"), nil
}

// guid is the product code of a version: the same for the same version, so
// that an installer can be built again.
func guid(version string) string {
	s := sha1.Sum([]byte("wuamesh agent " + version))
	s[6], s[8] = s[6]&0x0f|0x50, s[8]&0x3f|0x80 // RFC 9562, section 5.5
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", s[:4], s[4:6], s[6:8], s[8:10], s[10:16]))
}

// sign signs a program or an installer in place, if there is a key.
func (b *build) sign(path string) error {
	if b.key == "" {
		return nil
	}
	args := []string{"sign", "-certs", b.certs, "-key", b.key, "-h", "sha256", "-n", "wuamesh agent"}
	if b.timestamp != "" {
		args = append(args, "-ts", b.timestamp)
	}
	if filepath.Ext(path) == ".msi" {
		args = append(args, "-add-msi-dse")
	}
	signed := path + ".signed"
	if err := run(exec.Command("osslsigncode", append(args, "-in", path, "-out", signed)...)); err != nil {
		return err
	}
	return os.Rename(signed, path)
}

// run runs a command and puts what it said into the error.
func run(cmd *exec.Cmd) error {
	var said bytes.Buffer
	cmd.Stderr = &said
	if cmd.Stdout == nil {
		cmd.Stdout = &said
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args[:min(len(cmd.Args), 3)], " "), err, said.Bytes())
	}
	return nil
}
