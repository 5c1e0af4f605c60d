package packaging_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wuamesh/appliance/microsoft/authenticode/authenticodetest"
	"wuamesh/appliance/microsoft/cab/cabtest"
	"wuamesh/appliance/microsoft/catalogue"
	"wuamesh/appliance/microsoft/microsofttest/cabgen"
)

// A scanCab is a signed scan cab, and the catalogue that it makes.
type scanCab struct {
	signed []byte
	size   int64 // of the catalogue's file
	header catalogue.Header
}

// scanCabs makes the cabs of consecutive months of 8,000 updates, each
// imported over the one before, and a file with the root that signs them.
func scanCabs(t *testing.T, months int) (list []scanCab, root string) {
	t.Helper()
	dir := t.TempDir()
	authority := authenticodetest.NewAuthority(1)
	root = filepath.Join(dir, "root.pem")
	if err := os.WriteFile(root, authority.RootPEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	w := cabgen.New(cabgen.Options{Seed: 5, Updates: 8_000, Monthly: 1_600, Reshard: true, Inner: cabtest.MSZIP, Outer: cabtest.None})
	var before *catalogue.Catalogue
	for n := range months {
		plain, err := w.Cab()
		if err != nil {
			t.Fatal(err)
		}
		w.Next()
		signed := authority.Signer(authenticodetest.SignerOptions{}).SignCab(plain)
		sum := sha256.Sum256(signed)
		path := filepath.Join(dir, fmt.Sprint(n))
		h, err := catalogue.Import(t.Context(), path, catalogue.Source{Cab: bytes.NewReader(signed), Size: int64(len(signed)), SHA256: hex.EncodeToString(sum[:])}, catalogue.ImportOptions{Previous: before})
		if err != nil {
			t.Fatal(err)
		}
		if before, err = catalogue.Open(path); err != nil {
			t.Fatal(err)
		}
		defer before.Close()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, scanCab{signed, info.Size(), h})
	}
	return list, root
}

// TestAnImportSurvivesSIGKILL kills a node again and again while it reads a
// scan cab, the first and the next month's. Each time there is the catalogue
// from before, the same bytes, or none; the last start finishes.
func TestAnImportSurvivesSIGKILL(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short; packaging/check runs it")
	}
	cabs, root := scanCabs(t, 2)
	dir := t.TempDir()
	folder, file := filepath.Join(dir, "waptwua"), filepath.Join(dir, "data", "catalogue")
	config := fmt.Sprintf("internet = false\nroots = [%q]", root)
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for month, cab := range cabs {
		if err := os.WriteFile(filepath.Join(folder, "wsusscn2.cab"), cab.signed, 0o644); err != nil {
			t.Fatal(err)
		}
		before, updates := readIf(t, file), 0
		if month > 0 {
			updates = cabs[month-1].header.Counts.Updates
		}
		const kills = 5
		for i := range kills {
			for !launch(t, dir, config).cutImport(file, cab.size*int64(i)/kills) {
				writeIf(t, file, before) // the import was over first
			}
			if now := readIf(t, file); !bytes.Equal(now, before) {
				t.Fatalf("month %d, kill %d: the catalogue has %d bytes, and had %d before", month, i, len(now), len(before))
			}
			if month > 0 { // what a node without the cab still knows
				p := launchWithout(t, dir, config, filepath.Join(folder, "wsusscn2.cab"))
				if n := p.catalogued(); n != updates {
					t.Errorf("month %d, kill %d: the catalogue that stays has %d updates, not %d", month, i, n, updates)
				}
				p.kill()
				if err := os.WriteFile(filepath.Join(folder, "wsusscn2.cab"), cab.signed, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		p := launch(t, dir, config)
		want := cab.header.Counts.Updates
		p.until("the whole catalogue", func() bool {
			n := p.catalogued()
			if n != updates && n != want {
				t.Fatalf("month %d: half of the catalogue is served: %d updates, want %d or %d", month, n, updates, want)
			}
			return n == want
		})
		p.kill()
		c, err := catalogue.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		got := c.Header()
		c.Close()
		if got.Source != cab.header.Source || got.Counts != cab.header.Counts || got.PackageID != cab.header.PackageID {
			t.Errorf("month %d: after the kills the catalogue is %+v, want %+v", month, got, cab.header)
		}
		if _, err := os.Stat(file + ".new"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("month %d: the unfinished file is left behind: %v", month, err)
		}
	}
}

// cutImport kills the node once it has written so much of a new catalogue, and
// says whether that was in time.
func (p *process) cutImport(file string, bytes int64) bool {
	p.t.Helper()
	look := time.NewTicker(100 * time.Microsecond)
	defer look.Stop()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); <-look.C {
		if info, err := os.Stat(file + ".new"); err == nil && info.Size() >= bytes {
			p.kill()
			_, err := os.Stat(file + ".new")
			return err == nil
		}
		if strings.Contains(p.log(), `msg="scan cab read"`) {
			p.kill()
			return false
		}
	}
	p.t.Fatalf("in two minutes no import came to %d bytes\n%s", bytes, p.log())
	return false
}

func (p *process) kill() {
	p.Process.Kill()
	<-p.ended
}

// launchWithout launches a node whose folder has no scan cab.
func launchWithout(t *testing.T, dir, config, cab string) *process {
	t.Helper()
	if err := os.Remove(cab); err != nil {
		t.Fatal(err)
	}
	return launch(t, dir, config)
}

// catalogued is how many updates the node says its catalogue has.
func (p *process) catalogued() int {
	p.t.Helper()
	out, code := p.command("status", "--json")
	var v struct {
		Cab struct {
			Catalogue struct {
				Updates int `json:"updates"`
			} `json:"catalogue"`
		} `json:"cab"`
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 {
		p.t.Fatalf("status: %d, %v\n%s", code, err, out)
	}
	return v.Cab.Catalogue.Updates
}

func writeIf(t *testing.T, path string, b []byte) {
	t.Helper()
	var err error
	if b == nil {
		err = os.Remove(path)
	} else {
		err = os.WriteFile(path, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// readIf returns nil when there is no such file.
func readIf(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return b
}
