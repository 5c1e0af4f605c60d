package cli_test

import (
	"strings"
	"testing"
)

// TestRuleCommands edits a package's lines and has it promoted, by hand and by
// itself.
func TestRuleCommands(t *testing.T) {
	data := node(t)
	for _, tt := range []struct {
		args string
		code int
		want string // in what it printed
	}{
		{"rules", 0, "baseline"},
		{"rules baseline allow severity Critical --dry-run", 0, "No decision changes on any host."},
		{"rules baseline allow severity Critical", 0, "Critical"},
		{"rules baseline ring", 2, "baseline is not promoted by itself; --days, --hosts and --percent change that"},
		{"rules baseline ring --pause", 2, "give --days, --hosts and --percent first"},
		{"rules baseline ring --days 7 --hosts 0 --percent 5", 1, "At least 1 host has to have it first"},
		{"rules baseline ring --days 7 --hosts 5 --percent 5", 0, "Promoted by itself after 7 days, when 5 hosts have installed and at most 5 % failed. It is PROD"},
		{"rules baseline ring --pause", 0, "failed, paused."},
		{"rules baseline ring --resume --days 14", 0, "after 14 days"},
		{"rules baseline ring --json", 0, `"days": 14`},
		{"rules baseline ring --pause --resume", 2, "--off goes alone"},
		{"rules baseline", 0, "Promoted by itself after 14 days"},
		{"rules baseline ring --off", 0, "baseline, PROD"},
		{"rules baseline ring", 2, "is not promoted by itself"},
		{"rules baseline promote --reason enough", 1, "there is nothing to promote it to"},
		{"rules baseline merged", 0, "LOSES ON"},
		{"rules baseline merged --json", 0, "[]"},
		{"rules nothing merged", 1, "nothing"},
		{"rules baseline sideways", 2, "after NAME comes promote, ring, merged, versions"},
	} {
		out, said, code := run(t, append(strings.Fields(tt.args), "--data", data)...)
		if code != tt.code || !strings.Contains(out+said, tt.want) {
			t.Errorf("wuamesh %s: exit %d, want %d and %q:\n%s%s", tt.args, code, tt.code, tt.want, out, said)
		}
	}
	const stopped = "631fdcea-1c5c-4a6a-9b0e-1d7f8a0c2b11" // which no host reports
	if out, said, code := run(t, "stop", stopped, "--reason", "breaks printing", "--data", data); code != 1 || !strings.Contains(said, stopped) {
		t.Errorf("stopping an update that nobody knows: exit %d\n%s%s", code, out, said)
	}
}
