package appliance_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wuamesh/appliance"
)

// export makes a bundle on a node.
func (s *site) export(t testing.TB, o appliance.BundleOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.ExportBundle(t.Context(), owner, o, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (s *site) take(t testing.TB, b []byte) appliance.BundleImport {
	t.Helper()
	im, err := s.ImportBundle(t.Context(), owner, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// isolated joins a node to another one and cuts it off for ever.
func isolated(t testing.TB, hq *site, name string, change func(*appliance.Config)) *site {
	t.Helper()
	s, cut := cuttable(t, hq.world, "http://127.0.0.1:1", name, hq)
	s.synced(t)
	cut()
	eventually(t, name+" is cut off", func() error {
		if r := hq.reach(t, name); r != "away" {
			return fmt.Errorf("it is %s", r)
		}
		return nil
	})
	return s
}

// TestASiteWithoutALine brings a site everything on a stick: its hosts' reports
// go to headquarters, the files they wait for and the rules for them come back.
func TestASiteWithoutALine(t *testing.T) {
	t.Parallel()
	_, list := branches(t, 300_000, "hq-01")
	hq := list[0]
	eventually(t, "the scan cab", hq.serves("wsusscn2.cab"))
	lor := isolated(t, hq, "lor-01", nil)
	updates, byID := described(hq.world)

	lor.enrol(t, 1, lor.enrolToken(t, 1)).report(t, needs(updates[:2]...), byID)
	im := hq.take(t, lor.export(t, appliance.BundleOptions{For: "hq-01"}))
	if im.FromName != "lor-01" || im.Changes == 0 || len(im.Needs) != 0 {
		t.Errorf("headquarters took %+v", im)
	}
	knows(t, hq, hostID(1))
	hq.allow(t)
	names := []string{updates[0].Files[0].Name, updates[1].Files[0].Name}
	for _, name := range names {
		eventually(t, "headquarters downloads for them", hq.serves(name))
	}
	b := hq.export(t, appliance.BundleOptions{}) // for where the last one came from
	for round := range 2 {                       // again, after an interruption
		im = lor.take(t, b)
		if im.For != "lor-01" || im.Hosts != 1 || im.Whole || len(im.Files) != 3 || im.Files[0].Name != "wsusscn2.cab" || len(im.Absent) != 0 {
			t.Errorf("the bundle says %+v", im.BundleInfo)
		}
		if len(im.Needs) != 3 {
			t.Fatalf("the site wants %+v", im.Needs)
		}
		for _, n := range im.Needs {
			all, err := os.ReadFile(filepath.Join(hq.dir, "waptwua", n.Name))
			if err != nil {
				t.Fatal(err)
			}
			to := len(all)
			if round == 0 {
				to /= 2
			} else if n.Have != int64(to/2) {
				t.Errorf("%d bytes of %s are here", n.Have, n.Name)
			}
			got, err := lor.ImportBundleFile(t.Context(), owner, n.Name, n.Have, bytes.NewReader(all[n.Have:to]))
			if err != nil || got.Have != int64(to) {
				t.Errorf("%s: %d of %d bytes, %v", n.Name, got.Have, to, err)
			}
			if resp, body := get(t, "GET", lor.FolderURL()+n.Name); round == 0 && resp.StatusCode == 200 {
				t.Errorf("%d bytes of a part of %s are served", len(body), n.Name)
			}
		}
	}
	for _, name := range append(names, "wsusscn2.cab") {
		eventually(t, "the site's own copy", lor.serves(name))
	}
	if p, err := lor.Package(t.Context(), "everything"); err != nil || len(p.Lines) == 0 {
		t.Errorf("the rules are %+v, %v", p, err)
	}
	if k := lor.has(t, names[0], status("done")); k.From != "bundle" {
		t.Errorf("the task is %+v", k)
	}
	if im := lor.take(t, b); len(im.Needs) != 0 {
		t.Errorf("what is here is wanted again: %+v", im.Needs)
	}
	if log, _, err := lor.Audit(t.Context(), "", appliance.Page{Limit: 100}); err != nil || !strings.Contains(fmt.Sprint(log), "import bundle") {
		t.Errorf("the audit log has %+v, %v", log, err)
	}
}

// TestBundlesThatAreRefused changes a bundle in every place, and brings ones
// that do not belong.
func TestBundlesThatAreRefused(t *testing.T) {
	t.Parallel()
	_, list := branches(t, 100_000, "hq-01")
	hq := list[0]
	lor := isolated(t, hq, "lor-01", nil)
	good := hq.export(t, appliance.BundleOptions{For: "lor-01"})
	edit(t, hq, "secret")
	refuse := func(what string, s *site, b []byte, want string) {
		t.Helper()
		_, err := s.ImportBundle(t.Context(), owner, bytes.NewReader(b))
		if p, ok := appliance.AsProblem(err); !ok || !strings.Contains(p.Msg, want) || p.Hint == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, at := range []int{30, len(good) / 3, len(good) / 2, len(good) - 200} {
		b := bytes.Clone(good)
		b[at] ^= 1
		_, err := lor.ImportBundle(t.Context(), owner, bytes.NewReader(b))
		if p, ok := appliance.AsProblem(err); !ok || p.Kind != appliance.Invalid && p.Kind != appliance.Denied && p.Kind != appliance.Conflict {
			t.Errorf("changed at %d: %v", at, err)
		}
	}
	refuse("nothing", lor, nil, "damaged")
	refuse("cut short", lor, good[:len(good)-10], "damaged")
	refuse("something else", lor, bytes.Repeat([]byte("x\n"), 1000), "damaged")
	refuse("its own", hq, good, "made on this very node")
	stranger := bareNode(t, "nte-01")
	other := bareNode(t, "nte-02")
	other.joinTo(t, stranger)
	refuse("of another mesh", lor, stranger.export(t, appliance.BundleOptions{For: "nte-02"}), "another mesh")
	lor.take(t, good)
	if _, err := lor.ImportBundle(t.Context(), appliance.Actor{Name: "v", Role: appliance.Operator}, bytes.NewReader(good)); err == nil {
		t.Error("an operator imports")
	}
	if _, err := lor.ImportBundleFile(t.Context(), owner, "../evil.cab", 0, bytes.NewReader(nil)); err == nil {
		t.Error("a file that no bundle names is taken")
	}
	if err := hq.ExportBundle(t.Context(), owner, appliance.BundleOptions{For: "nowhere"}, io.Discard); err == nil {
		t.Error("a bundle for nobody is made")
	}
}

// TestAWrongFileOnTheStick is thrown away, and the right one taken afterwards.
func TestAWrongFileOnTheStick(t *testing.T) {
	t.Parallel()
	_, list := branches(t, 200_000, "hq-01")
	hq := list[0]
	name := hq.wants(t, 1)[0]
	eventually(t, name, hq.serves(name))
	lor := isolated(t, hq, "lor-01", nil)
	im := lor.take(t, hq.export(t, appliance.BundleOptions{For: "lor-01"})) // no host of it is known: what all need
	for _, n := range im.Needs {
		if n.Name != name {
			continue
		}
		right, err := os.ReadFile(filepath.Join(hq.dir, "waptwua", name))
		if err != nil {
			t.Fatal(err)
		}
		wrong := bytes.Clone(right)
		wrong[len(wrong)/2] ^= 1
		_, err = lor.ImportBundleFile(t.Context(), owner, name, 0, bytes.NewReader(wrong))
		if p, ok := appliance.AsProblem(err); !ok || !strings.Contains(p.Msg, "was thrown away") {
			t.Errorf("a wrong file: %v", err)
		}
		if lor.serves(name)() == nil {
			t.Error("a wrong file is served")
		}
		if _, err := lor.ImportBundleFile(t.Context(), owner, name, 0, bytes.NewReader(right)); err != nil {
			t.Error(err)
		}
		eventually(t, name, lor.serves(name))
		return
	}
	t.Errorf("the site wants %+v", im.Needs)
}

// TestALostBundle has the second of three bundles get lost: the third says so,
// and one with all records mends it.
func TestALostBundle(t *testing.T) {
	t.Parallel()
	_, list := branches(t, 100_000, "hq-01")
	hq := list[0]
	lor := isolated(t, hq, "lor-01", nil)
	hq.take(t, lor.export(t, appliance.BundleOptions{For: "hq-01"}))
	edit(t, hq, "one")
	lor.take(t, hq.export(t, appliance.BundleOptions{}))
	back := lor.export(t, appliance.BundleOptions{})
	edit(t, hq, "two")
	hq.take(t, back) // says that it has one
	edit(t, hq, "three")
	lor.take(t, hq.export(t, appliance.BundleOptions{}))
	lor.sees(t, "three")
	// lor-01 is restored from a backup of before: headquarters believes it has more.
	lost := isolated(t, hq, "brs-01", nil)
	hq.take(t, lost.export(t, appliance.BundleOptions{For: "hq-01"}))
	edit(t, hq, "four")
	hq.Carried(t.Context(), lost.NodeID())
	edit(t, hq, "five")
	_, err := lost.ImportBundle(t.Context(), owner, bytes.NewReader(hq.export(t, appliance.BundleOptions{For: "brs-01"})))
	if p, ok := appliance.AsProblem(err); !ok || !strings.Contains(p.Msg, "was not imported here") || !strings.Contains(p.Hint, "--whole --for brs-01") {
		t.Fatalf("a bundle after a lost one: %v", err)
	}
	lost.take(t, hq.export(t, appliance.BundleOptions{For: "brs-01", Whole: true}))
	lost.sees(t, "four")
	lost.sees(t, "five")
}

// TestCertificatesByBundle has a site without a line get new certificates when
// its old ones end soon: it asks with its bundle, and the next one from
// headquarters answers. A node that was removed is not answered.
func TestCertificatesByBundle(t *testing.T) {
	t.Parallel()
	_, list := branches(t, 100_000, "hq-01")
	hq := list[0]
	lor, brs := isolated(t, hq, "lor-01", nil), isolated(t, hq, "brs-01", nil)
	ends := time.Now().Add(50 * 24 * time.Hour)
	for _, s := range []*site{lor, brs} {
		if err := s.CertifyUntil(t.Context(), hq.Appliance, ends); err != nil {
			t.Fatal(err)
		}
	}
	if got := lor.problems(t, lor.NodeID()); !strings.Contains(got, "certificate ends on "+ends.UTC().Format("2 Jan 2006")) || !strings.Contains(got, "wuamesh bundle export") {
		t.Errorf("the site says %q", got)
	}
	ask := brs.export(t, appliance.BundleOptions{For: "hq-01"})
	hq.take(t, lor.export(t, appliance.BundleOptions{For: "hq-01"}))
	hq.take(t, lor.export(t, appliance.BundleOptions{For: "hq-01"})) // asked twice, answered once
	lor.take(t, hq.export(t, appliance.BundleOptions{For: "lor-01"}))
	if end := lor.CertificateEnd(); time.Until(end) < 300*24*time.Hour {
		t.Errorf("its certificate ends %s", end)
	}
	if got := lor.problems(t, lor.NodeID()); strings.Contains(got, "certificate") {
		t.Errorf("the site says %q", got)
	}
	edit(t, lor, "later") // what the new key signs is believed
	hq.take(t, lor.export(t, appliance.BundleOptions{For: "hq-01"}))
	hq.sees(t, "later")

	if _, err := hq.RemoveNode(t.Context(), owner, "brs-01", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := hq.ImportBundle(t.Context(), owner, bytes.NewReader(ask)); err == nil {
		t.Error("the bundle of a removed node was taken")
	}
}
