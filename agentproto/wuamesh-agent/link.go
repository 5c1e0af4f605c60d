package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"wuamesh/agentproto/agent"
)

// A requestName is what a command asks of the service.
type requestName string

const (
	requestStatus   requestName = "status"
	requestScan     requestName = "scan"
	requestDownload requestName = "download"
	requestInstall  requestName = "install-updates"
	requestEnroll   requestName = "enroll"
	requestRemove   requestName = "uninstall-kb"
	requestExit     requestName = "exit"        // what a shutdown would install
	requestSkip     requestName = "skip"        // the next shutdown installs nothing
	requestShutdown requestName = "at-shutdown" // install now what a shutdown would
)

// A request is one line of JSON from a command to the service.
type request struct {
	Name requestName `json:"request"`
	KB   string      `json:"kb,omitempty"` // of uninstall-kb
}

// An answer is one line of JSON from the service: what it is at, any number
// of times, and at last, with Done, what came of it.
type answer struct {
	Doing  string        `json:"doing,omitempty"`
	Done   bool          `json:"done,omitempty"`
	Text   string        `json:"text,omitempty"`  // one sentence
	Error  string        `json:"error,omitempty"` // why it was not done
	Status *agent.Status `json:"status,omitempty"`
	Exit   *agent.Exit   `json:"exit,omitempty"`
}

// maxLine bounds one line: a status of 20,000 updates stays below.
const maxLine = 32 << 20

// errNoService is that nobody answers at the pipe.
var errNoService = errors.New("the agent's service is not running")

// exchange sends a request and reads to the end what comes of it.
func exchange(conn io.ReadWriter, r request, doing func(string)) (answer, error) {
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return answer{}, fmt.Errorf("ask the agent's service: %w", err)
	}
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			return a, fmt.Errorf("answer of the agent's service: %w", err)
		}
		if a.Done {
			return a, nil
		}
		doing(a.Doing)
	}
	if err := lines.Err(); err != nil {
		return answer{}, fmt.Errorf("answer of the agent's service: %w", err)
	}
	return answer{}, errors.New("the agent's service stopped before it was done")
}

// patience is how long the service waits for a request, and how long for
// somebody to read its answer: whoever may open the pipe must not hold it.
const patience = 30 * time.Second

// A conn is one end of the pipe.
type conn interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// serveOne answers one request. What is being done goes on when whoever asked
// is gone.
func serveOne(ctx context.Context, a *agent.Agent, c conn, allowed func(requestName) bool) error {
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(patience))
	var r request
	if err := json.NewDecoder(io.LimitReader(c, 4<<10)).Decode(&r); err != nil {
		return fmt.Errorf("read a request: %w", err)
	}
	gone := false
	say := func(an answer) {
		if gone {
			return
		}
		c.SetWriteDeadline(time.Now().Add(patience))
		gone = json.NewEncoder(c).Encode(an) != nil
	}
	if !allowed(r.Name) {
		say(answer{Done: true, Error: "only an administrator may ask for this"})
		return nil
	}
	say(perform(ctx, a, r, func(doing string) { say(answer{Doing: doing}) }))
	return nil
}

// perform does what is requested and says meanwhile what it is at.
func perform(ctx context.Context, a *agent.Agent, r request, doing func(string)) answer {
	do, ok := map[requestName]func(context.Context) (string, error){
		requestScan: a.Scan, requestDownload: a.Download, requestInstall: a.Install, requestEnroll: a.Enroll,
		requestRemove:   func(ctx context.Context) (string, error) { return a.RemoveKB(ctx, r.KB) },
		requestShutdown: a.AtShutdown,
		requestSkip: func(context.Context) (string, error) {
			return "The next shutdown installs nothing.", a.SkipShutdown()
		},
	}[r.Name]
	switch {
	case r.Name == requestStatus:
		s := a.Status()
		return answer{Done: true, Status: &s}
	case r.Name == requestExit:
		e := a.Exit(ctx)
		return answer{Done: true, Exit: &e}
	case !ok:
		return answer{Done: true, Error: fmt.Sprintf("the service does not know %q; is it of another version?", string(r.Name))}
	}
	type result struct {
		text string
		err  error
	}
	ended := make(chan result, 1)
	go func() {
		text, err := do(ctx)
		ended <- result{text, err}
	}()
	for {
		now, changed := a.Doing()
		doing(now)
		select {
		case <-changed:
		case r := <-ended:
			if r.err != nil {
				return answer{Done: true, Error: r.err.Error()}
			}
			return answer{Done: true, Text: r.text}
		}
	}
}
