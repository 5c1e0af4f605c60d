package main

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// A dialog is a task dialog of Windows, with a timer.
type dialog struct {
	title, head, text string
	buttons           []button
	cancel            bool // it may be closed without an answer
	progress          bool // a bar that moves
	tick              func(*dialogWindow)
}

type button struct {
	id   int32
	text string
}

// A dialogWindow is a dialog on the screen, from its timer.
type dialogWindow struct {
	handle uintptr
	said   map[uintptr]string // by element: a text is set only when it changed
}

// Messages to a task dialog and notifications from it (commctrl.h).
const (
	tdmClickButton    = 0x400 + 102
	tdmSetMarquee     = 0x400 + 107
	tdmSetElementText = 0x400 + 108

	elementContent, elementFooter = 0, 2

	tdnCreated, tdnTimer = 0, 4

	flagCancellation, flagMarquee, flagTimer = 0x8, 0x400, 0x800

	informationIcon = 0xFFFD // TD_INFORMATION_ICON
)

var sendMessage = windows.NewLazySystemDLL("user32.dll").NewProc("SendMessageW")

func (w *dialogWindow) click(id int32) {
	sendMessage.Call(w.handle, tdmClickButton, uintptr(id), 0)
}

func (w *dialogWindow) text(s string)   { w.set(elementContent, s) }
func (w *dialogWindow) footer(s string) { w.set(elementFooter, s) }

func (w *dialogWindow) set(element uintptr, s string) {
	if s == "" {
		s = " "
	}
	if w.said[element] == s {
		return
	}
	w.said[element] = s
	if p, err := windows.UTF16PtrFromString(s); err == nil {
		sendMessage.Call(w.handle, tdmSetElementText, element, uintptr(unsafe.Pointer(p)))
	}
}

// show shows the dialog until it is answered, and returns the button.
func (d *dialog) show() (int, error) {
	runtime.LockOSThread() // a window belongs to the thread that made it
	defer runtime.UnlockOSThread()
	end, err := modernControls()
	if err != nil {
		return 0, err
	}
	defer end()
	// By name, not from the system directory: which of the two versions it is
	// follows from the context that is active.
	lib, err := windows.LoadLibrary("comctl32.dll")
	if err != nil {
		return 0, err
	}
	defer windows.FreeLibrary(lib)
	taskDialog, err := windows.GetProcAddress(lib, "TaskDialogIndirect")
	if err != nil {
		return 0, err
	}
	w := &dialogWindow{said: map[uintptr]string{}}
	callback := windows.NewCallback(func(handle, message, wparam, lparam, data uintptr) uintptr {
		w.handle = handle
		switch message {
		case tdnCreated:
			if d.progress {
				sendMessage.Call(handle, tdmSetMarquee, 1, 30)
			}
		case tdnTimer:
			d.tick(w)
		}
		return 0
	})
	config, keep := d.config(callback)
	pressed := new(int32)
	keep = append(keep, pressed) // on the heap: the callback may move our stack
	hr, _, _ := syscall.SyscallN(taskDialog, uintptr(unsafe.Pointer(&config[0])), uintptr(unsafe.Pointer(pressed)), 0, 0)
	runtime.KeepAlive(keep)
	if int32(hr) < 0 {
		return 0, errors.New("no window can be shown here")
	}
	return int(*pressed), nil
}

// config is a TASKDIALOGCONFIG, which is packed: its fields lie one after the
// other without padding. keep is what it points to.
func (d *dialog) config(callback uintptr) (b []byte, keep []any) {
	number := func(n uint32) { b = binary.LittleEndian.AppendUint32(b, n) }
	pointer := func(p uintptr) {
		if unsafe.Sizeof(p) == 8 {
			b = binary.LittleEndian.AppendUint64(b, uint64(p))
		} else {
			b = binary.LittleEndian.AppendUint32(b, uint32(p))
		}
	}
	text := func(s string) {
		if s == "" {
			pointer(0)
			return
		}
		p, err := windows.UTF16PtrFromString(s)
		if err != nil {
			p = new(uint16)
		}
		keep = append(keep, p)
		pointer(uintptr(unsafe.Pointer(p)))
	}
	for _, one := range d.buttons {
		number(uint32(one.id))
		text(one.text)
	}
	buttons := b
	keep = append(keep, buttons)
	b = nil
	flags := uint32(flagTimer)
	if d.cancel {
		flags |= flagCancellation
	}
	if d.progress {
		flags |= flagMarquee
	}
	number(0) // cbSize, below
	pointer(0)
	pointer(0)
	number(flags)
	number(0) // dwCommonButtons
	text(d.title)
	pointer(informationIcon)
	text(d.head)
	text(d.text)
	number(uint32(len(d.buttons)))
	pointer(uintptr(unsafe.Pointer(&buttons[0])))
	number(uint32(d.buttons[0].id)) // nDefaultButton
	number(0)                       // cRadioButtons
	pointer(0)
	number(0)  // nDefaultRadioButton
	pointer(0) // pszVerificationText
	pointer(0) // pszExpandedInformation
	pointer(0) // pszExpandedControlText
	pointer(0) // pszCollapsedControlText
	pointer(0) // footer icon
	text(" ")  // pszFooter: there is one, so that it can be set
	pointer(callback)
	pointer(0) // lpCallbackData
	number(0)  // cxWidth
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b, keep
}

// modernControls makes version 6 of the common controls the one that is
// loaded: only it has task dialogs, and a program has to ask for it.
func modernControls() (end func(), err error) {
	dir, err := os.MkdirTemp("", "wuamesh")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "controls.manifest")
	if err := os.WriteFile(path, []byte(controlsManifest), 0o600); err != nil {
		return nil, err
	}
	remove := func() { os.Remove(path); os.Remove(dir) }
	source, err := windows.UTF16PtrFromString(path)
	if err != nil {
		remove()
		return nil, err
	}
	var c struct { // ACTCTXW
		size, flags    uint32
		source         *uint16
		arch, lang     uint16
		dir, name, app *uint16
		module         windows.Handle
	}
	c.size, c.source = uint32(unsafe.Sizeof(c)), source
	kernel32 := windows.NewLazySystemDLL("kernel32.dll")
	h, _, err := kernel32.NewProc("CreateActCtxW").Call(uintptr(unsafe.Pointer(&c)))
	remove()
	if windows.Handle(h) == windows.InvalidHandle {
		return nil, err
	}
	var cookie uintptr
	if ok, _, err := kernel32.NewProc("ActivateActCtx").Call(h, uintptr(unsafe.Pointer(&cookie))); ok == 0 {
		return nil, err
	}
	return func() {
		kernel32.NewProc("DeactivateActCtx").Call(0, cookie)
		kernel32.NewProc("ReleaseActCtx").Call(h)
	}, nil
}

const controlsManifest = `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<assembly xmlns="urn:schemas-microsoft-com:asm.v1" manifestVersion="1.0">
<dependency><dependentAssembly><assemblyIdentity type="win32" name="Microsoft.Windows.Common-Controls" version="6.0.0.0"
processorArchitecture="*" publicKeyToken="6595b64144ccf1df" language="*"/></dependentAssembly></dependency>
</assembly>
`
