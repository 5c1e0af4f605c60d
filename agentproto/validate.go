package agentproto

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"wuamesh/agentproto/rules"
)

// A FieldError says which field of a message is wrong, by its JSON path.
type FieldError struct {
	Field string // "statuses[3].id"
	Msg   string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Msg }

// A checker collects the first thing that is wrong with a message.
type checker struct{ err *FieldError }

func (c *checker) fail(field, format string, args ...any) {
	if c.err == nil {
		c.err = &FieldError{field, fmt.Sprintf(format, args...)}
	}
}

func (c *checker) result() error {
	if c.err == nil {
		return nil
	}
	return c.err
}

// text checks a line of text of at most n bytes.
func (c *checker) text(field, s string, n int) {
	switch {
	case len(s) > n:
		c.fail(field, "%d bytes, at most %d", len(s), n)
	case !utf8.ValidString(s):
		c.fail(field, "not UTF-8")
	case strings.ContainsFunc(s, unicode.IsControl):
		c.fail(field, "has control characters")
	}
}

func (c *checker) must(field, s string, n int) {
	if s == "" {
		c.fail(field, "missing")
	}
	c.text(field, s, n)
}

func (c *checker) guid(field, s string) {
	if id, err := rules.ParseUpdateID(s); err != nil {
		c.fail(field, "%v", err)
	} else if string(id) != s {
		c.fail(field, "GUID %q is not in lower case", s)
	}
}

// hex checks a digest of n bytes, or none.
func (c *checker) hex(field, s string, n int) {
	if s == "" {
		return
	}
	if b, err := hex.DecodeString(s); err != nil || len(b) != n || strings.ToLower(s) != s {
		c.fail(field, "want %d lower-case hexadecimal digits", 2*n)
	}
}

func (c *checker) time(field string, t time.Time) {
	if !t.IsZero() && (t.Year() < 1995 || t.Year() > 2100) {
		c.fail(field, "the year %d cannot be", t.Year())
	}
}

func (c *checker) count(field string, n, most int) bool {
	if n > most {
		c.fail(field, "%d entries, at most %d", n, most)
	}
	return n <= most
}

func (c *checker) protocol(v int) {
	if v < 1 || v > Version+100 {
		c.fail("protocol", "%d is no version", v)
	}
}

func (c *checker) severity(field string, s rules.Severity) {
	if s == "" {
		return
	}
	if v, err := rules.ParseSeverity(string(s)); err != nil || v != s {
		c.fail(field, "%q is no severity", s)
	}
}

// Validate says which field is wrong.
func (r EnrollRequest) Validate() error {
	var c checker
	c.protocol(r.Protocol)
	c.text("agent", r.Agent, 64)
	c.guid("host", string(r.Host))
	c.text("token", r.Token, 256)
	if len(r.CSR) == 0 || len(r.CSR) > 8<<10 {
		c.fail("csr", "%d bytes, want 1 to 8192", len(r.CSR))
	}
	r.Facts.check(&c)
	return c.result()
}

// Validate says which field is wrong.
func (r EnrollResponse) Validate() error {
	var c checker
	c.text("node", r.Node, 256)
	if !r.Pending && (len(r.Certificate) == 0 || len(r.Authority) == 0) {
		c.fail("certificate", "missing")
	}
	return c.result()
}

func (f Facts) check(c *checker) {
	c.must("facts.name", f.Name, 64)
	for name, s := range map[string]string{
		"fqdn": f.FQDN, "domain": f.Domain, "ad_site": f.ADSite, "os": f.OS, "build": f.Build, "language": f.Language, "manufacturer": f.Manufacturer,
		"model": f.Model, "serial": f.Serial, "wua_version": f.WUAVersion, "wua_service": f.WUAService, "user": f.User, "arch": f.Arch,
	} {
		c.text("facts."+name, s, 256)
	}
	if c.count("facts.addresses", len(f.Addresses), 32) {
		for i, a := range f.Addresses {
			if _, err := netip.ParseAddr(a); err != nil {
				c.fail(fmt.Sprintf("facts.addresses[%d]", i), "not an IP address")
			}
		}
	}
	c.time("facts.booted", f.Booted)
	if c.count("facts.restart_why", len(f.RestartWhy), 20) {
		for i, s := range f.RestartWhy {
			c.text(fmt.Sprintf("facts.restart_why[%d]", i), s, 256)
		}
	}
	c.text("facts.power", f.Power, 16)
	if f.FreeGB < 0 || f.FreeGB > 1<<30 {
		c.fail("facts.free_gb", "%d", f.FreeGB)
	}
}

