package appliance

import (
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// What the pages and the API show. Every list carries how many there are in
// all and how many match, and pages by a cursor that survives changes.

// A Page bounds a list. After is the Next of the page before.
type Page struct {
	Limit int // 1 to 500; 0 is 50
	After string
}

// An UpdateQuery selects updates; values of one field are alternatives, fields
// narrow each other. It is the query string of /updates and of the API.
type UpdateQuery struct {
	Scope          Scope
	Text           string // words of the title or the product, the beginning of a KB, an UpdateID, a CVE or a bulletin
	KB, CVE        string
	Severity       []rules.Severity
	Product        []rules.CategoryID
	Classification []rules.CategoryID
	State          []rules.State // at least one host has it in this state
	Download       []DownloadState
	Verdict        []rules.Verdict // on at least one host; see UpdateRow.Verdict
	Superseded     []bool          // a newer update of the scan cab replaces it
	Published      []Month
	Restart        []RestartNeed
	Host           agentproto.HostID
	Sort           string // "severity" (default), "title", "published", "hosts", "downloaded"; "-" before it reverses
	Page
}

// An UpdateList is one page of updates. Facet counts ignore the facet's own
// selection and respect all others.
type UpdateList struct {
	Total    int         `json:"total"`
	Matching int         `json:"matching"`
	Updates  []UpdateRow `json:"updates"`
	Next     string      `json:"next,omitempty"`
	Facets   Facets      `json:"facets"`
}

// Facets are the left pane's counts.
type Facets struct {
	Severity       []FacetCount `json:"severity"`
	Product        []FacetCount `json:"product"`
	Classification []FacetCount `json:"classification"`
	Download       []FacetCount `json:"download"`
	Verdict        []FacetCount `json:"verdict"`
	State          []FacetCount `json:"state"`
	Superseded     []FacetCount `json:"superseded"`
	Published      []FacetCount `json:"published"` // months, the newest first
	Restart        []FacetCount `json:"restart"`
}

// A FacetCount is one choice of a facet.
type FacetCount struct {
	Value string `json:"value"`
	Label string `json:"label"`
	Count int    `json:"count"`
}

// A DownloadState is how far the files of an update have come on this mesh.
type DownloadState string

// The download states.
const (
	NotDownloaded DownloadState = "no"      // no host may install it, or nobody asked yet
	Queued        DownloadState = "queued"  //
	Downloading   DownloadState = "running" //
	Failed        DownloadState = "failed"  // last try failed; Download says why and when next
	Downloaded    DownloadState = "yes"     //
)

// A Month is one of the calendar, in UTC: "2026-11".
type Month string

// A RestartNeed is whether Windows has to restart after an update is
// installed.
type RestartNeed string

// The needs.
const (
	RestartAlways  RestartNeed = "always"
	RestartMaybe   RestartNeed = "maybe" // it asks when it finds that it has to
	RestartNever   RestartNeed = "never"
	RestartUnknown RestartNeed = "unknown" // neither hosts nor the scan cab say it
)

// StateCounts are numbers of hosts by state.
type StateCounts struct {
	OK        int `json:"ok"`
	Missing   int `json:"missing"`
	Pending   int `json:"pending"`
	Discarded int `json:"discarded"`
}

// An UpdateRow is one update as lists show it.
type UpdateRow struct {
	ID             rules.UpdateID        `json:"id"`
	Revision       int                   `json:"revision"`
	Title          string                `json:"title"` // empty until a host described it
	KBs            []string              `json:"kbs"`
	Severity       rules.Severity        `json:"severity"`
	Classification agentproto.Category   `json:"classification"`
	Products       []agentproto.Category `json:"products"`
	CVEs           []string              `json:"cves,omitempty"`
	Published      time.Time             `json:"published"`
	Restart        RestartNeed           `json:"restart,omitempty"`    // empty: nobody says it
	Size           int64                 `json:"size"`                 // bytes of all its files; 0 unknown
	Siblings       int                   `json:"siblings"`             // UpdateIDs of its KB, itself included
	Superseded     bool                  `json:"superseded,omitempty"` // a newer update of the scan cab replaces it
	Hosts          StateCounts           `json:"hosts"`
	Download       DownloadState         `json:"download"`
	DownloadedOn   time.Time             `json:"downloaded_on,omitzero"` // when the last of its files was complete
	DownloadNote   string                `json:"download_note,omitempty"`
	Progress       int                   `json:"progress,omitempty"` // per cent, while Downloading
	// Verdict is what the rules say on the hosts that need it: the most
	// restrictive one, and By the package or setting behind it. Foreseen is,
	// while no host reports it, what the package By says of it, if one does.
	Verdict  rules.Verdict `json:"verdict,omitempty"`
	By       string        `json:"by,omitempty"`
	Foreseen rules.Verdict `json:"foreseen,omitempty"`
}

// An UpdateDetail is one update with its files and hosts.
type UpdateDetail struct {
	UpdateRow
	Description  string       `json:"description,omitempty"`
	SupportURL   string       `json:"support_url,omitempty"`
	Bulletins    []string     `json:"bulletins,omitempty"`
	Supersedes   []UpdateName `json:"supersedes,omitempty"`
	SupersededBy []UpdateName `json:"superseded_by,omitempty"`
	KBSiblings   []UpdateName `json:"kb_siblings,omitempty"` // the other UpdateIDs of its KB
	Files        []FileRow    `json:"files"`
	OnHosts      []HostUpdate `json:"on_hosts"`           // at most 500, worst first; under a stop those that have it first
	Lines        []rules.Ref  `json:"lines"`              // of all packages, that match it
	Problems     []string     `json:"problems,omitempty"` // hosts that describe it differently, refused URLs
	Stop         *StopRow     `json:"stop,omitempty"`     // of an emergency stop
}

// An UpdateName is an update by its names.
type UpdateName struct {
	ID    rules.UpdateID `json:"id"`
	KB    string         `json:"kb,omitempty"`
	Title string         `json:"title,omitempty"` // empty when nobody described it

	Published time.Time `json:"published,omitzero"`
}

// A FileRow is one file of an update, and where it is.
type FileRow struct {
	Name         string        `json:"name"`
	URL          string        `json:"url"`
	Size         int64         `json:"size"`
	SHA1         string        `json:"sha1,omitempty"`
	SHA256       string        `json:"sha256,omitempty"`
	Kind         string        `json:"kind,omitempty"`      // Microsoft's patching type: SelfContained, Express, Metadata …
	Delta        bool          `json:"delta,omitempty"`     // needed only when the full file is refused
	Languages    []string      `json:"languages,omitempty"` // that it is for; none is all
	State        DownloadState `json:"state"`
	DownloadedOn time.Time     `json:"downloaded_on,omitzero"`
	Note         string        `json:"note,omitempty"`
}

// A HostQuery selects hosts.
type HostQuery struct {
	Text  string // name, FQDN, address, HostID
	Group string
	State []rules.State // at least one update in this state
	OS    []string
	Site  []string         // of the node they report to
	Ring  []rules.Maturity // the first that they accept of DEV, PREPROD and PROD
	Stand []HostStand      // whether they are compliant, and if not, why
	Seen  string           // "online", "away" (not heard of for a day), "never scanned", "waiting" (for approval), "clock off" (and not away)
	Sort  string           // "name" (default), "os", "scan", "seen", "missing", "pending"; "-" reverses
	Page
}

// A HostList is one page of hosts.
type HostList struct {
	Total    int          `json:"total"`
	Matching int          `json:"matching"`
	Hosts    []HostRow    `json:"hosts"`
	Next     string       `json:"next,omitempty"`
	OS       []FacetCount `json:"os"`
	State    []FacetCount `json:"state"`
	Groups   []FacetCount `json:"groups"`
	Sites    []FacetCount `json:"sites"`
	Rings    []FacetCount `json:"rings"`
	Stands   []FacetCount `json:"stands"`
}

// A HostRow is one host as lists show it.
type HostRow struct {
	ID       agentproto.HostID `json:"id"`
	Name     string            `json:"name"`
	FQDN     string            `json:"fqdn,omitempty"`
	OS       string            `json:"os"`
	Build    string            `json:"build"`
	Groups   []string          `json:"groups"`
	Waiting  bool              `json:"waiting,omitempty"` // for an admin's approval
	Online   bool              `json:"online"`            // its event stream is open at a node that is reached, or it checked in when due
	Node     string            `json:"node,omitempty"`    // name of the node it is at, or was last
	Seen     time.Time         `json:"seen,omitzero"`     // last contact with any node, or good scan
	Scanned  time.Time         `json:"scanned,omitzero"`  // last good scan
	Restart  bool              `json:"restart,omitempty"`
	Doing    string            `json:"doing,omitempty"`
	Counts   StateCounts       `json:"counts"`
	Accepts  []rules.Maturity  `json:"accepts"`
	Agent    string            `json:"agent,omitempty"`
	Problems []string          `json:"problems,omitempty"`

	Clock *agentproto.ClockOff `json:"clock,omitempty"` // it and its node's differ, as of its last check-in
}

// A HostDetail is one host with everything that decides about it.
type HostDetail struct {
	HostRow
	Facts      agentproto.Facts              `json:"facts"`
	Scan       *agentproto.Scan              `json:"scan,omitempty"`
	Settings   []EffectiveSetting            `json:"settings"`
	Packages   []PackageRow                  `json:"packages"` // assigned, accepted or not
	Commands   []CommandRow                  `json:"commands"` // newest first, at most 50
	Warnings   []string                      `json:"warnings,omitempty"`
	Errors     []agentproto.ExplainedFailure `json:"errors,omitempty"` // what last went wrong on it, over or not; newest first
	Enrolled   time.Time                     `json:"enrolled"`
	EnrolledBy string                        `json:"enrolled_by"`
	Choice     NodeChoice                    `json:"choice"` // which nodes it is told to ask, and why
}

// A HostUpdateQuery selects updates of one host; values of one field are
// alternatives, fields narrow each other.
type HostUpdateQuery struct {
	Text     string // words of the title, a KB, an UpdateID
	State    []rules.State
	Severity []rules.Severity
	Page
}

// A HostUpdateList is one page of the updates of a host.
type HostUpdateList struct {
	Total    int          `json:"total"` // that match
	Updates  []HostUpdate `json:"updates"`
	Next     string       `json:"next,omitempty"`
	Severity []FacetCount `json:"severity"` // of those that match all but the query's own choice of it
}

// A HostUpdate is one update on one host.
type HostUpdate struct {
	Host     agentproto.HostID `json:"host"`
	HostName string            `json:"host_name"`
	Update   UpdateName        `json:"update"`
	Revision int               `json:"revision"`
	Severity rules.Severity    `json:"severity"`
	Size     int64             `json:"size"`
	State    rules.State       `json:"state"`
	Reason   rules.Reason      `json:"reason"`
	Why      string            `json:"why"` // one or two sentences
	Decision rules.Decision    `json:"decision"`
	HResult  string            `json:"hresult,omitempty"` // "0x800F0922" of the last try

	Error *agentproto.Meaning `json:"error,omitempty"` // that code in plain words
}

// A Why is the chain from need to restart, for one host and one update.
type Why struct {
	HostUpdate
	Steps []WhyStep    `json:"steps"`
	Rules []rules.Step `json:"rules"` // every rule that matches, and which decided
}

// A WhyStep is one link of the chain.
type WhyStep struct {
	Name string `json:"name"` // Needed, Allowed, On the mesh, On the host, Install, Restart
	Text string `json:"text"`
	Mark string `json:"mark"` // "done", "now", "todo", "never"
}

// A CommandRow is one command and what became of it.
type CommandRow struct {
	agentproto.Command
	State   string    `json:"state"` // "waiting", "sent", "running", "done", "failed"
	Detail  string    `json:"detail,omitempty"`
	Changed time.Time `json:"changed"`
}

// A PackageRow is one rule package as lists show it.
type PackageRow struct {
	Name        string              `json:"name"`
	Description string              `json:"description,omitempty"`
	Maturity    rules.Maturity      `json:"maturity"`
	Allows      int                 `json:"allows"`
	Forbids     int                 `json:"forbids"`
	Groups      []string            `json:"groups"`
	Hosts       []agentproto.HostID `json:"hosts"` // assigned one by one
	Reach       int                 `json:"reach"` // hosts it is assigned to and that accept its maturity
	Edited      time.Time           `json:"edited"`
	EditedBy    string              `json:"edited_by"`
}

// A PackageDetail is one rule package with its lines.
type PackageDetail struct {
	PackageRow
	Lines []LineRow `json:"lines"`
	// Ring is how it is promoted by itself; nil when people do it.
	Ring *RingState `json:"ring,omitempty"`
}

// A LineRow is one line with what it stands for.
type LineRow struct {
	rules.Line
	Label   string       `json:"label"`             // "Windows 11", "KB5091157", a title
	Updates []UpdateName `json:"updates,omitempty"` // of a KB or an UpdateID: which they are
	Hits    int          `json:"hits"`              // updates it matches among those hosts report
	By      string       `json:"by"`
	At      time.Time    `json:"at"`
}

// A PackageEdit is the whole of a package as a form or PUT sends it.
type PackageEdit struct {
	Description string              `json:"description"`
	Maturity    rules.Maturity      `json:"maturity"`
	Lines       []rules.Line        `json:"lines"`
	Groups      []string            `json:"groups"`
	Hosts       []agentproto.HostID `json:"hosts"`
}

// A GroupRow is a group of hosts. Accepts and Settings hold for its members.
type GroupRow struct {
	Name        string              `json:"name"`
	Description string              `json:"description,omitempty"`
	Accepts     []rules.Maturity    `json:"accepts,omitempty"`  // maturities its members accept; none: PROD only
	Members     []agentproto.HostID `json:"members"`            // given one by one
	Condition   Condition           `json:"condition,omitzero"` // chooses hosts besides, by what they are
	Given       int                 `json:"-"`                  // how many were given one by one
	Hosts       int                 `json:"hosts"`              // in it, by either; of the built-in group "all" every host
	Packages    []string            `json:"packages"`
	Profiles    []string            `json:"profiles"` // of settings, in their order
	// Settings are options of [waptwua] as wapt-get.ini spells them; they hold
	// for the members, whatever their own files say.
	Settings map[string]string `json:"settings,omitempty"`
	Edited   time.Time         `json:"edited,omitzero"`
	EditedBy string            `json:"edited_by,omitempty"`
	Version  string            `json:"version,omitempty"` // its last edit; an edit that names it as seen is refused when there is a later one
}

// A GroupEdit is the whole of a group as a form or PUT sends it.
type GroupEdit struct {
	Description string              `json:"description"`
	Accepts     []rules.Maturity    `json:"accepts"`
	Members     []agentproto.HostID `json:"members"`             // given one by one
	Condition   *Condition          `json:"condition,omitempty"` // chooses hosts besides; null leaves the one there is
	Settings    map[string]string   `json:"settings,omitempty"`
	Seen        string              `json:"seen,omitempty"` // the version that the edit was made of; empty: whatever there is
}

// A Membership is who would be in a group after an edit, by name.
type Membership struct {
	Hosts   int        `json:"hosts"`   // in all
	Joins   int        `json:"joins"`   // of them: not in it now
	Leaves  int        `json:"leaves"`  // in it now and not any more
	Members []HostName `json:"members"` // at most 200
}

// A HostName is a host by its names, and whether an edit changes its place.
type HostName struct {
	ID     agentproto.HostID `json:"id"`
	Name   string            `json:"name"`
	OS     string            `json:"os"`
	Joins  bool              `json:"joins,omitempty"`
	Leaves bool              `json:"leaves,omitempty"`
}

// A Task is one download, running, waiting or done: the rows of "Show
// download tasks".
type Task struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"` // "scan" or "update"
	File     string    `json:"file"`
	Title    string    `json:"title,omitempty"` // of the update it belongs to
	Status   string    `json:"status"`          // "queued", "running", "paused", "done", "unchanged", "failed", "cancelled"
	By       string    `json:"by"`              // "schedule", "host NAME", an admin's name
	Size     int64     `json:"size"`            // bytes; 0 unknown
	Done     int64     `json:"done"`            // bytes on disk
	Fetched  int64     `json:"fetched"`         // bytes moved from Microsoft, all attempts
	Rate     int64     `json:"rate,omitempty"`  // bytes per second, while running
	Attempts int       `json:"attempts"`
	Error    string    `json:"error,omitempty"` // what went wrong the last time, for people
	Hint     string    `json:"hint,omitempty"`
	From     string    `json:"from,omitempty"`    // "Microsoft", "peers" or "bundle", once it ran
	Waiting  string    `json:"waiting,omitempty"` // why nothing moves, for people
	Peers    int64     `json:"peers,omitempty"`   // bytes moved from other nodes, all attempts
	Queued   time.Time `json:"queued"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
	NextTry  time.Time `json:"next_try,omitzero"`
	First    time.Time `json:"first,omitzero"`  // since when it goes before all others, because an admin said so
	Hosts    int       `json:"hosts,omitempty"` // that wait for it; counted anew, not stored
}

// Percent is how much of it is here.
func (t Task) Percent() int {
	if t.Size <= 0 {
		return 0
	}
	return int(min(100*t.Done/t.Size, 100))
}

// Left is how long it takes yet at its rate; 0 when nothing moves.
func (t Task) Left() time.Duration {
	if t.Rate <= 0 {
		return 0
	}
	return time.Duration(max((t.Size-t.Done)/t.Rate, 1)) * time.Second
}

// A CabView is the scan cab in the folder.
type CabView struct {
	Held    bool      `json:"held"`
	Size    int64     `json:"size"`
	SHA256  string    `json:"sha256,omitempty"`
	Date    time.Time `json:"date,omitzero"`    // Last-Modified at Microsoft
	Checked time.Time `json:"checked,omitzero"` // last time Microsoft was asked
	Fetched time.Time `json:"fetched,omitzero"`
	Note    string    `json:"note"` // "unchanged", "Microsoft answered 503, next try at 12:30"
	NextTry time.Time `json:"next_try,omitzero"`
	// Who signed it, the root it leads to, and when; the time is zero without a
	// time stamp.
	Signer string    `json:"signer,omitempty"`
	Root   string    `json:"root,omitempty"`
	Signed time.Time `json:"signed,omitzero"`
	// Refused says what is wrong with one that came and is not served, in a
	// sentence; RefusedHint what to do.
	Refused     string `json:"refused,omitempty"`
	RefusedHint string `json:"refused_hint,omitempty"`
	Running     bool   `json:"running"`
	Progress    int    `json:"progress"` // per cent, while Running

	Catalogue CatalogueView `json:"catalogue"` // what was read out of it
}

// A CleanPlan is what cleaning would delete, or deleted.
type CleanPlan struct {
	Files []FileRow `json:"files"`
	Bytes int64     `json:"bytes"`
}

// A Status is the overview.
type Status struct {
	Node      string    `json:"node"`
	Version   string    `json:"version"`
	Started   time.Time `json:"started"`
	Standing  Standing  `json:"standing"`
	Cab       CabView   `json:"cab"`
	Hosts     int       `json:"hosts"`
	Online    int       `json:"online"`
	Waiting   int       `json:"waiting"`   // for approval
	Compliant int       `json:"compliant"` // by the rule

	Rule       ComplianceRule `json:"compliance_rule"`
	Compliance Compliance     `json:"compliance"` // of all hosts
	Sites      []Compliance   `json:"sites"`      // by the site of the node that hosts report to
	Rings      []Compliance   `json:"rings"`      // by the first of DEV, PREPROD and PROD that hosts accept
	Trend      []TrendDay     `json:"trend"`      // the last 30 days that this node noted, and today

	Pairs        StateCounts  `json:"pairs"` // host × update
	Updates      int          `json:"updates"`
	Packages     int          `json:"packages"`
	Files        int          `json:"files"`
	FolderBytes  int64        `json:"folder_bytes"`
	FreeBytes    int64        `json:"free_bytes"`
	FromUpstream int64        `json:"from_upstream"` // bytes moved from Microsoft since start
	ToAgents     int64        `json:"to_agents"`     // bytes of files sent to agents since start
	Installed    int64        `json:"installed"`     // updates that agents installed since start
	Unused       CleanPlan    `json:"unused"`
	Attention    []Attention  `json:"attention"` // at most 8, gravest first
	Running      []Task       `json:"running"`
	Recent       []AuditEntry `json:"recent"` // newest first, at most 8
}

// An Attention is something an admin should look at.
type Attention struct {
	Fact  string `json:"fact"`  // with names and numbers
	Cause string `json:"cause"` //
	Label string `json:"label"` // of the button
	URL   string `json:"url"`   // where it leads
}

// An AuditEntry is one line of the audit log.
type AuditEntry struct {
	ID      string    `json:"id"`
	At      time.Time `json:"at"`
	Actor   string    `json:"actor"`
	Address string    `json:"address,omitempty"`
	Node    string    `json:"node"`
	Action  string    `json:"action"` // "edit rule package", "forbid", "trigger scan"
	Object  string    `json:"object"`
	Before  string    `json:"before,omitempty"`
	After   string    `json:"after,omitempty"`
}

// A TokenRow is one API or enrolment token; its secret is shown once.
type TokenRow struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Use     TokenUse  `json:"use"`
	Role    Role      `json:"role,omitempty"` // of an API token
	Left    int       `json:"left,omitempty"` // enrolments left
	Created time.Time `json:"created"`
	By      string    `json:"by"`
	Expires time.Time `json:"expires"`
	Used    time.Time `json:"used,omitzero"`
}

// A TokenUse is what a token is for.
type TokenUse string

// The uses.
const (
	ForAPI    TokenUse = "api"
	ForEnroll TokenUse = "enroll"
	ForJoin   TokenUse = "join" // of one node, into the mesh
)

// An AdminRow is one admin.
type AdminRow struct {
	Name    string    `json:"name"`
	Role    Role      `json:"role"`
	Created time.Time `json:"created"`
	Seen    time.Time `json:"seen,omitzero"`
}
