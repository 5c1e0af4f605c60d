package agentproto

import (
	"time"

	"wuamesh/agentproto/rules"
)

// A HostID is the identity of a managed Windows machine: a GUID in lower case
// that the agent makes once and keeps.
type HostID string

// Facts are what a host says about itself.
type Facts struct {
	Name         string    `json:"name"`              // NetBIOS name
	FQDN         string    `json:"fqdn,omitempty"`    //
	Domain       string    `json:"domain,omitempty"`  // Active Directory domain or workgroup
	ADSite       string    `json:"ad_site,omitempty"` // site in Active Directory that Windows found itself in
	OS           string    `json:"os"`                // "Windows 11 Pro 25H2"
	Build        string    `json:"build"`             // "10.0.26200.7019"
	Arch         string    `json:"arch"`              // "amd64", "arm64", "386"
	Language     string    `json:"language,omitempty"`
	Manufacturer string    `json:"manufacturer,omitempty"`
	Model        string    `json:"model,omitempty"`
	Serial       string    `json:"serial,omitempty"`
	Addresses    []string  `json:"addresses,omitempty"` // at most 32 IP addresses
	Booted       time.Time `json:"booted,omitzero"`
	RestartDue   bool      `json:"restart_due,omitempty"` // Windows waits for a restart
	WUAVersion   string    `json:"wua_version,omitempty"` // of wuapi.dll
	WUAService   string    `json:"wua_service,omitempty"` // "stopped", "running"
	User         string    `json:"user,omitempty"`        // who is logged on, if anyone
	RestartWhy   []string  `json:"restart_why,omitempty"` // sentences: what waits for a restart; at most 20
	FreeGB       int       `json:"free_gb,omitempty"`     // of the system's disk, in steps: it must not be news at every check-in
	Power        string    `json:"power,omitempty"`       // "mains", "battery"
	Battery      int       `json:"-"`                     // percent, when on battery; not sent: it is always news
}

// An EnrollRequest asks for a certificate. The token may be empty: then an
// admin approves the host, and the agent asks again with the same key.
type EnrollRequest struct {
	Protocol int    `json:"protocol"`
	Agent    string `json:"agent"` // version of the agent
	Host     HostID `json:"host"`
	Token    string `json:"token,omitempty"`
	CSR      []byte `json:"csr"` // PKCS #10, DER; its public key is what is enrolled
	Facts    Facts  `json:"facts"`
}

// An EnrollResponse carries the certificate, or says that an admin has to
// approve the host first.
type EnrollResponse struct {
	Pending     bool     `json:"pending,omitempty"` // ask again after Wait
	Wait        Duration `json:"wait,omitempty"`
	Certificate []byte   `json:"certificate,omitempty"` // X.509, DER
	Issuer      []byte   `json:"issuer,omitempty"`      // X.509, DER: the node that signed it, to be shown along; empty when the authority did
	Authority   []byte   `json:"authority,omitempty"`   // X.509, DER: who signs nodes
	Node        string   `json:"node,omitempty"`        // name of the node that answered
}

// A Checkin says what the agent has, so that the node answers only with what
// is new.
type Checkin struct {
	Protocol int            `json:"protocol"`
	Agent    string         `json:"agent"`
	Facts    Facts          `json:"facts"`
	Policy   string         `json:"policy,omitempty"`   // hash of the policy it works by
	Statuses string         `json:"statuses,omitempty"` // hash of the statuses it last sent
	Cab      string         `json:"cab,omitempty"`      // SHA-256 of its scan cab, hexadecimal
	Settings rules.Settings `json:"settings"`           // what its own wapt-get.ini says
	Doing    string         `json:"doing,omitempty"`    // one sentence, empty when idle
	Warnings []string       `json:"warnings,omitempty"` // about wapt-get.ini and the like; at most 50
	Errors   []Failure      `json:"errors,omitempty"`   // the last ones, newest first; at most [MaxFailures]
	Clock    *ClockOff      `json:"clock,omitempty"`    // as of the last answer; nil when right, or when nobody could tell
}

// A Failure is something that went wrong on a host lately, whether or not it is
// over.
type Failure struct {
	At      time.Time `json:"at,omitzero"`       // the last time, by the host's clock, which may be what is wrong
	Doing   string    `json:"doing"`             // what the agent was at: "scan", "install 2026-11 Cumulative Update"
	HResult uint32    `json:"hresult,omitempty"` // 0 when it has no code
	Text    string    `json:"text"`              // one sentence, without what the code means
	Times   int       `json:"times,omitempty"`   // how often, when more than once
}

// A CheckinResponse is what changed since, and when to come back.
type CheckinResponse struct {
	Node       string        `json:"node"`
	PolicyHash string        `json:"policy_hash"`
	Policy     *rules.Policy `json:"policy,omitempty"` // nil when the agent has it
	Cab        *CabRef       `json:"cab,omitempty"`    // nil when the node has none yet
	Commands   []Command     `json:"commands,omitempty"`
	Resend     bool          `json:"resend,omitempty"` // the node lacks the statuses of that hash: report again
	Nodes      []string      `json:"nodes,omitempty"`  // base URLs, nearest first
	// Placed says that the mesh knows where the host is, so that Nodes go before
	// those of wapt-get.ini; else they are asked when those are away.
	Placed bool `json:"placed,omitempty"`
	// Only says that no node but Nodes may be asked: a rule without fallback.
	Only bool     `json:"only,omitempty"`
	Next Duration `json:"next"` // check in again after this long
	// Now is the node's clock as it answers, for the agent to compare its own
	// with; zero from nodes before they said it.
	Now time.Time `json:"now,omitzero"`
}

