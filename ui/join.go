package ui

import (
	"net/http"

	"wuamesh/appliance"
)

// joinView is the form by which a bare node joins a mesh.
type joinView struct {
	Secret, Token string
	Node          nodeForm
	Problem       *appliance.Problem
}

func (u *UI) joinForm(r *http.Request) (reply, error) {
	if !u.node.NeedsSetup() {
		return goTo("/login"), nil
	}
	v := joinView{Secret: r.FormValue("secret"), Node: u.nodeNow()}
	if err := u.node.MaySetUp(v.Secret); err != nil {
		return reply{}, err
	}
	return show(joinPage(v)), nil
}

func (u *UI) join(r *http.Request) (reply, error) {
	v := joinView{Secret: r.FormValue("secret"), Token: r.FormValue("token"), Node: u.nodeFrom(r)}
	if err := u.node.MaySetUp(v.Secret); err != nil {
		return reply{}, err
	}
	by := appliance.Actor{Name: "setup", Role: appliance.Owner, Address: address(r)}
	err := u.node.Answer(r.Context(), by, v.Node.Answers)
	if err == nil {
		err = u.node.Join(r.Context(), by, appliance.JoinOptions{Token: v.Token, Name: v.Node.Name, Site: v.Node.Site})
	}
	if p, ok := formError(err); ok || p != nil {
		v.Problem = p // whatever kind it is, the form stays filled in
		return again(joinPage(v)), nil
	}
	if err != nil {
		return reply{}, err
	}
	return goTo("/setup/joining"), nil
}

// joining shows how far the first copy is. Nobody can log in before it is
// there, so everybody may see how many records came.
func (u *UI) joining(r *http.Request) (reply, error) {
	state, err := u.node.JoinState(r.Context())
	switch {
	case err != nil:
		return reply{}, err
	case !state.Member:
		return goTo("/setup"), nil
	}
	rep := show(joiningPage(state))
	rep.refresh = !state.Synced
	return rep, nil
}

func (u *UI) passphraseForm(*http.Request) (reply, error) { return show(passphrasePage("")), nil }

// passphrase shows the new passphrase on the page that answers the form: it
// is kept nowhere it could be shown again from.
func (u *UI) passphrase(r *http.Request) (reply, error) {
	text, err := u.node.NewRecovery(r.Context(), actor(r))
	if err != nil {
		return reply{}, err
	}
	return show(passphrasePage(text)), nil
}
