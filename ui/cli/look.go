package cli

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"wuamesh/agentproto"
	"wuamesh/appliance"
)

// Commands is the whole list: those of the program itself first, then those
// that ask a node, then those that tell of all of them.
func Commands(own ...Command) []Command {
	var all []Command
	list := func() []Command { return all }
	all = append(own, statusCommand, hostsCommand, updatesCommand, whyCommand, rulesCommand, stopCommand, groupsCommand, profilesCommand, adminCommand, triggerCommand, fetchCommand, uploadCommand, cleanCommand,
		initCommand, tokenCommand, joinCommand, nodeCommand, repositoryCommand, limitsCommand,
		catalogueCommand, doctorCommand, reloadCommand, setupLinkCommand, bundleCommand, backupCommand, restoreCommand, importCommand,
		manualCommand(list), completionCommand(list))
	return all
}

var statusCommand = Command{
	Name: "status", Summary: "Show the node, its scan cab, its hosts, the mesh and what needs attention",
	Example: "wuamesh status\nwuamesh status --json | jq .mesh.behind",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		return func(ctx context.Context, s Streams, _ []string) error {
			var st nodeStatus
			if err := errors.Join(t.call(ctx, s, "status", nil, &st.Status), t.call(ctx, s, "mesh", nil, &st.Mesh)); err != nil {
				return err
			}
			if t.json {
				return printJSON(s.Out, st)
			}
			fmt.Fprintf(s.Out, "%s, wuamesh %s, up since %s\n", st.Node, st.Version, when(st.Started, ""))
			fmt.Fprintf(s.Out, "scan cab   %s\n", cabLine(st.Cab))
			if st.Cab.Refused != "" {
				fmt.Fprintf(s.Out, "!          %s %s\n", st.Cab.Refused, st.Cab.RefusedHint)
			}
			fmt.Fprintf(s.Out, "catalogue  %s\n", catalogueLine(st.Cab.Catalogue))
			if st.Cab.Catalogue.Error != "" {
				fmt.Fprintf(s.Out, "!          %s %s\n", st.Cab.Catalogue.Error, st.Cab.Catalogue.Hint)
			}
			fmt.Fprintf(s.Out, "hosts      %d, %d online, %d compliant, %d waiting for approval\n", st.Hosts, st.Online, st.Compliant, st.Waiting)
			fmt.Fprintf(s.Out, "states     %d OK, %d MISSING, %d PENDING, %d DISCARDED\n", st.Pairs.OK, st.Pairs.Missing, st.Pairs.Pending, st.Pairs.Discarded)
			fmt.Fprintf(s.Out, "folder     %s, %s, %s free\n", count(st.Files, "file"), size(st.FolderBytes), size(st.FreeBytes))
			fmt.Fprintf(s.Out, "moved      %s from Microsoft, %s to agents since start\n", size(st.FromUpstream), size(st.ToAgents))
			for _, a := range st.Attention {
				if !strings.HasPrefix(a.URL, "/mesh?") { // it stands below its node
					fmt.Fprintf(s.Out, "! %s %s\n", a.Fact, a.Cause)
				}
			}
			fmt.Fprintf(s.Out, "mesh       %s\n", st.Mesh.Text)
			if len(st.Mesh.Nodes) < 2 {
				return nil
			}
			fmt.Fprintln(s.Out)
			return printNodes(s, st.Mesh.Nodes)
		}
	},
}

// nodeStatus is what status prints: the overview, and the mesh as its page
// shows it.
type nodeStatus struct {
	appliance.Status
	Mesh appliance.MeshState `json:"mesh"`
}

func cabLine(c appliance.CabView) string {
	if !c.Held {
		return cmp.Or(c.Note, "not downloaded yet")
	}
	return fmt.Sprintf("of %s, %s, checked %s. %s", when(c.Date, "unknown date"), size(c.Size), when(c.Checked, "never"), c.Note)
}

