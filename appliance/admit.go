package appliance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/replicate"
)

// What nodes ask each other beside records. A machine that is not in yet
// reaches pathJoin alone, under its own server name.
const (
	pathJoin  = "/mesh/v1/join"
	pathRenew = "/mesh/v1/renew"
)

// Bounds of joining.
const (
	maxJoinBytes  = 64 << 10
	maxJoinAnswer = 1 << 20
	// maxClockOff is how far the clock of a node that joins may be off: its
	// edits would win or lose every merge by so much.
	maxClockOff = 2 * time.Minute
	joinLife    = time.Hour
)

type (
	// A joinRequest proves that its sender has the token, and asks for a
	// certificate for the key that signed the request.
	joinRequest struct {
		Secret  []byte    `json:"secret"`
		Node    string    `json:"node"`
		Name    string    `json:"name"`
		Site    string    `json:"site"`
		Version string    `json:"version"`
		Addrs   []string  `json:"addrs"`
		CSR     []byte    `json:"csr"`
		Now     time.Time `json:"now"` // of its clock
		// Of a node that was let in before and whose certificate ended: that,
		// and its key's word for the new one.
		Old      []byte `json:"old,omitempty"`
		Endorsed []byte `json:"endorsed,omitempty"`
	}
	// A joinAnswer is all a node needs to be a member.
	joinAnswer struct {
		Anchor string                `json:"anchor"` // name of the node that let it in
		Root   []byte                `json:"root"`
		Node   []byte                `json:"node"`
		Web    []byte                `json:"web"`
		Label  string                `json:"label"`
		Keys   [][]byte              `json:"keys"`
		Peers  []replicate.KnownPeer `json:"peers"`
		Self   nodeRecord            `json:"self"`
	}
	// A renewal asks for new certificates with the old one, and answers.
	renewal struct {
		CSR      []byte `json:"csr,omitempty"`
		Endorsed []byte `json:"endorsed,omitempty"` // by the old certificate's key
		Node     []byte `json:"node,omitempty"`
		Web      []byte `json:"web,omitempty"`
	}
)

func (r joinRequest) check() error {
	switch raw, err := hex.DecodeString(r.Node); {
	case len(r.Secret) != 16:
		return invalid("secret", "The request carries no secret of a token.")
	case err != nil || len(raw) != 16:
		return invalid("node", "%.40q is not the id of a node.", r.Node)
	case rules.CheckName(strings.ToLower(r.Name)) != nil:
		return &Problem{Kind: Invalid, Field: "name", Code: "WM-305", Msg: fmt.Sprintf("%q cannot be the name of a node: %v.", r.Name, rules.CheckName(strings.ToLower(r.Name))), Hint: "Give it another with --name, or name in its configuration."}
	case len(r.Site) > 64 || len(r.Version) > 64 || len(r.Addrs) > 16:
		return invalid("site", "Site, version or addresses are too long.")
	}
	for _, addr := range r.Addrs {
		if _, _, err := net.SplitHostPort(addr); err != nil || len(addr) > 255 {
			return invalid("addrs", "%.80q is not an address such as \"10.0.0.5:443\".", addr)
		}
	}
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return &Problem{Kind: Invalid, Field: "csr", Msg: "The certificate request is not sound.", Err: err}
	}
	return nil
}

// comesBack says whether the request is of a node that was let in before: its
// key is endorsed by the one of the old certificate, whose time is over.
func (r joinRequest) comesBack(root *x509.Certificate) bool {
	old, err := x509.ParseCertificate(r.Old)
	if err != nil || time.Now().Before(old.NotAfter) {
		return false
	}
	id, err := replicate.VerifyEndorsed(root, r.Old, r.CSR, r.Endorsed, old.NotAfter)
	return err == nil && id == r.Node
}

var errNoAnchor = &Problem{
	Kind: Unavailable, Msg: "This node is no anchor: it does not hold the mesh's root key.",
	Hint: "Try again when an anchor can be reached; wuamesh node list shows them.",
}

