package appliance

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"sync"
)

// small is the size, in bytes, up to which a file is sent from memory: to open
// one of 4 kB costs more than to send it.
const small = 32 << 10

// smallsMost is how many bytes of small files are in memory at most.
const smallsMost = 16 << 20

// smalls are small files in memory, as they were when they were verified.
// Those that are no longer held stay until there is no room: nobody finds them.
type smalls struct {
	mu    sync.RWMutex
	files map[*heldFile][]byte
	bytes int64
	most  int64 // bytes
}

// inMemory is a small file that needs no closing.
type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

// contentOf is a file that looks as it should: from memory, if it is small,
// else open.
func (f *folder) contentOf(name string, h *heldFile) (io.ReadSeekCloser, error) {
	if h.Bytes > small {
		return f.openAs(name, h)
	}
	b, err := f.smallOf(name, h)
	return inMemory{bytes.NewReader(b)}, err
}

// errNotSmall is a file too large to be sent from memory.
var errNotSmall = errors.New("not small")

// smallOf is the content of a small file that looks as it should.
func (f *folder) smallOf(name string, h *heldFile) ([]byte, error) {
	if h.Bytes > small {
		return nil, errNotSmall
	}
	if b := f.smalls.of(h); b != nil {
		_, err := f.looksAs(name, h) // in the folder, still
		return b, err
	}
	file, err := f.openAs(name, h)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return f.smalls.read(file, h)
}

// of is a file in memory; nil if it is not there.
func (s *smalls) of(h *heldFile) []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.files[h]
}

// read takes a file into memory. It is compared with its digest, which costs
// little, once: what rotted on the disk unseen is not served.
func (s *smalls) read(file io.Reader, h *heldFile) ([]byte, error) {
	b := make([]byte, h.Bytes)
	if _, err := io.ReadFull(file, b); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if sum := sha256.Sum256(b); !strings.EqualFold(hex.EncodeToString(sum[:]), h.SHA256) {
		return nil, errChanged
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files == nil || s.bytes+h.Bytes > s.most { // what is asked for comes back
		s.files, s.bytes = map[*heldFile][]byte{}, 0
	}
	if s.files[h] == nil {
		s.files[h] = b
		s.bytes += h.Bytes
	}
	return b, nil
}

var smallBuffers = sync.Pool{New: func() any { return new([small]byte) }}

// sendSmall sends header and body at once, where the connection can.
func (m *meter) sendSmall(r *io.LimitedReader) (int64, error) {
	buf := smallBuffers.Get().(*[small]byte)
	defer smallBuffers.Put(buf)
	n, err := io.ReadFull(r, buf[:r.N])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // as of every [io.ReaderFrom]; who wanted more counts
	}
	var sent int
	var err2 error
	if m.conn != nil {
		sent, err2 = m.conn.join(m.ResponseWriter, buf[:n])
	} else {
		sent, err2 = m.ResponseWriter.Write(buf[:n])
	}
	m.sent(int64(sent))
	return int64(sent), errors.Join(err, err2)
}
