package agent

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf16"
)

// decodeText skips a byte order mark, which Notepad likes to write, and reads
// UTF-16 where one says so.
func decodeText(data []byte) string {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(data, []byte{0xFF, 0xFE}):
		order = binary.LittleEndian
	case bytes.HasPrefix(data, []byte{0xFE, 0xFF}):
		order = binary.BigEndian
	default:
		return strings.ToValidUTF8(string(bytes.TrimPrefix(data, []byte("\xEF\xBB\xBF"))), "\uFFFD")
	}
	units := make([]uint16, 0, len(data)/2)
	for d := data[2:]; len(d) >= 2; d = d[2:] {
		units = append(units, order.Uint16(d))
	}
	return string(utf16.Decode(units))
}

// A value is what a key was last set to, and where.
type value struct {
	text string
	line int
}

// sections are the file's values by section and lower-case key.
type sections map[string]map[string]value

// lookup returns a key of a section; [DEFAULT] feeds them all.
func (f sections) lookup(section, key string) (value, bool) {
	v, ok := f[section][key]
	if !ok {
		v, ok = f["DEFAULT"][key]
	}
	return v, ok
}

// sections splits the file into lines as RawConfigParser of Python 2.7 does.
func (c *Config) sections(text string) sections {
	f := sections{}
	var section map[string]value
	key := ""
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.TrimSpace(line) == "" || line[0] == '#' || line[0] == ';' || isRem(line):
		case isSpace(line[0]) && section != nil && key != "":
			v := section[key]
			section[key] = value{v.text + "\n" + strings.TrimSpace(line), v.line}
		case line[0] == '[' && strings.IndexByte(line, ']') > 1:
			name := line[1:strings.IndexByte(line, ']')]
			if f[name] == nil {
				f[name] = map[string]value{}
			}
			section, key = f[name], ""
		default:
			k, v, ok := keyValue(line)
			switch {
			case !ok:
				c.warn(n, "%q is neither a section nor a key with a value", clip(line))
			case section == nil:
				c.warn(n, "key %q stands before the first section", clip(k))
			default:
				key = k
				section[key] = value{v, n}
			}
		}
	}
	return f
}

// isRem says whether a line is a comment of DOS: the word rem, first.
func isRem(line string) bool {
	return len(line) >= 3 && strings.EqualFold(line[:3], "rem") && (len(line) == 3 || isSpace(line[3]))
}

func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\v' || b == '\f' || b == '\r' }

// keyValue splits a line at its first "=" or ":". A comment begins at the
// value's first ";" if white space is before it: a ";" within a word stays.
func keyValue(line string) (key, val string, ok bool) {
	i := strings.IndexAny(line, "=:")
	if i < 1 || isSpace(line[0]) {
		return "", "", false
	}
	key, val = strings.ToLower(strings.TrimSpace(line[:i])), line[i+1:]
	if j := strings.IndexByte(val, ';'); j > 0 && isSpace(val[j-1]) {
		val = val[:j]
	}
	val = strings.TrimSpace(val)
	if val == `""` {
		val = ""
	}
	return key, val, key != ""
}
