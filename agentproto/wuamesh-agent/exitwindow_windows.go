package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/windows"

	"wuamesh/agentproto/agent"
)

// countdown is how long the exit window waits for the user.
const countdown = 10 * time.Second

func exitWindowFlags(fs *flag.FlagSet) runner {
	off := fs.Bool("shutdown", false, "shut the host down afterwards")
	wait := fs.Duration("countdown", countdown, "install after this long without an answer")
	return func(ctx context.Context, c *console, o options, args []string) error {
		if len(args) > 0 {
			return usage("it takes no %q", args[0])
		}
		windows.NewLazySystemDLL("kernel32.dll").NewProc("FreeConsole").Call() // one of our own, opened for us alone
		text, goOn, err := leave(*wait)
		if err != nil {
			return err
		}
		if *off && goOn {
			if err := shutDown(ctx); err != nil {
				return err
			}
		}
		return c.done(text)
	}
}

// leave asks the user and has the service install, or not. It says whether
// the host may go down now.
func leave(wait time.Duration) (text string, goOn bool, err error) {
	exit, err := exitAsk(requestExit, nil)
	if errors.Is(err, errNoService) {
		return "The agent's service is not running.", true, nil
	}
	if err != nil {
		return "", false, err
	}
	if exit.Exit == nil || exit.Exit.Why != "" {
		return exit.Exit.Why, true, nil
	}
	switch askUser(*exit.Exit, wait) {
	case answerSkip:
		a, err := exitAsk(requestSkip, nil)
		return a.Text, true, err
	case answerStay:
		return "The host stays on.", false, nil
	}
	a, err := showInstall()
	return a.Text, true, err
}

// exitAsk asks the service by the way that is open to whoever sits here.
func exitAsk(name requestName, doing func(string)) (answer, error) {
	c, err := dialPipe(exitPipeName)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	if doing == nil {
		doing = func(string) {}
	}
	a, err := exchange(c, request{Name: name}, doing)
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	return a, err
}

// What the user answers.
const (
	answerInstall = 100
	answerSkip    = 101
	answerStay    = 2 // IDCANCEL
)

// maxTitles is how many updates the window names.
const maxTitles = 8

// askUser shows what would be installed and waits for an answer; none is
// "install". Where no window can be shown, nobody is there to be asked.
func askUser(e agent.Exit, wait time.Duration) int {
	titles := e.Titles
	more := ""
	if n := len(titles) - maxTitles; n > 0 {
		titles, more = titles[:maxTitles], fmt.Sprintf("\nand %d more", n)
	}
	noun := "updates are"
	if len(e.Titles) == 1 {
		noun = "update is"
	}
	until := time.Now().Add(wait)
	d := dialog{
		title: "Update and shut down", head: fmt.Sprintf("%d %s ready to install", len(e.Titles), noun), text: strings.Join(titles, "\n") + more,
		buttons: []button{{answerInstall, "Install now"}}, cancel: true,
		tick: func(w *dialogWindow) {
			left := time.Until(until)
			if left <= 0 {
				w.click(answerInstall)
			}
			w.footer(fmt.Sprintf("Installs in %d seconds.", int(max(left, 0)/time.Second)))
		},
	}
	if e.MaySkip {
		d.buttons = append(d.buttons, button{answerSkip, "Not this time"})
	}
	got, err := d.show()
	if err != nil {
		return answerInstall
	}
	return got
}

// showInstall has the service install and shows meanwhile what it is at. The
// window may be hidden; the install goes on.
func showInstall() (answer, error) {
	var mu sync.Mutex
	doing, done := "", false
	type result struct {
		a   answer
		err error
	}
	ended := make(chan result, 1)
	go func() {
		a, err := exitAsk(requestShutdown, func(s string) {
			mu.Lock()
			defer mu.Unlock()
			doing = s
		})
		mu.Lock()
		done = true
		mu.Unlock()
		ended <- result{a, err}
	}()
	const hide = 102
	d := dialog{
		title: "Update and shut down", head: "Installing updates", text: " ", progress: true, buttons: []button{{hide, "Hide"}},
		tick: func(w *dialogWindow) {
			mu.Lock()
			defer mu.Unlock()
			w.text(sentence(doing))
			if done {
				w.click(hide)
			}
		},
	}
	d.show() // without a window it is installed all the same
	r := <-ended
	return r.a, r.err
}

// shutDown turns the host off, as its user would.
func shutDown(ctx context.Context) error {
	dir, err := windows.GetSystemDirectory()
	if err != nil {
		return err
	}
	if err := exec.CommandContext(ctx, filepath.Join(dir, "shutdown.exe"), "/s", "/t", "0").Run(); err != nil {
		return fmt.Errorf("shut down: %w", err)
	}
	return nil
}
