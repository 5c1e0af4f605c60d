package cabgen

import "time"

// A Record is the truth about one revision.
type Record struct {
	Rev, Number    int
	ID             string
	Kind           string // category, detectoid, bundle, leaf
	CategoryType   string
	Created        time.Time
	Title          string
	Locales        []string
	KB             string
	Classification string
	Family         string
	Products       []string
	Severity       string
	Bulletin       string
	CVEs           []string
	SupersededBy   []int // that the cab has
	Gone           []int // that it does not
	Supersedes     []string
	BundledBy      []int
	Children       []int
	Language       string
	Files          []FileRecord
}

// A FileRecord is the truth about one file.
type FileRecord struct {
	SHA1, SHA256 []byte
	Name, URL    string
	Size         int64
	Patching     string
	Modified     time.Time
}

// Truth is what the cab says, of every revision.
func (w *World) Truth() (list []Record) {
	for _, u := range w.w.updates {
		if !u.gone {
			list = append(list, u.record())
		}
	}
	return list
}

func (u *update) record() Record {
	r := Record{
		Rev: u.rev, Number: u.revNo, ID: u.id, Kind: [...]string{"category", "detectoid", "bundle", "leaf"}[u.kind], CategoryType: u.catType,
		Created: u.created, Title: u.title, Locales: u.locales, KB: u.kb, Classification: u.class, Family: u.family, Products: u.products,
		Severity: u.severity, Bulletin: u.bulletin, CVEs: u.cves, Supersedes: u.supersedes, Gone: append([]int(nil), u.dangling...), Language: u.lang,
	}
	for _, s := range u.supersededBy {
		if s.gone {
			r.Gone = append(r.Gone, s.rev)
		} else {
			r.SupersededBy = append(r.SupersededBy, s.rev)
		}
	}
	for _, b := range u.bundledBy {
		r.BundledBy = append(r.BundledBy, b.rev)
	}
	for _, c := range u.children {
		r.Children = append(r.Children, c.rev)
	}
	for _, f := range u.files {
		r.Files = append(r.Files, FileRecord{f.sha1, f.sha256, f.name, f.url(), f.size, f.patching, f.modified})
	}
	return r
}

// Fragments are those of one folder of the inner cabinets: "c", "x" or "l/en".
func (w *World) Fragments(dir string) (list [][]byte) {
	for _, u := range w.w.updates {
		switch {
		case u.gone:
		case dir == "c":
			list = append(list, u.core(w.o.Seed, w.o.CoreBytes))
		case dir == "x":
			list = append(list, u.extended())
		default:
			list = append(list, u.localized("en"))
		}
	}
	return list
}
