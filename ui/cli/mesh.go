package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"wuamesh/appliance"
	"wuamesh/appliance/api"
)

var initCommand = Command{
	Name: "init", Summary: "Found a mesh with this node, and print its recovery passphrase",
	Example: "wuamesh init\nwuamesh init --name rns-01 --site rennes",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		t.configFlag(fs)
		var f api.Founding
		fs.StringVar(&f.Name, "name", "", "what the node is called; default its configuration's, or the machine's")
		fs.StringVar(&f.Site, "site", "", "the branch it stands in; default the node's name")
		return func(ctx context.Context, s Streams, args []string) error {
			if len(args) > 0 {
				return usage("it takes no argument")
			}
			return t.onNode(ctx, s, func() error {
				var p api.Passphrase
				if err := t.post(ctx, s, "mesh", f, &p); err != nil {
					return err
				}
				if t.json {
					return printJSON(s.Out, p)
				}
				return t.founded(ctx, s, p)
			})
		}
	},
}

// founded prints what was made and what comes next.
func (t *target) founded(ctx context.Context, s Streams, p api.Passphrase) error {
	var state appliance.JoinState
	if err := t.call(ctx, s, "mesh/join", nil, &state); err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "The mesh is founded: node %s, site %s.\n", state.Node, state.Site)
	printPassphrase(s, p)
	fmt.Fprintln(s.Out, "Next: wuamesh setup-link prints where to make the first admin; wuamesh token join makes a token for the next node.")
	return nil
}

func printPassphrase(s Streams, p api.Passphrase) {
	fmt.Fprintf(s.Out, "\nRecovery passphrase, shown this once:\n\n    %s\n\nKeep it on paper, away from the nodes. It makes another node an anchor, also when all anchors are lost.\n", p.Passphrase)
}

var joinCommand = Command{
	Name: "join", Args: "[TOKEN]", Summary: "Make this bare node a member of the mesh the token is of, or let it in again when its certificate has ended",
	Example: "wuamesh join                 asks for the token\nwuamesh join wmj1.uW8x…\nwuamesh join --name brs-01 --site brest wmj1.uW8x…",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		t.configFlag(fs)
		var j api.Joining
		fs.StringVar(&j.Name, "name", "", "what the node is called in the mesh; default its configuration's, or the machine's")
		fs.StringVar(&j.Site, "site", "", "the branch it stands in; default the node's name")
		wait := fs.Bool("wait", true, "end when the first copy is complete")
		return func(ctx context.Context, s Streams, args []string) error {
			j.Token = strings.Join(args, "") // a mail program may have broken it
			if j.Token == "" && s.In != nil {
				var err error
				if j.Token, err = ask(s, "Join token: "); err != nil {
					return err
				}
			}
			if j.Token == "" {
				return usage("it takes the token that wuamesh token join printed on a node of the mesh")
			}
			return t.onNode(ctx, s, func() error { return t.join(ctx, s, j, *wait) })
		}
	},
}

func (t *target) join(ctx context.Context, s Streams, j api.Joining, wait bool) error {
	p := newProgress(s.Err)
	p.line("Asking the mesh to let this node in.")
	var state appliance.JoinState
	if err := t.post(ctx, s, "mesh/join", j, &state); err != nil {
		return err
	}
	p.line("It is a member now: %s, site %s. The first copy is on its way.", state.Node, state.Site)
	if wait {
		if err := t.firstCopy(ctx, s, p, &state); err != nil {
			return err
		}
	}
	if t.json {
		return printJSON(s.Out, state)
	}
	if state.Synced {
		fmt.Fprintf(s.Out, "%s has everything the mesh has. Log in on its pages with the name and password you have on the other nodes.\n", state.Node)
	}
	return nil
}

