package appliance

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
)

// A bundle is what a site without a line is brought on a stick: the records
// that it lacks, host reports, rules and catalogue among them, and which files
// of the folder its hosts wait for. What it has to say comes back the same
// way. A bundle is one line of JSON (BundleInfo), a parcel (replicate), and a
// trailer that signs both: JSON, and its length in four bytes. The files lie
// beside it, and their digests are in it.
const (
	bundleFormat  = 1
	bundlePurpose = "wuamesh bundle"
	maxBundle     = 8 << 30 // bytes, without the files
	maxBundleInfo = 16 << 20
	maxTrailer    = 64 << 10
)

// A BundleInfo says what is in a bundle.
type BundleInfo struct {
	Format   int          `json:"wuamesh_bundle"`
	Mesh     string       `json:"mesh"` // fingerprint of its root, hexadecimal
	From     string       `json:"from"` // node
	FromName string       `json:"from_name"`
	For      string       `json:"for"` // node or site, as the admin named it
	Made     time.Time    `json:"made"`
	Whole    bool         `json:"whole"`            // it holds all records, not only what was not there
	Hosts    int          `json:"hosts"`            // of the site, that the maker knows of
	Files    []BundleFile `json:"files"`            // most needed first
	Absent   []string     `json:"absent,omitempty"` // files wanted there that the maker has not; at most 200
}

// A BundleFile is one file of the folder that belongs to a bundle.
type BundleFile struct {
	Name         string `json:"name"`
	Size         int64  `json:"size"`
	SHA256       string `json:"sha256"`
	LastModified string `json:"last_modified,omitempty"` // of the scan cab
	ETag         string `json:"etag,omitempty"`
}

type bundleTrailer struct {
	Certificate []byte `json:"certificate"` // of the node, DER
	Signature   []byte `json:"signature"`
}

// BundleOptions say for whom a bundle is.
type BundleOptions struct {
	For     string // node or site; empty: where the last bundle that was imported came from
	Whole   bool   // all records, not only what is not known to be there
	NoFiles bool
}

// A BundleNeed is a file of an imported bundle that the node takes, and how
// much of it is here.
type BundleNeed struct {
	BundleFile
	Have int64 `json:"have"` // bytes
}

// A BundleImport is what an import did.
type BundleImport struct {
	BundleInfo
	Changes int          `json:"changes"` // records that were in it
	Copied  bool         `json:"copied"`  // all records were replaced, after a long absence
	Needs   []BundleNeed `json:"needs"`   // files to be brought now
}

// ExportBundle writes a bundle to w. It holds what every node of the mesh
// knows, so it wants keeping like a backup.
func (a *Appliance) ExportBundle(ctx context.Context, by Actor, o BundleOptions, w io.Writer) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	mesh, err := a.carriesOver(ctx)
	if err != nil {
		return err
	}
	name, ids, have, err := a.addressees(ctx, o)
	if err != nil {
		return err
	}
	if o.Whole {
		have = nil
	}
	if err := a.renewByBundle(ctx); err != nil {
		return err
	}
	id := a.auth.identity()
	info := BundleInfo{
		Format: bundleFormat, Mesh: fingerprintOf(id), From: a.db.NodeID(), FromName: a.NodeName(), For: name,
		Made: time.Now().UTC(), Whole: len(have) == 0, Files: []BundleFile{},
	}
	if !o.NoFiles {
		a.addFiles(&info, ids)
	}
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		return a.audit(tx, by, "export bundle", "site "+name, "", things(len(info.Files), "file", "files"))
	})
	if err != nil {
		return err
	}
	line, err := json.Marshal(info)
	if err != nil {
		return err
	}
	sum := sha256.New()
	signed := io.MultiWriter(w, sum)
	if _, err := signed.Write(append(line, '\n')); err != nil {
		return err
	}
	if _, err := mesh.Pack(ctx, signed, ids[0], have); err != nil {
		return err
	}
	sig, err := id.Sign(bundlePurpose, [sha256.Size]byte(sum.Sum(nil)))
	if err != nil {
		return err
	}
	trailer, err := json.Marshal(bundleTrailer{id.Node.Raw, sig})
	if err == nil {
		_, err = w.Write(binary.BigEndian.AppendUint32(trailer, uint32(len(trailer))))
	}
	if err == nil {
		a.log.InfoContext(ctx, "bundle exported", "for", name, "files", len(info.Files), "by", by.Name)
	}
	return err
}

