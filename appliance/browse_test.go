package appliance_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// branch is a node whose host needs a third of the updates and one that the
// scan cab does not have; the files of some are here, and so is one that no
// host needs.
func branch(t testing.TB) (s *site, invented agentproto.Update) {
	t.Helper()
	s = start(t, nil)
	list, byID := described(s.world)
	s.catalogued(t, len(list))
	s.allow(t)
	invented = list[4]
	invented.ID, invented.Title, invented.KBs, invented.Files = "00000000-0000-4000-8000-00000000abcd", "An update that the scan cab does not have", []string{"5099999"}, nil
	byID[invented.ID] = invented
	some := []agentproto.Update{invented}
	for i := 0; i < len(list); i += 3 {
		some = append(some, list[i])
	}
	s.enrol(t, 1, s.enrolToken(t, 1)).report(t, needs(some...), byID)
	alone := list[len(list)-1]
	if _, err := s.DownloadUpdates(t.Context(), owner, []rules.UpdateID{alone.ID}); err != nil {
		t.Fatal(err)
	}
	for _, u := range append(some[1:], alone) {
		s.has(t, u.Files[0].Name, status("done"))
	}
	return s, invented
}

func (s *site) list(t testing.TB, q appliance.UpdateQuery) appliance.UpdateList {
	t.Helper()
	q.Limit = cmp.Or(q.Limit, 500)
	l, err := s.Updates(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func ids(rows []appliance.UpdateRow) (list []rules.UpdateID) {
	for _, r := range rows {
		list = append(list, r.ID)
	}
	return list
}

// TestTheWholeCatalogue weaves what hosts report into what the scan cab has,
// page by page, in every order.
func TestTheWholeCatalogue(t *testing.T) {
	s, invented := branch(t)
	published := s.world.Updates()
	needed, whole := s.list(t, appliance.UpdateQuery{}), s.list(t, appliance.UpdateQuery{Scope: appliance.Whole})
	if n := 1 + (len(published)+2)/3; needed.Total != n || len(needed.Updates) != n {
		t.Errorf("%d updates are needed, %d rows, want %d", needed.Total, len(needed.Updates), n)
	}
	want := []rules.UpdateID{invented.ID}
	for _, u := range published {
		want = append(want, rules.UpdateID(u.ID))
	}
	if got := ids(whole.Updates); whole.Total != len(want) || whole.Matching != len(want) || !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		t.Errorf("the whole catalogue has %d of %d, %d rows, want %d", whole.Matching, whole.Total, len(got), len(want))
	}
	for _, sort := range []string{"", "severity", "title", "published", "hosts", "downloaded"} {
		for _, down := range []string{"", "-"} {
			q := appliance.UpdateQuery{Scope: appliance.Whole, Sort: down + sort}
			if q.Sort == "-" {
				continue
			}
			all := s.list(t, q)
			if i := outOfOrder(all.Updates, sort, down == "-"); i > 0 {
				t.Errorf("%s: row %d is out of order: %+v, then %+v", q.Sort, i, all.Updates[i-1], all.Updates[i])
			}
			for _, limit := range []int{1, 7} {
				q.Limit = limit
				var paged []rules.UpdateID
				for q.After = ""; ; {
					p := s.list(t, q)
					if paged = append(paged, ids(p.Updates)...); p.Next == "" || len(paged) > len(want) {
						break
					}
					q.After = p.Next
				}
				if !slices.Equal(paged, ids(all.Updates)) {
					t.Errorf("%q in pages of %d: %d rows that are not the %d of one page", q.Sort, limit, len(paged), len(all.Updates))
				}
			}
		}
	}
}

// outOfOrder is the first row that should come before the one ahead of it.
func outOfOrder(rows []appliance.UpdateRow, sort string, down bool) int {
	key := func(r appliance.UpdateRow) string {
		switch sort {
		case "title":
			return r.Title
		case "published":
			return r.Published.Format("2006-01-02T15:04:05")
		case "hosts":
			return fmt.Sprintf("%05d", r.Hosts.Missing+r.Hosts.Pending)
		case "downloaded":
			return r.DownloadedOn.UTC().Format("2006-01-02T15:04:05.000000000")
		}
		return fmt.Sprintf("%d %05d %010d", slices.Index(rules.Severities[:], r.Severity), 99999-r.Hosts.Missing-r.Hosts.Pending, 9999999999-r.Published.Unix())
	}
	for i := 1; i < len(rows); i++ {
		n := strings.Compare(key(rows[i-1]), key(rows[i]))
		if down {
			n = -n
		}
		if cmp.Or(n, strings.Compare(string(rows[i-1].ID), string(rows[i].ID))) > 0 {
			return i
		}
	}
	return 0
}

// TestFilteringTheWholeCatalogue compares every filter, and the counts of
// every facet, with looking at each row.
func TestFilteringTheWholeCatalogue(t *testing.T) {
	s, _ := branch(t)
	all := s.list(t, appliance.UpdateQuery{Scope: appliance.Whole}).Updates
	product, class, month := all[0].Products[0].ID, all[0].Classification.ID, appliance.Month(all[0].Published.UTC().Format("2006-01"))
	for name, q := range map[string]appliance.UpdateQuery{
		"nothing":        {},
		"severity":       {Severity: []rules.Severity{rules.Critical, rules.Unspecified}},
		"product":        {Product: []rules.CategoryID{product}},
		"class":          {Classification: []rules.CategoryID{class}},
		"two":            {Severity: []rules.Severity{rules.Important}, Product: []rules.CategoryID{product}},
		"downloaded":     {Download: []appliance.DownloadState{appliance.Downloaded}},
		"not downloaded": {Download: []appliance.DownloadState{appliance.NotDownloaded}, Severity: []rules.Severity{rules.Critical}},
		"state":          {State: []rules.State{rules.Pending}},
		"verdict":        {Verdict: []rules.Verdict{rules.Allowed}},
		"newest":         {Superseded: []bool{false}},
		"replaced":       {Superseded: []bool{true}},
		"published":      {Published: []appliance.Month{month}},
		"two months":     {Published: []appliance.Month{month, "2024-02"}, Severity: []rules.Severity{rules.Critical}},
		"restarts":       {Restart: []appliance.RestartNeed{appliance.RestartAlways, appliance.RestartMaybe}, Published: []appliance.Month{month}},
		"never restarts": {Restart: []appliance.RestartNeed{appliance.RestartNever}},
	} {
		q.Scope = appliance.Whole
		got := s.list(t, q)
		var want []rules.UpdateID
		for _, r := range all {
			if len(misses(q, r)) == 0 {
				want = append(want, r.ID)
			}
		}
		if !slices.Equal(ids(got.Updates), want) || got.Matching != len(want) || got.Total != len(all) || len(want) == 0 {
			t.Errorf("%s: %d of %d match, %d rows, want %d", name, got.Matching, got.Total, len(got.Updates), len(want))
		}
		for facet, counts := range map[string][]appliance.FacetCount{
			"severity": got.Facets.Severity, "product": got.Facets.Product, "class": got.Facets.Classification, "download": got.Facets.Download,
			"superseded": got.Facets.Superseded, "state": got.Facets.State, "verdict": got.Facets.Verdict,
			"published": got.Facets.Published, "restart": got.Facets.Restart,
		} {
			for _, c := range counts {
				n := 0
				for _, r := range all {
					if m := misses(q, r); slices.Contains(values(r, facet), c.Value) && (len(m) == 0 || len(m) == 1 && m[0] == facet) {
						n++
					}
				}
				if n != c.Count || c.Label == "" {
					t.Errorf("%s: %s %s %q counts %d, want %d", name, facet, c.Value, c.Label, c.Count, n)
				}
			}
		}
	}
}

// TestNoSuchMonth finds nothing by what is no month, or a need nobody has.
func TestNoSuchMonth(t *testing.T) {
	s, _ := branch(t)
	for _, q := range []appliance.UpdateQuery{{Published: []appliance.Month{"2026-13"}}, {Published: []appliance.Month{"1999-01"}}, {Restart: []appliance.RestartNeed{"often"}}} {
		for _, q.Scope = range []appliance.Scope{appliance.Needed, appliance.Whole} {
			if got := s.list(t, q); got.Matching != 0 || len(got.Updates) != 0 {
				t.Errorf("%v and %v in scope %q find %d", q.Published, q.Restart, q.Scope, got.Matching)
			}
		}
	}
}

func values(r appliance.UpdateRow, facet string) (list []string) {
	switch facet {
	case "severity":
		return []string{string(r.Severity)}
	case "product":
		for _, p := range r.Products {
			list = append(list, string(p.ID))
		}
	case "class":
		return []string{string(r.Classification.ID)}
	case "download":
		return []string{string(r.Download)}
	case "superseded":
		return []string{map[bool]string{false: "no", true: "yes"}[r.Superseded]}
	case "verdict":
		return []string{string(r.Verdict)}
	case "published":
		return []string{r.Published.UTC().Format("2006-01")}
	case "restart":
		return []string{string(cmp.Or(r.Restart, appliance.RestartUnknown))}
	case "state":
		for s, n := range map[rules.State]int{rules.OK: r.Hosts.OK, rules.Missing: r.Hosts.Missing, rules.Pending: r.Hosts.Pending, rules.Discarded: r.Hosts.Discarded} {
			if n > 0 {
				list = append(list, string(s))
			}
		}
	}
	return list
}

// misses are the facets that leave a row out.
func misses(q appliance.UpdateQuery, r appliance.UpdateRow) (list []string) {
	test := func(facet string, chosen ...string) {
		if len(chosen) > 0 && !slices.ContainsFunc(values(r, facet), func(v string) bool { return slices.Contains(chosen, v) }) {
			list = append(list, facet)
		}
	}
	test("severity", texts(q.Severity)...)
	test("product", texts(q.Product)...)
	test("class", texts(q.Classification)...)
	test("download", texts(q.Download)...)
	test("state", texts(q.State)...)
	test("verdict", texts(q.Verdict)...)
	test("published", texts(q.Published)...)
	test("restart", texts(q.Restart)...)
	for _, v := range q.Superseded {
		test("superseded", map[bool]string{false: "no", true: "yes"}[v])
	}
	return list
}

func texts[T ~string](list []T) (out []string) {
	for _, v := range list {
		out = append(out, string(v))
	}
	return out
}

// TestSearchingTheWholeCatalogue finds updates of either source by what people
// know of them.
func TestSearchingTheWholeCatalogue(t *testing.T) {
	s, invented := branch(t)
	list, _ := described(s.world)
	alone := list[1] // no host reports it
	for text, want := range map[string]rules.UpdateID{
		"KB" + alone.KBs[0]: alone.ID, alone.KBs[0][:5]: alone.ID, string(alone.ID): alone.ID, string(alone.ID)[:9]: alone.ID,
		strings.ToLower(alone.CVEs[0]): alone.ID, alone.Title: alone.ID, "windows 11 cumulative": alone.ID,
		"KB5099999": invented.ID, "the scan cab does not have": invented.ID,
	} {
		if got := s.list(t, appliance.UpdateQuery{Scope: appliance.Whole, Text: text}); !slices.Contains(ids(got.Updates), want) {
			t.Errorf("%q finds %d updates, %s is not among them", text, got.Matching, want)
		}
		if got := s.list(t, appliance.UpdateQuery{Text: text}); slices.Contains(ids(got.Updates), alone.ID) {
			t.Errorf("%q finds among what hosts need what no host reports", text)
		}
	}
	for _, q := range []appliance.UpdateQuery{{KB: alone.KBs[0]}, {KB: "kb" + alone.KBs[0]}, {CVE: strings.ToLower(alone.CVEs[0])}} {
		q.Scope = appliance.Whole
		got := s.list(t, q)
		if !slices.Contains(ids(got.Updates), alone.ID) || got.Matching == len(list) {
			t.Errorf("%+v finds %d", q, got.Matching)
		}
	}
	if got := s.list(t, appliance.UpdateQuery{Scope: appliance.Whole, KB: alone.KBs[0][:5]}); got.Matching != 0 {
		t.Errorf("half a KB finds %d", got.Matching)
	}
}

// TestRulesForWhatNoHostReports forbids an update of the scan cab: the list,
// the package and the update itself say so by its title.
func TestRulesForWhatNoHostReports(t *testing.T) {
	s, _ := branch(t)
	list, _ := described(s.world)
	alone := list[1]
	line := rules.Line{Verb: rules.Forbid, Kind: rules.ByUpdateID, Value: string(alone.ID)}
	if _, err := s.PutPackage(t.Context(), owner, "erp-freeze", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}, Lines: []rules.Line{line}}); err != nil {
		t.Fatal(err)
	}
	got := s.list(t, appliance.UpdateQuery{Scope: appliance.Whole, Text: string(alone.ID)})
	if len(got.Updates) != 1 || got.Updates[0].Foreseen != rules.Forbidden || got.Updates[0].By != "erp-freeze" {
		t.Errorf("the list says %+v", got.Updates)
	}
	d, err := s.UpdateByID(t.Context(), alone.ID)
	if err != nil || len(d.Lines) != 2 || d.Lines[0].Package != "erp-freeze" || d.Foreseen != rules.Forbidden || d.Verdict != "" {
		t.Errorf("the update says %+v, %s, %v", d.Lines, d.Foreseen, err)
	}
	p, err := s.Package(t.Context(), "erp-freeze")
	if err != nil || len(p.Lines) != 1 || p.Lines[0].Label != alone.Title {
		t.Errorf("the package says %+v, %v", p.Lines, err)
	}
}
