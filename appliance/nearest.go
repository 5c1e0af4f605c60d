package appliance

import (
	"cmp"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/replicate"
)

// A place is where a host is in the network, as far as it can be seen.
type place struct {
	addrs  []netip.Addr // its own
	remote netip.Addr   // where its connection comes from
	adSite string
	domain string
	name   string
	fqdn   string
}

// placeOf reads what a host says and where it calls from.
func placeOf(f agentproto.Facts, remote string) place {
	p := place{adSite: f.ADSite, domain: f.Domain, name: f.Name, fqdn: f.FQDN}
	if ap, err := netip.ParseAddrPort(remote); err == nil {
		p.remote = ap.Addr().Unmap()
	}
	for _, s := range f.Addresses {
		if a, err := netip.ParseAddr(s); err == nil {
			p.addrs = append(p.addrs, a.Unmap())
		}
	}
	return p
}

// place is where the host is by what it said last, here or at another node.
func (h *host) place() place { return placeOf(h.Facts, h.calledFrom()) }

func (h *host) calledFrom() string { return cmp.Or(h.from, h.at.From) }

// near are the addresses that say where the host is. The one it calls from is
// it, unless something translates it on the way: other addresses may be of
// virtual networks, which look alike everywhere.
func (p place) near() []netip.Addr {
	if slices.Contains(p.addrs, p.remote) {
		return []netip.Addr{p.remote}
	}
	return p.addrs
}

// A choice is a node that a host may ask.
type choice struct {
	id   string
	rec  nodeRecord
	self bool          // the one that answers
	away bool          // from it
	trip time.Duration // round trip from it, zero when not known
}

// rankNodes orders nodes by how near they are to a host: those in its subnet,
// those of the site that these are of, or whose name Active Directory gives
// the host's site, then the one that answers and the others by round trip from
// there. placed says that the first of them is there by the host's place.
// Nodes that are away go last, but are named: they may be back when a host
// needs one, and which are away is known late in the first moments of a node.
// Those near keep their place: a branch that is cut off serves its own hosts.
func rankNodes(list []choice, p place) (ranked []choice, placed bool) {
	bits, sites := map[string]int{}, map[string]bool{}
	for _, c := range list {
		if b := longest(c.rec.Nets, p.near()); b > 0 {
			bits[c.id], sites[c.rec.Site] = b, true
		}
	}
	if len(sites) == 0 && p.adSite != "" {
		for _, c := range list {
			if strings.EqualFold(c.rec.Site, p.adSite) {
				sites[c.rec.Site] = true
			}
		}
	}
	far := func(c choice) bool { return !sites[c.rec.Site] }
	trip := func(c choice) time.Duration {
		switch {
		case c.self:
			return 0
		case c.trip == 0:
			return math.MaxInt64
		}
		return c.trip
	}
	lost := func(c choice) bool { return far(c) && c.away }
	ranked = slices.Clone(list)
	slices.SortFunc(ranked, func(x, y choice) int {
		return cmp.Or(cmp.Compare(bits[y.id], bits[x.id]), compareBool(far(x), far(y)), compareBool(lost(x), lost(y)), cmp.Compare(trip(x), trip(y)), strings.Compare(x.rec.Name+x.id, y.rec.Name+y.id))
	})
	return ranked, len(sites) > 0
}

// longest is the length of the longest network that one of the addresses is
// in; 0 for none.
func longest(nets []string, addrs []netip.Addr) (bits int) {
	for _, s := range nets {
		n, err := netip.ParsePrefix(s)
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if n.Contains(a) {
				bits = max(bits, n.Bits())
			}
		}
	}
	return bits
}

const (
	// maxTold is how many nodes a host is told, and maxURLs how many addresses
	// of each: when eight nodes are away, something else is wrong.
	maxTold = 8
	maxURLs = 2
)

