package appliance

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"wuamesh/agentproto"
	"wuamesh/replicate"
)

// TokenOptions say what a token is for.
type TokenOptions struct {
	Name    string // shown in lists and the audit log
	Use     TokenUse
	Addrs   []string      // of a join token: where the new node asks, host:port; none: as this node knows
	Role    Role          // of an API token
	Uses    int           // of an enrolment token: how many hosts, 1 to 10,000
	Expires time.Duration // from now: 1 minute to 1 year
}

func (o TokenOptions) check() error {
	switch {
	case o.Name == "" || len(o.Name) > 64:
		return invalid("name", "A token needs a name of 1 to 64 characters.")
	case o.Use != ForAPI && o.Use != ForEnroll && o.Use != ForJoin:
		return invalid("use", "A token is for api, enroll or join, not for %q.", o.Use)
	case o.Use == ForAPI && rank[o.Role] == 0:
		return invalid("role", "%q is no role: viewer, operator or owner.", o.Role)
	case o.Use == ForEnroll && (o.Uses < 1 || o.Uses > 10000):
		return invalid("uses", "An enrolment token is for 1 to 10,000 hosts, not for %d.", o.Uses)
	case o.Use == ForJoin && o.Expires > 7*24*time.Hour:
		return invalid("expires", "A join token is good for a minute to a week, not for %s.", o.Expires)
	case o.Expires < time.Minute || o.Expires > 366*24*time.Hour:
		return invalid("expires", "A token is good for a minute to a year, not for %s.", o.Expires)
	}
	return nil
}

const apiTokenPrefix = "wmt_"

// MakeToken makes a token and returns its text, which is shown once: only its
// hash is kept.
func (a *Appliance) MakeToken(ctx context.Context, by Actor, o TokenOptions) (TokenRow, string, error) {
	if err := by.need(Owner); err != nil {
		return TokenRow{}, "", err
	}
	if err := o.check(); err != nil {
		return TokenRow{}, "", err
	}
	secret := apiTokenPrefix + rand.Text() + rand.Text()
	text := secret
	if o.Use == ForEnroll {
		t := agentproto.NewEnrollToken(a.Pin())
		secret, text = t.Secret, t.String()
	}
	rec := tokenRecord{TokenRow: TokenRow{ID: hashSecret(secret), Role: o.Role, Left: o.Uses}}
	switch o.Use {
	case ForAPI:
		rec.Left = 0
	case ForEnroll:
		rec.Role = ""
	case ForJoin:
		var err error
		if rec, text, err = a.makeJoinToken(ctx, by, o, time.Now().Add(o.Expires)); err != nil {
			return TokenRow{}, "", err
		}
	}
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		rec.Name, rec.Use, rec.Created, rec.By, rec.Expires = o.Name, o.Use, tx.Now(), by.Name, tx.Now().Add(o.Expires)
		if err := tokens.put(tx, rec.ID, rec); err != nil {
			return err
		}
		return a.audit(tx, by, "make token", "token "+o.Name, "", fmt.Sprintf("for %s, %s%s", o.Use, rec.Role, leftText(rec)))
	})
	return rec.TokenRow, text, err
}

func leftText(rec tokenRecord) string {
	switch rec.Use {
	case ForEnroll:
		return fmt.Sprintf("%d hosts", rec.Left)
	case ForJoin:
		return "one node"
	}
	return ""
}

// Tokens lists the tokens by name, without their secrets.
func (a *Appliance) Tokens(context.Context) ([]TokenRow, error) { return a.cat.tokenRows(), nil }

// RevokeToken makes a token worthless at once.
func (a *Appliance) RevokeToken(ctx context.Context, by Actor, id string) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		rec, ok, err := tokens.find(tx, id)
		if err != nil {
			return err
		}
		if !ok {
			return notFound("There is no such token.")
		}
		if err := tokens.del(tx, id); err != nil {
			return err
		}
		return a.audit(tx, by, "revoke token", "token "+rec.Name, "", "")
	})
}

// TokenActor says who a bearer token of the API stands for.
func (a *Appliance) TokenActor(ctx context.Context, bearer, address string) (Actor, error) {
	if a.console != "" && subtle.ConstantTimeCompare([]byte(bearer), []byte(a.console)) == 1 {
		return Actor{Name: "console", Role: Owner, Address: address}, nil
	}
	rec, ok := a.cat.token(hashSecret(bearer))
	if !ok || rec.Use != ForAPI {
		a.log.WarnContext(ctx, "token refused", "address", address)
		return Actor{}, &Problem{Kind: NoLogin, Msg: "This token is unknown: it was mistyped or revoked.", Hint: "Make one under Admins and tokens."}
	}
	if time.Now().After(rec.Expires) {
		return Actor{}, &Problem{Kind: NoLogin, Msg: fmt.Sprintf("The token %s expired on %s.", rec.Name, rec.Expires.UTC().Format("2 Jan 2006 15:04 UTC")), Hint: "Make another under Admins and tokens."}
	}
	return Actor{Name: rec.Name, Role: rec.Role, Address: address}, nil
}

// useEnrollToken takes one use off an enrolment token, in the transaction
// that enrols the host.
func useEnrollToken(tx *replicate.Tx, text string) (name string, err error) {
	t, err := agentproto.ParseEnrollToken(text)
	if err != nil {
		return "", &Problem{Kind: Denied, Field: "token", Msg: upper(err.Error()), Err: err}
	}
	id := hashSecret(t.Secret)
	rec, ok, err := tokens.find(tx, id)
	switch {
	case err != nil:
		return "", err
	case !ok || rec.Use != ForEnroll:
		return "", &Problem{Kind: Denied, Field: "token", Msg: "The enrolment token is unknown: it was mistyped or revoked.", Hint: "Make one with wuamesh token enroll."}
	case tx.Now().After(rec.Expires):
		return "", &Problem{Kind: Denied, Field: "token", Msg: fmt.Sprintf("The enrolment token %s expired on %s.", rec.Name, rec.Expires.UTC().Format("2 Jan 2006 15:04 UTC")), Hint: "Make another with wuamesh token enroll."}
	case rec.Left < 1:
		return "", &Problem{Kind: Denied, Field: "token", Msg: fmt.Sprintf("The enrolment token %s is used up.", rec.Name), Hint: "Make another with wuamesh token enroll --uses N."}
	}
	rec.Left--
	rec.Used = tx.Now()
	return rec.Name, tokens.put(tx, id, rec)
}

// A Console is what the command line on the node's machine needs to ask it.
// Only the node's own user and root can read the file.
type Console struct {
	URL   string `json:"url"`
	Token string `json:"token"` // of this run of the node
	Pin   string `json:"pin"`
}

// ConsoleFile is its name in the data directory.
const ConsoleFile = "console.json"

// writeConsole writes it at the start, and again when the pin has changed.
func (a *Appliance) writeConsole() error {
	b, err := json.Marshal(Console{URL: a.URL(), Token: a.console, Pin: a.Pin()})
	if err != nil {
		return fmt.Errorf("encode the console file: %w", err)
	}
	path := filepath.Join(a.cfg.Data, ConsoleFile)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("write the console file: %w", err)
	}
	return os.Rename(path+".new", path)
}
