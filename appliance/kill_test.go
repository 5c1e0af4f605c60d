package appliance_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/microsofttest"
)

// child runs a node until it is killed, when this process was started for
// that; it prints where the node is.
func child(t *testing.T) {
	dir := os.Getenv("APPLIANCE_TEST_CHILD")
	if dir == "" {
		return
	}
	cfg := appliance.DevConfig()
	cfg.Name, cfg.Data, cfg.Folder = "rns-01", filepath.Join(dir, "data"), filepath.Join(dir, "waptwua")
	cfg.ListenHTTPS, cfg.ListenHTTP = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Upstream, cfg.DiskFloor = os.Getenv("APPLIANCE_TEST_UPSTREAM"), 0
	cfg.Roots = []string{os.Getenv("APPLIANCE_TEST_ROOT")}
	node, err := appliance.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	by := appliance.Actor{Name: "test", Role: appliance.Owner}
	if _, err := node.PutPackage(t.Context(), by, "baseline", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{{Verb: rules.Allow, Kind: rules.BySeverity, Value: "Critical"}}}); err != nil {
		t.Fatal(err)
	}
	_, token, err := node.MakeToken(t.Context(), by, appliance.TokenOptions{Name: "t", Use: appliance.ForEnroll, Uses: 100, Expires: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(node.URL(), node.Pin(), token)
	t.Fatal(node.Run(context.Background(), http.NotFoundHandler()))
}

// TestNothingAcknowledgedIsLostToSIGKILL kills a node while twenty hosts
// report and files are on their way, starts another on the same data, and
// looks for every report that was acknowledged and every file that was whole.
func TestNothingAcknowledgedIsLostToSIGKILL(t *testing.T) {
	child(t)
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 2, FileBytes: 300_000})
	srv := httptest.NewServer(world)
	defer srv.Close()
	list, byID := described(world)
	for _, u := range list {
		if len(u.Files) > 0 { // each comes in three parts, so that the kill falls into the middle of some
			n := u.Files[0].Size / 3
			world.Fault(u.Files[0].Name, microsofttest.Fault{Truncate: n, Delay: 100 * time.Millisecond}, microsofttest.Fault{Truncate: n, Delay: 100 * time.Millisecond})
		}
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "APPLIANCE_TEST_CHILD="+dir, "APPLIANCE_TEST_UPSTREAM="+srv.URL, "APPLIANCE_TEST_ROOT="+rootFile(t, world))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	words := strings.Fields(line)
	if err != nil || len(words) != 3 {
		t.Fatalf("the child said %q: %v", line, err)
	}
	acked := hammer(t, words[0], words[1], words[2], list, byID, func() { cmd.Process.Kill() })
	cmd.Wait()
	t.Logf("%d reports were acknowledged before the kill", len(acked))
	if len(acked) == 0 {
		t.Fatal("none was")
	}
	whole := listFolder(t, filepath.Join(dir, "waptwua"))
	s := startIn(t, dir, world, srv.URL, nil)
	for id, n := range acked {
		list, err := s.HostUpdates(t.Context(), id, appliance.HostUpdateQuery{Page: appliance.Page{Limit: 1}})
		if err != nil || list.Total < n {
			t.Errorf("host %s had %d statuses acknowledged and has %d: %v", id, n, list.Total, err)
		}
	}
	for name, size := range whole {
		eventually(t, "file "+name, func() error {
			resp, err := http.Get(s.FolderURL() + name)
			if err != nil {
				return err
			}
			resp.Body.Close()
			if resp.StatusCode != 200 || resp.ContentLength != size {
				return fmt.Errorf("%s, %d of %d bytes", resp.Status, resp.ContentLength, size)
			}
			return nil
		})
	}
}

// hammer has twenty hosts report one update more each time, and calls kill
// after the hundredth acknowledgement. It returns how many statuses each host
// was acknowledged.
func hammer(t *testing.T, url, pin, token string, list []agentproto.Update, byID map[rules.UpdateID]agentproto.Update, kill func()) map[agentproto.HostID]int {
	var mu sync.Mutex
	acked, total := map[agentproto.HostID]int{}, 0
	var machines []*machine
	for h := range 20 {
		machines = append(machines, enrolAt(t, url, pin, h+1, token))
	}
	var wg sync.WaitGroup
	for _, m := range machines {
		wg.Go(func() {
			for n := 1; n <= len(list); n++ {
				resp, err := m.Report(t.Context(), scanOf(needs(list[:n]...)))
				if err != nil {
					return
				}
				mu.Lock()
				acked[m.id], total = n, total+1
				last := total == 100
				mu.Unlock()
				if last {
					kill()
				}
				rep := agentproto.Report{Protocol: 1}
				for _, ref := range resp.Lacks {
					rep.Updates = append(rep.Updates, byID[ref.ID])
				}
				if len(rep.Updates) > 0 {
					if _, err := m.Report(t.Context(), rep); err != nil {
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return acked
}

func listFolder(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	whole := map[string]int64{}
	for _, e := range list {
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() && strings.HasSuffix(e.Name(), ".cab") && e.Name() != "wsusscn2.cab" {
			whole[e.Name()] = st.Size()
		}
	}
	return whole
}