// Validate says which field is wrong.
func (k Checkin) Validate() error {
	var c checker
	c.protocol(k.Protocol)
	c.text("agent", k.Agent, 64)
	k.Facts.check(&c)
	c.hex("policy", k.Policy, 32)
	c.hex("statuses", k.Statuses, 32)
	c.hex("cab", k.Cab, 32)
	if err := k.Settings.Validate(); err != nil {
		c.fail("settings", "%v", err)
	}
	c.text("doing", k.Doing, 500)
	if c.count("warnings", len(k.Warnings), 50) {
		for i, w := range k.Warnings {
			c.text(fmt.Sprintf("warnings[%d]", i), w, 500)
		}
	}
	if c.count("errors", len(k.Errors), MaxFailures) {
		for i, f := range k.Errors {
			f.check(&c, fmt.Sprintf("errors[%d]", i))
		}
	}
	if k.Clock != nil {
		k.Clock.check(&c, "clock")
	}
	return c.result()
}

func (f Failure) check(c *checker, at string) {
	c.time(at+".at", f.At)
	c.must(at+".doing", f.Doing, 256)
	c.must(at+".text", f.Text, 500)
	if f.Times < 0 || f.Times > 1<<30 {
		c.fail(at+".times", "%d cannot be", f.Times)
	}
}

// Validate says which field is wrong.
func (r CheckinResponse) Validate() error {
	var c checker
	c.text("node", r.Node, 256)
	c.hex("policy_hash", r.PolicyHash, 32)
	if r.Policy != nil {
		if err := r.Policy.Validate(); err != nil {
			c.fail("policy", "%v", err)
		}
	}
	if r.Cab != nil {
		c.hex("cab.sha256", r.Cab.SHA256, 32)
		if r.Cab.SHA256 == "" || r.Cab.Size <= 0 {
			c.fail("cab", "without digest or size")
		}
	}
	if c.count("commands", len(r.Commands), MaxCommandsQueue) {
		for i, cmd := range r.Commands {
			cmd.check(&c, fmt.Sprintf("commands[%d]", i))
		}
	}
	if c.count("nodes", len(r.Nodes), 64) {
		for i, n := range r.Nodes {
			c.httpURL(fmt.Sprintf("nodes[%d]", i), n)
		}
	}
	c.time("now", r.Now)
	return c.result()
}

// Validate says which field is wrong.
func (cmd Command) Validate() error {
	var c checker
	cmd.check(&c, "command")
	return c.result()
}

func (cmd Command) check(c *checker, at string) {
	c.must(at+".id", cmd.ID, 64)
	switch cmd.Action {
	case ActionScan, ActionDownload, ActionInstall:
	default:
		c.fail(at+".action", "%q is none of scan, download, install", cmd.Action)
	}
	c.text(at+".by", cmd.By, 128)
}

// Validate says which field is wrong.
func (r Report) Validate() error {
	var c checker
	c.protocol(r.Protocol)
	c.hex("hash", r.Hash, 32)
	if s := r.Scan; s != nil {
		c.hex("scan.cab", s.Cab, 32)
		c.time("scan.started", s.Started)
		c.text("scan.error", s.Error, 1000)
	}
	if c.count("statuses", len(r.Statuses), MaxStatuses) {
		seen := make(map[rules.UpdateID]bool, len(r.Statuses))
		for i, s := range r.Statuses {
			at := fmt.Sprintf("statuses[%d]", i)
			checkRef(&c, at, s.ID, s.Revision)
			c.time(at+".tried", s.Tried)
			if seen[s.ID] {
				c.fail(at+".id", "%s is listed twice", s.ID)
			}
			seen[s.ID] = true
		}
	}
	if c.count("updates", len(r.Updates), MaxUpdates) {
		for i := range r.Updates {
			r.Updates[i].check(&c, fmt.Sprintf("updates[%d]", i))
		}
	}
	return c.result()
}

func checkRef(c *checker, at string, id rules.UpdateID, revision int) {
	c.guid(at+".id", string(id))
	if revision < 0 || revision > 1<<30 {
		c.fail(at+".revision", "%d cannot be", revision)
	}
}

var cvePattern = regexp.MustCompile(`^CVE-\d{4}-\d{4,9}$`)