// firstCopy shows how far the copy is until it is complete.
func (t *target) firstCopy(ctx context.Context, s Streams, p *progress, state *appliance.JoinState) error {
	began, told := time.Now(), false
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for !state.Synced {
		select {
		case <-ctx.Done():
			p.end()
			return errors.New("stopped watching; the node goes on by itself, wuamesh node list shows how far it is")
		case <-tick.C:
		}
		if err := t.call(ctx, s, "mesh/join", nil, state); err != nil {
			p.end()
			return fmt.Errorf("the node stopped answering: %w.\nIt is a member already and goes on with the copy when it runs", err)
		}
		switch {
		case state.Peers == 0 && time.Since(began) > 20*time.Second && !told:
			told = true
			p.line("No node is connected yet. It keeps trying; wuamesh node list says what is wrong.")
		case state.Peers > 0:
			p.update("%s here, at most %d to come", count(state.Records, "record"), state.Left)
		}
	}
	p.end()
	return nil
}

// A progress is one line that changes on a terminal, and lines now and then
// elsewhere.
type progress struct {
	w        io.Writer
	terminal bool
	open     bool
	last     time.Time
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, last: time.Now()}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

func (p *progress) line(format string, args ...any) {
	p.end()
	fmt.Fprintf(p.w, format+"\n", args...)
}

func (p *progress) update(format string, args ...any) {
	switch {
	case p.terminal:
		fmt.Fprintf(p.w, "\r\x1b[K"+format, args...)
		p.open = true
	case time.Since(p.last) > 5*time.Second:
		fmt.Fprintf(p.w, format+"\n", args...)
		p.last = time.Now()
	}
}

func (p *progress) end() {
	if p.open {
		fmt.Fprintln(p.w)
		p.open = false
	}
}

var nodeCommand = Command{
	Name: "node", Args: "list|files|remove|anchor|resign|passphrase|rotate-gossip-key", Summary: "List the nodes of the mesh, remove one, say who may let others in",
	Example: "wuamesh node list\nwuamesh node files                  which nodes have the files that hosts wait for\nwuamesh node remove --reason stolen brs-01\nwuamesh node anchor                 this node may let others in; asks for the recovery passphrase\nwuamesh node resign                 it may not any more\nwuamesh node passphrase             a new recovery passphrase\nwuamesh node rotate-gossip-key",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		reason := fs.String("reason", "", "why a node is removed; kept in the audit log")
		return func(ctx context.Context, s Streams, args []string) error {
			switch {
			case len(args) == 2 && args[0] == "remove":
				return t.removeNode(ctx, s, args[1], *reason)
			case len(args) == 0 || len(args) == 1 && args[0] == "list":
				return t.listNodes(ctx, s)
			case len(args) == 1 && args[0] == "files":
				return t.neededFiles(ctx, s)
			case len(args) == 1 && args[0] == "anchor":
				return t.anchor(ctx, s)
			case len(args) == 1 && args[0] == "resign":
				return t.done(ctx, s, http.MethodDelete, "mesh/anchor", "The mesh's root key is gone from this node.")
			case len(args) == 1 && args[0] == "rotate-gossip-key":
				return t.done(ctx, s, http.MethodPost, "mesh/gossip-key", "A new gossip key is on its way to every node; the old one is understood for a day.")
			case len(args) == 1 && args[0] == "passphrase":
				var p api.Passphrase
				if err := t.post(ctx, s, "mesh/passphrase", nil, &p); err != nil {
					return err
				}
				if t.json {
					return printJSON(s.Out, p)
				}
				printPassphrase(s, p)
				return nil
			}
			return usage("it takes list, files, remove NAME, anchor, resign, passphrase or rotate-gossip-key")
		}
	},
}

func (t *target) done(ctx context.Context, s Streams, method, path, text string) error {
	if err := t.send(ctx, s, method, path, nil, nil); err != nil {
		return err
	}
	if !t.json {
		fmt.Fprintln(s.Out, text)
	}
	return nil
}

func (t *target) listNodes(ctx context.Context, s Streams) error {
	var list api.Nodes
	if err := t.get(ctx, s, "nodes", nil, &list); err != nil || t.json {
		return err
	}
	return printNodes(s, list.Nodes)
}

