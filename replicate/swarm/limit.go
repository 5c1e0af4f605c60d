package swarm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"
)

// A Class is a kind of line.
type Class int

// The classes of lines.
const (
	WAN    Class = iota // to nodes of other sites
	LAN                 // to nodes of this site
	Agents              // to those the files are for
	Source              // from where files originally come
	classes
)

func (c Class) String() string { return [...]string{"wan", "lan", "agents", "source"}[c] }

// A Direction is the way bytes go, seen from this node.
type Direction int

// The directions.
const (
	Down Direction = iota // to this node
	Up                    // from it
	directions
)

func (d Direction) String() string { return [...]string{"down", "up"}[d] }

// Never is the rate of a window in which nothing moves.
const Never = -1

// A Plan is how fast one class of line may be used in one direction. Its zero
// value is no limit at all.
type Plan struct {
	Rate    int64    `json:"rate,omitempty"`    // bytes per second; 0 no limit, Never nothing
	Windows []Window `json:"windows,omitempty"` // the first that fits counts instead of Rate
	Month   int64    `json:"month,omitempty"`   // bytes per calendar month; 0 no limit
}

// A Window is a part of the week, in local time. To may lie before From: the
// window then ends the next day.
type Window struct {
	Days     []time.Weekday `json:"days,omitempty"` // on which it begins; none for all
	From, To int            // minutes of the day; equal for the whole day
	Rate     int64          `json:"rate,omitempty"` // bytes per second; 0 no limit, Never nothing
}

// Check refuses a plan that makes no sense.
func (p Plan) Check() error {
	if p.Rate < Never || p.Month < 0 || len(p.Windows) > 50 {
		return errors.New("a rate is bytes per second, 0 for no limit or -1 for nothing; at most 50 windows")
	}
	for i, w := range p.Windows {
		if w.From < 0 || w.From >= 24*60 || w.To < 0 || w.To > 24*60 || w.Rate < Never || len(w.Days) > 7 {
			return fmt.Errorf("window %d: minutes of a day are 0 to 1440", i+1)
		}
		for _, d := range w.Days {
			if d < time.Sunday || d > time.Saturday {
				return fmt.Errorf("window %d: there is no day %d", i+1, d)
			}
		}
	}
	return nil
}

func (w Window) on(d time.Weekday) bool {
	for _, day := range w.Days {
		if day == d {
			return true
		}
	}
	return len(w.Days) == 0
}

func (w Window) holds(t time.Time) bool {
	minute, today := t.Hour()*60+t.Minute(), t.Weekday()
	yesterday := (today + 6) % 7
	switch {
	case w.From == w.To:
		return w.on(today)
	case w.From < w.To:
		return w.on(today) && minute >= w.From && minute < w.To
	default:
		return w.on(today) && minute >= w.From || w.on(yesterday) && minute < w.To
	}
}

// At is the rate at a time: bytes per second, 0 for no limit, [Never].
func (p Plan) At(t time.Time) int64 {
	for _, w := range p.Windows {
		if w.holds(t) {
			return w.Rate
		}
	}
	return p.Rate
}

// NextAllowed is the next time from t on at which the plan lets something
// move; zero when it never does.
func (p Plan) NextAllowed(t time.Time) time.Time {
	if p.At(t) != Never {
		return t
	}
	minute := t.Truncate(time.Minute)
	for range 8 * 24 * 60 {
		minute = minute.Add(time.Minute)
		if p.At(minute) != Never {
			return minute
		}
	}
	return time.Time{}
}

// Limits hold how fast this node uses its lines, and count what it moves.
// Safe for concurrent use.
type Limits struct {
	mu      sync.Mutex
	plans   [classes][directions]Plan
	buckets [classes][directions]bucket
	moved   [classes][directions]int64          // since the start
	months  map[int]*[classes][directions]int64 // bytes moved, by month
	share   int64                               // nodes of the site that share its line
	open    time.Time                           // until then there is no limit
	changed chan struct{}
	now     func() time.Time
}

// A bucket is a token bucket: it holds a quarter of a second's bytes.
type bucket struct {
	level float64
	at    time.Time
}

// NewLimits is without any limit.
func NewLimits() *Limits {
	return &Limits{share: 1, changed: make(chan struct{}), now: time.Now, months: map[int]*[classes][directions]int64{}}
}

