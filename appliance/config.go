package appliance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// Config is what one node must be told to start. Everything the mesh agrees on
// is a record instead, changed on the pages.
type Config struct {
	Name          string   `toml:"name"`
	Site          string   `toml:"site"`
	Data          string   `toml:"data"`
	Folder        string   `toml:"folder"`
	ListenHTTPS   string   `toml:"listen_https"`
	ListenHTTP    string   `toml:"listen_http"`
	Advertise     []string `toml:"advertise"`
	Names         []string `toml:"names"`
	TLSCert       string   `toml:"tls_cert"`
	TLSKey        string   `toml:"tls_key"`
	Internet      bool     `toml:"internet"`
	Placement     string   `toml:"placement"`
	Upstream      string   `toml:"upstream"`
	Sources       []string `toml:"sources"`
	Roots         []string `toml:"roots"`
	Proxy         string   `toml:"proxy"`
	NoProxy       []string `toml:"no_proxy"`
	CleanupKBs    bool     `toml:"cleanup_kbs"`
	DiskFloor     Size     `toml:"disk_floor"`
	Quota         Size     `toml:"quota"`
	Copies        int      `toml:"copies"`
	FolderListing bool     `toml:"folder_listing"`
	AgentMSI      string   `toml:"agent_msi"`
	LogLevel      string   `toml:"log_level"`

	// Level, where it is set, follows LogLevel.
	Level *slog.LevelVar `toml:"-"`
	// Dial, where it is set, opens the connections to other nodes: the
	// demonstration cuts lines with it.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error) `toml:"-"`

	// Now, where it is set, is the clock that records are stamped with: tests
	// spend months with it.
	Now func() time.Time `toml:"-"`

	source ConfigSource
	loaded bool            // from source
	given  map[string]bool // keys that the file sets
}

// A ConfigSource is where a configuration comes from: what the flags of the
// commands that read one say.
type ConfigSource struct {
	Path string // of the file; empty for [ConfigPath] where that exists
	Dev  bool   // defaults that need no root
	Data string // directory instead of the one configured; empty for that
}

// ConfigPath is where the package installs the configuration.
const ConfigPath = "/etc/wuamesh/wuamesh.toml"

// Load reads the configuration. What is wrong with it is a [Problem] that
// names the line.
func (s ConfigSource) Load() (c Config, err error) {
	c, path := DefaultConfig(), s.Path
	if s.Dev {
		c = DevConfig()
	} else if _, err := os.Stat(ConfigPath); path == "" && !errors.Is(err, os.ErrNotExist) {
		path = ConfigPath
	}
	if path != "" {
		if c, err = LoadConfig(path, c); err != nil {
			return c, err
		}
	}
	if c.source, c.loaded = s, true; s.Data != "" {
		c.Data = s.Data
	}
	return c, nil
}

// Size is a number of bytes, written as "500 MB" or "2 GiB".
type Size int64

var units = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *Size) UnmarshalText(b []byte) error {
	for _, u := range units {
		if num, ok := strings.CutSuffix(string(b), u.name); ok {
			var f float64
			if _, err := fmt.Sscanf(strings.TrimSpace(num)+"\n", "%g\n", &f); err != nil || f < 0 || f > 1e6 {
				break
			}
			*s = Size(f * float64(u.bytes))
			return nil
		}
	}
	return fmt.Errorf("%q is no size such as \"500 MB\" or \"2 GiB\"", b)
}

// String writes a size so that [Size.UnmarshalText] reads the same, in the
// unit of which it is the smallest whole number.
func (s Size) String() string {
	n, name := int64(s), "B"
	for _, u := range units {
		if whole := int64(s) / u.bytes; whole > 0 && int64(s)%u.bytes == 0 && whole < n {
			n, name = whole, u.name
		}
	}
	return fmt.Sprintf("%d %s", n, name)
}

// DefaultConfigText is every key with its default and what it means.
const DefaultConfigText = `# wuamesh.toml: what this node must be told to start. Everything else is set on
# its pages. A key that is absent has the value written here, or the one that
# the pages Setup and Settings were told; one that is set here wins over both.

# What the node is called on the pages. Empty: the machine's host name.
name = ""

# The branch the node is in: nodes of one site share a LAN. Empty: as
# given on joining, else the name.
site = ""

# Directory of the node's records and keys; backed up with "wuamesh backup".
data = "/var/lib/wuamesh"

# Folder of the scan cab and the update files, served at /waptwua/.
folder = "/var/www/waptwua"

# Addresses to listen on: pages, API, agents and other nodes; the folder alone.
listen_https = ":443"
listen_http = ":80"

# Where other nodes may call this one, "host:port", the best first; behind NAT
# the outer address. Empty: every address of this machine. A node that nobody
# can call is reached by the connections it opens itself.
advertise = []

# More names and addresses that browsers and agents use for this node. Other
# nodes lead browsers to the first.
names = []

# Certificate and key for browsers, PEM. Empty: one signed by the node itself.
tls_cert = ""
tls_key = ""

# Whether this node may download from Microsoft.
internet = true

# What the folder keeps: "all" that any host of the mesh needs, or "local", what
# the agents of this node ask for, fetched from other nodes when they do.
placement = "all"

# A mirror that stands for all of Microsoft's hosts, http://host/path.
upstream = ""

# More hosts that update files may come from, exact or ".suffix".
sources = []

# Root certificates, PEM files, that the scan cab may be signed below besides
# Microsoft's own: for a mirror that signs anew.
roots = []

# Proxy towards Microsoft, http://user:password@host:port, and what bypasses it.
proxy = ""
no_proxy = []

# Delete files no host needs, every night between 2:30 and 3:30.
cleanup_kbs = true

# Space on the folder's disk that downloads leave free.
disk_floor = "2 GiB"

# How much the folder may hold; "0 B" is as much as the disk has. What fewest
# hosts need goes first, and comes back when a host asks. Of what hosts need,
# this many nodes keep a copy, quota or not.
quota = "0 B"
copies = 2

# Show a listing at /waptwua/.
folder_listing = false

# The agent's installer for Windows, served at /agent/wuamesh-agent.msi.
agent_msi = "/usr/share/wuamesh/wuamesh-agent.msi"

# debug, info, warn or error.
log_level = "info"
`

