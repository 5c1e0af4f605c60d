package appliance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"wuamesh/agentproto"
	"wuamesh/replicate"
)

// JoinOptions say with what a bare node joins a mesh.
type JoinOptions struct {
	Token string
	Name  string // empty: as the configuration or the machine says
	Site  string // empty: as the configuration says, or the node's name
}

// A JoinState is how far a node is on its way into a mesh.
type JoinState struct {
	Member  bool   `json:"member"`  // it has its certificate
	Synced  bool   `json:"synced"`  // and the first copy of everything
	Records int    `json:"records"` // of the copy, so far
	Left    uint64 `json:"left"`    // at most, as far as known
	Peers   int    `json:"peers"`   // that it is connected to
	Node    string `json:"node"`
	Site    string `json:"site"`
}

// Join makes a bare node a member of the mesh that the token is of. When it
// returns the node has its identity and takes the first copy; JoinState says
// how far that is.
func (a *Appliance) Join(ctx context.Context, by Actor, o JoinOptions) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	token, err := replicate.ParseJoinToken(o.Token)
	if err != nil {
		hint := "Paste the whole line that wuamesh token join printed."
		if _, err := agentproto.ParseEnrollToken(o.Token); err == nil {
			hint = "This is an enrolment token, for hosts. Nodes join with the one of wuamesh token join."
		}
		return &Problem{Kind: Invalid, Field: "token", Msg: upper(err.Error()) + ".", Hint: hint}
	}
	a.entering.Lock()
	defer a.entering.Unlock()
	if err := a.bare(token); err != nil {
		return err
	}
	named, err := a.renamed(o.Name, o.Site)
	if err != nil {
		return err
	}
	self, req, err := a.joinRequest(ctx, named, token)
	if err != nil {
		return err
	}
	answer, err := askToJoin(ctx, token, req)
	if err != nil {
		return err
	}
	if now, _ := a.Answers(); named != now {
		if err := a.Answer(ctx, by, named); err != nil {
			return err
		}
	}
	return a.becomeMember(ctx, self, answer)
}

// bare says why this node cannot join: it has something of its own to lose.
func (a *Appliance) bare(token replicate.JoinToken) error {
	if a.Member() && replicate.Fingerprint(a.auth.identity().Root) == token.Fingerprint {
		if a.lapsed() {
			return nil
		}
		return &Problem{Kind: Conflict, Code: "WM-611", Msg: "This node is a member of that mesh already.", Hint: "Nothing was changed; wuamesh node list shows the mesh."}
	}
	what := a.cat.holdings()
	if n := len(a.roster.living()); n > 1 {
		what = append(what, fmt.Sprintf("%d nodes", n))
	}
	if len(what) == 0 && !a.Member() {
		return nil
	}
	if len(what) == 0 {
		what = []string{"nothing in it yet"}
	}
	return &Problem{
		Kind: Conflict, Code: "WM-610", Msg: fmt.Sprintf("This node is in a mesh of its own already, with %s.", strings.Join(what, ", ")),
		Hint: "Joining another would throw that away. If that is meant: stop wuamesh, empty its data directory, start it, and join again.",
	}
}

// holdings are what a node that joins another mesh would lose.
func (c *catalogue) holdings() (list []string) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, k := range []struct {
		n    int
		what string
	}{{len(c.admins), "admin"}, {len(c.hosts), "host"}, {len(c.packages), "rule package"}, {len(c.groups) - 1, "group"}} {
		if k.n == 1 {
			list = append(list, "1 "+k.what)
		} else if k.n > 1 {
			list = append(list, fmt.Sprintf("%d %ss", k.n, k.what))
		}
	}
	return list
}

// joinRequest makes the request. Its key is kept before it is sent, so that
// asking again after a lost answer is the same use of the token.
func (a *Appliance) joinRequest(ctx context.Context, as Answers, token replicate.JoinToken) (identityRecord, joinRequest, error) {
	var self identityRecord
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		var ok bool
		var err error
		if self, ok, err = identities.find(tx, "joining"); ok || err != nil {
			return err
		}
		if self.Key, err = replicate.NewKey(); err != nil {
			return err
		}
		return identities.put(tx, "joining", self)
	})
	if err != nil {
		return self, joinRequest{}, fmt.Errorf("keep the key to join with: %w", err)
	}
	csr, err := replicate.RequestCertificate(self.Key, a.db.NodeID(), append(a.auth.names(), strings.ToLower(as.Name)))
	req := joinRequest{
		Secret: token.Secret[:], Node: a.db.NodeID(), Name: as.Name, Site: as.Site, Version: Version, Addrs: a.addresses(), CSR: csr, Now: time.Now(),
	}
	if err == nil && a.lapsed() {
		id := a.auth.identity()
		req.Old = id.Node.Raw
		req.Endorsed, err = id.Endorse(csr)
	}
	return self, req, err
}

