package appliance

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"wuamesh/replicate"
)

// A SavedView is a list as an admin likes to look at it: filters and order,
// under a name. It is the admin's own, on every node.
type SavedView struct {
	ID    string    `json:"id"`
	Page  string    `json:"page"` // "hosts" or "updates"
	Name  string    `json:"name"`
	Query string    `json:"query"` // of the page's address
	At    time.Time `json:"at"`
}

// Bounds of saved views.
const (
	maxViews     = 50 // of one admin
	maxViewName  = 60 // characters
	maxViewQuery = 2000
)

var viewPages = []string{"hosts", "updates"}

// SavedViews lists an admin's views of a page, or of all pages, by name.
func (a *Appliance) SavedViews(ctx context.Context, by Actor, page string) ([]SavedView, error) {
	var list []SavedView
	err := a.db.View(ctx, func(tx *replicate.Tx) (err error) {
		list, err = viewsOf(tx, by, page)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the saved views of %s: %w", by.Name, err)
	}
	slices.SortFunc(list, func(x, y SavedView) int { return strings.Compare(x.Page+"/"+x.Name, y.Page+"/"+y.Name) })
	return list, nil
}

// viewsOf are the views of the actor for one page, or for all.
func viewsOf(tx *replicate.Tx, by Actor, page string) ([]SavedView, error) {
	list := []SavedView{}
	for r, err := range savedViews.all(tx, by.Name+"/") {
		if err != nil {
			return nil, err
		}
		if v := r.value; page == "" || v.Page == page {
			_, v.ID, _ = strings.Cut(r.id, "/")
			list = append(list, v)
		}
	}
	return list, nil
}

// SaveView keeps a view of the actor; one of the same name and page is
// replaced.
func (a *Appliance) SaveView(ctx context.Context, by Actor, v SavedView) (SavedView, error) {
	if err := by.need(Viewer); err != nil {
		return v, err
	}
	if err := v.check(); err != nil {
		return v, err
	}
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		have, err := viewsOf(tx, by, "")
		if err != nil {
			return err
		}
		same := slices.IndexFunc(have, func(w SavedView) bool { return w.Page == v.Page && w.Name == v.Name })
		switch {
		case same >= 0:
			v.ID = have[same].ID
		case len(have) >= maxViews:
			return &Problem{Kind: Conflict, Field: "name", Msg: fmt.Sprintf("You have %d saved views, as many as there may be.", maxViews), Hint: "Delete one that is not needed any more."}
		default:
			var id [8]byte
			rand.Read(id[:])
			v.ID = hex.EncodeToString(id[:])
		}
		v.At = tx.Now()
		return savedViews.put(tx, by.Name+"/"+v.ID, v)
	})
	return v, err
}

// check puts the view's name right and says what is wrong with it.
func (v *SavedView) check() error {
	v.Name = strings.Join(strings.Fields(v.Name), " ")
	switch q, err := url.ParseQuery(v.Query); {
	case !slices.Contains(viewPages, v.Page):
		return invalid("page", "%.40q is no page with saved views; there are %s.", v.Page, strings.Join(viewPages, " and "))
	case v.Name == "":
		return &Problem{Kind: Invalid, Field: "name", Msg: "A saved view needs a name.", Hint: "Say what the list shows."}
	case len([]rune(v.Name)) > maxViewName || strings.ContainsFunc(v.Name, unicode.IsControl):
		return invalid("name", "The name has more than %d characters, or some that cannot be shown.", maxViewName)
	case err != nil || len(v.Query) > maxViewQuery:
		return invalid("query", "The filters cannot be kept: they are longer than %d bytes, or no query.", maxViewQuery)
	default:
		q.Del("after") // a page of it, not the list
		v.Query = q.Encode()
	}
	return nil
}

// DropView deletes a view of the actor.
func (a *Appliance) DropView(ctx context.Context, by Actor, id string) error {
	if err := by.need(Viewer); err != nil {
		return err
	}
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		if _, ok, err := savedViews.find(tx, by.Name+"/"+id); err != nil || !ok {
			return cmpErr(err, notFound("You have no saved view %.40q.", id))
		}
		return savedViews.del(tx, by.Name+"/"+id)
	})
}
