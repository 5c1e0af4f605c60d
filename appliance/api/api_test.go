package api

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"wuamesh/appliance"
)

// TestDescription reads the OpenAPI document back: every route is in it, every
// reference leads somewhere, every operation has an id of its own.
func TestDescription(t *testing.T) {
	doc := describe(routes())
	var d struct {
		Paths      map[string]map[string]struct{ OperationID string }
		Components struct{ Schemas map[string]json.RawMessage }
	}
	if err := json.Unmarshal(doc, &d); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, rt := range routes() {
		op, ok := d.Paths[Prefix+rt.path][strings.ToLower(rt.method)]
		if !ok || op.OperationID == "" || ids[op.OperationID] {
			t.Errorf("%s %s is described as %+v", rt.method, rt.path, op)
		}
		ids[op.OperationID] = true
		if rt.role == "" {
			t.Errorf("%s %s asks for no role", rt.method, rt.path)
		}
		own := strings.HasPrefix(rt.path, "views") // of whoever asks, and nobody else's
		if rt.method != "GET" && rt.role == appliance.Viewer && !own && !strings.HasSuffix(rt.path, "/preview") {
			t.Errorf("%s %s changes something for a viewer", rt.method, rt.path)
		}
	}
	const ref = `"#/components/schemas/`
	for _, part := range strings.Split(string(doc), ref)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		if d.Components.Schemas[name] == nil || string(d.Components.Schemas[name]) == "null" {
			t.Errorf("schema %s is referred to and not there", name)
		}
	}
}

func TestQueriesAreChecked(t *testing.T) {
	for q, field := range map[string]string{
		"limit=0": "limit", "limit=501": "limit", "severity=Grave": "severity", "state=ok": "state", "product=Windows": "product", "downloaded=maybe": "downloaded", "pub=2026-13": "pub", "pub=november": "pub", "restart=often": "restart",
	} {
		v, _ := url.ParseQuery(q)
		_, err := ParseUpdateQuery(v)
		p, ok := err.(*appliance.Problem)
		if !ok || p.Field != field {
			t.Errorf("%s: %v", q, err)
		}
	}
	for q, field := range map[string]string{"status=moving": "status", "since=yesterday": "since", "limit=0": "limit"} {
		v, _ := url.ParseQuery(q)
		_, err := taskQueryOf(v)
		if p, ok := err.(*appliance.Problem); !ok || p.Field != field {
			t.Errorf("%s: %v", q, err)
		}
	}
	for q, field := range map[string]string{"seen=asleep": "seen", "ring=BETA": "ring", "stand=well": "stand"} {
		v, _ := url.ParseQuery(q)
		_, err := parseHostQuery(v)
		if p, ok := err.(*appliance.Problem); !ok || p.Field != field {
			t.Errorf("%s: %v", q, err)
		}
	}
	for q, field := range map[string]string{"severity=Grave": "severity", "state=ok": "state"} {
		v, _ := url.ParseQuery(q)
		_, err := parseHostUpdateQuery(v)
		if p, ok := err.(*appliance.Problem); !ok || p.Field != field {
			t.Errorf("%s of a host: %v", q, err)
		}
	}
	v, _ := url.ParseQuery("q=kb5&severity=critical&severity=Low&pub=2026-11&pub=2026-10&restart=never&sort=-title&limit=5&after=x")
	u, err := ParseUpdateQuery(v)
	if err != nil || u.Text != "kb5" || len(u.Severity) != 2 || u.Severity[0] != "Critical" || u.Sort != "-title" || u.Limit != 5 || u.After != "x" ||
		len(u.Published) != 2 || u.Published[0] != "2026-11" || len(u.Restart) != 1 || u.Restart[0] != appliance.RestartNever {
		t.Errorf("it reads as %+v, %v", u, err)
	}
}
