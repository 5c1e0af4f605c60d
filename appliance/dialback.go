package appliance

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"wuamesh/replicate"
)

// Whether a node can be called only others can tell, so it asks one to dial it
// back, as AutoNAT of libp2p does. A member is dialled where the mesh knows
// it, a machine that holds a join token where its request came from: nobody
// makes a node dial anything else.
const pathDialBack = "/mesh/v1/dial-back"

const (
	dialBackTime  = 5 * time.Second
	dialBackPeers = 3 // are asked
)

type (
	// A dialBackRequest says who should answer. Secret and Ports are of a
	// machine that is not in yet.
	dialBackRequest struct {
		Secret []byte   `json:"secret,omitempty"`
		Ports  []string `json:"ports,omitempty"`
		Node   string   `json:"node"`
		Pin    []byte   `json:"pin"` // fingerprint of the root it shows
	}
	// A dialBackAnswer says by whom which address was tried.
	dialBackAnswer struct {
		By    string        `json:"by"`
		Tried []dialledBack `json:"tried"`
	}
	dialledBack struct {
		Addr  string `json:"addr"`
		Fault string `json:"fault,omitempty"` // empty: the node answered
	}
)

// dialBackPeer dials the member that asks.
func (a *Appliance) dialBackPeer(w http.ResponseWriter, r *http.Request) {
	id := replicate.FromPeer(r.Context()).NodeID
	n, ok := a.roster.living()[id]
	if !ok {
		a.answer(w, r, nil, &Problem{Kind: NotFound, Msg: "This node does not know where you can be called yet.", Hint: "Try again in a moment."})
		return
	}
	pin := replicate.Fingerprint(a.auth.identity().Root)
	a.answer(w, r, a.dialBack(r.Context(), id, pin, n.Addrs), nil)
}

// dialBackNewcomer dials a machine that holds a join token of this mesh.
func (a *Appliance) dialBackNewcomer(w http.ResponseWriter, r *http.Request) {
	address, _, _ := net.SplitHostPort(r.RemoteAddr)
	if err := a.joins.try(address, address); err != nil {
		a.answer(w, r, nil, err)
		return
	}
	body, err := newcomersBody(w, r)
	var req dialBackRequest
	if err == nil && (json.Unmarshal(body, &req) != nil || len(req.Secret) != 16 || len(req.Pin) != 32 || len(req.Ports) > 4) {
		err = invalid("", "The request to be dialled cannot be read.")
	}
	if err != nil {
		a.joins.noGuess(address, address)
		a.answer(w, r, nil, err)
		return
	}
	if t, ok := a.cat.token(joinTokenID(req.Secret)); !ok || t.Expires.Before(time.Now()) {
		a.answer(w, r, nil, &Problem{Kind: Denied, Msg: a.NodeName() + " does not know this token.", Hint: "If it was made on another node just now, try again in a moment."})
		return
	}
	a.joins.worked(address, address)
	var addrs []string
	for _, port := range req.Ports {
		addrs = append(addrs, net.JoinHostPort(address, port))
	}
	a.answer(w, r, a.dialBack(r.Context(), req.Node, [32]byte(req.Pin), addrs), nil)
}

// dialBack tries all addresses at once.
func (a *Appliance) dialBack(ctx context.Context, node string, pin [32]byte, addrs []string) dialBackAnswer {
	answer := dialBackAnswer{By: a.NodeName(), Tried: make([]dialledBack, len(addrs))}
	var all sync.WaitGroup
	for i, addr := range addrs {
		all.Go(func() {
			answer.Tried[i].Addr = addr
			if err := dialNode(ctx, addr, node, pin); err != nil {
				answer.Tried[i].Fault = whyUnreached(err)
			}
		})
	}
	all.Wait()
	return answer
}

