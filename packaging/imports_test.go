package packaging_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "wuamesh"

// mayImport is the map of the product: what each package may import of ours,
// and which libraries only it may touch. Imports run one way, from main down.
// Change it in review, not in passing; the reason for each library is in the
// package's DESIGN.md.
var mayImport = map[string][]string{
	"":                                  {"ui", "ui/cli", "appliance", "appliance/api", "appliance/demo"},
	"/ui":                               {"appliance", "agentproto", "agentproto/rules", "github.com/a-h/templ"},
	"/ui/cli":                           {"appliance", "appliance/api", "appliance/microsoft/authenticode", "appliance/microsoft/catalogue", "agentproto", "agentproto/rules"},
	"/appliance":                        {"appliance/microsoft", "appliance/microsoft/catalogue", "replicate", "replicate/swarm", "agentproto", "agentproto/rules", "github.com/coreos/go-systemd", "github.com/pelletier/go-toml", "golang.org/x/crypto"},
	"/appliance/api":                    {"appliance", "agentproto", "agentproto/rules"},
	"/appliance/demo":                   {"ui", "appliance", "appliance/api", "appliance/microsoft/microsofttest", "agentproto", "agentproto/rules", "agentproto/agent", "agentproto/agent/wua"},
	"/appliance/microsoft":              {"appliance/microsoft/cab", "appliance/microsoft/authenticode", "golang.org/x/net"},
	"/appliance/microsoft/cab":          {},
	"/appliance/microsoft/cab/cabtest":  {},
	"/appliance/microsoft/authenticode": {},
	"/appliance/microsoft/authenticode/authenticodetest": {},
	"/appliance/microsoft/catalogue":                     {"appliance/microsoft/cab"},
	"/appliance/microsoft/microsofttest/cabgen":          {"appliance/microsoft/cab/cabtest"},
	"/appliance/microsoft/microsofttest":                 {"appliance/microsoft/cab/cabtest", "appliance/microsoft/authenticode/authenticodetest"},
	"/replicate":                                         {"github.com/dgraph-io/badger", "github.com/hashicorp/memberlist", "github.com/hashicorp/yamux", "github.com/klauspost/compress"},
	"/replicate/swarm":                                   {},
	"/agentproto":                                        {"agentproto/rules"},
	"/agentproto/rules":                                  {},
	"/agentproto/agent":                                  {"agentproto", "agentproto/rules", "golang.org/x/sys/windows"},
	"/agentproto/agent/agenttest":                        {"agentproto", "agentproto/rules", "agentproto/agent"},
	"/agentproto/agent/wua":                              {"agentproto", "agentproto/rules", "agentproto/agent", "github.com/go-ole/go-ole", "golang.org/x/sys/windows"},
	"/agentproto/wuamesh-agent":                          {"agentproto/agent", "agentproto/agent/wua", "agentproto/rules", "golang.org/x/sys/windows"},
	"/packaging":                                         {},

	"/packaging/deb": {},

	"/packaging/windows/rig": {},
	"/packaging/windows/msi": {},
}

func TestImports(t *testing.T) {
	for _, goos := range []string{"linux", "windows"} {
		cmd := exec.Command("go", "list", "-e", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"/...")
		cmd.Env = append(cmd.Environ(), "GOOS="+goos)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			pkg, imports := strings.Fields(line)[0], strings.Fields(line)[1:]
			allowed, ok := mayImport[strings.TrimPrefix(pkg, module)]
			if !ok {
				t.Errorf("%s is new: give it a line in mayImport", pkg)
			}
			for _, imp := range imports {
				ours, isOurs := strings.CutPrefix(imp, module+"/")
				if !isOurs && (!strings.Contains(imp, ".") || strings.HasPrefix(imp, "golang.org/x/sync")) {
					continue // the standard library, and what counts as it
				}
				if !slices.ContainsFunc(allowed, func(a string) bool {
					return ours == a || !isOurs && strings.HasPrefix(imp+"/", a+"/")
				}) {
					t.Errorf("GOOS=%s: %s must not import %s", goos, pkg, imp)
				}
			}
		}
	}
}
