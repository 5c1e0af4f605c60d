package ui

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// updatesView is the list of updates with the filter that made it.
type updatesView struct {
	List  appliance.UpdateList
	Cab   appliance.CabView
	Query url.Values
	Facet []facetView
	Chips []chip
	Sort  string
	Saved []savedView
}

// Whole says that the list has more than what hosts need or have.
func (v updatesView) Whole() bool { return v.Query.Get("scope") == string(appliance.Whole) }

// here is the list without any filter.
func (v updatesView) here() string {
	if v.Whole() {
		return "/updates?scope=" + string(appliance.Whole)
	}
	return "/updates"
}

type facetView struct {
	Title, Key string
	Open       bool
	Options    []appliance.FacetCount
}

// facetShown is how many choices of a facet are shown at once; the scan cab
// has hundreds of products.
const facetShown = 12

// first are the choices that are shown: the most frequent, and what is chosen.
func (v facetView) first(q url.Values) (list []appliance.FacetCount) {
	for i, o := range v.Options {
		if i < facetShown || v.on(q, o.Value) {
			list = append(list, o)
		}
	}
	return list
}

// rest are the others.
func (v facetView) rest(q url.Values) (list []appliance.FacetCount) {
	for i, o := range v.Options {
		if i >= facetShown && !v.on(q, o.Value) {
			list = append(list, o)
		}
	}
	return list
}

type chip struct{ Key, Value, Label string }

func (v facetView) on(q url.Values, value string) bool { return slices.Contains(q[v.Key], value) }

func (u *UI) updates(r *http.Request) (reply, error) {
	q := canonical(r.URL.Query())
	query := updateQuery(q)
	list, err := u.node.Updates(r.Context(), query)
	if err != nil {
		return reply{}, err
	}
	v := updatesView{List: list, Cab: u.node.Cab(), Query: q, Sort: query.Sort}
	v.Facet = []facetView{
		{"Criticality", "severity", true, list.Facets.Severity},
		{"Product", "product", true, list.Facets.Product},
		{"Classification", "classification", true, list.Facets.Classification},
		{"Supersedence", "superseded", v.Whole(), list.Facets.Superseded},
		{"Downloaded", "downloaded", true, list.Facets.Download},
		{"Decision", "verdict", false, list.Facets.Verdict},
		{"Published", "pub", false, list.Facets.Published},
		{"Needs restart", "restart", false, list.Facets.Restart},
		{"State on a host", "state", false, list.Facets.State},
	}
	for _, f := range v.Facet {
		for _, value := range q[f.Key] {
			label := value
			if i := slices.IndexFunc(f.Options, func(o appliance.FacetCount) bool { return o.Value == value }); i >= 0 {
				label = f.Options[i].Label
			} else if c, ok := u.node.Category(rules.CategoryID(value)); ok {
				label = c.Title
			}
			v.Chips = append(v.Chips, chip{f.Key, value, f.Title + " " + label})
		}
	}
	if text := q.Get("q"); text != "" {
		v.Chips = append(v.Chips, chip{"q", text, "Text " + text})
	}
	if v.Saved, err = u.saved(r, "updates", v.Query); err != nil {
		return reply{}, err
	}
	return show(updatesPage(v)), nil
}

// filterKeys are the keys of the list's query string; unknown ones are
// dropped, so that equal views have equal URLs.
var filterKeys = []string{"scope", "q", "severity", "product", "classification", "downloaded", "superseded", "verdict", "state", "pub", "restart", "sort", "after", "host"}

func canonical(q url.Values) url.Values {
	c := url.Values{}
	for _, k := range filterKeys {
		for _, v := range q[k] {
			if v != "" {
				c.Add(k, v)
			}
		}
	}
	return c
}

