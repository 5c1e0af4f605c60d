package api

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// List answers carry their rows under one name, and the cursor of the next
// page while there is one.
type (
	// Open is the body of POST limits/open.
	Open struct {
		Minutes int `json:"minutes"` // 0 puts the limits back
	}
	// Downloads answers GET downloads.
	Downloads struct {
		Downloads []appliance.Task `json:"downloads"`
		Next      string           `json:"next,omitempty"`
		// Now is the node's clock, which Since is compared with.
		Now time.Time `json:"now"`
		// Coverage is how much other nodes have of each file that comes from them.
		Coverage map[string][]appliance.Coverage `json:"coverage,omitempty"`
	}
	// Audit answers GET audit.
	Audit struct {
		Entries []appliance.AuditEntry `json:"entries"`
		Next    string                 `json:"next,omitempty"`
	}
	// Trigger is the body of POST hosts/actions.
	Trigger struct {
		Hosts  []agentproto.HostID `json:"hosts,omitempty"`
		Group  string              `json:"group,omitempty"`
		Action agentproto.Action   `json:"action"`
	}
	// Queued answers what starts work that goes on by itself.
	Queued struct {
		Queued int `json:"queued"`
	}
	// Lines is the body of POST and DELETE rules/{name}/lines.
	Lines struct {
		Lines []rules.Line `json:"lines"`
	}
	// RuleText answers GET rule-set.
	RuleText struct {
		Text string `json:"text"`
	}
	// Promote is the body of POST rules/{name}/promote.
	Promote struct {
		Reason string `json:"reason"`
	}
	// Stop is the body of POST updates/{id}/stop.
	Stop struct {
		Reason string `json:"reason"`
	}
	// SetupLink answers POST setup-link.
	SetupLink struct {
		URL string `json:"url"`
	}
	// NewToken is the body of POST tokens.
	NewToken struct {
		Name    string             `json:"name"`
		Use     appliance.TokenUse `json:"use"`
		Role    appliance.Role     `json:"role,omitempty"`
		Uses    int                `json:"uses,omitempty"`
		Addrs   []string           `json:"addrs,omitempty"` // of a join token: where the new node asks, host:port
		Seconds int64              `json:"seconds"`         // until it expires
	}
	// MadeToken answers it; Token is shown this once.
	MadeToken struct {
		appliance.TokenRow
		Token string `json:"token"`
	}
)

// routes is the whole interface, in the order of the description.
func routes() []route {
	return slices.Concat(facts(), mesh(), repository(), intent(), profile(), group(), settings(), admins(), folder())
}

