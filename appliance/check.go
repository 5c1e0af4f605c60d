package appliance

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
	"wuamesh/replicate/swarm"
)

// A Check is one thing a node needs from its surroundings, and whether it is
// so. The setup page, wuamesh doctor and the API show the same ones.
type Check struct {
	Name   string      `json:"name"`
	Result CheckResult `json:"result"`
	Text   string      `json:"text"`           // what was found, one sentence
	Hint   string      `json:"hint,omitempty"` // what to do
}

// CheckResult is how a check ended.
type CheckResult string

// The results of checks.
const (
	CheckOK      CheckResult = "ok"
	CheckWarning CheckResult = "warning" // it works, and could be better
	CheckFailed  CheckResult = "failed"
	CheckSkipped CheckResult = "skipped" // does not apply
)

// checkTime bounds all checks together.
const checkTime = 30 * time.Second

// Check looks at the node's surroundings as it is, or as it would be with the
// answers; nil for none.
func (a *Appliance) Check(ctx context.Context, n *Answers) ([]Check, error) {
	cfg := *a.config()
	if n != nil {
		var err error
		if cfg, err = n.typed(cfg).with(cfg); err != nil {
			return nil, err
		}
	}
	list, err := CheckMachine(ctx, cfg, a.base)
	if err != nil {
		return nil, err
	}
	v := a.folder.cabView()
	for i, c := range list {
		switch {
		case c.Name != "scan cab" || c.Result == CheckFailed:
		case v.Refused != "":
			list[i] = Check{c.Name, CheckWarning, v.Refused, v.RefusedHint}
		case v.Catalogue.Error != "":
			list[i] = Check{c.Name, CheckWarning, v.Catalogue.Error, v.Catalogue.Hint}
		}
	}
	list = append(list, a.checkListeners(ctx)...)
	list = append(list, a.checkPeers(ctx))
	if len(a.roster.living()) > 1 {
		list = append(list, a.checkDialBack(ctx))
	}
	return list, nil
}

// CheckMachine is what can be checked where no node runs.
func CheckMachine(ctx context.Context, cfg Config, log *slog.Logger) ([]Check, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	source, err := newSource(cfg, log)
	if err != nil {
		return nil, err
	}
	upstream, date := checkMicrosoft(ctx, cfg, source)
	return append(upstream,
		checkClock(date, time.Now()),
		checkWritable("folder", "folder", cfg.Folder),
		checkWritable("data", "data directory", cfg.Data),
		checkSpace(cfg),
		checkCab(cfg, source),
		checkName(ctx, cfg),
		checkBBR(),
	), nil
}

// checkMicrosoft tries what a download needs, and says which part fails:
// the name, the proxy, or what is behind it.
func checkMicrosoft(ctx context.Context, cfg Config, source *microsoft.Source) (list []Check, date time.Time) {
	if !cfg.Internet {
		return []Check{{Name: "Microsoft", Result: CheckSkipped, Text: "This node does not download from Microsoft; other nodes bring it the files."}}, date
	}
	through := ""
	if cfg.Proxy != "" {
		through = " through " + WithoutPassword(cfg.Proxy)
	}
	got, err := source.Probe(ctx)
	proxy := checkProxy(cfg, got, err)
	if cfg.Proxy != "" {
		list = append(list, proxy)
		if proxy.Result == CheckFailed {
			return append(list, Check{Name: "Microsoft", Result: CheckFailed, Text: "Microsoft cannot be asked: the proxy comes first.", Hint: proxy.Hint}), date
		}
	}
	where := "Microsoft"
	if cfg.Upstream != "" {
		where = "the mirror " + cfg.Upstream
	}
	c := Check{Name: "Microsoft", Result: CheckOK, Text: fmt.Sprintf("%s answers%s.", upper(where), through)}
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		c.Result, c.Text = CheckFailed, fmt.Sprintf("The name %s cannot be resolved.", dns.Name)
		c.Hint = "Look at the name servers of this machine, or set a proxy if it has no way to the internet of its own."
	case err != nil:
		c.Result, c.Text = CheckFailed, fmt.Sprintf("%s cannot be reached%s: %s.", upper(where), through, lastWords(err))
		c.Hint = "Let the firewall pass ports 80 and 443 to Microsoft's update hosts, or set a proxy."
	case got.Status == http.StatusForbidden || got.Status == http.StatusUnavailableForLegalReasons:
		c.Result, c.Text = CheckFailed, fmt.Sprintf("Something on the way to %s forbids it (status %d)%s.", where, got.Status, through)
		c.Hint = "Allow .windowsupdate.com, .update.microsoft.com and .delivery.mp.microsoft.com on the proxy or filter."
	case got.Status != http.StatusOK && got.Status != http.StatusPartialContent:
		c.Result, c.Text = CheckFailed, fmt.Sprintf("%s answers with status %d%s.", upper(where), got.Status, through)
		c.Hint = "Try again later; if it stays, look what answers in Microsoft's place."
	}
	return append(list, c), got.Date
}

