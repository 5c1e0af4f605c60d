package appliance

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// A statusRecord is the outcome of a host's last scan.
type statusRecord struct {
	scanRecord
	Statuses []agentproto.Status
}

// A scanRecord is what a scan says besides the statuses.
type scanRecord struct {
	Hash string           `json:"hash"`
	Scan *agentproto.Scan `json:"scan,omitempty"`
	Good time.Time        `json:"good,omitzero"`  // last scan without error
	Node string           `json:"node,omitempty"` // that the host told
}

// Packed, a status record is its format, the length of the rest of it and that
// as JSON, and one entry for each status: the 16 bytes of the UpdateID, the
// revision as a varint, a byte of flags, and where the flag is set the result
// (4 bytes, little endian) and the time of the last try (Unix nanoseconds, a
// varint). A fleet has more statuses than anything else, most of which would
// be names of fields in JSON: 150 of them are 2.9 kB like this, 14 kB so.
const statusFormat = 1

const (
	statusInstalled = 1 << iota
	statusOnHost
	statusRestart
	statusSuperseded
	statusTried
	statusFlags = 1<<iota - 1
)

func (r statusRecord) pack() ([]byte, error) {
	head, err := json.Marshal(r.scanRecord)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, 4+len(head)+20*len(r.Statuses))
	b = append(b, statusFormat)
	b = binary.AppendUvarint(b, uint64(len(head)))
	b = append(b, head...)
	for _, s := range r.Statuses {
		id, err := hex.AppendDecode(b, []byte(strings.ReplaceAll(string(s.ID), "-", "")))
		if err != nil || len(id) != len(b)+16 {
			return nil, fmt.Errorf("%q is no UpdateID", s.ID)
		}
		b = binary.AppendVarint(id, int64(s.Revision))
		flags := statusBits(s)
		b = append(b, flags)
		if flags&statusTried != 0 {
			b = binary.LittleEndian.AppendUint32(b, s.HResult)
			b = binary.AppendVarint(b, nanoseconds(s.Tried))
		}
	}
	return b, nil
}

// nanoseconds is 0 for the zero time, which UnixNano has no number for.
func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func statusBits(s agentproto.Status) (flags byte) {
	for bit, set := range map[byte]bool{
		statusInstalled: s.Installed, statusOnHost: s.OnHost, statusRestart: s.Restart, statusSuperseded: s.Superseded,
		statusTried: s.HResult != 0 || !s.Tried.IsZero(),
	} {
		if set {
			flags |= bit
		}
	}
	return flags
}

var errStatusCut = errors.New("the statuses are cut short")

func (r *statusRecord) unpack(b []byte) error {
	if len(b) == 0 || b[0] != statusFormat {
		return errors.New("the statuses have a format that this version does not know")
	}
	n, k := binary.Uvarint(b[1:])
	if k <= 0 || n > uint64(len(b)-1-k) {
		return errStatusCut
	}
	b = b[1+k:]
	if err := json.Unmarshal(b[:n], &r.scanRecord); err != nil {
		return err
	}
	b = b[n:]
	r.Statuses = make([]agentproto.Status, 0, min(len(b)/18, agentproto.MaxUpdates))
	for len(b) > 0 {
		s, rest, err := unpackStatus(b)
		if err != nil {
			return err
		}
		r.Statuses, b = append(r.Statuses, s), rest
	}
	return nil
}

func unpackStatus(b []byte) (s agentproto.Status, rest []byte, err error) {
	if len(b) < 18 {
		return s, nil, errStatusCut
	}
	h := hex.EncodeToString(b[:16])
	s.ID = rules.UpdateID(h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:])
	rev, k := binary.Varint(b[16:])
	if k <= 0 || len(b) < 17+k {
		return s, nil, errStatusCut
	}
	flags := b[16+k]
	if flags&^statusFlags != 0 {
		return s, nil, fmt.Errorf("status of %s has flags %#x, which this version does not know", s.ID, flags)
	}
	b = b[17+k:]
	s.Revision = int(rev)
	s.Installed, s.OnHost = flags&statusInstalled != 0, flags&statusOnHost != 0
	s.Restart, s.Superseded = flags&statusRestart != 0, flags&statusSuperseded != 0
	if flags&statusTried == 0 {
		return s, b, nil
	}
	if len(b) < 5 {
		return s, nil, errStatusCut
	}
	s.HResult = binary.LittleEndian.Uint32(b)
	at, k := binary.Varint(b[4:])
	if k <= 0 {
		return s, nil, errStatusCut
	}
	if at != 0 {
		s.Tried = time.Unix(0, at).UTC()
	}
	return s, b[4+k:], nil
}

