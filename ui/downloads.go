package ui

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"wuamesh/appliance"
)

// downloadsView is the list of download tasks.
type downloadsView struct {
	Tasks    []appliance.Task
	Status   string
	After    string
	Next     string
	Coverage map[string][]appliance.Coverage
	Traffic  []appliance.Traffic
	Pauses   []appliance.Pause // lines over which the site's limits let nothing pass
	Limits   appliance.Limits  // of this node's site
	Site     string
	Problem  *appliance.Problem
	Operator bool
	Uploads  []appliance.Upload // that no update names
}

func (u *UI) downloads(r *http.Request) (reply, error) {
	q := r.URL.Query()
	return u.downloadsPage(r, downloadsView{Status: q.Get("status"), After: q.Get("after")})
}

func (u *UI) downloadsRetry(r *http.Request) (reply, error) {
	n, err := u.node.RetryDownloads(r.Context(), actor(r))
	if err != nil {
		return reply{}, err
	}
	return goTo("/downloads").saying("%s tried now.", areTried(n)), nil
}

// taskButtons are the actions on a download, as buttons say them.
var taskButtons = map[appliance.TaskAction]string{
	appliance.PauseTask: "Pause", appliance.ResumeTask: "Resume", appliance.FirstTask: "Put first", appliance.CancelTask: "Cancel", appliance.RetryTask: "Try now",
}

// downloadSteer does to one download what a button of its row says.
func (u *UI) downloadSteer(r *http.Request) (reply, error) {
	t, err := u.node.SteerDownload(r.Context(), actor(r), r.PathValue("id"), appliance.TaskAction(r.FormValue("do")))
	if p, ok := appliance.AsProblem(err); ok && p.Kind == appliance.Conflict {
		v := downloadsView{Problem: p}
		return u.downloadsPage(r, v)
	}
	if err != nil {
		return reply{}, err
	}
	return goTo(local(r.FormValue("back"))).saying("%s", steeredText(t, appliance.TaskAction(r.FormValue("do")))), nil
}

// steeredText says what was done to a download, and what comes of it.
func steeredText(t appliance.Task, do appliance.TaskAction) string {
	name, hosts := taskName(t), ""
	switch {
	case t.Hosts == 1:
		hosts = " 1 host waits for it."
	case t.Hosts > 1:
		hosts = " " + num(t.Hosts) + " hosts wait for it."
	}
	switch do {
	case appliance.PauseTask:
		return name + " is paused on this node: what is here of it stays." + hosts
	case appliance.ResumeTask:
		return name + " goes on where it was."
	case appliance.FirstTask:
		return name + " goes before the others now."
	case appliance.RetryTask:
		return name + " is tried now."
	}
	return name + " is out of the queue." + hosts + " It comes again when a host asks for it."
}

func areTried(n int) string {
	switch n {
	case 0:
		return "None is failed any more, so nothing is"
	case 1:
		return "1 failed download is"
	}
	return num(n) + " failed downloads are"
}

// downloadsPage is the page with what stands beside the tasks.
func (u *UI) downloadsPage(r *http.Request, v downloadsView) (reply, error) {
	var err error
	v.Tasks, v.Next, err = u.node.Tasks(r.Context(), appliance.TaskQuery{Status: v.Status, Page: appliance.Page{Limit: 100, After: v.After}})
	if err != nil {
		return reply{}, err
	}
	v.Site = frameOf(r.Context()).stand.Site
	if v.Limits, err = u.node.SiteLimits(r.Context(), ""); err != nil {
		return reply{}, err
	}
	if v.Traffic, err = u.node.Traffic(r.Context(), 7); err != nil {
		return reply{}, err
	}
	if v.Uploads, err = u.node.Uploads(r.Context()); err != nil {
		return reply{}, err
	}
	v.Coverage, v.Pauses = u.node.Coverage(v.Tasks), u.node.Pauses()
	v.Operator = actor(r).May(appliance.Operator)
	if v.Problem != nil {
		return again(downloadsPage(v)), nil
	}
	return show(downloadsPage(v)), nil
}

// query is that of the list of tasks.
func (v downloadsView) query() url.Values {
	q := url.Values{}
	if v.Status != "" {
		q.Set("status", v.Status)
	}
	if v.After != "" {
		q.Set("after", v.After)
	}
	return q
}

// pauseLine says over which line nothing passes, and why.
func pauseLine(p appliance.Pause) string {
	if p.Budget {
		return "The month's budget " + p.Line + " is used up."
	}
	return "The site's limits let nothing pass " + p.Line + " now."
}

