package ui

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// The tables of the pages as files: the same lists with the same filters, by
// the names that the pages give their columns, with units in them.

// routeTables adds the tables to the pages.
func (u *UI) routeTables(mux *http.ServeMux) {
	for path, h := range map[string]func(*http.Request) (reply, error){
		"/overview/sites.csv": u.sitesTable, "/hosts.csv": u.hostsTable, "/hosts/{id}/updates.csv": u.hostUpdatesTable,
		"/updates.csv": u.updatesTable, "/updates/{id}/hosts.csv": u.updateHostsTable,
		"/rules.csv": u.rulesTable, "/rules/{name}/lines.csv": u.linesTable,
		"/groups.csv": u.groupsTable, profilesPath + ".csv": u.profilesTable, "/downloads.csv": u.tasksTable, "/downloads/moved.csv": u.trafficTable, "/downloads/links.csv": u.linksTable,
		"/clean.csv": u.unusedTable, "/mesh.csv": u.nodesTable, "/mesh/files.csv": u.neededTable, "/audit.csv": u.auditTable,
		"/settings/keys.csv": u.keysTable, "/access/tokens.csv": u.tokensTable, "/access/admins.csv": u.adminsTable, "/access/sessions.csv": u.sessionsTable,
	} {
		mux.Handle("GET "+path, u.page(h))
	}
}

// csvURL is the file of the list that a query shows, from its first row on.
func csvURL(path string, q url.Values) string {
	c := url.Values{}
	for k, v := range q {
		if k != "after" && k != "why" {
			c[k] = v
		}
	}
	if len(c) == 0 {
		return path
	}
	return path + "?" + c.Encode()
}

func (u *UI) hostsTable(r *http.Request) (reply, error) {
	head := []string{"Host", "FQDN", "HostID", "System", "Build", "Groups", "Accepts", "Node", "Online", "Waits for approval", "Restart due", "OK", "MISSING", "PENDING", "DISCARDED", "Last scan (UTC)", "Seen (UTC)", "Agent", "Problems", "Clock"}
	list := u.node.EachHost(r.Context(), hostQuery(hostFilter(r.URL.Query())))
	return save("hosts", head, rowsFrom(sure(list), func(h appliance.HostRow) row {
		return row{
			h.Name, h.FQDN, string(h.ID), h.OS, h.Build, strings.Join(h.Groups, "; "), joined(h.Accepts), h.Node, h.Online, h.Waiting, h.Restart,
			h.Counts.OK, h.Counts.Missing, h.Counts.Pending, h.Counts.Discarded, h.Scanned, h.Seen, h.Agent, strings.Join(h.Problems, " "), clockOf(h),
		}
	})), nil
}

func clockOf(h appliance.HostRow) string {
	if h.Clock == nil {
		return ""
	}
	return h.Clock.Fact()
}

func (u *UI) hostUpdatesTable(r *http.Request) (reply, error) {
	id, q := agentproto.HostID(r.PathValue("id")), r.URL.Query()
	if _, err := u.node.Host(r.Context(), id); err != nil {
		return reply{}, err
	}
	list := pages(func(after string) ([]appliance.HostUpdate, string, error) {
		l, err := u.node.HostUpdates(r.Context(), id, hostUpdateQuery(q, appliance.Page{Limit: 500, After: after}))
		return l.Updates, l.Next, err
	})
	return save("host-updates", onHostHead, rowsFrom(list, onHost)), nil
}

var onHostHead = []string{"State", "Host", "HostID", "Title", "KB", "UpdateID", "Revision", "Severity", "Size (bytes)", "Why", "Error"}

func onHost(h appliance.HostUpdate) row {
	return row{string(h.State), h.HostName, string(h.Host), h.Update.Title, h.Update.KB, string(h.Update.ID), h.Revision, string(h.Severity), h.Size, h.Why, h.HResult}
}

// neededTable has a column for each node.
func (u *UI) neededTable(r *http.Request) (reply, error) {
	c, err := u.node.NeededFiles(r.Context(), 0)
	head := []string{"File", "Title", "UpdateID", "Size (bytes)", "Hosts that wait"}
	for _, n := range c.Nodes {
		head = append(head, "On "+n.Name)
	}
	return save("mesh-files", head, rowsOf(c.Files, func(f appliance.NeededFile) row {
		cells := row{f.Name, f.Title, string(f.Update), f.Size, f.Hosts}
		for _, n := range c.Nodes {
			cells = append(cells, f.Has(n.ID))
		}
		return cells
	})), err
}

func (u *UI) sessionsTable(r *http.Request) (reply, error) {
	list, err := u.node.Sessions(r.Context(), actor(r))
	head := []string{"Admin", "Role", "Session", "Address", "Since (UTC)", "Last seen (UTC)", "Ends (UTC)"}
	return save("sessions", head, rowsOf(list, func(s appliance.SessionRow) row {
		return row{s.Admin, string(s.Role), s.ID, s.Address, s.Created, s.Seen, s.Ends}
	})), err
}

