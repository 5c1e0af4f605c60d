package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"wuamesh/appliance"
	"wuamesh/appliance/api"
)

// The names of a bundle's parts in its directory.
const (
	bundleName  = "bundle.wuamesh"
	bundleFiles = "files"
)

// fatMost is the size of the parts that a larger file is cut into: sticks are
// often FAT32, which has no files of 4 GiB. An import finds parts of any size.
const fatMost = 2 << 30

var bundleCommand = Command{
	Name: "bundle", Args: "export|import|show DIR", Summary: "Carry updates, rules and reports to a site without a line, and back, on a stick",
	Example: "wuamesh bundle export --for lor-01 /media/stick     on a node at headquarters\n" +
		"wuamesh bundle import /media/stick                  on lor-01: it verifies and takes what it lacks\n" +
		"wuamesh bundle export --no-files /media/stick       on lor-01: what its hosts reported since\n" +
		"wuamesh bundle import /media/stick                  at headquarters again\n" +
		"wuamesh bundle show /media/stick                    what is on it; needs no node",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		b := bundle{cut: fatMost}
		fs.StringVar(&b.to, "for", "", "`node or site` it is for; default: where the last imported one came from")
		fs.BoolVar(&b.whole, "whole", false, "export all records, not only what is not known to be there")
		fs.BoolVar(&b.noFiles, "no-files", false, "export records alone")
		fs.Func("part-size", "`size` of the parts that larger files are cut into; default 2 GiB, because FAT32 has no files of 4 GiB", func(text string) error {
			var n appliance.Size
			err := n.UnmarshalText([]byte(text))
			if b.cut = int64(n); err == nil && n < 1000 {
				err = errors.New("at least 1 kB")
			}
			return err
		})
		return func(ctx context.Context, s Streams, args []string) error {
			if len(args) != 2 {
				return usage("it takes export, import or show, and a directory")
			}
			b.Streams, b.dir = s, args[1]
			if args[0] == "show" {
				return b.show(t.json)
			}
			var err error
			if b.client, err = t.client(s); err != nil {
				return err
			}
			switch args[0] {
			case "export":
				return b.export(ctx)
			case "import":
				return b.take(ctx)
			}
			return usage("%q is neither export, import nor show", args[0])
		}
	},
}

// A bundle is a directory, or a stick, that a bundle is on or goes to.
type bundle struct {
	Streams
	client         *api.Client
	dir, to        string
	whole, noFiles bool
	cut            int64 // bytes of the parts that files are cut into
}

// info reads what the bundle in the directory says of itself.
func (b *bundle) info() (info appliance.BundleInfo, err error) {
	f, err := os.Open(filepath.Join(b.dir, bundleName))
	if errors.Is(err, fs.ErrNotExist) {
		return info, fmt.Errorf("there is no bundle in %s: its %s is missing", b.dir, bundleName)
	}
	if err != nil {
		return info, err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, 16<<20)).Decode(&info); err != nil || info.Format == 0 {
		return info, fmt.Errorf("%s in %s is no bundle of wuamesh", bundleName, b.dir)
	}
	return info, nil
}

func (b *bundle) show(asJSON bool) error {
	info, err := b.info()
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(b.Out, info)
	}
	there, missing := 0, []string{}
	for _, f := range info.Files {
		if _, n, _ := b.sizes(f); n == f.Size {
			there++
		} else {
			missing = append(missing, f.Name)
		}
	}
	fmt.Fprintf(b.Out, "A bundle of %s for %s, made %s, %s.\n", info.FromName, info.For, when(info.Made, ""), map[bool]string{true: "with all records", false: "with what was new"}[info.Whole])
	fmt.Fprintf(b.Out, "%d of %s are here.\n", there, count(len(info.Files), "file"))
	for _, name := range missing {
		fmt.Fprintf(b.Out, "not here: %s\n", name)
	}
	fmt.Fprintln(b.Out, "Whether its signature holds is found out on importing it.")
	return nil
}

