package catalogue_test

import (
	"context"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"wuamesh/appliance/microsoft/cab/cabtest"
	"wuamesh/appliance/microsoft/catalogue"
	"wuamesh/appliance/microsoft/microsofttest/cabgen"
)

var benchDirs []string // made for benchmarks; TestMain removes them

var ruleBytes = flag.Int("rules", 0, "bytes of rules of an update in worlds of 150,000; 0 is 2,048, at Microsoft they are about 166,000")

// big are the scan cabs of two months of 150,000 updates, LZX as Microsoft's,
// with bounds that move; made once, which takes half a minute. With rules as
// long as Microsoft's, 25 GB, it takes eight.
var big = sync.OnceValues(func() (string, error) {
	return cabsOf(cabgen.Options{Seed: 1, Updates: 150_000, CoreBytes: *ruleBytes, Reshard: true, Inner: cabtest.LZX, Outer: cabtest.LZX})
})

// heavy is the same of 4,000 updates in as many inner cabinets as Microsoft's
// and with rules as long, 220 kB: what a month costs beside the first import
// hangs on these.
var heavy = sync.OnceValues(func() (string, error) {
	return cabsOf(cabgen.Options{Seed: 1, Updates: 4_000, Monthly: 12, PerCab: 54, CoreBytes: 220_000, Reshard: true, Inner: cabtest.MSZIP, Outer: cabtest.None})
})

// cabsOf writes the cabs of two months, first.cab and next.cab.
func cabsOf(o cabgen.Options) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "wuamesh-bench-"); err != nil {
		return "", err
	}
	benchDirs = append(benchDirs, dir)
	w := cabgen.New(o)
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
}

func bigCabs(b *testing.B) string { return made(b, big) }

func made(b *testing.B, cabs func() (string, error)) string {
	b.Helper()
	dir, err := cabs()
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
		if err = benchImport(a[0], a[1], a[2]); err == nil {
			err = printPeak()
		}
	case "script":
		err = benchScript(args)
	default:
		code := m.Run()
		for _, dir := range benchDirs {
			os.RemoveAll(dir)
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
	took := time.Since(began)
	var peak int64
	if _, err := fmt.Sscanf(string(out), "peak %d kB", &peak); err != nil && strings.HasPrefix(task, "import") {
		b.Fatalf("%s: %v\n%s", task, err, out)
	}
	return cost{took, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), peak << 10}
}

// printPeak prints the most memory that this process had resident. The
// kernel's account of a child begins with its parent's.
func printPeak() error {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	var kB int64
	if _, err := fmt.Sscan(rest, &kB); err != nil {
		return err
	}
	fmt.Println("peak", kB, "kB")
	return nil
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
// encoding/xml over what it prints. Through a pipe: as 300,000 small files it
// takes a hundred times as long.
func benchScript(cab string) error {
	dir, err := os.MkdirTemp(filepath.Dir(cab), "script-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if out, err := exec.Command("cabextract", "-q", "-d", dir, cab).CombinedOutput(); err != nil {
		return fmt.Errorf("cabextract %s: %w: %s", cab, err, out)
	}
	inner, err := filepath.Glob(filepath.Join(dir, "package*.cab"))
	if err != nil {
		return err
	}
	for _, name := range inner {
		if err := readPrinted(exec.Command("cabextract", "-q", "-p", name)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// readPrinted reads the XML that a command prints.
func readPrinted(cmd *exec.Cmd) error {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	d := xml.NewDecoder(out)
	d.Strict = false
	seen := map[string]int{}
	for {
		t, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			return cmd.Wait()
		}
		if err != nil {
			return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
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
	kept, again := filepath.Join(dir, "first"), filepath.Join(dir, "next")
	for b.Loop() {
		script := child(b, "script "+first)
		ours := child(b, "import "+first+" "+kept+" -")
		month := child(b, "import "+next+" "+again+" "+kept)
		b.ReportMetric(ours.wall.Seconds(), "s/first")
		b.ReportMetric(ours.wall.Seconds()/script.wall.Seconds(), "wall/script")
		b.ReportMetric(ours.cpu.Seconds()/script.cpu.Seconds(), "cpu/script")
		b.ReportMetric(month.wall.Seconds()/ours.wall.Seconds(), "wall-next/first")
		b.ReportMetric(month.cpu.Seconds()/ours.cpu.Seconds(), "cpu-next/first")
		b.ReportMetric(float64(ours.peak)/1e6, "MB-peak")
		b.ReportMetric(float64(month.peak)/1e6, "MB-peak-next")
	}
}

// BenchmarkNextMonth imports a cab of Microsoft's proportions, and the next
// month's over it.
func BenchmarkNextMonth(b *testing.B) {
	dir := made(b, heavy)
	for b.Loop() {
		first := child(b, "import "+filepath.Join(dir, "first.cab")+" "+filepath.Join(dir, "first")+" -")
		month := child(b, "import "+filepath.Join(dir, "next.cab")+" "+filepath.Join(dir, "next")+" "+filepath.Join(dir, "first"))
		b.ReportMetric(month.wall.Seconds()/first.wall.Seconds(), "wall-next/first")
		b.ReportMetric(month.cpu.Seconds()/first.cpu.Seconds(), "cpu-next/first")
		b.ReportMetric(first.cpu.Seconds(), "cpu-s/first")
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
