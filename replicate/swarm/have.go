package swarm

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// What nodes say to each other about what they have. A question lists files
// and how much of each peer's announcements was heard; an answer brings what
// came since, in the order it came. All numbers are big-endian.
//
//	question: busy byte, then per file digest, epoch 8, seen 4
//	answer:   busy byte, then per file digest, epoch 8, total 4, n 4, n × 4
//
// An epoch names one start of the peer, so that nobody counts on from before
// a restart. Two are special: 0 has nothing of the file, 1 has all of it.
const (
	noEpoch    = 0
	wholeEpoch = 1

	questionFile = 32 + 8 + 4
	answerFile   = 32 + 8 + 4 + 4

	maxQuestion = 1 + activeMost*questionFile
	maxNews     = 16384 // pieces of one file in one answer
	maxAnswer   = 1 + activeMost*(answerFile+4*maxNews)
)

type seen struct {
	epoch uint64
	n     uint32 // announcements of that epoch
}

// A question is what one peer is asked.
type question struct {
	busy  bool // what it last said
	files []Digest
	seen  map[Digest]seen
	of    map[Digest]*transfer // that seen belongs to: one that began anew knows nothing
}

// update takes in which files are active.
func (q *question) update(transfers map[Digest]*transfer) {
	q.files = q.files[:0]
	known, of := q.seen, q.of
	q.seen, q.of = map[Digest]seen{}, map[Digest]*transfer{}
	for d, t := range transfers {
		if t.part == nil || len(q.files) == activeMost {
			continue
		}
		q.files = append(q.files, d)
		q.of[d] = t
		if k, ok := known[d]; ok && of[d] == t {
			q.seen[d] = k
		}
	}
}

func (q *question) heard(f answered) {
	if f.epoch == noEpoch {
		delete(q.seen, f.digest)
		return
	}
	q.seen[f.digest] = seen{f.epoch, f.total}
}

func (q *question) forget() { clear(q.seen) }

func (q *question) encode() []byte {
	b := make([]byte, 1, 1+len(q.files)*questionFile)
	b[0] = flag(q.busy)
	for _, d := range q.files {
		k := q.seen[d]
		b = append(b, d[:]...)
		b = binary.BigEndian.AppendUint64(b, k.epoch)
		b = binary.BigEndian.AppendUint32(b, k.n)
	}
	return b
}

func decodeQuestion(b []byte) (*question, error) {
	if len(b) < 1 || len(b) > maxQuestion || (len(b)-1)%questionFile != 0 {
		return nil, fmt.Errorf("a question of %d bytes is none", len(b))
	}
	q := &question{busy: b[0] != 0, seen: map[Digest]seen{}}
	for b = b[1:]; len(b) > 0; b = b[questionFile:] {
		d := Digest(b[:32])
		if _, twice := q.seen[d]; twice {
			return nil, errors.New("a question names a file twice")
		}
		q.files = append(q.files, d)
		q.seen[d] = seen{binary.BigEndian.Uint64(b[32:]), binary.BigEndian.Uint32(b[40:])}
	}
	return q, nil
}

// An answer is what a peer has.
type answer struct {
	busy  bool
	files []answered
}

// answered is one file in it: total announcements with these pieces.
type answered struct {
	digest Digest
	epoch  uint64
	total  uint32
	pieces []int32
}

func (a *answer) encode() []byte {
	b := []byte{flag(a.busy)}
	for _, f := range a.files {
		b = append(b, f.digest[:]...)
		b = binary.BigEndian.AppendUint64(b, f.epoch)
		b = binary.BigEndian.AppendUint32(b, f.total)
		b = binary.BigEndian.AppendUint32(b, uint32(len(f.pieces)))
		for _, i := range f.pieces {
			b = binary.BigEndian.AppendUint32(b, uint32(i))
		}
	}
	return b
}

func decodeAnswer(b []byte) (*answer, error) {
	if len(b) < 1 || len(b) > maxAnswer {
		return nil, fmt.Errorf("an answer of %d bytes is none", len(b))
	}
	a := &answer{busy: b[0] != 0}
	for b = b[1:]; len(b) > 0; {
		if len(b) < answerFile {
			return nil, errors.New("an answer is cut short")
		}
		f := answered{digest: Digest(b[:32]), epoch: binary.BigEndian.Uint64(b[32:]), total: binary.BigEndian.Uint32(b[40:])}
		n := binary.BigEndian.Uint32(b[44:])
		b = b[answerFile:]
		if n > maxNews || int(n)*4 > len(b) || len(a.files) == activeMost {
			return nil, errors.New("an answer is out of bounds")
		}
		for ; n > 0; n-- {
			i := binary.BigEndian.Uint32(b)
			if i >= MaxPieces {
				return nil, errors.New("an answer names a piece out of bounds")
			}
			f.pieces = append(f.pieces, int32(i))
			b = b[4:]
		}
		a.files = append(a.files, f)
	}
	return a, nil
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}