func (u *UI) updatesTable(r *http.Request) (reply, error) {
	head := []string{"Title", "KB", "UpdateID", "Revision", "Severity", "Classification", "Products", "CVEs", "Published (UTC)", "Needs restart", "Size (bytes)", "Replaced", "OK", "MISSING", "PENDING", "DISCARDED", "Download", "Downloaded on (UTC)", "Download note", "Decision", "Decided by", "Decision once a host reports it"}
	list := u.node.EachUpdate(r.Context(), updateQuery(canonical(r.URL.Query())))
	return save("updates", head, rowsFrom(list, func(v appliance.UpdateRow) row {
		var products []string
		for _, p := range v.Products {
			products = append(products, p.Title)
		}
		return row{
			v.Title, joined(v.KBs), string(v.ID), v.Revision, string(v.Severity), v.Classification.Title, strings.Join(products, "; "), joined(v.CVEs), v.Published, restartTexts[v.Restart], v.Size, v.Superseded,
			v.Hosts.OK, v.Hosts.Missing, v.Hosts.Pending, v.Hosts.Discarded, string(v.Download), v.DownloadedOn, v.DownloadNote, verdictTexts[v.Verdict], v.By, verdictTexts[v.Foreseen],
		}
	})), nil
}

func (u *UI) updateHostsTable(r *http.Request) (reply, error) {
	id, err := rules.ParseUpdateID(r.PathValue("id"))
	if err != nil {
		return reply{}, &appliance.Problem{Kind: appliance.NotFound, Msg: err.Error() + ".", Err: err}
	}
	return save("update-hosts", onHostHead, rowsFrom(sure(u.node.EachOnHosts(r.Context(), id)), onHost)), nil
}

func (u *UI) rulesTable(r *http.Request) (reply, error) {
	list, err := u.node.Packages(r.Context())
	head := []string{"Package", "Description", "Maturity", "Allow lines", "Forbid lines", "Groups", "Hosts of its own", "Reaches hosts", "Edited (UTC)", "Edited by"}
	return save("rules", head, rowsOf(list, func(p appliance.PackageRow) row {
		return row{p.Name, p.Description, string(p.Maturity), p.Allows, p.Forbids, strings.Join(p.Groups, "; "), len(p.Hosts), p.Reach, p.Edited, p.EditedBy}
	})), err
}

func (u *UI) linesTable(r *http.Request) (reply, error) {
	p, err := u.node.Package(r.Context(), r.PathValue("name"))
	head := []string{"Package", "Verb", "Kind", "Value", "Stands for", "Updates it matches", "By", "At (UTC)"}
	return save("rule-lines", head, rowsOf(p.Lines, func(l appliance.LineRow) row {
		return row{p.Name, string(l.Verb), string(l.Kind), l.Value, l.Label, l.Hits, l.By, l.At}
	})), err
}

func (u *UI) groupsTable(r *http.Request) (reply, error) {
	list, err := u.node.GroupsBrief(r.Context())
	head := []string{"Group", "Description", "Hosts", "Condition", "Accepts", "Packages", "Settings profiles", "Options it sets"}
	return save("groups", head, rowsOf(list, func(g appliance.GroupRow) row {
		return row{g.Name, g.Description, g.Hosts, g.Condition.String(), joined(g.Accepts), strings.Join(g.Packages, "; "), strings.Join(g.Profiles, "; "), settingsText(g.Settings)}
	})), err
}

func (u *UI) profilesTable(r *http.Request) (reply, error) {
	list, err := u.node.Profiles(r.Context())
	head := []string{"Place", "Profile", "Description", "Sets", "Groups", "Hosts of its own", "Reaches hosts", "Edited (UTC)", "Edited by"}
	return save("profiles", head, rowsOf(list, func(p appliance.ProfileRow) row {
		return row{p.Order, p.Name, p.Description, settingsText(p.Options), strings.Join(p.Groups, "; "), len(p.Hosts), p.Reach, p.Edited, p.EditedBy}
	})), err
}

func (u *UI) tasksTable(r *http.Request) (reply, error) {
	list := pages(func(after string) ([]appliance.Task, string, error) {
		return u.node.Tasks(r.Context(), appliance.TaskQuery{Status: r.FormValue("status"), Page: appliance.Page{Limit: 500, After: after}})
	})
	head := []string{"File", "Title", "Kind", "Status", "By", "Size (bytes)", "On disk (bytes)", "From Microsoft (bytes)", "From nodes (bytes)", "Rate (bytes/s)", "Tries", "Queued (UTC)", "Started (UTC)", "Finished (UTC)", "Next try (UTC)", "Error", "Waiting"}
	return save("downloads", head, rowsFrom(list, func(t appliance.Task) row {
		return row{t.File, t.Title, t.Kind, t.Status, t.By, t.Size, t.Done, t.Fetched, t.Peers, t.Rate, t.Attempts, t.Queued, t.Started, t.Finished, t.NextTry, t.Error, t.Waiting}
	})), nil
}

