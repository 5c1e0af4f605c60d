package wua

import (
	"context"
	"unsafe"

	"github.com/go-ole/go-ole/oleutil"
	"golang.org/x/sys/windows"
)

// CodeOf is the HRESULT of a refused call, or 0.
var CodeOf = codeOf

// LiveObjects asks the double how many of its objects are alive.
func (h *Host) LiveObjects() (n int32, err error) {
	err = h.com.do(context.Background(), func() error {
		o, err := create("Microsoft.Update.AgentInfo")
		if err != nil {
			return err
		}
		defer o.release()
		v, err := oleutil.CallMethod(o.d, "GetInfo", "LiveObjects")
		if err != nil {
			return windowsError("GetInfo", err)
		}
		n, _ = v.Value().(int32)
		return v.Clear()
	})
	return n, err
}

// PrivateBytes is what the process has allocated, Windows' part included.
func PrivateBytes() uint64 {
	var m struct { // PROCESS_MEMORY_COUNTERS_EX
		size, faults                                                                uint32
		peakSet, set, peakPaged, paged, peakNonPaged, nonPaged, file, peak, private uintptr
	}
	m.size = uint32(unsafe.Sizeof(m))
	proc := windows.NewLazySystemDLL("psapi.dll").NewProc("GetProcessMemoryInfo")
	if ok, _, _ := proc.Call(uintptr(windows.CurrentProcess()), uintptr(unsafe.Pointer(&m)), uintptr(m.size)); ok == 0 {
		return 0
	}
	return uint64(max(m.file, m.private))
}
