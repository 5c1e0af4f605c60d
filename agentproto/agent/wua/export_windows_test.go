package wua

import (
	"context"
	"errors"
	"testing"
	"unsafe"

	"github.com/go-ole/go-ole/oleutil"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
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

// SetPolicy sets a value of HKLM as somebody else would; -1 removes it.
func SetPolicy(t testing.TB, key, name string, value int) {
	t.Helper()
	k, _, err := registry.CreateKey(registry.LOCAL_MACHINE, key, registry.SET_VALUE)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if value >= 0 {
		err = k.SetDWordValue(name, uint32(value))
	} else if err = k.DeleteValue(name); errors.Is(err, registry.ErrNotExist) {
		err = nil
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Policy reads a value of HKLM; -1 when there is none.
func Policy(t testing.TB, key, name string) int {
	t.Helper()
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, key, registry.QUERY_VALUE)
	if err != nil {
		return -1
	}
	defer k.Close()
	n, set, err := number(k, name)
	if err != nil || !set {
		return -1
	}
	return int(n)
}

// InstalledPackage has Windows' servicing know a package as installed.
func InstalledPackage(t testing.TB, name string) {
	t.Helper()
	SetPolicy(t, servicedPackages+`\`+name, "CurrentState", packageInstalled)
}
