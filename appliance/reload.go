package appliance

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"wuamesh/appliance/microsoft"
)

// needRestart are the keys that only a restart changes: what the process
// holds from its start to its end.
var needRestart = []string{"data", "folder", "listen_https", "listen_http"}

// wayToMicrosoft are the keys after whose change a failed download is worth
// another try at once.
var wayToMicrosoft = []string{"internet", "upstream", "sources", "proxy", "no_proxy", "disk_floor", "roots"}

// A Reloaded says what a reload did.
type Reloaded struct {
	Changed []string `json:"changed"` // keys that have another value now
	Restart []string `json:"restart"` // keys that changed in the file and wait for a restart
}

// config is what the node goes by now. Keys that need a restart have the
// values of the start.
func (a *Appliance) config() *Config { return a.live.Load() }

// use makes cfg what the node goes by, or returns what is wrong with it and
// changes nothing.
func (a *Appliance) use(cfg Config) error {
	source, err := newSource(cfg, a.base)
	if err != nil {
		return err
	}
	var cert *tls.Certificate
	if cfg.TLSCert != "" {
		c, err := tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey)
		if err != nil {
			return &Problem{Kind: Invalid, Field: "tls_cert", Msg: fmt.Sprintf("The certificate %s with key %s cannot be used: %v.", cfg.TLSCert, cfg.TLSKey, err), Hint: "Both are PEM files that the node's user may read; the key belongs to the certificate."}
		}
		cert = &c
	}
	if cfg.Level != nil {
		if err := cfg.Level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
			return &Problem{Kind: Invalid, Field: "log_level", Msg: fmt.Sprintf("%q is no log level.", cfg.LogLevel), Err: err}
		}
	}
	a.source.Store(source)
	a.browsers.Store(cert)
	a.live.Store(&cfg)
	return nil
}

func newSource(cfg Config, log *slog.Logger) (*microsoft.Source, error) {
	roots, err := microsoft.ReadRoots(cfg.Roots)
	if err != nil {
		return nil, &Problem{Kind: Invalid, Field: "roots", Msg: fmt.Sprintf("The root certificates cannot be used: %s.", lastWords(err)), Hint: "roots names PEM files that the node's user may read.", Err: err}
	}
	s, err := microsoft.NewSource(microsoft.Options{Upstream: cfg.Upstream, Hosts: cfg.Sources, Proxy: cfg.Proxy, NoProxy: cfg.NoProxy, Roots: roots, Log: log})
	if err != nil {
		return nil, &Problem{Kind: Invalid, Field: "proxy", Msg: "The configuration does not hold: " + err.Error() + "."}
	}
	return s, nil
}

// WithoutPassword is a proxy's address as it may be shown.
func WithoutPassword(proxy string) string {
	u, err := url.Parse(proxy)
	if err != nil {
		return "(not an address)"
	}
	return u.Redacted()
}

// Reload reads the configuration again: it is checked as a whole before
// anything changes, so a wrong one leaves the node as it is.
func (a *Appliance) Reload(ctx context.Context, by Actor) (r Reloaded, err error) {
	if err := by.need(Owner); err != nil {
		return r, err
	}
	if !a.cfg.loaded {
		return r, &Problem{Kind: Conflict, Msg: "This node was not started from a configuration file.", Hint: "Restart it with what it should have."}
	}
	next, err := a.cfg.source.Load()
	if err != nil {
		return r, err
	}
	return a.change(ctx, by, next)
}

// change goes over to next, but for what needs a restart.
func (a *Appliance) change(ctx context.Context, by Actor, next Config) (r Reloaded, err error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	now := *a.config()
	next.Level = now.Level
	if err := a.fillIn(ctx, &next); err != nil {
		return r, err
	}
	r.Changed, r.Restart = []string{}, []string{}
	is, was, want := reflect.ValueOf(now), reflect.ValueOf(a.cfg), reflect.ValueOf(&next).Elem()
	for f := range reflect.TypeFor[Config]().Fields() {
		key := f.Tag.Get("toml")
		if key == "" || key == "-" || reflect.DeepEqual(is.FieldByIndex(f.Index).Interface(), want.FieldByIndex(f.Index).Interface()) {
			continue
		}
		if slices.Contains(needRestart, key) {
			r.Restart = append(r.Restart, key)
			want.FieldByIndex(f.Index).Set(was.FieldByIndex(f.Index))
			continue
		}
		r.Changed = append(r.Changed, key)
	}
	if err := a.use(next); err != nil {
		return r, err
	}
	if err := a.auth.rename(next); err != nil {
		return r, err
	}
	if slices.ContainsFunc(r.Changed, func(key string) bool { return slices.Contains(wayToMicrosoft, key) }) {
		a.folder.tryNow()
	}
	if slices.Contains(r.Changed, "roots") {
		a.folder.judgeCabAnew()
	}
	a.folder.changed()
	if a.Member() {
		if err := a.announce(ctx); err != nil {
			return r, err
		}
	}
	a.log.InfoContext(ctx, "configuration read", "by", by.Name, "changed", strings.Join(r.Changed, " "), "restart", strings.Join(r.Restart, " "))
	return r, nil
}
