package ui

import (
	"net/http"
	"time"

	"wuamesh/appliance"
)

// loginView is the login form as it came in.
type loginView struct {
	Name, Next string
	Pin        string
	Problem    *appliance.Problem
}

func (u *UI) loginForm(r *http.Request) (reply, error) {
	if u.node.NeedsSetup() {
		return notSetUp(), nil
	}
	return show(loginPage(loginView{Next: local(r.FormValue("next")), Pin: u.node.Pin()})), nil
}

func (u *UI) login(r *http.Request) (reply, error) {
	v := loginView{Name: r.FormValue("name"), Next: local(r.FormValue("next")), Pin: u.node.Pin()}
	secret, err := u.node.Login(r.Context(), v.Name, r.FormValue("password"), address(r))
	if p, ok := formError(err); ok {
		v.Problem = p
		rep := again(loginPage(v))
		rep.status = p.Kind.Status()
		return rep, nil
	}
	if err != nil {
		return reply{}, err
	}
	rep := goTo(v.Next)
	rep.cookie = cookie(u.sessionName(), secret, 7*24*time.Hour)
	return rep, nil
}

func (u *UI) logout(r *http.Request) (reply, error) {
	if err := u.node.Logout(r.Context(), u.session(r)); err != nil {
		return reply{}, err
	}
	rep := goTo("/login")
	rep.cookie = cookie(u.sessionName(), "", -time.Second)
	return rep, nil
}

func (u *UI) theme(r *http.Request) (reply, error) {
	next := r.FormValue("theme") // scripts know what the system's is
	if next != "dark" && next != "light" {
		next = "dark"
		if value(r, themeCookie) == "dark" {
			next = "light"
		}
	}
	rep := goTo(local(r.FormValue("next")))
	rep.cookie = cookie(themeCookie, next, prefLife)
	return rep, nil
}