func checkProxy(cfg Config, got microsoft.Reached, err error) Check {
	c := Check{Name: "proxy", Result: CheckOK, Text: "The proxy " + WithoutPassword(cfg.Proxy) + " accepts this node."}
	var op *net.OpError
	var dns *net.DNSError
	u, _ := url.Parse(cfg.Proxy)
	switch {
	case got.Status == http.StatusProxyAuthRequired || err != nil && strings.Contains(err.Error(), "Proxy Authentication Required"):
		c.Result, c.Text, c.Hint = CheckFailed, "The proxy "+WithoutPassword(cfg.Proxy)+" wants a name and a password, or others.", "Write them into its address: http://name:password@host:port."
	case errors.As(err, &dns) && u != nil && dns.Name == u.Hostname():
		c.Result, c.Text, c.Hint = CheckFailed, "The proxy's name "+dns.Name+" cannot be resolved.", "Correct it, or write the proxy's address."
	case errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect"):
		c.Result, c.Text, c.Hint = CheckFailed, fmt.Sprintf("The proxy %s cannot be reached: %s.", WithoutPassword(cfg.Proxy), lastWords(err)), "Correct its address and port, or let the firewall pass this node to it."
	case err != nil:
		c.Result, c.Text, c.Hint = CheckWarning, fmt.Sprintf("The proxy %s takes the request and brings no answer: %s.", WithoutPassword(cfg.Proxy), lastWords(err)), "Look at the proxy's own log."
	}
	return c
}

