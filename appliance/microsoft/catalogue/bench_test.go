package catalogue_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wuamesh/appliance/microsoft/cab/cabtest"
	"wuamesh/appliance/microsoft/catalogue"
	"wuamesh/appliance/microsoft/microsofttest/cabgen"
)

var bigDir string // of big, once it was made; TestMain removes it

// big are the scan cabs of two months of 150,000 updates, LZX as Microsoft's,
// with bounds that move; made once, which takes a minute or two.
var big = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "wuamesh-bench-"); err != nil {
		return "", err
	}
	bigDir = dir
	w := cabgen.New(cabgen.Options{Seed: 1, Updates: 150_000, Reshard: true, Inner: cabtest.LZX, Outer: cabtest.LZX})
	for _, name := range []string{"first.cab", "next.cab"} {
		b, err := w.Cab()
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			return "", err
		}
		w.Next()
	}
	return dir, nil
})

func bigCabs(b *testing.B) string {
	b.Helper()
	dir, err := big()
	if err != nil {
		b.Fatal(err)
	}
	return dir
}

func TestMain(m *testing.M) {
	var err error
	switch what, args, _ := strings.Cut(os.Getenv("CATALOGUE_BENCH"), " "); what {
	case "import":
		a := strings.Fields(args)
		err = benchImport(a[0], a[1], a[2])
	case "script":
		err = benchScript(args)
	default:
		code := m.Run()
		if bigDir != "" {
			os.RemoveAll(bigDir)
		}
		os.Exit(code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A cost is what a process took.
type cost struct {
	wall, cpu time.Duration
	peak      int64 // bytes resident
}

// child runs this test binary again as one of TestMain's tasks.
func child(b *testing.B, task string) cost {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CATALOGUE_BENCH="+task)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%s: %v\n%s", task, err, out)
	}
	u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return cost{time.Since(began), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), u.Maxrss << 10}
}

func benchImport(cab, to, before string) error {
	f, err := os.Open(cab)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	o := catalogue.ImportOptions{}
	if before != "-" {
		if o.Previous, err = catalogue.Open(before); err != nil {
			return err
		}
	}
	_, err = catalogue.Import(context.Background(), to, catalogue.Source{Cab: f, Size: info.Size()}, o)
	return err
}

// benchScript is what somebody would write in an afternoon: cabextract, and
// encoding/xml over what it leaves.
func benchScript(cab string) error {
	dir, err := os.MkdirTemp(filepath.Dir(cab), "script-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	extract := func(cab, to string) error {
		out, err := exec.Command("cabextract", "-q", "-d", to, cab).CombinedOutput()
		if err != nil {
			return fmt.Errorf("cabextract %s: %w: %s", cab, err, out)
		}
		return nil
	}
	if err := extract(cab, dir); err != nil {
		return err
	}
	inner, err := filepath.Glob(filepath.Join(dir, "package*.cab"))
	if err != nil {
		return err
	}
	for i, name := range inner {
		to := filepath.Join(dir, fmt.Sprint(i))
		if err := extract(name, to); err != nil {
			return err
		}
		if err := filepath.WalkDir(to, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || strings.Contains(path, "/l/") && !strings.Contains(path, "/l/en/") {
				return err
			}
			return readXML(path)
		}); err != nil {
			return err
		}
		os.RemoveAll(to)
	}
	return nil
}

func readXML(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	d := xml.NewDecoder(f)
	d.Strict = false
	seen := map[string]int{}
	for {
		t, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if s, ok := t.(xml.StartElement); ok {
			seen[s.Name.Local]++
		}
	}
}

// BenchmarkImport imports 150,000 updates beside what a user would script, in
// turns, and next month's cab over them.
func BenchmarkImport(b *testing.B) {
	dir := bigCabs(b)
	first, next := filepath.Join(dir, "first.cab"), filepath.Join(dir, "next.cab")
	made, again := filepath.Join(dir, "first"), filepath.Join(dir, "next")
	for b.Loop() {
		script := child(b, "script "+first)
		ours := child(b, "import "+first+" "+made+" -")
		month := child(b, "import "+next+" "+again+" "+made)
		b.ReportMetric(ours.wall.Seconds(), "s/first")
		b.ReportMetric(ours.wall.Seconds()/script.wall.Seconds(), "wall/script")
		b.ReportMetric(ours.cpu.Seconds()/script.cpu.Seconds(), "cpu/script")
		b.ReportMetric(month.wall.Seconds()/ours.wall.Seconds(), "wall-next/first")
		b.ReportMetric(month.cpu.Seconds()/ours.cpu.Seconds(), "cpu-next/first")
		b.ReportMetric(float64(ours.peak)/1e6, "MB-peak")
		b.ReportMetric(float64(month.peak)/1e6, "MB-peak-next")
	}
}

// BenchmarkSearch asks a catalogue of 150,000 updates what people ask.
func BenchmarkSearch(b *testing.B) {
	dir := bigCabs(b)
	path := filepath.Join(dir, "searched")
	if err := benchImport(filepath.Join(dir, "first.cab"), path, "-"); err != nil {
		b.Fatal(err)
	}
	c, err := catalogue.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	newest, err := c.Search(catalogue.Query{Limit: 1})
	if err != nil {
		b.Fatal(err)
	}
	u, err := c.Update(newest.Rows[0].ID)
	if err != nil {
		b.Fatal(err)
	}
	product := newest.Rows[0].Products[:1]
	for name, q := range map[string]catalogue.Query{
		"everything":  {},
		"title words": {Text: "cumulative x64 2026"},
		"part":        {Text: "o"},
		"KB":          {Text: "KB" + u.KBs[0]},
		"UpdateID":    {Text: u.ID.String()},
		"CVE":         {Text: "cve-2026"},
		"bulletin":    {Text: "ms17"},
		"product":     {Product: product, Severity: []string{"Critical"}},
		"by title":    {Text: "security", Sort: catalogue.ByTitle, After: &catalogue.Key{Title: u.Title, ID: u.ID}},
	} {
		b.Run(name, func(b *testing.B) {
			q.Limit = 50
			for b.Loop() {
				if _, err := c.Search(q); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/search")
		})
	}
}
