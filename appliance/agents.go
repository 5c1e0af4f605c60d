package appliance

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
)

// How long agents wait between check-ins: idle, and while something moves.
// Commands and new rules do not wait: they go over the stream of events.
const (
	checkinIdle = 15 * time.Minute
	checkinBusy = 30 * time.Second
)

// answer writes what a handler of the agents' protocol returns.
func (a *Appliance) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err == nil {
		if v == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v)
		return
	}
	var field *agentproto.FieldError
	var large *agentproto.TooLargeError
	switch {
	case errors.As(err, &field):
		err = &Problem{Kind: Invalid, Field: field.Field, Msg: "The message is not valid: " + field.Error() + ".", Hint: "Nothing of it was stored.", Err: err}
	case errors.As(err, &large):
		err = &Problem{Kind: TooLarge, Msg: upper(large.Error()) + ".", Hint: "Nothing of it was stored.", Err: err}
	}
	problem, ok := AsProblem(err)
	if !ok {
		if r.Context().Err() == nil {
			a.log.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "err", err)
		}
		agentproto.WriteProblem(w, agentproto.Problem{Title: "Something went wrong on this node.", Status: http.StatusInternalServerError, Hint: "The node's log has the details."})
		return
	}
	a.log.WarnContext(r.Context(), "request refused", "path", r.URL.Path, "err", err)
	agentproto.WriteProblem(w, agentproto.Problem{Title: problem.Msg, Status: problem.Kind.Status(), Hint: problem.Hint, Field: problem.Field, Code: problem.Code})
}

// enroll gives a certificate to a host that shows a token or was approved.
func (a *Appliance) enroll(w http.ResponseWriter, r *http.Request) {
	if a.sentAway(w, r) {
		return
	}
	var req agentproto.EnrollRequest
	if err := agentproto.DecodeRequest(r, agentproto.MaxEnrollBytes, &req); err != nil {
		a.answer(w, r, nil, err)
		return
	}
	csr, err := x509.ParseCertificateRequest(req.CSR)
	if err == nil {
		err = csr.CheckSignature()
	}
	if key, ok := publicKey(csr); err != nil || !ok || key.Curve != elliptic.P256() {
		a.answer(w, r, nil, &Problem{Kind: Invalid, Field: "csr", Msg: "The certificate request is not sound: it wants an ECDSA key on P-256 and its own signature.", Err: err})
		return
	}
	resp, err := a.admit(r.Context(), req, csr)
	a.answer(w, r, resp, err)
}

func publicKey(csr *x509.CertificateRequest) (*ecdsa.PublicKey, bool) {
	if csr == nil {
		return nil, false
	}
	k, ok := csr.PublicKey.(*ecdsa.PublicKey)
	return k, ok
}

// admit decides about an enrolment. A host that is known keeps its record
// only with the key it has; another key is a claim that an admin decides.
func (a *Appliance) admit(ctx context.Context, req agentproto.EnrollRequest, csr *x509.CertificateRequest) (resp agentproto.EnrollResponse, err error) {
	key, id := keyOf(csr.RawSubjectPublicKeyInfo), string(req.Host)
	waiting := false
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		h, known, err := hosts.find(tx, id)
		if err != nil {
			return err
		}
		if known && h.Key == key && !h.Waiting {
			return nil // renews
		}
		by := ""
		if req.Token != "" {
			if by, err = useEnrollToken(tx, req.Token); err != nil {
				return err
			}
		}
		switch {
		case known && h.Key != key && !h.Waiting:
			waiting = true
			if h.Claim == key {
				return nil
			}
			h.Claim = key
		case by != "":
			h = hostRecord{Facts: req.Facts, Agent: req.Agent, Key: key, Enrolled: tx.Now(), By: "token " + by, Settings: rules.DefaultSettings()}
		default:
			waiting = true
			if known && h.Key == key {
				return nil
			}
			if a.cat.waiting() > 1000 {
				return &Problem{Kind: TooMany, Msg: "1,000 hosts wait for approval already.", Hint: "Approve or remove them, or enrol with a token."}
			}
			h = hostRecord{Facts: req.Facts, Agent: req.Agent, Key: key, Waiting: true, Enrolled: tx.Now(), Settings: rules.DefaultSettings()}
		}
		if err := hosts.put(tx, id, h); err != nil {
			return err
		}
		return a.audit(tx, Actor{Name: req.Facts.Name}, map[bool]string{true: "ask to enrol", false: "enrol"}[waiting], "host "+req.Facts.Name, "", h.By)
	})
	if err != nil {
		return resp, err
	}
	if waiting {
		return agentproto.EnrollResponse{Pending: true, Wait: agentproto.Duration(time.Minute), Node: a.NodeName()}, nil
	}
	cert, node, err := a.auth.sign(csr, req.Host)
	return agentproto.EnrollResponse{Certificate: cert, Issuer: node.Node.Raw, Authority: node.Root.Raw, Node: a.NodeName()}, err
}

