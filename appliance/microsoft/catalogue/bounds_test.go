package catalogue_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"wuamesh/appliance/microsoft/cab"
	"wuamesh/appliance/microsoft/cab/cabtest"
	"wuamesh/appliance/microsoft/catalogue"
	"wuamesh/appliance/microsoft/microsofttest/cabgen"
)

// An endless reader gives its head, then its body again and again, n bytes in
// all.
type endless struct {
	head, body string
	n          int64
	at         int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.n <= 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), e.n)]
	for n := 0; n < len(p); {
		if e.head != "" {
			k := copy(p[n:], e.head)
			e.head, n = e.head[k:], n+k
			continue
		}
		k := copy(p[n:], e.body[e.at:])
		e.at, n = (e.at+k)%len(e.body), n+k
	}
	e.n -= int64(len(p))
	return len(p), nil
}

const (
	guid = "631fdcea-1c5c-4a6a-9b0e-1d7f8a0c2b11"
	root = `<?xml version="1.0"?><OfflineSyncPackage><Updates>`
)

// allocated is how many bytes f took, in MB.
func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc-before.TotalAlloc) >> 20
}

// TestBounds gives the parsers what no scan cab has: each is refused before it
// takes memory.
func TestBounds(t *testing.T) {
	update := `<Update UpdateId="` + guid + `" RevisionId="1" RevisionNumber="1">`
	const gigabyte = 1 << 30
	for name, tt := range map[string]struct {
		r    *endless
		want error
	}{
		"10 million empty updates":         {&endless{head: root, body: update + "</Update>", n: 10_000_000 * int64(len(update)+9)}, catalogue.ErrTooMuch},
		"an attribute of 2 GB":             {&endless{head: root + `<Update UpdateId="`, body: "a", n: 2 * gigabyte}, catalogue.ErrXML},
		"a name of 2 GB":                   {&endless{head: root, body: "<a", n: 2 * gigabyte}, catalogue.ErrXML},
		"a text of 2 GB":                   {&endless{head: root, body: "a", n: 2 * gigabyte}, catalogue.ErrXML},
		"an update of many attributes":     {&endless{head: root + "<Update ", body: `a="" `, n: gigabyte}, catalogue.ErrXML},
		"an update with endless bundles":   {&endless{head: root + update + "<BundledBy>", body: `<Revision Id="7" />`, n: gigabyte}, catalogue.ErrTooMuch},
		"endless categories":               {&endless{head: root + update + "<Categories>", body: `<Category Type="Product" Id="` + guid + `" />`, n: gigabyte}, catalogue.ErrTooMuch},
		"an entity that stands for others": {&endless{head: `<!DOCTYPE a [<!ENTITY b "bbbbbbbb">]><a>&b;</a>`, body: " ", n: 100}, catalogue.ErrXML},
	} {
		t.Run(name, func(t *testing.T) {
			if raceEnabled && name == "10 million empty updates" {
				t.Skip("a million updates take 20 s under the race detector, and one goroutine reads them")
			}
			var err error
			took := allocated(func() { err = catalogue.ReadGraph(tt.r) })
			if !errors.Is(err, tt.want) || took > 300 {
				t.Errorf("%d MB: %v, want %v", took, err, tt.want)
			}
		})
	}
}

