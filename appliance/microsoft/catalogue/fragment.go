package catalogue

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Bounds of what the fragments of one revision may say.
const (
	maxText     = 8_000 // bytes of a description
	maxName     = 500
	maxPerField = 20_000 // CVEs, files, superseded updates
)

// A fragmentReader takes in the fragments of one inner cabinet: several for
// each revision, which lie far from each other. They are what [MS-WUSP] calls
// core, extended and localized properties, with several roots each.
type fragmentReader struct {
	s     scanner
	found map[uint32]*Details
	path  []byte // names of the open elements, each behind a slash
	depth []int  // lengths of path to go back to

	sha256 bool // the digest that is open is one
}

// of is the details of a revision, begun when there are none.
func (f *fragmentReader) of(rev uint32) *Details {
	d := f.found[rev]
	if d == nil {
		d = new(Details)
		f.found[rev] = d
	}
	return d
}

// walk calls at for every opened element and every text, with the path of
// element names that leads there, until it says stop.
func (f *fragmentReader) walk(r io.Reader, at func(ev event, path []byte) (stop bool, err error)) error {
	const deepest = 100
	f.s.reset(r)
	f.path, f.depth = f.path[:0], f.depth[:0]
	for {
		ev, err := f.s.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch ev {
		case closed:
			if len(f.depth) == 0 {
				return badXML("%.40q ends and did not begin", f.s.name)
			}
			if string(f.path) == "/Relationships" {
				return nil // of a core fragment, rules of up to 47 MB follow
			}
			f.path, f.depth = f.path[:f.depth[len(f.depth)-1]], f.depth[:len(f.depth)-1]
			continue
		case opened:
			if len(f.depth) == deepest {
				return badXML("elements in each other, more than %d", deepest)
			}
			f.depth = append(f.depth, len(f.path))
			f.path = append(append(f.path, '/'), f.s.name...)
		}
		if stop, err := at(ev, f.path); stop || err != nil {
			return err
		}
	}
}

// core reads c/: what kind of update it is, and what it supersedes.
func (f *fragmentReader) core(rev uint32, r io.Reader) error {
	d := f.of(rev)
	return f.walk(r, func(ev event, path []byte) (bool, error) {
		if ev != opened {
			return false, nil
		}
		switch string(path) {
		case "/Properties":
			return false, f.attr("UpdateType", &d.UpdateType)
		case "/Relationships/SupersededUpdates/UpdateIdentity":
			raw, err := f.s.attr("UpdateID")
			if err != nil {
				return false, err
			}
			id, err := parseGUID(raw)
			if err != nil || len(d.Supersedes) == maxPerField {
				return false, badXML("superseded update %.60q", raw)
			}
			d.Supersedes = append(d.Supersedes, id)
		case "/ApplicabilityRules":
			return true, nil
		}
		return false, nil
	})
}

// extended reads x/: numbers, severity, files.
func (f *fragmentReader) extended(rev uint32, r io.Reader) error {
	d := f.of(rev)
	return f.walk(r, func(ev event, path []byte) (bool, error) {
		if ev == text {
			return false, f.extendedText(d, path)
		}
		switch string(path) {
		case "/ExtendedProperties":
			return false, f.attr("MsrcSeverity", &d.Severity)
		case "/ExtendedProperties/InstallationBehavior":
			return false, f.attr("RebootBehavior", &d.Restart)
		case "/HandlerSpecificData/CategoryInformation":
			return false, f.attr("CategoryType", &d.CategoryType)
		case "/Files/File":
			return false, f.file(d)
		case "/Files/File/AdditionalDigest":
			alg, err := f.s.attr("Algorithm")
			if err != nil {
				return false, err
			}
			f.sha256 = strings.EqualFold(string(alg), "SHA256")
		}
		return false, nil
	})
}

func (f *fragmentReader) extendedText(d *Details, path []byte) error {
	field, ok := bytes.CutPrefix(path, []byte("/ExtendedProperties/"))
	if !ok {
		if string(path) == "/Files/File/AdditionalDigest" && f.sha256 && len(d.Files) > 0 {
			sum, err := base64.StdEncoding.DecodeString(string(f.s.value))
			if err != nil || len(sum) != 32 {
				return badXML("SHA-256 %.60q", f.s.value)
			}
			d.Files[len(d.Files)-1].SHA256 = sum
		}
		return nil
	}
	add := func(list *[]string) error {
		if len(*list) == maxPerField {
			return fmt.Errorf("%w: %s", ErrTooMuch, field)
		}
		*list = append(*list, clean(f.s.value, 40))
		return nil
	}
	switch string(field) {
	case "KBArticleID":
		return add(&d.KBs)
	case "CveID":
		return add(&d.CVEs)
	case "SecurityBulletinID":
		d.Bulletin = clean(f.s.value, 40)
	case "SupportUrl":
		d.SupportURL = clean(f.s.value, maxName)
	case "Language":
		d.Language = clean(f.s.value, 20)
	}
	return nil
}

// file begins one of the update's files; its SHA-256 follows as an element.
func (f *fragmentReader) file(d *Details) error {
	if len(d.Files) == maxPerField {
		return fmt.Errorf("%w: files", ErrTooMuch)
	}
	var file File
	raw, err := f.s.attr("Digest")
	if err != nil {
		return err
	}
	sum, ok := parseSHA1(raw)
	if !ok {
		return badXML("digest %.60q", raw)
	}
	file.SHA1 = sum
	if raw, err = f.s.attr("Size"); err != nil {
		return err
	}
	for _, c := range raw {
		if c < '0' || c > '9' || file.Size > 1<<50 {
			return badXML("size %.30q", raw)
		}
		file.Size = file.Size*10 + int64(c-'0')
	}
	if raw, err = f.s.attr("Modified"); err != nil {
		return err
	}
	if len(raw) > 0 {
		if file.Modified, err = parseTime(raw); err != nil {
			return err
		}
	}
	for _, a := range []struct {
		name string
		to   *string
	}{{"FileName", &file.Name}, {"PatchingTypePreferred", &file.Patching}, {"PatchingType", &file.Patching}} {
		if err := f.attr(a.name, a.to); err != nil {
			return err
		}
	}
	d.Files = append(d.Files, file)
	return nil
}

// localized reads l/<language>/: title and description, when they are in the
// language that is wanted.
func (f *fragmentReader) localized(rev uint32, language string, wanted bool, r io.Reader) error {
	d := f.of(rev)
	if !slices.Contains(d.Localized, language) {
		d.Localized = append(d.Localized, language)
	}
	if !wanted {
		return nil
	}
	return f.walk(r, func(ev event, path []byte) (bool, error) {
		if ev != text {
			return false, nil
		}
		switch string(path) {
		case "/LocalizedProperties/Title":
			d.Title = clean(f.s.value, maxName)
		case "/LocalizedProperties/Description":
			d.Description = clean(f.s.value, maxText)
		}
		return false, nil
	})
}

// attr stores an attribute of the opened element, where it is there.
func (f *fragmentReader) attr(name string, to *string) error {
	raw, err := f.s.attr(name)
	if err == nil && raw != nil {
		*to = clean(raw, maxName)
	}
	return err
}
