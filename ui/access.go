package ui

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"wuamesh/appliance"
)

// accessView is who may do what; Made is a token that is shown this once.
type accessView struct {
	Admins  []appliance.AdminRow
	Tokens  []appliance.TokenRow
	Made    string
	Use     appliance.TokenUse // of Made
	Address string
	Problem *appliance.Problem
	Owner   bool
	Self    string                 // who looks
	Typed   string                 // name of an admin who was not made
	Met     []appliance.MeetingRow // about accounts

	Sessions []appliance.SessionRow // of this node, that who looks may end
	Here     string                 // the one of who looks
}

// seenFrom is where a session was seen from, if that is known.
func seenFrom(address string) string {
	if address == "" {
		return ""
	}
	return ", from " + address
}

// others are the sessions besides the one of who looks.
func (v accessView) others() (n int) {
	for _, s := range v.Sessions {
		if s.ID != v.Here {
			n++
		}
	}
	return n
}

func (u *UI) access(r *http.Request) (reply, error) { return u.accessWith(r, accessView{}) }

func (u *UI) accessWith(r *http.Request, v accessView) (reply, error) {
	var err error
	if v.Admins, err = u.node.Admins(r.Context()); err != nil {
		return reply{}, err
	}
	if v.Tokens, err = u.node.Tokens(r.Context()); err != nil {
		return reply{}, err
	}
	if v.Met, err = u.metAbout(r, "admin "); err != nil {
		return reply{}, err
	}
	if v.Sessions, err = u.node.Sessions(r.Context(), actor(r)); err != nil {
		return reply{}, err
	}
	v.Here = appliance.SessionID(u.session(r))
	v.Address, v.Owner, v.Self = "https://"+r.Host, actor(r).May(appliance.Owner), actor(r).Name
	if v.Problem != nil {
		return again(accessPage(v)), nil
	}
	return show(accessPage(v)), nil
}

// tokenMake shows the token on the page that answers the form: it is kept
// nowhere it could be shown again from.
func (u *UI) tokenMake(r *http.Request) (reply, error) {
	uses, _ := strconv.Atoi(r.FormValue("uses"))
	days, _ := strconv.Atoi(r.FormValue("days"))
	o := appliance.TokenOptions{Name: r.FormValue("name"), Use: appliance.TokenUse(r.FormValue("use")), Role: appliance.Role(r.FormValue("role")), Uses: uses, Expires: time.Duration(days) * 24 * time.Hour}
	if o.Use == appliance.ForJoin {
		o.Expires = time.Hour
		if a := strings.TrimSpace(r.FormValue("address")); a != "" {
			o.Addrs = []string{a}
		}
	}
	var v accessView
	_, text, err := u.node.MakeToken(r.Context(), actor(r), o)
	if p, ok := formError(err); ok {
		v.Problem = p
	} else if err != nil {
		return reply{}, err
	}
	v.Made, v.Use = text, o.Use
	return u.accessWith(r, v)
}

func (u *UI) tokenRevoke(r *http.Request) (reply, error) {
	if err := u.node.RevokeToken(r.Context(), actor(r), r.FormValue("id")); err != nil {
		return reply{}, err
	}
	return goTo("/access").saying("The token is worthless now."), nil
}

// adminSave makes an admin, or changes one that is known.
func (u *UI) adminSave(r *http.Request) (reply, error) {
	name := strings.TrimSpace(r.FormValue("name"))
	err := u.newName(r, name)
	if err == nil {
		err = u.node.PutAdmin(r.Context(), actor(r), name, appliance.Role(r.FormValue("role")), r.FormValue("password"))
	}
	if p, ok := formError(err); ok {
		return u.accessWith(r, accessView{Problem: p, Typed: name})
	}
	if err != nil {
		return reply{}, err
	}
	return goTo("/access").saying("%s is %s.", name, r.FormValue("role")), nil
}

// newName says what is wrong with making an admin whom there is.
func (u *UI) newName(r *http.Request, name string) error {
	list, err := u.node.Admins(r.Context())
	if err != nil || r.FormValue("known") != "" {
		return err
	}
	if slices.ContainsFunc(list, func(a appliance.AdminRow) bool { return a.Name == name }) {
		return &appliance.Problem{Kind: appliance.Conflict, Field: "name", Msg: "There is an admin " + name + " already.", Hint: "Change role or password beside the name."}
	}
	return nil
}

func (u *UI) adminDelete(r *http.Request) (reply, error) {
	name := r.FormValue("name")
	err := u.node.DeleteAdmin(r.Context(), actor(r), name)
	if p, ok := formError(err); ok {
		return u.accessWith(r, accessView{Problem: p})
	}
	if err != nil {
		return reply{}, err
	}
	return goTo("/access").saying("%s cannot log in any more.", name), nil
}

// sessionsEnd ends one session, or all but the one of who asks.
func (u *UI) sessionsEnd(r *http.Request) (reply, error) {
	c := appliance.SessionChoice{ID: r.FormValue("id")}
	if c.ID == "" {
		c.But = appliance.SessionID(u.session(r))
	}
	n, err := u.node.EndSessions(r.Context(), actor(r), c)
	if err != nil {
		return reply{}, err
	}
	return goTo("/access#sessions").saying("%s ended. Who had them logs in again.", count(n, "session")), nil
}

// passwordChange ends the session with the password it was begun with.
func (u *UI) passwordChange(r *http.Request) (reply, error) {
	if r.FormValue("password") != r.FormValue("again") {
		return u.accessWith(r, accessView{Problem: &appliance.Problem{Kind: appliance.Invalid, Msg: "The two new passwords differ.", Field: "again"}})
	}
	err := u.node.ChangePassword(r.Context(), actor(r), r.FormValue("now"), r.FormValue("password"))
	if p, ok := formError(err); ok {
		return u.accessWith(r, accessView{Problem: p})
	}
	if err != nil {
		return reply{}, err
	}
	return goTo("/login").saying("Your password is another one. Log in with it."), nil
}

func (u *UI) audit(r *http.Request) (reply, error) {
	list, next, err := u.node.Audit(r.Context(), r.FormValue("object"), appliance.Page{Limit: 100, After: r.FormValue("after")})
	if err != nil {
		return reply{}, err
	}
	return show(auditPage(list, r.URL.Query(), next)), nil
}
