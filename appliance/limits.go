package appliance

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"wuamesh/replicate"
	"wuamesh/replicate/swarm"
)

// Limits are how fast the nodes of a site may use its lines. All nodes of the
// site share its WAN line; each takes its part.
type Limits struct {
	WANDown swarm.Plan `json:"wan_down"` // from nodes of other sites
	WANUp   swarm.Plan `json:"wan_up"`   // to nodes of other sites
	LANDown swarm.Plan `json:"lan_down"`
	LANUp   swarm.Plan `json:"lan_up"`
	Source  swarm.Plan `json:"microsoft"` // from Microsoft
	Agents  swarm.Plan `json:"agents"`    // to agents, of each node: they take files over the LAN
}

func (l Limits) check() error {
	for name, p := range map[string]swarm.Plan{"wan_down": l.WANDown, "wan_up": l.WANUp, "lan_down": l.LANDown, "lan_up": l.LANUp, "microsoft": l.Source, "agents": l.Agents} {
		if err := p.Check(); err != nil {
			return &Problem{Kind: Invalid, Field: name, Msg: "The limit " + name + " does not hold: " + err.Error() + "."}
		}
	}
	return nil
}

// SiteLimits are the limits of a site; those of this node's for an empty name.
func (a *Appliance) SiteLimits(ctx context.Context, site string) (l Limits, err error) {
	if site == "" {
		site = a.folder.share.site()
	}
	err = a.db.View(ctx, func(tx *replicate.Tx) error {
		l, _, err = limitPlans.find(tx, hex.EncodeToString([]byte(site)))
		return err
	})
	return l, err
}

// SetSiteLimits changes the limits of a site; its nodes go by them at once.
func (a *Appliance) SetSiteLimits(ctx context.Context, by Actor, site string, l Limits) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	if site == "" {
		site = a.folder.share.site()
	}
	if err := l.check(); err != nil {
		return err
	}
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		was, _, err := limitPlans.find(tx, hex.EncodeToString([]byte(site)))
		if err != nil {
			return err
		}
		if err := limitPlans.put(tx, hex.EncodeToString([]byte(site)), l); err != nil {
			return err
		}
		return a.audit(tx, by, "set limits", "site "+site, was.String(), l.String())
	})
	if err == nil {
		a.log.InfoContext(ctx, "limits of a site changed", "site", site, "limits", l.String(), "by", by.Name)
	}
	return err
}

// String says the limits for people.
func (l Limits) String() string {
	text := ""
	for _, p := range []struct {
		name string
		swarm.Plan
	}{{"WAN down", l.WANDown}, {"WAN up", l.WANUp}, {"LAN down", l.LANDown}, {"LAN up", l.LANUp}, {"Microsoft", l.Source}, {"agents", l.Agents}} {
		if p.Rate == 0 && p.Month == 0 && len(p.Windows) == 0 {
			continue
		}
		if text != "" {
			text += "; "
		}
		text += p.name + " " + rateText(p.Rate)
		if n := len(p.Windows); n > 0 {
			text += fmt.Sprintf(", %d windows", n)
		}
		if p.Month > 0 {
			text += ", " + bytesText(p.Month) + " a month"
		}
	}
	if text == "" {
		return "no limit"
	}
	return text
}

func rateText(rate int64) string {
	switch rate {
	case 0:
		return "without limit"
	case swarm.Never:
		return "never"
	}
	return fmt.Sprintf("%.1f Mbit/s", float64(rate)*8/1e6)
}

// limit applies the record of this node's site. The sharing's lock is held.
func (s *sharing) limit(r replicate.Record) {
	var l Limits
	if !r.Deleted && decode(r.Key, r.Value, &l) != nil {
		return
	}
	s.limits.Set(swarm.WAN, swarm.Down, l.WANDown)
	s.limits.Set(swarm.WAN, swarm.Up, l.WANUp)
	s.limits.Set(swarm.LAN, swarm.Down, l.LANDown)
	s.limits.Set(swarm.LAN, swarm.Up, l.LANUp)
	s.limits.Set(swarm.Source, swarm.Down, l.Source)
	s.limits.Set(swarm.Agents, swarm.Up, l.Agents)
}

// Traffic is what a node moved on one day, in bytes.
type Traffic struct {
	Day       string           `json:"day"` // 2006-01-02, local time
	Microsoft int64            `json:"microsoft"`
	WANDown   int64            `json:"wan_down"`
	WANUp     int64            `json:"wan_up"`
	LANDown   int64            `json:"lan_down"`
	LANUp     int64            `json:"lan_up"`
	Agents    int64            `json:"agents"`
	Peers     map[string]int64 `json:"peers,omitempty"` // from each node, by its name
}

