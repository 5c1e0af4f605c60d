package packaging_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ranBy says which test runs a command of README, and what in it does.
var ranBy = map[string][2]string{
	"go run . demo":          {"packaging/check", "packaging/out/wuamesh demo --for"},
	"./packaging/check":      {".ci/run", "packaging/check"},
	"go run ./packaging/deb": {"packaging/deb/deb_test.go", `"run", "./packaging/deb"`},
	"apt install ./packaging/out/wuamesh_0.1.0_amd64.deb": {"packaging/branch_test.go", "apt-get install -y /mnt/wuamesh.deb"},
	"wuamesh setup-link":                       {"packaging/branch_test.go", `"wuamesh setup-link"`},
	"wuamesh doctor":                           {"packaging/branch_test.go", "wuamesh doctor"},
	"wuamesh backup /root/backup":              {"packaging/branch_test.go", "wuamesh backup /root/backup"},
	"wuamesh restore --replace /root/backup":   {"packaging/branch_test.go", "wuamesh restore --replace /root/backup"},
	"wuamesh import-wapt --dry-run":            {"packaging/branch_test.go", "wuamesh import-wapt --dry-run"},
	"wuamesh token enroll --uses 50 --for 72h": {"packaging/branch_test.go", "wuamesh token enroll --uses 50 --for 72h"},
	"wuamesh token join":                       {"packaging/branch_test.go", "wuamesh token join"},
	"wuamesh join --site brest TOKEN":          {"packaging/mesh_test.go", `"join", "--site"`},

	"wuamesh limits set --from-sites 20 --window 'Mon-Fri 07:00-19:00 2 from-sites,from-microsoft'": {"ui/cli/limits_test.go", `"limits", "set", "--from-sites", "20", "--window", "Mon-Fri 07:00-19:00 2 from-sites,from-microsoft"`},
	"wuamesh limits open": {"ui/cli/limits_test.go", `"limits", "open"}`},

	"wuamesh admin paul set --role operator": {"ui/cli/cli_test.go", `"admin paul set --role operator"`},
	"wuamesh admin maelle password":          {"ui/cli/cli_test.go", `"admin maelle password"`},
	"wuamesh admin maelle logout":            {"ui/cli/cli_test.go", `"admin vera logout"`},

	"wuamesh rules baseline allow severity Critical --dry-run":                     {"ui/cli/rules_test.go", `"rules baseline allow severity Critical --dry-run"`},
	"wuamesh rules baseline ring --days 7 --hosts 5 --percent 5":                   {"ui/cli/rules_test.go", `"rules baseline ring --days 7 --hosts 5 --percent 5"`},
	`wuamesh stop 631fdcea-1c5c-4a6a-9b0e-1d7f8a0c2b11 --reason "breaks printing"`: {"ui/cli/rules_test.go", `"stop", stopped, "--reason", "breaks printing"`},

	"wuamesh profiles night set install_delay 7d --dry-run": {"ui/cli/profiles_test.go", `"profiles night set install_delay 7d --dry-run"`},
	"wuamesh profiles night give group all":                 {"ui/cli/profiles_test.go", `"profiles night give group all"`},

	"wuamesh catalogue verify wsusscn2.cab":                                {"ui/cli/catalogue_test.go", `"verify", good`},
	"wuamesh catalogue show wsusscn2.cab KB5091157":                        {"ui/cli/catalogue_test.go", `"show", good, "KB"`},
	"wuamesh catalogue search wsusscn2.cab --severity critical cumulative": {"ui/cli/catalogue_test.go", `"search", good, "--severity"`},
}

// TestREADME holds README short, and its commands to what a test runs.
func TestREADME(t *testing.T) {
	b, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) > 200 {
		t.Errorf("README has %d lines, more than anybody reads", len(lines))
	}
	inside := false
	for i, line := range lines {
		if strings.HasPrefix(line, "```") {
			inside = !inside
		}
		command, ok := strings.CutPrefix(line, "    ")
		if !ok || inside || command == "" {
			continue
		}
		by, known := ranBy[command]
		if !known {
			t.Errorf("README.md:%d: no test runs %q: have one run it and say so in ranBy", i+1, command)
			continue
		}
		source, err := os.ReadFile(filepath.Join("..", by[0]))
		if err != nil || !strings.Contains(string(source), by[1]) {
			t.Errorf("README.md:%d: %s does not run %q any more (%v)", i+1, by[0], command, err)
		}
	}
	for _, name := range []string{"packaging/why.png"} {
		if info, err := os.Stat(filepath.Join("..", name)); err != nil || info.Size() > 150_000 {
			t.Errorf("%s: %v, or too large", name, err)
		}
	}
}
