package appliance_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/microsoft"
	"wuamesh/appliance/microsoft/microsofttest"
)

func is(s *site, t *testing.T, m *machine, u agentproto.Update, state rules.State, reason rules.Reason) func() error {
	return func() error {
		if w := s.state(t, m, u); w.State != state || w.Reason != reason {
			return fmt.Errorf("%s is %s (%s): %s", u.Title, w.State, w.Reason, w.Why)
		}
		return nil
	}
}

// TestOneUpdateFromMicrosoftToAHost follows three updates through every state,
// over the real listeners, with real files.
func TestOneUpdateFromMicrosoftToAHost(t *testing.T) {
	s := start(t, nil)
	list, byID := described(s.world)
	allowed, frozen, unruled := list[0], list[1], list[2]
	if _, err := s.PutPackage(t.Context(), owner, "baseline", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{
		{Verb: rules.Allow, Kind: rules.ByUpdateID, Value: string(allowed.ID)}, {Verb: rules.Allow, Kind: rules.ByUpdateID, Value: string(frozen.ID)},
	}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutPackage(t.Context(), owner, "erp-freeze", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{
		{Verb: rules.Forbid, Kind: rules.ByUpdateID, Value: string(frozen.ID)},
	}}); err != nil {
		t.Fatal(err)
	}
	m := s.enrol(t, 1, s.enrolToken(t, 1))
	resp := m.checkin(t)
	if resp.Policy == nil || len(resp.Policy.Packages) != 2 || resp.PolicyHash != resp.Policy.Hash() {
		t.Fatalf("the policy is %+v", resp.Policy)
	}
	eventually(t, "scan cab", func() error {
		if ref := m.checkin(t).Cab; ref == nil || ref.Size != int64(len(s.world.Cab())) {
			return fmt.Errorf("the node names %+v", ref)
		}
		return nil
	})
	s.world.Fault(allowed.Files[0].Name, microsofttest.Fault{Delay: 300 * time.Millisecond})
	m.report(t, needs(allowed, frozen, unruled), byID)
	if w := s.state(t, m, allowed); w.State == rules.OK || w.State == rules.Discarded || w.Decision.By == nil || w.Decision.By.Package != "baseline" {
		t.Errorf("reported a moment ago: %s (%s) by %+v", w.State, w.Reason, w.Decision.By)
	}
	eventually(t, "download", is(s, t, m, allowed, rules.Pending, rules.ReasonOnNode))
	if w := s.state(t, m, frozen); w.State != rules.Discarded || w.Reason != rules.ReasonForbidden || !strings.Contains(w.Why, "erp-freeze") {
		t.Errorf("a forbidden update is %s: %s", w.State, w.Why)
	}
	if w := s.state(t, m, unruled); w.State != rules.Discarded || w.Reason != rules.ReasonNoRule {
		t.Errorf("an update without a rule is %s: %s", w.State, w.Why)
	}
	for u, want := range map[*agentproto.Update]int{&allowed: 1, &frozen: 0, &unruled: 0} {
		if n := s.world.Requests()[u.Files[0].Name].Gets; n != want {
			t.Errorf("%s was fetched %d times, want %d", u.Title, n, want)
		}
	}
	got, err := m.Fetch(t.Context(), allowed.Files[0].Name, 0, "")
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if n, err := io.Copy(io.Discard, got.Body); err != nil || n != allowed.Files[0].Size {
		t.Errorf("the node served %d bytes of %d: %v", n, allowed.Files[0].Size, err)
	}
	st := needs(allowed, frozen, unruled)
	st[0].OnHost = true
	m.report(t, st, byID)
	eventually(t, "on the host", is(s, t, m, allowed, rules.Pending, rules.ReasonOnHost))
	if err := m.Results(t.Context(), agentproto.Results{Protocol: 1, Installs: []agentproto.InstallResult{{UpdateRef: agentproto.UpdateRef{ID: allowed.ID, Revision: allowed.Revision}, HResult: 0x800F0922, At: time.Now()}}}); err != nil {
		t.Fatal(err)
	}
	if w := s.state(t, m, allowed); w.Reason != rules.ReasonInstallErr || !strings.Contains(w.Why, "0x800F0922") {
		t.Errorf("after a failed install: %s (%s): %s", w.State, w.Reason, w.Why)
	}
	st[0].OnHost, st[0].Installed = false, true
	m.report(t, st, byID)
	if err := is(s, t, m, allowed, rules.OK, rules.Installed)(); err != nil {
		t.Error(err)
	}
	counts, err := s.Updates(t.Context(), appliance.UpdateQuery{State: []rules.State{rules.Discarded}})
	if err != nil || counts.Total != 3 || counts.Matching != 2 {
		t.Errorf("the list has %d of %d: %v", counts.Matching, counts.Total, err)
	}
}

