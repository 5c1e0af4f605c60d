// Package agent keeps one Windows host up to date as its mesh wishes. It is
// portable: what it needs of the host is the interface [Machine].
//
// The agent enrols once, and from then on it turns four wheels, each at its
// own pace, so that none can hold up another:
//
//   - contact: it checks in with its node, reports, and delivers results;
//   - events: it listens for commands and for new policies;
//   - fetch: it downloads the scan cab and the files of allowed updates;
//   - windows: it has Windows scan and install, one pass at a time.
//
// What it learns and does is on disk before it is told to anyone, so it may
// be stopped at any point: the next start goes on from there. See DESIGN.md.
package agent

import (
	"bytes"
	"cmp"
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// Options say where the agent lives and on what machine.
type Options struct {
	Dir     string   // state and downloads; one agent at a time
	INI     string   // path of wapt-get.ini
	Machine Machine  // the host
	Nodes   []string // base URLs to ask when wapt-get.ini names none
	Version string   // of the agent, for the node and the log
	Log     *slog.Logger
	Seed    uint64 // of the jitter; 0 for a random one

	// Connect makes the client to the nodes; nil for [agentproto.NewClient].
	Connect func(agentproto.ClientOptions) (Node, error)
	// Microsoft carries requests for direct_download; nil for one that uses
	// the proxy of the environment.
	Microsoft http.RoundTripper
}

// A Node is the wire to the nodes: an [agentproto.Client], or a double in
// tests of schedules that need virtual time, which real sockets do not have.
type Node interface {
	Enroll(context.Context, agentproto.EnrollRequest) (agentproto.EnrollResponse, error)
	Checkin(context.Context, agentproto.Checkin) (agentproto.CheckinResponse, error)
	Report(context.Context, agentproto.Report) (agentproto.ReportResponse, error)
	Results(context.Context, agentproto.Results) error
	Events(context.Context, func(agentproto.Event) error) error
	Fetch(ctx context.Context, name string, offset int64, etag string) (agentproto.Content, error)
	Nodes() []string
	SetNodes([]string) error
	Close()
}

// An Agent is one host's.
type Agent struct {
	dir, ini, version string
	spare             []string // Options.Nodes
	machine           Machine
	log               *slog.Logger
	connect           func(agentproto.ClientOptions) (Node, error)
	microsoft         *http.Client
	cabs, files       files

	contact, fetch, windows *wheel // who turns one has its turn

	mu        sync.Mutex // guards what follows
	rand      *rand.Rand
	conf      Config
	stamp     stamp
	id        identity
	st        state
	stored    []byte    // st as it is on disk
	checked   time.Time // the last check-in that was answered
	scan      scan
	link      Node          // nil until enrolled
	relinked  chan struct{} // closed when link changes
	doing     map[string]string
	said      chan struct{}     // closed when doing changes
	trouble   map[string]string // by part: what an admin should know
	waits     map[string]wait   // by file: when it may be asked for again
	nextCheck time.Time
	hurry     bool // check in at the next turn of contact, due or not
	reported  time.Time
	lastErr   string
	skip      bool      // the user skips the install at the next shutdown
	full      bool      // the disk, when something was to be downloaded last
	clockTold time.Time // when a check-in was last made only to tell of the clock

	noMicrosoft time.Time // until then Microsoft is asked after the node: it could not be reached
}

// Open reads the state and wapt-get.ini. It starts nothing and asks nobody.
func Open(o Options) (*Agent, error) {
	a := &Agent{
		dir: o.Dir, ini: o.INI, version: cmp.Or(o.Version, "dev"), spare: o.Nodes, machine: o.Machine,
		log: o.Log.With("part", "agent"), connect: o.Connect,
		microsoft: directClient(o.Microsoft),
		cabs:      files{filepath.Join(o.Dir, "cab")}, files: files{filepath.Join(o.Dir, "files")},
		contact: newWheel(), fetch: newWheel(), windows: newWheel(),
		relinked: make(chan struct{}), doing: map[string]string{}, said: make(chan struct{}), trouble: map[string]string{}, waits: map[string]wait{},
	}
	if a.connect == nil {
		a.connect = func(o agentproto.ClientOptions) (Node, error) { return agentproto.NewClient(o) }
	}
	seed := o.Seed
	if seed == 0 {
		var b [8]byte
		crand.Read(b[:]) // never fails, see crypto/rand
		seed = binary.LittleEndian.Uint64(b[:])
	}
	a.rand = rand.New(rand.NewPCG(seed, 0))
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the agent's directory: %w", err)
	}
	if err := errors.Join(a.cabs.open(), a.files.open()); err != nil {
		return nil, err
	}
	id, err := loadIdentity(a.log, o.Dir)
	if err != nil {
		return nil, err
	}
	if err := load(a.log, o.Dir, stateFile, &a.st); err != nil {
		return nil, err
	}
	if err := load(a.log, o.Dir, scanFile, &a.scan); err != nil {
		return nil, err
	}
	a.st.Schema, a.scan.Schema = schema, schema
	if a.st.Tried == nil {
		a.st.Tried = map[rules.UpdateID]tried{}
	}
	a.conf = ParseINI(nil)
	a.readINI()
	a.resume()
	if err := a.setIdentity(id); err != nil {
		a.log.Warn("the certificate cannot be used; enrolling again", "err", err)
		id.Certificate = nil
		return a, a.setIdentity(id)
	}
	return a, nil
}

