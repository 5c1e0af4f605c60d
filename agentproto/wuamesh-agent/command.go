package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"wuamesh/agentproto/agent"
)

// A command is one word after "wuamesh-agent".
type command struct {
	name, args, summary string
	more                string // of its help
	flags               func(*flag.FlagSet) runner
}

// A runner runs a command with the arguments that are no flags.
type runner func(ctx context.Context, c *console, o options, args []string) error

// options are what every command takes.
type options struct {
	dir  string // state and downloads
	ini  string // path of wapt-get.ini
	json bool
}

var errUsage = errors.New("wrong use")

func usage(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errUsage}, args...)...)
}

// commands are in the order in which help lists them.
var commands = []command{
	{
		"status", "", "what the agent does, knows and waits for",
		"Says when it last spoke with its node, and for every update that is not installed why not.", plain(requestStatus),
	},
	{
		"scan", "", "get the scan cab, have Windows scan, report",
		"Windows' own scan takes minutes, the first one half an hour.", plain(requestScan),
	},
	{"download", "", "get the files of allowed updates", "From the nearest node, or as direct_download says.", plain(requestDownload)},
	{
		"install-updates", "", "install the allowed updates now",
		"Gets what is missing, installs one update after the other, scans again and reports. Restarts nothing.", plain(requestInstall),
	},
	{
		"uninstall-kb", "KB", "remove an installed update",
		"By the number of its article: KB5091000. What is forbidden is never removed by itself; this is how a person or a package does it.", removeFlags,
	},
	{
		"exit-window", "", "ask who works here, install what is ready, shut down",
		"What \"Update and shut down\" in the Start menu opens. It shows what is ready, counts down, and shows how it goes.", exitWindowFlags,
	},
	{
		"enroll", "", "let the host into the mesh",
		"Writes server and token into section [wuamesh] of wapt-get.ini and asks for a certificate.", enrollFlags,
	},
	{
		"install", "", "install the service and start it",
		"What the MSI does; for hosts that have no use for an MSI. Needs an administrator.", installFlags,
	},
	{
		"uninstall", "", "remove the service, and give Windows Update back",
		"Windows' own updating is as it was before the agent. State and downloads stay.", uninstallFlags,
	},
	{"configure", "", "", "", configureFlags}, // what the MSI runs
	{"give-back", "", "", "", giveBackFlags},  // and when it is removed
	{"run", "", "run the agent: as the service, or with --console here", "What the service manager starts.", runFlags},
}

// main runs the command that args name and returns the exit code: 0 done, 1
// failed, 2 wrong use.
func (c *console) main(ctx context.Context, args []string) int {
	if len(args) == 0 {
		c.overview(c.err)
		return 2
	}
	switch name := args[0]; name {
	case "help", "-h", "-help", "--help", "/?":
		c.overview(c.out)
		return 0
	case "version", "-version", "--version":
		fmt.Fprintf(c.out, "wuamesh-agent %s\n", Version)
		return 0
	}
	for _, cmd := range commands {
		if cmd.name == args[0] {
			return c.run(ctx, cmd, args[1:])
		}
	}
	fmt.Fprintf(c.err, "wuamesh-agent: there is no command %q. Run wuamesh-agent help for the list.\n", args[0])
	return 2
}

func (c *console) run(ctx context.Context, cmd command, args []string) int {
	o := options{}
	o.dir, o.ini = places()
	fs := flag.NewFlagSet(cmd.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.dir, "dir", o.dir, "`directory` of the agent's state and downloads")
	fs.StringVar(&o.ini, "ini", o.ini, "`path` of wapt-get.ini")
	fs.BoolVar(&o.json, "json", false, "print JSON, for scripts")
	do := cmd.flags(fs)
	rest, err := parse(fs, args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(c.out, "wuamesh-agent %s: %s.\n%s\n\n", cmd.name, cmd.summary, cmd.more)
		fs.SetOutput(c.out)
		fs.PrintDefaults()
		return 0
	}
	c.json = o.json
	if err != nil {
		err = usage("%v", err)
	} else {
		err = do(ctx, c, o, rest)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(c.err, "wuamesh-agent %s: %s.\nRun wuamesh-agent %s --help for what it takes.\n", cmd.name, strings.TrimPrefix(err.Error(), errUsage.Error()+": "), cmd.name)
		return 2
	}
	c.failed(cmd.name, err)
	return 1
}

// parse lets flags stand before and after the arguments, as people type them.
func parse(fs *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		if fs.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, fs.Arg(0)), fs.Args()[1:]
	}
}

func (c *console) overview(w io.Writer) {
	fmt.Fprint(w, "wuamesh-agent keeps this PC up to date as its wuamesh node says.\n\n")
	for _, cmd := range commands {
		if cmd.summary != "" {
			fmt.Fprintf(w, "  %-16s  %s\n", cmd.name, cmd.summary)
		}
	}
	fmt.Fprint(w, "\nEvery command takes --json, --dir and --ini; --help after a command tells more.\n")
}