// dialNode finds out whether that node, and no other machine, answers there.
func dialNode(ctx context.Context, addr, node string, pin [32]byte) error {
	ctx, cancel := context.WithTimeout(ctx, dialBackTime)
	defer cancel()
	conn, err := (&tls.Dialer{Config: pinned(pin, func(id string) error {
		if id != node {
			return fmt.Errorf("another node answers there")
		}
		return nil
	})}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// pinned is how machines that are in no mesh together yet know each other.
func pinned(pin [32]byte, check func(node string) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: replicate.JoinServerName, InsecureSkipVerify: true, // VerifyConnection does it
		VerifyConnection: func(cs tls.ConnectionState) error {
			id, err := replicate.VerifyPinned(pin, cs.PeerCertificates, time.Now())
			if err == nil && check != nil {
				err = check(id)
			}
			return err
		},
	}
}

// checkDialBack asks a few connected nodes, of other sites first, to call this
// one. Nodes do with one that nobody can call: it calls them.
func (a *Appliance) checkDialBack(ctx context.Context) Check {
	var ask []NodeRow
	for _, n := range a.nodeRows() {
		if n.Reach == string(replicate.Direct) {
			ask = append(ask, n)
		}
	}
	here := a.config().Site
	slices.SortStableFunc(ask, func(x, y NodeRow) int {
		switch {
		case x.Site != here && y.Site == here:
			return -1
		case x.Site == here && y.Site != here:
			return 1
		}
		return 0
	})
	ask = ask[:min(len(ask), dialBackPeers)]
	answers := make([]dialBackAnswer, len(ask))
	var all sync.WaitGroup
	for i, n := range ask {
		all.Go(func() {
			body, err := a.askPeer(ctx, n.ID, pathDialBack, []byte("{}"))
			if err == nil {
				err = json.Unmarshal(body, &answers[i])
			}
			if err != nil { // it is of an earlier version, or the line was cut
				a.log.DebugContext(ctx, "a node did not dial back", "peer", n.ID, "err", err)
			}
		})
	}
	all.Wait()
	return judgeDialBack(answers)
}

// dialBackAt asks the node at an address of the token to call this one.
func (a *Appliance) dialBackAt(ctx context.Context, addr string, token replicate.JoinToken) Check {
	pin := replicate.Fingerprint(a.auth.identity().Root)
	req := dialBackRequest{Secret: token.Secret[:], Node: a.db.NodeID(), Pin: pin[:]}
	for _, addr := range a.addresses() {
		if _, port, err := net.SplitHostPort(addr); err == nil && !slices.Contains(req.Ports, port) && len(req.Ports) < 4 {
			req.Ports = append(req.Ports, port)
		}
	}
	var answer dialBackAnswer
	if err := askOne(ctx, addr, token, pathDialBack, req, &answer); err != nil {
		return Check{dialBackName, CheckSkipped, fmt.Sprintf("The node at %s did not try to call this one: %s.", addr, whyUnreached(err)), ""}
	}
	return judgeDialBack([]dialBackAnswer{answer})
}

const dialBackName = "called by other nodes"

// judgeDialBack says what came of it; one address that one node reaches is
// enough.
func judgeDialBack(answers []dialBackAnswer) Check {
	var faults, by []string
	for _, a := range answers {
		for _, d := range a.Tried {
			if d.Fault == "" {
				return Check{dialBackName, CheckOK, fmt.Sprintf("%s can call this node at %s.", a.By, d.Addr), ""}
			}
			faults = append(faults, d.Addr+": "+d.Fault)
		}
		if len(a.Tried) > 0 {
			by = append(by, a.By)
		}
	}
	if len(by) == 0 {
		return Check{dialBackName, CheckSkipped, "No connected node could be asked to call this one.", ""}
	}
	slices.Sort(faults)
	return Check{
		dialBackName, CheckWarning, fmt.Sprintf("%s cannot call this node. %s.", strings.Join(by, ", "), strings.Join(slices.Compact(faults), "; ")),
		"It works without, because this node calls the others; but between two nodes that nobody can call everything goes through a third. To change that let the firewall pass the HTTPS port, and behind NAT write the outside address into advertise.",
	}
}