// TestCommandsArriveAtOnce triggers a host whose stream is open.
func TestCommandsArriveAtOnce(t *testing.T) {
	s := start(t, nil)
	m := s.enrol(t, 1, s.enrolToken(t, 1))
	m.checkin(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := make(chan agentproto.Command, 1)
	go m.Events(ctx, func(e agentproto.Event) error {
		var cmd agentproto.Command
		if e.Name == "command" && json.Unmarshal(e.Data, &cmd) == nil {
			got <- cmd
		}
		return nil
	})
	eventually(t, "stream", func() error {
		if h, err := s.Host(ctx, m.id); err != nil || !h.Online {
			return fmt.Errorf("not online: %v", err)
		}
		return nil
	})
	if n, err := s.Trigger(ctx, owner, agentproto.ActionScan, nil, "all"); n != 1 || err != nil {
		t.Fatalf("Trigger = %d, %v", n, err)
	}
	var cmd agentproto.Command
	select {
	case cmd = <-got:
	case <-ctx.Done():
		t.Fatal("no command came")
	}
	if cmd.Action != agentproto.ActionScan || cmd.By != "maelle" {
		t.Errorf("it was %+v", cmd)
	}
	if err := m.Results(ctx, agentproto.Results{Protocol: 1, Commands: []agentproto.CommandResult{{ID: cmd.ID, State: agentproto.CommandDone, Detail: "Found 3 updates.", At: time.Now()}}}); err != nil {
		t.Fatal(err)
	}
	h, err := s.Host(ctx, m.id)
	if err != nil || len(h.Commands) != 1 || h.Commands[0].State != "done" {
		t.Errorf("the host's commands are %+v, %v", h.Commands, err)
	}
	if again := m.checkin(t); len(again.Commands) != 0 {
		t.Errorf("a done command is sent again: %+v", again.Commands)
	}
}

// TestWhoComesIn tries the doors: used-up, expired and unknown tokens, no
// token, a taken identity, a removed host.
func TestWhoComesIn(t *testing.T) {
	s := start(t, nil)
	token := s.enrolToken(t, 1)
	m := s.enrol(t, 1, token)
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	for name, tt := range map[string]struct{ token, want string }{
		"used up":   {token, "is used up"},
		"unknown":   {agentproto.NewEnrollToken(s.Pin()).String(), "unknown"},
		"truncated": {token[:50], "was it copied whole"},
	} {
		if _, _, err := s.ask(t, 2, tt.token, key); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s token: %v", name, err)
		}
	}
	expired := s.enrolToken(t, 1)
	if err := s.ExpireTokens(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.ask(t, 2, expired, key)
	if p, ok := errors.AsType[*agentproto.Problem](err); !ok || p.Status != http.StatusForbidden || !strings.Contains(p.Title, "The enrolment token test expired on ") || !strings.Contains(p.Hint, "wuamesh token enroll") {
		t.Errorf("an expired token: %v", err)
	}
	if list, err := s.Hosts(t.Context(), appliance.HostQuery{}); err != nil || list.Total != 1 {
		t.Errorf("who was refused is among %d hosts, %v", list.Total, err)
	}
	if _, resp, err := s.ask(t, 3, "", key); err != nil || !resp.Pending {
		t.Fatalf("without a token: %+v, %v", resp, err)
	}
	if err := s.ApproveHost(t.Context(), owner, hostID(3)); err != nil {
		t.Fatal(err)
	}
	if _, resp, err := s.ask(t, 3, "", key); err != nil || resp.Pending {
		t.Errorf("approved: %+v, %v", resp, err)
	}
	other, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if _, resp, err := s.ask(t, 1, s.enrolToken(t, 1), other); err != nil || !resp.Pending {
		t.Errorf("another machine under a host's identity, with a token: %+v, %v", resp, err)
	}
	m.checkin(t) // the first one is still in
	if err := s.RemoveHost(t.Context(), owner, m.id); err != nil {
		t.Fatal(err)
	}
	_, err = m.Checkin(t.Context(), agentproto.Checkin{Protocol: 1, Facts: m.facts()})
	if p, ok := errors.AsType[*agentproto.Problem](err); !ok || p.Status != http.StatusUnauthorized {
		t.Errorf("a removed host: %v", err)
	}
}

// TestAHostThatLies sends what must not be believed: nothing of it is stored.
func TestAHostThatLies(t *testing.T) {
	s := start(t, nil)
	list, byID := described(s.world)
	m := s.enrol(t, 1, s.enrolToken(t, 2))
	m.report(t, needs(list[0]), byID)
	raw := func(body io.Reader) (int, agentproto.Problem) {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{m.cert}, RootCAs: m.pool, ServerName: agentproto.AgentServerName}}}
		resp, err := c.Post(s.URL()+agentproto.PathReport, "application/json", body)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var p agentproto.Problem
		json.NewDecoder(resp.Body).Decode(&p)
		return resp.StatusCode, p
	}
	if status, p := raw(strings.NewReader(`{"protocol":1,"scan":{"took":"1s"},"statuses":[{"id":"KB5091157"}]}`)); status != 400 || p.Field != "statuses[0].id" {
		t.Errorf("an UpdateID that is none: %d %+v", status, p)
	}
	if status, p := raw(io.LimitReader(zeros{}, 100<<20)); status != 413 || !strings.Contains(p.Title, "larger than") {
		t.Errorf("100 MB: %d %+v", status, p)
	}
	foreign := agentproto.Report{Protocol: 1, Updates: []agentproto.Update{list[5]}}
	if _, err := m.Report(t.Context(), foreign); err == nil || !strings.Contains(err.Error(), "not among the host's statuses") {
		t.Errorf("a description of what it does not report: %v", err)
	}
	if st := s.state(t, m, list[0]); st.Update.Title != list[0].Title {
		t.Errorf("the good report is gone: %+v", st)
	}
	// A second host describes another file under the same update.
	liar := s.enrol(t, 2, s.enrolToken(t, 1))
	bent := list[0]
	bent.Files = []agentproto.File{{Name: "evil.exe", URL: "http://evil.example/evil.exe", SHA1: strings.Repeat("a", 40)}}
	if _, err := liar.Report(t.Context(), scanOf(needs(list[0], list[1]))); err != nil {
		t.Fatal(err)
	}
	fresh := list[1]
	fresh.Files = append([]agentproto.File{bent.Files[0]}, fresh.Files...)
	if _, err := liar.Report(t.Context(), agentproto.Report{Protocol: 1, Updates: []agentproto.Update{bent, fresh}}); err != nil {
		t.Fatal(err)
	}
	for i, u := range []agentproto.Update{list[0], list[1]} {
		d, err := s.UpdateByID(t.Context(), u.ID)
		if err != nil || len(d.Files) != 1 || d.Files[0].URL != u.Files[0].URL || len(d.Problems) == 0 {
			t.Errorf("update %d has files %+v, problems %q, %v", i, d.Files, d.Problems, err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestAnUnluckyDownloadSaysWhy has a file truncated, then corrupted, then
// right, and reads what the page says meanwhile.
func TestAnUnluckyDownloadSaysWhy(t *testing.T) {
	s := start(t, nil)
	list, byID := described(s.world)
	u := list[0]
	s.world.Fault(u.Files[0].Name, microsofttest.Fault{Corrupt: true})
	if _, err := s.PutPackage(t.Context(), owner, "baseline", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{{Verb: rules.Allow, Kind: rules.ByUpdateID, Value: string(u.ID)}}}); err != nil {
		t.Fatal(err)
	}
	m := s.enrol(t, 1, s.enrolToken(t, 1))
	m.report(t, needs(u), byID)
	eventually(t, "corrupted", is(s, t, m, u, rules.Missing, rules.ReasonFailed))
	if w := s.state(t, m, u); !strings.Contains(w.Why, "SHA-1") {
		t.Errorf("it says %q", w.Why)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "waptwua", u.Files[0].Name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a corrupted file is in the folder: %v", err)
	}
	if _, err := s.DownloadMissing(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	eventually(t, "right at last", is(s, t, m, u, rules.Pending, rules.ReasonOnNode))
}

// TestRestartKeepsEverything stops the node and starts it on the same data.
func TestRestartKeepsEverything(t *testing.T) {
	t.Parallel()
	world := microsofttest.New(microsofttest.Options{Seed: 1, Months: 2, FileBytes: 200_000})
	srv := httptest.NewServer(world)
	defer srv.Close()
	dir := t.TempDir()
	s := startIn(t, dir, world, srv.URL, nil)
	list, byID := described(world)
	if err := s.SetUp(t.Context(), secretOf(t, s.SetupLink()), "maelle", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutPackage(t.Context(), owner, "baseline", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{{Verb: rules.Allow, Kind: rules.ByUpdateID, Value: string(list[0].ID)}}}); err != nil {
		t.Fatal(err)
	}
	m := s.enrol(t, 1, s.enrolToken(t, 1))
	m.report(t, needs(list[0], list[1]), byID)
	eventually(t, "download", is(s, t, m, list[0], rules.Pending, rules.ReasonOnNode))
	s.stop()
	s = startIn(t, dir, world, srv.URL, nil)
	m.connect(t, s.URL())
	m.checkin(t)
	if err := is(s, t, m, list[0], rules.Pending, rules.ReasonOnNode)(); err != nil {
		t.Error(err)
	}
	if s.NeedsSetup() {
		t.Error("the admin is forgotten")
	}
	if n := world.Requests()[list[0].Files[0].Name].Gets; n != 1 {
		t.Errorf("the file was fetched %d times", n)
	}
	eventually(t, "scan cab", func() error {
		if m.checkin(t).Cab == nil {
			return errors.New("none")
		}
		return nil
	})
	if n := world.Requests()[microsoft.ScanCabName].Gets; n != 1 {
		t.Errorf("the scan cab was fetched %d times", n)
	}
}
