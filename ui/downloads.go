package ui

import (
	"fmt"
	"net/http"

	"wuamesh/appliance"
)

// downloadsView is the list of download tasks.
type downloadsView struct {
	Tasks  []appliance.Task
	Status string
	Next   string
}

func (u *UI) downloads(r *http.Request) (reply, error) {
	v := downloadsView{Status: r.FormValue("status")}
	var err error
	v.Tasks, v.Next, err = u.node.Tasks(r.Context(), v.Status, appliance.Page{Limit: 100, After: r.FormValue("after")})
	if err != nil {
		return reply{}, err
	}
	return show(downloadsPage(v)), nil
}

func taskName(t appliance.Task) string {
	if t.Title != "" {
		return shortTitle(t.Title)
	}
	return t.File
}

func taskPercent(t appliance.Task) int {
	if t.Size <= 0 {
		return 0
	}
	return int(t.Done * 100 / t.Size)
}

// taskLine says how a task goes on, or how it ended.
func taskLine(t appliance.Task) string {
	switch t.Status {
	case "running":
		text := fmt.Sprintf("%d %%", taskPercent(t))
		if t.Rate > 0 {
			text += fmt.Sprintf(", %s/s, %d s left", size(t.Rate), (t.Size-t.Done)/t.Rate)
		}
		return text
	case "failed":
		return t.Error + " Next try " + moment(t.NextTry) + "."
	case "done":
		return "Done " + ago(t.Finished, "")
	case "unchanged":
		return "Unchanged, nothing moved"
	default:
		return "Queued"
	}
}

func (u *UI) cleanForm(r *http.Request) (reply, error) {
	plan, err := u.node.Unused(r.Context())
	if err != nil {
		return reply{}, err
	}
	return show(cleanPage(plan)), nil
}

func (u *UI) clean(r *http.Request) (reply, error) {
	plan, err := u.node.Clean(r.Context(), actor(r))
	if err != nil {
		return reply{}, err
	}
	return goTo("/updates").saying("%s deleted, %s free again. They return by themselves when a host asks.", count(len(plan.Files), "file"), size(plan.Bytes)), nil
}

func (u *UI) fileDelete(r *http.Request) (reply, error) {
	name := r.FormValue("name")
	if err := u.node.DeleteFile(r.Context(), actor(r), name); err != nil {
		return reply{}, err
	}
	return goTo(local(r.FormValue("back"))).saying("%s is deleted. It returns when an agent asks for it.", name), nil
}
