package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

var tuesday = time.Date(2026, 11, 10, 18, 0, 0, 0, time.UTC)

func id(n string) rules.UpdateID { return rules.UpdateID("00000000-0000-4000-8000-00000000000" + n) }

func needs(n string, replaces ...string) Found {
	u := agentproto.Update{ID: id(n), Revision: 1, Title: "update " + n, KBs: []string{"500000" + n}, Published: tuesday}
	for _, r := range replaces {
		u.Supersedes = append(u.Supersedes, id(r))
	}
	return Found{Update: u}
}

func forbidding(n string, s rules.Settings) rules.Policy {
	return rules.Policy{Settings: s, Packages: []rules.Package{{Name: "freeze", Lines: []rules.Line{{Verb: rules.Forbid, Kind: rules.ByUpdateID, Value: string(id(n))}}}}}
}

// TestDecide says which updates are worth their files.
func TestDecide(t *testing.T) {
	installed := needs("2", "1")
	installed.Installed = true
	asks := needs("1")
	asks.UserInput = true
	restart := needs("1")
	restart.Restart = true
	all := rules.Settings{DefaultAllow: true}
	both := rules.Settings{DefaultAllow: true, IncludeSuperseded: true}
	for _, tt := range []struct {
		name   string
		found  []Found
		policy rules.Policy
		want   []string
	}{
		{"nothing allows", []Found{needs("1")}, rules.Policy{}, nil},
		{"allowed", []Found{needs("1"), needs("2")}, rules.Policy{Settings: all}, []string{"1", "2"}},
		{"forbidden", []Found{needs("1"), needs("2")}, forbidding("1", all), []string{"2"}},
		{"replaced", []Found{needs("1"), needs("2", "1")}, rules.Policy{Settings: all}, []string{"2"}},
		{"replaced, and shown", []Found{needs("1"), needs("2", "1")}, rules.Policy{Settings: both}, []string{"2"}},
		{"the newer one is forbidden", []Found{needs("1"), needs("2", "1")}, forbidding("2", both), []string{"1"}},
		{"the newer one is installed", []Found{needs("1"), installed}, rules.Policy{Settings: both}, nil},
		{"each replaces the other", []Found{needs("1", "2"), needs("2", "1")}, rules.Policy{Settings: all}, []string{"1", "2"}},
		{"replaces itself", []Found{needs("1", "1")}, rules.Policy{Settings: all}, []string{"1"}},
		{"may ask the user", []Found{asks}, rules.Policy{Settings: all}, nil},
		{"waits for a restart", []Found{restart}, rules.Policy{Settings: all}, nil},
		{"delayed, but fetched", []Found{needs("1")}, rules.Policy{Settings: rules.Settings{DefaultAllow: true, InstallDelay: 48 * time.Hour}}, []string{"1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, c := range decide(tt.found, tt.policy, nil, func(choice) bool { return true }, tuesday.Add(time.Hour)) {
				if c.wanted() {
					got = append(got, strings.TrimPrefix(c.Update.Title, "update "))
				}
				if c.Decision.Verdict == rules.Delayed && c.installable(tuesday.Add(time.Hour), true) {
					t.Error("a delayed update is installed")
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("wanted %v, want %v", got, tt.want)
			}
		})
	}
}

