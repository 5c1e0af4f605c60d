package rig_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/api"
	"wuamesh/appliance/microsoft/microsofttest"
)

// A branch is a node as it ships, with a stand-in for Microsoft behind it.
type branch struct {
	t        *testing.T
	name     string
	site     string
	dir      string
	world    *microsofttest.World
	url      string // of the node
	token    string // of its API
	bin      string
	upstream string // URL of the stand-in
	http     *http.Client
	node     *exec.Cmd
	said     *transcript
}

// A transcript is what a process said so far.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *transcript) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newBranch starts a node and waits until it has the scan cab.
func newBranch(t *testing.T) *branch {
	t.Helper()
	b := &branch{t: t, name: "rns-01", site: "rennes", dir: t.TempDir(), world: microsofttest.New(microsofttest.Options{Seed: 1, Months: 1, FileBytes: 200_000})}
	b.http = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	step(t, "node built", func() {
		bin, err := filepath.Abs("../../out/wuamesh")
		if err != nil {
			t.Fatal(err)
		}
		build := exec.Command("go", "build", "-trimpath", "-o", bin, "wuamesh")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if err := output(build); err != nil {
			t.Fatal(err)
		}
		b.bin = bin
	})
	microsoft := httptest.NewServer(b.world)
	t.Cleanup(microsoft.Close)
	b.upstream = microsoft.URL
	step(t, "node ready, with the scan cab", func() {
		b.start()
		b.command("init")
		b.token = b.command("token", "api", "--role", "owner", "--name", "rig")
		b.call("POST", "index/download", nil, nil)
		b.until("the scan cab", func() error {
			resp, err := b.http.Head(b.url + "/waptwua/" + agentproto.ScanCabName)
			if err == nil && resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("%s", resp.Status)
			}
			return err
		})
	})
	return b
}

// another starts a second node, at another site of the same mesh.
func (b *branch) another(name, site string) *branch {
	b.t.Helper()
	o := &branch{t: b.t, name: name, site: site, dir: b.t.TempDir(), world: b.world, bin: b.bin, upstream: b.upstream, http: b.http}
	o.start()
	o.command("join", "--site", site, b.command("token", "join"))
	o.token = o.command("token", "api", "--role", "owner", "--name", "rig")
	return o
}

// kill ends the node as a power cut does.
func (b *branch) kill() {
	b.node.Process.Kill()
	b.node.Wait()
}

// start runs the node, on the address it had before if there was one.
func (b *branch) start() {
	b.t.Helper()
	b.said = &transcript{}
	root, err := b.world.RootFile(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	config := fmt.Sprintf("name = %q\nsite = %q\ndata = %q\nfolder = %q\nlisten_https = %q\nlisten_http = \"127.0.0.1:0\"\nupstream = %q\nroots = [%q]\ninternet = true\ndisk_floor = \"1 MiB\"\n",
		b.name, b.site, filepath.Join(b.dir, "data"), filepath.Join(b.dir, "waptwua"), cmp.Or(strings.TrimPrefix(b.url, "https://"), "127.0.0.1:0"), b.upstream, root)
	path := filepath.Join(b.dir, "wuamesh.toml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.node = exec.Command(b.bin, "serve", "--config", path)
	b.node.Stdout, b.node.Stderr, b.node.SysProcAttr = b.said, b.said, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.node.Start(); err != nil {
		b.t.Fatal(err)
	}
	node, said := b.node, b.said
	b.t.Cleanup(func() {
		node.Process.Kill()
		node.Wait()
		if b.t.Failed() {
			b.t.Logf("the node said\n%s", said)
		}
	})
	b.until("the node is ready", func() error {
		m := regexp.MustCompile(`msg="node ready" url=(\S+)`).FindStringSubmatch(said.String())
		if m == nil {
			return fmt.Errorf("it said\n%s", said)
		}
		b.url = m[1]
		return nil
	})
}

// command types a command on the node's machine and returns its first line.
func (b *branch) command(args ...string) string {
	b.t.Helper()
	var out, said bytes.Buffer
	cmd := exec.Command(b.bin, append(args, "--data", filepath.Join(b.dir, "data"))...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		b.t.Fatalf("wuamesh %s: %v\n%s%s", strings.Join(args, " "), err, &out, &said)
	}
	first, _, _ := strings.Cut(out.String(), "\n")
	return strings.TrimSpace(first)
}

// ask asks the API.
func (b *branch) ask(method, path string, body, into any) error {
	send, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, b.url+"/api/v1/"+path, bytes.NewReader(send))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+b.token)
	resp, err := b.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s %s", method, path, resp.Status, got)
	}
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal(got, into)
}

