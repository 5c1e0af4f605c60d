package appliance

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"wuamesh/agentproto/rules"
	"wuamesh/replicate"
)

func newAdmin(name, password string, role Role) (adminRecord, error) {
	if err := rules.CheckName(name); err != nil {
		return adminRecord{}, &Problem{Kind: Invalid, Field: "name", Code: "WM-305", Msg: upper(err.Error()) + ".", Err: err}
	}
	if n := utf8.RuneCountInString(password); n < 12 || len(password) > 1000 {
		return adminRecord{}, invalid("password", "The password has %d characters; it needs at least 12.", n)
	}
	if rank[role] == 0 {
		return adminRecord{}, invalid("role", "%q is no role: viewer, operator or owner.", role)
	}
	return adminRecord{Role: role, Password: hashPassword(password)}, nil
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// Passwords are hashed with argon2id, 19 MiB, two passes, one lane: the first
// of OWASP's recommended settings (Password Storage Cheat Sheet, 2023).
const (
	argonMemory = 19 << 10
	argonPasses = 2
)

func hashPassword(password string) string {
	salt := make([]byte, 16)
	rand.Read(salt)
	key := argon2.IDKey([]byte(password), salt, argonPasses, argonMemory, 1, 32)
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=1$%s$%s", argonMemory, argonPasses, base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
}

func checkPassword(encoded, password string) bool {
	parts := strings.Split(encoded, "$")
	var memory, passes uint32
	if len(parts) != 6 {
		return false
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=1", &memory, &passes); err != nil {
		return false
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	want, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil {
		return false
	}
	return subtle.ConstantTimeCompare(argon2.IDKey([]byte(password), salt, passes, memory, 1, uint32(len(want))), want) == 1
}

// nobody's hash keeps a login of an unknown name as slow as any other.
var nobody = sync.OnceValue(func() string { return hashPassword("nobody has this password") })

// Login checks name and password and returns the secret of a new session. A
// wrong pair is a [Problem] of kind NoLogin that does not say which part was
// wrong; too many tries one of kind TooMany that says how long to wait.
func (a *Appliance) Login(ctx context.Context, name, password, address string) (session string, err error) {
	if err := a.logins.try(name, address); err != nil {
		return "", err
	}
	rec, ok := a.cat.admin(name)
	hash := rec.Password
	if !ok {
		hash = nobody()
	}
	a.hashing.Lock() // each takes 19 MiB; strangers may ask for as many as they like
	right := checkPassword(hash, password)
	a.hashing.Unlock()
	if !right || !ok {
		a.log.WarnContext(ctx, "login refused", "address", address)
		return "", &Problem{Kind: NoLogin, Msg: "Name or password is wrong.", Hint: "Capitals count in both."}
	}
	a.logins.worked(name, address)
	if session, err = a.beginSession(ctx, name, address, rec); err == nil {
		a.log.InfoContext(ctx, "admin logged in", "by", name, "address", address)
	}
	return session, err
}

// Admins lists the admins by name.
func (a *Appliance) Admins(context.Context) ([]AdminRow, error) { return a.cat.adminRows(), nil }

// PutAdmin makes an admin, or changes role and password of one; an empty
// password leaves it.
func (a *Appliance) PutAdmin(ctx context.Context, by Actor, name string, role Role, password string) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	old, exists := a.cat.admin(name)
	given := password
	if exists && password == "" {
		given = "unchanged password"
	}
	rec, err := newAdmin(name, given, role)
	if err != nil {
		return err
	}
	if exists && role != Owner && a.cat.lastOwner(name) {
		return &Problem{Kind: Conflict, Msg: name + " is the only owner.", Hint: "Make another owner first."}
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		rec.Created = tx.Now()
		if exists {
			rec.Created = old.Created
			if password == "" {
				rec.Password = old.Password
			}
		}
		if err := admins.put(tx, name, rec); err != nil {
			return err
		}
		return a.audit(tx, by, "edit admin", "admin "+name, string(old.Role), string(role))
	})
}

