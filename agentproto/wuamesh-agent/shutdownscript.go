package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// A localPolicy is the directory of this host's own group policy,
// %SystemRoot%\System32\GroupPolicy. Windows runs the shutdown scripts that
// its scripts.ini lists ([MS-GPSCR] 2.2.2) while the services that installs
// need still run. gpt.ini counts its versions and names the extensions that
// read it ([MS-GPOL] 2.2.4).
type localPolicy struct{ dir string }

// scriptExtension is the Scripts extension for computers and its editor, as
// gPCMachineExtensionNames has them ([MS-GPSCR] 1.9).
const scriptExtension = "[{42B5FAAE-6536-11D2-AE5A-0000F87571E3}{40B6664F-4972-11D1-A7CA-0000F87571E3}]"

const maxPolicyFile = 1 << 20

// setShutdownScript has Windows run exe at shutdown, once, or not. Scripts of
// others stay as they are. It says whether it changed anything.
func (p localPolicy) setShutdownScript(exe, args string, on bool) (changed bool, err error) {
	file := filepath.Join(p.dir, "Machine", "Scripts", "scripts.ini")
	was, err := readPolicyFile(file)
	if err != nil {
		return false, err
	}
	text, err := fromUTF16(was)
	if err != nil {
		return false, fmt.Errorf("%s: %w", file, err)
	}
	now := withScript(text, exe, args, on)
	if now == text {
		return false, nil
	}
	for _, dir := range []string{"Startup", "Shutdown"} {
		if err := os.MkdirAll(filepath.Join(filepath.Dir(file), dir), 0o755); err != nil {
			return false, err
		}
	}
	if err := replacePolicyFile(file, toUTF16(now)); err != nil {
		return false, err
	}
	gpt := filepath.Join(p.dir, "gpt.ini")
	if was, err = readPolicyFile(gpt); err != nil {
		return true, err
	}
	return true, replacePolicyFile(gpt, []byte(nextVersion(string(was))))
}

// withScript puts exe at the end of the shutdown scripts, or takes it out.
func withScript(text, exe, args string, on bool) string {
	const section = "[Shutdown]"
	var before, after []string // of the section
	var scripts [][2]string    // command line and parameters
	at := &before
	seen := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		name, isSection := sectionOf(line)
		key, value, _ := strings.Cut(line, "=")
		n, cmd := strings.CutSuffix(strings.ToLower(strings.TrimSpace(key)), "cmdline")
		if !cmd {
			n, _ = strings.CutSuffix(n, "parameters")
		}
		i, err := strconv.Atoi(n)
		switch {
		case isSection && strings.EqualFold(name, section):
			at, seen = nil, true
		case isSection:
			if seen {
				at = &after
			}
			*at = append(*at, line)
		case at != nil:
			*at = append(*at, line)
		case err == nil && i >= 0 && i < 1000:
			for len(scripts) <= i {
				scripts = append(scripts, [2]string{})
			}
			if cmd {
				scripts[i][0] = value
			} else {
				scripts[i][1] = value
			}
		}
	}
	ours := func(s [2]string) bool { return strings.EqualFold(s[0], exe) }
	if has := slices.ContainsFunc(scripts, ours); has == on && (!on || slices.Contains(scripts, [2]string{exe, args})) {
		return text
	}
	scripts = slices.DeleteFunc(scripts, func(s [2]string) bool { return s[0] == "" || ours(s) })
	if on {
		scripts = append(scripts, [2]string{exe, args})
	}
	lines := before
	if len(scripts) > 0 {
		lines = append(lines, section)
	}
	for i, s := range scripts {
		lines = append(lines, fmt.Sprintf("%dCmdLine=%s", i, s[0]), fmt.Sprintf("%dParameters=%s", i, s[1]))
	}
	return strings.Join(append(append(lines, after...), ""), "\r\n")
}

func sectionOf(line string) (string, bool) {
	s := strings.TrimSpace(line)
	return s, strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]")
}

var (
	versionLine   = regexp.MustCompile(`(?im)^[ \t]*Version[ \t]*=[ \t]*(\d+)`)
	extensionLine = regexp.MustCompile(`(?im)^([ \t]*gPCMachineExtensionNames[ \t]*=[ \t]*)(.*?)([ \t]*\r?)$`)
)

// nextVersion counts the computer's half of the version up, which is the lower
// 16 bits, so that Windows reads the policy again; and names who reads it.
func nextVersion(gpt string) string {
	if strings.TrimSpace(gpt) == "" {
		gpt = "[General]\r\n"
	}
	version := uint64(0)
	if m := versionLine.FindStringSubmatch(gpt); m != nil {
		version, _ = strconv.ParseUint(m[1], 10, 32)
	}
	version = version&^0xffff | max((version+1)&0xffff, 1)
	set := func(line *regexp.Regexp, text string) {
		if line.MatchString(gpt) {
			gpt = line.ReplaceAllLiteralString(gpt, text)
			return
		}
		head := regexp.MustCompile(`(?im)^\[General\][ \t]*\r?\n`)
		if at := head.FindStringIndex(gpt); at != nil {
			gpt = gpt[:at[1]] + text + "\r\n" + gpt[at[1]:]
			return
		}
		gpt = "[General]\r\n" + text + "\r\n" + gpt
	}
	if m := extensionLine.FindStringSubmatch(gpt); m == nil {
		set(extensionLine, "gPCMachineExtensionNames="+scriptExtension)
	} else if !strings.Contains(strings.ToUpper(m[2]), "{42B5FAAE-6536-11D2-AE5A-0000F87571E3}") {
		list := append(regexp.MustCompile(`\[[^\]]*\]`).FindAllString(m[2], -1), scriptExtension)
		slices.SortFunc(list, func(a, b string) int { return strings.Compare(strings.ToUpper(a), strings.ToUpper(b)) })
		set(extensionLine, m[1]+strings.Join(list, "")+m[3])
	}
	set(versionLine, fmt.Sprintf("Version=%d", version))
	return gpt
}

func readPolicyFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Size() > maxPolicyFile:
		return nil, fmt.Errorf("%s has %d bytes, more than any group policy's", name, info.Size())
	}
	return os.ReadFile(name)
}

// replacePolicyFile writes beside and renames, so that Windows reads the one
// or the other.
func replacePolicyFile(name string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	next := name + ".wuamesh"
	if err := os.WriteFile(next, b, 0o644); err != nil {
		return err
	}
	if err := os.Rename(next, name); err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return nil
}

// fromUTF16 reads what Windows wrote: UTF-16, little endian, behind its mark;
// without one it is of a person's editor.
func fromUTF16(b []byte) (string, error) {
	rest, ok := bytes.CutPrefix(b, []byte{0xff, 0xfe})
	if !ok {
		return string(b), nil
	}
	if len(rest)%2 != 0 {
		return "", errors.New("it is UTF-16 and has an odd number of bytes")
	}
	units := make([]uint16, len(rest)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(rest[2*i:])
	}
	return string(utf16.Decode(units)), nil
}

func toUTF16(s string) []byte {
	b := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}
