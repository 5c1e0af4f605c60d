package appliance

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/replicate"
)

// Two edits met when two admins changed the same thing and neither knew of
// the other's change: on two sides of a cut, or in the same moment. One of
// them holds, everywhere the same. The store notices it for one record
// (replicate.Meeting). Here is noticed what is two records: a line that is
// allowed and forbidden, and a package, group or profile that was deleted
// while someone added to it. Either is noted by the nodes that made the edits, both with the
// same record and the same entry of the audit log.
type (
	meetingRecord struct {
		Key     string      `json:"key"` // of the record that holds
		Won     meetingSide `json:"won"`
		Lost    meetingSide `json:"lost"`
		Settled *editRecord `json:"settled,omitempty"`
	}
	meetingSide struct {
		Key   string          `json:"key"`
		By    string          `json:"by"`
		Node  string          `json:"node"` // name of the node where it was made
		At    time.Time       `json:"at"`
		Value json.RawMessage `json:"value,omitempty"` // nil for a deletion
	}
)

// A MeetingRow is two edits that met and that nobody has looked at yet.
type MeetingRow struct {
	ID     string      `json:"id"`
	Object string      `json:"object"` // as the audit log names it
	Won    MeetingSide `json:"won"`    // what holds
	Lost   MeetingSide `json:"lost"`
	// Both says that both stand, and Won decides: a line that is forbidden and
	// allowed, or one in a package that was deleted. Else what was lost is
	// nowhere but here.
	Both bool `json:"both,omitempty"`
	// Final says that the other side cannot be taken by a button.
	Final bool `json:"final,omitempty"`
}

