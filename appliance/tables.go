package appliance

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
)

// The tables. This is the whole schema; a new kind of record is one new line.
// Lines, assignments and memberships are records of their own, so that admins
// on two sides of a cut both keep what they did. The verb is in a line's key:
// contradictory edits both live, and forbid wins.
var (
	hosts      = table[hostRecord]{"host/"}         // <host>
	statuses   = table[statusRecord]{"status/"}     // <host>
	updates    = table[updateRecord]{"update/"}     // <id>/<revision>
	packages   = table[packageRecord]{"package/"}   // <name>
	lines      = table[editRecord]{"line/"}         // <package>/<kind>/<value>/<verb>
	versions   = table[versionRecord]{"version/"}   // <package>/<rising time>-<random>
	rings      = table[ringRecord]{"ring/"}         // <package>: when it is promoted by itself
	stops      = table[stopRecord]{"stop/"}         // <update>/<random>
	assigns    = table[editRecord]{"assign/"}       // <package>/group/<name>, <package>/host/<host>
	groups     = table[groupRecord]{"group/"}       // <name>
	members    = table[editRecord]{"member/"}       // <group>/<host>
	terms      = table[editRecord]{"term/"}         // <group>/<fact>/<value>: of its condition
	commands   = table[commandRecord]{"command/"}   // <host>/<id>
	outcomes   = table[outcomeRecord]{"outcome/"}   // <host>/<id>: written where the host is, which may not know the command yet
	presences  = table[presenceRecord]{"presence/"} // <host>: the node it is at
	files      = table[fileRecord]{"file/"}         // <name>; of any node's folder
	leases     = table[leaseRecord]{"lease/"}       // <name>: who downloads it from Microsoft
	asks       = table[askRecord]{"ask/"}           // <name>: asked for where it cannot come from Microsoft
	folders    = table[folderRecord]{"folder/"}     // <node>
	shelves    = table[shelfRecord]{"shelf/"}       // <node>/<part of the names>: what lies in its folder
	faults     = table[faultRecord]{"fault/"}       // <node that found it>/<node whose bytes were wrong>
	limitPlans = table[Limits]{"limits/"}           // <site, hexadecimal>
	admins     = table[adminRecord]{"admin/"}       // <name>
	tokens     = table[tokenRecord]{"token/"}       // <SHA-256 of the secret>
	savedViews = table[SavedView]{"saved-view/"}    // <admin>/<random>
	audits     = table[AuditEntry]{"audit/"}        // <falling time>-<random>
	nodes      = table[nodeRecord]{"node/"}         // <node>
	removals   = table[removalRecord]{"removed/"}   // <node>: for ever, so that no late edit of the node's record lets it in again
	anchors    = table[editRecord]{"anchor/"}       // <node>
	renewals   = table[renewalRecord]{"renewal/"}   // <node>: certificates it asks an anchor for that it does not reach
	gossips    = table[gossipRecord]{"gossip/"}     // <when, hexadecimal>-<random>
	seals      = table[sealRecord]{"recovery/"}     // root: its key under the recovery passphrase
	meetings   = table[meetingRecord]{"meeting/"}   // <digest of the two edits>
	// <id>: the order of the rules is in the records
	repositoryRules = table[repositoryRuleRecord]{"repository-rule/"}
	profiles        = table[profileRecord]{"profile/"}         // <name>: settings of agents; their order is in the records
	profileOptions  = table[optionRecord]{"option/"}           // <profile>/<option of [waptwua]>
	grants          = table[editRecord]{"grant/"}              // <profile>/group/<name>, <profile>/host/<host>: whom it is given to
	profileVersions = table[versionRecord]{"profile-version/"} // <profile>/<rising time>-<random>
	groupVersions   = table[versionRecord]{"group-version/"}   // <group>/<rising time>-<random>
	complianceRules = table[ComplianceRule]{"compliance/"}     // rule

	// Of this node alone.
	sessions    = localTable[sessionRecord]{"session/"} // <SHA-256 of the secret>
	tasks       = localTable[Task]{"task/"}             // <id>
	cabs        = localTable[microsoft.CabVersion]{"cab/"}
	holdings    = localTable[holding]{"held/"}                // <name>: what lies in the folder and was found right
	carried     = localTable[carriedRecord]{"carried/"}       // <node>: what it had when its last bundle was made
	traffics    = localTable[Traffic]{"traffic/"}             // <day>
	trends      = localTable[TrendDay]{"trend/"}              // <day>
	scrubs      = localTable[scrubRecord]{"scrub/"}           // folder
	deleted     = localTable[time.Time]{"deleted/"}           // <name>: not fetched until an agent asks
	answers     = localTable[Answers]{"answers/"}             // node: what the setup page was told
	storages    = localTable[Storage]{"storage/"}             // node: what the settings page was told
	authorities = localTable[authorityRecord]{"authority/"}   // root
	identities  = localTable[identityRecord]{"identity/"}     // self; joining: the key that a token was shown with; next: that of a renewal
	memberships = localTable[membershipRecord]{"membership/"} // mesh
)

