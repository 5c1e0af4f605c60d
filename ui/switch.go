package ui

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"time"

	"wuamesh/appliance"
)

// maxSwitch is how many nodes the frame offers; the Mesh page has all.
const maxSwitch = 12

// standingPath is what renews the part of the frame that follows the mesh.
const standingPath = "/standing"

func (f frame) standingURL() string { return standingPath + "?" + url.Values{"to": {f.to}}.Encode() }

// others are the nodes to go on at: those of this node's site first, then by
// round trip; those that nobody reaches last.
func (f frame) others() []appliance.NodeRow {
	list := slices.DeleteFunc(slices.Clone(f.nodes), func(n appliance.NodeRow) bool { return n.Self || !n.Removed.IsZero() || n.URL == "" })
	rank := func(n appliance.NodeRow) int {
		switch {
		case n.Reach == "away":
			return 3
		case n.Site == f.stand.Site:
			return 0
		case n.Reach == "direct":
			return 1
		}
		return 2
	}
	slices.SortStableFunc(list, func(x, y appliance.NodeRow) int {
		return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(x.RoundTrip, y.RoundTrip))
	})
	return list
}

// switchURL leads to the same page on another node.
func (f frame) switchURL(n appliance.NodeRow) string {
	return "/switch?" + url.Values{"node": {n.ID}, "to": {f.to}}.Encode()
}

// switchNode hands the admin over to another node, which asks for no password
// then, and leads the browser there.
func (u *UI) switchNode(r *http.Request) (reply, error) {
	if s := r.Header.Get("Sec-Fetch-Site"); s != "" && s != "same-origin" && s != "none" {
		return reply{}, &appliance.Problem{Kind: appliance.Denied, Msg: "Another site asked to change nodes.", Hint: "Choose the node in the menu."}
	}
	base, secret, err := u.node.HandOver(r.Context(), actor(r), r.FormValue("node"))
	if err != nil {
		return reply{}, err
	}
	to := local(r.FormValue("to"))
	if secret == "" {
		return show(switchPage(base, base+to)), nil
	}
	return goTo(base + "/handover?" + url.Values{"secret": {secret}, "to": {to}}.Encode()), nil
}

// handOver takes an admin over from another node.
func (u *UI) handOver(r *http.Request) (reply, error) {
	to := local(r.FormValue("to"))
	session, behind, err := u.node.TakeHandOver(r.Context(), r.FormValue("secret"), address(r))
	if _, ok := appliance.AsProblem(err); ok {
		return goTo("/login?next=" + url.QueryEscape(to)), nil
	}
	if err != nil {
		return reply{}, err
	}
	rep := goTo(to).saying("You are on %s now.", u.node.NodeName())
	if behind != "" {
		rep = goTo(to).saying("You are on %s now. It does not have all that %s showed you yet; it is catching up.", u.node.NodeName(), behind)
	}
	rep.cookie = cookie(u.sessionName(), session, 7*24*time.Hour)
	return rep, nil
}
