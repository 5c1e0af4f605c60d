package wua

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"wuamesh/agentproto/agent"
)

// A Host is the Windows that the agent runs on: an [agent.Machine] over COM.
// Its methods may be used from any goroutine.
type Host struct {
	com        *apartment
	free       chan struct{} // holds a token while no session is open
	restartDue atomic.Bool   // as Windows Update said last
}

// OpenHost gets COM ready. There is one Host in a process: a second one's
// sessions would unregister the scan cab of the first.
func OpenHost() (*Host, error) {
	com, err := enterApartment()
	if err != nil {
		return nil, fmt.Errorf("get COM ready: %w", err)
	}
	h := &Host{com: com, free: make(chan struct{}, 1)}
	h.free <- struct{}{}
	return h, nil
}

// Close waits for the last session and ends COM.
func (h *Host) Close() error {
	<-h.free
	h.com.leave()
	return nil
}

// leastMemory is what must be free of memory and page file before a scan.
// Windows holds every candidate of the scan cab in memory at once; where
// there is less, the scan ends with E_OUTOFMEMORY after having pushed out
// everything else that runs there.
const leastMemory = 3 << 29

// Open implements [agent.Machine]. Windows opens the cab as LocalSystem, so a
// path on the network is refused: it would authenticate the host to whoever
// it names.
func (h *Host) Open(ctx context.Context, q agent.Query) (agent.Session, error) {
	if !filepath.IsAbs(q.Cab) || strings.HasPrefix(q.Cab, `\\`) {
		return nil, fmt.Errorf("scan cab %q: %w", q.Cab, fail("AddScanPackageService", codeInvalidArg))
	}
	if free, err := freeMemory(); err == nil && free < leastMemory {
		return nil, fmt.Errorf("%d MB of memory are free and a scan needs %d MB: %w", free>>20, leastMemory>>20, fail("Search", codeOutOfMemory))
	}
	select {
	case <-h.free:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s := &session{h: h, query: q}
	if err := h.com.do(ctx, s.open); err != nil {
		s.Close() // the first error says more
		return nil, err
	}
	return s, nil
}

const codeOutOfMemory = 0x8007000E // E_OUTOFMEMORY

// freeMemory is how much a process could still allocate, page file included.
func freeMemory() (uint64, error) {
	var m struct { // MEMORYSTATUSEX
		length, load                               uint32
		totalPhys, availPhys, totalPage, available uint64
		totalVirtual, availVirtual, extended       uint64
	}
	m.length = uint32(unsafe.Sizeof(m))
	if ok, _, err := globalMemoryStatusEx.Call(uintptr(unsafe.Pointer(&m))); ok == 0 {
		return 0, err
	}
	return m.available, nil
}

var (
	kernel32             = windows.NewLazySystemDLL("kernel32.dll")
	globalMemoryStatusEx = kernel32.NewProc("GlobalMemoryStatusEx")
)

// FreeSpace implements [agent.Machine].
func (h *Host) FreeSpace(_ context.Context, dir string) (int64, error) {
	p, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(p, &free, nil, nil); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(min(free, 1<<62)), nil
}

// askRestart asks Windows Update whether it waits for a restart. While a
// session keeps the thread busy, for half an hour perhaps, what it said last
// holds.
func (h *Host) askRestart(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	h.com.do(ctx, func() error {
		info, err := create("Microsoft.Update.SystemInfo")
		if err != nil {
			return err
		}
		defer info.release()
		r := reader{o: info}
		if due := r.boolean("RebootRequired"); r.err == nil {
			h.restartDue.Store(due)
		}
		return r.err
	})
	return h.restartDue.Load()
}
