// Package cli is the command line: what the pages do, for scripts and for
// people who live in a terminal. Every command asks a node through its API,
// also on the node itself, so that both show the same and nobody opens the
// store behind the node's back.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"wuamesh/agentproto"
	"wuamesh/appliance"
)

// Streams are where a command reads and writes.
type Streams struct {
	In  io.Reader // what is asked for; nil for nothing
	Out io.Writer // results
	Err io.Writer // progress and what went wrong
	// Env looks a variable up, as os.Getenv does.
	Env func(string) string
}

// A Command is one word after "wuamesh".
type Command struct {
	Name    string
	Args    string // what follows the flags: "NAME", "[HOST]"
	Summary string // one line of the list
	Example string // of its help, with what it prints or does
	// Flags declares the command's flags and returns what runs it.
	Flags func(*flag.FlagSet) Runner
}

// A Runner runs a command with the arguments that are no flags.
type Runner func(ctx context.Context, s Streams, args []string) error

// ErrUsage is wrong use: exit code 2.
var ErrUsage = errors.New("wrong use")

// errDiffers is a difference that was asked for and printed: exit code 3.
var errDiffers = errors.New("there are differences")

// usage returns an error of wrong use that says what.
func usage(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUsage}, args...)...)
}

// Main runs the command that args name and returns the exit code: 0 done,
// 1 failed, 2 wrong use, 3 differences that --exit-code asked about.
func Main(ctx context.Context, commands []Command, args []string, s Streams) int {
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		if len(args) > 1 {
			return Main(ctx, commands, []string{args[1], "--help"}, s)
		}
		overview(commands, s.Out)
		return 0
	}
	if slices.Contains([]string{"version", "-version", "--version"}, args[0]) {
		fmt.Fprintf(s.Out, "wuamesh %s\n", appliance.Version)
		return 0
	}
	i := slices.IndexFunc(commands, func(c Command) bool { return c.Name == args[0] })
	if i < 0 {
		fmt.Fprintf(s.Err, "wuamesh: there is no command %q%s.\nRun wuamesh help for the list.\n", args[0], didYouMean(commands, args[0]))
		return 2
	}
	c := commands[i]
	fs := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	run := c.Flags(fs)
	rest, err := parse(fs, args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		help(c, fs, s.Out)
		return 0
	case err != nil:
		fmt.Fprintf(s.Err, "wuamesh %s: %v.\nRun wuamesh %s --help for what it takes.\n", c.Name, err, c.Name)
		return 2
	}
	if err := run(ctx, s, rest); err != nil {
		return explain(c, err, s.Err)
	}
	return 0
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

func explain(c Command, err error, w io.Writer) int {
	if errors.Is(err, errDiffers) {
		return 3
	}
	if p, ok := errors.AsType[*agentproto.Problem](err); ok {
		fmt.Fprintf(w, "wuamesh %s: %s\n", c.Name, p.Title)
		if p.Hint != "" {
			fmt.Fprintln(w, p.Hint)
		}
		return 1
	}
	if p, ok := appliance.AsProblem(err); ok {
		fmt.Fprintf(w, "wuamesh %s: %s\n", c.Name, p.Msg)
		if p.Hint != "" {
			fmt.Fprintln(w, p.Hint)
		}
		return 1
	}
	if errors.Is(err, ErrUsage) {
		fmt.Fprintf(w, "wuamesh %s: %s.\nRun wuamesh %s --help for what it takes.\n", c.Name, strings.TrimPrefix(err.Error(), ErrUsage.Error()+": "), c.Name)
		return 2
	}
	fmt.Fprintf(w, "wuamesh %s: %v\n", c.Name, err)
	return 1
}

func overview(commands []Command, w io.Writer) {
	fmt.Fprint(w, "wuamesh brings Windows updates to branch offices.\n\nUsage: wuamesh COMMAND [flags]\n\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-11s %s\n", c.Name, c.Summary)
	}
	fmt.Fprint(w, "\nwuamesh COMMAND --help says more, with an example; wuamesh --version says which this is.\n")
}

func help(c Command, fs *flag.FlagSet, w io.Writer) {
	fmt.Fprintf(w, "%s.\n\nUsage: wuamesh %s [flags]", c.Summary, c.Name)
	if c.Args != "" {
		fmt.Fprint(w, " ", c.Args)
	}
	fmt.Fprint(w, "\n\nFlags:\n")
	fs.SetOutput(w)
	fs.PrintDefaults()
	fmt.Fprintf(w, "\nExample:\n%s\n", indent(c.Example))
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n  ")
}

// didYouMean offers the command that begins or sounds alike.
func didYouMean(commands []Command, word string) string {
	for _, c := range commands {
		if strings.HasPrefix(c.Name, word) || strings.HasPrefix(word, c.Name) || strings.TrimSuffix(c.Name, "s") == strings.TrimSuffix(word, "s") {
			return fmt.Sprintf("; did you mean %q?", c.Name)
		}
	}
	return ""
}
