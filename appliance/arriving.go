package appliance

import (
	"context"
	"net/http"
	"strings"
	"time"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate/swarm"
)

// A caller of a file that other nodes have waits this long for its first
// piece to be asked for, before it is told to come back.
const (
	beginWait = 5 * time.Second
	beginLook = 20 * time.Millisecond
)

// serveArriving answers with a file that is on its way from other nodes, as
// its pieces come, and says whether it did. Each piece is compared with the
// manifest, which the mesh knows from a node that had the whole file and
// compared it with Microsoft's digest. The scan cab waits for its signature.
func (f *folder) serveArriving(w http.ResponseWriter, r *http.Request, name string) bool {
	sw := f.share.swarm.Load()
	rec, known := f.share.record(name)
	d, err := swarm.ParseDigest(rec.SHA256)
	if sw == nil || !known || err != nil || name == microsoft.ScanCabName || len(f.share.others(name)) == 0 {
		return false
	}
	reader := f.awaitTransfer(r.Context(), sw, d, name)
	if reader == nil {
		return false
	}
	defer reader.Close()
	describe(w.Header(), name, &heldFile{fileRecord: rec})
	ctl := http.NewResponseController(w)
	ctl.SetWriteDeadline(time.Time{}) // how long pieces take is the line's business; the caller's own patience ends it
	defer f.sending(name, ctl)()
	http.ServeContent(early{f.toAgent(w, r, name)}, r, name, rec.Completed, reader)
	return true
}

// An early answer is on its way before its first byte is there, which over a thin
// line takes minutes: else the caller takes the node for one that is away.
type early struct{ http.ResponseWriter }

func (e early) WriteHeader(status int) {
	e.ResponseWriter.WriteHeader(status)
	http.NewResponseController(e.ResponseWriter).Flush() // a line that broke says so at the first byte
}

// Unwrap lets [http.ResponseController] through.
func (e early) Unwrap() http.ResponseWriter { return e.ResponseWriter }

// awaitTransfer waits until the file that was just queued is being fetched.
func (f *folder) awaitTransfer(ctx context.Context, sw *swarm.Swarm, d swarm.Digest, name string) *swarm.Reader {
	end := time.Now().Add(beginWait)
	tick := time.NewTicker(beginLook)
	defer tick.Stop()
	for time.Now().Before(end) {
		if reader, err := sw.Open(ctx, d); err == nil {
			return reader
		}
		if !f.queued(name) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	return nil
}

// waitingFor says what a queued file waits for, as the end of a sentence.
func (f *folder) waitingFor(name string) string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	t := f.queue[name]
	switch {
	case t == nil || t.Waiting == "" && f.node.config().Internet:
		return " for download from Microsoft."
	case t.Waiting == "":
		return " for download from another node."
	}
	return ". " + strings.TrimSpace(t.Waiting)
}
