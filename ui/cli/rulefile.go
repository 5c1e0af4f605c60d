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

// fileVerbs are what follows "rules" when it is about all packages at once.
var fileVerbs = map[string]bool{"export": true, "import": true, "diff": true}

// A ruleFile is how the rule set comes out or in.
type ruleFile struct {
	wapt, prune bool
	pkg         string
}

func (f *ruleFile) flags(fs *flag.FlagSet) {
	fs.BoolVar(&f.wapt, "wapt", false, "export, import, diff: the file is WAPT's waptwua_rules.json, of one package")
	fs.StringVar(&f.pkg, "package", "", "with --wapt: which `package`")
	fs.BoolVar(&f.prune, "prune", false, "import, diff: also delete packages that the file does not have")
}

func (t *target) ruleFile(ctx context.Context, s Streams, args []string, f ruleFile, dry bool) error {
	switch {
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
	body := appliance.RuleFile{Text: text, Package: f.pkg, Prune: f.prune}
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
		return printJSON(s.Out, d)
	}
	return printDiff(s, d)
}

func (t *target) exportRules(ctx context.Context, s Streams, f ruleFile) error {
	q := url.Values{}
	if f.wapt {
		q.Set("format", string(appliance.WAPT))
		q.Set("package", f.pkg)
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
	for _, p := range d.Packages {
		fmt.Fprintf(s.Out, "%s %s\n", p.Action, p.Name)
		for _, a := range p.Added {
			fmt.Fprintf(s.Out, "  + %s\n", a)
		}
		for _, r := range p.Removed {
			fmt.Fprintf(s.Out, "  - %s\n", r)
		}
	}
	if len(d.Packages) == 0 {
		fmt.Fprintln(s.Out, "The file says what the rules are.")
	}
	if len(d.Kept) > 0 {
		fmt.Fprintf(s.Out, "Not in the file, and kept: %s. --prune deletes them.\n", strings.Join(d.Kept, ", "))
	}
	for _, r := range d.Remarks {
		fmt.Fprintln(s.Out, r)
	}
	return printImpact(s, d.Impact)
}
