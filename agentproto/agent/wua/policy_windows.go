package wua

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/windows/registry"
)

const (
	updatePolicies = `SOFTWARE\Policies\Microsoft\Windows\WindowsUpdate`
	autoUpdate     = updatePolicies + `\AU`
	// savedPolicies holds, by the path of a policy, what it was before: a
	// number, or the empty text when it was not set.
	savedPolicies = `SOFTWARE\wuamesh\Saved`
)

// A policy is a value by which Windows leaves its updating to us.
type policy struct {
	key, name string
	value     uint32
}

// policies leave Windows' own API alone: DisableWindowsUpdateAccess would
// close it to the agent too. DESIGN.md of package agent says what each does.
var policies = []policy{
	{autoUpdate, "NoAutoUpdate", 1},
	{autoUpdate, "NoAutoRebootWithLoggedOnUsers", 1},
	{updatePolicies, "SetDisableUXWUAccess", 1},
	{updatePolicies, "ExcludeWUDriversInQualityUpdate", 1},
}

func (p policy) path() string { return p.key + `\` + p.name }

// TakeOver implements [agent.Machine]. A policy is set once; one that is
// something else afterwards was set by a group policy, which would win in the
// end whatever we did.
func (h *Host) TakeOver(ctx context.Context, on bool) (drift []string, err error) {
	saved, _, err := registry.CreateKey(registry.LOCAL_MACHINE, savedPolicies, registry.QUERY_VALUE|registry.SET_VALUE|registry.WOW64_64KEY)
	if err != nil {
		return nil, win32("RegCreateKeyEx", err)
	}
	defer saved.Close()
	for _, p := range policies {
		if err := ctx.Err(); err != nil {
			return drift, err
		}
		if !on {
			if err := p.restore(saved); err != nil {
				return drift, fmt.Errorf("put back the policy %s: %w", p.path(), err)
			}
			continue
		}
		said, err := p.take(saved)
		if err != nil {
			return drift, fmt.Errorf("set the policy %s: %w", p.path(), err)
		}
		if said != "" {
			drift = append(drift, said)
		}
	}
	if on {
		drift = append(drift, otherMasters()...)
	}
	return drift, nil
}

// take sets the policy and keeps what was before; if that was done already,
// it says what somebody else has made of it.
func (p policy) take(saved registry.Key) (drift string, err error) {
	k, _, err := registry.CreateKey(registry.LOCAL_MACHINE, p.key, registry.QUERY_VALUE|registry.SET_VALUE|registry.WOW64_64KEY)
	if err != nil {
		return "", win32("RegCreateKeyEx", err)
	}
	defer k.Close()
	was, wasSet, err := number(k, p.name)
	if err != nil {
		return "", err
	}
	if _, _, err := saved.GetValue(p.path(), nil); err == nil {
		if !wasSet || was != p.value {
			return fmt.Sprintf("The policy HKLM\\%s should be %d; something else on this host or a group policy changed it.", p.path(), p.value), nil
		}
		return "", nil
	}
	if wasSet {
		err = saved.SetDWordValue(p.path(), was)
	} else {
		err = saved.SetStringValue(p.path(), "")
	}
	if err != nil {
		return "", win32("RegSetValueEx", err)
	}
	return "", win32("RegSetValueEx", k.SetDWordValue(p.name, p.value))
}

// restore puts back what was, unless somebody else has changed it since.
func (p policy) restore(saved registry.Key) error {
	_, kind, err := saved.GetValue(p.path(), nil)
	if errors.Is(err, registry.ErrNotExist) {
		return nil // it was never ours
	}
	if err != nil && !errors.Is(err, registry.ErrShortBuffer) {
		return win32("RegQueryValueEx", err)
	}
	before, _, _ := saved.GetIntegerValue(p.path())
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, p.key, registry.QUERY_VALUE|registry.SET_VALUE|registry.WOW64_64KEY)
	if err != nil && !errors.Is(err, registry.ErrNotExist) {
		return win32("RegOpenKeyEx", err)
	}
	if err == nil {
		defer k.Close()
		if now, set, err := number(k, p.name); err == nil && set && now == p.value {
			if kind == registry.DWORD {
				err = k.SetDWordValue(p.name, uint32(before))
			} else {
				err = k.DeleteValue(p.name)
			}
			if err != nil {
				return win32("RegSetValueEx", err)
			}
		}
	}
	return win32("RegDeleteValue", saved.DeleteValue(p.path()))
}

// number reads a DWORD that may not be there.
func number(k registry.Key, name string) (value uint32, set bool, err error) {
	n, _, err := k.GetIntegerValue(name)
	switch {
	case errors.Is(err, registry.ErrNotExist):
		return 0, false, nil
	case errors.Is(err, registry.ErrUnexpectedType):
		return 0, true, nil
	case err != nil:
		return 0, false, win32("RegQueryValueEx", err)
	}
	return uint32(n), true, nil
}

// otherMasters says which policies of others stand in the way.
func otherMasters() (said []string) {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, updatePolicies, registry.QUERY_VALUE|registry.WOW64_64KEY)
	if err != nil {
		return nil
	}
	defer k.Close()
	if n, _, _ := number(k, "DisableWindowsUpdateAccess"); n != 0 {
		said = append(said, "The policy DisableWindowsUpdateAccess is set: it closes Windows Update to the agent too. Remove it.")
	}
	if server, _, err := k.GetStringValue("WUServer"); err == nil && server != "" {
		said = append(said, fmt.Sprintf("A WSUS policy names %q: two masters look after this host. The agent's scans do not ask it.", server))
	}
	return said
}
