package agentproto

import (
	"fmt"
	"iter"
	"strings"
)

// A Class says who can do something about a result code of Windows. The agent
// spaces its tries by it, and pages, commands and logs say so in the words of
// [Class.Next].
type Class string

// The classes.
const (
	ClassRetry     Class = "retry"     // passes by itself
	ClassRestart   Class = "restart"   // the host has to restart first
	ClassAdmin     Class = "admin"     // configuration, space or rights
	ClassContent   Class = "content"   // the files are wrong or incomplete
	ClassRepair    Class = "repair"    // Windows' component store has to be repaired
	ClassPermanent Class = "permanent" // this update cannot be installed on this host this way
	ClassTold      Class = "told"      // says something, but not what to do
)

// Next says what the agent does by itself after an install that failed with a
// code of that class. It is true: package agent keeps to it.
func (c Class) Next() string {
	switch c {
	case ClassRestart:
		return "The agent tries again after the host has restarted."
	case ClassAdmin:
		return "The agent tries again once a day."
	case ClassContent:
		return "The agent gets the files again and retries."
	case ClassRepair:
		return "The agent tries again once a week, or when you order an install."
	case ClassPermanent:
		return "The agent does not try this revision again unless you order an install."
	default:
		return "The agent tries again by itself."
	}
}

// A Meaning is a result code of Windows in plain words.
type Meaning struct {
	Code   string `json:"code"`   // "0x800F0922"
	Name   string `json:"name"`   // Microsoft's; the number again when we do not know it
	Cause  string `json:"cause"`  // one sentence
	Remedy string `json:"remedy"` // what people can do; empty when nothing
	Class  Class  `json:"class"`
	Next   string `json:"next"` // what the agent does by itself; empty after a success
}

// Title is the code and its name: "0x800F0922 (CBS_E_INSTALLERS_FAILED)".
func (m Meaning) Title() string {
	if m.Name == m.Code {
		return m.Code
	}
	return m.Code + " (" + m.Name + ")"
}

// Sentence is what it means for an install: cause, remedy, and what next.
func (m Meaning) Sentence() string { return strings.TrimSpace(m.Plain() + " " + m.Next) }

// Plain is what it means and what to do, whatever call gave the code.
func (m Meaning) Plain() string { return strings.TrimSpace(m.Cause + " " + m.Remedy) }

// Explain says what a result code of Windows means. A code that is not in the
// table has its number for a name, and its cause says so.
func Explain(code uint32) Meaning {
	number := fmt.Sprintf("0x%08X", code)
	row, ok := meanings[code]
	if !ok {
		row = meaning{
			number, "Windows gave a code that is not in our table.",
			"Look at event 20 of WindowsUpdateClient in the host's System log, then at CBS.log.", ClassTold,
		}
	}
	m := Meaning{Code: number, Name: row.name, Cause: row.cause, Remedy: row.remedy, Class: row.class}
	if int32(code) < 0 { // the sign bit of an HRESULT is failure (MS-ERREF, section 2.1)
		m.Next = m.Class.Next()
	}
	return m
}

// An ExplainedFailure is one with its code in plain words.
type ExplainedFailure struct {
	Failure
	Meaning *Meaning `json:"meaning,omitempty"` // nil without a code
}

// ExplainFailure looks the code of a failure up. What the agent does next is
// left out: that is said of installs alone.
func ExplainFailure(f Failure) ExplainedFailure {
	if f.HResult == 0 {
		return ExplainedFailure{Failure: f}
	}
	m := Explain(f.HResult)
	m.Next = ""
	return ExplainedFailure{f, &m}
}

// Meanings yields the whole table, in no order.
func Meanings() iter.Seq2[uint32, Meaning] {
	return func(yield func(uint32, Meaning) bool) {
		for code := range meanings {
			if !yield(code, Explain(code)) {
				return
			}
		}
	}
}

// A meaning is one row of the table.
type meaning struct {
	name   string
	cause  string // one sentence
	remedy string // one or two; empty when there is nothing for people to do
	class  Class
}

