// Package agenttest holds what every [agent.Machine] must do, as a test that
// the simulated host and the one over COM both run, and small updates whose
// files exist.
package agenttest

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/rules"
)

// Published is when the first of [Updates] was published; each later one came
// a day after the one before.
var Published = time.Date(2026, 10, 13, 17, 0, 0, 0, time.UTC)

// Updates makes n updates of Windows 11 with one small file each. They
// replace nothing and need no restart.
func Updates(n int) []agentproto.Update {
	var list []agentproto.Update
	for i := range n {
		kb := fmt.Sprint(5091000 + i)
		name := FileName(kb)
		sum := sha1.Sum(Content(name))
		list = append(list, agentproto.Update{
			ID: rules.UpdateID(fmt.Sprintf("00000000-0000-4000-8000-%012d", i+1)), Revision: 200 + i,
			Title: fmt.Sprintf("2026-11 Security Update for Windows 11 (KB%s)", kb), KBs: []string{kb}, Severity: rules.Critical,
			Classification: agentproto.Category{ID: "0fa1201d-4330-4fa8-8ae9-b877473b6441", Title: "Security Updates"},
			Products:       []agentproto.Category{{ID: "72e7624a-5b00-45d2-b92f-e561c0a6a160", Title: "Windows 11"}},
			Published:      Published.AddDate(0, 0, i), Restart: "never",
			Files: []agentproto.File{{
				Name: name, URL: "http://download.windowsupdate.com/c/" + name, Size: int64(len(Content(name))), SHA1: hex.EncodeToString(sum[:]),
			}},
		})
	}
	return list
}

// FileName is the name of an update's file, with its SHA-1 as Microsoft does.
func FileName(kb string) string {
	base := "windows11.0-kb" + kb + "-x64"
	sum := sha1.Sum(content(base))
	return base + "_" + hex.EncodeToString(sum[:]) + ".cab"
}

// Content is the content of the file of that name: about 64 kB.
func Content(name string) []byte {
	base, _, _ := strings.Cut(name, "_")
	return content(base)
}

func content(base string) []byte { return bytes.Repeat([]byte("MSCF "+base+"\n"), 2000) }

// A Subject is a machine to be tested. The scan cab knows at least two
// updates that the machine needs.
type Subject struct {
	Machine agent.Machine
	Cab     string                   // absolute path
	Content func(name string) []byte // of an update's file
}

// TestMachine runs every check on machines of its own.
func TestMachine(t *testing.T, fresh func(*testing.T) Subject) {
	for _, check := range []struct {
		name string
		run  func(*testing.T, Subject)
	}{
		{"facts", facts},
		{"a disabled service refuses", disabled},
		{"a cab that is not there", noCab},
		{"one session at a time", oneSession},
		{"a search repeats itself", search},
		{"install without files", withoutFiles},
		{"install without licence", withoutLicence},
		{"a wrong file", wrongFile},
		{"a file of another update", otherFile},
		{"install, search again", install},
		{"hide, search again", hide},
		{"take over, give back", takeOver},
		{"a package that is none", noPackage},
		{"what was not found", notFound},
		{"a closed session", closed},
		{"an ended context", ended},
	} {
		t.Run(check.name, func(t *testing.T) { check.run(t, fresh(t)) })
	}
}

func facts(t *testing.T, s Subject) {
	f, err := s.Machine.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k := agentproto.Checkin{Protocol: agentproto.Version, Agent: "1.0.0", Facts: f}
	if err := k.Validate(); err != nil {
		t.Errorf("a node would refuse the facts: %v", err)
	}
	if f.Booted.IsZero() || f.Booted.After(time.Now()) || f.OS == "" || f.Build == "" {
		t.Errorf("facts are incomplete: %+v", f)
	}
	if free, err := s.Machine.FreeSpace(t.Context(), t.TempDir()); err != nil || free <= 0 {
		t.Errorf("%d bytes free, %v", free, err)
	}
}