var keyLine = regexp.MustCompile(`(?m)^[a-z_]+ = `)

// ShippedConfigText is the file that ships: [DefaultConfigText] with every
// key commented out, so that an upgrade asks about keys an admin did set.
func ShippedConfigText() string { return keyLine.ReplaceAllString(DefaultConfigText, "#$0") }

// DefaultConfig is what holds where the file says nothing.
func DefaultConfig() Config {
	var c Config
	if err := toml.Unmarshal([]byte(DefaultConfigText), &c); err != nil {
		panic(err) // a test reads it too
	}
	return c
}

// DevConfig needs no root and no directories but the one it runs in.
func DevConfig() Config {
	c := DefaultConfig()
	c.Data, c.Folder = "wuamesh-data", filepath.Join("wuamesh-data", "waptwua")
	c.AgentMSI = filepath.Join("packaging", "out", "wuamesh-agent.msi")
	c.ListenHTTPS, c.ListenHTTP = "127.0.0.1:8443", "127.0.0.1:8080"
	return c
}

// LoadConfig reads a configuration file over base. What is wrong with it is a
// [Problem] that names the line.
func LoadConfig(path string, base Config) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return base, &Problem{Kind: Invalid, Msg: fmt.Sprintf("The configuration %s cannot be read: %s.", path, reason(err)), Hint: "Make it, or name another with --config.", Err: err}
	}
	d := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields()
	err = d.Decode(&base)
	var strict *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &strict):
		e := strict.Errors[0]
		line, _ := e.Position()
		key := strings.Join(e.Key(), ".")
		return base, &Problem{Kind: Invalid, Field: key, Msg: fmt.Sprintf("%s, line %d: there is no key %q.", path, line, key), Hint: fmt.Sprintf("Did you mean %q?", nearestKey(key))}
	case errors.As(err, &wrong):
		line, _ := wrong.Position()
		key := strings.Join(wrong.Key(), ".")
		what := strings.TrimPrefix(wrong.Error(), "toml: ")
		if form := formOf(key); form != "" && strings.HasPrefix(what, "cannot decode") {
			what = key + " takes " + form
		}
		return base, &Problem{Kind: Invalid, Field: key, Msg: fmt.Sprintf("%s, line %d: %s.", path, line, what), Hint: "The shipped file shows every key with its form."}
	case err != nil:
		return base, &Problem{Kind: Invalid, Msg: fmt.Sprintf("%s: %v.", path, err)}
	}
	var keys map[string]any
	if err := toml.Unmarshal(b, &keys); err != nil {
		return base, fmt.Errorf("read the keys of %s: %w", path, err)
	}
	base.given = map[string]bool{}
	for key := range keys {
		base.given[key] = true
	}
	return base, base.Validate()
}

// formOf says what a key takes; empty for a key that there is not.
func formOf(key string) string {
	for f := range reflect.TypeFor[Config]().Fields() {
		if f.Tag.Get("toml") != key {
			continue
		}
		switch f.Type.Kind() {
		case reflect.Bool:
			return "true or false"
		case reflect.Slice:
			return `a list of texts in quotes such as ["a", "b"]`
		}
		return "text in quotes"
	}
	return ""
}

// nearestKey is the known key with the fewest edits to the given one.
func nearestKey(key string) string {
	best, least := "", 1<<30
	for f := range reflect.TypeFor[Config]().Fields() {
		name := f.Tag.Get("toml")
		if d := edits(key, name); name != "" && name != "-" && d < least {
			best, least = name, d
		}
	}
	return best
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := before
			if a[i] != b[j] {
				cost++
			}
			before = row[j+1]
			row[j+1] = min(cost, row[j]+1, before+1)
		}
	}
	return row[len(b)]
}

// Validate reports everything that is wrong, not only the first thing.
func (c Config) Validate() error {
	var wrong []string
	bad := func(key, format string, args ...any) {
		wrong = append(wrong, key+": "+fmt.Sprintf(format, args...))
	}
	if c.Data == "" {
		bad("data", "a directory is needed")
	}
	if c.Folder == "" {
		bad("folder", "a directory is needed")
	}
	for key, addr := range map[string]string{"listen_https": c.ListenHTTPS, "listen_http": c.ListenHTTP} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			bad(key, "%q is no address such as \":8443\" or \"10.0.0.5:443\"", addr)
		}
	}
	for _, addr := range c.Advertise {
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" || len(addr) > 200 {
			bad("advertise", "%q is no address such as \"rns.example.org:443\" or \"10.0.0.5:443\"", addr)
		}
	}
	if len(c.Advertise) > 16 || len(c.Site) > 64 {
		bad("advertise", "at most 16 addresses, and a site of 64 characters")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		bad("tls_cert", "certificate and key come together")
	}
	if c.Placement != "all" && c.Placement != "local" {
		bad("placement", "%q is neither all nor local", c.Placement)
	}
	if c.Copies < 1 || c.Copies > 100 {
		bad("copies", "%d is not between 1 and 100", c.Copies)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		bad("log_level", "%q is none of debug, info, warn, error", c.LogLevel)
	}
	if len(wrong) > 0 {
		return &Problem{Kind: Invalid, Msg: "The configuration does not hold: " + strings.Join(wrong, "; ") + "."}
	}
	return nil
}