// updateQuery reads a filter; a value nobody knows matches nothing.
func updateQuery(q url.Values) appliance.UpdateQuery {
	var superseded []bool
	for _, v := range q["superseded"] {
		superseded = append(superseded, v == "yes")
	}
	return appliance.UpdateQuery{
		Scope: appliance.Scope(q.Get("scope")), Superseded: superseded,
		Text: q.Get("q"), Sort: q.Get("sort"), Severity: typed[rules.Severity](q["severity"]), Product: typed[rules.CategoryID](q["product"]),
		Classification: typed[rules.CategoryID](q["classification"]), Download: typed[appliance.DownloadState](q["downloaded"]),
		Verdict: typed[rules.Verdict](q["verdict"]), State: typed[rules.State](q["state"]),
		Published: typed[appliance.Month](q["pub"]), Restart: typed[appliance.RestartNeed](q["restart"]), Page: appliance.Page{After: q.Get("after")},
	}
}

func typed[T ~string](list []string) (out []T) {
	for _, s := range list {
		out = append(out, T(s))
	}
	return out
}

// maxAllUpdates is how many updates may be meant by all that match: what is
// more than anybody reads is said by product, classification or severity.
const maxAllUpdates = 500

// matchingUpdates are all that match the list that a form is of.
func (u *UI) matchingUpdates(r *http.Request) (ids []rules.UpdateID, err error) {
	_, query, _ := strings.Cut(local(r.FormValue("back")), "?")
	q, err := url.ParseQuery(query)
	if err != nil {
		return nil, &appliance.Problem{Kind: appliance.Invalid, Msg: "The filter cannot be read.", Hint: "Go back and choose the updates again.", Err: err}
	}
	for row, err := range u.node.EachUpdate(r.Context(), updateQuery(canonical(q))) {
		if err != nil {
			return nil, err
		}
		if ids = append(ids, row.ID); len(ids) > maxAllUpdates {
			return nil, &appliance.Problem{Kind: appliance.Invalid, Msg: fmt.Sprintf("More than %d updates match.", maxAllUpdates), Hint: "Narrow the filter, or write a rule by product, classification or severity: it holds for updates that come later, too."}
		}
	}
	return ids, nil
}

