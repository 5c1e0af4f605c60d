package replicate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// What two nodes exchange, in bytes. Numbers are unsigned varints, texts have
// their length before them. Every decoder bounds what it makes by the length
// of what it was given. wire_test.go has golden files of each version.
const (
	// maxSet bounds the values of one change set; a larger one is refused
	// where it is written, so that every other node can take it.
	maxSet = 16 << 20
	// maxSetWire bounds an encoded change set.
	maxSetWire = maxSet + 8<<20
	// maxWriters bounds a vector.
	maxWriters = 1 << 17
	setFormat  = 1
)

// errGarbage is what decoders return: the peer sent what no version of ours
// sends.
var errGarbage = errors.New("not understood")

// appendSet encodes a change set.
func appendSet(b []byte, cs ChangeSet) []byte {
	b = append(b, setFormat)
	b = appendText(b, cs.Writer)
	b = binary.AppendUvarint(b, cs.After)
	b = binary.AppendUvarint(b, cs.End)
	b = binary.AppendUvarint(b, uint64(len(cs.Changes)))
	for _, c := range cs.Changes {
		b = appendText(b, c.Key)
		raw := change{c.Record, c.Seq}.encode()
		b = binary.AppendUvarint(b, uint64(len(raw)))
		b = append(b, raw...)
	}
	return b
}

// decodeSet reads what appendSet wrote, all of b. Values share memory with b.
func decodeSet(b []byte) (cs ChangeSet, err error) {
	r := reader{b: b}
	if f := r.byte(); f != setFormat {
		return cs, fmt.Errorf("change set of format %d: %w", f, errGarbage)
	}
	cs.Writer = r.text(255)
	cs.After, cs.End = r.number(), r.number()
	n := r.number()
	if n > uint64(len(r.b)) {
		return cs, fmt.Errorf("change set of %d changes in %d bytes: %w", n, len(r.b), errGarbage)
	}
	for range n {
		key := r.text(MaxKey)
		raw := r.take(r.number())
		if r.bad {
			break
		}
		c, err := decodeChange(key, raw)
		if err != nil {
			return cs, fmt.Errorf("%w: %w", errGarbage, err)
		}
		cs.Changes = append(cs.Changes, Change{c.Record, c.seq})
	}
	if r.bad || len(r.b) > 0 {
		return cs, fmt.Errorf("change set: %w", errGarbage)
	}
	return cs, nil
}

// appendVector encodes a vector, the same bytes for the same vector.
func appendVector(b []byte, v map[string]uint64) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	for _, w := range slices.Sorted(maps.Keys(v)) {
		b = appendText(b, w)
		b = binary.AppendUvarint(b, v[w])
	}
	return b
}

// decodeVector reads what appendVector wrote, all of b.
func decodeVector(b []byte) (map[string]uint64, error) {
	r := reader{b: b}
	v := r.vector()
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("vector: %w", errGarbage)
	}
	return v, nil
}

// appendHead encodes how the answer to a sync begins: the clock's high-water
// mark, the vector and, when there are any, the targets of pending logs.
func appendHead(b []byte, clock Clock, x extent) []byte {
	b = appendVector(binary.BigEndian.AppendUint64(b, uint64(clock)), x.vector)
	if len(x.ahead) > 0 {
		b = appendVector(b, x.ahead)
	}
	return b
}

// decodeHead reads what appendHead wrote, all of b.
func decodeHead(b []byte) (clock Clock, x extent, err error) {
	r := reader{b: b}
	clock, x.vector = Clock(r.uint64()), r.vector()
	if len(r.b) > 0 {
		x.ahead = r.vector()
	}
	if r.bad || len(r.b) > 0 {
		return 0, extent{}, fmt.Errorf("head of an answer: %w", errGarbage)
	}
	return clock, x, nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// A reader takes values off bytes; after the first that is not there it is
// bad and yields zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) text(most uint64) string {
	n := r.number()
	if n > most {
		r.bad, r.b = true, nil
	}
	return string(r.take(n))
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// vector reads what appendVector wrote.
func (r *reader) vector() map[string]uint64 {
	n := r.number()
	if n > maxWriters || n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := make(map[string]uint64, n)
	for range n {
		w := r.text(255)
		v[w] = r.number()
	}
	if uint64(len(v)) != n { // one twice
		r.bad, r.b = true, nil
	}
	return v
}