// carriesOver is the node's part in the mesh; right after the start it is
// waited for.
func (a *Appliance) carriesOver(ctx context.Context) (*replicate.Mesh, error) {
	if !a.Member() {
		return nil, errNoMesh(a.NodeName())
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	mesh, err := a.folder.share.awaitMesh(ctx)
	if err != nil {
		return nil, &Problem{Kind: Unavailable, Msg: a.NodeName() + " is starting.", Hint: "Try again in a moment.", Err: err}
	}
	return mesh, nil
}

func errNoMesh(node string) error {
	return &Problem{Kind: Conflict, Msg: node + " takes part in no mesh, so there is nobody to carry a bundle to.", Hint: "Prepare the other node where this one can be reached: wuamesh token join here, wuamesh join there. Then take it to its site."}
}

func fingerprintOf(id *replicate.Identity) string {
	sum := replicate.Fingerprint(id.Root)
	return hex.EncodeToString(sum[:])
}

// addressees are the nodes that a bundle is for, and what all of them are
// known to have.
func (a *Appliance) addressees(ctx context.Context, o BundleOptions) (name string, ids []string, have map[string]uint64, err error) {
	known := map[string]carriedRecord{}
	err = a.db.View(ctx, func(tx *replicate.Tx) error {
		for r, err := range carried.all(tx) {
			if err != nil {
				return err
			}
			known[r.id] = r.value
		}
		return nil
	})
	if err != nil {
		return "", nil, nil, err
	}
	living := a.roster.living()
	if name = o.For; name == "" {
		last := ""
		for id, r := range known {
			if last == "" || r.Made.After(known[last].Made) {
				last = id
			}
		}
		if name = living[last].Name; name == "" {
			return "", nil, nil, invalid("for", "Say for which node or site the bundle is: no bundle was imported here yet.")
		}
	}
	for id, n := range living {
		if id != a.db.NodeID() && (id == name || strings.EqualFold(n.Name, name) || strings.EqualFold(n.Site, name)) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	if len(ids) == 0 {
		return "", nil, nil, &Problem{Kind: NotFound, Field: "for", Msg: fmt.Sprintf("There is no other node or site %q in the mesh.", name), Hint: "wuamesh node list shows them. A site without a line has to join once: prepare its node where another one can be reached."}
	}
	have = maps.Clone(known[ids[0]].Vector)
	for w, n := range have {
		for _, id := range ids[1:] {
			n = min(n, known[id].Vector[w])
		}
		have[w] = n
	}
	return name, ids, have, nil
}

// addFiles lists what hosts of the nodes wait for, the scan cab first. Of a
// site of which no host is known yet it is what any host needs.
func (a *Appliance) addFiles(info *BundleInfo, ids []string) {
	wanted := a.cat.waitedAt(ids, info)
	f := a.folder
	f.mu.RLock()
	defer f.mu.RUnlock()
	if h := f.held[microsoft.ScanCabName]; h != nil {
		info.Files = append(info.Files, BundleFile{microsoft.ScanCabName, h.Bytes, h.SHA256, h.LastModified, h.ETag})
	}
	for _, name := range wanted {
		if h := f.held[name]; h != nil {
			info.Files = append(info.Files, BundleFile{Name: name, Size: h.Bytes, SHA256: h.SHA256})
		} else if len(info.Absent) < 200 {
			info.Absent = append(info.Absent, name)
		}
	}
}

// waitedAt are the files that hosts which told one of the nodes wait for, the
// most waited for first; what any host needs, when none of them is known.
func (c *catalogue) waitedAt(ids []string, info *BundleInfo) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.counts(time.Now())
	for _, h := range c.hosts {
		if slices.Contains(ids, h.status.Node) {
			info.Hosts++
		}
	}
	waits := map[string]int{}
	if info.Hosts == 0 {
		for name := range t.needed {
			waits[name] = 1
			if w := t.wanted[name]; w != nil {
				waits[name] += w.hosts
			}
		}
	}
	for k, n := range t.lacking {
		if info.Hosts == 0 || !slices.Contains(ids, k.node) {
			continue
		}
		v := c.variants.list[k.variant]
		for _, f := range c.revision(v.id, v.revision).Files {
			if !f.Delta {
				waits[f.Name] += n
			}
		}
	}
	return slices.SortedFunc(maps.Keys(waits), func(x, y string) int { return cmp.Or(waits[y]-waits[x], strings.Compare(x, y)) })
}

// A carriedRecord is what a node had when its last bundle was made.
type carriedRecord struct {
	Vector map[string]uint64 `json:"vector"`
	Made   time.Time         `json:"made"`
}

// ImportBundle takes a bundle in: the records at once, and says which files it
// wants. Nothing of it is believed before its signature was found to be of a
// node of this mesh. Importing it again changes nothing.
func (a *Appliance) ImportBundle(ctx context.Context, by Actor, r io.Reader) (BundleImport, error) {
	if err := by.need(Owner); err != nil {
		return BundleImport{}, err
	}
	mesh, err := a.carriesOver(ctx)
	if err != nil {
		return BundleImport{}, err
	}
	file, size, err := a.spool(r)
	if err != nil {
		return BundleImport{}, err
	}
	defer file.Close()
	in := bufio.NewReader(io.NewSectionReader(file, 0, size))
	info, err := a.checkBundle(file, in, size)
	if err != nil {
		return BundleImport{}, err
	}
	u, err := mesh.Unpack(ctx, in)
	if err == nil && u.From != info.From {
		err = errors.New("its records are of another node")
	}
	if err != nil {
		return BundleImport{}, a.unpackProblem(info, err)
	}
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		if err := carried.put(tx, u.From, carriedRecord{u.Vector, info.Made}); err != nil {
			return err
		}
		return a.audit(tx, by, "import bundle", "node "+info.FromName, "", fmt.Sprintf("of %s, %s", clock(info.Made), things(u.Changes, "change", "changes")))
	})
	if err != nil {
		return BundleImport{}, err
	}
	if err := errors.Join(a.answerRenewals(ctx), a.renewByBundle(ctx)); err != nil {
		return BundleImport{}, err
	}
	a.log.InfoContext(ctx, "bundle imported", "from", info.FromName, "made", info.Made, "changes", u.Changes, "by", by.Name)
	return BundleImport{BundleInfo: info, Changes: u.Changes, Copied: u.Copied, Needs: a.folder.expect(info.Files)}, nil
}