// askToJoin asks the token's addresses one after another. What a node of the
// mesh refuses is final; what cannot be reached is collected.
func askToJoin(ctx context.Context, token replicate.JoinToken, req joinRequest) (joinAnswer, error) {
	var unreached []string
	var last error
	for _, addr := range token.Addrs {
		var answer joinAnswer
		err := askOne(ctx, addr, token, pathJoin, req, &answer)
		if err == nil {
			return answer, nil
		}
		if p, ok := errors.AsType[*Problem](err); ok && p.Kind != Unavailable {
			return joinAnswer{}, p
		}
		if ctx.Err() != nil {
			return joinAnswer{}, ctx.Err()
		}
		unreached, last = append(unreached, addr+": "+whyUnreached(err)), err
	}
	if p, ok := errors.AsType[*Problem](last); ok && len(token.Addrs) == 1 {
		return joinAnswer{}, p
	}
	return joinAnswer{}, &Problem{
		Kind: Unavailable, Code: "WM-612", Msg: "No node of the mesh could be asked. " + strings.Join(unreached, "; ") + ".",
		Hint: "This machine must reach one of these addresses over TCP. The token is still good; wuamesh token join --address HOST:PORT makes one with another address.", Err: last,
	}
}

func whyUnreached(err error) string {
	var p *Problem
	var dns *net.DNSError
	switch {
	case errors.As(err, &p):
		return strings.TrimSuffix(p.Msg, ".")
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused, no wuamesh listens there or the port is another"
	case errors.As(err, &dns):
		return "the name cannot be resolved"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "no answer, a firewall may drop it"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "no route leads there"
	}
	var net *net.OpError
	if errors.As(err, &net) {
		return net.Err.Error()
	}
	return err.Error()
}

// askOne posts to one address and reads the answer. The connection is believed
// only when a node of the mesh with the token's fingerprint is at its end.
func askOne(ctx context.Context, addr string, token replicate.JoinToken, path string, req, answer any) error {
	c := &http.Client{Timeout: 45 * time.Second, Transport: &http.Transport{
		TLSClientConfig: pinned(token.Fingerprint, nil), DialContext: (&net.Dialer{Timeout: 8 * time.Second}).DialContext, TLSHandshakeTimeout: 10 * time.Second, DisableKeepAlives: true,
	}}
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.Do(post)
	switch {
	case errors.Is(err, replicate.ErrClock):
		return &Problem{
			Kind: Conflict, Code: "WM-613", Msg: fmt.Sprintf("The clock of this machine says %s; the certificate of the node at %s does not hold at that time.", time.Now().UTC().Format("2 Jan 2006 15:04 UTC"), addr),
			Hint: "Set the clock right (timedatectl set-ntp true), then join again with the same token.", Err: err,
		}
	case errors.Is(err, replicate.ErrNotOfMesh):
		return &Problem{
			Kind: Denied, Code: "WM-614", Msg: fmt.Sprintf("What answers at %s is not of the mesh this token was made in.", addr),
			Hint: "Nothing was sent to it. Was the token made in another mesh, or does something stand between that opens TLS?", Err: err,
		}
	case err != nil:
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		p, ok := errors.AsType[*agentproto.Problem](agentproto.ReadProblem(resp))
		if !ok {
			return fmt.Errorf("%s answers %s", addr, resp.Status)
		}
		return &Problem{Kind: kindOf(p.Status), Msg: p.Title, Hint: p.Hint, Field: p.Field, Code: p.Code}
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxJoinAnswer)).Decode(answer); err != nil {
		return fmt.Errorf("answer of %s: %w", addr, err)
	}
	return nil
}

// becomeMember stores who the node is from now on, in one transaction, and
// wakes the part of it that was waiting for a mesh.
func (a *Appliance) becomeMember(ctx context.Context, self identityRecord, answer joinAnswer) error {
	self.Node, self.Web = answer.Node, answer.Web
	root := authorityRecord{Certificate: answer.Root}
	if _, err := replicate.ParseIdentity(root.Certificate, self.Node, self.Web, self.Key, a.db.NodeID()); err != nil {
		return fmt.Errorf("certificates from %s: %w", answer.Anchor, err)
	}
	m := membershipRecord{Label: answer.Label, Keys: answer.Keys, Peers: answer.Peers, Self: answer.Self}
	if was := a.member.Load(); was != nil { // it comes back, with its records
		m.Synced = was.Synced
	}
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		return errors.Join(authorities.put(tx, "root", root), identities.put(tx, "self", self), identities.del(tx, "joining"), memberships.put(tx, "mesh", m))
	})
	if err != nil {
		return fmt.Errorf("keep the node's identity: %w", err)
	}
	if err := a.auth.load(root, self); err != nil {
		return err
	}
	a.enter(m)
	a.log.InfoContext(ctx, "joined the mesh", "peer", answer.Anchor)
	if err := removeMotd(); err != nil { // its admins are the mesh's now
		a.log.WarnContext(ctx, "the setup link is still shown at login", "err", err)
	}
	return a.writeConsole() // its pin is the mesh's now
}

// JoinState says how far the node is on its way into a mesh.
func (a *Appliance) JoinState(ctx context.Context) (JoinState, error) {
	s := JoinState{Node: a.NodeName(), Site: a.config().Site}
	m := a.member.Load()
	if m == nil {
		return s, nil
	}
	s.Member, s.Synced, s.Records = true, m.Synced, int(a.records.Load())
	if mesh := a.mesh.Load(); mesh != nil {
		for _, p := range mesh.Peers() {
			if p.Reach == replicate.Direct {
				s.Peers++
				s.Left = max(s.Left, p.Lacking.Records)
			}
		}
	}
	return s, nil
}
