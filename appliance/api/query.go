package api

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

var pageParams = []param{
	{name: "limit", doc: "rows of this page, 1 to 500; 50 when absent"},
	{name: "after", doc: "the next of the page before"},
}

func pageOf(q url.Values) (appliance.Page, error) {
	p := appliance.Page{After: q.Get("after")}
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 500 {
			return p, &appliance.Problem{Kind: appliance.Invalid, Field: "limit", Msg: fmt.Sprintf("limit=%s: want a number from 1 to 500.", s)}
		}
		p.Limit = n
	}
	return p, nil
}

var taskStates = []string{"queued", "running", "paused", "done", "unchanged", "failed", "cancelled"}

func taskQueryOf(q url.Values) (t appliance.TaskQuery, err error) {
	if t.Status = q.Get("status"); t.Status != "" && !slices.Contains(taskStates, t.Status) {
		return t, &appliance.Problem{Kind: appliance.Invalid, Field: "status", Msg: fmt.Sprintf("status=%s: want one of %s.", t.Status, strings.Join(taskStates, ", "))}
	}
	if s := q.Get("since"); s != "" {
		if t.Since, err = time.Parse(time.RFC3339, s); err != nil {
			return t, &appliance.Problem{Kind: appliance.Invalid, Field: "since", Msg: fmt.Sprintf("since=%s: want a time such as 2026-11-26T08:00:00Z.", s)}
		}
	}
	t.Page, err = pageOf(q)
	return t, err
}

var updateParams = append([]param{
	{name: "scope", doc: "all: also updates that no host reports, out of the scan cab; only those that hosts need or have when absent"},
	{name: "q", doc: "words of the title or the product, the beginning of a KB, an UpdateID, a CVE or a bulletin"},
	{name: "kb", doc: "one article number"},
	{name: "cve", doc: "one CVE"},
	{name: "severity", doc: "Critical, Important, Moderate, Low, Unspecified", many: true},
	{name: "product", doc: "a product's GUID", many: true},
	{name: "classification", doc: "a classification's GUID", many: true},
	{name: "state", doc: "OK, MISSING, PENDING, DISCARDED: at least one host has it in this state", many: true},
	{name: "downloaded", doc: "yes, running, queued, failed, no", many: true},
	{name: "verdict", doc: "allowed, delayed, forbidden, no rule, superseded: on at least one host", many: true},
	{name: "superseded", doc: "no, yes: whether a newer update of the scan cab replaces it", many: true},
	{name: "pub", doc: "the month it was published in, in UTC: 2026-11", many: true},
	{name: "restart", doc: "always, maybe, never, unknown: whether Windows restarts after the install", many: true},
	{name: "host", doc: "only updates this host reports"},
	{name: "sort", doc: "severity (when absent), title, published, hosts, downloaded; - before it reverses"},
}, pageParams...)

// ParseUpdateQuery reads the filter of a list of updates; the pages use the
// same keys.
func ParseUpdateQuery(q url.Values) (u appliance.UpdateQuery, err error) {
	u.Text, u.KB, u.CVE, u.Sort, u.Host = q.Get("q"), q.Get("kb"), q.Get("cve"), q.Get("sort"), agentproto.HostID(q.Get("host"))
	if u.Page, err = pageOf(q); err != nil {
		return u, err
	}
	if u.Severity, err = each(q["severity"], "severity", rules.ParseSeverity); err != nil {
		return u, err
	}
	if u.Product, err = each(q["product"], "product", rules.ParseCategoryID); err != nil {
		return u, err
	}
	if u.Classification, err = each(q["classification"], "classification", rules.ParseCategoryID); err != nil {
		return u, err
	}
	if u.State, err = each(q["state"], "state", oneOf(rules.OK, rules.Missing, rules.Pending, rules.Discarded)); err != nil {
		return u, err
	}
	if u.Download, err = each(q["downloaded"], "downloaded", oneOf(appliance.NotDownloaded, appliance.Queued,
		appliance.Downloading, appliance.Failed, appliance.Downloaded)); err != nil {
		return u, err
	}
	if u.Scope, err = oneOf(appliance.Needed, appliance.Whole)(q.Get("scope")); err != nil {
		return u, &appliance.Problem{Kind: appliance.Invalid, Field: "scope", Msg: "scope: " + err.Error() + ".", Err: err}
	}
	if u.Superseded, err = each(q["superseded"], "superseded", yesOrNo); err != nil {
		return u, err
	}
	if u.Published, err = each(q["pub"], "pub", appliance.ParseMonth); err != nil {
		return u, err
	}
	if u.Restart, err = each(q["restart"], "restart", oneOf(appliance.RestartAlways, appliance.RestartMaybe, appliance.RestartNever, appliance.RestartUnknown)); err != nil {
		return u, err
	}
	u.Verdict, err = each(q["verdict"], "verdict", oneOf(rules.Allowed, rules.Delayed, rules.Forbidden, rules.NoRule, rules.Hidden))
	return u, err
}