// TestInOrder puts a servicing stack first, whatever language its title is in,
// and not what merely brings one along.
func TestInOrder(t *testing.T) {
	named := func(n, title string, files ...string) choice {
		c := choice{Found: needs(n)}
		c.Update.Title = title
		for _, name := range files {
			c.Update.Files = append(c.Update.Files, agentproto.File{Name: name, Delta: strings.HasSuffix(name, ".psf")})
		}
		return c
	}
	alone := named("1", "Mise à jour de la pile de maintenance", "SSU-19041.1704-x64.cab", "SSU-19041.1704-x64.psf")
	alone.Update.Exclusive = true
	of2016 := named("1", "2021-04 Mise à jour de la pile de maintenance pour Windows Server 2016 (KB5001402)", "windows10.0-kb5001402-x64.cab")
	of2016.Update.Exclusive, of2016.Update.Restart = true, "never"
	feature := named("1", "Windows 10, version 1709", "windows10.0-kb5000001-x64.cab")
	feature.Update.Exclusive, feature.Update.Restart = true, "maybe"
	quiet := named("1", "Mise à jour de la plateforme", "updateplatform.cab")
	quiet.Update.Restart = "never"
	for _, tt := range []struct {
		name  string
		stack choice
		first bool
	}{
		{"by its title", named("1", "2026-11 Servicing Stack Update for Windows 11", "windows10.0-kb5000001-x64.cab"), true},
		{"by its files", alone, true},
		{"of Server 2016, by how it is installed", of2016, true},
		{"alone, with a restart", feature, false},
		{"without a restart, but not alone", quiet, false},
		{"a cumulative update with its stack", named("1", "2026-11 Kumulatives Update", "SSU-26100.1000-x64.cab", "windows11.0-kb5000001-x64.cab"), false},
		{"no files", named("1", "Mise à jour"), false},
	} {
		older := named("2", "2026-10 Update", "windows11.0-kb5000002-x64.cab")
		older.Update.Published = tuesday.Add(-day)
		list := []choice{older, tt.stack}
		inOrder(list)
		if got := list[0].Update.ID == tt.stack.Update.ID; got != tt.first {
			t.Errorf("%s: first %v, want %v", tt.name, got, tt.first)
		}
	}
}

func TestPause(t *testing.T) {
	c := choice{Found: needs("1"), Decision: rules.Decision{Verdict: rules.Allowed}, OnDisk: true, Tried: tried{Count: 1, At: tuesday}}
	if c.installable(tuesday.Add(time.Minute), false) || !c.installable(tuesday.Add(time.Minute), true) || !c.installable(tuesday.Add(time.Hour), false) {
		t.Error("the pause after a failure holds for the schedule, and not for an order")
	}
}

// TestAgain keeps the agent to what people are told about each class.
func TestAgain(t *testing.T) {
	for _, tt := range []struct {
		name  string
		tried tried
		after time.Duration // negative: never by itself
	}{
		{"retry", tried{HResult: 0x80240009}, time.Hour},
		{"retry, the third time", tried{HResult: 0x80240009, Count: 3}, 4 * time.Hour},
		{"retry, often", tried{HResult: 0x80240009, Count: 90}, day},
		{"unknown", tried{HResult: 0x8024ABCD}, time.Hour},
		{"restart first", tried{HResult: 0x80070BC9}, -1},
		{"restart first, and restarted", tried{HResult: 0x80070BC9, Booted: true}, 0},
		{"admin", tried{HResult: 0x80070070}, day},
		{"content", tried{HResult: 0x80246002}, time.Hour},
		{"repair", tried{HResult: 0x80073712}, 7 * day},
		{"permanent", tried{HResult: 0x80070643}, -1},
	} {
		tt.tried.At, tt.tried.Count = tuesday, max(tt.tried.Count, 1)
		at, ever := tt.tried.again()
		if ever != (tt.after >= 0) || ever && at.Sub(tuesday) != tt.after {
			t.Errorf("%s: again after %s, %v", tt.name, at.Sub(tuesday), ever)
		}
	}
	tries := map[rules.UpdateID]tried{
		id("1"): {At: tuesday, Count: 1, HResult: 0x80070643, Revision: 1}, id("2"): {At: tuesday, Count: 1, HResult: 0x80070BC9},
	}
	one, two := needs("1"), needs("2")
	one.Update.Revision = 1
	settle(tries, []Found{one, two}, tuesday.Add(time.Hour))
	if !tries[id("2")].Booted || tries[id("1")].Count != 1 {
		t.Errorf("after a restart: %+v", tries)
	}
	one.Update.Revision = 2
	if settle(tries, []Found{one, two}, tuesday.Add(time.Hour)); tries[id("1")].Count != 0 {
		t.Error("what another revision came to still holds")
	}
}

