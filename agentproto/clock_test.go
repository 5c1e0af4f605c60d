package agentproto_test

import (
	"testing"
	"time"

	"wuamesh/agentproto"
)

// TestCompareClocks: what the line may have taken is not the clock's fault, nor
// that it was set while the answer was on its way.
func TestCompareClocks(t *testing.T) {
	noon := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	for _, tt := range []struct {
		name               string
		began, ended, said int // minutes past noon
		want               int // minutes ahead
	}{
		{"right", 0, 0, 0, 0},
		{"right, over a slow line", 0, 3, 2, 0},
		{"answered at once, and long on its way", 0, 10, 0, 0},
		{"ahead", 60, 61, 0, 60},
		{"behind", -61, -60, 0, -60},
		{"set right meanwhile, forwards", -60, 0, 0, 0},
		{"set right meanwhile, backwards", 60, 1, 1, 0},
		{"asleep for an hour after the answer", 0, 60, 0, 0},
	} {
		if got := agentproto.CompareClocks(at(tt.began), at(tt.ended), at(tt.said)); got != time.Duration(tt.want)*time.Minute {
			t.Errorf("%s: %s, want %d minutes", tt.name, got, tt.want)
		}
	}
}

// TestClockOffBy: five minutes are worth a word, what stays near them does not
// come and go, and what is about the same is the same to the byte: each new one
// would be news for every node.
func TestClockOffBy(t *testing.T) {
	off := func(d time.Duration, node string) *agentproto.ClockOff {
		return &agentproto.ClockOff{Node: node, Off: agentproto.Duration(d.Abs()), Behind: d < 0}
	}
	for _, tt := range []struct {
		name string
		was  *agentproto.ClockOff
		by   time.Duration
		node string
		want *agentproto.ClockOff
	}{
		{"right", nil, 0, "a", nil},
		{"a little off", nil, 299 * time.Second, "a", nil},
		{"off", nil, 300 * time.Second, "a", off(5*time.Minute, "a")},
		{"behind", nil, -3*time.Hour - time.Millisecond, "a", off(-3*time.Hour, "a")},
		{"at the bound still", off(5*time.Minute, "a"), 250 * time.Second, "a", off(5*time.Minute, "a")},
		{"right again", off(5*time.Minute, "a"), 239 * time.Second, "a", nil},
		{"about the same", off(3*time.Hour, "a"), 3*time.Hour + 2*time.Minute, "a", off(3*time.Hour, "a")},
		{"another amount", off(3*time.Hour, "a"), 4 * time.Hour, "a", off(4*time.Hour, "a")},
		{"another node", off(3*time.Hour, "a"), 3*time.Hour + time.Minute, "b", off(3*time.Hour+time.Minute, "b")},
		{"the other way", off(3*time.Hour, "a"), -3 * time.Hour, "a", off(-3*time.Hour, "a")},
		{"as far as can be", nil, 1<<63 - 1, "a", off(10*365*24*time.Hour, "a")},
		{"as far back as can be", nil, -1 << 63, "a", off(-10*365*24*time.Hour, "a")},
	} {
		got := agentproto.ClockOffBy(tt.by, tt.node, tt.was)
		if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestClockOffInWords(t *testing.T) {
	for want, c := range map[string]agentproto.ClockOff{
		"The clock of this host is 5 minutes ahead of that of the node rns-01.":             {Node: "rns-01", Off: agentproto.Duration(5*time.Minute + 20*time.Second)},
		"The clock of this host is 119 minutes behind that of the node rns-01.":             {Node: "rns-01", Off: agentproto.Duration(119 * time.Minute), Behind: true},
		"The clock of this host is 3 hours ahead of that of the node rns-01.":               {Node: "rns-01", Off: agentproto.Duration(3*time.Hour + 20*time.Minute)},
		"The clock of this host is 60 days behind that of the node it checked in with.":     {Off: agentproto.Duration(60 * 24 * time.Hour), Behind: true},
		"The clock of this host is 3650 days ahead of that of the node it checked in with.": {Off: agentproto.Duration(3650 * 24 * time.Hour)},
	} {
		if got := c.Fact(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