const (
	resetStore = "Fetch the scan cab again; if that does not help, reset the SoftwareDistribution folder."
	dism       = "Repair the component store: DISM /Online /Cleanup-Image /RestoreHealth."
	ours       = "This is an error of the agent's: please report it."
	wentOnline = "The scan went to the Internet though it should not: look for Windows Update policies on this host, its proxy and its DNS."
)

// meanings has the codes seen in the field. The names are those of wuerror.h
// and winerror.h; those of CBS and PSFX are not in a public header and were
// compared between several published tables.
var meanings = map[uint32]meaning{
	// Success codes.
	0x00000000: {"S_OK", "Done.", "Nothing to do.", ClassTold},
	0x00240003: {"WU_S_UPDATE_ERROR", "It finished, but some updates failed.", "Look at the result of each update.", ClassTold},
	0x00240005: {"WU_S_REBOOT_REQUIRED", "It is installed and takes effect after a restart.", "Restart the host.", ClassRestart},
	0x00240006: {"WU_S_ALREADY_INSTALLED", "It was installed already.", "Nothing to do: the next scan shows it.", ClassTold},

	// The Windows Update Agent itself.
	0x80240001: {"WU_E_NO_SERVICE", "The Windows Update service could not serve the call.", "", ClassRetry},
	0x80240009: {"WU_E_OPERATIONINPROGRESS", "Another scan or install is running.", "", ClassRetry},
	0x8024000B: {"WU_E_CALL_CANCELLED", "It was cancelled: the service was stopping, or another tool did it.", "", ClassRetry},
	0x8024000D: {"WU_E_XML_MISSINGDATA", "The description of an update is incomplete, in the scan cab or in Windows' data store.", resetStore, ClassContent},
	0x8024000E: {"WU_E_XML_INVALID", "The description of an update cannot be read, in the scan cab or in Windows' data store.", resetStore, ClassContent},
	0x80240016: {"WU_E_INSTALL_NOT_ALLOWED", "Another install is running, or a restart has to come first.", "Restart the host if it waits for a restart; else wait.", ClassRestart},
	0x80240017: {"WU_E_NOT_APPLICABLE", "The update does not apply to this host any more, often because a newer one is installed.", "Nothing to do: the next scan shows it.", ClassTold},
	0x80240019: {"WU_E_EXCLUSIVE_INSTALL_CONFLICT", "The update has to be installed alone.", "", ClassRetry},
	0x8024001B: {"WU_E_SELFUPDATE_IN_PROGRESS", "Windows Update is updating itself.", "", ClassRetry},
	0x8024001E: {"WU_E_SERVICE_STOP", "The Windows Update service or Windows was shutting down.", "", ClassRetry},
	0x8024001F: {"WU_E_NO_CONNECTION", "Windows wanted the network and had none.", wentOnline, ClassAdmin},
	0x80240020: {"WU_E_NO_INTERACTIVE_USER", "The update wants a user who is logged on.", "Install it with a package, or by hand.", ClassPermanent},
	0x80240022: {"WU_E_ALL_UPDATES_FAILED", "Every update failed.", "Look at the result of each update, at event 20 of WindowsUpdateClient, and at CBS.log.", ClassTold},
	0x80240023: {"WU_E_EULAS_DECLINED", "The licence of the update was not accepted.", "", ClassRetry},
	0x80240024: {"WU_E_NO_UPDATE", "Windows was given nothing to install.", ours, ClassTold},
	0x80240025: {"WU_E_USER_ACCESS_DISABLED", "A policy blocks Windows Update for the account of the agent.", "Remove the policy for LocalSystem.", ClassAdmin},
	0x8024002E: {"WU_E_WU_DISABLED", "A policy forbids Windows Update servers that it does not name.", wentOnline, ClassAdmin},
	0x8024002F: {"WU_E_CALL_CANCELLED_BY_POLICY", "The policy DisableWindowsUpdateAccess is set.", "Remove it: it also blocks the interface the agent works with.", ClassAdmin},
	0x80240032: {"WU_E_INVALID_CRITERIA", "Windows did not understand the search criteria.", "Correct filter in [waptwua], or remove it.", ClassAdmin},
	0x80240034: {"WU_E_DOWNLOAD_FAILED", "The download failed.", "", ClassRetry},
	0x80240036: {"WU_E_INVALID_OPERATION", "The state of the session does not allow the call.", "", ClassRetry},
	0x80240042: {"WU_E_UNKNOWN_SERVICE", "The scan cab is not registered any more.", "", ClassRetry},
	0x80240044: {"WU_E_PER_MACHINE_UPDATE_ACCESS_DENIED", "The agent has no right to do this.", "Run it as LocalSystem.", ClassAdmin},
	0x80240438: {"WU_E_PT_ENDPOINT_UNREACHABLE", "Windows tried to reach Microsoft or a WSUS and could not.", wentOnline, ClassAdmin},
	0x80240FFF: {"WU_E_UNEXPECTED", "Windows Update had an error without a number of its own.", "If it stays, reset the SoftwareDistribution folder.", ClassRetry},

	// Handlers, which install.
	0x80242006: {"WU_E_UH_INVALIDMETADATA", "The description of the update cannot be used to install it.", resetStore, ClassContent},
	0x80242007: {"WU_E_UH_INSTALLERHUNG", "The installer took longer than it may.", "Try again at a quiet hour.", ClassRetry},
	0x8024200A: {"WU_E_UH_CANREQUIREINPUT", "The installer may ask the user something, so it is not run unattended.", "Install it with a package, or by hand.", ClassPermanent},
	0x8024200B: {"WU_E_UH_INSTALLERFAILURE", "The installer failed.", "The code that says why is in event 20 of WindowsUpdateClient, in CBS.log, or in the log of the MSI.", ClassTold},
	0x8024200C: {"WU_E_UH_FALLBACKTOSELFCONTAINED", "The delta cannot be used; Windows wants the full files.", "", ClassContent},
	0x8024200D: {"WU_E_UH_NEEDANOTHERDOWNLOAD", "The files given are not all that Windows needs.", "", ClassContent},
	0x80242FFF: {"WU_E_UH_UNEXPECTED", "The installer failed in a way that has no number of its own.", "The code that says why is in event 20 of WindowsUpdateClient and in CBS.log.", ClassTold},
	0x8024200F: {"WU_E_UH_INCONSISTENT_FILE_NAMES", "The files do not have the names that the description says.", "", ClassContent},
	0x80242014: {"WU_E_UH_POSTREBOOTSTILLPENDING", "Windows is still finishing the update after the restart.", "Wait, or restart the host again.", ClassRestart},
	0x80242015: {"WU_E_UH_POSTREBOOTRESULTUNKNOWN", "What became of the update after the restart is not known; often it was rolled back.", "The next scan shows it; CBS.log says why.", ClassRetry},
	0x80242016: {"WU_E_UH_POSTREBOOTUNEXPECTEDSTATE", "After the restart the update was not installed; often it was rolled back.", "CBS.log says why.", ClassRetry},
	0x80242017: {"WU_E_UH_NEW_SERVICING_STACK_REQUIRED", "The servicing stack is too old for this update.", "Allow the current servicing stack update.", ClassRetry},

	// Servers, which an offline scan never asks.
	0x8024402C: {"WU_E_PT_WINHTTP_NAME_NOT_RESOLVED", "Windows looked for an update server on the network and did not find it.", wentOnline, ClassAdmin},
	0x8024401C: {"WU_E_PT_HTTP_STATUS_REQUEST_TIMEOUT", "A WSUS did not answer in time.", "A WSUS policy is set on this host: remove it.", ClassAdmin},
	0x80244022: {"WU_E_PT_HTTP_STATUS_SERVICE_UNAVAIL", "A WSUS is not available.", "A WSUS policy is set on this host: remove it.", ClassAdmin},

	// Files and the cache.
	0x80246002: {"WU_E_DM_INCORRECTFILEHASH", "A file is not the one that Microsoft published.", "", ClassContent},
	0x80246007: {"WU_E_DM_NOTDOWNLOADED", "Windows does not have all files of the update.", "", ClassContent},
	0x80246008: {"WU_E_DM_FAILTOCONNECTTOBITS", "The service BITS is disabled or broken.", "Set BITS to manual start.", ClassAdmin},
	0x80246012: {"WU_E_DM_DOWNLOADFILEMISSING", "A file vanished from Windows' cache, by a cleaner or an antivirus.", "Exclude SoftwareDistribution from the antivirus.", ClassContent},

	// The offline scan.
	0x80247001: {"WU_E_OL_INVALID_SCANFILE", "The scan cab is damaged or not Microsoft's.", "Have the node download it again.", ClassContent},
	0x80247002: {"WU_E_OL_NEWCLIENT_REQUIRED", "The Windows Update Agent is too old for the scan cab.", "Install the current cumulative update by hand once.", ClassPermanent},
	0x80247FFF: {"WU_E_OL_UNEXPECTED", "The offline scan failed.", "Give the host more memory, or reset the SoftwareDistribution folder.", ClassRetry},
	0x80248001: {"WU_E_DS_INUSE", "Windows' data store is in use.", "", ClassRetry},
	0x80248007: {"WU_E_DS_NODATA", "Windows' data store lacks a record.", "Reset SoftwareDistribution\\DataStore if the next scan says the same.", ClassRepair},
	0x8024800F: {"WU_E_DS_STOREFILELOCKED", "Windows' data store is locked, usually by an antivirus.", "Exclude SoftwareDistribution from the antivirus.", ClassRetry},
	0x80248014: {"WU_E_DS_UNKNOWNSERVICE", "The session's scan cab is not registered.", "", ClassRetry},
	0x8024A10A: {"USO_E_SERVICE_SHUTTING_DOWN", "Windows' update orchestrator was shutting down.", "", ClassRetry},

	// Windows at large.
	0x80070002: {"ERROR_FILE_NOT_FOUND", "A file is missing: the scan cab, one of the cache, or one of Windows' own.", "If it stays: " + dism, ClassContent},
	0x80070003: {"ERROR_PATH_NOT_FOUND", "A folder is missing: that of the scan cab, of the cache, or one of Windows' own.", "If it stays: " + dism, ClassContent},
	0x80070005: {"E_ACCESSDENIED", "Access was denied, by a right or by an antivirus.", "Run the agent as LocalSystem; look at the antivirus and at CBS.log.", ClassAdmin},
	0x8007000D: {"ERROR_INVALID_DATA", "A file has damaged contents.", "If it stays: " + dism, ClassContent},
	0x8007000E: {"E_OUTOFMEMORY", "The scan ran out of memory.", "Close programs or give the host more memory.", ClassRetry},
	0x80070020: {"ERROR_SHARING_VIOLATION", "Another program holds a file, usually an antivirus.", "Exclude SoftwareDistribution from the antivirus.", ClassRetry},
	0x80070057: {"E_INVALIDARG", "Windows refused an argument, often a file that is not of this update.", "", ClassContent},
	0x80070070: {"ERROR_DISK_FULL", "The disk is full.", "Free twice the size of the update and 5 GB.", ClassAdmin},
	0x80070422: {"ERROR_SERVICE_DISABLED", "The Windows Update service, or one it needs, is disabled.", "Set enabled = True in [waptwua], so that the agent starts it, or enable it by hand.", ClassRetry},
	0x8007045B: {"ERROR_SHUTDOWN_IN_PROGRESS", "Windows was shutting down.", "", ClassRetry},
	0x80070490: {"ERROR_NOT_FOUND", "A component or a driver is missing in Windows' component store.", dism, ClassRepair},
	0x80070570: {"ERROR_FILE_CORRUPT", "The disk or the component store is damaged.", "Run chkdsk, then: " + dism, ClassRepair},
	0x800705B4: {"ERROR_TIMEOUT", "Servicing took too long.", "Try again at a quiet hour.", ClassRetry},
	0x80070643: {"ERROR_INSTALL_FAILURE", "The update's own installer failed: MSI, .NET, Office, or a recovery partition that is too small.", "Look at its log; for a recovery update, make the WinRE partition larger.", ClassPermanent},
	0x80070652: {"ERROR_INSTALL_ALREADY_RUNNING", "Another MSI is being installed.", "", ClassRetry},
	0x800706BA: {"RPC_S_SERVER_UNAVAILABLE", "A service of Windows died during the call.", "", ClassRetry},
	0x800706BE: {"RPC_S_CALL_FAILED", "A service of Windows died during the call.", "", ClassRetry},
	0x80070BC9: {"ERROR_FAIL_REBOOT_REQUIRED", "The update was rolled back, and a restart is needed.", "Restart the host.", ClassRestart},
	0x800719E4: {"ERROR_LOG_FULL", "The transaction logs of the registry or the disk are full.", "Clean them as Microsoft's article on TxR logs says.", ClassRepair},
	0x80072EE2: {"WININET_E_TIMEOUT", "Windows went online and got no answer.", wentOnline, ClassAdmin},
	0x80072EFD: {"WININET_E_CANNOT_CONNECT", "Windows went online and could not connect.", wentOnline, ClassAdmin},
	0x80072EFE: {"WININET_E_CONNECTION_ABORTED", "Windows went online and was cut off.", wentOnline, ClassAdmin},
	0x80072F8F: {"WININET_E_DECODING_FAILED", "A secure connection could not be made, often because the clock is wrong.", "Set the clock of the host.", ClassAdmin},
	0x80073701: {"ERROR_SXS_ASSEMBLY_MISSING", "Windows' component store is incomplete.", "Run DISM /Online /Cleanup-Image /StartComponentCleanup, then /RestoreHealth.", ClassRepair},
	0x80073712: {"ERROR_SXS_COMPONENT_STORE_CORRUPT", "Windows' component store is damaged.", dism + " If that fails, a repair install.", ClassRepair},
	0x8007371B: {"ERROR_SXS_TRANSACTION_CLOSURE_INCOMPLETE", "Windows' component store lacks a part that the update builds on.", dism + " If that fails, a repair install.", ClassRepair},
	0x80080005: {"CO_E_SERVER_EXEC_FAILURE", "A service of Windows would not start.", "Restart the host if it stays.", ClassRetry},

	// Signatures.
	0x80092004: {"CRYPT_E_NOT_FOUND", "The signature of a file cannot be verified: old root certificates, or an altered file.", "Update the root certificates of the host.", ClassContent},
	0x800B0100: {"TRUST_E_NOSIGNATURE", "A file has no signature, or was altered.", "", ClassContent},
	0x800B0109: {"CERT_E_UNTRUSTEDROOT", "The signature of a file ends in a root that this host does not trust.", "Update the root certificates of the host.", ClassContent},

	// Component-based servicing and its deltas.
	0x800F0805: {"CBS_E_INVALID_PACKAGE", "The package cannot be read.", "", ClassContent},
	0x800F081E: {"CBS_E_NOT_APPLICABLE", "The package does not apply to this host.", "Nothing to do: the next scan shows it.", ClassTold},
	0x800F081F: {"CBS_E_SOURCE_MISSING", "Files that the component store needs are missing.", dism + " Give it a /Source.", ClassRepair},
	0x800F0821: {"CBS_E_ABORT", "Servicing was cut short, often because it took too long.", "Try again when the host has less to do.", ClassRetry},
	0x800F0823: {"CBS_E_NEW_SERVICING_STACK_REQUIRED", "The servicing stack is too old for this update.", "Allow the current servicing stack update.", ClassRetry},
	0x800F0825: {"CBS_E_CANNOT_UNINSTALL", "A component is installed by half.", dism + " Then sfc /scannow.", ClassRepair},
	0x800F0826: {"CBS_E_PENDING_VICTIM", "It was rolled back because another pending package failed.", "Restart the host.", ClassRestart},
	0x800F0828: {"CBS_E_INSUFFICIENT_DISK_SPACE", "The disk is full.", "Free twice the size of the update and 5 GB.", ClassAdmin},
	0x800F0830: {"CBS_E_IMAGE_UNSERVICEABLE", "The component store is beyond repair by servicing.", "Do a repair install of Windows.", ClassPermanent},
	0x800F0831: {"CBS_E_STORE_CORRUPTION", "Files of an older update are missing in the component store.", dism + " Give it a /Source.", ClassRepair},
	0x800F0902: {"CBS_E_BUSY", "Servicing is busy.", "", ClassRetry},
	0x800F0906: {"CBS_E_DOWNLOAD_FAILURE", "Windows wanted content from the Internet.", "Give it a source by policy: optional component installation and repair.", ClassAdmin},
	0x800F0907: {"CBS_E_GROUPPOLICY_DISALLOWED", "A policy keeps Windows from getting content it wants.", "Give it a source by policy: optional component installation and repair.", ClassAdmin},
	0x800F0920: {"CBS_E_HANG_DETECTED", "Servicing hung.", "Look at the antivirus and the health of the disk.", ClassRetry},
	0x800F0922: {"CBS_E_INSTALLERS_FAILED", "A component's installer failed: often the EFI or System Reserved partition is too small.", "Free space there, or end a VPN.", ClassAdmin},
	0x800F0954: {"CBS_E_INVALID_WINDOWS_UPDATE_COUNT_WSUS", "A WSUS policy kept Windows from optional content.", "Set RepairContentServerSource to 2, or give a source by policy.", ClassAdmin},
	0x800F0982: {"PSFX_E_MATCHING_COMPONENT_NOT_FOUND", "A component that the delta builds on is missing.", dism + " If that fails, install the last cumulative update again.", ClassRepair},
	0x800F0984: {"PSFX_E_MATCHING_BINARY_MISSING", "A file that the delta builds on is missing.", dism + " If that fails, install the last cumulative update again.", ClassRepair},
	0x800F0985: {"PSFX_E_REVERSE_DELTA_MISSING", "The way back to the file that the delta builds on is missing.", dism + " If that fails, install the last cumulative update again.", ClassRepair},
	0x800F0986: {"PSFX_E_APPLY_FORWARD_DELTA_FAILED", "The delta does not fit the files of this host.", dism + " If that fails, install the last cumulative update again.", ClassRepair},
	0x800F0988: {"PSFX_E_INVALID_DELTA_COMBINATION", "The component store needs cleaning before this delta.", "Run DISM /Online /Cleanup-Image /StartComponentCleanup.", ClassRepair},
	0x800F0991: {"PSFX_E_MISSING_PAYLOAD_FILE", "A file of the update's payload is missing.", "If it stays: " + dism, ClassContent},

	// The plumbing between the agent and Windows.
	0x80004001: {"E_NOTIMPL", "This Windows does not have the Windows Update Agent.", "The agent runs on Windows 10, Windows 11 and Server 2016 or newer.", ClassPermanent},
	0x80010106: {"RPC_E_CHANGED_MODE", "COM was used from the wrong thread.", ours, ClassTold},
	0x80040154: {"REGDB_E_CLASSNOTREG", "The Windows Update Agent is not registered.", "Register wuapi.dll, or repair Windows.", ClassRepair},
	0x800401F0: {"CO_E_NOTINITIALIZED", "COM was used before it was ready.", ours, ClassTold},
	0x800401F3: {"CO_E_CLASSSTRING", "The Windows Update Agent is not registered.", "Register wuapi.dll, or repair Windows.", ClassRepair},
}
