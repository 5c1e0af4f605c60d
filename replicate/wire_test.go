package replicate

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write golden files of formats that have none yet")

const (
	goldenWriter = "00112233445566778899aabbccddeeff.0011223344556677"
	goldenOther  = "ffeeddccbbaa99887766554433221100.7766554433221100"
)

func goldenVersion() Version {
	return Version{Clock(time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC).UnixMilli())<<16 | 3, goldenWriter}
}

// goldens are what each format must stay: a file once written is never
// changed, and read for ever.
var goldens = []struct {
	file   string
	encode func() []byte // nil when this version does not write it any more
	decode func([]byte) (any, error)
	want   func() any
}{
	{
		"record.1", nil, decodeGoldenChange,
		func() any {
			return change{Record{Key: "rule/a", Value: []byte("allow"), Version: goldenVersion(), Format: 1}, 7}
		},
	},
	{
		"record.2", func() []byte { return goldenChange().encode() }, decodeGoldenChange,
		func() any { return goldenChange() },
	},
	{
		// Written by hand: what a later version may send.
		"record.9", nil, decodeGoldenChange,
		func() any {
			return change{Record{Key: "rule/a", Value: []byte("whatever comes"), Version: goldenVersion(), Format: 9}, 7}
		},
	},
	{
		"changeset.1", func() []byte { return appendSet(nil, goldenSet()) },
		func(b []byte) (any, error) { return decodeSet(b) },
		func() any { return goldenSet() },
	},
	{
		"vector.1", func() []byte { return appendVector(nil, map[string]uint64{goldenWriter: 7, goldenOther: 1 << 40}) },
		func(b []byte) (any, error) { return decodeVector(b) },
		func() any { return map[string]uint64{goldenWriter: 7, goldenOther: 1 << 40} },
	},
	{
		"head.1", func() []byte { return appendHead(nil, 9<<16, extent{vector: goldenExtent().vector}) }, decodeGoldenHead,
		func() any { return extent{vector: goldenExtent().vector} },
	},
	{
		"head.1-waiting", func() []byte { return appendHead(nil, 9<<16, goldenExtent()) }, decodeGoldenHead,
		func() any { return goldenExtent() },
	},
	{
		"hello.1", func() []byte { var b bytes.Buffer; writeHello(&b, goldenHello()); return b.Bytes() },
		func(b []byte) (any, error) { return readHello(bytes.NewReader(b)) },
		func() any { return goldenHello() },
	},
	{
		"links.1", func() []byte { b, _ := json.Marshal(goldenLinks()); return b },
		func(b []byte) (list any, err error) { var l []linkState; err = json.Unmarshal(b, &l); return l, err },
		func() any { return goldenLinks() },
	},
}

func decodeGoldenChange(b []byte) (any, error) { return decodeChange("rule/a", b) }

func goldenChange() change {
	return change{Record{Key: "rule/a", Value: []byte("forbid"), Version: goldenVersion(), Saw: []Sighting{{nodeNumber(goldenOther), 99 << 16}}}, 7}
}

func goldenSet() ChangeSet {
	gone := Record{Key: "rule/b", Deleted: true, Version: goldenVersion()}
	return ChangeSet{Writer: goldenWriter, After: 5, End: 8, Changes: []Change{{goldenChange().Record, 7}, {gone, 8}}}
}

func decodeGoldenHead(b []byte) (any, error) {
	clock, x, err := decodeHead(b)
	if err == nil && clock != 9<<16 {
		err = errGarbage
	}
	return x, err
}

func goldenExtent() extent {
	return extent{vector: map[string]uint64{goldenWriter: 8}, ahead: map[string]uint64{goldenOther: 1 << 40}}
}

func goldenHello() hello {
	return hello{
		Min: 1, Max: 1, Lane: laneControl, Node: goldenWriter[:32], Instance: "0123456789abcdef",
		Self: Self{Name: "hq", Site: "paris", Version: "1.0", Addrs: []string{"hq.example:443"}},
		Time: 1782907200000, Contact: 1782900000000, Fresh: 4,
	}
}

func goldenLinks() []linkState {
	return []linkState{{Node: goldenWriter[:32], Instance: "0123456789abcdef", Seq: 9, Self: goldenHello().Self, Peers: []string{goldenOther[:32]}}}
}

func TestFormatsStay(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.file, func(t *testing.T) {
			path := filepath.Join("testdata", "format", g.file+".hex")
			if _, err := os.Stat(path); *update && os.IsNotExist(err) && g.encode != nil {
				os.WriteFile(path, []byte(hex.Dump(g.encode())), 0o644)
			}
			b := readDump(t, path)
			got, err := g.decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(g.want(), got, cmpopts.EquateEmpty(), cmp.AllowUnexported(change{}, extent{})); diff != "" {
				t.Errorf("read otherwise than it was written:\n%s", diff)
			}
			if g.encode != nil && !bytes.Equal(g.encode(), b) {
				t.Errorf("this version writes it otherwise:\n%s", hex.Dump(g.encode()))
			}
		})
	}
}

