package microsoft

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"
)

// A CabVersion is the scan cab that is held, and what Microsoft said of it.
type CabVersion struct {
	ETag         string    `json:"etag,omitempty"`
	LastModified string    `json:"last_modified,omitempty"`
	Size         int64     `json:"size"`
	SHA256       string    `json:"sha256"` // hexadecimal; empty when none is held
	Checked      time.Time `json:"checked"`
	Fetched      time.Time `json:"fetched"`
}

// Date is the Last-Modified, or the zero time.
func (v CabVersion) Date() time.Time {
	t, err := http.ParseTime(v.LastModified)
	if err != nil {
		return time.Time{}
	}
	return t
}

// DownloadScanCab brings the scan cab into dir unless Microsoft has none
// newer than prev; then nothing but a header moves, and changed is false. The
// new one is checked as a cabinet and replaces the old by rename, so whoever
// reads the old one reads on.
func (s *Source) DownloadScanCab(ctx context.Context, dir string, prev CabVersion, o DownloadOptions) (v CabVersion, fetched int64, changed bool, err error) {
	if err := s.flights.board(ctx, ScanCabName); err != nil {
		return prev, 0, false, err
	}
	defer s.flights.land(ScanCabName)
	if prev.SHA256 != "" {
		same, err := s.unchanged(ctx, prev)
		if err != nil {
			return prev, 0, false, fmt.Errorf("ask for a newer scan cab: %w", err)
		}
		if same {
			prev.Checked = time.Now()
			return prev, 0, false, nil
		}
	}
	p, err := openPartial(dir, ScanCabName)
	if err != nil {
		return prev, 0, false, err
	}
	defer p.Close()
	p.expect(ScanCabURL, 0)
	// A partial file that is whole already answers 416 to a Range: its size
	// is in its note.
	if p.note.Size <= 0 || p.size != p.note.Size {
		if fetched, err = s.fill(ctx, p, ScanCabURL, 0, o); err != nil {
			return prev, fetched, false, fmt.Errorf("download the scan cab: %w", err)
		}
	}
	r, err := p.check(File{Name: ScanCabName})
	if err == nil {
		err = CheckCab(p, r.Size)
	}
	if err != nil {
		p.discard()
		return prev, fetched, false, fmt.Errorf("the downloaded scan cab was thrown away: %w", err)
	}
	v = CabVersion{ETag: p.note.ETag, LastModified: p.note.LastModified, Size: r.Size, SHA256: hex.EncodeToString(r.SHA256[:]), Checked: time.Now(), Fetched: time.Now()}
	if err := p.publish(filepath.Join(dir, ScanCabName)); err != nil {
		return prev, fetched, false, err
	}
	return v, fetched, v.SHA256 != prev.SHA256, nil
}

// unchanged asks with If-None-Match and If-Modified-Since (RFC 9110, section
// 13.1). An answer with a body is closed unread and asked for again with
// resume.
func (s *Source) unchanged(ctx context.Context, prev CabVersion) (bool, error) {
	req, err := s.request(ctx, ScanCabURL)
	if err != nil {
		return false, err
	}
	if prev.ETag != "" {
		req.Header.Set("If-None-Match", prev.ETag)
	}
	if prev.LastModified != "" {
		req.Header.Set("If-Modified-Since", prev.LastModified)
	}
	req.Method = http.MethodHead
	resp, err := s.http.Do(req)
	if err != nil {
		return false, err
	}
	resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusNotModified:
		return true, nil
	case http.StatusOK:
		// Some proxies drop the conditions; the validators still tell.
		return prev.ETag != "" && resp.Header.Get("ETag") == prev.ETag, nil
	default:
		return false, &StatusError{URL: ScanCabURL, Code: resp.StatusCode}
	}
}

// errCab wraps what is wrong with a cabinet.
func errCab(format string, args ...any) error {
	return fmt.Errorf("not a sound cabinet: "+format, args...)
}

// CheckCab looks at a cabinet's header and tables ([MS-CAB], sections 2.1 to
// 2.3): signature, version, sizes, folders and files inside the bounds, not
// one of several. It does not decompress and does not check who signed it.
func CheckCab(r io.ReaderAt, size int64) error {
	const headerSize, folderSize, fileSize = 36, 8, 16
	h := make([]byte, headerSize+4)
	if n, err := r.ReadAt(h, 0); n < headerSize {
		return errCab("%d bytes: %w", n, errors.Join(err, io.ErrUnexpectedEOF))
	}
	le := binary.LittleEndian
	total, filesAt := int64(le.Uint32(h[8:])), int64(le.Uint32(h[16:]))
	folders, files, flags := int64(le.Uint16(h[26:])), int64(le.Uint16(h[28:])), le.Uint16(h[30:])
	switch {
	case string(h[:4]) != "MSCF":
		return errCab("it begins with %q, not MSCF", h[:4])
	case h[25] != 1 || h[24] > 3:
		return errCab("version %d.%d, want 1.3", h[25], h[24])
	case flags&^7 != 0 || flags&3 != 0:
		return errCab("it is one part of several")
	case total > size:
		return errCab("it says %d bytes and has %d", total, size)
	case folders == 0 || files == 0:
		return errCab("it is empty")
	}
	at, perFolder := int64(headerSize), int64(folderSize)
	if flags&4 != 0 { // reserved areas; a signature's place is in the first
		at += 4 + int64(le.Uint16(h[36:]))
		perFolder += int64(h[38])
	}
	if extra := size - total; extra > 0 {
		if err := checkSignaturePlace(r, flags, h[36:], total, extra); err != nil {
			return err
		}
	}
	if at+folders*perFolder > total || filesAt < at+folders*perFolder || filesAt+files*(fileSize+2) > total {
		return errCab("its tables lie outside of it")
	}
	entry := make([]byte, folderSize)
	for i := range folders {
		if _, err := r.ReadAt(entry, at+i*perFolder); err != nil {
			return errCab("folder %d: %w", i, err)
		}
		start, kind := int64(le.Uint32(entry)), le.Uint16(entry[6:])&15
		if start >= total || kind > 3 {
			return errCab("folder %d begins at %d of %d, compression %d", i, start, total, kind)
		}
	}
	return nil
}

// checkSignaturePlace checks that what follows the cabinet is the signature
// its header announces, padded to eight bytes.
func checkSignaturePlace(r io.ReaderAt, flags uint16, reserve []byte, total, extra int64) error {
	le := binary.LittleEndian
	place := make([]byte, 20)
	if _, err := r.ReadAt(place, 40); err != nil || flags&4 == 0 || le.Uint16(reserve) != 20 {
		return errCab("%d bytes follow it that it does not announce", extra)
	}
	if at, n := int64(le.Uint32(place[4:])), int64(le.Uint32(place[8:])); at != total || n != extra {
		return errCab("its signature is announced at %d with %d bytes, and is at %d with %d", at, n, total, extra)
	}
	return nil
}
