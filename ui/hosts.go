package ui

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// hostsView is the list of hosts with the filter that made it.
type hostsView struct {
	List  appliance.HostList
	Query url.Values
	Facet []facetView
	Saved []savedView
}

func (u *UI) hosts(r *http.Request) (reply, error) {
	q := hostFilter(r.URL.Query())
	list, err := u.node.Hosts(r.Context(), hostQuery(q))
	if err != nil {
		return reply{}, err
	}
	v := hostsView{List: list, Query: q, Facet: []facetView{{"Compliance", "stand", true, list.Stands}, {"State", "state", true, list.State}, {"Site", "site", true, list.Sites}, {"Ring", "ring", true, list.Rings}, {"System", "os", true, list.OS}, {"Group", "group", true, list.Groups}}}
	if v.Saved, err = u.saved(r, "hosts", q); err != nil {
		return reply{}, err
	}
	return show(hostsPage(v)), nil
}

// hostTabs are the views of the list that most mornings begin with.
var hostTabs = []struct{ seen, text string }{
	{"", "All"}, {"online", "Online"}, {"away", "Away"}, {"never scanned", "Never scanned"}, {"waiting", "Waiting for approval"}, {"clock off", "Clock off"},
}

// hostFilter keeps what the list of hosts knows of a query string.
func hostFilter(all url.Values) url.Values {
	q := url.Values{}
	for _, k := range []string{"q", "group", "state", "os", "site", "ring", "stand", "seen", "sort", "after"} {
		for _, v := range all[k] {
			if v != "" {
				q.Add(k, v)
			}
		}
	}
	return q
}

// hostQuery reads a filter; a value nobody knows matches nothing.
func hostQuery(q url.Values) appliance.HostQuery {
	return appliance.HostQuery{
		Text: q.Get("q"), Group: q.Get("group"), State: typed[rules.State](q["state"]), OS: q["os"], Site: q["site"], Ring: typed[rules.Maturity](q["ring"]), Stand: typed[appliance.HostStand](q["stand"]), Seen: q.Get("seen"), Sort: q.Get("sort"), Page: appliance.Page{After: q.Get("after")},
	}
}

// chosenHosts are the hosts that a form of the list has ticked, or all that
// match the list.
type chosenHosts struct {
	IDs   []string            // that were ticked; none when all that match are meant
	Hosts []appliance.HostRow // some of those that match, by the list's order
	Count int
	Was   int // how many there were when the page was made; 0 for the same
	Back  string
	ids   []agentproto.HostID
}

// chosen reads which hosts a form means.
func (u *UI) chosen(r *http.Request) (c chosenHosts, err error) {
	c = chosenHosts{IDs: r.Form["id"], Back: "/hosts"}
	if b := r.FormValue("back"); b != "" {
		c.Back = local(b)
	}
	c.ids = typed[agentproto.HostID](c.IDs)
	if r.FormValue("all") != "" {
		_, query, _ := strings.Cut(c.Back, "?")
		q, err := url.ParseQuery(query)
		if err != nil {
			return c, &appliance.Problem{Kind: appliance.Invalid, Msg: "The filter cannot be read.", Hint: "Go back and choose the hosts again.", Err: err}
		}
		c.ids, c.IDs = nil, nil
		for h := range u.node.EachHost(r.Context(), hostQuery(hostFilter(q))) {
			c.ids = append(c.ids, h.ID)
			if len(c.Hosts) < triggerShown {
				c.Hosts = append(c.Hosts, h)
			}
		}
	}
	c.Count = len(c.ids)
	return c, nil
}

// counted says whether the form said how many there are, which still holds;
// else Was is what it said.
func (c *chosenHosts) counted(r *http.Request) bool {
	seen, _ := strconv.Atoi(r.FormValue("seen"))
	if seen == c.Count {
		return true
	}
	c.Was = seen
	return false
}

// A triggerView asks before an action reaches more than one host.
type triggerView struct {
	chosenHosts
	Action agentproto.Action
}