// lastWords is what the operating system or the library said in the end.
func lastWords(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// checkClock compares with the date in an answer. Seconds pass on the way.
func checkClock(there, here time.Time) Check {
	c := Check{Name: "clock", Result: CheckOK, Text: "The clock is right."}
	off := here.Sub(there).Abs().Round(time.Second)
	switch {
	case there.IsZero():
		c.Result, c.Text = CheckSkipped, "Nobody could be asked for the time."
	case off > 2*time.Minute:
		c.Result, c.Text, c.Hint = CheckFailed, fmt.Sprintf("This machine's clock is off by %s.", off), "Switch time synchronisation on: timedatectl set-ntp true. Certificates and the order of edits depend on it."
	case off > 5*time.Second:
		c.Result, c.Text, c.Hint = CheckWarning, fmt.Sprintf("This machine's clock is off by %s.", off), "timedatectl shows whether it is synchronised."
	}
	return c
}

// checkWritable writes a file to the disk and takes it away again.
func checkWritable(name, what, dir string) Check {
	c := Check{Name: name, Result: CheckOK, Text: fmt.Sprintf("The %s %s can be written.", what, dir)}
	f, err := os.CreateTemp(dir, ".check-*")
	if err == nil {
		_, err = f.WriteString("wuamesh")
		err = errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
	}
	if err == nil {
		return c
	}
	c.Result, c.Text = CheckFailed, fmt.Sprintf("The %s %s cannot be written: %s.", what, dir, reason(err))
	c.Hint = fmt.Sprintf("Give it to the service's user: chown wuamesh: %s; where it is not the default also ReadWritePaths=, see man wuamesh.", dir)
	switch {
	case errors.Is(err, syscall.ENOSPC):
		c.Hint = "Make room on its disk."
	case errors.Is(err, os.ErrNotExist):
		c.Hint = "It is made when the node starts; if it runs, look at " + filepath.Dir(dir) + "."
	}
	return c
}

func checkSpace(cfg Config) Check {
	c := Check{Name: "disk space", Result: CheckOK}
	free, err := microsoft.Free(cfg.Folder)
	floor := int64(cfg.DiskFloor)
	switch {
	case err != nil:
		c.Result, c.Text = CheckFailed, "The space on the folder's disk cannot be read: "+reason(err)+"."
	case free < floor:
		c.Result, c.Text = CheckFailed, fmt.Sprintf("%s are free, below the floor of %s: nothing is downloaded.", bytesText(free), bytesText(floor))
		c.Hint = "Make room, put the folder on a larger disk, or lower disk_floor."
	case free < floor+20e9:
		c.Result, c.Text = CheckWarning, fmt.Sprintf("%s are free. A month of updates for a mixed branch takes 10 to 30 GB.", bytesText(free))
		c.Hint = "A larger disk spares downloads: what was cleaned is fetched again when a host needs it."
	default:
		c.Text = bytesText(free) + " are free."
	}
	return c
}

// checkCab reads the scan cab in the folder and says who signed it.
func checkCab(cfg Config, source *microsoft.Source) Check {
	c := Check{Name: "scan cab", Result: CheckSkipped, Text: "The scan cab is not here yet."}
	r, err := os.Open(filepath.Join(cfg.Folder, microsoft.ScanCabName))
	if errors.Is(err, os.ErrNotExist) {
		return c
	}
	var info os.FileInfo
	var sig *microsoft.Signature
	if err == nil {
		defer r.Close()
		info, err = r.Stat()
	}
	if err == nil {
		sig, err = source.VerifyScanCab(r, info.Size())
	}
	bad, unsigned := errors.AsType[*microsoft.SignatureError](err)
	switch {
	case unsigned:
		c.Result = CheckFailed
		c.Text, c.Hint = bad.Explain()
	case err != nil:
		c.Result, c.Text, c.Hint = CheckFailed, "The scan cab in the folder cannot be read: "+reason(err)+".", "Look at the disk and at who owns the folder."
	default:
		c.Result, c.Text = CheckOK, fmt.Sprintf("The scan cab is signed by %s, below %s.", sig.Signer(), sig.Root())
	}
	return c
}

// checkName asks whether agents that are told the machine's name find it.
func checkName(ctx context.Context, cfg Config) Check {
	name := firstName(cfg.Names)
	if name == "" {
		name, _ = os.Hostname()
	}
	c := Check{Name: "name", Result: CheckOK, Text: name + " leads to this machine."}
	found, err := net.DefaultResolver.LookupHost(ctx, name)
	if err == nil {
		for _, addr := range found {
			for _, ip := range localAddresses() {
				if !ip.IsLoopback() && ip.String() == addr {
					return c
				}
			}
		}
		c.Text = fmt.Sprintf("%s leads to %s, which is not an address others reach this machine at.", name, strings.Join(found, " "))
	} else {
		c.Text = fmt.Sprintf("No name server knows %s.", name)
	}
	c.Result, c.Hint = CheckWarning, "Give the name an address in your DNS, or point agents at the address: "+firstAddress()+"."
	return c
}

// checkBBR asks the kernel for the congestion control that keeps thin lines
// full, as a connection between branches would.
func checkBBR() Check {
	c := Check{Name: "tcp_bbr", Result: CheckOK, Text: "The kernel offers BBR: thin and lossy lines between branches stay full."}
	if !swarm.HasBBR() {
		c.Result, c.Text = CheckWarning, "The kernel does not offer BBR; lossy lines between branches run slower."
		c.Hint = "modprobe tcp_bbr, then systemctl restart systemd-sysctl; the package has both done at each start."
	}
	return c
}

// checkListeners asks the node for its pages and its folder at the address
// that others use.
func (a *Appliance) checkListeners(ctx context.Context) (list []Check) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	plain := a.http.Addr().(*net.TCPAddr)
	host, _, _ := net.SplitHostPort(strings.TrimPrefix(a.FolderURL(), "http://"))
	if u, err := url.Parse(a.lanURL()); err == nil && plain.IP.IsUnspecified() {
		host = u.Hostname()
	}
	for _, l := range []struct{ name, url string }{
		{"pages and agents", a.lanURL() + "/healthz"},
		{"folder over HTTP", "http://" + net.JoinHostPort(host, fmt.Sprint(plain.Port)) + "/"},
	} {
		c := Check{Name: l.name, Result: CheckOK}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url, nil)
		if err == nil {
			var resp *http.Response
			if resp, err = client.Do(req); err == nil {
				err = resp.Body.Close()
			}
		}
		u, _ := url.Parse(l.url)
		c.Text = fmt.Sprintf("The node answers at %s.", u.Host)
		if err != nil {
			c.Result, c.Text = CheckFailed, fmt.Sprintf("The node does not answer at %s: %s.", u.Host, lastWords(err))
			c.Hint = "A local firewall may be in between: man wuamesh has the rules."
		}
		list = append(list, c)
	}
	return list
}

