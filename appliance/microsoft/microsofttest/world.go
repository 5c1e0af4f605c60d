// Package microsofttest stands in for Microsoft: an invented catalogue of
// updates in Microsoft's style, a scan cab that holds it, and a server of the
// cab and the files that can be told to misbehave. Everything follows from a
// seed. Tests use it, and the demonstration.
package microsofttest

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"wuamesh/appliance/microsoft/authenticode/authenticodetest"
)

// Options say what world to make.
type Options struct {
	Seed      uint64
	Months    int       // of patch Tuesdays; 0 is 3
	Newest    time.Time // the last of them; zero is November 2026
	FileBytes int64     // average size of a file; 0 is 256 kB
}

// A Category is a product or a classification, with Microsoft's GUID.
type Category struct{ ID, Title string }

// An Update is one update of the invented catalogue.
type Update struct {
	ID             string
	Revision       int
	Title          string
	KB             string
	Severity       string // "" for none
	Classification Category
	Products       []Category
	Published      time.Time
	CVEs           []string
	Supersedes     []string // UpdateIDs
	Restart        string   // "never", "always", "maybe"
	Builds         []string // of Windows it applies to: "10.0.26200"
	Files          []File
}

// A File is one file of an update.
type File struct {
	Name, URL    string
	Size         int64
	SHA1, SHA256 string // hexadecimal
	seed         uint64
	bytes        []byte // instead of those that follow from the seed
}

// A World is Microsoft.
type World struct {
	mu       sync.Mutex
	opts     Options
	rng      *rand.Rand
	updates  []Update
	last     map[string]string // track → UpdateID of its newest
	root     *authenticodetest.Authority
	signer   *authenticodetest.Signer
	plain    []byte // the cab before it is signed
	cab      []byte
	modified time.Time
	files    map[string]File // by URL path
	counts   map[string]Count
	faults   map[string][]Fault
}

// New makes a world.
func New(o Options) *World {
	if o.Months == 0 {
		o.Months = 3
	}
	if o.FileBytes == 0 {
		o.FileBytes = 256 << 10
	}
	if o.Newest.IsZero() {
		o.Newest = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	}
	w := &World{
		opts: o, rng: rand.New(rand.NewPCG(o.Seed, 1)),
		root: authenticodetest.NewAuthority(o.Seed),
		last: map[string]string{}, files: map[string]File{}, counts: map[string]Count{}, faults: map[string][]Fault{},
	}
	w.signer = w.root.Signer(authenticodetest.SignerOptions{})
	for i := range o.Months {
		w.Publish(o.Newest.AddDate(0, i+1-o.Months, 0))
	}
	return w
}

// Updates are all updates published so far, oldest first.
func (w *World) Updates() []Update {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Update(nil), w.updates...)
}

// Cab is the scan cab as it is now.
func (w *World) Cab() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cab
}

// Unsigned is the scan cab as it was before it was signed.
func (w *World) Unsigned() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.plain
}

// Replace has other bytes served as the scan cab until the next month is
// published.
func (w *World) Replace(cab []byte, modified time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cab, w.modified = cab, modified
}

// RootPEM is the root that signs the scan cab.
func (w *World) RootPEM() []byte { return w.root.RootPEM() }

// RootFile writes the root that signs the scan cab into a directory: the
// configuration's key "roots" takes its path.
func (w *World) RootFile(dir string) (path string, err error) {
	path = filepath.Join(dir, "microsofttest.pem")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("write the root of the stand-in: %w", err)
	}
	if err := os.WriteFile(path, w.root.RootPEM(), 0o644); err != nil {
		return "", fmt.Errorf("write the root of the stand-in: %w", err)
	}
	return path, nil
}

// Classifications and products with their true GUIDs.
var (
	security = Category{"0fa1201d-4330-4fa8-8ae9-b877473b6441", "Security Updates"}
	critical = Category{"e6cf1350-c01b-414d-a61f-263d14d133b4", "Critical Updates"}
	rollups  = Category{"28bc880e-0592-4cbf-8f95-c79b17911d5f", "Update Rollups"}
	updates  = Category{"cd5ffd1e-e932-4e3a-bf74-18bf0b1bbd83", "Updates"}

	windows11  = Category{"72e7624a-5b00-45d2-b92f-e561c0a6a160", "Windows 11"}
	windows10  = Category{"b3c75dc1-155f-4be4-b015-3f1a91758e52", "Windows 10, version 1903 and later"}
	server2022 = Category{"71718f13-7324-4b0f-8f9e-2ca9dc978e53", "Microsoft Server operating system-21H2"}
	server2025 = Category{"b256987d-4693-4c87-955d-dbb9341205eb", "Microsoft Server Operating System-24H2"}
	office2016 = Category{"25aed893-7c2d-4a31-ae22-28ff8ac150ed", "Office 2016"}
)