func (c *catalogue) waiting() (n int) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, h := range c.hosts {
		if h.Waiting {
			n++
		}
	}
	return n
}

// removed says that this node was removed from its mesh, by the record of it
// or by what its peers say.
func (a *Appliance) removed() bool {
	_, gone := a.roster.removal(a.ID())
	mesh := a.mesh.Load()
	return gone || mesh != nil && mesh.Removed()
}

// sentAway answers hosts of a node that was removed from the mesh: they ask
// the next one, where their key is enough to get in. It names the others,
// because a host that came for the first time knows none.
func (a *Appliance) sentAway(w http.ResponseWriter, r *http.Request) bool {
	if !a.removed() {
		return false
	}
	agentproto.WriteProblem(w, agentproto.Problem{
		Status: http.StatusBadGateway, Title: a.NodeName() + " was removed from the mesh and serves no hosts any more.", Hint: "The agent asks the other nodes by itself.",
		Nodes: a.otherNodes(r.RemoteAddr),
	})
	return true
}

// agent lets in only the host whose certificate was shown, while its record
// stands. The TLS handshake checked the chain.
func (a *Appliance) agent(h func(http.ResponseWriter, *http.Request, agentproto.HostID)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if a.sentAway(w, r) {
			return
		}
		cert := r.TLS.PeerCertificates[0]
		id := agentproto.HostID(cert.Subject.CommonName)
		if rem, gone := a.letInByRemoved(r.TLS.PeerCertificates); gone {
			a.answer(w, r, nil, &Problem{Kind: NoLogin, Msg: fmt.Sprintf("The certificate of this host is of node %s, which was removed from the mesh.", rem.Name), Hint: "The agent asks for another by itself, with the key it has."})
			return
		}
		if !a.cat.contact(id, keyOf(cert.RawSubjectPublicKeyInfo)) {
			a.answer(w, r, nil, &Problem{Kind: NoLogin, Msg: "This host was removed, or another machine has taken its place.", Hint: "Enrol it again."})
			return
		}
		h(w, r, id)
	}
}

// contact says whether the host may speak, and notes that it did.
func (c *catalogue) contact(id agentproto.HostID, key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosts[id]
	if h == nil || h.Waiting || h.Key != key {
		return false
	}
	h.seen = time.Now()
	return true
}

// checkin takes what the agent has and answers with what is new.
func (a *Appliance) checkin(w http.ResponseWriter, r *http.Request, id agentproto.HostID) {
	var k agentproto.Checkin
	if err := agentproto.DecodeRequest(r, agentproto.MaxCheckinBytes, &k); err != nil {
		a.answer(w, r, nil, err)
		return
	}
	if err := a.keepFacts(r.Context(), id, k); err != nil {
		a.answer(w, r, nil, err)
		return
	}
	next := checkinIdle
	resp := agentproto.CheckinResponse{Node: a.NodeName(), Cab: a.folder.cabRef(), Commands: a.cat.waitingFor(id)}
	at := placeOf(k.Facts, r.RemoteAddr)
	resp.Nodes, resp.Placed, resp.Only = a.nodesFor(at, r.Host)
	a.cat.mu.Lock()
	h := a.cat.hosts[id]
	if h == nil {
		a.cat.mu.Unlock()
		a.answer(w, r, nil, &Problem{Kind: NoLogin, Msg: "This host was removed meanwhile."})
		return
	}
	p := a.cat.policyOf(h)
	if k.Doing != "" || a.cat.waits(h) {
		next = checkinBusy
	}
	next = next*9/10 + rand.N(next/5)
	h.doing, h.due, h.from = k.Doing, time.Now().Add(next), r.RemoteAddr
	mark := routeMark(a.cat.routes(), at)
	resp.Resend = h.status.Hash != k.Statuses
	a.cat.mu.Unlock()
	resp.PolicyHash = p.hash
	if p.hash != k.Policy {
		resp.Policy = &p.Policy
	}
	resp.Next, resp.Now = agentproto.Duration(next), time.Now().UTC().Truncate(time.Millisecond)
	a.streams.note(id, p.hash+mark)
	a.watch.tell("hosts")
	a.answer(w, r, resp, nil)
}

