package agentproto

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// ErrSilent is a node that sends no more of a file and does not answer either: its
// packets, or ours, vanish. The client leaves it alone for a while, so who asks
// again from the next byte on asks the next node.
var ErrSilent = errors.New("it does not answer any more")

// How long a file may stand still before its node is asked whether it is there,
// and how long that may take. Together they are how soon a node whose packets
// vanish is noticed.
const (
	usualQuiet  = 12 * time.Second
	usualAnswer = 8 * time.Second
)

// A vigil is kept over one request for a file, from before its answer until its
// last byte. When nothing comes for a while it asks the node something small: one
// that answers is waiting itself, for pieces over a thin line or for its limits,
// and asking another would take the file from far, or go in circles; one that
// does not is given up.
type vigil struct {
	c     *Client
	node  string
	ctx   context.Context // of the request
	end   context.CancelCauseFunc
	timer *time.Timer
	got   atomic.Int64 // bytes
	waits bool         // it was said that the node answers and sends nothing
}

// keepVigil begins one; it ends with stop, or with ErrSilent as the cause of the
// end of its context.
func (c *Client) keepVigil(ctx context.Context, node string) *vigil {
	v := &vigil{c: c, node: node}
	v.ctx, v.end = context.WithCancelCause(ctx)
	v.timer = time.AfterFunc(time.Hour, v.look)
	v.timer.Reset(c.quiet)
	return v
}

// look is called when nothing came for a while.
func (v *vigil) look() {
	if v.ctx.Err() != nil {
		return
	}
	before := v.got.Load()
	_, answered := v.c.head(v.ctx, v.node, v.c.answer)
	switch {
	case v.ctx.Err() != nil:
	case answered && !v.waits:
		v.waits = true
		v.c.log.Info("the node answers and sends nothing: waiting for it", "node", v.node, "bytes", before)
		v.timer.Reset(v.c.quiet)
	case answered || v.got.Load() != before:
		v.timer.Reset(v.c.quiet)
	default:
		v.end(fmt.Errorf("%s sent nothing for %s: %w", v.node, v.c.quiet+v.c.answer, ErrSilent))
	}
}

func (v *vigil) stop() {
	v.timer.Stop()
	v.end(nil)
}

// A watched body is one over which a vigil is kept.
type watched struct {
	io.ReadCloser
	*vigil
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.got.Add(int64(n))
		w.timer.Reset(w.c.quiet)
	}
	if err == nil {
		return n, nil
	}
	if cause := silent(w.ctx); cause != nil {
		w.c.unreached(w.node)
		err = cause
	}
	w.stop() // what is done with the bytes now takes the time it takes
	return n, err
}

func (w *watched) Close() error {
	w.stop()
	return w.ReadCloser.Close()
}

// silent is why a vigil ended, if the node did not answer.
func silent(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, ErrSilent) {
		return cause
	}
	return nil
}
