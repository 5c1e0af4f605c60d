package appliance

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"wuamesh/replicate"
)

// setupLife is how long a setup link is good.
const setupLife = 24 * time.Hour

// A setupDoor is the secret of the setup link while there is no admin. The
// zero value lets nobody in.
type setupDoor struct {
	mu     sync.Mutex
	secret string
	until  time.Time
}

func (d *setupDoor) renew() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.secret, d.until = rand.Text(), time.Now().Add(setupLife)
}

func (d *setupDoor) opens(secret string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.secret != "" && time.Now().Before(d.until) && subtle.ConstantTimeCompare([]byte(secret), []byte(d.secret)) == 1
}

func (d *setupDoor) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.secret
}

// NeedsSetup says that no admin exists yet, and none is on the way from a mesh
// that the node has joined.
func (a *Appliance) NeedsSetup() bool {
	m := a.member.Load()
	return !a.cat.hasAdmin() && (m == nil || m.Synced)
}

// SetupLink is the one-time link of the setup page, good until used, at most
// a day; empty once an admin exists.
func (a *Appliance) SetupLink() string {
	if !a.NeedsSetup() {
		return ""
	}
	return a.lanURL() + "/setup?secret=" + a.setup.text()
}

// NewSetupLink makes a fresh link, good for a day, in place of the last one.
func (a *Appliance) NewSetupLink(ctx context.Context, by Actor) (string, error) {
	if err := by.need(Owner); err != nil {
		return "", err
	}
	if !a.NeedsSetup() {
		return "", &Problem{Kind: Conflict, Msg: a.NodeName() + " is set up already.", Hint: "Log in at " + a.lanURL() + "; an owner makes more admins under Access."}
	}
	a.setup.renew()
	link := a.SetupLink()
	a.log.InfoContext(ctx, "a fresh setup link was asked for", "by", by.Name)
	return link, writeMotd(link)
}

// lanURL is where browsers of the branch find the node.
func (a *Appliance) lanURL() string {
	addr := a.https.Addr().(*net.TCPAddr)
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = cmp.Or(firstName(a.config().Names), firstAddress(), "localhost")
	}
	if addr.Port == 443 {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return "https://" + host
	}
	return "https://" + net.JoinHostPort(host, fmt.Sprint(addr.Port))
}

func firstName(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

// firstAddress is the first address of this machine that others can reach,
// IPv4 before IPv6; empty when it has none.
func firstAddress() string {
	first := ""
	for _, ip := range localAddresses() {
		if ip.IsLoopback() {
			continue
		}
		if ip.To4() != nil {
			return ip.String()
		}
		first = cmp.Or(first, ip.String())
	}
	return first
}

// SetUp makes the first admin; secret is the one of the setup link.
func (a *Appliance) SetUp(ctx context.Context, secret, name, password string) error {
	if err := a.MaySetUp(secret); err != nil {
		return err
	}
	rec, err := newAdmin(name, password, Owner)
	if err != nil {
		return err
	}
	if err := a.ensureFounded(ctx, Actor{Name: name, Role: Owner}); err != nil {
		return err
	}
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		for range admins.all(tx, "") {
			return errSetupGone // someone was quicker
		}
		rec.Created = tx.Now()
		if err := admins.put(tx, name, rec); err != nil {
			return err
		}
		return a.audit(tx, Actor{Name: name, Role: Owner}, "make first admin", "admin "+name, "", string(Owner))
	})
	if err != nil {
		return err
	}
	if err := removeMotd(); err != nil {
		a.log.WarnContext(ctx, "the used setup link is still shown at login", "err", err)
	}
	return nil
}

var errSetupGone = &Problem{Kind: Denied, Msg: "This setup link is not good any more.", Hint: "On the node, sudo wuamesh setup-link prints a fresh one."}

// MaySetUp says whether secret is the one of a good setup link.
func (a *Appliance) MaySetUp(secret string) error {
	if !a.NeedsSetup() || !a.setup.opens(secret) {
		return errSetupGone
	}
	return nil
}