// join takes the request of a machine that is not in. Whoever holds no root
// key passes it on to the anchor.
func (a *Appliance) join(w http.ResponseWriter, r *http.Request) {
	address, _, _ := net.SplitHostPort(r.RemoteAddr)
	if err := a.joins.try(address, address); err != nil { // nobody else has to wait for it
		a.answer(w, r, nil, err)
		return
	}
	body, err := newcomersBody(w, r)
	if err != nil {
		a.answer(w, r, nil, err)
		return
	}
	answer, err := a.admitNode(r.Context(), body)
	if p, ok := errors.AsType[*Problem](err); err == nil {
		a.joins.worked(address, address)
	} else if !ok || p.Kind != Denied {
		a.joins.noGuess(address, address)
	}
	a.answer(w, r, answer, err)
}

// newcomersBody reads what a machine that is not in sent. Anybody may call
// there: nobody holds a connection open by sending slowly.
func newcomersBody(w http.ResponseWriter, r *http.Request) (body []byte, err error) {
	if err = http.NewResponseController(w).SetReadDeadline(time.Now().Add(10 * time.Second)); err == nil {
		body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxJoinBytes))
	}
	if err != nil {
		return nil, &Problem{Kind: Invalid, Msg: "The request to join is too large, or did not come within 10 s.", Err: err}
	}
	return body, nil
}

// joinRelayed takes a request that another node passed on.
func (a *Appliance) joinRelayed(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxJoinBytes))
	var req joinRequest
	if err == nil {
		err = json.Unmarshal(body, &req)
	}
	if err != nil {
		a.answer(w, r, nil, invalid("", "The request to join cannot be read."))
		return
	}
	answer, err := a.redeem(r.Context(), req)
	a.answer(w, r, answer, err)
}

// admitNode finds the anchor that the token is for: this node, or one of its
// peers.
func (a *Appliance) admitNode(ctx context.Context, body []byte) (any, error) {
	var req joinRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, invalid("", "The request to join cannot be read.")
	}
	if err := req.check(); err != nil {
		return nil, err
	}
	if !a.Member() {
		return nil, &Problem{Kind: Conflict, Msg: a.NodeName() + " is in no mesh itself.", Hint: "Make the token again on a node of the mesh."}
	}
	rec, known := a.cat.token(joinTokenID(req.Secret))
	if known && rec.Anchor == a.db.NodeID() || !known && a.auth.anchorKey() != nil {
		return a.redeem(ctx, req)
	}
	try := a.roster.anchorIDs() // the token is younger than our records, or wrong
	if known {
		try = []string{rec.Anchor}
	}
	var last error
	for _, id := range try {
		answer, err := a.passOn(ctx, id, body)
		if err == nil {
			return answer, nil
		}
		if p, ok := errors.AsType[*agentproto.Problem](err); ok {
			return nil, &Problem{Kind: kindOf(p.Status), Msg: p.Title, Hint: p.Hint, Field: p.Field, Code: p.Code}
		}
		last = err
	}
	names := []string{}
	for _, id := range try {
		n, _ := a.roster.node(id)
		names = append(names, n.Name)
	}
	return nil, &Problem{
		Kind: Unavailable, Msg: fmt.Sprintf("%s passes the token on to the anchor %s, which it does not reach now.", a.NodeName(), strings.Join(names, " or ")),
		Hint: "Try again when the line is up, or make a token on a node that reaches an anchor.", Err: last,
	}
}

func kindOf(status int) Kind {
	for k, s := range statusOf {
		if s == status {
			return k
		}
	}
	return Unavailable
}

// passOn sends the request to an anchor over the mesh and returns its answer.
func (a *Appliance) passOn(ctx context.Context, anchor string, body []byte) (json.RawMessage, error) {
	resp, err := a.askPeer(ctx, anchor, pathJoin, body)
	if err != nil {
		return nil, err
	}
	return json.RawMessage(resp), nil
}

