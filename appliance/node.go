package appliance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"wuamesh/replicate"
)

// A NodeRow is one node of the mesh as lists show it, seen from the node that
// answers.
type NodeRow struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Site      string    `json:"site"`
	Self      bool      `json:"self,omitempty"` // the one that answers
	Addrs     []string  `json:"addrs"`
	URL       string    `json:"url"` // of its pages
	Internet  bool      `json:"internet"`
	Version   string    `json:"version"`
	Anchor    bool      `json:"anchor"`
	Joined    time.Time `json:"joined"`
	By        string    `json:"by"`
	Reach     string    `json:"reach"` // "self", "direct", "relayed", "away", "removed"
	Through   string    `json:"through,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	Contact   time.Time `json:"contact,omitzero"`
	RoundTrip int64     `json:"round_trip_us,omitempty"` // microseconds
	Lacking   NodeLag   `json:"lacking"`                 // what it has and this node lacks
	Unsent    NodeLag   `json:"unsent"`                  // what this node has and it lacks
	OffsetMS  int64     `json:"clock_offset_ms"`         // its clock minus this node's
	Removed   time.Time `json:"removed,omitzero"`
	RemovedBy string    `json:"removed_by,omitempty"`
	Problems  []string  `json:"problems,omitempty"`

	FilesIn     int64 `json:"files_in"`      // bytes of update files it sent this node since that started
	FilesOut    int64 `json:"files_out"`     // and took from it
	FilesInNow  int64 `json:"files_in_now"`  // bytes per second
	FilesOutNow int64 `json:"files_out_now"` // bytes per second
}

// A NodeLag is how far one node is behind another; Known is false while there
// was no word of it.
type NodeLag struct {
	Known   bool    `json:"known"`
	Records uint64  `json:"records"`
	Seconds float64 `json:"seconds"`
}

func lagOf(l replicate.Lag) NodeLag { return NodeLag{l.Known, l.Records, l.For.Seconds()} }

// Nodes lists the nodes of the mesh by name, removed ones last.
func (a *Appliance) Nodes(context.Context) ([]NodeRow, error) { return a.nodeRows(), nil }

func (a *Appliance) nodeRows() []NodeRow {
	peers := map[string]replicate.Peer{}
	var own []string
	if mesh := a.mesh.Load(); mesh != nil {
		own = mesh.Problems()
		for _, p := range mesh.Peers() {
			peers[p.NodeID] = p
		}
	}
	r := a.roster
	r.mu.RLock()
	all, gone := maps.Clone(r.nodes), maps.Clone(r.removed)
	r.mu.RUnlock()
	if m := a.member.Load(); m != nil {
		if _, ok := all[a.db.NodeID()]; !ok {
			all[a.db.NodeID()] = m.Self
		}
	}
	list, faults, links := []NodeRow{}, a.folder.share.faultList(time.Now()), a.folder.share.links()
	for id, n := range all {
		row := NodeRow{
			ID: id, Name: n.Name, Site: n.Site, Addrs: n.Addrs, Internet: n.Internet, Version: n.Version,
			Joined: n.Joined, By: n.By, Anchor: r.isAnchor(id), Reach: string(replicate.Away),
			URL:     urlOf(n, peers[id].Addr),
			FilesIn: links[id].In, FilesOut: links[id].Out, FilesInNow: links[id].InRate, FilesOutNow: links[id].OutRate,
		}
		if p, ok := peers[id]; ok {
			row.describe(p)
			if via, ok := all[p.Through]; ok {
				row.Through = via.Name
			}
		}
		if id == a.db.NodeID() {
			row.Self, row.Reach, row.Problems = true, "self", own
		}
		if why := a.certificateProblem(id); why != "" {
			row.Problems = append(slices.Clip(row.Problems), why)
		}
		if at := links[id].Silent; !at.IsZero() {
			row.Problems = append(slices.Clip(row.Problems), fmt.Sprintf("It sends %s nothing of the files it is asked for, the last time at %s: they come from other nodes. Look at the line between the two, and at its disk.", a.NodeName(), clock(at)))
		}
		for _, f := range faults {
			if f.of == id {
				row.Problems = append(slices.Clip(row.Problems), f.fact+" "+f.cause)
			}
		}
		if rem, ok := gone[id]; ok {
			row.Reach, row.Removed, row.RemovedBy = "removed", rem.At, rem.By
			if row.Self {
				row.Problems = append(row.Problems, removedProblem(rem))
			}
		}
		list = append(list, row)
	}
	slices.SortFunc(list, func(x, y NodeRow) int {
		if x.Removed.IsZero() != y.Removed.IsZero() {
			if x.Removed.IsZero() {
				return -1
			}
			return 1
		}
		return strings.Compare(x.Name+x.ID, y.Name+y.ID)
	})
	diagnose(list)
	return list
}

func removedProblem(rem removalRecord) string {
	return fmt.Sprintf("This node was removed from the mesh by %s on %s. It takes no part in it any more. To take part again, empty its data directory and join with a new token.", rem.By, rem.At.UTC().Format("2 Jan 15:04 UTC"))
}

func (row *NodeRow) describe(p replicate.Peer) {
	row.Reach, row.Since, row.Contact, row.RoundTrip = string(p.Reach), p.Since, p.Contact, p.RoundTrip.Microseconds()
	row.Lacking, row.Unsent, row.OffsetMS, row.Problems = lagOf(p.Lacking), lagOf(p.Unsent), p.Offset.Milliseconds(), p.Problems
}

// nodeByName finds a node by its id or its name; of several with one name,
// which two sides of a cut may have let in, only the id will do.
func (a *Appliance) nodeByName(name string) (string, nodeRecord, error) {
	living := a.roster.living()
	if n, ok := living[name]; ok {
		return name, n, nil
	}
	var found []string
	for id, n := range living {
		if strings.EqualFold(n.Name, name) {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 0:
		return "", nodeRecord{}, &Problem{Kind: NotFound, Msg: fmt.Sprintf("There is no node %q in the mesh.", name), Hint: "wuamesh node list shows the nodes."}
	case 1:
		return found[0], living[found[0]], nil
	}
	return "", nodeRecord{}, &Problem{Kind: Conflict, Msg: fmt.Sprintf("%d nodes are called %s.", len(found), name), Hint: "Name one by its id: " + strings.Join(found, ", ") + "."}
}

// RemoveNode takes a node out of the mesh for good: every node refuses it
// from when it hears of it, and so are the certificates that it gave to hosts,
// which get others from any other node by themselves.
func (a *Appliance) RemoveNode(ctx context.Context, by Actor, name, reason string) (NodeRow, error) {
	if err := by.need(Owner); err != nil {
		return NodeRow{}, err
	}
	id, n, err := a.nodeByName(name)
	if err != nil {
		return NodeRow{}, err
	}
	if id == a.db.NodeID() {
		return NodeRow{}, &Problem{Kind: Conflict, Msg: "A node cannot remove itself.", Hint: "Remove it on another node. To start over here, stop wuamesh and empty its data directory."}
	}
	if a.roster.isAnchor(id) && len(a.roster.anchorIDs()) == 1 {
		return NodeRow{}, &Problem{Kind: Conflict, Msg: n.Name + " is the only anchor: without one nobody can join, and no certificate is renewed.", Hint: "Make another node one first: run wuamesh node anchor there, with the recovery passphrase."}
	}
	if len(reason) > 200 {
		return NodeRow{}, invalid("reason", "The reason is longer than 200 characters.")
	}
	wasAnchor := a.roster.isAnchor(id)
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		if err := removals.put(tx, id, removalRecord{n.Name, reason, editRecord{by.Name, tx.Now()}}); err != nil {
			return err
		}
		if err := addGossipKey(tx, by); err != nil { // it knows the present one
			return err
		}
		return a.audit(tx, by, "remove node", "node "+n.Name, strings.Join(n.Addrs, " "), reason)
	})
	if err != nil {
		return NodeRow{}, fmt.Errorf("remove node %s: %w", n.Name, err)
	}
	row := NodeRow{ID: id, Name: n.Name, Site: n.Site, Reach: "removed", Removed: time.Now(), RemovedBy: by.Name}
	if wasAnchor {
		row.Problems = []string{n.Name + " was an anchor: its disk holds the mesh's root key. If it was stolen, whoever reads the disk can make certificates for new nodes; watch the list of nodes, and found a new mesh when you can."}
	}
	return row, nil
}

// NewRecovery makes a recovery passphrase, under which the mesh's root key is
// kept from now on; the one before is worth nothing. It is shown this once.
func (a *Appliance) NewRecovery(ctx context.Context, by Actor) (passphrase string, err error) {
	if err := by.need(Owner); err != nil {
		return "", err
	}
	root := a.auth.anchorKey()
	if root == nil {
		return "", errNoAnchor
	}
	key, err := root.Key()
	if err != nil {
		return "", err
	}
	passphrase = replicate.NewPassphrase()
	sealed, err := replicate.Seal(key, passphrase)
	if err != nil {
		return "", err
	}
	return passphrase, a.db.Update(ctx, func(tx *replicate.Tx) error {
		if err := seals.put(tx, "root", sealRecord{sealed, editRecord{by.Name, tx.Now()}}); err != nil {
			return err
		}
		return a.audit(tx, by, "make recovery passphrase", "mesh", "", "")
	})
}

// renamed are the node's answers with another name and site, where those are
// given and the configuration file leaves them open.
func (a *Appliance) renamed(name, site string) (Answers, error) {
	n, decided := a.Answers()
	now := n
	if name != "" {
		if site == "" && n.Site == n.Name {
			n.Site = name
		}
		n.Name = name
	}
	if site != "" {
		n.Site = site
	}
	for key, differs := range map[string]bool{"name": n.Name != now.Name, "site": n.Site != now.Site} {
		if differs && decided[key] {
			return n, &Problem{Kind: Conflict, Field: key, Msg: fmt.Sprintf("The configuration file of this node sets %s, which wins over --%s.", key, key), Hint: "Change it there, or leave --" + key + " out."}
		}
	}
	return n, nil
}

// Found founds a mesh with this node, and makes its recovery passphrase.
func (a *Appliance) Found(ctx context.Context, by Actor, name, site string) (passphrase string, err error) {
	if err := by.need(Owner); err != nil {
		return "", err
	}
	if a.Member() {
		return "", &Problem{Kind: Conflict, Code: "WM-610", Msg: fmt.Sprintf("This node is in a mesh already, of %d nodes.", len(a.roster.living())), Hint: "wuamesh node list shows it; wuamesh node passphrase makes a new recovery passphrase."}
	}
	n, err := a.renamed(name, site)
	if err != nil {
		return "", err
	}
	if now, _ := a.Answers(); n != now {
		if err := a.Answer(ctx, by, n); err != nil {
			return "", err
		}
	}
	if err := a.ensureFounded(ctx, by); err != nil {
		return "", err
	}
	return a.NewRecovery(ctx, by)
}

// BecomeAnchor makes this node an anchor: it can let nodes in and renew their
// certificates. The passphrase opens the root key, which every node holds
// sealed.
func (a *Appliance) BecomeAnchor(ctx context.Context, by Actor, passphrase string) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	if a.auth.anchorKey() != nil {
		return &Problem{Kind: Conflict, Msg: a.NodeName() + " is an anchor already."}
	}
	s, ok := a.roster.seal()
	if !ok {
		return &Problem{Kind: Conflict, Msg: "This mesh has no recovery passphrase yet.", Hint: "Run wuamesh node passphrase on an anchor, and keep what it prints."}
	}
	if err := a.logins.try("recovery", by.Address); err != nil {
		return err
	}
	key, err := replicate.Unseal(s.Sealed, passphrase)
	if err != nil {
		return &Problem{Kind: Denied, Field: "passphrase", Msg: "The recovery passphrase does not fit.", Hint: "It was shown when the mesh was founded, or by wuamesh node passphrase since; only the last one is good.", Err: err}
	}
	a.logins.worked("recovery", by.Address)
	rec := authorityRecord{Key: key, Certificate: a.auth.identity().Root.Raw}
	if _, err := replicate.ParseRoot(rec.Certificate, rec.Key); err != nil {
		return err
	}
	return a.setAnchor(ctx, by, rec)
}

// ResignAnchor takes the root key off this node.
func (a *Appliance) ResignAnchor(ctx context.Context, by Actor) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	switch {
	case a.auth.anchorKey() == nil:
		return &Problem{Kind: Conflict, Msg: a.NodeName() + " is no anchor."}
	case len(a.roster.anchorIDs()) < 2:
		return &Problem{Kind: Conflict, Msg: a.NodeName() + " is the only anchor.", Hint: "Make another node one first."}
	}
	return a.setAnchor(ctx, by, authorityRecord{Certificate: a.auth.identity().Root.Raw})
}

func (a *Appliance) setAnchor(ctx context.Context, by Actor, rec authorityRecord) error {
	id := a.db.NodeID()
	var self identityRecord
	err := a.db.Update(ctx, func(tx *replicate.Tx) (err error) {
		if self, _, err = identities.find(tx, "self"); err != nil {
			return err
		}
		if err := authorities.put(tx, "root", rec); err != nil {
			return err
		}
		what := "resign as anchor"
		if len(rec.Key) > 0 {
			what, err = "become anchor", anchors.put(tx, id, editRecord{by.Name, tx.Now()})
		} else {
			err = anchors.del(tx, id)
		}
		return errors.Join(err, a.audit(tx, by, what, "node "+a.NodeName(), "", ""))
	})
	if err != nil {
		return err
	}
	return a.auth.load(rec, self)
}

// RotateGossipKey makes a new gossip key. It is used some minutes later, when
// every node has it, and the old one is understood for a day.
func (a *Appliance) RotateGossipKey(ctx context.Context, by Actor) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	if err := a.ensureFounded(ctx, by); err != nil {
		return err
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		if err := addGossipKey(tx, by); err != nil {
			return err
		}
		return a.audit(tx, by, "rotate gossip key", "mesh", "", "")
	})
}

// keepMembership renews what ends: the node's certificates, by an anchor that
// is reached; and forgets gossip keys that nobody needs.
func (a *Appliance) keepMembership(ctx context.Context) error {
	if err := a.announce(ctx); err != nil {
		return err
	}
	if _, old := a.roster.gossipKeys(time.Now()); len(old) > 0 {
		err := a.db.Update(ctx, func(tx *replicate.Tx) error {
			for _, id := range old {
				if err := gossips.del(tx, id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("forget old gossip keys: %w", err)
		}
	}
	if err := a.answerRenewals(ctx); err != nil {
		return err
	}
	if !a.member.Load().Synced || !a.auth.due(a.auth.identity()) {
		return nil
	}
	return a.renew(ctx)
}

// makeJoinToken makes the text of a join token and what is kept of it: who
// redeems it, and where the new node asks.
func (a *Appliance) makeJoinToken(ctx context.Context, by Actor, o TokenOptions, expires time.Time) (rec tokenRecord, text string, err error) {
	if err := a.ensureFounded(ctx, by); err != nil {
		return rec, "", err
	}
	anchor, err := a.reachableAnchor()
	if err != nil {
		return rec, "", err
	}
	t := replicate.JoinToken{Secret: replicate.NewSecret(), Fingerprint: replicate.Fingerprint(a.auth.identity().Root), Expires: expires}
	if len(o.Addrs) > 8 {
		return rec, "", invalid("address", "A join token carries at most 8 addresses.")
	}
	for _, addr := range o.Addrs {
		if _, _, err := net.SplitHostPort(addr); err != nil || len(addr) > 200 {
			return rec, "", invalid("address", "%.80q is not an address such as \"10.0.0.5:443\".", addr)
		}
	}
	t.Addrs = o.Addrs
	if len(t.Addrs) == 0 { // this node, the anchor, and whoever else is connected
		t.Addrs = append(t.Addrs, a.addresses()...)
		if n, ok := a.roster.node(anchor); ok {
			t.Addrs = append(t.Addrs, n.Addrs...)
		}
		t.Addrs = uniq(t.Addrs)
		t.Addrs = t.Addrs[:min(len(t.Addrs), 6)]
	}
	rec = tokenRecord{Anchor: anchor, TokenRow: TokenRow{ID: joinTokenID(t.Secret[:]), Left: 1}}
	return rec, t.String(), nil
}

// reachableAnchor is the anchor that will redeem a token: this node, or one
// that it reaches now.
func (a *Appliance) reachableAnchor() (string, error) {
	if a.auth.anchorKey() != nil {
		return a.db.NodeID(), nil
	}
	ids := a.roster.anchorIDs()
	if mesh := a.mesh.Load(); mesh != nil {
		for _, p := range mesh.Peers() {
			if slices.Contains(ids, p.NodeID) && p.Reach != replicate.Away {
				return p.NodeID, nil
			}
		}
	}
	return "", &Problem{
		Kind: Unavailable, Msg: a.NodeName() + " reaches no anchor now, and only an anchor can let a node in.",
		Hint: "Try again when the line is up; wuamesh node list shows the anchors. If all are lost, run wuamesh node anchor here with the recovery passphrase.",
	}
}

func uniq(list []string) (out []string) {
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
