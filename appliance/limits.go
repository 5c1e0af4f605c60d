package appliance

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
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
	// Until then no line has a limit, because somebody opened them for a while.
	OpenUntil time.Time `json:"open_until,omitzero"`
	OpenBy    string    `json:"open_by,omitempty"`
}

// A Line is a kind of line whose use a site limits, as the API names it.
type Line string

// The lines.
const (
	FromSites     Line = "wan_down"
	ToSites       Line = "wan_up"
	FromMicrosoft Line = "microsoft"
	IntoNode      Line = "lan_down"
	OutOfNode     Line = "lan_up"
	ToAgents      Line = "agents"
)

// Lines are those there are, the thin ones first.
var Lines = []Line{FromSites, ToSites, FromMicrosoft, IntoNode, OutOfNode, ToAgents}

func (l Line) String() string {
	return map[Line]string{
		FromSites: "from other sites", ToSites: "to other sites", FromMicrosoft: "from Microsoft", ToAgents: "to agents",
		IntoNode: "from nodes of the site", OutOfNode: "to nodes of the site",
	}[l]
}

// of is where the swarm has the line.
func (l Line) of() (swarm.Class, swarm.Direction) {
	switch l {
	case FromSites:
		return swarm.WAN, swarm.Down
	case ToSites:
		return swarm.WAN, swarm.Up
	case FromMicrosoft:
		return swarm.Source, swarm.Down
	case IntoNode:
		return swarm.LAN, swarm.Down
	case OutOfNode:
		return swarm.LAN, swarm.Up
	}
	return swarm.Agents, swarm.Up
}

// Plan is that of one line, to read or to change.
func (l *Limits) Plan(line Line) *swarm.Plan {
	switch line {
	case FromSites:
		return &l.WANDown
	case ToSites:
		return &l.WANUp
	case FromMicrosoft:
		return &l.Source
	case IntoNode:
		return &l.LANDown
	case OutOfNode:
		return &l.LANUp
	}
	return &l.Agents
}

func (l Limits) check() error {
	for _, line := range Lines {
		if err := l.Plan(line).Check(); err != nil {
			return &Problem{Kind: Invalid, Field: string(line), Msg: "The limit " + string(line) + " does not hold: " + err.Error() + "."}
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

// SetSiteLimits changes the limits of a site, this node's for an empty name;
// its nodes go by them at once. Lines that were opened for a while stay open.
func (a *Appliance) SetSiteLimits(ctx context.Context, by Actor, site string, l Limits) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	if err := l.check(); err != nil {
		return err
	}
	_, err := a.editLimits(ctx, by, site, "set limits", func(was Limits) Limits {
		l.OpenUntil, l.OpenBy = was.OpenUntil, was.OpenBy
		return l
	})
	return err
}

// longestOpen is how long the lines of a site may be opened for.
const longestOpen = 24 * time.Hour

// OpenLines lifts all limits of a site for a while, budgets included; 0 puts
// them back at once.
func (a *Appliance) OpenLines(ctx context.Context, by Actor, site string, d time.Duration) (Limits, error) {
	if err := by.need(Operator); err != nil {
		return Limits{}, err
	}
	if d < 0 || d > longestOpen {
		return Limits{}, &Problem{Kind: Invalid, Field: "for", Msg: "Lines are opened for at most a day.", Hint: "To lift a limit for longer, change it."}
	}
	what := "close the site's lines again"
	if d > 0 {
		what = "open the site's lines for " + decimalText(d.Hours()) + " h"
	}
	return a.editLimits(ctx, by, site, what, func(l Limits) Limits {
		l.OpenUntil, l.OpenBy = time.Time{}, ""
		if d > 0 {
			l.OpenUntil, l.OpenBy = time.Now().UTC().Add(d).Truncate(time.Second), by.Name
		}
		return l
	})
}

func (a *Appliance) editLimits(ctx context.Context, by Actor, site, what string, edit func(Limits) Limits) (l Limits, err error) {
	if site == "" {
		site = a.folder.share.site()
	}
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		was, _, err := limitPlans.find(tx, hex.EncodeToString([]byte(site)))
		if err != nil {
			return err
		}
		l = edit(was)
		if err := limitPlans.put(tx, hex.EncodeToString([]byte(site)), l); err != nil {
			return err
		}
		return a.audit(tx, by, what, "site "+site, was.String(), l.String())
	})
	if err != nil {
		return l, fmt.Errorf("%s of %s: %w", what, site, err)
	}
	a.log.InfoContext(ctx, "limits of a site changed", "site", site, "limits", l.String(), "by", by.Name)
	return l, nil
}

