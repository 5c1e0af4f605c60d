package main

import (
	"os"
	"testing"
	"time"

	"wuamesh/agentproto/agent"
)

// TestAskUser shows the window where there is a screen; without one nobody
// can be asked, and it is installed.
func TestAskUser(t *testing.T) {
	e := agent.Exit{MaySkip: true, Titles: []string{
		"2026-11 Cumulative Update for Windows 11 Version 25H2 for x64-based Systems (KB5091157)",
		"2026-11 Security Update for .NET Framework 3.5 and 4.8.1 (KB5091158)",
	}}
	wait := 300 * time.Millisecond
	if s := os.Getenv("WUAMESH_LOOK"); s != "" {
		wait, _ = time.ParseDuration(s) // for a person who wants to see it
	}
	if got := askUser(e, wait); got != answerInstall {
		t.Errorf("the answer is %d", got)
	}
	d := dialog{title: "Update and shut down", head: "Installing updates", text: " ", progress: true, buttons: []button{{102, "Hide"}}, tick: func(w *dialogWindow) {
		w.text("Installing 2026-11 Cumulative Update for Windows 11 (KB5091157)")
		if wait -= 200 * time.Millisecond; wait < 0 {
			w.click(102)
		}
	}}
	if got, err := d.show(); err == nil && got != 102 {
		t.Errorf("the answer is %d", got)
	}
}
