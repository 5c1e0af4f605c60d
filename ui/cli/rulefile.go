package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"wuamesh/appliance"
	"wuamesh/appliance/api"
)

// fileVerbs are what follows "rules" when it is about all rules at once.
var fileVerbs = map[string]bool{"export": true, "import": true, "diff": true}

// A ruleFile is how the rule set comes out or in.
type ruleFile struct {
	wapt, prune, parts, members, exitCode bool
	pkg, seen                             string
}

func (f *ruleFile) flags(fs *flag.FlagSet) {
	fs.BoolVar(&f.wapt, "wapt", false, "export, import, diff: the file is WAPT's waptwua_rules.json, of one package")
	fs.StringVar(&f.pkg, "package", "", "with --wapt: which `package`")
	fs.BoolVar(&f.prune, "prune", false, "import, diff: also delete packages, settings profiles and groups that the file does not have. Kinds that it does not mention stay; an empty table, such as [profile], says that there is none")
	fs.BoolVar(&f.members, "members", false, "export: also the hosts that groups were given one by one. Where a file has no list of them they stay as they are")
	fs.StringVar(&f.seen, "seen", "", "import: the `version` that diff printed; refused when it would change something else by now")
	fs.BoolVar(&f.exitCode, "exit-code", false, "diff: exit with 3 when the file would change something, for scripts")
	fs.BoolVar(&f.parts, "parts", false, "import: when one edit cannot hold it all, an edit for each package, profile and group")
}

func (t *target) ruleFile(ctx context.Context, s Streams, args []string, f ruleFile, dry bool) error {
	switch {
	case f.members && (f.wapt || args[0] != "export"):
		return usage("--members is for export of TOML")
	case f.exitCode && args[0] != "diff":
		return usage("--exit-code is for diff")
	case f.wapt && f.pkg == "":
		return usage("--wapt is about one package: name it with --package")
	case args[0] == "export" && len(args) == 1:
		return t.exportRules(ctx, s, f)
	case args[0] == "export" || len(args) != 2:
		return usage("it takes export, import FILE or diff FILE; - is the standard input")
	}
	text, err := readRules(s, args[1])
	if err != nil {
		return err
	}
	body := appliance.RuleFile{Text: text, Package: f.pkg, Prune: f.prune, Seen: f.seen, Parts: f.parts}
	if f.wapt {
		body.Format = appliance.WAPT
	}
	var d appliance.RuleDiff
	if args[0] == "diff" || dry {
		err = t.post(ctx, s, "rule-set/preview", body, &d)
	} else {
		err = t.send(ctx, s, http.MethodPut, "rule-set", body, &d)
	}
	if err != nil {
		return err
	}
	if t.json {
		err = printJSON(s.Out, d)
	} else if err = printDiff(s, d); err == nil && (args[0] == "diff" || dry) && !d.Empty() {
		_, err = fmt.Fprintf(s.Out, "wuamesh rules import %s --seen %s does just this.\n", strings.Join(append(args[1:], f.words()...), " "), d.Version)
	}
	if err == nil && f.exitCode && !d.Empty() {
		return errDiffers
	}
	return err
}

// words are the flags that an import needs as well to do what diff showed.
func (f ruleFile) words() (list []string) {
	if f.wapt {
		list = append(list, "--wapt", "--package", f.pkg)
	}
	if f.prune {
		list = append(list, "--prune")
	}
	return list
}

func (t *target) exportRules(ctx context.Context, s Streams, f ruleFile) error {
	q := url.Values{}
	if f.wapt {
		q.Set("format", string(appliance.WAPT))
		q.Set("package", f.pkg)
	}
	if f.members {
		q.Set("members", "true")
	}
	var text api.RuleText
	if err := t.get(ctx, s, "rule-set", q, &text); err != nil || t.json {
		return err
	}
	_, err := io.WriteString(s.Out, text.Text)
	return err
}

// maxRules is more than a node takes in.
const maxRules = 4 << 20

func readRules(s Streams, path string) (string, error) {
	r := s.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		r = f
	}
	if r == nil {
		return "", errors.New("there is no standard input to read rules from")
	}
	b, err := io.ReadAll(io.LimitReader(r, maxRules))
	if err != nil {
		return "", fmt.Errorf("read the rules: %w", err)
	}
	return string(b), nil
}

func printDiff(s Streams, d appliance.RuleDiff) error {
	for _, k := range []struct {
		noun string
		list []appliance.Difference
		kept []string
	}{{"package", d.Packages, d.Kept}, {"settings profile", d.Profiles, d.KeptProfiles}, {"group", d.Groups, d.KeptGroups}} {
		for _, p := range k.list {
			fmt.Fprintf(s.Out, "%s %s %s\n", p.Action, k.noun, p.Name)
			for _, a := range p.Added {
				fmt.Fprintf(s.Out, "  + %s\n", a)
			}
			for _, r := range p.Removed {
				fmt.Fprintf(s.Out, "  - %s\n", r)
			}
		}
		if len(k.kept) > 0 {
			fmt.Fprintf(s.Out, "Not in the file, and kept: %s %s. --prune deletes them.\n", k.noun, strings.Join(k.kept, ", "))
		}
	}
	if d.Order != nil {
		fmt.Fprintf(s.Out, "order of settings profiles\n  - %s\n  + %s\n", strings.Join(d.Order.Was, ", "), strings.Join(d.Order.Is, ", "))
	}
	for _, r := range d.Remarks {
		fmt.Fprintln(s.Out, r)
	}
	fmt.Fprintln(s.Out, d.Summary())
	return printImpact(s, d.Impact)
}
