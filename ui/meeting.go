package ui

import (
	"net/http"
	"strings"

	"wuamesh/appliance"
)

// metAbout are the edits that met of objects whose name begins so.
func (u *UI) metAbout(r *http.Request, prefix string) ([]appliance.MeetingRow, error) {
	all, err := u.node.Meetings(r.Context(), "")
	if err != nil {
		return nil, err
	}
	var list []appliance.MeetingRow
	for _, m := range all {
		if strings.HasPrefix(m.Object, prefix) {
			list = append(list, m)
		}
	}
	return list, nil
}

// metSettle decides about two edits that met.
func (u *UI) metSettle(r *http.Request) (reply, error) {
	take := r.FormValue("do") == "take"
	if err := u.node.SettleMeeting(r.Context(), actor(r), r.FormValue("id"), take); err != nil {
		return reply{}, err
	}
	return goTo(local(r.FormValue("back"))).saying("Decided, on every node. The audit log keeps both edits."), nil
}

// reviewDecide makes a change that was kept for review, or discards it.
func (u *UI) reviewDecide(r *http.Request) (reply, error) {
	take := r.FormValue("do") == "take"
	if err := u.node.Review(r.Context(), actor(r), r.FormValue("id"), take); err != nil {
		return reply{}, err
	}
	if take {
		return goTo("/mesh#reviews").saying("The change is made, on every node."), nil
	}
	return goTo("/mesh#reviews").saying("The change is discarded."), nil
}

// objectURL leads to the page of what an edit was about.
func objectURL(object string) string {
	kind, name, _ := strings.Cut(object, " ")
	switch kind {
	case "package":
		return "/rules/" + name
	case "group":
		return "/groups/" + name
	case "profile":
		return profilesPath + "/" + name
	case "repository-rule":
		return repositoryPath
	case "site":
		return limitsOf(name)
	case "admin":
		return "/access"
	}
	return "/audit?object=" + object
}

func sideText(s appliance.MeetingSide) string {
	return s.Text + ", by " + s.By + " on " + s.Node + " at " + moment(s.At)
}