type (
	hostRecord struct {
		Facts    agentproto.Facts     `json:"facts"`
		Agent    string               `json:"agent"`
		Key      string               `json:"key"`               // SHA-256 of its public key, hexadecimal
		Claim    string               `json:"claim,omitempty"`   // another key that asks to be this host
		Waiting  bool                 `json:"waiting,omitempty"` // for an admin's approval
		Enrolled time.Time            `json:"enrolled"`
		By       string               `json:"by"`
		Settings rules.Settings       `json:"settings"` // of its own wapt-get.ini
		Warnings []string             `json:"warnings,omitempty"`
		Errors   []agentproto.Failure `json:"errors,omitempty"` // the last ones, newest first
		Clock    *agentproto.ClockOff `json:"clock,omitempty"`  // as of the last check-in
	}
	updateRecord struct {
		agentproto.Update
		From     agentproto.HostID `json:"from"` // who described it first
		Problems []string          `json:"problems,omitempty"`
	}
	packageRecord struct {
		Description string         `json:"description,omitempty"`
		Maturity    rules.Maturity `json:"maturity"`
		editRecord
	}
	editRecord struct {
		By string    `json:"by"`
		At time.Time `json:"at"`
	}
	groupRecord struct {
		Description string           `json:"description,omitempty"`
		Accepts     []rules.Maturity `json:"accepts,omitempty"`
		editRecord
		// Settings are options of [waptwua] by WAPT's names, as wapt-get.ini
		// spells them: what is here holds for the members.
		Settings map[string]string `json:"settings,omitempty"`
	}
	commandRecord struct {
		agentproto.Command
		outcomeRecord // "waiting"; what became of it is a record of its own
	}
	outcomeRecord struct {
		State   string    `json:"state"`
		Detail  string    `json:"detail,omitempty"`
		Changed time.Time `json:"changed"`
	}
	fileRecord struct {
		Size      int64     `json:"size"`
		SHA1      string    `json:"sha1"`
		SHA256    string    `json:"sha256"`
		URL       string    `json:"url,omitempty"`
		Completed time.Time `json:"completed"`      // by the first node that had it
		Root      string    `json:"root,omitempty"` // of its manifest, hexadecimal
		// Of a file that no update names: the admin who uploaded it, and who
		// signed it.
		Uploaded string `json:"uploaded,omitempty"`
		Signer   string `json:"signer,omitempty"`
		// Of the scan cab: what Microsoft said of it.
		LastModified string `json:"last_modified,omitempty"`
		ETag         string `json:"etag,omitempty"`
	}
	adminRecord struct {
		Role     Role      `json:"role"`
		Password string    `json:"password"` // argon2id, encoded
		Created  time.Time `json:"created"`
		Seen     time.Time `json:"seen,omitzero"`
	}
	tokenRecord struct {
		TokenRow
		Anchor string `json:"anchor,omitempty"`  // of a join token: the one node that redeems it
		UsedBy string `json:"used_by,omitempty"` // of a join token: node and key it let in
	}
	sessionRecord struct {
		Admin   string    `json:"admin"`
		Of      string    `json:"of"` // digest of the password record it was begun with; it ends with that
		Created time.Time `json:"created"`
		Seen    time.Time `json:"seen"`
		Address string    `json:"address,omitempty"` // where it was seen from
	}
	authorityRecord struct {
		Key         []byte `json:"key,omitempty"` // PKCS #8; only on anchors
		Certificate []byte `json:"cert"`          // DER
	}
	identityRecord struct {
		Key  []byte `json:"key"`            // PKCS #8
		Node []byte `json:"node,omitempty"` // DER
		Web  []byte `json:"web,omitempty"`  // DER
	}
	nodeRecord struct {
		Name     string    `json:"name"`
		Site     string    `json:"site"`
		Addrs    []string  `json:"addrs"`          // host:port where others may call it
		URL      string    `json:"url,omitempty"`  // of its pages, where it was given a name for them
		Nets     []string  `json:"nets,omitempty"` // it is in, as prefixes: hosts in them are near
		Internet bool      `json:"internet,omitempty"`
		Version  string    `json:"version"`
		Joined   time.Time `json:"joined"`
		By       string    `json:"by"` // the token it came with, or who founded the mesh
	}
	removalRecord struct {
		Name   string `json:"name"`
		Reason string `json:"reason,omitempty"`
		editRecord
	}
	gossipRecord struct {
		Key []byte `json:"key"` // 32 bytes
		editRecord
	}
	sealRecord struct {
		Sealed []byte `json:"sealed"`
		editRecord
	}
	membershipRecord struct {
		Label  string                `json:"label"` // of the mesh
		Self   nodeRecord            `json:"self"`
		Keys   [][]byte              `json:"keys,omitempty"`  // gossip keys until the records are here
		Peers  []replicate.KnownPeer `json:"peers,omitempty"` // whom to call until the records are here
		Synced bool                  `json:"synced"`          // the first copy is complete
	}
)

