package cab_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"wuamesh/appliance/microsoft/cab"
	"wuamesh/appliance/microsoft/cab/cabtest"
)

// raw is a cabinet of one member of size bytes whose data blocks are what they
// are: without checksums, so that a decoder sees every change. Blocks stand in
// b one after the other, each behind its length in two bytes.
func raw(method uint16, size uint32, b []byte) []byte {
	le := binary.LittleEndian
	var data []byte
	blocks, left := 0, int(size)
	for left > 0 && len(b) >= 2 {
		n := min(int(le.Uint16(b)), len(b)-2, 32768+6144)
		out := min(left, 32768)
		data = le.AppendUint32(data, 0)
		data = le.AppendUint16(le.AppendUint16(data, uint16(n)), uint16(out))
		data = append(data, b[2:2+n]...)
		b, left, blocks = b[2+n:], left-out, blocks+1
	}
	const name = "x\x00"
	at := 36 + 8 + 16 + len(name)
	h := append([]byte("MSCF\x00\x00\x00\x00"), make([]byte, 28)...)
	le.PutUint32(h[8:], uint32(at+len(data)))
	le.PutUint32(h[16:], 36+8)
	h[24], h[25] = 3, 1
	le.PutUint16(h[26:], 1)
	le.PutUint16(h[28:], 1)
	h = le.AppendUint32(h, uint32(at)) // the folder
	h = le.AppendUint16(le.AppendUint16(h, uint16(blocks)), method)
	h = le.AppendUint32(le.AppendUint32(h, size), 0) // the member
	h = append(h, 0, 0, 0x21, 0x5a, 0, 0, 0x20, 0)
	return append(append(h, name...), data...)
}

// blocksOf takes the data blocks out of a cabinet of one folder.
func blocksOf(b []byte) (out []byte) {
	le := binary.LittleEndian
	at := int(le.Uint32(b[36:]))
	for range le.Uint16(b[40:]) {
		n := int(le.Uint16(b[at+4:]))
		out = append(le.AppendUint16(out, uint16(n)), b[at+8:at+8+n]...)
		at += 8 + n
	}
	return out
}

const lzx21 = 0x1503

// rawMethods are how blocks may be packed: MSZIP, LZX with windows of 32 kB
// and 2 MB.
var rawMethods = []uint16{1, 0x0f03, lzx21}

// A blocks is data blocks, how they are packed, and what size they unpack to.
type blocks struct {
	method byte // number in rawMethods
	size   uint32
	data   []byte
}

func (b blocks) cabinet() []byte {
	return raw(rawMethods[int(b.method)%len(rawMethods)], b.size%(1<<20), b.data)
}

// goodBlocks are such as make sense.
func goodBlocks(t testing.TB) (list []blocks) {
	for kind, members := range samples() {
		if kind == "folders" {
			continue
		}
		members = members[:min(2, len(members))]
		for i, m := range []cabtest.Method{cabtest.MSZIP, cabtest.LZX} {
			packed := pack(t, m, members...)
			b := blocks{method: byte(2 * i), data: blocksOf(packed)}
			for _, x := range members {
				b.size += uint32(len(x.data))
			}
			if len(packed) < 50_000 {
				list = append(list, b)
			}
		}
	}
	return list
}

// FuzzBlocks unpacks any data blocks: without a crash, no more than the member
// has, and the same however they arrive.
func FuzzBlocks(f *testing.F) {
	for _, b := range goodBlocks(f) {
		if len(b.data) < 4<<10 { // with 50 kB there is less than one try a second
			f.Add(b.method, b.size, b.data)
		}
	}
	f.Fuzz(func(t *testing.T, method byte, size uint32, data []byte) {
		b := blocks{method, size, data}.cabinet()
		got, err := unpack(bytes.NewReader(b), cab.Options{})
		slow, slowErr := unpack(iotest.HalfReader(bytes.NewReader(b)), cab.Options{})
		if (err == nil) != (slowErr == nil) || len(got) != len(slow) || len(got) > 0 && !bytes.Equal(got[0].data, slow[0].data) {
			t.Errorf("in halves: %d members, %v; else %d, %v", len(slow), slowErr, len(got), err)
		}
	})
}

// TestBlocksAgainstCabextract has cabextract unpack what makes sense, and what
// fuzzing found to be of interest: both read the same, or both refuse.
func TestBlocksAgainstCabextract(t *testing.T) {
	paths, err := filepath.Glob("testdata/fuzz/FuzzBlocks/*")
	if err != nil || len(paths) < 20 {
		t.Fatalf("%d files of the corpus: %v", len(paths), err)
	}
	list := map[string]blocks{}
	for i, b := range goodBlocks(t) {
		list[strconv.Itoa(i)] = b
	}
	good := len(list)
	for _, path := range paths {
		list[path] = corpus(t, path)
	}
	read := 0
	for name, b := range list {
		ours, err := unpack(bytes.NewReader(b.cabinet()), cab.Options{})
		path := filepath.Join(t.TempDir(), "t.cab")
		if err := os.WriteFile(path, b.cabinet(), 0o600); err != nil {
			t.Fatal(err)
		}
		theirs, failed := exec.Command("cabextract", "-q", "-p", path).Output()
		switch {
		case (err == nil) != (failed == nil):
			t.Errorf("%s, %d bytes: cabextract %v, we %v", name, b.size%(1<<20), failed, err)
		case err == nil && (len(ours) != 1 || !bytes.Equal(ours[0].data, theirs)):
			t.Errorf("%s: cabextract reads other data", name)
		case err == nil:
			read++
		}
	}
	if read < good {
		t.Errorf("both can read %d, %d of them make sense", read, good)
	}
}

// corpus reads a file that go test -fuzz wrote.
func corpus(t *testing.T, path string) blocks {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	lines := strings.Split(string(b), "\n")
	if err != nil || len(lines) < 4 {
		t.Fatalf("%s: %d lines, %v", path, len(lines), err)
	}
	quoted := func(line, kind string) string {
		s, ok := strings.CutPrefix(line, kind+"(")
		if !ok {
			t.Fatalf("%s: %q", path, line)
		}
		return strings.TrimSuffix(s, ")")
	}
	m, err := strconv.Unquote(quoted(lines[1], "byte"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(quoted(lines[2], "uint32"), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	s, err := strconv.Unquote(quoted(lines[3], "[]byte"))
	if err != nil {
		t.Fatal(err)
	}
	return blocks{byte([]rune(m)[0]), uint32(n), []byte(s)}
}