// neededFiles prints which nodes have the files that hosts wait for.
func (t *target) neededFiles(ctx context.Context, s Streams) error {
	var c appliance.FileCoverage
	if err := t.get(ctx, s, "mesh/files", nil, &c); err != nil || t.json {
		return err
	}
	if c.All == 0 {
		fmt.Fprintln(s.Out, "No host waits for a file.")
		return nil
	}
	head := []string{"HOSTS", "SIZE"}
	for _, n := range c.Nodes {
		head = append(head, strings.ToUpper(n.Name))
	}
	g := newGrid(s.Out, append(head, "UPDATE", "FILE")...)
	for _, f := range c.Files {
		cells := []string{strconv.Itoa(f.Hosts), size(f.Size)}
		for _, n := range c.Nodes {
			cells = append(cells, map[bool]string{true: "yes", false: "-"}[f.Has(n.ID)])
		}
		g.row(append(cells, cmp.Or(f.Title, string(f.Update)), f.Name)...)
	}
	return g.flush()
}

// printNodes prints the nodes, and below what is wrong with them.
func printNodes(s Streams, list []appliance.NodeRow) error {
	g := newGrid(s.Out, "NODE", "SITE", "REACHED", "BEHIND", "CLOCK", "LAST CONTACT", "VERSION", "ANCHOR", "ADDRESSES")
	for _, n := range list {
		anchor := ""
		if n.Anchor {
			anchor = "anchor"
		}
		g.row(n.Name, n.Site, n.Reached(), n.Lag(), n.Clock(), when(n.Contact, ""), n.Version, anchor, strings.Join(n.Addrs, " "))
	}
	if err := g.flush(); err != nil {
		return err
	}
	for _, n := range list {
		for _, p := range n.Problems {
			fmt.Fprintf(s.Out, "! %s: %s\n", n.Name, p)
		}
	}
	return nil
}

func (t *target) removeNode(ctx context.Context, s Streams, name, reason string) error {
	path := "nodes/" + url.PathEscape(name)
	if reason != "" {
		path += "?reason=" + url.QueryEscape(reason)
	}
	var row appliance.NodeRow
	if err := t.send(ctx, s, http.MethodDelete, path, nil, &row); err != nil {
		return err
	}
	if t.json {
		return printJSON(s.Out, row)
	}
	fmt.Fprintf(s.Out, "%s is removed: every node refuses it from when it hears of this. Hosts that it let in get other certificates by themselves.\n", row.Name)
	for _, p := range row.Problems {
		fmt.Fprintln(s.Out, p)
	}
	return nil
}

// anchor asks for the passphrase: on the command line others could see it.
func (t *target) anchor(ctx context.Context, s Streams) error {
	if s.In == nil {
		return usage("it reads the recovery passphrase from its input")
	}
	line, err := ask(s, "Recovery passphrase: ")
	if err != nil {
		return err
	}
	if err := t.post(ctx, s, "mesh/anchor", api.Passphrase{Passphrase: line}, nil); err != nil {
		return err
	}
	if !t.json {
		fmt.Fprintln(s.Out, "This node is an anchor now: it lets nodes in and renews their certificates.")
	}
	return nil
}

// ask reads a line that others should not see on the command line.
func ask(s Streams, prompt string) (string, error) {
	fmt.Fprint(s.Err, prompt)
	line, err := bufio.NewReader(io.LimitReader(s.In, 8000)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read what was asked for: %w", err)
	}
	return strings.TrimSpace(line), nil
}

// printJoinToken prints the token and what to do with it.
func printJoinToken(s Streams, made api.MadeToken) error {
	fmt.Fprintln(s.Out, made.Token)
	_, err := fmt.Fprintf(s.Err, "On the new node: wuamesh join and this token, or paste it on its setup page. It is for one node, good until %s, and shown this once.\n", when(made.Expires, ""))
	return err
}

// tokenLife is how long a token is good when nobody says.
func tokenLife(given time.Duration, use appliance.TokenUse) time.Duration {
	if use == appliance.ForJoin {
		return cmp.Or(given, time.Hour)
	}
	return cmp.Or(given, 24*time.Hour)
}
