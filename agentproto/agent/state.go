package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// schema is the number of the files on disk. A file of another schema is set
// aside like a corrupt one: everything in it can be had again.
const schema = 1

// The files of the state directory. What is small and changes often is apart
// from what is large and changes with a scan, and from what cannot be had
// again: the key.
const (
	identityFile = "identity.json"
	stateFile    = "state.json"
	scanFile     = "scan.json"
)

// state is what the agent remembers from one run to the next, besides who it
// is and what the last scan found.
type state struct {
	Schema     int           `json:"schema"`
	Policy     *rules.Policy `json:"policy,omitempty"` // nil until a node sent one
	PolicyHash string        `json:"policy_hash,omitempty"`
	Told       []string      `json:"told,omitempty"`   // nodes, as the last check-in named them, and those that one which left named
	Placed     bool          `json:"placed,omitempty"` // the mesh knew where the host is
	Only       bool          `json:"only,omitempty"`   // no other node may be asked
	Asked      []string      `json:"asked,omitempty"`  // the nodes of wapt-get.ini at that time
	Checked    time.Time     `json:"checked,omitzero"` // when that was

	Cab     string             `json:"cab,omitempty"`      // SHA-256 of the scan cab we hold, verified
	WantCab *agentproto.CabRef `json:"want_cab,omitempty"` // the node's

	Sent     string                 `json:"sent,omitempty"`   // hash of the statuses a node has
	Lacks    []agentproto.UpdateRef `json:"lacks,omitempty"`  // descriptions a node asked for and has not got
	Unsent   bool                   `json:"unsent,omitempty"` // the last scan was not reported yet
	LastScan attemptAt              `json:"last_scan"`
	Rescan   bool                   `json:"rescan,omitempty"` // something was installed since the last scan
	Install  attemptAt              `json:"install"`

	Pushed   map[string]pushed `json:"pushed,omitempty"`    // options of [waptwua] that the mesh set in wapt-get.ini
	TookOver bool              `json:"took_over,omitempty"` // Windows' own updating is ours
	Hid      []rules.UpdateID  `json:"hid,omitempty"`       // taken out of Windows' own list by us

	Tried    map[rules.UpdateID]tried `json:"tried,omitempty"`
	Commands []ledgerEntry            `json:"commands,omitempty"` // oldest first, at most maxLedger
	Failures []agentproto.Failure     `json:"failures,omitempty"` // newest first, at most maxFailures
	Clock    *agentproto.ClockOff     `json:"clock,omitempty"`    // as the last check-in found it
	Outbox   outbox                   `json:"outbox"`
}

// attemptAt is when something recurring last began and how it went.
type attemptAt struct {
	At      time.Time `json:"at,omitzero"`
	Share   float64   `json:"share"`             // of the jitter, drawn anew each time
	Failed  int       `json:"failed,omitempty"`  // times in a row
	HResult uint32    `json:"hresult,omitempty"` // of the last failure, if Windows gave one
}

// tried is what became of the tries to install one update.
type tried struct {
	Revision int       `json:"revision,omitempty"` // that was tried
	HResult  uint32    `json:"hresult"`
	At       time.Time `json:"at"`
	Count    int       `json:"count"`             // failures in a row
	Restart  bool      `json:"restart,omitempty"` // installed, waits for a restart
	Booted   bool      `json:"booted,omitempty"`  // the host has restarted since a failure
	Deltas   bool      `json:"deltas,omitempty"`  // Windows refused the full files alone, or what its cache had
	Package  bool      `json:"package,omitempty"` // it refused the deltas too: its servicing tools are given the file
}

// awaitsRestart says whether an update is tried again after a restart.
func (s *state) awaitsRestart() bool {
	for _, t := range s.Tried {
		if t.Restart || t.Count > 0 && !t.Booted && agentproto.Explain(t.HResult).Class == agentproto.ClassRestart {
			return true
		}
	}
	return false
}

// isLater says whether something happened after now: by a clock that was wrong.
func (s *state) isLater(now time.Time) bool {
	later := s.LastScan.At.After(now) || s.Install.At.After(now)
	for _, t := range s.Tried {
		later = later || t.At.After(now)
	}
	return later
}