// export writes the bundle, and then its files, most needed first. What is
// there already and right stays.
func (b *bundle) export(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(b.dir, bundleFiles), 0o755); err != nil {
		return fmt.Errorf("make the bundle: %w", err)
	}
	q := url.Values{"for": {b.to}}
	if b.whole {
		q.Set("whole", "1")
	}
	if b.noFiles {
		q.Set("files", "none")
	}
	part := filepath.Join(b.dir, bundleName+".part")
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make the bundle: %w", err)
	}
	err = errors.Join(b.client.Stream(ctx, "bundle?"+q.Encode(), f), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(part, filepath.Join(b.dir, bundleName))
	}
	if err != nil {
		return errors.Join(err, os.Remove(part))
	}
	info, err := b.info()
	if err != nil {
		return err
	}
	b.sweep(info)
	for i, file := range info.Files {
		fmt.Fprintf(b.Err, "%d of %d  %s  %s\n", i+1, len(info.Files), size(file.Size), file.Name)
		err := b.fetch(ctx, file)
		if errors.Is(err, syscall.ENOSPC) {
			fmt.Fprintf(b.Out, "%s is full: %d of %s are on it, the most needed ones. Import it all the same; then make another for the rest.\n", b.dir, i, count(len(info.Files), "file"))
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w; run it again, it goes on where it was", file.Name, err)
		}
	}
	fmt.Fprintf(b.Out, "The bundle for %s is in %s: records and %s.\n", info.For, b.dir, count(len(info.Files), "file"))
	if n := len(info.Absent); n > 0 {
		fmt.Fprintf(b.Out, "%s wanted there are not on %s yet, such as %s.\n", count(n, "file"), info.FromName, info.Absent[0])
	}
	fmt.Fprintln(b.Out, "It holds what every node of the mesh knows: keep it as you keep a backup.")
	return nil
}

// sweep removes what is in the directory of an earlier bundle and not of this.
func (b *bundle) sweep(info appliance.BundleInfo) {
	keep := map[string]bool{}
	for _, f := range info.Files {
		keep[f.Name] = true
	}
	list, _ := os.ReadDir(filepath.Join(b.dir, bundleFiles))
	for _, e := range list {
		name, _, _ := strings.Cut(e.Name(), ".part-")
		if !keep[name] {
			os.Remove(filepath.Join(b.dir, bundleFiles, e.Name()))
		}
	}
}

// part is where the n-th part of a file lies.
func (b *bundle) part(f appliance.BundleFile, n int) string {
	return filepath.Join(b.dir, bundleFiles, fmt.Sprintf("%s.part-%03d", f.Name, n))
}

// sizes are those of the parts of a file that are there.
func (b *bundle) sizes(f appliance.BundleFile) (list []int64, sum int64, err error) {
	for {
		st, err := os.Stat(b.part(f, len(list)))
		if errors.Is(err, fs.ErrNotExist) {
			return list, sum, nil
		}
		if err != nil {
			return list, sum, err
		}
		list, sum = append(list, st.Size()), sum+st.Size()
	}
}

// fetch brings a file into the directory. One that is whole and wrong is
// brought anew, once.
func (b *bundle) fetch(ctx context.Context, f appliance.BundleFile) error {
	for try := 0; ; try++ {
		list, have, err := b.sizes(f)
		if err != nil {
			return err
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, &parts{b: b, f: f}); err != nil {
			return err
		}
		if have < f.Size {
			if err := b.append(ctx, f, list, sum); err != nil {
				return err
			}
		}
		if hex.EncodeToString(sum.Sum(nil)) == f.SHA256 {
			return nil
		}
		for i := 0; os.Remove(b.part(f, i)) == nil; i++ {
		}
		if try > 0 {
			return errors.New("what is on the stick is not what was written to it: the stick is failing")
		}
	}
}