// nodesFor is whom a host should ask, whether that goes before what its own
// wapt-get.ini says, and whether nobody else may be asked. asked is the
// address by which it reached this node.
func (a *Appliance) nodesFor(p place, asked string) (urls []string, placed, only bool) {
	ranked, placed := rankNodes(a.candidates(), p)
	chosen, used, only := applyRoutes(a.routes(), ranked, p)
	for _, c := range chosen[:min(len(chosen), maxTold)] {
		urls = append(urls, agentURLs(c, p, asked)...)
	}
	if own := "https://" + asked; !only && !slices.Contains(urls, own) {
		urls = append(urls, own)
	}
	return uniq(urls), placed || len(used) > 0, only
}

// otherNodes are where the hosts of this node may go when it serves them no
// more.
func (a *Appliance) otherNodes(remote string) (urls []string) {
	p := placeOf(agentproto.Facts{}, remote)
	others := slices.DeleteFunc(a.candidates(), func(c choice) bool { return c.self })
	ranked, _ := rankNodes(others, p)
	for _, c := range ranked[:min(len(ranked), maxTold)] {
		urls = append(urls, agentURLs(c, p, "")...)
	}
	return uniq(urls)
}

// candidates are the nodes of the mesh that were not removed; this node alone
// while it is in none.
func (a *Appliance) candidates() (list []choice) {
	reach := map[string]replicate.Peer{}
	if mesh := a.mesh.Load(); mesh != nil {
		for _, p := range mesh.Peers() {
			reach[p.NodeID] = p
		}
	}
	living := a.roster.living()
	if m := a.member.Load(); m != nil {
		if living[a.ID()].Name == "" {
			living[a.ID()] = m.Self
		}
		for _, p := range m.Peers { // of the answer to joining: their records may not be here yet
			_, gone := a.roster.removal(p.NodeID)
			if _, known := living[p.NodeID]; !known && !gone {
				living[p.NodeID] = nodeRecord{Name: p.Name, Site: p.Site, Addrs: p.Addrs}
			}
		}
	}
	for id, n := range living {
		p := reach[id]
		list = append(list, choice{id: id, rec: n, self: id == a.ID(), away: id != a.ID() && p.Reach != replicate.Direct && p.Reach != replicate.Relayed, trip: p.RoundTrip})
	}
	return list
}

// agentURLs are where a host may call a node: as it called it just now, in a
// network it shares with it, by its name, at its other addresses.
func agentURLs(c choice, p place, asked string) (urls []string) {
	if c.self {
		urls = append(urls, "https://"+asked)
	}
	for _, addr := range c.rec.Addrs {
		if shares(c.rec.Nets, addr, p.near()) {
			urls = append(urls, baseURL(addr))
		}
	}
	if c.rec.URL != "" {
		urls = append(urls, c.rec.URL)
	}
	for _, addr := range c.rec.Addrs {
		urls = append(urls, baseURL(addr))
	}
	urls = uniq(urls)
	return urls[:min(len(urls), maxURLs)]
}

// shares says whether an address is in one of the networks together with one
// of the hosts'.
func shares(nets []string, addr string, hosts []netip.Addr) bool {
	ap, err := netip.ParseAddrPort(addr)
	return err == nil && slices.ContainsFunc(nets, func(n string) bool {
		one := []string{n}
		return longest(one, []netip.Addr{ap.Addr()}) > 0 && longest(one, hosts) > 0
	})
}

// virtual are the names that networks inside of one machine begin with.
var virtual = []string{"docker", "br-", "veth", "virbr", "cni", "podman", "lxc", "lxd", "flannel", "cali", "tun", "wg", "tailscale"}

// localNets are the networks this machine is in, as prefixes; at most 16.
func localNets() (list []string) {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 || slices.ContainsFunc(virtual, func(v string) bool { return strings.HasPrefix(i.Name, v) }) {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if n, err := netip.ParsePrefix(a.String()); err == nil && n.Addr().IsGlobalUnicast() && !n.IsSingleIP() && n.Bits() >= 8 {
				list = append(list, n.Masked().String())
			}
		}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	return list[:min(len(list), 16)]
}
