package ui

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// agentsView is what the form says and the ways to bring the agent to hosts
// that follow from it.
type agentsView struct {
	Form    agentForm
	Problem *appliance.Problem

	Installer appliance.Installer
	Lacks     *appliance.Problem // why this node has no installer
	Download  string             // URL of the installer, as browsers of the branch reach it
	Token     string             // made by this form, shown this once
	Pin       string             // for hosts without a token

	INI     string // wapt-get.ini, whole
	Line    string // for PowerShell
	Startup string // PowerShell script of a group policy
	Args    string // for Intune: what follows msiexec /i
}

// agentForm is the form as it was typed.
type agentForm struct {
	Server  string
	Enabled string // "True", "False", or "" for neither
	Checks  map[string]bool
	Scan    string
	Install string
	Delay   string
	Levels  []string // severities
	Token   bool     // make one
	Hosts   string
	Days    string
	Errors  map[string]string // by field
}

// agentChecks are the options of [waptwua] that are on or off, in the words
// of the page.
var agentChecks = []struct{ Key, Text, Hint string }{
	{"default_allow", "Install what no rule mentions", "Without it, what no rule allows stays away"},
	{"direct_download", "Files come from Microsoft first", "Uses each host's own way to the internet; the node when that fails"},
	{"install_at_shutdown", "Install while the host shuts down", "Only what is on the host already"},
	{"waptexit_disable_skip_windows_updates", "Nobody may skip that", "The exit window has no \"Skip\""},
	{"include_potentially_superseded_updates", "Also list what a newer update replaces", ""},
}

func (u *UI) agents(r *http.Request) (reply, error) {
	f := agentForm{
		Server: "https://" + r.Host, Enabled: rules.Bool(true), Checks: map[string]bool{}, Scan: "1d", Token: frameOf(r.Context()).who.Role == appliance.Owner,
		Hosts: "50", Days: "7", Levels: []string{string(rules.Critical), string(rules.Important)},
	}
	return u.agentsWith(r, agentsView{Form: f})
}

// agentsMake answers the form with commands, and makes the token they need if
// it is to.
func (u *UI) agentsMake(r *http.Request) (reply, error) {
	f := agentForm{
		Server: strings.TrimSpace(r.FormValue("server")), Enabled: r.FormValue("enabled"), Checks: map[string]bool{}, Levels: r.Form["severity"],
		Scan: strings.TrimSpace(r.FormValue("scan")), Install: strings.TrimSpace(r.FormValue("install")), Delay: strings.TrimSpace(r.FormValue("delay")),
		Token: r.FormValue("token") != "", Hosts: r.FormValue("hosts"), Days: r.FormValue("days"), Errors: map[string]string{},
	}
	for _, c := range agentChecks {
		f.Checks[c.Key] = r.FormValue(c.Key) != ""
	}
	v := agentsView{Form: f}
	if f.settings(); len(f.Errors) > 0 {
		v.Problem = &appliance.Problem{Kind: appliance.Invalid, Msg: "Some fields need another look."}
		return u.agentsWith(r, v)
	}
	if f.Token {
		hosts, _ := strconv.Atoi(f.Hosts)
		days, _ := strconv.Atoi(f.Days)
		_, text, err := u.node.MakeToken(r.Context(), actor(r), appliance.TokenOptions{Name: "new PCs", Use: appliance.ForEnroll, Uses: hosts, Expires: time.Duration(days) * 24 * time.Hour})
		if p, ok := formError(err); ok {
			v.Problem = p
		} else if err != nil {
			return reply{}, err
		}
		v.Token = text
	}
	return u.agentsWith(r, v)
}

func (u *UI) agentsWith(r *http.Request, v agentsView) (reply, error) {
	in, err := u.node.AgentInstaller()
	if p, ok := appliance.AsProblem(err); ok {
		v.Lacks = p
	} else if err != nil {
		return reply{}, err
	}
	v.Installer, v.Pin = in, u.node.Pin()
	v.Download = installerURL(r.Host, in.URL)
	v.deploy()
	if v.Problem != nil {
		return again(agentsPage(v)), nil
	}
	return show(agentsPage(v)), nil
}

