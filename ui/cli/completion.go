package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// completionCommand prints what makes a shell complete the commands. It is
// written from the table, so it cannot say what the commands do not do.
func completionCommand(all func() []Command) Command {
	return Command{
		Name: "completion", Args: "bash|zsh|fish", Summary: "Print the completion of a shell; the package installs all three",
		Example: "wuamesh completion bash > /usr/share/bash-completion/completions/wuamesh",
		Flags: func(*flag.FlagSet) Runner {
			return func(_ context.Context, s Streams, args []string) error {
				shells := map[string]func(io.Writer, []completable){"bash": completeBash, "zsh": completeZsh, "fish": completeFish}
				if len(args) != 1 || shells[args[0]] == nil {
					return usage("it takes bash, zsh or fish")
				}
				var list []completable
				for _, c := range all() {
					list = append(list, completableOf(c))
				}
				shells[args[0]](s.Out, list)
				return nil
			}
		},
	}
}

// A completable is what shells need to know of a command.
type completable struct {
	name, summary string
	words         []string // that may be its first argument
	flags         []completableFlag
}

type completableFlag struct {
	name, usage string
	takes       string // what follows it; empty for nothing
}

// isPath says that a file or directory follows.
func (f completableFlag) isPath() bool { return f.takes == "file" || f.takes == "directory" }

var firstWords = regexp.MustCompile(`^\[?([a-z]+(?:\|[A-Za-z]+)+)`)

func completableOf(c Command) completable {
	p := completable{name: c.Name, summary: c.Summary}
	if m := firstWords.FindStringSubmatch(c.Args); m != nil {
		p.words = slices.DeleteFunc(strings.Split(m[1], "|"), func(w string) bool { return strings.ToLower(w) != w })
	}
	for _, f := range flagsOf(c) {
		takes, text := flag.UnquoteUsage(f)
		p.flags = append(p.flags, completableFlag{f.Name, text, takes})
	}
	return p
}

// flagsOf are the command's flags by name.
func flagsOf(c Command) (list []*flag.Flag) {
	fs := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	c.Flags(fs)
	fs.VisitAll(func(f *flag.Flag) { list = append(list, f) })
	return list
}

func completeBash(w io.Writer, list []completable) {
	var names, paths []string
	var cases strings.Builder
	for _, c := range list {
		names = append(names, c.name)
		words := c.words
		for _, f := range c.flags {
			words = append(words, "--"+f.name)
			if f.isPath() {
				paths = append(paths, "--"+f.name)
			}
		}
		fmt.Fprintf(&cases, "\t%s) words=%q ;;\n", c.name, strings.Join(words, " "))
	}
	slices.Sort(paths)
	fmt.Fprintf(w, `# bash completion of wuamesh, written by "wuamesh completion bash"
_wuamesh() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=
	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "help %s" -- "$cur")
		return
	fi
	case $prev in
	%s)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	esac
	case ${COMP_WORDS[1]} in
	help) words="%[1]s" ;;
%[3]s	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -o default -F _wuamesh wuamesh
`, strings.Join(names, " "), strings.Join(slices.Compact(paths), "|"), cases.String())
}

func completeZsh(w io.Writer, list []completable) {
	q := strings.NewReplacer("'", "'\\''", "[", "\\[", "]", "\\]", ":", "\\:").Replace
	fmt.Fprint(w, "#compdef wuamesh\n# written by \"wuamesh completion zsh\"\n\n_wuamesh() {\n\tlocal -a commands\n\tcommands=(\n\t\t'help:say what a command takes'\n")
	for _, c := range list {
		fmt.Fprintf(w, "\t\t'%s:%s'\n", c.name, strings.ReplaceAll(c.summary, "'", "'\\''"))
	}
	fmt.Fprint(w, "\t)\n\tif ((CURRENT == 2)); then\n\t\t_describe command commands\n\t\treturn\n\tfi\n\tlocal command=${words[2]}\n\tshift words\n\t((CURRENT--))\n\tcase $command in\n\thelp) _describe command commands ;;\n")
	for _, c := range list {
		fmt.Fprintf(w, "\t%s)\n\t\t_arguments -S", c.name)
		for _, f := range c.flags {
			arg := ""
			if f.takes != "" {
				arg = ":" + q(f.takes) + ":"
			}
			if f.isPath() {
				arg += "_files"
			}
			fmt.Fprintf(w, " \\\n\t\t\t'--%s[%s]%s'", f.name, q(f.usage), arg)
		}
		if len(c.words) > 0 {
			fmt.Fprintf(w, " \\\n\t\t\t'1:what:(%s)'", strings.Join(c.words, " "))
		}
		fmt.Fprint(w, " \\\n\t\t\t'*:argument:_default'\n\t\t;;\n")
	}
	fmt.Fprint(w, "\tesac\n}\n\n_wuamesh \"$@\"\n")
}

func completeFish(w io.Writer, list []completable) {
	q := func(s string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
	}
	fmt.Fprint(w, "# fish completion of wuamesh, written by \"wuamesh completion fish\"\n")
	fmt.Fprint(w, "complete -c wuamesh -n __fish_use_subcommand -f -a help -d 'Say what a command takes'\n")
	for _, c := range list {
		fmt.Fprintf(w, "complete -c wuamesh -n __fish_use_subcommand -f -a %s -d %s\n", c.name, q(c.summary))
		in := q("__fish_seen_subcommand_from " + c.name)
		if len(c.words) > 0 {
			fmt.Fprintf(w, "complete -c wuamesh -n %s -f -a %s\n", in, q(strings.Join(c.words, " ")))
		}
		for _, f := range c.flags {
			need := ""
			switch {
			case f.isPath():
				need = " -r -F"
			case f.takes != "":
				need = " -x"
			}
			fmt.Fprintf(w, "complete -c wuamesh -n %s -l %s%s -d %s\n", in, f.name, need, q(f.usage))
		}
	}
}