func disabled(t *testing.T, s Subject) {
	for range 2 { // also when it is so already
		if err := s.Machine.Service(t.Context(), agent.ServiceOff); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Machine.Open(t.Context(), agent.Query{Cab: s.Cab})
	wantCode(t, err, 0x80070422)
	if err := s.Machine.Service(t.Context(), agent.ServiceOn); err != nil {
		t.Fatal(err)
	}
	open(t, s).Close()
	if err := s.Machine.Service(t.Context(), agent.ServiceGiven); err != nil {
		t.Fatal(err)
	}
	open(t, s).Close()
}

func noCab(t *testing.T, s Subject) {
	_, err := s.Machine.Open(t.Context(), agent.Query{Cab: s.Cab + ".gone"})
	wantCode(t, err, 0x80070002)
	open(t, s).Close() // the turn was given back
}

func oneSession(t *testing.T, s Subject) {
	first := open(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if second, err := s.Machine.Open(ctx, agent.Query{Cab: s.Cab}); err == nil {
		second.Close()
		t.Fatal("two sessions at once")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, s).Close()
}

func search(t *testing.T, s Subject) {
	ses := open(t, s)
	one, two := find(t, ses), find(t, ses)
	if len(one) < 2 || len(one) != len(two) {
		t.Fatalf("found %d, then %d", len(one), len(two))
	}
	for _, f := range one {
		if f.Update.ID == "" || f.Update.Title == "" || f.Update.Revision == 0 {
			t.Errorf("incomplete: %+v", f)
		}
		if !slices.ContainsFunc(two, func(g agent.Found) bool { return g.Ref() == f.Ref() }) {
			t.Errorf("%s is gone", f.Update.ID)
		}
	}
}

func withoutFiles(t *testing.T, s Subject) {
	ses := open(t, s)
	f := needed(t, ses, 0)
	accept(t, ses, f)
	wantOutcome(t, ses, f, 0x80246007)
}

func withoutLicence(t *testing.T, s Subject) {
	ses := open(t, s)
	for _, f := range find(t, ses) {
		if f.EULA && !f.Installed {
			give(t, s, ses, f)
			wantOutcome(t, ses, f, 0x80240023)
			return
		}
	}
	t.Fatal("no update of this subject has a licence")
}

func wrongFile(t *testing.T, s Subject) {
	ses := open(t, s)
	f := needed(t, ses, 0)
	path := filepath.Join(t.TempDir(), f.Update.Files[0].Name)
	os.WriteFile(path, []byte("not what Microsoft published"), 0o600)
	wantCode(t, ses.CopyToCache(t.Context(), f.Ref(), []string{path}), 0x80246002)
	wantCode(t, ses.CopyToCache(t.Context(), f.Ref(), []string{path + ".gone"}), 0x80070057)
	os.Remove(path)
	wantCode(t, ses.CopyToCache(t.Context(), f.Ref(), []string{path}), 0x80070002)
}

func otherFile(t *testing.T, s Subject) {
	ses := open(t, s)
	one, two := needed(t, ses, 0), needed(t, ses, 1)
	path := write(t, s, two.Update.Files[0].Name)
	wantCode(t, ses.CopyToCache(t.Context(), one.Ref(), []string{path}), 0x80070057)
}

func install(t *testing.T, s Subject) {
	ses := open(t, s)
	f := needed(t, ses, 0)
	give(t, s, ses, f)
	accept(t, ses, f)
	for _, g := range find(t, ses) {
		if g.Ref() == f.Ref() && (!g.OnHost || g.EULA) {
			t.Errorf("after its files and its licence: %+v", g)
		}
	}
	out, err := ses.Install(t.Context(), f.Ref())
	if err != nil || out.Failed() {
		t.Fatalf("%+v, %v", out, err)
	}
	for _, g := range find(t, ses) {
		if g.Ref() == f.Ref() && !g.Installed && !g.Restart {
			t.Errorf("installed, and then %+v", g)
		}
	}
	if now, err := s.Machine.Facts(t.Context()); err != nil || now.RestartDue != out.Restart {
		t.Errorf("restart due %v after %+v, %v", now.RestartDue, out, err)
	}
}

func hide(t *testing.T, s Subject) {
	ses := open(t, s)
	ref := needed(t, ses, 0).Ref()
	for _, want := range []bool{true, true, false} {
		if err := ses.Hide(t.Context(), ref, want); err != nil {
			t.Fatal(err)
		}
		list := find(t, ses)
		i := slices.IndexFunc(list, func(f agent.Found) bool { return f.Ref() == ref })
		if i < 0 || list[i].Hidden != want {
			t.Fatalf("hidden %v, and then %+v", want, list)
		}
	}
}

func takeOver(t *testing.T, s Subject) {
	for _, on := range []bool{true, true, false, false} {
		if drift, err := s.Machine.TakeOver(t.Context(), on); err != nil || len(drift) > 0 {
			t.Fatalf("taken over %v: %q, %v", on, drift, err)
		}
	}
}

func noPackage(t *testing.T, s Subject) {
	path := filepath.Join(t.TempDir(), "nothing.cab")
	if err := os.WriteFile(path, []byte("MSCF"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Machine.InstallPackage(t.Context(), path); err == nil && !out.Failed() {
		t.Errorf("a package that is none was installed: %+v", out)
	}
	if out, err := s.Machine.RemoveKB(t.Context(), "1"); err == nil && !out.Failed() {
		t.Errorf("a KB that is not there was removed: %+v", out)
	}
}

func notFound(t *testing.T, s Subject) {
	ses := open(t, s)
	ref := agentproto.UpdateRef{ID: "ffffffff-0000-4000-8000-000000000000", Revision: 1}
	if _, err := ses.Install(t.Context(), ref); err == nil {
		t.Error("installed what it did not find")
	}
	if err := ses.AcceptEULA(t.Context(), ref); err == nil {
		t.Error("accepted the licence of what it did not find")
	}
}

func closed(t *testing.T, s Subject) {
	ses := open(t, s)
	f := needed(t, ses, 0)
	for range 2 {
		if err := ses.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if _, err := ses.Search(t.Context()); err == nil {
		t.Error("searched after the end")
	}
	if _, err := ses.Install(t.Context(), f.Ref()); err == nil {
		t.Error("installed after the end")
	}
}

func ended(t *testing.T, s Subject) {
	ses := open(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ses.Search(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("search: %v", err)
	}
}

func open(t *testing.T, s Subject) agent.Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ses, err := s.Machine.Open(ctx, agent.Query{Cab: s.Cab})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ses.Close() })
	return ses
}

func find(t *testing.T, ses agent.Session) []agent.Found {
	t.Helper()
	list, err := ses.Search(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// needed returns the nth update that is needed and has a file.
func needed(t *testing.T, ses agent.Session, n int) agent.Found {
	t.Helper()
	for _, f := range find(t, ses) {
		if !f.Installed && !f.Restart && len(f.Update.Files) > 0 {
			if n == 0 {
				return f
			}
			n--
		}
	}
	t.Fatal("too few updates are needed")
	return agent.Found{}
}

func write(t *testing.T, s Subject, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, s.Content(name), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func give(t *testing.T, s Subject, ses agent.Session, f agent.Found) {
	t.Helper()
	var paths []string
	for _, file := range f.Update.Files {
		if !file.Delta {
			paths = append(paths, write(t, s, file.Name))
		}
	}
	if err := ses.CopyToCache(t.Context(), f.Ref(), paths); err != nil {
		t.Fatal(err)
	}
}

func accept(t *testing.T, ses agent.Session, f agent.Found) {
	t.Helper()
	if err := ses.AcceptEULA(t.Context(), f.Ref()); err != nil {
		t.Fatal(err)
	}
}

func wantOutcome(t *testing.T, ses agent.Session, f agent.Found, code uint32) {
	t.Helper()
	if out, err := ses.Install(t.Context(), f.Ref()); err != nil || out.HResult != code {
		t.Errorf("%+v, %v, want 0x%08X", out, err, code)
	}
}

func wantCode(t *testing.T, err error, code uint32) {
	t.Helper()
	var e *agent.WindowsError
	if !errors.As(err, &e) || e.HResult != code {
		t.Errorf("%v, want 0x%08X", err, code)
	}
}
