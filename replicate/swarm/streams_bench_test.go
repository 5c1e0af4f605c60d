package swarm_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"wuamesh/replicate/swarm"
)

// streamsRun is no rival but what the lines' TCP reaches: the origin sends
// each branch its share of the files and each branch sends as much to every
// other, as streams without pieces that go from the first moment, because
// nobody waits for what it passes on. No schedule over the same lines and the
// same TCP can expect to be faster.
func streamsRun(t testing.TB, r *relay, w work) (took time.Duration, sent float64) {
	if r.hub {
		t.Skip("branches that do not reach each other pass nothing on")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	var ps []*process
	for i, at := range r.places {
		spec := streamsSpec{Bytes: int64(w.total()) / int64(len(r.places)-1)}
		for _, p := range r.places {
			spec.Peers = append(spec.Peers, p.addr)
		}
		spec.Index = i
		text, _ := json.Marshal(spec)
		p := startCommand(ctx, t, at, "SWARM_STREAMS="+string(text))
		defer p.stop()
		ps = append(ps, p)
	}
	for _, p := range ps {
		p.line() // ready
	}
	before, began := r.places[0].out.Load(), time.Now()
	for _, p := range ps {
		fmt.Fprintln(p.in, "go")
	}
	for _, p := range ps[1:] {
		p.line() // done
	}
	return time.Since(began), float64(r.places[0].out.Load() - before)
}

type streamsSpec struct {
	Index int
	Peers []string // the origin first
	Bytes int64    // of each stream
}

// runStreams sends a stream to every other branch and says when one of every
// other node is here.
func runStreams(text string) error {
	var spec streamsSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	me := spec.Peers[spec.Index]
	lc := net.ListenConfig{Control: swarm.Congestion}
	l, err := lc.Listen(context.Background(), "tcp", me+":8001")
	if err != nil {
		return err
	}
	in := bufio.NewReader(os.Stdin)
	fmt.Println("ready")
	if _, err := in.ReadString('\n'); err != nil {
		return nil
	}
	failed := make(chan error)
	dial := &net.Dialer{Control: swarm.Congestion, Timeout: 10 * time.Second}
	for _, peer := range slices.Delete(slices.Clone(spec.Peers), spec.Index, spec.Index+1) {
		if peer == spec.Peers[0] {
			continue
		}
		go func() {
			c, err := dial.Dial("tcp", peer+":8001")
			if err == nil {
				_, err = io.Copy(c, stream(int(spec.Bytes), spec.Index))
				c.Close()
			}
			if err != nil {
				failed <- err
			}
		}()
	}
	came := make(chan struct{})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if n, err := io.Copy(io.Discard, c); n != spec.Bytes || err != nil {
					failed <- fmt.Errorf("%d of %d bytes came: %w", n, spec.Bytes, err)
				}
				came <- struct{}{}
			}()
		}
	}()
	for range len(spec.Peers) - 1 {
		if spec.Index == 0 {
			break
		}
		select {
		case <-came:
		case err := <-failed:
			return err
		}
	}
	fmt.Println("done")
	io.Copy(io.Discard, in)
	return nil
}
