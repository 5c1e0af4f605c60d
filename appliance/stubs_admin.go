package appliance

import (
	"context"
	"errors"
	"time"
)

// NeedsSetup says that no admin exists yet.
func (a *Appliance) NeedsSetup() bool { return false }

// SetupLink is the one-time link of the setup page; empty once an admin exists.
func (a *Appliance) SetupLink() string { return "" }

// SetUp makes the first admin; secret is the one of the setup link.
func (a *Appliance) SetUp(ctx context.Context, secret, name, password string) error {
	return errors.ErrUnsupported
}

// Login checks name and password and returns the secret of a new session, for the cookie. A wrong pair is a Problem of kind NoLogin that does not say which part was wrong; too many tries one of kind TooMany that says how long to wait.
func (a *Appliance) Login(ctx context.Context, name, password, address string) (session string, err error) {
	return "", errors.ErrUnsupported
}

// Session returns who the session belongs to, and its CSRF token.
func (a *Appliance) Session(ctx context.Context, session, address string) (who Actor, csrf string, err error) {
	return Actor{}, "", errors.ErrUnsupported
}
func (a *Appliance) Logout(ctx context.Context, session string) error { return errors.ErrUnsupported }
func (a *Appliance) Admins(ctx context.Context) ([]AdminRow, error) {
	return nil, errors.ErrUnsupported
}
func (a *Appliance) PutAdmin(ctx context.Context, by Actor, name string, role Role, password string) error {
	return errors.ErrUnsupported
}
func (a *Appliance) DeleteAdmin(ctx context.Context, by Actor, name string) error {
	return errors.ErrUnsupported
}
func (a *Appliance) Tokens(ctx context.Context) ([]TokenRow, error) {
	return nil, errors.ErrUnsupported
}

// MakeToken makes a token and returns its text, which is shown once.
func (a *Appliance) MakeToken(ctx context.Context, by Actor, o TokenOptions) (TokenRow, string, error) {
	return TokenRow{}, "", errors.ErrUnsupported
}
func (a *Appliance) RevokeToken(ctx context.Context, by Actor, id string) error {
	return errors.ErrUnsupported
}
func (a *Appliance) Audit(ctx context.Context, object string, p Page) (list []AuditEntry, next string, err error) {
	return nil, "", errors.ErrUnsupported
}

// TokenOptions say what a token is for.
type TokenOptions struct {
	Name    string
	Use     TokenUse
	Role    Role          // of an API token
	Uses    int           // of an enrolment token: how many hosts, 1 to 10,000
	Expires time.Duration // 1 minute to 1 year
}

// Watch returns a channel that gets a value, coalesced, whenever something a
// page shows may have changed: "hosts", "updates", "downloads", "cab",
// "rules". It is closed when ctx ends.
func (a *Appliance) Watch(ctx context.Context) <-chan []string { return nil }

// NodeName is the node's name, Pin the fingerprint of its authority (SHA-256 of the SubjectPublicKeyInfo, hexadecimal).
func (a *Appliance) NodeName() string { return "" }
func (a *Appliance) Pin() string      { return "" }