// packed makes a cabinet of members.
func packed(t testing.TB, m cabtest.Method, members ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := cabtest.NewWriter(&out, m)
	for i := 0; i < len(members); i += 2 {
		err := w.Create(members[i], time.Date(2026, 6, 9, 0, 0, 0, 0, time.UTC))
		if err == nil {
			_, err = io.WriteString(w, members[i+1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// small is a scan cab of one update, with other members in its inner cabinet.
func small(t testing.TB, graph string, members ...string) []byte {
	t.Helper()
	return packed(t, cabtest.None, "package.cab", string(packed(t, cabtest.LZX, "package.xml", graph)), "package2.cab", string(packed(t, cabtest.MSZIP, members...)))
}

// TestOddCabs imports cabs that are wrong as a whole.
func TestOddCabs(t *testing.T) {
	one := root + `<Update UpdateId="` + guid + `" RevisionId="1" RevisionNumber="1" IsBundle="true"/></Updates></OfflineSyncPackage>`
	loop := root
	for i := range 3 {
		loop += fmt.Sprintf(`<Update UpdateId="%08d%s" RevisionId="%d" RevisionNumber="1" IsBundle="true"><BundledBy><Revision Id="%d"/></BundledBy></Update>`, i, guid[8:], i+1, (i+1)%3+1)
	}
	twice := root + strings.Repeat(`<Update UpdateId="`+guid+`" RevisionId="1" RevisionNumber="1"/>`, 2)
	for name, tt := range map[string]struct {
		cab  []byte
		want error
		says string
	}{
		"no package.cab":      {packed(t, cabtest.None, "index.xml", "<INDEX/>"), nil, "no package.cab"},
		"no package.xml":      {packed(t, cabtest.None, "package.cab", string(packed(t, cabtest.None, "other.xml", one))), nil, "no package.xml"},
		"package.cab is none": {packed(t, cabtest.None, "package.cab", one), cab.ErrFormat, "package.cab"},
		"empty graph":         {small(t, root+"</Updates></OfflineSyncPackage>", "c/1", ""), catalogue.ErrXML, "no update"},
		"bundles in a loop":   {small(t, loop, "c/1", ""), catalogue.ErrXML, "contain themselves"},
		"a revision twice":    {small(t, twice, "c/1", ""), catalogue.ErrXML, "twice"},
		"cut graph":           {small(t, one[:len(one)-80], "c/1", ""), catalogue.ErrXML, "ends within"},
		"a cut cab":           {small(t, one, "c/1", strings.Repeat("<a>", 1000))[:400], io.ErrUnexpectedEOF, ""},
	} {
		if _, err := importCab(t, tt.cab, catalogue.ImportOptions{}); err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A fragment that makes no sense costs its update what it says, and is told.
	c := mustImport(t, small(t, one, "c/1", "<Relationships></Other>", "x/1", `<ExtendedProperties MsrcSeverity="Low"/><Files><File Digest="no"/>`,
		"l/en/1", "<LocalizedProperties><Title>Fish &amp; chips</Title></LocalizedProperties>", "x/notanumber", "<", "x/99", "<"), catalogue.ImportOptions{})
	u, err := c.Revision(1)
	if err != nil || u.Title != "Fish & chips" || u.Severity != "Low" || len(u.Files) != 0 {
		t.Errorf("it is %+v, %v", u, err)
	}
	if h := c.Header(); h.Counts.Problems != 1 || len(h.Problems) != 1 || !strings.Contains(h.Problems[0], "x/1") {
		t.Errorf("the problems are %q", h.Problems)
	}
}

// TestABombIsNotHeld unpacks an inner cabinet that is a thousand times its
// size.
func TestABombIsNotHeld(t *testing.T) {
	one := root + `<Update UpdateId="` + guid + `" RevisionId="1" RevisionNumber="1" IsBundle="true"/></Updates></OfflineSyncPackage>`
	bomb := small(t, one, "c/1", "<Relationships>"+strings.Repeat(" ", fewer(30<<20))+"</Relationships>", "x/1", strings.Repeat("<a/>", fewer(2<<20)))
	var err error
	took := allocated(func() { _, err = importCab(t, bomb, catalogue.ImportOptions{}) })
	if err != nil || took > 40 {
		t.Errorf("%d bytes of cab take %d MB: %v", len(bomb), took, err)
	}
}

// FuzzGraph never crashes on any package.xml.
func FuzzGraph(f *testing.F) {
	f.Add([]byte(root + `<Update CreationDate="2026-06-09T17:00:00Z" DefaultLanguage="en" UpdateId="` + guid + `" RevisionNumber="2" RevisionId="1" IsLeaf="true" DeploymentAction="Bundle"><PayloadFiles><File Id="bl63nhPgDOgxEUi4i9v+eHBtXXA=" /></PayloadFiles><Prerequisites><UpdateId Id="` + guid + `" /></Prerequisites><Languages><Language Name="de" /></Languages><BundledBy><Revision Id="3" /></BundledBy></Update></Updates><FileLocations><FileLocation Id="bl63nhPgDOgxEUi4i9v+eHBtXXA=" Url="http://download.windowsupdate.com/a&amp;b" /></FileLocations></OfflineSyncPackage>`))
	f.Add([]byte(root + `<Update UpdateId="` + guid + `" RevisionNumber="2" RevisionId="1"><Categories><Category Type="Product" Id="` + guid + `"/></Categories><SupersededBy><Revision Id="1"/></SupersededBy></Update>`))
	f.Add([]byte("<a><![CDATA[x]]><!-- y --><?z?></a>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		err := catalogue.ReadGraph(bytes.NewReader(b))
		if err != nil && !errors.Is(err, catalogue.ErrXML) && !errors.Is(err, catalogue.ErrTooMuch) {
			t.Error(err)
		}
		// How the bytes arrive makes no difference.
		if again := catalogue.ReadGraph(oneByte{bytes.NewReader(b)}); (again == nil) != (err == nil) {
			t.Errorf("byte by byte: %v, else %v", again, err)
		}
	})
}

type oneByte struct{ io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.Reader.Read(p[:min(1, len(p))]) }

// FuzzFragment reads fragments: what is understood is the same after it was
// written to a file and read back.
func FuzzFragment(f *testing.F) {
	w := cabgen.New(cabgen.Options{Seed: 1, Updates: 250, CoreBytes: 300})
	for i, dir := range []string{"c", "x", "l/en"} {
		for n, b := range w.Fragments(dir) {
			if n < 20 {
				f.Add(byte(i), b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, dir byte, b []byte) {
		d, err := catalogue.ReadFragment([]string{"c", "x", "l/en"}[dir%3], bytes.NewReader(b))
		if err != nil && !errors.Is(err, catalogue.ErrXML) && !errors.Is(err, catalogue.ErrTooMuch) {
			t.Error(err)
		}
		back, bad := catalogue.Decode(catalogue.Encode(d))
		if bad || !cmp.Equal(*d, back, whole) {
			t.Errorf("written and read back (%v):\n%s", bad, cmp.Diff(*d, back, whole))
		}
	})
}

// whole compares times by their seconds, and takes no list for an empty one.
var whole = cmp.Options{
	cmp.Comparer(func(x, y time.Time) bool { return max(x.Unix(), 0) == max(y.Unix(), 0) || x.Unix() <= 0 && y.IsZero() }),
	cmp.FilterValues(func(x, y []byte) bool { return len(x)+len(y) == 0 }, cmp.Ignore()),
}

// FuzzImport imports whole cabs: what comes of one is a catalogue that answers
// everything, and the same when it is imported over itself.
func FuzzImport(f *testing.F) {
	w := cabgen.New(cabgen.Options{Seed: 1, Updates: 250, CoreBytes: 300})
	graph := root
	for i, u := range []string{`IsBundle="true"><SupersededBy><Revision Id="3"/><Revision Id="9"/></SupersededBy><Categories><Category Type="Product" Id="` + guid + `"/></Categories></Update>`,
		`DeploymentAction="Bundle"><PayloadFiles><File Id="bl63nhPgDOgxEUi4i9v+eHBtXXA="/></PayloadFiles><BundledBy><Revision Id="1"/></BundledBy></Update>`, `IsBundle="true"/>`} {
		graph += fmt.Sprintf(`<Update CreationDate="2026-06-09T17:00:00Z" UpdateId="%08d%s" RevisionId="%d" RevisionNumber="1" %s`, i, guid[8:], i+1, u)
	}
	graph += `</Updates><FileLocations><FileLocation Id="bl63nhPgDOgxEUi4i9v+eHBtXXA=" Url="http://download.windowsupdate.com/a_b.cab"/></FileLocations></OfflineSyncPackage>`
	f.Add(`<INDEX><CABLIST><CAB NAME="package.cab"/><CAB NAME="package2.cab" RANGESTART="0"/></CABLIST></INDEX>`, []byte(graph), w.Fragments("c")[200], w.Fragments("x")[200], w.Fragments("l/en")[200])
	f.Add("", []byte(graph), []byte(""), []byte(`<ExtendedProperties MsrcSeverity="Low"><KBArticleID>1</KBArticleID></ExtendedProperties>`), []byte("<LocalizedProperties><Title>a b a</Title></LocalizedProperties>"))
	f.Fuzz(func(t *testing.T, index string, graph, c, x, l []byte) {
		b := packed(t, cabtest.None, "index.xml", index, "package.cab", string(packed(t, cabtest.None, "package.xml", string(graph))),
			"package2.cab", string(packed(t, cabtest.None, "c/1", string(c), "l/en/1", string(l), "x/1", string(x), "x/2", string(x), "l/de/3", string(l))))
		one, err := importCab(t, b, catalogue.ImportOptions{Workers: 1})
		if err != nil {
			return
		}
		two := mustImport(t, b, catalogue.ImportOptions{Previous: one, Workers: 1})
		n := one.Header().Counts
		found, err := one.Search(catalogue.Query{Limit: n.Updates + 1})
		if err != nil || found.Matching != n.Updates || len(found.Rows) != n.Updates {
			t.Fatalf("%d of %d updates are found: %v", found.Matching, n.Updates, err)
		}
		for _, r := range found.Rows {
			u, err := one.Update(r.ID)
			if err != nil || u.Revision != r.Revision {
				t.Fatalf("update %s: %v", r.ID, err)
			}
			same, err := two.Revision(r.Revision)
			if err != nil || !cmp.Equal(u, same, whole) {
				t.Fatalf("imported again %s differs: %v\n%s", r.ID, err, cmp.Diff(u, same, whole))
			}
			files, err := one.Files(u)
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				if file.URL == "" { // package.xml does not name it
					continue
				}
				if _, owners, err := one.File(file.SHA1); err != nil || len(owners) == 0 {
					t.Fatalf("file %x of %s: owners %v, %v", file.SHA1, r.ID, owners, err)
				}
			}
		}
	})
}

// FuzzDecode reads details out of any bytes.
func FuzzDecode(f *testing.F) {
	f.Add(catalogue.Encode(&catalogue.Details{Title: "x", KBs: []string{"1"}, Files: []catalogue.File{{Name: "a", SHA256: make([]byte, 32)}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, bad := catalogue.Decode(b); !bad {
			if again, bad := catalogue.Decode(catalogue.Encode(&d)); bad || !cmp.Equal(d, again, whole) {
				t.Errorf("read, written and read: %s", cmp.Diff(d, again, whole))
			}
		}
	})
}
