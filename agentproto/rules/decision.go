package rules

import "time"

// A Verdict is what rules say about one update on one host.
type Verdict string

// The verdicts.
const (
	Allowed   Verdict = "allowed"
	Forbidden Verdict = "forbidden"  // by a line
	NoRule    Verdict = "no rule"    // nothing allows it and default_allow is off
	Delayed   Verdict = "delayed"    // allowed, and younger than install_delay
	Hidden    Verdict = "superseded" // a newer one replaces it
)

// A Ref is the line that decided and the package it stands in.
type Ref struct {
	Package string `json:"package"`
	Line    Line   `json:"line"`
}

// A Decision is a verdict and what it rests on.
type Decision struct {
	Verdict Verdict   `json:"verdict"`
	By      *Ref      `json:"by,omitempty"`      // the line that decided; nil for a setting
	Setting string    `json:"setting,omitempty"` // or the setting: "allowed_severities", "default_allow"
	Until   time.Time `json:"until,omitzero"`    // of Delayed
}

// May says whether the decision lets the update be installed, now or once its
// delay is over; its files are worth having.
func (d Decision) May() bool { return d.Verdict == Allowed || d.Verdict == Delayed }

// A State is one of the seed's four states of an update on a host.
type State string

// The states.
const (
	OK        State = "OK"        // installed
	Missing   State = "MISSING"   // needed and allowed, a file of it is on no node
	Pending   State = "PENDING"   // on its way, or waiting to be installed
	Discarded State = "DISCARDED" // not to be installed
)

// A Reason is why an update is in its state, as a word programs can rely on.
type Reason string

// The reasons, by state.
const (
	Installed Reason = "installed" // OK

	ReasonForbidden Reason = "forbidden"  // DISCARDED: by a line
	ReasonNoRule    Reason = "no rule"    // DISCARDED: default_allow = False
	ReasonHidden    Reason = "superseded" // DISCARDED: by a newer one

	ReasonWanted Reason = "wanted" // MISSING: not fetched yet
	ReasonFailed Reason = "failed" // MISSING: the download from Microsoft failed

	ReasonQueued      Reason = "queued"      // PENDING: waits for its download from Microsoft
	ReasonDownloading Reason = "downloading" // PENDING: on its way from Microsoft
	ReasonOnNode      Reason = "on node"     // PENDING: the node has it, the host not yet
	ReasonOnHost      Reason = "on host"     // PENDING: waits for the next install
	ReasonDelayed     Reason = "delayed"     // PENDING: younger than install_delay
	ReasonInstallErr  Reason = "install failed"
	ReasonRestart     Reason = "restart" // PENDING: installed, waits for a restart
)

// Files says how far the files of an update have come on the mesh.
type Files string

// How far the files have come; the least of them counts.
const (
	FilesAbsent      Files = "absent"
	FilesFailed      Files = "failed"
	FilesQueued      Files = "queued"
	FilesDownloading Files = "downloading"
	FilesPresent     Files = "present"
	FilesNone        Files = "none" // the update names no file: nothing to wait for
)

// Facts are what is true of one update on one host.
type Facts struct {
	Installed       bool
	OnHost          bool // its files are in the host's own cache
	RestartRequired bool // installed, effective after a restart
	Failed          bool // the last try to install it failed
	Files           Files
}

// A Step is one rule or setting that speaks about an update, for the page
// that says why. Exactly one step of an explanation decided.
type Step struct {
	Ref     *Ref    `json:"ref,omitempty"`     // the line; nil for a setting
	Setting string  `json:"setting,omitempty"` // "allowed_severities", "default_allow", "install_delay", "include_potentially_superseded_updates"
	Verdict Verdict `json:"verdict"`           // what it alone would say
	Decided bool    `json:"decided"`
	Text    string  `json:"text"` // one sentence
}