// installerURL is where the browser's own way to the node leads over plain
// http.
func installerURL(host, plain string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if u, err := url.Parse(plain); err == nil && u.Port() != "" && u.Port() != "80" {
		host = net.JoinHostPort(strings.Trim(host, "[]"), u.Port())
	}
	return "http://" + host + agentproto.PathInstaller
}

// settings are what the form comes to; what cannot be read is in Errors.
func (f *agentForm) settings() rules.Settings {
	if f.Errors == nil {
		f.Errors = map[string]string{}
	}
	s := rules.DefaultSettings()
	switch f.Enabled {
	case "True", "False":
		on := f.Enabled == "True"
		s.Enabled = &on
	}
	s.DefaultAllow, s.DirectDownload = f.Checks["default_allow"], f.Checks["direct_download"]
	s.InstallAtShutdown, s.DisableSkip = f.Checks["install_at_shutdown"], f.Checks["waptexit_disable_skip_windows_updates"]
	s.IncludeSuperseded = f.Checks["include_potentially_superseded_updates"]
	for _, l := range rules.Severities {
		if slices.Contains(f.Levels, string(l)) {
			s.AllowedSeverities = append(s.AllowedSeverities, l)
		}
	}
	for _, p := range []struct {
		field, text string
		into        *time.Duration
	}{{"scan", f.Scan, &s.DownloadScheduling}, {"install", f.Install, &s.InstallScheduling}, {"delay", f.Delay, &s.InstallDelay}} {
		if p.text == "" {
			continue
		}
		d, err := rules.ParsePeriod(p.text)
		if err != nil {
			f.Errors[p.field] = "A number and one of m, h, d, w: 12h, 7d."
			continue
		}
		*p.into = d
	}
	for node := range strings.SplitSeq(f.Server, ",") {
		if n, err := url.Parse(strings.TrimSpace(node)); err != nil || n.Scheme != "https" || n.Hostname() == "" || strings.Trim(n.Path, "/") != "" || strings.ContainsAny(node, "\"'`$;\r\n") {
			f.Errors["server"] = "https:// and a name or an address, with :port if it is not 443."
		}
	}
	return s
}

// deploy writes the settings in every form in which they get to hosts.
func (v *agentsView) deploy() {
	s := v.Form.settings()
	how, value := "token", v.Token
	if value == "" {
		how, value = "pin", v.Pin
	}
	v.INI = fmt.Sprintf("%s\n[wuamesh]\nnodes = %s\n%s = %s\n", s.INI(), v.Form.Server, how, value)
	args := []string{"SERVER=" + v.Form.Server}
	if v.Token != "" {
		args = append(args, "TOKEN="+v.Token)
	} else {
		args = append(args, "CAHASH="+v.Pin)
	}
	for _, o := range s.Options() {
		if o.Value != "" {
			args = append(args, strings.ToUpper(o.Key)+"="+o.Value)
		}
	}
	v.Args = strings.Join(args, " ")
	v.Line = fmt.Sprintf("$m = \"$env:TEMP\\wuamesh-agent.msi\"; Invoke-WebRequest -UseBasicParsing %s -OutFile $m; "+
		"if ((Get-FileHash $m).Hash -ne '%s') { throw 'This is not the file that the node serves.' }; "+
		"Start-Process msiexec -Wait -ArgumentList '/i', ('\"' + $m + '\"'), '/qn', '%s'", v.Download, strings.ToUpper(v.Installer.SHA256), strings.Join(args, "', '"))
	v.Startup = "if (-not (Get-Service wuamesh-agent -ErrorAction SilentlyContinue)) {\r\n  " + strings.ReplaceAll(v.Line, "; ", "\r\n  ") + "\r\n}\r\n"
}

// file is a link that saves a text under a name.
func file(text string) string {
	return "data:application/octet-stream;base64," + base64.StdEncoding.EncodeToString([]byte(text))
}
