package appliance_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"wuamesh/appliance"
	"wuamesh/replicate/swarm"
)

// TestLimitForm reads limits as people type them.
func TestLimitForm(t *testing.T) {
	t.Parallel()
	f := appliance.LimitForm{
		Rates:  map[appliance.Line]string{appliance.FromSites: "10", appliance.ToSites: "2,5 Mbit/s", appliance.FromMicrosoft: "No limit", appliance.ToAgents: "nothing"},
		Months: map[appliance.Line]string{appliance.FromMicrosoft: "200 GB"},
		Windows: []appliance.LimitWindow{
			{Days: "Mon-Fri", From: "07:00", To: "19:00", Rate: "nothing", Lines: []appliance.Line{appliance.FromSites, appliance.ToSites}},
			{Days: "every day", From: " ", Rate: ""}, // of which nothing is said
			{Days: "sat, Sun", From: "22:00", To: "06:00", Rate: "no limit", Lines: []appliance.Line{appliance.FromSites}},
			{Days: "fri-mon", From: "0:00", To: "24:00", Rate: "1", Lines: []appliance.Line{appliance.IntoNode}},
		},
	}
	l, err := f.Limits()
	must(t, err)
	week := []time.Weekday{time.Monday, time.Tuesday, time.Wednesday, time.Thursday, time.Friday}
	work := swarm.Window{Days: week, From: 7 * 60, To: 19 * 60, Rate: swarm.Never}
	want := appliance.Limits{
		WANDown: swarm.Plan{Rate: 1_250_000, Windows: []swarm.Window{work, {Days: []time.Weekday{time.Saturday, time.Sunday}, From: 22 * 60, To: 6 * 60}}},
		WANUp:   swarm.Plan{Rate: 312_500, Windows: []swarm.Window{work}}, Source: swarm.Plan{Month: 200e9}, Agents: swarm.Plan{Rate: swarm.Never},
		LANDown: swarm.Plan{Windows: []swarm.Window{{Days: []time.Weekday{time.Monday, time.Friday, time.Saturday, time.Sunday}, Rate: 125_000}}},
	}
	if !reflect.DeepEqual(l, want) {
		t.Errorf("it is read as\n%+v, want\n%+v", l, want)
	}
	if got := l.String(); !strings.HasPrefix(got, "from other sites 10 Mbit/s, Mon-Fri 07:00 to 19:00 nothing, Sat,Sun 22:00 to 06:00 no limit; to other sites 2.5 Mbit/s") {
		t.Errorf("it is said as %q", got)
	}
	if l, err := (appliance.LimitForm{Rates: map[appliance.Line]string{appliance.FromSites: "0.000000001"}, Months: map[appliance.Line]string{appliance.FromSites: "0.000000000001"}}).Limits(); err != nil || l.WANDown.Rate != 1 || l.WANDown.Month != 1 {
		t.Errorf("the least there is becomes %+v, %v", l, err)
	}
	one := []appliance.Line{appliance.FromSites}
	for field, f := range map[string]appliance.LimitForm{
		"rate_wan_down":   {Rates: map[appliance.Line]string{appliance.FromSites: "fast"}},
		"rate_wan_up":     {Rates: map[appliance.Line]string{appliance.ToSites: "-1"}},
		"rate_agents":     {Rates: map[appliance.Line]string{appliance.ToAgents: "NaN"}},
		"month_microsoft": {Months: map[appliance.Line]string{appliance.FromMicrosoft: "much"}},
		"window_0":        {Windows: []appliance.LimitWindow{{From: "8 o'clock", To: "19:00", Rate: "1", Lines: one}}},
		"window_1":        {Windows: []appliance.LimitWindow{{}, {To: "19:00", Rate: "1", Lines: one}}},
		"window_2":        {Windows: []appliance.LimitWindow{{}, {}, {From: "07:00", To: "19:00", Rate: "1"}}},
		"window_3":        {Windows: []appliance.LimitWindow{{}, {}, {}, {From: "07:00", To: "19:00", Lines: one}}},
		"window_4":        {Windows: []appliance.LimitWindow{{}, {}, {}, {}, {Days: "Someday", From: "07:00", To: "19:00", Rate: "1", Lines: one}}},
		"window_5":        {Windows: []appliance.LimitWindow{{}, {}, {}, {}, {}, {From: "07:00", To: "19:00", Rate: "1", Lines: []appliance.Line{"moon"}}}},
	} {
		if _, err := f.Limits(); problemOf(t, err).Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestLimitFormOfAnyLimits types random limits back: what holds at each minute
// of the week on each line is the same.
func TestLimitFormOfAnyLimits(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		var l appliance.Limits
		rate := func() int64 { return []int64{0, swarm.Never, 1, 312_500, r.Int64N(1 << 33)}[r.IntN(5)] }
		pool := []swarm.Window{}
		for range 5 {
			w := swarm.Window{From: r.IntN(1440), To: r.IntN(1441), Rate: rate()}
			for d := range 7 {
				if r.IntN(3) == 0 {
					w.Days = append(w.Days, time.Weekday(d))
				}
			}
			pool = append(pool, w)
		}
		for _, line := range appliance.Lines {
			p := l.Plan(line)
			p.Rate, p.Month = rate(), r.Int64N(2)*r.Int64N(1<<45)
			for range r.IntN(6) {
				p.Windows = append(p.Windows, pool[r.IntN(len(pool))])
			}
		}
		back, err := l.Form().Limits()
		if err != nil {
			t.Fatalf("seed %d: %+v is shown as %+v: %v", seed, l, l.Form(), err)
		}
		for _, line := range appliance.Lines {
			if p, q := l.Plan(line), back.Plan(line); p.Rate != q.Rate || p.Month != q.Month {
				t.Fatalf("seed %d, %s: %+v became %+v", seed, line, p, q)
			}
			if was, is := fmt.Sprint(l.Week(line)), fmt.Sprint(back.Week(line)); was != is {
				t.Fatalf("seed %d, %s:\n%+v became\n%+v", seed, line, l.Plan(line), back.Plan(line))
			}
		}
	}
}

// TestOpeningLines lifts a pause that holds a file back, for a while and not
// for ever.
func TestOpeningLines(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *appliance.Config) { c.Site = "rennes" })
	must(t, s.SetSiteLimits(t.Context(), owner, "", appliance.Limits{Source: swarm.Plan{Rate: swarm.Never}}))
	name := s.wants(t, 1)[0]
	s.has(t, name, func(k appliance.Task) bool { return k.Waiting != "" })
	operator := appliance.Actor{Name: "o", Role: appliance.Operator}
	l, err := s.OpenLines(t.Context(), operator, "rennes", time.Hour)
	if left := time.Until(l.OpenUntil); err != nil || left < 59*time.Minute || left > time.Hour || l.OpenBy != "o" || l.Source.Rate != swarm.Never {
		t.Errorf("opened they are %+v, %v", l, err)
	}
	s.has(t, name, status("done"))
	if p := s.Pauses(); len(p) != 0 {
		t.Errorf("the pauses are %+v", p)
	}
	must(t, s.SetSiteLimits(t.Context(), owner, "", appliance.Limits{Source: swarm.Plan{Rate: swarm.Never, Month: 1}}))
	if l, err := s.SiteLimits(t.Context(), ""); err != nil || l.OpenBy != "o" {
		t.Errorf("after the limits were changed they are %+v, %v", l, err)
	}
	must(t, second(s.OpenLines(t.Context(), operator, "", 0)))
	eventually(t, "they are closed", func() error {
		if p := s.Pauses(); len(p) != 1 || p[0].Line != "from Microsoft" {
			return fmt.Errorf("the pauses are %+v", p)
		}
		return nil
	})
	log, _, err := s.Audit(t.Context(), "site rennes", appliance.Page{})
	must(t, err)
	if len(log) != 4 || log[0].Action != "close the site's lines again" || log[2].Action != "open the site's lines for 1 h" || !strings.Contains(log[2].After, "all open until") {
		t.Errorf("the audit log has %+v", log)
	}
	if _, err := s.OpenLines(t.Context(), operator, "", 25*time.Hour); problemOf(t, err).Kind != appliance.Invalid {
		t.Errorf("for more than a day: %v", err)
	}
	if _, err := s.OpenLines(t.Context(), appliance.Actor{Name: "v", Role: appliance.Viewer}, "", time.Hour); problemOf(t, err).Kind != appliance.Denied {
		t.Errorf("a viewer opens them: %v", err)
	}
}
