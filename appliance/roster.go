package appliance

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"wuamesh/replicate"
)

// A roster is what the records say of the mesh itself: its nodes, who was
// removed, who is an anchor, the gossip keys. It follows the store.
type roster struct {
	mu      sync.RWMutex
	nodes   map[string]nodeRecord
	removed map[string]removalRecord
	anchors map[string]editRecord
	gossips map[string]gossipRecord
	seals   map[string]sealRecord
	changed chan struct{} // a change that the running mesh must act on
}

func newRoster() *roster {
	return &roster{
		nodes: map[string]nodeRecord{}, removed: map[string]removalRecord{}, anchors: map[string]editRecord{},
		gossips: map[string]gossipRecord{}, seals: map[string]sealRecord{}, changed: make(chan struct{}, 1),
	}
}

func (r *roster) take(kind, id string, rec replicate.Record) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch kind {
	case "node":
		err = set(r.nodes, id, rec)
	case "removed":
		err = set(r.removed, id, rec)
	case "anchor":
		err = set(r.anchors, id, rec)
	case "gossip":
		err = set(r.gossips, id, rec)
	case "recovery":
		err = set(r.seals, id, rec)
	}
	select {
	case r.changed <- struct{}{}:
	default:
	}
	return err
}

func (r *roster) node(id string) (nodeRecord, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	n, ok := r.nodes[id]
	return n, ok
}

func (r *roster) removal(id string) (removalRecord, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	rec, ok := r.removed[id]
	return rec, ok
}

// living are the nodes that were not removed.
func (r *roster) living() map[string]nodeRecord {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := maps.Clone(r.nodes)
	for id := range r.removed {
		delete(all, id)
	}
	return all
}

func (r *roster) isAnchor(id string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.anchors[id]
	return ok && r.removed[id].By == ""
}

// anchorIDs are the living anchors, in a stable order.
func (r *roster) anchorIDs() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var list []string
	for id := range r.anchors {
		if _, gone := r.removed[id]; !gone {
			list = append(list, id)
		}
	}
	slices.Sort(list)
	return list
}

func (r *roster) seal() (sealRecord, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s, ok := r.seals["root"]
	return s, ok
}

// named finds a living node of that name, whatever its case.
func (r *roster) named(name string) (id string, ok bool) {
	for id, n := range r.living() {
		if strings.EqualFold(n.Name, name) {
			return id, true
		}
	}
	return "", false
}

// A gossip key is understood everywhere before anybody uses it, and
// understood for a day after its successor came.
const (
	gossipSettle = 2 * time.Minute
	gossipAccept = 24 * time.Hour
)

// gossipKeys are the keys to accept at that time, the one to send with first,
// and those that nobody needs any more. A key's id begins with its time.
func (r *roster) gossipKeys(now time.Time) (keys [][]byte, old []string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	ids := slices.Sorted(maps.Keys(r.gossips))
	slices.Reverse(ids) // newest first
	use := -1
	for i, id := range ids {
		if use < 0 && (now.Sub(r.gossips[id].At) >= gossipSettle || i == len(ids)-1) {
			use = i
		}
	}
	for i, id := range ids {
		if i > 0 && now.Sub(r.gossips[ids[i-1]].At) > gossipAccept && i > use {
			old = append(old, id)
			continue
		}
		if i == use {
			keys = slices.Insert(keys, 0, r.gossips[id].Key)
		} else {
			keys = append(keys, r.gossips[id].Key)
		}
	}
	return keys, old
}
