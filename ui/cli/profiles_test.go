package cli_test

import (
	"strings"
	"testing"
)

// TestProfileCommands makes a settings profile, gives it, moves it, goes back
// and deletes it.
func TestProfileCommands(t *testing.T) {
	data := node(t)
	for _, tt := range []struct {
		args string
		code int
		want string // in what it printed
	}{
		{"profiles", 0, "GIVEN TO"},
		{"profiles night set install_delay 7d --dry-run", 0, "No host gets other settings.\nNo decision changes on any host.\nIt is given to nobody yet"},
		{"profiles night", 1, `no settings profile "night"`},
		{"profiles night set install_delay soon", 1, "want a number"},
		{"profiles night set dance True", 1, `no option "dance"`},
		{"profiles night set install_delay 1w", 0, "install_delay  7d"},
		{"profiles night set allowed_severities none", 0, "allowed_severities  none"},
		{"profiles night drop allowed_severities", 0, "Given to: nobody yet"},
		{"profiles night give group all", 0, "Given to: group all"},
		{"groups all", 0, "Settings profiles: night"},
		{"profiles night give group nobody", 1, "no group nobody"},
		{"profiles night give host X", 1, "there is no host X"},
		{"profiles office set install_delay 3d", 0, "office, place 2"},
		{"profiles office place 1", 0, "office, place 1"},
		{"profiles office place first", 2, "a number from 1"},
		{"profiles", 0, "1      office"},
		{"profiles night --json", 0, `"install_delay": "7d"`},
		{"profiles night take group all", 0, "Given to: nobody yet"},
		{"profiles night versions", 0, "- group all"},
		{"profiles night sideways", 2, "after NAME comes set OPTION VALUE"},
		{"profiles night delete --dry-run", 0, "No host gets other settings."},
		{"profiles night delete", 0, "Deleted. No host gets other settings."},
		{"profiles new set install_delay 1d", 1, "The word new is a command"},
	} {
		out, said, code := run(t, append(strings.Fields(tt.args), "--data", data)...)
		if code != tt.code || !strings.Contains(out+said, tt.want) {
			t.Errorf("wuamesh %s: exit %d, want %d and %q:\n%s%s", tt.args, code, tt.code, tt.want, out, said)
		}
	}
	out, _, _ := run(t, "profiles", "night", "versions", "--data", data)
	version := strings.Fields(strings.Split(out, "\n")[2])[0] // before it was deleted
	if out, said, code := run(t, "profiles", "night", "back", version, "--data", data); code != 0 || !strings.Contains(out, "night, place 2") {
		t.Errorf("going back to %s: exit %d\n%s%s", version, code, out, said)
	}
}