var hostParams = append([]param{
	{name: "q", doc: "a host's name, FQDN, address or id"},
	{name: "group", doc: "members of this group"},
	{name: "state", doc: "OK, MISSING, PENDING, DISCARDED: at least one update in this state", many: true},
	{name: "os", doc: "an operating system's name", many: true},
	{name: "site", doc: "the site of the node that a host reports to", many: true},
	{name: "ring", doc: "DEV, PREPROD, PROD: the first that a host accepts", many: true},
	{name: "stand", doc: "compliant, pending, missing, unscanned: where a host stands with the mesh's rule", many: true},
	{name: "seen", doc: "online, away, never scanned, waiting, clock off"},
	{name: "sort", doc: "name (when absent), os, scan, seen, missing, pending; - before it reverses"},
}, pageParams...)

func parseHostQuery(q url.Values) (h appliance.HostQuery, err error) {
	h.Text, h.Group, h.OS, h.Sort = q.Get("q"), q.Get("group"), q["os"], q.Get("sort")
	if h.Seen = q.Get("seen"); h.Seen != "" {
		if _, err = oneOf(appliance.HostViews[:]...)(h.Seen); err != nil {
			return h, &appliance.Problem{Kind: appliance.Invalid, Field: "seen", Msg: "seen: " + err.Error() + ".", Err: err}
		}
	}
	if h.Page, err = pageOf(q); err != nil {
		return h, err
	}
	h.Site = q["site"]
	if h.Ring, err = each(q["ring"], "ring", oneOf(rules.Maturities[:]...)); err != nil {
		return h, err
	}
	if h.Stand, err = each(q["stand"], "stand", oneOf(appliance.StandCompliant, appliance.StandPending, appliance.StandMissing, appliance.StandUnscanned)); err != nil {
		return h, err
	}
	h.State, err = each(q["state"], "state", oneOf(rules.OK, rules.Missing, rules.Pending, rules.Discarded))
	return h, err
}

func parseHostUpdateQuery(q url.Values) (h appliance.HostUpdateQuery, err error) {
	h.Text = q.Get("q")
	if h.Page, err = pageOf(q); err != nil {
		return h, err
	}
	if h.State, err = each(q["state"], "state", oneOf(rules.OK, rules.Missing, rules.Pending, rules.Discarded)); err != nil {
		return h, err
	}
	h.Severity, err = each(q["severity"], "severity", rules.ParseSeverity)
	return h, err
}

// each parses every value of one key and names the key in what it refuses.
func each[T any](values []string, key string, parse func(string) (T, error)) ([]T, error) {
	var list []T
	for _, s := range values {
		v, err := parse(s)
		if err != nil {
			return nil, &appliance.Problem{Kind: appliance.Invalid, Field: key, Msg: key + ": " + err.Error() + ".", Err: err}
		}
		list = append(list, v)
	}
	return list, nil
}

func yesOrNo(s string) (bool, error) {
	if s != "yes" && s != "no" {
		return false, fmt.Errorf("%q is neither yes nor no", s)
	}
	return s == "yes", nil
}

func oneOf[T ~string](choices ...T) func(string) (T, error) {
	return func(s string) (T, error) {
		for _, c := range choices {
			if string(c) == s {
				return c, nil
			}
		}
		return "", fmt.Errorf("%q is none of %q", s, choices)
	}
}