// facts are the routes that only look.
func facts() []route {
	return []route{
		{method: "GET", path: "status", summary: "The overview", role: appliance.Viewer, answer: appliance.Status{},
			do: func(c call) (any, error) { return c.node.Status(c.Context()) }},
		{method: "GET", path: "updates", summary: "Updates that hosts need or have, or all that Microsoft published", role: appliance.Viewer, query: updateParams, answer: appliance.UpdateList{},
			do: func(c call) (any, error) {
				q, err := ParseUpdateQuery(c.URL.Query())
				if err != nil {
					return nil, err
				}
				return c.node.Updates(c.Context(), q)
			}},
		{method: "GET", path: "updates/{id}", summary: "One update with its files and hosts", role: appliance.Viewer, answer: appliance.UpdateDetail{},
			do: func(c call) (any, error) {
				id, err := c.updateID()
				if err != nil {
					return nil, err
				}
				return c.node.UpdateByID(c.Context(), id)
			}},
		{method: "GET", path: "hosts", summary: "Hosts", role: appliance.Viewer, query: hostParams, answer: appliance.HostList{},
			do: func(c call) (any, error) {
				q, err := parseHostQuery(c.URL.Query())
				if err != nil {
					return nil, err
				}
				return c.node.Hosts(c.Context(), q)
			}},
		{method: "GET", path: "hosts/{host}", summary: "One host", role: appliance.Viewer, answer: appliance.HostDetail{},
			do: func(c call) (any, error) { return c.node.Host(c.Context(), c.host()) }},
		{method: "GET", path: "hosts/{host}/updates", summary: "The updates of one host, with state and reason", role: appliance.Viewer,
			query: append([]param{
				{name: "q", doc: "words of the title, a KB, an UpdateID"},
				{name: "state", doc: "OK, MISSING, PENDING, DISCARDED", many: true},
				{name: "severity", doc: "Critical, Important, Moderate, Low, Unspecified", many: true},
			}, pageParams...),
			answer: appliance.HostUpdateList{}, do: hostUpdates},
		{method: "GET", path: "hosts/{host}/updates/{id}/why", summary: "Why an update is in its state on a host, down to the rule line", role: appliance.Viewer, answer: appliance.Why{},
			do: func(c call) (any, error) {
				id, err := c.updateID()
				if err != nil {
					return nil, err
				}
				return c.node.Why(c.Context(), c.host(), id)
			}},
		{method: "GET", path: "downloads", summary: "Download tasks, running ones first", role: appliance.Viewer, answer: Downloads{},
			query: append([]param{
				{name: "status", doc: strings.Join(taskStates, ", ")},
				{name: "since", doc: "a time as of RFC 3339: without those that ended before"},
			}, pageParams...),
			do: func(c call) (any, error) {
				q, err := taskQueryOf(c.URL.Query())
				if err != nil {
					return nil, err
				}
				list, next, err := c.node.Tasks(c.Context(), q)
				return Downloads{list, next, time.Now().UTC(), c.node.Coverage(list)}, err
			}},
		{method: "POST", path: "downloads/retry", summary: "Try downloads that failed now, instead of when they are due", role: appliance.Operator, answer: Queued{}, status: http.StatusAccepted,
			do: func(c call) (any, error) {
				n, err := c.node.RetryDownloads(c.Context(), c.actor)
				return Queued{n}, err
			}},
		{method: "POST", path: "downloads/{id}/{action}", summary: "Pause, resume, put first, cancel or retry one download of this node; action is " + actionWords(), role: appliance.Operator, answer: appliance.Task{},
			do: func(c call) (any, error) {
				return c.node.SteerDownload(c.Context(), c.actor, c.PathValue("id"), appliance.TaskAction(c.PathValue("action")))
			}},
		{method: "GET", path: "traffic", summary: "Bytes the node moved, by day and line, the newest day first", role: appliance.Viewer, answer: []appliance.Traffic{},
			do: func(c call) (any, error) { return c.node.Traffic(c.Context(), 92) }},
		{method: "GET", path: "limits", summary: "How fast the nodes of this node's site may use its lines", role: appliance.Viewer, answer: appliance.Limits{},
			do: func(c call) (any, error) { return c.node.SiteLimits(c.Context(), "") }},
		{method: "GET", path: "limits/{site}", summary: "How fast a site's nodes may use its lines", role: appliance.Viewer, answer: appliance.Limits{},
			do: func(c call) (any, error) { return c.node.SiteLimits(c.Context(), c.PathValue("site")) }},
		{method: "PUT", path: "limits", summary: "Set the limits of this node's site, as limits/{site} does", role: appliance.Owner, body: appliance.Limits{}, answer: appliance.Limits{}, do: setLimits},
		{method: "PUT", path: "limits/{site}", summary: "Set a site's limits: bytes per second (0 none, -1 nothing), windows of the week, bytes a month; open_until is not set by it", role: appliance.Owner, body: appliance.Limits{}, answer: appliance.Limits{}, do: setLimits},
		{method: "POST", path: "limits/open", summary: "Open the lines of this node's site for minutes, as limits/{site}/open does", role: appliance.Operator, body: Open{}, answer: appliance.Limits{}, do: openLines},
		{method: "POST", path: "limits/{site}/open", summary: "Lift all limits of a site for minutes, at most a day; 0 puts them back", role: appliance.Operator, body: Open{}, answer: appliance.Limits{}, do: openLines},
		{method: "GET", path: "audit", summary: "The audit log, newest first", role: appliance.Viewer, answer: Audit{},
			query: append([]param{{name: "object", doc: "only entries about this object"}}, pageParams...),
			do: func(c call) (any, error) {
				p, err := pageOf(c.URL.Query())
				if err != nil {
					return nil, err
				}
				list, next, err := c.node.Audit(c.Context(), c.FormValue("object"), p)
				return Audit{list, next}, err
			}},
	}
}

