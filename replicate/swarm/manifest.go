package swarm

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Bounds of a manifest, checked before anything is believed of it.
const (
	MaxSize   = 64 << 30 // bytes of one file
	MaxPieces = 131072   // of one file

	// MinPiece and MaxPiece bound the size of a piece, in bytes, of files that
	// have more than one. Smaller pieces gain nothing, larger ones arrive too
	// late at those who wait to pass them on (DESIGN.md has the figures).
	MinPiece = 512 << 10
	MaxPiece = 1 << 20
)

// A Digest is the SHA-256 of a file's content: its identity.
type Digest [sha256.Size]byte

// ParseDigest reads 64 hexadecimal digits.
func ParseDigest(s string) (d Digest, err error) {
	if len(s) != 2*len(d) {
		return d, fmt.Errorf("%.80q is no SHA-256", s)
	}
	_, err = hex.Decode(d[:], []byte(s))
	return d, err
}

// String is the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// LogValue implements [slog.LogValuer] with the first digits.
func (d Digest) LogValue() slog.Value { return slog.StringValue(d.String()[:16]) }

// A Manifest says what a file is, piece by piece.
type Manifest struct {
	Size      int64 // bytes
	SHA256    Digest
	SHA1      [sha1.Size]byte
	PieceSize int64 // bytes of every piece but the last
	Pieces    [][sha256.Size]byte
}

// PieceSizeFor is the piece size of a file: it grows with the file from
// [MinPiece] to [MaxPiece].
func PieceSizeFor(size int64) int64 {
	if size > 1<<30 {
		return MaxPiece
	}
	return MinPiece
}

// pieceCount is how many pieces a file of that size has; an empty file has
// none.
func pieceCount(size, piece int64) int64 { return (size + piece - 1) / piece }

// Len is the number of bytes of piece i.
func (m *Manifest) Len(i int) int64 {
	return min(m.PieceSize, m.Size-int64(i)*m.PieceSize)
}

// Root is one digest that stands for the whole manifest: who knows it can
// take the manifest itself from anybody.
func (m *Manifest) Root() Digest { return sha256.Sum256(m.Encode()) }

// Make reads a file of the given size to its end and describes it.
func Make(ctx context.Context, r io.Reader, size int64) (*Manifest, error) {
	m := &Manifest{Size: size, PieceSize: PieceSizeFor(size)}
	if size < 0 || size > MaxSize {
		return nil, fmt.Errorf("make a manifest: %d bytes are out of bounds", size)
	}
	whole, old := sha256.New(), sha1.New()
	buf := make([]byte, m.PieceSize)
	for i := range int(pieceCount(size, m.PieceSize)) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b := buf[:m.Len(i)]
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, fmt.Errorf("make a manifest: piece %d: %w", i, err)
		}
		whole.Write(b)
		old.Write(b)
		m.Pieces = append(m.Pieces, sha256.Sum256(b))
	}
	if n, err := r.Read(buf[:1]); n > 0 || err != io.EOF {
		return nil, errors.Join(errors.New("make a manifest: the file is longer than it was said to be"), err)
	}
	m.SHA256, m.SHA1 = Digest(whole.Sum(nil)), [sha1.Size]byte(old.Sum(nil))
	return m, nil
}

// Check refuses what [Make] does not make.
func (m *Manifest) Check() error {
	switch {
	case m.Size < 0 || m.Size > MaxSize:
		return fmt.Errorf("manifest: %d bytes are out of bounds", m.Size)
	case m.PieceSize != PieceSizeFor(m.Size):
		return fmt.Errorf("manifest: pieces of %d bytes in a file of %d", m.PieceSize, m.Size)
	case int64(len(m.Pieces)) != pieceCount(m.Size, m.PieceSize) || len(m.Pieces) > MaxPieces:
		return fmt.Errorf("manifest: %d pieces of %d bytes in a file of %d", len(m.Pieces), m.PieceSize, m.Size)
	}
	return nil
}

// The encoding: magic, size, piece size, SHA-256, SHA-1, then the digests of
// the pieces. Numbers are big-endian.
const (
	manifestMagic  = "wuaswrm1"
	manifestHeader = len(manifestMagic) + 8 + 4 + sha256.Size + sha1.Size
)

// MaxManifest is the most bytes an encoded manifest has.
const MaxManifest = manifestHeader + MaxPieces*sha256.Size

// Encode is the manifest as bytes; one manifest has one encoding.
func (m *Manifest) Encode() []byte {
	b := make([]byte, 0, manifestHeader+len(m.Pieces)*sha256.Size)
	b = append(b, manifestMagic...)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Size))
	b = binary.BigEndian.AppendUint32(b, uint32(m.PieceSize))
	b = append(b, m.SHA256[:]...)
	b = append(b, m.SHA1[:]...)
	for i := range m.Pieces {
		b = append(b, m.Pieces[i][:]...)
	}
	return b
}

// Decode reads an encoded manifest and checks it.
func Decode(b []byte) (*Manifest, error) {
	if len(b) < manifestHeader || len(b) > MaxManifest || !bytes.HasPrefix(b, []byte(manifestMagic)) {
		return nil, errors.New("decode a manifest: this is none")
	}
	b = b[len(manifestMagic):]
	m := &Manifest{Size: int64(binary.BigEndian.Uint64(b)), PieceSize: int64(binary.BigEndian.Uint32(b[8:]))}
	b = b[12:]
	b = b[copy(m.SHA256[:], b):]
	b = b[copy(m.SHA1[:], b):]
	if m.Size < 0 || m.Size > MaxSize || m.PieceSize != PieceSizeFor(m.Size) ||
		int64(len(b)) != pieceCount(m.Size, m.PieceSize)*sha256.Size {
		return nil, fmt.Errorf("decode a manifest: %d bytes of digests for a file of %d", len(b), m.Size)
	}
	m.Pieces = make([][sha256.Size]byte, len(b)/sha256.Size)
	for i := range m.Pieces {
		b = b[copy(m.Pieces[i][:], b):]
	}
	return m, m.Check()
}
