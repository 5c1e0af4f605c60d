package ui

import (
	"net/http"
	"strings"

	"wuamesh/appliance"
)

// promoteView asks before a package is promoted.
type promoteView struct {
	Name, Reason string
	Step         appliance.Promotion
	Problem      *appliance.Problem
}

func (v promoteView) title() string { return "Promote " + v.Name + " to " + string(v.Step.To) }

func (v promoteView) saveText() string {
	return "Promote to " + string(v.Step.To) + ", " + count(v.Step.Impact.Hosts, "host") + " changed"
}

func (u *UI) promoteForm(r *http.Request) (reply, error) {
	v := promoteView{Name: r.PathValue("name")}
	var err error
	if v.Step, err = u.node.PreviewPromotion(r.Context(), v.Name); err != nil {
		return reply{}, err
	}
	return show(promotePage(v)), nil
}

func (u *UI) promote(r *http.Request) (reply, error) {
	v := promoteView{Name: r.PathValue("name"), Reason: strings.TrimSpace(r.FormValue("reason"))}
	var err error
	if v.Step, err = u.node.PreviewPromotion(r.Context(), v.Name); err != nil {
		return reply{}, err
	}
	before := u.history.packages.latest(r, v.Name)
	err = u.node.Promote(r.Context(), actor(r), v.Name, v.Reason)
	if p, ok := formError(err); ok {
		v.Problem = p
		return again(promotePage(v)), nil
	}
	if err != nil {
		return reply{}, err
	}
	rep := goTo("/rules/"+v.Name).saying("%s is %s now. %s", v.Name, v.Step.To, v.Step.Impact.Summary())
	return u.history.packages.undoing(rep, r, v.Name, before), nil
}