func catalogueLine(c appliance.CatalogueView) string {
	line := "not read yet"
	if c.Updates > 0 {
		line = fmt.Sprintf("%s in %s, of %s", count(c.Updates, "update"), count(c.Files, "file"), when(c.Published, "unknown date"))
	}
	if c.Reading {
		line += fmt.Sprintf("; reading a newer one, %d %%", c.Progress)
	}
	return line
}

var hostsCommand = Command{
	Name: "hosts", Args: "[HOST]", Summary: "List hosts, or the updates of one with states and reasons, and its last errors",
	Example: "wuamesh hosts --state MISSING\nwuamesh hosts --site brest --stand pending,missing\nwuamesh hosts --seen 'clock off'\nwuamesh hosts BRS-WKS-0142 --severity Critical\nwuamesh hosts BRS-WKS-0142 --errors --json",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		group := fs.String("group", "", "only members of this `group`")
		state := fs.String("state", "", "only hosts (or updates of the host) in one of these `states`, with commas")
		severity := fs.String("severity", "", "of a HOST: only updates of these `severities`, with commas")
		site := fs.String("site", "", "only hosts at nodes of these `sites`, with commas")
		ring := fs.String("ring", "", "only hosts of these `rings`, with commas: DEV, PREPROD, PROD")
		stand := fs.String("stand", "", "only hosts that are compliant, pending, missing or unscanned: `words` with commas")
		seen := fs.String("seen", "", "only hosts that are online, away, never scanned, waiting (for approval), or whose clock is off: a `word` of these, 'clock off' the last")
		failures := fs.Bool("errors", false, "only what last went wrong on the host")
		return func(ctx context.Context, s Streams, args []string) error {
			q := url.Values{}
			for _, st := range split(*state) {
				q.Add("state", strings.ToUpper(st))
			}
			switch {
			case *failures && len(args) == 1:
				return t.hostErrors(ctx, s, args[0])
			case *failures:
				return usage("--errors is of one HOST")
			}
			switch len(args) {
			case 0:
				if *severity != "" {
					return usage("--severity is of one HOST")
				}
				if *group != "" {
					q.Set("group", *group)
				}
				if *seen != "" {
					q.Set("seen", *seen)
				}
				q["site"], q["stand"] = split(*site), split(*stand)
				for _, r := range split(*ring) {
					q.Add("ring", strings.ToUpper(r))
				}
				return t.hosts(ctx, s, q)
			case 1:
				q["severity"] = split(*severity)
				return t.hostUpdates(ctx, s, args[0], q)
			default:
				return usage("one HOST at a time")
			}
		}
	},
}

func (t *target) hosts(ctx context.Context, s Streams, q url.Values) error {
	list, err := pages(ctx, t, s, "hosts", q, func(l *appliance.HostList) (*[]appliance.HostRow, string) { return &l.Hosts, l.Next })
	if err != nil {
		return err
	}
	if t.json {
		return printJSON(s.Out, list)
	}
	g := newGrid(s.Out, "HOST", "SYSTEM", "OK", "MISSING", "PENDING", "DISCARDED", "LAST SCAN", "SEEN")
	for _, h := range list {
		seen := when(h.Seen, "not since the start")
		if h.Online {
			seen = "online"
		}
		if h.Waiting {
			seen = "waits for approval"
		}
		g.row(h.Name, h.OS, strconv.Itoa(h.Counts.OK), strconv.Itoa(h.Counts.Missing), strconv.Itoa(h.Counts.Pending), strconv.Itoa(h.Counts.Discarded), when(h.Scanned, "never"), seen)
	}
	return g.flush()
}

