package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"
)

// maxTold is how many nodes the agent remembers.
const maxTold = 64

// onlyFor is how long a rule without fallback binds a host whose nodes do not
// answer. Then it checks in with one of its wapt-get.ini, and is told anew.
const onlyFor = 24 * time.Hour

// configEvery is how often the agent looks whether wapt-get.ini changed.
const configEvery = time.Minute

// stamp is by what a changed file is told. The digest is for editors and
// copies that keep the time, and against clocks that went back.
type stamp struct {
	sum     [sha256.Size]byte
	missing bool
}

// readINI reads wapt-get.ini if it changed, and says whether it did. A file
// that cannot be read, perhaps because an editor holds it, changes nothing.
func (a *Agent) readINI() bool {
	data, err := readBounded(a.ini, maxINI+1)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		a.warn("config", fmt.Errorf("read wapt-get.ini: %w", err))
		return false
	}
	a.warn("config", nil)
	now := stamp{sha256.Sum256(data), missing}
	a.mu.Lock()
	defer a.mu.Unlock()
	if now == a.stamp {
		return false
	}
	a.stamp, a.conf = now, ParseINI(data)
	if missing {
		a.conf.warn(0, "%s does not exist; the defaults hold", a.ini)
	}
	for _, w := range a.conf.Warnings {
		a.log.Warn("wapt-get.ini", "line", w.Line, "warning", w.Text)
	}
	return true
}

// readBounded reads at most n bytes of a file.
func readBounded(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, n))
}

// runConfig follows changes of wapt-get.ini.
func (a *Agent) runConfig(ctx context.Context) error {
	t := time.NewTicker(configEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			if a.readINI() {
				a.log.InfoContext(ctx, "wapt-get.ini changed")
				a.applyConfig(ctx)
			}
		}
	}
}

// applyConfig has every wheel look at the new configuration.
func (a *Agent) applyConfig(ctx context.Context) {
	a.mu.Lock()
	id := a.id
	a.mu.Unlock()
	if err := a.setIdentity(id); err != nil {
		a.log.WarnContext(ctx, "connect", "err", err)
	}
	a.hurryUp()
	a.fetch.now()
	a.windows.now()
}

// nodes are whom to ask. Where the mesh knows the host's place, those it named
// at the last check-in, nearest first, and then those of wapt-get.ini in case
// all of the others are gone; where it does not, the other way round, so that
// a host whose node is away comes home to it. When wapt-get.ini names others
// than at that time, they alone are asked: somebody moved the host.
func (a *Agent) nodes() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	own := a.conf.Nodes
	if len(own) == 0 {
		own = a.spare
	}
	list := slices.Clone(own)
	if slices.Equal(own, a.st.Asked) {
		switch {
		case a.st.Only && time.Since(a.st.Checked).Abs() > onlyFor:
			list = append(slices.Clone(a.st.Told), own...)
		case a.st.Only:
			list = a.st.Told
		case a.st.Placed:
			list = append(slices.Clone(a.st.Told), own...)
		default:
			list = append(list, a.st.Told...)
		}
	}
	var once []string
	for _, n := range list {
		if base, err := parseNode(n); err == nil && !slices.Contains(once, base) {
			once = append(once, base)
		}
	}
	return once
}

// askOthers lets a host that may ask no other node ask those of wapt-get.ini
// when it was refused or unheard for long: the rule may be another one now, and
// nobody could tell it.
func (a *Agent) askOthers(ctx context.Context) {
	a.mu.Lock()
	only, link := a.st.Only, a.link
	a.mu.Unlock()
	if !only || link == nil {
		return
	}
	if err := link.SetNodes(a.nodes()); err != nil {
		a.log.WarnContext(ctx, "nodes of wapt-get.ini", "err", err)
	}
}

// named keeps the nodes that one named which serves hosts no more, until the
// next check-in: it may be the only one that the host knew.
func (a *Agent) named(nodes []string) {
	own := a.own()
	a.log.Info("sent to other nodes", "nodes", nodes)
	a.note(func(s *state) {
		if !slices.Equal(s.Asked, own) {
			s.Told, s.Placed, s.Only, s.Asked = nil, false, false, own
		}
		s.Told = append(s.Told, nodes...)
		s.Told = s.Told[max(0, len(s.Told)-maxTold):]
	})
}

// own are the nodes that wapt-get.ini names, or else the options.
func (a *Agent) own() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.conf.Nodes) > 0 {
		return slices.Clone(a.conf.Nodes)
	}
	return slices.Clone(a.spare)
}