// ChangePassword changes the password of whoever asks, who says the one that
// is; all their sessions end with it.
func (a *Appliance) ChangePassword(ctx context.Context, by Actor, now, next string) error {
	if err := a.logins.try(by.Name, by.Address); err != nil {
		return err
	}
	old, ok := a.cat.admin(by.Name)
	a.hashing.Lock()
	right := ok && checkPassword(old.Password, now)
	a.hashing.Unlock()
	if !right {
		return &Problem{Kind: Invalid, Field: "now", Msg: "That is not your password.", Hint: "An owner can give you another one."}
	}
	a.logins.worked(by.Name, by.Address)
	rec, err := newAdmin(by.Name, next, old.Role)
	if err != nil {
		return err
	}
	rec.Created, rec.Seen = old.Created, old.Seen
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		if err := admins.put(tx, by.Name, rec); err != nil {
			return err
		}
		return a.audit(tx, by, "change password", "admin "+by.Name, "", "")
	})
}

// DeleteAdmin removes an admin; their sessions end with it.
func (a *Appliance) DeleteAdmin(ctx context.Context, by Actor, name string) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	was, ok := a.cat.admin(name)
	if !ok {
		return notFound("There is no admin %s.", name)
	}
	if a.cat.lastOwner(name) {
		return &Problem{Kind: Conflict, Msg: name + " is the only owner.", Hint: "Make another owner first."}
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		if err := cmp.Or(admins.del(tx, name), delAll(tx, savedViews, name+"/")); err != nil {
			return err
		}
		return a.audit(tx, by, "delete admin", "admin "+name, string(was.Role), "")
	})
}

// A throttle slows guessing down: after five wrong tries of one name or from
// one address, each more doubles the wait, up to an hour. A day without one
// is forgotten. The zero value is ready.
type throttle struct {
	mu    sync.Mutex
	tries map[string]tries
}

type tries struct {
	wrong int
	last  time.Time
	until time.Time
}

// try counts a try as a wrong one, until worked says otherwise: tries that
// are sent together are not all heard before the first of them is known to be
// wrong. It returns the [Problem] of one that comes too early.
func (t *throttle) try(name, address string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	keys := []string{"name " + name, "address " + address}
	for _, key := range keys {
		if wait := time.Until(t.tries[key].until); wait > 0 {
			return &Problem{Kind: TooMany, Code: "WM-503", Msg: fmt.Sprintf("Too many attempts. Next try in %d s.", int(wait.Seconds())+1)}
		}
	}
	if t.tries == nil || len(t.tries) > 10000 { // bounded: a flood of names forgets, the addresses return at once
		t.tries = map[string]tries{}
	}
	for _, key := range keys {
		e := t.tries[key]
		if time.Since(e.last) > 24*time.Hour {
			e.wrong = 0
		}
		e.last = time.Now()
		if e.wrong++; e.wrong >= 5 {
			e.until = e.last.Add(min(time.Second<<min(e.wrong-2, 12), time.Hour))
		}
		t.tries[key] = e
	}
	return nil
}

// noGuess takes back the try that failed for another reason.
func (t *throttle) noGuess(name, address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, key := range []string{"name " + name, "address " + address} {
		if e, ok := t.tries[key]; ok {
			e.wrong, e.until = max(e.wrong-1, 0), time.Time{}
			t.tries[key] = e
		}
	}
}

func (t *throttle) worked(name, address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.tries, "name "+name)
	delete(t.tries, "address "+address)
}

// keepHouse forgets ended sessions and expired tokens, once an hour.
func (a *Appliance) keepHouse(ctx context.Context) error {
	return every(ctx, a.log, time.Hour, func(ctx context.Context) error {
		return a.db.Update(ctx, func(tx *replicate.Tx) error {
			for s, err := range sessions.all(tx) {
				if err != nil {
					return err
				}
				if !tx.Now().Before(s.value.ends()) {
					if err := sessions.del(tx, s.id); err != nil {
						return err
					}
				}
			}
			for t, err := range tokens.all(tx, "") {
				if err != nil {
					return err
				}
				if tx.Now().Sub(t.value.Expires) > 30*24*time.Hour {
					if err := tokens.del(tx, t.id); err != nil {
						return err
					}
				}
			}
			return errors.Join(a.expireCommands(tx), forgetMeetings(tx), forgetVersions(tx))
		})
	})
}

func sortedBy[T any](list []T, key func(T) string) []T {
	slices.SortFunc(list, func(x, y T) int { return strings.Compare(key(x), key(y)) })
	return list
}
