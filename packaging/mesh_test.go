package packaging_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// inNamespace is set in the process that TestMeshOfProcesses starts in a
// network of its own; it holds where the program is.
const inNamespace = "WUAMESH_MESH_TEST"

// TestMeshOfProcesses runs five real nodes, each in its own network
// namespace: once all reach all, once branches reach headquarters alone.
// Lines are cut and processes killed while admins edit on every node. An
// independent reader then asks all five, and compares them with the log of
// what was acknowledged, which was kept outside of the nodes.
func TestMeshOfProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short; packaging/check runs it")
	}
	if bin := os.Getenv(inNamespace); bin != "" {
		t.Run("full", func(t *testing.T) { playMesh(t, bin, false) })
		t.Run("hub", func(t *testing.T) { playMesh(t, bin, true) })
		return
	}
	if os.Getuid() != 0 {
		t.Skip("it makes network namespaces, which needs root")
	}
	inside := `mkdir -p /run/netns && mount -t tmpfs none /run/netns && ip link set lo up && exec "$0" "$@"`
	if out, err := exec.Command("unshare", "--net", "--mount", "sh", "-c", inside, "ip", "netns", "add", "probe").CombinedOutput(); err != nil {
		t.Skipf("this machine makes no network namespaces: %v\n%s", err, out)
	}
	bin := filepath.Join(t.TempDir(), "wuamesh")
	for _, build := range []*exec.Cmd{exec.Command("go", "build", "-o", bin, module), earlier(bin + "-earlier")} {
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	cmd := exec.Command("unshare", "--net", "--mount", "sh", "-c", inside, os.Args[0], "-test.run=^TestMeshOfProcesses$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"="+bin)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

// earlier makes the program that nodes run in turn with the one of this
// source, so that each restart is an upgrade or goes back: the release in
// $WUAMESH_EARLIER, or this source under an earlier number.
func earlier(bin string) *exec.Cmd {
	if release := os.Getenv("WUAMESH_EARLIER"); release != "" {
		return exec.Command("cp", release, bin)
	}
	return exec.Command("go", "build", "-ldflags", "-X "+module+"/appliance.Version=0.0.9", "-o", bin, module)
}

const meshSize = 5

// A lab is five nodes and the switch between them.
type lab struct {
	t    *testing.T
	bin  string
	dir  string
	http *http.Client
	rand *rand.Rand

	mu    sync.Mutex
	nodes [meshSize]*exec.Cmd
	runs  [meshSize]int // how often each was started
	token string        // of the API, the same everywhere
}

func playMesh(t *testing.T, bin string, hub bool) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	l := &lab{t: t, bin: bin, dir: t.TempDir(), rand: rand.New(rand.NewPCG(seed, 0)), http: &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext},
	}}
	l.build()
	t.Cleanup(l.tearDown)
	if hub {
		for i := 1; i < meshSize; i++ {
			for j := i + 1; j < meshSize; j++ {
				l.cut(i, j)
			}
		}
	}
	began := time.Now()
	l.found()
	t.Logf("five nodes, one mesh, after %v", time.Since(began).Round(time.Millisecond))

	var log acks
	log.open(t, filepath.Join(l.dir, "acknowledged"))
	stop := make(chan struct{})
	var editing sync.WaitGroup
	for i := range meshSize {
		editing.Go(func() { l.edit(i, &log, stop) })
	}
	l.trouble(hub, &log)
	close(stop)
	editing.Wait()
	began = time.Now()
	all := l.converge()
	l.mixed()
	t.Logf("%d edits acknowledged, %d not; all five equal %v after the last", len(log.done), len(log.maybe), time.Since(began).Round(100*time.Millisecond))
	log.check(t, all)
}

