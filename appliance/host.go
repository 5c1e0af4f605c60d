package appliance

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/replicate"
)

// away is how long a host may be silent beyond its due time.
const away = 2 * time.Minute

// hostRow is a host as lists show it. The catalogue's lock is held.
func (a *Appliance) hostRow(id agentproto.HostID, t *countTable, now time.Time) HostRow {
	c, h := a.cat, a.cat.hosts[id]
	r := HostRow{
		ID: id, Name: h.Facts.Name, FQDN: h.Facts.FQDN, OS: h.Facts.OS, Build: h.Facts.Build, Groups: []string{}, Waiting: h.Waiting,
		Seen: h.seen, Scanned: h.status.Good, Restart: h.Facts.RestartDue, Doing: h.doing, Accepts: c.accepts(id), Agent: h.Agent,
		Online: a.streams.open(id) || !h.due.IsZero() && now.Before(h.due.Add(away)),
	}
	if hc := t.hosts[id]; hc != nil {
		r.Counts = hc.StateCounts
	}
	for _, name := range slices.Sorted(maps.Keys(c.groups)) {
		if name != everyone && c.groups[name].exists && c.isMember(name, id) {
			r.Groups = append(r.Groups, name)
		}
	}
	if h.Claim != "" {
		r.Problems = append(r.Problems, "Another machine, or this one after a new installation, asks to be this host. Approve it if you know why.")
	}
	if h.status.Scan != nil && h.status.Scan.Error != "" {
		r.Problems = append(r.Problems, "The last scan failed: "+h.status.Scan.Error)
	}
	return r
}

// Hosts lists the hosts.
func (a *Appliance) Hosts(_ context.Context, q HostQuery) (HostList, error) {
	a.cat.mu.Lock()
	now := time.Now()
	t := a.cat.counts(now)
	rows := make([]HostRow, 0, len(a.cat.hosts))
	addresses := map[agentproto.HostID][]string{}
	for id, h := range a.cat.hosts {
		rows = append(rows, a.hostRow(id, t, now))
		addresses[id] = h.Facts.Addresses
	}
	a.cat.mu.Unlock()
	list := HostList{Total: len(rows)}
	var matching []HostRow
	systems, states, groups := map[string]int{}, map[string]int{}, map[string]int{}
	for _, r := range rows {
		if !q.matches(r, addresses[r.ID]) {
			continue
		}
		okOS := len(q.OS) == 0 || slices.Contains(q.OS, r.OS)
		okState := len(q.State) == 0 || slices.ContainsFunc(q.State, func(s rules.State) bool { return r.Counts.of(s) > 0 })
		okGroup := q.Group == "" || q.Group == everyone || slices.Contains(r.Groups, q.Group)
		if okState && okGroup {
			systems[r.OS]++
		}
		if okOS && okState {
			for _, g := range r.Groups {
				groups[g]++
			}
		}
		if okOS && okGroup {
			for _, s := range []rules.State{rules.OK, rules.Missing, rules.Pending, rules.Discarded} {
				if r.Counts.of(s) > 0 {
					states[string(s)]++
				}
			}
		}
		if okOS && okState && okGroup {
			matching = append(matching, r)
		}
	}
	slices.SortFunc(matching, hostOrder(q.Sort))
	list.Matching = len(matching)
	list.OS, list.State, list.Groups = facetList(systems), facetList(states), facetList(groups)
	list.Hosts, list.Next = page(matching, q.Page, func(r HostRow) string { return string(r.ID) })
	return list, nil
}

func facetList(m map[string]int) []FacetCount {
	list := []FacetCount{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, FacetCount{Value: k, Label: k, Count: m[k]})
	}
	return list
}

func (q HostQuery) matches(r HostRow, addresses []string) bool {
	switch q.Seen {
	case "online":
		if !r.Online {
			return false
		}
	case "away":
		if r.Online || time.Since(r.Seen) < 24*time.Hour {
			return false
		}
	case "never scanned":
		if !r.Scanned.IsZero() {
			return false
		}
	case "waiting":
		if !r.Waiting && len(r.Problems) == 0 {
			return false
		}
	}
	text := strings.ToLower(q.Text)
	return text == "" || strings.Contains(strings.ToLower(r.Name), text) || strings.Contains(strings.ToLower(r.FQDN), text) ||
		strings.HasPrefix(string(r.ID), text) || slices.Contains(addresses, text)
}

