package ui

import (
	"net/http"

	"wuamesh/agentproto"
	"wuamesh/appliance"
)

// membersView gives hosts of the list to a group, or takes them out.
type membersView struct {
	chosenHosts
	Groups  []appliance.GroupRow
	Group   string
	Take    bool
	Preview *appliance.Membership // nil until a group was chosen
	Impact  *appliance.Impact
	Problem *appliance.Problem
}

// membersPage is the form, with the groups there are.
func (u *UI) membersPage(r *http.Request, v membersView) (reply, error) {
	list, err := u.node.GroupsBrief(r.Context())
	if err != nil {
		return reply{}, err
	}
	for _, g := range list {
		if g.Name != everyone {
			v.Groups = append(v.Groups, g)
		}
	}
	if len(v.Hosts) == 0 {
		for _, id := range v.ids[:min(len(v.ids), triggerShown)] {
			h, err := u.node.Host(r.Context(), id)
			if err != nil {
				return reply{}, err
			}
			v.Hosts = append(v.Hosts, h.HostRow)
		}
	}
	if v.Count == 0 {
		v.Problem = &appliance.Problem{Kind: appliance.Invalid, Msg: "No host is chosen.", Hint: "Go back and tick at least one."}
	}
	if v.Problem != nil {
		return again(membersPage(v)), nil
	}
	return show(membersPage(v)), nil
}

// membersSave changes who is in a group, or says what that would change.
func (u *UI) membersSave(r *http.Request) (reply, error) {
	c, err := u.chosen(r)
	if err != nil {
		return reply{}, err
	}
	v := membersView{chosenHosts: c, Group: r.FormValue("group"), Take: r.FormValue("take") != ""}
	if !v.counted(r) || v.Count == 0 {
		return u.membersPage(r, v)
	}
	add, drop := v.ids, []agentproto.HostID(nil)
	if v.Take {
		add, drop = drop, add
	}
	g, err := u.node.Group(r.Context(), v.Group)
	var members appliance.Membership
	var impact appliance.Impact
	if err == nil {
		members, err = u.node.PreviewMembers(r.Context(), g.Name, g.With(add, drop))
	}
	if err == nil {
		impact, err = u.node.PreviewGroup(r.Context(), g.Name, g.With(add, drop))
	}
	if err == nil && r.FormValue("do") == "preview" {
		v.Preview, v.Impact = &members, &impact
		return u.membersPage(r, v)
	}
	if err == nil {
		err = u.node.EditMembers(r.Context(), actor(r), g.Name, add, drop)
	}
	if p, ok := formError(err); ok {
		v.Problem = p
		return u.membersPage(r, v)
	}
	if err != nil {
		return reply{}, err
	}
	rep := goTo(v.Back).saying("%s: %s %s", g.Name, membersText(members), impact.Summary())
	return u.history.groups.undoing(rep, r, g.Name, g.Version), nil
}
