package agent

import (
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// A Config is what wapt-get.ini says. The zero values of what it does not
// mention are the defaults.
type Config struct {
	Settings rules.Settings
	Has      map[string]bool // keys of [waptwua] that were set and understood
	Nodes    []string        // base URLs, from [wuamesh] nodes or else from [global] repo_url
	RepoURL  string          // [global] repo_url, as written
	Token    string          // [wuamesh] token: lets the host in
	Pin      string          // [wuamesh] pin, or the token's: fingerprint of the mesh's authority
	Warnings []Warning
}

// A Warning is a line of wapt-get.ini that was not understood. What held
// before still holds.
type Warning struct {
	Line int // from 1; 0 is the file as a whole
	Text string
}

func (w Warning) String() string {
	if w.Line == 0 {
		return w.Text
	}
	return fmt.Sprintf("wapt-get.ini line %d: %s", w.Line, w.Text)
}

// maxINI bounds wapt-get.ini; real ones have a few kilobytes.
const maxINI = 1 << 20

// maxWarnings bounds what one file can complain about.
const maxWarnings = 40

// ParseINI reads wapt-get.ini as WAPT does: Python's RawConfigParser, with
// sections that merge, continuation lines, "=" and ":", comments after " ;".
// Where WAPT refuses a whole file, the agent warns about the line and goes
// on: a typing error must not take a host out of the mesh.
func ParseINI(data []byte) Config {
	c := Config{Settings: rules.DefaultSettings(), Has: map[string]bool{}}
	if len(data) > maxINI {
		c.warn(0, "wapt-get.ini is larger than %d kB and was not read", maxINI>>10)
		return c
	}
	f := c.sections(decodeText(data))
	c.waptwua(f)
	c.global(f)
	c.wuamesh(f)
	return c
}

func (c *Config) warn(line int, format string, args ...any) {
	if len(c.Warnings) < maxWarnings {
		c.Warnings = append(c.Warnings, Warning{line, fmt.Sprintf(format, args...)})
	}
}

// waptwua fills the settings from section [waptwua].
func (c *Config) waptwua(f sections) {
	known := map[string]bool{"offline": true}
	for _, o := range c.Settings.Options() {
		known[o.Key] = true
	}
	alias := map[string]string{"allow_direct_download": "direct_download"}
	for _, section := range []string{"DEFAULT", "waptwua"} {
		for _, key := range byLine(f[section]) {
			name := key
			if a, ok := alias[key]; ok {
				name = a
			}
			v := f[section][key]
			if !known[name] {
				if section == "waptwua" {
					c.warn(v.line, "unknown key %q in [waptwua]%s", clip(key), meant(key, known))
				}
				continue
			}
			if name == "offline" {
				// The agent never scans online, whatever it says; it is read so
				// that files for older versions of WAPT cause no warning.
				if _, err := rules.ParseBool(v.text); err != nil {
					c.warn(v.line, "%s: %v", key, err)
				}
				continue
			}
			if err := c.Settings.Set(name, v.text); err != nil {
				c.warn(v.line, "%s: %v", key, err)
				continue
			}
			c.Has[name] = true
		}
	}
}

// byLine orders keys as they stand in the file, so that of two spellings of
// one setting the last holds.
func byLine(section map[string]value) []string {
	keys := make([]string, 0, len(section))
	for k := range section {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return section[a].line - section[b].line })
	return keys
}

// global takes repo_url, from which the node's address derives: the agent
// talks to the same host over https.
func (c *Config) global(f sections) {
	v, ok := f.lookup("global", "repo_url")
	if !ok || v.text == "" {
		return
	}
	c.RepoURL = v.text
	u, err := url.Parse(v.text)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		c.warn(v.line, "repo_url %q: want http or https and a host", clip(v.text))
	case u.Scheme == "http" && u.Port() != "" && u.Port() != "80":
		c.warn(v.line, "repo_url %q names a port for http; say in [wuamesh] nodes where https is", clip(v.text))
	default:
		base := u.Host
		if u.Scheme == "http" {
			base = host(u)
		}
		if base, err = parseNode(base); err != nil {
			c.warn(v.line, "repo_url: %v", err)
			return
		}
		c.Nodes = []string{base}
	}
}

// host returns the host without a port, with the brackets of IPv6.
func host(u *url.URL) string {
	if h := u.Hostname(); strings.Contains(h, ":") {
		return "[" + h + "]"
	}
	return u.Hostname()
}

// wuamesh takes what is ours: where the nodes are and how to be let in.
func (c *Config) wuamesh(f sections) {
	if v, ok := f.lookup("wuamesh", "nodes"); ok {
		var nodes []string
		for n := range strings.FieldsFuncSeq(v.text, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
			base, err := parseNode(n)
			if err != nil {
				c.warn(v.line, "nodes: %v", err)
			} else if !slices.Contains(nodes, base) {
				nodes = append(nodes, base)
			}
		}
		if len(nodes) > 0 {
			c.Nodes = nodes
		}
	}
	if v, ok := f.lookup("wuamesh", "token"); ok && v.text != "" {
		if t, err := agentproto.ParseEnrollToken(v.text); err != nil {
			c.warn(v.line, "token: %v", err)
		} else {
			c.Token, c.Pin = t.String(), t.Pin
		}
	}
	if v, ok := f.lookup("wuamesh", "pin"); ok && v.text != "" {
		pin := strings.ToLower(v.text)
		if b, err := hex.DecodeString(pin); err != nil || len(b) != 32 {
			c.warn(v.line, "pin: want 64 hexadecimal digits")
		} else {
			c.Pin = pin
		}
	}
	for _, key := range byLine(f["wuamesh"]) {
		if known := map[string]func(string) error{"nodes": nil, "token": nil, "pin": nil}; !has(known, key) {
			c.warn(f["wuamesh"][key].line, "unknown key %q in [wuamesh]%s", clip(key), meant(key, known))
		}
	}
}

func has[V any](m map[string]V, key string) bool { _, ok := m[key]; return ok }

// parseNode reads a base URL, or a host with or without a port.
func parseNode(s string) (string, error) {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return "", fmt.Errorf("node %q: want https://host or https://host:port", clip(s))
	}
	return "https://" + u.Host, nil
}

// meant guesses which key a typing error stands for.
func meant[V any](key string, keys map[string]V) string {
	best := rules.Nearest(key, slices.Collect(maps.Keys(keys)))
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// clip bounds what a message repeats of its input.
func clip(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}
