package replicate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
)

// A parcel is a sync that is carried by hand, to a node without a line: what
// one side would say on connecting, and the change sets that the other lacks.
// Compressed: a block of JSON (ParcelInfo), a block with the clock's high-water
// mark and the vector, a block per change set, zero.

// A ParcelInfo says whose parcel it is.
type ParcelInfo struct {
	Hello hello            `json:"hello"`
	Heard map[string]int64 `json:"heard,omitempty"` // when the writer last heard of other nodes, Unix milliseconds
	Whole bool             `json:"whole,omitempty"` // it holds everything that the writer has
}

// What taking a parcel in may find.
var (
	// ErrParcelOld is a parcel of which deletions may be forgotten by now.
	ErrParcelOld = errors.New("the parcel is too old")
	// ErrParcelCopy says that this node had no word of the writer for so long
	// that it has to take a fresh copy, and the parcel is not whole.
	ErrParcelCopy = errors.New("a whole parcel is needed")
	// ErrParcelFrom says that the writer was away for so long that it has to
	// take a fresh copy of a parcel from here first.
	ErrParcelFrom = errors.New("its writer has to take a fresh copy first")
)

// Pack writes a parcel for a node that is known to have what the vector says;
// nil for everything. It returns the vector of what is in the parcel or known
// to be there.
func (m *Mesh) Pack(ctx context.Context, w io.Writer, to string, have map[string]uint64) (vector map[string]uint64, err error) {
	if m.db.fenced.Load() {
		return nil, errors.New("pack a parcel: this node is taking a fresh copy itself")
	}
	info, err := json.Marshal(ParcelInfo{m.hello(laneControl, to), m.standing().Contact, len(have) == 0})
	if err != nil {
		return nil, err
	}
	z := packers.Get().(*zstd.Encoder)
	defer packers.Put(z)
	z.Reset(w)
	if err = writeBlock(z, info); err == nil {
		vector, err = m.db.writeLacking(z, have, func(int) (bool, error) { return true, ctx.Err() })
	}
	if err == nil {
		_, err = z.Write(make([]byte, 4))
	}
	if err = errors.Join(err, z.Close()); err != nil {
		return nil, fmt.Errorf("pack a parcel: %w", err)
	}
	return vector, nil
}

// An Unpacked is what a parcel brought.
type Unpacked struct {
	From    string
	Made    time.Time
	Vector  map[string]uint64 // of the writer, when it was made
	Changes int               // that were in it
	Copied  bool              // a fresh copy was taken
}

// Unpack merges a parcel as a sync does. What interrupts it leaves every
// change set whole or out, and unpacking it again goes on. A parcel that
// follows one which never came is ErrGap.
func (m *Mesh) Unpack(ctx context.Context, r io.Reader) (Unpacked, error) {
	z, err := newUnpacker(r)
	if err != nil {
		return Unpacked{}, fmt.Errorf("unpack a parcel: %w", err)
	}
	defer unpackers.Put(z)
	u, err := m.unpack(ctx, z)
	if err != nil {
		return u, fmt.Errorf("unpack a parcel: %w", err)
	}
	return u, nil
}

func (m *Mesh) unpack(ctx context.Context, r io.Reader) (u Unpacked, err error) {
	var info ParcelInfo
	b, err := readBlock(r, 4<<20)
	if err == nil {
		err = json.Unmarshal(b, &info)
	}
	if err != nil {
		return u, fmt.Errorf("its beginning: %w", err)
	}
	u.From, u.Made = info.Hello.Node, time.UnixMilli(info.Hello.Time)
	if !isNodeID(u.From) || u.From == m.id || !info.Hello.compatible() {
		return u, fmt.Errorf("its beginning: %w", errHello)
	}
	if b, err = readBlock(r, 16<<20); err != nil {
		return u, err
	}
	clock, from, err := decodeHead(b)
	if err != nil {
		return u, err
	}
	u.Vector = from.vector
	if err := m.db.believe(clock); err != nil {
		return u, err
	}
	take, finish, err := m.taker(ctx, info)
	if err != nil {
		return u, err
	}
	if u.Changes, err = takeSets(ctx, r, from, func() (bool, error) { return false, nil }, take); err != nil {
		return u, err
	}
	u.Copied = finish != nil
	if u.Copied {
		if err := finish(ctx); err != nil {
			return u, err
		}
	}
	m.db.acknowledge(u.Vector)
	m.heardFrom(info)
	return u, nil
}

// taker is how the change sets of a parcel are stored: merged, or as a fresh
// copy after a long absence, which finish ends.
func (m *Mesh) taker(ctx context.Context, info ParcelInfo) (take func(context.Context, portion) error, finish func(context.Context) error, err error) {
	theirs := info.Hello
	m.reckon(theirs)
	mine := m.hello(laneControl, theirs.Node)
	if mine.Time-theirs.Time > absence.Milliseconds() {
		return nil, nil, ErrParcelOld
	}
	mine.Time = theirs.Time // what counts is how it was when the parcel was made
	switch fencedOf(mine, theirs) {
	case theirs.Node:
		return nil, nil, ErrParcelFrom
	case m.id:
		if !info.Whole {
			return nil, nil, ErrParcelCopy
		}
		m.problems.add(m.id, copyProblem)
		f, err := m.db.beginCopy(ctx)
		if err != nil {
			return nil, nil, err
		}
		return f.take, func(ctx context.Context) error {
			return m.finishCopy(ctx, f, theirs.Node, time.UnixMilli(theirs.Time), standing{info.Heard, theirs.Copies})
		}, nil
	}
	return m.db.merge, nil, nil
}

// heardFrom notes when the writer of a parcel, and through it other nodes,
// were heard of.
func (m *Mesh) heardFrom(info ParcelInfo) {
	heard := map[string]int64{info.Hello.Node: info.Hello.Time}
	for id, ms := range info.Heard {
		if id != m.id && id != info.Hello.Node {
			heard[id] = ms
		}
	}
	m.hearContact(heard)
	m.storeContacts(context.Background())
	m.noteChange()
}