// A MeetingSide is one of two edits that met.
type MeetingSide struct {
	By   string    `json:"by"`
	Node string    `json:"node"`
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// meets chooses the records that admins edit; a host says what is new of it
// again and again.
func meets(key string) bool {
	kind, _, _ := strings.Cut(key, "/")
	return intents[kind] != nil && kind != "host"
}

// intents say, of each kind of record that admins edit, what it is about and
// what an edit says, for people. value is nil for a deletion.
var intents = map[string]func(id string, value []byte) (object, text string){
	"package": func(id string, value []byte) (string, string) {
		r, ok := decoded[packageRecord](value)
		text := "maturity " + string(r.Maturity)
		if r.Description != "" {
			text += fmt.Sprintf(", description %q", r.Description)
		}
		return "package " + id, or(ok, text, "deleted it")
	},
	"line": func(id string, value []byte) (string, string) {
		name, line := lineOf(id)
		return "package " + name, or(value != nil, line.String(), "took out "+line.String())
	},
	"stop": func(id string, value []byte) (string, string) {
		update, _, _ := strings.Cut(id, "/")
		r, ok := decoded[stopRecord](value)
		return "update " + update, or(ok, "emergency stop: "+r.Reason, "undid the emergency stop")
	},
	"ring": func(id string, value []byte) (string, string) {
		r, ok := decoded[ringRecord](value)
		return "package " + id, or(ok, "promoted by itself "+r.Ring.String(), "no longer promoted by itself")
	},
	"assign": func(id string, value []byte) (string, string) {
		name, to, _ := strings.Cut(id, "/")
		to = strings.Replace(to, "/", " ", 1)
		return "package " + name, or(value != nil, "assigned to "+to, "no longer assigned to "+to)
	},
	"group": func(id string, value []byte) (string, string) {
		r, ok := decoded[groupRecord](value)
		text := fmt.Sprintf("accepts %v, description %q", r.Accepts, r.Description)
		if options := changes(nil, r.Settings, nil); options != "" {
			text += ", " + options
		}
		return "group " + id, or(ok, text, "deleted it")
	},
	"member": func(id string, value []byte) (string, string) {
		name, host, _ := strings.Cut(id, "/")
		return "group " + name, or(value != nil, "host "+host+" is a member", "host "+host+" is no member")
	},
	"term": func(id string, value []byte) (string, string) {
		name, k := termOf(id)
		what := string(k.fact) + " " + k.value
		return "group " + name, or(value != nil, "its condition has "+what, "its condition has no "+what)
	},
	"profile": func(id string, value []byte) (string, string) {
		r, ok := decoded[profileRecord](value)
		return "profile " + id, or(ok, fmt.Sprintf("description %q, or its place in the order", r.Description), "deleted it")
	},
	"option": func(id string, value []byte) (string, string) {
		name, key, _ := strings.Cut(id, "/")
		r, ok := decoded[optionRecord](value)
		return "profile " + name, or(ok, key+" = "+r.Value, "no longer sets "+key)
	},
	"grant": func(id string, value []byte) (string, string) {
		name, to, _ := strings.Cut(id, "/")
		to = strings.Replace(to, "/", " ", 1)
		return "profile " + name, or(value != nil, "given to "+to, "no longer given to "+to)
	},
	"repository-rule": func(id string, value []byte) (string, string) {
		r, ok := decoded[repositoryRuleRecord](value)
		return repositoryObject(cmp.Or(r.Name, id)), or(ok, r.text(r.Target), "deleted it")
	},
	"limits": func(id string, value []byte) (string, string) {
		r, _ := decoded[Limits](value)
		site, _ := hex.DecodeString(id)
		return "site " + string(site), "limits: " + r.String()
	},
	"compliance": func(_ string, value []byte) (string, string) {
		r, ok := decoded[ComplianceRule](value)
		return "mesh", or(ok, r.String(), defaultCompliance.String())
	},
	"host": func(id string, value []byte) (string, string) {
		return "host " + id, or(value != nil, "its facts", "removed it")
	},
	"admin": func(id string, value []byte) (string, string) {
		r, ok := decoded[adminRecord](value)
		return "admin " + id, or(ok, "role "+string(r.Role)+", or another password", "deleted the account")
	},
}

func or[T any](yes bool, a, b T) T {
	if yes {
		return a
	}
	return b
}

func decoded[T any](value []byte) (v T, ok bool) {
	return v, value != nil && json.Unmarshal(value, &v) == nil
}

// lineOf takes the id of a line's record apart.
func lineOf(id string) (name string, l rules.Line) {
	name, rest, _ := strings.Cut(id, "/")
	if parts := strings.Split(rest, "/"); len(parts) == 3 {
		l = rules.Line{Verb: rules.Verb(parts[2]), Kind: rules.Kind(parts[0]), Value: parts[1]}
	}
	return name, l
}

func intentOf(key string, value []byte) (object, text string) {
	kind, id, _ := strings.Cut(key, "/")
	if say := intents[kind]; say != nil {
		return say(id, value)
	}
	return kind + " " + id, or(value != nil, "changed", "deleted")
}

// agree says that two edits of one record want the same: they differ in who
// made them and when.
func agree(a, b replicate.Record) bool {
	if a.Deleted || b.Deleted {
		return a.Deleted == b.Deleted
	}
	bare := func(value []byte) map[string]any {
		m := map[string]any{}
		_ = json.Unmarshal(value, &m) // what is no object agrees with nothing else
		delete(m, "by")
		delete(m, "at")
		return m
	}
	x, _ := json.Marshal(bare(a.Value))
	y, _ := json.Marshal(bare(b.Value))
	return string(x) == string(y)
}

// keepMeetings notes the edits that met, until ctx ends.
func (a *Appliance) keepMeetings(ctx context.Context) error {
	for {
		if err := errors.Join(a.settleMeetings(ctx), a.noteContradictions(ctx)); err != nil && ctx.Err() == nil {
			a.log.WarnContext(ctx, "edits that met are not noted, trying again later", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.db.Met():
		case <-a.cat.contrary:
		case <-time.After(10 * time.Minute):
		}
	}
}

// settleMeetings notes what the store noticed.
func (a *Appliance) settleMeetings(ctx context.Context) error {
	some := false
	err := a.db.View(ctx, func(tx *replicate.Tx) error {
		for _, err := range tx.Meetings() {
			some = true
			return err
		}
		return nil
	})
	if err != nil || !some {
		return err
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		for m, err := range tx.Meetings() {
			if err != nil {
				return err
			}
			if meets(m.Won.Key) && !agree(m.Won, m.Lost) {
				if err := a.noteMeeting(tx, m.Won, m.Lost); err != nil {
					return err
				}
			}
			if err := tx.Settle(m); err != nil {
				return err
			}
		}
		return nil
	})
}

// noteContradictions notes records that stand beside their contrary, by edits
// on two nodes of which one is this.
func (a *Appliance) noteContradictions(ctx context.Context) error {
	pairs := a.cat.contradictions()
	if len(pairs) == 0 {
		return nil
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		for _, p := range pairs {
			won, err := tx.Record(p.won)
			if err != nil && (!errors.Is(err, replicate.ErrNotFound) || !won.Deleted) {
				return skipAbsent(err)
			}
			lost, err := tx.Record(p.lost)
			if err != nil {
				return skipAbsent(err)
			}
			x, y, me := nodeOf(won), nodeOf(lost), a.db.NodeID()
			if x != y && (x == me || y == me) {
				if err := a.noteMeeting(tx, won, lost); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// skipAbsent leaves alone what was taken out meanwhile.
func skipAbsent(err error) error {
	if errors.Is(err, replicate.ErrNotFound) {
		return nil
	}
	return err
}

// A contradiction is two records that should not both stand, by their keys.
// The one that won may be a deletion.
type contradiction struct{ won, lost string }

func (c *catalogue) contradictions() (list []contradiction) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for name, p := range c.packages {
		for l := range p.lines {
			other := l
			other.Verb = rules.Forbid
			key := lines.prefix + lineID(name, l)
			if _, both := p.lines[other]; both && l.Verb == rules.Allow {
				list = append(list, contradiction{lines.prefix + lineID(name, other), key})
			}
			if !p.exists {
				list = append(list, contradiction{packages.prefix + name, key})
			}
		}
	}
	for name, p := range c.profiles {
		if !p.exists {
			list = append(list, p.leftOver(name)...)
		}
	}
	for name, g := range c.groups {
		for id := range g.members {
			if !g.exists {
				list = append(list, contradiction{groups.prefix + name, members.prefix + name + "/" + string(id)})
			}
		}
		for k := range g.terms {
			if !g.exists {
				list = append(list, contradiction{groups.prefix + name, terms.prefix + termID(name, k)})
			}
		}
	}
	return list
}

// nodeOf is the id of the node that wrote a record.
func nodeOf(r replicate.Record) string {
	id, _, _ := strings.Cut(r.Version.Writer, ".")
	return id
}

// noteMeeting keeps a meeting and its entry in the audit log. Both are made of
// what the two records say alone, so that two nodes which note it write the
// same; what is there stays, looked at or not.
func (a *Appliance) noteMeeting(tx *replicate.Tx, won, lost replicate.Record) error {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %v %s %v", won.Key, won.Version, lost.Key, lost.Version))
	id := hex.EncodeToString(sum[:12])
	if _, known, err := meetings.find(tx, id); err != nil || known {
		return err
	}
	w, err := a.sideOf(tx, won)
	if err != nil {
		return err
	}
	l, err := a.sideOf(tx, lost)
	if err != nil {
		return err
	}
	m := meetingRecord{Key: won.Key, Won: w, Lost: l}
	if err := meetings.put(tx, id, m); err != nil {
		return err
	}
	row := m.row(id)
	at := fmt.Sprintf("%016x-%s", ^uint64(max(won.Version.Clock, lost.Version.Clock)), id[:8])
	a.log.Info("two edits met", "object", row.Object, "won", row.Won.Text, "lost", row.Lost.Text)
	return audits.put(tx, at, AuditEntry{
		ID: at, At: slices.MaxFunc([]time.Time{w.At, l.At}, time.Time.Compare), Actor: w.By + " and " + l.By, Node: w.Node + " and " + l.Node,
		Action: "two edits met", Object: row.Object, Before: row.Lost.String(), After: row.Won.String() + or(row.Both, ", which holds: forbid wins", ", which holds"),
	})
}

// String says who wanted what, where and when.
func (s MeetingSide) String() string {
	return fmt.Sprintf("%s by %s on %s at %s", s.Text, s.By, s.Node, s.At.UTC().Format("2 Jan 15:04:05 UTC"))
}

// sideOf finds out who made an edit: the audit log has it in the edit's own
// change set.
func (a *Appliance) sideOf(tx *replicate.Tx, r replicate.Record) (meetingSide, error) {
	s := meetingSide{Key: r.Key, At: r.Version.Clock.Time(), Value: r.Value}
	if r.Deleted {
		s.Value = nil
	}
	if n, ok := a.roster.node(nodeOf(r)); ok {
		s.Node = n.Name
	}
	for rec, err := range tx.Scan(fmt.Sprintf("%s%016x-", audits.prefix, ^uint64(r.Version.Clock))) {
		if err != nil {
			return s, err
		}
		if e, ok := decoded[AuditEntry](rec.Value); ok && rec.Version == r.Version {
			s.By = e.Actor
		}
	}
	if e, ok := decoded[editRecord](s.Value); ok && s.By == "" {
		s.By = e.By
	}
	s.By, s.Node = cmp.Or(s.By, "someone"), cmp.Or(s.Node, "a node that is gone")
	return s, nil
}

func (m meetingRecord) row(id string) MeetingRow {
	side := func(s meetingSide) MeetingSide {
		_, text := intentOf(s.Key, s.Value)
		return MeetingSide{By: s.By, Node: s.Node, At: s.At, Text: text}
	}
	object, _ := intentOf(m.Key, m.Won.Value)
	return MeetingRow{
		ID: id, Object: object, Won: side(m.Won), Lost: side(m.Lost),
		Both: m.Won.Key != m.Lost.Key, Final: strings.HasPrefix(m.Key, "admin/"),
	}
}

// Meetings lists the edits that met and that nobody has looked at, the latest
// first; of one object, or of all when it is empty.
func (a *Appliance) Meetings(_ context.Context, object string) ([]MeetingRow, error) {
	a.cat.mu.RLock()
	defer a.cat.mu.RUnlock()
	list := []MeetingRow{}
	for id, m := range a.cat.meetings {
		if row := m.row(id); m.Settled == nil && (object == "" || row.Object == object) {
			row.Won.Text, row.Lost.Text = a.cat.hostNamed(row.Won.Text), a.cat.hostNamed(row.Lost.Text)
			list = append(list, row)
		}
	}
	slices.SortFunc(list, func(x, y MeetingRow) int { return cmp.Or(y.Won.At.Compare(x.Won.At), cmp.Compare(x.ID, y.ID)) })
	return list, nil
}

// SettleMeeting ends a meeting: what holds stays, or, with other, the edit
// that was lost is made again.
func (a *Appliance) SettleMeeting(ctx context.Context, by Actor, id string, other bool) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		m, ok, err := meetings.find(tx, id)
		switch {
		case err != nil:
			return err
		case !ok || m.Settled != nil:
			return &Problem{Kind: NotFound, Msg: "Somebody has looked at these two edits already.", Hint: "The audit log says who."}
		}
		row := m.row(id)
		kept := row.Won
		if other && row.Final {
			return &Problem{Kind: Conflict, Msg: "An account is not changed by this.", Hint: "Edit the admin instead."}
		}
		if other {
			kept = row.Lost
			if err := a.versionedKey(tx, by, m.Won.Key, "settle two edits", func() error { return m.takeLost(tx, by) }); err != nil {
				return err
			}
		} else if row.Both {
			if err := a.versionedKey(tx, by, m.Lost.Key, "settle two edits", func() error { return tx.Delete(m.Lost.Key) }); err != nil {
				return err
			}
		}
		m.Settled = &editRecord{by.Name, tx.Now()}
		if err := meetings.put(tx, id, m); err != nil {
			return err
		}
		return a.audit(tx, by, "settle two edits", row.Object, "", kept.Text)
	})
}

// takeLost makes the edit that was lost again, in the name of who asks. Where
// both stand, what stood against it goes: a line is taken out, a deleted
// package is there again, for the hosts that try what is new.
func (m meetingRecord) takeLost(tx *replicate.Tx, by Actor) error {
	kind, id, _ := strings.Cut(m.Won.Key, "/")
	edit := editRecord{by.Name, tx.Now()}
	switch {
	case m.Won.Key == m.Lost.Key:
		return putIntent(tx, by, m.Lost.Key, m.Lost.Value)
	case kind == "line":
		return tx.Delete(m.Won.Key)
	case kind == "group":
		return restored(tx, groups, id, groupRecord{editRecord: edit})
	case kind == "profile":
		return restored(tx, profiles, id, profileRecord{Place: placeStep, editRecord: edit})
	}
	return restored(tx, packages, id, packageRecord{Maturity: rules.Dev, editRecord: edit})
}

// restored puts a record where none is.
func restored[T any](tx *replicate.Tx, t table[T], id string, v T) error {
	if _, there, err := t.find(tx, id); err != nil || there {
		return err
	}
	return t.put(tx, id, v)
}

// putIntent makes an admin's edit again, in the name of who asks.
func putIntent(tx *replicate.Tx, by Actor, key string, value []byte) error {
	if value == nil {
		return tx.Delete(key)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(value, &fields); err != nil {
		return fmt.Errorf("decode %s: %w", key, err)
	}
	if _, edited := fields["by"]; edited {
		name, _ := json.Marshal(by.Name)
		at, _ := json.Marshal(tx.Now())
		fields["by"], fields["at"] = name, at
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	return tx.Put(key, b)
}

// meetingLife is how long a meeting is kept that somebody looked at.
const meetingLife = 90 * 24 * time.Hour

func forgetMeetings(tx *replicate.Tx) error {
	for r, err := range meetings.all(tx, "") {
		if err != nil {
			return err
		}
		if s := r.value.Settled; s != nil && tx.Now().Sub(s.At) > meetingLife {
			if err := meetings.del(tx, r.id); err != nil {
				return err
			}
		}
	}
	return nil
}

// hostNamed puts a host's name where a text has its id.
func (c *catalogue) hostNamed(text string) string {
	for _, word := range strings.Fields(text) {
		if h := c.hosts[agentproto.HostID(word)]; h != nil && h.Facts.Name != "" {
			text = strings.Replace(text, word, h.Facts.Name, 1)
		}
	}
	return text
}