// keepFacts stores what a host says about itself, when it is news.
func (a *Appliance) keepFacts(ctx context.Context, id agentproto.HostID, k agentproto.Checkin) error {
	same := func(h hostRecord) bool {
		was, _ := json.Marshal([]any{h.Facts, h.Agent, h.Settings, h.Warnings, h.Errors, h.Clock})
		is, _ := json.Marshal([]any{k.Facts, k.Agent, k.Settings, k.Warnings, k.Errors, k.Clock})
		return bytes.Equal(was, is)
	}
	a.cat.mu.RLock()
	h := a.cat.hosts[id]
	known := h != nil && same(h.hostRecord)
	a.cat.mu.RUnlock()
	if known {
		return nil
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		h, ok, err := hosts.find(tx, string(id))
		if err != nil || !ok || same(h) {
			return err
		}
		h.Facts, h.Agent, h.Settings, h.Warnings, h.Errors, h.Clock = k.Facts, k.Agent, k.Settings, k.Warnings, k.Errors, k.Clock
		return hosts.put(tx, string(id), h)
	})
}

// report stores statuses, durably, and then descriptions that were asked for.
func (a *Appliance) report(w http.ResponseWriter, r *http.Request, id agentproto.HostID) {
	var rep agentproto.Report
	if err := agentproto.DecodeRequest(r, agentproto.MaxReportBytes, &rep); err != nil {
		a.answer(w, r, nil, err)
		return
	}
	if rep.Scan != nil && rep.Scan.Error == "" && rep.Hash != agentproto.HashStatuses(rep.Statuses) {
		a.answer(w, r, nil, &agentproto.FieldError{Field: "hash", Msg: "it is not that of the statuses"})
		return
	}
	if rep.Scan != nil {
		if err := a.keepStatuses(r.Context(), id, rep); err != nil {
			a.answer(w, r, nil, err)
			return
		}
	}
	if len(rep.Updates) > 0 {
		if err := a.keepDescriptions(r.Context(), id, rep.Updates); err != nil {
			a.answer(w, r, nil, err)
			return
		}
	}
	a.folder.lookSoon()
	a.answer(w, r, agentproto.ReportResponse{Lacks: a.cat.lacks(id)}, nil)
}

// keepStatuses stores the outcome of a scan. One that failed keeps the
// statuses of the last good one.
func (a *Appliance) keepStatuses(ctx context.Context, id agentproto.HostID, rep agentproto.Report) error {
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		rec, _, err := statuses.find(tx, string(id))
		if err != nil {
			return err
		}
		rec.Scan, rec.Node = rep.Scan, a.db.NodeID()
		if rep.Scan.Error == "" {
			rec.Good, rec.Hash, rec.Statuses = tx.Now(), rep.Hash, rep.Statuses
		}
		return statuses.put(tx, string(id), rec)
	})
	if err != nil {
		return fmt.Errorf("keep the statuses of %s: %w", id, err)
	}
	a.folder.askedAnew(rep.Statuses)
	return nil
}

// lacks are the updates of a host that nobody described yet.
func (c *catalogue) lacks(id agentproto.HostID) []agentproto.UpdateRef {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var list []agentproto.UpdateRef
	if h := c.hosts[id]; h != nil {
		for s := range c.statusesOf(h) {
			if u := c.updates[s.ID]; u == nil || u.revisions[s.Revision].Title == "" {
				list = append(list, agentproto.UpdateRef{ID: s.ID, Revision: s.Revision})
			}
		}
	}
	return list[:min(len(list), agentproto.MaxUpdates)]
}

