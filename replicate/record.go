package replicate

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Clock is a hybrid logical clock: 48 bits of Unix milliseconds, then 16 bits
// of counter (Kulkarni et al., "Logical Physical Clocks", 2014).
type Clock uint64

// Time is the clock's physical part.
func (c Clock) Time() time.Time { return time.UnixMilli(int64(c >> 16)) }

func clockAt(t time.Time) Clock { return Clock(max(t.UnixMilli(), 0)) << 16 }

// A Version orders the writes of one key. Writer is the node and the epoch of
// the process that wrote.
type Version struct {
	Clock  Clock
	Writer string
}

// Compare returns -1, 0 or +1 as v is older than, the same as, or newer than w.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Clock, w.Clock), strings.Compare(v.Writer, w.Writer))
}

// A Record is one value and the version that wrote it; Deleted records have
// no value.
type Record struct {
	Key     string
	Value   []byte
	Deleted bool
	Version Version
	// Saw is which versions of the key by other nodes the writer had seen.
	Saw []Sighting
	// Format is that of the record as stored, 0 for this version's own. One
	// newer than this software is kept and passed on unread: Value is then
	// whatever that format holds after the version.
	Format byte
}

// A Sighting says that a writer had seen a node's versions up to a clock.
type Sighting struct {
	Node  uint64 // the first half of the node's id
	Clock Clock
}

// newer says whether a replaces b. The order is total: whatever two nodes
// hold, in whatever order they heard of it, both keep the same one.
func newer(a, b Record) bool {
	return cmp.Or(a.Version.Compare(b.Version), bit(a.Deleted)-bit(b.Deleted), bytes.Compare(a.Value, b.Value)) > 0
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// What the store refuses.
var (
	ErrNotFound = errors.New("no such record")
	ErrTooLarge = errors.New("too large")
	ErrBadKey   = errors.New("not a key")
	ErrReadOnly = errors.New("written to in a View")
)

// Bounds of keys and values, in bytes.
const (
	MaxKey   = 512
	MaxValue = 8 << 20
)

func checkKey(key string) error {
	if len(key) == 0 || len(key) > MaxKey || !utf8.ValidString(key) || strings.ContainsFunc(key, unicode.IsControl) {
		if len(key) > 80 {
			key = key[:80] + "…"
		}
		return fmt.Errorf("key %q: %w: want 1 to %d bytes of text without control characters", key, ErrBadKey, MaxKey)
	}
	return nil
}

// Formats of records. All begin alike: a format byte, a flags byte, the clock
// and the sequence number (big endian, 8 bytes each), the writer's length and
// name. That never changes, so that a newer format is merged and passed on by
// software that cannot read it. In format 1 the value follows; in format 2 a
// byte with the number of sightings, 16 bytes for each, and then the value.
const (
	recordFormat  = 2
	recordDeleted = 1
	recordHeader  = 1 + 1 + 8 + 8 + 1
)

// A change is a record and its place in its writer's log.
type change struct {
	Record
	seq uint64
}

func (c change) encode() []byte {
	format := cmp.Or(c.Format, recordFormat)
	b := make([]byte, 0, recordHeader+len(c.Version.Writer)+1+16*len(c.Saw)+len(c.Value))
	b = append(b, format, byte(bit(c.Deleted)*recordDeleted))
	b = binary.BigEndian.AppendUint64(b, uint64(c.Version.Clock))
	b = binary.BigEndian.AppendUint64(b, c.seq)
	b = append(b, byte(len(c.Version.Writer)))
	b = append(b, c.Version.Writer...)
	if format == 2 {
		b = append(b, byte(len(c.Saw)))
		for _, s := range c.Saw {
			b = binary.BigEndian.AppendUint64(b, s.Node)
			b = binary.BigEndian.AppendUint64(b, uint64(s.Clock))
		}
	}
	return append(b, c.Value...)
}

// decodeChange reads what encode wrote, of this version or another. The value
// shares memory with b.
func decodeChange(key string, b []byte) (c change, err error) {
	if len(b) < recordHeader || len(b) < recordHeader+int(b[recordHeader-1]) {
		return c, fmt.Errorf("record %s is cut short at %d bytes", key, len(b))
	}
	if b[0] == 0 {
		return c, fmt.Errorf("record %s has format 0, which never was", key)
	}
	n := recordHeader + int(b[recordHeader-1])
	c.Key, c.Deleted = key, b[1]&recordDeleted != 0
	c.Version.Clock = Clock(binary.BigEndian.Uint64(b[2:]))
	c.seq = binary.BigEndian.Uint64(b[10:])
	c.Version.Writer = string(b[recordHeader:n])
	c.Value = b[n:]
	if b[0] != recordFormat {
		c.Format = b[0]
		return c, nil
	}
	r := reader{b: c.Value}
	for range r.byte() {
		c.Saw = append(c.Saw, Sighting{r.uint64(), Clock(r.uint64())})
	}
	if r.bad || len(c.Saw) > maxSaw {
		return c, fmt.Errorf("record %s is cut short or has more than %d sightings", key, maxSaw)
	}
	c.Value = r.b
	return c, nil
}
