package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"

	"wuamesh/agentproto/agent/wua"
)

// places are where state and wapt-get.ini are unless a flag says otherwise.
// Where WAPT is installed, its own file holds the settings.
func places() (dir, ini string) {
	data, err := windows.KnownFolderPath(windows.FOLDERID_ProgramData, 0)
	if err != nil {
		data = `C:\ProgramData`
	}
	dir = filepath.Join(data, "wuamesh", "agent")
	ini = filepath.Join(data, "wuamesh", "wapt-get.ini")
	if programs, err := windows.KnownFolderPath(windows.FOLDERID_ProgramFilesX86, 0); err == nil {
		wapt := filepath.Join(programs, "wapt", "wapt-get.ini")
		if _, err := os.Stat(wapt); err == nil {
			ini = wapt
		}
	}
	return dir, ini
}

func openHost() (host, error) { return wua.OpenHost() }

// onlyAdmins lets in Windows itself and administrators, and nothing that the
// directory above says: the host's key is in it.
const onlyAdmins = "O:BAD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"

// protect keeps everybody else out of a directory. Anyone may make
// directories in ProgramData, so whoever was first must not stay its owner.
func protect(dir string) error {
	sd, err := windows.SecurityDescriptorFromString(onlyAdmins)
	if err != nil {
		return err
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return err
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	what := windows.SECURITY_INFORMATION(windows.OWNER_SECURITY_INFORMATION | windows.DACL_SECURITY_INFORMATION | windows.PROTECTED_DACL_SECURITY_INFORMATION)
	err = windows.SetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, what, owner, nil, dacl, nil)
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return errNotAdmin
	}
	return err
}

var errNotAdmin = errors.New("this needs an administrator: open the terminal with \"Run as administrator\"")

// lockDir makes sure that there is one agent in a directory. Windows takes
// the lock back when the process ends, however it ends.
func lockDir(dir string) (io.Closer, error) {
	path, err := windows.UTF16PtrFromString(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	h, err := windows.CreateFile(path, windows.GENERIC_WRITE, 0, nil, windows.OPEN_ALWAYS, windows.FILE_ATTRIBUTE_NORMAL, 0)
	switch {
	case errors.Is(err, windows.ERROR_SHARING_VIOLATION):
		return nil, errors.New("another agent works here: the service is starting or stopping, or another command runs; try again in a moment")
	case errors.Is(err, windows.ERROR_ACCESS_DENIED):
		return nil, errNotAdmin
	case err != nil:
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return os.NewFile(uintptr(h), "lock"), nil
}