// A CabRef names the scan cab a node serves.
type CabRef struct {
	SHA256 string    `json:"sha256"` // hexadecimal
	Size   int64     `json:"size"`   // bytes
	Date   time.Time `json:"date"`   // Last-Modified at Microsoft
}

// A Report is the outcome of a scan. Statuses are complete: an update that is
// not listed is neither needed nor installed any more. The first report of a
// scan carries no descriptions; the node answers with the ids it lacks, and
// the agent sends a second one with Updates alone.
type Report struct {
	Protocol int      `json:"protocol"`
	Scan     *Scan    `json:"scan,omitempty"`
	Hash     string   `json:"hash,omitempty"` // of Statuses, see [HashStatuses]
	Statuses []Status `json:"statuses,omitempty"`
	Updates  []Update `json:"updates,omitempty"` // descriptions the node asked for
}

// A Scan is one run of Windows' own scan.
type Scan struct {
	Cab     string    `json:"cab"` // SHA-256 of the scan cab, hexadecimal
	Started time.Time `json:"started"`
	Took    Duration  `json:"took"`
	Error   string    `json:"error,omitempty"` // in plain words; statuses are then the last good ones
	HResult uint32    `json:"hresult,omitempty"`
}

// A Status is what is true of one update on the host.
type Status struct {
	ID        rules.UpdateID `json:"id"`
	Revision  int            `json:"revision"`
	Installed bool           `json:"installed,omitempty"`
	OnHost    bool           `json:"on_host,omitempty"` // its files are in Windows' cache
	Restart   bool           `json:"restart,omitempty"` // installed, waits for a restart
	HResult   uint32         `json:"hresult,omitempty"` // of the last try to install it
	Tried     time.Time      `json:"tried,omitzero"`    // when that was
	// Superseded says that another update that is needed or installed on this
	// host replaces it.
	Superseded bool `json:"superseded,omitempty"`
}

// An Update describes one revision of one update, as Windows reports it.
type Update struct {
	ID             rules.UpdateID   `json:"id"`
	Revision       int              `json:"revision"`
	Title          string           `json:"title"`
	Description    string           `json:"description,omitempty"`
	KBs            []string         `json:"kbs,omitempty"` // digits only
	Severity       rules.Severity   `json:"severity,omitempty"`
	Classification Category         `json:"classification"`
	Products       []Category       `json:"products,omitempty"`
	Published      time.Time        `json:"published"`
	CVEs           []string         `json:"cves,omitempty"`
	Bulletins      []string         `json:"bulletins,omitempty"`
	Supersedes     []rules.UpdateID `json:"supersedes,omitempty"`
	Files          []File           `json:"files,omitempty"`   // of the update and its bundled children
	Restart        string           `json:"restart,omitempty"` // "never", "always", "maybe"
	Exclusive      bool             `json:"exclusive,omitempty"`
	SupportURL     string           `json:"support_url,omitempty"`
}

// Decider is the update's own category that the line which decided about it
// names; zero when something else decided.
func (u Update) Decider(d rules.Decision) Category {
	if d.By == nil {
		return Category{}
	}
	for _, k := range append(u.Products[:len(u.Products):len(u.Products)], u.Classification) {
		if k.ID == rules.CategoryID(d.By.Line.Value) && (d.By.Line.Kind == rules.ByProduct || d.By.Line.Kind == rules.ByClassification) {
			return k
		}
	}
	return Category{}
}

// A Category is a product or a classification.
type Category struct {
	ID    rules.CategoryID `json:"id"`
	Title string           `json:"title"` // in the host's language
}

// A File is one download of an update.
type File struct {
	Name   string `json:"name"` // the last segment of URL
	URL    string `json:"url"`
	Size   int64  `json:"size,omitempty"`   // bytes; 0 unknown
	SHA1   string `json:"sha1,omitempty"`   // hexadecimal
	SHA256 string `json:"sha256,omitempty"` // hexadecimal
	Delta  bool   `json:"delta,omitempty"`  // needed only when the full file is refused
}

// A ReportResponse names the updates whose descriptions the node lacks.
type ReportResponse struct {
	Lacks []UpdateRef `json:"lacks,omitempty"` // at most [MaxUpdates]; send them, then ask again
}

// An UpdateRef names one revision of an update.
type UpdateRef struct {
	ID       rules.UpdateID `json:"id"`
	Revision int            `json:"revision"`
}

// An Action is what a command asks a host to do.
type Action string

// The three triggers of the seed.
const (
	ActionScan     Action = "scan"
	ActionDownload Action = "download"
	ActionInstall  Action = "install"
)

// A Command is one order for one host. An agent does each id once.
type Command struct {
	ID     string    `json:"id"`
	Action Action    `json:"action"`
	By     string    `json:"by"` // the admin's name
	Issued time.Time `json:"issued"`
}

// Results tell the node what became of commands and installs as they end.
type Results struct {
	Protocol int             `json:"protocol"`
	Commands []CommandResult `json:"commands,omitempty"`
	Installs []InstallResult `json:"installs,omitempty"`
}

// A CommandState is how far a command has come.
type CommandState string

// The states of a command.
const (
	CommandRunning CommandState = "running"
	CommandDone    CommandState = "done"
	CommandFailed  CommandState = "failed"
)

// A CommandResult is how far one command has come.
type CommandResult struct {
	ID     string       `json:"id"`
	State  CommandState `json:"state"`
	Detail string       `json:"detail,omitempty"` // one sentence
	At     time.Time    `json:"at"`
}

// An InstallResult is the outcome of installing one update.
type InstallResult struct {
	UpdateRef
	HResult uint32    `json:"hresult"` // 0 is success
	Restart bool      `json:"restart,omitempty"`
	At      time.Time `json:"at"`
}
