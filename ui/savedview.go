package ui

import (
	"net/http"
	"net/url"
	"strings"

	"wuamesh/appliance"
)

// A savedView is one of the admin's own lists, as a link.
type savedView struct {
	appliance.SavedView
	Here bool // it is what the page shows
}

// saved are the admin's views of the page that the request is for.
func (u *UI) saved(r *http.Request, page string, now url.Values) ([]savedView, error) {
	all, err := u.node.SavedViews(r.Context(), actor(r), page)
	var list []savedView
	for _, v := range all {
		list = append(list, savedView{v, v.Query == strings.TrimPrefix(with(now, "after", ""), "?")})
	}
	return list, err
}

func (u *UI) viewSave(r *http.Request) (reply, error) {
	v, err := u.node.SaveView(r.Context(), actor(r), appliance.SavedView{Page: r.FormValue("page"), Name: r.FormValue("name"), Query: r.FormValue("query")})
	if err != nil {
		return reply{}, err
	}
	return goTo("/"+v.Page+"?"+v.Query).saying("The view %s is saved, for you on every node.", v.Name), nil
}

func (u *UI) viewDrop(r *http.Request) (reply, error) {
	if err := u.node.DropView(r.Context(), actor(r), r.PathValue("id")); err != nil {
		return reply{}, err
	}
	return goTo(local(r.FormValue("back"))).saying("The view is deleted."), nil
}
