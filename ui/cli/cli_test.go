package cli_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
	"wuamesh/appliance/api"
	"wuamesh/appliance/microsoft/authenticode/authenticodetest"
	"wuamesh/appliance/microsoft/cab/cabtest"
	"wuamesh/ui/cli"
)

// node runs a real node and returns its data directory.
func node(t *testing.T) string {
	t.Helper()
	data, _ := nodeAt(t)
	return data
}

// nodeAt is node with the address of the node.
func nodeAt(t *testing.T) (data, url string) {
	t.Helper()
	_, data, url = nodeWith(t, nil)
	return data, url
}

// nodeWith is nodeAt with the node, and another configuration.
func nodeWith(t *testing.T, change func(*appliance.Config)) (n *appliance.Appliance, data, url string) {
	t.Helper()
	dir := t.TempDir()
	cfg := appliance.DevConfig()
	cfg.Name, cfg.Data, cfg.Folder = "rns-01", filepath.Join(dir, "data"), filepath.Join(dir, "waptwua")
	cfg.ListenHTTPS, cfg.ListenHTTP, cfg.Internet = "127.0.0.1:0", "127.0.0.1:0", false
	cfg.Roots = []string{filepath.Join(dir, "root.pem")}
	if err := os.WriteFile(cfg.Roots[0], authenticodetest.NewAuthority(1).RootPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&cfg)
	}
	log := slog.New(slog.DiscardHandler)
	n, err := appliance.Open(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	by := appliance.Actor{Name: "maelle", Role: appliance.Owner}
	if _, err := n.PutPackage(t.Context(), by, "baseline", appliance.PackageEdit{Maturity: rules.Prod, Groups: []string{"all"}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx, api.New(n, log)) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, n.Close()); err != nil {
			t.Error(err)
		}
	})
	for range 1000 { // the console file is Run's first act
		if _, err := os.Stat(filepath.Join(cfg.Data, appliance.ConsoleFile)); err == nil {
			return n, cfg.Data, n.URL()
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatal("the node left no console file")
	return nil, "", ""
}

// run types a command and returns what it printed and its exit code.
func run(t *testing.T, args ...string) (out, err string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	code = cli.Main(t.Context(), cli.Commands(), args, cli.Streams{Out: &o, Err: &e, Env: func(string) string { return "" }})
	return o.String(), e.String(), code
}

// cabinets writes one that the node of a test trusts, and one without a
// signature.
func cabinets(t *testing.T) (signed, unsigned string) {
	t.Helper()
	var plain bytes.Buffer
	w := cabtest.NewWriter(&plain, cabtest.None)
	if err := errors.Join(w.Create("update.mum", time.Date(2026, 11, 10, 0, 0, 0, 0, time.UTC)), w.Close()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	signed, unsigned = filepath.Join(dir, "kb5099999.cab"), filepath.Join(dir, "kb5099998.cab")
	sig := authenticodetest.NewAuthority(1).Signer(authenticodetest.SignerOptions{})
	if err := errors.Join(os.WriteFile(unsigned, plain.Bytes(), 0o600), os.WriteFile(signed, sig.SignCab(plain.Bytes()), 0o600)); err != nil {
		t.Fatal(err)
	}
	return signed, unsigned
}

func TestCommandsOnThisMachine(t *testing.T) {
	data := node(t)
	signed, unsigned := cabinets(t)
	file := filepath.Join(t.TempDir(), "rules.toml")
	if err := os.WriteFile(file, []byte("[package.freeze]\nmaturity = \"PROD\"\n[profile.night]\ngroups = [\"all\"]\n[profile.night.options]\ninstall_delay = \"7d\"\n[group.quimper]\naccepts = [\"PREPROD\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		code int
		want string // in what it printed
	}{
		{"status", 0, "rns-01, wuamesh "},
		{"status", 0, "mesh       In no mesh yet."},
		{"status --json", 0, `"node": "rns-01"`},
		{"status --json", 0, `"text": "In no mesh yet."`},
		{"hosts", 0, "LAST SCAN"},
		{"hosts --site brest --ring prod --stand pending,missing", 0, "LAST SCAN"},
		{"hosts --stand lazy", 1, "is none of [\"compliant\""},
		{"hosts --severity Critical", 2, "of one HOST"},
		{"node files", 0, "No host waits for a file."},
		{"hosts --seen online", 0, "LAST SCAN"},
		{"hosts --seen asleep", 1, `"asleep" is none of`},
		{"updates --severity critical", 0, "DOWNLOADED ON"},
		{"updates --all", 0, "DOWNLOADED ON"},
		{"updates --published 2026-11,2026-10 --restart never", 0, "DOWNLOADED ON"},
		{"updates --published november", 1, "is no month such as 2026-11"},
		{"updates --severity grave", 1, "want Critical, Important, Moderate"},
		{"rules", 0, "baseline"},
		{"rules baseline forbid kb KB5091157", 0, "forbid  kb    5091157"},
		{"rules baseline allow kb 5091157", 0, "allow  kb    5091157"},
		{"rules baseline remove kb 5091157", 0, "reaches 0 hosts"},
		{"rules baseline forbid kb 5091157 --dry-run", 0, "No decision changes on any host.\nNo host gets this package"},
		{"rules baseline", 0, "reaches 0 hosts"},
		{"rules baseline allow kb soon", 2, "want an article number"},
		{"rules nothing", 1, `no rule package "nothing"`},
		{"rules diff " + file, 0, "make settings profile night\n  + group all\n  + install_delay = 7d\n  + place 1 of 1\nmake group quimper\n  + accepts PREPROD\n1 group new, 1 package new, 1 settings profile new.\n"},
		{"rules diff " + file, 0, "Not in the file, and kept: package baseline. --prune deletes them."},
		{"rules diff --prune " + file, 0, "delete package baseline"},
		{"rules diff --json " + file, 0, `"action": "make"`},
		{"rules diff --exit-code " + file, 3, "make group quimper"},
		{"rules diff --json --exit-code " + file, 3, `"action": "make"`},
		{"rules import --exit-code " + file, 2, "--exit-code is for diff"},
		{"rules import --seen 0-0 " + file, 1, "not the one whose differences were shown"},
		{"rules import " + file, 0, "1 group new, 1 package new, 1 settings profile new."},
		{"rules diff --exit-code " + file, 0, "The file says what the rules are."},
		{"rules export", 0, "[profile.\"night\".options]\ninstall_delay = \"7d\"\n"},
		{"rules export", 0, "[group.\"quimper\"]\ndescription = \"\"\naccepts = [\n  \"PREPROD\",\n]\n"},
		{"rules export --members", 0, "members = []\n"},
		{"rules import --members " + file, 2, "--members is for export"},
		{"rules export", 0, "profile_order = [\n  \"night\",\n]\n"},
		{"groups", 0, "CONDITION"},
		{"groups brest set --os Windows*11 --subnet 10.35.0.0/16 --dry-run", 0, "0 hosts would be in brest: 0 join, 0 leave."},
		{"groups brest", 1, `no group "brest"`},
		{"groups brest set --subnet 10.35", 1, "is no network; write it like 10.35.0.0/16"},
		{"groups brest set --host BRS-*,!*-LAB-* --description Brest", 0, "0 hosts are in brest"},
		{"groups brest", 0, "Condition: name !*-LAB-*, BRS-*"},
		{"groups brest dance", 2, "after NAME comes set, add HOST"},
		{"groups brest add X", 1, "there is no host X"},
		{"groups brest versions", 0, "+ condition name BRS-*"},
		{"groups brest back before", 1, "Group brest was deleted in this version."},
		{"groups brest delete --dry-run", 0, "No decision changes on any host."},
		{"groups brest", 0, "Condition: name"},
		{"groups brest delete", 0, "Deleted. No decision changes on any host."},
		{"groups brest", 1, `no group "brest"`},
		{"why", 2, "it takes a HOST and an UPDATE"},
		{"why X KB5091157", 1, "there is no host X"},
		{"trigger scan X", 1, "there is no host X"},
		{"trigger dance --group all", 2, "it takes scan, download or install"},
		{"fetch cab", 1, "internet = false"},
		{"upload", 2, "name at least one file"},
		{"upload " + signed, 0, "kb5099999.cab, 2 kB, signed by Microsoft Corporation, is served now"},
		{"upload " + signed, 0, "is on the node already"},
		{"upload --json " + signed, 0, `"signer": "Microsoft Corporation"`},
		{"upload " + unsigned, 1, "kb5099998.cab is not signed. It was thrown away.\nGet the file from"},
		{"upload " + signed + " " + unsigned, 1, "1 file of 2 uploaded before this"},
		{"upload " + data, 1, "is no file"},
		{"clean --dry-run", 0, "0 files would be deleted"},
		{"token enroll --uses 3", 0, "wme1."},
		{"admin", 0, "ROLE"},
		{"admin paul password", 1, "there is no admin paul"},
		{"admin paul set", 2, "name a role"},
		{"admin paul set --role king", 1, `"king" is no role`},
		{"admin paul set --role owner", 0, "Password, shown this once: "},
		{"admin paul set --role operator", 1, "paul is the only owner"},
		{"admin vera set --role viewer", 0, "Password, shown this once: "},
		{"admin vera set --role operator", 0, "The role is operator now."},
		{"admin vera", 0, "vera  operator"},
		{"admin vera sessions", 0, "LAST SEEN"},
		{"admin vera logout", 0, "0 sessions of vera ended on this node."},
		{"admin vera logout 0123456789abcdef", 1, "vera has no session 0123456789abcdef on this node"},
		{"admin vera sessions --json", 0, "[]"},
		{"admin vera sideways", 2, "sessions or logout"},
		{"admin vera password --json", 0, `"password": "`},
		{"admin maelle set --role owner", 0, "Password, shown this once: "},
		{"admin maelle password", 0, "Password, shown this once: "},
		{"admin vera delete", 0, "vera cannot log in any more."},
		{"admin vera", 1, "there is no admin vera"},
		{"admin paul dance", 2, "sessions or logout"},
		{"token api --role king", 1, "is no role"},
		{"rule", 2, `did you mean "rules"?`},
		{"status --colour", 2, "flag provided but not defined"},
	} {
		args := append(strings.Fields(tt.args), "--data", data)
		if tt.code == 2 && tt.args == "rule" {
			args = args[:1]
		}
		out, err, code := run(t, args...)
		if code != tt.code || !strings.Contains(out+err, tt.want) {
			t.Errorf("wuamesh %s: exit %d, want %d and %q:\n%s%s", tt.args, code, tt.code, tt.want, out, err)
		}
	}
}

func TestHelp(t *testing.T) {
	out, _, code := run(t)
	for _, c := range cli.Commands() {
		if !strings.Contains(out, c.Name) {
			t.Errorf("the list leaves out %s", c.Name)
		}
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		fs.SetOutput(io.Discard)
		c.Flags(fs)
		help, _, code := run(t, c.Name, "--help")
		if code != 0 || !strings.Contains(help, "Example:") || !strings.Contains(help, "wuamesh "+c.Name) {
			t.Errorf("help of %s, exit %d:\n%s", c.Name, code, help)
		}
	}
	if code != 0 {
		t.Errorf("the list ends with %d", code)
	}
	if _, err, code := run(t, "status", "--data", t.TempDir()); code != 1 || !strings.Contains(err, "no node runs on this machine") {
		t.Errorf("without a node: exit %d, %s", code, err)
	}
}

// TestMeshCommands founds a mesh and joins it, the one while its node runs,
// the other while none does.
// TestRepositoryRuleCommands makes, moves, changes and removes rules of a mesh
// of one node.
func TestRepositoryRuleCommands(t *testing.T) {
	data := node(t)
	if out, said, code := run(t, "init", "--data", data); code != 0 {
		t.Fatal(out, said)
	}
	for _, tt := range []struct {
		args string
		code int
		want string // in what it printed
	}{
		{"repository-rules", 0, "every host asks the nearest node"},
		{"repository-rules add --name Brest --subnet 10.2.0.0/99 --to-node rns-01", 1, "10.2.0.0/99"},
		{"repository-rules add --name Brest --subnet 10.2.0.0/16,10.3.0.0/16 --not-host-name lap-* --to-node rns-01 --dry-run", 0, "10.3.0.0/16"},
		{"repository-rules add --name Brest --subnet 10.2.0.0/16 --to-node rns-01 --no-fallback", 0, "1. Brest: "},
		{"repository-rules add --name Others --to-node rns-01", 0, "2. Others: "},
		{"repository-rules move Others 1", 0, "1      Others"},
		{"repository-rules set Brest --host-name brs-* --to-node rns-01", 0, "2. Brest: "},
		{"repository-rules remove Nobody", 1, "there is no repository rule"},
		{"repository-rules remove Others", 0, "Removed."},
		{"repository-rules", 0, "brs-*"},
	} {
		out, said, code := run(t, append(strings.Fields(tt.args), "--data", data)...)
		if code != tt.code || !strings.Contains(out+said, tt.want) {
			t.Errorf("wuamesh %s: exit %d, want %d and %q:\n%s%s", tt.args, code, tt.code, tt.want, out, said)
		}
	}
}

func TestMeshCommands(t *testing.T) {
	first := node(t)
	if out, said, code := run(t, "init", "--data", first); code != 0 || !strings.Contains(out, "Recovery passphrase, shown this once") {
		t.Errorf("init: exit %d, %s%s", code, out, said)
	}
	if _, said, code := run(t, "init", "--data", first); code != 1 || !strings.Contains(said, "in a mesh already") {
		t.Errorf("init again: exit %d, %s", code, said)
	}
	token, said, code := run(t, "token", "join", "--data", first)
	if code != 0 || !strings.HasPrefix(token, "wmj1.") || !strings.Contains(said, "one node") {
		t.Fatalf("token join: exit %d, %s%s", code, token, said)
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "wuamesh.toml")
	text := fmt.Sprintf("name = \"brs-01\"\ndata = %q\nfolder = %q\ninternet = false\n", filepath.Join(dir, "data"), filepath.Join(dir, "folder"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, said, code := run(t, "join", "--config", conf, "--name", "other", strings.TrimSpace(token)); code != 1 || !strings.Contains(said, "wins over --name") {
		t.Errorf("join under another name than the file's: exit %d, %s", code, said)
	}
	out, said, code := run(t, "join", "--config", conf, strings.TrimSpace(token))
	if code != 0 || !strings.Contains(out, "brs-01 has everything the mesh has") || !strings.Contains(said, "No node runs on this machine") || !strings.Contains(said, "Start the node now") {
		t.Fatalf("join: exit %d, %s%s", code, out, said)
	}
	out, said, code = run(t, "node", "list", "--data", first)
	if code != 0 || !strings.Contains(out, "brs-01") || !strings.Contains(out, "anchor") {
		t.Errorf("node list: exit %d, %s%s", code, out, said)
	}
	out, said, code = run(t, "status", "--data", first)
	if code != 0 || !strings.Contains(out, "Cut off") || !strings.Contains(out, "LAST CONTACT") || !strings.Contains(out, "! rns-01: This node reaches none of the others") {
		t.Errorf("status: exit %d, %s%s", code, out, said)
	}
	out, said, code = run(t, "node", "remove", "brs-01", "--reason", "a test", "--data", first)
	if code != 0 || !strings.Contains(out, "is removed") {
		t.Errorf("node remove: exit %d, %s%s", code, out, said)
	}
	for args, want := range map[string]string{
		"node dance": "it takes list", "join": "it takes the token", "node remove nobody": "no node \"nobody\"", "node resign": "only anchor", "node passphrase": "shown this once", "node rotate-gossip-key": "understood for a day", "node anchor": "from its input",
	} {
		if out, said, _ := run(t, append(strings.Fields(args), "--data", first)...); !strings.Contains(out+said, want) {
			t.Errorf("wuamesh %s says %s%s, want %q", args, out, said, want)
		}
	}
}
