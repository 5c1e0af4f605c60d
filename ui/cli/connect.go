package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"wuamesh/appliance"
	"wuamesh/appliance/api"
)

// A target is which node to ask, and how to print what it answers.
type target struct {
	node, token, pin, data string
	config                 string // of commands that work without a running node
	json                   bool
}

// flags declares what every command that asks a node takes.
func (t *target) flags(fs *flag.FlagSet) {
	fs.StringVar(&t.node, "node", "", "`address` of the node, https://host[:port]; default $WUAMESH_NODE, or the node on this machine")
	fs.StringVar(&t.token, "token", "", "API `token`; default $WUAMESH_TOKEN. A token on the command line can be seen by other users")
	fs.StringVar(&t.pin, "pin", "", "`fingerprint` of the mesh's authority; default $WUAMESH_PIN, or the system's authorities")
	fs.StringVar(&t.data, "data", "", "`directory` of the node on this machine; default /var/lib/wuamesh, then ./wuamesh-data")
	fs.BoolVar(&t.json, "json", false, "print the API's answer")
}

// configFlag is of commands that also work while no node runs.
func (t *target) configFlag(fs *flag.FlagSet) {
	fs.StringVar(&t.config, "config", "", "configuration `file` of the node on this machine; default "+appliance.ConfigPath+", where it exists")
}

// client connects to the node that flags and environment name, or else to the
// one on this machine, whose console file only its own user and root can read.
func (t *target) client(s Streams) (*api.Client, error) {
	o := api.ClientOptions{
		URL:   cmp.Or(t.node, s.Env("WUAMESH_NODE")),
		Token: cmp.Or(t.token, s.Env("WUAMESH_TOKEN")),
		Pin:   cmp.Or(t.pin, s.Env("WUAMESH_PIN")),
	}
	if o.URL == "" {
		c, err := t.console()
		if err != nil {
			return nil, err
		}
		o = api.ClientOptions{URL: c.URL, Token: cmp.Or(o.Token, c.Token), Pin: c.Pin}
	}
	if o.Token == "" {
		return nil, usage("%s asks for a token: set WUAMESH_TOKEN or give --token", o.URL)
	}
	return api.NewClient(o)
}

// console reads what the node on this machine left for its command line.
func (t *target) console() (c appliance.Console, err error) {
	dirs := []string{t.data}
	switch {
	case t.data != "":
	case t.config != "":
		cfg, err := appliance.ConfigSource{Path: t.config}.Load()
		if err != nil {
			return c, err
		}
		dirs = []string{cfg.Data}
	default:
		dirs = []string{appliance.DefaultConfig().Data, appliance.DevConfig().Data}
		if c, err := (appliance.ConfigSource{}).Load(); err == nil && c.Data != dirs[0] {
			dirs = append([]string{c.Data}, dirs...)
		}
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, appliance.ConsoleFile)
		b, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, fs.ErrPermission):
			return c, fmt.Errorf("%s may be read only by the node's user and root; use sudo, or --node with a token", path)
		case err != nil:
			return c, err
		}
		if err := json.Unmarshal(b, &c); err != nil {
			return c, fmt.Errorf("read %s: %w", path, err)
		}
		if !listens(c.URL) {
			continue // it was killed and left its file
		}
		return c, nil
	}
	return c, fmt.Errorf("%w (nothing in %v); start one with wuamesh serve, or name one with --node and --token", errNoNode, dirs)
}

// listens says whether anything is at the address of a node on this machine.
func listens(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	conn, err := net.DialTimeout("tcp", u.Host, 2*time.Second)
	if err != nil {
		return !errors.Is(err, syscall.ECONNREFUSED)
	}
	conn.Close()
	return true
}

var errNoNode = errors.New("no node runs on this machine")