// askPeer posts to a peer over the mesh; what the peer refuses is an
// *[agentproto.Problem].
func (a *Appliance) askPeer(ctx context.Context, nodeID, path string, body []byte) ([]byte, error) {
	mesh := a.mesh.Load()
	if mesh == nil {
		return nil, replicate.ErrUnreachable
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://peer"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := mesh.Transport(nodeID).RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("ask node %s: %w", nodeID, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		return nil, agentproto.ReadProblem(resp)
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxJoinAnswer))
	if err != nil {
		return nil, fmt.Errorf("ask node %s: %w", nodeID, err)
	}
	return answer, nil
}

func joinTokenID(secret []byte) string { return hashSecret("join " + hex.EncodeToString(secret)) }

// redeem lets a node in for a token. Only the anchor that the token names
// does, in one transaction, so that one use is one use whatever is cut: see
// DESIGN.md. Asking again with the same key is the same use, so that an
// answer lost on its way does not cost the token.
func (a *Appliance) redeem(ctx context.Context, req joinRequest) (*joinAnswer, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	if off := time.Until(req.Now); off.Abs() > maxClockOff {
		way := "ahead of"
		if off < 0 {
			way = "behind"
		}
		step := time.Second
		if off.Abs() > 10*time.Minute {
			step = time.Minute // the request was on its way for a while
		}
		return nil, &Problem{
			Kind: Conflict, Msg: fmt.Sprintf("The clock of the machine that wants to join is %s %s that of %s (%s).", off.Abs().Round(step), way, a.NodeName(), time.Now().UTC().Format("2 Jan 2006 15:04:05 UTC")),
			Hint: "Set the wrong one right (timedatectl set-ntp true), then join again with the same token.",
		}
	}
	use := req.Node + " " + csrKey(req.CSR)
	by, err := a.useJoinToken(ctx, req, use)
	if err != nil {
		return nil, err
	}
	node, web, err := a.auth.certify(req.CSR, req.Node)
	if err != nil {
		return nil, err
	}
	self, _ := a.roster.node(req.Node)
	me, _ := a.roster.node(a.db.NodeID())
	peers := []replicate.KnownPeer{{NodeID: a.db.NodeID(), Name: me.Name, Site: me.Site, Addrs: me.Addrs}}
	for _, p := range a.knownPeers() {
		if p.NodeID != req.Node && len(peers) < 100 {
			peers = append(peers, p)
		}
	}
	a.log.InfoContext(ctx, "node joined", "node", req.Node, "by", by)
	return &joinAnswer{
		Anchor: a.NodeName(), Root: a.auth.identity().Root.Raw, Node: node, Web: web,
		Label: a.member.Load().Label, Keys: a.gossipKeys(), Peers: peers, Self: self,
	}, nil
}

func csrKey(der []byte) string {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// useJoinToken takes the one use off a token and writes the node's record.
func (a *Appliance) useJoinToken(ctx context.Context, req joinRequest, use string) (by string, err error) {
	id := joinTokenID(req.Secret)
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		rec, ok, err := tokens.find(tx, id)
		if err != nil {
			return err
		}
		if err := a.checkJoinToken(rec, ok, use, tx.Now()); err != nil {
			return err
		}
		by = "token " + rec.Name
		if rec.UsedBy == use {
			return nil
		}
		if err := a.checkNewNode(tx, req); err != nil {
			return err
		}
		rec.Left, rec.Used, rec.UsedBy = 0, tx.Now(), use
		n, back, err := nodes.find(tx, req.Node)
		if err != nil {
			return err
		}
		if back {
			n.Addrs, n.Version = req.Addrs, req.Version
			return errors.Join(tokens.put(tx, id, rec), nodes.put(tx, req.Node, n),
				a.audit(tx, Actor{Name: rec.By}, "join mesh again", "node "+n.Name, "", "its certificate had ended; with token "+rec.Name))
		}
		n = nodeRecord{Name: req.Name, Site: req.Site, Addrs: req.Addrs, Version: req.Version, Joined: tx.Now(), By: by}
		if err := errors.Join(tokens.put(tx, id, rec), nodes.put(tx, req.Node, n)); err != nil {
			return err
		}
		return a.audit(tx, Actor{Name: rec.By}, "join mesh", "node "+req.Name, "", "with token "+rec.Name)
	})
	return by, err
}