// Saved is what the site's line did not carry because the node was there:
// what agents took, less what the folder took in over the WAN.
func (t Traffic) Saved() int64 { return max(t.Agents-t.Microsoft-t.WANDown, 0) }

func (t *Traffic) add(u Traffic, sign int64) {
	t.Microsoft += sign * u.Microsoft
	t.WANDown += sign * u.WANDown
	t.WANUp += sign * u.WANUp
	t.LANDown += sign * u.LANDown
	t.LANUp += sign * u.LANUp
	t.Agents += sign * u.Agents
	for name, n := range u.Peers {
		if t.Peers == nil {
			t.Peers = map[string]int64{}
		}
		t.Peers[name] += sign * n
	}
}

// trafficNow is what was moved since the start.
func (s *sharing) trafficNow() Traffic {
	t := Traffic{
		Microsoft: s.f.upstream.Load(), Agents: s.f.sent.Load(),
		WANDown: s.limits.Moved(swarm.WAN, swarm.Down), WANUp: s.limits.Moved(swarm.WAN, swarm.Up),
		LANDown: s.limits.Moved(swarm.LAN, swarm.Down), LANUp: s.limits.Moved(swarm.LAN, swarm.Up),
		Peers: map[string]int64{},
	}
	if sw := s.swarm.Load(); sw != nil {
		for id, l := range sw.Links() {
			t.Peers[s.nameOf(id)] += l.In
		}
	}
	return t
}

// loadSpent counts what the month's budget had to give before this start.
func (s *sharing) loadSpent(tx *replicate.Tx, now time.Time) error {
	for r, err := range traffics.all(tx) {
		if err != nil {
			return err
		}
		if day, err := time.ParseInLocation(time.DateOnly, r.id, time.Local); err == nil && day.Year() == now.Year() && day.Month() == now.Month() {
			s.limits.Add(swarm.WAN, swarm.Down, r.value.WANDown, now)
			s.limits.Add(swarm.WAN, swarm.Up, r.value.WANUp, now)
			s.limits.Add(swarm.Source, swarm.Down, r.value.Microsoft, now)
		}
	}
	return nil
}

// trafficDays is how long the days' figures are kept.
const trafficDays = 92

// saveTraffic adds what was moved since the last time to the day's figures.
func (s *sharing) saveTraffic(ctx context.Context) error {
	now := s.trafficNow()
	s.mu.Lock()
	since := now
	since.Peers = nil
	since.add(Traffic{Peers: now.Peers}, 1)
	since.add(s.counted, -1)
	s.mu.Unlock()
	day := time.Now().Format(time.DateOnly)
	err := s.f.node.db.Update(ctx, func(tx *replicate.Tx) error {
		t, _, err := traffics.find(tx, day)
		if err != nil {
			return err
		}
		t.Day = day
		t.add(since, 1)
		return errors.Join(traffics.put(tx, day, t), traffics.del(tx, time.Now().AddDate(0, 0, -trafficDays).Format(time.DateOnly)))
	})
	if err != nil {
		return fmt.Errorf("record the day's traffic: %w", err)
	}
	s.mu.Lock()
	s.counted = now
	s.mu.Unlock()
	return nil
}

// Traffic lists the last days, the newest first, the current one included.
func (a *Appliance) Traffic(ctx context.Context, days int) (list []Traffic, err error) {
	if err := a.folder.share.saveTraffic(ctx); err != nil {
		return nil, err
	}
	err = a.db.View(ctx, func(tx *replicate.Tx) error {
		for r, err := range traffics.all(tx) {
			if err != nil {
				return err
			}
			list = append(list, r.value)
		}
		return nil
	})
	slices.SortFunc(list, func(x, y Traffic) int { return strings.Compare(y.Day, x.Day) })
	return list[:min(len(list), days)], err
}

// A LimitForm is a site's limits as most admins want them: a rate each way, a
// pause while people work, a budget. Zero is no limit.
type LimitForm struct {
	Down, Up, Microsoft float64 // Mbit/s
	Agents              float64 // Mbit/s, of each node to its agents
	MonthGB             float64 // from other sites and from Microsoft, of each
	PauseFrom, PauseTo  string  // "08:00"; both empty for no pause
	Workdays            bool    // the pause is Monday to Friday only
}

