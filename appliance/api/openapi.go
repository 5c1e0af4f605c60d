package api

import (
	"encoding/json"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// describe writes the OpenAPI 3.1 document of the routes. Schemas come from
// the Go types by reflection, so the description cannot drift from what is
// sent.
func describe(list []route) []byte {
	g := &generator{schemas: map[string]any{}}
	paths := map[string]map[string]any{}
	for _, rt := range list {
		p := Prefix + rt.path
		if paths[p] == nil {
			paths[p] = map[string]any{}
		}
		paths[p][strings.ToLower(rt.method)] = g.operation(rt)
	}
	doc := map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{
			"title": "wuamesh", "version": "1",
			"description": "What the pages of a node do, for scripts. Lists page by cursor: pass next as after. Errors are problem details (RFC 9457).",
		},
		"paths":    paths,
		"security": []any{map[string]any{"token": []string{}}},
		"components": map[string]any{
			"schemas":         g.schemas,
			"securitySchemes": map[string]any{"token": map[string]any{"type": "http", "scheme": "bearer"}},
		},
	}
	g.of(reflect.TypeFor[agentproto.Problem]())
	b, err := json.MarshalIndent(doc, "", " ")
	if err != nil {
		panic(err) // only maps, slices and strings are in it
	}
	return b
}

type generator struct{ schemas map[string]any }

var inBraces = regexp.MustCompile(`\{(\w+)\}`)

func (g *generator) operation(rt route) map[string]any {
	params := []any{}
	for _, m := range inBraces.FindAllStringSubmatch(rt.path, -1) {
		params = append(params, map[string]any{"name": m[1], "in": "path", "required": true, "schema": map[string]any{"type": "string"}})
	}
	for _, q := range rt.query {
		schema := map[string]any{"type": "string"}
		if q.many {
			schema = map[string]any{"type": "array", "items": schema}
		}
		params = append(params, map[string]any{"name": q.name, "in": "query", "description": q.doc, "schema": schema})
	}
	status, good := "204", map[string]any{"description": "Done"}
	if rt.stream != nil {
		status, good = "200", map[string]any{"description": "Done", "content": map[string]any{"application/octet-stream": map[string]any{}}}
	}
	if rt.answer != nil {
		status, good = "200", map[string]any{"description": "Done", "content": jsonOf(g.of(reflect.TypeOf(rt.answer)))}
		if rt.status != 0 {
			status = strconv.Itoa(rt.status)
		}
	}
	op := map[string]any{
		"operationId": operationID(rt), "summary": rt.summary, "description": "Needs the role " + string(rt.role) + ".",
		"parameters": params,
		"responses": map[string]any{
			status: good,
			"default": map[string]any{"description": "What went wrong, and what to do", "content": map[string]any{
				"application/problem+json": map[string]any{"schema": map[string]any{"$ref": "#/components/schemas/Problem"}},
			}},
		},
	}
	if rt.bytes {
		op["requestBody"] = map[string]any{"required": true, "content": map[string]any{"application/octet-stream": map[string]any{}}}
	}
	if rt.body != nil {
		op["requestBody"] = map[string]any{"required": true, "content": jsonOf(g.of(reflect.TypeOf(rt.body)))}
	}
	return op
}

func jsonOf(schema map[string]any) map[string]any {
	return map[string]any{"application/json": map[string]any{"schema": schema}}
}

// operationID is made of method and path: getHostsHostUpdates.
func operationID(rt route) string {
	id := strings.ToLower(rt.method)
	for _, w := range strings.FieldsFunc(rt.path, func(r rune) bool { return strings.ContainsRune("/{}", r) }) {
		id += strings.ToUpper(w[:1]) + w[1:]
	}
	return id
}

// enums are the words of the string types that have a fixed set of them.
var enums = map[reflect.Type][]string{
	reflect.TypeFor[rules.State]():             {"OK", "MISSING", "PENDING", "DISCARDED"},
	reflect.TypeFor[rules.Verdict]():           words(rules.Allowed, rules.Forbidden, rules.NoRule, rules.Delayed, rules.Hidden),
	reflect.TypeFor[rules.Verb]():              words(rules.Allow, rules.Forbid),
	reflect.TypeFor[rules.Kind]():              words(rules.Kinds[:]...),
	reflect.TypeFor[rules.Maturity]():          words(rules.Maturities[:]...),
	reflect.TypeFor[rules.Severity]():          words(rules.Severities[:]...),
	reflect.TypeFor[agentproto.Action]():       words(agentproto.ActionScan, agentproto.ActionDownload, agentproto.ActionInstall),
	reflect.TypeFor[appliance.CheckResult]():   words(appliance.CheckOK, appliance.CheckWarning, appliance.CheckFailed, appliance.CheckSkipped),
	reflect.TypeFor[appliance.ConditionKind](): words(appliance.ConditionKinds...),
	reflect.TypeFor[appliance.Grade]():         words(appliance.Good, appliance.Late, appliance.Lost),
	reflect.TypeFor[appliance.RuleFormat]():    words(appliance.TOML, appliance.WAPT),
	reflect.TypeFor[appliance.Role]():          words(appliance.Viewer, appliance.Operator, appliance.Owner),
	reflect.TypeFor[appliance.TokenUse]():      words(appliance.ForAPI, appliance.ForEnroll),
	reflect.TypeFor[appliance.DownloadState](): words(appliance.NotDownloaded, appliance.Queued, appliance.Downloading, appliance.Failed, appliance.Downloaded),
}

func words[T ~string](list ...T) (s []string) {
	for _, w := range list {
		s = append(s, string(w))
	}
	return s
}

// of returns the schema of t; structs become components and are referred to.
func (g *generator) of(t reflect.Type) map[string]any {
	if e, ok := enums[t]; ok {
		return map[string]any{"type": "string", "enum": e}
	}
	switch t {
	case reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case reflect.TypeFor[agentproto.Duration]():
		return map[string]any{"type": "string", "examples": []string{"1h30m0s"}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.of(t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return map[string]any{"type": "string", "contentEncoding": "base64"}
		}
		return map[string]any{"type": "array", "items": g.of(t.Elem())}
	case reflect.Struct:
		if _, seen := g.schemas[t.Name()]; !seen {
			g.schemas[t.Name()] = nil // breaks cycles
			g.schemas[t.Name()] = g.object(t)
		}
		return map[string]any{"$ref": "#/components/schemas/" + t.Name()}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Int, reflect.Int64, reflect.Uint32, reflect.Uint64:
		return map[string]any{"type": "integer"}
	default:
		return map[string]any{"type": "string"}
	}
}

func (g *generator) object(t reflect.Type) map[string]any {
	props, required := map[string]any{}, map[string]bool{}
	for _, f := range reflect.VisibleFields(t) {
		tag := f.Tag.Get("json")
		if !f.IsExported() || tag == "-" || f.Anonymous && tag == "" {
			continue
		}
		name, opts, _ := strings.Cut(tag, ",")
		props[name] = g.of(f.Type)
		if !strings.Contains(opts, "omit") {
			required[name] = true
		}
	}
	obj := map[string]any{"type": "object", "properties": props}
	if len(required) > 0 {
		obj["required"] = slices.Sorted(maps.Keys(required))
	}
	return obj
}