func hostOrder(sort string) func(x, y HostRow) int {
	key, down := strings.CutPrefix(sort, "-")
	by := func(x, y HostRow) int {
		switch key {
		case "os":
			return strings.Compare(x.OS, y.OS)
		case "scan":
			return x.Scanned.Compare(y.Scanned)
		case "seen":
			return x.Seen.Compare(y.Seen)
		case "missing":
			return x.Counts.Missing - y.Counts.Missing
		case "pending":
			return x.Counts.Pending - y.Counts.Pending
		default:
			return strings.Compare(x.Name, y.Name)
		}
	}
	return func(x, y HostRow) int {
		n := by(x, y)
		if down {
			n = -n
		}
		return cmp.Or(n, strings.Compare(x.Name, y.Name), strings.Compare(string(x.ID), string(y.ID)))
	}
}

// Host is one host with everything that decides about it.
func (a *Appliance) Host(_ context.Context, id agentproto.HostID) (HostDetail, error) {
	c := a.cat
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosts[id]
	if h == nil {
		return HostDetail{}, notFound("There is no host %s.", id)
	}
	now := time.Now()
	d := HostDetail{
		HostRow: a.hostRow(id, c.counts(now), now), Facts: h.Facts, Scan: h.status.Scan, Warnings: h.Warnings,
		Enrolled: h.Enrolled, EnrolledBy: h.By, Settings: effective(h.Settings), Packages: []PackageRow{}, Commands: []CommandRow{},
	}
	for _, name := range slices.Sorted(maps.Keys(c.packages)) {
		if k := c.packages[name]; k.exists && k.reaches(id, c) {
			d.Packages = append(d.Packages, c.packageRow(name))
		}
	}
	for _, r := range c.commands[id] {
		d.Commands = append(d.Commands, CommandRow(r))
	}
	slices.SortFunc(d.Commands, func(x, y CommandRow) int { return cmp.Or(y.Issued.Compare(x.Issued), strings.Compare(x.ID, y.ID)) })
	d.Commands = d.Commands[:min(len(d.Commands), 50)]
	return d, nil
}

// effective lists the options of [waptwua] by WAPT's names. A source other
// than the host's own file comes with profiles.
func effective(s rules.Settings) []EffectiveSetting {
	def := rules.DefaultSettings()
	list := []EffectiveSetting{}
	add := func(name, value string, isDefault bool) {
		source := "wapt-get.ini"
		if isDefault {
			source = "default"
		}
		list = append(list, EffectiveSetting{name, value, source})
	}
	enabled := "not set"
	if s.Enabled != nil {
		enabled = pyBool(*s.Enabled)
	}
	severities := make([]string, len(s.AllowedSeverities))
	for i, v := range s.AllowedSeverities {
		severities[i] = string(v)
	}
	add("enabled", enabled, s.Enabled == nil)
	add("default_allow", pyBool(s.DefaultAllow), !s.DefaultAllow)
	add("allowed_severities", cmp.Or(strings.Join(severities, ", "), "none"), len(severities) == 0)
	add("direct_download", pyBool(s.DirectDownload), !s.DirectDownload)
	add("download_scheduling", span(s.DownloadScheduling), s.DownloadScheduling == def.DownloadScheduling)
	add("install_scheduling", span(s.InstallScheduling), s.InstallScheduling == 0)
	add("install_at_shutdown", pyBool(s.InstallAtShutdown), !s.InstallAtShutdown)
	add("install_delay", span(s.InstallDelay), s.InstallDelay == 0)
	add("waptexit_disable_skip_windows_updates", pyBool(s.DisableSkip), !s.DisableSkip)
	add("include_potentially_superseded_updates", pyBool(s.IncludeSuperseded), !s.IncludeSuperseded)
	return list
}

