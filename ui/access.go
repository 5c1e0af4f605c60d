package ui

import (
	"net/http"
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
	Met     []appliance.MeetingRow // about accounts
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
	v.Address = "https://" + r.Host
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

func (u *UI) audit(r *http.Request) (reply, error) {
	list, next, err := u.node.Audit(r.Context(), r.FormValue("object"), appliance.Page{Limit: 100, After: r.FormValue("after")})
	if err != nil {
		return reply{}, err
	}
	return show(auditPage(list, r.URL.Query(), next)), nil
}
