package appliance

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"wuamesh/replicate"
)

// watchers tell pages that something they show may have changed. They carry
// topics only, coalesced; nobody who is slow holds the node up.
type watchers struct {
	mu      sync.Mutex
	changed map[string]bool
	all     map[chan []string]bool
	wake    chan struct{}
}

func newWatchers() *watchers {
	return &watchers{changed: map[string]bool{}, all: map[chan []string]bool{}, wake: make(chan struct{}, 1)}
}

// coalesce is the time in which changes become one message.
const coalesce = 250 * time.Millisecond

func (w *watchers) tell(topic string) {
	w.mu.Lock()
	w.changed[topic] = true
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// topics of the kinds of records.
var topics = map[string]string{
	"host": "hosts", "presence": "hosts", "status": "hosts", "command": "hosts", "update": "updates", "file": "updates",
	"package": "rules", "line": "rules", "assign": "rules", "group": "rules", "member": "rules", "term": "rules", "stop": "rules", "ring": "rules", "profile": "rules", "option": "rules", "grant": "rules", "compliance": "hosts", "audit": "audit",
	"meeting": "mesh", "node": "mesh", "removed": "mesh", "anchor": "mesh", "repository-rule": "mesh",
}

func (w *watchers) follow(list []replicate.Record) {
	for _, r := range list {
		kind, _, _ := strings.Cut(r.Key, "/")
		if topic := topics[kind]; topic != "" {
			w.tell(topic)
		}
	}
}

func (w *watchers) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		w.mu.Lock()
		list := slices.Sorted(maps.Keys(w.changed))
		clear(w.changed)
		for c := range w.all {
			select {
			case c <- list:
			default: // it has not read the last one; it gets the next
			}
		}
		w.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(coalesce):
		}
	}
}

// Watch returns a channel that gets topics, coalesced, whenever something a
// page shows may have changed: "hosts", "updates", "downloads", "cab",
// "rules", "audit". It is forgotten when ctx ends.
func (a *Appliance) Watch(ctx context.Context) <-chan []string {
	c := make(chan []string, 4)
	a.watch.mu.Lock()
	a.watch.all[c] = true
	a.watch.mu.Unlock()
	context.AfterFunc(ctx, func() {
		a.watch.mu.Lock()
		delete(a.watch.all, c)
		a.watch.mu.Unlock()
	})
	return c
}