func pyBool(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

// span writes a duration as wapt-get.ini does: 7d, 12h, 30m.
func span(d time.Duration) string {
	switch {
	case d == 0:
		return "none"
	case d%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	default:
		return fmt.Sprintf("%ds", d/time.Second)
	}
}

// hostUpdate is a decided pair as pages show it. The lock is held.
func (c *catalogue) hostUpdate(id agentproto.HostID, p pair) HostUpdate {
	u := HostUpdate{
		Host: id, HostName: c.hosts[id].Facts.Name, Update: c.name(p.status.ID), Revision: p.status.Revision, Severity: cmp.Or(p.update.Severity, rules.Unspecified),
		State: p.state, Reason: p.reason, Why: rules.Sentence(p.decision, p.reason), Decision: p.decision,
	}
	for _, f := range p.update.Files {
		u.Size += f.Size
	}
	if p.status.HResult != 0 && p.state != rules.OK {
		m := agentproto.Explain(p.status.HResult)
		u.HResult, u.Error = m.Code, &m
		u.Why += " Windows answered " + m.Title() + " on " + clock(p.status.Tried) + ". " + m.Sentence()
	}
	if p.state == rules.Missing {
		if _, f := c.filesOf(p.update); f.Note != "" {
			u.Why += " " + f.Note
		}
	}
	return u
}

// HostUpdates lists the updates of one host, what needs an admin first;
// states nil for all.
func (a *Appliance) HostUpdates(_ context.Context, id agentproto.HostID, text string, states []rules.State, p Page) (list []HostUpdate, total int, next string, err error) {
	c := a.cat
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hosts[id] == nil {
		return nil, 0, "", notFound("There is no host %s.", id)
	}
	for pr := range c.pairs(id, time.Now()) {
		if (len(states) == 0 || slices.Contains(states, pr.state)) && matches(text, pr.update.Title, string(pr.update.ID), pr.update.KBs, pr.update.CVEs) {
			list = append(list, c.hostUpdate(id, pr))
		}
	}
	slices.SortFunc(list, func(x, y HostUpdate) int {
		return cmp.Or(stateRank(x.State)-stateRank(y.State), severityRank(x.Severity)-severityRank(y.Severity), strings.Compare(x.Update.Title, y.Update.Title), strings.Compare(string(x.Update.ID), string(y.Update.ID)))
	})
	total = len(list)
	list, next = page(list, p, func(u HostUpdate) string { return string(u.Update.ID) })
	return list, total, next, nil
}

// ApproveHost lets a waiting host in, or gives a host's name to the machine
// that claims it.
func (a *Appliance) ApproveHost(ctx context.Context, by Actor, id agentproto.HostID) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		h, ok, err := hosts.find(tx, string(id))
		switch {
		case err != nil:
			return err
		case !ok:
			return notFound("There is no host %s.", id)
		case !h.Waiting && h.Claim == "":
			return &Problem{Kind: Conflict, Msg: h.Facts.Name + " is approved already."}
		}
		if h.Claim != "" {
			h.Key, h.Claim = h.Claim, ""
		}
		h.Waiting, h.Enrolled, h.By = false, tx.Now(), by.Name
		if err := hosts.put(tx, string(id), h); err != nil {
			return err
		}
		return a.audit(tx, by, "approve host", "host "+h.Facts.Name, "", string(id))
	})
}

// RemoveHost forgets a host; its certificate is refused from now on.
func (a *Appliance) RemoveHost(ctx context.Context, by Actor, id agentproto.HostID) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		h, ok, err := hosts.find(tx, string(id))
		if err != nil {
			return err
		}
		if !ok {
			return notFound("There is no host %s.", id)
		}
		for _, del := range []func() error{
			func() error { return hosts.del(tx, string(id)) },
			func() error { return statuses.del(tx, string(id)) },
			func() error { return delAll(tx, commands, string(id)+"/") },
		} {
			if err := del(); err != nil {
				return err
			}
		}
		return a.audit(tx, by, "remove host", "host "+h.Facts.Name, string(id), "")
	})
	if err == nil {
		a.streams.end(id)
	}
	return err
}

// delAll deletes every record of a table below a prefix.
func delAll[T any](tx *replicate.Tx, t table[T], under string) error {
	for r, err := range t.all(tx, under) {
		if err != nil {
			return err
		}
		if err := t.del(tx, r.id); err != nil {
			return err
		}
	}
	return nil
}