// A namedCategory is a category as the scan cab has it.
type namedCategory struct {
	Category
	kind string
}

var categories = []namedCategory{
	{security, "UpdateClassification"}, {critical, "UpdateClassification"}, {rollups, "UpdateClassification"}, {updates, "UpdateClassification"},
	{windows11, "Product"}, {windows10, "Product"}, {server2022, "Product"}, {server2025, "Product"}, {office2016, "Product"},
}

// A system is what an update is made for: one KB, one UpdateID for each.
type system struct {
	title, build string
	product      Category
}

var (
	w11h2 = system{"Windows 11 Version 25H2 for x64-based Systems", "10.0.26200", windows11}
	w11h1 = system{"Windows 11 Version 24H2 for x64-based Systems", "10.0.26100", windows11}
	w10   = system{"Windows 10 Version 22H2 for x64-based Systems", "10.0.19045", windows10}
	s22   = system{"Microsoft server operating system version 21H2 for x64-based Systems", "10.0.20348", server2022}
	s25   = system{"Microsoft server operating system version 24H2 for x64-based Systems", "10.0.26100", server2025}
)

// tracks are what comes out every month.
var tracks = []struct {
	title      string // {ym}, {system}
	dir, file  string
	class      Category
	severity   string
	restart    string
	cumulative bool // each month's replaces the last
	share      int  // of the average file size, in per cent
	systems    []system
}{
	{"{ym} Cumulative Update for {system}", "secu", "windows10.0-kb{kb}-x64", security, "Critical", "always", true, 300, []system{w11h2, w11h1}},
	{"{ym} Cumulative Update for {system}", "secu", "windows10.0-kb{kb}-x64", security, "Critical", "always", true, 250, []system{w10}},
	{"{ym} Cumulative Update for {system}", "secu", "windows10.0-kb{kb}-x64", security, "Important", "always", true, 280, []system{s22, s25}},
	{"{ym} Cumulative Update for .NET Framework 3.5 and 4.8.1 for {system}", "secu", "windows10.0-kb{kb}-x64-ndp481", security, "Important", "maybe", true, 60, []system{w11h2, w11h1, w10, s22}},
	{"{ym} Servicing Stack Update for {system}", "crup", "ssu-{kb}-x64", critical, "Critical", "never", false, 15, []system{w10, s22}},
	{"Windows Malicious Software Removal Tool x64 - {ym}", "uprl", "windows-kb{kb}-x64", rollups, "", "never", false, 40, []system{w11h2, w11h1, w10, s22, s25}},
	{"Security Update for Microsoft Office 2016 ({system})", "secu", "mso2016-kb{kb}-fullfile-x64", security, "Important", "maybe", false, 30, []system{{"64-bit edition", "", office2016}}},
	{"{ym} Update for {system}", "updt", "windows10.0-kb{kb}-x64", updates, "", "maybe", false, 20, []system{w11h2, w11h1, w10}},
	{"{ym} Security Update for {system}", "secu", "windows10.0-kb{kb}-x64", security, "Moderate", "maybe", false, 12, []system{w11h2, w11h1, w10, s22, s25}},
}

