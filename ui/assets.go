package ui

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

//go:embed static
var embedded embed.FS

// assets are the static files, under names that change with their content, so
// that browsers keep them for ever; compressed once.
type assets struct {
	urls  map[string]string // name → URL
	files map[string]asset  // URL → file
}

type asset struct {
	kind         string
	plain, small []byte
}

// static never changes after the start.
var static = readAssets()

func readAssets() *assets {
	a := &assets{urls: map[string]string{}, files: map[string]asset{}}
	sub, _ := fs.Sub(embedded, "static") // embedded: cannot be missing
	fs.WalkDir(sub, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(sub, name)
		if err != nil {
			return err
		}
		ext := path.Ext(name)
		sum := sha256.Sum256(b)
		url := "/a/" + strings.TrimSuffix(name, ext) + "." + hex.EncodeToString(sum[:6]) + ext
		if ext == ".woff2" { // the style sheet names fonts by their plain names
			url = "/a/" + name
		}
		f := asset{kind: mime.TypeByExtension(ext), plain: b}
		if ext == ".woff2" {
			f.kind = "font/woff2"
		} else {
			var z bytes.Buffer
			w, _ := gzip.NewWriterLevel(&z, gzip.BestCompression)
			w.Write(b)
			w.Close()
			f.small = z.Bytes()
		}
		a.urls[name], a.files[url] = url, f
		return nil
	})
	return a
}

// asset is the URL of a static file.
func assetURL(name string) string { return static.urls[name] }

func (a *assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, ok := a.files[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Vary", "Accept-Encoding")
	if f.small != nil && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		w.Write(f.small)
		return
	}
	w.Write(f.plain)
}
