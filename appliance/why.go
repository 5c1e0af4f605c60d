package appliance

import (
	"context"
	"fmt"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// Why explains the state of one update on one host, from need to restart.
func (a *Appliance) Why(_ context.Context, id agentproto.HostID, uid rules.UpdateID) (Why, error) {
	c := a.cat
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosts[id]
	if h == nil {
		return Why{}, notFound("There is no host %s.", id)
	}
	now := time.Now()
	for p := range c.pairs(h, now) {
		if p.status.ID != uid {
			continue
		}
		w := Why{HostUpdate: c.hostUpdate(h, p), Rules: c.policyOf(h).set.Explain(ruleView(p.update, p.status.Superseded), now)}
		w.Steps = c.steps(h, p)
		return w, nil
	}
	return Why{}, &Problem{
		Kind: NotFound, Msg: fmt.Sprintf("%s reports no update %s: its last scan found it neither needed nor installed.", h.Facts.Name, uid),
		Hint: "Trigger a scan of the host if you expect it to need the update.",
	}
}

// steps is the chain Needed → Allowed → On the mesh → On the host → Install →
// Restart. The first that is not done is where the update stands now.
func (c *catalogue) steps(h *host, p pair) []WhyStep {
	scan := "The host's scan found it"
	if s := h.status.Scan; s != nil {
		scan = fmt.Sprintf("The scan of %s found it", clock(s.Started))
	}
	need := scan + " needed."
	if p.status.Installed {
		need = scan + " installed."
	}
	files, f := c.filesOf(p.update)
	mesh := map[rules.Files]string{
		rules.FilesPresent: "On the node since " + clock(f.On) + ".", rules.FilesNone: "It has no files to wait for.",
		rules.FilesAbsent: "Not on the node.", rules.FilesFailed: "The download failed.", rules.FilesQueued: "Queued for download from Microsoft.",
		rules.FilesDownloading: fmt.Sprintf("On its way from Microsoft, %d %%.", f.Percent),
	}[files]
	if f.Note != "" && files != rules.FilesPresent {
		mesh += " " + f.Note
	}
	onHost := "The host fetches the files at its next turn."
	if p.status.OnHost || p.status.Installed {
		onHost = "In Windows' own cache on the host."
	}
	install := "At the next install: by schedule, at shutdown, or triggered here."
	switch {
	case p.status.Installed:
		install = "Installed."
	case p.reason == rules.ReasonDelayed:
		install = "Held back until " + clock(p.decision.Until) + "."
	case p.status.HResult != 0:
		m := agentproto.Explain(p.status.HResult)
		install = fmt.Sprintf("The try of %s ended with %s. %s", clock(p.status.Tried), m.Title(), m.Sentence())
	}
	restart := map[string]string{"never": "Not needed.", "always": "Needed after the install."}[p.update.Restart]
	if restart == "" {
		restart = "Windows may ask for one after the install."
	}
	if p.status.Restart {
		restart = "The host waits for it."
	}
	list := []WhyStep{
		{"Needed", need, "done"},
		{"Allowed", rules.Sentence(p.decision, allowedReason(p.decision), c.decider(p)), mark(p.decision.May() || p.status.Installed)},
		{"On the mesh", mesh, mark(files == rules.FilesPresent || files == rules.FilesNone || p.status.OnHost || p.status.Installed)},
		{"On the host", onHost, mark(p.status.OnHost || p.status.Installed)},
		{"Install", install, mark(p.status.Installed || p.status.Restart)},
		{"Restart", restart, mark(p.status.Installed && !p.status.Restart)},
	}
	for i := range list {
		if list[i].Mark == "todo" {
			list[i].Mark = "now"
			if p.state == rules.Discarded {
				list[i].Mark = "never"
			}
			break
		}
	}
	return list
}

// allowedReason narrows the sentence to what the rules say.
func allowedReason(d rules.Decision) rules.Reason {
	switch d.Verdict {
	case rules.Forbidden:
		return rules.ReasonForbidden
	case rules.NoRule:
		return rules.ReasonNoRule
	case rules.Hidden:
		return rules.ReasonHidden
	default:
		return ""
	}
}

func mark(done bool) string {
	if done {
		return "done"
	}
	return "todo"
}