// Publish adds the patch Tuesday of a month and makes a new cab.
func (w *World) Publish(month time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	day := patchTuesday(month)
	for ti, t := range tracks {
		kb := fmt.Sprint(5040000 + (day.Year()-2024)*24000 + int(day.Month())*1900 + ti*97 + w.rng.IntN(90))
		for _, s := range t.systems {
			u := Update{
				ID: w.guid(), Revision: 200 + w.rng.IntN(5), KB: kb, Severity: t.severity, Classification: t.class, Products: []Category{s.product},
				Published: day.Add(time.Duration(w.rng.IntN(7200)) * time.Second), Restart: t.restart,
				Title: strings.NewReplacer("{ym}", day.Format("2006-01"), "{system}", s.title).Replace(t.title) + " (KB" + kb + ")",
			}
			if s.build != "" {
				u.Builds = []string{s.build}
			}
			if t.class == security {
				for range 1 + w.rng.IntN(4) {
					u.CVEs = append(u.CVEs, fmt.Sprintf("CVE-%d-%05d", day.Year(), 10000+w.rng.IntN(39999)))
				}
			}
			key := fmt.Sprint(ti, s.title)
			if before := w.last[key]; before != "" && t.cumulative {
				u.Supersedes = []string{before}
			}
			w.last[key] = u.ID
			size := w.opts.FileBytes * int64(t.share) / 100
			u.Files = []File{w.file(t.dir, strings.ReplaceAll(t.file, "{kb}", kb), size/2+w.rng.Int64N(size), day)}
			w.updates = append(w.updates, u)
		}
	}
	w.modified = day.Add(20 * time.Hour)
	w.plain = buildCab(w.updates, w.modified)
	w.cab = w.signer.SignCab(w.plain)
}

// Give gives an update, by its index, a file of these bytes in place of its
// files, and makes a new cab: a signed cabinet, say.
func (w *World) Give(update int, content []byte) File {
	w.mu.Lock()
	defer w.mu.Unlock()
	u := &w.updates[update]
	f := w.publish(File{Size: int64(len(content)), bytes: content}, "secu", "windows10.0-kb"+u.KB+"-x64", u.Published)
	u.Files = []File{f}
	w.modified = w.modified.Add(time.Hour)
	w.plain = buildCab(w.updates, w.modified)
	w.cab = w.signer.SignCab(w.plain)
	return f
}

// Sign signs a cabinet as Microsoft signs the scan cab.
func (w *World) Sign(cab []byte) []byte { return w.signer.SignCab(cab) }

// patchTuesday is the second Tuesday of a month, 17:00 UTC.
func patchTuesday(month time.Time) time.Time {
	first := time.Date(month.Year(), month.Month(), 1, 17, 0, 0, 0, time.UTC)
	return first.AddDate(0, 0, (int(time.Tuesday)-int(first.Weekday())+7)%7+7)
}

func (w *World) guid() string {
	var b [16]byte
	for i := range b {
		b[i] = byte(w.rng.Uint32())
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// file draws a file's content by its seed and names it as Microsoft does,
// with the SHA-1 before the extension.
func (w *World) file(dir, stem string, size int64, day time.Time) File {
	return w.publish(File{Size: size, seed: w.rng.Uint64()}, dir, stem, day)
}

// publish names a file by its content and serves it.
func (w *World) publish(f File, dir, stem string, day time.Time) File {
	h1, h256 := sha1.New(), sha256.New()
	io.Copy(io.MultiWriter(h1, h256), f.content())
	f.SHA1, f.SHA256 = hex.EncodeToString(h1.Sum(nil)), hex.EncodeToString(h256.Sum(nil))
	f.Name = stem + "_" + f.SHA1 + ".cab"
	path := fmt.Sprintf("/c/msdownload/update/software/%s/%s/%s", dir, day.Format("2006/01"), f.Name)
	f.URL = "http://download.windowsupdate.com" + path
	w.files[path] = f
	return f
}

// content generates the file's bytes, seekable, so that none is kept.
func (f File) content() io.ReadSeeker {
	if f.bytes != nil {
		return bytes.NewReader(f.bytes)
	}
	return &stream{f: f}
}

type stream struct {
	f  File
	at int64
}

// Read yields blocks of eight bytes, each a mix of seed and position
// (SplitMix64, Steele et al. 2014).
func (s *stream) Read(p []byte) (int, error) {
	if s.at >= s.f.Size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), s.f.Size-s.at))
	for i := 0; i < n; {
		block := uint64(s.at) / 8
		z := s.f.seed + (block+1)*0x9e3779b97f4a7c15
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
		for k := uint64(s.at) % 8; k < 8 && i < n; k++ {
			p[i] = byte(z >> (8 * k))
			i++
			s.at++
		}
	}
	return n, nil
}

func (s *stream) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += s.at
	case io.SeekEnd:
		offset += s.f.Size
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek to %d", offset)
	}
	s.at = offset
	return offset, nil
}
