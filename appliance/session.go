package appliance

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"wuamesh/replicate"
)

// Sessions end after half a day without a request, and after a week.
const (
	sessionIdle = 12 * time.Hour
	sessionLife = 7 * 24 * time.Hour
)

// A SessionRow is somebody who is logged in on this node. Other nodes have
// sessions of their own.
type SessionRow struct {
	ID      string    `json:"id"`
	Admin   string    `json:"admin"`
	Role    Role      `json:"role"`
	Address string    `json:"address,omitempty"` // where it was last seen from; empty of one that an older version began
	Created time.Time `json:"created"`
	Seen    time.Time `json:"seen"` // within five minutes
	Ends    time.Time `json:"ends"` // unless there is a request before
}

// ends is when a session ends by itself.
func (s sessionRecord) ends() time.Time {
	idle, life := s.Seen.Add(sessionIdle), s.Created.Add(sessionLife)
	if life.Before(idle) {
		return life
	}
	return idle
}

// whose is the admin of a session that has not ended: by itself, with the
// account, or with the password it was begun with.
func (a *Appliance) whose(s sessionRecord, now time.Time) (adminRecord, bool) {
	admin, known := a.cat.admin(s.Admin)
	return admin, known && s.Of == hashSecret(admin.Password) && now.Before(s.ends())
}

// beginSession returns the secret of a new session.
func (a *Appliance) beginSession(ctx context.Context, name, address string, rec adminRecord) (secret string, err error) {
	secret = rand.Text()
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		now := tx.Now()
		return sessions.put(tx, hashSecret(secret), sessionRecord{Admin: name, Of: hashSecret(rec.Password), Created: now, Seen: now, Address: address})
	})
	if err != nil {
		return "", fmt.Errorf("begin a session of %s: %w", name, err)
	}
	return secret, nil
}

func hashSecret(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// SessionID is what lists call the session of a secret: enough of its digest
// to tell it from others, and of no use to anybody else.
func SessionID(secret string) string { return hashSecret(secret)[:16] }

// Session returns who the session belongs to, and the token that its forms
// must carry.
func (a *Appliance) Session(ctx context.Context, session, address string) (who Actor, csrf string, err error) {
	id, now := hashSecret(session), time.Now()
	var rec sessionRecord
	var ok bool
	err = a.db.View(ctx, func(tx *replicate.Tx) error {
		rec, ok, err = sessions.find(tx, id)
		return err
	})
	if err != nil {
		return Actor{}, "", fmt.Errorf("look up a session: %w", err)
	}
	admin, good := a.whose(rec, now)
	if !ok || !good {
		return Actor{}, "", &Problem{Kind: NoLogin, Msg: "Your session has ended.", Hint: "Log in again."}
	}
	if now.Sub(rec.Seen) > 5*time.Minute {
		if err := a.db.Update(ctx, func(tx *replicate.Tx) error {
			rec, ok, err = sessions.find(tx, id)
			if err != nil || !ok { // it was ended meanwhile, and stays so
				return err
			}
			rec.Seen, rec.Address = now, address
			return sessions.put(tx, id, rec)
		}); err != nil {
			return Actor{}, "", fmt.Errorf("keep a session: %w", err)
		}
	}
	mac := hmac.New(sha256.New, []byte(session))
	mac.Write([]byte("csrf"))
	return Actor{Name: rec.Admin, Role: admin.Role, Address: address}, hex.EncodeToString(mac.Sum(nil)), nil
}

// Logout ends a session.
func (a *Appliance) Logout(ctx context.Context, session string) error {
	return a.db.Update(ctx, func(tx *replicate.Tx) error { return sessions.del(tx, hashSecret(session)) })
}

// Sessions lists who is logged in on this node, those that were seen last
// first: all for an owner, their own for others.
func (a *Appliance) Sessions(ctx context.Context, by Actor) (list []SessionRow, err error) {
	err = a.db.View(ctx, func(tx *replicate.Tx) error {
		list = []SessionRow{}
		return a.eachSession(tx, by, time.Now(), func(_ string, s SessionRow) error {
			list = append(list, s)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	slices.SortFunc(list, func(x, y SessionRow) int {
		return cmp.Or(y.Seen.Compare(x.Seen), strings.Compare(x.ID, y.ID))
	})
	return list, nil
}

// eachSession looks at the sessions that somebody may see and end.
func (a *Appliance) eachSession(tx *replicate.Tx, by Actor, now time.Time, see func(key string, s SessionRow) error) error {
	for s, err := range sessions.all(tx) {
		if err != nil {
			return err
		}
		v := s.value
		admin, good := a.whose(v, now)
		if !good || v.Admin != by.Name && !by.May(Owner) {
			continue
		}
		if err := see(s.id, SessionRow{s.id[:16], v.Admin, admin.Role, v.Address, v.Created, v.Seen, v.ends()}); err != nil {
			return err
		}
	}
	return nil
}

// A SessionChoice says which sessions are meant. Fields narrow each other; the
// zero value means all that one may see.
type SessionChoice struct {
	ID    string
	Admin string
	But   string // the session that stays, such as that of who asks
}

// EndSessions ends sessions of this node, and says how many: of anybody for an
// owner, their own for others.
func (a *Appliance) EndSessions(ctx context.Context, by Actor, c SessionChoice) (ended int, err error) {
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		of := map[string]int{}
		ended = 0
		err := a.eachSession(tx, by, tx.Now(), func(key string, s SessionRow) error {
			if c.ID != "" && s.ID != c.ID || c.Admin != "" && s.Admin != c.Admin || s.ID == c.But {
				return nil
			}
			of[s.Admin]++
			ended++
			return sessions.del(tx, key)
		})
		if err != nil {
			return err
		}
		if ended == 0 && c.ID != "" {
			return notFound("There is no session %s on this node; it may have ended.", c.ID)
		}
		for name, n := range of {
			if err := a.audit(tx, by, "end session", "admin "+name, "", things(n, "session", "sessions")+" on "+a.NodeName()); err != nil {
				return err
			}
		}
		return nil
	})
	return ended, err
}