// intent are the routes that change what should become true.
func intent() []route {
	return []route{
		{method: "POST", path: "hosts/actions", summary: "Trigger scan, download or install on hosts", role: appliance.Operator, body: Trigger{}, answer: Queued{}, status: http.StatusAccepted,
			do: func(c call) (any, error) {
				var t Trigger
				if err := c.decode(&t); err != nil {
					return nil, err
				}
				n, err := c.node.Trigger(c.Context(), c.actor, t.Action, t.Hosts, t.Group)
				return Queued{n}, err
			}},
		{method: "POST", path: "hosts/{host}/approve", summary: "Let a waiting host in", role: appliance.Owner,
			do: func(c call) (any, error) { return nil, c.node.ApproveHost(c.Context(), c.actor, c.host()) }},
		{method: "DELETE", path: "hosts/{host}", summary: "Remove a host; its certificate is refused from now on", role: appliance.Owner,
			do: func(c call) (any, error) { return nil, c.node.RemoveHost(c.Context(), c.actor, c.host()) }},
		{method: "GET", path: "stops", summary: "Emergency stops in force, the latest first", role: appliance.Viewer, answer: []appliance.StopRow{},
			do: func(c call) (any, error) { return c.node.Stops(c.Context()) }},
		{method: "GET", path: "updates/{id}/stop", summary: "What an emergency stop of the update would do to hosts, or undoing the one in force", role: appliance.Viewer, answer: appliance.Impact{},
			do: func(c call) (any, error) {
				id, err := c.updateID()
				if err != nil {
					return nil, err
				}
				return c.node.PreviewStop(c.Context(), id)
			}},
		{method: "POST", path: "updates/{id}/stop", summary: "Emergency stop: forbidden on every host whatever rules say, its files neither served nor downloaded", role: appliance.Operator, body: Stop{}, answer: appliance.UpdateDetail{}, do: stop},
		{method: "DELETE", path: "updates/{id}/stop", summary: "Undo the emergency stop: rules decide again", role: appliance.Owner, answer: appliance.UpdateDetail{},
			do: func(c call) (any, error) {
				id, err := c.updateID()
				if err != nil {
					return nil, err
				}
				if err := c.node.UndoStop(c.Context(), c.actor, id); err != nil {
					return nil, err
				}
				return c.node.UpdateByID(c.Context(), id)
			}},
		{method: "GET", path: "rules", summary: "Rule packages", role: appliance.Viewer, answer: []appliance.PackageRow{},
			do: func(c call) (any, error) { return c.node.Packages(c.Context()) }},
		{method: "GET", path: "rules/{name}", summary: "One rule package with its lines", role: appliance.Viewer, answer: appliance.PackageDetail{},
			do: func(c call) (any, error) { return c.node.Package(c.Context(), c.PathValue("name")) }},
		{method: "PUT", path: "rules/{name}", summary: "Make or replace a rule package", role: appliance.Owner, body: appliance.PackageEdit{}, answer: appliance.PackageDetail{},
			do: func(c call) (any, error) {
				var e appliance.PackageEdit
				if err := c.decode(&e); err != nil {
					return nil, err
				}
				if _, err := c.node.PutPackage(c.Context(), c.actor, c.PathValue("name"), e); err != nil {
					return nil, err
				}
				return c.node.Package(c.Context(), c.PathValue("name"))
			}},
		{method: "POST", path: "rules/{name}/preview", summary: "What storing the same edit would do: hosts, updates, bytes, restarts, clashes; nothing is stored", role: appliance.Viewer, body: appliance.PackageEdit{}, answer: appliance.Impact{},
			do: func(c call) (any, error) {
				var e appliance.PackageEdit
				if err := c.decode(&e); err != nil {
					return nil, err
				}
				return c.node.PreviewPackage(c.Context(), c.PathValue("name"), e)
			}},
		{method: "GET", path: "rules/{name}/merged", summary: "The other packages of the hosts that get this one, the updates they disagree about, and who wins on how many hosts", role: appliance.Viewer, answer: []appliance.Merged{},
			do: func(c call) (any, error) { return c.node.Merged(c.Context(), c.PathValue("name")) }},
		{method: "GET", path: "rules/{name}/deletion", summary: "What deleting the package would do", role: appliance.Viewer, answer: appliance.Impact{},
			do: func(c call) (any, error) { return c.node.PreviewDeletePackage(c.Context(), c.PathValue("name")) }},
		{method: "POST", path: "rules/{name}/lines", summary: "Add lines; one with the other verb for the same thing is taken out", role: appliance.Owner, body: Lines{}, answer: appliance.PackageDetail{},
			do: func(c call) (any, error) { return editLines(c, c.node.AddLines) }},
		{method: "DELETE", path: "rules/{name}/lines", summary: "Take lines out", role: appliance.Owner, body: Lines{}, answer: appliance.PackageDetail{},
			do: func(c call) (any, error) { return editLines(c, c.node.RemoveLines) }},
		{method: "GET", path: "rules/{name}/promote", summary: "Where promoting the package takes it, and what that does to hosts", role: appliance.Viewer, answer: appliance.Promotion{},
			do: func(c call) (any, error) { return c.node.PreviewPromotion(c.Context(), c.PathValue("name")) }},
		{method: "POST", path: "rules/{name}/promote", summary: "Promote the package from DEV to PREPROD, or from PREPROD to PROD", role: appliance.Owner, body: Promote{}, answer: appliance.PackageDetail{},
			do: func(c call) (any, error) {
				var p Promote
				if err := c.decode(&p); err != nil {
					return nil, err
				}
				if err := c.node.Promote(c.Context(), c.actor, c.PathValue("name"), p.Reason); err != nil {
					return nil, err
				}
				return c.node.Package(c.Context(), c.PathValue("name"))
			}},
		{method: "GET", path: "views", summary: "The saved views of whoever asks", role: appliance.Viewer, answer: []appliance.SavedView{},
			do: func(c call) (any, error) { return c.node.SavedViews(c.Context(), c.actor, "") }},
		{method: "POST", path: "views", summary: "Save a view; one of the same page and name is replaced", role: appliance.Viewer, body: appliance.SavedView{}, answer: appliance.SavedView{}, status: http.StatusCreated,
			do: func(c call) (any, error) {
				var v appliance.SavedView
				if err := c.decode(&v); err != nil {
					return nil, err
				}
				return c.node.SaveView(c.Context(), c.actor, v)
			}},
		{method: "DELETE", path: "views/{id}", summary: "Delete one of the own saved views", role: appliance.Viewer,
			do: func(c call) (any, error) { return nil, c.node.DropView(c.Context(), c.actor, c.PathValue("id")) }},
		{method: "PUT", path: "rules/{name}/ring", summary: "Have the package promoted by itself after so many days, when so many hosts have it and few failed", role: appliance.Owner, body: appliance.Ring{}, answer: appliance.PackageDetail{},
			do: func(c call) (any, error) {
				var r appliance.Ring
				if err := c.decode(&r); err != nil {
					return nil, err
				}
				if err := c.node.SetRing(c.Context(), c.actor, c.PathValue("name"), r); err != nil {
					return nil, err
				}
				return c.node.Package(c.Context(), c.PathValue("name"))
			}},
		{method: "DELETE", path: "rules/{name}/ring", summary: "Leave promoting the package to people again", role: appliance.Owner, answer: appliance.PackageDetail{},
			do: func(c call) (any, error) {
				if err := c.node.DropRing(c.Context(), c.actor, c.PathValue("name")); err != nil {
					return nil, err
				}
				return c.node.Package(c.Context(), c.PathValue("name"))
			}},
		{method: "GET", path: "rules/{name}/versions", summary: "The edits of a package, the latest first; of a deleted one, too", role: appliance.Viewer, answer: []appliance.PackageVersion{},
			do: func(c call) (any, error) { return c.node.Versions(c.Context(), c.PathValue("name")) }},
		{method: "POST", path: "rules/{name}/versions/{version}/undo", summary: "Take the edit back that made the version, unless somebody edited the package since", role: appliance.Owner, answer: appliance.PackageDetail{},
			do: func(c call) (any, error) {
				if err := c.node.Undo(c.Context(), c.actor, c.PathValue("name"), c.PathValue("version")); err != nil {
					return nil, err
				}
				return c.node.Package(c.Context(), c.PathValue("name"))
			}},
		{method: "GET", path: "rules/{name}/versions/{version}", summary: "The package as it was after an edit", role: appliance.Viewer, answer: appliance.VersionDetail{},
			do: func(c call) (any, error) {
				return c.node.Version(c.Context(), c.PathValue("name"), c.PathValue("version"))
			}},
		{method: "GET", path: "rules/{name}/versions/{version}/impact", summary: "What going back to the version would do; nothing is stored", role: appliance.Viewer, answer: appliance.Impact{},
			do: func(c call) (any, error) {
				return c.node.PreviewVersion(c.Context(), c.PathValue("name"), c.PathValue("version"))
			}},
		{method: "POST", path: "rules/{name}/versions/{version}/restore", summary: "Go back to a version, as a new one; a deleted package is there again", role: appliance.Owner, answer: appliance.PackageDetail{},
			do: func(c call) (any, error) {
				if err := c.node.Restore(c.Context(), c.actor, c.PathValue("name"), c.PathValue("version")); err != nil {
					return nil, err
				}
				return c.node.Package(c.Context(), c.PathValue("name"))
			}},
		{method: "GET", path: "rule-set", summary: "Packages, settings profiles and groups as TOML, or one package as WAPT's waptwua_rules.json", role: appliance.Viewer, answer: RuleText{},
			query: []param{{name: "format", doc: "toml or wapt; default toml"}, {name: "package", doc: "of wapt: which"}, {name: "members", doc: "of toml: true adds the hosts that groups were given one by one"}},
			do: func(c call) (any, error) {
				q := c.URL.Query()
				var text string
				var err error
				switch format := appliance.RuleFormat(cmp.Or(q.Get("format"), string(appliance.TOML))); format {
				case appliance.TOML:
					text, err = c.node.ExportRules(c.Context(), appliance.RuleExport{Members: q.Get("members") == "true"})
				case appliance.WAPT:
					text, err = c.node.ExportWAPT(c.Context(), q.Get("package"))
				default:
					err = &appliance.Problem{Kind: appliance.Invalid, Field: "format", Msg: "format is toml or wapt."}
				}
				return RuleText{text}, err
			}},
		{method: "POST", path: "rule-set/preview", summary: "What taking a file of rules in would change, and do to hosts; nothing is stored", role: appliance.Viewer, body: appliance.RuleFile{}, answer: appliance.RuleDiff{},
			do: func(c call) (any, error) {
				var f appliance.RuleFile
				if err := c.decode(&f); err != nil {
					return nil, err
				}
				return c.node.DiffRules(c.Context(), f)
			}},
		{method: "PUT", path: "rule-set", summary: "Take a file of rules in, as one edit: all of it or nothing; refused when it would do something else than the differences that were seen", role: appliance.Owner, body: appliance.RuleFile{}, answer: appliance.RuleDiff{},
			do: func(c call) (any, error) {
				var f appliance.RuleFile
				if err := c.decode(&f); err != nil {
					return nil, err
				}
				return c.node.ImportRules(c.Context(), c.actor, f)
			}},
		{method: "GET", path: "deleted-rules", summary: "Packages that were deleted and can be brought back", role: appliance.Viewer, answer: []appliance.DeletedPackage{},
			do: func(c call) (any, error) { return c.node.Deleted(c.Context()) }},
		{method: "DELETE", path: "rules/{name}", summary: "Delete a rule package", role: appliance.Owner,
			do: func(c call) (any, error) { return nil, c.node.DeletePackage(c.Context(), c.actor, c.PathValue("name")) }},
		{method: "GET", path: "check", summary: "What the node needs from its surroundings, and whether it is so", role: appliance.Viewer, answer: []appliance.Check{},
			do: func(c call) (any, error) { return c.node.Check(c.Context(), nil) }},
		{method: "GET", path: "backup", summary: "All records and keys of the node at one moment, for wuamesh restore", role: appliance.Owner,
			stream: func(c call, w io.Writer) error { return c.node.Backup(c.Context(), c.actor, w) }},
		{method: "GET", path: "bundle", summary: "What a site without a line lacks: records, signed, and the list of the files that its hosts wait for", role: appliance.Owner,
			query: []param{{name: "for", doc: "node or site; default: where the last imported bundle came from"}, {name: "whole", doc: "all records, not only what is not known to be there"}, {name: "files", doc: "none: without files"}},
			stream: func(c call, w io.Writer) error {
				q := c.URL.Query()
				return c.node.ExportBundle(c.Context(), c.actor, appliance.BundleOptions{For: q.Get("for"), Whole: q.Get("whole") != "", NoFiles: q.Get("files") == "none"}, w)
			}},
		{method: "POST", path: "bundle", summary: "Take a bundle in; the answer says which of its files to bring", role: appliance.Owner, bytes: true, answer: appliance.BundleImport{},
			do: func(c call) (any, error) { return c.node.ImportBundle(c.Context(), c.actor, c.Body) }},
		{method: "PUT", path: "bundle/files/{name}", summary: "Bring a file of the bundle that was taken in last, or the rest of it", role: appliance.Owner, bytes: true, answer: appliance.BundleNeed{},
			query: []param{{name: "from", doc: "offset of the first byte; default 0"}},
			do: func(c call) (any, error) {
				from, err := strconv.ParseInt(cmp.Or(c.URL.Query().Get("from"), "0"), 10, 64)
				if err != nil {
					return nil, &appliance.Problem{Kind: appliance.Invalid, Field: "from", Msg: "from is a number of bytes."}
				}
				return c.node.ImportBundleFile(c.Context(), c.actor, c.PathValue("name"), from, c.Body)
			}},
		{method: "POST", path: "reload", summary: "Read the configuration file again: it is checked first, then changes", role: appliance.Owner, answer: appliance.Reloaded{},
			do: func(c call) (any, error) { return c.node.Reload(c.Context(), c.actor) }},
		{method: "POST", path: "setup-link", summary: "A fresh setup link, while there is no admin", role: appliance.Owner, answer: SetupLink{},
			do: func(c call) (any, error) {
				url, err := c.node.NewSetupLink(c.Context(), c.actor)
				return SetupLink{url}, err
			}},
		{method: "GET", path: "tokens", summary: "API, enrolment and join tokens, without their secrets", role: appliance.Owner, answer: []appliance.TokenRow{},
			do: func(c call) (any, error) { return c.node.Tokens(c.Context()) }},
		{method: "POST", path: "tokens", summary: "Make a token; its text is in the answer and nowhere else", role: appliance.Owner, body: NewToken{}, answer: MadeToken{}, status: http.StatusCreated,
			do: func(c call) (any, error) {
				var t NewToken
				if err := c.decode(&t); err != nil {
					return nil, err
				}
				row, text, err := c.node.MakeToken(c.Context(), c.actor, appliance.TokenOptions{
					Name: t.Name, Use: t.Use, Role: t.Role, Uses: t.Uses, Addrs: t.Addrs, Expires: time.Duration(min(t.Seconds, 1<<32)) * time.Second,
				})
				return MadeToken{row, text}, err
			}},
		{method: "DELETE", path: "tokens/{id}", summary: "Revoke a token", role: appliance.Owner,
			do: func(c call) (any, error) { return nil, c.node.RevokeToken(c.Context(), c.actor, c.PathValue("id")) }},
	}
}

