package cab

import (
	"bytes"
	"compress/flate"
	"io"
)

// mszip unpacks MSZIP ([MS-MCI]): each block is "CK" and one whole deflate
// stream, whose history is what the blocks before it unpacked to.
type mszip struct {
	inflate io.ReadCloser
	src     bytes.Reader
	history []byte
	out     []byte
}

func (m *mszip) frame(in []byte, n int) ([]byte, error) {
	if len(in) < 2 || in[0] != 'C' || in[1] != 'K' {
		return nil, malformed("an MSZIP block without CK")
	}
	m.src.Reset(in[2:])
	if m.inflate == nil {
		m.inflate, m.out = flate.NewReader(&m.src), make([]byte, frameSize)
	} else if err := m.inflate.(flate.Resetter).Reset(&m.src, m.history); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(m.inflate, m.out[:n]); err != nil {
		return nil, malformed("MSZIP: %v", err)
	}
	// Only whole frames come before another, so one frame is all of the
	// 32 KiB that deflate can look back.
	m.history = append(m.history[:0], m.out[:n]...)
	return m.out[:n], nil
}
