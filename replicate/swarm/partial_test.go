package swarm

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

func testFile(t testing.TB, size int) ([]byte, *Manifest) {
	t.Helper()
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(b)
	m, err := Make(context.Background(), bytes.NewReader(b), int64(size))
	if err != nil {
		t.Fatal(err)
	}
	return b, m
}

func testRoot(t testing.TB) *os.Root {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func open(t testing.TB, root *os.Root, m *Manifest) *partial {
	t.Helper()
	p, err := openPartial(root, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func write(t testing.TB, p *partial, b []byte, pieces ...int) {
	t.Helper()
	for _, i := range pieces {
		at := int64(i) * p.m.PieceSize
		if err := p.write(i, b[at:at+p.m.Len(i)]); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.settle(); err != nil {
		t.Fatal(err)
	}
}

// TestPartialSurvives ends a partial file in every rude way and takes it up
// again: nothing that was settled is missing, nothing else is there.
func TestPartialSurvives(t *testing.T) {
	b, m := testFile(t, 5*MinPiece+77)
	for _, tt := range []struct {
		name string
		ruin func(data, journal string)
		want []int
	}{
		{"a kill", func(_, _ string) {}, []int{0, 3, 5}},
		{"a journal cut in a record", func(_, j string) { cut(t, j, 5) }, []int{0, 3}},
		{"a journal cut in its header", func(_, j string) { os.Truncate(j, 11) }, nil},
		{"a journal without an end", func(_, j string) { appendTo(t, j, []byte{0, 0, 0, 1, 9, 9, 9, 9, 0, 0}) }, []int{0, 3, 5}},
		{"a journal of another file", func(_, j string) { os.WriteFile(j, bytes.Repeat([]byte("x"), 100), 0o644) }, nil},
		{"a data file cut short", func(d, _ string) { os.Truncate(d, 4*MinPiece) }, []int{0, 3}},
		{"no journal", func(_, j string) { os.Remove(j) }, nil},
		{"no data", func(d, _ string) { os.Remove(d) }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := testRoot(t)
			p := open(t, root, m)
			write(t, p, b, 0, 3, 5)
			data := filepath.Join(root.Name(), p.path())
			tt.ruin(data, data+journalExt) // the old one stays open, as one that was killed never closes
			p = open(t, root, m)
			for i := range m.Pieces {
				want := false
				for _, j := range tt.want {
					want = want || i == j
				}
				if p.has(i) != want {
					t.Errorf("piece %d is there: %v", i, p.has(i))
				}
			}
			write(t, p, b, 0, 1, 2, 3, 4, 5)
			if err := p.publish(t.Context(), "file"); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(root.Name(), "file"))
			if err != nil || !bytes.Equal(got, b) {
				t.Errorf("the file is wrong: %d bytes, %v", len(got), err)
			}
		})
	}
}

func cut(t *testing.T, path string, n int64) {
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, info.Size()-n)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func appendTo(t *testing.T, path string, b []byte) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.Write(b)
}

func TestDamageIsMended(t *testing.T) {
	b, m := testFile(t, 4*MinPiece)
	root := testRoot(t)
	p := open(t, root, m)
	write(t, p, b, 0, 1, 2, 3)
	f, err := os.OpenFile(filepath.Join(root.Name(), p.path()), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("rot"), 2*MinPiece+5)
	f.Close()
	if err := p.publish(t.Context(), "file"); !errors.Is(err, errDamaged) {
		t.Fatalf("err = %v", err)
	}
	p = open(t, root, m) // it is in the journal too
	if p.has(2) || !p.has(1) || !p.has(3) {
		t.Errorf("wrong pieces are there: %b", p.have)
	}
	write(t, p, b, 2)
	if err := p.publish(t.Context(), "file"); err != nil {
		t.Error(err)
	}
}

func TestNothingWrongIsWritten(t *testing.T) {
	b, m := testFile(t, 2*MinPiece)
	p := open(t, testRoot(t), m)
	for name, piece := range map[string][]byte{"another piece": b[MinPiece:], "too short": b[:5], "too long": b, "nothing": nil} {
		if err := p.write(0, piece); !errors.Is(err, ErrWrong) || p.has(0) {
			t.Errorf("%s: %v, there %v", name, err, p.has(0))
		}
	}
}

func FuzzManifest(f *testing.F) {
	_, m := testFile(f, 3*MinPiece+1)
	f.Add(m.Encode())
	f.Add(m.Encode()[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		if m.Check() != nil || !bytes.Equal(m.Encode(), b) {
			t.Errorf("a manifest of %d bytes is not what it was", m.Size)
		}
	})
}

func FuzzHave(f *testing.F) {
	q := question{files: []Digest{{1}, {2}}, seen: map[Digest]seen{{1}: {5, 6}}}
	a := answer{busy: true, files: []answered{{Digest{1}, 5, 9, []int32{1, 2, 3}}}}
	f.Add(q.encode(), true)
	f.Add(a.encode(), false)
	f.Fuzz(func(t *testing.T, b []byte, isQuestion bool) {
		if isQuestion {
			if q, err := decodeQuestion(b); err == nil && !bytes.Equal(q.encode()[1:], b[1:]) {
				t.Error("a question is not what it was")
			}
			return
		}
		if a, err := decodeAnswer(b); err == nil && !bytes.Equal(a.encode()[1:], b[1:]) {
			t.Error("an answer is not what it was")
		}
	})
}

func FuzzJournal(f *testing.F) {
	b, m := testFile(f, 3*MinPiece)
	root := testRoot(f)
	p := open(f, root, m)
	write(f, p, b, 0, 2)
	good, err := os.ReadFile(filepath.Join(root.Name(), p.path()+journalExt))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Fuzz(func(t *testing.T, journal []byte) {
		root := testRoot(t)
		root.Mkdir(PartialDir, 0o755)
		path := filepath.Join(root.Name(), PartialDir, m.SHA256.String())
		os.WriteFile(path+journalExt, journal, 0o644)
		p, err := openPartial(root, m, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		if p.bytes != 0 { // the data file was absent
			t.Errorf("%d bytes are believed that are nowhere", p.bytes)
		}
	})
}