// folder are the routes that fetch, bring and delete files.
func folder() []route {
	return []route{
		{method: "POST", path: "index/download", summary: "Download WSUSScan cab from Microsoft Web Site", role: appliance.Operator, status: http.StatusAccepted, answer: Queued{},
			do: func(c call) (any, error) { return Queued{1}, c.node.DownloadCab(c.Context(), c.actor) }},
		{method: "POST", path: "index/missing", summary: "Download index and missing cabs from Microsoft Web Site", role: appliance.Operator, status: http.StatusAccepted, answer: Queued{},
			do: func(c call) (any, error) {
				n, err := c.node.DownloadMissing(c.Context(), c.actor)
				return Queued{n}, err
			}},
		{method: "POST", path: "updates/{id}/download", summary: "Download the files of one update", role: appliance.Operator, status: http.StatusAccepted, answer: Queued{},
			do: func(c call) (any, error) {
				id, err := c.updateID()
				if err != nil {
					return nil, err
				}
				n, err := c.node.DownloadUpdates(c.Context(), c.actor, []rules.UpdateID{id})
				return Queued{n}, err
			}},
		{method: "GET", path: "folder/unused", summary: "Files that cleaning would delete", role: appliance.Viewer, answer: appliance.CleanPlan{},
			do: func(c call) (any, error) { return c.node.Unused(c.Context()) }},
		{method: "POST", path: "folder/clean", summary: "Delete Unused KB", role: appliance.Operator, answer: appliance.CleanPlan{},
			do: func(c call) (any, error) { return c.node.Clean(c.Context(), c.actor) }},
		{method: "GET", path: "folder/uploads", summary: "Files that admins uploaded to this node and that no update names", role: appliance.Viewer, answer: []appliance.Upload{},
			do: func(c call) (any, error) { return c.node.Uploads(c.Context()) }},
		{method: "PUT", path: "folder/{name}", summary: "Upload a .cab or .msu; it is served once its signature and what is known of it were checked", role: appliance.Operator, bytes: true, answer: appliance.Upload{},
			do: func(c call) (any, error) {
				return c.node.Upload(c.Context(), c.actor, c.PathValue("name"), c.ContentLength, c.Body)
			}},
		{method: "DELETE", path: "folder/{name}", summary: "Delete one file; it returns only when an agent asks for it", role: appliance.Operator,
			do: func(c call) (any, error) { return nil, c.node.DeleteFile(c.Context(), c.actor, c.PathValue("name")) }},
	}
}

