package appliance_test

import (
	"bytes"
	"net/url"
	"path/filepath"
	"testing"

	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/cab/cabtest"
	msft "wuamesh/appliance/microsoft/catalogue"
	"wuamesh/appliance/microsoft/microsofttest/cabgen"
)

// BenchmarkWholeCatalogue asks for pages of the whole catalogue as a browser
// does: 150,000 updates of the scan cab, and 2,000 that 10,000 hosts report
// and go on reporting.
func BenchmarkWholeCatalogue(b *testing.B) {
	dir := b.TempDir()
	populate(b, dir, appliance.Fleet{Hosts: 10_000, Updates: 2000, Statuses: 150, Seed: 1})
	cab, err := cabgen.New(cabgen.Options{Seed: 1, Updates: 150_000, CoreBytes: 200, Inner: cabtest.MSZIP}).Cab()
	if err == nil {
		_, err = msft.Import(b.Context(), filepath.Join(dir, "data", "catalogue"), msft.Source{Cab: bytes.NewReader(cab), Size: int64(len(cab))}, msft.ImportOptions{})
	}
	if err != nil {
		b.Fatal(err)
	}
	cab = nil
	node := openIn(b, dir)
	pages := login(b, node)
	whole, err := node.Updates(b.Context(), appliance.UpdateQuery{Scope: appliance.Whole, Sort: "-published"})
	if err != nil {
		b.Fatal(err)
	}
	newest := whole.Updates[0]
	for _, r := range whole.Updates {
		if len(r.CVEs) > len(newest.CVEs) {
			newest = r
		}
	}
	for name, query := range map[string]string{
		"first page":  "",
		"title words": "&q=cumulative+x64+2026",
		"KB":          "&q=KB" + newest.KBs[0],
		"CVE":         "&q=" + newest.CVEs[0],
		"month":       "&restart=never&pub=" + newest.Published.UTC().Format("2006-01"),
		"product":     "&severity=Critical&product=" + string(newest.Products[0].ID),
		"by title":    "&sort=title&after=" + url.QueryEscape(string(newest.ID)),
	} {
		b.Run(name, func(b *testing.B) { measurePage(b, node, pages, "/updates?scope=all"+query) })
	}
	b.Run("one update", func(b *testing.B) { measurePage(b, node, pages, "/updates/"+string(newest.ID)) })
}
