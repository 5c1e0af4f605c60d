package swarm_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// A relay joins network namespaces by lines with a rate, a delay and a loss in
// each direction. Every namespace has a tun device; the relay reads IP packets
// from one and writes them to another, late or never. What runs there is real
// programs over the kernel's real TCP. It needs root.
type relay struct {
	places []*place
	hub    bool // the places but the first reach only that one
	close  func()
}

var relays atomic.Int64 // in this process, for their namespaces' names

// A place is one namespace, at 10.77.0.<n>, and its line.
type place struct {
	ns       string
	addr     string
	tun      *os.File
	up, down queue
	delay    time.Duration // from here to the middle
	loss     float64       // of packets, in each direction
	out, in  atomic.Int64  // bytes that passed, with headers
	cut      atomic.Bool
}

// A queue is one direction of a line: what does not fit into 150 ms of its
// rate, or 64 packets, is dropped.
type queue struct {
	rate float64 // bytes per second
	ch   chan packet
	mu   sync.Mutex
	free time.Time
}

type packet struct {
	b   []byte
	due time.Time
}

// linespec is a line as a test wants it.
type linespec struct {
	up, down float64 // Mbit/s
	delay    time.Duration
	loss     float64
}

// newRelay makes the namespaces and carries packets until the test ends.
func newRelay(t testing.TB, lines ...linespec) *relay {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs iproute2")
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &relay{}
	var wg sync.WaitGroup
	number := relays.Add(1)
	r.close = sync.OnceFunc(func() {
		cancel()
		for _, p := range r.places {
			if p.tun != nil {
				p.tun.Close()
			}
			exec.Command("ip", "netns", "del", p.ns).Run()
		}
		wg.Wait()
	})
	t.Cleanup(r.close)
	for i, l := range lines {
		p := &place{ns: fmt.Sprintf("sw%d-%d-%d", os.Getpid(), number, i+1), addr: fmt.Sprintf("10.77.0.%d", i+1), delay: l.delay, loss: l.loss}
		p.up = queue{rate: l.up * 1e6 / 8, ch: make(chan packet, 4096)}
		p.down = queue{rate: l.down * 1e6 / 8, ch: make(chan packet, 4096)}
		r.places = append(r.places, p)
		if err := p.make(); err != nil {
			t.Skipf("network namespaces are not to be had here: %v", err)
		}
	}
	for _, p := range r.places {
		wg.Go(func() { r.read(ctx, p) })
		wg.Go(func() { r.carry(ctx, &p.up, func(b []byte) { r.cross(p, b) }) })
		wg.Go(func() { r.carry(ctx, &p.down, func(b []byte) { p.in.Add(int64(len(b))); p.tun.Write(b) }) })
	}
	return r
}

func (p *place) make() error {
	for _, args := range []string{"netns add " + p.ns, "-n " + p.ns + " link set lo up"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %s", args, out)
		}
	}
	var err error
	if p.tun, err = tunIn("/run/netns/" + p.ns); err != nil {
		return err
	}
	for _, args := range []string{"-n " + p.ns + " addr add " + p.addr + "/24 dev wan0", "-n " + p.ns + " link set wan0 up txqueuelen 50"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %s", args, out)
		}
	}
	return nil
}

// tunIn makes a tun device in another namespace; its file works from here.
func tunIn(ns string) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	c := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with us
		f, err := func() (*os.File, error) {
			there, err := os.Open(ns)
			if err != nil {
				return nil, err
			}
			defer there.Close()
			if _, _, e := syscall.RawSyscall(sysSetns, there.Fd(), syscall.CLONE_NEWNET, 0); e != 0 {
				return nil, fmt.Errorf("setns: %w", e)
			}
			fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
			if err != nil {
				return nil, fmt.Errorf("/dev/net/tun: %w", err)
			}
			var req [40]byte // struct ifreq
			copy(req[:], "wan0")
			binary.NativeEndian.PutUint16(req[16:], syscall.IFF_TUN|syscall.IFF_NO_PI)
			if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TUNSETIFF, uintptr(unsafe.Pointer(&req))); e != 0 {
				syscall.Close(fd)
				return nil, fmt.Errorf("TUNSETIFF: %w", e)
			}
			return os.NewFile(uintptr(fd), "tun"), nil
		}()
		c <- result{f, err}
	}()
	r := <-c
	return r.f, r.err
}

const sysSetns = 308 // amd64; the relay is a test's

// read takes packets from a namespace.
func (r *relay) read(ctx context.Context, p *place) {
	b := make([]byte, 2048)
	for ctx.Err() == nil {
		n, err := p.tun.Read(b)
		if err != nil {
			if errors.Is(err, os.ErrClosed) || ctx.Err() != nil {
				return
			}
			continue
		}
		p.up.offer(append([]byte(nil), b[:n]...), 0, p.lost())
	}
}

func (p *place) lost() bool { return p.cut.Load() || p.loss > 0 && rand.Float64() < p.loss }

// offer puts a packet on a line.
func (q *queue) offer(b []byte, delay time.Duration, lost bool) {
	if lost {
		return
	}
	q.mu.Lock()
	now := time.Now().Add(delay)
	begin := now
	if q.free.After(now) {
		begin = q.free
	}
	took := time.Duration(float64(len(b)) / q.rate * 1e9)
	if wait := begin.Sub(now); wait > 150*time.Millisecond && wait > 64*took {
		q.mu.Unlock()
		return
	}
	q.free = begin.Add(took)
	due := q.free
	q.mu.Unlock()
	select {
	case q.ch <- packet{b, due}:
	default:
	}
}

// carry hands packets on when they are due.
func (r *relay) carry(ctx context.Context, q *queue, to func([]byte)) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-q.ch:
			if wait := time.Until(p.due); wait > 200*time.Microsecond {
				time.Sleep(wait)
			}
			to(p.b)
		}
	}
}

// cross brings a packet from one line to the other.
func (r *relay) cross(p *place, b []byte) {
	p.out.Add(int64(len(b)))
	if len(b) < 20 || b[0]>>4 != 4 || b[16] != 10 || b[17] != 77 {
		return
	}
	if n := int(b[19]) - 1; n >= 0 && n < len(r.places) && r.places[n] != p && (!r.hub || n == 0 || p == r.places[0]) {
		to := r.places[n]
		to.down.offer(b, p.delay+to.delay, to.lost())
	}
}

// command is a program in a namespace.
func (p *place) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", p.ns, name}, args...)...)
}