// Answers are what the setup page asks about the node. Keys that the
// configuration file sets win over them.
type Answers struct {
	Name     string `json:"name"`
	Site     string `json:"site"`
	Internet bool   `json:"internet"`
	Proxy    string `json:"proxy"`
}

// Answers returns what holds now, and which of name, site, internet and proxy
// the configuration file has decided.
func (a *Appliance) Answers() (now Answers, decided map[string]bool) {
	c := a.config()
	return Answers{Name: c.Name, Site: c.Site, Internet: c.Internet, Proxy: c.Proxy}, a.cfg.given
}

// with returns c with what the answers say about keys that the file leaves
// open, checked.
func (n Answers) with(c Config) (Config, error) {
	settle(c.given, "name", &c.Name, n.Name)
	settle(c.given, "site", &c.Site, n.Site)
	settle(c.given, "internet", &c.Internet, n.Internet)
	settle(c.given, "proxy", &c.Proxy, n.Proxy)
	return c, c.Validate()
}

// typed is what somebody means who was shown the proxy without its password: one
// that stays as it was shown stays as it is.
func (n Answers) typed(now Config) Answers {
	if n.Proxy = strings.TrimSpace(n.Proxy); n.Proxy != "" && n.Proxy == WithoutPassword(now.Proxy) {
		n.Proxy = now.Proxy
	}
	return n
}

// String says it for the audit log.
func (n Answers) String() string {
	text := fmt.Sprintf("name %s, site %s, %s", n.Name, n.Site, or(n.Internet, "may download from Microsoft", "gets files from other nodes"))
	if n.Proxy != "" {
		text += ", proxy " + WithoutPassword(n.Proxy)
	}
	return text
}

// Answer keeps the answers and goes by them at once. They are checked before
// anything changes.
func (a *Appliance) Answer(ctx context.Context, by Actor, n Answers) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	n = n.typed(*a.config())
	next, err := n.with(*a.config())
	if err != nil {
		return err
	}
	if _, err := newSource(next, a.base); err != nil {
		return err
	}
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		old, ok, err := answers.find(tx, "node")
		if err != nil {
			return err
		}
		was := ""
		if ok {
			was = old.String()
		}
		return errors.Join(answers.put(tx, "node", n), a.audit(tx, by, "set up node", "node "+next.Name, was, n.String()))
	})
	if err != nil {
		return err
	}
	_, err = a.change(ctx, by, next)
	return err
}

// fillIn completes a configuration: with what the pages were told where the
// file says nothing, and with the machine's name.
func (a *Appliance) fillIn(ctx context.Context, c *Config) error {
	err := a.db.View(ctx, func(tx *replicate.Tx) error {
		n, ok, err := answers.find(tx, "node")
		if ok && err == nil {
			*c, err = n.with(*c)
		}
		if err != nil {
			return err
		}
		s, ok, err := storages.find(tx, "node")
		if ok && err == nil {
			*c, err = s.with(*c)
		}
		return err
	})
	if err != nil {
		return err
	}
	if c.Name == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("name of this machine: %w", err)
		}
		c.Name, _, _ = strings.Cut(name, ".")
	}
	c.Site = cmp.Or(c.Site, c.Name)
	return nil
}

// motdPath is what is shown at login on this machine; empty where systemd
// gave the node no directory for it.
func motdPath() string {
	dir, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "motd")
}

// writeMotd shows the setup link at login. The file is the node's user's
// alone: login reads it as root, and a link that made the first admin is not
// for everybody with an account.
func writeMotd(link string) error {
	path := motdPath()
	if path == "" {
		return nil
	}
	text := fmt.Sprintf("\nwuamesh is not set up yet. Open this link once to make the first admin:\n\n    %s\n\nsudo wuamesh setup-link prints a fresh one.\n\n", link)
	return os.WriteFile(path, []byte(text), 0o600)
}

func removeMotd() error {
	path := motdPath()
	if path == "" {
		return nil
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
