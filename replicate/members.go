package replicate

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// MembersOptions say how a node takes part in gossip.
type MembersOptions struct {
	NodeID    string
	Addr      string          // host:port to listen on, TCP and UDP
	Advertise string          // host:port others reach it at; empty: Addr
	Label     string          // of the mesh; packets of another are dropped
	Key       []byte          // 32 bytes, AES-256: gossip is encrypted
	Known     func() []string // addresses to join, and to join again after a cut
	Log       *slog.Logger

	transport memberlist.Transport // of tests; nil for TCP and UDP
}

// Members knows which nodes are there. Gossip carries membership and hints
// only; records and files travel over connections of our own.
type Members struct {
	list  *memberlist.Memberlist
	known func() []string
	log   *slog.Logger
}

// A Member is one node as gossip sees it.
type Member struct {
	NodeID string
	Addr   string
}

// OpenMembers listens. Run joins the others.
func OpenMembers(o MembersOptions) (*Members, error) {
	conf := memberlist.DefaultWANConfig()
	conf.Name, conf.Label, conf.SecretKey = o.NodeID, o.Label, o.Key
	conf.LogOutput, conf.Logger = nil, log.New(memberLog{o.Log.With("part", "members")}, "", 0)
	conf.Transport = o.transport
	var err error
	if conf.BindAddr, conf.BindPort, err = hostPort(o.Addr, "0.0.0.0"); err != nil {
		return nil, fmt.Errorf("gossip address: %w", err)
	}
	conf.AdvertisePort = conf.BindPort
	if o.Advertise != "" {
		if conf.AdvertiseAddr, conf.AdvertisePort, err = hostPort(o.Advertise, ""); err != nil {
			return nil, fmt.Errorf("advertised gossip address: %w", err)
		}
	}
	list, err := memberlist.Create(conf)
	if errors.Is(err, syscall.EADDRINUSE) || err != nil && strings.Contains(err.Error(), "address already in use") {
		return nil, fmt.Errorf("gossip port %s is taken by another program (ss -lnup shows which): %w", o.Addr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for gossip on %s: %w", o.Addr, err)
	}
	return &Members{list: list, known: o.Known, log: o.Log.With("part", "members")}, nil
}

func hostPort(addr, any string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	if host == "" {
		host = any
	}
	port, err = strconv.Atoi(p)
	return host, port, err
}

// Addr is where this node is reached by gossip.
func (m *Members) Addr() string { return m.list.LocalNode().Address() }

// List is every living node, this one included, by id.
func (m *Members) List() []Member {
	var all []Member
	for _, n := range m.list.Members() {
		all = append(all, Member{NodeID: n.Name, Addr: n.Address()})
	}
	slices.SortFunc(all, func(a, b Member) int { return strings.Compare(a.NodeID, b.NodeID) })
	return all
}

// Run joins the known nodes and joins them again after every cut, until ctx
// ends: after a cut of minutes memberlist has forgotten the other half and
// never calls it by itself (members_test.go shows it).
func (m *Members) Run(ctx context.Context) error {
	for {
		m.joinUnseen()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rejoin + rand.N(rejoin/2)):
		}
	}
}

func (m *Members) joinUnseen() {
	seen := map[string]bool{}
	for _, n := range m.list.Members() {
		seen[n.Address()] = true
	}
	for _, addr := range m.known() {
		if seen[addr] {
			continue
		}
		if _, err := m.list.Join([]string{addr}); err != nil {
			m.log.Debug("node not reached, trying again later", "peer", addr, "err", err)
		}
	}
}

// Close says goodbye to the others and stops listening.
func (m *Members) Close() error {
	return errors.Join(m.list.Leave(time.Second), m.list.Shutdown())
}