func (b *branch) call(method, path string, body, into any) {
	b.t.Helper()
	if err := b.ask(method, path, body, into); err != nil {
		b.t.Fatal(err)
	}
}

// until waits for ok, two minutes at most.
func (b *branch) until(what string, ok func() error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Minute)
	defer cancel()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			b.t.Fatalf("in two minutes not: %s: %v", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// host is the one host there is.
func (b *branch) host() (h appliance.HostRow, err error) {
	var list appliance.HostList
	if err := b.ask("GET", "hosts", nil, &list); err != nil {
		return h, err
	}
	if len(list.Hosts) != 1 {
		return h, fmt.Errorf("%d hosts", len(list.Hosts))
	}
	return list.Hosts[0], nil
}

// detail is all that the node's page of the host shows.
func (b *branch) detail() (d appliance.HostDetail) {
	b.t.Helper()
	h, err := b.host()
	if err != nil {
		b.t.Fatal(err)
	}
	b.call("GET", "hosts/"+string(h.ID), nil, &d)
	return d
}

// states are those of the host's updates.
func (b *branch) states() (map[rules.UpdateID]appliance.HostUpdate, error) {
	h, err := b.host()
	if err != nil {
		return nil, err
	}
	var list appliance.HostUpdateList
	if err := b.ask("GET", "hosts/"+string(h.ID)+"/updates", nil, &list); err != nil {
		return nil, err
	}
	states := map[rules.UpdateID]appliance.HostUpdate{}
	for _, u := range list.Updates {
		states[u.Update.ID] = u
	}
	return states, nil
}

// awaits waits until the node shows updates in that state, and the first of
// them with that reason if one is given.
func (b *branch) awaits(state rules.State, reason rules.Reason, ids ...rules.UpdateID) {
	b.t.Helper()
	b.until(fmt.Sprintf("%s on the node", state), func() error {
		states, err := b.states()
		if err != nil {
			return err
		}
		for _, id := range ids {
			u := states[id]
			if u.State != state || reason != "" && u.Reason != reason {
				return fmt.Errorf("%s is %s, %s (%s %s)", id, u.State, u.Reason, u.Why, u.HResult)
			}
		}
		return nil
	})
}

// order sends a command to the host and waits for its end.
func (b *branch) order(action agentproto.Action) appliance.CommandRow {
	b.t.Helper()
	h, err := b.host()
	if err != nil {
		b.t.Fatal(err)
	}
	var before appliance.HostDetail
	b.call("GET", "hosts/"+string(h.ID), nil, &before)
	b.call("POST", "hosts/actions", api.Trigger{Hosts: []agentproto.HostID{h.ID}, Action: action}, nil)
	var last appliance.CommandRow
	b.until(fmt.Sprintf("the end of the order to %s", action), func() error {
		var d appliance.HostDetail
		if err := b.ask("GET", "hosts/"+string(h.ID), nil, &d); err != nil {
			return err
		}
		for _, c := range d.Commands {
			old := slices.ContainsFunc(before.Commands, func(o appliance.CommandRow) bool { return o.ID == c.ID })
			if c.Action == action && !old {
				last = c
				if c.State == string(agentproto.CommandDone) || c.State == string(agentproto.CommandFailed) {
					return nil
				}
			}
		}
		return fmt.Errorf("%+v", d.Commands)
	})
	return last
}

// step prints how long something took.
func step(t *testing.T, what string, f func()) {
	t.Helper()
	began := time.Now()
	f()
	t.Logf("%6.2f s  %s", time.Since(began).Seconds(), what)
}
