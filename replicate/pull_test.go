package replicate

import "context"

// pull hands each portion of what from has and to lacks to take, a change set
// at a time, as a sync of two nodes does.
func pull(from *DB, have map[string]uint64, take func(portion) error) error {
	var sets []ChangeSet
	var x extent
	err := from.View(context.Background(), func(tx *Tx) (err error) {
		if x, err = tx.extent(); err != nil {
			return err
		}
		return tx.sinceAll(x.vector, have, func(cs ChangeSet) bool {
			sets = append(sets, cs)
			return true
		})
	})
	for ; len(sets) > 0 && err == nil; sets = sets[1:] {
		err = take(portion{sets: sets[:1], from: x})
	}
	if err != nil {
		return err
	}
	return take(portion{from: x, last: true})
}

// Pull lets db have everything that from has.
func (db *DB) Pull(ctx context.Context, from *DB) error {
	return pull(from, db.Vector(), func(p portion) error { return db.merge(ctx, p) })
}
