package agentproto_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

var refresh = flag.Bool("update", false, "write golden files")

const (
	guid   = "631fdcea-1c5c-4a6a-9b0e-1d7f8a0c2b11"
	sha1   = "cecd02422f71332fedbd553c9eed89e4748638fe"
	digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// messages are one of each kind, every field set.
func messages() map[string]agentproto.Message {
	facts := agentproto.Facts{
		Name: "BRS-WKS-0142", FQDN: "brs-wks-0142.example.com", Domain: "EXAMPLE", OS: "Windows 11 Pro 25H2", Build: "10.0.26200.7019", Arch: "amd64",
		Language: "en-US", Manufacturer: "Dell", Model: "OptiPlex 7010", Serial: "7XK2", Addresses: []string{"10.4.2.17"}, Booted: noon.Add(-time.Hour),
		RestartDue: true, WUAVersion: "1326.2510.15012.0", WUAService: "stopped", User: "lea",
	}
	ref := agentproto.UpdateRef{ID: guid, Revision: 201}
	on := true
	settings := rules.Settings{Enabled: &on, DefaultAllow: true, DownloadScheduling: 24 * time.Hour, AllowedSeverities: []rules.Severity{rules.Critical}}
	line := rules.Line{Verb: rules.Forbid, Kind: rules.ByKB, Value: "5091157"}
	return map[string]agentproto.Message{
		"enroll":          &agentproto.EnrollRequest{Protocol: 1, Agent: "1.0.0", Host: guid, Token: "wme1.x", CSR: []byte{0x30}, Facts: facts},
		"enroll-response": &agentproto.EnrollResponse{Certificate: []byte{0x30}, Authority: []byte{0x31}, Node: "rns-01", Wait: agentproto.Duration(time.Minute)},
		"checkin":         &agentproto.Checkin{Protocol: 1, Agent: "1.0.0", Facts: facts, Policy: digest, Statuses: digest, Cab: digest, Settings: settings, Doing: "scanning", Warnings: []string{"line 3: unknown key"}},
		"checkin-facts": &agentproto.Checkin{Protocol: 1, Agent: "1.0.0", Settings: settings, Facts: agentproto.Facts{
			Name: "BRS-WKS-0142", OS: "Windows 11 Pro 25H2", Build: "10.0.26200.7019", Arch: "amd64",
			RestartDue: true, RestartWhy: []string{"Windows' servicing has work left for the next start."}, FreeGB: 40, Power: "mains",
		}},
		"checkin-errors": &agentproto.Checkin{Protocol: 1, Agent: "1.0.0", Settings: settings, Facts: agentproto.Facts{
			Name: "BRS-WKS-0142", OS: "Windows 11 Pro 25H2", Build: "10.0.26200.7019", Arch: "amd64",
		}, Errors: []agentproto.Failure{
			{At: noon, Doing: "scan", HResult: 0x8007000E, Text: "Search: 0x8007000E", Times: 3},
			{Doing: "contact with the mesh", Text: "check in: ask https://rns-01: connection refused"},
		}},
		"checkin-response": &agentproto.CheckinResponse{
			Node: "rns-01", PolicyHash: digest, Cab: &agentproto.CabRef{SHA256: digest, Size: 12, Date: noon}, Resend: true, Nodes: []string{"https://rns-01:8443"}, Next: agentproto.Duration(15 * time.Minute),
			Policy:   &rules.Policy{Settings: settings, Packages: []rules.Package{{Name: "erp-freeze", Maturity: rules.Prod, Lines: []rules.Line{line}}}},
			Commands: []agentproto.Command{{ID: "c1", Action: agentproto.ActionScan, By: "maelle", Issued: noon}},
		},
		"checkin-place": &agentproto.Checkin{Protocol: 1, Agent: "1.0.0", Settings: settings, Facts: agentproto.Facts{
			Name: "BRS-WKS-0142", OS: "Windows 11 Pro 25H2", Build: "10.0.26200.7019", Arch: "amd64", Domain: "EXAMPLE", ADSite: "Brest", Addresses: []string{"10.4.2.17"},
		}},
		"checkin-response-place": &agentproto.CheckinResponse{Node: "rns-01", PolicyHash: digest, Nodes: []string{"https://brs-01", "https://rns-01"}, Placed: true, Only: true},
		"checkin-clock": &agentproto.Checkin{Protocol: 1, Agent: "1.0.0", Settings: settings, Facts: agentproto.Facts{
			Name: "BRS-WKS-0142", OS: "Windows 11 Pro 25H2", Build: "10.0.26200.7019", Arch: "amd64",
		}, Clock: &agentproto.ClockOff{Node: "rns-01", Off: agentproto.Duration(3 * time.Hour), Behind: true}},
		"checkin-response-clock": &agentproto.CheckinResponse{Node: "rns-01", PolicyHash: digest, Now: noon},
		"report": &agentproto.Report{
			Protocol: 1, Hash: digest, Scan: &agentproto.Scan{Cab: digest, Started: noon, Took: agentproto.Duration(4 * time.Minute), HResult: 0x8024402C, Error: "The proxy cannot be found."},
			Statuses: []agentproto.Status{{ID: guid, Revision: 201, Installed: true, OnHost: true, Restart: true, HResult: 0x800F0922, Tried: noon, Superseded: true}},
			Updates: []agentproto.Update{{
				ID: guid, Revision: 201, Title: "2026-11 Cumulative Update (KB5091157)", Description: "Fixes.", KBs: []string{"5091157"}, Severity: rules.Critical,
				Classification: agentproto.Category{ID: "0fa1201d-4330-4fa8-8ae9-b877473b6441", Title: "Security Updates"},
				Products:       []agentproto.Category{{ID: "72e7624a-5b00-45d2-b92f-e561c0a6a160", Title: "Windows 11"}}, Published: noon,
				CVEs: []string{"CVE-2026-12345"}, Bulletins: []string{"MS17-010"}, Supersedes: []rules.UpdateID{guid}, Restart: "maybe", Exclusive: true, SupportURL: "https://support.microsoft.com/kb/5091157",
				Files: []agentproto.File{{Name: "kb_" + sha1 + ".cab", URL: "http://download.windowsupdate.com/c/kb_" + sha1 + ".cab", Size: 1000, SHA1: sha1, SHA256: digest, Delta: true}},
			}},
		},
		"report-response": &agentproto.ReportResponse{Lacks: []agentproto.UpdateRef{ref}},
		"results": &agentproto.Results{
			Protocol: 1, Commands: []agentproto.CommandResult{{ID: "c1", State: agentproto.CommandDone, Detail: "Found 3 updates.", At: noon}},
			Installs: []agentproto.InstallResult{{UpdateRef: ref, HResult: 0x80070005, Restart: true, At: noon}},
		},
	}
}

// TestGolden holds the messages of version 1 still: what is in the files is
// what agents in the field send and understand.
func TestGolden(t *testing.T) {
	for name, m := range messages() {
		path := filepath.Join("testdata", "v1", name+".json")
		if err := m.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got, err := json.MarshalIndent(m, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if *refresh {
			os.MkdirAll(filepath.Dir(path), 0o755)
			os.WriteFile(path, append(got, '\n'), 0o644)
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.TrimSpace(string(want)), string(got)); diff != "" {
			t.Errorf("%s is written differently:\n%s", name, diff)
		}
		back := fresh(m)
		if err := agentproto.Decode(bytes.NewReader(want), 1<<20, back); err != nil {
			t.Errorf("%s is refused: %v", name, err)
		}
		if diff := cmp.Diff(m, back); diff != "" {
			t.Errorf("%s is read differently:\n%s", name, diff)
		}
	}
}

func fresh(m agentproto.Message) agentproto.Message {
	switch m.(type) {
	case *agentproto.EnrollRequest:
		return &agentproto.EnrollRequest{}
	case *agentproto.EnrollResponse:
		return &agentproto.EnrollResponse{}
	case *agentproto.Checkin:
		return &agentproto.Checkin{}
	case *agentproto.CheckinResponse:
		return &agentproto.CheckinResponse{}
	case *agentproto.Report:
		return &agentproto.Report{}
	case *agentproto.ReportResponse:
		return &agentproto.ReportResponse{}
	default:
		return &agentproto.Results{}
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct{ name, body, field string }{
		{"not JSON", `{`, "body"},
		{"another type", `{"protocol":"one"}`, "protocol"},
		{"no protocol", `{}`, "protocol"},
		{"an UpdateID that is none", `{"protocol":1,"statuses":[{"id":"KB5091157"}]}`, "statuses[0].id"},
		{"an UpdateID in upper case", `{"protocol":1,"statuses":[{"id":"631FDCEA-1c5c-4a6a-9b0e-1d7f8a0c2b11"}]}`, "statuses[0].id"},
		{"a status twice", `{"protocol":1,"statuses":[{"id":"` + guid + `"},{"id":"` + guid + `"}]}`, "statuses[1].id"},
		{"a negative revision", `{"protocol":1,"statuses":[{"id":"` + guid + `","revision":-1}]}`, "statuses[0].revision"},
		{"an update without a title", `{"protocol":1,"updates":[{"id":"` + guid + `"}]}`, "updates[0].title"},
		{"a file that climbs", `{"protocol":1,"updates":[{"id":"` + guid + `","title":"x","files":[{"name":"../x","url":"http://a/x"}]}]}`, "updates[0].files[0].name"},
		{"a file from elsewhere", `{"protocol":1,"updates":[{"id":"` + guid + `","title":"x","files":[{"name":"x","url":"file:///etc/passwd"}]}]}`, "updates[0].files[0].url"},
		{"a digest cut short", `{"protocol":1,"hash":"abc"}`, "hash"},
	} {
		err := agentproto.Decode(strings.NewReader(tt.body), 1<<20, &agentproto.Report{})
		fe, ok := errors.AsType[*agentproto.FieldError](err)
		if !ok || fe.Field != tt.field {
			t.Errorf("%s: %v, want it to name %s", tt.name, err, tt.field)
		}
	}
	for _, tt := range []struct{ name, errors, field string }{
		{"one error too many", "[" + strings.Repeat(`{"doing":"scan","text":"x"},`, agentproto.MaxFailures) + `{"doing":"scan","text":"x"}]`, "errors"},
		{"an error of nothing", `[{"text":"x"}]`, "errors[0].doing"},
		{"an error without words", `[{"doing":"scan"}]`, "errors[0].text"},
		{"an error of many words", `[{"doing":"scan","text":"` + strings.Repeat("x", 501) + `"}]`, "errors[0].text"},
		{"an error of two lines", `[{"doing":"scan","text":"a\nb"}]`, "errors[0].text"},
		{"an error less than never", `[{"doing":"scan","text":"x","times":-1}]`, "errors[0].times"},
		{"an error of a year that cannot be", `[{"doing":"scan","text":"x","at":"2901-01-01T00:00:00Z"}]`, "errors[0].at"},
	} {
		body := `{"protocol":1,"facts":{"name":"x"},"errors":` + tt.errors + `}`
		err := agentproto.Decode(strings.NewReader(body), 1<<20, &agentproto.Checkin{})
		fe, ok := errors.AsType[*agentproto.FieldError](err)
		if !ok || fe.Field != tt.field {
			t.Errorf("%s: %v, want it to name %s", tt.name, err, tt.field)
		}
	}
	for _, tt := range []struct{ name, clock, field string }{
		{"a clock that is right", `{"node":"rns-01","off":"0s"}`, "clock.off"},
		{"a node's name without end", `{"node":"` + strings.Repeat("x", 257) + `","off":"1h"}`, "clock.node"},
		{"a node's name of two lines", `{"node":"a\nb","off":"1h"}`, "clock.node"},
	} {
		err := agentproto.Decode(strings.NewReader(`{"protocol":1,"facts":{"name":"x"},"clock":`+tt.clock+`}`), 1<<20, &agentproto.Checkin{})
		fe, ok := errors.AsType[*agentproto.FieldError](err)
		if !ok || fe.Field != tt.field {
			t.Errorf("%s: %v, want it to name %s", tt.name, err, tt.field)
		}
	}
	if err := agentproto.Decode(strings.NewReader(`{"protocol":1,"facts":{"name":"x"},"clock":{"off":"-1h"}}`), 1<<20, &agentproto.Checkin{}); err == nil {
		t.Error("a clock that is off by less than nothing")
	}
	if err := agentproto.Decode(strings.NewReader(`{"now":"1970-01-01T00:00:00Z"}`), 1<<20, &agentproto.CheckinResponse{}); err == nil {
		t.Error("a node's time before there were nodes")
	}
	err := agentproto.Decode(strings.NewReader(strings.Repeat(" ", 101)), 100, &agentproto.Report{})
	if _, ok := errors.AsType[*agentproto.TooLargeError](err); !ok {
		t.Errorf("a long message: %v", err)
	}
}

func TestHashStatusesIgnoresOrder(t *testing.T) {
	a := []agentproto.Status{{ID: guid, Revision: 1}, {ID: "731fdcea-1c5c-4a6a-9b0e-1d7f8a0c2b11", Installed: true}}
	b := slices.Clone(a)
	slices.Reverse(b)
	if agentproto.HashStatuses(a) != agentproto.HashStatuses(b) {
		t.Error("the order of statuses changes their hash")
	}
	b[0].Installed = false
	if agentproto.HashStatuses(a) == agentproto.HashStatuses(b) {
		t.Error("two different sets have one hash")
	}
}

func TestEnrollToken(t *testing.T) {
	token := agentproto.NewEnrollToken(digest)
	back, err := agentproto.ParseEnrollToken(" " + token.String() + "\n")
	if err != nil || back != token || len(token.String()) != 96 {
		t.Errorf("%q became %+v, %v", token, back, err)
	}
	for _, s := range []string{"", "wme1.", token.String()[:90], "wmt_" + token.String()} {
		if _, err := agentproto.ParseEnrollToken(s); err == nil {
			t.Errorf("%q is taken for a token", s)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range messages() {
		b, _ := json.Marshal(m)
		f.Add(b)
	}
	for _, list := range []string{`[{}]`, `[{"doing":"scan","text":"x","at":"0001-01-01T00:00:00Z","times":-1}]`, `[{"doing":"scan","text":"x","hresult":-1}]`, `[null]`, `{}`} {
		f.Add([]byte(`{"protocol":1,"facts":{"name":"x"},"errors":` + list + `}`))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range []agentproto.Message{&agentproto.Report{}, &agentproto.Checkin{}, &agentproto.Results{}, &agentproto.EnrollRequest{}, &agentproto.CheckinResponse{}} {
			if agentproto.Decode(bytes.NewReader(b), 1<<20, m) != nil {
				continue
			}
			again, err := json.Marshal(m)
			if err != nil {
				t.Fatalf("%T validates and cannot be written: %v", m, err)
			}
			if err := agentproto.Decode(bytes.NewReader(again), 1<<20, fresh(m)); err != nil {
				t.Errorf("%T validates and its copy does not: %v\n%s", m, err, again)
			}
		}
	})
}
