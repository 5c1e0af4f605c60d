package appliance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"wuamesh/replicate"
)

// renew gets new certificates from the first anchor that answers. Standing
// connections go on with the old ones. While none is reached the request is a
// record, which comes to an anchor in another way: through other nodes, or
// with a bundle.
func (a *Appliance) renew(ctx context.Context) error {
	if done, err := a.takeRenewal(ctx); done || err != nil {
		return err
	}
	self, csr, err := a.auth.request()
	if err != nil {
		return err
	}
	if a.auth.anchorKey() != nil {
		if self.Node, self.Web, err = a.auth.certify(csr, a.db.NodeID()); err != nil {
			return err
		}
		return a.takeCertificates(ctx, self)
	}
	id := a.auth.identity()
	endorsed, err := id.Endorse(csr)
	if err != nil {
		return err
	}
	body, err := json.Marshal(renewal{CSR: csr, Endorsed: endorsed, Node: id.Node.Raw})
	if err != nil {
		return err
	}
	err = errNoAnchor
	for _, anchor := range a.roster.anchorIDs() {
		var b []byte
		if b, err = a.askPeer(ctx, anchor, pathRenew, body); err != nil {
			continue
		}
		var got renewal
		if err = json.NewDecoder(bytes.NewReader(b)).Decode(&got); err == nil {
			self.Node, self.Web = got.Node, got.Web
			return a.takeCertificates(ctx, self)
		}
	}
	err = fmt.Errorf("renew this node's certificates, which end %s: %w", id.Node.NotAfter.Format(time.DateOnly), err)
	return errors.Join(err, a.leaveRenewal(ctx))
}

// takeCertificates goes over to new certificates.
func (a *Appliance) takeCertificates(ctx context.Context, self identityRecord) error {
	var root authorityRecord
	err := a.db.Update(ctx, func(tx *replicate.Tx) (err error) {
		if root, _, err = authorities.find(tx, "root"); err != nil {
			return err
		}
		if _, err := replicate.ParseIdentity(root.Certificate, self.Node, self.Web, self.Key, a.db.NodeID()); err != nil {
			return err
		}
		return identities.put(tx, "self", self)
	})
	if err != nil {
		return fmt.Errorf("take new certificates: %w", err)
	}
	if err := a.auth.load(root, self); err != nil {
		return err
	}
	a.log.InfoContext(ctx, "certificates renewed", "until", a.auth.identity().Node.NotAfter)
	return nil
}

// A renewalRecord asks an anchor for certificates, and is answered in place.
type renewalRecord struct {
	CSR      []byte `json:"csr"`
	Endorsed []byte `json:"endorsed"`
	Old      []byte `json:"old"`            // certificate of the node, DER, whose key endorsed the request
	Node     []byte `json:"node,omitempty"` // certificates, DER, once it is answered
	Web      []byte `json:"web,omitempty"`
}

// leaveRenewal leaves a request for whichever anchor comes to see it.
func (a *Appliance) leaveRenewal(ctx context.Context) error {
	id := a.auth.identity()
	next, csr, err := a.auth.request()
	if err != nil {
		return err
	}
	endorsed, err := id.Endorse(csr)
	if err != nil {
		return err
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		r, asked, err := renewals.find(tx, a.db.NodeID())
		if err != nil || asked && bytes.Equal(r.Old, id.Node.Raw) {
			return err
		}
		return errors.Join(identities.put(tx, "next", next), renewals.put(tx, a.db.NodeID(), renewalRecord{CSR: csr, Endorsed: endorsed, Old: id.Node.Raw}))
	})
}

// answerRenewals certifies, on an anchor, the nodes that left a request.
func (a *Appliance) answerRenewals(ctx context.Context) error {
	if a.auth.anchorKey() == nil {
		return nil
	}
	open := map[string]renewalRecord{}
	err := a.db.View(ctx, func(tx *replicate.Tx) error {
		for r, err := range renewals.all(tx, "") {
			if err != nil {
				return err
			}
			if r.value.Node == nil {
				open[r.id] = r.value
			}
		}
		return nil
	})
	for node, r := range open {
		if r.Node, r.Web, err = a.certifyPeer(node, r); err != nil {
			a.log.WarnContext(ctx, "request for new certificates refused", "node", node, "err", err)
			continue
		}
		err = a.db.Update(ctx, func(tx *replicate.Tx) error {
			if now, _, err := renewals.find(tx, node); err != nil || !bytes.Equal(now.CSR, r.CSR) {
				return err
			}
			return renewals.put(tx, node, r)
		})
		if err != nil {
			return fmt.Errorf("answer a request for new certificates: %w", err)
		}
		a.log.InfoContext(ctx, "certificates renewed for a node that is not reached", "node", node)
	}
	return err
}

// certifyPeer answers the request of a node, whoever passed it on: it is
// endorsed with the key of the old certificate.
func (a *Appliance) certifyPeer(node string, r renewalRecord) (cert, web []byte, err error) {
	id, err := replicate.VerifyEndorsed(a.auth.identity().Root, r.Old, r.CSR, r.Endorsed, time.Now())
	if err != nil || node != "" && id != node {
		return nil, nil, &Problem{Kind: Denied, Msg: "The request for new certificates is not of a node of this mesh.", Err: err}
	}
	if _, gone := a.roster.removal(id); gone {
		return nil, nil, &Problem{Kind: Denied, Msg: "The node was removed from the mesh."}
	}
	return a.auth.certify(r.CSR, id)
}

// takeRenewal takes what an anchor answered to the request that was left, and
// says whether it did.
func (a *Appliance) takeRenewal(ctx context.Context) (done bool, err error) {
	var r renewalRecord
	var next identityRecord
	err = a.db.View(ctx, func(tx *replicate.Tx) (err error) {
		if r, _, err = renewals.find(tx, a.db.NodeID()); err == nil {
			next, _, err = identities.find(tx, "next")
		}
		return err
	})
	if err != nil || r.Node == nil || next.Key == nil {
		return false, err
	}
	next.Node, next.Web = r.Node, r.Web
	bad := a.takeCertificates(ctx, next)
	if bad != nil {
		a.log.WarnContext(ctx, "the answer to the request for certificates is of no use", "err", bad)
	}
	return bad == nil, a.db.Update(ctx, func(tx *replicate.Tx) error {
		return errors.Join(identities.del(tx, "next"), renewals.del(tx, a.db.NodeID()))
	})
}

// renewByBundle takes the answer that a bundle brought, or leaves the request
// that the next one takes along.
func (a *Appliance) renewByBundle(ctx context.Context) error {
	if done, err := a.takeRenewal(ctx); done || err != nil {
		return err
	}
	if a.auth.anchorKey() != nil || !a.auth.due(a.auth.identity()) {
		return nil
	}
	return a.leaveRenewal(ctx)
}
