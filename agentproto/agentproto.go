// Package agentproto is what a node and an agent say to each other: the
// messages and their limits, the routes, and the agent's side of the HTTP.
//
// An agent enrols once and gets a certificate. From then on it checks in
// (what changed? any commands? when next?), reports what Windows' own scan
// found, listens to a stream of events, and sends the results of commands and
// installs. Every message has a Validate method; a node believes nothing that
// did not pass it. See DESIGN.md for the order of messages.
package agentproto

import "time"

// Version is the protocol's. A node understands the two versions before its
// own; an agent's is in every [Checkin].
const Version = 1

// The routes under an agent's base URL.
const (
	PathEnroll  = "/agent/v1/enroll"  // POST EnrollRequest → EnrollResponse; no client certificate yet
	PathCheckin = "/agent/v1/checkin" // POST Checkin → CheckinResponse
	PathReport  = "/agent/v1/report"  // POST Report → ReportResponse
	PathResults = "/agent/v1/results" // POST Results → 204
	PathEvents  = "/agent/v1/events"  // GET, server-sent events: "command" (a Command), "policy" (check in), "files" (files arrived on the node: ask again)
	PathFolder  = "/waptwua/"         // GET and HEAD of files, with Range
)

// PathInstaller is where every node serves the agent's installer, on both of
// its listeners.
const PathInstaller = "/agent/wuamesh-agent.msi"

// The TLS server names (SNI) by which a node tells its callers apart, so that
// a browser is never asked for a certificate.
const (
	AgentServerName  = "agent.wuamesh.internal"  // client certificate required
	EnrollServerName = "enroll.wuamesh.internal" // none yet; the agent pins the authority
)

// What a node accepts at most.
const (
	MaxEnrollBytes   = 64 << 10
	MaxCheckinBytes  = 256 << 10
	MaxReportBytes   = 16 << 20 // uncompressed; about 20,000 statuses with 2,000 descriptions
	MaxResultsBytes  = 1 << 20
	MaxStatuses      = 20000 // of one report
	MaxUpdates       = 2000  // descriptions in one report
	MaxFiles         = 1000  // of one update; Windows 11 feature leaves have hundreds
	MaxCommandsQueue = 100   // waiting for one host
	MaxFailures      = 20    // in one check-in; an agent keeps fewer
)

// ScanCabName is the scan cab's name in the folder.
const ScanCabName = "wsusscn2.cab"

// MinCheckin and MaxCheckin bound what a node may ask an agent to wait.
const (
	MinCheckin = 5 * time.Second
	MaxCheckin = 24 * time.Hour
)
