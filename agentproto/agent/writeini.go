package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// WriteINI sets keys of one section of wapt-get.ini and returns what the file
// then says. The empty value removes a key. Every other line, comments
// included, stays as it is; a file that would not change is not written, one
// that does not exist is made.
func WriteINI(path, section string, values map[string]string) (Config, error) {
	data, err := readBounded(path, maxINI+1)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("read wapt-get.ini: %w", err)
	}
	if len(data) > maxINI {
		return Config{}, fmt.Errorf("%s is larger than %d kB and was not changed", path, maxINI>>10)
	}
	for key, v := range values {
		if strings.ContainsFunc(v, unicode.IsControl) || strings.Contains(v, " ;") {
			return Config{}, fmt.Errorf("%s: %q cannot stand in wapt-get.ini", key, clip(v))
		}
	}
	next := editINI(data, section, values)
	if bytes.Equal(next, data) {
		return ParseINI(data), nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return Config{}, fmt.Errorf("write wapt-get.ini: %w", err)
	}
	if err := replaceFile(path, next); err != nil {
		return Config{}, fmt.Errorf("write wapt-get.ini: %w", err)
	}
	return ParseINI(next), nil
}

// editINI sets keys of a section. What is not touched keeps its bytes, in
// whatever code page they are; a byte order mark goes, because WAPT refuses
// it.
func editINI(data []byte, section string, values map[string]string) []byte {
	if len(data) > 1 && (data[0] == 0xFF && data[1] == 0xFE || data[0] == 0xFE && data[1] == 0xFF) {
		data = []byte(decodeText(data))
	}
	data = bytes.TrimPrefix(data, []byte("\xEF\xBB\xBF"))
	e := editor{section: section, values: values, newline: "\n", last: -1, seen: map[string]int{}}
	if bytes.Contains(data, []byte("\r\n")) {
		e.newline = "\r\n"
	}
	for line := range bytes.Lines(data) {
		e.line(string(line))
	}
	return []byte(e.finish())
}

// An editor goes through the lines of a file once.
type editor struct {
	section, newline string
	values           map[string]string

	out    []string
	within bool           // in the section
	gone   bool           // after a key that was removed or replaced: its continuation lines go too
	last   int            // after which line of out the section's last one is
	seen   map[string]int // where in out a key was set last
}

func (e *editor) line(line string) {
	bare := strings.TrimRight(line, "\r\n")
	blank := strings.TrimSpace(bare) == "" || bare[0] == '#' || bare[0] == ';' || isRem(bare)
	switch {
	case blank:
		e.out = append(e.out, line)
		return
	case isSpace(bare[0]):
		if e.within && e.gone {
			return
		}
	case bare[0] == '[' && strings.IndexByte(bare, ']') > 1:
		e.within, e.gone = bare[1:strings.IndexByte(bare, ']')] == e.section, false
	default:
		e.gone = false
		key, _, ok := keyValue(bare)
		v, set := e.values[key]
		if !e.within || !ok || !set {
			break
		}
		e.gone = true
		if old, again := e.seen[key]; again {
			e.out[old] = "" // only the last one counts, and one is enough
		}
		if v == "" {
			return
		}
		e.seen[key] = len(e.out)
		line = bare[:strings.IndexAny(bare, "=:")+1] + " " + v + comment(bare) + line[len(bare):]
	}
	e.out = append(e.out, line)
	if e.within {
		e.last = len(e.out)
	}
}

// comment is what stands behind a value: from the white space before the
// semicolon on.
func comment(line string) string {
	i := strings.IndexAny(line, "=:")
	if j := strings.IndexByte(line[i+1:], ';'); j > 0 && isSpace(line[i+j]) {
		rest := line[:i+1+j]
		return line[len(strings.TrimRight(rest, " \t")):]
	}
	return ""
}

// finish adds what was not there, at the end of the section.
func (e *editor) finish() string {
	var add []string
	for _, key := range sortedKeys(e.values) {
		if _, there := e.seen[key]; !there && e.values[key] != "" {
			add = append(add, key+" = "+e.values[key]+e.newline)
		}
	}
	if len(add) > 0 && e.last < 0 { // a section of its own, after an empty line
		e.last = len(e.out)
		add = slices.Insert(add, 0, "["+e.section+"]"+e.newline)
		if e.last > 0 {
			add = slices.Insert(add, 0, e.newline)
		}
	}
	if n := len(add); n > 0 && e.last > 0 && !strings.HasSuffix(e.out[e.last-1], "\n") && e.out[e.last-1] != "" {
		e.out[e.last-1] += e.newline
	}
	return strings.Join(slices.Insert(e.out, max(e.last, 0), add...), "")
}
