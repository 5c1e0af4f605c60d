package ui

import (
	"net/http"
	"strconv"
	"strings"

	"wuamesh/appliance"
)

// ringField is what a field of the ring shows: what was typed, or is, or would
// be a careful beginning.
func (v ruleView) ringField(name string) string {
	if v.ring != nil {
		return v.ring.Get(name)
	}
	r := appliance.Ring{Days: 7, Hosts: 5, Percent: 5}
	if v.Ring != nil {
		r = v.Ring.Ring
	}
	return strconv.Itoa(map[string]int{"days": r.Days, "hosts": r.Hosts, "percent": r.Percent}[name])
}

// ringSave has a package promoted by itself, or leaves that to people.
func (u *UI) ringSave(r *http.Request) (reply, error) {
	name := r.PathValue("name")
	back := "/rules/" + name + "#ring"
	if r.FormValue("do") == "drop" {
		if err := u.node.DropRing(r.Context(), actor(r), name); err != nil {
			return reply{}, err
		}
		return goTo(back).saying("Only people promote %s now.", name), nil
	}
	ring := appliance.Ring{Days: whole(r, "days"), Hosts: whole(r, "hosts"), Percent: whole(r, "percent"), Paused: r.FormValue("paused") != ""}
	err := u.node.SetRing(r.Context(), actor(r), name, ring)
	if p, ok := formError(err); ok {
		return u.ruleOf(r, ruleView{Problem: p, ring: r.PostForm})
	}
	if err != nil {
		return reply{}, err
	}
	return goTo(back).saying("%s is promoted by itself %s.", name, ring), nil
}

// whole reads a whole number of a form; what is none is one that is refused.
func whole(r *http.Request, name string) int {
	n, err := strconv.Atoi(strings.TrimSpace(r.FormValue(name)))
	if err != nil {
		return -1
	}
	return n
}