// notLater brings what happened after now, by a clock that was wrong then, to
// now: the next scan would be due in years, and a restart would never count as
// later than the install that waits for it.
func (s *state) notLater(now time.Time) {
	for _, at := range []*attemptAt{&s.LastScan, &s.Install} {
		if at.At.After(now) {
			at.At = now
		}
	}
	for id, t := range s.Tried {
		if t.At.After(now) {
			t.At = now.UTC()
			s.Tried[id] = t
		}
	}
}

// outbox is what the node has to be told and has not taken yet.
type outbox struct {
	Commands []agentproto.CommandResult `json:"commands,omitempty"`
	Installs []agentproto.InstallResult `json:"installs,omitempty"`
}

// maxOutbox bounds what waits while no node answers; the oldest go first,
// because the statuses of the next report say the same.
const maxOutbox = 500

func (o *outbox) empty() bool { return len(o.Commands)+len(o.Installs) == 0 }

func (o *outbox) addCommand(r agentproto.CommandResult) {
	o.Commands = append(o.Commands, r)
	o.Commands = o.Commands[max(0, len(o.Commands)-maxOutbox):]
}

func (o *outbox) addInstall(r agentproto.InstallResult) {
	o.Installs = append(o.Installs, r)
	o.Installs = o.Installs[max(0, len(o.Installs)-maxOutbox):]
}

// scan is the last scan that succeeded.
type scan struct {
	Schema  int           `json:"schema"`
	Cab     string        `json:"cab"`   // SHA-256 of the scan cab
	Rules   string        `json:"rules"` // hash of the policy at the time
	Started time.Time     `json:"started"`
	Took    time.Duration `json:"took"`
	Error   string        `json:"error,omitempty"` // of the last try, if it failed
	HResult uint32        `json:"hresult,omitempty"`
	Found   []Found       `json:"found"` // of the last that succeeded
}

// load reads a file of the state directory into v. A file that is not there
// leaves v alone; one that cannot be understood is kept aside as .bad, for
// whoever wants to know, and v is left alone too.
func load(log *slog.Logger, dir, name string, v any) error {
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the agent's state: %w", err)
	}
	var head struct {
		Schema int `json:"schema"`
	}
	if err = json.Unmarshal(b, &head); err == nil && head.Schema != schema {
		err = fmt.Errorf("schema %d, this agent knows %d", head.Schema, schema)
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err == nil {
		return nil
	}
	log.Warn("state not understood, set aside; starting afresh", "path", path+".bad", "err", err)
	if err := os.Rename(path, path+".bad"); err != nil {
		return fmt.Errorf("set the corrupt state aside: %w", err)
	}
	return nil
}

// store replaces a file of the state directory as a whole: after a power cut
// it is the old one or the new one.
func store(dir, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return replaceFile(filepath.Join(dir, name), b)
}

// replaceFile writes beside path, flushes, and renames over it.
func replaceFile(path string, b []byte) (err error) {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write the agent's state: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("write the agent's state: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// A ledgerEntry is a command the agent took on, so that it does each id once
// however often and by whichever way a node sends it.
type ledgerEntry struct {
	agentproto.Command
	Stage stage `json:"stage"`
}

// A stage is how far a command has come.
type stage string

const (
	stageNew     stage = "new"     // taken on
	stageFetch   stage = "fetch"   // an install that fetches its files first
	stageFetched stage = "fetched" // and may now begin
	stageRunning stage = "running"
	stageEnded   stage = "ended"
)

// maxLedger bounds how many commands are remembered. A node forgets a command
// when its result has come, long before two hundred later ones.
const maxLedger = 200

// take puts a command on the ledger, unless it is there.
func (s *state) take(c agentproto.Command) bool {
	if slices.ContainsFunc(s.Commands, func(e ledgerEntry) bool { return e.ID == c.ID }) {
		return false
	}
	s.Commands = append(s.Commands, ledgerEntry{c, stageNew})
	if over := len(s.Commands) - maxLedger; over > 0 {
		// What has not ended stays, however old.
		s.Commands = slices.DeleteFunc(s.Commands, func(e ledgerEntry) bool {
			drop := over > 0 && e.Stage == stageEnded
			if drop {
				over--
			}
			return drop
		})
	}
	return true
}

// move sets the stage of a command.
func (s *state) move(id string, to stage) {
	for i := range s.Commands {
		if s.Commands[i].ID == id {
			s.Commands[i].Stage = to
		}
	}
}
