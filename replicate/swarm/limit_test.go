package swarm

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPlan(t *testing.T) {
	workdays := []time.Weekday{time.Monday, time.Tuesday, time.Wednesday, time.Thursday, time.Friday}
	p := Plan{Rate: 100, Windows: []Window{
		{Days: workdays, From: 8 * 60, To: 18 * 60, Rate: Never},
		{Days: workdays, From: 22 * 60, To: 6 * 60, Rate: 0},
	}}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 6, day, hour, minute, 0, 0, time.Local) } // 1 June 2026 is a Monday
	for _, tt := range []struct {
		name string
		t    time.Time
		rate int64
		next time.Time
	}{
		{"office hours", at(1, 9, 30), Never, at(1, 18, 0)},
		{"the evening", at(1, 18, 0), 100, at(1, 18, 0)},
		{"the night", at(1, 23, 0), 0, at(1, 23, 0)},
		{"the night goes on", at(2, 5, 59), 0, at(2, 5, 59)},
		{"the night after Friday", at(6, 5, 0), 0, at(6, 5, 0)},
		{"Saturday", at(6, 9, 0), 100, at(6, 9, 0)},
		{"the night before Monday", at(1, 5, 0), 100, at(1, 5, 0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := p.At(tt.t); got != tt.rate {
				t.Errorf("rate %d, want %d", got, tt.rate)
			}
			if got := p.NextAllowed(tt.t); !got.Equal(tt.next) {
				t.Errorf("next allowed at %v, want %v", got, tt.next)
			}
		})
	}
	if next := (Plan{Rate: Never}).NextAllowed(at(1, 0, 0)); !next.IsZero() {
		t.Errorf("never is allowed at %v", next)
	}
}

func TestLimitsHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimits()
		const rate = 1 << 20
		l.Set(WAN, Down, Plan{Rate: rate})
		began := time.Now()
		var wg sync.WaitGroup
		for range 8 { // eight that take at once get no more than one
			wg.Go(func() {
				for range 10 << 20 / 8 / chunk {
					if err := l.Take(t.Context(), WAN, Down, chunk); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took < 9500*time.Millisecond || took > 10500*time.Millisecond {
			t.Errorf("10 MiB at 1 MiB/s took %v", took)
		}
		began = time.Now()
		if l.Take(t.Context(), LAN, Down, 1<<30) != nil || time.Since(began) != 0 {
			t.Error("the LAN is limited too")
		}
	})
}

func TestMonthlyBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the bubble begins on 1 January 2000
		l := NewLimits()
		l.Set(WAN, Down, Plan{Month: 1 << 20})
		l.Add(WAN, Down, 1<<19, time.Now())
		if err := l.Take(t.Context(), WAN, Down, 1<<19); err != nil {
			t.Fatal(err)
		}
		until := l.Blocked(WAN, Down, time.Now())
		if want := time.Date(2000, 2, 1, 0, 0, 0, 0, time.Local); !until.Equal(want) {
			t.Errorf("blocked until %v, want %v", until, want)
		}
		if err := l.Take(t.Context(), WAN, Down, 1); err != nil || time.Now().Before(until) {
			t.Errorf("took more than the month allows at %v, %v", time.Now(), err)
		}
		go func() { // more is allowed at once, for who waits too
			time.Sleep(time.Hour)
			l.Set(WAN, Down, Plan{})
		}()
		l.Set(WAN, Down, Plan{Rate: Never})
		began := time.Now()
		if err := l.Take(t.Context(), WAN, Down, 1); err != nil || time.Since(began) != time.Hour {
			t.Errorf("went on after %v, %v", time.Since(began), err)
		}
	})
}

// TestAClockThatIsSet sets the clock forward and back while something waits
// for a limit: it goes on within a minute of when the plan allows it, and no
// budget is given twice.
func TestAClockThatIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimits()
		set := make(chan time.Duration, 1)
		var off time.Duration
		l.now = func() time.Time {
			select {
			case off = <-set:
			default:
			}
			return time.Now().Add(off)
		}
		l.Set(WAN, Down, Plan{Windows: []Window{{From: 0, To: 18 * 60, Rate: Never}}}) // it is midnight
		began := time.Now()
		go func() {
			time.Sleep(time.Hour)
			set <- 20 * time.Hour
		}()
		if err := l.Take(t.Context(), WAN, Down, 1); err != nil || time.Since(began) > 62*time.Minute {
			t.Errorf("went on after %v, %v", time.Since(began), err)
		}
		l.Set(WAN, Down, Plan{Rate: 1000})
		for _, jump := range []time.Duration{-50 * 365 * 24 * time.Hour, 75 * 365 * 24 * time.Hour, 0} {
			set <- jump
			began = time.Now()
			for range 4 {
				if err := l.Take(t.Context(), WAN, Down, 1000); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(began); took < 2*time.Second || took > 5*time.Second {
				t.Errorf("4 kB at 1 kB/s took %v with the clock set by %v", took, jump)
			}
		}
		l.Set(WAN, Down, Plan{Month: 1})
		set <- 40 * 24 * time.Hour
		if until := l.Blocked(WAN, Down, l.now()); !until.IsZero() {
			t.Errorf("another month is blocked until %v", until)
		}
		set <- 0
		if until := l.Blocked(WAN, Down, l.now()); until.IsZero() {
			t.Error("the month's budget is there again after the clock was put right")
		}
	})
}

// TestOpenLines lifts a plan and a spent budget until a time, and no longer.
func TestOpenLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimits()
		l.Set(WAN, Down, Plan{Rate: Never, Month: 10})
		l.Add(WAN, Down, 10, time.Now())
		done := make(chan error)
		go func() { done <- l.Take(t.Context(), WAN, Down, 1<<30) }()
		synctest.Wait()
		until := time.Now().Add(time.Hour)
		l.Open(until)
		if err := <-done; err != nil || !time.Now().Before(until) {
			t.Errorf("opened at %v it was taken at %v, %v", until.Add(-time.Hour), time.Now(), err)
		}
		if l.Spent(WAN, Down, time.Now()) || !l.Blocked(WAN, Down, time.Now()).IsZero() {
			t.Error("something is held back while the lines are open")
		}
		time.Sleep(time.Hour)
		if !l.Spent(WAN, Down, time.Now()) || l.Blocked(WAN, Down, time.Now()).IsZero() {
			t.Error("nothing is held back after the hour")
		}
	})
}

// TestALimitHoldsWhateverTheOrder has callers read the clock and come to the
// limit in another order, as many at once do, and debts that take seconds to
// pay: no more passes than the rate lets through.
func TestALimitHoldsWhateverTheOrder(t *testing.T) {
	for name, tt := range map[string]struct {
		rate, n int64
		late    time.Duration // how much older every other caller's time is
	}{
		"in another order": {1 << 20, chunk, 3 * time.Millisecond},
		"a thin line":      {10 << 10, chunk, 0},
	} {
		l := NewLimits()
		l.Set(WAN, Down, Plan{Rate: tt.rate})
		began := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
		now, moved, step := began, int64(0), time.Millisecond
		for i := 0; now.Sub(began) < time.Minute; i++ {
			at := now
			if i%2 == 1 {
				at = at.Add(-tt.late)
			}
			wait, _ := l.reserve(WAN, Down, tt.n, at)
			if wait == 0 {
				moved += tt.n
			}
			if tt.late == 0 {
				step = max(wait, time.Millisecond)
			}
			now = now.Add(step)
		}
		if most := tt.rate*60 + tt.rate + tt.n; moved > most {
			t.Errorf("%s: %d bytes moved in a minute of at most %d", name, moved, most)
		}
	}
}