// CheckJoin tries to reach the nodes that a join token names, and to be
// reached by one of them.
func (a *Appliance) CheckJoin(ctx context.Context, text string) []Check {
	c := Check{Name: "join token", Result: CheckOK}
	token, err := replicate.ParseJoinToken(text)
	if err != nil {
		c.Result, c.Text, c.Hint = CheckFailed, upper(err.Error())+".", "Paste the whole line that wuamesh token join printed."
		return []Check{c}
	}
	if left := time.Until(token.Expires); left < 0 {
		c.Result, c.Text, c.Hint = CheckFailed, "The token expired on "+clock(token.Expires)+".", "Make another with wuamesh token join."
		return []Check{c}
	}
	c.Text = "The token is good until " + clock(token.Expires) + "."
	list := []Check{c}
	var reached []string
	for _, addr := range token.Addrs {
		c := Check{Name: "node at " + addr, Result: CheckOK, Text: "A connection to " + addr + " can be made."}
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
		if err == nil {
			err = conn.Close()
		}
		if err != nil {
			c.Result, c.Text = CheckWarning, fmt.Sprintf("%s cannot be reached: %s.", addr, lastWords(err))
			c.Hint = "One that can be reached is enough; otherwise let the firewall pass this node to it."
		} else {
			reached = append(reached, addr)
		}
		list = append(list, c)
	}
	if len(reached) > 0 {
		list = append(list, a.dialBackAt(ctx, reached[0], token))
	}
	return list
}

// checkPeers says whom the node is connected to: a connection from outside is
// the only proof that its port is reachable from there.
func (a *Appliance) checkPeers(ctx context.Context) Check {
	c := Check{Name: "other nodes", Result: CheckOK}
	state, err := a.JoinState(ctx)
	others := len(a.roster.living()) - 1
	switch {
	case err != nil:
		c.Result, c.Text = CheckFailed, "The node's mesh cannot be read: "+err.Error()+"."
	case others < 1:
		c.Result, c.Text = CheckSkipped, fmt.Sprintf("There is no other node yet. It will call this one at %s.", strings.Join(a.addresses(), " or "))
	case a.lapsed():
		c.Result, c.Text = CheckFailed, a.certificateProblem(a.db.NodeID())
		c.Hint = "wuamesh token join on another node, then wuamesh join TOKEN here."
	case state.Peers == 0:
		c.Result, c.Text = CheckFailed, fmt.Sprintf("None of the %d other nodes is connected.", others)
		c.Hint = "Nodes reach each other on the HTTPS port: look at the firewall and the line between the branches. wuamesh node list shows their addresses."
	case state.Peers < others:
		c.Result, c.Text = CheckWarning, fmt.Sprintf("%d of %d other nodes are connected.", state.Peers, others)
		c.Hint = "wuamesh node list shows which are missing; what reaches one of them reaches the others through it."
	default:
		c.Text = fmt.Sprintf("All %d other nodes are connected.", others)
	}
	return c
}
