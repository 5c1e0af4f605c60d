package cli_test

import (
	"strings"
	"testing"
)

// TestLimitsCommand sets limits with windows, opens the lines and closes them.
func TestLimitsCommand(t *testing.T) {
	data := node(t)
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"limits"}, 0, "from-sites      no limit"},
		{[]string{"limits", "set"}, 2, "--from-sites 20"},
		{[]string{"limits", "set", "--from-sites", "fast"}, 1, "is no rate"},
		{[]string{"limits", "set", "--from-sites", "20", "--month-from-microsoft", "200", "--window", "Mon-Fri 07:00-19:00 nothing from-sites,from-microsoft"}, 0, "07:00  19:00  nothing  from-sites,from-microsoft"},
		{[]string{"limits", "set", "--from-sites", "20", "--window", "Mon-Fri 07:00-19:00 2 from-sites,from-microsoft"}, 0, "Mon-Fri  07:00  19:00  2       from-sites,from-microsoft"},
		{[]string{"limits", "set", "--to-sites", "2,5", "--dry-run"}, 0, "to-sites        2.5"},
		{[]string{"limits"}, 0, "to-sites        no limit"},
		{[]string{"limits", "--json"}, 0, `"month": 200000000000`},
		{[]string{"limits", "set", "--window", "every day 22:00-06:00 no limit into-node", "--window", "Sat,Sun 0:00-0:00 1 from-sites"}, 0, "every day  22:00  06:00  no limit  into-node"},
		{[]string{"limits", "set", "--window", "Someday 07:00-19:00 1 from-sites"}, 1, "no days"},
		{[]string{"limits", "set", "--window", "Mon 07:00-19:00 1 moon"}, 2, `no line "moon"`},
		{[]string{"limits", "set", "--window", "at night"}, 2, "is no window; write it like"},
		{[]string{"limits", "open"}, 0, "wuamesh limits close ends it"},
		{[]string{"limits", "open", "2"}, 0, "All lines are open until"},
		{[]string{"limits"}, 0, "no limit holds"},
		{[]string{"limits", "open", "30"}, 2, "at most 24"},
		{[]string{"limits", "close"}, 0, "The limits hold again."},
		{[]string{"limits", "set", "--no-windows", "--site", "brest"}, 0, "from-sites"},
		{[]string{"limits"}, 0, "into-node"},
	} {
		if out, said, code := run(t, append(tt.args, "--data", data)...); code != tt.code || !strings.Contains(out+said, tt.want) {
			t.Errorf("wuamesh %s: exit %d, want %d and %q:\n%s%s", strings.Join(tt.args, " "), code, tt.code, tt.want, out, said)
		}
	}
}
