package appliance_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/microsofttest"
	"wuamesh/replicate/swarm"
)

// branches starts one mesh of nodes, at sites of their own, that all would ask
// the same Microsoft; those whose name begins with "hq" may.
func branches(t testing.TB, fileBytes int, names ...string) (*microsofttest.World, []*site) {
	t.Helper()
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: int64(fileBytes)})
	srv := httptest.NewServer(world)
	t.Cleanup(srv.Close)
	var list []*site
	for _, name := range names {
		s := startIn(t, t.TempDir(), world, srv.URL, func(c *appliance.Config) {
			c.Name, c.Site, c.Internet = name, name, name[:2] == "hq"
			if name[:5] == "local" {
				c.Placement = "local"
			}
		})
		if len(list) > 0 {
			s.joinTo(t, list[0])
		}
		list = append(list, s)
	}
	return world, list
}

// TestAFileCrossesOnce has a host of a branch without internet need files:
// one node downloads each from Microsoft once, the others take it from peers,
// and every node serves it.
func TestAFileCrossesOnce(t *testing.T) {
	t.Parallel()
	world, list := branches(t, 300_000, "hq-01", "hq-02", "brs-01", "lor-01")
	names := list[2].wants(t, 2)
	for _, name := range names {
		for _, s := range list {
			eventually(t, s.NodeName()+" serves "+name, s.serves(name))
			s.has(t, name, status("done"))
		}
	}
	requests := world.Requests()
	for _, name := range names {
		size := int64(0)
		if info, err := os.Stat(filepath.Join(list[3].dir, "waptwua", name)); err == nil {
			size = info.Size()
		}
		if got := requests[name].Bytes; got != size {
			t.Errorf("%s of %d bytes: Microsoft sent %d", name, size, got)
		}
	}
	for _, s := range list[2:] {
		k := s.task(t, names[0])
		if k.From != "peers" || k.Peers != k.Size || k.Fetched != 0 {
			t.Errorf("%s: the task is %+v", s.NodeName(), k)
		}
	}
	eventually(t, "the scan cab on a node without internet", list[3].serves("wsusscn2.cab"))
	days, err := list[3].Traffic(t.Context(), 7)
	if err != nil || len(days) != 1 || days[0].Microsoft != 0 || days[0].WANDown == 0 {
		t.Errorf("the days' traffic is %+v, %v", days, err)
	}
}

// TestServedWhileArriving has agents ask a branch for a file that comes over a
// thin line: they get it as it comes, all of it, and it crosses the line once.
func TestServedWhileArriving(t *testing.T) {
	t.Parallel()
	_, list := branches(t, 3_000_000, "hq-01", "brs-01")
	hq, branch := list[0], list[1]
	if err := hq.SetSiteLimits(t.Context(), owner, "brs-01", appliance.Limits{WANDown: swarm.Plan{Rate: swarm.Never}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the limit", func() error {
		if l, err := branch.SiteLimits(t.Context(), ""); err != nil || l.WANDown.Rate != swarm.Never {
			return fmt.Errorf("it is %v, %v", l, err)
		}
		return nil
	})
	name := branch.wants(t, 1)[0]
	eventually(t, "hq serves it", hq.serves(name))
	want, err := os.ReadFile(filepath.Join(hq.dir, "waptwua", name))
	if err != nil {
		t.Fatal(err)
	}
	branch.has(t, name, func(k appliance.Task) bool {
		return k.Status == "running" && k.Waiting != "" && !k.NextTry.IsZero()
	})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			from := i * len(want) / 50
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, branch.FolderURL()+name, nil)
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != http.StatusPartialContent || !bytes.Equal(got, want[from:]) {
				t.Errorf("from %d: %s, %d bytes, %v", from, resp.Status, len(got), err)
			}
		})
	}
	if err := hq.SetSiteLimits(t.Context(), owner, "brs-01", appliance.Limits{WANDown: swarm.Plan{Rate: 2_000_000}}); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	branch.has(t, name, status("done"))
	eventually(t, "the branch's own copy", branch.serves(name))
	if days, err := branch.Traffic(t.Context(), 1); err != nil || days[0].WANDown > int64(len(want))*11/10+2_000_000 {
		t.Errorf("the line carried %+v, %v", days, err)
	}
}

