package cli

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/api"
)

var triggerCommand = Command{
	Name: "trigger", Args: "scan|download|install [HOST…]", Summary: "Trigger scan, download or install on hosts",
	Example: "wuamesh trigger scan BRS-WKS-0142\nwuamesh trigger install --group pilots",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		group := fs.String("group", "", "every member of this `group`; all is every host")
		return func(ctx context.Context, s Streams, args []string) error {
			actions := []string{"scan", "download", "install"}
			if len(args) == 0 || !slices.Contains(actions, args[0]) || len(args) == 1 && *group == "" {
				return usage("it takes scan, download or install, and hosts or --group")
			}
			body := api.Trigger{Action: agentproto.Action(args[0]), Group: *group}
			for _, name := range args[1:] {
				h, err := t.find(ctx, s, name)
				if err != nil {
					return err
				}
				body.Hosts = append(body.Hosts, h.ID)
			}
			var q api.Queued
			if err := t.post(ctx, s, "hosts/actions", body, &q); err != nil {
				return err
			}
			if t.json {
				return printJSON(s.Out, q)
			}
			fmt.Fprintf(s.Out, "The %s is queued on %s; those that are connected begin now.\n", args[0], count(q.Queued, "host"))
			return nil
		}
	},
}

var fetchCommand = Command{
	Name: "fetch", Args: "[cab|missing|UPDATEID | pause|resume|first|cancel|retry FILE…]", Summary: "Download from Microsoft and other nodes now, watch it, and say what goes first or waits; missing when nothing is named",
	Example: "wuamesh fetch            the scan cab and every file hosts need\nwuamesh fetch --watch    only show what moves, and what waits for what\nwuamesh fetch cab        wsusscn2.cab alone\nwuamesh fetch 631fdcea-1c5c-4a6a-9b0e-1d7f8a0c2b11\nwuamesh fetch pause windows10.0-kb5034441     by the first letters of its file\nwuamesh fetch retry      all that failed",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		wait := fs.Bool("wait", true, "show progress until nothing is running any more")
		watch := fs.Bool("watch", false, "queue nothing, only show progress")
		return func(ctx context.Context, s Streams, args []string) error {
			path := "index/missing"
			if *watch {
				if len(args) > 0 {
					return usage("--watch shows all downloads and takes no name")
				}
				return t.watchDownloads(ctx, s)
			}
			if len(args) > 0 && slices.Contains(appliance.TaskActions, appliance.TaskAction(args[0])) {
				return t.steerDownloads(ctx, s, appliance.TaskAction(args[0]), args[1:])
			}
			switch {
			case len(args) > 1:
				return usage("one thing at a time")
			case len(args) == 1 && args[0] == "cab":
				path = "index/download"
			case len(args) == 1 && args[0] != "missing":
				id, err := rules.ParseUpdateID(args[0])
				if err != nil {
					return usage("%v", err)
				}
				path = "updates/" + string(id) + "/download"
			}
			var q api.Queued
			if err := t.post(ctx, s, path, nil, &q); err != nil {
				return err
			}
			if !*wait {
				if t.json {
					return printJSON(s.Out, q)
				}
				fmt.Fprintf(s.Out, "%s queued.\n", count(q.Queued, "download"))
				return nil
			}
			return t.watchDownloads(ctx, s)
		}
	},
}

// steerDownloads does something to downloads that are named by how their files
// begin; retry without a name is for all that failed.
func (t *target) steerDownloads(ctx context.Context, s Streams, do appliance.TaskAction, files []string) error {
	if len(files) == 0 && do == appliance.RetryTask {
		var q api.Queued
		if err := t.post(ctx, s, "downloads/retry", nil, &q); err != nil {
			return err
		}
		if t.json {
			return printJSON(s.Out, q)
		}
		fmt.Fprintf(s.Out, "%s tried now.\n", count(q.Queued, "failed download"))
		return nil
	}
	if len(files) == 0 {
		return usage("name the file to %s, or how its name begins; wuamesh fetch --watch lists them", do)
	}
	list, err := pages(ctx, t, s, "downloads", nil, func(page *api.Downloads) (*[]appliance.Task, string) { return &page.Downloads, page.Next })
	if err != nil {
		return err
	}
	done := []appliance.Task{}
	for _, file := range files {
		k, err := openTask(list, file)
		if err != nil {
			return err
		}
		if err := t.post(ctx, s, "downloads/"+k.ID+"/"+string(do), nil, &k); err != nil {
			return err
		}
		if done = append(done, k); !t.json {
			fmt.Fprintln(s.Out, progressLine(k, nil))
		}
	}
	if t.json {
		return printJSON(s.Out, done)
	}
	return nil
}

// openTask is the one download that has not ended and whose file begins so.
func openTask(list []appliance.Task, file string) (appliance.Task, error) {
	var found []appliance.Task
	for _, k := range list {
		if k.File == file && len(k.Actions()) > 0 {
			return k, nil
		}
		if strings.HasPrefix(k.File, file) && len(k.Actions()) > 0 {
			found = append(found, k)
		}
	}
	switch len(found) {
	case 0:
		return appliance.Task{}, fmt.Errorf("no download that has not ended begins with %s; wuamesh fetch --watch lists them", file)
	case 1:
		return found[0], nil
	}
	return appliance.Task{}, fmt.Errorf("%d downloads begin with %s, for example %s and %s: name one of them", len(found), file, found[0].File, found[1].File)
}

