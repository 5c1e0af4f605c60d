package ui

import (
	"net/http"
	"strings"

	"wuamesh/appliance"
)

// setupView is the form that makes the first admin and says what the node is.
type setupView struct {
	Secret, Name string
	Node         nodeForm
	Problem      *appliance.Problem
}

// A nodeForm is what the setup pages ask about the node, and what testing it
// found.
type nodeForm struct {
	appliance.Answers
	Decided map[string]bool // by the configuration file
	Checks  []appliance.Check
	Fresh   bool // the node is being set up
}

func (u *UI) nodeNow() nodeForm {
	now, decided := u.node.Answers()
	return nodeForm{Answers: now, Decided: decided}
}

// nodeFrom reads the form over what holds now: a field that is not in it, or
// that the file has decided, stays.
func (u *UI) nodeFrom(r *http.Request) nodeForm {
	f := u.nodeNow()
	for field, to := range map[string]*string{"node": &f.Name, "site": &f.Site, "proxy": &f.Proxy} {
		if r.PostForm == nil {
			r.ParseForm()
		}
		if r.PostForm.Has(field) {
			*to = strings.TrimSpace(r.PostForm.Get(field))
		}
	}
	if r.PostForm.Has("asked-internet") {
		f.Internet = r.PostForm.Has("internet")
	}
	return f
}

func (u *UI) setupForm(r *http.Request) (reply, error) {
	if !u.node.NeedsSetup() {
		return goTo("/login"), nil
	}
	v := setupView{Secret: r.FormValue("secret"), Node: u.nodeNow()}
	if v.Secret == "" {
		return notSetUp(), nil
	}
	if err := u.node.MaySetUp(v.Secret); err != nil {
		return reply{}, err // before somebody fills the form in for nothing
	}
	return show(setupPage(v)), nil
}

// notSetUp says where the setup link is.
func notSetUp() reply { return reply{status: http.StatusServiceUnavailable, page: notSetUpPage()} }

func (u *UI) setup(r *http.Request) (reply, error) {
	v := setupView{Secret: r.FormValue("secret"), Name: r.FormValue("name"), Node: u.nodeFrom(r)}
	if r.FormValue("password") != r.FormValue("again") {
		v.Problem = &appliance.Problem{Kind: appliance.Invalid, Msg: "The two passwords differ.", Field: "again"}
		return again(setupPage(v)), nil
	}
	// What the node is comes first: a wrong proxy leaves the link good.
	err := u.node.MaySetUp(v.Secret)
	if err == nil && v.Node.Answers != u.nodeNow().Answers {
		err = u.node.Answer(r.Context(), appliance.Actor{Name: "setup", Role: appliance.Owner, Address: address(r)}, v.Node.Answers)
	}
	if err == nil {
		err = u.node.SetUp(r.Context(), v.Secret, v.Name, r.FormValue("password"))
	}
	if p, ok := formError(err); ok {
		v.Problem = p
		return again(setupPage(v)), nil
	}
	if err != nil {
		return reply{}, err
	}
	return u.login(r)
}

// setupTest tries what the form says, and shows the form with what was found.
// Nothing is kept. Passwords are typed again: they never come back in a page.
func (u *UI) setupTest(r *http.Request) (reply, error) {
	secret, node := r.FormValue("secret"), u.nodeFrom(r)
	if err := u.node.MaySetUp(secret); err != nil {
		return reply{}, err
	}
	checks, err := u.node.Check(r.Context(), &node.Answers)
	p, ok := formError(err)
	if err != nil && !ok {
		return reply{}, err
	}
	node.Checks, node.Fresh = checks, true
	if r.FormValue("for") == "join" {
		node.Checks = append(u.node.CheckJoin(r.Context(), r.FormValue("token")), checks...)
		return show(joinPage(joinView{Secret: secret, Token: r.FormValue("token"), Node: node, Problem: p})), nil
	}
	return show(setupPage(setupView{Secret: secret, Name: r.FormValue("name"), Node: node, Problem: p})), nil
}
