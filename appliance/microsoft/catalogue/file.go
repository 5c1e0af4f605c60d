package catalogue

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"
)

// The file of a catalogue: a page with a header in JSON, then the sections one
// after the other. It is written once and replaced by rename; whoever has it
// open reads on. Numbers in tables are little-endian.
const (
	headerBytes   = 4096
	formatVersion = 2
	formatName    = "wuamesh catalogue"
)

// The sections, in the order they are written.
const (
	secDetails   = iota // of every revision, see Details.encode
	secGraph            // what every revision points at, see builder.graph
	secRevisions        // table of revisionEntry, by RevisionId
	secIDs              // numbers of entries of secRevisions, by UpdateID
	secFiles            // table of SHA-1 and place in secLocations, by SHA-1
	secLocations        // URL and owners of every file
	secRows             // columns of what can be searched, see rows
	secTables           // categories and their titles, sets of products
	secWords            // words of titles, where to find their rows
	secKeys             // KBs, CVEs, bulletins: the same
	secKeyIndex         // table of places in secKeys
	secPostings         // rows
	sections
)

// A Header says what a catalogue was made from.
type Header struct {
	Format    string    `json:"format"`
	Version   int       `json:"version"`
	Source    string    `json:"source"`     // SHA-256 of the scan cab, hexadecimal
	PackageID string    `json:"package_id"` // changes with every publication
	Created   time.Time `json:"created"`    // of the package, by Microsoft
	Imported  time.Time `json:"imported"`
	Counts    Counts    `json:"counts"`
	// Problems are fragments that were not understood, at most 20 of them; the
	// update is then known by what package.xml says.
	Problems []string `json:"problems,omitempty"`

	Sections [sections]extent `json:"sections"`
}

// Counts are how much a catalogue has.
type Counts struct {
	Revisions  int `json:"revisions"`
	Updates    int `json:"updates"` // that hosts report: bundles and single ones
	Superseded int `json:"superseded"`
	Categories int `json:"categories"`
	Files      int `json:"files"`
	Problems   int `json:"problems"`
}

type extent struct {
	At   int64  `json:"at"`
	Size int64  `json:"size"`
	CRC  uint32 `json:"crc"` // Castagnoli's
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A fileWriter writes the sections of a new file.
type fileWriter struct {
	f      *os.File
	w      *bufio.Writer
	at     int64 // in the file
	header Header
	open   *extent
}

func createFile(path string) (*fileWriter, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("write the catalogue: %w", err)
	}
	w := &fileWriter{f: f, w: bufio.NewWriterSize(f, 256<<10), at: headerBytes}
	if _, err := f.Seek(headerBytes, io.SeekStart); err != nil {
		return nil, errors.Join(fmt.Errorf("write the catalogue: %w", err), f.Close())
	}
	return w, nil
}

// begin ends the open section and begins another; they come in order.
func (w *fileWriter) begin(section int) {
	w.open = &w.header.Sections[section]
	w.open.At = w.at
}

// Write appends to the open section.
func (w *fileWriter) Write(p []byte) (int, error) {
	w.open.CRC = crc32.Update(w.open.CRC, castagnoli, p)
	w.open.Size += int64(len(p))
	w.at += int64(len(p))
	n, err := w.w.Write(p)
	if err != nil {
		return n, fmt.Errorf("write the catalogue: %w", err)
	}
	return n, nil
}

// finish writes the header and makes the file that of path, durably.
func (w *fileWriter) finish(path string) error {
	w.header.Format, w.header.Version = formatName, formatVersion
	b, err := json.Marshal(w.header)
	if err != nil {
		return fmt.Errorf("write the catalogue: %w", err)
	}
	for len(b) > headerBytes-8 && len(w.header.Problems) > 0 {
		w.header.Problems = w.header.Problems[:len(w.header.Problems)/2]
		if b, err = json.Marshal(w.header); err != nil {
			return fmt.Errorf("write the catalogue: %w", err)
		}
	}
	page := make([]byte, headerBytes)
	binary.LittleEndian.PutUint32(page, uint32(len(b)))
	binary.LittleEndian.PutUint32(page[4:], crc32.Checksum(b, castagnoli))
	copy(page[8:], b)
	err = w.w.Flush()
	if err == nil {
		_, err = w.f.WriteAt(page, 0)
	}
	if err == nil {
		err = w.f.Sync()
	}
	if err == nil {
		err = w.f.Close()
	}
	if err == nil {
		err = os.Rename(w.f.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write the catalogue: %w", err)
	}
	return nil
}

// discard gives up.
func (w *fileWriter) discard() {
	w.f.Close()
	os.Remove(w.f.Name())
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// readHeader reads and checks the first page.
func readHeader(f *os.File) (h Header, err error) {
	page := make([]byte, headerBytes)
	if _, err := f.ReadAt(page, 0); err != nil {
		return h, errCorrupt
	}
	size := binary.LittleEndian.Uint32(page)
	if size > headerBytes-8 {
		return h, errCorrupt
	}
	b := page[8 : 8+size]
	if crc32.Checksum(b, castagnoli) != binary.LittleEndian.Uint32(page[4:]) || json.Unmarshal(b, &h) != nil || h.Format != formatName {
		return h, errCorrupt
	}
	if h.Version != formatVersion {
		return h, fmt.Errorf("the catalogue file is of version %d, this program reads %d", h.Version, formatVersion)
	}
	return h, nil
}

// checkSections compares every section's checksum. It reads the whole file,
// past this program's memory.
func checkSections(f *os.File, h *Header) error {
	buf := make([]byte, 512<<10)
	for _, s := range h.Sections {
		crc := crc32.New(castagnoli)
		n, err := io.CopyBuffer(crc, struct{ io.Reader }{io.NewSectionReader(f, s.At, s.Size)}, buf)
		if err != nil {
			return fmt.Errorf("read the catalogue: %w", err)
		}
		if n != s.Size || crc.Sum32() != s.CRC {
			return errCorrupt
		}
	}
	return nil
}