func (c call) host() agentproto.HostID { return agentproto.HostID(c.PathValue("host")) }

func (c call) updateID() (rules.UpdateID, error) {
	id, err := rules.ParseUpdateID(c.PathValue("id"))
	if err != nil {
		return "", &appliance.Problem{
			Kind: appliance.Invalid, Field: "id", Msg: err.Error() + ".",
			Hint: "Updates are named by UpdateID; find it with GET " + Prefix + "updates?kb=NUMBER.", Err: err,
		}
	}
	return id, nil
}

func hostUpdates(c call) (any, error) {
	q, err := parseHostUpdateQuery(c.URL.Query())
	if err != nil {
		return nil, err
	}
	return c.node.HostUpdates(c.Context(), c.host(), q)
}

func stop(c call) (any, error) {
	id, err := c.updateID()
	if err != nil {
		return nil, err
	}
	var s Stop
	if err := c.decode(&s); err != nil {
		return nil, err
	}
	if err := c.node.Stop(c.Context(), c.actor, id, s.Reason); err != nil {
		return nil, err
	}
	return c.node.UpdateByID(c.Context(), id)
}

func editLines(c call, edit func(context.Context, appliance.Actor, string, []rules.Line) error) (any, error) {
	var l Lines
	if err := c.decode(&l); err != nil {
		return nil, err
	}
	name := c.PathValue("name")
	if err := edit(c.Context(), c.actor, name, l.Lines); err != nil {
		return nil, err
	}
	return c.node.Package(c.Context(), name)
}

// actionWords are what can be done to a download.
func actionWords() string {
	var list []string
	for _, a := range appliance.TaskActions {
		list = append(list, string(a))
	}
	return strings.Join(list, ", ")
}

func setLimits(c call) (any, error) {
	var l appliance.Limits
	if err := c.decode(&l); err != nil {
		return nil, err
	}
	if err := c.node.SetSiteLimits(c.Context(), c.actor, c.PathValue("site"), l); err != nil {
		return nil, err
	}
	return c.node.SiteLimits(c.Context(), c.PathValue("site"))
}

func openLines(c call) (any, error) {
	var o Open
	if err := c.decode(&o); err != nil {
		return nil, err
	}
	return c.node.OpenLines(c.Context(), c.actor, c.PathValue("site"), time.Duration(min(max(o.Minutes, -1), 1<<20))*time.Minute)
}
