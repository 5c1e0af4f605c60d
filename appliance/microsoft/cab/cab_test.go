package cab_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wuamesh/appliance/microsoft/cab"
	"wuamesh/appliance/microsoft/cab/cabtest"
)

var methods = []cabtest.Method{cabtest.None, cabtest.MSZIP, cabtest.LZX}

type member struct {
	name string
	data []byte
}

// pack writes a cabinet; a member of no name begins a new folder.
func pack(t testing.TB, m cabtest.Method, list ...member) []byte {
	t.Helper()
	var out bytes.Buffer
	w := cabtest.NewWriter(&out, m)
	for _, f := range list {
		var err error
		if f.name == "" {
			err = w.Folder()
		} else if err = w.Create(f.name, time.Date(2026, 6, 9, 17, 2, 4, 0, time.UTC)); err == nil {
			_, err = w.Write(f.data)
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

// unpack reads every member.
func unpack(r io.Reader, o cab.Options) (list []member, err error) {
	c, err := cab.NewReader(r, o)
	if err != nil {
		return nil, err
	}
	for {
		f, err := c.Next()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		b, err := io.ReadAll(c)
		if err != nil {
			return list, err
		}
		if int64(len(b)) != f.Size {
			return list, fmt.Errorf("%s: %d bytes of %d", f.Name, len(b), f.Size)
		}
		list = append(list, member{f.Name, b})
	}
}

// small is a size for the race detector, under which packing takes fifteen
// times as long; nothing in these packages runs at once with anything. The
// check runs the whole sizes without it.
func small(n int) int {
	if raceEnabled {
		return n / 8
	}
	return n
}

// samples are data of every kind a cabinet meets.
func samples() map[string][]member {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	text := func(n int) []byte {
		var b bytes.Buffer
		for b.Len() < n {
			fmt.Fprintf(&b, `<UpdateIdentity UpdateID="%08x-%04x" RevisionNumber="%d" />更新プログラム`, r.Uint32(), r.Uint32()&0xffff, r.IntN(300))
		}
		return b.Bytes()[:n]
	}
	calls := func(n int) []byte { // dense in E8 with small operands
		b := random(n)
		for i := 0; i+8 < n; i += 7 + int(b[i])%5 {
			b[i], b[i+3], b[i+4] = 0xE8, 0, 0
			if b[i+1]&1 == 0 {
				b[i+3], b[i+4] = 0xff, 0xff
			}
		}
		return b
	}
	name := func(list ...[]byte) (out []member) {
		for i, b := range list {
			out = append(out, member{fmt.Sprintf("c/%d", i), b})
		}
		return out
	}
	folders := name(text(40_000), random(70_001), text(5))
	return map[string][]member{
		"tiny":    name(nil, []byte("a"), []byte("ab"), []byte("hello hello hello")),
		"text":    name(text(10), text(40_000), text(32_768), text(small(1<<20)), text(7)),
		"random":  name(random(1), random(32_767), random(small(300_001)), random(5)),
		"calls":   name(calls(100), calls(small(300_000)), make([]byte, small(3<<20)), calls(small(300_000)), calls(11)),
		"mixed":   name(text(100_000), random(70_001), text(small(1<<20)), make([]byte, small(1<<20)), random(3), bytes.Repeat([]byte("ab"), 99_999)),
		"folders": {folders[0], {}, folders[1], {}, folders[2]},
	}
}

// TestAgainstCabextract packs, and has cabextract and us unpack.
func TestAgainstCabextract(t *testing.T) {
	for kind, list := range samples() {
		for _, m := range methods {
			t.Run(kind+"-"+m.String(), func(t *testing.T) {
				packed := pack(t, m, list...)
				got, err := unpack(bytes.NewReader(packed), cab.Options{})
				if err != nil {
					t.Fatal(err)
				}
				dir := t.TempDir()
				path := filepath.Join(dir, "t.cab")
				if err := os.WriteFile(path, packed, 0o600); err != nil {
					t.Fatal(err)
				}
				if out, err := exec.Command("cabextract", "-q", "-d", dir, path).CombinedOutput(); err != nil {
					t.Fatalf("cabextract (./packaging/check installs it): %v\n%s", err, out)
				}
				for _, want := range list {
					if want.name == "" {
						continue
					}
					theirs, err := os.ReadFile(filepath.Join(dir, want.name))
					if err != nil || !bytes.Equal(theirs, want.data) {
						t.Fatalf("cabextract reads another %s: %v", want.name, err)
					}
					if len(got) == 0 || got[0].name != want.name || !bytes.Equal(got[0].data, want.data) {
						t.Fatalf("we read another %s", want.name)
					}
					got = got[1:]
				}
			})
		}
	}
}

// TestNested reads cabinets in cabinets without holding them.
func TestNested(t *testing.T) {
	want := samples()["text"]
	inner := pack(t, cabtest.LZX, want...)
	outer := pack(t, cabtest.LZX, member{"index.xml", []byte("<INDEX/>")}, member{"package.cab", inner}, member{"package2.cab", inner})
	c, err := cab.NewReader(bytes.NewReader(append(outer, "a signature"...)), cab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Size() != int64(len(outer)) {
		t.Errorf("the cabinet has %d bytes, it says %d", len(outer), c.Size())
	}
	seen := 0
	for {
		f, err := c.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(f.Name, ".cab") {
			continue // skipped: the next one is found all the same
		}
		got, err := unpack(c, cab.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if !bytes.Equal(got[i].data, want[i].data) {
				t.Errorf("%s in %s differs", got[i].name, f.Name)
			}
		}
		seen++
	}
	if seen != 2 {
		t.Errorf("%d inner cabinets of 2", seen)
	}
}

// TestReset reads one cabinet after another with the same buffers.
func TestReset(t *testing.T) {
	c := new(cab.Reader)
	for kind, list := range samples() {
		for _, m := range methods {
			if err := c.Reset(bytes.NewReader(pack(t, m, list...)), cab.Options{}); err != nil {
				t.Fatal(err)
			}
			for _, want := range list {
				if want.name == "" {
					continue
				}
				if _, err := c.Next(); err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want.data) {
					t.Fatalf("%s, %s: %s differs: %v", kind, m, want.name, err)
				}
			}
		}
	}
}

// TestLies changes what a cabinet says of itself.
func TestLies(t *testing.T) {
	good := pack(t, cabtest.LZX, member{"c/1", bytes.Repeat([]byte("truth "), 20_000)}, member{"c/2", []byte("more")})
	le := binary.LittleEndian
	filesAt := int(le.Uint32(good[16:]))
	dataAt := int(le.Uint32(good[36:]))
	for _, tt := range []struct {
		name   string
		change func(b []byte) []byte
		want   error
	}{
		{"empty", func(b []byte) []byte { return nil }, io.ErrUnexpectedEOF},
		{"no cabinet", func(b []byte) []byte { b[0] = 'X'; return b }, cab.ErrFormat},
		{"version", func(b []byte) []byte { b[25] = 2; return b }, cab.ErrFormat},
		{"one of several", func(b []byte) []byte { b[30] |= 1; return b }, cab.ErrFormat},
		{"cut", func(b []byte) []byte { return b[:len(b)-10] }, io.ErrUnexpectedEOF},
		{"smaller than it is", func(b []byte) []byte { le.PutUint32(b[8:], uint32(len(b)-10)); return b }, cab.ErrFormat},
		{"more files than it has", func(b []byte) []byte { le.PutUint16(b[28:], 65535); return b }, cab.ErrFormat},
		{"more blocks than it has", func(b []byte) []byte { le.PutUint16(b[40:], 9999); le.PutUint32(b[filesAt:], 1<<31); return b }, cab.ErrFormat},
		{"a member larger than its folder", func(b []byte) []byte { le.PutUint32(b[filesAt+20:], 4+1<<20); return b }, io.ErrUnexpectedEOF},
		{"overlapping members", func(b []byte) []byte { le.PutUint32(b[filesAt+24:], 7); return b }, cab.ErrFormat},
		{"a folder that is not there", func(b []byte) []byte { b[filesAt+8] = 9; return b }, cab.ErrFormat},
		{"Quantum", func(b []byte) []byte { b[42] = 2; return b }, cab.ErrFormat},
		{"a window too large", func(b []byte) []byte { b[43] = 25; return b }, cab.ErrFormat},
		{"a block too large", func(b []byte) []byte { le.PutUint16(b[dataAt+6:], 65535); return b }, cab.ErrFormat},
		{"checksum", func(b []byte) []byte { b[dataAt+20] ^= 1; return b }, cab.ErrFormat},
		{"traversal", func(b []byte) []byte { copy(b[filesAt+16:], `..\`); return b }, cab.ErrFormat},
		{"absolute", func(b []byte) []byte { copy(b[filesAt+16:], `\c1`); return b }, cab.ErrFormat},
	} {
		list, err := unpack(bytes.NewReader(tt.change(bytes.Clone(good))), cab.Options{})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %d members, %v; want %v", tt.name, len(list), err, tt.want)
		}
	}
	// Without a checksum changed data either make no sense or are other data.
	bad := bytes.Clone(good)
	le.PutUint32(bad[dataAt:], 0)
	if got, err := unpack(bytes.NewReader(bad), cab.Options{}); err != nil || len(got) != 2 {
		t.Errorf("a block that has no checksum: %v", err)
	}
}

// TestLimits refuses bombs by their tables, before anything is unpacked.
func TestLimits(t *testing.T) {
	half := int64(small(4 << 20))
	bomb := pack(t, cabtest.LZX, member{"a", make([]byte, half)}, member{"b", make([]byte, half)})
	if len(bomb) > 16_000 {
		t.Errorf("the bomb has %d bytes", len(bomb))
	}
	for _, o := range []cab.Options{{Member: half - 1}, {Total: 2*half - 1}} {
		if _, err := cab.NewReader(bytes.NewReader(bomb), o); !errors.Is(err, cab.ErrTooLarge) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := unpack(bytes.NewReader(bomb), cab.Options{Member: half, Total: 2 * half}); err != nil {
		t.Error(err)
	}
}

// FuzzReader unpacks anything without a crash, and no more than is allowed.
func FuzzReader(f *testing.F) {
	for _, m := range methods { // small ones: a large one takes a third of a second
		f.Add(pack(f, m, samples()["tiny"]...))
		f.Add(pack(f, m, member{"c/1", bytes.Repeat([]byte("<Title>an update</Title>"), 40)}, member{"x/1", []byte("x")}))
	}
	f.Add(pack(f, cabtest.LZX, member{"c/1", bytes.Repeat([]byte("\xe8ab\x00\x00\x00"), 2_000)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 22
		list, _ := unpack(bytes.NewReader(b), cab.Options{Total: limit})
		total := 0
		for _, m := range list {
			total += len(m.data)
		}
		if total > limit {
			t.Errorf("%d bytes", total)
		}
	})
}

// FuzzRoundTrip packs anything and unpacks the same.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("a title of an update, a title of an update"), uint16(7))
	f.Add(bytes.Repeat([]byte{0xE8, 1, 0, 0, 0}, 50), uint16(30))
	f.Fuzz(func(t *testing.T, b []byte, repeat uint16) {
		data := bytes.Repeat(b, 1+int(repeat)%500)
		if len(data) > 1<<20 {
			return
		}
		for _, m := range methods[1:] {
			got, err := unpack(bytes.NewReader(pack(t, m, member{"x/1", data}, member{"x/2", b})), cab.Options{})
			if err != nil || !bytes.Equal(got[0].data, data) || !bytes.Equal(got[1].data, b) {
				t.Fatalf("%s: %v", m, err)
			}
		}
	})
}

// BenchmarkUnpack reads text such as the scan cab's; MB/s are of what it
// unpacks to. Beside it cabextract, with the start of its process.
func BenchmarkUnpack(b *testing.B) {
	var text bytes.Buffer
	r := rand.New(rand.NewPCG(3, 4))
	for text.Len() < 64<<20 {
		fmt.Fprintf(&text, `<Update CreationDate="2026-05-12T20:45:23Z" DefaultLanguage="en" UpdateId="%08x-5b00-45d2-b92f-%06x" RevisionNumber="20%d" RevisionId="%d" IsLeaf="true" />`, r.Uint32(), r.Uint32()>>8, r.IntN(9), r.IntN(1e8))
	}
	for _, m := range methods {
		packed := pack(b, m, member{"package.xml", text.Bytes()})
		b.Run(m.String(), func(b *testing.B) {
			b.SetBytes(int64(text.Len()))
			c := new(cab.Reader)
			for b.Loop() {
				err := c.Reset(bytes.NewReader(packed), cab.Options{})
				if err == nil {
					_, err = c.Next()
				}
				if err == nil {
					_, err = io.Copy(io.Discard, c)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(m.String()+"-cabextract", func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "t.cab")
			if err := os.WriteFile(path, packed, 0o600); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(text.Len()))
			for b.Loop() {
				if out, err := exec.Command("cabextract", "-q", "-p", path).Output(); err != nil || len(out) != text.Len() {
					b.Fatal(len(out), err)
				}
			}
		})
	}
}