// TestAnsweredBeforeTheFirstPiece has a line so thin that a piece takes minutes: who
// asks hears at once that the file comes from here, else an agent would take the
// node for one that is away and ask a farther one, over the same line.
func TestAnsweredBeforeTheFirstPiece(t *testing.T) {
	t.Parallel()
	_, list := branches(t, 3_000_000, "hq-01", "brs-01")
	hq, branch := list[0], list[1]
	limit := func(rate int64) {
		t.Helper()
		if err := hq.SetSiteLimits(t.Context(), owner, "brs-01", appliance.Limits{WANDown: swarm.Plan{Rate: rate}}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the limit", func() error {
			if l, err := branch.SiteLimits(t.Context(), ""); err != nil || l.WANDown.Rate != rate {
				return fmt.Errorf("it is %v, %v", l, err)
			}
			return nil
		})
	}
	limit(2000)
	name := branch.wants(t, 1)[0]
	eventually(t, "hq serves it", hq.serves(name))
	want, err := os.ReadFile(filepath.Join(hq.dir, "waptwua", name))
	if err != nil {
		t.Fatal(err)
	}
	branch.has(t, name, func(k appliance.Task) bool { return k.Status == "running" && k.From == "peers" })
	var resp *http.Response
	eventually(t, "the answer", func() error {
		if resp, err = http.Get(branch.FolderURL() + name); err != nil || resp.StatusCode == 200 {
			return err
		}
		resp.Body.Close()
		return fmt.Errorf("it answers %s", resp.Status)
	})
	defer resp.Body.Close()
	if k := branch.task(t, name); k.Status != "running" || k.Done >= 512<<10 {
		t.Errorf("the answer came after the first piece: %+v", k)
	}
	limit(20_000_000)
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestLocalPlacement has a node that keeps only what its agents ask for: it
// fetches nothing by itself, and passes a file through when one asks.
func TestLocalPlacement(t *testing.T) {
	t.Parallel()
	_, list := branches(t, 200_000, "hq-01", "brs-01", "local-01")
	names := list[1].wants(t, 2)
	for _, name := range names {
		list[1].has(t, name, status("done"))
	}
	eventually(t, "the records", func() error {
		if u, err := list[2].Updates(t.Context(), appliance.UpdateQuery{}); err != nil || u.Total < 2 {
			return fmt.Errorf("%d updates, %v", u.Total, err)
		}
		return nil
	})
	if k := list[2].task(t, names[1]); k.File != "" {
		t.Errorf("a file nobody asked for has the task %+v", k)
	}
	eventually(t, "what an agent asks for", list[2].serves(names[0]))
	if k := list[2].has(t, names[0], status("done")); k.From != "peers" {
		t.Errorf("the task is %+v", k)
	}
	if k := list[2].task(t, names[1]); k.File != "" {
		t.Errorf("a file nobody asked for has the task %+v", k)
	}
}

// TestAnotherTakesOver has the node whose turn it is vanish: the other one
// downloads, and a file that rots on a disk is healed from a peer.
func TestAnotherTakesOver(t *testing.T) {
	t.Parallel()
	_, list := branches(t, 200_000, "hq-01", "hq-02", "brs-01")
	list[1].stop()
	names := list[2].wants(t, 2)
	for _, name := range names {
		list[2].has(t, name, status("done"))
	}
	path := filepath.Join(list[2].dir, "waptwua", names[0])
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("rot"), 100)
	f.Close()
	os.Chtimes(path, time.Time{}, info.ModTime()) // rot does not touch the time
	list[2].Scrub(t.Context(), names[0])
	eventually(t, "the healed file", func() error {
		if err := list[2].serves(names[0])(); err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Equal(b[100:103], []byte("rot")) {
			err = fmt.Errorf("it is still rotten")
		}
		if err != nil {
			err = fmt.Errorf("%w; the task is %+v", err, list[2].task(t, names[0]))
		}
		return err
	})
}

