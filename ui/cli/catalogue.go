package cli

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance/microsoft/authenticode"
	"wuamesh/appliance/microsoft/catalogue"
)

var catalogueCommand = Command{
	Name: "catalogue", Args: "show|search|verify FILE [UPDATE|TEXT]", Summary: "Look into a scan cab, or at who signed a cabinet, without a node",
	Example: "wuamesh catalogue verify wsusscn2.cab\nwuamesh catalogue show wsusscn2.cab                          what is in it\nwuamesh catalogue show wsusscn2.cab KB5091157                 those updates, their files and digests\nwuamesh catalogue search wsusscn2.cab --severity Critical --product 'windows 11' cumulative\nwuamesh catalogue show --keep june.catalogue wsusscn2.cab     read it once, ask june.catalogue from then on",
	Flags: func(fs *flag.FlagSet) Runner {
		var q catalogueQuery
		fs.StringVar(&q.keep, "keep", "", "keep what was read in this `file`: it answers at once where FILE is asked for")
		fs.StringVar(&q.root, "root", "", "`file` of certificates that may have signed it, besides Microsoft's own")
		fs.BoolVar(&q.json, "json", false, "print JSON")
		fs.StringVar(&q.severity, "severity", "", "search: only these `severities`, with commas")
		fs.StringVar(&q.product, "product", "", "search: only products with these `words` in their name, or a GUID")
		fs.StringVar(&q.classification, "classification", "", "search: only classifications with these `words` in their name, or a GUID")
		fs.BoolVar(&q.superseded, "superseded", false, "search: also what a newer update replaces")
		fs.IntVar(&q.limit, "limit", 50, "search: print at most so many; 0 is all")
		return func(ctx context.Context, s Streams, args []string) error {
			if len(args) < 2 {
				return usage("it takes show, search or verify, and a FILE")
			}
			q.file = args[1]
			switch verb, rest := args[0], args[2:]; {
			case verb == "verify" && len(rest) == 0:
				return q.verify(s)
			case verb == "show" && len(rest) == 0:
				return q.show(ctx, s)
			case verb == "show" && len(rest) == 1:
				return q.showUpdates(ctx, s, rest[0])
			case verb == "search":
				return q.search(ctx, s, strings.Join(rest, " "))
			}
			return usage("it takes show FILE [UPDATE], search FILE [TEXT] or verify FILE")
		}
	},
}

// A catalogueQuery is one question about a file.
type catalogueQuery struct {
	file, keep, root                  string
	json                              bool
	severity, product, classification string
	superseded                        bool
	limit                             int
}

// A signatureReport is what is known of who signed a file.
type signatureReport struct {
	File      string        `json:"file"`
	Size      int64         `json:"size"`
	Holds     bool          `json:"holds"`
	Problem   string        `json:"problem,omitempty"`
	Chain     []certificate `json:"chain,omitempty"`     // the signer first
	Timestamp time.Time     `json:"timestamp,omitzero"`  // when it was signed, by a time stamp that is believed
	Hash      string        `json:"hash,omitempty"`      //
	Imprint   string        `json:"imprint,omitempty"`   // hexadecimal: digest of what is signed
	Microsoft bool          `json:"microsoft,omitempty"` // the root is one of Microsoft's own
}

