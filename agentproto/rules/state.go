package rules

import "strings"

// StateOf derives the seed's state and its reason from what the rules say and
// what is true. It is total: every combination has one answer. An installed
// update is OK also when it is forbidden: nothing is removed by itself.
func StateOf(d Decision, f Facts) (State, Reason) {
	switch {
	case f.RestartRequired:
		return Pending, ReasonRestart
	case f.Installed:
		return OK, Installed
	case d.Verdict == Forbidden:
		return Discarded, ReasonForbidden
	case d.Verdict == Hidden:
		return Discarded, ReasonHidden
	case !d.May():
		return Discarded, ReasonNoRule
	case !f.OnHost && f.Files == FilesFailed:
		return Missing, ReasonFailed
	case !f.OnHost && (f.Files == FilesAbsent || f.Files == ""):
		return Missing, ReasonWanted
	case !f.OnHost && f.Files == FilesQueued:
		return Pending, ReasonQueued
	case !f.OnHost && f.Files == FilesDownloading:
		return Pending, ReasonDownloading
	case d.Verdict == Delayed:
		return Pending, ReasonDelayed
	case f.Failed:
		return Pending, ReasonInstallErr
	case f.OnHost:
		return Pending, ReasonOnHost
	default:
		return Pending, ReasonOnNode
	}
}

// Sentence says in plain words why an update is in its state: first what the
// rules say, then what it waits for. title names the product or classification
// of the line that decided; where it is empty the GUID stands.
func Sentence(d Decision, r Reason, title string) string {
	switch r {
	case Installed:
		return "Installed."
	case ReasonForbidden:
		if d.By != nil && d.By.Package == EmergencyStop {
			return "Forbidden everywhere by an emergency stop."
		}
		return "Forbidden by " + by(d, title) + "."
	case ReasonNoRule:
		return "No rule allows it, and default_allow is off."
	case ReasonHidden:
		return "A newer update replaces it."
	}
	waits := map[Reason]string{
		ReasonWanted:      "No node holds its files yet; the next look for missing files asks Microsoft for them.",
		ReasonFailed:      "No node holds its files: the download from Microsoft failed and is tried again.",
		ReasonQueued:      "Its files are queued for download from Microsoft.",
		ReasonDownloading: "Its files are on their way from Microsoft.",
		ReasonOnNode:      "The node has its files; the host fetches them at its next turn.",
		ReasonOnHost:      "Its files are on the host; it waits for the next install.",
		ReasonDelayed:     "Held back until " + moment(d.Until) + " by install_delay.",
		ReasonInstallErr:  "The last try to install it failed.",
		ReasonRestart:     "Installed; it takes effect after a restart of the host.",
	}
	return strings.TrimSpace("Allowed by " + by(d, title) + ". " + waits[r])
}

// by names what decided.
func by(d Decision, title string) string {
	if d.By != nil {
		return "package " + d.By.Package + " (" + d.By.Line.what(title) + ")"
	}
	return "setting " + d.Setting
}
