package main

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A tree is the directory that becomes a package.
type tree struct {
	dir   string
	files []string // by their path in the package
	sums  strings.Builder
	bytes int64
}

// put writes a file; mode is what it has in the package, whatever the umask.
func (t *tree) put(path string, mode fs.FileMode, content []byte) error {
	name := filepath.Join(t.dir, filepath.FromSlash(path))
	if err := t.mkdir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := os.WriteFile(name, content, mode); err != nil {
		return err
	}
	if !strings.HasPrefix(path, "DEBIAN/") {
		t.files = append(t.files, path)
		t.bytes += int64(len(content))
		fmt.Fprintf(&t.sums, "%x  %s\n", md5.Sum(content), path)
	}
	return os.Chmod(name, mode)
}

func (t *tree) mkdir(path string) error {
	for dir := path; ; dir = filepath.Dir(dir) {
		name := filepath.Join(t.dir, dir)
		if err := os.MkdirAll(name, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(name, 0o755); err != nil || dir == "." {
			return err
		}
	}
}

// fill puts everything but the control files into the tree.
func (b *build) fill(t *tree, bin string) error {
	program, err := os.ReadFile(bin)
	if err != nil {
		return err
	}
	if err := t.put("usr/bin/wuamesh", 0o755, program); err != nil {
		return err
	}
	for _, f := range []struct{ from, to string }{
		{"wuamesh.service", "lib/systemd/system/wuamesh.service"},
		{"wuamesh-https.socket", "lib/systemd/system/wuamesh-https.socket"},
		{"wuamesh-http.socket", "lib/systemd/system/wuamesh-http.socket"},
		{"sysusers.conf", "usr/lib/sysusers.d/wuamesh.conf"},
		{"modules-load.conf", "usr/lib/modules-load.d/wuamesh.conf"},
		{"sysctl.conf", "usr/lib/sysctl.d/60-wuamesh.conf"},
		{"lintian-overrides", "usr/share/lintian/overrides/wuamesh"},
	} {
		content, err := os.ReadFile(filepath.Join("packaging", "deb", "files", f.from))
		if err != nil {
			return err
		}
		if err := t.put(f.to, 0o644, content); err != nil {
			return err
		}
	}
	for _, path := range slices.Sorted(maps.Keys(b.manuals)) {
		content := b.manuals[path]
		if strings.HasPrefix(path, "usr/share/man/") {
			path, content = path+".gz", gzipped(content)
		}
		if err := t.put(path, 0o644, content); err != nil {
			return err
		}
	}
	installer, err := os.ReadFile(b.agent)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintf(os.Stderr, "deb: without the agent's installer: there is no %s\n", b.agent)
	case err != nil:
		return err
	default:
		if err := t.put("usr/share/wuamesh/wuamesh-agent.msi", 0o644, installer); err != nil {
			return err
		}
	}
	// What the node shows at login until it is set up.
	if err := t.mkdir("usr/lib/motd.d"); err != nil {
		return err
	}
	if err := os.Symlink("/run/wuamesh/motd", filepath.Join(t.dir, "usr/lib/motd.d/wuamesh")); err != nil {
		return err
	}
	return errors.Join(
		t.put("usr/share/doc/wuamesh/copyright", 0o644, b.copyright),
		t.put("usr/share/doc/wuamesh/changelog.gz", 0o644, gzipped(b.changelog)),
	)
}

// control writes what dpkg reads.
func (b *build) control(t *tree, arch string) error {
	var conffiles strings.Builder
	for _, f := range t.files {
		if strings.HasPrefix(f, "etc/") {
			fmt.Fprintf(&conffiles, "/%s\n", f)
		}
	}
	err := errors.Join(
		t.put("DEBIAN/control", 0o644, fmt.Appendf(nil, controlText, b.version, arch, (t.bytes+1023)/1024)),
		t.put("DEBIAN/conffiles", 0o644, []byte(conffiles.String())),
		t.put("DEBIAN/md5sums", 0o644, []byte(t.sums.String())),
	)
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		content, readErr := os.ReadFile(filepath.Join("packaging", "deb", "scripts", script))
		err = errors.Join(err, readErr, t.put("DEBIAN/"+script, 0o755, content))
	}
	return err
}

const controlText = `Package: wuamesh
Version: %s
Architecture: %s
Maintainer: The wuamesh authors <wuamesh@localhost>
Installed-Size: %d
Depends: systemd (>= 247), init-system-helpers (>= 1.52)
Recommends: ca-certificates
Section: admin
Priority: optional
Description: Windows updates for branch offices
 A node fetches wsusscn2.cab and the update files that the PCs of its branch
 need, each once, from Microsoft or from the nodes of other branches, and
 serves them to the agents there. Agents scan with Windows' own engine and
 install what the rules allow.
 .
 Rules are edited on any node and reach all of them. For every PC and every
 update one page says why it was installed or not.
`

// gzipped compresses as Debian wants it: best, without name or time.
func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		panic(err) // the level is a constant
	}
	w.Write(b)
	w.Close()
	return out.Bytes()
}
