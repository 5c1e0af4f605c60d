package wua

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/rules"
)

// A simSession is one registered scan cab.
type simSession struct {
	*Sim
	query  agent.Query
	found  map[agentproto.UpdateRef]SimUpdate
	closed bool
}

// Close implements [agent.Session].
func (s *simSession) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.free <- struct{}{}
	}
	return nil
}

// Search implements [agent.Session].
func (s *simSession) Search(ctx context.Context) ([]agent.Found, error) {
	if err := s.busy(ctx, s.o.ScanTime); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fail("Search", 0x80248014)
	}
	list := s.applicable()
	s.found = map[agentproto.UpdateRef]SimUpdate{}
	var out []agent.Found
	for _, u := range list {
		if s.replaced(u.ID, list) {
			continue
		}
		f := agent.Found{
			Update: u.Update, Installed: s.installed[u.ID], Restart: s.pending[u.ID],
			OnHost: s.complete(u), EULA: u.EULA && !s.licensed[u.ID], Hidden: s.hidden[u.ID],
		}
		s.found[f.Ref()] = u
		out = append(out, f)
	}
	return out, nil
}

// replaced says whether Windows hides an update: always when a newer one is
// installed, and when one is needed unless the query asks for it.
func (s *simSession) replaced(id rules.UpdateID, list []SimUpdate) bool {
	return slices.ContainsFunc(list, func(u SimUpdate) bool {
		return slices.Contains(u.Supersedes, id) && (s.installed[u.ID] || s.pending[u.ID] || !s.query.Superseded)
	})
}

// complete says whether the cache has every full file of an update.
func (s *simSession) complete(u SimUpdate) bool {
	return len(u.Files) > 0 && !slices.ContainsFunc(u.Files, func(f agentproto.File) bool {
		return !f.Delta && !s.copied[strings.ToLower(f.Name)]
	})
}

// deltas says whether the cache has every delta of an update.
func (s *simSession) deltas(u SimUpdate) bool {
	return !slices.ContainsFunc(u.Files, func(f agentproto.File) bool { return f.Delta && !s.copied[strings.ToLower(f.Name)] })
}

// busy takes its time, or ends with ctx, as a power cut would.
func (s *simSession) busy(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// known returns an update that the last search found.
func (s *simSession) known(call string, ref agentproto.UpdateRef) (SimUpdate, error) {
	u, ok := s.found[ref]
	switch {
	case s.closed:
		return u, fail(call, 0x80248014)
	case !ok:
		return u, fail(call, 0x80070057)
	}
	return u, nil
}

// AcceptEULA implements [agent.Session].
func (s *simSession) AcceptEULA(ctx context.Context, ref agentproto.UpdateRef) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.known("AcceptEula", ref)
	if err != nil {
		return err
	}
	s.licensed[u.ID] = true
	return ctx.Err()
}

// Hide implements [agent.Session].
func (s *simSession) Hide(ctx context.Context, ref agentproto.UpdateRef, hidden bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.known("IsHidden", ref)
	if err != nil {
		return err
	}
	s.hidden[u.ID] = hidden
	return ctx.Err()
}

// CopyToCache implements [agent.Session]. Like Windows it takes files by
// their name and believes none of them unseen.
func (s *simSession) CopyToCache(ctx context.Context, ref agentproto.UpdateRef, paths []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.known("CopyToCache", ref)
	if err != nil {
		return err
	}
	for _, path := range paths {
		i := slices.IndexFunc(u.Files, func(f agentproto.File) bool { return strings.EqualFold(f.Name, filepath.Base(path)) })
		if i < 0 || !filepath.IsAbs(path) {
			return fail("CopyToCache", 0x80070057)
		}
		if err := genuine(path, u.Files[i]); err != nil {
			return err
		}
		s.copied[strings.ToLower(u.Files[i].Name)] = true
	}
	return ctx.Err()
}

// genuine compares a file with its description.
func genuine(path string, want agentproto.File) error {
	f, err := os.Open(path)
	if err != nil {
		return fail("CopyToCache", 0x80070002)
	}
	defer f.Close()
	one, two := sha1.New(), sha256.New()
	n, err := io.Copy(io.MultiWriter(one, two), f)
	if err != nil {
		return fail("CopyToCache", 0x8007000D)
	}
	if want.Size != 0 && n != want.Size ||
		want.SHA1 != "" && hex.EncodeToString(one.Sum(nil)) != want.SHA1 ||
		want.SHA256 != "" && hex.EncodeToString(two.Sum(nil)) != want.SHA256 {
		return fail("CopyToCache", 0x80246002)
	}
	return nil
}

// lasting and passing are the codes by which simulated installs fail: for
// good, or the first time only.
var (
	lasting = []uint32{0x80070643, 0x800F0922, 0x80073712, 0x800F0831, 0x80070005}
	passing = []uint32{0x80070020, 0x800705B4, 0x80242007, 0x800F0902}
)

// Install implements [agent.Session].
func (s *simSession) Install(ctx context.Context, ref agentproto.UpdateRef) (agent.Outcome, error) {
	s.mu.Lock()
	u, err := s.known("Install", ref)
	s.mu.Unlock()
	if err != nil {
		return agent.Outcome{}, err
	}
	if err := s.busy(ctx, s.o.InstallTime); err != nil {
		return agent.Outcome{}, errors.Join(errStopped, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.installed[u.ID] || s.pending[u.ID]:
		return agent.Outcome{HResult: 0x00240006, Restart: s.pending[u.ID]}, nil
	case u.EULA && !s.licensed[u.ID]:
		return agent.Outcome{HResult: 0x80240023}, nil
	case !s.complete(u):
		return agent.Outcome{HResult: 0x80246007}, nil
	case u.Needs == NeedsPackage || u.Needs == NeedsDeltas && !s.deltas(u):
		return agent.Outcome{HResult: 0x8024200D}, nil
	}
	s.tries[u.ID]++
	if x := s.chance("fails", string(u.ID)); x < s.o.Failures {
		if code := s.code(u.ID); slices.Contains(lasting, code) || s.tries[u.ID] == 1 {
			return agent.Outcome{HResult: code}, nil
		}
	}
	if u.Update.Restart == "always" || u.Update.Restart == "maybe" && s.chance("restart", string(u.ID)) < 0.5 {
		s.pending[u.ID] = true
		return agent.Outcome{Restart: true}, nil
	}
	s.installed[u.ID] = true
	return agent.Outcome{}, nil
}

var errStopped = errors.New("the simulated host was stopped during an install")

// code is how an update fails on this host, always the same.
func (s *Sim) code(id rules.UpdateID) uint32 {
	list := lasting
	if s.chance("passes", string(id)) < 0.5 {
		list = passing
	}
	return list[int(s.chance("code", string(id))*float64(len(list)))]
}