func (u *Update) check(c *checker, at string) {
	checkRef(c, at, u.ID, u.Revision)
	c.must(at+".title", u.Title, 1000)
	if len(u.Description) > 8<<10 || !utf8.ValidString(u.Description) {
		c.fail(at+".description", "%d bytes, at most 8192 of UTF-8", len(u.Description))
	}
	c.severity(at+".severity", u.Severity)
	u.Classification.check(c, at+".classification")
	if c.count(at+".products", len(u.Products), 100) {
		for i, p := range u.Products {
			p.check(c, fmt.Sprintf("%s.products[%d]", at, i))
		}
	}
	if c.count(at+".kbs", len(u.KBs), 100) {
		for i, kb := range u.KBs {
			if err := rules.CheckKB(kb); err != nil {
				c.fail(fmt.Sprintf("%s.kbs[%d]", at, i), "%v", err)
			}
		}
	}
	if c.count(at+".cves", len(u.CVEs), 2000) {
		for i, s := range u.CVEs {
			if !cvePattern.MatchString(s) {
				c.fail(fmt.Sprintf("%s.cves[%d]", at, i), "want CVE-YYYY-NNNN")
			}
		}
	}
	if c.count(at+".bulletins", len(u.Bulletins), 100) {
		for i, s := range u.Bulletins {
			c.text(fmt.Sprintf("%s.bulletins[%d]", at, i), s, 64)
		}
	}
	if c.count(at+".supersedes", len(u.Supersedes), 2000) {
		for i, id := range u.Supersedes {
			c.guid(fmt.Sprintf("%s.supersedes[%d]", at, i), string(id))
		}
	}
	if c.count(at+".files", len(u.Files), MaxFiles) {
		for i := range u.Files {
			u.Files[i].check(c, fmt.Sprintf("%s.files[%d]", at, i))
		}
	}
	c.time(at+".published", u.Published)
	c.text(at+".restart", u.Restart, 16)
	if u.SupportURL != "" {
		c.httpURL(at+".support_url", u.SupportURL)
	}
}

func (k Category) check(c *checker, at string) {
	if k.ID == "" && k.Title == "" {
		return // not reported
	}
	c.guid(at+".id", string(k.ID))
	c.text(at+".title", k.Title, 256)
}

func (f *File) check(c *checker, at string) {
	c.must(at+".name", f.Name, 200)
	if strings.ContainsAny(f.Name, `/\:`) || strings.HasPrefix(f.Name, ".") {
		c.fail(at+".name", "%q is no flat file name", f.Name)
	}
	c.httpURL(at+".url", f.URL)
	if f.Size < 0 || f.Size > 64<<30 {
		c.fail(at+".size", "%d bytes, want 0 to 64 GiB", f.Size)
	}
	c.hex(at+".sha1", f.SHA1, 20)
	c.hex(at+".sha256", f.SHA256, 32)
}

// httpURL checks the form alone; which hosts may be asked is the node's to say.
func (c *checker) httpURL(field, s string) {
	c.text(field, s, 2000)
	if u, err := url.Parse(s); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		c.fail(field, "want an http or https URL")
	}
}

// Validate says which field is wrong.
func (r ReportResponse) Validate() error {
	var c checker
	if c.count("lacks", len(r.Lacks), MaxStatuses) {
		for i, ref := range r.Lacks {
			checkRef(&c, fmt.Sprintf("lacks[%d]", i), ref.ID, ref.Revision)
		}
	}
	return c.result()
}

// Validate says which field is wrong.
func (r Results) Validate() error {
	var c checker
	c.protocol(r.Protocol)
	if c.count("commands", len(r.Commands), MaxCommandsQueue) {
		for i, k := range r.Commands {
			at := fmt.Sprintf("commands[%d]", i)
			c.must(at+".id", k.ID, 64)
			switch k.State {
			case CommandRunning, CommandDone, CommandFailed:
			default:
				c.fail(at+".state", "%q is none of running, done, failed", k.State)
			}
			c.text(at+".detail", k.Detail, 1000)
			c.time(at+".at", k.At)
		}
	}
	if c.count("installs", len(r.Installs), 1000) {
		for i, n := range r.Installs {
			at := fmt.Sprintf("installs[%d]", i)
			checkRef(&c, at, n.ID, n.Revision)
			c.time(at+".at", n.At)
		}
	}
	return c.result()
}