// spool writes a bundle to a file that has no name, because its signature
// stands at its end.
func (a *Appliance) spool(r io.Reader) (*os.File, int64, error) {
	file, err := os.CreateTemp(a.cfg.Data, "bundle-")
	if err != nil {
		return nil, 0, err
	}
	os.Remove(file.Name())
	n, err := io.Copy(file, io.LimitReader(r, maxBundle+1))
	switch {
	case errors.Is(err, syscall.ENOSPC):
		err = &Problem{Kind: Full, Msg: "The disk with the records of this node has no room for the bundle.", Hint: "Make room on the disk of " + a.cfg.Data + ". Nothing was changed.", Err: err}
	case err == nil && n > maxBundle:
		err = &Problem{Kind: TooLarge, Msg: fmt.Sprintf("The bundle is larger than %s.", bytesText(maxBundle))}
	}
	if err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, n, nil
}

// checkBundle reads what a bundle says of itself, which is signed, and leaves
// in before its records.
func (a *Appliance) checkBundle(file io.ReaderAt, in *bufio.Reader, size int64) (info BundleInfo, err error) {
	damaged := func(err error) (BundleInfo, error) {
		return info, &Problem{Kind: Invalid, Msg: "The bundle is damaged, or is none.", Hint: "Export it again. Nothing was changed.", Err: err}
	}
	var tail [4]byte
	if _, err := file.ReadAt(tail[:], size-4); err != nil || size < 4 {
		return damaged(err)
	}
	n := int64(binary.BigEndian.Uint32(tail[:]))
	if n > maxTrailer || n > size-4 {
		return damaged(errors.New("its end"))
	}
	b := make([]byte, n)
	var trailer bundleTrailer
	if _, err = file.ReadAt(b, size-4-n); err == nil {
		err = json.Unmarshal(b, &trailer)
	}
	if err != nil {
		return damaged(err)
	}
	line, err := readLine(in, maxBundleInfo)
	if err == nil {
		err = json.Unmarshal(line, &info)
	}
	if err != nil || info.Format < 1 {
		return damaged(err)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(file, 0, size-4-n)); err != nil {
		return damaged(err)
	}
	return info, a.trust(info, trailer, [sha256.Size]byte(sum.Sum(nil)))
}