// String says the limits for people.
func (l Limits) String() string {
	var list []string
	for _, line := range Lines {
		if p := l.Plan(line); p.Rate != 0 || p.Month != 0 || len(p.Windows) > 0 {
			list = append(list, line.String()+" "+planText(*p))
		}
	}
	text := cmp.Or(strings.Join(list, "; "), "no limit")
	if !l.OpenUntil.IsZero() {
		text += "; all open until " + clock(l.OpenUntil)
	}
	return text
}

// planText says a plan of one line for people.
func planText(p swarm.Plan) string {
	text := RateText(p.Rate)
	for _, w := range p.Windows {
		text += fmt.Sprintf(", %s %s to %s %s", daysText(w.Days), minuteText(w.From), minuteText(w.To), RateText(w.Rate))
	}
	if p.Month > 0 {
		text += ", " + bytesText(p.Month) + " a month"
	}
	return text
}

// RateText says a rate in bytes per second, 0 for no limit, [Never].
func RateText(rate int64) string {
	switch rate {
	case 0:
		return "no limit"
	case swarm.Never:
		return "nothing"
	}
	return strconv.FormatFloat(float64(rate)*8/1e6, 'f', -1, 64) + " Mbit/s"
}

// limit applies the record of this node's site. The sharing's lock is held.
func (s *sharing) limit(r replicate.Record) {
	var l Limits
	if !r.Deleted && decode(r.Key, r.Value, &l) != nil {
		return
	}
	for _, line := range Lines {
		c, d := line.of()
		s.limits.Set(c, d, *l.Plan(line))
	}
	s.limits.Open(l.OpenUntil)
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
	Twice     int64            `json:"twice,omitempty"` // of Microsoft: what another node downloaded too
	Peers     map[string]int64 `json:"peers,omitempty"` // from each node, by its name
	To        map[string]int64 `json:"to,omitempty"`    // to each node
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
	t.Twice += sign * u.Twice
	t.Peers, t.To = addNodes(t.Peers, u.Peers, sign), addNodes(t.To, u.To, sign)
}

func addNodes(sum, more map[string]int64, sign int64) map[string]int64 {
	if sum == nil && len(more) > 0 {
		sum = map[string]int64{}
	}
	for name, n := range more {
		sum[name] += sign * n
	}
	return sum
}

// trafficNow is what was moved since the start.
func (s *sharing) trafficNow() Traffic {
	t := Traffic{
		Microsoft: s.f.upstream.Load(), Agents: s.f.sent.Load(), Twice: s.twice.Load(),
		WANDown: s.limits.Moved(swarm.WAN, swarm.Down), WANUp: s.limits.Moved(swarm.WAN, swarm.Up),
		LANDown: s.limits.Moved(swarm.LAN, swarm.Down), LANUp: s.limits.Moved(swarm.LAN, swarm.Up),
		Peers: map[string]int64{}, To: map[string]int64{},
	}
	if sw := s.swarm.Load(); sw != nil {
		for id, l := range sw.Links() {
			t.Peers[s.nameOf(id)] += l.In
			t.To[s.nameOf(id)] += l.Out
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
			s.limits.Add(swarm.LAN, swarm.Down, r.value.LANDown, now)
			s.limits.Add(swarm.LAN, swarm.Up, r.value.LANUp, now)
			s.limits.Add(swarm.Source, swarm.Down, r.value.Microsoft, now)
			s.limits.Add(swarm.Agents, swarm.Up, r.value.Agents, now)
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
	var since Traffic
	since.add(now, 1)
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

// A Pause is a line over which the site's limits let nothing pass now.
type Pause struct {
	Line   string    `json:"line"`   // "from other sites", "to other sites", "from Microsoft", "to agents"
	Until  time.Time `json:"until"`  // next allowed at
	Budget bool      `json:"budget"` // because the month's budget is used up
}

// Pauses are the lines over which nothing passes now.
func (a *Appliance) Pauses() (list []Pause) {
	now, l := time.Now(), a.folder.share.limits
	for _, line := range []Line{FromSites, ToSites, FromMicrosoft, ToAgents} {
		c, d := line.of()
		if until := l.Blocked(c, d, now); !until.IsZero() {
			list = append(list, Pause{line.String(), until, l.Spent(c, d, now)})
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