// keepDescriptions stores what the node lacks of what the host's own statuses
// name. Nothing that is known is rewritten: a host that says otherwise is a
// problem an admin sees at the update.
func (a *Appliance) keepDescriptions(ctx context.Context, id agentproto.HostID, list []agentproto.Update) error {
	named := map[agentproto.UpdateRef]bool{}
	a.cat.mu.RLock()
	if h := a.cat.hosts[id]; h != nil {
		for s := range a.cat.statusesOf(h) {
			named[agentproto.UpdateRef{ID: s.ID, Revision: s.Revision}] = true
		}
	}
	a.cat.mu.RUnlock()
	for i, u := range list {
		if !named[agentproto.UpdateRef{ID: u.ID, Revision: u.Revision}] {
			return &agentproto.FieldError{Field: fmt.Sprintf("updates[%d].id", i), Msg: fmt.Sprintf("%s revision %d is not among the host's statuses", u.ID, u.Revision)}
		}
	}
	for chunk := range slices.Chunk(list, 200) { // change sets are bounded
		err := a.db.Update(ctx, func(tx *replicate.Tx) error {
			for _, u := range chunk {
				if err := a.keepDescription(tx, id, u); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("keep what %s describes: %w", id, err)
		}
	}
	return nil
}

func (a *Appliance) keepDescription(tx *replicate.Tx, id agentproto.HostID, u agentproto.Update) error {
	key := fmt.Sprintf("%s/%d", u.ID, u.Revision)
	rec, known, err := updates.find(tx, key)
	if err != nil {
		return err
	}
	var problems []string
	u.Files, problems = a.sound(u.Files)
	if known {
		was, _ := json.Marshal(rec.Files)
		is, _ := json.Marshal(u.Files)
		if bytes.Equal(was, is) || len(rec.Problems) >= 10 {
			return nil
		}
		rec.Problems = append(rec.Problems, fmt.Sprintf("Host %s names other files or digests than host %s did; those of the first hold.", id, rec.From))
		return updates.put(tx, key, rec)
	}
	return updates.put(tx, key, updateRecord{Update: u, From: id, Problems: problems})
}

// sound drops files that may not be fetched, and says why: a URL outside of
// Microsoft's hosts, a digest that is not the one in Microsoft's own name, no
// digest at all.
func (a *Appliance) sound(list []agentproto.File) (files []agentproto.File, problems []string) {
	for _, f := range list {
		name, sum, err := microsoft.NameFromURL(f.URL)
		if err == nil {
			_, err = a.source.Load().CheckURL(f.URL)
		}
		switch {
		case err != nil:
			problems = append(problems, "A file is left out: "+err.Error()+".")
			continue
		case !strings.EqualFold(name, f.Name):
			problems = append(problems, fmt.Sprintf("A file is left out: it is called %s and its URL ends in %s.", f.Name, name))
			continue
		case sum != nil && f.SHA1 != "" && hex.EncodeToString(sum) != f.SHA1:
			problems = append(problems, fmt.Sprintf("File %s is left out: its reported SHA-1 is not the one in Microsoft's name.", f.Name))
			continue
		case sum == nil && f.SHA1 == "" && f.SHA256 == "":
			problems = append(problems, fmt.Sprintf("File %s is left out: no digest of it is known.", f.Name))
			continue
		}
		if sum != nil {
			f.SHA1 = hex.EncodeToString(sum)
		}
		files = append(files, f)
	}
	return files, problems
}

// results notes what became of commands and installs.
func (a *Appliance) results(w http.ResponseWriter, r *http.Request, id agentproto.HostID) {
	var res agentproto.Results
	if err := agentproto.DecodeRequest(r, agentproto.MaxResultsBytes, &res); err != nil {
		a.answer(w, r, nil, err)
		return
	}
	err := a.db.Update(r.Context(), func(tx *replicate.Tx) error {
		if err := a.keepOutcomes(tx, id, res.Commands); err != nil {
			return err
		}
		return a.keepInstalls(tx, id, res.Installs)
	})
	if err == nil {
		for _, n := range res.Installs {
			if n.HResult == 0 {
				a.installed.Add(1)
			}
		}
	}
	a.answer(w, r, nil, err)
}

// keepInstalls puts the outcome of installs into the statuses at once; the
// report after the rescan confirms them.
func (a *Appliance) keepInstalls(tx *replicate.Tx, id agentproto.HostID, list []agentproto.InstallResult) error {
	if len(list) == 0 {
		return nil
	}
	rec, ok, err := statuses.find(tx, string(id))
	if err != nil || !ok {
		return err
	}
	for _, n := range list {
		for i := range rec.Statuses {
			if s := &rec.Statuses[i]; s.ID == n.ID {
				s.HResult, s.Tried = n.HResult, n.At
				if n.HResult == 0 {
					s.Installed, s.Restart = !n.Restart, n.Restart
				}
			}
		}
	}
	rec.Hash = "" // the agent's own hash is of what it sends next
	return statuses.put(tx, string(id), rec)
}

// events is the stream over which commands and news of rules come at once.
func (a *Appliance) events(w http.ResponseWriter, r *http.Request, id agentproto.HostID) {
	s, leave := a.streams.join(id)
	defer leave()
	a.watch.tell("hosts")
	defer a.watch.tell("hosts")
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	rc := http.NewResponseController(w)
	for _, cmd := range a.cat.waitingFor(id) {
		if agentproto.WriteEvent(w, "command", cmd) != nil {
			return
		}
	}
	fmt.Fprint(w, ": hello\n\n")
	beat := time.NewTicker(30 * time.Second)
	defer beat.Stop()
	for {
		// Written within 20 seconds or given up; between events there is none.
		if rc.SetWriteDeadline(time.Now().Add(20*time.Second)) != nil || rc.Flush() != nil || rc.SetWriteDeadline(time.Time{}) != nil {
			return
		}
		var err error
		select {
		case <-r.Context().Done():
			return
		case <-s.ended:
			return
		case e := <-s.events:
			err = agentproto.WriteEvent(w, e.name, e.data)
		case <-beat.C:
			a.cat.contact(id, keyOf(r.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo))
			_, err = fmt.Fprint(w, ": here\n\n")
		}
		if err != nil {
			return
		}
	}
}
