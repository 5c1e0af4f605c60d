package catalogue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"
)

// errCorrupt is a catalogue file that is not as it was written.
var errCorrupt = errors.New("the catalogue file is damaged")

// An encoder appends values: numbers as varints, everything else behind its
// length.
type encoder []byte

func (e *encoder) num(n uint64)   { *e = binary.AppendUvarint(*e, n) }
func (e *encoder) bytes(b []byte) { *e = append(*e, b...) }

func (e *encoder) blob(b []byte) {
	e.num(uint64(len(b)))
	e.bytes(b)
}

func (e *encoder) str(s string) {
	e.num(uint64(len(s)))
	*e = append(*e, s...)
}

func (e *encoder) strs(list []string) {
	e.num(uint64(len(list)))
	for _, s := range list {
		e.str(s)
	}
}

func (e *encoder) guids(list []GUID) {
	e.num(uint64(len(list)))
	for _, g := range list {
		e.bytes(g[:])
	}
}

func (e *encoder) nums(list []uint32) {
	e.num(uint64(len(list)))
	for _, n := range list {
		e.num(uint64(n))
	}
}

// time has whole seconds; 0 is the zero time.
func (e *encoder) time(t time.Time) {
	if t.IsZero() || t.Unix() < 0 {
		e.num(0)
		return
	}
	e.num(uint64(t.Unix()))
}

// A decoder reads what an encoder wrote. Whatever it is given, it never reads
// past the end nor makes more than the input can fill; bad says that it was
// not sound, and then everything is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() {
	d.bad, d.b = true, nil
}

func (d *decoder) num() uint64 {
	n, size := binary.Uvarint(d.b)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) num32() uint32 {
	n := d.num()
	if n > 1<<32-1 {
		d.fail()
		return 0
	}
	return uint32(n)
}

// count is a number of things that take at least size bytes each.
func (d *decoder) count(size int) int {
	n := d.num()
	if n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.fail()
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) blob() []byte {
	b := d.take(d.count(1))
	if len(b) == 0 {
		return nil
	}
	return bytes.Clone(b)
}

func (d *decoder) str() string { return string(d.take(d.count(1))) }

func (d *decoder) strs() (list []string) {
	for range d.count(1) {
		list = append(list, d.str())
	}
	return list
}

func (d *decoder) guids() (list []GUID) {
	for range d.count(16) {
		var g GUID
		copy(g[:], d.take(16))
		list = append(list, g)
	}
	return list
}

func (d *decoder) nums() (list []uint32) {
	for range d.count(1) {
		list = append(list, d.num32())
	}
	return list
}

func (d *decoder) time() time.Time {
	if n := d.num(); n != 0 && n < 1<<40 {
		return time.Unix(int64(n), 0).UTC()
	}
	return time.Time{}
}

// skip passes over what blob, str, or a list's entry wrote.
func (d *decoder) skip() { d.take(d.count(1)) }

// The fields of details before the files, and which of the texts is Restart;
// see Details.encode.
const detailTexts, detailLists, detailRestart = 9, 3, 7

// skipToFiles passes over the details in front of the files, but for Restart.
func (d *decoder) skipToFiles() (restart []byte) {
	for i := range detailTexts {
		if i == detailRestart {
			restart = d.take(d.count(1))
			continue
		}
		d.skip()
	}
	for range detailLists {
		for range d.count(1) {
			d.skip()
		}
	}
	d.take(16 * d.count(16))
	return restart
}

// rowDetails reads only what is searched by.
func (d *decoder) rowDetails() (v Details) {
	d.skip() // UpdateType
	d.skip() // CategoryType
	v.Title = d.str()
	d.skip() // Description
	v.Severity, v.Bulletin = d.str(), d.str()
	for range 3 { // SupportURL, Restart, Language
		d.skip()
	}
	for range d.count(1) { // Localized
		d.skip()
	}
	v.KBs, v.CVEs = d.strs(), d.strs()
	return v
}
