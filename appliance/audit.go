package appliance

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"wuamesh/replicate"
)

// audit writes one line of the audit log, in the transaction of what it is
// about. Keys fall with time, so that a scan finds the newest first.
func (a *Appliance) audit(tx *replicate.Tx, by Actor, action, object, before, after string) error {
	var tail [4]byte
	rand.Read(tail[:])
	id := fmt.Sprintf("%016x-%s", ^uint64(tx.Version().Clock), hex.EncodeToString(tail[:]))
	return audits.put(tx, id, AuditEntry{
		ID: id, At: tx.Now(), Actor: by.Name, Address: by.Address, Node: a.NodeName(),
		Action: action, Object: object, Before: before, After: after,
	})
}

// Audit lists the audit log, newest first; object narrows it to one.
func (a *Appliance) Audit(ctx context.Context, object string, p Page) (list []AuditEntry, next string, err error) {
	err = a.db.View(ctx, func(tx *replicate.Tx) error {
		for r, err := range audits.all(tx, "") {
			if err != nil {
				return err
			}
			if r.id <= p.After || object != "" && r.value.Object != object {
				continue
			}
			if len(list) == p.limit() {
				next = list[len(list)-1].ID
				return nil
			}
			list = append(list, r.value)
		}
		return nil
	})
	if err != nil {
		return nil, "", fmt.Errorf("read the audit log: %w", err)
	}
	return list, next, nil
}

func (p Page) limit() int {
	if p.Limit < 1 || p.Limit > 500 {
		return 50
	}
	return p.Limit
}
