package swarm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// readAhead is how many pieces beyond the one that is read are asked for
// before the rest.
const readAhead = 3

// A Reader reads a file that is still arriving: Read waits for the piece it
// comes to, and that piece is fetched before others. The fetch goes on as
// long as somebody reads.
type Reader struct {
	ctx    context.Context // of one request: its end is the reader's
	s      *Swarm
	t      *transfer
	file   *os.File
	at     int64
	waited []int
}

// Open opens a file that is being fetched, until ctx ends.
func (s *Swarm) Open(ctx context.Context, d Digest) (*Reader, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.transfers[d]
	if t == nil || t.part == nil || t.finishes {
		return nil, errNoTransfer
	}
	// A file of its own: it stays open when the transfer ends and renames it.
	file, err := s.Root.Open(t.part.path())
	if err != nil {
		return nil, fmt.Errorf("open a file that is arriving: %w", err)
	}
	t.users++
	return &Reader{ctx: ctx, s: s, t: t, file: file}, nil
}

// Size is the size of the whole file in bytes.
func (r *Reader) Size() int64 { return r.t.m.Size }

// Manifest describes the file.
func (r *Reader) Manifest() *Manifest { return r.t.m }

// Seek implements [io.Seeker].
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.t.m.Size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	r.at = offset
	return offset, nil
}

// Read implements [io.Reader].
func (r *Reader) Read(b []byte) (int, error) {
	if r.at >= r.t.m.Size {
		return 0, io.EOF
	}
	piece := int(r.at / r.t.m.PieceSize)
	if err := r.wait(piece); err != nil {
		return 0, err
	}
	end := int64(piece)*r.t.m.PieceSize + r.t.m.Len(piece)
	n, err := r.file.ReadAt(b[:min(int64(len(b)), end-r.at)], r.at)
	r.at += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

// wait returns when a piece is there, and has it and the next ones fetched
// before others meanwhile.
func (r *Reader) wait(piece int) error {
	for {
		r.s.mu.Lock()
		changed, here := r.t.changed, r.t.part.has(piece)
		if here {
			r.await(nil)
			r.s.mu.Unlock()
			return nil
		}
		select {
		case <-r.t.done:
			err := r.t.err
			r.s.mu.Unlock()
			return errors.Join(fmt.Errorf("the file stopped arriving: %w", io.ErrUnexpectedEOF), err)
		default:
		}
		if len(r.waited) == 0 || r.waited[0] != piece {
			var list []int
			for i := piece; i <= piece+readAhead && i < len(r.t.m.Pieces); i++ {
				list = append(list, i)
			}
			r.await(list)
		}
		r.s.mu.Unlock()
		r.s.poke()
		select {
		case <-r.ctx.Done():
			return r.ctx.Err()
		case <-changed:
		}
	}
}

// await sets which pieces this reader waits for. The swarm's lock is held.
func (r *Reader) await(list []int) {
	for _, i := range r.waited {
		r.s.sched.await(r.t.m.SHA256, i, -1)
	}
	for _, i := range list {
		r.s.sched.await(r.t.m.SHA256, i, 1)
	}
	r.waited = list
}

// Close lets go of the file.
func (r *Reader) Close() error {
	r.s.mu.Lock()
	r.await(nil)
	r.s.mu.Unlock()
	r.s.leave(r.t)
	return r.file.Close()
}
