package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A licensed is one thing that is linked or embedded, with the text of its
// licence and what else it says of copyright.
type licensed struct{ name, text string }

// copyrightText is the file Debian asks for: ours, then everything that is
// linked into the programs, taken from the module graph, then what they embed.
func copyrightText() ([]byte, error) {
	var out bytes.Buffer
	out.WriteString(copyrightHead)
	list, err := linked()
	if err != nil {
		return nil, err
	}
	for _, e := range []struct{ name, path string }{
		{"Atkinson Hyperlegible Next and Mono, the fonts of the pages", "ui/static/fonts/OFL.txt"},
		{"Lucide, icons of the pages", "packaging/deb/files/lucide.txt"},
	} {
		text, err := os.ReadFile(filepath.FromSlash(e.path))
		if err != nil {
			return nil, fmt.Errorf("licence of %s: %w", e.name, err)
		}
		list = append(list, licensed{e.name, string(text)})
	}
	for len(list) > 0 {
		text := list[0].text
		fmt.Fprintln(&out, "\n"+strings.Repeat("-", 78))
		list = slices.DeleteFunc(list, func(l licensed) bool {
			if l.text == text {
				fmt.Fprintln(&out, l.name)
			}
			return l.text == text
		})
		fmt.Fprintf(&out, "\n%s\n", strings.TrimSpace(text))
	}
	return out.Bytes(), nil
}

const copyrightHead = `wuamesh, Windows updates for branch offices
Copyright 2026 the wuamesh authors

Licensed under the Apache License, Version 2.0; on Debian its text is in
/usr/share/common-licenses/Apache-2.0.

The programs are linked statically with what follows, each with its licence.
`

// linked lists Go itself and the modules of the node and of the agent.
func linked() ([]licensed, error) {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	text, err := licenceIn(strings.TrimSpace(string(goroot)))
	if err != nil {
		return nil, err
	}
	list := []licensed{{"Go, its runtime and standard library", text}}
	modules := map[string]string{}
	for goos, pkg := range map[string]string{"linux": ".", "windows": "./agentproto/wuamesh-agent"} {
		if _, err := os.Stat(filepath.FromSlash(pkg)); err != nil {
			continue
		}
		if err := modulesOf(goos, pkg, modules); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		text, err := licenceIn(modules[name])
		if err != nil {
			return nil, fmt.Errorf("licence of %s: %w", name, err)
		}
		list = append(list, licensed{name, text})
	}
	return list, nil
}

// modulesOf adds the modules that pkg is linked with, and their directories.
func modulesOf(goos, pkg string, into map[string]string) error {
	cmd := exec.Command("go", "list", "-deps", "-json=Module", pkg)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := run(cmd); err != nil {
		return err
	}
	for d := json.NewDecoder(&out); ; {
		var p struct {
			Module *struct {
				Path, Version, Dir string
				Main               bool
			}
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read the module graph: %w", err)
		}
		if m := p.Module; m != nil && !m.Main {
			into[m.Path+" "+m.Version] = m.Dir
		}
	}
}

var (
	licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|copyright|notice|patents)(\.\w+)?$`)
	apache      = regexp.MustCompile(`(?s) *Apache License\s+Version 2\.0, January 2004.*?END OF TERMS AND CONDITIONS(\s+APPENDIX.*?limitations\s+under the License\.)?`)
	mozilla     = regexp.MustCompile(`(?s)Mozilla Public License,? [Vv]ersion 2\.0\s+={3,}.*?Exhibit B.*$|Mozilla Public License,? [Vv]ersion 2\.0\s+1\. Definitions.*Exhibit B.*$`)
	holder      = regexp.MustCompile(`(?m)^ *Copyright .*$`)
)

// licenceIn joins what a module's directory says of its licence. Texts that
// every Debian system has are referred to, as policy 12.5 asks.
func licenceIn(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var parts []string
	for _, e := range entries {
		if !e.Type().IsRegular() || !licenceFile.MatchString(e.Name()) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", err
		}
		text := strings.ToValidUTF8(strings.TrimSpace(strings.ReplaceAll(string(b), "\r", "")), "")
		text = apache.ReplaceAllStringFunc(text, func(full string) string {
			who := holder.FindString(full)
			if strings.ContainsAny(who, "[{") { // nobody filled the template in
				who = ""
			}
			return strings.TrimSpace(strings.TrimSpace(who) + "\nApache License, Version 2.0: /usr/share/common-licenses/Apache-2.0")
		})
		text = mozilla.ReplaceAllString(text, "Mozilla Public License, version 2.0: /usr/share/common-licenses/MPL-2.0")
		parts = append(parts, text)
	}
	if len(parts) == 0 {
		return "", fmt.Errorf("%s: %w", dir, fs.ErrNotExist)
	}
	return strings.Join(parts, "\n\n"), nil
}