func readLine(r *bufio.Reader, most int) ([]byte, error) {
	var line []byte
	for len(line) < most {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			return line, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
	return nil, errors.New("the first line is too long")
}

// trust says whether a bundle is of a node of this mesh, and of now.
func (a *Appliance) trust(info BundleInfo, t bundleTrailer, sum [sha256.Size]byte) error {
	id := a.auth.identity()
	if info.Format > bundleFormat {
		return &Problem{Kind: Conflict, Msg: "The bundle was made by a newer version of wuamesh.", Hint: "Install that version here first. Nothing was changed."}
	}
	if info.Mesh != fingerprintOf(id) {
		return &Problem{Kind: Denied, Msg: fmt.Sprintf("The bundle of %s is of another mesh.", info.FromName), Hint: "A site without a line has to join once: prepare its node where one of the mesh can be reached, then take it to its site."}
	}
	if ahead := time.Until(info.Made); ahead > 20*time.Minute {
		return &Problem{Kind: Conflict, Msg: fmt.Sprintf("The bundle was made at %s, which is in the future here.", info.Made.UTC().Format("2 Jan 2006 15:04 UTC")), Hint: "Look at the clocks of both machines."}
	}
	node, err := replicate.VerifySigned(id.Root, t.Certificate, bundlePurpose, sum, t.Signature, info.Made)
	if err != nil || node != info.From {
		return &Problem{Kind: Denied, Msg: "The bundle is not signed by a node of this mesh, or was changed since.", Hint: "Export it again. Nothing was changed.", Err: err}
	}
	if rem, gone := a.roster.removal(node); gone {
		return &Problem{Kind: Denied, Msg: fmt.Sprintf("The bundle is of %s, which was removed from the mesh by %s.", rem.Name, rem.By), Hint: "Make one on another node."}
	}
	if node == a.db.NodeID() {
		return &Problem{Kind: Conflict, Msg: "The bundle was made on this very node.", Hint: "Import it at the site it is for."}
	}
	return nil
}

// unpackProblem says for people why the records of a bundle were not taken.
func (a *Appliance) unpackProblem(info BundleInfo, err error) error {
	p := &Problem{Kind: Conflict, Err: err}
	switch {
	case errors.Is(err, replicate.ErrGap):
		p.Msg = "The bundle goes on after one that was not imported here."
		p.Hint = fmt.Sprintf("Import that one first, or make one with all records: wuamesh bundle export --whole --for %s.", a.NodeName())
	case errors.Is(err, replicate.ErrParcelOld):
		p.Msg = fmt.Sprintf("The bundle is of %s: what was deleted since may not be known any more.", info.Made.UTC().Format("2 January 2006"))
		p.Hint = "Make a new one. Bundles are good for 60 days."
	case errors.Is(err, replicate.ErrParcelCopy):
		p.Msg = fmt.Sprintf("%s had no word of %s for more than 60 days, so it needs all records again.", a.NodeName(), info.FromName)
		p.Hint = fmt.Sprintf("On %s: wuamesh bundle export --whole --for %s. What was changed here and nobody has is kept for review.", info.FromName, a.NodeName())
	case errors.Is(err, replicate.ErrParcelFrom):
		p.Msg = fmt.Sprintf("%s had no word of the mesh for more than 60 days: it has to take all records again before its own are taken.", info.FromName)
		p.Hint = fmt.Sprintf("Here: wuamesh bundle export --whole --for %s. Import that there, then export there again.", info.FromName)
	case errors.Is(err, replicate.ErrAhead):
		p.Msg = fmt.Sprintf("The records of %s are from the future: a clock was wrong there, or is here.", info.FromName)
		p.Hint = "Look at the clocks of both machines."
	default:
		if _, ok := AsProblem(err); ok {
			return err
		}
		return &Problem{Kind: Invalid, Msg: "The records of the bundle cannot be read to the end.", Hint: "Export it again. What was read is kept, and importing again goes on.", Err: err}
	}
	return p
}
