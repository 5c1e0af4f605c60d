package cli_test

import (
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft/microsofttest"
	"wuamesh/ui/cli"
)

// TestWatchingManyDownloads fetches more files than a page of the API holds,
// of which Microsoft lacks one: each is named as it ends, the one that failed
// with why, and both the exit code and --json cover them all.
func TestWatchingManyDownloads(t *testing.T) {
	defer cli.PageRows("7")()
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 3, FileBytes: 5_000})
	srv := httptest.NewServer(world)
	defer srv.Close()
	root, err := world.RootFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n, data, _ := nodeWith(t, func(c *appliance.Config) {
		c.Upstream, c.Internet, c.DiskFloor, c.Roots = srv.URL, true, 0, []string{root}
	})
	var ids []rules.UpdateID
	files := map[string]bool{"wsusscn2.cab": true}
	for _, u := range world.Updates() {
		ids = append(ids, rules.UpdateID(u.ID))
		for _, f := range u.Files {
			files[f.Name] = true
		}
	}
	if len(files) < 15 {
		t.Fatalf("a world of %d files shows nothing", len(files))
	}
	lost := world.Updates()[0].Files[0].Name
	world.Fault(lost, slices.Repeat([]microsofttest.Fault{{Status: 404}}, 9)...)
	owner := appliance.Actor{Name: "maelle", Role: appliance.Owner}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if queued, err := n.DownloadUpdates(t.Context(), owner, ids); err == nil && queued == len(files)-1 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%d of %d files are known, %v", queued, len(files)-1, err)
		}
	}
	out, said, code := run(t, "fetch", "--watch", "--data", data)
	if code != 1 || !strings.Contains(out+said, "1 download failed") {
		t.Errorf("exit %d\n%s%s", code, out, said)
	}
	for name := range files {
		if name != lost && !strings.Contains(said, "done      "+name) {
			t.Errorf("it does not say that %s is done:\n%s", name, said)
		}
	}
	if !strings.Contains(said, "failed    "+lost) || !strings.Contains(said, "404") || !strings.Contains(said, "Next try at") {
		t.Errorf("it does not say why %s is not there:\n%s", lost, said)
	}
	out, _, _ = run(t, "fetch", "--watch", "--json", "--data", data)
	var list []appliance.Task
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, task := range list {
		delete(files, task.File)
	}
	if len(files) > 0 {
		t.Errorf("--json lacks %v", files)
	}

	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"fetch", "pause"}, 2, "name the file to pause"},
		{[]string{"fetch", "pause", "nothing"}, 1, "no download that has not ended begins with nothing"},
		{[]string{"fetch", "pause", lost[:len(lost)-4]}, 0, "paused    " + lost},
		{[]string{"fetch", "--watch"}, 0, "Paused by"}, // and it ends: nothing else moves
		{[]string{"fetch", "first", lost}, 1, "it cannot be put first now"},
		{[]string{"fetch", "resume", lost, "--json"}, 0, `"file": "` + lost},
		{[]string{"fetch", "cancel", lost}, 0, "cancelled " + lost},
		{[]string{"fetch", "retry"}, 0, "0 failed downloads tried now."},
	} {
		if out, said, code := run(t, append(tt.args, "--data", data)...); code != tt.code || !strings.Contains(out+said, tt.want) {
			t.Errorf("wuamesh %s: exit %d, want %d and %q:\n%s%s", strings.Join(tt.args, " "), code, tt.code, tt.want, out, said)
		}
	}
}