type certificate struct {
	Subject   string    `json:"subject"`
	SHA256    string    `json:"sha256"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// signature says who signed a cabinet.
func (q *catalogueQuery) signature() (r signatureReport, err error) {
	trust := authenticode.Trust{Microsoft: authenticode.MicrosoftRoots(), Now: time.Now()}
	if q.root != "" {
		b, err := os.ReadFile(q.root)
		if err == nil {
			trust.Others, err = authenticode.ParseRoots(b)
		}
		if err != nil {
			return r, fmt.Errorf("read the root %s: %w", q.root, err)
		}
	}
	f, err := os.Open(q.file)
	if err != nil {
		return r, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return r, err
	}
	r.File, r.Size = q.file, info.Size()
	sig, err := authenticode.VerifyCab(f, info.Size(), trust)
	switch {
	case authenticode.IsVerdict(err):
		r.Problem = err.Error()
		return r, nil
	case err != nil:
		return r, err
	}
	r.Holds, r.Timestamp, r.Hash, r.Imprint = true, sig.Timestamp, sig.Hash.String(), hex.EncodeToString(sig.Imprint)
	for _, c := range sig.Chain {
		r.Chain = append(r.Chain, certificate{c.Subject.String(), fmt.Sprintf("%x", authenticode.Fingerprint(c)), c.NotBefore, c.NotAfter})
	}
	r.Microsoft = slices.ContainsFunc(trust.Microsoft, sig.Chain[len(sig.Chain)-1].Equal)
	return r, nil
}

func (q *catalogueQuery) verify(s Streams) error {
	r, err := q.signature()
	if err != nil {
		return err
	}
	if q.json {
		if err := printJSON(s.Out, r); err != nil {
			return err
		}
	} else {
		r.print(s.Out)
	}
	if !r.Holds {
		return fmt.Errorf("%s is not to be trusted: %s", q.file, r.Problem)
	}
	return nil
}

func (r signatureReport) print(w io.Writer) {
	if !r.Holds {
		return // the error says it
	}
	whose := "one of --root, not Microsoft's"
	if r.Microsoft {
		whose = "Microsoft's"
	}
	fmt.Fprintf(w, "%s, %s: the signature holds; the root is %s\n", r.File, size(r.Size), whose)
	for i, c := range r.Chain {
		label := "issued by"
		if i == 0 {
			label = "signed by"
		}
		fmt.Fprintf(w, "%s  %s\n           valid %s to %s, SHA-256 %s\n", label, oneLine(c.Subject), c.NotBefore.Format(time.DateOnly), c.NotAfter.Format(time.DateOnly), c.SHA256)
	}
	fmt.Fprintf(w, "signed on  %s\nimprint    %s %s\n", when(r.Timestamp, "no day that a time stamp vouches for"), r.Hash, r.Imprint)
}

// open reads the scan cab, or opens what was kept of one.
func (q *catalogueQuery) open(ctx context.Context, s Streams) (c *catalogue.Catalogue, done func(), err error) {
	if c, err := catalogue.Open(q.file); err == nil {
		return c, func() { c.Close() }, nil
	}
	if r, err := q.signature(); err != nil {
		return nil, nil, err
	} else if !r.Holds {
		fmt.Fprintf(s.Err, "! %s is not to be trusted: %s\n", q.file, r.Problem)
	}
	f, err := os.Open(q.file)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	path, remove := q.keep, func() {}
	if path == "" {
		dir, err := os.MkdirTemp("", "wuamesh-catalogue-")
		if err != nil {
			return nil, nil, err
		}
		path, remove = filepath.Join(dir, "catalogue"), func() { os.RemoveAll(dir) }
	}
	p := newProgress(s.Err)
	defer p.end()
	_, err = catalogue.Import(ctx, path, catalogue.Source{Cab: f, Size: info.Size()}, catalogue.ImportOptions{Progress: func(n int64) {
		p.update("reading %s: %d %%", q.file, 100*n/max(info.Size(), 1))
	}})
	if err == nil {
		c, err = catalogue.Open(path)
	}
	if err != nil {
		remove()
		return nil, nil, fmt.Errorf("%s: %w", q.file, err)
	}
	return c, func() { c.Close(); remove() }, nil
}

func (q *catalogueQuery) show(ctx context.Context, s Streams) error {
	c, done, err := q.open(ctx, s)
	if err != nil {
		return err
	}
	defer done()
	res, err := c.Search(catalogue.Query{})
	if err != nil {
		return err
	}
	h := c.Header()
	named := func(m map[catalogue.GUID]int) (list []facet) {
		for id, n := range m {
			list = append(list, facet{id.String(), c.Title(id), n})
		}
		return byCount(list)
	}
	var severity []facet
	for name, n := range res.Severity {
		severity = append(severity, facet{"", name, n})
	}
	v := struct {
		Published      time.Time        `json:"published"`
		PackageID      string           `json:"package_id"`
		Counts         catalogue.Counts `json:"counts"`
		Problems       []string         `json:"problems,omitempty"`
		Severity       []facet          `json:"severity"`
		Classification []facet          `json:"classification"`
		Product        []facet          `json:"product"`
	}{h.Created, h.PackageID, h.Counts, h.Problems, byCount(severity), named(res.Classification), named(res.Product)}
	if q.json {
		return printJSON(s.Out, v)
	}
	fmt.Fprintf(s.Out, "published   %s, package %s\n", when(h.Created, "nobody knows when"), oneLine(h.PackageID))
	fmt.Fprintf(s.Out, "updates     %s that hosts can report, %d of them replaced by newer ones\n", count(h.Counts.Updates, "update"), h.Counts.Superseded)
	fmt.Fprintf(s.Out, "in all      %s, %s\n", count(h.Counts.Revisions, "revision"), count(h.Counts.Files, "file"))
	for _, p := range h.Problems {
		fmt.Fprintf(s.Out, "! %s\n", oneLine(p))
	}
	for _, l := range []struct {
		name string
		list []facet
	}{{"severity", v.Severity}, {"class", v.Classification}, {"products", v.Product}} {
		const shown = 20
		for i, f := range l.list[:min(len(l.list), shown)] {
			if i > 0 {
				l.name = ""
			}
			fmt.Fprintf(s.Out, "%-11s %7d  %s\n", l.name, f.Count, oneLine(cmp.Or(f.Title, f.ID)))
		}
		if n := len(l.list) - shown; n > 0 {
			fmt.Fprintf(s.Out, "%20s and %d more; --json has all\n", "", n)
		}
	}
	return nil
}

type facet struct {
	ID    string `json:"id,omitempty"`
	Title string `json:"title"`
	Count int    `json:"count"`
}

func byCount(list []facet) []facet {
	slices.SortFunc(list, func(x, y facet) int { return cmp.Or(y.Count-x.Count, strings.Compare(x.Title+x.ID, y.Title+y.ID)) })
	return list
}

// A catalogueUpdate is an update with everything it points at resolved.
type catalogueUpdate struct {
	*catalogue.Update
	Class    string          `json:"classification_title,omitempty"`
	Products []string        `json:"product_titles,omitempty"`
	Files    []catalogueFile `json:"files"`
	Newer    []updateName    `json:"replaced_by,omitempty"`
	Older    []updateName    `json:"replaces,omitempty"`
}

type catalogueFile struct {
	Name      string   `json:"name"`
	URL       string   `json:"url,omitempty"`
	Size      int64    `json:"size"`
	SHA1      string   `json:"sha1"`
	SHA256    string   `json:"sha256,omitempty"`
	Patching  string   `json:"patching,omitempty"`
	Languages []string `json:"languages,omitempty"`
}

type updateName struct {
	ID    string `json:"id"`
	KB    string `json:"kb,omitempty"`
	Title string `json:"title,omitempty"` // empty when the catalogue does not have it any more
}

func (q *catalogueQuery) showUpdates(ctx context.Context, s Streams, which string) error {
	c, done, err := q.open(ctx, s)
	if err != nil {
		return err
	}
	defer done()
	found, err := named(c, which)
	if err != nil {
		return err
	}
	list := []catalogueUpdate{}
	for _, u := range found {
		v, err := resolve(c, u)
		if err != nil {
			return err
		}
		list = append(list, v)
	}
	if q.json {
		return printJSON(s.Out, list)
	}
	for _, v := range list {
		v.print(s.Out)
	}
	return nil
}

// named are the updates of an UpdateID or a KB.
func named(c *catalogue.Catalogue, which string) ([]*catalogue.Update, error) {
	if id, err := catalogue.ParseGUID(which); err == nil {
		u, err := c.Update(id)
		if errors.Is(err, catalogue.ErrNotFound) {
			return nil, fmt.Errorf("there is no update %s in it", which)
		}
		return []*catalogue.Update{u}, err
	}
	kb := strings.TrimPrefix(strings.ToLower(which), "kb")
	res, err := c.Search(catalogue.Query{Keys: []string{"kb" + kb}, Sort: catalogue.ByTitle, Limit: 1000})
	if err != nil {
		return nil, err
	}
	var list []*catalogue.Update
	for _, r := range res.Rows {
		u, err := c.Revision(r.Revision)
		if err != nil {
			return nil, err
		}
		list = append(list, u)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("there is no update %s in it; name a KB or an UpdateID, or use search", which)
	}
	return list, nil
}

func resolve(c *catalogue.Catalogue, u *catalogue.Update) (catalogueUpdate, error) {
	v := catalogueUpdate{Update: u, Class: c.Title(u.Classification), Files: []catalogueFile{}}
	for _, p := range u.Products {
		v.Products = append(v.Products, cmp.Or(c.Title(p), p.String()))
	}
	files, err := c.Files(u)
	if err != nil {
		return v, err
	}
	for _, f := range files {
		v.Files = append(v.Files, catalogueFile{f.Name, f.URL, f.Size, hex.EncodeToString(f.SHA1[:]), hex.EncodeToString(f.SHA256), f.Patching, f.Languages})
	}
	for _, rev := range u.SupersededBy {
		n, err := c.Revision(rev)
		if err != nil {
			return v, err
		}
		v.Newer = append(v.Newer, updateName{n.ID.String(), strings.Join(n.KBs, " "), n.Title})
	}
	for _, id := range u.Supersedes {
		name := updateName{ID: id.String()}
		if o, err := c.Update(id); err == nil {
			name.KB, name.Title = strings.Join(o.KBs, " "), o.Title
		} else if !errors.Is(err, catalogue.ErrNotFound) {
			return v, err
		}
		v.Older = append(v.Older, name)
	}
	return v, nil
}

func (v catalogueUpdate) print(w io.Writer) {
	line := func(label, text string) {
		if text != "" {
			fmt.Fprintf(w, "  %-12s %s\n", label, oneLine(text))
		}
	}
	fmt.Fprintf(w, "%s\n", oneLine(cmp.Or(v.Title, v.ID.String())))
	line("UpdateID", fmt.Sprintf("%s, revision %d (%s)", v.ID, v.Number, v.Kind))
	line("KB", strings.Join(v.KBs, " "))
	line("severity", cmp.Or(v.Severity, string(rules.Unspecified)))
	line("class", v.Class)
	line("products", strings.Join(v.Products, ", "))
	line("published", when(v.Created, ""))
	line("bulletin", v.Bulletin)
	line("CVEs", strings.Join(v.CVEs, " "))
	line("restart", v.Restart)
	line("support", v.SupportURL)
	for _, f := range v.Files {
		text := fmt.Sprintf("%s, %s", f.Name, size(f.Size))
		for _, more := range []string{f.Patching, strings.Join(f.Languages, " ")} {
			if more != "" {
				text += ", " + more
			}
		}
		line("file", text)
		line("", f.URL)
		line("", "SHA-1 "+f.SHA1)
		if f.SHA256 != "" {
			line("", "SHA-256 "+f.SHA256)
		}
	}
	for _, n := range v.Newer {
		line("replaced by", n.text())
	}
	for _, n := range v.Older {
		line("replaces", n.text())
	}
	fmt.Fprintln(w)
}

func (n updateName) text() string {
	if n.Title == "" {
		return n.ID + ", not in the catalogue any more"
	}
	return n.ID + " " + n.Title
}

func (q *catalogueQuery) search(ctx context.Context, s Streams, text string) error {
	c, done, err := q.open(ctx, s)
	if err != nil {
		return err
	}
	defer done()
	query := catalogue.Query{Text: text, Limit: q.limit}
	if q.limit <= 0 {
		query.Limit = c.Header().Counts.Updates
	}
	for _, name := range split(q.severity) {
		sev, err := rules.ParseSeverity(name)
		if err != nil {
			return usage("%v", err)
		}
		query.Severity = append(query.Severity, string(sev))
	}
	if !q.superseded {
		query.Superseded = []bool{false}
	}
	all, err := c.Search(catalogue.Query{})
	if err != nil {
		return err
	}
	if query.Product, err = categories(c, all.Product, "product", q.product); err != nil {
		return err
	}
	if query.Classification, err = categories(c, all.Classification, "classification", q.classification); err != nil {
		return err
	}
	res, err := c.Search(query)
	if err != nil {
		return err
	}
	list := []*catalogue.Update{}
	for _, r := range res.Rows {
		u, err := c.Revision(r.Revision)
		if err != nil {
			return err
		}
		list = append(list, u)
	}
	if q.json {
		return printJSON(s.Out, struct {
			Matching int                 `json:"matching"`
			Updates  []*catalogue.Update `json:"updates"`
		}{res.Matching, list})
	}
	g := newGrid(s.Out, "KB", "SEVERITY", "PUBLISHED", "UPDATEID", "TITLE")
	for _, u := range list {
		g.row(kb(strings.Join(u.KBs, " ")), cmp.Or(u.Severity, string(rules.Unspecified)), u.Created.Format(time.DateOnly), u.ID.String(), u.Title)
	}
	if err := g.flush(); err != nil {
		return err
	}
	fmt.Fprintf(s.Err, "%d of %s.\n", len(list), count(res.Matching, "matching update"))
	return nil
}

// categories are those of a facet whose titles have every word, or the one of
// that GUID.
func categories(c *catalogue.Catalogue, facet map[catalogue.GUID]int, what, words string) (list []catalogue.GUID, err error) {
	if words == "" {
		return nil, nil
	}
	if id, err := catalogue.ParseGUID(words); err == nil {
		return []catalogue.GUID{id}, nil
	}
	for _, id := range slices.SortedFunc(maps.Keys(facet), func(x, y catalogue.GUID) int { return strings.Compare(x.String(), y.String()) }) {
		title, has := strings.ToLower(c.Title(id)), true
		for w := range strings.FieldsSeq(strings.ToLower(words)) {
			has = has && strings.Contains(title, w)
		}
		if has {
			list = append(list, id)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no %s is called %q; wuamesh catalogue show lists them", what, words)
	}
	return list, nil
}