func (t *target) hostUpdates(ctx context.Context, s Streams, name string, q url.Values) error {
	h, err := t.find(ctx, s, name)
	if err != nil {
		return err
	}
	list, err := pages(ctx, t, s, "hosts/"+string(h.ID)+"/updates", q, func(l *appliance.HostUpdateList) (*[]appliance.HostUpdate, string) { return &l.Updates, l.Next })
	if err != nil {
		return err
	}
	if t.json {
		return printJSON(s.Out, list)
	}
	g := newGrid(s.Out, "STATE", "KB", "UPDATEID", "TITLE", "WHY")
	for _, u := range list {
		g.row(string(u.State), kb(u.Update.KB), string(u.Update.ID), u.Update.Title, u.Why)
	}
	if err := g.flush(); err != nil {
		return err
	}
	var d appliance.HostDetail
	if err := t.call(ctx, s, "hosts/"+string(h.ID), nil, &d); err != nil {
		return err
	}
	if d.Clock != nil {
		fmt.Fprintf(s.Out, "\n%s %s\n", d.Clock.Fact(), d.Clock.Remedy())
	}
	if len(d.Errors) == 0 {
		return nil
	}
	fmt.Fprintln(s.Out, "\nLast errors, by the host's own clock, over or not:")
	return printErrors(s, d.Errors)
}

// hostErrors prints what last went wrong on a host.
func (t *target) hostErrors(ctx context.Context, s Streams, name string) error {
	h, err := t.find(ctx, s, name)
	if err != nil {
		return err
	}
	var d appliance.HostDetail
	if err := t.call(ctx, s, "hosts/"+string(h.ID), nil, &d); err != nil {
		return err
	}
	switch {
	case t.json:
		return printJSON(s.Out, append([]agentproto.ExplainedFailure{}, d.Errors...))
	case len(d.Errors) == 0:
		fmt.Fprintf(s.Out, "%s tells of no error.\n", h.Name)
		return nil
	}
	return printErrors(s, d.Errors)
}

func printErrors(s Streams, list []agentproto.ExplainedFailure) error {
	g := newGrid(s.Out, "LAST", "TIMES", "DOING", "ERROR", "MEANING")
	for _, e := range list {
		meaning := ""
		if e.Meaning != nil {
			meaning = e.Meaning.Title() + ": " + e.Meaning.Plain()
		}
		g.row(when(e.At, "unknown"), strconv.Itoa(max(e.Times, 1)), e.Doing, e.Text, meaning)
	}
	return g.flush()
}

// find resolves what people type (a name, an FQDN or an id) to one host.
func (t *target) find(ctx context.Context, s Streams, name string) (h appliance.HostRow, err error) {
	list, err := pages(ctx, t, s, "hosts", url.Values{"q": {name}}, func(l *appliance.HostList) (*[]appliance.HostRow, string) { return &l.Hosts, l.Next })
	if err != nil {
		return h, err
	}
	var same []appliance.HostRow
	for _, r := range list {
		if strings.EqualFold(r.Name, name) || strings.EqualFold(r.FQDN, name) || strings.EqualFold(string(r.ID), name) {
			same = append(same, r)
		}
	}
	switch {
	case len(same) == 1:
		return same[0], nil
	case len(same) > 1:
		return h, fmt.Errorf("%d hosts are called %s; name the one you mean by its id, see wuamesh hosts --json", len(same), name)
	default:
		return h, fmt.Errorf("there is no host %s; wuamesh hosts lists them", name)
	}
}