// hostsAction triggers the hosts that a form has ticked, all that match its
// list, or a group. Before it reaches more than can be seen, or restarts
// more than one, it says how many there are.
func (u *UI) hostsAction(r *http.Request) (reply, error) {
	c, err := u.chosen(r)
	if err != nil {
		return reply{}, err
	}
	if r.FormValue("do") == "group" {
		return u.membersPage(r, membersView{chosenHosts: c})
	}
	v := triggerView{c, agentproto.Action(r.FormValue("do"))}
	asked := r.FormValue("group") == "" && (r.FormValue("all") != "" || v.Action == agentproto.ActionInstall && v.Count > 1)
	if asked && !v.counted(r) {
		return show(triggerPage(v)), nil
	}
	n, err := u.node.Trigger(r.Context(), actor(r), v.Action, v.ids, r.FormValue("group"))
	if err != nil {
		return reply{}, err
	}
	return goTo(v.Back).saying("The %s is queued on %s. Connected hosts begin now, the others when they return.", v.Action, count(n, "host")), nil
}

// triggerShown is how many hosts are named before an action reaches them.
const triggerShown = 20

func (v triggerView) title() string {
	verb := map[agentproto.Action]string{agentproto.ActionScan: "Scan", agentproto.ActionDownload: "Download on", agentproto.ActionInstall: "Install on"}[v.Action]
	return verb + " " + count(v.Count, "host")
}

// hostView is one host; Why is the one update that is explained.
type hostView struct {
	Host  appliance.HostDetail
	List  appliance.HostUpdateList
	Query url.Values
	Why   *appliance.Why
}

// severities are the choices of the table: what there is, and what is chosen.
func (v hostView) severities() (list []appliance.FacetCount) {
	for _, s := range rules.Severities {
		i := slices.IndexFunc(v.List.Severity, func(f appliance.FacetCount) bool { return f.Value == string(s) })
		switch {
		case i >= 0:
			list = append(list, v.List.Severity[i])
		case v.chosen(string(s)):
			list = append(list, appliance.FacetCount{Value: string(s), Label: string(s)})
		}
	}
	return list
}

func (v hostView) chosen(severity string) bool { return slices.Contains(v.Query["severity"], severity) }

// filtered is whether the table leaves anything out.
func (v hostView) filtered() bool {
	return v.Query.Has("q") || v.Query.Has("state") || v.Query.Has("severity")
}

func hostUpdateQuery(q url.Values, p appliance.Page) appliance.HostUpdateQuery {
	return appliance.HostUpdateQuery{Text: q.Get("q"), State: typed[rules.State](q["state"]), Severity: typed[rules.Severity](q["severity"]), Page: p}
}

func (u *UI) host(r *http.Request) (reply, error) {
	id := agentproto.HostID(r.PathValue("id"))
	h, err := u.node.Host(r.Context(), id)
	if err != nil {
		return reply{}, err
	}
	q := url.Values{}
	for _, k := range []string{"q", "state", "severity", "why", "after"} {
		for _, v := range r.URL.Query()[k] {
			if v != "" {
				q.Add(k, v)
			}
		}
	}
	v := hostView{Host: h, Query: q}
	if v.List, err = u.node.HostUpdates(r.Context(), id, hostUpdateQuery(q, appliance.Page{Limit: 100, After: q.Get("after")})); err != nil {
		return reply{}, err
	}
	if uid, err := rules.ParseUpdateID(q.Get("why")); err == nil {
		if w, err := u.node.Why(r.Context(), id, uid); err == nil {
			v.Why = &w
		}
	}
	return show(hostPage(v)), nil
}

func (u *UI) hostApprove(r *http.Request) (reply, error) {
	if err := u.node.ApproveHost(r.Context(), actor(r), agentproto.HostID(r.PathValue("id"))); err != nil {
		return reply{}, err
	}
	return goTo("/hosts/" + r.PathValue("id")).saying("Approved. The host gets its certificate at its next try, within a minute."), nil
}

func (u *UI) hostRemove(r *http.Request) (reply, error) {
	if err := u.node.RemoveHost(r.Context(), actor(r), agentproto.HostID(r.PathValue("id"))); err != nil {
		return reply{}, err
	}
	return goTo("/hosts").saying("Removed. Its certificate is refused from now on."), nil
}

var stepClass = map[string]string{"now": "now", "todo": "todo", "never": "todo"}

// explained is whether the row is the one whose why is open.
func (v hostView) explained(id rules.UpdateID) bool { return v.Why != nil && v.Why.Update.ID == id }
