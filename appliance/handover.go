package appliance

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"wuamesh/replicate"
)

// A handover is an admin who is logged in on one node and goes on at another
// without logging in again: the other node gives a secret that is good once,
// for half a minute, to the node that vouches for the admin. Any node could
// write the admin's record, so believing it here gives it nothing new.
const (
	pathHandover = "/mesh/v1/handover"
	handoverLife = 30 * time.Second
	maxHandovers = 1000 // that wait to be taken
)

type (
	handoverRequest struct {
		Admin string            `json:"admin"`
		Of    string            `json:"of"`   // digest of the password record the session was begun with
		Seen  map[string]uint64 `json:"seen"` // how much of the asking node's own logs there is
	}
	handoverAnswer struct {
		Secret string `json:"secret"`
	}
	handover struct {
		handoverRequest
		from  string // name of the node that vouched
		until time.Time
	}
)

// handovers are those that wait for their admin, by the digest of the secret.
type handovers struct {
	mu   sync.Mutex
	wait map[string]handover
}

func (h *handovers) put(v handover) (secret string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, old := range h.wait {
		if time.Now().After(old.until) {
			delete(h.wait, id)
		}
	}
	if len(h.wait) >= maxHandovers {
		return "", &Problem{Kind: TooMany, Msg: "Too many admins are on their way here.", Hint: "Try again in half a minute."}
	}
	if h.wait == nil {
		h.wait = map[string]handover{}
	}
	secret = rand.Text()
	h.wait[hashSecret(secret)] = v
	return secret, nil
}

func (h *handovers) take(secret string) (v handover, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := hashSecret(secret)
	v, ok = h.wait[id]
	delete(h.wait, id)
	return v, ok && time.Now().Before(v.until)
}

// HandOver asks another node to take over an admin who is logged in here, and
// returns where the browser goes on: the other node's base URL, and the
// secret to show there. Without a secret the admin has to log in there.
func (a *Appliance) HandOver(ctx context.Context, by Actor, nodeID string) (base, secret string, err error) {
	base, err = a.pagesOf(nodeID)
	if err != nil {
		return "", "", err
	}
	admin, ok := a.cat.admin(by.Name)
	if !ok {
		return base, "", nil
	}
	req := handoverRequest{Admin: by.Name, Of: hashSecret(admin.Password), Seen: map[string]uint64{}}
	for w, n := range a.db.Vector() {
		if strings.HasPrefix(w, a.db.NodeID()+".") && len(req.Seen) < 100 {
			req.Seen[w] = n
		}
	}
	body, err := json.Marshal(req)
	if err != nil {
		return "", "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var answer handoverAnswer
	b, err := a.askPeer(ctx, nodeID, pathHandover, body)
	if err == nil {
		err = json.Unmarshal(b, &answer)
	}
	if err != nil { // the browser may still reach it
		a.log.InfoContext(ctx, "an admin has to log in at another node", "peer", nodeID, "err", err)
	}
	return base, answer.Secret, nil
}

// pagesOf is the base URL of a node's pages.
func (a *Appliance) pagesOf(nodeID string) (string, error) {
	for _, n := range a.nodeRows() {
		if n.ID == nodeID && n.Removed.IsZero() && n.URL != "" {
			return n.URL, nil
		}
	}
	return "", &Problem{Kind: NotFound, Msg: "There is no such node in the mesh.", Hint: "The Mesh page lists the nodes."}
}

// handoverPeer makes a secret for an admin for whom a peer vouches.
func (a *Appliance) handoverPeer(w http.ResponseWriter, r *http.Request) {
	var req handoverRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJoinBytes)).Decode(&req); err != nil {
		a.answer(w, r, nil, invalid("", "The request cannot be read."))
		return
	}
	admin, ok := a.cat.admin(req.Admin)
	if !ok || hashSecret(admin.Password) != req.Of {
		a.answer(w, r, nil, &Problem{Kind: Denied, Msg: "This node does not know that admin with that password yet."})
		return
	}
	n, _ := a.roster.node(replicate.FromPeer(r.Context()).NodeID)
	secret, err := a.handovers.put(handover{req, n.Name, time.Now().Add(handoverLife)})
	a.answer(w, r, handoverAnswer{secret}, err)
}

// catchUp bounds how long a handover waits for what the admin saw elsewhere.
const catchUp = 2 * time.Second

// TakeHandOver begins the session of an admin that another node handed over,
// once this node has what that node had written, or two seconds later:
// behind then names the node whose changes are still on their way.
func (a *Appliance) TakeHandOver(ctx context.Context, secret, address string) (session, behind string, err error) {
	if err := a.logins.try("handover", address); err != nil {
		return "", "", err
	}
	v, ok := a.handovers.take(secret)
	admin, known := a.cat.admin(v.Admin)
	if !ok || !known || hashSecret(admin.Password) != v.Of {
		return "", "", &Problem{Kind: NoLogin, Msg: "The way from the other node is good once, for half a minute.", Hint: "Log in here."}
	}
	a.logins.worked("handover", address)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(catchUp); !a.has(v.Seen); {
		if time.Now().After(late) {
			behind = v.from
			break
		}
		select {
		case <-ctx.Done():
			return "", "", ctx.Err()
		case <-tick.C:
		}
	}
	session, err = a.beginSession(ctx, v.Admin, address, admin)
	a.log.InfoContext(ctx, "admin came from another node", "by", v.Admin, "peer", v.from, "address", address)
	return session, behind, err
}

// has says whether this node has what another one had written. A log of which
// nothing is here was forgotten, or is too young to tell.
func (a *Appliance) has(seen map[string]uint64) bool {
	for w, n := range seen {
		if have := a.db.Have(w); have > 0 && have < n {
			return false
		}
	}
	return true
}

// urlOf is where browsers find a node's pages: under the first name it was
// given for them, or else where it is connected to, or could be.
func urlOf(n nodeRecord, connected string) string {
	if n.URL != "" {
		return n.URL
	}
	if len(n.Addrs) == 0 {
		return ""
	}
	addr := n.Addrs[0]
	at, _, _ := net.SplitHostPort(connected)
	for _, one := range n.Addrs {
		if host, _, err := net.SplitHostPort(one); err == nil && host == at {
			addr = one
			break
		}
	}
	return baseURL(addr)
}

// baseURL is the URL of an address, without the port that goes without saying.
func baseURL(addr string) string {
	u := url.URL{Scheme: "https", Host: addr}
	if host, port, err := net.SplitHostPort(addr); err == nil && port == "443" {
		if u.Host = host; strings.Contains(host, ":") {
			u.Host = "[" + host + "]"
		}
	}
	return u.String()
}

// ownURL is where browsers find this node's pages, where it was told; empty
// for others to guess from its addresses.
func (a *Appliance) ownURL() string {
	if names := a.config().Names; len(names) > 0 {
		return baseURL(net.JoinHostPort(names[0], fmt.Sprint(a.https.Addr().(*net.TCPAddr).Port)))
	}
	return ""
}