// Limits are the form's. The pause and the budget are for files between sites
// and from Microsoft: the LAN is not scarce.
func (f LimitForm) Limits() (Limits, error) {
	var pause []swarm.Window
	if f.PauseFrom != "" || f.PauseTo != "" {
		from, err := time.Parse("15:04", f.PauseFrom)
		to, err2 := time.Parse("15:04", f.PauseTo)
		if err != nil || err2 != nil || from.Equal(to) {
			return Limits{}, &Problem{Kind: Invalid, Field: "pause_from", Msg: "A pause has a beginning and an end, such as 08:00 and 18:00.", Hint: "Leave both empty for no pause."}
		}
		w := swarm.Window{From: from.Hour()*60 + from.Minute(), To: to.Hour()*60 + to.Minute(), Rate: swarm.Never}
		if f.Workdays {
			w.Days = []time.Weekday{time.Monday, time.Tuesday, time.Wednesday, time.Thursday, time.Friday}
		}
		pause = append(pause, w)
	}
	whole := func(n float64) int64 { // a limit that somebody sets is never rounded to none
		if n > 0 {
			return max(int64(math.Round(n)), 1)
		}
		return 0
	}
	plan := func(mbit, gb float64) swarm.Plan {
		return swarm.Plan{Rate: whole(mbit * 1e6 / 8), Windows: pause, Month: whole(gb * 1e9)}
	}
	for _, n := range []float64{f.Down, f.Up, f.Microsoft, f.MonthGB, f.Agents} {
		if !(n >= 0 && n <= 1e6) {
			return Limits{}, &Problem{Kind: Invalid, Field: "down", Msg: "A limit is a number, 0 for none.", Hint: "Rates are in Mbit/s, the month's budget in GB."}
		}
	}
	return Limits{WANDown: plan(f.Down, f.MonthGB), WANUp: plan(f.Up, 0), Source: plan(f.Microsoft, f.MonthGB), Agents: swarm.Plan{Rate: whole(f.Agents * 1e6 / 8)}}, nil
}

// Form is the limits as the form shows them; ok is false for limits that it
// cannot show, set through the API.
func (l Limits) Form() (f LimitForm, ok bool) {
	f = LimitForm{
		Down: float64(l.WANDown.Rate) * 8 / 1e6, Up: float64(l.WANUp.Rate) * 8 / 1e6, Microsoft: float64(l.Source.Rate) * 8 / 1e6, Agents: float64(l.Agents.Rate) * 8 / 1e6,
		MonthGB: float64(l.WANDown.Month) / 1e9,
	}
	if w := l.WANDown.Windows; len(w) > 0 {
		f.PauseFrom, f.PauseTo = fmt.Sprintf("%02d:%02d", w[0].From/60, w[0].From%60), fmt.Sprintf("%02d:%02d", w[0].To/60, w[0].To%60)
		f.Workdays = len(w[0].Days) == 5
	}
	back, err := f.Limits()
	return f, err == nil && reflect.DeepEqual(back, l)
}

// A Pause is a line over which the site's limits let nothing pass now.
type Pause struct {
	Line   string    `json:"line"`   // "from other sites", "to other sites", "from Microsoft", "to agents"
	Until  time.Time `json:"until"`  // next allowed at
	Budget bool      `json:"budget"` // because the month's budget is used up
}

// Pauses are the lines over which nothing passes now.
func (a *Appliance) Pauses() (list []Pause) {
	now, l := time.Now(), a.folder.share.limits
	for _, p := range []struct {
		line string
		c    swarm.Class
		d    swarm.Direction
	}{{"from other sites", swarm.WAN, swarm.Down}, {"to other sites", swarm.WAN, swarm.Up}, {"from Microsoft", swarm.Source, swarm.Down}, {"to agents", swarm.Agents, swarm.Up}} {
		if until := l.Blocked(p.c, p.d, now); !until.IsZero() {
			list = append(list, Pause{p.line, until, l.Spent(p.c, p.d, now)})
		}
	}
	return list
}

// A Coverage is how much of a file another node has, and has sent of it.
type Coverage struct {
	Node    string `json:"node"`
	Percent int    `json:"percent"`
	Bytes   int64  `json:"bytes,omitempty"` // that came from it since this fetch began
	Rate    int64  `json:"rate,omitempty"`  // bytes per second
}

// Coverage says, of those tasks whose files are being fetched from other nodes,
// by file, how much each of them has and what comes from it, what moves first.
func (a *Appliance) Coverage(of []Task) map[string][]Coverage {
	s := a.folder.share
	all := map[string][]Coverage{}
	sw := s.swarm.Load()
	if sw == nil {
		return all
	}
	for _, t := range sw.Transfers() {
		name := path.Base(t.Name) // the scan cab arrives elsewhere
		if !slices.ContainsFunc(of, func(o Task) bool { return o.File == name }) {
			continue
		}
		for id, p := range t.Peers {
			all[name] = append(all[name], Coverage{s.nameOf(id), int(100 * p.Part), p.Bytes, p.Rate})
		}
		slices.SortFunc(all[name], func(x, y Coverage) int {
			return cmp.Or(cmp.Compare(y.Rate, x.Rate), cmp.Compare(y.Percent, x.Percent), strings.Compare(x.Node, y.Node))
		})
	}
	return all
}