// TestWhoAsksMicrosoft has every node find the same order, in which a site
// comes first as often as its hosts are among those that wait.
func TestWhoAsksMicrosoft(t *testing.T) {
	t.Parallel()
	nodes := map[string]string{"a": "rennes", "b": "rennes", "c": "nantes", "d": "brest"}
	for _, tt := range []struct {
		name    string
		waiting map[string]int
		want    map[string]int // how often of a thousand
	}{
		{"nobody is known to wait", nil, map[string]int{"a": 250, "b": 250, "c": 250, "d": 250}},
		{"hosts of one site", map[string]int{"nantes": 3}, map[string]int{"c": 1000}},
		{"hosts of a site without a way to Microsoft", map[string]int{"lorient": 7}, map[string]int{"a": 250, "b": 250, "c": 250, "d": 250}},
		{"most hosts at one site", map[string]int{"nantes": 80, "brest": 20}, map[string]int{"c": 800, "d": 200}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := map[string]int{}
			for i := range 1000 {
				first, same := appliance.FirstOf(fmt.Sprint("file", i), nodes, tt.waiting)
				if !same {
					t.Fatalf("file%d: nodes find different orders", i)
				}
				got[first]++
			}
			for id := range nodes {
				if d := got[id] - tt.want[id]; d < -60 || d > 60 {
					t.Errorf("%s comes first %d times of 1000, want about %d", id, got[id], tt.want[id])
				}
			}
		})
	}
}

// TestTheSiteThatAskedDownloads has a host of one of two internet sites need
// files: that site's node downloads them, whose line they need.
func TestTheSiteThatAskedDownloads(t *testing.T) {
	t.Parallel()
	_, list := branches(t, 50_000, "hq-01", "hq-02")
	for _, name := range list[1].wants(t, 8) {
		if k := list[1].has(t, name, status("done")); k.From != "Microsoft" {
			t.Errorf("the node that was asked got it from %s: %+v", k.From, k)
		}
		if k := list[0].has(t, name, status("done")); k.From != "peers" {
			t.Errorf("the other node got it from %s: %+v", k.From, k)
		}
	}
}

// TestBudgetsOutliveARestart uses up what agents may take in a month.
func TestBudgetsOutliveARestart(t *testing.T) {
	t.Parallel()
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 300_000})
	srv := httptest.NewServer(world)
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	s := startIn(t, dir, world, srv.URL, nil)
	name := s.wants(t, 1)[0]
	s.has(t, name, status("done"))
	limit(t, s, appliance.Limits{Agents: swarm.Plan{Month: 1 << 40}})
	get(t, "GET", s.FolderURL()+name)
	limit(t, s, appliance.Limits{Agents: swarm.Plan{Month: 1000}})
	for range 2 {
		if p := s.Pauses(); len(p) != 1 || p[0].Line != "to agents" || !p[0].Budget {
			t.Errorf("the pauses are %+v", p)
		}
		if _, err := s.Traffic(t.Context(), 1); err != nil { // which records it, as each minute does
			t.Fatal(err)
		}
		s.stop()
		s = startIn(t, dir, world, srv.URL, nil)
	}
}

// TestPauses stops what comes from Microsoft and what goes to agents, and says
// until when and why.
func TestPauses(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *appliance.Config) { c.Site = "rennes" })
	set := func(l appliance.Limits) {
		t.Helper()
		if err := s.SetSiteLimits(t.Context(), owner, "", l); err != nil {
			t.Fatal(err)
		}
	}
	never := []swarm.Window{{From: 0, To: 0, Days: []time.Weekday{time.Now().Weekday()}, Rate: swarm.Never}}
	set(appliance.Limits{Source: swarm.Plan{Windows: never}})
	name := s.wants(t, 1)[0]
	k := s.has(t, name, func(k appliance.Task) bool { return k.Waiting != "" })
	if until := time.Until(k.NextTry); k.Waiting != "The site's limits let nothing come from Microsoft now." || until <= 0 || until > 25*time.Hour {
		t.Errorf("it waits for %q until %v", k.Waiting, k.NextTry)
	}
	if p := s.Pauses(); len(p) != 1 || p[0].Line != "from Microsoft" || p[0].Budget || !p[0].Until.Equal(k.NextTry) {
		t.Errorf("the pauses are %+v", p)
	}
	set(appliance.Limits{Agents: swarm.Plan{Windows: never}})
	s.has(t, name, status("done"))
	if resp, body := get(t, "GET", s.FolderURL()+name); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !bytes.Contains(body, []byte("next allowed at")) {
		t.Errorf("agents are told %s, %s", resp.Status, body)
	}
	set(appliance.Limits{Agents: swarm.Plan{Rate: 1 << 30}, Source: swarm.Plan{Month: 1}})
	eventually(t, "served, not faster than the limit", s.serves(name))
	if p := s.Pauses(); len(p) != 1 || p[0].Line != "from Microsoft" || !p[0].Budget || p[0].Until.Day() != 1 {
		t.Errorf("the pauses are %+v", p)
	}
}