func TestDue(t *testing.T) {
	s := rules.Settings{DownloadScheduling: 24 * time.Hour}
	for _, tt := range []struct {
		name    string
		last    attemptAt
		changed bool
		after   time.Duration
		never   bool
	}{
		{"never scanned", attemptAt{}, false, 0, false},
		{"nothing changed", attemptAt{At: tuesday}, false, 0, true},
		{"changed", attemptAt{At: tuesday}, true, 24 * time.Hour, false},
		{"changed, with jitter", attemptAt{At: tuesday, Share: 1}, true, 24*time.Hour + 30*time.Minute, false},
		{"failed once", attemptAt{At: tuesday, Failed: 1}, false, 15 * time.Minute, false},
		{"failed twice", attemptAt{At: tuesday, Failed: 2}, false, 30 * time.Minute, false},
		{"failed often", attemptAt{At: tuesday, Failed: 50}, false, 24 * time.Hour, false},
		{"out of memory", attemptAt{At: tuesday, Failed: 1, HResult: codeOutOfMemory}, true, 24 * time.Hour, false},
		{"a policy forbids it", attemptAt{At: tuesday, Failed: 1, HResult: 0x8024002F}, false, 24 * time.Hour, false},
		{"a policy forbade it, and something changed", attemptAt{At: tuesday, Failed: 1, HResult: 0x8024002F}, true, 15 * time.Minute, false},
	} {
		at, ok := scanDue(tt.last, s, tt.changed)
		if ok == tt.never || ok && !tt.last.At.IsZero() && at.Sub(tuesday) != tt.after {
			t.Errorf("%s: %s, %v", tt.name, at, ok)
		}
	}
	if at, _ := scanDue(attemptAt{At: tuesday}, rules.Settings{}, true); at.Sub(tuesday) != minPeriod {
		t.Errorf("download_scheduling = 0 scans after %s", at.Sub(tuesday))
	}
}

// TestRolledBack has an update come back after the restart it waited for.
func TestRolledBack(t *testing.T) {
	tries := map[rules.UpdateID]tried{id("1"): {At: tuesday, Restart: true}}
	settle(tries, []Found{needs("1")}, tuesday.Add(-time.Hour))
	if !tries[id("1")].Restart {
		t.Error("forgot the restart before there was one")
	}
	settle(tries, []Found{needs("1")}, tuesday.Add(time.Hour))
	if got := tries[id("1")]; got.Restart || got.HResult != codeRolledBack || got.Count != 1 {
		t.Errorf("after the restart: %+v", got)
	}
	settle(tries, nil, tuesday.Add(time.Hour))
	if len(tries) > 0 {
		t.Errorf("tries of an update that is gone: %v", tries)
	}
}

// TestNotLater sets a clock right that was ten years ahead: what happened then
// is no reason to wait for ten years.
func TestNotLater(t *testing.T) {
	wrong, now := tuesday.AddDate(10, 0, 0), tuesday
	s := state{
		LastScan: attemptAt{At: wrong}, Install: attemptAt{At: now.Add(-time.Hour)},
		Tried: map[rules.UpdateID]tried{id("1"): {At: wrong, Restart: true}, id("2"): {At: now.Add(-day), Count: 1}},
	}
	s.notLater(now)
	if !s.LastScan.At.Equal(now) || !s.Install.At.Equal(now.Add(-time.Hour)) || !s.Tried[id("2")].At.Equal(now.Add(-day)) {
		t.Errorf("%+v", s)
	}
	if due, ok := scanDue(s.LastScan, rules.Settings{DownloadScheduling: day}, true); !ok || due.After(now.Add(2*day)) {
		t.Errorf("the next scan is due %s", due)
	}
	settle(s.Tried, []Found{needs("1")}, now.Add(time.Minute))
	if got := s.Tried[id("1")]; got.Restart {
		t.Errorf("after a restart: %+v", got)
	}
}

