// Package wua is the Windows side of the agent: what the result codes of the
// Windows Update Agent mean to people, and [Sim], a simulated host for tests
// and the demonstration. The sources of what it knows are in DESIGN.md of
// package agent.
package wua

import (
	"fmt"

	"wuamesh/agentproto/agent"
)

// A Class says who can do something about a code.
type Class string

// The classes.
const (
	Retry   Class = "retry"   // passes by itself; the agent tries again
	Restart Class = "restart" // the host has to restart first
	Admin   Class = "admin"   // configuration, space or rights
	Content Class = "content" // the files are wrong or incomplete: fetch them again
	Repair  Class = "repair"  // Windows' component store has to be repaired
	Never   Class = "never"   // this update cannot be installed on this host this way
	Told    Class = "told"    // says something, asks for nothing
)

// A Meaning is a result code in plain words.
type Meaning struct {
	Name   string // Microsoft's, from wuerror.h, winerror.h or cbsapi's tables
	Cause  string // one sentence
	Remedy string // one sentence, what to do
	Class  Class
}

// Explain says what a code means. A code that is not in the table has its
// number for a name, and ok is false.
func Explain(code uint32) (m Meaning, ok bool) {
	if m, ok = meanings[code]; ok {
		return m, true
	}
	return Meaning{
		Name:   fmt.Sprintf("0x%08X", code),
		Cause:  "Windows gave a code that is not in our table.",
		Remedy: "Look at event 20 of WindowsUpdateClient in the System log, then at CBS.log.",
		Class:  Told,
	}, false
}

// Sentence is the meaning of a code as one or two sentences.
func Sentence(code uint32) string {
	m, _ := Explain(code)
	return m.Cause + " " + m.Remedy
}

// Fail is a call that Windows refused with that code, explained.
func Fail(call string, code uint32) *agent.WindowsError {
	return &agent.WindowsError{Call: call, HResult: code, Plain: Sentence(code)}
}

const (
	resetStore = "Fetch the scan cab again; if that does not help, reset the SoftwareDistribution folder."
	dism       = "Repair the component store: DISM /Online /Cleanup-Image /RestoreHealth."
	tryLater   = "Nothing to do: the agent tries again."
	wentOnline = "The scan went to the Internet though it should not: look for Windows Update policies on this host, its proxy and its DNS."
)

