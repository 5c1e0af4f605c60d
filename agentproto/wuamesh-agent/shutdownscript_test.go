package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const exe = `C:\Program Files\wuamesh\wuamesh-agent.exe`

// TestShutdownScript turns the script on and off in a policy that has nothing
// yet, and in one of an admin, whose scripts stay as they are.
func TestShutdownScript(t *testing.T) {
	const theirs = "\r\n[Startup]\r\n0CmdLine=a.cmd\r\n0Parameters=\r\n[Shutdown]\r\n0CmdLine=logoff.cmd\r\n0Parameters=/q /n=1\r\n1CmdLine=backup.exe\r\n1Parameters=\r\n"
	const extensions = "[{35378EAC-683F-11D2-A89A-00C04FBBCFA2}{D02B1F72-3407-48AE-BA88-E8213C6761F1}][{827D319E-6EAC-11D2-A4EA-00C04F79F83A}{803E14A0-B4FB-11D0-A0D0-00A0C90F574B}]"
	for name, tt := range map[string]struct {
		scripts, gpt         string
		wantScripts, wantGPT string
	}{
		"nothing yet": {"", "", "[Shutdown]\r\n0CmdLine=" + exe + "\r\n0Parameters=exit-window\r\n",
			"[General]\r\nVersion=1\r\ngPCMachineExtensionNames=" + scriptExtension + "\r\n"},
		"an admin's": {theirs, "[General]\r\ngPCFunctionalityVersion=2\r\ngPCMachineExtensionNames=" + extensions + "\r\nVersion=196613\r\n",
			theirs + "2CmdLine=" + exe + "\r\n2Parameters=exit-window\r\n",
			"[General]\r\ngPCFunctionalityVersion=2\r\ngPCMachineExtensionNames=[{35378EAC-683F-11D2-A89A-00C04FBBCFA2}{D02B1F72-3407-48AE-BA88-E8213C6761F1}]" + scriptExtension + "[{827D319E-6EAC-11D2-A4EA-00C04F79F83A}{803E14A0-B4FB-11D0-A0D0-00A0C90F574B}]\r\nVersion=196614\r\n"},
		"the version turns over": {"", "[General]\nVersion=131071\n", "[Shutdown]\r\n0CmdLine=" + exe + "\r\n0Parameters=exit-window\r\n",
			"[General]\ngPCMachineExtensionNames=" + scriptExtension + "\r\nVersion=65537\n"},
	} {
		t.Run(name, func(t *testing.T) {
			p := localPolicy{t.TempDir()}
			scripts, gpt := filepath.Join(p.dir, "Machine", "Scripts", "scripts.ini"), filepath.Join(p.dir, "gpt.ini")
			if tt.scripts != "" {
				write(t, scripts, toUTF16(tt.scripts))
			}
			if tt.gpt != "" {
				write(t, gpt, []byte(tt.gpt))
			}
			if changed, err := p.setShutdownScript(exe, "exit-window", false); changed || err != nil {
				t.Errorf("taking out what is not there: %v, %v", changed, err)
			}
			if changed, err := p.setShutdownScript(exe, "exit-window", true); !changed || err != nil {
				t.Fatal(changed, err)
			}
			if got := read(t, scripts); got != tt.wantScripts {
				t.Errorf("scripts.ini has\n%q\nwant\n%q", got, tt.wantScripts)
			}
			if got := read(t, gpt); got != tt.wantGPT {
				t.Errorf("gpt.ini has\n%q\nwant\n%q", got, tt.wantGPT)
			}
			if changed, err := p.setShutdownScript(exe, "exit-window", true); changed || err != nil {
				t.Errorf("a second time: %v, %v", changed, err)
			}
			if changed, err := p.setShutdownScript(exe, "exit-window", false); !changed || err != nil {
				t.Fatal(changed, err)
			}
			if got := read(t, scripts); strings.TrimSpace(got) != strings.TrimSpace(tt.scripts) {
				t.Errorf("afterwards scripts.ini has\n%q\nwant\n%q", got, tt.scripts)
			}
		})
	}
}

// TestShutdownScriptOfAnEarlierVersion replaces our own line, and leaves no gap
// in the numbers: Windows stops at one.
func TestShutdownScriptOfAnEarlierVersion(t *testing.T) {
	was := "[Shutdown]\r\n0CmdLine=" + strings.ToUpper(exe) + "\r\n0Parameters=old\r\n1CmdLine=b.cmd\r\n1Parameters=x\r\n"
	want := "[Shutdown]\r\n0CmdLine=b.cmd\r\n0Parameters=x\r\n1CmdLine=" + exe + "\r\n1Parameters=exit-window\r\n"
	if got := withScript(was, exe, "exit-window", true); got != want {
		t.Errorf("%q; want %q", got, want)
	}
}

func FuzzShutdownScript(f *testing.F) {
	f.Add("[Shutdown]\r\n0CmdLine=a\r\n0Parameters=b\r\n", "[General]\r\nVersion=1\r\n")
	f.Add("[Startup]\n[shutdown]\n999CmdLine=\n-1Parameters=\n[x", "Version=99999999999")
	f.Fuzz(func(t *testing.T, scripts, gpt string) {
		on := withScript(scripts, exe, "exit-window", true)
		if !strings.Contains(on, "CmdLine="+exe) || withScript(on, exe, "exit-window", true) != on {
			t.Errorf("%q became %q", scripts, on)
		}
		if off := withScript(on, exe, "exit-window", false); strings.Contains(off, "CmdLine="+exe+"\r\n") {
			t.Errorf("%q is left with %q", scripts, off)
		}
		if next := nextVersion(gpt); !strings.Contains(next, "Version=") || !strings.Contains(strings.ToUpper(next), "{42B5FAAE-") {
			t.Errorf("%q became %q", gpt, next)
		}
	})
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := fromUTF16(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
