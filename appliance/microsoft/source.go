// Package microsoft fetches what Microsoft publishes, with suspicion: only
// from Microsoft's hosts or configured ones, resumed after a cut, and nothing
// shows in the folder before its size and digests were checked.
package microsoft

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// ScanCabURL is where Microsoft publishes the scan cab.
const ScanCabURL = "http://download.windowsupdate.com/microsoftupdate/v6/wsusscan/wsusscn2.cab"

// ScanCabName is the scan cab's name in the folder.
const ScanCabName = "wsusscn2.cab"

// hosts are Microsoft's update hosts; a leading dot stands for subdomains.
var hosts = []string{
	"windowsupdate.microsoft.com", ".windowsupdate.microsoft.com", ".update.microsoft.com", "windowsupdate.com", ".windowsupdate.com",
	"download.microsoft.com", "wustat.windows.com", "ntservicepack.microsoft.com", "go.microsoft.com",
	"dl.delivery.mp.microsoft.com", ".dl.delivery.mp.microsoft.com",
}

// Options say where downloads may go, and how.
type Options struct {
	Upstream string   // base URL of a mirror that stands for all of Microsoft's hosts; empty for none
	Hosts    []string // more hosts that may be asked: exact names, or ".suffix"
	Proxy    string   // http://[user:password@]host:port; empty for none
	NoProxy  []string // hosts, .suffixes and networks that are asked directly
	Log      *slog.Logger
	Roots    []*x509.Certificate // that scan cabs may be signed below, besides Microsoft's own
}

// A Source is where files come from.
type Source struct {
	upstream *url.URL
	hosts    []string
	http     *http.Client
	log      *slog.Logger
	roots    []*x509.Certificate
	flights  flights
}

// NewSource checks the options; it does not call yet.
func NewSource(o Options) (*Source, error) {
	s := &Source{hosts: append(hosts[:len(hosts):len(hosts)], o.Hosts...), roots: o.Roots, log: o.Log.With("part", "microsoft")}
	if o.Upstream != "" {
		u, err := url.Parse(o.Upstream)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" {
			return nil, fmt.Errorf("upstream %q: want http://host/path or https://host/path", o.Upstream)
		}
		s.upstream = u
	}
	proxy := func(*http.Request) (*url.URL, error) { return nil, nil }
	if o.Proxy != "" {
		u, err := url.Parse(o.Proxy)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, errors.New("proxy: want http://host:port or http://user:password@host:port")
		}
		conf := httpproxy.Config{HTTPProxy: o.Proxy, HTTPSProxy: o.Proxy, NoProxy: strings.Join(o.NoProxy, ",")}
		choose := conf.ProxyFunc()
		proxy = func(r *http.Request) (*url.URL, error) { return choose(r.URL) }
	}
	s.http = &http.Client{
		CheckRedirect: s.redirect,
		Transport: &http.Transport{
			Proxy:                  proxy,
			DialContext:            (&net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout:    20 * time.Second,
			ResponseHeaderTimeout:  60 * time.Second,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true, // ranges are of the file as it is
		},
	}
	return s, nil
}

// A NotAllowedError is a URL that is not followed.
type NotAllowedError struct{ URL, Why string }

func (e *NotAllowedError) Error() string {
	return fmt.Sprintf("%.200s is not followed: %s", e.URL, e.Why)
}

// CheckURL says whether a URL that a host reported may be followed: only to
// Microsoft's update hosts and configured ones, on the usual ports. An agent
// must never make the node fetch anything else.
func (s *Source) CheckURL(raw string) (*url.URL, error) {
	no := func(why string) (*url.URL, error) { return nil, &NotAllowedError{raw, why} }
	if len(raw) > 2000 || strings.ContainsAny(raw, "\\ \t\r\n") {
		return no("it is malformed")
	}
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" {
		return no("it is malformed")
	}
	host := strings.ToLower(u.Hostname())
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return no("only http and https are")
	case u.User != nil || u.Fragment != "":
		return no("it names a user or a fragment")
	case u.Port() != "" && (u.Scheme != "http" || u.Port() != "80") && (u.Scheme != "https" || u.Port() != "443"):
		return no("port " + u.Port() + " is not Microsoft's")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return no("it names an address instead of a host")
	}
	for _, h := range s.hosts {
		if host == h || strings.HasPrefix(h, ".") && strings.HasSuffix(host, h) {
			return u, nil
		}
	}
	return no("host " + host + " is none of Microsoft's update hosts")
}

// redirect follows at most five redirects, to allowed URLs alone. A mirror's
// own redirects stay on the mirror.
func (s *Source) redirect(r *http.Request, via []*http.Request) error {
	if len(via) >= 5 {
		return errors.New("redirected more than five times")
	}
	if s.upstream != nil && r.URL.Host == s.upstream.Host && r.URL.Scheme == s.upstream.Scheme {
		return nil
	}
	_, err := s.CheckURL(r.URL.String())
	return err
}

// at is where a URL of Microsoft's is really asked.
func (s *Source) at(u *url.URL) string {
	if s.upstream == nil {
		return u.String()
	}
	m := *s.upstream
	m.Path = strings.TrimSuffix(m.Path, "/") + u.Path
	m.RawQuery = u.RawQuery
	return m.String()
}

func (s *Source) request(ctx context.Context, raw string) (*http.Request, error) {
	u, err := s.CheckURL(raw)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.at(u), nil)
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", raw, err)
	}
	req.Header.Set("User-Agent", "wuamesh")
	return req, nil
}

var digestInName = regexp.MustCompile(`_([0-9a-f]{40})\.[A-Za-z0-9]+$`)

// NameFromURL returns the file's name, the last segment of its URL, and the
// SHA-1 that Microsoft writes into it before the extension; nil when there is
// none.
func NameFromURL(raw string) (name string, sha1 []byte, err error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", nil, fmt.Errorf("name in %.200s: %w", raw, err)
	}
	name = path.Base(u.Path)
	if err := CheckName(name); err != nil {
		return "", nil, err
	}
	if m := digestInName.FindStringSubmatch(strings.ToLower(name)); m != nil {
		sha1, _ = hex.DecodeString(m[1])
	}
	return name, sha1, nil
}

var (
	safeName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+()~,-]{0,199}$`)
	deviceNames = regexp.MustCompile(`(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)`)
)

// CheckName says whether name is a flat file name such as Microsoft gives:
// no separators, no leading dot, no name of a Windows device.
func CheckName(name string) error {
	if !safeName.MatchString(name) || deviceNames.MatchString(name) || strings.HasSuffix(name, ".") {
		return fmt.Errorf("%.200q is no file name of Microsoft's", name)
	}
	return nil
}