func (u *UI) trafficTable(r *http.Request) (reply, error) {
	list, err := u.node.Traffic(r.Context(), 31)
	head := []string{"Day", "From Microsoft (bytes)", "From other sites (bytes)", "To other sites (bytes)", "From this site (bytes)", "To this site (bytes)", "To agents (bytes)", "Saved (bytes)", "Downloaded by another node too (bytes)"}
	return save("moved", head, rowsOf(list, func(t appliance.Traffic) row {
		return row{t.Day, t.Microsoft, t.WANDown, t.WANUp, t.LANDown, t.LANUp, t.Agents, t.Saved(), t.Twice}
	})), err
}

func (u *UI) linksTable(r *http.Request) (reply, error) {
	type link struct {
		day, node string
		in, out   int64
	}
	var links []link
	list, err := u.node.Traffic(r.Context(), 92)
	for _, t := range list {
		nodes := maps.Clone(t.Peers)
		if nodes == nil {
			nodes = map[string]int64{}
		}
		for name := range t.To {
			nodes[name] += 0
		}
		for _, name := range slices.Sorted(maps.Keys(nodes)) {
			if l := (link{t.Day, name, t.Peers[name], t.To[name]}); l.in+l.out > 0 {
				links = append(links, l)
			}
		}
	}
	head := []string{"Day", "Node", "From it (bytes)", "To it (bytes)"}
	return save("links", head, rowsOf(links, func(l link) row { return row{l.day, l.node, l.in, l.out} })), err
}

func (u *UI) unusedTable(r *http.Request) (reply, error) {
	plan, err := u.node.Unused(r.Context())
	head := []string{"File", "Why", "Size (bytes)", "Downloaded on (UTC)"}
	return save("unused", head, rowsOf(plan.Files, func(f appliance.FileRow) row { return row{f.Name, f.Note, f.Size, f.DownloadedOn} })), err
}

func (u *UI) nodesTable(r *http.Request) (reply, error) {
	list, err := u.node.Nodes(r.Context())
	head := []string{"Node", "Site", "ID", "Reached", "Lacks here (records)", "Not sent (records)", "Clock offset (ms)", "Round trip (µs)", "Last contact (UTC)", "Version", "Internet", "Anchor", "Addresses", "Joined (UTC)", "Removed (UTC)", "Problems"}
	return save("nodes", head, rowsOf(list, func(n appliance.NodeRow) row {
		return row{
			n.Name, n.Site, n.ID, n.Reached(), n.Lacking.Records, n.Unsent.Records, n.OffsetMS, n.RoundTrip, n.Contact, n.Version, n.Internet, n.Anchor,
			strings.Join(n.Addrs, " "), n.Joined, n.Removed, strings.Join(n.Problems, " "),
		}
	})), err
}

func (u *UI) auditTable(r *http.Request) (reply, error) {
	list := pages(func(after string) ([]appliance.AuditEntry, string, error) {
		return u.node.Audit(r.Context(), r.FormValue("object"), appliance.Page{Limit: 500, After: after})
	})
	return save("audit", []string{"When (UTC)", "Who", "From", "Node", "What", "Object", "Before", "After"}, rowsFrom(list, func(e appliance.AuditEntry) row {
		return row{e.At, e.Actor, e.Address, e.Node, e.Action, e.Object, e.Before, e.After}
	})), nil
}

func (u *UI) tokensTable(r *http.Request) (reply, error) {
	list, err := u.node.Tokens(r.Context())
	head := []string{"Name", "For", "Role", "Uses left", "Made (UTC)", "By", "Good until (UTC)", "Last used (UTC)"}
	return save("tokens", head, rowsOf(list, func(t appliance.TokenRow) row {
		return row{t.Name, string(t.Use), string(t.Role), t.Left, t.Created, t.By, t.Expires, t.Used}
	})), err
}

func (u *UI) adminsTable(r *http.Request) (reply, error) {
	list, err := u.node.Admins(r.Context())
	return save("admins", []string{"Name", "Role", "Since (UTC)", "Seen (UTC)"}, rowsOf(list, func(a appliance.AdminRow) row {
		return row{a.Name, string(a.Role), a.Created, a.Seen}
	})), err
}

func joined[T ~string](list []T) string {
	var words []string
	for _, v := range list {
		words = append(words, string(v))
	}
	return strings.Join(words, " ")
}
