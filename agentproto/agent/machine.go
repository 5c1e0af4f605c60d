package agent

import (
	"context"
	"errors"
	"fmt"

	"wuamesh/agentproto"
)

// A Machine is the host as the agent needs it: Windows over COM, or the
// simulation in package wua. Package agenttest holds what both must do.
type Machine interface {
	// Facts says what is true of the host now.
	Facts(ctx context.Context) (agentproto.Facts, error)

	// Service puts the Windows Update service into that mode. It is called
	// often and does nothing when the service is so already.
	Service(ctx context.Context, mode ServiceMode) error

	// Open registers the scan cab and returns a session on it. The cab's path
	// is absolute and on a local disk. There is one session at a time: Open
	// waits until the last one is closed.
	Open(ctx context.Context, q Query) (Session, error)

	// TakeOver sets the policies by which Windows leaves its own updating to
	// the agent, or puts back what was before. What somebody else has set
	// otherwise since is left, and said: each in a sentence.
	TakeOver(ctx context.Context, on bool) (drift []string, err error)

	// InstallPackage has Windows' own servicing tools install one file, a .msu
	// or a .cab: the way for content that CopyToCache does not take. A session
	// may be open.
	InstallPackage(ctx context.Context, path string) (Outcome, error)

	// RemoveKB removes an installed update by its article's number, in digits.
	RemoveKB(ctx context.Context, kb string) (Outcome, error)

	// FreeSpace says how many bytes are free on the disk that holds dir.
	FreeSpace(ctx context.Context, dir string) (int64, error)
}

// A ServiceMode is what becomes of the Windows Update service.
type ServiceMode string

// The modes.
const (
	ServiceOn     ServiceMode = "on"     // may start, and runs
	ServiceOff    ServiceMode = "off"    // stopped and disabled, until the next pass
	ServiceGiven  ServiceMode = "given"  // back to Windows: manual start, none of our policies
	serviceUnseen ServiceMode = "unseen" // never touched: setting enabled is absent
)

// A Query is what a session looks for, and in which scan cab.
type Query struct {
	Cab        string // absolute local path of the scan cab
	Criteria   string // in the search language of IUpdateSearcher; empty for what is needed and what is installed
	Superseded bool   // include updates that a newer one replaces
}

// A Session is one scan cab registered with Windows and what was found with
// it. Windows cannot be interrupted: a context is looked at before a call
// begins, not during it. AcceptEULA, Hide, CopyToCache and Install take
// updates that the last Search found.
type Session interface {
	// Search returns what is needed and what is installed.
	Search(ctx context.Context) ([]Found, error)
	// AcceptEULA accepts the licence of an update and of its parts.
	AcceptEULA(ctx context.Context, ref agentproto.UpdateRef) error
	// Hide takes an update out of Windows' own list of updates to install, or
	// puts it back. It is found all the same.
	Hide(ctx context.Context, ref agentproto.UpdateRef, hidden bool) error
	// CopyToCache gives Windows the files of an update and of its parts:
	// absolute paths, named as in the update's URLs. Windows checks them.
	CopyToCache(ctx context.Context, ref agentproto.UpdateRef, files []string) error
	// Install installs one update. That Windows could not is an Outcome; an
	// error is that Windows could not be asked.
	Install(ctx context.Context, ref agentproto.UpdateRef) (Outcome, error)
	// Close gives the session back to Windows, also after an error.
	Close() error
}

// Found is one update that a search found. The description holds the files of
// the update's parts too: of most Windows updates only the parts have files.
type Found struct {
	Update    agentproto.Update `json:"update"`
	Installed bool              `json:"installed,omitempty"`
	OnHost    bool              `json:"on_host,omitempty"`    // Windows' own cache has what it needs to install
	Restart   bool              `json:"restart,omitempty"`    // installed, waits for a restart
	EULA      bool              `json:"eula,omitempty"`       // its licence is not accepted yet
	Hidden    bool              `json:"hidden,omitempty"`     // in Windows' own list
	UserInput bool              `json:"user_input,omitempty"` // it may ask the user something; never installed
}

// Ref names the update.
func (f Found) Ref() agentproto.UpdateRef {
	return agentproto.UpdateRef{ID: f.Update.ID, Revision: f.Update.Revision}
}

// An Outcome is what installing one update came to. HResult is 0, or a
// positive success code, when it is installed.
type Outcome struct {
	HResult uint32
	Restart bool // it takes effect after a restart
}

// Failed says whether the update is not installed: the sign bit of an HRESULT
// (MS-ERREF, section 2.1).
func (o Outcome) Failed() bool { return int32(o.HResult) < 0 }

// A WindowsError is a call that Windows refused, with the code it gave.
type WindowsError struct {
	Call    string // "Search"
	HResult uint32
}

func (e *WindowsError) Error() string {
	return fmt.Sprintf("%s: 0x%08X: %s", e.Call, e.HResult, agentproto.Explain(e.HResult).Plain())
}

// hresult returns the code Windows gave, or 0 when err is not from Windows.
func hresult(err error) uint32 {
	var e *WindowsError
	if errors.As(err, &e) {
		return e.HResult
	}
	return 0
}

// The codes by which the agent decides what to do next (wuerror.h), besides
// their class. What they and all others mean is in package agentproto.
const (
	codeIncorrectHash     = 0x80246002 // WU_E_DM_INCORRECTFILEHASH
	codeNotDownloaded     = 0x80246007 // WU_E_DM_NOTDOWNLOADED
	codeAnotherDownload   = 0x8024200D // WU_E_UH_NEEDANOTHERDOWNLOAD
	codeCanRequireInput   = 0x8024200A // WU_E_UH_CANREQUIREINPUT
	codeInstallNotAllowed = 0x80240016 // WU_E_INSTALL_NOT_ALLOWED: another install, or a restart first
	codeServiceStop       = 0x8024001E // WU_E_SERVICE_STOP
	codeShutdown          = 0x8007045B // ERROR_SHUTDOWN_IN_PROGRESS
	codeOutOfMemory       = 0x8007000E // E_OUTOFMEMORY
	codeDiskFull          = 0x80070070 // ERROR_DISK_FULL
	codeClock             = 0x80072F8F // WININET_E_DECODING_FAILED: no secure connection, often because of the clock
)
