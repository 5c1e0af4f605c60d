package ui

import (
	"cmp"
	"net/http"
	"strings"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// stopView asks before an emergency stop, or before one is undone.
type stopView struct {
	Update  appliance.UpdateDetail
	Impact  appliance.Impact
	Reason  string
	Problem *appliance.Problem
}

func (v stopView) title() string {
	if v.Update.Stop != nil {
		return "Undo the emergency stop"
	}
	return "Emergency stop"
}

// have are the hosts that have it installed, as far as they are listed.
func have(u appliance.UpdateDetail) (list []appliance.HostUpdate) {
	for _, h := range u.OnHosts {
		if h.State == rules.OK {
			list = append(list, h)
		}
	}
	return list
}

func (u *UI) stopForm(r *http.Request) (reply, error) {
	v, err := u.stopView(r)
	if err != nil {
		return reply{}, err
	}
	return show(stopPage(v)), nil
}

func (u *UI) stopView(r *http.Request) (v stopView, err error) {
	id, err := rules.ParseUpdateID(r.PathValue("id"))
	if err != nil {
		return v, &appliance.Problem{Kind: appliance.NotFound, Msg: err.Error() + ".", Err: err}
	}
	if v.Update, err = u.node.UpdateByID(r.Context(), id); err != nil {
		return v, err
	}
	v.Impact, err = u.node.PreviewStop(r.Context(), id)
	return v, err
}

func (u *UI) stopMake(r *http.Request) (reply, error) {
	v, err := u.stopView(r)
	if err != nil {
		return reply{}, err
	}
	v.Reason = strings.TrimSpace(r.FormValue("reason"))
	err = u.node.Stop(r.Context(), actor(r), v.Update.ID, v.Reason)
	if p, ok := formError(err); ok {
		v.Problem = p
		return again(stopPage(v)), nil
	}
	if err != nil {
		return reply{}, err
	}
	return goTo("/updates/"+string(v.Update.ID)).saying("%s is stopped on every host. %s", titleOf(v.Update.Title, v.Update.ID), v.Impact.Summary()), nil
}

func (u *UI) stopUndo(r *http.Request) (reply, error) {
	v, err := u.stopView(r)
	if err != nil {
		return reply{}, err
	}
	if err := u.node.UndoStop(r.Context(), actor(r), v.Update.ID); err != nil {
		return reply{}, err
	}
	return goTo("/updates/"+string(v.Update.ID)).saying("The stop of %s is undone. %s", titleOf(v.Update.Title, v.Update.ID), v.Impact.Summary()), nil
}

// stopped says who stopped an update and why.
func stopped(s appliance.StopRow) string {
	return s.By + " stopped it on " + moment(s.At) + ": " + strings.TrimSuffix(s.Reason, ".") + "."
}

func hostLabel(h appliance.HostUpdate) string { return cmp.Or(h.HostName, string(h.Host)) }

// hostOrder says which hosts an update's page lists first.
func hostOrder(u appliance.UpdateDetail) string {
	if u.Stop != nil {
		return "those that have it first"
	}
	return "worst first"
}