var updatesCommand = Command{
	Name: "updates", Args: "[TEXT]", Summary: "List updates that hosts need or have, or all that Microsoft published",
	Example: "wuamesh updates --severity Critical,Important --state MISSING\nwuamesh updates KB5091157\nwuamesh updates --all KB5091157\nwuamesh updates --published 2026-11 --restart never",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		severity := fs.String("severity", "", "only these `severities`, with commas")
		state := fs.String("state", "", "only updates in one of these `states` on some host, with commas")
		all := fs.Bool("all", false, "also updates that no host reports, out of the node's scan cab")
		published := fs.String("published", "", "only updates of these `months`, with commas: 2026-11")
		restart := fs.String("restart", "", "only updates that restart Windows always, maybe, never or unknown, with commas")
		downloaded := fs.String("downloaded", "", "only yes, running, queued, failed or no, with commas")
		return func(ctx context.Context, s Streams, args []string) error {
			q := url.Values{"severity": split(*severity), "downloaded": split(*downloaded), "pub": split(*published), "restart": split(*restart)}
			for _, st := range split(*state) {
				q.Add("state", strings.ToUpper(st))
			}
			if len(args) > 0 {
				q.Set("q", strings.Join(args, " "))
			}
			if *all {
				q.Set("scope", string(appliance.Whole))
			}
			list, err := pages(ctx, &t, s, "updates", q, func(l *appliance.UpdateList) (*[]appliance.UpdateRow, string) { return &l.Updates, l.Next })
			if err != nil {
				return err
			}
			if t.json {
				return printJSON(s.Out, list)
			}
			g := newGrid(s.Out, "KB", "SEVERITY", "UPDATEID", "TITLE", "OK", "MISSING", "PENDING", "DISCARDED", "DOWNLOADED ON")
			for _, u := range list {
				on := cmp.Or(u.DownloadNote, string(u.Download))
				if u.Download == appliance.Downloaded {
					on = when(u.DownloadedOn, "")
				}
				g.row(kb(strings.Join(u.KBs, " ")), string(u.Severity), string(u.ID), u.Title, strconv.Itoa(u.Hosts.OK), strconv.Itoa(u.Hosts.Missing), strconv.Itoa(u.Hosts.Pending), strconv.Itoa(u.Hosts.Discarded), on)
			}
			return g.flush()
		}
	},
}

var whyCommand = Command{
	Name: "why", Args: "HOST UPDATE", Summary: "Say why an update is in its state on a host",
	Example: "wuamesh why BRS-WKS-0142 KB5091157\nwuamesh why BRS-WKS-0142 631fdcea-1c5c-4a6a-9b0e-1d7f8a0c2b11",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		return func(ctx context.Context, s Streams, args []string) error {
			if len(args) != 2 {
				return usage("it takes a HOST and an UPDATE (a KB or an UpdateID)")
			}
			h, err := t.find(ctx, s, args[0])
			if err != nil {
				return err
			}
			on, err := pages(ctx, &t, s, "hosts/"+string(h.ID)+"/updates", url.Values{"q": {args[1]}}, func(l *appliance.HostUpdateList) (*[]appliance.HostUpdate, string) { return &l.Updates, l.Next })
			if err != nil {
				return err
			}
			if len(on) == 0 {
				return fmt.Errorf("%s reports no update %s: its last scan found it neither needed nor installed", h.Name, args[1])
			}
			var all []appliance.Why
			for _, u := range on { // a KB may stand for several UpdateIDs
				var w appliance.Why
				if err := t.call(ctx, s, "hosts/"+string(h.ID)+"/updates/"+string(u.Update.ID)+"/why", nil, &w); err != nil {
					return err
				}
				all = append(all, w)
			}
			if t.json {
				return printJSON(s.Out, all)
			}
			for _, w := range all {
				printWhy(s, w)
			}
			return nil
		}
	},
}

func printWhy(s Streams, w appliance.Why) {
	fmt.Fprintf(s.Out, "%s on %s: %s\n%s\n%s\n\n", kb(w.Update.KB), w.HostName, w.State, w.Update.Title, w.Why)
	for _, st := range w.Steps {
		fmt.Fprintf(s.Out, "  %-4s %-12s %s\n", map[string]string{"done": "✓", "now": "→", "never": "✗"}[st.Mark], st.Name, st.Text)
	}
	for _, r := range w.Rules {
		mark := " "
		if r.Decided {
			mark = "*"
		}
		fmt.Fprintf(s.Out, "  %-4s rule         %s\n", mark, r.Text)
	}
	fmt.Fprintln(s.Out)
}

func kb(number string) string {
	if number == "" {
		return "-"
	}
	return "KB" + number
}

// split reads a list with commas; empty is none.
func split(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}