// chosenUpdates reads the rows a form has ticked.
func chosenUpdates(r *http.Request) ([]rules.UpdateID, error) {
	var ids []rules.UpdateID
	for _, s := range r.Form["id"] {
		id, err := rules.ParseUpdateID(s)
		if err != nil {
			return nil, &appliance.Problem{Kind: appliance.Invalid, Msg: err.Error() + ".", Err: err}
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, &appliance.Problem{Kind: appliance.Invalid, Msg: "No update is chosen.", Hint: "Go back and tick at least one row."}
	}
	return ids, nil
}

// ruleForm asks into which package updates are allowed or forbidden.
type ruleForm struct {
	Verb     rules.Verb // empty: out of all packages
	Updates  []appliance.UpdateDetail
	Packages []appliance.PackageRow
	Name     string
	Problem  *appliance.Problem
	Back     string
}

func (f ruleForm) title() string {
	n := count(len(f.Updates), "update")
	switch f.Verb {
	case rules.Allow:
		return "Allow " + n
	case rules.Forbid:
		return "Forbid " + n
	default:
		return "Remove " + n + " from rules"
	}
}

// updatesBulk does what needs no question, and asks for the package else.
func (u *UI) updatesBulk(r *http.Request) (reply, error) {
	var ids []rules.UpdateID
	var err error
	if r.FormValue("all") != "" {
		ids, err = u.matchingUpdates(r)
	} else {
		ids, err = chosenUpdates(r)
	}
	if err == nil && r.FormValue("all") != "" && r.FormValue("all") != strconv.Itoa(len(ids)) {
		err = &appliance.Problem{Kind: appliance.Conflict, Msg: fmt.Sprintf("%s match now; there were %s when you looked.", count(len(ids), "update"), r.FormValue("all")), Hint: "Nothing was done. Go back, reload the list, and choose again."}
	}
	if err != nil {
		return reply{}, err
	}
	back := local(r.FormValue("back"))
	switch do := r.FormValue("do"); do {
	case "download":
		n, err := u.node.DownloadUpdates(r.Context(), actor(r), ids)
		if err != nil {
			return reply{}, err
		}
		return goTo(back).saying("%s queued for download from Microsoft.", count(n, "file")), nil
	case "allow", "forbid", "remove":
		f, err := u.ruleForm(r, ids)
		if err != nil {
			return reply{}, err
		}
		return show(ruleChoicePage(f)), nil
	default:
		return reply{}, &appliance.Problem{Kind: appliance.Invalid, Msg: fmt.Sprintf("There is no action %q for updates.", do)}
	}
}

func (u *UI) ruleForm(r *http.Request, ids []rules.UpdateID) (f ruleForm, err error) {
	f = ruleForm{Name: strings.TrimSpace(r.FormValue("package")), Back: local(r.FormValue("back"))}
	switch r.FormValue("do") {
	case "allow":
		f.Verb = rules.Allow
	case "forbid":
		f.Verb = rules.Forbid
	}
	for _, id := range ids {
		d, err := u.node.UpdateByID(r.Context(), id)
		if err != nil {
			return f, err
		}
		f.Updates = append(f.Updates, d)
	}
	f.Packages, err = u.node.Packages(r.Context())
	return f, err
}

// updatesRule puts updates into a package, which is made if it is new, or
// takes them out of all.
func (u *UI) updatesRule(r *http.Request) (reply, error) {
	ids, err := chosenUpdates(r)
	if err != nil {
		return reply{}, err
	}
	f, err := u.ruleForm(r, ids)
	if err != nil {
		return reply{}, err
	}
	if f.Verb == "" {
		return u.unrule(r, f)
	}
	if n := strings.TrimSpace(r.FormValue("new")); n != "" {
		f.Name = n
	}
	var lines []rules.Line
	for _, id := range ids {
		lines = append(lines, rules.Line{Verb: f.Verb, Kind: rules.ByUpdateID, Value: string(id)})
	}
	if slices.ContainsFunc(f.Packages, func(p appliance.PackageRow) bool { return p.Name == f.Name }) {
		err = u.node.AddLines(r.Context(), actor(r), f.Name, lines)
	} else {
		_, err = u.node.PutPackage(r.Context(), actor(r), f.Name, appliance.PackageEdit{Maturity: rules.Prod, Lines: lines, Groups: []string{"all"}})
	}
	if p, ok := formError(err); ok {
		f.Problem = p
		return again(ruleChoicePage(f)), nil
	}
	if err != nil {
		return reply{}, err
	}
	return goTo(f.Back).saying("%s in package %s. Hosts that are connected know it now.", f.title(), f.Name), nil
}

func (u *UI) unrule(r *http.Request, f ruleForm) (reply, error) {
	n := 0
	for _, d := range f.Updates {
		for _, ref := range d.Lines {
			if ref.Line.Kind != rules.ByUpdateID {
				continue
			}
			if err := u.node.RemoveLines(r.Context(), actor(r), ref.Package, []rules.Line{ref.Line}); err != nil {
				return reply{}, err
			}
			n++
		}
	}
	return goTo(f.Back).saying("%s removed. What names a KB, product, classification or severity stays.", count(n, "line")), nil
}

func (u *UI) update(r *http.Request) (reply, error) {
	id, err := rules.ParseUpdateID(r.PathValue("id"))
	if err != nil {
		return reply{}, &appliance.Problem{Kind: appliance.NotFound, Msg: err.Error() + ".", Err: err}
	}
	d, err := u.node.UpdateByID(r.Context(), id)
	if err != nil {
		return reply{}, err
	}
	return show(updatePage(d)), nil
}

func (u *UI) indexDownload(r *http.Request) (reply, error) {
	if err := u.node.DownloadCab(r.Context(), actor(r)); err != nil {
		return reply{}, err
	}
	return goTo("/updates").saying("%s", u.cabAsked()), nil
}

func (u *UI) indexMissing(r *http.Request) (reply, error) {
	n, err := u.node.DownloadMissing(r.Context(), actor(r))
	if err != nil {
		return reply{}, err
	}
	return goTo("/updates").saying("%s %s queued.", u.cabAsked(), upperFirst(count(n, "missing file"))), nil
}

// cabAsked says who looks for a newer scan cab.
func (u *UI) cabAsked() string {
	if u.node.AsksMicrosoft() {
		return "Microsoft is being asked for a newer wsusscn2.cab."
	}
	return "A node that downloads from Microsoft is asked for a newer wsusscn2.cab: this one does not."
}

// foreseen says what a package will decide once a host reports an update.
func foreseen(u appliance.UpdateRow) string {
	return verdictTexts[u.Foreseen] + " once a host reports it"
}

// onHostsText counts the hosts that are shown, which are the worst.
func onHostsText(u appliance.UpdateDetail) string {
	order := ", " + hostOrder(u)
	all := u.Hosts.OK + u.Hosts.Missing + u.Hosts.Pending + u.Hosts.Discarded
	if all > len(u.OnHosts) {
		return num(len(u.OnHosts)) + " of " + num(all) + order
	}
	return num(len(u.OnHosts)) + order
}

// uncounted says of a list that nobody counted how many match.
const uncounted = -1

func shownText(shown, matching int, what string) string {
	if matching == uncounted {
		return count(shown, what) + " shown"
	}
	return num(shown) + " of " + count(matching, what)
}

// fileFacts are what is known of a file besides its name and digests.
func fileFacts(f appliance.FileRow) string {
	list := []string{size(f.Size)}
	if f.Kind != "" {
		list = append(list, f.Kind)
	}
	if len(f.Languages) > 0 {
		list = append(list, "for "+strings.Join(f.Languages, ", "))
	}
	return strings.Join(list, ", ")
}

// namesShown is how many updates a list at the side of a page begins with.
const namesShown = 8

func cabText(c appliance.CabView) string {
	switch {
	case c.Running:
		return fmt.Sprintf("Downloading, %d %%", c.Progress)
	case !c.Held:
		return "Not here yet. " + c.Note
	case c.Date.IsZero():
		return size(c.Size)
	default:
		return "of " + date(c.Date) + ", " + size(c.Size)
	}
}

// catalogueText says what was read out of the scan cab, and how far a newer
// one is.
func catalogueText(c appliance.CatalogueView) string {
	switch {
	case c.Reading && c.Updates == 0:
		return fmt.Sprintf("Reading its catalogue, %d %%", c.Progress)
	case c.Reading:
		return fmt.Sprintf("Reading its catalogue, %d %%; the one of %s is in use", c.Progress, date(c.Published))
	default:
		return ""
	}
}

func cabChecked(c appliance.CabView) string {
	if c.Checked.IsZero() {
		return c.Note
	}
	return "Checked " + ago(c.Checked, "never") + ", " + c.Note
}

// restartTexts say what Windows does after an install.
var restartTexts = map[appliance.RestartNeed]string{appliance.RestartAlways: "Always needed", appliance.RestartMaybe: "Windows may ask for one", appliance.RestartNever: "Not needed", "": "Not known"}

var verdictTexts = map[rules.Verdict]string{rules.Allowed: "Allowed", rules.Delayed: "Delayed", rules.Forbidden: "Forbidden", rules.NoRule: "No rule", rules.Hidden: "Superseded"}

var verdictClasses = map[rules.Verdict]string{rules.Allowed: "c-ok", rules.Delayed: "c-pen", rules.Forbidden: "c-err", rules.NoRule: "c-dis", rules.Hidden: "c-dis"}

// sortLink is where a column's head leads: it sorts, then reverses.
func sortLink(q url.Values, key string) string {
	if q.Get("sort") == key {
		key = "-" + key
	}
	return with(q, "sort", key)
}

func ariaSort(q url.Values, key string) string {
	switch q.Get("sort") {
	case key:
		return "ascending"
	case "-" + key:
		return "descending"
	}
	return "none"
}
