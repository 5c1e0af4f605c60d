package catalogue

import (
	"strings"
	"time"
)

// A Kind is what a revision is.
type Kind string

// The kinds. Hosts report bundles and single updates; the files of a bundle
// are its leaves'.
const (
	Category  Kind = "category"  // a product, a classification
	Detectoid Kind = "detectoid" // a condition of other updates
	Bundle    Kind = "bundle"
	Leaf      Kind = "leaf"   // part of one or several bundles
	Single    Kind = "single" // an update that is no bundle
)

// An Update is one revision, as package.xml and its fragments have it.
type Update struct {
	Revision uint32 `json:"revision"` // RevisionId: names exactly this state of this update
	ID       GUID   `json:"id"`       // with Number: what hosts report
	Number   uint32 `json:"number"`   // RevisionNumber
	Kind     Kind   `json:"kind"`

	Created   time.Time `json:"created"`
	Languages []string  `json:"languages,omitempty"` // what its files are for; none is all
	Details

	Classification GUID   `json:"classification,omitzero"`
	Company        GUID   `json:"company,omitzero"`
	Family         GUID   `json:"family,omitzero"`
	Products       []GUID `json:"products,omitempty"`

	SupersededBy []uint32 `json:"superseded_by,omitempty"` // revisions of this catalogue
	Gone         []uint32 `json:"gone,omitempty"`          // superseding revisions that the catalogue does not have
	BundledBy    []uint32 `json:"bundled_by,omitempty"`
	Children     []uint32 `json:"children,omitempty"`
}

// Superseded says that a newer update of this catalogue replaces it.
func (u *Update) Superseded() bool { return len(u.SupersededBy) > 0 }

// Details are what the fragments of one revision say. A revision's never
// change: Microsoft makes a new revision instead.
type Details struct {
	UpdateType   string   `json:"-"` // Software, Category, Detectoid, Driver
	CategoryType string   `json:"category_type,omitempty"`
	Title        string   `json:"title,omitempty"` // English, or the default language's
	Description  string   `json:"description,omitempty"`
	Localized    []string `json:"localized,omitempty"` // languages that have a title, sorted
	KBs          []string `json:"kbs,omitempty"`       // digits
	Severity     string   `json:"severity,omitempty"`
	Bulletin     string   `json:"bulletin,omitempty"`
	CVEs         []string `json:"cves,omitempty"`
	SupportURL   string   `json:"support_url,omitempty"`
	Restart      string   `json:"restart,omitempty"` // NeverReboots, AlwaysRequiresReboot, CanRequestReboot
	Language     string   `json:"language,omitempty"`
	Supersedes   []GUID   `json:"supersedes,omitempty"` // UpdateIDs, also such as expired long ago
	Files        []File   `json:"files,omitempty"`
}

// A File is one download.
type File struct {
	Name     string    `json:"name"` // as Microsoft spells it; the URL ends in another, see [File.URL]
	URL      string    `json:"url,omitempty"`
	Size     int64     `json:"size"` // bytes
	SHA1     [20]byte  `json:"-"`
	SHA256   []byte    `json:"-"`                  // nil on some old files
	Patching string    `json:"patching,omitempty"` // SelfContained, Express, Metadata, ServicingStack …
	Modified time.Time `json:"modified,omitzero"`
}

// Delta says that the file is only of use to a client that patches: a host
// takes the self-contained file where this one is missing.
func (f File) Delta() bool { return strings.EqualFold(f.Patching, "Express") }

// encode appends the details in the form that decodeDetails reads.
func (d *Details) encode(b []byte) []byte {
	e := encoder(b)
	for _, s := range []string{d.UpdateType, d.CategoryType, d.Title, d.Description, d.Severity, d.Bulletin, d.SupportURL, d.Restart, d.Language} {
		e.str(s)
	}
	for _, list := range [][]string{d.Localized, d.KBs, d.CVEs} {
		e.strs(list)
	}
	e.guids(d.Supersedes)
	e.num(uint64(len(d.Files)))
	for _, f := range d.Files {
		e.bytes(f.SHA1[:])
		e.blob(f.SHA256)
		e.str(f.Name)
		e.num(uint64(f.Size))
		e.str(f.Patching)
		e.time(f.Modified)
	}
	return e
}

func (d *decoder) details() (v Details) {
	for _, s := range []*string{&v.UpdateType, &v.CategoryType, &v.Title, &v.Description, &v.Severity, &v.Bulletin, &v.SupportURL, &v.Restart, &v.Language} {
		*s = d.str()
	}
	for _, list := range []*[]string{&v.Localized, &v.KBs, &v.CVEs} {
		*list = d.strs()
	}
	v.Supersedes = d.guids()
	for range d.count(24) {
		var f File
		copy(f.SHA1[:], d.take(20))
		f.SHA256 = d.blob()
		f.Name = d.str()
		f.Size = int64(d.num())
		f.Patching = d.str()
		f.Modified = d.time()
		v.Files = append(v.Files, f)
	}
	return v
}
