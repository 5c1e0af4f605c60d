package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"wuamesh/appliance"
)

// manualCommand prints the manual pages, made from the table of commands and
// from the text of the configuration, so that they cannot drift from either.
func manualCommand(all func() []Command) Command {
	return Command{
		Name: "manual", Args: "wuamesh|config", Summary: "Print a manual page: of the commands, or of the configuration",
		Example: "wuamesh manual wuamesh | man -l -\nwuamesh manual config | man -l -",
		Flags: func(*flag.FlagSet) Runner {
			return func(_ context.Context, s Streams, args []string) error {
				switch {
				case len(args) == 1 && args[0] == "wuamesh":
					commandsPage(s.Out, all())
				case len(args) == 1 && args[0] == "config":
					configPage(s.Out)
				default:
					return usage("it takes wuamesh or config")
				}
				return nil
			}
		},
	}
}

// roff escapes text for troff: a hyphen people may copy stays a hyphen, and no
// line begins a request.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "“", `\(lq`, "”", `\(rq`, "…", "...", "⁠", "").Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

// example is text as it is typed, or printed.
func example(w io.Writer, text string) {
	fmt.Fprintf(w, ".PP\n.RS 4\n.nf\n%s\n.fi\n.RE\n", roff(strings.TrimSpace(text)))
}

func commandsPage(w io.Writer, list []Command) {
	fmt.Fprintf(w, ".\\\" written by \"wuamesh manual wuamesh\"\n.TH WUAMESH 1 \"\" \"wuamesh %s\" \"wuamesh\"\n", appliance.Version)
	fmt.Fprint(w, ".SH NAME\nwuamesh \\- Windows updates for branch offices\n.SH SYNOPSIS\n.B wuamesh\n.I COMMAND\n.RI [ flags ]\n.RI [ arguments ]\n")
	fmt.Fprintf(w, ".SH DESCRIPTION\n%s\n", roff(manualIntro))
	fmt.Fprint(w, ".SH COMMANDS\n")
	common := flagsOf(Command{Flags: func(fs *flag.FlagSet) Runner {
		new(target).flags(fs)
		return nil
	}})
	for _, c := range list {
		fmt.Fprintf(w, ".SS \"wuamesh %s\"\n%s.\n", roff(strings.TrimSpace(c.Name+" "+c.Args)), roff(c.Summary))
		flags := flagsOf(c)
		asks := slices.ContainsFunc(flags, func(f *flag.Flag) bool { return f.Name == "pin" })
		for _, f := range flags {
			if !asks || !slices.ContainsFunc(common, func(g *flag.Flag) bool { return g.Name == f.Name }) {
				flagEntry(w, f)
			}
		}
		if asks {
			fmt.Fprintln(w, ".PP\nIt asks a node, and takes the common flags.")
		}
		fmt.Fprintln(w, ".PP\nExample:")
		example(w, c.Example)
	}
	fmt.Fprintln(w, ".SH COMMON FLAGS\nCommands that ask a node take these:")
	for _, f := range common {
		flagEntry(w, f)
	}
	for _, s := range manualSections {
		fmt.Fprintf(w, ".SH %q\n", strings.ToUpper(s.title))
		for _, p := range strings.Split(strings.TrimSpace(s.text), "\n\n") {
			if rest, ok := strings.CutPrefix(p, "    "); ok {
				example(w, strings.ReplaceAll(rest, "\n    ", "\n"))
				continue
			}
			if term, text, ok := strings.Cut(p, "\n\t"); ok {
				fmt.Fprintf(w, ".TP\n.B %s\n%s\n", roff(term), roff(strings.ReplaceAll(text, "\n\t", "\n")))
				continue
			}
			fmt.Fprintf(w, ".PP\n%s\n", roff(p))
		}
	}
}

func flagEntry(w io.Writer, f *flag.Flag) {
	takes, text := flag.UnquoteUsage(f)
	fmt.Fprintf(w, ".TP\n\\fB\\-\\-%s\\fR \\fI%s\\fR\n%s", roff(f.Name), roff(takes), roff(text))
	if !slices.Contains([]string{"", "false", "0", "0s"}, f.DefValue) {
		fmt.Fprintf(w, " (default %s)", roff(f.DefValue))
	}
	fmt.Fprintln(w)
}

var keyOf = regexp.MustCompile(`^([a-z_]+) = (.*)$`)

func configPage(w io.Writer) {
	fmt.Fprintf(w, ".\\\" written by \"wuamesh manual config\"\n.TH WUAMESH.TOML 5 \"\" \"wuamesh %s\" \"wuamesh\"\n", appliance.Version)
	fmt.Fprint(w, ".SH NAME\nwuamesh.toml \\- what a node of wuamesh must be told to start\n.SH SYNOPSIS\n.I /etc/wuamesh/wuamesh.toml\n.SH DESCRIPTION\n")
	blocks := strings.Split(strings.TrimSpace(appliance.DefaultConfigText), "\n\n")
	fmt.Fprintf(w, "wuamesh.toml says %s\n", roff(uncomment(strings.TrimPrefix(blocks[0], "# wuamesh.toml: "))))
	fmt.Fprintf(w, ".PP\n%s\n.SH KEYS\n", roff(strings.TrimSpace(manualConfig)))
	for _, b := range blocks[1:] {
		var text []string
		keys := false
		for _, line := range strings.Split(b, "\n") {
			m := keyOf.FindStringSubmatch(line)
			if m == nil {
				text = append(text, line)
				continue
			}
			request := ".TP"
			if keys {
				request = ".TQ"
			}
			keys = true
			fmt.Fprintf(w, "%s\n\\fB%s = %s\\fR\n", request, roff(m[1]), roff(m[2]))
		}
		fmt.Fprintln(w, roff(uncomment(strings.Join(text, "\n"))))
	}
	fmt.Fprint(w, ".SH SEE ALSO\n.BR wuamesh (1)\n")
}

func uncomment(s string) string {
	return strings.TrimPrefix(strings.ReplaceAll(s, "\n# ", "\n"), "# ")
}