// Close ends idle connections. Run must have returned.
func (a *Agent) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.link != nil {
		a.link.Close()
	}
	return nil
}

// Run turns the wheels until ctx ends; then it returns nil, when everything
// it started has ended and the Windows Update service is as it should be.
func (a *Agent) Run(ctx context.Context) error {
	a.serviceAtRest(ctx) // an agent that was killed could not
	g, ctx := errgroup.WithContext(ctx)
	part := func(name string, run func(context.Context) error) {
		g.Go(func() error {
			err := run(ctx)
			if ctx.Err() != nil {
				return nil // asked to stop
			}
			return fmt.Errorf("%s stopped: %w", name, cmp.Or(err, errEnded))
		})
	}
	part("contact", a.runContact)
	part("events", a.runEvents)
	part("fetch", a.runFetch)
	part("windows", a.runWindows)
	part("config", a.runConfig)
	return g.Wait()
}

var errEnded = errors.New("ended by itself")

// A wheel is work of which only one turn is made at a time, and which can be
// asked for another one.
type wheel struct {
	turn chan struct{} // holds a token while nobody turns
	kick chan struct{}
}

func newWheel() *wheel {
	w := &wheel{make(chan struct{}, 1), make(chan struct{}, 1)}
	w.turn <- struct{}{}
	return w
}

// take waits for the turn. The caller gives it back with give.
func (w *wheel) take(ctx context.Context) error {
	select {
	case <-w.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *wheel) give() { w.turn <- struct{}{} }

// now asks for a turn as soon as may be.
func (w *wheel) now() {
	select {
	case w.kick <- struct{}{}:
	default: // somebody asked already
	}
}

// wait returns when somebody asks for a turn, after d, or when ctx ends.
func (w *wheel) wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-w.kick:
	case <-t.C:
	case <-ctx.Done():
	}
}

// change alters the state and puts it on disk before anyone can act on it.
func (a *Agent) change(f func(*state)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(&a.st)
	b, err := json.Marshal(&a.st)
	if err != nil {
		return fmt.Errorf("encode the agent's state: %w", err)
	}
	if bytes.Equal(b, a.stored) {
		return nil // most check-ins bring nothing new: spare the disk
	}
	if err := replaceFile(filepath.Join(a.dir, stateFile), b); err != nil {
		return err
	}
	a.stored = b
	return nil
}

// note is change for callers that go on either way: what did not get to disk
// is in memory, and the next change writes it again.
func (a *Agent) note(f func(*state)) {
	err := a.change(f)
	if err != nil {
		a.log.Error("the agent's state could not be written", "err", err)
	}
	a.warn("state", err)
}

// share draws a number from 0 to 1 for jitter.
func (a *Agent) share() float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rand.Float64()
}

// policy is what the agent works by: the node's, which was made from the
// agent's own settings and those of its groups, or while there is none its
// own settings alone.
func (a *Agent) policy() (rules.Policy, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.policyLocked()
}

func (a *Agent) policyLocked() (rules.Policy, string) {
	if a.st.Policy != nil {
		return *a.st.Policy, a.st.Policy.Hash()
	}
	p := rules.Policy{Settings: a.ownLocked()}
	return p, p.Hash()
}

// choices decides, now, about everything the last scan found.
func (a *Agent) choices() []choice {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, _ := a.policyLocked()
	return decide(a.scan.Found, p, a.st.Tried, a.onDisk, time.Now())
}

// onDisk says whether every file of an update is among the downloads.
func (a *Agent) onDisk(c choice) bool {
	files := c.files()
	return len(files) > 0 && !slices.ContainsFunc(files, func(f agentproto.File) bool { return !a.files.holds(want(f)) })
}

// say shows what a part of the agent is at; the empty text when it is done.
func (a *Agent) say(part, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.doing[part] == text {
		return
	}
	if text == "" {
		delete(a.doing, part)
	} else {
		a.doing[part] = text
	}
	close(a.said)
	a.said = make(chan struct{})
}

// Doing says in a few words what the agent is at, empty when at nothing, and
// returns a channel that is closed when that changes.
func (a *Agent) Doing() (string, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.doingLocked(), a.said
}

// warn keeps what an admin should know about a part until it is over.
func (a *Agent) warn(part string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		delete(a.trouble, part)
	} else {
		a.trouble[part] = oneLine(err.Error(), 500)
	}
}

// facts are the machine's, in order.
func (a *Agent) facts(ctx context.Context) (agentproto.Facts, error) {
	f, err := a.machine.Facts(ctx)
	if err != nil {
		return f, fmt.Errorf("read the facts of the host: %w", err)
	}
	return cleanFacts(f), nil
}