// TestLedger keeps commands that have not ended, and the last of the others.
func TestLedger(t *testing.T) {
	var s state
	for i := range 3 * maxLedger {
		c := agentproto.Command{ID: strings.Repeat("x", i/100+1) + string(rune('0'+i%10)) + string(rune('a'+i/10%10)), Action: agentproto.ActionScan}
		if !s.take(c) || s.take(c) {
			t.Fatalf("command %d: not taken once", i)
		}
		if i > 0 {
			s.move(c.ID, stageEnded)
		}
	}
	if len(s.Commands) > maxLedger+1 || s.Commands[0].Stage != stageNew {
		t.Errorf("%d commands are remembered, the first is %s", len(s.Commands), s.Commands[0].Stage)
	}
}

// FuzzClean: whatever Windows says, a node accepts what is made of it.
func FuzzClean(f *testing.F) {
	f.Add("2026-11 Cumulative Update\x00", "text", "5091157", "CVE-2026-1234", "https://x/", "kb_1.cab", int64(3), int64(1e9))
	f.Add("", "\xff", "KB1", "CVE", "ftp://x", "../x", int64(-3), int64(-1e18))
	f.Fuzz(func(t *testing.T, title, text, kb, cve, url, file string, size, published int64) {
		u := agentproto.Update{
			ID: id("1"), Revision: int(size), Title: title, Description: text, KBs: []string{kb, "5091157"}, Severity: rules.Severity(text),
			Classification: agentproto.Category{ID: rules.CategoryID(kb), Title: title}, Products: []agentproto.Category{{ID: rules.CategoryID(id("2")), Title: text}, {ID: rules.CategoryID(text)}},
			Published: time.Unix(published, 0), CVEs: []string{cve, "CVE-2026-12345"}, Bulletins: []string{text}, Supersedes: []rules.UpdateID{id("3"), rules.UpdateID(cve)},
			Restart: text, SupportURL: url, Files: []agentproto.File{{Name: file, URL: url, Size: size}},
		}
		list, _ := cleanFound([]Found{{Update: u}, {Update: u}, {Update: agentproto.Update{ID: rules.UpdateID(text)}}})
		r := agentproto.Report{Protocol: 1}
		for _, f := range list {
			r.Updates = append(r.Updates, f.Update)
			r.Statuses = append(r.Statuses, agentproto.Status{ID: f.Update.ID, Revision: f.Update.Revision})
		}
		if err := r.Validate(); err != nil {
			t.Errorf("a node would refuse it: %v", err)
		}
		k := agentproto.Checkin{Protocol: 1, Facts: cleanFacts(agentproto.Facts{Name: title, Serial: text, Addresses: []string{url, "10.0.0.1"}, Booted: time.Unix(published, 0)})}
		if err := k.Validate(); err != nil {
			t.Errorf("a node would refuse the facts: %v", err)
		}
	})
}

// BenchmarkDecide is what every check-in costs: two thousand updates against
// a policy of a thousand lines.
func BenchmarkDecide(b *testing.B) {
	var found []Found
	p := rules.Policy{Settings: rules.Settings{DefaultAllow: true}}
	for i := range 2000 {
		f := needs("1")
		f.Update.ID = rules.UpdateID(fmt.Sprintf("00000000-0000-4000-8000-%012d", i))
		f.Update.Supersedes = []rules.UpdateID{rules.UpdateID(fmt.Sprintf("00000000-0000-4000-8000-%012d", i-1))}
		found = append(found, f)
		if i < 1000 {
			p.Packages = append(p.Packages, rules.Package{Name: fmt.Sprint("p", i%20), Lines: []rules.Line{{Verb: rules.Forbid, Kind: rules.ByKB, Value: fmt.Sprint(4000000 + i)}}})
		}
	}
	for b.Loop() {
		decide(found, p, nil, func(choice) bool { return false }, tuesday)
	}
}