// plain makes the flags of a command that is one request without arguments.
func plain(name requestName) func(*flag.FlagSet) runner {
	return func(*flag.FlagSet) runner {
		return func(ctx context.Context, c *console, o options, args []string) error {
			if len(args) > 0 {
				return usage("it takes no %q", args[0])
			}
			return c.ask(ctx, o, request{Name: name})
		}
	}
}

func removeFlags(*flag.FlagSet) runner {
	return func(ctx context.Context, c *console, o options, args []string) error {
		if len(args) != 1 {
			return usage("it takes the number of one KB, such as KB5091000")
		}
		return c.ask(ctx, o, request{Name: requestRemove, KB: args[0]})
	}
}

func enrollFlags(fs *flag.FlagSet) runner {
	set := settingsFlags(fs)
	return func(ctx context.Context, c *console, o options, args []string) error {
		if len(args) > 0 {
			return usage("it takes no %q", args[0])
		}
		if err := set(o.ini); err != nil {
			return err
		}
		return c.ask(ctx, o, request{Name: requestEnroll})
	}
}

// settingsFlags declares the settings that an installation may be given, and
// returns what writes those that were into wapt-get.ini. An empty one is one
// that was not given: an MSI passes all it knows.
func settingsFlags(fs *flag.FlagSet) func(ini string) error {
	mesh, host := map[string]string{}, map[string]string{}
	into := func(m map[string]string, key string) func(string) error {
		return func(v string) error {
			if v = strings.TrimSpace(v); v != "" {
				m[key] = v
			}
			return nil
		}
	}
	fs.Func("server", "`URL` of the branch's node, or several with commas, the nearest first", into(mesh, "nodes"))
	fs.Func("token", "enrolment `token` from the node's page Access", into(mesh, "token"))
	fs.Func("pin", "fingerprint of the mesh, 64 hexadecimal `digits`: for hosts without a token, which an admin approves", into(mesh, "pin"))
	fs.Func("set", "a setting of [waptwua], `KEY=VALUE`; may be repeated", func(s string) error {
		key, v, ok := strings.Cut(s, "=")
		if key = strings.ToLower(strings.TrimSpace(key)); !ok || key == "" {
			return errors.New("want KEY=VALUE")
		}
		return into(host, key)(v)
	})
	return func(ini string) error {
		if err := checkSettings(mesh, host); err != nil {
			return err
		}
		if _, err := agent.WriteINI(ini, "wuamesh", mesh); err != nil {
			return err
		}
		_, err := agent.WriteINI(ini, "waptwua", host)
		return err
	}
}

// checkSettings refuses what the agent would not understand, before it is in
// the file.
func checkSettings(mesh, host map[string]string) error {
	var text strings.Builder
	for section, keys := range map[string]map[string]string{"wuamesh": mesh, "waptwua": host} {
		fmt.Fprintf(&text, "[%s]\n", section)
		for key, v := range keys {
			if strings.ContainsAny(v, "\r\n") {
				return usage("%s: a value is one line", key)
			}
			fmt.Fprintf(&text, "%s = %s\n", key, v)
		}
	}
	if c := agent.ParseINI([]byte(text.String())); len(c.Warnings) > 0 {
		return usage("%s", c.Warnings[0].Text)
	}
	return nil
}

// ask has the service do what is requested, or does it here when there is no
// service, and prints what comes of it.
func (c *console) ask(ctx context.Context, o options, r request) error {
	a, err := c.answer(ctx, o, r)
	if err != nil {
		return err
	}
	if a.Error != "" {
		return errors.New(a.Error)
	}
	if c.json {
		return json.NewEncoder(c.out).Encode(a)
	}
	if a.Status != nil {
		printStatus(c.out, *a.Status, time.Now())
		return nil
	}
	fmt.Fprintln(c.out, a.Text)
	return nil
}

func (c *console) answer(ctx context.Context, o options, r request) (answer, error) {
	conn, err := dialService()
	if errors.Is(err, errNoService) {
		return c.alone(ctx, o, r)
	}
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	a, err := exchange(conn, r, c.doing)
	c.doing("")
	if ctx.Err() != nil {
		return a, errors.New("interrupted; the service goes on with it, see wuamesh-agent status")
	}
	return a, err
}

// alone does without a service.
func (c *console) alone(ctx context.Context, o options, r request) (answer, error) {
	l, err := openLocal(o, c.log())
	if err != nil {
		return answer{}, err
	}
	a := perform(ctx, l.Agent, r, c.doing)
	c.doing("")
	return a, l.close()
}

// done prints what came of a command that asked nobody.
func (c *console) done(text string) error {
	if c.json {
		return json.NewEncoder(c.out).Encode(answer{Done: true, Text: text})
	}
	fmt.Fprintln(c.out, text)
	return nil
}