// A table is one kind of record under one key prefix: JSON, or what the type
// itself packs.
type table[T any] struct{ prefix string }

func (t table[T]) get(tx *replicate.Tx, id string) (v T, err error) {
	b, err := tx.Get(t.prefix + id)
	if err != nil {
		return v, err // it already names the key
	}
	return v, decode(t.prefix+id, b, &v)
}

// find is get that takes absence as an answer.
func (t table[T]) find(tx *replicate.Tx, id string) (v T, ok bool, err error) {
	v, err = t.get(tx, id)
	if errors.Is(err, replicate.ErrNotFound) {
		return v, false, nil
	}
	return v, err == nil, err
}

func (t table[T]) put(tx *replicate.Tx, id string, v T) error {
	b, err := encode(v)
	if err != nil {
		return fmt.Errorf("encode %s%s: %w", t.prefix, id, err)
	}
	return tx.Put(t.prefix+id, b)
}

func (t table[T]) del(tx *replicate.Tx, id string) error { return tx.Delete(t.prefix + id) }

// all yields ids and values below a prefix of the id.
func (t table[T]) all(tx *replicate.Tx, under string) iter.Seq2[row[T], error] {
	return rowsOf[T](t.prefix, tx.Scan(t.prefix+under))
}

// names are the ids of all, in order.
func (t table[T]) names(tx *replicate.Tx) (list []string, err error) {
	for r, err := range t.all(tx, "") {
		if err != nil {
			return nil, err
		}
		list = append(list, r.id)
	}
	return list, nil
}

// A localTable is a table of this node alone.
type localTable[T any] struct{ prefix string }

func (t localTable[T]) find(tx *replicate.Tx, id string) (v T, ok bool, err error) {
	b, err := tx.Local().Get(t.prefix + id)
	if errors.Is(err, replicate.ErrNotFound) {
		return v, false, nil
	}
	if err == nil {
		err = decode(t.prefix+id, b, &v)
	}
	return v, err == nil, err
}

func (t localTable[T]) put(tx *replicate.Tx, id string, v T) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s%s: %w", t.prefix, id, err)
	}
	return tx.Local().Put(t.prefix+id, b)
}

func (t localTable[T]) del(tx *replicate.Tx, id string) error {
	return tx.Local().Delete(t.prefix + id)
}

func (t localTable[T]) all(tx *replicate.Tx) iter.Seq2[row[T], error] {
	return rowsOf[T](t.prefix, tx.Local().Scan(t.prefix))
}

// A row is one record of a table.
type row[T any] struct {
	id    string
	value T
}

func rowsOf[T any](prefix string, records iter.Seq2[replicate.Record, error]) iter.Seq2[row[T], error] {
	return func(yield func(row[T], error) bool) {
		for r, err := range records {
			var v row[T]
			if err == nil {
				v.id = strings.TrimPrefix(r.Key, prefix)
				err = decode(r.Key, r.Value, &v.value)
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// A packer is a record with a form of its own, for those of which there are
// too many for JSON.
type (
	packer   interface{ pack() ([]byte, error) }
	unpacker interface{ unpack([]byte) error }
)

func encode(v any) ([]byte, error) {
	if p, ok := v.(packer); ok {
		return p.pack()
	}
	return json.Marshal(v)
}

func decode(key string, b []byte, v any) (err error) {
	if u, ok := v.(unpacker); ok {
		err = u.unpack(b)
	} else {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return fmt.Errorf("decode %s: %w", key, err)
	}
	return nil
}

func lineID(pkg string, l rules.Line) string {
	return pkg + "/" + string(l.Kind) + "/" + l.Value + "/" + string(l.Verb)
}