func (l *lab) sh(format string, args ...any) {
	l.t.Helper()
	line := fmt.Sprintf(format, args...)
	if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
		l.t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

func addr(i int) string { return fmt.Sprintf("10.77.0.%d", i+1) }

// build makes the switch, a namespace per node, and their configurations.
func (l *lab) build() {
	l.sh("ip link add sw type bridge && ip addr add 10.77.0.254/24 dev sw && ip link set sw up")
	for i := range meshSize {
		l.sh("ip netns add n%[1]d && ip link add v%[1]d type veth peer name eth0 netns n%[1]d && ip link set v%[1]d master sw up", i)
		l.sh("ip -n n%[1]d link set lo up && ip -n n%[1]d addr add %[2]s/24 dev eth0 && ip -n n%[1]d link set eth0 up", i, addr(i))
		conf := fmt.Sprintf("name = \"node-%[1]d\"\nsite = \"site-%[1]d\"\ndata = \"%[2]s/data\"\nfolder = \"%[2]s/folder\"\ninternet = false\nlog_level = \"warn\"\n", i, l.path(i))
		if err := errors.Join(os.MkdirAll(l.path(i), 0o700), os.WriteFile(filepath.Join(l.path(i), "wuamesh.toml"), []byte(conf), 0o600)); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *lab) path(i int) string { return filepath.Join(l.dir, fmt.Sprint(i)) }

func (l *lab) tearDown() {
	for i := range meshSize {
		l.kill(i)
		if b, _ := os.ReadFile(filepath.Join(l.path(i), "log")); l.t.Failed() {
			l.t.Logf("log of node-%d:\n%s", i, b)
		}
		l.sh("ip netns del n%d", i)
	}
	l.sh("ip link del sw")
}

// cut drops what two nodes send each other, silently, as a firewall does.
func (l *lab) cut(i, j int) {
	l.sh("ip -n n%d neigh replace %s lladdr 02:00:00:00:00:99 dev eth0 nud permanent", i, addr(j))
	l.sh("ip -n n%d neigh replace %s lladdr 02:00:00:00:00:99 dev eth0 nud permanent", j, addr(i))
}

func (l *lab) heal(i, j int) {
	l.sh("ip -n n%d neigh del %s dev eth0", i, addr(j))
	l.sh("ip -n n%d neigh del %s dev eth0", j, addr(i))
}

func (l *lab) start(i int) {
	l.t.Helper()
	log, err := os.OpenFile(filepath.Join(l.path(i), "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		l.t.Fatal(err)
	}
	defer log.Close()
	os.Remove(filepath.Join(l.path(i), "data", "console.json")) // of a run that was killed
	bin := l.bin
	if l.runs[i]++; (i == 1 || i == 2) == (l.runs[i]%2 == 1) { // whoever is killed, both remain
		bin += "-earlier"
	}
	cmd := exec.Command("ip", "netns", "exec", fmt.Sprintf("n%d", i), bin, "serve", "--config", filepath.Join(l.path(i), "wuamesh.toml"))
	cmd.Stderr, cmd.SysProcAttr = log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	l.nodes[i] = cmd
	l.mu.Unlock()
}

// kill pulls the plug.
func (l *lab) kill(i int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.nodes[i]; c != nil {
		c.Process.Kill()
		c.Wait()
		l.nodes[i] = nil
	}
}

// wuamesh types a command on the machine of node i.
func (l *lab) wuamesh(i int, args ...string) string {
	l.t.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", fmt.Sprintf("n%d", i), l.bin}, append(args, "--data", filepath.Join(l.path(i), "data"))...)...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		l.t.Fatalf("wuamesh %s on node-%d: %v\n%s%s", strings.Join(args, " "), i, err, &out, &said)
	}
	return strings.TrimSpace(out.String())
}

// found makes the five one mesh, as an admin would.
func (l *lab) found() {
	for i := range meshSize {
		l.start(i)
	}
	for i := range meshSize {
		l.await("node answers", 20*time.Second, func() error {
			_, err := os.Stat(filepath.Join(l.path(i), "data", "console.json"))
			return err
		})
	}
	l.wuamesh(0, "init")
	l.token = l.wuamesh(0, "token", "api", "--role", "owner", "--name", "checker")
	for i := 1; i < meshSize; i++ {
		l.wuamesh(i, "join", "--site", fmt.Sprintf("site-%d", i), l.wuamesh(0, "token", "join"))
	}
	l.await("every node knows the token", 20*time.Second, func() error {
		for i := range meshSize {
			if err := l.call(i, "GET", "nodes", nil, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (l *lab) await(what string, d time.Duration, ok func() error) {
	l.t.Helper()
	var err error
	for deadline := time.Now().Add(d); time.Now().Before(deadline); {
		if err = ok(); err == nil {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	l.t.Fatalf("%s: %v", what, err)
}

// call asks the API of node i.
func (l *lab) call(i int, method, path string, body, answer any) error {
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		send = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "https://"+addr(i)+"/api/v1/"+path, send)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+l.token)
	resp, err := l.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s on node-%d: %s %s", method, path, i, resp.Status, b)
	}
	if answer != nil {
		return json.Unmarshal(b, answer)
	}
	return nil
}

// edit is an admin on node i who never pauses long: packages of their own,
// made, changed and deleted, and lines of a package that all of them edit.
func (l *lab) edit(i int, log *acks, stop chan struct{}) {
	r := rand.New(rand.NewPCG(uint64(i), 1))
	for n := 1; ; n++ {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(50+r.IntN(150)) * time.Millisecond):
		}
		name := fmt.Sprintf("own-%d-%d", i, r.IntN(12))
		key, method, path, body := name, "PUT", "rules/"+name, any(map[string]any{"maturity": "PROD", "description": fmt.Sprintf("edit %d of node-%d", n, i), "lines": []any{}, "groups": []any{}, "hosts": []any{}})
		value := fmt.Sprintf("edit %d of node-%d", n, i)
		switch k := r.IntN(10); {
		case k < 4:
			kb := fmt.Sprintf("%d", 5000000+i*100000+n)
			key, value = "shared allow kb "+kb, "there"
			method, path, body = "POST", "rules/shared/lines", lineOf("allow", kb)
		case k == 4 && log.last(name) != "":
			method, body, value = "DELETE", nil, ""
		}
		log.put(key, value, l.call(i, method, path, body, nil))
	}
}

func lineOf(verb, kb string) any {
	return map[string]any{"lines": []any{map[string]any{"verb": verb, "kind": "kb", "value": kb}}}
}

// trouble cuts lines and kills nodes while the admins edit.
func (l *lab) trouble(hub bool, log *acks) {
	pause := func(d time.Duration) { <-time.After(d) }
	log.put("shared", "", l.call(0, "PUT", "rules/shared", map[string]any{"maturity": "PROD", "lines": []any{}, "groups": []any{}, "hosts": []any{}}, nil))
	pause(2 * time.Second)
	if hub {
		l.relayed()
	}
	// Half of the branches are cut off from the rest.
	var lines [][2]int
	for _, i := range []int{3, 4} {
		for j := range 3 {
			if !hub || j == 0 {
				l.cut(i, j)
				lines = append(lines, [2]int{i, j})
			}
		}
	}
	pause(time.Second)
	// One update, allowed on one side and forbidden on the other.
	log.put("shared allow kb 4999999", "", l.call(1, "POST", "rules/shared/lines", lineOf("allow", "4999999"), nil))
	log.put("shared forbid kb 4999999", "there", l.call(3, "POST", "rules/shared/lines", lineOf("forbid", "4999999"), nil))
	l.apart()
	for _, victim := range []int{1 + l.rand.IntN(2), 3 + l.rand.IntN(2)} {
		l.kill(victim)
		l.t.Logf("killed node-%d during the cut", victim)
		pause(time.Second)
		l.start(victim)
	}
	pause(2 * time.Second)
	for _, c := range lines {
		l.heal(c[0], c[1])
	}
	pause(time.Second)
	l.kill(0) // headquarters, while they find each other again
	pause(500 * time.Millisecond)
	l.start(0)
	pause(2 * time.Second)
}

// relayed makes sure that branches do not reach each other but through
// headquarters: otherwise the run would prove less than it says.
func (l *lab) relayed() {
	l.await("branches see each other through headquarters", 20*time.Second, func() error {
		var list struct {
			Nodes []struct{ Name, Reach, Through string }
		}
		if err := l.call(1, "GET", "nodes", nil, &list); err != nil {
			return err
		}
		for _, n := range list.Nodes {
			if n.Name > "node-1" && (n.Reach != "relayed" || n.Through != "node-0") {
				return fmt.Errorf("%s is %q through %q", n.Name, n.Reach, n.Through)
			}
		}
		return nil
	})
}

// apart makes sure that the cut is one: each side lacks the other's edit.
func (l *lab) apart() {
	for i, foreign := range map[int]string{1: "shared forbid kb 4999999", 3: "shared allow kb 4999999"} {
		s, err := l.read(i)
		if err != nil {
			l.t.Fatal(err)
		}
		if s[foreign] != "" {
			l.t.Errorf("node-%d has %q across the cut", i, foreign)
		}
	}
}

// A state is what one node says there is: "package" and its description, or
// "package verb kind value" and "there".
type state map[string]string

// converge waits until all five say the same and returns it.
func (l *lab) converge() state {
	l.t.Helper()
	var all [meshSize]state
	l.await("all five nodes become equal", 60*time.Second, func() error {
		for i := range meshSize {
			s, err := l.read(i)
			if err != nil {
				return err
			}
			if all[i] = s; !maps.Equal(all[0], s) {
				return fmt.Errorf("node-0 and node-%d differ in %s", i, difference(all[0], s))
			}
		}
		return nil
	})
	return all[0]
}

// mixed makes sure that two versions were at work, and that the mesh says so.
func (l *lab) mixed() {
	l.await("the mesh shows both versions and who should be upgraded", 20*time.Second, func() error {
		var list struct {
			Nodes []struct {
				Name, Version string
				Problems      []string
			}
		}
		if err := l.call(0, "GET", "nodes", nil, &list); err != nil {
			return err
		}
		seen := map[string]int{}
		for _, n := range list.Nodes {
			seen[n.Version]++
		}
		if len(seen) != 2 || !strings.Contains(fmt.Sprint(list), "It runs wuamesh") {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
}

func difference(a, b state) string {
	var list []string
	for k := range maps.Keys(a) {
		if a[k] != b[k] {
			list = append(list, fmt.Sprintf("%s (%q, %q)", k, a[k], b[k]))
		}
	}
	for k := range maps.Keys(b) {
		if _, ok := a[k]; !ok {
			list = append(list, fmt.Sprintf("%s (none, %q)", k, b[k]))
		}
	}
	slices.Sort(list)
	return fmt.Sprintf("%d: %s", len(list), strings.Join(list[:min(len(list), 5)], ", "))
}

func (l *lab) read(i int) (state, error) {
	var packages []struct{ Name, Description string }
	if err := l.call(i, "GET", "rules", nil, &packages); err != nil {
		return nil, err
	}
	s := state{}
	for _, p := range packages {
		s[p.Name] = p.Description
	}
	var shared struct {
		Lines []struct{ Verb, Kind, Value string }
	}
	if err := l.call(i, "GET", "rules/shared", nil, &shared); err != nil {
		return nil, err
	}
	for _, line := range shared.Lines {
		s[fmt.Sprintf("shared %s %s %s", line.Verb, line.Kind, line.Value)] = line.Value
	}
	for k := range s {
		if strings.HasPrefix(k, "shared ") {
			s[k] = "there"
		}
	}
	return s, nil
}

// acks is the log of what admins were told, outside of the nodes. Each key is
// written by one admin, one edit after the other.
type acks struct {
	mu    sync.Mutex
	file  *os.File
	done  []string            // what was acknowledged, in order
	holds map[string]string   // by key: the last value acknowledged; "" is deleted
	maybe map[string][]string // by key: tried since, and not known whether it took
}

func (a *acks) open(t *testing.T, path string) {
	var err error
	if a.file, err = os.Create(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.file.Close() })
	a.holds, a.maybe = map[string]string{}, map[string][]string{}
}

func (a *acks) put(key, value string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fmt.Fprintf(a.file, "%v %q %q %v\n", time.Now().Format(time.StampMilli), key, value, err)
	if err != nil {
		a.maybe[key] = append(a.maybe[key], value)
		return
	}
	a.done = append(a.done, key)
	a.holds[key] = value
	delete(a.maybe, key)
}

func (a *acks) last(key string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.holds[key]
}

// check compares what the nodes hold with what was acknowledged.
func (a *acks) check(t *testing.T, got state) {
	t.Helper()
	if len(a.done) < 50 {
		t.Errorf("only %d edits were acknowledged: that proves little", len(a.done))
	}
	for key, want := range a.holds {
		if key == "shared" || key == "shared allow kb 4999999" { // forbid won, and may have taken it out
			continue
		}
		is := got[key]
		if is != want && !slices.Contains(a.maybe[key], is) {
			t.Errorf("%s is %q; acknowledged was %q, and tried since %q", key, is, want, a.maybe[key])
		}
	}
	for key := range got {
		_, held := a.holds[key]
		if _, tried := a.maybe[key]; !held && !tried {
			t.Errorf("%s is there and nobody made it", key)
		}
	}
}
