package catalogue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"wuamesh/appliance/microsoft/cab/cabtest"
	"wuamesh/appliance/microsoft/catalogue"
	"wuamesh/appliance/microsoft/microsofttest/cabgen"
)

// fewer is a number for the race detector, under which making worlds takes
// fifteen times as long: enough for several inner cabinets read at once. The
// check runs the whole numbers without it.
func fewer(n int) int {
	if raceEnabled {
		return n / 6
	}
	return n
}

func cabOf(t testing.TB, w *cabgen.World) []byte {
	t.Helper()
	b, err := w.Cab()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// importCab imports a cab, over an older catalogue or none, and opens the new.
func importCab(t testing.TB, b []byte, o catalogue.ImportOptions) (*catalogue.Catalogue, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "catalogue")
	if _, err := catalogue.Import(t.Context(), path, catalogue.Source{Cab: bytes.NewReader(b), Size: int64(len(b)), SHA256: "of the cab"}, o); err != nil {
		return nil, err
	}
	c, err := catalogue.Open(path)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func mustImport(t testing.TB, b []byte, o catalogue.ImportOptions) *catalogue.Catalogue {
	t.Helper()
	c, err := importCab(t, b, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// truthOf is the record of an update as the catalogue has it.
func truthOf(u *catalogue.Update) cabgen.Record {
	ints := func(list []uint32) (out []int) {
		for _, n := range list {
			out = append(out, int(n))
		}
		slices.Sort(out)
		return out
	}
	guids := func(list ...catalogue.GUID) (out []string) {
		for _, id := range list {
			if !id.IsZero() {
				out = append(out, id.String())
			}
		}
		return out
	}
	r := cabgen.Record{
		Rev: int(u.Revision), Number: int(u.Number), ID: u.ID.String(), Kind: string(u.Kind), CategoryType: u.CategoryType, Created: u.Created, Title: u.Title,
		Locales: u.Localized, KB: strings.Join(u.KBs, " "), Classification: strings.Join(guids(u.Classification), ""), Family: strings.Join(guids(u.Family), ""),
		Products: guids(u.Products...), Severity: u.Severity, Bulletin: u.Bulletin, CVEs: u.CVEs, SupersededBy: ints(u.SupersededBy), Gone: ints(u.Gone),
		Supersedes: guids(u.Supersedes...), BundledBy: ints(u.BundledBy), Children: ints(u.Children), Language: strings.Join(u.Languages, " "),
	}
	for _, f := range u.Files {
		r.Files = append(r.Files, cabgen.FileRecord{SHA1: f.SHA1[:], SHA256: f.SHA256, Name: f.Name, URL: f.URL, Size: f.Size, Patching: f.Patching, Modified: f.Modified})
	}
	return r
}

// sorted puts what has no order into one.
func sorted(r cabgen.Record) cabgen.Record {
	for _, list := range []*[]int{&r.SupersededBy, &r.Gone, &r.BundledBy, &r.Children} {
		*list = slices.Clone(*list)
		slices.Sort(*list)
	}
	r.Locales, r.Files = slices.Sorted(slices.Values(r.Locales)), slices.Clone(r.Files)
	slices.SortFunc(r.Files, func(x, y cabgen.FileRecord) int { return bytes.Compare(x.SHA1, y.SHA1) })
	return r
}

// isTrue compares the whole catalogue with the truth, to the last field.
func isTrue(t *testing.T, c *catalogue.Catalogue, w *cabgen.World) {
	t.Helper()
	truth := w.Truth()
	if n := c.Header().Counts; n.Revisions != len(truth) || n.Problems != 0 {
		t.Errorf("%d revisions of %d, %v", n.Revisions, len(truth), c.Header().Problems)
	}
	wrong := 0
	for _, want := range truth {
		u, err := c.Revision(uint32(want.Rev))
		if err != nil {
			t.Fatalf("revision %d: %v", want.Rev, err)
		}
		id, err := catalogue.ParseGUID(want.ID)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := c.Exactly(id, uint32(want.Number)); err != nil || same.Revision != u.Revision {
			t.Errorf("%s number %d is not revision %d: %v", want.ID, want.Number, want.Rev, err)
		}
		if d := cmp.Diff(sorted(want), sorted(truthOf(u))); d != "" {
			if wrong++; wrong < 4 {
				t.Errorf("revision %d (-truth +catalogue):\n%s", want.Rev, d)
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d revisions of %d are not as they should be", wrong, len(truth))
	}
}

// TestTruth imports worlds of several seeds, month after month, and compares
// every field of every revision with what was put in.
func TestTruth(t *testing.T) {
	for _, o := range []cabgen.Options{
		{Seed: 1, Updates: fewer(1200), PerCab: fewer(200), Inner: cabtest.LZX, Outer: cabtest.LZX},
		{Seed: 2, Updates: fewer(800), PerCab: fewer(150), Inner: cabtest.MSZIP, Outer: cabtest.MSZIP, Reshard: true},
		{Seed: 3, Updates: fewer(700), PerCab: fewer(100), Inner: cabtest.LZX, Reshard: true},
	} {
		t.Run(fmt.Sprintf("seed %d", o.Seed), func(t *testing.T) {
			t.Parallel()
			w := cabgen.New(o)
			var before *catalogue.Catalogue
			for month := range 3 {
				b := cabOf(t, w)
				whole := mustImport(t, b, catalogue.ImportOptions{})
				isTrue(t, whole, w)
				if before != nil {
					before = mustImport(t, b, catalogue.ImportOptions{Previous: before, Workers: 1})
					isTrue(t, before, w)
				} else {
					before = whole
				}
				if t.Failed() {
					t.Fatalf("in month %d", month)
				}
				w.Next()
			}
		})
	}
}

// TestIncrement counts what of next month's cab is unpacked at all.
func TestIncrement(t *testing.T) {
	w := cabgen.New(cabgen.Options{Seed: 4, Updates: 480, PerCab: 20, Monthly: 30})
	before := mustImport(t, cabOf(t, w), catalogue.ImportOptions{})
	w.Next()
	b := cabOf(t, w)
	spoiled := 0
	// Old inner cabinets are not looked into: their data may be anything.
	for i := 0; i+40 < len(b); i++ {
		if spoiled < 20 && bytes.HasPrefix(b[i:], []byte("MSCF")) && i > 0 && bytes.Contains(b[i:min(i+4096, len(b))], []byte(`c\`)) {
			copy(b[i:], "XXXX")
			spoiled++
		}
	}
	if spoiled < 20 {
		t.Fatalf("%d inner cabinets found", spoiled)
	}
	unsum(b)
	if _, err := importCab(t, b, catalogue.ImportOptions{}); err == nil {
		t.Error("a spoiled cabinet was imported")
	}
	isTrue(t, mustImport(t, b, catalogue.ImportOptions{Previous: before}), w)
}

// unsum takes the checksums out of a stored cabinet.
func unsum(b []byte) {
	at := int(uint32(b[36]) | uint32(b[37])<<8 | uint32(b[38])<<16 | uint32(b[39])<<24)
	for at+8 <= len(b) {
		clear(b[at : at+4])
		at += 8 + int(b[at+4]) + int(b[at+5])<<8
	}
}

// TestKilled ends imports at many places: the old catalogue stays, and what is
// left behind does no harm.
func TestKilled(t *testing.T) {
	w := cabgen.New(cabgen.Options{Seed: 5, Updates: 600, PerCab: 100})
	path := filepath.Join(t.TempDir(), "catalogue")
	b := cabOf(t, w)
	src := catalogue.Source{Cab: bytes.NewReader(b), Size: int64(len(b)), SHA256: "first"}
	if _, err := catalogue.Import(t.Context(), path, src, catalogue.ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	for at := int64(0); at < int64(len(b)); at += int64(len(b) / 17) {
		ctx, cancel := context.WithCancel(t.Context())
		r := &killer{Reader: bytes.NewReader(b), at: at, kill: cancel}
		if _, err := catalogue.Import(ctx, path, catalogue.Source{Cab: r, Size: int64(len(b)), SHA256: "second"}, catalogue.ImportOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("ended at %d: %v", at, err)
		}
		cancel()
		if err := os.WriteFile(path+".new", b[:at], 0o600); err != nil { // what a kill -9 leaves
			t.Fatal(err)
		}
		c, err := catalogue.Open(path)
		if err != nil || c.Header().Source != "first" {
			t.Fatalf("ended at %d: %v", at, err)
		}
		c.Close()
	}
	if err := catalogue.RemoveLeftovers(path); err != nil {
		t.Error(err)
	}
	if list, err := os.ReadDir(filepath.Dir(path)); err != nil || len(list) != 1 {
		t.Errorf("left behind: %v, %v", list, err)
	}
}

type killer struct {
	*bytes.Reader
	at   int64
	kill func()
}

func (k *killer) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > k.at {
		k.kill()
	}
	return k.Reader.ReadAt(p, off)
}

// TestDamaged changes bytes of the file: it does not open, or nothing of it
// that could be another answer is believed.
func TestDamaged(t *testing.T) {
	w := cabgen.New(cabgen.Options{Seed: 6, Updates: 300, PerCab: 100})
	path := filepath.Join(t.TempDir(), "catalogue")
	b := cabOf(t, w)
	if _, err := catalogue.Import(t.Context(), path, catalogue.Source{Cab: bytes.NewReader(b), Size: int64(len(b))}, catalogue.ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{0, 100, 4095, 4096, len(good) - 1} {
		if err := os.WriteFile(path, good[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := catalogue.Open(path); err == nil {
			c.Close()
			t.Errorf("%d of %d bytes open", cut, len(good))
		}
	}
	for i := 4096; i < len(good); i += len(good) / 200 {
		x := bytes.Clone(good)
		x[i] ^= 4
		if err := os.WriteFile(path, x, 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := catalogue.Open(path); err == nil {
			c.Close()
			t.Errorf("byte %d changed, it opens", i)
		}
	}
}

func TestSearch(t *testing.T) {
	w := cabgen.New(cabgen.Options{Seed: 7, Updates: 1500, PerCab: 1000})
	c := mustImport(t, cabOf(t, w), catalogue.ImportOptions{})
	truth := w.Truth()
	titles := map[string]string{}
	for _, r := range truth {
		titles[r.ID] = r.Title
	}
	bundles := slices.DeleteFunc(slices.Clone(truth), func(r cabgen.Record) bool { return r.Kind != "bundle" })
	has := func(r cabgen.Record, text string) bool {
		for word := range strings.FieldsSeq(strings.ToLower(text)) {
			all := r.Title
			for _, p := range r.Products {
				all += " " + titles[p]
			}
			number := word[0] >= '0' && word[0] <= '9'
			key := func(k string) bool {
				return len(word) >= 4 && strings.HasPrefix(strings.ToLower(k), word)
			}
			kb := len(word) >= 4 && (strings.HasPrefix("kb"+r.KB, word) || number && strings.HasPrefix(r.KB, word))
			cve := slices.ContainsFunc(r.CVEs, func(v string) bool { return key(v) || len(word) >= 4 && strings.HasPrefix(v, "CVE-"+word) })
			id := len(word) >= 4 && strings.HasPrefix(r.ID, word)
			if !strings.Contains(strings.ToLower(all), word) && !kb && !cve && !id && !(r.Bulletin != "" && key(r.Bulletin)) {
				return false
			}
		}
		return true
	}
	some := bundles[len(bundles)-1]
	var withBulletin cabgen.Record
	for _, r := range bundles {
		if r.Bulletin != "" {
			withBulletin = r
		}
	}
	for _, text := range []string{
		"", "cumulative", "windows 11", "CUMULATIVE arm64", "office 2016", "kb" + some.KB, some.KB, some.KB[:4], some.ID, some.ID[:13], some.ID[:8], "2026-06 x64",
		withBulletin.Bulletin, withBulletin.CVEs[0], "cve-2026", "nothing of this kind", "silverlight®", "&", "ms1",
	} {
		want := map[string]bool{}
		severities, classes, products := map[string]int{}, map[string]int{}, map[string]int{}
		for _, r := range bundles {
			if !has(r, text) {
				continue
			}
			want[r.ID] = true
			severities[orUnspecified(r.Severity)]++
			classes[r.Classification]++
			for _, p := range r.Products {
				products[p]++
			}
		}
		res, err := c.Search(catalogue.Query{Text: text, Limit: 10_000})
		if err != nil {
			t.Fatal(err)
		}
		if res.Matching != len(want) || len(res.Rows) != len(want) {
			t.Errorf("%q: %d found, %d rows, want %d", text, res.Matching, len(res.Rows), len(want))
		}
		for _, r := range res.Rows {
			if !want[r.ID.String()] {
				t.Errorf("%q finds %s %q", text, r.ID, titles[r.ID.String()])
			}
		}
		if d := cmp.Diff(severities, res.Severity); d != "" {
			t.Errorf("%q: severities: %s", text, d)
		}
		if d := cmp.Diff(classes, keyed(res.Classification)); d != "" {
			t.Errorf("%q: classifications: %s", text, d)
		}
		if d := cmp.Diff(products, keyed(res.Product)); d != "" {
			t.Errorf("%q: products: %s", text, d)
		}
	}
}

func orUnspecified(s string) string {
	if s == "" {
		return "Unspecified"
	}
	return s
}

func keyed(m map[catalogue.GUID]int) map[string]int {
	out := map[string]int{}
	for id, n := range m {
		out[id.String()] = n
	}
	return out
}

// TestFilters narrows, and each facet counts as if its own choice were not
// made.
func TestFilters(t *testing.T) {
	w := cabgen.New(cabgen.Options{Seed: 8, Updates: fewer(1500), PerCab: 1000})
	c := mustImport(t, cabOf(t, w), catalogue.ImportOptions{})
	all, err := c.Search(catalogue.Query{Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	months, restarts := all.Month, []string{"CanRequestReboot", "AlwaysRequiresReboot"}
	at := slices.IndexFunc(all.Rows, func(r catalogue.Row) bool { // that all filters let through
		return (r.Severity == "Critical" || r.Severity == "Important") && !r.Superseded && slices.Contains(restarts, r.Restart) && len(r.Products) > 0
	})
	if at < 0 {
		t.Fatal("no update of the world is let through")
	}
	product, busy := all.Rows[at].Products[0], []catalogue.Month{catalogue.MonthOf(all.Rows[at].Published)}
	for i, m := range slices.Sorted(maps.Keys(months)) {
		if i%2 == 0 && m != busy[0] {
			busy = append(busy, m)
		}
	}
	q := catalogue.Query{Severity: []string{"Critical", "Important"}, Product: []catalogue.GUID{product}, Superseded: []bool{false}, Month: busy, Restart: restarts, Limit: 10_000}
	res, err := c.Search(q)
	if err != nil {
		t.Fatal(err)
	}
	match := func(r catalogue.Row, but string) bool {
		return (but == "severity" || r.Severity == "Critical" || r.Severity == "Important") && (but == "product" || slices.Contains(r.Products, product)) && (but == "superseded" || !r.Superseded) &&
			(but == "month" || slices.Contains(busy, catalogue.MonthOf(r.Published))) && (but == "restart" || slices.Contains(restarts, r.Restart))
	}
	n, severities, products, old, month, restart := 0, map[string]int{}, map[catalogue.GUID]int{}, map[bool]int{}, map[catalogue.Month]int{}, map[string]int{}
	for _, r := range all.Rows {
		if match(r, "") {
			n++
		}
		if match(r, "severity") {
			severities[r.Severity]++
		}
		if match(r, "product") {
			for _, p := range r.Products {
				products[p]++
			}
		}
		if match(r, "superseded") {
			old[r.Superseded]++
		}
		if match(r, "month") {
			month[catalogue.MonthOf(r.Published)]++
		}
		if match(r, "restart") {
			restart[r.Restart]++
		}
	}
	if !cmp.Equal(month, res.Month) || !cmp.Equal(restart, res.Restart) || len(month) < 2 || len(all.Restart) < 2 {
		t.Errorf("months %v, want %v; restarts %v, want %v", res.Month, month, res.Restart, restart)
	}
	if n == 0 || res.Matching != n || !cmp.Equal(severities, res.Severity) || !cmp.Equal(products, res.Product) || !cmp.Equal(old, res.Superseded) {
		t.Errorf("%d of %d match; %v, want %v; superseded %v, want %v", res.Matching, n, res.Severity, severities, res.Superseded, old)
	}
	for _, key := range []string{"kb" + kbOf(t, c, all.Rows[0]), "kb" + kbOf(t, c, all.Rows[0])[:3]} {
		found, err := c.Search(catalogue.Query{Keys: []string{strings.ToUpper(key)}, Limit: 10_000})
		want := 0
		for _, r := range all.Rows {
			want += btoi("kb"+kbOf(t, c, r) == key)
		}
		if err != nil || found.Matching != want {
			t.Errorf("%s finds %d, want %d: %v", key, found.Matching, want, err)
		}
	}
	without, err := c.Search(catalogue.Query{Without: []catalogue.GUID{all.Rows[0].ID, {1, 2, 3}}, Limit: 10_000})
	if err != nil || without.Matching != all.Matching-1 {
		t.Errorf("without one: %d of %d, %v", without.Matching, all.Matching, err)
	}
}

func kbOf(t *testing.T, c *catalogue.Catalogue, r catalogue.Row) string {
	u, err := c.Revision(r.Revision)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(u.KBs, " ")
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestPages turns pages in every order; together they are the whole, in that
// order, each once.
func TestPages(t *testing.T) {
	w := cabgen.New(cabgen.Options{Seed: 9, Updates: fewer(2000), PerCab: 1000})
	c := mustImport(t, cabOf(t, w), catalogue.ImportOptions{})
	title := func(r catalogue.Row) string {
		u, err := c.Revision(r.Revision)
		if err != nil {
			t.Fatal(err)
		}
		return u.Title
	}
	for _, sort := range []catalogue.Sort{catalogue.BySeverity, catalogue.ByTitle, catalogue.ByPublished, catalogue.ByNothing} {
		for _, down := range []bool{false, true} {
			q := catalogue.Query{Text: "update", Sort: sort, Down: down, Limit: 10_000}
			whole, err := c.Search(q)
			if err != nil {
				t.Fatal(err)
			}
			var got []catalogue.Row
			q.Limit = 37
			for {
				page, err := c.Search(q)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, page.Rows...)
				if len(page.Rows) < q.Limit || len(got) > len(whole.Rows) {
					break
				}
				last := page.Rows[len(page.Rows)-1]
				q.After = &catalogue.Key{Severity: last.Severity, Published: last.Published, Title: title(last), ID: last.ID}
			}
			if !cmp.Equal(got, whole.Rows) {
				t.Errorf("sort %d, down %v: %d rows on pages, %d in all", sort, down, len(got), len(whole.Rows))
			}
			for i := 1; i < len(whole.Rows); i++ {
				x, y := whole.Rows[i-1], whole.Rows[i]
				if down {
					x, y = y, x
				}
				if sort == catalogue.ByTitle && title(x) > title(y) || sort == catalogue.ByPublished && x.Published > y.Published {
					t.Fatalf("sort %d, down %v: row %d is out of order", sort, down, i)
				}
			}
		}
	}
	// What the catalogue does not have takes its place between what it has.
	q := catalogue.Query{Sort: catalogue.ByTitle, Limit: 10_000, After: &catalogue.Key{Title: "Security Update for T"}}
	res, err := c.Search(q)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range res.Rows {
		if title(r) < "Security Update for T" {
			t.Fatalf("%q comes after T", title(r))
		}
	}
}

// TestFiles answers which files an update needs, and who has a file.
func TestFiles(t *testing.T) {
	w := cabgen.New(cabgen.Options{Seed: 10, Updates: fewer(1500), PerCab: 500})
	c := mustImport(t, cabOf(t, w), catalogue.ImportOptions{})
	byRev := map[int]cabgen.Record{}
	for _, r := range w.Truth() {
		byRev[r.Rev] = r
	}
	for _, r := range byRev {
		if r.Kind != "bundle" {
			continue
		}
		want := map[string]bool{}
		for _, child := range r.Children {
			for _, f := range byRev[child].Files {
				want[string(f.SHA1)] = true
			}
		}
		u, err := c.Revision(uint32(r.Rev))
		if err != nil {
			t.Fatal(err)
		}
		files, err := c.Files(u)
		if err != nil || len(files) != len(want) {
			t.Fatalf("%d files of %d: %v", len(files), len(want), err)
		}
		for _, f := range files {
			_, owners, err := c.File(f.SHA1)
			if err != nil || !want[string(f.SHA1[:])] || f.URL == "" || f.SHA256 == nil || !slices.Contains(owners, u.ID) {
				t.Errorf("file %s of %s: owners %v, %v", f.Name, u.ID, owners, err)
			}
		}
	}
	if _, _, err := c.File([20]byte{1}); !errors.Is(err, catalogue.ErrNotFound) {
		t.Error(err)
	}
	if _, err := c.Update(catalogue.GUID{1}); !errors.Is(err, catalogue.ErrNotFound) {
		t.Error(err)
	}
	if _, err := c.Revision(1 << 31); !errors.Is(err, catalogue.ErrNotFound) {
		t.Error(err)
	}
}
