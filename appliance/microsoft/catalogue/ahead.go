package catalogue

import "io"

// An aheadReader has another goroutine read from its source, some blocks
// ahead: unpacking on one core, parsing on the other. Its stop must be called,
// and waits for that goroutine.
type aheadReader struct {
	full  chan []byte
	empty chan []byte
	done  chan struct{} // closed when the goroutine has ended; err holds from then on
	quit  chan struct{}
	err   error
	block []byte // in use
	rest  []byte // of block, not yet returned
}

func readAhead(r io.Reader) *aheadReader {
	const blocks, size = 4, 256 << 10
	a := &aheadReader{full: make(chan []byte, blocks), empty: make(chan []byte, blocks), done: make(chan struct{}), quit: make(chan struct{})}
	for range blocks {
		a.empty <- make([]byte, size)
	}
	go a.fill(r)
	return a
}

func (a *aheadReader) fill(r io.Reader) {
	defer close(a.done)
	defer close(a.full)
	for {
		var b []byte
		select {
		case b = <-a.empty:
		case <-a.quit:
			return
		}
		var n int
		var err error
		for b = b[:cap(b)]; n < len(b) && err == nil; {
			var k int
			k, err = r.Read(b[n:])
			n += k
		}
		if n > 0 {
			a.full <- b[:n] // there is room for every block
		}
		if err != nil {
			a.err = err
			return
		}
	}
}

func (a *aheadReader) Read(p []byte) (int, error) {
	if len(a.rest) == 0 {
		if a.block != nil {
			a.empty <- a.block
			a.block = nil
		}
		b, ok := <-a.full
		if !ok {
			<-a.done
			return 0, a.err
		}
		a.block, a.rest = b, b
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// stop ends the reading.
func (a *aheadReader) stop() {
	close(a.quit)
	<-a.done
}