var uploadCommand = Command{
	Name: "upload", Args: "FILE…", Summary: "Bring .cab or .msu files to a node; it checks who signed them, and serves them",
	Example: "wuamesh upload windows10.0-kb5034441-x64_3f1c….msu\nwuamesh upload wsusscn2.cab        to a node without a way to Microsoft",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		return func(ctx context.Context, s Streams, args []string) error {
			if len(args) == 0 {
				return usage("name at least one file")
			}
			c, err := t.client(s)
			if err != nil {
				return err
			}
			list := []appliance.Upload{}
			for i, path := range args {
				up, err := upload(ctx, s, c, path)
				if err != nil {
					if i > 0 {
						fmt.Fprintf(s.Err, "%s of %d uploaded before this.\n", count(i, "file"), len(args))
					}
					return err
				}
				list = append(list, up)
				if !t.json {
					fmt.Fprintln(s.Out, uploadLine(up))
				}
			}
			if t.json {
				return printJSON(s.Out, list)
			}
			return nil
		}
	},
}

// upload sends one file, and says now and then how far it is.
func upload(ctx context.Context, s Streams, c *api.Client, path string) (up appliance.Upload, err error) {
	f, err := os.Open(path)
	if err != nil {
		return up, err
	}
	defer f.Close()
	p := &sending{f: f, tell: func(done, of int64) {
		fmt.Fprintf(s.Err, "%s, %s of %s\n", filepath.Base(path), size(done), size(of))
	}}
	info, err := f.Stat()
	if err != nil {
		return up, err
	}
	if !info.Mode().IsRegular() {
		return up, fmt.Errorf("%s is no file", path)
	}
	p.size = info.Size()
	err = c.Send(ctx, http.MethodPut, "folder/"+url.PathEscape(filepath.Base(path)), p, &up)
	return up, err
}

// A sending is a file that tells every few seconds how much of it was read.
type sending struct {
	f          *os.File
	size, done int64
	told       time.Time
	tell       func(done, of int64)
}

func (p *sending) Read(b []byte) (int, error) {
	n, err := p.f.Read(b)
	p.done += int64(n)
	if p.told.IsZero() {
		p.told = time.Now()
	}
	if time.Since(p.told) >= 5*time.Second {
		p.told = time.Now()
		p.tell(p.done, p.size)
	}
	return n, err
}

// Stat lets the length be told beforehand.
func (p *sending) Stat() (fs.FileInfo, error) { return p.f.Stat() }

// uploadLine says what became of an uploaded file.
func uploadLine(up appliance.Upload) string {
	line := fmt.Sprintf("%s, %s, signed by %s", up.Name, size(up.Size), up.Signer)
	switch {
	case up.Already:
		return line + ", is on the node already."
	case up.Title != "":
		return line + ", is served now: " + up.Title + "."
	}
	return line + ", is served now. No update that is known names it: it stays until you delete it."
}

var cleanCommand = Command{
	Name: "clean", Summary: "Delete the files no host needs any more (Delete Unused KB)",
	Example: "wuamesh clean --dry-run\nwuamesh clean",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		dry := fs.Bool("dry-run", false, "only say what would be deleted")
		return func(ctx context.Context, s Streams, _ []string) error {
			var p appliance.CleanPlan
			verb, err := "would be deleted", error(nil)
			if *dry {
				err = t.call(ctx, s, "folder/unused", nil, &p)
			} else {
				verb, err = "deleted", t.post(ctx, s, "folder/clean", nil, &p)
			}
			if err != nil {
				return err
			}
			if t.json {
				return printJSON(s.Out, p)
			}
			for _, f := range p.Files {
				fmt.Fprintf(s.Out, "%s  %s  %s\n", size(f.Size), f.Name, f.Note)
			}
			fmt.Fprintf(s.Out, "%s %s, %s.\n", count(len(p.Files), "file"), verb, size(p.Bytes))
			return nil
		}
	},
}

var tokenCommand = Command{
	Name: "token", Args: "enroll|join|api", Summary: "Make a token: for hosts to enrol with, for a node to join with, or for scripts",
	Example: "wuamesh token enroll --uses 50 --for 72h\nwuamesh token join\nwuamesh token join --address rns.example.org:443 --for 24h\nwuamesh token api --name backup --role viewer --for 8760h",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		name := fs.String("name", "", "what the token is for; shown in lists and the audit log")
		role := fs.String("role", string(appliance.Viewer), "`role` of an API token: viewer, operator, owner")
		uses := fs.Int("uses", 1, "how many hosts may enrol with it")
		life := fs.Duration("for", 0, "how long it is good for; default 24h, and 1h for a node")
		var addrs []string
		fs.Func("address", "`host:port` where the new node asks; may be repeated, default as this node knows", func(a string) error {
			addrs = append(addrs, a)
			return nil
		})
		return func(ctx context.Context, s Streams, args []string) error {
			if len(args) != 1 || !slices.Contains([]string{"enroll", "join", "api"}, args[0]) {
				return usage("it takes enroll, join or api")
			}
			body := api.NewToken{Name: *name, Use: appliance.TokenUse(args[0]), Addrs: addrs}
			body.Seconds = int64(tokenLife(*life, body.Use).Seconds())
			if body.Name == "" {
				body.Name = args[0]
			}
			switch body.Use {
			case appliance.ForAPI:
				body.Role = appliance.Role(*role)
			case appliance.ForEnroll:
				body.Uses = *uses
			}
			var made api.MadeToken
			if err := t.post(ctx, s, "tokens", body, &made); err != nil {
				return err
			}
			if t.json {
				return printJSON(s.Out, made)
			}
			if body.Use == appliance.ForJoin {
				return printJoinToken(s, made)
			}
			fmt.Fprintln(s.Out, made.Token)
			fmt.Fprintf(s.Err, "Good until %s. It is shown this once.\n", when(made.Expires, ""))
			return nil
		}
	},
}
