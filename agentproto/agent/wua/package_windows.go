package wua

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"wuamesh/agentproto/agent"
)

// InstallPackage implements [agent.Machine]: a .msu by wusa, which every
// Windows has for it, a .cab by DISM. Neither restarts the host.
func (h *Host) InstallPackage(ctx context.Context, path string) (agent.Outcome, error) {
	if !filepath.IsAbs(path) || strings.HasPrefix(path, `\\`) {
		return agent.Outcome{}, fail("InstallPackage", codeInvalidArg)
	}
	if strings.EqualFold(filepath.Ext(path), ".msu") {
		return tool(ctx, "wusa.exe", path, "/quiet", "/norestart")
	}
	return tool(ctx, "dism.exe", "/Online", "/Add-Package", "/PackagePath:"+path, "/Quiet", "/NoRestart")
}

// RemoveKB implements [agent.Machine]. DISM knows packages by names that
// often have the KB in them; a cumulative update's has not, and then the KB is
// in what DISM says about it. What DISM does not know is left to wusa.
func (h *Host) RemoveKB(ctx context.Context, kb string) (agent.Outcome, error) {
	if kb == "" || strings.Trim(kb, "0123456789") != "" {
		return agent.Outcome{}, fail("RemoveKB", codeInvalidArg)
	}
	name, err := packageOf(ctx, kb)
	if err != nil {
		return agent.Outcome{}, err
	}
	if name != "" {
		return tool(ctx, "dism.exe", "/Online", "/Remove-Package", "/PackageName:"+name, "/Quiet", "/NoRestart")
	}
	return tool(ctx, "wusa.exe", "/uninstall", "/kb:"+kb, "/quiet", "/norestart")
}

const (
	servicedPackages = `SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing\Packages`
	packageInstalled = 0x70 // CurrentState of an installed package
)

// packageOf finds the installed package of a KB; empty when there is none.
func packageOf(ctx context.Context, kb string) (string, error) {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, servicedPackages, registry.READ|registry.WOW64_64KEY)
	if errors.Is(err, registry.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", win32("RegOpenKeyEx", err)
	}
	defer k.Close()
	names, err := k.ReadSubKeyNames(-1)
	if err != nil {
		return "", win32("RegEnumKeyEx", err)
	}
	var cumulative []string
	for _, name := range names {
		lower := strings.ToLower(name)
		named := strings.HasPrefix(lower, "package_for_kb"+kb+"~")
		if !named && !strings.HasPrefix(lower, "package_for_rollupfix~") || !isInstalled(k, name) {
			continue
		}
		if named {
			return name, nil
		}
		cumulative = append(cumulative, name)
	}
	for _, name := range cumulative {
		out, err := command(ctx, "dism.exe", "/Online", "/Get-PackageInfo", "/PackageName:"+name, "/English").Output()
		if err == nil && bytes.Contains(bytes.ToUpper(out), []byte("KB"+kb)) {
			return name, nil
		}
	}
	return "", nil
}

func isInstalled(packages registry.Key, name string) bool {
	k, err := registry.OpenKey(packages, name, registry.QUERY_VALUE|registry.WOW64_64KEY)
	if err != nil {
		return false
	}
	defer k.Close()
	state, _, err := k.GetIntegerValue("CurrentState")
	return err == nil && state == packageInstalled
}

// command is a program of Windows' system directory.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	dir, err := windows.GetSystemDirectory()
	if err != nil {
		dir = `C:\Windows\System32`
	}
	return exec.CommandContext(ctx, filepath.Join(dir, name), args...)
}

// tool runs a servicing tool and makes an outcome of its exit code. Once it
// runs it is not interrupted: half-installed packages are what it is for to
// avoid.
func tool(ctx context.Context, name string, args ...string) (agent.Outcome, error) {
	if err := ctx.Err(); err != nil {
		return agent.Outcome{}, err
	}
	cmd := command(context.WithoutCancel(ctx), name, args...)
	err := cmd.Run()
	if cmd.ProcessState == nil {
		return agent.Outcome{}, fmt.Errorf("start %s: %w", name, err)
	}
	return exitOutcome(uint32(cmd.ProcessState.ExitCode())), nil
}

// exitOutcome reads the exit code of a servicing tool: a Win32 error, or an
// HRESULT.
func exitOutcome(code uint32) agent.Outcome {
	const restartRequired, restartInitiated, alreadyInstalled, restart = 3010, 1641, 0x00240006, 0x00240005
	switch {
	case code == restartRequired || code == restartInitiated || code == restart:
		return agent.Outcome{Restart: true}
	case code == 0 || code == alreadyInstalled:
		return agent.Outcome{}
	case code < 1<<16:
		return agent.Outcome{HResult: 0x80070000 | code}
	case int32(code) >= 0: // a success that we do not know is not one to believe
		return agent.Outcome{HResult: codeUnexpected}
	}
	return agent.Outcome{HResult: code}
}