// readDump reads the bytes of a hex dump.
func readDump(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	for line := range strings.Lines(string(text)) {
		_, line, _ = strings.Cut(line, " ")
		line, _, _ = strings.Cut(line, "|")
		part, err := hex.DecodeString(strings.Join(strings.Fields(line), ""))
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, part...)
	}
	return b
}

// TestNewerFormatsPassThrough hands a record of a later version through a
// store of this one: it wins and loses as any other, and comes out unchanged.
func TestNewerFormatsPassThrough(t *testing.T) {
	c, err := decodeChange("rule/a", readDump(t, "testdata/format/record.9.hex"))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler), small: true}
	o.Now = func() time.Time { return time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC) }
	db, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	set := ChangeSet{Writer: goldenWriter, End: 7, Changes: []Change{{c.Record, 7}}}
	if err := db.Apply(context.Background(), set); err != nil {
		t.Fatal(err)
	}
	var passed []byte
	err = pull(db, nil, func(p portion) error {
		for _, cs := range p.sets {
			passed = appendSet(passed, cs)
		}
		return nil
	})
	if want := appendSet(nil, set); err != nil || !bytes.Equal(passed, want) {
		t.Errorf("passed on as\n%swant\n%s(%v)", hex.Dump(passed), hex.Dump(want), err)
	}
	n := &simNode{db: db}
	n.put(t, "rule/a", "now ours")
	if got := n.get("rule/a"); got != "now ours" {
		t.Errorf("a later edit did not win over it: %q", got)
	}
}

// TestStoreOfFormatOne opens a store that the version before wrote.
func TestStoreOfFormatOne(t *testing.T) {
	o := Options{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler), small: true}
	db, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	n := &simNode{db: db}
	err = db.Apply(context.Background(), ChangeSet{Writer: goldenWriter, End: 7, Changes: []Change{{
		Record{Key: "rule/a", Value: []byte("allow"), Version: Version{1 << 16, goldenWriter}, Format: 1}, 7,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := n.get("rule/a"); got != "allow" {
		t.Errorf("a record of format 1 reads %q", got)
	}
	n.put(t, "rule/a", "forbid")
	db.View(context.Background(), func(tx *Tx) error {
		r, err := tx.Record("rule/a")
		if err != nil || r.Format != 0 || len(r.Saw) != 1 || r.Saw[0] != (Sighting{nodeNumber(goldenWriter), 1 << 16}) {
			t.Errorf("written over, it is %+v, %v", r, err)
		}
		return nil
	})
	db.Close()
}

// FuzzWire feeds every decoder of what comes from a peer. What is understood
// must mean the same after it was written again.
func FuzzWire(f *testing.F) {
	for _, g := range goldens {
		if g.encode != nil {
			f.Add(g.encode())
		}
	}
	f.Add(pack(appendVector(nil, map[string]uint64{goldenWriter: 7})))
	f.Fuzz(func(t *testing.T, b []byte) {
		if cs, err := decodeSet(b); err == nil {
			again, err := decodeSet(appendSet(nil, cs))
			if diff := cmp.Diff(cs, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
				t.Errorf("change set written again: %v\n%s", err, diff)
			}
			cs.check()
			pushFrame(news{ChangeSet: cs})
		}
		if v, err := decodeVector(b); err == nil {
			if again, err := decodeVector(appendVector(nil, v)); err != nil || !cmp.Equal(v, again, cmpopts.EquateEmpty()) {
				t.Errorf("vector written again: %v, %v", again, err)
			}
		}
		if c, err := decodeChange("k", b); err == nil && !bytes.Equal(c.encode()[2:], b[2:]) {
			t.Errorf("record %x written again as %x", b, c.encode())
		}
		readHello(bytes.NewReader(b))
		readVectorOf(bytes.NewReader(b))
		readBlock(bytes.NewReader(b), maxSetWire)
		var list []linkState
		if json.Unmarshal(b, &list) == nil {
			l := newLinks(goldenWriter[:32], "x")
			for _, s := range list {
				if s.check() {
					l.take(s)
				}
			}
			l.table()
		}
		s := &session{m: &Mesh{db: &DB{}}, peerFence: "x", has: map[string]uint64{}}
		s.takePush(b)
		s.takeHint(&reader{b: b})
	})
}

// FuzzAnswer feeds the answer to a sync, packed and not.
func FuzzAnswer(f *testing.F) {
	var whole bytes.Buffer
	writeBlock(&whole, appendHead(nil, 9<<16, goldenExtent()))
	writeBlock(&whole, appendSet(nil, goldenSet()))
	whole.Write([]byte{0, 0, 0, 0, 1})
	f.Add(whole.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &session{m: &Mesh{db: &DB{acked: map[string]uint64{}, wall: time.Now}}, has: map[string]uint64{}}
		store := func(context.Context, portion) error { return nil }
		s.takeAnswer(context.Background(), bytes.NewReader(b), store)
		if z, err := newUnpacker(bytes.NewReader(b)); err == nil {
			s.takeAnswer(context.Background(), io.LimitReader(z, 1<<20), store)
			unpackers.Put(z)
		}
	})
}