// moved writes bytes of a table; nothing is a dash.
func moved(n int64) string {
	if n == 0 {
		return "–"
	}
	return size(n)
}

// byNode says which nodes a day's files came from and went to, and what came
// from Microsoft for nothing.
func byNode(t appliance.Traffic) string {
	var parts []string
	for _, way := range []struct {
		what  string
		nodes map[string]int64
	}{{"from ", t.Peers}, {"to ", t.To}} {
		for _, name := range slices.Sorted(maps.Keys(way.nodes)) {
			if n := way.nodes[name]; n > 0 {
				parts = append(parts, way.what+name+" "+size(n))
			}
		}
	}
	if t.Twice > 0 {
		parts = append(parts, size(t.Twice)+" that another node downloaded too")
	}
	return strings.Join(parts, ", ")
}

// coverMost is how many nodes are named that have parts of a file.
const coverMost = 8

func taskName(t appliance.Task) string {
	if t.Title != "" {
		return shortTitle(t.Title)
	}
	return t.File
}

// coverLine says how much of a file a node has, and what comes from it.
func coverLine(c appliance.Coverage) string {
	text := fmt.Sprintf("%s %d %%", c.Node, c.Percent)
	if c.Rate > 0 {
		text += ", " + size(c.Rate) + "/s"
	}
	return text
}

// taskFor says for whom a file is fetched.
func taskFor(t appliance.Task) string {
	if t.Hosts > 0 {
		return t.By + ", " + count(t.Hosts, "host")
	}
	return t.By
}

// taskLine says how a task goes on, or how it ended.
func taskLine(t appliance.Task) string {
	switch t.Status {
	case "running":
		text := fmt.Sprintf("%d %%", t.Percent())
		if t.From == "peers" {
			text += ", from other nodes"
		}
		if left := t.Left(); left > 0 {
			text += ", " + size(t.Rate) + "/s, " + appliance.Span(left) + " left"
		}
		return text
	case "failed":
		if t.NextTry.IsZero() {
			return t.Error
		}
		return t.Error + " Next try " + moment(t.NextTry) + "."
	case "paused":
		return "Paused"
	case "cancelled":
		return t.Error
	case "done":
		if t.Peers > 0 {
			return "Done " + ago(t.Finished, "") + ", from other nodes"
		}
		return "Done " + ago(t.Finished, "")
	case "unchanged":
		if t.From != "" && t.From != "Microsoft" {
			return "Unchanged, " + t.From + " asked Microsoft"
		}
		return "Unchanged, nothing moved"
	default:
		if !t.First.IsZero() {
			return "Queued, the first"
		}
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

// fileUpload takes in a file that an admin brings.
func (u *UI) fileUpload(r *http.Request, file sentFile) (reply, error) {
	if file.name == "" {
		return u.downloadsPage(r, downloadsView{Problem: &appliance.Problem{Kind: appliance.Invalid, Msg: "No file was chosen.", Hint: "Choose a .cab or .msu first."}})
	}
	up, err := u.node.Upload(r.Context(), actor(r), path.Base(strings.ReplaceAll(file.name, `\`, "/")), -1, file)
	if p, ok := appliance.AsProblem(err); ok && p.Kind != appliance.Denied {
		return u.downloadsPage(r, downloadsView{Problem: p})
	}
	if err != nil {
		return reply{}, err
	}
	return goTo("/downloads#upload").saying("%s", uploadLine(up)), nil
}

// uploadLine says what became of an uploaded file.
func uploadLine(up appliance.Upload) string {
	switch {
	case up.Already:
		return up.Name + " is here already."
	case up.Title != "":
		return fmt.Sprintf("%s is verified, signed by %s, and served: %s.", up.Name, up.Signer, up.Title)
	}
	return fmt.Sprintf("%s is verified, signed by %s, and served.", up.Name, up.Signer)
}

func (u *UI) fileDelete(r *http.Request) (reply, error) {
	name := r.FormValue("name")
	uploads, err := u.node.Uploads(r.Context())
	if err != nil {
		return reply{}, err
	}
	if err := u.node.DeleteFile(r.Context(), actor(r), name); err != nil {
		return reply{}, err
	}
	if slices.ContainsFunc(uploads, func(up appliance.Upload) bool { return up.Name == name && up.Title == "" }) {
		return goTo(local(r.FormValue("back"))).saying("%s is deleted. No update names it: it does not return by itself.", name), nil
	}
	return goTo(local(r.FormValue("back"))).saying("%s is deleted. It returns when an agent asks for it.", name), nil
}