// Set changes the plan of a class and direction at once.
func (l *Limits) Set(c Class, d Direction, p Plan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plans[c][d] = p
	l.tell()
}

// Open lifts all plans until a time, budgets included; the zero time lifts
// none.
func (l *Limits) Open(until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !until.Equal(l.open) {
		l.open = until
		l.tell()
	}
}

// Share says how many nodes use the site's WAN line: each takes its part of
// the rate and of the month.
func (l *Limits) Share(nodes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := int64(max(nodes, 1)); n != l.share {
		l.share = n
		l.tell()
	}
}

// Add counts bytes that were moved in the month of t before this start.
func (l *Limits) Add(c Class, d Direction, bytes int64, t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spent(t)[c][d] += bytes
}

// Spent says whether the budget of the month of t is used up.
func (l *Limits) Spent(c Class, d Direction, t time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used(c, d, t)
}

func (l *Limits) used(c Class, d Direction, t time.Time) bool {
	month := l.plans[c][d].Month
	return !t.Before(l.open) && month > 0 && l.spent(t)[c][d] >= month/l.share
}

// Limited says whether a plan was set: what is not limited need not be taken
// piece by piece.
func (l *Limits) Limited(c Class, d Direction) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.plans[c][d]
	return p.Rate != 0 || p.Month > 0 || len(p.Windows) > 0
}

// Moved is how many bytes were moved since the start.
func (l *Limits) Moved(c Class, d Direction) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.moved[c][d]
}

// Count counts bytes that nothing holds back.
func (l *Limits) Count(c Class, d Direction, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moved[c][d] += n
	l.spent(l.now())[c][d] += n
}

func (l *Limits) tell() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// spent is what was moved in the month of t. The months before and after stay:
// a clock that is put right must not give a budget twice.
func (l *Limits) spent(t time.Time) *[classes][directions]int64 {
	month := t.Year()*12 + int(t.Month())
	if l.months[month] == nil {
		if len(l.months) > 12 {
			clear(l.months)
		}
		l.months[month] = &[classes][directions]int64{}
	}
	return l.months[month]
}

// Blocked says since when, and until when, nothing may move: zero when it
// may, and a year ahead when nobody knows.
func (l *Limits) Blocked(c Class, d Direction, now time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.blocked(c, d, now)
}

func (l *Limits) blocked(c Class, d Direction, now time.Time) time.Time {
	if now.Before(l.open) {
		return time.Time{}
	}
	p, from := l.plans[c][d], now
	if l.used(c, d, now) {
		from = time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, now.Location())
	}
	switch next := p.NextAllowed(from); {
	case next.IsZero():
		return now.AddDate(1, 0, 0)
	case next.After(now):
		return next
	}
	return time.Time{}
}

// reserve takes n bytes, or says how long to wait before asking again.
func (l *Limits) reserve(c Class, d Direction, n int64, now time.Time) (wait time.Duration, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until := l.blocked(c, d, now); !until.IsZero() {
		return until.Sub(now), l.changed
	}
	if rate := l.plans[c][d].At(now); rate > 0 && !now.Before(l.open) {
		if c == WAN || c == Source {
			rate = max(rate/l.share, 1)
		}
		b, full := &l.buckets[c][d], math.Max(float64(rate)/4, 1)
		// A time before the last one is of a caller who was overtaken; one long
		// before it is of a clock that was set back.
		if passed := now.Sub(b.at); passed > 0 || passed < -time.Minute {
			b.level = math.Min(full, b.level+math.Max(passed.Seconds(), 0)*float64(rate))
			b.at = now
		}
		// A level below zero is a debt: n may be more than the bucket holds.
		if b.level <= 0 {
			return time.Duration((-b.level + 1) / float64(rate) * float64(time.Second)), l.changed
		}
		b.level -= float64(n)
	}
	l.moved[c][d] += n
	l.spent(now)[c][d] += n
	return 0, nil
}

// Take waits until n bytes may move. Changed limits count at once.
func (l *Limits) Take(ctx context.Context, c Class, d Direction, n int64) error {
	for {
		wait, changed := l.reserve(c, d, n, l.now())
		if wait == 0 {
			return nil
		}
		// A minute at most: the clock that the plan goes by may be set.
		timer := time.NewTimer(min(max(wait, time.Millisecond), time.Minute))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}
