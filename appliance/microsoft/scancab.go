package microsoft

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"wuamesh/appliance/microsoft/authenticode"
)

// A CabVersion is the scan cab that is held, and what Microsoft said of it.
type CabVersion struct {
	ETag         string    `json:"etag,omitempty"`
	LastModified string    `json:"last_modified,omitempty"`
	Size         int64     `json:"size"`
	SHA256       string    `json:"sha256"` // hexadecimal; empty when none is held
	Checked      time.Time `json:"checked"`
	Fetched      time.Time `json:"fetched"`
	// Who signed it; empty as long as nobody looked.
	Signer string    `json:"signer,omitempty"`
	Root   string    `json:"root,omitempty"`
	Signed time.Time `json:"signed,omitzero"` // as a time stamp says
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
// new one's signature is checked, and it replaces the old by rename, so
// whoever reads the old one reads on.
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
	var sig *authenticode.Signature
	if err == nil {
		sig, err = s.VerifyScanCab(p, r.Size)
	}
	if err != nil {
		p.discard()
		return prev, fetched, false, fmt.Errorf("the downloaded scan cab was thrown away: %w", err)
	}
	v = CabVersion{ETag: p.note.ETag, LastModified: p.note.LastModified, Size: r.Size, SHA256: hex.EncodeToString(r.SHA256[:]), Checked: time.Now(), Fetched: time.Now()}
	v.Sign(sig)
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

// A Signature is one that holds.
type Signature = authenticode.Signature

// A SignatureError is a cabinet that Microsoft did not sign, or that is not
// as it was signed. Err wraps one of the authenticode package's.
type SignatureError struct {
	File string // the name of a file that somebody brought; empty for the scan cab
	Err  error
}

func (e *SignatureError) Error() string {
	if e.File != "" {
		return e.File + " is refused: " + e.Err.Error()
	}
	return "the scan cab is refused: " + e.Err.Error()
}

func (e *SignatureError) Unwrap() error { return e.Err }

// Explain says for people what is wrong, and what to do.
func (e *SignatureError) Explain() (msg, hint string) {
	what := "The scan cab that arrived"
	way := "Something between this node and Microsoft sends another file: look at proxy and upstream in its configuration."
	mirror := "If it comes from a mirror of yours that signs anew, name the mirror's root certificate in roots in this node's configuration."
	if e.File != "" {
		what, way = e.File, "Get the file from Microsoft's Update Catalog again, and upload it as it is."
		mirror = "If somebody of yours signs such files, name the root certificate in roots in this node's configuration."
	}
	switch {
	case errors.Is(e.Err, authenticode.ErrNoCabinet) && e.File != "":
		return e.File + " is no cabinet.", "Only cabinets carry a signature that is checked here. An .msu of Windows 11 24H2 or Windows Server 2025 and later may be in another format (WIM)."
	case errors.Is(e.Err, authenticode.ErrNoCabinet):
		return "What arrived in the scan cab's place is another kind of file.", "A page that asks for a login, or a proxy's own, is the usual cause: look what answers in Microsoft's place."
	case errors.Is(e.Err, authenticode.ErrUnsigned):
		return what + " is not signed.", way
	case errors.Is(e.Err, authenticode.ErrAltered), errors.Is(e.Err, authenticode.ErrMalformed):
		return what + " was changed after it was signed.", way
	case errors.Is(e.Err, authenticode.ErrUntrusted):
		return what + " is signed by somebody this node does not trust (" + after(e.Err) + ").", mirror
	case errors.Is(e.Err, authenticode.ErrPublisher):
		return what + " is signed by " + after(e.Err) + ".", way
	case errors.Is(e.Err, authenticode.ErrExpired):
		return "The certificate that " + strings.Replace(what, "The scan", "the scan", 1) + " was signed with is not valid now: " + after(e.Err) + ".",
			"Look at this machine's clock first. If it is right, the file is a very old one."
	}
	return what + " has a signature that does not hold: " + e.Err.Error() + ".", way
}

// after is what an error says behind its kind.
func after(err error) string {
	_, text, found := strings.Cut(err.Error(), ": ")
	if !found {
		return err.Error()
	}
	return text
}

// ReadRoots reads certificates in PEM from files.
func ReadRoots(paths []string) (list []*x509.Certificate, err error) {
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		more, err := authenticode.ParseRoots(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, more...)
	}
	return list, nil
}

// VerifyScanCab checks who signed a scan cab before anything reads its inside,
// by the roots of the options and Microsoft's own. It reads all of it. What is
// wrong with the cab is a [SignatureError].
func (s *Source) VerifyScanCab(r io.ReaderAt, size int64) (*Signature, error) {
	return s.verify(r, size, "")
}

// VerifyFile is the same for a .cab or .msu of that name that somebody brought.
func (s *Source) VerifyFile(r io.ReaderAt, size int64, name string) (*Signature, error) {
	return s.verify(r, size, name)
}

func (s *Source) verify(r io.ReaderAt, size int64, name string) (*Signature, error) {
	sig, err := authenticode.VerifyCab(r, size, authenticode.Trust{Microsoft: authenticode.MicrosoftRoots(), Others: s.roots, Now: time.Now()})
	if err == nil {
		return sig, nil
	}
	if authenticode.IsVerdict(err) {
		return nil, &SignatureError{name, err}
	}
	return nil, fmt.Errorf("read %s: %w", cmp.Or(name, "the scan cab"), err)
}

// Sign notes who signed the version.
func (v *CabVersion) Sign(sig *authenticode.Signature) {
	v.Signer, v.Root, v.Signed = sig.Chain[0].Subject.CommonName, sig.Root(), sig.Timestamp
}
