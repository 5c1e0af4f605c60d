package wua

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"wuamesh/agentproto"
)

// Facts implements [agent.Machine]. It asks neither WMI, which is slow and
// often broken, nor anything that waits for the Windows Update service.
func (h *Host) Facts(ctx context.Context) (agentproto.Facts, error) {
	f := agentproto.Facts{
		Name: computerName(windows.ComputerNamePhysicalNetBIOS), FQDN: computerName(windows.ComputerNamePhysicalDnsFullyQualified),
		Domain: domain(), ADSite: adSite(), Arch: nativeArch(), Language: language(), Addresses: addresses(),
		// To the second, or two readings would differ by the clock's ticks.
		Booted:     time.Now().Add(-windows.DurationSinceBoot()).Round(time.Second).UTC(),
		WUAVersion: fileVersion(`wuapi.dll`), WUAService: serviceState(), User: consoleUser(),
	}
	f.RestartWhy = restartReasons()
	if h.askRestart(ctx) {
		f.RestartWhy = append(f.RestartWhy, "Windows Update has installed something that takes effect after a restart.")
	}
	f.RestartDue = len(f.RestartWhy) > 0
	f.Power, f.Battery = power()
	f.FreeGB = freeSteps(h.systemFree(ctx))
	f.OS, f.Build = system()
	f.Manufacturer, f.Model, f.Serial = firmware()
	if f.Name == "" {
		f.Name, _ = os.Hostname()
	}
	return f, ctx.Err()
}

func computerName(kind uint32) string {
	n := uint32(256)
	b := make([]uint16, n)
	if windows.GetComputerNameEx(kind, &b[0], &n) != nil {
		return ""
	}
	return windows.UTF16ToString(b)
}

// domain is the domain or the workgroup that the host has joined.
func domain() string {
	var name *uint16
	var kind uint32
	if windows.NetGetJoinInformation(nil, &name, &kind) != nil {
		return ""
	}
	defer windows.NetApiBufferFree((*byte)(unsafe.Pointer(name)))
	return windows.UTF16PtrToString(name)
}

// adSite is the site of Active Directory that Windows found itself in; empty
// outside of a domain, and before it asked. Netlogon keeps it there, and an
// admin's own setting beside it wins, as it does for Windows.
func adSite() string {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, `SYSTEM\CurrentControlSet\Services\Netlogon\Parameters`, registry.QUERY_VALUE)
	if err != nil {
		return ""
	}
	defer k.Close()
	for _, name := range []string{"SiteName", "DynamicSiteName"} {
		if s, _, err := k.GetStringValue(name); err == nil && strings.Trim(s, " \x00") != "" {
			return strings.Trim(s, " \x00")
		}
	}
	return ""
}

// nativeArch is the machine's, also for a program that is emulated on it.
func nativeArch() string {
	var process, machine uint16
	if windows.IsWow64Process2(windows.CurrentProcess(), &process, &machine) != nil {
		return runtime.GOARCH
	}
	switch machine { // IMAGE_FILE_MACHINE_*
	case 0x8664:
		return "amd64"
	case 0xAA64:
		return "arm64"
	case 0x014C:
		return "386"
	}
	return runtime.GOARCH
}

func language() string {
	list, err := windows.GetSystemPreferredUILanguages(windows.MUI_LANGUAGE_NAME)
	if err != nil || len(list) == 0 {
		return ""
	}
	return list[0]
}

const currentVersion = `SOFTWARE\Microsoft\Windows NT\CurrentVersion`

// system says "Windows 11 Pro 24H2" and "10.0.26100.4061".
func system() (name, build string) {
	v := windows.RtlGetVersion()
	name, build = fmt.Sprintf("Windows %d.%d", v.MajorVersion, v.MinorVersion), fmt.Sprintf("%d.%d.%d", v.MajorVersion, v.MinorVersion, v.BuildNumber)
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, currentVersion, registry.QUERY_VALUE|registry.WOW64_64KEY)
	if err != nil {
		return name, build
	}
	defer k.Close()
	if ubr, _, err := k.GetIntegerValue("UBR"); err == nil {
		build += fmt.Sprintf(".%d", ubr)
	}
	if product, _, err := k.GetStringValue("ProductName"); err == nil && product != "" {
		name = product
		const workstation = 1 // VER_NT_WORKSTATION
		if v.ProductType == workstation && v.BuildNumber >= 22000 {
			name = strings.Replace(name, "Windows 10", "Windows 11", 1) // Microsoft never changed the value
		}
	}
	if display, _, err := k.GetStringValue("DisplayVersion"); err == nil && display != "" {
		name += " " + display
	}
	return name, build
}

// firmware reads manufacturer, product and serial number from the SMBIOS
// table of type 1 (DMTF DSP0134, section 7.2).
func firmware() (maker, product, serial string) {
	const rsmb = 'R'<<24 | 'S'<<16 | 'M'<<8 | 'B'
	n, _, _ := getSystemFirmwareTable.Call(rsmb, 0, 0, 0)
	if n == 0 || n > 1<<20 {
		return "", "", ""
	}
	b := make([]byte, n)
	got, _, _ := getSystemFirmwareTable.Call(rsmb, 0, uintptr(unsafe.Pointer(&b[0])), n)
	return smbiosSystem(b[:min(n, got)])
}

var getSystemFirmwareTable = kernel32.NewProc("GetSystemFirmwareTable")

// fileVersion is the version of a file of Windows' system directory.
func fileVersion(name string) string {
	dir, err := windows.GetSystemDirectory()
	if err != nil {
		return ""
	}
	path := dir + `\` + name
	var zero windows.Handle
	n, err := windows.GetFileVersionInfoSize(path, &zero)
	if err != nil || n == 0 {
		return ""
	}
	b := make([]byte, n)
	if windows.GetFileVersionInfo(path, 0, n, unsafe.Pointer(&b[0])) != nil {
		return ""
	}
	var info *windows.VS_FIXEDFILEINFO
	size := uint32(unsafe.Sizeof(*info))
	if windows.VerQueryValue(unsafe.Pointer(&b[0]), `\`, unsafe.Pointer(&info), &size) != nil || info == nil {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d.%d", info.FileVersionMS>>16, info.FileVersionMS&0xFFFF, info.FileVersionLS>>16, info.FileVersionLS&0xFFFF)
}

// addresses are those by which others may know the host.
func addresses() (list []string) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			list = append(list, n.IP.String())
		}
	}
	return list
}

// consoleUser is who is logged on at the screen, if anyone.
func consoleUser() string {
	const userName = 5 // WTSUserName
	id := windows.WTSGetActiveConsoleSessionId()
	if id == 0xFFFFFFFF {
		return ""
	}
	var p *uint16
	var n uint32
	if ok, _, _ := wtsQuerySessionInformation.Call(0, uintptr(id), userName, uintptr(unsafe.Pointer(&p)), uintptr(unsafe.Pointer(&n))); ok == 0 || p == nil {
		return ""
	}
	defer windows.WTSFreeMemory(uintptr(unsafe.Pointer(p)))
	return windows.UTF16PtrToString(p)
}

var wtsQuerySessionInformation = windows.NewLazySystemDLL("wtsapi32.dll").NewProc("WTSQuerySessionInformationW")

// ptr is the address of a buffer that Windows fills with a struct.
func ptr(b []uint64) unsafe.Pointer { return unsafe.Pointer(&b[0]) }
