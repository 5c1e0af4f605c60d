package wua

import (
	"context"
	"os"
	"unsafe"

	"golang.org/x/sys/windows/registry"
)

// restartReasons are what waits for a restart besides Windows Update, each in
// a sentence. PendingFileRenameOperations is not among them: any program that
// replaces a file in use sets it.
func restartReasons() (why []string) {
	const machine = `SOFTWARE\Microsoft\Windows\CurrentVersion\`
	for _, k := range []struct{ key, text string }{
		{machine + `Component Based Servicing\RebootPending`, "Windows' servicing has work left for the next start."},
		{machine + `Component Based Servicing\RebootInProgress`, "Windows' servicing is in the middle of a restart."},
		{machine + `Component Based Servicing\PackagesPending`, "Windows' servicing has packages that are pending."},
		{machine + `WindowsUpdate\Auto Update\RebootRequired`, "Windows Update asked for a restart."},
	} {
		if o, err := registry.OpenKey(registry.LOCAL_MACHINE, k.key, registry.QUERY_VALUE|registry.WOW64_64KEY); err == nil {
			o.Close()
			why = append(why, k.text)
		}
	}
	if k, err := registry.OpenKey(registry.LOCAL_MACHINE, `SOFTWARE\Microsoft\Updates`, registry.QUERY_VALUE|registry.WOW64_64KEY); err == nil {
		if n, _, _ := number(k, "UpdateExeVolatile"); n != 0 {
			why = append(why, "An update that is a program of its own waits for a restart.")
		}
		k.Close()
	}
	const names = `SYSTEM\CurrentControlSet\Control\ComputerName\`
	if now, next := computerNameIn(names+"ActiveComputerName"), computerNameIn(names+"ComputerName"); now != "" && next != "" && now != next {
		why = append(why, "The host gets another name with the next start.")
	}
	return why
}

func computerNameIn(key string) string {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, key, registry.QUERY_VALUE)
	if err != nil {
		return ""
	}
	defer k.Close()
	name, _, _ := k.GetStringValue("ComputerName")
	return name
}

var getSystemPowerStatus = kernel32.NewProc("GetSystemPowerStatus")

// power says what the host runs on, and how full its battery is.
func power() (source string, percent int) {
	var s struct { // SYSTEM_POWER_STATUS
		line, flag, percent, system byte
		life, full                  uint32
	}
	if ok, _, _ := getSystemPowerStatus.Call(uintptr(unsafe.Pointer(&s))); ok == 0 {
		return "", 0
	}
	const offline, unknown = 0, 255
	if s.line == offline && s.percent != unknown {
		return "battery", int(s.percent)
	}
	return "mains", 0
}

// systemFree is how many bytes are free on Windows' own disk.
func (h *Host) systemFree(ctx context.Context) int64 {
	drive := os.Getenv("SystemDrive")
	if drive == "" {
		drive = "C:"
	}
	free, err := h.FreeSpace(ctx, drive+`\`)
	if err != nil {
		return 0
	}
	return free
}

// freeSteps rounds free space down to whole gigabytes: to one below 20, to
// tens below 200, to hundreds above. What changes by the minute would be news
// to the whole mesh at every check-in.
func freeSteps(bytes int64) int {
	gb := int(bytes >> 30)
	switch {
	case gb < 20:
		return gb
	case gb < 200:
		return gb / 10 * 10
	}
	return gb / 100 * 100
}