// A cell is one status of a host in memory: the number of the revision of the
// update it is about, and five flags. Four bytes each, because a hundred
// thousand hosts have fifteen million of them.
type cell uint32

const (
	cellInstalled cell = 1 << iota
	cellOnHost
	cellRestart
	cellFailed // the last try ended with an error
	cellSuperseded

	cellShift = iota
)

func (k cell) variant() int { return int(k >> cellShift) }

// A variant is one revision of one update that some host reports.
type variant struct {
	id       rules.UpdateID
	revision int
}

// variants number what hosts report. Numbers are of this process alone and
// never given twice; there are as many as updates had revisions.
type variants struct {
	list   []variant
	number map[variant]int
}

func (v *variants) of(id rules.UpdateID, revision int) int {
	key := variant{id, revision}
	n, ok := v.number[key]
	if !ok {
		n = len(v.list)
		v.number[key] = n
		v.list = append(v.list, key)
	}
	return n
}

// A try is the last try of a host to install an update.
type try struct {
	hresult uint32
	at      time.Time
}

// hostStatuses are the statuses of a host in memory.
type hostStatuses struct {
	cells []cell      // in order, so that one is found without looking at all
	tries map[int]try // by variant; most hosts have none
}

func (v *variants) pack(list []agentproto.Status) (h hostStatuses) {
	h.cells = make([]cell, len(list))
	for i, s := range list {
		n := v.of(s.ID, s.Revision)
		k := cell(n) << cellShift
		for bit, set := range [...]bool{s.Installed, s.OnHost, s.Restart, s.HResult != 0, s.Superseded} {
			if set {
				k |= 1 << bit
			}
		}
		h.cells[i] = k
		if s.HResult != 0 || !s.Tried.IsZero() {
			if h.tries == nil {
				h.tries = map[int]try{}
			}
			h.tries[n] = try{s.HResult, s.Tried}
		}
	}
	slices.Sort(h.cells)
	return h
}

// about yields the cells about one variant.
func (h hostStatuses) about(variant int) iter.Seq[cell] {
	return func(yield func(cell) bool) {
		at, _ := slices.BinarySearch(h.cells, cell(variant)<<cellShift)
		for ; at < len(h.cells) && h.cells[at].variant() == variant; at++ {
			if !yield(h.cells[at]) {
				return
			}
		}
	}
}

// status is what a cell stands for.
func (c *catalogue) status(h *host, k cell) agentproto.Status {
	v := c.variants.list[k.variant()]
	t := h.statuses.tries[k.variant()]
	return agentproto.Status{
		ID: v.id, Revision: v.revision, Installed: k&cellInstalled != 0, OnHost: k&cellOnHost != 0, Restart: k&cellRestart != 0,
		Superseded: k&cellSuperseded != 0, HResult: t.hresult, Tried: t.at,
	}
}

// statusesOf yields the statuses of a host. The lock is held.
func (c *catalogue) statusesOf(h *host) iter.Seq[agentproto.Status] {
	return func(yield func(agentproto.Status) bool) {
		for _, k := range h.statuses.cells {
			if !yield(c.status(h, k)) {
				return
			}
		}
	}
}

// statusOf is the status of one update on a host. The lock is held.
func (c *catalogue) statusOf(h *host, id rules.UpdateID) (agentproto.Status, bool) {
	for _, k := range h.statuses.cells {
		if c.variants.list[k.variant()].id == id {
			return c.status(h, k), true
		}
	}
	return agentproto.Status{}, false
}