// append writes the rest of a file behind its parts, and counts it into the
// digest.
func (b *bundle) append(ctx context.Context, f appliance.BundleFile, list []int64, sum hash.Hash) error {
	have := int64(0)
	for _, n := range list {
		have += n
	}
	body, err := b.client.File(ctx, f.Name, have)
	if err != nil {
		return err
	}
	defer body.Close()
	for have < f.Size {
		last := len(list) - 1
		if last < 0 || list[last] >= b.cut {
			list, last = append(list, 0), last+1
		}
		w, err := os.OpenFile(b.part(f, last), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		n, err := io.CopyN(io.MultiWriter(w, sum), body, min(f.Size-have, b.cut-list[last]))
		have, list[last] = have+n, list[last]+n
		if err = errors.Join(err, w.Sync(), w.Close()); err != nil {
			return err
		}
	}
	return nil
}

// parts reads a file out of its parts, after skipping some bytes.
type parts struct {
	b    *bundle
	f    appliance.BundleFile
	skip int64
	next int
	file *os.File
}

func (p *parts) Read(buf []byte) (int, error) {
	for {
		if p.file == nil {
			if err := p.open(); err != nil {
				return 0, err
			}
		}
		n, err := p.file.Read(buf)
		if n > 0 || err != io.EOF {
			return n, err
		}
		p.Close()
	}
}

// open opens the next part; io.EOF when there is none.
func (p *parts) open() error {
	file, err := os.Open(p.b.part(p.f, p.next))
	if errors.Is(err, fs.ErrNotExist) {
		return io.EOF
	}
	if err != nil {
		return err
	}
	st, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	at := min(p.skip, st.Size())
	if _, err := file.Seek(at, io.SeekStart); err != nil {
		return errors.Join(err, file.Close())
	}
	p.file, p.next, p.skip = file, p.next+1, p.skip-at
	return nil
}

// Close closes the part that is open.
func (p *parts) Close() error {
	if p.file == nil {
		return nil
	}
	err := p.file.Close()
	p.file = nil
	return err
}

// take has the node take the bundle in, and brings it the files it needs.
func (b *bundle) take(ctx context.Context) error {
	if _, err := b.info(); err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(b.dir, bundleName))
	if err != nil {
		return err
	}
	defer f.Close()
	var im appliance.BundleImport
	if err := b.client.Send(ctx, http.MethodPost, "bundle", f, &im); err != nil {
		return err
	}
	brought, missing := 0, 0
	for i, need := range im.Needs {
		_, there, err := b.sizes(need.BundleFile)
		if err != nil {
			return err
		}
		if there < need.Size {
			missing++
			continue
		}
		fmt.Fprintf(b.Err, "%d of %d  %s  %s\n", i+1, len(im.Needs), size(need.Size), need.Name)
		if err := b.bring(ctx, need); err != nil {
			return err
		}
		brought++
	}
	fmt.Fprintf(b.Out, "Taken in: the bundle of %s, made %s, %s, %s.\n", im.FromName, when(im.Made, ""), count(im.Changes, "record"), count(brought, "file"))
	if im.Copied {
		fmt.Fprintln(b.Out, "This node was without word for more than 60 days, so it took all records anew. What was changed here and nobody has is kept for review.")
	}
	if missing > 0 {
		fmt.Fprintf(b.Out, "%s that the bundle names are not on the stick: export it again.\n", count(missing, "file"))
	}
	return nil
}

// bring sends the node the rest of a file.
func (b *bundle) bring(ctx context.Context, need appliance.BundleNeed) error {
	p := &parts{b: b, f: need.BundleFile, skip: need.Have}
	defer p.Close()
	path := "bundle/files/" + url.PathEscape(need.Name) + fmt.Sprintf("?from=%d", need.Have)
	return b.client.Send(ctx, http.MethodPut, path, p, &need)
}
