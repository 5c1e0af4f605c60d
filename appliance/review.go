package appliance

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"wuamesh/replicate"
)

// A node that was cut off for more than two months, or whose clock was far
// off, takes a fresh copy of the mesh instead of merging. What was changed on
// it meanwhile and is nowhere else is kept for review. What admins meant waits
// for one of them; facts and what cannot contradict anything are sorted here.

// A ReviewRow is a change that was made on this node and is kept for review.
type ReviewRow struct {
	ID     string    `json:"id"`
	Object string    `json:"object"` // as the audit log names it
	Text   string    `json:"text"`
	By     string    `json:"by"`
	At     time.Time `json:"at"`
	Now    string    `json:"now,omitempty"` // what holds now; empty for nothing
	// Unread says that a newer version of wuamesh wrote it: it can be discarded
	// alone.
	Unread bool `json:"unread,omitempty"`
}

// A fate is what becomes of a change that is kept for review.
type fate int

const (
	decide fate = iota // an admin does
	apply              // made again at once
	drop               // said again by those who know it, or over
)

// fateOf says what becomes of a change. there says that the mesh has a record
// of that key.
func fateOf(r replicate.Record, there bool) fate {
	kind, _, _ := strings.Cut(r.Key, "/")
	if r.Format != 0 {
		return decide
	}
	switch kind {
	case "status", "presence", "shelf", "folder", "lease", "gossip":
		return drop
	case "removed", "audit", "meeting", "version", "profile-version", "group-version": // for ever, or under a name of their own
		return apply
	case "token":
		if r.Deleted || !there { // revoked here, or made here
			return apply
		}
		return drop
	case "stop": // stopped here: stop wins
		switch {
		case r.Deleted && there:
			return decide
		case !r.Deleted:
			return apply
		}
		return drop
	case "host":
		switch {
		case r.Deleted && there:
			return decide // removed by an admin
		case !r.Deleted && !there:
			return apply // enrolled here
		}
		return drop // it says what is new at its next check-in
	case "update", "file", "command", "outcome", "node", "anchor":
		if !r.Deleted && !there {
			return apply
		}
		return drop
	}
	return decide
}

// sortReviews applies and drops what nobody has to decide.
func (a *Appliance) sortReviews(ctx context.Context) error {
	var list []replicate.Record
	err := a.db.View(ctx, func(tx *replicate.Tx) error {
		for r, err := range tx.Reviews() {
			if err != nil {
				return err
			}
			list = append(list, r)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read what is kept for review: %w", err)
	}
	waits := 0
	for part := range slices.Chunk(list, 100) { // change sets are bounded
		err := a.db.Update(ctx, func(tx *replicate.Tx) error {
			for _, r := range part {
				_, err := tx.Record(r.Key)
				if err != nil && !errors.Is(err, replicate.ErrNotFound) {
					return err
				}
				switch fateOf(r, err == nil) {
				case decide:
					waits++
					continue
				case apply:
					if err := again(tx, r); err != nil {
						return err
					}
				}
				if err := tx.Dismiss(r.Key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("sort what is kept for review: %w", err)
		}
	}
	if was := a.toReview.Swap(int64(waits)); was != int64(waits) {
		a.watch.tell("mesh")
	}
	return nil
}

// again writes a change that was kept for review as it was.
func again(tx *replicate.Tx, r replicate.Record) error {
	if r.Deleted {
		return tx.Delete(r.Key)
	}
	return tx.Put(r.Key, r.Value)
}

// Reviews lists the changes of this node that wait for an admin, the latest
// first.
func (a *Appliance) Reviews(ctx context.Context) ([]ReviewRow, error) {
	list := []ReviewRow{}
	if a.toReview.Load() == 0 {
		return list, nil
	}
	err := a.db.View(ctx, func(tx *replicate.Tx) error {
		for r, err := range tx.Reviews() {
			if err != nil {
				return err
			}
			now, err := tx.Record(r.Key)
			if err != nil && !errors.Is(err, replicate.ErrNotFound) {
				return err
			}
			if fateOf(r, err == nil) == decide {
				list = append(list, a.reviewRow(tx, r, now))
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read what is kept for review: %w", err)
	}
	slices.SortFunc(list, func(x, y ReviewRow) int { return cmp.Or(y.At.Compare(x.At), cmp.Compare(x.ID, y.ID)) })
	return list, nil
}

func (a *Appliance) reviewRow(tx *replicate.Tx, r, now replicate.Record) ReviewRow {
	row := ReviewRow{ID: hex.EncodeToString([]byte(r.Key)), At: r.Version.Clock.Time(), By: "someone", Unread: r.Format != 0}
	value := r.Value
	if r.Deleted || row.Unread {
		value = nil
	}
	if row.Object, row.Text = intentOf(r.Key, value); row.Unread {
		row.Text = "something that a newer version of wuamesh wrote"
	}
	if now.Key != "" && !now.Deleted {
		_, row.Now = intentOf(now.Key, now.Value)
	}
	if e, ok := decoded[editRecord](value); ok && e.By != "" {
		row.By = e.By
	}
	for rec := range tx.Scan(fmt.Sprintf("%s%016x-", audits.prefix, ^uint64(r.Version.Clock))) {
		if e, ok := decoded[AuditEntry](rec.Value); ok && e.Node == a.NodeName() {
			row.By = e.Actor
		}
	}
	a.cat.mu.RLock()
	defer a.cat.mu.RUnlock()
	row.Object, row.Text, row.Now = a.cat.hostNamed(row.Object), a.cat.hostNamed(row.Text), a.cat.hostNamed(row.Now)
	return row
}

// Review decides about a change that was kept: it is made again in the name
// of who asks, or discarded.
func (a *Appliance) Review(ctx context.Context, by Actor, id string, take bool) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	key, err := hex.DecodeString(id)
	if err != nil {
		return invalid("id", "%.80q is no change that is kept for review.", id)
	}
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		r, err := reviewOf(tx, string(key))
		if err != nil {
			return err
		}
		value, what := r.Value, "discard a kept change"
		if r.Deleted {
			value = nil
		}
		if take {
			if r.Format != 0 {
				return &Problem{Kind: Conflict, Msg: "A newer version of wuamesh wrote this, so this one cannot make the change again.", Hint: "Update this node first."}
			}
			what = "make a kept change"
			if err := a.versionedKey(tx, by, r.Key, what, func() error { return putIntent(tx, by, r.Key, value) }); err != nil {
				return err
			}
		}
		if err := tx.Dismiss(r.Key); err != nil {
			return err
		}
		object, text := intentOf(r.Key, value)
		return a.audit(tx, by, what, object, "", text)
	})
	if err != nil {
		return err
	}
	return a.sortReviews(ctx)
}

func reviewOf(tx *replicate.Tx, key string) (replicate.Record, error) {
	for r, err := range tx.Reviews() {
		if err != nil || r.Key == key {
			return r, err
		}
	}
	return replicate.Record{}, &Problem{Kind: NotFound, Msg: "Somebody has decided about this change already.", Hint: "The audit log says who."}
}