func (a *Appliance) checkJoinToken(rec tokenRecord, ok bool, use string, now time.Time) error {
	const again = "Make another with wuamesh token join, on any node of the mesh."
	switch {
	case !ok || rec.Use != ForJoin:
		return &Problem{Kind: Denied, Code: "WM-601", Msg: a.NodeName() + " does not know this join token: it was revoked, or never made in this mesh.", Hint: again}
	case rec.UsedBy != "" && rec.UsedBy != use:
		who := "another machine"
		if n, ok := a.roster.node(rec.UsedBy[:32]); ok {
			who = n.Name
		}
		return &Problem{Kind: Denied, Code: "WM-602", Msg: fmt.Sprintf("This join token was used already, by %s on %s.", who, rec.Used.UTC().Format("2 Jan 15:04 UTC")), Hint: "It is good for one node. " + again + " If that was not you, remove that node."}
	case now.After(rec.Expires):
		return &Problem{Kind: Denied, Code: "WM-603", Msg: fmt.Sprintf("This join token expired on %s; it is %s now.", rec.Expires.UTC().Format("2 Jan 15:04 UTC"), now.UTC().Format("2 Jan 15:04 UTC")), Hint: again}
	case rec.Anchor != a.db.NodeID():
		return &Problem{Kind: Unavailable, Msg: "This join token is redeemed by another anchor.", Hint: "Try again in a minute."}
	}
	return nil
}

// checkNewNode says what keeps a node out that has a good token.
func (a *Appliance) checkNewNode(tx *replicate.Tx, req joinRequest) error {
	if rem, ok, err := removals.find(tx, req.Node); err != nil || ok {
		return errors.Join(err, &Problem{
			Kind: Denied, Code: "WM-604", Msg: fmt.Sprintf("This machine was the node %s, which %s removed from the mesh on %s.", rem.Name, rem.By, rem.At.UTC().Format("2 Jan 15:04 UTC")),
			Hint: "A removed node does not come back. Stop wuamesh, empty its data directory, start it, and join again.",
		})
	}
	if n, ok, err := nodes.find(tx, req.Node); err != nil || ok {
		if err == nil && req.comesBack(a.auth.identity().Root) {
			return nil
		}
		return errors.Join(err, &Problem{
			Kind: Conflict, Code: "WM-605", Msg: fmt.Sprintf("A node with this machine's identity is in the mesh already: %s. This one is a clone of it, or a copy of its data.", n.Name),
			Hint: "Stop wuamesh here, empty its data directory, start it, and join again.",
		})
	}
	for n, err := range nodes.all(tx, "") {
		if err != nil {
			return err
		}
		if _, gone, err := removals.find(tx, n.id); err != nil || gone || !strings.EqualFold(n.value.Name, req.Name) {
			if err != nil {
				return err
			}
			continue
		}
		return &Problem{
			Kind: Conflict, Field: "name", Code: "WM-606", Msg: fmt.Sprintf("The mesh has a node %s already, in %s.", n.value.Name, n.value.Site),
			Hint: "Give this machine another name (wuamesh join --name OTHER TOKEN); the token is still good. If it replaces that node, remove that one first.",
		}
	}
	return nil
}

// renewPeer gives a node that is in new certificates. The request is endorsed
// with the key of the old one, so it does not matter who passed it on.
func (a *Appliance) renewPeer(w http.ResponseWriter, r *http.Request) {
	var req renewal
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJoinBytes)).Decode(&req); err != nil {
		a.answer(w, r, nil, invalid("csr", "The request cannot be read."))
		return
	}
	node, web, err := a.certifyPeer("", renewalRecord{CSR: req.CSR, Endorsed: req.Endorsed, Old: req.Node})
	a.answer(w, r, renewal{Node: node, Web: web}, err)
}