// meanings has the codes seen in the field. The names are those of wuerror.h
// and winerror.h; those of CBS and PSFX are not in a public header and were
// compared between several published tables.
var meanings = map[uint32]Meaning{
	// Success codes.
	0x00000000: {"S_OK", "Done.", "Nothing to do.", Told},
	0x00240003: {"WU_S_UPDATE_ERROR", "It finished, but some updates failed.", "Look at the result of each update.", Told},
	0x00240005: {"WU_S_REBOOT_REQUIRED", "It is installed and takes effect after a restart.", "Restart the host.", Restart},
	0x00240006: {"WU_S_ALREADY_INSTALLED", "It was installed already.", "Nothing to do: the next scan shows it.", Told},

	// The Windows Update Agent itself.
	0x80240001: {"WU_E_NO_SERVICE", "The Windows Update service could not serve the call.", tryLater, Retry},
	0x80240009: {"WU_E_OPERATIONINPROGRESS", "Another scan or install is running.", tryLater, Retry},
	0x8024000B: {"WU_E_CALL_CANCELLED", "It was cancelled: the service was stopping, or another tool did it.", tryLater, Retry},
	0x8024000D: {"WU_E_XML_MISSINGDATA", "The description of an update is incomplete, in the scan cab or in Windows' data store.", resetStore, Content},
	0x8024000E: {"WU_E_XML_INVALID", "The description of an update cannot be read, in the scan cab or in Windows' data store.", resetStore, Content},
	0x80240016: {"WU_E_INSTALL_NOT_ALLOWED", "Another install is running, or a restart has to come first.", "Restart the host if it waits for a restart; else wait.", Restart},
	0x80240017: {"WU_E_NOT_APPLICABLE", "The update does not apply to this host any more, often because a newer one is installed.", "Nothing to do: the next scan shows it.", Told},
	0x80240019: {"WU_E_EXCLUSIVE_INSTALL_CONFLICT", "The update has to be installed alone.", tryLater, Retry},
	0x8024001B: {"WU_E_SELFUPDATE_IN_PROGRESS", "Windows Update is updating itself.", tryLater, Retry},
	0x8024001E: {"WU_E_SERVICE_STOP", "The Windows Update service or Windows was shutting down.", tryLater, Retry},
	0x8024001F: {"WU_E_NO_CONNECTION", "Windows wanted the network and had none.", wentOnline, Admin},
	0x80240020: {"WU_E_NO_INTERACTIVE_USER", "The update wants a user who is logged on.", "Install it with a package, or by hand.", Never},
	0x80240022: {"WU_E_ALL_UPDATES_FAILED", "Every update failed.", "Look at the result of each update, at event 20 of WindowsUpdateClient, and at CBS.log.", Told},
	0x80240023: {"WU_E_EULAS_DECLINED", "The licence of the update was not accepted.", tryLater, Retry},
	0x80240024: {"WU_E_NO_UPDATE", "Windows was given nothing to install.", "This is an error of the agent's: please report it.", Told},
	0x80240025: {"WU_E_USER_ACCESS_DISABLED", "A policy blocks Windows Update for the account of the agent.", "Remove the policy for LocalSystem.", Admin},
	0x8024002E: {"WU_E_WU_DISABLED", "A policy forbids Windows Update servers that it does not name.", wentOnline, Admin},
	0x8024002F: {"WU_E_CALL_CANCELLED_BY_POLICY", "The policy DisableWindowsUpdateAccess is set.", "Remove it: it also blocks the interface the agent works with.", Admin},
	0x80240032: {"WU_E_INVALID_CRITERIA", "Windows did not understand the search criteria.", "Correct filter in [waptwua], or remove it.", Admin},
	0x80240034: {"WU_E_DOWNLOAD_FAILED", "The download failed.", tryLater, Retry},
	0x80240036: {"WU_E_INVALID_OPERATION", "The state of the session does not allow the call.", tryLater, Retry},
	0x80240042: {"WU_E_UNKNOWN_SERVICE", "The scan cab is not registered any more.", tryLater, Retry},
	0x80240044: {"WU_E_PER_MACHINE_UPDATE_ACCESS_DENIED", "The agent has no right to do this.", "Run it as LocalSystem.", Admin},
	0x80240438: {"WU_E_PT_ENDPOINT_UNREACHABLE", "Windows tried to reach Microsoft or a WSUS and could not.", wentOnline, Admin},
	0x80240FFF: {"WU_E_UNEXPECTED", "Windows Update had an error without a number of its own.", "If it stays, reset the SoftwareDistribution folder.", Retry},

	// Handlers, which install.
	0x80242006: {"WU_E_UH_INVALIDMETADATA", "The description of the update cannot be used to install it.", resetStore, Content},
	0x80242007: {"WU_E_UH_INSTALLERHUNG", "The installer took longer than it may.", "Try again at a quiet hour.", Retry},
	0x8024200A: {"WU_E_UH_CANREQUIREINPUT", "The installer may ask the user something, so it is not run unattended.", "Install it with a package, or by hand.", Never},
	0x8024200B: {"WU_E_UH_INSTALLERFAILURE", "The installer failed.", "The code that says why is in event 20 of WindowsUpdateClient, in CBS.log, or in the log of the MSI.", Told},
	0x8024200C: {"WU_E_UH_FALLBACKTOSELFCONTAINED", "The delta cannot be used; Windows wants the full files.", tryLater, Content},
	0x8024200D: {"WU_E_UH_NEEDANOTHERDOWNLOAD", "The files given are not all that Windows needs.", "Nothing to do: the agent fetches the remaining ones and tries again.", Content},
	0x8024200F: {"WU_E_UH_INCONSISTENT_FILE_NAMES", "The files do not have the names that the description says.", "Have the files downloaded again under Microsoft's names.", Content},
	0x80242014: {"WU_E_UH_POSTREBOOTSTILLPENDING", "Windows is still finishing the update after the restart.", "Wait, or restart the host again.", Restart},
	0x80242015: {"WU_E_UH_POSTREBOOTRESULTUNKNOWN", "What became of the update after the restart is not known; often it was rolled back.", "The next scan shows it; CBS.log says why.", Retry},
	0x80242016: {"WU_E_UH_POSTREBOOTUNEXPECTEDSTATE", "After the restart the update was not installed; often it was rolled back.", "CBS.log says why.", Retry},
	0x80242017: {"WU_E_UH_NEW_SERVICING_STACK_REQUIRED", "The servicing stack is too old for this update.", "Allow the current servicing stack update.", Retry},

	// Servers, which an offline scan never asks.
	0x8024402C: {"WU_E_PT_WINHTTP_NAME_NOT_RESOLVED", "Windows looked for an update server on the network and did not find it.", wentOnline, Admin},
	0x8024401C: {"WU_E_PT_HTTP_STATUS_REQUEST_TIMEOUT", "A WSUS did not answer in time.", "A WSUS policy is set on this host: remove it.", Admin},
	0x80244022: {"WU_E_PT_HTTP_STATUS_SERVICE_UNAVAIL", "A WSUS is not available.", "A WSUS policy is set on this host: remove it.", Admin},

	// Files and the cache.
	0x80246002: {"WU_E_DM_INCORRECTFILEHASH", "A file is not the one that Microsoft published.", "Nothing to do: it was thrown away and is fetched again.", Content},
	0x80246007: {"WU_E_DM_NOTDOWNLOADED", "Windows does not have all files of the update.", "Nothing to do: the agent gives it the files again, with the deltas.", Content},
	0x80246008: {"WU_E_DM_FAILTOCONNECTTOBITS", "The service BITS is disabled or broken.", "Set BITS to manual start.", Admin},
	0x80246012: {"WU_E_DM_DOWNLOADFILEMISSING", "A file vanished from Windows' cache, by a cleaner or an antivirus.", "Exclude SoftwareDistribution from the antivirus; the agent gives the file again.", Content},

	// The offline scan.
	0x80247001: {"WU_E_OL_INVALID_SCANFILE", "The scan cab is damaged or not Microsoft's.", "Have the node download it again.", Content},
	0x80247002: {"WU_E_OL_NEWCLIENT_REQUIRED", "The Windows Update Agent is too old for the scan cab.", "Install the current cumulative update by hand once.", Never},
	0x80247FFF: {"WU_E_OL_UNEXPECTED", "The offline scan failed.", "Give the host more memory, or reset the SoftwareDistribution folder.", Retry},
	0x80248001: {"WU_E_DS_INUSE", "Windows' data store is in use.", tryLater, Retry},
	0x80248007: {"WU_E_DS_NODATA", "Windows' data store lacks a record.", "Reset SoftwareDistribution\\DataStore if the next scan says the same.", Repair},
	0x8024800F: {"WU_E_DS_STOREFILELOCKED", "Windows' data store is locked, usually by an antivirus.", "Exclude SoftwareDistribution from the antivirus.", Retry},
	0x80248014: {"WU_E_DS_UNKNOWNSERVICE", "The session's scan cab is not registered.", tryLater, Retry},
	0x8024A10A: {"USO_E_SERVICE_SHUTTING_DOWN", "Windows' update orchestrator was shutting down.", tryLater, Retry},

	// Windows at large.
	0x80070002: {"ERROR_FILE_NOT_FOUND", "A file is missing: the scan cab, one of the cache, or one of Windows' own.", "If it stays: " + dism, Content},
	0x80070003: {"ERROR_PATH_NOT_FOUND", "A folder is missing: that of the scan cab, of the cache, or one of Windows' own.", "If it stays: " + dism, Content},
	0x80070005: {"E_ACCESSDENIED", "Access was denied, by a right or by an antivirus.", "Run the agent as LocalSystem; look at the antivirus and at CBS.log.", Admin},
	0x8007000D: {"ERROR_INVALID_DATA", "A file has damaged contents.", "Have the files downloaded again; if it stays: " + dism, Content},
	0x8007000E: {"E_OUTOFMEMORY", "The scan ran out of memory.", "Close programs or give the host more memory; the agent waits a day before it tries again.", Retry},
	0x80070020: {"ERROR_SHARING_VIOLATION", "Another program holds a file, usually an antivirus.", "Exclude SoftwareDistribution from the antivirus.", Retry},
	0x80070057: {"E_INVALIDARG", "Windows refused an argument, often a file that is not of this update.", "Have the files downloaded again.", Content},
	0x80070070: {"ERROR_DISK_FULL", "The disk is full.", "Free twice the size of the update and 5 GB.", Admin},
	0x80070422: {"ERROR_SERVICE_DISABLED", "The Windows Update service, or one it needs, is disabled.", "Set enabled = True in [waptwua], so that the agent starts it, or enable it by hand.", Retry},
	0x8007045B: {"ERROR_SHUTDOWN_IN_PROGRESS", "Windows was shutting down.", tryLater, Retry},
	0x80070490: {"ERROR_NOT_FOUND", "A component or a driver is missing in Windows' component store.", dism, Repair},
	0x80070570: {"ERROR_FILE_CORRUPT", "The disk or the component store is damaged.", "Run chkdsk, then: " + dism, Repair},
	0x800705B4: {"ERROR_TIMEOUT", "Servicing took too long.", "Try again at a quiet hour.", Retry},
	0x80070643: {"ERROR_INSTALL_FAILURE", "The update's own installer failed: MSI, .NET, Office, or a recovery partition that is too small.", "Look at its log; for a recovery update, make the WinRE partition larger.", Never},
	0x80070652: {"ERROR_INSTALL_ALREADY_RUNNING", "Another MSI is being installed.", tryLater, Retry},
	0x800706BA: {"RPC_S_SERVER_UNAVAILABLE", "A service of Windows died during the call.", tryLater, Retry},
	0x800706BE: {"RPC_S_CALL_FAILED", "A service of Windows died during the call.", tryLater, Retry},
	0x80070BC9: {"ERROR_FAIL_REBOOT_REQUIRED", "The update was rolled back, and a restart is needed.", "Restart the host.", Restart},
	0x800719E4: {"ERROR_LOG_FULL", "The transaction logs of the registry or the disk are full.", "Clean them as Microsoft's article on TxR logs says.", Repair},
	0x80072EE2: {"WININET_E_TIMEOUT", "Windows went online and got no answer.", wentOnline, Admin},
	0x80072EFD: {"WININET_E_CANNOT_CONNECT", "Windows went online and could not connect.", wentOnline, Admin},
	0x80072EFE: {"WININET_E_CONNECTION_ABORTED", "Windows went online and was cut off.", wentOnline, Admin},
	0x80072F8F: {"WININET_E_DECODING_FAILED", "A secure connection could not be made, often because the clock is wrong.", "Set the clock of the host.", Admin},
	0x80073701: {"ERROR_SXS_ASSEMBLY_MISSING", "Windows' component store is incomplete.", "Run DISM /Online /Cleanup-Image /StartComponentCleanup, then /RestoreHealth.", Repair},
	0x80073712: {"ERROR_SXS_COMPONENT_STORE_CORRUPT", "Windows' component store is damaged.", dism + " If that fails, a repair install.", Repair},
	0x8007371B: {"ERROR_SXS_TRANSACTION_CLOSURE_INCOMPLETE", "Windows' component store lacks a part that the update builds on.", dism + " If that fails, a repair install.", Repair},
	0x80080005: {"CO_E_SERVER_EXEC_FAILURE", "A service of Windows would not start.", "Restart the host if it stays.", Retry},

	// Signatures.
	0x80092004: {"CRYPT_E_NOT_FOUND", "The signature of a file cannot be verified: old root certificates, or an altered file.", "Update the root certificates and have the file downloaded again.", Content},
	0x800B0100: {"TRUST_E_NOSIGNATURE", "A file has no signature, or was altered.", "Have the file downloaded again.", Content},
	0x800B0109: {"CERT_E_UNTRUSTEDROOT", "The signature of a file ends in a root that this host does not trust.", "Update the root certificates.", Content},

	// Component-based servicing and its deltas.
	0x800F0805: {"CBS_E_INVALID_PACKAGE", "The package cannot be read.", "Have the files downloaded again.", Content},
	0x800F081E: {"CBS_E_NOT_APPLICABLE", "The package does not apply to this host.", "Nothing to do: the next scan shows it.", Told},
	0x800F081F: {"CBS_E_SOURCE_MISSING", "Files that the component store needs are missing.", dism + " Give it a /Source.", Repair},
	0x800F0821: {"CBS_E_ABORT", "Servicing was cut short, often because it took too long.", "Try again when the host has less to do.", Retry},
	0x800F0823: {"CBS_E_NEW_SERVICING_STACK_REQUIRED", "The servicing stack is too old for this update.", "Allow the current servicing stack update.", Retry},
	0x800F0825: {"CBS_E_CANNOT_UNINSTALL", "A component is installed by half.", dism + " Then sfc /scannow.", Repair},
	0x800F0826: {"CBS_E_PENDING_VICTIM", "It was rolled back because another pending package failed.", "Restart the host; the agent tries again.", Restart},
	0x800F0828: {"CBS_E_INSUFFICIENT_DISK_SPACE", "The disk is full.", "Free twice the size of the update and 5 GB.", Admin},
	0x800F0830: {"CBS_E_IMAGE_UNSERVICEABLE", "The component store is beyond repair by servicing.", "Do a repair install of Windows.", Never},
	0x800F0831: {"CBS_E_STORE_CORRUPTION", "Files of an older update are missing in the component store.", dism + " Give it a /Source.", Repair},
	0x800F0902: {"CBS_E_BUSY", "Servicing is busy.", tryLater, Retry},
	0x800F0906: {"CBS_E_DOWNLOAD_FAILURE", "Windows wanted content from the Internet.", "Give it a source by policy: optional component installation and repair.", Admin},
	0x800F0907: {"CBS_E_GROUPPOLICY_DISALLOWED", "A policy keeps Windows from getting content it wants.", "Give it a source by policy: optional component installation and repair.", Admin},
	0x800F0920: {"CBS_E_HANG_DETECTED", "Servicing hung.", "Look at the antivirus and the health of the disk; the agent tries again.", Retry},
	0x800F0922: {"CBS_E_INSTALLERS_FAILED", "A component's installer failed: often the EFI or System Reserved partition is too small.", "Free space there, end a VPN, then try again.", Admin},
	0x800F0954: {"CBS_E_INVALID_WINDOWS_UPDATE_COUNT_WSUS", "A WSUS policy kept Windows from optional content.", "Set RepairContentServerSource to 2, or give a source by policy.", Admin},
	0x800F0982: {"PSFX_E_MATCHING_COMPONENT_NOT_FOUND", "A component that the delta builds on is missing.", dism + " If that fails, install the last cumulative update again.", Repair},
	0x800F0984: {"PSFX_E_MATCHING_BINARY_MISSING", "A file that the delta builds on is missing.", dism + " If that fails, install the last cumulative update again.", Repair},
	0x800F0985: {"PSFX_E_REVERSE_DELTA_MISSING", "The way back to the file that the delta builds on is missing.", dism + " If that fails, install the last cumulative update again.", Repair},
	0x800F0986: {"PSFX_E_APPLY_FORWARD_DELTA_FAILED", "The delta does not fit the files of this host.", dism + " If that fails, install the last cumulative update again.", Repair},
	0x800F0988: {"PSFX_E_INVALID_DELTA_COMBINATION", "The component store needs cleaning before this delta.", "Run DISM /Online /Cleanup-Image /StartComponentCleanup.", Repair},
	0x800F0991: {"PSFX_E_MISSING_PAYLOAD_FILE", "A file of the update's payload is missing.", "Have all of its files downloaded again; if it stays: " + dism, Content},

	// The plumbing between the agent and Windows.
	0x80004001: {"E_NOTIMPL", "This Windows does not have the Windows Update Agent.", "The agent runs on Windows 10, Windows 11 and Server 2016 or newer.", Never},
	0x80010106: {"RPC_E_CHANGED_MODE", "COM was used from the wrong thread.", "This is an error of the agent's: please report it.", Told},
	0x80040154: {"REGDB_E_CLASSNOTREG", "The Windows Update Agent is not registered.", "Register wuapi.dll, or repair Windows.", Repair},
	0x800401F0: {"CO_E_NOTINITIALIZED", "COM was used before it was ready.", "This is an error of the agent's: please report it.", Told},
	0x800401F3: {"CO_E_CLASSSTRING", "The Windows Update Agent is not registered.", "Register wuapi.dll, or repair Windows.", Repair},
}
